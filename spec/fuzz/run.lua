-- The fuzzer: random programs and files, judged in processes of their own, for so many seconds.
--
--   lua spec/fuzz/run.lua SECONDS SEED FOLDER [first]
--
-- Where one fails, it is reduced to a short script, which is printed and written to FOLDER, and the exit code is 1;
-- with "first" the first failure ends it, as it is. The same seed gives the same program; a crash or a hang counts as a
-- failure of the seed it happened at.

package.path = "./spec/?.lua;" .. package.path
local cases = require "fuzz.cases"
local reduce = require "fuzz.reduce"

local BATCH = 160 -- seeds a process
local LIMITS = "ulimit -c 0; ulimit -v 4000000; exec timeout 60 " -- of a process: address space in KiB, seconds
local MOST_FAILURES = 5
local MOST_RUNS = 400 -- to reduce one failure

local interpreter = arg[-1] or "lua5.4"

-- Runs a worker. Returns its failures as a list of { seed, kind, message }, whether it came to its end, the numbers of
-- cases and comparisons, and how it ended otherwise.
local function work(...)
  local command = LIMITS .. interpreter .. " spec/fuzz/worker.lua " .. table.concat({ ... }, " ") .. " 2>&1"
  local pipe = assert(io.popen(command))
  local failures, ended, judged, compared, last = {}, false, 0, 0, ""
  for line in pipe:lines() do
    local seed, kind, message = line:match "^FAIL\t(%d+)\t([^\t]*)\t(.*)"
    if seed then failures[#failures + 1] = { seed = math.tointeger(seed), kind = kind, message = message } end
    local n, m = line:match "^DONE\t(%d+)\t(%d+)"
    if n then ended, judged, compared = true, math.tointeger(n), math.tointeger(m) end
    last = line
  end
  local _, how, code = pipe:close()
  return failures, ended, judged, compared, code == 124 and "hang" or ("crash (%s %d) %s"):format(how, code, last)
end

local function write(path, text)
  local file <close> = assert(io.open(path, "w"))
  file:write(text)
end

-- What a case fails with, in a process of its own: kind and message, or nil.
local function failure_of(case, folder)
  local path = folder .. "/case.lua"
  write(path, cases.write(case))
  local failures, ended, _, _, how = work("case", path)
  if not ended then return how:match "%a+", how end
  if failures[1] then return failures[1].kind, failures[1].message end
end

local function report(failure, folder)
  print(("seed %d: %s: %s"):format(failure.seed, failure.kind, failure.message))
  local case = cases.generate(failure.seed)
  local kind = failure_of(case, folder)
  if not kind then
    print("  it does not fail alone")
    return
  end
  case = cases.with_parts(case, reduce(cases.parts(case), function(parts)
    return failure_of(cases.with_parts(case, parts), folder) == kind
  end, MOST_RUNS))
  local _, message = failure_of(case, folder)
  local path = ("%s/%d.lua"):format(folder, failure.seed)
  local script = cases.script(case, kind, message or failure.message)
  write(path, script)
  print(("-- %s\n%s"):format(path, script))
end

local function main(seconds, seed, folder, first_only)
  os.execute(("mkdir -p '%s'"):format(folder))
  local ends, first, total, comparisons, found = os.time() + seconds, seed, 0, 0, 0
  repeat
    local note = folder .. "/seed"
    local failures, ended, judged, compared, how = work("batch", seed, BATCH, note)
    if not ended then
      local file <close> = assert(io.open(note))
      local at = math.tointeger(file:read "n")
      failures[#failures + 1] = { seed = at, kind = how:match "%a+", message = how }
      judged = at - seed + 1
    end
    for _, failure in ipairs(failures) do
      found = found + 1
      if first_only then
        print(("seed %d: %s: %s"):format(failure.seed, failure.kind, failure.message))
        return false
      end
      if found <= MOST_FAILURES then report(failure, folder) end
    end
    seed, total, comparisons = seed + judged, total + judged, comparisons + compared
  until os.time() >= ends or found >= MOST_FAILURES
  print(("fuzz: seeds %d to %d: %d programs and files, %d comparisons with differences, %d failed"):format(first,
    seed - 1, total, comparisons, found))
  return found == 0
end

os.exit(main(tonumber(arg[1]), math.tointeger(tonumber(arg[2])), arg[3], arg[4] == "first"))
