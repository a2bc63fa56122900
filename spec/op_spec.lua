-- Operations with hand-written gradients: bp.op, bp.nograd, bp.iso.
-- Held here: what forward and pullback are given, what they may return, whose storage it is afterwards, and how often
-- each of them runs. Wrong rules are in reentrancy_spec (P19, P22), wrong calls in bad_input_spec.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"

local same, close, raises = help.same, help.close, help.raises

local function plain(x) return not require "backprop.core".tracked(x) end
local square = bp.op(function(x)
  return x * x, function(dz) return dz * 2 * x end
end)
local x12 = bp.vector{ 1, 2 }

describe("bp.op", function()
  it("is differentiated by the given rule, for every kind of value", function()
    assert.equal(6, bp.grad(square)(3))
    same({ 2, 4 }, bp.grad(square)(x12))
    same({ { 2, 4 }, { 6, 8 } }, bp.grad(square)(bp.matrix{ { 1, 2 }, { 3, 4 } }))
    local g = bp.grad(square)(bp.vector({ 1, 2 }, "f32"))
    same(bp.vector({ 2, 4 }, "f32"), g)
    assert.equal(4 * 27, bp.grad(function(x) return square(square(x)) end)(3))
    local wrong = bp.op(function(x) return x * x, function(dz) return dz * 100 end end)
    assert.equal(100, bp.grad(wrong)(3)) -- the rule, not the forward, decides
  end)

  it("gives one plain result for plain values", function()
    assert.equal(1, select("#", square(3)))
    assert.equal(9, square(3))
    same({ 1, 4 }, square(x12))
    bp.stats(true)
    bp.eval(square, x12)
    assert.equal(0, bp.stats().nodes)
  end)

  it("takes a table at two paths of an argument for one: what its pullback gives at both is added", function()
    local shared = { w = x12 }
    local function gradients(pullback)
      local f = bp.op(function(p, q) return p.a.w * 2 + p.deep.b.w * 3 + q * 5, pullback end)
      local twice = { a = shared, deep = { b = shared } }
      local gp, gq = bp.grad(function(p, q) return f(p, q) end, { wrt = { 1, 2 } })(twice, bp.zeros(2))
      assert(rawequal(gp.a, gp.deep.b))
      return { gp.a.w, gq }
    end
    local function both(d) return { a = { w = d * 2 }, deep = { b = { w = d * 3 } } }, d * 5 end
    local function one(d) return { a = { w = d * 5 } }, d * 5 end
    local function same_table(d)
      local g = { w = d * 5 }
      return { a = g, deep = { b = g } }, d * 5
    end
    for _, pullback in ipairs{ both, one, same_table } do same({ { 5, 5 }, { 5, 5 } }, gradients(pullback)) end
  end)

  it("takes any number of arguments", function()
    for _, count in ipairs{ 1, 8, 9, 40 } do
      local f = bp.op(function(...)
        local sum, n, numbers = 0, select("#", ...), {}
        for k = 1, n do
          local x = select(k, ...)
          sum, numbers[k] = sum + k * x, type(x) == "number"
        end
        return sum, function(dz)
          local gradients = {}
          for k = 1, n do gradients[k] = k * (numbers[k] and bp.sum(dz) or dz) end
          return table.unpack(gradients, 1, n)
        end
      end)
      local at, expected, which = {}, {}, {}
      for k = 1, count do
        at[k], which[k] = k % 3 == 0 and 1 or x12, k
        expected[k] = k % 3 == 0 and 2 * k or { k, k }
      end
      local gradient = bp.grad(function(...) return bp.sum(f(...)) end, { wrt = which })
      same(expected, { gradient(table.unpack(at, 1, count)) })
    end
  end)

  it("takes a table in two arguments for two", function()
    local f = bp.op(function(p, q, r) return p.w * 2 + q.w * 3 + r * 7, function(d) return { w = d * 2 }, { w = d * 3 },
      d * 7 end end)
    local gp, gq = bp.grad(function(p, q) return f(p, p, q) end, { wrt = { 1, 2 } })({ w = x12 }, x12)
    same({ { w = { 5, 5 } }, { 7, 7 } }, { gp, gq })
  end)

  it("records one node, whatever the forward does", function()
    local busy = bp.op(function(x)
      local y = bp.exp(bp.sin(x)) * bp.cos(x)
      return y, function(dz) return dz end
    end)
    bp.stats(true)
    bp.grad(function(x) return busy(x) end)(x12)
    assert.equal(1, bp.stats().nodes)
  end)

  it("hands plain values to forward: numbers, arrays, whole records with methods and constants", function()
    local R = bp.record("R", "w", { "stride", bp.static }, { "inner", bp.list("number") })
    function R:scaled() return self.w * self.stride end
    local f = bp.op(function(r, n, name)
      assert(R.is(r) and plain(r.w) and plain(r.inner[2]) and r.stride == 3)
      assert(math.type(n) == "float" and name == "s")
      return bp.sum(r:scaled()) * n + r.inner[2], function(dz)
        return R{ w = bp.full(dz * n * 3, 2), stride = 3, inner = { 0, dz } }, dz * bp.sum(r:scaled()), nil
      end
    end)
    local gr, gn = bp.grad(function(r, n)
      return f(r, n, "s") * 2
    end, { wrt = { 1, 2 } })(R{ w = x12, stride = 3, inner = { 4, 5 } }, 7)
    same({ w = { 42, 42 }, stride = 3, inner = { 0, 2 } }, gr)
    assert(R.is(gr))
    assert.equal(18, gn)
  end)

  it("tells the pullback which arguments need a gradient", function()
    local seen
    local f = bp.op(function(a, b, c)
      return a * b * c, function(dz, needs)
        seen = { needs[1], needs[2], needs[3] }
        return needs[1] and dz * b * c or nil, needs[2] and dz * a * c or nil, needs[3] and dz * a * b or nil
      end
    end)
    assert.equal(12, bp.grad(function(x) return f(x, 3, 4) end)(2))
    assert.same({ true, false, false }, seen)
    assert.equal(8, bp.grad(function(x) return bp.op(function(a, b)
      return a * b, function(dz, needs)
        seen = { needs[1], needs[2] }
        return nil, dz * a
      end
    end)(8, x) end)(2))
    assert.same({ false, true }, seen)
    assert.equal(8 + 12, bp.grad(function(x) return f(x, 4, bp.constant(x)) + f(3, 4, x) end)(2))
  end)

  it("takes nil for zero, and ignores gradients nobody needs", function()
    local f = bp.op(function(a, b) return a * b, function(dz) return nil, dz * a end end)
    local ga, gb = bp.grad(function(a, b) return f(a, b) end, { wrt = { 1, 2 } })(x12, bp.vector{ 3, 4 })
    same({ { 0, 0 }, { 1, 2 } }, { ga, gb })
    local all = bp.op(function(a, b) return a * b, function(dz) return dz * b, dz * a end end)
    same({ 3, 4 }, bp.grad(function(a) return all(a, bp.vector{ 3, 4 }) end)(x12))
  end)

  it("takes a plain table with some of the fields for a record's gradient", function()
    local Inner = bp.record("Inner", "p", "q")
    local Outer = bp.record("Outer", "a", "inner", "list")
    local o = Outer{ a = 1, inner = Inner{ p = x12, q = 2 }, list = { 3, 4 } }
    local returned
    local f = bp.op{ name = "partial", forward = function(r) return r.a * 2, function() return returned end end }
    local gradient = bp.grad(function(r) return f(r) end)
    returned = { inner = { p = bp.vector{ 5, 6 } } }
    same({ a = 0, inner = { p = { 5, 6 }, q = 0 }, list = { 0, 0 } }, gradient(o))
    returned = { a = 7, list = { [2] = 8 } }
    local g = gradient(o)
    same({ a = 7, inner = { p = { 0, 0 }, q = 0 }, list = { 0, 8 } }, g)
    assert(Outer.is(g) and Inner.is(g.inner))
    returned = {}
    same({ a = 0, inner = { p = { 0, 0 }, q = 0 }, list = { 0, 0 } }, gradient(o))
    for _, wrong in ipairs{
      { surplus = 1 }, { inner = 3 }, { inner = { p = 3 } }, { a = x12 }, { list = { 1, 2, 3 } }, { list = { x = 1 } },
    } do
      returned = wrong
      raises("partial", gradient, o)
    end
  end)

  it("sums the cotangents of a result that is used several times, and runs once", function()
    local runs = 0
    local f = bp.op(function(x)
      return x * 2, function(dz)
        runs = runs + 1
        return dz * 2
      end
    end)
    same({ 8, 8 }, bp.grad(function(x)
      local y = f(x)
      return y + y * 3
    end)(x12))
    assert.equal(1, runs)
    bp.grad(function(x)
      local _ = f(x)
      return x * 2
    end)(x12)
    assert.equal(1, runs) -- no cotangent: not called
  end)

  it("may be given one value twice, and return its argument", function()
    local f = bp.op(function(a, b) return a * b, function(dz) return dz * b, dz * a end end)
    same({ 2, 4 }, bp.grad(function(x) return f(x, x) end)(x12))
    local id = bp.op(function(x) return x, function(dz) return dz end end)
    local value, g = bp.value_and_grad(function(x) return id(x) * x end)(x12)
    same({ { 1, 4 }, { 2, 4 } }, { value, g })
    same({ 1, 1 }, bp.grad(function(x) return id(x) end)(x12))
    same({ 1, 2 }, x12)
  end)

  it("passes nil and constants on, and needs a variable to be recorded", function()
    local f = bp.op(function(x, options, last)
      assert(options == nil and last == print)
      return x * 2, function(dz) return dz * 2, nil, nil end
    end)
    same({ 2, 2 }, bp.grad(function(x) return f(x, nil, print) end)(x12))
    bp.stats(true)
    bp.grad(function(x) return bp.sum(x) + bp.sum(f(bp.constant(x), nil, print)) end)(x12)
    assert(bp.stats().nodes <= 2)
  end)

  it("is named in errors", function()
    local f = bp.op{ name = "halve", forward = function(x) return x / 2, function() error("broken") end end }
    assert.equal(2, f(4))
    raises({ "halve", "broken" }, bp.grad(function(x) return f(x) end), 4)
  end)
end)

describe("several results", function()
  local P = bp.record("P", "sum", "difference", "rest")
  local seen, calls = nil, 0
  local both = bp.op(function(a, b)
    return P{ sum = a + b, difference = a - b, rest = { a * 2, { n = 5, text = "t" } } }, function(dz)
      calls = calls + 1
      seen = dz
      return dz.sum + dz.difference + dz.rest[1] * 2, dz.sum - dz.difference
    end
  end)
  local a, b = bp.vector{ 1, 2 }, bp.vector{ 3, 4 }

  it("come as a record or list; their cotangents arrive together", function()
    calls = 0
    local ga, gb = bp.grad(function(x, y)
      local p = both(x, y)
      assert(P.is(p))
      assert.equal("t", p.rest[2].text)
      return p.sum * 2 + p.difference * 3 + p.rest[1] * 5
    end, { wrt = { 1, 2 } })(a, b)
    same({ { 15, 15 }, { -1, -1 } }, { ga, gb })
    assert.equal(1, calls)
    local values = both(a, b)
    same({ 4, 6 }, values.sum)
    same({ 2, 4 }, values.rest[1])
  end)

  it("of which some got no cotangent show zeros there; if none did, the pullback is not called", function()
    calls = 0
    local ga = bp.grad(function(x, y)
      local p = both(x, y)
      bp.sum(p.sum)
      same({ -2, -2 }, bp.value(p.difference))
      return bp.sum(p.difference) * 3
    end)(a, b)
    same({ 3, 3 }, ga)
    assert.equal(1, calls)
    assert(P.is(seen))
    calls = 0
    same({ 1, 1 }, bp.grad(function(x, y)
      both(x, y)
      return bp.sum(x)
    end)(a, b))
    assert.equal(0, calls)
    local zeros
    local f = bp.op(function(x) return { x * 1, x[1] }, function(dz)
      zeros = { dz[1]:clone(), dz[2] }
      return bp.vector{ dz[2], 0 } + dz[1]
    end end)
    same({ 4, 0 }, bp.grad(function(x) return f(x)[2] * 4 end)(a))
    same({ { 0, 0 }, 4 }, zeros)
  end)

  it("may be numbers in a list", function()
    local f = bp.op(function(x, y) return { x * y, x + y }, function(dz)
      return dz[1] * y + dz[2], dz[1] * x + dz[2]
    end end)
    local gx, gy = bp.grad(function(x, y)
      local r = f(x, y)
      return r[1] * 10 + r[2]
    end, { wrt = { 1, 2 } })(3, 4)
    same({ 41, 31 }, { gx, gy })
  end)
end)

describe("a returned gradient", function()
  local kept
  local function keeping(make)
    return bp.op(function(x)
      return x * 2, function(dz)
        kept = make(dz, x)
        return kept
      end
    end)
  end

  it("that the engine alone owns is taken: its old handle raises on any use", function()
    local f = keeping(function(dz) return dz * 2 end)
    for _, differentiate in ipairs{ bp.grad, function(g)
      local both = bp.value_and_grad(g)
      return function(x) return (select(2, both(x))) end
    end } do
      local g = differentiate(function(x) return f(x) end)(x12)
      same({ 2, 2 }, g)
      raises("given", function() kept[1] = 5 end)
      raises("given", kept.fill, kept, 5)
      raises("given", bp.axpy, 1, x12, kept)
      raises("given", function() return kept[1] end)
      raises("given", function() return kept + 1 end)
      same({ 2, 2 }, g)
      g:fill(7) -- the caller's own
      same({ 7, 7 }, g)
    end
  end)

  it("is copied in a kept tape, whose pullback may run again", function()
    local f = keeping(function(dz) return dz * 2 end)
    local _, pullback = bp.vjp(function(x) return f(x) end, x12)
    local g = pullback(bp.vector{ 1, 10 })
    same({ 2, 20 }, g)
    kept:fill(9)
    same({ 2, 20 }, g)
    same({ 4, 6 }, pullback(bp.vector{ 2, 3 }))
    same({ 2, 20 }, g)
  end)

  local shared = bp.vector{ 5, 6 }
  local big = bp.matrix{ { 1, 2 }, { 3, 4 } }
  local copied = {
    { "an input", function(_, x) return x end, { 1, 2 } },
    { "a window of a larger array", function() return big[2] end, { 3, 4 } },
    { "the cotangent itself", function(dz) return dz end, { 1, 1 } },
    { "a slice of the cotangent", function(dz) return bp.slice(dz, 1, 2) end, { 1, 1 } },
  }
  for _, case in ipairs(copied) do
    it("that is " .. case[1] .. " is copied", function()
      local f = keeping(case[2])
      local x = x12:clone()
      local g = bp.grad(function(v) return f(v) end)(x)
      same(case[3], g)
      g:fill(9)
      same({ 1, 2 }, x)
      same({ { 1, 2 }, { 3, 4 } }, big)
      same({ 3, 5 }, bp.grad(function(v) return f(v) * bp.vector{ 1, 1 } + v * bp.vector{ 3, 5 } end)(x) - bp.vector(
        case[3]))
      same({ { 1, 2 }, { 3, 4 } }, big)
    end)
  end

  it("that is returned for two arguments is never added into", function()
    local f = bp.op(function(a, b)
      return a * b, function()
        local g = bp.vector{ 5, 6 }
        return g, g
      end
    end)
    local ga, gb = bp.grad(function(a, b)
      local y = f(a, b)
      return f(a, b) + y + a * 10 + b * 100
    end, { wrt = { 1, 2 } })(x12, bp.vector{ 3, 4 })
    same({ { 20, 22 }, { 110, 112 } }, { ga, gb })
  end)

  it("that is returned again, by another call, is taken once: then its handle raises, or was copied", function()
    local f = bp.op(function(a) return a * 1, function() return shared end end)
    local ok, g = pcall(bp.grad(function(a) return f(a) + f(a) + a * 10 end), x12)
    if ok then
      same({ { 20, 22 }, { 5, 6 } }, { g, shared })
    else
      assert(g:find("given"), g)
    end
    local _, pullback = bp.vjp(function(a) return f(a) + a * 10 end, x12)
    shared = bp.vector{ 5, 6 }
    same({ 15, 16 }, pullback(x12 * 0 + 1))
    same({ 15, 16 }, pullback(x12 * 0 + 1))
    same({ 5, 6 }, shared)
  end)

  it("that was a field of a returned record is not shared between leaves", function()
    local f = bp.op(function(p) return bp.sum(p.a) + bp.sum(p.b), function(dz)
      local g = bp.full(dz, 2)
      return { a = g, b = g }
    end end)
    local g = bp.grad(function(p) return f(p) + bp.sum(p.a) * 10 end)({ a = x12, b = bp.vector{ 3, 4 } })
    same({ a = { 11, 11 }, b = { 1, 1 } }, g)
    g.a:fill(0)
    same({ 1, 1 }, g.b)
  end)

  it("does not change the argument or the captured arrays", function()
    same({ 1, 2 }, x12)
    local c = bp.vector{ 3, 4 }
    local f = bp.op(function(x) return x * c, function() return c end end)
    local g = bp.grad(function(x) return f(x) + x end)(x12)
    same({ 4, 5 }, g)
    collectgarbage()
    local ok, numbers = pcall(c.totable, c) -- taken (then c raises) or copied, but never changed
    if ok then same({ 3, 4 }, numbers) else assert(numbers:find("given"), numbers) end
  end)
end)

describe("bp.nograd", function()
  local f = bp.nograd(function(x, k) return bp.abs(x) * (k or 1) end)

  it("runs on plain and tracked values", function()
    same({ 1, 2 }, f(bp.vector{ -1, 2 }))
    same({ 3, 6 }, f(bp.vector{ -1, 2 }, 3))
    same({ -1, 2 }, bp.grad(function(x)
      local y = f(x)
      same({ 1, 2 }, bp.value(y))
      return bp.sum(x * x) * 0.5
    end)(bp.vector{ -1, 2 }))
  end)

  it("raises only if a cotangent reaches it", function()
    raises("nograd", bp.grad(function(x) return bp.sum(f(x)) end), x12)
    same({ 1, 1 }, bp.grad(function(x) return bp.sum(x) + bp.sum(bp.constant(f(x))) end)(x12))
    local _, pullback = bp.vjp(function(x) return { f(x), x * 2 } end, x12)
    same({ 2, 4 }, pullback{ [2] = bp.vector{ 1, 2 } })
    raises("nograd", pullback, { [1] = bp.vector{ 1, 2 } })
    same({ 2, 4 }, pullback{ [2] = bp.vector{ 1, 2 } })
  end)
end)

describe("instances as results", function()
  local Complex = {}
  local function complex(a, b) return setmetatable({ a, b }, Complex) end
  bp.instance(Complex, {
    zero = function() return complex(0, 0) end,
    one = function() return complex(1, 1) end,
    add = function(c, d) return complex(c[1] + d[1], c[2] + d[2]) end,
  })
  local make = bp.op(function(a) return complex(a, 2 * a), function(g) return g[1] + 2 * g[2] end end)
  local size = bp.op(function(c)
    return c[1] ^ 2 + c[2] ^ 2, function(g) return complex(2 * g * c[1], 2 * g * c[2]) end
  end)

  it("pass their cotangents on, added where they are used twice", function()
    same(30, bp.grad(function(a) return size(make(a)) end)(3)) -- 5 a^2
    same(60, bp.grad(function(a)
      local c = make(a)
      return size(c) + size(c)
    end)(3))
  end)

  it("are seeded with their class's one, or with a cotangent", function()
    local value, g = bp.value_and_grad(make)(3)
    assert(getmetatable(value) == Complex and value[1] == 3 and value[2] == 6 and g == 3)
    local _, pullback <close> = bp.vjp(make, 3)
    same(5, (pullback(complex(1, 2))))
    bp.grad(function(a)
      assert.equal("tracked instance", tostring(make(a)))
      return a
    end)(1)
  end)
end)

describe("bp.iso", function()
  local Pair = bp.record("Pair", "first", "second")
  local pair = bp.iso(
    function(list) return Pair{ first = list[1], second = list[2] } end,
    function(p) return { p.first, p.second } end
  )

  it("lifts a constructor", function()
    local p = pair{ x12, 3 }
    assert(Pair.is(p))
    same({ first = { 1, 2 }, second = 3 }, p)
    same({ { 3, 3 }, 3 }, bp.grad(function(list)
      local q = pair(list)
      assert(Pair.is(q))
      return bp.sum(q.first) * q.second
    end)({ x12, 3 }))
  end)

  it("lifts a split, and composes with what stands before and after", function()
    local split = bp.iso(
      function(p) return { left = { p.first }, right = p.second } end,
      function(s) return Pair{ first = s.left[1], second = s.right } end
    )
    same({ { 2, 4 }, { 8, 8 } }, bp.grad(function(list)
      local s = split(pair{ list[1] * list[1], list[2] * 2 })
      return bp.sum(s.left[1]) + bp.sum(s.right) * 4
    end)({ x12, bp.vector{ 3, 4 } }))
  end)

  it("swaps without changing a number", function()
    local swap = bp.iso(function(l) return { l[2], l[1] } end, function(l) return { l[2], l[1] } end)
    same({ 4, 3 }, bp.grad(function(l)
      local s = swap(l)
      return s[1] * s[2]
    end)({ 3, 4 }))
    same({ { 2, 2 }, { 1, 1 } }, bp.grad(function(l)
      local s = swap(l)
      return bp.sum(s[1]) + 2 * bp.sum(s[2])
    end)({ x12, x12 }))
    close(x12, swap{ 1, x12 }[1])
    same({ { 3, 4 }, { 1, 2 }, { { 1, 1 } } }, bp.grad(function(l) -- also two of one kind, and windows
      local s = swap{ l[1], l[2] }
      return bp.sum(s[1] * s[2]) + bp.sum(swap{ s[1], l[3][1] }[1])
    end)({ x12, bp.vector{ 3, 4 }, bp.ones(1, 2) }))
  end)

  it("raises if a leaf is changed or lost", function()
    local f = function(l) return l end
    for _, to in ipairs{
      function(l) return { l[1] * 2, l[2] } end, function(l) return { l[1], l[2] + 1 } end,
      function(l) return { l[1] } end, function(l) return { l[1], l[2], 5 } end,
    } do
      raises("iso", bp.grad(function(l)
        local r = bp.iso(to, f)(l)
        return r[1] * 1
      end), { 3, 4 })
    end
  end)
end)
