/* Softmax and its relatives, shifted by the largest element so that nothing overflows. */
#include <math.h>

#include "kernels.h"

/* A vector is one row, and contiguous (BP_OP_CONTIGUOUS). */
static size_t row_count(const bp_array *x) {
  return x->rank == 1 ? 1 : x->rows;
}

static size_t row_length(const bp_array *x) {
  return x->rank == 1 ? x->rows : x->cols;
}

static void *row_at(const bp_array *x, size_t i) {
  return bp_at(x, x->rank == 1 ? 0 : i, 0);
}

static const bp_map_loops *map_of(const bp_context *cx, const bp_array *x) {
  return bp_loops_of(cx, x->dtype)->map;
}

static const bp_reduce_loops *reduce_of(const bp_context *cx, const bp_array *x) {
  return bp_loops_of(cx, x->dtype)->reduce;
}

/* p = softmax of row i; returns logsumexp of the row. */
static double softmax_row(bp_context *cx, const bp_array *x, size_t i, bp_array *p) {
  size_t n = row_length(x);
  double shift = reduce_of(cx, x)->largest(n, row_at(x, i));
  double total = reduce_of(cx, x)->exp_shifted(n, shift, row_at(x, i), row_at(p, i));
  map_of(cx, x)->axpby(n, 1 / total, row_at(p, i), 0, row_at(p, i));
  return shift + log(total);
}

void bp_softmax(bp_context *cx, const bp_array *x, bp_array *y) {
  for (size_t i = 0; i < row_count(x); i++) softmax_row(cx, x, i, y);
}

/* d = y (g - sum(g y)): in two steps, d = -sum(g y) y and then d += g y. */
void bp_softmax_adjoint(bp_context *cx, const bp_array *g, const bp_array *y, const bp_gradient *d) {
  bp_count_addition(cx, d);
  size_t n = row_length(y);
  const bp_binary *mul = &map_of(cx, y)->mul_;
  for (size_t i = 0; i < row_count(y); i++) {
    double inner = reduce_of(cx, y)->dot(n, row_at(g, i), row_at(y, i));
    map_of(cx, y)->axpby(n, -inner, row_at(y, i), d->accumulate ? 1 : 0, row_at(&d->to, i));
    mul->backward[0](n, row_at(g, i), row_at(y, i), 1, row_at(y, i), 1, row_at(y, i), row_at(&d->to, i), true);
  }
}

void bp_log_softmax(bp_context *cx, const bp_array *x, bp_array *y) {
  size_t n = row_length(x);
  for (size_t i = 0; i < row_count(x); i++) {
    double shift = reduce_of(cx, x)->largest(n, row_at(x, i));
    double total = reduce_of(cx, x)->sum_exp(n, shift, row_at(x, i));
    double sum[1] = {shift + log(total)};
    float narrow[1] = {(float)sum[0]};
    map_of(cx, x)->sub_.forward(n, row_at(x, i), 1, x->dtype == BP_F64 ? (void *)sum : (void *)narrow, 0, row_at(y, i));
  }
}

/* d = g - sum(g) exp(y), through a small block for the exponentials. */
void bp_log_softmax_adjoint(bp_context *cx, const bp_array *g, const bp_array *y, const bp_gradient *d) {
  enum { BLOCK = 256 };
  union {
    double f64[BLOCK];
    float f32[BLOCK];
  } block;
  bp_count_addition(cx, d);
  size_t n = row_length(y), size = bp_element_size((bp_dtype)y->dtype);
  for (size_t i = 0; i < row_count(y); i++) {
    double total = reduce_of(cx, y)->sum(n, row_at(g, i));
    char *gs = row_at(g, i), *ys = row_at(y, i), *ds = row_at(&d->to, i);
    for (size_t j = 0; j < n; j += BLOCK) {
      size_t m = n - j < BLOCK ? n - j : BLOCK;
      reduce_of(cx, y)->exp_shifted(m, 0, ys + j * size, &block);
      map_of(cx, y)->axpby(m, 1, gs + j * size, d->accumulate ? 1 : 0, ds + j * size);
      map_of(cx, y)->axpby(m, -total, &block, 1, ds + j * size);
    }
  }
}

/* ---- cross entropy ----------------------------------------------------------------------------------------------- */

static double row_element(const bp_array *x, size_t i, size_t j) {
  return x->rank == 1 ? bp_load(x, j, 0) : bp_load(x, i, j);
}

/* A target of 0 takes nothing from a logit of -inf: 0 log 0 is 0. */
static double cross_entropy_row(const bp_array *x, const bp_array *target, size_t i, double logsumexp) {
  double loss = 0;
  for (size_t j = 0; j < row_length(x); j++) {
    double t = row_element(target, i, j);
    if (t != 0) loss += t * (logsumexp - row_element(x, i, j));
  }
  return loss;
}

double bp_softmax_cross_entropy(bp_context *cx, const bp_array *x, const bp_array *target, const int64_t *classes,
                                bp_array *p) {
  double loss = 0;
  for (size_t i = 0; i < row_count(x); i++) {
    double logsumexp = softmax_row(cx, x, i, p);
    loss += target != NULL ? cross_entropy_row(x, target, i, logsumexp)
                           : logsumexp - row_element(x, i, (size_t)classes[i]);
  }
  return loss / (double)row_count(x);
}

/* d = g / rows (sum(t) p - t). */
void bp_softmax_cross_entropy_adjoint(bp_context *cx, double g, const bp_array *p, const bp_array *target,
                                      const int64_t *classes, const bp_gradient *d) {
  bp_count_addition(cx, d);
  size_t n = row_length(p);
  double share = g / (double)row_count(p);
  for (size_t i = 0; i < row_count(p); i++) {
    double total = target != NULL ? reduce_of(cx, p)->sum(n, row_at(target, i)) : 1;
    map_of(cx, p)->axpby(n, share * total, row_at(p, i), d->accumulate ? 1 : 0, row_at(&d->to, i));
    if (target != NULL) {
      map_of(cx, p)->axpby(n, -share, row_at(target, i), 1, row_at(&d->to, i));
    } else {
      size_t row = p->rank == 1 ? (size_t)classes[0] : i, col = p->rank == 1 ? 0 : (size_t)classes[i];
      bp_store(&d->to, row, col, bp_load(&d->to, row, col) - share);
    }
  }
}

void bp_softmax_cross_entropy_target_adjoint(bp_context *cx, double g, const bp_array *x, const bp_gradient *d) {
  bp_count_addition(cx, d);
  size_t n = row_length(x);
  double share = g / (double)row_count(x);
  for (size_t i = 0; i < row_count(x); i++) {
    double shift = reduce_of(cx, x)->largest(n, row_at(x, i));
    double logsumexp = shift + log(reduce_of(cx, x)->sum_exp(n, shift, row_at(x, i)));
    for (size_t j = 0; j < n; j++) {
      double slope = share * (logsumexp - row_element(x, i, j));
      size_t row = x->rank == 1 ? j : i, col = x->rank == 1 ? 0 : j;
      bp_store(&d->to, row, col, d->accumulate ? bp_load(&d->to, row, col) + slope : slope);
    }
  }
}

/* ---- the logistic case: any shapes, element by element ----------------------------------------------------------- */

/* Blocks of the elements of two arrays of one shape, as doubles. */
enum { BLOCK = 256 };

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
