/* The formulas on single numbers, through libm: operations on numbers alone need neither shapes nor runs. */
#include <tgmath.h>

#include "kernels.h"

typedef double real;
#define C(constant) ((real)(constant))
#define SELECT(condition, chosen, other) ((condition) ? (chosen) : (other))

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

#define COMPARISON(name, condition) VALUE(name, (condition) ? 1 : 0)
BP_COMPARISON_FORMULAS(COMPARISON)

const bp_number_rules bp_numbers = {
#define UNARY_ENTRY(name, ...) .name##_ = {name##_value, {name##_adjoint, NULL}},
#define BINARY_ENTRY(name, ...) .name##_ = {name##_value, {name##_adjoint_x, name##_adjoint_y}},
#define COMPARISON_ENTRY(name, ...) .name##_ = {name##_value, {NULL, NULL}},
    BP_UNARY_FORMULAS(UNARY_ENTRY) BP_BINARY_FORMULAS(BINARY_ENTRY) BP_COMPARISON_FORMULAS(COMPARISON_ENTRY)};
