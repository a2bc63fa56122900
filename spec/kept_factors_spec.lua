-- For a step of gradient descent the factors of a weight's gradient are kept until the sweep has ended (sweep.c in
-- src/tape/). Whoever writes to one of them in between must not change the step.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"
local process = require "support.process"
local c = require "c_rows"

local same, raises = help.same, help.raises

describe("a factor that is kept for a step", function()
  -- Both ways of a step from fresh copies of the parameters: opt:minimize, and a gradient that is multiplied at once.
  local function steps(make)
    local results = {}
    for way = 1, 2 do
      local loss, params = make()
      local opt = bp.optim.sgd{ lr = 0.5 }
      if way == 1 then
        opt:minimize(loss, params)
      else
        local _, gradient = bp.value_and_grad(loss)(params)
        opt:step(params, gradient)
      end
      results[way] = params
    end
    return results[1], results[2]
  end

  it("is the cotangent behind linear's own activation, where others have the cotangent too", function()
    local random = bp.rng(5)
    local function new(...) return random:normal(0, 0.5, ...) end
    local x, v = new(4, 4), new(4)
    local w1, w2, square, b1, b2 = new(4, 4), new(4, 4), new(4, 4), new(4), new(4)
    local losses = {
      function(p, f) return bp.sum(bp.linear(p.x, p.w1, p.b1, f) + p.x) end,
      function(p, f) return bp.sum(bp.square(bp.linear(x, p.w1, p.b1, f) + bp.linear(x, p.w2, p.b2, f))) end,
      function(p, f) return bp.sum(bp.square(bp.linear(v, p.w1, p.b1, f) + bp.linear(v, p.w2, p.b2, f))) end,
      function(p, f)
        local y = bp.linear(x, p.w1, p.b1, f)
        return bp.norm(p.w1) + bp.sum(bp.square(y + bp.linear(y, p.w2, p.b2, f) + p.x))
      end,
      function(p, f) return bp.sum(bp.square(bp.linear(p.x, w1, b1, f) + p.x)) end, -- x alone is a parameter
      function(p, f) return bp.sum(bp.square(bp.linear(p.x, p.w1 * 2, p.b1, f) + p.x)) end,
      function(p, f) return bp.sum(bp.square(bp.linear(bp.exp(p.x), p.w1, p.b1, f) + p.x)) end,
    }
    for _, row in ipairs(bp.ops()) do
      local f = row.arity == 1 and row.signature == "value x" and bp[row.name] and row.name
      if f and pcall(bp.linear, x, w1, b1, f) and help.is_array(bp.linear(x, w1, b1, f)) then
        for k, loss in ipairs(losses) do
          local minimized, stepped = steps(function()
            return function(p) return loss(p, f) end,
              help.clone{ w1 = w1, w2 = w2, b1 = b1, b2 = b2, x = square }
          end)
          if not help.differs(help.plain(stepped), help.plain(stepped)) then -- no NaN
            help.close(help.plain(stepped), help.plain(minimized), 1e-12, ("%s, loss %d"):format(f, k))
          end
        end
      end
    end
    -- and the storage of such a factor is nobody else's afterwards
    for _, loss in ipairs(losses) do
      local p = help.clone{ w1 = w1, w2 = w2, b1 = b1, b2 = b2, x = square }
      bp.optim.sgd{ lr = 0.01 }:minimize(function(q) return loss(q, "tanh") end, p)
      local kept = {}
      for i = 1, 40 do kept[i] = bp.full(i, 4, 4) end
      for i = 1, 40 do same(i, kept[i]:get(1, 1)) end
    end
  end)

  -- Runs f in the sweep after everything that is recorded later.
  local function later(f)
    return bp.op(function(s) return s * 1, function(d)
      f()
      return d
    end end)
  end

  local writes = {
    ["is filled"] = function(x) x:fill(100) end,
    ["has an element set"] = function(x) x[2] = 100 end,
    ["is copied over"] = function(x) x:copy(bp.vector{ 7, 8, 9 }) end,
    ["is added to"] = function(x) bp.axpy(1, x, x) end,
    ["receives a gradient"] = function(x) bp.grad(function(v) return bp.sum(v * v) end, { into = x })(bp.ones(3)) end,
    ["is stepped"] = function(x) bp.optim.sgd{ lr = 1 }:step({ x }, { bp.ones(3) }) end,
    ["is minimized"] = function(x)
      bp.optim.sgd{ lr = 1 }:minimize(function(p) return bp.sum(p[1] * p[1]) end, { x })
    end,
    ["is minimized with Adam"] = function(x)
      bp.optim.adam{ lr = 1 }:minimize(function(p) return bp.sum(p[1] * p[1]) end, { x })
    end,
  }
  local layers = {
    [""] = bp.matmul,
    [", after a product by hand"] = bp.op(function(w, x)
      return bp.matmul(w, x), function(d) return bp.outer(d, x), nil end
    end),
  }
  for name, write in pairs(writes) do
    for where, layer in pairs(layers) do
      it(name .. " later in the sweep" .. where, function()
        local x
        local function loss(p)
          local h = later(function() write(x) end)(p.s)
          return bp.sum(layer(p.w, x)) * h
        end
        same(steps(function()
          x = bp.vector{ 1, 2, 3 }
          return loss, { w = bp.ones(2, 3), s = 2.0 }
        end))
      end)
    end
  end

  it("is a parameter of the same step", function()
    same(steps(function()
      return function(p) return bp.sum(bp.matmul(p.v, bp.matmul(p.w, p.v))) end,
        { w = bp.matrix{ { 1, 2 }, { 3, 4 } }, v = bp.matrix{ { 1, -1 }, { 2, 5 } } }
    end))
  end)

  it("is stepped by a coroutine that began before", function()
    local x, other
    local function loss(p)
      local h = later(function() coroutine.resume(other) end)(p.s)
      return bp.sum(bp.matmul(p.w, x[1])) * h
    end
    same(steps(function()
      x = { bp.vector{ 1, 2, 3 } }
      other = coroutine.create(function()
        bp.optim.sgd{ lr = 1 }:minimize(function(p)
          coroutine.yield()
          return bp.sum(p[1] * p[1])
        end, x)
      end)
      coroutine.resume(other)
      return loss, { w = bp.ones(2, 3), s = 2.0 }
    end))
  end)

  -- In a process of its own, whose heap is so small that the collector comes round often.
  it("is stepped while finalizers make products of it", function()
    process.script[[
      local bp = require "backprop"
      local d, made, running = bp.vector{ 2, -1 }, {}, true
      local function arm()
        setmetatable({}, { __gc = function()
          if not running then return end
          made[#made + 1] = { bp.outer(d, d), d:totable() }
          arm()
        end })
      end
      local f = bp.op(function(w) return bp.sum(w), function(g)
        collectgarbage("incremental", 1, 100, 1)
        arm()
        for _ = 1, 3000 do
          bp.optim.sgd{ lr = 0.001 }:minimize(function(p) return bp.sum(p.d * p.d) * p.s end, { d = d, s = 2.0 })
        end
        running = false
        return bp.ones(2, 3) * g
      end end)
      bp.grad(function(w) return f(w) end)(bp.ones(2, 3))
      assert(#made > 20, #made)
      for _, entry in ipairs(made) do
        local at = bp.vector(entry[2])
        assert(bp.outer(at, at) == entry[1])
      end
    ]]
  end)

  it("is changed by the host: an error, and nothing has changed", function()
    local x, w = bp.vector{ 1, 2, 3 }, bp.ones(2, 3)
    local function loss(p)
      local h = later(function() c.double_in_place(x) end)(p.s)
      return bp.sum(bp.matmul(p.w, x)) * h
    end
    local params = { w = w, s = 2.0 }
    raises("changed in place by the host", function() bp.optim.sgd{ lr = 1 }:minimize(loss, params) end)
    same({ w = { { 1, 1, 1 }, { 1, 1, 1 } }, s = 2.0 }, params)
  end)

  it("is changed by the host and then by the step, or in a pullback: the same error", function()
    for _, write in ipairs{ function() end, function(v) v:fill(1) end } do
      local v, w = bp.vector{ 1, 2, 3 }, bp.ones(2, 3)
      local function loss(p)
        local h = later(function()
          c.double_in_place(v)
          write(v)
        end)(p.s)
        return bp.sum(bp.matmul(p.w, p.v)) * h
      end
      raises("changed in place by the host", function()
        bp.optim.sgd{ lr = 1 }:minimize(loss, { w = w, v = v, s = 2.0 })
      end)
      same(bp.ones(2, 3), w)
    end
  end)
end)
