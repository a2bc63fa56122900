/* The 784 x 300 x 100 x 10 network of the benchmark, as the two C programs and their binding see it.
 *
 * Every buffer is allocated once, 64-byte aligned, and kept; `void *` is an array of the program's dtype, row-major.
 * With a batch of 1 the rows are plain vectors. What lies between input and loss a program may keep transposed. A
 * program touches nothing but the buffers of its network. */
#ifndef BENCH_NETWORK_H
#define BENCH_NETWORK_H

#include <stddef.h>

enum { LAYERS = 3 };
static const size_t width[LAYERS + 1] = {784, 300, 100, 10};

typedef struct network {
  size_t batch;
  void *x[LAYERS + 1]; /* the input, batch x width; what each layer gives; the probabilities */
  void *target;        /* batch x 10, of any sum */
  void *w[LAYERS];     /* width of the output x width of the input */
  void *b[LAYERS];
  void *gw[LAYERS]; /* the gradients of w and b */
  void *gb[LAYERS];
  void *d[LAYERS]; /* the cotangents of w x + b */
} network;

/* Each task returns the loss: the mean over the rows of -sum(target * log(probabilities)). */
typedef struct program {
  double (*run)(network *net);
  double (*gradient)(network *net);
  double (*descent)(network *net, double rate);
} program;

extern const program manual_f64, manual_f32;
extern const program limit_f64, limit_f32;

/* Plain passes over memory, as fast as the machine makes them, to hold the tasks of batch 1 against. */
typedef struct sweeps {
  double (*read)(size_t n, const void *w);
  void (*write)(size_t n, void *g);
  void (*update)(size_t n, void *w); /* reads, changes and writes */
  void (*gemm)(size_t n, const void *a, const void *b, void *c);
} sweeps;

extern const sweeps sweeps_f64, sweeps_f32;

#endif
