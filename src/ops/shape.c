/* Rearrangements. Reading a part of an array gives a view: it shares the storage, and its cotangent is a window of the
 * whole's, so that reading every row of a matrix costs no more than reading the matrix. */
#include "op.h"

/* ---- views ------------------------------------------------------------------------------------------------------- */

static bp_status out_of_range(bp_call *call, const char *what, int64_t position, size_t limit) {
  return bp_call_fail(call, "%s %lld is out of range 1 to %zu", what, (long long)position + 1, limit);
}

static bp_status slice_shape(bp_call *call) {
  const bp_array *x = INPUT(0);
  int64_t from = call->attributes->integer[0], to = call->attributes->integer[1];
  bp_status status = bp_expect_array(call, 0);
  if (status != BP_OK) return status;
  if (from < 0 || to < from - 1 || to >= (int64_t)x->rows)
    return bp_call_fail(call, "%lld to %lld is not within 1 to %zu", (long long)from + 1, (long long)to + 1, x->rows);
  *RESULT = bp_window_slice(x, (size_t)from, (size_t)(to - from + 1));
  return BP_OK;
}

static bp_status row_shape(bp_call *call) {
  const bp_array *x = INPUT(0);
  int64_t i = call->attributes->integer[0];
  bp_status status = bp_expect_rank(call, 0, 2);
  if (status != BP_OK) return status;
  if (i < 0 || i >= (int64_t)x->rows) return out_of_range(call, "row", i, x->rows);
  *RESULT = bp_window_row(x, (size_t)i);
  return BP_OK;
}

static bp_status column_shape(bp_call *call) {
  const bp_array *x = INPUT(0);
  int64_t j = call->attributes->integer[0];
  bp_status status = bp_expect_rank(call, 0, 2);
  if (status != BP_OK) return status;
  if (j < 0 || j >= (int64_t)x->cols) return out_of_range(call, "column", j, x->cols);
  *RESULT = bp_window_column(x, (size_t)j);
  return BP_OK;
}

/* A view where the elements follow each other, else a copy. */
static bp_status shape_as(bp_call *call, bp_array shape) {
  const bp_array *x = INPUT(0);
  if (bp_count(x) != bp_count(&shape))
    return bp_call_fail(call, "shapes %s and %s do not agree (%zu elements, %zu)", bp_describe(x).text,
                        bp_describe(&shape).text, bp_count(x), bp_count(&shape));
  *RESULT = bp_is_contiguous(x) ? bp_window_reshape(x, &shape) : shape;
  return BP_OK;
}

static bp_status reshape_shape(bp_call *call) {
  const int64_t *size = call->attributes->integer;
  bp_dtype dtype = (bp_dtype)INPUT(0)->dtype;
  bp_status status = bp_expect_array(call, 0);
  if (status != BP_OK) return status;
  return shape_as(call, size[1] < 0 ? bp_shape_vector((size_t)size[0], dtype)
                                    : bp_shape_matrix((size_t)size[0], (size_t)size[1], dtype));
}

static bp_status flatten_shape(bp_call *call) {
  bp_status status = bp_expect_array(call, 0);
  if (status != BP_OK) return status;
  return shape_as(call, bp_shape_vector(bp_count(INPUT(0)), (bp_dtype)INPUT(0)->dtype));
}

/* A window over `shaped`, which is contiguous, with the rows of `like`. */
static bp_array with_shape_of(const bp_array *shaped, const bp_array *like) {
  bp_array shape = bp_shape_like(like);
  return bp_window_reshape(shaped, &shape);
}

static bp_status reshape_forward(bp_call *call) {
  bp_array d = with_shape_of(RESULT, INPUT(0));
  bp_axpby(call->cx, 1, INPUT(0), 0, &d);
  return BP_OK;
}

static bp_status reshape_backward(bp_call *call) {
  if (!WANTED(0)) return BP_OK;
  bp_array g = with_shape_of(COTANGENT, INPUT(0));
  bp_contribute(call->cx, 1, &g, GRADIENT(0));
  return BP_OK;
}

/* ---- element: a number, so a copy -------------------------------------------------------------------------------- */

static bp_status element_shape(bp_call *call) {
  const bp_array *x = INPUT(0);
  const int64_t *at = call->attributes->integer;
  bp_status status = bp_expect_array(call, 0);
  if (status != BP_OK) return status;
  if ((at[1] >= 0) != (x->rank == 2))
    return bp_call_fail(call, x->rank == 2 ? "a matrix takes two positions" : "a vector takes one position");
  if (at[0] < 0 || at[0] >= (int64_t)x->rows) return out_of_range(call, "position", at[0], x->rows);
  if (x->rank == 2 && at[1] >= (int64_t)x->cols) return out_of_range(call, "column", at[1], x->cols);
  *RESULT = bp_shape_number();
  return BP_OK;
}

static bp_status element_forward(bp_call *call) {
  const int64_t *at = call->attributes->integer;
  bp_store(RESULT, 0, 0, bp_load(INPUT(0), (size_t)at[0], at[1] < 0 ? 0 : (size_t)at[1]));
  return BP_OK;
}

/* The element as a vector of one. */
static bp_array element_part(const bp_call *call) {
  const int64_t *at = call->attributes->integer;
  bp_array part = bp_shape_vector(1, (bp_dtype)INPUT(0)->dtype);
  part.data = bp_at(INPUT(0), (size_t)at[0], at[1] < 0 ? 0 : (size_t)at[1]);
  return part;
}

static bp_status element_backward(bp_call *call) {
  if (WANTED(0)) bp_contribute(call->cx, 1, COTANGENT, GRADIENT(0));
  return BP_OK;
}

/* ---- concat, stack ----------------------------------------------------------------------------------------------- */

static bp_status concat_shape(bp_call *call) {
  int64_t axis = call->attributes->integer[0];
  bp_dtype dtype;
  size_t total = 0;
  if (call->input_count == 0) return bp_call_fail(call, "the list is empty");
  const bp_array *first = INPUT(0);
  for (size_t k = 0; k < call->input_count; k++) {
    const bp_array *x = INPUT(k);
    if (x->rank == 0) return bp_call_fail(call, "element %zu of the list is a number: use bp.stack", k + 1);
    bool fits = x->rank == first->rank &&
                (x->rank == 1 || (axis == 2 ? x->rows == first->rows : x->cols == first->cols));
    if (!fits)
      return bp_call_fail(call, "shapes %s and %s (element %zu) do not agree", bp_describe(first).text,
                          bp_describe(x).text, k + 1);
    total += axis == 2 ? x->cols : x->rows;
  }
  if (first->rank == 1 && axis == 2) return bp_call_fail(call, "vectors have one axis: use bp.stack for a matrix");
  bp_status status = bp_common_dtype(call, &dtype);
  size_t other = axis == 2 ? first->rows : first->cols;
  if (other != 0 && total > BP_MAX_ELEMENTS / other) return bp_call_fail(call, "the result is too large");
  *RESULT = first->rank == 1 ? bp_shape_vector(total, dtype)
            : axis == 2      ? bp_shape_matrix(first->rows, total, dtype)
                             : bp_shape_matrix(total, first->cols, dtype);
  return status;
}

/* The part of the whole that input k is, which begins at *offset along the axis. */
static bp_array part_of(const bp_call *call, const bp_array *whole, size_t k, size_t *offset) {
  const bp_array *x = INPUT(k);
  bp_array part;
  if (call->attributes->integer[0] == 2) {
    part = *whole;
    part.data = bp_at(whole, 0, *offset);
    part.cols = x->cols;
    *offset += x->cols;
  } else {
    part = bp_window_slice(whole, *offset, x->rows);
    *offset += x->rows;
  }
  return part;
}

static bp_status concat_forward(bp_call *call) {
  size_t offset = 0;
  for (size_t k = 0; k < call->input_count; k++) {
    bp_array part = part_of(call, RESULT, k, &offset);
    bp_axpby(call->cx, 1, INPUT(k), 0, &part);
  }
  return BP_OK;
}

static bp_status concat_backward(bp_call *call) {
  size_t offset = 0;
  for (size_t k = 0; k < call->input_count; k++) {
    bp_array part = part_of(call, COTANGENT, k, &offset);
    if (WANTED(k)) bp_contribute(call->cx, 1, &part, GRADIENT(k));
  }
  return BP_OK;
}

static bp_status stack_shape(bp_call *call) {
  int64_t asked = call->attributes->integer[0];
  bp_dtype dtype;
  if (call->input_count == 0) return bp_call_fail(call, "the list is empty");
  const bp_array *first = INPUT(0);
  for (size_t k = 0; k < call->input_count; k++) {
    const bp_array *x = INPUT(k);
    if (x->rank == 2) return bp_call_fail(call, "element %zu of the list is a matrix: use bp.concat", k + 1);
    if (x->rank != first->rank)
      return bp_call_fail(call, "numbers and vectors do not mix: element %zu of the list is a %s, the first a %s",
                          k + 1, x->rank == 0 ? "number" : "vector", x->rank == 0 ? "vector" : "number");
    if (x->rows != first->rows)
      return bp_call_fail(call, "vectors of %zu and %zu elements (element %zu of the list) do not agree", first->rows,
                          x->rows, k + 1);
  }
  bp_status status = bp_common_dtype(call, &dtype);
  if (status != BP_OK) return status;
  if (first->rank == 0) {
    *RESULT = bp_shape_vector(call->input_count, asked == 0 ? BP_F64 : (bp_dtype)(asked - 1));
    return BP_OK;
  }
  if (asked != 0 && (bp_dtype)(asked - 1) != dtype)
    return bp_call_fail(call, "the vectors are %s: convert them with x:astype", bp_dtype_name(dtype));
  if (first->rows != 0 && call->input_count > BP_MAX_ELEMENTS / first->rows)
    return bp_call_fail(call, "the result is too large");
  *RESULT = bp_shape_matrix(call->input_count, first->rows, dtype);
  return BP_OK;
}

static bp_status stack_forward(bp_call *call) {
  for (size_t k = 0; k < call->input_count; k++) {
    if (RESULT->rank == 1) {
      bp_store(RESULT, k, 0, bp_load(INPUT(k), 0, 0));
    } else {
      bp_array row = bp_window_row(RESULT, k);
      bp_axpby(call->cx, 1, INPUT(k), 0, &row);
    }
  }
  return BP_OK;
}

static bp_status stack_backward(bp_call *call) {
  for (size_t k = 0; k < call->input_count; k++) {
    if (!WANTED(k)) continue;
    if (RESULT->rank == 1) {
      bp_contribute_number(call->cx, bp_load(COTANGENT, k, 0), GRADIENT(k));
    } else {
      bp_array row = bp_window_row(COTANGENT, k);
      bp_contribute(call->cx, 1, &row, GRADIENT(k));
    }
  }
  return BP_OK;
}

/* ---- gather ------------------------------------------------------------------------------------------------------ */

static bp_status gather_shape(bp_call *call) {
  const bp_array *x = INPUT(0);
  const bp_attributes *a = call->attributes;
  bp_status status = bp_expect_array(call, 0);
  if (status != BP_OK) return status;
  for (size_t k = 0; k < a->index_count; k++)
    if (a->indices[k] < 0 || a->indices[k] >= (int64_t)x->rows)
      return bp_call_fail(call, "index %lld (number %zu of the list) is out of range 1 to %zu",
                          (long long)a->indices[k] + 1, k + 1, x->rows);
  if (x->cols != 0 && a->index_count > BP_MAX_ELEMENTS / x->cols) return bp_call_fail(call, "the result is too large");
  *RESULT = *x;
  RESULT->rows = a->index_count;
  *RESULT = bp_shape_like(RESULT);
  return BP_OK;
}

static bp_status gather_forward(bp_call *call) {
  const bp_attributes *a = call->attributes;
  for (size_t k = 0; k < a->index_count; k++) {
    bp_array from = bp_window_slice(INPUT(0), (size_t)a->indices[k], 1), to = bp_window_slice(RESULT, k, 1);
    bp_axpby(call->cx, 1, &from, 0, &to);
  }
  return BP_OK;
}

static bp_status gather_backward(bp_call *call) {
  const bp_attributes *a = call->attributes;
  bp_gradient *d = GRADIENT(0);
  if (!d->wanted) return BP_OK;
  bp_count_addition(call->cx, d);
  if (!d->accumulate) bp_zero_fill(call->cx, &d->to);
  for (size_t k = 0; k < a->index_count; k++) {
    bp_array from = bp_window_slice(COTANGENT, k, 1), to = bp_window_slice(&d->to, (size_t)a->indices[k], 1);
    bp_axpby(call->cx, 1, &from, 1, &to);
  }
  return BP_OK;
}

/* ---- konst, clone, astype ---------------------------------------------------------------------------------------- */

static bp_status konst_shape(bp_call *call) {
  const int64_t *a = call->attributes->integer;
  bp_dtype dtype = a[2] == 0 ? BP_F64 : (bp_dtype)(a[2] - 1);
  bp_status status = bp_expect_rank(call, 0, 0);
  if (status != BP_OK) return status;
  if (a[1] > 0 && (size_t)a[0] > BP_MAX_ELEMENTS / (size_t)a[1])
    return bp_call_fail(call, "%lldx%lld elements are too many", (long long)a[0], (long long)a[1]);
  *RESULT = a[1] < 0 ? bp_shape_vector((size_t)a[0], dtype) : bp_shape_matrix((size_t)a[0], (size_t)a[1], dtype);
  return BP_OK;
}

static bp_status copy_forward(bp_call *call) {
  bp_axpby(call->cx, 1, INPUT(0), 0, RESULT);
  return BP_OK;
}

static bp_status summed_backward(bp_call *call) {
  if (WANTED(0)) bp_contribute_summed(call->cx, COTANGENT, GRADIENT(0));
  return BP_OK;
}

static bp_status clone_shape(bp_call *call) {
  bp_status status = bp_expect_array(call, 0);
  *RESULT = bp_shape_like(INPUT(0));
  return status;
}

static bp_status astype_shape(bp_call *call) {
  bp_status status = clone_shape(call);
  RESULT->dtype = (uint8_t)(call->attributes->integer[0] - 1);
  return status;
}

static bp_status astype_forward(bp_call *call) {
  bp_gradient d = {.to = *RESULT};
  bp_contribute_converted(call->cx, INPUT(0), &d);
  return BP_OK;
}

static bp_status astype_backward(bp_call *call) {
  if (WANTED(0)) bp_contribute_converted(call->cx, COTANGENT, GRADIENT(0));
  return BP_OK;
}

#define MATRIX "bp.matrix{{1, 2, 3}, {4, 5, 6}}"

static const bp_op rows[] = {
    {.name = "clone",
     .signature = "value x",
     .doc = "A copy with storage of its own.",
     .formula = "y = x; dx = dy",
     .samples = "{ {bp.vector{1, 2}}, {" MATRIX "} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_VALUES_UNREAD,
     .passes = 1,
     .shape = clone_shape,
     .forward = copy_forward,
     .backward = summed_backward},
    {.name = "reshape",
     .signature = "value x, size n, size m?",
     .doc = "The same elements, row by row, as a vector of n or a matrix n x m. Shares memory where they are adjacent.",
     .formula = "Y = X; dX = dY",
     .samples = "{ {" MATRIX ", 6}, {" MATRIX ", 3, 2}, {bp.vector{1, 2, 3, 4}, 2, 2} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_VALUES_UNREAD,
     .shape = reshape_shape,
     .forward = reshape_forward,
     .backward = reshape_backward},
    {.name = "flatten",
     .signature = "value x",
     .doc = "The elements, row by row, as a vector. Shares memory where they are adjacent.",
     .formula = "y = X; dX = dy",
     .samples = "{ {" MATRIX "}, {bp.vector{1, 2}} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_VALUES_UNREAD,
     .shape = flatten_shape,
     .forward = reshape_forward,
     .backward = reshape_backward},
    {.name = "slice",
     .signature = "value x, index from, index to",
     .doc = "The elements of a vector, or the rows of a matrix, from one position to another, both included. Shares "
            "memory. `to` may be `from` - 1: no elements.",
     .formula = "y = x[from..to]; dx[from..to] = dy",
     .samples = "{ {bp.vector{1, 2, 3, 4}, 2, 3}, {" MATRIX ", 2, 2} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_VALUES_UNREAD,
     .shape = slice_shape,
     .forward = copy_forward,
     .backward = summed_backward},
    {.name = "row",
     .signature = "value m, index i",
     .doc = "Row i of a matrix as a vector. Shares memory.",
     .formula = "y = M_i; dM_i = dy",
     .samples = "{ {" MATRIX ", 2} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_VALUES_UNREAD,
     .shape = row_shape,
     .forward = copy_forward,
     .backward = summed_backward},
    {.name = "column",
     .signature = "value m, index j",
     .doc = "Column j of a matrix as a vector. Shares memory.",
     .formula = "y = M_.j; dM_.j = dy",
     .samples = "{ {" MATRIX ", 3} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_VALUES_UNREAD,
     .shape = column_shape,
     .forward = copy_forward,
     .backward = summed_backward},
    {.name = "element",
     .signature = "value x, index i, index j?",
     .doc = "Element i of a vector, or i, j of a matrix, as a number.",
     .formula = "y = x_i; dx_i = dy",
     .samples = "{ {bp.vector{1, 2, 3}, 2}, {" MATRIX ", 2, 3} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_VALUES_UNREAD,
     .shape = element_shape,
     .forward = element_forward,
     .backward = element_backward,
     .part = element_part},
    {.name = "concat",
     .signature = "values list, axis axis?",
     .doc = "Vectors end to end; matrices one below the other (axis 1, the default) or side by side (axis 2).",
     .formula = "Y = [X1; X2; ..]; dXk = its part of dY",
     .samples = "{ {{bp.vector{1, 2}, bp.vector{3}}}, {{" MATRIX ", bp.matrix{{7, 8, 9}}}}, "
                "{{" MATRIX ", bp.matrix{{7}, {8}}}, 2} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_VALUES_UNREAD,
     .shape = concat_shape,
     .forward = concat_forward,
     .backward = concat_backward},
    {.name = "stack",
     .signature = "values list, dtype dtype?",
     .doc = "Numbers to a vector, vectors to a matrix whose rows they are.",
     .formula = "Y_k = x_k; dx_k = dY_k",
     .samples = "{ {{1, 2, 3}}, {{bp.vector{1, 2}, bp.vector{3, 4}}} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_VALUES_UNREAD,
     .shape = stack_shape,
     .forward = stack_forward,
     .backward = stack_backward},
    {.name = "gather",
     .signature = "value x, indices indices",
     .doc = "The elements of a vector, or the rows of a matrix, at the positions of a list or vector; a position may "
            "come more than once.",
     .formula = "y_k = x[i_k]; dx[i] = sum over i_k = i of dy_k",
     .samples = "{ {bp.vector{1, 2, 3}, {3, 1, 3}}, {" MATRIX ", {2, 2, 1}} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_VALUES_UNREAD,
     .shape = gather_shape,
     .forward = gather_forward,
     .backward = gather_backward},
    {.name = "konst",
     .signature = "value s, size n, size m?, dtype dtype?",
     .doc = "A vector of n, or a matrix n x m, whose elements are all the number s.",
     .formula = "y_i = s; ds = sum dy",
     .samples = "{ {0.5, 3}, {0.5, 2, 2} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_VALUES_UNREAD,
     .shape = konst_shape,
     .forward = copy_forward,
     .backward = summed_backward},
    {.name = "astype",
     .signature = "value x, dtype dtype",
     .doc = "A copy as \"f64\" or \"f32\".",
     .formula = "y = x; dx = dy",
     .samples = "{ {bp.vector{1, 2}, \"f64\"}, {" MATRIX ", \"f64\"} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_VALUES_UNREAD,
     .shape = astype_shape,
     .forward = astype_forward,
     .backward = astype_backward},
};

FAMILY(shape);

const bp_op *const bp_clone_row = &rows[0];
