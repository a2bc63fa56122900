--[[
bp.check: gradients against finite differences.

The function's result is turned into one number by fixed random weights, so that every cotangent is exercised at once.
The gradient is then compared with central differences along the components of the arguments: all of them where there
are few, otherwise random directions and a sample of components. A step is scaled with the element; where two steps
disagree with each other the function has a kink (or too little precision) there, and the component is skipped. What
an instance is made of is hidden: it is moved along its class's `one` and along its gradient.
]]

local core = require "backprop.core"
local tree = require "backprop.tree"
local grad = require "backprop.grad"

local kind, raise = core.kind, core.raise

local check = {}

local FEW = 64 -- so many components are all looked at
local CLEARLY = 1 + 1e-6 -- worse by more than rounding: of equally wrong components the first is named, on any machine

-- Elements: leaves of the arguments, one number at a time ----------------------------------------------------------

-- The two directions of an instance p as elements whose value is how far p has been moved.
local function add_instance(add, holder, key, gradient, path)
  local p = holder[key]
  local class = tree.class_of(p)
  if not (class.scale and class.dot) then
    raise("bp.check: %s is an instance without scale and dot: it cannot be checked", path)
  end
  local function along(direction, name)
    local moved = 0
    add(path .. name, function() return moved end, function(v)
      moved = v
      holder[key] = v == 0 and p or class.add(p, class.scale(direction, v))
    end, "f64", class.dot(gradient, direction))
  end
  along(class.one(p), " along one")
  local size = math.sqrt(class.dot(gradient, gradient))
  if size > 0 and size < math.huge then along(class.scale(gradient, 1 / size), " along its gradient") end
end

-- Every element of every number and array, as {get, set, path, dtype, gradient}. The arguments are copies, to be
-- changed; the gradients are structured like them.
local function elements_of(arguments, gradients)
  local elements, leaves = {}, 0
  local function add(path, get, set, dtype, gradient)
    elements[#elements + 1] = {path = path, get = get, set = set, dtype = dtype, gradient = gradient, start = get()}
  end
  local function visit(holder, key, gradient, path)
    local x = holder[key]
    local sort = kind(x)
    if tree.is_leaf(x) then leaves = leaves + 1 end
    if sort == "number" then
      add(path, function() return holder[key] end, function(v) holder[key] = v end, "f64", gradient)
    elseif sort == "vector" then
      for i = 1, #x do
        add(("%s[%d]"):format(path, i), function() return x[i] end, function(v) x[i] = v end, x:dtype(), gradient[i])
      end
    elseif sort == "matrix" then
      local rows, columns = x:shape()
      for i = 1, rows do
        for j = 1, columns do
          add(("%s[%d][%d]"):format(path, i, j), function() return x:get(i, j) end,
            function(v) x:set(i, j, v) end, x:dtype(), gradient:get(i, j))
        end
      end
    elseif tree.class_of(x) then
      add_instance(add, holder, key, gradient, path)
    elseif tree.is_branch(x) then
      for _, name in ipairs(tree.keys(x, "bp.check")) do visit(x, name, gradient[name], tree.join(path, name)) end
    end
  end
  for position = 1, arguments.n do visit(arguments, position, gradients[position], "argument " .. position) end
  if leaves == 0 then raise("bp.check: the arguments hold no number or array to differentiate") end
  return elements
end

local function copy(x)
  return tree.map("bp.check", function(leaf)
    return tree.is_array(leaf) and core.clone(core.value(leaf)) or leaf
  end, x)
end

-- The result as one number ------------------------------------------------------------------------------------------

-- Fixed weights, the same for every evaluation: drawn anew from the same seed.
local function weighted_sum(result, seed)
  local rng = core.rng(seed)
  local total, leaves = 0, 0
  tree.visit(result, function(leaf)
    leaves = leaves + 1
    local sort = kind(leaf)
    if sort == "number" then
      total = total + leaf * rng:uniform(0.5, 1.5)
    elseif sort == "vector" then
      total = total + core.sum(core.mul(leaf, rng:uniform(0.5, 1.5, #leaf, leaf:dtype())))
    elseif sort == "matrix" then
      local rows, columns = leaf:shape()
      total = total + core.sum(core.mul(leaf, rng:uniform(0.5, 1.5, rows, columns, leaf:dtype())))
    else
      local class = tree.class_of(core.value(leaf))
      raise("bp.check: a result that is an instance%s cannot be weighed: return a number from it",
        class and class.dot and "" or " without dot")
    end
  end, "bp.check")
  if leaves == 0 then raise("bp.check: the function's first result must hold a number or an array") end
  return total
end

-- Differences -------------------------------------------------------------------------------------------------------

-- f at the arguments with each element moved by step times its weight in the direction. NaN where f cannot be there:
-- an index cannot be moved a little.
local function along(evaluate, elements, direction, step)
  for k, weight in pairs(direction) do
    local element = elements[k]
    element.set(element.start + step * weight)
  end
  local ran, value = pcall(evaluate)
  for k in pairs(direction) do elements[k].set(elements[k].start) end
  if value == "not enough memory" then error(value, 0) end
  return ran and value or 0 / 0
end

-- The derivative along a direction by central differences with steps h and h / 2, extrapolated (L. Richardson, 1911),
-- and how far the two are apart.
local function difference(evaluate, elements, direction, h)
  local function central(step)
    return (along(evaluate, elements, direction, step) - along(evaluate, elements, direction, -step)) / (2 * step)
  end
  local coarse, fine = central(h), central(h / 2)
  return (4 * fine - coarse) / 3, math.abs(fine - coarse)
end

local function directions_of(elements, rng)
  local directions = {}
  if #elements <= FEW then
    for k in ipairs(elements) do directions[k] = {[k] = 1} end
    return directions
  end
  local order = rng:permutation(#elements)
  for k = 1, FEW // 2 do directions[k] = {[math.tointeger(order[k])] = 1} end
  for _ = 1, 8 do
    local direction = {}
    for k in ipairs(elements) do direction[k] = rng:normal(0, 1) / math.sqrt(#elements) end
    directions[#directions + 1] = direction
  end
  return directions
end

local function is_finite(x) return x == x and x ~= math.huge and x ~= -math.huge end

local function describe_direction(elements, direction)
  local k = next(direction)
  if next(direction, k) then return ("a direction over %d components"):format(#elements) end
  return elements[k].path
end

-- Whether the function has a kink: the slopes to the two sides differ, no less at a smaller step, and the gradient lies
-- between them, as one of a kink may.
local function at_kink(evaluate, elements, direction, h, expected, tolerance)
  local here = along(evaluate, elements, direction, 0)
  local function sides(step)
    local right = (along(evaluate, elements, direction, step) - here) / step
    local left = (here - along(evaluate, elements, direction, -step)) / step
    return math.min(left, right), math.max(left, right)
  end
  local low, high = sides(h)
  local closer_low, closer_high = sides(h / 16)
  return closer_high - closer_low > 0.5 * (high - low) and high - low > tolerance
    and expected >= low - tolerance and expected <= high + tolerance
end

-- Compares one direction. Returns what came of it: "agrees", "kink" (where the gradient is one that a kink may have),
-- "unknown", or "differs" and then the mismatch.
local function compare(evaluate, elements, direction, options)
  local expected, largest, single = 0, 0, options.single
  for k, weight in pairs(direction) do
    expected = expected + weight * elements[k].gradient
    largest = math.max(largest, math.abs(elements[k].start))
  end
  local h = (single and 1e-2 or 1e-4) * math.max(1, largest)
  local measured, doubt = difference(evaluate, elements, direction, h)
  if not is_finite(measured) and largest > 0 and largest < 1 then -- as a logarithm beside 0: a step that is small to x
    h = h * largest
    measured, doubt = difference(evaluate, elements, direction, h)
  end
  if not is_finite(measured) then return "unknown" end
  local scale = math.max(1, math.abs(expected), math.abs(measured))
  local tolerance = options.tol * (single and 1e4 or 1)
  local off = is_finite(expected) and math.abs(measured - expected) or math.huge
  if is_finite(expected) and off <= tolerance * scale then return "agrees" end
  if is_finite(expected) and at_kink(evaluate, elements, direction, h, expected, tolerance * scale) then
    return "kink"
  end
  if doubt > 0.1 * off then
    local finer, doubt_finer = difference(evaluate, elements, direction, h / 64)
    if math.abs(finer - expected) <= 100 * tolerance * scale then return "agrees" end
    if doubt_finer > 0.1 * math.abs(finer - expected) then return "unknown" end
    measured, off = finer, math.abs(finer - expected)
  end
  return "differs", {path = describe_direction(elements, direction), gradient = expected, difference = measured,
    error = off / scale}
end

local function read_arguments(f, ...)
  if tree.callable(f) then return {f = f, args = table.pack(...)} end
  tree.no_more("bp.check{...}", 1, (...))
  if type(f) ~= "table" then raise("bp.check: expected a function or {f =, args =}, got %s", tree.describe(f)) end
  for key in pairs(f) do
    if key ~= "f" and key ~= "args" and key ~= "tol" and key ~= "seed" then
      raise("bp.check: unknown option '%s'", tostring(key))
    end
  end
  if not tree.callable(f.f) then raise("bp.check: f: expected a function, got %s", tree.describe(f.f)) end
  if type(f.args) ~= "table" then raise("bp.check: args: expected a list, got %s", tree.describe(f.args)) end
  local arguments = table.move(f.args, 1, f.args.n or #f.args, 1, {n = f.args.n or #f.args})
  return {f = f.f, args = arguments, tol = f.tol, seed = f.seed}
end

local Report = {__name = "check"}

function Report.__tostring(report)
  return ("bp.check: %d components and directions agree, %d skipped"):format(report.checked, report.skipped)
end

--- Compares the gradient of f with finite differences. Returns {checked, skipped}; raises on a mismatch, naming the
-- worst component by its path, where nothing could be compared (at a kink it is seen that the gradient lies between the
-- slopes to the two sides), and where f is not the same in every call. `bp.check{f =, args =, tol = 1e-6, seed = 1}`
-- sets the tolerance (relative, or absolute below 1; for f32 ten thousand times as much) and the seed of weights and
-- directions.
function check.check(f, ...)
  local options = read_arguments(f, ...)
  options.tol, options.seed = options.tol or 1e-6, options.seed or 1
  if type(options.tol) ~= "number" or not (options.tol > 0 and options.tol < math.huge) then
    raise("bp.check: tol: expected a positive number, got %s", tostring(options.tol))
  elseif math.type(options.seed) ~= "integer" then
    raise("bp.check: seed: expected an integer, got %s", tostring(options.seed))
  end
  local arguments = {n = options.args.n}
  for position = 1, arguments.n do arguments[position] = copy(options.args[position]) end
  local function evaluate() return weighted_sum((options.f(table.unpack(arguments, 1, arguments.n))), options.seed) end

  local _, pullback <close> = grad.vjp(function(...) return weighted_sum((options.f(...)), options.seed) end,
    table.unpack(arguments, 1, arguments.n))
  local elements = elements_of(arguments, table.pack(pullback()))
  local here = evaluate()
  local function check_repeats()
    local again = evaluate()
    if again == here or again ~= again and here ~= here then return end
    raise("bp.check: f gives different values for the same arguments: what it draws must be the same in every call")
  end
  check_repeats()

  for _, element in ipairs(elements) do options.single = options.single or element.dtype == "f32" end
  local worst, found = nil, {agrees = 0, kink = 0, unknown = 0, differs = 0}
  for _, direction in ipairs(directions_of(elements, core.rng(options.seed))) do
    local outcome, mismatch = compare(evaluate, elements, direction, options)
    found[outcome] = found[outcome] + 1
    if mismatch and (not worst or mismatch.error > CLEARLY * worst.error) then worst = mismatch end
  end
  check_repeats() -- once more: a mask may be the same by chance
  if worst then
    raise("bp.check: %s: the gradient is %.10g, finite differences give %.10g", worst.path, worst.gradient,
      worst.difference)
  end
  if found.agrees + found.kink == 0 and found.unknown > 0 then
    raise("bp.check: nothing could be compared: f has no finite value, or no slope, around %s",
      found.unknown == 1 and elements[1].path or ("any of %d components"):format(found.unknown))
  end
  return setmetatable({checked = found.agrees, skipped = found.kink + found.unknown}, Report)
end

return check
