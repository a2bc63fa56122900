-- Arrays from the format of the MNIST files: `bp.data.idx`.
--
-- The format: two zero bytes, one for the type of the elements, one for the rank, the sizes as 32-bit integers, then
-- the elements row by row; all big-endian (Y. LeCun, C. Cortes, C. Burges, "The MNIST database"). Sizes are checked
-- against the length of the file before anything is allocated.

local core = require("backprop.core")
local source = require("backprop.data.source")

local NAME = "bp.data.idx"
local OPTIONS = { dtype = "string" }
local LARGEST_SIZE = 2 ^ 31 - 1

local TYPES = {
  [0x08] = { name = "ubyte", bytes = 1 },
  [0x09] = { name = "byte", bytes = 1 },
  [0x0B] = { name = "short", bytes = 2 },
  [0x0C] = { name = "int", bytes = 4 },
  [0x0D] = { name = "float", bytes = 4 },
  [0x0E] = { name = "double", bytes = 8 },
}

-- Type, sizes and the offset of the first element.
local function read_header(bytes, where)
  if #bytes < 4 then
    core.raise("%s: %s: byte %d: the file ends within the magic number", NAME, where, #bytes)
  end
  local zero, code, rank = (">I2BB"):unpack(bytes)
  if zero ~= 0 then
    core.raise("%s: %s: byte 0: wrong magic number %02x %02x %02x %02x: an idx file begins with two zeros", NAME, where,
      bytes:byte(1, 4))
  end
  if not TYPES[code] then
    core.raise("%s: %s: byte 2: wrong magic number: 0x%02X is no element type (0x08, 0x09, 0x0B to 0x0E)", NAME,
      where, code)
  end
  if rank == 0 then core.raise("%s: %s: byte 3: wrong magic number: the rank is 0", NAME, where) end
  local offset = 4 + 4 * rank
  if #bytes < offset then
    core.raise("%s: %s: byte %d: the file ends within its %d sizes", NAME, where, #bytes, rank)
  end
  local sizes = {}
  for i = 1, rank do sizes[i] = (">I4"):unpack(bytes, 1 + 4 * i) end
  return code, sizes, offset
end

-- Rows and columns (none of a vector). Products are floats: they cannot wrap round.
local function shape_of(sizes, where)
  local columns = 1.0
  for i = 2, #sizes do columns = columns * sizes[i] end
  if sizes[1] > LARGEST_SIZE or columns > LARGEST_SIZE then
    core.raise("%s: %s: byte 4: sizes %s are too large", NAME, where, table.concat(sizes, "x"))
  end
  return sizes[1], #sizes > 1 and math.tointeger(columns) or nil
end

local function check_length(bytes, where, code, sizes, offset)
  local type_ = TYPES[code]
  local wanted = type_.bytes + 0.0
  for i = 1, #sizes do wanted = wanted * sizes[i] end
  local there = #bytes - offset
  if there == wanted then return end
  local at = there < wanted and #bytes or offset + wanted
  core.raise("%s: %s: byte %.0f: %s: %s elements of type %s take %.0f bytes, %d follow the header", NAME, where, at,
    there < wanted and "the file is truncated" or "the file goes on", table.concat(sizes, "x"), type_.name, wanted,
    there)
end

-- The array, and the sizes as they stand in the file.
local function idx(path, options, surplus)
  options = source.options(NAME, options, OPTIONS, surplus)
  local bytes, where = source.read(NAME, path)
  local code, sizes, offset = read_header(bytes, where)
  check_length(bytes, where, code, sizes, offset)
  local rows, columns = shape_of(sizes, where)
  return core.from_bytes(bytes, offset, code, rows, columns, options.dtype), sizes
end

return idx
