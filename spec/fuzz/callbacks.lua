-- Operations of bp.op for random programs, as Lua text. `good` ones have right pullbacks, whatever else they do; those
-- of `bad` are all named "hostile" and fail in the sweep, or have no gradient: the error must come out, name them or be
-- their own, and leave nothing behind.
--
-- In a text $a and $b stand for registers; `needs` says of what: any (a number or an array), array (not empty), matrix,
-- or same (two values of one shape).

local callbacks = {}

callbacks.good = {
  { needs = "any", "bp.op(function(a) return a * a, function(dz) return dz * 2 * a end end)($a)" },
  { needs = "any", "bp.op(function(a) return a, function(dz) return dz end end)($a)" },
  { needs = "any", "bp.op(function(a) return a * 1, function(dz) kept = dz return dz * 1 end end)($a)" },
  { needs = "any", "bp.op(function(a) return bp.sin(a), function(dz) collectgarbage() return dz * bp.cos(a) end "
    .. "end)($a)" },
  { needs = "any", "bp.op(function(a) collectgarbage() return { a * 2, { b = bp.exp(a) } }, function(dz) "
    .. "return dz[1] * 2 + dz[2].b * bp.exp(a) end end)($a)" },
  { needs = "any", "bp.op(function(l) return l[1] * 3, function(dz) return { dz * 3 } end end)({ $a, $b })" },
  { needs = "any", "bp.op(function(l) return l, function(dz) return dz end end)({ $a, k = { $b } }).k[1]" },
  { needs = "any", "bp.op(function(a, b) return a * 2, function(dz, needs) return needs[1] and dz * 2 or nil, nil end "
    .. "end)($a, $b)" },
  { needs = "any", "bp.op(function(a) coroutine.yield() return a * 3, function(dz) return dz * 3 end end)($a)" },
  { needs = "any", "bp.op(function(a) return bp.sum(a * a * a), function(dz) "
    .. "return bp.grad(function(u) return bp.sum(u * u * u) end)(a) * dz end end)($a)" },
  { needs = "any", "bp.op(function(a) local g = bp.grad(function(u) return bp.sum(u * u) end)(a) return g, "
    .. "function(dz) return dz * 2 end end)($a)" },
  { needs = "any", "bp.op(function(a) local y, back = bp.vjp(bp.sin, a) return y, function(dz) return (back(dz)) end "
    .. "end)($a)" },
  { needs = "any", "bp.op(function(a) return bp.constant(a) * 1, function(dz) pcall(bp.sum, kept) return dz end "
    .. "end)($a)" },
  { needs = "same", "bp.op(function(a, b) return a * b, function(dz) return dz * b, dz * a end end)($a, $b)" },
  { needs = "same", "bp.op(function(a, b) return a + b, function(dz) local g = dz * 1 return g, g end end)($a, $b)" },
  { needs = "same", "bp.op(function(a, b) return a - b, function(dz) return dz, -dz end end)($a, $b)" },
  { needs = "same", "bp.op(function(l) return { l[2], l[1] }, function(dz) return { dz[2], dz[1] } end "
    .. "end)({ $a, $b })" },
  { needs = "array", "bp.op(function(a) return bp.sum(a), function(dz) return a * 0 + dz end end)($a)" },
  { needs = "array", "bp.op(function(a) return bp.value(a)[1], function(dz) local g = a * 0 "
    .. "local to = bp.slice(g, 1, 1) if bp.kind(a) == 'matrix' then to = to[1] end to:copy(to + dz) return g end "
    .. "end)($a)" },
  { needs = "matrix", "bp.op(function(m) return bp.transpose(m), function(dz) return bp.transpose(dz) end end)($a)" },
  { needs = "matrix", "bp.op(function(m) return bp.matmul(m, bp.transpose(m)), function(dz) "
    .. "return bp.matmul(dz + bp.transpose(dz), m) end end)($a)" },
  { needs = "matrix", "bp.op(function(m) local rows, columns = m:shape() return bp.sum(m), function(dz) "
    .. "local u = bp.full(dz, rows, m:dtype()) local g = bp.outer(u, bp.ones(columns, m:dtype())) "
    .. "u:fill(7) kept = bp.outer(u, u) bp.release(u) return g end end)($a)" },
  { needs = "matrix", "bp.op(function(m) return bp.sum(m * m), function(dz) local rows = m:shape() "
    .. "local e = bp.eye(rows, m:dtype()) kept = bp.matmul(e * dz, m) local g = bp.matmul(e, kept) "
    .. "bp.axpy(1, kept, g) return g end end)($a)" },
  { needs = "matrix", "bp.op(function(m) return bp.matmul(m, bp.transpose(m)), function(dz) "
    .. "local s = dz * 1 local t = bp.transpose(s) local g = bp.matmul(t, m) s:fill(9) kept = t "
    .. "return bp.matmul(dz, m) + g end end)($a)" },
  { needs = "matrix", "bp.op(function(m) return bp.transpose(m), function(dz) local _, columns = dz:shape() "
    .. "kept = bp.transpose(dz) return bp.matmul(bp.eye(columns, dz:dtype()), kept) end end)($a)" },
  { needs = "matrix", "bp.op(function(m) return { m * 2, bp.sum(m) }, function(dz) local rows = m:shape() "
    .. "pcall(bp.sum, kept) return bp.matmul(bp.eye(rows, m:dtype()) * 2, dz[1]) + dz[2] end end)($a)[1]" },
  { needs = "any", "bp.iso(function(a, b) return { b, a } end, function(l) return l[2], l[1] end)($a, $b)[2]" },
}

-- Behind `hostile(forward)`, which is bp.op with that name.
callbacks.bad = {
  { needs = "any", "hostile(function(a) return a * 2, function() error('boom') end end)($a)" },
  { needs = "any", "hostile(function(a) return a * 2, function() error() end end)($a)" },
  { needs = "any", "hostile(function(a) return a * 2, function() error({}) end end)($a)" },
  { needs = "any", "hostile(function(a) return a * 2, function() end end)($a)" },
  { needs = "any", "hostile(function(a) return a * 2, function(dz) return dz, dz end end)($a)" },
  { needs = "any", "hostile(function(a) return a * 2, function(dz) return { dz } end end)($a)" },
  { needs = "any", "hostile(function(a) return a * 2, function() return bp.zeros(7, 7) end end)($a)" },
  { needs = "any", "hostile(function(a) return a * 2, function() return 'text' end end)($a)" },
  { needs = "any", "hostile(function(a) return { a * 2, a }, function(dz) return dz end end)($a)[1]" },
  { needs = "any", "hostile(function(a) return a * 2, function(dz) coroutine.yield() return dz * 2 end end)($a)" },
  { needs = "any", "hostile(function(a) return a * 2, function(dz) return bp.grad(error)(dz) end end)($a)" },
  { needs = "array", "hostile(function(a) return a * 2, function(dz) a:fill(0) return dz * 2 end end)($a)" },
  { needs = "array", "hostile(function(a) return a * 2, function(dz) dz:fill(0) return dz * 2 end end)($a)" },
  { needs = "array", "hostile(function(a) return a * 2, function(dz) bp.release(dz) return dz * 2 end end)($a)" },
  { needs = "array", "hostile(function(a) return a * 2, function(dz) return (dz * 2):astype(a:dtype() == 'f64' "
    .. "and 'f32' or 'f64') end end)($a)" },
  { needs = "any", "bp.op{ name = 'hostile', forward = function(a) return a * 2, function(dz) "
    .. "return stale.v * 2 end end }($a)" },
  { needs = "any", "hostile(function(a) return a end)($a)" },
  { needs = "any", "hostile(function() error('boom') end)($a)" },
  { needs = "any", "hostile(function(a) return stale.v, print end)($a)" },
  { needs = "any", "bp.nograd(function(a) return a * 2 end)($a)" },
}

return callbacks
