/* The Lua files of the library as bytes, for hosts. The table is made by the Makefile, from lua/backprop. */
#ifndef BP_BINDING_EMBED_H
#define BP_BINDING_EMBED_H

#include <stddef.h>

typedef struct bp_chunk {
  const char *module; /* "backprop.tree" */
  const char *name;   /* "=[backprop]/tree.lua": no file can bear it */
  const unsigned char *text;
  size_t size;
} bp_chunk;

extern const bp_chunk bp_chunks[]; /* the last one has no module */

#endif
