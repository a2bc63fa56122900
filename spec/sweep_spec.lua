-- The reverse sweep: the numbered pitfalls P01 P02 P04 P06 P07 P08 P09 (P10 to P12 stand in sweep_windows_spec).
-- Held here: each contribution reaches exactly the slots it belongs to, whatever the order of recording, and nothing
-- that was given to the sweep is changed by it. Compared exactly, unless a tolerance stands beside it: most gradients
-- here are small integers.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"

local same, close, raises = help.same, help.close, help.raises

-- All numbers of a structure in one list, whatever constants stand between them.
local function numbers(x, out)
  out = out or {}
  if type(x) == "number" then
    out[#out + 1] = x
  elseif help.is_array(x) then
    numbers(x:totable(), out)
  elseif type(x) == "table" then
    local keys = {}
    for k in next, x do keys[#keys + 1] = k end
    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    for _, k in ipairs(keys) do numbers(x[k], out) end
  end
  return out
end

local function add(x, y) return x + y end
local function identity(x) return x end

describe("what is seeded", function()
  it("P01: the result is not the last node recorded", function()
    -- Haskell backprop 0.2.7.2: `let y = x*2; z = sin y in if z > 0 then y else y` at 3 gives 1.92
    local function f(x)
      local y = x * 2
      local z = bp.sin(y)
      if bp.value(z) > 0 then return y end
      return y
    end
    assert.equal(2, bp.grad(f)(3))
    same({ 2, 2 }, bp.grad(function(x)
      local y = x * 2
      local z = bp.sum(bp.exp(y))
      assert(bp.value(z) > 0)
      return y
    end)(bp.vector{ 3, 4 }))
  end)

  it("P01: the result is an input, of any kind, or a part of it", function()
    assert.equal(1, bp.grad(identity)(3))
    same({ 1, 1 }, bp.grad(function(x)
      local _ = bp.sum(x * x)
      return x
    end)(bp.vector{ 3, 4 }))
    same({ a = 0, b = { 1, 1 } }, bp.grad(function(p) return p.b end)({ a = 1, b = bp.vector{ 2, 3 } }))
    same({ { 0, 0 }, { 1, 1 } }, bp.grad(function(m) return m[2] end)(bp.matrix{ { 1, 2 }, { 3, 4 } }))
  end)

  it("P01: the result is a constant", function()
    same({ 0, 0 }, bp.grad(function(x)
      local _ = x * x
      return 7
    end)(bp.vector{ 3, 4 }))
    same({ 0, 0 }, bp.grad(function(_, c) return c end)(bp.vector{ 3, 4 }, bp.vector{ 1 }))
  end)

  it("P01: the result is used twice, also after it was made", function()
    assert.equal(6, bp.grad(function(x)
      local y = x * x
      local _ = y * y + y
      return y
    end)(3))
    assert.equal(12, bp.grad(function(x)
      local y = x * x
      return { y, y }
    end)(3))
    assert.equal(6 + 4 * 27, bp.grad(function(x)
      local y = x * x
      return { y, y * y }
    end)(3))
  end)

  it("P01: an unused input gets exact zeros", function()
    local gx, gy = bp.grad(function(x) return bp.sum(x) end, { wrt = { 1, 2 } })(bp.vector{ 1, 2 }, bp.full(1 / 0, 3))
    same({ 1, 1 }, gx)
    for _, g in ipairs(gy:totable()) do assert.equal(math.huge, 1 / g) end
  end)
end)

describe("P02: one value at two operands", function()
  local cases = {
    { "x + x", function(x) return x + x end, { 2, 2 } },
    { "x - x", function(x) return x - x end, { 0, 0 } },
    { "x * x", function(x) return x * x end, { 2, 4 } },
    { "x / x", function(x) return x / x end, { 0, 0 } },
    { "minimum(x, x)", function(x) return bp.minimum(x, x) end, { 1, 1 } },
    { "where(c, x, x)", function(x) return bp.where(bp.vector{ 1, 0 }, x, x) end, { 1, 1 } },
    { "dot(x, x)", function(x) return bp.dot(x, x) end, { 2, 4 } },
    { "outer(x, x)", function(x) return bp.outer(x, x) end, { 6, 6 } },
    { "concat{x, x}", function(x) return bp.concat{ x, x } * bp.vector{ 1, 2, 3, 4 } end, { 4, 6 } },
    { "stack{x, x}", function(x) return bp.stack{ x, x } * bp.matrix{ { 1, 2 }, { 3, 4 } } end, { 4, 6 } },
    { "matmul(m, m)", function(x)
      local m = bp.outer(x, bp.vector{ 1, 1 })
      return bp.matmul(m, m)
    end, { 12, 12 } },
    { "linear(x, outer(x, x), x)", function(x) return bp.linear(x, bp.outer(x, x), x) end, { 12, 18 } },
    { "x^x of numbers", function(x) return x[1] ^ x[1] end, { 1, 0 } },
    { "pow(x, x)", function(x) return bp.pow(x, x)[1] end, { 1, 0 } },
  }
  for _, case in ipairs(cases) do
    it(case[1], function() close(case[3], bp.grad(case[2])(bp.vector{ 1, 2 }), 1e-14) end)
  end

  it("diamonds, of arrays and of numbers", function()
    local function f(x)
      local y = x * 2
      local a, b = y * 3, y * 5
      local c = a + b
      return c * y -- 32 x^2
    end
    assert.equal(192, bp.grad(f)(3))
    same({ 64, 128 }, bp.grad(f)(bp.vector{ 1, 2 }))
    local function ladder(x)
      for _ = 1, 20 do x = x + x end
      return x
    end
    same({ 2 ^ 20, 2 ^ 20 }, bp.grad(ladder)(bp.vector{ 1, 2 }))
  end)

  -- Two operands that get the very same cotangent, one of which receives more, before or after.
  local passes = {
    { "x + y", add, 1, 1 },
    { "x - y", function(x, y) return x - y end, 1, -1 },
    { "reshape of x + y", function(x, y) return bp.reshape(bp.reshape(x + y, 1, 2), 2) end, 1, 1 },
    { "sum over a stack", function(x, y) return bp.sum(bp.stack{ x, y }, 1) end, 1, 1 },
    { "where", function(x, y)
      return bp.where(bp.vector{ 1, 1 }, x, y) + bp.where(bp.vector{ 0, 0 }, x, y)
    end, 1, 1 },
    { "bp.op that returns one array twice", bp.op(function(x, y)
      return x + y, function(dz)
        local g = dz * 1
        return g, g
      end
    end), 1, 1 },
    { "bp.op that returns its cotangent twice", bp.op(function(x, y)
      return x + y, function(dz) return dz, dz end
    end), 1, 1 },
  }
  for _, case in ipairs(passes) do
    it(case[1] .. ", with more for one operand, in every order", function()
      local f, dx, dy = case[2], case[3], case[4]
      for more = 0, 3 do -- bit 0: x receives more, bit 1: y does
        for order = 1, 2 do
          for _, through in ipairs{ identity, function(v) return v * 1 end } do
            local function g(x, y)
              local a, b = through(x), through(y)
              local extra = bp.vector{ 0, 0 }
              local function use()
                if more & 1 ~= 0 then extra = extra + a * 10 end
                if more & 2 ~= 0 then extra = extra + b * 100 end
              end
              if order == 1 then use() end
              local z = f(a, b) * bp.vector{ 1, 2 }
              if order == 2 then use() end
              return z + extra
            end
            local gx, gy = bp.grad(g, { wrt = { 1, 2 } })(bp.vector{ 1, 2 }, bp.vector{ 3, 4 })
            local mx, my = (more & 1) * 10, (more >> 1) * 100
            same({ dx + mx, 2 * dx + mx }, gx)
            same({ dy + my, 2 * dy + my }, gy)
            gx:fill(0) -- nor do the two gradients share storage
            same({ dy + my, 2 * dy + my }, gy)
          end
        end
      end
    end)
  end
end)

describe("P04: what is given to a pullback is not changed", function()
  local v = bp.vector{ 1, 2, 3, 4 }
  local functions = {
    identity, function(x) return x + x end, function(x) return -x end, function(x) return bp.exp(bp.sin(x)) end,
    function(x) return bp.reshape(x, 2, 2) end, function(x) return bp.slice(x, 2, 3) end, bp.sigmoid, bp.softmax,
    function(x) return bp.concat{ x, x } end, function(x) return x * v + x end, function(x) return bp.relu(x) - x end,
    function(x) return bp.log(bp.softmax(x)) end, function(x) return bp.linear(x, bp.outer(x, x), x, "tanh") end,
    function(x) return bp.transpose(bp.outer(x, x)) end, function(x) return x + bp.sum(x) end,
    bp.op(function(x) return x * 2, function(dz) return dz end end),
  }

  it("P04: an array", function()
    for i, f in ipairs(functions) do
      local what = "function " .. i
      local value, pullback = bp.vjp(f, v)
      local cotangent = value * 0.5 + 1
      local before = cotangent:clone()
      local first = pullback(cotangent)
      local kept = first:clone()
      same(before, cotangent, what)
      first:fill(0) -- a gradient shares nothing with the cotangent
      same(before, cotangent, what)
      cotangent:fill(0 / 0)
      same(kept, pullback(before), what)
      pullback:close()
    end
  end)

  it("P04: a structure, one array of which stands for several results", function()
    local _, pullback = bp.vjp(function(x, y)
      local s = x + y
      return { s, a = s, b = { x, y * 2 } }
    end, bp.vector{ 1, 2 }, bp.vector{ 3, 4 })
    local ones = bp.vector{ 1, 10 }
    local gx, gy = pullback{ ones, a = ones, b = { ones, ones } }
    same({ 1, 10 }, ones)
    same({ 3, 30 }, gx)
    same({ 4, 40 }, gy)
    gx:fill(0)
    gy:fill(0)
    same({ 1, 10 }, ones)
  end)

  it("P04: the arguments, and the arrays f captured", function()
    local x, c = bp.vector{ 1, 2 }, bp.vector{ 3, 4 }
    bp.grad(function(y) return bp.concat{ c + y, y, c } * 2 end)(x)
    same({ { 1, 2 }, { 3, 4 } }, { x, c })
  end)
end)

describe("P06: linear in the cotangent", function()
  -- Every row's own samples: p(a) = 0 for zero, p(2 a - b) = 2 p(a) - p(b). Tolerance 1e-12 relative.
  local function samples(row)
    local list = row.samples
    if type(list) == "string" then list = assert(load("local bp = ... return " .. list))(bp) end
    return list or {}
  end

  local function cotangent(r, value)
    if bp.kind(value) == "number" then return r:normal(0, 1) end
    local rows, columns = value:shape()
    if columns then return r:normal(0, 1, rows, columns) end
    return r:normal(0, 1, rows)
  end

  -- Everything tracked if the operation takes that (an axis or an index must be plain), else the arrays only.
  local function vjp(f, args)
    local ok, value, pullback = pcall(bp.vjp, f, table.unpack(args))
    if ok then return value, pullback end
    local arrays, at = {}, {}
    for i = 1, #args do
      local x = args[i]
      if help.is_array(x) or type(x) == "table" and help.is_array(x[1]) then
        arrays[#arrays + 1] = x
        at[#arrays] = i
      end
    end
    return bp.vjp(function(...)
      local all = { table.unpack(args) }
      for i, x in ipairs{ ... } do all[at[i]] = x end
      return f(table.unpack(all))
    end, table.unpack(arrays))
  end

  it("P06: every operation row", function()
    local r, tried = bp.rng(6), 0
    for _, row in ipairs(bp.ops()) do
      for _, args in ipairs(samples(row)) do
        local f = bp[row.name] or row.name == "unm" and function(x) return -x end
        local plain = f(table.unpack(args))
        if type(plain) == "number" or help.is_array(plain) and plain:dtype() == "f64" then
          local value, pullback = vjp(f, args)
          local a, b = cotangent(r, value), cotangent(r, value)
          local pa, pb = numbers{ pullback(a) }, numbers{ pullback(b) }
          local both, zero = numbers{ pullback(a * 2 - b) }, numbers{ pullback(a * 0) }
          for i = 1, #pa do
            assert(zero[i] == 0, ("%s: a zero cotangent gives %g"):format(row.name, zero[i]))
            local off = math.abs(both[i] - 2 * pa[i] + pb[i])
            assert(off <= 1e-12 * (1 + math.abs(pa[i]) + math.abs(pb[i])), row.name .. ": not linear")
          end
          tried = tried + 1
        end
      end
    end
    assert(tried > 60, "only " .. tried .. " samples were tried")
  end)

  it("P06: compositions with shared parts", function()
    local r = bp.rng(7)
    local _, pullback = bp.vjp(function(x, w)
      local h = bp.linear(x, w, bp.sum(w, 2), "tanh")
      return bp.concat{ h * h, bp.slice(h, 1, 2), bp.softmax(h) + x[1] }
    end, r:normal(0, 1, 4), r:normal(0, 1, 3, 4))
    local a, b = r:normal(0, 1, 8), r:normal(0, 1, 8)
    local pa, pb, both = numbers{ pullback(a) }, numbers{ pullback(b) }, numbers{ pullback(a * 2 - b) }
    for i = 1, #pa do
      assert(math.abs(both[i] - 2 * pa[i] + pb[i]) <= 1e-13 * (1 + math.abs(pa[i]) + math.abs(pb[i])))
    end
    for _, z in ipairs(numbers{ pullback(a * 0) }) do assert.equal(0, z) end
  end)
end)

describe("P07", function()
  it("P07: the same pullback twice, another cotangent in between, gives bit-equal results", function()
    local r = bp.rng(1)
    local x, w = r:normal(0, 1, 5), r:normal(0, 1, 3, 5)
    local functions = {
      function(a, b) return bp.tanh(bp.matmul(b, a)) end,
      function(a, b) return bp.linear(a, b, bp.sum(b, 2), "sigmoid") end,
      function(a, b) return bp.log_softmax(bp.matmul(b, bp.exp(a) * a)) end,
      function(a, b) return b[1][2] * b[2] + bp.slice(a, 1, 5) end,
      bp.op(function(a, b)
        return bp.matmul(b, a), function(dz) return bp.matmul(dz, b), bp.outer(dz, a) end
      end),
    }
    for i, f in ipairs(functions) do
      local value, pullback = bp.vjp(f, x, w)
      local a, b = r:normal(0, 1, #value), r:normal(0, 1, #value)
      local first = numbers{ pullback(a) }
      local other = numbers{ pullback(b) }
      same(first, numbers{ pullback(a) }, "function " .. i)
      same(other, numbers{ pullback(b) }, "function " .. i)
      assert(first[1] ~= other[1])
      pullback:close()
      raises("close", pullback, a)
    end
  end)
end)

describe("P08: long tapes", function()
  it("P08: chains of 100,000 nodes, without recursion", function()
    local n = 100000
    bp.stats(true)
    assert.equal(1, bp.grad(function(x)
      for _ = 1, n do x = x + 1 end
      return x
    end)(0.5))
    assert(bp.stats().nodes >= n)
    same({ -1, -1 }, bp.grad(function(x) -- negations, then a product, so that no peephole may fold them all
      for _ = 1, n + 1 do x = -x end
      return x
    end)(bp.vector{ 1, 2 }))
  end)

  it("P08: a chain built by Lua operations, and one that fans out and in", function()
    local twice = bp.op(function(x) return x * 2, function(dz) return dz * 2 end end)
    assert.equal(2 ^ 500, bp.grad(function(x)
      for _ = 1, 500 do x = twice(x) end
      return x
    end)(1))
    local n = 20000
    assert.equal(2 * n, bp.grad(function(x)
      local list = {}
      for i = 1, n do list[i] = x * 2 end
      return bp.sum(bp.stack(list))
    end)(1))
  end)
end)

describe("P09: additions and zero fills", function()
  -- A record of n leaves, k of them operands, m times in all: m - k additions and n - k zero fills.
  local function counts(f, x)
    bp.stats(true)
    bp.grad(f)(x)
    local s = bp.stats()
    return { s.additions, s.zero_fills }
  end

  local Inner = bp.record("Inner", "p", "q")
  local Outer = bp.record("Outer", "a", "b", "inner", "list")
  local function make(leaf)
    return Outer{ a = leaf(), b = leaf(), inner = Inner{ p = leaf(), q = leaf() }, list = { leaf(), { leaf() } } }
  end
  local kinds = {
    numbers = function() return make(function() return 1.5 end) end,
    vectors = function() return make(function() return bp.vector{ 1, 2 } end) end,
    matrices = function() return make(function() return bp.matrix{ { 1, 2 }, { 3, 4 } } end) end,
  }
  local cases = {
    { "no leaf", function() return 1 end, 0, 6 },
    { "one leaf once", function(o) return o.a * 2 end, 0, 5 },
    { "each leaf once", function(o)
      return o.a * o.b + o.inner.p * o.inner.q + o.list[1] * o.list[2][1]
    end, 0, 0 },
    { "one leaf three times", function(o) return bp.sin(o.inner.p) + bp.cos(o.inner.p) + bp.exp(o.inner.p) end, 2, 5 },
    { "two leaves, five uses", function(o) return o.a * o.list[1] + o.a * 2 + bp.sin(o.a) * o.list[1] end, 3, 4 },
    { "by lenses", function(o)
      local p, a = Outer.lens.inner .. Inner.lens.p, Outer.lens.a
      return bp.sin(bp.view(o, p)) + bp.cos(bp.view(o, p)) * bp.view(o, a)
    end, 1, 4 },
    { "after a set of another field", function(o)
      return bp.set(o, Outer.lens.b, 0).a * bp.set(o, Outer.lens.inner .. Inner.lens.q, 0).inner.p
    end, 0, 4 },
  }
  for kind, record in pairs(kinds) do
    for _, case in ipairs(cases) do
      it(("P09: %s, %s"):format(case[1], kind), function()
        assert.same({ case[3], case[4] }, counts(case[2], record()))
      end)
    end
  end

  it("P09: a list of n leaves, each read twice: n additions, no fill", function()
    local n, list = 200, {}
    for i = 1, n do list[i] = bp.vector{ i } end
    assert.same({ n, 0 }, counts(function(l)
      local total = 0
      for i = 1, #l do total = total + l[i] * l[i] end
      return total
    end, list))
  end)

  it("P09: the rows of a matrix, each read once: no additions, at most one fill", function()
    local n = 300
    local m = bp.ones(n, 4)
    local function index(x, i) return x[i] end
    local readers = {
      function() return index end, function() return bp.row end, function(x)
        local all = bp.rows(x)
        return function(_, i) return all[i] end
      end, function() return function(x, i) return bp.slice(x, i, i)[1] end end,
    }
    for _, reader in ipairs(readers) do
      local rows = counts(function(x)
        local parts, read = {}, reader(x)
        for i = 1, n do parts[i] = bp.sum(bp.sin(read(x, i))) end
        return bp.stack(parts)
      end, m)
      assert(rows[1] == 0, rows[1] .. " additions")
      assert(rows[2] <= 1, rows[2] .. " zero fills")
    end
  end)

  it("P09: the elements of a vector: no additions, at most one fill", function()
    local n = 300
    local elements = counts(function(x)
      local parts = {}
      for i = 1, n do parts[i] = bp.sin(x[i]) end
      return bp.stack(parts)
    end, bp.ones(n))
    assert(elements[1] == 0, elements[1] .. " additions")
    assert(elements[2] <= 1, elements[2] .. " zero fills")
  end)
end)

-- An operand that is met again may be one node on the tape, if nothing tells the two times apart.
describe("a plain operand that is met again", function()
  local x = bp.vector{ 1, 2, 3 }

  it("is told from another number of the same size", function()
    local _, pullback <close> = bp.vjp(function(v) return { 1 / (v * 0.0), v / 0.0, v / -0.0 } end, bp.vector{ 2, 3 })
    same({ math.huge, math.huge }, pullback{ [2] = bp.ones(2) })
    same({ -math.huge, -math.huge }, pullback{ [3] = bp.ones(2) })
    local nan = bp.grad(function(s) return s * 2 + s * (0 / 0) end)(1.0)
    assert.is_true(nan ~= nan)
    assert.equal(2 + 2.0000000000000004 + 1e300, bp.grad(function(s)
      return s * 2 + s * 2.0000000000000004 + s * 1e300
    end)(1.0))
  end)

  it("is told from another window of its storage", function()
    local m = bp.matrix{ { 1, 2, 3 }, { 4, 5, 6 }, { 7, 8, 9 } }
    local column, flat = bp.column(m, 1), bp.flatten(m)
    same({ 1 + 1 + 4 + 1, 2 + 4 + 5 + 2, 3 + 7 + 6 + 3 }, bp.grad(function(v)
      return v * m[1] + v * column + v * m[2] + v * bp.slice(flat, 1, 3)
    end)(x))
    same({ 1 + 1, 2 + 2, 3, 4 }, bp.grad(function(v)
      return bp.sum(v * bp.slice(flat, 1, 4)) + bp.sum(bp.slice(v, 1, 2) * bp.slice(flat, 1, 2))
    end)(bp.ones(4)))
  end)

  it("is told from what it was before it was changed", function()
    local a = bp.vector{ 1, 1, 1 }
    local value, gradient = bp.value_and_grad(function(v)
      local before = v + a
      a:fill(10)
      return before * 2 + (v + a)
    end)(x)
    same({ 2 * 2 + 11, 2 * 3 + 12, 2 * 4 + 13 }, value)
    same({ 3, 3, 3 }, gradient)
    same({ 11, 11, 11 }, bp.grad(function(v)
      local before = v + a -- which needs no value
      a:fill(10)
      return before + v * a
    end)(x))
    raises("an array that it needs (an argument) was changed in place after it was recorded", function()
      bp.grad(function(v)
        local before = v * a
        a:fill(3)
        return before + v * a
      end)(x)
    end)
  end)

  it("is one of many, in any order", function()
    local constants = {}
    for k = 1, 40 do constants[k] = k % 2 == 0 and bp.full(k, 3) or k + 0.0 end
    local sum = 0
    for round = 0, 2 do
      for k = 1, 40 do sum = sum + (k * (7 + round) % 41) end
    end
    local function f(v)
      local total = v * 0
      for round = 0, 2 do
        for k = 1, 40 do total = total + v * constants[k * (7 + round) % 41] end
      end
      return total
    end
    same({ sum, sum, sum }, bp.grad(f)(x))
    local value, pullback <close> = bp.vjp(f, x)
    same({ sum, 2 * sum, 3 * sum }, value)
    for _ = 1, 2 do same({ 2 * sum, 0, sum }, pullback(bp.vector{ 2, 0, 1 })) end
  end)
end)
