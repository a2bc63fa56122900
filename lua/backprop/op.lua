--[[
Operations with hand-written gradients.

bp.op runs the forward on plain values, records one call whose inputs and results are the leaves of what went in and
came out, and keeps the pullback beside the tape. Where all that goes in and comes out is numbers and arrays, the core
does all of it; what is here is for structures. In the sweep the core hands us the cotangents of the results, one a
leaf; they are put back into the result's structure for the pullback, and what it returns is taken apart into one
gradient an input leaf. nil stands for zero on both sides, and a table that leaves fields out for zeros there.
]]

local core = require "backprop.core"
local tree = require "backprop.tree"

local kind, raise, tracked = core.kind, core.raise, core.tracked

local op = {}

-- Flattening ------------------------------------------------------------------------------------------------------

-- The structure of x with leaves[before + 1], ... for leaves; returns the last number used.
local function replace_leaves(x, leaves, before, name)
  if kind(x) then return leaves[before + 1], before + 1 end
  local count = before
  return tree.map(name, function()
    count = count + 1
    return leaves[count]
  end, x), count
end

-- Zero for a result that no cotangent reached, where another result has one.
local function zero_of(value)
  return tree.zero(value)
end

-- The cotangents in the structure of the result.
local function cotangent_of(entry, cotangents)
  if kind(entry.result) then return cotangents[1] end
  local count = 0
  return tree.map(entry.name, function(leaf)
    count = count + 1
    local cotangent = cotangents[count]
    if cotangent == nil then return zero_of(leaf) end
    return cotangent
  end, entry.result)
end

-- For every branch of an argument, the numbers of the leaves it holds, by key.
local function number_leaves(argument, before, name)
  local numbers, count = {}, before
  local function visit(branch)
    numbers[branch] = {}
    for _, key in ipairs(tree.keys(branch, name)) do
      local part = branch[key]
      if tree.is_leaf(part) then
        count = count + 1
        numbers[branch][key] = count
      elseif tree.is_branch(part) and not numbers[part] then
        visit(part)
      end
    end
  end
  visit(argument)
  return numbers
end

-- "argument 1.layers[2].w"
local function path_of(trail, depth)
  local path = "argument " .. trail[1]
  for i = 2, depth do path = tree.join(path, trail[i]) end
  return path
end

local function check_leaf(name, argument, gradient, path)
  local fits = gradient == nil or tree.is_leaf(gradient) and tree.class_of(gradient) == tree.class_of(argument)
  if not fits then
    raise("%s: the pullback's gradient of %s must be %s, got %s", name, path, tree.describe(argument),
      tree.describe_other(gradient, argument))
  end
end

local function take_leaf(entry, argument, gradient, gradients, number, trail, depth)
  if gradient ~= nil and kind(gradient) ~= kind(argument) or not kind(argument) then
    check_leaf(entry.name, argument, gradient, path_of(trail, depth))
  end
  local before = gradients[number]
  gradients[number] = before and gradient and tree.sum(before, gradient) or gradient or before or false
end

local function contains(list, value)
  for i = 1, #list do
    if list[i] == value then return true end
  end
  return false
end

-- Puts the leaves of one gradient into the list of all, beside those of its argument, which is plain. The leaves of a
-- branch at two paths are inputs once: `seen` has the branches of this argument and their gradients, and one that is
-- another than the first is added to it, by the `numbers` of the leaves. trail[1..depth] leads to the argument.
local function take_apart(entry, argument, gradient, gradients, before, trail, depth, seen, numbers)
  if tree.is_leaf(argument) then
    take_leaf(entry, argument, gradient, gradients, before + 1, trail, depth)
    return before + 1
  elseif not tree.is_branch(argument) then
    return before
  end
  if gradient ~= nil and not tree.is_branch(gradient) then
    raise("%s: the pullback's gradient of %s must be a table like it, got %s", entry.name, path_of(trail, depth),
      tree.describe(gradient))
  end
  if not numbers then
    if seen[argument] ~= nil then
      if gradient == nil or rawequal(gradient, seen[argument]) then return before end
      take_apart(entry, argument, gradient, gradients, 0, trail, depth, seen, seen.numbers())
      return before
    end
    seen[argument] = gradient or false
  end
  local keys = tree.keys(argument, entry.name)
  for i = 1, #keys do
    local key, part = keys[i], nil
    if gradient ~= nil then part = rawget(gradient, key) end
    local start = numbers and (numbers[argument][key] or 1) - 1 or before
    trail[depth + 1] = key
    before = take_apart(entry, argument[key], part, gradients, start, trail, depth + 1, seen, numbers)
  end
  for key, part in next, gradient or {} do
    if part ~= nil and rawget(argument, key) == nil and not contains(keys, key) then
      trail[depth + 1] = key
      raise("%s: the pullback's gradient has a part %s that the argument has not", entry.name,
        path_of(trail, depth + 1))
    end
  end
  return before
end

local function check_count(name, count, expected)
  if count == expected then return end
  raise("%s: the pullback returned %d gradients for %d arguments%s", name, count, expected,
    count < expected and " (nil is zero, but must be returned)" or "")
end

-- Called by the core in the sweep, for calls with structures.
local function pullback(entry, cotangents)
  local returned = table.pack(entry.pullback(cotangent_of(entry, cotangents), entry.needs))
  check_count(entry.name, returned.n, entry.arguments.n)
  local gradients, trail, before = {}, {}, 0
  for position = 1, entry.arguments.n do
    local argument, start = entry.arguments[position], before
    local seen = not kind(argument) and {numbers = function() return number_leaves(argument, start, entry.name) end}
    trail[1] = position
    before = take_apart(entry, argument, returned[position], gradients, before, trail, 1, seen)
  end
  return gradients
end

-- What the core calls input leaf number k in an error: "argument 1.layer2.w".
local function place(entry, k)
  local count, found = 0, nil
  for position = 1, entry.arguments.n do
    tree.visit(entry.arguments[position], function(_, where)
      count = count + 1
      if count == k then found = tree.under("argument " .. position, where()) end
    end)
  end
  return found
end

-- Calls -----------------------------------------------------------------------------------------------------------

-- Appends the leaves of all arguments to `inputs`; returns whether some are tracked, which ones, and the arguments with
-- plain values.
local function split_arguments(name, inputs, arguments)
  local any, needs, plain = false, {}, {n = arguments.n}
  for position = 1, arguments.n do
    needs[position], plain[position] = core.split(name, inputs, arguments[position])
    any = any or needs[position]
  end
  return any, needs, plain
end

-- Copies of all tables.
local function copies(name, arguments)
  local kept = {n = arguments.n}
  for position = 1, arguments.n do kept[position] = core.values(arguments[position], name) end
  return kept
end

local function check_pullback(name, back)
  if not tree.callable(back) then
    raise("%s: the forward must return its result and a pullback, got %s as the second", name, tree.describe(back))
  end
end

-- Records a call that has been made; returns its result, tracked. entry: {name, row, arguments, needs, result,
-- pullback}. Of the tables that the forward has had, and may change, the entry has copies.
local function record(entry, inputs, seconds)
  local name, result, results = entry.name, entry.result, {}
  local is_tracked, kept = core.split(name, results, result)
  if is_tracked then raise("%s: the forward must return plain values", name) end
  entry.result = kept
  if #results == 0 then
    raise("%s: the forward must return a number, an array or a structure of them, got %s", name, tree.describe(result))
  end
  return (replace_leaves(result, core.record(entry.row, entry, inputs, results, seconds), 0, name))
end

-- Called by the core for arguments that are not all numbers and arrays.
local function call(row, name, forward, ...)
  local arguments, inputs = table.pack(...), {}
  local any, needs, plain = split_arguments(name, inputs, arguments)
  if not any then return (forward(...)) end
  local kept = copies(name, plain)
  local start = core.timing() and core.clock()
  local result, back = forward(table.unpack(plain, 1, plain.n))
  local seconds = start and core.clock() - start
  check_pullback(name, back)
  return record({name = name, row = row, arguments = kept, needs = needs, result = result, pullback = back}, inputs,
    seconds)
end

-- Called by the core for a result that is no number or array, of arguments that are.
local function structured_result(row, name, seconds, result, back, ...)
  local arguments, inputs = table.pack(...), {}
  local _, needs, plain = split_arguments(name, inputs, arguments)
  return record({name = name, row = row, arguments = plain, needs = needs, result = result, pullback = back}, inputs,
    seconds)
end

core.set_functions {
  pullback = pullback,
  place = place,
  check_count = check_count,
  check_leaf = check_leaf,
  check_pullback = check_pullback,
  structured_result = structured_result,
  add_instances = function(x, y) return tree.class_of(x).add(x, y) end,
  element = core.element,
  row = core.row,
}

--- An operation from a function that returns its result and its pullback; {name =, forward =} names it.
function op.op(definition, surplus)
  tree.no_more("bp.op", 1, surplus)
  local name, forward = "bp.op", definition
  if type(definition) == "table" and not getmetatable(definition) then
    name, forward = definition.name or name, definition.forward
    for key in pairs(definition) do
      if key ~= "name" and key ~= "forward" then raise("bp.op: unknown field '%s'", tostring(key)) end
    end
  end
  if type(name) ~= "string" then raise("bp.op: name: expected a string, got %s", tree.describe(name)) end
  if not tree.callable(forward) then
    raise("bp.op: forward: expected a function, got %s", tree.describe(forward))
  end
  return core.operation(name, forward, call)
end

--- A function without a gradient: it raises if a cotangent reaches it.
function op.nograd(f, surplus)
  tree.no_more("bp.nograd", 1, surplus)
  if not tree.callable(f) then raise("bp.nograd: expected a function, got %s", tree.describe(f)) end
  return op.op {name = "bp.nograd", forward = function(...)
    return f(...), function()
      raise("bp.nograd: a gradient is asked for through a function that has none")
    end
  end}
end

-- Isomorphisms ----------------------------------------------------------------------------------------------------

-- A leaf that was moved, not changed: the same number, or a window of the same elements.
local function same_leaf(x, y)
  if rawequal(x, y) then return true end
  if kind(x) ~= kind(y) or kind(x) == nil then return false end
  if tracked(x) or tracked(y) then return false end
  if kind(x) == "number" then return x == y or (x ~= x and y ~= y) end
  return core.storage_key(core.value(x)) == core.storage_key(core.value(y))
end

local function check_unchanged(before, after)
  local from, to = tree.leaves(before, "bp.iso"), tree.leaves(after, "bp.iso")
  if #from ~= #to then raise("bp.iso: %d leaves became %d", #from, #to) end
  local unused = {}
  for k, leaf in ipairs(from) do unused[k] = leaf end
  for k, leaf in ipairs(to) do
    local found
    if same_leaf(leaf, unused[k]) then found = k end
    for i = 1, #from do
      if not found and unused[i] ~= nil and same_leaf(leaf, unused[i]) then found = i end
    end
    if not found then
      raise("bp.iso: %s was changed, not moved", tree.under("the result", tree.paths(after)[k]))
    end
    unused[found] = nil
  end
end

--- A re-arrangement of leaves: `to` makes the result of the argument, `from` the argument of the result. Nothing is
-- recorded: tracked leaves are moved as plain ones are. What is checked is that leaves are moved and no more.
function op.iso(to, from, surplus)
  tree.no_more("bp.iso", 2, surplus)
  if not (tree.callable(to) and tree.callable(from)) then
    raise("bp.iso: expected two functions, got %s and %s", tree.describe(to), tree.describe(from))
  end
  return function(...)
    local result = to(...)
    check_unchanged({...}, result)
    return result
  end
end

return op
