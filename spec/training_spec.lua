-- Optimisers and training: bp.optim against a reference in plain Lua, minimize against gradient-then-step, and the
-- pitfalls P10 (shared weights), P32 (dropout masks), P33 (the fused update).
-- Held here: the update rules to 1e-13 in f64 and 1e-5 in f32 (relative to max(1, |w|)), that minimize and step agree
-- to 1e-13 whatever the network, and that an error leaves parameters and optimiser as they were.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"

local same, close, raises = help.same, help.close, help.raises

-- One step for one number: s is that number's own state, t the step counted from 1. The formulas are PyTorch's.
local rules = {}

function rules.sgd(o, w, g, s)
  g = g + (o.weight_decay or 0) * w
  if not o.momentum then return w - o.lr * g end
  s.v = o.momentum * (s.v or 0) + g
  return w - o.lr * (o.nesterov and g + o.momentum * s.v or s.v)
end

function rules.adam(o, w, g, s, t, decoupled)
  if decoupled then w = w - o.lr * o.weight_decay * w else g = g + (o.weight_decay or 0) * w end
  s.m = 0.9 * (s.m or 0) + 0.1 * g
  s.v = 0.999 * (s.v or 0) + 0.001 * g * g
  return w - o.lr * (s.m / (1 - 0.9 ^ t)) / (math.sqrt(s.v / (1 - 0.999 ^ t)) + 1e-8)
end

function rules.adamw(o, w, g, s, t) return rules.adam(o, w, g, s, t, true) end

function rules.rmsprop(o, w, g, s)
  g = g + (o.weight_decay or 0) * w
  s.v = 0.99 * (s.v or 0) + 0.01 * g * g
  local d = g / (math.sqrt(s.v) + 1e-8)
  if not o.momentum then return w - o.lr * d end
  s.b = o.momentum * (s.b or 0) + d
  return w - o.lr * s.b
end

function rules.adagrad(o, w, g, s)
  g = g + (o.weight_decay or 0) * w
  s.v = (s.v or 0) + g * g
  return w - o.lr * g / (math.sqrt(s.v) + 1e-10)
end

local optimisers = {
  { "sgd", { lr = 0.1 } }, { "sgd", { lr = 0.1, momentum = 0.9 } }, { "sgd", { lr = 0.1, weight_decay = 0.2 } },
  { "sgd", { lr = 0.1, momentum = 0.8, nesterov = true } },
  { "sgd", { lr = 0.1, momentum = 0.8, nesterov = true, weight_decay = 0.1 } },
  { "adam", { lr = 0.05 } }, { "adam", { lr = 0.05, weight_decay = 0.1 } },
  { "adamw", { lr = 0.05, weight_decay = 0.1 } }, { "rmsprop", { lr = 0.05 } }, { "adagrad", { lr = 0.05 } },
}

local function described(case)
  local parts = {}
  for k, v in pairs(case[2]) do parts[#parts + 1] = k .. " = " .. tostring(v) end
  table.sort(parts)
  return ("%s{%s}"):format(case[1], table.concat(parts, ", "))
end

local function make(case)
  local options = {}
  for k, v in pairs(case[2]) do options[k] = v end
  return bp.optim[case[1]](options)
end

-- The same structure stepped by the reference; state holds one table a number.
local function reference_step(case, w, g, state, t)
  if type(w) == "number" then return rules[case[1]](case[2], w, g, state, t) end
  local new = {}
  for k in pairs(w) do
    state[k] = state[k] or {}
    new[k] = reference_step(case, w[k], g[k], state[k], t)
  end
  return new
end

describe("opt:step", function()
  for _, case in ipairs(optimisers) do
    it("follows the reference: " .. described(case), function()
      for _, dtype in ipairs(help.dtypes) do
        local p = { w = bp.matrix({ { 1, -2, 3 }, { 0.5, 0, -1 } }, dtype), list = { bp.vector({ 1, 2 }, dtype) } }
        local w, list, vector = p.w, p.list, p.list[1]
        local opt, state, want = make(case), {}, help.plain(p)
        for t = 1, 8 do
          local g = help.random_like(p, t, -2, 2)
          if t == 4 then g.w:fill(0) end
          want = reference_step(case, want, help.plain(g), state, t)
          local before = help.clone(g)
          opt:step(p, g)
          close(want, p, dtype == "f64" and 1e-13 or 1e-5, "step " .. t)
          same(before, g)
        end
        assert(rawequal(p.w, w) and rawequal(p.list, list) and rawequal(p.list[1], vector)) -- in place
      end
    end)
  end

  it("takes bare arrays, records and lists, and a new lr at any time", function()
    local w = bp.vector{ 1, 2 }
    local opt = bp.optim.sgd{ lr = 0.5 }
    assert.equal(0.5, opt.lr)
    opt:step(w, bp.vector{ 1, 1 })
    same({ 0.5, 1.5 }, w)
    opt.lr = 0.25
    opt:step(w, bp.vector{ 2, -2 })
    same({ 0, 2 }, w)
    local R = bp.record("R", "w", { "stride", bp.static })
    local r = R{ w = w, stride = 3 }
    opt:step(r, R{ w = bp.vector{ 4, 4 }, stride = 3 })
    same({ w = { -1, 1 }, stride = 3 }, r)
    opt:step({ { w } }, { { bp.vector{ 4, 4 } } })
    same({ -2, 0 }, w)
  end)

  it("keeps the state of each array, not of each structure", function()
    local case = { "sgd", { lr = 0.1, momentum = 0.9 } }
    local a, b, g = bp.vector{ 1, 2 }, bp.vector{ 1, 2 }, bp.vector{ 1, -1 }
    local opt, alone = make(case), make(case)
    for _ = 1, 3 do
      opt:step({ a = a }, { a = g })
      opt:step({ { a } }, { { g } })
      alone:step(b, g)
      alone:step(b, g)
    end
    same(b, a)
  end)

  it("treats rows of one matrix as parameters of their own", function()
    for _, case in ipairs(optimisers) do
      local m = bp.matrix{ { 1, 2 }, { 3, 4 } }
      local rows, opt, state, want = { m[1], m[2] }, make(case), {}, { { 1, 2 }, { 3, 4 } }
      for t = 1, 4 do
        local g = help.random_like(rows, t)
        want = reference_step(case, want, help.plain(g), state, t)
        opt:step(rows, g)
        close(want, m, 1e-13, described(case))
      end
    end
  end)

  it("P10: an array at two paths: gradients summed, one state", function()
    for _, case in ipairs(optimisers) do
      local w = bp.vector{ 1, 2 }
      local opt, state, want = make(case), {}, { 1, 2 }
      for t = 1, 4 do
        local g = help.random_like({ a = w, b = { w } }, t)
        want = reference_step(case, want, help.plain(g.a + g.b[1]), state, t)
        opt:step({ a = w, b = { w } }, g)
        close(want, w, 1e-13, described(case))
      end
    end
  end)

  it("changes a number in the table that holds it", function()
    for _, case in ipairs(optimisers) do
      local p, opt, state, want = { 3, deep = { n = -2 } }, make(case), {}, { 3, deep = { n = -2 } }
      local deep = p.deep
      for t = 1, 4 do
        local g = help.random_like(p, t)
        want = reference_step(case, want, g, state, t)
        opt:step(p, g)
        close(want, p, 1e-13, described(case))
      end
      assert(rawequal(deep, p.deep))
    end
  end)

  it("refuses a bare number, other structures, shapes and dtypes, and changes nothing then", function()
    local p = { a = bp.vector{ 1, 2 }, b = bp.vector{ 3, 4 } }
    for _, case in ipairs(optimisers) do
      local opt = make(case)
      raises({ "bp.optim", "number" }, opt.step, opt, 3, 1)
      raises({ "bp.optim", "at b" }, opt.step, opt, p, { a = bp.vector{ 1, 1 } })
      raises("bp.optim", opt.step, opt, p, { a = bp.vector{ 1, 1 }, b = bp.vector{ 1, 1, 1 } })
      raises({ "bp.optim", "f32" }, opt.step, opt, p, { a = bp.vector{ 1, 1 }, b = bp.vector({ 1, 1 }, "f32") })
      raises("bp.optim", opt.step, opt, p)
      same({ a = { 1, 2 }, b = { 3, 4 } }, p)
    end
  end)
end)

-- Networks for minimize: how fresh parameters are made, the loss, further arguments.
local function weights(seed, ...) return bp.rng(seed):uniform(-0.7, 0.7, ...) end
local x4, x3, batch, targets = weights(90, 4), weights(91, 3), weights(92, 5, 4), { 1, 3, 2, 2, 1 }
local networks = {
  { "two layers, one example", function()
    return { w1 = weights(1, 6, 4), b1 = weights(2, 6), w2 = weights(3, 3, 6), b2 = weights(4, 3) }
  end, function(p, x)
    return bp.softmax_cross_entropy(bp.linear(bp.linear(x, p.w1, p.b1, "sigmoid"), p.w2, p.b2), 2)
  end, x4 },
  { "two layers, a batch", function()
    return { w1 = weights(1, 6, 4), b1 = weights(2, 6), w2 = weights(3, 3, 6), b2 = weights(4, 3) }
  end, function(p, x, t)
    return bp.softmax_cross_entropy(bp.linear(bp.linear(x, p.w1, p.b1, "tanh"), p.w2, p.b2), t)
  end, batch, targets },
  { "matmul and +, with a penalty", function() return { w = weights(5, 3, 4), b = weights(6, 3) } end, function(p, x)
    return bp.sum(bp.sigmoid(bp.matmul(p.w, x) + p.b)) + bp.sum(p.w * p.w) * 0.1 + bp.norm(p.b)
  end, x4 },
  { "a recurrent net", function() return { w = weights(7, 3, 3), u = weights(8, 3, 3) } end, function(p, x)
    local h = x
    for _ = 1, 4 do h = bp.tanh(bp.matmul(p.w, h) + bp.matmul(p.u, x)) end
    return bp.sum(h * h)
  end, x3 },
  { "W1 * W2, both parameters", function() return { weights(9, 3, 5), weights(10, 5, 4) } end, function(p, x)
    return bp.sum(bp.matmul(bp.matmul(p[1], p[2]), x) ^ 2)
  end, x4 },
  { "W1 * (W2 * w3), all parameters", function() return { weights(9, 3, 5), weights(10, 5, 4), weights(11, 4) } end,
    function(p) return bp.sum(bp.matmul(p[1], bp.matmul(p[2], p[3])) ^ 2) end },
  { "W * W and W * W'", function() return weights(12, 3, 3) end, function(w, x)
    return bp.sum(bp.matmul(bp.matmul(w, w), x)) + bp.sum(bp.matmul(w, bp.transpose(w)) ^ 2)
  end, x3 },
  { "tied weights, forwards and transposed", function() return { w = weights(13, 6, 4) } end, function(p, x)
    local back = bp.matmul(bp.tanh(bp.matmul(p.w, x)), p.w)
    return bp.sum((back - x) ^ 2)
  end, x4 },
  { "a batch times the transpose", function() return weights(14, 3, 4) end, function(w, x)
    return bp.sum(bp.tanh(bp.matmul(x, bp.transpose(w))))
  end, batch },
  { "linear of parameters only", function() return { weights(15, 4), weights(16, 3, 4), weights(17, 3) } end,
    function(p) return bp.sum(bp.linear(p[1], p[2], p[3], "softplus") ^ 2) end },
  { "an outer product of parameters", function() return { weights(18, 3), weights(19, 4) } end, function(p, x)
    return bp.sum(bp.matmul(bp.outer(p[1], p[2]), x) ^ 2) + bp.sum(p[1])
  end, x4 },
  { "one array in two fields", function()
    local w = weights(20, 4, 4)
    return { a = w, b = w, c = weights(21, 4) }
  end, function(p, x)
    return bp.sum(bp.matmul(p.a, bp.tanh(bp.matmul(p.b, x) + p.c)) ^ 2)
  end, x4 },
  { "a factor that is a row of a parameter", function() return { w = weights(32, 3, 3), e = weights(33, 5, 3) } end,
    function(p)
      return bp.sum(bp.matmul(p.w, p.e[2]) ^ 2) + bp.sum(bp.linear(bp.slice(p.e, 2, 4), p.w, p.e[1]) ^ 2)
    end },
  { "a factor that is a parameter's plain value", function() return { w = weights(34, 3, 3), v = weights(35, 3) } end,
    function(p) return bp.sum(bp.matmul(p.w, bp.constant(p.v)) ^ 2) + bp.norm(p.v) + bp.sum(bp.value(p.w) * p.w) end },
  { "a shared sub-table", function()
    local layer = { w = weights(22, 4, 4) }
    return { layer, layer }
  end, function(p, x) return bp.sum(bp.matmul(p[1].w, bp.tanh(bp.matmul(p[2].w, x))) ^ 2) end, x4 },
  { "rows and gathered rows", function() return { e = weights(23, 6, 3), w = weights(24, 3, 3) } end, function(p, x)
    local some = bp.gather(p.e, { 2, 5, 2 })
    return bp.sum(bp.matmul(some, p.w) ^ 2) + bp.dot(p.e[3], x) + bp.sum(bp.slice(p.w, 2, 3)) ^ 2
  end, x3 },
  { "windows of one matrix as parameters", function()
    local m = weights(25, 8, 3)
    return { bp.slice(m, 1, 4), bp.slice(m, 5, 8) }
  end, function(p, x)
    return bp.sum(bp.matmul(p[1], x) ^ 2) + bp.sum(bp.tanh(bp.matmul(p[2], x)))
  end, x3 },
  { "through a Lua operation", function() return { w = weights(26, 3, 4) } end, function(p, x)
    local f = bp.op(function(w, v)
      return bp.matmul(w, v), function(dz) return bp.outer(dz, v), bp.matmul(dz, w) end
    end)
    return bp.sum(f(p.w, x) ^ 2) + bp.sum(bp.matmul(p.w, x))
  end, x4 },
  { "numbers in tables", function() return { n = 0.5, { weights(29, 3, 4), 2 } } end, function(p, x)
    return bp.sum(bp.matmul(p[1][1], x) * p.n) * p[1][2] + p.n * p.n
  end, x4 },
  { "with a part unused", function() return { w = weights(27, 3, 4), unused = weights(28, 2, 2) } end, function(p, x)
    return bp.sum(bp.matmul(p.w, x) ^ 2)
  end, x4 },
}

describe("P33: opt:minimize equals the gradient, then opt:step", function()
  for _, network in ipairs(networks) do
    it("P33: " .. network[1], function()
      local name, build, f, a, b = table.unpack(network, 1, 5)
      for _, case in ipairs(optimisers) do
        local p, q, first, second = build(), build(), make(case), make(case)
        for t = 1, 4 do
          local what = ("%s, %s, step %d"):format(name, described(case), t)
          local want, g = bp.value_and_grad(f)(p, a, b)
          first:step(p, g)
          local loss = second:minimize(f, q, a, b)
          close(want, loss, 1e-13, what)
          close(p, q, 1e-13, what)
        end
        assert(help.differs(build(), q, 1e-4), name)
      end
    end)
  end

  it("P33: where a parameter is also an untracked argument, or captured", function()
    for _, case in ipairs(optimisers) do
      local w, u = weights(36, 4, 4), weights(36, 4, 4)
      local function f(p, c) return bp.sum(bp.matmul(p, c) ^ 2) end
      local function g(p) return bp.sum(bp.matmul(u, bp.matmul(p, u[2])) ^ 2) end
      local first, second = make(case), make(case)
      for _ = 1, 2 do
        first:step(w, bp.grad(f)(w, w))
        second:minimize(f, u, u)
        close(w, u, 1e-13, described(case))
        first:step(w, bp.grad(g)(w))
        second:minimize(g, u)
        close(w, u, 1e-13, described(case))
      end
    end
  end)

  it("P33: in f32, to 1e-5", function()
    local build, f = networks[2][2], networks[2][3]
    for _, case in ipairs(optimisers) do
      local p, q = help.astype(build(), "f32"), help.astype(build(), "f32")
      local first, second, x = make(case), make(case), batch:astype("f32")
      for _ = 1, 4 do
        first:step(p, bp.grad(f)(p, x, targets))
        assert.equal("float", math.type(second:minimize(f, q, x, targets)))
        close(p, q, 1e-5, described(case))
      end
      assert.equal("f32", q.w1:dtype())
    end
  end)

  it("P33: one step of SGD with momentum, by hand", function()
    local w, opt = bp.matrix{ { 1, 2 } }, bp.optim.sgd{ lr = 0.5, momentum = 0.5 }
    local function f(m, x) return bp.sum(bp.matmul(m, x)) end
    assert.equal(5, opt:minimize(f, w, bp.vector{ 1, 2 }))
    same({ { 0.5, 1 } }, w)
    assert.equal(2.5, opt:minimize(f, w, bp.vector{ 1, 2 }))
    same({ { -0.25, -0.5 } }, w)
  end)

  it("P33: tracks the parameters only, and keeps their identity", function()
    local p, x = { w = bp.vector{ 1, 2 }, text = "t" }, bp.vector{ 3, 4 }
    local w = p.w
    bp.optim.sgd{ lr = 1 }:minimize(function(q, y, n)
      assert(rawequal(y, x) and n == 3 and q.text == "t" and not rawequal(bp.value(q.w), q.w))
      return bp.dot(q.w, y)
    end, p, x, 3)
    assert(rawequal(p.w, w))
    same({ w = { -2, -2 }, text = "t" }, p)
    same({ 3, 4 }, x)
  end)

  it("P33: on an error nothing has changed, nor has the optimiser's state", function()
    local function good(p, x) return bp.sum(bp.matmul(p.w, x) ^ 2) + bp.sum(p.b * p.b) end
    local broken = bp.op(function(x) return x * 1, function() error("broken") end end)
    local stop = bp.nograd(function(x) return x * 1 end)
    local bad = {
      function(p, x) error(bp.value(good(p, x)) .. " in f") end,
      function(p, x) return good(p, x) + bp.sum(broken(p.b)) end,
      function(p, x) return good({ w = p.w, b = broken(p.b) }, x) end,
      function(p, x) return bp.sum(bp.matmul(p.w, broken(bp.matmul(bp.transpose(p.w), p.b)))) + good(p, x) end,
      function(p, x) return good(p, x) + bp.sum(stop(p.w)) end,
      function(p, x) return good(p, x) + bp.sum(bp.matmul(p.w, p.b)) end, -- shapes disagree
      function() return "text" end,
      function(p, x) return good(p, x), bp.exp("text") end,
    }
    for _, case in ipairs(optimisers) do
      local function build() return { w = weights(30, 3, 4), b = weights(31, 3) } end
      local p, q, opt, other = build(), build(), make(case), make(case)
      for _ = 1, 3 do
        opt:minimize(good, p, x4)
        other:minimize(good, q, x4)
        for i, f in ipairs(bad) do
          local before = help.clone(p)
          assert(not pcall(opt.minimize, opt, f, p, x4), "no error from bad " .. i)
          same(before, p, "bad " .. i)
        end
      end
      same(q, p, described(case))
    end
  end)

  it("P33: a read-only parameter is refused before any other has changed", function()
    local read_only
    bp.grad(function(x)
      read_only = bp.value(x)
      return bp.sum(x)
    end)(bp.vector{ 3, 4 })
    for _, case in ipairs(optimisers) do
      local p = { a = bp.vector{ 1, 2 }, b = read_only, c = bp.vector{ 5, 6 } }
      local opt = make(case)
      raises({ "bp.optim", "read-only" }, opt.step, opt, p, { a = bp.ones(2), b = bp.ones(2), c = bp.ones(2) })
      raises({ "bp.optim", "read-only" }, opt.minimize, opt, function(q) return bp.sum(q.a * q.b * q.c) end, p)
      same({ a = { 1, 2 }, b = { 3, 4 }, c = { 5, 6 } }, p, described(case))
    end
  end)

  it("P33: a read-only array among the parameters is refused before any has changed", function()
    for name, new in pairs(bp.optim) do
      local x, y = bp.vector{ 1, 2 }, bp.vector{ 3, 4 }
      bp.grad(function(tracked)
        local params = { y, bp.value(tracked) }
        raises({ "bp.optim", "read-only" }, function()
          new{ lr = 1 }:minimize(function(p) return bp.sum(p[1] * p[2]) end, params)
        end)
        raises({ "bp.optim", "read-only" }, function() new{ lr = 1 }:step(params, { y:clone(), y:clone() }) end)
        return tracked
      end)(x)
      same({ { 1, 2 }, { 3, 4 } }, { x, y }, name)
    end
  end)

  it("P33: a bare number is refused", function()
    for _, case in ipairs(optimisers) do
      local opt = make(case)
      raises({ "bp.optim", "number" }, opt.minimize, opt, function(n) return n * n end, 2)
    end
  end)

  it("P33: an array changed by the update makes an older tape raise", function()
    local w = bp.matrix{ { 1, 2 } }
    local _, pullback = bp.vjp(function(x) return bp.matmul(w, x) end, bp.vector{ 1, 2 })
    bp.optim.sgd{ lr = 1 }:minimize(function(m) return bp.sum(bp.matmul(m, bp.vector{ 1, 2 })) end, w)
    raises("matmul", pullback, bp.vector{ 1 })
  end)
end)

describe("P10: parameters that share some of their elements", function()
  local function step_of(opt, p)
    return function() opt:step(p, help.fill_like(p, 1)) end
  end
  local function minimize_of(opt, p)
    return function() opt:minimize(function(q) return bp.sum(q[1]) + bp.sum(q[2]) end, p) end
  end
  local function pairs_of(m) return { { m, m[1] }, { m[1], m }, { m, bp.column(m, 2) }, { m, bp.flatten(m) } } end

  it("are stepped rightly by plain descent: both gradients are subtracted", function()
    for _, run in ipairs{ step_of, minimize_of } do
      local m = bp.ones(2, 2)
      run(bp.optim.sgd{ lr = 0.25 }, { m, m[1] })()
      same({ { 0.5, 0.5 }, { 0.75, 0.75 } }, m)
    end
  end)

  it("are an error where an element would decay twice or have two states, and nothing changes", function()
    for _, case in ipairs(optimisers) do
      local plain = case[1] == "sgd" and not case[2].momentum and not case[2].weight_decay
      for k = 1, plain and 0 or 4 do
        for _, run in ipairs{ step_of, minimize_of } do
          local m = bp.ones(2, 2)
          raises({ "[1]", "[2]", "share" }, run(make(case), pairs_of(m)[k]))
          same({ { 1, 1 }, { 1, 1 } }, m, described(case))
        end
      end
    end
  end)

  it("are no parameters of one another where they only stand side by side", function()
    for _, run in ipairs{ step_of, minimize_of } do
      local m = bp.ones(2, 2)
      run(bp.optim.sgd{ lr = 0.25, weight_decay = 1 }, { bp.column(m, 1), bp.column(m, 2) })()
      same({ { 0.5, 0.5 }, { 0.5, 0.5 } }, m)
    end
  end)
end)

describe("P32: random masks", function()
  local function dropout(r, p) return function(x) return x * r:bernoulli(p, #bp.value(x)) / p end end

  it("P32: a mask is saved with its node", function()
    local drop = dropout(bp.rng(1), 0.5)
    local value, pullback = bp.vjp(function(x) return drop(x) end, bp.ones(40))
    local ones = bp.ones(40)
    same(value, pullback(ones)) -- of ones the value is the mask itself
    drop(ones) -- the generator goes on; the node does not
    same(value, pullback(ones))
    local kept = bp.sum(value) / 2
    assert(kept > 5 and kept < 35)
  end)

  it("P32: the same seed gives the same run, another one another", function()
    local function train(seed)
      local r = bp.rng(seed)
      local p, drop, opt = { w = r:normal(0, 1, 3, 8), b = bp.zeros(3) }, dropout(r, 0.7), bp.optim.adam{ lr = 0.01 }
      local x, losses = weights(40, 8), {}
      for i = 1, 20 do
        losses[i] = opt:minimize(function(q) return bp.softmax_cross_entropy(bp.linear(drop(x), q.w, q.b), 1) end, p)
      end
      return { p, losses }
    end
    local first = train(7)
    same(first, train(7))
    assert(help.differs(first, train(8), 1e-3))
  end)
end)

describe("training", function()
  it("finds a straight line by every optimiser", function()
    local x = bp.linspace(-1, 1, 21)
    local y = x * 3 - 0.5
    for _, case in ipairs{
      { "sgd", { lr = 0.3 } }, { "sgd", { lr = 0.1, momentum = 0.8, nesterov = true } }, { "adam", { lr = 0.1 } },
      { "adamw", { lr = 0.1, weight_decay = 0 } }, { "rmsprop", { lr = 0.02 } }, { "adagrad", { lr = 1 } },
    } do
      local p, opt, loss = { line = bp.zeros(2) }, make(case), nil
      for i = 1, 400 do
        if i == 300 then opt.lr = opt.lr / 50 end
        loss = opt:minimize(function(q) return bp.mean((q.line[1] * x + q.line[2] - y) ^ 2) end, p)
      end
      close({ 3, -0.5 }, p.line, 1e-2, case[1])
      assert(loss < 1e-3)
    end
  end)
end)

describe("an optimiser", function()
  it("heeds a setting that is assigned, in minimize as in step", function()
    local function loss(p) return bp.sum(p.w * p.w) end
    local assigned, given = bp.optim.sgd{ lr = 0.1 }, bp.optim.sgd{ lr = 0.1, momentum = 0.9 }
    assigned.momentum = 0.9
    local p, q = { w = bp.vector{ 1 } }, { w = bp.vector{ 1 } }
    for _ = 1, 3 do
      assigned:minimize(loss, p)
      given:minimize(loss, q)
    end
    same(help.plain(q), help.plain(p))
    given.momentum = 0
    given:minimize(loss, q)
  end)

  it("refuses a setting that its constructor refuses", function()
    local p = { w = bp.vector{ 1 } }
    local function refuses(text, name, key, value)
      local opt = bp.optim[name]()
      opt[key] = value
      raises({ "bp.optim." .. name, text }, opt.step, opt, p, p)
      raises({ "bp.optim." .. name, text }, opt.minimize, opt, function(x) return bp.sum(x.w) end, p)
      same({ 1 }, p.w)
    end
    refuses("weight_decay must be a number", "sgd", "weight_decay", "x")
    refuses("momentum must be a number", "sgd", "momentum", nil)
    refuses("lr must be a number", "adam", "lr", nil)
    refuses("nesterov needs a momentum", "sgd", "nesterov", true)
    refuses("lr cannot be", "sgd", "lr", 0 / 0)
    refuses("beta1 must be less than 1", "adam", "beta1", 1)
    refuses("eps cannot be -1", "adam", "eps", -1)
    refuses("alpha must be less than 1", "rmsprop", "alpha", 2)
  end)

  it("steps a vector and a matrix of one column over the same elements", function()
    local v = bp.vector{ 1, 2, 3 }
    local params = { v, bp.reshape(v, 3, 1) }
    bp.optim.sgd{ lr = 1 }:step(params, { bp.ones(3), bp.ones(3, 1) })
    same({ -1, 0, 1 }, v)
    raises("share some of their elements", bp.optim.adam().step, bp.optim.adam(), params,
      { bp.ones(3), bp.ones(3, 1) })
  end)

  it("refuses gradients that have more than the parameters, and structures that contain themselves", function()
    local opt = bp.optim.sgd{ lr = 1 }
    raises("no parameter for the gradient at [3]", opt.step, opt, { 1, 2 }, { 1, 1, 1 })
    raises("no parameter for the gradient at b", opt.step, opt, { a = 1 }, { a = 1, b = 2 })
    local p = { { 1 }, { 2 } }
    raises("no parameter for the gradient at [1][2]", opt.step, opt, p, { { 1, 5 }, { 2 } })
    same({ { 1 }, { 2 } }, p)
    local q = { a = 1 }
    q.p = q
    raises("contains itself", opt.step, opt, q, q)
    assert.equal(1, q.a)
  end)
end)
