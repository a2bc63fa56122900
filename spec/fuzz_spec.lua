-- The fuzzer itself: a few fixed seeds, and that it sees what it is there to see. `make fuzz` runs it at length.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local cases = require "fuzz.cases"
local process = require "support.process"
local reduce = require "fuzz.reduce"

local function text_of(case) return cases.write(case) end

describe("P35: random programs and files", function()
  it("of 160 seeds satisfy the oracle and leave nothing", function()
    local note = os.tmpname()
    local output = process.lua("spec/fuzz/worker.lua", "batch", 1, 160, note)
    os.remove(note)
    local judged, compared = output:match "^DONE\t(%d+)\t(%d+)\n$"
    assert(judged == "160" and tonumber(compared) > 300, output)
  end)

  it("are the same for the same seed, and others for another", function()
    for seed = 1, 16 do assert.equal(text_of(cases.generate(seed)), text_of(cases.generate(seed))) end
    assert.not_equal(text_of(cases.generate(1)), text_of(cases.generate(2)))
  end)

  it("hold every operation of bp.ops() somewhere in 500 programs", function()
    local seen = {}
    for seed = 1, 500 do
      local case = cases.generate(seed)
      for _, statement in ipairs(case.body or {}) do
        for name in statement:gmatch "[.:](%a[%w_]*)%f[(]" do seen[name] = true end
        for sign in statement:gmatch "%) ([-+*/^]) %(" do seen[sign] = true end
      end
    end
    local signs = { add = "+", sub = "-", mul = "*", div = "/", pow = "^" }
    for _, row in ipairs(bp.ops()) do
      if bp[row.name] and row.name ~= "neg" then assert(seen[row.name] or seen[signs[row.name]], row.name) end
    end
  end)
end)

describe("the oracle", function()
  local function program(body, inputs)
    return { seed = 1, inputs = inputs or { "bp.vector{ 0.5, -1.5 }", "2.5" }, body = body, result = "bp.sum(r[3])" }
  end

  -- What it must say of a program, by the first word.
  local wrong = {
    { "gradient", "r[3] = bp.op(function(a) return a * 2, function(dz) return dz * 3 end end)(r[1])" },
    { "gradient", "r[3] = bp.op(function(a) return a * a, function(dz) return dz * a end end)(r[2])" },
    { "gradient", "r[3] = r[1] * bp.value(r[2])" },
    { "value", "r[3] = r[1] * (bp.kind(r) == 'table' and tostring(r[2]):find('tracked') and 2 or 3)" },
    { "agreement", "r[3] = r[1] r[1]:fill(0)" },
    { "agreement", "r[3] = r[1] if tostring(r[2]):find('tracked') then error('oh') end" },
    { "sweep", "r[3] = bp.op(function(a) return a * 2, function() error('oh') end end)(r[1])" },
    { "error", "error('oh', 0)" }, { "error", "error({})" },
    { "again", "r[3] = bp.op(function(a) return a * 2, function(dz) calls = (calls or 0) + 1 return dz * calls end "
      .. "end)(r[1])" },
  }
  for i, case in ipairs(wrong) do
    it(("sees wrong program %d: %s"):format(i, case[1]), function()
      local kind = cases.judge(program{ case[2] })
      calls = nil -- luacheck: ignore
      assert(kind and kind:find(case[1], 1, true), tostring(kind))
    end)
  end

  it("sees a leak", function()
    local kind = cases.judge_alone(program{ "r[3] = r[1] hoard = { hoard, bp.zeros(9) }" })
    hoard = nil -- luacheck: ignore
    assert.equal("leak", kind)
  end)

  it("skips kinks, and takes errors that may be", function()
    for _, body in ipairs{
      { "r[3] = bp.abs(r[1] - r[1])" }, { "r[3] = bp.max(bp.vector{ r[2], r[2], r[2] })" },
      { "r[3] = bp.sqrt(r[1] * 0)" }, { "r[4] = bp.full(2, 2)", "r[3] = r[1] * r[4]", "do r[4]:fill(3) end" },
      { "r[3] = bp.nograd(function(a) return a * 2 end)(r[1])" }, { "r[3] = bp.exp()" }, {},
    } do
      local kind, message = cases.judge(program(body))
      assert(not kind, tostring(kind) .. ": " .. tostring(message))
    end
  end)
end)

describe("reduction", function()
  it("leaves what is needed", function()
    local list = {}
    for i = 1, 100 do list[i] = i end
    local needed = { [17] = true, [18] = true, [93] = true }
    local calls = 0
    local rest = reduce(list, function(shorter)
      calls = calls + 1
      local there = 0
      for _, x in ipairs(shorter) do there = there + (needed[x] and 1 or 0) end
      return there == 3
    end, 1000)
    assert.same({ 17, 18, 93 }, rest)
    assert(calls < 200)
    assert.equal(100, #list)
  end)

  it("gives a script that stands alone", function()
    for _, case in ipairs{
      { seed = 7, inputs = { "bp.matrix{ { 1, 2 } }", "2.5" }, result = "bp.sum(r[3]) + r[4]",
        body = { "r[3] = bp.sin(r[1])", "r[4] = freeze(4, function() return bp.value(r[2]) end)",
          "r[9] = stale.v + 1" } },
      cases.generate(8),
    } do
      local output = process.script(cases.script(case, "gradient", "a reason\nof two lines"))
      if case.body then assert(output:find "gradient of input 1" and output:find "difference", output) end
    end
  end)
end)
