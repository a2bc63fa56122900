-- The memory of arrays: windows that share it, calls that change it in place, and giving it back. Values are exact.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local core = require "backprop.core"
local help = require "support.helpers"

local same, raises = help.same, help.raises
local nan, inf = help.nan, help.inf

describe("windows", function()
  it("overlap where they have an element in common, and nowhere else", function()
    for _, dtype in ipairs(help.dtypes) do
      local m = bp.zeros(4, 3, dtype)
      local windows = { m, bp.slice(m, 3, 2), bp.flatten(m), bp.slice(bp.flatten(m), 2, 5), bp.reshape(m, 2, 6)[2] }
      for i = 1, 4 do windows[#windows + 1] = m[i] end
      for i = 1, 3 do
        windows[#windows + 1] = bp.slice(m, i, i + 1)
        local column = bp.column(m, i)
        for to = 2, 4 do windows[#windows + 1] = bp.slice(column, to - 1, to) end
        windows[#windows + 1] = column
      end
      for i, x in ipairs(windows) do
        for k, y in ipairs(windows) do
          m:fill(0)
          x:fill(1)
          assert.equal(bp.sum(y) > 0, core.overlap(x, y), i .. " and " .. k)
        end
      end
      assert.is_false(core.overlap(m, bp.zeros(4, 3, dtype)))
    end
  end)

  it("of a matrix share its memory: row, slice, column, reshape, flatten", function()
    for _, dtype in ipairs(help.dtypes) do
      local m = bp.matrix({ { 1, 2, 3 }, { 4, 5, 6 }, { 7, 8, 9 } }, dtype)
      m[1][2] = 20
      bp.row(m, 3)[1] = 70
      bp.slice(m, 2, 3):set(1, 1, 40)
      bp.column(m, 3)[2] = 60
      bp.reshape(m, 1, 9):set(1, 5, 50)
      bp.flatten(m)[9] = 90
      same({ { 1, 20, 3 }, { 40, 50, 60 }, { 70, 8, 90 } }, m)
      m:fill(0)
      local row, column, part, whole = m[2], bp.column(m, 2), bp.slice(m, 2, 2), bp.flatten(m)
      m:set(2, 2, 5)
      same({ 0, 5, 0 }, row)
      same({ 0, 5, 0 }, column)
      same({ { 0, 5, 0 } }, part)
      same({ 0, 0, 0, 0, 5, 0, 0, 0, 0 }, whole)
    end
  end)

  it("of a vector share its memory: slice, reshape", function()
    local v = bp.vector{ 1, 2, 3, 4, 5, 6 }
    local part = bp.slice(v, 2, 4)
    part[1] = 20
    bp.reshape(v, 2, 3):set(2, 3, 60)
    same({ 1, 20, 3, 4, 5, 60 }, v)
    v[4] = 40
    same({ 20, 3, 40 }, part)
    assert.equal(3, #part)
    assert.is_nil(part[4])
    raises("", function() part[4] = 1 end)
    raises("", function() return part[0] end)
  end)

  it("of windows", function()
    local m = bp.reshape(bp.linspace(1, 24, 24), 6, 4)
    local inner = bp.slice(bp.column(bp.slice(m, 2, 5), 3), 2, 3)
    same({ 11, 15 }, inner)
    inner[2] = -1
    assert.equal(-1, m:get(4, 3))
    inner:fill(0)
    same({ 3, 7, 0, 0, 19, 23 }, bp.column(m, 3))
    same({ 9, 10, 0, 12 }, m[3])
    same({ { 0, 0 } }, bp.reshape(inner, 1, 2))
  end)

  it("keep their elements when the whole is given back or collected", function()
    local m = bp.full(3, 40, 30)
    local row, column = m[2], bp.column(m, 7)
    m = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    local other = bp.full(9, 40, 30)
    same({ 90, 120 }, { bp.sum(row), bp.sum(column) })
    assert.equal(9, other[1][1])
    local released = bp.full(3, 40, 30)
    row = released[2]
    bp.release(released)
    other = bp.full(9, 40, 30)
    local ok, sum = pcall(bp.sum, row) -- either answer is fine, but never another array's elements
    assert.equal(ok and 90 or sum, sum)
    assert.equal(9, other[2][1])
  end)

  it("are written by copy and fill without a trace outside", function()
    for _, dtype in ipairs(help.dtypes) do
      local m = bp.zeros(3, 3, dtype)
      bp.column(m, 2):copy(bp.vector({ 1, 2, 3 }, dtype))
      m[3]:fill(9)
      same({ { 0, 1, 0 }, { 0, 2, 0 }, { 9, 9, 9 } }, m)
    end
  end)
end)

describe("in-place calls", function()
  it("copy takes shape and dtype as they are", function()
    for _, dtype in ipairs(help.dtypes) do
      local v, m = bp.zeros(3, dtype), bp.zeros(2, 2, dtype)
      local from = bp.vector({ 1, 2, 3 }, dtype)
      v:copy(from)
      m:copy(bp.matrix({ { 1, 2 }, { 3, 4 } }, dtype))
      from[1] = 7
      same({ 1, 2, 3 }, v)
      same({ { 1, 2 }, { 3, 4 } }, m)
      raises({ "copy", "3", "2" }, v.copy, v, bp.zeros(2, dtype))
      raises({ "copy", "astype" }, v.copy, v, bp.zeros(3, dtype == "f64" and "f32" or "f64"))
      for _, bad in ipairs{ bp.zeros(3, 1, dtype), bp.zeros(1, 3, dtype), 1, "x", {} } do
        raises("copy", v.copy, v, bad)
      end
      raises("copy", v.copy, v)
      same({ 1, 2, 3 }, v)
    end
  end)

  it("copy between windows that overlap reads before it writes", function()
    local v = bp.vector{ 1, 2, 3, 4 }
    bp.slice(v, 2, 4):copy(bp.slice(v, 1, 3))
    same({ 1, 1, 2, 3 }, v)
    bp.slice(v, 1, 3):copy(bp.slice(v, 2, 4))
    same({ 1, 2, 3, 3 }, v)
  end)

  it("copy and axpy between any two windows of one shape are those of their values", function()
    local function windows_of(m)
      local list = { bp.slice(m, 1, 2), bp.slice(m, 2, 3), bp.slice(m, 3, 4) }
      for i = 1, 4 do list[#list + 1] = m[i] end
      for j = 1, 3 do
        for from = 1, 2 do list[#list + 1] = bp.slice(bp.column(m, j), from, from + 2) end
      end
      for from = 1, 10 do list[#list + 1] = bp.slice(bp.flatten(m), from, from + 2) end
      return list
    end
    for _, dtype in ipairs(help.dtypes) do
      local numbers = bp.reshape(bp.linspace(1, 12, 12, dtype), 4, 3)
      for i, x in ipairs(windows_of(numbers)) do
        for k, y in ipairs(windows_of(numbers)) do
          if help.shape(x) == help.shape(y) then
            local m, n, what = numbers:clone(), numbers:clone(), i .. " and " .. k
            local to, from = windows_of(m)[i], windows_of(m)[k]
            to:copy(from)
            windows_of(n)[i]:copy(y:clone())
            same(n, m, what)
            m:copy(numbers)
            n:copy(numbers)
            bp.axpy(2, from, to)
            bp.axpy(2, y:clone(), windows_of(n)[i])
            same(n, m, what)
          end
        end
      end
    end
  end)

  it("fill takes a number", function()
    local v = bp.zeros(3, "f32")
    v:fill(0.1)
    same({ help.f32(0.1), help.f32(0.1), help.f32(0.1) }, v)
    for _, bad in ipairs{ "x", "1", {}, bp.zeros(3, "f32") } do raises("fill", v.fill, v, bad) end
    raises("fill", v.fill, v)
  end)

  it("release gives back all arrays of a structure, or, where one is tracked, none", function()
    local v, m = bp.ones(3), bp.ones(2, 2)
    bp.grad(function(x)
      raises("bp.release: a tracked value cannot be released", bp.release, { v, { m, x } })
      return bp.sum(x)
    end)(bp.ones(2))
    same({ 1, 1, 1 }, v)
    bp.release{ v, 3, "text", { again = v, m } }
    raises("released", function() return v + 1 end)
    raises("released", function() return m + 1 end)
  end)

  it("axpy adds a multiple, over structures too", function()
    for _, dtype in ipairs(help.dtypes) do
      local x, y = bp.vector({ 1, 2, 3 }, dtype), bp.vector({ 10, 20, 30 }, dtype)
      bp.axpy(-2, x, y)
      same({ 8, 16, 24 }, y)
      same({ 1, 2, 3 }, x)
      local xs = { w = bp.matrix({ { 1, 2 } }, dtype), inner = { x } }
      local ys = { w = bp.matrix({ { 5, 5 } }, dtype), inner = { y } }
      bp.axpy(3, xs, ys)
      same({ w = { { 8, 11 } }, inner = { { 11, 22, 33 } } }, help.plain(ys))
    end
    local m = bp.zeros(3, 2)
    bp.axpy(1, bp.vector{ 1, 2, 3 }, bp.column(m, 2))
    bp.axpy(1, bp.column(m, 2), bp.column(m, 1))
    same({ { 1, 1 }, { 2, 2 }, { 3, 3 } }, m)
    bp.axpy(1, m, m)
    same({ { 2, 2 }, { 4, 4 }, { 6, 6 } }, m)
  end)

  it("P10: axpy gives a table at two paths what there is for it at both, and what is one table itself once", function()
    local money = setmetatable({}, { __index = { amount = 0 } })
    bp.instance(money, {
      zero = function() return setmetatable({ amount = 0 }, money) end,
      add = function(x, y) return setmetatable({ amount = x.amount + y.amount }, money) end,
      one = function() return setmetatable({ amount = 1 }, money) end,
      scale = function(x, a) return setmetatable({ amount = x.amount * a }, money) end,
    })
    local function part(w, n, amount)
      return { w = bp.vector{ w, 2 * w }, n = n, m = setmetatable({ amount = amount }, money) }
    end
    local shared = part(1, 2, 3)
    bp.axpy(10, { part(1, 1, 2), part(3, 4, 5) }, { shared, shared })
    same({ 41, 82 }, shared.w)
    assert.equal(52, shared.n)
    assert.equal(73, shared.m.amount)
    local addend = part(1, 1, 1)
    bp.axpy(-1, { addend, { addend } }, { shared, { shared } })
    same({ 40, 80 }, shared.w)
    assert.equal(51, shared.n)
    assert.equal(72, shared.m.amount)
    bp.axpy(1, shared, shared)
    same({ 80, 160 }, shared.w)
    assert.equal(102, shared.n)
  end)

  it("axpy refuses what it cannot add", function()
    local v = bp.zeros(3)
    raises("bp.axpy", bp.axpy, 1, bp.zeros(2), v)
    raises("bp.axpy", bp.axpy, 1, bp.zeros(3, 1), v)
    raises({ "bp.axpy", "astype" }, bp.axpy, 1, bp.zeros(3, "f32"), v)
    raises("bp.axpy", bp.axpy, "x", v, v)
    raises("bp.axpy", bp.axpy, nil, v, v)
    raises("bp.axpy", bp.axpy, 1, v)
    raises("bp.axpy", bp.axpy, 1, { v }, v)
    raises("bp.axpy", bp.axpy, 1, { a = v }, { b = v })
    raises("bp.axpy", bp.axpy, 1, 2, 3)
  end)

  it("P28: axpy with the factor 0 does not hide a NaN", function()
    local y = bp.vector{ 1, 2, 3 }
    bp.axpy(0, bp.vector{ nan, inf, 1 }, y)
    same({ nan, nan, 3 }, y)
  end)

  it("refuse a read-only array: the handle that bp.value gives", function()
    local kept
    bp.grad(function(x)
      kept = bp.value(x)
      for _, write in ipairs{
        function() kept[1] = 9 end,
        function() kept:fill(9) end,
        function() kept:copy(bp.zeros(2)) end,
        function() bp.axpy(1, bp.ones(2), kept) end,
        function() bp.slice(kept, 1, 1):fill(9) end,
      } do
        raises("read-only", write)
      end
      return bp.sum(x * 2)
    end)(bp.vector{ 1, 2 })
    same({ 1, 2 }, kept) -- it stays valid after the call
  end)
end)

describe("release", function()
  local uses = {
    index = function(x) return x[1] end,
    assign = function(x) x[1] = 1 end,
    length = function(x) return #x end,
    shape = function(x) return x:shape() end,
    totable = function(x) return x:totable() end,
    clone = function(x) return x:clone() end,
    fill = function(x) x:fill(0) end,
    add = function(x) return x + 1 end,
    exp = function(x) return bp.exp(x) end,
    sum = function(x) return bp.sum(x) end,
    axpy = function(x) bp.axpy(1, x, bp.zeros(3)) end,
    slice = function(x) return bp.slice(x, 1, 1) end,
    grad = function(x) return bp.grad(bp.sum)(x) end,
  }
  for name, use in pairs(uses) do
    it("makes a later use raise: " .. name, function()
      local x = bp.zeros(3)
      bp.release(x)
      raises("released", use, x)
    end)
  end

  it("gives back every array of a structure at once", function()
    local before = help.live()
    local shared = bp.ones(1000)
    local first = { w = bp.ones(100, 100), b = bp.ones(100, "f32") }
    local net = { layers = { first, { w = shared, b = shared } }, rate = 0.1 }
    local live = bp.stats().bytes_live
    assert.is_true(live - before >= 8 * (10000 + 1000) + 4 * 100)
    bp.release(net)
    assert.equal(before, help.live())
    raises("released", function() return net.layers[1].w + 1 end)
    raises("released", function() return shared + 1 end)
  end)

  it("happens at the end of a scope by <close>, also by an error", function()
    local kept
    local before = help.live()
    do
      local x <close> = bp.ones(1000)
      kept = x
      assert.equal(1, kept[1])
    end
    raises("released", function() return kept + 1 end)
    pcall(function()
      local x <close> = bp.ones(1000)
      kept = x
      error("out")
    end)
    raises("released", function() return kept + 1 end)
    assert.equal(before, help.live())
  end)

  it("leaves a scope's array that was released by hand alone", function()
    do
      local x <close> = bp.ones(3)
      bp.release(x)
    end
  end)

  it("does not harm printing", function()
    local x = bp.zeros(3)
    bp.release(x)
    assert.truthy(tostring(x):find("released", 1, true))
  end)
end)
