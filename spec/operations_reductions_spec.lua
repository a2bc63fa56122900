-- Reductions and the operations of the softmax family: values and gradients against plain Lua formulas, along every
-- axis, in both dtypes, with ties, extremes, empty arrays and wrong calls. Tolerances, relative to max(1, |x|): 1e-13
-- in f64, 2e-6 in f32, unless another is given.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"
local reference = require "support.reference"

local close, same, raises = help.close, help.same, help.raises
local nan, inf = help.nan, help.inf
local each = reference.each
local tolerances = { f64 = 1e-13, f32 = 2e-6 }

local matrices = {
  { { 0.5, -1.25, 2 }, { 1.5, 3, -0.75 } },
  { { 2 } },
  { { 1, 2, 3, 4, 5 } },
  { { -1 }, { 0.5 }, { 3 }, { 2 } },
  { { 2, 2, 1 }, { 0, 0, 0 }, { 3, -1, 3 }, { 1, 2, 1 } }, -- ties in rows, columns and the whole
}

local function flat(m)
  local list = {}
  for _, row in ipairs(m) do table.move(row, 1, #row, #list + 1, list) end
  return list
end

-- The flat list as rows of c.
local function folded(list, c)
  local m = {}
  for i, x in ipairs(list) do
    local r = (i - 1) // c + 1
    m[r] = m[r] or {}
    m[r][(i - 1) % c + 1] = x
  end
  return m
end

describe("reductions:", function()
  for name, row in pairs(reference.reductions) do
    for _, dtype in ipairs(help.dtypes) do
      local tolerance = tolerances[dtype]

      it(("%s of vectors and whole matrices gives a number, %s"):format(name, dtype), function()
        for _, m in ipairs(matrices) do
          local list = flat(m)
          local value, g = bp.value_and_grad(bp[name])(bp.vector(list, dtype))
          close(row.f(list), value, tolerance)
          close(row.d(list), g, tolerance)
          assert.equal("float", math.type(value))
          assert.equal("float", math.type(bp[name](bp.vector(list, dtype))))
          assert.equal(dtype, g:dtype())
          value, g = bp.value_and_grad(bp[name])(bp.matrix(m, dtype))
          close(row.f(list), value, tolerance)
          close(folded(row.d(list), #m[1]), g, tolerance)
          close(row.f(list), bp[name]((help.window(bp.vector(list, dtype)))), tolerance)
        end
      end)

      it(("%s along an axis, %s"):format(name, dtype), function()
        for _, m in ipairs(matrices) do
          local array, transposed = bp.matrix(m, dtype), reference.transpose(m)
          local value, g = bp.value_and_grad(function(x) return bp[name](x, 1) end)(array)
          close(each(transposed, row.f), value, tolerance)
          close(reference.transpose(each(transposed, row.d)), g, tolerance)
          assert.equal("vector", bp.kind(value))
          assert.equal(dtype, value:dtype())
          value, g = bp.value_and_grad(function(x) return bp[name](x, 2) end)(array)
          close(each(m, row.f), value, tolerance)
          close(each(m, row.d), g, tolerance)
          assert.equal("vector", bp.kind(value))
          -- each result has a cotangent of its own, and a window gives what its copy gives
          local window = help.window(array)
          for axis = 1, 2 do
            local y, pullback <close> = bp.vjp(function(x) return bp[name](x, axis) end, window)
            local weights = help.random_like(y, 3)
            local _, expected = bp.value_and_grad(function(x) return bp.dot(bp[name](x, axis), weights) end)(array)
            close(expected, pullback(weights), tolerance)
          end
        end
        -- on a vector axis 1 is the whole reduction
        local v = bp.vector({ 1, -2, 0.5 }, dtype)
        assert.equal(bp[name](v), bp[name](v, 1))
        same(bp.grad(bp[name])(v), bp.grad(function(x) return bp[name](x, 1) end)(v))
      end)
    end

    it("P30: " .. name .. " refuses what it cannot reduce", function()
      local m, v = bp.ones(2, 3), bp.ones(3)
      for _, axis in ipairs{ 0, 3, -1, 1.5, nan, "1", true, 2 ^ 40 } do raises("bp." .. name, bp[name], m, axis) end
      raises("bp." .. name, bp[name], v, 2)
      for _, bad in ipairs{ "x", true, {} } do raises("bp." .. name, bp[name], bad) end
      raises("bp." .. name, bp[name])
    end)

    it("P28: " .. name .. " does not hide a NaN, wherever it stands", function()
      for _, dtype in ipairs(help.dtypes) do
        for n = 1, 20 do
          local v = bp.full(0, n, dtype)
          v[(n * 7) % n + 1] = nan
          same(nan, bp[name](v))
          v:fill(1)
          v[n] = nan
          same(nan, bp[name](v))
        end
        local m = bp.ones(3, 4, dtype)
        m:set(2, 3, nan)
        for axis = 1, 2 do
          for i, x in ipairs(bp[name](m, axis)) do
            assert.equal(i == (axis == 1 and 3 or 2), x ~= x)
          end
        end
      end
    end)
  end

  it("P30: of no elements: sum 0, prod 1, logsumexp -inf; mean, max and min raise", function()
    for _, dtype in ipairs(help.dtypes) do
      for name, value in pairs{ sum = 0, prod = 1, logsumexp = -inf } do
        for _, x in ipairs{ bp.zeros(0, dtype), bp.zeros(0, 3, dtype), bp.zeros(3, 0, dtype) } do
          same(value, bp[name](x))
          same(x, bp.grad(bp[name])(x))
        end
        same({ value, value, value }, bp[name](bp.zeros(0, 3, dtype), 1))
        same({ value, value, value }, bp[name](bp.zeros(3, 0, dtype), 2))
        same({}, bp[name](bp.zeros(0, 3, dtype), 2))
        same(bp.zeros(0, 3, dtype), bp.grad(function(x) return bp[name](x, 1) end)(bp.zeros(0, 3, dtype)))
      end
      for _, name in ipairs{ "mean", "max", "min", "argmax", "argmin" } do
        for _, x in ipairs{ bp.zeros(0, dtype), bp.zeros(0, 3, dtype), bp.zeros(3, 0, dtype) } do
          raises("bp." .. name, bp[name], x)
        end
        raises("bp." .. name, bp[name], bp.zeros(0, 3, dtype), 1)
        raises("bp." .. name, bp[name], bp.zeros(3, 0, dtype), 2)
      end
      assert.equal(0, bp.norm(bp.zeros(0, dtype)))
      for _, zero in ipairs{ 0.0, -0.0 } do assert.equal(math.huge, 1 / bp.norm(bp.full(zero, 3, dtype))) end
    end
  end)

  it("norm of elements whose squares are out of range", function()
    for _, x in ipairs{ 1e200, 1e-200, -3e300, 5e-324 } do
      close(math.abs(x) * 2, bp.norm(bp.full(x, 4)), 1e-15)
      close(math.abs(x) * 2, bp.norm(bp.full(x, 2, 2)), 1e-15)
    end
    close({ 0.6, 0.8 }, bp.grad(bp.norm)(bp.vector{ 3e200, 4e200 }))
  end)

  it("of f32 accumulate in f64", function() -- n roundings of f64, if they are not spread over registers
    local n, tenth = 100000, help.f32(0.1)
    local x = bp.full(0.1, n, "f32")
    close(n * tenth, bp.sum(x), 1e-11)
    close(tenth, bp.mean(x), 1e-11)
    close(math.sqrt(n) * tenth, bp.norm(x), 1e-11)
    close(n * tenth * tenth, bp.dot(x, x), 1e-11)
    close(math.sqrt(2) * help.f32(1e30), bp.norm(bp.full(1e30, 2, "f32")), 1e-6) -- its square is no f32
    close(help.f32(1e30) * 1e10, bp.prod(bp.vector({ 1e30, 1e10 }, "f32")), 1e-6)
  end)

  it("agree for long arrays", function() -- tolerance 1e-11: the order of additions is the library's own
    local x = help.random_like(bp.zeros(1003), 5)
    local list = x:totable()
    close(reference.sum(list), bp.sum(x), 1e-11)
    close(reference.logsumexp(list), bp.logsumexp(x), 1e-11)
    local top = list[1]
    for _, y in ipairs(list) do top = math.max(top, y) end
    assert.equal(top, bp.max(x))
    close(math.sqrt(reference.dot(list, list)), bp.norm(x), 1e-11)
  end)

  -- Many ties; row i and column i have i - 1 zeros while there are fewer than 4 of them.
  local function large(rows, columns)
    local m = {}
    for i = 1, rows do
      m[i] = {}
      for j = 1, columns do
        local zero = i <= 4 and j > 4 and j - 4 < i or j <= 4 and i > 4 and i - 4 < j
        m[i][j] = zero and 0 or ({ 0.75, 1, 1.25, 1 })[(i * 7 + j * j * 3 + i * j) % 4 + 1]
      end
    end
    return m
  end

  for _, shape in ipairs{ { 3, 300 }, { 300, 3 }, { 15, 20 } } do
    it(("of %d x %d follow the formulas element by element, written and added, also of columns"):format(
      table.unpack(shape)), function()
      local m = large(table.unpack(shape))
      local transposed, column = reference.transpose(m), reference.transpose(m)[2]
      for name, row in pairs(reference.reductions) do
        local values = { [0] = row.f(flat(m)), each(transposed, row.f), each(m, row.f) }
        local slopes = { [0] = folded(row.d(flat(m)), #m[1]), reference.transpose(each(transposed, row.d)),
          each(m, row.d) }
        local of_column = row.d(column)
        for _, dtype in ipairs(help.dtypes) do
          local array, tolerance = bp.matrix(m, dtype), dtype == "f64" and 1e-12 or 1e-5
          for axis = 0, 2 do
            local function reduced(x) return axis == 0 and bp[name](x) or bp[name](x, axis) end
            local value, g = bp.value_and_grad(reduced)(array)
            close(values[axis], value, tolerance, name)
            close(slopes[axis], g, tolerance, name)
            g = bp.grad(function(x) return { reduced(x), bp.sum(x) } end)(array)
            close(slopes[axis], g - 1, tolerance, name)
          end
          local g = bp.grad(function(x) return bp[name](bp.column(x, 2)) end)(array) -- its elements stand apart
          close(of_column, bp.column(g, 2), tolerance, name)
        end
      end
    end)
  end

  it("P24: of a group that holds infinities, those that made logsumexp share the cotangent", function()
    local m = { { inf, 1, 2 }, { inf, -inf, inf }, { 1, -inf, -inf }, { -inf, -inf, -inf } }
    local slopes = { { 1, 0, 0 }, { 0.5, 0, 0.5 }, { 1, 0, 0 }, { 1 / 3, 1 / 3, 1 / 3 } }
    for _, dtype in ipairs(help.dtypes) do
      local function gradient(axis, x)
        return bp.grad(function(y) return bp.logsumexp(y, axis) end)(bp.matrix(x, dtype))
      end
      close(slopes, gradient(2, m), tolerances[dtype])
      close(slopes, bp.transpose(gradient(1, reference.transpose(m))), tolerances[dtype])
      for i, row in ipairs(m) do close(slopes[i], bp.grad(bp.logsumexp)(bp.vector(row, dtype)), tolerances[dtype]) end
    end
  end)

  it("prod with zeros", function()
    for _, dtype in ipairs(help.dtypes) do
      same({ 0, 6, 0 }, bp.grad(bp.prod)(bp.vector({ 2, 0, 3 }, dtype)))
      same({ 0, 0, 0 }, bp.grad(bp.prod)(bp.vector({ 0, 0, 3 }, dtype)))
      local m = bp.matrix({ { 3, 0 }, { 0, 4 } }, dtype)
      same({ { 0, 4 }, { 3, 0 } }, bp.grad(function(x) return bp.prod(x, 1) end)(m))
    end
  end)

  -- Valgrind does not have the flags that tell.
  local watched = not os.getenv "BACKPROP_VALGRIND" and it or pending

  watched("a product whose parts leave the range of a double, where it does not", function()
    local small, huge = 3e-162, 1e200
    for n = 3, 40, 3 do
      local list = {}
      for k = 1, n do list[k] = 1 end
      list[1], list[2], list[n] = small, huge, 2.5e-162
      local v, product, slope = bp.vector(list), 7.5e-124, 2.5e38
      local column = bp.reshape(v, n, 1)
      for name, f in pairs{
        whole = bp.prod, column = function(x) return bp.prod(bp.reshape(x, n, 1), 1)[1] end,
        row = function(x) return bp.prod(bp.reshape(x, 1, n), 2)[1] end,
        beside = function(x) return bp.prod(bp.transpose(bp.stack{ bp.ones(n), x, bp.ones(n) }), 1)[2] end,
      } do
        local value, g = bp.value_and_grad(f)(v)
        close(1, value / product, 1e-14, name)
        close(1, g[1] / slope, 1e-14, name)
      end
      close(1, bp.prod(column, 1)[1] / product, 1e-14)
    end
    same(1, bp.prod(bp.vector{ huge, 1 / huge, huge, 1 / huge }))
    same(inf, bp.prod(bp.vector{ huge, huge }))
    same(0, bp.prod(bp.vector{ 1 / huge, 1 / huge }))
  end)

  it("P24: of a product, a column without a cotangent gets none from the others", function()
    local _, pullback <close> = bp.vjp(function(x) return bp.prod(x, 1) end,
      bp.matrix{ { inf, 1e-200 }, { 2, 1e-200 } })
    same({ { 0, 1e-200 }, { 0, 1e-200 } }, (pullback(bp.vector{ 0, 1 })))
  end)

  it("P26: the weights of a tie add up to 1", function()
    for _, dtype in ipairs(help.dtypes) do
      same({ 0.5, 0, 0.5 }, bp.grad(bp.max)(bp.vector({ 3, 1, 3 }, dtype)))
      same({ 0.25, 0.25, 0.25, 0.25 }, bp.grad(bp.min)(bp.vector({ 1, 1, 1, 1 }, dtype)))
      same({ { 0.5, 0 }, { 0.5, 1 } }, bp.grad(function(m) return bp.max(m, 1) end)(
        bp.matrix({ { 2, 1 }, { 2, 5 } }, dtype)))
      same({ 0.5, 0.5 }, bp.grad(bp.max)(bp.vector({ -inf, -inf }, dtype)))
      same({ 0, 0.5, 0.5 }, bp.grad(bp.max)(bp.vector({ 1, inf, inf }, dtype)))
    end
  end)

  it("max and min of runs that lie at the ends of the dtype's range", function()
    for _, dtype in ipairs(help.dtypes) do
      local largest = dtype == "f32" and 0x1.fffffep127 or 0x1.fffffffffffffp1023
      for _, n in ipairs{ 1, 2, 7, 16, 33 } do
        for _, value in ipairs{ inf, largest, -largest, -inf } do
          local x = bp.full(value, n, dtype)
          assert.equal(value, bp.max(x))
          assert.equal(value, bp.min(x))
          close(bp.full(1 / n, n), bp.grad(bp.max)(x):astype("f64"), tolerances[dtype])
          for _, other in ipairs{ inf, largest, -largest, -inf } do
            x[n] = other
            assert.equal(n == 1 and other or math.max(value, other), bp.max(x))
            assert.equal(n == 1 and other or math.min(value, other), bp.min(x))
          end
        end
      end
    end
  end)

  it("P27: norm has gradient x / norm, and 0 at 0", function()
    for _, dtype in ipairs(help.dtypes) do
      local value, g = bp.value_and_grad(bp.norm)(bp.vector({ 3, 0, -4 }, dtype))
      close(5, value, tolerances[dtype])
      close({ 0.6, 0, -0.8 }, g, tolerances[dtype])
      value, g = bp.value_and_grad(bp.norm)(bp.matrix({ { 1, -1 }, { 1, 1 } }, dtype))
      close(2, value, tolerances[dtype])
      close({ { 0.5, -0.5 }, { 0.5, 0.5 } }, g, tolerances[dtype])
      value, g = bp.value_and_grad(bp.norm)(bp.zeros(3, dtype))
      same(0, value)
      same({ 0, 0, 0 }, g)
    end
    same(nan, bp.norm(bp.vector{ 1, nan }))
    assert.equal("float", math.type(bp.norm(bp.vector{ 3, 4 })))
  end)

  it("argmax and argmin give positions, of a tie the first", function()
    for _, dtype in ipairs(help.dtypes) do
      local v = bp.vector({ 2, 7, -1, 7, -1 }, dtype)
      assert.equal(2, bp.argmax(v))
      assert.equal(3, bp.argmin(v))
      assert.equal("integer", math.type(bp.argmax(v)))
      assert.equal(2, bp.argmax(v, 1))
      local m = bp.matrix({ { 1, 9, 3 }, { 4, 5, 0 } }, dtype)
      assert.same({ 1, 2 }, { bp.argmax(m) })
      assert.same({ 2, 3 }, { bp.argmin(m) })
      assert.equal("integer", math.type((bp.argmax(m))))
      same(bp.vector{ 2, 1, 1 }, bp.argmax(m, 1))
      same(bp.vector{ 2, 2 }, bp.argmax(m, 2))
      same(bp.vector{ 1, 2, 2 }, bp.argmin(m, 1))
      same(bp.vector{ 1, 3 }, bp.argmin(m, 2))
      assert.equal(2, bp.argmax((help.window(v))))
    end
    for _, axis in ipairs{ 0, 3, 1.5, "1" } do raises("bp.argmax", bp.argmax, bp.ones(2, 2), axis) end
    raises("bp.argmin", bp.argmin, bp.ones(2), 2)
    raises("bp.argmax", bp.argmax, "x")
    local value, g = bp.value_and_grad(function(x) return x[bp.argmax(x)] end)(bp.vector{ 1, 5, 2 })
    same(5, value)
    same({ 0, 1, 0 }, g)
  end)
end)

describe("the softmax family:", function()
  local points = { { 0.9, 0.2, 0.3 }, { -1, 2, 0.5 }, { 1, 1, 1 }, { 0, -3, 4 } }

  for _, dtype in ipairs(help.dtypes) do
    local tolerance = tolerances[dtype]

    it("softmax and log_softmax of vectors and of each row, " .. dtype, function()
      for _, name in ipairs{ "softmax", "log_softmax" } do
        for _, x in ipairs(points) do close(reference[name](x), bp[name](bp.vector(x, dtype)), tolerance) end
        close(each(points, reference[name]), bp[name](bp.matrix(points, dtype)), tolerance)
        close(each(points, reference[name]), bp[name]((help.window(bp.matrix(points, dtype)))), tolerance)
        close(reference[name](points[2]), bp[name]((help.window(bp.vector(points[2], dtype)))), tolerance)
        assert.equal(dtype, bp[name](bp.vector(points[1], dtype)):dtype())
        assert.equal("0x3", help.shape(bp[name](bp.zeros(0, 3, dtype))))
        raises("bp." .. name, bp[name], bp.zeros(0, dtype)) -- no elements, nothing that adds up to 1
        raises("bp." .. name, bp[name], bp.zeros(2, 0, dtype))
        same({ name == "softmax" and 1 or 0 }, bp[name](bp.vector({ 7 }, dtype)))
      end
    end)

    it("their pullbacks, " .. dtype, function()
      local c = { 0.3, -1, 2 }
      for _, x in ipairs(points) do
        local s = reference.softmax(x)
        local along, total = reference.dot(s, c), reference.sum(c)
        local _, soft <close> = bp.vjp(bp.softmax, bp.vector(x, dtype))
        close(each(s, function(p, j) return p * (c[j] - along) end), soft(bp.vector(c, dtype)), tolerance)
        local _, log_soft <close> = bp.vjp(bp.log_softmax, bp.vector(x, dtype))
        close(each(s, function(p, j) return c[j] - p * total end), log_soft(bp.vector(c, dtype)), tolerance)
      end
    end)

    it("softmax_cross_entropy with a distribution of any sum, " .. dtype, function()
      for _, target in ipairs{ { 0, 1, 0 }, { 0.2, 0.3, 0.5 }, { 1, 2, 0.5 }, { 0, 0, 0 } } do
        local total = reference.sum(target)
        local function slope(x) return each(reference.softmax(x), function(p, j) return p * total - target[j] end) end
        for _, x in ipairs(points) do
          local value, g = bp.value_and_grad(bp.softmax_cross_entropy)(bp.vector(x, dtype), bp.vector(target, dtype))
          close(reference.cross_entropy(x, target), value, tolerance)
          assert.equal("float", math.type(value))
          close(slope(x), g, tolerance)
        end
        local targets = each(points, function() return target end)
        local rows = bp.matrix(targets, dtype)
        local value, g = bp.value_and_grad(bp.softmax_cross_entropy)(bp.matrix(points, dtype), rows)
        close(reference.sum(each(points, function(x) return reference.cross_entropy(x, target) end)) / #points, value,
          tolerance)
        close(each(points, function(x) return each(slope(x), function(d) return d / #points end) end), g, tolerance)
      end
    end)

    it("softmax_cross_entropy with class numbers, " .. dtype, function()
      local classes = { 3, 1, 2, 2 }
      local hot = each(classes, function(c) return each({ 1, 2, 3 }, function(j) return j == c and 1 or 0 end) end)
      local m = bp.matrix(points, dtype)
      local value, g = bp.value_and_grad(bp.softmax_cross_entropy)(m, bp.matrix(hot, dtype))
      for _, target in ipairs{ classes, bp.vector(classes), bp.vector(classes, "f32") } do
        local v, d = bp.value_and_grad(function(x) return bp.softmax_cross_entropy(x, target) end)(m)
        close(value, v, tolerance)
        close(g, d, tolerance)
      end
      local tracked = bp.grad(function(x, c) return bp.softmax_cross_entropy(x, c) end, { wrt = { 1, 2 } })
      close({ g, { 0, 0, 0, 0 } }, { tracked(m, bp.vector(classes)) }, tolerance)
      for c = 1, 3 do
        local logits = bp.vector(points[1], dtype)
        local v, d = bp.value_and_grad(function(x) return bp.softmax_cross_entropy(x, c) end)(logits)
        close(-reference.log_softmax(points[1])[c], v, tolerance)
        close(each(reference.softmax(points[1]), function(p, j) return p - (j == c and 1 or 0) end), d, tolerance)
      end
    end)

    it("P25: at +-1000 and -inf, " .. dtype, function()
      local x = { 1000, -1000, 0 }
      same({ 1, 0, 0 }, bp.softmax(bp.vector(x, dtype)))
      same({ 0, -2000, -1000 }, bp.log_softmax(bp.vector(x, dtype)))
      same({ 1, 0, 0 }, bp.softmax(bp.vector({ 5, -inf, -inf }, dtype)))
      same({ 0, -inf }, bp.log_softmax(bp.vector({ 5, -inf }, dtype)))
      close(1000 + math.log(2), bp.logsumexp(bp.vector({ 1000, 1000, -1000 }, dtype)), tolerance)
      close(-1000, bp.logsumexp(bp.vector({ -1000, -inf, -3000 }, dtype)), tolerance)
      same({ -inf, inf }, { bp.logsumexp(bp.full(-inf, 2, dtype)), bp.logsumexp(bp.vector({ 1, inf }, dtype)) })
      same({ 1, 0 }, bp.grad(bp.logsumexp)(bp.vector({ 3, -inf }, dtype)))
      close({ 0.5, 0.5, 0 }, bp.grad(bp.logsumexp)(bp.vector({ 1000, 1000, -1000 }, dtype)), 1e-12)
      same({ 0, 0, 0 }, bp.grad(bp.softmax)(bp.vector(x, dtype)))
      same({ -2, 1, 1 }, bp.grad(bp.log_softmax)(bp.vector(x, dtype)))
      for _, case in ipairs{
        { x, { 0, 1, 0 }, 2000, { 1, -1, 0 } }, { x, { 1, 0, 0 }, 0, { 0, 0, 0 } },
        { { 0, -inf }, { 1, 0 }, 0, { 0, 0 } }, { { 0, -inf }, { 0, 1 }, inf, { 1, -1 } },
      } do
        local target = bp.vector(case[2], dtype)
        local value, g = bp.value_and_grad(bp.softmax_cross_entropy)(bp.vector(case[1], dtype), target)
        same(case[3], value)
        same(case[4], g)
      end
      local value, g = bp.value_and_grad(function(l) return bp.softmax_cross_entropy(l, 2) end)(bp.vector(x, dtype))
      same(2000, value)
      same({ 1, -1, 0 }, g)
    end)

    it("P25: the plain log of softmax has finite gradients, " .. dtype, function()
      local target = bp.vector({ 0, 1, 0 }, dtype)
      local function loss(x) return -bp.dot(target, bp.log(bp.softmax(x))) end
      close({ 1, -1, 0 }, bp.grad(loss)(bp.vector({ 1000, -1000, 0 }, dtype)), tolerance)
      close(each(reference.softmax(points[2]), function(p, j) return p - (j == 2 and 1 or 0) end),
        bp.grad(loss)(bp.vector(points[2], dtype)), tolerance)
    end)

    it("sigmoid_cross_entropy of single logits, " .. dtype, function()
      for _, x in ipairs{ -2, 0.5, 3 } do
        for _, t in ipairs{ 0, 0.25, 1 } do
          local expected, slope = math.log(1 + math.exp(x)) - t * x, reference.sigmoid(x) - t
          local value, g = bp.value_and_grad(bp.sigmoid_cross_entropy)(bp.vector({ x }, dtype), bp.vector({ t }, dtype))
          close(expected, value, tolerance)
          close(slope, g[1], tolerance)
          assert.equal("float", math.type(value))
        end
      end
      -- several logits are summed; of a batch the mean over its rows
      local logits, targets = { -2, 0.5, 3 }, { 0.25, 1, 0 }
      local terms = each(logits, function(x, i) return math.log(1 + math.exp(x)) - targets[i] * x end)
      local slopes = each(logits, function(x, i) return reference.sigmoid(x) - targets[i] end)
      local value, g = bp.value_and_grad(bp.sigmoid_cross_entropy)(bp.vector(logits, dtype), bp.vector(targets, dtype))
      close(reference.sum(terms), value, tolerance)
      close(slopes, g, tolerance)
      value, g = bp.value_and_grad(bp.sigmoid_cross_entropy)(
        bp.matrix({ logits, logits }, dtype), bp.matrix({ targets, targets }, dtype))
      close(reference.sum(terms), value, tolerance)
      local halves = each(slopes, function(d) return d / 2 end)
      close({ halves, halves }, g, tolerance)
      for _, case in ipairs{ { 1000, 1, 0, 0 }, { 1000, 0, 1000, 1 }, { -1000, 1, 1000, -1 }, { -1000, 0, 0, 0 } } do
        value, g = bp.value_and_grad(bp.sigmoid_cross_entropy)(
          bp.vector({ case[1] }, dtype), bp.vector({ case[2] }, dtype))
        same({ case[3], case[4] }, { value, g[1] })
      end
    end)
  end

  it("P29: log of softmax is the plain composition where both are fine, also where softmax is used again", function()
    local function logarithm(x) return math.log(x) end
    for _, x in ipairs(points) do
      local s = reference.softmax(x)
      close(each(s, logarithm), bp.log(bp.softmax(bp.vector(x))), 1e-12)
      local function twice(v) -- entropy: sum s log s, whose gradient needs both uses
        local p = bp.softmax(v)
        return bp.sum(p * bp.log(p))
      end
      local value, g = bp.value_and_grad(twice)(bp.vector(x))
      local entropy = reference.dot(s, each(s, logarithm))
      close(entropy, value, 1e-12)
      close(each(s, function(p) return p * (math.log(p) - entropy) end), g, 1e-12)
    end
  end)

  it("P29: the pattern is for a softmax that nothing else uses; otherwise it is the plain composition to the last bit",
    function()
      local x, w = bp.rng(1):normal(0, 2, 20), bp.rng(2):normal(0, 1, 20)
      -- The logarithm of a view is never taken for the pattern.
      local function hidden(s) return bp.log(bp.reshape(s, 20)) end
      local function alone(log) return function(v) return bp.dot(log(bp.softmax(v)), w) end end
      local function shared(log)
        return function(v)
          local s = bp.softmax(v)
          local other = bp.dot(s * s, w)
          return bp.dot(log(s), w) + other
        end
      end
      local function gradient(f) return bp.grad(f)(x):totable() end
      assert.are_not.same(gradient(alone(hidden)), gradient(alone(bp.log))) -- or the line below could not fail
      assert.are.same(gradient(shared(hidden)), gradient(shared(bp.log)))
    end)

  it("P28: do not hide a NaN", function()
    for _, name in ipairs{ "softmax", "log_softmax" } do
      same({ nan, nan, nan }, bp[name](bp.vector{ 1, nan, 2 }))
      same({ nan, nan }, bp[name](bp.matrix{ { 1, nan }, { 1, 1 } })[1])
      assert.is_true(bp[name](bp.matrix{ { 1, nan }, { 1, 1 } })[2][1] == bp[name](bp.vector{ 1, 1 })[1])
    end
    same(nan, bp.softmax_cross_entropy(bp.vector{ 1, nan }, bp.vector{ 1, 0 }))
    same(nan, bp.softmax_cross_entropy(bp.vector{ 1, nan }, 1))
    same(nan, bp.sigmoid_cross_entropy(bp.vector{ nan }, bp.vector{ 1 }))
  end)

  it("P30: refuse targets that do not fit", function()
    local v, m = bp.zeros(3), bp.zeros(2, 3)
    for _, target in ipairs{ bp.zeros(2), bp.zeros(1, 3), 0, 4, -1, 1.5, nan, "1", { 1, 2 }, {}, bp.zeros(3, "f32") } do
      raises("bp.softmax_cross_entropy", bp.softmax_cross_entropy, v, target)
    end
    for _, target in ipairs{ bp.zeros(3, 2), bp.zeros(3), { 1 }, { 1, 2, 3 }, { 1, 4 }, { 0, 1 }, { 1, 1.5 },
      { 1, "x" }, bp.vector{ 1, 4 }, bp.vector{ 0, 1 }, bp.vector{ 1, 1.5 }, bp.vector{ 1, nan },
      bp.zeros(2, 3, "f32") } do
      raises("bp.softmax_cross_entropy", bp.softmax_cross_entropy, m, target)
    end
    raises("bp.softmax_cross_entropy", bp.softmax_cross_entropy, v)
    raises("bp.sigmoid_cross_entropy", bp.sigmoid_cross_entropy, v, bp.zeros(2))
    raises("bp.sigmoid_cross_entropy", bp.sigmoid_cross_entropy, v)
    raises({ "bp.sigmoid_cross_entropy", "astype" }, bp.sigmoid_cross_entropy, v, bp.zeros(3, "f32"))
    for _, bad in ipairs{ "x", {}, true } do
      raises("bp.softmax", bp.softmax, bad)
      raises("bp.log_softmax", bp.log_softmax, bad)
    end
  end)
end)

describe("adjoints at the ends of the range", function()
  local function relative(expected, actual, tolerance, what)
    for i, value in ipairs(expected) do
      local found = actual[i]
      local fine = found == value or math.abs(found - value) <= tolerance * math.abs(value)
      assert(fine, ("%s: element %d: expected %.17g, got %.17g"):format(what, i, value, found))
    end
  end

  local products = {
    { { 1e-200, 1e-200, 3 }, { 3e-200, 3e-200, 0 } }, { { 1e-160, 1e-160, 1e10 }, { 1e-150, 1e-150, 1e-320 } },
    { { 1e200, 1e200, 1e-300 }, { 1e-100, 1e-100, inf } }, { { 1e-200, 1e-200, 1e200 }, { 1, 1, 0 } },
    { { inf, 2 }, { 2, inf } }, { { -inf, 2, -inf }, { -inf, inf, -inf } }, { { 0, inf }, { inf, 0 } },
    { { 0, 0, 1e200, 1e200 }, { 0, 0, 0, 0 } }, { { 0, 1e200, 1e200, 1e-300 }, { 1e100, 0, 0, 0 } },
    { { 2, 3, 0 }, { 0, 0, 6 } },
  }

  it("of a product that no double holds are the products of the others", function()
    for _, case in ipairs(products) do
      local x, expected = table.unpack(case)
      local text = table.concat(x, ", ")
      relative(expected, bp.grad(bp.prod)(bp.vector(x)), 1e-12, text)
      local rows = bp.stack{ bp.vector(x), bp.ones(#x), bp.vector(x) }
      local g = bp.grad(function(m) return bp.prod(m, 2) end)(rows)
      local h = bp.grad(function(m) return bp.prod(m, 1) end)(bp.transpose(rows):clone())
      for i = 1, 3, 2 do
        relative(expected, g[i], 1e-12, text)
        relative(expected, bp.column(h, i), 1e-12, text)
      end
      same(bp.ones(#x):totable(), g[2])
      same(bp.ones(#x):totable(), bp.column(h, 2))
      local into = bp.ones(#x) -- added to what is there
      bp.grad(function(v) return bp.sum(v) + bp.prod(v) end, { into = into })(bp.vector(x))
      for i = 1, #x do expected[i] = expected[i] + 1 end
      relative(expected, into, 1e-12, text)
    end
    assert(bp.grad(bp.prod)(bp.vector{ nan, 2 })[2] ~= 0)
  end)

  it("of a norm are cotangent times x / norm where cotangent / norm is none", function()
    for _, case in ipairs{
      { 1e10, { 3e-30, 4e-30 }, "f32", { 6e9, 8e9 } }, { 1e-8, { 3e37, 4e37 }, "f32", { 6e-9, 8e-9 } },
      { 1e-6, { 1e38, 1e38 }, "f32", { 1e-6 / 2 ^ 0.5, 1e-6 / 2 ^ 0.5 } },
      { 1e10, { 3e-300, 4e-300 }, "f64", { 6e9, 8e9 } }, { 1, { 3e-310, 4e-310 }, "f64", { 0.6, 0.8 } },
    } do
      local scale, x, dtype, expected = table.unpack(case)
      local g = bp.grad(function(v) return scale * bp.norm(v) end)(bp.vector(x, dtype))
      relative(expected, g, dtype == "f32" and 1e-6 or 1e-10, ("%g in %s"):format(x[1], dtype))
    end
  end)

  it("of a logsumexp add up to one, however large it is", function()
    for _, dtype in ipairs{ "f64", "f32" } do
      for _, size in ipairs{ 10, 1e3, 1e4, 1e7, dtype == "f64" and 1e17 or 1e10 } do
        for _, sign in ipairs{ 1, -1 } do
          local v = bp.vector({ sign * size, sign * size }, dtype)
          close({ 0.5, 0.5 }, bp.grad(bp.logsumexp)(v), 1e-7)
          local m = bp.stack{ v, v, v }
          close({ { 0.5, 0.5 }, { 0.5, 0.5 }, { 0.5, 0.5 } },
            bp.grad(function(x) return bp.logsumexp(x, 2) end)(m), 1e-7)
          close({ { 1 / 3, 1 / 3 }, { 1 / 3, 1 / 3 }, { 1 / 3, 1 / 3 } },
            bp.grad(function(x) return bp.logsumexp(x, 1) end)(m), 1e-7)
        end
      end
    end
    local wide = bp.linspace(1e4, 1e4 + 3, 700)
    close(1, bp.sum(bp.grad(bp.logsumexp)(wide)), 1e-13)
  end)

  it("and the cross entropy of large logits is that of their differences", function()
    local v = bp.vector{ 1e15 + 1, 1e15 }
    local expected = math.log(1 + math.exp(-1))
    for _, target in ipairs{ 1, bp.vector{ 1, 0 } } do
      close(expected, bp.softmax_cross_entropy(v, target), 1e-14)
      close(expected, bp.softmax_cross_entropy(bp.stack{ v, v },
        target == 1 and { 1, 1 } or bp.stack{ target, target }), 1e-14)
    end
    close(math.log(2), bp.softmax_cross_entropy(bp.vector{ 1e17, 1e17 }, 1), 1e-14)
    close({ expected, expected + 1 }, bp.grad(bp.softmax_cross_entropy, { wrt = { 2 } })(v, bp.vector{ 1, 0 }), 1e-14)
  end)
end)
