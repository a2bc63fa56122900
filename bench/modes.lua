-- The network in every mode of the benchmark. Each mode is made from the same arrays and has the same five functions:
--
--   run() gradient() descent()    one task each, returning the loss
--   weights() gradients()         lists of six flat tables, w and b of each layer: the weights as they stand now, and
--                                 the gradients that the last gradient() gave
--
-- and those in Lua a sixth, step(): descent as a gradient that is handed to the optimiser.
-- The modes in Lua differ only in how the loss is written; what is differentiated, and how, is the same for all.
-- A problem: { dtype, batch, layers = { { w =, b = }, ... }, x =, target =, arrays that no mode changes,
-- result = "into", "release" or "drop" }. With a batch of 1 x and target are vectors.

local baseline = require "baseline"
local bp = require "backprop"

local modes = {}

local rate = 0.02

-- ---- manual and limit: the programs in C ----

local function program(name, problem)
  local net = baseline.network(name, problem.dtype, problem.batch)
  net:set("x", problem.x)
  net:set("target", problem.target)
  for l, layer in ipairs(problem.layers) do
    net:set("w" .. l, layer.w)
    net:set("b" .. l, layer.b)
  end
  local function read(prefix)
    local list = {}
    for l = 1, #problem.layers do
      list[#list + 1] = net:get(prefix .. "w" .. l)
      list[#list + 1] = net:get(prefix .. "b" .. l)
    end
    return list
  end
  return {
    run = function() return net:run() end,
    gradient = function() return net:gradient() end,
    descent = function() return net:descent(rate) end,
    weights = function() return read("") end,
    gradients = function() return read("g") end,
  }
end

function modes.manual(problem) return program("manual", problem) end
function modes.limit(problem) return program("limit", problem) end

-- ---- The modes in Lua: from loss(net, x, target) to the tasks ----

local Layer = bp.record("Layer", { "w", "matrix" }, { "b", "vector" })
local Net = bp.record("Net", { "hidden1", Layer }, { "hidden2", Layer }, { "out", Layer })

local function differentiate(loss, problem)
  local layers = {}
  for l, layer in ipairs(problem.layers) do layers[l] = Layer{ w = layer.w:clone(), b = layer.b:clone() } end
  local net = Net{ hidden1 = layers[1], hidden2 = layers[2], out = layers[3] }
  local x, target = problem.x, problem.target
  local function read(from)
    local list = {}
    for _, layer in ipairs{ from.hidden1, from.hidden2, from.out } do
      list[#list + 1] = bp.flatten(layer.w):totable()
      list[#list + 1] = layer.b:totable()
    end
    return list
  end

  local release, result = problem.result == "release", nil
  if problem.result == "into" then result = bp.zero(net) end
  local value_and_grad = bp.value_and_grad(loss, { into = result })
  local sgd = bp.optim.sgd{ lr = rate }
  return {
    run = function() return bp.eval(loss, net, x, target) end,
    gradient = function()
      if release and result then bp.release(result) end
      local value
      value, result = value_and_grad(net, x, target)
      return value
    end,
    descent = function() return sgd:minimize(loss, net, x, target) end,
    step = function()
      local value, gradient = value_and_grad(net, x, target)
      sgd:step(net, gradient)
      return value
    end,
    weights = function() return read(net) end,
    gradients = function() return read(result) end,
  }
end

-- ---- lens and fields: layers, softmax and cross entropy written out ----

-- For one input, and for a batch of them as rows.
local vector, rows = {}, {}

function vector.layer(w, b, x) return bp.matmul(w, x) + b end
function rows.layer(w, b, x) return bp.matmul(x, bp.transpose(w)) + b end

function vector.softmax(x)
  local e = bp.exp(x)
  return e / bp.konst(bp.sum(e), #e, x:dtype())
end

-- A vector broadcasts over rows; here each row has a sum of its own, repeated in all columns.
function rows.softmax(x)
  local e = bp.exp(x)
  local _, classes = e:shape()
  return e / bp.outer(bp.sum(e, 2), bp.ones(classes, x:dtype()))
end

function vector.cross_entropy(p, target) return -bp.dot(target, bp.log(p)) end
function rows.cross_entropy(p, target) return -bp.sum(target * bp.log(p)) / #target end

function modes.lens(problem)
  local form = problem.batch == 1 and vector or rows
  local hidden1, hidden2, out = Net.lens.hidden1, Net.lens.hidden2, Net.lens.out
  local w1, b1 = hidden1 .. Layer.lens.w, hidden1 .. Layer.lens.b
  local w2, b2 = hidden2 .. Layer.lens.w, hidden2 .. Layer.lens.b
  local w3, b3 = out .. Layer.lens.w, out .. Layer.lens.b
  return differentiate(function(net, x, target)
    local y1 = bp.sigmoid(form.layer(bp.view(net, w1), bp.view(net, b1), x))
    local y2 = bp.sigmoid(form.layer(bp.view(net, w2), bp.view(net, b2), y1))
    local y3 = form.softmax(form.layer(bp.view(net, w3), bp.view(net, b3), y2))
    return form.cross_entropy(y3, target)
  end, problem)
end

function modes.fields(problem)
  local form = problem.batch == 1 and vector or rows
  return differentiate(function(net, x, target)
    local y1 = bp.sigmoid(form.layer(net.hidden1.w, net.hidden1.b, x))
    local y2 = bp.sigmoid(form.layer(net.hidden2.w, net.hidden2.b, y1))
    local y3 = form.softmax(form.layer(net.out.w, net.out.b, y2))
    return form.cross_entropy(y3, target)
  end, problem)
end

-- ---- hybrid: gradients by hand for the layers and the loss, composed by the tape ----

-- The pullback of w x + b for the cotangent d of its result.
function vector.layer_gradients(d, w, x, needs)
  return bp.outer(d, x), d, needs[3] and bp.matmul(d, w) or nil
end

function rows.layer_gradients(d, w, x, needs)
  return bp.matmul(bp.transpose(d), x), bp.sum(d, 1), needs[3] and bp.matmul(d, w) or nil
end

function vector.loss(logits, target)
  local log_p = bp.log_softmax(logits)
  return -bp.dot(target, log_p), function(dz)
    return dz * (bp.sum(target) * bp.exp(log_p) - target), nil
  end
end

function rows.loss(logits, target)
  local log_p, n = bp.log_softmax(logits), #target
  return -bp.sum(target * log_p) / n, function(dz)
    local p = bp.exp(log_p)
    return dz / n * (bp.transpose(bp.transpose(p) * bp.sum(target, 2)) - target), nil
  end
end

function modes.hybrid(problem)
  local form = problem.batch == 1 and vector or rows
  local logistic = bp.op{ name = "logistic layer", forward = function(w, b, x)
    local y = bp.linear(x, w, b, "sigmoid")
    return y, function(dy, needs) return form.layer_gradients(dy * y * (1 - y), w, x, needs) end
  end }
  local linear = bp.op{ name = "linear layer", forward = function(w, b, x)
    return bp.linear(x, w, b), function(dy, needs) return form.layer_gradients(dy, w, x, needs) end
  end }
  local cross_entropy = bp.op{ name = "cross entropy", forward = form.loss }
  return differentiate(function(net, x, target)
    local y1 = logistic(net.hidden1.w, net.hidden1.b, x)
    local y2 = logistic(net.hidden2.w, net.hidden2.b, y1)
    return cross_entropy(linear(net.out.w, net.out.b, y2), target)
  end, problem)
end

-- ---- fused: the library's own layers and loss ----

function modes.fused(problem)
  return differentiate(function(net, x, target)
    local y1 = bp.linear(x, net.hidden1.w, net.hidden1.b, "sigmoid")
    local y2 = bp.linear(y1, net.hidden2.w, net.hidden2.b, "sigmoid")
    return bp.softmax_cross_entropy(bp.linear(y2, net.out.w, net.out.b), target)
  end, problem)
end

return modes
