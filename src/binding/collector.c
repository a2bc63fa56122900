/* What Lua's collector is told about, and when it is asked for more than it does by itself. It paces itself by the
 * bytes of its own heap: arrays are not in it, and beside a large one it waits until as much garbage has gathered.
 * Nothing here sets a collector going that the user has stopped. */
#include <limits.h>

#include "binding.h"

/* The collector has been through: what calls leave behind (below) is gone too, and gathers anew. */
static void note_cycle(bp_state *s) {
  s->call_garbage = s->steps_left = 0;
  s->handed_out_before = s->cx.pool.handed_out;
}

/* ---- arrays that are dropped ------------------------------------------------------------------------------------- */

/* What is worth a report. Small arrays 256 KiB at a time: a step of the collector for each costs more than it frees,
 * and a longer wait lets so many buffers be alive at once that they push the weights out of the cache. Large ones 1 MiB
 * at a time, but at least four, so that those that live for an operation or two seldom see two collections. */
enum { LARGE = 1 << 16, ENOUGH_SMALL = 1 << 18, ENOUGH_LARGE = 1 << 20, FEW_LARGE = 4 };

/* The block, and twice the handle, which its finalizer makes live for another cycle: of small arrays the latter is
 * most, and with nothing for it a collector in incremental mode falls behind without end. */
void bp_count_unseen(bp_state *s, const bp_array *array, int count) {
  const ptrdiff_t bytes = (ptrdiff_t)(array->buffer->capacity + 2 * BP_ALIGNMENT + 2 * sizeof(bp_handle));
  const bool large = bytes >= LARGE;
  ptrdiff_t *sum = large ? &s->large_bytes : &s->small_bytes;
  *sum += count * bytes;
  if (*sum < 0) *sum = 0; /* it was reported before it was given back */
  if (large) s->large_count += s->large_count + count < 0 ? 0 : count;
}

/* In generational mode an array that has seen two collections waits for a full one, which Lua makes when its own memory
 * has doubled. It does not see that ours has. A full collection costs what the Lua heap is large, so arrays have to
 * have grown by as much (in whole steps, so that the heap's small ups and downs do not show in what the process holds):
 * a heap that grows by itself is Lua's affair. Beside a large heap a step earlier where the pool is empty: so all
 * collections come where the first one did, and the process does not grow by the array that one of them is late. */
static void collect_old(lua_State *L, bp_state *s, bool pool_is_empty) {
  const size_t step = (size_t)4 << 20, heap = (size_t)lua_gc(L, LUA_GCCOUNT) << 10, *live = &s->cx.stats.bytes_live;
  if (*live < s->least_live) s->least_live = *live;
  const size_t base = s->least_live - s->least_live % (heap / 16 + 1);
  const size_t slack = pool_is_empty && heap > 4 * step ? 1 : 2;
  if (*live < base + (heap / step + slack) * step) return;
  lua_gc(L, LUA_GCCOLLECT);
  s->least_live = *live;
  note_cycle(s);
}

static void report(lua_State *L, bp_state *s) {
  if (lua_gc(L, LUA_GCISRUNNING) != 1) return; /* stopped, or inside a finalizer, where it says -1 to all: later */
  ptrdiff_t kilobytes = (s->small_bytes + s->large_bytes) >> 10;
  s->small_bytes = s->large_bytes = s->large_count = 0;
  const int heap = lua_gc(L, LUA_GCCOUNT);
  bp_reserve_call(L);
  lua_gc(L, LUA_GCSTEP, (int)(kilobytes < INT_MAX ? kilobytes : INT_MAX));
  if (lua_gc(L, LUA_GCCOUNT) < heap) note_cycle(s);
  collect_old(L, s, false);
}

/* What of large arrays may be garbage: not the products that wait in a pullback, which the sweep is about to take over.
 * But no more than so many bytes of these: a pullback may drop what it has not looked at. */
static ptrdiff_t large_garbage(const bp_state *s) {
  const size_t most = 8 * ENOUGH_LARGE, waiting = s->cx.pending_bytes;
  return s->large_bytes - (ptrdiff_t)(waiting < most ? waiting : most);
}

void bp_report(lua_State *L, bp_state *s) {
  const bool enough_large = s->large_count >= FEW_LARGE && large_garbage(s) >= ENOUGH_LARGE;
  if (s->small_bytes >= ENOUGH_SMALL || enough_large) report(L, s);
}

/* Worth it beside a Lua heap that is not much larger: of another a step sees too little. */
void bp_report_before(lua_State *L, bp_state *s, const bp_array *shape) {
  const size_t bytes = bp_count(shape) * bp_element_size((bp_dtype)shape->dtype);
  if (bytes < LARGE || s->large_bytes == 0 || bp_pool_has(&s->cx, bytes)) return;
  if (lua_gc(L, LUA_GCISRUNNING) != 1) return;
  bp_reserve_call(L);
  collect_old(L, s, true);
  if (bytes >= ((size_t)lua_gc(L, LUA_GCCOUNT) << 10) / 8) report(L, s);
}

/* ---- what calls leave behind ------------------------------------------------------------------------------------- */

/* Every recorded call leaves variables and the tables of tracked structures. Lua sees these, but beside a heap of
 * hundreds of megabytes begins its next cycle when there are hundreds of them. A cycle of ours comes after a mebibyte,
 * and costs what the heap is large: so not before the calls have gone through arrays of so many times its size, beside
 * which that is a few hundredths. It is done a little at each call: in generational mode the first step is all, in
 * incremental mode each goes through some 800 KiB, of which STEP is a careful estimate: it bounds their number. */
enum { ENOUGH_GARBAGE = 1 << 20, TIMES_HEAP = 16, VARIABLE = 64, SHARE_OF_TABLE = 64, STEP = 1 << 19, AT_ONCE = 2 };

void bp_count_call(bp_state *s, const bp_tape *tape) {
  s->call_garbage += tape->node_count * VARIABLE + tape->leaf_count * SHARE_OF_TABLE;
}

static size_t heap_size(lua_State *L) {
  return ((size_t)lua_gc(L, LUA_GCCOUNT) << 10) + (size_t)lua_gc(L, LUA_GCCOUNTB);
}

void bp_collect_calls(lua_State *L, bp_state *s) {
  if (s->call_garbage < ENOUGH_GARBAGE || lua_gc(L, LUA_GCISRUNNING) != 1) return;
  const size_t heap = heap_size(L), passed = s->cx.pool.handed_out - s->handed_out_before;
  if (s->steps_left == 0) {
    if (passed / TIMES_HEAP < heap) return;
    s->steps_left = heap / STEP + 1;
    s->heap_before = heap;
  }
  bp_reserve_call(L);
  for (int k = 0; k < AT_ONCE && s->steps_left > 0; k++) {
    const bool ended = lua_gc(L, LUA_GCSTEP, 0) != 0 || heap_size(L) + s->call_garbage / 2 < s->heap_before;
    s->steps_left = ended ? 0 : s->steps_left - 1;
  }
  if (s->steps_left == 0) note_cycle(s);
}
