-- Operators on arrays and numbers: values and broadcasting against plain Lua, comparisons, and what is refused. Values
-- are exact in f64 and within 1e-6 in f32, unless another tolerance is given.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"

local close, same, raises = help.close, help.same, help.raises
local nan = help.nan

local operators = {
  ["+"] = function(a, b) return a + b end,
  ["-"] = function(a, b) return a - b end,
  ["*"] = function(a, b) return a * b end,
  ["/"] = function(a, b) return a / b end,
  ["^"] = function(a, b) return a ^ b end,
}

local v, w = { 1, 2, 3 }, { 0.5, 4, 2 }
local m, k = { { 1, 2, 3 }, { 4, 5, 6 } }, { { 2, 0.5, 1 }, { 3, 1, 2 } }

-- The element at (i, j) of a number, vector (over the rows) or matrix.
local function at(x, i, j)
  if type(x) == "number" then return x end
  return type(x[1]) == "table" and x[i][j] or x[j]
end

local function array(x, dtype)
  if type(x) == "number" then return x end
  return type(x[1]) == "table" and bp.matrix(x, dtype) or bp.vector(x, dtype)
end

local cases = {
  { "vector and vector", v, w }, { "matrix and matrix", m, k }, { "vector and number", v, 2.5 },
  { "number and vector", 2.5, v }, { "matrix and number", m, 2.5 }, { "number and matrix", 2.5, m },
  { "matrix and vector over its rows", m, w }, { "vector and matrix over its rows", w, m },
  { "one row and a vector", { { 1, 2, 3 } }, w }, { "one column and one element", { { 1 }, { 2 } }, { 3 } },
}

describe("element-wise operators", function()
  it("are functions too", function()
    for name, symbol in pairs{ add = "+", sub = "-", mul = "*", div = "/", pow = "^" } do
      same(operators[symbol](array(v), array(w)), bp[name](array(v), array(w)))
      assert.equal(operators[symbol](3, 2), bp[name](3, 2))
    end
    same(array(v) - array(w), bp.sub(array(v), array(w)))
    same(-array(m), bp.neg(array(m)))
  end)

  for symbol, operate in pairs(operators) do
    for _, case in ipairs(cases) do
      local name, a, b = case[1], case[2], case[3]
      it(("%s of %s"):format(symbol, name), function()
        local expected, widest = {}, type(at(a, 1, 1)) and a
        if type(a) == "number" or (type(b) == "table" and type(b[1]) == "table") then widest = b end
        if type(widest[1]) == "table" then
          for i = 1, #widest do
            expected[i] = {}
            for j = 1, #widest[1] do expected[i][j] = operate(at(a, i, j), at(b, i, j)) end
          end
        else
          for j = 1, #widest do expected[j] = operate(at(a, 1, j), at(b, 1, j)) end
        end
        close(expected, operate(array(a), array(b)), 1e-15)
        local single = operate(array(a, "f32"), array(b, "f32"))
        close(expected, single, 1e-6)
        assert.equal("f32", single:dtype())
        for _, window in ipairs{ true, false } do -- operands that are windows: the same, to the bit
          local x, y = array(a), array(b)
          if window and type(x) ~= "number" then x = help.window(x) end
          if not window and type(y) ~= "number" then y = help.window(y) end
          same(operate(array(a), array(b)), operate(x, y))
        end
      end)
    end
  end

  it("unary minus", function()
    for _, dtype in ipairs(help.dtypes) do
      same(bp.vector({ -1, 2, 0 }, dtype), -bp.vector({ 1, -2, 0 }, dtype))
      same(bp.matrix({ { -1, 2 } }, dtype), -bp.matrix({ { 1, -2 } }, dtype))
    end
    assert.equal(-math.huge, 1 / (-bp.vector{ 0 })[1]) -- minus zero, not zero minus zero
  end)

  it("take a number in the array's dtype", function()
    local x = bp.vector({ 1 }, "f32")
    assert.equal(help.f32(help.f32(0.1) + 1), (x + 0.1)[1])
    assert.equal("f32", (0.1 * x):dtype())
    assert.equal(help.f32(16777217 - 1), (bp.vector({ 0 }, "f32") + 16777217)[1])
    assert.equal(0.1 + 1, (bp.vector{ 1 } + 0.1)[1])
  end)

  it("powers keep sign and special values", function()
    close({ 9, 0.25, -8 }, bp.vector{ -3, 2, -2 } ^ bp.vector{ 2, -2, 3 }, 1e-14)
    same({ 1, 1, nan }, bp.vector{ 0, nan, -2 } ^ bp.vector{ 0, 0, 0.5 })
    close({ 2, 3 }, bp.vector{ 4, 9 } ^ 0.5, 1e-15)
    close({ 0.5, 4 }, 2 ^ bp.vector{ -1, 2 }, 1e-15)
  end)

  it("P28: zero times NaN and infinity is NaN", function()
    same({ nan, nan, 0 }, 0 * bp.vector{ nan, math.huge, 1 })
    same({ nan, nan, 0 }, bp.vector{ 0, 0, 0 } * bp.vector{ nan, math.huge, 1 })
  end)

  it("agree for every length, whatever the width of the processor's registers", function()
    for _, dtype in ipairs(help.dtypes) do
      for n = 0, 40 do
        local x, y, sum, quotient = bp.zeros(n, dtype), bp.zeros(n, dtype), {}, {}
        for i = 1, n do
          x[i], y[i] = i, 2
          sum[i], quotient[i] = i + 2, i / 2
        end
        same(sum, x + y)
        same(quotient, x / y)
        same(sum, x + 2)
      end
    end
  end)

  it("do not change their operands", function()
    local x, y = bp.vector{ 1, 2 }, bp.vector{ 3, 4 }
    local _ = { x + y, x - y, x * y, x / y, x ^ y, -x, 2 * x, x + x }
    same({ 1, 2 }, x)
    same({ 3, 4 }, y)
  end)

  it("P30: work on arrays without elements", function()
    for _, operate in pairs(operators) do
      assert.equal("0", help.shape(operate(bp.zeros(0), bp.zeros(0))))
      assert.equal("0", help.shape(operate(bp.zeros(0), 2)))
      assert.equal("0x3", help.shape(operate(bp.zeros(0, 3), bp.zeros(3))))
      assert.equal("3x0", help.shape(operate(bp.zeros(3, 0), bp.zeros(0))))
      assert.equal("0x3", help.shape(operate(2, bp.zeros(0, 3))))
    end
  end)
end)

describe("P30: operators refuse", function()
  local shapes = {
    { bp.zeros(2), bp.zeros(3) }, { bp.zeros(1), bp.zeros(2) }, { bp.zeros(2), bp.zeros(1) },
    { bp.zeros(2, 6), bp.zeros(4) }, { bp.zeros(2, 3), bp.zeros(2) }, { bp.zeros(2, 3), bp.zeros(1) },
    { bp.zeros(2, 3), bp.zeros(3, 2) }, { bp.zeros(2, 3), bp.zeros(1, 3) }, { bp.zeros(2, 3), bp.zeros(2, 1) },
    { bp.zeros(3, 1), bp.zeros(3) }, { bp.zeros(0), bp.zeros(1) }, { bp.zeros(0, 3), bp.zeros(1, 3) },
  }
  for symbol, operate in pairs(operators) do
    it(symbol .. " of shapes that do not agree, naming both", function()
      for _, pair in ipairs(shapes) do
        for _, dtype in ipairs(help.dtypes) do
          local a, b = pair[1]:astype(dtype), pair[2]:astype(dtype)
          raises({ help.shape(a), help.shape(b) }, operate, a, b)
          raises({ help.shape(a), help.shape(b) }, operate, b, a)
        end
      end
    end)

    it(symbol .. " of two dtypes, naming astype", function()
      raises("astype", operate, bp.zeros(2), bp.zeros(2, "f32"))
      raises("astype", operate, bp.zeros(2, "f32"), bp.zeros(2))
      raises("astype", operate, bp.zeros(3, 2, "f32"), bp.zeros(2))
    end)

    it(symbol .. " with what is not a number", function()
      for _, bad in ipairs{ "1", "x", true, {}, print } do
        assert.has_error(function() return operate(bp.zeros(2), bad) end)
        assert.has_error(function() return operate(bad, bp.zeros(2)) end)
      end
      assert.has_error(function() return operate(bp.zeros(2), nil) end)
    end)
  end

  it("P36: //, %, .. and the bitwise operators, with advice", function()
    local x = bp.vector{ 1, 2 }
    for _, wrong in ipairs{
      function() return x // 2 end, function() return 2 // x end, function() return x % 2 end,
      function() return x % x end, function() return x .. "" end, function() return "" .. x end,
    } do
      raises("bp", wrong)
    end
    assert.has_error(function() return x & 1 end)
    assert.has_error(function() return math.sin(x) end)
  end)
end)

describe("comparisons", function()
  it("== compares shape and values", function()
    assert.is_true(bp.vector{ 1, 2 } == bp.vector{ 1, 2 })
    assert.is_true(bp.matrix{ { 1 }, { 2 } } == bp.matrix{ { 1 }, { 2 } })
    assert.is_true(bp.column(bp.matrix{ { 1, 5 }, { 2, 6 } }, 2) == bp.vector{ 5, 6 })
    assert.is_true(bp.zeros(0) == bp.zeros(0))
    assert.is_false(bp.vector{ 1, 2 } == bp.vector{ 1, 3 })
    assert.is_false(bp.vector{ 1, 2 } == bp.vector{ 1, 2, 3 })
    assert.is_false(bp.vector{ 1, 2 } == bp.matrix{ { 1, 2 } })
    assert.is_false(bp.matrix{ { 1, 2 } } == bp.matrix{ { 1 }, { 2 } })
    assert.is_false(bp.zeros(0, 3) == bp.zeros(3, 0))
    assert.is_false(bp.vector{ nan } == bp.vector{ nan })
    assert.is_false(bp.vector{ 1 } == 1)
    assert.is_true(bp.vector{ 1 } ~= bp.vector{ 2 })
  end)

  it("< and <= on arrays are errors", function()
    local x, y = bp.vector{ 1 }, bp.vector{ 2 }
    for _, wrong in ipairs{
      function() return x < y end, function() return x <= y end, function() return x < 1 end,
      function() return 1 >= x end,
    } do
      raises("bp.less", wrong)
    end
  end)

  local comparisons = {
    less = function(a, b) return a < b end,
    less_equal = function(a, b) return a <= b end,
    greater = function(a, b) return a > b end,
    greater_equal = function(a, b) return a >= b end,
    equal = function(a, b) return a == b end,
  }
  for name, compare in pairs(comparisons) do
    local function bit(a, b) return compare(a, b) and 1 or 0 end

    it("bp." .. name .. " gives zeros and ones", function()
      local numbers = { -1, 0, 1, math.huge, -math.huge, nan }
      for _, a in ipairs(numbers) do
        for _, b in ipairs(numbers) do
          for _, dtype in ipairs(help.dtypes) do
            same({ bit(a, b) }, bp[name](bp.vector({ a }, dtype), bp.vector({ b }, dtype)))
          end
          assert.equal(bit(a, b), bp[name](a, b))
        end
      end
      same({ bit(1, 2), bit(2, 2), bit(3, 2) }, bp[name](bp.vector{ 1, 2, 3 }, 2))
      same({ bit(2, 1), bit(2, 2), bit(2, 3) }, bp[name](2, bp.vector{ 1, 2, 3 }))
      local grid = bp[name](bp.matrix({ { 1, 2 }, { 3, 4 } }, "f32"), bp.vector({ 2, 2 }, "f32"))
      same({ { bit(1, 2), bit(2, 2) }, { bit(3, 2), bit(4, 2) } }, grid)
      assert.equal("f32", grid:dtype())
      raises({ "bp." .. name, "2", "3" }, bp[name], bp.zeros(2), bp.zeros(3))
      raises({ "bp." .. name, "astype" }, bp[name], bp.zeros(2), bp.zeros(2, "f32"))
    end)

    it("bp." .. name .. " lets no gradient through", function()
      local value, gradient = bp.value_and_grad(function(x) return bp.sum(bp[name](x, 2) * x) end)(bp.vector{ 1, 2, 3 })
      local mask = { bit(1, 2), bit(2, 2), bit(3, 2) }
      close(mask[1] + 2 * mask[2] + 3 * mask[3], value)
      close(mask, gradient)
    end)
  end
end)

describe("operations as methods", function()
  it("are the same as the functions", function()
    local x, y = bp.matrix{ { 1, -2 }, { 3, 0.5 } }, bp.vector{ 1, -1 }
    same(bp.exp(x), x:exp())
    assert.equal(bp.sum(x), x:sum())
    same(bp.sum(x, 2), x:sum(2))
    same(bp.matmul(x, y), x:matmul(y))
    same(bp.transpose(x), x:transpose())
    same(bp.slice(x, 2, 2), x:slice(2, 2))
    same(bp.clamp(x, -1, 1), x:clamp(-1, 1))
    same(bp.reshape(x, 4), x:reshape(4))
    same(bp.softmax(y), y:softmax())
    assert.equal(bp.dot(y, y), y:dot(y))
  end)

  it("are there for tracked arrays, and for numbers never", function()
    local value, g = bp.value_and_grad(function(a)
      assert.same({ 2, "f64" }, { (a:shape()), a:dtype() })
      return a:square():clamp(0, 100):sum() + a:reshape(1, 2):matmul(a):sum() + a:slice(1, 1):clone():astype("f64")[1]
    end)(bp.vector{ 1, -3 })
    close({ 21, { 5, -12 } }, { value, g:totable() })
    bp.grad(function(s)
      assert.has_error(function() return s:exp() end)
      assert.has_error(function() return s:shape() end)
      return s
    end)(2.0)
    assert.has_error(function() return bp.ones(2):nosuch() end)
  end)
end)
