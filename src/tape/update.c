/* Gradient descent as the end of a sweep: parameters are changed in place, and the gradient of a weight matrix is
 * never multiplied out: W = decay W - rate sum(left right), one product into W for each pair of factors. A single
 * product of two vectors may wait. */
#include "../core/pending.h"
#include "tape.h"

/* One array at two paths is one parameter: it decays once, with the last of its leaves, whose turn is first. (Asked only
 * where the storage has been written since it was tracked: by that turn, for one.) */
static bool is_repeated(const bp_tape *tape, bp_index leaf) {
  for (bp_index k = leaf + 1; k < tape->leaf_count; k++)
    if (tape->nodes[k].value.data == tape->nodes[leaf].value.data) return true;
  return false;
}

bp_status bp_update_prepare(bp_tape *tape) {
  for (bp_index leaf = 0; leaf < tape->leaf_count; leaf++) {
    bp_buffer *buffer = tape->nodes[leaf].value.buffer;
    bp_status status = buffer == NULL ? BP_OK : bp_sweep_before_write(tape->cx, buffer);
    if (status != BP_OK) return status;
  }
  return bp_sweep_check_factors(tape);
}

double bp_updated_number(const bp_tape *tape, bp_index leaf, double decay, double rate) {
  const bp_slot *slot = &tape->slots[leaf];
  return decay * tape->nodes[leaf].number - (slot->state == BP_SLOT_EMPTY ? 0 : rate * slot->number);
}

/* Leaves W = W - rate left right to the product that reads W next (core/pending.h), with copies of the two vectors:
 * a pass over W less. False where it is to be made at once: the factors are matrices, the host may look at W without
 * a word, W is so small that the copies cost more than the pass, or there is no memory. */
static bool postpone(bp_context *cx, double rate, const bp_factors *factors, bp_array *value) {
  enum { FEWEST_ELEMENTS = 1024 };
  const bp_array *left = &factors->left, *right = &factors->right;
  if (left->rank != 1 || value->buffer->exposed || bp_count(value) < FEWEST_ELEMENTS) return false;
  const size_t unit = BP_ALIGNMENT / sizeof(float), second = (left->rows + unit - 1) / unit * unit;
  bp_array copies = bp_shape_vector(second + right->rows, (bp_dtype)value->dtype);
  if (bp_array_allocate(cx, &copies) != BP_OK) return false;
  bp_factors own = {.left = copies, .right = copies};
  own.left.rows = left->rows;
  own.right.rows = right->rows;
  own.right.data = bp_at(&copies, second, 0); /* aligned as the first */
  bp_axpby(cx, -rate, left, 0, &own.left);
  bp_axpby(cx, 1, right, 0, &own.right);
  const bool waits = bp_pending_add(cx, value, &own, true) == BP_OK;
  if (waits) cx->stats.additions++;
  bp_array_release(cx, &copies);
  return waits;
}

/* The pair of factors that is all of a leaf's gradient, or NULL. */
static const bp_pair *only_pair(const bp_tape *tape, const bp_slot *slot) {
  const bp_pair *pair = slot->factors == 0 ? NULL : &tape->pairs[slot->factors - 1];
  return pair != NULL && pair->next == 0 && slot->state == BP_SLOT_EMPTY ? pair : NULL;
}

static void update(bp_tape *tape, const bp_slot *slot, double decay, double rate, bp_array *value) {
  bp_context *cx = tape->cx;
  if (slot->state != BP_SLOT_EMPTY) {
    bp_axpby(cx, -rate, &slot->gradient, decay, value);
    decay = 1;
  }
  for (uint32_t place = slot->factors; place != 0; place = tape->pairs[place - 1].next) {
    bp_add_product(cx, -rate, &tape->pairs[place - 1].factors, decay, value);
    decay = 1;
  }
  if (decay != 1) bp_axpby(cx, decay, value, 0, value);
}

void bp_update_leaf(bp_tape *tape, bp_index leaf, double decay, double rate) {
  const bp_slot *slot = &tape->slots[leaf];
  bp_array *value = &tape->nodes[leaf].value;
  if (decay != 1 && bp_node_is_changed(&tape->nodes[leaf]) && is_repeated(tape, leaf)) decay = 1;
  bp_sweep_complete(tape, leaf);
  bp_pending_compute(tape->cx, value); /* what a leaf of the same storage has left waiting */
  const bp_pair *only = only_pair(tape, slot);
  if (decay != 1 || only == NULL || !postpone(tape->cx, rate, &only->factors, value))
    update(tape, slot, decay, rate, value);
  value->buffer->version++;
}
