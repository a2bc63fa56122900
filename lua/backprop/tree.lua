--[[
Structures: what a value is made of, and how to walk it.

A value is a leaf (a number, an array, a tracked variable, an instance of a class given to `tree.instance`), a branch (a
table of values: list, map or record) or a constant (everything else; also record types and lenses, which are tables but
opaque). Everything that goes over leaves - tracking, gradients, optimisers, printing - goes through this file, so that
all agree on the order: the declared one in a record; elsewhere 1..n, then the other keys sorted, integers before
strings.

Invariants. A branch reached twice is walked once, and is one table in a copy too. A branch inside itself is an error. A
copy keeps metatables and constants. Every walk owns one table: walk[1..depth] are the keys that lead to where it
stands, walk[branch] is what came of a branch (false while it is being walked), walk.name the public name for errors.
Paths become strings only when somebody asks.
]]

local core = require "backprop.core"

local kind, raise = core.kind, core.raise
local getmetatable = debug and debug.getmetatable or getmetatable -- the real one, also past a `__metatable` field
local mathtype = math.type

local tree = {}

-- What is known of a metatable, always with `sort`: "leaf" (and class) for instances, "branch" (and name, type, keys,
-- constants) for records, "constant" for opaque tables.
local known = setmetatable({}, {__mode = "k"})
core.set_known(known)

-- For the walk of the core the sort, as a number, the keys and the constants have numbers too.
local sort_numbers = {constant = 0, branch = 1, leaf = 2}

local function note(metatable, info)
  info[1], info[2], info[3] = sort_numbers[info.sort], info.keys, info.constants
  known[metatable] = info
end

local function classify(x)
  if kind(x) then return "leaf" end
  local basic = type(x)
  if basic ~= "table" and basic ~= "userdata" then return "constant" end
  local info = known[getmetatable(x)]
  if info then return info.sort end
  return basic == "table" and "branch" or "constant"
end

function tree.is_leaf(x)
  return classify(x) == "leaf"
end

--- Is x a vector or a matrix, plain or tracked?
function tree.is_array(x)
  local sort = kind(x)
  return sort == "vector" or sort == "matrix"
end

--- Is x a table to walk into?
function tree.is_branch(x)
  return classify(x) == "branch"
end

-- Naming things ---------------------------------------------------------------------------------------------------

function tree.record_type(x)
  local info = known[getmetatable(x)]
  return info and info.type
end

--- The class of a plain instance, or nil.
function tree.class_of(x)
  local info = known[getmetatable(x)]
  return info and info.class
end

--- The kind of anything, the same for plain and tracked: "number", "vector", "matrix", "instance", "record", or else
-- Lua's own type. Of leaves that are of no more use: "released", "stale".
function tree.kind(x)
  local info = known[getmetatable(x)]
  return kind(x) or info and (info.class and "instance" or info.type and "record") or type(x)
end

function tree.article(noun)
  return (noun:find("^[AEIOaeio]") and "an " or "a ") .. noun
end

-- Leaves of no more use, and what messages say where one is met.
local spoilt = {
  released = {"a released array", "the array was released"},
  stale = {"a tracked value whose call has ended", "a tracked value is used after the call that tracked it has ended"},
}

--- "a matrix", "a tracked vector", "an Encoder", "nil": what x is, for messages.
function tree.describe(x)
  if x == nil then return "nil" end
  local sort = kind(x)
  if spoilt[sort] then return spoilt[sort][1] end
  if core.tracked(x) then return "a tracked " .. sort end
  local info = known[getmetatable(x)]
  return tree.article(info and info.name or tree.kind(x))
end

--- The same of what stands where an x is wanted.
function tree.describe_other(y, x)
  local said = tree.describe(y)
  return tree.class_of(y) and said == tree.describe(x) and said .. " of another class" or said
end

--- Raises if a leaf is of no more use: `sort` is its kind. `structure` is what it was found in, to name the path.
function tree.refuse_spoilt(name, sort, leaf, structure)
  local trouble = spoilt[sort]
  if not trouble then return end
  local place = ""
  tree.visit(structure, function(other, where)
    if rawequal(other, leaf) and place == "" and where() ~= "" then place = "at " .. where() .. ": " end
  end, name)
  raise("%s: %s%s", name, place, trouble[2])
end

--- What a function of the core returns that serves the usual case only; nil where it gave up, by an error that is nil.
-- Any other error is the caller's: memory that runs out, an interrupt of the host's.
function tree.short(f, ...)
  local ran, result = pcall(f, ...)
  if ran then return result end
  if result ~= nil then error(result, 0) end
end

--- Raises where there is an argument too many.
function tree.no_more(name, most, surplus)
  if surplus ~= nil then raise("%s: expected at most %d argument%s", name, most, most == 1 and "" or "s") end
end

function tree.callable(f)
  local metatable = getmetatable(f)
  return type(f) == "function" or metatable ~= nil and metatable.__call ~= nil
end

--- A path with one more key: "layers" and 2 give "layers[2]".
function tree.join(path, key)
  if type(key) ~= "string" then return ("%s[%s]"):format(path, tostring(key)) end
  if not key:find("^[%a_][%w_]*$") then return ("%s[%q]"):format(path, key) end
  return path == "" and key or path .. "." .. key
end

--- A path below another: "layers" and "[2].w" give "layers[2].w".
function tree.under(path, rest)
  return path .. ((rest == "" or rest:find("^%[")) and "" or ".") .. rest
end

local function path_of(walk, depth)
  local path = ""
  for i = 1, depth do path = tree.join(path, walk[i]) end
  return path
end

local function at(walk, depth)
  return depth > 0 and " at " .. path_of(walk, depth) or ""
end

-- Keys ------------------------------------------------------------------------------------------------------------

local function integers_first(a, b)
  if type(a) == type(b) then return a < b end
  return type(a) == "number"
end

local function sorted_keys(t, walk, depth)
  local keys, n = {}, 0
  while rawget(t, n + 1) ~= nil do
    n = n + 1
    keys[n] = n
  end
  local others
  for key in next, t do
    if mathtype(key) ~= "integer" or key < 1 or key > n then
      if type(key) ~= "string" and mathtype(key) ~= "integer" then
        raise("%s: the keys of a structure are strings or integers, found a %s as a key%s",
          walk.name, type(key), at(walk, depth))
      end
      others = others or {}
      others[#others + 1] = key
    end
  end
  if others then
    table.sort(others, integers_first)
    table.move(others, 1, #others, n + 1, keys)
  end
  return keys
end

--- The keys to walk in a branch, in order; those of a record are shared by all records of its type: do not change them.
function tree.keys(t, name)
  local record = known[getmetatable(t)]
  return record and record.keys or sorted_keys(t, {name = name or "bp.leaves"}, 0)
end

-- Walking ---------------------------------------------------------------------------------------------------------

local function raise_cycle(walk, depth)
  raise("%s: the structure contains itself%s", walk.name, at(walk, depth))
end

-- The walk of a branch that holds no other is never asked for anything, so it is made on the first descent only.
local function map_branch(name, walk, f, x, depth)
  local metatable = getmetatable(x)
  local record = known[metatable]
  local keys = record and record.keys or sorted_keys(x, walk or {name = name}, depth)
  local result = {}
  for i = 1, #keys do
    local key = keys[i]
    local value = x[key]
    local sort = kind(value) and "leaf" or classify(value)
    if sort == "leaf" then
      value = f(value)
    elseif sort == "branch" then
      walk = walk or {name = name}
      walk[x], walk[depth + 1] = false, key
      local done = walk[value]
      if done == false then raise_cycle(walk, depth + 1) end
      value = done or map_branch(name, walk, f, value, depth + 1)
    end
    result[key] = value
  end
  if record then
    local constants = record.constants
    for i = 1, #constants do result[constants[i]] = x[constants[i]] end
  end
  if metatable then setmetatable(result, metatable) end
  if walk then walk[x] = result end
  return result
end

local function raise_difference(walk, depth, x, y)
  raise("%s: the structures differ%s: %s and %s", walk.name, at(walk, depth), tree.describe(x),
    tree.describe_other(y, x))
end

local function refuse_more(walk, depth, x, y)
  for key, other in next, y do
    if rawget(x, key) == nil and classify(other) ~= "constant" then
      walk[depth + 1] = key
      raise_difference(walk, depth + 1, nil, other)
    end
  end
end

-- As map_branch, side by side with a branch y, which must have leaves and branches where x has them, and no more.
-- walk[copy] is the y of a copy: a branch shared in x but not in y is not shared in the result either. With `where`, f
-- gets it first.
local function zip_branch(walk, f, where, depth, x, y)
  local metatable = getmetatable(x)
  local record = known[metatable]
  if known[getmetatable(y)] ~= record then raise_difference(walk, depth, x, y) end
  local keys = record and record.keys or sorted_keys(x, walk, depth)
  if not record then refuse_more(walk, depth, x, y) end
  local result = {}
  for i = 1, #keys do
    local key = keys[i]
    local value, other = x[key], rawget(y, key)
    local sort = kind(value) and "leaf" or classify(value)
    walk[depth + 1] = key
    if sort ~= (kind(other) and "leaf" or classify(other)) then raise_difference(walk, depth + 1, value, other) end
    if sort == "leaf" then
      if where then
        walk.depth = depth + 1
        value = f(where, value, other)
      else
        value = f(value, other)
      end
    elseif sort == "branch" then
      walk[x] = false
      local done = walk[value]
      if done == false then raise_cycle(walk, depth + 1) end
      value = done and walk[done] == other and done or zip_branch(walk, f, where, depth + 1, value, other)
    end
    result[key] = value
  end
  if record then
    local constants = record.constants
    for i = 1, #constants do result[constants[i]] = x[constants[i]] end
  end
  if metatable then setmetatable(result, metatable) end
  walk[x], walk[result] = result, y
  return result
end

local function zip(walk, f, where, x, y)
  local sort = classify(x)
  if classify(y) ~= sort then raise_difference(walk, 0, x, y) end
  if sort == "constant" then return x end
  if sort == "branch" then return zip_branch(walk, f, where, 0, x, y) end
  if where then return f(where, x, y) end
  return f(x, y)
end

-- What stands at one place in several structures, as one leaf.
local BUNDLE = {}
note(BUNDLE, {sort = "leaf", name = "leaf"})

local function bundle(leaf) return setmetatable({leaf}, BUNDLE) end

local function add_to_bundle(leaves, leaf)
  local more = setmetatable({table.unpack(leaves)}, BUNDLE)
  more[#more + 1] = leaf
  return more
end

--- A structure like x with every leaf replaced by f(leaf, leaf of the 2nd, ...). The others must be structured as x is.
function tree.map(name, f, x, ...)
  local others = select("#", ...)
  if others == 1 then return zip({name = name}, f, nil, x, (...)) end
  if others > 1 then
    local bundles = tree.map(name, bundle, (...))
    for i = 2, others do bundles = zip({name = name}, add_to_bundle, nil, bundles, (select(i, ...))) end
    return zip({name = name}, function(leaf, leaves) return f(leaf, table.unpack(leaves)) end, nil, x, bundles)
  end
  local sort = classify(x)
  if sort == "leaf" then return f(x) end
  if sort == "constant" then return x end
  return map_branch(name, nil, f, x, 0)
end

--- As tree.map of two, with f(where, leaf, other): where() is the path of the leaf, for errors.
function tree.map_at(name, f, x, y)
  local walk = {name = name, depth = 0}
  local function where() return path_of(walk, walk.depth) end
  return zip(walk, f, where, x, y)
end

local function visit_branch(walk, f, where, x, depth)
  local done = walk[x]
  if done then return end
  if done == false then raise_cycle(walk, depth) end
  walk[x] = false
  local record = known[getmetatable(x)]
  local keys = record and record.keys or sorted_keys(x, walk, depth)
  for i = 1, #keys do
    local key = keys[i]
    local value = x[key]
    local sort = kind(value) and "leaf" or classify(value)
    walk[depth + 1], walk.depth = key, depth + 1
    if sort == "leaf" then
      f(value, where)
    elseif sort == "branch" then
      visit_branch(walk, f, where, value, depth + 1)
    end
  end
  walk[x] = true
end

--- Calls f(leaf, where) for every leaf of x in order; where() is its path ("layers[1].w"), valid during the call.
-- `name` (optional) is the public name for errors.
function tree.visit(x, f, name)
  local walk = {name = name or "bp.leaves", depth = 0}
  local function where() return path_of(walk, walk.depth) end
  local sort = classify(x)
  if sort == "leaf" then
    f(x, where)
  elseif sort == "branch" then
    visit_branch(walk, f, where, x, 0)
  end
end

function tree.leaves(x, name)
  local leaves = {}
  tree.visit(x, function(leaf) leaves[#leaves + 1] = leaf end, name)
  return leaves
end

function tree.paths(x, name)
  local paths = {}
  tree.visit(x, function(_, where) paths[#paths + 1] = where() end, name or "bp.paths")
  return paths
end

-- The Backprop class ----------------------------------------------------------------------------------------------

local function leaf_class(x)
  return tree.class_of(kind(x) == "instance" and core.value(x) or x)
end

local function filler(method, number, make)
  return function(leaf)
    local sort = kind(leaf)
    if sort == "number" then return number end
    tree.refuse_spoilt("bp." .. method, sort, leaf, leaf)
    local class = leaf_class(leaf)
    if class then return class[method](core.tracked(leaf) and core.value(leaf) or leaf) end
    local rows, columns = leaf:shape()
    if columns then return make(rows, columns, leaf:dtype()) end
    return make(rows, leaf:dtype())
  end
end

local zero_leaf, one_leaf = filler("zero", 0.0, core.zeros), filler("one", 1.0, core.ones)

--- The structure of x with zeros (or ones) for leaves: plain, whether x is tracked or not.
function tree.zero(x) return tree.map("bp.zero", zero_leaf, x) end

function tree.one(x) return tree.map("bp.one", one_leaf, x) end

--- Why two leaves of a structure do not go together, or nil: instances must be of one class, arrays of one kind of one
-- shape and dtype.
function tree.mismatch(x, y)
  if leaf_class(x) ~= leaf_class(y) then
    return ("%s and %s do not agree"):format(tree.describe(x), tree.describe_other(y, x))
  end
  if kind(x) ~= kind(y) or not tree.is_array(x) then return nil end
  local rows, columns = x:shape()
  local other_rows, other_columns = y:shape()
  if rows == other_rows and columns == other_columns then
    local dtype, other = x:dtype(), y:dtype()
    return dtype ~= other and ("%s and %s do not mix: convert one with x:astype(%q)"):format(dtype, other, dtype) or nil
  end
  if not columns then return ("%d and %d elements do not agree"):format(rows, other_rows) end
  return ("shapes %dx%d and %dx%d do not agree"):format(rows, columns, other_rows, other_columns)
end

--- The sum of two leaves that go together.
function tree.sum(x, y)
  return (leaf_class(x) or core).add(x, y)
end

local function add_leaves(where, x, y)
  local trouble = tree.mismatch(x, y)
  if trouble and where() ~= "" then raise("bp.add: at %s: %s", where(), trouble) end
  if trouble and (leaf_class(x) or leaf_class(y)) then raise("bp.add: %s", trouble) end
  return tree.sum(x, y)
end

function tree.add(x, y, surplus)
  if surplus ~= nil or x == nil and y == nil then raise("bp.add: expected 2 arguments") end
  if type(x) == "table" and type(y) == "table" then
    local sum = tree.short(core.arithmetic, "bp.add", "+", x, y, true)
    if sum then return sum end
  end
  return tree.map_at("bp.add", add_leaves, x, y)
end

-- What the walk of the core (src/binding/structures.c) leaves to us. `place` is a list of keys.

local function walk_to(name, place)
  place.name = name
  return place
end

core.set_functions {
  keys = function(name, place, t) return sorted_keys(t, walk_to(name, place), #place) end,
  cycle = function(name, place) raise_cycle(walk_to(name, place), #place) end,
  differ = function(name, place, x, y) raise_difference(walk_to(name, place), #place, x, y) end,
  at = function(name, place) return at(walk_to(name, place), #place) end,
  zero_instance = function(x) return tree.class_of(x).zero(x) end,
}

-- Declaring -------------------------------------------------------------------------------------------------------

local class_methods = {zero = true, add = true, one = true, scale = true, dot = true}

--- Objects with this metatable become leaves, whose gradients are made with the functions of class. Returns it.
function tree.instance(metatable, class)
  if type(metatable) ~= "table" then raise("bp.instance: expected a metatable, got %s", tree.describe(metatable)) end
  if type(class) ~= "table" then
    raise("bp.instance: expected a table of functions, got %s", tree.describe(class))
  end
  if known[metatable] and not known[metatable].class then
    raise("bp.instance: this metatable is the library's own")
  end
  for name, method in next, class do
    if not class_methods[name] then
      raise("bp.instance: unknown function '%s' (zero, add, one, scale and dot are known)", tostring(name))
    elseif type(method) ~= "function" then
      raise("bp.instance: expected a function for '%s', got %s", name, tree.describe(method))
    end
  end
  for _, name in ipairs {"zero", "add", "one"} do
    if not class[name] then raise("bp.instance: the function '%s' is missing", name) end
  end
  note(metatable, {sort = "leaf", class = class})
  return metatable
end

--- Tables with this metatable are records: info has name, type (the record type), keys (the fields to walk, in order)
-- and constants (the other fields).
function tree.declare(metatable, info)
  note(metatable, {sort = "branch", name = info.name, type = info.type, keys = info.keys, constants = info.constants})
end

--- Tables with this metatable are constants, never walked into: record types, lenses. Messages call them `name`.
function tree.opaque(metatable, name)
  note(metatable, {sort = "constant", name = name})
end

return tree
