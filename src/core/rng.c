/* The generator and the distributions; see rng.h. No function of libm is called here but sqrt and frexp, which are
 * exact everywhere. */
#include "rng.h"

#include <math.h>

static uint64_t rotate_left(uint64_t x, int k) {
  return (x << k) | (x >> (64 - k));
}

static uint64_t next(bp_rng *rng) {
  uint64_t *s = rng->state;
  uint64_t result = rotate_left(s[1] * 5, 7) * 9;
  uint64_t shifted = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= shifted;
  s[3] = rotate_left(s[3], 45);
  return result;
}

void bp_rng_seed(bp_rng *rng, uint64_t seed) {
  for (int i = 0; i < 4; i++) {
    seed += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = seed;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    rng->state[i] = z ^ (z >> 31);
  }
  rng->spare = 0;
  rng->has_spare = false;
}

double bp_rng_uniform(bp_rng *rng) {
  return (double)(next(rng) >> 11) * 0x1p-53;
}

uint64_t bp_rng_below(bp_rng *rng, uint64_t limit) {
  /* Numbers below 2^64 mod limit would make the small results more likely: draw again. */
  uint64_t unfair = (0 - limit) % limit;
  uint64_t drawn;
  do drawn = next(rng);
  while (drawn < unfair);
  return drawn % limit;
}

/* The natural logarithm of x in (0, 1]: with x = m 2^e and m in [sqrt(1/2), sqrt(2)), log x = e log 2 + 2 atanh(t),
 * t = (m - 1) / (m + 1), |t| < 0.172, by the series of atanh. libm's own differs in the last bit between systems. */
static double logarithm(double x) {
  int exponent;
  double m = frexp(x, &exponent); /* exact */
  if (m < 0.70710678118654752) {
    m *= 2;
    exponent--;
  }
  double t = (m - 1) / (m + 1), square = t * t, sum = 0;
  for (int k = 23; k >= 1; k -= 2) sum = sum * square + 1.0 / k;
  return exponent * 0.69314718055994531 + 2 * t * sum;
}

/* The polar method of G. Marsaglia (1964). */
double bp_rng_normal(bp_rng *rng) {
  if (rng->has_spare) {
    rng->has_spare = false;
    return rng->spare;
  }
  double u, v, s;
  do {
    u = 2 * bp_rng_uniform(rng) - 1;
    v = 2 * bp_rng_uniform(rng) - 1;
    s = u * u + v * v;
  } while (s >= 1 || s <= 0);
  double scale = sqrt(-2 * logarithm(s) / s);
  rng->spare = v * scale;
  rng->has_spare = true;
  return u * scale;
}
