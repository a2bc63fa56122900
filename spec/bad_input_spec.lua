-- Wrong calls of the public functions outside the operations (those stand in the arrays and operations specs), and P36:
-- what Lua lets one write and the library cannot differentiate.
-- Held here: every such call raises a Lua error that names the function and the trouble at the user's own line, leaves
-- the state usable and leaks nothing.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"

local same, raises = help.same, help.raises

local function live()
  collectgarbage()
  collectgarbage()
  return bp.stats().bytes_live
end

-- Each case: the texts wanted in the message, then a function that makes the wrong call (not as a tail call, which
-- would hide its line).
local function refuse(cases)
  local function all()
    local failed = {}
    for i, case in ipairs(cases) do
      local ok, message = pcall(raises, case[1], case[2])
      if not ok then
        failed[#failed + 1] = ("case %d: %s"):format(i, message)
      elseif not message:find("bad_input_spec.lua:%d+:") then
        failed[#failed + 1] = ("case %d is not at the user's line: %s"):format(i, message)
      end
    end
    if #failed > 0 then error(table.concat(failed, "\n"), 3) end
  end
  all()
  local before = live()
  all()
  assert(live() <= before, "bytes were leaked")
  same({ 2, 4 }, bp.grad(function(x) return x * x end)(bp.vector{ 1, 2 }))
end

local function f(x) return x * x end
local v, m = bp.vector{ 1, 2 }, bp.matrix{ { 1, 2 }, { 3, 4 } }
local nan = 0 / 0

describe("differentiation", function()
  it("grad and value_and_grad refuse wrong functions and options", function()
    for _, name in ipairs{ "grad", "value_and_grad" } do
      local d, public = bp[name], "bp." .. name
      refuse{
        { public, function() d() end }, { public, function() d(5) end },
        { public, function() d("f") end }, { public, function() d({}) end },
        { public, function() d(v) end }, { public, function() d(f, 5) end },
        { { public, "wtr" }, function() d(f, { wtr = { 1 } }) end },
        { { public, "wrt" }, function() d(f, { wrt = "x" })(3) end },
        { { public, "wrt" }, function() d(f, { wrt = {} })(3) end },
        { { public, "wrt" }, function() d(f, { wrt = { 0 } })(3) end },
        { { public, "wrt" }, function() d(f, { wrt = { -1 } })(3) end },
        { { public, "wrt" }, function() d(f, { wrt = { 1.5 } })(3) end },
        { { public, "wrt" }, function() d(f, { wrt = { nan } })(3) end },
        { { public, "wrt" }, function() d(f, { wrt = { "1" } })(3) end },
        { { public, "wrt" }, function() d(f, { wrt = { 2 ^ 40 } })(3) end },
        { { public, "2" }, function() d(f, { wrt = { 2 } })(3) end },
        { { public, "into" }, function() d(f, { into = 5 })(v) end },
        { { public, "into" }, function() d(f, { into = "x" })(v) end },
        { { public, "into" }, function() d(f, { into = m })(v) end },
        { { public, "into" }, function() d(f, { wrt = { 1, 2 }, into = { v:clone() } })(v, v) end },
      }
    end
  end)

  it("grad, value_and_grad and vjp refuse arguments that cannot be differentiated", function()
    for _, name in ipairs{ "grad", "value_and_grad" } do
      local d, public = bp[name](f), "bp." .. name
      refuse{
        { public, function() d() end }, { public, function() d(nil) end },
        { public, function() d("text") end }, { public, function() d(true) end },
        { public, function() d(print) end }, { public, function() d(io.stdout) end },
        { { public, "key" }, function() d({ [1.5] = 1 }) end },
        { { public, "key" }, function() d({ deep = { [print] = 1 } }) end },
      }
    end
    local cyclic = {}
    cyclic.again = { cyclic }
    refuse{
      { "itself", function() bp.grad(f)(cyclic) end },
      { "itself", function() bp.vjp(function() return 1 end, cyclic) end },
      { "bp.vjp", function() bp.vjp() end }, { "bp.vjp", function() bp.vjp(5, v) end },
      { "bp.vjp", function() bp.vjp({}, v) end }, { "bp.eval", function() bp.eval() end },
      { "bp.eval", function() bp.eval(5, v) end },
    }
  end)

  it("a pullback refuses wrong cotangents", function()
    local _, pullback = bp.vjp(f, v)
    local _, of_number = bp.vjp(function(x) return bp.sum(x) end, v)
    refuse{
      { "cotangent", function() pullback("text") end }, { "cotangent", function() pullback({}) end },
      { "cotangent", function() pullback(bp.zeros(3)) end },
      { "cotangent", function() pullback(m) end }, { "cotangent", function() pullback(print) end },
      { { "cotangent", "f32" }, function() pullback(bp.zeros(2, "f32")) end },
      { "cotangent", function() of_number(v) end }, { "cotangent", function() of_number({ 1 }) end },
    }
    same({ 2, 4 }, pullback(bp.vector{ 1, 1 }))
  end)
end)

describe("constructors from tracked numbers", function()
  it("refuse what they refuse of plain ones", function()
    local row, number = bp.vector{ 1, 2 }, 3
    for _, case in ipairs{
      { { "bp.vector", "element 1", "vector" }, function(x, s) return bp.vector{ x, s } end },
      { { "bp.vector", "element 2", "vector" }, function(x, s) return bp.vector{ s, x } end },
      { { "bp.vector", "element 1", "matrix" }, function(x) return bp.vector{ bp.stack{ x } } end },
      { { "bp.vector", "element 2", "string" }, function(_, s) return bp.vector{ s, "text" } end },
      { { "bp.matrix", "row 1", "number" }, function(_, s) return bp.matrix{ s, s } end },
      { { "bp.matrix", "row 2", "number" }, function(x, s) return bp.matrix{ x, s } end },
      { { "bp.matrix", "row 1", "matrix" }, function(x) return bp.matrix{ bp.stack{ x } } end },
      { { "bp.matrix", "element 1, 1", "vector" }, function(x) return bp.matrix{ { x } } end },
    } do
      refuse{
        { case[1], function() bp.grad(function(p)
          local y = case[2](p[1], p[2])
          return y
        end)({ row, number }) end },
      }
    end
    same({ 2, 2 }, bp.grad(function(x) return bp.matrix{ x, { x[1], x[2] } } end)(row))
  end)
end)

describe("clamp, leaky_relu and elu with tracked parameters", function()
  it("refuse what they refuse with plain ones", function()
    for _, case in ipairs{
      { { "bp.elu", "argument 2" }, function(x) return bp.elu(x, x) end },
      { { "bp.elu", "at most 2" }, function(x, s) return bp.elu(x, s, s) end },
      { { "bp.elu", "argument 2" }, function(x, s) return bp.elu(x, m, s) end },
      { { "bp.leaky_relu", "argument 2" }, function(x) return bp.leaky_relu(2, x) end },
      { { "bp.clamp", "argument 2" }, function(x) return bp.clamp(x, x) end },
      { { "bp.clamp", "argument 3" }, function(x, s) return bp.clamp(x, s, x) end },
      { { "bp.clamp", "argument 3" }, function(x, s) return bp.clamp(x, s) end },
      { { "bp.clamp", "at most 3" }, function(x, s) return bp.clamp(x, s, 5, 6) end },
      { { "bp.clamp", "the bounds 2 and 0.5 are not in order" }, function(x, s) return bp.clamp(x, 2, s) end },
    } do
      refuse{
        { case[1], function() bp.grad(function(p)
          local y = case[2](p[1], p[2])
          return y
        end)({ v, 0.5 }) end },
      }
    end
  end)

  it("give the same number to the last bit, also where x is a zero of either sign", function()
    local function agree(op, x, ...)
      local plain, tracked = op(x, ...), bp.value_and_grad(function(parameters)
        return op(x, table.unpack(parameters))
      end)({ ... })
      assert.equal(("%a"):format(plain), ("%a"):format(tracked))
      assert.equal(("%a"):format(plain), ("%a"):format(op(bp.vector{ x }, ...)[1]))
    end
    for _, x in ipairs{ 0.0, -0.0, 1.5, -2.5 } do
      for _, parameter in ipairs{ 0.25, -0.5, 0.0, -0.0 } do
        agree(bp.leaky_relu, x, parameter)
        agree(bp.elu, x, parameter)
        agree(bp.clamp, x, parameter, 0.5)
        agree(bp.clamp, x, -1, parameter)
      end
    end
  end)
end)

describe("operations in Lua", function()
  it("op, nograd and iso refuse what is no function", function()
    refuse{
      { "bp.op", function() bp.op() end }, { "bp.op", function() bp.op(5) end },
      { "bp.op", function() bp.op("f") end }, { "bp.op", function() bp.op({}) end },
      { "bp.op", function() bp.op{ forward = 5 } end },
      { { "bp.op", "name" }, function() bp.op{ name = 5, forward = f } end },
      { "bp.nograd", function() bp.nograd() end }, { "bp.nograd", function() bp.nograd(5) end },
      { "bp.iso", function() bp.iso() end }, { "bp.iso", function() bp.iso(f) end },
      { "bp.iso", function() bp.iso(5, f) end }, { "bp.iso", function() bp.iso(f, {}) end },
    }
  end)

  it("check refuses wrong requests", function()
    refuse{
      { "bp.check", function() bp.check() end }, { "bp.check", function() bp.check(5, 1) end },
      { "bp.check", function() bp.check({}) end }, { "bp.check", function() bp.check{ args = { 1 } } end },
      { "bp.check", function() bp.check{ f = f, args = 5 } end },
      { { "bp.check", "tol" }, function() bp.check{ f = f, args = { 1 }, tol = -1 } end },
      { { "bp.check", "tol" }, function() bp.check{ f = f, args = { 1 }, tol = nan } end },
      { { "bp.check", "tol" }, function() bp.check{ f = f, args = { 1 }, tol = "x" } end },
      { { "bp.check", "seed" }, function() bp.check{ f = f, args = { 1 }, seed = "x" } end },
    }
  end)
end)

describe("structures", function()
  it("map, leaves, paths, zero, one and add", function()
    local cyclic = { a = {} }
    cyclic.a.b = cyclic
    refuse{
      { "bp.map", function() bp.map() end }, { "bp.map", function() bp.map(5, { 1 }) end },
      { "bp.map", function() bp.map(f) end },
      { { "bp.map", "b" }, function() bp.map(f, { a = 1, b = 2 }, { a = 1 }) end },
      { "bp.map", function() bp.map(f, { 1 }, 2) end },
      { { "bp.map", "itself", "a.b" }, function() bp.map(f, cyclic) end },
      { "bp.leaves", function() bp.leaves(cyclic) end },
      { "bp.paths", function() bp.paths(cyclic) end },
      { "bp.zero", function() bp.zero(cyclic) end }, { "bp.one", function() bp.one(cyclic) end },
      { "bp.add", function() bp.add({ 1 }) end },
      { { "bp.add", "[2]" }, function() bp.add({ 1, 2 }, { 1 }) end },
      { "bp.add", function() bp.add({ a = 1 }, { b = 1 }) end },
      { "add", function() bp.add({ v }, { bp.zeros(3) }) end }, { "bp.add", function() bp.add({ v }, { "x" }) end },
      { "bp.leaves", function() bp.leaves({ [1.5] = 1 }) end },
    }
  end)

  it("axpy and release", function()
    refuse{
      { "bp.axpy", function() bp.axpy() end }, { "bp.axpy", function() bp.axpy(1) end },
      { "bp.axpy", function() bp.axpy(1, v) end }, { "bp.axpy", function() bp.axpy("a", v, v) end },
      { "bp.axpy", function() bp.axpy(nil, v, v) end },
      { { "bp.axpy", "2", "3" }, function() bp.axpy(1, v, bp.zeros(3)) end },
      { "bp.axpy", function() bp.axpy(1, v, m) end },
      { { "bp.axpy", "f32" }, function() bp.axpy(1, v, v:astype("f32")) end },
      { { "bp.axpy", "number" }, function() bp.axpy(1, 2, 3) end },
      { "bp.axpy", function() bp.axpy(1, { a = v }, { b = v }) end },
      { "bp.axpy", function() bp.axpy(1, { v }, v) end }, { "bp.axpy", function() bp.axpy(1, "x", v) end },
      { "bp.release", function() bp.release() end },
      { "bp.release", function() bp.grad(function(x) bp.release(x) end)(v) end },
    }
    same({ 1, 2 }, v)
    local y = { bp.vector{ 1, 2 }, bp.vector{ 3, 4 } }
    raises("bp.axpy", bp.axpy, 1, { v, m }, y) -- the second pair is wrong: the first is untouched
    same({ { 1, 2 }, { 3, 4 } }, y)
  end)

  it("lenses and instances", function()
    refuse{
      { "bp.view", function() bp.view({ 1 }) end }, { "bp.view", function() bp.view({ 1 }, 5) end },
      { "bp.set", function() bp.set({ 1 }, {}, 2) end }, { "bp.over", function() bp.over({ 1 }, bp.each) end },
      { "bp.lens", function() bp.lens(5, f) end }, { "bp.fields", function() bp.fields(5) end },
      { "bp.at", function() bp.at({}) end }, { "bp.filtered", function() bp.filtered(5) end },
      { "element_at", function() bp.element_at(0) end },
      { "row_at", function() bp.view(m, bp.row_at(3)) end },
      { "column_at", function() bp.view(m, bp.column_at(3)) end },
      { "range", function() bp.view(v, bp.range(2, 3)) end },
      { "bp.instance", function() bp.instance(5, {}) end }, { "bp.instance", function() bp.instance({}) end },
      { "bp.instance", function() bp.instance({}, { zero = f }) end },
      { "bp.instance", function() bp.instance({}, { zero = f, one = f, add = 5 }) end },
    }
  end)
end)

describe("training and tools", function()
  it("optimisers refuse wrong settings", function()
    for _, name in ipairs{ "sgd", "adam", "adamw", "rmsprop", "adagrad" } do
      local make = bp.optim[name]
      refuse{
        { name, function() make(0.1) end }, { { name, "lr" }, function() make{ lr = -1 } end },
        { { name, "lr" }, function() make{ lr = "x" } end },
        { { name, "lr" }, function() make{ lr = nan } end },
        { { name, "lr" }, function() make{ lr = v } end },
        { { name, "learning_rate" }, function() make{ lr = 1, learning_rate = 0.1 } end },
        { { name, "weight_decay" }, function() make{ lr = 1, weight_decay = "x" } end },
      }
    end
    refuse{
      { "momentum", function() bp.optim.sgd{ lr = 1, momentum = "x" } end },
      { "momentum", function() bp.optim.sgd{ lr = 1, momentum = nan } end },
    }
  end)

  it("step and minimize refuse wrong calls", function()
    for _, name in ipairs{ "sgd", "adam", "adamw", "rmsprop", "adagrad" } do
      local opt = bp.optim[name]{ lr = 0.1 }
      local p = { w = bp.vector{ 1, 2 } }
      refuse{
        { "bp.optim", function() opt:step() end }, { "bp.optim", function() opt:step(p) end },
        { "bp.optim", function() opt:step(p, 5) end }, { "bp.optim", function() opt:step(p, { w = bp.zeros(3) }) end },
        { "bp.optim", function() opt:step(p, { w = 1 }) end }, { "bp.optim", function() opt.step(p, p) end },
        { "bp.optim", function() opt:minimize() end }, { "bp.optim", function() opt:minimize(5, p) end },
        { "bp.optim", function() opt:minimize(f) end }, { "bp.optim", function() opt:minimize(f, "text") end },
        { "bp.optim", function() opt.minimize(f, p) end }, { "number", function() opt:minimize(f, 3) end },
        { "result", function() opt:minimize(function() return "text" end, p) end },
      }
      same({ 1, 2 }, p.w)
    end
  end)

  it("set_threads and profile", function()
    local too_few = { 0, -1, 1.5, nan, 2 ^ 40, "x", {} }
    for _, n in ipairs(too_few) do refuse{ { "set_threads", function() bp.set_threads(n) end } } end
    refuse{
      { "set_threads", function() bp.set_threads() end }, { "bp.profile", function() bp.profile() end },
      { "bp.profile", function() bp.profile(5) end },
    }
  end)
end)

describe("P36: what cannot be differentiated is refused with advice", function()
  -- The message must speak of bp (the advice), at the user's line.
  local function refused(use, x)
    refuse{ { "bp", function() bp.grad(function(y)
      use(y)
      return y
    end)(x) end } }
  end

  it("P36: //, % and .. with variables and arrays", function()
    local uses = {
      function(x) local _ = x // 2 end, function(x) local _ = 2 // x end, function(x) local _ = x // x end,
      function(x) local _ = x % 2 end, function(x) local _ = 2 % x end, function(x) local _ = x % x end,
      function(x) local _ = x .. "a" end, function(x) local _ = "a" .. x end, function(x) local _ = x .. x end,
    }
    for _, use in ipairs(uses) do
      for _, x in ipairs{ 3, v, m } do refused(use, x) end
      for _, x in ipairs{ v, m } do refuse{ { "bp", function() use(x) end } } end
    end
  end)

  it("P36: functions of math and string", function()
    for _, name in ipairs{ "sin", "exp", "floor", "abs", "sqrt", "fmod" } do
      local g = math[name]
      local ok, message = pcall(bp.grad(function(x) return g(x, 2) end), 3)
      assert(not ok and message:find("bp", 1, true), ("math.%s: %s"):format(name, tostring(message)))
    end
    local ok, message = pcall(bp.grad(function(x) return ("%g"):format(x) end), 3)
    assert(not ok and message:find("bp", 1, true), tostring(message))
  end)

  it("P36: assignment into a tracked array advises bp.set with bp.element_at", function()
    local uses = {
      function(x) x[1] = 5 end, function(x) x[1] = x[2] end, function(x) x[#x + 1] = 5 end, function(x) x.name = 5 end,
    }
    for _, use in ipairs(uses) do
      for _, x in ipairs{ v, m } do
        refuse{ { { "bp.set", "bp.element_at" }, function() bp.grad(function(y)
          use(y)
          return y
        end)(x) end } }
      end
    end
    same({ 1, 2 }, v)
    same({ { 1, 2 }, { 3, 4 } }, m)
  end)

  it("P36: in-place methods of a tracked array", function()
    for _, use in ipairs{
      function(x) x:fill(0) end, function(x) x:copy(v) end, function(x) bp.axpy(1, v, x) end,
      function(x) x:set(1, 1, 5) end,
    } do
      refused(use, v)
      refused(use, m)
    end
    same({ 1, 2 }, v)
  end)

  it("P31: results too large for a matrix, and matrices that are not square", function()
    local tall, wide = bp.zeros(2 ^ 17, 0), bp.zeros(0, 2 ^ 17)
    raises("bp.matmul: a result of 131072x131072 is too large", bp.matmul, tall, wide)
    raises("bp.trace: expected a square matrix, got 2x3", bp.trace, bp.zeros(2, 3))
    raises("bp.stack: the vectors are f64", bp.stack, { bp.zeros(2), bp.zeros(2) }, "f32")
    raises("bp.op", bp.op, { name = ("n"):rep(64), forward = function(x) return x, function(g) return g end end })
  end)

  it("P36: comparisons between variables compare values, == with a number is false", function()
    local g = bp.grad(function(x, y)
      assert(x < y and x <= y and y > x and y >= x and x ~= y)
      assert(x < 4 and 2 < x and x <= 3 and x >= 3)
      assert(x == x * 1 and x + 1 == y)
      assert(x ~= 3 and bp.value(x) == 3)
      return x * y
    end, { wrt = { 1, 2 } })
    same({ 4, 3 }, { g(3, 4) })
  end)
end)
