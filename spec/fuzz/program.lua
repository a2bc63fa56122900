-- A program as text: named inputs, statements that fill the registers r[1], r[2], ..., and a result.
--
--   { seed =, inputs = { "bp.vector{ 1, 2 }", "0.5" }, body = { "r[3] = bp.mul(r[1], r[2])" }, result = "r[3]" }
--
-- The first registers are the inputs. A statement that raises leaves its register nil. `program.compile` makes the Lua
-- functions that the oracle calls, `program.script` a script that stands alone, from the same texts.

local program = {}

-- What statements may use beside bp and r, defined where it is used. `freeze` is for values whose dependence on the
-- inputs no gradient sees: it gives those of the last run again while differences are taken. `stale` has variables
-- whose call has ended, `foreign` those of a tape that is open.
local prelude = {
  { "kept", "local kept" },
  { "Pair", 'local Pair = bp.record("Pair", "a", "b")' },
  { "hostile", 'local function hostile(forward) return bp.op{ name = "hostile", forward = forward } end' },
  { "stale", "local stale = {}\n"
    .. "bp.grad(function(v, s) stale.v, stale.s = v, s * 2 return stale.s end, { wrt = { 1, 2 } })(bp.ones(3), 2)" },
  { "foreign", "local foreign = {}\n"
    .. "foreign.keep = { bp.vjp(function(v) foreign.v = v return v end, bp.ones(3)) }" },
  { "released", "local released = bp.ones(3)\nbp.release(released)" },
  { "freeze", "local frozen, replay = {}, {}\n"
    .. "local function freeze(k, f)\n"
    .. "  if replay.on then return frozen[k] end\n"
    .. "  local value = f()\n"
    .. "  frozen[k] = bp.map(function(leaf) return bp.kind(leaf) == 'number' and leaf or leaf:clone() end, value)\n"
    .. "  return value\n"
    .. "end" },
}

local function uses(text, name)
  return text:find("%f[%w_]" .. name .. "%f[^%w_]") ~= nil
end

-- The definitions that some text needs.
function program.prelude(text)
  local lines = {}
  for _, entry in ipairs(prelude) do
    if uses(text, entry[1]) then lines[#lines + 1] = entry[2] end
  end
  return table.concat(lines, "\n")
end

local function text_of(p)
  return table.concat(p.body, "\n") .. "\n" .. p.result
end

-- Two functions and a table: inputs() makes fresh inputs; f(x, watch) is the program, where watch(r, errors), if given,
-- sees the registers and the error of each statement before the result is formed; replay.on freezes.
function program.compile(p)
  local lines = { "local bp = require 'backprop'", program.prelude(text_of(p)) }
  local function add(...) lines[#lines + 1] = string.format(...) end
  add("local function inputs() return { %s } end", table.concat(p.inputs, ", "))
  add("local function f(x, watch)")
  add("  local r, errors = { table.unpack(x) }, {}")
  for i, statement in ipairs(p.body) do
    add("  do local ok, e = pcall(function() %s end) if not ok then errors[%d] = { e } end end", statement, i)
  end
  add("  if watch then watch(r, errors) end")
  add("  return %s", p.result)
  add("end")
  add("return inputs, f, %s", uses(text_of(p), "freeze") and "replay" or "{}")
  return assert(load(table.concat(lines, "\n"), "=program"))()
end

-- What makes a program's result, or parts of it, worth a look, for a script that stands alone.
local report = [[

-- The sum of all that f returns, and how it changes with each element of the inputs.
local function total(y)
  local sum = 0
  for _, leaf in ipairs(bp.leaves(y)) do sum = sum + bp.sum(leaf) end
  return sum
end
local function call(g, ...)
  local co, arguments = coroutine.create(g), table.pack(...)
  local results
  repeat results = table.pack(coroutine.resume(co, table.unpack(arguments, 1, arguments.n)))
  until coroutine.status(co) == "dead"
  return table.unpack(results, 1, results.n)
end
print("plain", call(function() return total(f(inputs())) end))
local ok, value, gradient = call(bp.value_and_grad(f), inputs())
print("tracked", ok and total(value) or value)
if not ok then return end
REPLAY
local function moved(i, k, h)
  local x = inputs()
  if type(x[i]) == "number" then
    x[i] = x[i] + h
  else
    local _, columns = x[i]:shape()
    local row = columns and x[i][(k - 1) // columns + 1] or x[i]
    k = columns and (k - 1) % columns + 1 or k
    row[k] = row[k] + h
  end
  return select(2, call(function() return total(f(x)) end))
end
for i, x in ipairs(inputs()) do
  print("gradient of input " .. i, gradient[i])
  for k = 1, type(x) == "number" and 1 or bp.sum(bp.greater_equal(x, -math.huge)) do
    print("  difference", k, (moved(i, k, 1e-5) - moved(i, k, -1e-5)) / 2e-5)
  end
end
]]

-- A script that shows what is wrong. What raises is caught, as in the program.
function program.script(p, kind, message)
  local lines = {}
  local function add(...) lines[#lines + 1] = string.format(...) end
  add("-- seed %s: %s: %s", tostring(p.seed), kind, (message:gsub("\n", "\n-- ")))
  add('local bp = require "backprop"')
  add("%s", program.prelude(text_of(p)))
  add("local function inputs() return { %s } end", table.concat(p.inputs, ", "))
  add("local function f(x)")
  add("  local r = { table.unpack(x) }")
  for _, statement in ipairs(p.body) do add("  pcall(function() %s end)", statement) end
  add("  return %s", p.result)
  add("end")
  local replay = uses(text_of(p), "freeze") and "replay.on = true" or ""
  return table.concat(lines, "\n") .. (report:gsub("REPLAY\n", replay == "" and "" or replay .. "\n"))
end

return program
