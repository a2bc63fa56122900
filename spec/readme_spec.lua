-- README.md: every block marked ```lua is run, each in an environment of its own, so that a newcomer who copies one
-- gets what the page promises. A block that does not say `require "backprop"` finds it as `bp`. A line that ends in
-- `--> text` must be one that prints, and the text printed from there must be that text. Paths are the checkout's.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"

-- The blocks of a page: { line where the code begins, code }.
local function blocks(text)
  local list, code, line = {}, nil, 0
  for s in (text .. "\n"):gmatch("(.-)\r?\n") do
    line = line + 1
    if code and s:find("^%s*```%s*$") then
      list[#list].code = table.concat(code, "\n")
      code = nil
    elseif code then
      code[#code + 1] = s
    elseif s:find("^%s*```lua%s*$") then
      code = {}
      list[#list + 1] = { line = line + 1 }
    end
  end
  assert(code == nil, "a ```lua block has no end")
  return list
end

-- Runs a block; returns all that it printed. Lines of errors are lines of the page.
local function run(block, name)
  local printed = {}
  local function write(...)
    for _, x in ipairs{ ... } do printed[#printed + 1] = tostring(x) end
  end
  local env = setmetatable({ bp = bp, arg = { [0] = "README.lua" } }, { __index = _G })
  function env.print(...)
    local parts = table.pack(...)
    for i = 1, parts.n do parts[i] = tostring(parts[i]) end
    write(table.concat(parts, "\t"), "\n")
  end
  env.io = setmetatable({ write = function(...)
    write(...)
    return io.stdout
  end }, { __index = io })
  local code = ("\n"):rep(block.line - 1) .. block.code
  assert(load(code, "@" .. name, "t", env))()
  return table.concat(printed)
end

-- What the comments `--> text` promise, in order, must be found in that order in what was printed.
local function keeps_promises(block, printed, name)
  local from, line = 1, block.line - 1
  for s in (block.code .. "\n"):gmatch("(.-)\n") do
    line = line + 1
    local promise = s:match("%-%->%s*(.-)%s*$")
    if promise and promise ~= "" then
      local _, last = printed:find(promise, from, true)
      if not last then error(("%s:%d: promises %q, printed was:\n%s"):format(name, line, promise, printed), 0) end
      from = last + 1
    end
  end
end

describe("README.md", function()
  local file = assert(io.open("README.md", "rb"), "the specs run from the top of the checkout")
  local text = file:read("a")
  file:close()
  local list = blocks(text)

  it("has examples in Lua", function()
    assert(#list >= 1)
    assert(list[1].line < 60, "the first example should stand near the top")
  end)

  for _, block in ipairs(list) do
    it("the block at line " .. block.line .. " runs and prints what it promises", function()
      local globals = {}
      for k in pairs(_G) do globals[k] = true end
      keeps_promises(block, run(block, "README.md"), "README.md")
      for k in pairs(_G) do assert(globals[k], "a global was left behind: " .. tostring(k)) end
    end)
  end

  it("names everything that is public, and nothing that is not there", function()
    local named = { _VERSION = true, include_dir = true }
    local section = text:match("\n## Names\n(.-)\n## ")
    for line in section:gmatch("[^\n]+") do
      local name_of_row, row = line:match("^| (%l[%l -]*) | (.*) |$")
      for names in (row or ""):gmatch("`([^`]+)`") do
        for name in names:gmatch("%S+") do
          local place = bp
          for part in name:gmatch("[^.]+") do
            place = place[part]
            assert(place ~= nil, name_of_row .. ": there is no bp." .. name)
          end
          named[name:match("^[^.]+")] = true
        end
      end
    end
    for name in pairs(bp) do assert(named[name], "bp." .. name .. " is not named") end
  end)

  it("names the two set-up commands", function()
    assert(text:find("make demo", 1, true) and text:find("make test", 1, true))
  end)
end)

describe("the runner itself", function()
  local page = table.concat({
    "text", "```sh", "make", "```", "```lua", "print(1 + 1, 'x') --> 2", "```", "",
    "```lua", "local x = nil", "x()", "```",
    "  ```lua", "  y = bp.grad(function(x) return x * x end)(3); io.write(y) --> 7", "  ```",
  }, "\n")

  it("finds the blocks, keeps environments apart, and fails where a block is wrong", function()
    local found = blocks(page)
    assert.equal(3, #found)
    assert.equal("2\tx\n", run(found[1], "page"))
    keeps_promises(found[1], "2\tx\n", "page")
    local ok, message = pcall(run, found[2], "page")
    assert(not ok and message:find("page:11:", 1, true), message)
    local printed = run(found[3], "page")
    assert.equal("6.0", printed)
    help.raises("page:14", keeps_promises, found[3], printed, "page")
    assert.equal(nil, rawget(_G, "y"))
    assert(not pcall(blocks, "```lua\nx"))
  end)
end)
