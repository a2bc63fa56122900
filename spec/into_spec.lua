-- What is written while it is read: gradients that go to arrays which the function reads, too, steps along gradients
-- that lie in parameters. Right, or an error; never made from what was overwritten.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"
local operands = require "support.operands"

local same = help.same

-- Whether the gradients of f at the list x come out right where `choose` says, or it is an error. The truth is that of
-- a call without `into`.
local function right_or_error(what, f, x, choose)
  local truth = bp.grad(f)(help.clone(x))
  local own = help.clone(x)
  local into = choose(own)
  local fine, found = pcall(bp.grad(f, { into = into }), own)
  if not fine then
    assert(type(found) == "string" and not found:find "memory", what .. ": " .. tostring(found))
    return false
  end
  for k, expected in ipairs(truth) do
    same(help.is_array(expected) and expected:totable() or expected, found[k], what)
  end
  return true
end

local function themselves(x) return table.move(x, 1, #x, 1, {}) end

-- The first array takes the place of the next one of its shape, and so on, the last that of the first.
local function rotated(x)
  local list, first, last = themselves(x), nil, nil
  for k, leaf in ipairs(x) do
    if help.is_array(leaf) then
      if last and help.shape(leaf) == help.shape(x[last]) and leaf:dtype() == x[last]:dtype() then
        list[last], list[k] = leaf, x[first]
      end
      first, last = first or k, k
    end
  end
  return list
end

describe("gradients that go to the arguments' own arrays: right, or an error", function()
  it("for every operation's samples", function()
    local tried = 0
    for _, row in ipairs(bp.ops()) do
      for _, arguments in ipairs(row.differentiable and operands.callable(row) and operands.samples(row) or {}) do
        for _, dtype in ipairs{ "f64", "f32" } do
          local sample = operands.sample(row, arguments, dtype)
          for _, choose in ipairs{ themselves, rotated } do
            -- alone, and below an operation that reads what it gets
            right_or_error(row.name, sample.f, sample.operands, choose)
            right_or_error(row.name .. " below exp", function(x)
              local y = sample.f(x)
              return bp.kind(y) == "table" and y or bp.sum(bp.exp(y * 0.1))
            end, sample.operands, choose)
            tried = tried + 1
          end
        end
      end
    end
    assert(tried > 200, "only " .. tried .. " were tried")
  end)

  it("where one operation reads both", function()
    local v, m = { bp.vector{ 1, 2, 3 }, bp.vector{ 4, 5, 6 } }, { bp.matrix{ { 1, 2 }, { 3, 4 } }, bp.eye(2) + 4 }
    local functions = {
      ["sum of a product"] = function(x) return bp.sum(x[1] * x[2]) end,
      ["mean of a product"] = function(x) return bp.mean(x[1] * x[2]) end,
      ["a product"] = function(x) return x[1] * x[2] end,
      ["a product, twice"] = function(x) return bp.sum(x[1] * x[2] * x[1]) end,
      ["a quotient"] = function(x) return x[1] / x[2] end,
      ["a square"] = function(x) return bp.sum(bp.square(x[1])) + bp.sum(x[2]) end,
      ["a part"] = function(x) return bp.sum(bp.exp(x[1][1]) * x[2][1]) end,
      ["a log of a softmax"] = function(x) return bp.dot(bp.log(bp.softmax(x[1])), x[2]) end,
    }
    for name, f in pairs(functions) do
      for _, choose in ipairs{ themselves, rotated } do right_or_error(name, f, v, choose) end
      if not name:find "log" then
        for _, choose in ipairs{ themselves, rotated } do right_or_error(name, f, m, choose) end
      end
    end
    for _, choose in ipairs{ themselves, rotated } do
      right_or_error("dot", function(x) return bp.dot(x[1], x[2]) end, v, choose)
      right_or_error("matmul", function(x) return bp.matmul(x[1], x[2]) end, m, choose)
    end
  end)

  it("where the other is an argument that is not differentiated", function()
    for _, f in ipairs{ function(x, y) return bp.matmul(x, y) end, function(x, y) return bp.sum(x * y) end,
      function(x, y) return x / y end, function(x, y) return bp.sum(bp.matmul(y, x) * y) end } do
      local x, y = bp.matrix{ { 1, 2 }, { 3, 4 } }, bp.matrix{ { 5, 6 }, { 7, 8 } }
      local truth = bp.grad(f)(x, y):totable()
      local fine, found = pcall(bp.grad(f, { into = y }), x, y)
      if fine then same(truth, found) else assert(found:find "changed in place" or found:find "into", found) end
    end
  end)

  it("where a pullback returns its arguments", function()
    local swap = bp.op(function(x, y) return x * y, function() return y, x end end)
    local x, y = bp.vector{ 1, 2, 3 }, bp.vector{ 4, 5, 6 }
    bp.grad(function(a, b) return bp.sum(swap(a, b)) end, { wrt = { 1, 2 }, into = { x, y } })(x, y)
    same({ 4, 5, 6 }, x)
    same({ 1, 2, 3 }, y)
    local structured = bp.op(function(p) return p.x * p.y, function() return { x = p.y, y = p.x } end end)
    local p = { x = bp.vector{ 1, 2 }, y = bp.vector{ 3, 4 } }
    bp.grad(function(q) return bp.sum(structured(q)) end, { into = p })(p)
    same({ x = { 3, 4 }, y = { 1, 2 } }, p)
  end)

  it("is an error that says what happened, and leaves the state usable", function()
    local x, y = bp.vector{ 1, 2, 3 }, bp.vector{ 4, 5, 6 }
    help.raises("bp.mul: into", bp.grad(function(a, b) return a * b end, { wrt = { 1, 2 }, into = { x, y } }), x, y)
    same({ 2, 4 }, bp.grad(function(a) return bp.sum(a * a) end)(bp.vector{ 1, 2 }))
  end)
end)

describe("what is added in place stays what it is meanwhile:", function()
  local function two(n)
    local v = bp.linspace(1, n, n)
    return v, bp.slice(v, 1, n - 1), bp.slice(v, 2, n)
  end
  local optimisers = {
    sgd = { lr = 0.5 }, ["sgd with weight decay"] = { lr = 0.5, weight_decay = 0.1 },
    ["sgd with momentum"] = { lr = 0.5, momentum = 0.9 },
    ["sgd of Nesterov's"] = { lr = 0.5, momentum = 0.9, nesterov = true },
    adam = { lr = 0.5, weight_decay = 0.1 }, adamw = { lr = 0.5 }, rmsprop = { lr = 0.5 }, adagrad = { lr = 0.5 },
  }

  -- A step along gradients that lie in the parameters is one along copies of these.
  local function check_step(name, options, make)
    local new = bp.optim[name:match "%a+"]
    local params, grads = make()
    local opt = new(options)
    for _ = 1, 2 do opt:step(params, grads) end
    local expected, gradients = make()
    local other = new(options)
    for _ = 1, 2 do other:step(expected, help.clone(gradients)) end
    same(help.plain(expected), help.plain(params), name)
  end

  for name, options in pairs(optimisers) do
    it("a step of " .. name, function()
      check_step(name, options, function()
        local _, low, high = two(40)
        return { high }, { low }
      end)
      check_step(name, options, function()
        local _, low, high = two(40)
        return { low }, { high }
      end)
      check_step(name, options, function()
        local a, b = bp.vector{ 1, 2, 3 }, bp.vector{ 4, 5, 6 }
        return { a = a, b = b }, { a = b, b = a }
      end)
      check_step(name, options, function()
        local a = bp.vector{ 1, 2, 3 }
        return { a }, { a }
      end)
    end)
  end

  it("axpy over structures", function()
    local _, low, high = two(40)
    bp.axpy(1, { high }, { low })
    for i = 1, 39 do assert.equal(2 * i + 1, low[i]) end
    local v = bp.vector{ 1, 2, 3, 4 }
    local windows = { bp.slice(v, 1, 3), bp.slice(v, 2, 4) }
    bp.axpy(1, windows, windows)
    same({ 2, 6, 9, 8 }, v)
    local p = { a = bp.vector{ 1, 2 }, b = bp.vector{ 10, 20 }, n = 3 }
    bp.axpy(2, { a = p.b, b = p.a, n = 1 }, p)
    same({ a = { 21, 42 }, b = { 12, 24 }, n = 5 }, p)
    local s, t = { n = 1 }, { n = 10 }
    bp.axpy(1, { s = t, t = s }, { s = s, t = t })
    assert(s.n == 11 and t.n == 11)
    bp.axpy(1, p, p)
    same({ a = { 42, 84 }, b = { 24, 48 }, n = 10 }, p)
  end)

  it("axpy does nothing where one of its arrays is read-only", function()
    local p = { a = bp.vector{ 1, 2 }, b = bp.zeros(2) }
    local held
    bp.grad(function(x) held = bp.value(x) return bp.sum(x) end)(p.b)
    help.raises({ "bp.axpy", "read-only" }, bp.axpy, 1, { a = bp.ones(2), b = bp.ones(2) }, { a = p.a, b = held })
    same({ 1, 2 }, p.a)
  end)
end)

describe("a table at two paths", function()
  it("is stepped along the sum of its gradients, numbers as arrays", function()
    local t = { n = 1, w = bp.vector{ 1, 2 } }
    local params = { a = t, b = t }
    local function f(p) return 2 * p.a.n + 3 * p.b.n + bp.sum(p.a.w) + 5 * bp.sum(p.b.w) end
    local split = { a = { n = 0, w = bp.zeros(2) }, b = { n = 0, w = bp.zeros(2) } }
    bp.grad(f, { into = split })(params)
    same({ a = { n = 2, w = { 1, 1 } }, b = { n = 3, w = { 5, 5 } } }, split)
    local again = { a = { n = 0, w = bp.zeros(2) }, b = { n = 0, w = bp.zeros(2) } }
    bp.grad(function(x, p) return x * f(p) end, { wrt = { 1, 2 }, into = { 0, again } })(1, params)
    same(help.plain(split), again)
    bp.optim.sgd{ lr = 1 }:step(params, split)
    same({ n = -4, w = { -5, -4 } }, t)
    bp.optim.sgd{ lr = 1 }:step(params, bp.grad(f)(params)) -- whose gradient is one table at two paths
    same({ n = -9, w = { -11, -10 } }, t)
    local v, g = bp.vector{ 0 }, bp.vector{ 1 }
    bp.optim.sgd{ lr = 1 }:step({ v, v }, { g, g }) -- one array at two paths: two leaves
    same({ -2 }, v)
  end)
end)

describe("an array that receives a gradient", function()
  it("cannot be written by a pullback meanwhile, nor receive another", function()
    local into = bp.zeros(2)
    local function f(write)
      local op = bp.op(function(x) return x * 2, function(d)
        write()
        return d * 2
      end end)
      return function(v) return bp.sum(v * v) + bp.sum(op(v)) end
    end
    local x = bp.vector{ 1, 2 }
    for _, write in ipairs{
      function() into:fill(100) end, function() into[1] = 1 end, function() bp.axpy(1, x, into) end,
      function() bp.grad(bp.sum, { into = into })(x) end,
      function() bp.optim.sgd{ lr = 1 }:minimize(bp.sum, into) end,
    } do
      help.raises("receives a gradient", bp.grad(f(write), { into = into }), x)
      same({ 4, 6 }, bp.grad(f(function() end), { into = into })(x))
      into:fill(7)
    end
    same({ 4, 6 }, bp.grad(function(v)
      into:fill(100) -- before the sweep it may be
      return f(function() bp.zeros(2):fill(1) end)(v)
    end, { into = into })(x))
  end)
end)
