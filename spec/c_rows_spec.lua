-- Operations in C that the built-in ones have no need of, and the functions that hosts call (support/c_rows.c, which
-- `make test` builds).

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"
local process = require "support.process"
local c = require "c_rows"

local same, raises = help.same, help.raises
local v = bp.vector{ 1, 2, 3 }

describe("operations in C:", function()
  it("P02: destinations whose writes are interleaved do not meet, also of one operand used twice", function()
    same({ 3, 12, 27 }, bp.grad(function(x) return bp.sum(c.product(x, x)) end)(v))
    same({ 4, 13, 28 }, bp.grad(function(x) return bp.sum(x) + bp.sum(c.product(x, x)) end)(v))
    -- overlapping windows of one array: x1^2 x2 + x2^2 x3
    same({ 4, 13, 4 }, bp.grad(function(x) return bp.sum(c.product(bp.slice(x, 1, 2), bp.slice(x, 2, 3))) end)(v))
    same({ { 4, 12, 24 }, { 1, 4, 9 } }, { bp.grad(function(x, y)
      return bp.sum(c.product(x, y))
    end, { wrt = { 1, 2 } })(v, bp.vector{ 2, 3, 4 }) })
  end)

  it("of two results one may have no cotangent", function()
    local ones = bp.ones(3)
    same({ 1, 1, 1 }, bp.grad(function(x) return bp.sum((c.both(x, ones))) end)(v))
    same({ 1, 1, 1 }, bp.grad(function(x) return bp.sum((select(2, c.both(x, ones)))) end)(v))
    same({ 2, 2, 2 }, bp.grad(function(x)
      local sum, product = c.both(x, ones)
      return bp.sum(sum) + bp.sum(product)
    end)(v))
    bp.check(function(x)
      local sum, product = c.both(x, x)
      return bp.sum(sum * product)
    end, v)
  end)

  it("check_finite looks at a gradient that windows have written in part", function()
    local root = bp.grad(function(x) return bp.sum(bp.sqrt(bp.slice(x, 1, 2))) end, { check_finite = true })
    same({ 0.5, 0.25, 0 }, root(bp.vector{ 1, 4, 0 }))
    raises("NaN or inf", root, bp.vector{ 1, 0, 1 })
  end)

  it("name themselves in their errors; malformed rows are refused", function()
    raises("test.product: expected two f64 vectors of one length", c.product, v, bp.zeros(2))
    raises("an operation needs a name, a signature, shape and forward", c.malformed, 1)
    raises("test.signature: bad name or signature: tensor x", c.malformed, 2)
    raises("test.flags: unknown flags", c.malformed, 3)
  end)
end)

describe("the table for hosts:", function()
  it("is there for a module that is loaded before the library", function()
    assert.equal("vector 3 f64 [2, 8, 18]\n", process.lua("-e", [[
      local c = require "c_rows"
      local bp = require "backprop"
      print(c.product(bp.vector{ 1, 2, 3 }, bp.full(2, 3)))]]))
  end)

  it("hands arrays out and in", function()
    same({ 0, 1, 2 }, c.count(3))
    same({ { 0, 1, 2 }, { 3, 4, 5 } }, c.count(2, 3))
    local x = c.count(3)
    assert(c.double_in_place(x) and not c.double_in_place(3) and not c.double_in_place())
    same({ 0, 2, 4 }, x)
    bp.release(x)
    assert(not c.double_in_place(x))
    raises("too many elements", c.count, 2 ^ 31 | 0)
    raises("too many elements", c.count, 2 ^ 20 | 0, 2 ^ 20 | 0)
  end)

  it("P13: touch tells a gradient that the values are gone", function()
    raises("changed in place", bp.grad(function(x)
      local y = bp.vector{ 1, 2, 3 }
      local z = x * y
      c.double_in_place(y)
      return bp.sum(z)
    end), v)
  end)
end)
