/* Element-wise loops, made from the formulas. A destination may be the cotangent itself: element i is read before it
 * is written. */
#include "mathematics.h"
#include "near.h"

#include <string.h>

#define EACH _Pragma("omp simd") for (size_t i = 0; i < n; i++)
#define AT(run, i) (((const real *)(run))[i])

/* A formula that does not use one of its variables is not worth a warning. */
#define UNUSED4(p, q, r, s) (void)(p), (void)(q), (void)(r), (void)(s)

/* ---- one operand ------------------------------------------------------------------------------------------------ */

#define UNARY_VALUE(value) \
  EACH {                   \
    real x = AT(xs, i);    \
    result[i] = (value);   \
  }

#define UNARY_ADJOINT(adjoint)                          \
  if (accumulate) {                                     \
    EACH {                                              \
      real g = AT(gs, i), x = AT(xs, i), y = AT(ys, i); \
      UNUSED4(g, x, y, x);                              \
      d[i] += (adjoint);                                \
    }                                                   \
  } else {                                              \
    EACH {                                              \
      real g = AT(gs, i), x = AT(xs, i), y = AT(ys, i); \
      UNUSED4(g, x, y, x);                              \
      d[i] = (adjoint);                                 \
    }                                                   \
  }

/* BEFORE stands before the loops, FORWARD_AFTER and BACKWARD_AFTER behind them. */
#define UNARY_LOOPS(name, value, adjoint, BEFORE, FORWARD_AFTER, BACKWARD_AFTER)                                   \
  static void name##_forward(size_t n, const void *xs, void *ys, const double *parameters) {                       \
    const real a = C(parameters[0]), b = C(parameters[1]);                                                         \
    real *result = ys;                                                                                             \
    UNUSED4(a, b, a, b);                                                                                           \
    BEFORE                                                                                                         \
    UNARY_VALUE(value)                                                                                             \
    FORWARD_AFTER                                                                                                  \
  }                                                                                                                \
  static void name##_backward(size_t n, const void *gs, const void *xs, const void *ys, void *ds, bool accumulate, \
                              const double *parameters) {                                                          \
    const real a = C(parameters[0]), b = C(parameters[1]);                                                         \
    real *d = ds;                                                                                                  \
    UNUSED4(a, b, a, b);                                                                                           \
    BEFORE                                                                                                         \
    UNARY_ADJOINT(adjoint)                                                                                         \
    BACKWARD_AFTER                                                                                                 \
  }

#define UNARY(name, value, adjoint) UNARY_LOOPS(name, value, adjoint, , , )
BP_UNARY_FORMULAS(UNARY)

/* Whole vectors, then the rest as one more. */
#define WHOLE                          \
  const size_t rest = n & (LANES - 1); \
  n &= ~(size_t)(LANES - 1);
#define FINISH(name) \
  if (rest > 0) finish(name##_forward, rest, &AT(xs, n), result + n, parameters);
#define FINISH_ADJOINT(name) \
  if (rest > 0)              \
    finish_adjoint(name##_backward, rest, &AT(gs, n), &AT(xs, n), &AT(ys, n), d + n, accumulate, parameters);

#define FILL C(0.5) /* an argument that every function takes */

typedef void unary_forward(size_t n, const void *x, void *y, const double *parameters);
typedef void unary_backward(size_t n, const void *g, const void *x, const void *y, void *d, bool accumulate,
                            const double *parameters);

static void finish(unary_forward *f, size_t rest, const real *xs, real *ys, const double *parameters) {
  real x[LANES], y[LANES];
  load_rest(rest, xs, x, FILL);
  f(LANES, x, y, parameters);
  store_rest(rest, y, ys);
}

static void finish_adjoint(unary_backward *f, size_t rest, const real *gs, const real *xs, const real *ys, real *ds,
                           bool accumulate, const double *parameters) {
  real g[LANES], x[LANES], y[LANES], d[LANES];
  load_rest(rest, gs, g, FILL);
  load_rest(rest, xs, x, FILL);
  load_rest(rest, ys, y, FILL);
  load_rest(accumulate ? rest : 0, ds, d, FILL);
  f(LANES, g, x, y, d, accumulate, parameters);
  store_rest(rest, d, ds);
}

#define FUNCTION(name, value, adjoint) UNARY_LOOPS(name, value, adjoint, WHOLE, FINISH(name), FINISH_ADJOINT(name))
BP_FUNCTION_FORMULAS(FUNCTION)

#define NEAR_OR_FAR(f, x) (far ? far_##f(x) : near_##f(x))
#define IS_FAR(constant)     \
  const bool far = constant; \
  (void)far;

/* Piece by piece, so that an element that is far does not hold up all of a long run. */
#define FOR_PIECES(i, m) for (size_t i = 0, m; i < n && (m = n - i < PIECE ? n - i : PIECE, true); i += m)
enum { PIECE = 1024 };

#define GUARDED(name, reach, value, adjoint)                                                                       \
  UNARY_LOOPS(name##_near, value, adjoint, WHOLE IS_FAR(false), FINISH(name##_near), FINISH_ADJOINT(name##_near))  \
  UNARY_LOOPS(name##_far, value, adjoint, IS_FAR(true), , )                                                        \
  static void name##_forward(size_t n, const void *xs, void *ys, const double *parameters) {                       \
    FOR_PIECES(i, m) {                                                                                             \
      unary_forward *f = all_near(m, &AT(xs, i), reach) ? name##_near_forward : name##_far_forward;                \
      f(m, &AT(xs, i), (real *)ys + i, parameters);                                                                \
    }                                                                                                              \
  }                                                                                                                \
  static void name##_backward(size_t n, const void *gs, const void *xs, const void *ys, void *ds, bool accumulate, \
                              const double *parameters) {                                                          \
    FOR_PIECES(i, m) {                                                                                             \
      unary_backward *f = all_near(m, &AT(xs, i), reach) ? name##_near_backward : name##_far_backward;             \
      f(m, &AT(gs, i), &AT(xs, i), &AT(ys, i), (real *)ds + i, accumulate, parameters);                            \
    }                                                                                                              \
  }
BP_GUARDED_FORMULAS(GUARDED)

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

#define VALUE(name, value, BEFORE, AFTER)                                                                        \
  static void name##_forward(size_t n, const void *xs, size_t x_step, const void *ys, size_t y_step, void *zs) { \
    real *result = zs;                                                                                           \
    BEFORE                                                                                                       \
    FOR_STEPS(result[i] = (value))                                                                               \
    AFTER                                                                                                        \
  }

#define ADJOINT(name, adjoint, BEFORE, AFTER)                                                              \
  static void name(size_t n, const void *gs, const void *xs, size_t x_step, const void *ys, size_t y_step, \
                   const void *zs, void *ds, bool accumulate) {                                            \
    real *d = ds;                                                                                          \
    BEFORE                                                                                                 \
    if (accumulate) {                                                                                      \
      FOR_STEPS(real g = AT(gs, i); real z = AT(zs, i); UNUSED4(g, x, y, z); d[i] += (adjoint))            \
    } else {                                                                                               \
      FOR_STEPS(real g = AT(gs, i); real z = AT(zs, i); UNUSED4(g, x, y, z); d[i] = (adjoint))             \
    }                                                                                                      \
    AFTER                                                                                                  \
  }

#define BINARY(name, value, adjoint_x, adjoint_y) \
  VALUE(name, value, , )                          \
  ADJOINT(name##_backward_x, adjoint_x, , )       \
  ADJOINT(name##_backward_y, adjoint_y, , )
BP_BINARY_FORMULAS(BINARY)

typedef void binary_forward(size_t n, const void *x, size_t x_step, const void *y, size_t y_step, void *z);
typedef void binary_backward(size_t n, const void *g, const void *x, size_t x_step, const void *y, size_t y_step,
                             const void *z, void *d, bool accumulate);

static void finish_binary(binary_forward *f, size_t rest, const real *xs, size_t x_step, const real *ys, size_t y_step,
                          real *zs) {
  real x[LANES], y[LANES], z[LANES];
  load_rest(x_step != 0 ? rest : 1, xs, x, FILL);
  load_rest(y_step != 0 ? rest : 1, ys, y, FILL);
  f(LANES, x, x_step, y, y_step, z);
  store_rest(rest, z, zs);
}

static void finish_binary_adjoint(binary_backward *f, size_t rest, const real *gs, const real *xs, size_t x_step,
                                  const real *ys, size_t y_step, const real *zs, real *ds, bool accumulate) {
  real g[LANES], x[LANES], y[LANES], z[LANES], d[LANES];
  load_rest(rest, gs, g, FILL);
  load_rest(x_step != 0 ? rest : 1, xs, x, FILL);
  load_rest(y_step != 0 ? rest : 1, ys, y, FILL);
  load_rest(rest, zs, z, FILL);
  load_rest(accumulate ? rest : 0, ds, d, FILL);
  f(LANES, g, x, x_step, y, y_step, z, d, accumulate);
  store_rest(rest, d, ds);
}

#define STEPPED(run, step) (&AT(run, (step) != 0 ? n : 0))
#define FINISH_BINARY_ADJOINT(f)                                                                                     \
  if (rest > 0)                                                                                                      \
    finish_binary_adjoint(f, rest, &AT(gs, n), STEPPED(xs, x_step), x_step, STEPPED(ys, y_step), y_step, &AT(zs, n), \
                          d + n, accumulate);
#define BINARY_FUNCTION(name, value, adjoint_x, adjoint_y)                                                          \
  VALUE(name, value, WHOLE,                                                                                         \
        if (rest > 0) finish_binary(name##_forward, rest, STEPPED(xs, x_step), x_step, STEPPED(ys, y_step), y_step, \
                                    result + n);)                                                                   \
  ADJOINT(name##_backward_x, adjoint_x, WHOLE, FINISH_BINARY_ADJOINT(name##_backward_x))                            \
  ADJOINT(name##_backward_y, adjoint_y, WHOLE, FINISH_BINARY_ADJOINT(name##_backward_y))
BP_BINARY_FUNCTION_FORMULAS(BINARY_FUNCTION)

#define COMPARISON(name, condition) VALUE(name, SELECT(condition, C(1), C(0)), , )
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
    BP_UNARY_FORMULAS(UNARY_ENTRY) BP_FUNCTION_FORMULAS(UNARY_ENTRY) BP_GUARDED_FORMULAS(UNARY_ENTRY)
        BP_BINARY_FORMULAS(BINARY_ENTRY) BP_BINARY_FUNCTION_FORMULAS(BINARY_ENTRY)
            BP_COMPARISON_FORMULAS(COMPARISON_ENTRY)
                .where = where,
    .where_backward = where_backward,
    .fill = fill,
    .copy = copy,
    .axpby = axpby,
    .to_f64 = to_f64,
    .from_f64 = from_f64,
    .adam = adam,
};
