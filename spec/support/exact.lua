-- The mathematical functions to about 100 bits, as an independent witness of the library's: sums of two doubles (T. J.
-- Dekker, 1971), Taylor series, Newton's method. Written for clarity, not for speed; Lua's own math functions only give
-- first guesses.
--
-- exact.exp(x) and the others return high, low, k: the value is (high + low) 2^k. exact.ulps(y, format, high, low, k)
-- is how far y lies from it in units in the last place. Arguments are finite and inside the domain; those of sin, cos
-- and tan are up to 2^20.

local exact = {}

local function two_sum(a, b)
  local s = a + b
  local t = s - a
  return s, (a - (s - t)) + (b - t)
end

local function split(a)
  local t = 134217729.0 * a -- 2^27 + 1
  local high = t - (t - a)
  return high, a - high
end

local function two_product(a, b)
  local p = a * b
  local ah, al = split(a)
  local bh, bl = split(b)
  return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl
end

local function add(ah, al, bh, bl)
  local s, e = two_sum(ah, bh)
  local t, f = two_sum(al, bl)
  s, e = two_sum(s, e + t)
  return two_sum(s, e + f)
end

local function mul(ah, al, bh, bl)
  local p, e = two_product(ah, bh)
  return two_sum(p, e + (ah * bl + al * bh))
end

local function div(ah, al, bh, bl)
  local q = ah / bh
  local ph, pl = mul(bh, bl, q, 0)
  local rh, rl = add(ah, al, -ph, -pl)
  local q2 = rh / bh
  ph, pl = mul(bh, bl, q2, 0)
  rh = add(rh, rl, -ph, -pl)
  q, q2 = two_sum(q, q2)
  return add(q, q2, rh / bh, 0)
end

local half_pi = { 0x1.921fb54442d18p+0, 0x1.1a62633145c07p-54, -0x1.f1976b7ed8fbcp-110 }
local log_2 = { 0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56, 0x1.7b57a079a1934p-111 }
local root_half = { 0x1.6a09e667f3bcdp-1, -0x1.bdd3413b26456p-55 }
local one_over_root_pi = { 0x1.20dd750429b6dp-1, 0x1.1ae3a914fed80p-57 }

-- x - k c, c in three parts.
local function reduce(xh, xl, k, c)
  for i = 1, 3 do
    local ph, pl = two_product(k, c[i])
    xh, xl = add(xh, xl, -ph, -pl)
  end
  return xh, xl
end

-- The sum of x^n / n! over n = from, from + step, ..., the signs alternating if step is 2.
local function series(xh, xl, from, step)
  local fh, fl = xh, xl
  if step == 2 then
    fh, fl = mul(xh, xl, xh, xl)
    fh, fl = -fh, -fl
  end
  local th, tl = 1.0, 0.0
  for i = 1, from do
    th, tl = mul(th, tl, xh, xl)
    th, tl = div(th, tl, i, 0)
  end
  local sh, sl, n = th, tl, from
  while math.abs(th) > 1e-34 * math.abs(sh) do
    th, tl = mul(th, tl, fh, fl)
    n = n + step
    th, tl = div(th, tl, step == 2 and n * (n - 1.0) or n, 0)
    sh, sl = add(sh, sl, th, tl)
  end
  return sh, sl
end

local function nearest(x) return math.floor(x + 0.5) end

-- e^x - 1 = (high + low + 1) 2^k - 1 with k = 0 for small x.
local function reduced_expm1(xh, xl)
  local k = nearest(xh / log_2[1])
  local rh, rl = reduce(xh, xl, k, log_2)
  local sh, sl = 0.0, 0.0
  if rh ~= 0 then sh, sl = series(rh, rl, 1, 1) end
  return sh, sl, k
end

local function exp(xh, xl)
  local h, l, k = reduced_expm1(xh, xl or 0.0)
  h, l = add(1.0, 0.0, h, l)
  return h, l, k
end

-- Where 2^k is a number.
local function plain_exp(xh, xl)
  local h, l, k = exp(xh, xl)
  return h * 2.0 ^ k, l * 2.0 ^ k
end

local function expm1(xh, xl)
  local h, l, k = reduced_expm1(xh, xl or 0.0)
  if k == 0 or k > 200 then
    if k > 200 then h, l = add(1.0, 0.0, h, l) end
    return h, l, k
  end
  h, l = plain_exp(xh, xl)
  h, l = add(h, l, -1.0, 0.0)
  return h, l, 0
end

-- Of a pair; one step of Newton's method from Lua's logarithm of it.
local function log(xh, xl)
  local k = 0
  while xh < 2.0 ^ -500 do xh, k = xh * 2.0 ^ 64, k - 64 end
  while xh > 2.0 ^ 500 do xh, k = xh * 2.0 ^ -64, k + 64 end
  local guess = math.log(xh)
  local eh, el = plain_exp(-guess)
  eh, el = mul(eh, el, xh, xl or 0.0)
  eh, el = add(eh, el, -1.0, 0.0)
  local h, l = add(guess, 0.0, eh, el)
  for i = 2, 1, -1 do
    local ph, pl = two_product(k, log_2[i])
    h, l = add(h, l, ph, pl)
  end
  return h, l, 0
end

-- Of a pair that may be small.
local function log1p(xh, xl)
  xl = xl or 0.0
  if math.abs(xh) > 2.0 ^ -30 then
    local uh, ul = add(1.0, 0.0, xh, xl)
    return log(uh, ul)
  end
  local sh, sl, ph, pl = 0.0, 0.0, xh, xl
  for n = 1, 5 do
    local th, tl = div(ph, pl, n % 2 == 1 and n or -n, 0.0)
    sh, sl = add(sh, sl, th, tl)
    ph, pl = mul(ph, pl, xh, xl)
  end
  return sh, sl, 0
end

local function sin_cos(x)
  local k = nearest(x / half_pi[1])
  local rh, rl = reduce(x, 0.0, k, half_pi)
  local sh, sl = rh, rl
  if math.abs(rh) > 1e-150 then sh, sl = series(rh, rl, 1, 2) end
  local ch, cl = 1.0, 0.0
  if math.abs(rh) > 1e-150 then ch, cl = series(rh, rl, 0, 2) end
  for _ = 1, k % 4 do sh, sl, ch, cl = ch, cl, -sh, -sl end
  return sh, sl, ch, cl
end

exact.exp, exact.expm1, exact.log, exact.log1p = exp, expm1, log, log1p

function exact.sin(x)
  local h, l = sin_cos(x)
  return h, l, 0
end

function exact.cos(x)
  local _, _, h, l = sin_cos(x)
  return h, l, 0
end

function exact.tan(x)
  local h, l = div(sin_cos(x))
  return h, l, 0
end

-- Newton's method on sin y = x, |x| < 1.
function exact.asin(x)
  if math.abs(x) < 1e-100 then return x, 0.0, 0 end
  local guess = math.asin(x)
  local sh, sl, ch, cl = sin_cos(guess)
  sh, sl = div(x - sh, -sl, ch, cl)
  local h, l = add(guess, 0.0, sh, sl)
  return h, l, 0
end

function exact.acos(x)
  local guess = math.acos(x)
  local sh, sl, ch, cl = sin_cos(guess)
  local dh, dl = add(ch, cl, -x, 0.0)
  dh, dl = div(dh, dl, sh, sl)
  local h, l = add(guess, 0.0, dh, dl)
  return h, l, 0
end

-- tan(y - guess) from the addition theorem.
function exact.atan(x)
  if math.abs(x) < 1e-100 then return x, 0.0, 0 end
  local guess = math.atan(x)
  local sh, sl, ch, cl = sin_cos(guess)
  local ah, al = mul(ch, cl, x, 0.0)
  local bh, bl = mul(sh, sl, x, 0.0)
  ah, al = add(ah, al, -sh, -sl)
  bh, bl = add(bh, bl, ch, cl)
  ah, al = div(ah, al, bh, bl)
  local h, l = add(guess, 0.0, ah, al)
  return h, l, 0
end

function exact.sinh(x)
  if math.abs(x) < 1e-100 then return x, 0.0, 0 end
  local h, l, k = exp(math.abs(x))
  if k < 100 then
    local mh, ml = expm1(math.abs(x))
    local dh, dl = add(1.0, 0.0, mh, ml)
    dh, dl = div(mh, ml, dh, dl)
    h, l = add(mh, ml, dh, dl)
    k = 0
  end
  if x < 0 then h, l = -h, -l end
  return h, l, k - 1
end

function exact.cosh(x)
  local h, l, k = exp(math.abs(x))
  if k < 100 then
    h, l = plain_exp(math.abs(x))
    local ih, il = div(1.0, 0.0, h, l)
    h, l = add(h, l, ih, il)
    k = 0
  end
  return h, l, k - 1
end

function exact.tanh(x)
  if math.abs(x) < 1e-100 then return x, 0.0, 0 end
  if math.abs(x) > 40 then return x > 0 and 1.0 or -1.0, 0.0, 0 end
  local h, l = expm1(2 * x)
  local dh, dl = add(h, l, 2.0, 0.0)
  h, l = div(h, l, dh, dl)
  return h, l, 0
end

function exact.sigmoid(x)
  if x < -80 then return exp(x) end
  local h, l = plain_exp(-math.abs(x))
  local dh, dl = add(1.0, 0.0, h, l)
  if x >= 0 then h, l = 1.0, 0.0 end
  h, l = div(h, l, dh, dl)
  return h, l, 0
end

function exact.silu(x)
  local h, l, k = exact.sigmoid(x)
  h, l = mul(h, l, x, 0.0)
  return h, l, k
end

function exact.softplus(x)
  if x < -80 then return exp(x) end
  local h, l = plain_exp(-math.abs(x))
  h, l = log1p(h, l)
  h, l = add(h, l, math.max(x, 0.0), 0.0)
  return h, l, 0
end

function exact.elu(x)
  if x > 0 then return x, 0.0, 0 end
  return expm1(x)
end

-- erfc(t) for t >= 0: 1 less the series with terms of one sign, or the continued fraction.
local function erfc(th, tl)
  local zh, zl = mul(th, tl, th, tl)
  local eh, el, k = exp(-zh, -zl)
  eh, el = mul(eh, el, one_over_root_pi[1], one_over_root_pi[2])
  if th > 4 then
    local fh, fl = th, tl
    for n = 200, 1, -1 do
      fh, fl = div(0.5 * n, 0.0, fh, fl)
      fh, fl = add(fh, fl, th, tl)
    end
    eh, el = div(eh, el, fh, fl)
    return eh, el, k
  end
  local sh, sl, ph, pl, n = th, tl, th, tl, 1
  while ph > 1e-34 * sh do
    n = n + 2
    ph, pl = mul(ph, pl, 2 * zh, 2 * zl)
    ph, pl = div(ph, pl, n, 0.0)
    sh, sl = add(sh, sl, ph, pl)
  end
  sh, sl = mul(sh, sl, eh * 2.0 ^ (k + 1), el * 2.0 ^ (k + 1))
  sh, sl = add(1.0, 0.0, -sh, -sl)
  return sh, sl, 0
end

function exact.gelu(x)
  if x == 0 then return x, 0.0, 0 end
  local th, tl = mul(math.abs(x), 0.0, root_half[1], root_half[2])
  local h, l, k = erfc(th, tl)
  if x > 0 then
    h, l = add(2.0, 0.0, -h * 2.0 ^ k, -l * 2.0 ^ k)
    k = 0
  end
  h, l = mul(h, l, x, 0.0)
  return h, l, k - 1
end

-- x > 0
function exact.pow(x, y)
  local h, l = log(x)
  h, l = mul(h, l, y, 0.0)
  return exp(h, l)
end

-- x 2^k by steps that do not leave the numbers before the result does.
local function scaled(x, k)
  while k > 900 do x, k = x * 2.0 ^ 900, k - 900 end
  while k < -900 do x, k = x * 2.0 ^ -900, k + 900 end
  return x * 2.0 ^ k
end

-- The exponent e of 2^(e-1) <= |x| < 2^e, x a normal number.
local function exponent(x)
  local e = 0
  x = math.abs(x)
  if not (x > 0 and x < math.huge) then error("the truth is " .. x) end
  while x >= 1 do x, e = x / 2, e + 1 end
  while x < 0.5 do x, e = x * 2, e - 1 end
  return e
end

-- The format has `digits` bits; numbers of an exponent below `lowest` are subnormal; 2^highest is beyond the largest
-- and stands for all that is. A NaN gives NaN.
function exact.ulps(y, format, high, low, k)
  if high == 0 then return y == 0 and 0 or math.huge end
  local e = exponent(high) + k
  if e > format.highest then
    high, low, k, e = high > 0 and 1.0 or -1.0, 0.0, format.highest, format.highest
  end
  local of_y = scaled(y, -k)
  if math.abs(y) == math.huge then of_y = scaled(y > 0 and 1.0 or -1.0, format.highest - k) end
  return math.abs((of_y - high) - low) / 2.0 ^ (math.max(e, format.lowest) - format.digits - k)
end

exact.formats = {
  f64 = { digits = 53, lowest = -1021, highest = 1024 },
  f32 = { digits = 24, lowest = -125, highest = 128 },
}

return exact
