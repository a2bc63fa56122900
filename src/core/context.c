/* What one Lua state owns; see context.h. */
#include "context.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void bp_context_open(bp_context *cx, bp_allocator *allocate, void *allocator_data) {
  memset(cx, 0, sizeof *cx);
  cx->allocate = allocate;
  cx->allocator_data = allocator_data;
}

void bp_context_close(bp_context *cx) {
  cx->closed = true; /* first: a host that is told of its loan's end cannot ask for more */
  bp_buffers_end(cx);
  if (cx->pending != NULL) bp_resize(cx, cx->pending, cx->pending_capacity * sizeof *cx->pending, 0);
}

bp_status bp_fail(bp_context *cx, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(cx->message, sizeof cx->message, format, arguments);
  va_end(arguments);
  return BP_INVALID;
}

void *bp_resize(bp_context *cx, void *block, size_t old_size, size_t new_size) {
  if (cx->closed && new_size > old_size) return NULL;
  return cx->allocate(cx->allocator_data, block, block == NULL ? 0 : old_size, new_size);
}

bp_status bp_grow(bp_context *cx, void **list, size_t *capacity, size_t needed, size_t element_size) {
  if (needed <= *capacity) return BP_OK;
  size_t wanted = *capacity < 16 ? 16 : *capacity * 2;
  if (wanted < needed) wanted = needed;
  void *moved = bp_resize(cx, *list, *capacity * element_size, wanted * element_size);
  if (moved == NULL) return BP_NOMEM;
  *list = moved;
  *capacity = wanted;
  return BP_OK;
}
