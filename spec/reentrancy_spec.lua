-- Errors and re-entrancy: the numbered pitfalls P19 P20 P21 P22.
-- Held here: an error object reaches the caller as it was raised, whatever level raised it, and leaves nothing behind;
-- calls may nest, yield and be dropped; a derivative of a derivative is right or an error, never a wrong number.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"

local same, raises = help.same, help.raises

local function square(x) return x * x end

-- The library still works: a gradient that goes through arrays, numbers and a Lua operation.
local twice = bp.op(function(x) return x * 2, function(dz) return dz * 2 end end)
local function works()
  same({ 4, 8 }, bp.grad(function(x) return bp.sum(twice(x) * x) * 1 end)(bp.vector{ 1, 2 }))
end

describe("P19: errors", function()
  local object = setmetatable({}, { __tostring = function() return "mine" end })
  local objects = { object, "text", 17, true, function() end }
  local function raiser(e) return function() error(e, 0) end end

  -- A text may gain a position or a name on its way, another object arrives as it is.
  local function arrives(e, f, ...)
    local ok, got = pcall(f, ...)
    assert(not ok)
    if type(e) == "string" then
      assert(got:find(e, 1, true), got)
    else
      assert(rawequal(got, e), tostring(got))
    end
  end

  it("P19: the error object of f, of a forward, of the next operation, reaches the caller", function()
    for _, e in ipairs(objects) do
      local forward = bp.op(raiser(e))
      for _, f in ipairs{
        raiser(e), function(x) return forward(x) end, function(x) return bp.sum(forward(bp.exp(x))) end,
      } do
        for _, call in ipairs{ bp.grad(f), bp.value_and_grad(f), function(x) return bp.vjp(f, x) end } do
          arrives(e, call, bp.vector{ 1, 2 })
        end
      end
      works()
    end
  end)

  it("P19: an error of f keeps the user's own line", function()
    local ok, message = pcall(bp.grad(function() error("here") end), 1)
    assert(not ok and message:find("reentrancy_spec.lua:%d+: here"), message)
  end)

  it("P19: the error object of a pullback reaches the caller; a text may gain the operation's name", function()
    for _, e in ipairs(objects) do
      local f = bp.op{ name = "breaks", forward = function(x) return x * 2, raiser(e) end }
      arrives(e, bp.grad(function(x) return bp.sum(f(bp.exp(x))) end), bp.vector{ 1, 2 })
      works()
    end
  end)

  it("P19: a pullback that raised in a kept tape may be called again", function()
    local broken = true
    local f = bp.op(function(x)
      return x * 2, function(dz)
        if broken then error(object) end
        return dz * 2
      end
    end)
    local _, pullback = bp.vjp(function(x) return f(x * x) * x end, bp.vector{ 1, 2 })
    local ok, got = pcall(pullback, bp.vector{ 1, 1 })
    assert(not ok and rawequal(got, object))
    broken = false
    same({ 6, 24 }, pullback(bp.vector{ 1, 1 }))
  end)

  it("P19: no parameter was updated, wherever the error came from", function()
    local p = { w = bp.vector{ 1, 2 }, m = bp.matrix{ { 1, 2 }, { 3, 4 } } }
    local breaks = bp.op(function(x) return x * 2, raiser(object) end)
    for _, make in ipairs{ bp.optim.sgd, bp.optim.adam } do
      for _, f in ipairs{
        function(q) return bp.sum(bp.matmul(q.m, q.w)) + bp.sum(breaks(q.w)) end,
        function(q) return bp.sum(breaks(bp.matmul(q.m, q.w))) end,
        function(q) return bp.sum(bp.matmul(q.m, breaks(q.w))) end,
        function(q) error(bp.sum(q.w * q.w) and object) end,
      } do
        local ok, got = pcall(function() make{ lr = 0.1 }:minimize(f, p) end)
        assert(not ok and rawequal(got, object), tostring(got))
        same({ w = { 1, 2 }, m = { { 1, 2 }, { 3, 4 } } }, p)
      end
    end
    works()
  end)

  it("P19: f may catch an error of its own and go on", function()
    same({ 4, 6 }, bp.grad(function(x)
      local ok = pcall(function() return bp.matmul(x, x * 2) end)
      local fine, e = pcall(function() return bp.op(raiser(object))(x) end)
      assert(not ok and not fine and rawequal(e, object))
      return bp.sum(x * x) + bp.sum(x) * 2
    end)(bp.vector{ 1, 2 }))
  end)
end)

describe("P20: calls within calls", function()
  local x = bp.vector{ 1, 2 }

  it("P20: grad inside a forward and inside a pullback", function()
    local cube = bp.op(function(v)
      local g = bp.grad(function(u) return bp.sum(u * u * u) end)(v) -- 3 v^2
      return v * v * v, function(dz)
        local ones = bp.grad(function(u) return bp.sum(twice(u)) * 0.5 end)(dz)
        return dz * g * ones
      end
    end)
    same({ 3 * 2, 12 * 16 }, bp.grad(function(v) return cube(v) * cube(v) end)(x))
  end)

  it("P20: a pullback of another tape inside a pullback, and a pullback that calls itself", function()
    local _, outer = bp.vjp(function(v) return v * v end, x)
    local f = bp.op(function(v) return v * v, function(dz) return outer(dz) end end)
    same({ 2, 4 }, bp.grad(function(v) return bp.sum(f(v)) end)(x))
    local again, depth = nil, 0
    local g = bp.op(function(v)
      return v * v, function(dz)
        depth = depth + 1
        if depth == 1 then same({ 5, 5 }, again(bp.vector{ 1, 1 })) end
        return dz * 5
      end
    end)
    local _, pullback = bp.vjp(function(v) return g(v) end, x)
    again = pullback
    local ok, r = pcall(pullback, bp.vector{ 1, 2 }) -- right, or a clean error
    if ok then same({ 5, 10 }, r) else assert.equal("string", type(r)) end
    same({ 5, 5 }, pullback(bp.vector{ 1, 1 }))
  end)

  it("P20: the pullback is closed inside itself", function()
    local pullback
    local f = bp.op(function(v)
      return v * 2, function(dz)
        pcall(function() pullback:close() end)
        collectgarbage()
        return dz * 2
      end
    end)
    local _
    _, pullback = bp.vjp(function(v) return bp.sum(f(v) * v) end, x)
    local ok, r = pcall(pullback, 1)
    if ok then same({ 4, 8 }, r) else assert.equal("string", type(r)) end
    works()
  end)

  it("P20: f yields while it records; two coroutines record at the same time", function()
    local function f(v, scale)
      local y = v * scale
      coroutine.yield("first")
      y = twice(y)
      coroutine.yield("second")
      return bp.sum(y * v)
    end
    local a, b = coroutine.wrap(bp.grad(f)), coroutine.wrap(bp.value_and_grad(f))
    assert.equal("first", a(x, 3))
    assert.equal("first", b(bp.vector{ 5 }, 1))
    works()
    assert.equal("second", b())
    assert.equal("second", a())
    same({ 12, 24 }, a())
    same({ 50, { 20 } }, { b() })
  end)

  it("P20: a forward yields, f of vjp and of minimize yields, bp.eval yields", function()
    local slow = bp.op(function(v)
      coroutine.yield()
      return v * 3, function(dz) return dz * 3 end
    end)
    local w = bp.vector{ 1, 2 }
    local runs = {
      function() return bp.grad(function(v) return bp.sum(slow(v)) end)(x) end,
      function() return (select(2, bp.vjp(slow, x))(bp.vector{ 1, 1 })) end,
      function() return bp.eval(slow, bp.vector{ 1, 1 }) end,
      function()
        bp.optim.sgd{ lr = 1 }:minimize(function(v) return bp.sum(slow(v)) end, w)
        return bp.vector{ 1, 2 } - w
      end,
    }
    for _, run in ipairs(runs) do
      local co = coroutine.wrap(run)
      assert.equal(nil, (co()))
      works()
      same({ 3, 3 }, co())
    end
  end)

  it("P20: f runs coroutines of its own over its variables", function()
    same({ 2, 2 }, bp.grad(function(v)
      local parts = coroutine.wrap(function()
        for i = 1, #v do coroutine.yield(v[i] * 2) end
      end)
      return parts() + parts()
    end)(x))
  end)

  it("P20: a coroutine dropped while it records leaves nothing", function()
    local function record()
      local co = coroutine.wrap(bp.grad(function(v)
        local y = bp.exp(v) * 2
        coroutine.yield()
        return bp.sum(y)
      end))
      co(bp.ones(1000))
    end
    record()
    collectgarbage()
    collectgarbage()
    local before = bp.stats().bytes_live
    for _ = 1, 10 do record() end
    for _ = 1, 3 do collectgarbage() end
    assert(bp.stats().bytes_live <= before)
    works()
  end)

  it("P20: a coroutine closed while it records ends its call", function()
    local escaped
    local co = coroutine.create(bp.grad(function(v)
      escaped = v * 2
      coroutine.yield()
      return escaped
    end))
    coroutine.resume(co, x)
    assert(coroutine.close(co))
    raises("ended", function() return escaped + 1 end)
    works()
  end)

  it("P20: what bp.view and a class's functions call may yield", function()
    local first = bp.lens(function(s) return coroutine.yield(s[1]) end, function(_, v) return { v } end)
    local view = coroutine.wrap(function() return "viewed", bp.view({ 3 }, first) end)
    assert.equal(3, view())
    assert.same({ "viewed", 5 }, { view(5) })
    local Slow = {}
    bp.instance(Slow, {
      zero = function() return setmetatable({ coroutine.yield "zero" }, Slow) end,
      one = function() return setmetatable({ 1 }, Slow) end, add = function(p) return p end,
    })
    local zero = coroutine.wrap(function() return "made", bp.zero(setmetatable({ 5 }, Slow))[1] end)
    assert.equal("zero", zero())
    assert.same({ "made", 0 }, { zero(0) })
  end)

  it("P20: a yield inside a pullback is a clean error", function()
    local f = bp.op(function(v)
      return v * 2, function(dz)
        coroutine.yield()
        return dz * 2
      end
    end)
    local co = coroutine.create(function() return bp.grad(function(v) return bp.sum(f(v)) end)(x) end)
    local ok, message = coroutine.resume(co)
    assert(not ok and tostring(message):find("yield"), tostring(message))
    works()
  end)

  it("P20: a call that ends inside another one does not end that one", function()
    same({ 6, 6 }, bp.grad(function(v)
      local y = v * 2
      same({ 2, 4 }, bp.grad(square)(x))
      pcall(bp.grad(error), x)
      local _, pullback = bp.vjp(square, x)
      pullback:close()
      collectgarbage()
      return bp.sum(y * 3)
    end)(x))
  end)
end)

describe("P21: nested differentiation is right or a loud error", function()
  local D = bp.grad
  -- What is wanted, the function, where.
  local cases = {
    { 8, function(x) return x * D(function(y) return x * y end)(1) end, 4 },
    { 1, function(x) return x * D(function(y) return x + y end)(1) end, 1 },
    { 12, function(x) return D(function(y) return y * y * y end)(x) end, 2 },
    { 6 * 9, function(x) return x * D(function(y) return y * y * x end)(x) end, 3 }, -- D_x (x * 2 x x) = 6 x^2
    { 1, function(x) return x + D(function() return x end)(1) end, 4 },
    { 2, function(x) return x + bp.value_and_grad(function() return x end)(1) end, 4 },
    { 2, function(x)
      local _, _, further = bp.value_and_grad(function(y) return y, x end)(1)
      return x + further
    end, 4 },
    { 2, function(x)
      local value, pullback = bp.vjp(function() return x end, 1)
      pullback:close()
      return x + value
    end, 4 },
    { 4, function(x)
      local _, pullback = bp.vjp(function(y) return y * y end, x)
      return pullback(1) + x * 2
    end, 3 },
    { 6, function(x)
      local _, pullback = bp.vjp(function(y) return y * y end, 3)
      return pullback(x) -- 6 x
    end, 5 },
    { 7, function(x) return D(function(p) return p.a * p.b end)({ a = 1, b = x }).a * 7 end, 2 },
    { 5, function(x) return D(function(y, c) return y * c * 5 end)(1, x) end, 2 },
    { 3, function(x)
      local into = { bp.vector{ 0 } }
      D(function(y) return y[1] * x * 3 end, { into = into })({ bp.vector{ 1 } })
      return into[1][1]
    end, 2 },
    { 1, bp.op(function(y)
      return D(function(z) return y * z end)(1), function(dz) return dz end
    end), 2 },
  }
  for i, case in ipairs(cases) do
    it("P21: case " .. i, function()
      local ok, got = pcall(D(case[2]), case[3])
      if ok then
        assert.equal(case[1], got)
      else
        assert.equal("string", type(got))
        assert(not got:find("attempt to", 1, true), got)
      end
      works()
    end)
  end

  it("P21: an inner call that does not touch the outer one's variables is exact", function()
    assert.equal(6, D(function(x) return x * D(square)(3) end)(2))
    assert.equal(4, D(function(x)
      local c = bp.constant(x)
      return x * D(function(y) return y * c end)(1)
    end)(4))
    same({ 2, 4 }, D(function(v) return bp.sum(v * D(square)(bp.vector{ 1, 2 })) end)(bp.vector{ 7, 8 }))
  end)

  it("P21: a Lua operation that captured a variable does not lose its gradient silently", function()
    local function f(x)
      return bp.op(function(y) return y * x, function(dz) return dz * 2 end end)(x * 0 + 1)
    end
    local ok, got = pcall(D(f), 3)
    assert(not ok, "a captured variable gave " .. tostring(got))
    works()
  end)

  it("P21: a pullback that uses a variable of the call it serves is right or an error", function()
    for _, x in ipairs{ 3, bp.vector{ 3, 4 } } do
      local function f(v)
        return bp.op(function(y) return y * 2, function(dz) return dz * v end end)(v)
      end
      local ok, got = pcall(D(f), x)
      if ok then same(x, got) else assert.equal("string", type(got)) end
      works()
    end
  end)

  it("P21: writing a variable into a plain array does not lose its gradient silently", function()
    local plain, m = bp.vector{ 0, 0 }, bp.matrix{ { 0, 0 } }
    local writes = {
      function(x) plain[1] = x[1] end, function(x) m:set(1, 1, x[1]) end, function(x) plain:fill(x[1]) end,
      function(x) plain:copy(x) end, function(x) bp.axpy(1, x, plain) end, function(x) bp.axpy(x[1], plain, plain) end,
    }
    for i, write in ipairs(writes) do
      local ok = pcall(D(function(x)
        write(x)
        return bp.sum(plain) + bp.sum(m) + x[1] * 0
      end), bp.vector{ 3, 4 })
      assert(not ok, "write " .. i)
    end
    same({ 0, 0 }, plain)
    same({ { 0, 0 } }, m)
  end)
end)

describe("P22: wrong rules", function()
  local v = bp.vector{ 1, 2 }
  local wrong = {
    { "a vector too long", function() return bp.zeros(3) end }, { "a matrix", function() return bp.zeros(1, 2) end },
    { "a number for a vector", function() return 1 end }, { "f32 for f64", function() return bp.zeros(2, "f32") end },
    { "text", function() return "text" end }, { "true", function() return true end },
    { "a table", function() return { v } end }, { "two gradients", function(dz) return dz, dz end },
    { "no gradient at all", function() end }, { "a gradient and nil", function(dz) return dz, nil end },
  }
  for _, case in ipairs(wrong) do
    it("P22: a pullback returns " .. case[1], function()
      local f = bp.op{ name = "wrongdoer", forward = function(x) return x * 2, case[2] end }
      raises("wrongdoer", bp.grad(function(x) return bp.sum(f(bp.exp(x))) end), v)
      local _, pullback = bp.vjp(function(x) return f(x) end, v)
      raises("wrongdoer", pullback, v)
      works()
    end)
  end

  it("P22: the forward returns no number or array, or no pullback", function()
    for _, forward in ipairs{
      function() end, function() return "text", print end, function(x) return x end, function(x) return x, 5 end,
    } do
      local f = bp.op{ name = "wrongdoer", forward = forward }
      raises("wrongdoer", bp.grad(function(x) return f(x) end), v)
    end
    works()
  end)

  it("P22: an operation without a gradient never gives a silent zero", function()
    local floor = bp.nograd(function(x) return x * 3 end)
    same({ 3, 6 }, floor(v))
    raises("", bp.grad(function(x) return bp.sum(floor(x)) end), v)
    raises("", bp.grad(function(x) return bp.sum(x) + bp.sum(floor(x)) * 0 end), v)
    same({ 1, 1 }, bp.grad(function(x)
      assert(bp.value(bp.sum(floor(x))) == 9)
      return bp.sum(x)
    end)(v))
  end)
end)
