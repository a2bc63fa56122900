/* The binding: the only code that knows Lua. Lua errors are raised here and nowhere below; nothing of the core is
 * half done when one is, and every buffer has an owner before anything that can raise.
 *
 * Three userdata: an array handle (one reference to a buffer, with __gc), a variable (a node of a tape, without __gc),
 * and a tape handle. They are told apart by their first word, an address inside the state, so that an exchanged
 * metatable or a foreign userdata is an error and never a crash. */
#ifndef BP_BINDING_BINDING_H
#define BP_BINDING_BINDING_H

#include <lauxlib.h>
#include <lua.h>

#include "../tape/tape.h"

/* One for each Lua state: a userdata kept in the registry. First what every operation looks at (see bp_context). */
typedef struct bp_state {
  char array_mark, variable_mark, tape_mark, rng_mark; /* their addresses are the first words of the userdata */
  int array_metatable, variable_metatable;             /* references in the registry, and so on below */
  uint32_t epoch;        /* counts arrays released and tapes closed: what finalizers can do to operands */
  int large_count;       /* the number of large arrays that the collector has not been told about */
  ptrdiff_t large_bytes; /* in these */
  ptrdiff_t small_bytes; /* in small ones */
  size_t least_live;     /* the fewest bytes in arrays since the last full collection of ours */
  size_t call_garbage;   /* bytes that calls have left in Lua's heap since the last cycle of ours */
  uint32_t scans;        /* counts pullbacks whose gradients were looked through */
  size_t steps_left;     /* of a cycle of ours, at most */
  size_t heap_before, handed_out_before; /* Lua's heap when it began; all arrays until the last one */
  bp_context cx;
  int tape_metatable, rng_metatable, methods;
  int functions;           /* what the Lua side gives back to us, by name */
  int known;               /* what it knows of metatables */
  int tape_handles;        /* those in no use */
  int tapes;               /* the table that keeps the tapes' memory */
  struct bp_box *free_box; /* tapes in no use */
  char source_prefix[256]; /* of our own Lua files, to find the user's line */
} bp_state;

typedef struct bp_handle {
  const void *mark;
  bp_array array; /* of rank 0 when released or given away */
  uint8_t read_only;
  uint8_t given;    /* taken over by a gradient: gone */
  uint8_t repeated; /* among the gradients of the pullback number `scan` */
  uint32_t scan;
} bp_handle;

/* A tape and what the binding keeps with it. Its memory lives as long as the state. */
typedef struct bp_box {
  bp_tape tape;
  bool thorough;            /* an argument has a branch at two paths, or many */
  bool named;               /* there is something in the table by name: objects, their gradients, lines */
  int table;                /* in the registry, or LUA_NOREF: the pullbacks and rows of bp.op, and what has a name */
  uint32_t last_generation; /* a box whose generations are used up is not used again */
  struct bp_box *next_free;
} bp_box;

typedef struct bp_variable {
  const void *mark;
  bp_box *box;
  uint32_t generation;
  bp_index node;
} bp_variable;

typedef struct bp_tape_handle {
  const void *mark;
  bp_box *box;
  uint32_t generation;
} bp_tape_handle;

/* The state that a function of ours was made with: upvalue 1. */
static inline bp_state *bp_state_of(lua_State *L) {
  return lua_touserdata(L, lua_upvalueindex(1));
}

/* ---- errors.c ---- */

/* Raises with the position of the user's own line: the first level of the stack outside our Lua files. */
int bp_raise(lua_State *L, bp_state *s, const char *format, ...) __attribute__((cold));
/* Pushes the message of a BP_INVALID, which is gone then. */
const char *bp_push_message(lua_State *L, bp_state *s);
/* Raises what a status other than BP_OK says. For BP_RAISED the error object is on the top of the stack. */
void bp_raise_status(lua_State *L, bp_state *s, bp_status status) __attribute__((cold));
/* Pushes "file:line: " of the user's line, or "". */
void bp_push_position(lua_State *L, bp_state *s);
/* "nil", "string", "vector", "tracked number"..., for messages. */
const char *bp_type_of(lua_State *L, bp_state *s, int index);
/* The number of an argument as the user counts: of a method ("x:fill") the object before the colon is none. */
int bp_argument_number(const char *name, int index);
/* Raises if more arguments were given. */
void bp_check_count(lua_State *L, bp_state *s, int most, const char *name);
/* After the allocator refused: gives the pool and the lists of tapes in no use back, and collects. */
void bp_make_room(lua_State *L, bp_state *s) __attribute__((cold));
/* Makes one call, so that the next at this depth needs no memory. Lua drops a finalizer that it has no memory to call,
 * and an array's storage would stay until the state ends: so before whatever may set the collector going. What was
 * reserved stays so until the function of ours returns: the collector gives up only what is deeper. */
void bp_reserve_call(lua_State *L);

/* Room for so many more values on the Lua stack; raises that memory has run out, or that the stack is full. */
void bp_check_stack(lua_State *L, bp_state *s, int values, const char *name);

/* Runs an expression that gives a bp_status, once more after making room, and raises what is left. */
#define BP_TRY(L, s, expression)                                         \
  do {                                                                   \
    bp_status status_ = (expression);                                    \
    if (status_ == BP_NOMEM) bp_make_room(L, s), status_ = (expression); \
    if (status_ != BP_OK) bp_raise_status(L, s, status_);                \
  } while (0)

/* ---- handles.c ---- */

/* The block of a full userdata that is large enough for a mark, or NULL. A light one has no length. */
static inline void *bp_block_at(lua_State *L, int index) {
  void *block = lua_touserdata(L, index);
  return block != NULL && lua_rawlen(L, index) >= sizeof(void *) ? block : NULL;
}

static inline bool bp_has_mark(const void *block, const void *mark) {
  return *(const void *const *)block == mark;
}

bool bp_is_ours(lua_State *L, bp_state *s, int index);             /* an array or a variable */
bp_handle *bp_handle_at(lua_State *L, bp_state *s, int index);     /* NULL if there is none */
bp_variable *bp_variable_at(lua_State *L, bp_state *s, int index); /* NULL if there is none */
/* The handle of an array in use; raises "name: argument k: ..." otherwise. */
bp_handle *bp_check_array(lua_State *L, bp_state *s, int index, const char *name);
/* The same of one that is to be written now: what waits is computed before. */
bp_handle *bp_check_writable(lua_State *L, bp_state *s, int index, const char *name);
/* The same of a parameter of a step, which is written later: what waits may go on waiting. */
bp_handle *bp_check_parameter(lua_State *L, bp_state *s, int index, const char *name);
/* Raise what is wrong with an array that was released, given away or outlives the state; and with a variable whose call
 * has ended, or beside which there is one of another call's. */
int bp_refuse_array(lua_State *L, bp_state *s, const bp_handle *handle, const char *name) __attribute__((cold));
int bp_refuse_variable(lua_State *L, bp_state *s, const bp_variable *variable, const bp_box *other, const char *name)
    __attribute__((cold));

static inline void bp_check_usable(lua_State *L, bp_state *s, const bp_handle *handle, const char *name) {
  if (handle->array.rank == 0 || s->cx.closed) bp_refuse_array(L, s, handle, name);
}

static inline bool bp_is_recording(const bp_variable *variable) {
  return variable->generation == variable->box->tape.generation && !variable->box->tape.sealed;
}

/* The box of a variable whose call is still recording, or raises. */
static inline bp_box *bp_check_variable(lua_State *L, bp_state *s, const bp_variable *variable, const char *name) {
  if (!bp_is_recording(variable)) bp_refuse_variable(L, s, variable, NULL, name);
  return variable->box;
}

/* Pushes a handle without storage; the second where a call has been reserved. */
bp_handle *bp_push_handle(lua_State *L, bp_state *s);
bp_handle *bp_push_reserved_handle(lua_State *L, bp_state *s);
/* Pushes a new array, not filled. */
bp_handle *bp_push_new(lua_State *L, bp_state *s, bp_array shape);
/* Gives a handle without storage an array with its reference: cannot fail, so push the handle first. */
void bp_hold(bp_state *s, bp_handle *handle, const bp_array *array);
/* Pushes a handle that shares the array. */
bp_handle *bp_push_shared(lua_State *L, bp_state *s, const bp_array *array, bool read_only);
/* Pushes a handle that shares the array at an index, so that it stays whatever finalizers release. */
const bp_array *bp_keep_array(lua_State *L, bp_state *s, int index, const char *name);
void bp_push_variable(lua_State *L, bp_state *s, bp_box *box, bp_index node);
/* The same by one who has their metatable at an index, and a call reserved. */
void bp_push_variable_with(lua_State *L, bp_state *s, bp_box *box, bp_index node, int metatable);

/* Reads a number, array or variable as operand k; false if the value is none. *box is set by the first variable and
 * compared with that of others. */
bool bp_read_operand(lua_State *L, bp_state *s, int index, const char *name, bp_operands *operands, size_t k,
                     bp_box **box);
/* The same for operands of bp_apply, which may be pending; and in line, for where every operation comes through. */
bool bp_read_pending(lua_State *L, bp_state *s, int index, const char *name, bp_operands *operands, size_t k,
                     bp_box **box);

static inline bool bp_read_in_line(lua_State *L, bp_state *s, int index, const char *name, bp_operands *operands,
                                   size_t k, bp_box **box) {
  const void *block = bp_block_at(L, index);
  bp_array *array = &operands->array[k];
  operands->node[k] = BP_NONE;
  if (block == NULL) {
    if (lua_type(L, index) != LUA_TNUMBER) return false;
    operands->number[k] = lua_tonumber(L, index);
    *array = bp_number_at(&operands->number[k]);
  } else if (bp_has_mark(block, &s->variable_mark)) {
    const bp_variable *variable = block;
    if (!bp_is_recording(variable) || (*box != NULL && *box != variable->box))
      bp_refuse_variable(L, s, variable, *box, name);
    *box = variable->box;
    const bp_node *node = &variable->box->tape.nodes[variable->node];
    if (node->object) return false;
    operands->node[k] = variable->node;
    *array = node->value;
    if (array->rank != 0) return true;
    operands->number[k] = node->number;
    array->data = &operands->number[k];
  } else if (bp_has_mark(block, &s->array_mark)) {
    bp_check_usable(L, s, block, name);
    *array = ((const bp_handle *)block)->array;
  } else {
    return false;
  }
  return true;
}

/* Pushes a userdata with room for so many operands. */
void bp_push_operands(lua_State *L, size_t count, bp_operands *operands);

/* One operand: `list` is of this one. It must not be copied, since the list and a number's array point into it. */
typedef struct bp_single {
  bp_operands list;
  bp_array array;
  double number;
  bp_index node;
} bp_single;

bool bp_read_single(lua_State *L, bp_state *s, int index, const char *name, bp_single *single, bp_box **box);

/* ---- collector.c ---- */

/* A handle has brought an array, which the collector does not see (count 1), or has given it back (-1). */
void bp_count_unseen(bp_state *s, const bp_array *array, int count);
/* Tells the collector of bytes it cannot see, if they are many, and has it collect all where arrays have grown too far.
 * May run finalizers. */
void bp_report(lua_State *L, bp_state *s);
/* Storage for a large array will be needed: where the pool has none, the collector may find some among what it has not
 * been told about. May run finalizers. */
void bp_report_before(lua_State *L, bp_state *s, const bp_array *shape);
/* A call ends that has recorded this; and one begins, which may run finalizers. */
void bp_count_call(bp_state *s, const bp_tape *tape);
void bp_collect_calls(lua_State *L, bp_state *s);

/* ---- the families; each adds its functions to the table on the top of the stack ---- */

void bp_open_arrays(lua_State *L, bp_state *s);
void bp_open_variables(lua_State *L, bp_state *s);
void bp_open_ops(lua_State *L, bp_state *s);
void bp_open_tapes(lua_State *L, bp_state *s);
void bp_open_rng(lua_State *L, bp_state *s);
void bp_open_structures(lua_State *L, bp_state *s); /* after bp_open_tapes */
void bp_open_custom(lua_State *L, bp_state *s);
void bp_open_inplace(lua_State *L, bp_state *s);
void bp_open_bytes(lua_State *L, bp_state *s);

/* luaL_setfuncs with the state as the upvalue. */
void bp_set_functions(lua_State *L, bp_state *s, const luaL_Reg *functions);
/* Pushes a function of the Lua side by the name that it was given to core.set_functions with. */
void bp_push_function(lua_State *L, bp_state *s, const char *name);

/* Pushes the Lua function of a row. Raises on a malformed row. */
void bp_push_op(lua_State *L, bp_state *s, const bp_op *op, const char *source);
/* Notes the line of the user's script that recorded a node, where its tape keeps lines. */
void bp_trace(lua_State *L, bp_state *s, bp_box *box, bp_index node);

/* Whether a dtype name stands at an index (absent: f64); raises on another string. */
bp_dtype bp_check_dtype(lua_State *L, bp_state *s, int index, const char *name);
/* The length of the table at an index, which must be a list: with the keys 1..n and no others but the n of
 * table.pack. */
size_t bp_check_list(lua_State *L, bp_state *s, int index, const char *name);
/* A size from 0 to 2^31 - 1; raises otherwise. */
size_t bp_check_size(lua_State *L, bp_state *s, int index, const char *name);
/* An integer, also given as a float; false if the value is none. */
bool bp_to_integer(lua_State *L, int index, lua_Integer *value);

/* Sizes n [, m] [, dtype] from an argument on. */
bp_array bp_check_shape(lua_State *L, bp_state *s, int index, const char *name);
/* __eq of arrays and variables. */
int bp_equal(lua_State *L);
/* Pushes shape, dtype and values, shortened. */
void bp_push_text(lua_State *L, const bp_array *x);

/* ---- module.c ---- */

/* `require "backprop.core"`. */
int luaopen_backprop_core(lua_State *L);

/* ---- tapes.c ---- */

/* The box of the open tape at stack index 1; raises if it is none. */
bp_box *bp_check_tape(lua_State *L, bp_state *s);
/* Pushes the table of an open tape. */
void bp_push_box_table(lua_State *L, bp_box *box);
/* Notes the Lua object at the top of the stack, which stays, as the value of a node. */
void bp_keep_object(lua_State *L, bp_box *box, bp_index node);
/* Pushes the Lua object that is the value of a node. */
void bp_push_object(lua_State *L, bp_box *box, bp_index node);
/* Adds the Lua object at the top of the stack, which is popped, to the gradient of a node. */
void bp_add_object(lua_State *L, bp_state *s, bp_box *box, bp_index node);

/* Raises unless the value at an index can be the leaf of that number, from 1: a number, an array of the same shape and
 * dtype (or released since), an object. */
void bp_check_leaf(lua_State *L, bp_state *s, const bp_box *box, size_t number, int index, const char *name);
int bp_refuse_change(lua_State *L, bp_state *s, const char *name) __attribute__((cold));

/* What is done with one leaf, at the top of the stack, which stays. Each pushes one value: */
/* An instance as a variable. */
void bp_track_object(lua_State *L, bp_state *s, bp_box *box);
/* The gradient of a leaf by its number from 0, the caller's own; nil for an instance that nothing has reached. */
void bp_push_gradient(lua_State *L, bp_state *s, bp_box *box, bp_index leaf);
/* The plain value of a result, for the caller to keep: a copy only where others have the storage. */
void bp_push_outcome(lua_State *L, bp_state *s, bp_box *box, const char *name);

/* ---- variables.c ---- */

/* Pushes the plain value of the leaf at the top of the stack; an array shares storage and is read-only. A call has been
 * reserved. */
void bp_push_value(lua_State *L, bp_state *s, const char *name);

#endif
