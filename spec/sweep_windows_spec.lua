-- The reverse sweep where storage or structure is shared: P10 (one array in several places), P11 (windows), P12 (after
-- a lens has set a part). Held here: every leaf gets its own partial derivative, every element of a window its share,
-- and old and new structures read right. Gradients are small integers, compared exactly.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"

local same = help.same

-- The weighted sum of an array, so that every element has a gradient of its own: weights from, from + 1, ...
local function weighted(x, from)
  local rows, columns = bp.value(x):shape()
  local w = bp.linspace(from, from + rows * (columns or 1) - 1, rows * (columns or 1))
  return bp.sum(x * (columns and bp.reshape(w, rows, columns) or w))
end

describe("P10: the same array in several places", function()
  local function f(p) return bp.sum(p.a * p.a) + bp.sum(p.b * 5) + bp.sum(p.a * p.b) end

  it("P10: in two fields it is two leaves, with gradients that share nothing", function()
    local w = bp.vector{ 1, 2 }
    local g = bp.grad(f)({ a = w, b = w })
    same({ a = { 3, 6 }, b = { 6, 7 } }, g)
    g.a:fill(9)
    same({ 6, 7 }, g.b)
    same({ 1, 2 }, w)
  end)

  it("P10: in two arguments", function()
    local w = bp.matrix{ { 1, 2 }, { 3, 4 } }
    local ga, gb = bp.grad(function(a, b) return bp.sum(a * 2) + bp.sum(a * b) end, { wrt = { 1, 2 } })(w, w)
    same({ { 3, 4 }, { 5, 6 } }, ga)
    same({ { 1, 2 }, { 3, 4 } }, gb)
  end)

  it("P10: as a leaf and as a constant", function()
    local w = bp.vector{ 1, 2 }
    same({ 1, 2 }, bp.grad(function(x) return bp.sum(x * w) end)(w))
    same({ 1, 2 }, bp.grad(function(x, c) return bp.sum(x * c) end)(w, w))
  end)

  it("P10: a window and the array it looks into", function()
    local m = bp.matrix{ { 1, 2 }, { 3, 4 } }
    local g = bp.grad(function(p) return bp.sum(p.whole * 2) + bp.sum(p.row * p.row) end)({ whole = m, row = m[2] })
    same({ whole = { { 2, 2 }, { 2, 2 } }, row = { 6, 8 } }, g)
    g.row:fill(0)
    same({ { 2, 2 }, { 2, 2 } }, g.whole)
  end)

  it("P10: weights shared by two layers, in one sub-table and in two fields", function()
    local w = bp.matrix{ { 1, 2 }, { 3, 4 } }
    local function net(p, x) return bp.sum(bp.matmul(p.second.w, bp.matmul(p.first.w, x))) end
    local x, layer = bp.vector{ 1, 1 }, { w = w }
    local tied = bp.grad(net)({ first = layer, second = layer }, x)
    same({ { 7, 11 }, { 9, 13 } }, tied.first.w) -- outer({1, 1}, w x) + outer(w' {1, 1}, x)
    local two = bp.grad(net)({ first = { w = w }, second = { w = w } }, x)
    same({ { 4, 4 }, { 6, 6 } }, two.first.w)
    same({ { 3, 7 }, { 3, 7 } }, two.second.w)
  end)
end)

describe("P11: windows", function()
  -- Each case is tried on a leaf and on an intermediate result; parts are used in both orders.
  local v, m = bp.vector{ 1, 2, 3, 4, 5 }, bp.matrix{ { 1, 2, 3 }, { 4, 5, 6 }, { 7, 8, 9 } }
  local function slice(from, to) return function(x) return bp.slice(x, from, to) end end
  local function row(i) return function(x) return x[i] end end
  local function column(j) return function(x) return bp.column(x, j) end end
  local function whole(x) return x end
  local function element(i, j)
    return function(x) return bp.stack{ bp.element(x, i, j) } end
  end
  local cases = {
    { "overlapping slices", v, { slice(1, 3), slice(2, 5) }, { 1, 12, 14, 12, 13 } },
    { "the same slice twice", v, { slice(2, 3), slice(2, 3) }, { 0, 11, 13, 0, 0 } },
    { "touching slices", v, { slice(1, 2), slice(3, 5) }, { 1, 2, 10, 11, 12 } },
    { "a slice and the whole", v, { slice(2, 3), whole }, { 10, 12, 14, 13, 14 } },
    { "partial cover", v, { slice(2, 2), slice(4, 4) }, { 0, 1, 0, 10, 0 } },
    { "a slice of a slice, beside it", v, { slice(2, 4), function(x) return bp.slice(bp.slice(x, 2, 5), 2, 3) end },
      { 0, 1, 12, 14, 0 } },
    { "elements and a slice", v, { element(2), slice(1, 3), element(2) }, { 10, 112, 12, 0, 0 } },
    { "a row and the whole", m, { row(2), whole }, { { 10, 11, 12 }, { 14, 16, 18 }, { 16, 17, 18 } } },
    { "a row twice", m, { row(3), row(3) }, { { 0, 0, 0 }, { 0, 0, 0 }, { 11, 13, 15 } } },
    { "a row and a column", m, { row(1), column(2) }, { { 1, 12, 3 }, { 0, 11, 0 }, { 0, 12, 0 } } },
    { "two columns", m, { column(1), column(3) }, { { 1, 0, 10 }, { 2, 0, 11 }, { 3, 0, 12 } } },
    { "rows that overlap", m, { slice(1, 2), slice(2, 3) }, { { 1, 2, 3 }, { 14, 16, 18 }, { 13, 14, 15 } } },
    { "an element, its row, its column", m, { element(2, 2), row(2), column(2) },
      { { 0, 100, 0 }, { 10, 113, 12 }, { 0, 102, 0 } } },
    { "a row of some rows", m, { function(x) return bp.slice(x, 2, 3)[2] end, row(3) },
      { { 0, 0, 0 }, { 0, 0, 0 }, { 11, 13, 15 } } },
    { "a row of the transpose", m, { function(x) return bp.transpose(x)[1] end, column(1) },
      { { 11, 0, 0 }, { 13, 0, 0 }, { 15, 0, 0 } } },
    { "a reshape and its slice", m, { function(x) return bp.slice(bp.flatten(x), 2, 4) end, row(1) },
      { { 10, 12, 14 }, { 3, 0, 0 }, { 0, 0, 0 } } },
    { "gathered rows and a row", m, { function(x) return bp.gather(x, { 3, 3 }) end, row(3) },
      { { 0, 0, 0 }, { 0, 0, 0 }, { 15, 18, 21 } } },
  }
  local starts = { 1, 10, 100 }

  for _, case in ipairs(cases) do
    it("P11: " .. case[1], function()
      local x, parts, want = case[2], case[3], case[4]
      local function f(y, first, last, step)
        local total = 0
        for i = first, last, step do total = total + weighted(parts[i](y), starts[i]) end
        return total
      end
      local n = #parts
      same(want, bp.grad(function(y) return f(y, 1, n, 1) end)(x))
      same(want, bp.grad(function(y) return f(y, n, 1, -1) end)(x))
      same(want, bp.grad(function(y) return f(y * 1, 1, n, 1) end)(x))
      same(want, bp.grad(function(y) return f(y + 0, n, 1, -1) end)(x))
      local nan = help.fill_like(x, 0 / 0)
      same(want, bp.grad(function(y) return f(y, 1, n, 1) end, { into = nan })(x))
      same(want, nan)
      local same_storage, large = help.window(x)
      same(want, bp.grad(function(y) return f(y, 1, n, 1) end)(same_storage))
      assert(large:get(1, 1) ~= large:get(1, 1)) -- still NaN around the argument
    end)
  end

  it("P11: windows without elements, also behind the end, and of a matrix without rows", function()
    for _, f in ipairs{
      function(x) return bp.sum(bp.slice(x, 4, 3)) + bp.sum(bp.slice(x, 2, 3)) end,
      function(x) return bp.sum(bp.slice(x, 2, 3)) + bp.sum(bp.slice(x, 4, 3)) + bp.sum(bp.slice(x, 1, 0)) end,
    } do
      same({ 0, 1, 1 }, bp.grad(f)(bp.ones(3)))
      same({ 0, 2, 2 }, bp.grad(function(x) return f(x * 2) end)(bp.ones(3)))
    end
    for j = 1, 3 do
      local g = bp.grad(function(x) return bp.sum(bp.column(x * 2, j)) end)(bp.zeros(0, 3))
      same("0x3", help.shape(g))
      same("0x3", help.shape(bp.grad(function(x) return { bp.column(x, 1), bp.column(x, j) } end)(bp.zeros(0, 3))))
    end
  end)

  it("P11: the result is a window, and the whole has its own use before and after", function()
    same({ { 2, 2, 2 }, { 3, 3, 3 }, { 2, 2, 2 } }, bp.grad(function(x)
      local r = x[2]
      return { bp.sum(x), r, bp.sum(x) }
    end)(m))
  end)

  it("P11: several windows of one intermediate, each used through further operations", function()
    same({ 4, 24, 54, 80, 70 }, bp.grad(function(x)
      local y = x * x
      local a, b = bp.slice(y, 1, 4), bp.slice(y, 2, 5)
      local c = bp.slice(a, 3, 4) * 2 -- elements 3 and 4 of y
      return bp.sum(a * 2) + weighted(b, 4) + bp.sum(c)
    end)(v))
  end)
end)

describe("P12: after set", function()
  it("P12: the old and the new record read right and both get their gradients", function()
    local R = bp.record("R", "a", "b")
    local Outer = bp.record("Outer", "r", "s")
    local lens = Outer.lens.r .. R.lens.a
    local o = Outer{ r = R{ a = bp.vector{ 1, 2 }, b = bp.vector{ 3, 4 } }, s = 5 }
    local g = bp.grad(function(old)
      local new = bp.set(old, lens, bp.view(old, lens) * 10)
      same({ 1, 2 }, bp.value(old.r.a))
      same({ 10, 20 }, bp.value(new.r.a))
      assert(rawequal(new.r.b, old.r.b))
      local newer = bp.over(new, lens, function(a) return a * new.s end)
      same({ 50, 100 }, bp.value(newer.r.a))
      same({ 10, 20 }, bp.value(new.r.a))
      return bp.sum(old.r.a) + bp.sum(new.r.a * new.r.b) + bp.sum(newer.r.a)
    end)(o)
    same({ r = { a = { 81, 91 }, b = { 10, 20 } }, s = 30 }, g)
    same({ 1, 2 }, o.r.a)
  end)

  it("P12: a part replaced by a constant stops its gradient, the old one keeps its own", function()
    local R = bp.record("R", "a", "b")
    same({ a = 3, b = 4 }, bp.grad(function(old)
      local new = bp.set(old, R.lens.a, 7)
      return old.a * 3 + new.a * new.b - new.b * 3
    end)(R{ a = 1, b = 2 }))
  end)

  it("P12: lenses into arrays", function()
    local cases = {
      { bp.element_at(2), bp.vector{ 1, 2, 3 }, { 1, 12, 3 }, { 11, 2, 13 } },
      { bp.range(2, 3), bp.vector{ 1, 2, 3 }, { 1, 12, 13 }, { 11, 2, 3 } },
      { bp.element_at(1, 2), bp.matrix{ { 1, 2 }, { 3, 4 } }, { { 1, 12 }, { 3, 4 } }, { { 11, 2 }, { 13, 14 } } },
      { bp.row_at(1), bp.matrix{ { 1, 2 }, { 3, 4 } }, { { 11, 12 }, { 3, 4 } }, { { 1, 2 }, { 13, 14 } } },
      { bp.column_at(2), bp.matrix{ { 1, 2 }, { 3, 4 } }, { { 1, 12 }, { 3, 14 } }, { { 11, 2 }, { 13, 4 } } },
    }
    for i, case in ipairs(cases) do
      local lens, x, replaced, gradient = table.unpack(case)
      local g = bp.grad(function(old)
        local new = bp.set(old, lens, bp.constant(bp.view(old, lens)) + 10)
        same(replaced, bp.value(new), "case " .. i)
        same(x, bp.value(old), "case " .. i)
        return weighted(old, 1) + bp.sum(new) * 10
      end)(x)
      same(gradient, g, "case " .. i)
      local over = bp.grad(function(old)
        local new = bp.over(old, lens, function(part) return part * 3 end)
        return bp.sum(new) * 5 - bp.sum(old) * 5 + bp.sum(bp.view(new, lens))
      end)(x)
      local expected = bp.set(help.fill_like(x, 0), lens, help.fill_like(bp.view(x, lens), 13))
      same(expected, over, "case " .. i)
    end
  end)

  it("P12: assignment into f's own copy of a table", function()
    same({ w = { 17, 19 }, b = { 1, 2 } }, bp.grad(function(p)
      local w = p.w
      p.w = w * p.b
      local again = p.w
      p.w = again * 3
      return bp.sum(w) * 10 + bp.sum(again) + bp.sum(p.w) * 2 - bp.sum(again * 6)
    end)({ w = bp.vector{ 1, 2 }, b = bp.vector{ 7, 9 } }))
  end)
end)
