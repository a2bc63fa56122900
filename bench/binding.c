/* `require "baseline"`: the C programs of the benchmark for Lua, so that every mode runs in one process.
 *
 *   baseline.network(program, dtype, batch)   "manual" or "limit", "f64" or "f32"; its buffers are zero
 *     net:set(name, values)                   an array or table, flat or of rows; names are x, target, w1..3, b1..3
 *     net:get(name)                           a flat table; also gw1..3 and gb1..3, the gradients
 *     net:run() net:gradient() net:descent(rate)    the loss; nothing is allocated
 *   baseline.sweeps(dtype, n, size)           two arrays of n elements and three matrices of size x size
 *     s:read() s:write() s:update() s:gemm()  one pass each
 *   baseline.chain(n, rounds)                 chain.h; x is spread over 0.5 to 1, a is 0.99, b is -0.99
 *     c:step()                                forward and backward
 *     c:gradient()                            of the last step, a flat table
 *   baseline.clock()                          seconds, monotonic
 *   baseline.set_threads(n)                   of OpenBLAS
 *
 * A userdata owns one block, which its __gc frees; a block is made only once its userdata has its metatable, so that
 * no error can leak it. */
#include <cblas.h>
#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "chain.h"
#include "network.h"

enum { ALIGNMENT = 64, PARTS = 2 + 5 * LAYERS };

static const char *const dtypes[] = {"f64", "f32", NULL};

/* An array of a network by its name, and whether Lua may write it. */
typedef struct part {
  char name[8];
  void **data;
  size_t count;
} part;

typedef struct lua_network {
  network net;
  const program *program;
  bool f32;
  void *block;
} lua_network;

typedef struct lua_sweeps {
  const sweeps *sweeps;
  size_t n, size;
  void *w, *g, *a, *b, *c;
  void *block;
} lua_sweeps;

typedef struct lua_chain {
  chain chain;
  void *block;
} lua_chain;

/* A request for memory: where the pointer goes, and how many bytes. */
typedef struct request {
  void **to;
  size_t bytes;
} request;

/* One zeroed block for all requests, each part aligned. */
static void allocate(lua_State *L, void **block, size_t n, const request *requests) {
  size_t total = 0;
  for (size_t i = 0; i < n; i++) total += (requests[i].bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  char *at = aligned_alloc(ALIGNMENT, total);
  if (at == NULL) luaL_error(L, "not enough memory");
  memset(at, 0, total);
  *block = at;
  for (size_t i = 0; i < n; i++) {
    *requests[i].to = at;
    at += (requests[i].bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  }
}

static void *new_object(lua_State *L, size_t size, const char *class) {
  void *object = lua_newuserdatauv(L, size, 0);
  memset(object, 0, size);
  luaL_setmetatable(L, class);
  return object;
}

/* ---- networks ---- */

static void list_parts(network *net, part *parts) {
  static const char *const kinds[] = {"w", "b", "gw", "gb", "d"};
  *parts++ = (part){"x", &net->x[0], net->batch * width[0]};
  *parts++ = (part){"target", &net->target, net->batch * width[LAYERS]};
  for (size_t l = 0; l < LAYERS; l++) {
    const size_t in = width[l], out = width[l + 1];
    void **data[] = {&net->w[l], &net->b[l], &net->gw[l], &net->gb[l], &net->d[l]};
    const size_t counts[] = {out * in, out, out * in, out, net->batch * out};
    for (size_t k = 0; k < 5; k++, parts++) {
      const size_t length = strlen(kinds[k]);
      *parts = (part){"", data[k], counts[k]};
      memcpy(parts->name, kinds[k], length);
      parts->name[length] = (char)('1' + l);
    }
  }
}

static int l_network(lua_State *L) {
  static const char *const names[] = {"manual", "limit", NULL};
  static const program *const programs[2][2] = {{&manual_f64, &manual_f32}, {&limit_f64, &limit_f32}};
  const int which = luaL_checkoption(L, 1, NULL, names), dtype = luaL_checkoption(L, 2, "f64", dtypes);
  const lua_Integer batch = luaL_optinteger(L, 3, 1);
  luaL_argcheck(L, batch >= 1 && batch <= 1 << 16, 3, "a batch of 1 to 65536 rows");

  lua_network *self = new_object(L, sizeof *self, "baseline.network");
  self->program = programs[which][dtype];
  self->f32 = dtype == 1;
  self->net.batch = (size_t)batch;
  const size_t element = self->f32 ? sizeof(float) : sizeof(double);
  part parts[PARTS];
  request requests[PARTS + LAYERS];
  list_parts(&self->net, parts);
  for (size_t i = 0; i < PARTS; i++) requests[i] = (request){parts[i].data, parts[i].count * element};
  for (size_t l = 0; l < LAYERS; l++)
    requests[PARTS + l] = (request){&self->net.x[l + 1], self->net.batch * width[l + 1] * element};
  allocate(L, &self->block, PARTS + LAYERS, requests);
  return 1;
}

static lua_network *check_network(lua_State *L) {
  return luaL_checkudata(L, 1, "baseline.network");
}

static part check_part(lua_State *L, lua_network *self) {
  const char *name = luaL_checkstring(L, 2);
  part parts[PARTS];
  list_parts(&self->net, parts);
  for (size_t i = 0; i < PARTS; i++)
    if (strcmp(parts[i].name, name) == 0) return parts[i];
  luaL_argerror(L, 2, lua_pushfstring(L, "a network has no '%s'", name));
  return parts[0];
}

/* Stores the numbers of the value at `index`, rows one after another, from element `at`; returns the next element. */
static size_t store(lua_State *L, const lua_network *self, const part *to, int index, size_t at) {
  const lua_Integer n = luaL_len(L, index);
  for (lua_Integer i = 1; i <= n; i++) {
    const int type = lua_geti(L, index, i);
    if (type == LUA_TTABLE || type == LUA_TUSERDATA) {
      at = store(L, self, to, lua_gettop(L), at);
    } else {
      int number;
      const double value = lua_tonumberx(L, -1, &number);
      if (!number) luaL_error(L, "%s: element %I is not a number", to->name, (lua_Integer)at + 1);
      if (at >= to->count) luaL_error(L, "%s: more than %I numbers", to->name, (lua_Integer)to->count);
      if (self->f32)
        ((float *)*to->data)[at++] = (float)value;
      else
        ((double *)*to->data)[at++] = value;
    }
    lua_pop(L, 1);
  }
  return at;
}

static int l_set(lua_State *L) {
  lua_network *self = check_network(L);
  const part to = check_part(L, self);
  luaL_checkany(L, 3);
  const size_t stored = store(L, self, &to, 3, 0);
  if (stored != to.count)
    return luaL_error(L, "%s: %I numbers where %I are wanted", to.name, (lua_Integer)stored, (lua_Integer)to.count);
  return 0;
}

static int l_get(lua_State *L) {
  lua_network *self = check_network(L);
  const part from = check_part(L, self);
  lua_createtable(L, (int)from.count, 0);
  for (size_t i = 0; i < from.count; i++) {
    lua_pushnumber(L, self->f32 ? (double)((float *)*from.data)[i] : ((double *)*from.data)[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

static int l_run(lua_State *L) {
  lua_network *self = check_network(L);
  lua_pushnumber(L, self->program->run(&self->net));
  return 1;
}

static int l_gradient(lua_State *L) {
  lua_network *self = check_network(L);
  lua_pushnumber(L, self->program->gradient(&self->net));
  return 1;
}

static int l_descent(lua_State *L) {
  lua_network *self = check_network(L);
  lua_pushnumber(L, self->program->descent(&self->net, luaL_checknumber(L, 2)));
  return 1;
}

static int l_network_gc(lua_State *L) {
  lua_network *self = check_network(L);
  free(self->block);
  self->block = NULL;
  return 0;
}

/* ---- sweeps ---- */

/* Numbers in (0, 1): zeros would let the processor run faster than it does on data. */
static void fill(void *data, size_t n, bool f32) {
  uint32_t state = 1;
  for (size_t i = 0; i < n; i++) {
    state = state * 1664525u + 1013904223u;
    const double value = ((state >> 8) + 0.5) / 0x1p24;
    if (f32)
      ((float *)data)[i] = (float)value;
    else
      ((double *)data)[i] = value;
  }
}

static int l_sweeps(lua_State *L) {
  const int dtype = luaL_checkoption(L, 1, "f64", dtypes);
  const lua_Integer n = luaL_checkinteger(L, 2), size = luaL_checkinteger(L, 3);
  luaL_argcheck(L, n >= 1 && n <= 1 << 28, 2, "1 to 2^28 elements");
  luaL_argcheck(L, size >= 1 && size <= 1 << 13, 3, "1 to 2^13 rows");
  lua_sweeps *self = new_object(L, sizeof *self, "baseline.sweeps");
  self->sweeps = dtype == 1 ? &sweeps_f32 : &sweeps_f64;
  self->n = (size_t)n;
  self->size = (size_t)size;
  const size_t element = dtype == 1 ? sizeof(float) : sizeof(double);
  const size_t array = self->n * element, matrix = self->size * self->size * element;
  const request requests[] = {
      {&self->w, array}, {&self->g, array}, {&self->a, matrix}, {&self->b, matrix}, {&self->c, matrix}};
  const size_t parts = sizeof requests / sizeof *requests;
  allocate(L, &self->block, parts, requests);
  for (size_t i = 0; i < parts; i++) fill(*requests[i].to, requests[i].bytes / element, dtype == 1);
  return 1;
}

static lua_sweeps *check_sweeps(lua_State *L) {
  return luaL_checkudata(L, 1, "baseline.sweeps");
}

static int l_read(lua_State *L) {
  const lua_sweeps *self = check_sweeps(L);
  lua_pushnumber(L, self->sweeps->read(self->n, self->w)); /* returned, so that the loop is not optimised away */
  return 1;
}

static int l_write(lua_State *L) {
  const lua_sweeps *self = check_sweeps(L);
  self->sweeps->write(self->n, self->g);
  return 0;
}

static int l_update(lua_State *L) {
  const lua_sweeps *self = check_sweeps(L);
  self->sweeps->update(self->n, self->w);
  return 0;
}

static int l_gemm(lua_State *L) {
  const lua_sweeps *self = check_sweeps(L);
  self->sweeps->gemm(self->size, self->a, self->b, self->c);
  return 0;
}

static int l_sweeps_gc(lua_State *L) {
  lua_sweeps *self = check_sweeps(L);
  free(self->block);
  self->block = NULL;
  return 0;
}

/* ---- chains ---- */

static int l_chain(lua_State *L) {
  const lua_Integer n = luaL_checkinteger(L, 1), rounds = luaL_checkinteger(L, 2);
  luaL_argcheck(L, n >= 1 && n <= 1 << 20, 1, "1 to 2^20 elements");
  luaL_argcheck(L, rounds >= 1 && rounds <= 1 << 10, 2, "1 to 2^10 rounds");
  lua_chain *self = new_object(L, sizeof *self, "baseline.chain");
  chain *c = &self->chain;
  c->n = (size_t)n;
  c->rounds = (size_t)rounds;
  void *x, *a, *b, *d, *y;
  const size_t bytes = c->n * sizeof *c->x;
  const request requests[] = {{&x, bytes}, {&a, bytes}, {&b, bytes}, {&d, bytes}, {&y, 4 * c->rounds * bytes}};
  allocate(L, &self->block, sizeof requests / sizeof *requests, requests);
  c->x = x;
  c->a = a;
  c->b = b;
  c->d = d;
  c->y = y;
  for (size_t i = 0; i < c->n; i++) {
    c->x[i] = c->n == 1 ? 0.5 : 0.5 + 0.5 * (double)i / (double)(c->n - 1);
    c->a[i] = 0.99;
    c->b[i] = -0.99;
  }
  return 1;
}

static lua_chain *check_chain(lua_State *L) {
  return luaL_checkudata(L, 1, "baseline.chain");
}

static int l_step(lua_State *L) {
  chain_step(&check_chain(L)->chain);
  return 0;
}

static int l_chain_gradient(lua_State *L) {
  const chain *c = &check_chain(L)->chain;
  lua_createtable(L, (int)c->n, 0);
  for (size_t i = 0; i < c->n; i++) {
    lua_pushnumber(L, c->d[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

static int l_chain_gc(lua_State *L) {
  lua_chain *self = check_chain(L);
  free(self->block);
  self->block = NULL;
  return 0;
}

/* ---- the module ---- */

static int l_clock(lua_State *L) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  lua_pushnumber(L, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
  return 1;
}

static int l_set_threads(lua_State *L) {
  const lua_Integer n = luaL_checkinteger(L, 1);
  luaL_argcheck(L, n >= 1 && n <= 1024, 1, "1 to 1024 threads");
  openblas_set_num_threads((int)n);
  return 0;
}

static void new_class(lua_State *L, const char *name, const luaL_Reg *methods) {
  luaL_newmetatable(L, name);
  luaL_setfuncs(L, methods, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}

static const luaL_Reg network_methods[] = {
    {"set", l_set},         {"get", l_get},         {"run", l_run}, {"gradient", l_gradient},
    {"descent", l_descent}, {"__gc", l_network_gc}, {NULL, NULL},
};

static const luaL_Reg sweeps_methods[] = {
    {"read", l_read}, {"write", l_write}, {"update", l_update}, {"gemm", l_gemm}, {"__gc", l_sweeps_gc}, {NULL, NULL},
};

static const luaL_Reg chain_methods[] = {
    {"step", l_step},
    {"gradient", l_chain_gradient},
    {"__gc", l_chain_gc},
    {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"network", l_network}, {"sweeps", l_sweeps},           {"chain", l_chain},
    {"clock", l_clock},     {"set_threads", l_set_threads}, {NULL, NULL},
};

int luaopen_baseline(lua_State *L);

int luaopen_baseline(lua_State *L) {
  new_class(L, "baseline.network", network_methods);
  new_class(L, "baseline.sweeps", sweeps_methods);
  new_class(L, "baseline.chain", chain_methods);
  luaL_newlib(L, functions);
  return 1;
}
