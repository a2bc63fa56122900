/* Operations with hand-written gradients, as bp.op makes them. The Lua side runs the forward and flattens structures
 * into lists of leaves; here the call is recorded, and in the sweep its pullback is run from one trampoline, under
 * lua_pcall, so that nothing of the core is jumped over. */
#include <string.h>

#include "binding.h"

/* A row made for one bp.op; kept by its userdata, which every recorded entry holds. */
typedef struct custom_row {
  bp_op op;
  char name[64];
} custom_row;

static const char *const ranks[] = {"number", "vector", "matrix"};

/* ---- the trampoline ---------------------------------------------------------------------------------------------- */

static bool is_given_twice(const bp_handle *handle) {
  return handle->seen > 1;
}

/* Counts how often each array stands in the list at the top of the stack; `step` 0 clears the counts. */
static void count_arrays(lua_State *L, bp_state *s, size_t count, uint8_t step) {
  for (size_t k = 0; k < count; k++) {
    lua_rawgeti(L, -1, (lua_Integer)k + 1);
    bp_handle *handle = bp_handle_at(L, s, -1);
    if (handle != NULL) handle->seen = step == 0 ? 0 : (uint8_t)(handle->seen < 2 ? handle->seen + step : 2);
    lua_pop(L, 1);
  }
}

/* Where an input leaf stands in the operation's arguments: "argument 1.w". */
static const char *place(lua_State *L, bp_state *s, const bp_sweep_call *sweep, size_t input) {
  bp_push_box_table(L, (bp_box *)sweep->tape);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->functions);
  lua_getfield(L, -1, "place");
  lua_rawgeti(L, -3, (lua_Integer)sweep->call.attributes->integer[0]);
  lua_pushinteger(L, (lua_Integer)input + 1);
  lua_call(L, 2, 1);
  return lua_tostring(L, -1);
}

static void check_gradient(lua_State *L, bp_state *s, const bp_sweep_call *sweep, size_t input,
                           const bp_array *expected, const bp_array *got) {
  bool same = bp_same_shape(expected, got) && (expected->rank == 0 || expected->dtype == got->dtype);
  if (same) return;
  const char *name = sweep->call.op->name, *where = place(L, s, sweep, input);
  if (expected->rank == 0 || got->rank == 0)
    bp_raise(L, s, "%s: the pullback's gradient of %s must be a %s, got a %s", name, where, ranks[expected->rank],
             ranks[got->rank]);
  bp_raise(L, s, "%s: the pullback's gradient of %s has shape %s (%s), expected %s (%s)", name, where,
           bp_describe(got).text, bp_dtype_name(got->dtype), bp_describe(expected).text,
           bp_dtype_name(expected->dtype));
}

/* What stands at the top of the stack is no number or array, or belongs to a call. */
static void wrong_gradient(lua_State *L, bp_state *s, const bp_sweep_call *sweep, size_t input,
                           const bp_array *expected) {
  const char *got = bp_type_of(L, s, -1);
  bp_raise(L, s, "%s: the pullback's gradient of %s must be a %s, got a %s", sweep->call.op->name,
           place(L, s, sweep, input), ranks[expected->rank], got);
}

/* Adds the gradient at the top of the stack to the slot of an input. An array that nobody else can write any more is
 * taken over, and its handle is dead from then on. */
static void give(lua_State *L, bp_state *s, const bp_sweep_call *sweep, size_t input) {
  bp_tape *tape = sweep->tape;
  bp_index index = sweep->inputs[input];
  const bp_node *node = &tape->nodes[index];
  bp_single gradient;
  bp_box *other = NULL;
  if (node->object) {
    lua_pushvalue(L, -1);
    bp_add_object(L, s, (bp_box *)tape, index);
    bp_sweep_give_object(tape, index);
    return;
  }
  if (!bp_read_single(L, s, -1, sweep->call.op->name, &gradient, &other) || other != NULL)
    wrong_gradient(L, s, sweep, input, &node->value);
  check_gradient(L, s, sweep, input, &node->value, &gradient.array);
  bp_handle *handle = bp_handle_at(L, s, -1);
  bool take = handle != NULL && !tape->kept && !handle->read_only && !is_given_twice(handle) &&
              handle->array.buffer->references == 1;
  bool taken;
  BP_TRY(L, s, bp_sweep_give(tape, index, &gradient.array, take, &taken));
  if (!taken) return;
  s->unreported -= bp_unseen(&handle->array);
  bp_array_release(&s->cx, &handle->array);
  handle->array.rank = 0;
  handle->given = true;
}

/* Pushes the cotangent of a result: a number, a read-only array, an instance; nil where none arrived. */
static void push_cotangent(lua_State *L, bp_state *s, bp_tape *tape, bp_index index) {
  const bp_slot *slot = &tape->slots[index];
  const bp_node *node = &tape->nodes[index];
  if (slot->state == BP_SLOT_EMPTY) {
    lua_pushnil(L);
  } else if (node->object) {
    bp_push_box_table(L, (bp_box *)tape);
    lua_getfield(L, -1, "gradients");
    lua_rawgeti(L, -1, (lua_Integer)index + 1);
    lua_replace(L, -3);
    lua_pop(L, 1);
  } else if (node->value.rank == 0) {
    lua_pushnumber(L, slot->number);
  } else {
    bp_sweep_complete(tape, index);
    bp_push_shared(L, s, &slot->gradient, true);
  }
}

/* The cotangents are the engine's: their handles do not outlive the pullback. */
static void kill_cotangents(lua_State *L, bp_state *s, int list, size_t count) {
  for (size_t k = 0; k < count; k++) {
    lua_rawgeti(L, list, (lua_Integer)k + 1);
    bp_handle *handle = bp_handle_at(L, s, -1);
    lua_pop(L, 1);
    if (handle == NULL) continue;
    bp_array_release(&s->cx, &handle->array);
    handle->array.rank = 0;
  }
}

/* Runs protected: functions.pullback(entry, cotangents) -> gradients, one an input leaf, nil for zero. */
static int run_pullback(lua_State *L) {
  const bp_sweep_call *sweep = lua_touserdata(L, 1);
  bp_tape *tape = sweep->tape;
  bp_state *s = (bp_state *)tape->cx; /* the context is its first member */
  const bp_call *call = &sweep->call;
  bp_push_box_table(L, (bp_box *)tape);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->functions);
  lua_getfield(L, -1, "pullback");
  lua_rawgeti(L, 2, (lua_Integer)call->attributes->integer[0]);
  lua_createtable(L, (int)call->result_count, 0);
  int cotangents = lua_gettop(L);
  for (size_t k = 0; k < call->result_count; k++) {
    push_cotangent(L, s, tape, sweep->first + (bp_index)k);
    lua_rawseti(L, cotangents, (lua_Integer)k + 1);
  }
  lua_pushvalue(L, cotangents - 2);
  lua_pushvalue(L, cotangents - 1);
  lua_pushvalue(L, cotangents);
  int failed = lua_pcall(L, 2, 1, 0);
  if (failed == LUA_OK) {
    count_arrays(L, s, call->input_count, 1);
    for (size_t k = 0; k < call->input_count; k++) {
      if (!tape->nodes[sweep->inputs[k]].needs) continue;
      lua_rawgeti(L, cotangents + 1, (lua_Integer)k + 1);
      if (lua_toboolean(L, -1)) give(L, s, sweep, k);
      lua_settop(L, cotangents + 1);
    }
    count_arrays(L, s, call->input_count, 0);
  }
  kill_cotangents(L, s, cotangents, call->result_count);
  if (failed == LUA_OK) return 0;
  /* An error object goes through as it is; to a message the operation's name is added. */
  if (failed == LUA_ERRRUN && lua_type(L, -1) == LUA_TSTRING && strstr(lua_tostring(L, -1), call->op->name) == NULL)
    lua_pushfstring(L, "%s (in the pullback of %s)", lua_tostring(L, -1), call->op->name);
  return lua_error(L);
}

static bp_status custom_backward(bp_call *call) {
  lua_State *L = call->host;
  if (!lua_checkstack(L, 8)) return BP_NOMEM;
  lua_pushcfunction(L, run_pullback);
  lua_pushlightuserdata(L, call);
  return lua_pcall(L, 1, 0, 0) == LUA_OK ? BP_OK : BP_RAISED;
}

/* ---- recording --------------------------------------------------------------------------------------------------- */

static bp_status never(bp_call *call) {
  return bp_fail(call->cx, "backprop: an operation of bp.op is run by Lua");
}

/* core.operation(name): a row. */
static int operation(lua_State *L) {
  bp_state *s = bp_state_of(L);
  const char *name = lua_type(L, 1) == LUA_TSTRING ? lua_tostring(L, 1) : NULL;
  custom_row *row;
  if (name == NULL || strlen(name) >= sizeof row->name)
    return bp_raise(L, s, "bp.op: name: expected a string of less than %d bytes", (int)sizeof row->name);
  row = lua_newuserdatauv(L, sizeof *row, 0);
  memcpy(row->name, name, strlen(name) + 1);
  row->op = (bp_op){.name = row->name,
                    .signature = "",
                    .flags = BP_OP_GIVES,
                    .shape = never,
                    .forward = never,
                    .backward = custom_backward};
  return 1;
}

/* Reads a list of leaves at a stack index; what is neither number nor array is an object. Its box is noted. */
static void read_leaves(lua_State *L, bp_state *s, int list, const char *name, bp_operands *leaves, bool *objects,
                        bp_box **box) {
  for (size_t k = 0; k < leaves->count; k++) {
    lua_rawgeti(L, list, (lua_Integer)k + 1);
    objects[k] = !bp_read_operand(L, s, -1, name, leaves, k, box);
    if (objects[k]) {
      const bp_variable *variable = bp_variable_at(L, s, -1);
      leaves->node[k] = variable != NULL ? variable->node : BP_NONE;
      leaves->number[k] = 0;
      leaves->array[k] = bp_number_at(&leaves->number[k]);
    }
    lua_pop(L, 1);
  }
}

/* core.are_flat(...): whether one of the arguments is tracked, where all are numbers and arrays, plain or tracked; nil
 * where there is anything else. */
static int are_flat(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bool any = false;
  int count = lua_gettop(L);
  for (int k = 1; k <= count; k++) {
    if (lua_type(L, k) == LUA_TNUMBER) continue;
    const bp_variable *variable = bp_variable_at(L, s, k);
    bool instance = variable != NULL && variable->generation == variable->box->tape.generation &&
                    variable->box->tape.nodes[variable->node].object;
    if (instance || (variable == NULL && bp_handle_at(L, s, k) == NULL)) return 0;
    any = any || variable != NULL;
  }
  lua_pushboolean(L, any);
  return 1;
}

/* core.take_flat(name, ...): of arguments that are flat the list, which of them need a gradient, and their plain
 * values. Errors bear the name. */
static int take_flat(lua_State *L) {
  bp_state *s = bp_state_of(L);
  const char *name = luaL_checkstring(L, 1);
  int count = lua_gettop(L) - 1;
  bp_check_stack(L, s, count + 8, name);
  lua_createtable(L, count, 0);
  lua_createtable(L, count, 0);
  for (int k = 1; k <= count; k++) {
    lua_pushvalue(L, k + 1);
    lua_rawseti(L, count + 2, k);
    lua_pushboolean(L, bp_variable_at(L, s, k + 1) != NULL);
    lua_rawseti(L, count + 3, k);
  }
  for (int k = 1; k <= count; k++) {
    lua_pushvalue(L, k + 1);
    bp_push_value(L, s, name);
    lua_replace(L, -2);
  }
  return count + 2;
}

/* Pushes a result, tracked; the value of an object stands at an index. */
static void push_result(lua_State *L, bp_state *s, bp_box *box, bp_index node, bool object, int value) {
  if (object) {
    lua_pushvalue(L, value);
    bp_keep_object(L, box, node);
    lua_pop(L, 1);
  }
  bp_push_variable(L, s, box, node);
}

/* core.record(row, entry, inputs, results [, seconds]): records a call that has been made, and what it took; returns a
 * list of its results, tracked. A result that is no list is the only one, and is returned as such. */
static int record(lua_State *L) {
  bp_state *s = bp_state_of(L);
  const custom_row *row = lua_touserdata(L, 1);
  lua_settop(L, 5);
  bool single = !lua_istable(L, 4);
  if (single) {
    lua_createtable(L, 1, 0);
    lua_pushvalue(L, 4);
    lua_rawseti(L, -2, 1);
    lua_replace(L, 4);
  }
  bp_operands inputs, results;
  bp_push_operands(L, lua_rawlen(L, 3), &inputs);
  bp_push_operands(L, lua_rawlen(L, 4), &results);
  bool *objects = lua_newuserdatauv(L, inputs.count + results.count + 1, 0);
  bp_box *box = NULL, *none = NULL;
  read_leaves(L, s, 3, row->name, &inputs, objects, &box);
  read_leaves(L, s, 4, row->name, &results, objects + inputs.count, &none);
  if (box == NULL || none != NULL) return bp_raise(L, s, "%s: a forward must return plain values", row->name);
  for (size_t k = 0; k < results.count && box->tape.check_finite; k++)
    if (!objects[inputs.count + k] && !bp_all_finite(&s->cx, &results.array[k]))
      return bp_raise(L, s, "%s: the result has a NaN or inf", row->name);
  bp_tape *tape = &box->tape;
  for (size_t k = 0; k < inputs.count; k++)
    if (inputs.node[k] != BP_NONE) BP_TRY(L, s, bp_node_check(tape, inputs.node[k], &row->op));

  bp_push_box_table(L, box);
  lua_pushvalue(L, 2);
  lua_Integer place = (lua_Integer)lua_rawlen(L, -2) + 1;
  lua_rawseti(L, -2, place);
  bp_attributes attributes = {.integer = {place}};
  bp_index first = 0;
  BP_TRY(L, s,
         bp_tape_record(tape, &row->op, &inputs, &attributes, results.array, objects + inputs.count, results.count,
                        &first));
  if (s->cx.timing || tape->check_finite) bp_trace(L, s, box, first);
  tape->nodes[first].forward = (float)(lua_tonumber(L, 5) * 1e9);
  lua_createtable(L, (int)results.count, 0);
  int list = lua_gettop(L);
  for (size_t k = 0; k < results.count; k++) {
    lua_rawgeti(L, 4, (lua_Integer)k + 1);
    push_result(L, s, box, first + (bp_index)k, objects[inputs.count + k], list + 1);
    if (single) return 1;
    lua_rawseti(L, list, (lua_Integer)k + 1);
    lua_settop(L, list);
  }
  return 1;
}

void bp_open_custom(lua_State *L, bp_state *s) {
  static const luaL_Reg functions[] = {
      {"operation", operation}, {"are_flat", are_flat}, {"take_flat", take_flat}, {"record", record}, {NULL, NULL}};
  bp_set_functions(L, s, functions);
}
