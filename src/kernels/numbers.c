/* The formulas on single numbers, through libm: operations on numbers alone need neither shapes nor runs. */
#include <tgmath.h>

#include "kernels.h"

typedef double real;
#define C(constant) ((real)(constant))
#define SELECT(condition, chosen, other) ((condition) ? (chosen) : (other))

/* What the formulas call, which for the loops stands in loops/mathematics.h. */
#define our_exp exp
#define our_log log
#define our_expm1 expm1
#define WIDE(f, x) f(x)
#define NEAR_OR_FAR(f, x) number_##f(x)
#define number_sin sin
#define number_cos cos
#define number_tan tan

/* Where e^-x overflows the logistic function is e^x. */
static double sigmoid(double x) {
  return x < -700 ? exp(x) : 1 / (1 + exp(-x));
}

static double softplus(double x) {
  return (x < 0 ? 0 : x) + log1p(exp(-fabs(x)));
}

/* x e^x in two steps, since e^x alone loses digits below the normal numbers. */
static double silu(double x) {
  if (x < -800) return -0.0;
  if (x < -700) return x * exp(0.5 * x) * exp(0.5 * x);
  return x / (1 + exp(-x));
}

static double silu_slope(double x) {
  if (x < -800 || x > 800) return x > 0;
  const double s = sigmoid(x);
  return s * (1 + x * (1 - s));
}

/* In long double, since erfc multiplies what rounding its argument loses by up to 1,400. */
static double number_gelu(double x) {
  return x < -40 ? -0.0 : (double)(0.5L * x * erfc(-x * 0.70710678118654752440L));
}

static double number_gelu_slope(double x) {
  if (x < -40 || x > 40) return x > 0;
  return (double)(0.5L * erfc(-x * 0.70710678118654752440L) + x * 0.39894228040143267794L * exp(-0.5L * x * x));
}

/* A formula that does not use one of its variables is not worth a warning. */
#define UNUSED(p, q, r, s, t) (void)(p), (void)(q), (void)(r), (void)(s), (void)(t)

#define UNARY(name, value, adjoint)                                                                     \
  static double name##_value(double x, double unused, const double *parameters) {                       \
    const real a = parameters[0], b = parameters[1];                                                    \
    UNUSED(a, b, unused, x, x);                                                                         \
    return (value);                                                                                     \
  }                                                                                                     \
  static double name##_adjoint(double g, double x, double unused, double y, const double *parameters) { \
    const real a = parameters[0], b = parameters[1];                                                    \
    UNUSED(a, b, unused, x, y);                                                                         \
    return BP_ADJOINT(g, x, x, adjoint);                                                                \
  }
BP_UNARY_FORMULAS(UNARY)
BP_FUNCTION_FORMULAS(UNARY)
#define GUARDED(name, reach, value, adjoint) UNARY(name, value, adjoint)
BP_GUARDED_FORMULAS(GUARDED)

#define VALUE(name, value)                                                   \
  static double name##_value(double x, double y, const double *parameters) { \
    (void)parameters;                                                        \
    return (value);                                                          \
  }
#define ADJOINT(name, adjoint)                                                           \
  static double name(double g, double x, double y, double z, const double *parameters) { \
    UNUSED(x, y, z, g, parameters);                                                      \
    return BP_ADJOINT(g, x, y, adjoint);                                                 \
  }
#define BINARY(name, value, adjoint_x, adjoint_y) \
  VALUE(name, value)                              \
  ADJOINT(name##_adjoint_x, adjoint_x)            \
  ADJOINT(name##_adjoint_y, adjoint_y)
BP_BINARY_FORMULAS(BINARY)
BP_BINARY_FUNCTION_FORMULAS(BINARY)

#define COMPARISON(name, condition) VALUE(name, (condition) ? 1 : 0)
BP_COMPARISON_FORMULAS(COMPARISON)

const bp_number_rules bp_numbers = {
#define UNARY_ENTRY(name, ...) .name##_ = {name##_value, {name##_adjoint, NULL}},
#define BINARY_ENTRY(name, ...) .name##_ = {name##_value, {name##_adjoint_x, name##_adjoint_y}},
#define COMPARISON_ENTRY(name, ...) .name##_ = {name##_value, {NULL, NULL}},
    BP_UNARY_FORMULAS(UNARY_ENTRY) BP_FUNCTION_FORMULAS(UNARY_ENTRY) BP_GUARDED_FORMULAS(UNARY_ENTRY)
        BP_BINARY_FORMULAS(BINARY_ENTRY) BP_BINARY_FUNCTION_FORMULAS(BINARY_ENTRY)
            BP_COMPARISON_FORMULAS(COMPARISON_ENTRY)};
