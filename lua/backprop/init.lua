--[[
lua-backprop: reverse-mode automatic differentiation for Lua 5.4.

The public module. What reads best in Lua stands in the files beside this one, the rest in the C module backprop.core;
here they are put together under the names that users know, and nothing else happens.
]]

local core = require "backprop.core"

-- Errors are raised at the first line outside this folder.
local folder = core.claim_sources()

local tree = require "backprop.tree"
local record = require "backprop.record"
local lens = require "backprop.lens"
local array_lenses = require "backprop.array_lenses"
local grad = require "backprop.grad"
local op = require "backprop.op"
local check = require "backprop.check"
local profile = require "backprop.profile"
local arrays = require "backprop.arrays"

local raise, keep_line = core.raise, core.keep_line

local bp = {_VERSION = "backprop scm-1"}

-- Operations: the rows of the core, under their own names -----------------------------------------------------------

local rows = core.rows()
for _, row in ipairs(rows) do bp[row.name] = core[row.name] end

-- Arrays, and operations that read better in Lua ---------------------------------------------------------------------

for name, f in pairs(arrays.functions) do bp[name] = keep_line(f) end
for name, f in pairs(arrays.of_tracked_parameters) do bp[name] = keep_line(f, core[name]) end
for _, name in ipairs {"zeros", "ones", "full", "eye", "linspace", "rng", "set_threads"} do bp[name] = core[name] end

local not_methods = {add = true, sub = true, mul = true, div = true, stack = true, concat = true, konst = true}
for _, row in ipairs(rows) do
  if not not_methods[row.name] then core.methods[row.name] = bp[row.name] end
end
for name, f in pairs(arrays.methods) do core.methods[name] = arrays.functions[name] and bp[name] or keep_line(f) end

-- Structures --------------------------------------------------------------------------------------------------------

-- A function of one argument, not less and not more.
local function of_one(name, f)
  return keep_line(function(...)
    local given = select("#", ...)
    if given ~= 1 then raise("bp.%s: expected 1 argument, got %d", name, given) end
    return f(...)
  end)
end

bp.kind = of_one("kind", tree.kind)
bp.record, bp.list, bp.static = record.record, record.list, record.static
bp.zero, bp.one, bp.add = of_one("zero", tree.zero), of_one("one", tree.one), keep_line(tree.add)
bp.instance = tree.instance
bp.leaves, bp.paths = of_one("leaves", tree.leaves), of_one("paths", tree.paths)
for _, name in ipairs {"lens", "view", "set", "over", "preview", "collect", "fields", "at", "each", "filtered"} do
  bp[name] = lens[name]
end
for name, lens_of in pairs(array_lenses) do bp[name] = lens_of end

function bp.map(f, x, ...)
  if not tree.callable(f) then raise("bp.map: expected a function, got %s", tree.describe(f)) end
  if select("#", x, ...) == 1 and x == nil then raise("bp.map: a structure is missing") end
  return tree.map("bp.map", f, x, ...)
end

-- Differentiation, training -----------------------------------------------------------------------------------------

bp.eval, bp.grad, bp.vjp = grad.eval, grad.grad, grad.vjp
function bp.value_and_grad(f, options, surplus) return grad.value_and_grad(f, options, nil, surplus) end
bp.constant, bp.value = of_one("constant", grad.constant), of_one("value", grad.value)
bp.op, bp.nograd, bp.iso = op.op, op.nograd, op.iso
bp.check, bp.profile = check.check, profile.profile
bp.optim = require "backprop.optim"
bp.data = require "backprop.data"
bp.stats = core.stats

--- Stops at the first operation that makes a NaN or inf, forward or backward, naming the line that called it.
function bp.check_finite(on, surplus)
  if surplus ~= nil then raise("bp.check_finite: expected 1 argument: true or false, for every function") end
  if type(on) ~= "boolean" then raise("bp.check_finite: expected true or false, got %s", tree.describe(on)) end
  core.check_finite(on)
end

-- About the library ---------------------------------------------------------------------------------------------------

--- All operations: name, signature, arity, doc, formula, samples (a list of argument lists) and source.
function bp.ops()
  local list = {}
  for i, row in ipairs(core.rows()) do
    local text = "local bp = ... return " .. (row.samples ~= "" and row.samples or "{}")
    local make, problem = load(text, "=" .. row.name)
    if problem == "not enough memory" then error(problem, 0) end
    if not make then raise("bp.ops: the samples of %s are no Lua list", row.name) end
    row.samples = make(bp)
    list[i] = row
  end
  return list
end

-- Where backprop.h is: beside the Lua files when installed, in src/ of a checkout. Inside a host there is no folder.
local function find_header()
  local path = folder:match "^@(.*)"
  if not path or not io then return nil end
  for _, candidate in ipairs {path .. "include", path .. "../../src"} do
    local file = io.open(candidate .. "/backprop.h")
    if file then
      file:close()
      return candidate
    end
  end
end

bp.include_dir = find_header()

return bp
