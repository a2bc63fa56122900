/* The levels that were compiled, best first, and the choice among them. */
#include <string.h>

#include "kernels.h"

#define PARTS(level, dtype)                                                                                 \
  extern const bp_map_loops bp_map_##dtype##_##level;                                                       \
  extern const bp_reduce_loops bp_reduce_##dtype##_##level;                                                 \
  extern const bp_product_loops bp_product_##dtype##_##level;                                               \
  extern const bp_softmax_loops bp_softmax_##dtype##_##level;                                               \
  static const bp_loops level##_##dtype = {#level, &bp_map_##dtype##_##level, &bp_reduce_##dtype##_##level, \
                                           &bp_product_##dtype##_##level, &bp_softmax_##dtype##_##level};

PARTS(base, f64)
PARTS(base, f32)
#ifdef BP_HAVE_X86_LEVELS
PARTS(avx2, f64)
PARTS(avx2, f32)
PARTS(avx512, f64)
PARTS(avx512, f32)
#endif

static bool always(void) {
  return true;
}

#ifdef BP_HAVE_X86_LEVELS
static bool has_avx2(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void) {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
}
#endif

static const struct {
  bool (*available)(void);
  const bp_loops *f64, *f32;
} levels[] = {
#ifdef BP_HAVE_X86_LEVELS
    {has_avx512, &avx512_f64, &avx512_f32},
    {has_avx2, &avx2_f64, &avx2_f32},
#endif
    {always, &base_f64, &base_f32},
};

bool bp_choose_loops(bp_context *cx, const char *level) {
  for (size_t k = 0; k < sizeof levels / sizeof levels[0]; k++) {
    if (level != NULL && strcmp(level, levels[k].f64->level) != 0) continue;
    if (!levels[k].available()) continue;
    cx->loops[BP_F64] = levels[k].f64;
    cx->loops[BP_F32] = levels[k].f32;
    return true;
  }
  return false;
}
