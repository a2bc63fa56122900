/* Tapes seen from Lua: one for each gradient call. The Lua side opens one, makes leaves of the arguments, calls the
 * function, seeds its result and runs the sweep; `<close>` gives everything back, also after an error, and the finalizer
 * does it for a coroutine that was dropped. */
#include "binding.h"

/* ---- boxes ------------------------------------------------------------------------------------------------------- */

void bp_push_box_table(lua_State *L, const bp_box *box) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, box->table);
}

/* A tape in no use, or a new one, whose memory the state keeps. */
static bp_box *take_box(lua_State *L, bp_state *s) {
  bp_box *box = s->free_box;
  if (box != NULL) {
    s->free_box = box->next_free;
    return box;
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->tapes);
  box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = (bp_box){.table = LUA_NOREF};
  lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
  lua_pop(L, 1);
  return box;
}

static void close_box(lua_State *L, bp_state *s, bp_box *box) {
  bp_tape_close(&box->tape);
  luaL_unref(L, LUA_REGISTRYINDEX, box->table);
  box->table = LUA_NOREF;
  if (box->last_generation == UINT32_MAX) return;
  box->next_free = s->free_box;
  s->free_box = box;
}

/* ---- the handle -------------------------------------------------------------------------------------------------- */

static bp_tape_handle *handle_at(lua_State *L, bp_state *s) {
  bp_tape_handle *handle = lua_type(L, 1) == LUA_TUSERDATA && lua_rawlen(L, 1) == sizeof *handle ? lua_touserdata(L, 1)
                                                                                                 : NULL;
  if (handle == NULL || handle->mark != &s->tape_mark) bp_raise(L, s, "backprop: expected a tape");
  return handle;
}

static bool is_open(const bp_tape_handle *handle) {
  return handle->box != NULL && handle->generation == handle->box->tape.generation;
}

static bp_box *open_box(lua_State *L, bp_state *s) {
  bp_tape_handle *handle = handle_at(L, s);
  if (!is_open(handle)) bp_raise(L, s, "bp.vjp: the pullback is closed");
  return handle->box;
}

/* core.tape(kept): an open tape. */
static int new_tape(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bool kept = lua_toboolean(L, 1);
  bp_tape_handle *handle = lua_newuserdatauv(L, sizeof *handle, 0);
  *handle = (bp_tape_handle){.mark = &s->tape_mark};
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->tape_metatable);
  lua_setmetatable(L, -2);
  bp_box *box = take_box(L, s);
  bp_tape_open(&box->tape, &s->cx, ++box->last_generation);
  box->tape.kept = kept;
  handle->box = box;
  handle->generation = box->tape.generation;
  lua_newtable(L);
  if (s->tracing) {
    lua_newtable(L);
    lua_setfield(L, -2, "lines");
  }
  box->table = luaL_ref(L, LUA_REGISTRYINDEX);
  return 1;
}

static int close_tape(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_tape_handle *handle = handle_at(L, s);
  if (!is_open(handle)) return 0;
  if (handle->box->tape.sweeping) bp_raise(L, s, "bp.vjp: a pullback cannot be closed while it runs");
  close_box(L, s, handle->box);
  return 0;
}

/* At the end of the state, or of a coroutine that was dropped. */
static int collect_tape(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_tape_handle *handle = handle_at(L, s);
  if (is_open(handle)) close_box(L, s, handle->box);
  return 0;
}

/* ---- recording --------------------------------------------------------------------------------------------------- */

/* tape:leaf(x [, into [, name]]): x tracked; errors bear the name. */
static int leaf(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_box *box = open_box(L, s);
  bp_operand value;
  bp_box *other = NULL;
  const char *name = luaL_optstring(L, 4, "bp.grad");
  bp_index index;
  bp_variable *tracked = bp_variable_at(L, s, 2);
  if (tracked != NULL)
    return bp_raise(L, s,
                    "%s: an argument is tracked by another call (a gradient inside a gradient is not "
                    "supported: pass plain values, with bp.value)",
                    name);
  if (!bp_read_operand(L, s, 2, name, &value, &other))
    return bp_raise(L, s, "%s: expected a number, vector or matrix, got %s", name, bp_type_of(L, s, 2));
  const bp_array *into = NULL;
  if (!lua_isnoneornil(L, 3)) {
    bp_handle *target = bp_check_writable(L, s, 3, lua_pushfstring(L, "%s: into", name));
    into = &target->array;
    if (!bp_same_shape(into, &value.array) || into->dtype != value.array.dtype)
      return bp_raise(L, s, "%s: into: expected %s %s, got %s %s", name, bp_describe(&value.array).text,
                      bp_dtype_name(value.array.dtype), bp_describe(into).text, bp_dtype_name(into->dtype));
    if (!bp_is_contiguous(into)) return bp_raise(L, s, "%s: into: a column cannot receive a gradient", name);
    for (size_t k = 0; k < box->tape.into_count; k++)
      if (bp_overlap(into, &box->tape.into[k]))
        return bp_raise(L, s, "%s: into: two gradients would go to the same array", name);
  }
  BP_TRY(L, s, bp_tape_leaf(&box->tape, &value, into, &index));
  bp_push_variable(L, s, box, index);
  return 1;
}

void bp_keep_object(lua_State *L, const bp_box *box, bp_index node) {
  bp_push_box_table(L, box);
  if (lua_getfield(L, -1, "objects") == LUA_TNIL) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "objects");
  }
  lua_pushvalue(L, -3);
  lua_rawseti(L, -2, (lua_Integer)node + 1);
  lua_pop(L, 2);
}

/* tape:object(x): an instance, tracked. */
static int object(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_box *box = open_box(L, s);
  bp_index index;
  BP_TRY(L, s, bp_tape_object_leaf(&box->tape, &index));
  lua_settop(L, 2);
  bp_keep_object(L, box, index);
  bp_push_variable(L, s, box, index);
  return 1;
}

/* tape:owns(x): whether a variable is this tape's; raises if it is another's. */
static int owns(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_box *box = open_box(L, s);
  const bp_variable *variable = bp_variable_at(L, s, 2);
  if (variable == NULL) {
    lua_pushboolean(L, false);
    return 1;
  }
  if (variable->box != box || variable->generation != box->tape.generation)
    bp_raise(L, s, "bp.grad: the result is tracked by another call");
  lua_pushboolean(L, true);
  return 1;
}

/* tape:outcome(x): the plain value of a result, for the caller to keep: a copy only where others have the storage. */
static int outcome(lua_State *L) {
  bp_state *s = bp_state_of(L);
  owns(L);
  lua_settop(L, 2);
  const bp_variable *variable = bp_variable_at(L, s, 2);
  if (variable == NULL) return 1;
  const bp_node *node = &variable->box->tape.nodes[variable->node];
  bp_array array = node->value;
  if (node->object) {
    bp_push_box_table(L, variable->box);
    lua_getfield(L, -1, "objects");
    lua_rawgeti(L, -1, (lua_Integer)variable->node + 1);
  } else if (array.rank == 0) {
    lua_pushnumber(L, node->number);
  } else if (node->kind == BP_NODE_RESULT && array.buffer->references == 1) {
    bp_push_shared(L, s, &array, false);
  } else {
    bp_handle *copy = bp_push_new(L, s, bp_shape_like(&array));
    bp_axpby(&s->cx, 1, &array, 0, &copy->array);
  }
  return 1;
}

/* tape:seal(): no more recording; variables are stale from here on. */
static int seal(lua_State *L) {
  open_box(L, bp_state_of(L))->tape.sealed = true;
  return 0;
}

/* ---- sweeping ---------------------------------------------------------------------------------------------------- */

/* tape:begin([deferring]): all cotangents zero. */
static int begin(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_box *box = open_box(L, s);
  if (box->tape.sweeping) bp_raise(L, s, "bp.vjp: a pullback cannot be called inside itself");
  box->tape.deferring = lua_toboolean(L, 2);
  lua_settop(L, 1);
  bp_push_box_table(L, box);
  lua_pushnil(L);
  lua_setfield(L, -2, "gradients");
  BP_TRY(L, s, bp_sweep_begin(&box->tape));
  return 0;
}

void bp_add_object(lua_State *L, bp_state *s, const bp_box *box, bp_index node) {
  bp_push_box_table(L, box);
  if (lua_getfield(L, -1, "gradients") == LUA_TNIL) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "gradients");
  }
  lua_replace(L, -2);
  if (lua_rawgeti(L, -1, (lua_Integer)node + 1) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_insert(L, -2);
  } else {
    s->cx.stats.additions++;
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->functions);
    lua_getfield(L, -1, "add_instances");
    lua_replace(L, -2);
    lua_insert(L, -2);
    lua_pushvalue(L, -4);
    lua_call(L, 2, 1);
    lua_remove(L, -3);
  }
  lua_rawseti(L, -2, (lua_Integer)node + 1);
  lua_pop(L, 1);
}

/* tape:seed(variable [, cotangent]): ones where there is no cotangent. */
static int seed(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_box *box = open_box(L, s);
  const bp_variable *variable = bp_variable_at(L, s, 2);
  if (variable == NULL || variable->box != box) return bp_raise(L, s, "bp.vjp: the result is not of this tape");
  const bp_node *node = &box->tape.nodes[variable->node];
  if (node->object) {
    lua_settop(L, 3);
    bp_add_object(L, s, box, variable->node);
    bp_sweep_seed_object(&box->tape, variable->node);
    return 0;
  }
  if (lua_isnoneornil(L, 3)) {
    BP_TRY(L, s, bp_sweep_seed(&box->tape, variable->node, NULL));
    return 0;
  }
  bp_operand cotangent;
  bp_box *other = NULL;
  bool fits = bp_read_operand(L, s, 3, "bp.vjp", &cotangent, &other) && other == NULL &&
              bp_same_shape(&cotangent.array, &node->value) &&
              (node->value.rank == 0 || cotangent.array.dtype == node->value.dtype);
  if (!fits) return bp_raise(L, s, "bp.vjp: the cotangent does not fit the result");
  if (cotangent.array.rank == 0) cotangent.array.data = &cotangent.number;
  BP_TRY(L, s, bp_sweep_seed(&box->tape, variable->node, &cotangent.array));
  return 0;
}

/* Names the line that recorded the operation at which the sweep failed, where it is known. */
static void raise_at_culprit(lua_State *L, bp_state *s, const bp_box *box) {
  bp_push_box_table(L, box);
  if (lua_getfield(L, -1, "lines") == LUA_TNIL || box->tape.culprit == BP_NONE) return;
  if (lua_rawgeti(L, -1, (lua_Integer)box->tape.culprit + 1) != LUA_TSTRING) return;
  lua_pushfstring(L, "%s%s (in the sweep)", lua_tostring(L, -1), s->cx.message);
  lua_error(L);
}

/* tape:trace(): what was recorded, a list of {op, line, forward, backward, bytes}; times in seconds. */
static int trace(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_box *box = open_box(L, s);
  lua_Integer count = 0;
  lua_settop(L, 1);
  bp_push_box_table(L, box);
  lua_getfield(L, -1, "lines");
  lua_newtable(L);
  for (size_t k = 0; k < box->tape.node_count; k++) {
    const bp_node *node = &box->tape.nodes[k];
    if (node->kind != BP_NODE_RESULT || node->first != k) continue;
    lua_createtable(L, 0, 5);
    lua_pushstring(L, node->op->name);
    lua_setfield(L, -2, "op");
    lua_pushnumber(L, (lua_Number)node->forward * 1e-9);
    lua_setfield(L, -2, "forward");
    lua_pushnumber(L, (lua_Number)node->backward * 1e-9);
    lua_setfield(L, -2, "backward");
    lua_pushinteger(L, node->value.rank == 0 || node->root != k
                           ? 0
                           : (lua_Integer)(bp_count(&node->value) * bp_element_size((bp_dtype)node->value.dtype)));
    lua_setfield(L, -2, "bytes");
    lua_createtable(L, (int)node->input_count, 0);
    for (size_t i = 0; i < node->input_count; i++) {
      const bp_node *input = &box->tape.nodes[bp_node_inputs(&box->tape, node)[i]];
      lua_pushstring(L, input->op == NULL ? "" : input->op->name);
      lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "inputs");
    if (lua_istable(L, 3)) {
      lua_rawgeti(L, 3, (lua_Integer)k + 1);
      lua_setfield(L, -2, "line");
    }
    lua_rawseti(L, -2, ++count);
  }
  return 1;
}

/* tape:run(): the sweep. */
static int run(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_box *box = open_box(L, s);
  box->tape.sealed = true;
  lua_settop(L, 1);
  bp_status status = bp_sweep_run(&box->tape, L);
  /* A sweep cannot be resumed, but nothing is lost by the collector running before the error is raised. */
  if (status == BP_NOMEM) bp_make_room(L, s);
  if (status == BP_INVALID) raise_at_culprit(L, s, box);
  if (status != BP_OK) bp_raise_status(L, s, status);
  return 0;
}

static bp_index check_leaf(lua_State *L, bp_state *s, const bp_box *box) {
  lua_Integer index = luaL_checkinteger(L, 2);
  if (index < 1 || (lua_Unsigned)index > box->tape.leaf_count) bp_raise(L, s, "backprop: no such leaf");
  return (bp_index)(index - 1);
}

/* tape:gradient(i): of the i-th leaf, the caller's own. */
static int gradient(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_box *box = open_box(L, s);
  bp_index index = check_leaf(L, s, box);
  bp_operand found;
  if (box->tape.nodes[index].value.rank == 0) {
    if (box->tape.nodes[index].object) {
      bp_push_box_table(L, box);
      if (lua_getfield(L, -1, "gradients") != LUA_TNIL) lua_rawgeti(L, -1, (lua_Integer)index + 1);
      return 1;
    }
    BP_TRY(L, s, bp_sweep_gradient(&box->tape, index, &found));
    lua_pushnumber(L, found.number);
    return 1;
  }
  bp_report(L, s);
  bp_handle *handle = bp_push_handle(L, s);
  BP_TRY(L, s, bp_sweep_gradient(&box->tape, index, &found));
  bp_hold(s, handle, &found.array);
  return 1;
}

/* tape:prepare(): all that can fail before the first parameter changes. */
static int prepare(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_box *box = open_box(L, s);
  BP_TRY(L, s, bp_update_prepare(&box->tape));
  return 0;
}

/* tape:descended(i, decay, rate): what a step makes of the i-th leaf, if that is a number. */
static int descended(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_box *box = open_box(L, s);
  bp_index index = check_leaf(L, s, box);
  double number = 0;
  if (box->tape.nodes[index].value.rank != 0) return 0;
  bp_update_leaf(&box->tape, index, luaL_checknumber(L, 3), luaL_checknumber(L, 4), &number);
  lua_pushnumber(L, number);
  return 1;
}

/* tape:descend(decay, rate, stores): leaf = decay * leaf - rate * gradient, in place, for every array, and what the list
 * `stores` says of numbers: a table, a key that is in it, a value; and so on. One call for all, so that it happens as a
 * whole or, when memory runs out, not at all: nothing here asks for any. */
static int descend(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_box *box = open_box(L, s);
  double decay = luaL_checknumber(L, 2), rate = luaL_checknumber(L, 3), number;
  luaL_checktype(L, 4, LUA_TTABLE);
  lua_Integer stores = (lua_Integer)lua_rawlen(L, 4);
  for (bp_index leaf = 0; leaf < box->tape.leaf_count; leaf++)
    if (box->tape.nodes[leaf].value.rank != 0) bp_update_leaf(&box->tape, leaf, decay, rate, &number);
  for (lua_Integer k = 1; k + 2 <= stores; k += 3) {
    for (lua_Integer i = 0; i < 3; i++) lua_rawgeti(L, 4, k + i);
    lua_rawset(L, -3);
    lua_settop(L, 4);
  }
  return 0;
}

void bp_open_tapes(lua_State *L, bp_state *s) {
  static const luaL_Reg functions[] = {{"tape", new_tape}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"leaf", leaf},   {"object", object},   {"owns", owns},        {"outcome", outcome},     {"seal", seal},
      {"begin", begin}, {"seed", seed},       {"run", run},          {"gradient", gradient},   {"prepare", prepare},
      {"trace", trace}, {"descend", descend}, {"close", close_tape}, {"descended", descended}, {NULL, NULL}};
  bp_set_functions(L, s, functions);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->tape_metatable);
  static const luaL_Reg metamethods[] = {{"__close", close_tape}, {"__gc", collect_tape}, {NULL, NULL}};
  bp_set_functions(L, s, metamethods);
  lua_newtable(L);
  bp_set_functions(L, s, methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}
