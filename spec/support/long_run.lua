-- What P18 runs in processes of its own: many steps of one kind, without a call of the collector. `run` prints the most
-- bytes that were held in the first fifth of the steps, and afterwards.

local bp = require "backprop"

local long_run = {}

function long_run.network(seed)
  local r = bp.rng(seed)
  local net = {
    hidden = { w = r:normal(0, 1, 4, 2), b = bp.zeros(4) },
    out = { w = r:normal(0, 1, 2, 4), b = bp.zeros(2) },
    scale = 1.0,
  }
  local function loss(n, x, class)
    local h = bp.tanh(bp.matmul(n.hidden.w, x) + n.hidden.b)
    return bp.softmax_cross_entropy(bp.linear(h, n.out.w, n.out.b) * n.scale, class)
  end
  return net, loss
end

local kinds = {
  ["gradients that are dropped"] = function(net, loss, x, class)
    local g = bp.grad(loss)(net, x, class)
    bp.axpy(-0.01, g.hidden, net.hidden)
  end,
  ["descent in place"] = function(net, loss, x, class, opt) opt.sgd:minimize(loss, net, x, class) end,
  ["Adam"] = function(net, loss, x, class, opt) opt.adam:minimize(loss, net, x, class) end,
  ["plain forward passes"] = function(net, loss, x, class) return loss(net, x, class) end,
  -- Some of these live so long that a generational collector takes them for old.
  ["plain passes over large arrays"] = function(_, _, _, _, opt)
    local y = bp.sigmoid(opt.large + 1)
    local z = bp.exp(bp.sigmoid(bp.slice(y, 1, 64) + 1) * 2)
    opt.last = z - bp.slice(y, 65, 128)
  end,
  -- As a replay buffer keeps them: all grow old.
  ["arrays that live for many steps"] = function(_, _, _, _, opt)
    local queue = opt.queue
    queue[#queue + 1] = bp.zeros(128, 128)
    if #queue == 20 then table.remove(queue, 1) end
  end,
  ["pullbacks that are never closed"] = function(net, loss, x, class) bp.vjp(loss, net, x, class) end,
}

long_run.names = {}
for name in pairs(kinds) do long_run.names[#long_run.names + 1] = name end
table.sort(long_run.names)

-- What the state holds, collected or not (to count collects nothing), or the process where that is more and known.
local function held()
  local stats, resident = bp.stats(), 0
  local file = io.open "/proc/self/statm"
  if file then
    resident = tonumber(file:read "a":match "^%d+ (%d+)") * 4096
    file:close()
  end
  return math.max(resident, math.ceil(collectgarbage "count" * 1024 + stats.bytes_live + stats.bytes_pooled))
end

function long_run.run(name, mode, steps)
  collectgarbage(mode)
  local net, loss = long_run.network(2)
  local x = bp.vector{ 0.5, -0.5 }
  local opt = { sgd = bp.optim.sgd{}, adam = bp.optim.adam{}, large = bp.zeros(128, 128), queue = {} }
  local early, late, step = 0, 0, kinds[name]
  if name == "plain forward passes" then steps = steps * 20 end -- a pass is quick, and it takes so many to see growth
  for k = 1, steps do
    step(net, loss, x, 1 + k % 2, opt)
    if k % 50 == 0 then
      if k <= steps / 5 then early = math.max(early, held()) else late = math.max(late, held()) end
    end
  end
  print(("%d %d"):format(early, late))
end

return long_run
