/* Memory that runs out: a host whose allocator counts and refuses (`make memtest`).
 *
 *   host [--every N] [--only TEXT]
 *
 * Every case of spec/memtest/workload.lua is run again and again, and the k-th request for memory is refused, for every
 * k until the case completes without a refusal (or for every N-th k, beginning at another one in each case), in three
 * ways: only that request; that and all that follow; and as a host with a limit does it, all that would need more
 * memory than is in use at that moment. What has to hold is said by the workload's `judge`; the host sees to it that a
 * failure is Lua's own memory error and that a closed state has given everything back.
 *
 * The allocator knows the size of each block, so that one given back under another size shows; new memory is filled
 * with a pattern, old memory with another. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORKLOAD "spec/memtest/workload.lua"

typedef enum manner { NOTHING, ONE, ALL, LIMIT } manner;

static const char *const refusal_names[] = {"nothing", "one", "all from", "a limit at"};

typedef struct memory {
  manner refusal;
  size_t first; /* the request at which refusing begins */
  bool armed;
  size_t requests; /* while armed: of new or more memory */
  size_t refused;
  size_t live, limit;
  size_t wrong_sizes;
} memory;

typedef struct totals {
  size_t cases, runs, refused, recovered, failed, troubles;
  size_t every;     /* only every so many-th request is refused */
  const char *only; /* parts whose names hold this */
} totals;

/* ---- the allocator ----------------------------------------------------------------------------------------------- */

/* In front of each block; as large as the strictest alignment. */
typedef union header {
  size_t size;
  max_align_t alignment;
} header;

static bool is_refused(memory *m, size_t growth) {
  if (!m->armed || m->refusal == NOTHING || ++m->requests < m->first) return false;
  if (m->requests == m->first) m->limit = m->live;
  if (m->refusal == ONE) return m->requests == m->first;
  return m->refusal == ALL || m->live + growth > m->limit;
}

static void *allocate(void *data, void *block, size_t old_size, size_t new_size) {
  memory *m = data;
  header *old = block == NULL ? NULL : (header *)block - 1;
  if (old == NULL) old_size = 0; /* Lua says there what the block is for */
  if (old != NULL && old->size != old_size) m->wrong_sizes++;
  if (new_size > old_size && is_refused(m, new_size - old_size)) {
    m->refused++;
    return NULL;
  }
  header *new = NULL;
  if (new_size > 0) {
    new = malloc(sizeof *new + new_size);
    if (new == NULL) abort(); /* the machine's memory, not the state's */
    new->size = new_size;
    memset(new + 1, 0xA5, new_size);
    if (old != NULL) memcpy(new + 1, old + 1, old_size < new_size ? old_size : new_size);
  }
  if (old != NULL) {
    memset(old + 1, 0x5A, old_size);
    free(old);
  }
  m->live = m->live - old_size + new_size;
  return new == NULL ? NULL : new + 1;
}

/* ---- what is said ------------------------------------------------------------------------------------------------ */

static void report(totals *t, const char *name, const memory *m, const char *trouble) {
  t->troubles++;
  fprintf(stderr, "memtest: %s: refusing %s request %zu: %s\n", name, refusal_names[m->refusal], m->first, trouble);
}

static bool is_memory_error(lua_State *L, int status) {
  return status == LUA_ERRMEM || (status == LUA_ERRRUN && lua_type(L, -1) == LUA_TSTRING &&
                                  strcmp(lua_tostring(L, -1), "not enough memory") == 0);
}

static const char *text_of(lua_State *L, int index) {
  const char *text = lua_tostring(L, index);
  return text == NULL ? luaL_typename(L, index) : text;
}

/* ---- one case ---------------------------------------------------------------------------------------------------- */

/* The case table stands at the top of the stack. Runs it once; whether anything was refused. */
static bool run_case(lua_State *L, memory *m, totals *t, const char *name, manner refusal, size_t first) {
  int top = lua_gettop(L);
  lua_getglobal(L, "judge");
  lua_pushvalue(L, top);
  lua_getfield(L, top, "prepare");
  if (lua_pcall(L, 0, 1, 0) != LUA_OK) report(t, name, m, text_of(L, -1));
  lua_getfield(L, top, "run");
  lua_insert(L, -2);
  *m = (memory){.refusal = refusal, .first = first, .armed = true, .live = m->live};
  int status = lua_pcall(L, 1, 1, 0);
  m->armed = false;
  size_t refused = m->refused;
  if (status != LUA_OK && (refused == 0 || !is_memory_error(L, status))) report(t, name, m, text_of(L, -1));
  t->runs++;
  t->refused += refused;
  t->recovered += refused > 0 && status == LUA_OK;
  t->failed += status != LUA_OK;
  lua_pushboolean(L, status == LUA_OK);
  lua_insert(L, -2);
  /* judge(case, completed, result) */
  if (lua_pcall(L, 3, 0, 0) != LUA_OK) report(t, name, m, text_of(L, -1));
  if (m->wrong_sizes > 0) report(t, name, m, "a block was given back under another size");
  lua_settop(L, top);
  return refused > 0;
}

static void fail_everywhere(lua_State *L, memory *m, totals *t, const char *name) {
  run_case(L, m, t, name, NOTHING, 0); /* the reference, and what is made once */
  for (manner refusal = ONE; refusal <= LIMIT; refusal++) {
    size_t first = 1 + t->cases++ % t->every, troubles = t->troubles;
    while (run_case(L, m, t, name, refusal, first) && t->troubles < troubles + 5) first += t->every;
  }
}

/* ---- states ------------------------------------------------------------------------------------------------------ */

/* Leaves the workload's list of parts on the stack. */
static int load_workload(lua_State *L) {
  luaL_openlibs(L);
  if (luaL_loadfile(L, WORKLOAD) != LUA_OK) return lua_error(L);
  lua_call(L, 0, 1);
  return 1;
}

static lua_State *open_workload(memory *m, totals *t) {
  lua_State *L = lua_newstate(allocate, m);
  if (L == NULL) abort(); /* nothing is refused yet */
  lua_pushcfunction(L, load_workload);
  if (lua_pcall(L, 0, 1, 0) == LUA_OK) return L;
  report(t, WORKLOAD, m, text_of(L, -1));
  lua_close(L);
  return NULL;
}

static void close_state(lua_State *L, memory *m, totals *t, const char *name) {
  lua_close(L);
  if (m->live == 0) return;
  char text[80];
  snprintf(text, sizeof text, "%zu bytes are in use after the state was closed", m->live);
  report(t, name, m, text);
  m->live = 0;
}

/* Each part of the workload has a state of its own. False when there is no such part. */
static bool run_part(totals *t, lua_Integer part) {
  memory m = {.refusal = NOTHING};
  char name[128] = "workload";
  lua_State *L = open_workload(&m, t);
  if (L == NULL) return false;
  if (lua_geti(L, -1, part) == LUA_TNIL) {
    close_state(L, &m, t, name);
    return false;
  }
  lua_getfield(L, -1, "cases");
  lua_getfield(L, -2, "name");
  snprintf(name, sizeof name, "%s", text_of(L, -1));
  lua_pop(L, 1);
  if (t->only != NULL && strstr(name, t->only) == NULL) {
    lua_close(L);
    return true;
  }
  if (lua_pcall(L, 0, 1, 0) != LUA_OK) {
    report(t, name, &m, text_of(L, -1));
  } else {
    for (lua_Integer k = 1; lua_geti(L, -1, k) != LUA_TNIL; k++) {
      char full[192];
      lua_getfield(L, -1, "name");
      snprintf(full, sizeof full, "%s: %s", name, text_of(L, -1));
      lua_pop(L, 1);
      fail_everywhere(L, &m, t, full);
      lua_pop(L, 1);
    }
  }
  close_state(L, &m, t, name);
  return true;
}

/* ---- loading the library ----------------------------------------------------------------------------------------- */

static int load_library(lua_State *L) {
  luaL_openlibs(L);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "backprop");
  lua_call(L, 1, 0);
  return 0;
}

/* After a `require` that failed another one has to work. */
static int use_library(lua_State *L) {
  static const char script[] = "local bp = require 'backprop'\n"
                               "assert(bp.grad(function(x) return bp.sum(x * x) end)(bp.vector{3})[1] == 6)";
  if (luaL_loadstring(L, script) != LUA_OK) return lua_error(L);
  lua_call(L, 0, 0);
  return 0;
}

static bool load_once(totals *t, manner refusal, size_t first) {
  memory m = {.refusal = refusal, .first = first, .armed = true};
  lua_State *L = lua_newstate(allocate, &m);
  t->runs++;
  if (L == NULL) {
    if (m.live != 0) report(t, "loading", &m, "a state that could not be made has kept memory");
    t->refused += m.refused;
    t->failed++;
    return true;
  }
  lua_pushcfunction(L, load_library);
  int status = lua_pcall(L, 0, 0, 0);
  size_t refused = m.refused;
  t->refused += refused;
  t->recovered += refused > 0 && status == LUA_OK;
  t->failed += status != LUA_OK;
  /* `require` puts what it was loading before the message. */
  if (status != LUA_OK && strstr(text_of(L, -1), "not enough memory") == NULL) report(t, "loading", &m, text_of(L, -1));
  m.armed = false;
  lua_settop(L, 0);
  lua_pushcfunction(L, load_library);
  if (lua_pcall(L, 0, 0, 0) != LUA_OK) report(t, "loading again", &m, text_of(L, -1));
  lua_pushcfunction(L, use_library);
  if (lua_pcall(L, 0, 0, 0) != LUA_OK) report(t, "using it afterwards", &m, text_of(L, -1));
  close_state(L, &m, t, "loading");
  return refused > 0;
}

static void fail_loading(totals *t) {
  size_t every = t->every == 1 ? 1 : 20 * t->every; /* many requests, much alike */
  for (manner refusal = ONE; refusal <= LIMIT; refusal++, t->cases++) {
    size_t first = 1 + t->cases % every, troubles = t->troubles;
    while (load_once(t, refusal, first) && t->troubles < troubles + 5) first += every;
  }
}

int main(int count, char **words) {
  totals t = {.every = 1};
  for (int k = 1; k + 1 < count; k += 2) {
    if (strcmp(words[k], "--every") == 0) t.every = strtoul(words[k + 1], NULL, 10);
    if (strcmp(words[k], "--only") == 0) t.only = words[k + 1];
  }
  if (t.every == 0) t.every = 1;
  for (lua_Integer part = 1; run_part(&t, part); part++) continue;
  if (t.only == NULL) fail_loading(&t);
  printf("memtest: %zu cases, %zu runs, %zu requests refused: %zu memory errors, %zu runs that went on; %zu troubles\n",
         t.cases, t.runs, t.refused, t.failed, t.recovered, t.troubles);
  return t.troubles == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
