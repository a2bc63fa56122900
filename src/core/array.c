/* Shapes, windows and element access; see array.h. */
#include "array.h"

#include <stdio.h>

bp_array bp_shape_vector(size_t n, bp_dtype dtype) {
  return (bp_array){.rows = n, .cols = 1, .stride = 1, .rank = 1, .dtype = (uint8_t)dtype};
}

bp_array bp_shape_matrix(size_t rows, size_t cols, bp_dtype dtype) {
  return (bp_array){.rows = rows, .cols = cols, .stride = cols, .rank = 2, .dtype = (uint8_t)dtype};
}

double bp_load(const bp_array *array, size_t i, size_t j) {
  const void *place = bp_at(array, i, j);
  return array->dtype == BP_F64 ? *(const double *)place : (double)*(const float *)place;
}

void bp_store(const bp_array *array, size_t i, size_t j, double value) {
  void *place = bp_at(array, i, j);
  if (array->dtype == BP_F64)
    *(double *)place = value;
  else
    *(float *)place = (float)value;
}

bp_status bp_array_allocate(bp_context *cx, bp_array *array) {
  bp_buffer *buffer = bp_buffer_new(cx, bp_count(array) * bp_element_size((bp_dtype)array->dtype));
  if (buffer == NULL) return BP_NOMEM;
  array->buffer = buffer;
  array->data = bp_buffer_data(buffer);
  array->stride = array->cols;
  return BP_OK;
}

void bp_array_release(bp_context *cx, bp_array *array) {
  bp_buffer_release(cx, array->buffer);
  array->buffer = NULL;
  array->data = NULL;
}

bp_array bp_window_row(const bp_array *matrix, size_t i) {
  bp_array row = bp_shape_vector(matrix->cols, (bp_dtype)matrix->dtype);
  row.buffer = matrix->buffer;
  row.data = bp_at(matrix, i, 0);
  return row;
}

bp_array bp_window_column(const bp_array *matrix, size_t j) {
  bp_array column = bp_shape_vector(matrix->rows, (bp_dtype)matrix->dtype);
  column.buffer = matrix->buffer;
  column.data = bp_at(matrix, 0, j);
  column.stride = matrix->stride;
  return column;
}

bp_array bp_window_slice(const bp_array *array, size_t from, size_t count) {
  bp_array slice = *array;
  slice.data = bp_at(array, from, 0);
  slice.rows = count;
  return slice;
}

bp_array bp_window_reshape(const bp_array *contiguous, const bp_array *shape) {
  bp_array window = *shape;
  window.buffer = contiguous->buffer;
  window.data = contiguous->data;
  window.stride = window.cols;
  return window;
}

/* A contiguous array is one run of elements. */
static size_t run_count(const bp_array *array) {
  return bp_is_contiguous(array) ? 1 : array->rows;
}

static size_t run_length(const bp_array *array) {
  return bp_is_contiguous(array) ? bp_count(array) : array->cols;
}

/* Runs of a window follow each other at one distance, so that those which may meet a run of another need no search. */
bool bp_overlap(const bp_array *a, const bp_array *b) {
  if (a->buffer != b->buffer || a->buffer == NULL || bp_count(a) == 0 || bp_count(b) == 0) return false;
  ptrdiff_t size = (ptrdiff_t)bp_element_size((bp_dtype)a->dtype), stride = (ptrdiff_t)b->stride;
  ptrdiff_t a_length = (ptrdiff_t)run_length(a), b_length = (ptrdiff_t)run_length(b);
  ptrdiff_t runs = (ptrdiff_t)run_count(b);
  for (size_t i = 0; i < run_count(a); i++) {
    /* Run k of b begins at k * stride - ahead from this one: the last that begins before its end is the one to meet. */
    ptrdiff_t ahead = ((const char *)bp_at(a, i, 0) - (const char *)b->data) / size;
    if (ahead + a_length <= 0) continue;
    ptrdiff_t k = runs == 1 ? 0 : (ahead + a_length - 1) / stride;
    if (k >= runs) k = runs - 1;
    if (k * stride + b_length > ahead) return true;
  }
  return false;
}

bp_shape_text bp_describe(const bp_array *array) {
  bp_shape_text shape;
  if (array->rank == 0)
    snprintf(shape.text, sizeof shape.text, "a number");
  else if (array->rank == 1)
    snprintf(shape.text, sizeof shape.text, "%zu", array->rows);
  else
    snprintf(shape.text, sizeof shape.text, "%zux%zu", array->rows, array->cols);
  return shape;
}

const char *bp_dtype_name(unsigned dtype) {
  return dtype == BP_F64 ? "f64" : "f32";
}
