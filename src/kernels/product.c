/* Products: matrix by matrix through BLAS, matrix by vector and outer products through our own loops. Vectors are
 * contiguous here: operations that take part ask for it (BP_OP_CONTIGUOUS). */
#include "../core/pending.h"
#include "kernels.h"

static const bp_product_loops *product_of(bp_context *cx, const bp_array *x) {
  return bp_loops_of(cx, x->dtype)->product;
}

void bp_gemm(bp_context *cx, double alpha, const bp_array *a, bool a_transposed, const bp_array *b, bool b_transposed,
             double beta, bp_array *d) {
  if (bp_count(d) == 0) return;
  if ((a_transposed ? a->rows : a->cols) != 0)
    bp_blas_gemm((bp_dtype)d->dtype, alpha, a, a_transposed, b, b_transposed, beta, d);
  else if (beta == 0)
    bp_fill(cx, d, 0);
  else
    bp_axpby(cx, beta, d, 0, d);
}

void bp_gemv(bp_context *cx, const bp_array *a, bool transposed, const bp_array *x, bool accumulate, bp_array *d) {
  const bp_product_loops *loops = product_of(cx, a);
  if (transposed)
    loops->gemv_transposed(a->rows, a->cols, a->data, a->stride, x->data, d->data, accumulate);
  else
    loops->gemv(a->rows, a->cols, a->data, a->stride, x->data, d->data, accumulate);
}

void bp_add_product(bp_context *cx, double alpha, const bp_factors *f, double beta, bp_array *d) {
  if (beta != 0) cx->stats.additions++;
  if (f->left.rank != 1) {
    bp_gemm(cx, alpha, &f->left, f->left_transposed, &f->right, f->right_transposed, beta, d);
    return;
  }
  if (beta != 0 && beta != 1) bp_axpby(cx, beta, d, 0, d);
  product_of(cx, d)->outer(d->rows, d->cols, alpha, f->left.data, f->right.data, d->data, d->stride, beta != 0);
}

static void compute(bp_context *cx, bp_array to) {
  bp_factors factors = bp_pending_take(cx, to.buffer);
  if (bp_has_one_factor(&factors))
    bp_transpose(cx, &factors.left, &(bp_gradient){.to = to});
  else
    bp_add_product(cx, 1, &factors, 0, &to);
  bp_buffer_release(cx, factors.left.buffer);
  bp_buffer_release(cx, factors.right.buffer);
}

void bp_pending_compute(bp_context *cx, const bp_array *x) {
  if (bp_is_pending(cx, x)) compute(cx, cx->pending[x->buffer->pending - 1].to);
}

void bp_pending_compute_products(bp_context *cx) {
  for (uint32_t k = cx->pending_count; k-- > 0;)
    if (!bp_has_one_factor(&cx->pending[k].factors)) compute(cx, cx->pending[k].to);
}

void bp_pending_compute_of(bp_context *cx, const bp_buffer *buffer) {
  for (uint32_t k = cx->pending_count; k-- > 0;) {
    const bp_pending *p = &cx->pending[k];
    if (p->to.buffer == buffer || p->factors.left.buffer == buffer || p->factors.right.buffer == buffer)
      compute(cx, p->to);
  }
}

void bp_transpose(bp_context *cx, const bp_array *x, const bp_gradient *d) {
  bp_count_addition(cx, d);
  product_of(cx, x)->transpose(x->rows, x->cols, x->data, x->stride, d->to.data, d->to.stride, d->accumulate);
}
