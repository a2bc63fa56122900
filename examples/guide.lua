-- The programs of the performance guide of the Haskell library *backprop*, each written in every way the library
-- offers: through lenses, by plain field reads, with a gradient written by hand, fused. All ways give the same numbers,
-- which are asserted to 1e-12; what each of them costs is counted by bp.stats().
--
--   lua5.4 examples/guide.lua

-- Where the library is not installed, take it from the checkout that this script stands in.
local here = arg[0]:match("^(.*/)") or "./"
if not pcall(require, "backprop") then
  package.path = here .. "../lua/?.lua;" .. here .. "../lua/?/init.lua;" .. package.path
  package.cpath = here .. "../lua/?.so;" .. package.cpath
end
local bp = require "backprop"

-- All numbers of a structure, leaf by leaf, so that a record and a vector are compared and printed alike.
local function numbers(x)
  local list = {}
  for _, leaf in ipairs(bp.leaves(x)) do
    if bp.kind(leaf) == "number" then leaf = { leaf } end
    for i = 1, #leaf do list[#list + 1] = leaf[i] end
  end
  return list
end

local function holds(got, want)
  got = numbers(got)
  assert(#got == #want)
  for i, w in ipairs(want) do assert(math.abs(got[i] - w) <= 1e-12, ("%.17g, not %.17g"):format(got[i], w)) end
  return (", %.17g"):rep(#got):sub(3):format(table.unpack(got))
end

-- Value and gradient of f at x; then what was recorded and summed to get them.
local function try(name, f, x, value, gradient)
  bp.stats(true)
  local v, g = bp.value_and_grad(f)(x)
  local s = bp.stats()
  print(("%-16s %s, gradient (%s)"):format(name, holds(v, { value }), holds(g, gradient)))
  print(("%16s nodes %d, additions %d, zero fills %d"):format("", s.nodes, s.additions, s.zero_fills))
  return s
end

print "x*y + z of a record"
local MT = bp.record("MT", { "x", "number" }, { "y", "number" }, { "z", "number" })
local at = MT{ x = 5, y = 7, z = 2 }
local ways = {
  { "three lenses", function(m) return bp.view(m, MT.lens.x) * bp.view(m, MT.lens.y) + bp.view(m, MT.lens.z) end },
  { "two-field lens", function(m)
    local xy = bp.view(m, bp.fields(MT.lens.x, MT.lens.y))
    return xy[1] * xy[2] + bp.view(m, MT.lens.z)
  end },
  { "fields", function(m) return m.x * m.y + m.z end },
  { "by hand", bp.op{ name = "xy_plus_z", forward = function(m)
    return m.x * m.y + m.z, function(dz) return MT{ x = dz * m.y, y = dz * m.x, z = dz } end
  end } },
}
for _, way in ipairs(ways) do
  local s = try(way[1], way[2], at, 37, { 7, 5, 1 })
  assert(s.additions == 0 and s.zero_fills == 0) -- three fields, each used once: nothing to add, nothing to fill
end

print "\nthe same with negate and sqrt after it"
for _, way in ipairs(ways) do
  try(way[1], function(m) return -bp.sqrt(way[2](m)) end, at,
    -6.0827625302982193, { -0.57539645556875052, -0.41099746826339323, -0.082199493652678646 })
end

print "\nsquared cross entropy of a softmax, target (1, 0, 0)"
local target, input = bp.vector{ 1, 0, 0 }, bp.vector{ 0.9, 0.2, 0.3 }
local function softmax(x)
  local e = bp.exp(x)
  return e / bp.konst(bp.sum(e), #x)
end
local function cross_entropy(p) return -bp.dot(bp.log(p), target) end
local function one_function(x)
  local e = bp.exp(x)
  return -bp.dot(bp.log(e / bp.konst(bp.sum(e), #x)), target)
end
local by_hand = bp.op{ name = "softmax_loss", forward = function(x)
  local p = softmax(x)
  return cross_entropy(p), function(dz) return dz * (p - target) end
end }
for _, way in ipairs{
  { "composed", function(x) return cross_entropy(softmax(x)) end },
  { "one function", one_function },
  { "by hand", by_hand },
  { "fused", function(x) return bp.softmax_cross_entropy(x, target) end },
} do
  try(way[1], function(x) return way[2](x) ^ 2 end, input,
    0.51207172912262855, { -0.73147420919582362, 0.3474654731904, 0.38400873600542373 })
end

print "\nsoftmax alone, cotangent (1, 0, 0)"
for _, way in ipairs{ { "composed", softmax }, { "fused", bp.softmax } } do
  local _, pullback <close> = bp.vjp(way[2], input)
  print(("%-16s gradient (%s)"):format(way[1], holds(pullback(bp.vector{ 1, 0, 0 }),
    { 0.2498768489942951, -0.1186967038394723, -0.13118014515482285 })))
end

print "\na record of six vectors, of which two are used, three times in all"
local Six = bp.record("Six", "a", "b", "c", "d", "e", "f")
local six = bp.map(function() return bp.vector{ 1, 2 } end, Six{ a = 0, b = 0, c = 0, d = 0, e = 0, f = 0 })
local s = try("fields", function(t) return bp.dot(t.a, t.d) + bp.sum(t.a) end, six,
  8, { 2, 3, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0 })
assert(s.additions == 1 and s.zero_fills == 4) -- the second use of a; b, c, e and f

-- Before a gradient is written by hand: where does the time go? The softmax and its loss are next to nothing beside the
-- layer before them, so a gradient by hand would gain next to nothing; and the hints name what is fused already.
print "\nis it worth it? the composed loss after a layer of 2,000 inputs and 500 outputs"
local Layer = bp.record("Layer", { "w", "matrix" }, { "b", "vector" })
local random = bp.rng(1)
local layer = Layer{ w = random:normal(0, 0.01, 500, 2000), b = bp.zeros(500) }
local first = bp.full(0, 500)
first[1] = 1
local report = bp.profile(function(l, x)
  local e = bp.exp(bp.matmul(l.w, x) + l.b)
  local p = e / bp.konst(bp.sum(e), #e)
  return -bp.dot(bp.log(p), first)
end, layer, random:normal(0, 1, 2000))
local hinted = 0
for _, row in ipairs(report) do if row.hint then hinted = hinted + 1 end end
assert(hinted == 4) -- linear, softmax, log_softmax, softmax_cross_entropy
