-- The worst callbacks: operations and functions that raise any value, yield where they must not, return too few, too
-- many or wrong results, change and release what they were given, keep it for later, and collect garbage.
-- Held here: each is right or a clear error, no byte is leaked, and the next gradient is right. What is ordinary among
-- these stands in reentrancy_spec (P19 to P22), aliasing_spec (P13 to P16, P23) and op_spec.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"
local settled = require("support.settled").thrice

local same, raises = help.same, help.raises

-- A case for each way to differentiate a function of a vector: it must raise, and the error goes to `check`.
local function every_call(f, x, check)
  settled(function()
    local w = { x:clone() }
    for _, call in ipairs{
      function() return bp.grad(f)(x) end,
      function() return bp.value_and_grad(f)(x) end,
      function()
        local _, pullback <close> = bp.vjp(f, x)
        return pullback()
      end,
      function() return bp.optim.sgd{ lr = 0.1 }:minimize(function(p) return f(p[1]) end, w) end,
      function() return bp.optim.adam{ lr = 0.1 }:minimize(function(p) return f(p[1]) end, w) end,
    } do
      local ok, e = pcall(call)
      assert(not ok, "no error was raised")
      check(e)
      same(x, w[1])
    end
  end)
end

describe("callbacks that raise", function()
  local function raise(e) error(e, 0) end
  local forward_of = { -- each raises e, at another time
    forward = function(e) return function() raise(e) end end,
    pullback = function(e) return function(v) return v * 2, function() raise(e) end end end,
    ["nested gradient in the forward"] = function(e)
      return function(v) return bp.grad(function() raise(e) end)(v), print end
    end,
    ["nested gradient in the pullback"] = function(e)
      return function(v) return v * 2, function(dz) return bp.grad(function() raise(e) end)(dz) end end
    end,
    ["__close in the pullback"] = function(e)
      return function(v)
        return v * 2, function(dz)
          local _ <close> = setmetatable({}, { __close = function() raise(e) end })
          return dz
        end
      end
    end,
  }
  for where, make in pairs(forward_of) do
    it("P19: nil, false and a table with metamethods that raise: " .. where, function()
      local trap = setmetatable({}, {
        __index = error, __tostring = error, __name = 5, __eq = error, __concat = error, __gc = function() end,
      })
      for _, e in ipairs{ { nil }, { false }, { trap } } do
        local f = bp.op(make(e[1]))
        every_call(function(x) return bp.sum(f(bp.exp(x))) end, bp.ones(50), function(got)
          assert(rawequal(got, e[1]))
        end)
      end
    end)
  end

  it("P19: nil raised by f itself, from a coroutine within it, and through pcall within it", function()
    every_call(function() error() end, bp.ones(50), function(e) assert.is_nil(e) end)
    every_call(function(x)
      coroutine.wrap(function()
        local _ = bp.exp(x)
        error({ 5 })
      end)()
    end, bp.ones(50), function(e) assert.equal(5, e[1]) end)
    every_call(function(x)
      pcall(error)
      error(bp.exp(x))
    end, bp.ones(50), function(e) raises("ended", function() return e + 1 end) end)
  end)

  it("P19: with results and arguments that are records", function()
    local Pair = bp.record("Pair", "a", "b")
    local f = bp.op(function(p)
      return Pair{ a = p.a * 2, b = p.b + 1 }, function() error(nil) end
    end)
    local p = Pair{ a = bp.ones(50), b = 3 }
    settled(function()
      local ok, e = pcall(bp.grad(function(q) return bp.sum(f(q).a) end), p)
      assert(not ok and e == nil)
      same({ a = bp.zeros(50), b = 0 }, bp.grad(function(q) return 1, f(q) end)(p))
    end)
  end)
end)

describe("callbacks that yield", function()
  it("P20: in every callback that C calls: an error in the coroutine, which leaves nothing behind", function()
    local function yields() coroutine.yield() end
    local Wild = bp.instance({}, { zero = yields, one = yields, add = yields })
    local w = setmetatable({}, Wild)
    local pass = bp.op(function(a) return a, function() return w end end)
    settled(function()
      for _, run in ipairs{
        function() return bp.grad(function(x) return bp.sum(bp.op(function(v) return v * 2, yields end)(x)) end)(w) end,
        function()
          return bp.grad(function(x)
            return bp.op(function(a) return 2 * #{ a, a }, function() return w, w end end)(pass(x), pass(x))
          end)(w)
        end,
        function()
          return bp.grad(function(x) return bp.sum(x * setmetatable({}, { __mul = yields })) end)(bp.ones(2))
        end,
      } do
        local co = coroutine.create(run)
        local ok, message = coroutine.resume(co)
        assert(not ok and coroutine.status(co) == "dead", tostring(message))
      end
    end)
  end)

  it("P20: a recording that was yielded is resumed from within another one's pullback", function()
    local x = bp.vector{ 1, 2 }
    local co = coroutine.wrap(bp.grad(function(v)
      local y = v * 3
      coroutine.yield()
      return bp.sum(y * v)
    end))
    co(x)
    local inner
    local f = bp.op(function(v)
      return v * 2, function(dz)
        inner = co()
        return dz * 2
      end
    end)
    same({ 2, 2 }, bp.grad(function(v) return bp.sum(f(v)) end)(x))
    same({ 6, 12 }, inner)
  end)

  it("P20: coroutines dropped while they record, at every depth of nested calls", function()
    settled(function()
      for depth = 1, 5 do
        local function nested(n)
          return function(v)
            local y = bp.exp(v) * 2
            if n == 0 then coroutine.yield(y) end
            local inner = bp.grad(nested(n - 1))(bp.value(y))
            return bp.sum(y * inner)
          end
        end
        coroutine.wrap(bp.grad(nested(depth)))(bp.ones(100))
        coroutine.wrap(function() bp.vjp(nested(depth), bp.ones(100)) end)()
        coroutine.wrap(function() bp.optim.adam{ lr = 1 }:minimize(nested(depth), bp.ones(100)) end)()
      end
    end)
  end)
end)

describe("results that are wrong", function()
  local x = bp.vector{ 1, 2, 3 }

  it("P22: a forward returns too few, or what is no plain value: an error that names the operation", function()
    local kept
    local released = bp.zeros(3)
    bp.release(released)
    local _, other <close> = bp.vjp(function(v) -- luacheck: ignore
      kept = v * 2
      return kept
    end, x)
    local cyclic = { 1 }
    cyclic[2] = cyclic
    for _, case in ipairs{
      { function() end }, { function() return nil, print end }, { function(v) return v end },
      { function() return {}, print end }, { function() return { { {} } }, print end },
      { function() return "text", print end }, { function() return kept, print end },
      { function() return { a = kept }, print end }, { function(v) return v, v end },
      { function() return cyclic, print end }, { function() return { [1.5] = 1 }, print end },
      { function() return released, print end }, { function() return { released }, print end },
    } do
      local f = bp.op{ name = "wrongdoer", forward = case[1] }
      every_call(function(v) return bp.sum(f(bp.exp(v))) end, x, function(e)
        assert(type(e) == "string" and not e:find("attempt to", 1, true), e)
        assert(e:find("hostile_callbacks_spec.lua:%d+:"), "not at the user's line: " .. e)
      end)
    end
  end)

  it("P22: more than a result and a pullback: the rest is ignored, as Lua does", function()
    local f = bp.op(function(v) return v * 2, function(dz) return dz * 2 end, "more", error, nil end)
    settled(function() same({ 2, 2, 2 }, bp.grad(function(v) return bp.sum(f(v)) end)(x)) end)
  end)

  it("P22: gradients in a structure of the wrong shape, released, given before, or tracked", function()
    local kept, released = nil, bp.zeros(3)
    bp.release(released)
    for _, case in ipairs{
      function() return { released, nil } end, function() return { 1, 2, 3 } end,
      function(dz) return { dz, dz, dz } end, function(dz) return { a = dz } end,
      function(dz) return { dz, { dz } } end, function(dz) return { dz:astype("f32") } end,
      function(dz) return { bp.reshape(dz, 1, 3) } end, function() return { kept } end,
      function(dz) return setmetatable({ dz, dz, dz }, { __index = error, __len = error }) end,
    } do
      local f = bp.op{ name = "wrongdoer", forward = function(list) return list[1] * list[2], case end }
      every_call(function(v)
        kept = v
        return bp.sum(f{ v, bp.exp(v) })
      end, x, function(e) assert(e:find("wrongdoer", 1, true), e) end)
    end
  end)

  it("P22: hundreds of arguments, results and gradients", function()
    local many = bp.op(function(...)
      local n = select("#", ...)
      return { ... }, function(dz) return table.unpack(dz, 1, n) end
    end)
    settled(function()
      local arguments = {}
      for i = 1, 200 do arguments[i] = i + 0.5 end
      local gradient = bp.grad(function(list)
        local results, sum = many(table.unpack(list)), 0
        for i, r in ipairs(results) do sum = sum + i * r end
        return sum
      end)(arguments)
      for i = 1, 200 do assert.equal(i, gradient[i]) end
    end)
  end)
end)

describe("callbacks that meddle", function()
  local x = bp.vector{ 1, 2, 3 }

  it("P13: the forward cannot change its arguments in place, nor can the pullback", function()
    local p = { w = x:clone(), list = { bp.ones(2, 2) } }
    for _, meddle in ipairs{
      function(q) q.w:fill(7) end, function(q) q.w[1] = 7 end, function(q) bp.axpy(1, q.w, q.w) end,
      function(q) q.w:copy(q.w * 2) end, function(q) q.list[1]:set(1, 1, 5) end, function(q) q.list[1][1][1] = 5 end,
      function(q) bp.slice(q.w, 1, 2):fill(3) end,
      function(q) bp.grad(function(v) return bp.sum(v) end, { into = q.w })(x) end,
      function(q) bp.optim.sgd{ lr = 1 }:step(q.w, q.w) end,
    } do
      local early = bp.op(function(q)
        meddle(q)
        return q.w * 2, print
      end)
      local late = bp.op(function(q)
        return q.w * 2, function(dz)
          meddle(q)
          return { w = dz * 2 }
        end
      end)
      settled(function()
        raises("read-only", bp.grad(function(q) return bp.sum(early(q)) end), p)
        raises("read-only", bp.grad(function(q) return bp.sum(late(q)) end), p)
        same({ w = { 1, 2, 3 }, list = { { { 1, 1 }, { 1, 1 } } } }, p)
      end)
    end
  end)

  it("P13: a pullback releases its arguments, its result or what f captured: right, or an error", function()
    for _, which in ipairs{ "argument", "result", "captured" } do
      settled(function()
        local captured = bp.vector{ 4, 5, 6 }
        local f = bp.op(function(v)
          local y = v * captured
          return y, function(dz)
            local g = dz * captured
            bp.release(which == "argument" and v or which == "result" and y or captured)
            for _ = 1, 4 do bp.full(99, 3) end
            return g
          end
        end)
        local ok, g = pcall(bp.grad(function(v) return bp.sum(f(bp.exp(v)) * captured) end), x)
        if ok then
          for i = 1, 3 do assert(math.abs(g[i] - math.exp(i) * (3 + i) ^ 2) < 1e-9) end
        else
          assert.equal("string", type(g))
        end
      end)
    end
  end)

  it("P13: the result of an operation, changed in place after it was returned, is found out or was copied", function()
    local result
    local f = bp.op(function(v)
      result = v * 2
      return result, function(dz) return dz * 2 end
    end)
    settled(function()
      local ok, g = pcall(bp.grad(function(v)
        local y = f(v)
        local z = bp.square(y)
        result:fill(100)
        return bp.sum(z)
      end), x)
      if ok then same({ 8, 16, 24 }, g) else assert(g:find("changed in place", 1, true), g) end
    end)
  end)

  it("P14: arrays kept by a forward and a pullback can be used later, or say why not", function()
    local kept = {}
    local f = bp.op(function(v)
      kept.argument, kept.result = v, bp.exp(v)
      return kept.result, function(dz)
        kept.cotangent, kept.gradient = dz, dz * kept.result
        return kept.gradient
      end
    end)
    settled(function()
      local g = bp.grad(function(v) return bp.sum(f(v * 1)) end)(x)
      for _ = 1, 4 do bp.release(bp.full(99, 3)) end
      same(x, kept.argument)
      same(g, kept.result)
      raises("read-only", kept.argument.fill, kept.argument, 0)
      raises("released", function() return kept.cotangent + 1 end)
      local ok, message = pcall(function() kept.gradient:fill(5) end) -- given, or a copy was taken
      assert(ok or message:find("given", 1, true), message)
      same(kept.result, g)
      kept = {}
    end)
  end)

  it("collects garbage, changes the collector's mode and drops what it made, at every step", function()
    local function churn()
      collectgarbage("generational")
      local _ = bp.full(9, 3)
      collectgarbage()
      collectgarbage("incremental")
      collectgarbage("step")
    end
    local f = bp.op(function(list)
      churn()
      local y = list[1] * list[2]
      churn()
      return { y, bp.sum(y) }, function(dz)
        churn()
        local g = dz[1] + dz[2]
        return { g * list[2], g * list[1] }
      end
    end)
    settled(function()
      local g = bp.grad(function(v)
        churn()
        local r = f{ v, bp.square(v) }
        churn()
        return bp.sum(r[1]) + r[2]
      end)(x)
      same({ 6, 24, 54 }, g)
    end)
  end)
end)
