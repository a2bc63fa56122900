-- Timing of several jobs against each other on a machine that others use too: short blocks of calls, one job after the
-- other, many rounds, so that a slow moment hits all alike. Each round has another order, so that none comes after the
-- same one every time. What counts is the median of the blocks' means.

local clock = require "baseline".clock

local timing = {}

local function block(call, count)
  local start = clock()
  for _ = 1, count do call() end
  return (clock() - start) / count
end

-- How many calls fill a block: the time of a call is the smallest of a few.
local function calls_per_block(call, seconds)
  local fastest = math.huge
  for _ = 1, 3 do fastest = math.min(fastest, block(call, 1)) end
  return math.max(2, math.ceil(seconds / fastest))
end

-- Of a list of seconds, which it sorts, in microseconds.
function timing.summary(times)
  local sum = 0
  for _, time in ipairs(times) do sum = sum + time end
  table.sort(times)
  local middle = #times // 2
  local median = #times % 2 == 1 and times[middle + 1] or (times[middle] + times[middle + 1]) / 2
  return { median = 1e6 * median, min = 1e6 * times[1], max = 1e6 * times[#times], mean = 1e6 * sum / #times }
end

-- Times a list of functions. Options: rounds; seconds, where the rounds end at the latest (not before the seventh);
-- block, the seconds of one block; before, a function of a call's place in the list, called before each of its blocks.
-- Returns a list of { median, min, max, mean } of the blocks, in microseconds per call.
-- Two calls before each block are not timed: they bring the job's own data back into the caches.
function timing.interleave(calls, options)
  local count, times = {}, {}
  local before = options.before or function() end
  for i, call in ipairs(calls) do
    before(i)
    count[i], times[i] = calls_per_block(call, options.block), {}
  end
  local start, order = clock(), {}
  for i = 1, #calls do order[i] = i end
  for round = 1, options.rounds do
    for k = #order, 2, -1 do
      local other = math.random(k)
      order[k], order[other] = order[other], order[k]
    end
    for _, i in ipairs(order) do
      before(i)
      calls[i]()
      calls[i]()
      times[i][round] = block(calls[i], count[i])
    end
    if round >= 7 and clock() - start > options.seconds then break end
  end
  local summaries = {}
  for i, list in ipairs(times) do summaries[i] = timing.summary(list) end
  return summaries
end

return timing
