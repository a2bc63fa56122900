-- Aliasing and lifetime: the numbered pitfalls P13 P14 P15 P16 P17 P23.
-- Held here: an array changed under a tape is found out, gradients are the caller's own, handles that outlive their
-- tape or their storage raise, and errors leave no byte behind. Nothing here may crash, whatever else it does.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"
local operands = require "support.operands"

local same, close, raises = help.same, help.close, help.raises

local function full_collection()
  collectgarbage()
  collectgarbage()
end

local function live()
  full_collection()
  return bp.stats().bytes_live
end

-- The error must stand at a line of this file: the user's own. (f must not make the call as its tail call: Lua then no
-- longer knows that line.)
local function raises_here(wanted, f, ...)
  local message = raises(wanted, f, ...)
  assert(message:find("aliasing_spec.lua:%d+:"), "not at the user's own line: " .. message)
end

describe("P13: an array changed between recording and sweep", function()
  local changes = {
    { "v[i] = s", function(x) x[1] = 7 end },
    { "v[i] = the same number", function(x) x[1] = x[1] end },
    { "fill", function(x) x:fill(0) end },
    { "copy", function(x) x:copy(bp.vector{ 7, 8 }) end },
    { "axpy", function(x) bp.axpy(2, bp.vector{ 1, 1 }, x) end },
    { "axpy over a structure", function(x) bp.axpy(2, { bp.vector{ 1, 1 } }, { x }) end },
    { "a window of it", function(x) bp.slice(x, 2, 2):fill(5) end },
    { "opt:step", function(x) bp.optim.sgd{ lr = 1 }:step(x, bp.vector{ 1, 1 }) end },
    { "opt:minimize", function(x)
      bp.optim.sgd{ lr = 1 }:minimize(function(p) return bp.sum(p * p) end, x)
    end },
    { "into", function(x) bp.grad(function(p) return bp.sum(p) end, { into = x })(bp.vector{ 1, 2 }) end },
  }
  for _, change in ipairs(changes) do
    it("P13: by " .. change[1], function()
      local x = bp.vector{ 1, 2 }
      local _, pullback = bp.vjp(function(v) return bp.sin(v) end, x)
      close({ math.cos(1), math.cos(2) }, pullback(bp.vector{ 1, 1 }), 1e-15)
      change[2](x)
      raises("sin", pullback, bp.vector{ 1, 1 })
    end)
  end

  it("P13: before the next operation on it, which names itself", function()
    local x = bp.vector{ 1, 2 }
    raises({ "bp.mul", "changed in place" }, bp.grad(function(v)
      x[1] = 9
      return bp.sum(v * v)
    end), x)
  end)

  it("P13: by m:set, m[i][j], a row's fill, and a window made before", function()
    for _, change in ipairs{
      function(m) m:set(1, 1, 9) end, function(m) m[2][1] = 9 end, function(m) m[1]:fill(0) end,
      function(_, row) row[1] = 9 end, function(m) m:copy(bp.zeros(2, 2)) end,
    } do
      local m = bp.matrix{ { 1, 2 }, { 3, 4 } }
      local row = m[1]
      local _, pullback = bp.vjp(function(x) return bp.matmul(m, x) end, bp.vector{ 1, 2 })
      same({ 4, 6 }, pullback(bp.vector{ 1, 1 }))
      change(m, row)
      raises("matmul", pullback, bp.vector{ 1, 1 })
    end
  end)

  it("P13: leaf or captured array: the operation is named, or its own copy gives the right gradient", function()
    local cases = {
      { "mul", function(x, c) return x * c end }, { "div", function(x, c) return c / x end },
      { "pow", function(x, c) return c ^ x end }, { "log", function(x) return bp.log(x) end },
      { "dot", bp.dot }, { "outer", bp.outer }, { "maximum", bp.maximum },
      { "norm", function(x) return bp.norm(x) end },
      { "square", function(x) return bp.square(x) end }, { "prod", function(x) return bp.prod(x) end },
      { "softmax_cross_entropy", bp.softmax_cross_entropy },
      { "linear", function(x, c) return bp.linear(x, bp.eye(2), c, "softplus") end },
      { "logsumexp", function(x) return bp.logsumexp(x) end },
      { "where", function(x, c) return bp.where(c, x, x) end },
    }
    local raised = {}
    for _, case in ipairs(cases) do
      for which = 1, 2 do
        local x, c = bp.vector{ 1, 2 }, bp.vector{ 1, 3 }
        local value, pullback = bp.vjp(function(v) return case[2](v, c) end, x)
        local seed = help.is_array(value) and help.fill_like(value, 1) or 1
        local right = pullback(seed):clone()
        if which == 1 then c:fill(0.5) else x:fill(0.5) end
        local ok, g = pcall(pullback, seed)
        if ok then
          same(right, g, case[1])
        else
          raised[case[1]] = true
          assert(g:find(case[1], 1, true), g)
        end
      end
    end
    assert(raised.mul and raised.dot and raised.outer and raised.square)
  end)

  it("P13: a released array that a tape still needs", function()
    local x = bp.vector{ 1, 2 }
    local _, pullback = bp.vjp(function(v) return bp.sin(v) end, x)
    bp.release(x)
    bp.full(9, 2)
    local ok, g = pcall(pullback, bp.vector{ 1, 1 })
    if ok then close({ math.cos(1), math.cos(2) }, g, 1e-15) else assert(g:find("sin", 1, true), g) end
  end)

  it("P13: in grad itself, by f or by a pullback", function()
    local x = bp.vector{ 1, 2 }
    raises("sin", bp.grad(function(v)
      local y = bp.sin(v)
      x[1] = 5
      return y
    end), x)
    local meddle = bp.op(function(v) return v * 1, function(dz)
      x[2] = 5
      return dz
    end end)
    raises("sin", bp.grad(function(v) return meddle(bp.sin(v)) end), x)
    close({ math.cos(5), math.cos(5) }, bp.grad(bp.sin)(x), 1e-15)
  end)

  it("P13: an operation of the user's is named as it is, one of the library as it is called", function()
    local function pass(x) return x * 1, function(dz) return dz end end
    for name, f in pairs{
      ["^bp%.sin: "] = bp.sin, ["^bp%.op: "] = bp.op(pass), ["^mine: "] = bp.op{ name = "mine", forward = pass },
      ["^your%.own: "] = bp.op{ name = "your.own", forward = pass },
    } do
      local x = bp.vector{ 1, 2 }
      local _, pullback = bp.vjp(f, x)
      x:fill(7)
      local message = raises("changed in place", pullback, bp.vector{ 1, 1 })
      assert(message:gsub("^[^:]*:%d+: ", ""):find(name), message)
    end
  end)

  it("P13: another array of the same pool does not disturb", function()
    local x, other = bp.vector{ 1, 2 }, bp.vector{ 3, 4 }
    local _, pullback = bp.vjp(function(v) return bp.sin(v) end, x)
    other:fill(9)
    bp.release(other)
    bp.zeros(2):fill(3)
    close({ math.cos(1), math.cos(2) }, pullback(bp.vector{ 1, 1 }), 1e-15)
  end)
end)

describe("P14: what was returned is the caller's own", function()
  local function f(p) return bp.sum(p.w * p.w * p.s) + bp.sum(bp.sin(p.v)) end
  local function argument(k)
    return { w = bp.full(k, 3, 4), v = bp.full(k / 8, 5), s = k }
  end

  it("P14: a gradient survives the next calls unchanged", function()
    local gradient, kept, copies = bp.grad(f), {}, {}
    for k = 1, 20 do
      kept[k] = gradient(argument(k))
      copies[k] = help.clone(kept[k])
      if k % 7 == 0 then full_collection() end
    end
    for k = 1, 20 do
      same(copies[k], kept[k])
      kept[k].w:fill(-1) -- and none shares storage with another
    end
    for k = 1, 20 do same(copies[k].v, kept[k].v) end
  end)

  it("P14: so do values, further results and the gradients of a kept pullback", function()
    local x, y = bp.vector{ 1, 2 }, bp.vector{ 3, 4 }
    local both = bp.value_and_grad(function(v) return v * v, v * 3, v end)
    local value, g, further, argument_itself = both(x)
    local value2, pullback = bp.vjp(function(v) return v * v end, x)
    local g2 = pullback(y)
    for _ = 1, 5 do
      local v, grad, other = both(y)
      bp.release{ v, grad, other }
      bp.release(pullback(bp.vector{ 9, 9 }))
    end
    pullback:close()
    full_collection()
    both(y)
    same({ { 1, 4 }, { 2, 4 }, { 3, 6 }, { 1, 2 } }, { value, g, further, argument_itself })
    same({ { 1, 4 }, { 6, 16 } }, { value2, g2 })
  end)

  it("P14: releasing a gradient does not touch the argument, the value or another gradient", function()
    local x, y = bp.vector{ 1, 2 }, bp.vector{ 3, 4 }
    local value, gx, gy = bp.value_and_grad(function(a, b) return a + b end, { wrt = { 1, 2 } })(x, y)
    bp.release(gx)
    bp.zeros(2):fill(77)
    same({ { 4, 6 }, { 1, 1 }, { 1, 2 }, { 3, 4 } }, { value, gy, x, y })
    raises("release", function() return gx[1] end)
  end)
end)

describe("P15: variables out of their time or place", function()
  local uses = {
    { "x + 1", function(x) return x + 1 end }, { "2 * x", function(x) return 2 * x end },
    { "-x", function(x) return -x end }, { "exp", function(x) return bp.exp(x) end },
    { "x * x", function(x) return x * x end }, { "sum", function(x) return bp.sum(x) end },
    { "value", function(x) return bp.value(x) end }, { "constant", function(x) return bp.constant(x) end },
    { "stack", function(x) return bp.stack{ 1, x } end }, { "x < 1", function(x) return x < 1 end },
  }
  local array_uses = {
    { "x[1]", function(x) return x[1] end }, { "#x", function(x) return #x end },
    { "x:shape()", function(x) return x:shape() end }, { "x:sum()", function(x) return x:sum() end },
    { "slice", function(x) return bp.slice(x, 1, 1) end }, { "dot", function(x) return bp.dot(x, x) end },
    { "clone", function(x) return x:clone() end }, { "totable", function(x) return x:totable() end },
    { "astype", function(x) return x:astype("f32") end },
  }

  local function escapees()
    local number, vector, matrix, deep
    bp.grad(function(p)
      number, vector, matrix, deep = p[1], p[2], p[3], bp.sum(p[2] * 2)
      return deep
    end)({ 3, bp.vector{ 1, 2 }, bp.matrix{ { 1, 2 } } })
    return number, vector, matrix, deep
  end

  it("P15: a stale variable raises at the user's own line, and says so", function()
    local number, vector, matrix, deep = escapees()
    for _ = 1, 2 do
      for _, use in ipairs(uses) do
        for _, x in ipairs{ number, deep, use[1] ~= "stack" and use[1] ~= "x < 1" and vector or number } do
          raises_here("ended", function() return (use[2](x)) end)
        end
      end
      for _, use in ipairs(array_uses) do
        raises_here("ended", function() return (use[2](vector)) end)
      end
      raises_here("ended", function() return (matrix:get(1, 1)) end)
      raises_here("ended", function() return (bp.matmul(matrix, bp.vector{ 1, 2 })) end)
      full_collection()
    end
    assert.equal("string", type(tostring(vector)))
  end)

  it("P15: also inside a later call, whose tape may stand in the same place", function()
    local number, vector = escapees()
    for _ = 1, 3 do
      raises("ended", bp.grad(function(p) return p[1] + number end), { 3, bp.vector{ 1, 2 } })
      raises("ended", bp.grad(function(p) return bp.sum(p[2] * vector) end), { 3, bp.vector{ 1, 2 } })
      raises("ended", bp.grad(function() return vector end), { 3, bp.vector{ 1, 2 } })
      raises("ended", bp.grad(function(p) return { p[1], { vector } } end), { 3, bp.vector{ 1, 2 } })
    end
  end)

  it("P15: after a call that ended by an error", function()
    local escaped
    pcall(bp.grad(function(x)
      escaped = x * 2
      error("oh")
    end), 3)
    raises_here("ended", function() return escaped + 1 end)
  end)

  it("P15: of another tape", function()
    local v = bp.vector{ 1, 2 }
    local g = bp.grad(function(other)
      raises_here("call", function() bp.grad(function(x) return x * other end)(v) end)
      raises_here("call", function() bp.grad(function(x) return bp.concat{ x, other } end)(v) end)
      raises_here("call", function() bp.grad(function(x) return bp.stack{ x[1], other[1] } end)(v) end)
      raises_here("call", function() bp.grad(function() return other end)(v) end)
      raises_here("call", function() bp.vjp(function(x) return { x, other } end, v) end)
      return bp.sum(other * 3)
    end)(v)
    same({ 3, 3 }, g)
    local later
    local _, pullback <close> = bp.vjp(function(x)
      later = x * 2
      return later
    end, v)
    raises_here("", function() bp.grad(function(x) return x * later end)(v) end)
    raises_here("", function() bp.grad(function() return later end)(v) end)
    same({ 6, 8 }, pullback(bp.vector{ 3, 4 }))
  end)

  it("P15: of a closed one", function()
    local escaped
    local _, pullback = bp.vjp(function(x)
      escaped = x * 2
      return escaped
    end, 3)
    pullback:close()
    raises("", function() return escaped * 2 end)
    raises("", bp.grad(function(x) return x * escaped end), 3)
  end)

  it("P15: a kept tape records nothing more once its function has returned", function()
    local kept
    local _, pullback <close> = bp.vjp(function(x)
      kept = x
      return x * x
    end, 3)
    local ok, later = pcall(function() return kept * 5 end) -- an error, or a node that changes no gradient
    assert(not ok or later ~= nil)
    assert.equal(6, pullback(1))
  end)
end)

describe("P16: handles that outlive what they look at", function()
  it("P16: variables, under full collections", function()
    local kept = {}
    for i = 1, 50 do
      bp.grad(function(x)
        kept[#kept + 1] = x
        kept[#kept + 1] = x[1]
        kept[#kept + 1] = bp.sum(x * i)
        return kept[#kept]
      end)(bp.full(i, 10))
      if i % 10 == 0 then full_collection() end
    end
    for _, x in ipairs(kept) do raises("ended", function() return x + 1 end) end
    kept = nil -- luacheck: ignore
    full_collection()
  end)

  it("P16: a pullback that is dropped, and variables that see their tape collected", function()
    local before, kept = live(), {}
    for i = 1, 20 do
      bp.vjp(function(x)
        kept[i] = x * x
        return kept[i]
      end, bp.full(i, 1000))
    end
    full_collection()
    for _, x in ipairs(kept) do pcall(function() return x + 1 end) end -- may raise, must not crash
    kept = nil -- luacheck: ignore
    assert(live() <= before)
  end)

  it("P16: a window keeps what it looks into", function()
    local row = bp.matrix{ { 1, 2 }, { 3, 4 } }[2]
    local part = bp.slice(bp.slice(bp.vector{ 1, 2, 3, 4, 5 }, 2, 5), 2, 3)
    full_collection()
    for _ = 1, 5 do bp.full(9, 2, 2) end
    same({ { 3, 4 }, { 3, 4 } }, { row, part })
  end)

  it("P16: a released array raises; a window of it raises or keeps its numbers", function()
    local m = bp.matrix{ { 1, 2 }, { 3, 4 } }
    local row = m[2]
    bp.release(m)
    for _ = 1, 5 do bp.full(9, 2, 2) end
    raises_here("release", function() return (m:get(1, 1)) end)
    raises_here("release", function() return m + 1 end)
    raises_here("release", function() m:fill(0) end)
    raises_here("release", function() bp.grad(bp.sum)(m) end)
    local ok, numbers = pcall(row.totable, row)
    assert(not ok or numbers[1] == 3 and numbers[2] == 4)
  end)

  it("P16: the cotangent handle of a Lua operation is read-only and dead after its call", function()
    local kept, copy
    local f = bp.op(function(x)
      return x * 2, function(dz)
        kept, copy = dz, dz:clone()
        raises("read", function() dz[1] = 5 end)
        raises("read", dz.fill, dz, 0)
        raises("read", bp.axpy, 1, bp.zeros(2), dz)
        return dz * 2
      end
    end)
    same({ 6, 6 }, bp.grad(function(x) return bp.sum(f(x) * 3) end)(bp.vector{ 1, 2 }))
    full_collection()
    for _ = 1, 5 do bp.full(9, 2) end
    raises("", function() return kept[1] end)
    raises("", function() return kept + 1 end)
    same({ 3, 3 }, copy)
  end)

  it("P16: bp.value of what the sweep has gone past is right or an error, never another array's numbers", function()
    local x = bp.vector{ 1, 2, 3 }
    for _, keeps in ipairs{ false, true } do
      local variables, right, seen = {}, {}, 0
      local f = bp.op(function(v)
        return v * 2, function(dz)
          collectgarbage()
          for _ = 1, 8 do bp.full(99, 3) end
          for i, variable in ipairs(variables) do
            local ok, value = pcall(bp.value, variable)
            if ok then same(right[i], value) else assert(value:find("sweep", 1, true), value) end
            tostring(variable)
            seen = seen + 1
          end
          return dz * 2
        end
      end)
      local function g(v)
        variables = { v, f(v) }
        for _, make in ipairs{
          bp.square, bp.exp, function(y) return bp.slice(y, 1, 2) end, function(y) return y * 2 end, bp.sum,
        } do
          variables[#variables + 1] = make(variables[2])
        end
        for i, variable in ipairs(variables) do right[i] = help.plain(bp.value(variable)) end
        local sum = 0
        for i = 2, #variables do sum = sum + bp.sum(variables[i]) end
        return sum
      end
      if keeps then
        local _, pullback <close> = bp.vjp(g, x)
        pullback()
      else
        bp.grad(g)(x)
      end
      assert(seen > 0)
    end
  end)

  it("P16: bp.value outlives the tape, under full collections", function()
    local kept = {}
    for i = 1, 10 do
      bp.grad(function(x)
        kept[i] = bp.value(x * i)
        return bp.sum(x)
      end)(bp.vector{ 1, 2 })
      full_collection()
    end
    for i = 1, 10 do same({ i, 2 * i }, kept[i]) end
  end)
end)

describe("P17: live bytes", function()
  it("P17: return after every operation's samples: plain, in a gradient, in a kept tape, and refused", function()
    for _, row in ipairs(bp.ops()) do
      for _, arguments in ipairs(operands.callable(row) and operands.samples(row) or {}) do
        local sample = operands.sample(row, arguments, "f64")
        local function use()
          sample.f(sample.operands)
          bp.grad(sample.f)(sample.operands)
          local _, pullback = bp.vjp(sample.f, sample.operands)
          pullback()
          pcall(bp.grad(function(x) error(sample.f(x)) end), sample.operands)
          pcall(bp.grad(function(x) return operands.callable(row)(x[1], { 1, 2, 99 }, 99) end), sample.operands)
        end
        use()
        local before = live()
        use()
        assert.equal(before, live(), row.name)
      end
    end
  end)
end)

describe("P23: every buffer is owned before anything can raise", function()
  local big, other = bp.ones(100, 50), bp.ones(100, 51)
  local failing_op = bp.op(function(x) return x * 2, function() error("in the pullback") end end)
  local errors = {
    { "shapes that disagree", function(x) return bp.sum(x * 2 + other) end },
    { "a list with a wrong element", function(x) return bp.concat{ x, x * 2, "text" } end },
    { "a table with a wrong element", function(x) return bp.vector{ x[1][1], x[1][2], "text" } end },
    { "an error in f", function(x) error({ x * 2, bp.exp(x) }) end },
    { "an error in a pullback", function(x) return bp.sum(failing_op(bp.exp(x))) end },
    { "a wrong gradient", function(x)
      return bp.sum(bp.op(function(v) return bp.exp(v), function(dz) return { dz * 2 } end end)(x))
    end },
    { "a wrong result", function(x) return { bp.exp(x), { x * 2 }, [1.5] = 3 } end },
    { "a bad axis", function(x) return bp.sum(bp.exp(x), 3) end },
    { "a bad index", function(x) return bp.gather(bp.exp(x), { 1, 2, 101 }) end },
    { "a bad size", function(x) return bp.reshape(bp.exp(x), 3, 7) end },
    { "an unknown activation", function(x) return bp.linear(bp.exp(x), bp.ones(3, 50), bp.ones(3), "nonsense") end },
    { "mixed dtypes", function(x) return bp.exp(x) + x:astype("f32") end },
    { "no gradient", function(x) return bp.sum(bp.nograd(function(v) return v * 2 end)(bp.exp(x))) end },
  }
  for _, case in ipairs(errors) do
    it("P23: " .. case[1], function()
      local calls = {
        function() bp.grad(case[2])(big) end, function() bp.value_and_grad(case[2])(big) end,
        function() bp.optim.sgd{ lr = 0.1 }:minimize(case[2], big) end,
      }
      for _, call in ipairs(calls) do assert(not pcall(call)) end -- what stays for ever is there now
      local before = live()
      for _ = 1, 3 do
        for _, call in ipairs(calls) do assert(not pcall(call)) end
      end
      assert.equal(before, live())
      same({ 2, 4 }, bp.grad(function(x) return x * x end)(bp.vector{ 1, 2 }))
    end)
  end

  it("P23: without a collection a call that raises holds nothing but what was handed out", function()
    collectgarbage("stop")
    local function f(x)
      for _ = 1, 10 do x = bp.exp(x) * 0.5 end
      error("oh")
    end
    pcall(bp.grad(f), big)
    local before = bp.stats().bytes_live
    for _ = 1, 5 do pcall(bp.grad(f), big) end
    local after = bp.stats().bytes_live
    collectgarbage("restart")
    assert.equal(before, after)
  end)
end)

describe("what was tracked is changed by the user:", function()
  it("a forward that writes to its argument's table, or uses its result's again, moves no gradient", function()
    local caching = bp.op(function(p)
      local w, v = p.w, p.v
      p.cache, p.aux, p.w = w * 2, { s = v }, nil
      return w * 2 * v, function(d) return { w = d * 2 * v, v = d * 2 * w } end
    end)
    same({ w = 10, v = 6 }, bp.grad(function(p) return caching(p) end){ w = 3, v = 5 })
    local inserting = bp.op(function(l)
      local a, b = l[1], l[2]
      table.insert(l, 1, 7)
      return a * b, function(d) return { d * b, d * a } end
    end)
    same({ 5, 3 }, bp.grad(function(l) return inserting(l) end){ 3, 5 })
    local result = {}
    local reusing = bp.op(function(x, key)
      result[key] = x * 2
      return result, function(d) return d[key] * 2, nil end
    end)
    assert.equal(62, bp.grad(function(x)
      local a, b = reusing(x, "b"), reusing(x * 3, "a")
      return a.b + 10 * b.a
    end)(1))
  end)

  it("leaves that come or go while the function runs are an error, and no parameter has changed", function()
    local changed = "an argument was changed while the function ran"
    for _, change in ipairs{
      function(p) p.a = nil end, function(p) p.more = 1 end, function(p) p.n = bp.zeros(2) end,
      function(p) p.w = 3 end, function(p) p.w = bp.zeros(3) end,
    } do
      local p = { a = 3.0, n = 5.0, w = bp.vector{ 1, 2 } }
      local w = p.w
      local function f(q)
        change(p)
        return 10 * q.n + bp.sum(q.w) + 100 * q.a
      end
      raises(changed, bp.grad(f), p)
      p = { a = 3.0, n = 5.0, w = w }
      raises(changed, bp.optim.sgd{ lr = 1 }.minimize, bp.optim.sgd{ lr = 1 }, f, p)
      same({ 1, 2 }, w)
      assert(p.a == nil or p.a == 3)
    end
    local p = { b = bp.vector{ 1, 2 }, c = bp.vector{ 3, 4 } }
    local _, pullback <close> = bp.vjp(function(q) return bp.dot(q.b, q.c) end, p)
    p.c = nil
    raises("an argument was changed", pullback)
  end)

  it("the value is that of before, also where its gradient goes to the argument itself", function()
    local x = bp.vector{ 5, 6 }
    same({ 5, 6 }, (bp.value_and_grad(function(a) return a end, { into = x })(x)))
    same({ 1, 1 }, x)
    local m = bp.matrix{ { 5, 6 }, { 7, 8 } }
    same({ 5, 6 }, (bp.value_and_grad(function(a) return a[1] end, { into = m })(m)))
  end)

  it("one table cannot take the numbers of two", function()
    local t = { n = 0 }
    raises("two gradients", bp.grad(function(p) return 2 * p.a.n + 3 * p.b.n end, { into = { a = t, b = t } }),
      { a = { n = 1 }, b = { n = 2 } })
    raises("two gradients", bp.grad(function(p, q) return 2 * p.n + 3 * q.n end,
      { wrt = { 1, 2 }, into = { t, t } }), { n = 1 }, { n = 2 })
  end)
end)
