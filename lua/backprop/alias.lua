--[[
Storage that is written while it is read. What changes whole structures in place does so as if everything had been read
before: a source that another write would reach first is cloned. `written` counts the arrays to be written by buffer.

Mostly there is nothing to see to: two structures of arrays, each in storage of its own. `alias.pairs` finds that out at
a tenth of the cost.
]]

local core = require "backprop.core"
local tree = require "backprop.tree"

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

--- The list target, source, target, source, ... of the leaves of two structures that go together; nil where they do
-- not, where a leaf is no array, or where a target shares storage with anything else. `name` is the public one.
function alias.pairs(name, targets, sources)
  return tree.short(core.array_pairs, name, targets, sources)
end

return alias
