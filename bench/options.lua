-- The command line of the benchmarks: `--name value` for each option, a value being of its default's type. Requiring
-- this also sees to it that a script run by hand finds the module and the baseline of the checkout it stands in.

local here = arg[0]:match("^(.*/)") or "./"
package.path = package.path .. ";" .. here .. "../lua/?.lua;" .. here .. "../lua/?/init.lua"
package.cpath = package.cpath .. ";" .. here .. "../lua/?.so;" .. here .. "../build/bench/?.so"

local options = {}

-- Changes the table of defaults into the options given, and returns it.
function options.read(option)
  for k = 1, #arg, 2 do
    local name, value = arg[k]:match("^%-%-(.+)"), arg[k + 1]
    local default = option[name]
    if type(default) == "number" then value = tonumber(value) end
    if math.type(default) == "integer" then value = math.tointeger(value) end
    if default == nil or not value then error("no such option, or no fitting value for it: " .. arg[k], 0) end
    option[name] = value
  end
  return option
end

-- The words of a comma-separated option; each must be something to `known`, which is listed instead.
function options.words(option, name, known)
  local list = {}
  for word in option[name]:gmatch("[^,]+") do
    local value = known(word)
    if not value then error(("--%s: unknown: %s"):format(name, word), 0) end
    list[#list + 1] = value
  end
  return list
end

return options
