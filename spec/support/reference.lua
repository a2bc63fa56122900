-- The operations once more, as plain Lua formulas over numbers and nested tables: what the specs compare values and
-- gradients with. Written from the contract and from textbooks, not from the library.

local reference = {}

local exp, log, sqrt = math.exp, math.log, math.sqrt

-- The error function by the series e^(-x^2) 2/sqrt(pi) sum 2^n x^(2n+1) / (1 3 5 .. (2n+1)): all terms have one sign.
local function erf(x)
  if math.abs(x) > 6 then return x > 0 and 1.0 or -1.0 end
  local term, sum, n = x, x, 0
  repeat
    n = n + 1
    term = term * 2 * x * x / (2 * n + 1)
    sum = sum + term
  until math.abs(term) < 1e-18 * math.abs(sum) or n > 500
  return 2 / sqrt(math.pi) * exp(-x * x) * sum
end

local function sigmoid(x) return 1 / (1 + exp(-x)) end
local function normal_cdf(x) return 0.5 * (1 + erf(x / sqrt(2))) end
local function normal_density(x) return exp(-x * x / 2) / sqrt(2 * math.pi) end

local any = { -2.7, -1.3, -0.6, -0.01, 0.2, 0.75, 1.9, 3.1 }
local positive = { 0.01, 0.3, 0.9, 1, 1.7, 4.2, 30 }
local inside = { -0.9, -0.4, -0.05, 0.1, 0.55, 0.85 }

-- name -> value, derivative, points away from kinks and poles, further arguments. f and d take them after x.
reference.elementwise = {
  exp = { f = exp, d = exp, points = any },
  log = { f = log, d = function(x) return 1 / x end, points = positive },
  log1p = { f = function(x) return log(1 + x) end, d = function(x) return 1 / (1 + x) end,
    points = { -0.9, -0.4, 0.25, 1, 7 } },
  expm1 = { f = function(x) return exp(x) - 1 end, d = exp, points = any },
  sqrt = { f = sqrt, d = function(x) return 0.5 / sqrt(x) end, points = positive },
  square = { f = function(x) return x * x end, d = function(x) return 2 * x end, points = any },
  abs = { f = math.abs, d = function(x) return x > 0 and 1 or -1 end, points = any },
  sign = { f = function(x) return x > 0 and 1 or -1 end, d = function() return 0 end, points = any },
  sin = { f = math.sin, d = math.cos, points = any },
  cos = { f = math.cos, d = function(x) return -math.sin(x) end, points = any },
  tan = { f = math.tan, d = function(x) return 1 / math.cos(x) ^ 2 end, points = inside },
  asin = { f = math.asin, d = function(x) return 1 / sqrt(1 - x * x) end, points = inside },
  acos = { f = math.acos, d = function(x) return -1 / sqrt(1 - x * x) end, points = inside },
  atan = { f = math.atan, d = function(x) return 1 / (1 + x * x) end, points = any },
  sinh = { f = function(x) return (exp(x) - exp(-x)) / 2 end, d = function(x) return (exp(x) + exp(-x)) / 2 end,
    points = any },
  cosh = { f = function(x) return (exp(x) + exp(-x)) / 2 end, d = function(x) return (exp(x) - exp(-x)) / 2 end,
    points = any },
  tanh = { f = function(x) return (exp(x) - exp(-x)) / (exp(x) + exp(-x)) end,
    d = function(x) return 4 / (exp(x) + exp(-x)) ^ 2 end, points = any },
  sigmoid = { f = sigmoid, d = function(x) return sigmoid(x) * sigmoid(-x) end, points = any },
  softplus = { f = function(x) return log(1 + exp(x)) end, d = sigmoid, points = any },
  relu = { f = function(x) return x > 0 and x or 0 end, d = function(x) return x > 0 and 1 or 0 end, points = any },
  leaky_relu = { f = function(x, slope) return x > 0 and x or (slope or 0.01) * x end,
    d = function(x, slope) return x > 0 and 1 or slope or 0.01 end, points = any, arguments = { {}, { 0.2 } } },
  elu = { f = function(x, alpha) return x > 0 and x or (alpha or 1) * (exp(x) - 1) end,
    d = function(x, alpha) return x > 0 and 1 or (alpha or 1) * exp(x) end, points = any, arguments = { {}, { 0.5 } } },
  gelu = { f = function(x) return x * normal_cdf(x) end,
    d = function(x) return normal_cdf(x) + x * normal_density(x) end, points = any },
  silu = { f = function(x) return x * sigmoid(x) end,
    d = function(x) return sigmoid(x) * (1 + x * sigmoid(-x)) end, points = any },
  reciprocal = { f = function(x) return 1 / x end, d = function(x) return -1 / (x * x) end, points = any },
  clamp = { f = function(x, lo, hi) return math.max(lo, math.min(hi, x)) end,
    d = function(x, lo, hi) return lo <= x and x <= hi and 1 or 0 end, points = any, arguments = { { -1, 0.5 } } },
}

-- name -> value and both derivatives, and pairs of points.
reference.binary = {
  pow = { f = function(x, y) return x ^ y end, dx = function(x, y) return y * x ^ (y - 1) end,
    dy = function(x, y) return x ^ y * log(x) end, points = { { 0.3, 2 }, { 2.5, -1.5 }, { 1, 0.5 }, { 4, 0.25 } } },
  minimum = { f = math.min, dx = function(x, y) return x < y and 1 or 0 end,
    dy = function(x, y) return y < x and 1 or 0 end, points = { { 1, 2 }, { -1, -3 }, { 0.5, -0.5 } } },
  maximum = { f = math.max, dx = function(x, y) return x > y and 1 or 0 end,
    dy = function(x, y) return y > x and 1 or 0 end, points = { { 1, 2 }, { -1, -3 }, { 0.5, -0.5 } } },
}

-- Of a list of numbers: value and gradient.
local function largest(list)
  local best = list[1]
  for _, x in ipairs(list) do best = math.max(best, x) end
  return best
end

local function fold(list, start, step)
  local sum = start
  for _, x in ipairs(list) do sum = step(sum, x) end
  return sum
end

local function sum(list) return fold(list, 0, function(s, x) return s + x end) end

local function product(list, without)
  local p = 1
  for i, x in ipairs(list) do p = i == without and p or p * x end
  return p
end

local function each(list, f)
  local result = {}
  for i, x in ipairs(list) do result[i] = f(x, i) end
  return result
end
reference.each = each

local function logsumexp(list)
  if #list == 0 then return -math.huge end
  local top = largest(list)
  return top + log(sum(each(list, function(x) return exp(x - top) end)))
end

-- The gradient of the largest (sign 1) or smallest (sign -1): ties share it evenly.
local function shares(list, sign)
  local top = largest(each(list, function(x) return sign * x end))
  local count = fold(list, 0, function(n, x) return sign * x == top and n + 1 or n end)
  return each(list, function(x) return sign * x == top and 1 / count or 0 end)
end

reference.reductions = {
  sum = { f = sum, d = function(list) return each(list, function() return 1 end) end },
  mean = { f = function(list) return sum(list) / #list end,
    d = function(list) return each(list, function() return 1 / #list end) end },
  max = { f = largest, d = function(list) return shares(list, 1) end },
  min = { f = function(list) return -largest(each(list, function(x) return -x end)) end,
    d = function(list) return shares(list, -1) end },
  prod = { f = function(list) return product(list) end,
    d = function(list) return each(list, function(_, i) return product(list, i) end) end },
  logsumexp = { f = logsumexp,
    d = function(list) return each(list, function(x) return exp(x - logsumexp(list)) end) end },
}

function reference.transpose(m)
  local t = {}
  for j = 1, #(m[1] or {}) do t[j] = each(m, function(row) return row[j] end) end
  return t
end

function reference.dot(u, v)
  return sum(each(u, function(x, i) return x * v[i] end))
end

function reference.outer(u, v)
  return each(u, function(x) return each(v, function(y) return x * y end) end)
end

-- a (r x n) times b (n x c), both nested tables.
function reference.matmul(a, b)
  local columns = reference.transpose(b)
  return each(a, function(row) return each(columns, function(column) return reference.dot(row, column) end) end)
end

function reference.softmax(list)
  local s = logsumexp(list)
  return each(list, function(x) return exp(x - s) end)
end

function reference.log_softmax(list)
  local s = logsumexp(list)
  return each(list, function(x) return x - s end)
end

-- - sum t_j log softmax(x)_j
function reference.cross_entropy(list, target)
  return -reference.dot(reference.log_softmax(list), target)
end

reference.sum, reference.logsumexp, reference.sigmoid = sum, logsumexp, sigmoid

return reference
