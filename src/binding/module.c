/* The module `backprop.core`: the state, its metatables, and the table of functions for other shared objects. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../core/clock.h"
#include "binding.h"

#define STATE_KEY "backprop.state"

void bp_set_functions(lua_State *L, bp_state *s, const luaL_Reg *functions) {
  lua_pushlightuserdata(L, s);
  luaL_setfuncs(L, functions, 1);
}

/* ---- the table for other shared objects -------------------------------------------------------------------------- */

static bp_state *find_state(lua_State *L) {
  lua_getfield(L, LUA_REGISTRYINDEX, STATE_KEY);
  bp_state *s = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return s;
}

static void api_register(lua_State *L, const bp_op *op) {
  bp_push_op(L, find_state(L), op, "C");
}

static bp_status api_fail(bp_call *call, const char *format, ...) {
  char text[400];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return bp_call_fail(call, "%s", text);
}

static bool api_to_array(lua_State *L, int index, bp_array *array) {
  const bp_handle *handle = bp_handle_at(L, find_state(L), index);
  if (handle == NULL || handle->array.rank == 0) return false;
  *array = handle->array;
  return true;
}

static void api_push_vector(lua_State *L, size_t n, bp_dtype dtype, bp_array *array) {
  bp_state *s = find_state(L);
  if (n > BP_MAX_ELEMENTS) bp_raise(L, s, "backprop: too many elements");
  *array = bp_push_new(L, s, bp_shape_vector(n, dtype))->array;
}

static void api_push_matrix(lua_State *L, size_t rows, size_t cols, bp_dtype dtype, bp_array *array) {
  bp_state *s = find_state(L);
  if (rows > BP_MAX_ELEMENTS || cols > BP_MAX_ELEMENTS || (cols != 0 && rows > BP_MAX_ELEMENTS / cols))
    bp_raise(L, s, "backprop: too many elements");
  *array = bp_push_new(L, s, bp_shape_matrix(rows, cols, dtype))->array;
}

static void api_touch(const bp_array *array) {
  if (array->buffer != NULL) array->buffer->version++;
}

static const bp_api api = {BP_API_VERSION,  api_register, api_fail,        bp_shape_vector, bp_shape_matrix,
                           bp_shape_number, api_to_array, api_push_vector, api_push_matrix, api_touch};

/* ---- small functions --------------------------------------------------------------------------------------------- */

/* core.raise(format, ...): an error at the user's own line. */
static int raise(lua_State *L) {
  bp_state *s = bp_state_of(L);
  lua_getglobal(L, "string");
  if (lua_istable(L, -1)) lua_getfield(L, -1, "format");
  if (lua_isfunction(L, -1) && lua_gettop(L) > 2) {
    lua_insert(L, 1);
    lua_settop(L, lua_gettop(L) - 1);
    lua_call(L, lua_gettop(L) - 1, 1);
  } else {
    lua_settop(L, 1);
  }
  bp_push_position(L, s);
  lua_insert(L, -2);
  lua_concat(L, 2);
  return lua_error(L);
}

/* core.type_of(x): a word for messages. */
static int type_of(lua_State *L) {
  lua_pushstring(L, bp_type_of(L, bp_state_of(L), 1));
  return 1;
}

static int stats(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_stats *stats = &s->cx.stats;
  const struct {
    const char *name;
    size_t value;
  } rows[] = {
      {"nodes", stats->nodes},           {"additions", stats->additions},       {"zero_fills", stats->zero_fills},
      {"bytes_live", stats->bytes_live}, {"bytes_pooled", stats->bytes_pooled}, {"allocations", stats->allocations}};
  lua_createtable(L, 0, 6);
  for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
    lua_pushinteger(L, (lua_Integer)rows[k].value);
    lua_setfield(L, -2, rows[k].name);
  }
  if (lua_toboolean(L, 1)) stats->nodes = stats->additions = stats->zero_fills = stats->allocations = 0;
  return 1;
}

/* bp.set_threads(n): of BLAS, for the whole process. */
static int set_threads(lua_State *L) {
  lua_Integer n = 0;
  if (!bp_to_integer(L, 1, &n) || n < 1 || n > 1024)
    return bp_raise(L, bp_state_of(L), "bp.set_threads: expected a number of threads from 1 to 1024, got %s",
                    luaL_tolstring(L, 1, NULL));
  bp_set_threads((int)n);
  return 0;
}

/* core.check_finite(on): whether an operation that makes a NaN or inf is an error; returns what was set before. */
static int check_finite(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bool before = s->cx.check_finite;
  s->cx.check_finite = lua_toboolean(L, 1);
  s->tracing = s->cx.check_finite || s->cx.timing;
  lua_pushboolean(L, before);
  return 1;
}

/* core.timing(on): whether tapes note times and lines. */
static int timing(lua_State *L) {
  bp_state *s = bp_state_of(L);
  s->cx.timing = lua_toboolean(L, 1);
  s->tracing = s->cx.check_finite || s->cx.timing;
  return 0;
}

/* core.make_room(): what happens when memory runs out. */
static int make_room(lua_State *L) {
  bp_make_room(L, bp_state_of(L));
  return 0;
}

/* core.clock(): seconds from an arbitrary start. */
static int read_clock(lua_State *L) {
  lua_pushnumber(L, (lua_Number)bp_clock() * 1e-9);
  return 1;
}

/* core.simd([level]): chooses a level by name, for tests; returns the name of the one in use. */
static int simd(lua_State *L) {
  bp_state *s = bp_state_of(L);
  const char *level = luaL_optstring(L, 1, NULL);
  if (level != NULL && !bp_choose_loops(&s->cx, level))
    return bp_raise(L, s, "backprop: this processor or build has no SIMD level '%s'", level);
  lua_pushstring(L, s->cx.loops[BP_F64]->level);
  return 1;
}

/* core.set_functions{...}: what the binding calls back. */
static int set_callbacks(lua_State *L) {
  bp_state *s = bp_state_of(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->functions);
  lua_pushnil(L);
  while (lua_next(L, 1) != 0) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, -4);
  }
  return 0;
}

static int set_source_prefix(lua_State *L) {
  bp_state *s = bp_state_of(L);
  snprintf(s->source_prefix, sizeof s->source_prefix, "%s", luaL_checkstring(L, 1));
  return 0;
}

/* ---- opening and closing ----------------------------------------------------------------------------------------- */

static int close_state(lua_State *L) {
  bp_state *s = lua_touserdata(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->tapes);
  if (lua_istable(L, -1))
    for (lua_Integer k = 1; k <= (lua_Integer)lua_rawlen(L, -1); k++) {
      lua_rawgeti(L, -1, k);
      bp_box *box = lua_touserdata(L, -1);
      if (box->tape.cx != NULL) bp_tape_destroy(&box->tape);
      lua_pop(L, 1);
    }
  bp_context_close(&s->cx);
  return 0;
}

static int new_metatable(lua_State *L, const char *name) {
  lua_newtable(L);
  lua_pushstring(L, name);
  lua_setfield(L, -2, "__name");
  return luaL_ref(L, LUA_REGISTRYINDEX);
}

static bp_state *open_state(lua_State *L) {
  void *data;
  lua_Alloc allocate = lua_getallocf(L, &data);
  bp_state *s = lua_newuserdatauv(L, sizeof *s, 0);
  memset(s, 0, sizeof *s);
  bp_context_open(&s->cx, allocate, data);
  const char *level = getenv("BACKPROP_SIMD");
  if (!bp_choose_loops(&s->cx, level)) luaL_error(L, "backprop: BACKPROP_SIMD names '%s', which is not there", level);
  s->array_metatable = new_metatable(L, "array");
  s->variable_metatable = new_metatable(L, "tracked value");
  s->tape_metatable = new_metatable(L, "tape");
  s->rng_metatable = new_metatable(L, "generator");
  lua_newtable(L);
  s->methods = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_newtable(L);
  s->functions = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_newtable(L);
  s->tapes = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_newtable(L);
  lua_pushcfunction(L, close_state);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_setfield(L, LUA_REGISTRYINDEX, STATE_KEY);
  if (getenv("OPENBLAS_NUM_THREADS") == NULL) bp_set_threads(1);
  return s;
}

__attribute__((visibility("default"))) int luaopen_backprop_core(lua_State *L);

int luaopen_backprop_core(lua_State *L) {
  static const luaL_Reg functions[] = {{"raise", raise},
                                       {"type_of", type_of},
                                       {"stats", stats},
                                       {"set_threads", set_threads},
                                       {"simd", simd},
                                       {"check_finite", check_finite},
                                       {"timing", timing},
                                       {"make_room", make_room},
                                       {"clock", read_clock},
                                       {"set_functions", set_callbacks},
                                       {"set_source_prefix", set_source_prefix},
                                       {NULL, NULL}};
  bp_state *s = find_state(L);
  if (s == NULL) s = open_state(L);
  lua_newtable(L);
  bp_set_functions(L, s, functions);
  bp_open_arrays(L, s);
  bp_open_inplace(L, s);
  bp_open_variables(L, s);
  bp_open_rng(L, s);
  bp_open_bytes(L, s);
  bp_open_tapes(L, s);
  bp_open_custom(L, s);
  bp_open_ops(L, s);
  lua_pushlightuserdata(L, (void *)(uintptr_t)&api);
  lua_setfield(L, -2, "api");
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->methods);
  lua_setfield(L, -2, "methods");
  return 1;
}
