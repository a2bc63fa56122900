-- Ten defects, each a small change of one file: what stands there, exactly once, and what is put in its place. One that
-- no longer fits its file is an error: then choose another place for it.

return {
  { name = "a sign", file = "src/kernels/formulas.h", from = "-g * NEAR_OR_FAR(sin, x))",
    to = "g * NEAR_OR_FAR(sin, x))" },
  { name = "a missed addition", file = "src/kernels/reduce.c",
    from = "bp_axpby(cx, a, x, d->accumulate ? 1 : 0, &to)", to = "bp_axpby(cx, a, x, 0, &to)" },
  { name = "a stale read", file = "src/ops/linalg.c",
    from = "bp_gemv(call->cx, &matrix.array, matrix.transposed, g, d->accumulate, &d->to);",
    to = "bp_gemv(call->cx, &matrix.array, matrix.transposed, g, true, &d->to);" },
  { name = "a leak", file = "src/tape/tape.c", from = "  bp_buffer_release(cx, a->index_buffer);\n", to = "" },
  { name = "a wrong shape rule", file = "src/ops/op.c", from = "x->rows != largest->cols",
    to = "x->rows > largest->cols" },
  { name = "a swapped operand", file = "src/ops/linalg.c",
    from = "bp_contribute(call->cx, g, INPUT(1 - k), GRADIENT(k))",
    to = "bp_contribute(call->cx, g, INPUT(k), GRADIENT(k))" },
  { name = "a lost version bump", file = "src/binding/inplace.c",
    from = "  bp_fill(&s->cx, &x->array, lua_tonumber(L, 2));\n  touch(&x->array);\n",
    to = "  bp_fill(&s->cx, &x->array, lua_tonumber(L, 2));\n" },
  { name = "a double release", file = "src/binding/arrays.c",
    from = "if (!s->cx.closed) bp_array_release(&s->cx, &handle->array);",
    to = "if (!s->cx.closed) bp_buffer_release(&s->cx, handle->array.buffer), "
      .. "bp_array_release(&s->cx, &handle->array);" },
  { name = "a wrong tie", file = "src/kernels/reduce.c", from = "t->equal[k] = g / count;",
    to = "t->equal[k] = g;" },
  { name = "a missing zero", file = "src/kernels/loops/product.c",
    from = "  if (!accumulate)\n    for (size_t j = 0; j < cols; j++) y[j] = 0;\n", to = "" },
  { name = "a product too late", file = "src/tape/sweep.c",
    from = "  bp_pending_compute_of(cx, buffer);\n", to = "" },
}
