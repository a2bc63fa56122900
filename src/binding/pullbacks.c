/* Pullbacks of the user's, in the sweep: run from one trampoline, under lua_pcall, so that nothing of the core is jumped
 * over; then the gradients that they return are checked, and given to the slots of the inputs. */
#include <string.h>

#include "../core/pending.h"
#include "custom.h"

static const char *const ranks[] = {"number", "vector", "matrix"};

/* Whether a gradient's storage can be taken over: nobody else can write there. */
static bool is_ours_to_take(const bp_tape *tape, const bp_handle *handle) {
  return handle != NULL && !tape->kept && !handle->read_only && !handle->repeated && handle->array.rank != 0 &&
         handle->array.buffer->references == 1;
}

/* Finds out which arrays stand more than once among the gradients. */
static void find_repeated(lua_State *L, bp_state *s, bp_leaves gradients, size_t count) {
  const uint32_t scan = ++s->scans;
  for (size_t k = 0; k < count; k++) {
    bp_push_leaf(L, gradients, k);
    bp_handle *handle = bp_handle_at(L, s, -1);
    if (handle != NULL) {
      handle->repeated = handle->scan == scan;
      handle->scan = scan;
    }
    lua_pop(L, 1);
  }
}

/* Where an input leaf stands in the operation's arguments: "argument 1.w". */
static const char *place(lua_State *L, bp_state *s, const bp_sweep_call *sweep, size_t input) {
  const bp_attributes *attributes = sweep->call.attributes;
  if (attributes->integer[BP_CUSTOM_FLAT] != 0) return lua_pushfstring(L, "argument %d", (int)input + 1);
  bp_push_box_table(L, (bp_box *)sweep->tape);
  bp_push_function(L, s, "place");
  lua_rawgeti(L, -2, (lua_Integer)attributes->integer[BP_CUSTOM_ENTRY]);
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

/* An array that receives a gradient may be returned as one: such are cloned before anything is written there. The tape
 * holds their storage, whatever finalizers release. */
static void save_received(lua_State *L, bp_state *s, const bp_tape *tape, bp_leaves gradients, size_t count) {
  for (size_t k = 0; k < count && tape->into_count > 0; k++) {
    bp_push_leaf(L, gradients, k);
    const bp_handle *handle = bp_handle_at(L, s, -1);
    if (handle == NULL || !bp_sweep_receives(tape, handle->array.buffer)) {
      lua_pop(L, 1);
      continue;
    }
    bp_pending_compute(&s->cx, &handle->array); /* a step that the forward has made may wait */
    const bp_array array = handle->array;
    bp_handle *clone = bp_push_new(L, s, bp_shape_like(&array));
    bp_axpby(&s->cx, 1, &array, 0, &clone->array);
    if (gradients.list != 0)
      lua_rawseti(L, gradients.list, (lua_Integer)k + 1);
    else
      lua_replace(L, gradients.first + (int)k);
    lua_pop(L, 1);
  }
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
static void kill_cotangents(lua_State *L, bp_state *s, bp_leaves cotangents, size_t count) {
  for (size_t k = 0; k < count; k++) {
    bp_push_leaf(L, cotangents, k);
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
  lua_rawgeti(L, TABLE, (lua_Integer)call->attributes->integer[BP_CUSTOM_ENTRY]);
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
  bp_push_function(L, s, "pullback");
  lua_rawgeti(L, TABLE, (lua_Integer)call->attributes->integer[BP_CUSTOM_ENTRY]);
  lua_pushvalue(L, COTANGENTS);
  return lua_pcall(L, 2, 1, 0);
}

/* Of a flat call's gradients: one an argument, and each a number, an array or nil. */
static void check_flat_gradients(lua_State *L, bp_state *s, const bp_sweep_call *sweep) {
  const int expected = (int)sweep->call.input_count, got = lua_gettop(L) - GRADIENTS + 1;
  bp_check_stack(L, s, 8, sweep->call.op->name);
  if (got != expected) {
    bp_push_function(L, s, "check_count");
    lua_pushstring(L, sweep->call.op->name);
    lua_pushinteger(L, got);
    lua_pushinteger(L, expected);
    lua_call(L, 3, 0);
  }
  for (int k = 0; k < expected; k++) {
    const int index = GRADIENTS + k;
    if (lua_isnil(L, index) || lua_type(L, index) == LUA_TNUMBER || bp_is_ours(L, s, index)) continue;
    const bp_array argument = bp_node_value(sweep->tape, sweep->inputs[k]);
    bp_push_function(L, s, "check_leaf");
    lua_pushstring(L, sweep->call.op->name);
    if (argument.rank == 0)
      lua_pushnumber(L, 0);
    else
      bp_push_shared(L, s, &argument, true);
    lua_pushvalue(L, index);
    lua_pushfstring(L, "argument %d", k + 1);
    lua_call(L, 4, 0); /* raises */
  }
}

/* Runs protected. A gradient that is zero is nil, or false in a list of the Lua side's. An error while they are given
 * leaves the cotangents behind, alive and read-only, in storage that the sweep has done with. */
static int run_pullback(lua_State *L) {
  const bp_sweep_call *sweep = lua_touserdata(L, 1);
  bp_tape *tape = sweep->tape;
  bp_state *s = (bp_state *)(void *)((char *)tape->cx - offsetof(bp_state, cx)); /* which the context is a part of */
  const bp_call *call = &sweep->call;
  const bool flat = call->attributes->integer[BP_CUSTOM_FLAT] != 0;
  const bp_leaves gradients = {.first = GRADIENTS, .list = flat ? 0 : GRADIENTS};
  const bp_leaves cotangents = {.first = COTANGENTS, .list = flat ? 0 : COTANGENTS};
  bp_push_box_table(L, (bp_box *)tape);
  int failed = flat ? call_flat_pullback(L, s, sweep) : call_pullback(L, s, sweep);
  s->cx.products_wait = false; /* none that is made while gradients are given */
  if (failed == LUA_OK) {
    if (flat) check_flat_gradients(L, s, sweep);
    save_received(L, s, tape, gradients, call->input_count);
    const int top = lua_gettop(L);
    find_repeated(L, s, gradients, call->input_count);
    for (size_t k = 0; k < call->input_count; k++) {
      if (!tape->nodes[sweep->inputs[k]].needs) continue;
      bp_push_leaf(L, gradients, k);
      if (lua_toboolean(L, -1)) give(L, s, sweep, k);
      lua_settop(L, top);
    }
  }
  kill_cotangents(L, s, cotangents, call->result_count);
  if (failed == LUA_OK) return 0;
  /* An error object goes through as it is; to a message the operation's name is added. */
  if (failed == LUA_ERRRUN && lua_type(L, -1) == LUA_TSTRING && strstr(lua_tostring(L, -1), call->op->name) == NULL)
    lua_pushfstring(L, "%s (in the pullback of %s)", lua_tostring(L, -1), call->op->name);
  return lua_error(L);
}

/* Products wait while the pullback runs (see core/pending.h). */
bp_status bp_custom_backward(bp_call *call) {
  lua_State *L = call->host;
  bp_context *cx = call->cx;
  const bool before = cx->products_wait;
  if (!lua_checkstack(L, 8)) return BP_NOMEM;
  cx->products_wait = !cx->timing; /* a profile shows a product where it was asked for */
  lua_pushcfunction(L, run_pullback);
  lua_pushlightuserdata(L, call);
  bool fine = lua_pcall(L, 1, 0, 0) == LUA_OK;
  bp_pending_compute_products(cx);
  cx->products_wait = before;
  return fine ? BP_OK : BP_RAISED;
}
