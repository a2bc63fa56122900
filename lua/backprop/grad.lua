--[[
Differentiation: one function, two readings.

A gradient call opens a tape, gives the function a copy of the arguments with variables as leaves, seeds what it
returned and runs the sweep. The tape is a to-be-closed variable, so that it gives everything back however the call
ends; and the function is called from Lua, so that it may yield.

Leaves are the first nodes of a tape, in the order of tree.map. A walk over the argument itself therefore meets them in
the order of their numbers, and a gradient is the argument with every leaf replaced by the next one.
]]

local core = require "backprop.core"
local tree = require "backprop.tree"

local kind, raise, tracked = core.kind, core.raise, core.tracked

local grad = {}

-- Tracking --------------------------------------------------------------------------------------------------------

-- A copy of x with variables for leaves, and how many there are.
local function track(tape, x, name, into)
  local count, track_leaf = 0, tape.leaf
  local function leaf(value, target)
    count = count + 1
    if kind(value) == nil then return tape:object(value) end
    return track_leaf(tape, value, target, name)
  end
  if into == nil then return tree.map(name, leaf, x), count end
  return tree.map(name .. ": into", function(value, target)
    if kind(value) == "number" then return leaf(value) end
    return leaf(value, target)
  end, x, into), count
end

-- The gradients of the leaves of x, which follow leaf number `before`, in x's structure.
local function collect(tape, x, name, before)
  local count = before
  return tree.map(name, function(leaf)
    count = count + 1
    local gradient = tape:gradient(count)
    if gradient == nil then return tree.class_of(leaf).zero(leaf) end -- an instance that nothing reached
    return gradient
  end, x), count
end

--- x with plain values for variables: read-only arrays that share storage.
function grad.value(x)
  return tree.map("bp.value", core.value, x)
end

-- The plain value of a result, for the caller to keep.
local function outcome(tape, x)
  return tree.map("bp.grad", function(leaf) return tape:outcome(leaf) end, x)
end

local function outcomes(tape, first, ...)
  if select("#", ...) == 0 then return outcome(tape, first) end
  return outcome(tape, first), outcomes(tape, ...)
end

-- Seeds every tracked leaf of a result with ones.
local function seed_ones(tape, name, result)
  if kind(result) == "number" then -- a loss: the usual case
    if tape:owns(result) then tape:seed(result) end
    return
  end
  local leaves = 0
  tree.visit(result, function(leaf)
    leaves = leaves + 1
    if not tape:owns(leaf) then return end
    if kind(leaf) == "instance" then
      local value = core.value(leaf)
      tape:seed(leaf, tree.class_of(value).one(value))
    else
      tape:seed(leaf)
    end
  end, name)
  if leaves == 0 then
    raise("%s: the function's first result must hold a number or an array, got %s", name, tree.describe(result))
  end
end

-- Options ---------------------------------------------------------------------------------------------------------

local function check_function(f, name)
  if not tree.callable(f) then raise("%s: expected a function, got %s", name, tree.describe(f)) end
end

local option_names = {wrt = true, into = true, check_finite = true}

local function check_wrt(wrt, name)
  if type(wrt) ~= "table" or #wrt == 0 then raise("%s: wrt: expected a list of argument numbers", name) end
  local seen = {}
  for _, position in ipairs(wrt) do
    if math.type(position) ~= "integer" or position < 1 or position > 250 then
      raise("%s: wrt: %s is no argument number", name, tostring(position))
    elseif seen[position] then
      raise("%s: wrt: argument %d is named twice", name, position)
    end
    seen[position] = true
  end
end

local function read_options(options, name)
  if options == nil then return {wrt = {1}, into = {}} end
  if type(options) ~= "table" then raise("%s: expected a table of options, got %s", name, tree.describe(options)) end
  for key in pairs(options) do
    if not option_names[key] then raise("%s: unknown option '%s'", name, tostring(key)) end
  end
  local wrt = options.wrt or {1}
  check_wrt(wrt, name)
  local into = options.into
  if into == nil then
    into = {}
  elseif options.wrt == nil then
    into = {into}
  elseif #wrt == 1 and (tree.is_leaf(into) or #into ~= 1) then
    into = {into}
  elseif type(into) ~= "table" then
    raise("%s: into: expected one structure for each of wrt", name)
  end
  if #wrt > 1 and options.into ~= nil then
    for k = 1, #wrt do
      if into[k] == nil then raise("%s: into: expected %d structures, one for each of wrt", name, #wrt) end
    end
  end
  return {wrt = table.move(wrt, 1, #wrt, 1, {}), into = into, check_finite = options.check_finite}
end

-- Calls -----------------------------------------------------------------------------------------------------------

-- The arguments with those of `wrt` tracked.
local function track_arguments(tape, name, options, arguments)
  for k, position in ipairs(options.wrt) do
    local x = arguments[position]
    if position > arguments.n or x == nil then raise("%s: argument %d is missing", name, position) end
    local copy, count = track(tape, x, name, options.into[k])
    arguments[position] = copy
    if count == 0 then
      raise("%s: argument %d holds no number or array to differentiate: %s", name, position, tree.describe(x))
    end
  end
  return arguments
end

-- The gradient of a number, or of an instance, cannot go into another: it is put into the table that holds that.
local function store(into, gradient, name)
  if tree.is_leaf(into) then
    local sort = kind(into)
    return (sort == "number" or sort == nil) and gradient or into
  end
  for _, key in ipairs(tree.keys(gradient, name)) do
    local part = gradient[key]
    if tree.is_leaf(part) or tree.is_branch(part) then into[key] = store(into[key], part, name) end
  end
  return into
end

local function gradients_of(tape, name, options, arguments)
  local results, before = {}, 0
  for k, position in ipairs(options.wrt) do
    results[k], before = collect(tape, arguments[position], name, before)
    if options.into[k] ~= nil then results[k] = store(options.into[k], results[k], name) end
  end
  return table.unpack(results, 1, #options.wrt)
end

-- Checks results for NaN and inf (or does not) until it is closed.
local function finite_check(on)
  local before = core.check_finite(on)
  return setmetatable({}, {__close = function() core.check_finite(before) end})
end

-- What `finish(tape, value, ...)` makes of a recorded call of f; the tape ends with it.
local function record(name, f, options, arguments, finish)
  local _ <close> = options.check_finite ~= nil and finite_check(options.check_finite) or nil
  local tape <close> = core.tape()
  local copies = track_arguments(tape, name, options, table.move(arguments, 1, arguments.n, 1, {n = arguments.n}))
  return finish(tape, f(table.unpack(copies, 1, copies.n)))
end

--- A function with f's arguments that returns the gradient of its first result.
function grad.grad(f, options)
  check_function(f, "bp.grad")
  options = read_options(options, "bp.grad")
  return function(...)
    local arguments = table.pack(...)
    return record("bp.grad", f, options, arguments, function(tape, result)
      tape:begin()
      seed_ones(tape, "bp.grad", result)
      tape:run()
      return gradients_of(tape, "bp.grad", options, arguments)
    end)
  end
end

-- The value, the gradients, then f's further results.
local function in_order(value, gradients, further)
  local all = {value}
  table.move(gradients, 1, gradients.n, 2, all)
  table.move(further, 1, further.n, gradients.n + 2, all)
  return table.unpack(all, 1, 1 + gradients.n + further.n)
end

--- The same, returning the value, the gradients, then f's further results as plain values. Errors bear `name`.
function grad.value_and_grad(f, options, name)
  name = name or "bp.value_and_grad"
  check_function(f, name)
  options = read_options(options, name)
  local single = #options.wrt == 1
  return function(...)
    local arguments = table.pack(...)
    return record(name, f, options, arguments, function(tape, result, ...)
      tape:begin()
      seed_ones(tape, name, result)
      local value = outcome(tape, result)
      if single and select("#", ...) == 0 then
        tape:run()
        return value, (gradients_of(tape, name, options, arguments))
      end
      local further = select("#", ...) == 0 and {n = 0} or table.pack(outcomes(tape, ...))
      tape:run()
      return in_order(value, table.pack(gradients_of(tape, name, options, arguments)), further)
    end)
  end
end

--- f on plain values.
function grad.eval(f, ...)
  check_function(f, "bp.eval")
  return f(...)
end

--- x untracked: no gradient flows.
function grad.constant(x)
  return grad.value(x)
end

-- vjp -------------------------------------------------------------------------------------------------------------

local Pullback = {__name = "pullback"}
Pullback.__index = Pullback

-- Why a cotangent does not go with a number or array, or nil.
local function misfit(result, cotangent)
  result = core.value(result)
  if kind(result) ~= kind(cotangent) then
    return ("expected %s, got %s"):format(tree.article(kind(result)), tree.describe(cotangent))
  elseif core.tracked(cotangent) then
    return "it is tracked by another call"
  elseif kind(result) == "number" then
    return nil
  elseif result:dtype() ~= cotangent:dtype() then
    return ("expected %s, got %s"):format(result:dtype(), cotangent:dtype())
  end
  return tree.mismatch(result, cotangent)
end

-- A partial cotangent is zero elsewhere: what a table leaves out is not seeded.
local function seed_partial(tape, result, cotangent, path)
  if cotangent == nil then return end
  if tree.is_leaf(result) then
    if not tracked(result) then return end
    local trouble = kind(result) ~= "instance" and misfit(result, cotangent)
    if trouble then raise("bp.vjp: the cotangent%s: %s", path == "" and "" or " at " .. path, trouble) end
    tape:seed(result, cotangent)
  elseif tree.is_branch(result) then
    if not tree.is_branch(cotangent) then
      raise("bp.vjp: the cotangent%s must be a table, got %s", path == "" and "" or " at " .. path,
        tree.describe(cotangent))
    end
    for key, part in next, cotangent do
      local found = rawget(result, key)
      if found == nil then raise("bp.vjp: the result has no part %s", tree.join(path, key)) end
      seed_partial(tape, found, part, tree.join(path, key))
    end
  end
end

--- One gradient for each argument, any number of times. Without a cotangent, ones.
function Pullback:__call(cotangent)
  local tape, arguments, name = self.tape, self.arguments, "bp.vjp"
  tape:begin()
  if cotangent == nil then
    seed_ones(tape, name, self.result)
  else
    seed_partial(tape, self.result, cotangent, "")
  end
  tape:run()
  local gradients, before = {}, 0
  for position = 1, arguments.n do
    gradients[position], before = collect(tape, arguments[position], name, before)
  end
  return table.unpack(gradients, 1, arguments.n)
end

function Pullback:close()
  self.tape:close()
end

Pullback.__close = Pullback.close

--- Value, pullback, further results. All arguments are tracked; the tape lives until the pullback is closed.
function grad.vjp(f, ...)
  check_function(f, "bp.vjp")
  local arguments = table.pack(...)
  local tape = core.tape(true)
  local _ <close> = setmetatable({}, {__close = function(_, err) if err ~= nil then tape:close() end end})
  local copies = {}
  for position = 1, arguments.n do copies[position] = track(tape, arguments[position], "bp.vjp") end
  local results = table.pack(f(table.unpack(copies, 1, arguments.n)))
  local leaves = 0
  tree.visit(results[1], function(leaf)
    leaves = leaves + 1
    tape:owns(leaf)
  end, "bp.vjp")
  if leaves == 0 then
    raise("bp.vjp: the function's first result must hold a number or an array, got %s", tree.describe(results[1]))
  end
  local values = table.pack(outcomes(tape, table.unpack(results, 1, results.n)))
  tape:seal()
  local pullback = setmetatable({tape = tape, arguments = arguments, result = results[1]}, Pullback)
  return values[1], pullback, table.unpack(values, 2, values.n)
end

-- For optimisers: f(params, ...) recorded and swept, the products of weights not multiplied out. `update(tape, value)`
-- then changes the parameters; nothing before it can have changed anything.
function grad.descend(name, f, params, update, ...)
  local arguments = table.pack(params, ...)
  return record(name, f, {wrt = {1}, into = {}}, arguments, function(tape, result)
    tape:begin(true)
    seed_ones(tape, name, result)
    local value = outcome(tape, result)
    tape:run()
    tape:prepare()
    update(tape)
    return value
  end)
end

--- For profiles: a function with f's arguments that runs value and gradient and returns the tape's trace.
function grad.traced(f)
  local options = read_options(nil, "bp.profile")
  return function(...)
    return record("bp.profile", f, options, table.pack(...), function(tape, result)
      tape:begin()
      seed_ones(tape, "bp.profile", result)
      tape:run()
      return tape:trace()
    end)
  end
end

return grad
