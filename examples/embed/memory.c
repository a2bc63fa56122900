/* An allocator with a limit. Lua and the library's arrays both ask here, so that the limit holds for all that a script
 * can make. Where it is reached the pool of the library, memory in no use, is asked back before anything is refused. */
#include "host.h"

#include <stdlib.h>

static int fits(const account *a, size_t more) {
  return more <= a->cap && a->used <= a->cap - more;
}

void *host_allocate(void *data, void *block, size_t old_size, size_t new_size) {
  account *a = data;
  if (block == NULL) old_size = 0; /* Lua says then what kind of object it is for */
  if (new_size == 0) {
    free(block);
    a->used -= old_size;
    return NULL;
  }
  if (new_size > old_size) {
    size_t more = new_size - old_size;
    if (!fits(a, more) && a->context != NULL) a->api->drop_pool(a->context);
    if (!fits(a, more)) return NULL;
  }
  void *moved = realloc(block, new_size);
  if (moved == NULL) return NULL;
  a->used = a->used - old_size + new_size;
  if (a->used > a->peak) a->peak = a->used;
  return moved;
}
