/* Element-wise operations of one operand; their formulas stand in kernels/formulas.h. */
#include <string.h>

#include "op.h"

static size_t loop_of(const bp_call *call) {
  return bp_formula_of(call->op)->loop;
}

static bp_status unary_forward(bp_call *call) {
  bp_map_unary(call->cx, loop_of(call), call->attributes->number, INPUT(0), RESULT);
  return BP_OK;
}

static bp_status unary_backward(bp_call *call) {
  if (WANTED(0))
    bp_map_unary_adjoint(call->cx, loop_of(call), call->attributes->number, COTANGENT, INPUT(0), RESULT, GRADIENT(0));
  return BP_OK;
}

static bp_status clamp_shape(bp_call *call) {
  const double *bound = call->attributes->number;
  if (!(bound[0] <= bound[1])) return bp_call_fail(call, "the bounds %g and %g are not in order", bound[0], bound[1]);
  return bp_shape_same(call);
}

#define ANYWHERE "{ {0.7}, {-1.3}, {bp.vector{-1.5, 0.3, 2}}, {bp.matrix{{0.5, -0.2}, {1.5, 0.1}}} }"
#define POSITIVE "{ {0.7}, {bp.vector{1.5, 0.3, 2}}, {bp.matrix{{0.5, 0.2}, {1.5, 0.1}}} }"
#define BELOW_ONE "{ {0.7}, {-0.3}, {bp.vector{-0.5, 0.3, 0.9}}, {bp.matrix{{0.5, -0.2}, {-0.7, 0.1}}} }"

#define UNARY_WITH(NAME, LOOP, SIGNATURE, SAMPLES, DOC, TEXT)                                                        \
  {                                                                                                                  \
    .name = NAME, .signature = SIGNATURE, .doc = DOC, .formula = TEXT, .samples = SAMPLES,                           \
    .flags = BP_OP_SEQUENTIAL | BP_OP_ELEMENTWISE | BP_OP_FORMULA, .data = BP_FORMULA(LOOP), .shape = bp_shape_same, \
    .forward = unary_forward, .backward = unary_backward                                                             \
  }
#define UNARY(NAME, SAMPLES, DOC, TEXT) UNARY_WITH(#NAME, NAME, "value x", SAMPLES, DOC, TEXT)

static const bp_op rows[] = {
    UNARY_WITH("neg", negative, "value x", ANYWHERE, "The negative.", "y = -x; dx = -dy"),
    UNARY(exp, ANYWHERE, "e to the power of x.", "y = e^x; dx = dy y"),
    UNARY(log, POSITIVE, "The natural logarithm; -inf at 0, NaN below.", "y = log x; dx = dy / x"),
    UNARY(log1p, POSITIVE, "log(1 + x), exact for small x.", "y = log(1 + x); dx = dy / (1 + x)"),
    UNARY(expm1, ANYWHERE, "e^x - 1, exact for small x.", "y = e^x - 1; dx = dy (y + 1)"),
    UNARY(sqrt, POSITIVE, "The square root. At 0 the slope is inf, but a cotangent of 0 gives 0.",
          "y = sqrt x; dx = dy / (2 y)"),
    UNARY(square, ANYWHERE, "The square.", "y = x^2; dx = 2 dy x"),
    UNARY(abs, ANYWHERE, "The absolute value. At 0 the slope is taken as 0.", "y = |x|; dx = dy sign x"),
    UNARY(sign, ANYWHERE, "-1, 0 or 1. The slope is 0.", "y = sign x; dx = 0"),
    UNARY(sin, ANYWHERE, "The sine of x radians.", "y = sin x; dx = dy cos x"),
    UNARY(cos, ANYWHERE, "The cosine of x radians.", "y = cos x; dx = -dy sin x"),
    UNARY(tan, ANYWHERE, "The tangent of x radians.", "y = tan x; dx = dy (1 + y^2)"),
    UNARY(asin, BELOW_ONE, "The angle in radians whose sine is x.", "y = asin x; dx = dy / sqrt(1 - x^2)"),
    UNARY(acos, BELOW_ONE, "The angle in radians whose cosine is x.", "y = acos x; dx = -dy / sqrt(1 - x^2)"),
    UNARY(atan, ANYWHERE, "The angle in radians whose tangent is x.", "y = atan x; dx = dy / (1 + x^2)"),
    UNARY(sinh, ANYWHERE, "The hyperbolic sine.", "y = sinh x; dx = dy cosh x"),
    UNARY(cosh, ANYWHERE, "The hyperbolic cosine.", "y = cosh x; dx = dy sinh x"),
    UNARY(tanh, ANYWHERE, "The hyperbolic tangent.", "y = tanh x; dx = dy (1 - y^2)"),
    UNARY(sigmoid, ANYWHERE, "The logistic function.", "y = 1 / (1 + e^-x); dx = dy y (1 - y)"),
    UNARY(softplus, ANYWHERE, "log(1 + e^x), without overflow.", "y = log(1 + e^x); dx = dy / (1 + e^-x)"),
    UNARY(relu, ANYWHERE, "x where positive, else 0. At 0 the slope is taken as 0.", "y = max(x, 0); dx = dy [x > 0]"),
    UNARY_WITH("leaky_relu", leaky_relu, "value x, number slope = 0.01", ANYWHERE,
               "x where positive, else slope x. At 0 the slope is the one of the negative side.",
               "y = x > 0 ? x : slope x; dx = dy (x > 0 ? 1 : slope)"),
    UNARY_WITH("elu", elu, "value x, number alpha = 1", ANYWHERE,
               "x where positive, else alpha (e^x - 1) (D.-A. Clevert and others, 2015).",
               "y = x > 0 ? x : alpha (e^x - 1); dx = dy (x > 0 ? 1 : y + alpha)"),
    UNARY(gelu, ANYWHERE, "x times the normal distribution function, exactly (D. Hendrycks, K. Gimpel, 2016).",
          "y = x P(x); dx = dy (P(x) + x p(x)), P and p of the standard normal distribution"),
    UNARY(silu, ANYWHERE, "x times its logistic function.", "y = x s(x); dx = dy s(x) (1 + x (1 - s(x)))"),
    UNARY(reciprocal, POSITIVE, "1 / x.", "y = 1 / x; dx = -dy y^2"),
    {.name = "clamp",
     .signature = "value x, number lo, number hi",
     .doc = "x held between lo and hi. The cotangent passes at the bounds, and is 0 beyond them.",
     .formula = "y = min(max(x, lo), hi); dx = dy [lo <= x <= hi]",
     .samples = "{ {0.7, 0, 1}, {bp.vector{-1.5, 0.3, 2}, -1, 1}, {bp.matrix{{0.5, -0.2}, {1.5, 0.1}}, 0, 0.4} }",
     .flags = BP_OP_SEQUENTIAL | BP_OP_ELEMENTWISE,
     .data = BP_FORMULA(clamp),
     .shape = clamp_shape, /* which looks at the bounds, so that numbers go the way of arrays */
     .forward = unary_forward,
     .backward = unary_backward},
};

FAMILY(math);

static const struct {
  const char *name;
  size_t loop;
} activations[] = {{"sigmoid", BP_LOOP(sigmoid)}, {"tanh", BP_LOOP(tanh)}, {"relu", BP_LOOP(relu)}};

int64_t bp_activation_number(const char *name) {
  for (size_t k = 0; k < sizeof activations / sizeof activations[0]; k++)
    if (strcmp(activations[k].name, name) == 0) return (int64_t)k + 1;
  return 0;
}

size_t bp_activation_loop(int64_t number) {
  return activations[number - 1].loop;
}
