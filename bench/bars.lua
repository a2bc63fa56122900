-- The bars of the benchmark, all of them, held against what bench/results/ says; prints a table that ends every
-- `make bench` and writes bars.csv.
--
--   lua5.4 bench/bars.lua [--results bench/results]
--
-- A bar: what it says; file, where its rows are; where(row), whether a row is held against it; value(row, rows), the
-- number that must be at most or at least so much. The worst row counts, and `case` names it; a bar without rows was
-- not measured.

package.path = (arg[0]:match("^(.*/)") or "./") .. "?.lua;" .. package.path
local csv = require "csv"
local option = require "options".read{ results = "bench/results" }

local bars = {}

local function bar(what, file, where, value, limit)
  limit.what, limit.file, limit.where, limit.value = what, file, where, value
  bars[#bars + 1] = limit
end

local function one_of(words)
  local set = {}
  for word in words:gmatch("%S+") do set[word] = true end
  return function(word) return set[tostring(word)] end
end

-- ---- The programs in C ----

local tasks = { "run", "gradient", "descent" }

local function of_yardstick(row) return row.rate / row.yardstick_rate end
local function over_limit(row) return row.ratio_to_limit end
local function over_manual(row) return row.ratio_to_manual end

for _, task in ipairs(tasks) do
  bar(task .. ": limit of its sweep, batch 1", "mnist", function(row)
    return row.mode == "limit" and row.batch == 1 and row.task == task
  end, of_yardstick, { at_least = 0.85 })
end
for _, task in ipairs(tasks) do
  bar(task .. ": limit of a square product, batch 256", "mnist", function(row)
    return row.mode == "limit" and row.batch == 256 and row.task == task
  end, of_yardstick, { at_least = 0.85 })
end
for _, pair in ipairs{ { "gradient", 2.0 }, { "descent", 2.5 } } do
  bar(pair[1] .. ": manual / limit, batch 1", "mnist", function(row)
    return row.mode == "manual" and row.batch == 1 and row.task == pair[1]
  end, over_limit, { at_most = pair[2] })
end

-- ---- The step: modes, dtypes, batches, and what run, gradient and descent may take ----

for _, line in ipairs{
  { "lens fields", "f64", "1", 1.10, 1.10, 1.10 },
  { "fused", "f64", "1", 1.05, 1.05, 1.05 },
  { "lens fields", "f32", "1", 1.20, 1.15, 1.15 },
  { "hybrid", "f64 f32", "1", 1.15, 1.35, 1.90 },
  { "lens fields hybrid fused", "f64 f32", "64 256", 1.05, 1.05, 1.05 },
} do
  local is_mode, is_dtype, is_batch = one_of(line[1]), one_of(line[2]), one_of(line[3])
  for k, task in ipairs(tasks) do
    bar(("%s: %s / limit, %s, batch %s"):format(task, line[1], line[2], line[3]), "mnist", function(row)
      return row.task == task and is_mode(row.mode) and is_dtype(row.dtype) and is_batch(row.batch)
    end, over_limit, { at_most = line[3 + k] })
  end
end
for _, task in ipairs{ "gradient", "descent" } do
  bar(task .. ": lens / manual, batch 1", "mnist", function(row)
    return row.task == task and row.mode == "lens" and row.batch == 1
  end, over_manual, { at_most = 0.95 })
end

-- ---- Two threads; 5 % are the timing's own ----

local in_lua = one_of "lens fields hybrid fused"

bar("two threads / one, batch 256, f32: times as fast", "threads", function(row)
  return row.threads == 2 and row.batch == 256 and row.dtype == "f32" and in_lua(row.mode)
end, function(row) return 1 / row.ratio_to_one_thread end, { at_least = 1.6 })
bar("two threads / one, batch 1: time", "threads", function(row)
  return row.threads == 2 and row.batch == 1 and in_lua(row.mode)
end, function(row) return row.ratio_to_one_thread end, { at_most = 1.05 })

-- ---- Small things ----

local function overhead(what, where, value, limit) bar(what, "overhead", where, value, limit) end

overhead("chain of numbers: ns per operation", function(row)
  return row.kind == "numbers" or row.kind == "tracked"
end, function(row) return row.per_operation_ns end, { at_most = 150 })
for _, size in ipairs{ 10, 100 } do
  overhead(("chain of vectors of %d: ns per operation over C"):format(size), function(row)
    return row.kind == "vectors" and row.size == size
  end, function(row) return row.over_ns end, { at_most = 150 })
end
for _, pair in ipairs{ { 1000, 1.3 }, { 10000, 1.1 } } do
  overhead(("chain of vectors of %d: / C"):format(pair[1]), function(row)
    return row.kind == "vectors" and row.size == pair[1]
  end, function(row) return row.ratio end, { at_most = pair[2] })
end

local is_record = one_of "flat nested"

overhead("records: a leaf of 300 / a leaf of 30", function(row) return is_record(row.kind) and row.size == 300 end,
  function(row, rows)
    for _, other in ipairs(rows) do
      if other.kind == row.kind and other.reads == row.reads and other.size == 30
        and (other.unread > 0) == (row.unread > 0) then return row.per_leaf_ns / other.per_leaf_ns end
    end
  end, { at_most = 1.2 })
overhead("records: additions, off what is promised", function(row) return is_record(row.kind) end,
  function(row) return math.abs(row.additions - row.promised_additions) end, { at_most = 0 })
overhead("records: zero fills, off what is promised", function(row) return is_record(row.kind) end,
  function(row) return math.abs(row.zero_fills - row.promised_zero_fills) end, { at_most = 0 })

-- ---- Memory ----

for _, batch in ipairs{ 1, 256 } do
  bar(("resident memory after step 100, batch %d: MB grown"):format(batch), "memory",
    function(row) return row.batch == batch end, function(row) return row.growth_kb / 1024 end, { at_most = 2 })
end

-- ---- Judging ----

local names = { "task", "mode", "kind", "collector", "way", "dtype", "batch", "size", "reads", "unread", "steps" }

-- What tells a row from the others of its bar.
local function case_of(row)
  local words = {}
  for _, name in ipairs(names) do
    if row[name] and row[name] ~= "" then
      words[#words + 1] = type(row[name]) == "number" and ("%s %g"):format(name, row[name]) or row[name]
    end
  end
  return table.concat(words, " ")
end

local files = {}
local function judge(b)
  files[b.file] = files[b.file] or csv.read(("%s/%s.csv"):format(option.results, b.file))
  local worst, worst_row
  for _, row in ipairs(files[b.file]) do
    if b.where(row) then
      local value = b.value(row, files[b.file])
      local worse = not worst or value ~= value or b.at_most and value > worst or b.at_least and value < worst
      if worse then worst, worst_row = value, row end
    end
  end
  if not worst then return "not measured" end
  local holds = b.at_most and worst <= b.at_most or b.at_least and worst >= b.at_least
  return holds and "ok" or "MISS", worst, case_of(worst_row)
end

local write = csv.writer(option.results .. "/bars.csv", { "bar", "sense", "limit", "measured", "verdict",
  "worst_case" })
local count = {}
print(("\n%-66s %10s %10s  %-12s %s"):format("bar", "wanted", "measured", "", "worst case"))
for _, b in ipairs(bars) do
  local verdict, measured, case = judge(b)
  count[verdict] = (count[verdict] or 0) + 1
  print(("%-66s %3s %6.4g %10s  %-12s %s"):format(b.what, b.at_most and "<=" or ">=", b.at_most or b.at_least,
    measured and ("%.3g"):format(measured) or "", verdict, case or ""))
  write{ bar = b.what:gsub(",", ";"), sense = b.at_most and "at most" or "at least", limit = b.at_most or b.at_least,
    measured = measured, verdict = verdict, worst_case = case }
end
print(("%d bars hold, %d are missed, %d were not measured"):format(count.ok or 0, count.MISS or 0,
  count["not measured"] or 0))
