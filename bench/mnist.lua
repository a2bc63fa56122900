-- The benchmark: a step of the 784 x 300 x 100 x 10 network with logistic hidden layers, softmax and cross entropy,
-- in six modes (bench/modes.lua), on random weights and data. First all modes must agree, then they are timed, one
-- among the other.
--
--   lua5.4 bench/mnist.lua [--modes limit,manual,lens,fields,hybrid,fused] [--tasks run,gradient,descent]
--     [--dtype f64,f32] [--batch 1,64,256] [--threads 1,2] [--csv FILE] [--rounds N] [--seconds S]
--     [--square N] [--result into|release|drop]
--
-- --seconds ends the rounds of a task early; --result says whether the modes in Lua write each gradient into the last,
-- release it or leave it to the collector. With several numbers of threads each is timed among the others, and held
-- against one. Where mode limit runs, it is held against the machine: at batch 1 plain sweeps over the bytes that the
-- task touches when it ends with the weights written (read the weights; read them and write as many; read them, then
-- read and write them), else a square product of --square rows, measured in the same rounds. The library's descent may
-- leave the update of the weights to the next forward, and go below that; they are looked at where modes are compared.

package.path = (arg[0]:match("^(.*/)") or "./") .. "?.lua;" .. package.path
local options = require "options"
local baseline = require "baseline"
local csv = require "csv"
local modes = require "modes"
local problems = require "problem"
local timing = require "timing"

local option = options.read{
  modes = "limit,manual,lens,fields,hybrid,fused",
  tasks = "run,gradient,descent",
  dtype = "f64", batch = "1", threads = "1", csv = "", rounds = 51, seconds = 20.0, square = 512, result = "into",
}

local bytes = { f64 = 8, f32 = 4 }
local task_names = { run = "run", gradient = "gradient", descent = "descent in place" }
local function count(word)
  local n = math.tointeger(tonumber(word))
  return n and n >= 1 and n or nil
end
local function words(name, known) return options.words(option, name, known) end
local mode_list = words("modes", function(word) return modes[word] and word end)
local task_list = words("tasks", function(word) return task_names[word] and word end)
local dtype_list = words("dtype", function(word) return bytes[word] and word end)
local batch_list, threads_list = words("batch", count), words("threads", count)
local width = problems.width

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
    local problem, reference = problems.new(dtype, batch, option.result, sum_to_one), nil
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

-- ---- What a task touches ----

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

local function ratio(time, reference) return reference and time.median / reference.median or nil end

local write = csv.writer(option.csv, { "task", "mode", "dtype", "batch", "threads", "median_us", "min_us",
  "ratio_to_manual", "ratio_to_limit", "ratio_to_one_thread", "mean_us", "rate", "yardstick_rate", "rate_unit" })

local function report(row)
  local function shown(value) return value and ("%.2f"):format(value) or "" end
  print(("%-18s %7d %11.1f %11.1f %11.1f %9s %9s %9s %9.1f"):format(row.mode, row.threads, row.median_us, row.min_us,
    row.mean_us, shown(row.ratio_to_manual), shown(row.ratio_to_limit), shown(row.ratio_to_one_thread), row.rate))
  write(row)
end

-- Times one task of all modes, with each number of threads, among each other.
local function measure(task, dtype, batch, made)
  local jobs, calls, stick = {}, {}, yardstick(task, dtype, batch)
  local function add(mode, threads, call)
    jobs[#jobs + 1], calls[#calls + 1] = { mode = mode, threads = threads }, call
  end
  for _, threads in ipairs(threads_list) do
    for _, name in ipairs(mode_list) do add(name, threads, made[name][task]) end
    if made.limit then add("yardstick", threads, stick.call) end
  end
  -- OpenBLAS is one for the library and the programs in C.
  local times = timing.interleave(calls, { rounds = option.rounds, seconds = option.seconds, block = 0.004,
    before = function(i) baseline.set_threads(jobs[i].threads) end })
  local by_mode = {}
  for i, job in ipairs(jobs) do
    by_mode[job.threads] = by_mode[job.threads] or {}
    by_mode[job.threads][job.mode] = times[i]
  end

  print(("\n%-18s %7s %11s %11s %11s %9s %9s %9s %9s"):format(task_names[task], "threads", "median us", "min us",
    "mean us", "/ manual", "/ limit", "/ one", stick.unit))
  for i, job in ipairs(jobs) do
    local time, beside = times[i], by_mode[job.threads]
    local yard = beside.yardstick and stick.own_work / beside.yardstick.median / 1000
    if job.mode == "yardstick" then
      print(("%-18s %7d %11.1f %11.1f %11.1f %39.1f   limit reaches %.0f %% of it"):format(stick.name, job.threads,
        time.median, time.min, time.mean, yard, 100 * stick.work / beside.limit.median / 1000 / yard))
    else
      local one = job.threads > 1 and by_mode[1]
      report{ task = task, mode = job.mode, dtype = dtype, batch = batch, threads = job.threads,
        median_us = time.median, min_us = time.min, mean_us = time.mean, ratio_to_manual = ratio(time, beside.manual),
        ratio_to_limit = ratio(time, beside.limit), ratio_to_one_thread = one and ratio(time, one[job.mode]) or nil,
        rate = stick.work / time.median / 1000, yardstick_rate = yard, rate_unit = stick.unit }
    end
  end
end

print("OpenBLAS with its kernels for " .. require "backprop.core".blas())
for _, dtype in ipairs(dtype_list) do
  for _, batch in ipairs(batch_list) do
    check(dtype, batch)
    local problem, made = problems.new(dtype, batch, option.result, true), {}
    for _, name in ipairs(mode_list) do made[name] = modes[name](problem) end
    problem = nil -- luacheck: ignore 311
    collectgarbage()
    print(("\n784 x 300 x 100 x 10, %s, batch %d; all modes agree"):format(dtype, batch))
    for _, task in ipairs(task_list) do measure(task, dtype, batch, made) end
  end
end
