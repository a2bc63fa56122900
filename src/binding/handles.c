/* Array handles and variables: making, finding and checking them. */
#include "binding.h"

/* ---- finding ----------------------------------------------------------------------------------------------------- */

static void *marked(lua_State *L, int index, const void *mark, size_t size) {
  if (lua_type(L, index) != LUA_TUSERDATA || lua_rawlen(L, index) != size) return NULL;
  void *block = lua_touserdata(L, index);
  return *(const void **)block == mark ? block : NULL;
}

bp_handle *bp_handle_at(lua_State *L, bp_state *s, int index) {
  return marked(L, index, &s->array_mark, sizeof(bp_handle));
}

bp_variable *bp_variable_at(lua_State *L, bp_state *s, int index) {
  return marked(L, index, &s->variable_mark, sizeof(bp_variable));
}

static void check_usable(lua_State *L, bp_state *s, const bp_handle *handle, const char *name) {
  if (handle->given)
    bp_raise(L, s, "%s: the array was given to a gradient by the pullback that returned it; clone it to keep it", name);
  if (handle->array.rank == 0) bp_raise(L, s, "%s: the array was released", name);
}

bp_handle *bp_check_array(lua_State *L, bp_state *s, int index, const char *name) {
  bp_handle *handle = bp_handle_at(L, s, index);
  if (handle == NULL) {
    const char *hint = bp_variable_at(L, s, index) != NULL ? "; bp.value gives a tracked array's values" : "";
    bp_raise(L, s, "%s: argument %d: expected a vector or matrix, got %s%s", name, index, bp_type_of(L, s, index),
             hint);
  }
  check_usable(L, s, handle, name);
  return handle;
}

bp_handle *bp_check_writable(lua_State *L, bp_state *s, int index, const char *name) {
  bp_handle *handle = bp_check_array(L, s, index, name);
  if (handle->read_only) bp_raise(L, s, "%s: the array is read-only; clone it to change it", name);
  return handle;
}

bp_box *bp_check_variable(lua_State *L, bp_state *s, const bp_variable *variable, const char *name) {
  const bp_tape *tape = &variable->box->tape;
  if (variable->generation != tape->generation || tape->sealed)
    bp_raise(L, s, "%s: a tracked value is used after the call that tracked it has ended", name);
  return variable->box;
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

bp_handle *bp_push_handle(lua_State *L, bp_state *s) {
  bp_handle *handle = lua_newuserdatauv(L, sizeof *handle, 0);
  *handle = (bp_handle){.mark = &s->array_mark};
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->array_metatable);
  lua_setmetatable(L, -2);
  return handle;
}

/* Eight mebibytes at a time: a step of the collector for every small array would cost more than it frees. */
void bp_report(lua_State *L, bp_state *s) {
  const ptrdiff_t enough = (ptrdiff_t)1 << 23;
  if (s->unreported < enough) return;
  int kilobytes = (int)(s->unreported >> 10);
  s->unreported = 0;
  if (lua_gc(L, LUA_GCISRUNNING)) lua_gc(L, LUA_GCSTEP, kilobytes);
}

void bp_hold(bp_state *s, bp_handle *handle, const bp_array *array) {
  handle->array = *array;
  if (array->buffer->references == 1) s->unreported += bp_unseen(array);
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

void bp_push_variable(lua_State *L, bp_state *s, bp_box *box, bp_index node) {
  uint32_t generation = box->tape.generation;
  bp_variable *variable = lua_newuserdatauv(L, sizeof *variable, 0);
  *variable = (bp_variable){&s->variable_mark, box, generation, node};
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->variable_metatable);
  lua_setmetatable(L, -2);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

bool bp_read_operand(lua_State *L, bp_state *s, int index, const char *name, bp_operand *operand, bp_box **box) {
  operand->node = BP_NONE;
  if (lua_type(L, index) == LUA_TNUMBER) {
    operand->array = bp_shape_number();
    operand->number = lua_tonumber(L, index);
    return true;
  }
  const bp_variable *variable = bp_variable_at(L, s, index);
  if (variable != NULL) {
    bool live = variable->generation == variable->box->tape.generation;
    if (live && *box != NULL && *box != variable->box)
      bp_raise(L, s,
               "%s: the operands are tracked by two different calls, one inside another (that is not "
               "supported: pass the inner call plain values, with bp.value)",
               name);
    bp_box *found = bp_check_variable(L, s, variable, name);
    *box = found;
    const bp_node *node = &found->tape.nodes[variable->node];
    if (node->object) return false;
    operand->node = variable->node;
    operand->array = node->value;
    operand->number = node->number;
    return true;
  }
  const bp_handle *handle = bp_handle_at(L, s, index);
  if (handle == NULL) return false;
  check_usable(L, s, handle, name);
  operand->array = handle->array;
  return true;
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
    bp_raise(L, s, "%s: argument %d: expected a size from 0 to 2^31 - 1, got %s", name, index, got);
  }
  return (size_t)size;
}

bp_dtype bp_check_dtype(lua_State *L, bp_state *s, int index, const char *name) {
  if (lua_isnoneornil(L, index)) return BP_F64;
  const char *text = lua_type(L, index) == LUA_TSTRING ? lua_tostring(L, index) : NULL;
  if (text != NULL && text[0] == 'f' && text[1] == '6' && text[2] == '4' && text[3] == '\0') return BP_F64;
  if (text != NULL && text[0] == 'f' && text[1] == '3' && text[2] == '2' && text[3] == '\0') return BP_F32;
  bp_raise(L, s, "%s: argument %d: expected \"f64\" or \"f32\", got %s", name, index,
           text != NULL ? text : bp_type_of(L, s, index));
  return BP_F64;
}
