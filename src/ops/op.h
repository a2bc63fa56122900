/* What the rows share: names for the parts of a call, shape checks that read like the messages they give, and the list
 * of families. A family is a file: for each operation its shape rule, forward and backward, then the table of rows. */
#ifndef BP_OPS_OP_H
#define BP_OPS_OP_H

#include "../kernels/kernels.h"

#define INPUT(k) (&call->input[k])
#define RESULT (&call->result[0])
#define COTANGENT (&call->cotangent[0])
#define GRADIENT(k) (&call->gradient[k])
#define WANTED(k) (call->gradient[k].wanted)

/* Sets the message, which begins with the operation's name as users see it, and returns BP_INVALID. */
bp_status bp_call_fail(bp_call *call, const char *format, ...) __attribute__((cold, format(printf, 2, 3)));

/* One rank each for the first inputs; raises the shared message otherwise ("expected a matrix, got 10"). */
bp_status bp_expect_rank(bp_call *call, size_t input, unsigned rank);
/* A vector or a matrix. */
bp_status bp_expect_array(bp_call *call, size_t input);
/* All arrays among the inputs have one dtype, which is stored (f64 when there are only numbers). */
bp_status bp_common_dtype(bp_call *call, bp_dtype *dtype);
/* The result has the shape to which all inputs broadcast. */
bp_status bp_shape_broadcast(bp_call *call);
/* The result has the shape of the first input. */
bp_status bp_shape_same(bp_call *call);

/* What the rows of element-wise formulas carry as their data. On numbers, and on arrays of one shape, the engine calls
 * the loop or the rule for numbers itself, without the rules of the row (formulas.c in src/tape/). */
typedef struct bp_formula {
  size_t loop;
  const bp_number_rule *numbers;
} bp_formula;

enum {
  BP_OP_FORMULA = 1 << 17,
  BP_OP_TO_NUMBER = 1 << 18,    /* the result is a number, unless the first integer, an axis, is given */
  BP_OP_READS_PENDING = 1 << 19 /* operands may be matrices that wait: see core/pending.h */
};

#define BP_FORMULA(name) (&(const bp_formula){BP_LOOP(name), &bp_numbers.name##_})

static inline const bp_formula *bp_formula_of(const bp_op *op) {
  return op->data;
}

typedef struct bp_family {
  const char *source; /* the file */
  const bp_op *rows;
  size_t count;
} bp_family;

/* Ends with NULL. */
extern const bp_family *const bp_families[];

/* The row of `clone`, with which the tape makes strided vectors contiguous. */
extern const bp_op *const bp_clone_row;

/* Activations that a product applies in the same pass: those whose adjoint can be had from their value alone. A number
 * from 1 by the name, 0 if there is none; and the loop. */
int64_t bp_activation_number(const char *name);
size_t bp_activation_loop(int64_t number);

/* For the patterns that the sweep recognises. */
static inline bool bp_is_formula(const bp_op *op, size_t loop) {
  return (op->flags & BP_OP_FORMULA) != 0 && bp_formula_of(op)->loop == loop;
}
bool bp_is_softmax(const bp_op *op);
bool bp_is_transpose(const bp_op *op);
/* What each element of x counts in the sum or the mean of all; 0 for other operations. */
double bp_weight_in_sum(const bp_op *op, const bp_array *x);

/* Whether the result of a call is the product of its two inputs, and a matrix. */
bool bp_is_product(const bp_call *call);

#define FAMILY(name) const bp_family bp_##name##_family = {"src/ops/" #name ".c", rows, sizeof rows / sizeof rows[0]}

#endif
