/* The library inside a host: its Lua files stand in the object itself, and `require` finds them in package.preload. Only
 * libbackprop.a and libbackprop.so hold this file; core.so is the module whose Lua files stand on disk. */
#include "binding.h"
#include "embed.h"

#define EXPORTED __attribute__((visibility("default")))

/* The loader that require calls with the module's name and ":preload:"; upvalue 1 is the chunk. */
static int load_chunk(lua_State *L) {
  const bp_chunk *chunk = lua_touserdata(L, lua_upvalueindex(1));
  int given = lua_gettop(L);
  if (luaL_loadbufferx(L, (const char *)chunk->text, chunk->size, chunk->name, "t") != LUA_OK) return lua_error(L);
  lua_insert(L, 1);
  lua_call(L, given, 1);
  return 1;
}

EXPORTED void bp_preload(lua_State *L) {
  luaL_checkstack(L, 3, "backprop");
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, luaopen_backprop_core);
  lua_setfield(L, -2, "backprop.core");
  for (const bp_chunk *chunk = bp_chunks; chunk->module != NULL; chunk++) {
    lua_pushlightuserdata(L, (void *)(uintptr_t)chunk);
    lua_pushcclosure(L, load_chunk, 1);
    lua_setfield(L, -2, chunk->module);
  }
  lua_pop(L, 1);
}

EXPORTED int luaopen_backprop(lua_State *L) {
  bp_preload(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_getfield(L, -1, "backprop");
  lua_pushliteral(L, "backprop");
  lua_call(L, 1, 1);
  return 1;
}
