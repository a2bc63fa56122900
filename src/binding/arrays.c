/* Arrays seen from Lua: constructors, indexing, conversion and printing. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "binding.h"

/* ---- constructors ------------------------------------------------------------------------------------------------ */

bp_array bp_check_shape(lua_State *L, bp_state *s, int index, const char *name) {
  size_t n = bp_check_size(L, s, index, name);
  bool matrix = !lua_isnoneornil(L, index + 1) && lua_type(L, index + 1) != LUA_TSTRING;
  size_t m = matrix ? bp_check_size(L, s, index + 1, name) : 0;
  int last = matrix || lua_isnil(L, index + 1) ? index + 2 : index + 1;
  bp_dtype dtype = bp_check_dtype(L, s, last, name);
  bp_check_count(L, s, last, name);
  if (m != 0 && n > BP_MAX_ELEMENTS / m)
    bp_raise(L, s, "%s: %d x %d elements are more than 2^31 - 1", name, (int)n, (int)m);
  return matrix ? bp_shape_matrix(n, m, dtype) : bp_shape_vector(n, dtype);
}

static double check_number(lua_State *L, bp_state *s, int index, const char *name) {
  if (lua_type(L, index) != LUA_TNUMBER)
    bp_raise(L, s, "%s: argument %d: expected a number, got %s", name, index, bp_type_of(L, s, index));
  return lua_tonumber(L, index);
}

static int filled(lua_State *L, const char *name, int first, double value) {
  bp_state *s = bp_state_of(L);
  bp_handle *handle = bp_push_new(L, s, bp_check_shape(L, s, first, name));
  bp_fill(&s->cx, &handle->array, value);
  return 1;
}

static int zeros(lua_State *L) {
  return filled(L, "bp.zeros", 1, 0);
}

static int ones(lua_State *L) {
  return filled(L, "bp.ones", 1, 1);
}

static int full(lua_State *L) {
  return filled(L, "bp.full", 2, check_number(L, bp_state_of(L), 1, "bp.full"));
}

static int eye(lua_State *L) {
  bp_state *s = bp_state_of(L);
  size_t n = bp_check_size(L, s, 1, "bp.eye");
  bp_dtype dtype = bp_check_dtype(L, s, 2, "bp.eye");
  bp_check_count(L, s, 2, "bp.eye");
  if (n != 0 && n > BP_MAX_ELEMENTS / n)
    bp_raise(L, s, "bp.eye: %d x %d elements are more than 2^31 - 1", (int)n, (int)n);
  bp_handle *handle = bp_push_new(L, s, bp_shape_matrix(n, n, dtype));
  bp_fill(&s->cx, &handle->array, 0);
  for (size_t i = 0; i < n; i++) bp_store(&handle->array, i, i, 1);
  return 1;
}

static int linspace(lua_State *L) {
  bp_state *s = bp_state_of(L);
  double a = check_number(L, s, 1, "bp.linspace"), b = check_number(L, s, 2, "bp.linspace");
  size_t n = bp_check_size(L, s, 3, "bp.linspace");
  bp_check_count(L, s, 4, "bp.linspace");
  bp_handle *handle = bp_push_new(L, s, bp_shape_vector(n, bp_check_dtype(L, s, 4, "bp.linspace")));
  for (size_t i = 0; i < n; i++) {
    double t = n == 1 ? 0 : (double)i / (double)(n - 1);
    const double between = isinf(b - a) ? a * (1 - t) + b * t : a + (b - a) * t;
    bp_store(&handle->array, i, 0, i + 1 == n && n > 1 ? b : between);
  }
  return 1;
}

static bool is_tracked_number(lua_State *L, bp_state *s, int index, const char *name) {
  const bp_variable *variable = bp_variable_at(L, s, index);
  if (variable == NULL) return false;
  const bp_node *node = &bp_check_variable(L, s, variable, name)->tape.nodes[variable->node];
  return node->value.rank == 0 && !node->object;
}

/* Reads a list of numbers at the top of the stack into row i; false when some of them are tracked. */
static bool read_row(lua_State *L, bp_state *s, const bp_array *array, size_t i, const char *name) {
  size_t n = array->rank == 1 ? array->rows : array->cols;
  bool plain = true;
  for (size_t k = 0; k < n; k++) {
    lua_Integer position = (lua_Integer)k + 1;
    if (lua_rawgeti(L, -1, position) != LUA_TNUMBER) {
      if (is_tracked_number(L, s, -1, name)) {
        plain = false;
        lua_pop(L, 1);
        continue;
      }
      if (array->rank == 1)
        bp_raise(L, s, "%s: element %I: expected a number, got %s", name, position, bp_type_of(L, s, -1));
      bp_raise(L, s, "%s: element %I, %I: expected a number, got %s", name, (lua_Integer)i + 1, position,
               bp_type_of(L, s, -1));
    }
    bp_store(array, array->rank == 1 ? k : i, array->rank == 1 ? 0 : k, lua_tonumber(L, -1));
    lua_pop(L, 1);
  }
  return plain;
}

/* The length of the first argument. */
static size_t check_list(lua_State *L, bp_state *s, const char *name) {
  if (!lua_istable(L, 1)) bp_raise(L, s, "%s: argument 1: expected a table, got %s", name, bp_type_of(L, s, 1));
  bp_check_count(L, s, 2, name);
  return bp_check_list(L, s, 1, name);
}

/* core.vector{...}: nil if an element is tracked. */
static int vector(lua_State *L) {
  bp_state *s = bp_state_of(L);
  const size_t n = check_list(L, s, "bp.vector");
  bp_dtype dtype = bp_check_dtype(L, s, 2, "bp.vector");
  bp_handle *handle = bp_push_new(L, s, bp_shape_vector(n, dtype));
  lua_pushvalue(L, 1);
  if (read_row(L, s, &handle->array, 0, "bp.vector"))
    lua_pop(L, 1);
  else
    lua_pushnil(L);
  return 1;
}

/* core.matrix{{...}, ...}: nil if a row is an array or has a tracked element. */
static int matrix(lua_State *L) {
  bp_state *s = bp_state_of(L);
  size_t rows = check_list(L, s, "bp.matrix"), cols = 0;
  bp_dtype dtype = bp_check_dtype(L, s, 2, "bp.matrix");
  for (size_t i = 0; i < rows; i++) {
    int type = lua_rawgeti(L, 1, (lua_Integer)i + 1);
    if (type != LUA_TTABLE) {
      if (bp_handle_at(L, s, -1) == NULL && bp_variable_at(L, s, -1) == NULL)
        bp_raise(L, s, "bp.matrix: row %d: expected a table of numbers, got %s", (int)i + 1, bp_type_of(L, s, -1));
      lua_pushnil(L);
      return 1;
    }
    size_t n = bp_check_list(L, s, -1, "bp.matrix");
    if (i > 0 && n != cols)
      bp_raise(L, s, "bp.matrix: row %d has %d elements, the first has %d", (int)i + 1, (int)n, (int)cols);
    cols = n;
    lua_pop(L, 1);
  }
  if (cols != 0 && rows > BP_MAX_ELEMENTS / cols) bp_raise(L, s, "bp.matrix: too many elements");
  bp_handle *handle = bp_push_new(L, s, bp_shape_matrix(rows, cols, dtype));
  for (size_t i = 0; i < rows; i++) {
    lua_rawgeti(L, 1, (lua_Integer)i + 1);
    if (!read_row(L, s, &handle->array, i, "bp.matrix")) {
      lua_pushnil(L);
      return 1;
    }
    lua_pop(L, 1);
  }
  return 1;
}

/* ---- elements ---------------------------------------------------------------------------------------------------- */

/* A position from 1 as one from 0; BP_MAX_ELEMENTS where it is out of range or no integer. */
static size_t position_at(lua_State *L, int index, size_t limit) {
  lua_Integer i;
  if (!bp_to_integer(L, index, &i) || i < 1 || (size_t)i > limit) return BP_MAX_ELEMENTS;
  return (size_t)i - 1;
}

static int out_of_range(lua_State *L, bp_state *s, const char *name, int index, size_t limit) {
  if (lua_type(L, index) != LUA_TNUMBER)
    return bp_raise(L, s, "%s: expected a position, got %s", name, bp_type_of(L, s, index));
  return bp_raise(L, s, "%s: position %s is out of range 1 to %d", name, luaL_tolstring(L, index, NULL), (int)limit);
}

/* Methods by name; elements and rows by position. One past the end is nil, so that ipairs works. */
static int array_index(lua_State *L) {
  bp_state *s = bp_state_of(L);
  if (lua_type(L, 2) == LUA_TSTRING) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->methods);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, -2) == LUA_TNIL) bp_raise(L, s, "an array has no field or method '%s'", lua_tostring(L, 2));
    return 1;
  }
  const bp_handle *handle = bp_check_array(L, s, 1, "x[i]");
  const bp_array *x = &handle->array;
  size_t i = position_at(L, 2, x->rows + 1);
  if (i == BP_MAX_ELEMENTS) return out_of_range(L, s, "x[i]", 2, x->rows);
  if (i == x->rows) {
    lua_pushnil(L);
  } else if (x->rank == 1) {
    lua_pushnumber(L, bp_load(x, i, 0));
  } else {
    /* Looked at again: a finalizer may have released it. */
    bp_handle *row = bp_push_handle(L, s);
    row->array = bp_window_row(&bp_check_array(L, s, 1, "m[i]")->array, i);
    row->read_only = handle->read_only;
    bp_buffer_retain(row->array.buffer);
  }
  return 1;
}

static int array_newindex(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_handle *handle = bp_check_writable(L, s, 1, "x[i] = s");
  bp_array *x = &handle->array;
  if (x->rank == 2)
    bp_raise(L, s, "m[i] = v: a row cannot be assigned: use m[i]:copy(v), or m:set(i, j, s) for an element");
  size_t i = position_at(L, 2, x->rows);
  if (i == BP_MAX_ELEMENTS) return out_of_range(L, s, "x[i] = s", 2, x->rows);
  if (lua_type(L, 3) != LUA_TNUMBER) {
    bool tracked = bp_variable_at(L, s, 3) != NULL;
    return bp_raise(L, s, "x[i] = s: an element must be a number, got %s%s", bp_type_of(L, s, 3),
                    tracked ? ": bp.vector{...} of tracked numbers makes a tracked vector" : "");
  }
  bp_store(x, i, 0, lua_tonumber(L, 3));
  x->buffer->version++;
  return 0;
}

static int length(lua_State *L) {
  const bp_handle *handle = bp_check_array(L, bp_state_of(L), 1, "#x");
  lua_pushinteger(L, (lua_Integer)handle->array.rows);
  return 1;
}

/* ---- methods, of arrays and of variables ------------------------------------------------------------------------- */

/* The value of an array or of a tracked one. */
static bp_array array_of(lua_State *L, bp_state *s, int index, const char *name) {
  const bp_variable *variable = bp_variable_at(L, s, index);
  if (variable == NULL) return bp_check_array(L, s, index, name)->array;
  bp_array value = bp_check_variable(L, s, variable, name)->tape.nodes[variable->node].value;
  if (value.rank == 0) bp_raise(L, s, "%s: expected a vector or matrix, got a tracked number", name);
  return value;
}

static int shape(lua_State *L) {
  bp_array x = array_of(L, bp_state_of(L), 1, "x:shape");
  bp_check_count(L, bp_state_of(L), 1, "x:shape");
  lua_pushinteger(L, (lua_Integer)x.rows);
  if (x.rank == 1) return 1;
  lua_pushinteger(L, (lua_Integer)x.cols);
  return 2;
}

static int dtype(lua_State *L) {
  bp_array x = array_of(L, bp_state_of(L), 1, "x:dtype");
  bp_check_count(L, bp_state_of(L), 1, "x:dtype");
  lua_pushstring(L, bp_dtype_name(x.dtype));
  return 1;
}

/* Calls the method of that name with the first `count` arguments. */
static int call_method(lua_State *L, bp_state *s, const char *name, int count) {
  lua_settop(L, count);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->methods);
  lua_getfield(L, -1, name);
  lua_replace(L, -2);
  lua_insert(L, 1);
  lua_call(L, count, 1);
  return 1;
}

static int get(lua_State *L) {
  bp_state *s = bp_state_of(L);
  if (bp_variable_at(L, s, 1) != NULL) return call_method(L, s, "element", 3);
  bp_array x = bp_check_array(L, s, 1, "x:get")->array;
  if (x.rank == 1) {
    size_t i = position_at(L, 2, x.rows);
    if (!lua_isnoneornil(L, 3)) return bp_raise(L, s, "x:get: a vector takes one position");
    if (i == BP_MAX_ELEMENTS) return out_of_range(L, s, "x:get", 2, x.rows);
    lua_pushnumber(L, bp_load(&x, i, 0));
    return 1;
  }
  size_t i = position_at(L, 2, x.rows), j = position_at(L, 3, x.cols);
  if (i == BP_MAX_ELEMENTS) return out_of_range(L, s, "x:get: row", 2, x.rows);
  if (j == BP_MAX_ELEMENTS) return out_of_range(L, s, "x:get: column", 3, x.cols);
  bp_check_count(L, s, 3, "x:get");
  lua_pushnumber(L, bp_load(&x, i, j));
  return 1;
}

static void push_row_table(lua_State *L, const bp_array *x, size_t i) {
  size_t n = x->rank == 1 ? x->rows : x->cols;
  lua_createtable(L, (int)n, 0);
  for (size_t k = 0; k < n; k++) {
    lua_pushnumber(L, x->rank == 1 ? bp_load(x, k, 0) : bp_load(x, i, k));
    lua_rawseti(L, -2, (lua_Integer)k + 1);
  }
}

/* core.totable(x), of a plain array. */
static int totable(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_array x = *bp_keep_array(L, s, 1, "x:totable");
  if (x.rank == 1) {
    push_row_table(L, &x, 0);
    return 1;
  }
  lua_createtable(L, (int)x.rows, 0);
  for (size_t i = 0; i < x.rows; i++) {
    push_row_table(L, &x, i);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

/* ---- printing and comparing -------------------------------------------------------------------------------------- */

enum { SHOWN = 8 };

static void add_row(luaL_Buffer *b, const bp_array *x, size_t i) {
  size_t n = x->rank == 1 ? x->rows : x->cols;
  luaL_addchar(b, '[');
  for (size_t k = 0; k < n; k++) {
    char text[40];
    if (n > SHOWN && k == SHOWN - 2) {
      luaL_addstring(b, ", ...");
      k = n - 2;
      continue;
    }
    snprintf(text, sizeof text, "%s%.6g", k == 0 ? "" : ", ", x->rank == 1 ? bp_load(x, k, 0) : bp_load(x, i, k));
    luaL_addstring(b, text);
  }
  luaL_addchar(b, ']');
}

void bp_push_text(lua_State *L, const bp_array *x) {
  luaL_Buffer b;
  char head[80];
  luaL_buffinit(L, &b);
  snprintf(head, sizeof head, "%s %s %s ", x->rank == 1 ? "vector" : "matrix", bp_describe(x).text,
           bp_dtype_name(x->dtype));
  luaL_addstring(&b, head);
  if (x->rank == 1) {
    add_row(&b, x, 0);
  } else {
    luaL_addchar(&b, '[');
    for (size_t i = 0; i < x->rows; i++) {
      if (x->rows > SHOWN && i == SHOWN - 2) {
        luaL_addstring(&b, ",\n  ...");
        i = x->rows - 2;
        continue;
      }
      if (x->rows > 1) luaL_addstring(&b, i == 0 ? "\n  " : ",\n  ");
      add_row(&b, x, i);
    }
    luaL_addchar(&b, ']');
  }
  luaL_pushresult(&b);
}

static int array_tostring(lua_State *L) {
  bp_state *s = bp_state_of(L);
  const bp_handle *handle = bp_handle_at(L, s, 1);
  if (handle == NULL || handle->array.rank == 0)
    lua_pushstring(L, bp_type_of(L, s, 1));
  else
    bp_push_text(L, bp_keep_array(L, s, 1, "tostring"));
  return 1;
}

static bool equal_arrays(const bp_array *x, const bp_array *y) {
  if (!bp_same_shape(x, y)) return false;
  for (size_t i = 0; i < x->rows; i++)
    for (size_t j = 0; j < x->cols; j++)
      if (bp_load(x, i, j) != bp_load(y, i, j)) return false;
  return true;
}

/* Shape and values, plain or tracked; a released array equals nothing. */
int bp_equal(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bool arrays = (bp_handle_at(L, s, 1) != NULL || bp_variable_at(L, s, 1) != NULL) &&
                (bp_handle_at(L, s, 2) != NULL || bp_variable_at(L, s, 2) != NULL);
  if (!arrays) {
    lua_pushboolean(L, false);
    return 1;
  }
  bp_single x, y;
  bp_box *box = NULL;
  bp_read_single(L, s, 1, "==", &x, &box);
  bp_read_single(L, s, 2, "==", &y, &box);
  if (x.array.rank == 0 || y.array.rank == 0)
    lua_pushboolean(L, x.array.rank == y.array.rank && x.number == y.number);
  else
    lua_pushboolean(L, equal_arrays(&x.array, &y.array));
  return 1;
}

/* ---- lifetime ---------------------------------------------------------------------------------------------------- */

static int collect(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_handle *handle = bp_handle_at(L, s, 1);
  if (handle == NULL) return 0;
  if (!s->cx.closed) bp_array_release(&s->cx, &handle->array); /* else it is gone */
  handle->array.rank = 0;
  return 0;
}

/* core.release(array): now, and once. The collector need not hear of bytes that come and go. */
static int release(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_handle *handle = bp_handle_at(L, s, 1);
  if (handle == NULL) return bp_raise(L, s, "bp.release: expected an array, got %s", bp_type_of(L, s, 1));
  bp_buffer *buffer = s->cx.closed ? NULL : handle->array.buffer;
  if (buffer != NULL && buffer->waited) bp_pending_compute_of(&s->cx, buffer); /* what waits with it would keep it */
  if (buffer != NULL && buffer->references == 1) bp_count_unseen(s, &handle->array, -1);
  s->epoch++;
  return collect(L);
}

void bp_open_arrays(lua_State *L, bp_state *s) {
  static const luaL_Reg functions[] = {
      {"zeros", zeros},   {"ones", ones},         {"full", full},       {"eye", eye},         {"vector", vector},
      {"matrix", matrix}, {"linspace", linspace}, {"release", release}, {"totable", totable}, {NULL, NULL}};
  static const luaL_Reg metamethods[] = {{"__index", array_index}, {"__newindex", array_newindex},
                                         {"__len", length},        {"__tostring", array_tostring},
                                         {"__eq", bp_equal},       {"__gc", collect},
                                         {"__close", release},     {NULL, NULL}};
  static const luaL_Reg methods[] = {{"shape", shape}, {"dtype", dtype}, {"get", get}, {NULL, NULL}};
  bp_set_functions(L, s, functions);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->array_metatable);
  bp_set_functions(L, s, metamethods);
  lua_pop(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->methods);
  bp_set_functions(L, s, methods);
  lua_pop(L, 1);
}
