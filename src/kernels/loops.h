/* The dispatch table of the loops: plain functions over runs of elements, compiled from one source for each dtype and
 * SIMD level. A run is contiguous; whoever calls cuts windows into runs. `void *` is an array of the table's dtype.
 *
 * We choose the level ourselves, at load: ifunc (target_clones) crashes under ThreadSanitizer, and valgrind knows no
 * AVX-512, so that a level can also be asked for. */
#ifndef BP_KERNELS_LOOPS_H
#define BP_KERNELS_LOOPS_H

#include "../core/context.h"
#include "formulas.h"

/* y = f(x). d = accumulate * d + the adjoint of f. */
typedef struct bp_unary {
  void (*forward)(size_t n, const void *x, void *y, const double *parameters);
  void (*backward)(size_t n, const void *g, const void *x, const void *y, void *d, bool accumulate,
                   const double *parameters);
} bp_unary;

/* z = f(x, y); an operand's step is 1, or 0 for one element that stands for all. */
typedef struct bp_binary {
  void (*forward)(size_t n, const void *x, size_t x_step, const void *y, size_t y_step, void *z);
  void (*backward[2])(size_t n, const void *g, const void *x, size_t x_step, const void *y, size_t y_step,
                      const void *z, void *d, bool accumulate);
} bp_binary;

/* The constants of one step of Adam: `rate` and `epsilon` already corrected for the bias of the moments, `decay` the
 * factor that decoupled weight decay leaves of a parameter, `l2` the weight of x in the gradient. */
typedef struct bp_adam {
  double beta1, beta2, rate, epsilon, decay, l2;
} bp_adam;

/* Element by element. */
typedef struct bp_map_loops {
#define UNARY(name, ...) bp_unary name##_;
#define BINARY(name, ...) bp_binary name##_;
  BP_UNARY_FORMULAS(UNARY)
  BP_FUNCTION_FORMULAS(UNARY)
  BP_GUARDED_FORMULAS(UNARY)
  BP_BINARY_FORMULAS(BINARY)
  BP_BINARY_FUNCTION_FORMULAS(BINARY)
  BP_COMPARISON_FORMULAS(BINARY)
#undef UNARY
#undef BINARY

  /* y = condition ? a : b, and the adjoint of a (side 0) or of b (side 1). */
  void (*where)(size_t n, const void *c, size_t c_step, const void *a, size_t a_step, const void *b, size_t b_step,
                void *y);
  void (*where_backward)(size_t n, const void *g, const void *c, size_t c_step, int side, void *d, bool accumulate);

  void (*fill)(size_t n, double value, void *d);
  void (*copy)(size_t n, const void *x, void *d);                      /* the runs do not overlap */
  void (*axpby)(size_t n, double a, const void *x, double b, void *d); /* d = a x + b d; d is not read if b is 0 */
  void (*to_f64)(size_t n, const void *x, double *d);
  void (*from_f64)(size_t n, const double *x, void *d);

  /* One pass of Adam (D. Kingma, J. Ba, 2015) over parameters x: m and v are the moments. */
  void (*adam)(size_t n, void *x, const void *g, void *m, void *v, const bp_adam *step);
} bp_map_loops;

typedef void (*bp_group_adjoint)(size_t n, const double *y, const double *equal, const double *other, const void *x,
                                 void *d, bool accumulate);

/* To one number, in double. The largest and the smallest of a run with a NaN are NaN; `count` counts the elements equal
 * to y, `product` leaves them out (NaN is equal to none).
 *
 * each_*: many such reductions side by side, each element of a run going to a result of its own.
 * *_backward: d = accumulate * d + (x = y ? equal : other * weight), where the weight is 1 (extreme), e^(x - y) or
 * 1 / x. */
typedef struct bp_reduce_loops {
  double (*sum)(size_t n, const void *x);
  double (*sum_squares)(size_t n, double scale, const void *x); /* of scale * x */
  double (*dot)(size_t n, const void *x, const void *y);
  double (*product)(size_t n, double y, const void *x);
  double (*count)(size_t n, double y, const void *x);
  double (*largest)(size_t n, const void *x);
  double (*smallest)(size_t n, const void *x);
  double (*sum_exp)(size_t n, double shift, const void *x);              /* of exp(x - shift) */
  double (*exp_shifted)(size_t n, double shift, const void *x, void *y); /* the same, keeping y = exp(x - shift) */

  void (*each_sum)(size_t n, const void *x, double *result);
  void (*each_largest)(size_t n, const void *x, double *result);
  void (*each_smallest)(size_t n, const void *x, double *result);
  void (*each_sum_exp)(size_t n, const double *shift, const void *x, double *result);
  void (*each_product)(size_t n, const double *y, const void *x, double *result);
  void (*each_count)(size_t n, const double *y, const void *x, double *result);

  bp_group_adjoint extreme_backward, logsumexp_backward, product_backward;
} bp_reduce_loops;

/* Of matrices with rows `stride` elements apart and contiguous vectors. `accumulate` adds to what stands there. */
typedef struct bp_product_loops {
  /* y = A x; y = A' x; A = alpha u v'. */
  void (*gemv)(size_t rows, size_t cols, const void *a, size_t stride, const void *x, void *y, bool accumulate);
  void (*gemv_transposed)(size_t rows, size_t cols, const void *a, size_t stride, const void *x, void *y,
                          bool accumulate);
  void (*outer)(size_t rows, size_t cols, double alpha, const void *u, const void *v, void *a, size_t stride,
                bool accumulate);
  /* A = A + u v', y = A x, in one pass: groups of rows from the first on or, backwards, from the last. */
  void (*outer_gemv)(size_t rows, size_t cols, const void *u, const void *v, void *a, size_t stride, const void *x,
                     void *y, bool backwards);
  /* D = A', D being cols x rows. */
  void (*transpose)(size_t rows, size_t cols, const void *a, size_t a_stride, void *d, size_t d_stride,
                    bool accumulate);
} bp_product_loops;

/* Of matrices with rows `stride` elements apart, each row by itself. */
typedef struct bp_softmax_loops {
  /* y = softmax(x), unless y is NULL; of each row, too, the largest element and the logarithm of the sum of e^(x -
   * largest), whose sum is the logsumexp. With a target t returns the cross entropy, summed over the rows, else 0. */
  double (*softmax)(size_t rows, size_t cols, const void *x, size_t x_stride, const void *t, size_t t_stride, void *y,
                    size_t y_stride, double *largest, double *log_total);
  void (*log_softmax)(size_t rows, size_t cols, const void *x, size_t x_stride, void *y, size_t y_stride);
  /* d = y (g - sum(g y)); d = g - sum(g) e^y; d = scale (sum(t) y - t): written or added. The first two take no notice
   * of the scale. */
  void (*softmax_adjoint)(size_t rows, size_t cols, double scale, const void *g, size_t g_stride, const void *y,
                          size_t y_stride, void *d, size_t d_stride, bool accumulate);
  void (*log_softmax_adjoint)(size_t rows, size_t cols, double scale, const void *g, size_t g_stride, const void *y,
                              size_t y_stride, void *d, size_t d_stride, bool accumulate);
  void (*cross_entropy_adjoint)(size_t rows, size_t cols, double scale, const void *t, size_t t_stride, const void *y,
                                size_t y_stride, void *d, size_t d_stride, bool accumulate);
} bp_softmax_loops;

typedef struct bp_loops {
  const char *level;
  const bp_map_loops *map;
  const bp_reduce_loops *reduce;
  const bp_product_loops *product;
  const bp_softmax_loops *softmax;
} bp_loops;

/* Chooses the best level the processor has, or the one named ("base", "avx2", "avx512"); false if that is not there. */
bool bp_choose_loops(bp_context *cx, const char *level);

#endif
