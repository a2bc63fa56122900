-- Arrays in the host's memory, through spec/support/lender.c, which is built here: they are arrays like any other, in
-- every operation and whatever stands between their rows; nothing is copied; the memory is given back exactly once,
-- when nothing can reach it any more and not before; what is lent for reading stays as it is.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"
local shell = require "support.shell"

local raises, same, close = help.raises, help.same, help.close

-- Built once, kept loaded: its code must outlive the arrays.
local folder = shell.folder()
shell.succeeds(shell.run(shell.root, ("cc -std=c11 -Wall -Wextra -Werror -O1 -shared -fPIC -I/usr/include/lua5.4 -Isrc "
  .. "-o %s/lender.so spec/support/lender.c -lopenblas"):format(shell.quote(folder))))
local lender = assert(package.loadlib(folder .. "/lender.so", "luaopen_lender"))()
shell.remove(folder)

-- The numbers of x in borrowed memory; a structure's likewise.
local function lend(x, padding)
  return help.map(function(leaf)
    if not help.is_array(leaf) then return leaf end
    local y = lender.lend(leaf:dtype(), padding or 0, true, leaf:shape())
    y:copy(leaf)
    return y
  end, x)
end

local function collect()
  collectgarbage()
  collectgarbage()
end

describe("a borrowed array", function()
  it("is read and written in place", function()
    local v = lender.lend("f64", 0, true, 4)
    same({ 0, 0, 0, 0 }, v)
    lender.poke(2, 7)
    assert.equal(7, v[3])
    v[1] = 5
    v:copy(v * 2)
    bp.axpy(1, bp.ones(4), v)
    same({ 11, 1, 15, 1 }, v)
    assert.same({ 11, 1, 15, 1 }, { lender.peek(0), lender.peek(1), lender.peek(2), lender.peek(3) })
  end)

  it("has rows that stand apart", function()
    local m = lender.lend("f64", 2, true, 2, 3)
    m:copy(bp.matrix{ { 1, 2, 3 }, { 4, 5, 6 } })
    assert.same({ 1, 3, 4, 6 }, { lender.peek(0), lender.peek(2), lender.peek(5), lender.peek(7) })
    assert.is_true(lender.peek(3) ~= lender.peek(3)) -- NaN between them, still
    same({ { 1, 2, 3 }, { 4, 5, 6 } }, m)
    same({ 4, 5, 6 }, m[2])
    assert.equal(21, bp.sum(m))
  end)

  it("receives gradients and steps", function()
    local function f(p) return bp.sum(p.w * p.w) end
    local w = lender.lend("f64", 0, true, 3)
    w:copy(bp.vector{ 1, 2, 3 })
    bp.optim.sgd{ lr = 0.25 }:minimize(f, { w = w })
    assert.same({ 0.5, 1, 1.5 }, { lender.peek(0), lender.peek(1), lender.peek(2) })
    bp.optim.adam{ lr = 0.25 }:minimize(f, { w = w })
    close({ 0.25, 0.75, 1.25 }, { lender.peek(0), lender.peek(1), lender.peek(2) }, 1e-6)
    local g = lender.lend("f64", 0, true, 3)
    bp.grad(f, { into = { w = g } })({ w = bp.vector{ 1, 2, 3 } })
    assert.same({ 2, 4, 6 }, { lender.peek(0), lender.peek(1), lender.peek(2) })
  end)

  for _, dtype in ipairs(help.dtypes) do
    it("is like any other in every operation, " .. dtype, function()
      local function typed(x)
        return help.map(function(leaf) return help.is_array(leaf) and leaf:astype(dtype) or leaf end, x)
      end
      local tolerance = dtype == "f64" and 1e-13 or 1e-5
      for _, row in ipairs(bp.ops()) do
        for _, sample in ipairs(row.samples) do
          local f, own = bp[row.name], typed(sample)
          local borrowed = lend(own, 3)
          local where = ("%s of sample %s"):format(row.name, tostring(sample[1]))
          close(help.plain{ f(table.unpack(own)) }, help.plain{ f(table.unpack(borrowed)) }, tolerance, where)
          local differentiable, value, gradient = pcall(bp.value_and_grad(f), table.unpack(own))
          if differentiable and type(own[1]) ~= "number" then
            local v, g = bp.value_and_grad(f)(table.unpack(borrowed))
            close(help.plain{ value, gradient }, help.plain{ v, g }, tolerance, where)
          end
          same(help.plain(own), help.plain(borrowed), where .. ": an input was changed")
        end
      end
    end)
  end

  it("is never taken over by the engine, which would write to it", function()
    local given = lender.lend("f64", 0, true, 3)
    given:fill(2)
    local op = bp.op(function(x) return bp.sum(x), function() return given end end)
    local x = bp.ones(3)
    local g = bp.grad(function(v) return op(v) + bp.sum(v) end)(x)
    same({ 3, 3, 3 }, g)
    same({ 3, 3, 3 }, bp.grad(function(v) return bp.sum(v) + op(v) end)(x))
    same({ 2, 2, 2 }, given)
    g:fill(9)
    same({ 2, 2, 2 }, given)
    g = bp.grad(op)(x)
    g:fill(9)
    same({ 2, 2, 2 }, given)
  end)

  it("P13: written by the host between recording and sweep is an error, once it has said so", function()
    local x = lender.lend("f64", 0, true, 2)
    local _, pullback = bp.vjp(function(v) return bp.sum(v * v) end, x)
    same({ 0, 0 }, pullback(1))
    lender.poke(0, 3)
    lender.touch(x)
    raises({ "changed" }, pullback, 1)
    pullback:close()
  end)
end)

describe("a borrowed array that is read-only", function()
  it("refuses every write, also through its windows", function()
    local m = lender.lend("f64", 1, false, 2, 3)
    local v = bp.zeros(3)
    for _, write in ipairs{
      function() m:fill(1) end, function() m:set(1, 1, 1) end, function() m:copy(bp.ones(2, 3)) end,
      function() m[1]:fill(1) end, function() m[1][1] = 1 end, function() bp.slice(m, 1, 1):fill(1) end,
      function() bp.column(m, 2):fill(1) end, function() bp.axpy(1, bp.ones(2, 3), m) end,
      function() bp.grad(bp.sum, { into = m })(bp.ones(2, 3)) end,
      function() bp.optim.sgd{ lr = 1 }:minimize(function(p) return bp.sum(p[1]) end, { m }) end,
      function() bp.optim.adam{ lr = 1 }:minimize(function(p) return bp.sum(p[1]) end, { m }) end,
      function() bp.optim.sgd{ lr = 1 }:step({ m }, { bp.ones(2, 3) }) end,
    } do raises({ "read-only" }, write) end
    same({ { 0, 0, 0 }, { 0, 0, 0 } }, m)
    same({ { 1, 1, 1 }, { 1, 1, 1 } }, bp.grad(bp.sum)(m))
    v:copy(m[2])
    local copy = m:clone()
    copy:fill(1)
    same({ { 1, 1, 1 }, { 1, 1, 1 } }, copy)
  end)
end)

describe("the host's memory", function()
  local before
  before_each(function()
    collect()
    before = lender.count()
  end)
  local function returned() return lender.count() - before end

  it("comes back when the array is collected, released or closed: once", function()
    lender.lend("f64", 0, true, 3)
    collect()
    assert.equal(1, returned())
    local v = lender.lend("f64", 0, true, 3)
    bp.release(v)
    assert.equal(2, returned())
    raises({ "released" }, bp.sum, v)
    v = nil -- luacheck: ignore
    do local w <close> = lender.lend("f32", 0, true, 3, 3) end -- luacheck: ignore
    collect()
    assert.equal(3, returned())
  end)

  it("stays while a window of it does", function()
    local m = lender.lend("f64", 1, true, 3, 2)
    local row, part = m[2], bp.slice(m, 1, 2)
    bp.release(m)
    bp.release(row)
    m, row = nil, nil -- luacheck: ignore
    collect()
    assert.equal(0, returned())
    same({ { 0, 0 }, { 0, 0 } }, part)
    part = nil -- luacheck: ignore
    collect()
    assert.equal(1, returned())
  end)

  it("stays while a tape needs it", function()
    local x = lender.lend("f64", 0, true, 2)
    x:fill(3)
    local _, pullback = bp.vjp(function(v) return bp.sum(v * v) end, x)
    bp.release(x)
    x = nil -- luacheck: ignore
    collect()
    assert.equal(0, returned())
    same({ 6, 6 }, pullback(1))
    pullback:close()
    collect()
    assert.equal(1, returned())
  end)

  it("comes back where the array cannot be lent, and the error says why", function()
    for what, why in pairs{ misaligned = "not aligned", ["no data"] = "no data", stride = "rows overlap",
      rank = "neither a vector nor a matrix", number = "neither a vector nor a matrix",
      dtype = "neither a vector nor a matrix", size = "too many elements" } do
      before = lender.count()
      raises({ "cannot be borrowed", why }, lender.lend_wrongly, what)
      assert.equal(1, returned(), what)
    end
  end)

  it("is in no count and in no pool", function()
    local live = help.live()
    local x = lender.lend("f64", 0, true, 1000)
    assert.equal(live, help.live())
    lender.drop_pool()
    assert.equal(0, bp.stats().bytes_pooled)
    bp.release(x)
    assert.equal(0, bp.stats().bytes_pooled)
    bp.release(bp.zeros(1000))
    local no_pool = os.getenv "BACKPROP_POOL" == "off" -- in the builds with BP_POOL_OFF
    assert.is_true(no_pool or bp.stats().bytes_pooled >= 8000)
    lender.drop_pool()
    assert.equal(0, bp.stats().bytes_pooled)
  end)

  it("comes back when the state is closed, also from what lived until then", function()
    assert.same({ 0, 3 }, { lender.in_another_state(package.path, package.cpath) })
  end)
end)

describe("a second state in the process", function()
  it("does not take back the number of BLAS threads", function()
    local chosen = lender.blas_threads()
    bp.set_threads(3)
    lender.in_another_state(package.path, package.cpath)
    local found = lender.blas_threads()
    bp.set_threads(chosen)
    assert.equal(3, found)
  end)

  it("that has not loaded the library gets an error from the table, no crash", function()
    raises({ "has not loaded" }, lender.in_bare_state)
  end)
end)
