/* What the rows share; see op.h. */
#include "op.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bp_status bp_call_fail(bp_call *call, const char *format, ...) {
  char text[sizeof call->cx->message];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  const char *prefix = strchr(call->op->name, '.') == NULL ? "bp." : "";
  return bp_fail(call->cx, "%s%s: %.440s", prefix, call->op->name, text);
}

static const char *const rank_names[] = {"number", "vector", "matrix"};

bp_status bp_expect_rank(bp_call *call, size_t input, unsigned rank) {
  const bp_array *x = INPUT(input);
  if (x->rank == rank) return BP_OK;
  return bp_call_fail(call, "argument %zu: expected a %s, got a %s", input + 1, rank_names[rank], rank_names[x->rank]);
}

bp_status bp_expect_array(bp_call *call, size_t input) {
  if (INPUT(input)->rank != 0) return BP_OK;
  return bp_call_fail(call, "argument %zu: expected a vector or matrix, got a number", input + 1);
}

bp_status bp_common_dtype(bp_call *call, bp_dtype *dtype) {
  const bp_array *first = NULL;
  *dtype = BP_F64;
  for (size_t k = 0; k < call->input_count; k++) {
    const bp_array *x = INPUT(k);
    if (x->rank == 0) continue;
    if (first != NULL && x->dtype != first->dtype)
      return bp_call_fail(call, "%s and %s do not mix: convert one with x:astype(\"%s\")", bp_dtype_name(first->dtype),
                          bp_dtype_name(x->dtype), bp_dtype_name(first->dtype));
    first = x;
    *dtype = (bp_dtype)x->dtype;
  }
  return BP_OK;
}

static bp_status disagree(bp_call *call, const bp_array *a, const bp_array *b) {
  const bp_array *matrix = a->rank == 2 ? a : b, *vector = a->rank == 2 ? b : a;
  if (a->rank != b->rank)
    return bp_call_fail(call, "shapes %s and %s do not agree (%zu columns, %zu elements)", bp_describe(a).text,
                        bp_describe(b).text, matrix->cols, vector->rows);
  return bp_call_fail(call, "shapes %s and %s do not agree", bp_describe(a).text, bp_describe(b).text);
}

bp_status bp_shape_broadcast(bp_call *call) {
  if (call->input_count == 2 && bp_same_shape(INPUT(0), INPUT(1)) && INPUT(0)->dtype == INPUT(1)->dtype)
    return bp_shape_same(call);
  bp_dtype dtype;
  bp_status status = bp_common_dtype(call, &dtype);
  if (status != BP_OK) return status;
  const bp_array *largest = INPUT(0);
  for (size_t k = 1; k < call->input_count; k++)
    if (INPUT(k)->rank > largest->rank) largest = INPUT(k);
  for (size_t k = 0; k < call->input_count; k++) {
    const bp_array *x = INPUT(k);
    if (x->rank == 0) continue;
    if (x->rank == largest->rank ? !bp_same_shape(x, largest) : x->rows != largest->cols)
      return x < largest ? disagree(call, x, largest) : disagree(call, largest, x);
  }
  *RESULT = bp_shape_like(largest);
  RESULT->dtype = (uint8_t)dtype;
  return BP_OK;
}

bp_status bp_shape_same(bp_call *call) {
  *RESULT = bp_shape_like(INPUT(0));
  return BP_OK;
}

extern const bp_family bp_arithmetic_family, bp_math_family, bp_reduce_family, bp_linalg_family, bp_shape_family,
    bp_fused_family;

const bp_family *const bp_families[] = {&bp_arithmetic_family,
                                        &bp_math_family,
                                        &bp_reduce_family,
                                        &bp_linalg_family,
                                        &bp_shape_family,
                                        &bp_fused_family,
                                        NULL};
