-- What the library costs where there is little to compute. Chains of multiply, add, sin and exp, forward and backward,
-- of numbers and of vectors, beside a C program that keeps every intermediate (bench/chain.c); and records of 3, 30 and
-- 300 numbers, flat and in three parts (of one number, of ten, of ten parts of ten), each field read once or ten times,
-- or every other field once, with the additions and zero fills that bp.stats counts. Every time is that of a whole call
-- of the gradient. Then what is done to whole records of small vectors: steps of optimisers, axpy, arithmetic.
--
--   lua5.4 bench/overhead.lua [--csv FILE] [--rounds N] [--seconds S]
--
-- CSV: kind is a chain of numbers, of tracked numbers (the constants too) or of vectors, a flat or nested record, or
-- what is done to one; size in elements or fields; reads of each field that is read; unread, the fields that are not;
-- operations, those recorded; library_us and c_us of a call; per_operation_ns; per_leaf_ns; over_ns, what an operation
-- takes beyond C; ratio to C; additions and zero_fills, and what the design promises.

package.path = (arg[0]:match("^(.*/)") or "./") .. "?.lua;" .. package.path
local options = require "options"
local option = options.read{ csv = "", rounds = 51, seconds = 20.0 }
local baseline = require "baseline"
local timing = require "timing"
local bp = require "backprop"

local write = require "csv".writer(option.csv, { "kind", "size", "reads", "unread", "operations", "library_us", "c_us",
  "per_operation_ns", "per_leaf_ns", "over_ns", "ratio", "additions", "promised_additions", "zero_fills",
  "promised_zero_fills" })

local function interleave(calls)
  return timing.interleave(calls, { rounds = option.rounds, seconds = option.seconds, block = 0.004 })
end

-- ---- Chains ----

local sin, exp = bp.sin, bp.exp

local function chain_of(rounds)
  return function(y, a, b)
    for _ = 1, rounds do y = exp(sin(y * a + b)) end
    return y
  end
end

local function agree(list, reference)
  for i, value in ipairs(reference) do
    assert(math.abs(list[i] - value) <= 1e-10 * math.abs(value), "the chains differ")
  end
end

-- A chain through the library and in C: of 1,000 operations, and of 100 where vectors are long, so that what is kept
-- stays in the caches.
local function chain(kind, size)
  local rounds = size < 1000 and 250 or 25
  local c = baseline.chain(size, rounds)
  local x, a, b = 0.5, 0.99, -0.99
  if size > 1 then x, a, b = bp.linspace(0.5, 1, size), bp.full(0.99, size), bp.full(-0.99, size) end
  local gradient = bp.grad(chain_of(rounds), { wrt = kind == "tracked" and { 1, 2, 3 } or { 1 } })
  bp.stats(true)
  local g = gradient(x, a, b)
  local operations = bp.stats().nodes
  assert(operations == 4 * rounds, "an operation is not one node")
  c:step()
  agree(size > 1 and g:totable() or { g }, c:gradient())
  return { kind = kind, size = size, operations = operations, call = function() gradient(x, a, b) end,
    c = function() c:step() end }
end

print("a chain of multiply, add, sin and exp, forward and backward; ns per operation")
print(("%-10s %8s %10s %10s %10s %10s %8s"):format("", "elements", "operations", "library", "C", "over C", "/ C"))
for _, case in ipairs{ chain("numbers", 1), chain("tracked", 1), chain("vectors", 10), chain("vectors", 100),
  chain("vectors", 1000), chain("vectors", 10000) } do
  local times = interleave{ case.call, case.c }
  local library, c = times[1].median, times[2].median
  local each, each_c = 1000 * library / case.operations, 1000 * c / case.operations
  print(("%-10s %8d %10d %10.1f %10.1f %10.1f %8.2f"):format(case.kind, case.size, case.operations, each, each_c,
    each - each_c, library / c))
  write{ kind = case.kind, size = case.size, operations = case.operations, library_us = library, c_us = c,
    per_operation_ns = each, over_ns = each - each_c, ratio = library / c }
end

-- ---- Records ----

-- A type with as many fields, the names of their paths, and a value.
local function flat(size)
  local names, values = {}, {}
  for i = 1, size do names[i], values["f" .. i] = "f" .. i, 1 / i end
  local Type = bp.record("Flat" .. size, table.unpack(names))
  return Type, names, Type(values)
end

-- Three parts of a third of the fields each: flat ones, or from a hundred on ten parts of ten.
local function parts(size, count, make)
  local Part, inner, part = make(size // count)
  local fields, names, values = {}, {}, {}
  for i = 1, count do
    local name = "p" .. i
    fields[i], values[name] = { name, Part }, bp.map(function(x) return x end, part)
    for _, rest in ipairs(inner) do names[#names + 1] = name .. "." .. rest end
  end
  local Type = bp.record("Parts" .. size, table.unpack(fields))
  return Type, names, Type(values)
end

local function nested(size)
  return parts(size, 3, size < 300 and flat or function(third) return parts(third, 10, flat) end)
end

-- The sum of the fields, each read as often as asked, or every other one, written out as a user would.
local function summing(names, reads, step)
  local lines = { "return function(r) local s = 0" }
  for _ = 1, reads do
    for i = 1, #names, step do lines[#lines + 1] = ("s = s + r.%s"):format(names[i]) end
  end
  lines[#lines + 1] = "return s end"
  return assert(load(table.concat(lines, "\n")))()
end

local function record(kind, size, reads, step)
  local _, names, value = (kind == "flat" and flat or nested)(size)
  local used = (size + step - 1) // step
  assert(#names == size)
  local gradient = bp.grad(summing(names, reads, step))
  bp.stats(true)
  local g = gradient(value)
  local stats = bp.stats()
  local sum = 0
  for _, leaf in ipairs(bp.leaves(g)) do sum = sum + leaf end
  assert(sum == used * reads, "a wrong gradient")
  return { call = function() gradient(value) end, row = { kind = kind, size = size, reads = reads,
    unread = size - used, operations = used * reads, additions = stats.additions, zero_fills = stats.zero_fills,
    promised_additions = used * (reads - 1), promised_zero_fills = size - used } }
end

print("\nthe sum of a record's fields, forward and backward; ns per leaf and read, all told")
print(("%-10s %8s %8s %8s %10s %10s %10s %10s %10s %10s"):format("", "fields", "unread", "reads", "per leaf",
  "per read", "additions", "promised", "fills", "promised"))
local rows, calls = {}, {}
for _, pattern in ipairs{ { 1, 1 }, { 10, 1 }, { 1, 2 } } do
  for _, kind in ipairs{ "flat", "nested" } do
    for _, size in ipairs{ 3, 30, 300 } do
      local case = record(kind, size, table.unpack(pattern))
      rows[#rows + 1], calls[#calls + 1] = case.row, case.call
    end
  end
end
for i, time in ipairs(interleave(calls)) do
  local row = rows[i]
  row.library_us = time.median
  row.per_leaf_ns = 1000 * time.median / row.size
  row.per_operation_ns = 1000 * time.median / row.operations
  print(("%-10s %8d %8d %8d %10.1f %10.1f %10d %10d %10d %10d"):format(row.kind, row.size, row.unread, row.reads,
    row.per_leaf_ns, row.per_operation_ns, row.additions, row.promised_additions, row.zero_fills,
    row.promised_zero_fills))
  write(row)
end

-- ---- Steps ----

-- A record like another, of vectors of ten elements.
local function vectors(record_of_numbers)
  return bp.map(function() return bp.full(0.5, 10) end, record_of_numbers)
end

local function loss(net)
  local total = 0
  for _, leaf in ipairs(bp.leaves(net)) do total = total + bp.sum(leaf) end
  return total
end

local function steps(size)
  local _, _, value = nested(size)
  local net, gradient = vectors(value), vectors(value)
  local sgd, momentum, adam = bp.optim.sgd{ lr = 0 }, bp.optim.sgd{ lr = 0, momentum = 0.9 }, bp.optim.adam{ lr = 0 }
  local value_and_grad = bp.value_and_grad(loss, { into = bp.zero(net) })
  return {
    { "gradient", function() value_and_grad(net) end },
    { "sgd minimize", function() sgd:minimize(loss, net) end },
    { "adam minimize", function() adam:minimize(loss, net) end },
    { "sgd step", function() sgd:step(net, gradient) end },
    { "momentum step", function() momentum:step(net, gradient) end },
    { "adam step", function() adam:step(net, gradient) end },
    { "axpy", function() bp.axpy(0, gradient, net) end },
    { "net - 0.1 g", function() return net - 0.1 * gradient end },
  }
end

print("\nsteps of nested records of vectors of 10 elements; ns per vector, all told")
print(("%-14s %10s %10s %10s"):format("", "3", "30", "300"))
local tables = {}
for k, size in ipairs{ 3, 30, 300 } do
  local cases, functions = steps(size), {}
  for i, case in ipairs(cases) do functions[i] = case[2] end
  for i, time in ipairs(interleave(functions)) do
    local each = 1000 * time.median / size
    tables[i] = tables[i] or { cases[i][1] }
    tables[i][k + 1] = each
    write{ kind = cases[i][1], size = size, library_us = time.median, per_leaf_ns = each }
  end
end
for _, row in ipairs(tables) do print(("%-14s %10.1f %10.1f %10.1f"):format(table.unpack(row))) end
