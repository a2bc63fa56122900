-- The benchmark: a step of the 784 x 300 x 100 x 10 network with logistic hidden layers, softmax and cross entropy,
-- in six modes (bench/modes.lua), on random weights and data. First all modes must agree, then they are timed, one
-- among the other.
--
--   lua5.4 bench/mnist.lua [--modes limit,manual,lens,fields,hybrid,fused] [--tasks run,gradient,descent]
--     [--dtype f64,f32] [--batch 1,64,256] [--threads N] [--csv FILE] [--rounds N] [--seconds S]
--     [--square N] [--result into|release]
--
-- --seconds ends the rounds of a task early; --result says whether the modes in Lua write each gradient into the last
-- or release it. Where mode limit runs, it is held against the machine: at batch 1 plain sweeps over the bytes that
-- the task cannot avoid (read the weights; read them and write as many; read them, then read and write them), else a
-- square product of --square rows, measured in the same rounds.

-- What is not found otherwise is taken from the checkout that this script stands in.
local here = arg[0]:match("^(.*/)") or "./"
package.path = package.path .. ";" .. here .. "?.lua;" .. here .. "../lua/?.lua;" .. here .. "../lua/?/init.lua"
package.cpath = package.cpath .. ";" .. here .. "../lua/?.so;" .. here .. "../build/bench/?.so"

local baseline = require "baseline"
local modes = require "modes"
local timing = require "timing"

-- ---- The command line: every option takes a value of its default's type ----

local option = {
  modes = "limit,manual,lens,fields,hybrid,fused",
  tasks = "run,gradient,descent",
  dtype = "f64", batch = "1", threads = 1, csv = "", rounds = 51, seconds = 20.0, square = 512, result = "into",
}

for k = 1, #arg, 2 do
  local name, value = arg[k]:match("^%-%-(.+)"), arg[k + 1]
  local default = option[name]
  if type(default) == "number" then value = tonumber(value) end
  if math.type(default) == "integer" then value = math.tointeger(value) end
  if not default or not value then error("no such option, or no fitting value for it: " .. arg[k], 0) end
  option[name] = value
end

-- The words of a comma-separated option; each must be a key of `known`.
local function words(name, known)
  local list = {}
  for word in option[name]:gmatch("[^,]+") do
    if not known(word) then error(("--%s: unknown: %s"):format(name, word), 0) end
    list[#list + 1] = word
  end
  return list
end

local bytes = { f64 = 8, f32 = 4 }
local task_names = { run = "run", gradient = "gradient", descent = "descent in place" }
local mode_list = words("modes", function(word) return modes[word] end)
local task_list = words("tasks", function(word) return task_names[word] end)
local dtype_list = words("dtype", function(word) return bytes[word] end)
local batch_list = words("batch", function(word) return (math.tointeger(tonumber(word)) or 0) >= 1 end)

-- ---- The problem ----

local width = { 784, 300, 100, 10 }

local function uniform(a, b, n)
  local list = {}
  for i = 1, n do list[i] = a + (b - a) * math.random() end
  return list
end

local function matrix(a, b, rows, cols)
  local list = {}
  for i = 1, rows do list[i] = uniform(a, b, cols) end
  return list
end

-- Targets that sum to one, or to anything.
local function new_problem(dtype, batch, sum_to_one)
  math.randomseed(784)
  local problem = { dtype = dtype, batch = batch, result = option.result, layers = {} }
  for l = 1, #width - 1 do
    problem.layers[l] = { w = matrix(-0.5, 0.5, width[l + 1], width[l]), b = uniform(-0.5, 0.5, width[l + 1]) }
  end
  problem.x, problem.target = matrix(0, 1, batch, width[1]), matrix(0, 1, batch, width[#width])
  for _, row in ipairs(problem.target) do
    local sum = 0
    for _, t in ipairs(row) do sum = sum + t end
    if sum_to_one then for j, t in ipairs(row) do row[j] = t / sum end end
  end
  if batch == 1 then problem.x, problem.target = problem.x[1], problem.target[1] end
  return problem
end

-- ---- All modes agree ----

-- The largest difference of two lists, by the largest element.
local function difference(list, reference)
  local worst, largest = 0, 0
  assert(#list == #reference, "lists of different lengths")
  for i, value in ipairs(list) do
    local gap = math.abs(value - reference[i])
    if gap > worst or gap ~= gap then worst = gap end -- a NaN stays
    largest = math.max(largest, math.abs(reference[i]))
  end
  return worst / largest
end

-- Everything that a mode computes, as a list of { what, values }.
local function results(mode)
  local list = { { "loss of run", { mode.run() } }, { "loss of gradient", { mode.gradient() } } }
  local function add(what, arrays)
    for i, values in ipairs(arrays) do
      list[#list + 1] = { ("%s of %s%d"):format(what, i % 2 == 1 and "w" or "b", (i + 1) // 2), values }
    end
  end
  add("gradient", mode.gradients())
  list[#list + 1] = { "loss of descent", { mode.descent() } }
  add("descent", mode.weights())
  return list
end

local function check(dtype, batch)
  local tolerance = dtype == "f64" and 1e-12 or 1e-4
  for _, sum_to_one in ipairs{ true, false } do
    local problem, reference = new_problem(dtype, batch, sum_to_one), nil
    for _, name in ipairs(mode_list) do
      local found = results(modes[name](problem))
      reference = reference or found
      for i, result in ipairs(found) do
        local gap = difference(result[2], reference[i][2])
        if gap > tolerance or gap ~= gap then
          error(("%s and %s differ: %s by %.2g (%s, batch %d, targets %s)"):format(name, mode_list[1], result[1], gap,
            dtype, batch, sum_to_one and "that sum to one" or "of any sum"), 0)
        end
      end
      collectgarbage()
    end
  end
end

-- ---- What a task cannot avoid ----

local parameters, products, inner_products = 0, 0, 0
for l = 1, #width - 1 do
  parameters = parameters + width[l + 1] * (width[l] + 1)
  products = products + width[l + 1] * width[l]
  if l > 1 then inner_products = inner_products + width[l + 1] * width[l] end
end

-- Passes over the parameters; multiplications and additions of the products.
local passes = { run = 1, gradient = 2, descent = 3 }
local operations = { run = 2 * products, gradient = 4 * products + 2 * inner_products }
operations.descent = operations.gradient

local function yardstick(task, dtype, batch)
  local sweeps = baseline.sweeps(dtype, parameters, option.square)
  if batch > 1 then
    return { name = ("product of %d rows"):format(option.square), unit = "GFLOP/s", work = batch * operations[task],
      own_work = 2 * option.square ^ 3, call = function() sweeps:gemm() end }
  end
  local sweep = {
    run = function() sweeps:read() end,
    gradient = function() sweeps:read() sweeps:write() end,
    descent = function() sweeps:read() sweeps:update() end,
  }
  local work = passes[task] * parameters * bytes[dtype]
  return { name = "sweep", unit = "GB/s", work = work, own_work = work, call = sweep[task] }
end

-- ---- Timing and printing ----

local function ratio(format, time, reference)
  return reference and format:format(time.median / reference.median) or ""
end

local function print_table(task, times, stick, stick_time)
  print(("\n%-18s %11s %11s %11s %9s %9s %9s"):format(task_names[task], "median us", "min us", "mean us", "/ manual",
    "/ limit", stick.unit))
  for _, name in ipairs(mode_list) do
    local time = times[name]
    print(("%-18s %11.1f %11.1f %11.1f %9s %9s %9.1f"):format(name, time.median, time.min, time.mean,
      ratio("%.2f", time, times.manual), ratio("%.2f", time, times.limit), stick.work / time.median / 1000))
  end
  if stick_time then
    local rate = stick.own_work / stick_time.median / 1000
    print(("%-18s %11.1f %11.1f %11.1f %29.1f   limit reaches %.0f %% of it"):format(stick.name, stick_time.median,
      stick_time.min, stick_time.mean, rate, 100 * stick.work / times.limit.median / 1000 / rate))
  end
end

local csv = option.csv ~= "" and assert(io.open(option.csv, "w"))
if csv then
  csv:write("task,mode,dtype,batch,threads,median_us,min_us,ratio_to_manual,",
    "ratio_to_limit,mean_us,rate,yardstick_rate,rate_unit\n")
end

local function write_csv(task, dtype, batch, times, stick, stick_time)
  for _, name in ipairs(mode_list) do
    local time = times[name]
    csv:write(("%s,%s,%s,%d,%d,%.3f,%.3f,%s,%s,%.3f,%.3f,%s,%s\n"):format(task, name, dtype, batch, option.threads,
      time.median, time.min, ratio("%.4f", time, times.manual), ratio("%.4f", time, times.limit), time.mean,
      stick.work / time.median / 1000,
      stick_time and ("%.3f"):format(stick.own_work / stick_time.median / 1000) or "", stick.unit))
  end
end

local function measure(task, dtype, batch, made)
  local calls, stick = {}, yardstick(task, dtype, batch)
  for i, name in ipairs(mode_list) do calls[i] = made[name][task] end
  if made.limit then calls[#calls + 1] = stick.call end
  local timed, times = timing.interleave(calls, { rounds = option.rounds, seconds = option.seconds, block = 0.004 }), {}
  for i, name in ipairs(mode_list) do times[name] = timed[i] end
  local stick_time = made.limit and timed[#timed]
  print_table(task, times, stick, stick_time)
  if csv then write_csv(task, dtype, batch, times, stick, stick_time) end
end

for _, dtype in ipairs(dtype_list) do
  for _, word in ipairs(batch_list) do
    local batch = math.tointeger(tonumber(word))
    check(dtype, batch)
    local problem, made = new_problem(dtype, batch, true), {}
    for _, name in ipairs(mode_list) do made[name] = modes[name](problem) end
    problem = nil -- luacheck: ignore 311
    collectgarbage()
    -- After loading the library, which sets threads too; OpenBLAS is one for all.
    baseline.set_threads(option.threads)
    print(("\n784 x 300 x 100 x 10, %s, batch %d, %d thread%s; all modes agree"):format(dtype, batch, option.threads,
      option.threads == 1 and "" or "s"))
    for _, task in ipairs(task_list) do measure(task, dtype, batch, made) end
  end
end
if csv then csv:close() end
