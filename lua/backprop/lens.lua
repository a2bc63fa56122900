--[[
Lenses: first-class parts of a structure. `T.lens.field` are made by record.lua with `lens.field`, lenses into arrays by
array_lenses.lua with `lens.atom`; the rest is here.

A lens object is an empty table; what it knows stands in `inside`, so that every key stays free for the name of a field.
(The only keys it ever gets are lenses of fields already asked for, so that asking again is a table read.) It is a list
of steps, each a table of plain data and functions that goes from a whole to a part:

  expects, accepts(step, x)         what the whole must be, in words and as a test
  get(step, x)                      the part, or nil where it is missing (only if `partial`)
  put(step, x, part)                a copy of x with another part
  parts(step, x), over(step, x, f)  instead of get and put, where there are many parts
  text, crumb                       how it is written, and how it looks in a path

`a .. b` appends the steps of b to those of a one by one and remembers every lens made on the way, so that the same
composition is the same object however it is bracketed, and a loop that composes makes no garbage. A lens of nothing but
fields is also kept as `flat`, for which `view` is a loop of table reads.
]]

local core = require "backprop.core"
local tree = require "backprop.tree"

local kind, raise = core.kind, core.raise
local getmetatable = debug and debug.getmetatable or getmetatable

local lens = {}

local LENS = {__name = "lens"}
tree.opaque(LENS, "lens")

-- A lens of fields only has them as a list, too: metatable, key, metatable, ...: for the core, which views by them.
-- lens -> {steps, flat (the steps, if all are fields), plural, partial, focus (what record.lua knows of the type of the
-- part, if declared), text (how to write it), children (what composition made of it)}
local inside = setmetatable({}, {__mode = "k"})

local function new(me)
  me.children = setmetatable({}, {__mode = "k"})
  local object = {}
  for i, step in ipairs(me.flat or {}) do object[2 * i - 1], object[2 * i] = step.metatable, step.key end
  setmetatable(object, LENS)
  inside[object] = me
  return object
end

-- The lens of one step.
local function atom(step)
  return new {
    steps = {step}, flat = step.metatable and {step}, focus = step.focus, text = step.text,
    plural = step.parts ~= nil, partial = step.partial,
  }
end

lens.atom = atom

-- Composition -----------------------------------------------------------------------------------------------------

local function append(object, step)
  local me = inside[object]
  local last = me.steps[#me.steps]
  if step.narrows and last.selects then return object end
  local child = me.children[step]
  if child then return child end
  local steps = table.move(me.steps, 1, #me.steps, 1, {})
  steps[#steps + 1] = step
  local short = step.metatable and me.flat and me.focus and me.focus.metatable == step.metatable
  child = new {
    steps = steps, flat = me.flat and step.metatable and steps,
    focus = step.focus or step.element and me.focus and me.focus.element or step.same and me.focus or nil,
    text = short and me.text .. step.crumb or me.text .. " .. " .. step.text,
    plural = me.plural or step.parts ~= nil, partial = me.partial or step.partial,
  }
  me.children[step] = child
  return child
end

local function compose(a, b)
  local me, other = inside[a], inside[b]
  if not me or not other then
    raise("bp.lens: `..` composes two lenses, got %s and %s", tree.describe(a), tree.describe(b))
  end
  local child = me.children[b]
  if child then return child end
  child = a
  for i = 1, #other.steps do child = append(child, other.steps[i]) end
  me.children[b] = child
  return child
end

LENS.__concat = compose

function LENS.__index(object, name)
  local me = inside[object]
  local focus = me.focus
  if not focus or not focus.lenses then
    raise("%s: no record type is declared for this part; name it with `.. T.lens.%s`", me.text, tostring(name))
  end
  local child = compose(object, focus.lenses[name]) -- an unknown name raises there
  rawset(object, name, child)
  return child
end

function LENS.__newindex(object)
  raise("%s: a lens cannot be changed; bp.set(x, lens, value) gives a changed copy of x", inside[object].text)
end

function LENS.__tostring(object)
  return inside[object].text
end

-- Errors ----------------------------------------------------------------------------------------------------------

-- What x is, with its shape.
local function sized(x)
  local sort = kind(x)
  if sort == "vector" then return ("a vector of %d elements"):format((x:shape())) end
  if sort == "matrix" then return ("a %dx%d matrix"):format(x:shape()) end
  return tree.describe(x)
end

lens.sized = sized

-- Where step i of a lens starts from: "Net.hidden", or "" at the first.
local function place(me, i)
  local path = {}
  for k = 1, i - 1 do path[k] = me.steps[k].crumb end
  if #path > 0 and me.steps[1].owner then table.insert(path, 1, me.steps[1].owner) end
  return (table.concat(path):gsub("^%.", ""))
end

local function misplaced(name, me, i, x)
  local whence = place(me, i)
  raise("%s: %s: expected %s%s, got %s", name, me.text, me.steps[i].expects, whence ~= "" and " at " .. whence or "",
    sized(x))
end

local function missing(name, me, i)
  raise("%s: %s: there is nothing at %s (bp.preview and bp.collect allow for that)", name, me.text, place(me, i + 1))
end

local function insider(name, object)
  local me = inside[object]
  if not me then raise("%s: expected a lens, got %s", name, tree.describe(object)) end
  return me
end

-- Getting ---------------------------------------------------------------------------------------------------------

local function view_steps(name, x, me, lenient)
  if me.plural then raise("%s: %s has many parts: bp.collect lists them", name, me.text) end
  local steps = me.steps
  for i = 1, #steps do
    local step = steps[i]
    if not step:accepts(x) then misplaced(name, me, i, x) end
    x = step:get(x, name)
    if x == nil then
      if lenient then return nil end
      missing(name, me, i)
    end
  end
  return x
end

--- The part of x. An error where it is missing, or where there are many.
lens.view = core.viewer(function(x, object, surplus)
  local me = insider("bp.view", object)
  if surplus ~= nil then raise("bp.view: expected one lens: `..` composes two") end
  return (view_steps("bp.view", x, me))
end, LENS)

-- Calls f on every part until it returns true; returns whether it did.
local function each_part(name, x, me, i, f)
  local step = me.steps[i]
  if not step then return f(x) end
  if not step:accepts(x) then misplaced(name, me, i, x) end
  if step.parts then
    local parts = step:parts(x)
    for k = 1, #parts do
      if each_part(name, parts[k], me, i + 1, f) then return true end
    end
    return false
  end
  local part = step:get(x, name)
  return part ~= nil and each_part(name, part, me, i + 1, f)
end

--- The first part, or nil where there is none.
function lens.preview(x, object, surplus)
  local first, me = nil, insider("bp.preview", object)
  tree.no_more("bp.preview", 2, surplus)
  each_part("bp.preview", x, me, 1, function(part)
    first = part
    return true
  end)
  return first
end

--- The list of all parts.
function lens.collect(x, object, surplus)
  local parts, me = {}, insider("bp.collect", object)
  tree.no_more("bp.collect", 2, surplus)
  each_part("bp.collect", x, me, 1, function(part) parts[#parts + 1] = part end)
  return parts
end

-- Setting ---------------------------------------------------------------------------------------------------------

-- What the user put in place must be what the field was declared to hold. A part that a further field step built was
-- verified by that step, and is not gone over again on the way up.
local function check_part(name, me, i, part)
  local step, following = me.steps[i], me.steps[i + 1]
  if not step.misfit or following and following.metatable then return end
  local path, expected, got = step.misfit(part)
  if path then raise("%s: %s: expected %s, got %s", name, tree.under(place(me, i + 1), path), expected, sized(got)) end
end

-- A copy of x with every part replaced by f(part); x itself, and true, where the one part is missing. With `blind`, f
-- does not look at the part, which is then not read where it must exist anyway.
local function rebuild(name, x, me, i, f, blind)
  local step = me.steps[i]
  if not step then
    local part = f(x)
    if part == nil then raise("%s: %s: there is no new value (nil)", name, me.text) end
    return part
  end
  if not step:accepts(x) then misplaced(name, me, i, x) end
  if step.over then
    return step:over(x, function(part) return (rebuild(name, part, me, i + 1, f, blind)) end)
  end
  local following = me.steps[i + 1]
  local part, gone
  if following or step.partial or not blind then
    part = step:get(x, name)
    if part == nil then return x, true end
  end
  part, gone = rebuild(name, part, me, i + 1, f, blind)
  if gone then return x, true end
  check_part(name, me, i, part)
  return step:put(x, part, name)
end

--- A copy of x (of the path to the part only) with v for the part; x itself where the part is missing.
function lens.set(x, object, v, surplus)
  if surplus ~= nil then raise("bp.set: expected 3 arguments: a structure, a lens and the new part") end
  local me = insider("bp.set", object)
  return (rebuild("bp.set", x, me, 1, function() return v end, true))
end

--- A copy of x with f(part) for the part, or for every part.
function lens.over(x, object, f)
  local me = insider("bp.over", object)
  if not tree.callable(f) then raise("bp.over: expected a function, got %s", tree.describe(f)) end
  return (rebuild("bp.over", x, me, 1, f, false))
end

-- Steps into tables -----------------------------------------------------------------------------------------------

local function shallow_copy(x)
  local copy = {}
  for key, value in next, x do copy[key] = value end
  return setmetatable(copy, getmetatable(x))
end

local function key_get(step, x) return rawget(x, step.key) end

local function key_put(step, x, part)
  local copy = shallow_copy(x)
  rawset(copy, step.key, part)
  return copy
end

local function crumb(key)
  local path = tree.join("", key)
  return path:find("^%[") and path or "." .. path
end

local function field_accepts(step, x) return getmetatable(x) == step.metatable end
local function field_get(step, x) return x[step.key] end -- a field set to nil is an error

--- The lens of a record's field, for record.lua. field: owner (name of the record type), metatable (of its records),
-- key, focus (declared type of the field or nil: {lenses, metatable, element}), misfit(value) (see record.lua).
function lens.field(field)
  field.crumb = crumb(field.key)
  field.text = field.owner .. ".lens" .. field.crumb
  field.expects = tree.article(field.owner)
  field.accepts, field.get, field.put = field_accepts, field_get, key_put
  return atom(field)
end

local function is_branch(_, x) return tree.is_branch(x) end

local known_keys = setmetatable({}, {__mode = "v"})

--- The element of a list or the value in a map, which may be missing.
function lens.at(key, surplus)
  tree.no_more("bp.at", 1, surplus)
  key = math.tointeger(key) or key
  local object = known_keys[key]
  if object then return object end
  if type(key) ~= "string" and math.type(key) ~= "integer" then
    raise("bp.at: a key is a string or an integer, got %s", tree.describe(key))
  end
  object = atom {
    key = key, partial = true, element = true, expects = "a list or a map", accepts = is_branch,
    get = key_get, put = key_put,
    text = type(key) == "string" and ("bp.at(%q)"):format(key) or ("bp.at(%d)"):format(key),
    crumb = crumb(key),
  }
  known_keys[key] = object
  return object
end

local function all_parts(_, x)
  local keys, parts = tree.keys(x, "bp.each"), {}
  for i = 1, #keys do parts[i] = x[keys[i]] end
  return parts
end

local function over_all(_, x, f)
  local keys, copy = tree.keys(x, "bp.each"), shallow_copy(x)
  for i = 1, #keys do copy[keys[i]] = f(x[keys[i]]) end
  return copy
end

local function each_step(fields)
  fields.expects, fields.accepts = "a list, a map or a record", is_branch
  fields.parts, fields.over, fields.element = all_parts, over_all, true
  return fields
end

--- Every element of a list or map, or every field of a record that is not static.
lens.each = atom(each_step {text = "bp.each", crumb = "[each]", selects = true})

-- What bp.filtered starts with: every element. After a step that selects elements already it adds nothing, so that
-- `bp.each .. bp.filtered(p)` means the same as `bp.filtered(p)`, and a filter after a filter narrows it.
local every_element = each_step {text = "bp.each", crumb = "[each]", narrows = true}

local function anything() return true end

--- The elements for which pred holds.
function lens.filtered(pred, surplus)
  tree.no_more("bp.filtered", 1, surplus)
  if not tree.callable(pred) then raise("bp.filtered: expected a function, got %s", tree.describe(pred)) end
  return append(atom(every_element), {
    text = "bp.filtered(...)", crumb = "[filtered]", partial = true, selects = true, same = true, accepts = anything,
    get = function(_, x) if pred(x) then return x end end,
    put = function(_, _, part) return part end,
  })
end

--- A lens of your own: get(x) gives the part, or nil where there is none; set(x, part) a changed copy of x.
function lens.lens(get, set, surplus)
  tree.no_more("bp.lens", 2, surplus)
  if not tree.callable(get) or not tree.callable(set) then
    raise("bp.lens: expected two functions, get and set; got %s and %s", tree.describe(get), tree.describe(set))
  end
  return atom {
    text = "bp.lens(...)", crumb = "[lens]", partial = true, accepts = anything,
    get = function(_, x) return get(x) end,
    put = function(_, x, part) return set(x, part) end,
  }
end

--- Several parts as one list, in the order of the lenses; missing where one of them is.
function lens.fields(...)
  local members, texts, partial = {}, {}, false
  if select("#", ...) == 0 then raise("bp.fields: expected one or more lenses") end
  for i = 1, select("#", ...) do
    local me = insider("bp.fields", (select(i, ...)))
    if me.plural then raise("bp.fields: %s has many parts", me.text) end
    members[i], texts[i], partial = me, me.text, partial or me.partial
  end
  local text = ("bp.fields(%s)"):format(table.concat(texts, ", "))
  return atom {
    text = text, crumb = "[fields]", partial = partial, accepts = anything,
    get = function(_, x, name)
      local parts = {}
      for i = 1, #members do
        parts[i] = view_steps(name, x, members[i], true)
        if parts[i] == nil then return nil end
      end
      return parts
    end,
    put = function(_, x, parts, name)
      if type(parts) ~= "table" or #parts ~= #members then
        raise("%s: %s: expected a list of %d parts, got %s", name, text, #members,
          type(parts) == "table" and #parts or tree.describe(parts))
      end
      for i = 1, #members do
        x = rebuild(name, x, members[i], 1, function() return parts[i] end, true)
      end
      return x
    end,
  }
end

return lens
