/* Products and the rearrangements that go with them. The gradient of a factor of a product is itself a product of two
 * arrays that exist: where the engine can use it so (in a training step, and where the factor is a transpose), it is
 * handed over instead of multiplied out. */
#include <math.h>

#include "../core/pending.h"
#include "op.h"

/* A factor of a product: an array, and whether it is the transpose that is meant. */
typedef struct factor {
  bp_array array;
  bool transposed;
} factor;

/* Input k, or its source where it is a transpose that waits. */
static factor factor_of(const bp_call *call, size_t k) {
  factor f;
  f.array = bp_pending_source(call->cx, INPUT(k), &f.transposed);
  return f;
}

static factor as_it_is(const bp_array *array) {
  return (factor){*array, false};
}

/* For a vector this changes nothing: it is a column on the left, a row on the right. */
static factor transpose_of(factor f) {
  f.transposed = !f.transposed;
  return f;
}

/* The cotangent of input k is left right. */
static void product_gradient(bp_call *call, size_t k, factor left, factor right) {
  bp_gradient *d = GRADIENT(k);
  bp_factors factors = {left.array, right.array, left.transposed, right.transposed};
  if (d->factors != NULL)
    *d->factors = factors;
  else
    bp_add_product(call->cx, 1, &factors, d->accumulate ? 1 : 0, &d->to);
}

/* The cotangent of vector k is matrix g. */
static void vector_gradient(bp_call *call, size_t k, factor matrix, const bp_array *g) {
  bp_gradient *d = GRADIENT(k);
  bp_count_addition(call->cx, d);
  bp_gemv(call->cx, &matrix.array, matrix.transposed, g, d->accumulate, &d->to);
}

/* ---- dot, outer -------------------------------------------------------------------------------------------------- */

static bp_status two_vectors(bp_call *call, bp_dtype *dtype) {
  bp_status status = bp_expect_rank(call, 0, 1);
  if (status == BP_OK) status = bp_expect_rank(call, 1, 1);
  return status == BP_OK ? bp_common_dtype(call, dtype) : status;
}

static bp_status dot_shape(bp_call *call) {
  bp_dtype dtype;
  bp_status status = two_vectors(call, &dtype);
  if (status == BP_OK && INPUT(0)->rows != INPUT(1)->rows)
    return bp_call_fail(call, "vectors of %zu and %zu elements do not agree", INPUT(0)->rows, INPUT(1)->rows);
  *RESULT = bp_shape_number();
  return status;
}

static bp_status dot_forward(bp_call *call) {
  bp_store(RESULT, 0, 0, bp_dot(call->cx, INPUT(0), INPUT(1)));
  return BP_OK;
}

/* What a cotangent of 0 gives beside x, as in a product of elements: 0, unless x is NaN. */
static void contribute_zero(bp_context *cx, const bp_array *x, const bp_gradient *d) {
  bp_count_addition(cx, d);
  for (size_t i = 0; i < x->rows; i++) {
    const double v = bp_load(x, i, 0);
    if (isnan(v) || !d->accumulate) bp_store(&d->to, i, 0, isnan(v) ? v : 0);
  }
}

static bp_status dot_backward(bp_call *call) {
  const double g = bp_load(COTANGENT, 0, 0);
  for (size_t k = 0; k < 2; k++) {
    if (!WANTED(k)) continue;
    if (bp_vanishes(g, INPUT(k)->dtype))
      contribute_zero(call->cx, INPUT(1 - k), GRADIENT(k));
    else
      bp_contribute(call->cx, g, INPUT(1 - k), GRADIENT(k));
  }
  return BP_OK;
}

static bp_status outer_shape(bp_call *call) {
  bp_dtype dtype;
  bp_status status = two_vectors(call, &dtype);
  if (status == BP_OK && INPUT(1)->rows != 0 && INPUT(0)->rows > BP_MAX_ELEMENTS / INPUT(1)->rows)
    return bp_call_fail(call, "%zu times %zu elements are too many", INPUT(0)->rows, INPUT(1)->rows);
  if (status == BP_OK) *RESULT = bp_shape_matrix(INPUT(0)->rows, INPUT(1)->rows, dtype);
  return status;
}

static bp_status outer_forward(bp_call *call) {
  bp_factors factors = {.left = *INPUT(0), .right = *INPUT(1)};
  bp_add_product(call->cx, 1, &factors, 0, RESULT);
  return BP_OK;
}

static bp_status outer_backward(bp_call *call) {
  const factor g = as_it_is(COTANGENT);
  if (WANTED(0)) vector_gradient(call, 0, g, INPUT(1));
  if (WANTED(1)) vector_gradient(call, 1, transpose_of(g), INPUT(0));
  return BP_OK;
}

/* ---- matmul ------------------------------------------------------------------------------------------------------ */

static bp_status inner_disagree(bp_call *call, size_t left, const char *left_unit, size_t right,
                                const char *right_unit) {
  return bp_call_fail(call, "shapes %s and %s do not agree (%zu %s, %zu %s)", bp_describe(INPUT(0)).text,
                      bp_describe(INPUT(1)).text, left, left_unit, right, right_unit);
}

static bp_status matmul_shape(bp_call *call) {
  const bp_array *a = INPUT(0), *b = INPUT(1);
  bp_dtype dtype;
  bp_status status = bp_expect_array(call, 0);
  if (status == BP_OK) status = bp_expect_array(call, 1);
  if (status == BP_OK) status = bp_common_dtype(call, &dtype);
  if (status != BP_OK) return status;
  if (a->rank == 1 && b->rank == 1)
    return bp_call_fail(call, "two vectors: use bp.dot for the inner product, bp.outer for the outer");
  size_t left = a->rank == 1 ? a->rows : a->cols;
  if (left != b->rows)
    return inner_disagree(call, left, a->rank == 1 ? "elements" : "columns", b->rows,
                          b->rank == 1 ? "elements" : "rows");
  if (b->rank == 1)
    *RESULT = bp_shape_vector(a->rows, dtype);
  else if (a->rank == 1)
    *RESULT = bp_shape_vector(b->cols, dtype);
  else if (b->cols != 0 && a->rows > BP_MAX_ELEMENTS / b->cols)
    return bp_call_fail(call, "a result of %zux%zu is too large", a->rows, b->cols);
  else
    *RESULT = bp_shape_matrix(a->rows, b->cols, dtype);
  return BP_OK;
}

/* Y = A B; a vector on the left is a row. */
static void multiply(bp_call *call, factor a, factor b) {
  if (b.array.rank == 1)
    bp_gemv(call->cx, &a.array, a.transposed, &b.array, false, RESULT);
  else if (a.array.rank == 1)
    bp_gemv(call->cx, &b.array, !b.transposed, &a.array, false, RESULT);
  else
    bp_gemm(call->cx, 1, &a.array, a.transposed, &b.array, b.transposed, 0, RESULT);
}

static bp_status matmul_forward(bp_call *call) {
  multiply(call, factor_of(call, 0), factor_of(call, 1));
  return BP_OK;
}

bool bp_is_product(const bp_call *call) {
  return RESULT->rank == 2 && (call->op->forward == outer_forward || call->op->forward == matmul_forward);
}

/* The adjoint of A, the first input, in Y = A B for the cotangent g. */
static void left_backward(bp_call *call, factor b, const bp_array *g) {
  if (!WANTED(0)) return;
  if (INPUT(0)->rank == 1)
    vector_gradient(call, 0, b, g);
  else
    product_gradient(call, 0, as_it_is(g), transpose_of(b));
}

static bp_status matmul_backward(bp_call *call) {
  const factor a = factor_of(call, 0), b = factor_of(call, 1);
  left_backward(call, b, COTANGENT);
  if (!WANTED(1)) return BP_OK;
  if (b.array.rank == 1)
    vector_gradient(call, 1, transpose_of(a), COTANGENT);
  else
    product_gradient(call, 1, transpose_of(a), as_it_is(COTANGENT));
  return BP_OK;
}

/* ---- linear ------------------------------------------------------------------------------------------------------ */

static bp_status linear_shape(bp_call *call) {
  const bp_array *x = INPUT(0), *w = INPUT(1), *b = INPUT(2);
  bp_dtype dtype;
  bp_status status = bp_expect_array(call, 0);
  if (status == BP_OK) status = bp_expect_rank(call, 1, 2);
  if (status == BP_OK) status = bp_expect_rank(call, 2, 1);
  if (status == BP_OK) status = bp_common_dtype(call, &dtype);
  if (status != BP_OK) return status;
  size_t features = x->rank == 1 ? x->rows : x->cols;
  if (features != w->cols)
    return bp_call_fail(call, "x of shape %s and w of shape %s do not agree (%zu %s, %zu columns)", bp_describe(x).text,
                        bp_describe(w).text, features, x->rank == 1 ? "elements" : "columns", w->cols);
  if (b->rows != w->rows)
    return bp_call_fail(call, "w of shape %s and b of %zu elements do not agree", bp_describe(w).text, b->rows);
  *RESULT = x->rank == 1 ? bp_shape_vector(w->rows, dtype) : bp_shape_matrix(x->rows, w->rows, dtype);
  return BP_OK;
}

static const double no_parameters[2] = {0, 0};

/* The bias is added and the activation applied in place, a block of rows at a time, which stays in the first cache:
 * none of the activations that there are needs its argument again. */
static bp_status linear_forward(bp_call *call) {
  enum { BLOCK = 2048 }; /* elements */
  const int64_t activation = call->attributes->integer[0];
  multiply(call, factor_of(call, 0), transpose_of(factor_of(call, 1)));
  const size_t rows = RESULT->rank == 1 ? 1 : RESULT->rows, most = BLOCK / (INPUT(2)->rows + 1) + 1;
  for (size_t i = 0; i < rows; i += most) {
    bp_array block = *RESULT;
    if (block.rank == 2) {
      block.data = bp_at(RESULT, i, 0);
      block.rows = rows - i < most ? rows - i : most;
    }
    bp_map_binary(call->cx, BP_LOOP(add), &block, INPUT(2), &block);
    if (activation != 0) bp_map_unary(call->cx, bp_activation_loop(activation), no_parameters, &block, &block);
  }
  return BP_OK;
}

/* The adjoint of w x + b for the cotangent g. */
static void product_backward(bp_call *call, const bp_array *g) {
  const factor x = factor_of(call, 0), w = factor_of(call, 1);
  left_backward(call, transpose_of(w), g);
  if (WANTED(1)) product_gradient(call, 1, transpose_of(as_it_is(g)), x);
  if (WANTED(2)) bp_contribute_summed(call->cx, g, GRADIENT(2));
}

/* The cotangent goes through the activation first: in place, or into an array of its own. Where the engine is handed
 * that as a factor, of w's gradient or of x's, the call's attributes hold it until the next sweep or the tape's end. */
static bp_status linear_backward(bp_call *call) {
  bp_attributes *attributes = call->attributes;
  int64_t activation = attributes->integer[0];
  if (activation == 0) return product_backward(call, COTANGENT), BP_OK;
  bp_gradient d = {.to = *COTANGENT};
  if (!call->cotangent_free) {
    d.to = bp_shape_like(RESULT);
    if (bp_array_allocate(call->cx, &d.to) != BP_OK) return BP_NOMEM;
  }
  bp_map_unary_adjoint(call->cx, bp_activation_loop(activation), no_parameters, COTANGENT, RESULT, RESULT, &d);
  product_backward(call, &d.to);
  if (call->cotangent_free) return BP_OK;
  bp_array_release(call->cx, &attributes->saved);
  if (GRADIENT(0)->factors != NULL || GRADIENT(1)->factors != NULL)
    attributes->saved = d.to;
  else
    bp_array_release(call->cx, &d.to);
  return BP_OK;
}

/* ---- transpose, diag, trace -------------------------------------------------------------------------------------- */

static bp_status transpose_shape(bp_call *call) {
  bp_status status = bp_expect_rank(call, 0, 2);
  *RESULT = bp_shape_matrix(INPUT(0)->cols, INPUT(0)->rows, (bp_dtype)INPUT(0)->dtype);
  return status;
}

static bp_status transpose_forward(bp_call *call) {
  bp_gradient d = {.to = *RESULT};
  bp_transpose(call->cx, INPUT(0), &d);
  return BP_OK;
}

bool bp_is_transpose(const bp_op *op) {
  return op->forward == transpose_forward;
}

static bp_status transpose_backward(bp_call *call) {
  if (WANTED(0)) bp_transpose(call->cx, COTANGENT, GRADIENT(0));
  return BP_OK;
}

/* The diagonal of a matrix as a strided vector over the same elements. */
static bp_array diagonal_of(const bp_array *matrix) {
  bp_array diagonal = bp_window_column(matrix, 0);
  diagonal.rows = matrix->rows < matrix->cols ? matrix->rows : matrix->cols;
  diagonal.stride = matrix->stride + 1;
  return diagonal;
}

static bp_status diag_shape(bp_call *call) {
  const bp_array *x = INPUT(0);
  bp_status status = bp_expect_array(call, 0);
  if (status != BP_OK) return status;
  bp_dtype dtype = (bp_dtype)x->dtype;
  if (x->rank == 2)
    *RESULT = bp_shape_vector(x->rows < x->cols ? x->rows : x->cols, dtype);
  else if (x->rows != 0 && x->rows > BP_MAX_ELEMENTS / x->rows)
    return bp_call_fail(call, "a matrix of %zu rows and columns is too large", x->rows);
  else
    *RESULT = bp_shape_matrix(x->rows, x->rows, dtype);
  return BP_OK;
}

static bp_status diag_forward(bp_call *call) {
  const bp_array *x = INPUT(0);
  if (x->rank == 2) {
    bp_array diagonal = diagonal_of(x);
    bp_axpby(call->cx, 1, &diagonal, 0, RESULT);
  } else {
    bp_array diagonal = diagonal_of(RESULT);
    bp_fill(call->cx, RESULT, 0);
    bp_axpby(call->cx, 1, x, 0, &diagonal);
  }
  return BP_OK;
}

/* Adds x to the diagonal of the destination; elsewhere the contribution is zero. */
static void contribute_diagonal(bp_context *cx, const bp_array *x, bp_gradient *d) {
  bp_array diagonal = diagonal_of(&d->to);
  bp_count_addition(cx, d);
  if (!d->accumulate) bp_zero_fill(cx, &d->to);
  bp_axpby(cx, 1, x, 1, &diagonal);
}

static bp_status diag_backward(bp_call *call) {
  if (!WANTED(0)) return BP_OK;
  if (INPUT(0)->rank == 2) {
    contribute_diagonal(call->cx, COTANGENT, GRADIENT(0));
  } else {
    bp_array diagonal = diagonal_of(COTANGENT);
    bp_contribute(call->cx, 1, &diagonal, GRADIENT(0));
  }
  return BP_OK;
}

static bp_status trace_shape(bp_call *call) {
  bp_status status = bp_expect_rank(call, 0, 2);
  if (status == BP_OK && INPUT(0)->rows != INPUT(0)->cols)
    return bp_call_fail(call, "expected a square matrix, got %s", bp_describe(INPUT(0)).text);
  *RESULT = bp_shape_number();
  return status;
}

static bp_status trace_forward(bp_call *call) {
  bp_array diagonal = diagonal_of(INPUT(0));
  bp_reduce(call->cx, BP_SUM, 0, &diagonal, RESULT);
  return BP_OK;
}

static bp_status trace_backward(bp_call *call) {
  if (WANTED(0)) contribute_diagonal(call->cx, COTANGENT, GRADIENT(0));
  return BP_OK;
}

static const bp_op rows[] = {
    {.name = "dot",
     .signature = "value u, value v",
     .doc = "The inner product of two vectors of n elements, a number.",
     .formula = "y = sum u v; du = dy v, dv = dy u",
     .samples = "{ {bp.vector{1, 2, -3}, bp.vector{0.5, -1, 2}} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_TO_NUMBER,
     .shape = dot_shape,
     .forward = dot_forward,
     .backward = dot_backward},
    {.name = "outer",
     .signature = "value u, value v",
     .doc = "The outer product of vectors of m and n elements, an m x n matrix.",
     .formula = "Y = u v'; du = dY v, dv = dY' u",
     .samples = "{ {bp.vector{1, 2, -3}, bp.vector{0.5, -1}} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_CONTIGUOUS,
     .shape = outer_shape,
     .forward = outer_forward,
     .backward = outer_backward},
    {.name = "matmul",
     .signature = "value a, value b",
     .doc = "The matrix product: m x k by k x n gives m x n; a matrix by a vector, and a vector by a matrix, give a "
            "vector.",
     .formula = "Y = A B; dA = dY B', dB = A' dY",
     .samples = "{ {bp.matrix{{1, 2, 3}, {4, 5, 6}}, bp.matrix{{1, -1}, {0.5, 2}, {3, 1}}}, "
                "{bp.matrix{{1, 2, 3}, {4, 5, 6}}, bp.vector{1, -1, 0.5}}, "
                "{bp.vector{1, -1}, bp.matrix{{1, 2, 3}, {4, 5, 6}}} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_CONTIGUOUS | BP_OP_PRODUCT | BP_OP_READS_PENDING,
     .shape = matmul_shape,
     .forward = matmul_forward,
     .backward = matmul_backward},
    {.name = "linear",
     .signature = "value x, value w, value b, activation activation?",
     .doc = "A dense layer: w is out x in, b has out elements. w x + b for a vector x of in elements, x w' + b for a "
            "batch of rows. A fourth argument names an element-wise operation to apply to the result.",
     .formula = "y = f(w x + b); dz = dy f', dx = w' dz, dw = dz x', db = dz",
     .samples = "{ {bp.vector{1, -1, 2}, bp.matrix{{1, 2, 3}, {4, 5, 6}}, bp.vector{0.5, -1}}, "
                "{bp.matrix{{1, -1, 2}, {0, 3, 1}}, bp.matrix{{1, 2, 3}, {4, 5, 6}}, bp.vector{0.5, -1}}, "
                "{bp.vector{1, -1, 0.2}, bp.matrix{{0.1, 0.2, 0.3}, {0.4, 0.5, -0.6}}, bp.vector{0.5, -1}, \"tanh\"}, "
                "{bp.matrix{{1, -1, 2}, {0, 0.3, 1}}, bp.matrix{{0.1, 0.2, 0.3}, {0.4, 0.5, 0.6}}, bp.vector{0.5, -1}, "
                "\"sigmoid\"} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_CONTIGUOUS | BP_OP_PRODUCT | BP_OP_READS_PENDING,
     .shape = linear_shape,
     .forward = linear_forward,
     .backward = linear_backward},
    {.name = "transpose",
     .signature = "value x",
     .doc = "The transpose of an m x n matrix, n x m: a copy, made only where it is needed. matmul and linear read x "
            "itself.",
     .formula = "Y = X'; dX = dY'",
     .samples = "{ {bp.matrix{{1, 2, 3}, {4, 5, 6}}} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_VALUES_UNREAD,
     .shape = transpose_shape,
     .forward = transpose_forward,
     .backward = transpose_backward},
    {.name = "diag",
     .signature = "value x",
     .doc = "The diagonal of a matrix, or the square matrix with a vector as its diagonal.",
     .formula = "y_i = X_ii; dX_ii = dy_i",
     .samples = "{ {bp.matrix{{1, 2, 3}, {4, 5, 6}}}, {bp.vector{1, 2}} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_VALUES_UNREAD,
     .shape = diag_shape,
     .forward = diag_forward,
     .backward = diag_backward},
    {.name = "trace",
     .signature = "value x",
     .doc = "The sum of the diagonal of a square matrix.",
     .formula = "y = sum X_ii; dX_ii = dy",
     .samples = "{ {bp.matrix{{1, 2}, {4, 5}}} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_TO_NUMBER | BP_OP_VALUES_UNREAD,
     .shape = trace_shape,
     .forward = trace_forward,
     .backward = trace_backward},
};

FAMILY(linalg);
