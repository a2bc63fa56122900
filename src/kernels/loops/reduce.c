/* Reducing loops: to one double, or to one for each element of a run. f32 elements are accumulated in f64. */
#include "mathematics.h"

#define AT(run, i) (((const real *)(run))[i])
#define EACH _Pragma("omp simd") for (size_t i = 0; i < n; i++)

static double sum(size_t n, const void *x) {
  double total = 0;
#pragma omp simd reduction(+ : total)
  for (size_t i = 0; i < n; i++) total += (double)AT(x, i);
  return total;
}

static double sum_squares(size_t n, double scale, const void *x) {
  double total = 0;
#pragma omp simd reduction(+ : total)
  for (size_t i = 0; i < n; i++) {
    double scaled = scale * (double)AT(x, i);
    total += scaled * scaled;
  }
  return total;
}

static double dot(size_t n, const void *x, const void *y) {
  double total = 0;
#pragma omp simd reduction(+ : total)
  for (size_t i = 0; i < n; i++) total += (double)AT(x, i) * (double)AT(y, i);
  return total;
}

static double product(size_t n, double y, const void *x) {
  double total = 1;
#pragma omp simd reduction(* : total)
  for (size_t i = 0; i < n; i++) {
    double v = (double)AT(x, i);
    total *= v == y ? 1 : v;
  }
  return total;
}

static double count(size_t n, double y, const void *x) {
  double total = 0;
#pragma omp simd reduction(+ : total)
  for (size_t i = 0; i < n; i++) total += (double)AT(x, i) == y ? 1 : 0;
  return total;
}

static bool has(size_t n, const void *x, real value) {
  for (size_t i = 0; i < n; i++)
    if (AT(x, i) == value) return true;
  return false;
}

/* A NaN loses every comparison, so it is looked for beside the extreme. Clang starts the lanes of a maximum not with -inf
 * but with the least finite number: where that comes out it need not be there. */
static double largest(size_t n, const void *x) {
  real best = C(-INFINITY);
  int nans = 0;
#pragma omp simd reduction(max : best) reduction(+ : nans)
  for (size_t i = 0; i < n; i++) {
    real v = AT(x, i);
    best = v > best ? v : best;
    nans += v != v;
  }
  if (nans > 0) return (double)NAN;
  return best > -LARGEST_FINITE || has(n, x, -LARGEST_FINITE) ? (double)best : (double)-INFINITY;
}

static double smallest(size_t n, const void *x) {
  real best = C(INFINITY);
  int nans = 0;
#pragma omp simd reduction(min : best) reduction(+ : nans)
  for (size_t i = 0; i < n; i++) {
    real v = AT(x, i);
    best = v < best ? v : best;
    nans += v != v;
  }
  if (nans > 0) return (double)NAN;
  return best < LARGEST_FINITE || has(n, x, LARGEST_FINITE) ? (double)best : (double)INFINITY;
}

static double sum_exp(size_t n, double shift, const void *x) {
  const real s = C(shift);
  double total = 0;
#pragma omp simd reduction(+ : total)
  for (size_t i = 0; i < n; i++) total += (double)our_exp(AT(x, i) - s);
  return total;
}

static double exp_shifted(size_t n, double shift, const void *x, void *ys) {
  const real s = C(shift);
  real *y = ys;
  double total = 0;
#pragma omp simd reduction(+ : total)
  for (size_t i = 0; i < n; i++) {
    real e = our_exp(AT(x, i) - s);
    y[i] = e;
    total += (double)e;
  }
  return total;
}

/* ---- side by side ------------------------------------------------------------------------------------------------ */

static void each_sum(size_t n, const void *x, double *result) {
  EACH result[i] += (double)AT(x, i);
}

/* Once NaN, always NaN. */
static void each_largest(size_t n, const void *x, double *result) {
  EACH {
    double v = (double)AT(x, i);
    result[i] = ((v > result[i]) | (v != v)) ? v : result[i];
  }
}

static void each_smallest(size_t n, const void *x, double *result) {
  EACH {
    double v = (double)AT(x, i);
    result[i] = ((v < result[i]) | (v != v)) ? v : result[i];
  }
}

static void each_sum_exp(size_t n, const double *shift, const void *x, double *result) {
  EACH result[i] += (double)exp(C((double)AT(x, i) - shift[i]));
}

static void each_product(size_t n, const double *y, const void *x, double *result) {
  EACH {
    double v = (double)AT(x, i);
    result[i] *= v == y[i] ? 1 : v;
  }
}

static void each_count(size_t n, const double *y, const void *x, double *result) {
  EACH result[i] += (double)AT(x, i) == y[i] ? 1 : 0;
}

/* ---- adjoints ---------------------------------------------------------------------------------------------------- */

#define BACKWARD(name, value)                                                                                     \
  static void name(size_t n, const double *y, const double *equal, const double *other, const void *xs, void *ds, \
                   bool accumulate) {                                                                             \
    real *d = ds;                                                                                                 \
    if (accumulate) {                                                                                             \
      EACH {                                                                                                      \
        double x = (double)AT(xs, i);                                                                             \
        d[i] += C(x == y[i] ? equal[i] : (value));                                                                \
      }                                                                                                           \
    } else {                                                                                                      \
      EACH {                                                                                                      \
        double x = (double)AT(xs, i);                                                                             \
        d[i] = C(x == y[i] ? equal[i] : (value));                                                                 \
      }                                                                                                           \
    }                                                                                                             \
  }

BACKWARD(extreme_backward, other[i])
BACKWARD(logsumexp_backward, other[i] * (double)exp(C(x - y[i])))
BACKWARD(product_backward, other[i] / x)

const bp_reduce_loops NAME(bp_reduce) = {
    .sum = sum,
    .sum_squares = sum_squares,
    .dot = dot,
    .product = product,
    .count = count,
    .largest = largest,
    .smallest = smallest,
    .sum_exp = sum_exp,
    .exp_shifted = exp_shifted,
    .each_sum = each_sum,
    .each_largest = each_largest,
    .each_smallest = each_smallest,
    .each_sum_exp = each_sum_exp,
    .each_product = each_product,
    .each_count = each_count,
    .extreme_backward = extreme_backward,
    .logsumexp_backward = logsumexp_backward,
    .product_backward = product_backward,
};
