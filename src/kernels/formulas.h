/* The element-wise operations: value and adjoint of each, once, for f64 and f32 and every SIMD level.
 *
 * A unary row is X(name, value of x, adjoint): y is the value, g the cotangent of the result, a and b the operation's
 * parameters. A binary row has the adjoints of x and of y, z being the value. The functions are type-generic (tgmath.h)
 * or those of loops/mathematics.h, and C(..) is a constant of the element type. SELECT evaluates both branches, so that
 * loops vectorise, and selects rather than multiplies by 0, so that an inf or NaN in the branch not taken does not come
 * through.
 *
 * Conventions where no derivative exists: relu, abs and sign take 0 at 0, clamp passes the cotangent at its bounds, and
 * a tie of minimum or maximum halves it. Where a slope is infinite the cotangent is, but for a cotangent of 0: the
 * loops see to it that this gives 0. */
#ifndef BP_KERNELS_FORMULAS_H
#define BP_KERNELS_FORMULAS_H

/* A cotangent of 0 gives 0, also where the slope is infinite; but a NaN among the operands is not hidden. */
#define BP_ADJOINT(g, x, y, adjoint) SELECT((g) == 0 && (x) == (x) && (y) == (y), C(0), adjoint)

/* clang-format off */
#define BP_UNARY_FORMULAS(X) \
  X(negative,   -x,                                          -g) \
  X(sqrt,       sqrt(x),                                     g / (2 * y)) \
  X(square,     x * x,                                       2 * g * x) \
  X(abs,        fabs(x),                                     SELECT(x > 0, g, SELECT(x < 0, -g, x))) \
  X(sign,       SELECT(x > 0, C(1), SELECT(x < 0, C(-1), x)), C(0)) \
  X(relu,       SELECT(x < 0, C(0), x),                      SELECT(x > 0, g, SELECT(x <= 0, C(0), x))) \
  X(leaky_relu, SELECT(x > 0, x, a * x),                     SELECT(x > 0, g, a * g)) \
  X(reciprocal, 1 / x,                                       -g * y * y) \
  X(clamp,      SELECT(x < a, a, SELECT(x > b, b, x)),       SELECT(x < a || x > b, C(0), g))

/* Those that call functions, where an element costs so much that a run's last few are handled as a whole vector. */
#define BP_FUNCTION_FORMULAS(X) \
  X(exp,        our_exp(x),                                  g * y) \
  X(log,        our_log(x),                                  g / x) \
  X(log1p,      log1p(x),                                    g / (1 + x)) \
  X(expm1,      our_expm1(x),                                g * (y + 1)) \
  X(asin,       WIDE(asin, x),                               g / sqrt(1 - x * x)) \
  X(acos,       acos(x),                                     -g / sqrt(1 - x * x)) \
  X(atan,       atan(x),                                     g / (1 + x * x)) \
  X(sinh,       sinh(x),                                     g * cosh(x)) \
  X(cosh,       cosh(x),                                     g * sinh(x)) \
  X(tanh,       tanh(x),                                     g * ((1 - y) * (1 + y))) \
  X(sigmoid,    sigmoid(x),                                  g * (y * (1 - y))) \
  X(softplus,   softplus(x),                                 g * sigmoid(x)) \
  X(elu,        SELECT(x > 0, x, a * our_expm1(x)),          SELECT(x > 0, g, g * (y + a))) \
  X(silu,       silu(x),                                     g * silu_slope(x))

/* With a fast way for runs of which no element is beyond the second column; NEAR_OR_FAR is one of
 * near_f and far_f. */
#define BP_GUARDED_FORMULAS(X) \
  X(sin,  CIRCULAR_NEAR, NEAR_OR_FAR(sin, x),  g * NEAR_OR_FAR(cos, x)) \
  X(cos,  CIRCULAR_NEAR, NEAR_OR_FAR(cos, x),  -g * NEAR_OR_FAR(sin, x)) \
  X(tan,  CIRCULAR_NEAR, NEAR_OR_FAR(tan, x),  g * (1 + y * y)) \
  X(gelu, GELU_NEAR,     NEAR_OR_FAR(gelu, x), g * NEAR_OR_FAR(gelu_slope, x))

#define BP_BINARY_FORMULAS(X) \
  X(add,     x + y,    g,                                           g) \
  X(sub,     x - y,    g,                                           -g) \
  X(mul,     x * y,    g * y,                                       g * x) \
  X(div,     x / y,    g / y,                                       -g * (z / y)) \
  X(minimum, SELECT(x < y || x != x, x, y), SELECT(x < y, g, SELECT(x == y, C(0.5) * g, SELECT(x > y, C(0), z))), \
                                            SELECT(y < x, g, SELECT(x == y, C(0.5) * g, SELECT(y > x, C(0), z)))) \
  X(maximum, SELECT(x > y || x != x, x, y), SELECT(x > y, g, SELECT(x == y, C(0.5) * g, SELECT(x < y, C(0), z))), \
                                            SELECT(y > x, g, SELECT(x == y, C(0.5) * g, SELECT(y < x, C(0), z))))

/* pow at 0: x^0 is constant, so its slope is 0 also where y x^(y - 1) has no value; 0^y is flat in y > 0. */
#define BP_BINARY_FUNCTION_FORMULAS(X) \
  X(pow,     pow(x, y), SELECT(y == 0, C(0), g * y * pow(x, y - 1)), \
                        SELECT(x == 0 && y >= 0, C(0), g * z * our_log(x)))

/* 0 or 1, without a gradient. */
#define BP_COMPARISON_FORMULAS(X) \
  X(less,          x < y) \
  X(less_equal,    x <= y) \
  X(greater,       x > y) \
  X(greater_equal, x >= y) \
  X(equal,         x == y)
/* clang-format on */

#endif
