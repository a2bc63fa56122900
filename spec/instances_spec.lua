-- Objects of the user's own as leaves (bp.instance): gradients of them, `into`, the optimisers and bp.check.
-- Held here: an instance is treated as a number or an array of the same content is, or there is an error that says so.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"

local same, close, raises = help.same, help.close, help.raises

-- A straight line a + b x as an object that hides its numbers in an array. Without `methods` it is a leaf that carries
-- gradients and no more.
local function class(methods)
  local Line = {}
  local function line(a, b) return setmetatable({ hidden = bp.vector{ a, b } }, Line) end
  local function of(v) return line(v[1], v[2]) end
  local functions = {
    zero = function() return line(0, 0) end,
    one = function() return line(1, 1) end,
    add = function(p, q) return of(p.hidden + q.hidden) end,
  }
  if methods then
    functions.scale = function(p, s) return of(p.hidden * s) end
    functions.dot = function(p, q) return bp.dot(p.hidden, q.hidden) end
  end
  bp.instance(Line, functions)
  return line
end

local function content(p) return p.hidden:totable() end

-- The line at x; `wrong` is a fault in the gradient of b.
local function evaluation(make, wrong)
  return bp.op(function(p, x)
    local a, b = table.unpack(content(p))
    return a + b * x, function(d) return make(d, d * x * (wrong or 1)), d * b end
  end)
end

local line = class(true)
local at = evaluation(line)

describe("the gradient of an instance", function()
  it("is one of its class: sums of what its operations return, zero where nothing arrives", function()
    local g = bp.grad(function(p) return at(p, 3) * at(p, 2) end)(line(1, 2))
    same({ 12, 29 }, content(g)) -- 7 (1, 2) + 5 (1, 3)
    assert.equal(getmetatable(line(0, 0)), getmetatable(g))
    g = bp.grad(function(t) return t.x * 2 end)({ p = line(1, 2), x = 3 })
    same({ 0, 0 }, content(g.p))
    assert.equal(2, g.x)
  end)

  it("goes into the table that holds the instance, and is what is returned", function()
    local held = { p = line(9, 9), x = 9, list = { line(9, 9) } }
    local g = bp.grad(function(t) return at(t.p, t.x) * at(t.list[1], 0) end, { into = held })(
      { p = line(1, 2), x = 3, list = { line(4, 5) } })
    for _, found in ipairs{ g, held } do
      same({ 4, 12 }, content(found.p))
      same(8, found.x)
      same({ 7, 0 }, content(found.list[1]))
    end
    g = bp.grad(function(p) return at(p, 3) end, { into = line(9, 9) })(line(1, 2))
    same({ 1, 3 }, content(g))
  end)
end)

describe("an instance of another class, or none,", function()
  local other = class(true)

  it("is refused as a gradient, and an instance as that of anything else", function()
    local function gradient(given)
      return bp.grad(function(p)
        return bp.op(function(x)
          return bp.kind(x) == "instance" and x.hidden[1] or x, function() return given end
        end)(p)
      end)
    end
    same({ 3, 4 }, content(gradient(line(3, 4))(line(1, 2))))
    raises({ "bp.op: the pullback's gradient of argument 1 must be an instance, got a number" }, gradient(3),
      line(1, 2))
    raises({ "must be an instance, got a vector" }, gradient(bp.vector{ 1 }), line(1, 2))
    raises({ "must be an instance, got an instance of another class" }, gradient(other(3, 4)), line(1, 2))
    raises({ "argument 1 must be a number, got an instance" }, gradient(line(1, 2)), 3)
  end)

  it("is refused as a summand, and as a step", function()
    local p, q = { p = line(1, 2), w = bp.vector{ 1 } }, { p = other(3, 4), w = bp.vector{ 5 } }
    for _, wrong in ipairs{ q, { p = 3, w = bp.vector{ 5 } } } do
      raises({ "bp.add: at p: an instance and", "do not agree" }, bp.add, p, wrong)
      raises({ "bp.axpy: at p: an instance and", "do not agree" }, bp.axpy, 2, wrong, p)
      raises({ "bp.optim: parameter and gradient at p: an instance and", "do not agree" }, bp.optim.sgd().step,
        bp.optim.sgd(), p, wrong)
      same({ 1 }, p.w)
    end
    raises({ "bp.add: an instance and an instance of another class do not agree" }, bp.add, p.p, q.p)
    raises({ "bp.add: a number and an instance do not agree" }, bp.add, 3, p.p)
    raises({ "bp.grad: into: the structures differ at p: an instance and an instance of another class" },
      bp.grad(function(t) return bp.sum(t.w) end, { into = q }), p)
  end)

  it("and one of the same class moves by axpy in the table that holds it, where its class has scale", function()
    local p = { p = line(1, 2), list = { line(0, 1) } }
    p.again = p.list
    bp.axpy(2, { p = line(3, 4), list = { line(1, 1) }, again = { line(1, 1) } }, p)
    same({ { 7, 10 }, { 4, 5 } }, { content(p.p), content(p.again[1]) })
    assert(rawequal(p.list, p.again))
    local bare = class(false)
    local r = { w = bp.vector{ 1 }, z = bare(1, 2) }
    raises({ "bp.axpy: at z: the instance's class has no scale" }, bp.axpy, 2, { w = bp.vector{ 1 }, z = bare(1, 2) },
      r)
    same({ 1 }, r.w)
  end)

  it("is refused as a cotangent", function()
    local _, pullback <close> = bp.vjp(function(p) return { p = p, n = p } end, line(1, 2))
    raises({ "bp.vjp: the cotangent at p: expected an instance, got a number" }, pullback, { p = 3 })
    raises({ "at p: expected an instance, got an instance of another class" }, pullback, { p = other(3, 4) })
    same({ 4, 6 }, content(pullback{ p = line(1, 2), n = line(3, 4) }))
    local _, number <close> = bp.vjp(function(x) return x * 2 end, 3)
    raises({ "expected a number, got an instance" }, number, line(1, 2))
  end)

  it("is refused by an operation within a call inside another one, if that one tracks it", function()
    raises({ "argument 1 must be a number, got a tracked number" }, bp.grad(function(y)
      return bp.grad(bp.op(function(x) return x * 2, function() return y end end))(3)
    end), 5)
  end)
end)

describe("bp.check of an instance", function()
  local function loss(evaluate) return function(t) return evaluate(t.p, 3) ^ 2 * t.x end end
  local function arguments(make) return { p = make(1, 2), x = 0.5 } end

  it("passes a right gradient and leaves the argument as it was", function()
    local t = arguments(line)
    local p = t.p
    assert.equal(3, bp.check(loss(at), t).checked)
    assert(rawequal(p, t.p))
    same({ 1, 2 }, content(p))
  end)

  it("P34: fails on a wrong one, and names the instance", function()
    for _, wrong in ipairs{ -1, 0, 2 } do
      raises("argument 1.p along", bp.check, loss(evaluation(line, wrong)), arguments(line))
    end
  end)

  it("needs scale and dot", function()
    local bare = class(false)
    raises({ "argument 1.p", "scale and dot" }, bp.check, loss(evaluation(bare)), arguments(bare))
  end)
end)

describe("an instance and the optimisers", function()
  local function loss(t) return at(t.p, 3) ^ 2 + bp.sum(t.w * t.w) end

  it("is stepped by sgd as an array of its content is", function()
    for _, options in ipairs{ { lr = 0.01 }, { lr = 0.01, momentum = 0.9 }, { lr = 0.01, weight_decay = 0.5 },
      { lr = 0.01, momentum = 0.8, nesterov = true, weight_decay = 0.1 } } do
      local p, q = { p = line(1, 2), w = bp.vector{ 3 } }, { p = bp.vector{ 1, 2 }, w = bp.vector{ 3 } }
      local opt, other = bp.optim.sgd(options), bp.optim.sgd(options)
      for _ = 1, 5 do
        opt:minimize(loss, p)
        other:minimize(function(t) return (t.p[1] + t.p[2] * 3) ^ 2 + bp.sum(t.w * t.w) end, q)
      end
      close(q.p, p.p.hidden, 1e-13)
      close(q.w, p.w, 1e-13)
    end
  end)

  it("is an error for the others, without scale, bare, or where its class raises: and nothing has changed", function()
    local stubborn = class(true)
    bp.instance(getmetatable(stubborn(0, 0)), {
      zero = function() return stubborn(0, 0) end, one = function() return stubborn(1, 1) end,
      add = function() error("stubborn") end, scale = function(p) return p end,
    })
    for _, case in ipairs{ { "adam", line, "sgd" }, { "adamw", line, "sgd" }, { "rmsprop", line, "sgd" },
      { "adagrad", line, "sgd" }, { "sgd", class(false), "scale" }, { "sgd", stubborn, "stubborn" } } do
      local p = { a = bp.vector{ 3 }, p = case[2](1, 2) }
      raises(case[3], function() bp.optim[case[1]]():step(p, { a = bp.vector{ 1 }, p = case[2](1, 1) }) end)
      same({ 3 }, p.a)
      same({ 1, 2 }, content(p.p))
    end
    raises("bare instance", function() bp.optim.sgd():minimize(function(p) return at(p, 3) end, line(1, 2)) end)
    raises("bare instance", function() bp.optim.sgd():step(line(1, 2), line(1, 2)) end)
  end)
end)
