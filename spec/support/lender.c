/* A host for spec/borrowed_spec.lua: it lends Lua arrays in memory of its own, whose rows may stand apart with NaN between
 * them, looks at that memory afterwards, and counts what was given back. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <lua.h>
#include <lauxlib.h>
#include <lualib.h>

#include "backprop.h"

int luaopen_lender(lua_State *L);

static const bp_api *api;
static int given_back;
static void *last; /* what was lent last */

static void release(void *context, void *data) {
  given_back++;
  if (context == data) free(data);
}

/* lend(dtype, padding, writable, rows [, cols]): filled with zeros, NaN beyond the end of each row. */
static int lend(lua_State *L) {
  const bp_dtype dtype = strcmp(luaL_checkstring(L, 1), "f32") == 0 ? BP_F32 : BP_F64;
  const size_t padding = (size_t)luaL_checkinteger(L, 2), rows = (size_t)luaL_checkinteger(L, 4);
  bp_array x = lua_isnoneornil(L, 5) ? api->vector(rows, dtype)
                                     : api->matrix(rows, (size_t)luaL_checkinteger(L, 5), dtype);
  x.stride += padding;
  const size_t count = x.rows * x.stride;
  last = malloc(count * sizeof(double) + 1);
  for (size_t k = 0; k < count; k++) {
    const double value = k % x.stride < x.cols ? 0 : (double)NAN;
    if (dtype == BP_F64)
      ((double *)last)[k] = value;
    else
      ((float *)last)[k] = (float)value;
  }
  x.data = last;
  api->push_borrowed(L, &x, lua_toboolean(L, 3), release, last);
  return 1;
}

/* lend_wrongly(what): one that must be refused; its memory is given back all the same. */
static int lend_wrongly(lua_State *L) {
  static double memory[16];
  const char *what = luaL_checkstring(L, 1);
  bp_array x = api->matrix(3, 4, BP_F64);
  x.data = memory;
  if (strcmp(what, "misaligned") == 0) x.data = (char *)memory + 4;
  if (strcmp(what, "no data") == 0) x.data = NULL;
  if (strcmp(what, "stride") == 0) x.stride = 3;
  if (strcmp(what, "rank") == 0) x.rank = 3;
  if (strcmp(what, "number") == 0) x = api->number(), x.data = memory;
  if (strcmp(what, "dtype") == 0) x.dtype = 7;
  if (strcmp(what, "size") == 0) x.rows = x.cols = x.stride = (size_t)1 << 20;
  api->push_borrowed(L, &x, true, release, NULL);
  return 1;
}

/* peek(k) and poke(k, value) at element k, from 0, of the f64 memory lent last. */
static int peek(lua_State *L) {
  lua_pushnumber(L, ((double *)last)[luaL_checkinteger(L, 1)]);
  return 1;
}

static int poke(lua_State *L) {
  ((double *)last)[luaL_checkinteger(L, 1)] = luaL_checknumber(L, 2);
  return 0;
}

static int touch(lua_State *L) {
  bp_array x;
  if (!api->to_array(L, 1, &x)) return luaL_error(L, "no array");
  api->touch(&x);
  return 0;
}

static int count(lua_State *L) {
  lua_pushinteger(L, given_back);
  return 1;
}

static int drop_pool(lua_State *L) {
  api->drop_pool(api->context(L));
  return 0;
}

/* What in_another_state runs: lends three arrays that are in use to the end; returns how many are back by then. */
static int inside(lua_State *L) {
  const int before = given_back;
  luaL_openlibs(L);
  lua_getglobal(L, "package");
  lua_pushstring(L, lua_touserdata(L, 1));
  lua_setfield(L, -2, "path");
  lua_pushstring(L, lua_touserdata(L, 2));
  lua_setfield(L, -2, "cpath");
  luaL_requiref(L, "lender", luaopen_lender, 1);
  if (luaL_dostring(L, "local bp = require 'backprop'\n"
                       "kept = lender.lend('f64', 0, true, 4)\n"
                       "window = lender.lend('f64', 1, true, 4, 4)[2]\n"
                       "_, pullback = bp.vjp(bp.exp, lender.lend('f32', 0, true, 3))\n") != LUA_OK)
    return lua_error(L);
  lua_pushinteger(L, given_back - before);
  return 1;
}

/* in_another_state(path, cpath): how many arrays came back before its end, and how many when it was closed. */
static int in_another_state(lua_State *L) {
  const char *path = luaL_checkstring(L, 1), *cpath = luaL_checkstring(L, 2);
  lua_State *other = luaL_newstate();
  lua_pushcfunction(other, inside);
  lua_pushlightuserdata(other, (void *)(uintptr_t)path);
  lua_pushlightuserdata(other, (void *)(uintptr_t)cpath);
  const int failed = lua_pcall(other, 2, 1, 0);
  if (failed)
    lua_pushstring(L, lua_tostring(other, -1));
  else
    lua_pushinteger(L, lua_tointeger(other, -1));
  const int before = given_back;
  lua_close(other);
  if (failed) return lua_error(L);
  lua_pushinteger(L, given_back - before);
  return 2;
}

static int bare(lua_State *L) {
  api->context(L);
  return 0;
}

/* in_bare_state(): asks the table about a state that has not loaded the library; raises what that raises. */
static int in_bare_state(lua_State *L) {
  lua_State *other = luaL_newstate();
  lua_pushcfunction(other, bare);
  const int failed = lua_pcall(other, 0, 0, 0);
  if (failed) lua_pushstring(L, lua_tostring(other, -1));
  lua_close(other);
  return failed ? lua_error(L) : 0;
}

extern int openblas_get_num_threads(void);

static int blas_threads(lua_State *L) {
  lua_pushinteger(L, openblas_get_num_threads());
  return 1;
}

int luaopen_lender(lua_State *L) {
  static const luaL_Reg functions[] = {{"lend", lend},
                                       {"lend_wrongly", lend_wrongly},
                                       {"peek", peek},
                                       {"poke", poke},
                                       {"touch", touch},
                                       {"count", count},
                                       {"drop_pool", drop_pool},
                                       {"in_another_state", in_another_state},
                                       {"in_bare_state", in_bare_state},
                                       {"blas_threads", blas_threads},
                                       {NULL, NULL}};
  api = bp_get_api(L);
  luaL_newlib(L, functions);
  return 1;
}
