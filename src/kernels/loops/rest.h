/* The last elements of a run, fewer than a vector: brought into a whole one and back, by masks where the processor has
 * them. So they cost one vector, and get its accuracy. */
#ifndef BP_KERNELS_REST_H
#define BP_KERNELS_REST_H

#include "real.h"

#include <string.h>

#ifdef __AVX2__
#include <immintrin.h>
#endif

/* The elements of a vector. */
#if defined(__AVX512F__)
enum { LANES = 64 / sizeof(real) };
#elif defined(__AVX2__)
enum { LANES = 32 / sizeof(real) };
#else
enum { LANES = 16 / sizeof(real) };
#endif

#if defined(__AVX512F__)

#if BP_DTYPE_F32
#define OF_512(name) _mm512_##name##_ps
typedef __mmask16 lanes;
#else
#define OF_512(name) _mm512_##name##_pd
typedef __mmask8 lanes;
#endif

/* to[0 .. n - 1] are the elements at `from`, the others `fill`. */
static inline void load_rest(size_t n, const real *from, real *to, real fill) {
  OF_512(storeu)(to, OF_512(mask_loadu)(OF_512(set1)(fill), (lanes)((1U << n) - 1), from));
}

static inline void store_rest(size_t n, const real *from, real *to) {
  OF_512(mask_storeu)(to, (lanes)((1U << n) - 1), OF_512(loadu)(from));
}

#elif defined(__AVX2__)

#if BP_DTYPE_F32
#define OF_256(name) _mm256_##name##_ps
#define AS_256(mask) _mm256_castsi256_ps(mask)
static inline __m256i lanes_below(size_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#else
#define OF_256(name) _mm256_##name##_pd
#define AS_256(mask) _mm256_castsi256_pd(mask)
static inline __m256i lanes_below(size_t n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x((long long)n), _mm256_setr_epi64x(0, 1, 2, 3));
}
#endif

static inline void load_rest(size_t n, const real *from, real *to, real fill) {
  const __m256i mask = lanes_below(n);
  OF_256(storeu)(to, OF_256(blendv)(OF_256(set1)(fill), OF_256(maskload)(from, mask), AS_256(mask)));
}

static inline void store_rest(size_t n, const real *from, real *to) {
  OF_256(maskstore)(to, lanes_below(n), OF_256(loadu)(from));
}

#else

static inline void load_rest(size_t n, const real *from, real *to, real fill) {
  for (size_t k = 0; k < LANES; k++) to[k] = fill;
  memcpy(to, from, n * sizeof(real));
}

static inline void store_rest(size_t n, const real *from, real *to) {
  memcpy(to, from, n * sizeof(real));
}

#endif

#endif
