-- The fuzzer's own generator of random choices, so that a seed means the same program on every machine and whatever the
-- library does: splitmix64 (G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators", 2014).

local Random = {}
Random.__index = Random

function Random:bits()
  self.state = self.state + 0x9E3779B97F4A7C15
  local z = self.state
  z = (z ~ (z >> 30)) * 0xBF58476D1CE4E5B9
  z = (z ~ (z >> 27)) * 0x94D049BB133111EB
  return z ~ (z >> 31)
end

-- The seed is mixed once more: the streams of neighbours would otherwise be one stream, shifted.
local function new(seed)
  local random = setmetatable({ state = seed }, Random)
  random.state = random:bits() * 0xD1342543DE82EF95
  return random
end

-- An integer from `from` to `to`.
function Random:integer(from, to)
  return from + (self:bits() >> 1) % (to - from + 1)
end

-- A number from 0 to 1.
function Random:number()
  return (self:bits() >> 11) * 0x1p-53
end

function Random:chance(p)
  return self:number() < p
end

function Random:pick(list)
  return list[self:integer(1, #list)]
end

-- One of the keys of a table of weights given as a list {key, weight, ...}.
function Random:weighted(list)
  local sum = 0
  for i = 2, #list, 2 do sum = sum + list[i] end
  local at = self:number() * sum
  for i = 1, #list, 2 do
    at = at - list[i + 1]
    if at < 0 then return list[i] end
  end
  return list[1]
end

return new
