-- What `make memtest` lets run out of memory: a list of parts {name, cases}, where cases() gives a list of cases
--
--   { name =, prepare = function() return x end, run = function(x) return result end,
--     check = function(x, completed) end }
--
-- The host (host.c) calls prepare with all the memory there is, run with an allocator that refuses, then the global
-- `judge`. A case is small, so that refusing each of its requests in turn is cheap. Held by judge: a run that completed
-- has the same result, bit for bit, as one with all the memory there is, and so has the next one after a failure (the
-- next gradient is right); no array that the run made is still in use, and the Lua heap is as large as before.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local core = require "backprop.core"
local help = require "support.helpers"
local operands = require "support.operands"

-- ---- judging --------------------------------------------------------------------------------------------------------

-- Everything in a result as one text, numbers to the last bit.
local function fingerprint(x)
  if help.is_array(x) then return x:dtype() .. fingerprint(x:totable()) end
  if math.type(x) == "float" then return ("%a"):format(x) end
  if type(x) ~= "table" then return type(x) == "userdata" and "userdata" or tostring(x) end
  local parts = {}
  for k, v in pairs(x) do parts[#parts + 1] = tostring(k) .. "=" .. fingerprint(v) end
  table.sort(parts)
  return "{" .. table.concat(parts, ",") .. "}"
end

-- Bytes in arrays and on the Lua heap, when all that can be collected is.
local function in_use()
  for _ = 1, 3 do collectgarbage() end
  return bp.stats().bytes_live, collectgarbage "count" * 1024
end

local SLACK = 8192 -- tables and stacks that have grown for good

function judge(case, completed, result) -- luacheck: ignore 111
  local x = case.prepared
  if case.check then case.check(x, completed) end
  if completed then
    result = fingerprint(result)
    case.reference = case.reference or result
    assert(result == case.reference, "another result: " .. result .. ", not " .. case.reference)
  elseif not case.check then
    local again = fingerprint(case.run(x))
    assert(again == case.reference, "the run after the failed one: " .. again .. ", not " .. case.reference)
  end
  case.prepared, x, result = nil, nil, nil -- luacheck: ignore
  local arrays, heap = in_use()
  case.arrays, case.heap = case.arrays or arrays, case.heap or heap
  assert(arrays == case.arrays, ("%d bytes in arrays, not %d"):format(arrays, case.arrays))
  assert(heap <= case.heap + SLACK, ("%d bytes on the Lua heap, not %d"):format(heap, case.heap))
end

local function case(name, run, prepare, check)
  local self = { name = name, run = run, check = check }
  function self.prepare()
    self.prepared = prepare and prepare() or 0
    core.make_room() -- nothing comes from the pool: every array is asked of the allocator
    return self.prepared
  end
  return self
end

local parts = {}
local function part(name, cases) parts[#parts + 1] = { name = name, cases = cases } end

-- ---- every operation ------------------------------------------------------------------------------------------------

-- All samples of a row in both dtypes: on plain values, then value and gradient with a cotangent of ones.
local function row_cases(row)
  local cases = {}
  for number, arguments in ipairs(operands.samples(row)) do
    for _, dtype in ipairs(help.dtypes) do
      local sample = operands.sample(row, arguments, dtype)
      local gradient = bp.value_and_grad(sample.f)
      local differentiable = row.differentiable and #sample.operands > 0
      cases[#cases + 1] = case(("sample %d, %s"):format(number, dtype), function()
        local plain = sample.f(sample.operands)
        if not differentiable then return { plain } end
        return { plain, gradient(sample.operands) }
      end)
    end
  end
  return cases
end

for _, row in ipairs(bp.ops()) do
  part(row.name, function() return row_cases(row) end)
end

-- ---- arrays ---------------------------------------------------------------------------------------------------------

part("arrays", function()
  local cases = {}
  for _, dtype in ipairs(help.dtypes) do
    local m = bp.matrix({ { 1, 2, 3 }, { 4, 5, 6 } }, dtype)
    cases[#cases + 1] = case("constructors, " .. dtype, function()
      return {
        bp.vector({ 1, 2, 3 }, dtype), bp.matrix({ { 1, 2 }, { 3, 4 } }, dtype), bp.zeros(3, dtype),
        bp.ones(2, 3, dtype), bp.full(7, 2, dtype), bp.eye(3, dtype), bp.linspace(0, 1, 5, dtype),
      }
    end)
    cases[#cases + 1] = case("generator, " .. dtype, function()
      local r = bp.rng(3)
      return { r:uniform(0, 1, 5, dtype), r:normal(0, 1, 2, 3, dtype), r:permutation(6), r:bernoulli(0.5, 4) }
    end)
    cases[#cases + 1] = case("reading, " .. dtype, function()
      return { m[1], m[2][3], m:get(1, 2), { m:shape() }, m:totable(), #m, tostring(m), m == m:clone(), bp.kind(m) }
    end)
    cases[#cases + 1] = case("windows and conversion, " .. dtype, function()
      return { bp.column(m, 2), bp.slice(m, 1, 2), bp.flatten(m), m:astype "f64", m:astype "f32", bp.rows(m), -m ^ 2 }
    end)
    cases[#cases + 1] = case("in place, " .. dtype, function()
      local x, y = m:clone(), bp.zeros(2, 3, dtype)
      x:set(1, 1, 10)
      y:copy(x)
      y[1]:fill(2)
      bp.axpy(2, { x, x[1] }, { y, y[2] })
      bp.axpy(1, bp.slice(bp.flatten(y), 1, 3), bp.slice(bp.flatten(y), 2, 4)) -- overlapping: through a copy
      local kept <close> = x:clone()
      bp.release{ x }
      return { y, kept[1][1] }
    end)
  end
  -- At a depth where nothing was called before, Lua needs memory to call a finalizer; one that it cannot call it drops.
  local function deeper(levels, f)
    if levels == 0 then return f() end
    local result = deeper(levels - 1, f)
    return result
  end
  cases[#cases + 1] = case("that nobody holds, at a new depth", function()
    return deeper(20, function()
      for _ = 1, 3 do bp.zeros(20) end
      return bp.zeros(1000) + 1
    end)
  end)
  cases[#cases + 1] = case("of tracked numbers", function()
    return bp.grad(function(x)
      return bp.sum(bp.vector{ x[1], 2, x[2] } * 3) + bp.sum(bp.matrix{ { x[1], x[2] }, { 1, x[3] } })
    end)(bp.vector{ 1, 2, 3 })
  end)
  return cases
end)

-- ---- structures -----------------------------------------------------------------------------------------------------

local function make_net()
  local Layer = bp.record("Layer", { "w", "matrix" }, { "b", "vector" }, { "name", bp.static })
  local Net = bp.record("Net", { "hidden", Layer }, { "more", bp.list(Layer) }, "scale")
  local function layer(rows, columns, seed)
    local r = bp.rng(seed)
    return Layer{ w = r:normal(0, 1, rows, columns), b = r:normal(0, 1, rows), name = "layer " .. seed }
  end
  local net = Net{ hidden = layer(4, 3, 1), more = { layer(4, 4, 2), layer(2, 4, 3) }, scale = 0.5 }
  local function loss(n, x, class)
    local h = bp.linear(x, n.hidden.w, n.hidden.b, "tanh")
    h = bp.sigmoid(bp.matmul(h, bp.transpose(n.more[1].w)) + n.more[1].b)
    h = bp.linear(h, n.more[2].w, n.more[2].b) * n.scale
    return bp.softmax_cross_entropy(h, class)
  end
  return net, loss, Net, Layer
end

local inputs, classes = bp.rng(9):normal(0, 1, 5, 3), { 1, 2, 1, 2, 2 }

part("records", function()
  local net, loss = make_net()
  return {
    case("types and records", function()
      local n, f = make_net()
      return { n, f(n, inputs, classes) }
    end),
    case("arithmetic", function()
      return { net + net, net * 2, -net, bp.map(function(leaf) return leaf * 2 end, net), bp.add(net, net) }
    end),
    case("looking at them", function()
      return { bp.zero(net), bp.one(net), bp.leaves(net), bp.paths(net), tostring(net), bp.kind(net) }
    end),
    case("gradient", function() return bp.grad(loss)(net, inputs, classes) end),
    case("plain", function() return bp.eval(loss, net, inputs, classes) end),
    case("refused", function()
      local _, message = pcall(function() return net.missing end)
      if message == "not enough memory" then error(message, 0) end
      return message
    end),
  }
end)

-- Debian 12's Lua 5.4.4 (patch 0005-cve-2022-33099) keeps a pointer into the stack over the call of a `__concat`:
-- `a .. b` of lenses reads freed memory if the stack has to grow in it. Here it is grown before.
local function grow_stack(n)
  return n == 0 and 0 or 1 + grow_stack(n - 1)
end

part("lenses", function()
  local net, loss, Net, Layer = make_net()
  local w = Net.lens.hidden.w
  local each = Net.lens.more .. bp.each .. Layer.lens.b
  return {
    case("reading", function()
      grow_stack(40)
      return {
        bp.view(net, w), bp.view(net, Net.lens.more .. bp.at(2) .. Layer.lens.w), bp.collect(net, each),
        bp.preview(net, Net.lens.more .. bp.at(9)), bp.view(net, bp.fields(Net.lens.scale, w)),
      }
    end),
    case("changing", function()
      grow_stack(40)
      return {
        bp.set(net, Net.lens.scale, 3), bp.over(net, each, function(b) return b * 2 end),
        bp.over(net, w .. bp.element_at(1, 2), function(s) return s + 1 end), net,
      }
    end),
    case("gradient", function()
      return bp.grad(function(n)
        local m = bp.over(n, w, function(weights) return weights * 2 end)
        return loss(bp.set(m, Net.lens.scale, bp.view(n, Net.lens.scale) + 1), inputs, classes)
      end)(net)
    end),
  }
end)

-- ---- differentiation ------------------------------------------------------------------------------------------------

part("gradients", function()
  local net, loss = make_net()
  local v, u = bp.vector{ 1, 2, 3 }, bp.vector{ 4, 5, 6 }
  local function product(a, b, s) return bp.dot(a, b) * s, a * b, s end
  local into = { bp.zeros(3), bp.zeros(3) }
  return {
    case("wrt", function() return { bp.grad(product, { wrt = { 1, 3 } })(v, u, 2) } end),
    case("further results", function() return { bp.value_and_grad(product)(v, u, 2) } end),
    case("into", function() return { bp.grad(product, { wrt = { 1, 2 }, into = into })(v, u, 2) } end),
    case("pullback, kept", function()
      local value, pullback, more = bp.vjp(product, v, u, 2)
      local first, second = { pullback(1) }, { pullback(-2) }
      pullback:close()
      return { value, more, first, second }
    end),
    case("pullback, dropped", function()
      local value, pullback = bp.vjp(loss, net, inputs, classes)
      return { value, (pullback()) }
    end),
    case("checked for NaN", function() return bp.grad(loss, { check_finite = true })(net, inputs, classes) end),
    case("windows", function()
      return bp.grad(function(m)
        local sum = bp.sum(m[1] * m[2]) + m[2][1] * m[1][2]
        for _, row in ipairs(m) do sum = sum + bp.sum(bp.slice(row, 2, 3)) end
        return sum + bp.sum(bp.column(m, 2) * bp.column(m, 3)) + bp.sum(m)
      end)(bp.matrix{ { 1, 2, 3 }, { 4, 5, 6 } })
    end),
    case("a long chain", function()
      return bp.grad(function(s)
        for k = 1, 60 do s = bp.sin(s) + k end
        return s
      end)(0.5)
    end),
    case("many operands", function()
      return bp.grad(function(s)
        local list = {}
        for k = 1, 20 do list[k] = s * k end
        return bp.sum(bp.stack(list) * bp.concat(bp.rows(bp.reshape(bp.stack(list), 20, 1))))
      end)(0.5)
    end),
    case("in a coroutine that is dropped", function()
      local dropped = coroutine.wrap(function()
        return bp.grad(function(a)
          local b = a * u
          coroutine.yield(1)
          return bp.sum(b)
        end)(v)
      end)
      return { dropped(), bp.grad(function(a) return bp.sum(a * a) end)(v) }
    end),
    case("caught inside", function()
      return bp.grad(function(a)
        local _, message = pcall(bp.matmul, a, a)
        if message == "not enough memory" then error(message, 0) end
        return bp.sum(a * a)
      end)(v)
    end),
  }
end)

part("operations by hand", function()
  local square = bp.op(function(a) return a * a, function(g) return g * 2 * a end end)
  local both = bp.op{
    name = "both", forward = function(p, s)
      return { sum = p.a * s + p.b, dot = bp.dot(p.a, p.b) }, function(g)
        return { a = g.sum * s + g.dot * p.b, b = g.sum + g.dot * p.a }, bp.sum(g.sum * p.a)
      end
    end,
  }
  local p = { a = bp.vector{ 1, 2 }, b = bp.vector{ 3, 4 } }
  local swap = bp.iso(function(q) return { a = q.b, b = q.a } end, function(q) return { a = q.b, b = q.a } end)

  local Complex = {}
  bp.instance(Complex, {
    zero = function() return setmetatable({ 0, 0 }, Complex) end,
    one = function() return setmetatable({ 1, 1 }, Complex) end,
    add = function(c, d) return setmetatable({ c[1] + d[1], c[2] + d[2] }, Complex) end,
    scale = function(c, s) return setmetatable({ c[1] * s, c[2] * s }, Complex) end,
  })
  local size = bp.op(function(c)
    return c[1] ^ 2 + c[2] ^ 2, function(g) return setmetatable({ 2 * g * c[1], 2 * g * c[2] }, Complex) end
  end)
  return {
    case("whose pullback multiplies", function()
      local layer = bp.op(function(w, x) return bp.matmul(w, x), function(d)
        local g = bp.outer(d, x)
        return bp.matmul(bp.outer(d, d), bp.outer(d, x)) + g, bp.matmul(d, w)
      end end)
      local square_of = bp.op(function(w) return bp.sum(w * w), function(d) return bp.matmul(d * w, bp.eye(2)) end end)
      local function f(q) return bp.sum(layer(q[1], p.a)) + square_of(q[1]) end
      local q = { bp.matrix{ { 1, 2 }, { 3, 4 } } }
      local g = bp.grad(f)(q)
      bp.optim.sgd{ lr = 0.1 }:minimize(f, q)
      return { g, q }
    end),
    case("of a step that waits, and is made while weights are read", function()
      local sgd, q, x = bp.optim.sgd{ lr = 0.5 }, { w = bp.full(0.1, 40, 30) }, bp.linspace(0, 1, 30)
      local function loss(r) return bp.sum(bp.matmul(r.w, x) ^ 2) end
      local first, second = sgd:minimize(loss, q), sgd:minimize(loss, q)
      return { first, second, bp.sum(q.w), q.w[3] }
    end),
    case("that writes to a factor which a step keeps", function()
      local x = bp.vector{ 1, 2 }
      local later = bp.op(function(s) return s * 1, function(d)
        x:fill(9)
        return d
      end end)
      local q = { w = bp.eye(2), s = 2.0 }
      bp.optim.sgd{ lr = 0.5 }:minimize(function(r)
        local s = later(r.s)
        return bp.sum(bp.matmul(r.w, x)) * s
      end, q)
      return q
    end),
    -- A finalizer, which runs where memory is short, has looked at the product and holds a row of it.
    case("whose product a finalizer finds", function()
      local found
      local f = bp.op(function(w) return bp.sum(w), function(d)
        local product = bp.outer(d * p.a, p.b)
        setmetatable({}, { __gc = function() pcall(function() found = product[1] end) end })
        return product
      end end)
      local g = bp.grad(function(w) return bp.sum(w * w) + f(w) end)(bp.eye(2))
      return { g, found == nil or found == bp.vector{ 3, 4 } }
    end),
    case("made", function()
      local cube = bp.op(function(a) return a ^ 3, function(g) return g * 3 * a ^ 2 end end)
      return bp.grad(function(a) return bp.sum(cube(a)) end)(bp.vector{ 1, 2 })
    end),
    case("of an array", function() return bp.grad(function(a) return bp.sum(square(square(a))) end)(p.a) end),
    case("of structures", function()
      return { bp.grad(function(q, s)
        local r = both(swap(q), s)
        return bp.sum(r.sum * r.sum) * r.dot
      end, { wrt = { 1, 2 } })(p, 3) }
    end),
    case("of instances", function()
      local g = bp.grad(function(c) return size(c) * size(c) end)(setmetatable({ 1, 2 }, Complex))
      return { g[1], g[2] }
    end),
    case("without a gradient", function() return bp.nograd(function(a) return a * 2 end)(p.a) end),
  }
end)

part("an operation in C", function()
  local smooth_l1 = require("robust").smooth_l1
  local v, u = bp.vector{ 0.5, 3, -4, 1 }, bp.vector{ 0, 0, 0, 1 }
  return {
    case("called", function() return { smooth_l1(v, u), smooth_l1(3.0, 1.2) } end),
    case("refused", function()
      local _, message = pcall(smooth_l1, v, u, -1)
      if message == "not enough memory" then error(message, 0) end
      return message
    end),
    case("differentiated", function()
      return bp.grad(function(a) return bp.sum(smooth_l1(a * 2, a, 0.7)) end)(bp.matrix{ { 1, 2.1 }, { -0.3, 4 } })
    end),
  }
end)

-- ---- training -------------------------------------------------------------------------------------------------------

-- A step either happened or did not: all parameters are as before it or as after it, and so is what the optimiser
-- keeps, for the steps that follow it lead where they should.
local function step_case(name, make, steps_before, step)
  local function start()
    local net, loss = make_net()
    local at = { opt = make(), params = { net = net, list = { 1.5, bp.vector{ 1, 2 } } } }
    function at.loss(p) return loss(p.net, inputs, classes) + p.list[1] ^ 2 * bp.sum(p.list[2]) end
    for _ = 1, steps_before do step(at) end
    return at
  end
  local function after(count)
    local at = start()
    for _ = 1, count do step(at) end
    return fingerprint(at.params)
  end
  local places = { [after(0)] = 0, [after(1)] = 1 }
  local third = after(3)
  return case(name, function(at)
    step(at)
    return at.params
  end, start, function(at, completed)
    local taken = places[fingerprint(at.params)]
    assert(taken, "some parameters have been updated, others not")
    assert(not completed or taken == 1, "the step was not made")
    for _ = taken + 1, 3 do step(at) end
    assert(fingerprint(at.params) == third, "the steps after it lead elsewhere")
  end)
end

part("training", function()
  local function minimize(at) at.opt:minimize(at.loss, at.params) end
  local function step(at) at.opt:step(at.params, bp.grad(at.loss)(at.params)) end
  local optimisers = {
    { "sgd", function() return bp.optim.sgd{ lr = 0.1 } end },
    { "momentum", function() return bp.optim.sgd{ lr = 0.1, momentum = 0.9, weight_decay = 0.01 } end },
    { "nesterov", function() return bp.optim.sgd{ lr = 0.1, momentum = 0.9, nesterov = true } end },
    { "adam", function() return bp.optim.adam{ lr = 0.1 } end },
    { "adamw", function() return bp.optim.adamw{ lr = 0.1 } end },
    { "rmsprop", function() return bp.optim.rmsprop{ lr = 0.1 } end },
    { "adagrad", function() return bp.optim.adagrad{ lr = 0.1 } end },
  }
  local cases = {}
  for _, optimiser in ipairs(optimisers) do
    for before = 0, 1 do
      local name = ("%s, step %d"):format(optimiser[1], before + 1)
      cases[#cases + 1] = step_case(name .. ", minimize", optimiser[2], before, minimize)
      cases[#cases + 1] = step_case(name .. ", step", optimiser[2], before, step)
    end
  end
  return cases
end)

-- ---- checking and profiling -----------------------------------------------------------------------------------------

part("tools", function()
  local net, loss = make_net()
  local f = function(a) return bp.sum(bp.exp(a) * a) end
  local shown = print
  return {
    case("check", function() return bp.check(f, bp.vector{ 0.5, 2 }) end),
    case("profile", function()
      local rows, list = bp.profile(loss, net, inputs, classes), {}
      for k, row in ipairs(rows) do list[k] = row.op .. row.calls .. " " .. row.bytes end
      table.sort(list)
      return list
    end, function() print = function() end end, function() print = shown end), -- luacheck: ignore 121
    case("rows", function() return #bp.ops() end),
    case("stats", function() return bp.stats().bytes_live end),
  }
end)

-- ---- data -----------------------------------------------------------------------------------------------------------

local function write(bytes)
  local path = os.tmpname()
  local file <close> = assert(io.open(path, "wb"))
  assert(file:write(bytes))
  return path
end

part("data", function()
  local csv = "a,b,c\n1,2,3\n4.5,-5,6e1\n"
  local idx = "\0\0\8\2\0\0\0\2\0\0\0\3\1\2\3\4\5\6"
  local function reader(name, bytes, read)
    return case(name, read, function() return { path = write(bytes) } end, function(file) os.remove(file.path) end)
  end
  return {
    reader("csv", csv, function(file) return { bp.data.csv(file.path) } end),
    reader("csv, f32", csv, function(file) return { bp.data.csv(file.path, { dtype = "f32" }) } end),
    reader("csv, malformed", csv .. "7,8\n", function(file)
      local _, message = pcall(bp.data.csv, file.path)
      if message == "not enough memory" then error(message, 0) end
      return message:gsub(file.path, "the file", 1)
    end),
    reader("idx", idx, function(file) return { bp.data.idx(file.path) } end),
  }
end)

return parts
