/* Reductions fall into groups that each give one number: all elements (axis 0), a column (axis 1), or a row (axis 2).
 * Runs of a row go through the loops; columns are reduced side by side, a block of them at a time. */
#include <math.h>

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
  double high = largest_of(cx, BP_LARGEST, x), low = largest_of(cx, BP_SMALLEST, x);
  double scale = high > -low ? high : -low;
  if (bp_count(x) == 0 || scale == 0 || isinf(scale)) return bp_count(x) == 0 ? 0 : scale;
  if (scale < 0x1p-1022) scale = 0x1p-1022; /* the reciprocal of a denormal may be infinite */
  total = 0;
  for (size_t i = 0; i < r.count; i++) total += loops->sum_squares(r.length, 1 / scale, bp_at(x, i, 0));
  return scale * sqrt(total);
}

static double reduce_runs(bp_context *cx, bp_reduction reduction, const bp_array *x) {
  const bp_reduce_loops *loops = reduce_of(cx, x);
  runs r = runs_of(x);
  double total = reduction == BP_PRODUCT ? 1 : 0;
  switch (reduction) {
  case BP_LARGEST:
  case BP_SMALLEST: return largest_of(cx, reduction, x);
  case BP_LOGSUMEXP: return logsumexp_of(cx, x);
  case BP_NORM: return norm_of(cx, x);
  case BP_PRODUCT:
    for (size_t i = 0; i < r.count; i++) total *= loops->product(r.length, bp_at(x, i, 0));
    return total;
  case BP_SUM:
  case BP_MEAN:
    for (size_t i = 0; i < r.count; i++) total += loops->sum(r.length, bp_at(x, i, 0));
  }
  return reduction == BP_MEAN ? total / (double)bp_count(x) : total;
}

/* ---- columns side by side ---------------------------------------------------------------------------------------- */

static void load_line(bp_context *cx, const bp_array *x, size_t i, size_t j, size_t n, double *line) {
  bp_loops_of(cx, x->dtype)->map->to_f64(n, bp_at(x, i, j), line);
}

static void reduce_columns(bp_context *cx, bp_reduction reduction, const bp_array *x, size_t j, size_t n,
                           double *result) {
  double line[BLOCK], shift[BLOCK];
  if (reduction == BP_LOGSUMEXP) reduce_columns(cx, BP_LARGEST, x, j, n, shift);
  double start = reduction == BP_PRODUCT    ? 1
                 : reduction == BP_LARGEST  ? -INFINITY
                 : reduction == BP_SMALLEST ? INFINITY
                                            : 0;
  for (size_t k = 0; k < n; k++) result[k] = start;
  for (size_t i = 0; i < x->rows; i++) {
    load_line(cx, x, i, j, n, line);
    for (size_t k = 0; k < n; k++) switch (reduction) {
      case BP_SUM:
      case BP_MEAN: result[k] += line[k]; break;
      case BP_PRODUCT: result[k] *= line[k]; break;
      case BP_LARGEST:
        if (line[k] > result[k] || isnan(line[k])) result[k] = line[k];
        break;
      case BP_SMALLEST:
        if (line[k] < result[k] || isnan(line[k])) result[k] = line[k];
        break;
      case BP_LOGSUMEXP: result[k] += exp(line[k] - shift[k]); break;
      case BP_NORM: result[k] = hypot(result[k], line[k]); break;
      }
  }
  for (size_t k = 0; k < n; k++) {
    if (reduction == BP_MEAN) result[k] /= (double)x->rows;
    if (reduction == BP_LOGSUMEXP) result[k] = isfinite(shift[k]) ? shift[k] + log(result[k]) : shift[k];
  }
}

void bp_reduce(bp_context *cx, bp_reduction reduction, int axis, const bp_array *x, bp_array *y) {
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

/* The elements of a group one by one, for the reductions whose adjoint looks at the others of the group. */
typedef struct group {
  const bp_array *x;
  int axis;
  size_t index, size;
} group;

static size_t group_row(const group *p, size_t k) {
  return p->axis == 0 ? k / p->x->cols : p->axis == 1 ? k : p->index;
}

static size_t group_col(const group *p, size_t k) {
  return p->axis == 0 ? k % p->x->cols : p->axis == 1 ? p->index : k;
}

static double element(const group *p, size_t k) {
  return bp_load(p->x, group_row(p, k), group_col(p, k));
}

static void put(const group *p, size_t k, double value, const bp_gradient *d) {
  size_t i = group_row(p, k), j = group_col(p, k);
  bp_store(&d->to, i, j, d->accumulate ? bp_load(&d->to, i, j) + value : value);
}

/* The cotangent is shared evenly among the elements that equal the extreme. */
static void extreme_adjoint(const group *p, double g, double y, const bp_gradient *d) {
  size_t ties = 0;
  for (size_t k = 0; k < p->size; k++) ties += element(p, k) == y;
  double share = isnan(y) ? y : g / (double)ties;
  for (size_t k = 0; k < p->size; k++) put(p, k, isnan(y) || element(p, k) == y ? share : 0, d);
}

static void logsumexp_adjoint(const group *p, double g, double y, const bp_gradient *d) {
  if (isinf(y)) {
    extreme_adjoint(p, g, y, d);
    return;
  }
  for (size_t k = 0; k < p->size; k++) put(p, k, g * exp(element(p, k) - y), d);
}

/* The product of the others: a division where nothing is 0, the one that is 0 otherwise. */
static void product_adjoint(const group *p, double g, double y, const bp_gradient *d) {
  size_t zeros = 0;
  double others = 1;
  for (size_t k = 0; k < p->size; k++) {
    double x = element(p, k);
    if (x == 0)
      zeros++;
    else
      others *= x;
  }
  (void)y;
  for (size_t k = 0; k < p->size; k++) {
    double x = element(p, k);
    double slope = zeros == 0 ? others / x : zeros == 1 && x == 0 ? others : 0 * others;
    put(p, k, g * slope, d);
  }
}

static void norm_adjoint(const group *p, double g, double y, const bp_gradient *d) {
  for (size_t k = 0; k < p->size; k++) put(p, k, y == 0 ? 0 : g * (element(p, k) / y), d);
}

void bp_reduce_adjoint(bp_context *cx, bp_reduction reduction, int axis, const bp_array *g, const bp_array *x,
                       const bp_array *y, const bp_gradient *d) {
  bp_count_addition(cx, d);
  size_t size = axis == 0 ? bp_count(x) : axis == 1 ? x->rows : x->cols;
  if (reduction == BP_SUM || reduction == BP_MEAN) {
    spread(cx, axis, reduction == BP_SUM ? 1 : 1 / (double)size, g, d);
    return;
  }
  if (reduction == BP_NORM && axis == 0) {
    double norm = bp_load(y, 0, 0), zero = 0, slope = bp_load(g, 0, 0) / norm;
    bp_array number = bp_number_at(&zero);
    contribute_uncounted(cx, norm == 0 ? 1 : slope, norm == 0 ? &number : x, d);
    return;
  }
  size_t groups = axis == 0 ? 1 : axis == 1 ? x->cols : x->rows;
  for (size_t k = 0; k < groups; k++) {
    group p = {x, axis, k, size};
    double cotangent = bp_load(g, axis == 0 ? 0 : k, 0), value = bp_load(y, axis == 0 ? 0 : k, 0);
    switch (reduction) {
    case BP_LARGEST:
    case BP_SMALLEST: extreme_adjoint(&p, cotangent, value, d); break;
    case BP_LOGSUMEXP: logsumexp_adjoint(&p, cotangent, value, d); break;
    case BP_PRODUCT: product_adjoint(&p, cotangent, value, d); break;
    default: norm_adjoint(&p, cotangent, value, d);
    }
  }
}

/* ---- the rest ---------------------------------------------------------------------------------------------------- */

void bp_arg_extreme(bp_context *cx, bool largest, int axis, const bp_array *x, bp_array *positions) {
  (void)cx;
  size_t groups = axis == 0 ? 1 : axis == 1 ? x->cols : x->rows;
  size_t size = axis == 0 ? bp_count(x) : axis == 1 ? x->rows : x->cols;
  for (size_t k = 0; k < groups; k++) {
    group p = {x, axis, k, size};
    size_t best = 0;
    for (size_t e = 1; e < size && !isnan(element(&p, best)); e++) {
      double v = element(&p, e), extreme = element(&p, best);
      if (isnan(v) || (largest ? v > extreme : v < extreme)) best = e;
    }
    bp_store(positions, k, 0, (double)best);
  }
}

/* 0 times a NaN or inf is NaN. */
bool bp_all_finite(bp_context *cx, const bp_array *x) {
  runs r = runs_of(x);
  double total = 0;
  for (size_t i = 0; i < r.count; i++) total += reduce_of(cx, x)->sum_squares(r.length, 0, bp_at(x, i, 0));
  return total == 0;
}

double bp_dot(bp_context *cx, const bp_array *x, const bp_array *y) {
  if (x->stride == 1 && y->stride == 1) return reduce_of(cx, x)->dot(x->rows, x->data, y->data);
  double total = 0;
  for (size_t i = 0; i < x->rows; i++) total += bp_load(x, i, 0) * bp_load(y, i, 0);
  return total;
}
