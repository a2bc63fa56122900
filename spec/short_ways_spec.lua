-- The short ways of the core for whole structures of arrays (array_pairs, arithmetic) against the long ones of the Lua
-- side: the same results to the last bit, and nothing but the usual case is served.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local core = require "backprop.core"
local alias = require "backprop.alias"
local help = require "support.helpers"

local same = help.same

local Layer = bp.record("Layer", { "w", "matrix" }, { "b", "vector" }, { "stride", bp.static })
local Net = bp.record("Net", { "layers", bp.list(Layer) }, "scales")

local function net_of(seed, dtype)
  local r = bp.rng(seed)
  local function layer(rows, columns)
    return Layer{ w = r:normal(0, 1, rows, columns, dtype), b = r:normal(0, 1, rows, dtype), stride = 2 }
  end
  return Net{ layers = { layer(3, 2), layer(1, 3) }, scales = { first = r:normal(0, 1, 4, dtype), [3] = bp.zeros(0) } }
end

-- What makes the long way necessary and changes nothing else.
local function with_number(x) return { x, 0.5 } end

describe("alias.pairs", function()
  local v, w = bp.vector{ 1, 2 }, bp.vector{ 3, 4 }

  it("lists the arrays of two structures that go together", function()
    local params, grads = net_of(1), net_of(2)
    local list = alias.pairs("test", params, grads)
    assert.equal(2 * #bp.leaves(params), #list)
    for k, leaf in ipairs(bp.leaves(params)) do assert(rawequal(leaf, list[2 * k - 1])) end
    for k, leaf in ipairs(bp.leaves(grads)) do assert(rawequal(leaf, list[2 * k])) end
    assert.equal(2, #alias.pairs("test", v, w))
    local shared, gradient = { v }, { w }
    assert.equal(2, #alias.pairs("test", { a = shared, b = { shared } }, { a = gradient, b = { gradient } }))
  end)

  local m = bp.zeros(4, 2)
  local itself = { v }
  itself.again = itself
  local refused = {
    { "no arrays", {}, {} }, { "a number", { v, 1 }, { w, 1 } }, { "nothing", nil, { w } }, { "text", "x", "x" },
    { "other shapes", { v }, { bp.zeros(3) } }, { "a matrix for a vector", { v }, { bp.zeros(1, 2) } },
    { "another dtype", { v }, { bp.zeros(2, "f32") } }, { "a missing part", { v, w }, { w } },
    { "a surplus part", { v }, { w, v:clone() } }, { "a table for an array", { v }, { { w } } },
    { "an array twice", { v, v }, { w, w:clone() } }, { "windows of one matrix", { m[1], m[2] }, { v, w } },
    { "an array for itself", { v }, { v } }, { "a source that is another target", { v, w }, { w, bp.zeros(2) } },
    { "a source in a target's storage", { m }, { bp.slice(m, 1, 4) } },
    { "a structure inside itself", itself, { w, again = itself } },
    { "a table at two paths beside two others", { itself[1], { v }, { v } }, { w, { w:clone() }, { w:clone() } } },
    { "a released array", { v }, { (function() local x = v:clone(); bp.release(x); return x end)() } },
    { "records of two types", net_of(1), net_of(2).layers[1] },
  }
  for _, case in ipairs(refused) do
    it("leaves " .. case[1] .. " to the long way", function() assert.is_nil(alias.pairs("test", case[2], case[3])) end)
  end

  it("leaves tracked values and instances to the long way", function()
    bp.grad(function(x)
      assert.is_nil(alias.pairs("test", { x }, { w }))
      assert.is_nil(alias.pairs("test", { w }, { x }))
      return bp.sum(x)
    end)(v)
    local money = setmetatable({ amount = 1 }, {})
    bp.instance(getmetatable(money), { zero = function() end, add = function(a) return a end, one = function() end })
    assert.is_nil(alias.pairs("test", { v, money }, { w, money }))
  end)
end)

describe("steps, short and long:", function()
  local makers = {
    { "sgd", { lr = 0.1 } }, { "sgd", { lr = 0.1, weight_decay = 0.3 } }, { "sgd", { lr = 0.1, momentum = 0.9 } },
    { "sgd", { lr = 0.1, momentum = 0.9, nesterov = true, weight_decay = 0.1 } }, { "adam", { lr = 0.1 } },
    { "adam", { lr = 0.1, weight_decay = 0.2 } }, { "adamw", { lr = 0.1 } }, { "rmsprop", { lr = 0.1 } },
    { "adagrad", { lr = 0.1, weight_decay = 0.1 } },
  }
  for _, dtype in ipairs(help.dtypes) do
    for k, maker in ipairs(makers) do
      it(("%s %d, %s"):format(maker[1], k, dtype), function()
        local a, b = net_of(1, dtype), net_of(1, dtype)
        local short, long = bp.optim[maker[1]](maker[2]), bp.optim[maker[1]](maker[2])
        for seed = 2, 6 do
          short:step(a, net_of(seed, dtype))
          long:step(with_number(b), { net_of(seed, dtype), 0 })
          assert.same(help.plain(b), help.plain(a))
        end
        assert.equal(5, short.steps)
        -- and minimize, which differentiates a loss first
        local function loss(net) return bp.sum(net.layers[1].w ^ 2) + bp.sum(net.layers[2].b * net.scales.first[1]) end
        for _ = 1, 3 do
          assert.equal(long:minimize(function(p) return loss(p[1]) + p[2] * 0 end, with_number(b)),
            short:minimize(loss, a))
          assert.same(help.plain(b), help.plain(a))
        end
      end)
    end

    it("a state belongs to the storage, whichever handle and way it is reached by, " .. dtype, function()
      local v, w, g = bp.ones(3, dtype), bp.ones(3, dtype), bp.full(0.5, 3, dtype)
      local one, two = bp.optim.sgd{ lr = 1, momentum = 0.5 }, bp.optim.sgd{ lr = 1, momentum = 0.5 }
      for k = 1, 6 do
        one:step({ v }, { g })
        two:step(k % 3 == 0 and with_number{ w } or { k % 2 == 0 and w or bp.slice(w, 1, 3) },
          k % 3 == 0 and { { g }, 0 } or { g })
        same(v, w)
      end
    end)
  end

  it("axpy", function()
    local a, b = net_of(1), net_of(1)
    for seed = 2, 4 do
      bp.axpy(-0.3, net_of(seed), a)
      bp.axpy(-0.3, with_number(net_of(seed)), with_number(b))
      assert.same(help.plain(b), help.plain(a))
    end
  end)

  it("change nothing where something is wrong", function()
    local params, kept = net_of(1), nil
    local before = help.plain(params)
    bp.vjp(function(x) kept = bp.value(x); return x end, params.layers[2].b) -- a read-only handle
    local locked = Net{ layers = { params.layers[1], Layer{ w = params.layers[2].w, b = kept, stride = 1 } },
      scales = params.scales }
    for _, call in ipairs{
      function() bp.axpy(1, net_of(2), locked) end, function() bp.optim.sgd():step(locked, net_of(2)) end,
      function() bp.optim.adam():step(locked, net_of(2)) end,
    } do
      help.raises("read-only", call)
      assert.same(before, help.plain(params))
    end
  end)
end)

describe("arithmetic of records, short and long:", function()
  local function leafwise(f, x, y) return bp.map(f, x, y) end

  for _, dtype in ipairs(help.dtypes) do
    it("two records, and a record and a number, " .. dtype, function()
      local x, y = net_of(1, dtype), net_of(2, dtype)
      assert.same(help.plain(x + y), help.plain(core.arithmetic("test", "+", x, y)))
      assert.same(help.plain(3 / x), help.plain(core.arithmetic("test", "/", 3, x)))
      assert.same(help.plain(leafwise(function(a, b) return a + b end, x, y)), help.plain(x + y))
      assert.same(help.plain(leafwise(function(a, b) return a - b end, x, y)), help.plain(x - y))
      assert.same(help.plain(leafwise(function(a, b) return a * b end, x, y)), help.plain(x * y))
      assert.same(help.plain(leafwise(function(a, b) return a / b end, x, y)), help.plain(x / y))
      assert.same(help.plain(leafwise(function(a, b) return a + b end, x, y)), help.plain(bp.add(x, y)))
      assert.same(help.plain(bp.map(function(a) return a * 3 end, x)), help.plain(x * 3))
      assert.same(help.plain(bp.map(function(a) return 3 - a end, x)), help.plain(3 - x))
      assert.same(help.plain(bp.map(function(a) return a / 3 end, x)), help.plain(x / 3))
      assert.same(help.plain(bp.map(function(a) return 3 / a end, x)), help.plain(3 / x))
      assert.same(help.plain(bp.map(function(a) return -a end, x)), help.plain(-x))
      local z = x - y
      assert(Net.is(z) and Layer.is(z.layers[1]) and z.layers[1].stride == 2)
    end)
  end

  it("tracked: the same gradients", function()
    local x, y = net_of(1), net_of(2)
    local function weigh(net)
      local total = 0
      for k, leaf in ipairs(bp.leaves(net)) do total = total + bp.sum(bp.sin(leaf)) * k end
      return total
    end
    local short = bp.vjp(function(a, b, s) return weigh((a * b - s * a) / (b + 2) + (s - b)) end, x, y, 0.7)
    local _, one <close> = bp.vjp(function(a, b, s) return weigh((a * b - s * a) / (b + 2) + (s - b)) end, x, y, 0.7)
    local _, two <close> = bp.vjp(function(a, b, s)
      return weigh(bp.map(function(p, q) return (p * q - s * p) / (q + 2) + (s - q) end, a, b))
    end, x, y, 0.7)
    assert.equal(weigh(bp.eval(function(a, b, s) return (a * b - s * a) / (b + 2) + (s - b) end, x, y, 0.7)), short)
    local gx, gy, gs = one()
    local hx, hy, hs = two()
    assert.same(help.plain(hx), help.plain(gx))
    assert.same(help.plain(hy), help.plain(gy))
    help.close(hs, gs, 1e-13)
  end)

  it("numbers stay what Lua makes of them; bp.add counts in floats", function()
    local Point = bp.record("Point", { "x", "number" }, { "y", "number" })
    local p = Point{ x = 1, y = 2.5 } + Point{ x = 2, y = 0.5 }
    assert.equal("integer", math.type(p.x))
    assert.equal(3, p.y)
    assert.equal("float", math.type(bp.add({ 1 }, { 2 })[1]))
    assert.equal(2.0 ^ 63, bp.add({ math.maxinteger }, { 1 })[1])
  end)

  it("what does not fit takes the long way", function()
    assert.same({ "x", 4 }, core.arithmetic("test", "+", { "x", 1 }, 3))
    local v = bp.ones(2)
    for _, other in ipairs{ { bp.ones(3) }, { v, v }, { { v } }, { v:astype("f32") }, {} } do
      assert.is_false((pcall(core.arithmetic, "test", "+", { v }, other)))
    end
    local money = setmetatable({ amount = 1 }, {})
    bp.instance(getmetatable(money), { zero = function() end, add = function(a) return a end, one = function() end })
    assert.is_false((pcall(core.arithmetic, "test", "+", { money }, { money })))
    assert(rawequal(money, bp.add({ money }, { money })[1]))
  end)
end)

describe("an interrupt", function()
  -- As the stand-alone interpreter does it on Ctrl-C: a hook that raises once, at some call or return, and is gone.
  it("by a hook gets through, wherever it comes", function()
    local x, y, sgd = net_of(1), net_of(2), bp.optim.sgd{ lr = 0 }
    for name, f in pairs{
      minus = function() return x - y end, times = function() return 2 * x end,
      add = function() return bp.add(x, y) end,
      axpy = function() bp.axpy(0, y, x) end, step = function() sgd:step(x, y) end,
    } do
      local at, raised = 0
      repeat
        local count, inside = 0, false
        at = at + 1
        raised = false
        local function interrupt()
          if not inside then return end
          count = count + 1
          if count ~= at then return end
          debug.sethook()
          raised = true
          error("interrupted!", 0)
        end
        debug.sethook(interrupt, "cr")
        local ran, message = pcall(function()
          inside = true
          f()
          inside = false
        end)
        debug.sethook()
        assert(not raised or not ran and message == "interrupted!", name)
      until not raised
      assert(at > 20, name)
    end
  end)
end)
