/* Gradient descent as the end of a sweep: parameters are changed in place, and the gradient of a weight matrix is never
 * multiplied out: W = decay W - rate sum(left right), one product into W for each pair of factors. */
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

void bp_update_leaf(bp_tape *tape, bp_index leaf, double decay, double rate) {
  bp_slot *slot = &tape->slots[leaf];
  bp_array *value = &tape->nodes[leaf].value;
  bp_context *cx = tape->cx;
  if (decay != 1 && bp_node_is_changed(&tape->nodes[leaf]) && is_repeated(tape, leaf)) decay = 1;
  bp_sweep_complete(tape, leaf);
  if (slot->state != BP_SLOT_EMPTY) {
    bp_axpby(cx, -rate, &slot->gradient, decay, value);
    decay = 1;
  }
  for (uint32_t place = slot->factors; place != 0; place = tape->pairs[place - 1].next) {
    bp_add_product(cx, -rate, &tape->pairs[place - 1].factors, decay, value);
    decay = 1;
  }
  if (decay != 1) bp_axpby(cx, decay, value, 0, value);
  value->buffer->version++;
}
