/* The network as fast as we can write it by hand: the yardstick of every mode. limit_body.h holds the program; it is
 * written once and compiled for both dtypes here.
 *
 * Batch 1 is bound by the traffic of the weights: each pass over them is one vectorised loop, gradients are written
 * (never zeroed and added to), and descent puts the rank-1 update straight into the weights, last row first, since the
 * last rows are what the forward pass has left in the cache. A batch is bound by arithmetic: OpenBLAS multiplies (no
 * loop of ours is faster there), everything else is one vectorised pass, and descent is one product with
 * alpha = -rate and beta = 1 into the weights. What the layers of a batch give is kept transposed, units x batch, which
 * OpenBLAS computes 5 to 15 % faster than batch x units. No -ffast-math. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
/* From the compiler's vector library; declared before math.h, which declares the same function. */
__attribute__((simd("notinbranch"))) float expf(float);
#ifdef __AVX512F__
#pragma GCC target("prefer-vector-width=512")
#endif
#endif

#include <cblas.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "network.h"

/* exp in line, since a call of the vector library for doubles takes twice as long. v = k log(2) + r, |r| <= log(2)/2,
 * log(2) in two parts; the series of exp(r) to 1e-16; k goes into the exponent. Clamped, so never 0 or inf: here it
 * only feeds sums of which the rest is 1 or more. */
static inline double exp_inline(double v) {
  const double shift = 0x1.8p52; /* adding it rounds to an integer, which stands in the low bits */
  v = v > 708 ? 708 : v;
  v = v < -708 ? -708 : v;
  const double shifted = v * 0x1.71547652b82fep0 + shift, k = shifted - shift;
  const double r = v - k * 0x1.62e42fefa39efp-1 - k * 0x1.abc9e3b39803fp-56;
  double p = 1.0 / 479001600;
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1;
  p = p * r + 1;
  uint64_t bits;
  memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 1023) << 52;
  double power;
  memcpy(&power, &bits, sizeof power);
  return p * power;
}

#define REAL double
#define NAME(name) name##_f64
#define EXP exp_inline
#define LOG log
#define GEMM cblas_dgemm
#include "limit_body.h"
#undef REAL
#undef NAME
#undef GEMM
#undef EXP
#undef LOG

#define REAL float
#define NAME(name) name##_f32
#define EXP expf
#define LOG logf
#define GEMM cblas_sgemm
#include "limit_body.h"
