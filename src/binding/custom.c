/* Operations with hand-written gradients, as bp.op makes them. A call whose arguments and result are numbers and arrays
 * is run and recorded here; structures are flattened into lists of leaves by the Lua side. */
#include <string.h>

#include "../core/clock.h"
#include "custom.h"

/* A row made for one bp.op: a userdata, held by the operation and by the table of every tape with a node of it. */
typedef struct custom_row {
  bp_op op;
  char name[64];
} custom_row;

/* ---- recording --------------------------------------------------------------------------------------------------- */

static bp_status never(bp_call *call) {
  return bp_fail(call->cx, "backprop: an operation of bp.op runs its forward in Lua, not by its row");
}

/* The inputs or the results of a call. */
typedef struct side {
  bp_leaves where;
  bp_operands values;
  bool *objects; /* which are neither number nor array */
} side;

/* Reads one side again and again: the box of the call that tracks a value of it is noted. */
static void read_side(lua_State *L, bp_state *s, const char *name, side *x, bp_box **box) {
  bp_operands *values = &x->values;
  for (size_t k = 0; k < values->count; k++) {
    bp_push_leaf(L, x->where, k);
    x->objects[k] = !bp_read_pending(L, s, -1, name, values, k, box);
    if (x->objects[k]) {
      const bp_variable *variable = bp_variable_at(L, s, -1);
      values->node[k] = variable != NULL ? variable->node : BP_NONE;
      values->number[k] = 0;
      values->array[k] = bp_number_at(&values->number[k]);
    }
    lua_pop(L, 1);
  }
}

/* Keeps what stands at an index for the sweep, and the row behind it; returns the number of the entry. */
static lua_Integer keep_entry(lua_State *L, bp_box *box, int row, int index) {
  bp_push_box_table(L, box);
  lua_Integer number = (lua_Integer)lua_rawlen(L, -1) + 1;
  lua_pushvalue(L, index);
  lua_rawseti(L, -2, number);
  lua_pushvalue(L, row);
  lua_rawseti(L, -2, number + 1);
  lua_pop(L, 1);
  return number;
}

/* Records a call that has been made; returns its first result's node, and the box. What asks Lua for memory may run
 * finalizers that release an operand: then the operands are read again. */
static bp_index record_call(lua_State *L, bp_state *s, int row_index, side *inputs, side *results, int entry, bool flat,
                            bp_box **box) {
  const custom_row *row = lua_touserdata(L, row_index);
  bp_attributes attributes = {.integer = {[BP_CUSTOM_ENTRY] = 0, [BP_CUSTOM_FLAT] = flat}};
  bp_index first = 0;
  for (bool again = false;;) {
    const uint32_t epoch = s->epoch;
    bp_box *none = NULL;
    *box = NULL;
    read_side(L, s, row->name, inputs, box);
    read_side(L, s, row->name, results, &none);
    if (*box == NULL || none != NULL) bp_raise(L, s, "%s: a forward must return plain values", row->name);
    if (attributes.integer[BP_CUSTOM_ENTRY] == 0)
      attributes.integer[BP_CUSTOM_ENTRY] = keep_entry(L, *box, row_index, entry);
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

/* On the stack: the arguments, the time when the forward began (0: it is not wanted), its result and its pullback. */
static int after_forward(lua_State *L, int status, lua_KContext count) {
  (void)status;
  bp_state *s = bp_state_of(L);
  const custom_row *row = lua_touserdata(L, lua_upvalueindex(OP_ROW));
  const int start = (int)count + 1, result = start + 1, pullback = start + 2;
  const int64_t began = lua_tointeger(L, start), nanoseconds = began == 0 ? 0 : bp_clock() - began;
  if (lua_type(L, pullback) != LUA_TFUNCTION) {
    bp_push_function(L, s, "check_pullback");
    lua_pushstring(L, row->name);
    lua_pushvalue(L, pullback);
    lua_call(L, 2, 0);
  }
  if (lua_type(L, result) == LUA_TNUMBER || bp_handle_at(L, s, result) != NULL) {
    record_flat(L, s, (int)count, result, pullback, nanoseconds);
    return 1;
  }
  bp_push_function(L, s, "structured_result");
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
  bp_reserve_call(L);
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
                    .backward = bp_custom_backward};
  lua_pushvalue(L, 2);
  lua_pushvalue(L, 3);
  lua_pushcclosure(L, call_op, 4);
  return 1;
}

void bp_open_custom(lua_State *L, bp_state *s) {
  static const luaL_Reg functions[] = {{"operation", operation}, {"record", record}, {NULL, NULL}};
  bp_set_functions(L, s, functions);
}
