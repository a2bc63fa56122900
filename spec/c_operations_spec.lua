-- Operations in C that use all the freedom the header gives: spec/support/interleaved.c, built here, writes its
-- destinations in no order. Held here: P02 for such an operation, whatever overlaps whatever; values are exact.

package.path = "./spec/?.lua;" .. package.path
local bp = require "backprop"
local help = require "support.helpers"
local shell = require "support.shell"

local same = help.same

describe("P02: an operation in C that interleaves its writes", function()
  local folder, mix

  setup(function()
    folder = shell.folder()
    local include = "-I/usr/include/lua5.4 $(pkg-config --cflags lua5.4) -Isrc"
    local output = shell.succeeds(shell.output(("cc -std=c11 -O1 -Wall -Wextra -fPIC -shared %s -o %s %s 2>&1"):format(
      include, shell.quote(folder .. "/interleaved.so"), "spec/support/interleaved.c")))
    assert.equal("", output)
    mix = assert(package.loadlib(folder .. "/interleaved.so", "luaopen_interleaved"))().mix
  end)

  teardown(function() shell.remove(folder) end)

  -- mix, with built-in operations.
  local function plain(x, y) return 2 * x + 3 * y end

  -- Each makes of a matrix one result from `f`; f's arguments share elements, or have been read before or after.
  local uses = {
    ["the same twice"] = function(f, m) return f(m, m) end,
    ["the same twice, read before"] = function(f, m) return f(m, m) + bp.sum(m * m) end,
    ["the same twice, read after"] = function(f, m)
      local s = bp.sum(m * m)
      return f(m, m) + s
    end,
    ["a result twice"] = function(f, m)
      local y = bp.sin(m)
      return f(y, y) * y
    end,
    ["windows that overlap"] = function(f, m) return f(bp.slice(m, 1, 2), bp.slice(m, 2, 3)) end,
    ["the later window first"] = function(f, m) return f(bp.slice(m, 2, 3), bp.slice(m, 1, 2)) end,
    ["the whole and its windows"] = function(f, m)
      return bp.sum(f(m, m)) + bp.sum(f(m[2], m[2])) + bp.sum(f(m[1], m[3]))
    end,
    ["columns and rows"] = function(f, m) return f(bp.column(m, 2), m[2]) end,
    ["numbers"] = function(f, m) return f(m[1][1], m[1][1]) * f(m[1][1], m[2][3]) end,
    ["itself again"] = function(f, m)
      local y = f(m, m)
      return f(y, f(y, y))
    end,
    ["a constant beside it"] = function(f, m) return f(m, bp.constant(m)) + f(bp.constant(m), m) end,
  }
  for name, use in pairs(uses) do
    it("is right for " .. name, function()
      for _, dtype in ipairs(help.dtypes) do
        local m = bp.matrix({ { 1, -2, 3 }, { 0.5, 4, -1 }, { 2, 0, 8 } }, dtype)
        local function gradient(f) return bp.grad(function(x) return use(f, x) end)(m) end
        help.close(gradient(plain), gradient(mix), dtype == "f64" and 1e-14 or 1e-6)
        local into = bp.full(help.nan, 3, 3, dtype)
        bp.grad(function(x) return use(mix, x) end, { into = into })(m)
        same(gradient(mix), into)
        local p, q = { m:clone() }, { m:clone() }
        bp.optim.sgd{ lr = 0.5 }:minimize(function(t) return bp.sum(use(mix, t[1])) end, p)
        bp.optim.sgd{ lr = 0.5 }:minimize(function(t) return bp.sum(use(plain, t[1])) end, q)
        help.close(q, p, dtype == "f64" and 1e-14 or 1e-6)
      end
    end)
  end

  it("passes the check", function()
    bp.check(mix, bp.vector{ 1, 2 }, bp.vector{ 3, 4 })
    bp.check(function(x) return mix(x, x) end, bp.matrix{ { 1, 2 } })
  end)
end)
