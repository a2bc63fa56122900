/* robust.smooth_l1(x, y [, beta = 1]): a loss that is a parabola near zero and straight further out, so that an outlier
 * pulls with a force of at most 1 (P. J. Huber, 1964; this scaling: R. Girshick, Fast R-CNN, 2015). Element by element,
 * with d = x - y:
 *
 *   d^2 / (2 beta)   where |d| < beta          its derivative by x:   d / beta
 *   |d| - beta / 2   elsewhere                                        the sign of d
 *
 * This is the whole of a C extension: a shape rule, forward, backward, the row that names them, and luaopen_. It links
 * to no symbol of the library: everything goes through the table that bp_get_api returns, one for all Lua states. */
#include <lua.h>
#include <lauxlib.h>

#include "backprop.h"

/* The shape of the result from those of the inputs; wrong calls are refused here, before anything is recorded. */
static bp_status shape(bp_call *call) {
  const bp_api *api = call->op->data;
  const bp_array *x = &call->input[0], *y = &call->input[1];
  const double beta = call->attributes->number[0];
  if (x->rank != y->rank || x->rows != y->rows || x->cols != y->cols)
    return api->fail(call, "x and y must have one shape, not %zux%zu and %zux%zu", x->rows, x->cols, y->rows, y->cols);
  if (x->dtype != y->dtype) return api->fail(call, "x and y must have one dtype: convert one with astype");
  if (!(beta > 0)) return api->fail(call, "beta must be positive, not %g", beta);
  const bp_dtype dtype = (bp_dtype)x->dtype;
  call->result[0] = x->rank == 0   ? api->number()
                    : x->rank == 1 ? api->vector(x->rows, dtype)
                                   : api->matrix(x->rows, x->cols, dtype);
  return BP_OK;
}

/* Forward and backward for one element type. Any matrix may be a window, so its rows are `stride` elements apart; a
 * vector is one row (its elements are adjacent: BP_OP_CONTIGUOUS). A destination holds garbage unless `accumulate` says
 * that there is something to add to. */
static size_t rows_of(const bp_array *a) {
  return a->rank == 2 ? a->rows : 1;
}

static size_t cols_of(const bp_array *a) {
  return a->rank == 2 ? a->cols : a->rows;
}

#define SMOOTH_L1(REAL)                                                                      \
  static REAL *row_##REAL(const bp_array *a, size_t i) {                                     \
    return (REAL *)a->data + i * a->stride;                                                  \
  }                                                                                          \
  static void forward_##REAL(const bp_call *call) {                                          \
    const bp_array *z = &call->result[0];                                                    \
    const REAL beta = (REAL)call->attributes->number[0];                                     \
    for (size_t i = 0; i < rows_of(z); i++) {                                                \
      const REAL *x = row_##REAL(&call->input[0], i), *y = row_##REAL(&call->input[1], i);   \
      REAL *to = row_##REAL(z, i);                                                           \
      for (size_t j = 0; j < cols_of(z); j++) {                                              \
        const REAL d = x[j] - y[j], size = d < 0 ? -d : d;                                   \
        to[j] = size < beta ? d * d / (2 * beta) : size - beta / 2;                          \
      }                                                                                      \
    }                                                                                        \
  }                                                                                          \
  static void backward_##REAL(const bp_call *call, const bp_gradient *gradient, REAL sign) { \
    const bp_array *dz = &call->cotangent[0];                                                \
    const REAL beta = (REAL)call->attributes->number[0];                                     \
    for (size_t i = 0; i < rows_of(dz); i++) {                                               \
      const REAL *x = row_##REAL(&call->input[0], i), *y = row_##REAL(&call->input[1], i);   \
      const REAL *from = row_##REAL(dz, i);                                                  \
      REAL *to = row_##REAL(&gradient->to, i);                                               \
      for (size_t j = 0; j < cols_of(dz); j++) {                                             \
        const REAL d = (x[j] - y[j]) / beta, slope = d < -1 ? -1 : d > 1 ? 1 : d;            \
        const REAL part = sign * slope * from[j];                                            \
        to[j] = gradient->accumulate ? to[j] + part : part;                                  \
      }                                                                                      \
    }                                                                                        \
  }

SMOOTH_L1(double)
SMOOTH_L1(float)

static bp_status forward(bp_call *call) {
  if (call->result[0].dtype == BP_F32)
    forward_float(call);
  else
    forward_double(call);
  return BP_OK;
}

/* Swapping x and y changes nothing but the sign. */
static bp_status backward(bp_call *call) {
  for (int k = 0; k < 2; k++) {
    const bp_gradient *gradient = &call->gradient[k];
    if (!gradient->wanted) continue;
    if (call->cotangent[0].dtype == BP_F32)
      backward_float(call, gradient, k == 0 ? 1 : -1);
    else
      backward_double(call, gradient, k == 0 ? 1 : -1);
  }
  return BP_OK;
}

static bp_op smooth_l1(const bp_api *api) {
  return (bp_op){
      .name = "robust.smooth_l1",
      .signature = "value x, value y, number beta = 1",
      .doc = "A loss, element by element: quadratic within beta of zero, straight beyond. x and y have one shape.",
      .formula = "d = x - y; d^2 / (2 beta) where |d| < beta, else |d| - beta / 2",
      .samples = "{ {bp.vector{0.3, -2, 1.5}, bp.vector{0.5, 1, 1.4}}, {3.0, 1.2, 0.5},"
                 "  {bp.matrix{{1, 2}, {3, 4}}, bp.matrix{{1.5, 0}, {3.2, 9}}, 0.7} }",
      .flags = BP_OP_SEQUENTIAL | BP_OP_ELEMENTWISE | BP_OP_CONTIGUOUS,
      .data = api,
      .shape = shape,
      .forward = forward,
      .backward = backward,
  };
}

int luaopen_robust(lua_State *L);

/* `require "robust"`: a table of operations, each of them a function of Lua. */
int luaopen_robust(lua_State *L) {
  const bp_api *api = bp_get_api(L);
  bp_op *row = lua_newuserdatauv(L, sizeof *row, 0);
  *row = smooth_l1(api);
  luaL_ref(L, LUA_REGISTRYINDEX); /* the row lives as long as the state */
  lua_newtable(L);
  api->register_op(L, row);
  lua_setfield(L, -2, "smooth_l1");
  return 1;
}
