-- What the specs share: comparison with a stated tolerance, errors, numeric gradients, windows and random structures.
-- Nothing here calls a differentiating function of the library, so that it stays an independent witness. Load it with
--
--   package.path = "./spec/?.lua;" .. package.path
--   local help = require "support.helpers"
--
-- A structure here is a number, an array, or a table of structures. Failures are errors at the caller's line.

local bp = require "backprop"

local help = { dtypes = { "f64", "f32" }, nan = 0 / 0, inf = math.huge }

local function is_array(x)
  local kind = type(x) == "userdata" and bp.kind(x)
  return kind == "vector" or kind == "matrix"
end
help.is_array = is_array

-- A number as an f32 holds it.
function help.f32(x)
  return (string.unpack("<f", string.pack("<f", x)))
end

-- The shape as text: "number", "3", "2x3".
function help.shape(x)
  if type(x) == "number" then return "number" end
  local rows, cols = x:shape()
  return cols and ("%dx%d"):format(rows, cols) or ("%d"):format(rows)
end

-- Nested Lua tables in place of arrays.
function help.plain(x)
  if is_array(x) then return x:totable() end
  if type(x) ~= "table" then return x end
  local copy = {}
  for k, v in pairs(x) do copy[k] = help.plain(v) end
  return copy
end

local function agree(a, b, tolerance)
  if a ~= a or b ~= b then return a ~= a and b ~= b end
  if a == b then return true end
  if math.abs(a) == math.huge or math.abs(b) == math.huge then return false end
  return math.abs(a - b) <= tolerance * math.max(1, math.abs(a), math.abs(b))
end

-- nil, or what differs first. An array agrees with a table of its elements; two arrays must also agree in shape.
local function difference(expected, actual, tolerance, path)
  if is_array(expected) and is_array(actual) and help.shape(expected) ~= help.shape(actual) then
    return ("%s: expected shape %s, got %s"):format(path, help.shape(expected), help.shape(actual))
  end
  if is_array(expected) then expected = expected:totable() end
  if is_array(actual) then actual = actual:totable() end
  if type(expected) ~= type(actual) then
    return ("%s: expected %s, got %s"):format(path, tostring(expected), tostring(actual))
  elseif type(expected) == "number" then
    if agree(expected, actual, tolerance) then return nil end
    return ("%s: expected %.17g, got %.17g (tolerance %g)"):format(path, expected, actual, tolerance)
  elseif type(expected) ~= "table" then
    if expected == actual then return nil end
    return ("%s: expected %s, got %s"):format(path, tostring(expected), tostring(actual))
  end
  for k, v in pairs(expected) do
    local found = difference(v, actual[k], tolerance, ("%s[%s]"):format(path, tostring(k)))
    if found then return found end
  end
  for k in pairs(actual) do
    if expected[k] == nil then return ("%s[%s]: not expected"):format(path, tostring(k)) end
  end
end

-- |expected - actual| <= tolerance * max(1, |expected|, |actual|) in every number (default tolerance 1e-12). NaN agrees
-- with NaN only, an infinity with itself only.
function help.close(expected, actual, tolerance, what)
  local found = difference(expected, actual, tolerance or 1e-12, what or "value")
  if found then error(found, 2) end
end

-- Equal in every bit that == sees, and NaN where NaN is expected; arrays also in shape and dtype.
function help.same(expected, actual, what)
  local found = difference(expected, actual, 0, what or "value")
  if not found and is_array(expected) and is_array(actual) and expected:dtype() ~= actual:dtype() then
    found = ("expected dtype %s, got %s"):format(expected:dtype(), actual:dtype())
  end
  if found then error(found, 2) end
end

function help.differs(a, b, tolerance)
  return difference(a, b, tolerance or 1e-12, "") ~= nil
end

-- Calls f(...), which must raise a message that holds each of the plain texts of `wanted` (a string or a list). An
-- error of the library's own code ("attempt to ...") does not count. Returns the message.
function help.raises(wanted, f, ...)
  local ok, message = pcall(f, ...)
  if ok then error("no error was raised", 2) end
  if type(message) ~= "string" then error("the error is not a string but " .. tostring(message), 2) end
  if message:find("attempt to ", 1, true) then error("an internal error came through: " .. message, 2) end
  for _, text in ipairs(type(wanted) == "table" and wanted or { wanted }) do
    if not message:find(text, 1, true) then error(("%q is not in the message: %s"):format(text, message), 2) end
  end
  return message
end

-- The message of the error that f(...) raises, without its position.
function help.message(f, ...)
  local ok, text = pcall(f, ...)
  if ok then error("no error was raised", 2) end
  return (text:gsub("^[^:]*:%d+: ", ""))
end

-- The structure with every number and array replaced by f(leaf); arrays are never shared with the argument.
function help.map(f, x)
  if type(x) ~= "table" then return f(x) end
  local copy = {}
  for k, v in pairs(x) do copy[k] = help.map(f, v) end
  return setmetatable(copy, getmetatable(x))
end

function help.clone(x)
  return help.map(function(leaf) return is_array(leaf) and leaf:clone() or leaf end, x)
end

function help.astype(x, dtype)
  return help.map(function(leaf)
    if is_array(leaf) then return leaf:astype(dtype) end
    return dtype == "f32" and type(leaf) == "number" and help.f32(leaf) or leaf
  end, x)
end

-- Every number of x replaced by f(number); the result has new arrays of the same dtypes.
function help.map_numbers(f, x)
  return help.map(function(leaf)
    if type(leaf) == "number" then return f(leaf) end
    local new = leaf:clone()
    local rows, cols = new:shape()
    for i = 1, rows do
      if cols then
        for j = 1, cols do new:set(i, j, f(new:get(i, j))) end
      else
        new[i] = f(new[i])
      end
    end
    return new
  end, x)
end

-- A structure like x of random numbers in (from, to), by Lua's own arithmetic: the same in every run.
function help.random_like(x, seed, from, to)
  local state = seed or 1
  from, to = from or -1, to or 1
  local function draw()
    state = (state * 48271) % 2147483647 -- Lehmer's generator
    return from + (to - from) * (state / 2147483647)
  end
  for _ = 1, 5 do draw() end -- small seeds are alike at first
  return help.map_numbers(draw, x)
end

function help.fill_like(x, value)
  return help.map_numbers(function() return value end, x)
end

-- a * x + b * y over structures, by plain Lua.
function help.combine(a, x, b, y)
  if type(x) == "number" then return a * x + b * y end
  local from, result = help.plain(y), help.clone(x)
  if not is_array(x) then
    for k in pairs(x) do result[k] = help.combine(a, x[k], b, y[k]) end
    return result
  end
  local rows, cols = x:shape()
  for i = 1, rows do
    if cols then
      for j = 1, cols do result:set(i, j, a * x:get(i, j) + b * from[i][j]) end
    else
      result[i] = a * x[i] + b * from[i]
    end
  end
  return result
end

-- The sum over all numbers of x * y, by plain Lua: what a cotangent y makes of a result x.
function help.inner(x, y)
  if type(x) == "number" then return x * y end
  if is_array(x) then x = x:totable() end
  if is_array(y) then y = y:totable() end
  local sum = 0
  for k in pairs(x) do sum = sum + help.inner(x[k], y[k]) end
  return sum
end

-- The gradient of f (a structure to a number) at x by central differences with a step of `step` * max(1, |x|). Its
-- error is about 1e-9 for smooth functions of moderate size: compare with a tolerance of 1e-6.
function help.numeric_gradient(f, x, step)
  step = step or 1e-5
  local at, gradient = { help.clone(x) }, { help.clone(x) }
  local function slope(get, set)
    local here = get()
    local h = step * math.max(1, math.abs(here))
    set(here + h)
    local above = f(at[1])
    set(here - h)
    local below = f(at[1])
    set(here)
    return (above - below) / (2 * h)
  end
  local function walk(place, result, key)
    local leaf = place[key]
    if type(leaf) == "number" then
      result[key] = slope(function() return place[key] end, function(v) place[key] = v end)
    elseif type(leaf) == "table" then
      for k in pairs(leaf) do walk(leaf, result[key], k) end
    else
      local rows, cols = leaf:shape()
      for i = 1, rows do
        for j = 1, cols or 1 do
          if cols then
            result[key]:set(i, j, slope(function() return leaf:get(i, j) end, function(v) leaf:set(i, j, v) end))
          else
            result[key][i] = slope(function() return leaf[i] end, function(v) leaf[i] = v end)
          end
        end
      end
    end
  end
  walk(at, gradient, 1)
  return gradient[1]
end

-- The same numbers as a window over a larger array that is NaN elsewhere: a vector becomes a column of a matrix (its
-- elements are three apart), a matrix the middle rows of a taller one. Second result: the larger array.
function help.window(x)
  local rows, cols = x:shape()
  if rows == 0 or cols == 0 then return x:clone() end
  local large = cols and bp.full(help.nan, rows + 3, cols, x:dtype()) or bp.full(help.nan, rows, 3, x:dtype())
  local window = cols and bp.slice(large, 2, rows + 1) or bp.column(large, 2)
  window:copy(x)
  return window, large
end

-- Gives arrays of NaN of the shapes in x back to the pool, so that whoever gets their memory next and does not write it
-- shows NaN, not what happened to be right there.
function help.poison(x)
  local poison = {}
  help.map(function(leaf)
    for _ = 1, is_array(leaf) and 4 or 0 do
      poison[#poison + 1] = leaf:clone()
      poison[#poison]:fill(help.nan)
    end
  end, x)
  bp.release(poison)
end

-- The bytes of all arrays that can still be reached.
function help.live()
  collectgarbage()
  collectgarbage()
  return bp.stats().bytes_live
end

return help
