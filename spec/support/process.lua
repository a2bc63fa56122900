-- Lua in processes of their own, with this one's module paths, for what may crash and for the ends of states. LUA names
-- the interpreter.

local shell = require "support.shell"

local process = {}

local function run(environment, ...)
  local words = { "LUA_PATH_5_4=" .. shell.quote(package.path), "LUA_CPATH_5_4=" .. shell.quote(package.cpath) }
  for name, value in pairs(environment) do words[#words + 1] = name .. "=" .. shell.quote(value) end
  words[#words + 1] = os.getenv "LUA" or "lua5.4"
  for _, argument in ipairs{ ... } do words[#words + 1] = shell.quote(tostring(argument)) end
  return shell.succeeds(shell.output(table.concat(words, " ") .. " 2>&1"))
end

-- Runs lua with arguments; returns all that it printed. An error of the script's and a signal raise.
function process.lua(...)
  return run({}, ...)
end

-- The same for a script given as text; `environment` has variables of the process, by name.
function process.script(text, environment)
  local path = os.tmpname()
  local _ <close> = setmetatable({}, { __close = function() os.remove(path) end })
  do
    local file <close> = assert(io.open(path, "w"))
    file:write(text)
  end
  return run(environment or {}, path)
end

return process
