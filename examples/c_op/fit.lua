-- An operation written in C (robust.c), used like a built-in one: called, differentiated, checked against finite
-- differences, refused wrong arguments, and as the loss that fits a line through points some of which are far off.
--
--   make -C examples/c_op && lua5.4 examples/c_op/fit.lua

-- Where the library is not installed, take it from the checkout that this script stands in.
local here = arg[0]:match("^(.*/)") or "./"
if not pcall(require, "backprop") then
  package.path = here .. "../../lua/?.lua;" .. here .. "../../lua/?/init.lua;" .. package.path
  package.cpath = here .. "../../lua/?.so;" .. package.cpath
end
local bp = require "backprop"
package.cpath = package.cpath .. ";" .. here .. "?.so" -- where the Makefile puts it
local smooth_l1 = require("robust").smooth_l1

-- Plain values, then a gradient: within 1 of zero the slope is the distance, further out it is 1.
local x, y = bp.vector{ 0.5, 3, -4, 1 }, bp.vector{ 0, 0, 0, 1 }
print("values  ", smooth_l1(x, y))
print("gradient", bp.grad(smooth_l1)(x, y))

-- Against finite differences: vectors, numbers, an input used twice, another beta, f32.
bp.check(smooth_l1, x, y)
bp.check(smooth_l1, 3.0, 1.2)
bp.check(function(u) return smooth_l1(u, u * u, 0.7) end, bp.matrix{ { 1, 2.1 }, { -0.3, 4 } })
bp.check{ f = smooth_l1, args = { x:astype "f32", y:astype "f32" }, tol = 1e-2 }
print("gradients agree with finite differences")

-- Wrong calls are errors that say what is wrong, with the line that made them.
print(select(2, pcall(smooth_l1, x, bp.zeros(3))))
print(select(2, pcall(smooth_l1, x, y, -1)))

-- The line 2 t + 1, with a little noise, and every tenth point far above it.
local r = bp.rng(1)
local t = bp.linspace(-1, 1, 100)
local points = 2 * t + 1 + r:normal(0, 0.05, 100)
for i = 10, 100, 10 do points[i] = points[i] + 20 end

local function fit(loss)
  local line, optimiser = bp.zeros(2), bp.optim.sgd{ lr = 0.1, momentum = 0.9 }
  for _ = 1, 500 do
    optimiser:minimize(function(l) return bp.mean(loss(l[1] * t + l[2], points)) end, line)
  end
  return ("%.2f t + %.2f"):format(line[1], line[2])
end
print("fitted with squares:   ", fit(function(u, v) return bp.square(u - v) end))
print("fitted with smooth_l1: ", fit(smooth_l1))
