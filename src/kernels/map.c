/* Element-wise kernels. An array takes part in a walk as a lane; the walk cuts all lanes into runs that the loops can
 * take, and the three kinds of broadcasting are steps of 0. */
#include "kernels.h"

/* How one array takes part in an element-wise loop: bytes from one row of the result to the next, and from one element
 * of a row to the next. A number, or a vector that a matrix's rows share, has steps of 0. */
typedef struct lane {
  char *base;
  size_t row, element;
  union {
    double f64;
    float f32;
  } number; /* a number in the loop's dtype */
} lane;

/* The result seen as rows of runs. */
typedef struct walk {
  unsigned dtype;
  size_t rows, cols; /* a vector is one row */
  size_t run;        /* elements handled by one call of a loop: cols, or 1 where some lane is strided */
  bool flat;         /* every lane so far continues from row to row */
} walk;

static walk walk_over(const bp_array *shape, unsigned dtype) {
  walk w = {.dtype = dtype, .flat = true};
  w.rows = shape->rank == 2 ? shape->rows : 1;
  w.cols = shape->rank == 2 ? shape->cols : shape->rows;
  w.run = w.cols;
  return w;
}

/* Joins an array to a walk. */
static lane join(walk *w, const bp_array *x) {
  lane l = {.base = x->data};
  size_t size = bp_element_size((bp_dtype)w->dtype);
  if (x->rank == 0) return l;
  if (x->rank == 1) {
    l.element = x->stride * size;
    if (x->stride != 1 && w->cols > 1) w->run = 1;
    if (w->rows != 1) w->flat = false;
  } else {
    l.element = size;
    l.row = x->stride * size;
    if (x->stride != w->cols) w->flat = false;
  }
  return l;
}

/* Done after all joined: numbers get the dtype of the loop, and rows that follow each other become one. The lanes must
 * stay where they are, since a number's lane points into itself. */
static void settle(walk *w, lane *lanes, size_t count) {
  for (size_t k = 0; k < count; k++) {
    lane *l = &lanes[k];
    if (l->element != 0 || l->base == NULL || w->dtype == BP_F64) continue;
    l->number.f32 = (float)*(const double *)(const void *)l->base;
    l->base = (char *)&l->number;
  }
  if (w->flat && w->rows != 1) {
    w->cols *= w->rows;
    w->run = w->cols;
    w->rows = 1;
  }
}

static inline void *at(const lane *l, size_t i, size_t j) {
  return l->base + i * l->row + j * l->element;
}

#define FOR_RUNS(w)                     \
  for (size_t i = 0; i < (w).rows; i++) \
    for (size_t j = 0; j < (w).cols; j += (w).run)

static const bp_map_loops *map_of(bp_context *cx, unsigned dtype) {
  return bp_loops_of(cx, dtype)->map;
}

/* The usual case needs no walk: arrays of one shape, whose elements follow each other, are one run. */
static bool one_run(const bp_array *x, const bp_array *y) {
  return x->rank == y->rank && x->rows == y->rows && x->cols == y->cols && x->stride == x->cols && y->stride == y->cols;
}

void bp_count_addition(bp_context *cx, const bp_gradient *d) {
  if (d->accumulate) cx->stats.additions++;
}

/* ---- one operand ------------------------------------------------------------------------------------------------- */

void bp_map_unary(bp_context *cx, size_t loop, const double *parameters, const bp_array *x, bp_array *y) {
  const bp_unary *f = BP_LOOP_AT(bp_unary, cx, y->dtype, loop);
  if (one_run(x, y)) {
    f->forward(bp_count(y), x->data, y->data, parameters);
    return;
  }
  walk w = walk_over(y, y->dtype);
  lane lanes[] = {join(&w, x), join(&w, y)};
  settle(&w, lanes, 2);
  FOR_RUNS(w) f->forward(w.run, at(&lanes[0], i, j), at(&lanes[1], i, j), parameters);
}

void bp_map_unary_adjoint(bp_context *cx, size_t loop, const double *parameters, const bp_array *g, const bp_array *x,
                          const bp_array *y, const bp_gradient *d) {
  const bp_unary *f = BP_LOOP_AT(bp_unary, cx, y->dtype, loop);
  bp_count_addition(cx, d);
  if (one_run(x, y) && one_run(g, &d->to) && one_run(x, g)) {
    f->backward(bp_count(y), g->data, x->data, y->data, d->to.data, d->accumulate, parameters);
    return;
  }
  walk w = walk_over(y, y->dtype);
  lane lanes[] = {join(&w, g), join(&w, x), join(&w, y), join(&w, &d->to)};
  settle(&w, lanes, 4);
  FOR_RUNS(w)
  f->backward(w.run, at(&lanes[0], i, j), at(&lanes[1], i, j), at(&lanes[2], i, j), at(&lanes[3], i, j), d->accumulate,
              parameters);
}

/* ---- two operands ------------------------------------------------------------------------------------------------ */

void bp_map_binary(bp_context *cx, size_t loop, const bp_array *x, const bp_array *y, bp_array *z) {
  const bp_binary *f = BP_LOOP_AT(bp_binary, cx, z->dtype, loop);
  if (one_run(x, y) && one_run(x, z)) {
    f->forward(bp_count(z), x->data, 1, y->data, 1, z->data);
    return;
  }
  walk w = walk_over(z, z->dtype);
  lane lanes[] = {join(&w, x), join(&w, y), join(&w, z)};
  settle(&w, lanes, 3);
  FOR_RUNS(w)
  f->forward(w.run, at(&lanes[0], i, j), lanes[0].element, at(&lanes[1], i, j), lanes[1].element, at(&lanes[2], i, j));
}

enum { BLOCK = 256 };

/* An adjoint summed to one number: block by block through a small local array. `adjoint` fills it for a run. */
typedef struct summed {
  double total;
  union {
    double f64[BLOCK];
    float f32[BLOCK];
  } block;
} summed;

static void add_block(bp_context *cx, summed *s, unsigned dtype, size_t n) {
  s->total += bp_loops_of(cx, dtype)->reduce->sum(n, &s->block);
}

static size_t block_length(size_t run, size_t done) {
  return run - done < BLOCK ? run - done : BLOCK;
}

/* The cotangent of a vector that all rows of a matrix share is summed over them. Without rows it is zero. */
static bool shared_by_no_row(bp_context *cx, const walk *w, const bp_gradient *d) {
  if (w->rows != 0) return false;
  bp_array to = d->to;
  if (!d->accumulate) bp_fill(cx, &to, 0);
  return true;
}

void bp_map_binary_adjoint(bp_context *cx, size_t loop, int side, const bp_array *g, const bp_array *x,
                           const bp_array *y, const bp_array *z, const bp_gradient *d) {
  const bp_binary *f = BP_LOOP_AT(bp_binary, cx, z->dtype, loop);
  bp_count_addition(cx, d);
  if (one_run(x, y) && one_run(x, z) && one_run(g, &d->to) && one_run(x, g)) {
    f->backward[side](bp_count(z), g->data, x->data, 1, y->data, 1, z->data, d->to.data, d->accumulate);
    return;
  }
  walk w = walk_over(z, z->dtype);
  lane lanes[] = {join(&w, g), join(&w, x), join(&w, y), join(&w, z), join(&w, &d->to)};
  size_t x_step = lanes[1].element, y_step = lanes[2].element;
  if (d->to.rank == 0) {
    size_t size = bp_element_size((bp_dtype)w.dtype);
    summed s = {.total = 0};
    settle(&w, lanes, 4);
    FOR_RUNS(w)
    for (size_t k = 0; k < w.run; k += BLOCK) {
      size_t n = block_length(w.run, k), offset = k * size;
      f->backward[side](n, (char *)at(&lanes[0], i, j) + offset, (char *)at(&lanes[1], i, j) + (x_step ? offset : 0),
                        x_step, (char *)at(&lanes[2], i, j) + (y_step ? offset : 0), y_step,
                        (char *)at(&lanes[3], i, j) + offset, &s.block, false);
      add_block(cx, &s, w.dtype, n);
    }
    double *to = d->to.data;
    *to = d->accumulate ? *to + s.total : s.total;
    return;
  }
  if (shared_by_no_row(cx, &w, d)) return;
  bool shared = d->to.rank < z->rank;
  settle(&w, lanes, 5);
  FOR_RUNS(w)
  f->backward[side](w.run, at(&lanes[0], i, j), at(&lanes[1], i, j), x_step, at(&lanes[2], i, j), y_step,
                    at(&lanes[3], i, j), at(&lanes[4], i, j), d->accumulate || (shared && i > 0));
}

/* ---- where ------------------------------------------------------------------------------------------------------- */

void bp_map_where(bp_context *cx, const bp_array *c, const bp_array *a, const bp_array *b, bp_array *y) {
  const bp_map_loops *map = map_of(cx, y->dtype);
  walk w = walk_over(y, y->dtype);
  lane lanes[] = {join(&w, c), join(&w, a), join(&w, b), join(&w, y)};
  settle(&w, lanes, 4);
  FOR_RUNS(w)
  map->where(w.run, at(&lanes[0], i, j), lanes[0].element != 0, at(&lanes[1], i, j), lanes[1].element != 0,
             at(&lanes[2], i, j), lanes[2].element != 0, at(&lanes[3], i, j));
}

void bp_map_where_adjoint(bp_context *cx, int side, const bp_array *g, const bp_array *c, const bp_gradient *d) {
  const bp_map_loops *map = map_of(cx, g->rank == 0 ? BP_F64 : g->dtype);
  bp_count_addition(cx, d);
  walk w = walk_over(g, g->dtype);
  lane lanes[] = {join(&w, g), join(&w, c), join(&w, &d->to)};
  size_t c_step = lanes[1].element != 0;
  if (d->to.rank == 0) {
    size_t size = bp_element_size((bp_dtype)w.dtype);
    summed s = {.total = 0};
    settle(&w, lanes, 2);
    FOR_RUNS(w)
    for (size_t k = 0; k < w.run; k += BLOCK) {
      size_t n = block_length(w.run, k), offset = k * size;
      map->where_backward(n, (char *)at(&lanes[0], i, j) + offset, (char *)at(&lanes[1], i, j) + c_step * offset,
                          c_step, side, &s.block, false);
      add_block(cx, &s, w.dtype, n);
    }
    double *to = d->to.data;
    *to = d->accumulate ? *to + s.total : s.total;
    return;
  }
  if (shared_by_no_row(cx, &w, d)) return;
  bool shared = d->to.rank < g->rank;
  settle(&w, lanes, 3);
  FOR_RUNS(w)
  map->where_backward(w.run, at(&lanes[0], i, j), at(&lanes[1], i, j), c_step, side, at(&lanes[2], i, j),
                      d->accumulate || (shared && i > 0));
}

/* ---- moving ------------------------------------------------------------------------------------------------------ */

void bp_fill(bp_context *cx, bp_array *d, double value) {
  if (d->stride == d->cols) {
    map_of(cx, d->dtype)->fill(bp_count(d), value, d->data);
    return;
  }
  walk w = walk_over(d, d->dtype);
  lane lanes[] = {join(&w, d)};
  settle(&w, lanes, 1);
  FOR_RUNS(w) map_of(cx, d->dtype)->fill(w.run, value, at(&lanes[0], i, j));
}

void bp_zero_fill(bp_context *cx, bp_array *d) {
  cx->stats.zero_fills++;
  bp_fill(cx, d, 0);
}

void bp_axpby(bp_context *cx, double a, const bp_array *x, double b, bp_array *d) {
  const bp_map_loops *map = map_of(cx, d->dtype);
  if (x->rank == 0 && d->rank != 0) {
    double addend = a * *(const double *)x->data;
    if (b == 0) {
      bp_fill(cx, d, addend);
      return;
    }
    if (b != 1) bp_axpby(cx, b, d, 0, d);
    bp_array number = bp_number_at(&addend);
    bp_map_binary(cx, BP_LOOP(add), d, &number, d);
    return;
  }
  if (one_run(x, d)) {
    if (a == 1 && b == 0)
      map->copy(bp_count(d), x->data, d->data);
    else
      map->axpby(bp_count(d), a, x->data, b, d->data);
    return;
  }
  walk w = walk_over(d, d->dtype);
  lane lanes[] = {join(&w, x), join(&w, d)};
  settle(&w, lanes, 2);
  FOR_RUNS(w) {
    if (a == 1 && b == 0)
      map->copy(w.run, at(&lanes[0], i, j), at(&lanes[1], i, j));
    else
      map->axpby(w.run, a, at(&lanes[0], i, j), b, at(&lanes[1], i, j));
  }
}

void bp_contribute(bp_context *cx, double a, const bp_array *x, const bp_gradient *d) {
  bp_array to = d->to;
  bp_count_addition(cx, d);
  bp_axpby(cx, a, x, d->accumulate ? 1 : 0, &to);
}

void bp_contribute_number(bp_context *cx, double value, const bp_gradient *d) {
  bp_array number = bp_number_at(&value);
  bp_contribute(cx, 1, &number, d);
}

/* The adjoint of the first operand of a sum, which stands for its shape only. A number is read all the same, and what
 * stands in the destination may never have been written: so it is one of our own, or a part of g. */
void bp_contribute_summed(bp_context *cx, const bp_array *g, const bp_gradient *d) {
  double zero = 0;
  bp_array operand = *g;
  if (d->to.rank == 0)
    operand = bp_number_at(&zero);
  else if (d->to.rank < g->rank)
    operand = bp_window_row(g, 0);
  bp_map_binary_adjoint(cx, BP_LOOP(add), 0, g, &operand, g, g, d);
}

void bp_contribute_converted(bp_context *cx, const bp_array *x, const bp_gradient *d) {
  double line[BLOCK];
  const bp_map_loops *from = map_of(cx, x->dtype), *to = map_of(cx, d->to.dtype);
  size_t x_size = bp_element_size((bp_dtype)x->dtype), d_size = bp_element_size((bp_dtype)d->to.dtype);
  bp_count_addition(cx, d);
  /* A run is a row, or everything; a strided vector has rows of one element. */
  bool one_run = bp_is_contiguous(x) && bp_is_contiguous(&d->to);
  size_t rows = one_run ? 1 : x->rows, cols = one_run ? bp_count(x) : x->cols;
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < cols; j += BLOCK) {
      size_t n = block_length(cols, j);
      union {
        double f64[BLOCK];
        float f32[BLOCK];
      } block;
      from->to_f64(n, (char *)bp_at(x, i, 0) + j * x_size, line);
      to->from_f64(n, line, &block);
      to->axpby(n, 1, &block, d->accumulate ? 1 : 0, (char *)bp_at(&d->to, i, 0) + j * d_size);
    }
}

void bp_adam_step(bp_context *cx, bp_array *x, const bp_array *g, bp_array *m, bp_array *v, const bp_adam *step) {
  walk w = walk_over(x, x->dtype);
  lane lanes[] = {join(&w, x), join(&w, g), join(&w, m), join(&w, v)};
  settle(&w, lanes, 4);
  FOR_RUNS(w)
  map_of(cx, x->dtype)
      ->adam(w.run, at(&lanes[0], i, j), at(&lanes[1], i, j), at(&lanes[2], i, j), at(&lanes[3], i, j), step);
}
