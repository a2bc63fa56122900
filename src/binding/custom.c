/* Operations with hand-written gradients, as bp.op makes them. A call whose arguments and result are numbers and arrays
 * is run and recorded here; structures are flattened into lists of leaves by the Lua side. In the sweep the pullback is
 * run from one trampoline, under lua_pcall, so that nothing of the core is jumped over. */
#include <string.h>

#include "../core/clock.h"
#include "../core/pending.h"
#include "binding.h"

/* A row made for one bp.op; a userdata, which the table of every tape holds that has a node of it. */
typedef struct custom_row {
  bp_op op;
  char name[64];
} custom_row;

static const char *const ranks[] = {"number", "vector", "matrix"};

/* What a node keeps in its attributes: the number of its entry in the tape's table, and whether that is the pullback
 * itself, of a flat call (its arguments and its result are numbers and arrays), or what the Lua side has put together. */
enum { ENTRY, FLAT };

/* Where the leaves of a call are: on the stack from `first` on, or in the list at `list`. */
typedef struct leaves {
  int first, list;
} leaves;

static void push_leaf(lua_State *L, leaves where, size_t k) {
  if (where.list == 0)
    lua_pushvalue(L, where.first + (int)k);
  else
    lua_rawgeti(L, where.list, (lua_Integer)k + 1);
}

/* Pushes a function of the Lua side. */
static void push_function(lua_State *L, bp_state *s, const char *name) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->functions);
  lua_getfield(L, -1, name);
  lua_replace(L, -2);
}

/* ---- the trampoline ---------------------------------------------------------------------------------------------- */

/* Whether a gradient's storage can be taken over: nobody else can write there. */
static bool is_ours_to_take(const bp_tape *tape, const bp_handle *handle) {
  return handle != NULL && !tape->kept && !handle->read_only && handle->seen < 2 && handle->array.rank != 0 &&
         handle->array.buffer->references == 1;
}

/* Counts how often each array stands among the gradients; `step` 0 clears the counts. */
static void count_arrays(lua_State *L, bp_state *s, leaves gradients, size_t count, uint8_t step) {
  for (size_t k = 0; k < count; k++) {
    push_leaf(L, gradients, k);
    bp_handle *handle = bp_handle_at(L, s, -1);
    if (handle != NULL) handle->seen = step == 0 ? 0 : (uint8_t)(handle->seen < 2 ? handle->seen + step : 2);
    lua_pop(L, 1);
  }
}

/* Where an input leaf stands in the operation's arguments: "argument 1.w". */
static const char *place(lua_State *L, bp_state *s, const bp_sweep_call *sweep, size_t input) {
  const bp_attributes *attributes = sweep->call.attributes;
  if (attributes->integer[FLAT] != 0) return lua_pushfstring(L, "argument %d", (int)input + 1);
  bp_push_box_table(L, (bp_box *)sweep->tape);
  push_function(L, s, "place");
  lua_rawgeti(L, -2, (lua_Integer)attributes->integer[ENTRY]);
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

static void end_given(bp_state *s, bp_handle *handle) {
  bp_count_unseen(s, &handle->array, -1);
  bp_array_release(&s->cx, &handle->array);
  handle->array.rank = 0;
  handle->given = true;
}

/* Adds the gradient at the top of the stack to the slot of an input. An array that nobody else can write any more is
 * taken over, and its handle is dead from then on. */
static void give(lua_State *L, bp_state *s, const bp_sweep_call *sweep, size_t input) {
  bp_tape *tape = sweep->tape;
  bp_index index = sweep->inputs[input];
  const bp_node *node = &tape->nodes[index];
  bool taken;
  bp_single gradient;
  bp_box *other = NULL;
  bp_handle *handle = bp_handle_at(L, s, -1);
  if (node->object) {
    lua_pushvalue(L, -1);
    bp_add_object(L, s, (bp_box *)tape, index);
    bp_sweep_give_object(tape, index);
    return;
  }
  if (is_ours_to_take(tape, handle) && bp_is_pending(&s->cx, &handle->array)) {
    check_gradient(L, s, sweep, input, &node->value, &handle->array);
    BP_TRY(L, s, bp_sweep_give_product(tape, index, &handle->array, &taken));
    if (taken) {
      end_given(s, handle);
      return;
    }
  }
  if (!bp_read_single(L, s, -1, sweep->call.op->name, &gradient, &other) || other != NULL)
    wrong_gradient(L, s, sweep, input, &node->value);
  check_gradient(L, s, sweep, input, &node->value, &gradient.array);
  BP_TRY(L, s, bp_sweep_give(tape, index, &gradient.array, is_ours_to_take(tape, handle), &taken));
  if (taken) end_given(s, handle);
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
static void kill_cotangents(lua_State *L, bp_state *s, leaves cotangents, size_t count) {
  for (size_t k = 0; k < count; k++) {
    push_leaf(L, cotangents, k);
    bp_handle *handle = bp_handle_at(L, s, -1);
    lua_pop(L, 1);
    if (handle == NULL) continue;
    bp_array_release(&s->cx, &handle->array);
    handle->array.rank = 0;
  }
}

enum { TABLE = 2, COTANGENTS, GRADIENTS }; /* where they stand in run_pullback's stack */

/* Calls a flat call's pullback: pullback(cotangent, needs). Its gradients are left on the stack. */
static int call_flat_pullback(lua_State *L, bp_state *s, const bp_sweep_call *sweep) {
  const bp_call *call = &sweep->call;
  push_cotangent(L, s, sweep->tape, sweep->first);
  lua_rawgeti(L, TABLE, (lua_Integer)call->attributes->integer[ENTRY]);
  lua_pushvalue(L, COTANGENTS);
  lua_createtable(L, (int)call->input_count, 0);
  for (size_t k = 0; k < call->input_count; k++) {
    lua_pushboolean(L, sweep->tape->nodes[sweep->inputs[k]].needs);
    lua_rawseti(L, -2, (lua_Integer)k + 1);
  }
  return lua_pcall(L, 2, LUA_MULTRET, 0);
}

/* Calls functions.pullback(entry, cotangents), which leaves a list of gradients, one an input leaf. */
static int call_pullback(lua_State *L, bp_state *s, const bp_sweep_call *sweep) {
  const bp_call *call = &sweep->call;
  lua_createtable(L, (int)call->result_count, 0);
  for (size_t k = 0; k < call->result_count; k++) {
    push_cotangent(L, s, sweep->tape, sweep->first + (bp_index)k);
    lua_rawseti(L, COTANGENTS, (lua_Integer)k + 1);
  }
  push_function(L, s, "pullback");
  lua_rawgeti(L, TABLE, (lua_Integer)call->attributes->integer[ENTRY]);
  lua_pushvalue(L, COTANGENTS);
  return lua_pcall(L, 2, 1, 0);
}

/* Of a flat call's gradients: one an argument, and each a number, an array or nil. */
static void check_flat_gradients(lua_State *L, bp_state *s, const bp_sweep_call *sweep) {
  const int expected = (int)sweep->call.input_count, got = lua_gettop(L) - GRADIENTS + 1;
  bp_check_stack(L, s, 8, sweep->call.op->name);
  if (got != expected) {
    push_function(L, s, "check_count");
    lua_pushstring(L, sweep->call.op->name);
    lua_pushinteger(L, got);
    lua_pushinteger(L, expected);
    lua_call(L, 3, 0);
  }
  for (int k = 0; k < expected; k++) {
    const int index = GRADIENTS + k;
    if (lua_isnil(L, index) || lua_type(L, index) == LUA_TNUMBER || bp_is_ours(L, s, index)) continue;
    const bp_array argument = bp_node_value(sweep->tape, sweep->inputs[k]);
    push_function(L, s, "check_leaf");
    lua_pushstring(L, sweep->call.op->name);
    if (argument.rank == 0)
      lua_pushnumber(L, 0);
    else
      bp_push_shared(L, s, &argument, true);
    lua_pushvalue(L, index);
    lua_pushfstring(L, "argument %d", k + 1);
    lua_call(L, 4, 0);
  }
}

/* Runs protected. Lists of gradients and single ones have nil, or in a list false, for zero. */
static int run_pullback(lua_State *L) {
  const bp_sweep_call *sweep = lua_touserdata(L, 1);
  bp_tape *tape = sweep->tape;
  bp_state *s = (bp_state *)tape->cx; /* the context is its first member */
  const bp_call *call = &sweep->call;
  const bool flat = call->attributes->integer[FLAT] != 0;
  const leaves gradients = {.first = GRADIENTS, .list = flat ? 0 : GRADIENTS};
  const leaves cotangents = {.first = COTANGENTS, .list = flat ? 0 : COTANGENTS};
  bp_push_box_table(L, (bp_box *)tape);
  int failed = flat ? call_flat_pullback(L, s, sweep) : call_pullback(L, s, sweep);
  s->cx.products_wait = false; /* nothing that runs while gradients are given waits */
  if (failed == LUA_OK) {
    if (flat) check_flat_gradients(L, s, sweep);
    bp_sweep_before_giving(tape);
    const int top = lua_gettop(L);
    count_arrays(L, s, gradients, call->input_count, 1);
    for (size_t k = 0; k < call->input_count; k++) {
      if (!tape->nodes[sweep->inputs[k]].needs) continue;
      push_leaf(L, gradients, k);
      if (lua_toboolean(L, -1)) give(L, s, sweep, k);
      lua_settop(L, top);
    }
    count_arrays(L, s, gradients, call->input_count, 0);
  }
  kill_cotangents(L, s, cotangents, call->result_count);
  if (failed == LUA_OK) return 0;
  /* An error object goes through as it is; to a message the operation's name is added. */
  if (failed == LUA_ERRRUN && lua_type(L, -1) == LUA_TSTRING && strstr(lua_tostring(L, -1), call->op->name) == NULL)
    lua_pushfstring(L, "%s (in the pullback of %s)", lua_tostring(L, -1), call->op->name);
  return lua_error(L);
}

/* Products wait while the pullback runs; those that it has not given away are multiplied then. */
static bp_status custom_backward(bp_call *call) {
  lua_State *L = call->host;
  bp_context *cx = call->cx;
  const bool before = cx->products_wait;
  if (!lua_checkstack(L, 8)) return BP_NOMEM;
  cx->products_wait = !cx->timing; /* a profile shows a product where it was asked for */
  lua_pushcfunction(L, run_pullback);
  lua_pushlightuserdata(L, call);
  bool fine = lua_pcall(L, 1, 0, 0) == LUA_OK;
  bp_complete_all(cx);
  cx->products_wait = before;
  return fine ? BP_OK : BP_RAISED;
}

/* ---- recording --------------------------------------------------------------------------------------------------- */

static bp_status never(bp_call *call) {
  return bp_fail(call->cx, "backprop: an operation of bp.op is run by Lua");
}

/* The inputs or the results of a call. */
typedef struct side {
  leaves where;
  bp_operands values;
  bool *objects; /* which are neither number nor array */
} side;

/* Reads one side again and again: the box of the call that tracks a value of it is noted. */
static void read_side(lua_State *L, bp_state *s, const char *name, side *x, bp_box **box) {
  bp_operands *values = &x->values;
  for (size_t k = 0; k < values->count; k++) {
    push_leaf(L, x->where, k);
    x->objects[k] = !bp_read_operand(L, s, -1, name, values, k, box);
    if (x->objects[k]) {
      const bp_variable *variable = bp_variable_at(L, s, -1);
      values->node[k] = variable != NULL ? variable->node : BP_NONE;
      values->number[k] = 0;
      values->array[k] = bp_number_at(&values->number[k]);
    }
    lua_pop(L, 1);
  }
}

/* Keeps what stands at an index for the sweep, and the row; returns the number of the entry. */
static lua_Integer keep_entry(lua_State *L, bp_box *box, int row, int index) {
  bp_push_box_table(L, box);
  lua_pushvalue(L, row);
  lua_rawsetp(L, -2, lua_touserdata(L, row));
  lua_Integer number = (lua_Integer)lua_rawlen(L, -1) + 1;
  lua_pushvalue(L, index);
  lua_rawseti(L, -2, number);
  lua_pop(L, 1);
  return number;
}

/* Records a call that has been made; returns its first result's node, and the box. What asks Lua for memory may run
 * finalizers that release an operand: then the operands are read again. */
static bp_index record_call(lua_State *L, bp_state *s, int row_index, side *inputs, side *results, int entry, bool flat,
                            bp_box **box) {
  const custom_row *row = lua_touserdata(L, row_index);
  bp_attributes attributes = {.integer = {[ENTRY] = 0, [FLAT] = flat}};
  bp_index first = 0;
  for (bool again = false;;) {
    const uint32_t epoch = s->epoch;
    bp_box *none = NULL;
    *box = NULL;
    read_side(L, s, row->name, inputs, box);
    read_side(L, s, row->name, results, &none);
    if (*box == NULL || none != NULL) bp_raise(L, s, "%s: a forward must return plain values", row->name);
    if (attributes.integer[ENTRY] == 0) attributes.integer[ENTRY] = keep_entry(L, *box, row_index, entry);
    if (s->epoch != epoch) continue;
    bp_tape *tape = &(*box)->tape;
    for (size_t k = 0; k < results->values.count && tape->check_finite; k++)
      if (!results->objects[k] && !bp_all_finite(&s->cx, &results->values.array[k]))
        bp_raise(L, s, "%s: the result has a NaN or inf", row->name);
    bp_status status = BP_OK;
    for (size_t k = 0; k < inputs->values.count && status == BP_OK; k++)
      if (inputs->values.node[k] != BP_NONE) status = bp_node_check(tape, inputs->values.node[k], &row->op);
    if (status == BP_OK)
      status = bp_tape_record(tape, &row->op, &inputs->values, &attributes, results->values.array, results->objects,
                              results->values.count, &first);
    if (status == BP_OK) break;
    if (status != BP_NOMEM || again) bp_raise_status(L, s, status);
    bp_make_room(L, s);
    again = true;
  }
  if (s->cx.timing || (*box)->tape.check_finite) bp_trace(L, s, *box, first);
  return first;
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

/* core.record(row, entry, inputs, results, seconds): records a call that the Lua side has made, and what it took; returns
 * a list of its results, tracked. */
static int record(lua_State *L) {
  bp_state *s = bp_state_of(L);
  lua_settop(L, 5);
  side inputs = {.where = {.list = 3}}, results = {.where = {.list = 4}};
  bp_push_operands(L, lua_rawlen(L, 3), &inputs.values);
  bp_push_operands(L, lua_rawlen(L, 4), &results.values);
  inputs.objects = lua_newuserdatauv(L, inputs.values.count + results.values.count + 1, 0);
  results.objects = inputs.objects + inputs.values.count;
  bp_box *box;
  bp_index first = record_call(L, s, 1, &inputs, &results, 2, false, &box);
  box->tape.nodes[first].forward = (float)(lua_tonumber(L, 5) * 1e9);
  lua_createtable(L, (int)results.values.count, 0);
  int list = lua_gettop(L);
  for (size_t k = 0; k < results.values.count; k++) {
    lua_rawgeti(L, 4, (lua_Integer)k + 1);
    push_result(L, s, box, first + (bp_index)k, results.objects[k], list + 1);
    lua_rawseti(L, list, (lua_Integer)k + 1);
    lua_settop(L, list);
  }
  return 1;
}

/* ---- flat calls -------------------------------------------------------------------------------------------------- */

typedef enum flatness { STRUCTURED, PLAIN, TRACKED } flatness;

/* Whether the first so many values on the stack are all numbers and arrays, and whether one is tracked. */
static flatness flatness_of(lua_State *L, bp_state *s, int count) {
  flatness found = PLAIN;
  for (int k = 1; k <= count; k++) {
    if (lua_type(L, k) == LUA_TNUMBER || bp_handle_at(L, s, k) != NULL) continue;
    const bp_variable *variable = bp_variable_at(L, s, k);
    if (variable == NULL) return STRUCTURED;
    bool live = variable->generation == variable->box->tape.generation;
    if (live && variable->box->tape.nodes[variable->node].object) return STRUCTURED;
    found = TRACKED;
  }
  return found;
}

enum { OP_ROW = 2, OP_FORWARD, OP_STRUCTURED }; /* upvalues of call_op after the state */

/* Records a flat call with its one result, and pushes that, tracked. */
static void record_flat(lua_State *L, bp_state *s, int count, int result, int pullback, int64_t nanoseconds) {
  bp_array arrays[BP_FEW_OPERANDS], result_array;
  double numbers[BP_FEW_OPERANDS], result_number;
  bp_index nodes[BP_FEW_OPERANDS], result_node;
  bool few_objects[BP_FEW_OPERANDS], result_object, *objects = few_objects;
  bp_operands values = {(size_t)count, arrays, numbers, nodes};
  if (count > BP_FEW_OPERANDS) {
    bp_push_operands(L, (size_t)count, &values);
    objects = lua_newuserdatauv(L, (size_t)count, 0);
  }
  side inputs = {{.first = 1}, values, objects};
  side results = {{.first = result}, {1, &result_array, &result_number, &result_node}, &result_object};
  bp_box *box;
  bp_index node = record_call(L, s, lua_upvalueindex(OP_ROW), &inputs, &results, pullback, true, &box);
  box->tape.nodes[node].forward = (float)nanoseconds;
  bp_push_variable(L, s, box, node);
}

/* On the stack: the arguments, the time when the forward began, its result and its pullback. */
static int after_forward(lua_State *L, int status, lua_KContext count) {
  (void)status;
  bp_state *s = bp_state_of(L);
  const custom_row *row = lua_touserdata(L, lua_upvalueindex(OP_ROW));
  const int start = (int)count + 1, result = start + 1, pullback = start + 2;
  const int64_t began = lua_tointeger(L, start), nanoseconds = began == 0 ? 0 : bp_clock() - began;
  if (lua_type(L, pullback) != LUA_TFUNCTION) {
    push_function(L, s, "check_pullback");
    lua_pushstring(L, row->name);
    lua_pushvalue(L, pullback);
    lua_call(L, 2, 0);
  }
  if (lua_type(L, result) == LUA_TNUMBER || bp_handle_at(L, s, result) != NULL) {
    record_flat(L, s, (int)count, result, pullback, nanoseconds);
    return 1;
  }
  push_function(L, s, "structured_result");
  lua_pushvalue(L, lua_upvalueindex(OP_ROW));
  lua_pushstring(L, row->name);
  lua_pushnumber(L, (double)nanoseconds * 1e-9);
  lua_pushvalue(L, result);
  lua_pushvalue(L, pullback);
  for (int k = 1; k <= (int)count; k++) lua_pushvalue(L, k);
  lua_call(L, (int)count + 5, 1);
  return 1;
}

static int return_one(lua_State *L, int status, lua_KContext context) {
  (void)L, (void)status, (void)context;
  return 1;
}

/* An operation. It and its forward may yield. */
static int call_op(lua_State *L) {
  bp_state *s = bp_state_of(L);
  const int count = lua_gettop(L);
  const flatness found = flatness_of(L, s, count);
  const custom_row *row = lua_touserdata(L, lua_upvalueindex(OP_ROW));
  bp_check_stack(L, s, 2 * count + 10, row->name);
  if (found != TRACKED) {
    int added = 1;
    if (found == STRUCTURED) { /* structured(row, name, forward, ...) */
      lua_pushvalue(L, lua_upvalueindex(OP_STRUCTURED));
      lua_pushvalue(L, lua_upvalueindex(OP_ROW));
      lua_pushstring(L, row->name);
      added = 4;
    }
    lua_pushvalue(L, lua_upvalueindex(OP_FORWARD));
    lua_rotate(L, 1, added);
    lua_callk(L, count + added - 1, 1, 0, return_one);
    return 1;
  }
  lua_pushinteger(L, 0);
  lua_pushvalue(L, lua_upvalueindex(OP_FORWARD));
  for (int k = 1; k <= count; k++) {
    lua_pushvalue(L, k);
    bp_push_value(L, s, row->name);
    lua_replace(L, -2);
  }
  if (s->cx.timing) {
    lua_pushinteger(L, bp_clock());
    lua_replace(L, count + 1);
  }
  lua_callk(L, count, 2, count, after_forward);
  return after_forward(L, LUA_OK, count);
}

/* core.operation(name, forward, structured): an operation of that name. `structured` is called with arguments that are
 * not all numbers and arrays. */
static int operation(lua_State *L) {
  bp_state *s = bp_state_of(L);
  const char *name = lua_type(L, 1) == LUA_TSTRING ? lua_tostring(L, 1) : NULL;
  custom_row *row;
  if (name == NULL || strlen(name) >= sizeof row->name)
    return bp_raise(L, s, "bp.op: name: expected a string of less than %d bytes", (int)sizeof row->name);
  lua_pushlightuserdata(L, s);
  row = lua_newuserdatauv(L, sizeof *row, 0);
  memcpy(row->name, name, strlen(name) + 1);
  row->op = (bp_op){.name = row->name,
                    .signature = "",
                    .flags = BP_OP_GIVES,
                    .shape = never,
                    .forward = never,
                    .backward = custom_backward};
  lua_pushvalue(L, 2);
  lua_pushvalue(L, 3);
  lua_pushcclosure(L, call_op, 4);
  return 1;
}

void bp_open_custom(lua_State *L, bp_state *s) {
  static const luaL_Reg functions[] = {{"operation", operation}, {"record", record}, {NULL, NULL}};
  bp_set_functions(L, s, functions);
}
