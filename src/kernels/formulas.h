/* The element-wise operations: value and adjoint of each, once, for f64 and f32 and every SIMD level.
 *
 * A unary row is X(name, value of x, adjoint): y is the value, g the cotangent of the result, a and b the operation's
 * parameters. A binary row has the adjoints of x and of y, z being the value. FROM says which operand the slope is made
 * from: what an adjoint does not name is not read from memory. The functions are type-generic (tgmath.h) or those of
 * loops/mathematics.h, and C(..) is a constant of the element type. SELECT evaluates both branches, so that loops
 * vectorise, and selects rather than multiplies by 0, so that an inf or NaN in the branch not taken does not come through.
 *
 * Conventions where no derivative exists: relu, abs and sign take 0 at 0, clamp passes the cotangent at its bounds, and
 * a tie of minimum or maximum halves it. A cotangent of 0 gives 0, also where the slope is infinite or has no value; but
 * a NaN that it is made from is not hidden (FROM in loops/real.h). */
#ifndef BP_KERNELS_FORMULAS_H
#define BP_KERNELS_FORMULAS_H

/* clang-format off */
#define BP_UNARY_FORMULAS(X) \
  X(negative,   -x,                                          FROM_NONE(-g)) \
  X(sqrt,       sqrt(x),                                     FROM(x, g / (2 * y))) \
  X(square,     x * x,                                       FROM(x, 2 * g * x)) \
  X(abs,        fabs(x),                                     FROM(x, SELECT(x > 0, g, SELECT(x < 0, -g, x)))) \
  X(sign,       SELECT(x > 0, C(1), SELECT(x < 0, C(-1), x)), FROM_NONE(C(0))) \
  X(relu,       SELECT(x < 0, C(0), x),                      FROM(x, SELECT(x > 0, g, SELECT(x <= 0, C(0), x)))) \
  X(leaky_relu, SELECT(x > 0, x, a * x),                     FROM(x, SELECT(x > 0, g, SELECT(x <= 0, a * g, x)))) \
  X(reciprocal, 1 / x,                                       FROM(y, -g * y * y)) \
  X(clamp,      SELECT(x < a, a, SELECT(x > b, b, x)),       FROM(x, SELECT(x < a || x > b, C(0), SELECT(x == x, g, x))))

/* Those that call functions, where an element costs so much that a run's last few are handled as a whole vector. */
#define BP_FUNCTION_FORMULAS(X) \
  X(exp,        our_exp(x),                                  FROM(y, g * y)) \
  X(log,        our_log(x),                                  FROM(x, g / x)) \
  X(log1p,      log1p(x),                                    FROM(x, g / (1 + x))) \
  X(expm1,      our_expm1(x),                                FROM(y, g * (y + 1))) \
  X(asin,       WIDE(asin, x),                               FROM(x, g / sqrt((1 - x) * (1 + x)))) \
  X(acos,       acos(x),                                     FROM(x, -g / sqrt((1 - x) * (1 + x)))) \
  X(atan,       atan(x),                                     FROM(x, g / (1 + x * x))) \
  X(sinh,       sinh(x),                                     FROM(x, g * cosh(x))) \
  X(cosh,       cosh(x),                                     FROM(x, g * sinh(x))) \
  X(tanh,       tanh(x),                                     FROM(y, g * ((1 - y) * (1 + y)))) \
  X(sigmoid,    sigmoid(x),                                  FROM(y, g * (y * (1 - y)))) \
  X(softplus,   softplus(x),                                 FROM(x, g * sigmoid(x))) \
  X(elu,        SELECT(x > 0, x, a * our_expm1(x)),          FROM(x, SELECT(x > 0, g, g * (y + a)))) \
  X(silu,       silu(x),                                     FROM(x, g * silu_slope(x)))

/* With a fast way for runs of which no element is beyond the second column; NEAR_OR_FAR is one of
 * near_f and far_f. */
#define BP_GUARDED_FORMULAS(X) \
  X(sin,  CIRCULAR_NEAR, NEAR_OR_FAR(sin, x),  FROM(x, g * NEAR_OR_FAR(cos, x))) \
  X(cos,  CIRCULAR_NEAR, NEAR_OR_FAR(cos, x),  FROM(x, -g * NEAR_OR_FAR(sin, x))) \
  X(tan,  CIRCULAR_NEAR, NEAR_OR_FAR(tan, x),  FROM(x, g * (1 + y * y))) \
  X(gelu, GELU_NEAR,     NEAR_OR_FAR(gelu, x), FROM(x, g * NEAR_OR_FAR(gelu_slope, x)))

#define BP_BINARY_FORMULAS(X) \
  X(add,     x + y, FROM_NONE(g), FROM_NONE(g)) \
  X(sub,     x - y, FROM_NONE(g), FROM_NONE(-g)) \
  X(mul,     x * y, FROM(y, g * y), FROM(x, g * x)) \
  X(div,     x / y, FROM(y, g / y), FROM_BOTH(-g * (z / y))) \
  X(minimum, SELECT(x < y || x != x, x, y), \
    FROM_BOTH(SELECT(x < y, g, SELECT(x == y, C(0.5) * g, SELECT(x > y, C(0), x + y)))), \
    FROM_BOTH(SELECT(y < x, g, SELECT(x == y, C(0.5) * g, SELECT(y > x, C(0), x + y))))) \
  X(maximum, SELECT(x > y || x != x, x, y), \
    FROM_BOTH(SELECT(x > y, g, SELECT(x == y, C(0.5) * g, SELECT(x < y, C(0), x + y)))), \
    FROM_BOTH(SELECT(y > x, g, SELECT(x == y, C(0.5) * g, SELECT(y < x, C(0), x + y)))))

/* pow at 0: x^0 is constant, so its slope is 0 also where y x^(y - 1) has no value; 0^y is flat in y > 0. */
#define BP_BINARY_FUNCTION_FORMULAS(X) \
  X(pow, pow(x, y), \
    FROM_BOTH(SELECT(y == 0, C(0), g * y * pow(x, y - 1))), \
    FROM_BOTH(SELECT(x == 0 && y >= 0, C(0), g * z * our_log(x))))

/* 0 or 1, without a gradient. */
#define BP_COMPARISON_FORMULAS(X) \
  X(less,          x < y) \
  X(less_equal,    x <= y) \
  X(greater,       x > y) \
  X(greater_equal, x >= y) \
  X(equal,         x == y)
/* clang-format on */

#endif
