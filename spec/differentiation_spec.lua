-- The functions that differentiate: eval, grad (wrt, into), value_and_grad, vjp, constant, value (stats: tools_spec).
-- Held here: which arguments are tracked and what f sees of the others, what a gradient's structure is, how results are
-- seeded, what is zero, and that nothing of the caller's is changed. Everything is compared exactly: the functions
-- chosen have gradients that are exact in binary.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"

local same, raises = help.same, help.raises

local tracked = require "backprop.core".tracked
local function square(x) return x * x end
local function identity(...) return ... end

describe("bp.eval", function()
  it("calls f with the very arguments and returns every result", function()
    local v, t = bp.vector{ 1, 2 }, {}
    local r = table.pack(bp.eval(identity, v, nil, t, "s", nil))
    assert.equal(5, r.n)
    assert(rawequal(r[1], v) and r[2] == nil and rawequal(r[3], t) and r[4] == "s" and r[5] == nil)
  end)

  it("records nothing", function()
    bp.stats(true)
    assert.equal(14, bp.eval(function(v) return bp.sum(v * v) end, bp.vector{ 1, 2, 3 }))
    assert.equal(0, bp.stats().nodes)
  end)

  it("hands the error object of f on", function()
    local object = {}
    local ok, e = pcall(bp.eval, error, object)
    assert(not ok and rawequal(e, object))
  end)
end)

describe("bp.grad", function()
  it("gives a float for a number, also for an integer", function()
    local seen
    local g = bp.grad(function(x)
      seen = bp.value(x)
      return x * x * x
    end)(2)
    assert.equal(12, g)
    assert.equal("float", math.type(g))
    assert.equal("float", math.type(seen))
  end)

  it("gives each array its own shape and dtype", function()
    for _, dtype in ipairs{ "f64", "f32" } do
      local v = bp.grad(square)(bp.vector({ 1, -2, 3 }, dtype))
      assert.equal("vector", bp.kind(v))
      assert.equal(dtype, v:dtype())
      same({ 2, -4, 6 }, v)
      local m = bp.grad(square)(bp.matrix({ { 1, 2, 3 }, { 4, 5, 6 } }, dtype))
      assert.equal(dtype, m:dtype())
      assert.same({ 2, 3 }, { m:shape() })
      same({ { 2, 4, 6 }, { 8, 10, 12 } }, m)
    end
  end)

  it("returns one gradient, however many results f has", function()
    assert.equal(1, select("#", bp.grad(function(x) return x * x, x, "text" end)(3)))
  end)

  it("tracks the first argument only and hands the others on untouched", function()
    local v, t = bp.vector{ 1, 2 }, { bp.vector{ 3 } }
    local g = bp.grad(function(...)
      local x, a, b, c, d = ...
      assert.equal(7, select("#", ...))
      assert(tracked(x))
      assert(rawequal(a, v) and rawequal(b, t) and c == 5 and math.type(c) == "integer" and d == "s")
      return bp.sum(x * a)
    end)(v, v, t, 5, "s", nil, nil)
    same({ 1, 2 }, g)
  end)

  it("says the same kind of plain and tracked values", function()
    bp.grad(function(p)
      assert.equal("number", bp.kind(p.n))
      assert.equal("vector", bp.kind(p.v))
      assert.equal("matrix", bp.kind(p.m))
      assert.equal("table", bp.kind(p))
      return p.n
    end)({ n = 1, v = bp.zeros(2), m = bp.zeros(2, 2) })
  end)

  it("gives a structure of the same structure, constants and metatable", function()
    local methods = { __index = { doubled = function(self) return self.w * 2 end } }
    local function callback() end
    local p = setmetatable({
      w = bp.vector{ 1, 2 }, text = "relu", on = false, call = callback, file = io.stdout,
      layers = { { 1, { deep = 2.5 } }, bp.matrix{ { 1, 2 } } }, [10] = 4, [-1] = 3,
    }, methods)
    local seen
    local g = bp.grad(function(q)
      seen = q
      assert.equal("relu", q.text)
      assert(q.on == false and q.call == callback and q.file == io.stdout)
      assert(getmetatable(q) == methods and not rawequal(q, p))
      return bp.sum(q:doubled()) + q.layers[1][2].deep * 3 + bp.sum(q.layers[2]) + q[10] * q[-1]
    end)(p)
    assert(not rawequal(seen, p))
    assert(getmetatable(g) == methods)
    for k in next, p do assert(rawget(g, k) ~= nil, tostring(k)) end
    for k in next, g do assert(rawget(p, k) ~= nil, tostring(k)) end
    assert(g.text == "relu" and g.on == false and g.call == callback and g.file == io.stdout)
    same({ 2, 2 }, g.w)
    same({ { 0, { deep = 3 } }, { { 1, 1 } } }, g.layers)
    assert.equal(3, g[10])
    assert.equal(4, g[-1])
  end)

  it("keeps a sub-table shared that is shared in the argument", function()
    local part = { w = bp.vector{ 1, 2 } }
    local g = bp.grad(function(p)
      assert(rawequal(p.a, p.b))
      return bp.sum(p.a.w * p.b.w) + bp.sum(p.a.w)
    end)({ a = part, b = part })
    assert(rawequal(g.a, g.b))
    same({ 3, 5 }, g.a.w)
  end)

  it("keeps it shared also where there are a few branches, or many", function()
    for _, count in ipairs{ 10, 63, 64, 65, 200 } do
      local list = {}
      for k = 1, count do list[k] = { k * 1.0, { 2.0 } } end
      list[count + 1] = list[count]
      local g = bp.grad(function(p)
        local sum = 0
        for _, pair in ipairs(p) do sum = sum + pair[1] * pair[2][1] end
        return sum
      end)(list)
      assert(rawequal(g[count], g[count + 1]) and not rawequal(g[1], g[2]))
      for k = 1, count - 1 do same({ 2, { k } }, g[k]) end
      same({ 4, { 2 * count } }, g[count])
    end
  end)

  it("gives one array at two paths two gradients", function()
    local w = bp.vector{ 1, 2 }
    local g = bp.grad(function(p) return bp.sum(p.a * 3) + bp.sum(p.b * 5) end)({ a = w, b = w })
    same({ 3, 3 }, g.a)
    same({ 5, 5 }, g.b)
    g.a:fill(0)
    same({ 5, 5 }, g.b)
  end)

  it("P37: reports a cyclic argument and a cyclic result instead of hanging", function()
    local p = { w = 1, a = {} }
    p.a.b = p
    raises("itself", bp.grad(function(q) return q.w end), p)
    raises("itself", bp.grad(function(x)
      local r = { x }
      r.again = r
      return r
    end), 1)
  end)

  it("P37: takes empty tables and empty arrays", function()
    local g = bp.grad(function(p) return p.x * 2 + bp.sum(p.none) end)({ x = 1, empty = {}, none = bp.zeros(0) })
    assert.equal(2, g.x)
    assert.same({}, g.empty)
    assert.equal(0, #g.none)
  end)

  it("refuses keys that are neither strings nor integers", function()
    raises("key", bp.grad(function() return 1 end), { [1.5] = 1 })
    raises("key", bp.grad(function() return 1 end), { [true] = 1 })
  end)

  it("keeps assignments into the argument local to the call", function()
    local p = { w = bp.vector{ 1, 2 }, b = 3, c = { 4 } }
    local w, c = p.w, p.c
    local g = bp.grad(function(q)
      q.w, q.b, q.extra, q.c[1] = q.w * 2, nil, 1, 0
      return bp.sum(q.w * q.w)
    end)(p)
    assert(rawequal(p.w, w) and p.b == 3 and p.extra == nil and rawequal(p.c, c) and c[1] == 4)
    same({ 1, 2 }, w)
    same({ 8, 16 }, g.w)
    assert(g.b == 0 and g.extra == nil and g.c[1] == 0)
  end)

  it("differentiates the arguments named by wrt, in that order", function()
    local function f(x, y, z) return bp.sum(x * y) * z end
    local x, y = bp.vector{ 1, 2 }, bp.vector{ 3, 4 }
    local r = table.pack(bp.grad(f, { wrt = { 1, 3 } })(x, y, 5))
    assert.equal(2, r.n)
    same({ 15, 20 }, r[1])
    assert.equal(11, r[2])
    local gz, gy = bp.grad(f, { wrt = { 3, 2 } })(x, y, 5)
    assert.equal(11, gz)
    same({ 5, 10 }, gy)
    bp.grad(function(a, b, c)
      assert(rawequal(a, x) and tracked(b) and c == 5)
      return bp.sum(b)
    end, { wrt = { 2 } })(x, y, 5)
  end)

  it("hands on the error object of f", function()
    local object = {}
    local ok, e = pcall(bp.grad(function() error(object) end), 1)
    assert(not ok and rawequal(e, object))
  end)
end)

describe("an argument that the function changes", function()
  it("by new leaves is an error", function()
    for _, change in ipairs{
      function(t) t[3] = 5 end, function(t) t[2] = { 2, 3 } end, function(t) t.more = bp.vector{ 1 } end,
    } do
      local t = { 1, 2 }
      raises("an argument was changed while the function ran", bp.grad(function(u)
        change(t)
        return u[1]
      end), t)
    end
  end)
end)

describe("into", function()
  local function f(p, s) return bp.sum(p.w * p.w) + bp.sum(p.list[1]) * s end
  local p = { w = bp.vector{ 1, 2 }, list = { bp.matrix{ { 1, 2 } } }, unused = bp.vector{ 5, 5, 5 } }
  local function buffers()
    local nan = 0 / 0
    return { w = bp.full(nan, 2), list = { bp.full(nan, 1, 2) }, unused = bp.full(nan, 3) }
  end

  it("writes into the given arrays, whatever stood there", function()
    local into = buffers()
    local w = into.w
    local g = bp.grad(f, { into = into })(p, 3)
    assert(rawequal(into.w, w))
    same({ 2, 4 }, into.w)
    same({ { { 3, 3 } } }, into.list)
    same({ 0, 0, 0 }, into.unused)
    same({ list = { { { 3, 3 } } }, unused = { 0, 0, 0 }, w = { 2, 4 } }, g)
    g.w:fill(7) -- what is returned stands in the same storage
    same({ 7, 7 }, into.w)
  end)

  it("may be used again and again, without new bytes", function()
    local into = buffers()
    local gradient = bp.grad(f, { into = into })
    gradient(p, 3)
    collectgarbage()
    collectgarbage()
    local live = bp.stats().bytes_live
    for i = 1, 5 do gradient(p, i) end
    collectgarbage()
    collectgarbage()
    assert.equal(live, bp.stats().bytes_live)
    same({ { 5, 5 } }, into.list[1])
  end)

  it("takes one structure for each wrt", function()
    local a, b = bp.full(0 / 0, 2), bp.full(0 / 0, 2)
    bp.grad(function(x, y) return bp.sum(x * y) end, { wrt = { 1, 2 }, into = { a, b } })(
      bp.vector{ 1, 2 }, bp.vector{ 3, 4 })
    same({ 3, 4 }, a)
    same({ 1, 2 }, b)
  end)

  it("serves value_and_grad as well", function()
    local into = buffers()
    assert.equal(14, (bp.value_and_grad(f, { into = into })(p, 3)))
    same({ 2, 4 }, into.w)
  end)

  it("may be the argument itself, one array twice or overlapping windows: right, or an error", function()
    local x = bp.vector{ 1, 2 }
    local ok, e = pcall(bp.grad(function(v) return bp.sum(v * v * v) end, { into = x }), x)
    if ok then same({ 3, 12 }, x) else assert.equal("string", type(e)) end
    local m = bp.zeros(2, 2)
    for _, into in ipairs{ { a = m[1], b = m[1] }, { a = m[1], b = bp.slice(m, 1, 1)[1] }, { a = m[1], b = m[2] } } do
      local fine, g = pcall(bp.grad(function(q) return bp.sum(q.a * 3) + bp.sum(q.b * 5) end, { into = into }),
        { a = bp.vector{ 1, 2 }, b = bp.vector{ 3, 4 } })
      if fine then same({ a = { 3, 3 }, b = { 5, 5 } }, g) else assert.equal("string", type(g)) end
    end
    same({ { 3, 3 }, { 5, 5 } }, m) -- the last pair does not overlap
  end)

  it("keeps a table at two paths one, or splits its gradient, as the given structure does", function()
    local shared = { w = bp.vector{ 1, 2 } }
    local function g(t) return bp.sum(t.a.w * t.a.w) + bp.sum(t.b.w) end
    local one = { w = bp.full(0 / 0, 2) }
    local into = { a = one, b = one }
    assert(rawequal(into, bp.grad(g, { into = into })({ a = shared, b = shared })))
    same({ 3, 5 }, one.w)
    local two = { a = { w = bp.full(0 / 0, 2) }, b = { w = bp.full(0 / 0, 2) } }
    same({ a = { w = { 2, 4 } }, b = { w = { 1, 1 } } }, bp.grad(g, { into = two })({ a = shared, b = shared }))
    same({ 2, 4 }, two.a.w)
  end)

  it("refuses another structure, shape or dtype and leaves the state usable", function()
    local wrong = buffers()
    wrong.list = nil
    raises("list", bp.grad(f, { into = wrong }), p, 3)
    wrong = buffers()
    wrong.w = bp.zeros(3)
    raises("into", bp.grad(f, { into = wrong }), p, 3)
    wrong = buffers()
    wrong.w = bp.zeros(2, "f32")
    raises("f32", bp.grad(f, { into = wrong }), p, 3)
    same({ 2, 4 }, bp.grad(f)(p, 3).w)
  end)
end)

describe("bp.value_and_grad", function()
  it("returns the value, the gradients, then the further results as plain values", function()
    local r = table.pack(bp.value_and_grad(function(x, y)
      return bp.sum(x * y), nil, x, { inner = y * 2, text = "t" }, "s", nil
    end, { wrt = { 1, 2 } })(bp.vector{ 1, 2 }, bp.vector{ 3, 4 }))
    assert.equal(8, r.n)
    assert.equal(11, r[1])
    assert.equal("float", math.type(r[1]))
    same({ 3, 4 }, r[2])
    same({ 1, 2 }, r[3])
    assert(r[4] == nil and r[7] == "s" and r[8] == nil)
    assert(not tracked(r[5]))
    same({ 1, 2 }, r[5])
    assert(not tracked(r[6].inner))
    same({ 6, 8 }, r[6].inner)
    assert.equal("t", r[6].text)
  end)

  it("returns a value that is the caller's own, also when it is the argument", function()
    local p = { w = bp.vector{ 1, 2 } }
    local value, g = bp.value_and_grad(identity)(p)
    same({ 1, 1 }, g.w)
    value.w:fill(9)
    same({ 1, 2 }, p.w)
    same({ 1, 1 }, g.w)
  end)

  it("returns a value that is the caller's own, also when it is a part of the argument", function()
    local m = bp.matrix{ { 1, 2 }, { 3, 4 } }
    for _, f in ipairs{
      function(x) return x[2] end, function(x) return bp.column(x, 2) end, function(x) return bp.reshape(x, 4) end,
      function(x) return bp.slice(x, 1, 2) end, function(x) return bp.flatten(x[1]) end, bp.rows,
    } do
      for _, value in ipairs{ (bp.value_and_grad(f)(m)), (bp.vjp(f, m)) } do
        bp.map(function(leaf)
          leaf:fill(9)
          return leaf
        end, value)
        same({ { 1, 2 }, { 3, 4 } }, m)
      end
    end
  end)
end)

describe("results", function()
  it("that are arrays or structures are seeded with ones in every element", function()
    same({ 2, 4, 6 }, bp.grad(square)(bp.vector{ 1, 2, 3 }))
    assert.equal(8, bp.grad(function(x) return { x * x, { deep = x, text = "t" } , false } end)(3.5))
    local P = bp.record("P", "a", "b")
    local function f(p) return P{ a = p.a * 5, b = p.b } end
    same({ a = { 5 }, b = 1 }, bp.grad(f)(P{ a = bp.vector{ 1 }, b = 2 }))
  end)

  it("one = grad of the identity", function()
    local x = { bp.vector{ 1, 2 }, { m = bp.matrix{ { 3, 4 } }, n = 5, text = "t" } }
    local g = bp.grad(identity)(x)
    same({ { 1, 1 }, { m = { { 1, 1 } }, n = 1, text = "t" } }, g)
    same(bp.one(x), g)
  end)

  it("that hold the same variable twice are counted twice", function()
    assert.equal(2, bp.grad(function(x) return { x, x } end)(3))
    same({ 3, 3 }, bp.grad(function(x)
      local y = x * 1
      return { y, z = { y, x } }
    end)(bp.vector{ 1, 2 }))
  end)

  it("must hold a number or an array", function()
    local nothing = { {}, { "a", { true } }, "text", true, print, io.stdout }
    for i = 1, #nothing + 1 do
      local function f() return nothing[i] end
      raises({ "bp.grad", "result" }, bp.grad(f), 1)
      raises({ "bp.vjp", "result" }, bp.vjp, f, 1)
    end
    raises("result", bp.grad(function() end), 1)
  end)

  it("that do not depend on the argument, and unused arguments, give exact zeros", function()
    local p = { n = 1, v = bp.vector({ 1, 2 }, "f32"), m = bp.matrix{ { 1, 2 } } }
    local constant = bp.vector{ 1, 2 }
    for _, f in ipairs{
      function() return 5 end, function() return constant end, function(q) return bp.constant(q) end,
      function(q) return bp.less(q.v, 3) end, function(_, other) return other * 2 end,
    } do
      local g = bp.grad(f)(p, 3)
      assert(1 / g.n == math.huge)
      assert.equal("f32", g.v:dtype())
      assert(1 / g.v[1] == math.huge and 1 / g.v[2] == math.huge and 1 / g.m:get(1, 2) == math.huge)
      same({ n = 0, v = { 0, 0 }, m = { { 0, 0 } } }, g)
    end
  end)
end)

describe("bp.vjp", function()
  it("returns the value, the pullback, then further results; one gradient per argument", function()
    local function f(x, name, y) return x * y, name, y end
    local r = table.pack(bp.vjp(f, bp.vector{ 1, 2 }, "s", bp.vector{ 3, 4 }))
    assert.equal(4, r.n)
    same({ 3, 8 }, r[1])
    assert.equal("s", r[3])
    assert(not tracked(r[1]) and not tracked(r[4]))
    local g = table.pack(r[2](bp.vector{ 10, 100 }))
    assert.equal(3, g.n)
    same({ 30, 400 }, g[1])
    assert.equal("s", g[2])
    same({ 10, 200 }, g[3])
  end)

  it("tracks all arguments, numbers and structures too", function()
    local _, pullback = bp.vjp(function(p, n)
      assert(tracked(p.w) and tracked(n))
      return bp.sum(p.w) * n
    end, { w = bp.vector{ 1, 2 }, text = "t" }, 4)
    local gp, gn = pullback(2)
    same({ 8, 8 }, gp.w)
    assert.equal("t", gp.text)
    assert.equal(6, gn)
  end)

  it("takes a partial cotangent as zero elsewhere", function()
    local R = bp.record("R", "a", "b")
    local _, pullback = bp.vjp(function(x) return { R{ a = x * 2, b = x * 3 }, c = x * 5 } end, bp.vector{ 1, 2 })
    same({ 2, 20 }, pullback{ { a = bp.vector{ 1, 10 } } })
    same({ 5, 5 }, pullback{ c = bp.vector{ 1, 1 } })
    same({ 8, 7 }, pullback{ { b = bp.vector{ 1, 4 } }, c = bp.vector{ 1, -1 } })
    same({ 0, 0 }, pullback{})
  end)

  it("refuses a cotangent of another structure, shape or dtype and stays usable", function()
    local _, pullback = bp.vjp(function(x) return { arr = x * 2, num = bp.sum(x) } end, bp.vector({ 1, 2 }, "f32"))
    raises("surplus", pullback, { surplus = bp.vector({ 1, 2 }, "f32") })
    raises("arr", pullback, { arr = bp.vector({ 1, 2, 3 }, "f32") })
    raises("arr", pullback, { arr = bp.matrix({ { 1, 2 } }, "f32") })
    raises({ "arr", "f64" }, pullback, { arr = bp.vector{ 1, 2 } })
    raises("num", pullback, { num = bp.vector({ 1 }, "f32") })
    raises("arr", pullback, { arr = "text" })
    raises("cotangent", pullback, "text")
    same({ 4, 2 }, pullback{ arr = bp.vector({ 2, 1 }, "f32") })
  end)

  it("ends with close, twice if need be, and with a <close> variable", function()
    local value, pullback = bp.vjp(square, bp.vector{ 1, 2 })
    same({ 2, 4 }, pullback(bp.vector{ 1, 1 }))
    pullback:close()
    raises("close", pullback, bp.vector{ 1, 1 })
    pullback:close()
    same({ 1, 4 }, value)
    local escaped
    do
      local _, inner <close> = bp.vjp(square, 3)
      escaped = inner
      assert.equal(6, inner(1))
    end
    raises("close", escaped, 1)
  end)
end)

describe("bp.constant and bp.value", function()
  it("constant lets no gradient flow", function()
    assert.equal(3, bp.grad(function(x) return x * bp.constant(x) end)(3))
    local g = bp.grad(function(p)
      local c = bp.constant(p)
      assert(not tracked(c.w) and not tracked(c.inner[1]) and c.text == "t")
      return bp.sum(p.w * c.w) + c.inner[1]
    end)({ w = bp.vector{ 1, 2 }, inner = { 3 }, text = "t" })
    same({ w = { 1, 2 }, inner = { 0 }, text = "t" }, g)
  end)

  it("constant of a plain value is that value", function()
    local v = bp.vector{ 1, 2 }
    same({ 1, 2 }, bp.constant(v))
    assert.equal(3, bp.constant(3))
    assert.equal("t", bp.constant("t"))
  end)

  it("value is plain, the same inside and after the call, and never feeds a gradient", function()
    local kept
    local g = bp.grad(function(p)
      local y = p.w * 2
      kept = { bp.value(y), bp.value(p.w), bp.value(p.n), bp.value(p) }
      for _, x in ipairs(kept) do assert(not tracked(x) or type(x) == "table") end
      return bp.sum(y * bp.value(y)) + bp.value(p.n)
    end)({ w = bp.vector{ 1, 2 }, n = 3, text = "t" })
    same({ 4, 8 }, g.w)
    assert.equal(0, g.n)
    for _ = 1, 3 do bp.grad(square)(bp.vector{ 7, 8 }) end -- would hand the storage out again
    collectgarbage()
    same({ { 2, 4 }, { 1, 2 }, 3, { w = { 1, 2 }, n = 3, text = "t" } }, kept)
  end)

  it("value of an array variable is read-only", function()
    bp.grad(function(x)
      local v = bp.value(x * 2)
      raises("read", function() v[1] = 0 end)
      raises("read", v.fill, v, 0)
      raises("read", bp.axpy, 1, bp.zeros(2), v)
      v:clone():fill(0)
      same({ 2, 4 }, v)
      return x
    end)(bp.vector{ 1, 2 })
  end)

  it("tostring of a tracked value says so, and once stale that its call has ended", function()
    local left
    bp.grad(function(x)
      left = x
      assert.equal("tracked vector 2 f64 [1, 2]", tostring(x))
      assert.equal("tracked 3.0", tostring(bp.sum(x)))
      return bp.sum(x)
    end)(bp.vector{ 1, 2 })
    assert.equal("tracked value whose call has ended", tostring(left))
  end)

  it("value of a plain value is that value, read-only", function()
    local v, t = bp.vector{ 1 }, { "a" }
    assert(bp.value(2) == 2 and bp.value("s") == "s" and bp.value(nil) == nil)
    assert.same({ "a" }, bp.value(t))
    local value = bp.value{ inner = { v } }.inner[1]
    v[1] = 5
    same({ 5 }, value)
    raises("read-only", value.fill, value, 0)
    assert(rawequal(value, bp.value(value)))
    -- the two readings of one function, which must not change its argument
    local function f(w) bp.value(w):fill(0); return bp.sum(w) end
    raises("x:fill: the array is read-only", bp.grad(f), v)
    raises("x:fill: the array is read-only", bp.eval, f, v)
    same({ 5 }, v)
  end)
end)
