-- The order of the layers of src/, held by reading the sources: core <- kernels <- ops <- tape <- binding, where each
-- includes only what stands left of it. Also what a layer may call: Lua in the binding only, BLAS in the kernels only,
-- nothing that aborts or prints. The rules themselves are tried on made-up sources first.

local lfs = require "lfs" -- busted brings it

local order = { core = 1, kernels = 2, ops = 3, tape = 4, binding = 5 }

-- Comments and the contents of string literals become spaces; `#include "x"` is looked at before that.
local function code_of(text)
  text = text:gsub("\\\n", " \n")
  local out, i = {}, 1
  while i <= #text do
    local two, one = text:sub(i, i + 1), text:sub(i, i)
    if two == "/*" then
      local _, last = text:find("*/", i + 2, true)
      out[#out + 1] = text:sub(i, last or #text):gsub("[^\n]", " ")
      i = (last or #text) + 1
    elseif two == "//" then
      i = text:find("\n", i, true) or #text + 1
    elseif one == '"' or one == "'" then
      local last = i + 1
      while last <= #text and text:sub(last, last) ~= one do
        last = last + (text:sub(last, last) == "\\" and 2 or 1)
      end
      out[#out + 1] = one .. one
      i = last + 1
    else
      local stop = text:find("[/\"']", i + 1) or #text + 1
      out[#out + 1] = text:sub(i, stop - 1)
      i = stop
    end
  end
  return table.concat(out)
end

-- "src/ops/../core/array.h" -> "src/core/array.h"
local function simplify(path)
  local parts = {}
  for part in path:gmatch "[^/]+" do
    if part == ".." then parts[#parts] = nil elseif part ~= "." then parts[#parts + 1] = part end
  end
  return table.concat(parts, "/")
end

local function layer_of(path) return path:match "^src/(%w+)/" end

-- Words that only one layer may use. The prefix of a word is enough.
local function misused(word, layer)
  if layer ~= "binding" and (word:find "^luaL?_%w" or word:find "^LUA_" or word:find "^luaopen_") then
    return "only the binding may call Lua: " .. word
  end
  if layer ~= "kernels" and (word:find "^cblas_" or word:find "^openblas_" or word:find "^LAPACKE?_"
    or word:find "^goto_set_num_threads") then
    return "only the kernels may call BLAS: " .. word
  end
  local forbidden = { abort = 1, exit = 1, _Exit = 1, quick_exit = 1, longjmp = 1, setjmp = 1, assert = 1, printf = 1,
    fprintf = 1, puts = 1, putchar = 1, fputs = 1, perror = 1, stdout = 1, stderr = 1 }
  if forbidden[word] then return "a library may not end the host, jump or print: " .. word end
end

-- What a file does against the rules: a list of texts. `exists` tells which paths there are.
local function violations(path, text, exists)
  local found, layer = {}, layer_of(path)
  local function add(format, ...) found[#found + 1] = path .. ": " .. format:format(...) end
  if path ~= "src/backprop.h" and not order[layer] then add("stands in no layer") end
  for line in (text .. "\n"):gmatch "(.-)\n" do
    local quote, name = line:match '^%s*#%s*include%s*(["<])([^">]+)'
    if quote == '"' then
      local target = simplify((path:match "^(.*)/" or ".") .. "/" .. name)
      if not exists(target) then target = "src/" .. name end
      local other = layer_of(target)
      if not exists(target) then
        add("includes %s, which is not there", name)
      elseif name:find "%.c$" then
        add("includes a .c file, %s", name)
      elseif target ~= "src/backprop.h" and (not layer or order[other] > order[layer]) then
        add("includes %s of layer %s", name, other)
      end
    elseif quote == "<" and name:find "^lua" or name == "lauxlib.h" then
      if layer ~= "binding" then add("includes <%s>", name) end
    elseif quote == "<" and (name:find "blas" or name:find "lapack") and layer ~= "kernels" then
      add("includes <%s>", name)
    end
  end
  local code = code_of(text):gsub("format%s*%(%s*printf", "format(") -- a compiler's attribute, not a call
  if path == "src/backprop.h" then -- its part for those who have included lua.h themselves
    code = code:gsub("#ifdef LUA_VERSION_NUM.-\n#endif", ""):gsub("struct lua_State", "")
  end
  for word in code:gmatch "[%a_][%w_]*" do
    local why = misused(word, layer)
    if why then add("%s", why) end
  end
  return found
end

local function sources()
  local list = {}
  local function walk(folder)
    for name in lfs.dir(folder) do
      local path = folder .. "/" .. name
      if lfs.attributes(path, "mode") == "directory" then
        if not name:find "^%." then walk(path) end
      elseif name:find "%.[ch]$" then
        local file <close> = assert(io.open(path))
        list[path] = file:read "a"
      end
    end
  end
  walk "src"
  return list
end

describe("the rules of the layers", function()
  local files = { ["src/backprop.h"] = 1, ["src/core/array.h"] = 1, ["src/kernels/kernels.h"] = 1, ["src/ops/op.h"] = 1,
    ["src/tape/tape.h"] = 1, ["src/tape/sweep.c"] = 1, ["src/binding/module.h"] = 1 }
  local function exists(path) return files[path] ~= nil end

  it("let pass what is in order", function()
    assert.same({}, violations("src/ops/math.c", '#include "op.h"\n#include "../core/array.h"\n#include <math.h>\n'
      .. '#include "../kernels/kernels.h"\n#include "../backprop.h"\n/* lua_State, cblas_dgemm */ "printf(" // abort\n',
      exists))
    assert.same({}, violations("src/ops/math.c", '#include "backprop.h"\n#include "core/array.h"\n', exists))
    assert.same({}, violations("src/binding/module.c", '#include <lua.h>\n#include "../tape/tape.h"\nlua_pop(L, 1);',
      exists))
    assert.same({}, violations("src/kernels/blas.c", "void cblas_dgemm(int order);\n", exists))
    assert.same({}, violations("src/backprop.h", "struct lua_State;\n#ifdef LUA_VERSION_NUM\nlua_pop(L, 2);\n#endif\n",
      exists))
  end)

  local wrong = {
    { "src/core/array.c", '#include "../kernels/kernels.h"' }, { "src/core/array.c", '#include "ops/op.h"' },
    { "src/kernels/map.c", '  # include "../tape/tape.h"' }, { "src/ops/math.c", '#include "../binding/module.h"' },
    { "src/tape/tape.c", '#include "../binding/module.h"' }, { "src/tape/tape.c", '#include "sweep.c"' },
    { "src/tape/tape.c", '#include "nowhere.h"' }, { "src/backprop.h", '#include "core/array.h"' },
    { "src/backprop.h", "#include <lua.h>" }, { "src/core/array.c", "#include <lauxlib.h>" },
    { "src/tape/tape.c", "#include <lua5.4/lua.h>" }, { "src/ops/linalg.c", "#include <cblas.h>" },
    { "src/ops/linalg.c", "int f(void) { cblas_dgemm(1); }" },
    { "src/binding/module.c", "openblas_set_num_threads(1);" },
    { "src/tape/tape.c", "lua_State *L;" }, { "src/tape/tape.c", "luaL_error(L, 1);" },
    { "src/backprop.h", "void f(lua_State *L);" }, { "src/core/buffer.c", "/* a */ abort(); /* b */" },
    { "src/core/buffer.c", 'char c = \'"\'; printf("x");' }, { "src/kernels/map.c", "assert(x > 0);" },
    { "src/extra/file.c", "" }, { "src/loose.c", "" },
  }
  for _, case in ipairs(wrong) do
    it(("refuse %s in %s"):format(case[2], case[1]), function()
      assert.is_true(#violations(case[1], case[2] .. "\n", exists) > 0)
    end)
  end
end)

describe("src/", function()
  local files = sources()

  it("has files in every layer", function()
    local seen = {}
    for path in pairs(files) do seen[layer_of(path) or path] = true end
    for layer in pairs(order) do assert.is_true(seen[layer], layer) end
    assert.is_true(seen["src/backprop.h"])
  end)

  it("keeps the order of the layers", function()
    local found = {}
    for path, text in pairs(files) do
      local list = violations(path, text, function(other) return files[other] ~= nil end)
      table.move(list, 1, #list, #found + 1, found)
    end
    table.sort(found)
    assert.equal("", table.concat(found, "\n"))
  end)

  it("opens every file with what it holds", function()
    for path, text in pairs(files) do
      assert.truthy(text:find "^/%*" or text:find '^#include "', path .. " has no header") -- the .h of a .c has it
      if path:find "%.h$" then assert.truthy(text:find "^/%*", path .. " has no header") end
    end
  end)
end)

describe("the Makefile", function()
  it("never has -ffast-math or its parts in a flag", function()
    local file <close> = assert(io.open "Makefile")
    for line in file:lines() do
      local flags = line:gsub("#.*", "")
      for _, flag in ipairs{ "-ffast-math", "-Ofast", "-funsafe-math", "-ffinite-math", "-fassociative-math" } do
        assert.falsy(flags:find(flag, 1, true), line)
      end
    end
  end)
end)
