/* The formulas on single numbers, with the functions that the loops have: operations on numbers alone need neither
 * shapes nor runs. */
#define BP_DTYPE_F32 0
#define BP_LEVEL base
#include "loops/mathematics.h"

#include "kernels.h"

/* libm's erfc is up to 3.7 units off; in extended precision neither that nor the rounded argument shows. */
static double number_gelu(double x) {
  const long double root = 0.70710678118654752440084436210484903928L; /* sqrt(1/2) */
  return x < -40 ? -0.0 : (double)(0.5L * (long double)x * erfcl(-(long double)x * root));
}

#define NEAR_OR_FAR(f, x) number_##f(x) /* which hold everywhere */
#define number_sin(x) far_sin(x)
#define number_cos(x) far_cos(x)
#define number_tan(x) far_tan(x)
#define number_gelu_slope(x) far_gelu_slope(x)

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
    return (adjoint);                                                                                   \
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
    return (adjoint);                                                                    \
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
