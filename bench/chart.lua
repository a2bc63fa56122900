-- The chart of the README, from mnist.csv and machine.txt in bench/results/: a panel for each dtype and batch, in it a
-- group for each task, in it a bar for each mode, whose height is its time over that of mode limit; the line is the
-- limit itself, with its time below. A bar that is too long is cut, with its value in it.
--
--   lua5.4 bench/chart.lua [--results bench/results]
--
-- There is no background, and every colour can be read on white and on black.

package.path = (arg[0]:match("^(.*/)") or "./") .. "?.lua;" .. package.path
local csv = require "csv"
local option = require "options".read{ results = "bench/results" }

local modes = { "manual", "lens", "fields", "hybrid", "fused" }
local colour = { manual = "#8c959f", lens = "#2f81f7", fields = "#1fa8a0", hybrid = "#d29922", fused = "#a371f7" }
local tasks = { "run", "gradient", "descent" }
local dtypes, batches = { "f64", "f32" }, { 1, 64, 256 }

-- Sizes in pixels.
local bar, gap, margin = 13, 16, 10
local group = #modes * bar + gap
local panel = { width = #tasks * group + gap, height = 150 }
local left, top, across, down = 44, 92, 26, 74
local ceiling = 2.25 -- the ratio at the top of a panel

local times = {}
for _, row in ipairs(csv.read(option.results .. "/mnist.csv")) do
  times[("%s %s %d %s"):format(row.task, row.dtype, row.batch, row.mode)] = row
end

local out = {}
local function put(format, ...) out[#out + 1] = format:format(...) end
local function text(x, y, class, words) put('<text x="%g" y="%g" class="%s">%s</text>', x, y, class, words) end

local function microseconds(value)
  if value < 1000 then return ("%.0f µs"):format(value) end
  return ("%.1f ms"):format(value / 1000)
end

local function draw_bar(x, base, mode, ratio)
  local height = panel.height * math.min(ratio, ceiling) / ceiling
  put('<rect x="%g" y="%.1f" width="%g" height="%.1f" fill="%s"><title>%s: %.2f</title></rect>', x, base - height,
    bar - 2, height, colour[mode], mode, ratio)
  if ratio > ceiling then
    put('<text transform="translate(%g %g) rotate(-90)" class="cut">%.1f</text>', x + bar / 2 + 2, base - height + 4,
      ratio)
  end
end

local function draw_panel(x, y, dtype, batch)
  local base = y + panel.height
  text(x, y - 18, "head", ("%s, batch %d"):format(dtype, batch))
  for ratio = 0, 2, 0.5 do
    local at = base - panel.height * ratio / ceiling
    put('<line x1="%g" y1="%.1f" x2="%g" y2="%.1f" class="%s"/>', x, at, x + panel.width, at,
      ratio == 0 and "axis" or "grid")
    text(x - 6, at + 4, "small end", ("%.1f"):format(ratio))
  end
  for k, task in ipairs(tasks) do
    local from = x + gap + (k - 1) * group
    local key = ("%s %s %d "):format(task, dtype, batch)
    for m, mode in ipairs(modes) do
      local row = times[key .. mode]
      if row and row.ratio_to_limit ~= "" then draw_bar(from + (m - 1) * bar, base, mode, row.ratio_to_limit) end
    end
    local middle = from + #modes * bar / 2 - 1
    text(middle, base + 16, "label middle", task)
    if times[key .. "limit"] then
      text(middle, base + 30, "small middle", microseconds(times[key .. "limit"].median_us))
    end
  end
  local line = base - panel.height / ceiling
  put('<line x1="%g" y1="%.1f" x2="%g" y2="%.1f" class="limit"/>', x, line, x + panel.width, line)
end

local function draw_legend(x, y)
  for _, mode in ipairs(modes) do
    put('<rect x="%g" y="%g" width="11" height="11" rx="2" fill="%s"/>', x, y - 10, colour[mode])
    text(x + 16, y, "label", mode)
    x = x + 30 + 7 * #mode
  end
  put('<line x1="%g" y1="%g" x2="%g" y2="%g" class="limit"/>', x, y - 4, x + 20, y - 4)
  text(x + 26, y, "label", "the limit: the fastest C by hand, its time below")
end

local width = left + #batches * (panel.width + across) + margin
local height = top + #dtypes * (panel.height + down)
local machine <close> = assert(io.open(option.results .. "/machine.txt"))

put('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" width="%g" height="%g" role="img">', width, height,
  width, height)
put("<title>A training step through the library, by the time of the fastest C</title>")
put [[<style>
text { font: 12px system-ui, "Helvetica Neue", Arial, sans-serif; fill: #768390 }
.head { font-size: 13px; font-weight: 600 } .main { font-size: 16px; font-weight: 600 }
.small { font-size: 10px } .middle { text-anchor: middle } .end { text-anchor: end }
.cut { font-size: 9px; font-weight: 600; text-anchor: end; fill: #fff }
.grid { stroke: #768390; stroke-opacity: .3 } .axis { stroke: #768390 } .limit { stroke: #e5484d; stroke-width: 1.5 }
</style>]]
text(margin, 24, "main", "A step of 784 x 300 x 100 x 10, by the time of the fastest C we can write; lower is better")
text(margin, 42, "label", machine:read("l"))
draw_legend(margin, 62)
for i, dtype in ipairs(dtypes) do
  for j, batch in ipairs(batches) do
    draw_panel(left + (j - 1) * (panel.width + across), top + 6 + (i - 1) * (panel.height + down), dtype, batch)
  end
end
put "</svg>"

local file <close> = assert(io.open(option.results .. "/mnist.svg", "w"))
file:write(table.concat(out, "\n"), "\n")
