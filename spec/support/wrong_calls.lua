-- The lists of wrong calls in spec/errors/: what is written, and below it, indented, the message that its writer sees.
-- Lines with # at the start are comments. The names that the calls use are made anew for each one by `values`.

local bp = require "backprop"

local wrong_calls = { files = { "arrays", "operations", "differentiation", "structures", "training" } }

-- The pairs of a file: a list of {code, message, file and line}.
function wrong_calls.read(name)
  local path, cases, number = ("spec/errors/%s.txt"):format(name), {}, 0
  for line in io.lines(path) do
    number = number + 1
    if line:find("^  ") then
      cases[#cases].message = line:sub(3)
    elseif line ~= "" and not line:find("^#") then
      cases[#cases + 1] = { code = line, place = ("%s:%d"):format(path, number) }
    end
  end
  return cases
end

local Point = bp.record("Point", "x", "y")
local Layer = bp.record("Layer", { "w", "matrix" }, { "b", "vector" })
local Net = bp.record("Net", { "layer1", Layer }, { "layer2", Layer }, { "size", bp.static })

-- What the calls may name. `v32` is `v` in f32; `released`, `stale`, `stale_number` and `closed` are of no more use.
function wrong_calls.values()
  local v, m = bp.vector{ 1, 2 }, bp.matrix{ { 1, 2 }, { 3, 4 } }
  local layer = Layer{ w = bp.zeros(2, 3), b = bp.zeros(2) }
  local net = Net{ layer1 = layer, layer2 = Layer{ w = bp.ones(2, 3), b = bp.ones(2) }, size = 3 }
  local cycle = {}
  cycle.a = { b = cycle }
  local values = {
    bp = bp, v = v, w = bp.vector{ 1, 2, 3 }, v32 = v:astype("f32"), m = m, m23 = bp.zeros(2, 3),
    Point = Point, Layer = Layer, Net = Net, p = Point{ x = 1, y = 2 }, layer = layer, net = net, cycle = cycle,
    rng = bp.rng(1), sgd = bp.optim.sgd{ lr = 0.1 }, adam = bp.optim.adam{ lr = 0.1 }, released = bp.zeros(2),
    f = function(x) return x end, text = function() return "text" end,
  }
  bp.release(values.released)
  bp.grad(function(x, y)
    values.stale, values.stale_number = x, y
    return y
  end, { wrt = { 1, 2 } })(v, 1)
  values.pull, values.pull_net = select(2, bp.vjp(values.f, v)), select(2, bp.vjp(values.f, net))
  values.closed = select(2, bp.vjp(values.f, v))
  values.closed:close()
  return setmetatable(values, { __index = _G })
end

-- The code of a case as a function. It stands on line 7 of a file called user.lua. As a tail call (nil where the
-- code cannot be one) Lua forgets that line, unless the function called is written in C.
function wrong_calls.compile(code, values, as_tail_call)
  local above = ("\n"):rep(6)
  if as_tail_call then return load(above .. "return " .. code, "@user.lua", "t", values) end
  return load(above .. "local _ = " .. code, "@user.lua", "t", values)
    or assert(load(above .. code, "@user.lua", "t", values))
end

return wrong_calls
