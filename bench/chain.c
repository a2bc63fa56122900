/* chain.h by hand: one vectorised loop for each operation, every result kept, the cotangent changed in place. The
 * vector library's sin and cos are within 4 ulp, as those of the library are. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
/* Declared before math.h, which declares the same functions. */
__attribute__((simd("notinbranch"))) double sin(double);
__attribute__((simd("notinbranch"))) double cos(double);
#ifdef __AVX512F__
#pragma GCC target("prefer-vector-width=512")
#endif
#endif

#include <math.h>

#include "chain.h"
#include "exp_inline.h"

/* Numbers: no loop over elements, nothing to vectorise. */
static void number_step(chain *c) {
  const double a = *c->a, b = *c->b;
  double *restrict y = c->y, at = *c->x;
  for (size_t k = 0; k < c->rounds; k++, y += 4) {
    y[0] = at * a;
    y[1] = y[0] + b;
    y[2] = sin(y[1]);
    y[3] = at = exp(y[2]);
  }
  double d = 1;
  for (size_t k = 0; k < c->rounds; k++) {
    y -= 4;
    d *= y[3];
    d *= cos(y[1]);
    d *= a;
  }
  *c->d = d;
}

static void multiply(size_t n, const double *restrict x, const double *restrict a, double *restrict y) {
#pragma omp simd
  for (size_t i = 0; i < n; i++) y[i] = x[i] * a[i];
}

static void add(size_t n, const double *restrict x, const double *restrict b, double *restrict y) {
#pragma omp simd
  for (size_t i = 0; i < n; i++) y[i] = x[i] + b[i];
}

static void sine(size_t n, const double *restrict x, double *restrict y) {
#pragma omp simd
  for (size_t i = 0; i < n; i++) y[i] = sin(x[i]);
}

static void exponential(size_t n, const double *restrict x, double *restrict y) {
#pragma omp simd
  for (size_t i = 0; i < n; i++) y[i] = exp_inline(x[i]);
}

/* d = d w, and d = d cos(x) */
static void scale(size_t n, const double *restrict w, double *restrict d) {
#pragma omp simd
  for (size_t i = 0; i < n; i++) d[i] *= w[i];
}

static void scale_by_cosine(size_t n, const double *restrict x, double *restrict d) {
#pragma omp simd
  for (size_t i = 0; i < n; i++) d[i] *= cos(x[i]);
}

static void vector_step(chain *c) {
  const size_t n = c->n;
  const double *at = c->x;
  double *y = c->y;
  for (size_t k = 0; k < c->rounds; k++, y += 4 * n) {
    multiply(n, at, c->a, y);
    add(n, y, c->b, y + n);
    sine(n, y + n, y + 2 * n);
    exponential(n, y + 2 * n, y + 3 * n);
    at = y + 3 * n;
  }
  for (size_t i = 0; i < n; i++) c->d[i] = 1;
  for (size_t k = 0; k < c->rounds; k++) {
    y -= 4 * n;
    scale(n, y + 3 * n, c->d);
    scale_by_cosine(n, y + n, c->d);
    scale(n, c->a, c->d);
  }
}

void chain_step(chain *c) {
  if (c->n == 1)
    number_step(c);
  else
    vector_step(c);
}
