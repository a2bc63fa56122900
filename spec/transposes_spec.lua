-- A transpose waits until somebody looks at it, a product reads what it is the transpose of, and what a product adds to
-- its gradient goes past it (src/core/pending.h, sweep.c). Nobody may see that: each case here is held against the same
-- with matrices that are put together from columns.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"
local process = require "support.process"
local c = require "c_rows"

local same, close, raises = help.same, help.close, help.raises

-- The witness: no operation named transpose, and a copy on the spot.
local function from_columns(x)
  local list, _, n = {}, x:shape()
  for j = 1, n do list[j] = bp.column(x, j) end
  return bp.stack(list)
end

-- Fresh storage holds NaN: what nobody has computed is seen.
local function spoil(dtype)
  local spoilt = {}
  for k = 1, 6 do spoilt[k] = bp.full(0 / 0, 3, 3, dtype) end
  bp.release(spoilt)
end

local function in_spoilt_memory(x)
  spoil(x:dtype())
  return bp.transpose(x)
end

local function arguments(dtype)
  local r = bp.rng(5)
  local function m() return r:normal(0, 1, 3, 3, dtype) end
  return { w = m(), x = m(), a = m(), b = r:normal(0, 1, 3, dtype), v = r:normal(0, 1, 3, dtype) }
end

-- Functions of a record p, and a transpose t of one kind or the other.
local functions = {
  ["on the right"] = function(p, t) return bp.matmul(p.x, t(p.w)) end,
  ["on the left"] = function(p, t) return bp.matmul(t(p.w), p.x) end,
  ["on both sides"] = function(p, t) return bp.matmul(t(p.w), t(p.x)) end,
  ["of one matrix on both sides"] = function(p, t) return bp.matmul(t(p.w), t(p.w)) end,
  ["one on both sides"] = function(p, t)
    local s = t(p.w)
    return bp.matmul(s, s)
  end,
  ["beside what it is of"] = function(p, t) return bp.matmul(p.w, t(p.w)) + 2 * bp.matmul(t(p.x), p.x) end,
  ["by a vector"] = function(p, t) return bp.outer(bp.matmul(t(p.w), p.v), bp.matmul(p.v, t(p.x))) end,
  ["in a layer"] = function(p, t) return bp.linear(p.x, t(p.w), p.b) end,
  ["in a layer, of a vector"] = function(p, t) return bp.outer(bp.linear(p.v, t(p.w), p.b, "tanh"), p.v) end,
  ["in a layer, of a batch"] = function(p, t) return bp.linear(t(p.x), t(p.w), p.b, "sigmoid") end,
  ["in a layer whose result is shared"] = function(p, t)
    local y = bp.linear(t(p.x), t(p.w), p.b, "relu")
    return y + p.x + bp.matmul(y, t(y))
  end,
  ["of a transpose"] = function(p, t) return bp.matmul(p.x, t(t(p.w))) + bp.matmul(t(t(t(p.x))), p.w) end,
  ["of what was computed"] = function(p, t) return bp.matmul(p.x, t(bp.tanh(p.w) * p.a)) end,
  ["of a product"] = function(p, t) return bp.matmul(p.x, t(bp.matmul(p.w, p.a))) end,
  ["of rows"] = function(p, t) return bp.matmul(bp.slice(p.x, 1, 2), t(bp.slice(p.w, 2, 3))) end,
  ["of part of the columns"] = function(p, t)
    return bp.matmul(bp.slice(t(bp.slice(t(p.x), 1, 2)), 1, 2), bp.slice(t(p.w), 1, 2))
  end,
  ["used by others, too"] = function(p, t)
    local s = t(p.w)
    return bp.matmul(p.x, s) * s + bp.sum(s) + s[2] + bp.konst(s:get(1, 3), 3, 3, p.x:dtype())
  end,
  ["the result"] = function(p, t) return t(p.w) end,
  ["the result, and used"] = function(p, t)
    local s = t(p.w)
    return { s, bp.matmul(s, p.x) }
  end,
  ["of a constant"] = function(p, t, constants)
    return bp.matmul(p.x, t(constants.w)) * bp.matmul(t(constants.w), p.a)
  end,
  ["of a constant, in a layer"] = function(p, t, constants)
    return bp.linear(t(constants.x), p.w, p.b, "tanh") + bp.linear(p.x, t(constants.w), p.b)
  end,
  ["of a constant that changes"] = function(p, t, constants)
    local w = constants.w:clone()
    local y = bp.matmul(p.x, t(w))
    w:fill(7)
    return y * bp.matmul(p.a, t(w))
  end,
  ["that changes"] = function(p, t, constants)
    local s = t(constants.w)
    local y = bp.matmul(p.x, s:clone())
    s:fill(2)
    return y * bp.matmul(p.a, s)
  end,
  ["of a constant that is released"] = function(p, t, constants)
    local w = constants.w:clone()
    local s = t(w)
    bp.release(w)
    return bp.matmul(p.x, s)
  end,
  ["one of many"] = function(p, t)
    local list, sum = {}, p.a
    for k = 1, 20 do list[k] = t(p.w * k) end
    for k = 1, 20 do sum = sum + bp.matmul(list[k], p.x) end
    return sum
  end,
  ["looked at"] = function(p, t)
    local s = t(p.w)
    assert(not tostring(s):find "nan" and not tostring(bp.value(t(p.x))):find "nan")
    return bp.matmul(p.x, s) * bp.value(t(p.x)) * bp.gather(p.v, bp.argmax(bp.value(s), 1))[1]
  end,
  ["an argument of an operation with a pullback"] = function(p, t)
    local f = bp.op{ name = "f", forward = function(x, y)
      return bp.matmul(x, y), function(d) return bp.matmul(d, t(y)), bp.matmul(t(x), d) end
    end }
    return f(p.x, t(p.w)) + f(t(p.x), p.a)
  end,
  ["where indices are read"] = function(p, t)
    return bp.matmul(p.x, t(p.w)) * bp.gather(p.b, bp.argmax(t(bp.value(p.w))[2]))[1] +
      bp.gather(p.v, bp.slice(t(p.w * 0 + 2), 1, 2)[1])
  end,
  ["in a gradient inside"] = function(p, t, constants)
    local g = bp.grad(function(x) return bp.sum(bp.matmul(x, t(constants.w)) * x) end)(constants.x)
    return bp.matmul(p.x, t(g))
  end,
}

-- All that a function gives: value and gradients, fresh, into arrays, of a kept tape, with NaN looked for; and the
-- parameters after a step.
local function results(f, t, dtype)
  local p, constants = arguments(dtype), arguments(dtype)
  local function g(q) return f(q, t, constants) end
  local function loss(q)
    local total = 0
    for _, y in ipairs(bp.leaves(g(q))) do total = total + bp.sum(y * y) end
    return total
  end
  local into = bp.zero(p)
  local value, fresh = bp.value_and_grad(g)(p)
  bp.grad(loss, { into = into })(p)
  local list = { bp.eval(g, p), value, fresh, into, bp.grad(loss, { check_finite = true })(p) }
  local _, pullback <close> = bp.vjp(loss, p)
  list[#list + 1], list[#list + 2] = pullback(1), pullback(2)
  for _, opt in ipairs{ bp.optim.sgd{ lr = 0.01, weight_decay = 0.1 }, bp.optim.adam{ lr = 0.01 } } do
    local q = help.clone(p)
    list[#list + 1] = { opt:minimize(loss, q), q }
  end
  return help.plain(list)
end

describe("a transpose", function()
  for name, f in pairs(functions) do
    for _, dtype in ipairs(help.dtypes) do
      it(name .. ", " .. dtype, function()
        close(results(f, from_columns, dtype), results(f, in_spoilt_memory, dtype), dtype == "f64" and 1e-11 or 1e-3)
      end)
    end
  end

  it("has no gradient of its own where a product has it, and additions are as promised", function()
    -- In processes of their own, where the pool is empty: an array more for the transpose, none for its gradient.
    local function allocations(f)
      return tonumber(process.script(([[
        local bp = require "backprop"
        local w, v = bp.ones(31, 31), bp.ones(31)
        bp.stats(true)
        local g = bp.grad(function(q) return bp.sum(%s) end)(w)
        assert(bp.sum(g) == 31 * 31)
        io.write(bp.stats().allocations)]]):format(f)))
    end
    same(allocations "bp.matmul(q, v)" + 1, allocations "bp.matmul(bp.transpose(q), v)")
    local w = arguments("f64").w
    bp.stats(true)
    local _ = bp.grad(function(q)
      local t = bp.transpose(q)
      return bp.sum(bp.matmul(w, t)) + bp.sum(bp.matmul(t, w))
    end)(w)
    same(1, bp.stats().additions)
  end)

  -- Not where values that bp.value cuts off, or constants that change, would make the differences disagree.
  local not_differentiated = { ["looked at"] = true, ["where indices are read"] = true, ["that changes"] = true,
    ["of a constant that changes"] = true }

  it("is checked by finite differences where it waits", function()
    for name, f in pairs(functions) do
      if not not_differentiated[name] then
        local p = arguments "f64"
        bp.check{ f = function(q) return f(q, bp.transpose, p) end, args = { p } }
      end
    end
  end)

  it("sees what its source was when it was made, whoever writes there", function()
    local writers = {
      function(w) w:fill(9) end,
      function(w) w:set(2, 2, 9) end,
      function(w) w[1]:fill(9) end,
      function(w) bp.axpy(1, w, w) end,
      function(w) w:copy(bp.ones(3, 3)) end,
      function(w) bp.optim.sgd{ lr = 1 }:step({ w }, { w:clone() }) end,
      function(w) bp.optim.sgd{ lr = 1 }:minimize(function(q) return bp.sum(q[1]) end, { w }) end,
      function(w) bp.optim.adam{ lr = 1 }:step({ w }, { w:clone() }) end,
      function(w) bp.grad(function(x) return bp.sum(x * x) end, { into = w })(bp.eye(3)) end,
      function(w) bp.release(w) end,
    }
    for _, write in ipairs(writers) do
      local w, x = arguments("f64").w, arguments("f64").x
      local expected = from_columns(w)
      local s, u = in_spoilt_memory(w), in_spoilt_memory(w)
      close(bp.matmul(x, expected), bp.matmul(x, s))
      write(w)
      close(bp.matmul(x, expected), bp.matmul(x, s))
      same(expected, u)
    end
  end)

  it("may be what a gradient or a copy goes to, or what is stepped", function()
    local w = arguments("f64").w
    local t = in_spoilt_memory(w)
    bp.grad(function(x) return bp.sum(x * x) end, { into = t })(bp.eye(3))
    same(bp.eye(3) * 2, t)
    t = in_spoilt_memory(w)
    t:copy(bp.eye(3))
    same(bp.eye(3), t)
    t = in_spoilt_memory(w)
    bp.optim.sgd{ lr = 0.5 }:minimize(function(q) return bp.sum(bp.matmul(q[1], w) + q[1]) end, { t })
    close(from_columns(w) - 0.5 * (bp.matmul(bp.ones(3, 3), from_columns(w)) + 1), t)
    same(arguments("f64").w, w)
  end)

  it("has a gradient that may go to an array which the product reads", function()
    local function gradients(t, into)
      local p = arguments "f64"
      bp.grad(function(w, x) return bp.sum(bp.matmul(x, t(w)) * x) end, { wrt = { 1, 2 }, into = into(p) })(p.w, p.x)
      return help.plain(p)
    end
    for _, into in ipairs{
      function(p) return { p.x, p.a } end, -- w's goes to x
      function(p) return { p.a, p.w } end,
      function(p) return { p.w, p.a } end,
      function(p) return { p.x, p.w } end,
    } do
      close(gradients(from_columns, into), gradients(in_spoilt_memory, into))
    end
    raises("into: a gradient would be written over", gradients, bp.transpose, function(p) return { p.w, p.x } end)
    raises("into: two gradients", gradients, bp.transpose, function(p) return { p.w, p.w } end)
  end)

  it("has a gradient that may go to its own source where nothing else reads that", function()
    local p = arguments "f64"
    local w = p.w:clone()
    bp.grad(function(q) return bp.sum(bp.matmul(p.x, bp.transpose(q))) end, { into = p.w })(p.w)
    close(bp.matmul(bp.ones(3, 3), p.x), p.w)
    bp.grad(function(x) return bp.sum(bp.matmul(x, bp.transpose(w)) * p.a) end, { into = w })(p.x)
    close(bp.matmul(p.a, arguments("f64").w), w)
  end)

  it("of two sources may have its gradients go to the other's", function()
    local p = arguments "f64"
    local w, x = p.w:clone(), p.x:clone()
    local function f(a, b) return bp.sum(bp.matmul(bp.transpose(a), bp.transpose(b)) * p.a) end
    local ga, gb = bp.grad(f, { wrt = { 1, 2 } })(w, x)
    for _, into in ipairs{ { 1, 2 }, { 2, 1 } } do
      local arrays = { w:clone(), x:clone() }
      bp.grad(f, { wrt = { 1, 2 }, into = { arrays[into[1]], arrays[into[2]] } })(arrays[1], arrays[2])
      close({ ga:totable(), gb:totable() }, { arrays[into[1]]:totable(), arrays[into[2]]:totable() })
    end
  end)

  it("does not wait for an array that receives a gradient", function()
    local into, kept = bp.full(5, 3, 3), {}
    local f = bp.op(function(w) return bp.sum(w), function(d)
      kept[#kept + 1] = bp.transpose(into)
      return bp.full(d, 3, 3)
    end end)
    local g = bp.grad(function(w) return f(w) + 2 * f(w) end, { into = into })(bp.zeros(3, 3))
    same(bp.full(3, 3, 3), g)
    same({ { { 5, 5, 5 }, { 5, 5, 5 }, { 5, 5, 5 } }, { { 2, 2, 2 }, { 2, 2, 2 }, { 2, 2, 2 } } }, help.plain(kept))
  end)

  it("does not wait for an array whose address the host has kept", function()
    local w, x = arguments("f64").w, arguments("f64").x
    local expected = from_columns(w)
    assert(c.keep(w))
    local s = in_spoilt_memory(w)
    c.write(7)
    close(bp.matmul(x, expected), bp.matmul(x, s))
    local late, source = in_spoilt_memory(x), from_columns(x)
    assert(c.keep(x))
    c.write(7)
    same(source, late)
  end)

  it("is there for whoever has the result when the call has ended", function()
    local p, kept = arguments "f64", nil
    local value, _, further = bp.value_and_grad(function(q)
      local t = in_spoilt_memory(q.w)
      kept = bp.value(t)
      return t, { in_spoilt_memory(q.x) }
    end)(p)
    same(from_columns(p.w), value)
    same(from_columns(p.w), kept)
    same(from_columns(p.x), further[1])
    value:set(1, 1, 5)
    same(5, value:get(1, 1))
    raises("read-only", function() kept:fill(1) end)
  end)

  it("gives a product the same bits, plain and tracked, argument or result, however many others wait", function()
    local r = bp.rng(11)
    local w, x, y, v = r:normal(0, 1, 61, 67), r:normal(0, 1, 3, 67), r:normal(0, 1, 3, 61), r:normal(0, 1, 61)
    local made = bp.op(function(a) return bp.transpose(a), function(d) return bp.transpose(d) end end)
    for _, f in ipairs{
      function(q) return bp.matmul(v, bp.transpose(bp.transpose(q.w))) + bp.matmul(v, q.w) end,
      function(q) return bp.matmul(bp.transpose(q.w), v) * bp.matmul(v, bp.transpose(q.t)) end,
      function(q) return bp.matmul(made(q.w), v) end,
      function(q) return bp.matmul(bp.matmul(q.x, q.t), bp.transpose(made(q.w))) end,
      function(q) return bp.linear(y, q.t, q.b, "tanh") + bp.matmul(y, bp.transpose(q.t)) end,
      function(q) return bp.matmul(q.t, v) + bp.matmul(v, bp.transpose(q.t)) end,
    } do
      local function argument() return { w = w, t = bp.transpose(w), x = x, b = bp.ones(67) } end
      local plain = f(argument())
      local waiting = {}
      for k = 1, 100 do waiting[k] = bp.transpose(w) end
      same(plain, f(argument()))
      same(plain, (bp.value_and_grad(f)(argument())))
      same(plain, (bp.value_and_grad(f, { check_finite = true })(argument())))
      bp.release(waiting)
      collectgarbage()
      same(plain, f(argument()))
    end
    local q = { w = w, t = bp.transpose(w) }
    local function loss(p) return bp.matmul(p.t, v) + bp.matmul(bp.transpose(p.w), v) end
    local value = bp.value_and_grad(loss)(q)
    same(value, loss(q))
    same(value, (bp.value_and_grad(loss)(q)))
  end)

  it("waits beside 70,000 others", function()
    if os.getenv "BACKPROP_POOL" == "off" then pending "too slow for sanitizers and valgrind"; return end
    local w, list = bp.matrix{ { 1, 2 }, { 3, 4 } }, {}
    for k = 1, 70000 do list[k] = bp.transpose(w) end
    for k = 1, #list, 7001 do same({ { 1, 3 }, { 2, 4 } }, list[k]) end
    bp.release(w)
    local sum = 0
    for _, t in ipairs(list) do sum = sum + t[2][1] end
    same(140000, sum)
  end)

  it("holds back no NaN or inf that is looked for", function()
    local function f(x, w) return bp.sum(bp.matmul(x, bp.transpose(w))) * 1e200 end
    local x, w = bp.full(1e150, 2, 2), bp.full(1e-250, 2, 2)
    raises({ "bp.matmul", "the gradient of argument 2" }, function()
      bp.grad(f, { wrt = { 2 }, check_finite = true })(x, w)
    end)
    same(bp.full(math.huge, 2, 2), bp.grad(f, { wrt = { 2 } })(x, w))
  end)

  it("leaves nothing behind in a pullback that is called again", function()
    collectgarbage()
    local before = bp.stats().bytes_live
    do
      local p <close> = setmetatable(arguments "f64", { __close = bp.release })
      local _, pullback <close> = bp.vjp(function(q)
        local y = bp.linear(q.x, bp.transpose(q.w), q.b, "tanh") + q.a
        return bp.sum(y * y)
      end, p)
      for _ = 1, 3 do bp.release((pullback(1))) end
    end
    same(before, bp.stats().bytes_live)
  end)

  -- How much is alive when `f` has been called, in matrices of 100 x 100.
  local function matrices(f)
    collectgarbage()
    collectgarbage()
    local before = bp.stats().bytes_live
    local made <close> = f()
    collectgarbage()
    collectgarbage()
    return (bp.stats().bytes_live - before) / 8e4, made
  end

  it("keeps no storage alive that was released, nor that of a larger array, nor what a call has made", function()
    local spoilt = bp.full(0 / 0, 100, 100)
    bp.release(spoilt)
    local kept
    for _, f in ipairs{
      function()
        local source = bp.ones(100, 100)
        kept = bp.transpose(source)
        bp.release(source)
        return kept
      end,
      function()
        kept = bp.transpose(bp.slice(bp.ones(1000, 100), 101, 200))
        return kept
      end,
      function()
        bp.grad(function(x)
          local s = x * 2
          kept = bp.value(bp.transpose(s))
          return bp.sum(bp.matmul(s, bp.transpose(s)))
        end)(bp.full(0.5, 100, 100))
        return kept
      end,
      function()
        local _, _, further = bp.value_and_grad(function(x)
          local s = x * 2
          return bp.sum(s), bp.transpose(s)
        end)(bp.full(0.5, 100, 100))
        kept = further
        return kept
      end,
      function()
        bp.grad(function(x) kept = bp.transpose(bp.value(x * 2)) return bp.sum(x) end)(bp.full(0.5, 100, 100))
        return kept
      end,
      function()
        pcall(bp.grad(function(x) kept = bp.value(bp.transpose(x * 2)) error "stop" end), bp.full(0.5, 100, 100))
        return kept
      end,
    } do
      assert((matrices(f)) < 1.5)
      kept = f()
      same(1e4, bp.sum(kept))
      kept = nil
    end
  end)

  it("counts what is given back, its source first or last", function()
    local cycles = 0
    local function probe() setmetatable({}, { __gc = function() cycles = cycles + 1 probe() end }) end
    local function runs(release)
      collectgarbage()
      probe()
      cycles = 0
      for _ = 1, 300 do
        local source = bp.ones(100, 100)
        release(source, bp.transpose(source))
      end
      return cycles
    end
    local last = runs(function(source, t) bp.release(t) bp.release(source) end)
    assert(runs(function(source, t) bp.release(source) bp.release(t) end) <= 2 * last + 5)
  end)

  it("has a gradient that waits for its turn where its place is still read", function()
    local w, x, a = bp.full(1, 2, 2), bp.full(2, 2, 2), bp.full(3, 2, 2)
    local g = bp.grad(function(q)
      local s = bp.transpose(q)
      return bp.sum(bp.matmul(x, s)) + bp.sum(bp.matmul(a, s))
    end, { into = x })(w)
    same(bp.full(10, 2, 2), g)
    assert(rawequal(g, x))
  end)

  it("is itself what is looked at where NaN is looked for", function()
    local w, v = bp.full(1e200, 3, 3), bp.full(1 / 0, 3, 3)
    local t, u = in_spoilt_memory(w), in_spoilt_memory(v)
    local check = { check_finite = true }
    local function product(s) return bp.grad(function(x) return bp.sum(bp.matmul(x, s)) end, check) end
    raises("bp.matmul: the result has a NaN or inf", product(t), w)
    raises("bp.matmul: argument 2 has a NaN or inf, and so has the result", product(u), bp.ones(3, 3))
    local sum = bp.grad(function(x) return bp.sum(bp.transpose(x)) end, check)
    raises("bp.transpose: argument 1 has a NaN or inf, and so has the result", sum, v)
  end)

  it("leaves random programs as they are", function()
    local steps = {
      function(t, x) return t(x) end,
      function(t, x, y) return bp.matmul(t(x), y) end,
      function(t, x, y) return bp.matmul(x, t(y)) end,
      function(_, x, y) return bp.matmul(x, y) end,
      function(_, x, y) return x * y end,
      function(_, x, y) return x - y end,
      function(_, x) return bp.tanh(x) end,
      function(t, x, y) return bp.linear(t(x), y, y[2], "tanh") end,
      function(t, x, y) return bp.linear(x, t(y), bp.column(x, 1)) end,
      function(t, x, y) return bp.outer(bp.matmul(t(x), y[1]), t(y)[2]) end,
      function(t, x, y) return bp.matmul(bp.slice(t(x), 1, 3), t(bp.value(y))) end,
    }
    for seed = 1, 300 do
      local function run(t)
        local r = bp.rng(seed)
        local p = arguments "f64"
        local function f(q)
          local s, registers, total = bp.rng(seed), { q.w, q.x, q.a }, 0
          local function draw(n) return math.floor(s:uniform() * n) + 1 end
          for _ = 1, 8 do
            local step, x, y = steps[draw(#steps)], registers[draw(#registers)], registers[draw(#registers)]
            local z = bp.tanh(0.3 * step(t, x, y))
            if draw(3) == 1 then z = step(t, x, y) / (1 + bp.norm(bp.value(x)) * bp.norm(bp.value(y))) end
            registers[draw(4)] = z
          end
          for _, x in ipairs(registers) do total = total + bp.sum(x * x) end
          return total
        end
        local into = r:uniform() < 0.5 and bp.zero(p) or nil
        local value, g = bp.value_and_grad(f, { into = into })(p)
        local loss = bp.optim.sgd{ lr = 0.1 }:minimize(f, p)
        return help.plain{ value, g, loss, p }
      end
      close(run(from_columns), run(in_spoilt_memory), 1e-10, "seed " .. seed)
    end
  end)
end)

describe("a few rows by the transpose of a large matrix", function()
  local r = bp.rng(3)
  local function normal(dtype, rows, columns) return r:normal(0, 1, rows, columns, dtype) end

  for _, dtype in ipairs(help.dtypes) do
    it("are the product, whatever their number, " .. dtype, function()
      local w = normal(dtype, 257, 300)
      for _, n in ipairs{ 1, 2, 3, 4, 15, 16, 37, 64, 65 } do
        local x = normal(dtype, n, 300)
        local expected = bp.matmul(x:astype "f64", from_columns(w):astype "f64")
        local function as_expected(product, found)
          close(product:totable(), found:totable(), dtype == "f64" and 1e-12 or 2e-4)
        end
        as_expected(expected, bp.matmul(x, bp.transpose(w)))
        as_expected(expected, bp.matmul(bp.transpose(from_columns(x)), bp.transpose(w)))
        as_expected(expected, bp.linear(x, w, bp.zeros(257, dtype)))
        local rows = bp.slice(bp.concat{ x, x, x }, n + 1, 2 * n)
        as_expected(bp.relu(expected + 1), bp.linear(rows, w, bp.ones(257, dtype), "relu"))
      end
    end)

    it("are added to a gradient, and subtracted from parameters that have decayed, " .. dtype, function()
      local v, w, x = normal(dtype, 300, 257), normal(dtype, 300, 257), normal(dtype, 5, 300)
      local function f(q) return bp.sum(bp.matmul(q, v)) - 2 * bp.sum(bp.matmul(q, w)) end
      local slope = bp.sum(v, 2) - 2 * bp.sum(w, 2)
      local expected = bp.stack{ slope, slope, slope, slope, slope }
      close(expected:totable(), bp.grad(f)(x):totable(), dtype == "f64" and 1e-12 or 2e-4)
      local params = { x:clone() }
      bp.optim.sgd{ lr = 0.5, weight_decay = 2 }:minimize(function(q) return bp.sum(bp.matmul(q[1], v)) end, params)
      slope = -0.5 * bp.sum(v, 2)
      close(bp.stack{ slope, slope, slope, slope, slope }:totable(), params[1]:totable(), 2e-4)
    end)
  end
end)
