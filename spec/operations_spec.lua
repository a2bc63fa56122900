-- Every row of bp.ops(), by its own samples: nothing here knows what an operation computes, so a new row is tested by
-- being there. For each sample, in both dtypes: bp.check, f32 against f64, windows, a linear pullback, a zero
-- cotangent, every subset of the operands constant, additions to what is there already, and destinations of NaN.
-- The values of the operations are compared with formulas in the specs operations_*.
--
-- Tolerances, relative to max(1, |x|): 1e-12 in f64, 1e-4 in f32 and between the two.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"
local operands = require "support.operands"

local close, same = help.close, help.same
local tolerances = { f64 = 1e-12, f32 = 1e-4 }

-- The contract's table: every one is a function of bp, and has a row unless it is one without a gradient rule.
local names = [[
  exp log log1p expm1 sqrt square abs sign sin cos tan asin acos atan sinh cosh tanh sigmoid softplus relu leaky_relu
  elu gelu silu reciprocal pow minimum maximum clamp less less_equal greater greater_equal equal where
  sum mean max min prod logsumexp norm argmax argmin
  dot outer matmul transpose diag trace linear
  reshape flatten concat stack slice row column rows element gather konst
  softmax log_softmax softmax_cross_entropy sigmoid_cross_entropy
]]
local without_row = { rows = true } -- made of other operations

-- By the contract the results of these are plain.
local plain = { less = 1, less_equal = 1, greater = 1, greater_equal = 1, equal = 1, argmax = 1, argmin = 1 }

describe("bp.ops()", function()
  local rows, by_name = bp.ops(), {}
  for _, row in ipairs(rows) do by_name[row.name] = row end

  it("lists every operation of the contract", function()
    for name in names:gmatch "%S+" do
      assert.equal("function", type(bp[name]), name)
      assert.truthy(by_name[name] or without_row[name], name .. " has no row")
    end
  end)

  it("has name, arity, doc, formula, samples and source in every row", function()
    local seen = {}
    for _, row in ipairs(rows) do
      assert.is_nil(seen[row.name], row.name .. " is there twice")
      seen[row.name] = true
      for _, field in ipairs{ "name", "doc", "formula", "source", "signature" } do
        assert.equal("string", type(row[field]), ("%s.%s"):format(row.name, field))
        assert.truthy(row[field]:find "%S", ("%s.%s is empty"):format(row.name, field))
      end
      assert.is_not_nil(row.arity, row.name .. ".arity")
      assert.is_true(#operands.samples(row) > 0, row.name .. " has no samples")
      assert.truthy(operands.callable(row) or not row.source:find "^src/", row.name .. " cannot be called")
    end
  end)

  it("gives a list of the caller's own", function()
    local mine = bp.ops()
    mine[1].name = "changed"
    mine[#mine] = nil
    assert.equal(rows[1].name, bp.ops()[1].name)
    assert.equal(#rows, #bp.ops())
  end)
end)

-- What the engine promises of every rule, for one sample in one dtype.
local function promises(sample, tolerance)
  local f, x = sample.f, sample.operands
  local y = f(x)
  local first, second = help.random_like(y, 1), help.random_like(y, 2)

  local function pulled(cotangent)
    local value, pullback <close> = bp.vjp(f, x)
    same(y, value, "value of the tracked call")
    help.poison{ x, y }
    return (pullback(cotangent))
  end
  local gradient = pulled(first)

  it("has gradients of the operands' own shapes and dtypes", function()
    for i, operand in ipairs(x) do
      assert.equal(type(operand), type(gradient[i]))
      if help.is_array(operand) then
        assert.equal(help.shape(operand), help.shape(gradient[i]))
        assert.equal(operand:dtype(), gradient[i]:dtype())
      else
        assert.equal("float", math.type(gradient[i]))
      end
    end
  end)

  it("P06: is linear in the cotangent, and zero for a zero one", function()
    local both = pulled(help.combine(2, first, -3, second))
    close(help.combine(2, gradient, -3, pulled(second)), both, tolerance * 10)
    same(help.fill_like(x, 0), pulled(help.fill_like(y, 0)))
  end)

  it("P07: gives the same to the bit when pulled again, and leaves operands and cotangent alone", function()
    local before, seed = help.plain(x), help.plain(first)
    local _, pullback <close> = bp.vjp(f, x)
    local once = pullback(first)
    pullback(second)
    same(once, (pullback(first)))
    same(before, help.plain(x))
    same(seed, help.plain(first))
  end)

  it("P03: gives each operand the same gradient whichever others are constant", function()
    local n = math.min(#x, 4)
    for subset = 1, 2 ^ n - 1 do
      local tracked, wanted = {}, {}
      for i = 1, n do
        if subset & (1 << (i - 1)) ~= 0 then
          tracked[#tracked + 1], wanted[#wanted + 1] = x[i], gradient[i]
        end
      end
      local function part(list)
        local all, next = { table.unpack(x) }, 1
        for i = 1, n do
          if subset & (1 << (i - 1)) ~= 0 then
            all[i], next = list[next], next + 1
          end
        end
        return f(all)
      end
      local value, pullback <close> = bp.vjp(part, tracked)
      same(y, value)
      help.poison{ x, y }
      close(wanted, (pullback(first)), tolerance)
    end
  end)

  if #x == 2 and help.is_array(x[1]) and help.is_array(x[2]) and help.shape(x[1]) == help.shape(x[2]) then
    it("P02: adds both gradients where one array is both operands", function()
      local z = f{ x[1], x[1] }
      local cotangent = help.random_like(z, 5)
      local _, apart <close> = bp.vjp(f, { x[1], x[1]:clone() })
      local _, one <close> = bp.vjp(function(v) return f{ v, v } end, x[1])
      local parts = apart(cotangent)
      close(help.combine(1, parts[1], 1, parts[2]), (one(cotangent)), tolerance * 10)
    end)
  end

  it("P05: adds to what is there, and never reads what is not", function()
    -- each operand is used twice by the operation, and once more by a product recorded after it, which is swept first
    local function thrice(list)
      local a, b, more = f(list), f(list), {}
      for i, operand in ipairs(list) do more[i] = operand * 2 end
      return { a, b, more }
    end
    local others = help.random_like(x, 4)
    local _, pullback <close> = bp.vjp(thrice, x)
    local expected = help.combine(1, help.combine(1, gradient, 1, pulled(second)), 2, others)
    help.poison{ x, x, y }
    close(expected, (pullback{ first, second, others }), tolerance * 10)

    -- f(x) + f(x), and with the gradient received in arrays full of NaN
    local function doubled(list) return { f(list), f(list) } end
    local _, twice <close> = bp.vjp(doubled, x)
    close(help.combine(2, gradient, 0, gradient), (twice{ first, first }), tolerance * 10)
    if type(y) == "number" or help.is_array(y) then
      local into = help.fill_like(x, help.nan)
      local function weighed(list) return type(y) == "number" and f(list) * first or bp.sum(f(list) * first) end
      local returned = bp.grad(weighed, { into = into })(x)
      close(gradient, returned, tolerance * 10)
      for i, operand in ipairs(into) do
        if help.is_array(operand) then close(gradient[i], operand, tolerance * 10) end
      end
    end
  end)

  it("P30: takes windows for operands, and tracked windows of larger arrays", function()
    local windows, wholes = {}, {}
    for i, operand in ipairs(x) do
      if help.is_array(operand) then
        windows[i], wholes[i] = help.window(operand)
        wholes[i] = wholes[i] or operand
      else
        windows[i], wholes[i] = operand, operand
      end
    end
    close(y, f(windows), tolerance)
    local _, pullback <close> = bp.vjp(f, windows)
    close(gradient, (pullback(first)), tolerance)

    -- the same windows taken of tracked arrays: NaN around them must not come in, zeros must come out
    local function cut(list)
      local parts = {}
      for i, whole in ipairs(list) do
        parts[i] = whole
        if help.is_array(x[i]) and not rawequal(wholes[i], x[i]) then
          local n, c = x[i]:shape()
          parts[i] = c and bp.slice(whole, 2, n + 1) or bp.column(whole, 2)
        end
      end
      return f(parts)
    end
    local _, outer <close> = bp.vjp(cut, wholes)
    local from_wholes = outer(first)
    for i, operand in ipairs(x) do
      local part, rest = from_wholes[i], 0
      if help.is_array(operand) and not rawequal(wholes[i], operand) then
        local n, c = operand:shape()
        part = c and bp.slice(from_wholes[i], 2, n + 1) or bp.column(from_wholes[i], 2)
        rest = bp.sum(bp.abs(from_wholes[i])) - bp.sum(bp.abs(part))
      end
      close(gradient[i], part, tolerance)
      close(0, rest, 1e-4)
    end
  end)
end

for _, row in ipairs(bp.ops()) do
  describe("bp.ops() " .. row.name .. ":", function()
    -- what another spec has registered from C may be out of reach here
    for number, arguments in ipairs(operands.callable(row) and operands.samples(row) or {}) do
      local exact = operands.sample(row, arguments, "f64")
      local differentiable = not plain[row.name]

      for _, dtype in ipairs(help.dtypes) do
        describe(("sample %d, %s,"):format(number, dtype), function()
          local sample = operands.sample(row, arguments, dtype)

          it("leaves plain operands plain, and gives the same tracked", function()
            local y = sample.f(sample.operands)
            local _, pullback <close> = bp.vjp(function(x)
              same(y, (bp.value((sample.f(x)))))
              return x
            end, sample.operands)
            assert.is_not_nil(pullback)
            close(y, bp.eval(sample.f, sample.operands), 0)
          end)

          if differentiable then promises(sample, tolerances[dtype]) end
        end)
      end

      if differentiable then
        it(("sample %d passes bp.check, near it and in windows too"):format(number), function()
          bp.check(exact.f, exact.operands)
          local near = help.combine(1, exact.operands, 0.05, help.random_like(exact.operands, number))
          bp.check(exact.f, near)
          bp.check(exact.f, help.map(function(x) return help.is_array(x) and help.window(x) or x end, near))
        end)

        it(("sample %d agrees with differences taken in Lua"):format(number), function() -- tolerance 1e-5
          local y = exact.f(exact.operands)
          local cotangent = help.random_like(y, 8)
          local _, pullback <close> = bp.vjp(exact.f, exact.operands)
          local function weighed(x) return help.inner(exact.f(x), cotangent) end
          close(help.numeric_gradient(weighed, exact.operands), (pullback(cotangent)), 1e-5)
        end)

        it(("sample %d in f32 agrees with f64"):format(number), function()
          local single = operands.sample(row, arguments, "f32")
          local double = operands.sample(row, operands.rounded(arguments), "f64")
          local y = double.f(double.operands)
          close(y, single.f(single.operands), tolerances.f32)
          local cotangent = help.astype(help.random_like(y, 6), "f32")
          local _, pullback <close> = bp.vjp(double.f, double.operands)
          local _, single_pullback <close> = bp.vjp(single.f, single.operands)
          local seed = operands.matching(cotangent, single.f(single.operands))
          close((pullback(help.astype(cotangent, "f64"))), (single_pullback(seed)), tolerances.f32)
        end)
      end
    end
  end)
end
