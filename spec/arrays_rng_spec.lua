-- The random generator. Its streams are compared with the published algorithms written again in Lua (xoshiro256** of
-- D. Blackman and S. Vigna with a state filled by splitmix64, G. Marsaglia's polar method), so that a seed gives the
-- same numbers on every machine; the rest are properties of fixed streams.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"

local same, raises, close = help.same, help.raises, help.close

local function rotate_left(x, k) return (x << k) | (x >> (64 - k)) end

-- A function that gives the next number in [0, 1) for a seed.
local function uniform(seed)
  local s = {}
  for i = 1, 4 do
    seed = seed + 0x9e3779b97f4a7c15
    local z = seed
    z = (z ~ (z >> 30)) * 0xbf58476d1ce4e5b9
    z = (z ~ (z >> 27)) * 0x94d049bb133111eb
    s[i] = z ~ (z >> 31)
  end
  return function()
    local result, shifted = rotate_left(s[2] * 5, 7) * 9, s[2] << 17
    s[3] = s[3] ~ s[1]
    s[4] = s[4] ~ s[2]
    s[2] = s[2] ~ s[3]
    s[1] = s[1] ~ s[4]
    s[3] = s[3] ~ shifted
    s[4] = rotate_left(s[4], 45)
    return (result >> 11) * 0x1p-53
  end
end

local function normal(seed)
  local draw, spare = uniform(seed), nil
  return function()
    if spare then
      local kept = spare
      spare = nil
      return kept
    end
    local u, v, s
    repeat
      u, v = 2 * draw() - 1, 2 * draw() - 1
      s = u * u + v * v
    until s < 1 and s > 0
    local scale = math.sqrt(-2 * math.log(s) / s)
    spare = v * scale
    return u * scale
  end
end

describe("bp.rng", function()
  it("draws uniform numbers as published, exactly", function()
    for _, seed in ipairs{ 0, 1, 42, 123456789, -1 } do
      local r, draw = bp.rng(seed), uniform(seed)
      for _ = 1, 20 do assert.equal(draw(), r:uniform(0, 1)) end
    end
  end)

  it("draws normal numbers by the polar method", function() -- tolerance 1e-14: its logarithm is its own
    local r, draw = bp.rng(7), normal(7)
    for _ = 1, 50 do close(draw(), r:normal(0, 1), 1e-14) end
  end)

  it("gives the same numbers for the same seed and others for another", function()
    local function sample(seed)
      local r = bp.rng(seed)
      return { r:uniform(-1, 2, 5):totable(), r:normal(1, 2, 2, 3):totable(), r:bernoulli(0.4, 20):totable(),
        help.plain(r:permutation(10)), r:uniform(0, 1), r:normal(0, 1) }
    end
    assert.same(sample(3), sample(3))
    assert.not_same(sample(3), sample(4))
    local a, b = bp.rng(1), bp.rng(1)
    a:uniform(0, 1, 10)
    assert.not_equal(a:uniform(0, 1), b:uniform(0, 1)) -- two generators share nothing, and a stream goes on
  end)

  it("makes numbers, vectors and matrices in both dtypes", function()
    local r = bp.rng(5)
    for name, call in pairs{
      uniform = function(...) return r:uniform(2, 3, ...) end,
      normal = function(...) return r:normal(2, 3, ...) end,
      bernoulli = function(...) return r:bernoulli(0.5, ...) end,
    } do
      assert.equal("float", math.type(call()), name)
      assert.equal("4", help.shape(call(4)), name)
      assert.equal("4x5", help.shape(call(4, 5)), name)
      assert.equal("0", help.shape(call(0)), name)
      assert.equal("f64", call(4):dtype(), name)
      if name ~= "bernoulli" then
        assert.equal("f32", call(4, "f32"):dtype(), name)
        assert.equal("f32", call(4, 5, "f32"):dtype(), name)
        for _, size in ipairs{ -1, 1.5, 2 ^ 31, 0 / 0 } do
          raises(name, call, size)
          raises(name, call, 2, size)
        end
        raises(name, call, 2, "f16")
      end
    end
  end)

  it("keeps to the range, mean and deviation that were asked for", function()
    local r, n = bp.rng(11), 20000
    local u = r:uniform(-2, 4, n)
    assert.is_true(bp.min(u) >= -2 and bp.max(u) < 4)
    close(1, bp.mean(u), 0.05)                       -- six standard errors are 0.073
    close(3, bp.mean(bp.square(u - 1)), 0.05)        -- width^2 / 12
    local z = r:normal(10, 2, n, "f64")
    close(10, bp.mean(z), 0.01)                      -- relative: 0.1, seven standard errors
    close(4, bp.mean(bp.square(z - 10)), 0.05)
    local within = bp.mean(bp.less(bp.abs(z - 10), 2))
    close(0.6827, within, 0.02)
    local m = r:normal(0, 1, 100, 200, "f32")
    close(0, bp.mean(m), 0.05)
    close(1, bp.mean(bp.square(m)), 0.05)
  end)

  it("draws zeros and ones with the probability given", function()
    local r = bp.rng(13)
    local b = r:bernoulli(0.3, 10000)
    for _, x in ipairs(b) do assert.is_true(x == 0 or x == 1) end
    close(0.3, bp.mean(b), 0.03)
    assert.equal(0, bp.sum(r:bernoulli(0, 1000)))
    assert.equal(1000, bp.sum(r:bernoulli(1, 1000)))
    assert.equal("3x4", help.shape(r:bernoulli(0.5, 3, 4)))
    for _, p in ipairs{ -0.1, 1.1, 0 / 0, "x" } do raises("bernoulli", r.bernoulli, r, p, 3) end
  end)

  it("permutes 1..n, each place as likely", function()
    local r = bp.rng(17)
    for _, n in ipairs{ 0, 1, 2, 10, 257 } do
      local p, seen = r:permutation(n), {}
      assert.equal(n, #p)
      for i = 1, n do seen[p[i]] = true end
      for i = 1, n do assert.is_true(seen[i], ("%d is missing from %d"):format(i, n)) end
    end
    local first = { 0, 0, 0 }
    for _ = 1, 3000 do
      local head = math.tointeger(r:permutation(3)[1])
      first[head] = first[head] + 1
    end
    for i = 1, 3 do assert.is_true(math.abs(first[i] - 1000) < 150) end -- 5.8 standard deviations
    for _, n in ipairs{ -1, 1.5, 2 ^ 31, "x" } do raises("permutation", r.permutation, r, n) end
    same({ { 5, 6 }, { 5, 6 } }, bp.gather(bp.matrix{ { 5, 6 }, { 5, 6 } }, r:permutation(2)))
  end)

  it("refuses wrong calls", function()
    local r = bp.rng(1)
    for _, seed in ipairs{ "x", {}, true } do raises("bp.rng", bp.rng, seed) end
    raises("uniform", r.uniform, r, "a", 1, 3)
    raises("normal", r.normal, r, 0)
    raises("normal", r.normal, r, 0, {}, 3)
    raises("uniform", r.uniform, 1, 0, 1)
  end)
end)

describe("the ends of ranges", function()
  it("uniform takes each bound that is given and never gives the upper one", function()
    local r = bp.rng(3)
    local largest = bp.max(r:uniform(nil, 10, 1000))
    assert(largest > 9 and largest < 10)
    assert.equal(0, r:normal(nil, 0))
    local above = 1 + 2 ^ -52
    for _ = 1, 200 do assert.equal(1, r:uniform(1, above)) end
    assert(bp.max(r:uniform(100, 101, 1000, 1000, "f32")) < 101)
    assert(bp.max(r:uniform(0, 0.1, 1000, 1000, "f32")) < 0.1)
    assert.equal(3, r:uniform(3, 3))
    raises("too wide", r.uniform, r, -1e308, 1e308)
  end)

  it("linspace includes both, also where their distance is none", function()
    same({ -1e308, 0, 1e308 }, bp.linspace(-1e308, 1e308, 3))
  end)
end)
