-- Trains a small network to read handwritten digits: 8x8 pixels, from the CSV file in data/. The first 1,297 rows train
-- it, the last 500, by other writers, test it. Ends with a confusion matrix, and exits with 1 if the network reads less
-- than 92 % of the test rows.
--
--   lua5.4 examples/digits.lua [--epochs N] [--seed N] [--data DIR] [--f32]

-- Where the library is not installed, take it from the checkout that this script stands in.
local here = arg[0]:match("^(.*/)") or "./"
if not pcall(require, "backprop") then
  package.path = here .. "../lua/?.lua;" .. here .. "../lua/?/init.lua;" .. package.path
  package.cpath = here .. "../lua/?.so;" .. package.cpath
end
local bp = require "backprop"

-- The command line: --f32 stands alone, every other option takes a value of its default's type.
local option, k = { epochs = 30, seed = 1, data = here .. "data", f32 = false }, 1
while k <= #arg do
  local name, value = arg[k]:match("^%-%-(.+)"), arg[k + 1]
  if name == "f32" then value, k = true, k - 1 end
  if math.type(option[name]) then value = math.tointeger(tonumber(value)) end
  if option[name] == nil or value == nil then error("no such option, or no value for it: " .. arg[k], 0) end
  option[name], k = value, k + 2
end

-- The model: records with methods. What they compute on plain arrays they compute on tracked ones too.
local Layer = bp.record("Layer", { "w", "matrix" }, { "b", "vector" })
function Layer:forward(x, activation) return bp.linear(x, self.w, self.b, activation) end

local Net = bp.record("Net", { "hidden", Layer }, { "output", Layer })
function Net:logits(x) return self.output:forward(self.hidden:forward(x, "relu")) end
function Net:loss(x, class) return bp.softmax_cross_entropy(self:logits(x), class) end

local dtype, r = option.f32 and "f32" or "f64", bp.rng(option.seed)
local function layer(outputs, inputs)
  return Layer{ w = r:normal(0, (2 / inputs) ^ 0.5, outputs, inputs, dtype), b = bp.zeros(outputs, dtype) }
end
local net = Net{ hidden = layer(128, 64), output = layer(10, 128) }

-- The data: each row holds 64 pixels from 0 to 16, then the digit. Classes count from 1.
local rows = bp.data.csv(option.data .. "/digits.csv")
local pixels = bp.transpose(bp.slice(bp.transpose(rows), 1, 64)):astype(dtype) / 16
local class = bp.column(rows, 65) + 1
local train = { x = bp.slice(pixels, 1, 1297), class = bp.slice(class, 1, 1297) }
local test = { x = bp.slice(pixels, 1298, #pixels), class = bp.slice(class, 1298, #class) }

local function accuracy(set)
  return bp.mean(bp.equal(bp.argmax(net:logits(set.x), 2), set.class))
end

-- On a terminal one line that is drawn again and again; elsewhere a line an epoch.
local on_terminal = os.execute("test -t 1")
local function progress(epoch, done, loss)
  if done < 1 and not on_terminal then return end
  local bar = ("="):rep(math.floor(30 * done)) .. (done < 1 and ">" or "")
  io.write(on_terminal and "\r" or "", ("epoch %2d/%d [%-30s] loss %.4f"):format(epoch, option.epochs, bar, loss))
  if done == 1 then io.write((", accuracy %.4f"):format(accuracy(train)), on_terminal and "" or "\n") end
  io.flush()
end

local optimiser, started = bp.optim.sgd{ lr = 0.2, momentum = 0.9 }, os.clock()
for epoch = 1, option.epochs do
  local order, sum, seen = r:permutation(#train.x), 0, 0
  while seen < #order do
    local some = bp.slice(order, seen + 1, math.min(seen + 32, #order))
    sum = sum + #some * optimiser:minimize(Net.loss, net, bp.gather(train.x, some), bp.gather(train.class, some))
    seen = seen + #some
    progress(epoch, seen / #order, sum / seen)
  end
  optimiser.lr = 0.93 * optimiser.lr
end
print(("%s%.1f s of processor time"):format(on_terminal and "\n" or "", os.clock() - started))

local count, read = bp.zeros(10, 10), bp.argmax(net:logits(test.x), 2)
for i, c in ipairs(test.class) do count[c][read[i]] = count[c][read[i]] + 1 end
print("\nWritten as (down), read as (across):\n      0   1   2   3   4   5   6   7   8   9")
for c = 1, 10 do
  print(("%3d" .. ("%4d"):rep(10)):format(c - 1, table.unpack(count[c]:totable())))
end
print(("\ntest accuracy %.4f"):format(accuracy(test)))
os.exit(accuracy(test) >= 0.92)
