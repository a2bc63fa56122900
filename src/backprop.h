/* lua-backprop: the only installed header.
 *
 * It holds what an operation written in C sees (arrays, calls, rows) and what a host or another rock calls (the
 * table `bp_api`). Built-in operations are written against the same types, so that yours have the same powers.
 *
 * A second shared object cannot link to our symbols (Lua loads modules with RTLD_LOCAL): include <lua.h> and
 * <lauxlib.h> before this header and ask `bp_get_api(L)` for the table of function pointers. A host that links
 * libbackprop calls `bp_preload(L)` first; the two are at the end. */
#ifndef BACKPROP_H
#define BACKPROP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BP_API_VERSION 2

#ifdef __cplusplus
extern "C" {
#endif

struct lua_State;

/* What every function of the core and every rule returns. The message of anything but BP_OK is set with `fail`. */
typedef enum bp_status {
  BP_OK = 0,
  BP_NOMEM,   /* the state's allocator refused */
  BP_INVALID, /* a wrong shape, dtype, index or size: the message says which */
  BP_RAISED   /* a Lua callback raised: its error object is kept by the binding */
} bp_status;

typedef enum bp_dtype { BP_F64 = 0, BP_F32 = 1 } bp_dtype;

typedef struct bp_context bp_context; /* one for each Lua state: allocator, pool, counters, message */
typedef struct bp_buffer bp_buffer;   /* reference-counted, versioned storage */

/* A window over a buffer. Element (i, j), counted from 0, stands at data[i * stride + j]: the elements of a row are
 * adjacent. A vector of n elements has rows = n and cols = 1; it is contiguous when stride is 1. A number has rank 0,
 * rows = cols = stride = 1, no buffer, and is always a double. */
typedef struct bp_array {
  void *data;
  bp_buffer *buffer;
  size_t rows, cols, stride;
  uint8_t rank;
  uint8_t dtype;
} bp_array;

/* A gradient not multiplied out: op(left) op(right), where op transposes if asked; two vectors stand for left right'. */
typedef struct bp_factors {
  bp_array left, right;
  bool left_transposed, right_transposed;
} bp_factors;

/* Where a rule writes the cotangent of one input: to = accumulate * to + contribution, where accumulate is 0 (what
 * stands there must not be read) or 1. Nothing is to be written when it is not wanted. Where `factors` is not NULL a
 * product may hand over its two factors instead of writing (it sets factors->left.data). */
typedef struct bp_gradient {
  bp_array to;
  bool wanted;
  bool accumulate;
  bp_factors *factors;
} bp_gradient;

/* What a call carries beside its differentiable inputs. Filled from the signature's parameters in order: numbers into
 * `number`, integers, axes and sizes into `integer` (see bp_op), a list of indices (0-based here)
 * into `indices`. A rule may ask for one array that lives from forward to backward by shaping `saved`. */
typedef struct bp_attributes {
  double number[2];
  int64_t integer[3];
  const int64_t *indices;
  size_t index_count;
  bp_buffer *index_buffer;
  bp_array saved;
} bp_attributes;

typedef struct bp_op bp_op;

typedef struct bp_call {
  bp_context *cx;
  const bp_op *op;
  size_t input_count, result_count;
  bp_array *input;
  bp_array *result;          /* shaped by `shape`, filled by `forward` */
  const bp_array *cotangent; /* one a result; data is NULL where none arrived */
  bp_gradient *gradient;     /* one an input */
  bp_attributes *attributes;
  void *host; /* the lua_State that runs the call */
  /* backward may write over the first cotangent: nobody else has it, and it is not the destination of an input */
  bool cotangent_free;
} bp_call;

enum {
  /* backward writes its destinations one after another in input order, each whole before the next: the engine may
   * then hand out destinations that overlap (f(x, x)). Without it they never do. */
  BP_OP_SEQUENTIAL = 1,
  /* backward is element-wise: it reads a cotangent's element before it writes the same element of a destination of the
   * same shape, so that the cotangent's own storage may be the destination of the last input that wants one. */
  BP_OP_ELEMENTWISE = 2,
  /* vectors whose elements are not adjacent (a column of a matrix) are copied first: inputs, results, cotangents and
   * destinations of rank 1 all have a stride of 1 */
  BP_OP_CONTIGUOUS = 4,
  /* a product: the gradient of each matrix is handed over as factors wherever `factors` is not NULL */
  BP_OP_PRODUCT = 8,
  /* backward reads neither inputs nor results: they may be changed in place after the call */
  BP_OP_VALUES_UNREAD = 16
};

/* One row per operation. `signature` declares the Lua arguments, separated by commas, each `kind name`:
 *   value x      a number, vector or matrix, plain or tracked: the next input
 *   values list  a Lua list of them: all remaining inputs
 *   number a     a plain number into attributes->number; `number a = 0.01` has a default
 *   integer n    a plain integer into attributes->integer
 *   index i      a 1-based position into attributes->integer, there 0-based
 *   size n       an integer from 0 to 2^31 - 1 into attributes->integer
 *   axis a       1 or 2 into attributes->integer
 *   dtype d      "f64" or "f32" into attributes->integer, as a bp_dtype plus 1
 *   indices i    a 1-based integer, or a list or vector of them, into attributes->indices, there 0-based
 *   target t     the next input, or class numbers into attributes->indices
 *   activation a the name of an element-wise operation into attributes->integer (for `linear`)
 * One whose name ends in `?` may be absent: it is then -1 (index, size) or 0 (the others).
 *
 * A result is shaped by `shape`; where it shares an input's buffer it is a view, and neither rule is called. Without
 * `backward` the results are plain: nothing is recorded. A name without a dot is shown to users as `bp.name`.
 * `samples` is a Lua expression, a list of argument lists, with `bp` in scope: { {0.5}, {bp.vector{1, 2}} }. */
struct bp_op {
  const char *name;
  const char *signature;
  const char *doc;
  const char *formula;
  const char *samples;
  size_t result_count; /* 0 means 1 */
  unsigned flags;
  unsigned passes;  /* a bit an input: where it has the result's shape, its cotangent is the result's own */
  const void *data; /* the row's own */
  bp_status (*shape)(bp_call *call);
  bp_status (*forward)(bp_call *call);
  bp_status (*backward)(bp_call *call);
  /* For an operation that reads a part of its one input: that part. Its gradient is then a window of the input's, and
   * the destination that backward gets is of this shape. */
  bp_array (*part)(const bp_call *call);
};

/* The functions other shared objects may call. The table only grows: a larger version has the smaller one's fields. It
 * is one for all Lua states, and const. Those that take a state need a few free slots of its stack, and raise where it
 * has not loaded backprop. */
typedef struct bp_api {
  int version;
  /* Pushes the operation as a Lua function. `op` must outlive the state. Raises on a malformed row. */
  void (*register_op)(struct lua_State *L, const bp_op *op);
  /* Sets the status message of `call` and returns BP_INVALID. */
  bp_status (*fail)(bp_call *call, const char *format, ...);
  /* Shapes an array without storage, for `shape` rules. */
  bp_array (*vector)(size_t n, bp_dtype dtype);
  bp_array (*matrix)(size_t rows, size_t cols, bp_dtype dtype);
  bp_array (*number)(void);
  /* The array at a stack index: false if there is none. Valid while the Lua value is reachable and not released. */
  bool (*to_array)(struct lua_State *L, int index, bp_array *array);
  /* Pushes a new array, not filled, and writes its window to *array. Raises when memory runs out. */
  void (*push_vector)(struct lua_State *L, size_t n, bp_dtype dtype, bp_array *array);
  void (*push_matrix)(struct lua_State *L, size_t rows, size_t cols, bp_dtype dtype, bp_array *array);
  /* Says that array's elements were written, so that a gradient that needs the old ones raises. */
  void (*touch)(const bp_array *array);

  /* Since version 2. */

  /* Pushes an array that stands in memory of the host's: nothing is copied, and what Lua writes the host reads there.
   * *array says where and of what shape: shaped by `vector` or `matrix`, then `data` set, and `stride` where rows stand
   * further apart; its `buffer` is set, for `touch`. To Lua it is read-only unless `writable`. The data must be aligned
   * for its elements (64 bytes are fastest). What is written belongs to one borrowed array only, whose windows are Lua's
   * to make; what is only read may be lent any number of times, also to several states.
   *
   * The memory must stay where it is until `release` (which may be NULL) is called with `context` and `data`: exactly
   * once, when nothing in the state can reach it any more, since the array and its windows have been collected or
   * released and the tapes that recorded it are closed, or with the state itself; where this call raises, before it does.
   * `release` runs in the midst of other things, mostly of the collector: it must not call Lua. The bytes are in no
   * account of the state's and never in its pool, and no gradient takes the memory over.
   *
   * The state reads and writes only while it runs. A host that writes between two calls says so with `touch`, or a kept
   * pullback gives a wrong gradient instead of an error. */
  void (*push_borrowed)(struct lua_State *L, bp_array *array, bool writable, void (*release)(void *context, void *data),
                        void *context);
  /* What the state owns, valid until it is closed; what bp_call.cx is to a rule. */
  bp_context *(*context)(struct lua_State *L);
  /* Gives back to the allocator what the pool keeps for reuse. It does not touch Lua, so that a host's lua_Alloc which
   * has reached its limit may call it, then try again. What only the collector can free it does not find: after an
   * LUA_ERRMEM call lua_gc(L, LUA_GCCOLLECT) before going on. */
  void (*drop_pool)(bp_context *cx);
} bp_api;

#ifdef LUA_VERSION_NUM
/* The table, of at least the version this header has; raises if the library is older. Loads backprop.core if need be. */
static inline const bp_api *bp_get_api(lua_State *L) {
  const bp_api *api;
  luaL_checkstack(L, 3, "backprop");
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, "backprop.core") != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "backprop.core");
    lua_call(L, 1, 1);
  }
  lua_getfield(L, -1, "api");
  api = (const bp_api *)lua_touserdata(L, -1);
  lua_pop(L, 3);
  if (api == NULL || api->version < BP_API_VERSION)
    luaL_error(L, "backprop: the library is older than the header this code was built with");
  return api;
}

/* For hosts that link libbackprop, which has the Lua files inside. bp_preload puts the loaders of all its modules into
 * package.preload: from then on `require "backprop"` works, and no file is opened. luaopen_backprop does the same and
 * loads the module: luaL_requiref(L, "backprop", luaopen_backprop, 0). Both may raise. The state needs the base,
 * package, table, string and math libraries of Lua; io only for bp.data. A state belongs to one thread at a time; any
 * number of them may run side by side. */
void bp_preload(lua_State *L);
int luaopen_backprop(lua_State *L);
#endif

#ifdef __cplusplus
}
#endif

#endif
