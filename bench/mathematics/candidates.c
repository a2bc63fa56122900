/* One provider's functions for one dtype and SIMD level: PROVIDER is libm, libmvec or sleef, PROVIDER_<it> is defined,
 * BP_DTYPE_F32 is 0 or 1, BP_LEVEL names the level. */
#include "candidates.h"

#ifdef PROVIDER_libmvec
/* Without this attribute the loops below call the scalar functions. */
#define VECTORISED(name, accuracy)                          \
  __attribute__((simd("notinbranch"))) double name(double); \
  __attribute__((simd("notinbranch"))) float name##f(float);
MATHEMATICS(VECTORISED)
__attribute__((simd("notinbranch"))) double pow(double, double);
__attribute__((simd("notinbranch"))) float powf(float, float);
#endif

#include <math.h>
#include <string.h>

#define PASTE_(a, b, c, d, e) a##b##c##d##e
#define PASTE(a, b, c, d, e) PASTE_(a, b, c, d, e)
#if BP_DTYPE_F32
typedef float real;
#define DTYPE f32
#define LIBM(name) name##f
#else
typedef double real;
#define DTYPE f64
#define LIBM(name) name
#endif

#ifdef PROVIDER_sleef
#include <immintrin.h>
#include <sleef.h>

#ifdef __AVX512F__
enum { BYTES = 64 };
#define LANES_f64 d8
#define LANES_f32 f16
#define SUFFIX avx512f
#else
enum { BYTES = 32 };
#define LANES_f64 d4
#define LANES_f32 f8
#define SUFFIX avx2
#endif
#define LANES_OF(dtype) LANES_##dtype
#define LANES(dtype) LANES_OF(dtype)
#define SLEEF(name, accuracy) PASTE(Sleef_##name, LANES(DTYPE), _, accuracy, SUFFIX)
typedef real vector __attribute__((vector_size(BYTES)));
enum { COUNT = BYTES / sizeof(real) };

/* The last elements go through a vector of their own. */
#define EACH(value)                                                      \
  for (size_t i = 0; i < n; i += COUNT) {                                \
    const size_t bytes = (n - i < COUNT ? n - i : COUNT) * sizeof(real); \
    vector x = {0}, y = {0}, z;                                          \
    if (bytes == BYTES) {                                                \
      memcpy(&x, (const real *)xs + i, BYTES);                           \
      memcpy(&y, (const real *)ys + i, BYTES);                           \
      z = (value);                                                       \
      memcpy((real *)zs + i, &z, BYTES);                                 \
    } else {                                                             \
      memcpy(&x, (const real *)xs + i, bytes);                           \
      memcpy(&y, (const real *)ys + i, bytes);                           \
      z = (value);                                                       \
      memcpy((real *)zs + i, &z, bytes);                                 \
    }                                                                    \
  }
#define CALL(name, accuracy) SLEEF(name, accuracy)
#else
#define EACH(value)                                                  \
  _Pragma("omp simd") for (size_t i = 0; i < n; i++) {               \
    const real x = ((const real *)xs)[i], y = ((const real *)ys)[i]; \
    (void)y;                                                         \
    ((real *)zs)[i] = (value);                                       \
  }
#define CALL(name, accuracy) LIBM(name)
#endif

#define UNARY(name, accuracy)                                                   \
  static void name##_loop(size_t n, const void *xs, const void *ys, void *zs) { \
    EACH(CALL(name, accuracy)(x))                                               \
  }
MATHEMATICS(UNARY)

static void pow_loop(size_t n, const void *xs, const void *ys, void *zs) {
  EACH(CALL(pow, u10)(x, y))
}

static void sigmoid_loop(size_t n, const void *xs, const void *ys, void *zs) {
  EACH(1 / (1 + CALL(exp, u10)(-x)))
}

#define ENTRY(name, accuracy) .name##_ = name##_loop,
const candidates PASTE(PROVIDER, _, DTYPE, _, BP_LEVEL) = {
    MATHEMATICS(ENTRY).pow_ = pow_loop,
    .sigmoid_ = sigmoid_loop,
};
