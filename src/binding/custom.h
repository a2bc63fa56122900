/* What recording an operation of bp.op (custom.c) and running its pullback (pullbacks.c) share. */
#ifndef BP_BINDING_CUSTOM_H
#define BP_BINDING_CUSTOM_H

#include "binding.h"

/* What a node keeps in its attributes: the number of its entry in the tape's table, and whether that is the pullback
 * itself, of a flat call (its arguments and its result are numbers and arrays), or what the Lua side has put together. */
enum { BP_CUSTOM_ENTRY, BP_CUSTOM_FLAT };

/* Where the leaves of a call are: on the stack from `first` on, or in the list at `list`. */
typedef struct bp_leaves {
  int first, list;
} bp_leaves;

static inline void bp_push_leaf(lua_State *L, bp_leaves where, size_t k) {
  if (where.list == 0)
    lua_pushvalue(L, where.first + (int)k);
  else
    lua_rawgeti(L, where.list, (lua_Integer)k + 1);
}

/* The backward rule of every such operation. */
bp_status bp_custom_backward(bp_call *call);

#endif
