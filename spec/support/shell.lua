-- Commands for specs that build or run something outside of this process. Load it as the helpers are.

local shell = {}

--- Output (of stdout), exit code or signal, and which: "exit" or "signal".
function shell.output(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read "a"
  local ok, how, code = pipe:close()
  return text, ok and 0 or code, how
end

function shell.quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

-- Output of both streams and exit code of a command run in `folder`, without the tests' own search paths.
function shell.run(folder, command, environment)
  return shell.output(("cd %s && env -u LUA_PATH -u LUA_CPATH -u LUA_PATH_5_4 -u LUA_CPATH_5_4 %s %s 2>&1 </dev/null")
    :format(shell.quote(folder), environment or "", command))
end

function shell.succeeds(text, code, how)
  if code ~= 0 then error(("%s %d:\n%s"):format(how, code, text), 2) end
  return text
end

--- A new empty folder; remove it with shell.remove.
function shell.folder() return (shell.succeeds(shell.output "mktemp -d"):gsub("\n$", "")) end

function shell.remove(folder) os.execute("rm -rf " .. shell.quote(folder)) end

--- The checkout, absolute: this file stands in its spec/support/.
shell.root = shell.output("cd \"$(dirname " .. shell.quote(debug.getinfo(1, "S").source:sub(2)) .. ")/../..\" && pwd")
  :gsub("\n$", "")

-- Where `make` has put what it built, and whether that is instrumented: objects of a sanitizer or of gcov hold more
-- than our sources say, and link with nothing else.
shell.build_below_root = os.getenv "BACKPROP_BUILD" or "build" -- for make, to which a space ends a path
shell.build = shell.root .. "/" .. shell.build_below_root
local flags = io.open(shell.build .. "/flags")
local words = flags and flags:read "a" or ""
if flags then flags:close() end
shell.instrumented = words:find("-fsanitize", 1, true) or words:find("--coverage", 1, true)
  or words:find("-fprofile", 1, true) or false

return shell
