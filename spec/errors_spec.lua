-- Errors worth reading: the lists in spec/errors/ have, for the public functions and methods, wrong calls of each class
-- (count, type, shape, dtype, index, stale, closed, structure) and the whole message that a user sees.
-- Held here: each message is exactly the one listed, at the line of the call, also through pcall, in a coroutine,
-- inside the forward and the pullback of a bp.op and in a function that is differentiated; the state stays usable and
-- no array is leaked. spec/gate_spec.lua sees to it that no public function is left out.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"
local wrong_calls = require "support.wrong_calls"

local LINE = "user.lua:7: "

-- In a coroutine of its own. Not coroutine.wrap, which adds a position to what it hands on.
local function resumed(call)
  local ok, message = coroutine.resume(coroutine.create(call))
  if not ok then error(message, 0) end
end

-- How a call may be made. Each raises what the call raised.
local ways = {
  plainly = function(call) call() end,
  ["in a coroutine"] = resumed,
  ["in a coroutine inside a coroutine that differentiates"] = function(call)
    resumed(function()
      bp.grad(function(x)
        resumed(call)
        return x
      end)(1)
    end)
  end,
  ["in a function that is differentiated"] = function(call)
    bp.vjp(function(x)
      call()
      return x
    end, 1)
  end,
  ["in the forward of an operation"] = function(call)
    bp.grad(bp.op(function(x)
      call()
      return x, function(d) return d end
    end))(1)
  end,
  ["in the pullback of an operation"] = function(call)
    bp.grad(bp.op(function(x)
      return x, function(d)
        call()
        return d
      end
    end))(1)
  end,
}

local function check(case, message, way)
  if type(message) == "string" and way:find("pullback") then
    message = message:gsub(" %(in the pullback of bp.op%)$", "")
    case = { message = case.message:gsub(" %(in the pullback of bp.op%)$", ""), place = case.place, code = case.code }
  end
  if message ~= LINE .. case.message then
    return ("%s: %s, %s:\n  expected %s\n  got      %s"):format(case.place, case.code, way, LINE .. case.message,
      tostring(message))
  end
end

for _, name in ipairs(wrong_calls.files) do
  describe("wrong calls of " .. name, function()
    local cases = wrong_calls.read(name)
    for way, run in pairs(ways) do
      it("say what is wrong, " .. way, function()
        local failed = {}
        for _, case in ipairs(cases) do
          local ok, message = pcall(run, wrong_calls.compile(case.code, wrong_calls.values()))
          failed[#failed + 1] = ok and ("%s: %s: no error"):format(case.place, case.code)
            or check(case, message, way)
        end
        assert(#failed == 0, table.concat(failed, "\n"))
        help.same({ 2, 4 }, bp.grad(function(x) return x * x end)(bp.vector{ 1, 2 }))
      end)
    end

    it("leak nothing", function()
      local function all()
        for _, case in ipairs(cases) do pcall(wrong_calls.compile(case.code, wrong_calls.values())) end
      end
      all()
      local before = help.live()
      all()
      assert(help.live() <= before)
    end)
  end)
end

describe("the line of an error", function()
  local function line_of(f, ...)
    local ok, message = pcall(f, ...)
    assert(not ok)
    return tonumber(message:match("^%S*errors_spec.lua:(%d+): "))
  end
  local function here() return debug.getinfo(2, "l").currentline end

  it("is the operator's, of several in one statement on several lines", function()
    local v, w, at = bp.vector{ 1, 2 }, bp.vector{ 1, 2, 3 }, nil
    local line = line_of(function()
      local sum = v * 2
      at = here() + 1
      sum = sum + w
      return sum
    end)
    assert.equal(at, line)
  end)

  -- The functions that take arrays, and constructors of records: what users write in `return bp.linear(x, w, b)`.
  it("is kept where the call is a tail call", function()
    local count = 0
    for _, name in ipairs{ "arrays", "operations" } do
      for _, case in ipairs(wrong_calls.read(name)) do
        local call = wrong_calls.compile(case.code, wrong_calls.values(), true)
        if call then
          local ok, message = pcall(call)
          assert(not ok)
          assert.equal(LINE .. case.message, message)
          count = count + 1
        end
      end
    end
    assert(count > 200)
    for _, code in ipairs{
      "Layer{w = m}", "bp.linear(v, m, w)", "bp.vector{v}", "bp.rows(v)", "bp.argmax(v, 3)", "bp.add(v, w)",
      "bp.value(stale)", "bp.clamp(v)", "bp.zero(cycle)", "bp.leaves(cycle)", "bp.release(stale)", "bp.axpy(1, v, w)",
    } do
      local ok, message = pcall(wrong_calls.compile(code, wrong_calls.values(), true))
      assert(not ok and message:find(LINE, 1, true) == 1, message)
    end
  end)

  it("is that of a method of a record type which calls the library", function()
    local T, at = bp.record("T", { "w", "matrix" }), nil
    function T:apply(x)
      at = here() + 1
      local y = bp.matmul(self.w, x)
      return y
    end
    local line = line_of(bp.grad(function(t) return bp.sum(t:apply(bp.vector{ 1 })) end), T{ w = bp.eye(2) })
    assert.equal(at, line)
  end)

  it("is that of a callback of bp.map, bp.over and a lens", function()
    local v, w, at = bp.vector{ 1, 2 }, bp.vector{ 1, 2, 3 }, nil
    local function wrong(x)
      at = here() + 1
      local sum = x + w
      return sum
    end
    local calls = {
      function() bp.map(wrong, { v }) end,
      function() bp.over({ v }, bp.at(1), wrong) end,
      function() bp.view(v, bp.lens(wrong, wrong)) end,
      function() bp.check(wrong, v) end,
      function() bp.optim.sgd{}:minimize(wrong, v) end,
    }
    for _, call in ipairs(calls) do assert.equal(line_of(call), at) end
  end)

  it("is the caller's where the function of the library was handed to pcall itself", function()
    local at = here() + 1
    local line = line_of(function() local ok, message = pcall(bp.zeros, -1); assert(not ok); error(message, 0) end)
    assert.equal(at, line)
  end)
end)
