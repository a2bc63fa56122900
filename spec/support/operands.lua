-- Takes the samples of a row of bp.ops() apart: which arguments of a call are operands (what can carry a gradient) and
-- which are settings (axes, sizes, names). A sample becomes
--
--   { f = function(list), operands = list }
--
-- where list holds the operands only, also those inside a list argument, and f puts them back among the settings.
--
-- A row's signature says which arguments are operands: `value` and `values` are, and a `target` that is no class
-- number.

local bp = require "backprop"
local core = require "backprop.core" -- for rows behind operators, such as div
local help = require "support.helpers"

local operands = {}

-- A row's samples: a list of argument lists. A text is a Lua chunk's return list with bp in scope.
function operands.samples(row)
  local samples = row.samples
  if type(samples) == "string" then
    samples = assert(load("local bp = ...\nreturn " .. samples, row.name .. ".samples"))(bp)
  elseif type(samples) == "function" then
    samples = samples()
  end
  return samples
end

-- The function of a row, or nil.
function operands.callable(row)
  return bp[row.name] or core[row.name]
end

-- For each argument "value", "values" or "setting".
local function roles(row, arguments)
  local list = {}
  for kind in row.signature:gmatch "%s*(%a+)[^,]*" do
    local x = arguments[#list + 1]
    if kind == "target" then
      kind = help.is_array(x) and help.shape(x) == help.shape(arguments[1]) and "value" or "setting"
    end
    list[#list + 1] = (kind == "value" or kind == "values") and kind or "setting"
  end
  return list
end

-- Arrays in f64 that hold what an f32 can.
function operands.rounded(arguments)
  return help.map(function(x)
    return help.is_array(x) and x:astype("f32"):astype("f64") or type(x) == "number" and math.type(x) == "float"
      and help.f32(x) or x
  end, arguments)
end

-- The cotangent's arrays in the dtypes of the result's.
function operands.matching(cotangent, result)
  if help.is_array(result) then return cotangent:astype(result:dtype()) end
  if type(result) == "number" then return cotangent end
  local list = {}
  for k, v in pairs(result) do list[k] = operands.matching(cotangent[k], v) end
  return list
end

-- f64 integers among operands become floats: every operand is a leaf.
local function operand(x, dtype)
  if help.is_array(x) then return x:astype(dtype):clone() end
  return x + 0.0
end

function operands.sample(row, arguments, dtype)
  local role, list, places = roles(row, arguments), {}, {}
  local count = arguments.n or #arguments
  for i = 1, count do
    local x = arguments[i]
    if role[i] == "values" then
      for k, element in ipairs(x) do
        list[#list + 1] = operand(element, dtype)
        places[#places + 1] = { i, k }
      end
    elseif role[i] == "value" and (type(x) == "number" or help.is_array(x)) then
      list[#list + 1] = operand(x, dtype)
      places[#places + 1] = { i }
    end
  end
  local call = operands.callable(row)
  local function f(xs)
    local all = table.move(arguments, 1, count, 1, {})
    for i = 1, count do
      if role[i] == "values" then all[i] = {} end
    end
    for at, place in ipairs(places) do
      if place[2] then all[place[1]][place[2]] = xs[at] else all[place[1]] = xs[at] end
    end
    return call(table.unpack(all, 1, count))
  end
  return { f = f, operands = list }
end

return operands
