-- Leaves out of a list what is not needed for a failure: ever smaller runs of neighbours, as long as one goes
-- (A. Zeller, R. Hildebrandt, "Simplifying and isolating failure-inducing input", 2002).

local function without(list, from, to)
  local rest = table.move(list, 1, from - 1, 1, {})
  return table.move(list, to + 1, #list, from, rest)
end

-- A shorter list for which `fails` is still true, after at most `most` calls of it.
local function reduce(list, fails, most)
  local size, calls = #list, 0
  while size >= 1 do
    local from, removed = 1, false
    while from <= #list and calls < most do
      local shorter = without(list, from, math.min(from + size - 1, #list))
      calls = calls + 1
      if fails(shorter) then
        list, removed = shorter, true
      else
        from = from + size
      end
    end
    if not removed or size > 1 then size = size // 2 end
    if calls >= most then break end
  end
  return list
end

return reduce
