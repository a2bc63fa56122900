/* Element-wise operations of two or three operands: arithmetic, comparisons, selection. A number broadcasts, and a
 * vector of c elements over the rows of an r x c matrix; the cotangent of what was broadcast is summed back. */
#include "op.h"

static size_t loop_of(const bp_call *call) {
  return bp_formula_of(call->op)->loop;
}

static bp_status binary_forward(bp_call *call) {
  bp_map_binary(call->cx, loop_of(call), INPUT(0), INPUT(1), RESULT);
  return BP_OK;
}

static bp_status binary_backward(bp_call *call) {
  for (int side = 0; side < 2; side++)
    if (WANTED(side))
      bp_map_binary_adjoint(call->cx, loop_of(call), side, COTANGENT, INPUT(0), INPUT(1), RESULT, GRADIENT(side));
  return BP_OK;
}

static bp_status where_forward(bp_call *call) {
  bp_map_where(call->cx, INPUT(0), INPUT(1), INPUT(2), RESULT);
  return BP_OK;
}

/* The condition has no gradient: it is piecewise constant, so its cotangent is zero. */
static bp_status where_backward(bp_call *call) {
  bp_array condition = GRADIENT(0)->to;
  if (WANTED(0) && !GRADIENT(0)->accumulate) bp_zero_fill(call->cx, &condition);
  for (int side = 0; side < 2; side++)
    if (WANTED(side + 1)) bp_map_where_adjoint(call->cx, side, COTANGENT, INPUT(0), GRADIENT(side + 1));
  return BP_OK;
}

#define SAMPLES                                                                                               \
  "{ {1.5, -0.7}, {bp.vector{1, -2, 3}, bp.vector{0.5, 4, -1}}, {bp.vector{1, 2}, 3}, {2, bp.vector{1, 4}}, " \
  "{bp.matrix{{1, 2, 3}, {4, 5, 6}}, bp.vector{0.5, -1, 2}}, {bp.matrix{{1, -2}}, bp.matrix{{3, 5}}} }"
#define POSITIVE_SAMPLES                                                                                     \
  "{ {1.5, -0.7}, {bp.vector{1, 2, 3}, bp.vector{0.5, 4, -1}}, {bp.vector{1, 2}, 3}, {2, bp.vector{1, 4}}, " \
  "{bp.matrix{{1, 2, 3}, {4, 5, 6}}, bp.vector{0.5, -1, 2}} }"

#define BINARY(NAME, FLAGS, PASSES, SAMPLES_, DOC, FORMULA)                                                            \
  {                                                                                                                    \
    .name = #NAME, .signature = "value x, value y", .doc = DOC, .formula = FORMULA, .samples = SAMPLES_,               \
    .flags = BP_OP_SEQUENTIAL | BP_OP_ELEMENTWISE | BP_OP_FORMULA | FLAGS, .passes = PASSES, .data = BP_FORMULA(NAME), \
    .shape = bp_shape_broadcast, .forward = binary_forward, .backward = binary_backward                                \
  }
#define COMPARISON(NAME, DOC)                                                                                 \
  {                                                                                                           \
    .name = #NAME, .signature = "value x, value y", .doc = DOC, .formula = "no gradient", .samples = SAMPLES, \
    .flags = BP_OP_FORMULA, .data = BP_FORMULA(NAME), .shape = bp_shape_broadcast, .forward = binary_forward  \
  }

static const bp_op rows[] = {
    BINARY(add, BP_OP_VALUES_UNREAD, 3, SAMPLES, "The sum, element by element.", "z = x + y; dx = dz, dy = dz"),
    BINARY(sub, BP_OP_VALUES_UNREAD, 1, SAMPLES, "The difference, element by element.", "z = x - y; dx = dz, dy = -dz"),
    BINARY(mul, 0, 0, SAMPLES, "The product, element by element.", "z = x y; dx = dz y, dy = dz x"),
    BINARY(div, 0, 0, SAMPLES, "The quotient, element by element.", "z = x / y; dx = dz / y, dy = -dz z / y"),
    BINARY(pow, 0, 0, POSITIVE_SAMPLES,
           "x to the power of y, element by element. A power of 0 has slope 0; 0 to a power of at least 0 has slope 0 "
           "in the exponent.",
           "z = x^y; dx = dz y x^(y - 1), dy = dz z log x"),
    BINARY(minimum, 0, 0, SAMPLES, "The smaller one, element by element; NaN if either is. A tie halves the cotangent.",
           "z = min(x, y); dx = dz [x < y], dy = dz [y < x]"),
    BINARY(maximum, 0, 0, SAMPLES, "The larger one, element by element; NaN if either is. A tie halves the cotangent.",
           "z = max(x, y); dx = dz [x > y], dy = dz [y > x]"),
    COMPARISON(less, "1 where x < y, else 0; without a gradient."),
    COMPARISON(less_equal, "1 where x <= y, else 0; without a gradient."),
    COMPARISON(greater, "1 where x > y, else 0; without a gradient."),
    COMPARISON(greater_equal, "1 where x >= y, else 0; without a gradient."),
    COMPARISON(equal, "1 where x equals y, else 0; without a gradient."),
    {.name = "where",
     .signature = "value condition, value a, value b",
     .doc =
         "a where the condition is not 0, else b, element by element. What is not chosen gets a cotangent of exactly "
         "0, also where it is inf or NaN.",
     .formula = "y = c ? a : b; da = c ? dy : 0, db = c ? 0 : dy",
     .samples = "{ {bp.vector{1, 0, 1}, bp.vector{1, 2, 3}, bp.vector{4, 5, 6}}, {1, 2.5, 3}, "
                "{bp.matrix{{1, 0}, {0, 1}}, bp.vector{5, 6}, 0.5}, {bp.vector{0, 1}, 2, bp.matrix{{1, 2}, {3, 4}}} }",
     .flags = BP_OP_SEQUENTIAL,
     .shape = bp_shape_broadcast,
     .forward = where_forward,
     .backward = where_backward},
};

FAMILY(arithmetic);
