-- Runs cases that must leave nothing behind:
--
--   local settled = require "support.settled"
--   settled.once(function() ... end)
--   settled.thrice(function() ... end)

local bp = require "backprop"
local help = require "support.helpers"

local settled = {}

local twice = bp.op(function(x) return x * 2, function(dz) return dz * 2 end end)

-- Runs a case, after which the bytes must be those of before and the next gradient right.
function settled.once(case)
  local before = help.live()
  case()
  local after = help.live()
  if after ~= before then error(("%d bytes are live where %d were"):format(after, before), 2) end
  help.same({ 4, 8 }, bp.grad(function(x) return bp.sum(twice(x) * x) end)(bp.vector{ 1, 2 }))
end

-- The same three times, after a first one for what stays for ever.
function settled.thrice(case)
  case()
  settled.once(function() for _ = 1, 3 do case() end end)
end

return settled
