-- What a program has to satisfy. Plain and tracked runs agree statement by statement: both raise or neither, and the
-- values are equal to the bit. Errors are texts at the program's own line. The gradient is that of central differences,
-- the same to the bit when pulled again, and the same from vjp, grad, grad of one input alone, and minimize. Nothing is
-- left behind.
--
-- `judge` returns nil where all holds, otherwise a word for what does not and a message; also what it looked at, for
-- the fuzzer to count.

local bp = require "backprop"
local program = require "fuzz.program"
local new_random = require "fuzz.random"

local oracle = {}

-- Failures are raised within this file as tables of this metatable, so that nothing of a program looks like one.
local Failure = {}

local function fail(kind, message, ...)
  error(setmetatable({ kind = kind, message = select("#", ...) > 0 and message:format(...) or message }, Failure), 0)
end

-- Runs f(...) in a coroutine, to its end however often it yields; as pcall.
local function run(f, ...)
  local co = coroutine.create(f)
  local results = table.pack(coroutine.resume(co, ...))
  while coroutine.status(co) ~= "dead" do results = table.pack(coroutine.resume(co)) end
  return table.unpack(results, 1, results.n)
end

-- Values ------------------------------------------------------------------------------------------------------------

local function is_array(x)
  local kind = bp.kind(x)
  return kind == "vector" or kind == "matrix"
end

-- A structure as text that tells every bit: NaN as one word, since its sign means nothing.
local function bits(x, seen)
  if type(x) == "number" then return x ~= x and "nan" or ("%a"):format(x) end
  if type(x) == "userdata" then
    if not is_array(x) then return bp.kind(x) end
    local list, plain = {}, x:totable()
    for i, row in ipairs(plain) do list[i] = bits(row, seen) end
    return ("%s %s[%s]"):format(bp.kind(x), x:dtype(), table.concat(list, " "))
  end
  if type(x) ~= "table" then return type(x) end
  if seen[x] then return "again" end
  seen[x] = true
  local keys, list = {}, {}
  for key in next, x do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for i, key in ipairs(keys) do list[i] = tostring(key) .. "=" .. bits(rawget(x, key), seen) end
  seen[x] = nil
  return "{" .. table.concat(list, " ") .. "}"
end

local function same_bits(x) return bits(x, {}) end

-- The numbers of a structure, in order.
local function numbers_of(x)
  local list = {}
  for _, leaf in ipairs(bp.leaves(x)) do
    if type(leaf) == "number" then
      list[#list + 1] = leaf
    else
      local rows, columns = leaf:shape()
      for i = 1, rows do
        for j = 1, columns or 1 do list[#list + 1] = columns and leaf:get(i, j) or leaf[i] end
      end
    end
  end
  return list
end

local function total(x)
  local sum = 0
  for _, number in ipairs(numbers_of(x)) do sum = sum + number end
  return sum
end

local function is_finite(x) return x - x == 0 end

-- |a - b| within the tolerance for every number; a NaN or inf agrees with any other.
local function close(a, b, tolerance)
  if #a ~= #b then return false, ("%d and %d numbers"):format(#a, #b) end
  for i, x in ipairs(a) do
    local y = b[i]
    if is_finite(x) ~= is_finite(y) or is_finite(x) and math.abs(x - y) > tolerance * math.max(1, math.abs(x)) then
      return false, ("number %d is %.17g and %.17g"):format(i, x, y)
    end
  end
  return true
end

-- Errors ------------------------------------------------------------------------------------------------------------

-- What may be raised in the sweep, or where a plain run goes on.
local function is_expected(p, e)
  if p.hostile and (type(e) ~= "string" or e:find "hostile" or e:find "boom" or e:find "nograd" or e:find "yield"
    or e:find "read%-only" or e:find "released" or e:find "the call that tracked it") then
    return true
  end
  return type(e) == "string" and p.in_place and (e:find "changed in place" or e:find "released") ~= nil
end

-- An error of a statement: a text at the program's line, and not one of our own mistakes.
local function check_error(p, e, where)
  if p.hostile and type(e) ~= "string" then return end
  if type(e) ~= "string" then fail("error object", "%s raised %s", where, tostring(e)) end
  if e:find("backprop/", 1, true) then fail("internal error", "%s: %s", where, e) end
  if not e:find "^program:%d+:" and not e:find "^not enough memory" then fail("error position", "%s: %s", where, e) end
end

-- Differences -------------------------------------------------------------------------------------------------------

-- The inputs with `direction` (one number an element) times step added.
local function moved(inputs, direction, step)
  local x, at = inputs(), 0
  local function next_one()
    at = at + 1
    return step * (direction[at] or 0)
  end
  for i, value in ipairs(x) do
    if type(value) == "number" then
      x[i] = value + next_one()
    else
      local rows, columns = value:shape()
      for r = 1, rows do
        for c = 1, columns or 1 do
          if columns then
            value:set(r, c, value:get(r, c) + next_one())
          else
            value[r] = value[r] + next_one()
          end
        end
      end
    end
  end
  return x
end

-- The derivative along a direction: central differences with steps that shrink, extrapolated; of neighbours that agree
-- best, and how far they are apart. Third, the estimates from there on, with finer steps.
local function difference(value_at)
  local estimates, central = {}, nil
  local h = 1 / 8
  for k = 1, 8 do
    local next_central = (value_at(h) - value_at(-h)) / (2 * h)
    if k > 1 then estimates[#estimates + 1] = (16 * next_central - central) / 15 end
    central, h = next_central, h / 4
  end
  local best, doubt = 1, math.huge
  for k = 2, #estimates do
    local apart = math.abs(estimates[k] - estimates[k - 1])
    if apart < doubt then best, doubt = k, apart end
  end
  return estimates[best], doubt, table.move(estimates, best, #estimates, 1, {})
end

-- Whether the slopes to the two sides differ and the gradient lies between them, as at a kink it may. What they change
-- by at a finer step is what they may be wrong by.
local function at_kink(value_at, expected, tolerance, steps)
  local here = value_at(0)
  local function sides(h) return (value_at(h) - here) / h, (here - value_at(-h)) / h end
  for _, h in ipairs(steps) do
    local coarse_right, coarse_left = sides(4 * h)
    local right, left = sides(h)
    local slack = tolerance + math.abs(right - coarse_right) + math.abs(left - coarse_left)
    local low, high = math.min(left, right), math.max(left, right)
    if high - low > slack and expected >= low - slack and expected <= high + slack then return true end
  end
  return false
end

-- Where kinks meet, the conventions at each do not make the slope of the whole: min(relu(x), x) is x, its gradient at 0
-- one half. And a tie of a comparison, or a condition of `where` at exactly 0, is a step that no difference shows if
-- the branches meet. Nearby, all must be well. A program with one kink and no step is not let off: its convention must
-- lie between the two slopes.
local kinks = { "relu", "minimum", "maximum", "max", "min", "abs", "leaky_relu", "elu", "clamp", "sign" }
local steps = { "where", "less", "less_equal", "greater", "greater_equal", "equal", "argmax", "argmin" }

local function has_meeting_kinks(p)
  local text = table.concat(p.body, "\n")
  local function count(names)
    local sum = 0
    for _, name in ipairs(names) do sum = sum + select(2, text:gsub("[.:]" .. name .. "%f[^%w_]", "")) end
    return sum
  end
  return count(kinks) > 1 or count(steps) > 0
end

local function is_right_nearby(p, inputs, f, compare)
  if p.nearby or not has_meeting_kinks(p) then return false end
  local random, aside = new_random(p.seed + 2), {}
  for i in ipairs(numbers_of(inputs())) do aside[i] = 1e-3 * (1 + random:number()) end
  local function nearby() return moved(inputs, aside, 1) end
  local ok, gradient = run(bp.grad(f), nearby())
  p.nearby = true
  local fine = ok and pcall(compare, nearby, numbers_of(gradient))
  p.nearby = nil
  return fine
end

-- Compares the gradient along one direction; true if it could be told.
local function compare(p, inputs, f, gradient, direction)
  local function value_at(step)
    local ok, y = run(f, moved(inputs, direction, step))
    return ok and total(y) or 0 / 0
  end
  local expected, size = 0, 0
  for i, weight in pairs(direction) do
    expected = expected + weight * gradient[i]
    size = size + math.abs(weight * gradient[i])
  end
  local measured, doubt, finer = difference(value_at)
  local scale = math.max(1, math.abs(measured), is_finite(size) and size or 1)
  if not is_finite(measured) or doubt > 1e-4 * math.max(1, math.abs(measured)) then return false end
  local tolerance = (p.single and 1e-2 or 1e-6) * scale + 10 * doubt
  if math.abs(measured - expected) <= tolerance then return true end
  if not is_finite(expected) then return false end -- an edge of the domain, seen from outside
  for _, estimate in ipairs(finer) do -- coarse steps agree by chance where the function oscillates
    if math.abs(estimate - expected) <= 1e-3 * scale then return false end
  end
  if at_kink(value_at, expected, tolerance, p.single and { 1e-2, 1e-3 } or { 1e-4, 1e-6 }) then return false end
  if is_right_nearby(p, inputs, f, function(at, slope) compare(p, at, f, slope, direction) end) then return false end
  fail("gradient", "along a direction of %d elements it is %.10g, differences give %.10g (doubt %.2g)", #gradient,
    expected, measured, doubt)
end

local function compare_all(p, inputs, f, gradient)
  local random, told = new_random(p.seed + 1), 0
  if #gradient == 0 then return 0 end
  for k = 1, 4 do
    local direction = {}
    if k <= 2 then
      for i = 1, #gradient do direction[i] = random:number() * 2 - 1 end
    else
      direction[random:integer(1, #gradient)] = 1
    end
    if compare(p, inputs, f, gradient, direction) then told = told + 1 end
  end
  return told
end

-- The runs ----------------------------------------------------------------------------------------------------------

-- Runs f on plain values and tracked; returns the tracked value and pullback, or nothing where an error that may be was
-- raised.
local function plain_and_tracked(p, inputs, f)
  local plain, tracked = {}, {}
  local function watch(into)
    return function(r, errors)
      into.errors, into.bits = errors, {}
      for k in next, r do into.bits[k] = same_bits(bp.value(r[k])) end
    end
  end
  local ok, y = run(f, inputs(), watch(plain))
  if not plain.errors then fail("harness", "%s", tostring(y)) end
  local ran, value, pullback = run(bp.vjp, function(x) return f(x, watch(tracked)) end, inputs())
  if not tracked.errors then
    fail("tracking", "the plain run ends, the tracked one raises %s", tostring(value))
  end
  for i = 1, #p.body do
    local a, b = plain.errors[i], tracked.errors[i]
    for name, e in pairs{ plain = a, tracked = b } do check_error(p, e[1], ("statement %d, %s"):format(i, name)) end
    if (a == nil) ~= (b == nil) then
      if b and is_expected(p, b[1]) then return nil end
      fail("agreement", "statement %d raises %s only: %s", i, a and "when plain" or "when tracked",
        tostring((a or b)[1]))
    end
  end
  for k = 1, #p.inputs + #p.body do
    local released = (plain.bits[k] or ""):find "released" -- an array that the tape holds is there still
    if plain.bits[k] ~= tracked.bits[k] and not released then
      fail("value", "r[%d] is %s when plain, %s when tracked", k, tostring(plain.bits[k]), tostring(tracked.bits[k]))
    end
  end
  if ok ~= ran then
    local e = ok and value or y
    if ok and is_expected(p, e) then return nil end
    fail("agreement", "the result raises when %s only: %s", ok and "tracked" or "plain", tostring(e))
  end
  if not ok then return nil end
  if same_bits(y) ~= same_bits(value) then
    fail("value", "the result is %s when plain, %s when tracked", same_bits(y), same_bits(value))
  end
  return value, pullback
end

-- Calls something that sweeps; nil where an error that may be was raised.
local function sweep(p, what, f, ...)
  local results = table.pack(run(f, ...))
  if results[1] then return table.unpack(results, 2, results.n) end
  if is_expected(p, results[2]) then return nil end
  fail("sweep", "%s raised %s", what, tostring(results[2]))
end

local function agree(p, what, gradient, other)
  local fine, message = close(numbers_of(gradient), numbers_of(other), p.single and 1e-4 or 1e-11)
  if not fine then fail("agreement", "the gradient of %s is another: %s", what, message) end
end

local function other_gradients(p, inputs, f, gradient)
  local g = sweep(p, "grad", bp.grad(f), inputs())
  if g ~= nil then agree(p, "grad", gradient, g) end

  -- into arrays that are full of NaN
  local into = inputs()
  for _, x in ipairs(into) do
    if type(x) ~= "number" then x:fill(0 / 0) end
  end
  g = sweep(p, "grad into", bp.grad(f, { into = into }), inputs())
  if g ~= nil then agree(p, "grad into", gradient, g) end

  -- of one input alone
  local i = 1 + p.seed % #p.inputs
  local x = inputs()
  local one = sweep(p, "grad of one input", bp.grad(function(xi)
    local copy = table.move(x, 1, #x, 1, {})
    copy[i] = xi
    return f(copy)
  end), x[i])
  if one ~= nil then agree(p, "one input", { gradient[i] }, { one }) end

  -- folded into an update
  local params, before = inputs(), numbers_of(inputs())
  local numbers, slope = {}, numbers_of(gradient)
  for _, number in ipairs(slope) do
    if not is_finite(number) or math.abs(number) > 1e6 then return end
  end
  if #slope == 0 then return end
  if sweep(p, "minimize", function() return bp.optim.sgd{ lr = 0.5 }:minimize(f, params) end) == nil then return end
  for k, after in ipairs(numbers_of(params)) do numbers[k] = 2 * (before[k] - after) end
  local fine, message = close(slope, numbers, p.single and 1e-3 or 1e-9)
  if not fine then fail("update", "minimize takes another step: %s", message) end
end

-- A coroutine that records and is dropped where it yields first.
local function drop(inputs, f)
  local co = coroutine.create(bp.grad(f))
  coroutine.resume(co, inputs())
end

local function judge(p)
  local inputs, f, replay = program.compile(p)
  local text = table.concat(p.body, "\n")
  p.hostile = text:find "hostile" ~= nil or text:find "nograd" ~= nil
  p.in_place = text:find "do r%[%d+%]" ~= nil or text:find "do bp%.axpy" ~= nil or text:find "do bp%.optim" ~= nil
    or text:find "release" ~= nil
  p.single = (table.concat(p.inputs) .. text):find "f32" ~= nil
  if text:find "yield" then drop(inputs, f) end
  local value, pullback = plain_and_tracked(p, inputs, f)
  if value == nil then return 0 end
  local _ <close> = pullback
  local gradient = sweep(p, "the pullback", function() return (pullback()) end)
  if gradient == nil then return 0 end
  if same_bits(gradient) ~= same_bits((sweep(p, "the pullback, again,", function() return (pullback()) end))) then
    fail("again", "the pullback gives another gradient when it is called again")
  end
  other_gradients(p, inputs, f, gradient)
  if p.in_place and text:find "freeze" then return 0 end -- what is frozen may be of the storage that is changed
  replay.on = true
  return compare_all(p, inputs, f, numbers_of(gradient))
end

--- nil and the number of directions that were compared; or what failed, and a message.
function oracle.judge(p)
  local ok, told = pcall(judge, p)
  if ok then return nil, told end
  if getmetatable(told) == Failure then return told.kind, told.message end
  return "crash of the harness", tostring(told)
end

return oracle
