/* Walks over structures, for what every gradient call does; what is done at the leaves stands in structures.c.
 *
 * The same walk as that of lua/backprop/tree.lua, whose words hold here too: what is a leaf, a branch or a constant, in
 * which order, what becomes of a branch met twice or inside itself. There it serves functions of the user's, which may
 * yield; here it visits leaves from C, at a tenth of the cost. What is rare (other keys than 1..n, errors) is asked of
 * the Lua side.
 *
 * The walk does not recurse: it keeps a frame for every branch that it is in, the tables of it on the Lua stack, and
 * between two frames there the key that leads from one to the next. So it nests as deep as Lua's stack does, in any
 * thread. */
#include "walk.h"

/* The stack slots of a frame, from its base. */
enum {
  SOURCE,
  OTHER, /* of a paired walk */
  INFO,  /* what is known of a record's type, or nil */
  COPY,
  KEYS, /* or nil for 1..n */
  FRAME
};

/* Whether a value of a type is a number, an array or a variable: most are, and nothing else has to be known of these. */
static bool is_plain_leaf(const bp_walk *w, int type, int index) {
  return type == LUA_TNUMBER || (type == LUA_TUSERDATA && bp_is_ours(w->L, w->s, index));
}

/* What a value is; pushes what is known of its metatable, or nil. */
static bp_sort classify(bp_walk *w, int index) {
  lua_State *L = w->L;
  int type = lua_type(L, index);
  if (is_plain_leaf(w, type, index)) return lua_pushnil(L), BP_LEAF;
  if ((type != LUA_TTABLE && type != LUA_TUSERDATA) || !lua_getmetatable(L, index))
    return lua_pushnil(L), type == LUA_TTABLE ? BP_BRANCH : BP_CONSTANT;
  if (lua_rawget(L, w->known) == LUA_TNIL) return type == LUA_TUSERDATA ? BP_CONSTANT : BP_BRANCH;
  lua_rawgeti(L, -1, 1);
  bp_sort what = (bp_sort)lua_tointeger(L, -1);
  lua_pop(L, 1);
  return what;
}

/* ---- errors, by the Lua side ------------------------------------------------------------------------------------- */

/* Pushes a function of the Lua side, the public name and the list of the first `length` keys from the root. */
static void push_place(bp_walk *w, const char *function, int length) {
  lua_State *L = w->L;
  bp_check_stack(L, w->s, 8, w->name);
  bp_push_function(L, w->s, function);
  lua_pushfstring(L, w->paired ? "%s: into" : "%s", w->name);
  lua_newtable(L);
  for (int k = 0; k < length; k++) {
    lua_pushvalue(L, w->first + k * (FRAME + 1) + FRAME);
    lua_rawseti(L, -2, k + 1);
  }
}

void bp_give_up(lua_State *L) {
  lua_pushnil(L);
  lua_error(L);
}

static void raise_difference(bp_walk *w, int length, int x, int y) {
  if (w->gives_up) bp_give_up(w->L);
  push_place(w, "differ", length);
  lua_pushvalue(w->L, x);
  lua_pushvalue(w->L, y);
  lua_call(w->L, 4, 0);
}

static void raise_cycle(bp_walk *w) {
  if (w->gives_up) bp_give_up(w->L);
  push_place(w, "cycle", w->depth);
  lua_call(w->L, 2, 0);
}

/* ---- frames ------------------------------------------------------------------------------------------------------ */

static int base_of(const bp_walk *w) {
  return w->first + (w->depth - 1) * (FRAME + 1);
}

/* Whether the keys of a table are 1..n and no others. */
static bool is_list(lua_State *L, int table, lua_Integer n) {
  lua_Integer count = 0;
  lua_pushnil(L);
  while (lua_next(L, table) != 0) {
    lua_pop(L, 1);
    bool inside = lua_isinteger(L, -1) && lua_tointeger(L, -1) >= 1 && lua_tointeger(L, -1) <= n;
    if (!inside) return lua_pop(L, 1), false;
    count++;
  }
  return count == n;
}

/* The other of a pair must not have leaves or branches where the source, a frame's, has nothing. */
static void refuse_more(bp_walk *w, int base) {
  lua_State *L = w->L;
  lua_pushnil(L);
  while (lua_next(L, base + OTHER) != 0) { /* at base + FRAME, where the key of the place belongs */
    bp_sort what = classify(w, base + FRAME + 1);
    lua_pushvalue(L, base + FRAME);
    if (what != BP_CONSTANT && lua_rawget(L, base + SOURCE) == LUA_TNIL)
      raise_difference(w, w->depth, lua_gettop(L), base + FRAME + 1);
    lua_settop(L, base + FRAME);
  }
}

static bp_frame *add_frame(bp_walk *w) {
  if (w->depth == w->room) {
    int room = w->room * 2;
    bp_frame *frames = lua_newuserdatauv(w->L, (size_t)room * sizeof *frames, 0);
    for (int k = 0; k < w->depth; k++) frames[k] = w->frames[k];
    lua_replace(w->L, w->more);
    w->frames = frames;
    w->room = room;
  }
  return &w->frames[w->depth++];
}

/* Whether a quick walk can go on into the branch at an index. */
static bool is_new(bp_walk *w, int index) {
  const void *address = lua_topointer(w->L, index);
  if (w->branches == BP_FEW_BRANCHES) return false;
  for (int k = 0; k < w->branches; k++)
    if (w->met[k] == address) return false;
  w->met[w->branches++] = address;
  return true;
}

/* Makes a frame of the source, the other and the info at the top of the stack. */
static void enter(bp_walk *w) {
  lua_State *L = w->L;
  if (!w->thorough && !is_new(w, lua_gettop(L) - 2)) {
    w->again = true;
    return;
  }
  bp_check_stack(L, w->s, 2 * FRAME + 10, w->name);
  bp_frame *f = add_frame(w);
  int base = base_of(w);
  bool record = lua_istable(L, base + INFO);
  lua_pushnil(L); /* the copy's place */
  f->position = 0;
  f->list = false;
  if (record) {
    lua_rawgeti(L, base + INFO, 2);
    f->count = (lua_Integer)lua_rawlen(L, -1);
    lua_createtable(L, 0, (int)f->count);
  } else {
    f->count = (lua_Integer)lua_rawlen(L, base + SOURCE);
    f->list = is_list(L, base + SOURCE, f->count);
    if (f->list) {
      lua_pushnil(L);
      lua_createtable(L, (int)f->count, 0);
    } else {
      push_place(w, "keys", w->depth - 1);
      lua_pushvalue(L, base + SOURCE);
      lua_call(L, 3, 1);
      f->count = (lua_Integer)lua_rawlen(L, -1);
      lua_createtable(L, 0, (int)f->count);
    }
  }
  lua_replace(L, base + COPY);
  if (w->paired && !record) refuse_more(w, base);
}

/* The copy of a branch whose leaves are all there gets the constants and the metatable, and takes the frame's place. */
static void leave(bp_walk *w) {
  lua_State *L = w->L;
  int base = base_of(w);
  if (lua_istable(L, base + INFO)) {
    lua_rawgeti(L, base + INFO, 3);
    lua_Integer n = (lua_Integer)lua_rawlen(L, -1);
    for (lua_Integer k = 1; k <= n; k++) {
      lua_rawgeti(L, base + FRAME, k);
      lua_pushvalue(L, -1);
      lua_rawget(L, base + SOURCE);
      lua_rawset(L, base + COPY);
    }
  }
  if (lua_getmetatable(L, base + SOURCE)) lua_setmetatable(L, base + COPY);
  if (w->thorough) {
    if (w->paired) { /* a branch that is met again has the same copy only beside the same other */
      lua_pushvalue(L, base + COPY);
      lua_pushvalue(L, base + OTHER);
      lua_rawset(L, w->seen);
    }
    lua_pushvalue(L, base + SOURCE);
    lua_pushvalue(L, base + COPY);
    lua_rawset(L, w->seen);
  }
  lua_settop(L, base + COPY);
  lua_replace(L, base + SOURCE);
  lua_settop(L, base + SOURCE);
  w->depth--;
}

/* Notes that the branch at an index is being walked. */
static void mark(bp_walk *w, int index) {
  lua_pushvalue(w->L, index);
  lua_pushboolean(w->L, false);
  lua_rawset(w->L, w->seen);
}

/* Whether the branch at index `value` has a copy already, which then takes its place at the top of the stack. Beside
 * another one it is the same branch only if that one is the same too. */
static bool is_known(bp_walk *w, int value) {
  lua_State *L = w->L;
  if (!w->thorough) return false;
  lua_pushvalue(L, value);
  int found = lua_rawget(L, w->seen);
  if (found == LUA_TBOOLEAN) raise_cycle(w);
  if (found == LUA_TTABLE && w->paired) {
    lua_pushvalue(L, -1);
    lua_rawget(L, w->seen);
    if (!lua_rawequal(L, -1, value + OTHER)) found = LUA_TNIL;
    lua_pop(L, 1);
  }
  if (found == LUA_TTABLE) {
    lua_replace(L, value);
    lua_settop(L, value);
    return true;
  }
  lua_pop(L, 1);
  mark(w, value);
  return false;
}

/* The leaf at an index, with nothing but the other of a pair above it, is replaced. */
static void replace_leaf(bp_walk *w, bp_sort what, int index) {
  w->count++;
  w->instances = w->instances || what == BP_INSTANCE;
  w->visit(w, what, index, w->paired ? index + OTHER : 0);
  lua_replace(w->L, index);
  if (w->paired) lua_settop(w->L, index);
}

static bool have_one_metatable(lua_State *L, int x, int y) {
  const int top = lua_gettop(L);
  const bool one = lua_getmetatable(L, x) && lua_getmetatable(L, y) && lua_rawequal(L, -1, -2);
  lua_settop(L, top);
  return one;
}

/* The value at an index, below its other: pushes what is known of it. Both must be of the same sort and type, or both
 * constants. */
static bp_sort classify_pair(bp_walk *w, int index) {
  lua_State *L = w->L;
  const int other = index + OTHER;
  bp_sort what = classify(w, index);
  if (!w->paired) return what;
  if (lua_type(L, index) == lua_type(L, other) && have_one_metatable(L, index, other)) return what;
  bool same = classify(w, other) == what && (what == BP_CONSTANT || lua_rawequal(L, index + INFO, -1));
  lua_pop(L, 1);
  if (!same) raise_difference(w, w->depth, index, other);
  return what;
}

/* The next key of the innermost frame. */
static void step(bp_walk *w) {
  lua_State *L = w->L;
  bp_frame *f = &w->frames[w->depth - 1];
  const int base = base_of(w), key = base + FRAME, value = key + 1;
  f->position++;
  if (f->list)
    lua_pushinteger(L, f->position);
  else
    lua_rawgeti(L, base + KEYS, f->position);
  lua_pushvalue(L, key);
  int type = lua_rawget(L, base + SOURCE), other = LUA_TNUMBER;
  if (type == LUA_TNIL) { /* gone from a record, which says so */
    lua_pushvalue(L, key);
    type = lua_gettable(L, base + SOURCE);
    lua_replace(L, value);
  }
  if (w->paired) {
    lua_pushvalue(L, key);
    other = lua_rawget(L, base + OTHER);
  }
  if (is_plain_leaf(w, type, value) && is_plain_leaf(w, other, value + OTHER)) {
    replace_leaf(w, BP_LEAF, value);
  } else {
    if (!w->paired) lua_pushnil(L);
    bp_sort what = classify_pair(w, value);
    if (what == BP_BRANCH && !is_known(w, value)) {
      enter(w);
      return;
    }
    if (what != BP_BRANCH) lua_settop(L, value + (w->paired && what != BP_CONSTANT ? OTHER : 0));
    if (what == BP_INSTANCE) replace_leaf(w, what, value);
  }
  lua_rawset(L, base + COPY);
}

/* The walk of a branch that stands, with its other and its info, at the top of the stack. */
static void walk_branch(bp_walk *w) {
  enter(w);
  if (w->thorough) {
    lua_newtable(w->L);
    lua_replace(w->L, w->seen);
    mark(w, w->first + SOURCE);
  }
  while (w->depth > 0 && !w->again) {
    const bp_frame *f = &w->frames[w->depth - 1];
    if (f->position < f->count) {
      step(w);
      continue;
    }
    leave(w);
    if (w->depth > 0) lua_rawset(w->L, base_of(w) + COPY);
  }
}

/* Walks the structure that stands at `place`, and the other above it; the copy is put at w->first. */
static void walk_from(bp_walk *w, int place) {
  lua_State *L = w->L;
  lua_settop(L, place + 1);
  w->frames = w->few;
  w->room = BP_SHALLOW;
  w->depth = w->branches = 0;
  w->again = w->instances = false;
  w->known = place + 2;
  w->seen = place + 3;
  w->more = place + 4;
  w->first = place + 5;
  lua_rawgeti(L, LUA_REGISTRYINDEX, w->s->known);
  lua_settop(L, w->more);
  lua_pushvalue(L, place);
  lua_pushvalue(L, place + 1);
  bp_sort what = classify_pair(w, w->first);
  if (what == BP_BRANCH) {
    walk_branch(w);
  } else if (what != BP_CONSTANT) {
    lua_settop(L, w->first + (w->paired ? OTHER : 0));
    replace_leaf(w, what, w->first);
  }
}

void bp_walk_run(bp_walk *w) {
  lua_State *L = w->L;
  int place = lua_gettop(L) - (w->paired ? 1 : 0);
  size_t before = w->count;
  bp_reserve_call(L);
  walk_from(w, place);
  if (w->again) {
    w->thorough = true;
    w->count = before;
    if (w->undo == NULL) bp_raise(L, w->s, "%s: the structure was changed while it was used", w->name);
    w->undo(w);
    walk_from(w, place);
  }
  lua_settop(L, w->first);
  lua_replace(L, place);
  lua_settop(L, place);
}

const char *bp_walk_place(bp_walk *w) {
  if (w->depth == 0) return "";
  push_place(w, "at", w->depth);
  lua_call(w->L, 2, 1);
  return lua_tostring(w->L, -1);
}
