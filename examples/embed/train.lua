-- What each Lua state of the host runs. `host` holds arrays in the host's own memory: pixels and class, which are
-- read-only, the parameters in `net`, and `gradient`, of the same structure; and the host's operation, softsign.
local host = ...
local bp = require "backprop"

local net, random = host.net, bp.rng(1)

local function loss(p, x, class)
  return bp.softmax_cross_entropy(bp.linear(host.softsign(bp.linear(x, p.w1, p.b1)), p.w2, p.b2), class)
end

local script = {}

--- Trains in place: the host finds the parameters where it has lent the memory for them. Returns the accuracy.
function script.train(epochs)
  for _, w in ipairs{ net.w1, net.w2 } do
    local rows, cols = w:shape()
    w:copy(random:normal(0, cols ^ -0.5, rows, cols))
  end
  net.b1:fill(0)
  net.b2:fill(0)
  local optimiser = bp.optim.sgd{ lr = 0.3 }
  for _ = 1, epochs do
    local order = random:permutation(#host.pixels)
    for from = 1, #order, 32 do
      local some = bp.slice(order, from, math.min(from + 31, #order))
      optimiser:minimize(loss, net, bp.gather(host.pixels, some), bp.gather(host.class, some))
    end
  end
  local logits = bp.linear(host.softsign(bp.linear(host.pixels, net.w1, net.b1)), net.w2, net.b2)
  return bp.mean(bp.equal(bp.argmax(logits, 2), host.class))
end

--- The gradient over all data, into the host's memory.
function script.gradient()
  bp.grad(loss, { into = host.gradient })(net, host.pixels, host.class)
end

--- Holds on to more and more: arrays, or strings, which are Lua's own memory.
function script.hoard(what)
  local held = {}
  while true do
    held[#held + 1] = what == "arrays" and bp.zeros(1000) or ("x"):rep(1000) .. #held
  end
end

--- Makes strings of so many bytes in all, and lets them go.
function script.spell(bytes)
  local held = {}
  for i = 1, bytes // 1000 do held[i] = ("x"):rep(960) .. i end
  return #held
end

--- Compares the host's operation with finite differences; raises where they differ.
function script.check()
  bp.check(host.softsign, bp.vector{ 0.5, -2, 3 })
  bp.check(function(m) return host.softsign(m) * m end, bp.matrix{ { 1, -3 }, { 0.2, 4 } })
end

--- Writes into what is the host's alone: an error.
function script.deface() host.pixels[1]:fill(0) end

return script
