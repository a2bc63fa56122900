/* Operations in C that the built-in ones have no need of, for spec/c_rows_spec.lua and others: a rule that
 * interleaves the writes to its destinations (it lacks BP_OP_SEQUENTIAL), an operation with two results of which one
 * may have no cotangent, one whose result has a shape that depends on the elements, and the functions of the table
 * that hosts call. f64 vectors only. */
#include <lauxlib.h>
#include <lua.h>

#include "backprop.h"

static const bp_api *api;

static double *elements(const bp_array *x) {
  return x->data;
}

static void put(const bp_gradient *d, size_t i, double value) {
  double *to = elements(&d->to);
  to[i] = d->accumulate ? to[i] + value : value;
}

static bp_status shape(bp_call *call) {
  for (size_t k = 0; k < 2; k++)
    if (call->input[k].rank != 1 || call->input[k].dtype != BP_F64 || call->input[k].rows != call->input[0].rows)
      return api->fail(call, "expected two f64 vectors of one length");
  for (size_t k = 0; k < call->result_count; k++) call->result[k] = api->vector(call->input[0].rows, BP_F64);
  return BP_OK;
}

/* ---- x^2 y ------------------------------------------------------------------------------------------------------- */

static bp_status product_forward(bp_call *call) {
  const double *x = elements(&call->input[0]), *y = elements(&call->input[1]);
  for (size_t i = 0; i < call->input[0].rows; i++) elements(&call->result[0])[i] = x[i] * x[i] * y[i];
  return BP_OK;
}

static bp_status product_backward(bp_call *call) {
  const double *x = elements(&call->input[0]), *y = elements(&call->input[1]), *g = elements(&call->cotangent[0]);
  for (size_t i = 0; i < call->input[0].rows; i++) {
    if (call->gradient[0].wanted) put(&call->gradient[0], i, g[i] * 2 * x[i] * y[i]);
    if (call->gradient[1].wanted) put(&call->gradient[1], i, g[i] * x[i] * x[i]);
  }
  return BP_OK;
}

static const bp_op product = {.name = "test.product",
                              .signature = "value x, value y",
                              .flags = BP_OP_CONTIGUOUS,
                              .shape = shape,
                              .forward = product_forward,
                              .backward = product_backward};

/* ---- the elements above 1, as many as there are ------------------------------------------------------------------ */

static bp_status above_shape(bp_call *call) {
  size_t count = 0;
  for (size_t i = 0; i < call->input[0].rows; i++) count += elements(&call->input[0])[i] > 1;
  call->result[0] = api->vector(count, BP_F64);
  return BP_OK;
}

static bp_status above_forward(bp_call *call) {
  size_t count = 0;
  for (size_t i = 0; i < call->input[0].rows; i++) {
    const double x = elements(&call->input[0])[i];
    if (x > 1) elements(&call->result[0])[count++] = x;
  }
  return BP_OK;
}

static const bp_op above_one = {.name = "test.above_one",
                                .signature = "value x",
                                .flags = BP_OP_CONTIGUOUS,
                                .shape = above_shape,
                                .forward = above_forward};

/* ---- x + y and x y ----------------------------------------------------------------------------------------------- */

static bp_status both_forward(bp_call *call) {
  const double *x = elements(&call->input[0]), *y = elements(&call->input[1]);
  for (size_t i = 0; i < call->input[0].rows; i++) {
    elements(&call->result[0])[i] = x[i] + y[i];
    elements(&call->result[1])[i] = x[i] * y[i];
  }
  return BP_OK;
}

static bp_status both_backward(bp_call *call) {
  for (size_t k = 0; k < 2; k++) {
    const double *other = elements(&call->input[1 - k]);
    const double *sum = call->cotangent[0].data, *times = call->cotangent[1].data;
    if (!call->gradient[k].wanted) continue;
    for (size_t i = 0; i < call->input[0].rows; i++)
      put(&call->gradient[k], i, (sum == NULL ? 0 : sum[i]) + (times == NULL ? 0 : times[i] * other[i]));
  }
  return BP_OK;
}

static const bp_op both = {.name = "test.both",
                           .signature = "value x, value y",
                           .flags = BP_OP_CONTIGUOUS | BP_OP_SEQUENTIAL,
                           .result_count = 2,
                           .shape = shape,
                           .forward = both_forward,
                           .backward = both_backward};

/* ---- what hosts call --------------------------------------------------------------------------------------------- */

/* double_in_place(v): false if v is no array. */
static int double_in_place(lua_State *L) {
  bp_array x;
  bool found = api->to_array(L, 1, &x);
  for (size_t i = 0; found && i < x.rows; i++) elements(&x)[i] *= 2;
  if (found) api->touch(&x);
  lua_pushboolean(L, found);
  return 1;
}

/* count(rows [, cols]): a new array of 0, 1, 2, ... */
static int count(lua_State *L) {
  bp_array x;
  size_t rows = (size_t)luaL_checkinteger(L, 1), cols = (size_t)luaL_optinteger(L, 2, 1);
  if (lua_isnoneornil(L, 2))
    api->push_vector(L, rows, BP_F64, &x);
  else
    api->push_matrix(L, rows, cols, BP_F64, &x);
  for (size_t k = 0; k < rows * cols; k++) elements(&x)[k] = (double)k;
  return 1;
}

static bp_array kept;

/* keep(v): notes where the elements of an array are, and write(s) changes the first, as a host with its own copy of the
 * address may. */
static int keep(lua_State *L) {
  lua_pushboolean(L, api->to_array(L, 1, &kept));
  return 1;
}

static int write(lua_State *L) {
  *elements(&kept) = luaL_checknumber(L, 1);
  return 0;
}

/* malformed(n): registers a row that is refused. */
static int malformed(lua_State *L) {
  static const bp_op rows[] = {
      {.name = "test.nothing", .signature = "value x"},
      {.name = "test.signature", .signature = "tensor x", .shape = shape, .forward = product_forward},
      {.name = "test.flags", .signature = "value x", .flags = 1 << 17, .shape = shape, .forward = product_forward},
  };
  api->register_op(L, &rows[luaL_checkinteger(L, 1) - 1]);
  return 1;
}

int luaopen_c_rows(lua_State *L);

int luaopen_c_rows(lua_State *L) {
  static const luaL_Reg functions[] = {{"double_in_place", double_in_place},
                                       {"count", count},
                                       {"keep", keep},
                                       {"write", write},
                                       {"malformed", malformed},
                                       {NULL, NULL}};
  api = bp_get_api(L);
  luaL_newlib(L, functions);
  api->register_op(L, &product);
  lua_setfield(L, -2, "product");
  api->register_op(L, &both);
  lua_setfield(L, -2, "both");
  api->register_op(L, &above_one);
  lua_setfield(L, -2, "above_one");
  return 1;
}
