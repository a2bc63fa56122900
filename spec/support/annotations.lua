-- The annotations of lua/backprop/meta.lua, read into a list of items, and those of the operations, written from rows.
-- Used by spec/gate_spec.lua, and by `make doc` and `make annotations` through spec/support/reference.lua.
--
-- An item is {kind = "function" | "class" | "table", name, owner (the local it is defined in), method, section, text,
-- raises, params, results, fields, line}; params are {name, type, optional, text}, results {type, text}, fields {name,
-- type, text}, names without the prefix "backprop.".

local annotations = { path = "lua/backprop/meta.lua" }

-- Reading -------------------------------------------------------------------------------------------------------------

-- A type at the start of a text, and the rest: brackets may hold spaces, and a function's result follows a colon.
local function split_type(text)
  local depth, position = 0, 1
  while position <= #text do
    local c = text:sub(position, position)
    if c:find("[%[{(<]") then depth = depth + 1 end
    if c:find("[%]})>]") then depth = depth - 1 end
    if c == " " and depth == 0 and not text:sub(1, position - 1):find(":$") then break end
    position = position + 1
  end
  return text:sub(1, position - 1), (text:sub(position):gsub("^%s+", ""))
end

local readers = {}

function readers.param(item, rest)
  local name, after = rest:match("^(%S+)%s+(.*)$")
  local Type, text = split_type(after)
  item.params[#item.params + 1] =
    { name = name:gsub("%?$", ""), type = Type, optional = name:find("%?$") ~= nil, text = text }
end

readers["return"] = function(item, rest)
  local Type, text = split_type(rest)
  local repeated = text:find("^%.%.%.") ~= nil
  item.results[#item.results + 1] =
    { type = Type .. (repeated and " ..." or ""), text = text:gsub("^%.%.%.", ""):gsub("^%s*#%s*", "") }
end

function readers.field(item, rest)
  local name, after = rest:match("^(%b[])%s+(.*)$")
  if not name then name, after = rest:match("^(%S+)%s+(.*)$") end
  local Type, text = split_type(after)
  item.fields[#item.fields + 1] = { name = name:gsub("%?$", ""), type = Type, text = text }
end

function readers.class(item, rest)
  item.kind, item.name = "class", rest:match("^backprop%.([%w_]+)") or rest:match("^(backprop)")
end

function readers.generic(item, rest)
  item.generic = { name = rest:match("^(%w+)"), bound = rest:match(":%s*(.+)$") }
end

local function new_item() return { params = {}, results = {}, fields = {}, text = {}, raises = {} } end

local function read_comment(item, line)
  local tag, rest = line:match("^@([%a]+)%s*(.*)$")
  if tag then
    if readers[tag] then readers[tag](item, rest) end
    item.tags = (item.tags or 0) + 1
    return
  end
  local into = (line:find("^Raises") or #item.raises > 0 and line ~= "") and item.raises or item.text
  into[#into + 1] = line
end

local function read_declaration(item, line)
  local owner, separator, name, arguments = line:match("^function ([%w_.]-)([.:])([%w_]+)%((.-)%) end$")
  if owner then
    item.kind, item.owner, item.name, item.method = "function", owner, name, separator == ":"
    item.arguments = {}
    for argument in arguments:gmatch("[^, ]+") do item.arguments[#item.arguments + 1] = argument end
    return true
  end
  local made = line:match("^local ([%w_]+) = {}$") or line:match("^([%w_.]+) = {}$")
  if made then item.table = made end
  return made ~= nil
end

--- The items of a text of annotations, in order.
function annotations.parse(text)
  local items, item, section, number = {}, new_item(), nil, 0
  for line in (text .. "\n"):gmatch("(.-)\n") do
    number = number + 1
    local comment = line:match("^%-%-%-(.*)$")
    if comment then
      item.line = item.line or number
      read_comment(item, comment)
    else
      section = line:match("^%-%- ([^-].-) %-%-%-+$") or section
      local declared = read_declaration(item, line)
      if item.kind then
        item.section = section
        items[#items + 1] = item
      elseif declared then
        error(("%s:%d: %s has no annotation"):format(annotations.path, number, line))
      end
      item = new_item()
    end
  end
  return items
end

function annotations.content()
  local file <close> = assert(io.open(annotations.path))
  return file:read("a")
end

-- Writing those of the operations -------------------------------------------------------------------------------------

local types = {
  value = "backprop.value", values = "backprop.value[]", number = "number", integer = "integer", index = "integer",
  size = "integer", axis = "backprop.axis", dtype = "backprop.dtype", indices = "integer|integer[]|backprop.vector",
  target = "backprop.array|integer|integer[]",
}

local texts = {
  index = "from 1", size = "from 0", axis = "1 runs down the rows, 2 along the columns; without it over all elements",
  indices = "from 1",
}

-- What comes out where it is not an array or number as what goes in; the gate looks at the samples.
local results = {
  dot = "number", norm = "number", trace = "number", element = "number", softmax_cross_entropy = "number",
  sigmoid_cross_entropy = "number", sum = "number|backprop.vector", mean = "number|backprop.vector",
  max = "number|backprop.vector", min = "number|backprop.vector", prod = "number|backprop.vector",
  logsumexp = "number|backprop.vector", argmax = "integer|backprop.vector", argmin = "integer|backprop.vector",
  outer = "backprop.matrix", transpose = "backprop.matrix", flatten = "backprop.vector", row = "backprop.vector",
  column = "backprop.vector", matmul = "backprop.array", linear = "backprop.array", diag = "backprop.array",
  reshape = "backprop.array", concat = "backprop.array", stack = "backprop.array", konst = "backprop.array",
}

local like_first = { slice = true, gather = true, clone = true, astype = true, softmax = true, log_softmax = true,
  clamp = true }

-- The parameters of a row, and its type of result.
local function describe(row)
  local params = {}
  for kind, name, mark, fallback in row.signature:gmatch("(%a+) (%w+)(%??)%s*=?%s*([%d.]*)") do
    params[#params + 1] = {
      name = name, type = types[kind], optional = mark == "?" or fallback ~= "",
      text = fallback ~= "" and fallback .. " if absent" or texts[kind] or "",
    }
  end
  if row.name == "concat" then params[2].text = "1, one below the other, if absent; 2 is side by side" end
  if row.name == "linear" then
    params[4] =
      { name = "activation", type = "string", optional = true, text = "the name of an element-wise operation" }
  end
  local same = like_first[row.name] or row.arity == 1 and row.source == "src/ops/math.c"
  return params, results[row.name] or same and "T" or "backprop.value", same and not results[row.name]
end

local function wrap(text, lines)
  local line = "---"
  for word in text:gmatch("%S+") do
    if #line + #word > 118 then
      lines[#lines + 1], line = line, "---"
    end
    line = line .. (line == "---" and "" or " ") .. word
  end
  lines[#lines + 1] = line
end

-- Rows that stand in the hand-written part, where a structure may stand for an array.
local elsewhere = { add = true }

--- The annotations of the operations: functions of the module, then methods of arrays.
function annotations.of_rows(rows, is_method)
  local lines, fields = {}, {}
  for _, row in ipairs(rows) do
    local params, result, generic = describe(row)
    local names, typed = {}, {}
    for i, param in ipairs(params) do
      names[i] = param.name
      typed[i] = ("%s%s: %s"):format(i == 1 and "self" or param.name, param.optional and "?" or "",
        i == 1 and "backprop.array" or param.type)
    end
    if not elsewhere[row.name] then
      wrap(row.doc, lines)
      if row.differentiable then wrap("Formula: `" .. row.formula .. "`", lines) end
      if generic then lines[#lines + 1] = "---@generic T: backprop.value" end
      for i, param in ipairs(params) do
        lines[#lines + 1] = ("---@param %s%s %s %s"):format(param.name, param.optional and "?" or "",
          generic and i == 1 and "T" or param.type, param.text):gsub(" $", "")
      end
      lines[#lines + 1] = "---@return " .. result
      lines[#lines + 1] = ("function bp.%s(%s) end\n"):format(row.name, table.concat(names, ", "))
    end
    if is_method(row.name) then
      fields[#fields + 1] = ("---@field %s fun(%s): %s See `bp.%s`."):format(row.name, table.concat(typed, ", "),
        result == "T" and "backprop.array" or result, row.name)
    end
  end
  fields[#fields + 1] = "---@field rows fun(self: backprop.array): backprop.vector[] See `bp.rows`."
  table.sort(fields)
  lines[#lines + 1] = "---Operations as methods: `x:exp()` is `bp.exp(x)`.\n---@class backprop.array"
  return table.concat(lines, "\n") .. "\n" .. table.concat(fields, "\n") .. "\n"
end

local title = "-- Operations, written by `make annotations` from their rows "
local ending = "\nreturn bp\n"

--- The text of a whole file with the operations' part made anew.
function annotations.renewed(text, rows, is_method)
  local start = text:find(title, 1, true) or #text + 1
  return text:sub(1, start - 1):gsub("%s+$", "") .. "\n\n" .. title .. ("-"):rep(120 - #title) .. "\n\n"
    .. annotations.of_rows(rows, is_method) .. ending
end

return annotations
