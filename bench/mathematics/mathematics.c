/* Speed and accuracy of the element-wise mathematics of several providers: see candidates.h. Prints for each function,
 * dtype, provider and level the nanoseconds per element on 10, 100, 1,000 and 100,000 elements; the largest error in
 * units in the last place against long double, and where it is; and how many results that must come out exactly (inf,
 * NaN, 0 with its sign) did not, with the first of them.
 *
 *   mathematics [POINTS [NAME...]]    random arguments per function (default 200000), only the functions named
 *
 * Arguments: a third has random bits (all exponents alike), a third is uniform over what matters of the function's
 * domain, a third lies close to zero or to the interval's ends; and a list of special values. */
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../src/kernels/loops.h"
#include "candidates.h"

enum { TIMED = 100000 };

typedef struct function {
  const char *name;
  long double (*truth)(long double x, long double y);
  double low, high; /* the interval that matters */
  double speed[2];  /* arguments for timing */
  ptrdiff_t theirs; /* place in candidates, or -1 */
  ptrdiff_t ours;   /* place of the loop in bp_map_loops, or -1 */
  bool binary;
} function;

#define TRUTH(name)                                               \
  static long double name##_truth(long double x, long double y) { \
    return (void)y, name##l(x);                                   \
  }
#define TRUTH_OF(name, accuracy) TRUTH(name)
MATHEMATICS(TRUTH_OF)

static long double pow_truth(long double x, long double y) {
  return powl(x, y);
}
static long double sigmoid_truth(long double x, long double y) {
  return (void)y, 1 / (1 + expl(-x));
}
static long double softplus_truth(long double x, long double y) {
  return (void)y, isnan(x) ? x : (x < 0 ? 0 : x) + log1pl(expl(-fabsl(x)));
}
static long double silu_truth(long double x, long double y) {
  return (void)y, x == -INFINITY ? -0.0L : x / (1 + expl(-x));
}
static long double elu_truth(long double x, long double y) {
  return (void)y, x > 0 ? x : expm1l(x);
}
static long double gelu_truth(long double x, long double y) {
  return (void)y, x == -INFINITY ? -0.0L : x * erfcl(-x * 0.70710678118654752440084436210484903928L) / 2;
}

#define BOTH(name) offsetof(candidates, name##_), offsetof(bp_map_loops, name##_)
static const function functions[] = {
    {"exp", exp_truth, -750, 750, {-5, 5}, BOTH(exp), false},
    {"expm1", expm1_truth, -50, 750, {-5, 5}, BOTH(expm1), false},
    {"log", log_truth, 0, 4, {0.1, 10}, BOTH(log), false},
    {"log1p", log1p_truth, -1, 4, {-0.5, 10}, BOTH(log1p), false},
    {"sin", sin_truth, -131072, 131072, {-5, 5}, BOTH(sin), false},
    {"cos", cos_truth, -131072, 131072, {-5, 5}, BOTH(cos), false},
    {"tan", tan_truth, -10, 10, {-5, 5}, BOTH(tan), false},
    {"asin", asin_truth, -1, 1, {-1, 1}, BOTH(asin), false},
    {"acos", acos_truth, -1, 1, {-1, 1}, BOTH(acos), false},
    {"atan", atan_truth, -10, 10, {-5, 5}, BOTH(atan), false},
    {"sinh", sinh_truth, -720, 720, {-5, 5}, BOTH(sinh), false},
    {"cosh", cosh_truth, -720, 720, {-5, 5}, BOTH(cosh), false},
    {"tanh", tanh_truth, -25, 25, {-5, 5}, BOTH(tanh), false},
    {"erfc", erfc_truth, -6, 28, {-5, 5}, offsetof(candidates, erfc_), -1, false},
    {"pow", pow_truth, 0, 20, {0.1, 5}, BOTH(pow), true},
    {"sigmoid", sigmoid_truth, -750, 50, {-5, 5}, BOTH(sigmoid), false},
    {"softplus", softplus_truth, -750, 50, {-5, 5}, -1, offsetof(bp_map_loops, softplus_), false},
    {"silu", silu_truth, -750, 50, {-5, 5}, -1, offsetof(bp_map_loops, silu_), false},
    {"elu", elu_truth, -50, 10, {-5, 5}, -1, offsetof(bp_map_loops, elu_), false},
    {"gelu", gelu_truth, -40, 10, {-5, 5}, -1, offsetof(bp_map_loops, gelu_), false},
};

/* ---- providers --------------------------------------------------------------------------------------------------- */

typedef struct provider {
  const char *name, *level;
  bool f32;
  const candidates *theirs;
  const bp_map_loops *ours;
} provider;

#define OUR_LOOPS(dtype, level) extern const bp_map_loops bp_map_##dtype##_##level;
OUR_LOOPS(f64, base)
OUR_LOOPS(f32, base)
OUR_LOOPS(f64, avx2)
OUR_LOOPS(f32, avx2)
OUR_LOOPS(f64, avx512)
OUR_LOOPS(f32, avx512)

static const provider providers[] = {
#define IS_F32_f64 false
#define IS_F32_f32 true
#define THEIRS(provider, dtype, level) {#provider, #level, IS_F32_##dtype, &provider##_##dtype##_##level, NULL},
#define OURS(dtype, level) {"ours", #level, IS_F32_##dtype, NULL, &bp_map_##dtype##_##level},
    ALL_CANDIDATES(THEIRS) /* and the module's */
    OURS(f64, base) OURS(f32, base) OURS(f64, avx2) OURS(f32, avx2) OURS(f64, avx512) OURS(f32, avx512)};

static bool offers(const provider *p, const function *f) {
  return (p->ours != NULL ? f->ours : f->theirs) >= 0;
}

static void call(const provider *p, const function *f, size_t n, const void *x, const void *y, void *z) {
  static const double parameters[2] = {1, 0};
  if (p->theirs != NULL)
    (*(candidate *const *)(const void *)((const char *)p->theirs + f->theirs))(n, x, y, z);
  else if (f->binary)
    ((const bp_binary *)(const void *)((const char *)p->ours + f->ours))->forward(n, x, 1, y, 1, z);
  else
    ((const bp_unary *)(const void *)((const char *)p->ours + f->ours))->forward(n, x, z, parameters);
}

/* ---- arguments --------------------------------------------------------------------------------------------------- */

static uint64_t state = 0x9e3779b97f4a7c15;

/* G. Marsaglia's xorshift. */
static uint64_t random_bits(void) {
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

static double uniform(double low, double high) {
  return low + (high - low) * ((double)(random_bits() >> 11) * 0x1p-53);
}

static double any_number(bool f32) {
  uint64_t bits = random_bits();
  float narrow;
  double wide;
  uint32_t half = (uint32_t)(bits >> 32);
  memcpy(&narrow, &half, sizeof narrow);
  memcpy(&wide, &bits, sizeof wide);
  double value = f32 ? (double)narrow : wide;
  return isnan(value) ? (double)NAN : value; /* no signalling one */
}

static const double specials[] = {0,
                                  1,
                                  2,
                                  0.5,
                                  3,
                                  INFINITY,
                                  NAN,
                                  0x1p-1074,
                                  0x1p-1050,
                                  0x1p-1022,
                                  0x1.fffffffffffffp-1023,
                                  0x1p-149,
                                  0x1p-140,
                                  0x1p-126,
                                  0x1.fffffcp-127,
                                  DBL_MAX,
                                  (double)FLT_MAX,
                                  0x1.fffffffffffffp-1,
                                  0x1.0000000000001p0,
                                  0x1.fffffep-1,
                                  0x1.000002p0,
                                  0x1p-60,
                                  0x1p-30,
                                  0x1p53,
                                  0x1p24,
                                  0x1p100,
                                  709.782712893384,
                                  709.7827128933841,
                                  745.1332191019411,
                                  745.1332191019412,
                                  708.3964185322641,
                                  710.4758600739439,
                                  88.72283,
                                  88.72284,
                                  87.33654,
                                  103.97207,
                                  103.97208,
                                  89.41599,
                                  1.5707963267948966,
                                  3.141592653589793,
                                  26.5,
                                  27.2,
                                  37.5,
                                  38.6,
                                  10.06,
                                  9.2,
                                  1000,
                                  800.5,
                                  40.5};
enum { SPECIALS = sizeof specials / sizeof specials[0] };

static double argument(const function *f, bool f32, size_t k) {
  if (k < 2 * SPECIALS) return k % 2 == 0 ? specials[k / 2] : -specials[k / 2];
  double near = exp2(uniform(f32 ? -30 : -60, 0));
  switch (k % 3) {
  case 0: return any_number(f32);
  case 1: return uniform(f->low, f->high);
  default:
    switch (random_bits() % 4) {
    case 0: return near;
    case 1: return -near;
    case 2: return f->low + near;
    default: return f->high - near;
    }
  }
}

/* ---- accuracy ---------------------------------------------------------------------------------------------------- */

static double ulps(double y, long double truth, bool f32) {
  int digits = f32 ? FLT_MANT_DIG : DBL_MANT_DIG, lowest = f32 ? FLT_MIN_EXP : DBL_MIN_EXP, exponent;
  (void)frexpl(truth, &exponent);
  if (exponent < lowest) exponent = lowest;
  long double huge = ldexpl(1, f32 ? FLT_MAX_EXP : DBL_MAX_EXP);
  long double value = isinf(y) ? copysignl(huge, y) : (long double)y;
  if (fabsl(truth) > huge) truth = copysignl(huge, truth); /* anything from the largest on rounds to inf */
  return (double)(fabsl(value - truth) / ldexpl(1, exponent - digits));
}

/* Of values that must come out exactly, the sign of a zero too. */
static bool is_right(double y, double truth) {
  if (isnan(truth)) return isnan(y);
  return y == truth && (y != 0 || signbit(y) == signbit(truth));
}

static void *block(size_t n) {
  void *data = aligned_alloc(64, (n * sizeof(double) + 63) / 64 * 64);
  if (data == NULL) exit(EXIT_FAILURE);
  return data;
}

static double load(const void *data, bool f32, size_t i) {
  return f32 ? (double)((const float *)data)[i] : ((const double *)data)[i];
}

static void put(void *data, bool f32, size_t i, double value) {
  if (f32)
    ((float *)data)[i] = (float)value;
  else
    ((double *)data)[i] = value;
}

typedef struct accuracy {
  double worst, x, y;
  size_t wrong;
  double wrong_x, wrong_y, wrong_z;
} accuracy;

static accuracy measure(const provider *p, const function *f, size_t n, const void *x, const void *y,
                        const long double *truth, void *z) {
  accuracy a = {.worst = 0};
  /* In runs of many lengths: some end within a vector, and some hold no argument that is out of the ordinary. */
  const size_t size = p->f32 ? sizeof(float) : sizeof(double);
  for (size_t i = 0, length = 1; i < n; i += length, length = length % 61 + 1) {
    if (length > n - i) length = n - i;
    call(p, f, length, (const char *)x + i * size, (const char *)y + i * size, (char *)z + i * size);
  }
  for (size_t i = 0; i < n; i++) {
    const double value = load(z, p->f32, i);
    const bool exact = isnan(truth[i]) || isnan(value) || isinf(truth[i]) || truth[i] == 0;
    const double error = exact ? 0 : ulps(value, truth[i], p->f32);
    if (exact && !is_right(value, (double)truth[i]) && a.wrong++ == 0)
      a.wrong_x = load(x, p->f32, i), a.wrong_y = load(y, p->f32, i), a.wrong_z = value;
    if (error > a.worst) a.worst = error, a.x = load(x, p->f32, i), a.y = load(y, p->f32, i);
  }
  return a;
}

/* ---- speed ------------------------------------------------------------------------------------------------------- */

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* The fastest of a few blocks of calls, per element. */
static double nanoseconds(const provider *p, const function *f, size_t n, const void *x, const void *y, void *z) {
  size_t repeats = 20000 / n + 1;
  double best = INFINITY;
  for (int k = 0; k < 15; k++) {
    double start = now();
    for (size_t r = 0; r < repeats; r++) call(p, f, n, x, y, z);
    double time = (now() - start) / (double)(repeats * n);
    if (k > 0 && time < best) best = time;
  }
  return best;
}

static bool available(const provider *p) {
  return strcmp(p->level, "avx512") != 0 || __builtin_cpu_supports("avx512dq");
}

static void compare(const function *f, bool f32, size_t points) {
  size_t n = points + 2 * SPECIALS;
  void *x = block(n), *y = block(n), *z = block(n > TIMED ? n : TIMED), *tx = block(TIMED), *ty = block(TIMED);
  long double *truth = malloc(n * sizeof *truth);
  if (truth == NULL) exit(EXIT_FAILURE);
  for (size_t i = 0; i < n; i++) {
    put(x, f32, i, argument(f, f32, i));
    put(y, f32, i,
        i % 4 == 3 ? argument(f, f32, random_bits() % (2 * SPECIALS))
        : f32      ? uniform(-30, 30)
                   : uniform(-250, 250));
    truth[i] = f->truth(load(x, f32, i), load(y, f32, i));
  }
  for (size_t i = 0; i < TIMED; i++) {
    put(tx, f32, i, uniform(f->speed[0], f->speed[1]));
    put(ty, f32, i, uniform(-5, 5));
  }
  for (size_t k = 0; k < sizeof providers / sizeof providers[0]; k++) {
    const provider *p = &providers[k];
    if (p->f32 != f32 || !offers(p, f) || !available(p)) continue;
    accuracy a = measure(p, f, n, x, y, truth, z);
    printf("%-9s %s %-7s %-6s", f->name, f32 ? "f32" : "f64", p->name, p->level);
    for (size_t m = 10; m <= TIMED; m *= m == 1000 ? 100 : 10) printf(" %7.2f", nanoseconds(p, f, m, tx, ty, z));
    printf("  %9.3g ulp at %.17g", a.worst, a.x);
    if (f->binary) printf(", %.17g", a.y);
    if (a.wrong > 0) printf("; %zu wrong: %.17g", a.wrong, a.wrong_x);
    if (a.wrong > 0 && f->binary) printf(", %.17g", a.wrong_y);
    if (a.wrong > 0) printf(" -> %g", a.wrong_z);
    putchar('\n');
    fflush(stdout);
  }
  free(x), free(y), free(z), free(tx), free(ty), free(truth);
}

int main(int count, char **arguments) {
  long points = count > 1 ? strtol(arguments[1], NULL, 10) : 200000;
  if (points < 1) points = 1;
  printf("%-9s %-3s %-7s %-6s %7s %7s %7s %7s  largest error\n", "function", "", "by", "level", "10", "100", "1000",
         "100000");
  for (int f32 = 0; f32 < 2; f32++)
    for (size_t k = 0; k < sizeof functions / sizeof functions[0]; k++) {
      bool wanted = count < 3;
      for (int i = 2; i < count; i++) wanted = wanted || strcmp(arguments[i], functions[k].name) == 0;
      if (wanted) compare(&functions[k], f32 != 0, (size_t)points);
    }
  return 0;
}
