/* Functions of our own, where glibc's vector library is further than 3 units in the last place from the truth, or so
 * near to that bound that what is built on it would be beyond: exp and expm1 (on which sigmoid, silu, softplus, elu and
 * softmax rest), log in f32 and that of softplus, sin, cos and tan. The others are the vector library's or libm's.
 * `make bench-math` measures all; spec/accuracy_spec.lua holds the bound.
 *
 * All are free of branches and tables, so that loops over them vectorise, and none relies on a fused multiplication and
 * addition. The methods are the textbook's (J.-M. Muller, Elementary Functions, 3rd edition, 2016): an additive
 * reduction with the constant in parts, of which the leading ones have so few bits that their products with an integer
 * are exact (W. Cody, W. Waite, 1980), then the Taylor series, cut where it no longer counts, or, where that saves a
 * term, the polynomial of least relative error (E. Remez, 1934), whose coefficients were computed for this file. */
#ifndef BP_KERNELS_MATHEMATICS_H
#define BP_KERNELS_MATHEMATICS_H

#include <stdint.h>

#include "real.h"

/* ROUNDER: adding it rounds to an integer, which then stands in the low bits. LOG2_1 and LOG2_2 are log 2 in two parts:
 * the product of the first with the exponent of a number is exact. */
#if BP_DTYPE_F32
typedef uint32_t bits;
enum { MANTISSA = 23, BIAS = 127 };
#define ROUNDER 0x1.8p23F
#define LOG2_1 C(0x1.62ep-1)
#define LOG2_2 C(0x1.0bfbe8p-15)
#else
typedef uint64_t bits;
enum { MANTISSA = 52, BIAS = 1023 };
#define ROUNDER 0x1.8p52
#define LOG2_1 C(0x1.62e42feep-1)
#define LOG2_2 C(0x1.a39ef35793c76p-33)
#endif

static inline bits bits_of(real x) {
  union {
    real value;
    bits pattern;
  } u = {.value = x};
  return u.pattern;
}

static inline real real_of(bits pattern) {
  union {
    bits pattern;
    real value;
  } u = {.pattern = pattern};
  return u.value;
}

/* ---- exp --------------------------------------------------------------------------------------------------------- */

/* x - less = k log 2 + r, `less` being small beside log 2 and |r| hardly more than log(2) / 2: k, and e^r - 1. */
typedef struct exponential {
  bits k;
  real rest;
} exponential;

/* The even and the odd terms apart, so that no operation waits long for another: in f32 of the series, in f64 of the
 * polynomial that is best for the relative error of e^r, 3.6e-18. */
static inline exponential reduce_exp(real x, real less) {
#if BP_DTYPE_F32
  const real shifted = x * C(0x1.715476p0) + ROUNDER, k = shifted - ROUNDER;
  const real r = x - k * LOG2_1 - k * LOG2_2 - less, z = r * r;
  const real even = C(0.5) + z * (C(1.0 / 24) + z * C(1.0 / 720));
  const real odd = C(1.0 / 6) + z * (C(1.0 / 120) + z * C(1.0 / 5040));
#else
  const real shifted = x * C(0x1.71547652b82fep0) + ROUNDER, k = shifted - ROUNDER;
  const real r = x - k * LOG2_1 - k * LOG2_2 - less, z = r * r;
  const real even = C(0x1.000000000000ap-1) +
                    z * (C(0x1.555555555087cp-5) + z * (C(0x1.6c16c1842a126p-10) +
                                                        z * (C(0x1.a0199a0c66195p-16) + z * C(0x1.28ad72cd4ab37p-22))));
  const real odd = C(0x1.55555555554fap-3) +
                   z * (C(0x1.1111111127be5p-7) +
                        z * (C(0x1.a01a012a57b5ep-13) + z * (C(0x1.71df255235e0bp-19) + z * C(0x1.ad7f6f0e24922p-26))));
#endif
  return (exponential){bits_of(shifted) - bits_of(ROUNDER), r + z * (even + r * odd)};
}

static inline real power_of_two(bits k) {
  return real_of((k + BIAS) << MANTISSA);
}

/* Beyond these e^x rounds to 0 and to inf. */
#define LOWEST (BP_DTYPE_F32 ? C(-105) : C(-746))
#define HIGHEST (BP_DTYPE_F32 ? C(89) : C(710))

/* By 2^k in two steps, since 2^k itself may be beyond the numbers where the result is not. A NaN passes the bounds. */
static inline real our_exp(real x) {
  x = SELECT(x > HIGHEST, HIGHEST, SELECT(x < LOWEST, LOWEST, x));
  const exponential e = reduce_exp(x, 0);
  const bits both = e.k + 2 * BIAS, half = both >> 1;
  return (1 + e.rest) * real_of(half << MANTISSA) * real_of((both - half) << MANTISSA);
}

/* e^(x - less) = 2^k (1 + rest) for x <= 0; over SMALL it is a normal number where it is none itself. x is held so low
 * that a multiple of it, too, is 0 there. */
#define SMALL C(0x1p-64)
static inline exponential reduce_below(real x, real less) {
  const real lowest = BP_DTYPE_F32 ? C(-115) : C(-752);
  return reduce_exp(SELECT(x < lowest, lowest, x), less);
}

static inline real exp_over_small(real x, real less) {
  const exponential e = reduce_below(x, less);
  return (1 + e.rest) * power_of_two(e.k + 64);
}

static inline real exp_below(real x) {
  return exp_over_small(x, 0) * SMALL;
}

/* 2 (2^(k-1) (e^r - 1) + (2^(k-1) - 1/2)), of which the second part is exact where it counts. */
static inline real our_expm1(real x) {
  const real enough = BP_DTYPE_F32 ? C(-30) : C(-60); /* the result is -1 */
  const exponential e = reduce_exp(SELECT(x > HIGHEST, HIGHEST, SELECT(x < enough, enough, x)), 0);
  const real power = power_of_two(e.k - 1);
  return SELECT(fabs(x) < C(0x1p-60), x, 2 * (power * e.rest + (power - C(0.5)))); /* -0 too */
}

/* 1 / (1 + e^-x), so that nothing overflows where the result is a number. */
static inline real sigmoid(real x) {
  const real e = exp_below(-fabs(x));
  return SELECT(x < 0, e, C(1)) / (1 + e);
}

/* x sigmoid(x), where x e^x is a normal number though e^x is not. x + x rest has one rounding less than x (1 + rest). */
static inline real silu(real x) {
  const exponential e = reduce_below(-fabs(x), 0);
  const real power = power_of_two(e.k + 64);
  const real product = SELECT(x < 0, (x + x * e.rest) * power * SMALL, x);
  return SELECT(x < -800, C(-0.0), product / (1 + (1 + e.rest) * power * SMALL));
}

/* ---- log --------------------------------------------------------------------------------------------------------- */

/* log(2^k (1 + f)) for 1 + f from sqrt(1/2) to sqrt(2): log(1 + f) = f - f^2/2 + s (f^2/2 + R), where s = f / (2 + f)
 * and s R is the rest of the series 2 (s + s^3/3 + s^5/5 + ...). */
static inline real log_of_parts(real k, real f) {
  const real s = f / (2 + f), z = s * s, half = C(0.5) * f * f;
#if BP_DTYPE_F32
  const real rest = z * (C(2.0 / 3) + z * (C(2.0 / 5) + z * (C(2.0 / 7) + z * C(2.0 / 9))));
#else
  const real y = z * z;
  const real odd = C(2.0 / 3) + y * (C(2.0 / 7) + y * (C(2.0 / 11) + y * (C(2.0 / 15) + y * C(2.0 / 19))));
  const real even = C(2.0 / 5) + y * (C(2.0 / 9) + y * (C(2.0 / 13) + y * (C(2.0 / 17) + y * C(2.0 / 21))));
  const real rest = z * (odd + z * even);
#endif
  return k * LOG2_1 + (f - (half - (s * (half + rest) + k * LOG2_2)));
}

/* log(1 + e^x). The vector library's log1p is near enough, but not of what is 2 units off itself. */
static inline real softplus(real x) {
  const real e = exp_below(-fabs(x));
  const bool large = e > C(0.41421356237309505);
  return SELECT(x < 0, C(0), x) + log_of_parts(SELECT(large, C(1), C(0)), SELECT(large, C(0.5) * (e - 1), e));
}

#if BP_DTYPE_F32
static inline real our_log(real x) {
  const bool small = x < C(0x1p-126);
  const bits pattern = bits_of(SELECT(small, x * C(0x1p24), x)), low = bits_of(C(0x1.6a09e6p-1));
  const bits up = pattern - low;
  const real k = (real)((int32_t)up >> MANTISSA) - SELECT(small, C(24), C(0));
  const real f = real_of(pattern - (up & ~(((bits)1 << MANTISSA) - 1))) - 1;
  const real result = log_of_parts(k, f);
  const real beyond = SELECT(x == 0, C(-INFINITY), SELECT(x < 0, C(NAN), x)); /* inf and NaN as they are */
  return SELECT(x > 0 && x < C(INFINITY), result, beyond);
}
#else
#define our_log log
#endif

/* ---- sin, cos, tan ----------------------------------------------------------------------------------------------- */

/* Up to here by the functions below, beyond by libm: the integer k must have few enough bits. */
#define CIRCULAR_NEAR C(0x1p17)

/* pi/2 in parts, for both dtypes in double: the products of the first two with k are exact. */
#define QUARTER_1 0x1.921fb5444p0
#define QUARTER_2 0x1.68c234c4cp-39
#define QUARTER_3 0x1.98a2e03707345p-77

/* What is left of x after k quarters of a turn: x = k pi/2 + high + low. */
typedef struct angle {
  double high, low;
} angle;

static inline angle angle_left(double x, double k) {
  const double first = x - k * QUARTER_1, second = k * QUARTER_2, high = first - second;
  return (angle){high, ((first - high) - second) - k * QUARTER_3};
}

typedef struct circular {
  double sin, cos;
} circular;

/* From sine and cosine of an angle of at most pi/4 those of x. */
static inline circular our_circular(double x) {
  const double rounder = 0x1.8p52, shifted = x * 0x1.45f306dc9c883p-1 + rounder, k = shifted - rounder;
  const angle r = angle_left(x, k);
  const double high = r.high, low = r.low, z = high * high;
  double s = 1.0 / 355687428096000, c = 1.0 / 20922789888000;
  s = 1.0 / 1307674368000 - s * z;
  c = 1.0 / 87178291200 - c * z;
  s = 1.0 / 6227020800 - s * z;
  c = 1.0 / 479001600 - c * z;
  s = 1.0 / 39916800 - s * z;
  c = 1.0 / 3628800 - c * z;
  s = 1.0 / 362880 - s * z;
  c = 1.0 / 40320 - c * z;
  s = 1.0 / 5040 - s * z;
  c = 1.0 / 720 - c * z;
  s = 1.0 / 120 - s * z;
  c = 1.0 / 24 - c * z;
  s = 1.0 / 6 - s * z;
  const double half = 0.5 * z, leading = 1 - half;
  const double sine = high + (low * leading - high * z * s);
  const double cosine = leading + ((1 - leading) - half + (z * z * c - high * low));
  union {
    double value;
    uint64_t pattern;
  } quarter = {.value = shifted};
  const bool odd = (quarter.pattern & 1) != 0, turned = (quarter.pattern & 2) != 0;
  const double first_sin = odd ? cosine : sine, first_cos = odd ? -sine : cosine;
  return (circular){turned ? -first_sin : first_sin, turned ? -first_cos : first_cos};
}

#define far_sin(x) sin(x)
#define far_cos(x) cos(x)
#define far_tan(x) tan(x)

#if BP_DTYPE_F32
#define near_sin(x) sin(x)
#define near_cos(x) cos(x)
#else
/* The sine of x - k quarters of a turn, which is from -pi/2 to pi/2, so that one polynomial serves: r - r z s(z),
 * z = r^2, where s is the best one of its degree for the sine's relative error, which is 2.8e-19; behind its first term
 * the even and the odd ones are apart. Where r is small, it is exact but for its last subtraction, and where not, what
 * it loses by rounding counts for little. Negated if `turns` is odd. */
static inline double sine_beyond(double x, double k, uint64_t turns) {
  const double r = ((x - k * QUARTER_1) - k * QUARTER_2) - k * QUARTER_3;
  const double z = r * r, y = z * z;
  const double odd = 0x1.11111111110c1p-7 +
                     y * (0x1.71de3a52882eep-19 + y * (0x1.6123cb33ac5a7p-33 + y * 0x1.8829e35dd249cp-49));
  const double even = 0x1.a01a01a0148ccp-13 + y * (0x1.ae6454cb846d9p-26 + y * 0x1.ae43202dcd7fep-41);
  const double s = 0x1.5555555555555p-3 - z * (odd - z * even);
  return real_of(bits_of(r - r * z * s) ^ turns << 63);
}

static inline real near_sin(real x) {
  const double shifted = x * 0x1.45f306dc9c883p-2 + ROUNDER, k = shifted - ROUNDER;
  return SELECT(x == 0, x, sine_beyond(x, 2 * k, bits_of(shifted))); /* -0 too */
}

static inline real near_cos(real x) {
  const double shifted = (x * 0x1.45f306dc9c883p-2 - 0.5) + ROUNDER, k = shifted - ROUNDER;
  return sine_beyond(x, 2 * k + 1, bits_of(shifted) + 1);
}
#endif

static inline real near_tan(real x) {
  const circular c = our_circular((double)x);
  return SELECT(fabs(x) < C(0x1p-30), x, C(c.sin / c.cos));
}

/* The vector library's function in double, where that in float is more than 3 units off. */
#define WIDE(f, x) C(f((double)(x)))

/* ---- the normal distribution ------------------------------------------------------------------------------------- */

/* The leading half of the digits: a product of two such numbers is exact. */
static inline real leading_half(real x) {
  return real_of(bits_of(x) & ~(((bits)1 << (MANTISSA + 2) / 2) - 1));
}

/* e^(-x^2 / 2) over SMALL; x^2 in two parts, since e^x multiplies the relative error of x by x. */
static inline real bell_over_small(real x) {
  const real high = leading_half(x);
  return exp_over_small(C(-0.5) * high * high, C(0.5) * (x - high) * (x + high));
}

/* Twice the distribution function, erfc(-x / sqrt(2)): most - less. What rounding the argument loses is put back by
 * the slope, since erfc multiplies it by up to 1,400. `bell` is e^(-x^2 / 2). In double, as an f32's erfc alone is 2.4
 * units off. */
typedef struct normal {
  double most, less;
} normal;

static inline normal twice_normal(real x, real bell) {
  const real c = C(0x1.6a09e667f3bcdp-1); /* sqrt(1/2) and, below, its parts: the second has the digits beyond c's */
  const real c_high = BP_DTYPE_F32 ? C(0x1.6ap-1) : C(0x1.6a09e6p-1);
  const real c_low = BP_DTYPE_F32 ? C(0x1.3cccfe7799211p-14) : C(0x1.9fcef32422cbfp-27), x_high = leading_half(x);
  const real t = -x * c, lost = -(x_high * c_high + t + x_high * c_low + (x - x_high) * c);
  return (normal){(double)erfc(t), (double)(C(1.12837916709551257390) * bell * lost)};
}

#define ROOT C(0.39894228040143267794) /* 1 / sqrt(2 pi) */

/* x P(x), P the distribution function. */
static inline real near_gelu(real x) {
  const normal n = twice_normal(x, bell_over_small(x) * SMALL);
  const double half = 0.5 * (double)x;
  return C(half * n.most - half * n.less); /* one rounding less than half (most - less) where products are fused */
}

static inline real near_gelu_slope(real x) {
  const real bell = bell_over_small(x) * SMALL;
  const normal n = twice_normal(x, bell);
  return C(0.5 * (n.most - n.less)) + x * ROOT * bell;
}

/* Below -GELU_NEAR, where P(x) is less than a normal number before x P(x) is, by the asymptotic series (M. Abramowitz,
 * I. Stegun, 1964, 26.2.12). */
#define GELU_NEAR (BP_DTYPE_F32 ? C(12) : C(20))

static inline real far_gelu(real x) {
  const real held = SELECT(fabs(x) > 40, C(40), x), w = 1 / (held * held), part = ROOT * w;
#if BP_DTYPE_F32
  const real series = ROOT - part * (1 - w * (3 - w * (15 - w * 105)));
#else
  const real last = 105 - w * (945 - w * (10395 - w * (135135 - w * (2027025 - w * 34459425))));
  const real series = ROOT - part * (1 - w * (3 - w * (15 - w * last)));
#endif
  return SELECT(x < -GELU_NEAR, -(bell_over_small(held) * series) * SMALL, SELECT(x > 40, x, near_gelu(held)));
}

static inline real far_gelu_slope(real x) {
  return SELECT(x < -40, C(0), SELECT(x > 40, C(1), near_gelu_slope(SELECT(fabs(x) > 40, C(40), x))));
}

static inline real silu_slope(real x) {
  const real s = sigmoid(x);
  return SELECT(fabs(x) > 800, SELECT(x > 0, C(1), C(0)), s * (1 + x * (1 - s)));
}

#endif
