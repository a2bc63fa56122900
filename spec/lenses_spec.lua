-- Lenses: the parts of structures, plain and tracked alike. The numbers of the first part are those of the performance
-- guide of the Haskell library backprop.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local message = require "support.helpers".message

local MT = bp.record("MT", "x", "y", "z")
local Layer = bp.record("Layer", {"w", "matrix"}, {"b", "vector"}, {"stride", bp.static})
local Net = bp.record("Net", {"hidden", Layer}, {"layers", bp.list(Layer)}, "other")

local function layer(k)
  return Layer {w = bp.matrix {{1, 2, 3}, {4, 5, 6}} * (k or 1), b = bp.vector {7, 8} * (k or 1), stride = 2}
end

local function net()
  return Net {hidden = layer(), layers = {layer(10), layer(100)}, other = {a = {1, 2, 3}, v = bp.vector {1, 2, 3}}}
end

local function even(x) return x % 2 == 0 end
local function negative(x) return -x end

-- The first two elements, exchanged, as a lens of one's own; missing in shorter lists.
local swapped = bp.lens(
  function(list) return list[2] and {list[2], list[1]} end,
  function(list, pair)
    local copy = table.move(list, 1, #list, 1, {})
    copy[1], copy[2] = pair[2], pair[1]
    return copy
  end)

describe("the guide's first program", function()
  local point = MT {x = 5.0, y = 7.0, z = 2.0}
  local forms = {
    ["three lenses"] = function(t)
      return bp.view(t, MT.lens.x) * bp.view(t, MT.lens.y) + bp.view(t, MT.lens.z)
    end,
    ["a lens of two fields"] = function(t)
      local xy = bp.view(t, bp.fields(MT.lens.x, MT.lens.y))
      return xy[1] * xy[2] + t.z
    end,
    ["set and over"] = function(t)
      local u = bp.set(t, MT.lens.z, bp.view(t, MT.lens.x) * t.y)
      return u.z + bp.over(t, MT.lens.z, function(z) return z * 1 end).z
    end,
    ["a path that starts elsewhere"] = function(t)
      local both = {t, t}
      return bp.view(both, bp.at(1) .. MT.lens.x) * bp.view(both, bp.at(2) .. MT.lens.y) + t.z
    end,
  }
  for name, f in pairs(forms) do
    it("gives (7, 5, 1) through " .. name, function()
      assert.are.equal(37, bp.eval(f, point))
      local g = bp.grad(f)(point)
      assert.is_true(MT.is(g))
      assert.are.same({7, 5, 1}, {g.x, g.y, g.z})
      local h = bp.grad(function(t) return -bp.sqrt(f(t)) end)(point)
      assert.is_near(-0.57539645556875052, h.x, 1e-15)
      assert.is_near(-0.41099746826339323, h.y, 1e-15)
      assert.is_near(-0.082199493652678646, h.z, 1e-15)
    end)
  end
end)

describe("composition", function()
  it("gives the same lens in every spelling, and makes no garbage", function()
    collectgarbage("stop") -- lenses are interned while they live
    local long = Net.lens.hidden .. Layer.lens.w
    assert.are.equal(long, Net.lens.hidden.w)
    assert.are.equal(long, Net.lens.hidden .. Layer.lens.w)
    local first = bp.element_at(1)
    local left = (Net.lens.layers .. bp.at(1)) .. (Layer.lens.b .. first)
    assert.are.equal(left, Net.lens.layers .. (bp.at(1) .. (Layer.lens.b .. first)))
    assert.are.equal(left, Net.lens.layers .. bp.at(1) .. Layer.lens.b .. first)
    assert.are.equal((Net.lens.layers .. bp.at(1)).b, Net.lens.layers .. bp.at(1) .. Layer.lens.b)
    assert.are_not.equal(long, Net.lens.hidden.b)
    collectgarbage("restart")
    local n = net()
    collectgarbage()
    collectgarbage("stop")
    local before = collectgarbage("count")
    for _ = 1, 100 do
      bp.view(n, Net.lens.hidden.w)
      bp.view(n, Net.lens.hidden .. Layer.lens.b)
      bp.view(n, Net.lens.layers .. bp.at(2) .. Layer.lens.w)
    end
    local grown = collectgarbage("count") - before
    collectgarbage("restart")
    assert.is_true(grown < 8, grown .. " KB")
  end)

  it("prints as it is written", function()
    assert.are.equal("Net.lens.hidden.w", tostring(Net.lens.hidden.w))
    assert.are.equal("Net.lens.layers .. bp.at(2) .. Layer.lens.w",
      tostring(Net.lens.layers .. bp.at(2) .. Layer.lens.w))
    assert.are.equal('bp.at("k") .. bp.element_at(1, 2)', tostring(bp.at "k" .. bp.element_at(1, 2)))
    assert.are.equal("bp.fields(MT.lens.x, MT.lens.y)", tostring(bp.fields(MT.lens.x, MT.lens.y)))
    assert.are.equal("Net.lens", tostring(Net.lens))
  end)

  it("lets every name be a field", function()
    local Inner = bp.record("Inner", "view", "__index", "steps", "flat", "text")
    local Outer = bp.record("Outer", {"inner", Inner}, {"__concat", Inner})
    local inner = Inner {view = 1, __index = 2, steps = 3, flat = 4, text = 5}
    local outer = Outer {inner = inner, __concat = inner}
    for _, lens in ipairs {Outer.lens.inner, Outer.lens.__concat} do
      for i, name in ipairs {"view", "__index", "steps", "flat", "text"} do
        assert.are.equal(i, bp.view(outer, lens[name]))
      end
    end
  end)

  it("refuses what is not there", function()
    assert.are.equal("Net: no field 'foo'; its fields: hidden, layers, other",
      message(function() return Net.lens.foo end))
    assert.are.equal("Layer: no field 'foo'; its fields: w, b, stride",
      message(function() return Net.lens.hidden.foo end))
    assert.matches("^Net.lens.other: no record type is declared", message(function() return Net.lens.other.foo end))
    assert.matches("^Net.lens.hidden.w: no record type", message(function() return Net.lens.hidden.w.foo end))
    assert.matches("composes two lenses, got a lens and a string",
      message(function() return Net.lens.hidden .. "w" end))
    assert.matches("composes two lenses, got a number and a lens", message(function() return 1 .. Net.lens.hidden end))
    assert.matches("cannot be changed", message(function() Net.lens.hidden.foo = 1 end))
    assert.matches("cannot be changed", message(function() Net.lens.foo = 1 end))
  end)
end)

describe("view, set and over", function()
  it("never change the structure, and copy the path only", function()
    local n = net()
    local m = bp.set(n, Net.lens.hidden.b, bp.vector {0, 0})
    assert.are.same({{7, 8}, {0, 0}}, {n.hidden.b:totable(), m.hidden.b:totable()})
    assert.is_true(Net.is(m) and Layer.is(m.hidden))
    assert.is_true(rawequal(m.layers, n.layers) and rawequal(m.hidden.w, n.hidden.w))
    assert.are.equal(2, m.hidden.stride)
    local o = bp.over(n, Net.lens.layers .. bp.at(2) .. Layer.lens.b, negative)
    assert.are.same({-700, -800}, o.layers[2].b:totable())
    assert.are.same({700, 800}, n.layers[2].b:totable())
    assert.is_true(rawequal(o.layers[1], n.layers[1]))
    assert.are.equal(9, bp.view(bp.set(n, Net.lens.hidden.stride, 9), Net.lens.hidden.stride))
  end)

  it("leave old and new right for reading and for gradients (P12)", function()
    local g = bp.grad(function(n)
      local m = bp.set(n, Net.lens.hidden.b, n.layers[1].b * 2)
      assert.are.same({7, 8}, bp.value(n.hidden.b):totable())
      assert.are.same({140, 160}, bp.value(m.hidden.b):totable())
      return bp.sum(m.hidden.b) + 3 * bp.sum(n.hidden.b) + bp.sum(m.hidden.w) + 4 * bp.sum(n.hidden.w)
    end)(net())
    assert.are.same({3, 3}, g.hidden.b:totable())
    assert.are.same({2, 2}, g.layers[1].b:totable())
    assert.are.same({{5, 5, 5}, {5, 5, 5}}, g.hidden.w:totable())
    assert.are.same({0, 0}, g.layers[2].b:totable())
  end)

  it("obey the laws of lenses", function()
    local n = net()
    for _, case in ipairs {
      {Net.lens.hidden.b, bp.vector {1, 1}}, {Net.lens.other .. bp.at "a" .. bp.at(2), 17},
      {Net.lens.other .. bp.at "a" .. swapped, {8, 9}}, {Net.lens.hidden.b .. bp.element_at(2), 4.0},
    } do
      local lens, part = case[1], case[2]
      assert.are.same(part, bp.view(bp.set(n, lens, part), lens))
      assert.are.same(tostring(n), tostring(bp.set(n, lens, bp.view(n, lens))))
      assert.are.same(part, bp.view(bp.set(bp.set(n, lens, bp.view(n, lens)), lens, part), lens))
      assert.are.same(part, bp.preview(bp.set(n, lens, part), lens))
      assert.are.same({part}, bp.collect(bp.set(n, lens, part), lens))
    end
  end)

  it("hold fields to their declared types", function()
    assert.are.equal("bp.set: Net.hidden.w: expected a matrix, got a number",
      message(bp.set, net(), Net.lens.hidden.w, 3))
    assert.are.equal("bp.set: Net.layers[1]: expected a Layer, got a number",
      message(bp.set, net(), Net.lens.layers .. bp.at(1), 3))
    assert.are.equal("bp.over: Net.hidden.b: expected a vector, got a number",
      message(bp.over, net(), Net.lens.hidden.b, bp.sum))
  end)

  it("say where a path ends", function()
    local n = net()
    assert.are.equal("bp.view: Layer.lens.w: expected a Layer, got a Net", message(bp.view, n, Layer.lens.w))
    assert.are.equal("bp.view: Net.lens.hidden.w: expected a Net, got nil",
      message(bp.view, nil, Net.lens.hidden.w))
    n.hidden = 3
    assert.are.equal("bp.view: Net.lens.hidden.w: expected a Layer at Net.hidden, got a number",
      message(bp.view, n, Net.lens.hidden.w))
    assert.are.equal("bp.set: Net.lens.hidden.w: expected a Layer at Net.hidden, got a number",
      message(bp.set, n, Net.lens.hidden.w, 1))
    assert.matches("^bp.view: Net.lens.layers .. bp.at%(3%): there is nothing at Net.layers%[3%]",
      message(bp.view, n, Net.lens.layers .. bp.at(3)))
    local _, text = pcall(function() return bp.view(n, Net.lens.hidden.w) end)
    assert.matches("^spec/lenses_spec.lua:%d+: ", text)
  end)

  it("refuse what is no lens, no function and no value", function()
    for name, f in pairs {view = bp.view, set = bp.set, over = bp.over, preview = bp.preview, collect = bp.collect} do
      local expected = "bp." .. name .. ": expected a lens, got "
      assert.are.equal(expected .. "a string", message(f, net(), "hidden", negative))
      assert.are.equal(expected .. "nil", message(f, net()))
      assert.are.equal(expected .. "a table of lenses", message(f, net(), Net.lens, negative))
    end
    assert.are.equal("bp.over: expected a function, got a number", message(bp.over, net(), Net.lens.hidden, 3))
    assert.matches("no new value", message(bp.set, net(), Net.lens.hidden))
    assert.matches("no new value", message(bp.over, net(), Net.lens.other, function() end))
  end)
end)

describe("partial and plural lenses", function()
  local list = {1, 2, 3, 4}

  it("reach an element that may be missing", function()
    assert.are.equal(2, bp.view(list, bp.at(2)))
    assert.is_nil(bp.preview(list, bp.at(9)))
    assert.are.same({}, bp.collect(list, bp.at(9)))
    assert.are.same({1, 2, 3, 4}, bp.set(list, bp.at(9), 0))
    assert.are.same({1, 20, 3, 4}, bp.set(list, bp.at(2), 20))
    assert.are.same({k = {x = -1}}, bp.over({k = {x = 1}}, bp.at "k" .. bp.at "x", negative))
    assert.are.same({k = 1}, bp.over({k = 1}, bp.at "j" .. bp.at "x", negative))
    local nested = {k = {list = list}}
    local path = bp.at "k" .. bp.at "list" .. bp.at(9)
    assert.is_true(rawequal(nested, bp.set(nested, path, 0))) -- nothing is copied where nothing changes
    assert.is_true(rawequal(nested, bp.over(nested, path, negative)))
    assert.are.equal(1, select("#", bp.set(nested, path, 0)))
    assert.are.equal(5, bp.view(MT {x = 5, y = 1, z = 1}, bp.at "x"))
    assert.is_nil(bp.preview(MT {x = 5, y = 1, z = 1}, bp.at "forward"))
    assert.matches("there is nothing at %[9%]", message(bp.view, list, bp.at(9)))
    assert.matches("expected a list or a map, got a vector", message(bp.preview, bp.vector {1}, bp.at(1)))
    assert.matches("^bp.at: a key is a string or an integer, got a table", message(bp.at, {}))
    assert.matches("^bp.at: .* got nil", message(bp.at))
  end)

  it("reach every element", function()
    assert.are.same(list, bp.collect(list, bp.each))
    assert.are.equal(1, bp.preview(list, bp.each))
    assert.is_nil(bp.preview({}, bp.each))
    assert.are.same({-1, -2, -3, -4}, bp.over(list, bp.each, negative))
    assert.are.same({0, 0, 0, 0}, bp.set(list, bp.each, 0))
    assert.are.same({2, 1}, bp.collect({a = 2, b = 1}, bp.each))
    assert.are.same({1, 2, 3}, bp.collect({{1, 2}, {3}}, bp.each .. bp.each))
    local n = net()
    local bs = bp.collect(n, (Net.lens.layers .. bp.each).b)
    assert.are.same({{70, 80}, {700, 800}}, {bs[1]:totable(), bs[2]:totable()})
    local l = bp.over(layer(), bp.each, negative)
    assert.are.same({{-7, -8}, 2}, {l.b:totable(), l.stride})
    assert.are.equal("bp.view: Net.lens.layers .. bp.each has many parts: bp.collect lists them",
      message(bp.view, n, Net.lens.layers .. bp.each))
    assert.matches("^bp.collect: bp.each: expected a list, a map or a record, got a vector", message(bp.collect,
      bp.vector {1}, bp.each))
  end)

  it("reach those that satisfy", function()
    assert.are.same({2, 4}, bp.collect(list, bp.filtered(even)))
    assert.are.same({2, 4}, bp.collect(list, bp.each .. bp.filtered(even)))
    assert.are.same({4}, bp.collect(list, bp.filtered(even) .. bp.filtered(function(x) return x > 2 end)))
    assert.are.same({1, -2, 3, -4}, bp.over(list, bp.filtered(even), negative))
    assert.are.same({1, 0, 3, 0}, bp.set(list, bp.filtered(even), 0))
    assert.are.equal(2, bp.preview(list, bp.filtered(even)))
    assert.is_nil(bp.preview({1, 3}, bp.filtered(even)))
    assert.matches("has many parts", message(bp.view, list, bp.filtered(even)))
    assert.are.equal("bp.filtered: expected a function, got nil", message(bp.filtered))
    local circles = bp.filtered(function(shape) return shape.tag == "circle" end) .. bp.at "radius"
    local shapes = {{tag = "circle", radius = 1.0}, {tag = "square", side = 2.0}, {tag = "circle", radius = 3.0}}
    local g = bp.grad(function(s)
      local area = 0
      for _, r in ipairs(bp.collect(s, circles)) do area = area + r * r end
      return area
    end)(shapes)
    assert.are.same({{tag = "circle", radius = 2}, {tag = "square", side = 0}, {tag = "circle", radius = 6}}, g)
  end)

  it("differentiate when they set", function()
    local g = bp.grad(function(x)
      local y = bp.over(x, bp.each, function(e) return e * e end)
      local z = bp.set(y, bp.at(1), x[2])
      return z[1] + z[2] + z[3]
    end) {2.0, 3.0, 4.0}
    assert.are.same({0, 7, 8}, g)
  end)
end)

describe("lenses of one's own", function()
  it("have a get, that may find nothing, and a set", function()
    assert.are.same({2, 1}, bp.view({1, 2, 3}, swapped))
    assert.are.same({5, 4, 3}, bp.set({1, 2, 3}, swapped, {4, 5}))
    assert.are.same({1}, bp.set({1}, swapped, {4, 5}))
    assert.is_nil(bp.preview({1}, swapped))
    assert.matches("^bp.view: bp.lens%(...%): there is nothing", message(bp.view, {1}, swapped))
    assert.are.equal(2, bp.view({k = {1, 2}}, bp.at "k" .. swapped .. bp.at(1)))
    assert.are.same({1, -2}, bp.over({1, 2}, swapped .. bp.at(1), negative))
    assert.are.equal("bp.lens: expected two functions, get and set; got nil and nil", message(bp.lens))
  end)

  it("may join several parts", function()
    local both = bp.fields(Net.lens.hidden.b, Net.lens.layers .. bp.at(1) .. Layer.lens.b)
    local n = net()
    assert.are.same({70, 80}, bp.view(n, both)[2]:totable())
    local m = bp.over(n, both, function(parts) return {parts[2], parts[1]} end)
    assert.are.same({{70, 80}, {7, 8}}, {m.hidden.b:totable(), m.layers[1].b:totable()})
    assert.are.same({-7, -8}, bp.over(n, both .. bp.each, negative).hidden.b:totable())
    local beyond = bp.fields(Net.lens.hidden.b, Net.lens.layers .. bp.at(5))
    assert.is_nil(bp.preview(n, beyond))
    assert.is_true(rawequal(n, bp.set(n, beyond, {1, 2})))
    assert.matches("there is nothing at", message(bp.view, n, beyond))
    assert.matches("expected a list of 2 parts, got 1", message(bp.set, n, both, {bp.vector {1, 2}}))
    assert.matches("expected a list of 2 parts, got a number", message(bp.set, n, both, 1))
    assert.are.equal("bp.fields: bp.each has many parts", message(bp.fields, bp.each))
    assert.are.equal("bp.fields: expected a lens, got a number", message(bp.fields, Net.lens.hidden, 1))
    assert.has_error(function() bp.fields() end)
  end)
end)

describe("lenses into arrays", function()
  for _, dtype in ipairs {"f64", "f32"} do
    local v = bp.vector({1, 2, 3, 4}, dtype)
    local m = bp.matrix({{1, 2, 3}, {4, 5, 6}}, dtype)
    local cases = {
      {v, bp.element_at(1), 1, 9, {9, 2, 3, 4}}, {v, bp.element_at(3), 3, 9, {1, 2, 9, 4}},
      {v, bp.element_at(4), 4, 9, {1, 2, 3, 9}},
      {m, bp.element_at(1, 3), 3, 9, {{1, 2, 9}, {4, 5, 6}}}, {m, bp.element_at(2, 1), 4, 9, {{1, 2, 3}, {9, 5, 6}}},
      {m, bp.row_at(1), {1, 2, 3}, {7, 8, 9}, {{7, 8, 9}, {4, 5, 6}}},
      {m, bp.row_at(2), {4, 5, 6}, {7, 8, 9}, {{1, 2, 3}, {7, 8, 9}}},
      {m, bp.column_at(1), {1, 4}, {8, 9}, {{8, 2, 3}, {9, 5, 6}}},
      {m, bp.column_at(3), {3, 6}, {8, 9}, {{1, 2, 8}, {4, 5, 9}}},
      {v, bp.range(2, 3), {2, 3}, {8, 9}, {1, 8, 9, 4}}, {v, bp.range(1, 4), {1, 2, 3, 4}, {6, 7, 8, 9}, {6, 7, 8, 9}},
      {m, bp.range(2, 2), {{4, 5, 6}}, {{7, 8, 9}}, {{1, 2, 3}, {7, 8, 9}}},
      {m, bp.row_at(2) .. bp.element_at(2), 5, 9, {{1, 2, 3}, {4, 9, 6}}},
      {m, bp.column_at(2) .. bp.range(1, 1), {2}, {9}, {{1, 9, 3}, {4, 5, 6}}},
    }

    local function plain(x) return type(x) == "number" and x or x:totable() end

    local function array(t)
      if type(t) == "number" then return t end
      return type(t[1]) == "table" and bp.matrix(t, dtype) or bp.vector(t, dtype)
    end

    for _, case in ipairs(cases) do
      local x, lens, part, new, whole = table.unpack(case)

      it(tostring(lens) .. " reads and sets in " .. dtype, function()
        local before = x:totable()
        assert.are.same(part, plain(bp.view(x, lens)))
        local y = bp.set(x, lens, array(new))
        assert.are.same(whole, y:totable())
        assert.are.equal(dtype, y:dtype())
        assert.are.same(x:totable(), bp.over(x, lens, function(p) return p end):totable())
        assert.are.same(before, x:totable())
      end)

      it(tostring(lens) .. " differentiates in " .. dtype, function()
        local one = bp.one(x)
        local g = bp.grad(function(z) return bp.sum(bp.view(z, lens)) end)(x)
        local mask = bp.set(bp.zero(x), lens, bp.view(one, lens)) -- ones at the part
        assert.are.same(mask:totable(), g:totable())
        assert.are.equal(dtype, g:dtype())
        g = bp.grad(function(z) return bp.sum(bp.over(z, lens, function(p) return p * 3 end) * x) end)(x)
        assert.are.same((x + 2 * (mask * x)):totable(), g:totable())
        local both = bp.grad(function(z, p) return bp.sum(bp.set(z, lens, p * 2) * x) end, {wrt = {1, 2}})
        local gx, gp = both(x, array(new))
        assert.are.same((x - mask * x):totable(), gx:totable())
        assert.are.same(plain(bp.view(x, lens) * 2), plain(gp))
      end)
    end
  end

  it("follow fields, and old and new both count (P12)", function()
    local lens = Net.lens.hidden.w .. bp.row_at(2)
    local g = bp.grad(function(n)
      local m = bp.over(n, lens, function(row) return row * row end)
      return bp.sum(m.hidden.w) + bp.sum(n.hidden.w)
    end)(net())
    assert.are.same({{2, 2, 2}, {9, 11, 13}}, g.hidden.w:totable())
  end)

  it("refuse what does not fit", function()
    local v, m = bp.vector {1, 2, 3}, bp.matrix {{1, 2}, {3, 4}}
    assert.are.equal("bp.view: bp.element_at(4): expected a vector of at least 4 elements, got a vector of 3 elements",
      message(bp.view, v, bp.element_at(4)))
    assert.are.equal("bp.set: bp.element_at(1, 3): expected a matrix of at least 1x3, got a 2x2 matrix",
      message(bp.set, m, bp.element_at(1, 3), 1))
    assert.matches("expected a matrix of at least 1 rows, got a vector", message(bp.view, v, bp.row_at(1)))
    -- a part that covers everything, too, keeps the dtype
    local single = bp.ones(1, 2, "f32")
    for _, case in ipairs{ {bp.ones(2), bp.range(1, 2), single[1]}, {bp.ones(2), bp.range(1, 1), bp.ones(1, "f32")},
      {bp.ones(1, 2), bp.row_at(1), single[1]}, {bp.ones(2, 1), bp.column_at(1), single[1]} } do
      local text = message(bp.set, table.unpack(case))
      assert(text:find("bp.set", 1, true) and text:find('x:astype("f64")', 1, true), text)
    end
    assert.matches("expected a matrix of at least 3 columns, got a 2x2 matrix", message(bp.view, m, bp.column_at(3)))
    assert.matches("at least 5 elements or rows, got a vector of 3", message(bp.view, v, bp.range(2, 5)))
    assert.matches("at Net.hidden.b, got a vector of 2 elements",
      message(bp.view, net(), Net.lens.hidden.b .. bp.element_at(3)))
    assert.matches("^bp.set: bp.element_at%(2%): expected a number as the new part, got a vector of 1 elements",
      message(bp.set, v, bp.element_at(2), bp.vector {1}))
    assert.matches("expected a vector of 2 elements as the new part, got a vector of 3 elements",
      message(bp.set, m, bp.row_at(1), v))
    assert.matches("expected a vector of 2 elements as the new part, got a number",
      message(bp.over, v, bp.range(1, 2), bp.sum))
    assert.has_error(function() bp.set(v, bp.range(1, 2), bp.vector({1, 2}, "f32")) end)
  end)

  it("refuse wrong positions", function()
    for _, wrong in ipairs {0, -1, 1.5, 0 / 0, 2 ^ 63, "one", {}} do
      assert.matches("^bp.element_at: expected a position", message(bp.element_at, wrong))
      assert.matches("^bp.element_at: expected a position", message(bp.element_at, 1, wrong))
      assert.matches("^bp.row_at: expected a position", message(bp.row_at, wrong))
      assert.matches("^bp.column_at: expected a position", message(bp.column_at, wrong))
      assert.matches("^bp.range: expected a position", message(bp.range, 1, wrong))
    end
    assert.are.equal("bp.range: 3 to 2 is empty", message(bp.range, 3, 2))
    assert.matches("^bp.element_at: expected a position .* got nil", message(bp.element_at))
    assert.are.equal(2, bp.view(bp.vector {1, 2}, bp.element_at(2.0)))
  end)
end)
