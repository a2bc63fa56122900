/* The only file that calls BLAS. The prototypes are declared here: a header rule in the rockspec would fail on Debian,
 * whose cblas.h stands in a folder of the architecture. */
#include "../core/clock.h"
#include "kernels.h"

enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111, TRANSPOSE = 112 };

extern void cblas_dgemm(int order, int trans_a, int trans_b, int m, int n, int k, double alpha, const double *a,
                        int lda, const double *b, int ldb, double beta, double *c, int ldc);
extern void cblas_sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda,
                        const float *b, int ldb, float beta, float *c, int ldc);
extern void openblas_set_num_threads(int threads);
extern int openblas_get_num_threads(void);
extern int openblas_get_num_procs(void);
extern char *openblas_get_corename(void);

/* BLAS wants a leading dimension of at least the row's length, also where there is only one row. */
static int leading(const bp_array *x) {
  return (int)(x->stride > x->cols ? x->stride : x->cols);
}

void bp_blas_gemm(bp_context *cx, double alpha, const bp_array *a, bool a_transposed, const bp_array *b,
                  bool b_transposed, double beta, bp_array *d) {
  const int64_t start = cx->timing ? bp_clock() : 0;
  int m = (int)d->rows, n = (int)d->cols, k = (int)(a_transposed ? a->rows : a->cols);
  int trans_a = a_transposed ? TRANSPOSE : NO_TRANSPOSE, trans_b = b_transposed ? TRANSPOSE : NO_TRANSPOSE;
  if (d->dtype == BP_F64)
    cblas_dgemm(ROW_MAJOR, trans_a, trans_b, m, n, k, alpha, a->data, leading(a), b->data, leading(b), beta, d->data,
                leading(d));
  else
    cblas_sgemm(ROW_MAJOR, trans_a, trans_b, m, n, k, (float)alpha, a->data, leading(a), b->data, leading(b),
                (float)beta, d->data, leading(d));
  if (cx->timing) cx->blas_time += bp_clock() - start;
}

void bp_set_threads(int threads) {
  openblas_set_num_threads(threads);
}

const char *bp_blas_core(void) {
  return openblas_get_corename();
}

bool bp_threads_are_default(void) {
  return openblas_get_num_threads() == openblas_get_num_procs();
}
