/* Buffers: 64-byte aligned, reference-counted, versioned storage, and the pool that keeps freed ones warm.
 *
 * A fresh block of some megabytes costs more in page faults than the arithmetic done in it, so a freed buffer goes to
 * a list of its size class and the next request of that class takes the one freed last. The version counts in-place
 * writes: a tape compares it to learn that a recorded value is gone.
 *
 * A borrowed buffer is the header of memory that belongs to the host: of no capacity, never pooled. The host counts as
 * one of its owners, so that whoever asks whether it is the only one (to write there, to take it over) hears no. */
#ifndef BP_CORE_BUFFER_H
#define BP_CORE_BUFFER_H

#include "../backprop.h"

/* What the host wants to hear, once, when its memory is no longer in use. */
typedef struct bp_loan {
  void (*release)(void *context, void *data); /* may be NULL */
  void *context, *data;
} bp_loan;

struct bp_buffer {
  size_t capacity; /* usable bytes: those of its size class */
  uint8_t size_class;
  bool exposed : 1; /* the host has its address, and may write there at any time */
  bool waited : 1;  /* a pending matrix may wait with it */
  uint16_t pending; /* its place among the pending matrices, else 0 */
  uint32_t references;
  uint32_t version;
  uint32_t receiving;        /* in how many places it is to receive a gradient */
  bp_buffer *next;           /* in the pool: freed before this one */
  void *block;               /* what the allocator gave; the buffer stands inside it, aligned */
  const bp_loan *loan;       /* of a borrowed buffer, else NULL */
  bp_buffer *before, *after; /* in the context's list of all that it has from the allocator */
};

enum { BP_ALIGNMENT = 64, BP_SIZE_CLASSES = 128 };

typedef struct bp_pool {
  size_t peak_live;
  size_t handed_out;                 /* bytes of all buffers so far */
  bp_buffer *all;                    /* what there is, in use or not */
  bp_buffer *freed[BP_SIZE_CLASSES]; /* most recently freed first */
} bp_pool;

/* A buffer of at least `bytes` with one reference, or NULL when the allocator refuses. */
bp_buffer *bp_buffer_new(bp_context *cx, size_t bytes);

/* The header of the host's memory with one reference beside the host's, or NULL when the allocator refuses. */
bp_buffer *bp_buffer_borrow(bp_context *cx, const bp_loan *loan);

/* Nobody has the buffer any more, or it is borrowed and one less has it. */
void bp_buffer_let_go(bp_context *cx, bp_buffer *buffer);

/* Gives one reference back; the last one sends the buffer to the pool, or ends the loan. NULL is allowed. */
static inline void bp_buffer_release(bp_context *cx, bp_buffer *buffer) {
  if (buffer != NULL && (--buffer->references == 0 || buffer->loan != NULL)) bp_buffer_let_go(cx, buffer);
}

static inline void bp_buffer_retain(bp_buffer *buffer) {
  if (buffer != NULL) buffer->references++;
}

static inline void *bp_buffer_data(bp_buffer *buffer) {
  return (char *)buffer + BP_ALIGNMENT;
}

/* Whether there is a freed one for so many bytes. */
bool bp_pool_has(const bp_context *cx, size_t bytes);

/* Returns all pooled buffers to the allocator. */
void bp_pool_drop(bp_context *cx);

/* Returns what is still in use, too. Lua calls no finalizers of objects that are made while a state ends (by other
 * finalizers): their buffers would be lost. */
void bp_buffers_end(bp_context *cx);

#endif
