-- The task of the benchmark, the same for every mode: the 784 x 300 x 100 x 10 network with random weights, and one or
-- a batch of random inputs with targets. Made as arrays, not as tables, so that the collector starts with a small heap.

local bp = require "backprop"

local problem = { width = { 784, 300, 100, 10 } }

-- What bench/modes.lua takes; targets that sum to one, or to anything.
function problem.new(dtype, batch, result, sum_to_one)
  local width, random = problem.width, bp.rng(784)
  local new = { dtype = dtype, batch = batch, result = result, layers = {} }
  for l = 1, #width - 1 do
    new.layers[l] = { w = random:uniform(-0.5, 0.5, width[l + 1], width[l], dtype),
      b = random:uniform(-0.5, 0.5, width[l + 1], dtype) }
  end
  local x = random:uniform(0, 1, batch, width[1], dtype)
  local target = random:uniform(0, 1, batch, width[#width], dtype)
  if sum_to_one then target = bp.transpose(bp.transpose(target) / bp.sum(target, 2)) end
  new.x, new.target = batch == 1 and x[1] or x, batch == 1 and target[1] or target
  return new
end

return problem
