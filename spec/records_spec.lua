-- Record types: construction and its checks, methods, what reading and writing a wrong name does, arithmetic.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local message = require "support.helpers".message

local Layer = bp.record("Layer", {"w", "matrix"}, {"b", "vector"}, {"stride", bp.static})
local Net = bp.record("Net", {"hidden", Layer}, {"layers", bp.list(Layer)}, {"scale", "number"}, "other")
local Point = bp.record("Point", "x", "y")

local function layer(k)
  return Layer {w = bp.matrix {{1, 2}, {3, 4}} * (k or 1), b = bp.vector {5, 6} * (k or 1), stride = "same"}
end

local function net(changes)
  local fields = {hidden = layer(), layers = {layer(2), layer(3)}, scale = 1.5, other = {1, name = "n"}}
  for key, value in pairs(changes or {}) do fields[key] = value end
  return Net(fields)
end

describe("a record", function()
  it("is a copy of the table it is made from, with the fields as raw keys", function()
    local fields = {x = 1, y = {2}}
    local p = Point(fields)
    assert.are_not.equal(fields, p)
    assert.are.equal(1, rawget(p, "x"))
    assert.are.equal(fields.y, p.y)
    local seen = {}
    for key in pairs(p) do seen[key] = true end
    assert.are.same({x = true, y = true}, seen)
    assert.is_nil(getmetatable(fields))
    assert.are.same({3, 4}, {Point(Point {x = 3, y = 4}).x, Point {x = 3, y = 4}.y})
  end)

  it("knows its type", function()
    assert.is_true(Point.is(Point {x = 1, y = 2}))
    for _, other in ipairs {layer(), {x = 1, y = 2}, 1, "text", Point, bp.vector {1}} do
      assert.is_false(Point.is(other))
    end
    assert.is_false(Point.is(nil))
    assert.are.equal("record", bp.kind(layer()))
    assert.are.equal("record type Point", tostring(Point))
  end)

  it("names what is missing or unknown", function()
    assert.are.equal("Point: the field 'y' is missing; its fields: x, y", message(Point, {x = 1}))
    assert.are.equal("Point: no field 'z'; its fields: x, y", message(Point, {x = 1, y = 2, z = 3}))
    assert.are.equal("Point: no field [1]; its fields: x, y", message(Point, {1, 2}))
    assert.are.equal("Point: expected a table of fields, got nil; its fields: x, y", message(Point))
    assert.are.equal("Point: expected a table of fields, got a number; its fields: x, y", message(Point, 1))
  end)

  it("raises where the mistake was made", function()
    local _, text = pcall(function() return Point {x = 1} end)
    assert.matches("^spec/records_spec.lua:%d+: Point", text)
    _, text = pcall(function() return layer().bias end)
    assert.matches("^spec/records_spec.lua:%d+: Layer", text)
  end)

  it("checks what has a declared type, in depth", function()
    assert.are.equal("Layer.w: expected a matrix, got a vector",
      message(Layer, {w = bp.vector {1}, b = bp.vector {1}, stride = 1}))
    assert.are.equal("Net.hidden: expected a Layer, got a number", message(net, {hidden = 5}))
    assert.are.equal("Net.hidden: expected a Layer (write Layer{...}), got a table", message(net, {hidden = {w = 1}}))
    assert.are.equal("Net.hidden: expected a Layer, got a Point", message(net, {hidden = Point {x = 1, y = 2}}))
    assert.are.equal("Net.layers: expected a list, got a number", message(net, {layers = 1}))
    assert.are.equal("Net.layers: expected a list, got a table", message(net, {layers = {layer(), x = layer()}}))
    assert.are.equal("Net.layers: expected a list, got a Layer", message(net, {layers = layer()}))
    assert.are.equal("Net.layers[2]: expected a Layer, got a string", message(net, {layers = {layer(), "x"}}))
    assert.are.equal("Net.scale: expected a number, got a vector", message(net, {scale = bp.vector {1}}))
    local broken = layer()
    broken.w = bp.vector {1}
    assert.are.equal("Net.hidden.w: expected a matrix, got a vector", message(net, {hidden = broken}))
    assert.are.equal("Net.layers[2].w: expected a matrix, got a vector", message(net, {layers = {layer(), broken}}))
    assert.are.equal(0, #net({layers = {}}).layers)
  end)

  it("takes a variable where its kind is declared", function()
    local x = {w = bp.matrix {{1, 2}, {3, 4}}, b = bp.vector {5, 6}, s = 2.0}
    local g = bp.grad(function(y)
      local inner = Layer {w = y.w, b = y.b, stride = 1}
      local n = Net {hidden = inner, layers = {inner, inner}, scale = y.s, other = y.s}
      assert.has_error(function() Layer {w = y.b, b = y.b, stride = 1} end)
      return bp.sum(n.hidden.w) * n.scale + bp.sum(n.layers[2].b)
    end)(x)
    assert.are.same({{2, 2}, {2, 2}}, g.w:totable())
    assert.are.same({1, 1}, g.b:totable())
    assert.are.equal(10, g.s)
  end)

  it("refuses to read or to assign other fields", function()
    assert.are.equal("Layer: no field or method 'bias'; its fields: w, b, stride",
      message(function() return layer().bias end))
    assert.are.equal("Layer: no field or method [1]; its fields: w, b, stride",
      message(function() return layer()[1] end))
    assert.are.equal("Layer: no field 'bias'; its fields: w, b, stride", message(function() layer().bias = 1 end))
    local p = Point {x = 1, y = 2}
    p.x = 10
    assert.are.equal(10, p.x)
    p.y = nil
    assert.are.equal("Point: the field 'y' is nil", message(function() return p.y end))
    assert.are.equal("Point: the field 'y' is nil", message(bp.leaves, p))
    p.y = 3
    assert.are.equal(3, p.y)
  end)

  it("prints readably", function()
    assert.are.equal('Layer{w = matrix 2x2 f64, b = vector 2 f64, stride = "same"}', tostring(layer()))
    assert.are.equal('Point{x = 1.5, y = {1, Point{x = 0, y = true}, key = 2}}',
      tostring(Point {x = 1.5, y = {1, Point {x = 0, y = true}, key = 2}}))
    local p = Point {x = 1, y = {}}
    p.y[1] = p
    assert.are.equal("Point{x = 1, y = {(itself)}}", tostring(p))
    bp.grad(function(y)
      assert.matches("^Point{x = tracked number, y = tracked vector 2 f64}$", tostring(y))
      return y.x * 1
    end)(Point {x = 1, y = bp.vector {1, 2}})
  end)

  it("may have no fields (P37)", function()
    local Empty = bp.record "Empty"
    local e = Empty {}
    assert.are.same({}, bp.leaves(e))
    assert.are.equal("Empty{}", tostring(e))
    assert.is_true(Empty.is(e + e))
    assert.are.equal("Empty: no field 'x'; it has no fields", message(Empty, {x = 1}))
    local g = bp.grad(function(y) return y[2] * 3 end) {e, 1.0}
    assert.is_true(Empty.is(g[1]))
  end)

  it("may have any names for fields", function()
    local names = {"__index", "__newindex", "lens", "is", "view", "a b", "end", "name", "__call"}
    local Odd = bp.record("Odd", table.unpack(names))
    local contents = {}
    for i, name in ipairs(names) do contents[name] = i end
    local odd = Odd(contents)
    for i, name in ipairs(names) do
      assert.are.equal(i, odd[name])
      assert.are.equal(i, bp.view(odd, Odd.lens[name]))
    end
    assert.are.equal(2 * #names, (odd + odd)["__call"])
  end)
end)

describe("methods", function()
  it("are functions assigned to the type", function()
    local Line = bp.record("Line", "slope", "offset")
    function Line:at(x) return self.slope * x + self.offset end
    function Line.through() return Line {slope = 1.0, offset = 0.0} end
    local line = Line {slope = 2.0, offset = 3.0}
    assert.are.equal(13, line:at(5))
    assert.are.equal(13, Line.at(line, 5))
    assert.are.equal(1, Line.through().slope)
    assert.is_nil(Line.missing)
    local g = bp.grad(function(l) return l:at(5) end)(line)
    assert.are.same({5, 1}, {g.slope, g.offset})
    assert.are.equal("Line: 'at' is a method, no field can have that name", message(function() line.at = 1 end))
  end)

  it("include some metamethods", function()
    local Square = bp.record("Square", "side")
    function Square:__call(k) return self.side * k end
    function Square:__tostring() return "square of " .. self.side end
    function Square.__eq(a, b) return a.side == b.side end
    assert.are.equal(6, Square {side = 2}(3))
    assert.are.equal("square of 2", tostring(Square {side = 2}))
    assert.is_true(Square {side = 2} == Square {side = 2})
    assert.are.equal("Square: the metamethod __index cannot be defined for a record",
      message(function() Square.__index = print end))
    assert.has_error(function() Square.__add = print end)
  end)

  it("cannot take the name of a field, nor be anything but functions", function()
    assert.are.equal("Layer: 'w' is a field, a method cannot have that name", message(function() Layer.w = print end))
    assert.are.equal("Layer: 'lens' is the record type's own", message(function() Layer.lens = print end))
    assert.are.equal("Layer: 'is' is the record type's own", message(function() function Layer.is() end end))
    assert.are.equal("Layer: only functions are assigned to a record type, as methods",
      message(function() Layer.size = 3 end))
  end)
end)

describe("bp.record and bp.list", function()
  it("refuse wrong declarations", function()
    assert.are.equal("bp.record: expected a name first, got nil", message(bp.record))
    assert.are.equal("bp.record: expected a name first, got a table", message(bp.record, {"x"}))
    assert.are.equal("bp.record: T: expected a name or {name, Type} as field 2, got a number",
      message(bp.record, "T", "x", 3))
    assert.has_error(function() bp.record("T", {}) end)
    assert.has_error(function() bp.record("T", "") end)
    assert.are.equal("bp.record: T: the field 'x' is declared twice", message(bp.record, "T", "x", {"x", "number"}))
    assert.matches('^bp.record: T%.x: expected a type %(.*%), got "tensor"$', message(bp.record, "T", {"x", "tensor"}))
    assert.matches("^bp.list: expected a type %(.*%), got nil$", message(bp.list))
    assert.matches("bp.list: .*bp.static", message(bp.list, bp.static))
  end)

  it("nest", function()
    local Grid = bp.record("Grid", {"cells", bp.list(bp.list "number")})
    assert.are.same({1, 2, 3}, bp.leaves(Grid {cells = {{1, 2}, {3}}}))
    assert.are.equal("Grid.cells[2][1]: expected a number, got a string", message(Grid, {cells = {{1}, {"x"}}}))
  end)
end)

describe("arithmetic of records", function()
  it("goes leaf by leaf and keeps the constants of the left side", function()
    local a, b = layer(), layer(10)
    b.stride = "other"
    local sum, difference = a + b, b - a
    assert.are.same({{11, 22}, {33, 44}}, sum.w:totable())
    assert.are.same({45, 54}, difference.b:totable())
    assert.are.same({"same", "other"}, {sum.stride, difference.stride})
    assert.are.same({250, 360}, (a * b).b:totable())
    assert.are.same({10, 10}, (b / a).b:totable())
    assert.are.same({-5, -6}, (-a).b:totable())
    assert.is_true(Layer.is(sum))
    assert.are.same({{1, 2}, {3, 4}}, a.w:totable())
  end)

  it("takes a number on either side", function()
    local p = Point {x = 4.0, y = {2.0, Point {x = 1.0, y = "text"}}}
    assert.are.equal(5, (p + 1).x)
    assert.are.equal(-3, (1 - p).x)
    assert.are.equal(1, (2 * p).y[1] - 3)
    assert.are.equal(8, (8 / p).y[2].x)
    assert.are.equal("text", (2 * p).y[2].y)
    assert.are.equal("same", (2 * layer()).stride)
    local stepped = p - 0.5 * p
    assert.are.equal(1, stepped.y[1])
  end)

  it("reaches everything nested", function()
    local n = net()
    local step = n - 0.5 * n
    assert.are.same({{1, 2}, {3, 4}}, step.layers[1].w:totable())
    assert.are.equal(0.75, step.scale)
    assert.are.equal(0.5, step.other[1])
    assert.are.equal("n", step.other.name)
  end)

  it("is differentiable, with tracked numbers too", function()
    local p, q = Point {x = 1.0, y = bp.vector {2, 3}}, Point {x = 4.0, y = bp.vector {5, 6}}
    local g = bp.grad(function(a, b, s)
      local c = s * (a * b - a) / 2 + -b
      return c.x + bp.sum(c.y)
    end, {wrt = {1, 3}})
    local gp, gs = g(p, q, 2.0)
    assert.are.equal(3, gp.x)
    assert.are.same({4, 5}, gp.y:totable())
    assert.are.equal((3 + 2 * 4 + 3 * 5) / 2, gs)
    assert.is_true(Point.is(gp))
  end)

  it("goes through the class of instances", function()
    local Money = {}
    local function money(n) return setmetatable({n = n}, Money) end
    bp.instance(Money, {
      zero = function() return money(0) end,
      one = function() return money(1) end,
      add = function(a, b) return money(a.n + b.n) end,
      scale = function(a, s) return money(a.n * s) end,
    })
    local p = Point {x = money(6), y = 2}
    assert.are.equal(12, (p + p).x.n)
    assert.are.equal(3, (p - 0.5 * p).x.n)
    assert.are.equal(3, (p / 2).x.n)
    assert.are.equal(-6, (-p).x.n)
    assert.are.equal("+ of records: not defined for an instance and a number", message(function() return p + 1 end))
    assert.are.equal("/ of records: not defined for a number and an instance", message(function() return 1 / p end))
    assert.are.equal("* of records: not defined for an instance and an instance",
      message(function() return p * p end))
  end)

  it("says what does not go together", function()
    local p, a = Point {x = 1, y = 2}, layer()
    assert.are.equal("+ of records: expected two of one type, or a record and a number; got a Point and a Layer",
      message(function() return p + a end))
    assert.matches("got a Point and a table$", message(function() return p - {x = 1, y = 2} end))
    assert.matches("got a vector and a Point$", message(function() return bp.vector {1} * p end))
    assert.matches("got a string and a Point$", message(function() return "3" / p end))
    a.b = bp.vector {1, 2, 3}
    assert.are.equal("- of records: at b: 2 and 3 elements do not agree", message(function() return layer() - a end))
    assert.are.equal("* of records: the structures differ at y: a number and a table",
      message(function() return p * Point {x = 1, y = {2}} end))
  end)

  it("refuses the other operators with advice (P36)", function()
    local p = Point {x = 1, y = 2}
    assert.matches("^%^ of records: .*bp.map", message(function() return p ^ 2 end))
    assert.matches("^%% of records: .*bp.map", message(function() return p % 2 end))
    assert.matches("^// of records: .*bp.map", message(function() return 1 // p end))
    assert.matches("^%.%. of records: .*tostring", message(function() return "p = " .. p end))
  end)
end)
