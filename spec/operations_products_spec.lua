-- dot, outer, matmul, transpose, diag, trace and linear: values and gradients against plain Lua loops, for sizes around
-- the widths of kernels, in both dtypes, with windows and transposes, empty and 1 x 1 arrays, NaN and wrong shapes.
-- Operands are random in (-1, 1). Tolerances, relative to max(1, |x|): 1e-12 in f64, 2e-5 in f32.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"
local reference = require "support.reference"

local close, same, raises = help.close, help.same, help.raises
local nan, inf = help.nan, help.inf
local each = reference.each
local matmul, transpose = reference.matmul, reference.transpose
local tolerances = { f64 = 1e-12, f32 = 2e-5 }

local function random(seed, n, m, dtype)
  return help.random_like(m and bp.zeros(n, m, dtype) or bp.zeros(n, dtype), seed)
end

-- Value and pullback of f at x, y for a random cotangent, with the operands given as they are and as windows; and the
-- gradient of each when the other is constant. `expected(x, y, c)` gives value, dx and dy of nested tables.
local function agrees(f, x, y, expected, tolerance)
  local cotangent = help.random_like(f(x, y), 99)
  local value, dx, dy = expected(x:totable(), y:totable(), help.plain(cotangent))
  local operands = { { x, y }, { (help.window(x)), y }, { x, (help.window(y)) } }
  for i, pair in ipairs(operands) do
    local what = ("operands %d"):format(i)
    local z, pullback <close> = bp.vjp(f, pair[1], pair[2])
    close(value, z, tolerance, what)
    local gx, gy = pullback(cotangent)
    close(dx, gx, tolerance, what)
    close(dy, gy, tolerance, what)
    assert.same({ help.shape(x), help.shape(y) }, { help.shape(gx), help.shape(gy) })
    assert.same({ x:dtype(), y:dtype() }, { gx:dtype(), gy:dtype() })
  end
  close(value, f(x, y), tolerance)
  help.poison{ x, y }
  local _, first <close> = bp.vjp(function(a) return f(a, y) end, x)
  close(dx, first(cotangent), tolerance)
  help.poison{ x, y }
  local _, second <close> = bp.vjp(function(b) return f(x, b) end, y)
  close(dy, second(cotangent), tolerance)
end

local sizes = { { 1, 1, 1 }, { 2, 3, 4 }, { 5, 7, 3 }, { 1, 9, 1 }, { 8, 1, 8 }, { 17, 16, 15 }, { 33, 20, 9 } }

for _, dtype in ipairs(help.dtypes) do
  local tolerance = tolerances[dtype]

  describe("products in " .. dtype .. ":", function()
    for _, size in ipairs(sizes) do
      local r, n, c = table.unpack(size)
      local title = ("%d x %d x %d"):format(r, n, c)
      local a, b = random(1, r, n, dtype), random(2, n, c, dtype)
      local u, v = random(3, n, nil, dtype), random(4, r, nil, dtype)

      it("matmul of two matrices " .. title, function()
        local function expected(x, y, g)
          return matmul(x, y), matmul(g, transpose(y)), matmul(transpose(x), g)
        end
        agrees(bp.matmul, a, b, expected, tolerance)
        -- the same product of transposed operands, in every combination
        local at, bt = bp.transpose(a), bp.transpose(b)
        local function back(x, y, g)
          return matmul(transpose(x), y), transpose(matmul(g, transpose(y))), matmul(x, g)
        end
        agrees(function(x, y) return bp.matmul(bp.transpose(x), y) end, at, b, back, tolerance)
        agrees(function(x, y) return bp.matmul(x, bp.transpose(y)) end, a, bt, function(x, y, g)
          return matmul(x, transpose(y)), matmul(g, y), transpose(matmul(transpose(x), g))
        end, tolerance)
        agrees(function(x, y) return bp.matmul(bp.transpose(x), bp.transpose(y)) end, at, bt, function(x, y, g)
          return matmul(transpose(x), transpose(y)), transpose(matmul(g, y)), transpose(matmul(x, g))
        end, tolerance)
      end)

      it("matmul of a matrix and a vector, on either side " .. title, function()
        agrees(bp.matmul, a, u, function(x, y, g)
          return each(x, function(row) return reference.dot(row, y) end), reference.outer(g, y),
            each(transpose(x), function(column) return reference.dot(column, g) end)
        end, tolerance)
        agrees(bp.matmul, v, a, function(x, y, g)
          return each(transpose(y), function(column) return reference.dot(column, x) end),
            each(y, function(row) return reference.dot(row, g) end), reference.outer(x, g)
        end, tolerance)
      end)

      it("outer and dot " .. title, function()
        agrees(bp.outer, v, u, function(x, y, g)
          return reference.outer(x, y), each(g, function(row) return reference.dot(row, y) end),
            each(transpose(g), function(column) return reference.dot(column, x) end)
        end, tolerance)
        agrees(bp.dot, u, random(5, n, nil, dtype), function(x, y, g)
          return reference.dot(x, y), each(y, function(e) return g * e end), each(x, function(e) return g * e end)
        end, tolerance)
        assert.equal("float", math.type(bp.dot(u, u)))
      end)

      it("transpose " .. title, function()
        local y, pullback <close> = bp.vjp(bp.transpose, a)
        same(transpose(a:totable()), y)
        local g = random(6, n, r, dtype)
        same(transpose(g:totable()), pullback(g))
        same(a, bp.transpose(bp.transpose(a)))
        same(transpose(a:totable()), bp.transpose((help.window(a))))
      end)

      it("linear of a vector and of a batch " .. title, function()
        local w, bias = random(7, c, n, dtype), random(8, c, nil, dtype)
        local wt, bt = w:totable(), bias:totable()
        local all = { wrt = { 1, 2, 3 } }
        for activation, row in pairs{ [false] = { f = function(x) return x end, d = function() return 1 end },
          tanh = reference.elementwise.tanh, sigmoid = reference.elementwise.sigmoid, relu = reference.elementwise.relu,
          softplus = reference.elementwise.softplus, square = reference.elementwise.square } do
          local name = activation or nil
          local weights, batch = random(9, c, nil, dtype), random(10, r, c, dtype)

          local s = each(wt, function(line, i) return reference.dot(line, u:totable()) + bt[i] end)
          local delta = each(s, function(x, i) return weights[i] * row.d(x) end)
          local function f(x, p, q) return bp.linear(x, p, q, name) end
          close(each(s, row.f), f(u, w, bias), tolerance)
          local dx, dw, db = bp.grad(function(...) return bp.dot(f(...), weights) end, all)(u, w, bias)
          close(each(transpose(wt), function(column) return reference.dot(column, delta) end), dx, tolerance)
          close(reference.outer(delta, u:totable()), dw, tolerance)
          close(delta, db, tolerance)

          local x = a:totable()
          s = each(matmul(x, transpose(wt)), function(line) return each(line, function(e, j) return e + bt[j] end) end)
          delta = each(s, function(line, i)
            return each(line, function(e, j) return batch:get(i, j) * row.d(e) end)
          end)
          close(each(s, function(line) return each(line, row.f) end), f(a, w, bias), tolerance)
          close(f(a, w, bias), f((help.window(a)), (help.window(w)), (help.window(bias))), tolerance)
          dx, dw, db = bp.grad(function(...) return bp.sum(f(...) * batch) end, all)(a, w, bias)
          close(matmul(delta, wt), dx, tolerance)
          close(matmul(transpose(delta), x), dw, tolerance)
          close(each(transpose(delta), reference.sum), db, tolerance)
        end
      end)
    end

    it("of larger matrices", function()
      local a, b = random(11, 70, 45, dtype), random(12, 45, 61, dtype)
      close(matmul(a:totable(), b:totable()), bp.matmul(a, b), tolerance)
      local v = random(13, 300, nil, dtype)
      local m = random(14, 100, 300, dtype)
      close(each(m:totable(), function(row) return reference.dot(row, v:totable()) end), bp.matmul(m, v), tolerance)
    end)

    it("diag and trace", function()
      local m = random(15, 4, 4, dtype)
      local t = m:totable()
      same({ t[1][1], t[2][2], t[3][3], t[4][4] }, bp.diag(m))
      same({ { 1, 0 }, { 0, -2 } }, bp.diag(bp.vector({ 1, -2 }, dtype)))
      close(t[1][1] + t[2][2] + t[3][3] + t[4][4], bp.trace(m), tolerance)
      assert.equal("float", math.type(bp.trace(m)))
      same(bp.eye(4):astype(dtype), bp.grad(bp.trace)(m))
      same(bp.eye(4):astype(dtype), bp.grad(bp.diag)(m))
      local _, pullback <close> = bp.vjp(bp.diag, bp.vector({ 1, -2 }, dtype))
      same({ 5, 8 }, pullback(bp.matrix({ { 5, 6 }, { 7, 8 } }, dtype)))
      assert.equal(0, bp.trace(bp.zeros(0, 0, dtype)))
    end)

    it("P30: of arrays without elements are empty, or zero", function()
      local function z(n) return bp.zeros(n, dtype) end
      same({ { 0, 0, 0 }, { 0, 0, 0 } }, bp.matmul(bp.zeros(2, 0, dtype), bp.zeros(0, 3, dtype)))
      assert.equal("0x3", help.shape(bp.matmul(bp.zeros(0, 2, dtype), bp.zeros(2, 3, dtype))))
      assert.equal("2x0", help.shape(bp.matmul(bp.zeros(2, 3, dtype), bp.zeros(3, 0, dtype))))
      same({ 0, 0 }, bp.matmul(bp.zeros(2, 0, dtype), z(0)))
      same({ 0, 0 }, bp.matmul(z(0), bp.zeros(0, 2, dtype)))
      assert.equal("0", help.shape(bp.matmul(bp.zeros(0, 2, dtype), z(2))))
      assert.equal("0x3", help.shape(bp.outer(z(0), z(3))))
      assert.equal("3x0", help.shape(bp.outer(z(3), z(0))))
      assert.equal(0, bp.dot(z(0), z(0)))
      assert.equal("3x0", help.shape(bp.transpose(bp.zeros(0, 3, dtype))))
      same({ 1, 1 }, bp.linear(z(0), bp.zeros(2, 0, dtype), bp.ones(2, dtype)))
      same({ { 1, 1 } }, bp.linear(bp.zeros(1, 0, dtype), bp.zeros(2, 0, dtype), bp.ones(2, dtype)))
      local da, db = bp.grad(bp.matmul, { wrt = { 1, 2 } })(bp.zeros(2, 0, dtype), bp.zeros(0, 3, dtype))
      assert.same({ "2x0", "0x3" }, { help.shape(da), help.shape(db) })
      da, db = bp.grad(bp.matmul, { wrt = { 1, 2 } })(bp.zeros(0, 2, dtype), bp.ones(2, 3, dtype))
      assert.equal("0x2", help.shape(da))
      same({ { 0, 0, 0 }, { 0, 0, 0 } }, db)
      local dx, dw, dbias = bp.grad(bp.linear, { wrt = { 1, 2, 3 } })(bp.ones(0, 2, dtype), bp.ones(3, 2, dtype), z(3))
      assert.equal("0x2", help.shape(dx))
      same({ { 0, 0 }, { 0, 0 }, { 0, 0 } }, dw)
      same({ 0, 0, 0 }, dbias)
    end)

    it("P28: zero times NaN or infinity is NaN", function()
      local zeros, bad = bp.zeros(3, dtype), bp.vector({ 1, nan, inf }, dtype)
      local m = bp.matrix({ { 1, 1, 1 }, { 1, nan, 1 }, { 1, 1, 1 } }, dtype)
      same(nan, bp.dot(zeros, bad))
      same({ { 0, nan, nan } }, bp.outer(bp.zeros(1, dtype), bad))
      same({ { 0 }, { nan }, { nan } }, bp.outer(bad, bp.zeros(1, dtype)))
      same({ 0, nan, 0 }, bp.matmul(m, zeros))
      same({ 0, nan, 0 }, bp.matmul(zeros, m))
      same({ nan, nan }, bp.matmul(bp.zeros(2, 3, dtype), bad))
      same({ { 0, nan, 0 } }, bp.matmul(bp.zeros(1, 3, dtype), m))
      same({ { 0 }, { nan }, { 0 } }, bp.matmul(m, bp.zeros(3, 1, dtype)))
      same({ nan, nan }, bp.linear(bad, bp.zeros(2, 3, dtype), bp.zeros(2, dtype)))
      -- and backward: the cotangent's zero rows meet a NaN operand
      local _, pullback <close> = bp.vjp(function(w) return bp.matmul(w, bad) end, bp.zeros(2, 3, dtype))
      same({ { 0, nan, nan }, { 1, nan, inf } }, pullback(bp.vector({ 0, 1 }, dtype)))
    end)
  end)
end

describe("products and the sweep:", function()
  local w, b = bp.matrix{ { 1, 2 }, { 3, 4 } }, bp.vector{ 0.1, 0.2 }

  it("an activation of linear whose cotangent others hold, too", function()
    local x = bp.vector{ 0.3, -0.4 }
    for _, activation in ipairs{ "sigmoid", "tanh", "relu" } do
      bp.check(function(p, u)
        local y = bp.linear(x, p, b, activation) + u
        return bp.sum(y * y)
      end, w, b)
      bp.check(function(p, q)
        local y = bp.linear(x, p, b, activation) + bp.linear(x, q, b, activation)
        return bp.sum(y * y)
      end, w, w * 0.5)
      local seed = bp.vector{ 1, 2 }
      local _, pullback = bp.vjp(function(p) return bp.linear(x, p, b, activation) end, w)
      local before = pullback(seed)
      same({ 1, 2 }, seed)
      same(before, pullback(seed))
    end
  end)

  it("an empty batch adds nothing to a gradient that is there, and changes no parameter", function()
    local none = bp.zeros(0, 2)
    local function loss(p)
      return bp.sum(bp.matmul(none, p)) + bp.sum(bp.square(bp.matmul(none, p))) + bp.sum(p * 3)
    end
    same({ { 3, 3 }, { 3, 3 } }, bp.grad(loss)(w))
    same({ { 0, 0 }, { 0, 0 } }, bp.grad(function(p) return bp.sum(bp.matmul(none, p)) end)(w))
    local model = bp.clone(w)
    bp.optim.sgd{ lr = 0.1 }:minimize(function(p) return bp.sum(bp.matmul(none, p)) end, model)
    same(w, model)
  end)
end)

describe("P30: products refuse", function()
  local calls = {
    { "dot", bp.zeros(2), bp.zeros(3) }, { "dot", bp.zeros(2, 2), bp.zeros(2) }, { "dot", bp.zeros(2), 1 },
    { "dot", bp.zeros(2) }, { "outer", bp.zeros(2, 2), bp.zeros(2) }, { "outer", 1, bp.zeros(2) },
    { "matmul", bp.zeros(2), bp.zeros(2) }, { "matmul", bp.zeros(2, 3), bp.zeros(2, 3) },
    { "matmul", bp.zeros(2, 3), bp.zeros(2) }, { "matmul", bp.zeros(3), bp.zeros(2, 3) },
    { "matmul", bp.zeros(2, 3), 2 }, { "matmul", 2, bp.zeros(2, 3) }, { "matmul", bp.zeros(2, 3) },
    { "matmul", bp.zeros(2, 0), bp.zeros(1, 2) }, { "transpose", bp.zeros(2) }, { "transpose", 1 }, { "transpose" },
    { "trace", bp.zeros(2) }, { "trace", 1 }, { "diag", 1 }, { "linear", bp.zeros(3), bp.zeros(2, 4), bp.zeros(2) },
    { "linear", bp.zeros(3), bp.zeros(2, 3), bp.zeros(3) }, { "linear", bp.zeros(5, 3), bp.zeros(3, 2), bp.zeros(2) },
    { "linear", bp.zeros(3), bp.zeros(3), bp.zeros(3) }, { "linear", 1, bp.zeros(3, 3), bp.zeros(3) },
    { "linear", bp.zeros(3), bp.zeros(2, 3), 1 }, { "linear", bp.zeros(3), bp.zeros(2, 3) },
    { "linear", bp.zeros(3), bp.zeros(2, 3), bp.zeros(1, 2) },
    { "linear", bp.zeros(3), bp.zeros(2, 3), bp.zeros(2), "sofftmax" },
    { "linear", bp.zeros(3), bp.zeros(2, 3), bp.zeros(2), "matmul" },
    { "linear", bp.zeros(3), bp.zeros(2, 3), bp.zeros(2), 1 },
    { "linear", bp.zeros(3), bp.zeros(2, 3), bp.zeros(2), "pow" },
  }
  for _, call in ipairs(calls) do
    local text = each(table.move(call, 2, #call, 1, {}), function(x)
      return type(x) == "userdata" and help.shape(x) or tostring(x)
    end)
    it(("%s(%s)"):format(call[1], table.concat(text, ", ")), function()
      raises("bp." .. call[1], bp[call[1]], table.unpack(call, 2))
    end)
  end

  it("two dtypes, naming astype", function()
    local f32 = { bp.zeros(2, "f32"), bp.zeros(2, 2, "f32") }
    raises({ "bp.dot", "astype" }, bp.dot, bp.zeros(2), f32[1])
    raises({ "bp.outer", "astype" }, bp.outer, f32[1], bp.zeros(2))
    raises({ "bp.matmul", "astype" }, bp.matmul, f32[2], bp.zeros(2, 2))
    raises({ "bp.matmul", "astype" }, bp.matmul, bp.zeros(2, 2), f32[1])
    raises({ "bp.linear", "astype" }, bp.linear, bp.zeros(2), f32[2], f32[1])
    raises({ "bp.linear", "astype" }, bp.linear, f32[1], f32[2], bp.zeros(2))
  end)

  it("with both shapes in the message", function()
    raises({ "bp.matmul", "300x784", "100", "784 columns", "100 elements" }, bp.matmul, bp.zeros(300, 784),
      bp.zeros(100))
    raises({ "bp.matmul", "2x3", "2x4" }, bp.matmul, bp.zeros(2, 3), bp.zeros(2, 4))
    raises({ "bp.dot", "2", "3" }, bp.dot, bp.zeros(2), bp.zeros(3))
    raises({ "bp.linear", "5x3", "2x4" }, bp.linear, bp.zeros(5, 3), bp.zeros(2, 4), bp.zeros(2))
  end)
end)

describe("dot", function()
  it("P24: takes a cotangent of 0 for 0, as a product of elements does, but does not hide a NaN", function()
    for _, dtype in ipairs(help.dtypes) do
      local u, v = bp.vector({ inf, 1, 2 }, dtype), bp.vector({ 1, 0, nan }, dtype)
      for _, f in ipairs{ bp.dot, function(x, y) return bp.sum(x * y) end } do
        local _, pullback <close> = bp.vjp(f, u, v)
        local du, dv = pullback(0.0)
        same({ { 0, 0, nan }, { 0, 0, 0 } }, { help.plain(du), help.plain(dv) })
        local _, twice <close> = bp.vjp(function(x, y) return { f(x, y), x * 1 } end, u, v)
        same({ 3, 3, nan }, (twice{ 0.0, bp.full(3, 3, dtype) }))
      end
    end
  end)
end)
