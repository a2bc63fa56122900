--[[
Functions on arrays that read best in Lua: what accepts lists of tracked numbers, what goes over whole structures, and
small compositions of core operations.
]]

local alias = require "backprop.alias"
local core = require "backprop.core"
local plans = require "backprop.plans"
local tree = require "backprop.tree"

local kind, raise = core.kind, core.raise

local arrays = {functions = {}, methods = {}}
local functions, methods = arrays.functions, arrays.methods

-- A vector of numbers of which some are tracked. `place` says in an error where they stand.
local function stack_numbers(list, dtype, place)
  for i, element in ipairs(list) do
    if kind(element) ~= "number" then raise("%s%d: expected a number, got %s", place, i, core.type_of(element)) end
  end
  return core.stack(list, dtype)
end

--- A vector from a list of numbers, plain or tracked.
function functions.vector(list, dtype, surplus)
  if surplus ~= nil then raise("bp.vector: expected at most 2 arguments: a list and a dtype") end
  return core.vector(list, dtype) or stack_numbers(list, dtype, "bp.vector: element ")
end

--- A matrix from a list of rows: lists of numbers or vectors, plain or tracked.
function functions.matrix(list, dtype, surplus)
  if surplus ~= nil then raise("bp.matrix: expected at most 2 arguments: a list of rows and a dtype") end
  local plain = core.matrix(list, dtype)
  if plain then return plain end
  local rows, columns = {}, nil
  for i, row in ipairs(list) do
    local sort = kind(row)
    if sort ~= "vector" and (sort or type(row) ~= "table") then
      raise("bp.matrix: row %d: expected a table of numbers or a vector, got %s", i, core.type_of(row))
    end
    if not sort then row = stack_numbers(row, dtype, ("bp.matrix: element %d, "):format(i)) end
    columns, dtype = columns or #row, dtype or row:dtype()
    if #row ~= columns then raise("bp.matrix: row %d has %d elements, the first has %d", i, #row, columns) end
    if row:dtype() ~= dtype then
      raise("bp.matrix: row %d is %s, not %s: convert it with x:astype(\"%s\")", i, row:dtype(), dtype, dtype)
    end
    rows[i] = row
  end
  return core.stack(rows, dtype)
end

-- What y = y + a x means where all is simple: see alias.pairs.
local function plan_pairs(a, apart)
  local plan = plans.new()
  for k = 1, #apart, 2 do plan:axpy(a, apart[k + 1], apart[k]) end
  return plan
end

-- The same for any two structures. Numbers are changed in the tables that hold them.
local function plan_structures(a, x, y)
  local written = {}
  tree.visit(y, function(leaf)
    if tree.is_array(leaf) then alias.note(written, leaf) end
  end, "bp.axpy")
  -- What is to be added: of arrays before it is multiplied by a.
  local addends = tree.map_at("bp.axpy", function(where, leaf, other)
    local trouble = tree.mismatch(leaf, other)
    if trouble then raise("bp.axpy: at %s: %s", where(), trouble) end
    if kind(leaf) ~= kind(other) then
      raise("bp.axpy: at %s: %s and %s do not agree", where(), tree.describe(leaf), tree.describe(other))
    end
    if tree.is_array(leaf) then return alias.kept(written, leaf, other) end
    local class = tree.class_of(leaf)
    if not class then return (a + 0.0) * other end -- a float, also of integers
    if not class.scale then raise("bp.axpy: at %s: the instance's class has no scale", where()) end
    return class.scale(other, a)
  end, y, x)
  -- A table of y at two paths gets what there is for it at both, unless these are one table, too.
  local plan, done, sums = plans.new(), {}, {}
  local function walk(into, from)
    done[into] = done[into] or {}
    sums[into] = sums[into] or {}
    if done[into][from] then return end
    done[into][from] = true
    local sum = sums[into]
    for _, key in ipairs(tree.keys(into, "bp.axpy")) do
      local part, addend = into[key], from[key]
      if tree.is_array(part) then
        plan:axpy(a, addend, part)
      elseif tree.is_leaf(part) then
        local class, before = tree.class_of(part), sum[key] or part
        sum[key] = class and class.add(before, addend) or not class and before + addend
        plan:set(into, key, sum[key])
      elseif tree.is_branch(part) then
        walk(part, addend)
      end
    end
  end
  walk(y, addends)
  return plan
end

--- y = y + a x in place, over arrays or whole structures. A number is changed in the table that holds it.
function functions.axpy(a, x, y, surplus)
  if surplus ~= nil then raise("bp.axpy: expected 3 arguments: a, x and y") end
  if type(a) ~= "number" then raise("bp.axpy: argument 1: expected a number, got %s", tree.describe(a)) end
  if tree.is_leaf(y) or not tree.is_branch(y) then
    if kind(y) == "number" then
      raise("bp.axpy: a bare number cannot be changed in place: put it in a table")
    end
    return core.axpy(a, x, y)
  end
  local apart = alias.pairs("bp.axpy", y, x)
  local plan = apart and plan_pairs(a, apart) or plan_structures(a, x, y)
  plan:commit("bp.axpy")
end

--- Gives back every array of a structure now; a later use of one raises.
function functions.release(x, surplus)
  if x == nil then raise("bp.release: expected a structure of arrays, got nil") end
  if surplus ~= nil then raise("bp.release: expected one structure: bp.release{x, y} gives back several") end
  local leaves = {}
  if core.split("bp.release", leaves, x) then raise("bp.release: a tracked value cannot be released") end
  for i = 1, #leaves do
    if tree.is_array(leaves[i]) then core.release(leaves[i]) end
  end
end

--- The list of all rows of a matrix, as vectors that share its memory.
function functions.rows(m, surplus)
  if surplus ~= nil then raise("bp.rows: expected 1 argument, a matrix") end
  if kind(m) ~= "matrix" then raise("bp.rows: expected a matrix, got %s", tree.describe(m)) end
  local list = {}
  for i = 1, #m do list[i] = core.row(m, i) end
  return list
end

-- The core gives positions from 0 as numbers: here they become what Lua counts with.
local function positions(name)
  local find = core[name]
  return function(x, axis, surplus)
    if surplus ~= nil then raise("bp.%s: expected at most 2 arguments", name) end
    local found = find(x, axis)
    if kind(found) ~= "number" then return core.add(found, 1) end
    found = math.tointeger(found)
    if kind(x) ~= "matrix" then return found + 1 end
    local _, columns = x:shape()
    return found // columns + 1, found % columns + 1
  end
end

functions.argmax, functions.argmin = positions "argmax", positions "argmin"

-- Operations of one argument that `linear` may apply: those that give an array of its shape.
local elementwise = {softmax = core.softmax, log_softmax = core.log_softmax}
for _, row in ipairs(core.rows()) do
  if row.source == "src/ops/math.c" and row.name ~= "clamp" and row.name ~= "neg" then
    elementwise[row.name] = core[row.name]
  end
end

core.set_functions {
  activation = function(name)
    local f = type(name) == "string" and elementwise[name]
    if f then return f end
    raise("bp.linear: the activation must be the name of an element-wise operation, got %s",
      type(name) == "string" and ("'%s'"):format(name) or tree.describe(name))
  end,
}

-- Parameters that are tracked: the row takes plain numbers only, so that no gradient is lost without a word; these are
-- the same functions written in operations that have one, and with the row's slopes at the bounds and at 0. The row
-- itself is called where no parameter is tracked (core.keep_line).
arrays.of_tracked_parameters = {}

-- A tracked number as a plain one; what else it may be is for the row to refuse.
local function plain_number(x)
  return kind(x) == "number" and core.value(x) or x
end

local function compose(name, count, composed)
  local row = core[name]
  arrays.of_tracked_parameters[name] = function(x, ...)
    local a, b = ...
    local fits = select("#", ...) == count and kind(a) == "number" and (count == 1 or kind(b) == "number")
    if not fits then return row(x, plain_number(a), plain_number(b), select(3, ...)) end
    return composed(x, a, b)
  end
end

compose("clamp", 2, function(x, lo, hi)
  core.clamp(0, plain_number(lo), plain_number(hi)) -- raises where the bounds are not in order
  return core.where(core.less(x, lo), lo, core.where(core.greater(x, hi), hi, x))
end)

compose("leaky_relu", 1, function(x, slope)
  return core.where(core.greater(x, 0), x, x * slope)
end)

compose("elu", 1, function(x, alpha)
  local positive = core.greater(x, 0)
  return core.where(positive, x, core.expm1(core.where(positive, 0, x)) * alpha)
end)

-- Methods -----------------------------------------------------------------------------------------------------------

for _, name in ipairs {"argmax", "argmin", "rows"} do methods[name] = functions[name] end

--- A list of numbers, or of lists of them; of tracked numbers where the array is tracked.
function methods.totable(x, surplus)
  tree.no_more("x:totable", 0, surplus)
  if not core.tracked(x) then return core.totable(x) end
  local list = {}
  for i = 1, #x do list[i] = kind(x) == "vector" and core.element(x, i) or methods.totable(core.row(x, i)) end
  return list
end

return arrays
