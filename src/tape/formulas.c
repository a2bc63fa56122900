/* Formulas the short way. Most of what is recorded is an element-wise formula (ops/op.h) on numbers alone, or on arrays
 * of one shape and numbers beside them. Such a call needs no shape rule, no windows, nothing set aside, and never fails
 * but for memory, so that it goes straight from the operands to the loops, and back. It does what the general way does,
 * bit for bit; what does not fit is left to that, and so is everything while a profile or a check for NaN watches. */
#include "tape.h"

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

static bool are_numbers(const bp_operands *operands) {
  return operands->array[0].rank == 0 && operands->array[operands->count - 1].rank == 0;
}

static const double *parameters_of(const bp_attributes *attributes) {
  static const double none[2] = {0, 0};
  return attributes == NULL ? none : attributes->number;
}

static void apply_to_numbers(const bp_op *op, const bp_operands *operands, const bp_attributes *attributes,
                             bp_outcome *outcome) {
  const double *number = operands->number;
  outcome->array = bp_number_at(&outcome->number);
  outcome->number = bp_formula_of(op)->numbers->value(number[0], number[operands->count - 1],
                                                      parameters_of(attributes));
}

static void contribute_number(bp_tape *tape, bp_index index, double value) {
  bp_slot *slot = &tape->slots[index];
  if (slot->state == BP_SLOT_EMPTY) {
    slot->state = BP_SLOT_OWNED;
    slot->number = value;
  } else {
    tape->cx->stats.additions++;
    slot->number += value;
  }
}

static const double *parameters_of_node(const bp_tape *tape, const bp_node *node) {
  return parameters_of(node->attributes == 0 ? NULL : &tape->attributes[node->attributes - 1]);
}

/* A number has a slot of its own, nothing to be changed in place and nothing to be handed down. */
static void sweep_numbers(bp_tape *tape, bp_index index) {
  const bp_node *nodes = tape->nodes, *node = &nodes[index];
  const bp_number_rule *rule = bp_formula_of(node->op)->numbers;
  const double *parameters = parameters_of_node(tape, node);
  const bp_index first = node->input[0], last = node->input[node->input_count - 1];
  const double g = tape->slots[index].number, x = nodes[first].number, y = nodes[last].number, z = node->number;
  if (nodes[first].needs) contribute_number(tape, first, rule->adjoint[0](g, x, y, z, parameters));
  if (node->input_count == 2 && nodes[last].needs)
    contribute_number(tape, last, rule->adjoint[1](g, x, y, z, parameters));
}

/* ---- arrays ------------------------------------------------------------------------------------------------------ */

static bool is_like(const bp_array *x, const bp_array *y) {
  return x->rank == y->rank && x->rows == y->rows && x->cols == y->cols && x->dtype == y->dtype;
}

/* The operand whose shape the result has; NULL if a vector is to be repeated, or something does not fit. */
static const bp_array *shaping(const bp_operands *operands) {
  const bp_array *x = &operands->array[0], *y = &operands->array[operands->count - 1];
  if (x == y || y->rank == 0) return x;
  return x->rank == 0 || is_like(x, y) ? y : NULL;
}

#define LOOP_OF(type, cx, op, dtype) BP_LOOP_AT(type, cx, dtype, bp_formula_of(op)->loop)

/* Where the elements of all follow each other there is one loop to be called. */
static void forward(bp_context *cx, const bp_op *op, const bp_array *x, const bp_array *y,
                    const bp_attributes *attributes, bp_array *z) {
  const size_t n = bp_count(z);
  if (y == NULL) {
    if (bp_is_contiguous(x))
      LOOP_OF(bp_unary, cx, op, z->dtype)->forward(n, x->data, z->data, parameters_of(attributes));
    else
      bp_map_unary(cx, bp_formula_of(op)->loop, parameters_of(attributes), x, z);
  } else if (x->rank != 0 && y->rank != 0 && bp_is_contiguous(x) && bp_is_contiguous(y)) {
    LOOP_OF(bp_binary, cx, op, z->dtype)->forward(n, x->data, 1, y->data, 1, z->data);
  } else {
    bp_map_binary(cx, bp_formula_of(op)->loop, x, y, z);
  }
}

static bp_status apply_to_arrays(bp_context *cx, const bp_op *op, const bp_operands *operands,
                                 const bp_attributes *attributes, const bp_array *like, bp_array *result) {
  *result = bp_shape_like(like);
  if (bp_array_allocate(cx, result) != BP_OK) return BP_NOMEM;
  for (size_t k = 0; k < operands->count && cx->pending_count != 0; k++) bp_pending_compute(cx, &operands->array[k]);
  forward(cx, op, &operands->array[0], operands->count == 2 ? &operands->array[1] : NULL, attributes, result);
  return BP_OK;
}

/* Records what has been computed; the tape takes the result's reference, unless it fails. */
static bp_status record(bp_tape *tape, const bp_op *op, const bp_operands *operands, const bp_attributes *attributes,
                        const bp_array *result, bp_index *index) {
  const size_t count = operands->count;
  bp_index inputs[2] = {0};
  bp_status status = bp_tape_reserve(tape, 3, 2);
  if (status != BP_OK) return status;
  for (size_t k = 0; k < count; k++) {
    inputs[k] = operands->node[k];
    if (inputs[k] == BP_NONE) inputs[k] = bp_tape_constant(tape, &operands->array[k]);
    tape->nodes[inputs[k]].uses++;
  }
  *index = bp_tape_add_node(tape, BP_NODE_RESULT, result);
  if (result->buffer != NULL) result->buffer->references--;
  bp_node *node = &tape->nodes[*index];
  node->op = op;
  node->input_count = (uint32_t)count;
  node->input[0] = inputs[0];
  node->input[1] = inputs[1];
  if (attributes != NULL) node->attributes = bp_tape_add_attributes(tape, attributes);
  if (count > tape->most_inputs) tape->most_inputs = count;
  tape->cx->stats.nodes++;
  return BP_OK;
}

/* One operand of a formula in the sweep. A number's array is made here: a node's own has no place that stays. */
typedef struct side {
  const bp_node *node;
  bp_slot *slot;
  const bp_array *value;
  bp_array number;
} side;

static void read_side(const bp_tape *tape, bp_index input, side *s) {
  s->node = &tape->nodes[input];
  s->slot = &tape->slots[input];
  s->value = &s->node->value;
  if (s->value->rank != 0) return;
  s->number = bp_number_at((double *)(uintptr_t)&s->node->number);
  s->value = &s->number;
}

/* Whether what an input gets can simply be written, or added, where its gradient is, and it has not been changed. */
static bool is_simple(bp_index input, const side *s, const bp_array *result, bool unread) {
  if (s->value->rank == 0) return true;
  if (!unread && bp_node_is_changed(s->node)) return false;
  if (!s->node->needs) return true;
  if (s->node->root != input || !is_like(s->value, result)) return false;
  return s->slot->state == BP_SLOT_OWNED || s->slot->state == BP_SLOT_EMPTY;
}

/* The array of a slot goes over to another, which is empty. */
static void hand_over(bp_slot *from, bp_slot *to) {
  to->gradient = from->gradient;
  to->state = bp_slot_is_alone(from) ? BP_SLOT_OWNED : BP_SLOT_SHARED;
  from->gradient.buffer = NULL;
  from->state = BP_SLOT_EMPTY;
}

/* An empty slot gets the cotangent as it is; the last one gets it from the result's slot. */
static void pass(bp_slot *from, bp_slot *to, bool last) {
  if (last)
    hand_over(from, to);
  else
    bp_slot_share(to, &from->gradient);
}

/* Where the contribution to an input goes: for the last one the cotangent's own storage will do, if nobody else has it.
 * The cotangent can still be read in the slot that it is handed over from. */
static bp_status open_slot(bp_tape *tape, bp_index index, bp_index input, const side *s, bool last, bool *accumulate) {
  bp_slot *slot = s->slot, *from = &tape->slots[index];
  const bool to_caller = bp_into_of(tape, input) != NULL;
  bp_status status = BP_OK;
  *accumulate = slot->state != BP_SLOT_EMPTY;
  if (*accumulate) return BP_OK;
  if (s->value->rank != 0 && last && !to_caller && bp_slot_is_alone(from)) return hand_over(from, slot), BP_OK;
  if (s->value->rank != 0) status = bp_sweep_provide(tape, input);
  if (status == BP_OK) slot->state = BP_SLOT_OWNED;
  if (status == BP_OK && to_caller) status = bp_sweep_check_into(tape, index, 1);
  return status;
}

/* The contribution to input k, whose slot is open. */
static void backward(bp_tape *tape, const bp_node *node, size_t k, const bp_array *g, const side *sides,
                     bool accumulate) {
  bp_context *cx = tape->cx;
  const bp_array *x = sides[0].value, *y = sides[node->input_count - 1].value, *z = &node->value;
  const bp_array *to = &sides[k].slot->gradient;
  const double *parameters = parameters_of_node(tape, node);
  if ((x == y || is_like(x, y)) && bp_is_contiguous(g) && bp_is_contiguous(x) && bp_is_contiguous(y) &&
      bp_is_contiguous(to)) {
    const size_t n = bp_count(z);
    if (accumulate) cx->stats.additions++;
    if (node->input_count == 1)
      LOOP_OF(bp_unary, cx, node->op, z->dtype)
          ->backward(n, g->data, x->data, z->data, to->data, accumulate, parameters);
    else
      LOOP_OF(bp_binary, cx, node->op, z->dtype)
          ->backward[k](n, g->data, x->data, 1, y->data, 1, z->data, to->data, accumulate);
    return;
  }
  const bp_gradient d = {.to = sides[k].value->rank == 0 ? bp_number_at(&sides[k].slot->number) : *to,
                         .accumulate = accumulate};
  if (node->input_count == 1)
    bp_map_unary_adjoint(cx, bp_formula_of(node->op)->loop, parameters, g, x, z, &d);
  else
    bp_map_binary_adjoint(cx, bp_formula_of(node->op)->loop, (int)k, g, x, y, z, &d);
}

static bool sweep_arrays(bp_tape *tape, bp_index index, bp_status *status) {
  const bp_node *node = &tape->nodes[index];
  const bp_index *input = node->input;
  const size_t count = node->input_count;
  const unsigned passes = node->op->passes;
  const bool unread = (node->op->flags & BP_OP_VALUES_UNREAD) != 0;
  bp_slot *slot = &tape->slots[index];
  side sides[2];
  if (slot->state == BP_SLOT_PARTIAL || (!unread && bp_node_is_changed(node))) return false;
  /* Of f(x, x) the second would find what the first has shared. */
  if (passes != 0 && input[0] == input[count - 1]) return false;
  size_t last = 0;
  for (size_t k = 0; k < count; k++) {
    read_side(tape, input[k], &sides[k]);
    if (!is_simple(input[k], &sides[k], &node->value, unread)) return false;
    if (sides[k].node->needs) last = k + 1;
  }
  for (size_t k = 0; k < last; k++) {
    const side *s = &sides[k];
    bool accumulate;
    if (!s->node->needs) continue;
    if ((passes >> k & 1) != 0 && s->slot->state == BP_SLOT_EMPTY && s->value->rank != 0 &&
        bp_into_of(tape, input[k]) == NULL) {
      pass(slot, s->slot, k + 1 == last);
      continue;
    }
    *status = open_slot(tape, index, input[k], s, k + 1 == last, &accumulate);
    if (*status != BP_OK) return true;
    backward(tape, node, k, &slot->gradient, sides, accumulate);
  }
  return true;
}

/* ---- for the binding and the sweep ------------------------------------------------------------------------------- */

/* A formula whose result is a number, or has the shape of an operand beside which the other is of the same or a number:
 * false where it has not, and then nothing has been done. */
static bool apply_formula(bp_context *cx, bp_tape *tape, const bp_op *op, const bp_operands *operands,
                          const bp_attributes *attributes, bp_outcome *outcome, bp_status *status) {
  outcome->node = BP_NONE;
  if (are_numbers(operands)) {
    apply_to_numbers(op, operands, attributes, outcome);
    *status = BP_OK;
  } else {
    const bp_array *like = shaping(operands);
    if (like == NULL) return false;
    *status = apply_to_arrays(cx, op, operands, attributes, like, &outcome->array);
  }
  if (tape == NULL || op->backward == NULL || *status != BP_OK) return true;
  *status = record(tape, op, operands, attributes, &outcome->array, &outcome->node);
  if (*status != BP_OK) bp_buffer_release(cx, outcome->array.buffer);
  return true;
}

bp_status bp_apply(bp_context *cx, bp_tape *tape, const bp_op *op, bp_operands *operands, bp_attributes *attributes,
                   bp_outcome *outcomes) {
  for (size_t k = 0; k < operands->count && tape != NULL; k++) {
    if (operands->node[k] == BP_NONE || !bp_node_is_changed(&tape->nodes[operands->node[k]])) continue;
    return bp_node_check(tape, operands->node[k], op);
  }
  const bool watched = cx->timing || (tape == NULL ? cx->check_finite : tape->check_finite);
  bp_status status;
  if ((op->flags & BP_OP_FORMULA) != 0 && !watched &&
      apply_formula(cx, tape, op, operands, attributes, outcomes, &status))
    return status;
  return bp_apply_generally(cx, tape, op, operands, attributes, outcomes);
}

bool bp_formula_sweep(bp_tape *tape, bp_index index, bp_status *status) {
  *status = BP_OK;
  if (tape->nodes[index].value.rank != 0) return sweep_arrays(tape, index, status);
  sweep_numbers(tape, index);
  return true;
}
