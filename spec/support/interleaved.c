/* interleaved.mix(x, y) = 2 x + 3 y, of two values of one shape and dtype, as the C operation of somebody who knows no
 * more than the header says: without BP_OP_SEQUENTIAL destinations never overlap, so that its backward may write them
 * in any order. It goes from element to element and writes y's first, which is wrong wherever the two destinations
 * share one. */
#include <lua.h>
#include <lauxlib.h>

#include "backprop.h"

static const bp_api *api;

static bp_status shape(bp_call *call) {
  const bp_array *x = &call->input[0], *y = &call->input[1];
  if (x->rank != y->rank || x->rows != y->rows || x->cols != y->cols || x->dtype != y->dtype)
    return api->fail(call, "x and y must have one shape and dtype");
  call->result[0] = x->rank == 0   ? api->number()
                    : x->rank == 1 ? api->vector(x->rows, (bp_dtype)x->dtype)
                                   : api->matrix(x->rows, x->cols, (bp_dtype)x->dtype);
  return BP_OK;
}

static double load(const bp_array *a, size_t i, size_t j) {
  const size_t at = i * a->stride + j;
  return a->dtype == BP_F32 ? (double)((const float *)a->data)[at] : ((const double *)a->data)[at];
}

static void store(const bp_array *a, size_t i, size_t j, double value) {
  const size_t at = i * a->stride + j;
  if (a->dtype == BP_F32)
    ((float *)a->data)[at] = (float)value;
  else
    ((double *)a->data)[at] = value;
}

static bp_status forward(bp_call *call) {
  const bp_array *z = &call->result[0];
  for (size_t i = 0; i < z->rows; i++)
    for (size_t j = 0; j < z->cols; j++)
      store(z, i, j, 2 * load(&call->input[0], i, j) + 3 * load(&call->input[1], i, j));
  return BP_OK;
}

static bp_status backward(bp_call *call) {
  const bp_array *dz = &call->cotangent[0];
  for (size_t i = 0; i < dz->rows; i++)
    for (size_t j = 0; j < dz->cols; j++)
      for (int k = 1; k >= 0; k--) {
        const bp_gradient *d = &call->gradient[k];
        if (!d->wanted) continue;
        const double before = d->accumulate ? load(&d->to, i, j) : 0;
        store(&d->to, i, j, before + (2 + k) * load(dz, i, j));
      }
  return BP_OK;
}

static const bp_op mix = {
    .name = "interleaved.mix",
    .signature = "value x, value y",
    .doc = "2 x + 3 y",
    .formula = "2 x + 3 y",
    .samples = "{ {bp.vector{1, 2}, bp.vector{3, 4}} }",
    .shape = shape,
    .forward = forward,
    .backward = backward,
};

int luaopen_interleaved(lua_State *L);

int luaopen_interleaved(lua_State *L) {
  api = bp_get_api(L);
  lua_newtable(L);
  api->register_op(L, &mix);
  lua_setfield(L, -2, "mix");
  return 1;
}
