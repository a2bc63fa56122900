/* Tapes seen from Lua: one for each gradient call. The Lua side opens one, makes leaves of the arguments, calls the
 * function, seeds its result and runs the sweep; `<close>` gives everything back, also after an error, and the finalizer
 * does it for a coroutine that was dropped. */
#include "binding.h"

/* ---- boxes ------------------------------------------------------------------------------------------------------- */

/* Made when it is first asked for: most tapes need none. With room for some entries of bp.op (custom.c): a table that
 * grows by one is made anew again and again. */
void bp_push_box_table(lua_State *L, bp_box *box) {
  if (box->table == LUA_NOREF) {
    lua_createtable(L, 16, 0);
    box->table = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  lua_rawgeti(L, LUA_REGISTRYINDEX, box->table);
}

/* At the end of a call: the next one can use a table of a few entries again, if it is emptied. */
static void forget_table(lua_State *L, bp_box *box) {
  enum { FEW = 64 };
  if (box->table == LUA_NOREF) return;
  lua_rawgeti(L, LUA_REGISTRYINDEX, box->table);
  const lua_Integer entries = (lua_Integer)lua_rawlen(L, -1);
  if (box->named || entries > FEW) {
    luaL_unref(L, LUA_REGISTRYINDEX, box->table);
    box->table = LUA_NOREF;
    box->named = false;
  } else {
    for (lua_Integer k = entries; k > 0; k--) {
      lua_pushnil(L);
      lua_rawseti(L, -2, k);
    }
  }
  lua_pop(L, 1);
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
  s->epoch++;
  bp_count_call(s, &box->tape);
  bp_tape_close(&box->tape);
  forget_table(L, box);
  if (box->last_generation == UINT32_MAX) return;
  box->next_free = s->free_box;
  s->free_box = box;
}

/* ---- the handle -------------------------------------------------------------------------------------------------- */

static bp_tape_handle *handle_at(lua_State *L, bp_state *s) {
  bp_tape_handle *handle = lua_touserdata(L, 1);
  if (handle == NULL || lua_rawlen(L, 1) != sizeof *handle || handle->mark != &s->tape_mark)
    bp_raise(L, s, "backprop: expected a tape");
  return handle;
}

static bool is_open(const bp_tape_handle *handle) {
  return handle->box != NULL && handle->generation == handle->box->tape.generation;
}

bp_box *bp_check_tape(lua_State *L, bp_state *s) {
  bp_tape_handle *handle = handle_at(L, s);
  if (!is_open(handle)) bp_raise(L, s, "bp.vjp: the pullback is closed");
  return handle->box;
}

/* A handle in no use, or a new one. Handles are used again, since a userdata with a finalizer costs as much as a small
 * call: while one is in use nobody but the call has it, so that it is collected, and its tape closed, with a coroutine
 * that was dropped. */
static bp_tape_handle *push_handle(lua_State *L, bp_state *s) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->tape_handles);
  lua_Integer count = (lua_Integer)lua_rawlen(L, -1);
  if (count > 0) {
    lua_rawgeti(L, -1, count);
    lua_pushnil(L);
    lua_rawseti(L, -3, count);
    lua_remove(L, -2);
    return lua_touserdata(L, -1);
  }
  lua_pop(L, 1);
  bp_tape_handle *handle = lua_newuserdatauv(L, sizeof *handle, 0);
  *handle = (bp_tape_handle){.mark = &s->tape_mark};
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->tape_metatable);
  lua_setmetatable(L, -2);
  return handle;
}

/* core.tape([kept [, check_finite]]): an open tape. One that is kept is the user's until it is closed or forgotten. */
static int new_tape(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bool kept = lua_toboolean(L, 1);
  bp_collect_calls(L, s);
  bp_tape_handle *handle = push_handle(L, s);
  bp_box *box = take_box(L, s);
  bp_tape_open(&box->tape, &s->cx, ++box->last_generation);
  box->tape.kept = kept;
  box->thorough = false;
  if (lua_isboolean(L, 2)) box->tape.check_finite = lua_toboolean(L, 2);
  handle->box = box;
  handle->generation = box->tape.generation;
  if (s->cx.timing || box->tape.check_finite) {
    bp_push_box_table(L, box);
    lua_newtable(L);
    box->named = true;
    lua_setfield(L, -2, "lines");
    lua_pop(L, 1);
  }
  return 1;
}

static void check_idle(lua_State *L, bp_state *s, const bp_tape_handle *handle) {
  if (handle->box->tape.sweeping) bp_raise(L, s, "bp.vjp: a pullback cannot be closed while it runs");
}

/* tape:close(), for the pullback of a kept tape, whose handle stays the user's. */
static int close_tape(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_tape_handle *handle = handle_at(L, s);
  if (!is_open(handle)) return 0;
  check_idle(L, s, handle);
  close_box(L, s, handle->box);
  return 0;
}

/* __close: the end of the call that made the tape, which nobody else has; its handle can be used again. */
static int end_tape(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_tape_handle *handle = handle_at(L, s);
  if (!is_open(handle)) return 0;
  check_idle(L, s, handle);
  close_box(L, s, handle->box);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->tape_handles);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
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

void bp_keep_object(lua_State *L, bp_box *box, bp_index node) {
  bp_push_box_table(L, box);
  box->named = true;
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

void bp_track_object(lua_State *L, bp_state *s, bp_box *box) {
  bp_index index;
  BP_TRY(L, s, bp_tape_object_leaf(&box->tape, &index));
  bp_keep_object(L, box, index);
  bp_push_variable(L, s, box, index);
}

void bp_push_object(lua_State *L, bp_box *box, bp_index node) {
  bp_push_box_table(L, box);
  lua_getfield(L, -1, "objects");
  lua_rawgeti(L, -1, (lua_Integer)node + 1);
  lua_replace(L, -3);
  lua_pop(L, 1);
}

/* The variable at an index if it is this tape's, NULL if it is no variable; raises if it is another's. */
static const bp_variable *check_own(lua_State *L, bp_state *s, const bp_box *box, int index, const char *name) {
  const bp_variable *variable = bp_variable_at(L, s, index);
  const bp_handle *handle = variable != NULL ? NULL : bp_handle_at(L, s, index);
  if (handle != NULL && handle->array.rank == 0) bp_raise(L, s, "%s: the result is a released array", name);
  if (variable == NULL) return NULL;
  if (variable->generation != variable->box->tape.generation) bp_check_variable(L, s, variable, name);
  if (variable->box != box) bp_raise(L, s, "%s: the result is tracked by another call", name);
  return variable;
}

/* tape:owns(x [, name]): whether a variable in a result is this tape's; raises if it is another's. */
static int owns(lua_State *L) {
  bp_state *s = bp_state_of(L);
  lua_pushboolean(L, check_own(L, s, bp_check_tape(L, s), 2, luaL_optstring(L, 3, "bp.grad")) != NULL);
  return 1;
}

void bp_push_outcome(lua_State *L, bp_state *s, bp_box *box, const char *name) {
  const bp_variable *variable = check_own(L, s, box, -1, name);
  if (variable == NULL) {
    lua_pushvalue(L, -1);
    return;
  }
  const bp_node *node = &box->tape.nodes[variable->node];
  bp_array array = node->value;
  if (node->object) {
    bp_push_object(L, box, variable->node);
  } else if (array.rank == 0) {
    lua_pushnumber(L, node->number);
  } else if (node->kind == BP_NODE_RESULT && array.buffer->references == 1) {
    bp_push_shared(L, s, &array, false);
  } else {
    bp_pending_compute(&s->cx, &array);
    bp_handle *copy = bp_push_new(L, s, bp_shape_like(&array));
    bp_axpby(&s->cx, 1, &array, 0, &copy->array);
  }
}

/* tape:seal(): no more recording; variables are stale from here on. */
static int seal(lua_State *L) {
  bp_check_tape(L, bp_state_of(L))->tape.sealed = true;
  return 0;
}

/* ---- sweeping ---------------------------------------------------------------------------------------------------- */

/* tape:begin([deferring]): all cotangents zero. */
static void begin_sweep(lua_State *L, bp_state *s, bp_box *box, bool deferring) {
  if (box->tape.sweeping) bp_raise(L, s, "bp.vjp: a pullback cannot be called inside itself");
  /* The gradients that have no array to go to. */
  for (size_t k = box->tape.into_count; k < box->tape.leaf_count && !deferring; k++)
    bp_report_before(L, s, &box->tape.nodes[k].value);
  box->tape.deferring = deferring;
  if (box->named) {
    bp_push_box_table(L, box);
    lua_pushnil(L);
    lua_setfield(L, -2, "gradients");
    lua_pop(L, 1);
  }
  BP_TRY(L, s, bp_sweep_begin(&box->tape));
}

static int begin(lua_State *L) {
  bp_state *s = bp_state_of(L);
  begin_sweep(L, s, bp_check_tape(L, s), lua_toboolean(L, 2));
  return 0;
}

void bp_add_object(lua_State *L, bp_state *s, bp_box *box, bp_index node) {
  bp_push_box_table(L, box);
  box->named = true;
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
    bp_push_function(L, s, "add_instances");
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
  bp_box *box = bp_check_tape(L, s);
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
  bp_single cotangent;
  bp_box *other = NULL;
  bool fits = bp_read_single(L, s, 3, "bp.vjp", &cotangent, &other) && other == NULL &&
              bp_same_shape(&cotangent.array, &node->value) &&
              (node->value.rank == 0 || cotangent.array.dtype == node->value.dtype);
  if (!fits) return bp_raise(L, s, "bp.vjp: the cotangent does not fit the result");
  if (box->tape.check_finite && !bp_all_finite(&s->cx, &cotangent.array))
    return bp_raise(L, s, "bp.vjp: the cotangent has a NaN or inf");
  BP_TRY(L, s, bp_sweep_seed(&box->tape, variable->node, &cotangent.array));
  return 0;
}

/* Names the line that recorded the operation at which the sweep failed, where it is known. */
static void raise_at_culprit(lua_State *L, bp_state *s, bp_box *box) {
  bp_push_box_table(L, box);
  if (lua_getfield(L, -1, "lines") == LUA_TNIL || box->tape.culprit == BP_NONE) return;
  if (lua_rawgeti(L, -1, (lua_Integer)box->tape.culprit + 1) != LUA_TSTRING) return;
  const char *line = lua_tostring(L, -1);
  lua_pushfstring(L, "%s%s (in the sweep)", line, bp_push_message(L, s));
  lua_error(L);
}

/* tape:trace(): what was recorded, a list of {op, line, forward, backward, bytes, inputs}; times in seconds. */
static int trace(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_box *box = bp_check_tape(L, s);
  lua_Integer count = 0;
  lua_settop(L, 1);
  bp_push_box_table(L, box);
  lua_getfield(L, -1, "lines");
  lua_newtable(L);
  for (size_t k = 0; k < box->tape.node_count; k++) {
    const bp_node *node = &box->tape.nodes[k];
    if (node->kind != BP_NODE_RESULT || node->first != k) continue;
    lua_createtable(L, 0, 6);
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

static void run_sweep(lua_State *L, bp_state *s, bp_box *box) {
  box->tape.sealed = true;
  lua_settop(L, 1);
  bp_status status = bp_sweep_run(&box->tape, L);
  /* A sweep cannot be resumed, but nothing is lost by the collector running before the error is raised. */
  if (status == BP_NOMEM) bp_make_room(L, s);
  if (status == BP_INVALID) raise_at_culprit(L, s, box);
  if (status != BP_OK) bp_raise_status(L, s, status);
}

/* tape:run(): the sweep. */
static int run(lua_State *L) {
  bp_state *s = bp_state_of(L);
  run_sweep(L, s, bp_check_tape(L, s));
  return 0;
}

/* tape:sweep(name, result [, deferring]): begins, seeds and runs where the result is a tracked number of this tape, the usual
 * loss, and returns its value; nil where it is anything else. */
static int sweep(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_box *box = bp_check_tape(L, s);
  const bp_variable *variable = check_own(L, s, box, 3, luaL_checkstring(L, 2));
  if (variable == NULL) return 0;
  bp_index result = variable->node;
  const bp_node *node = &box->tape.nodes[result];
  if (node->object || node->value.rank != 0) return 0;
  begin_sweep(L, s, box, lua_toboolean(L, 4));
  BP_TRY(L, s, bp_sweep_seed(&box->tape, result, NULL));
  run_sweep(L, s, box);
  lua_pushnumber(L, box->tape.nodes[result].number);
  return 1;
}

int bp_refuse_change(lua_State *L, bp_state *s, const char *name) {
  return bp_raise(L, s, "%s: an argument was changed while the function ran", name);
}

void bp_check_leaf(lua_State *L, bp_state *s, const bp_box *box, size_t number, int index, const char *name) {
  const bp_node *node = &box->tape.nodes[number - 1];
  const bp_handle *handle = bp_handle_at(L, s, index);
  bool same = number >= 1 && number <= box->tape.leaf_count;
  if (same && node->object)
    same = handle == NULL && lua_type(L, index) != LUA_TNUMBER;
  else if (same && node->value.rank == 0)
    same = lua_type(L, index) == LUA_TNUMBER;
  else if (same)
    same = handle != NULL && (handle->array.rank == 0 || (bp_same_shape(&handle->array, &node->value) &&
                                                          handle->array.dtype == node->value.dtype));
  if (!same) bp_refuse_change(L, s, name);
}

void bp_push_gradient(lua_State *L, bp_state *s, bp_box *box, bp_index leaf) {
  bp_outcome found;
  const bp_node *node = &box->tape.nodes[leaf];
  if (node->object) {
    bp_push_box_table(L, box);
    if (lua_getfield(L, -1, "gradients") == LUA_TTABLE) {
      lua_rawgeti(L, -1, (lua_Integer)leaf + 1);
      lua_replace(L, -2);
    }
    lua_replace(L, -2);
    return;
  }
  if (node->value.rank == 0) {
    BP_TRY(L, s, bp_sweep_gradient(&box->tape, leaf, &found));
    lua_pushnumber(L, found.number);
    return;
  }
  bp_report(L, s);
  bp_handle *handle = bp_push_handle(L, s);
  BP_TRY(L, s, bp_sweep_gradient(&box->tape, leaf, &found));
  bp_hold(s, handle, &found.array);
}

/* tape:deliver(): brings every gradient to the array where it is to go; false, and nothing is done, if there is a leaf
 * that is no array. */
static int deliver(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_box *box = bp_check_tape(L, s);
  bp_tape *tape = &box->tape;
  bool all = tape->into_count == tape->leaf_count;
  for (bp_index leaf = 0; all && leaf < tape->leaf_count; leaf++) all = tape->into[leaf].rank != 0;
  for (bp_index leaf = 0; all && leaf < tape->leaf_count; leaf++) {
    bp_outcome found;
    BP_TRY(L, s, bp_sweep_gradient(tape, leaf, &found));
    bp_array_release(&s->cx, &found.array);
  }
  lua_pushboolean(L, all);
  return 1;
}

/* tape:descended(name, i, x, decay, rate): what a step makes of the i-th leaf, which is x, if that is a number. */
static int descended(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_box *box = bp_check_tape(L, s);
  const size_t number = (size_t)luaL_checkinteger(L, 3);
  bp_check_leaf(L, s, box, number, 4, luaL_checkstring(L, 2));
  if (lua_type(L, 4) != LUA_TNUMBER) return 0;
  lua_pushnumber(L,
                 bp_updated_number(&box->tape, (bp_index)(number - 1), luaL_checknumber(L, 5), luaL_checknumber(L, 6)));
  return 1;
}

/* tape:descend(decay, rate [, stores]): leaf = decay * leaf - rate * gradient, in place, for every array, and what
 * the list `stores` says of numbers: a table, a key that is in it, a value; and so on. One call for all, so that it
 * happens as a whole or, when memory runs out, not at all: after the preparation nothing needs any: where there is
 * none, no step is left waiting. Without `stores` nothing is done where there are numbers, and false is returned.
 * The last leaf goes first: its layer was the first in the sweep, so that it is still in the cache. */
static int descend(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_box *box = bp_check_tape(L, s);
  double decay = luaL_checknumber(L, 2), rate = luaL_checknumber(L, 3);
  lua_settop(L, 4);
  lua_Integer stores = lua_istable(L, 4) ? (lua_Integer)lua_rawlen(L, 4) : 0;
  for (bp_index leaf = 0; lua_isnil(L, 4) && leaf < box->tape.leaf_count; leaf++)
    if (box->tape.nodes[leaf].value.rank == 0) return lua_pushboolean(L, false), 1;
  BP_TRY(L, s, bp_update_prepare(&box->tape));
  for (bp_index leaf = box->tape.leaf_count; leaf-- > 0;)
    if (box->tape.nodes[leaf].value.rank != 0) bp_update_leaf(&box->tape, leaf, decay, rate);
  for (lua_Integer k = 1; k + 2 <= stores; k += 3) {
    for (lua_Integer i = 0; i < 3; i++) lua_rawgeti(L, 4, k + i);
    lua_rawset(L, -3);
    lua_settop(L, 4);
  }
  lua_pushboolean(L, true);
  return 1;
}

void bp_open_tapes(lua_State *L, bp_state *s) {
  static const luaL_Reg functions[] = {{"tape", new_tape}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"owns", owns},       {"seal", seal},        {"begin", begin},         {"seed", seed},
      {"run", run},         {"sweep", sweep},      {"deliver", deliver},     {"trace", trace},
      {"descend", descend}, {"close", close_tape}, {"descended", descended}, {NULL, NULL}};
  bp_set_functions(L, s, functions);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->tape_metatable);
  static const luaL_Reg metamethods[] = {{"__close", end_tape}, {"__gc", collect_tape}, {NULL, NULL}};
  bp_set_functions(L, s, metamethods);
  lua_newtable(L);
  bp_set_functions(L, s, methods);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}
