--[[
Optimisers. `opt:step(params, grads)` changes parameters in place, leaf by leaf; `opt:minimize(f, params, ...)` makes
gradient and update one. Leaves that are windows of the same elements are one parameter: their gradients are summed and
they share one state; windows that overlap in part are an error where an element of two parameters would decay twice or
have two states. Numbers are changed in the table that holds them. So are instances, which only sgd can step: the
others need a square root of every element.

A method is a function update(optimiser, state, parameter, gradient, kind, plan) that changes nothing but says in the
plan what is to be changed; it may raise. `state` is a table of the parameter's own. A plan is a list of the
instructions of core.commit, which then makes the whole step: none of it can fail, also when memory runs out.

Formulas: momentum, B. Polyak (1964), in the form v = mu v + g; Nesterov's as I. Sutskever and others (2013); Adam,
D. Kingma and J. Ba (2015); AdamW, I. Loshchilov and F. Hutter (2019); RMSProp, T. Tieleman and G. Hinton (2012);
AdaGrad, J. Duchi and others (2011).
]]

local alias = require "backprop.alias"
local core = require "backprop.core"
local tree = require "backprop.tree"
local grad = require "backprop.grad"
local plans = require "backprop.plans"

local kind, raise = core.kind, core.raise

local optim = {}

-- Parameters and their gradients ----------------------------------------------------------------------------------

-- Calls f(holder, key, parameter, gradient, path) for every leaf below holder[key]. A table at two paths has two
-- gradients, unless these are one table, too. `seen` has the pairs so far.
local function each_leaf(holder, key, gradient, path, f, seen)
  local parameter = holder[key]
  if tree.is_leaf(parameter) then
    if not tree.is_leaf(gradient) then
      raise("bp.optim: the gradient%s must be %s, got %s", path, tree.describe(parameter), tree.describe(gradient))
    end
    f(holder, key, parameter, gradient, path)
  elseif parameter == nil then
    raise("bp.optim: the parameters are missing")
  elseif path == "" and not tree.is_branch(parameter) then
    raise("bp.optim: expected parameters (numbers in tables, arrays), got %s", tree.describe(parameter))
  elseif tree.is_branch(parameter) then
    if type(gradient) ~= "table" then
      raise("bp.optim: the gradient%s must be structured like the parameters, got %s", path, tree.describe(gradient))
    end
    seen[parameter] = seen[parameter] or {}
    if seen[parameter][gradient] == "open" then raise("bp.optim: the structure%s contains itself", path) end
    if seen[parameter][gradient] then return end
    seen[parameter][gradient] = "open"
    local function below(name)
      return path == "" and " at " .. tree.join("", name) or tree.join(path, name)
    end
    for _, name in ipairs(tree.keys(parameter, "bp.optim")) do
      each_leaf(parameter, name, rawget(gradient, name), below(name), f, seen)
    end
    for name, part in next, gradient do
      local stepped = rawget(parameter, name)
      if (tree.is_leaf(part) or tree.is_branch(part)) and not (tree.is_leaf(stepped) or tree.is_branch(stepped)) then
        raise("bp.optim: there is no parameter for the gradient%s", below(name))
      end
    end
    seen[parameter][gradient] = "done"
  end
end

local function check_leaf(parameter, gradient, path)
  if core.tracked(parameter) then
    raise("bp.optim: the parameter%s is tracked: step outside of the function", path)
  elseif kind(parameter) == "released" then
    raise("bp.optim: the parameter%s was released", path)
  elseif kind(parameter) ~= kind(gradient) and kind(parameter) ~= nil then
    raise("bp.optim: the gradient%s must be %s, got %s", path, tree.describe(parameter), tree.describe(gradient))
  end
  local trouble = tree.mismatch(parameter, gradient)
  if trouble then raise("bp.optim: parameter and gradient%s: %s", path, trouble) end
end

-- Arrays are changed in place; everything else in the table that holds it.
local function refuse_bare(params)
  if tree.is_leaf(params) and (kind(params) == "number" or kind(params) == nil) then
    raise("bp.optim: a bare %s cannot be changed in place: put it in a table", tree.kind(params))
  end
end

-- Raises where elements belong to two parameters that are not the same window.
local function refuse_overlaps(params)
  local by_buffer = {}
  tree.visit(params, function(leaf, where)
    if not tree.is_array(leaf) then return end
    local buffer = core.buffer_key(leaf)
    local others = by_buffer[buffer] or {}
    by_buffer[buffer] = others
    for _, other in ipairs(others) do
      if core.overlap(leaf, other.leaf) and core.storage_key(leaf) ~= core.storage_key(other.leaf) then
        raise("bp.optim: the parameters at %s and %s share some of their elements: with weight decay, momentum or an "
          .. "adaptive step an element must belong to one parameter", other.path, where())
      end
    end
    others[#others + 1] = {leaf = leaf, path = where()}
  end, "bp.optim")
end

-- The parameters as a list of {holder, key, parameter, gradient, id}; those of one storage, or one place, are one.
-- Gradients stay what they are while the parameters are changed.
local function parameters_of(params, grads)
  local list, known, written = {}, {}, {}
  refuse_bare(params)
  each_leaf({params}, 1, grads, "", function(holder, key, parameter, gradient, path)
    check_leaf(parameter, gradient, path)
    local array = tree.is_array(parameter)
    local id = array and core.storage_key(parameter, true) or nil
    local group, name = id and known or known[holder] or {}, id or key
    if not id then known[holder] = group end
    local item = group[name]
    if item then
      item.gradient = tree.sum(item.gradient, gradient)
      return
    end
    item = {holder = holder, key = key, parameter = parameter, gradient = gradient, id = id}
    group[name] = item
    list[#list + 1] = item
    if array then alias.note(written, parameter) end
  end, {})
  for _, item in ipairs(list) do
    if item.id then item.gradient = alias.kept(written, item.parameter, item.gradient) end
  end
  return list
end

-- The optimiser ---------------------------------------------------------------------------------------------------

local Optimiser = {__name = "optimiser"}
Optimiser.__index = Optimiser

-- State by storage (for numbers by the table and key that hold them).
local function state_of(self, item)
  local states = self.states
  if item.id then
    -- The state holds the array, so that its address stays its own.
    local state = states[item.id]
    if state == nil or kind(state.parameter) == "released" then
      state = {parameter = item.parameter}
      states[item.id] = state
    end
    return state
  end
  states[item.holder] = states[item.holder] or {}
  local held = states[item.holder]
  held[item.key] = held[item.key] or {}
  return held[item.key]
end

-- The same of an array that no other shares storage with, found by its handle after the first time.
local function state_of_array(self, parameter)
  local state = self.by_handle[parameter]
  if not state then
    state = state_of(self, {parameter = parameter, id = core.storage_key(parameter, true)})
    self.by_handle[parameter] = state
  end
  return state
end

local function check_self(self)
  if getmetatable(self) ~= Optimiser then raise("bp.optim: call it with a colon: opt:step(..), opt:minimize(..)") end
end

-- Decays of running averages: at 1 nothing new would ever enter.
local below_one = {beta1 = true, beta2 = true, alpha = true}

local function check_setting(name, key, value, default)
  if type(value) ~= type(default) then
    raise("bp.optim.%s: %s must be a %s, got %s", name, key, type(default), tree.describe(value))
  end
  if type(value) == "number" and not (value >= 0 and value < math.huge) then
    raise("bp.optim.%s: %s cannot be %g", name, key, value)
  elseif below_one[key] and value >= 1 then
    raise("bp.optim.%s: %s must be less than 1, got %g", name, key, value)
  end
end

-- Settings may be assigned: one that has changed since it was last checked is checked before it is used.
local function check_settings(self)
  local settings, checked = self.settings, self.checked
  for i = 1, #settings do
    local key = settings[i]
    local value = self[key]
    if value ~= checked[key] then
      check_setting(self.name, key, value, self.defaults[key])
      checked[key] = value
    end
  end
  if math.type(self.steps) ~= "integer" or self.steps < 0 then
    raise("bp.optim.%s: steps must be a count of steps, got %s", self.name, tostring(self.steps))
  end
  if self.nesterov and self.momentum == 0 then raise("bp.optim.sgd: nesterov needs a momentum") end
end

-- The new value of an instance, and its velocity. Nothing is changed yet: the functions are the user's and may raise.
local function step_instance(self, class, velocity, parameter, gradient)
  if not self.momentum then raise("bp.optim: an instance of a class can be stepped by sgd only") end
  if not class.scale then raise("bp.optim: the instance's class has no scale") end
  local add, scale = class.add, class.scale
  if self.weight_decay ~= 0 then gradient = add(gradient, scale(parameter, self.weight_decay)) end
  if self.momentum == 0 then return add(parameter, scale(gradient, -self.lr)) end
  velocity = velocity and add(scale(velocity, self.momentum), gradient) or gradient
  local direction = self.nesterov and add(gradient, scale(velocity, self.momentum)) or velocity
  return add(parameter, scale(direction, -self.lr)), velocity
end

-- Gradients are subtracted, and parameters decay: nothing is remembered.
local function descends(self)
  return self.momentum == 0
end

-- Gradients are subtracted and that is all: then an element may belong to several parameters.
local function is_plain_descent(self)
  return descends(self) and self.weight_decay == 0
end

-- What a step makes of parameters that are arrays, each in storage of its own: see alias.pairs.
local function plan_pairs(self, plan, apart)
  for k = 1, #apart, 2 do
    local parameter = apart[k]
    self.update(self, state_of_array(self, parameter), parameter, apart[k + 1], false, plan)
  end
end

-- The same for any parameters.
local function plan_structures(self, plan, params, grads)
  if not is_plain_descent(self) then refuse_overlaps(params) end
  for _, item in ipairs(parameters_of(params, grads)) do
    local class = tree.class_of(item.parameter)
    plan.holder, plan.key = item.holder, item.key
    if class then
      local state = state_of(self, item)
      local value, velocity = step_instance(self, class, state.velocity, item.parameter, item.gradient)
      plan:set(item.holder, item.key, value)
      if velocity then
        state.velocity = state.velocity or false
        plan:set(state, "velocity", velocity)
      end
    else
      self.update(self, state_of(self, item), item.parameter, item.gradient, kind(item.parameter) == "number", plan)
    end
  end
end

local function step(self, params, grads)
  local plan, apart = plans.new(), alias.pairs("bp.optim", params, grads)
  if apart then
    plan_pairs(self, plan, apart)
  else
    plan_structures(self, plan, params, grads)
  end
  plan:set(self, "steps", self.steps + 1)
  plan:commit("bp.optim")
  return apart
end

--- Changes params in place. Nothing is changed if the structures do not fit.
function Optimiser:step(params, grads, surplus)
  check_self(self)
  tree.no_more("opt:step", 2, surplus)
  check_settings(self)
  step(self, params, grads)
end

local function release_all(gradients, apart)
  if apart then
    for k = 2, #apart, 2 do core.release(apart[k]) end
  else
    tree.visit(gradients, function(leaf) if kind(leaf) ~= "number" and kind(leaf) then core.release(leaf) end end)
  end
end

--- Gradient and update as one; returns the loss.
function Optimiser:minimize(f, params, ...)
  check_self(self)
  check_settings(self)
  if not tree.callable(f) then raise("bp.optim: expected a function, got %s", tree.describe(f)) end
  if params == nil then raise("bp.optim: the parameters are missing") end
  refuse_bare(params)
  if descends(self) then -- the sweep ends in the parameters: no gradient is made
    if not is_plain_descent(self) then refuse_overlaps(params) end
    local loss = grad.descend("bp.optim", f, 1 - self.lr * self.weight_decay, self.lr, params, ...)
    if loss ~= nil then
      self.steps = self.steps + 1
      return loss
    end
  end
  local loss, gradients = grad.value_and_grad(f, nil, "bp.optim")(params, ...)
  release_all(gradients, step(self, params, gradients))
  return loss
end

-- Options with their defaults; anything else is an error.
local function new(name, options, defaults, update)
  if options ~= nil and type(options) ~= "table" then
    raise("bp.optim.%s: expected a table of options, got %s", name, tree.describe(options))
  end
  local self = {
    name = name, settings = {}, checked = {}, defaults = defaults, update = update, decoupled = false,
    states = setmetatable({}, {__mode = "k"}), by_handle = setmetatable({}, {__mode = "k"}), steps = 0,
  }
  for key, value in pairs(defaults) do
    self[key] = value
    self.settings[#self.settings + 1] = key
  end
  table.sort(self.settings)
  for key, value in pairs(options or {}) do
    if defaults[key] == nil then
      raise("bp.optim.%s: unknown option '%s'; its options: %s", name, tostring(key), table.concat(self.settings, ", "))
    end
    check_setting(name, key, value, defaults[key])
    self[key] = value
  end
  for key in pairs(defaults) do self.checked[key] = self[key] end
  return setmetatable(self, Optimiser)
end

-- A setting that does not exist is a mistake that would pass without a word.
function Optimiser:__newindex(key)
  raise("bp.optim.%s: there is no setting '%s'; its settings: %s", self.name, tostring(key),
    table.concat(self.settings, ", "))
end

function Optimiser:__tostring()
  local texts = {}
  for i, key in ipairs(self.settings) do texts[i] = ("%s = %s"):format(key, self[key]) end
  return ("%s{%s} after %d step%s"):format(self.name, table.concat(texts, ", "), self.steps,
    self.steps == 1 and "" or "s")
end

-- Methods ---------------------------------------------------------------------------------------------------------

-- The gradient with weight decay in it; a new array where there is any.
local function decayed(self, parameter, gradient)
  if self.weight_decay == 0 then return gradient end
  return gradient + self.weight_decay * parameter
end

local function zero_like(parameter) return tree.zero(parameter) end

local function sgd_update(self, state, parameter, gradient, is_number, plan)
  gradient = decayed(self, parameter, gradient)
  if self.momentum == 0 then return plan:step(-self.lr, gradient, parameter, is_number) end
  state.velocity = state.velocity or zero_like(parameter)
  local velocity, mu = state.velocity, self.momentum
  if is_number then
    velocity = mu * velocity + gradient
    plan:set(state, "velocity", velocity)
    return plan:step(-self.lr, self.nesterov and gradient + mu * velocity or velocity, parameter, is_number)
  end
  plan:scale(mu, velocity)
  plan:axpy(1, gradient, velocity)
  if not self.nesterov then return plan:step(-self.lr, velocity, parameter, is_number) end
  plan:step(-self.lr, gradient, parameter, is_number)
  plan:step(-self.lr * mu, velocity, parameter, is_number)
end

--- lr (0.01), momentum (0), nesterov (false), weight_decay (0, added to the gradient times the parameter).
function optim.sgd(options, surplus)
  tree.no_more("bp.optim.sgd", 1, surplus)
  local self = new("sgd", options, {lr = 0.01, momentum = 0, nesterov = false, weight_decay = 0}, sgd_update)
  check_settings(self)
  return self
end

-- A number goes the way of an array of one element, so that there is one formula.
local function adam_update(self, state, parameter, gradient, is_number, plan)
  local x, g = parameter, gradient
  if is_number then x, g = core.vector({parameter}), core.vector({gradient}) end
  state.m = state.m or zero_like(x)
  state.v = state.v or zero_like(x)
  state.steps = state.steps or 0
  local steps = state.steps + 1
  local correction1, correction2 = 1 - self.beta1 ^ steps, math.sqrt(1 - self.beta2 ^ steps)
  local decay, l2 = 1, self.weight_decay
  if self.decoupled then decay, l2 = 1 - self.lr * self.weight_decay, 0 end
  plan:set(state, "steps", steps)
  plan:adam(x, g, state.m, state.v, self.beta1, self.beta2, self.lr * correction2 / correction1,
    self.eps * correction2, decay, l2)
  if is_number then plan:take(plan.holder, plan.key, x) end
end

--- lr (0.001), beta1 (0.9), beta2 (0.999), eps (1e-8), weight_decay (0, added to the gradient times the parameter).
function optim.adam(options, surplus)
  tree.no_more("bp.optim.adam", 1, surplus)
  return new("adam", options, {lr = 0.001, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0}, adam_update)
end

--- As adam, with weight_decay (0.01) taken from the parameter directly.
function optim.adamw(options, surplus)
  tree.no_more("bp.optim.adamw", 1, surplus)
  local self = new("adamw", options, {lr = 0.001, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01},
    adam_update)
  self.decoupled = true
  return self
end

-- x = x - lr g / (sqrt(average) + eps).
local function divided_step(self, average, parameter, gradient, is_number, plan)
  plan:step(-self.lr, gradient / (core.sqrt(average) + self.eps), parameter, is_number)
end

local function rmsprop_update(self, state, parameter, gradient, is_number, plan)
  gradient = decayed(self, parameter, gradient)
  state.average = state.average or zero_like(parameter)
  local average = state.average * self.alpha + core.square(gradient) * (1 - self.alpha)
  plan:set(state, "average", average)
  divided_step(self, average, parameter, gradient, is_number, plan)
end

--- lr (0.01), alpha (0.99), eps (1e-8), weight_decay (0).
function optim.rmsprop(options, surplus)
  tree.no_more("bp.optim.rmsprop", 1, surplus)
  return new("rmsprop", options, {lr = 0.01, alpha = 0.99, eps = 1e-8, weight_decay = 0}, rmsprop_update)
end

local function adagrad_update(self, state, parameter, gradient, is_number, plan)
  gradient = decayed(self, parameter, gradient)
  state.sum = state.sum or zero_like(parameter)
  local sum = state.sum + core.square(gradient)
  plan:set(state, "sum", sum)
  divided_step(self, sum, parameter, gradient, is_number, plan)
end

--- lr (0.01), eps (1e-10), weight_decay (0).
function optim.adagrad(options, surplus)
  tree.no_more("bp.optim.adagrad", 1, surplus)
  return new("adagrad", options, {lr = 0.01, eps = 1e-10, weight_decay = 0}, adagrad_update)
end

return optim
