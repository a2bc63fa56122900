/* The random generator: xoshiro256** (D. Blackman, S. Vigna, 2018), its state filled by splitmix64 from one seed.
 * Everything is computed from integer operations and + - * / sqrt on doubles, so that a seed gives the same numbers
 * on every machine. */
#ifndef BP_CORE_RNG_H
#define BP_CORE_RNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bp_rng {
  uint64_t state[4];
  double spare; /* the polar method makes normal numbers in pairs */
  bool has_spare;
} bp_rng;

void bp_rng_seed(bp_rng *rng, uint64_t seed);

/* In [0, 1), a multiple of 2^-53. */
double bp_rng_uniform(bp_rng *rng);

/* Mean 0, standard deviation 1. */
double bp_rng_normal(bp_rng *rng);

/* In 0 .. limit - 1, all equally likely; limit is not 0. */
uint64_t bp_rng_below(bp_rng *rng, uint64_t limit);

#endif
