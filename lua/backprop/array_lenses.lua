--[[
Lenses into arrays: an element, a row, a column, a range.

Getting takes a window. Putting joins what stands before, the new part and what stands after into a new array, by
differentiable operations: linear in the array, and the gradient goes to the old array outside the part only.
]]

local core = require "backprop.core"
local lens = require "backprop.lens"
local tree = require "backprop.tree"

local kind, raise = core.kind, core.raise

local array_lenses = {}

-- Elements or rows from..to of x replaced.
local function splice(x, from, to, part)
  local count = x:shape()
  local pieces = {part}
  if from > 1 then table.insert(pieces, 1, core.slice(x, 1, from - 1)) end
  if to < count then pieces[#pieces + 1] = core.slice(x, to + 1, count) end
  return core.concat(pieces)
end

local function splice_element(x, i, s) return splice(x, i, i, core.konst(s, 1, x:dtype())) end
local function splice_row(x, i, v) return splice(x, i, i, core.reshape(v, 1, #v)) end

local function position(name, n)
  local integer = math.tointeger(n)
  if not integer or integer < 1 then raise("%s: expected a position (1, 2, ...), got %s", name, tostring(n)) end
  return integer
end

-- Raises unless the new part of x is of this kind and shape, and of x's dtype.
local function expect_part(name, step, x, part, sort, rows, columns)
  if kind(part) == sort then
    if sort == "number" then return end
    local part_rows, part_columns = part:shape()
    local dtype, part_dtype = x:dtype(), part:dtype()
    if part_rows == rows and part_columns == columns then
      if part_dtype == dtype then return end
      raise("%s: %s: %s and %s do not mix: convert the new part with x:astype(%q)", name, step.text, dtype, part_dtype,
        dtype)
    end
  end
  local expected = sort == "number" and "a number" or sort == "vector" and ("a vector of %d elements"):format(rows)
    or ("a %dx%d matrix"):format(rows, columns)
  raise("%s: %s: expected %s as the new part, got %s", name, step.text, expected, lens.sized(part))
end

-- The lens bp.<call>(where): `expects` and accepts(x) say what arrays it goes into, get and put as in lens.lua.
local function array_step(call, where, expects, accepts, get, put)
  return lens.atom {
    text = ("bp.%s(%s)"):format(call, where), crumb = ("[%s]"):format(where), expects = expects,
    accepts = function(_, x) return accepts(x) end, get = function(_, x) return get(x) end, put = put,
  }
end

--- Element i of a vector, or i, j of a matrix: a number.
function array_lenses.element_at(i, j, surplus)
  tree.no_more("bp.element_at", 2, surplus)
  i, j = position("bp.element_at", i), j ~= nil and position("bp.element_at", j) or nil
  if not j then
    return array_step("element_at", i, ("a vector of at least %d elements"):format(i),
      function(x) return kind(x) == "vector" and i <= #x end,
      function(x) return core.element(x, i) end,
      function(step, x, s, name)
        expect_part(name, step, x, s, "number")
        return splice_element(x, i, s)
      end)
  end
  return array_step("element_at", i .. ", " .. j, ("a matrix of at least %dx%d"):format(i, j),
    function(x) return kind(x) == "matrix" and i <= #x and j <= select(2, x:shape()) end,
    function(x) return core.element(x, i, j) end,
    function(step, x, s, name)
      expect_part(name, step, x, s, "number")
      return splice_row(x, i, splice_element(core.row(x, i), j, s))
    end)
end

--- Row i of a matrix: a vector.
function array_lenses.row_at(i, surplus)
  tree.no_more("bp.row_at", 1, surplus)
  i = position("bp.row_at", i)
  return array_step("row_at", i, ("a matrix of at least %d rows"):format(i),
    function(x) return kind(x) == "matrix" and i <= #x end,
    function(x) return core.row(x, i) end,
    function(step, x, v, name)
      expect_part(name, step, x, v, "vector", (select(2, x:shape())))
      return splice_row(x, i, v)
    end)
end

--- Column j of a matrix: a vector.
function array_lenses.column_at(j, surplus)
  tree.no_more("bp.column_at", 1, surplus)
  j = position("bp.column_at", j)
  return array_step("column_at", j, ("a matrix of at least %d columns"):format(j),
    function(x) return kind(x) == "matrix" and j <= select(2, x:shape()) end,
    function(x) return core.column(x, j) end,
    function(step, x, v, name)
      expect_part(name, step, x, v, "vector", #x)
      return core.transpose(splice_row(core.transpose(x), j, v))
    end)
end

--- Elements from..to of a vector (a vector), or these rows of a matrix (a matrix).
function array_lenses.range(from, to, surplus)
  tree.no_more("bp.range", 2, surplus)
  from, to = position("bp.range", from), position("bp.range", to)
  if from > to then raise("bp.range: %d to %d is empty", from, to) end
  return array_step("range", from .. ", " .. to, ("a vector or matrix of at least %d elements or rows"):format(to),
    function(x) return (kind(x) == "vector" or kind(x) == "matrix") and to <= #x end,
    function(x) return core.slice(x, from, to) end,
    function(step, x, part, name)
      expect_part(name, step, x, part, kind(x), to - from + 1, select(2, x:shape()))
      return splice(x, from, to, part)
    end)
end

return array_lenses
