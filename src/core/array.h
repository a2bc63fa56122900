/* Arrays: shape, dtype and a window over a buffer. The functions here know shapes and storage, not numbers; what an
 * element is made of is known to the kernels alone. */
#ifndef BP_CORE_ARRAY_H
#define BP_CORE_ARRAY_H

#include "context.h"

/* The largest number of rows, columns and elements: what a BLAS built with 32-bit integers can address. */
#define BP_MAX_ELEMENTS ((size_t)INT32_MAX)

/* Shapes without storage. */
static inline bp_array bp_shape_number(void) {
  return (bp_array){.rows = 1, .cols = 1, .stride = 1, .rank = 0, .dtype = BP_F64};
}

static inline bp_array bp_shape_like(const bp_array *array) {
  return (bp_array){
      .rows = array->rows, .cols = array->cols, .stride = array->cols, .rank = array->rank, .dtype = array->dtype};
}

bp_array bp_shape_vector(size_t n, bp_dtype dtype);
bp_array bp_shape_matrix(size_t rows, size_t cols, bp_dtype dtype);

static inline size_t bp_element_size(bp_dtype dtype) {
  return dtype == BP_F64 ? sizeof(double) : sizeof(float);
}

/* Whether a value is 0 as an element. */
static inline bool bp_vanishes(double value, unsigned dtype) {
  return dtype == BP_F32 ? (float)value == 0 : value == 0;
}

static inline size_t bp_count(const bp_array *array) {
  return array->rows * array->cols;
}

static inline bool bp_is_contiguous(const bp_array *array) {
  return array->stride == array->cols || array->rows <= 1;
}

static inline bool bp_same_shape(const bp_array *a, const bp_array *b) {
  return a->rank == b->rank && a->rows == b->rows && a->cols == b->cols;
}

static inline void *bp_at(const bp_array *array, size_t i, size_t j) {
  return (char *)array->data + (i * array->stride + j) * bp_element_size((bp_dtype)array->dtype);
}

/* The one element of an array as a double, and back: for numbers and for element access. */
double bp_load(const bp_array *array, size_t i, size_t j);
void bp_store(const bp_array *array, size_t i, size_t j, double value);

/* A number standing at `place`, which the caller keeps alive. */
static inline bp_array bp_number_at(double *place) {
  bp_array number = bp_shape_number();
  number.data = place;
  return number;
}

/* Gives a shaped array storage of its own: contiguous, not filled. */
bp_status bp_array_allocate(bp_context *cx, bp_array *array);

/* Gives the array's reference back and forgets it. */
void bp_array_release(bp_context *cx, bp_array *array);

/* Windows: they share the buffer but take no reference. Positions from 0; the caller has checked them. */
bp_array bp_window_row(const bp_array *matrix, size_t i);
bp_array bp_window_column(const bp_array *matrix, size_t j);
bp_array bp_window_slice(const bp_array *array, size_t from, size_t count);
bp_array bp_window_reshape(const bp_array *contiguous, const bp_array *shape);

/* Whether two windows have an element in common. */
bool bp_overlap(const bp_array *a, const bp_array *b);

/* "300x784", "10" or "a number", for messages. */
typedef struct bp_shape_text {
  char text[48];
} bp_shape_text;
bp_shape_text bp_describe(const bp_array *array);
const char *bp_dtype_name(unsigned dtype);

#endif
