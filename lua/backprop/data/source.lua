-- What the readers share: the whole file as a string, unpacked where it is gzip, and a look at the options.
--
-- Every error names the public function (`name`, such as "bp.data.csv") and the file. The file is closed before
-- anything is raised. zlib is asked for only when a gzip file is met: nothing else needs the rock.

local core = require("backprop.core")

local source = {}

local GZIP = "\x1f\x8b"

-- All members of a gzip file, one after another, as gunzip does.
local function unpack_gzip(name, path, packed)
  local found, zlib = pcall(require, "zlib")
  if not found then
    if zlib:find("not enough memory", 1, true) then error("not enough memory", 0) end
    core.raise("%s: %s is compressed: gunzip it, or install lua-zlib (luarocks install lua-zlib, or on Debian "
      .. "apt-get install lua-zlib)", name, path)
  end
  local parts, position = {}, 1
  repeat
    -- The last value counts the bytes that were read.
    local fine, part, complete, taken = pcall(zlib.inflate(), position == 1 and packed or packed:sub(position))
    if part == "not enough memory" then error(part, 0) end
    if not fine then core.raise("%s: %s: broken gzip data (%s)", name, path, part) end
    if not complete then
      core.raise("%s: %s: truncated gzip data: it breaks off at byte %d", name, path, #packed)
    end
    parts[#parts + 1] = part
    position = position + taken
    if position <= #packed and packed:sub(position, position + 1) ~= GZIP then
      core.raise("%s: %s: byte %d: something follows the gzip data", name, path, position - 1)
    end
  until position > #packed
  return table.concat(parts)
end

-- The bytes of a file, unpacked, and how errors name it.
function source.read(name, path)
  if type(path) ~= "string" then core.raise("%s: expected a path, got %s", name, type(path)) end
  if path:find("\0", 1, true) then core.raise("%s: a path cannot hold a zero byte: %q", name, path) end
  if not io then core.raise("%s: this Lua state has no io library", name) end -- a host may leave it out
  local file <close>, problem = io.open(path, "rb")
  if not file then core.raise("%s: cannot open %s", name, problem) end
  local content
  content, problem = file:read("a")
  if not content then core.raise("%s: cannot read %s: %s", name, path, problem) end
  if content:sub(1, 2) ~= GZIP then return content, path end
  return unpack_gzip(name, path, content), path .. " (unpacked)"
end

-- A table of options, checked: `allowed` maps each name to the type of its value.
function source.options(name, options, allowed, surplus)
  if surplus ~= nil then core.raise("%s: expected at most 2 arguments", name) end
  if options == nil then return {} end
  if type(options) ~= "table" then core.raise("%s: expected a table of options, got %s", name, type(options)) end
  for key, value in pairs(options) do
    local expected = allowed[key]
    if not expected then core.raise("%s: there is no option %q", name, tostring(key)) end
    if type(value) ~= expected then
      core.raise("%s: option %s is a %s, not a %s", name, key, type(value), expected)
    end
  end
  local dtype = options.dtype
  if dtype and dtype ~= "f64" and dtype ~= "f32" then
    core.raise('%s: dtype is "f64" or "f32", not %q', name, dtype)
  end
  return options
end

return source
