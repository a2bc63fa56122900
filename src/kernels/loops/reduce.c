/* Reducing loops: to one double. f32 elements are accumulated in f64. */
#include "mathematics.h"

#define AT(run, i) (((const real *)(run))[i])

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

static double product(size_t n, const void *x) {
  double total = 1;
#pragma omp simd reduction(* : total)
  for (size_t i = 0; i < n; i++) total *= (double)AT(x, i);
  return total;
}

/* A NaN loses every comparison, so it is looked for beside the extreme. */
static double largest(size_t n, const void *x) {
  real best = C(-INFINITY);
  int nans = 0;
#pragma omp simd reduction(max : best) reduction(+ : nans)
  for (size_t i = 0; i < n; i++) {
    real v = AT(x, i);
    best = v > best ? v : best;
    nans += v != v;
  }
  return nans > 0 ? (double)NAN : (double)best;
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
  return nans > 0 ? (double)NAN : (double)best;
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

const bp_reduce_loops NAME(bp_reduce) = {
    .sum = sum,
    .sum_squares = sum_squares,
    .dot = dot,
    .product = product,
    .largest = largest,
    .smallest = smallest,
    .sum_exp = sum_exp,
    .exp_shifted = exp_shifted,
};
