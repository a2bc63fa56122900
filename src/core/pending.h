/* Pending matrices: they have storage, but what their elements are to be has not been computed yet. A transpose, plain
 * or recorded, waits with its source, what it is the transpose of: matmul and linear (BP_OP_READS_PENDING) read that
 * instead, forwards and backwards, and most transposes are made for them. While a pullback runs (and then only) a plain
 * product of two matrices or vectors waits with its factors, which the sweep takes where it has a use for them alone;
 * products that the pullback has kept are multiplied when it ends.
 *
 * A step of gradient descent whose gradient of a weight matrix is one product of two vectors leaves it waiting, too,
 * beside the old elements: the next product of the weights and a vector, which has to read them all, adds it on its way
 * (bp_gemv). Its factors are copies that nobody else has.
 *
 * Whoever else looks at a matrix has it computed first: in the binding (bp_check_array, bp_read_operand, and where an
 * outcome or the text of a variable is made, or a gradient that is returned is saved), and when an operation runs
 * (compute in tape.c). Whoever writes has what depends on the old elements computed first, through
 * bp_sweep_before_write: in place (bp_check_writable), where a gradient goes into an array (provide in sweep.c), and a
 * step (bp_update_prepare; of one array at two paths bp_update_leaf). So does whoever gives storage back: bp.release,
 * and a tape that ends. Storage that is written without a word is never a factor that waits: what the host has the
 * address of (which waits for no update, either), and what receives a gradient; to_array, and the first contribution,
 * have what was waiting computed. The factors are held: a source that the collector takes is kept by what waits with
 * it.
 *
 * A product gives other last bits where it reads a source. So what waits does so until one of these things happens,
 * be they ever so many, and not until the collector runs: a program gives the same numbers each time, plain and
 * tracked. */
#ifndef BP_CORE_PENDING_H
#define BP_CORE_PENDING_H

#include "context.h"

/* What waits is a transpose: `left` is its source, and there is no `right`. */
static inline bool bp_has_one_factor(const bp_factors *factors) {
  return factors->right.buffer == NULL;
}

/* Makes an array pending: to be written, or added to. BP_NOMEM where that cannot be noted. There are 65,535 places; an
 * addition gets one of the first 4,096, so that no transpose is made at once because steps wait. */
bp_status bp_pending_add(bp_context *cx, const bp_array *to, const bp_factors *factors, bool adds);

/* What a pending buffer waits with: the references of the factors are the caller's from now on. It pends no more. */
bp_pending bp_pending_take(bp_context *cx, bp_buffer *buffer);

/* Gives the references of factors back. */
void bp_factors_release(bp_context *cx, const bp_factors *factors);

/* Forgets what a buffer waits for. */
void bp_pending_drop(bp_context *cx, bp_buffer *buffer);

/* What a pending buffer waits with. */
static inline const bp_pending *bp_pending_of(const bp_context *cx, const bp_buffer *buffer) {
  return &cx->pending[buffer->pending - 1];
}

static inline bool bp_is_pending(const bp_context *cx, const bp_array *array) {
  return cx->pending_count != 0 && array->buffer != NULL && array->buffer->pending != 0;
}

/* Whether a product waits: no transpose, and nothing to be added. */
static inline bool bp_is_pending_product(const bp_pending *pending) {
  return !pending->adds && !bp_has_one_factor(&pending->factors);
}

/* Whether an array is the whole of a matrix to which something is to be added. */
static inline bool bp_has_pending_update(const bp_context *cx, const bp_array *array) {
  if (!bp_is_pending(cx, array)) return false;
  const bp_pending *pending = bp_pending_of(cx, array->buffer);
  return pending->adds && array->rank == 2 && array->data == pending->to.data && array->rows == pending->to.rows &&
         array->cols == pending->to.cols && array->stride == pending->to.stride;
}

/* What a product reads for an operand: the operand itself or, where it is a transpose that waits, its source, and that it
 * is transposed. */
static inline bp_array bp_pending_source(const bp_context *cx, const bp_array *array, bool *transposed) {
  *transposed = bp_is_pending(cx, array) && bp_has_one_factor(&bp_pending_of(cx, array->buffer)->factors);
  return *transposed ? bp_pending_of(cx, array->buffer)->factors.left : *array;
}

#endif
