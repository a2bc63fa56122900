/* The body of manual.c for the dtype REAL. */

/* y = sigmoid(x w' + b), or without the sigmoid. */
static void NAME(layer)(network *net, size_t l) {
  const int rows = (int)net->batch, in = (int)width[l], out = (int)width[l + 1];
  const REAL *x = net->x[l], *w = net->w[l], *b = net->b[l];
  REAL *y = net->x[l + 1];
  for (int i = 0; i < rows; i++) memcpy(y + i * out, b, (size_t)out * sizeof *y);
  if (rows == 1)
    BLAS(gemv)(CblasRowMajor, CblasNoTrans, out, in, 1, w, in, x, 1, 1, y, 1);
  else
    BLAS(gemm)(CblasRowMajor, CblasNoTrans, CblasTrans, rows, out, in, 1, x, in, w, in, 1, y, out);
  if (l + 1 < LAYERS)
    for (int i = 0; i < rows * out; i++) y[i] = 1 / (1 + exp(-y[i]));
}

/* Makes the logits probabilities, each row with its largest element as the shift, and returns the loss. */
static double NAME(softmax_cross_entropy)(network *net) {
  const size_t n = width[LAYERS];
  double loss = 0;
  for (size_t i = 0; i < net->batch; i++) {
    REAL *p = (REAL *)net->x[LAYERS] + i * n;
    const REAL *t = (const REAL *)net->target + i * n;
    REAL largest = p[0], total = 0;
    for (size_t j = 1; j < n; j++)
      if (p[j] > largest) largest = p[j];
    for (size_t j = 0; j < n; j++) total += exp(p[j] - largest);
    const REAL shift = largest + log(total);
    for (size_t j = 0; j < n; j++) {
      loss += t[j] * (shift - p[j]);
      p[j] = exp(p[j] - shift);
    }
  }
  return loss / (double)net->batch;
}

static double NAME(run)(network *net) {
  for (size_t l = 0; l < LAYERS; l++) NAME(layer)(net, l);
  return NAME(softmax_cross_entropy)(net);
}

/* The cotangent of the logits: (sum(target) * probabilities - target) / batch. */
static void NAME(logits_backward)(network *net) {
  const size_t n = width[LAYERS];
  const REAL scale = 1 / (REAL)net->batch;
  for (size_t i = 0; i < net->batch; i++) {
    const REAL *p = (const REAL *)net->x[LAYERS] + i * n, *t = (const REAL *)net->target + i * n;
    REAL *d = (REAL *)net->d[LAYERS - 1] + i * n;
    REAL total = 0;
    for (size_t j = 0; j < n; j++) total += t[j];
    for (size_t j = 0; j < n; j++) d[j] = scale * (total * p[j] - t[j]);
  }
}

/* The cotangent one layer down. */
static void NAME(down)(network *net, size_t l) {
  const int rows = (int)net->batch, in = (int)width[l], out = (int)width[l + 1];
  const REAL *x = net->x[l], *w = net->w[l], *d = net->d[l];
  REAL *dx = net->d[l - 1];
  if (rows == 1)
    BLAS(gemv)(CblasRowMajor, CblasTrans, out, in, 1, w, in, d, 1, 0, dx, 1);
  else
    BLAS(gemm)(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, in, out, 1, d, out, w, in, 0, dx, in);
  for (int i = 0; i < rows * in; i++) dx[i] *= x[i] * (1 - x[i]);
}

/* w += alpha d' x and b += alpha times the sum of the rows of d. */
static void NAME(accumulate)(network *net, size_t l, REAL alpha, REAL *w, REAL *b) {
  const int rows = (int)net->batch, in = (int)width[l], out = (int)width[l + 1];
  const REAL *x = net->x[l], *d = net->d[l];
  if (rows == 1)
    BLAS(ger)(CblasRowMajor, out, in, alpha, d, 1, x, 1, w, in);
  else
    BLAS(gemm)(CblasRowMajor, CblasTrans, CblasNoTrans, out, in, rows, alpha, d, out, x, in, 1, w, in);
  for (int i = 0; i < rows; i++) BLAS(axpy)(out, alpha, d + i * out, 1, b, 1);
}

static double NAME(gradient)(network *net) {
  const double loss = NAME(run)(net);
  NAME(logits_backward)(net);
  for (size_t l = LAYERS; l-- > 0;) {
    if (l > 0) NAME(down)(net, l);
    memset(net->gw[l], 0, width[l + 1] * width[l] * sizeof(REAL));
    memset(net->gb[l], 0, width[l + 1] * sizeof(REAL));
    NAME(accumulate)(net, l, 1, net->gw[l], net->gb[l]);
  }
  return loss;
}

static double NAME(descent)(network *net, double rate) {
  const double loss = NAME(run)(net);
  NAME(logits_backward)(net);
  for (size_t l = LAYERS; l-- > 0;) {
    if (l > 0) NAME(down)(net, l);
    NAME(accumulate)(net, l, (REAL)-rate, net->w[l], net->b[l]);
  }
  return loss;
}

const program NAME(manual) = {NAME(run), NAME(gradient), NAME(descent)};
