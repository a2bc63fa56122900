-- Memory: P17 (bytes in use return to where they were, after success, an error, and a refused allocation) and P18 (long
-- runs in bounded memory that never call the collector). Both are bounded here; `make memtest` refuses every allocation
-- and takes all of P18's 100,000 steps.
--
-- BACKPROP_MEMTEST names the host that refuses allocations (spec/memtest/host.c; the Makefile builds it), without
-- which that test is pending. BACKPROP_EVERY: it refuses every so many-th. BACKPROP_STEPS: the steps of P18.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"
local process = require "support.process"
local shell = require "support.shell"

local network = require "support.long_run".network

describe("P17: bytes in use return", function()
  local net, loss = network(1)
  local x, object = bp.vector{ 1, -1 }, {}
  local breaks = bp.op(function(v) return v * 2, function() error(object) end end)
  local function raise() error(object) end
  local calls = {
    ["a gradient"] = function() bp.grad(loss)(net, x, 1) end,
    ["a pullback that was closed"] = function()
      local _, pullback = bp.vjp(loss, net, x, 1)
      pullback()
      pullback:close()
    end,
    ["a pullback that was dropped"] = function() bp.vjp(loss, net, x, 1) end,
    ["a step"] = function() bp.optim.adam{}:minimize(loss, help.clone(net), x, 2) end,
    ["an error while recording"] = function()
      assert(not pcall(bp.grad(function(n) return raise(loss(n, x, 1)) end), net))
    end,
    ["an error in the sweep"] = function()
      assert(not pcall(bp.grad(function(v) return bp.sum(breaks(v * v)) end), x))
    end,
    ["a wrong shape"] = function()
      assert(not pcall(bp.grad(function(n) return bp.matmul(n.out.w, loss(n, x, 1) * x) end), net))
    end,
    ["a coroutine dropped while it records"] = function()
      coroutine.wrap(function()
        bp.grad(function(n) return coroutine.yield(loss(n, x, 1)) end)(net)
      end)()
    end,
  }
  for name, call in pairs(calls) do
    it("P17: after " .. name, function()
      local before = help.live()
      for _ = 1, 3 do call() end
      assert.equal(before, help.live())
    end)
  end

  it("P17: after an allocation was refused, whichever", function()
    local host = os.getenv "BACKPROP_MEMTEST"
    if not host then pending "BACKPROP_MEMTEST is not set (make test)" end
    local every = tonumber(os.getenv "BACKPROP_EVERY") or 41
    local text = shell.succeeds(shell.output(("%s --every %d 2>&1"):format(host, every)))
    local refused, failed = text:match "(%d+) requests refused: (%d+) memory errors"
    assert(tonumber(refused) > 0 and tonumber(failed) > 0, text)
  end)

  it("P17: the pool holds on to no more than was in use at once, and some megabytes", function()
    local text = process.script[[
      local bp, most = require "backprop", 0
      for bytes = 1000000, 8000000, 500000 do
        bp.release(bp.zeros(bytes // 8))
        local stats = bp.stats()
        most = math.max(most, stats.bytes_live + stats.bytes_pooled)
      end
      print(most)
    ]]
    assert(tonumber(text) < 2 * 8.4e6 + 2 ^ 24, text)
  end)
end)

-- Each in a process of its own, with a small heap, so that growth shows after a few thousand steps.
describe("P18: memory stays bounded over many steps without collectgarbage,", function()
  local steps = tonumber(os.getenv "BACKPROP_STEPS") or 3000

  for _, mode in ipairs{ "incremental", "generational" } do
    for _, name in ipairs(require "support.long_run".names) do
      it(("P18: %s, %s"):format(name, mode), function()
        local text = process.lua("-e", ("require 'support.long_run'.run(%q, %q, %d)"):format(name, mode, steps))
        local early, late = text:match "^(%d+) (%d+)\n$"
        assert(tonumber(late) < early + 3e6, ("%s bytes in the first fifth, later up to %s"):format(early, late))
      end)
    end
  end

  -- Without asking the collector for one that was dropped, it would be twice as much.
  for _, mode in ipairs{ "incremental", "generational" } do
    it("P18: dropped gradients make room for the next, also when one is held for long, " .. mode, function()
      local text = process.script(([[
        local bp, most, held = require "backprop", 0, nil
        collectgarbage(%q)
        local w = bp.full(0.5, 512, 512)
        local gradient = bp.grad(function(x) return bp.sum(x * x) end)
        for k = 1, 200 do
          local dropped = gradient(w)
          if k == 50 then held = dropped collectgarbage() end
          if k == 52 then held = nil end
          local stats = bp.stats()
          most = math.max(most, stats.bytes_live + stats.bytes_pooled)
        end
        print(most / 2 ^ 21)
      ]]):format(mode))
      assert(tonumber(text) < 5, text .. " times the bytes of a gradient")
    end)
  end

  -- The cycles that the collector has made, as a finalizer counts them that sets itself up again. With such a pause Lua
  -- itself makes none.
  local function cycles(body)
    return tonumber(process.script([[
      local bp = require "backprop"
      local cycles, each = 0, function() end
      local function count() setmetatable({}, { __gc = function() cycles = cycles + 1; each(); count() end }) end
      count()
      collectgarbage("incremental", 1000)
      collectgarbage()
    ]] .. body .. " print(cycles - 1)"))
  end

  it("P18: tables of the host's that grow make the module collect nothing", function()
    assert.equal(0, cycles[[
      local kept = { ("x"):rep(1e7) }
      collectgarbage()
      cycles = 1
      for k = 1, 70 do
        kept[#kept + 1] = ("y"):rep(1e6)
        for _ = 1, 10 do bp.zeros(1000) end
      end
    ]])
  end)

  it("P18: products that a pullback returns, which the sweep takes, make the collector collect nothing", function()
    local count = cycles[[
      local b = bp.zeros(1024)
      local form = bp.op(function(x, ...)
        local weights = { ... }
        return bp.linear(x, weights[1], b), function(d)
          local gradients = {}
          for k in ipairs(weights) do gradients[k] = bp.matmul(bp.transpose(d), x) end
          return nil, table.unpack(gradients)
        end
      end)
      local w, x = {}, bp.ones(2, 128)
      for k = 1, 6 do w[k] = bp.ones(1024, 128) end
      local gradient = bp.grad(function(p) return bp.sum(form(x, table.unpack(p))) end, { into = bp.zero(w) })
      for _ = 1, 40 do gradient(w) end
    ]]
    assert(count < 25, count .. " cycles in 40 calls")
  end)

  it("P18: but not those that it makes and drops", function()
    local most = tonumber(process.script[[
      local bp = require "backprop"
      local u, v, most = bp.ones(512), bp.ones(256), 0
      local wasteful = bp.op(function(x) return x, function(d)
        for _ = 1, 200 do
          local _ = bp.outer(u, v)
          most = math.max(most, bp.stats().bytes_live)
        end
        return d
      end end)
      bp.grad(wasteful)(1)
      print(most / 2 ^ 20)
    ]])
    assert(most < 40, most .. " MiB of 200")
  end)

  -- A cycle for what calls leave behind, between two that the arrays have brought, would let one more gradient wait.
  for _, mode in ipairs{ "incremental", "generational" } do
    it("P18: where gradients that are dropped set the collector going, nothing else does, " .. mode, function()
      local more = tonumber(process.script(([[
        local bp = require "backprop"
        collectgarbage(%q)
        local r = bp.rng(1)
        local function layer(n, m) return { w = r:normal(0, 0.01, n, m), b = bp.zeros(n) } end
        local layers, x, target = { layer(100, 784), layer(100, 100), layer(10, 100) }, bp.ones(784), bp.full(0.1, 10)
        local value_and_grad = bp.value_and_grad(function(net)
          local y = x
          for _, l in ipairs(net) do y = bp.sigmoid(bp.matmul(l.w, y) + l.b) end
          return -bp.dot(target, bp.log(y))
        end)
        local sgd, early, late = bp.optim.sgd{ lr = 0.01 }, 0, 0
        for k = 1, 2000 do
          local _, gradient = value_and_grad(layers)
          sgd:step(layers, gradient)
          local stats = bp.stats()
          local held = stats.bytes_live + stats.bytes_pooled
          if k <= 100 then early = math.max(early, held) else late = math.max(late, held) end
        end
        print(late - early)
      ]]):format(mode)))
      assert(more <= 0, more .. " bytes more after the first 100 steps")
    end)
  end

  -- 600 calls leave a mebibyte of variables behind. 2,000 go through hundreds of times this heap in arrays of 4,096
  -- elements, and through a few times of it in those of 16.
  local calls = [[
    local heap = {}
    for i = 1, 10000 do heap[i] = { k = { i, i + 1, i + 2, i + 3, i + 4, i + 5, i + 6, i + 7, i + 8 } } end
    collectgarbage()
    local x, first, most = bp.ones(elements), collectgarbage "count", 0
    local gradient = bp.grad(function(p)
      local y = p
      for _ = 1, 25 do y = y + y end
      return bp.sum(y)
    end)
    for _ = 1, 2000 do
      bp.release(gradient(x))
      most = math.max(most, collectgarbage "count" - first)
    end
    assert(#heap == 10000)
  ]]

  for _, mode in ipairs{ [[("incremental", 1000)]], [[("generational", 100, 1000)]] } do
    local head = "local bp = require 'backprop' collectgarbage" .. mode
    local function most_garbage(start, elements)
      return tonumber(process.script(head .. (" local elements = %d "):format(elements) ..
        calls:gsub("for _ = 1, 2000", start .. " %0") .. " print(most)"))
    end

    it("P18: what calls leave behind does not wait for the collector beside a large heap, collectgarbage" .. mode,
      function() assert(most_garbage("", 4096) < 1700) end)

    it("P18: but waits where the collector is stopped, collectgarbage" .. mode,
      function() assert(most_garbage("collectgarbage 'stop'", 4096) > 3000) end)

    -- The arrays, of which the collector is told, make it go in generational mode.
    if mode:find "incremental" then
      it("P18: and where calls are cheaper than a cycle", function() assert(most_garbage("", 16) > 2500) end)
    end
  end

  it("P18: arrays that finalizers make are reported, although these cannot set the collector going", function()
    assert(cycles[[
      each = function() for _ = 1, 9 do bp.zeros(100000) end end
      each()
      for _ = 1, 1000 do bp.zeros(8) end
    ]] > 10)
  end)
end)
