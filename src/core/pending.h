/* Pending matrices: they have storage, but nobody has looked at their elements yet. While a pullback runs (and then only)
 * a product of two matrices or vectors waits with its factors, and a transpose with what it is the transpose of. The
 * sweep takes the factors where it has a use for them alone, a product takes the transpose's for an operand, and whoever
 * else is about to look at the matrix, or to write to any array, has it computed first (bp_pending_compute,
 * bp_pending_compute_all in kernels/). To look at a matrix the binding asks for it (bp_check_array, bp_read_operand), or
 * an operation runs (compute in tape.c). To write there are five ways: in place (bp_check_writable), the sweep of a call
 * inside the pullback (bp_sweep_begin), that of the call outside when it goes on (bp_sweep_before_giving), a step
 * (bp_update_prepare), and the host (api_to_array; what it has had the address of is never a factor that waits). The
 * factors are held, so that giving them back harms nothing. */
#ifndef BP_CORE_PENDING_H
#define BP_CORE_PENDING_H

#include "context.h"

/* Of a transpose `left` is what it is the transpose of, and there is no `right`. */
static inline bool bp_is_transpose(const bp_factors *factors) {
  return factors->right.buffer == NULL;
}

/* Makes an array pending; false where there are too many, and then it is to be computed now. */
bool bp_pending_add(bp_context *cx, const bp_array *to, const bp_factors *factors);

/* The factors of a pending buffer with their references, which are the caller's from now on. It pends no more. */
bp_factors bp_pending_take(bp_context *cx, bp_buffer *buffer);

/* Forgets what a buffer waits for. */
void bp_pending_drop(bp_context *cx, bp_buffer *buffer);

/* What a pending buffer waits with. */
static inline const bp_factors *bp_pending_factors(const bp_context *cx, const bp_buffer *buffer) {
  return &cx->pending[buffer->pending - 1].factors;
}

static inline bool bp_is_pending(const bp_context *cx, const bp_array *array) {
  return cx->pending_count != 0 && array->buffer != NULL && array->buffer->pending != 0;
}

#endif
