-- The library as a host sees it: libbackprop.a and .so with the Lua files inside. Held here: what they export, that no
-- object has state of its own (.data, .bss, COMMON), that the chunks inside are the files of lua/backprop and raise
-- errors at the user's line, that two copies in one Lua state keep apart, what `make install` puts where, and that
-- examples/embed runs with both forms and finds all its claims true.

package.path = "./spec/?.lua;" .. package.path
local shell = require "support.shell"

local quote, run, succeeds = shell.quote, shell.run, shell.succeeds
local lua = os.getenv "LUA" or "lua5.4"
local function built(name) return quote(shell.build .. "/" .. name) end

local function lines_of(text)
  local list = {}
  for line in text:gmatch "[^\n]+" do list[#list + 1] = line end
  return list
end

-- A Lua script in a process of its own; `%s` is the path of libbackprop.so.
local function script(text)
  local path = os.tmpname()
  local file <close> = assert(io.open(path, "w"))
  assert(file:write((text:gsub("LIBRARY", ("%q"):format(shell.build .. "/libbackprop.so")))))
  file:close()
  local out, code = run("/", lua .. " " .. path,
    ("LUA_PATH_5_4=%s LUA_CPATH_5_4=%s"):format(quote(shell.root .. "/lua/?.lua;" .. shell.root .. "/lua/?/init.lua"),
      quote(shell.root .. "/lua/?.so")))
  os.remove(path)
  return succeeds(out, code), path
end

describe("libbackprop", function()
  it("exports bp_preload and luaopen_backprop, and nothing else that could clash with a host", function()
    for _, command in ipairs{ "nm -g --defined-only " .. built "libbackprop.a",
      "nm -D --defined-only " .. built "libbackprop.so" } do
      local names = {}
      for _, line in ipairs(lines_of(succeeds(run("/", command)))) do
        local kind, name = line:match "^%x+ (%a) (%S+)$"
        if kind and not (shell.instrumented and name:find "^_") then names[#names + 1] = kind .. " " .. name end
      end
      table.sort(names)
      assert.same({ "T bp_preload", "T luaopen_backprop" }, names, command)
    end
  end)

  it("has the files of lua/backprop inside, and needs none of them, nor io, os or debug", function()
    local out = script [[
      package.path, package.cpath, io, os, debug = "", ""
      local bp = assert(package.loadlib(LIBRARY, "luaopen_backprop"))()
      for name in pairs(package.preload) do print(name) end
      assert(bp.grad(function(x) return x * x end)(3) == 6 and bp.include_dir == nil)
      assert(select(2, pcall(bp.data.csv, "x.csv")):find "bp.data.csv: this Lua state has no io library")
    ]]
    local found = lines_of(out)
    local wanted = { "backprop.core" }
    for _, path in ipairs(lines_of(succeeds(run(shell.root .. "/lua", "find backprop -name '*.lua'")))) do
      if path ~= "backprop/meta.lua" then -- annotations for the language server: no module
        wanted[#wanted + 1] = path:gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", ".")
      end
    end
    table.sort(found)
    table.sort(wanted)
    assert.same(wanted, found)
  end)

  it("raises errors at the user's own line", function()
    local out, path = script [[
      local bp = assert(package.loadlib(LIBRARY, "luaopen_backprop"))()
      print(select(2, pcall(function() return bp.matmul(bp.zeros(2, 2), bp.zeros(3)), 1 end)))
      print(select(2, pcall(function() return bp.map(7, {}), 1 end)))
      print(select(2, pcall(function() return bp.optim.sgd{ rate = 1 }, 1 end)))
    ]]
    local lines = lines_of(out)
    assert.equal(3, #lines, out)
    for k, line in ipairs(lines) do assert.equal(("%s:%d: bp."):format(path, k + 1), line:sub(1, #path + 7), line) end
  end)

  it("lives beside the module on disk in one state, without mixing with it", function()
    local out = script [[
      local here = require "backprop"
      for name in pairs(package.loaded) do if name:find "^backprop" then package.loaded[name] = nil end end
      local inside = assert(package.loadlib(LIBRARY, "luaopen_backprop"))()
      assert(package.loaded["backprop.core"] ~= nil and inside ~= here)
      local x, y = here.vector{ 1, 2 }, inside.vector{ 3, 4 }
      local function f(bp) return function(v) return bp.sum(v * v) end end
      print(here.grad(f(here))(x), inside.grad(f(inside))(y))
      print((select(2, pcall(here.sum, y))))
      print((select(2, pcall(inside.grad(function(v) return here.sum(v) end), y))))
    ]]
    local lines = lines_of(out)
    assert.equal("vector 2 f64 [2, 4]\tvector 2 f64 [6, 8]", lines[1])
    assert.is_truthy(lines[2]:find "bp%.sum: .*expected a number, vector or matrix, got array", out)
    assert.is_truthy(lines[3]:find "bp%.sum: .*expected a number, vector or matrix, got tracked value", out)
  end)

  it("has a header that C++ takes", function()
    if run("/", "command -v c++") == "" then pending "no c++ here"; return end
    local source = '#include <lua.hpp>\n#include "backprop.h"\n'
      .. "const bp_api *f(lua_State *L) { bp_preload(L); return bp_get_api(L); }\n"
    succeeds(run("/", ("sh -c %s"):format(quote(("printf %%s %s | c++ -x c++ -Wall -Wextra -Werror -fsyntax-only "
      .. "-I/usr/include/lua5.4 -I%s -"):format(quote(source), quote(shell.root .. "/src"))))))
  end)
end)

-- Every Lua state has a context of its own; what is neither const nor on the stack would be shared by all of them. A
-- pointer in a const table is filled in when the library is loaded (.data.rel.ro) and never again.
local function mutable_objects(folders)
  local found, objects = {}, 0
  local command = ("find %s -name '*.o' -exec objdump -h -t {} +"):format(folders)
  local object
  for _, line in ipairs(lines_of(succeeds(run("/", command)))) do
    object = line:match "^(%S+):%s+file format" or object
    if line:find "file format" then objects = objects + 1 end
    local section, size = line:match "^%s*%d+ (%.%S+)%s+(%x+)"
    local kind = section and section:match "^%.t?(%a+)" -- also thread-local: a state may move to another thread
    if (kind == "data" or kind == "bss") and not section:find "^%.data%.rel%.ro" and tonumber(size, 16) > 0 then
      found[#found + 1] = ("%s: %s holds %d bytes"):format(object, section, tonumber(size, 16))
    end
    local common = line:match "%*COM%*%s+%x+%s+(.*)$"
    if common then found[#found + 1] = ("%s: COMMON %s"):format(object, common) end
  end
  return found, objects
end

describe("the objects", function()
  it("hold no state: nothing in .data, .bss or COMMON", function()
    if shell.instrumented then pending "instrumented objects hold counters"; return end
    local folders = {}
    for _, layer in ipairs{ "core", "kernels", "ops", "tape", "binding" } do folders[#folders + 1] = built(layer) end
    local found, objects = mutable_objects(table.concat(folders, " ") .. " " .. built "embedded.o")
    assert.is_true(objects > 40, objects)
    assert.same({}, found)
  end)

  it("are seen to hold state where they do", function()
    local folder = shell.folder()
    succeeds(run(folder, [[sh -c 'printf "int calls; " >a.c; printf "static int n = 3; int f(void) { return n++; }" >b.c
      printf "static int n; int f(void) { return n++; }" >c.c
      printf "static _Thread_local int n; int f(void) { return n++; }" >d.c
      printf "extern int x; int *const p = &x; const int q = 3;" >e.c
      cc -fPIC -fcommon -c a.c b.c c.c d.c e.c']]))
    local found, objects = mutable_objects(quote(folder))
    shell.remove(folder)
    assert.equal(5, objects)
    assert.equal(4, #found, table.concat(found, "\n"))
    assert.is_falsy(table.concat(found):find "/e%.o")
  end)
end)

describe("examples/embed", function()
  local folder
  setup(function() folder = shell.folder() end)
  teardown(function() shell.remove(folder) end)

  -- Builds it and runs it: all claims are true, and there are as many as there should be.
  local function holds(options, environment)
    local make = ("make -B OUT=%s %s"):format(quote(folder), options)
    local text = succeeds(run(shell.root .. "/examples/embed", make))
    assert.is_nil(text:find "%[%-W") -- a warning of the compiler
    text = succeeds(run(shell.root .. "/examples/embed", quote(folder .. "/host") .. " train.lua ../data/digits.csv",
      environment))
    local _, claims = text:gsub("\nok ", "")
    assert.equal(13, claims + 1, text)
    assert.is_nil(text:find "WRONG")
  end

  it("finds all its claims true; without its data it exits with 2", function()
    if shell.instrumented then pending "an instrumented library links with its own kind"; return end
    holds("BACKPROP_LIBS=" .. quote("../../" .. shell.build_below_root .. "/libbackprop.a -lopenblas"))
    assert.equal(2, select(2, run("/", quote(folder .. "/host"))))
  end)

  it("finds them true with the installed shared library, too, by pkg-config", function()
    if shell.instrumented then pending "an instrumented library links with its own kind"; return end
    local prefix = quote(folder .. "/prefix")
    succeeds(run(shell.root, ("make BUILD=%s PREFIX=%s install"):format(quote(shell.build_below_root), prefix)))
    local pc = "PKG_CONFIG_PATH=" .. quote(folder .. "/prefix/lib/pkgconfig")
    local cflags = succeeds(run("/", "pkg-config --cflags backprop", pc)):gsub("%s+$", "")
    local libs = succeeds(run("/", "pkg-config --libs backprop", pc)):gsub("%s+$", "")
    assert.equal("-I" .. folder .. "/prefix/include", cflags)
    assert.equal("-L" .. folder .. "/prefix/lib -lbackprop", libs)
    holds(("BACKPROP_CFLAGS=%s BACKPROP_LIBS=%s"):format(quote(cflags), quote(libs)),
      "LD_LIBRARY_PATH=" .. quote(folder .. "/prefix/lib"))
  end)
end)

describe("make install", function()
  it("puts everything below DESTDIR and names the final folders", function()
    local folder = shell.folder()
    succeeds(run(shell.root, ("make BUILD=%s DESTDIR=%s PREFIX=/opt/x install"):format(
      quote(shell.build_below_root), quote(folder))))
    local files = lines_of(succeeds(run(folder, "sh -c 'find opt -type f -not -name \"*.lua\" | sort'")))
    local pc = succeeds(run(folder, "cat opt/x/lib/pkgconfig/backprop.pc"))
    local rest = succeeds(run(folder, "ls"))
    shell.remove(folder)
    assert.equal("opt\n", rest)
    assert.same({ "opt/x/include/backprop.h", "opt/x/lib/libbackprop.a", "opt/x/lib/libbackprop.so",
      "opt/x/lib/lua/5.4/backprop/core.so", "opt/x/lib/pkgconfig/backprop.pc",
      "opt/x/share/lua/5.4/backprop/include/backprop.h" }, files)
    assert.is_truthy(pc:find("libdir=/opt/x/lib\n", 1, true), pc)
    assert.is_truthy(pc:find("includedir=/opt/x/include\n", 1, true), pc)
    assert.is_truthy(pc:find "\nVersion: scm%-1\n", pc)
    assert.is_nil(pc:find "@%u", pc)
  end)
end)
