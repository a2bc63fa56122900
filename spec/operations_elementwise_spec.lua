-- The element-wise operations: values and derivatives of numbers, vectors and matrices against plain Lua formulas, in
-- both dtypes, and how they treat ties, extremes, zero points, infinities and NaN. Tolerances, relative to
-- max(1, |x|): 1e-13 in f64, 2e-6 in f32 (about 16 units in the last place), unless another is given.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"
local reference = require "support.reference"

local close, same, raises = help.close, help.same, help.raises
local nan, inf = help.nan, help.inf
local each = reference.each
local tolerances = { f64 = 1e-13, f32 = 2e-6 }

-- Value of f at a number or vector, and its gradient with every element's cotangent 1.
local function with_slope(f, x)
  return bp.value_and_grad(f)(x)
end

-- The gradient at x of the sum of f, where x is a list of numbers: a list.
local function slopes(f, list, dtype)
  return select(2, with_slope(f, bp.vector(list, dtype))):totable()
end

describe("element-wise", function()
  for name, row in pairs(reference.elementwise) do
    for _, further in ipairs(row.arguments or { {} }) do
      local function operation(x) return bp[name](x, table.unpack(further)) end
      local function value(x) return row.f(x, table.unpack(further)) end
      local function slope(x) return row.d(x, table.unpack(further)) end
      local title = ("%s(%s)"):format(name, table.concat({ "x", table.unpack(further) }, ", "))

      it(title .. " of numbers", function()
        for _, x in ipairs(row.points) do
          close(value(x), operation(x), 1e-13)
          assert.equal("float", math.type(operation(x)))
          local y, g = with_slope(operation, x)
          close(value(x), y, 1e-13)
          close(slope(x), g, 1e-13)
          assert.equal("float", math.type(g))
        end
        assert.equal("float", math.type(operation(1)))
      end)

      for _, dtype in ipairs(help.dtypes) do
        local points = help.astype(row.points, dtype)
        local expected, expected_slopes = each(points, value), each(points, slope)
        local tolerance = tolerances[dtype]

        it(("%s of %s vectors, matrices and windows"):format(title, dtype), function()
          local v = bp.vector(points, dtype)
          local y, g = with_slope(operation, v)
          close(expected, operation(v), tolerance)
          close(expected_slopes, g, tolerance)
          same(operation(v), y)
          assert.same({ dtype, dtype }, { y:dtype(), g:dtype() })
          same(points, v) -- the operand is as it was

          y, g = with_slope(operation, bp.matrix({ points, points, points }, dtype))
          close({ expected, expected, expected }, y, tolerance)
          close({ expected_slopes, expected_slopes, expected_slopes }, g, tolerance)

          y, g = with_slope(operation, (help.window(v)))
          close(expected, y, tolerance)
          close(expected_slopes, g, tolerance)
          y, g = with_slope(function(m) return operation(bp.column(m, 2)) end, bp.transpose(bp.stack{ v, v, v }))
          close(expected, y, tolerance)
          close(each(expected_slopes, function(d) return { 0, d, 0 } end), g, tolerance)
        end)
      end

      it("P30: " .. title .. " of every length, none too", function()
        for _, dtype in ipairs(help.dtypes) do
          for n = 0, 35 do
            local list = {}
            for i = 1, n do list[i] = row.points[i % #row.points + 1] end
            list = help.astype(list, dtype)
            local y, g = with_slope(operation, bp.vector(list, dtype))
            close(each(list, value), y, tolerances[dtype])
            close(each(list, slope), g, tolerances[dtype])
          end
          for _, shape in ipairs{ { 0, 3 }, { 3, 0 }, { 1, 1 } } do
            local y, g = with_slope(operation, bp.full(row.points[1], shape[1], shape[2], dtype))
            assert.equal(("%dx%d"):format(table.unpack(shape)), help.shape(y))
            assert.equal(("%dx%d"):format(table.unpack(shape)), help.shape(g))
          end
        end
      end)

      it("P28: " .. title .. " does not hide a NaN", function()
        same(nan, operation(nan))
        for _, dtype in ipairs(help.dtypes) do
          for n = 1, 20 do
            local v = bp.full(row.points[1], n, dtype)
            v[n] = nan
            same(nan, operation(v)[n])
          end
        end
      end)
    end

    it("P30: bp." .. name .. " refuses what is not a number or an array", function()
      for _, bad in ipairs{ "x", "1", true, {}, print } do
        raises("bp." .. name, bp[name], bad, table.unpack(row.arguments and row.arguments[1] or {}))
      end
      raises("bp." .. name, bp[name])
    end)
  end

  it("keeps small numbers exact: expm1, log1p, and others of order x", function()
    for _, x in ipairs{ 1e-5, -1e-8, 1e-12, 1e-18, 1e-300 } do
      for _, name in ipairs{ "expm1", "log1p", "sin", "tan", "asin", "atan", "sinh", "tanh" } do
        local single, exact = bp[name](x), x
        if name == "expm1" then exact = x + x * x / 2 end
        if name == "log1p" then exact = x - x * x / 2 end
        if math.abs(x) < 1e-7 or name == "expm1" or name == "log1p" then
          assert.is_true(math.abs(single - exact) <= 1e-10 * math.abs(x), ("%s(%g) is %.17g"):format(name, x, single))
          single = bp[name](bp.vector{ x, x, x, x, x })[5]
          assert.is_true(math.abs(single - exact) <= 1e-10 * math.abs(x), ("%s{%g} is %.17g"):format(name, x, single))
        end
      end
    end
  end)

  it("reduces large arguments of sin and cos rightly", function()
    for _, x in ipairs{ 100, 1e3, -1e5, 1e8, 1e15 } do
      close(math.sin(x), bp.sin(x), 1e-12)
      close(math.sin(x), bp.sin(bp.vector{ x })[1], 1e-12)
      close(math.cos(x), bp.cos(bp.vector{ x })[1], 1e-12)
    end
    for _, x in ipairs{ 100, 1e3, -65536, 2 ^ 24 } do
      close(math.sin(x), bp.sin(bp.vector({ x }, "f32"))[1], 1e-6)
      close(math.cos(x), bp.cos(bp.vector({ x }, "f32"))[1], 1e-6)
    end
  end)
end)

describe("binary element-wise", function()
  for name, row in pairs(reference.binary) do
    it(name .. " of numbers, vectors and matrices, with both derivatives", function()
      local operation, both = bp[name], { wrt = { 1, 2 } }
      local xs, ys = each(row.points, function(p) return p[1] end), each(row.points, function(p) return p[2] end)
      local function at(f) return each(row.points, function(p) return f(p[1], p[2]) end) end
      for _, p in ipairs(row.points) do
        close(row.f(p[1], p[2]), operation(p[1], p[2]))
        local dx, dy = bp.grad(operation, both)(p[1], p[2])
        close({ row.dx(p[1], p[2]), row.dy(p[1], p[2]) }, { dx, dy })
      end
      for _, dtype in ipairs(help.dtypes) do
        local tolerance = tolerances[dtype]
        local x, y = bp.vector(xs, dtype), bp.vector(ys, dtype)
        local value, dx, dy = bp.value_and_grad(operation, both)(x, y)
        close(at(row.f), value, tolerance)
        close({ at(row.dx), at(row.dy) }, { dx:totable(), dy:totable() }, tolerance)
        -- a vector over the rows of a matrix: its gradient is summed
        value, dx, dy = bp.value_and_grad(operation, both)(bp.matrix({ xs, xs }, dtype), y)
        close({ at(row.f), at(row.f) }, value, tolerance)
        close({ at(row.dx), at(row.dx) }, dx, tolerance)
        close(each(at(row.dy), function(d) return 2 * d end), dy, tolerance)
        -- a number over a vector, on either side
        local p = row.points[1]
        value, dx, dy = bp.value_and_grad(operation, both)(bp.full(p[1], 3, dtype), p[2])
        close({ row.f(table.unpack(p)), row.f(table.unpack(p)), row.f(table.unpack(p)) }, value, tolerance)
        close(row.dx(table.unpack(p)), dx[3], tolerance)
        close(3 * row.dy(table.unpack(p)), dy, tolerance)
        value, dx, dy = bp.value_and_grad(operation, both)(p[1], bp.full(p[2], 3, dtype))
        close(row.f(table.unpack(p)), value[3], tolerance)
        close(3 * row.dx(table.unpack(p)), dx, tolerance)
        close(row.dy(table.unpack(p)), dy[1], tolerance)
      end
      raises({ "bp." .. name, "2", "3" }, operation, bp.zeros(2), bp.zeros(3))
      raises({ "bp." .. name, "astype" }, operation, bp.zeros(2), bp.zeros(2, "f32"))
      raises("bp." .. name, operation, bp.zeros(2))
      raises("bp." .. name, operation, bp.zeros(2), "1")
    end)
  end

  it("where selects, element by element", function()
    for _, dtype in ipairs(help.dtypes) do
      local cond = bp.vector({ 1, 0, 1 }, dtype)
      local a, b = bp.vector({ 1, 2, 3 }, dtype), bp.vector({ 10, 20, 30 }, dtype)
      local function f(x, y) return bp.where(cond, x, y) end
      local value, da, db = bp.value_and_grad(f, { wrt = { 1, 2 } })(a, b)
      same(bp.vector({ 1, 20, 3 }, dtype), value)
      same(bp.vector({ 1, 0, 1 }, dtype), da)
      same(bp.vector({ 0, 1, 0 }, dtype), db)
      value, da, db = bp.value_and_grad(f, { wrt = { 1, 2 } })(a, 7)
      same({ 1, 7, 3 }, value)
      same({ 1, 0, 1 }, da)
      assert.equal(1, db)
      same({ 5, 20, 5 }, bp.where(cond, 5, b))
      local m = bp.matrix({ { 1, 2, 3 }, { 4, 5, 6 } }, dtype)
      same({ { 1, 20, 3 }, { 4, 20, 6 } }, bp.where(bp.greater(m, 0) * cond, m, b))
    end
    assert.equal(2, bp.where(1, 2, 3))
    assert.equal(3, bp.where(0, 2, 3))
    raises("bp.where", bp.where, bp.zeros(2), bp.zeros(3), bp.zeros(3))
    raises("bp.where", bp.where, bp.zeros(2), bp.zeros(2), bp.zeros(3))
    raises("bp.where", bp.where, bp.zeros(2), bp.zeros(2))
    raises({ "bp.where", "astype" }, bp.where, bp.zeros(2), bp.zeros(2), bp.zeros(2, "f32"))
  end)
end)

describe("P24: where and clamp select, they never multiply by 0:", function()
  it("infinity and NaN in the branch not taken", function()
    for _, dtype in ipairs(help.dtypes) do
      local cond = bp.vector({ 1, 0, 1, 0 }, dtype)
      local bad, good = bp.vector({ 1, inf, 2, nan }, dtype), bp.vector({ nan, 3, inf, 4 }, dtype)
      local function f(x, y) return bp.where(cond, x, y) end
      local value, da, db = bp.value_and_grad(f, { wrt = { 1, 2 } })(bad, good)
      same({ 1, 3, 2, 4 }, value)
      same({ 1, 0, 1, 0 }, da)
      same({ 0, 1, 0, 1 }, db)
    end
  end)

  it("a cotangent of infinity or NaN goes to the branch taken only", function()
    local cond = bp.vector{ 1, 0 }
    local _, pullback <close> = bp.vjp(function(x, y) return bp.where(cond, x, y) end, bp.ones(2), bp.ones(2))
    local da, db = pullback(bp.vector{ inf, nan })
    same({ inf, 0 }, da)
    same({ 0, nan }, db)
    local _, clamped <close> = bp.vjp(function(x) return bp.clamp(x, 0, 1) end, bp.vector{ -5, 0.5, 9 })
    same({ 0, inf, 0 }, clamped(bp.vector{ nan, inf, inf }))
    local _, rectified <close> = bp.vjp(bp.relu, bp.vector{ -5, 5 })
    same({ 0, nan }, rectified(bp.vector{ nan, nan }))
  end)

  it("where over the values of log and of a quotient", function()
    local x = { -2, -1, 2, 4 }
    local function safe_log(v) return bp.where(bp.greater(v, 0), bp.log(v), 0) end
    local value, g = with_slope(safe_log, bp.vector(x))
    close({ 0, 0, math.log(2), math.log(4) }, value)
    close({ 0, 0, 0.5, 0.25 }, g)
    local function safe_quotient(v) return bp.where(bp.greater(v, 0), 1 / v, 0) end
    close({ 0, 0, -0.25, -0.0625 }, select(2, with_slope(safe_quotient, bp.vector(x))))
  end)

  for _, dtype in ipairs(help.dtypes) do
    it("clamp(exp(x)) and where over sqrt, whose slopes are infinite, " .. dtype, function()
      same({ 0, 0 }, slopes(function(x) return bp.clamp(bp.exp(x), 0, 10) end, { 1000, inf }, dtype))
      same({ 0 }, slopes(function(x) return bp.where(bp.greater(x, 0), bp.sqrt(x), 0) end, { 0 }, dtype))
    end)

    it("the same with the other rules of infinite slope, " .. dtype, function()
      same({ 0 }, slopes(function(x) return bp.where(bp.greater(x, 0), bp.log(x), 0) end, { 0 }, dtype))
      same({ 0 }, slopes(function(x) return bp.where(bp.greater(x, 0), 1 / x, 0) end, { 0 }, dtype))
      same({ 0 }, slopes(function(x) return bp.where(bp.greater(x, 0), bp.reciprocal(x), 0) end, { 0 }, dtype))
      same({ 0 }, slopes(function(x) return bp.minimum(bp.exp(x), 10) end, { 1000 }, dtype))
      same({ 0 }, slopes(function(x) return bp.clamp(bp.cosh(x), 0, 10) end, { 1000 }, dtype))
    end)
  end

  it("clamp(exp(x)) of a number", function()
    local y, g = with_slope(function(x) return bp.clamp(bp.exp(x), 0, 10) end, 1000.0)
    same({ 10, 0 }, { y, g })
  end)
end)

describe("P25: extreme inputs have exact limits and finite gradients:", function()
  -- name, x, value, slope
  local limits = {
    { "sigmoid", 1000, 1, 0 }, { "sigmoid", -1000, 0, 0 }, { "sigmoid", inf, 1, 0 }, { "sigmoid", -inf, 0, 0 },
    { "softplus", 1000, 1000, 1 }, { "softplus", -1000, 0, 0 }, { "softplus", inf, inf, 1 },
    { "softplus", -inf, 0, 0 }, { "tanh", 1000, 1, 0 }, { "tanh", -1000, -1, 0 }, { "tanh", inf, 1, 0 },
    { "tanh", -inf, -1, 0 }, { "exp", -1000, 0, 0 }, { "exp", -inf, 0, 0 }, { "exp", inf, inf, inf },
    { "exp", 1000, inf, inf }, { "expm1", -1000, -1, 0 }, { "silu", 1000, 1000, 1 }, { "silu", -1000, 0, 0 },
    { "gelu", 1000, 1000, 1 }, { "gelu", -1000, 0, 0 }, { "elu", 1000, 1000, 1 }, { "elu", -1000, -1, 0 },
    { "elu", inf, inf, 1 }, { "elu", -inf, -1, 0 }, { "relu", inf, inf, 1 }, { "relu", -inf, 0, 0 },
    { "leaky_relu", 1000, 1000, 1 }, { "log", inf, inf, 0 }, { "log1p", inf, inf, 0 }, { "sqrt", inf, inf, 0 },
    { "atan", 1e30, math.pi / 2, 0 }, { "atan", -inf, -math.pi / 2, 0 }, { "reciprocal", inf, 0, 0 },
    { "abs", -inf, inf, -1 }, { "sign", -inf, -1, 0 }, { "sign", inf, 1, 0 },
  }
  for _, limit in ipairs(limits) do
    local name, x, y, slope = table.unpack(limit)
    it(("%s at %g"):format(name, x), function()
      local value, g = with_slope(bp[name], x + 0.0)
      close({ y, slope }, { value, g }, 1e-15)
      for _, dtype in ipairs(help.dtypes) do
        local values, gs = with_slope(bp[name], bp.full(x, 9, dtype))
        for i = 1, 9 do close({ y, slope }, { values[i], gs[i] }, dtype == "f64" and 1e-15 or 1e-7) end
      end
    end)
  end

  it("the two halves of sigmoid and softplus keep their small tails", function()
    for _, x in ipairs{ 20, 50, 300, 700 } do
      local tail = math.exp(-x)
      for _, got in ipairs{ bp.sigmoid(-x), bp.softplus(-x), bp.sigmoid(bp.vector{ -x })[1],
        bp.softplus(bp.vector{ -x })[1], bp.grad(bp.sigmoid)(-x) } do
        assert.is_true(math.abs(got - tail) <= 1e-8 * tail, ("%g at %g"):format(got, -x))
      end
    end
  end)

  it("f32 logistic functions below -100", function()
    for _, x in ipairs{ -80, -100, -150, -1e30 } do
      local value, g = with_slope(bp.sigmoid, bp.vector({ x, x, x, x, x }, "f32"))
      close({ 0, 0, 0, 0, 0 }, value, 1e-30)
      close({ 0, 0, 0, 0, 0 }, g, 1e-30)
    end
  end)

  it("outside the domain there is NaN, not a number made up", function()
    for _, case in ipairs{ { "log", -1 }, { "sqrt", -1 }, { "asin", 1.5 }, { "acos", -1.5 }, { "log1p", -2 },
      { "sin", inf }, { "cos", -inf }, { "tan", inf } } do
      same(nan, bp[case[1]](case[2]))
      for _, dtype in ipairs(help.dtypes) do same({ nan, nan }, bp[case[1]](bp.full(case[2], 2, dtype))) end
    end
    same({ -inf, -inf, inf, -inf }, { bp.log(0), bp.log(bp.vector{ 0 })[1], bp.reciprocal(0), bp.log1p(-1) })
  end)
end)

describe("P26: ties and kinks:", function()
  for _, dtype in ipairs(help.dtypes) do
    it("relu, abs and sign have slope 0 at 0, " .. dtype, function()
      for _, name in ipairs{ "relu", "abs", "sign" } do
        local y, g = with_slope(bp[name], bp.vector({ 0, 0, -0.0 }, dtype))
        same({ 0, 0, 0 }, y)
        same({ 0, 0, 0 }, g)
      end
    end)

    it("minimum and maximum share a tie evenly, " .. dtype, function()
      local x = bp.vector({ 1, 2, -3, inf }, dtype)
      for _, name in ipairs{ "minimum", "maximum" } do
        local dx, dy = bp.grad(bp[name], { wrt = { 1, 2 } })(x, x:clone())
        same({ 0.5, 0.5, 0.5, 0.5 }, dx)
        same({ 0.5, 0.5, 0.5, 0.5 }, dy)
        same({ 1, 1, 1, 1 }, bp.grad(function(v) return bp[name](v, v) end)(x))
        same({ 0.5, 1, 0, 0 }, bp.grad(function(v) return bp.minimum(v, 1) end)(bp.vector({ 1, -1, 2, 3 }, dtype)))
      end
    end)

    it("clamp, leaky_relu and elu have the same slopes where their parameters are tracked, " .. dtype, function()
      local x = bp.vector({ -2, -1, -0.0, 0, 0.5, 1, 3 }, dtype)
      for _, case in ipairs{
        { bp.clamp, 0, 1 }, { bp.clamp, -1, 0 }, { bp.leaky_relu, 0.3 }, { bp.elu, 1 }, { bp.elu, 2.5 },
      } do
        local f, arguments = case[1], table.move(case, 2, #case, 1, {})
        local y, g = bp.value_and_grad(function(v) return f(v, table.unpack(arguments)) end)(x)
        local z, pullback <close> = bp.vjp(f, x, table.unpack(arguments))
        help.close(y, z, 1e-7)
        help.close(g, (pullback()), 1e-7)
        for k = 1, #x do
          help.close(y[k], f(x[k], table.unpack(arguments)), 1e-7)
          help.close(g[k], (bp.grad(f, { wrt = { 1, 2 } })(x[k], table.unpack(arguments))), 1e-7)
        end
      end
    end)

    it("a NaN shows in every slope that is made from it, " .. dtype, function()
      for _, f in ipairs{ bp.relu, bp.abs, bp.elu, bp.leaky_relu, function(x) return bp.clamp(x, 0, 1) end } do
        same({ nan, 1 }, bp.grad(f)(bp.vector({ nan, 0.5 }, dtype)))
        same(nan, bp.grad(f)(nan))
      end
    end)

    it("clamp passes the gradient at its bounds, " .. dtype, function()
      local y, g = with_slope(function(x) return bp.clamp(x, 0, 1) end, bp.vector({ -1, 0, 0.5, 1, 2 }, dtype))
      same({ 0, 0, 0.5, 1, 1 }, y)
      same({ 0, 1, 1, 1, 0 }, g)
    end)
  end

  it("of numbers", function()
    same({ 0, 0 }, { bp.grad(bp.relu)(0.0), bp.grad(bp.abs)(0.0) })
    same({ 0.5, 0.5 }, { bp.grad(bp.maximum, { wrt = { 1, 2 } })(2.0, 2.0) })
    assert.equal(1, bp.grad(function(x) return bp.clamp(x, -1, 1) end)(1.0))
  end)

  it("minimum and maximum do not hide a NaN on either side", function()
    for _, name in ipairs{ "minimum", "maximum" } do
      same({ nan, nan, nan }, bp[name](bp.vector{ nan, 1, nan }, bp.vector{ 1, nan, nan }))
      same({ nan, nan }, { bp[name](nan, 1), bp[name](1, nan) })
      same({ nan }, bp[name](bp.vector({ nan }, "f32"), 0))
    end
  end)
end)

describe("P27: zero points:", function()
  for _, dtype in ipairs(help.dtypes) do
    it("a cotangent of 0 does not hide a NaN that the slope is made from, " .. dtype, function()
      local nans, zeros = bp.full(nan, 9, dtype), bp.zeros(9, dtype)
      local all = nans:totable()
      for name in ("exp log log1p expm1 sqrt square abs relu sin cos tan asin acos atan sinh cosh tanh sigmoid " ..
        "softplus silu gelu elu reciprocal"):gmatch "%a[%a%d]*" do
        local _, pullback <close> = bp.vjp(bp[name], nans)
        same(all, pullback(zeros), name)
        local g = bp.grad(function(x) return bp[name](x) * 0 end)(nan)
        assert.is_true(g ~= g, name .. " of a number")
      end
      -- name, x, y, dx, dy
      for _, case in ipairs{
        { "mul", 1, nan, nan, 0 }, { "mul", nan, inf, 0, nan }, { "mul", inf, 1, 0, 0 }, { "add", nan, nan, 0, 0 },
        { "sub", nan, nan, 0, 0 }, { "div", 1, nan, nan, nan }, { "div", nan, 1, 0, nan }, { "div", 1, 0, 0, 0 },
        { "pow", nan, 2, nan, nan }, { "minimum", nan, 1, nan, nan }, { "maximum", 1, nan, nan, nan },
      } do
        local name, x, y, dx, dy = table.unpack(case)
        local _, pullback <close> = bp.vjp(bp[name], bp.full(x, 9, dtype), bp.full(y, 9, dtype))
        local gx, gy = pullback(zeros)
        same({ dx, dx, dx, dx, dx, dx, dx, dx, dx }, gx, name .. ", the first")
        same({ dy, dy, dy, dy, dy, dy, dy, dy, dy }, gy, name .. ", the second")
      end
    end)
  end

  it("sqrt has an infinite slope at 0, and 0 for a zero cotangent", function()
    for _, dtype in ipairs(help.dtypes) do
      local _, pullback <close> = bp.vjp(bp.sqrt, bp.vector({ 0, 0, 4 }, dtype))
      same({ inf, 0, 0.25 }, pullback(bp.vector({ 1, 0, 1 }, dtype)))
    end
    assert.equal(inf, bp.grad(bp.sqrt)(0.0))
    assert.equal(0, bp.grad(function(x) return bp.sqrt(x) * 0 end)(0.0))
  end)

  it("pow at a zero base", function()
    for _, dtype in ipairs(help.dtypes) do
      local x, y = bp.zeros(5, dtype), bp.vector({ 0, 1, 2, 3, 0.5 }, dtype)
      local value, dx, dy = bp.value_and_grad(bp.pow, { wrt = { 1, 2 } })(x, y)
      same({ 1, 0, 0, 0, 0 }, value)
      same({ 0, 1, 0, 0, inf }, dx)
      same({ 0, 0, 0, 0 }, bp.slice(dy, 2, 5))
    end
    same({ 0, 1, 0 }, { bp.grad(function(x) return x ^ 0 end)(0.0), bp.grad(function(x) return x ^ 1 end)(0.0),
      bp.grad(function(x) return x ^ 2 end)(0.0) })
    assert.equal(0, bp.grad(function(y) return 0 ^ y end)(2.0))
  end)

  it("pow of a negative base with a whole exponent", function()
    local value, g = with_slope(function(x) return x ^ 3 end, bp.vector{ -2, -0.5 })
    close({ -8, -0.125 }, value)
    close({ 12, 0.75 }, g)
    value, g = with_slope(function(x) return bp.pow(x, -1) end, bp.vector{ -2, 4 })
    close({ -0.5, 0.25 }, value)
    close({ -0.25, -0.0625 }, g)
  end)
end)
