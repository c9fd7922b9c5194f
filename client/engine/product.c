/* SPDX-License-Identifier: Apache-2.0 */
/* Threaded products with weights in the file's type. Many tokens: a tile of W is decoded to float32 into the
 * thread's scratch, small enough to stay in the first-level cache beside a panel of the gemm that applies it
 * to all tokens; every weight is decoded once. A few tokens: dot products straight from the file's bytes.
 * Threads share the outputs' columns out; the sum of an output runs in blocks of fixed size in a fixed order,
 * so that no partition shows. */
#include "kernels.h"

enum {
    FORWARD_ROWS = 32,   /* of W in a tile: outputs */
    FORWARD_DEPTH = 128, /* columns of W in a tile: terms of the outputs' sums */
    BACKWARD_COLUMNS = 96,
    BACKWARD_DEPTH = 128, /* rows of W in a tile */
    DOT_TOKENS = 3, /* up to so many, decoding a row again for each is cheaper than turning it for the gemm */
    GRAIN = 32,     /* threads get whole multiples of this: a quantised block, a SIMD panel */
    MIN_PARALLEL_WORK = 1 << 20 /* multiply-adds below which waking a thread costs more than it brings */
};

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t linnet_product_scratch(size_t columns_max)
{
    (void)columns_max;                                /* wide rows go piece by piece */
    return (size_t)BACKWARD_COLUMNS * BACKWARD_DEPTH; /* more than FORWARD_ROWS * FORWARD_DEPTH */
}

/* The pool, or NULL where the work is too little for it: 0 < a b c, which may be beyond SIZE_MAX. */
static linnet_thread_pool *pool_for(const linnet_product *product, size_t a, size_t b, size_t c)
{
    return (double)a * (double)b * (double)c < MIN_PARALLEL_WORK ? NULL : product->pool;
}

/* Columns [first, first + n) of a row; first and n are whole blocks of the type. */
static void decode_piece(const linnet_kernels *kernels, const linnet_matrix *w, size_t row, size_t first,
                         size_t n, float *dst)
{
    const uint8_t *bytes = w->bytes + row * w->row_bytes;
    switch (w->type) {
    case LINNET_TENSOR_F16:
        kernels->decode_f16(bytes + first * 2, dst, n);
        break;
    case LINNET_TENSOR_Q8_0:
        kernels->decode_q8_0(bytes + first / 32 * 34, dst, n);
        break;
    case LINNET_TENSOR_Q4_0:
        kernels->decode_q4_0(bytes + first / 32 * 18, dst, n);
        break;
    default: /* LINNET_TENSOR_F32: the model's open has refused all others */
        memcpy(dst, bytes + first * sizeof(float), n * sizeof(float));
        break;
    }
}

void linnet_row_decode(const linnet_kernels *kernels, const linnet_matrix *w, size_t row, float *dst)
{
    decode_piece(kernels, w, row, 0, w->columns, dst);
}

static float row_dot(const linnet_kernels *kernels, const linnet_matrix *w, size_t row, const float *x)
{
    const uint8_t *bytes = w->bytes + row * w->row_bytes;
    switch (w->type) {
    case LINNET_TENSOR_F16:
        return kernels->dot_f16(bytes, x, w->columns);
    case LINNET_TENSOR_Q8_0:
        return kernels->dot_q8_0(bytes, x, w->columns);
    case LINNET_TENSOR_Q4_0:
        return kernels->dot_q4_0(bytes, x, w->columns);
    default:
        return kernels->dot_f32((const float *)(const void *)bytes, x, w->columns);
    }
}

typedef struct product_work {
    const linnet_product *product;
    const linnet_matrix *w;
    const float *in; /* x or d_y */
    size_t n_tokens;
    float *out; /* y or d_x */
} product_work;

static void forward_few(void *context, size_t first, size_t last, unsigned thread)
{
    const product_work *work = context;
    const linnet_matrix *w = work->w;
    (void)thread;
    for (size_t row = first; row < last; row++)
        for (size_t t = 0; t < work->n_tokens; t++)
            work->out[t * w->rows + row] = row_dot(work->product->kernels, w, row, work->in + t * w->columns);
}

static void forward_many(void *context, size_t first, size_t last, unsigned thread)
{
    const product_work *work = context;
    const linnet_kernels *kernels = work->product->kernels;
    const linnet_matrix *w = work->w;
    float *tile = work->product->scratch + thread * work->product->scratch_stride;
    for (size_t row = first; row < last; row += FORWARD_ROWS) {
        size_t n_rows = smaller(FORWARD_ROWS, last - row);
        for (size_t column = 0; column < w->columns; column += FORWARD_DEPTH) {
            size_t depth = smaller(FORWARD_DEPTH, w->columns - column);
            for (size_t i = 0; i < n_rows; i++)
                decode_piece(kernels, w, row + i, column, depth, tile + i * depth);
            kernels->gemm_nt(work->n_tokens, n_rows, depth, 1.0f, work->in + column, w->columns, tile, depth,
                             work->out + row, w->rows, column > 0);
        }
    }
}

void linnet_product_forward(const linnet_product *product, const linnet_matrix *w, const float *x,
                            size_t n_tokens, float *y)
{
    product_work work = {product, w, x, n_tokens, y};
    if (n_tokens > 0)
        linnet_thread_pool_run(pool_for(product, w->rows, w->columns, n_tokens), w->rows, GRAIN,
                               n_tokens <= DOT_TOKENS ? forward_few : forward_many, &work);
}

/* Columns [first, last) of d_x; first is a whole block. The sum over rows of W runs in blocks of
 * BACKWARD_DEPTH rows. */
static void backward_columns(void *context, size_t first, size_t last, unsigned thread)
{
    const product_work *work = context;
    const linnet_kernels *kernels = work->product->kernels;
    const linnet_matrix *w = work->w;
    float *tile = work->product->scratch + thread * work->product->scratch_stride;
    for (size_t column = first; column < last; column += BACKWARD_COLUMNS) {
        size_t n_columns = smaller(BACKWARD_COLUMNS, last - column);
        for (size_t row = 0; row < w->rows; row += BACKWARD_DEPTH) {
            size_t depth = smaller(BACKWARD_DEPTH, w->rows - row);
            for (size_t i = 0; i < depth; i++)
                decode_piece(kernels, w, row + i, column, n_columns, tile + i * n_columns);
            kernels->gemm_nn(work->n_tokens, n_columns, depth, 1.0f, work->in + row, w->rows, tile, n_columns,
                             work->out + column, w->columns, true);
        }
    }
}

void linnet_product_backward(const linnet_product *product, const linnet_matrix *w, const float *d_y,
                             size_t n_tokens, float *d_x)
{
    product_work work = {product, w, d_y, n_tokens, d_x};
    if (n_tokens > 0)
        linnet_thread_pool_run(pool_for(product, w->rows, w->columns, n_tokens), w->columns, GRAIN,
                               backward_columns, &work);
}

typedef struct gemm_work {
    const linnet_kernels *kernels;
    linnet_gemm_kind kind;
    bool by_columns; /* threads share out n, else m */
    size_t m, n, k;
    float alpha;
    const float *a;
    size_t lda;
    const float *b;
    size_t ldb;
    float *c;
    size_t ldc;
    bool accumulate;
} gemm_work;

static void gemm_part(void *context, size_t first, size_t last, unsigned thread)
{
    const gemm_work *work = context;
    size_t m = work->m, n = work->n;
    const float *a = work->a, *b = work->b;
    float *c = work->c;
    (void)thread;
    if (work->by_columns) {
        n = last - first;
        b += work->kind == LINNET_GEMM_NT ? first * work->ldb : first;
        c += first;
    } else {
        m = last - first;
        a += work->kind == LINNET_GEMM_TN ? first : first * work->lda;
        c += first * work->ldc;
    }
    switch (work->kind) {
    case LINNET_GEMM_NT:
        work->kernels->gemm_nt(m, n, work->k, work->alpha, a, work->lda, b, work->ldb, c, work->ldc,
                               work->accumulate);
        break;
    case LINNET_GEMM_NN:
        work->kernels->gemm_nn(m, n, work->k, work->alpha, a, work->lda, b, work->ldb, c, work->ldc,
                               work->accumulate);
        break;
    case LINNET_GEMM_TN:
        work->kernels->gemm_tn(m, n, work->k, work->alpha, a, work->lda, b, work->ldb, c, work->ldc,
                               work->accumulate);
        break;
    }
}

void linnet_product_gemm(const linnet_product *product, linnet_gemm_kind kind, size_t m, size_t n, size_t k,
                         float alpha, const float *a, size_t lda, const float *b, size_t ldb, float *c,
                         size_t ldc, bool accumulate)
{
    linnet_thread_pool *pool = pool_for(product, m, n, k);
    gemm_work work = {product->kernels,
                      kind,
                      n / GRAIN >= linnet_thread_pool_size(pool),
                      m,
                      n,
                      k,
                      alpha,
                      a,
                      lda,
                      b,
                      ldb,
                      c,
                      ldc,
                      accumulate};
    linnet_thread_pool_run(pool, work.by_columns ? n : m, work.by_columns ? GRAIN : GRAIN / 2, gemm_part,
                           &work);
}
