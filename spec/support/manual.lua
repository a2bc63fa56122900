-- The manual: what LDoc reads, made from the annotations in lua/backprop/meta.lua, whose operations' part is first
-- compared with the rows.
--
--   lua5.4 spec/support/manual.lua FOLDER        writes FOLDER/backprop.lua, comments for LDoc (see `make doc`)
--   lua5.4 spec/support/manual.lua --annotations writes the operations' part of meta.lua anew (see `make annotations`)

package.path = "./spec/?.lua;" .. package.path
local annotations = require "support.annotations"

local manual = {}

-- Types as LDoc shows them: one word, without our prefix; a table written out is a table, the text says the rest.
local function type_of(text, item)
  text = text:gsub("^%((.*)%)(.*)$", "%1%2"):gsub("backprop%.", ""):gsub("%b{}", "table")
  text = text:gsub("fun%b():?%s?%S*", "function"):gsub("table%b<>", "table")
  if item.generic then text = text:gsub("^T$", (item.generic.bound:gsub("backprop%.", ""))) end
  text = text:gsub("[%w_|]+%[%]%[%]", "{{number,...},...}"):gsub("([%w_]+)%[%]", "{%1,...}"):gsub("%?$", "")
  return (text:gsub("%s+", ""))
end

local function add(lines, text) lines[#lines + 1] = text end

local function comment(lines, text)
  for i, line in ipairs(text) do add(lines, (i == 1 and "--- " or "-- ") .. line) end
end

local function public_name(item)
  return item.owner .. (item.method and ":" or ".") .. item.name
end

local function write_function(lines, item)
  comment(lines, item.text)
  add(lines, "-- @function " .. public_name(item))
  for _, param in ipairs(item.params) do
    add(lines, ("-- @tparam%s %s %s %s"):format(param.optional and "[opt]" or "", type_of(param.type, item), param.name,
      param.text))
  end
  for _, result in ipairs(item.results) do
    add(lines, ("-- @treturn %s %s"):format(type_of(result.type, item), result.text))
  end
  if #item.raises > 0 then add(lines, "-- @raise " .. table.concat(item.raises, " "):gsub("^Raises,? ?", "")) end
  add(lines, "")
end

local function write_fields(lines, item, owner)
  local methods = {}
  for _, field in ipairs(item.fields) do
    local of = field.text:match("^See `bp%.([%w_]+)`%.$")
    if of then
      methods[#methods + 1] = of
    elseif not field.name:find("^%[") and field.text ~= "" then
      comment(lines, { field.text })
      add(lines, ("-- @field %s.%s"):format(owner, field.name))
      add(lines, "")
    end
  end
  if #methods > 0 then
    comment(lines, { "Operations as methods: `x:exp()` is `bp.exp(x)`. They are:", table.concat(methods, ", ") .. "." })
    add(lines, "-- @field x:operation")
    add(lines, "")
  end
end

local function write_class(lines, item)
  local text = { item.name .. "." }
  table.move(item.text, 1, #item.text, 2, text)
  table.move(item.raises, 1, #item.raises, #text + 1, text)
  comment(lines, text)
  add(lines, "-- @section " .. item.name)
  add(lines, "")
  write_fields(lines, item, item.name)
end

-- A class of which there is nothing but its text, such as that of lenses.
local function write_table(lines, item)
  comment(lines, item.text)
  add(lines, "-- @table " .. item.name)
  add(lines, "")
end

-- The items by section: those of the module first, then each class with its methods.
local function arranged(items)
  local sections, by_name, classes = {}, {}, {}
  for _, item in ipairs(items) do
    local owner = item.owner
    if item.kind == "class" and (item.name == "backprop" or not item.table) or owner and owner:find("^bp") then
      local name = item.section or "About the module"
      if not by_name[name] then
        by_name[name] = { name = name }
        sections[#sections + 1] = by_name[name]
      end
      table.insert(by_name[name], item)
    else
      classes[#classes + 1] = item
    end
  end
  -- The methods that come from operations stand with the class, whose annotation comes first.
  local rank = {}
  for i, item in ipairs(classes) do
    local name = item.kind == "class" and item.name or item.owner
    rank[name] = rank[name] or i
    item.rank = rank[name] * 1000 + i
  end
  table.sort(classes, function(a, b) return a.rank < b.rank end)
  return sections, classes
end

--- The text of a Lua file of comments for LDoc.
function manual.text(items)
  local lines = {}
  comment(lines, {
    "Reverse-mode automatic differentiation.", "`local bp = require \"backprop\"` gives what is below.",
    "A `value` is a number or an array, an `array` a vector or a matrix, each plain or tracked; a `dtype` is \"f64\"",
    "or \"f32\", an `axis` 1 or 2. Every function raises an error at the caller's own line for arguments of a wrong",
    "kind, count, shape or dtype; what else it raises is said with it.", "@module backprop",
  })
  add(lines, "")
  local sections, classes = arranged(items)
  for _, section in ipairs(sections) do
    local title = section.name:gsub(",.*", "")
    comment(lines, { title .. ".", "@section " .. title:gsub("%W", "_") })
    add(lines, "")
    for _, item in ipairs(section) do
      if item.kind == "function" then
        write_function(lines, item)
      elseif item.name == "array" then
        write_fields(lines, item, "x")
      elseif item.table then
        write_fields(lines, item, "bp")
      elseif #item.text > 0 then
        write_table(lines, item)
      end
    end
  end
  for _, item in ipairs(classes) do
    if item.kind == "class" then write_class(lines, item) else write_function(lines, item) end
  end
  add(lines, "return nil")
  return table.concat(lines, "\n") .. "\n"
end

local function write(path, text)
  local file <close> = assert(io.open(path, "w"))
  assert(file:write(text))
end

local function rows()
  local core = require "backprop.core"
  local bp = require "backprop"
  return bp.ops(), function(name) return core.methods[name] ~= nil end
end

local function main(argument)
  local content = annotations.content()
  local renewed = annotations.renewed(content, rows())
  if argument == "--annotations" then return write(annotations.path, renewed) end
  if renewed ~= content then
    error(annotations.path .. " does not agree with the rows of the operations: run `make annotations`", 0)
  end
  write(argument .. "/backprop.lua", manual.text(annotations.parse(content)))
end

if arg and arg[0] and arg[0]:find("manual%.lua$") then main(arg[1]) end

return manual
