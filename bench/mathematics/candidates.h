/* The functions under comparison, and who offers them: glibc's scalar libm, its vector library libmvec, SLEEF, and the
 * module's own loops. candidates.c is compiled once for each of the first three, dtype and SIMD level. */
#ifndef BENCH_CANDIDATES_H
#define BENCH_CANDIDATES_H

#include <stddef.h>

/* z = f(x), or f(x, y). */
typedef void candidate(size_t n, const void *x, const void *y, void *z);

/* X(name, accuracy that SLEEF's function bears in its name) */
#define MATHEMATICS(X) \
  X(exp, u10)          \
  X(expm1, u10)        \
  X(log, u10)          \
  X(log1p, u10)        \
  X(sin, u10)          \
  X(cos, u10)          \
  X(tan, u10)          \
  X(asin, u10)         \
  X(acos, u10)         \
  X(atan, u10)         \
  X(sinh, u10)         \
  X(cosh, u10)         \
  X(tanh, u10)         \
  X(erfc, u15)

typedef struct candidates {
#define MEMBER(name, accuracy) candidate *name##_;
  MATHEMATICS(MEMBER)
#undef MEMBER
  candidate *pow_, *sigmoid_;
} candidates;

#define LEVELS_OF(X, provider, dtype) X(provider, dtype, avx2) X(provider, dtype, avx512)
#define ALL_CANDIDATES(X) \
  LEVELS_OF(X, libm, f64) \
  LEVELS_OF(X, libm, f32) \
  LEVELS_OF(X, libmvec, f64) LEVELS_OF(X, libmvec, f32) LEVELS_OF(X, sleef, f64) LEVELS_OF(X, sleef, f32)

#define DECLARE(provider, dtype, level) extern const candidates provider##_##dtype##_##level;
ALL_CANDIDATES(DECLARE)
#undef DECLARE

#endif
