/* host.softsign(x) = x / (1 + |x|), element by element: an S between -1 and 1 whose derivative is 1 / (1 + |x|)^2. The
 * rules use nothing but their call, so that any number of states on any number of threads may run them (examples/c_op
 * explains an operation at length). */
#include "host.h"

#include <math.h>

static bp_status shape(bp_call *call) {
  const bp_api *api = call->op->data;
  const bp_array *x = &call->input[0];
  if (x->dtype != BP_F64) return api->fail(call, "x must be f64: convert it with astype");
  call->result[0] = x->rank == 0   ? api->number()
                    : x->rank == 1 ? api->vector(x->rows, BP_F64)
                                   : api->matrix(x->rows, x->cols, BP_F64);
  return BP_OK;
}

/* Row i: any matrix may be a window, a vector is one row (BP_OP_CONTIGUOUS). */
static size_t rows_of(const bp_array *x) {
  return x->rank == 2 ? x->rows : 1;
}

static size_t cols_of(const bp_array *x) {
  return x->rank == 2 ? x->cols : x->rows;
}

static double *row_of(const bp_array *x, size_t i) {
  return (double *)x->data + i * x->stride;
}

static bp_status forward(bp_call *call) {
  const bp_array *y = &call->result[0];
  for (size_t i = 0; i < rows_of(y); i++) {
    const double *from = row_of(&call->input[0], i);
    double *to = row_of(y, i);
    for (size_t j = 0; j < cols_of(y); j++) to[j] = from[j] / (1 + fabs(from[j]));
  }
  return BP_OK;
}

static bp_status backward(bp_call *call) {
  const bp_gradient *gradient = &call->gradient[0];
  const bp_array *dy = &call->cotangent[0];
  if (!gradient->wanted) return BP_OK;
  for (size_t i = 0; i < rows_of(dy); i++) {
    const double *x = row_of(&call->input[0], i), *from = row_of(dy, i);
    double *to = row_of(&gradient->to, i);
    for (size_t j = 0; j < cols_of(dy); j++) {
      const double scale = 1 + fabs(x[j]), part = from[j] / (scale * scale);
      to[j] = gradient->accumulate ? to[j] + part : part;
    }
  }
  return BP_OK;
}

bp_op host_softsign(const bp_api *api) {
  return (bp_op){.name = "host.softsign",
                 .signature = "value x",
                 .doc = "An S between -1 and 1, element by element.",
                 .formula = "y = x / (1 + |x|); dx = dy / (1 + |x|)^2",
                 .samples = "{ {0.5}, {bp.vector{0.5, -2}}, {bp.matrix{{1, -3}, {0.2, 0}}} }",
                 .flags = BP_OP_SEQUENTIAL | BP_OP_ELEMENTWISE | BP_OP_CONTIGUOUS,
                 .data = api,
                 .shape = shape,
                 .forward = forward,
                 .backward = backward};
}
