/* The list of pending matrices, oldest first; see pending.h. A buffer knows its place in it, counted from 1. */
#include "pending.h"

void bp_pending_add(bp_context *cx, const bp_array *to, const bp_factors *factors) {
  cx->pending[cx->pending_count++] = (bp_pending){*to, *factors};
  to->buffer->pending = (uint16_t)cx->pending_count;
  bp_buffer_retain(factors->left.buffer);
  bp_buffer_retain(factors->right.buffer);
}

bp_factors bp_pending_take(bp_context *cx, bp_buffer *buffer) {
  uint32_t place = buffer->pending - 1;
  bp_factors factors = cx->pending[place].factors;
  cx->pending_count--;
  for (; place < cx->pending_count; place++) {
    cx->pending[place] = cx->pending[place + 1];
    cx->pending[place].to.buffer->pending = (uint16_t)(place + 1);
  }
  buffer->pending = 0;
  return factors;
}

void bp_pending_drop(bp_context *cx, bp_buffer *buffer) {
  bp_factors factors = bp_pending_take(cx, buffer);
  bp_buffer_release(cx, factors.left.buffer);
  bp_buffer_release(cx, factors.right.buffer);
}
