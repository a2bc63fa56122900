/* The reverse sweep. From the last node to the first, each operation that a cotangent has reached runs its backward
 * rule once; the rule writes to destinations that are handed out here. A slot takes its first contribution by being
 * written (or by sharing or taking over an array), later ones by addition; what stays empty is zero and costs nothing.
 *
 * Views have no slot of their own: a contribution to one goes to its window of the root's slot. As long as windows meet
 * end to end they are written, not added, and only what none of them covers is filled with zeros, once. */
#include "tape.h"

#include <string.h>

#include "../core/clock.h"
#include "../core/pending.h"

/* ---- factors that are kept ---------------------------------------------------------------------------------------- */

static bp_status keep_factors(bp_tape *tape, bp_index leaf, const bp_factors *factors) {
  bp_status status = bp_grow(tape->cx, (void **)&tape->pairs, &tape->pair_capacity, tape->pair_count + 1,
                             sizeof *tape->pairs);
  if (status != BP_OK) return status;
  if (tape->pair_count == 0) {
    tape->next_keeper = tape->cx->keepers;
    tape->cx->keepers = tape;
  }
  tape->pairs[tape->pair_count++] = (bp_pair){*factors, factors->left.buffer->version, factors->right.buffer->version,
                                              tape->slots[leaf].factors};
  tape->slots[leaf].factors = (uint32_t)tape->pair_count;
  bp_buffer_retain(factors->left.buffer);
  bp_buffer_retain(factors->right.buffer);
  return BP_OK;
}

static void drop_factors(bp_tape *tape) {
  bp_tape **place = &tape->cx->keepers;
  while (*place != tape) place = &(*place)->next_keeper;
  *place = tape->next_keeper;
  for (size_t k = tape->pair_count; k-- > 0;) bp_factors_release(tape->cx, &tape->pairs[k].factors);
  tape->pair_count = 0;
}

/* Of all who write only the host does not say so before. */
static bp_status check_factor(bp_context *cx, const bp_array *factor, uint32_t version) {
  if (factor->buffer->version == version) return BP_OK;
  return bp_fail(cx, "backprop: an array that the gradient is made of was changed in place by the host");
}

bp_status bp_sweep_check_factors(bp_tape *tape) {
  bp_status status = BP_OK;
  for (size_t k = 0; k < tape->pair_count && status == BP_OK; k++) {
    const bp_pair *pair = &tape->pairs[k];
    status = check_factor(tape->cx, &pair->factors.left, pair->left_version);
    if (status == BP_OK) status = check_factor(tape->cx, &pair->factors.right, pair->right_version);
  }
  return status;
}

/* A factor that would be overwritten becomes an array of its own. */
static bp_status save_factor(bp_context *cx, const bp_buffer *buffer, bp_array *factor, uint32_t *version) {
  if (factor->buffer != buffer) return BP_OK;
  bp_array clone = bp_shape_like(factor);
  bp_status status = check_factor(cx, factor, *version);
  if (status == BP_OK) status = bp_array_allocate(cx, &clone);
  if (status != BP_OK) return status;
  bp_axpby(cx, 1, factor, 0, &clone);
  bp_buffer_release(cx, factor->buffer);
  *factor = clone;
  *version = clone.buffer->version;
  return BP_OK;
}

bp_status bp_sweep_before_write(bp_context *cx, bp_buffer *buffer) {
  bp_status status = BP_OK;
  bp_pending_compute_of(cx, buffer);
  for (bp_tape *tape = cx->keepers; tape != NULL; tape = tape->next_keeper)
    for (size_t k = 0; k < tape->pair_count && status == BP_OK; k++) {
      bp_pair *pair = &tape->pairs[k];
      status = save_factor(cx, buffer, &pair->factors.left, &pair->left_version);
      if (status == BP_OK) status = save_factor(cx, buffer, &pair->factors.right, &pair->right_version);
    }
  return status;
}

/* ---- slots ------------------------------------------------------------------------------------------------------- */

/* Nothing is allocated for bookkeeping once the sweep runs, but for factor pairs. */
static bp_status make_room(bp_tape *tape) {
  bp_context *cx = tape->cx;
  size_t most = tape->most_inputs;
  bp_status status = bp_grow(cx, (void **)&tape->slots, &tape->slot_capacity, tape->node_count, sizeof *tape->slots);
  if (status == BP_OK) status = bp_grow(cx, (void **)&tape->arrays, &tape->array_capacity, most, sizeof *tape->arrays);
  if (status == BP_OK)
    status = bp_grow(cx, (void **)&tape->gradients, &tape->gradient_capacity, most, sizeof *tape->gradients);
  if (status == BP_OK) status = bp_grow(cx, (void **)&tape->asides, &tape->aside_capacity, most, sizeof *tape->asides);
  return status;
}

bp_status bp_sweep_begin(bp_tape *tape) {
  bp_sweep_end(tape);
  bp_status status = make_room(tape);
  if (status != BP_OK) return status;
  tape->slot_count = tape->node_count;
  for (size_t k = 0; k < tape->slot_count; k++) {
    bp_slot *slot = &tape->slots[k];
    slot->state = BP_SLOT_EMPTY;
    slot->factors = 0;
    slot->gradient.buffer = NULL; /* and so it stays for a number */
    slot->gradient.rank = 0;
  }
  return BP_OK;
}

static void empty(bp_context *cx, bp_slot *slot) {
  if (slot->gradient.buffer != NULL) bp_array_release(cx, &slot->gradient);
  slot->state = BP_SLOT_EMPTY;
}

void bp_sweep_end(bp_tape *tape) {
  for (size_t k = tape->swept ? tape->leaf_count : tape->slot_count; k-- > 0;) empty(tape->cx, &tape->slots[k]);
  if (tape->pair_count != 0) drop_factors(tape);
  tape->slot_count = 0;
  tape->swept = false;
}

bp_status bp_sweep_provide(bp_tape *tape, bp_index index) {
  bp_slot *slot = &tape->slots[index];
  bp_array *into = bp_into_of(tape, index);
  if (into != NULL) {
    bp_status status = bp_sweep_before_write(tape->cx, into->buffer);
    if (status != BP_OK) return status;
    slot->gradient = *into;
    bp_buffer_retain(into->buffer);
    into->buffer->version++;
    return BP_OK;
  }
  slot->gradient = bp_shape_like(&tape->nodes[index].value);
  return bp_array_allocate(tape->cx, &slot->gradient);
}

/* Writes zeros where no window has written. */
static void complete(bp_tape *tape, bp_slot *slot) {
  if (slot->state != BP_SLOT_PARTIAL) return;
  size_t size = bp_element_size((bp_dtype)slot->gradient.dtype), count = bp_count(&slot->gradient);
  bp_array part = bp_shape_vector(slot->from, (bp_dtype)slot->gradient.dtype);
  if (slot->from > 0 || slot->to < count) tape->cx->stats.zero_fills++;
  part.data = slot->gradient.data;
  bp_fill(tape->cx, &part, 0);
  part.data = (char *)slot->gradient.data + slot->to * size;
  part.rows = count - slot->to;
  bp_fill(tape->cx, &part, 0);
  slot->state = BP_SLOT_OWNED;
}

/* What windows have written so far. */
static bp_array written_part(const bp_slot *slot) {
  bp_array part = bp_shape_vector(slot->to - slot->from, (bp_dtype)slot->gradient.dtype);
  part.data = (char *)slot->gradient.data + slot->from * bp_element_size((bp_dtype)slot->gradient.dtype);
  return part;
}

/* A shared array is copied before something is added to it. */
static bp_status own(bp_tape *tape, bp_index index) {
  bp_slot *slot = &tape->slots[index];
  bp_array shared = slot->gradient;
  bp_status status = bp_sweep_provide(tape, index);
  if (status != BP_OK) {
    slot->gradient = shared;
    return status;
  }
  bp_axpby(tape->cx, 1, &shared, 0, &slot->gradient);
  bp_buffer_release(tape->cx, shared.buffer);
  slot->state = BP_SLOT_OWNED;
  return BP_OK;
}

/* Makes the array of a slot ready to be added to as a whole. */
static bp_status settle(bp_tape *tape, bp_index index) {
  bp_slot *slot = &tape->slots[index];
  complete(tape, slot);
  return slot->state == BP_SLOT_SHARED ? own(tape, index) : BP_OK;
}

/* ---- destinations ------------------------------------------------------------------------------------------------ */

/* The window of the root's gradient that a view's cotangent is. The gradient's rows follow each other; where the root's
 * own do, the view lies in both at the same distance. */
static bp_array window_of(const bp_array *root, const bp_array *view, const bp_array *gradient) {
  size_t size = bp_element_size((bp_dtype)root->dtype);
  size_t distance = (size_t)((const char *)view->data - (const char *)root->data) / size;
  bp_array window = *view;
  window.buffer = gradient->buffer;
  if (bp_is_contiguous(root) && bp_is_contiguous(gradient)) {
    window.data = (char *)gradient->data + distance * size;
    return window;
  }
  size_t i = root->stride == 0 ? 0 : distance / root->stride, j = distance - i * root->stride;
  window.data = bp_at(gradient, i, j);
  if (view->stride == root->stride) window.stride = gradient->stride;
  return window;
}

/* The first window opens the root's gradient; one that goes on where the last ended extends what is written. */
static bp_status window_destination(bp_tape *tape, bp_index root, const bp_array *view, bp_gradient *d) {
  bp_slot *slot = &tape->slots[root];
  bool first = slot->state == BP_SLOT_EMPTY;
  if (first) {
    bp_status status = bp_sweep_provide(tape, root);
    if (status != BP_OK) return status;
    slot->state = BP_SLOT_PARTIAL;
    slot->from = slot->to = 0;
  } else if (slot->state == BP_SLOT_SHARED) {
    bp_status status = own(tape, root);
    if (status != BP_OK) return status;
  }
  d->to = window_of(&tape->nodes[root].value, view, &slot->gradient);
  d->accumulate = true;
  /* An empty window may lie behind the end: it says nothing about what is written. */
  if (slot->state == BP_SLOT_OWNED || bp_count(&d->to) == 0) return BP_OK;
  size_t size = bp_element_size((bp_dtype)d->to.dtype);
  size_t from = (size_t)((char *)d->to.data - (char *)slot->gradient.data) / size, to = from + bp_count(&d->to);
  bool within = from >= slot->from && to <= slot->to;
  bool adjacent = bp_is_contiguous(&d->to) && bp_is_contiguous(&slot->gradient) &&
                  (first || to == slot->from || from == slot->to);
  if (adjacent) {
    d->accumulate = false;
    slot->from = first || from < slot->from ? from : slot->from;
    slot->to = first || to > slot->to ? to : slot->to;
    if (slot->from == 0 && slot->to == bp_count(&slot->gradient)) slot->state = BP_SLOT_OWNED;
  } else if (!within || !bp_is_contiguous(&d->to)) {
    complete(tape, slot);
  }
  return BP_OK;
}

/* Where a contribution to a node is to be written, and whether it is added to what is there. */
static bp_status destination(bp_tape *tape, bp_index index, bp_gradient *d) {
  bp_slot *slot = &tape->slots[index];
  bp_status status = BP_OK;
  d->factors = NULL;
  const bp_node *node = &tape->nodes[index];
  if (node->root != index) return window_destination(tape, node->root, &node->value, d);
  d->accumulate = slot->state != BP_SLOT_EMPTY;
  if (node->value.rank == 0) {
    d->to = bp_number_at(&slot->number);
    slot->state = BP_SLOT_OWNED;
    return BP_OK;
  }
  if (slot->state == BP_SLOT_EMPTY) {
    status = bp_sweep_provide(tape, index);
    if (status == BP_OK) slot->state = BP_SLOT_OWNED;
  } else {
    status = settle(tape, index);
  }
  d->to = slot->gradient;
  return status;
}

static bool is_empty(const bp_tape *tape, bp_index index) {
  return tape->nodes[index].root == index && tape->slots[index].state == BP_SLOT_EMPTY && index >= tape->into_count;
}

/* ---- seeds ------------------------------------------------------------------------------------------------------- */

bp_status bp_sweep_seed(bp_tape *tape, bp_index index, const bp_array *cotangent) {
  bp_gradient d;
  bp_status status = destination(tape, index, &d);
  if (status != BP_OK) return status;
  if (cotangent == NULL)
    bp_contribute_number(tape->cx, 1, &d);
  else
    bp_contribute(tape->cx, 1, cotangent, &d);
  return BP_OK;
}

void bp_sweep_seed_object(bp_tape *tape, bp_index index) {
  tape->slots[index].state = BP_SLOT_OWNED;
}

/* ---- one operation ----------------------------------------------------------------------------------------------- */

/* An operation that passes its cotangent on needs no arithmetic where it is the first to contribute. */
static void pass_on(bp_tape *tape, bp_call *call, const bp_index *inputs) {
  const bp_array *g = call->cotangent;
  for (size_t k = 0; k < call->input_count && call->op->passes >> k != 0; k++) {
    if ((call->op->passes >> k & 1) == 0 || !call->gradient[k].wanted) continue;
    const bp_array *value = &tape->nodes[inputs[k]].value;
    if (g->rank == 0 || !bp_same_shape(value, g) || value->dtype != g->dtype || !is_empty(tape, inputs[k])) continue;
    bp_slot_share(&tape->slots[inputs[k]], g);
    call->gradient[k].wanted = false;
  }
}

/* The cotangent's own storage becomes the destination of the last input, if nobody else has it. */
static bool hand_down(bp_tape *tape, const bp_slot *from, bp_index input, bp_gradient *d) {
  const bp_array *value = &tape->nodes[input].value, *g = &from->gradient;
  if (!bp_slot_is_alone(from)) return false;
  if (!bp_same_shape(value, g) || value->dtype != g->dtype || !is_empty(tape, input)) return false;
  bp_slot *to = &tape->slots[input];
  bp_slot_share(to, g);
  to->state = BP_SLOT_OWNED;
  d->to = *g;
  d->accumulate = false;
  return true;
}

/* Whether an earlier input's destination may have elements of this one's. */
static bool overlaps(const bp_tape *tape, const bp_call *call, const bp_index *inputs, size_t k) {
  for (size_t j = 0; j < k; j++)
    if (call->gradient[j].wanted && tape->nodes[inputs[j]].root == tape->nodes[inputs[k]].root) return true;
  return false;
}

/* A destination of its own, to be added to the shared one afterwards. */
static bp_status set_aside(bp_tape *tape, bp_index input, bp_gradient *d, bp_aside *aside) {
  d->accumulate = false;
  d->to = bp_shape_like(&tape->nodes[input].value);
  aside->used = true;
  if (d->to.rank != 0) return bp_array_allocate(tape->cx, &d->to);
  d->to = bp_number_at(&aside->number);
  return BP_OK;
}

static bp_status add_aside(bp_tape *tape, bp_index input, bp_gradient *d) {
  bp_gradient shared;
  bp_status status = destination(tape, input, &shared);
  if (status == BP_OK) bp_contribute(tape->cx, 1, &d->to, &shared);
  return status;
}

static bool is_transpose(const bp_tape *tape, bp_index index) {
  return tape->nodes[index].op != NULL && bp_is_transpose(tape->nodes[index].op);
}

/* In a step the gradients of leaves are kept as products. */
static bool keeps_factors(const bp_tape *tape, bp_index index) {
  return tape->deferring && tape->nodes[index].kind == BP_NODE_LEAF;
}

/* Whether a product is to hand over the factors of an input's gradient. Of a transpose not where a NaN is looked for: in the
 * gradient of its source, which is no input of the product, nobody would find it. */
static bool takes_factors(const bp_tape *tape, const bp_op *op, bp_index input) {
  if ((op->flags & BP_OP_PRODUCT) == 0 || tape->nodes[input].value.rank != 2) return false;
  return keeps_factors(tape, input) || (is_transpose(tape, input) && !tape->check_finite);
}

/* Adds a product to a gradient: kept as factors, or multiplied. */
static bp_status add_product(bp_tape *tape, bp_index index, const bp_factors *factors) {
  bp_gradient d;
  if (keeps_factors(tape, index)) return keep_factors(tape, index, factors);
  bp_status status = destination(tape, index, &d);
  if (status == BP_OK) bp_add_product(tape->cx, 1, factors, d.accumulate ? 1 : 0, &d.to);
  return status;
}

/* Whether the gradient of a node goes to an array of the caller's that may be read on the way: others than the caller and
 * the slot have it. (An array that the caller has no more, nobody can look at.) */
static bool is_read_elsewhere(bp_tape *tape, bp_index index) {
  const bp_index root = tape->nodes[index].root;
  const bp_array *into = bp_into_of(tape, root);
  const bool is_open = into != NULL && tape->slots[root].gradient.buffer == into->buffer;
  return into != NULL && into->buffer->references > (is_open ? 3U : 2U);
}

/* What a product contributes to a transpose goes, factors reversed, to the source of that; not before the turn of the
 * transpose where it would be written over what is still to be read. */
static bp_status add_handed_over(bp_tape *tape, bp_index index, bp_factors f) {
  while (is_transpose(tape, index) && !is_read_elsewhere(tape, tape->nodes[index].input[0])) {
    f = (bp_factors){f.right, f.left, !f.right_transposed, !f.left_transposed};
    index = tape->nodes[index].input[0];
  }
  return add_product(tape, index, &f);
}

/* Hands out the destinations. */
static bp_status prepare(bp_tape *tape, bp_call *call, const bp_index *inputs, bp_index first, bp_factors *factors) {
  const bp_op *op = call->op;
  size_t last = call->input_count;
  while (last > 0 && !call->gradient[last - 1].wanted) last--;
  bp_status status = BP_OK;
  for (size_t k = 0; k < last && status == BP_OK; k++) {
    bp_gradient *d = &call->gradient[k];
    if (!d->wanted) continue;
    if (op->part != NULL) {
      bp_array part = op->part(call);
      status = window_destination(tape, tape->nodes[inputs[k]].root, &part, d);
    } else if (takes_factors(tape, op, inputs[k]))
      d->factors = &factors[k];
    else if (k + 1 == last && (op->flags & BP_OP_ELEMENTWISE) != 0 &&
             hand_down(tape, &tape->slots[first], inputs[k], d))
      continue;
    else if ((op->flags & BP_OP_SEQUENTIAL) == 0 && overlaps(tape, call, inputs, k))
      status = set_aside(tape, inputs[k], d, &tape->asides[k]);
    else
      status = destination(tape, inputs[k], d);
  }
  return status;
}

/* Collects what did not go straight to its place. */
static bp_status finish(bp_tape *tape, bp_call *call, const bp_index *inputs, bp_status status) {
  for (size_t k = 0; k < call->input_count; k++) {
    bp_gradient *d = &call->gradient[k];
    if (d->factors != NULL && status == BP_OK) status = add_handed_over(tape, inputs[k], *d->factors);
    if (!tape->asides[k].used) continue;
    if (status == BP_OK) status = add_aside(tape, inputs[k], d);
    bp_buffer_release(tape->cx, d->to.buffer);
  }
  return status;
}

/* The first value that an operation reads and that was written since it was recorded, or BP_NONE. */
static bp_index changed_value(const bp_tape *tape, bp_index first, size_t result_count) {
  const bp_node *node = &tape->nodes[first];
  const bp_index *inputs = bp_node_inputs(tape, node);
  if ((node->op->flags & BP_OP_VALUES_UNREAD) != 0) return BP_NONE;
  for (size_t k = 0; k < result_count + node->input_count; k++) {
    bp_index index = k < result_count ? first + (bp_index)k : inputs[k - result_count];
    if (bp_node_is_changed(&tape->nodes[index])) return index;
  }
  return BP_NONE;
}

static bp_status check_versions(bp_tape *tape, bp_index first, size_t result_count) {
  bp_index changed = changed_value(tape, first, result_count);
  return changed == BP_NONE ? BP_OK : bp_node_check(tape, changed, tape->nodes[first].op);
}

/* The same when the destinations are open: one of the caller's own arrays (into) may be what the operation reads. */
bp_status bp_sweep_check_into(bp_tape *tape, bp_index first, size_t result_count) {
  if (tape->into_count == 0 || changed_value(tape, first, result_count) == BP_NONE) return BP_OK;
  return bp_call_fail(&(bp_call){.cx = tape->cx, .op = tape->nodes[first].op},
                      "into: a gradient would be written over an array that this operation reads");
}

/* ---- patterns ---------------------------------------------------------------------------------------------------- */

/* The logarithm of a softmax that nothing else uses: g - sum(g) p is the adjoint of both together, finite also where the
 * softmax has underflowed to 0 and the logarithm's own slope is infinite. */
static bool is_log_of_softmax(const bp_tape *tape, const bp_node *node) {
  if (!bp_is_formula(node->op, BP_LOOP(log))) return false;
  const bp_index input = node->input[0];
  const bp_node *inner = &tape->nodes[input];
  return inner->op != NULL && bp_is_softmax(inner->op) && inner->uses == 1 && inner->root == input &&
         tape->slots[input].state == BP_SLOT_EMPTY;
}

static bp_status run_log_of_softmax(bp_tape *tape, bp_call *call, const bp_index *inputs) {
  bp_index x = bp_node_inputs(tape, &tape->nodes[inputs[0]])[0];
  bp_gradient d;
  bp_status status = bp_node_check(tape, x, call->op);
  if (status == BP_OK) status = destination(tape, x, &d);
  if (status == BP_OK) bp_log_softmax_adjoint(tape->cx, call->cotangent, call->result, &d);
  return status;
}

/* The sum or the mean of a product or of squares that nothing else uses: their cotangent is one number, which need not
 * be written out. Not where that is 0, which must give 0 beside an inf, too. */
static bool run_sum_of_products(bp_tape *tape, bp_index index, bp_status *status) {
  const bp_node *node = &tape->nodes[index];
  const bp_index inner_index = node->input[0];
  const bp_node *inner = &tape->nodes[inner_index];
  const double weight = bp_weight_in_sum(node->op, &inner->value);
  if (weight == 0 || node->value.rank != 0 || inner->value.rank == 0 || inner->op == NULL || inner->uses != 1)
    return false;
  const bool square = bp_is_formula(inner->op, BP_LOOP(square));
  const double scale = weight * tape->slots[index].number;
  if ((!square && !bp_is_formula(inner->op, BP_LOOP(mul))) || tape->slots[inner_index].state != BP_SLOT_EMPTY ||
      bp_vanishes(scale, inner->value.dtype))
    return false;
  const bp_index *inputs = inner->input;
  const size_t count = inner->input_count;
  for (size_t k = 0; k < count; k++)
    if (!bp_same_shape(&tape->nodes[inputs[k]].value, &inner->value)) return false;
  *status = check_versions(tape, inner_index, 1);
  for (size_t k = 0; k < count && *status == BP_OK; k++) {
    bp_gradient d;
    if (!tape->nodes[inputs[k]].needs) continue;
    *status = destination(tape, inputs[k], &d);
    if (*status == BP_OK) *status = bp_sweep_check_into(tape, inner_index, 1);
    if (*status == BP_OK)
      bp_contribute(tape->cx, square ? 2 * scale : scale, &tape->nodes[inputs[count - 1 - k]].value, &d);
  }
  return true;
}

/* ---- a whole call ------------------------------------------------------------------------------------------------ */

/* The backward rule of a row. */
static bp_status run_row(bp_tape *tape, bp_call *call, const bp_index *inputs, bp_index first) {
  bp_array results[BP_MAX_RESULTS], cotangents[BP_MAX_RESULTS];
  bp_factors factors[3];
  for (size_t k = 0; k < call->result_count; k++) {
    bp_index index = first + (bp_index)k;
    bp_slot *slot = &tape->slots[index];
    results[k] = bp_node_value(tape, index);
    complete(tape, slot);
    if (slot->state == BP_SLOT_EMPTY)
      cotangents[k] = bp_shape_like(&results[k]);
    else
      cotangents[k] = results[k].rank == 0 ? bp_number_at(&slot->number) : slot->gradient;
  }
  for (size_t k = 0; k < call->input_count; k++) {
    tape->arrays[k] = bp_node_value(tape, inputs[k]);
    tape->gradients[k].wanted = tape->nodes[inputs[k]].needs;
    tape->gradients[k].factors = NULL;
    tape->asides[k].used = false;
  }
  call->input = tape->arrays;
  call->gradient = tape->gradients;
  call->result = results;
  call->cotangent = cotangents;
  if (is_log_of_softmax(tape, &tape->nodes[first])) return run_log_of_softmax(tape, call, inputs);
  if (call->op->passes != 0) pass_on(tape, call, inputs);
  bp_status status = prepare(tape, call, inputs, first, factors);
  if (status == BP_OK) status = bp_sweep_check_into(tape, first, call->result_count);
  call->cotangent_free = bp_slot_is_alone(&tape->slots[first]);
  if (status == BP_OK) status = call->op->backward(call);
  return finish(tape, call, inputs, status);
}

/* The gradients that an operation has contributed to. */
static bp_status check_slots(bp_tape *tape, bp_call *call, const bp_index *inputs) {
  for (size_t k = 0; k < call->input_count; k++) {
    bp_index index = tape->nodes[inputs[k]].root;
    const bp_slot *slot = &tape->slots[index];
    bool number = tape->nodes[index].value.rank == 0;
    bp_array gradient = slot->gradient, one = bp_shape_number();
    one.data = (void *)(uintptr_t)&slot->number;
    if (slot->state == BP_SLOT_PARTIAL) gradient = written_part(slot);
    if (slot->state == BP_SLOT_EMPTY || tape->nodes[index].object) continue;
    if (!bp_all_finite(tape->cx, number ? &one : &gradient))
      return bp_call_fail(call, "the gradient of %s %zu has a NaN or inf",
                          (call->op->flags & BP_OP_GIVES) != 0 ? "leaf" : "argument", k + 1);
  }
  return BP_OK;
}

static __attribute__((noinline)) bp_status run_call(bp_tape *tape, bp_index first, size_t result_count, void *host) {
  const bp_node *node = &tape->nodes[first];
  static const bp_attributes none = {.index_buffer = NULL};
  bp_sweep_call sweep = {.tape = tape, .first = first, .inputs = bp_node_inputs(tape, node)};
  bp_call *call = &sweep.call;
  call->cx = tape->cx;
  call->op = node->op;
  call->input_count = node->input_count;
  call->result_count = result_count;
  call->attributes = node->attributes == 0 ? (bp_attributes *)(uintptr_t)&none
                                           : &tape->attributes[node->attributes - 1];
  call->host = host;
  bp_status status = check_versions(tape, first, result_count);
  if (status != BP_OK) return status;
  int64_t start = tape->cx->timing ? bp_clock() : 0;
  bool gives = (node->op->flags & BP_OP_GIVES) != 0;
  status = gives ? node->op->backward(call) : run_row(tape, call, sweep.inputs, first);
  if (tape->cx->timing) tape->nodes[first].backward = (float)(bp_clock() - start);
  if (status == BP_OK && tape->check_finite) status = check_slots(tape, call, sweep.inputs);
  return status;
}

/* The short ways, or the general one. */
static inline bp_status visit(bp_tape *tape, bp_index first, size_t result_count, void *host) {
  const bp_node *node = &tape->nodes[first];
  bp_status status;
  if (tape->cx->timing || tape->check_finite || result_count != 1) return run_call(tape, first, result_count, host);
  if ((node->op->flags & BP_OP_FORMULA) != 0) {
    if (!is_log_of_softmax(tape, node) && bp_formula_sweep(tape, first, &status)) return status;
  } else if (node->input_count == 1 && run_sum_of_products(tape, first, &status)) {
    return status;
  }
  return run_call(tape, first, result_count, host);
}

/* The values of operations whose turn is over are needed no more, unless the tape is kept: the storage is free for the
 * cotangents still to come. The address stays, to tell where a view lies. */
static void forget_value(bp_tape *tape, bp_index index) {
  bp_tape_release_value(tape, index);
  tape->nodes[index].value.buffer = NULL;
}

bp_status bp_sweep_run(bp_tape *tape, void *host) {
  bp_status status = BP_OK;
  const uint16_t receives = tape->into_count != 0;
  tape->sweeping = true;
  tape->cx->receiving_sweeps = (uint16_t)(tape->cx->receiving_sweeps + receives);
  size_t end = tape->slot_count; /* one past the last result of the operation looked at */
  bool reached = false;
  for (size_t k = end; k-- > tape->leaf_count;) {
    const bp_node *node = &tape->nodes[k];
    reached = reached || (tape->slots[k].state != BP_SLOT_EMPTY && node->root == k);
    if (node->first != k) continue;
    if (reached && node->kind == BP_NODE_RESULT) status = visit(tape, (bp_index)k, end - k, host);
    if (status != BP_OK) {
      tape->culprit = (bp_index)k;
      break;
    }
    while (end > k) {
      empty(tape->cx, &tape->slots[--end]);
      if (!tape->kept) forget_value(tape, (bp_index)end);
    }
    reached = false;
  }
  tape->cx->receiving_sweeps = (uint16_t)(tape->cx->receiving_sweeps - receives);
  tape->sweeping = false;
  tape->swept = status == BP_OK;
  return status;
}

/* ---- gradients given --------------------------------------------------------------------------------------------- */

bp_status bp_sweep_give(bp_tape *tape, bp_index input, const bp_array *array, bool take, bool *taken) {
  bp_gradient d;
  *taken = false;
  if (take && is_empty(tape, input) && array->rank != 0 && bp_is_contiguous(array)) {
    bp_slot_share(&tape->slots[input], array);
    tape->slots[input].state = BP_SLOT_OWNED;
    *taken = true;
    return BP_OK;
  }
  bp_status status = destination(tape, input, &d);
  if (status == BP_OK) bp_contribute(tape->cx, 1, array, &d);
  return status;
}

bool bp_sweep_receives(const bp_tape *tape, const bp_buffer *buffer) {
  for (size_t k = 0; k < tape->into_count && buffer != NULL && buffer->receiving != 0; k++)
    if (tape->into[k].buffer == buffer) return true;
  return false;
}

bp_status bp_sweep_give_product(bp_tape *tape, bp_index input, const bp_array *product, bool *taken) {
  bp_context *cx = tape->cx;
  *taken = false;
  if (!bp_is_pending(cx, product)) return BP_OK; /* finalizers have looked at it */
  /* A copy: what waits may move while the destination is made ready. */
  const bp_pending pending = *bp_pending_of(cx, product->buffer);
  if (!bp_is_pending_product(&pending)) return BP_OK;
  bp_status status = add_product(tape, input, &pending.factors);
  if (status != BP_OK) return status;
  bp_pending_drop(cx, product->buffer);
  *taken = true;
  return BP_OK;
}

void bp_sweep_give_object(bp_tape *tape, bp_index input) {
  tape->slots[input].state = BP_SLOT_OWNED;
}

void bp_sweep_complete(bp_tape *tape, bp_index leaf) {
  complete(tape, &tape->slots[leaf]);
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

bp_status bp_sweep_gradient(bp_tape *tape, bp_index leaf, bp_outcome *gradient) {
  bp_slot *slot = &tape->slots[leaf];
  const bp_node *node = &tape->nodes[leaf];
  *gradient = (bp_outcome){.node = BP_NONE, .array = bp_shape_number()};
  if (node->value.rank == 0) {
    if (slot->state == BP_SLOT_EMPTY) tape->cx->stats.zero_fills++;
    gradient->number = slot->state == BP_SLOT_EMPTY ? 0 : slot->number;
    return BP_OK;
  }
  if (slot->state == BP_SLOT_EMPTY) {
    bp_status status = bp_sweep_provide(tape, leaf);
    if (status != BP_OK) return status;
    slot->state = BP_SLOT_OWNED;
    bp_zero_fill(tape->cx, &slot->gradient);
  } else if (slot->state == BP_SLOT_SHARED && bp_slot_is_alone(slot) && bp_into_of(tape, leaf) == NULL) {
    slot->state = BP_SLOT_OWNED;
  } else {
    bp_status status = settle(tape, leaf);
    if (status != BP_OK) return status;
  }
  gradient->array = slot->gradient;
  slot->state = BP_SLOT_EMPTY;
  slot->gradient.buffer = NULL;
  return BP_OK;
}
