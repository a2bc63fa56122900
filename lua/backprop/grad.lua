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

-- Values ----------------------------------------------------------------------------------------------------------

--- x with plain values for variables: read-only arrays that share storage.
function grad.value(x)
  return core.values(x, "bp.value", true)
end

-- The plain values of results, for the caller to keep.
local function outcomes(tape, name, first, ...)
  if select("#", ...) == 0 then return tape:outcome(name, first) end
  return tape:outcome(name, first), outcomes(tape, name, ...)
end

-- Seeds every tracked leaf of a result with ones.
local function seed_ones(tape, name, result)
  local leaves = 0
  tree.visit(result, function(leaf)
    leaves = leaves + 1
    if not tape:owns(leaf, name) then return end
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

-- The sweep from ones, and the plain value of the result. What the tape cannot do at once is a result that is no loss.
local function sweep(tape, name, result, deferring)
  local value = tape:sweep(name, result, deferring)
  if value then return value end
  value = tape:outcome(name, result) -- before a seed goes to an array of the caller's
  tape:begin(deferring)
  seed_ones(tape, name, result)
  tape:run()
  return value
end

-- Options ---------------------------------------------------------------------------------------------------------

local function check_function(f, name)
  if not tree.callable(f) then raise("%s: expected a function, got %s", name, tree.describe(f)) end
end

-- Lua's own functions know nothing of tracked values, and would complain at our line.
local plain_only = {}
for name, f in pairs(math) do plain_only[f] = "math." .. name end

local function check_differentiable(f, name)
  check_function(f, name)
  if plain_only[f] then raise("%s: %s takes plain numbers only: use the functions of bp", name, plain_only[f]) end
end

local option_names = {wrt = true, into = true, check_finite = true}

local function check_wrt(wrt, name)
  if type(wrt) ~= "table" or #wrt == 0 then
    raise("%s: wrt: expected a list of argument numbers such as {1, 3}, got %s", name,
      type(wrt) == "table" and "an empty one" or tree.describe(wrt))
  end
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
  if options == nil then return {wrt = {1}, into = {}, first = true} end
  if type(options) ~= "table" or getmetatable(options) then
    raise("%s: expected a table of options, got %s; the arguments come next: %s(f)(x, ...)", name,
      tree.describe(options), name)
  end
  for key in pairs(options) do
    if not option_names[key] then raise("%s: unknown option '%s'", name, tostring(key)) end
  end
  if options.check_finite ~= nil and type(options.check_finite) ~= "boolean" then
    raise("%s: check_finite: expected true or false, got %s", name, tree.describe(options.check_finite))
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
    raise("%s: into: expected a list of structures, one for each of wrt, got %s", name, tree.describe(into))
  end
  if #wrt > 1 and options.into ~= nil then
    for k = 1, #wrt + 1 do
      if (into[k] == nil) == (k <= #wrt) then
        raise("%s: into: expected %d structures, one for each of wrt", name, #wrt)
      end
    end
  end
  local first = #wrt == 1 and wrt[1] == 1
  return {wrt = table.move(wrt, 1, #wrt, 1, {}), into = into, check_finite = options.check_finite, first = first}
end

-- Calls -----------------------------------------------------------------------------------------------------------

local function raise_no_leaf(name, position, x)
  raise("%s: argument %d holds no number or array to differentiate: %s", name, position, tree.describe(x))
end

-- The arguments with those of `wrt` tracked.
local function track_arguments(tape, name, options, arguments)
  local copies = table.move(arguments, 1, arguments.n, 1, {})
  for k, position in ipairs(options.wrt) do
    local x = arguments[position]
    if position > arguments.n or x == nil then raise("%s: argument %d is missing", name, position) end
    local count
    copies[position], count = tape:track(name, x, options.into[k])
    if count == 0 then raise_no_leaf(name, position, x) end
  end
  return table.unpack(copies, 1, arguments.n)
end

-- The gradient of a number, or of an instance, cannot go into another: it is put into the table that holds that.
-- `stored` has the tables so far, and what was put there.
local function store(into, gradient, name, stored)
  if tree.is_leaf(into) then
    local sort = kind(into)
    return (sort == "number" or sort == nil) and gradient or into
  end
  if stored[into] == gradient then return into end
  if stored[into] then raise("%s: into: two gradients would go to the same table", name) end
  stored[into] = gradient
  for _, key in ipairs(tree.keys(gradient, name)) do
    local part = gradient[key]
    if tree.is_leaf(part) or tree.is_branch(part) then into[key] = store(into[key], part, name, stored) end
  end
  return into
end

local function gradients_of(tape, name, options, arguments)
  if options.into[1] ~= nil and tape:deliver() then return table.unpack(options.into, 1, #options.wrt) end
  local results, before, stored = {}, 0, {}
  for k, position in ipairs(options.wrt) do
    results[k], before = tape:collect(name, before, arguments[position], options.into[k], k == #options.wrt)
    if options.into[k] ~= nil then results[k] = store(options.into[k], results[k], name, stored) end
  end
  return table.unpack(results, 1, #options.wrt)
end

-- What `finish` makes of a recorded call of f: it gets the tape, the name, options and arguments, and f's results. The
-- tape ends with the call.
local function record(finish, name, f, options, arguments)
  local tape <close> = core.tape(false, options.check_finite)
  return finish(tape, name, options, arguments, f(track_arguments(tape, name, options, arguments)))
end

-- The same for f of a first argument, which is differentiated, and further ones: the usual call.
local function record_first(finish, name, f, options, x, ...)
  if x == nil then raise("%s: argument 1 is missing", name) end
  local tape <close> = core.tape(false, options.check_finite)
  local copy, count = tape:track(name, x, options.into[1])
  if count == 0 then raise_no_leaf(name, 1, x) end
  return finish(tape, name, options, x, f(copy, ...))
end

local function first_gradient(tape, name, options, x)
  local into = options.into[1]
  if into ~= nil and tape:deliver() then return into end
  local gradient = tape:collect(name, 0, x, into, true)
  if into ~= nil then return store(into, gradient, name, {}) end
  return gradient
end

local function finish_first_gradient(tape, name, options, x, result)
  sweep(tape, name, result)
  return (first_gradient(tape, name, options, x))
end

local function finish_gradients(tape, name, options, arguments, result)
  sweep(tape, name, result)
  return gradients_of(tape, name, options, arguments)
end

--- A function with f's arguments that returns the gradient of its first result.
function grad.grad(f, options, surplus)
  check_differentiable(f, "bp.grad")
  options = read_options(options, "bp.grad")
  tree.no_more("bp.grad", 2, surplus)
  if options.first then
    return function(...) return record_first(finish_first_gradient, "bp.grad", f, options, ...) end
  end
  return function(...) return record(finish_gradients, "bp.grad", f, options, table.pack(...)) end
end

-- The value, the gradients, then f's further results.
local function in_order(value, gradients, further)
  local all = {value}
  table.move(gradients, 1, gradients.n, 2, all)
  table.move(further, 1, further.n, gradients.n + 2, all)
  return table.unpack(all, 1, 1 + gradients.n + further.n)
end

-- The further results are taken before the sweep, which lets go of values.
local function finish_value_and_first_gradient(tape, name, options, x, result, ...)
  if select("#", ...) == 0 then return sweep(tape, name, result), (first_gradient(tape, name, options, x)) end
  local further = table.pack(outcomes(tape, name, ...))
  local value = sweep(tape, name, result)
  return value, first_gradient(tape, name, options, x), table.unpack(further, 1, further.n)
end

local function finish_value_and_gradients(tape, name, options, arguments, result, ...)
  local further = select("#", ...) == 0 and {n = 0} or table.pack(outcomes(tape, name, ...))
  local value = sweep(tape, name, result)
  return in_order(value, table.pack(gradients_of(tape, name, options, arguments)), further)
end

--- The same, returning the value, the gradients, then f's further results as plain values. Errors bear `name`.
function grad.value_and_grad(f, options, name, surplus)
  name = name or "bp.value_and_grad"
  check_differentiable(f, name)
  options = read_options(options, name)
  tree.no_more(name, 2, surplus)
  if options.first then
    return function(...) return record_first(finish_value_and_first_gradient, name, f, options, ...) end
  end
  return function(...) return record(finish_value_and_gradients, name, f, options, table.pack(...)) end
end

--- f on plain values.
function grad.eval(f, ...)
  check_function(f, "bp.eval")
  return f(...)
end

--- x untracked: no gradient flows.
function grad.constant(x)
  return tree.map("bp.constant", function(leaf) return core.value(leaf, "bp.constant") end, x)
end

-- vjp -------------------------------------------------------------------------------------------------------------

local Pullback = {__name = "pullback"}
Pullback.__index = Pullback

-- Why a cotangent does not go with a leaf, or nil.
local function misfit(result, cotangent)
  result = core.value(result)
  local class = tree.class_of(result)
  if kind(result) ~= kind(cotangent) or class ~= tree.class_of(cotangent) then
    return ("expected %s, got %s"):format(tree.describe(result), tree.describe_other(cotangent, result))
  elseif core.tracked(cotangent) then
    return "it is tracked by another call"
  elseif class or kind(result) == "number" then
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
    local trouble = misfit(result, cotangent)
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
function Pullback:__call(cotangent, surplus)
  if surplus ~= nil then raise("bp.vjp: a pullback takes one cotangent: a list of them for a list of results") end
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
    gradients[position], before = tape:collect(name, before, arguments[position], nil, position == arguments.n)
  end
  return table.unpack(gradients, 1, arguments.n)
end

function Pullback:close(surplus)
  if getmetatable(self) ~= Pullback then raise("bp.vjp: close a pullback with a colon: pullback:close()") end
  tree.no_more("pullback:close", 0, surplus)
  self.tape:close()
  self.closed = true
end

function Pullback:__tostring()
  local count = self.arguments.n
  return ("%spullback to %d argument%s"):format(self.closed and "closed " or "", count, count == 1 and "" or "s")
end

function Pullback:__close() self:close() end

--- Value, pullback, further results. All arguments are tracked; the tape lives until the pullback is closed.
function grad.vjp(f, ...)
  check_differentiable(f, "bp.vjp")
  local arguments = table.pack(...)
  local tape = core.tape(true)
  local _ <close> = setmetatable({}, {__close = function(_, err) if err ~= nil then tape:close() end end})
  local copies = {}
  for position = 1, arguments.n do copies[position] = tape:track("bp.vjp", arguments[position]) end
  local results = table.pack(f(table.unpack(copies, 1, arguments.n)))
  local leaves = 0
  tree.visit(results[1], function(leaf)
    leaves = leaves + 1
    tape:owns(leaf, "bp.vjp")
  end, "bp.vjp")
  if leaves == 0 then
    raise("bp.vjp: the function's first result must hold a number or an array, got %s", tree.describe(results[1]))
  end
  local values = table.pack(outcomes(tape, "bp.vjp", table.unpack(results, 1, results.n)))
  tape:seal()
  local pullback = setmetatable({tape = tape, arguments = arguments, result = results[1]}, Pullback)
  return values[1], pullback, table.unpack(values, 2, values.n)
end

-- Numbers can only be changed in the tables that hold them: the list of holder, key, new value, ... The parameters must
-- be those that were tracked, as far as that can be seen.
local function plan_numbers(tape, name, decay, rate, params, leaves)
  local count, done, stores = 0, {}, {}
  local function visit(holder, key)
    local parameter = holder[key]
    if kind(parameter) then
      count = count + 1
      local number = tape:descended(name, count, parameter, decay, rate)
      if number then table.move({holder, key, number}, 1, 3, #stores + 1, stores) end
    elseif tree.is_branch(parameter) and not done[parameter] then
      done[parameter] = true
      local keys = tree.keys(parameter, name)
      for i = 1, #keys do visit(parameter, keys[i]) end
    end
  end
  visit({params}, 1)
  if count ~= leaves then raise("%s: an argument was changed while the function ran", name) end
  return stores
end

--- For optimisers: one step p = decay p - rate g on every parameter in place; returns f(params, ...). The products of
-- weights are not multiplied out, and nothing has changed if anything fails. Instances are stepped by functions of the
-- user's, which may raise: not in the middle of a descent, so that nothing is done and nil returned. Errors bear the
-- name.
function grad.descend(name, f, decay, rate, params, ...)
  local tape <close> = core.tape()
  local copy, count, instances = tape:track(name, params, nil, true)
  if instances then return nil end
  if count == 0 then raise_no_leaf(name, 1, params) end
  local value = sweep(tape, name, (f(copy, ...)), true)
  if not tape:descend(decay, rate) then
    tape:descend(decay, rate, plan_numbers(tape, name, decay, rate, params, count))
  end
  return value
end

local function finish_trace(tape, name, _, _, result)
  sweep(tape, name, result)
  return tape:trace()
end

--- For profiles: a function with f's arguments that runs value and gradient and returns the tape's trace.
function grad.traced(f)
  local options = read_options(nil, "bp.profile")
  return function(...) return record_first(finish_trace, "bp.profile", f, options, ...) end
end

return grad
