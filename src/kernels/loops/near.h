/* Whether no element of a run is far: NaN and inf are. For functions with a fast way for what is near, which look at each
 * run before it; on short runs a sum over the lanes would cost more than the looking. */
#ifndef BP_KERNELS_NEAR_H
#define BP_KERNELS_NEAR_H

#include "rest.h"

#if defined(__AVX512F__)

#if BP_DTYPE_F32
#define ARE_FAR(which, x, reach) _mm512_mask_cmp_ps_mask(which, _mm512_abs_ps(x), reach, _CMP_NLE_UQ)
#else
#define ARE_FAR(which, x, reach) _mm512_mask_cmp_pd_mask(which, _mm512_abs_pd(x), reach, _CMP_NLE_UQ)
#endif

static bool all_near(size_t n, const real *x, real reach) {
  const lanes rest = (lanes)((1U << (n & (LANES - 1))) - 1);
  lanes far = 0;
  for (; n >= LANES; n -= LANES, x += LANES) far |= ARE_FAR((lanes)-1, OF_512(loadu)(x), OF_512(set1)(reach));
  far |= ARE_FAR(rest, OF_512(maskz_loadu)(rest, x), OF_512(set1)(reach));
  return far == 0;
}

#elif defined(__AVX2__)

static bool all_near(size_t n, const real *x, real reach) {
  const __m256i rest = lanes_below(n & (LANES - 1));
  const __typeof__(OF_256(setzero)()) sign = OF_256(set1)(C(-0.0)), most = OF_256(set1)(reach);
  __typeof__(OF_256(setzero)()) far = OF_256(setzero)();
  for (; n >= LANES; n -= LANES, x += LANES) {
    const __typeof__(far) size = OF_256(andnot)(sign, OF_256(loadu)(x));
    far = OF_256(or)(far, OF_256(cmp)(size, most, _CMP_NLE_UQ));
  }
  far = OF_256(or)(far, OF_256(cmp)(OF_256(andnot)(sign, OF_256(maskload)(x, rest)), most, _CMP_NLE_UQ));
  return OF_256(movemask)(far) == 0;
}

#else

static bool all_near(size_t n, const real *x, real reach) {
  size_t count = 0;
#pragma omp simd reduction(+ : count)
  for (size_t i = 0; i < n; i++) count += fabs(x[i]) <= reach;
  return count == n;
}

#endif

#endif
