-- What stands beside the operations: that every name of the contract exists, bp.stats, bp.check_finite,
-- bp.profile, bp.set_threads and bp.include_dir. Whatever a tool was asked for, it is off again after an error.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"
local process = require "support.process"

local same, raises = help.same, help.raises

describe("the contract's names", function()
  local groups = {
    arrays = "vector matrix zeros ones full eye linspace rng axpy release kind",
    ["element-wise"] = "exp log log1p expm1 sqrt square abs sign sin cos tan asin acos atan sinh cosh tanh sigmoid "
      .. "softplus relu leaky_relu elu gelu silu reciprocal pow minimum maximum clamp less less_equal greater "
      .. "greater_equal equal where",
    reductions = "sum mean max min prod logsumexp norm argmax argmin",
    products = "dot outer matmul transpose diag trace linear",
    shape = "reshape flatten concat stack slice row column rows element gather konst",
    fused = "softmax log_softmax softmax_cross_entropy sigmoid_cross_entropy",
    differentiation = "eval grad value_and_grad vjp constant value stats",
    structures = "record list view set over lens fields at filtered preview collect element_at row_at column_at range "
      .. "map leaves paths zero add one instance",
    operations = "op nograd iso ops check",
    training = "set_threads profile check_finite",
  }
  for group, names in pairs(groups) do
    it("are functions: " .. group, function()
      for name in names:gmatch("%S+") do assert(bp[name] ~= nil and bp[name] ~= false, "bp." .. name) end
    end)
  end

  it("are there in tables, methods and constants", function()
    for name in ("sgd adam adamw rmsprop adagrad"):gmatch("%S+") do assert(bp.optim[name], name) end
    assert(bp.data.csv and bp.data.idx and bp.static and bp.each)
    local m, r = bp.zeros(2, 2), bp.rng(1)
    for name in ("shape dtype totable clone astype copy fill get set sum exp matmul reshape softmax"):gmatch("%S+") do
      assert(m[name], "m:" .. name)
    end
    for name in ("uniform normal permutation bernoulli"):gmatch("%S+") do assert(r[name], "r:" .. name) end
  end)

  it("stand in no global variable", function()
    assert(rawget(_G, "bp") == nil and rawget(_G, "backprop") == nil)
  end)
end)

describe("bp.include_dir", function()
  it("is the folder of backprop.h", function()
    local file = assert(io.open(bp.include_dir .. "/backprop.h"))
    assert(file:read("a"):find("BP_API_VERSION", 1, true))
    file:close()
  end)
end)

describe("bp.check_finite", function()
  after_each(function() bp.check_finite(false) end)
  local function f(x) return bp.sum(bp.log(x) * 2) end
  local function here() return debug.getinfo(2, "l").currentline end

  -- The operation that is named and the line, of a call that must stop; what follows the name is `says`.
  local function stops(operation, says, line, call, ...)
    local message = raises({ operation .. ": " .. says }, call, ...)
    assert.equal(line, tonumber(message:match("^%S*tools_spec.lua:(%d+): ")), message)
  end

  it("names the operation that made a NaN or an infinity, forward or backward", function()
    same({ 2 / 0, 1 }, bp.grad(f)(bp.vector{ 0, 2 }))
    bp.check_finite(true)
    same({ 2, 1 }, bp.grad(f)(bp.vector{ 1, 2 }))
    raises("log", bp.grad(f), bp.vector{ 0, 2 })
    raises("log", bp.grad(f), bp.vector{ -1, 2 })
    raises("log", bp.grad(function(x) return bp.log(x) end), 0)
    raises("sqrt", bp.grad(function(x) return bp.sum(bp.sqrt(x)) end), bp.vector{ 0, 1 }) -- its gradient only
    raises("odd", bp.grad(bp.op{ name = "odd", forward = function(x)
      return x * 2, function() return bp.full(1 / 0, 2) end
    end }), bp.vector{ 1, 2 })
  end)

  it("is off until it is asked for, and again afterwards", function()
    bp.check_finite(true)
    raises("log", bp.grad(f), bp.vector{ 0, 2 })
    bp.check_finite(false)
    same({ 2 / 0, 1 }, bp.grad(f)(bp.vector{ 0, 2 }))
  end)

  -- For each kind of operation: what makes something infinite forward, and what only backward.
  local forward = {
    div = function(x) return x / 0 end,
    exp = function(x) return bp.exp(x * 1000) end,
    sum = function(x) return bp.sum(x * 6e307) end,
    dot = function(x) return bp.dot(x * 1e200, x * 1e200) end,
    matmul = function(x) return bp.matmul(bp.outer(x, x * 1e200), x * 1e200) end,
    linear = function(x) return bp.linear(x * 1e200, bp.full(1e200, 1, 2), bp.zeros(1)) end,
    softmax_cross_entropy = function(x)
      return bp.softmax_cross_entropy(x, bp.full(1.7e308, 2))
    end,
    stack = function(x) return bp.stack{ bp.element(x, 1), 1 / 0 } end,
    ["custom"] = bp.op{ name = "custom", forward = function(x) -- by Lua's own arithmetic
      return x[1] / 0, function() return bp.zeros(2) end
    end },
  }

  for operation, make in pairs(forward) do
    it("stops at the call that makes it, tracked or plain: " .. operation, function()
      bp.check_finite(true)
      local line
      local function g(x)
        local y = x * 1
        line = here() + 1
        local z = make(y)
        return z
      end
      local message = raises(operation .. ": ", bp.grad(g), bp.vector{ 1, 2 })
      assert(message:find("tools_spec.lua:%d+: "), message)
      if operation == "custom" then
        assert.equal(line, tonumber(message:match("tools_spec.lua:(%d+): ")))
      else
        raises(operation .. ": ", g, bp.vector{ 1, 2 })
      end
    end)
  end

  it("says whether the operation made it or was given it", function()
    bp.check_finite(true)
    local bad = bp.vector{ 1, help.nan }
    stops("bp.mul", "argument 2 has a NaN or inf, and so has the result", here() + 1, function(x)
      local y = x * bad
      return y
    end, bp.vector{ 1, 2 })
    raises("bp.add: argument 1 has a NaN or inf", bp.grad(function(x) return bp.sum(x + 1) end), bad)
    raises("bp.row: argument 1", bp.grad(function(x) return bp.sum(bp.row(x, 2)) end), bp.full(1 / 0, 2, 2))
  end)

  it("names the line that recorded the operation whose gradient is not finite", function()
    bp.check_finite(true)
    local line
    local function g(x)
      local y = x * 1
      line = here() + 1
      local z = bp.sqrt(y)
      local s = bp.sum(z)
      return s * 2
    end
    for _, call in ipairs{
      bp.grad(g), bp.value_and_grad(g),
      function(x) local _, pullback <close> = bp.vjp(g, x); pullback() end,
      function(x) bp.optim.sgd{ lr = 1 }:minimize(g, x) end, function(x) bp.optim.adam{}:minimize(g, x) end,
      function(x) coroutine.wrap(function() bp.grad(g)(x) end)() end,
    } do
      local x = bp.vector{ 0, 1 }
      local message = raises("bp.sqrt: the gradient of argument 1 has a NaN or inf (in the sweep)", call, x)
      assert.equal(line, tonumber(message:match("tools_spec.lua:(%d+): bp.sqrt")), message)
      same({ 0, 1 }, x) -- no optimiser has stepped
    end
  end)

  it("looks at gradients in windows, in lists, in records and given by pullbacks", function()
    bp.check_finite(true)
    local m = bp.matrix{ { 1, 4 }, { 0, 1 } }
    raises("bp.sqrt: the gradient", bp.grad(function(x) return bp.sum(bp.sqrt(x[2])) end), m)
    raises("bp.sqrt: the gradient", bp.grad(function(p) return bp.sqrt(p.list[2]) end), { list = { 1, 0 } })
    same({ { 0.5, 0.25 }, { 0, 0 } }, bp.grad(function(x) return bp.sum(bp.sqrt(x[1])) end)(m))
    local pair = bp.op{ name = "pair", forward = function(p)
      return p.a + p.b, function(d) return { a = d, b = d / 0 } end
    end }
    raises("pair: the gradient of leaf 2", bp.grad(pair), { a = 1, b = 2 })
  end)

  it("looks at a cotangent", function()
    bp.check_finite(true)
    local _, pullback <close> = bp.vjp(function(x) return x * 2 end, bp.vector{ 1, 2 })
    raises("bp.vjp: the cotangent has a NaN or inf", pullback, bp.vector{ 1, help.inf })
    same({ 2, 4 }, pullback(bp.vector{ 1, 2 }))
  end)

  it("leaves what is not chosen alone: where and clamp have finite gradients", function()
    bp.check_finite(true)
    local x = bp.vector{ -1, 2 }
    same({ 0, 0.5 }, bp.grad(function(v)
      local safe = bp.where(bp.greater(v, 0), v, 1)
      return bp.sum(bp.where(bp.greater(v, 0), bp.log(safe), 0))
    end)(x))
  end)

  it("f32 overflows where f64 does not", function()
    bp.check_finite(true)
    local function g(x) return bp.sum(x * 1e30) end
    bp.grad(g)(bp.full(1e20, 2))
    raises("bp.mul", bp.grad(g), bp.full(1e20, 2, "f32"))
  end)

  it("is an option of grad and value_and_grad, for their calls only, also after an error", function()
    for _, name in ipairs{ "grad", "value_and_grad" } do
      local checked, unchecked = bp[name](f, { check_finite = true }), bp[name](f)
      local x = bp.vector{ 0, 2 }
      raises("bp.log: the result", checked, x)
      assert(pcall(unchecked, x))
      checked(bp.vector{ 1, 2 })
      assert(pcall(unchecked, x))
      bp.check_finite(true)
      assert(pcall(bp[name](f, { check_finite = false }), x))
      raises("bp.log: the result", unchecked, x)
      bp.check_finite(false)
    end
  end)

  it("does not outlive a coroutine that yielded, or that an error ended", function()
    local checked = bp.grad(function(x)
      coroutine.yield()
      return bp.sum(bp.log(x))
    end, { check_finite = true })
    local co = coroutine.create(checked)
    coroutine.resume(co, bp.vector{ 0, 2 })
    same({ 2 / 0, 1 }, bp.grad(f)(bp.vector{ 0, 2 })) -- while it waits
    assert(not coroutine.resume(co))
    same({ 2 / 0, 1 }, bp.grad(f)(bp.vector{ 0, 2 })) -- and when it has died, without coroutine.close
  end)

  it("changes no result", function()
    local function g(x) return bp.logsumexp(bp.tanh(x * x) + bp.softmax(x)) end
    local x = bp.rng(1):normal(0, 1, 50)
    local value, gradient = bp.value_and_grad(g)(x)
    bp.check_finite(true)
    same({ value, gradient }, { bp.value_and_grad(g)(x) })
  end)
end)

describe("bp.profile", function()
  local printed
  local real = print
  before_each(function()
    printed = {}
    rawset(_G, "print", function(...)
      for _, x in ipairs{ ... } do printed[#printed + 1] = tostring(x) end
    end)
  end)
  after_each(function() rawset(_G, "print", real) end)

  it("tells the operations of a gradient", function()
    local x = bp.vector{ 1, 2 }
    local report = bp.profile(function(v, c) return bp.sum(bp.sin(v) * c) end, x, 3)
    local text = table.concat(printed, "\n") .. tostring(report)
    for _, name in ipairs{ "sin", "mul", "sum" } do assert(text:find(name, 1, true), name .. " is not in " .. text) end
    assert(not text:find("cos", 1, true))
    assert(text:find("tools_spec.lua:%d+"), "the user's line is not in " .. text)
    same({ 1, 2 }, x)
  end)

  -- The row of an operation; an operation on two lines has two.
  local function row_of(report, op)
    local found
    for _, row in ipairs(report) do
      if row.op == op then
        assert(not found, "two rows of " .. op)
        found = row
      end
    end
    return assert(found, "no row of " .. op)
  end

  it("counts calls and bytes by operation and line, and adds them up", function()
    local report = bp.profile(function(v)
      for _ = 1, 5 do v = bp.sin(v) end
      local c = bp.cos(v)
      c = bp.cos(c)
      return bp.sum(c)
    end, bp.zeros(100))
    local line = debug.getinfo(1, "l").currentline
    local sines, sum = row_of(report, "sin"), row_of(report, "sum")
    assert.same({ 5, 5 * 800 }, { sines.calls, sines.bytes })
    assert.equal(0, sum.bytes) -- a number
    assert(sines.line:find(("tools_spec.lua:%d"):format(line - 5), 1, true), sines.line)
    assert(sum.line:find(("tools_spec.lua:%d"):format(line - 2), 1, true), sum.line)
    assert.equal(4, #report) -- cos on two lines
    local total = { share = 0, forward = 0, backward = 0, bytes = 0 }
    for k, row in ipairs(report) do
      assert(row.forward >= 0 and row.backward >= 0)
      assert(k == 1 or row.share <= report[k - 1].share, "not the most expensive first")
      for name, value in pairs(total) do total[name] = value + row[name] end
    end
    assert.equal(7 * 800, total.bytes)
    assert.equal(total.bytes, report.bytes)
    help.close({ 1, report.forward, report.backward, report.forward + report.backward },
      { total.share, total.forward, total.backward, report.total }, 1e-12)
  end)

  it("knows operations by hand by their names", function()
    local square = bp.op{ name = "square by hand", forward = function(x)
      return x * x, function(dz) return 2 * dz * x end
    end }
    local row = row_of(bp.profile(function(v) return bp.sum(square(v)) end, bp.ones(10)), "square by hand")
    assert.same({ 1, 80 }, { row.calls, row.bytes })
    assert(row.line:find("tools_spec.lua:%d+"))
  end)

  it("knows those of structures, and what their forward took", function()
    local total = bp.op{ name = "total by hand", forward = function(p)
      local sum = p.a
      for _ = 1, 100 do sum = sum + p.b end
      return sum, function(dz) return { a = dz, b = dz * 100 } end
    end }
    local row = row_of(bp.profile(function(v) return bp.sum(total{ a = v, b = v }) end, bp.ones(10)), "total by hand")
    assert.equal(1, row.calls)
    assert(row.forward > 0)
  end)

  it("takes a function that does not do the same each time", function()
    local count = 0
    local report = bp.profile(function(x)
      count = count + 1
      for _ = 1, count do x = bp.sin(x) end
      return x
    end, 1)
    assert.equal(count, row_of(report, "sin").calls) -- those of the last run
  end)

  it("hints at the fused operation, which gives the same", function()
    local w, b, x = bp.matrix{ { 1, 2, 3 }, { 4, 5, 6 } }, bp.vector{ 1, -1 }, bp.vector{ 0.1, -0.2, 0.3 }
    local rows, target = bp.matrix{ { 1, 2, 3 }, { 0, 1, 0 } }, bp.vector{ 0.2, 0.3, 0.5 }
    local function softmax(v) local e = bp.exp(v) return e / bp.konst(bp.sum(e), #e) end
    local function twice(m) local e = bp.exp(m) return e / bp.outer(bp.sum(e, 2), bp.ones(3)) end
    for _, case in ipairs{
      { "add", "linear", w, function(v) return bp.matmul(v, x) + b end, function(v) return bp.linear(x, v, b) end },
      { "matmul", "linear", w, function(v) return bp.matmul(rows, bp.transpose(v)) + b end,
        function(v) return bp.linear(rows, v, b) end },
      { "div", "softmax", x, softmax, bp.softmax },
      { "div", "softmax", rows, twice, bp.softmax },
      { "log", "log_softmax", x, function(v) return bp.log(softmax(v)) end, bp.log_softmax },
      { "log", "log_softmax", x, function(v) return bp.log(bp.softmax(v)) end, bp.log_softmax },
      { "log", "logsumexp", x, function(v) return bp.log(bp.sum(bp.exp(v))) end, bp.logsumexp },
      { "log", "softplus", x, function(v) return bp.log(1 + bp.exp(v)) end, bp.softplus },
      { "log", "sigmoid_cross_entropy", 0.3, function(v) return -bp.log(bp.sigmoid(v)) end,
        function(v) return bp.sigmoid_cross_entropy(v, 1) end },
      { "sqrt", "norm", x, function(v) return bp.sqrt(bp.sum(bp.square(v))) end, bp.norm },
      { "sum", "dot", x, function(v) return bp.sum(v * target) end, function(v) return bp.dot(v, target) end },
      { "dot", "softmax_cross_entropy", x, function(v) return -bp.dot(bp.log(bp.softmax(v)), target) end,
        function(v) return bp.softmax_cross_entropy(v, target) end },
      { "mul", "softmax_cross_entropy", x, function(v) return -bp.sum(bp.log_softmax(v) * target) end,
        function(v) return bp.softmax_cross_entropy(v, target) end },
    } do
      local op, fused, at, plain, same_at_once = table.unpack(case)
      local hint = row_of(bp.profile(plain, at), op).hint or "nothing"
      assert(hint:find("bp." .. fused, 1, true), ("%s: %s, not bp.%s"):format(op, hint, fused))
      assert(table.concat(printed, "\n"):find(hint, 1, true), "the hint was not printed")
      help.close(plain(at), same_at_once(at), 1e-12)
      for _, row in ipairs(bp.profile(same_at_once, at)) do assert(not row.hint, row.hint) end
    end
  end)

  -- OpenBLAS takes its name for the processor from the environment; where it does not, nothing can be shown.
  it("says where OpenBLAS runs kernels for a processor much older than this one", function()
    local function note(core, level, f)
      return process.script(([[
        local core = require "backprop.core"
        local known = pcall(core.simd, %q)
        if not known or core.blas() ~= %q then print "other" os.exit() end
        local bp = require "backprop"
        local x, w, b = bp.ones(64, 64), bp.ones(64, 64), bp.ones(64)
        local print = print
        _ENV.print = function() end
        local report = bp.profile(function(p) return bp.sum(%s) end, w)
        assert(tostring(report):find(report.note or "", 1, true))
        print(report.note)
      ]]):format(level, core, f), { OPENBLAS_CORETYPE = core })
    end
    local product = "bp.linear(x, p, b)"
    for _, case in ipairs{
      { "Prescott", "avx2", product, "older processor %(Prescott%).*OPENBLAS_CORETYPE=Haswell" },
      { "Prescott", "avx512", product, "OPENBLAS_CORETYPE=SkylakeX" },
      { "Prescott", "base", product, "^nil" },
      { "Haswell", "avx2", product, "^nil" },
      { "Prescott", "avx2", "bp.matmul(p, x)", "%(Prescott%)" },
      { "Prescott", "avx2", "bp.op(function(q) local y = bp.matmul(q, x) return y, function(d) return d end end)(p)",
        "%(Prescott%)" },
      { "Prescott", "avx2", "bp.sin(bp.matmul(p, b)) + bp.linear(b, p, b)", "^nil" },
    } do
      local found = note(case[1], case[2], case[3])
      assert(found:find(case[4]) or found == "other\n", found)
    end
  end)

  it("hands the error of f on and leaves the state usable", function()
    local object = {}
    local ok, e = pcall(bp.profile, function() error(object) end, 1)
    assert(not ok and rawequal(e, object))
    same({ 2, 4 }, bp.grad(function(x) return x * x end)(bp.vector{ 1, 2 }))
  end)
end)

describe("bp.set_threads", function()
  it("changes no result beyond rounding (1e-12)", function()
    local r = bp.rng(1)
    local a, b = r:normal(0, 1, 150, 90), r:normal(0, 1, 90, 120)
    local one = bp.matmul(a, b)
    bp.set_threads(2)
    local two = bp.matmul(a, b)
    bp.set_threads(1)
    help.close(one, two, 1e-12)
  end)
end)

describe("bp.stats", function()
  it("has the counters of the contract and resets them", function()
    bp.grad(function(x) return x * x end)(3)
    local s = bp.stats(true)
    for _, name in ipairs{ "nodes", "additions", "zero_fills", "bytes_live", "bytes_pooled", "allocations" } do
      assert.equal("number", type(s[name]), name)
      assert(s[name] >= 0)
    end
    assert(s.nodes > 0)
    local after = bp.stats()
    assert.same({ 0, 0, 0 }, { after.nodes, after.additions, after.zero_fills })
  end)

  it("counts recorded operations: not those on plain values, nor the reading of fields and lenses", function()
    local M = bp.record("M", "x", "y", "z")
    local m, c = M{ x = 5, y = 7, z = 2 }, bp.vector{ 1, 2 }
    local lens = M.lens
    for _, f in ipairs{
      function(p) return p.x * p.y + p.z end,
      function(p) return bp.view(p, lens.x) * bp.view(p, lens.y) + bp.view(p, lens.z) end,
      function(p) return p.x * p.y + p.z, bp.sum(c * c), bp.constant(p.x) * 2 end,
    } do
      bp.stats(true)
      bp.grad(f)(m)
      assert.equal(2, bp.stats().nodes)
    end
  end)

  it("knows the bytes of arrays", function()
    for _ = 1, 2 do collectgarbage() end -- so that no array of others goes in the meantime
    local before = bp.stats().bytes_live
    local v = bp.zeros(1000)
    assert(bp.stats().bytes_live >= before + 8000)
    bp.release(v)
    assert.equal(before, bp.stats().bytes_live)
  end)
end)
