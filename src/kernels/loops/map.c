/* Element-wise loops, made from the formulas. A destination may be the cotangent itself: element i is read before it
 * is written. */
#include "real.h"

#include <string.h>

#define EACH _Pragma("omp simd") for (size_t i = 0; i < n; i++)
#define AT(run, i) (((const real *)(run))[i])

/* A formula that does not use one of its variables is not worth a warning. */
#define UNUSED4(p, q, r, s) (void)(p), (void)(q), (void)(r), (void)(s)

/* ---- one operand ------------------------------------------------------------------------------------------------ */

#define UNARY(name, value, adjoint)                                                                                \
  static void name##_forward(size_t n, const void *xs, void *ys, const double *parameters) {                       \
    const real a = C(parameters[0]), b = C(parameters[1]);                                                         \
    real *result = ys;                                                                                             \
    UNUSED4(a, b, a, b);                                                                                           \
    EACH {                                                                                                         \
      real x = AT(xs, i);                                                                                          \
      result[i] = (value);                                                                                         \
    }                                                                                                              \
  }                                                                                                                \
  static void name##_backward(size_t n, const void *gs, const void *xs, const void *ys, void *ds, bool accumulate, \
                              const double *parameters) {                                                          \
    const real a = C(parameters[0]), b = C(parameters[1]);                                                         \
    real *d = ds;                                                                                                  \
    UNUSED4(a, b, a, b);                                                                                           \
    if (accumulate) {                                                                                              \
      EACH {                                                                                                       \
        real g = AT(gs, i), x = AT(xs, i), y = AT(ys, i);                                                          \
        UNUSED4(g, x, y, x);                                                                                       \
        d[i] += BP_ADJOINT(g, x, x, adjoint);                                                                      \
      }                                                                                                            \
    } else {                                                                                                       \
      EACH {                                                                                                       \
        real g = AT(gs, i), x = AT(xs, i), y = AT(ys, i);                                                          \
        UNUSED4(g, x, y, x);                                                                                       \
        d[i] = BP_ADJOINT(g, x, x, adjoint);                                                                       \
      }                                                                                                            \
    }                                                                                                              \
  }
BP_UNARY_FORMULAS(UNARY)

/* ---- two operands ------------------------------------------------------------------------------------------------ */

/* A step known to be 0 or 1 is what lets the loops vectorise. */
#define FOR_STEPS(STATEMENT)             \
  if (x_step != 0 && y_step != 0) {      \
    EACH {                               \
      real x = AT(xs, i), y = AT(ys, i); \
      STATEMENT;                         \
    }                                    \
  } else if (x_step != 0) {              \
    const real y = AT(ys, 0);            \
    EACH {                               \
      real x = AT(xs, i);                \
      STATEMENT;                         \
    }                                    \
  } else {                               \
    const real x = AT(xs, 0);            \
    EACH {                               \
      real y = AT(ys, i);                \
      STATEMENT;                         \
    }                                    \
  }

#define VALUE(name, value)                                                                                       \
  static void name##_forward(size_t n, const void *xs, size_t x_step, const void *ys, size_t y_step, void *zs) { \
    real *result = zs;                                                                                           \
    FOR_STEPS(result[i] = (value))                                                                               \
  }

#define ADJOINT(name, adjoint)                                                                                     \
  static void name(size_t n, const void *gs, const void *xs, size_t x_step, const void *ys, size_t y_step,         \
                   const void *zs, void *ds, bool accumulate) {                                                    \
    real *d = ds;                                                                                                  \
    if (accumulate) {                                                                                              \
      FOR_STEPS(real g = AT(gs, i); real z = AT(zs, i); UNUSED4(g, x, y, z); d[i] += BP_ADJOINT(g, x, y, adjoint)) \
    } else {                                                                                                       \
      FOR_STEPS(real g = AT(gs, i); real z = AT(zs, i); UNUSED4(g, x, y, z); d[i] = BP_ADJOINT(g, x, y, adjoint))  \
    }                                                                                                              \
  }

#define BINARY(name, value, adjoint_x, adjoint_y) \
  VALUE(name, value)                              \
  ADJOINT(name##_backward_x, adjoint_x)           \
  ADJOINT(name##_backward_y, adjoint_y)
BP_BINARY_FORMULAS(BINARY)

#define COMPARISON(name, condition) VALUE(name, SELECT(condition, C(1), C(0)))
BP_COMPARISON_FORMULAS(COMPARISON)

/* ---- three operands ---------------------------------------------------------------------------------------------- */

static void where(size_t n, const void *c, size_t c_step, const void *a, size_t a_step, const void *b, size_t b_step,
                  void *y) {
  real *result = y;
  EACH result[i] = SELECT(AT(c, i * c_step) != 0, AT(a, i * a_step), AT(b, i * b_step));
}

static void where_backward(size_t n, const void *g, const void *c, size_t c_step, int side, void *ds, bool accumulate) {
  real *d = ds;
  if (accumulate) {
    EACH d[i] += SELECT((AT(c, i * c_step) != 0) == (side == 0), AT(g, i), C(0));
  } else {
    EACH d[i] = SELECT((AT(c, i * c_step) != 0) == (side == 0), AT(g, i), C(0));
  }
}

/* ---- moving ------------------------------------------------------------------------------------------------------ */

static void fill(size_t n, double value, void *ds) {
  const real v = C(value);
  real *d = ds;
  EACH d[i] = v;
}

static void copy(size_t n, const void *x, void *d) {
  memcpy(d, x, n * sizeof(real));
}

static void axpby(size_t n, double alpha, const void *x, double beta, void *ds) {
  const real a = C(alpha), b = C(beta);
  real *d = ds;
  if (beta == 0) {
    EACH d[i] = a * AT(x, i);
  } else if (beta == 1) {
    EACH d[i] += a * AT(x, i);
  } else {
    EACH d[i] = a * AT(x, i) + b * d[i];
  }
}

static void to_f64(size_t n, const void *x, double *d) {
  EACH d[i] = (double)AT(x, i);
}

static void from_f64(size_t n, const double *x, void *ds) {
  real *d = ds;
  EACH d[i] = (real)x[i];
}

static void adam(size_t n, void *xs, const void *gs, void *ms, void *vs, const bp_adam *step) {
  const real beta1 = C(step->beta1), beta2 = C(step->beta2), rate = C(step->rate), epsilon = C(step->epsilon);
  const real decay = C(step->decay), l2 = C(step->l2);
  const real rest1 = C(1 - step->beta1), rest2 = C(1 - step->beta2);
  real *x = xs, *m = ms, *v = vs;
  EACH {
    real g = AT(gs, i) + l2 * x[i];
    m[i] = beta1 * m[i] + rest1 * g;
    v[i] = beta2 * v[i] + rest2 * g * g;
    x[i] = decay * x[i] - rate * m[i] / (sqrt(v[i]) + epsilon);
  }
}

const bp_map_loops NAME(bp_map) = {
#define UNARY_ENTRY(name, ...) .name##_ = {name##_forward, name##_backward},
#define BINARY_ENTRY(name, ...) .name##_ = {name##_forward, {name##_backward_x, name##_backward_y}},
#define COMPARISON_ENTRY(name, ...) .name##_ = {name##_forward, {NULL, NULL}},
    BP_UNARY_FORMULAS(UNARY_ENTRY) BP_BINARY_FORMULAS(BINARY_ENTRY) BP_COMPARISON_FORMULAS(COMPARISON_ENTRY).where =
        where,
    .where_backward = where_backward,
    .fill = fill,
    .copy = copy,
    .axpby = axpby,
    .to_f64 = to_f64,
    .from_f64 = from_f64,
    .adam = adam,
};
