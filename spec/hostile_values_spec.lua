-- The worst values and the worst moments: metamethods that raise, metatables exchanged through debug, methods called
-- with what they were not made for, finalizers at the end of a state, a million variables, recursion to Lua's limits.
-- Held here: each is right or a clear error and never a crash, no byte is leaked, and the next gradient is right.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"
local process = require "support.process"
local settled = require "support.settled"

local same, raises, once = help.same, help.raises, settled.once
settled = settled.thrice

describe("metamethods that raise", function()
  local names = {
    "__index", "__newindex", "__len", "__pairs", "__call", "__eq", "__lt", "__le", "__concat", "__unm", "__add",
    "__mul", "__tostring",
  }
  local function trap(t)
    local metatable = {}
    for _, name in ipairs(names) do metatable[name] = function() error("trap " .. name) end end
    return setmetatable(t, metatable)
  end

  it("in arguments, results and gradients: only raw fields are looked at", function()
    local f = bp.op(function(p)
      return trap{ y = p.inner.w * 2 }, function(dz) return trap{ inner = trap{ w = rawget(dz, "y") * 2 } } end
    end)
    settled(function()
      local p = trap{ inner = trap{ w = bp.vector{ 1, 2 } }, text = "kept" }
      local g = bp.grad(function(q) return bp.sum(rawget(f(q), "y")) end)(p)
      same({ 2, 2 }, rawget(rawget(g, "inner"), "w"))
      local _, pullback <close> = bp.vjp(function(q) return trap{ q.inner.w * 3 } end, p)
      g = pullback(trap{ bp.vector{ 1, 2 } })
      same({ 3, 6 }, rawget(rawget(g, "inner"), "w"))
      bp.optim.adam{ lr = 0 }:step(p, g)
      bp.axpy(0, g, p)
      assert.equal(1, #bp.leaves(p))
      same({ 1, 2 }, p.inner.w)
    end)
  end)

  it("an __index that raises, and one that gives tracked values, also stale ones", function()
    settled(function()
      local escaped
      local p = setmetatable({ a = 2 }, { __index = function(_, key)
        if key == "b" then return escaped end
        error("no " .. tostring(key))
      end })
      same({ a = 4 }, bp.grad(function(q)
        escaped = q.a
        return q.a * q.b
      end)(p))
      raises("no c", bp.grad(function(q) return q.a * q.c end), p)
      raises("ended", bp.grad(function(q) return q.a * q.b end), setmetatable({ a = 1 }, {
        __index = function() return escaped end,
      }))
    end)
  end)

  it("on the other side of an operator", function()
    local boom = trap{}
    settled(function()
      for _, f in ipairs{
        function(v) return v * boom end, function(v) return boom + v end, function(v) return bp.sum(v) * boom end,
      } do
        raises("trap", bp.grad(f), bp.ones(3))
        raises("trap", f, bp.ones(3))
      end
    end)
  end)
end)

describe("metatables exchanged through debug", function()
  it("P15: on arrays, variables, pullbacks' tapes, generators and foreign userdata: errors, never a crash", function()
    local x = bp.vector{ 1, 2 }
    local function every(f)
      local file <close> = assert(io.tmpfile())
      local random, tape = bp.rng(1), require("backprop.core").tape()
      local ends <close> = tape -- luacheck: ignore
      bp.grad(function(v)
        local number = bp.sum(v)
        local things = { x:clone(), v, number, random, tape, file }
        local metatables = {}
        for i, thing in ipairs(things) do metatables[i] = debug.getmetatable(thing) end
        for i, thing in ipairs(things) do
          for k, metatable in ipairs(metatables) do
            if i ~= k and things[k] ~= file then -- Lua's own io would take any userdata for a FILE
              debug.setmetatable(thing, metatable)
              f(thing)
              debug.setmetatable(thing, metatables[i])
            end
          end
          debug.setmetatable(thing, nil)
          f(thing)
          debug.setmetatable(thing, metatables[i])
        end
        return number
      end)(x)
    end
    local names = {
      "shape", "dtype", "totable", "fill", "copy", "clone", "get", "set", "uniform", "normal", "permutation", "leaf",
      "run", "seed", "gradient", "close", "owns", "outcome",
    }
    settled(function()
      every(function(thing)
        for _, use in ipairs{
          function() return thing + 1 end, function() return 1 - thing end, function() return -thing end,
          function() return thing == x end, function() return thing < 1 end, function() return #thing end,
          function() return thing[1] end, function() thing[1] = 1 end, function() return thing .. "" end,
          function() return bp.sum(thing) end, function() return bp.matmul(thing, thing) end,
          function() return bp.kind(thing) end, function() return bp.value(thing) end,
          function() return bp.concat{ thing, x } end, function() return tostring(thing) end,
          function() return bp.grad(bp.sum)(thing) end, function() return bp.axpy(1, thing, thing) end,
        } do
          pcall(use)
        end
        for _, name in ipairs(names) do pcall(function() return thing[name](thing, 1, 2, 3) end) end
      end)
    end)
  end)

  it("P16: every metamethod and method, called with what it was not made for", function()
    local x, core = bp.vector{ 1, 2 }, require "backprop.core"
    settled(function()
      local tape <close> = core.tape()
      bp.grad(function(v)
        local things = { x, v, bp.sum(v), bp.rng(1), tape, io.stdout, 5, "x", {}, print, true, coroutine.create(print) }
        local functions = {}
        for i = 1, 5 do
          local metatable = debug.getmetatable(things[i])
          for _, t in ipairs{ metatable, type(metatable.__index) == "table" and metatable.__index or {} } do
            for name, f in pairs(t) do functions[#functions + 1] = { name, f, type(f) == "function" } end
          end
        end
        for _, entry in ipairs(functions) do
          for _, first in ipairs(things) do
            local own = entry[1] == "__gc" or entry[1]:find("close", 1, true)
            if entry[3] and not (own and type(first) == "userdata") then
              pcall(entry[2])
              pcall(entry[2], first)
              for _, second in ipairs(things) do pcall(entry[2], first, second, second) end
            end
          end
        end
        return bp.sum(v)
      end)(x:clone())
      x = bp.vector{ 1, 2 }
    end)
  end)

  it("P16: finalizers called by hand, twice, and the object used afterwards", function()
    settled(function()
      local v = bp.vector{ 1, 2 }
      local window = bp.slice(v, 1, 1)
      local finalize = debug.getmetatable(v).__gc
      finalize(v)
      finalize(v)
      raises("released", function() return v + 1 end)
      same({ 1 }, window)
      finalize(bp.vector{ 3 })
      for _, thing in ipairs{ 5, "x", {}, io.stdout, bp.rng(1) } do pcall(finalize, thing) end
      local tape = require("backprop.core").tape()
      local collect = debug.getmetatable(tape).__gc
      collect(tape)
      collect(tape)
      for _, thing in ipairs{ 5, {}, io.stdout, v, bp.rng(1) } do pcall(collect, thing) end
      pcall(collect)
    end)
  end)
end)

describe("a pullback closed twice", function()
  it("P07: by hand, by <close>, by the collector, in every order: once is enough", function()
    settled(function()
      local _, pullback = bp.vjp(function(v) return v * v end, bp.ones(100))
      pullback:close()
      pullback:close()
      do
        local again <close> = pullback -- luacheck: ignore
        raises("closed", pullback, bp.ones(100))
      end
      raises("closed", pullback, bp.ones(100))
      local _, other <close> = bp.vjp(function(v) return v * 3 end, bp.ones(2)) -- may have the same tape now
      pullback:close()
      same({ 3, 3 }, other(bp.ones(2)))
      pullback = nil -- luacheck: ignore
      collectgarbage()
      same({ 3, 3 }, other(bp.ones(2)))
    end)
  end)
end)

describe("a finalizer that releases an operand", function()
  -- The collector runs wherever the library asks Lua for memory: also between reading an operand and using it.
  local calls = {
    ["of an operator"] = function(x) return x + x end,
    ["of an operation with attributes"] = function(x) return bp.sum(x, 1) end,
    ["of a list"] = function(x) return bp.concat{ x, x, x, x, x, x, x, x, x, x } end,
    ["of a row"] = function(x) return x[1] end,
    ["of a table"] = function(x) return x:totable() end,
    ["of a copy onto itself"] = function(x) return bp.slice(x, 1, 2):copy(bp.slice(x, 2, 3)) end,
    ["of a gradient's argument"] = function(x)
      return bp.grad(function(t) return bp.sum(t[1]) end)({ x, x, x })
    end,
  }
  for name, call in pairs(calls) do
    it(name .. ": it is used whole, or said to be released", function()
      once(function()
        local before = collectgarbage("incremental", 10, 1000) -- the collector is always at work
        for _ = 1, 4 do
          local x = bp.ones(3, 40)
          setmetatable({}, { __gc = function() bp.release(x) end })
          local ok, message
          repeat
            ok, message = pcall(call, x)
          until not ok
          assert(message:find("released", 1, true), message)
        end
        collectgarbage("incremental", 200, 100)
        collectgarbage(before)
      end)
    end)
  end
end)

describe("a million live variables", function()
  it("are recorded, kept, swept and given back", function()
    local n = 1000000
    once(function()
      local kept
      assert.equal(n / 1000 * (n + 1000) / 2, bp.grad(function(x)
        local list, sum = {}, 0
        for i = 1, n do list[i] = x * i end
        for i = 1000, n, 1000 do sum = sum + list[i] end
        kept = list
        return sum
      end)(3))
      raises("ended", function() return kept[n // 2] + 1 end)
    end)
  end)
end)

describe("recursion to the limits of Lua", function()
  -- Each function calls itself through the library until Lua gives up; the ballast fills Lua's stack sooner.
  local ballast = {}
  for i = 1, 200 do ballast[i] = i end
  local cases = {
    ["grad within grad"] = function()
      local function f(x, ...) return (bp.grad(f)(bp.value(x), ...)) end -- no tail call
      return f(3, table.unpack(ballast))
    end,
    ["grad within a pullback"] = function()
      local function f(x) return bp.op(function(v) return v * 2, function(dz) return bp.grad(f)(dz) end end)(x) end
      return bp.grad(f)(bp.ones(10))
    end,
    ["a forward within a forward"] = function()
      local function f(x, ...) return (bp.op(function(_, ...) return f(x, ...), print end)(x, ...)) end
      return bp.grad(f)(bp.ones(10), table.unpack(ballast))
    end,
    ["a coroutine within a coroutine"] = function()
      local function f(x)
        local ok, message = coroutine.resume(coroutine.create(function() return bp.grad(f)(bp.value(x)) end))
        return ok and 1 or error(message, 0)
      end
      return f(3)
    end,
    ["an operator's metamethod"] = function()
      local table_ = {}
      setmetatable(table_, { __mul = function(x) return x * table_ end })
      return bp.grad(function(x) return x * table_ end)(bp.ones(10))
    end,
    ["__index of a tracked record"] = function()
      local metatable = {}
      metatable.__index = function(t) return bp.sum(t.more) end
      return bp.grad(function(p) return p.more end)(setmetatable({ bp.ones(10) }, metatable))
    end,
    ["a structure of 250,000 levels"] = function()
      local deep = { bp.ones(10) }
      for _ = 1, 250000 do deep = { deep } end
      return bp.grad(function() return 1 end)(deep)
    end,
    ["a result of 150,000 levels"] = function()
      return bp.grad(function(x)
        local deep = { x }
        for _ = 1, 150000 do deep = { deep } end
        return deep
      end)(bp.ones(10))
    end,
    ["lenses composed of themselves"] = function()
      local lens
      lens = bp.lens(function(x) return bp.view(x, lens) end, function(x) return x end)
      return bp.grad(function(x) return bp.view(x, lens) end)(bp.ones(10))
    end,
  }
  for name, run in pairs(cases) do
    it(name .. ": Lua's own error, and nothing is left", function()
      once(function()
        local ok, message = pcall(run)
        assert(not ok)
        message = tostring(message)
        assert(message:find("overflow", 1, true) or message:find("error in error", 1, true), message)
      end)
    end)
  end
end)

describe("the end of a state", function()
  local finalizer = [[
    local function finalize(t)
      local bp, count = t.bp, 0
      for _, f in ipairs{
        function() return bp.sum(t.v * 2) end, function() return bp.grad(bp.sum)(bp.vector{ 1, 2, 3 }) end,
        function() return bp.zeros(100000) end, function() return t.pullback(1) end,
        function() return t.variable + 1 end,
        function() return t.random:uniform(0, 1, 10) end, bp.stats, function() return t.pullback:close() end,
        function() return bp.release(t.v) end, function() return tostring(t.v) .. tostring(t.variable) end,
        function() return bp.op(function(x) return x, print end)(t.v) end, function() t.v[1] = 5 end,
        function() return bp.optim.adam{ lr = 1 }:minimize(bp.sum, { t.v }) end, function() return t.window[1] end,
        function() return coroutine.resume(t.co) end, function() return coroutine.close(t.co) end,
      } do
        pcall(f)
        count = count + 1
      end
      print("finalized", count)
    end
    local function fill(t, bp)
      local _
      t.bp, t.v, t.random = bp, bp.vector{ 1, 2, 3 }, bp.rng(1)
      t.window = bp.slice(t.v, 1, 2)
      _, t.pullback = bp.vjp(function(x) t.variable = x return bp.sum(x * x) end, t.v)
      t.co = coroutine.create(bp.grad(function(x) local y = bp.exp(x) coroutine.yield() return bp.sum(y) end))
      coroutine.resume(t.co, t.v)
    end
  ]]

  it("P16: finalizers that run before and after the library's own state is closed", function()
    for _, order in ipairs{
      "local t = setmetatable({}, { __gc = finalize }) fill(t, require 'backprop') X = t",
      "local bp = require 'backprop' X = setmetatable({}, { __gc = finalize }) fill(X, bp)",
      "local t = setmetatable({}, { __gc = finalize }) fill(t, require 'backprop') X = t os.exit(true, true)",
      [[local t = setmetatable({}, { __gc = finalize }) local bp = require 'backprop' fill(t, bp) X = t
        bp.grad(function(x) local y = x * 2 os.exit(true, true) end)(t.v)]],
      [[local t = setmetatable({}, { __gc = finalize }) local bp = require 'backprop' fill(t, bp) X = t
        bp.grad(bp.op(function(x) return x * 2, function(dz) os.exit(true, true) end end))(t.v)]],
    } do
      assert.equal("finalized\t16\n", process.script(finalizer .. order))
    end
  end)

  it("P16: a state that ends with tapes open, coroutines recording, and arrays everywhere", function()
    process.script([[
      local bp = require "backprop"
      X = {}
      for i = 1, 50 do
        X[i] = { bp.ones(i, i), select(2, bp.vjp(function(x) return x * x end, bp.ones(i))) }
        X[i][3] = coroutine.wrap(bp.grad(function(x) X[-i] = x * 2 coroutine.yield() end))
        X[i][3](bp.ones(i))
      end
    ]])
  end)
end)
