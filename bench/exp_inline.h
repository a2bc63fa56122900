/* exp of doubles in line, since a call of the vector library takes twice as long. v = k log(2) + r, |r| <= log(2)/2,
 * log(2) in two parts; the series of exp(r) to 1e-16; k goes into the exponent. Clamped, so never 0 or inf: here it
 * only feeds what is between. */
#ifndef BENCH_EXP_INLINE_H
#define BENCH_EXP_INLINE_H

#include <stdint.h>
#include <string.h>

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

#endif
