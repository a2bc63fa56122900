/* The network as a careful C programmer writes it: cblas for the products, libm in plain loops, buffers that are kept.
 * manual_body.h holds the program; it is written once and compiled for both dtypes here. */
#include <cblas.h>
#include <string.h>
#include <tgmath.h>

#include "network.h"

#define REAL double
#define NAME(name) name##_f64
#define BLAS(name) cblas_d##name
#include "manual_body.h"
#undef REAL
#undef NAME
#undef BLAS

#define REAL float
#define NAME(name) name##_f32
#define BLAS(name) cblas_s##name
#include "manual_body.h"
