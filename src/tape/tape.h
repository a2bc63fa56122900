/* The Wengert tape: one record of a computation, node by node, in the order in which it ran.
 *
 * Invariants: a node's inputs have smaller indices than it has. Nodes are named by index, never by pointer, since the
 * list moves when it grows. A node holds a reference to the storage of its value, and the version that storage had. A
 * tape that is closed gives everything back and begins a new generation; the struct itself lives as long as the state,
 * so that a variable left over can still ask it, and learn that it is stale. */
#ifndef BP_TAPE_TAPE_H
#define BP_TAPE_TAPE_H

#include "../ops/op.h"

typedef uint32_t bp_index;
#define BP_NONE UINT32_MAX

typedef enum bp_node_kind {
  BP_NODE_LEAF,
  BP_NODE_CONSTANT,
  BP_NODE_RESULT,
} bp_node_kind;

typedef struct bp_node {
  const bp_op *op; /* of a result */
  bp_array value;  /* a number's `data` is not used: it would not survive a move */
  double number;
  bp_index input[3]; /* or, of more inputs, input[0] is the place in the tape's list of inputs */
  uint32_t input_count;
  uint32_t uses;           /* as an input */
  uint32_t version;        /* of the value's storage when it was recorded */
  uint32_t attributes;     /* the place in the tape's list plus 1; 0 if there are none */
  bp_index root;           /* of a view the array that it is a part of; otherwise itself */
  bp_index first;          /* the first result of its operation; the others follow it */
  float forward, backward; /* nanoseconds, while the context is timing */
  uint8_t kind;
  uint8_t needs;  /* a leaf's gradient depends on it */
  uint8_t object; /* the value is a Lua object that the binding keeps */
} bp_node;

typedef enum bp_slot_state {
  BP_SLOT_EMPTY,   /* zero */
  BP_SLOT_OWNED,   /* ours alone: may be added to */
  BP_SLOT_SHARED,  /* another slot has the same array: to be copied before it is added to */
  BP_SLOT_PARTIAL, /* only elements `from` to `to` - 1 of a contiguous array are written; the rest is zero */
} bp_slot_state;

/* The cotangent of a node while a sweep runs. */
typedef struct bp_slot {
  bp_array gradient;
  double number;
  size_t from, to;
  uint32_t factors; /* the last of a chain of factor pairs that are part of the gradient, plus 1 */
  uint8_t state;
} bp_slot;

/* Nobody else has the array of a slot; those that it was shared with may have let go. */
static inline bool bp_slot_is_alone(const bp_slot *slot) {
  return slot->gradient.buffer != NULL && slot->gradient.buffer->references == 1;
}

/* An empty slot gets an array that others have, too. */
static inline void bp_slot_share(bp_slot *slot, const bp_array *array) {
  slot->gradient = *array;
  slot->state = BP_SLOT_SHARED;
  bp_buffer_retain(array->buffer);
}

/* Factors that are kept instead of their product. */
typedef struct bp_pair {
  bp_factors factors;
  uint32_t left_version, right_version; /* of their storage */
  uint32_t next;
} bp_pair;

/* A gradient that is written apart, because the place where it belongs overlaps another of the same call. */
typedef struct bp_aside {
  double number;
  bool used;
} bp_aside;

enum { BP_RECENT_CONSTANTS = 8 };

/* First what every operation looks at. */
typedef struct bp_tape {
  bp_context *cx;
  uint32_t generation; /* 0 while it is in no use */
  bool sealed;         /* recording has ended */
  bool check_finite;   /* an operation on it that makes a NaN or inf is an error, whatever the context says */
  bool kept;           /* the sweep will run more than once: values must survive it */
  bool deferring;      /* products of leaf matrices are kept as factors */
  bool sweeping;
  bool swept; /* to the end: the slots of all but leaves are empty, and unless it is kept their values are gone */
  bp_index leaf_count; /* leaves are the first nodes */
  bp_index culprit;    /* the operation at which a sweep failed */
  bp_node *nodes;
  size_t node_count, node_capacity;
  bp_slot *slots; /* one a node from the first seed to the end of the sweep's results */
  size_t slot_count, slot_capacity;
  size_t attributes_count, attributes_capacity;
  bp_attributes *attributes;
  size_t into_count, into_capacity;
  bp_array *into;     /* where given: the leaves' gradients go there */
  size_t most_inputs; /* of an operation recorded: what the lists for its rule have room for in a sweep */
  bp_index constants[BP_RECENT_CONSTANTS]; /* by address or number: an operand that is met again is the same node */
  bp_index *inputs;
  size_t inputs_count, inputs_capacity;
  bp_array *arrays;
  size_t array_capacity;
  bp_gradient *gradients;
  size_t gradient_capacity;
  bp_aside *asides;
  size_t aside_capacity;
  bp_pair *pairs;
  size_t pair_count, pair_capacity;
  struct bp_tape *next_keeper; /* in the context's list, while there are pairs */
  struct bp_tape *next;        /* in the binding's list of all tapes */
} bp_tape;

/* What an operation is applied to, in the form in which its rules want it: the arrays, of which a number's data points
 * to its place in `number`, and the node that each is, BP_NONE for a plain one. */
typedef struct bp_operands {
  size_t count;
  bp_array *array;
  double *number;
  bp_index *node;
} bp_operands;

/* A row has at most so many results; one with BP_OP_CONTIGUOUS at most so many operands. */
enum { BP_MAX_RESULTS = 8, BP_FEW_OPERANDS = 8 };

/* What came out: recorded (node), or (node BP_NONE) a plain number, or a plain array with a reference. */
typedef struct bp_outcome {
  bp_index node;
  double number;
  bp_array array;
} bp_outcome;

void bp_tape_open(bp_tape *tape, bp_context *cx, uint32_t generation);
/* Gives back what the tape holds; its lists keep their memory for the next use. */
void bp_tape_close(bp_tape *tape);
/* Gives the lists back too. */
void bp_tape_destroy(bp_tape *tape);

/* All leaves come before anything else. The value is shared, not copied; `into` may be NULL. */
bp_status bp_tape_leaf(bp_tape *tape, const bp_array *value, const bp_array *into, bp_index *leaf);

/* Forgets all leaves from one on, before anything else is recorded. */
void bp_tape_forget(bp_tape *tape, bp_index first);

/* A leaf, or with an op the result of one, whose value is the binding's. */
bp_status bp_tape_object_leaf(bp_tape *tape, bp_index *leaf);

/* Applies an operation; records it if it has a derivative and one of the operands needs a gradient. `tape` is that of
 * the operands, or NULL. There is one outcome for each result of the row. */
bp_status bp_apply(bp_context *cx, bp_tape *tape, const bp_op *op, bp_operands *operands, bp_attributes *attributes,
                   bp_outcome *outcomes);

/* The same by the rules of the row, whatever the operation is. */
bp_status bp_apply_generally(bp_context *cx, bp_tape *tape, const bp_op *op, bp_operands *operands,
                             bp_attributes *attributes, bp_outcome *outcomes);

/* Records an operation that the binding has run: its results' first index. `objects` says which results have values
 * that are the binding's; an object operand is a node. */
bp_status bp_tape_record(bp_tape *tape, const bp_op *op, const bp_operands *operands, const bp_attributes *attributes,
                         const bp_array *results, const bool *objects, size_t result_count, bp_index *first);

/* Makes room for so many nodes, for the inputs of one where they are more than three, and for attributes. */
bp_status bp_tape_grow(bp_tape *tape, size_t nodes, size_t inputs);

static inline bp_status bp_tape_reserve(bp_tape *tape, size_t nodes, size_t inputs) {
  bool room = tape->node_count + nodes <= tape->node_capacity && tape->node_count + nodes < BP_NONE && inputs <= 3 &&
              tape->attributes_count < tape->attributes_capacity;
  return room ? BP_OK : bp_tape_grow(tape, nodes, inputs);
}

/* Adds a node; there is room. It takes a reference of its own. */
static inline bp_index bp_tape_add_node(bp_tape *tape, bp_node_kind kind, const bp_array *value) {
  const bp_index index = (bp_index)tape->node_count++;
  bp_node *node = &tape->nodes[index];
  node->op = NULL;
  node->value = *value;
  node->number = value->rank == 0 ? *(const double *)value->data : 0;
  node->input_count = 0;
  node->uses = 0;
  node->version = value->buffer == NULL ? 0 : value->buffer->version;
  node->attributes = 0;
  node->root = node->first = index;
  node->forward = node->backward = 0;
  node->kind = (uint8_t)kind;
  node->needs = kind != BP_NODE_CONSTANT;
  node->object = false;
  bp_buffer_retain(value->buffer);
  return index;
}

/* A plain operand as a node, the same as before if it is still one of the last few; there is room. */
bp_index bp_tape_constant(bp_tape *tape, const bp_array *value);
/* Takes the attributes over: their place plus 1; there is room. */
uint32_t bp_tape_add_attributes(bp_tape *tape, const bp_attributes *attributes);

/* A node's value; a number's data points into the tape and is good until something is recorded. */
bp_array bp_node_value(bp_tape *tape, bp_index index);

/* Gives the storage of a node's value back. What has left the call and waits with what the call has made is computed, so
 * that it does not keep that. */
void bp_tape_release_value(bp_tape *tape, bp_index index);

static inline bool bp_node_is_changed(const bp_node *node) {
  return node->value.buffer != NULL && node->value.buffer->version != node->version;
}

/* Fails if the storage of a node's value was written since it was recorded. */
bp_status bp_node_check(bp_tape *tape, bp_index index, const bp_op *used_by);

static inline const bp_index *bp_node_inputs(const bp_tape *tape, const bp_node *node) {
  return node->input_count <= 3 ? node->input : &tape->inputs[node->input[0]];
}

/* ---- formulas.c ---- */

/* The backward rule of a formula that a cotangent has reached: false where it has to go the general way. */
bool bp_formula_sweep(bp_tape *tape, bp_index index, bp_status *status);

/* ---- sweep.c ---- */

/* Where the gradient of a leaf is to go, or NULL. */
static inline bp_array *bp_into_of(bp_tape *tape, bp_index index) {
  return index < tape->into_count && tape->into[index].rank != 0 ? &tape->into[index] : NULL;
}

/* Begins a sweep: all slots empty. */
bp_status bp_sweep_begin(bp_tape *tape);
/* Adds a cotangent, of the node's shape and dtype, to a node's slot; NULL means ones. */
bp_status bp_sweep_seed(bp_tape *tape, bp_index index, const bp_array *cotangent);
void bp_sweep_seed_object(bp_tape *tape, bp_index index);
/* Storage for an empty slot: where the gradient of a leaf is to go, or fresh. */
bp_status bp_sweep_provide(bp_tape *tape, bp_index index);
/* Fails where such storage is what the operation reads that writes to it: its first result, and how many it has. */
bp_status bp_sweep_check_into(bp_tape *tape, bp_index first, size_t result_count);
/* Runs every backward rule that a cotangent reaches, last node first. `host` is handed to the rules. */
bp_status bp_sweep_run(bp_tape *tape, void *host);
/* The gradient of a leaf, with a reference of the caller's own, or written to where it was to go. Of a sweep that keeps
 * factors there is only the step below. */
bp_status bp_sweep_gradient(bp_tape *tape, bp_index leaf, bp_outcome *gradient);
/* Fills what windows have left out of a leaf's gradient with zeros. */
void bp_sweep_complete(bp_tape *tape, bp_index leaf);
/* Storage is about to be written: what is pending and depends on it is computed first, and what a sweep keeps as a factor
 * there is cloned. Nothing is lost if it fails. */
bp_status bp_sweep_before_write(bp_context *cx, bp_buffer *buffer);
/* Fails if a factor that is kept was written all the same. */
bp_status bp_sweep_check_factors(bp_tape *tape);
/* Forgets all slots. */
void bp_sweep_end(bp_tape *tape);

/* For rules that bring arrays of their own instead of writing to destinations (BP_OP_GIVES, the binding's): adds one to
 * the slot of an input. An array that nobody else can write may be taken over. */
enum { BP_OP_GIVES = 1 << 16 };
bp_status bp_sweep_give(bp_tape *tape, bp_index input, const bp_array *array, bool take, bool *taken);
/* The same for a pending product: multiplied into its destination, or kept as factors; it pends no more. Where it has to
 * be given as any array, *taken is false and nothing has been done. */
bp_status bp_sweep_give_product(bp_tape *tape, bp_index input, const bp_array *product, bool *taken);
/* Whether storage is that of an array which receives a gradient. */
bool bp_sweep_receives(const bp_tape *tape, const bp_buffer *buffer);
void bp_sweep_give_object(bp_tape *tape, bp_index input);

/* The tape and the first result's index of the call that runs: for such rules. */
typedef struct bp_sweep_call {
  bp_call call; /* first: a rule may cast */
  bp_tape *tape;
  bp_index first;
  const bp_index *inputs;
} bp_sweep_call;

/* ---- update.c ---- */

/* Before the steps below: saves the factors that they would overwrite. Nothing has changed if it fails. */
bp_status bp_update_prepare(bp_tape *tape);
/* value = decay * value - rate * gradient, in place or left to the product that reads the value next
 * (core/pending.h), for one leaf that is an array; called for the last leaf first. Cannot fail. */
void bp_update_leaf(bp_tape *tape, bp_index leaf, double decay, double rate);
/* The same for a number, which is returned. */
double bp_updated_number(const bp_tape *tape, bp_index leaf, double decay, double rate);

#endif
