/* Walks over structures, for what every gradient call does: tracking arguments, collecting gradients, taking values.
 *
 * The same walk as that of lua/backprop/tree.lua, whose words hold here too: what is a leaf, a branch or a constant, in
 * which order, what becomes of a branch met twice or inside itself. There it serves functions of the user's, which may
 * yield; here it visits leaves from C, at a tenth of the cost. What is rare (other keys than 1..n, errors) is asked of
 * the Lua side.
 *
 * The walk does not recurse: it keeps a frame for every branch that it is in on the Lua stack, and between two frames
 * the key that leads from one to the next. So it nests as deep as Lua's stack does, in any thread. */
#include "binding.h"

typedef enum sort { LEAF, INSTANCE, BRANCH, CONSTANT } sort;

/* The slots of a frame, from its base. */
enum {
  SOURCE,
  OTHER, /* of a paired walk */
  COPY,
  INFO, /* what is known of a record's type, or nil */
  KEYS, /* or nil for 1..n */
  POSITION,
  COUNT,
  FRAME
};

typedef struct walk walk;
struct walk {
  lua_State *L;
  bp_state *s;
  const char *name; /* of the public function, for errors */
  bool paired;      /* side by side with a structure that must have leaves and branches at the same places */
  /* Replaces the leaf at the top of the stack; `other` is the stack index of the one beside it, or 0. */
  void (*visit)(walk *w, sort what, int other);
  bp_box *box;      /* the tape, where there is one */
  const char *leaf; /* the name for errors of a leaf */
  size_t count;     /* of leaves visited, and of those before */
  int first;        /* the base of the first frame */
  int seen;         /* stack index of the copies by their sources; false while a branch is being walked */
};

/* What a value is; pushes what is known of its metatable, or nil. */
static sort classify(walk *w, int index) {
  lua_State *L = w->L;
  int type = lua_type(L, index);
  bool userdata = type == LUA_TUSERDATA;
  if (type == LUA_TNUMBER || (userdata && bp_is_ours(L, w->s, index))) return lua_pushnil(L), LEAF;
  if ((type != LUA_TTABLE && !userdata) || !lua_getmetatable(L, index))
    return lua_pushnil(L), type == LUA_TTABLE ? BRANCH : CONSTANT;
  lua_rawgeti(L, LUA_REGISTRYINDEX, w->s->known);
  lua_insert(L, -2);
  if (lua_rawget(L, -2) == LUA_TNIL) return lua_remove(L, -2), userdata ? CONSTANT : BRANCH;
  lua_remove(L, -2);
  lua_getfield(L, -1, "sort");
  const char *text = lua_tostring(L, -1);
  lua_pop(L, 1); /* the table keeps it */
  return text[0] == 'b' ? BRANCH : text[0] == 'l' ? INSTANCE : CONSTANT;
}

/* ---- errors, by the Lua side ------------------------------------------------------------------------------------- */

/* Pushes a function of the Lua side, the public name and the list of keys from the root to frame `base` and, if `key`,
 * to the key above it. */
static void push_place(walk *w, const char *function, int base, bool key) {
  lua_State *L = w->L;
  lua_Integer n = 0;
  luaL_checkstack(L, 8, w->name);
  lua_rawgeti(L, LUA_REGISTRYINDEX, w->s->functions);
  lua_getfield(L, -1, function);
  lua_remove(L, -2);
  lua_pushstring(L, w->name);
  lua_newtable(L);
  for (int at = w->first; at < base || (key && at == base); at += FRAME + 1) {
    lua_pushvalue(L, at + FRAME);
    lua_rawseti(L, -2, ++n);
  }
}

static void raise_difference(walk *w, int base, bool key, int x, int y) {
  push_place(w, "differ", base, key);
  lua_pushvalue(w->L, x);
  lua_pushvalue(w->L, y);
  lua_call(w->L, 4, 0);
}

static void raise_cycle(walk *w, int base) {
  push_place(w, "cycle", base, true);
  lua_call(w->L, 2, 0);
}

/* ---- frames ------------------------------------------------------------------------------------------------------ */

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

/* Pushes the keys of a branch that is no record, or nil where they are 1..n; returns their number. */
static lua_Integer push_keys(walk *w, int base) {
  lua_State *L = w->L;
  lua_Integer n = (lua_Integer)lua_rawlen(L, base + SOURCE);
  if (is_list(L, base + SOURCE, n)) return lua_pushnil(L), n;
  push_place(w, "keys", base, false);
  lua_pushvalue(L, base + SOURCE);
  lua_call(L, 3, 1);
  return (lua_Integer)lua_rawlen(L, -1);
}

/* The other of a pair must not have leaves or branches where the source has nothing. */
static void refuse_more(walk *w, int base) {
  lua_State *L = w->L;
  lua_pushnil(L);
  while (lua_next(L, base + OTHER) != 0) {
    sort found = classify(w, lua_gettop(L));
    lua_pop(L, 1);
    lua_pushvalue(L, -2);
    if (found != CONSTANT && lua_rawget(L, base + SOURCE) == LUA_TNIL) {
      lua_pushvalue(L, -3);
      lua_replace(L, base + FRAME);
      raise_difference(w, base, true, lua_gettop(L), lua_gettop(L) - 1);
    }
    lua_pop(L, 2);
  }
}

/* Makes a frame of the source, the other and the info at the top of the stack. */
static void enter(walk *w) {
  lua_State *L = w->L;
  int base = lua_gettop(L) - 2;
  luaL_checkstack(L, 2 * FRAME + 10, w->name);
  lua_pushnil(L); /* the copy's place */
  lua_insert(L, base + COPY);
  bool record = lua_istable(L, base + INFO);
  if (record && lua_getfield(L, base + INFO, "keys") == LUA_TTABLE) {
    lua_Integer n = (lua_Integer)lua_rawlen(L, -1);
    lua_pushinteger(L, 0);
    lua_pushinteger(L, n);
    lua_createtable(L, 0, (int)n);
  } else {
    lua_Integer n = push_keys(w, base);
    lua_pushinteger(L, 0);
    lua_pushinteger(L, n);
    bool list = lua_isnil(L, base + KEYS);
    lua_createtable(L, list ? (int)n : 0, list ? 0 : (int)n);
  }
  lua_replace(L, base + COPY);
  if (w->paired && !record) refuse_more(w, base);
}

/* The copy of a branch whose leaves are all there gets the constants and the metatable, and takes the frame's place. */
static void leave(walk *w, int base) {
  lua_State *L = w->L;
  if (lua_istable(L, base + INFO) && lua_getfield(L, base + INFO, "constants") == LUA_TTABLE) {
    int constants = lua_gettop(L);
    lua_Integer n = (lua_Integer)lua_rawlen(L, constants);
    for (lua_Integer k = 1; k <= n; k++) {
      lua_rawgeti(L, constants, k);
      lua_pushvalue(L, -1);
      lua_rawget(L, base + SOURCE);
      lua_rawset(L, base + COPY);
    }
  }
  if (lua_getmetatable(L, base + SOURCE)) lua_setmetatable(L, base + COPY);
  if (lua_istable(L, w->seen)) {
    lua_pushvalue(L, base + SOURCE);
    lua_pushvalue(L, base + COPY);
    lua_rawset(L, w->seen);
    if (w->paired) { /* a branch that is met again has the same copy only beside the same other */
      lua_pushvalue(L, base + COPY);
      lua_pushvalue(L, base + OTHER);
      lua_rawset(L, w->seen);
    }
  }
  lua_settop(L, base + COPY);
  lua_replace(L, base + SOURCE);
  lua_settop(L, base + SOURCE);
}

/* Notes that the branch at an index is being walked. */
static void mark(walk *w, int index) {
  lua_pushvalue(w->L, index);
  lua_pushboolean(w->L, false);
  lua_rawset(w->L, w->seen);
}

/* Whether the branch at index `value`, met in frame `base`, has a copy already, which then takes its place at the top of
 * the stack. Beside another one it is the same branch only if that one is the same too. */
static bool is_known(walk *w, int base, int value) {
  lua_State *L = w->L;
  if (lua_isnil(L, w->seen)) {
    lua_newtable(L);
    lua_replace(L, w->seen);
    mark(w, w->first + SOURCE);
  }
  lua_pushvalue(L, value);
  int found = lua_rawget(L, w->seen);
  if (found == LUA_TBOOLEAN) raise_cycle(w, base);
  if (found == LUA_TTABLE && w->paired) {
    lua_pushvalue(L, -1);
    lua_rawget(L, w->seen);
    if (!lua_rawequal(L, -1, value + 1)) found = LUA_TNIL;
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

/* One key of a frame. Returns the base of the frame to go on in. */
static int step(walk *w, int base) {
  lua_State *L = w->L;
  lua_Integer position = lua_tointeger(L, base + POSITION) + 1;
  lua_pushinteger(L, position);
  lua_replace(L, base + POSITION);
  if (lua_isnil(L, base + KEYS))
    lua_pushinteger(L, position);
  else
    lua_rawgeti(L, base + KEYS, position);
  int key = base + FRAME, value = key + 1;
  lua_pushvalue(L, key);
  if (lua_rawget(L, base + SOURCE) == LUA_TNIL) { /* gone from a record, which says so */
    lua_pushvalue(L, key);
    lua_gettable(L, base + SOURCE);
    lua_replace(L, value);
  }
  sort what = classify(w, value);
  int info = value + 1, other = 0;
  if (w->paired && what != CONSTANT) {
    other = info + 1;
    lua_pushvalue(L, key);
    lua_rawget(L, base + OTHER);
    bool same = classify(w, other) == what && lua_rawequal(L, info, -1);
    lua_pop(L, 1);
    if (!same) raise_difference(w, base, true, value, other);
  }
  if (what == BRANCH) {
    if (other == 0) lua_pushnil(L);
    lua_insert(L, info); /* value, other, info: the order of a frame */
    if (!is_known(w, base, value)) return enter(w), value;
  } else if (what != CONSTANT) {
    lua_pushvalue(L, value);
    w->count++;
    w->visit(w, what, other);
    lua_replace(L, value);
  }
  lua_settop(L, value);
  lua_rawset(L, base + COPY);
  return base;
}

/* Replaces the structure at the top of the stack (of a paired walk: the structure below the other) by its copy. */
static void run(walk *w) {
  lua_State *L = w->L;
  int root = lua_gettop(L) - (w->paired ? 1 : 0), other = root + 1;
  if (!w->paired) lua_pushnil(L);
  sort what = classify(w, root);
  if (what == CONSTANT) {
    lua_settop(L, root);
    return;
  }
  if (w->paired) {
    bool same = classify(w, other) == what && lua_rawequal(L, -1, -2);
    lua_pop(L, 1);
    if (!same) raise_difference(w, w->first, false, root, other);
  }
  if (what != BRANCH) {
    lua_pushvalue(L, root);
    w->count++;
    w->visit(w, what, w->paired ? other : 0);
    lua_replace(L, root);
    lua_settop(L, root);
    return;
  }
  lua_pushnil(L);
  lua_insert(L, root);
  w->seen = root++;
  w->first = root;
  enter(w);
  int base = root;
  for (;;) {
    if (lua_tointeger(L, base + POSITION) < lua_tointeger(L, base + COUNT)) {
      base = step(w, base);
      continue;
    }
    leave(w, base);
    if (base == root) break;
    base -= FRAME + 1;
    lua_rawset(L, base + COPY);
  }
  lua_replace(L, w->seen);
}

/* ---- what is done at the leaves ---------------------------------------------------------------------------------- */

static void track_leaf(walk *w, sort what, int other) {
  lua_State *L = w->L;
  bool number = lua_type(L, -1) == LUA_TNUMBER;
  if (what == INSTANCE)
    bp_track_object(L, w->s, w->box);
  else
    bp_track(L, w->s, w->box, number ? 0 : other, w->leaf);
  lua_replace(L, -2);
}

/* tape:track(name, x [, into]): a copy of x with variables for leaves, and how many there are. */
static int track(lua_State *L) {
  bp_state *s = bp_state_of(L);
  walk w = {.L = L, .s = s, .visit = track_leaf, .box = bp_check_tape(L, s)};
  w.leaf = w.name = luaL_checkstring(L, 2);
  lua_settop(L, 4);
  w.paired = !lua_isnil(L, 4);
  if (w.paired) {
    w.name = lua_pushfstring(L, "%s: into", w.leaf);
    lua_insert(L, 3);
  } else {
    lua_settop(L, 3);
  }
  run(&w);
  lua_pushinteger(L, (lua_Integer)w.count);
  return 2;
}

static void collect_leaf(walk *w, sort what, int other) {
  (void)other;
  bp_push_gradient(w->L, w->s, w->box, (bp_index)(w->count - 1));
  if (what == INSTANCE && lua_isnil(w->L, -1)) { /* nothing has reached it */
    lua_rawgeti(w->L, LUA_REGISTRYINDEX, w->s->functions);
    lua_getfield(w->L, -1, "zero_instance");
    lua_pushvalue(w->L, -4);
    lua_call(w->L, 1, 1);
    lua_replace(w->L, -3);
    lua_pop(w->L, 1);
  }
  lua_replace(w->L, -2);
}

/* tape:collect(name, x, before): the gradients of the leaves of x, which follow leaf number `before`, in x's structure,
 * and the number of the last. */
static int collect(lua_State *L) {
  bp_state *s = bp_state_of(L);
  walk w = {.L = L, .s = s, .visit = collect_leaf, .box = bp_check_tape(L, s)};
  w.name = luaL_checkstring(L, 2);
  w.count = (size_t)luaL_checkinteger(L, 4);
  lua_settop(L, 3);
  run(&w);
  lua_pushinteger(L, (lua_Integer)w.count);
  return 2;
}

static void outcome_leaf(walk *w, sort what, int other) {
  (void)what, (void)other;
  bp_push_outcome(w->L, w->s, w->box);
  lua_replace(w->L, -2);
}

/* tape:outcome(x): the plain values of a result, for the caller to keep. */
static int outcome(lua_State *L) {
  bp_state *s = bp_state_of(L);
  walk w = {.L = L, .s = s, .visit = outcome_leaf, .name = "bp.grad", .box = bp_check_tape(L, s)};
  lua_settop(L, 2);
  run(&w);
  return 1;
}

static void value_leaf(walk *w, sort what, int other) {
  (void)what, (void)other;
  bp_push_value(w->L, w->s);
  lua_replace(w->L, -2);
}

/* core.values(x): x with plain values for variables. */
static int values(lua_State *L) {
  walk w = {.L = L, .s = bp_state_of(L), .visit = value_leaf, .name = "bp.value"};
  lua_settop(L, 1);
  run(&w);
  return 1;
}

/* core.set_known(t): what is known of metatables; see tree.lua. */
static int set_known(lua_State *L) {
  lua_settop(L, 1);
  bp_state_of(L)->known = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

void bp_open_structures(lua_State *L, bp_state *s) {
  static const luaL_Reg functions[] = {{"values", values}, {"set_known", set_known}, {NULL, NULL}};
  static const luaL_Reg methods[] = {{"track", track}, {"collect", collect}, {"outcome", outcome}, {NULL, NULL}};
  bp_set_functions(L, s, functions);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->tape_metatable);
  lua_getfield(L, -1, "__index");
  bp_set_functions(L, s, methods);
  lua_pop(L, 2);
}
