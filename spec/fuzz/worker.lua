-- A process of the fuzzer's own, so that a crash ends only this one:
--
--   lua worker.lua batch FROM COUNT NOTE   judges the cases of COUNT seeds; NOTE holds the seed it is at
--   lua worker.lua case FILE               judges the case that FILE returns, alone
--
-- Prints a line "FAIL seed kind message" for each failure, with tabs between, and at the end "DONE cases compared".

package.path = "./spec/?.lua;" .. package.path
local cases = require "fuzz.cases"

local LEAK_EVERY = 16 -- cases between two looks at the live bytes

local function report(seed, kind, message)
  print(table.concat({ "FAIL", seed, kind, (tostring(message):gsub("[\n\t]", " ")) }, "\t"))
  io.stdout:flush()
end

local function batch(from, count, note)
  local before, first, compared = cases.live(), from, 0
  local progress <close> = assert(io.open(note, "w"))
  for seed = from, from + count - 1 do
    progress:seek("set")
    progress:write(("%20d"):format(seed))
    progress:flush()
    local kind, message = cases.judge(cases.generate(seed))
    if kind then report(seed, kind, message) else compared = compared + message end
    if seed - first + 1 == LEAK_EVERY or seed == from + count - 1 then
      local after = cases.live()
      if after ~= before then
        local found = false
        for one = first, seed do
          kind, message = cases.judge_alone(cases.generate(one))
          if kind == "leak" then
            found = true
            report(one, kind, message)
          end
        end
        if not found then report(first, "leak", ("of the %d seeds from here on, together"):format(LEAK_EVERY)) end
      end
      before, first = cases.live(), seed + 1
    end
  end
  print(("DONE\t%d\t%d"):format(count, compared))
end

if arg[1] == "batch" then
  batch(math.tointeger(arg[2]), math.tointeger(arg[3]), arg[4])
else
  local case = dofile(arg[2])
  local kind, message = cases.judge_alone(case)
  if kind then report(case.seed, kind, message) end
  print("DONE\t1\t0")
end
