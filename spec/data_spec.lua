-- The readers of bp.data: what they read, and that every malformed file is an error that names the file and the line
-- or byte. Files are made here; MNIST is read where BACKPROP_MNIST names its folder.

local bp = require("backprop")

local paths = {}

-- A new file with that content.
local function file(content, ending)
  local path = os.tmpname()
  paths[#paths + 1] = path
  if ending then
    path = path .. ending
    paths[#paths + 1] = path
  end
  local handle <close> = assert(io.open(path, "wb"))
  handle:write(content)
  return path
end

local function gzip(content)
  local path = file(content)
  assert(os.execute(("gzip -f %s"):format(path)))
  paths[#paths + 1] = path .. ".gz"
  return path .. ".gz"
end

local function read(path)
  local handle <close> = assert(io.open(path, "rb"))
  return handle:read("a")
end

-- That the call raises, naming the file and holding the other texts.
local function raises(f, path, options, ...)
  local fine, message = pcall(f, path, options)
  assert.is_false(fine)
  assert.is_string(message)
  for _, text in ipairs({ path, ... }) do
    assert.is_truthy(message:find(text, 1, true), ("%q does not hold %q"):format(message, text))
  end
end

after_each(function()
  for i = #paths, 1, -1 do
    os.remove(paths[i])
    paths[i] = nil
  end
end)

describe("bp.data.csv", function()
  local function csv(content, options)
    local values, names = bp.data.csv(file(content), options)
    return values:totable(), names
  end

  local function csv_raises(content, options, ...)
    raises(bp.data.csv, file(content), options, "bp.data.csv", ...)
  end

  it("reads rows into a matrix", function()
    local m, names = bp.data.csv(file("1,2,3\n4,5,-6.5e-1\n"))
    assert.same({ 2, 3 }, { m:shape() })
    assert.equal("f64", m:dtype())
    assert.same({ { 1, 2, 3 }, { 4, 5, -0.65 } }, m:totable())
    assert.is_nil(names)
  end)

  it("reads f32", function()
    local m = bp.data.csv(file("1,2\n3,0.1\n"), { dtype = "f32" })
    assert.equal("f32", m:dtype())
    assert.equal(("f"):unpack(("f"):pack(0.1)), m:get(2, 2))
  end)

  it("reads one row, one column, one number", function()
    assert.same({ { 1, 2 } }, (csv("1,2")))
    assert.same({ { 1 }, { 2 } }, (csv("1\n2\n")))
    assert.same({ { 7 } }, (csv("7")))
  end)

  it("takes CRLF, a missing final newline, blank lines and a byte order mark", function()
    local expected = { { 1, 2 }, { 3, 4 } }
    for _, content in ipairs({
      "1,2\n3,4", "1,2\r\n3,4\r\n", "1,2\r\n3,4", "\n1,2\n\n \n3,4\n\n", "\xEF\xBB\xBF1,2\n3,4\n", " 1 ,\t2\n3,4 \n",
    }) do
      assert.same(expected, (csv(content)))
    end
  end)

  it("takes quoted fields", function()
    local values, names = csv('"a,x","b ""q"""\r\n"1", "2" \r\n3,"4"\r\n')
    assert.same({ { 1, 2 }, { 3, 4 } }, values)
    assert.same({ "a,x", 'b "q"' }, names)
  end)

  it("finds a header", function()
    local values, names = csv("width, height\n1,2\n")
    assert.same({ { 1, 2 } }, values)
    assert.same({ "width", "height" }, names)
    values, names = csv("1999,2000\n1,2\n", { header = true })
    assert.same({ { 1, 2 } }, values)
    assert.same({ "1999", "2000" }, names)
    csv_raises("width,height\n1,2\n", { header = false }, ":1:", '"width"')
    csv_raises("width,2000\n1,2\n", nil, ":1:", '"width"', "header = true")
    csv_raises("nan,-inf\n1,2\n", nil, ":1:", "\"nan\"") -- a row of numbers gone wrong: it does not get lost
  end)

  it("takes other separators", function()
    for _, separator in ipairs({ ";", "\t", " ", "|", "^", "]", "%" }) do
      local content = ("1%s2\n3%s4\n"):format(separator, separator)
      assert.same({ { 1, 2 }, { 3, 4 } }, (csv(content, { separator = separator })))
    end
  end)

  it("reads rows longer than the stack", function()
    local row = {}
    for i = 1, 5000 do row[i] = i end
    local values = csv(table.concat(row, ",") .. "\n" .. table.concat(row, ","))
    assert.same({ row, row }, values)
  end)

  it("names the line of a row of another length", function()
    csv_raises("1,2\n\n3,4,5\n", nil, ":3:", "3 fields", "2")
    csv_raises("1,2\n3\n", nil, ":2:", "1 field")
    csv_raises("a,b,c\n1,2\n", nil, ":2:")
    csv_raises('"a\nb",c\n1,2\n3\n', nil, ":4:")
  end)

  it("names the line and field of what is not a number", function()
    csv_raises("1,2\n3,x\n", nil, ":2:", "field 2", '"x"')
    csv_raises("1,2\n3,\n", nil, ":2:", "field 2", "empty")
    csv_raises("1,,3\n", nil, ":1:", "field 2", "empty")
    csv_raises("1,2\n3,nan\n", nil, ":2:", '"nan"')
    csv_raises("1,2\n3," .. ("y"):rep(1000) .. "\n", nil, ":2:", "yyy\"...")
    csv_raises("1;2\n3;4\n", { header = false }, ":1:", '"1;2"')
  end)

  it("names the line of a broken quote", function()
    csv_raises('1,2\n3,"4\n5,6\n', nil, ":2:", "never closed")
    csv_raises('1,2\n3,"4"5\n', nil, ":2:", '"5"')
  end)

  it("refuses files without numbers", function()
    csv_raises("", nil, "empty")
    csv_raises("\n\r\n", nil, "empty")
    csv_raises("\xEF\xBB\xBF", nil, "empty")
    csv_raises("a,b\n", nil, "header")
  end)

  it("refuses what it cannot read", function()
    raises(bp.data.csv, "/no/such/file.csv", nil, "bp.data.csv", "No such file")
    raises(bp.data.csv, "/", nil, "bp.data.csv", "directory")
    for _, path in ipairs({ 1, true, {} }) do
      assert.error_matches(function() bp.data.csv(path) end, "bp%.data%.csv: expected a path")
    end
    assert.error_matches(function() bp.data.csv() end, "bp%.data%.csv: expected a path, got nil")
  end)

  it("refuses wrong options", function()
    local path = file("1,2\n")
    for _, options in ipairs({
      { sep = ";" }, { header = 1 }, { separator = "" }, { separator = "ab" }, { separator = "1" }, { separator = '"' },
      { separator = ";", dtype = "f16" }, { dtype = 64 },
    }) do
      assert.error_matches(function() bp.data.csv(path, options) end, "bp%.data%.csv: ")
    end
    assert.error_matches(function() bp.data.csv(path, "f32") end, "bp%.data%.csv: expected a table of options")
  end)

  it("points at the caller's line", function()
    local line = debug.getinfo(1, "l").currentline + 1
    local _, message = pcall(function() bp.data.csv("/no/such/file.csv") end)
    assert.is_truthy(message:find(("data_spec.lua:%d:"):format(line), 1, true), message)
  end)

  it("reads 1,800 x 65", function()
    local row = {}
    for i = 1, 65 do row[i] = i % 17 end
    local path = file((table.concat(row, ",") .. "\n"):rep(1800))
    assert.same({ 1800, 65 }, { bp.data.csv(path):shape() })
  end)
end)

describe("bp.data.idx", function()
  local function header(code, ...)
    local rank = select("#", ...)
    return "\0\0" .. string.char(code, rank) .. string.pack(">" .. ("I4"):rep(rank), ...)
  end

  local function idx_raises(content, ...)
    raises(bp.data.idx, file(content), nil, "bp.data.idx", ...)
  end

  it("reads rank 1 as a vector, rank 2 as a matrix", function()
    local v, sizes = bp.data.idx(file(header(8, 3) .. "\0\127\255"))
    assert.equal("vector", bp.kind(v))
    assert.equal("f64", v:dtype())
    assert.same({ 0, 127, 255 }, v:totable())
    assert.same({ 3 }, sizes)
    local m
    m, sizes = bp.data.idx(file(header(8, 2, 3) .. "\1\2\3\4\5\6"))
    assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, m:totable())
    assert.same({ 2, 3 }, sizes)
  end)

  it("reads a higher rank as a matrix and gives the sizes", function()
    local m, sizes = bp.data.idx(file(header(8, 2, 3, 2) .. "\1\2\3\4\5\6\7\8\9\10\11\12"))
    assert.same({ { 1, 2, 3, 4, 5, 6 }, { 7, 8, 9, 10, 11, 12 } }, m:totable())
    assert.same({ 2, 3, 2 }, sizes)
    m = bp.data.idx(file(header(8, 1, 1, 1, 1, 2) .. "\5\6"))
    assert.same({ { 5, 6 } }, m:totable())
  end)

  it("reads every type, in both dtypes", function()
    for _, dtype in ipairs({ "f64", "f32" }) do
      local formats = { [0x08] = "B", [0x09] = "b", [0x0B] = "i2", [0x0C] = "i4", [0x0D] = "f", [0x0E] = "d" }
      for code, format in pairs(formats) do
        local numbers = code == 8 and { 0, 200, 255 } or code < 0x0D and { 0, -100, 127 } or { 0, -0.5, 1024.25 }
        local bytes = string.pack(">" .. format:rep(3), table.unpack(numbers))
        local v = bp.data.idx(file(header(code, 3) .. bytes), { dtype = dtype })
        assert.equal(dtype, v:dtype())
        assert.same(numbers, v:totable())
      end
    end
    local v = bp.data.idx(file(header(0x0C, 2) .. string.pack(">i4i4", -2 ^ 31 // 1 | 0, 2 ^ 31 - 1 | 0)))
    assert.same({ -2 ^ 31, 2 ^ 31 - 1 }, v:totable())
  end)

  it("reads sizes of zero", function()
    assert.equal(0, #bp.data.idx(file(header(8, 0))))
    assert.same({ 0, 6 }, { bp.data.idx(file(header(8, 0, 2, 3))):shape() })
    assert.same({ 3, 0 }, { bp.data.idx(file(header(8, 3, 0))):shape() })
  end)

  it("names the byte of a wrong magic number", function()
    idx_raises("PK\3\4 something else", "byte 0", "magic")
    idx_raises("\0\1\8\1\0\0\0\0", "byte 0", "magic")
    idx_raises("\0\0\7\1\0\0\0\0", "byte 2", "0x07")
    idx_raises("\0\0\10\1\0\0\0\0", "byte 2", "0x0A")
    idx_raises("\0\0\8\0", "byte 3", "rank")
  end)

  it("names the byte where the file ends or should have", function()
    idx_raises("", "byte 0")
    idx_raises("\0\0\8", "byte 3")
    idx_raises("\0\0\8\2\0\0\0\1\0\0", "byte 10", "2 sizes")
    idx_raises(header(8, 2, 2) .. "abc", "byte 15", "truncated", "2x2", "4 bytes", "3 follow")
    idx_raises(header(8, 2, 2) .. "abcde", "byte 16", "2x2", "5 follow")
    idx_raises(header(0x0E, 2) .. ("\0"):rep(15), "byte 23", "double", "16 bytes")
  end)

  it("refuses sizes that no file can hold before it allocates", function()
    idx_raises(header(8, 2 ^ 32 - 1 | 0, 2 ^ 32 - 1 | 0, 2 ^ 32 - 1 | 0) .. "abc", "truncated")
    idx_raises(header(8, 2 ^ 31 | 0, 2 ^ 31 | 0, 4), "truncated") -- 2^64 elements: 0, if products wrapped round
    idx_raises(header(8, 0, 2 ^ 32 - 1 | 0), "too large")
    idx_raises("\0\0\8\255" .. ("\255"):rep(255 * 4), "truncated")
  end)

  it("refuses what it cannot read, and wrong options", function()
    raises(bp.data.idx, "/no/such/file", nil, "bp.data.idx", "No such file")
    assert.error_matches(function() bp.data.idx() end, "bp%.data%.idx: expected a path, got nil")
    local path = file(header(8, 1) .. "a")
    assert.error_matches(function() bp.data.idx(path, { dtype = "u8" }) end, "bp%.data%.idx: dtype")
    assert.error_matches(function() bp.data.idx(path, { header = true }) end, "bp%.data%.idx: .*header")
  end)

  it("leaves the state usable and frees what it took", function()
    collectgarbage()
    local before = bp.stats().bytes_live
    for _ = 1, 20 do pcall(bp.data.idx, file(header(8, 1000, 1000) .. "abc")) end
    collectgarbage()
    assert.equal(before, bp.stats().bytes_live)
  end)
end)

describe("gzip files", function()
  local has_zlib = pcall(require, "zlib")

  it("are unpacked, all members", function()
    if not has_zlib then pending("lua-zlib is not installed") end
    local packed = read(gzip("1,2\n")) .. read(gzip("3,4\n"))
    assert.same({ { 1, 2 }, { 3, 4 } }, bp.data.csv(file(packed, ".gz")):totable())
    assert.same({ 97, 98 }, bp.data.idx(gzip("\0\0\8\1\0\0\0\2ab")):totable())
  end)

  it("that are broken are named", function()
    if not has_zlib then pending("lua-zlib is not installed") end
    local packed = read(gzip("1,2\n3,4\n"))
    raises(bp.data.csv, file(packed:sub(1, -5)), nil, "bp.data.csv", "truncated")
    raises(bp.data.csv, file(packed:sub(1, 12)), nil, "bp.data.csv", "truncated")
    raises(bp.data.csv, file(packed .. "junk"), nil, "bp.data.csv", ("byte %d"):format(#packed))
    raises(bp.data.csv, file(packed:sub(1, -9) .. "\0\0\0\0" .. packed:sub(-4)), nil, "bp.data.csv", "gzip")
    raises(bp.data.csv, file("\x1f\x8b\8\0\0\0\0\0\0\3\255\255\255\255"), nil, "bp.data.csv", "gzip")
    raises(bp.data.csv, gzip("1,2\n3,x\n"), nil, ":2:", '"x"')
    raises(bp.data.idx, gzip("\0\0\8\1\0\0\0\2a"), nil, "byte 9", "truncated")
  end)

  it("ask for lua-zlib or gunzip where there is no zlib", function()
    local path = file("\x1f\x8b rest")
    local loaded, preload = package.loaded.zlib, package.preload.zlib
    package.loaded.zlib = nil
    package.preload.zlib = function() error("not here") end
    local fine, message = pcall(bp.data.idx, path)
    package.loaded.zlib, package.preload.zlib = loaded, preload
    assert.is_false(fine)
    for _, text in ipairs({ "bp.data.idx", path, "gunzip", "lua-zlib" }) do
      assert.is_truthy(message:find(text, 1, true), message)
    end
  end)
end)

describe("MNIST", function()
  local folder = os.getenv("BACKPROP_MNIST") or ""

  it("is read", function()
    if folder == "" then pending("BACKPROP_MNIST is not set (make test MNIST=DIR)") end
    local function open(name)
      local path = folder .. "/" .. name
      local plain = io.open(path, "rb")
      if plain then plain:close() end
      return bp.data.idx(plain and path or path .. ".gz", { dtype = "f32" })
    end
    local images, sizes = open("t10k-images-idx3-ubyte")
    local labels = open("t10k-labels-idx1-ubyte")
    assert.same({ 10000, 28, 28 }, sizes)
    assert.same({ 10000, 784 }, { images:shape() })
    assert.equal(10000, #labels)
    assert.same({ 7, 2, 1, 0, 4 }, { labels[1], labels[2], labels[3], labels[4], labels[5] })
    assert.equal(0, bp.min(images))
    assert.equal(255, bp.max(images))
  end)
end)

describe("bp.data.csv takes nothing for a number that is another", function()
  it("an empty field before a quoted one is empty, whatever separates them", function()
    for _, separator in ipairs{ "\t", " ", "," } do
      local text = ('1%s%s"3"\n4%s%s"6"\n'):gsub("%%s", separator)
      local ok, message = pcall(bp.data.csv, file(text), { separator = separator })
      assert(not ok and message:find("field 2 is empty", 1, true), message)
    end
  end)

  it("hexadecimal integers do not wrap around, and what is too large for the dtype is refused", function()
    assert.same({ { 2 ^ 65 - 2 ^ 0, 2 }, { 16, -10 } },
      bp.data.csv(file "0x1ffffffffffffffff,2\n0x10,-0xA\n"):totable())
    local ok, message = pcall(bp.data.csv, file "1,2\n1e400,2\n")
    assert(not ok and message:find("is too large for f64", 1, true), message)
    assert(not pcall(bp.data.csv, file "1e400\n1\n")) -- nor the name of a column
    ok, message = pcall(bp.data.csv, file "1,2\n3.5e38,2\n", { dtype = "f32" })
    assert(not ok and message:find(":2: field 1 (\"3.5e38\") is too large for f32", 1, true), message)
    assert.same({ { 0x1.fffffep127 } }, bp.data.csv(file "0x1.fffffefffffffp127", { dtype = "f32" }):totable())
  end)
end)
