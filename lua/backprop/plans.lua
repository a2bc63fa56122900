--[[
What one call will change in place, as a list of instructions for core.commit: all are checked before the first is run,
and running them asks for no memory, so that it happens as a whole or not at all.
]]

local core = require "backprop.core"

local plans = {}

local Plan = {}
Plan.__index = Plan

function plans.new() return setmetatable({}, Plan) end

-- holder[key] = value, where there is a value already.
function Plan:set(holder, key, value)
  local n = #self
  self[n + 1], self[n + 2], self[n + 3], self[n + 4] = "set", holder, key, value
end

-- holder[key] = the first element of x.
function Plan:take(holder, key, x)
  local n = #self
  self[n + 1], self[n + 2], self[n + 3], self[n + 4] = "take", holder, key, x
end

-- y = y + a x
function Plan:axpy(a, x, y)
  local n = #self
  self[n + 1], self[n + 2], self[n + 3], self[n + 4] = "axpy", a, x, y
end

-- x = a x
function Plan:scale(a, x)
  local n = #self
  self[n + 1], self[n + 2], self[n + 3] = "scale", a, x
end

function Plan:adam(x, g, m, v, beta1, beta2, rate, epsilon, decay, l2)
  local n = #self
  self[n + 1], self[n + 2], self[n + 3], self[n + 4], self[n + 5], self[n + 6] = "adam", x, g, m, v, beta1
  self[n + 7], self[n + 8], self[n + 9], self[n + 10], self[n + 11] = beta2, rate, epsilon, decay, l2
end

-- x = x + a y for the parameter x, which may be a number.
function Plan:step(a, y, x, is_number)
  if is_number then
    self:set(self.holder, self.key, x + (a + 0.0) * y) -- a float, also of integers
  else
    self:axpy(a, y, x)
  end
end

--- Does it all. Errors bear the name.
function Plan:commit(name) core.commit(self, name) end

return plans
