-- Structures: which values are leaves, in which order they are walked, and what bp.map and the Backprop class do with
-- them. Records have a file of their own, as have lenses; both appear here as parts of structures.

local bp = require "backprop"
local tree = require "backprop.tree"

local Layer = bp.record("Layer", {"w", "matrix"}, {"b", "vector"}, {"stride", bp.static})

local function layer(scale)
  return Layer {w = bp.matrix {{1, 2}, {3, 4}} * scale, b = bp.vector {5, 6} * scale, stride = 2}
end

local function double(leaf) return leaf * 2 end

-- An object of the user's own: a complex number.
local Complex = {}
Complex.__index = Complex
local function complex(re, im) return setmetatable({re = re, im = im}, Complex) end
bp.instance(Complex, {
  zero = function() return complex(0.0, 0.0) end,
  one = function() return complex(1.0, 0.0) end,
  add = function(x, y) return complex(x.re + y.re, x.im + y.im) end,
  scale = function(x, s) return complex(x.re * s, x.im * s) end,
  dot = function(x, y) return x.re * y.re + x.im * y.im end,
})

local function cyclic()
  local inner = {a = 1.0}
  inner.again = {inner}
  return {net = inner}
end

describe("the leaves of a structure", function()
  it("are numbers, arrays and instances; the rest are constants", function()
    local v, c = bp.vector {1}, complex(1, 2)
    local x = {1.5, 2, v, c, "text", true, print, io.stdout, Layer, Layer.lens.w}
    assert.are.same(4, #bp.leaves(x))
    assert.is_true(rawequal(bp.leaves(x)[3], v))
    assert.is_true(rawequal(bp.leaves(x)[4], c))
    for _, leaf in ipairs {1, 1.5, v, c} do
      assert.is_true(tree.is_leaf(leaf))
      assert.are.equal(1, #bp.leaves(leaf))
    end
    for _, other in ipairs {"text", true, print, x, Layer, io.stdout} do assert.is_false(tree.is_leaf(other)) end
    assert.is_false(tree.is_leaf(nil))
  end)

  it("come in declared order in a record, 1..n and then sorted elsewhere", function()
    local Odd = bp.record("Odd", "z", "a", {"hidden", bp.static}, "m")
    assert.are.same({3, 1, 2}, bp.leaves(Odd {z = 3, a = 1, hidden = 99, m = 2}))
    local map = {b = 1, a = 2, [1] = 3, [2] = 4, [7] = 5, [-1] = 6, B = 7}
    assert.are.same({"[1]", "[2]", "[-1]", "[7]", "B", "a", "b"}, bp.paths(map))
    assert.are.same({3, 4, 6, 5, 7, 2, 1}, bp.leaves(map))
  end)

  it("have paths", function()
    local x = {layer1 = layer(1), list = {1, {b = 2}}, ["odd key"] = 3}
    assert.are.same({"layer1.w", "layer1.b", "list[1]", "list[2].b", '["odd key"]'}, bp.paths(x))
    assert.are.same({""}, bp.paths(3))
    assert.are.same({"[1].w", "[1].b"}, bp.paths {layer(1)})
    assert.are.same({}, bp.paths {})
  end)

  it("are visited with their path, shared parts once", function()
    local part, seen = {w = 1}, {}
    tree.visit({part, part, x = 2}, function(leaf, where) seen[#seen + 1] = where() .. "=" .. leaf end)
    assert.are.same({"[1].w=1", "x=2"}, seen)
  end)

  it("take no time to order in a record", function()
    assert.is_true(rawequal(tree.keys(layer(1)), tree.keys(layer(2))))
    assert.are.same({"w", "b"}, tree.keys(layer(1)))
    assert.are.same({1, 2, "x"}, tree.keys {5, 6, x = 7})
  end)

  it("cannot stand under other keys than strings and integers", function()
    for _, key in ipairs {true, 1.5, print} do
      for _, f in ipairs {bp.leaves, bp.paths, bp.zero} do
        assert.error_matches(function() f {a = {[key] = 1}} end, "strings or integers.*" .. type(key) .. ".* at a")
      end
    end
  end)
end)

describe("bp.kind", function()
  it("is the same for plain and tracked", function()
    local function kinds(x)
      local list = {}
      for i = 1, 6 do list[i] = bp.kind(x[i]) end
      return table.concat(list, " ")
    end
    local x = {1.0, bp.vector {1}, bp.matrix {{1}}, layer(1), {1}, complex(1, 2)}
    local expected = "number vector matrix record table instance"
    assert.are.equal(expected, kinds(x))
    bp.grad(function(y)
      assert.are.equal(expected, kinds(y))
      return y[1] * 2
    end)(x)
    assert.are.equal("string", bp.kind "text")
    assert.are.equal("nil", bp.kind(nil))
  end)
end)

describe("bp.map", function()
  it("keeps structure, metatables and constants, and changes nothing", function()
    local metatable = {}
    local x = setmetatable({1, 2, name = "n", on = true, l = layer(1), f = print}, metatable)
    local y = bp.map(double, x)
    assert.are.same({2, 4}, {y[1], y[2]})
    assert.are.equal("n", y.name)
    assert.are.equal(true, y.on)
    assert.are.equal(print, y.f)
    assert.are.equal(metatable, getmetatable(y))
    assert.is_true(Layer.is(y.l))
    assert.are.same({{2, 4}, {6, 8}}, y.l.w:totable())
    assert.are.equal(2, y.l.stride)
    assert.are.same({{1, 2}, {3, 4}}, x.l.w:totable())
    assert.are.equal(1, x[1])
  end)

  it("goes over a single leaf, and over nothing", function()
    assert.are.equal(6, bp.map(double, 3))
    assert.are.same({}, bp.map(double, {}))
    assert.are.equal("text", bp.map(double, "text"))
  end)

  it("walks several structures side by side", function()
    local sum = bp.map(function(a, b, c) return a + b + c end, {1, {x = 2}}, {10, {x = 20}}, {100, {x = 200}})
    assert.are.same({111, {x = 222}}, sum)
    assert.are.equal(3, bp.map(function(a, b) return a + b end, 1, 2))
    local kept = bp.map(function(a, b) return a + b end, {1, name = "left"}, {2, name = "right"})
    assert.are.same({3, name = "left"}, kept)
  end)

  it("says where structures differ", function()
    local function both(x, y) return function() bp.map(math.max, x, y) end end
    assert.error_matches(both({a = {1, 2}}, {a = {1}}), "bp.map: the structures differ at a%[2%]: a number and nil")
    assert.error_matches(both({a = {1}}, {a = {1, 2}}), "differ at a%[2%]: nil and a number")
    assert.error_matches(both({1}, {{1}}), "differ at %[1%]: a number and a table")
    assert.error_matches(both({1}, 1), "differ: a table and a number")
    assert.error_matches(both(1, "text"), "differ: a number and a string")
    assert.error_matches(both({l = layer(1)}, {l = {w = 1, b = 2}}), "differ at l: a Layer and a table")
    assert.error_matches(both({1}, nil), "differ: a table and nil")
    assert.has_error(both({1}, {1, [true] = 2}))
    local function three(x, y, z) return function() bp.map(math.max, x, y, z) end end
    assert.error_matches(three({1, {2}}, {1, {2}}, {1, 2}), "differ at %[2%]: a table and a number")
    assert.error_matches(three({1, {2}}, {1, 2}, {1, 2}), "differ at %[2%]: a table and a leaf")
  end)

  it("keeps what is shared shared (P37)", function()
    local part = {1}
    local y = bp.map(double, {a = part, b = {part}})
    assert.is_true(rawequal(y.a, y.b[1]))
    assert.are.same({2}, y.a)
    local same = bp.map(math.max, {part, part}, {part, part})
    assert.is_true(rawequal(same[1], same[2]))
    local three = bp.map(math.max, {part, part}, {{10}, {20}}, {part, part})
    assert.are.same({{10}, {20}}, three)
    local unequal = bp.map(function(a, b) return a + b end, {part, part}, {{10}, {20}})
    assert.are.same({{11}, {21}}, unequal)
  end)

  it("passes on errors of f, and f may yield", function()
    local trouble = {}
    local ok, message = pcall(bp.map, function() error(trouble) end, {1})
    assert.is_false(ok)
    assert.are.equal(trouble, message)
    local walk = coroutine.wrap(function() return bp.map(coroutine.yield, {1, {2}}) end)
    assert.are.equal(1, walk())
    assert.are.equal(2, walk(10))
    assert.are.same({10, {20}}, walk(20))
  end)
end)

describe("a structure that contains itself (P37)", function()
  it("is an error with its path, everywhere", function()
    for name, f in pairs {
      map = function(x) bp.map(double, x) end,
      ["map of two"] = function(x) bp.map(math.max, x, x) end,
      leaves = bp.leaves, paths = bp.paths, zero = bp.zero, one = bp.one,
      add = function(x) bp.add(x, x) end,
      grad = bp.grad(function(x) return x.net.a end),
    } do
      local ok, message = pcall(f, cyclic())
      assert.is_false(ok, name)
      assert.matches("contains itself at net%.again%[1%]", message, nil, nil, name)
    end
  end)

  it("names the line of the caller", function()
    local _, message = pcall(function() bp.leaves(cyclic()) end)
    assert.matches("^spec/structures_spec.lua:%d+: bp.leaves: ", message)
  end)
end)

describe("bp.zero, bp.one and bp.add", function()
  it("go over any structure", function()
    local x = {3, 2.5, l = layer(1), name = "n", v = bp.vector({1, 2}, "f32"), {}}
    local zero, one, sum = bp.zero(x), bp.one(x), bp.add(x, x)
    assert.are.equal("float", math.type(zero[1]))
    assert.are.same({0, 0, 1, 1, 6, 5}, {zero[1], zero[2], one[1], one[2], sum[1], sum[2]})
    assert.are.same({{0, 0}, {0, 0}}, zero.l.w:totable())
    assert.are.same({1, 1}, one.l.b:totable())
    assert.are.same({10, 12}, sum.l.b:totable())
    assert.are.same({2, 4}, sum.v:totable())
    for _, y in ipairs {zero, one, sum} do
      assert.are.equal("f32", y.v:dtype())
      assert.are.equal("n", y.name)
      assert.are.equal(2, y.l.stride)
      assert.is_true(Layer.is(y.l))
    end
    assert.are.equal(0, bp.zero(5))
    assert.are.equal(3, bp.add(1, 2))
    assert.are.same({1, 1, 1}, bp.one(bp.vector {4, 5, 6}):totable())
  end)

  it("says where shapes or structures differ", function()
    local x, y = {l = layer(1)}, {l = layer(1)}
    y.l.b = bp.vector {1, 2, 3}
    assert.error_matches(function() bp.add(x, y) end, "bp.add: at l%.b: 2 and 3 elements do not agree")
    y.l.w = bp.matrix {{1}}
    assert.error_matches(function() bp.add(x, y) end, "bp.add: at l%.w: shapes 2x2 and 1x1 do not agree")
    assert.error_matches(function() bp.add(x, {}) end, "bp.add: the structures differ at l")
  end)
end)

describe("bp.instance", function()
  it("makes leaves of any objects", function()
    local x = {c = complex(1, 2), n = 1}
    assert.are.same({"c", "n"}, bp.paths(x))
    assert.are.same(complex(0, 0), bp.zero(x).c)
    assert.are.same(complex(1, 0), bp.one(x).c)
    assert.are.same(complex(2, 4), bp.add(x, x).c)
    assert.are.equal(x.c, bp.map(function(leaf) return leaf end, x).c)
  end)

  it("lets them carry gradients", function()
    local size = bp.op(function(c)
      return c.re ^ 2 + c.im ^ 2, function(dz) return complex(2 * c.re * dz, 2 * c.im * dz) end
    end)
    local x = {c = complex(3, 4), n = 2.0, other = complex(1, 1)}
    local g = bp.grad(function(y) return size(y.c) * y.n + size(y.c) end)(x)
    assert.are.same(complex(18, 24), g.c)
    assert.are.equal(25, g.n)
    assert.are.same(complex(0, 0), g.other)
  end)

  it("refuses what is not a class", function()
    local function nothing() end
    local function declare(...) return bp.instance, ... end
    local function message(f, ...) return select(2, pcall(f, ...)) end
    assert.matches("bp.instance: expected a metatable, got nil", message(declare()))
    assert.matches("expected a table of functions, got nil", message(declare({})))
    assert.matches("the function '%a+' is missing", message(declare({}, {zero = nothing})))
    assert.matches("unknown function 'size'", message(declare({}, {size = nothing})))
    assert.matches("expected a function for 'zero', got a number", message(declare({}, {zero = 1})))
    local class = {zero = nothing, add = nothing, one = nothing}
    assert.matches("the library's own", message(declare(getmetatable(layer(1)), class)))
    local metatable = {}
    assert.are.equal(metatable, bp.instance(metatable, class))
  end)
end)

describe("the gradient of a structure", function()
  it("has the structure of the argument, with constants unchanged", function()
    local x = {l = layer(1), list = {2, {k = 3.0}}, name = "n", flag = false, unused = bp.vector {1, 2}}
    local g = bp.grad(function(y)
      assert.are.equal("n", y.name)
      assert.are.equal(2, y.l.stride)
      return bp.sum(y.l.w) * y.list[1] + y.list[2].k ^ 2
    end)(x)
    assert.is_true(Layer.is(g.l))
    assert.are.same({{2, 2}, {2, 2}}, g.l.w:totable())
    assert.are.same({0, 0}, g.l.b:totable())
    assert.are.same({10, {k = 6}}, g.list)
    assert.are.same({"n", false, 2}, {g.name, g.flag, g.l.stride})
    assert.are.same({0, 0}, g.unused:totable())
  end)

  it("shares what the argument shares, and leaves empty parts empty (P37)", function()
    local part = {w = 3.0}
    local g = bp.grad(function(y)
      assert.is_true(rawequal(y.a, y.b))
      return y.a.w * y.b.w
    end) {a = part, b = part, none = {}}
    assert.is_true(rawequal(g.a, g.b))
    assert.are.equal(6, g.a.w)
    assert.are.same({}, g.none)
  end)

  it("treats one array at two paths as two leaves", function()
    local v = bp.vector {1, 2}
    local g = bp.grad(function(y) return bp.sum(y[1]) + 3 * bp.sum(y[2]) end) {v, v}
    assert.are.same({{1, 1}, {3, 3}}, {g[1]:totable(), g[2]:totable()})
  end)

  it("is not touched by assignments during the call, nor is the argument", function()
    local x = {a = 2.0, b = 3.0}
    local g = bp.grad(function(y)
      y.a = y.a * y.b
      y.c = y.a
      return y.c * y.a
    end)(x)
    assert.are.same({a = 36, b = 24}, g)
    assert.are.same({a = 2.0, b = 3.0}, x)
  end)

  it("goes deep", function()
    local x = {1.0}
    for _ = 1, 150 do x = {x} end
    local g = bp.grad(function(y)
      while type(y) == "table" do y = y[1] end
      return y * 5
    end)(x)
    assert.are.same({5}, bp.leaves(g))
  end)
end)
