/* Operations as Lua functions. The signature of a row is read once, when it is registered; a call then follows it:
 * arguments become operands and attributes, the tape layer does the rest. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "binding.h"

typedef enum parameter_kind {
  VALUE,
  VALUES,
  NUMBER,
  INTEGER,
  INDEX,
  SIZE,
  AXIS,
  DTYPE,
  INDICES,
  TARGET,
  ACTIVATION
} parameter_kind;

static const struct {
  const char *word, *expected;
} kinds[] = {
    [VALUE] = {"value", "a number, vector or matrix"},
    [VALUES] = {"values", "a list"},
    [NUMBER] = {"number", "a number"},
    [INTEGER] = {"integer", "an integer"},
    [INDEX] = {"index", "an integer"},
    [SIZE] = {"size", "a size from 0 to 2^31 - 1"},
    [AXIS] = {"axis", "axis 1 or 2"},
    [DTYPE] = {"dtype", "\"f64\" or \"f32\""},
    [INDICES] = {"indices", "an integer, or a list or vector of them"},
    [TARGET] = {"target", "a vector or matrix, or class numbers"},
    [ACTIVATION] = {"activation", "the name of an activation"},
};

enum { MAX_PARAMETERS = 8 };

typedef struct parameter {
  parameter_kind kind;
  bool optional;
  double fallback;
  char name[16];
} parameter;

/* A registered operation: what its functions have as an upvalue. First what a call of the usual kind looks at. */
typedef struct entry {
  bp_state *state;
  const bp_op *op;
  int count; /* of the parameters */
  bool has_attributes;
  bool plain; /* one result, of values only: the usual case, with a way of its own */
  const char *source;
  char name[64]; /* as users see it */
  parameter parameters[MAX_PARAMETERS];
} entry;

/* Upvalues. The metatable of variables is at hand, since nearly every call on a tape makes one. */
enum { ENTRY = 1, METATABLE, EVENT };

/* ---- signatures -------------------------------------------------------------------------------------------------- */

static const char *skip_spaces(const char *text) {
  return text + strspn(text, " ");
}

/* Reads `kind name`, `kind name?` or `kind name = number`; NULL if it is none of them. */
static const char *read_parameter(const char *text, parameter *p) {
  size_t word = strcspn(text, " ");
  bool known = false;
  for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++)
    if (strlen(kinds[k].word) == word && strncmp(kinds[k].word, text, word) == 0)
      p->kind = (parameter_kind)k, known = true;
  text = skip_spaces(text + word);
  size_t length = strcspn(text, " ?,=");
  if (!known || length == 0 || length >= sizeof p->name) return NULL;
  memcpy(p->name, text, length);
  p->name[length] = '\0';
  text += length;
  p->optional = *text == '?';
  p->fallback = p->kind == INDEX || p->kind == SIZE ? -1 : 0;
  text = skip_spaces(p->optional ? text + 1 : text);
  if (*text == '=') {
    char *end;
    p->fallback = strtod(text + 1, &end);
    p->optional = true;
    text = skip_spaces(end);
  }
  if (*text != ',' && *text != '\0') return NULL;
  return skip_spaces(*text == ',' ? text + 1 : text);
}

/* An attribute has a place for each of so many numbers and integers. */
static bool fits(const entry *e) {
  int numbers = 0, integers = 0, values = 0;
  for (int k = 0; k < e->count; k++) {
    parameter_kind kind = e->parameters[k].kind;
    if (kind == VALUE || kind == TARGET) values++;
    if (kind == VALUES && (e->op->flags & (BP_OP_CONTIGUOUS | BP_OP_PRODUCT)) != 0) return false;
    if (kind == NUMBER) numbers++;
    if (kind == INTEGER || kind == INDEX || kind == SIZE || kind == AXIS || kind == DTYPE || kind == ACTIVATION)
      integers++;
  }
  return numbers <= 2 && integers <= 3 && values <= 3 && e->op->result_count <= BP_MAX_RESULTS;
}

static bool read_signature(entry *e) {
  const char *text = skip_spaces(e->op->signature);
  e->plain = e->op->result_count <= 1;
  while (*text != '\0') {
    if (e->count == MAX_PARAMETERS) return false;
    parameter *p = &e->parameters[e->count++];
    text = read_parameter(text, p);
    if (text == NULL) return false;
    if (p->kind != VALUE && p->kind != VALUES) e->has_attributes = true;
    if (p->kind != VALUE) e->plain = false;
  }
  return fits(e);
}

/* ---- arguments --------------------------------------------------------------------------------------------------- */

/* What a call collects. The operands of a list stand in a userdata on the stack. */
typedef struct arguments {
  bp_operands operands;
  bp_array arrays[BP_FEW_OPERANDS];
  double few_numbers[BP_FEW_OPERANDS];
  bp_index nodes[BP_FEW_OPERANDS];
  bp_attributes attributes;
  size_t numbers, integers;
  bp_handle *held; /* the indices' storage */
  int then;        /* stack index of a function to apply to the result, or 0 */
  bp_box *box;
} arguments;

static __attribute__((cold)) int wrong(lua_State *L, bp_state *s, const entry *e, int index, const parameter *p) {
  const bool table = p->kind == VALUE && lua_istable(L, index);
  return bp_raise(L, s, "%s: argument %d (%s): expected %s, got %s%s", e->name, index, p->name, kinds[p->kind].expected,
                  bp_type_of(L, s, index),
                  table ? " (bp.vector and bp.matrix make arrays of lists, bp.map goes through a structure)" : "");
}

static __attribute__((cold)) int wrong_number(lua_State *L, bp_state *s, const entry *e, int index,
                                              const parameter *p) {
  return bp_raise(L, s, "%s: argument %d (%s): expected %s, got %s", e->name, index, p->name, kinds[p->kind].expected,
                  luaL_tolstring(L, index, NULL));
}

static void read_list(lua_State *L, bp_state *s, const entry *e, int index, arguments *a) {
  const size_t n = bp_check_list(L, s, index, e->name);
  if (n > BP_FEW_OPERANDS) bp_push_operands(L, n, &a->operands);
  for (size_t k = 0; k < n; k++) {
    lua_rawgeti(L, index, (lua_Integer)k + 1);
    if (!bp_read_pending(L, s, -1, e->name, &a->operands, k, &a->box))
      bp_raise(L, s, "%s: element %d of the list: expected a number, vector or matrix, got %s", e->name, (int)k + 1,
               bp_type_of(L, s, -1));
    lua_pop(L, 1);
  }
  a->operands.count = n;
}

/* A plain number, or the value of a tracked one: where it only chooses (an index, an axis, a size) the result does not
 * depend on it smoothly, and it takes no gradient. */
static bool read_number(lua_State *L, bp_state *s, int index, const char *name, double *value) {
  bp_single operand;
  bp_box *box = NULL;
  if (lua_type(L, index) != LUA_TNUMBER && bp_variable_at(L, s, index) == NULL) return false;
  if (!bp_read_single(L, s, index, name, &operand, &box) || operand.array.rank != 0) return false;
  *value = operand.number;
  return true;
}

/* The position of Lua, from 1, as ours, from 0. What is not an integer is an error. */
static int64_t to_position(lua_State *L, bp_state *s, const entry *e, int index, const parameter *p, double value) {
  if (!(value >= -0x1p53 && value <= 0x1p53) || floor(value) != value)
    bp_raise(L, s, "%s: argument %d (%s): expected integers, got %f", e->name, index, p->name, value);
  return (int64_t)value - 1;
}

/* The array at an index, or the value of a tracked one, which its tape keeps; rank 0 if there is none. */
static bp_array plain_array(lua_State *L, bp_state *s, int index, const char *name) {
  const bp_variable *variable = bp_variable_at(L, s, index);
  if (variable != NULL) {
    const bp_array *value = &bp_check_variable(L, s, variable, name)->tape.nodes[variable->node].value;
    bp_pending_compute(&s->cx, value);
    return *value;
  }
  return bp_handle_at(L, s, index) == NULL ? bp_shape_number() : bp_check_array(L, s, index, name)->array;
}

/* The storage belongs to a handle on the stack, so that an error leaves nothing behind. */
static void read_indices(lua_State *L, bp_state *s, const entry *e, int index, const parameter *p, arguments *a) {
  const bp_array array = plain_array(L, s, index, e->name);
  size_t n = 1;
  double single = 0;
  if (array.rank != 0) {
    if (array.rank != 1) wrong(L, s, e, index, p);
    n = array.rows;
  } else if (lua_istable(L, index)) {
    n = bp_check_list(L, s, index, e->name);
  } else if (!read_number(L, s, index, e->name, &single)) {
    wrong(L, s, e, index, p);
  }
  _Static_assert(sizeof(int64_t) == sizeof(double), "positions are kept in an f64 vector's storage");
  a->held = bp_push_new(L, s, bp_shape_vector(n, BP_F64));
  int64_t *positions = a->held->array.data;
  for (size_t k = 0; k < n; k++) {
    double value = single;
    if (array.rank != 0) {
      value = bp_load(&array, k, 0);
    } else if (lua_istable(L, index)) {
      lua_rawgeti(L, index, (lua_Integer)k + 1);
      if (!read_number(L, s, -1, e->name, &value))
        bp_raise(L, s, "%s: argument %d (%s): element %d: expected an integer, got %s", e->name, index, p->name,
                 (int)k + 1, bp_type_of(L, s, -1));
      lua_pop(L, 1);
    }
    positions[k] = to_position(L, s, e, index, p, value);
  }
  a->attributes.index_buffer = a->held->array.buffer;
  a->attributes.indices = positions;
  a->attributes.index_count = n;
}

/* A target of class numbers: a number, a list, or a vector where the logits are a batch. */
static bool is_classes(lua_State *L, bp_state *s, const entry *e, int index, const arguments *a) {
  const bp_array array = plain_array(L, s, index, e->name);
  if (array.rank != 0) return array.rank == 1 && a->operands.count > 0 && a->arrays[0].rank == 2;
  double number;
  return lua_istable(L, index) || read_number(L, s, index, e->name, &number);
}

static int64_t read_integer(lua_State *L, bp_state *s, const entry *e, int index, const parameter *p) {
  double value = 0;
  if (p->kind == DTYPE) {
    if (lua_type(L, index) != LUA_TSTRING) wrong(L, s, e, index, p);
    return (int64_t)bp_check_dtype(L, s, index, e->name) + 1;
  }
  if (!read_number(L, s, index, e->name, &value)) wrong(L, s, e, index, p);
  if (!(value >= -0x1p53 && value <= 0x1p53) || floor(value) != value) wrong_number(L, s, e, index, p);
  if (p->kind == SIZE && (value < 0 || value > (double)BP_MAX_ELEMENTS)) wrong_number(L, s, e, index, p);
  if (p->kind == AXIS && value != 1 && value != 2) wrong_number(L, s, e, index, p);
  return p->kind == INDEX ? (int64_t)value - 1 : (int64_t)value;
}

/* An activation that the row does not apply itself is applied to its result: the Lua side knows the function by its name,
 * or raises. */
static int64_t read_activation(lua_State *L, bp_state *s, int index, arguments *a) {
  int64_t number = lua_type(L, index) == LUA_TSTRING ? bp_activation_number(lua_tostring(L, index)) : 0;
  if (number != 0) return number;
  bp_push_function(L, s, "activation");
  lua_pushvalue(L, index);
  lua_call(L, 1, 1);
  a->then = lua_gettop(L);
  return 0;
}

/* An optional argument may be left out before a dtype: konst(s, n, "f32"). */
static bool is_left_out(lua_State *L, const entry *e, const parameter *p, int index) {
  if (lua_isnoneornil(L, index)) return true;
  return p->kind != DTYPE && e->parameters[e->count - 1].kind == DTYPE && lua_type(L, index) == LUA_TSTRING;
}

/* Reads one argument; false if it is absent, and then consumes nothing but a nil. */
static bool read_argument(lua_State *L, bp_state *s, const entry *e, const parameter *p, int index, arguments *a) {
  bool absent = p->optional && is_left_out(L, e, p, index);
  switch (p->kind) {
  case VALUE:
    if (!bp_read_pending(L, s, index, e->name, &a->operands, a->operands.count, &a->box)) wrong(L, s, e, index, p);
    a->operands.count++;
    return true;
  case VALUES:
    if (!lua_istable(L, index)) wrong(L, s, e, index, p);
    read_list(L, s, e, index, a);
    return true;
  case NUMBER:
    if (!absent && lua_type(L, index) != LUA_TNUMBER) wrong(L, s, e, index, p); /* also a tracked one */
    a->attributes.number[a->numbers++] = absent ? p->fallback : lua_tonumber(L, index);
    return !absent;
  case INDICES: read_indices(L, s, e, index, p, a); return true;
  case TARGET:
    if (is_classes(L, s, e, index, a))
      read_indices(L, s, e, index, p, a);
    else if (bp_read_pending(L, s, index, e->name, &a->operands, a->operands.count, &a->box))
      a->operands.count++;
    else
      wrong(L, s, e, index, p);
    return true;
  case ACTIVATION: a->attributes.integer[a->integers++] = absent ? 0 : read_activation(L, s, index, a); return !absent;
  default:
    a->attributes.integer[a->integers++] = absent ? (int64_t)p->fallback : read_integer(L, s, e, index, p);
    return !absent;
  }
}

static void read_arguments(lua_State *L, bp_state *s, const entry *e, int given, arguments *a) {
  int index = 1;
  if (given < e->count) lua_settop(L, e->count); /* what is absent is nil, whatever is pushed later */
  a->operands = (bp_operands){0, a->arrays, a->few_numbers, a->nodes};
  a->numbers = a->integers = 0;
  a->then = 0;
  a->box = NULL;
  a->held = NULL;
  if (e->has_attributes) a->attributes = (bp_attributes){.index_buffer = NULL};
  for (int k = 0; k < e->count; k++) {
    bool present = read_argument(L, s, e, &e->parameters[k], index, a);
    if (present || lua_isnil(L, index)) index++;
  }
  if (given >= index)
    bp_raise(L, s, "%s: expected at most %d argument%s, got %d", e->name, index - 1, index == 2 ? "" : "s", given);
}

/* ---- calls ------------------------------------------------------------------------------------------------------- */

void bp_trace(lua_State *L, bp_state *s, bp_box *box, bp_index node) {
  bp_push_box_table(L, box);
  if (lua_getfield(L, -1, "lines") == LUA_TTABLE) {
    bp_push_position(L, s);
    lua_rawseti(L, -2, (lua_Integer)node + 1);
  }
  lua_pop(L, 2);
}

static bool all_numbers(const arguments *a) {
  for (size_t k = 0; k < a->operands.count; k++)
    if (a->operands.array[k].rank != 0) return false;
  return true;
}

/* Plain results that may be arrays get their handles first: once there is an array, nothing may fail. */
static bool may_give_arrays(const entry *e, const arguments *a) {
  const bp_op *op = e->op;
  if (a->box != NULL && op->backward != NULL) return false;
  if ((op->flags & BP_OP_TO_NUMBER) != 0) return e->has_attributes && a->attributes.integer[0] != 0;
  return (op->flags & (BP_OP_ELEMENTWISE | BP_OP_FORMULA)) == 0 || !all_numbers(a);
}

/* A view of a read-only array is one, too. */
static bool is_window_of_read_only(lua_State *L, bp_state *s, const entry *e, const bp_array *result) {
  if (result->buffer->references == 1) return false;
  for (int k = 1; k <= e->count; k++) {
    const bp_handle *handle = bp_handle_at(L, s, k);
    if (handle != NULL && handle->read_only && handle->array.buffer == result->buffer) return true;
  }
  return false;
}

/* Whatever asks Lua for memory may run finalizers, and these may release an array or close a tape that an operand was
 * read from. So operands are read again where that has happened; but not for ever. */
enum { MOST_READINGS = 100 };

static bool read_again(lua_State *L, bp_state *s, const entry *e, int readings) {
  if (readings == MOST_READINGS) bp_raise(L, s, "%s: finalizers release arrays all the time", e->name);
  return true;
}

/* A value that is none: of an operator perhaps a record, which has its own say. */
static __attribute__((cold)) int refuse(lua_State *L, bp_state *s, const entry *e, int index, bool is_operator) {
  int other = lua_istable(L, 1) ? 1 : lua_istable(L, 2) ? 2 : 0;
  if (is_operator && other != 0 && luaL_getmetafield(L, other, lua_tostring(L, lua_upvalueindex(EVENT))) != LUA_TNIL) {
    lua_insert(L, 1);
    lua_settop(L, 1 + e->count);
    lua_call(L, e->count, 1);
    return 1;
  }
  return wrong(L, s, e, index, &e->parameters[index - 1]);
}

/* One result of values only. */
static int call_plain(lua_State *L, bp_state *s, const entry *e, bool is_operator) {
  const bp_op *op = e->op;
  arguments a;
  bp_outcome outcome;
  bp_handle *handle = NULL;
  bp_tape *tape;
  bp_status status = BP_NOMEM;
  a.operands = (bp_operands){(size_t)e->count, a.arrays, a.few_numbers, a.nodes};
  for (int readings = 0; read_again(L, s, e, readings); readings++) {
    const uint32_t epoch = s->epoch;
    a.box = NULL;
    for (int k = 0; k < e->count; k++)
      if (!bp_read_in_line(L, s, k + 1, e->name, &a.operands, (size_t)k, &a.box))
        return refuse(L, s, e, k + 1, is_operator);
    tape = a.box == NULL ? NULL : &a.box->tape;
    if (handle == NULL && may_give_arrays(e, &a)) {
      bp_report(L, s);
      handle = bp_push_handle(L, s);
    }
    if (s->epoch != epoch) continue;
    status = bp_apply(&s->cx, tape, op, &a.operands, NULL, &outcome);
    if (status != BP_NOMEM || readings > 0) break;
    bp_make_room(L, s);
  }
  if (status != BP_OK) bp_raise_status(L, s, status);
  if (outcome.node != BP_NONE) {
    bp_reserve_call(L);
    bp_push_variable_with(L, s, a.box, outcome.node, lua_upvalueindex(METATABLE));
    if (s->cx.timing || tape->check_finite) bp_trace(L, s, a.box, outcome.node);
  } else if (outcome.array.rank == 0) {
    lua_pushnumber(L, outcome.number);
  } else {
    bp_hold(s, handle, &outcome.array);
    handle->read_only = is_window_of_read_only(L, s, e, &outcome.array);
  }
  return 1;
}

static int call(lua_State *L, bp_state *s, const entry *e, int given) {
  const bp_op *op = e->op;
  bp_outcome outcomes[BP_MAX_RESULTS];
  arguments a;
  bp_tape *tape;
  bp_status status = BP_NOMEM;
  int results = op->result_count == 0 ? 1 : (int)op->result_count, first = 0;
  bool handles = false;
  for (int readings = 0; read_again(L, s, e, readings); readings++) {
    const uint32_t epoch = s->epoch;
    lua_settop(L, given);
    read_arguments(L, s, e, given, &a);
    handles = may_give_arrays(e, &a);
    if (handles) {
      bp_report(L, s);
      for (int k = 0; k < results; k++) bp_push_handle(L, s);
    }
    if (s->epoch != epoch) continue;
    first = lua_gettop(L) - results + 1;
    tape = a.box == NULL ? NULL : &a.box->tape;
    status = bp_apply(&s->cx, tape, op, &a.operands, e->has_attributes ? &a.attributes : NULL, outcomes);
    if (status != BP_NOMEM || readings > 0) break;
    bp_make_room(L, s);
  }
  if (status != BP_OK) bp_raise_status(L, s, status);
  if (a.held != NULL) bp_array_release(&s->cx, &a.held->array);
  bp_reserve_call(L);
  for (int k = 0; k < results; k++) {
    const bp_outcome *outcome = &outcomes[k];
    if (outcome->node == BP_NONE && outcome->array.rank != 0) {
      bp_handle *handle = lua_touserdata(L, first + k);
      bp_hold(s, handle, &outcome->array);
      handle->read_only = is_window_of_read_only(L, s, e, &outcome->array);
      continue;
    }
    if (outcome->node != BP_NONE)
      bp_push_variable_with(L, s, a.box, outcome->node, lua_upvalueindex(METATABLE));
    else
      lua_pushnumber(L, outcome->number);
    if (handles) lua_replace(L, first + k);
  }
  if (outcomes[0].node != BP_NONE && (s->cx.timing || tape->check_finite)) bp_trace(L, s, a.box, outcomes[0].node);
  if (a.then != 0) {
    lua_pushvalue(L, a.then);
    lua_insert(L, -2);
    lua_call(L, 1, 1);
  }
  return results;
}

static int call_op(lua_State *L) {
  const entry *e = lua_touserdata(L, lua_upvalueindex(ENTRY));
  int given = lua_gettop(L);
  return e->plain && given == e->count ? call_plain(L, e->state, e, false) : call(L, e->state, e, given);
}

/* An arithmetic metamethod. Lua gives a unary one its operand twice. */
static int call_operator(lua_State *L) {
  const entry *e = lua_touserdata(L, lua_upvalueindex(ENTRY));
  if (e->count == 1) lua_settop(L, 1);
  return call_plain(L, e->state, e, true);
}

/* ---- registration ------------------------------------------------------------------------------------------------ */

void bp_push_op(lua_State *L, bp_state *s, const bp_op *op, const char *source) {
  if (op->name == NULL || op->signature == NULL || op->shape == NULL || op->forward == NULL)
    bp_raise(L, s, "backprop: an operation needs a name, a signature, shape and forward");
  entry *e = lua_newuserdatauv(L, sizeof *e, 0);
  *e = (entry){.state = s, .op = op, .source = source};
  size_t length = strlen(op->name);
  const char *prefix = strchr(op->name, '.') == NULL ? "bp." : "";
  if (length + strlen(prefix) >= sizeof e->name || !read_signature(e))
    bp_raise(L, s, "backprop: operation %s: bad name or signature: %s", op->name, op->signature);
  memcpy(e->name, prefix, strlen(prefix));
  memcpy(e->name + strlen(prefix), op->name, length + 1);
  lua_getfield(L, LUA_REGISTRYINDEX, "backprop.entries");
  lua_pushvalue(L, -2);
  lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1); /* keeps the entry, and lists it */
  lua_pop(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->variable_metatable);
  lua_pushcclosure(L, call_op, METATABLE);
}

static void set_text(lua_State *L, const char *key, const char *text) {
  lua_pushstring(L, text == NULL ? "" : text);
  lua_setfield(L, -2, key);
}

/* core.rows(): what bp.ops() is made from. */
static int list_rows(lua_State *L) {
  lua_newtable(L);
  lua_getfield(L, LUA_REGISTRYINDEX, "backprop.entries");
  lua_Integer count = (lua_Integer)lua_rawlen(L, -1);
  for (lua_Integer k = 1; k <= count; k++) {
    lua_rawgeti(L, -1, k);
    const entry *e = lua_touserdata(L, -1);
    lua_pop(L, 1);
    int inputs = 0;
    bool variadic = false;
    for (int p = 0; p < e->count; p++) {
      inputs += e->parameters[p].kind == VALUE || e->parameters[p].kind == TARGET;
      variadic = variadic || e->parameters[p].kind == VALUES;
    }
    lua_newtable(L);
    set_text(L, "name", e->op->name);
    set_text(L, "signature", e->op->signature);
    set_text(L, "doc", e->op->doc);
    set_text(L, "formula", e->op->formula);
    set_text(L, "samples", e->op->samples);
    set_text(L, "source", e->source);
    if (variadic)
      lua_pushliteral(L, "list");
    else
      lua_pushinteger(L, inputs);
    lua_setfield(L, -2, "arity");
    lua_pushboolean(L, e->op->backward != NULL);
    lua_setfield(L, -2, "differentiable");
    lua_rawseti(L, -3, k);
  }
  lua_pop(L, 1);
  return 1;
}

static void set_operator(lua_State *L, int metatable, const char *event, const char *name) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, metatable);
  lua_getfield(L, -2, name); /* the operation's function, whose upvalues serve here too */
  lua_getupvalue(L, -1, ENTRY);
  lua_getupvalue(L, -2, METATABLE);
  lua_pushstring(L, event);
  lua_pushcclosure(L, call_operator, EVENT);
  lua_setfield(L, -3, event);
  lua_pop(L, 2);
}

void bp_open_ops(lua_State *L, bp_state *s) {
  static const struct {
    const char *event, *name;
  } operators[] = {{"__add", "add"}, {"__sub", "sub"}, {"__mul", "mul"},
                   {"__div", "div"}, {"__pow", "pow"}, {"__unm", "neg"}};
  lua_newtable(L);
  lua_setfield(L, LUA_REGISTRYINDEX, "backprop.entries");
  for (size_t f = 0; bp_families[f] != NULL; f++)
    for (size_t k = 0; k < bp_families[f]->count; k++) {
      const bp_op *op = &bp_families[f]->rows[k];
      bp_push_op(L, s, op, bp_families[f]->source);
      lua_setfield(L, -2, op->name);
    }
  for (size_t k = 0; k < sizeof operators / sizeof operators[0]; k++) {
    set_operator(L, s->array_metatable, operators[k].event, operators[k].name);
    set_operator(L, s->variable_metatable, operators[k].event, operators[k].name);
  }
  static const luaL_Reg functions[] = {{"rows", list_rows}, {NULL, NULL}};
  bp_set_functions(L, s, functions);
}
