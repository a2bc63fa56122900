-- Long runs of descent: does memory stay where it is, and how long is the longest step? Every run is a process of its
-- own: each way of a step (opt:minimize; value_and_grad, whose gradients are dropped, then opt:step) under each
-- collector, at batch 1 and at batch 256 with a live Lua heap of 200 MB beside it. The collector is chosen and never
-- called. Resident memory is sampled from step 100 on; each of the last 1,000 steps is timed, and beside it the same
-- step of bench/limit.c.
--
--   lua5.4 bench/memory.lua [--steps N] [--mode fields] [--dtype f64] [--batch 1,256] [--heap MB]
--     [--ways minimize,step] [--collectors incremental,generational] [--csv FILE]
--
-- --steps is of batch 1; batch 256 does a fiftieth, but at least 200. CSV: growth_kb is the
-- largest growth seen after step 100, resident_kb what was resident then; times in microseconds.

package.path = (arg[0]:match("^(.*/)") or "./") .. "?.lua;" .. package.path
local options = require "options"
local option = options.read{
  steps = 100000, mode = "fields", dtype = "f64", batch = "1,256", heap = 200, ways = "minimize,step",
  collectors = "incremental,generational", csv = "", run = "",
}
local columns = { "batch", "heap_mb", "collector", "way", "steps", "resident_kb", "growth_kb", "median_us",
  "longest_us", "c_median_us", "c_longest_us" }

-- ---- One run, in a process of its own: --run "batch steps heap collector way" ----

local function resident_kb()
  local file <close> = assert(io.open("/proc/self/status"))
  return tonumber(file:read("a"):match("VmRSS:%s*(%d+) kB"))
end

-- A live heap of small tables, as the collector likes them least: none holds more than 100 entries.
local function live_heap(megabytes)
  local heap, enough = nil, resident_kb() + 1024 * megabytes
  while resident_kb() < enough do
    local branch = {}
    for i = 1, 100 do
      local leaf = {}
      for k = 1, 100 do leaf[k] = k end
      branch[i] = leaf
    end
    heap = { branch, heap }
  end
  return heap
end

local function run(batch, steps, heap_mb, collector, way)
  collectgarbage(collector)
  local modes, timing, clock = require "modes", require "timing", require "baseline".clock
  local problem = require "problem".new(option.dtype, batch, "drop", true)
  local library, c = modes[option.mode](problem), modes.limit(problem)
  local step, c_step = way == "minimize" and library.descent or library.step, c.descent
  local heap = live_heap(heap_mb)
  local times, c_times, at_first, largest = {}, {}, nil, 0
  local sampled = math.max(1, (steps - 100) // 100)
  local function timed(call, list)
    local start = clock()
    call()
    list[#list + 1] = clock() - start
  end
  c_step()
  for k = 1, steps do
    if k > math.max(100, steps - 1000) then
      timed(c_step, c_times)
      timed(step, times)
    else
      step()
    end
    if k == 100 then
      at_first = resident_kb()
    elseif k > 100 and (k - 100) % sampled == 0 then
      largest = math.max(largest, resident_kb() - at_first)
    end
  end
  assert(heap_mb == 0 or heap[1])
  local mine, others = timing.summary(times), timing.summary(c_times)
  print(table.concat({ batch, heap_mb, collector, way, steps, at_first, largest, mine.median, mine.max, others.median,
    others.max }, " "))
end

if option.run ~= "" then
  local batch, steps, heap, collector, way = option.run:match("(%d+) (%d+) (%d+) (%a+) (%a+)")
  run(math.tointeger(batch), math.tointeger(steps), math.tointeger(heap), collector, way)
  return
end

-- ---- All of them ----

local interpreter = arg[-1]
local function quoted(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local function child(...)
  local command = table.concat({ quoted(interpreter), quoted(arg[0]), "--dtype", option.dtype, "--mode", option.mode,
    "--run", quoted(table.concat({ ... }, " ")) }, " ")
  local pipe = assert(io.popen(command))
  local answer = pipe:read("a")
  assert(pipe:close(), "a run failed")
  local row, k = {}, 0
  for word in answer:gmatch("%S+") do
    k = k + 1
    row[columns[k]] = tonumber(word) or word
  end
  return row
end

local function set(...)
  local known = {}
  for _, word in ipairs{ ... } do known[word] = word end
  return function(word) return known[word] end
end

local write = require "csv".writer(option.csv, columns)
local ways = options.words(option, "ways", set("minimize", "step"))
local collectors = options.words(option, "collectors", set("incremental", "generational"))
local batches = options.words(option, "batch", function(word) return math.tointeger(tonumber(word)) end)

print(("descent of 784 x 300 x 100 x 10, %s, mode %s: resident memory after step 100, and the last steps"):format(
  option.dtype, option.mode))
print(("%6s %8s %-12s %-9s %8s %12s %10s %10s %10s %10s %10s"):format("batch", "heap MB", "collector", "way", "steps",
  "resident kB", "growth kB", "median us", "longest", "C median", "longest"))
for _, batch in ipairs(batches) do
  local steps, heap = option.steps, 0
  if batch > 1 then steps, heap = math.max(200, steps // 50), option.heap end
  for _, collector in ipairs(collectors) do
    for _, way in ipairs(ways) do
      local row = child(batch, steps, heap, collector, way)
      write(row)
      print(("%6d %8d %-12s %-9s %8d %12d %10d %10.1f %10.1f %10.1f %10.1f"):format(row.batch, row.heap_mb,
        row.collector, row.way, row.steps, row.resident_kb, row.growth_kb, row.median_us, row.longest_us,
        row.c_median_us, row.c_longest_us))
    end
  end
end
