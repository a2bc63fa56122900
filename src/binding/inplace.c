/* In-place calls. Each one counts a version of the storage, so that a tape that needs the old values raises. */
#include <string.h>

#include "binding.h"

static void touch(bp_array *x) {
  x->buffer->version++;
}

static void check_like(lua_State *L, bp_state *s, const bp_array *x, const bp_array *y, const char *name) {
  if (!bp_same_shape(x, y))
    bp_raise(L, s, "%s: shapes %s and %s do not agree", name, bp_describe(x).text, bp_describe(y).text);
  if (x->dtype != y->dtype)
    bp_raise(L, s, "%s: %s and %s do not mix: convert one with x:astype(\"%s\")", name, bp_dtype_name(x->dtype),
             bp_dtype_name(y->dtype), bp_dtype_name(x->dtype));
}

/* Of two windows of one shape: they may begin at one element and go different ways, as a row and a column do. */
static bool is_same_window(const bp_array *x, const bp_array *y) {
  return x->data == y->data && x->stride == y->stride;
}

/* Windows of one buffer that overlap but are not the same would be read after they were written: read a copy then. */
static bp_array without_overlap(lua_State *L, bp_state *s, const bp_array *source, const bp_array *target) {
  if (!bp_overlap(source, target) || is_same_window(source, target)) return *source;
  bp_handle *copy = bp_push_new(L, s, bp_shape_like(source));
  if (source->data == NULL || target->data == NULL) bp_raise(L, s, "a finalizer has released the array");
  bp_axpby(&s->cx, 1, source, 0, &copy->array);
  return copy->array;
}

/* y = y + a x; the arrays have been checked for one shape. */
static int axpy(lua_State *L) {
  bp_state *s = bp_state_of(L);
  if (lua_type(L, 1) != LUA_TNUMBER)
    bp_raise(L, s, "bp.axpy: argument 1: expected a number, got %s", bp_type_of(L, s, 1));
  const bp_handle *x = bp_check_array(L, s, 2, "bp.axpy");
  bp_handle *y = bp_check_writable(L, s, 3, "bp.axpy");
  check_like(L, s, &x->array, &y->array, "bp.axpy");
  bp_array source = without_overlap(L, s, &x->array, &y->array);
  bp_axpby(&s->cx, lua_tonumber(L, 1), &source, 1, &y->array);
  touch(&y->array);
  return 0;
}

static int copy(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_handle *x = bp_check_writable(L, s, 1, "x:copy");
  const bp_handle *y = bp_check_array(L, s, 2, "x:copy");
  bp_check_count(L, s, 2, "x:copy");
  check_like(L, s, &x->array, &y->array, "x:copy");
  bp_array source = without_overlap(L, s, &y->array, &x->array);
  if (!is_same_window(&source, &x->array)) bp_axpby(&s->cx, 1, &source, 0, &x->array);
  touch(&x->array);
  lua_settop(L, 1);
  return 1;
}

static int fill(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_handle *x = bp_check_writable(L, s, 1, "x:fill");
  if (lua_type(L, 2) != LUA_TNUMBER) bp_raise(L, s, "x:fill: expected a number, got %s", bp_type_of(L, s, 2));
  bp_check_count(L, s, 2, "x:fill");
  bp_fill(&s->cx, &x->array, lua_tonumber(L, 2));
  touch(&x->array);
  lua_settop(L, 1);
  return 1;
}

static int set(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_handle *x = bp_check_writable(L, s, 1, "x:set");
  lua_Integer i = 0, j = 1;
  bool matrix = x->array.rank == 2;
  int value = matrix ? 4 : 3;
  if (lua_gettop(L) != value)
    bp_raise(L, s, "x:set: expected %s and an element, got %d argument%s", matrix ? "two positions" : "a position",
             lua_gettop(L) - 1, lua_gettop(L) == 2 ? "" : "s");
  bool fits = bp_to_integer(L, 2, &i) && (!matrix || bp_to_integer(L, 3, &j));
  if (!fits || i < 1 || j < 1 || (size_t)i > x->array.rows || (size_t)j > x->array.cols)
    bp_raise(L, s, "x:set: position %s%s%s is out of range in shape %s", luaL_tolstring(L, 2, NULL), matrix ? ", " : "",
             matrix ? luaL_tolstring(L, 3, NULL) : "", bp_describe(&x->array).text);
  if (lua_type(L, value) != LUA_TNUMBER)
    bp_raise(L, s, "x:set: an element must be a number, got %s", bp_type_of(L, s, value));
  bp_store(&x->array, (size_t)i - 1, (size_t)j - 1, lua_tonumber(L, value));
  touch(&x->array);
  return 0;
}

/* ---- optimisers' steps ------------------------------------------------------------------------------------------- */

/* One instruction of a step, without its operands: how many values it takes, its name among them. */
typedef enum instruction { SET, TAKE, AXPY, SCALE, ADAM, INSTRUCTIONS } instruction;

static const struct {
  const char *name;
  int values;
} instructions[INSTRUCTIONS] = {
    [SET] = {"set", 4}, [TAKE] = {"take", 4}, [AXPY] = {"axpy", 4}, [SCALE] = {"scale", 3}, [ADAM] = {"adam", 11}};

static instruction instruction_at(lua_State *L, int index) {
  const char *name = luaL_checkstring(L, index);
  int found = 0;
  while (found < INSTRUCTIONS && strcmp(instructions[found].name, name) != 0) found++;
  return (instruction)found;
}

/* Runs the instruction whose values stand on the stack from index 3 on, or only sees that it cannot fail. */
static void run_instruction(lua_State *L, bp_state *s, const char *name, bool checking) {
  const int first = 3;
  switch (instruction_at(L, first)) {
  case SET:
  case TAKE:
    if (checking) {
      bool array = instruction_at(L, first) == TAKE;
      luaL_checktype(L, first + 1, LUA_TTABLE);
      if (array) bp_check_array(L, s, first + 3, name);
      lua_pushvalue(L, first + 2);
      if (lua_rawget(L, first + 1) == LUA_TNIL) bp_raise(L, s, "%s: there is nothing to be set", name);
      return; /* a key that is there takes no memory */
    }
    if (instruction_at(L, first) == TAKE) {
      lua_pushnumber(L, bp_load(&bp_handle_at(L, s, first + 3)->array, 0, 0));
      lua_replace(L, first + 3);
    }
    lua_settop(L, first + 3);
    lua_rawset(L, first + 1);
    return;
  case AXPY: {
    double a = luaL_checknumber(L, first + 1);
    const bp_handle *x = bp_check_array(L, s, first + 2, name);
    bp_handle *y = bp_check_writable(L, s, first + 3, name);
    check_like(L, s, &x->array, &y->array, name);
    if (checking) return;
    bp_axpby(&s->cx, a, &x->array, 1, &y->array);
    touch(&y->array);
    return;
  }
  case SCALE: {
    double a = luaL_checknumber(L, first + 1);
    bp_handle *x = bp_check_writable(L, s, first + 2, name);
    if (checking) return;
    bp_axpby(&s->cx, a, &x->array, 0, &x->array);
    touch(&x->array);
    return;
  }
  case ADAM: {
    bp_handle *x = bp_check_writable(L, s, first + 1, name), *m = bp_check_writable(L, s, first + 3, name);
    bp_handle *v = bp_check_writable(L, s, first + 4, name);
    const bp_handle *g = bp_check_array(L, s, first + 2, name);
    check_like(L, s, &x->array, &g->array, name);
    check_like(L, s, &x->array, &m->array, name);
    check_like(L, s, &x->array, &v->array, name);
    bp_adam step = {luaL_checknumber(L, first + 5), luaL_checknumber(L, first + 6), luaL_checknumber(L, first + 7),
                    luaL_checknumber(L, first + 8), luaL_checknumber(L, first + 9), luaL_checknumber(L, first + 10)};
    if (checking) return;
    bp_adam_step(&s->cx, &x->array, &g->array, &m->array, &v->array, &step);
    touch(&x->array);
    return;
  }
  default: bp_raise(L, s, "%s: there is no instruction '%s'", name, lua_tostring(L, first));
  }
}

/* core.commit(list, name): all that one call changes in place, or an error, which bears the name, and nothing at all. The
 * list holds one instruction after another: "set", t, key, value; "take", t, key, array (its first element); "axpy", a,
 * x, y; "scale", a, x; "adam", x, g, m, v, beta1, beta2, rate, epsilon, decay, l2. All are checked before the first is
 * run, and running them asks for no memory. */
static int commit(lua_State *L) {
  bp_state *s = bp_state_of(L);
  luaL_checktype(L, 1, LUA_TTABLE);
  const char *name = luaL_checkstring(L, 2);
  lua_Integer count = (lua_Integer)lua_rawlen(L, 1);
  luaL_checkstack(L, 16, name);
  for (int checking = 1; checking >= 0; checking--) {
    for (lua_Integer k = 1, values; k <= count; k += values) {
      lua_settop(L, 2);
      lua_rawgeti(L, 1, k);
      instruction next = instruction_at(L, 3);
      values = next == INSTRUCTIONS ? 1 : instructions[next].values;
      for (lua_Integer i = 1; i < values; i++) lua_rawgeti(L, 1, k + i);
      run_instruction(L, s, name, checking != 0);
    }
  }
  return 0;
}

/* core.storage_key(x [, to_write]): a key that two handles share when they are windows of the same elements. */
static int storage_key(lua_State *L) {
  bp_state *s = bp_state_of(L);
  const bp_handle *x = lua_toboolean(L, 2) ? bp_check_writable(L, s, 1, "bp.optim")
                                           : bp_check_array(L, s, 1, "bp.optim");
  lua_pushfstring(L, "%p:%d:%d:%d:%d", x->array.data, (int)x->array.rank, (int)x->array.rows, (int)x->array.cols,
                  (int)x->array.stride);
  return 1;
}

/* core.buffer_key(x): a key that all windows of one buffer share. */
static int buffer_key(lua_State *L) {
  lua_pushlightuserdata(L, bp_check_array(L, bp_state_of(L), 1, "bp.optim")->array.buffer);
  return 1;
}

/* core.overlap(x, y): whether the arrays have an element in common. */
static int overlap(lua_State *L) {
  bp_state *s = bp_state_of(L);
  const bp_handle *x = bp_check_array(L, s, 1, "bp.optim"), *y = bp_check_array(L, s, 2, "bp.optim");
  lua_pushboolean(L, bp_overlap(&x->array, &y->array));
  return 1;
}

void bp_open_inplace(lua_State *L, bp_state *s) {
  static const luaL_Reg functions[] = {
      {"axpy", axpy},       {"commit", commit}, {"storage_key", storage_key}, {"buffer_key", buffer_key},
      {"overlap", overlap}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"copy", copy}, {"fill", fill}, {"set", set}, {NULL, NULL}};
  bp_set_functions(L, s, functions);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->methods);
  bp_set_functions(L, s, methods);
  lua_pop(L, 1);
}
