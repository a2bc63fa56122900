-- The operations that move elements without changing them: reshape flatten concat stack slice row column rows element
-- gather konst, clone and astype, and arrays made of tracked numbers. Values and gradients are exact: every gradient
-- here only copies and adds small whole numbers.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"

local same, raises, shape = help.same, help.raises, help.shape
local nan, inf = help.nan, help.inf

-- The gradient at x that a cotangent of f's result makes.
local function pulled(f, x, cotangent)
  local _, pullback <close> = bp.vjp(f, x)
  return pullback(cotangent)
end

for _, dtype in ipairs(help.dtypes) do
  local function vector(t) return bp.vector(t, dtype) end
  local function matrix(t) return bp.matrix(t, dtype) end
  local v = vector{ 1, 2, 3, 4, 5, 6 }
  local m = matrix{ { 1, 2, 3 }, { 4, 5, 6 } }

  describe("shape operations in " .. dtype .. ":", function()
    it("reshape and flatten go row by row", function()
      same(m, bp.reshape(v, 2, 3))
      same(v, bp.reshape(m, 6))
      same(matrix{ { 1, 2 }, { 3, 4 }, { 5, 6 } }, bp.reshape(m, 3, 2))
      same(v, bp.flatten(m))
      same(v, bp.flatten(v))
      same(vector{ 2, 5 }, bp.flatten(bp.reshape(bp.column(m, 2), 1, 2))) -- a window with gaps is copied
      same({ { 10, 20, 30 }, { 40, 50, 60 } }, pulled(bp.flatten, m, v * 10))
      same({ 10, 20, 30, 40, 50, 60 }, pulled(function(x) return bp.reshape(x, 2, 3) end, v, m * 10))
      assert.equal("0x7", shape(bp.reshape(bp.zeros(0, dtype), 0, 7)))
      assert.equal("0", shape(bp.flatten(bp.zeros(3, 0, dtype))))
    end)

    it("slice takes elements of a vector, rows of a matrix", function()
      same(vector{ 2, 3, 4 }, bp.slice(v, 2, 4))
      same(vector{ 6 }, bp.slice(v, 6, 6))
      same(v, bp.slice(v, 1, 6))
      for from = 1, 7 do assert.equal("0", shape(bp.slice(v, from, from - 1))) end -- none, as in ("text"):sub(3, 2)
      assert.equal("0x3", shape(bp.slice(m, 1, 0)))
      same({ 0, 0, 0, 0, 0, 0 }, pulled(function(x) return bp.slice(x, 4, 3) end, v, bp.zeros(0, dtype)))
      same(matrix{ { 4, 5, 6 } }, bp.slice(m, 2, 2))
      same({ 0, 7, 8, 0, 0, 0 }, pulled(function(x) return bp.slice(x, 2, 3) end, v, vector{ 7, 8 }))
      same({ { 0, 0, 0 }, { 7, 8, 9 } }, pulled(function(x) return bp.slice(x, 2, 2) end, m, matrix{ { 7, 8, 9 } }))
    end)

    it("row, column and rows", function()
      same(vector{ 4, 5, 6 }, bp.row(m, 2))
      same(vector{ 3, 6 }, bp.column(m, 3))
      local list = bp.rows(m)
      same(list, m:rows())
      assert.equal(2, #list)
      same(vector{ 1, 2, 3 }, list[1])
      same(vector{ 4, 5, 6 }, list[2])
      assert.equal(0, #bp.rows(bp.zeros(0, 3, dtype)))
      same({ { 0, 0, 0 }, { 7, 8, 9 } }, pulled(function(x) return bp.row(x, 2) end, m, vector{ 7, 8, 9 }))
      same({ { 0, 7, 0 }, { 0, 8, 0 } }, pulled(function(x) return bp.column(x, 2) end, m, vector{ 7, 8 }))
      same({ { 3, 3, 3 }, { 0, 0, 0 } }, pulled(function(x) return bp.rows(x)[1] end, m, bp.full(3, 3, dtype)))
      same({ { 1, 1, 1 }, { 2, 2, 2 } },
        pulled(function(x) return bp.rows(x) end, m, { bp.ones(3, dtype), bp.full(2, 3, dtype) }))
    end)

    it("element gives a number", function()
      assert.same({ 4, 6 }, { bp.element(v, 4), bp.element(m, 2, 3) })
      assert.equal("float", math.type(bp.element(v, 1)))
      same({ 0, 5, 0, 0, 0, 0 }, pulled(function(x) return bp.element(x, 2) end, v, 5))
      same({ { 0, 0, 0 }, { 5, 0, 0 } }, pulled(function(x) return bp.element(x, 2, 1) end, m, 5))
    end)

    it("indexing tracked arrays is the same as row and element", function()
      local function f(x, w) return w[2] * x[1] + w[6] * x[2] end
      local value, dx, dw = bp.value_and_grad(f, { wrt = { 1, 2 } })(m, v)
      same(vector{ 2 * 1 + 6 * 4, 2 * 2 + 6 * 5, 2 * 3 + 6 * 6 }, value)
      same({ { 2, 2, 2 }, { 6, 6, 6 } }, dx)
      same({ 0, 6, 0, 0, 0, 15 }, dw)
      same({ { 0, 0, 0 }, { 0, 1, 0 } }, bp.grad(function(x) return x:get(2, 2) end)(m))
      same({ { 0, 0, 1 }, { 0, 0, 0 } }, bp.grad(function(x) return x[1][3] end)(m))
      same({ 1, 2, 1, 2, 1, 2 }, bp.grad(function(x)
        local sum = 0
        for i, e in ipairs(x) do sum = sum + e * (2 - i % 2) end
        return sum
      end)(v))
      bp.grad(function(x)
        assert.same({ 6, "6", "2x3" }, { #x, shape(x), shape(bp.reshape(x, 2, 3)) })
        assert.is_nil(x[7])
        raises("6", function() return x[8] end)
        raises("6", function() return x[0] end)
        return x
      end)(v)
    end)

    it("windows of one array add up: overlapping, partial, with the whole", function()
      local function f(x)
        return bp.sum(bp.slice(x, 1, 4)) + 10 * bp.sum(bp.slice(x, 3, 6)) + 100 * x[4] + 1000 * bp.sum(x)
      end
      same({ 1001, 1001, 1011, 1111, 1010, 1010 }, bp.grad(f)(v))
      local function cross(x) return bp.sum(x[1]) + 10 * bp.sum(bp.column(x, 1)) end
      same({ { 11, 1, 1 }, { 10, 0, 0 } }, bp.grad(cross)(m))
    end)

    it("gather picks elements or rows, again and again if asked", function()
      for _, indices in ipairs{ { 3, 1, 3 }, bp.vector{ 3, 1, 3 }, bp.vector({ 3, 1, 3 }, "f32") } do
        local value, g = bp.value_and_grad(function(x) return bp.gather(x, indices) end)(v)
        same(vector{ 3, 1, 3 }, value)
        same(vector{ 1, 0, 2, 0, 0, 0 }, g)
        same({ 20, 0, 40, 0, 0, 0 }, pulled(function(x) return bp.gather(x, indices) end, v, vector{ 10, 20, 30 }))
      end
      local tracked = bp.grad(function(p) return bp.gather(p.x, p.i) end)({ x = v, i = bp.vector{ 3, 1, 3 } })
      same({ x = { 1, 0, 2, 0, 0, 0 }, i = { 0, 0, 0 } }, tracked)
      same(matrix{ { 4, 5, 6 }, { 4, 5, 6 }, { 1, 2, 3 } }, bp.gather(m, { 2, 2, 1 }))
      same({ { 3, 3, 3 }, { 3, 3, 3 } },
        pulled(function(x) return bp.gather(x, { 2, 2, 1 }) end, m, matrix{ { 1, 1, 1 }, { 2, 2, 2 }, { 3, 3, 3 } }))
      same(vector{ 5, 2 }, bp.gather(bp.column(bp.transpose(m), 2), { 2, 1 }) - vector{ 0, 2 })
      assert.same({ "0", "0x3" }, { shape(bp.gather(v, {})), shape(bp.gather(m, {})) })
    end)

    it("concat joins vectors, and matrices along either axis", function()
      local function joined(axis) return function(x, y) return bp.concat({ x, y, x }, axis) end end
      same(vector{ 1, 2, 9, 1, 2 }, joined()(vector{ 1, 2 }, vector{ 9 }))
      same(vector{ 1, 2 }, bp.concat{ vector{ 1, 2 } })
      same(vector{ 1, 2 }, bp.concat{ bp.zeros(0, dtype), vector{ 1, 2 }, bp.zeros(0, dtype) })
      same(matrix{ { 1, 2 }, { 3, 4 }, { 5, 6 } }, bp.concat{ matrix{ { 1, 2 }, { 3, 4 } }, matrix{ { 5, 6 } } })
      same(matrix{ { 1, 2, 9 }, { 3, 4, 8 } }, bp.concat({ matrix{ { 1, 2 }, { 3, 4 } }, matrix{ { 9 }, { 8 } } }, 2))
      local _, pullback <close> = bp.vjp(joined(), vector{ 1, 2 }, vector{ 9 })
      local dx, dy = pullback(vector{ 1, 2, 3, 40, 50 })
      same({ { 41, 52 }, { 3 } }, { dx:totable(), dy:totable() })
      local _, across <close> = bp.vjp(joined(2), matrix{ { 1 }, { 2 } }, matrix{ { 3 }, { 4 } })
      dx, dy = across(matrix{ { 1, 2, 30 }, { 4, 5, 60 } })
      same({ { { 31 }, { 64 } }, { { 2 }, { 5 } } }, { dx:totable(), dy:totable() })
    end)

    it("stack makes a vector of numbers, a matrix of vectors", function()
      same(vector{ 1, 2, 3 }, bp.stack{ 1, 2, 3 }:astype(dtype))
      same(m, bp.stack{ vector{ 1, 2, 3 }, vector{ 4, 5, 6 } })
      local dx, dy = bp.grad(function(x, y) return bp.stack{ x, y, x } * matrix{ { 1, 2 }, { 3, 4 }, { 5, 6 } } end,
        { wrt = { 1, 2 } })(vector{ 0, 0 }, vector{ 0, 0 })
      same({ { 6, 8 }, { 3, 4 } }, { dx:totable(), dy:totable() })
      same({ 4, 2 }, { bp.grad(function(x, y) return bp.dot(bp.stack{ x, y, x }, bp.vector{ 1, 2, 3 }) end,
        { wrt = { 1, 2 } })(5.0, 6.0) })
    end)

    it("konst repeats a number, whose gradient is the sum", function()
      same(bp.full(2.5, 3, dtype), bp.konst(2.5, 3, dtype))
      same(bp.full(2.5, 2, 3, dtype), bp.konst(2.5, 2, 3, dtype))
      assert.equal("f64", bp.konst(1, 3):dtype())
      same(21, pulled(function(s) return bp.konst(s, 2, 3, dtype) end, 2.5, m))
      same(0, pulled(function(s) return bp.konst(s, 0, dtype) end, 2.5, bp.zeros(0, dtype)))
    end)

    it("clone and astype are differentiable, the gradient in the leaf's dtype", function()
      local other = dtype == "f64" and "f32" or "f64"
      local g = pulled(function(x) return x:astype(other) * 2 end, v, bp.ones(6, other))
      same(vector{ 2, 2, 2, 2, 2, 2 }, g)
      same(vector{ 3, 3, 3, 3, 3, 3 }, bp.grad(function(x) return x:clone() * 3 end)(v))
      same(vector{ 1, 1, 1, 1, 1, 1 }, bp.grad(function(x) return x:astype(dtype) end)(v))
    end)

    it("bp.vector and bp.matrix of tracked numbers carry gradients", function()
      local function f(x, y) return bp.dot(bp.vector({ x, 2, y, x * y }, dtype), vector{ 1, 2, 3, 4 }) end
      same({ 1 + 4 * 7, 3 + 4 * 5 }, { bp.grad(f, { wrt = { 1, 2 } })(5.0, 7.0) })
      local function h(x, y) return bp.sum(bp.matrix({ { x, y }, { 1, x } }, dtype) * matrix{ { 1, 2 }, { 3, 4 } }) end
      same({ 5, 2 }, { bp.grad(h, { wrt = { 1, 2 } })(5.0, 7.0) })
      bp.grad(function(x)
        assert.equal(dtype, bp.vector({ x }, dtype):dtype())
        return x
      end)(1.0)
    end)
  end)
end

describe("P30: shape operations refuse", function()
  local v, m = bp.zeros(6), bp.zeros(2, 3)
  local sizes = { -1, 1.5, nan, inf, -inf, 2 ^ 31, 2 ^ 40, math.maxinteger, math.mininteger, "3", {}, true }
  local indices = { 0, -1, 7, 1.5, nan, inf, 2 ^ 31, 2 ^ 40, 2 ^ 53, math.maxinteger, math.mininteger, "1", {}, true }

  it("wrong sizes and counts, P31 sizes beyond 2^31 before anything is allocated", function()
    local live = help.live()
    for _, n in ipairs(sizes) do
      raises("bp.reshape", bp.reshape, v, n)
      raises("bp.reshape", bp.reshape, v, 2, n)
      raises("bp.reshape", bp.reshape, v, n, 3)
      raises("bp.konst", bp.konst, 1, n)
      raises("bp.konst", bp.konst, 1, 2, n)
      raises("bp.konst", bp.konst, 1, n, 2)
      raises("bp.konst", bp.konst, 1, n, 0)
    end
    raises({ "bp.reshape", "6", "5" }, bp.reshape, v, 5)
    raises("bp.reshape", bp.reshape, m, 4, 2)
    raises("bp.reshape", bp.reshape, v, 2 ^ 31 | 0, 2 ^ 33 | 0) -- 2^64 is no way to 0
    raises("bp.reshape", bp.reshape, bp.zeros(0), 2 ^ 32 | 0, 2 ^ 32 | 0)
    raises("bp.konst", bp.konst, 1, 2 ^ 16 | 0, 2 ^ 15 | 0)
    raises("bp.outer", bp.outer, bp.zeros(2 ^ 16 | 0), bp.zeros(2 ^ 15 | 0))
    raises("bp.diag", bp.diag, bp.zeros(2 ^ 16 | 0))
    for _, call in ipairs{ "reshape", "konst", "flatten" } do raises("bp." .. call, bp[call]) end
    raises("bp.reshape", bp.reshape, v)
    raises("bp.reshape", bp.reshape, 1, 1)
    raises("bp.konst", bp.konst, v, 2)
    raises("bp.konst", bp.konst, 1, 2, "f16")
    assert.equal(live, help.live())
  end)

  it("wrong indices", function()
    for _, i in ipairs(indices) do
      raises("bp.slice", bp.slice, v, i, 5)
      raises("bp.slice", bp.slice, v, 2, i)
      raises("bp.slice", bp.slice, m, i, 2)
      raises("bp.row", bp.row, m, i)
      raises("bp.column", bp.column, m, i)
      raises("bp.element", bp.element, v, i)
      raises("bp.element", bp.element, m, i, 1)
      raises("bp.element", bp.element, m, 1, i)
      if type(i) ~= "table" then
        raises("bp.gather", bp.gather, v, { i })
        raises("bp.gather", bp.gather, m, { 1, i })
      end
      if type(i) == "number" then raises("bp.gather", bp.gather, v, bp.vector{ 1, i }) end
    end
    raises("bp.slice", bp.slice, v, 5, 3)
    raises({ "bp.row", "3" }, bp.row, m, 3)
    raises({ "bp.column", "4" }, bp.column, m, 4)
    for _, call in ipairs{ "slice", "row", "column", "element", "gather", "rows" } do
      raises("bp." .. call, bp[call])
      raises("bp." .. call, bp[call], "x", 1, 1)
      raises("bp." .. call, bp[call], 1, 1, 1)
    end
    for _, call in ipairs{ "slice", "row", "column", "gather" } do raises("bp." .. call, bp[call], m) end
    for _, call in ipairs{ "row", "column", "rows" } do raises("bp." .. call, bp[call], v, 1) end
    raises("bp.element", bp.element, m, 1)
    raises("bp.element", bp.element, v, 1, 1)
  end)

  it("lists that do not fit together", function()
    local f32 = bp.zeros(3, "f32")
    for _, list in ipairs{ { bp.zeros(3), m }, { m, bp.zeros(2, 2) }, { 1, 2 }, { bp.zeros(3), "x" }, {}, { true } } do
      raises("bp.concat", bp.concat, list)
    end
    raises("bp.concat", bp.concat, { m, bp.zeros(3, 3) }, 2)
    raises("bp.concat", bp.concat, { v, v }, 2)
    for _, axis in ipairs{ 0, 3, 1.5, "1" } do raises("bp.concat", bp.concat, { m, m }, axis) end
    for _, list in ipairs{ { bp.zeros(3), v }, { 1, v }, { v, 1 }, { m, m }, { 1, "x" }, {} } do
      raises("bp.stack", bp.stack, list)
    end
    raises({ "bp.concat", "astype" }, bp.concat, { bp.zeros(3), f32 })
    raises({ "bp.stack", "astype" }, bp.stack, { f32, bp.zeros(3) })
    for _, call in ipairs{ "concat", "stack" } do
      raises("bp." .. call, bp[call])
      raises("bp." .. call, bp[call], 1)
      raises("bp." .. call, bp[call], "x")
    end
  end)
end)
