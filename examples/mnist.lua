-- Trains a 784-300-100-10 network on MNIST, in mini-batches; reads 96 to 98 % of the 10,000 test images.
-- DIR holds the four published files, as they are or gunzipped; fewer training images than 60,000 will do.
--
--   lua5.4 examples/mnist.lua --data DIR [--epochs N] [--batch N] [--seed N] [--f32]

-- Where the library is not installed, take it from the checkout that this script stands in.
local here = arg[0]:match("^(.*/)") or "./"
if not pcall(require, "backprop") then
  package.path = here .. "../lua/?.lua;" .. here .. "../lua/?/init.lua;" .. package.path
  package.cpath = here .. "../lua/?.so;" .. package.cpath
end
local bp = require "backprop"

-- The command line: --f32 stands alone, every other option takes a value of its default's type.
local option, k = { epochs = 8, batch = 64, seed = 1, data = ".", f32 = false }, 1
while k <= #arg do
  local name, value = arg[k]:match("^%-%-(.+)"), arg[k + 1]
  if name == "f32" then value, k = true, k - 1 end
  if math.type(option[name]) then value = math.tointeger(tonumber(value)) end
  if option[name] == nil or value == nil then error("no such option, or no value for it: " .. arg[k], 0) end
  option[name], k = value, k + 2
end

-- The data. Pixels stay as they are, from 0 to 255, and are scaled when they are used.
local dtype = option.f32 and "f32" or "f64"
local function load(name, as)
  local path = option.data .. "/" .. name
  local plain = io.open(path)
  if plain then plain:close() else path = path .. ".gz" end
  return (bp.data.idx(path, { dtype = as }))
end
local function set(prefix)
  return { images = load(prefix .. "-images-idx3-ubyte", dtype), class = load(prefix .. "-labels-idx1-ubyte") + 1 }
end
local train, test = set("train"), set("t10k")

-- The model: a list of layers.
local Layer = bp.record("Layer", { "w", "matrix" }, { "b", "vector" })
local Net = bp.record("Net", { "layers", bp.list(Layer) })
function Net:logits(x)
  for i, layer in ipairs(self.layers) do
    x = bp.linear(x, layer.w, layer.b, i < #self.layers and "relu" or nil)
  end
  return x
end
function Net:loss(x, class) return bp.softmax_cross_entropy(self:logits(x), class) end

local r = bp.rng(option.seed)
local function layer(outputs, inputs)
  return Layer{ w = r:normal(0, (2 / inputs) ^ 0.5, outputs, inputs, dtype), b = bp.zeros(outputs, dtype) }
end
local net = Net{ layers = { layer(300, 784), layer(100, 300), layer(10, 100) } }

local started, accuracy = os.clock(), 0
local optimiser = bp.optim.sgd{ lr = 0.1, momentum = 0.9 }
print(("%d images to train, %d to test"):format(#train.images, #test.images))
for epoch = 1, option.epochs do
  local order, sum = r:permutation(#train.images), 0
  for from = 1, #order, option.batch do
    local some = bp.slice(order, from, math.min(from + option.batch - 1, #order))
    local x, class = bp.gather(train.images, some) / 255, bp.gather(train.class, some)
    sum = sum + #some * optimiser:minimize(Net.loss, net, x, class)
  end
  optimiser.lr = 0.7 * optimiser.lr
  accuracy = bp.mean(bp.equal(bp.argmax(net:logits(test.images / 255), 2), test.class))
  print(("epoch %d/%d  loss %.4f, test accuracy %.4f, %.1f s of processor time"):format(
    epoch, option.epochs, sum / #order, accuracy, os.clock() - started))
end
print(("test accuracy %.4f"):format(accuracy))
