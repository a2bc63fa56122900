/* Errors as users see them: raised at their own line, never at one of ours, and naming what was given. */
#include <string.h>

#include "binding.h"

void bp_push_position(lua_State *L, bp_state *s) {
  lua_Debug where;
  size_t prefix = strlen(s->source_prefix);
  for (int level = 0; lua_getstack(L, level, &where); level++) {
    lua_getinfo(L, "Sl", &where);
    if (where.currentline <= 0) continue;
    if (prefix > 0 && strncmp(where.source, s->source_prefix, prefix) == 0) continue;
    lua_pushfstring(L, "%s:%d: ", where.short_src, where.currentline);
    return;
  }
  lua_pushliteral(L, "");
}

int bp_raise(lua_State *L, bp_state *s, const char *format, ...) {
  va_list arguments;
  bp_push_position(L, s);
  va_start(arguments, format);
  lua_pushvfstring(L, format, arguments);
  va_end(arguments);
  lua_concat(L, 2);
  return lua_error(L);
}

const char *bp_push_message(lua_State *L, bp_state *s) {
  const bool given = s->cx.message[0] != '\0';
  lua_pushstring(L, given ? s->cx.message : "an operation failed and gave no message");
  s->cx.message[0] = '\0'; /* it is not the next failure's */
  return lua_tostring(L, -1);
}

void bp_raise_status(lua_State *L, bp_state *s, bp_status status) {
  switch (status) {
  case BP_RAISED: lua_error(L); break;
  case BP_NOMEM:
    lua_pushliteral(L, "not enough memory"); /* as Lua says it: no position */
    lua_error(L);
    break;
  default: bp_raise(L, s, "%s", bp_push_message(L, s));
  }
}

/* What is kept only because it may be of use again. */
static void give_back(bp_state *s) {
  bp_pool_drop(&s->cx);
  for (bp_box *box = s->free_box; box != NULL; box = box->next_free)
    if (box->tape.cx != NULL) bp_tape_destroy(&box->tape);
}

static int nothing(lua_State *L) {
  (void)L;
  return 0;
}

void bp_reserve_call(lua_State *L) {
  lua_pushcfunction(L, nothing);
  lua_call(L, 0, 0);
}

/* Nothing is collected where the finalizers could not be called: further up there is room for their calls, and they
 * wait until then. */
void bp_make_room(lua_State *L, bp_state *s) {
  give_back(s);
  if (!lua_checkstack(L, 1)) return;
  lua_pushcfunction(L, nothing);
  if (lua_pcall(L, 0, 0, 0) != LUA_OK) {
    lua_pop(L, 1);
    return;
  }
  lua_gc(L, LUA_GCCOLLECT);
  give_back(s); /* what the collector has freed just now */
}

/* Lua says only that there is no room. If there is memory for the largest stack, it is the stack that is full. */
void bp_check_stack(lua_State *L, bp_state *s, int values, const char *name) {
  const size_t largest = (size_t)1000000 * 16;
  if (lua_checkstack(L, values)) return;
  bp_make_room(L, s);
  if (lua_checkstack(L, values)) return;
  void *block = bp_resize(&s->cx, NULL, 0, largest);
  if (block == NULL) bp_raise_status(L, s, BP_NOMEM);
  bp_resize(&s->cx, block, largest, 0);
  bp_raise(L, s, "%s: stack overflow", name);
}

int bp_argument_number(const char *name, int index) {
  return strchr(name, ':') == NULL ? index : index - 1;
}

void bp_check_count(lua_State *L, bp_state *s, int most, const char *name) {
  int given = bp_argument_number(name, lua_gettop(L));
  most = bp_argument_number(name, most);
  if (given > most)
    bp_raise(L, s, "%s: expected at most %d argument%s, got %d", name, most, most == 1 ? "" : "s", given);
}

const char *bp_type_of(lua_State *L, bp_state *s, int index) {
  static const char *const plain[] = {"number", "vector", "matrix"};
  static const char *const tracked[] = {"tracked number", "tracked vector", "tracked matrix"};
  const bp_handle *handle = bp_handle_at(L, s, index);
  if (handle != NULL) {
    if (handle->given) return "array given to a gradient";
    return handle->array.rank == 0 ? "released array" : plain[handle->array.rank];
  }
  const bp_variable *variable = bp_variable_at(L, s, index);
  if (variable != NULL) {
    if (variable->generation != variable->box->tape.generation) return "tracked value whose call has ended";
    const bp_node *node = &variable->box->tape.nodes[variable->node];
    return node->object ? "tracked instance" : tracked[node->value.rank];
  }
  if (luaL_getmetafield(L, index, "__name") == LUA_TSTRING) {
    const char *name = lua_tostring(L, -1);
    lua_pop(L, 1); /* the metatable keeps it */
    return name;
  }
  return luaL_typename(L, index);
}
