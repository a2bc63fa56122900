-- Pullbacks of random steps on six matrices (2 x 2, so that everything fits), for spec/pending_spec.lua: what
-- they return, keep and change must not depend on whether every matrix is looked at as soon as it is made.

local bp = require "backprop"

local pullbacks = {}

-- Each step reads registers a and b and may write c; `look` is called with what it makes.
local steps = {
  function(r, s, look) r[s.c] = look(bp.transpose(r[s.a])) end,
  function(r, s, look) r[s.c] = look(bp.matmul(r[s.a], r[s.b])) end,
  function(r, s, look) r[s.c] = look(bp.matmul(bp.transpose(r[s.a]), r[s.b])) end,
  function(r, s, look) r[s.c] = look(bp.matmul(r[s.a], bp.transpose(r[s.b]))) end,
  function(r, s, look) r[s.c] = look(bp.outer(r[s.a][1], r[s.b][2])) end,
  function(r, s) r[s.c] = r[s.a] + r[s.b] end,
  function(r, s) r[s.a]:fill(s.a) end,
  function(r, s) r[s.a]:copy(r[s.b]) end,
  function(r, s) r[s.a][1][2] = s.c end,
  function(r, s) bp.axpy(0.5, r[s.b], r[s.a]) end,
  function(r, s, _, kept) kept[#kept + 1] = bp.sum(r[s.a]) end,
  function(r, s, _, kept) kept[#kept + 1] = r[s.a] end,
  function(r, s)
    local function f(x) return bp.sum(bp.matmul(x, r[s.b]) * x) end
    r[s.c] = bp.grad(f, { into = r[s.a] })(r[s.c])
  end,
  function(r, s)
    bp.optim.sgd{ lr = 0.1 }:minimize(function(p) return bp.sum(bp.matmul(p[1], r[s.b])) end, { r[s.a] })
  end,
  function(r, s, look)
    local inner = bp.op(function(x)
      return bp.sum(x), function(d)
        local g = look(bp.outer(r[s.a][1] * d, r[s.b][1]))
        if s.c > 3 then r[s.a]:fill(2) end
        return look(bp.transpose(g))
      end
    end)
    r[s.c] = bp.grad(function(x) return inner(x) end)(r[s.b])
  end,
}

-- A list of steps, and which registers the pullback returns; from math.random.
function pullbacks.random()
  local function register() return math.random(6) end
  local program = { returns = { register(), register() } }
  for k = 1, math.random(3, 14) do
    program[k] = { run = steps[math.random(#steps)], a = register(), b = register(), c = register() }
  end
  return program
end

local ways = {
  function(loss, p) return bp.grad(loss)(p) end,
  function(loss, p) return bp.grad(loss, { into = { a = bp.zeros(2, 2), b = bp.zeros(2, 2) } })(p) end,
  function(loss, p)
    local _, pullback <close> = bp.vjp(loss, p)
    return { pullback(), pullback() }
  end,
  function(loss, p)
    bp.optim.sgd{ lr = 0.5 }:minimize(loss, p)
    return p
  end,
}
pullbacks.ways = #ways

-- Numbers for arrays; what a gradient has taken over is "given" to some and copied from others.
local function plain(x)
  if type(x) == "userdata" then
    local usable, numbers = pcall(x.totable, x)
    return usable and numbers or "given"
  elseif type(x) ~= "table" then
    return x
  end
  local copy = {}
  for key, part in pairs(x) do copy[key] = plain(part) end
  return copy
end

-- What a program's gradient gives in one of the ways, what it has kept, and what it has made of an array outside. The
-- operation stands twice in the loss: the second's pullback runs while the first's factors are kept.
function pullbacks.outcome(program, way, look)
  local outside, kept = bp.matrix{ { 2, -1 }, { 1, 3 } }, {}
  local f = bp.op(function(w, x)
    return bp.sum(bp.matmul(w, x)), function(dz, needs)
      local r = { bp.matrix{ { 1, 2 }, { 3, 5 } } * dz, bp.eye(2), w, outside, bp.matrix{ { 1, 1 }, { 0, 2 } }, x }
      for _, step in ipairs(program) do pcall(step.run, r, step, look, kept) end
      return r[program.returns[1]], needs[2] and r[program.returns[2]] or nil
    end
  end)
  local function loss(p)
    local h = f(p.b, p.a)
    return bp.sum(f(p.a, bp.matmul(outside, p.b))) + bp.sum(bp.matmul(p.a, outside) * h)
  end
  local params = { a = bp.matrix{ { 1, 2 }, { 3, 4 } }, b = bp.matrix{ { 0, 1 }, { 1, 1 } } }
  local ok, result = pcall(ways[way], loss, params)
  return plain{ ok = ok, result = ok and result or nil, kept = kept, outside = outside }
end

return pullbacks
