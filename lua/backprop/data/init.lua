-- Readers of data files, `bp.data`.
-- Each gives plain arrays and raises, on a malformed file, an error that names the file and the line or byte.

local data = {
  csv = require("backprop.data.csv"),
  idx = require("backprop.data.idx"),
}

return data
