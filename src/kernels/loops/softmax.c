/* Softmax and its relatives over the rows of a matrix. Long rows go one by one through the loops of reduce.c. Short
 * ones, where a row would not fill a vector, are turned on their side, a tile of them at a time, so that each vector
 * holds one column of the tile and no sum runs across a vector.
 *
 * Every row is shifted by its largest element, so that nothing overflows; sums are in double. */
#include "mathematics.h"
#include "rest.h"

#define AT(run, i) (((const real *)(run))[i])
#define PLACE(run, i) (((real *)(run)) + (i))

enum { TILE = 2 * LANES, SHORT = 64 }; /* rows of a tile; columns of a short row */

/* A tile on its side: value[j][i] is element j of row i. Rows that are not there are copies of the last. */
typedef struct tile {
  real value[SHORT][TILE];
} tile;

static inline void load_tile(size_t rows, size_t cols, const real *restrict x, size_t stride, tile *restrict t) {
  if (rows == TILE) {
    for (size_t j = 0; j < cols; j++)
      for (size_t i = 0; i < TILE; i++) t->value[j][i] = x[i * stride + j];
  } else {
    for (size_t j = 0; j < cols; j++)
      for (size_t i = 0; i < TILE; i++) t->value[j][i] = x[(i < rows ? i : rows - 1) * stride + j];
  }
}

static inline void store_tile(size_t rows, size_t cols, const tile *restrict t, real *restrict y, size_t stride) {
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < cols; j++) y[i * stride + j] = t->value[j][i];
}

#define LANE_LOOP _Pragma("omp simd") for (size_t i = 0; i < TILE; i++)

/* x becomes x less the largest of its row. A NaN among the others shows in the sum of the exponentials. */
static inline void shift_tile(size_t cols, tile *x, real *largest) {
  LANE_LOOP largest[i] = C(-INFINITY);
  for (size_t j = 0; j < cols; j++)
    LANE_LOOP largest[i] = SELECT(x->value[j][i] > largest[i], x->value[j][i], largest[i]);
  for (size_t j = 0; j < cols; j++) LANE_LOOP x->value[j][i] -= largest[i];
}

static inline void exp_tile(size_t cols, const tile *x, tile *e, double *total) {
  LANE_LOOP total[i] = 0;
  for (size_t j = 0; j < cols; j++) LANE_LOOP {
      e->value[j][i] = exp_below(x->value[j][i]);
      total[i] += (double)e->value[j][i];
    }
}

/* The sum over the rows of sum_j t_j (log total - x_j), x shifted. A target of 0 takes nothing from a logit of -inf. */
static inline double tile_loss(size_t rows, size_t cols, const tile *x, const tile *t, const double *log_total) {
  double weight[TILE], inner[TILE], loss = 0;
  LANE_LOOP weight[i] = inner[i] = 0;
  for (size_t j = 0; j < cols; j++) LANE_LOOP {
      const double target = (double)t->value[j][i], product = target * (double)x->value[j][i];
      weight[i] += target;
      inner[i] += target == 0 ? 0 : product;
    }
  for (size_t i = 0; i < rows; i++) loss += weight[i] * log_total[i] - inner[i];
  return loss;
}

static double softmax_tile(size_t rows, size_t cols, const real *x, size_t x_stride, const real *t, size_t t_stride,
                           real *y, size_t y_stride, double *largests, double *log_totals) {
  tile shifted, result, target;
  real largest[TILE];
  double total[TILE], log_total[TILE];
  load_tile(rows, cols, x, x_stride, &shifted);
  shift_tile(cols, &shifted, largest);
  exp_tile(cols, &shifted, &result, total);
  if (y != NULL) {
    real factor[TILE];
    LANE_LOOP factor[i] = C(1 / total[i]);
    for (size_t j = 0; j < cols; j++) LANE_LOOP result.value[j][i] *= factor[i];
    store_tile(rows, cols, &result, y, y_stride);
  }
  LANE_LOOP log_total[i] = log(total[i]);
  for (size_t i = 0; i < rows; i++) {
    largests[i] = (double)largest[i];
    log_totals[i] = log_total[i];
  }
  if (t == NULL) return 0;
  load_tile(rows, cols, t, t_stride, &target);
  return tile_loss(rows, cols, &shifted, &target, log_total);
}

static double softmax_row(size_t cols, const real *x, const real *t, real *y, double *largests, double *log_totals) {
  const bp_reduce_loops *reduce = &NAME(bp_reduce);
  const double largest = reduce->largest(cols, x);
  const double total = y != NULL ? reduce->exp_shifted(cols, largest, x, y) : reduce->sum_exp(cols, largest, x);
  const double log_total = log(total);
  double loss = 0;
  *largests = largest;
  *log_totals = log_total;
  if (y != NULL) NAME(bp_map).axpby(cols, 1 / total, y, 0, y);
  if (t == NULL) return 0;
#pragma omp simd reduction(+ : loss)
  for (size_t j = 0; j < cols; j++) {
    const double target = (double)t[j], product = target * (log_total + (largest - (double)x[j]));
    loss += target == 0 ? 0 : product;
  }
  return loss;
}

static double softmax(size_t rows, size_t cols, const void *x, size_t x_stride, const void *t, size_t t_stride, void *y,
                      size_t y_stride, double *largest, double *log_total) {
  double loss = 0;
  const size_t step = cols > SHORT || rows == 1 ? 1 : TILE;
  for (size_t i = 0; i < rows; i += step) {
    const real *xs = &AT(x, i * x_stride), *ts = t != NULL ? &AT(t, i * t_stride) : NULL;
    real *ys = y != NULL ? PLACE(y, i * y_stride) : NULL;
    loss += step == 1 ? softmax_row(cols, xs, ts, ys, largest + i, log_total + i)
                      : softmax_tile(rows - i < TILE ? rows - i : TILE, cols, xs, x_stride, ts, t_stride, ys, y_stride,
                                     largest + i, log_total + i);
  }
  return loss;
}

static void log_softmax_tile(size_t rows, size_t cols, const real *x, size_t x_stride, real *y, size_t y_stride) {
  tile shifted, e;
  real largest[TILE];
  double total[TILE];
  load_tile(rows, cols, x, x_stride, &shifted);
  shift_tile(cols, &shifted, largest);
  exp_tile(cols, &shifted, &e, total);
  LANE_LOOP total[i] = log(total[i]);
  for (size_t j = 0; j < cols; j++) LANE_LOOP shifted.value[j][i] = C((double)shifted.value[j][i] - total[i]);
  store_tile(rows, cols, &shifted, y, y_stride);
}

static void log_softmax(size_t rows, size_t cols, const void *x, size_t x_stride, void *y, size_t y_stride) {
  const size_t step = cols > SHORT || rows == 1 ? 1 : TILE;
  for (size_t i = 0; i < rows; i += step) {
    const real *xs = &AT(x, i * x_stride);
    real *ys = PLACE(y, i * y_stride);
    if (step == 1) {
      const double largest = NAME(bp_reduce).largest(cols, xs);
      const double log_total = log(NAME(bp_reduce).sum_exp(cols, largest, xs));
#pragma omp simd
      for (size_t j = 0; j < cols; j++) ys[j] = C(((double)xs[j] - largest) - log_total);
    } else {
      log_softmax_tile(rows - i < TILE ? rows - i : TILE, cols, xs, x_stride, ys, y_stride);
    }
  }
}

/* ---- adjoints ---------------------------------------------------------------------------------------------------- */

/* Of a row. A sum in the order of the elements, which does not vectorise, is the fastest of a short one. */
#define SUM_OF(NUMBER)                                                                      \
  if (cols > SHORT) {                                                                       \
    _Pragma("omp simd reduction(+ : sum)") for (size_t j = 0; j < cols; j++) sum += NUMBER; \
  } else {                                                                                  \
    for (size_t j = 0; j < cols; j++) sum += NUMBER;                                        \
  }

#define WRITE_OR_ADD(VALUE)                                                \
  if (accumulate) {                                                        \
    _Pragma("omp simd") for (size_t j = 0; j < cols; j++) d[j] += (VALUE); \
  } else {                                                                 \
    _Pragma("omp simd") for (size_t j = 0; j < cols; j++) d[j] = (VALUE);  \
  }

#define ADJOINT(name, NUMBER, FACTOR, VALUE)                                                                \
  static void name(size_t rows, size_t cols, double scale, const void *as, size_t a_stride, const void *bs, \
                   size_t b_stride, void *ds, size_t d_stride, bool accumulate) {                           \
    const real share = C(scale);                                                                            \
    (void)share;                                                                                            \
    for (size_t i = 0; i < rows; i++) {                                                                     \
      const real *a = &AT(as, i * a_stride), *b = &AT(bs, i * b_stride);                                    \
      real *d = PLACE(ds, i * d_stride);                                                                    \
      double sum = 0;                                                                                       \
      SUM_OF(NUMBER)                                                                                        \
      const real factor = C(FACTOR);                                                                        \
      WRITE_OR_ADD(VALUE)                                                                                   \
    }                                                                                                       \
  }

/* a is the cotangent, b the softmax or its logarithm. */
ADJOINT(softmax_adjoint, (double)a[j] * (double)b[j], sum, b[j] * (a[j] - factor))
ADJOINT(log_softmax_adjoint, (double)a[j], sum, a[j] - factor * our_exp(b[j]))
/* a is the target, b the softmax of the logits. */
ADJOINT(cross_entropy_adjoint, (double)a[j], scale *sum, factor *b[j] - share * a[j])

const bp_softmax_loops NAME(bp_softmax) = {
    .softmax = softmax,
    .log_softmax = log_softmax,
    .softmax_adjoint = softmax_adjoint,
    .log_softmax_adjoint = log_softmax_adjoint,
    .cross_entropy_adjoint = cross_entropy_adjoint,
};
