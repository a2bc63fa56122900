/* A walk over a structure, leaf by leaf, that makes a copy; see walk.c. */
#ifndef BP_BINDING_WALK_H
#define BP_BINDING_WALK_H

#include "binding.h"

/* As tree.lua numbers them in what is known of a metatable; a plain number, array or variable is known by itself. */
typedef enum bp_sort { BP_CONSTANT, BP_BRANCH, BP_INSTANCE, BP_LEAF } bp_sort;

enum { BP_SHALLOW = 12 };

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
  bool paired;      /* side by side with a structure that must have leaves and branches at the same places */
  /* Replaces the leaf at the top of the stack; `other` is the stack index of the one beside it, or 0. */
  void (*visit)(bp_walk *w, bp_sort what, int other);
  bp_box *box;      /* the tape, where there is one */
  const char *leaf; /* the name for errors of a leaf */
  bool updates;     /* leaves will be changed in place: they must be writable */
  size_t count;     /* of leaves visited, and of those before */
  /* Found. */
  bool instances; /* whether some leaf was an instance */
  /* The walk's own: stack indices, and frames. */
  int known; /* what is known of metatables */
  int seen;  /* the copies by their sources, false while a branch is being walked; nil before it is needed */
  int more;  /* a userdata for the frames, where there are many */
  int first; /* the base of the first frame */
  bp_frame few[BP_SHALLOW], *frames;
  int depth, room;
};

/* Replaces the structure at the top of the stack (of a paired walk: the structure below the other, and both) by its
 * copy. */
void bp_walk_run(bp_walk *w);

/* Where the walk is, for errors of a leaf: " at layers[1].w", or "" at the root. Pushes the string. */
const char *bp_walk_place(bp_walk *w);

#endif
