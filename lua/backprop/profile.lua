--[[
bp.profile: where the time of a gradient goes, by operation and line of the user's script, so that one sees before
writing a gradient by hand whether it is worth it.
]]

local core = require "backprop.core"
local tree = require "backprop.tree"
local grad = require "backprop.grad"

local profile = {}

-- What a fused operation would do at once: an operation, the operation that made its argument, and what to use.
local hints = {
  {op = "log", of = "softmax", use = "bp.log_softmax"},
  {op = "log", of = "div", use = "bp.log_softmax, if this is the logarithm of a softmax"},
  {op = "log", of = "sum", use = "bp.logsumexp, if this is the logarithm of a sum of exponentials"},
  {op = "add", of = "matmul", use = "bp.linear"},
  {op = "sum", of = "mul", use = "bp.dot, of vectors"},
  {op = "dot", of = "log", use = "bp.softmax_cross_entropy, if this is a cross entropy"},
  {op = "dot", of = "log_softmax", use = "bp.softmax_cross_entropy"},
}

local function hint_for(node)
  for _, hint in ipairs(hints) do
    if node.op == hint.op then
      for _, input in ipairs(node.inputs) do
        if input == hint.of then return hint.use end
      end
    end
  end
end

-- One row for each operation and line.
local function summarise(trace)
  local rows, by_key, total = {}, {}, 0
  for _, node in ipairs(trace) do
    local line = (node.line or ""):gsub(": $", "")
    local key = node.op .. "\0" .. line
    local row = by_key[key]
    if not row then
      row = {op = node.op, line = line, calls = 0, forward = 0, backward = 0, bytes = 0, hint = hint_for(node)}
      by_key[key] = row
      rows[#rows + 1] = row
    end
    row.calls = row.calls + 1
    row.forward, row.backward = row.forward + node.forward, row.backward + node.backward
    row.bytes = row.bytes + node.bytes
    total = total + node.forward + node.backward
  end
  for _, row in ipairs(rows) do row.share = total > 0 and (row.forward + row.backward) / total or 0 end
  table.sort(rows, function(a, b) return a.share > b.share end)
  rows.total = total
  return rows
end

local Report = {__name = "profile"}

function Report.__tostring(rows)
  local lines = {("%-24s %6s %12s %12s %12s %6s  %s"):format("operation", "calls", "forward us", "backward us", "bytes",
    "share", "line")}
  for _, row in ipairs(rows) do
    lines[#lines + 1] = ("%-24s %6d %12.1f %12.1f %12d %5.1f%%  %s"):format(row.op, row.calls, row.forward * 1e6,
      row.backward * 1e6, row.bytes, row.share * 100, row.line)
    if row.hint then lines[#lines + 1] = ("%24s (%s does this at once)"):format("", row.hint) end
  end
  return table.concat(lines, "\n")
end

--- Runs value and gradient of f(...) with respect to its first argument, prints and returns a table of rows: op, line,
-- calls, forward and backward (seconds), bytes (of results), share (of the total, 0 to 1) and hint (or nil).
function profile.profile(f, ...)
  if not tree.callable(f) then core.raise("bp.profile: expected a function, got %s", tree.describe(f)) end
  local run = grad.traced(f)
  run(...) -- once to warm the pool up
  local _ <close> = setmetatable({}, {__close = function() core.timing(false) end})
  core.timing(true)
  local trace = run(...)
  local rows = setmetatable(summarise(trace), Report)
  print(rows)
  return rows
end

return profile
