/* A chain of 4 * rounds element-wise operations, y -> exp(sin(a y + b)) in each round, and the gradient of its last
 * value with respect to its first: what bench/overhead.lua holds the tape against. A chain touches nothing but its own
 * arrays of doubles: x, a, b, d have n elements; y has 4 * rounds * n and keeps what every operation gave. */
#ifndef BENCH_CHAIN_H
#define BENCH_CHAIN_H

#include <stddef.h>

typedef struct chain {
  size_t n, rounds;
  double *x, *a, *b;
  double *y;
  double *d; /* the cotangent, in the end the gradient */
} chain;

void chain_step(chain *c);

#endif
