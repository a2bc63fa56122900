/* Pending products: matrices that have storage, but whose elements nobody has looked at yet. While a pullback runs (and
 * then only) a product of two matrices or vectors waits with its factors; the sweep takes these where it has a use for
 * the factors alone, and whoever else is about to look at the matrix, or to write to any array, has them multiplied
 * first (bp_pending_compute, bp_pending_compute_all in kernels/). To look at a matrix the binding asks for it
 * (check_usable). To write there are four ways: in place (bp_check_writable), the sweep of a call inside the pullback
 * (bp_sweep_begin), that of the call outside when it goes on (bp_sweep_before_giving), and the host (api_to_array; what
 * it has had the address of is never a factor that waits). The factors are held, so that giving them back harms nothing. */
#ifndef BP_CORE_PENDING_H
#define BP_CORE_PENDING_H

#include "context.h"

/* Makes an array pending; false where there are too many, and then it is to be computed now. */
bool bp_pending_add(bp_context *cx, const bp_array *to, const bp_factors *factors);

/* The factors of a pending buffer with their references, which are the caller's from now on. It pends no more. */
bp_factors bp_pending_take(bp_context *cx, bp_buffer *buffer);

/* Forgets what a buffer waits for. */
void bp_pending_drop(bp_context *cx, bp_buffer *buffer);

static inline bool bp_is_pending(const bp_context *cx, const bp_array *array) {
  return cx->pending_count != 0 && array->buffer != NULL && array->buffer->pending != 0;
}

#endif
