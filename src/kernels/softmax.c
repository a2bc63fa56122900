/* Softmax and its relatives, of whole arrays; loops/softmax.c does the rows. */
#include <math.h>

#include "kernels.h"

enum { BLOCK = 256 };

static const bp_map_loops *map_of(const bp_context *cx, const bp_array *x) {
  return bp_loops_of(cx, x->dtype)->map;
}

static const bp_softmax_loops *softmax_of(const bp_context *cx, const bp_array *x) {
  return bp_loops_of(cx, x->dtype)->softmax;
}

/* A vector is one row, and contiguous (BP_OP_CONTIGUOUS). */
static size_t row_count(const bp_array *x) {
  return x->rank == 1 ? 1 : x->rows;
}

static size_t row_length(const bp_array *x) {
  return x->rank == 1 ? x->rows : x->cols;
}

/* As the loops take them. */
#define ROWS(x) row_count(x), row_length(x)
#define DATA(x) (x)->data, (x)->stride

/* The logsumexp of BLOCK rows at most. In two parts, as the loops give it: a large one would swallow the other. */
typedef struct totals {
  double largest[BLOCK], log_total[BLOCK];
} totals;

/* logsumexp - x */
static double below(const totals *t, size_t k, double x) {
  return t->log_total[k] + (t->largest[k] - x);
}

/* Of rows `from` on the totals; the softmax in y, unless that is NULL, and the cross entropy. */
static double some_rows(bp_context *cx, const bp_array *x, const bp_array *target, const bp_array *y, size_t from,
                        size_t count, totals *sums) {
  const void *t = target != NULL ? bp_at(target, from, 0) : NULL;
  void *to = y != NULL ? bp_at(y, from, 0) : NULL;
  return softmax_of(cx, x)->softmax(count, row_length(x), bp_at(x, from, 0), x->stride, t,
                                    target != NULL ? target->stride : 0, to, y != NULL ? y->stride : 0, sums->largest,
                                    sums->log_total);
}

#define FOR_BLOCKS(rows, i, n) for (size_t i = 0, n; n = (rows)-i < BLOCK ? (rows)-i : BLOCK, i < (rows); i += n)

void bp_softmax(bp_context *cx, const bp_array *x, bp_array *y) {
  totals sums;
  FOR_BLOCKS(row_count(x), i, n) some_rows(cx, x, NULL, y, i, n, &sums);
}

void bp_softmax_adjoint(bp_context *cx, const bp_array *g, const bp_array *y, const bp_gradient *d) {
  bp_count_addition(cx, d);
  softmax_of(cx, y)->softmax_adjoint(ROWS(y), 1, DATA(g), DATA(y), DATA(&d->to), d->accumulate);
}

void bp_log_softmax(bp_context *cx, const bp_array *x, bp_array *y) {
  softmax_of(cx, x)->log_softmax(ROWS(x), DATA(x), DATA(y));
}

void bp_log_softmax_adjoint(bp_context *cx, const bp_array *g, const bp_array *y, const bp_gradient *d) {
  bp_count_addition(cx, d);
  softmax_of(cx, y)->log_softmax_adjoint(ROWS(y), 1, DATA(g), DATA(y), DATA(&d->to), d->accumulate);
}

/* ---- cross entropy ----------------------------------------------------------------------------------------------- */

static double row_element(const bp_array *x, size_t i, size_t j) {
  return x->rank == 1 ? bp_load(x, j, 0) : bp_load(x, i, j);
}

double bp_softmax_cross_entropy(bp_context *cx, const bp_array *x, const bp_array *target, const int64_t *classes,
                                bp_array *p) {
  double loss = 0;
  totals sums;
  FOR_BLOCKS(row_count(x), i, n) {
    loss += some_rows(cx, x, target, p, i, n, &sums);
    if (target != NULL) continue;
    for (size_t k = 0; k < n; k++) loss += below(&sums, k, row_element(x, i + k, (size_t)classes[i + k]));
  }
  return loss / (double)row_count(x);
}

/* d = g / rows (sum(t) p - t). */
void bp_softmax_cross_entropy_adjoint(bp_context *cx, double g, const bp_array *p, const bp_array *target,
                                      const int64_t *classes, const bp_gradient *d) {
  const double share = g / (double)row_count(p);
  bp_count_addition(cx, d);
  if (target != NULL) {
    softmax_of(cx, p)->cross_entropy_adjoint(ROWS(p), share, DATA(target), DATA(p), DATA(&d->to), d->accumulate);
    return;
  }
  bp_array to = d->to;
  bp_axpby(cx, share, p, d->accumulate ? 1 : 0, &to);
  for (size_t i = 0; i < row_count(p); i++) {
    const size_t row = p->rank == 1 ? (size_t)classes[0] : i, col = p->rank == 1 ? 0 : (size_t)classes[i];
    bp_store(&to, row, col, bp_load(&to, row, col) - share);
  }
}

void bp_softmax_cross_entropy_target_adjoint(bp_context *cx, double g, const bp_array *x, const bp_gradient *d) {
  const double share = g / (double)row_count(x);
  totals sums;
  bp_count_addition(cx, d);
  FOR_BLOCKS(row_count(x), i, n) {
    some_rows(cx, x, NULL, NULL, i, n, &sums);
    for (size_t k = i; k < i + n; k++)
      for (size_t j = 0; j < row_length(x); j++) {
        const double slope = share * below(&sums, k - i, row_element(x, k, j));
        const size_t row = x->rank == 1 ? j : k, col = x->rank == 1 ? 0 : j;
        bp_store(&d->to, row, col, d->accumulate ? bp_load(&d->to, row, col) + slope : slope);
      }
  }
}

/* ---- the logistic case: any shapes, element by element ----------------------------------------------------------- */

/* Blocks of the elements of two arrays of one shape, as doubles. */
typedef struct blocks {
  size_t rows, cols;
  double x[BLOCK], t[BLOCK];
} blocks;

static blocks blocks_of(const bp_array *x, const bp_array *t) {
  if (bp_is_contiguous(x) && bp_is_contiguous(t)) return (blocks){.rows = 1, .cols = bp_count(x)};
  return (blocks){.rows = x->rows, .cols = x->cols};
}

static size_t load_blocks(bp_context *cx, blocks *b, const bp_array *x, const bp_array *t, size_t i, size_t j) {
  size_t n = b->cols - j < BLOCK ? b->cols - j : BLOCK, offset = j * bp_element_size((bp_dtype)x->dtype);
  map_of(cx, x)->to_f64(n, (const char *)bp_at(x, i, 0) + offset, b->x);
  map_of(cx, t)->to_f64(n, (const char *)bp_at(t, i, 0) + offset, b->t);
  return n;
}

/* softplus(x) - t x as (1 - t) softplus(x) + t softplus(-x): a weight of 0 takes nothing from an infinite logit. */
double bp_sigmoid_cross_entropy(bp_context *cx, const bp_array *x, const bp_array *t) {
  const bp_map_loops *map = bp_loops_of(cx, BP_F64)->map;
  const double none[2] = {0, 0};
  blocks b = blocks_of(x, t);
  double loss = 0, positive[BLOCK], negative[BLOCK];
  for (size_t i = 0; i < b.rows; i++)
    for (size_t j = 0; j < b.cols; j += BLOCK) {
      size_t n = load_blocks(cx, &b, x, t, i, j);
      map->softplus_.forward(n, b.x, positive, none);
      map->negative_.forward(n, b.x, b.x, none);
      map->softplus_.forward(n, b.x, negative, none);
      for (size_t k = 0; k < n; k++) {
        loss += b.t[k] == 1 ? 0 : (1 - b.t[k]) * positive[k];
        loss += b.t[k] == 0 ? 0 : b.t[k] * negative[k];
      }
    }
  return loss;
}

void bp_sigmoid_cross_entropy_adjoint(bp_context *cx, double g, const bp_array *x, const bp_array *t,
                                      const bp_gradient *d) {
  const double none[2] = {0, 0};
  blocks b = blocks_of(x, t);
  if (!bp_is_contiguous(&d->to)) b.rows = x->rows, b.cols = x->cols;
  bp_count_addition(cx, d);
  for (size_t i = 0; i < b.rows; i++)
    for (size_t j = 0; j < b.cols; j += BLOCK) {
      size_t n = load_blocks(cx, &b, x, t, i, j);
      bp_loops_of(cx, BP_F64)->map->sigmoid_.forward(n, b.x, b.x, none);
      for (size_t k = 0; k < n; k++) b.x[k] = g * (b.x[k] - b.t[k]);
      for (size_t k = 0; k < n; k++) {
        double *slope = &b.x[k];
        bp_array place = d->to;
        place.data = (char *)bp_at(&d->to, i, 0) + (j + k) * bp_element_size((bp_dtype)d->to.dtype);
        bp_store(&place, 0, 0, d->accumulate ? bp_load(&place, 0, 0) + *slope : *slope);
      }
    }
}
