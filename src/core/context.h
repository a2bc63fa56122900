/* The context: what one Lua state owns. Everything that would be a global elsewhere stands here, so that any number
 * of states can live in one process. The core never prints, aborts or jumps: a function that can fail returns a
 * bp_status, and the message of a BP_INVALID is in the context. */
#ifndef BP_CORE_CONTEXT_H
#define BP_CORE_CONTEXT_H

#include "../backprop.h"
#include "buffer.h"

/* Has the type of lua_Alloc, which is what it is. */
typedef void *bp_allocator(void *data, void *block, size_t old_size, size_t new_size);

/* Counted where they happen; what bp.stats() shows. */
typedef struct bp_stats {
  size_t nodes;        /* operations recorded */
  size_t additions;    /* contributions added to a cotangent that was there */
  size_t zero_fills;   /* arrays or numbers of a gradient filled with zeros */
  size_t bytes_live;   /* in buffers in use */
  size_t bytes_pooled; /* in buffers kept for reuse */
  size_t allocations;  /* blocks asked of the allocator */
} bp_stats;

/* A matrix to be computed, or updated; see pending.h. */
typedef struct bp_pending {
  bp_array to;
  bp_factors factors;
  bool adds; /* the product is to be added to what stands there */
} bp_pending;

struct bp_loops;
struct bp_tape;

/* What every operation looks at stands together at the beginning: a step that streams megabytes through the cache has
 * to fetch each line of this again. */
struct bp_context {
  const struct bp_loops *loops[2]; /* the kernels of the processor's SIMD level, by dtype */
  bool check_finite;               /* the first operation that makes a NaN or inf is an error */
  bool timing;                     /* every node notes what its rules took */
  bool products_wait;              /* a pullback runs: see pending.h */
  bool closed;                     /* the state is ending: nothing can be allocated any more */
  uint16_t pending_count, pending_products;
  uint16_t receiving_sweeps; /* that run, and whose gradients go to arrays of the caller's */
  bp_stats stats;
  bp_pool pool;
  bp_allocator *allocate;
  void *allocator_data;
  int64_t blas_time;       /* nanoseconds in BLAS since timing began */
  struct bp_tape *keepers; /* sweeps that keep factors, to be multiplied at the end */
  bp_pending *pending;
  size_t pending_capacity;
  size_t pending_bytes; /* of the products that wait */
  char message[512];
};

void bp_context_open(bp_context *cx, bp_allocator *allocate, void *allocator_data);
void bp_context_close(bp_context *cx);

/* Sets the message and returns BP_INVALID. */
bp_status bp_fail(bp_context *cx, const char *format, ...) __attribute__((cold, format(printf, 2, 3)));

/* Plain memory of the state's allocator: for tapes and lists. NULL when it refuses; size 0 frees. */
void *bp_resize(bp_context *cx, void *block, size_t old_size, size_t new_size);

/* Makes room for one more element in a growable list; the list stays as it was when memory runs out. */
bp_status bp_grow(bp_context *cx, void **list, size_t *capacity, size_t needed, size_t element_size);

#endif
