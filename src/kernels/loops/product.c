/* Products of a matrix and one vector as plain loops at the speed of memory: at batch 1 they beat BLAS calls, whose
 * preparations cost more than the arithmetic. Several rows go together so that each element of the vector that is read
 * or written serves them all. Nothing is skipped where a factor is 0: 0 times NaN is NaN. */
#include "real.h"

/* The dot products of three rows, `distance` elements apart, with x. */
static void three_dots(size_t cols, const real *restrict a, size_t distance, const real *restrict x, real *dots) {
  const real *restrict b = a + distance, *restrict c = b + distance;
  real s0 = 0, s1 = 0, s2 = 0;
#pragma omp simd reduction(+ : s0, s1, s2)
  for (size_t j = 0; j < cols; j++) {
    s0 += a[j] * x[j];
    s1 += b[j] * x[j];
    s2 += c[j] * x[j];
  }
  dots[0] = s0, dots[1] = s1, dots[2] = s2;
}

static real one_dot(size_t cols, const real *restrict a, const real *restrict x) {
  real s = 0;
#pragma omp simd reduction(+ : s)
  for (size_t j = 0; j < cols; j++) s += a[j] * x[j];
  return s;
}

/* A row from each third of the matrix at a time: x is read once for three, and memory in three long streams, which the
 * processor fetches ahead better than more and shorter ones. */
static void gemv(size_t rows, size_t cols, const void *as, size_t stride, const void *x, void *ys, bool accumulate) {
  const real *a = as;
  real *y = ys;
  const size_t third = rows / 3;
  for (size_t i = 0; i < third; i++) {
    real dots[3];
    three_dots(cols, a + i * stride, third * stride, x, dots);
    for (size_t k = 0; k < 3; k++) {
      real *place = &y[k * third + i];
      *place = accumulate ? *place + dots[k] : dots[k];
    }
  }
  for (size_t i = 3 * third; i < rows; i++) {
    real s = one_dot(cols, a + i * stride, x);
    y[i] = accumulate ? y[i] + s : s;
  }
}

static void gemv_transposed(size_t rows, size_t cols, const void *as, size_t stride, const void *xs, void *ys,
                            bool accumulate) {
  const real *a = as, *x = xs;
  real *restrict y = ys;
  size_t i = 0;
  if (!accumulate)
    for (size_t j = 0; j < cols; j++) y[j] = 0;
  for (; i + 4 <= rows; i += 4) {
    const real *restrict a0 = a + i * stride, *restrict a1 = a0 + stride;
    const real *restrict a2 = a1 + stride, *restrict a3 = a2 + stride;
    const real x0 = x[i], x1 = x[i + 1], x2 = x[i + 2], x3 = x[i + 3];
#pragma omp simd
    for (size_t j = 0; j < cols; j++) y[j] += (a0[j] * x0 + a1[j] * x1) + (a2[j] * x2 + a3[j] * x3);
  }
  for (; i < rows; i++) {
    const real *restrict row = a + i * stride;
    const real factor = x[i];
#pragma omp simd
    for (size_t j = 0; j < cols; j++) y[j] += row[j] * factor;
  }
}

/* Three rows of A, `distance` elements apart, += alpha u v'; the elements of u are as many rows apart. */
static void add_three_rows(size_t cols, double alpha, const real *u, size_t rows, const real *restrict v,
                           real *restrict a, size_t distance) {
  real *restrict b = a + distance, *restrict c = b + distance;
  const real u0 = C(alpha) * u[0], u1 = C(alpha) * u[rows], u2 = C(alpha) * u[2 * rows];
#pragma omp simd
  for (size_t j = 0; j < cols; j++) {
    a[j] += u0 * v[j];
    b[j] += u1 * v[j];
    c[j] += u2 * v[j];
  }
}

/* Adding goes the way of gemv backwards: of a matrix larger than the cache it finds there what the forward has read last,
 * and leaves there what the next one begins with. */
static void add_outer(size_t rows, size_t cols, double alpha, const real *u, const real *restrict v, real *a,
                      size_t stride) {
  const size_t third = rows / 3;
  for (size_t i = rows; i-- > 3 * third;) {
    real *restrict row = a + i * stride;
    const real factor = C(alpha) * u[i];
#pragma omp simd
    for (size_t j = 0; j < cols; j++) row[j] += factor * v[j];
  }
  for (size_t i = third; i-- > 0;) add_three_rows(cols, alpha, u + i, third, v, a + i * stride, third * stride);
}

/* Writing goes row by row: several streams at a time are slower there. */
static void outer(size_t rows, size_t cols, double alpha, const void *us, const void *vs, void *as, size_t stride,
                  bool accumulate) {
  const real *u = us;
  const real *restrict v = vs;
  if (accumulate) {
    add_outer(rows, cols, alpha, u, v, as, stride);
    return;
  }
  for (size_t i = 0; i < rows; i++) {
    real *restrict row = (real *)as + i * stride;
    const real factor = C(alpha) * u[i];
#pragma omp simd
    for (size_t j = 0; j < cols; j++) row[j] = factor * v[j];
  }
}

/* In square blocks, so that both sides stay in the cache. */
static void transpose(size_t rows, size_t cols, const void *as, size_t a_stride, void *ds, size_t d_stride,
                      bool accumulate) {
  enum { BLOCK = 16 };
  const real *a = as;
  real *d = ds;
  for (size_t i0 = 0; i0 < rows; i0 += BLOCK)
    for (size_t j0 = 0; j0 < cols; j0 += BLOCK) {
      size_t i1 = i0 + BLOCK < rows ? i0 + BLOCK : rows, j1 = j0 + BLOCK < cols ? j0 + BLOCK : cols;
      for (size_t j = j0; j < j1; j++)
        for (size_t i = i0; i < i1; i++) {
          real *place = &d[j * d_stride + i];
          *place = accumulate ? *place + a[i * a_stride + j] : a[i * a_stride + j];
        }
    }
}

const bp_product_loops NAME(bp_product) = {
    .gemv = gemv,
    .gemv_transposed = gemv_transposed,
    .outer = outer,
    .transpose = transpose,
};
