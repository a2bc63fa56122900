-- A busted helper (--helper): the collector in the mode that BACKPROP_COLLECTOR names. "eager" begins a cycle as soon
-- as the last has ended and takes a step at every allocation, so that what is only almost reachable goes away soon.

local mode = os.getenv "BACKPROP_COLLECTOR" or "incremental"
if mode == "eager" then
  collectgarbage("incremental", 1, 100, 1)
else
  collectgarbage(mode)
end
