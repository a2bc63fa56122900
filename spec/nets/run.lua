-- Proves the nets: plants the defects one at a time in a copy of the checkout and shows which of spec, check and fuzz
-- catches each. First all three must let the copy pass as it is. The exit code is 0 only if no defect passes all.
--
--   lua spec/nets/run.lua FOLDER [NAME]     NAME: only the defects whose name holds it
--
-- The environment names MAKE, BUSTED and LUA; FUZZ_SECONDS (120) bounds the fuzzer for each.

package.path = "./spec/?.lua;" .. package.path
local defects = require "nets.defects"

local folder, only = arg[1], arg[2] or ""
local make, busted = os.getenv "MAKE" or "make", os.getenv "BUSTED" or "busted"
local lua = os.getenv "LUA" or "lua5.4"
local seconds = os.getenv "FUZZ_SECONDS" or "120"

-- Runs a command in the copy: whether it ended well, and the lines that it printed.
local function run(command)
  local pipe = assert(io.popen(("cd '%s' && (%s) 2>&1"):format(folder, command)))
  local lines = {}
  for line in pipe:lines() do lines[#lines + 1] = line end
  return pipe:close(), lines
end

local function must(command)
  local ok, lines = run(command)
  if not ok then error(command .. " failed:\n" .. table.concat(lines, "\n"), 0) end
end

local function read(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end

local function write(path, text)
  local file <close> = assert(io.open(path, "wb"))
  file:write(text)
end

-- The text with the defect; raises unless what it replaces stands there exactly once.
local function with_defect(text, defect)
  local first, last = text:find(defect.from, 1, true)
  if not first or text:find(defect.from, last + 1, true) then
    error(("%s no longer fits %s: %q stands there %s"):format(defect.name, defect.file, defect.from,
      first and "more than once" or "no more"), 0)
  end
  return text:sub(1, first - 1) .. defect.to .. text:sub(last + 1)
end

-- The nets: name, command, and the line that says what was caught.
local nets = {
  { "spec", ("%s --lua=%s --no-keep-going --exclude-pattern=fuzz -o TAP"):format(busted, lua), "^not ok" },
  { "check", lua .. " spec/nets/check.lua", "." },
  { "fuzz", ("%s spec/fuzz/run.lua %s 1 build/fuzz first"):format(lua, seconds), "^seed" },
}

-- What each net says of the copy: nil where it lets it pass.
local function cast()
  local caught = {}
  for _, net in ipairs(nets) do
    local ok, lines = run(net[2])
    if not ok then
      caught[net[1]] = lines[#lines] or "ended without a word"
      for i = #lines, 1, -1 do
        if lines[i]:find(net[3]) then caught[net[1]] = lines[i] end
      end
    end
  end
  return caught
end

-- With what is built, so that only what a defect touches is built again.
local function copy_checkout()
  local command = ([[rm -rf '$' && mkdir -p '$/build' &&
    cp -a Makefile .busted README.md CHANGELOG.md LICENSE config.ld rockspec src lua spec bench examples '$' &&
    for part in build/*; do [ "$part" -ef '$' ] || cp -a "$part" '$/build'; done]]):gsub("%$%f[/']", folder)
  assert(os.execute(command))
end

local function main()
  for _, defect in ipairs(defects) do with_defect(read(defect.file), defect) end
  copy_checkout()
  must(make .. " all")
  for name, message in pairs(cast()) do
    error(("%s already finds fault with the checkout as it is: %s"):format(name, message), 0)
  end
  local passed = 0
  for _, defect in ipairs(defects) do
    if defect.name:find(only, 1, true) then
      local path = folder .. "/" .. defect.file
      local text = read(path)
      write(path, with_defect(text, defect))
      must(make .. " all")
      local caught = cast()
      write(path, text)
      print(("%-20s %s"):format(defect.name, next(caught) and "" or "passes all nets"))
      for _, net in ipairs(nets) do
        print(("  %-6s %s"):format(net[1], (caught[net[1]] or "-"):sub(1, 150)))
      end
      if not next(caught) then passed = passed + 1 end
    end
  end
  must(make .. " all")
  return passed == 0
end

local ok, result = pcall(main)
if not ok then io.stderr:write("nets: ", result, "\n") end
os.exit(ok and result)
