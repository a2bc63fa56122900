--[[
bp.profile: where the time of a gradient goes, by operation and line of the user's script, so that one sees before
writing a gradient by hand whether it is worth it.

Times are the least of a few runs, operation by operation, since on a machine that others use too a single run may be
stopped anywhere. A run that records other operations than the first is not compared with it: the last one counts.
]]

local core = require "backprop.core"
local tree = require "backprop.tree"
local grad = require "backprop.grad"

local profile = {}

-- What would do at once what an operation does with the results of others: it is said of an operation when all of `of`
-- are among the operations that made its inputs. The first that fits is said.
local hints = {
  {op = "matmul", of = {"transpose"}, say = "bp.linear does x w' + b at once, with w as outputs x inputs"},
  {op = "add", of = {"matmul"}, say = "bp.linear adds b to the product at once"},
  {op = "div", of = {"exp", "konst"}, say = "bp.softmax does this at once, if the divisor is the sum"},
  {op = "div", of = {"exp", "outer"}, say = "bp.softmax does this at once, if the divisor is the sum of the row"},
  {op = "log", of = {"softmax"}, say = "bp.log_softmax does this at once, and stays finite"},
  {op = "log", of = {"div"}, say = "if this is the logarithm of a softmax, bp.log_softmax does it at once"},
  {op = "log", of = {"sum"}, say = "if this is the sum of exponentials, bp.logsumexp does it at once"},
  {op = "log", of = {"add"}, say = "bp.log1p does log(1 + x), bp.softplus log(1 + exp(x))"},
  {op = "log", of = {"sigmoid"}, say = "if this is a cross entropy, bp.sigmoid_cross_entropy does it at once"},
  {op = "sqrt", of = {"sum"}, say = "if this is the root of a sum of squares, bp.norm does it at once"},
  {op = "sum", of = {"mul"}, say = "of vectors bp.dot does this at once"},
}

for _, product in ipairs{"dot", "mul"} do
  for _, logarithm in ipairs{"log", "log_softmax"} do
    hints[#hints + 1] = {op = product, of = {logarithm},
      say = "if this is the cross entropy of a softmax, bp.softmax_cross_entropy of the logits does it at once"}
  end
end

local function hint_for(node)
  local made_by = {}
  for _, input in ipairs(node.inputs) do made_by[input] = true end
  for _, hint in ipairs(hints) do
    local fits = node.op == hint.op
    for _, input in ipairs(hint.of) do fits = fits and made_by[input] end
    if fits then return hint.say end
  end
end

-- ---- OpenBLAS and the processor ----

-- The processors, by OpenBLAS's names, whose kernels do without AVX2. It runs some of them on a processor that is
-- younger than it, and that it does not know.
local without_avx2 = {}
for name in ([[Unknown Katmai Coppermine Northwood Prescott Banias Atom Core2 Penryn Dunnington Nehalem Athlon Opteron
  Opteron_SSE3 Barcelona Nano Bobcat Sandybridge Bulldozer Piledriver Steamroller]]):gmatch "%S+" do
  without_avx2[name] = true
end

local core_type = {avx2 = "Haswell", avx512 = "SkylakeX"}

-- Said where the products of matrices, which OpenBLAS makes, were a good part of the time.
local function note_on_blas(elapsed)
  local name, seconds = core.blas()
  local better = core_type[core.simd()]
  if not (better and without_avx2[name] and seconds >= 0.1 * elapsed) then return nil end
  return ("OpenBLAS multiplies matrices with its kernels for a much older processor (%s). With a newer OpenBLAS, or " ..
    "with OPENBLAS_CORETYPE=%s in the environment, that may be several times as fast."):format(name, better)
end

-- ---- Measuring ----

local most_runs, enough_seconds = 7, 0.3

local function same_operations(a, b)
  if #a ~= #b then return false end
  for k, node in ipairs(a) do
    if node.op ~= b[k].op or node.line ~= b[k].line then return false end
  end
  return true
end

-- The trace of a few runs, after one that warms the pool up, and what is to be said of OpenBLAS.
local function measure(run, ...)
  run(...)
  local _ <close> = setmetatable({}, {__close = function() core.timing(false) end})
  core.timing(true)
  local start, trace = core.clock(), run(...)
  for _ = 2, most_runs do
    if core.clock() - start > enough_seconds then break end
    local again = run(...)
    if same_operations(trace, again) then
      for k, node in ipairs(trace) do
        node.forward = math.min(node.forward, again[k].forward)
        node.backward = math.min(node.backward, again[k].backward)
      end
    else
      trace = again
    end
  end
  return trace, note_on_blas(core.clock() - start)
end

-- ---- Telling ----

-- One row for each operation and line.
local function summarise(trace)
  local rows, by_key = {forward = 0, backward = 0, bytes = 0}, {}
  for _, node in ipairs(trace) do
    local line = (node.line or ""):gsub(": $", "")
    local key = node.op .. "\0" .. line
    local row = by_key[key]
    if not row then
      row = {op = node.op, line = line, calls = 0, forward = 0, backward = 0, bytes = 0}
      by_key[key] = row
      rows[#rows + 1] = row
    end
    row.calls = row.calls + 1
    row.hint = row.hint or hint_for(node)
    for _, sum in ipairs{row, rows} do
      sum.forward, sum.backward = sum.forward + node.forward, sum.backward + node.backward
      sum.bytes = sum.bytes + node.bytes
    end
  end
  rows.total = rows.forward + rows.backward
  for place, row in ipairs(rows) do
    row.share = rows.total > 0 and (row.forward + row.backward) / rows.total or 0
    row.place = place
  end
  table.sort(rows, function(a, b)
    if a.share ~= b.share then return a.share > b.share end
    return a.place < b.place
  end)
  for _, row in ipairs(rows) do row.place = nil end
  return rows
end

local Report = {__name = "profile"}

function Report.__tostring(rows)
  local lines = {("%-24s %7s %11s %12s %12s %6s  %s"):format("operation", "calls", "forward us", "backward us",
    "bytes", "share", "line")}
  local calls = 0
  local function add(name, count, row, share, line)
    lines[#lines + 1] = ("%-24s %7d %11.1f %12.1f %12d %5.1f%%  %s"):format(name, count, row.forward * 1e6,
      row.backward * 1e6, row.bytes, share * 100, line)
  end
  for _, row in ipairs(rows) do
    calls = calls + row.calls
    add(row.op, row.calls, row, row.share, row.line)
    if row.hint then lines[#lines + 1] = "    " .. row.hint end
  end
  add("all", calls, rows, 1, "")
  if rows.note then lines[#lines + 1] = rows.note end
  return (table.concat(lines, "\n"):gsub(" +\n", "\n"):gsub(" +$", ""))
end

--- Runs value and gradient of f(...) with respect to its first argument a few times; prints and returns a table of
-- rows, the most expensive first: op, line (where it was recorded), calls, forward and backward (seconds), bytes (of
-- the results), share (of the time of all operations, 0 to 1) and hint (what would do this at once, or nil). The
-- table's own forward, backward, bytes and total are the sums; the time of Lua between the operations is in none. Its
-- note says where OpenBLAS runs kernels for a processor much older than this one, else it is nil.
function profile.profile(f, ...)
  if not tree.callable(f) then core.raise("bp.profile: expected a function, got %s", tree.describe(f)) end
  if (...) == nil then core.raise("bp.profile: the function's first argument is missing: bp.profile(f, x, ...)") end
  local trace, note = measure(grad.traced(f), ...)
  local rows = setmetatable(summarise(trace), Report)
  rows.note = note
  print(rows)
  return rows
end

return profile
