/* The list of pending matrices, in no order; see pending.h. A buffer knows its place in it, counted from 1. */
#include "pending.h"

static void retain_factor(bp_buffer *buffer) {
  if (buffer == NULL) return;
  buffer->waited = true;
  bp_buffer_retain(buffer);
}

/* Notes that a product waits, or waits no more. */
static void count_product(bp_context *cx, const bp_pending *pending, int count) {
  if (!bp_is_pending_product(pending)) return;
  cx->pending_products = (uint16_t)(cx->pending_products + count);
  cx->pending_bytes += (size_t)count * pending->to.buffer->capacity;
}

bp_status bp_pending_add(bp_context *cx, const bp_array *to, const bp_factors *factors, bool adds) {
  enum { MOST = UINT16_MAX, MOST_WITH_ADDITIONS = 4096 };
  const size_t place = cx->pending_count;
  if (place >= (adds ? MOST_WITH_ADDITIONS : MOST)) return BP_NOMEM;
  bp_status status = bp_grow(cx, (void **)&cx->pending, &cx->pending_capacity, place + 1, sizeof *cx->pending);
  if (status != BP_OK) return status;
  cx->pending[place] = (bp_pending){*to, *factors, adds};
  cx->pending_count++;
  count_product(cx, &cx->pending[place], 1);
  to->buffer->pending = cx->pending_count;
  retain_factor(factors->left.buffer);
  retain_factor(factors->right.buffer);
  return BP_OK;
}

bp_pending bp_pending_take(bp_context *cx, bp_buffer *buffer) {
  bp_pending *place = &cx->pending[buffer->pending - 1];
  const bp_pending taken = *place;
  count_product(cx, &taken, -1);
  *place = cx->pending[--cx->pending_count];
  place->to.buffer->pending = buffer->pending;
  buffer->pending = 0;
  return taken;
}

void bp_factors_release(bp_context *cx, const bp_factors *factors) {
  bp_buffer_release(cx, factors->left.buffer);
  bp_buffer_release(cx, factors->right.buffer);
}

void bp_pending_drop(bp_context *cx, bp_buffer *buffer) {
  const bp_pending dropped = bp_pending_take(cx, buffer);
  bp_factors_release(cx, &dropped.factors);
}
