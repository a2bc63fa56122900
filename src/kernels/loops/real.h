/* What makes one source serve both dtypes and every level: `real`, NAME and C. */
#ifndef BP_KERNELS_REAL_H
#define BP_KERNELS_REAL_H

/* The compiler's vector library (glibc's libmvec) has these; without it the attribute is ignored or absent and the
 * loops call libm. Declared before math.h, which declares the same functions. Not those that mathematics.h has. */
#include <limits.h> /* any system header, for __GLIBC__ */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__)
#if __GLIBC_PREREQ(2, 35)
#define VECTORISED(name)                                    \
  __attribute__((simd("notinbranch"))) double name(double); \
  __attribute__((simd("notinbranch"))) float name##f(float);
VECTORISED(log)
VECTORISED(log1p)
#ifdef __AVX2__ /* that in two lanes is up to 3.1 units off */
VECTORISED(asin)
#endif
__attribute__((simd("notinbranch"))) float sinf(float);
__attribute__((simd("notinbranch"))) float cosf(float);
VECTORISED(acos)
VECTORISED(atan)
VECTORISED(sinh)
VECTORISED(cosh)
VECTORISED(tanh)
VECTORISED(erfc)
__attribute__((simd("notinbranch"))) double pow(double, double);
__attribute__((simd("notinbranch"))) float powf(float, float);
#undef VECTORISED
#endif
#endif

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <tgmath.h>

#include "../loops.h"

#define PASTE_(a, b, c) a##b##_##c
#define PASTE(a, b, c) PASTE_(a, b, c)
#if BP_DTYPE_F32
typedef float real;
#define LARGEST_FINITE FLT_MAX
#define NAME(name) PASTE(name, _f32, BP_LEVEL)
#else
typedef double real;
#define LARGEST_FINITE DBL_MAX
#define NAME(name) PASTE(name, _f64, BP_LEVEL)
#endif

#define C(constant) ((real)(constant))

/* Eager, so that loops vectorise. */
static inline real SELECT(bool condition, real chosen, real other) {
  return condition ? chosen : other;
}

/* An adjoint (formulas.h) whose slope is made from an operand, from x and y, or from none: 0 where the cotangent g is 0,
 * unless the operand is NaN. */
#define FROM_IF(is_number, adjoint) SELECT(g == 0 && (is_number), C(0), adjoint)
#define FROM(operand, adjoint) FROM_IF(operand == operand, adjoint)
#define FROM_BOTH(adjoint) FROM_IF(x == x && y == y, adjoint)
#define FROM_NONE(adjoint) FROM_IF(true, adjoint)

/* What each file of this folder exports. */
extern const bp_map_loops NAME(bp_map);
extern const bp_reduce_loops NAME(bp_reduce);
extern const bp_product_loops NAME(bp_product);
extern const bp_softmax_loops NAME(bp_softmax);

#endif
