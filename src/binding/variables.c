/* Tracked values seen from Lua. A variable has its tape's address, the tape's generation and a node: nothing that would
 * need a finalizer, and enough to tell that the call it belongs to has ended. */
#include "binding.h"

static const bp_node *node_of(lua_State *L, bp_state *s, int index, const char *name) {
  const bp_variable *variable = bp_variable_at(L, s, index);
  if (variable == NULL) bp_raise(L, s, "%s: expected a tracked value, got %s", name, bp_type_of(L, s, index));
  return &bp_check_variable(L, s, variable, name)->tape.nodes[variable->node];
}

/* The same of a tape that may have been sealed: looking at a value is no use of it. */
static const bp_node *look_at(lua_State *L, bp_state *s, int index, const char *name) {
  const bp_variable *variable = bp_variable_at(L, s, index);
  if (variable->generation != variable->box->tape.generation)
    bp_raise(L, s, "%s: a tracked value is used after the call that tracked it has ended", name);
  return &variable->box->tape.nodes[variable->node];
}

/* Calls an operation by name on the first `count` values of the stack. */
static int call_operation(lua_State *L, bp_state *s, const char *name, int count) {
  lua_settop(L, count);
  bp_push_function(L, s, name);
  lua_insert(L, 1);
  lua_call(L, count, 1);
  return 1;
}

/* As array_index, on a tracked array: elements and rows are operations, methods are functions. */
static int variable_index(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bool named = lua_type(L, 2) == LUA_TSTRING;
  const bp_variable *variable = bp_variable_at(L, s, 1);
  bool stale = variable != NULL && variable->generation != variable->box->tape.generation;
  const bp_node *node = node_of(L, s, 1, named && stale ? lua_pushfstring(L, "x:%s", lua_tostring(L, 2)) : "x[i]");
  bool array = !node->object && node->value.rank != 0;
  if (named) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->methods);
    lua_pushvalue(L, 2);
    const char *name = lua_tostring(L, 2), *type = array ? "array" : bp_type_of(L, s, 1);
    bool known = lua_rawget(L, -2) != LUA_TNIL;
    if (!known) bp_raise(L, s, "%s %s has no field or method '%s'", array ? "an" : "a", type, name);
    if (!array) bp_raise(L, s, "a %s has no methods: use bp.%s(x)", type, name);
    return 1;
  }
  if (!array) return bp_raise(L, s, "a %s has no elements", bp_type_of(L, s, 1));
  lua_Integer i;
  if (bp_to_integer(L, 2, &i) && i > 0 && (size_t)i == node->value.rows + 1) {
    lua_pushnil(L);
    return 1;
  }
  return call_operation(L, s, node->value.rank == 1 ? "element" : "row", 2);
}

static int variable_newindex(lua_State *L) {
  bp_state *s = bp_state_of(L);
  return bp_raise(
      L, s,
      "x[i] = s: a tracked value cannot be changed in place: bp.set(x, bp.element_at(i), s) gives a changed copy");
}

static int variable_length(lua_State *L) {
  bp_state *s = bp_state_of(L);
  const bp_node *node = node_of(L, s, 1, "#x");
  if (node->value.rank == 0) return bp_raise(L, s, "a %s has no length", bp_type_of(L, s, 1));
  lua_pushinteger(L, (lua_Integer)node->value.rows);
  return 1;
}

static int variable_tostring(lua_State *L) {
  bp_state *s = bp_state_of(L);
  const bp_variable *variable = bp_variable_at(L, s, 1);
  if (variable == NULL || variable->generation != variable->box->tape.generation) {
    lua_pushstring(L, bp_type_of(L, s, 1));
    return 1;
  }
  const bp_node *node = &variable->box->tape.nodes[variable->node];
  lua_pushliteral(L, "tracked ");
  if (node->object)
    lua_pushliteral(L, "instance");
  else if (node->value.rank == 0)
    lua_pushfstring(L, "%f", node->number);
  else if (node->value.buffer == NULL)
    lua_pushliteral(L, "array");
  else {
    bp_pending_compute(&s->cx, &node->value);
    bp_push_text(L, &node->value);
  }
  lua_concat(L, 2);
  return 1;
}

/* The numbers of two operands of a comparison. */
static void compared(lua_State *L, bp_state *s, const char *event, double *x, double *y) {
  bp_single a, b;
  bp_box *box = NULL;
  if (!bp_read_single(L, s, 1, event, &a, &box) || !bp_read_single(L, s, 2, event, &b, &box) || a.array.rank != 0 ||
      b.array.rank != 0)
    bp_raise(L, s, "%s compares numbers, got %s and %s: bp.less and its kin compare arrays element by element", event,
             bp_type_of(L, s, 1), bp_type_of(L, s, 2));
  *x = a.number;
  *y = b.number;
}

static int less(lua_State *L) {
  double x, y;
  compared(L, bp_state_of(L), "<", &x, &y);
  lua_pushboolean(L, x < y);
  return 1;
}

static int less_equal(lua_State *L) {
  double x, y;
  compared(L, bp_state_of(L), "<=", &x, &y);
  lua_pushboolean(L, x <= y);
  return 1;
}

/* Operators that Lua has and that have no derivative here: upvalue 2 is the operator, 3 the advice. */
static int unsupported(lua_State *L) {
  bp_state *s = bp_state_of(L);
  return bp_raise(L, s, "'%s' is not defined for %s and %s: %s", lua_tostring(L, lua_upvalueindex(2)),
                  bp_type_of(L, s, 1), bp_type_of(L, s, 2), lua_tostring(L, lua_upvalueindex(3)));
}

static void set_unsupported(lua_State *L, bp_state *s) {
  static const struct {
    const char *event, *operator, * advice;
  } rows[] = {
      {"__idiv", "//", "it has no gradient; use / , or bp.value for plain numbers"},
      {"__mod", "%", "it has no gradient; use bp.value for plain numbers"},
      {"__concat", "..", "use tostring(bp.value(x)) for text, bp.concat to join arrays"},
      {"__band", "&", "values here are floats"},
      {"__bor", "|", "values here are floats"},
      {"__bxor", "~", "values here are floats"},
      {"__shl", "<<", "values here are floats"},
      {"__shr", ">>", "values here are floats"},
      {"__bnot", "~", "values here are floats"},
  };
  for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
    lua_pushlightuserdata(L, s);
    lua_pushstring(L, rows[k].operator);
    lua_pushstring(L, rows[k].advice);
    lua_pushcclosure(L, unsupported, 3);
    lua_setfield(L, -2, rows[k].event);
  }
}

/* core.kind(x): what a leaf is, plain or tracked: also "released" and "stale"; nil for anything else. */
static int kind(lua_State *L) {
  static const char *const names[] = {"number", "vector", "matrix"};
  bp_state *s = bp_state_of(L);
  if (lua_type(L, 1) == LUA_TNUMBER) {
    lua_pushliteral(L, "number");
    return 1;
  }
  const bp_handle *handle = bp_handle_at(L, s, 1);
  if (handle != NULL) {
    lua_pushstring(L, handle->array.rank == 0 ? "released" : names[handle->array.rank]);
    return 1;
  }
  const bp_variable *variable = bp_variable_at(L, s, 1);
  if (variable == NULL) {
    lua_pushnil(L);
    return 1;
  }
  if (variable->generation != variable->box->tape.generation) {
    lua_pushliteral(L, "stale");
    return 1;
  }
  const bp_node *node = &variable->box->tape.nodes[variable->node];
  lua_pushstring(L, node->object ? "instance" : names[node->value.rank]);
  return 1;
}

/* core.tracked(x [, name]): with a name, a variable whose call has ended is an error that bears it. */
static int tracked(lua_State *L) {
  const bp_variable *variable = bp_variable_at(L, bp_state_of(L), 1);
  if (variable != NULL && lua_type(L, 2) == LUA_TSTRING) look_at(L, bp_state_of(L), 1, lua_tostring(L, 2));
  lua_pushboolean(L, variable != NULL);
  return 1;
}

void bp_push_value(lua_State *L, bp_state *s, const char *name) {
  int index = lua_gettop(L);
  const bp_variable *variable = bp_variable_at(L, s, index);
  if (variable == NULL) {
    lua_pushvalue(L, index);
    return;
  }
  const bp_node *node = look_at(L, s, index, name);
  if (node->object) {
    bp_push_object(L, variable->box, variable->node);
  } else if (node->value.rank == 0) {
    lua_pushnumber(L, node->number);
  } else if (node->value.buffer == NULL) {
    bp_raise(L, s,
             "bp.value: the sweep has gone past this tracked array and given its values back; take them "
             "before, in the forward");
  } else {
    /* The new handle may make the collector close the tape of a pullback that was dropped: look again after it. */
    bp_handle *handle = bp_push_reserved_handle(L, s);
    handle->array = look_at(L, s, index, name)->value;
    handle->read_only = true;
    bp_buffer_retain(handle->array.buffer);
  }
}

/* core.value(x [, name]): the plain value of a leaf. Errors bear the name. */
static int value(lua_State *L) {
  const char *name = luaL_optstring(L, 2, "bp.value");
  bp_reserve_call(L);
  lua_pushvalue(L, 1);
  bp_push_value(L, bp_state_of(L), name);
  return 1;
}

void bp_open_variables(lua_State *L, bp_state *s) {
  static const luaL_Reg functions[] = {{"kind", kind}, {"tracked", tracked}, {"value", value}, {NULL, NULL}};
  static const luaL_Reg metamethods[] = {{"__index", variable_index}, {"__newindex", variable_newindex},
                                         {"__len", variable_length},  {"__tostring", variable_tostring},
                                         {"__eq", bp_equal},          {"__lt", less},
                                         {"__le", less_equal},        {NULL, NULL}};
  bp_set_functions(L, s, functions);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->variable_metatable);
  bp_set_functions(L, s, metamethods);
  set_unsupported(L, s);
  lua_pushliteral(L, "tracked value (use the functions of bp, such as bp.sin, or bp.value for the plain number)");
  lua_setfield(L, -2, "__name");
  lua_pop(L, 1);
  static const luaL_Reg array_metamethods[] = {{"__lt", less}, {"__le", less_equal}, {NULL, NULL}};
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->array_metatable);
  bp_set_functions(L, s, array_metamethods);
  set_unsupported(L, s);
  lua_pop(L, 1);
}
