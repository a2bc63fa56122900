/* Reductions: of all elements to a number, down the rows (axis 1) to a vector of columns, or along the columns (axis 2)
 * to a vector of rows. f32 is accumulated in f64. */
#include "op.h"

#define REDUCTION_OF(which) (&(const bp_reduction){which})

static bp_reduction reduction_of(const bp_call *call) {
  return *(const bp_reduction *)call->op->data;
}

/* Axis 1 of a vector is all of it. */
static int axis_of(const bp_call *call) {
  return INPUT(0)->rank == 2 ? (int)call->attributes->integer[0] : 0;
}

static bp_status axis_shape(bp_call *call, bp_dtype dtype) {
  const bp_array *x = INPUT(0);
  int64_t axis = call->attributes->integer[0];
  if (x->rank < 2 && axis > x->rank)
    return bp_call_fail(call, "axis %d of a %s, which has %s", (int)axis, x->rank == 1 ? "vector" : "number",
                        x->rank == 1 ? "one axis" : "none");
  if (axis_of(call) == 0)
    *RESULT = bp_shape_number();
  else
    *RESULT = bp_shape_vector(axis == 1 ? x->cols : x->rows, dtype);
  return BP_OK;
}

static bp_status reduce_shape(bp_call *call) {
  return axis_shape(call, (bp_dtype)INPUT(0)->dtype);
}

/* For reductions that have no value without elements. */
static bp_status nonempty_shape(bp_call *call) {
  const bp_array *x = INPUT(0);
  int axis = axis_of(call);
  if ((axis == 0 ? bp_count(x) : axis == 1 ? x->rows : x->cols) == 0)
    return bp_call_fail(call, "no elements to reduce in shape %s", bp_describe(x).text);
  return reduce_shape(call);
}

static bp_status reduce_forward(bp_call *call) {
  bp_reduce(call->cx, reduction_of(call), axis_of(call), INPUT(0), RESULT);
  return BP_OK;
}

static bp_status reduce_backward(bp_call *call) {
  if (WANTED(0))
    bp_reduce_adjoint(call->cx, reduction_of(call), axis_of(call), COTANGENT, INPUT(0), RESULT, GRADIENT(0));
  return BP_OK;
}

static bp_status arg_shape(bp_call *call) {
  bp_status status = nonempty_shape(call);
  if (RESULT->rank == 1) RESULT->dtype = BP_F64;
  return status;
}

static bp_status argmax_forward(bp_call *call) {
  bp_arg_extreme(call->cx, true, axis_of(call), INPUT(0), RESULT);
  return BP_OK;
}

static bp_status argmin_forward(bp_call *call) {
  bp_arg_extreme(call->cx, false, axis_of(call), INPUT(0), RESULT);
  return BP_OK;
}

#define SAMPLES                                                                                                  \
  "{ {bp.vector{1.5, -0.5, 2}}, {bp.matrix{{1, 2, 4}, {-3, 0.5, 6}}}, {bp.matrix{{1, 2, 4}, {-3, 0.5, 6}}, 1}, " \
  "{bp.matrix{{1, 2, 4}, {-3, 0.5, 6}}, 2}, {0.5} }"

#define REDUCTION(NAME, WHICH, FLAGS, SHAPE, DOC, FORMULA)                                                \
  {                                                                                                       \
    .name = NAME, .signature = "value x, axis axis?", .doc = DOC, .formula = FORMULA, .samples = SAMPLES, \
    .flags = BP_OP_SEQUENTIAL | BP_OP_TO_NUMBER | FLAGS, .data = REDUCTION_OF(WHICH), .shape = SHAPE,     \
    .forward = reduce_forward, .backward = reduce_backward                                                \
  }

static const bp_op rows[] = {
    REDUCTION("sum", BP_SUM, BP_OP_VALUES_UNREAD, reduce_shape, "The sum; 0 of no elements.", "y = sum x; dx = dy"),
    REDUCTION("mean", BP_MEAN, BP_OP_VALUES_UNREAD, nonempty_shape, "The arithmetic mean of n elements.",
              "y = sum x / n; dx = dy / n"),
    REDUCTION("max", BP_LARGEST, 0, nonempty_shape,
              "The largest element, NaN if there is one. Elements that tie share the cotangent evenly.",
              "y = max x; dx = dy [x = y] / ties"),
    REDUCTION("min", BP_SMALLEST, 0, nonempty_shape,
              "The smallest element, NaN if there is one. Elements that tie share the cotangent evenly.",
              "y = min x; dx = dy [x = y] / ties"),
    REDUCTION("prod", BP_PRODUCT, 0, reduce_shape, "The product; 1 of no elements. Exact also where elements are 0.",
              "y = prod x; dx_i = dy prod_{j != i} x_j"),
    REDUCTION("logsumexp", BP_LOGSUMEXP, 0, reduce_shape, "log(sum(e^x)), without overflow; -inf of no elements.",
              "y = log sum e^x; dx = dy e^(x - y)"),
    {.name = "norm",
     .signature = "value x",
     .doc = "The Euclidean norm of a vector, the Frobenius norm of a matrix. At 0 the gradient is taken as 0.",
     .formula = "y = sqrt(sum x^2); dx = dy x / y",
     .samples = "{ {bp.vector{3, -4}}, {bp.matrix{{1, 2}, {-3, 0.5}}} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_TO_NUMBER,
     .data = REDUCTION_OF(BP_NORM),
     .shape = reduce_shape,
     .forward = reduce_forward,
     .backward = reduce_backward},
    {.name = "argmax",
     .signature = "value x, axis axis?",
     .doc = "The position of the first largest element, plain: an integer for a vector, row and column for a matrix, "
            "with an axis a vector of positions.",
     .formula = "no gradient",
     .samples = SAMPLES,
     .shape = arg_shape,
     .forward = argmax_forward},
    {.name = "argmin",
     .signature = "value x, axis axis?",
     .doc = "The position of the first smallest element, plain: an integer for a vector, row and column for a matrix, "
            "with an axis a vector of positions.",
     .formula = "no gradient",
     .samples = SAMPLES,
     .shape = arg_shape,
     .forward = argmin_forward},
};

FAMILY(reduce);

double bp_weight_in_sum(const bp_op *op, const bp_array *x) {
  if (op->forward != reduce_forward) return 0;
  const bp_reduction reduction = *(const bp_reduction *)op->data;
  return reduction == BP_SUM ? 1 : reduction == BP_MEAN ? 1 / (double)bp_count(x) : 0;
}
