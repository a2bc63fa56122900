-- A case is what a seed stands for: a program, or for every eighth seed a file for a reader. Here both look alike: they
-- are made, judged, taken into parts that may be left out, written down, shown as a script.

local bp = require "backprop"
local generate = require "fuzz.generate"
local oracle = require "fuzz.oracle"
local program = require "fuzz.program"
local readers = require "fuzz.readers"

local cases = {}

function cases.generate(seed)
  return (seed % 8 == 0 and readers.generate or generate)(seed)
end

-- nil and a count, or what failed and a message. Half of the seeds run with a generational collector.
function cases.judge(case)
  collectgarbage(case.seed % 2 == 0 and "generational" or "incremental")
  return (case.reader and readers.judge or oracle.judge)(case)
end

function cases.live()
  collectgarbage()
  collectgarbage()
  return bp.stats().bytes_live
end

-- As judge, and what was live before must be live after: run twice, since a first run may leave something for ever.
function cases.judge_alone(case)
  local kind, message = cases.judge(case)
  if kind then return kind, message end
  local before = cases.live()
  cases.judge(case)
  local after = cases.live()
  if after ~= before then return "leak", ("%d bytes are live where %d were"):format(after, before) end
  return nil, message
end

-- The parts of a case that may be left out, and the case with others.
function cases.parts(case) return case.reader and case.pieces or case.body end

function cases.with_parts(case, parts)
  local copy = {}
  for key, value in pairs(case) do copy[key] = value end
  copy[case.reader and "pieces" or "body"] = parts
  return copy
end

function cases.script(case, kind, message)
  if case.reader then return readers.script(case, kind, message) end
  return program.script(case, kind, message)
end

-- A case as Lua text: strings, numbers and lists of strings.
function cases.write(case)
  local lines = {}
  for key, value in pairs(case) do
    if type(value) == "table" then
      local items = {}
      for i, item in ipairs(value) do items[i] = ("%q"):format(item) end
      value = "{ " .. table.concat(items, ", ") .. " }"
    else
      value = ("%q"):format(value)
    end
    lines[#lines + 1] = ("%s = %s"):format(key, value)
  end
  return "return { " .. table.concat(lines, ", ") .. " }\n"
end

return cases
