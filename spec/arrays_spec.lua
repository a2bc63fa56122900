-- The contract's section Arrays: constructors, indexing, printing and conversion. Windows, in-place calls and release
-- stand in arrays_memory_spec, operators in arrays_operators_spec, the generator in arrays_rng_spec. Values are exact
-- unless a tolerance is given.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"

local close, same, raises, shape = help.close, help.same, help.raises, help.shape
local nan, inf = help.nan, help.inf

-- Sizes that must be refused before anything is allocated.
local bad_sizes = {
  negative = -1, fractional = 1.5, nan = nan, infinite = inf, minus_infinite = -inf, two_to_31 = 2 ^ 31,
  two_to_40 = 2 ^ 40, huge_integer = math.maxinteger, least_integer = math.mininteger, text = "three", table = {},
}

describe("constructors", function()
  it("make vectors and matrices from tables in both dtypes", function()
    for _, dtype in ipairs(help.dtypes) do
      local v, m = bp.vector({ 1, -2, 3.5 }, dtype), bp.matrix({ { 1, 2 }, { 3, 4 }, { 5, 6 } }, dtype)
      same({ 1, -2, 3.5 }, v)
      same({ { 1, 2 }, { 3, 4 }, { 5, 6 } }, m)
      assert.equal(dtype, v:dtype())
      assert.equal(dtype, m:dtype())
      assert.same({ "3", "3x2" }, { shape(v), shape(m) })
      assert.same({ 3, 3 }, { #v, #m })
      assert.same({ "vector", "matrix" }, { bp.kind(v), bp.kind(m) })
    end
    assert.equal("f64", bp.vector{ 1 }:dtype())
    assert.equal("f64", bp.matrix{ { 1 } }:dtype())
  end)

  it("hold numbers as the dtype does", function()
    assert.equal(0.1, bp.vector{ 0.1 }[1])
    assert.equal(help.f32(0.1), bp.vector({ 0.1 }, "f32")[1])
    assert.equal("float", math.type(bp.vector{ 1 }[1]))
    same({ nan, inf, -inf }, bp.vector{ nan, inf, -inf })
    assert.equal(inf, bp.vector({ 1e300 }, "f32")[1])
  end)

  it("make empty arrays", function()
    assert.equal("0", shape(bp.vector{}))
    assert.equal("0x0", shape(bp.matrix{}))
    assert.equal("2x0", shape(bp.matrix{ {}, {} }))
    assert.equal("0x5", shape(bp.zeros(0, 5)))
    assert.equal("5x0", shape(bp.zeros(5, 0)))
    same({}, bp.zeros(0))
    same({ {}, {} }, bp.zeros(2, 0))
    assert.equal(0, #bp.zeros(0, 5))
  end)

  it("refuse tables that are not vectors or matrices", function()
    for _, bad in ipairs{ { "x" }, { "1" }, { true }, { {} }, { 1, "x" }, { { 1 } } } do
      raises("bp.vector", bp.vector, bad)
    end
    for _, bad in ipairs{ { 1, 2 }, { { 1, "x" } }, { { 1 }, 2 }, { { { 1 } } } } do
      raises("bp.matrix", bp.matrix, bad)
    end
    for _, ragged in ipairs{ { { 1, 2 }, { 3 } }, { { 1 }, { 2, 3 } }, { {}, { 1 } } } do
      raises("bp.matrix", bp.matrix, ragged)
    end
    local gap = { 1 }
    gap[3] = 3
    raises({ "bp.vector", "key 3" }, bp.vector, gap)
    raises({ "bp.matrix", "key 3" }, bp.matrix, { gap })
    raises({ "bp.stack", "key 3" }, bp.stack, gap)
    raises({ "bp.vector", "key n" }, bp.vector, table.pack(1, nil))
    same({ 1, 2 }, bp.vector(table.pack(1, 2)))
    for _, bad in ipairs{ "x", 3, true, print } do
      raises("bp.vector", bp.vector, bad)
      raises("bp.matrix", bp.matrix, bad)
    end
    raises("bp.vector", bp.vector)
    raises("bp.matrix", bp.matrix)
  end)

  it("refuse other dtypes", function()
    for _, dtype in ipairs{ "f16", "double", "", 64, true } do
      raises("bp.vector", bp.vector, { 1 }, dtype)
      raises("bp.matrix", bp.matrix, { { 1 } }, dtype)
      raises("bp.zeros", bp.zeros, 2, 2, dtype)
    end
    raises({ "bp.zeros", "f16" }, bp.zeros, 2, "f16")
  end)

  it("zeros, ones and full take one or two sizes and a dtype", function()
    for _, row in ipairs{ { bp.zeros, 0 }, { bp.ones, 1 }, { function(...) return bp.full(2.5, ...) end, 2.5 } } do
      local make, value = row[1], row[2]
      same({ value, value, value }, make(3))
      same({ { value, value }, { value, value }, { value, value } }, make(3, 2))
      same(bp.vector({ value, value }, "f32"), make(2, "f32"))
      same(bp.matrix({ { value, value } }, "f32"), make(1, 2, "f32"))
      assert.same({ "f64", "f64" }, { make(3):dtype(), make(3, 2):dtype() })
    end
    same({ help.f32(0.1) }, bp.full(0.1, 1, "f32"))
    same({ nan, nan }, bp.full(nan, 2))
    raises("bp.full", bp.full, "x", 2)
    raises("bp.full", bp.full, nil, 2)
  end)

  it("eye and linspace", function()
    same({ { 1, 0, 0 }, { 0, 1, 0 }, { 0, 0, 1 } }, bp.eye(3))
    assert.equal("0x0", shape(bp.eye(0)))
    close({ 0, 0.25, 0.5, 0.75, 1 }, bp.linspace(0, 1, 5))
    close({ 2, 1, 0, -1 }, bp.linspace(2, -1, 4))
    assert.equal(1, #bp.linspace(3, 4, 1))
    assert.equal(3, bp.linspace(3, 4, 1)[1])
    assert.equal(0, #bp.linspace(0, 1, 0))
    for n = 2, 50 do -- the ends are exact, and no size is one off
      local v = bp.linspace(0.1, 0.7, n)
      assert.same({ n, 0.1, 0.7 }, { #v, v[1], v[n] })
    end
    raises("bp.linspace", bp.linspace, 0, "x", 3)
    raises("bp.linspace", bp.linspace, 0, 1)
  end)

  for name, size in pairs(bad_sizes) do
    it("P31: refuse a size that is " .. name, function()
      local live = help.live()
      for _, call in ipairs{ "zeros", "ones", "eye" } do raises("bp." .. call, bp[call], size) end
      for _, call in ipairs{ "zeros", "ones" } do
        raises("bp." .. call, bp[call], 2, size)
        raises("bp." .. call, bp[call], size, 2)
        raises("bp." .. call, bp[call], size, 0)
        raises("bp." .. call, bp[call], 0, size)
      end
      raises("bp.full", bp.full, 1, size)
      raises("bp.full", bp.full, 1, 2, size)
      raises("bp.linspace", bp.linspace, 0, 1, size)
      assert.equal(live, help.live())
    end)
  end

  it("P31: refuse two sizes whose product is too large", function()
    local live = help.live()
    for _, sizes in ipairs{ { 2 ^ 16, 2 ^ 15 }, { 2 ^ 30, 4 }, { 2 ^ 31 - 1, 2 ^ 31 - 1 }, { 2 ^ 31 - 1, 2 } } do
      local n, m = math.tointeger(sizes[1]), math.tointeger(sizes[2])
      raises("bp.zeros", bp.zeros, n, m)
      raises("bp.ones", bp.ones, n, m, "f32")
      raises("bp.full", bp.full, 1, n, m)
    end
    raises("bp.eye", bp.eye, 2 ^ 16 | 0)
    assert.equal(live, help.live())
  end)

  it("name the user's own line in their errors", function()
    local line = debug.getinfo(1, "l").currentline + 1
    local message = raises("bp.zeros", function() return bp.zeros(-1) end)
    assert.truthy(message:find(("arrays_spec.lua:%d:"):format(line), 1, true), message)
  end)
end)

describe("indexing", function()
  it("reads and writes elements, rows and cells", function()
    for _, dtype in ipairs(help.dtypes) do
      local v, m = bp.vector({ 1, 2, 3 }, dtype), bp.matrix({ { 1, 2, 3 }, { 4, 5, 6 } }, dtype)
      assert.same({ 1, 3 }, { v[1], v[3] })
      v[2] = -7
      same({ 1, -7, 3 }, v)
      same({ 4, 5, 6 }, m[2])
      assert.equal(6, m:get(2, 3))
      m:set(1, 2, 0.5)
      same({ { 1, 0.5, 3 }, { 4, 5, 6 } }, m)
      assert.equal("float", math.type(m:get(1, 1)))
    end
  end)

  it("is nil one past the end, so that ipairs works, and an error further out", function()
    local v, m, seen = bp.vector{ 5, 6, 7 }, bp.matrix{ { 1, 2 }, { 3, 4 } }, {}
    for i, x in ipairs(v) do seen[i] = x end
    assert.same({ 5, 6, 7 }, seen)
    seen = {}
    for i, row in ipairs(m) do seen[i] = row:totable() end
    assert.same({ { 1, 2 }, { 3, 4 } }, seen)
    assert.is_nil(v[4])
    assert.is_nil(bp.zeros(0)[1])
    for _, i in ipairs{ 0, -1, 5, math.maxinteger, math.mininteger, 1.5, 2 ^ 53, nan, inf } do
      raises("3", function() return v[i] end)
      raises("2", function() return m[i == 5 and 4 or i] end)
    end
    for _, cell in ipairs{ { 0, 1 }, { 3, 1 }, { 1, 0 }, { 1, 3 }, { -1, 1 }, { 1, 1.5 }, { 1 }, {}, { "x", 1 } } do
      raises("get", m.get, m, cell[1], cell[2])
      raises("set", m.set, m, cell[1], cell[2], 1)
    end
    same({ { 1, 2 }, { 3, 4 } }, m)
  end)

  it("writes numbers only, and only inside", function()
    local v, m = bp.vector{ 1, 2, 3 }, bp.matrix{ { 1, 2 } }
    for _, i in ipairs{ 0, -1, 4, 1.5, nan, "x", true } do raises("", function() v[i] = 1 end) end
    for _, s in ipairs{ "1", "x", true, {}, bp.vector{ 1 } } do
      raises("", function() v[1] = s end)
      raises("set", m.set, m, 1, 1, s)
    end
    raises("", function() v[1] = nil end)
    raises("set", m.set, m, 1, 1)
    same({ 1, 2, 3 }, v)
    same({ { 1, 2 } }, m)
  end)

  it("takes a float that is a whole number, as Lua's tables do", function()
    assert.equal(6, bp.vector{ 5, 6, 7 }[2.0])
  end)
end)

describe("bp.kind", function()
  it("is the same for plain and tracked", function()
    local Pair = bp.record("Pair", "left", "right")
    local x = { 2.5, bp.ones(2), bp.ones(2, 2, "f32"), Pair{ left = 1.0, right = bp.ones(1) }, { 1.0 } }
    local function kinds(list)
      local names = {}
      for i = 1, #list do names[i] = bp.kind(list[i]) end
      return names
    end
    local expected = { "number", "vector", "matrix", "record", "table" }
    assert.same(expected, kinds(x))
    bp.grad(function(y)
      assert.same(expected, kinds(y))
      return y[1]
    end)(x)
    assert.equal("number", bp.kind(1))
    for _, other in ipairs{ "text", true, print } do bp.kind(other) end -- whatever it says, it does not raise
  end)
end)

describe("printing and conversion", function()
  it("shows shape, dtype and values", function()
    for _, dtype in ipairs(help.dtypes) do
      local text = tostring(bp.vector({ 1.5, -2.25 }, dtype))
      for _, part in ipairs{ "2", dtype, "1.5", "-2.25" } do assert.truthy(text:find(part, 1, true), text) end
      text = tostring(bp.matrix({ { 1.5, 7 }, { -0.125, 3 }, { 5, 6 } }, dtype))
      for _, part in ipairs{ "3x2", dtype, "1.5", "-0.125" } do assert.truthy(text:find(part, 1, true), text) end
    end
    assert.truthy(tostring(bp.zeros(0)):find("0", 1, true))
    assert.truthy(tostring(bp.zeros(0, 3)):find("0x3", 1, true))
    local special = tostring(bp.vector{ nan, inf, -inf })
    assert.truthy(special:find("nan", 1, true) and special:find("inf", 1, true), special)
  end)

  it("shortens what is large", function()
    local small, large = #tostring(bp.ones(5)), #tostring(bp.ones(100000))
    assert.is_true(large < 2000 and large > small)
    assert.is_true(#tostring(bp.ones(1000, 1000)) < 4000)
    assert.truthy(tostring(bp.ones(1000, 1000)):find("1000x1000", 1, true))
  end)

  it("totable gives fresh Lua tables of floats", function()
    local m = bp.matrix{ { 1, 2 }, { 3, 4 } }
    local t = m:totable()
    assert.same({ { 1.0, 2.0 }, { 3.0, 4.0 } }, t)
    assert.equal("float", math.type(t[1][1]))
    t[1][1] = 9
    assert.equal(1, m:get(1, 1))
    assert.same({ 2.0, 4.0 }, bp.column(m, 2):totable())
  end)

  it("clone is a copy of its own", function()
    for _, dtype in ipairs(help.dtypes) do
      local m = bp.matrix({ { 1, 2 }, { 3, 4 } }, dtype)
      local whole, column = m:clone(), bp.column(m, 2):clone()
      m:fill(0)
      same(bp.matrix({ { 1, 2 }, { 3, 4 } }, dtype), whole)
      same(bp.vector({ 2, 4 }, dtype), column)
      column[1] = 8
      same({ { 0, 0 }, { 0, 0 } }, m)
    end
  end)

  it("astype rounds once and takes windows", function()
    local v = bp.vector{ 0.1, 1e-50, 1e300, nan, 16777217 }
    same(bp.vector({ help.f32(0.1), 0, inf, nan, 16777216 }, "f32"), v:astype("f32"))
    same({ help.f32(0.1) }, bp.slice(v:astype("f32"), 1, 1):astype("f64"))
    same(bp.vector({ 2, 4 }, "f32"), bp.column(bp.matrix{ { 1, 2 }, { 3, 4 } }, 2):astype("f32"))
    local again = v:astype("f64") -- to the same dtype: the values, whether shared or not
    same(v, again)
    for _, bad in ipairs{ "f16", 1, {} } do raises("astype", v.astype, v, bad) end
    raises("astype", v.astype, v)
  end)

  it("get reads an element of a vector by one position", function()
    local v = bp.vector{ 5, 6 }
    assert.equal(6, v:get(2))
    raises("a vector takes one position", v.get, v, 1, 1)
    raises("position 3 is out of range 1 to 2", v.get, v, 3)
  end)
end)
