-- Every SIMD level that this processor and build have computes the same: element-wise operations, reductions and
-- products against plain Lua formulas, for lengths around the widths of registers, windows and both dtypes. The other
-- specs run at the best level only. Tolerances, relative to max(1, |x|): 1e-12 in f64, 2e-6 in f32.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local core = require "backprop.core"
local help = require "support.helpers"
local reference = require "support.reference"

local close, same, each = help.close, help.same, reference.each
local tolerances = { f64 = 1e-12, f32 = 2e-6 }

local best, levels = core.simd(), {}
for _, level in ipairs{ "base", "avx2", "avx512" } do
  if pcall(core.simd, level) then levels[#levels + 1] = level end
end
core.simd(best)

-- n points of a row, over and over.
local function points_of(row, n, dtype)
  local list = {}
  for i = 1, n do list[i] = row.points[(i - 1) % #row.points + 1] end
  return help.astype(list, dtype)
end

describe("SIMD levels:", function()
  after_each(function() core.simd(best) end)

  it("there is at least the plain one, and an unknown one is refused", function()
    assert.truthy(levels[1])
    help.raises("sse9", core.simd, "sse9")
    assert.equal(best, core.simd())
  end)

  for _, level in ipairs(levels) do
    for _, dtype in ipairs(help.dtypes) do
      local tolerance = tolerances[dtype]

      -- Rows go in groups, elements in vectors, and both have a rest.
      it(("matrix times vector and its rank-1 update, of every small shape, %s, %s"):format(level, dtype), function()
        core.simd(level)
        local r = bp.rng(1)
        for rows = 0, 9 do
          for _, cols in ipairs{ 0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 23, 31, 33 } do
            local w, x, b = r:normal(0, 1, rows, cols, dtype), r:normal(0, 1, cols, dtype), r:normal(0, 1, rows, dtype)
            local plain_w, plain_x, plain_b = w:totable(), x:totable(), b:totable()
            local product, sum, stepped = {}, {}, {}
            for i = 1, rows do
              local dot = 0
              stepped[i] = {}
              for j = 1, cols do
                dot = dot + plain_w[i][j] * plain_x[j]
                stepped[i][j] = plain_w[i][j] - 0.5 * plain_b[i] * plain_x[j]
              end
              product[i], sum[i] = dot, dot + plain_b[i]
            end
            close(product, bp.matmul(w, x), 2 * tolerance)
            close(sum, bp.linear(x, w, b), 2 * tolerance)
            local function loss(p) return bp.dot(bp.matmul(p.w, x), b) end
            bp.optim.sgd{ lr = 0.5 }:minimize(loss, { w = w })
            close(stepped, w, tolerance)
          end
        end
      end)

      it(("element-wise operations, %s, %s"):format(level, dtype), function()
        core.simd(level)
        for name, row in pairs(reference.elementwise) do
          for _, further in ipairs(row.arguments or { {} }) do
            local function operation(x) return bp[name](x, table.unpack(further)) end
            for _, n in ipairs{ 1, 3, 8, 15, 16, 17, 33 } do
              local list = points_of(row, n, dtype)
              local value, g = bp.value_and_grad(operation)((help.window(bp.vector(list, dtype))))
              close(each(list, function(x) return row.f(x, table.unpack(further)) end), value, tolerance, name)
              close(each(list, function(x) return row.d(x, table.unpack(further)) end), g, tolerance, name)
            end
          end
        end
        for name, row in pairs(reference.binary) do
          for _, n in ipairs{ 1, 7, 16, 19 } do
            local points = points_of(row, n, "f64")
            local x, y = each(points, function(p) return p[1] end), each(points, function(p) return p[2] end)
            x, y = bp.vector(x, dtype), bp.vector(y, dtype)
            local value, dx, dy = bp.value_and_grad(bp[name], { wrt = { 1, 2 } })(x, y)
            close(each(points, function(p) return row.f(p[1], p[2]) end), value, tolerance, name)
            close(each(points, function(p) return row.dx(p[1], p[2]) end), dx, tolerance, name)
            close(each(points, function(p) return row.dy(p[1], p[2]) end), dy, tolerance, name)
          end
        end
      end)

      it(("slopes of asin and acos near 1, %s, %s"):format(level, dtype), function()
        core.simd(level)
        for _, x in ipairs{ 0.9, 0.9999, 0.999999, -0.99999 } do
          local v = bp.full(x, 19, dtype)
          local q = v[1]
          local slope = 1 / math.sqrt((1 - q) * (1 + q))
          close(bp.full(1, 19), bp.grad(bp.asin)(v):astype("f64") / slope, tolerance)
          close(bp.full(-1, 19), bp.grad(bp.acos)(v):astype("f64") / slope, tolerance)
          close(1, bp.grad(bp.asin)(x) * math.sqrt((1 - x) * (1 + x)), 1e-12)
        end
      end)

      it(("special numbers, %s, %s"):format(level, dtype), function()
        core.simd(level)
        local nan, inf = help.nan, help.inf
        for _, n in ipairs{ 1, 5, 19 } do
          for name, cases in pairs{
            exp = { [inf] = inf, [-inf] = 0, [1000] = inf, [-1000] = 0 }, log = { [0] = -inf, [-1] = nan, [inf] = inf },
            tanh = { [1000] = 1, [-1000] = -1, [inf] = 1, [-inf] = -1 }, sigmoid = { [1000] = 1, [-inf] = 0 },
            softplus = { [1000] = 1000, [-1000] = 0, [inf] = inf, [-inf] = 0 }, sqrt = { [-1] = nan, [inf] = inf },
            expm1 = { [-1000] = -1, [inf] = inf }, log1p = { [-1] = -inf, [-2] = nan, [inf] = inf },
            relu = { [-inf] = 0, [inf] = inf }, sin = { [inf] = nan, [0] = 0 }, cos = { [-inf] = nan, [0] = 1 },
            gelu = { [1000] = 1000, [-1000] = 0 }, silu = { [1000] = 1000, [-1000] = 0 },
            elu = { [inf] = inf, [-inf] = -1 }, atan = { [inf] = help.f32(math.pi / 2) },
          } do
            for x, y in pairs(cases) do
              close(y, bp[name](bp.full(x, n, dtype))[n], 1e-7, name)
            end
            same(nan, bp[name](bp.full(nan, n, dtype))[n], name)
          end
        end
      end)

      it(("reductions and softmax, %s, %s"):format(level, dtype), function()
        core.simd(level)
        for n = 1, 40 do
          local x = help.random_like(bp.zeros(n, dtype), n)
          local list = x:totable()
          for name, row in pairs(reference.reductions) do
            local value, g = bp.value_and_grad(bp[name])(x)
            close(row.f(list), value, tolerance, name)
            close(row.d(list), g, tolerance, name)
            close(row.f(list), bp[name]((help.window(x))), tolerance, name)
          end
          close(reference.softmax(list), bp.softmax(x), tolerance)
          close(reference.log_softmax(list), bp.log_softmax(x), tolerance)
          close(math.sqrt(reference.dot(list, list)), bp.norm(x), tolerance)
          close(reference.dot(list, list), bp.dot(x, (help.window(x))), tolerance)
          x[n] = help.nan
          for name in pairs(reference.reductions) do same(help.nan, bp[name](x), name) end
        end
      end)

      -- Short rows go in tiles, long ones alone; a row that is not finite leaves its neighbours as they are.
      it(("softmax of batches, %s, %s"):format(level, dtype), function()
        core.simd(level)
        for _, size in ipairs{ { 1, 10 }, { 2, 1 }, { 5, 10 }, { 33, 3 }, { 64, 10 }, { 35, 64 }, { 3, 65 },
          { 300, 2 } } do
          local rows, cols = table.unpack(size)
          local x = help.random_like(bp.zeros(rows, cols, dtype), rows, -5, 5)
          local target = help.random_like(bp.zeros(rows, cols, dtype), cols, 0, 1)
          local lists, targets, classes = x:totable(), target:totable(), {}
          for i = 1, rows do classes[i] = (i * 7) % cols + 1 end
          local p, weight = each(lists, reference.softmax), each(targets, reference.sum)
          local what = ("%dx%d"):format(rows, cols)
          close(p, bp.softmax(x), tolerance, what)
          close(each(lists, reference.log_softmax), bp.log_softmax((help.window(x))), tolerance, what)
          local function loss(y, t) return bp.softmax_cross_entropy(y, t) end
          local value, g = bp.value_and_grad(loss)((help.window(x)), target)
          local losses = each(lists, function(list, i) return reference.cross_entropy(list, targets[i]) end)
          close(reference.sum(losses) / rows, value, tolerance * 10, what)
          close(each(p, function(row, i)
            return each(row, function(s, j) return (weight[i] * s - targets[i][j]) / rows end)
          end), g, tolerance, what)
          value, g = bp.value_and_grad(loss)(x, classes)
          losses = each(lists, function(list, i) return -reference.log_softmax(list)[classes[i]] end)
          close(reference.sum(losses) / rows, value, tolerance * 10, what)
          close(each(p, function(row, i)
            return each(row, function(s, j) return (s - (j == classes[i] and 1 or 0)) / rows end)
          end), g, tolerance, what)
          g = bp.grad(function(y) return bp.sum(bp.softmax(y) * target) end)(x)
          close(each(p, function(row, i)
            local inner = reference.dot(row, targets[i])
            return each(row, function(s, j) return s * (targets[i][j] - inner) end)
          end), g, tolerance, what)
          g = bp.grad(function(y) return bp.sum(bp.log_softmax(y) * target) end)(x)
          close(each(p, function(row, i)
            return each(row, function(s, j) return targets[i][j] - weight[i] * s end)
          end), g, tolerance * 10, what)
          if rows > 2 and cols > 1 then
            x:set(1, 1, -help.inf)
            x:set(2, cols, help.nan)
            local y = bp.softmax(x)
            assert.equal(0, y:get(1, 1))
            same(help.nan, y:get(2, 1))
            close(p[3], y[3], tolerance, what)
          end
        end
      end)

      it(("products, %s, %s"):format(level, dtype), function()
        core.simd(level)
        for _, size in ipairs{ { 1, 1 }, { 3, 17 }, { 16, 16 }, { 20, 9 }, { 9, 35 } } do
          local a = help.random_like(bp.zeros(size[1], size[2], dtype), 1)
          local u, v = help.random_like(bp.zeros(size[2], dtype), 2), help.random_like(bp.zeros(size[1], dtype), 3)
          local rows, columns = a:totable(), reference.transpose(a:totable())
          local function along(list, w) return each(list, function(x) return reference.dot(x, w:totable()) end) end
          close(along(rows, u), bp.matmul(a, u), tolerance * 10)
          close(along(columns, v), bp.matmul(v, a), tolerance * 10)
          close(reference.outer(v:totable(), u:totable()), bp.outer(v, u), tolerance)
          close(columns, bp.transpose(a), 0)
          local function added(x) return bp.sum(bp.transpose(x) * bp.transpose(a)) + bp.sum(x) end
          close((a + 1):totable(), bp.grad(added)(a), tolerance)
          close(along(rows, u), bp.linear((help.window(u)), (help.window(a)), bp.zeros(size[1], dtype)), tolerance * 10)
          local da, du = bp.grad(function(x, y) return bp.dot(bp.matmul(x, y), v) end, { wrt = { 1, 2 } })(a, u)
          close(reference.outer(v:totable(), u:totable()), da, tolerance)
          close(along(columns, v), du, tolerance * 10)
        end
      end)
    end
  end
end)
