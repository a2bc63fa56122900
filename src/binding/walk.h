/* A walk over a structure, leaf by leaf, that makes a copy; see walk.c. */
#ifndef BP_BINDING_WALK_H
#define BP_BINDING_WALK_H

#include "binding.h"

/* As tree.lua numbers them in what is known of a metatable; a plain number, array or variable is known by itself. */
typedef enum bp_sort { BP_CONSTANT, BP_BRANCH, BP_INSTANCE, BP_LEAF } bp_sort;

enum { BP_SHALLOW = 12, BP_FEW_BRANCHES = 64 };

typedef struct bp_frame {
  lua_Integer position, count; /* of the keys */
  bool list;
} bp_frame;

typedef struct bp_walk bp_walk;
struct bp_walk {
  /* Set by the caller. */
  lua_State *L;
  bp_state *s;
  const char *name; /* of the public function, for errors */
  bool paired;      /* side by side with a structure (into) that must have leaves and branches at the same places */
  bool gives_up;    /* where they differ, or one contains itself: by bp_give_up, not by an error in words */
  /* Pushes what takes the place of the leaf at an index; it stands at the top of the stack, or of a paired walk below the
   * one beside it, at `other` (else 0). */
  void (*visit)(bp_walk *w, bp_sort what, int index, int other);
  bp_box *box;   /* the tape, where there is one */
  size_t before; /* of leaves, those that were there when the walk began */
  bool updates;  /* leaves will be changed in place: they must be writable */
  int own;       /* a stack index of the caller's, below the structure */
  int operation; /* of arithmetic, as lua_arith has it */
  bool number_first, floats;
  size_t count; /* of leaves visited, and of those before */
  /* Undoes the visits of a walk that begins again: most structures are trees of few branches, and only where a branch is
   * met twice, or there are many, a table is needed to find the copies of those before. NULL: it cannot be undone. */
  void (*undo)(bp_walk *w);
  bool thorough; /* begin with the table */
  /* Found. */
  bool instances; /* whether some leaf was an instance */
  bool tracked;   /* by split: whether some leaf was a variable */
  /* The walk's own: stack indices, and frames. */
  int known; /* what is known of metatables */
  int seen;  /* of a thorough walk the copies by their sources, false while a branch is being walked */
  int more;  /* a userdata for the frames, where there are many */
  int first; /* the base of the first frame */
  bp_frame few[BP_SHALLOW], *frames;
  int depth, room;
  const void *met[BP_FEW_BRANCHES]; /* of a quick walk the addresses of all branches */
  int branches;
  bool again;
};

/* Replaces the structure at the top of the stack (of a paired walk: the structure below the other, and both) by its
 * copy. */
void bp_walk_run(bp_walk *w);

/* Raises nil. What serves the usual case only leaves all else to the Lua side so, in its own words (tree.short); any other
 * error, such as memory that runs out or an interrupt of the host's, is the caller's. */
void bp_give_up(lua_State *L);

/* Where the walk is, for errors of a leaf: " at layers[1].w", or "" at the root. Pushes the string. */
const char *bp_walk_place(bp_walk *w);

#endif
