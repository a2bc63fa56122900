-- Random programs over the whole API. Operations come from the rows of bp.ops() alone: their signatures say what each
-- argument is, and nothing here knows which shapes agree. Instead each candidate statement is run on plain values at
-- once; most of those that raise, or give numbers too large for differences, are thrown away and drawn anew, and a few
-- are kept, so that programs hold wrong calls of every kind too.
--
-- A register is "fixed" if no input went into it: only those are changed in place, since a tracked one cannot be.

local bp = require "backprop"
local callbacks = require "fuzz.callbacks"
local program = require "fuzz.program"
local new_random = require "fuzz.random"

local MOST_ELEMENTS = 64
local LARGEST = 1e3 -- of a value in a kept statement

local Generator = {}
Generator.__index = Generator

local operators = { add = "+", sub = "-", mul = "*", div = "/", pow = "^" }
local rows, of_one_value = {}, {}
for _, row in ipairs(bp.ops()) do
  if bp[row.name] then rows[#rows + 1] = row end
  if row.signature:find "^value %w+$" then of_one_value[#of_one_value + 1] = row end
end

-- Looking at values -------------------------------------------------------------------------------------------------

local function is_array(x)
  local kind = bp.kind(x)
  return kind == "vector" or kind == "matrix"
end

local function shape_of(x)
  if type(x) == "number" then return "number" end
  local n, m = x:shape()
  return ("%s %d %s"):format(x:dtype(), n, m or "")
end

local function is_small(x) return x > -LARGEST and x < LARGEST end -- and no NaN

-- Whether all numbers of a structure are moderate, and there are few. Errors (a released array) mean no.
local function is_moderate(x)
  local ok, yes = pcall(function()
    for _, leaf in ipairs(bp.leaves(x)) do
      if type(leaf) == "number" then
        if not is_small(leaf) then return false end
      else
        local n, m = leaf:shape()
        if n * (m or 1) > MOST_ELEMENTS then return false end
        if n * (m or 1) > 0 and not is_small(bp.max(bp.abs(leaf))) then return false end
      end
    end
    return true
  end)
  return ok and yes
end

-- Registers ---------------------------------------------------------------------------------------------------------

-- A register whose value pleases; recent ones are likelier. nil if there is none.
function Generator:register(pleases)
  local found = {}
  for k = 1, self.count do
    local ok, yes = pcall(pleases, self.r[k], k)
    if ok and yes then found[#found + 1] = k end
  end
  if #found == 0 then return nil end
  local k = self.random:chance(0.5) and found[self.random:integer(math.max(1, #found - 4), #found)]
    or self.random:pick(found)
  if not self.fixed[k] then self.touched = true end
  self.chosen[#self.chosen + 1] = k
  return k
end

local function is_leaf(x) return type(x) == "number" or is_array(x) end

function Generator:value()
  local k = self:register(is_leaf)
  return k and ("r[%d]"):format(k) or self:literal()
end

function Generator:literal()
  local random = self.random
  if random:chance(0.1) then return random:pick{ "0", "1", "-1", "2", "0.5", "-0.0" } end
  return ("%.3f"):format(random:number() * 4 - 2)
end

-- Arguments ---------------------------------------------------------------------------------------------------------

local nonsense = {
  "nil", "'text'", "{}", "print", "true", "1/0", "0/0", "-1", "0", "1.5", "2^31", "2^40", "2^53", "math.mininteger",
  "-2^31", "io.stdout", "bp", "released", "stale.v", "stale.s", "foreign.v", "{ 1, { 2 } }", "bp.rng(1)",
  "setmetatable({}, { __index = error, __len = error })", "bp.zeros(0)", "bp.zeros(0, 3)", "bp.zeros(2, 0, 'f32')",
  "{ 1, nil, 3 }", "{ 'x' }", "bp.vector{ 1.5 }", "coroutine.running()", "9", "100",
}

function Generator:small()
  local random = self.random
  return tostring(random:chance(0.95) and random:integer(1, 4) or random:pick{ 0, -1, 5, 2 ^ 31 })
end

-- One text for each kind of parameter; a kind that is new in a row is drawn among numbers.
local arguments = {
  value = function(g) return g.random:chance(0.9) and g:value() or g:literal() end,
  values = function(g)
    local list = {}
    for i = 1, g.random:weighted{ 1, 2, 2, 5, 3, 3, 4, 1, 12, 0.5, 0, 0.2 } do list[i] = g:value() end
    return "{ " .. table.concat(list, ", ") .. " }"
  end,
  number = Generator.literal,
  integer = Generator.small,
  index = Generator.small,
  size = function(g) return tostring(g.random:pick{ 1, 1, 2, 2, 3, 3, 4, 6, 0, 8, 12 }) end,
  axis = function(g) return g.random:pick{ "1", "2" } end,
  dtype = function(g) return g.random:pick{ "'f32'", "'f64'" } end,
  indices = function(g)
    local list = {}
    for i = 1, g.random:integer(0, 4) do list[i] = tostring(g.random:integer(1, 3)) end
    local text = "{ " .. table.concat(list, ", ") .. " }"
    return g.random:weighted{ text, 3, "bp.vector" .. text, 2, g:small(), 2 }
  end,
  target = function(g)
    return g.random:weighted{ g:value(), 3, g:small(), 2, ("{ %s, %s }"):format(g:small(), g:small()), 2 }
  end,
}

local parameters_of = setmetatable({}, { __index = function(cache, row)
  local list = {}
  for kind, rest in row.signature:gmatch "%s*(%a+)([^,]*)" do
    list[#list + 1] = { kind = kind, optional = rest:find "[?=]" ~= nil }
  end
  cache[row] = list
  return list
end })

function Generator:arguments(row)
  local list = {}
  for _, parameter in ipairs(parameters_of[row]) do
    if parameter.optional and self.random:chance(0.5) then break end
    local draw = arguments[parameter.kind] or arguments.number
    list[#list + 1] = self.random:chance(0.02) and self.random:pick(nonsense) or draw(self)
  end
  if row.name == "linear" and self.random:chance(0.5) then
    list[#list + 1] = ("%q"):format(self.random:pick(of_one_value).name) -- an activation is the name of an operation
  end
  if self.random:chance(0.01) then table.remove(list) end
  if self.random:chance(0.01) then list[#list + 1] = self.random:pick(nonsense) end
  return list
end

-- Statements --------------------------------------------------------------------------------------------------------

-- Each gives the text of an expression, or of a whole statement if it begins with "do ".
local statements = {}

local function call(g, row)
  local list = g:arguments(row)
  local operator = operators[row.name]
  if operator and #list == 2 and g.random:chance(0.7) then
    -- Lua's own power of two numbers is not ours to the bit
    local text = ("(%s) %s (%s)"):format(list[1], operator, list[2])
    local ok, number = pcall(g.run, g, "return " .. text)
    if not (operator == "^" and (not ok or type(number) == "number")) then return text end
  elseif row.name == "neg" and #list == 1 then
    return "-" .. list[1]
  elseif #list > 0 and list[1]:find "^r%[" and g.random:chance(0.2) then
    local ok, method = pcall(function() return g:run("return " .. list[1])[row.name] end)
    if ok and method then return ("%s:%s(%s)"):format(list[1], row.name, table.concat(list, ", ", 2)) end
  end
  return ("bp.%s(%s)"):format(row.name, table.concat(list, ", "))
end

-- Several draws for the one row, so that those whose arguments seldom agree are not rare.
function statements.row(g)
  local row, text = g.random:pick(rows), nil
  for _ = 1, #parameters_of[row] > 1 and 40 or 10 do
    g.touched, g.chosen = false, {}
    text = call(g, row)
    if pcall(g.run, g, "local _ = " .. text) then break end
  end
  return text
end

-- A layer whose shapes fit, beside another that gets the same cotangent: what was given to it, or one more layer.
function statements.layer(g)
  local function columns(x) return select(2, x:shape()) end
  local w = g:register(function(x) return bp.kind(x) == "matrix" end)
  if not w then return nil end
  local n, m = g.r[w]:shape()
  local x = g:register(function(v) return bp.kind(v) == "vector" and #v == m or columns(v) == m end)
  if not x then return nil end
  local other = g:register(function(v) return shape_of(v) == shape_of(g.r[w]) end)
  local function layer(k)
    return ("bp.linear(r[%d], r[%d], bp.full(%s, %d, r[%d]:dtype()), %q)"):format(x, k, g:literal(), n, x,
      g.random:pick{ "tanh", "sigmoid", "relu", "sin" })
  end
  local beside = n == m and g.random:chance(0.6) and ("r[%d]"):format(x) or layer(other)
  return layer(w) .. " + " .. beside
end

function statements.constructor(g)
  local random, list = g.random, {}
  for i = 1, random:integer(1, 4) do list[i] = random:chance(0.5) and g:literal() or g:value() end
  local items = table.concat(list, ", ")
  return random:weighted{
    ("bp.vector{ %s }"):format(items), 3,
    ("bp.matrix{ { %s }, { %s } }"):format(items, items), 2,
    ("bp.matrix{ %s }"):format(items), 1,
    ("bp.vector({ %s }, 'f32')"):format(items), 0.5,
    ("{ %s }"):format(items), 2,
    ("{ %s, k = { %s, name = 'text' } }"):format(g:value(), items), 2,
    ("Pair{ a = %s, b = %s }"):format(g:value(), g:value()), 2,
  }
end

-- What does not depend on the inputs, to be mixed with what does, and to be changed in place.
function statements.fixed(g)
  local random = g.random
  local like = random:chance(0.4) and g:register(is_array)
  if like then
    g.touched = false -- of its shape alone
    return ("bp.one(r[%d]) * %s"):format(like, g:literal())
  end
  local n, m = random:integer(1, 4), random:integer(1, 4)
  return random:weighted{
    ("bp.full(%s, %d)"):format(g:literal(), n), 2,
    ("bp.full(%s, %d, %d)"):format(g:literal(), n, m), 2,
    ("bp.linspace(%s, %s, %d)"):format(g:literal(), g:literal(), n), 1,
    ("bp.eye(%d)"):format(n), 1,
    ("bp.rng(%d):uniform(-1, 1, %d, %d)"):format(random:integer(1, 99), n, m), 2,
    ("bp.rng(%d):normal(0, 1, %d, 'f32')"):format(random:integer(1, 99), n), 0.5,
    g:literal(), 1,
  }
end

function statements.part(g)
  local k = g:register(function(x) return type(x) == "table" or is_array(x) end)
  if not k then return nil end
  local text = g.random:weighted{
    "r[%d][%d]", 4, "r[%d].a", 1, "r[%d].b", 1, "r[%d].k", 1, "r[%d].k[%d]", 1, "bp.rows(r[%d])[%d]", 1,
    "bp.view(r[%d], bp.row_at(%d))", 1, "bp.view(r[%d], bp.column_at(%d))", 1, "bp.view(r[%d], bp.element_at(%d))", 1,
    "bp.view(r[%d], bp.at(%d))", 1, "bp.preview(r[%d], bp.at(%d))", 1, "bp.collect(r[%d], bp.each)", 1,
    "bp.view(r[%d], bp.range(1, %d))", 1, "bp.view(r[%d], Pair.lens.a)", 1,
    "bp.view(r[%d], bp.fields(Pair.lens.b, Pair.lens.a))", 1, "#r[%d]", 0.5,
  }
  return text:format(k, g.random:integer(1, 3))
end

function statements.structure(g)
  local k = g:register(function(x) return type(x) == "table" or is_leaf(x) end)
  local random, other = g.random, g:value()
  return random:weighted{
    ("bp.set(r[%d], bp.at(%d), %s)"):format(k, random:integer(1, 3), other), 2,
    ("bp.set(r[%d], Pair.lens.a, %s)"):format(k, other), 1,
    ("bp.over(r[%d], bp.at('k') .. bp.at(1), function(v) return v * %s end)"):format(k, other), 1,
    ("bp.over(r[%d], bp.each, function(v) return bp.sin(v) end)"):format(k), 1,
    ("bp.set(r[%d], bp.element_at(%d), %s)"):format(k, random:integer(1, 4), other), 2,
    ("bp.set(r[%d], bp.element_at(%d, %d), %s)"):format(k, random:integer(1, 3), random:integer(1, 3), other), 1,
    ("bp.set(r[%d], bp.row_at(%d), %s)"):format(k, random:integer(1, 3), other), 1,
    ("bp.set(r[%d], bp.column_at(%d), %s)"):format(k, random:integer(1, 3), other), 1,
    ("bp.over(r[%d], bp.range(1, %d), function(v) return v * v end)"):format(k, random:integer(1, 3)), 1,
    ("bp.map(function(v) return v * 2 end, r[%d])"):format(k), 1,
    ("bp.map(function(v, w) return v + bp.sum(w) end, r[%d], r[%d])"):format(k, k), 1,
    ("bp.add(r[%d], r[%d])"):format(k, k), 1,
    ("r[%d] * %s"):format(k, g:literal()), 1, ("r[%d] - r[%d]"):format(k, k), 1, ("-r[%d]"):format(k), 1,
    ("bp.leaves(r[%d])"):format(k), 1, ("bp.zero(r[%d])"):format(k), 0.5, ("bp.one(r[%d])"):format(k), 0.5,
  }
end

function statements.callback(g)
  local entry = g.random:pick(g.random:chance(0.08) and callbacks.bad or callbacks.good)
  local kinds = {
    any = is_leaf, same = is_leaf, array = function(x) return is_array(x) and not shape_of(x):find "%f[%d]0" end,
    matrix = function(x) return bp.kind(x) == "matrix" end,
  }
  local a = g:register(kinds[entry.needs])
  if not a then return nil end
  local shape = shape_of(g.r[a])
  local b = g:register(function(x) return is_leaf(x) and (entry.needs ~= "same" or shape_of(x) == shape) end)
  return (entry[1]:gsub("%$(%a)", function(name) return ("r[%d]"):format(name == "a" and a or b) end))
end

function statements.frozen(g)
  local k = g:register(function(x) return type(x) == "table" or is_leaf(x) end)
  local text = g.random:weighted{
    "bp.constant(r[%d])", 2, "bp.value(r[%d])", 2,
    "bp.grad(function(u) return bp.sum(u * u) end)(bp.value(r[%d]))", 1,
    "(bp.value_and_grad(function(u) return bp.sum(bp.exp(u)) end)(bp.value(r[%d])))", 1,
    "select(2, bp.vjp(function(u) return u * u end, bp.value(r[%d])))()", 1,
  }
  g.touched = true -- read-only, and of the storage of what it was made of
  return ("freeze(%d, function() return %s end)"):format(g.count + 1, text:format(k))
end

-- Of `a`, or of any fixed array.
function statements.in_place(g, a)
  local function fixed_array()
    return g:register(function(x, k) return g.fixed[k] and is_array(x) end)
  end
  local b = fixed_array()
  a = a or b
  if not a then return nil end
  local random = g.random
  return "do " .. random:weighted{
    ("r[%d]:fill(%s)"):format(a, g:literal()), 3,
    ("r[%d][%d] = %s"):format(a, random:integer(1, 3), g:literal()), 2,
    ("r[%d]:set(%d, %d, %s)"):format(a, random:integer(1, 3), random:integer(1, 3), g:literal()), 2,
    ("r[%d]:copy(r[%d])"):format(a, b), 2, ("bp.axpy(%s, r[%d], r[%d])"):format(g:literal(), b, a), 2,
    ("bp.optim.sgd{ lr = 0.1 }:step(r[%d], r[%d])"):format(a, b), 1,
    ("bp.optim.adam{ lr = 0.1 }:minimize(bp.sum, r[%d])"):format(a), 1,
    ("bp.release(r[%d])"):format(a), 0.5, ("r[%d]:fill('text')"):format(a), 0.2,
  } .. " end"
end

function statements.event(g)
  return g.random:weighted{
    "do collectgarbage() end", 3, "do collectgarbage('step') end", 2,
    "do collectgarbage('generational') collectgarbage('incremental') end", 1,
    "do coroutine.yield() end", 3, "do bp.release(bp.full(9, 3)) end", 1, "do bp.stats(true) end", 0.5,
    ("do local _ = tostring(%s) end"):format(g:value()), 1,
    ("do local _ = bp.kind(%s) end"):format(g:value()), 1,
    ("do bp.grad(function(u) return u * %s end)(1) end"):format(g.random:pick{ "stale.s", "foreign.v", "2" }), 1,
    "do pcall(bp.grad(function(u) error(u) end), 2) end", 1,
  }
end

function statements.nonsense(g)
  local random = g.random
  local row = random:pick(rows)
  local list, plain = {}, {}
  for i = 1, random:integer(0, 3) do
    plain[i] = random:pick(nonsense)
    list[i] = random:chance(0.5) and plain[i] or g:value()
  end
  return random:weighted{
    ("bp.%s(%s)"):format(row.name, table.concat(list, ", ")), 4,
    ("%s + %s"):format(g:value(), random:pick{ "stale.v", "foreign.v", "released", "'text'", "nil", "{}" }), 2,
    ("do local v = %s v[1] = stale.s end"):format(g:value()), 0.5,
    ("bp.%s(%s)"):format(random:pick{
      "zeros", "ones", "full", "eye", "linspace", "vector", "matrix", "grad", "value_and_grad", "vjp", "op", "nograd",
      "view", "set", "over", "map", "leaves", "paths", "zero", "optim", "rng", "record", "lens", "fields", "check",
    }, table.concat(plain, ", ")), 2, -- those whose sizes cannot be tracked among them
  }
end

-- Programs ----------------------------------------------------------------------------------------------------------

-- Runs text with the registers, on plain values, in a coroutine that is resumed to its end.
function Generator:run(text)
  local f = assert(self.load(text))
  local co = coroutine.create(f)
  local results
  repeat
    results = table.pack(coroutine.resume(co))
  until coroutine.status(co) == "dead"
  if not results[1] then error(results[2], 0) end
  return table.unpack(results, 2, results.n)
end

-- A fixed array that the last statement used together with what is not fixed: a tape may need it as it is.
function Generator:at_stake()
  for _, k in ipairs(self.touched and self.chosen or {}) do
    local ok, array = pcall(is_array, self.r[k])
    if ok and array and self.fixed[k] then return k end
  end
end

-- Adds one statement; true if it was kept.
function Generator:candidate(keep_failures)
  self.touched, self.chosen = false, {}
  local kind = self.random:weighted{
    "row", 56, "layer", 4, "constructor", 8, "fixed", 7, "part", 8, "structure", 6, "callback", 9, "frozen", 3,
    "in_place", 3, "event", 2, "nonsense", 3,
  }
  local text = statements[kind](self)
  if not text then return false end
  local place = self.count + 1
  local statement = text:find "^do " and text or ("r[%d] = %s"):format(place, text)
  local ok = pcall(self.run, self, statement)
  if not ok and not keep_failures then return false end
  if ok and not is_moderate(self.r[place]) and not self.random:chance(0.05) then
    self.r[place] = nil
    return false
  end
  self.body[#self.body + 1] = statement
  if self.r[place] ~= nil then
    self.count = place
    self.fixed[place] = not self.touched
  end
  local stake = self:at_stake()
  if stake and self.random:chance(0.4) then
    local change = statements.in_place(self, stake)
    if pcall(self.run, self, change) then
      self.body[#self.body + 1] = change
      self.staked = self.count
    end
  end
  return true
end

function Generator:input()
  local random = self.random
  local function numbers(n)
    local list = {}
    for i = 1, n do list[i] = self:literal() end
    return table.concat(list, ", ")
  end
  local dtype = random:chance(self.single) and "f32" or "f64"
  local n, m = random:integer(1, 4), random:integer(1, 4)
  if random:chance(0.02) then return ("bp.zeros(%d, 0, %q)"):format(random:integer(0, 2), dtype) end
  local list = {}
  for i = 1, n do list[i] = "{ " .. numbers(m) .. " }" end
  return random:weighted{
    ("%.3f"):format(random:number() * 4 - 2), 3,
    ("bp.vector({ %s }, %q)"):format(numbers(n), dtype), 4,
    ("bp.matrix({ %s }, %q)"):format(table.concat(list, ", "), dtype), 4,
  }
end

-- What the program returns: mostly a number made of several registers, otherwise one as it is, or a list.
function Generator:result()
  local random, list = self.random, {}
  local touched = {}
  for k = 1, self.count do
    local ok, fine = pcall(function() return is_leaf(self.r[k]) and is_moderate(self.r[k]) end)
    if ok and fine and not self.fixed[k] then touched[#touched + 1] = k end
  end
  if #touched == 0 then return "r[1]" end
  for i = 1, random:integer(1, 3) do
    list[i] = touched[random:integer(math.max(1, #touched - 5), #touched)]
  end
  local staked = self.staked
  if staked and not self.fixed[staked] and is_leaf(self.r[staked]) and is_moderate(self.r[staked]) then
    list[1] = staked
  end
  if random:chance(0.2) then return ("r[%d]"):format(list[1]) end
  if random:chance(0.2) then return ("{ r[%s] }"):format(table.concat(list, "], r[")) end
  for _, k in ipairs(list) do -- as statements, so that a reduction can leave them out
    self.body[#self.body + 1] = ("r.sum = (r.sum or 0) + %s * bp.sum(bp.sin(r[%d] * %d + 1))"):format(
      random:pick{ "1", "-0.5", "2" }, k, random:integer(1, 2))
  end
  return "r.sum or 0"
end

-- The program of a seed.
local function generate(seed)
  local random = new_random(seed)
  local g = setmetatable({
    random = random, body = {}, fixed = {}, chosen = {}, r = {}, single = random:chance(0.2) and 0.6 or 0,
  }, Generator)
  local inputs = {}
  for i = 1, random:integer(1, 4) do inputs[i] = g:input() end
  g.count = #inputs
  local names = "kept Pair hostile stale foreign released freeze"
  local environment = assert(load(("local bp, r = ...\n%s\nreturn function(text) return load(text, '=statement', 't', "
    .. "setmetatable({ bp = bp, r = r, Pair = Pair, hostile = hostile, stale = stale, foreign = foreign, "
    .. "released = released, freeze = freeze }, { __index = _G, __newindex = function() end })) end"):format(
      program.prelude(names)), "=prelude"))
  g.load = environment(bp, g.r)
  for i, text in ipairs(inputs) do g.r[i] = g:run("return " .. text) end
  local wanted = random:integer(2, random:chance(0.2) and 40 or 15)
  for _ = 1, wanted * 20 do
    if #g.body >= wanted then break end
    g:candidate(random:chance(0.02))
  end
  local result = g:result()
  return { seed = seed, inputs = inputs, body = g.body, result = result }
end

return generate
