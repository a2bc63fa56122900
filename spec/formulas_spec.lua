-- Element-wise formulas go a short way through the tape (src/tape/formulas.c), except where a check for NaN watches:
-- then the general one, which is the witness here. Both must agree in every bit and in all that bp.stats counts. (Not
-- numbers alone: for them the general way has the loops for arrays, whose last bits may be others.)

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"
local c = require "c_rows"

local same, raises = help.same, help.raises

-- What f gives, both ways, and what was counted.
local function ways(f)
  local results, counts = {}, {}
  for way = 1, 2 do
    bp.check_finite(way == 2)
    bp.stats(true)
    local found = table.pack(pcall(f))
    local stats = bp.stats()
    bp.check_finite(false)
    if not found[1] then error(found[2], 0) end
    results[way] = { table.unpack(found, 2, found.n) }
    counts[way] = { nodes = stats.nodes, additions = stats.additions, zero_fills = stats.zero_fills }
  end
  return results, counts
end

local function agrees(f)
  local results, counts = ways(f)
  same(results[2], results[1])
  same(counts[2], counts[1])
end

local unary = { "neg", "exp", "sin", "cos", "tanh", "sigmoid", "square", "abs", "relu", "softplus", "gelu", "silu",
  "elu", "leaky_relu" }
local binary = { "add", "sub", "mul", "div", "pow", "minimum", "maximum", "less" }

-- Operands that go together in one dtype: of one shape, numbers, and what the short way must leave alone.
local function operands(dtype)
  local r = bp.rng(7)
  local wide = r:uniform(0.5, 1.5, 5, 19, dtype)
  local tall = r:uniform(0.5, 1.5, 19, 4, dtype)
  return {
    vector = r:uniform(0.5, 1.5, 19, dtype), another = r:uniform(0.5, 1.5, 19, dtype), row = wide[3],
    column = bp.column(tall, 2), matrix = wide, other_matrix = r:uniform(0.5, 1.5, 5, 19, dtype), number = 0.75,
    empty = bp.zeros(0, dtype), single = r:uniform(0.5, 1.5, 1, 19, dtype),
  }
end

local function fits(x, y)
  if type(x) == "number" or type(y) == "number" then return x ~= y end
  if #x == 0 or #y == 0 then return #x == #y and bp.kind(x) == bp.kind(y) end
  local n, m = x:shape()
  local p, q = y:shape()
  return (m or n) == (q or p) and (m == nil or q == nil or n == p)
end

describe("an element-wise formula, the short way,", function()
  for _, dtype in ipairs(help.dtypes) do
    it("of every operand in " .. dtype, function()
      for _, name in ipairs(unary) do
        for _, x in pairs(operands(dtype)) do
          if help.is_array(x) then
            agrees(function() return bp[name](x) end)
            agrees(function() return bp.value_and_grad(bp[name])(x) end)
          end
        end
      end
    end)

    it("of every pair in " .. dtype .. ", with either or both tracked", function()
      local list = operands(dtype)
      for _, name in ipairs(binary) do
        for _, x in pairs(list) do
          for _, y in pairs(list) do
            if fits(x, y) then
              agrees(function() return bp[name](x, y) end)
              for _, wrt in ipairs{ { 1 }, { 2 }, { 1, 2 } } do
                agrees(function()
                  return bp.value_and_grad(function(...) return bp[name](...) + 0 end, { wrt = wrt })(x, y)
                end)
              end
            end
          end
        end
      end
    end)

    it("of an operand with itself in " .. dtype, function()
      for _, name in ipairs(binary) do
        for _, x in pairs(operands(dtype)) do
          if name ~= "less" and help.is_array(x) then
            agrees(function() return bp.value_and_grad(function(v) return bp[name](v, v) end)(x) end)
            agrees(function() return bp.value_and_grad(function(v) return bp[name](v * 2, v) * v end)(x) end)
          end
        end
      end
    end)
  end

  -- Random programs over variables, constants, numbers, windows and what they give; values stay near 1.
  local function program(seed)
    local r = bp.rng(seed)
    local function below(n) return math.floor(r:uniform(0, n)) + 1 end
    local choices = {}
    for i = 1, 60 do choices[i] = r:uniform(0, 1) end
    return function(p, dtype)
      local values = { p.v, p.w, p.s, p.m[2], bp.column(p.t, 1), bp.full(0.9, 7, dtype), 1.25, p.m[1] }
      local at = 0
      local function choose(n)
        at = at % 60 + 1
        return math.floor(choices[at] * n) + 1
      end
      for _ = 1, below(20) + 5 do
        local x, y = values[choose(#values)], values[choose(#values)]
        if bp.kind(x) == "number" then x = x * p.v end
        if bp.kind(y) == "number" and choose(2) == 1 then y = p.w - y end
        local sort = choose(8)
        local z
        if sort == 1 then z = x + y
        elseif sort == 2 then z = x - y
        elseif sort == 3 then z = x * y
        elseif sort == 4 then z = bp.sin(x) + 1
        elseif sort == 5 then z = bp.maximum(x, y)
        elseif sort == 6 then z = -bp.sigmoid(x)
        elseif sort == 7 then z = x + x
        else z = bp.tanh(x) / (1.5 + bp.square(bp.tanh(p.w + y)))
        end
        values[#values + 1] = bp.tanh(z)
      end
      local total = 0
      for i = 9, #values do total = total + bp.sum(values[i] * 1) end
      return total + bp.sum(values[#values] + p.v)
    end
  end

  it("in 400 random programs, and for a step, and for several cotangents", function()
    for seed = 1, 200 do
      for _, dtype in ipairs(help.dtypes) do
        local r = bp.rng(1000 + seed)
        local function parameters()
          r = bp.rng(1000 + seed)
          return { v = r:uniform(-1, 1, 7, dtype), w = r:uniform(-1, 1, 7, dtype), s = r:uniform(-1, 1),
            m = r:uniform(-1, 1, 3, 7, dtype), t = r:uniform(-1, 1, 7, 2, dtype) }
        end
        agrees(function() return bp.value_and_grad(program(seed))(parameters(), dtype) end)
        agrees(function()
          local p = parameters()
          local loss = bp.optim.sgd{ lr = 0.1 }:minimize(program(seed), p, dtype)
          return loss, p
        end)
        agrees(function()
          local f = program(seed)
          local value, pullback = bp.vjp(function(p) return f(p, dtype) end, parameters())
          local first, second, third = pullback(1.0), pullback(-2.5), pullback(1.0)
          same(first, third)
          pullback:close()
          return value, first, second
        end)
      end
    end
  end)

  it("gives each operand a gradient of its own", function()
    local x, y = bp.vector{ 1, 2, 3 }, bp.vector{ 4, 5, 6 }
    local function f(a, b, z) return bp.sum((a + b) + (z - b) + a) end
    local gx, gy, gz = bp.grad(f, { wrt = { 1, 2, 3 } })(x, y, x)
    same({ 2, 2, 2 }, gx)
    same({ 0, 0, 0 }, gy)
    same({ 1, 1, 1 }, gz)
    gx:fill(7)
    gz[1] = 9
    same({ 0, 0, 0 }, gy)
    same({ 9, 1, 1 }, gz)
    same({ 1, 2, 3 }, x)
  end)

  it("P02: adds nothing to what others share", function()
    for _, f in ipairs{ function(a, b) return (a + a) + b end, function(a, b) return b + (a + a) end } do
      local ga, gb = bp.grad(f, { wrt = { 1, 2 } })(bp.vector{ 1, 2, 3 }, bp.vector{ 4, 5, 6 })
      same({ 2, 2, 2 }, ga)
      same({ 1, 1, 1 }, gb)
    end
  end)

  it("gets zeros where windows of its result leave parts of the cotangent out", function()
    for _, f in ipairs{ bp.neg, bp.square, function(a) return a + 0 end } do
      bp.release(bp.full(help.nan, 7)) -- the storage that is used next
      local g = bp.grad(function(a) return bp.sum(bp.slice(f(a), 2, 3)) end)(bp.ones(7))
      local slope = f == bp.neg and -1 or f == bp.square and 2 or 1
      same({ 0, slope, slope, 0, 0, 0, 0 }, g)
    end
  end)

  it("P30: does not mix dtypes or shapes", function()
    for _, y in ipairs{ bp.ones(3, "f32"), bp.ones(4), bp.ones(3, 1) } do
      raises("bp.add", bp.add, bp.ones(3), y)
      raises("bp.mul", bp.grad(bp.mul), bp.ones(3), y)
    end
  end)

  it("P04: leaves the cotangent as it is, and what was returned before", function()
    for _, f in ipairs{ function(a, b) return a + b end, function(a, b) return a - b end,
      function(a, b) return a * b end, function(a) return bp.sin(a) end } do
      local cotangent = bp.vector{ 1, -2, 3 }
      local _, pullback = bp.vjp(f, bp.vector{ 1, 2, 3 }, bp.vector{ 4, 5, 6 })
      local first = { pullback(cotangent) }
      local kept = help.plain(first)
      first[1]:fill(100)
      if first[2] then same(kept[2], first[2]) end
      same({ 1, -2, 3 }, cotangent)
      cotangent:fill(0)
      same(kept, { pullback(bp.vector{ 1, -2, 3 }) })
    end
  end)

  it("P13: raises where an operand or the result was changed in place", function()
    local x = bp.vector{ 1, 2, 3 }
    raises("bp.mul: an array that it needs (an argument) was changed in place", bp.grad(function(a)
      local y = a * x
      x[1] = 5
      return bp.sum(y)
    end), bp.vector{ 1, 2, 3 })
    raises("bp.exp: an array that it needs (the result of exp) was changed in place", bp.grad(function(a)
      local y = bp.exp(a)
      local s = bp.sum(y)
      c.double_in_place(bp.value(y))
      return s
    end), bp.vector{ 1, 2, 3 })
    local y = bp.vector{ 1, 2, 3 }
    same({ 1, 1, 1 }, bp.grad(function(a)
      local z = a + y
      y[1] = 5
      return bp.sum(z)
    end)(bp.vector{ 1, 2, 3 }))
  end)

  it("brings gradients to where they are to go", function()
    local functions = { bp.sin, function(a) return a + a end, function(a) return a * 2 end,
      function(a) return -a + 0 end }
    for _, f in ipairs(functions) do
      local into = bp.full(help.nan, 3)
      local wide = bp.full(help.nan, 2, 6)
      local g = bp.grad(f)(bp.vector{ 1, 2, 3 })
      assert.equal(into, bp.grad(f, { into = into })(bp.vector{ 1, 2, 3 }))
      same(g:totable(), into)
      local row = bp.slice(wide[1], 2, 4)
      bp.grad(f, { into = row })(bp.vector{ 1, 2, 3 })
      same(g:totable(), row)
    end
  end)
end)
