/* Fused operations: softmax and the losses on logits, which cost less and overflow less than their parts. */
#include "op.h"

static bp_status not_empty(bp_call *call) {
  const bp_array *x = INPUT(0);
  bp_status status = bp_expect_array(call, 0);
  if (status == BP_OK && (x->rank == 1 ? x->rows : x->cols) == 0)
    return bp_call_fail(call, "no elements in shape %s", bp_describe(x).text);
  return status;
}

static bp_status softmax_shape(bp_call *call) {
  bp_status status = not_empty(call);
  *RESULT = bp_shape_like(INPUT(0));
  return status;
}

static bp_status softmax_forward(bp_call *call) {
  bp_softmax(call->cx, INPUT(0), RESULT);
  return BP_OK;
}

static bp_status softmax_backward(bp_call *call) {
  if (WANTED(0)) bp_softmax_adjoint(call->cx, COTANGENT, RESULT, GRADIENT(0));
  return BP_OK;
}

static bp_status log_softmax_forward(bp_call *call) {
  bp_log_softmax(call->cx, INPUT(0), RESULT);
  return BP_OK;
}

static bp_status log_softmax_backward(bp_call *call) {
  if (WANTED(0)) bp_log_softmax_adjoint(call->cx, COTANGENT, RESULT, GRADIENT(0));
  return BP_OK;
}

/* ---- cross entropy ----------------------------------------------------------------------------------------------- */

/* The target as an array, or NULL where it is class numbers. */
static const bp_array *target_of(const bp_call *call) {
  return call->input_count == 2 ? INPUT(1) : NULL;
}

static bp_status same_shapes(bp_call *call) {
  bp_dtype dtype;
  if (!bp_same_shape(INPUT(0), INPUT(1)))
    return bp_call_fail(call, "logits of shape %s and a target of shape %s do not agree", bp_describe(INPUT(0)).text,
                        bp_describe(INPUT(1)).text);
  return bp_common_dtype(call, &dtype);
}

static bp_status check_classes(bp_call *call) {
  const bp_array *x = INPUT(0);
  const bp_attributes *a = call->attributes;
  size_t rows = x->rank == 1 ? 1 : x->rows, classes = x->rank == 1 ? x->rows : x->cols;
  if (a->index_count != rows)
    return bp_call_fail(call, "%zu class numbers for %zu rows of logits", a->index_count, rows);
  for (size_t k = 0; k < rows; k++)
    if (a->indices[k] < 0 || a->indices[k] >= (int64_t)classes)
      return bp_call_fail(call, "class %lld of row %zu is out of range 1 to %zu", (long long)a->indices[k] + 1, k + 1,
                          classes);
  return BP_OK;
}

/* The softmax is kept from forward to backward. */
static bp_status softmax_cross_entropy_shape(bp_call *call) {
  bp_status status = not_empty(call);
  if (status == BP_OK && INPUT(0)->rows == 0) return bp_call_fail(call, "a batch without rows has no mean");
  if (status == BP_OK) status = target_of(call) != NULL ? same_shapes(call) : check_classes(call);
  *RESULT = bp_shape_number();
  call->attributes->saved = bp_shape_like(INPUT(0));
  return status;
}

static bp_status softmax_cross_entropy_forward(bp_call *call) {
  bp_attributes *a = call->attributes;
  bp_store(RESULT, 0, 0, bp_softmax_cross_entropy(call->cx, INPUT(0), target_of(call), a->indices, &a->saved));
  return BP_OK;
}

static bp_status softmax_cross_entropy_backward(bp_call *call) {
  const bp_attributes *a = call->attributes;
  double g = bp_load(COTANGENT, 0, 0);
  if (WANTED(0)) bp_softmax_cross_entropy_adjoint(call->cx, g, &a->saved, target_of(call), a->indices, GRADIENT(0));
  if (call->input_count == 2 && WANTED(1)) bp_softmax_cross_entropy_target_adjoint(call->cx, g, INPUT(0), GRADIENT(1));
  return BP_OK;
}

static bp_status sigmoid_cross_entropy_shape(bp_call *call) {
  *RESULT = bp_shape_number();
  if (INPUT(0)->rank == 2 && INPUT(0)->rows == 0) return bp_call_fail(call, "a batch without rows has no mean");
  return same_shapes(call);
}

static double rows_of(const bp_array *x) {
  return x->rank == 2 ? (double)x->rows : 1;
}

static bp_status sigmoid_cross_entropy_forward(bp_call *call) {
  bp_store(RESULT, 0, 0, bp_sigmoid_cross_entropy(call->cx, INPUT(0), INPUT(1)) / rows_of(INPUT(0)));
  return BP_OK;
}

static bp_status sigmoid_cross_entropy_backward(bp_call *call) {
  double g = bp_load(COTANGENT, 0, 0) / rows_of(INPUT(0));
  if (WANTED(0)) bp_sigmoid_cross_entropy_adjoint(call->cx, g, INPUT(0), INPUT(1), GRADIENT(0));
  if (WANTED(1)) bp_contribute(call->cx, -g, INPUT(0), GRADIENT(1));
  return BP_OK;
}

#define LOGITS "bp.matrix{{0.5, -1, 2}, {1, 0.2, -0.3}}"
#define SOFTMAX(NAME, FORWARD, BACKWARD, DOC, FORMULA)                                                    \
  {                                                                                                       \
    .name = NAME, .signature = "value x", .doc = DOC, .formula = FORMULA,                                 \
    .samples = "{ {bp.vector{0.5, -1, 2}}, {" LOGITS "} }", .flags = BP_OP_SEQUENTIAL | BP_OP_CONTIGUOUS, \
    .shape = softmax_shape, .forward = FORWARD, .backward = BACKWARD                                      \
  }

static const bp_op rows[] = {
    SOFTMAX("softmax", softmax_forward, softmax_backward,
            "e^x over its sum, of a vector or of each row of a matrix, without overflow.",
            "y = e^x / sum e^x; dx = y (dy - sum(dy y))"),
    SOFTMAX("log_softmax", log_softmax_forward, log_softmax_backward,
            "The logarithm of the softmax of a vector or of each row of a matrix, without overflow.",
            "y = x - log sum e^x; dx = dy - e^y sum dy"),
    {.name = "softmax_cross_entropy",
     .signature = "value logits, target target",
     .doc = "The cross entropy of softmax(logits) and a target, a number in nats; for a batch the mean over its rows. "
            "The target has the logits' shape (a distribution, with any sum), or is class numbers from 1: an integer, "
            "a list, or for a batch a vector.",
     .formula = "y = sum t (log sum e^x - x); dx = dy (sum(t) softmax(x) - t)",
     .samples = "{ {bp.vector{0.5, -1, 2}, bp.vector{0.2, 0.3, 0.5}}, {bp.vector{0.5, -1, 2}, 3}, {" LOGITS
                ", {3, 1}}, {" LOGITS ", bp.matrix{{0, 0, 1}, {0.5, 1, 0.5}}} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_CONTIGUOUS | BP_OP_TO_NUMBER,
     .shape = softmax_cross_entropy_shape,
     .forward = softmax_cross_entropy_forward,
     .backward = softmax_cross_entropy_backward},
    {.name = "sigmoid_cross_entropy",
     .signature = "value logits, value target",
     .doc = "The cross entropy of sigmoid(logits) and a target of the same shape, from 0 to 1, summed to a number in "
            "nats; for a batch the mean over its rows.",
     .formula = "y = sum log(1 + e^x) - t x; dx = dy (sigmoid(x) - t), dt = -dy x",
     .samples = "{ {0.3, 1}, {bp.vector{0.5, -1, 2}, bp.vector{0, 1, 0.5}}, {" LOGITS
                ", bp.matrix{{0, 0, 1}, {1, 1, 0}}} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_TO_NUMBER,
     .shape = sigmoid_cross_entropy_shape,
     .forward = sigmoid_cross_entropy_forward,
     .backward = sigmoid_cross_entropy_backward},
};

FAMILY(fused);

bool bp_is_softmax(const bp_op *op) {
  return op->forward == softmax_forward;
}
