/* Products of a matrix and one vector as plain loops at the speed of memory: at batch 1 they beat BLAS calls, whose
 * preparations cost more than the arithmetic. Several rows go together so that each element of the vector that is read
 * or written serves them all. Nothing is skipped where a factor is 0: 0 times NaN is NaN. */
#include "rest.h"

/* ---- rows in groups ---------------------------------------------------------------------------------------------- */

/* Rows that go together: as many as there are streams that the processor fetches ahead well, one from each part of the
 * matrix, since long streams are fetched better than short ones. Of registers of 64 bytes three, and in f32 four rows
 * that follow each other: half as large, a matrix is more often in the second cache, which is larger where there are
 * such registers. Of smaller ones four, and two of them for each row, so that additions do not wait for one another. */
enum { WIDE = LANES * sizeof(real) == 64, GROUP = WIDE && !BP_DTYPE_F32 ? 3 : 4, EACH = WIDE ? 1 : 2 };
enum { FOLLOW = WIDE && BP_DTYPE_F32 };

static inline size_t first_of_group(size_t i) {
  return FOLLOW ? i * GROUP : i;
}

static inline size_t rows_between(size_t rows) {
  return FOLLOW ? 1 : rows / GROUP;
}

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* ---- y = A x ----------------------------------------------------------------------------------------------------- */

typedef real vector __attribute__((vector_size(LANES * sizeof(real)), aligned(sizeof(real)), may_alias));

/* The sum of the elements of each vector, by halves: one after the other, the additions would take longer than a row of
 * some hundred elements. */
#if defined(__AVX512F__) && BP_DTYPE_F32
/* Four vectors at once, however many are asked for: rows in the second cache take so little time that four sums one
 * by one would show. A row has the same sum alone as among others. */
ALWAYS_INLINE void sums_of(size_t count, vector v[GROUP][EACH], real *sums) {
  const __m512 a = v[0][0], b = v[1][0], c = v[2][0], d = v[3][0];
  const __m512d ab = (__m512d)(_mm512_unpacklo_ps(a, b) + _mm512_unpackhi_ps(a, b));
  const __m512d cd = (__m512d)(_mm512_unpacklo_ps(c, d) + _mm512_unpackhi_ps(c, d));
  const __m512d all = (__m512d)((__m512)_mm512_unpacklo_pd(ab, cd) + (__m512)_mm512_unpackhi_pd(ab, cd));
  const __m256 half = (__m256)_mm512_castpd512_pd256(all) + (__m256)_mm512_extractf64x4_pd(all, 1);
  const __m128 each = _mm256_castps256_ps128(half) + _mm256_extractf128_ps(half, 1);
  for (size_t k = 0; k < count; k++) sums[k] = each[k];
}
#else
static inline real sum_of(vector v) {
#ifdef __AVX512F__
  return OF_512(reduce_add)(v);
#else
  union {
    vector all;
    real each[LANES];
  } u = {.all = v};
  for (size_t half = LANES / 2; half > 0; half /= 2)
    for (size_t k = 0; k < half; k++) u.each[k] += u.each[k + half];
  return u.each[0];
#endif
}

ALWAYS_INLINE void sums_of(size_t count, vector v[GROUP][EACH], real *sums) {
  for (size_t k = 0; k < count; k++) {
    for (size_t e = 1; e < EACH; e++) v[k][0] += v[k][e];
    sums[k] = sum_of(v[k][0]);
  }
}
#endif

/* The dot products of so many rows, `distance` elements apart, with x: what is read of x serves them all. */
ALWAYS_INLINE void dots(size_t count, size_t cols, const real *a, size_t distance, const real *x, real *result) {
  vector sums[GROUP][EACH] = {{{0}}};
  const size_t rest = cols & (LANES - 1), whole = cols - rest;
  size_t j = 0;
  for (; j + EACH * LANES <= whole; j += EACH * LANES)
    for (size_t e = 0; e < EACH; e++) {
      const vector v = *(const vector *)(x + j + e * LANES);
      for (size_t k = 0; k < count; k++) sums[k][e] += *(const vector *)(a + k * distance + j + e * LANES) * v;
    }
  for (; EACH > 1 && j < whole; j += LANES)
    for (size_t k = 0; k < count; k++) sums[k][0] += *(const vector *)(a + k * distance + j) * *(const vector *)(x + j);
  if (rest > 0) {
    real v[LANES], w[LANES];
    load_rest(rest, x + whole, v, 0);
    for (size_t k = 0; k < count; k++) {
      load_rest(rest, a + k * distance + whole, w, 0);
      sums[k][0] += *(const vector *)w * *(const vector *)v;
    }
  }
  sums_of(count, sums, result);
}

static void gemv(size_t rows, size_t cols, const void *as, size_t stride, const void *x, void *ys, bool accumulate) {
  const real *a = as;
  real *y = ys;
  const size_t groups = rows / GROUP, between = rows_between(rows);
  for (size_t i = 0; i < groups; i++) {
    const size_t first = first_of_group(i);
    real sums[GROUP];
    dots(GROUP, cols, a + first * stride, between * stride, x, sums);
    for (size_t k = 0; k < GROUP; k++) {
      real *place = &y[first + k * between];
      *place = accumulate ? *place + sums[k] : sums[k];
    }
  }
  for (size_t i = groups * GROUP; i < rows; i++) {
    real sum;
    dots(1, cols, a + i * stride, 0, x, &sum);
    y[i] = accumulate ? y[i] + sum : sum;
  }
}

/* ---- y = A' x ---------------------------------------------------------------------------------------------------- */

static void gemv_transposed(size_t rows, size_t cols, const void *as, size_t stride, const void *xs, void *ys,
                            bool accumulate) {
  const real *a = as, *x = xs;
  real *restrict y = ys;
  size_t i = 0;
  if (!accumulate)
    for (size_t j = 0; j < cols; j++) y[j] = 0;
  for (; i + 4 <= rows; i += 4) {
    const real *restrict a0 = a + i * stride, *restrict a1 = a0 + stride;
    const real *restrict a2 = a1 + stride, *restrict a3 = a2 + stride;
    const real x0 = x[i], x1 = x[i + 1], x2 = x[i + 2], x3 = x[i + 3];
#pragma omp simd
    for (size_t j = 0; j < cols; j++) y[j] += (a0[j] * x0 + a1[j] * x1) + (a2[j] * x2 + a3[j] * x3);
  }
  for (; i < rows; i++) {
    const real *restrict row = a + i * stride;
    const real factor = x[i];
#pragma omp simd
    for (size_t j = 0; j < cols; j++) y[j] += row[j] * factor;
  }
}

/* ---- A = alpha u v' ---------------------------------------------------------------------------------------------- */

/* So many rows of A, `distance` elements apart, += alpha u v'; the elements of u are `between` apart. */
ALWAYS_INLINE void add_rows(size_t count, size_t cols, double alpha, const real *u, size_t between,
                            const real *restrict v, real *a, size_t distance) {
  real factor[GROUP];
  for (size_t k = 0; k < count; k++) factor[k] = C(alpha) * u[k * between];
#pragma omp simd
  for (size_t j = 0; j < cols; j++)
    for (size_t k = 0; k < count; k++) a[k * distance + j] += factor[k] * v[j];
}

/* Adding goes the way of gemv backwards: of a matrix larger than the cache it finds there what the forward has read last,
 * and leaves there what the next one begins with. */
static void add_outer(size_t rows, size_t cols, double alpha, const real *u, const real *restrict v, real *a,
                      size_t stride) {
  const size_t groups = rows / GROUP, between = rows_between(rows);
  for (size_t i = rows; i-- > groups * GROUP;) add_rows(1, cols, alpha, u + i, 0, v, a + i * stride, 0);
  for (size_t i = groups; i-- > 0;) {
    const size_t first = first_of_group(i);
    add_rows(GROUP, cols, alpha, u + first, between, v, a + first * stride, between * stride);
  }
}

/* Writing goes row by row: several streams at a time are slower there. */
static void outer(size_t rows, size_t cols, double alpha, const void *us, const void *vs, void *as, size_t stride,
                  bool accumulate) {
  const real *u = us;
  const real *restrict v = vs;
  if (accumulate) {
    add_outer(rows, cols, alpha, u, v, as, stride);
    return;
  }
  for (size_t i = 0; i < rows; i++) {
    real *restrict row = (real *)as + i * stride;
    const real factor = C(alpha) * u[i];
#pragma omp simd
    for (size_t j = 0; j < cols; j++) row[j] = factor * v[j];
  }
}

/* ---- A = A + u v', y = A x ------------------------------------------------------------------------------------------ */

/* add_rows and then dots, of so many rows, with the same last bits. */
ALWAYS_INLINE void add_and_dot(size_t count, size_t cols, const real *u, size_t between, const real *v, real *a,
                               size_t distance, const real *x, real *result) {
  vector sums[GROUP][EACH] = {{{0}}};
  real factor[GROUP];
  for (size_t k = 0; k < count; k++) factor[k] = u[k * between];
  const size_t rest = cols & (LANES - 1), whole = cols - rest;
  size_t j = 0;
  for (; j + EACH * LANES <= whole; j += EACH * LANES)
    for (size_t e = 0; e < EACH; e++) {
      const vector ve = *(const vector *)(v + j + e * LANES), xe = *(const vector *)(x + j + e * LANES);
      for (size_t k = 0; k < count; k++) {
        vector *place = (vector *)(a + k * distance + j + e * LANES);
        const vector sum = *place + factor[k] * ve;
        *place = sum;
        sums[k][e] += sum * xe;
      }
    }
  for (; EACH > 1 && j < whole; j += LANES)
    for (size_t k = 0; k < count; k++) {
      vector *place = (vector *)(a + k * distance + j);
      *place += factor[k] * *(const vector *)(v + j);
      sums[k][0] += *place * *(const vector *)(x + j);
    }
  if (rest > 0) {
    real vs[LANES], xs[LANES], w[LANES];
    load_rest(rest, v + whole, vs, 0);
    load_rest(rest, x + whole, xs, 0);
    for (size_t k = 0; k < count; k++) {
      load_rest(rest, a + k * distance + whole, w, 0);
      *(vector *)w += factor[k] * *(const vector *)vs;
      store_rest(rest, w, a + k * distance + whole);
      load_rest(rest, a + k * distance + whole, w, 0); /* the other lanes are NaN where u is infinite */
      sums[k][0] += *(const vector *)w * *(const vector *)xs;
    }
  }
  sums_of(count, sums, result);
}

static void outer_gemv(size_t rows, size_t cols, const void *us, const void *vs, void *as, size_t stride,
                       const void *xs, void *ys, bool backwards) {
  const real *u = us, *v = vs, *x = xs;
  real *a = as, *y = ys;
  const size_t groups = rows / GROUP, between = rows_between(rows);
  for (size_t i = 0; i < groups; i++) {
    const size_t first = first_of_group(backwards ? groups - 1 - i : i);
    real sums[GROUP];
    add_and_dot(GROUP, cols, u + first, between, v, a + first * stride, between * stride, x, sums);
    for (size_t k = 0; k < GROUP; k++) y[first + k * between] = sums[k];
  }
  for (size_t i = groups * GROUP; i < rows; i++) add_and_dot(1, cols, u + i, 0, v, a + i * stride, 0, x, y + i);
}

/* ---- D = A' ------------------------------------------------------------------------------------------------------ */

/* Element by element. */
static inline void turn(size_t rows, size_t cols, const real *a, size_t a_stride, real *d, size_t d_stride,
                        bool accumulate) {
  for (size_t j = 0; j < cols; j++)
    for (size_t i = 0; i < rows; i++) {
      real *place = &d[j * d_stride + i];
      *place = accumulate ? *place + a[i * a_stride + j] : a[i * a_stride + j];
    }
}

#if BP_DTYPE_F32
/* In f32 four rows and columns at a time, in registers. (Two in f64 are no faster than element by element.) */
typedef real four __attribute__((vector_size(4 * sizeof(real))));
typedef four four_at __attribute__((aligned(sizeof(real)), may_alias));

#ifdef __clang__
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int places __attribute__((vector_size(4 * sizeof(int))));
#define PICK(a, b, ...) __builtin_shuffle(a, b, (places){__VA_ARGS__})
#endif

/* Of two rows half of the elements, by turns. */
#define LOWER(a, b) PICK(a, b, 0, 4, 1, 5)
#define UPPER(a, b) PICK(a, b, 2, 6, 3, 7)

static inline four get_four(const real *a) {
  return *(const four_at *)a;
}

static inline void put_four(four v, real *d, bool accumulate) {
  if (accumulate) v += get_four(d);
  *(four_at *)d = v;
}

static inline void turn_four(const real *a, size_t a_stride, real *d, size_t d_stride, bool accumulate) {
  const four a0 = get_four(a), a1 = get_four(a + a_stride);
  const four a2 = get_four(a + 2 * a_stride), a3 = get_four(a + 3 * a_stride);
  const four even0 = LOWER(a0, a2), even1 = UPPER(a0, a2), odd0 = LOWER(a1, a3), odd1 = UPPER(a1, a3);
  put_four(LOWER(even0, odd0), d, accumulate);
  put_four(UPPER(even0, odd0), d + d_stride, accumulate);
  put_four(LOWER(even1, odd1), d + 2 * d_stride, accumulate);
  put_four(UPPER(even1, odd1), d + 3 * d_stride, accumulate);
}

static inline void turn_block(size_t rows, size_t cols, const real *a, size_t a_stride, real *d, size_t d_stride,
                              bool accumulate) {
  const size_t whole_rows = rows - rows % 4, whole_cols = cols - cols % 4;
  for (size_t j = 0; j < whole_cols; j += 4)
    for (size_t i = 0; i < whole_rows; i += 4)
      turn_four(a + i * a_stride + j, a_stride, d + j * d_stride + i, d_stride, accumulate);
  turn(rows - whole_rows, cols, a + whole_rows * a_stride, a_stride, d + whole_rows, d_stride, accumulate);
  turn(whole_rows, cols - whole_cols, a + whole_cols, a_stride, d + whole_cols * d_stride, d_stride, accumulate);
}
#else
#define turn_block turn
#endif

/* In square blocks, so that both sides stay in the cache. */
static void transpose(size_t rows, size_t cols, const void *as, size_t a_stride, void *ds, size_t d_stride,
                      bool accumulate) {
  enum { BLOCK = 16 };
  const real *a = as;
  real *d = ds;
  for (size_t i = 0; i < rows; i += BLOCK)
    for (size_t j = 0; j < cols; j += BLOCK)
      turn_block(rows - i < BLOCK ? rows - i : BLOCK, cols - j < BLOCK ? cols - j : BLOCK, a + i * a_stride + j,
                 a_stride, d + j * d_stride + i, d_stride, accumulate);
}

const bp_product_loops NAME(bp_product) = {
    .gemv = gemv,
    .gemv_transposed = gemv_transposed,
    .outer = outer,
    .outer_gemv = outer_gemv,
    .transpose = transpose,
};
