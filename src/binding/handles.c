/* Array handles and variables: making, finding and checking them. */
#include "binding.h"

/* ---- finding ----------------------------------------------------------------------------------------------------- */

bool bp_is_ours(lua_State *L, bp_state *s, int index) {
  void *block = bp_block_at(L, index);
  return block != NULL && (bp_has_mark(block, &s->array_mark) || bp_has_mark(block, &s->variable_mark));
}

bp_handle *bp_handle_at(lua_State *L, bp_state *s, int index) {
  void *block = bp_block_at(L, index);
  return block != NULL && bp_has_mark(block, &s->array_mark) ? block : NULL;
}

bp_variable *bp_variable_at(lua_State *L, bp_state *s, int index) {
  void *block = bp_block_at(L, index);
  return block != NULL && bp_has_mark(block, &s->variable_mark) ? block : NULL;
}

int bp_refuse_array(lua_State *L, bp_state *s, const bp_handle *handle, const char *name) {
  if (handle->given)
    bp_raise(L, s, "%s: the array was given to a gradient by the pullback that returned it; clone it to keep it", name);
  if (s->cx.closed) bp_raise(L, s, "%s: the state is ending", name);
  return bp_raise(L, s, "%s: the array was released", name);
}

/* What waits is left waiting. */
static bp_handle *check_handle(lua_State *L, bp_state *s, int index, const char *name) {
  bp_handle *handle = bp_handle_at(L, s, index);
  if (handle == NULL) {
    int number = bp_argument_number(name, index);
    const bp_variable *variable = bp_variable_at(L, s, index);
    if (variable != NULL) bp_check_variable(L, s, variable, name);
    const char *hint = variable != NULL ? "; bp.value gives a tracked array's values" : "";
    const char *got = bp_type_of(L, s, index);
    if (number == 0) bp_raise(L, s, "%s: expected a vector or matrix before the colon, got %s%s", name, got, hint);
    bp_raise(L, s, "%s: argument %d: expected a vector or matrix, got %s%s", name, number, got, hint);
  }
  bp_check_usable(L, s, handle, name);
  return handle;
}

bp_handle *bp_check_array(lua_State *L, bp_state *s, int index, const char *name) {
  bp_handle *handle = check_handle(L, s, index, name);
  bp_pending_compute(&s->cx, &handle->array);
  return handle;
}

/* What is about to be written may be a factor of a product that is not made yet. No finalizer runs: others that the caller
 * has checked stay as they are. */
static void save_factors(lua_State *L, bp_state *s, bp_buffer *buffer) {
  bp_status status = bp_sweep_before_write(&s->cx, buffer);
  if (status == BP_NOMEM) {
    bp_pool_drop(&s->cx);
    status = bp_sweep_before_write(&s->cx, buffer);
  }
  if (status != BP_OK) bp_raise_status(L, s, status);
}

bp_handle *bp_check_parameter(lua_State *L, bp_state *s, int index, const char *name) {
  if (bp_variable_at(L, s, index) != NULL)
    bp_raise(L, s,
             "%s: a tracked value cannot be changed in place: bp.set(x, bp.element_at(i), s) gives a changed copy",
             name);
  bp_handle *handle = check_handle(L, s, index, name);
  if (handle->read_only) bp_raise(L, s, "%s: the array is read-only; clone it to change it", name);
  if (s->cx.receiving_sweeps != 0 && handle->array.buffer->receiving != 0)
    bp_raise(L, s, "%s: the array receives a gradient (into) in a sweep that runs", name);
  return handle;
}

bp_handle *bp_check_writable(lua_State *L, bp_state *s, int index, const char *name) {
  bp_handle *handle = bp_check_parameter(L, s, index, name);
  save_factors(L, s, handle->array.buffer);
  return handle;
}

int bp_refuse_variable(lua_State *L, bp_state *s, const bp_variable *variable, const bp_box *other, const char *name) {
  if (variable->generation == variable->box->tape.generation && other != NULL && other != variable->box)
    bp_raise(L, s,
             "%s: the operands are tracked by two different calls, one inside another (that is not "
             "supported: pass the inner call plain values, with bp.value)",
             name);
  if (variable->generation == variable->box->tape.generation && variable->box->tape.sweeping)
    bp_raise(L, s, "%s: a tracked value is used in the sweep: a pullback has its forward's plain arguments", name);
  return bp_raise(L, s, "%s: a tracked value is used after the call that tracked it has ended", name);
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

bp_handle *bp_push_reserved_handle(lua_State *L, bp_state *s) {
  bp_handle *handle = lua_newuserdatauv(L, sizeof *handle, 0);
  *handle = (bp_handle){.mark = &s->array_mark};
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->array_metatable);
  lua_setmetatable(L, -2);
  return handle;
}

bp_handle *bp_push_handle(lua_State *L, bp_state *s) {
  bp_reserve_call(L);
  return bp_push_reserved_handle(L, s);
}

void bp_hold(bp_state *s, bp_handle *handle, const bp_array *array) {
  handle->array = *array;
  if (array->buffer->references == 1) bp_count_unseen(s, array, 1);
}

bp_handle *bp_push_new(lua_State *L, bp_state *s, bp_array shape) {
  bp_report(L, s);
  bp_handle *handle = bp_push_handle(L, s);
  bp_array array = shape;
  BP_TRY(L, s, bp_array_allocate(&s->cx, &array));
  bp_hold(s, handle, &array);
  return handle;
}

bp_handle *bp_push_shared(lua_State *L, bp_state *s, const bp_array *array, bool read_only) {
  bp_array shared = *array;
  bp_handle *handle = bp_push_handle(L, s);
  handle->array = shared;
  handle->read_only = read_only;
  bp_buffer_retain(shared.buffer);
  return handle;
}

const bp_array *bp_keep_array(lua_State *L, bp_state *s, int index, const char *name) {
  bp_handle *keeper = bp_push_handle(L, s);
  keeper->array = bp_check_array(L, s, index, name)->array; /* looked at after the handle was made */
  keeper->read_only = true;
  bp_buffer_retain(keeper->array.buffer);
  return &keeper->array;
}

void bp_push_variable_with(lua_State *L, bp_state *s, bp_box *box, bp_index node, int metatable) {
  uint32_t generation = box->tape.generation;
  bp_variable *variable = lua_newuserdatauv(L, sizeof *variable, 0);
  *variable = (bp_variable){&s->variable_mark, box, generation, node};
  lua_pushvalue(L, metatable);
  lua_setmetatable(L, -2);
}

void bp_push_variable(lua_State *L, bp_state *s, bp_box *box, bp_index node) {
  bp_reserve_call(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->variable_metatable);
  bp_push_variable_with(L, s, box, node, lua_gettop(L));
  lua_replace(L, -2);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

bool bp_read_pending(lua_State *L, bp_state *s, int index, const char *name, bp_operands *operands, size_t k,
                     bp_box **box) {
  return bp_read_in_line(L, s, index, name, operands, k, box);
}

bool bp_read_operand(lua_State *L, bp_state *s, int index, const char *name, bp_operands *operands, size_t k,
                     bp_box **box) {
  if (!bp_read_pending(L, s, index, name, operands, k, box)) return false;
  bp_pending_compute(&s->cx, &operands->array[k]);
  return true;
}

void bp_push_operands(lua_State *L, size_t count, bp_operands *operands) {
  bp_array *arrays = lua_newuserdatauv(L, count * (sizeof(bp_array) + sizeof(double) + sizeof(bp_index)) + 1, 0);
  double *numbers = (double *)(arrays + count);
  *operands = (bp_operands){count, arrays, numbers, (bp_index *)(numbers + count)};
}

bool bp_read_single(lua_State *L, bp_state *s, int index, const char *name, bp_single *single, bp_box **box) {
  single->list = (bp_operands){1, &single->array, &single->number, &single->node};
  return bp_read_operand(L, s, index, name, &single->list, 0, box);
}

/* ---- small arguments --------------------------------------------------------------------------------------------- */

bool bp_to_integer(lua_State *L, int index, lua_Integer *value) {
  int exact = 0;
  if (lua_type(L, index) != LUA_TNUMBER) return false;
  *value = lua_tointegerx(L, index, &exact);
  return exact != 0;
}

size_t bp_check_size(lua_State *L, bp_state *s, int index, const char *name) {
  lua_Integer size = 0;
  if (!bp_to_integer(L, index, &size) || size < 0 || (size_t)size > BP_MAX_ELEMENTS) {
    const char *got = lua_type(L, index) == LUA_TNUMBER ? luaL_tolstring(L, index, NULL) : bp_type_of(L, s, index);
    bp_raise(L, s, "%s: argument %d: expected a size from 0 to 2^31 - 1, got %s", name, bp_argument_number(name, index),
             got);
  }
  return (size_t)size;
}

/* The n of table.pack, where it is the length. */
static bool is_count(lua_State *L, int key, int value, size_t n) {
  lua_Integer count = 0;
  if (lua_type(L, key) != LUA_TSTRING || !bp_to_integer(L, value, &count) || (size_t)count != n) return false;
  const char *text = lua_tostring(L, key);
  return text[0] == 'n' && text[1] == '\0';
}

size_t bp_check_list(lua_State *L, bp_state *s, int index, const char *name) {
  const size_t n = lua_rawlen(L, index);
  const int table = lua_absindex(L, index);
  if (n > BP_MAX_ELEMENTS) bp_raise(L, s, "%s: the list is too long", name);
  for (lua_pushnil(L); lua_next(L, table) != 0; lua_pop(L, 1)) {
    lua_Integer key = 0;
    if ((bp_to_integer(L, -2, &key) && key >= 1 && (size_t)key <= n) || is_count(L, -2, -1, n)) continue;
    bp_raise(L, s, "%s: expected a list, got a table that has the key %s besides its %d elements", name,
             luaL_tolstring(L, -2, NULL), (int)n);
  }
  return n;
}

bp_dtype bp_check_dtype(lua_State *L, bp_state *s, int index, const char *name) {
  if (lua_isnoneornil(L, index)) return BP_F64;
  const char *text = lua_type(L, index) == LUA_TSTRING ? lua_tostring(L, index) : NULL;
  if (text != NULL && text[0] == 'f' && text[1] == '6' && text[2] == '4' && text[3] == '\0') return BP_F64;
  if (text != NULL && text[0] == 'f' && text[1] == '3' && text[2] == '2' && text[3] == '\0') return BP_F32;
  if (text != NULL) text = lua_pushfstring(L, "\"%s\"", text);
  bp_raise(L, s, "%s: argument %d: expected \"f64\" or \"f32\", got %s", name, bp_argument_number(name, index),
           text != NULL ? text : bp_type_of(L, s, index));
  return BP_F64;
}
