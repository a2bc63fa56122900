-- bp.check over the samples of every row: the second of the nets, alone. An error of the first that fails.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local operands = require "support.operands"

for _, row in ipairs(bp.ops()) do
  for _, arguments in ipairs(row.differentiable and operands.samples(row) or {}) do
    local sample = operands.sample(row, arguments, "f64")
    local ok, message = pcall(bp.check, sample.f, sample.operands)
    if not ok then error(row.name .. ": " .. message, 0) end
  end
end
