-- The tables in bench/results/: comma-separated, a header first; no field holds a comma or a quotation mark.

local csv = {}

-- A function that writes rows, tables by column name (a missing value is empty; floats with six digits), into a file;
-- without a path it does nothing.
function csv.writer(path, columns)
  if path == "" then return function() end end
  local file <const> = assert(io.open(path, "w"))
  file:setvbuf("line")
  file:write(table.concat(columns, ","), "\n")
  return function(row)
    local fields = {}
    for i, column in ipairs(columns) do
      local value = row[column]
      fields[i] = math.type(value) == "float" and ("%.6g"):format(value) or tostring(value == nil and "" or value)
    end
    file:write(table.concat(fields, ","), "\n")
  end
end

-- The rows of a file, numbers as numbers, or none if there is no such file.
function csv.read(path)
  local rows, columns = {}, nil
  local file <close> = io.open(path)
  if not file then return rows end
  for line in file:lines() do
    local fields = {}
    for field in (line .. ","):gmatch("([^,]*),") do fields[#fields + 1] = field end
    if columns then
      local row = {}
      for i, column in ipairs(columns) do row[column] = tonumber(fields[i]) or fields[i] end
      rows[#rows + 1] = row
    else
      columns = fields
    end
  end
  return rows
end

return csv
