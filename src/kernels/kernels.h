/* The kernels: operations on whole arrays. They cut windows into runs for the loops, broadcast, reduce cotangents back
 * to the shape of a broadcast operand, and count additions and zero fills. Shapes and dtypes have been checked by the
 * operations' shape rules; a number is read and written as the dtype needs. Nothing here fails;
 * bp_gemm, which may use memory of its own, does without it where there is none. */
#ifndef BP_KERNELS_KERNELS_H
#define BP_KERNELS_KERNELS_H

#include "../core/array.h"
#include "loops.h"

static inline const bp_loops *bp_loops_of(const bp_context *cx, unsigned dtype) {
  return cx->loops[dtype];
}

/* ---- numbers.c: a formula on single numbers ---- */

/* z = f(x, y); the adjoint of x or of y. A formula of one operand takes no y, and has only the first adjoint. */
typedef struct bp_number_rule {
  double (*value)(double x, double y, const double *parameters);
  double (*adjoint[2])(double g, double x, double y, double z, const double *parameters);
} bp_number_rule;

typedef struct bp_number_rules {
#define BP_RULE(name, ...) bp_number_rule name##_;
  BP_UNARY_FORMULAS(BP_RULE)
  BP_FUNCTION_FORMULAS(BP_RULE)
  BP_GUARDED_FORMULAS(BP_RULE)
  BP_BINARY_FORMULAS(BP_RULE)
  BP_BINARY_FUNCTION_FORMULAS(BP_RULE)
  BP_COMPARISON_FORMULAS(BP_RULE)
#undef BP_RULE
} bp_number_rules;

extern const bp_number_rules bp_numbers;

/* ---- map.c: element by element ---- */

/* Which loops: BP_LOOP(exp) is the place of a formula in the table of any dtype. */
#define BP_LOOP(name) offsetof(bp_map_loops, name##_)
#define BP_LOOP_AT(type, cx, dtype, loop) \
  ((const type *)(const void *)((const char *)bp_loops_of(cx, dtype)->map + (loop)))

void bp_map_unary(bp_context *cx, size_t loop, const double *parameters, const bp_array *x, bp_array *y);
void bp_map_unary_adjoint(bp_context *cx, size_t loop, const double *parameters, const bp_array *g, const bp_array *x,
                          const bp_array *y, const bp_gradient *d);

/* z has the broadcast shape of x and y. */
void bp_map_binary(bp_context *cx, size_t loop, const bp_array *x, const bp_array *y, bp_array *z);
/* d has the shape of x (side 0) or of y (side 1): what was broadcast is summed. */
void bp_map_binary_adjoint(bp_context *cx, size_t loop, int side, const bp_array *g, const bp_array *x,
                           const bp_array *y, const bp_array *z, const bp_gradient *d);

void bp_map_where(bp_context *cx, const bp_array *c, const bp_array *a, const bp_array *b, bp_array *y);
void bp_map_where_adjoint(bp_context *cx, int side, const bp_array *g, const bp_array *c, const bp_gradient *d);

void bp_fill(bp_context *cx, bp_array *d, double value);
void bp_zero_fill(bp_context *cx, bp_array *d); /* the same with 0, counted as a zero fill */
/* d = a x + b d, x of d's shape or a number; d is not read when b is 0. */
void bp_axpby(bp_context *cx, double a, const bp_array *x, double b, bp_array *d);
/* Writes or adds a x, of the destination's shape or a number. */
void bp_contribute(bp_context *cx, double a, const bp_array *x, const bp_gradient *d);
/* Writes or adds a number to a destination that is one. */
void bp_contribute_number(bp_context *cx, double value, const bp_gradient *d);
/* Writes or adds g summed to the destination's shape, which broadcasts to g's. */
void bp_contribute_summed(bp_context *cx, const bp_array *g, const bp_gradient *d);
/* Writes or adds x, whatever its dtype. */
void bp_contribute_converted(bp_context *cx, const bp_array *x, const bp_gradient *d);
/* Counts an addition if d accumulates: for rules that write by other means. */
void bp_count_addition(bp_context *cx, const bp_gradient *d);
/* One step of Adam on x, over arrays of one shape. */
void bp_adam_step(bp_context *cx, bp_array *x, const bp_array *g, bp_array *m, bp_array *v, const bp_adam *step);

/* ---- reduce.c ---- */

typedef enum bp_reduction { BP_SUM, BP_MEAN, BP_PRODUCT, BP_LARGEST, BP_SMALLEST, BP_LOGSUMEXP, BP_NORM } bp_reduction;

/* axis 0 reduces all to a number, 1 down the rows, 2 along the columns. */
void bp_reduce(bp_context *cx, bp_reduction reduction, int axis, const bp_array *x, bp_array *y);
void bp_reduce_adjoint(bp_context *cx, bp_reduction reduction, int axis, const bp_array *g, const bp_array *x,
                       const bp_array *y, const bp_gradient *d);
/* The 0-based position of the first extreme of each row, column or of all (in row-major order); NaN is extreme. */
void bp_arg_extreme(bp_context *cx, bool largest, int axis, const bp_array *x, bp_array *positions);
/* Whether no element is a NaN or inf. */
bool bp_all_finite(bp_context *cx, const bp_array *x);
double bp_dot(bp_context *cx, const bp_array *x, const bp_array *y);

/* ---- softmax.c: of a vector, or of each row ---- */

void bp_softmax(bp_context *cx, const bp_array *x, bp_array *y);
void bp_softmax_adjoint(bp_context *cx, const bp_array *g, const bp_array *y, const bp_gradient *d);
void bp_log_softmax(bp_context *cx, const bp_array *x, bp_array *y);
void bp_log_softmax_adjoint(bp_context *cx, const bp_array *g, const bp_array *y, const bp_gradient *d);
/* The mean over rows of sum_j t_j (logsumexp(x) - x_j), keeping the softmax of x in p. The target is an array of x's
 * shape or, where target is NULL, one class number a row. */
double bp_softmax_cross_entropy(bp_context *cx, const bp_array *x, const bp_array *target, const int64_t *classes,
                                bp_array *p);
void bp_softmax_cross_entropy_adjoint(bp_context *cx, double g, const bp_array *p, const bp_array *target,
                                      const int64_t *classes, const bp_gradient *d);
/* The adjoint of the target: minus log p. */
void bp_softmax_cross_entropy_target_adjoint(bp_context *cx, double g, const bp_array *x, const bp_gradient *d);

/* The sum of (1 - t) softplus(x) + t softplus(-x), element by element, and its adjoint in x. */
double bp_sigmoid_cross_entropy(bp_context *cx, const bp_array *x, const bp_array *target);
void bp_sigmoid_cross_entropy_adjoint(bp_context *cx, double g, const bp_array *x, const bp_array *target,
                                      const bp_gradient *d);

/* ---- product.c ---- */

/* d = beta d + alpha op(a) op(b), of matrices; op transposes where asked. */
void bp_gemm(bp_context *cx, double alpha, const bp_array *a, bool a_transposed, const bp_array *b, bool b_transposed,
             double beta, bp_array *d);
/* d = op(a) x, or added to d. a may wait for an update. */
void bp_gemv(bp_context *cx, const bp_array *a, bool transposed, const bp_array *x, bool accumulate, bp_array *d);
/* d = beta d + alpha left right. */
void bp_add_product(bp_context *cx, double alpha, const bp_factors *factors, double beta, bp_array *d);
/* Pending matrices (core/pending.h) are computed: x if it is one; all products; all that are or depend on a buffer. */
void bp_pending_compute(bp_context *cx, const bp_array *x);
void bp_pending_compute_products(bp_context *cx);
void bp_pending_compute_of(bp_context *cx, bp_buffer *buffer);
/* d = x', written or added. */
void bp_transpose(bp_context *cx, const bp_array *x, const bp_gradient *d);

/* ---- blas.c: the only file that calls BLAS ---- */

void bp_blas_gemm(bp_context *cx, double alpha, const bp_array *a, bool a_transposed, const bp_array *b,
                  bool b_transposed, double beta, bp_array *d);
/* The processor whose kernels OpenBLAS runs, by its own name for it. */
const char *bp_blas_core(void);
void bp_set_threads(int threads);
/* Whether they are as many as the processors: what OpenBLAS starts with. */
bool bp_threads_are_default(void);

#endif
