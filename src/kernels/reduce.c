/* Reductions fall into groups that each give one number: all elements (axis 0), a column (axis 1), or a row (axis 2).
 * Runs of a row go through the loops; columns are reduced side by side, a block of them at a time. */
#include <fenv.h>
#include <float.h>
#include <math.h>

#include "../core/pending.h"
#include "kernels.h"

enum { BLOCK = 256 };

static const bp_reduce_loops *reduce_of(bp_context *cx, const bp_array *x) {
  return bp_loops_of(cx, x->dtype)->reduce;
}

/* The rows of x as runs: a contiguous array is one run, a strided vector has runs of one element. */
typedef struct runs {
  size_t count, length;
} runs;

static runs runs_of(const bp_array *x) {
  if (bp_is_contiguous(x)) return (runs){1, bp_count(x)};
  return (runs){x->rows, x->cols};
}

/* Element k of group `index`. */
static double element(const bp_array *x, int axis, size_t index, size_t k) {
  if (axis == 0) return bp_load(x, k / x->cols, k % x->cols);
  return axis == 1 ? bp_load(x, k, index) : bp_load(x, index, k);
}

/* ---- products beyond the range of a double ------------------------------------------------------------------------ */

/* A product by its parts: fraction and exponent of the factors that are neither 0 nor infinite, and how many are. */
typedef struct scaled {
  double fraction;
  long exponent, zeros, infinite;
} scaled;

static void multiply(scaled *p, double v, bool divide) {
  const long one = divide ? -1 : 1;
  int exponent = 0, carry = 0;
  if (v == 0) {
    p->zeros += one;
    return;
  }
  if (isinf(v)) p->infinite += one;
  const double fraction = isinf(v) ? copysign(1, v) : frexp(v, &exponent);
  p->fraction = frexp(divide ? p->fraction / fraction : p->fraction * fraction, &carry);
  p->exponent += one * exponent + carry;
}

/* g times the product. */
static double scaled_value(const scaled *p, double g) {
  const long limit = 10000;
  int exponent;
  if (p->zeros > 0) return g * (p->infinite > 0 ? NAN : 0 * p->fraction);
  if (p->infinite > 0) return g * p->fraction * INFINITY;
  const double fraction = frexp(g, &exponent) * p->fraction;
  const long all = exponent + p->exponent;
  return ldexp(fraction, (int)(all > limit ? limit : all < -limit ? -limit : all));
}

static double product_by_parts(int axis, size_t index, size_t size, const bp_array *x) {
  scaled all = {.fraction = 1};
  for (size_t k = 0; k < size; k++) multiply(&all, element(x, axis, index, k), false);
  return scaled_value(&all, 1);
}

/* A product of some of the factors may overflow, or be rounded to a few bits near 0, where that of all would not. The
 * processor's flags tell. Those of the host stay as they are. */
enum { OUT_OF_RANGE = FE_OVERFLOW | FE_UNDERFLOW };

static void watch_range(fexcept_t *before) {
  fegetexceptflag(before, OUT_OF_RANGE);
  feclearexcept(OUT_OF_RANGE);
}

static bool has_left_range(const fexcept_t *before) {
  const bool left = fetestexcept(OUT_OF_RANGE) != 0;
  fesetexceptflag(before, OUT_OF_RANGE);
  return left;
}

/* ---- one number from some runs ----------------------------------------------------------------------------------- */

static double largest_of(bp_context *cx, bp_reduction which, const bp_array *x) {
  const bp_reduce_loops *loops = reduce_of(cx, x);
  runs r = runs_of(x);
  bool up = which == BP_LARGEST;
  double best = up ? -INFINITY : INFINITY;
  for (size_t i = 0; i < r.count; i++) {
    double v = up ? loops->largest(r.length, bp_at(x, i, 0)) : loops->smallest(r.length, bp_at(x, i, 0));
    if (isnan(v)) return v;
    if (up ? v > best : v < best) best = v;
  }
  return best;
}

static double logsumexp_of(bp_context *cx, const bp_array *x) {
  double shift = largest_of(cx, BP_LARGEST, x), total = 0;
  if (!isfinite(shift)) return shift;
  runs r = runs_of(x);
  for (size_t i = 0; i < r.count; i++) total += reduce_of(cx, x)->sum_exp(r.length, shift, bp_at(x, i, 0));
  return shift + log(total);
}

/* Squares that overflow or underflow are summed again, scaled by the largest element. */
static double norm_of(bp_context *cx, const bp_array *x) {
  const bp_reduce_loops *loops = reduce_of(cx, x);
  runs r = runs_of(x);
  double total = 0;
  for (size_t i = 0; i < r.count; i++) total += loops->sum_squares(r.length, 1, bp_at(x, i, 0));
  if (isnan(total) || (total > 0x1p-900 && total < 0x1p1000)) return sqrt(total);
  double high = fabs(largest_of(cx, BP_LARGEST, x)), low = fabs(largest_of(cx, BP_SMALLEST, x));
  double scale = high > low ? high : low;
  if (bp_count(x) == 0 || scale == 0 || isinf(scale)) return bp_count(x) == 0 ? 0 : scale;
  if (scale < 0x1p-1022) scale = 0x1p-1022; /* the reciprocal of a denormal may be infinite */
  total = 0;
  for (size_t i = 0; i < r.count; i++) total += loops->sum_squares(r.length, 1 / scale, bp_at(x, i, 0));
  return scale * sqrt(total);
}

static double reduce_runs(bp_context *cx, bp_reduction reduction, const bp_array *x) {
  const bp_reduce_loops *loops = reduce_of(cx, x);
  runs r = runs_of(x);
  volatile double product = 1; /* made before the flags are looked at */
  double total = 0;
  switch (reduction) {
  case BP_LARGEST:
  case BP_SMALLEST: return largest_of(cx, reduction, x);
  case BP_LOGSUMEXP: return logsumexp_of(cx, x);
  case BP_NORM: return norm_of(cx, x);
  case BP_PRODUCT:
    for (size_t i = 0; i < r.count; i++) product *= loops->product(r.length, NAN, bp_at(x, i, 0));
    return product;
  case BP_SUM:
  case BP_MEAN:
    for (size_t i = 0; i < r.count; i++) total += loops->sum(r.length, bp_at(x, i, 0));
  }
  return reduction == BP_MEAN ? total / (double)bp_count(x) : total;
}

/* ---- columns side by side ---------------------------------------------------------------------------------------- */

static void start_at(size_t n, double value, double *line) {
  for (size_t k = 0; k < n; k++) line[k] = value;
}

/* Columns j to j + n - 1. No row names an axis for the norm. */
static void reduce_columns(bp_context *cx, bp_reduction reduction, const bp_array *x, size_t j, size_t n,
                           double *result) {
  const bp_reduce_loops *loops = reduce_of(cx, x);
  double other[BLOCK];
  if (reduction == BP_LOGSUMEXP) reduce_columns(cx, BP_LARGEST, x, j, n, other);
  if (reduction == BP_PRODUCT) start_at(n, NAN, other);
  start_at(n,
           reduction == BP_PRODUCT    ? 1
           : reduction == BP_LARGEST  ? -INFINITY
           : reduction == BP_SMALLEST ? INFINITY
                                      : 0,
           result);
  for (size_t i = 0; i < x->rows; i++) {
    const void *row = bp_at(x, i, j);
    switch (reduction) {
    case BP_SUM:
    case BP_MEAN: loops->each_sum(n, row, result); break;
    case BP_PRODUCT: loops->each_product(n, other, row, result); break;
    case BP_LARGEST: loops->each_largest(n, row, result); break;
    case BP_SMALLEST: loops->each_smallest(n, row, result); break;
    case BP_LOGSUMEXP: loops->each_sum_exp(n, other, row, result); break;
    case BP_NORM: break;
    }
  }
  for (size_t k = 0; k < n; k++) {
    if (reduction == BP_MEAN) result[k] /= (double)x->rows;
    if (reduction == BP_LOGSUMEXP) result[k] = isfinite(other[k]) ? other[k] + log(result[k]) : other[k];
  }
}

static void reduce_groups(bp_context *cx, bp_reduction reduction, int axis, const bp_array *x, bp_array *y) {
  if (axis == 0) {
    *(double *)y->data = reduce_runs(cx, reduction, x);
  } else if (axis == 2) {
    for (size_t i = 0; i < x->rows; i++) {
      bp_array row = bp_window_row(x, i);
      bp_store(y, i, 0, reduce_runs(cx, reduction, &row));
    }
  } else {
    double result[BLOCK];
    for (size_t j = 0; j < x->cols; j += BLOCK) {
      size_t n = x->cols - j < BLOCK ? x->cols - j : BLOCK;
      reduce_columns(cx, reduction, x, j, n, result);
      for (size_t k = 0; k < n; k++) bp_store(y, j + k, 0, result[k]);
    }
  }
}

void bp_reduce(bp_context *cx, bp_reduction reduction, int axis, const bp_array *x, bp_array *y) {
  if (reduction != BP_PRODUCT) {
    reduce_groups(cx, reduction, axis, x, y);
    return;
  }
  fexcept_t before;
  watch_range(&before);
  reduce_groups(cx, reduction, axis, x, y);
  if (!has_left_range(&before)) return;
  if (axis == 0) *(double *)y->data = product_by_parts(0, 0, bp_count(x), x);
  for (size_t k = 0; axis != 0 && k < y->rows; k++)
    bp_store(y, k, 0, product_by_parts(axis, k, axis == 1 ? x->rows : x->cols, x));
}

/* ---- adjoints ---------------------------------------------------------------------------------------------------- */

/* The part of the destination that belongs to row i of an axis-2 reduction. */
static bp_gradient row_of(const bp_gradient *d, size_t i) {
  bp_gradient row = *d;
  row.to = bp_window_row(&d->to, i);
  return row;
}

static void contribute_uncounted(bp_context *cx, double a, const bp_array *x, const bp_gradient *d) {
  bp_array to = d->to;
  bp_axpby(cx, a, x, d->accumulate ? 1 : 0, &to);
}

/* d = g * share for each element of its group. */
static void spread(bp_context *cx, int axis, double share, const bp_array *g, const bp_gradient *d) {
  if (axis == 0) {
    contribute_uncounted(cx, share, g, d);
    return;
  }
  for (size_t i = 0; i < d->to.rows; i++) {
    bp_gradient row = row_of(d, i);
    double shared = axis == 2 ? bp_load(g, i, 0) : 0;
    bp_array number = bp_number_at(&shared);
    contribute_uncounted(cx, share, axis == 2 ? &number : g, &row);
  }
}

/* The adjoints of max, min, logsumexp and prod have one form: an element x takes `equal` where x = y, and elsewhere
 * `other` times a weight that is the loop's (0, e^(x - y), 1 / x). These are the three for each group of a block; where
 * a group is a row they are all the same. */
typedef struct terms {
  double y[BLOCK], equal[BLOCK], other[BLOCK];
} terms;

/* Whether the terms depend on how many elements are y. */
static bool counts(bp_reduction reduction, double y) {
  return reduction != BP_LOGSUMEXP || isinf(y);
}

/* What y is compared with: of a product the zeros matter. */
static double compared_with(bp_reduction reduction, double y) {
  return reduction == BP_PRODUCT ? 0 : y;
}

/* The weights e^(x - y) of a logsumexp should add up to 1: the larger y is, the more its rounding counts. */
static bool is_coarse(const bp_array *x, double y) {
  return isfinite(y) && fabs(y) > (x->dtype == BP_F32 ? 4 : 64);
}

static double sum_of_weights(const bp_reduce_loops *loops, runs r, double y, const bp_array *x) {
  double ys[BLOCK], sums[BLOCK], total = 0;
  start_at(BLOCK, y, ys);
  start_at(BLOCK, 0, sums);
  for (size_t i = 0; i < r.count; i++)
    for (size_t j = 0, n; j < r.length; j += n) {
      n = r.length - j < BLOCK ? r.length - j : BLOCK;
      loops->each_sum_exp(n, ys, bp_at(x, i, j), sums);
    }
  for (size_t k = 0; k < BLOCK; k++) total += sums[k];
  return total;
}

/* g is the group's cotangent, `count` the elements that are y; `rest` of a product that of the others, of a logsumexp
 * the sum of the weights. */
static void set_terms(terms *t, size_t k, bp_reduction reduction, double g, double y, double count, double rest) {
  double slope = g == 0 ? 0 : g * rest;
  t->y[k] = y;
  if (reduction == BP_PRODUCT) { /* a division where nothing is 0, the one that is 0 otherwise */
    t->equal[k] = count == 1 ? slope : 0 * slope;
    t->other[k] = count == 0 ? slope : 0 * slope;
  } else if (reduction == BP_LOGSUMEXP) { /* where y is infinite those that made it so share, as those of max do */
    t->equal[k] = isinf(y) ? g / count : g / rest;
    t->other[k] = g / rest;
  } else { /* shared evenly among those that tie; nothing is equal to a NaN, which all get */
    t->equal[k] = g / count;
    t->other[k] = isnan(y) ? y : 0;
  }
}

static void add_terms(bp_context *cx, bp_reduction reduction, size_t n, const terms *t, const void *x,
                      const bp_array *to, size_t i, size_t j, bool accumulate) {
  const bp_reduce_loops *loops = reduce_of(cx, to);
  if (reduction == BP_PRODUCT)
    loops->product_backward(n, t->y, t->equal, t->other, x, bp_at(to, i, j), accumulate);
  else if (reduction == BP_LOGSUMEXP)
    loops->logsumexp_backward(n, t->y, t->equal, t->other, x, bp_at(to, i, j), accumulate);
  else
    loops->extreme_backward(n, t->y, t->equal, t->other, x, bp_at(to, i, j), accumulate);
}

/* Whether a product, or it times its cotangent, is beyond what a double holds exactly, or some step of it was: then no
 * division of it gives the product of all others. */
static bool needs_parts(double g, double rest, bool left_range) {
  return g != 0 && (left_range || !(isnormal(rest) && isnormal(g * rest)));
}

/* The adjoint of the product of a group, each element's by the others. */
static void product_adjoint_by_parts(double g, int axis, size_t index, size_t size, const bp_array *x,
                                     const bp_gradient *d) {
  scaled all = {.fraction = 1};
  for (size_t k = 0; k < size; k++) multiply(&all, element(x, axis, index, k), false);
  for (size_t k = 0; k < size; k++) {
    scaled others = all;
    multiply(&others, element(x, axis, index, k), true);
    const size_t i = axis == 0 ? k / x->cols : axis == 1 ? k : index;
    const size_t j = axis == 0 ? k % x->cols : axis == 1 ? index : k;
    bp_store(&d->to, i, j, scaled_value(&others, g) + (d->accumulate ? bp_load(&d->to, i, j) : 0));
  }
}

/* All of x is one group. */
static void group_adjoint(bp_context *cx, bp_reduction reduction, double g, double y, const bp_array *x,
                          const bp_gradient *d) {
  const bp_reduce_loops *loops = reduce_of(cx, x);
  runs r = bp_is_contiguous(&d->to) ? runs_of(x) : (runs){x->rows, x->cols};
  terms t;
  double count = 0, rest = 1;
  y = compared_with(reduction, y);
  if (reduction == BP_PRODUCT) {
    volatile double factors = 1; /* made before the flags are looked at */
    fexcept_t before;
    watch_range(&before);
    for (size_t i = 0; i < r.count; i++) factors *= loops->product(r.length, y, bp_at(x, i, 0));
    rest = factors;
    if (needs_parts(g, rest, has_left_range(&before))) {
      product_adjoint_by_parts(g, 0, 0, bp_count(x), x, d);
      return;
    }
  }
  for (size_t i = 0; i < r.count && counts(reduction, y); i++) count += loops->count(r.length, y, bp_at(x, i, 0));
  if (reduction == BP_LOGSUMEXP && is_coarse(x, y)) rest = sum_of_weights(loops, r, y, x);
  set_terms(&t, 0, reduction, g, y, count, rest);
  for (size_t k = 1; k < BLOCK && k < r.length; k++) {
    t.y[k] = t.y[0];
    t.equal[k] = t.equal[0];
    t.other[k] = t.other[0];
  }
  for (size_t i = 0; i < r.count; i++)
    for (size_t j = 0; j < r.length; j += BLOCK) {
      size_t n = r.length - j < BLOCK ? r.length - j : BLOCK;
      add_terms(cx, reduction, n, &t, bp_at(x, i, j), &d->to, i, j, d->accumulate);
    }
}

/* Columns j to j + n - 1 of x are a group each. */
static void column_adjoints(bp_context *cx, bp_reduction reduction, const bp_array *g, const bp_array *x,
                            const bp_array *y, size_t j, size_t n, const bp_gradient *d) {
  const bp_reduce_loops *loops = reduce_of(cx, x);
  terms t;
  double count[BLOCK], rest[BLOCK];
  bool counting = false, coarse = false, by_parts = false;
  for (size_t k = 0; k < n; k++) {
    t.y[k] = compared_with(reduction, bp_load(y, j + k, 0));
    counting = counting || counts(reduction, t.y[k]);
    coarse = coarse || (reduction == BP_LOGSUMEXP && is_coarse(x, t.y[k]));
  }
  start_at(n, 0, count);
  start_at(n, 1, rest);
  for (size_t i = 0; i < x->rows && counting; i++) loops->each_count(n, t.y, bp_at(x, i, j), count);
  if (reduction == BP_PRODUCT) {
    fexcept_t before;
    watch_range(&before);
    for (size_t i = 0; i < x->rows; i++) loops->each_product(n, t.y, bp_at(x, i, j), rest);
    const bool left = has_left_range(&before);
    for (size_t k = 0; k < n; k++) by_parts = by_parts || needs_parts(bp_load(g, j + k, 0), rest[k], left);
  }
  if (by_parts && n > 1) { /* each column by itself */
    for (size_t k = 0; k < n; k++) column_adjoints(cx, reduction, g, x, y, j + k, 1, d);
    return;
  }
  if (by_parts) {
    product_adjoint_by_parts(bp_load(g, j, 0), 1, j, x->rows, x, d);
    return;
  }
  if (coarse) {
    start_at(n, 0, rest);
    for (size_t i = 0; i < x->rows; i++) loops->each_sum_exp(n, t.y, bp_at(x, i, j), rest);
    for (size_t k = 0; k < n; k++) rest[k] = isfinite(t.y[k]) ? rest[k] : 1;
  }
  for (size_t k = 0; k < n; k++) set_terms(&t, k, reduction, bp_load(g, j + k, 0), t.y[k], count[k], rest[k]);
  for (size_t i = 0; i < x->rows; i++) add_terms(cx, reduction, n, &t, bp_at(x, i, j), &d->to, i, j, d->accumulate);
}

/* Where g / norm is beyond the elements' range, x / norm is not. */
static void norm_adjoint(bp_context *cx, double g, double norm, const bp_array *x, const bp_gradient *d) {
  double zero = 0;
  bp_array number = bp_number_at(&zero);
  const double factor = fabs(g / norm), least = x->dtype == BP_F32 ? 0x1p-126 : 0x1p-1022;
  if (norm != 0 && g != 0 && !(factor >= least && factor <= (x->dtype == BP_F32 ? 0x1.fffffep127 : DBL_MAX))) {
    for (size_t i = 0; i < x->rows; i++)
      for (size_t j = 0; j < x->cols; j++) {
        const double slope = g * (bp_load(x, i, j) / norm);
        bp_store(&d->to, i, j, slope + (d->accumulate ? bp_load(&d->to, i, j) : 0));
      }
    return;
  }
  contribute_uncounted(cx, norm == 0 ? 1 : g / norm, norm == 0 ? &number : x, d);
}

void bp_reduce_adjoint(bp_context *cx, bp_reduction reduction, int axis, const bp_array *g, const bp_array *x,
                       const bp_array *y, const bp_gradient *d) {
  bp_count_addition(cx, d);
  if (reduction == BP_SUM || reduction == BP_MEAN) {
    size_t size = axis == 0 ? bp_count(x) : axis == 1 ? x->rows : x->cols;
    spread(cx, axis, reduction == BP_SUM ? 1 : 1 / (double)size, g, d);
  } else if (reduction == BP_NORM) {
    norm_adjoint(cx, bp_load(g, 0, 0), bp_load(y, 0, 0), x, d);
  } else if (axis == 0) {
    group_adjoint(cx, reduction, bp_load(g, 0, 0), bp_load(y, 0, 0), x, d);
  } else if (axis == 2) {
    for (size_t i = 0; i < x->rows; i++) {
      bp_array row = bp_window_row(x, i);
      bp_gradient to = row_of(d, i);
      group_adjoint(cx, reduction, bp_load(g, i, 0), bp_load(y, i, 0), &row, &to);
    }
  } else {
    for (size_t j = 0; j < x->cols; j += BLOCK)
      column_adjoints(cx, reduction, g, x, y, j, x->cols - j < BLOCK ? x->cols - j : BLOCK, d);
  }
}

/* ---- the rest ---------------------------------------------------------------------------------------------------- */

void bp_arg_extreme(bp_context *cx, bool largest, int axis, const bp_array *x, bp_array *positions) {
  (void)cx;
  size_t groups = axis == 0 ? 1 : axis == 1 ? x->cols : x->rows;
  size_t size = axis == 0 ? bp_count(x) : axis == 1 ? x->rows : x->cols;
  for (size_t k = 0; k < groups; k++) {
    size_t best = 0;
    for (size_t e = 1; e < size && !isnan(element(x, axis, k, best)); e++) {
      double v = element(x, axis, k, e), extreme = element(x, axis, k, best);
      if (isnan(v) || (largest ? v > extreme : v < extreme)) best = e;
    }
    bp_store(positions, k, 0, (double)best);
  }
}

/* 0 times a NaN or inf is NaN. */
bool bp_all_finite(bp_context *cx, const bp_array *x) {
  bool transposed;
  const bp_array source = bp_pending_source(cx, x, &transposed);
  runs r = runs_of(&source);
  double total = 0;
  for (size_t i = 0; i < r.count; i++) total += reduce_of(cx, x)->sum_squares(r.length, 0, bp_at(&source, i, 0));
  return total == 0;
}

double bp_dot(bp_context *cx, const bp_array *x, const bp_array *y) {
  if (x->stride == 1 && y->stride == 1) return reduce_of(cx, x)->dot(x->rows, x->data, y->data);
  double total = 0;
  for (size_t i = 0; i < x->rows; i++) total += bp_load(x, i, 0) * bp_load(y, i, 0);
  return total;
}
