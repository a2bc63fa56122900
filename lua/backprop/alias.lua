--[[
Storage that is written while it is read. What changes whole structures in place does so as if everything had been read
before: a source that another write would reach first is cloned. `written` counts the arrays to be written by buffer.
]]

local core = require "backprop.core"

local alias = {}

--- Notes that an array is going to be written.
function alias.note(written, array)
  local buffer = core.buffer_key(array)
  written[buffer] = (written[buffer] or 0) + 1
end

--- What is to be read for a target that is written: the source itself, if its storage is nobody's or just the target's.
function alias.kept(written, target, source)
  local writers = written[core.buffer_key(source)]
  if not writers or writers == 1 and core.storage_key(source) == core.storage_key(target) then return source end
  return source:clone()
end

return alias
