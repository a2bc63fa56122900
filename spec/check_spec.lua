-- bp.check: P34 (it fails on seeded wrong rules, skips kinks, scales its step) and P35 (gradients of random expression
-- trees against finite differences).
-- Held here: the checker is a witness that can be trusted: right rules pass, every kind of wrong one is found and its
-- leaf named. The trees are compared with finite differences of this spec's own, to 1e-6 relative, so that a fault of
-- the checker cannot hide a fault of the sweep.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"

local close, raises = help.close, help.raises

describe("bp.check on right gradients", function()
  local v, m = bp.vector{ 0.5, -1.5, 2 }, bp.matrix{ { 1, 2, 3 }, { -4, 5, 6 } }

  it("returns a report", function()
    local report = bp.check(function(x) return bp.sum(bp.sin(x) * x) end, v)
    assert(report ~= nil and report ~= true and report ~= "", "no report")
    report = bp.check{ f = function(x) return bp.sum(bp.sin(x) * x) end, args = { v } }
    assert(report ~= nil and report ~= true and report ~= "", "no report")
  end)

  local right = {
    { "a number", function(x) return bp.exp(x) * x end, 1.5 },
    { "an integer", function(x) return x * x * x end, 3 },
    { "a vector with a vector result", function(x) return bp.tanh(x) * x end, v },
    { "a matrix", function(x) return bp.matmul(x, bp.transpose(x)) end, m },
    { "several arguments", function(w, x, b) return bp.linear(x, w, b, "sigmoid") end, m, v, bp.vector{ 1, 2 } },
    { "a structure and its constants", function(p) return bp.sum(p.list[1] * p.s) + p.list[2][1] * 3 end,
      { list = { v, { 2 } }, s = 2.5, text = "t" } },
    { "a structured result", function(x) return { a = x * x, { bp.sum(x), "text" } } end, v },
    { "an unused argument", function(x) return x * 2 end, 3, v },
    { "a constant", function() return 4 end, v },
    { "an empty array", function(x) return bp.sum(x) end, bp.zeros(0) },
    { "f32", function(x) return bp.sum(bp.exp(x) * x) end, v:astype("f32") },
    { "a large array", function(x) return bp.sum(bp.sin(x) * x) end, bp.rng(1):normal(0, 1, 40, 50) },
    { "a Lua operation", bp.op(function(x) return x * x, function(dz) return dz * 2 * x end end), v },
    { "text among the arguments", function(x, name) return bp[name](x) end, v, "exp" },
  }
  for _, case in ipairs(right) do
    it("passes " .. case[1], function() bp.check(table.unpack(case, 2)) end)
  end

  it("P34: skips kinks", function()
    local kinks = bp.vector{ 0, 1, -2, 0 }
    bp.check(function(x) return bp.abs(x) end, kinks)
    bp.check(function(x) return bp.relu(x) end, kinks)
    bp.check(function(x) return bp.relu(x) end, 0)
    bp.check(function(x) return bp.max(x) end, bp.vector{ 1, 2, 2 })
    bp.check(function(x) return bp.clamp(x, 0, 1) end, kinks)
    bp.check(function(x, y) return bp.maximum(x, y) end, kinks, kinks)
    bp.check(function(x) return bp.abs(x) * 3 end, bp.full(0, 30, 30))
  end)

  it("P34: scales its step", function()
    for _, scale in ipairs{ 1e-8, 1e-4, 1, 1e4, 1e8 } do
      assert.equal(1, bp.check(function(x) return x * x * x end, 2 * scale).checked)
      assert.equal(2, bp.check(function(x) return bp.sum(bp.log(x) * x) end, bp.vector{ scale, 3 * scale }).checked)
      local p = { a = bp.vector{ scale }, b = bp.vector{ 2 / scale } }
      assert.equal(2, bp.check(function(q) return bp.sum(bp.sqrt(q.a) * q.b) end, p).checked)
    end
    local wrong_log = bp.op(function(x) return bp.log(x), function(dz) return dz / x * 2 end end)
    raises("bp.check: argument 1[1]", bp.check, function(x) return bp.sum(wrong_log(x)) end, bp.vector{ 1e-6 })
  end)

  it("P34: says so where f is not the same in every call", function()
    local r = bp.rng(1)
    local wrong = bp.op(function(x) return x * x, function(d) return 5 * d * x end end)
    for _ = 1, 50 do
      raises("bp.check: f gives different values for the same arguments", bp.check,
        function(x) return bp.sum(wrong(x)) * r:uniform(0.9, 1.1) end, v)
    end
    bp.check(function(x) return bp.sum(x * bp.rng(1):bernoulli(0.5, 3)) end, v)
  end)

  it("P34: says so where there is nothing that it could compare", function()
    raises("bp.check: the arguments hold no number or array", bp.check, function() return 1 end)
    raises("bp.check: the arguments hold no number or array", bp.check, function() return 1 end, { "text", {} })
    local function outside(x) return bp.sum(bp.log(x)) end
    raises("bp.check: nothing could be compared: f has no finite value, or no slope, around argument 1[1]", bp.check,
      outside, bp.vector{ -1 })
    raises("around any of 3 components", bp.check, outside, bp.full(-1, 3))
  end)

  it("is the same for the same seed, and does not change its arguments", function()
    local x = bp.rng(2):normal(0, 1, 20, 30)
    local before = x:clone()
    local function f(y) return bp.sum(bp.sin(y) * y) end
    local one, two = bp.check{ f = f, args = { x }, seed = 5 }, bp.check{ f = f, args = { x }, seed = 5 }
    assert.same(help.plain(one), help.plain(two))
    help.same(before, x)
  end)

  it("takes a tolerance", function()
    local slightly = bp.op(function(x) return x * x, function(dz) return dz * 2 * x * (1 + 1e-4) end end)
    raises("check", bp.check, function(x) return slightly(x) end, v)
    raises("check", bp.check, { f = function(x) return slightly(x) end, args = { v }, tol = 1e-6 })
    bp.check{ f = function(x) return slightly(x) end, args = { v }, tol = 1e-2 }
  end)
end)

describe("P34: bp.check fails on wrong rules", function()
  local v, w = bp.vector{ 0.5, -1.5, 2 }, bp.matrix{ { 1, 2, 3 }, { -4, 5, 6 }, { 7, 8, -9 } }
  local function matmul(dw, dx)
    return bp.op(function(m, x) return bp.matmul(m, x), function(dz) return dw(dz, m, x), dx(dz, m, x) end end)
  end
  local function right_dw(dz, _, x) return bp.outer(dz, x) end
  local function right_dx(dz, m) return bp.matmul(dz, m) end

  it("P34: while the right one passes", function() bp.check(matmul(right_dw, right_dx), w, v) end)

  local wrong = {
    { "sign", function(dz, _, x) return -bp.outer(dz, x) end, right_dx },
    { "factor", function(dz, _, x) return bp.outer(dz, x) * 2 end, right_dx },
    { "slight factor", function(dz, _, x) return bp.outer(dz, x) * 1.001 end, right_dx },
    { "transposed weights", function(dz, _, x) return bp.outer(x, dz) end, right_dx },
    { "transposed input", right_dw, function(dz, m) return bp.matmul(m, dz) end },
    { "missing term", function(dz, m) return m * 0 + bp.sum(dz) * 0 end, right_dx },
    { "nil for zero", right_dw, function() return nil end },
    { "cotangent left out", right_dw, function(_, m) return bp.sum(m, 1) end },
    { "one component", right_dw, function(dz, m)
      local g = bp.matmul(dz, m)
      g[2] = g[2] * 1.01
      return g
    end },
    { "NaN", right_dw, function(dz, m) return bp.matmul(dz, m) * (0 / 0) end },
    { "infinity", right_dw, function(dz, m) return bp.matmul(dz, m) / 0 end },
  }
  for _, case in ipairs(wrong) do
    it("P34: " .. case[1], function()
      raises("check", bp.check, matmul(case[2], case[3]), w, v)
      raises("check", bp.check, function(m, x) return bp.sum(matmul(case[2], case[3])(m, bp.sin(x)) ^ 2) end, w, v)
    end)
  end

  it("P34: numbers, small gradients beside large ones, and a product whose factors are swapped", function()
    raises("check", bp.check, bp.op(function(x) return x * x * x, function(dz) return dz * 3 * x end end), 3)
    raises("check", bp.check, bp.op(function(x, y) return x * y, function(dz) return dz * x, dz * y end end), 3, 4)
    raises("check", bp.check, bp.op(function(a, b)
      return bp.sum(a) * 1e6 + b * b, function(dz) return bp.full(dz * 1e6, 3), dz * b end -- right: 2 b
    end), v, 3)
  end)

  it("P34: one wrong element of 2,000, and a wrong sign of a large array", function()
    local big = bp.rng(3):uniform(0.5, 1.5, 40, 50)
    raises("check", bp.check, bp.op(function(x)
      return x * x, function(dz)
        local g = dz * 2 * x
        g:set(17, 31, -g:get(17, 31))
        return g
      end
    end), big)
    raises("check", bp.check, bp.op(function(x) return x * x, function(dz) return dz * -2 * x end end), big)
  end)

  it("P34: f32", function()
    raises("check", bp.check, bp.op(function(x) return x * x, function(dz) return dz * 3 * x end end), v:astype("f32"))
  end)

  it("P34: the worst leaf is named by its path", function()
    local Layer = bp.record("Layer", "w", "b")
    local Net = bp.record("Net", "layer1", "layer2", "list")
    local function layer() return Layer{ w = w, b = v } end
    local net = Net{ layer1 = layer(), layer2 = layer(), list = { 1, v } }
    local bad = bp.op(function(x) return bp.sum(x * x), function(dz) return dz * 3 * x end end)
    local function good(x) return bp.sum(x * x) end
    raises("layer2.w", bp.check, function(n) return good(n.layer1.w) + bad(n.layer2.w) + good(n.layer2.b) end, net)
    raises("layer1.b", bp.check, function(n) return bad(n.layer1.b) + good(n.layer2.w) end, net)
    raises("list[2]", bp.check, function(n) return bad(n.list[2]) + n.list[1] end, net)
  end)

  it("P34: a gradient that does not exist", function()
    raises("", bp.check, function(x) return bp.sum(bp.nograd(function(y) return y * 2 end)(x)) end, v)
    raises("check", bp.check, function(x) return bp.sum(bp.constant(x) * x) end, v) -- the constant moves, too
  end)

  it("hands on the error of f", function()
    local object = {}
    local ok, e = pcall(bp.check, function() error(object) end, v)
    assert(not ok and rawequal(e, object))
  end)
end)

describe("P35: random expression trees", function()
  -- A program is a list of steps over registers of three types, each step an operation on earlier registers: so the
  -- trees share parts. All operations are smooth and tame everywhere. Lehmer's generator, fixed seeds.
  local function generator(seed)
    local state = seed * 7919 % 2147483647
    return function(n)
      state = state * 48271 % 2147483647
      return state % n + 1
    end
  end

  local n, r, dtype = 3, 2, nil -- vectors of n, matrices of r x n
  before_each(function() dtype = "f64" end)
  local any = {
    function(a) return bp.sin(a) end, function(a) return bp.tanh(a) * 2 end, function(a) return -bp.cos(a) end,
    function(a) return bp.sigmoid(a) end, function(a) return bp.softplus(a) end, function(a) return bp.gelu(a) end,
    function(a) return bp.exp(bp.tanh(a)) end, function(a) return bp.log(a * a + 1.5) end,
    function(a) return bp.sqrt(bp.square(a) + 1) end, function(a) return bp.atan(a) - 0.5 end,
    function(a) return 1 / (bp.exp(-a) + 1) end, function(a) return (bp.sin(a) + 2) ^ 1.5 end,
    function(a, b) return a + b end, function(a, b) return a - b end, function(a, b) return bp.tanh(a) * b end,
    function(a, b) return a / (bp.sin(b) + 2) end, function(a, b) return a + b + a end,
    function(a, b) return (bp.sin(a) + 2) ^ bp.sin(b) end,
  }
  local bridges = {
    { "s", "v", function(a) return bp.sum(a) * 0.5 end }, { "s", "v", function(a) return bp.logsumexp(a) end },
    { "s", "v", function(a) return a[2] end }, { "s", "vv", function(a, b) return bp.tanh(bp.dot(a, b)) end },
    { "s", "v", function(a) return bp.norm(a + 3) end }, { "s", "m", function(a) return bp.mean(a) end },
    { "s", "m", function(a) return bp.element(a, 2, 3) end },
    { "v", "s", function(a) return bp.konst(a, n, dtype) end },
    { "v", "sss", function(a, b, c) return bp.stack({ a, b, c }):astype(dtype) end },
    { "v", "m", function(a) return a[2] end }, { "v", "m", function(a) return bp.sum(a, 1) * 0.3 end },
    { "v", "v", function(a) return bp.softmax(a) end }, { "v", "sv", function(a, b) return bp.sin(a) * b end },
    { "v", "vv", function(a, b) return bp.concat{ bp.slice(a, 2, 3), bp.slice(b, 1, 1) } end },
    { "v", "mv", function(a, b) return bp.tanh(bp.matmul(bp.matmul(a, b), a)) end },
    { "v", "v", function(a) return bp.gather(a, { 3, 1, 3 }) end },
    { "m", "vv", function(a, b) return bp.stack{ a, b } end }, { "m", "mv", function(a, b) return bp.sin(a) + b end },
    { "m", "mm", function(a, b) return bp.tanh(bp.matmul(bp.matmul(a, bp.transpose(b)), b)) end },
    { "m", "mv", function(a, b) return bp.tanh(bp.outer(bp.matmul(a, b), b)) end },
    { "m", "m", function(a) return bp.log_softmax(a) * 0.2 end },
    { "m", "s", function(a) return bp.konst(a, r, n, dtype) end },
    { "m", "m", function(a) return bp.concat{ bp.slice(a, 2, 2), bp.slice(a, 1, 1) } end },
    { "m", "m", function(a) return bp.transpose(bp.reshape(a, n, r)) end },
    { "s", "v", function(a) return a[1] * a[3] + a[1] end }, { "v", "m", function(a) return a[2] * 0.5 + a[1] end },
    { "v", "m", function(a) return bp.stack{ bp.column(a, 1)[1], bp.column(a, 1)[2], bp.column(a, 3)[2] } end },
    { "v", "m", function(a) return bp.slice(bp.flatten(a), 2, 4) end },
    { "v", "vs", function(a, b) return bp.set(a, bp.element_at(2), b) end },
    { "v", "vv", function(a, b) return bp.set(a, bp.range(2, 3), bp.slice(b, 1, 2)) end },
    { "m", "mv", function(a, b) return bp.set(a, bp.row_at(2), b) end },
    { "m", "m", function(a) return bp.log(bp.softmax(a)) * 0.3 end },
    { "m", "mvv", function(a, b, c) return bp.linear(a, bp.outer(b, c), b, "tanh") end },
  }

  local function program(seed, steps)
    local pick, list, count = generator(seed), {}, { s = 2, v = 2, m = 2 }
    for i = 1, steps do
      local out, inputs, f
      if pick(2) == 1 then
        local k = pick(3)
        out, f = ("svm"):sub(k, k), any[pick(#any)]
        inputs = out .. out
      else
        out, inputs, f = table.unpack(bridges[pick(#bridges)])
      end
      local operands = {}
      for kind in inputs:gmatch(".") do operands[#operands + 1] = { kind, pick(count[kind]) } end
      count[out] = count[out] + 1
      list[i] = { out, operands, f }
    end
    return function(leaves)
      local registers = { s = { leaves[1], leaves[2] }, v = { leaves[3], leaves[4] }, m = { leaves[5], leaves[6] } }
      for _, step in ipairs(list) do
        local values = {}
        for i, operand in ipairs(step[2]) do values[i] = registers[operand[1]][operand[2]] end
        local file = registers[step[1]]
        file[#file + 1] = step[3](table.unpack(values))
      end
      local s, v, m = registers.s, registers.v, registers.m
      return s[#s] + bp.sum(v[#v]) + bp.sum(m[#m]) + bp.dot(v[#v - 1], v[2]) + s[#s // 2 + 1] * s[1]
    end
  end

  local like = { 0, 0, bp.zeros(n), bp.zeros(n), bp.zeros(r, n), bp.zeros(r, n) }
  local steps = { 3, 6, 12, 25, 50 }
  for _, count in ipairs(steps) do
    it(("P35: 16 trees of %d operations"):format(count), function()
      local moved = 0
      for seed = 1, 16 do
        local f, x = program(seed * 101 + count, count), help.random_like(like, seed, -1.2, 1.2)
        local value, g = bp.value_and_grad(f)(x)
        close(bp.eval(f, x), value, 1e-13, "value of seed " .. seed)
        close(help.numeric_gradient(f, x), g, 1e-6, "gradient of seed " .. seed)
        if help.differs(g, bp.zero(x), 1e-3) then moved = moved + 1 end
      end
      assert.equal(16, moved)
    end)
  end

  it("P35: the same trees through bp.check, in f64 and f32", function()
    for seed = 1, 10 do
      local f, x = program(seed * 211, 10), help.random_like(like, seed + 50, -1.2, 1.2)
      dtype = "f64"
      bp.check(f, x)
      dtype = "f32"
      bp.check{ f = f, args = { help.astype(x, "f32") }, seed = seed }
    end
  end)

  it("P35: leaves that are windows, gradients into windows, a kept tape, one leaf alone, the fused update", function()
    for seed = 1, 80 do
      local what = "seed " .. seed
      local f, x = program(seed * 503, seed % 40 + 2), help.random_like(like, seed + 200, -1.2, 1.2)
      local g = bp.grad(f)(x)
      close(help.numeric_gradient(f, x), g, 2e-6, what)

      local windows, into = { x[1], x[2] }, { 0, 0 }
      for i = 3, 6 do windows[i] = help.window(x[i]) end
      for i = 3, 4 do into[i] = bp.slice(bp.full(0 / 0, n + 4), 3, n + 2) end
      for i = 5, 6 do into[i] = bp.slice(bp.full(0 / 0, r + 4, n), 3, r + 2) end
      close(g, bp.grad(f, { into = into })(windows), 1e-12, what)
      close(g, into, 1e-12, what)

      local _, pullback <close> = bp.vjp(f, x)
      local first = pullback(1)
      close(g, first, 1e-12, what)
      pullback(-3.5)
      help.same(first, pullback(1), what)

      for i = 1, 6 do
        close(g[i], bp.grad(function(leaf)
          local all = table.move(x, 1, 6, 1, {})
          all[i] = leaf
          return f(all)
        end)(x[i]), 1e-12, what)
      end

      bp.optim.sgd{ lr = 0.1, weight_decay = 0.5 }:minimize(f, windows)
      close(help.combine(0.95, x, -0.1, g), windows, 1e-12, what)
    end
  end)

  it("P35: through bp.op at random places, one tape in another", function()
    for seed = 1, 10 do
      local inner, outer = program(seed * 307, 8), program(seed * 401, 8)
      local op = bp.op(function(x)
        local value, pullback = bp.vjp(inner, x)
        return value, function(dz) return (pullback(dz)) end
      end)
      local x = help.random_like(like, seed + 80, -1.2, 1.2)
      local function f(p) return outer(p) * op(p) + op(p) end
      local function plain(p) return outer(p) * inner(p) + inner(p) end
      close(bp.grad(plain)(x), bp.grad(f)(x), 1e-11, "seed " .. seed)
    end
  end)
end)
