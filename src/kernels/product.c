/* Products: matrix by matrix through BLAS, matrix by vector and outer products through our own loops. Vectors are
 * contiguous here: operations that take part ask for it (BP_OP_CONTIGUOUS). */
#include "../core/pending.h"
#include "kernels.h"

static const bp_product_loops *product_of(bp_context *cx, const bp_array *x) {
  return bp_loops_of(cx, x->dtype)->product;
}

/* A few rows by the transpose of a large matrix, in f32: OpenBLAS 0.3.21 packs the large one as a whole before it
 * multiplies, but the other way round, large times few, a panel at a time, which is multiplied while it is in the
 * cache. Measured from 128 x 128 to 1024 x 1024: 8 to 64 rows take 5 to 30 % less with its kernels for AVX-512, 3 to 30
 * % with those for Haswell, 0 to 10 % with those for Zen. More rows gain less, as the result has to be transposed: up
 * to an eighth of b's columns they gain. b must be the larger one, by half at least; and the smallest products OpenBLAS
 * makes without packing. In f64 nothing is gained. */
static bool is_few_by_large(const bp_array *a, bool a_transposed, const bp_array *b, bool b_transposed, double beta) {
  if (b->dtype != BP_F32 || !b_transposed || a_transposed || beta != 0) return false;
  const size_t rows = a->rows, elements = bp_count(b), quarter = b->cols / 4;
  const bool few = rows > 1 && (rows <= (quarter < 64 ? quarter : 64) || rows <= b->cols / 8);
  return few && 2 * b->rows >= 3 * rows && elements >= (size_t)1 << 14 && rows * elements >= (size_t)1 << 18;
}

/* d = alpha a b', as the transpose of b a'. False where there is no memory for that. */
static bool multiply_reversed(bp_context *cx, double alpha, const bp_array *a, const bp_array *b, bp_array *d) {
  bp_array reversed = bp_shape_matrix(d->cols, d->rows, BP_F32);
  if (bp_array_allocate(cx, &reversed) != BP_OK) return false;
  bp_blas_gemm(cx, alpha, b, false, a, true, 0, &reversed);
  bp_transpose(cx, &reversed, &(bp_gradient){.to = *d});
  bp_array_release(cx, &reversed);
  return true;
}

void bp_gemm(bp_context *cx, double alpha, const bp_array *a, bool a_transposed, const bp_array *b, bool b_transposed,
             double beta, bp_array *d) {
  if (bp_count(d) == 0) return;
  if (is_few_by_large(a, a_transposed, b, b_transposed, beta) && multiply_reversed(cx, alpha, a, b, d)) return;
  if ((a_transposed ? a->rows : a->cols) != 0)
    bp_blas_gemm(cx, alpha, a, a_transposed, b, b_transposed, beta, d);
  else if (beta == 0)
    bp_fill(cx, d, 0);
  else
    bp_axpby(cx, beta, d, 0, d);
}

/* y = (A + u v') x, where the addition is pending: one pass over A. Every second version goes backwards: of a matrix
 * larger than the cache each pass then begins with what the last one has left there. */
static void update_and_multiply(bp_context *cx, const bp_array *a, const bp_array *x, bp_array *y) {
  const bool backwards = a->buffer->version % 2 != 0;
  const bp_pending p = bp_pending_take(cx, a->buffer);
  product_of(cx, a)->outer_gemv(a->rows, a->cols, p.factors.left.data, p.factors.right.data, a->data, a->stride,
                                x->data, y->data, backwards);
  bp_factors_release(cx, &p.factors);
}

void bp_gemv(bp_context *cx, const bp_array *a, bool transposed, const bp_array *x, bool accumulate, bp_array *d) {
  const bp_product_loops *loops = product_of(cx, a);
  if (bp_is_pending(cx, a)) {
    if (!transposed && !accumulate && bp_has_pending_update(cx, a)) {
      update_and_multiply(cx, a, x, d);
      return;
    }
    bp_pending_compute(cx, a); /* of a vector and the matrix the update comes first */
  }
  if (transposed)
    loops->gemv_transposed(a->rows, a->cols, a->data, a->stride, x->data, d->data, accumulate);
  else
    loops->gemv(a->rows, a->cols, a->data, a->stride, x->data, d->data, accumulate);
}

/* d = alpha left right of two vectors, or added to d. */
static void write_outer(bp_context *cx, double alpha, const bp_factors *f, bool accumulate, bp_array *d) {
  product_of(cx, d)->outer(d->rows, d->cols, alpha, f->left.data, f->right.data, d->data, d->stride, accumulate);
}

void bp_add_product(bp_context *cx, double alpha, const bp_factors *f, double beta, bp_array *d) {
  if (beta != 0) cx->stats.additions++;
  if (f->left.rank != 1) {
    bp_gemm(cx, alpha, &f->left, f->left_transposed, &f->right, f->right_transposed, beta, d);
    return;
  }
  if (beta != 0 && beta != 1) bp_axpby(cx, beta, d, 0, d);
  write_outer(cx, alpha, f, beta != 0, d);
}

static void compute(bp_context *cx, bp_buffer *buffer) {
  bp_pending p = bp_pending_take(cx, buffer);
  if (bp_has_one_factor(&p.factors))
    bp_transpose(cx, &p.factors.left, &(bp_gradient){.to = p.to});
  else if (p.adds) /* the addition has been counted */
    write_outer(cx, 1, &p.factors, true, &p.to);
  else
    bp_add_product(cx, 1, &p.factors, 0, &p.to);
  bp_factors_release(cx, &p.factors);
}

void bp_pending_compute(bp_context *cx, const bp_array *x) {
  if (bp_is_pending(cx, x)) compute(cx, x->buffer);
}

void bp_pending_compute_products(bp_context *cx) {
  for (uint32_t k = cx->pending_count; k-- > 0 && cx->pending_products != 0;)
    if (bp_is_pending_product(&cx->pending[k])) compute(cx, cx->pending[k].to.buffer);
}

/* What is computed is replaced in the list by the last, which has been looked at. */
void bp_pending_compute_of(bp_context *cx, bp_buffer *buffer) {
  if (buffer->pending != 0) compute(cx, buffer);
  for (uint32_t k = buffer->waited ? cx->pending_count : 0; k-- > 0;) {
    const bp_factors *factors = &cx->pending[k].factors;
    if (factors->left.buffer == buffer || factors->right.buffer == buffer) compute(cx, cx->pending[k].to.buffer);
  }
  buffer->waited = false;
}

void bp_transpose(bp_context *cx, const bp_array *x, const bp_gradient *d) {
  bp_count_addition(cx, d);
  product_of(cx, x)->transpose(x->rows, x->cols, x->data, x->stride, d->to.data, d->to.stride, d->accumulate);
}
