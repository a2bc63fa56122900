-- The sum or the mean of a product, or of squares, that nothing else uses: the sweep recognises it (sweep.c) and does
-- not write its cotangent out. The witness is the plain composition, which runs where a check for NaN watches.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"

local close, same, raises = help.close, help.same, help.raises
local tolerances = { f64 = 1e-12, f32 = 1e-6 }

-- The gradients of f both ways; also what bp.stats counts, which must be the same.
local function both(f, wrt, ...)
  local found, additions = {}, {}
  for way, check_finite in ipairs{ false, true } do
    bp.stats(true)
    found[way] = { bp.grad(f, { wrt = wrt, check_finite = check_finite })(...) }
    additions[way] = bp.stats().additions
  end
  same(additions[2], additions[1], "additions")
  return found[1], found[2]
end

local sums = { sum = bp.sum, mean = bp.mean, ["sum over an axis that is all"] = function(x)
  return bp.sum(x, bp.kind(x) == "vector" and 1 or nil)
end }

local functions = {
  ["a product"] = function(reduce) return function(x, y) return reduce(x * y) end end,
  ["a product with itself"] = function(reduce) return function(x, y) return reduce(x * x) + bp.sum(y) end end,
  ["squares"] = function(reduce) return function(x, y) return reduce(bp.square(x)) - bp.sum(y) end end,
  ["squares of a difference"] = function(reduce) return function(x, y) return reduce(bp.square(x - y)) end end,
  ["a difference times itself"] = function(reduce)
    return function(x, y)
      local r = x - y
      return reduce(r * r)
    end
  end,
  ["a product of what is used again"] = function(reduce)
    return function(x, y) return 3 * reduce(bp.sin(x) * y) + bp.sum(x * 2 + y) end
  end,
}

describe("the sum of a product", function()
  for _, dtype in ipairs(help.dtypes) do
    local function operands()
      local r = bp.rng(3)
      local m, n = r:uniform(-1, 1, 4, 9, dtype), r:uniform(-1, 1, 9, 3, dtype)
      return { { r:uniform(-1, 1, 9, dtype), r:uniform(-1, 1, 9, dtype) }, { m[2], m[3] },
        { bp.column(n, 1), bp.column(n, 3) }, { m, r:uniform(-1, 1, 4, 9, dtype) }, { m[1], bp.column(n, 2) } }
    end
    for name, make in pairs(functions) do
      for how, reduce in pairs(sums) do
        it(("P29: is the plain composition: %s of %s in %s"):format(how, name, dtype), function()
          for _, pair in ipairs(operands()) do
            for _, wrt in ipairs{ { 1 }, { 2 }, { 1, 2 } } do
              local found, expected = both(make(reduce), wrt, pair[1], pair[2])
              close(expected, found, tolerances[dtype])
            end
          end
        end)
      end
    end
  end

  it("P29: of windows and shared storage is the plain composition", function()
    local m = bp.rng(5):normal(0, 1, 3, 8)
    for _, f in ipairs{
      function(x) return bp.sum(x[1] * x[2]) end,
      function(x) return bp.mean(bp.slice(x[1], 1, 5) * bp.slice(x[1], 3, 7)) end,
      function(x) return bp.sum(bp.column(x, 2) * bp.column(x, 2)) + bp.sum(bp.square(x)) end,
      function(x) return bp.sum(bp.square(x[3])) + x:get(3, 1) end,
    } do
      local found, expected = both(f, { 1 }, m)
      close(expected, found, 1e-12)
    end
  end)

  it("P29: that something else uses, or is broadcast, is the plain composition to the last bit", function()
    local r = bp.rng(6)
    local x, y, m = r:normal(0, 1, 9), r:normal(0, 1, 9), r:normal(0, 1, 4, 9)
    for _, f in ipairs{
      function(a, b)
        local p = a * b
        return bp.sum(p) + bp.sum(bp.sin(p))
      end,
      function(a, b)
        local p = a * b
        local q = bp.sum(bp.sin(p))
        return q + bp.sum(p) * 0.7
      end,
      function(a, b)
        local p = bp.square(a)
        return bp.sum(p) * bp.mean(p) + bp.sum(b)
      end,
      function(a, b) return bp.sum(m * a) + bp.sum(b * m) end,
      function(a, b) return bp.sum(a * 3) + bp.mean(0.3 * b) end,
      function(a, b) return bp.sum(bp.sum(m * a, 2)) + bp.dot(bp.sum(m * b, 1), y) end,
    } do
      local found, expected = both(f, { 1, 2 }, x, y)
      same(expected, found)
    end
  end)

  it("P29: that is itself a result is the plain composition to the last bit", function()
    local x, y = bp.rng(6):normal(0, 1, 9), bp.rng(7):normal(0, 1, 9)
    local found = {}
    for way = 1, 2 do
      bp.check_finite(way == 2)
      local _, pullback = bp.vjp(function(a, b)
        local p = a * b
        return { bp.sum(p) * 0.7, p }
      end, x, y)
      found[way] = { pullback() }
      bp.check_finite(false)
    end
    same(found[2], found[1])
  end)

  it("of numbers is a product", function()
    same(3, bp.grad(function(a) return bp.sum(a * 3) end)(2.0))
    same(4, bp.grad(function(a) return bp.mean(bp.square(a)) end)(2.0))
    same(5, bp.grad(function(a, b) return bp.sum(a * b) end)(2.0, 5.0))
  end)

  it("P06: with a cotangent of 0 gives 0, beside an inf too", function()
    local x, y = bp.vector{ 1, help.inf, -2 }, bp.vector{ help.inf, 2, 3 }
    for _, f in ipairs{ function(a, b) return bp.sum(a * b) end, function(a) return bp.sum(bp.square(a)) end } do
      local _, pullback = bp.vjp(f, x, y)
      same({ { 0, 0, 0 }, { 0, 0, 0 } }, { pullback(0.0) })
    end
  end)

  it("P28: does not hide a NaN", function()
    local gx, gy = bp.grad(function(a, b) return bp.sum(a * b) end, { wrt = { 1, 2 } })(bp.vector{ 1, help.nan },
      bp.vector{ 2, 3 })
    same({ 2, 3 }, gx)
    same({ 1, help.nan }, gy)
  end)

  it("P28: takes an f32 cotangent that is rounded to 0 for 0, as the plain composition does", function()
    local x, y = bp.vector({ 1, 2 }, "f32"), bp.vector({ help.inf, 1 }, "f32")
    for _, f in ipairs{
      function(a, b) return bp.sum(a * b) end, function(a, b) return bp.sum((a * b):clone()) end,
    } do
      local _, pullback <close> = bp.vjp(f, x, y)
      same({ 0, 0 }, (pullback(1e-50)))
    end
  end)

  it("P13: raises where an operand was changed in place", function()
    local y = bp.vector{ 1, 2, 3 }
    raises("bp.mul: an array that it needs (an argument) was changed in place", bp.grad(function(a)
      local s = bp.sum(a * y)
      y[1] = 5
      return s
    end), bp.vector{ 1, 2, 3 })
  end)

  it("P07: gives the same for every cotangent, and P05 writes over what was there", function()
    local x, y = bp.vector{ 1, 2, 3 }, bp.vector{ 4, 5, 6 }
    local _, pullback = bp.vjp(function(a, b) return bp.mean(a * b) end, x, y)
    local first = { pullback(3.0) }
    same({ { 4, 5, 6 }, { 1, 2, 3 } }, first)
    same({ { -8, -10, -12 }, { -2, -4, -6 } }, { pullback(-6.0) })
    same(first, { pullback(3.0) })
    local into = bp.full(help.nan, 3)
    bp.grad(function(a) return bp.sum(bp.square(a)) end, { into = into })(x)
    same({ 2, 4, 6 }, into)
  end)
end)
