-- Numbers from a table of text, one row a line: `bp.data.csv`.
--
-- A field is a number as Lua's `tonumber` reads it, bare or in double quotes. CRLF, a missing final newline, blank
-- lines and a byte order mark are all fine. Rows go straight to packed doubles and in one piece to the array, so that
-- a large file never exists as a table of Lua numbers.

local core = require("backprop.core")
local source = require("backprop.data.source")

local NAME = "bp.data.csv"
local OPTIONS = { header = "boolean", separator = "string", dtype = "string" }
local IDX_DOUBLE = 0x0E -- big-endian, see idx.lua
local PACKED_AT_ONCE = 200 -- arguments to one call of string.pack

local function trim(field)
  return field:match("^%s*(.-)%s*$")
end

-- What an error shows of a field.
local function quote(field)
  local shown = ("%q"):format(field:sub(1, 40)):gsub("\\\n", "\\n")
  return #field > 40 and shown .. "..." or shown
end

-- The fields of a line without quotes.
local function split(line, fields, pattern)
  local count = 0
  for field in line:gmatch(pattern) do
    count = count + 1
    fields[count] = field
  end
  return count
end

-- The fields of the row that begins at `position`, some of them quoted: they may hold separators, doubled quotes and
-- newlines. Returns the count, the position behind the row and the number of lines it took; without a count, there is
-- a quote that never ends, or something else (the third result) behind one that did.
local function split_quoted(text, position, fields, separator)
  local count, lines = 0, 1
  local ends = "[%" .. separator .. "\n]"
  local quoted = "^[" .. (" \t"):gsub("%" .. separator, "") .. "]*()\""
  while true do
    local field, stop
    local opening = text:match(quoted, position)
    if opening then
      local closing, first = opening, opening + 1
      repeat
        closing = text:find('"', closing + 1, true)
        if not closing then return nil end
        local doubled = text:sub(closing + 1, closing + 1) == '"'
        if doubled then closing = closing + 1 end
      until not doubled
      field = text:sub(first, closing - 1):gsub('""', '"')
      stop = text:find(ends, closing + 1) or #text + 1
      local rest = text:sub(closing + 1, stop - 1)
      if rest:find("%S") then return nil, nil, rest end
      lines = lines + select(2, field:gsub("\n", ""))
    else
      stop = text:find(ends, position) or #text + 1
      field = text:sub(position, stop - 1)
    end
    count = count + 1
    fields[count] = field
    position = stop + 1
    if text:byte(stop) ~= separator:byte() then return count, position, lines end
  end
end

-- An iterator over the rows: line number, fields (one table, used again for every row) and their count.
local function each_row(text, where, separator)
  local fields = {}
  local pattern = "[^%" .. separator .. "]*"
  local line_number, taken = 0, 1
  local position = text:sub(1, 3) == "\xEF\xBB\xBF" and 4 or 1
  return function()
    while position <= #text do
      line_number, taken = line_number + taken, 1
      local stop = text:find("\n", position, true) or #text + 1
      local line = text:sub(position, stop - 1)
      local start = position
      position = stop + 1
      if line:find('"', 1, true) then
        local count, rest
        count, position, taken = split_quoted(text, start, fields, separator)
        if count then return line_number, fields, count end
        rest = taken
        core.raise("%s: %s:%d: %s", NAME, where, line_number,
          rest and quote(trim(rest)) .. " follows a closing quote" or "a quote is never closed")
      elseif line:find("%S") then
        return line_number, fields, split(line:gsub("\r$", ""), fields, pattern)
      end
    end
  end
end

-- What no element of an array can be: rounded to one it would be infinite.
local TOO_LARGE = { f64 = math.huge, f32 = 0x1.ffffffp127 }

-- Hexadecimal integers that Lua would wrap around are read as floats; what is too large for one is no number here.
local function to_number(field, too_large)
  local number = tonumber(field)
  if math.type(number) == "integer" and field:find("[xX]") then number = tonumber(trim(field) .. "p0") end
  if number and number > -too_large and number < too_large then return number end
end

-- Numbers 1..count of the fields, in place; else the index of the first that is none.
local function to_numbers(fields, count, too_large)
  for i = 1, count do
    local number = to_number(fields[i], too_large)
    if not number then return i end
    fields[i] = number
  end
end

local function pack_row(numbers, count, pieces)
  for first = 1, count, PACKED_AT_ONCE do
    local last = math.min(first + PACKED_AT_ONCE - 1, count)
    pieces[#pieces + 1] = string.pack(">" .. ("d"):rep(last - first + 1), table.unpack(numbers, first, last))
  end
end

-- What other programs write for a number that is none, or one that is too large; it is no name of a column either.
local function is_not_finite(field)
  local word = trim(field):lower():gsub("^[+-]", "")
  if word == "nan" or word == "inf" or word == "infinity" then return true end
  return tonumber(field) ~= nil and not to_number(field, math.huge)
end

-- The first row names the columns if it holds something and none of it is a number. A row where only some fields are
-- no numbers is more likely a mistake: it raises, instead of getting lost.
local function is_header(fields, count)
  local something = false
  for i = 1, count do
    if tonumber(fields[i]) or is_not_finite(fields[i]) then return false end
    something = something or fields[i]:find("%S") ~= nil
  end
  return something
end

-- A matrix of the rows, and the names of the columns or nil.
local function csv(path, options, surplus)
  options = source.options(NAME, options, OPTIONS, surplus)
  local separator = options.separator or ","
  if #separator ~= 1 or separator:find("[%w\"\r\n.+-]") then
    core.raise('%s: the separator is one character such as "," ";" or a tab, not %s', NAME, quote(separator))
  end
  local text, where = source.read(NAME, path)
  local names, columns
  local pieces, rows = {}, 0
  for line, fields, count in each_row(text, where, separator) do
    local header = options.header
    if columns then
      header = false
    elseif header == nil then
      header = is_header(fields, count)
    end
    if columns and count ~= columns then
      core.raise("%s: %s:%d: %d %s where the first row has %d", NAME, where, line, count,
        count == 1 and "field" or "fields", columns)
    end
    columns = count
    if header then
      names = {}
      for i = 1, count do names[i] = trim(fields[i]) end
    else
      local wrong = to_numbers(fields, count, TOO_LARGE[options.dtype or "f64"])
      if wrong then
        local field = trim(fields[wrong])
        core.raise("%s: %s:%d: field %d %s%s", NAME, where, line, wrong,
          field == "" and "is empty" or ("(%s) is %s"):format(quote(field),
            tonumber(field) and "too large for " .. (options.dtype or "f64") or "not a number"),
          rows == 0 and not names and " (if this line names the columns, say header = true)" or "")
      end
      pack_row(fields, count, pieces)
      rows = rows + 1
    end
  end
  if not columns then core.raise("%s: %s: the file is empty", NAME, where) end
  if rows == 0 then core.raise("%s: %s: no row of numbers follows the header", NAME, where) end
  return core.from_bytes(table.concat(pieces), 0, IDX_DOUBLE, rows, columns, options.dtype), names
end

return csv
