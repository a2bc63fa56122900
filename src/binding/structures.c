/* What every gradient call and every step does with structures: tracking arguments, collecting gradients, taking values,
 * pairing parameters with gradients, arithmetic. Each is a visit of all leaves by the walk of walk.c. */
#include "walk.h"

/* The path names the leaf in all that can be wrong with it. */
static void refuse_leaf(bp_walk *w, int index) {
  lua_State *L = w->L;
  const char *place = bp_walk_place(w);
  const char *colon = *place == '\0' ? "" : ": ";
  const bp_handle *handle = bp_handle_at(L, w->s, index);
  if (*place == ' ') place++;
  if (handle != NULL) bp_raise(L, w->s, "%s: %s%sthe array was released", w->name, place, colon);
  const bp_variable *variable = bp_variable_at(L, w->s, index);
  if (variable->generation != variable->box->tape.generation)
    bp_raise(L, w->s, "%s: %s%sa tracked value is used after the call that tracked it has ended", w->name, place,
             colon);
  bp_raise(L, w->s,
           "%s: an argument is tracked by another call (a gradient inside a gradient is not "
           "supported: pass plain values, with bp.value)",
           w->name);
}

static const char *text_of(lua_State *L, const bp_array *x) {
  return lua_pushfstring(L, "%s %s %s", x->rank == 1 ? "vector" : "matrix", bp_describe(x).text,
                         bp_dtype_name(x->dtype));
}

/* The array at an index, which is to receive the gradient of a leaf of this value. */
static const bp_array *check_into(bp_walk *w, int index, const bp_array *value) {
  lua_State *L = w->L;
  bp_state *s = w->s;
  const bp_handle *target = bp_handle_at(L, s, index);
  if (target == NULL || target->array.rank == 0)
    bp_raise(L, s, "%s: into%s: expected a vector or matrix, got %s", w->name, bp_walk_place(w),
             bp_type_of(L, s, index));
  const bp_array *into = &target->array;
  if (target->read_only) bp_raise(L, s, "%s: into%s: the array is read-only", w->name, bp_walk_place(w));
  if (!bp_same_shape(into, value) || into->dtype != value->dtype)
    bp_raise(L, s, "%s: into%s: expected %s, got %s", w->name, bp_walk_place(w), text_of(L, value), text_of(L, into));
  if (!bp_is_contiguous(into))
    bp_raise(L, s, "%s: into%s: a column cannot receive a gradient", w->name, bp_walk_place(w));
  if (s->cx.receiving_sweeps != 0 && into->buffer->receiving != 0)
    bp_raise(L, s, "%s: into%s: the array receives a gradient in a sweep that runs", w->name, bp_walk_place(w));
  for (size_t k = 0; k < w->box->tape.into_count && into->buffer->receiving != 0; k++)
    if (bp_overlap(into, &w->box->tape.into[k]))
      bp_raise(L, s, "%s: into%s: two gradients would go to the same array", w->name, bp_walk_place(w));
  return into;
}

/* Adds the leaf at an index, which is no instance, to the tape. */
static bp_status add_leaf(bp_walk *w, int index, int other, bp_index *leaf) {
  lua_State *L = w->L;
  if (lua_type(L, index) == LUA_TNUMBER) {
    double number = lua_tonumber(L, index);
    bp_array value = bp_number_at(&number);
    return bp_tape_leaf(&w->box->tape, &value, NULL, leaf);
  }
  const bp_handle *handle = bp_handle_at(L, w->s, index);
  if (handle == NULL || handle->array.rank == 0) refuse_leaf(w, index);
  if (w->updates) bp_check_parameter(L, w->s, index, w->name);
  return bp_tape_leaf(&w->box->tape, &handle->array, other == 0 ? NULL : check_into(w, other, &handle->array), leaf);
}

static void track_leaf(bp_walk *w, bp_sort what, int index, int other) {
  lua_State *L = w->L;
  if (what == BP_INSTANCE) {
    lua_pushvalue(L, index);
    bp_track_object(L, w->s, w->box);
    lua_replace(L, -2);
    return;
  }
  bp_index leaf = 0;
  BP_TRY(L, w->s, add_leaf(w, index, other, &leaf));
  bp_push_variable_with(L, w->s, w->box, leaf, w->own);
}

static void untrack(bp_walk *w) {
  bp_tape_forget(&w->box->tape, (bp_index)w->before);
  w->box->thorough = true;
}

/* The walk will go over the structure at an index, and beside it over the one above, where gradients are to go, unless
 * that is nil: both at the top of the stack then. */
static void walk_beside(bp_walk *w, int index) {
  lua_State *L = w->L;
  lua_settop(L, index + 1);
  w->paired = !lua_isnil(L, index + 1);
  if (!w->paired) lua_settop(L, index);
}

/* tape:track(name, x [, into [, updates]]): a copy of x with variables for leaves, how many there are, and whether some
 * are instances. */
static int track(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_walk w = {.L = L, .s = s, .visit = track_leaf, .undo = untrack, .box = bp_check_tape(L, s)};
  w.before = w.box->tape.leaf_count;
  w.name = luaL_checkstring(L, 2);
  w.updates = lua_toboolean(L, 5);
  walk_beside(&w, 3);
  w.own = 3;
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->variable_metatable);
  lua_insert(L, w.own);
  bp_walk_run(&w);
  lua_pushinteger(L, (lua_Integer)w.count);
  lua_pushboolean(L, w.instances);
  return 3;
}

static void collect_leaf(bp_walk *w, bp_sort what, int index, int other) {
  (void)other;
  bp_check_leaf(w->L, w->s, w->box, w->count, index, w->name);
  bp_push_gradient(w->L, w->s, w->box, (bp_index)(w->count - 1));
  if (what != BP_INSTANCE || !lua_isnil(w->L, -1)) return;
  lua_pop(w->L, 1); /* nothing has reached it */
  bp_push_function(w->L, w->s, "zero_instance");
  lua_pushvalue(w->L, index);
  lua_call(w->L, 1, 1);
}

/* tape:collect(name, before, x, into, last): the gradients of the leaves of x, which follow leaf number `before`, in x's
 * structure, and the number of the last. `into` as it was tracked with, or nil: what is shared in both is one. The `last`
 * argument's leaves must be all that there are. */
static int collect(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_walk w = {.L = L, .s = s, .visit = collect_leaf, .box = bp_check_tape(L, s)};
  w.thorough = w.box->thorough;
  w.name = luaL_checkstring(L, 2);
  w.count = (size_t)luaL_checkinteger(L, 3);
  const bool last = lua_toboolean(L, 6);
  walk_beside(&w, 4);
  bp_walk_run(&w);
  if (last && w.count != w.box->tape.leaf_count) bp_refuse_change(L, s, w.name);
  lua_pushinteger(L, (lua_Integer)w.count);
  return 2;
}

/* Nothing has to be undone: what was pushed is garbage. */
static void undo_nothing(bp_walk *w) {
  (void)w;
}

static void outcome_leaf(bp_walk *w, bp_sort what, int index, int other) {
  (void)what, (void)index, (void)other;
  bp_push_outcome(w->L, w->s, w->box, w->name);
}

/* tape:outcome(name, x): the plain values of a result, for the caller to keep. */
static int outcome(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_walk w = {.L = L, .s = s, .visit = outcome_leaf, .undo = undo_nothing, .box = bp_check_tape(L, s)};
  w.name = luaL_checkstring(L, 2);
  lua_settop(L, 3);
  bp_walk_run(&w);
  return 1;
}

static void value_leaf(bp_walk *w, bp_sort what, int index, int other) {
  (void)what, (void)index, (void)other;
  bp_push_value(w->L, w->s, w->name);
}

/* An array that can be changed as one that cannot. */
static void guarded_leaf(bp_walk *w, bp_sort what, int index, int other) {
  const bp_handle *handle = bp_handle_at(w->L, w->s, index);
  if (handle == NULL || handle->array.rank == 0 || handle->read_only) {
    value_leaf(w, what, index, other);
    return;
  }
  bp_handle *guarded = bp_push_handle(w->L, w->s);
  guarded->array = handle->array; /* looked at after the handle was made */
  guarded->read_only = true;
  bp_buffer_retain(guarded->array.buffer);
}

/* core.values(x, name [, guarded]): x with plain values for variables, and all arrays read-only. */
static int values(lua_State *L) {
  bp_walk w = {.L = L, .s = bp_state_of(L), .visit = value_leaf, .undo = undo_nothing};
  w.name = luaL_checkstring(L, 2);
  if (lua_toboolean(L, 3)) w.visit = guarded_leaf;
  lua_settop(L, 2);
  lua_pushvalue(L, 1);
  bp_walk_run(&w);
  return 1;
}

/* Adds the leaf to the list. */
static void split_leaf(bp_walk *w, bp_sort what, int index, int other) {
  w->tracked = w->tracked || bp_variable_at(w->L, w->s, index) != NULL;
  lua_pushvalue(w->L, index);
  lua_rawseti(w->L, w->own, (lua_Integer)w->count);
  value_leaf(w, what, index, other);
}

static void unsplit(bp_walk *w) {
  for (size_t k = (size_t)lua_rawlen(w->L, w->own); k > w->before; k--) {
    lua_pushnil(w->L);
    lua_rawseti(w->L, w->own, (lua_Integer)k);
  }
  w->tracked = false;
}

/* core.split(name, list, x): adds the leaves of x to the list; returns whether one is tracked, and x with plain values. */
static int split(lua_State *L) {
  bp_walk w = {.L = L, .s = bp_state_of(L), .visit = split_leaf, .undo = unsplit, .own = 2};
  w.name = luaL_checkstring(L, 1);
  w.count = w.before = (size_t)lua_rawlen(L, w.own);
  lua_settop(L, 3);
  bp_walk_run(&w);
  lua_pushboolean(L, w.tracked);
  lua_insert(L, -2);
  return 2;
}

/* ---- the short way for two structures ---------------------------------------------------------------------------- */

/* Adds an array and what is to change it to the list. */
static void pair_leaf(bp_walk *w, bp_sort what, int index, int other) {
  lua_State *L = w->L;
  const bp_handle *x = bp_handle_at(L, w->s, index), *y = bp_handle_at(L, w->s, other);
  const lua_Integer length = 2 * (lua_Integer)w->count;
  if (what != BP_LEAF || x == NULL || y == NULL) bp_give_up(L);
  if (!bp_same_shape(&x->array, &y->array) || x->array.dtype != y->array.dtype || x->array.rank == 0) bp_give_up(L);
  lua_pushvalue(L, index);
  lua_rawseti(L, w->own, length - 1);
  lua_pushvalue(L, other);
  lua_rawseti(L, w->own, length);
  lua_pushnil(L);
}

static void forget_pairs(bp_walk *w) {
  lua_newtable(w->L);
  lua_replace(w->L, w->own);
}

/* Gives up if storage that is written (every other of the list at the top of the stack, from the first) is that of
 * anything else. */
static void check_apart(lua_State *L, bp_state *s, int list) {
  const lua_Integer length = (lua_Integer)lua_rawlen(L, list);
  const int written = list + 1;
  if (length == 0) bp_give_up(L);
  lua_createtable(L, 0, (int)(length / 2));
  for (int first = 1; first <= 2; first++)
    for (lua_Integer k = first; k <= length; k += 2) {
      lua_rawgeti(L, list, k);
      const bp_handle *handle = bp_handle_at(L, s, -1);
      const bp_buffer *buffer = handle->array.buffer;
      if (handle->array.rank == 0 || (buffer != NULL && buffer->loan != NULL)) bp_give_up(L);
      if (buffer != NULL && lua_rawgetp(L, written, buffer) != LUA_TNIL) bp_give_up(L);
      if (buffer != NULL && first == 1) {
        lua_pushboolean(L, true);
        lua_rawsetp(L, written, buffer);
      }
      lua_settop(L, written);
    }
  lua_settop(L, list);
}

/* core.array_pairs(name, x, y): the list x1, y1, x2, y2, ... of the leaves of two structures, all of them arrays that go
 * together, and each x of a storage that no other has; gives up on all else. */
static int array_pairs(lua_State *L) {
  bp_walk w = {.L = L, .s = bp_state_of(L), .visit = pair_leaf, .undo = forget_pairs, .paired = true, .own = 2};
  w.name = luaL_checkstring(L, 1);
  w.gives_up = true;
  lua_settop(L, 3);
  lua_newtable(L);
  lua_insert(L, w.own);
  bp_walk_run(&w);
  lua_settop(L, w.own);
  check_apart(L, w.s, w.own);
  return 1;
}

/* A leaf as an operand: of an addition that counts in floats, as operations do, an integer as one. */
static void push_operand(bp_walk *w, int index) {
  if (w->floats && lua_isinteger(w->L, index))
    lua_pushnumber(w->L, lua_tonumber(w->L, index));
  else
    lua_pushvalue(w->L, index);
}

/* Shape and dtype of a number or an array, plain or tracked; gives up on anything else. */
static bp_array shape_at(bp_walk *w, int index) {
  const bp_handle *handle = bp_handle_at(w->L, w->s, index);
  const bp_variable *variable = bp_variable_at(w->L, w->s, index);
  if (handle != NULL && handle->array.rank != 0) return handle->array;
  if (lua_type(w->L, index) == LUA_TNUMBER) return bp_shape_number();
  const bool live = variable != NULL && variable->generation == variable->box->tape.generation;
  if (!live || variable->box->tape.nodes[variable->node].object) bp_give_up(w->L);
  return variable->box->tape.nodes[variable->node].value;
}

/* The leaf and the one beside it, or the number. */
static void arithmetic_leaf(bp_walk *w, bp_sort what, int index, int other) {
  const int beside = w->paired ? other : w->own;
  if (what != BP_LEAF) bp_give_up(w->L);
  const bp_array x = shape_at(w, index), y = shape_at(w, beside);
  if (x.rank != 0 && y.rank != 0 && !(bp_same_shape(&x, &y) && x.dtype == y.dtype)) bp_give_up(w->L);
  push_operand(w, w->number_first ? beside : index);
  push_operand(w, w->number_first ? index : beside);
  lua_arith(w->L, w->operation);
}

/* core.arithmetic(name, symbol, x, y [, floats]): leaf by leaf, of two structures, or of one and a number; gives up on
 * instances and on arrays that are not of one shape and dtype. */
static int arithmetic(lua_State *L) {
  bp_walk w = {.L = L, .s = bp_state_of(L), .visit = arithmetic_leaf, .undo = undo_nothing, .own = 3};
  const char symbol = *luaL_checkstring(L, 2);
  w.name = luaL_checkstring(L, 1);
  w.gives_up = true;
  w.operation = symbol == '+' ? LUA_OPADD : symbol == '-' ? LUA_OPSUB : symbol == '*' ? LUA_OPMUL : LUA_OPDIV;
  w.floats = lua_toboolean(L, 5);
  lua_settop(L, 4);
  w.number_first = lua_type(L, 3) != LUA_TTABLE;
  w.paired = !w.number_first && lua_type(L, 4) == LUA_TTABLE;
  if (!w.number_first && !w.paired) lua_insert(L, w.own);
  bp_walk_run(&w);
  return 1;
}

/* ---- fields of records ------------------------------------------------------------------------------------------- */

static int finish_view(lua_State *L, int status, lua_KContext context) {
  (void)status, (void)context;
  return lua_gettop(L);
}

/* Follows a lens at index 2 that is the way through fields of records, from x at index 1: true, and the part is on the
 * top of the stack, if they are there. A lens has its steps under the keys 1, 2, ...: metatable, field, metatable, ... */
static bool follow_fields(lua_State *L, int metatable) {
  int x = 1;
  if (lua_gettop(L) != 2 || lua_type(L, 2) != LUA_TTABLE || !lua_getmetatable(L, 2)) return false;
  if (!lua_rawequal(L, -1, metatable)) return false;
  for (lua_Integer k = 1;; k += 2) {
    if (lua_rawgeti(L, 2, k) == LUA_TNIL) return lua_pop(L, 1), k > 1;
    if (lua_type(L, x) != LUA_TTABLE || !lua_getmetatable(L, x) || !lua_rawequal(L, -1, -2)) return false;
    lua_rawgeti(L, 2, k + 1);
    if (lua_rawget(L, x) == LUA_TNIL) return false;
    x = 3;
    lua_replace(L, x);
    lua_settop(L, x);
  }
}

/* Upvalues: what views by any lens, and the metatable of lenses. */
static int view(lua_State *L) {
  int given = lua_gettop(L);
  if (follow_fields(L, lua_upvalueindex(2))) return 1;
  lua_settop(L, given);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_callk(L, given, LUA_MULTRET, 0, finish_view);
  return lua_gettop(L);
}

/* core.viewer(view, metatable): bp.view. */
static int viewer(lua_State *L) {
  lua_settop(L, 2);
  lua_pushcclosure(L, view, 2);
  return 1;
}

/* core.set_known(t): what is known of metatables; see tree.lua. */
static int set_known(lua_State *L) {
  lua_settop(L, 1);
  bp_state_of(L)->known = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

void bp_open_structures(lua_State *L, bp_state *s) {
  static const luaL_Reg functions[] = {
      {"values", values},           {"split", split},           {"viewer", viewer}, {"set_known", set_known},
      {"array_pairs", array_pairs}, {"arithmetic", arithmetic}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"track", track}, {"collect", collect}, {"outcome", outcome}, {NULL, NULL}};
  bp_set_functions(L, s, functions);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->tape_metatable);
  lua_getfield(L, -1, "__index");
  bp_set_functions(L, s, methods);
  lua_pop(L, 2);
}
