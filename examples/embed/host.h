/* What the files of the example host share. */
#ifndef HOST_H
#define HOST_H

#include <lua.h>
#include <lauxlib.h>
#include <lualib.h>

#include "backprop.h"

/* The memory of one Lua state: what it has, and what it may have (memory.c). */
typedef struct account {
  size_t used, peak, cap;
  const bp_api *api; /* once the state has loaded backprop */
  bp_context *context;
} account;

/* A lua_Alloc; its first argument is an account. */
void *host_allocate(void *data, void *block, size_t old_size, size_t new_size);

/* The row of the host's own operation (softsign.c). Its rules find the table in it. */
bp_op host_softsign(const bp_api *api);

#endif
