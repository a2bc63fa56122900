--[[
Records: tables with declared fields.

A record is a plain Lua table with its fields as raw keys, so that reading one is a table read, and the metatable of its
type. That metatable is met only when something else is read: a method, or a mistake. A record type is an empty table
that can be called; what it knows stands in `described`, as it does for the other types a field may have: a kind
("matrix"), bp.list(Type), bp.static.

A type's description has name (for messages), misfit(value), and

  of a record type   fields ({name, type}, declared order), declared (name -> field), methods, metatable, lenses
  of a list type     element (the description of its elements)
  of bp.static       static = true

misfit(value) is nil if the value fits; if not, it gives the path inside the value, what was expected, and what is
there. Paths are built on the way back up only, so that checking what fits makes no garbage.
]]

local core = require "backprop.core"
local tree = require "backprop.tree"
local lens = require "backprop.lens"

local kind, raise = core.kind, core.raise
local join, describe = tree.join, tree.describe

local record = {}

local described = setmetatable({}, {__mode = "k"})

-- Types of fields -------------------------------------------------------------------------------------------------

-- What is expected; where a plain table stands instead, also what makes it of that, if anything does.
local function wanted(name, constructor, value)
  local advises = constructor and type(value) == "table" and not getmetatable(value)
  return tree.article(name) .. (advises and (" (write %s{...})"):format(constructor) or "")
end

local kinds = {}
for name, constructor in pairs {number = false, vector = "bp.vector", matrix = "bp.matrix"} do
  kinds[name] = {name = name, misfit = function(value)
    if kind(value) ~= name then return "", wanted(name, constructor, value), value end
  end}
end

local anything = {name = "value", misfit = function(value)
  if value == nil then return "", "a value", nil end
end}

local TYPE_OBJECT = {__tostring = function(object) return "bp." .. described[object].name end}
tree.opaque(TYPE_OBJECT, "type")

--- The type of a field that is a setting: never tracked, kept as it is.
record.static = setmetatable({}, TYPE_OBJECT)
described[record.static] = {name = "static", static = true, misfit = anything.misfit}

local function under(key, path)
  return path:find("^%[") and join("", key) .. path or path == "" and join("", key) or join("", key) .. "." .. path
end

local function list_misfit(element, value)
  if not tree.is_branch(value) or tree.record_type(value) then return "", "a list", value end
  local count = #value
  for key in next, value do
    if math.type(key) ~= "integer" or key < 1 or key > count then return "", "a list", value end
  end
  for i = 1, count do
    local path, expected, got = element.misfit(value[i])
    if path then return under(i, path), expected, got end
  end
end

local function description(where, Type)
  local info = kinds[Type] or described[Type]
  if not info then
    raise("%s: expected a type (a record type, \"number\", \"vector\", \"matrix\", bp.list(Type) or bp.static), got %s",
      where, type(Type) == "string" and ("%q"):format(Type) or describe(Type))
  end
  return info
end

--- The type of a list whose elements are all of one type.
function record.list(Type, surplus)
  tree.no_more("bp.list", 1, surplus)
  local element = description("bp.list", Type)
  if element.static then raise("bp.list: the field as a whole is bp.static, not its elements") end
  local object = setmetatable({}, TYPE_OBJECT)
  described[object] = {
    name = (kinds[Type] and "list(%q)" or "list(%s)"):format(element.name), element = element,
    misfit = function(value) return list_misfit(element, value) end,
  }
  return object
end

-- Arithmetic ------------------------------------------------------------------------------------------------------
-- Leaf by leaf, by the leaves' own operators; for instances of a class, by what the class can do.

local by_class = {
  ["+"] = function(class, x, y) return class.add(x, y) end,
  ["-"] = function(class, x, y) return class.add(x, class.scale(y, -1.0)) end,
  ["*"] = function(class, x, s) return class.scale(x, s) end,
  ["/"] = function(class, x, s) return class.scale(x, 1 / s) end,
}

local function arithmetic(symbol, operate)
  local name = symbol .. " of records"
  local additive = symbol == "+" or symbol == "-"

  local function apply(x, y)
    if kind(x) and kind(y) then return operate(x, y) end
    if symbol == "*" and kind(x) then x, y = y, x end
    local class, other = tree.class_of(x), tree.class_of(y)
    local possible = additive and class == other or not additive and kind(y) == "number"
    if not class or not possible or symbol ~= "+" and not class.scale then
      raise("%s: not defined for %s and %s", name, describe(x), describe(y))
    end
    return by_class[symbol](class, x, y)
  end

  local function apply_pair(where, x, y)
    local sort = kind(x)
    if sort == "number" and kind(y) then return operate(x, y) end
    local trouble = sort and tree.mismatch(x, y)
    if trouble then raise("%s: at %s: %s", name, where(), trouble) end
    return apply(x, y)
  end

  return function(a, b)
    local type_a, type_b = tree.record_type(a), tree.record_type(b)
    local two = type_a and type_a == type_b
    if not two and not (type_a and kind(b) == "number") and not (type_b and kind(a) == "number") then
      raise("%s: expected two of one type, or a record and a number; got %s and %s", name, describe(a), describe(b))
    end
    local result = tree.short(core.arithmetic, name, symbol, a, b)
    if result then return result end
    if two then return tree.map_at(name, apply_pair, a, b) end
    if type_a then return tree.map(name, function(x) return apply(x, b) end, a) end
    return tree.map(name, function(y) return apply(a, y) end, b)
  end
end

local times = arithmetic("*", function(x, y) return x * y end)

local operators = {
  __add = arithmetic("+", function(x, y) return x + y end),
  __sub = arithmetic("-", function(x, y) return x - y end),
  __mul = times,
  __div = arithmetic("/", function(x, y) return x / y end),
  __unm = function(a) return times(a, -1.0) end,
}

local function refuse(event, symbol, advice)
  operators[event] = function(a, b)
    raise("%s of records: not defined for %s and %s; %s", symbol, describe(a), describe(b), advice)
  end
end

refuse("__pow", "^", "bp.map(function(leaf) return leaf ^ 2 end, record) goes leaf by leaf")
refuse("__mod", "%", "use bp.map with a function of the leaf")
refuse("__idiv", "//", "use `/`, or bp.map with a function of the leaf")
refuse("__concat", "..", "tostring(record) makes a string, bp.concat joins arrays")

-- Printing --------------------------------------------------------------------------------------------------------

local function summary(x, within)
  local sort = kind(x)
  local prefix = sort and core.tracked(x) and "tracked " or ""
  if sort == "number" then return prefix == "" and ("%.14g"):format(x) or prefix .. "number" end
  if sort == "vector" then return ("%svector %d %s"):format(prefix, (x:shape()), x:dtype()) end
  if sort == "matrix" then
    local rows, columns = x:shape()
    return ("%smatrix %dx%d %s"):format(prefix, rows, columns, x:dtype())
  end
  if type(x) == "string" then return ("%q"):format(x) end
  if not tree.is_branch(x) then return tostring(x) end
  if within[x] then return "(itself)" end
  within[x] = true
  local Type = tree.record_type(x)
  local items = {}
  local function item(key, value)
    local label = math.type(key) == "integer" and key == #items + 1 and "" or join("", key) .. " = "
    items[#items + 1] = label .. summary(value, within)
  end
  if Type then
    for _, field in ipairs(described[Type].fields) do item(field.name, rawget(x, field.name)) end
  else
    for _, key in ipairs(tree.keys(x, "tostring")) do item(key, x[key]) end
  end
  within[x] = nil
  return ("%s{%s}"):format(Type and described[Type].name or "", table.concat(items, ", "))
end

-- Record types ----------------------------------------------------------------------------------------------------

local function field_names(info)
  if #info.fields == 0 then return "it has no fields" end
  local names = {}
  for i, field in ipairs(info.fields) do names[i] = field.name end
  return "its fields: " .. table.concat(names, ", ")
end

local function raise_unknown(info, what, key)
  raise("%s: no %s %s; %s", info.name, what, type(key) == "string" and "'" .. key .. "'" or "[" .. tostring(key) .. "]",
    field_names(info))
end

local function record_misfit(info, value)
  if getmetatable(value) ~= info.metatable then
    return "", wanted(info.name, info.name, value), value
  end
  local fields = info.fields
  for i = 1, #fields do
    local field = fields[i]
    local path, expected, got = field.type.misfit(rawget(value, field.name))
    if path then return under(field.name, path), expected, got end
  end
end

local function check_field(info, field, value)
  local path, expected, got = field.type.misfit(value)
  if path then raise("%s.%s: expected %s, got %s", info.name, under(field.name, path), expected, describe(got)) end
end

local function construct(info, contents, surplus)
  tree.no_more(info.name, 1, surplus)
  if type(contents) ~= "table" then
    raise("%s: expected a table of fields, got %s; %s", info.name, describe(contents), field_names(info))
  end
  for key in next, contents do
    if not info.declared[key] then raise_unknown(info, "field", key) end
  end
  local result = {}
  for i = 1, #info.fields do
    local field = info.fields[i]
    local value = rawget(contents, field.name)
    if value == nil then raise("%s: the field '%s' is missing; %s", info.name, field.name, field_names(info)) end
    check_field(info, field, value)
    result[field.name] = value
  end
  return setmetatable(result, info.metatable)
end

local function parse_fields(name, ...)
  local fields, declared = {}, {}
  for i = 1, select("#", ...) do
    local given = select(i, ...)
    local field, Type = given, nil
    if type(given) == "table" then
      field, Type = given[1], given[2]
      if #given > 2 then raise("bp.record: %s: a field is a name or {name, Type}, field %d has more", name, i) end
    end
    if type(field) ~= "string" or field == "" then
      raise("bp.record: %s: expected a name or {name, Type} as field %d, got %s", name, i, describe(field))
    elseif declared[field] then
      raise("bp.record: %s: the field '%s' is declared twice", name, field)
    end
    local info = anything
    if type(given) == "table" and #given > 1 then
      info = description(("bp.record: %s.%s"):format(name, field), Type)
    end
    fields[i] = {name = field, type = info}
    declared[field] = fields[i]
  end
  return fields, declared
end

-- What may be assigned to a record type as a metamethod of its records; the others keep a record what it is.
local own_metamethods = {
  __call = true, __tostring = true, __eq = true, __lt = true, __le = true, __len = true, __close = true,
}

local function define_method(info, name, f)
  if type(name) ~= "string" or f ~= nil and not tree.callable(f) then
    raise("%s: only functions are assigned to a record type, as methods", info.name)
  elseif info.declared[name] then
    raise("%s: '%s' is a field, a method cannot have that name", info.name, name)
  elseif name == "is" or name == "lens" then
    raise("%s: '%s' is the record type's own", info.name, name)
  elseif own_metamethods[name] then
    info.metatable[name] = f
  elseif name:find("^__") then
    raise("%s: the metamethod %s cannot be defined for a record", info.name, name)
  end
  info.methods[name] = f
end

local function new_metatable(info)
  local metatable = {__name = info.name}
  for event, f in next, operators do metatable[event] = f end
  metatable.__index = info.methods
  metatable.__tostring = function(x) return summary(x, {}) end
  metatable.__newindex = function(x, key, value)
    if rawget(info.methods, key) then raise("%s: '%s' is a method, no field can have that name", info.name, key) end
    if not info.declared[key] then raise_unknown(info, "field", key) end
    rawset(x, key, value) -- a declared field that had been set to nil
  end
  setmetatable(info.methods, {__index = function(_, key)
    if info.declared[key] then raise("%s: the field '%s' is nil", info.name, key) end
    raise_unknown(info, "field or method", key)
  end})
  return metatable
end

local function new_lenses(info)
  local lenses = {}
  for _, field in ipairs(info.fields) do
    lenses[field.name] = lens.field {
      owner = info.name, metatable = info.metatable, key = field.name, focus = field.type,
      misfit = field.type.misfit,
    }
  end
  local metatable = {
    __name = "lenses",
    __index = setmetatable(lenses, {__index = function(_, key) raise_unknown(info, "field", key) end}),
    __newindex = function() raise("%s.lens: the lenses of a record type cannot be changed", info.name) end,
    __tostring = function() return info.name .. ".lens" end,
  }
  tree.opaque(metatable, "table of lenses")
  return setmetatable({}, metatable)
end

local function declare(info)
  local keys, constants = {}, {}
  for _, field in ipairs(info.fields) do
    local names = field.type.static and constants or keys
    names[#names + 1] = field.name
  end
  local Type = {}
  local own = setmetatable({
    lens = info.lenses,
    is = function(x) return getmetatable(x) == info.metatable end,
  }, {__index = function(_, key) return rawget(info.methods, key) end})
  local metatable = {
    __name = "record type",
    __call = core.keep_line(function(_, contents, surplus) return construct(info, contents, surplus) end),
    __index = own,
    __newindex = function(_, key, f) define_method(info, key, f) end,
    __tostring = function() return "record type " .. info.name end,
  }
  tree.opaque(metatable, "record type")
  tree.declare(info.metatable, {name = info.name, type = Type, keys = keys, constants = constants})
  described[Type] = info
  return setmetatable(Type, metatable)
end

--- A record type with these fields, each "name" or {"name", Type}.
function record.record(name, ...)
  if type(name) ~= "string" or name == "" then
    raise("bp.record: expected a name first, got %s", name == "" and "an empty string" or describe(name))
  end
  local info = {name = name, methods = {}}
  info.fields, info.declared = parse_fields(name, ...)
  info.misfit = function(value) return record_misfit(info, value) end
  info.metatable = new_metatable(info)
  info.lenses = new_lenses(info)
  return declare(info)
end

return record
