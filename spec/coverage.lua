-- Line coverage of src/: lua5.4 spec/coverage.lua BUILD, after the specs have run on the build in that folder (see
-- `make coverage`). Writes BUILD/report.txt, and to the screen what it says in all: for each file how many of its lines
-- were run, then each line that was not, with the reason why that may be. A loop file is compiled several times: a line
-- counts as run if it was in one of them.
--
-- The reasons stand in spec/uncovered.txt, a paragraph each: the reason, then lines `file: text of the line`. Exit code
-- 1 if less than 97 % were run, or a line without a reason was not.

local build = arg[1]

local function lines_of(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read "a"
  assert(pipe:close(), command)
  return text:gmatch "[^\n]+"
end

-- file -> line number -> {text, count}
local function measure()
  local files = {}
  for data in lines_of(("find %s -name '*.gcda' | sort"):format(build)) do
    local name
    for line in lines_of(("gcov --stdout %s 2>/dev/null"):format(data)) do
      local count, number, text = line:match "^%s*([^:]+):%s*(%d+):(.*)$"
      if number == "0" then
        if text:find "^Source:" then name = text:match "^Source:(src/.+)$" end
      elseif number and name and count ~= "-" then
        files[name] = files[name] or {}
        local at = files[name][tonumber(number)] or { text = text:match "^%s*(.-)%s*$", run = false }
        at.run = at.run or not count:find "^[#=]"
        files[name][tonumber(number)] = at
      end
    end
  end
  return files
end

local function read_reasons()
  local reasons, reason = {}, nil
  for line in io.lines "spec/uncovered.txt" do
    local file, text = line:match "^  (src/%S+): (.+)$"
    if file then
      reasons[file .. ": " .. text] = { reason = reason, used = false }
    elseif line:find "%S" then
      reason = line
    end
  end
  return reasons
end

local function sorted(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

local files, reasons = measure(), read_reasons()
local report, missed, troubles, all, all_run = {}, {}, {}, 0, 0
local function say(...) report[#report + 1] = string.format(...) end

for _, name in ipairs(sorted(files)) do
  local count, run = 0, 0
  for _, number in ipairs(sorted(files[name])) do
    local line = files[name][number]
    local known = reasons[name .. ": " .. line.text]
    count, run = count + 1, run + (line.run and 1 or 0)
    if not line.run then
      if known then known.used = true end
      missed[#missed + 1] = ("%s:%d: %s\n    %s"):format(name, number, line.text, known and known.reason or "NO REASON")
      if not known then troubles[#troubles + 1] = ("%s:%d was not run: %s"):format(name, number, line.text) end
    end
  end
  all, all_run = all + count, all_run + run
  say("%-32s %5d of %5d lines  %5.1f %%", name, run, count, 100 * run / count)
end
for _, key in ipairs(sorted(reasons)) do
  if not reasons[key].used then io.stderr:write("spec/uncovered.txt: this line was run: ", key, "\n") end
end
local share = 100 * all_run / math.max(all, 1)
say("%-32s %5d of %5d lines  %5.1f %%", "in all", all_run, all, share)

local file <close> = assert(io.open(build .. "/report.txt", "w"))
file:write(table.concat(report, "\n"), "\n\nNot run:\n\n", table.concat(missed, "\n"), "\n")
print(table.concat(report, "\n"))
print(("%d lines were not run: see %s/report.txt"):format(#missed, build))
for _, trouble in ipairs(troubles) do io.stderr:write(trouble, "\n") end
os.exit(share >= 97 and #troubles == 0)
