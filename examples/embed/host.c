/* A program that embeds Lua and, in it, backprop: no path and no file of the library's, one call. Four Lua states on four
 * threads train the same network on the same data, which stands in the host's memory once; each trains into parameters
 * that are the host's memory, too. A state may not have more memory than the host allows; one that wants more gets a
 * Lua error and goes on.
 *
 *   host train.lua digits.csv
 *
 * Everything that it claims it checks: a line for each, and exit code 1 if one is wrong. What a host has to keep in mind
 * is said where it is done; the rest in backprop.h. */
#include "host.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 1797, PIXELS = 64, COLUMNS = PIXELS + 1, HIDDEN = 32, CLASSES = 10, STATES = 4, EPOCHS = 6 };

static const size_t MEMORY = (size_t)6 << 20; /* for each state */

/* ---- the host's data --------------------------------------------------------------------------------------------- */

typedef struct network {
  _Alignas(64) double w1[HIDDEN][PIXELS];
  _Alignas(64) double b1[HIDDEN];
  _Alignas(64) double w2[CLASSES][HIDDEN];
  _Alignas(64) double b2[CLASSES];
} network;

/* 64 pixels from 0 to 1, then the class from 1 to 10: lent as a matrix and a vector whose elements stand 65 apart. */
typedef double table[ROWS][COLUMNS];

/* One Lua state and what belongs to it. */
typedef struct job {
  const char *script;
  table *data;
  network net, gradient;
  account memory;
  bp_op softsign;
  lua_State *L;
  int lent, returned; /* arrays */
  int good;
  double result;     /* of the last call, if that was a number */
  char problem[256]; /* empty if there was none */
} job;

static int read_table(const char *path, table *data) {
  FILE *file = fopen(path, "r");
  if (file == NULL) return 0;
  int good = 1;
  for (int i = 0; i < ROWS && good; i++)
    for (int j = 0; j < COLUMNS && good; j++) {
      double value;
      good = fscanf(file, j + 1 < COLUMNS ? "%lf ," : "%lf", &value) == 1;
      (*data)[i][j] = j < PIXELS ? value / 16 : value + 1;
    }
  fclose(file);
  return good;
}

/* ---- one state --------------------------------------------------------------------------------------------------- */

/* The state has no more use for some array. This runs in the midst of its work: no call of Lua here. */
static void got_back(void *context, void *data) {
  (void)data;
  ((job *)context)->returned++;
}

static void lend(job *j, bp_array array, void *data, size_t stride, bool writable, const char *name) {
  array.data = data;
  array.stride = stride;
  j->lent++;
  j->memory.api->push_borrowed(j->L, &array, writable, got_back, j);
  lua_setfield(j->L, -2, name);
}

/* Sets a table of four arrays over a network's memory as a field of the table at the top of the stack. */
static void lend_network(job *j, network *net, const char *name) {
  const bp_api *api = j->memory.api;
  lua_newtable(j->L);
  lend(j, api->matrix(HIDDEN, PIXELS, BP_F64), net->w1, PIXELS, true, "w1");
  lend(j, api->vector(HIDDEN, BP_F64), net->b1, 1, true, "b1");
  lend(j, api->matrix(CLASSES, HIDDEN, BP_F64), net->w2, HIDDEN, true, "w2");
  lend(j, api->vector(CLASSES, BP_F64), net->b2, 1, true, "b2");
  lua_setfield(j->L, -2, name);
}

/* Runs protected: all of this may raise. The script's functions are left in the registry. */
static int set_up(lua_State *L) {
  static const luaL_Reg libraries[] = {{LUA_GNAME, luaopen_base},       {LUA_LOADLIBNAME, luaopen_package},
                                       {LUA_TABLIBNAME, luaopen_table}, {LUA_STRLIBNAME, luaopen_string},
                                       {LUA_MATHLIBNAME, luaopen_math}, {NULL, NULL}};
  job *j = lua_touserdata(L, 1);
  for (const luaL_Reg *library = libraries; library->name != NULL; library++) {
    luaL_requiref(L, library->name, library->func, 1);
    lua_pop(L, 1);
  }
  bp_preload(L); /* from here on `require "backprop"` works */
  const bp_api *api = bp_get_api(L);
  j->memory.api = api;
  j->memory.context = api->context(L);
  j->softsign = host_softsign(api);

  if (luaL_loadfile(L, j->script) != LUA_OK) return lua_error(L);
  lua_newtable(L);
  lend(j, api->matrix(ROWS, PIXELS, BP_F64), (*j->data)[0], COLUMNS, false, "pixels");
  lend(j, api->vector(ROWS, BP_F64), &(*j->data)[0][PIXELS], COLUMNS, false, "class");
  lend_network(j, &j->net, "net");
  lend_network(j, &j->gradient, "gradient");
  api->register_op(L, &j->softsign);
  lua_setfield(L, -2, "softsign");
  lua_call(L, 1, 1);
  lua_setfield(L, LUA_REGISTRYINDEX, "script");
  return 0;
}

/* Notes an error; the state can be used further. */
static int failed(job *j, int status) {
  if (status == LUA_OK) return 0;
  const char *message = lua_tostring(j->L, -1);
  snprintf(j->problem, sizeof j->problem, "%s", message == NULL ? "an error that is no string" : message);
  lua_pop(j->L, 1);
  /* What the call left behind is in no use, but only the collector can tell; then the allocator finds it in the pool. */
  if (status == LUA_ERRMEM) lua_gc(j->L, LUA_GCCOLLECT);
  return 1;
}

typedef struct request {
  job *job;
  const char *function, *text;
  lua_Integer number;
} request;

static int perform(lua_State *L) {
  const request *r = lua_touserdata(L, 1);
  lua_getfield(L, LUA_REGISTRYINDEX, "script");
  lua_getfield(L, -1, r->function);
  if (r->text != NULL)
    lua_pushstring(L, r->text);
  else
    lua_pushinteger(L, r->number);
  lua_call(L, 1, 1);
  r->job->result = lua_tonumber(L, -1);
  return 0;
}

/* A C function, called protected with one pointer: pushing it needs no memory. */
static int protected(job *j, lua_CFunction f, void *argument) {
  lua_pushcfunction(j->L, f);
  lua_pushlightuserdata(j->L, argument);
  return !failed(j, lua_pcall(j->L, 1, 0, 0));
}

static int call(job *j, const char *function, const char *text, lua_Integer number) {
  request r = {j, function, text, number};
  j->problem[0] = '\0';
  return protected(j, perform, &r);
}

static int open_state(job *j) {
  j->memory.cap = MEMORY;
  j->L = lua_newstate(host_allocate, &j->memory);
  if (j->L == NULL) return 0;
  return protected(j, set_up, j);
}

static void close_state(job *j) {
  if (j->L != NULL) lua_close(j->L);
  j->L = NULL;
}

/* What a thread does: a state from its beginning to its end. The parameters outlive it, since they are the host's. */
static void *live(void *argument) {
  job *j = argument;
  j->good = open_state(j) && call(j, "train", NULL, EPOCHS);
  close_state(j);
  return NULL;
}

/* ---- the claims -------------------------------------------------------------------------------------------------- */

static int wrong;

static void claim(int holds, const char *text) {
  printf("%s  %s\n", holds ? "ok   " : "WRONG", text);
  wrong += !holds;
}

static int same(const network *a, const network *b) {
  return memcmp(a->w1, b->w1, sizeof a->w1) == 0 && memcmp(a->b1, b->b1, sizeof a->b1) == 0 &&
         memcmp(a->w2, b->w2, sizeof a->w2) == 0 && memcmp(a->b2, b->b2, sizeof a->b2) == 0;
}

/* How many digits a network reads rightly, by the host's own reckoning. */
static int count_right(const network *net, table *data) {
  int right = 0;
  for (int i = 0; i < ROWS; i++) {
    double hidden[HIDDEN], best = 0;
    int class = 0;
    for (int k = 0; k < HIDDEN; k++) {
      double sum = net->b1[k];
      for (int j = 0; j < PIXELS; j++) sum += net->w1[k][j] * (*data)[i][j];
      hidden[k] = sum / (1 + fabs(sum));
    }
    for (int c = 0; c < CLASSES; c++) {
      double sum = net->b2[c];
      for (int k = 0; k < HIDDEN; k++) sum += net->w2[c][k] * hidden[k];
      if (c == 0 || sum > best) best = sum, class = c + 1;
    }
    right += class == (int)(*data)[i][PIXELS];
  }
  return right;
}

/* A script that wants more and more gets Lua's own error, and has then come close to the limit. */
static int hoard(job *j, const char *what) {
  j->memory.peak = j->memory.used;
  int refused = !call(j, "hoard", what, 0) && strcmp(j->problem, "not enough memory") == 0;
  return refused && j->memory.peak <= MEMORY && j->memory.peak > MEMORY / 10 * 9;
}

static void claim_limits(job *j) {
  network before;
  int refused = !call(j, "deface", NULL, 0);
  claim(refused && strstr(j->problem, "read-only") != NULL, "a script cannot write into what was lent for reading");

  call(j, "gradient", NULL, 0);
  before = j->gradient;
  memset(&j->gradient, 0, sizeof j->gradient);
  claim(hoard(j, "arrays"), "a script that hoards arrays gets a Lua error at its limit");
  claim(call(j, "gradient", NULL, 0) && same(&before, &j->gradient), "and the next gradient is what it was");
  memset(&j->gradient, 0, sizeof j->gradient);
  claim(hoard(j, "strings"), "so does one that hoards strings");
  claim(call(j, "gradient", NULL, 0) && same(&before, &j->gradient), "and the next gradient is what it was");
  claim(hoard(j, "arrays") && call(j, "spell", NULL, MEMORY / 2), "what arrays had, strings get afterwards");
}

static void claim_returned(const job *j, size_t count, const char *text) {
  int all = 1;
  for (size_t k = 0; k < count; k++) all &= j[k].lent == 10 && j[k].returned == j[k].lent && j[k].memory.used == 0;
  claim(all, text);
}

int main(int count, char **arguments) {
  static table data;
  static job jobs[1 + STATES];
  job *alone = &jobs[0], *four = &jobs[1];
  pthread_t threads[STATES];
  int agree = 1;
  if (count != 3 || !read_table(arguments[2], &data)) {
    fprintf(stderr, "usage: host train.lua digits.csv\n");
    return 2;
  }
  for (int k = 0; k < 1 + STATES; k++) jobs[k] = (job){.script = arguments[1], .data = &data};

  claim(open_state(alone), "a state opens, with the library inside the program");
  claim(call(alone, "check", NULL, 0), "the host's operation has the right gradient");
  alone->good = call(alone, "train", NULL, EPOCHS);
  printf("       one state alone reads %.4f of the digits\n", alone->result);
  claim(alone->good && alone->result > 0.95, "it trains");
  claim(count_right(&alone->net, &data) == (int)(alone->result * ROWS + 0.5),
        "and the host, with the parameters in its own memory, reads the same digits");

  for (int k = 0; k < STATES; k++)
    if (pthread_create(&threads[k], NULL, live, &four[k]) != 0) return perror("host"), 1;
  for (int k = 0; k < STATES; k++) pthread_join(threads[k], NULL);
  for (int k = 0; k < STATES; k++) agree &= four[k].good && same(&alone->net, &four[k].net);
  claim(agree, "four states on four threads agree with it to the last bit");
  claim_returned(four, STATES, "closed, they have given back every array and all memory");

  claim_limits(alone);
  close_state(alone);
  claim_returned(alone, 1, "the first gives everything back, too");
  for (int k = 0; k < 1 + STATES && wrong; k++)
    if (jobs[k].problem[0] != '\0') printf("       state %d, last error: %s\n", k, jobs[k].problem);
  return wrong != 0;
}
