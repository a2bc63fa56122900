-- Products of a pullback, and transposes anywhere (transposes_spec.lua, too), are computed when somebody looks at them,
-- or not at all (src/core/pending.h).
-- Nobody may see that: each case here is held against the same with matrices that were looked at on the spot.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"
local pullbacks = require "support.random_pullbacks"
local c = require "c_rows"

local same, raises = help.same, help.raises

describe("in a pullback", function()
  local w0 = bp.matrix{ { 1, 2, 3 }, { 4, 5, 6 } }
  local u, v = bp.vector{ 2, -1 }, bp.vector{ 1, 3, 5 }
  local a, b = bp.matrix{ { 1, 2 }, { 3, -4 } }, bp.matrix{ { 1, 0, 2 }, { 5, 1, 1 } }

  -- The gradients of w, where the pullback of `f` returns what `make` gives with products and transposes that wait, or
  -- with some that do not: of value_and_grad, into an array, of a kept tape twice, and as a step of gradient descent;
  -- and what make has put into `seen` meanwhile.
  local function results(make, op)
    local seen = {}
    local f = bp.op{ name = "f", forward = function(w, s)
      return bp.sum(w) * s, function(dz) return make(dz, op, seen, w), nil end
    end }
    local function loss(w) return f(w, 2) + 3 * f(w, 1) + bp.sum(w * w) end
    local function plain_list(...)
      local list = { ... }
      for i, x in ipairs(list) do list[i] = x:totable() end
      return list
    end
    local fresh = bp.grad(loss)(w0)
    local into = bp.zeros(2, 3)
    bp.grad(loss, { into = into })(w0)
    local _, pullback <close> = bp.vjp(loss, w0)
    local first, second = pullback(1), pullback(1)
    local w = { w0:clone() }
    bp.optim.sgd{ lr = 0.5 }:minimize(function(p) return loss(p[1]) end, w)
    local list = plain_list(fresh, into, first, second, w[1])
    for _, x in ipairs(seen) do list[#list + 1] = type(x) == "userdata" and x:totable() or x end
    return list
  end

  -- Looking at an element is what multiplies it out.
  local function at_once(product)
    return function(...)
      local x = product(...)
      assert(bp.sum(x))
      return x
    end
  end

  -- What nobody has multiplied out is NaN.
  local function in_spoilt_memory(product)
    return function(...)
      local spoilt = {}
      for k = 1, 4 do spoilt[k] = bp.full(0 / 0, 2, 3) end
      bp.release(spoilt)
      return product(...)
    end
  end

  local function all(how)
    return { outer = how(bp.outer), matmul = how(bp.matmul), transpose = how(bp.transpose) }
  end

  local function unseen(make) same(results(make, all(at_once)), results(make, all(in_spoilt_memory))) end

  local products = {
    ["is given"] = function(dz, op) return op.outer(dz * u, v) end,
    ["of matrices is given"] = function(dz, op) return op.matmul(dz * a, b) end,
    ["of transposes is given"] = function(dz, op)
      return op.matmul(op.transpose(dz * a), op.transpose(bp.transpose(b)))
    end,
    ["of a transpose and an array is given"] = function(dz, op)
      return op.matmul(op.transpose(dz * a), b) + op.matmul(dz * a, op.transpose(bp.transpose(b)))
    end,
    ["of a transpose of a product is given"] = function(dz, op)
      return op.matmul(op.transpose(op.outer(dz * u, u * 2 + 1)), b)
    end,
    ["of a transpose of a transpose is given"] = function(dz, op)
      return op.matmul(op.transpose(op.transpose(dz * a)), b)
    end,
    ["of one transpose twice is given"] = function(dz, op)
      local t = op.transpose(dz * a)
      return op.matmul(op.matmul(t, t), b)
    end,
    ["of a transpose and a vector is used"] = function(dz, op)
      return op.outer(op.matmul(op.transpose(dz * a), u), op.matmul(v, op.transpose(op.outer(v, v + 1))))
    end,
    ["is transposed and given"] = function(dz, op) return op.transpose(op.outer(v, dz * u)) end,
    ["of a column is given"] = function(dz, op) return op.outer(bp.column(dz * a, 2), v) end,
    ["is used by an operation"] = function(dz, op) return op.outer(dz * u, v) * 2 + op.outer(u, v) end,
    ["is a factor of another"] = function(dz, op) return op.matmul(op.outer(dz * u, u), b) end,
    ["is kept and looked at later"] = function(dz, op, seen)
      seen[#seen + 1] = op.outer(u * dz, u)
      return op.outer(dz * u, v)
    end,
    ["is looked at and given"] = function(dz, op, seen)
      local g = op.outer(dz * u, v)
      seen[#seen + 1] = bp.sum(g)
      seen[#seen + 1] = g[2]:clone()
      return g
    end,
    ["is changed in place"] = function(dz, op)
      local g = op.outer(dz * u, v)
      g:set(1, 2, 100)
      return g
    end,
    ["is added to in place"] = function(dz, op)
      local g, h = op.outer(dz * u, v), op.outer(u, v)
      bp.axpy(2, g, h)
      return h
    end,
    ["is filled"] = function(dz, op)
      local g = op.outer(dz * u, v)
      g:fill(dz)
      return g
    end,
    ["is copied over"] = function(dz, op)
      local g = op.outer(dz * u, v)
      g:copy(w0)
      return g
    end,
    ["has a row that is changed"] = function(dz, op)
      local g = op.outer(dz * u, v)
      g[1]:fill(7)
      return g
    end,
    ["has a factor that is changed afterwards"] = function(dz, op, seen)
      local d = dz * u
      local g = op.outer(d, v)
      d:fill(9)
      seen[#seen + 1] = op.outer(d, d)
      bp.axpy(1, d, d)
      return g
    end,
    ["has a matrix factor of which a row is changed afterwards"] = function(dz, op)
      local d = dz * a
      local g = op.matmul(d, b)
      d[1][2] = 50
      return g
    end,
    ["has a factor that is released"] = function(dz, op)
      local d = dz * u
      local g = op.outer(d, v)
      bp.release(d)
      return g
    end,
    ["is released"] = function(dz, op)
      bp.release(op.outer(dz * u, v))
      return op.outer(u, v)
    end,
    ["is dropped"] = function(dz, op)
      for _ = 1, 3 do op.outer(dz * u, v) end
      collectgarbage()
      return op.outer(u, v)
    end,
    ["is one of many"] = function(dz, op)
      local list, sum = {}, bp.zeros(2, 3)
      for k = 1, 20 do list[k] = op.outer(u * k, v * dz) end
      for k = 1, 20 do sum = sum + list[1 + k * 7 % 20] * (k % 3) end
      return sum
    end,
    ["has a scratch array for a factor, which every call writes to"] = (function()
      local scratch = bp.zeros(2)
      return function(dz, op)
        scratch:copy(dz * u)
        return op.outer(scratch, v)
      end
    end)(),
    ["has the parameter for a factor"] = function(dz, op, seen, w)
      seen[#seen + 1] = op.matmul(a, w)
      return op.matmul(dz * a, w)
    end,
    ["is made in a gradient inside"] = function(dz, op, seen)
      local g = op.outer(dz * u, v)
      local inner = bp.grad(function(x)
        seen[#seen + 1] = op.outer(u, u)
        return bp.sum(bp.matmul(g, x)) + bp.sum(op.outer(x, v) * op.outer(v, v))
      end)(v)
      return g + op.outer(u, inner)
    end,
    ["has a factor that a gradient inside is written into"] = function(dz, op)
      local d = dz * u
      local g = op.outer(d, v)
      bp.grad(function(x) return bp.sum(x * x) end, { into = d })(u)
      return g
    end,
    ["is differentiated by"] = function(dz, op)
      local g = op.outer(dz * u, v)
      return bp.grad(function(x) return bp.sum(x * x) end)(g)
    end,
    ["receives a gradient"] = function(dz, op, seen)
      local g = op.outer(dz * u, v)
      bp.grad(function(x) return bp.sum(x * x) end, { into = g })(w0)
      seen[#seen + 1] = g
      return op.outer(u, v)
    end,
    ["has a factor that is stepped"] = function(dz, op)
      local d = { dz * u }
      local g = op.outer(d[1], v)
      bp.optim.sgd{ lr = 0.1 }:step(d, { u })
      return g
    end,
    ["has a factor that is minimized"] = function(dz, op)
      local d = { dz * u }
      local g = op.outer(d[1], v)
      bp.optim.sgd{ lr = 0.1 }:minimize(function(p) return bp.sum(p[1] * p[1]) end, d)
      return g
    end,
    ["is held when the pullback goes on after an error"] = function(dz, op, seen)
      local ok = pcall(function()
        seen[#seen + 1] = op.outer(dz * u, u)
        error "stopped"
      end)
      assert(not ok)
      return op.outer(dz * u, v)
    end,
  }
  local transposes = {
    ["is given"] = function(dz, op) return op.transpose(bp.transpose(b) * dz) end,
    ["is looked at"] = function(dz, op, seen)
      local t = op.transpose(dz * b)
      seen[#seen + 1] = bp.sum(t)
      seen[#seen + 1] = t[3]:clone()
      seen[#seen + 1] = bp.diag(op.transpose(a)):clone()
      seen[#seen + 1] = op.transpose(b):get(3, 2)
      seen[#seen + 1] = op.transpose(b):totable()[2][1]
      seen[#seen + 1] = tostring(op.transpose(b))
      seen[#seen + 1] = bp.slice(op.transpose(b), 2, 3):clone()
      return op.outer(u, v)
    end,
    ["is kept"] = function(dz, op, seen)
      seen[#seen + 1] = op.transpose(dz * a)
      return op.outer(u, v)
    end,
    ["has a source that is changed"] = function(dz, op)
      local source = dz * a
      local t = op.transpose(source)
      source:fill(1)
      return op.matmul(t, b)
    end,
    ["is a factor, and then changed, or its source is, or both are released"] = function(dz, op, seen)
      local function after(change)
        local source = dz * a
        local t = op.transpose(source)
        local g = op.matmul(t, b)
        change(t, source)
        return g, t
      end
      local g, t = after(function(x) x:fill(1) end)
      local h, s = after(function(_, source) source:fill(1) end)
      seen[#seen + 1], seen[#seen + 2], seen[#seen + 3] = t, s, h
      return g + (after(function(...) bp.release{ ... } end))
    end,
    ["is a factor as one of many"] = function(dz, op)
      local list, sum = {}, bp.zeros(2, 3)
      for k = 1, 20 do list[k] = op.transpose(a * k) end
      for k = 1, 20 do sum = sum + op.matmul(list[k], b) * (k % 3 * dz) end
      return sum
    end,
    ["is a factor in a gradient inside"] = function(dz, op)
      local t = op.transpose(dz * a)
      return bp.grad(function(x) return bp.sum(bp.matmul(t, x) * x) end)(op.matmul(t, b))
    end,
  }
  for name, make in pairs(products) do
    it("a product " .. name, function() unseen(make) end)
  end
  for name, make in pairs(transposes) do
    it("a transpose " .. name, function() unseen(make) end)
  end

  it("a product is there when the pullback has raised", function()
    local kept
    local f = bp.op(function(w) return bp.sum(w), function(dz)
      kept = bp.outer(dz * u, v)
      error "stopped"
    end end)
    raises("stopped", function() bp.grad(function(w) return f(w) end)(w0) end)
    same({ { 2, 6, 10 }, { -1, -3, -5 } }, kept)
  end)

  it("a product may have the array for a factor that receives the gradient", function()
    local into = w0:clone()
    local f = bp.op(function(w) return bp.sum(w), function(dz) return bp.matmul(dz * a, into) end end)
    bp.grad(function(w) return f(w) end, { into = into })(w0)
    same(bp.matmul(a, w0), into)
  end)

  it("a product may have the array for a factor that receives a window's gradient, or another argument's", function()
    local function both(op)
      local into = bp.matrix{ { 1, 2 }, { 3, 4 }, { 5, 6 } }
      local f = bp.op(function(w) return bp.sum(w), function(dz) return op.outer(dz * u, bp.row(into, 2)) end end)
      bp.grad(function(x) return f(bp.slice(x, 2, 3)) end, { into = into })(bp.zeros(3, 2))
      local ix, iy = a:clone(), a:clone()
      local h = bp.op(function(x, y)
        return bp.sum(x) + bp.sum(y), function(dz) return dz * a, op.matmul(dz * a, ix) end
      end)
      bp.grad(function(x, y) return h(x, y) end, { wrt = { 1, 2 }, into = { ix, iy } })(a, a)
      return { into, ix, iy }
    end
    local eager = both(all(at_once))
    same({ { { 0, 0 }, { 6, 8 }, { -3, -4 } }, a, bp.matmul(a, a) }, eager)
    same(eager, both(bp))
  end)

  it("a product may be made by a function inside whose gradient or step goes to a factor", function()
    local kept, stepped
    local f = bp.op(function(w) return bp.sum(w), function(dz)
      local d, e = u * dz, { u * dz }
      bp.grad(function(x)
        kept = bp.outer(d, d)
        return bp.sum(x * x)
      end, { into = d })(u)
      bp.optim.sgd{ lr = 0.5 }:minimize(function(p)
        stepped = bp.outer(u, u) + 0 * bp.sum(bp.value(p[1]))
        kept = { kept, bp.outer(e[1], e[1]) }
        return bp.sum(p[1] * p[1])
      end, e)
      return bp.outer(u, v)
    end end)
    bp.grad(function(w) return f(w) end)(w0)
    same({ { { 4, -2 }, { -2, 1 } }, { { 4, -2 }, { -2, 1 } } }, kept)
    same({ { 4, -2 }, { -2, 1 } }, stepped)
  end)

  it("a product does not wait for a factor whose address the host has kept", function()
    assert(c.keep(u))
    local shared, made = u:clone(), c.count(2)
    local f = bp.op(function(w) return bp.sum(w), function()
      local g = bp.outer(u, v)
      c.write(100)
      return g
    end end)
    same({ { 2, 6, 10 }, { -1, -3, -5 } }, bp.grad(function(w) return f(w) end)(w0))
    u:copy(shared)
    assert(c.keep(made))
    local h = bp.op(function(w) return bp.sum(w), function() return bp.outer(made, v) end end)
    same({ { 0, 0, 0 }, { 1, 3, 5 } }, bp.grad(function(w) return h(w) end)(w0))
  end)

  it("a product is given once for two arguments and for leaves of a record", function()
    local f = bp.op(function(x, y) return bp.sum(x) + bp.sum(y), function(dz)
      local g = bp.outer(dz * u, v)
      return g, g
    end end)
    local gx, gy = bp.grad(function(x, y) return f(x, y) end, { wrt = { 1, 2 } })(w0, w0)
    same({ { { 2, 6, 10 }, { -1, -3, -5 } }, { { 2, 6, 10 }, { -1, -3, -5 } } }, { gx, gy })
    gx:fill(0)
    same({ { 2, 6, 10 }, { -1, -3, -5 } }, gy)
    local h = bp.op(function(p) return bp.sum(p.x) + bp.sum(p.y), function(dz)
      local g = bp.outer(dz * u, v)
      return { x = g, y = bp.matmul(a, b) }
    end end)
    same({ x = { { 2, 6, 10 }, { -1, -3, -5 } }, y = bp.matmul(a, b) }, bp.grad(function(p) return h(p) end)({
      x = w0, y = w0 }))
  end)

  it("a product goes to a window, and to what is no leaf", function()
    local f = bp.op(function(w) return bp.sum(w), function(dz) return bp.outer(dz * u, v) end end)
    local m = bp.matrix{ { 1, 1, 1 }, { 2, 2, 2 }, { 3, 3, 3 } }
    same({ { 0, 0, 0 }, { 2, 6, 10 }, { -1, -3, -5 } }, bp.grad(function(x) return f(bp.slice(x, 2, 3)) end)(m))
    same({ { 4, 12, 20 }, { -2, -6, -10 } }, bp.grad(function(w) return f(w * 2) end)(w0))
  end)

  it("a product has a dtype and a shape that are checked", function()
    local function given(make)
      local f = bp.op{ name = "f", forward = function(w) return bp.sum(w), function() return make() end end }
      return function() bp.grad(function(w) return f(w) end)(w0) end
    end
    raises("f: the pullback's gradient of argument 1 has shape 3x2", given(function() return bp.outer(v, u) end))
    raises("f32", given(function() return bp.outer(u:astype "f32", v:astype "f32") end))
  end)

  it("a product is dead afterwards, as other arrays are that were given", function()
    local kept
    local f = bp.op(function(w) return bp.sum(w), function(dz)
      kept = bp.outer(dz * u, v)
      return kept
    end end)
    local g = bp.grad(function(w) return f(w) end)(w0)
    raises("given", function() return kept[1] end)
    same({ { 2, 6, 10 }, { -1, -3, -5 } }, g)
  end)

  it("a product that makes a NaN is found where bp.check_finite is on", function()
    local nan = bp.full(0 / 0, 3)
    local f = bp.op{ name = "f", forward = function(w) return bp.sum(w), function(dz)
      return bp.outer(dz * u, nan)
    end end }
    raises("NaN or inf", function() bp.grad(function(w) return f(w) end, { check_finite = true })(w0) end)
    bp.check_finite(true)
    raises("bp.outer", function() bp.grad(function(w) return f(w) end, { check_finite = false })(w0) end)
    bp.check_finite(false)
  end)

  it("a product is not looked at for a NaN before it is there", function()
    local spoilt = bp.full(0 / 0, 2, 3)
    local g = bp.op(function(w) return bp.sum(w), function(dz)
      local d = dz * u
      bp.release(spoilt)
      return bp.outer(d, v)
    end end)
    bp.check_finite(true)
    local ok, gradient = pcall(bp.grad(function(w) return g(w) end, { check_finite = false }), w0)
    bp.check_finite(false)
    assert(ok, gradient)
    same({ { 2, 6, 10 }, { -1, -3, -5 } }, gradient)
  end)
end)

describe("a random pullback", function()
  -- As numbers are, but for rounding: a product that is added to something is rounded once less.
  local function agree(x, y)
    if x == "given" or y == "given" then return true end
    if type(x) == "number" and type(y) == "number" then
      return x == y or x ~= x and y ~= y or math.abs(x - y) <= 1e-9 * math.max(1, math.abs(x))
    elseif type(x) ~= "table" or type(y) ~= "table" then
      return x == y
    end
    for key, part in pairs(x) do
      if not agree(part, y[key]) then return false end
    end
    for key in pairs(y) do
      if x[key] == nil then return false end
    end
    return true
  end

  local function at_once(x)
    bp.sum(x)
    return x
  end

  it("gives the same, whether or not its products and transposes wait", function()
    for seed = 1, 600 do
      math.randomseed(seed)
      local program = pullbacks.random()
      for way = 1, pullbacks.ways do
        local expected = pullbacks.outcome(program, way, at_once)
        local found = pullbacks.outcome(program, way, function(x) return x end)
        assert(agree(expected, found), ("seed %d, way %d"):format(seed, way))
      end
    end
  end)
end)
