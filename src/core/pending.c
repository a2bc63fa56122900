/* The list of pending products; see pending.h. A buffer knows its place in it, counted from 1. */
#include "pending.h"

bool bp_pending_add(bp_context *cx, const bp_array *to, const bp_factors *factors) {
  if (cx->pending_count == BP_MAX_PENDING) return false;
  cx->pending[cx->pending_count++] = (bp_pending){*to, *factors};
  to->buffer->pending = cx->pending_count;
  bp_buffer_retain(factors->left.buffer);
  bp_buffer_retain(factors->right.buffer);
  return true;
}

bp_factors bp_pending_take(bp_context *cx, bp_buffer *buffer) {
  bp_pending *place = &cx->pending[buffer->pending - 1], *last = &cx->pending[--cx->pending_count];
  bp_factors factors = place->factors;
  last->to.buffer->pending = buffer->pending;
  *place = *last;
  buffer->pending = 0;
  return factors;
}

void bp_pending_drop(bp_context *cx, bp_buffer *buffer) {
  bp_factors factors = bp_pending_take(cx, buffer);
  bp_buffer_release(cx, factors.left.buffer);
  bp_buffer_release(cx, factors.right.buffer);
}
