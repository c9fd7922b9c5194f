/* SPDX-License-Identifier: Apache-2.0 */
/* Threaded products with weights in the file's type. Many tokens: a tile of W is decoded to float32 into the
 * thread's scratch, small enough to stay in the first-level cache beside a panel of the gemm that applies it
 * to all tokens; every weight is decoded once. A few tokens: dot products straight from the file's bytes.
 * Threads share the outputs' columns out; the sum of an output runs in blocks of fixed size in a fixed order,
 * so that no partition shows. */
#include "kernels.h"

enum {
    DOT_TOKENS = 3, /* up to so many, decoding a row again for each is cheaper than turning it for the gemm */
    GRAIN = 32,     /* threads get whole multiples of this: a small quantised block, a SIMD panel */
    MIN_PARALLEL_WORK = 1 << 20 /* multiply-adds below which waking a thread costs more than it brings */
};

/* How W is cut: in whole blocks of its type. */
typedef struct tiling {
    size_t forward_rows;     /* of W in a tile: outputs */
    size_t forward_depth;    /* columns of W in a tile: terms of the outputs' sums */
    size_t backward_columns; /* of W in a tile, and what threads get multiples of */
    size_t backward_depth;   /* rows of W in a tile */
    size_t backward_grain;
} tiling;

static tiling tiling_of(uint32_t type)
{
    size_t elements = 1, bytes;
    (void)linnet_tensor_type_info(type, &elements, &bytes);
    return elements <= GRAIN ? (tiling){32, 128, 96, 128, GRAIN} : (tiling){16, 256, 256, 48, 256};
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t linnet_product_scratch(size_t columns_max)
{
    (void)columns_max; /* wide rows go piece by piece */
    return LINNET_TILE_FLOATS;
}

linnet_thread_pool *linnet_product_pool(const linnet_product *product, size_t a, size_t b, size_t c)
{
    return (double)a * (double)b * (double)c < MIN_PARALLEL_WORK ? NULL : product->pool;
}

/* Columns [first, first + n) of a row; first and n are whole blocks of the type. */
static void decode_piece(const linnet_kernels *kernels, const linnet_matrix *w, size_t row, size_t first,
                         size_t n, float *dst)
{
    kernels->formats[w->type].decode(w->bytes + row * w->row_bytes + first * w->row_bytes / w->columns, dst,
                                     n);
}

void linnet_row_decode(const linnet_kernels *kernels, const linnet_matrix *w, size_t row, float *dst)
{
    decode_piece(kernels, w, row, 0, w->columns, dst);
}

bool linnet_type_runs(uint32_t type)
{
    return type < LINNET_FORMATS && linnet_kernels_scalar()->formats[type].decode;
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
    const linnet_format *format = &work->product->kernels->formats[w->type];
    (void)thread;
    for (size_t row = first; row < last; row++)
        for (size_t t = 0; t < work->n_tokens; t++)
            work->out[t * w->rows + row] =
                format->dot(w->bytes + row * w->row_bytes, work->in + t * w->columns, w->columns);
}

static void forward_many(void *context, size_t first, size_t last, unsigned thread)
{
    const product_work *work = context;
    const linnet_kernels *kernels = work->product->kernels;
    const linnet_matrix *w = work->w;
    const tiling cut = tiling_of(w->type);
    float *tile = work->product->scratch + thread * work->product->scratch_stride;
    for (size_t row = first; row < last; row += cut.forward_rows) {
        size_t n_rows = smaller(cut.forward_rows, last - row);
        for (size_t column = 0; column < w->columns; column += cut.forward_depth) {
            size_t depth = smaller(cut.forward_depth, w->columns - column);
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
        linnet_thread_pool_run(linnet_product_pool(product, w->rows, w->columns, n_tokens), w->rows, GRAIN,
                               n_tokens <= DOT_TOKENS ? forward_few : forward_many, &work);
}

/* Columns [first, last) of d_x; first is a whole block. The sum over rows of W runs in blocks of
 * fixed depth. */
static void backward_columns(void *context, size_t first, size_t last, unsigned thread)
{
    const product_work *work = context;
    const linnet_kernels *kernels = work->product->kernels;
    const linnet_matrix *w = work->w;
    const tiling cut = tiling_of(w->type);
    float *tile = work->product->scratch + thread * work->product->scratch_stride;
    for (size_t column = first; column < last; column += cut.backward_columns) {
        size_t n_columns = smaller(cut.backward_columns, last - column);
        for (size_t row = 0; row < w->rows; row += cut.backward_depth) {
            size_t depth = smaller(cut.backward_depth, w->rows - row);
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
        linnet_thread_pool_run(linnet_product_pool(product, w->rows, w->columns, n_tokens), w->columns,
                               tiling_of(w->type).backward_grain, backward_columns, &work);
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
    linnet_thread_pool *pool = linnet_product_pool(product, m, n, k);
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
