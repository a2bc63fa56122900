/* The module `backprop.core`: the state, its metatables, and the table of functions for other shared objects. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../core/clock.h"
#include "binding.h"

void bp_set_functions(lua_State *L, bp_state *s, const luaL_Reg *functions) {
  lua_pushlightuserdata(L, s);
  luaL_setfuncs(L, functions, 1);
}

void bp_push_function(lua_State *L, bp_state *s, const char *name) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->functions);
  lua_getfield(L, -1, name);
  lua_replace(L, -2);
}

/* ---- the table for other shared objects -------------------------------------------------------------------------- */

static const bp_api api;

/* The key in the registry is an address of this copy of the library: where a process has two (a host with one inside
 * that also loads core.so), neither takes the other's state for its own. */
static const void *state_key(void) {
  return &api;
}

static bp_state *find_state(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, state_key());
  bp_state *s = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return s;
}

static bp_state *check_state(lua_State *L) {
  bp_state *s = find_state(L);
  if (s == NULL) luaL_error(L, "backprop: this Lua state has not loaded it: call bp_get_api first");
  return s;
}

/* Flags beyond the header's are the engine's own, and say things of a row that are not true of others. */
static void api_register(lua_State *L, const bp_op *op) {
  const unsigned known = BP_OP_SEQUENTIAL | BP_OP_ELEMENTWISE | BP_OP_CONTIGUOUS | BP_OP_PRODUCT | BP_OP_VALUES_UNREAD;
  bp_state *s = check_state(L);
  if (op->name != NULL && (op->flags & ~known) != 0) bp_raise(L, s, "backprop: operation %s: unknown flags", op->name);
  bp_push_op(L, s, op, "C");
}

static bp_status api_fail(bp_call *call, const char *format, ...) {
  char text[400];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return bp_call_fail(call, "%s", text);
}

static bp_array expose(const bp_handle *handle) {
  handle->array.buffer->exposed = true;
  return handle->array;
}

static bool api_to_array(lua_State *L, int index, bp_array *array) {
  const bp_handle *handle = bp_handle_at(L, check_state(L), index);
  if (handle == NULL || handle->array.rank == 0 || check_state(L)->cx.closed) return false;
  bp_pending_compute_of(&check_state(L)->cx, handle->array.buffer); /* the host may write there */
  *array = expose(handle);
  return true;
}

static void api_push_vector(lua_State *L, size_t n, bp_dtype dtype, bp_array *array) {
  bp_state *s = check_state(L);
  if (n > BP_MAX_ELEMENTS) bp_raise(L, s, "backprop: too many elements");
  *array = expose(bp_push_new(L, s, bp_shape_vector(n, dtype)));
}

static void api_push_matrix(lua_State *L, size_t rows, size_t cols, bp_dtype dtype, bp_array *array) {
  bp_state *s = check_state(L);
  if (rows > BP_MAX_ELEMENTS || cols > BP_MAX_ELEMENTS || (cols != 0 && rows > BP_MAX_ELEMENTS / cols))
    bp_raise(L, s, "backprop: too many elements");
  *array = expose(bp_push_new(L, s, bp_shape_matrix(rows, cols, dtype)));
}

static void api_touch(const bp_array *array) {
  if (array->buffer != NULL) array->buffer->version++;
}

/* What is wrong with an array that a host wants to lend, or NULL. */
static const char *trouble_with(const bp_array *x) {
  bool matrix = x->rank == 2;
  if ((!matrix && (x->rank != 1 || x->cols != 1)) || x->dtype > BP_F32) return "it is neither a vector nor a matrix";
  if (x->rows > BP_MAX_ELEMENTS || x->cols > BP_MAX_ELEMENTS || x->stride > BP_MAX_ELEMENTS ||
      (x->cols != 0 && x->rows > BP_MAX_ELEMENTS / x->cols))
    return "too many elements";
  if (x->stride < x->cols) return "its rows overlap: the stride is less than the number of columns";
  if (x->data == NULL) return "it has no data";
  if ((uintptr_t)x->data % bp_element_size((bp_dtype)x->dtype) != 0) return "its data is not aligned";
  return NULL;
}

typedef struct borrowing {
  bp_array *array;
  bool writable;
  bp_loan loan;
} borrowing;

/* Runs protected, so that whatever fails the host's memory is released. */
static int push_borrowed(lua_State *L) {
  const borrowing *b = lua_touserdata(L, 1);
  bp_state *s = check_state(L);
  const char *trouble = trouble_with(b->array);
  if (trouble != NULL) bp_raise(L, s, "backprop: an array of the host's cannot be borrowed: %s", trouble);
  bp_handle *handle = bp_push_handle(L, s);
  bp_buffer *buffer = NULL;
  BP_TRY(L, s, (buffer = bp_buffer_borrow(&s->cx, &b->loan)) != NULL ? BP_OK : BP_NOMEM);
  b->array->buffer = buffer;
  handle->array = *b->array;
  handle->read_only = !b->writable;
  return 1;
}

static void api_push_borrowed(lua_State *L, bp_array *array, bool writable, void (*release)(void *context, void *data),
                              void *context) {
  borrowing b = {array, writable, {release, context, array->data}};
  lua_pushcfunction(L, push_borrowed);
  lua_pushlightuserdata(L, &b);
  if (lua_pcall(L, 1, 1, 0) == LUA_OK) return;
  if (release != NULL) release(context, array->data);
  lua_error(L);
}

static bp_context *api_context(lua_State *L) {
  return &check_state(L)->cx;
}

static const bp_api api = {BP_API_VERSION,    api_register, api_fail,        bp_shape_vector, bp_shape_matrix,
                           bp_shape_number,   api_to_array, api_push_vector, api_push_matrix, api_touch,
                           api_push_borrowed, api_context,  bp_pool_drop};

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

static int finish_kept(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  return lua_gettop(L);
}

/* Calls itself so many levels down. */
static int descend_calls(lua_State *L) {
  lua_Integer levels = lua_tointeger(L, 1);
  if (levels == 0) return 0;
  lua_pushcfunction(L, descend_calls);
  lua_pushinteger(L, levels - 1);
  lua_call(L, 1, 0);
  return 0;
}

/* Of a function kept by keep_line. The row is nil, or called where it can be. */
enum { FUNCTION = 1, STATE, ROW };

/* Whether there is a tracked argument behind the first. */
static bool has_tracked_parameter(lua_State *L, bp_state *s) {
  for (int k = lua_gettop(L); k > 1; k--)
    if (bp_variable_at(L, s, k) != NULL) return true;
  return false;
}

/* Lua allocates what a call needs when a depth is reached for the first time. A finalizer that cannot be called for
 * want of it is lost, and with it the bytes of an array: so the depth of the function, of what it calls and of their
 * finalizers is reached before, while there is nothing to lose. (A row sees to that itself.) */
static int call_kept(lua_State *L) {
  const int values = 6 * LUA_MINSTACK, levels = 5;
  bp_state *s = lua_touserdata(L, lua_upvalueindex(STATE));
  if (!lua_isnil(L, lua_upvalueindex(ROW)) && !has_tracked_parameter(L, s)) {
    lua_pushvalue(L, lua_upvalueindex(ROW));
  } else {
    bp_check_stack(L, s, values, "backprop");
    lua_pushcfunction(L, descend_calls);
    lua_pushinteger(L, levels);
    lua_call(L, 1, 0);
    lua_pushvalue(L, lua_upvalueindex(FUNCTION));
  }
  lua_insert(L, 1);
  lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, finish_kept);
  return lua_gettop(L);
}

/* core.keep_line(f [, row]): f behind a C function. Of `return f(x)` Lua forgets the line when f is written in Lua, and
 * errors could not name it. For functions that call nothing of the user's, whose recursion would use up the C stack.
 * With a row, f is for tracked arguments behind the first: without any, the row is called. */
static int keep_line(lua_State *L) {
  lua_settop(L, 2);
  lua_pushlightuserdata(L, bp_state_of(L));
  lua_insert(L, STATE);
  lua_pushcclosure(L, call_kept, ROW);
  return 1;
}

/* core.type_of(x): a word for messages. */
static int type_of(lua_State *L) {
  lua_pushstring(L, bp_type_of(L, bp_state_of(L), 1));
  return 1;
}

static int stats(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_check_count(L, s, 1, "bp.stats");
  if (!lua_isnoneornil(L, 1) && !lua_isboolean(L, 1))
    bp_raise(L, s, "bp.stats: argument 1: expected true or false, got %s", bp_type_of(L, s, 1));
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
  bp_state *s = bp_state_of(L);
  lua_Integer n = 0;
  if (!bp_to_integer(L, 1, &n) || n < 1 || n > 1024)
    return bp_raise(L, s, "bp.set_threads: expected a number of threads from 1 to 1024, got %s",
                    lua_type(L, 1) == LUA_TNUMBER ? luaL_tolstring(L, 1, NULL) : bp_type_of(L, s, 1));
  bp_check_count(L, s, 1, "bp.set_threads");
  bp_set_threads((int)n);
  return 0;
}

/* core.check_finite(on): whether an operation that makes a NaN or inf is an error, on plain values and on tapes opened
 * from now on. */
static int check_finite(lua_State *L) {
  bp_state *s = bp_state_of(L);
  s->cx.check_finite = lua_toboolean(L, 1);
  return 0;
}

/* core.timing([on]): sets whether tapes note times and lines, or returns it. */
static int timing(lua_State *L) {
  bp_state *s = bp_state_of(L);
  if (lua_isnoneornil(L, 1)) return lua_pushboolean(L, s->cx.timing), 1;
  s->cx.timing = lua_toboolean(L, 1);
  if (s->cx.timing) s->cx.blas_time = 0;
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

/* core.blas(): the processor whose kernels OpenBLAS runs, by its own name for it, and the seconds that it has taken
 * since timing began. */
static int blas(lua_State *L) {
  lua_pushstring(L, bp_blas_core());
  lua_pushnumber(L, (lua_Number)bp_state_of(L)->cx.blas_time * 1e-9);
  return 2;
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

/* core.claim_sources(): says that the caller's folder holds our own Lua files, and returns it as it begins the names of
 * their chunks: "@/usr/share/lua/5.4/backprop/", or "=[backprop]/" inside a host. */
static int claim_sources(lua_State *L) {
  bp_state *s = bp_state_of(L);
  lua_Debug caller;
  if (!lua_getstack(L, 1, &caller)) return bp_raise(L, s, "backprop: no caller");
  lua_getinfo(L, "S", &caller);
  const char *slash = strrchr(caller.source, '/');
  if (slash == NULL)
    lua_pushliteral(L, "@./");
  else
    lua_pushlstring(L, caller.source, (size_t)(slash - caller.source) + 1);
  snprintf(s->source_prefix, sizeof s->source_prefix, "%s", lua_tostring(L, -1));
  return 1;
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
  s->known = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_newtable(L);
  s->tape_handles = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_newtable(L);
  s->tapes = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_newtable(L);
  lua_pushcfunction(L, close_state);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, state_key());
  /* The threads of BLAS are the process's, and this is not its first state for sure: what a host or another state has
   * chosen stays. (All processors is what nobody has chosen; who wants them says so in the environment, or later.) */
  if (getenv("OPENBLAS_NUM_THREADS") == NULL && bp_threads_are_default()) bp_set_threads(1);
  return s;
}

__attribute__((visibility("default"))) int luaopen_backprop_core(lua_State *L) {
  static const luaL_Reg functions[] = {{"raise", raise},
                                       {"type_of", type_of},
                                       {"keep_line", keep_line},
                                       {"stats", stats},
                                       {"set_threads", set_threads},
                                       {"blas", blas},
                                       {"simd", simd},
                                       {"check_finite", check_finite},
                                       {"timing", timing},
                                       {"make_room", make_room},
                                       {"clock", read_clock},
                                       {"set_functions", set_callbacks},
                                       {"claim_sources", claim_sources},
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
  bp_open_structures(L, s);
  bp_open_custom(L, s);
  bp_open_ops(L, s);
  lua_pushlightuserdata(L, (void *)(uintptr_t)&api);
  lua_setfield(L, -2, "api");
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->methods);
  lua_setfield(L, -2, "methods");
  return 1;
}
