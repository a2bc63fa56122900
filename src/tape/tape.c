/* Recording; see tape.h. Room is made before anything is added, so that a node is recorded whole or not at all. */
#include "tape.h"

#include <string.h>

#include "../core/clock.h"
#include "../core/pending.h"

void bp_tape_open(bp_tape *tape, bp_context *cx, uint32_t generation) {
  tape->cx = cx;
  tape->generation = generation;
  tape->sealed = tape->kept = tape->deferring = tape->sweeping = tape->swept = false;
  tape->check_finite = cx->check_finite;
  tape->leaf_count = 0;
  tape->culprit = BP_NONE;
  for (size_t k = 0; k < BP_RECENT_CONSTANTS; k++) tape->constants[k] = BP_NONE;
}

static void release_attributes(bp_context *cx, bp_attributes *a) {
  bp_buffer_release(cx, a->index_buffer);
  bp_array_release(cx, &a->saved);
}

/* Gives back where gradients of leaves were to go, from one leaf on. */
static void forget_into(bp_tape *tape, size_t first) {
  while (tape->into_count > first) {
    bp_buffer *buffer = tape->into[--tape->into_count].buffer;
    if (buffer != NULL) buffer->receiving--;
    bp_buffer_release(tape->cx, buffer);
  }
}

void bp_tape_release_value(bp_tape *tape, bp_index index) {
  const bp_node *node = &tape->nodes[index];
  bp_buffer *buffer = node->value.buffer;
  if (node->kind == BP_NODE_RESULT && buffer != NULL && buffer->waited && buffer->references > 1)
    bp_pending_compute_of(tape->cx, buffer);
  bp_buffer_release(tape->cx, buffer);
}

void bp_tape_close(bp_tape *tape) {
  if (tape->generation == 0) return;
  bp_context *cx = tape->cx;
  const size_t held = tape->swept && !tape->kept ? tape->leaf_count : tape->node_count;
  bp_sweep_end(tape);
  /* Last recorded, first freed: the pool then hands the blocks out again in the order of the next forward. */
  for (size_t k = held; k-- > 0;) bp_tape_release_value(tape, (bp_index)k);
  for (size_t k = tape->attributes_count; k-- > 0;) release_attributes(cx, &tape->attributes[k]);
  forget_into(tape, 0);
  tape->node_count = tape->inputs_count = tape->attributes_count = 0;
  tape->generation = 0;
}

#define FREE_LIST(list, capacity) \
  if (tape->list != NULL) bp_resize(cx, tape->list, tape->capacity * sizeof *tape->list, 0)

void bp_tape_destroy(bp_tape *tape) {
  bp_context *cx = tape->cx;
  bp_tape_close(tape);
  FREE_LIST(nodes, node_capacity);
  FREE_LIST(inputs, inputs_capacity);
  FREE_LIST(attributes, attributes_capacity);
  FREE_LIST(slots, slot_capacity);
  FREE_LIST(pairs, pair_capacity);
  FREE_LIST(into, into_capacity);
  FREE_LIST(arrays, array_capacity);
  FREE_LIST(gradients, gradient_capacity);
  FREE_LIST(asides, aside_capacity);
  memset(tape, 0, sizeof *tape);
}

#define RESERVE(tape, list, count, capacity, more) \
  ((tape)->count + (more) <= (tape)->capacity      \
       ? BP_OK                                     \
       : bp_grow((tape)->cx, (void **)&(tape)->list, &(tape)->capacity, (tape)->count + (more), sizeof *(tape)->list))

bp_status bp_tape_grow(bp_tape *tape, size_t nodes, size_t inputs) {
  if (tape->node_count + nodes >= BP_NONE) return bp_fail(tape->cx, "bp.grad: too many operations for one tape");
  bp_status status = RESERVE(tape, nodes, node_count, node_capacity, nodes);
  if (status == BP_OK && inputs > 3) status = RESERVE(tape, inputs, inputs_count, inputs_capacity, inputs);
  if (status == BP_OK) status = RESERVE(tape, attributes, attributes_count, attributes_capacity, 1);
  return status;
}

/* ---- nodes: room has been reserved ------------------------------------------------------------------------------- */

static bool is_constant(const bp_node *node, const bp_array *value) {
  const bp_array *known = &node->value;
  if (known->rank != value->rank || known->buffer != value->buffer) return false;
  if (value->rank == 0) return memcmp(&node->number, value->data, sizeof node->number) == 0;
  return known->data == value->data && known->rows == value->rows && known->cols == value->cols &&
         known->stride == value->stride && known->dtype == value->dtype && !bp_node_is_changed(node);
}

bp_index bp_tape_constant(bp_tape *tape, const bp_array *value) {
  uint64_t key = (uintptr_t)value->data >> 7;
  if (value->rank == 0) memcpy(&key, value->data, sizeof key), key >>= 48;
  bp_index *recent = &tape->constants[key % BP_RECENT_CONSTANTS];
  if (*recent == BP_NONE || !is_constant(&tape->nodes[*recent], value))
    *recent = bp_tape_add_node(tape, BP_NODE_CONSTANT, value);
  return *recent;
}

bp_array bp_node_value(bp_tape *tape, bp_index index) {
  bp_node *node = &tape->nodes[index];
  bp_array value = node->value;
  if (value.rank == 0) value.data = &node->number;
  return value;
}

bp_status bp_tape_leaf(bp_tape *tape, const bp_array *value, const bp_array *into, bp_index *leaf) {
  bp_status status = bp_tape_reserve(tape, 1, 0);
  size_t into_needed = tape->leaf_count + 1 - tape->into_count;
  if (status == BP_OK && into != NULL) status = RESERVE(tape, into, into_count, into_capacity, into_needed);
  if (status != BP_OK) return status;
  *leaf = bp_tape_add_node(tape, BP_NODE_LEAF, value);
  if (into != NULL) {
    while (tape->into_count < *leaf) tape->into[tape->into_count++] = bp_shape_number();
    tape->into[tape->into_count++] = *into;
    into->buffer->receiving++;
    bp_buffer_retain(into->buffer);
  }
  tape->leaf_count++;
  return BP_OK;
}

void bp_tape_forget(bp_tape *tape, bp_index first) {
  while (tape->leaf_count > first) {
    tape->leaf_count--;
    tape->node_count--;
    bp_buffer_release(tape->cx, tape->nodes[tape->node_count].value.buffer);
  }
  forget_into(tape, first);
}

bp_status bp_tape_object_leaf(bp_tape *tape, bp_index *leaf) {
  double zero = 0;
  bp_array nothing = bp_number_at(&zero);
  bp_status status = bp_tape_leaf(tape, &nothing, NULL, leaf);
  if (status == BP_OK) tape->nodes[*leaf].object = true;
  return status;
}

bp_status bp_node_check(bp_tape *tape, bp_index index, const bp_op *used_by) {
  const bp_node *node = &tape->nodes[index];
  if (!bp_node_is_changed(node)) return BP_OK;
  const char *recorded = node->op == NULL ? NULL : node->op->name;
  bool ours = strchr(used_by->name, '.') == NULL && (used_by->flags & BP_OP_GIVES) == 0;
  return bp_fail(tape->cx, "%s%s: an array that it needs (%s%s) was changed in place after it was recorded",
                 ours ? "bp." : "", used_by->name, recorded == NULL ? "an argument" : "the result of ",
                 recorded == NULL ? "" : recorded);
}

/* ---- recording --------------------------------------------------------------------------------------------------- */

static void set_inputs(bp_tape *tape, bp_node *node, const bp_index *inputs, size_t count) {
  node->input_count = (uint32_t)count;
  if (count <= 3)
    for (size_t k = 0; k < count; k++) node->input[k] = inputs[k];
  else
    node->input[0] = (bp_index)(inputs - tape->inputs);
}

uint32_t bp_tape_add_attributes(bp_tape *tape, const bp_attributes *attributes) {
  tape->attributes[tape->attributes_count++] = *attributes;
  return (uint32_t)tape->attributes_count;
}

/* The operands as nodes: plain ones become constants. The list is the tape's own where there are more than three. */
static const bp_index *operand_nodes(bp_tape *tape, const bp_operands *operands, bp_index *few) {
  size_t count = operands->count;
  bp_index *nodes = few;
  if (count > 3) {
    nodes = &tape->inputs[tape->inputs_count];
    tape->inputs_count += count;
  }
  for (size_t k = 0; k < count; k++) {
    bp_index node = operands->node[k];
    nodes[k] = node != BP_NONE ? node : bp_tape_constant(tape, &operands->array[k]);
    tape->nodes[nodes[k]].uses++;
  }
  return nodes;
}

static bp_index root_of_view(const bp_tape *tape, const bp_array *result, const bp_index *inputs, size_t count) {
  for (size_t k = 0; k < count; k++)
    if (tape->nodes[inputs[k]].value.buffer == result->buffer) return tape->nodes[inputs[k]].root;
  return BP_NONE;
}

bp_status bp_tape_record(bp_tape *tape, const bp_op *op, const bp_operands *operands, const bp_attributes *attributes,
                         const bp_array *results, const bool *objects, size_t result_count, bp_index *first) {
  size_t count = operands->count;
  bp_status status = bp_tape_reserve(tape, count + result_count, count);
  if (status != BP_OK) return status;
  bp_index few[3];
  const bp_index *inputs = operand_nodes(tape, operands, few);
  uint32_t place = attributes == NULL ? 0 : bp_tape_add_attributes(tape, attributes);
  for (size_t k = 0; k < result_count; k++) {
    bp_index index = bp_tape_add_node(tape, BP_NODE_RESULT, &results[k]);
    bp_node *node = &tape->nodes[index];
    if (k == 0) *first = index;
    node->op = op;
    node->attributes = place;
    node->first = *first;
    node->object = objects != NULL && objects[k];
    set_inputs(tape, node, inputs, count);
    if (results[k].buffer != NULL && results[k].buffer->references > 2 && (op->flags & BP_OP_GIVES) == 0) {
      bp_index root = root_of_view(tape, &node->value, inputs, count);
      if (root != BP_NONE) node->root = root;
    }
  }
  if (count > tape->most_inputs) tape->most_inputs = count;
  tape->cx->stats.nodes++;
  return BP_OK;
}

/* ---- applying ---------------------------------------------------------------------------------------------------- */

static bool is_strided(const bp_array *x) {
  return x->rank == 1 && x->stride != 1 && x->rows > 1;
}

/* Gives the result its storage, unless it is a view. */
static bp_status provide(bp_context *cx, bp_array *result, double *number, bool *views) {
  if (result->rank == 0)
    result->data = number;
  else if (result->buffer != NULL)
    return bp_buffer_retain(result->buffer), BP_OK;
  else if (bp_array_allocate(cx, result) != BP_OK)
    return BP_NOMEM;
  *views = false;
  return BP_OK;
}

/* Says whether the operation made what is not finite, or was given it. */
static bp_status check_results(bp_call *call) {
  bool finite = true;
  for (size_t k = 0; k < call->result_count; k++) finite = finite && bp_all_finite(call->cx, &call->result[k]);
  if (finite) return BP_OK;
  for (size_t k = 0; k < call->input_count; k++)
    if (!bp_all_finite(call->cx, &call->input[k]))
      return bp_call_fail(call, "argument %zu has a NaN or inf, and so has the result", k + 1);
  return bp_call_fail(call, "the result has a NaN or inf");
}

/* Whether the rules read an operand that waits: a transpose from its source or, beside a vector, weights to be updated
 * (bp_gemv sees to that). */
static bool reads_pending(const bp_call *call, const bp_array *operand) {
  bool transposed;
  if ((call->op->flags & BP_OP_READS_PENDING) == 0) return false;
  const bool beside_vector = call->input[0].rank == 1 || call->input[1].rank == 1;
  bp_pending_source(call->cx, operand, &transposed);
  return transposed || (beside_vector && bp_has_pending_update(call->cx, operand));
}

/* They are about to be looked at, perhaps by the shape rule. */
static void compute_operands(bp_call *call) {
  for (size_t k = 0; k < call->input_count && call->cx->pending_count != 0; k++)
    if (!reads_pending(call, &call->input[k])) bp_pending_compute(call->cx, &call->input[k]);
}

/* A product not where a NaN is looked for: the operation that made it is named. */
static bool may_wait(const bp_call *call, bool recorded, bool check_finite) {
  return bp_is_transpose(call->op) || (call->cx->products_wait && !recorded && !check_finite && bp_is_product(call));
}

/* Whether a matrix can wait with an array. Not where that may be written without a word, by the host or as a gradient, nor
 * where it is the smaller part of its storage, which would all be kept. */
static bool can_be_kept(const bp_array *array) {
  const bp_buffer *buffer = array->buffer;
  if (buffer == NULL) return true;
  const size_t bytes = bp_count(array) * bp_element_size((bp_dtype)array->dtype), page = 4096;
  return !buffer->exposed && buffer->receiving == 0 && buffer->capacity <= 2 * bytes + page;
}

/* Puts a product or a transpose, which has its storage, off until somebody looks at it. */
static bool postpone(bp_call *call) {
  bp_context *cx = call->cx;
  bp_factors factors = {.right.buffer = NULL};
  factors.left = bp_pending_source(cx, &call->input[0], &factors.left_transposed);
  if (call->input_count == 2) factors.right = bp_pending_source(cx, &call->input[1], &factors.right_transposed);
  if (!can_be_kept(&factors.left) || !can_be_kept(&factors.right)) return false;
  return bp_pending_add(cx, call->result, &factors, false) == BP_OK;
}

/* Shape rule, storage, forward rule. The results and what is saved come with references; on failure nothing does. */
static bp_status compute(bp_call *call, double *numbers, bool recorded, bool check_finite) {
  bp_array *saved = &call->attributes->saved;
  bool views = true;
  size_t provided = 0;
  compute_operands(call);
  bp_status status = call->op->shape(call);
  while (status == BP_OK && provided < call->result_count) {
    status = provide(call->cx, &call->result[provided], &numbers[provided], &views);
    if (status == BP_OK) provided++;
  }
  bool saves = status == BP_OK && saved->rank != 0;
  if (saves) status = bp_array_allocate(call->cx, saved);
  if (status == BP_OK && !(may_wait(call, recorded, check_finite) && postpone(call)) && !views)
    status = call->op->forward(call);
  if (status == BP_OK && check_finite) status = check_results(call);
  if (status != BP_OK) {
    while (provided > 0) bp_buffer_release(call->cx, call->result[--provided].buffer);
    if (saves) bp_buffer_release(call->cx, saved->buffer);
  }
  return status;
}

/* Records the call; what it made belongs to the tape then, and is given back if that fails. */
static bp_status record(bp_tape *tape, bp_call *call, const bp_operands *operands, bool has_attributes,
                        bp_outcome *outcomes) {
  bp_context *cx = call->cx;
  bp_attributes *attributes = call->attributes;
  bp_index first = 0;
  has_attributes = has_attributes || attributes->saved.buffer != NULL;
  bp_buffer_retain(attributes->index_buffer);
  bp_status status = bp_tape_record(tape, call->op, operands, has_attributes ? attributes : NULL, call->result, NULL,
                                    call->result_count, &first);
  if (status != BP_OK) {
    bp_buffer_release(cx, attributes->saved.buffer);
    bp_buffer_release(cx, attributes->index_buffer);
  }
  for (size_t k = 0; k < call->result_count; k++) {
    bp_buffer_release(cx, call->result[k].buffer);
    outcomes[k].node = first + (bp_index)k;
  }
  return status;
}

static void give_out(bp_call *call, bp_outcome *outcomes) {
  bp_buffer_release(call->cx, call->attributes->saved.buffer);
  for (size_t k = 0; k < call->result_count; k++) {
    outcomes[k].node = BP_NONE;
    outcomes[k].array = call->result[k];
    if (call->result[k].rank == 0) outcomes[k].number = *(double *)call->result[k].data;
  }
}

/* Every node that an operand can name needs a gradient, and `tape` is that of the operands. */
static bool is_recorded(const bp_tape *tape, const bp_op *op) {
  return tape != NULL && op->backward != NULL;
}

static bp_status apply(bp_context *cx, bp_tape *tape, const bp_op *op, bp_operands *operands, bp_attributes *attributes,
                       bp_outcome *outcomes) {
  bp_attributes none;
  bp_array results[BP_MAX_RESULTS];
  double numbers[BP_MAX_RESULTS];
  bp_call call = {.cx = cx, .op = op, .input_count = operands->count, .input = operands->array, .result = results};
  call.result_count = op->result_count == 0 ? 1 : op->result_count;
  call.attributes = attributes;
  if (attributes == NULL) {
    none = (bp_attributes){.index_buffer = NULL};
    call.attributes = &none;
  }
  for (size_t k = 0; k < call.result_count; k++) results[k] = bp_shape_number();
  int64_t start = cx->timing ? bp_clock() : 0;
  bool check_finite = tape == NULL ? cx->check_finite : tape->check_finite;
  bp_status status = compute(&call, numbers, tape != NULL, check_finite);
  if (status != BP_OK) return status;
  if (!is_recorded(tape, op)) return give_out(&call, outcomes), BP_OK;
  status = record(tape, &call, operands, attributes != NULL, outcomes);
  if (cx->timing && status == BP_OK) tape->nodes[outcomes[0].node].forward = (float)(bp_clock() - start);
  return status;
}

/* The operation on clones of the strided vectors among the operands. The caller's own stay as they are: where memory
 * runs out it tries again. */
static bp_status apply_contiguous(bp_context *cx, bp_tape *tape, const bp_op *op, const bp_operands *operands,
                                  bp_attributes *attributes, bp_outcome *outcomes) {
  bp_array arrays[BP_FEW_OPERANDS];
  bp_index nodes[BP_FEW_OPERANDS];
  bp_buffer *plain[BP_FEW_OPERANDS] = {NULL};
  bp_operands contiguous = {operands->count, arrays, operands->number, nodes};
  bp_status status = BP_OK;
  for (size_t k = 0; k < operands->count && status == BP_OK; k++) {
    arrays[k] = operands->array[k];
    nodes[k] = operands->node[k];
    if (!is_strided(&arrays[k])) continue;
    bp_outcome clone;
    bp_operands one = {1, &arrays[k], NULL, &nodes[k]};
    status = apply(cx, nodes[k] == BP_NONE ? NULL : tape, bp_clone_row, &one, NULL, &clone);
    if (status != BP_OK) break;
    nodes[k] = clone.node;
    arrays[k] = clone.node == BP_NONE ? clone.array : tape->nodes[clone.node].value;
    if (clone.node == BP_NONE) plain[k] = clone.array.buffer;
  }
  if (status == BP_OK) status = apply(cx, tape, op, &contiguous, attributes, outcomes);
  for (size_t k = 0; k < operands->count; k++) bp_buffer_release(cx, plain[k]);
  return status;
}

static bool has_strided(const bp_operands *operands) {
  for (size_t k = 0; k < operands->count; k++)
    if (is_strided(&operands->array[k])) return true;
  return false;
}

bp_status bp_apply_generally(bp_context *cx, bp_tape *tape, const bp_op *op, bp_operands *operands,
                             bp_attributes *attributes, bp_outcome *outcomes) {
  if ((op->flags & BP_OP_CONTIGUOUS) != 0 && has_strided(operands))
    return apply_contiguous(cx, tape, op, operands, attributes, outcomes);
  return apply(cx, tape, op, operands, attributes, outcomes);
}
