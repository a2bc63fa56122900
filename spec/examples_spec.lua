-- Runs every example as a reader would: as a process of its own, from a folder that is not the checkout, with no
-- LUA_PATH that would help it to find the library. Held here: the exit code and what each one promises to print.
--
-- BACKPROP_MNIST names the folder with the MNIST files; without it that example is pending. LUA names the interpreter.

package.path = "./spec/?.lua;" .. package.path
local shell = require "support.shell"

local lua = os.getenv "LUA" or "lua5.4"
local output, quote, run, root = shell.output, shell.quote, shell.run, shell.root

local function example(name, options)
  return run("/", ("%s %s %s"):format(lua, quote(root .. "/examples/" .. name), options or ""))
end

local succeeds = shell.succeeds

describe("examples/digits.lua", function()
  local function accuracy(text)
    return tonumber(text:match "test accuracy (%d%.%d+)\n$")
  end

  it("learns to read digits in both dtypes", function()
    for _, options in ipairs{ "", "--f32" } do
      local text = succeeds(example("digits.lua", options))
      assert.is_true(accuracy(text) >= 0.92, text)
      assert.is_truthy(text:find("epoch 30/30 [" .. ("="):rep(30) .. "] loss 0.", 1, true), text)
    end
  end)

  it("takes under 20 seconds", function()
    local started = os.time()
    succeeds(example "digits.lua")
    assert.is_true(os.time() - started < 20)
  end)

  it("counts all 500 test rows in its confusion matrix, most of them on the diagonal", function()
    local text = succeeds(example "digits.lua")
    local total, diagonal = 0, 0
    for digit = 0, 9 do
      local line = assert(text:match("\n  " .. digit .. "([ %d]+)\n"), text)
      local column = 0
      for count in line:gmatch "%d+" do
        total = total + tonumber(count)
        if column == digit then diagonal = diagonal + tonumber(count) end
        column = column + 1
      end
      assert.are.equal(10, column)
    end
    assert.are.equal(500, total)
    assert.are.equal(("%.4f"):format(diagonal / 500), ("%.4f"):format(accuracy(text)))
  end)

  it("gives the same run for the same seed, another for another", function()
    local function loss(seed)
      return example("digits.lua", "--epochs 2 --seed " .. seed):match "epoch  2/2 [^\n]+"
    end
    local first = assert(loss(1))
    assert.are.equal(first, loss(1))
    assert.are_not.equal(first, loss(2))
  end)

  it("exits with 1 when the network has not learnt", function()
    local text, code = example("digits.lua", "--epochs 0")
    assert.are.equal(1, code, text)
    assert.is_true(accuracy(text) < 0.5)
  end)

  it("draws its bar on one line where it writes to a terminal", function()
    if output("command -v script") == "" then pending "no script(1) to make a terminal"; return end
    local command = lua .. " " .. quote(root .. "/examples/digits.lua") .. " --epochs 2"
    local text = run("/", "script -qec " .. quote(command) .. " /dev/null")
    assert.is_truthy(text:find("\repoch  1/2 [=", 1, true), text)
    assert.is_truthy(text:find(">", 1, true), text)
    assert.is_nil(text:find("\nepoch", 1, true), text)
  end)

  it("runs from its own folder and from the checkout", function()
    succeeds(run(root .. "/examples", lua .. " digits.lua"))
    succeeds(run(root, lua .. " examples/digits.lua"))
  end)

  it("refuses options it does not know, and missing or wrong values", function()
    for _, options in ipairs{ "--epoch 3", "--epochs", "--epochs many", "--seed 1.5", "12", "--data" } do
      local text, code = example("digits.lua", options)
      assert.are.equal(1, code, text)
      assert.is_truthy(text:find("no such option, or no value for it: " .. options:match "%S+", 1, true), text)
    end
  end)

  it("names the file that is not there", function()
    local text, code = example("digits.lua", "--data /nowhere")
    assert.are.equal(1, code)
    assert.is_truthy(text:find("/nowhere/digits.csv", 1, true), text)
  end)
end)

describe("examples/data", function()
  it("says where its data comes from and under what licence", function()
    local file = assert(io.open(root .. "/examples/data/README.md"))
    local text = file:read "a"
    file:close()
    for _, word in ipairs{ "digits.csv", "Alpaydin", "Kaynak", "UCI Machine Learning", "CC BY 4.0" } do
      assert.is_truthy(text:gsub("%s+", " "):find(word, 1, true), word)
    end
  end)
end)

describe("examples/guide.lua", function()
  -- The numbers of the guide, as text from the script, to 1e-12.
  local function near(text, want)
    local got = {}
    for number in text:gmatch "%-?%d[%d.e+-]*" do got[#got + 1] = tonumber(number) end
    assert.are.equal(#want, #got, text)
    for i, w in ipairs(want) do assert.is_true(math.abs(got[i] - w) <= 1e-12, text) end
  end

  local function rows(section)
    local list = {}
    for line in section:gmatch "[^\n]+" do
      if line:find("gradient", 1, true) then list[#list + 1] = line:sub(18) end
    end
    return list
  end

  it("prints the guide's values and gradients for every form", function()
    local text = succeeds(example "guide.lua")
    local sections = {}
    for section in (text .. "\n"):gmatch "(.-)\n\n" do sections[#sections + 1] = section end
    local want = {
      { 4, { 37, 7, 5, 1 } },
      { 4, { -math.sqrt(37), -0.57539645556875052, -0.41099746826339323, -0.082199493652678646 } },
      { 4, { 0.51207172912262855, -0.73147420919582362, 0.3474654731904, 0.38400873600542373 } },
      { 2, { 0.2498768489942951, -0.1186967038394723, -0.13118014515482285 } },
      { 1, { 8, 2, 3, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0 } },
    }
    assert.are.equal(#want + 1, #sections, text) -- and the profile
    for i, wanted in ipairs(want) do
      local lines = rows(sections[i])
      assert.are.equal(wanted[1], #lines, sections[i])
      for _, line in ipairs(lines) do near(line, wanted[2]) end
    end
  end)

  it("shows a profile, with what a fused operation would do", function()
    local profile = succeeds(example "guide.lua"):match "\n(is it worth it.*)$"
    for _, op in ipairs{ "matmul", "add", "exp", "sum", "konst", "div", "log", "dot" } do
      assert.is_truthy(profile:find("\n" .. op .. " .-guide%.lua:%d+\n"), op .. " is not in " .. profile)
    end
    for _, fused in ipairs{ "linear", "softmax", "log_softmax", "softmax_cross_entropy" } do
      assert.is_truthy(profile:find("bp." .. fused .. " ", 1, true), fused .. " is not in " .. profile)
    end
  end)

  it("shows that reading fields adds no zeros", function()
    local text = succeeds(example "guide.lua")
    local record = text:match "^(.-)\n\n"
    local seen = 0
    for additions, fills in record:gmatch "additions (%d+), zero fills (%d+)" do
      assert.are.equal("00", additions .. fills)
      seen = seen + 1
    end
    assert.are.equal(4, seen)
    assert.is_truthy(text:find "additions 1, zero fills 4\n\n")
  end)
end)

describe("examples/c_op", function()
  local folder

  setup(function()
    folder = shell.folder()
  end)

  teardown(function()
    shell.remove(folder)
  end)

  it("builds outside the checkout without a warning, and runs like a built-in operation", function()
    local built = succeeds(run(root .. "/examples/c_op", "make OUT=" .. quote(folder)))
    assert.is_nil(built:find "warning")
    local text = succeeds(run("/", ("%s %s"):format(lua, quote(root .. "/examples/c_op/fit.lua")),
      "LUA_CPATH_5_4=" .. quote(folder .. "/?.so;;")))
    assert.is_truthy(text:find "gradients agree with finite differences")
    assert.is_truthy(text:find "robust%.smooth_l1: x and y must have one shape, not 4x1 and 3x1")
    assert.is_truthy(text:find "robust%.smooth_l1: beta must be positive, not %-1")
    local slope, offset = text:match "fitted with smooth_l1:%s+(%S+) t %+ (%S+)"
    assert.is_true(math.abs(slope - 2) < 0.2 and math.abs(offset - 1) < 0.2, text)
    offset = text:match "fitted with squares:%s+%S+ t %+ (%S+)"
    assert.is_true(math.abs(offset - 1) > 1, text)
  end)
end)

describe("examples/mnist.lua", function()
  it("reads at least 96 % of the test images", function()
    local data = os.getenv "BACKPROP_MNIST"
    if not data then
      pending "BACKPROP_MNIST names no folder with the MNIST files"
      return
    end
    local probe = io.open(data .. "/t10k-labels-idx1-ubyte.gz") or io.open(data .. "/t10k-labels-idx1-ubyte")
    if not probe then
      pending(data .. " holds no MNIST files")
      return
    end
    probe:close()
    local text = succeeds(example("mnist.lua", "--data " .. quote(data)))
    assert.is_true(tonumber(text:match "test accuracy (%d%.%d+)\n$") >= 0.96, text)
  end)

  it("names the file that is not there", function()
    local text, code = example("mnist.lua", "--data /nowhere")
    assert.are.equal(1, code)
    assert.is_truthy(text:find("/nowhere/train-images-idx3-ubyte", 1, true), text)
  end)
end)
