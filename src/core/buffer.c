/* Buffers and their pool; see buffer.h. A buffer is either referenced, and counted in bytes_live, or in the list of its
 * size class, and counted in bytes_pooled. */
#include "buffer.h"

#include "pending.h"

_Static_assert(sizeof(bp_buffer) <= BP_ALIGNMENT, "the header of a buffer must fit before its aligned data");

/* For memory checkers: a buffer is gone when it is freed, so that its use afterwards shows. */
#ifdef BP_POOL_OFF
enum { POOLED = false };
#else
enum { POOLED = true };
#endif

/* Four classes to each power of two from 64 bytes up: at most a quarter of a block is lost. */
static size_t class_of(size_t bytes, size_t *capacity) {
  if (bytes < 64) bytes = 64;
  size_t exponent = (size_t)(63 - __builtin_clzll(bytes));
  size_t shift = exponent - 2;
  size_t steps = (bytes - ((size_t)1 << exponent) + ((size_t)1 << shift) - 1) >> shift;
  *capacity = ((size_t)1 << exponent) + (steps << shift);
  return (exponent - 6) * 4 + steps;
}

typedef struct borrowed {
  bp_buffer buffer;
  bp_loan loan;
} borrowed;

static void enlist(bp_context *cx, bp_buffer *buffer) {
  buffer->before = NULL;
  buffer->after = cx->pool.all;
  if (buffer->after != NULL) buffer->after->before = buffer;
  cx->pool.all = buffer;
}

static size_t block_size(size_t capacity) {
  return capacity + 2 * BP_ALIGNMENT;
}

static void give_back(bp_context *cx, bp_buffer *buffer) {
  if (buffer->after != NULL) buffer->after->before = buffer->before;
  if (buffer->before != NULL)
    buffer->before->after = buffer->after;
  else
    cx->pool.all = buffer->after;
  bp_resize(cx, buffer->block, buffer->loan != NULL ? sizeof(borrowed) : block_size(buffer->capacity), 0);
}

static void drop_class(bp_context *cx, size_t size_class) {
  while (cx->pool.freed[size_class] != NULL) {
    bp_buffer *buffer = cx->pool.freed[size_class];
    cx->pool.freed[size_class] = buffer->next;
    cx->stats.bytes_pooled -= buffer->capacity;
    give_back(cx, buffer);
  }
}

bool bp_pool_has(const bp_context *cx, size_t bytes) {
  size_t capacity;
  return cx->pool.freed[class_of(bytes, &capacity)] != NULL;
}

void bp_pool_drop(bp_context *cx) {
  for (size_t size_class = 0; size_class < BP_SIZE_CLASSES; size_class++) drop_class(cx, size_class);
}

/* A pool that missed holds sizes that are no longer asked for. All that the state holds stays within twice the most
 * that was ever in use at once (and a little); the largest classes go first. */
static void trim(bp_context *cx, size_t capacity) {
  const size_t slack = (size_t)16 << 20;
  size_t limit = 2 * cx->pool.peak_live + slack;
  for (size_t size_class = BP_SIZE_CLASSES; size_class-- > 0;) {
    if (cx->stats.bytes_live + cx->stats.bytes_pooled + capacity <= limit) return;
    drop_class(cx, size_class);
  }
}

static bp_buffer *allocate(bp_context *cx, size_t size_class, size_t capacity) {
  char *block = bp_resize(cx, NULL, 0, block_size(capacity));
  if (block == NULL) return NULL;
  size_t misfit = (uintptr_t)block % BP_ALIGNMENT;
  bp_buffer *buffer = (bp_buffer *)(void *)(block + (misfit == 0 ? 0 : BP_ALIGNMENT - misfit));
  buffer->capacity = capacity;
  buffer->size_class = (uint8_t)size_class;
  buffer->block = block;
  buffer->loan = NULL;
  enlist(cx, buffer);
  cx->stats.allocations++;
  return buffer;
}

bp_buffer *bp_buffer_new(bp_context *cx, size_t bytes) {
  size_t capacity;
  size_t size_class = class_of(bytes, &capacity);
  bp_buffer *buffer = cx->pool.freed[size_class];
  if (buffer != NULL) {
    cx->pool.freed[size_class] = buffer->next;
    cx->stats.bytes_pooled -= capacity;
  } else {
    trim(cx, capacity);
    buffer = allocate(cx, size_class, capacity);
    if (buffer == NULL) return NULL;
  }
  buffer->references = 1;
  buffer->version = 0;
  buffer->pending = 0;
  buffer->receiving = 0;
  buffer->exposed = buffer->waited = false;
  buffer->next = NULL;
  cx->pool.handed_out += capacity;
  cx->stats.bytes_live += capacity;
  if (cx->stats.bytes_live > cx->pool.peak_live) cx->pool.peak_live = cx->stats.bytes_live;
  return buffer;
}

bp_buffer *bp_buffer_borrow(bp_context *cx, const bp_loan *loan) {
  borrowed *block = bp_resize(cx, NULL, 0, sizeof *block);
  if (block == NULL) return NULL;
  block->loan = *loan;
  block->buffer = (bp_buffer){.references = 2, .exposed = true, .block = block, .loan = &block->loan};
  enlist(cx, &block->buffer);
  return &block->buffer;
}

static void end_loan(bp_context *cx, bp_buffer *buffer) {
  bp_loan loan = *buffer->loan;
  give_back(cx, buffer);
  if (loan.release != NULL) loan.release(loan.context, loan.data);
}

/* One reference is left to the host where there is a loan. */
void bp_buffer_let_go(bp_context *cx, bp_buffer *buffer) {
  if (buffer->loan != NULL) {
    if (buffer->references == 1) end_loan(cx, buffer);
    return;
  }
  if (buffer->pending != 0) bp_pending_drop(cx, buffer);
  cx->stats.bytes_live -= buffer->capacity;
  if (cx->closed || !POOLED) {
    give_back(cx, buffer);
    return;
  }
  buffer->next = cx->pool.freed[buffer->size_class];
  cx->pool.freed[buffer->size_class] = buffer;
  cx->stats.bytes_pooled += buffer->capacity;
}

void bp_buffers_end(bp_context *cx) {
  bp_pool_drop(cx);
  while (cx->pool.all != NULL) {
    if (cx->pool.all->loan != NULL)
      end_loan(cx, cx->pool.all);
    else
      give_back(cx, cx->pool.all);
  }
}
