/* The network as fast as we can write it by hand: the yardstick of every mode. limit_body.h holds the program; it is
 * written once and compiled for both dtypes here.
 *
 * Batch 1 is bound by the traffic of the weights: each pass over them is one vectorised loop, gradients are written
 * (never zeroed and added to), and descent puts the rank-1 update straight into the weights: of an inner layer in
 * the pass that makes the cotangent below, of the first in the order of the forward pass backwards, since the rows
 * that came last are still in the cache. A batch is bound by arithmetic: OpenBLAS multiplies (no loop of ours is
 * faster there), everything else is one vectorised pass, and descent is one product with alpha = -rate and beta = 1
 * into the weights. What the layers of a batch give is kept transposed, units x batch, which OpenBLAS computes 5 to
 * 15 % faster than batch x units. No -ffast-math. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
/* From the compiler's vector library; declared before math.h, which declares the same function. */
__attribute__((simd("notinbranch"))) float expf(float);
#ifdef __AVX512F__
#pragma GCC target("prefer-vector-width=512")
#endif
#endif

#include <cblas.h>
#ifdef __AVX512F__
#include <immintrin.h>
#define WIDTH 64 /* bytes of a vector register: a wider vector would live in memory */
#else
#define WIDTH 32
#endif
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "exp_inline.h"
#include "network.h"

#define REAL double
#define F32 0
#define NAME(name) name##_f64
#define EXP exp_inline
#define LOG log
#define GEMM cblas_dgemm
#define REDUCE _mm512_reduce_add_pd
#define LOAD_REST(mask, from) _mm512_maskz_loadu_pd((__mmask8)(mask), from)
#include "limit_body.h"
#undef REAL
#undef F32
#undef NAME
#undef GEMM
#undef REDUCE
#undef LOAD_REST
#undef EXP
#undef LOG

#define REAL float
#define F32 1
#define NAME(name) name##_f32
#define EXP expf
#define LOG logf
#define GEMM cblas_sgemm
#define REDUCE _mm512_reduce_add_ps
#define LOAD_REST(mask, from) _mm512_maskz_loadu_ps((__mmask16)(mask), from)
#include "limit_body.h"
