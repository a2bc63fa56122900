/* The random generator as a userdata with methods. */
#include "../core/rng.h"

#include <math.h>

#include "binding.h"

typedef struct generator {
  const void *mark;
  lua_Integer seed; /* to be shown */
  bp_rng rng;
} generator;

static generator *generator_at(lua_State *L, bp_state *s) {
  generator *g = lua_type(L, 1) == LUA_TUSERDATA && lua_rawlen(L, 1) == sizeof *g ? lua_touserdata(L, 1) : NULL;
  return g != NULL && g->mark == &s->rng_mark ? g : NULL;
}

static bp_rng *check_generator(lua_State *L, bp_state *s, const char *name) {
  generator *g = generator_at(L, s);
  if (g == NULL) bp_raise(L, s, "%s: expected a generator (call it with a colon), got %s", name, bp_type_of(L, s, 1));
  return &g->rng;
}

static double check_number(lua_State *L, bp_state *s, int index, const char *name) {
  if (lua_type(L, index) != LUA_TNUMBER)
    bp_raise(L, s, "%s: argument %d: expected a number, got %s", name, bp_argument_number(name, index),
             bp_type_of(L, s, index));
  return lua_tonumber(L, index);
}

static int new_generator(lua_State *L) {
  bp_state *s = bp_state_of(L);
  lua_Integer seed = 0;
  if (!bp_to_integer(L, 1, &seed))
    bp_raise(L, s, "bp.rng: expected an integer seed, got %s",
             lua_type(L, 1) == LUA_TNUMBER ? luaL_tolstring(L, 1, NULL) : bp_type_of(L, s, 1));
  bp_check_count(L, s, 1, "bp.rng");
  generator *g = lua_newuserdatauv(L, sizeof *g, 0);
  g->mark = &s->rng_mark;
  g->seed = seed;
  bp_rng_seed(&g->rng, (uint64_t)seed);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->rng_metatable);
  lua_setmetatable(L, -2);
  return 1;
}

/* Numbers base + scale * drawn, from a generator; below `end` where that is more than the base, also when rounded. */
typedef struct range {
  double (*next)(bp_rng *);
  double base, scale, end;
} range;

static double draw_number(bp_rng *rng, const range *r, bp_dtype dtype) {
  const double value = r->base + r->scale * r->next(rng);
  if (dtype == BP_F64) return value < r->end || !(r->base < r->end) ? value : nextafter(r->end, r->base);
  float rounded = (float)value;
  if ((double)rounded >= r->end && r->base < r->end) rounded = nextafterf((float)r->end, (float)r->base);
  if ((double)rounded >= r->end && r->base < r->end) rounded = nextafterf(rounded, (float)r->base);
  return (double)rounded;
}

/* One number, or an array of the sizes from an argument on. */
static int draw(lua_State *L, const char *name, const range *r, int sizes) {
  bp_state *s = bp_state_of(L);
  bp_rng *rng = check_generator(L, s, name);
  if (lua_isnoneornil(L, sizes)) {
    bp_check_count(L, s, sizes, name);
    lua_pushnumber(L, draw_number(rng, r, BP_F64));
    return 1;
  }
  bp_handle *handle = bp_push_new(L, s, bp_check_shape(L, s, sizes, name));
  for (size_t i = 0; i < handle->array.rows; i++)
    for (size_t j = 0; j < handle->array.cols; j++)
      bp_store(&handle->array, i, j, draw_number(rng, r, (bp_dtype)handle->array.dtype));
  return 1;
}

static int uniform(lua_State *L) {
  bp_state *s = bp_state_of(L);
  check_generator(L, s, "rng:uniform");
  const bool first = !lua_isnoneornil(L, 2), second = !lua_isnoneornil(L, 3);
  const double a = first ? check_number(L, s, 2, "rng:uniform") : 0;
  const double b = first || second ? check_number(L, s, 3, "rng:uniform") : 1;
  if (isinf(b - a) && isfinite(a) && isfinite(b))
    bp_raise(L, s, "rng:uniform: the range from %f to %f is too wide", a, b);
  return draw(L, "rng:uniform", &(range){bp_rng_uniform, a, b - a, b}, 4);
}

static int normal(lua_State *L) {
  bp_state *s = bp_state_of(L);
  check_generator(L, s, "rng:normal");
  const bool first = !lua_isnoneornil(L, 2), second = !lua_isnoneornil(L, 3);
  const double mean = first ? check_number(L, s, 2, "rng:normal") : 0;
  const double sd = first || second ? check_number(L, s, 3, "rng:normal") : 1;
  if (!(sd >= 0)) bp_raise(L, s, "rng:normal: argument 2: a standard deviation cannot be %f", sd);
  return draw(L, "rng:normal", &(range){bp_rng_normal, mean, sd, -INFINITY}, 4);
}

static int bernoulli(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_rng *rng = check_generator(L, s, "rng:bernoulli");
  double p = check_number(L, s, 2, "rng:bernoulli");
  if (!(p >= 0 && p <= 1)) bp_raise(L, s, "rng:bernoulli: argument 1: a probability cannot be %f", p);
  if (lua_isnoneornil(L, 3)) {
    bp_check_count(L, s, 3, "rng:bernoulli");
    lua_pushnumber(L, bp_rng_uniform(rng) < p);
    return 1;
  }
  bp_handle *handle = bp_push_new(L, s, bp_check_shape(L, s, 3, "rng:bernoulli"));
  for (size_t i = 0; i < handle->array.rows; i++)
    for (size_t j = 0; j < handle->array.cols; j++) bp_store(&handle->array, i, j, bp_rng_uniform(rng) < p);
  return 1;
}

/* The numbers 1 to n in random order (R. Fisher, F. Yates; R. Durstenfeld, 1964), a vector: f64, exact to 2^53. */
static int permutation(lua_State *L) {
  bp_state *s = bp_state_of(L);
  bp_rng *rng = check_generator(L, s, "rng:permutation");
  size_t n = bp_check_size(L, s, 2, "rng:permutation");
  bp_check_count(L, s, 2, "rng:permutation");
  bp_handle *handle = bp_push_new(L, s, bp_shape_vector(n, BP_F64));
  double *x = handle->array.data;
  for (size_t i = 0; i < n; i++) x[i] = (double)(i + 1);
  for (size_t i = n; i > 1; i--) {
    size_t j = (size_t)bp_rng_below(rng, i);
    double swapped = x[i - 1];
    x[i - 1] = x[j];
    x[j] = swapped;
  }
  return 1;
}

static int generator_tostring(lua_State *L) {
  bp_state *s = bp_state_of(L);
  const generator *g = generator_at(L, s);
  if (g == NULL)
    lua_pushstring(L, bp_type_of(L, s, 1));
  else
    lua_pushfstring(L, "generator of seed %I", g->seed);
  return 1;
}

/* A method that does not exist: Lua's own message would not say what there is. */
static int unknown_method(lua_State *L) {
  return bp_raise(L, bp_state_of(L), "a generator has no method '%s': it has uniform, normal, bernoulli, permutation",
                  luaL_tolstring(L, 2, NULL));
}

void bp_open_rng(lua_State *L, bp_state *s) {
  static const luaL_Reg functions[] = {{"rng", new_generator}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
      {"uniform", uniform}, {"normal", normal}, {"bernoulli", bernoulli}, {"permutation", permutation}, {NULL, NULL}};
  static const luaL_Reg metamethods[] = {{"__tostring", generator_tostring}, {NULL, NULL}};
  static const luaL_Reg fallback[] = {{"__index", unknown_method}, {NULL, NULL}};
  bp_set_functions(L, s, functions);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->rng_metatable);
  bp_set_functions(L, s, metamethods);
  lua_newtable(L);
  bp_set_functions(L, s, methods);
  lua_newtable(L);
  bp_set_functions(L, s, fallback);
  lua_setmetatable(L, -2);
  lua_setfield(L, -2, "__index");
  lua_pushliteral(L, "generator");
  lua_setfield(L, -2, "__name");
  lua_pop(L, 1);
}
