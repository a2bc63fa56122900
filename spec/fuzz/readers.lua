-- Mutated files for bp.data.csv and bp.data.idx: a valid file, a few of whose bytes are changed, removed, repeated or
-- moved. The reader must return the array that a second, simple reader finds in it, or raise an error at the caller's
-- line that names the function, the file and the line or byte; it must leave nothing behind.
--
-- A case is { seed =, reader = "csv" or "idx", pieces = { bytes, ... } }, the pieces making the file.

local bp = require "backprop"
local new_random = require "fuzz.random"

local readers = {}

-- Valid files -------------------------------------------------------------------------------------------------------

local function csv_file(random)
  local columns, lines = random:integer(1, 5), {}
  if random:chance(0.3) then
    local names = {}
    for i = 1, columns do names[i] = random:pick{ "x", "y", "\"a, b\"", "width" } end
    lines[1] = table.concat(names, ",")
  end
  for _ = 1, random:integer(1, 6) do
    local fields = {}
    for i = 1, columns do
      fields[i] = random:pick{ "1", "-2.5", " 3e2", "\"4\"", "0x10", ".5", "7 ", "1e308" }
    end
    lines[#lines + 1] = table.concat(fields, ",")
  end
  local ending = random:pick{ "\n", "\n", "\r\n" }
  return (random:chance(0.1) and "\xEF\xBB\xBF" or "") .. table.concat(lines, ending)
    .. (random:chance(0.8) and ending or "")
end

local formats = { [0x08] = ">B", [0x09] = ">b", [0x0B] = ">i2", [0x0C] = ">i4", [0x0D] = ">f", [0x0E] = ">d" }

local function idx_file(random)
  local code = random:pick{ 0x08, 0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E }
  local rank, count, parts = random:integer(1, 3), 1, {}
  parts[1] = string.pack(">I2BB", 0, code, rank)
  for i = 1, rank do
    local size = random:integer(random:chance(0.1) and 0 or 1, 4)
    count = count * size
    parts[i + 1] = string.pack(">I4", size)
  end
  for _ = 1, count do parts[#parts + 1] = string.pack(formats[code], random:integer(0, 100)) end
  return table.concat(parts)
end

local function gzipped(bytes)
  local found, zlib = pcall(require, "zlib")
  return found and zlib.deflate(6, 31)(bytes, "finish") or bytes
end

-- Mutations ---------------------------------------------------------------------------------------------------------

local tokens = {
  ",", "\n", "\"", "\"\"", "\r", "\0", ";", "nan", "inf", "1e999", "-", "0x", "x", " ", "\xFF\xFF\xFF\xFF",
  "\x7F\xFF\xFF\xFF", "\x00\x00\x00\x00", "\x80\x00\x00\x00", "\x1f\x8b", "\xEF\xBB\xBF", "9999999999999999999",
  ("1,"):rep(300), ("\n"):rep(50),
}

local function mutate(random, bytes)
  local at = random:integer(1, #bytes + 1)
  local to = math.min(#bytes, at + random:integer(0, random:chance(0.2) and 40 or 3))
  local before, part, after = bytes:sub(1, at - 1), bytes:sub(at, to), bytes:sub(to + 1)
  local kind = random:weighted{ "byte", 4, "bit", 3, "remove", 3, "cut", 2, "repeat", 2, "token", 4, "zero", 1 }
  if kind == "byte" then
    part = string.char(random:integer(0, 255)) .. part:sub(2)
  elseif kind == "bit" and #part > 0 then
    part = string.char(part:byte() ~ (1 << random:integer(0, 7))) .. part:sub(2)
  elseif kind == "remove" then
    part = ""
  elseif kind == "cut" then
    return before
  elseif kind == "repeat" then
    part = part:rep(random:integer(2, 4))
  elseif kind == "token" then
    part = random:pick(tokens) .. (random:chance(0.5) and part or "")
  elseif kind == "zero" then
    part = ("\0"):rep(#part)
  end
  return before .. part .. after
end

function readers.generate(seed)
  local random = new_random(seed)
  local reader = random:pick{ "csv", "idx" }
  local bytes = (reader == "csv" and csv_file or idx_file)(random)
  local zipped = random:chance(0.15)
  if zipped and random:chance(0.5) then bytes, zipped = gzipped(bytes), false end
  for _ = 1, random:pick{ 0, 1, 1, 2, 3, 6 } do bytes = mutate(random, bytes) end
  if zipped then bytes = gzipped(bytes) end
  local case = { seed = seed, reader = reader, pieces = {}, dtype = random:pick{ "f64", "f64", "f32" } }
  for i = 1, #bytes do case.pieces[i] = bytes:sub(i, i) end
  return case
end

-- The second readers ------------------------------------------------------------------------------------------------

-- Hexadecimal integers do not wrap around; what is infinite is no number.
local function number_of(field)
  local number = tonumber(field)
  if math.type(number) == "integer" and field:find "[xX]" then number = tonumber((field:gsub("%s+$", "")) .. ".0") end
  return number and number - number == 0 and number or false
end

-- The rows of a text without quotes: a header is the first row, if nothing in it is a number.
local function csv_rows(text)
  local rows = {}
  text = text:gsub("^\xEF\xBB\xBF", "")
  for line in (text .. "\n"):gmatch "(.-)\n" do
    if line:find "%S" then
      local row, numbers = {}, 0
      for field in (line:gsub("\r$", "") .. ","):gmatch "(.-)," do
        row[#row + 1] = number_of(field)
        if row[#row] then numbers = numbers + 1 end
      end
      if numbers == #row then rows[#rows + 1] = row elseif numbers > 0 or #rows > 0 then return nil end
    end
  end
  return rows
end

local function idx_numbers(bytes)
  local _, code, rank = (">I2BB"):unpack(bytes)
  local numbers, count, position = {}, 1, 5
  for _ = 1, rank do
    local size
    size, position = (">I4"):unpack(bytes, position)
    count = count * size
  end
  for i = 1, count do numbers[i], position = formats[code]:unpack(bytes, position) end
  return position == #bytes + 1 and numbers
end

-- Whether the array holds the numbers, row by row; NaN agrees with NaN.
local function holds(array, numbers)
  local rows, columns = array:shape()
  if rows * (columns or 1) ~= #numbers then return false end
  for i, number in ipairs(numbers) do
    local got = columns and array:get((i - 1) // columns + 1, (i - 1) % columns + 1) or array[i]
    number = array:dtype() == "f32" and string.unpack("f", string.pack("f", number)) or number + 0.0
    if got ~= number and (got == got or number == number) then return false end
  end
  return true
end

local function is_right(case, bytes, array)
  if bytes:sub(1, 2) == "\x1f\x8b" then return true end
  if case.reader == "idx" then
    local fine, numbers = pcall(idx_numbers, bytes)
    return fine and numbers and holds(array, numbers)
  end
  if bytes:find '"' then return true end
  local numbers = {}
  for _, row in ipairs(csv_rows(bytes) or {}) do table.move(row, 1, #row, #numbers + 1, numbers) end
  return holds(array, numbers)
end

-- Judging -----------------------------------------------------------------------------------------------------------

local function bytes_of(case) return table.concat(case.pieces) end

function readers.judge(case)
  local path, bytes = os.tmpname(), bytes_of(case)
  local _ <close> = setmetatable({}, { __close = function() os.remove(path) end })
  do
    local file <close> = assert(io.open(path, "wb"))
    file:write(bytes)
  end
  local before = collectgarbage("count")
  local ok, result = pcall(function()
    local array = bp.data[case.reader](path, { dtype = case.dtype })
    return array
  end)
  local grown = collectgarbage("count") - before
  if grown > 16384 then return "memory", ("%.0f KB for a file of %d bytes"):format(grown, #bytes) end
  if ok then
    if not is_right(case, bytes, result) then return "wrong array", tostring(result) end
    return nil, 1
  end
  local named = type(result) == "string" and result:find("bp.data." .. case.reader, 1, true)
    and result:find(path, 1, true)
  if not named or result:find("attempt to", 1, true) then return "error", tostring(result) end
  local rest = result:sub(named)
  if not (rest:find ":%d+:" or rest:find "byte %d" or rest:find "gzip" or rest:find "empty"
    or rest:find "no row of numbers") then
    return "no place named", result
  end
  if not result:find "^[%w./_]*readers%.lua:%d+:" then return "error position", result end
  return nil, 0
end

function readers.script(case, kind, message)
  return ([[
-- seed %d: %s: %s
local bp = require "backprop"
local path = os.tmpname()
local file = assert(io.open(path, "wb"))
file:write(%q)
file:close()
print(pcall(bp.data.%s, path, { dtype = %q }))
os.remove(path)
]]):format(case.seed, kind, (message:gsub("\n", "\n-- ")), bytes_of(case), case.reader, case.dtype)
end

return readers
