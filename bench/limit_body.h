/* The body of limit.c for the dtype REAL. `restrict` holds throughout, since the buffers of a network are disjoint. */

/* Rows that go together, one from each part of the matrix: memory is read in a few long streams, which the processor
 * fetches ahead better than more and shorter ones. With registers of 64 bytes three in f64; in f32 four that follow each
 * other: half as large, the weights are more often in the second cache. With smaller registers four, and two of them for
 * each row, so that additions do not wait for one another. */
#define GROUP (WIDTH == 64 && !F32 ? 3 : 4)
#define EACH (WIDTH == 64 ? 1 : 2)
#define FOLLOW (WIDTH == 64 && F32)
#define FIRST(i) (FOLLOW ? GROUP * (i) : (i))
#define BETWEEN(rows) (FOLLOW ? 1 : (rows) / GROUP)

typedef REAL NAME(vector) __attribute__((vector_size(WIDTH), aligned(sizeof(REAL)), may_alias));
#define LANES (WIDTH / sizeof(REAL))

/* The sum of each of so many rows, from its vectors. */
#if defined(__AVX512F__) && F32
static inline __attribute__((always_inline)) void NAME(sums)(size_t count, NAME(vector) v[GROUP][EACH], REAL *sums) {
  const __m512 a = v[0][0], b = v[1][0], c = v[2][0], d = v[3][0];
  const __m512d ab = (__m512d)(_mm512_unpacklo_ps(a, b) + _mm512_unpackhi_ps(a, b));
  const __m512d cd = (__m512d)(_mm512_unpacklo_ps(c, d) + _mm512_unpackhi_ps(c, d));
  const __m512d all = (__m512d)((__m512)_mm512_unpacklo_pd(ab, cd) + (__m512)_mm512_unpackhi_pd(ab, cd));
  const __m256 half = (__m256)_mm512_castpd512_pd256(all) + (__m256)_mm512_extractf64x4_pd(all, 1);
  const __m128 each = _mm256_castps256_ps128(half) + _mm256_extractf128_ps(half, 1);
  for (size_t k = 0; k < count; k++) sums[k] = each[k];
}
#else
static inline REAL NAME(sum)(NAME(vector) v) {
#ifdef __AVX512F__
  return REDUCE(v);
#else
  REAL s = 0;
  for (size_t k = 0; k < LANES; k++) s += v[k];
  return s;
#endif
}

static inline __attribute__((always_inline)) void NAME(sums)(size_t count, NAME(vector) v[GROUP][EACH], REAL *sums) {
  for (size_t k = 0; k < count; k++) {
    for (size_t e = 1; e < EACH; e++) v[k][0] += v[k][e];
    sums[k] = NAME(sum)(v[k][0]);
  }
}
#endif

static inline NAME(vector) NAME(load)(size_t n, const REAL *from) {
  if (n >= LANES) return *(const NAME(vector) *)from;
#ifdef __AVX512F__
  return LOAD_REST((1U << n) - 1, from);
#else
  NAME(vector) v = {0};
  for (size_t k = 0; k < n; k++) v[k] = from[k];
  return v;
#endif
}

/* The products of so many rows, `distance` apart, with x: independent sums, and x is read once for all. */
static inline __attribute__((always_inline)) void NAME(dots)(size_t count, size_t cols, const REAL *w, size_t distance,
                                                             const REAL *x, REAL *dots) {
  NAME(vector) sums[GROUP][EACH] = {{{0}}};
  size_t j = 0;
  for (; j + EACH * LANES <= cols; j += EACH * LANES)
    for (size_t e = 0; e < EACH; e++) {
      const NAME(vector) v = *(const NAME(vector) *)(x + j + e * LANES);
      for (size_t k = 0; k < count; k++) sums[k][e] += *(const NAME(vector) *)(w + k * distance + j + e * LANES) * v;
    }
  for (; j < cols; j += LANES)
    for (size_t k = 0; k < count; k++)
      sums[k][0] += NAME(load)(cols - j, w + k * distance + j) * NAME(load)(cols - j, x + j);
  NAME(sums)(count, sums, dots);
}

/* y = w x + b */
static void NAME(gemv)(size_t rows, size_t cols, const REAL *restrict w, const REAL *restrict x, const REAL *restrict b,
                       REAL *restrict y) {
  const size_t groups = rows / GROUP, between = BETWEEN(rows);
  REAL dots[4];
  for (size_t i = 0; i < groups; i++) {
    const size_t first = FIRST(i);
    NAME(dots)(GROUP, cols, w + first * cols, between * cols, x, dots);
    for (size_t k = 0; k < GROUP; k++) y[first + k * between] = b[first + k * between] + dots[k];
  }
  for (size_t i = groups * GROUP; i < rows; i++) {
    NAME(dots)(1, cols, w + i * cols, 0, x, dots);
    y[i] = b[i] + dots[0];
  }
}

/* dx = w' d. Four rows at a time, so that dx is read and written a quarter as often. */
static void NAME(gemv_transposed)(size_t rows, size_t cols, const REAL *restrict w, const REAL *restrict d,
                                  REAL *restrict dx) {
  size_t i = rows % 4;
  memset(dx, 0, cols * sizeof *dx);
  for (size_t k = 0; k < i; k++)
#pragma omp simd
    for (size_t j = 0; j < cols; j++) dx[j] += d[k] * w[k * cols + j];
  for (; i < rows; i += 4) {
    const REAL *restrict w0 = w + i * cols, *restrict w1 = w0 + cols;
    const REAL *restrict w2 = w1 + cols, *restrict w3 = w2 + cols;
    const REAL d0 = d[i], d1 = d[i + 1], d2 = d[i + 2], d3 = d[i + 3];
#pragma omp simd
    for (size_t j = 0; j < cols; j++) dx[j] += d0 * w0[j] + d1 * w1[j] + d2 * w2[j] + d3 * w3[j];
  }
}

/* g = d x' */
static void NAME(outer)(size_t rows, size_t cols, const REAL *restrict d, const REAL *restrict x, REAL *restrict g) {
  for (size_t i = 0; i < rows; i++)
#pragma omp simd
    for (size_t j = 0; j < cols; j++) g[i * cols + j] = d[i] * x[j];
}

static inline __attribute__((always_inline)) void NAME(subtract)(size_t count, size_t cols, REAL rate, const REAL *d,
                                                                 size_t between, const REAL *restrict x, REAL *w,
                                                                 size_t distance) {
  REAL factor[4];
  for (size_t k = 0; k < count; k++) factor[k] = rate * d[k * between];
#pragma omp simd
  for (size_t j = 0; j < cols; j++)
    for (size_t k = 0; k < count; k++) w[k * distance + j] -= factor[k] * x[j];
}

/* w = w - rate d x', in the order of gemv backwards, since what gemv read last is in the cache. */
static void NAME(rank1)(size_t rows, size_t cols, REAL rate, const REAL *restrict d, const REAL *restrict x,
                        REAL *restrict w) {
  const size_t groups = rows / GROUP, between = BETWEEN(rows);
  for (size_t i = rows; i-- > groups * GROUP;) NAME(subtract)(1, cols, rate, d + i, 0, x, w + i * cols, 0);
  for (size_t i = groups; i-- > 0;) {
    const size_t first = FIRST(i);
    NAME(subtract)(GROUP, cols, rate, d + first, between, x, w + first * cols, between * cols);
  }
}

/* dx = w' d of the old w, and w = w - rate d x': one pass over w. Four rows at a time, as in gemv_transposed. */
static void NAME(rank1_transposed)(size_t rows, size_t cols, REAL rate, const REAL *restrict d, const REAL *restrict x,
                                   REAL *restrict w, REAL *restrict dx) {
  size_t i = rows % 4;
  memset(dx, 0, cols * sizeof *dx);
  for (size_t k = 0; k < i; k++) {
    const REAL factor = rate * d[k];
#pragma omp simd
    for (size_t j = 0; j < cols; j++) {
      dx[j] += d[k] * w[k * cols + j];
      w[k * cols + j] -= factor * x[j];
    }
  }
  for (; i < rows; i += 4) {
    REAL *restrict w0 = w + i * cols, *restrict w1 = w0 + cols, *restrict w2 = w1 + cols, *restrict w3 = w2 + cols;
    const REAL d0 = d[i], d1 = d[i + 1], d2 = d[i + 2], d3 = d[i + 3];
    const REAL f0 = rate * d0, f1 = rate * d1, f2 = rate * d2, f3 = rate * d3;
#pragma omp simd
    for (size_t j = 0; j < cols; j++) {
      dx[j] += d0 * w0[j] + d1 * w1[j] + d2 * w2[j] + d3 * w3[j];
      w0[j] -= f0 * x[j];
      w1[j] -= f1 * x[j];
      w2[j] -= f2 * x[j];
      w3[j] -= f3 * x[j];
    }
  }
}

/* y = sigmoid(y + b) */
static void NAME(sigmoid)(size_t n, REAL b, REAL *restrict y) {
#pragma omp simd
  for (size_t i = 0; i < n; i++) y[i] = 1 / (1 + EXP(-b - y[i]));
}

/* y = w x + b, and its sigmoid in all layers but the last. */
static void NAME(layer)(network *net, size_t l) {
  const size_t in = width[l], out = width[l + 1], n = net->batch;
  const REAL *x = net->x[l], *w = net->w[l], *b = net->b[l];
  REAL *restrict y = net->x[l + 1];
  if (n == 1) {
    NAME(gemv)(out, in, w, x, b, y);
    if (l + 1 < LAYERS) NAME(sigmoid)(out, 0, y);
    return;
  }
  const int last = (int)(l == 0 ? in : n); /* the input is a row for each of the batch, all else a column */
  GEMM(CblasRowMajor, CblasNoTrans, l == 0 ? CblasTrans : CblasNoTrans, (int)out, (int)n, (int)in, 1, w, (int)in, x,
       last, 0, y, (int)n);
  for (size_t i = 0; i < out; i++, y += n) {
    if (l + 1 < LAYERS)
      NAME(sigmoid)(n, b[i], y);
    else
#pragma omp simd
      for (size_t j = 0; j < n; j++) y[j] += b[i];
  }
}

/* Makes the logits probabilities and, where d is given, d their cotangent. Returns the loss. A block of columns at a
 * time, of which all sums stay in the first cache. */
static double NAME(softmax_cross_entropy)(network *net, REAL *restrict d) {
  enum { BLOCK = 64 };
  const size_t classes = width[LAYERS], n = net->batch;
  const REAL scale = 1 / (REAL)n;
  double loss = 0;
  for (size_t from = 0; from < n; from += BLOCK) {
    const size_t count = n - from < BLOCK ? n - from : BLOCK;
    REAL *restrict p = (REAL *)net->x[LAYERS] + from;
    const REAL *restrict t = (const REAL *)net->target + from * classes;
    REAL largest[BLOCK], total[BLOCK], target[BLOCK], dot[BLOCK];
    memcpy(largest, p, count * sizeof *p);
    for (size_t i = 1; i < classes; i++)
#pragma omp simd
      for (size_t j = 0; j < count; j++) largest[j] = p[i * n + j] > largest[j] ? p[i * n + j] : largest[j];
    for (size_t j = 0; j < count; j++) total[j] = target[j] = dot[j] = 0;
    for (size_t i = 0; i < classes; i++)
#pragma omp simd
      for (size_t j = 0; j < count; j++) {
        const REAL z = p[i * n + j] - largest[j], e = EXP(z);
        target[j] += t[j * classes + i];
        dot[j] += t[j * classes + i] * z;
        total[j] += e;
        p[i * n + j] = e;
      }
    for (size_t j = 0; j < count; j++) {
      loss += (double)(target[j] * LOG(total[j]) - dot[j]);
      total[j] = 1 / total[j];
    }
    for (size_t i = 0; i < classes; i++)
#pragma omp simd
      for (size_t j = 0; j < count; j++) p[i * n + j] *= total[j];
    if (d == NULL) continue;
    for (size_t i = 0; i < classes; i++)
#pragma omp simd
      for (size_t j = 0; j < count; j++) d[i * n + from + j] = scale * (target[j] * p[i * n + j] - t[j * classes + i]);
  }
  return loss / (double)n;
}

static double NAME(forward)(network *net, REAL *d) {
  for (size_t l = 0; l < LAYERS; l++) NAME(layer)(net, l);
  return NAME(softmax_cross_entropy)(net, d);
}

static double NAME(run)(network *net) {
  return NAME(forward)(net, NULL);
}

/* dx = dx x (1 - x), of n values x of a sigmoid. */
static void NAME(sigmoid_adjoint)(size_t n, const REAL *restrict x, REAL *restrict dx) {
#pragma omp simd
  for (size_t i = 0; i < n; i++) dx[i] *= x[i] * (1 - x[i]);
}

/* The cotangent one layer down: d[l - 1] = (w' d[l]) x (1 - x). */
static void NAME(down)(network *net, size_t l) {
  const size_t in = width[l], out = width[l + 1], n = net->batch;
  const REAL *w = net->w[l], *d = net->d[l];
  REAL *dx = net->d[l - 1];
  if (n == 1)
    NAME(gemv_transposed)(out, in, w, d, dx);
  else
    GEMM(CblasRowMajor, CblasTrans, CblasNoTrans, (int)in, (int)n, (int)out, 1, w, (int)in, d, (int)n, 0, dx, (int)n);
  NAME(sigmoid_adjoint)(n * in, net->x[l], dx);
}

/* w = beta w + alpha d x', and b = beta b + alpha times the sums of the rows of d; for a batch. */
static void NAME(product)(network *net, size_t l, REAL alpha, REAL beta, REAL *w, REAL *restrict b) {
  const size_t in = width[l], out = width[l + 1], n = net->batch;
  const REAL *restrict d = net->d[l];
  GEMM(CblasRowMajor, CblasNoTrans, l == 0 ? CblasNoTrans : CblasTrans, (int)out, (int)in, (int)n, alpha, d, (int)n,
       net->x[l], (int)(l == 0 ? in : n), beta, w, (int)in);
  for (size_t i = 0; i < out; i++, d += n) {
    REAL sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t j = 0; j < n; j++) sum += d[j];
    b[i] = alpha * sum + (beta == 0 ? 0 : beta * b[i]);
  }
}

static double NAME(gradient)(network *net) {
  const double loss = NAME(forward)(net, net->d[LAYERS - 1]);
  for (size_t l = LAYERS; l-- > 0;) {
    if (l > 0) NAME(down)(net, l);
    if (net->batch == 1) {
      NAME(outer)(width[l + 1], width[l], net->d[l], net->x[l], net->gw[l]);
      memcpy(net->gb[l], net->d[l], width[l + 1] * sizeof(REAL));
    } else {
      NAME(product)(net, l, 1, 0, net->gw[l], net->gb[l]);
    }
  }
  return loss;
}

static double NAME(descent)(network *net, double rate) {
  const double loss = NAME(forward)(net, net->d[LAYERS - 1]);
  for (size_t l = LAYERS; l-- > 0;) {
    const size_t in = width[l], out = width[l + 1];
    if (net->batch > 1) {
      if (l > 0) NAME(down)(net, l);
      NAME(product)(net, l, (REAL)-rate, 1, net->w[l], net->b[l]);
      continue;
    }
    const REAL *restrict d = net->d[l];
    REAL *restrict b = net->b[l];
    if (l > 0) {
      NAME(rank1_transposed)(out, in, (REAL)rate, d, net->x[l], net->w[l], net->d[l - 1]);
      NAME(sigmoid_adjoint)(in, net->x[l], net->d[l - 1]);
    } else {
      NAME(rank1)(out, in, (REAL)rate, d, net->x[l], net->w[l]);
    }
#pragma omp simd
    for (size_t j = 0; j < out; j++) b[j] -= (REAL)rate * d[j];
  }
  return loss;
}

const program NAME(limit) = {NAME(run), NAME(gradient), NAME(descent)};

/* The sweeps. Several sums, so that no addition waits for another. */
static double NAME(read)(size_t n, const void *from) {
  const REAL *restrict w = from;
  REAL s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  const size_t q = n / 4;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
  for (size_t i = 0; i < q; i++) {
    s0 += w[i];
    s1 += w[q + i];
    s2 += w[2 * q + i];
    s3 += w[3 * q + i];
  }
  return (double)(s0 + s1 + s2 + s3);
}

static void NAME(write)(size_t n, void *to) {
  REAL *restrict g = to;
#pragma omp simd
  for (size_t i = 0; i < n; i++) g[i] = (REAL)0.5;
}

static void NAME(update)(size_t n, void *in) {
  REAL *restrict w = in;
#pragma omp simd
  for (size_t i = 0; i < n; i++) w[i] = w[i] * (REAL)0.5 + (REAL)0.25;
}

static void NAME(square)(size_t n, const void *a, const void *b, void *c) {
  const int size = (int)n;
  GEMM(CblasRowMajor, CblasNoTrans, CblasNoTrans, size, size, size, 1, a, size, b, size, 0, c, size);
}

const sweeps NAME(sweeps) = {NAME(read), NAME(write), NAME(update), NAME(square)};

#undef GROUP
#undef EACH
#undef FOLLOW
#undef FIRST
#undef BETWEEN
#undef LANES
