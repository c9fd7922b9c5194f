/* SPDX-License-Identifier: Apache-2.0 */
/* LoRA dropout (Hu et al. 2021, appendix D; PEFT's lora_dropout): the side path sees its input with some
 * elements dropped and the others scaled up to the same mean (inverted dropout), the frozen path sees all of
 * it.
 *
 * Random bits come from a counter: word j of a token is the j-th output of splitmix64 (Steele et al. 2014)
 * from a state that hashes seed, step, record, matrix and token, and decides on four columns. So a layer that
 * runs again from its checkpoint drops the same elements, threads can begin anywhere, a resumed training goes
 * on with the same masks, and no memory is taken: tiles of x' are made in the scratch of the thread that
 * multiplies them. A factor costs half a nanosecond (x86-64, one core) whenever it is made: in each forward
 * pass, for d_A and for d_x, so up to four times a step. That is a ninth of a step of models whose width is
 * 64 to 192, and less the wider they are, as the other products grow with the rows. */
#include "dropout.h"

#include <math.h>

enum {
    TILE_TOKENS = 64,
    TILE_COLUMNS = 128,
    GRAIN_TOKENS = 16,
    GRAIN_COLUMNS = 32, /* a multiple of a word's columns */
    WORD_COLUMNS = 4,
    FACTOR_WORK = 8 /* multiply-adds that a factor costs as much as */
};
_Static_assert(TILE_TOKENS *TILE_COLUMNS <= LINNET_TILE_FLOATS, "a tile fits a thread's scratch");

#define GOLDEN UINT64_C(0x9e3779b97f4a7c15)
#define LABEL UINT64_C(0x64726f706f757431) /* "dropout1": apart from the seed's other streams */
#define SHARES 65536.0

/* splitmix64's output for a state. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint64_t absorb(uint64_t key, uint64_t value)
{
    return mix(key + GOLDEN * (value + 1));
}

linnet_dropout_mask linnet_dropout_mask_of(const linnet_dropout *dropout, uint64_t matrix)
{
    if (!dropout || !(dropout->share > 0))
        return (linnet_dropout_mask){.scale = 1};
    double share = fmin(fmax(round(dropout->share * SHARES), 1), SHARES - 1);
    const uint64_t values[] = {dropout->seed, dropout->step, dropout->record, matrix};
    uint64_t key = LABEL;
    for (size_t i = 0; i < ARRAY_LEN(values); i++)
        key = absorb(key, values[i]);
    return (linnet_dropout_mask){
        .key = key, .threshold = (uint32_t)share, .scale = (float)(SHARES / (SHARES - share))};
}

void linnet_dropout_factors(const linnet_dropout_mask *dropout_mask, size_t token, size_t first, size_t n,
                            float *factors)
{
    uint64_t state = absorb(dropout_mask->key, token) + GOLDEN * (first / WORD_COLUMNS);
    float scale = dropout_mask->scale;
    uint16_t threshold = (uint16_t)dropout_mask->threshold;
    for (size_t i = 0; i < n;) {
        uint16_t bits[TILE_COLUMNS];
        size_t n_now = n - i < TILE_COLUMNS ? n - i : TILE_COLUMNS;
        for (size_t j = 0; j < n_now; j += WORD_COLUMNS) {
            uint64_t word = mix(state += GOLDEN);
            bits[j] = (uint16_t)word;
            bits[j + 1] = (uint16_t)(word >> 16);
            bits[j + 2] = (uint16_t)(word >> 32);
            bits[j + 3] = (uint16_t)(word >> 48);
        }
        for (size_t j = 0; j < n_now; j++)
            factors[i + j] = bits[j] >= threshold ? scale : 0;
        i += n_now;
    }
}

/* ---- products ---- */

/* One of the three products; what is not of it is NULL. */
typedef struct dropout_work {
    const linnet_product *product;
    const linnet_dropout_mask *dropout_mask;
    const float *x, *a, *u;
    size_t n_tokens, columns, rank;
    float *out; /* h, d_a or d_x */
} dropout_work;

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static float *tile_of(const dropout_work *work, unsigned thread)
{
    return work->product->scratch + thread * work->product->scratch_stride;
}

/* tile (n_tokens, n) = x' of tokens from `token` and columns from `column` on. */
static void drop_tile(const dropout_work *work, size_t token, size_t n_tokens, size_t column, size_t n,
                      float *tile)
{
    for (size_t t = 0; t < n_tokens; t++, tile += n) {
        const float *x = work->x + (token + t) * work->columns + column;
        linnet_dropout_factors(work->dropout_mask, token + t, column, n, tile);
        for (size_t i = 0; i < n; i++)
            tile[i] *= x[i];
    }
}

/* h of tokens [first, last): the sum over columns runs tile by tile. */
static void forward_tokens(void *context, size_t first, size_t last, unsigned thread)
{
    const dropout_work *work = context;
    float *tile = tile_of(work, thread);
    for (size_t token = first; token < last; token += TILE_TOKENS) {
        size_t n_tokens = smaller(TILE_TOKENS, last - token);
        for (size_t column = 0; column < work->columns; column += TILE_COLUMNS) {
            size_t n = smaller(TILE_COLUMNS, work->columns - column);
            drop_tile(work, token, n_tokens, column, n, tile);
            work->product->kernels->gemm_nt(n_tokens, work->rank, n, 1.0f, tile, n, work->a + column,
                                            work->columns, work->out + token * work->rank, work->rank,
                                            column > 0);
        }
    }
}

/* Columns [first, last) of d_a: the sum over tokens runs tile by tile. */
static void backward_a_columns(void *context, size_t first, size_t last, unsigned thread)
{
    const dropout_work *work = context;
    float *tile = tile_of(work, thread);
    for (size_t column = first; column < last; column += TILE_COLUMNS) {
        size_t n = smaller(TILE_COLUMNS, last - column);
        for (size_t token = 0; token < work->n_tokens; token += TILE_TOKENS) {
            size_t n_tokens = smaller(TILE_TOKENS, work->n_tokens - token);
            drop_tile(work, token, n_tokens, column, n, tile);
            work->product->kernels->gemm_tn(work->rank, n, n_tokens, 1.0f, work->u + token * work->rank,
                                            work->rank, tile, n, work->out + column, work->columns, true);
        }
    }
}

static void add_dropped(const dropout_work *work, size_t token, size_t column, size_t n,
                        const float *gradient)
{
    float factors[TILE_COLUMNS], *d_x = work->out + token * work->columns + column;
    linnet_dropout_factors(work->dropout_mask, token, column, n, factors);
    for (size_t i = 0; i < n; i++)
        d_x[i] += factors[i] * gradient[i];
}

/* d_x of tokens [first, last). */
static void backward_x_tokens(void *context, size_t first, size_t last, unsigned thread)
{
    const dropout_work *work = context;
    float *tile = tile_of(work, thread);
    for (size_t token = first; token < last; token += TILE_TOKENS) {
        size_t n_tokens = smaller(TILE_TOKENS, last - token);
        for (size_t column = 0; column < work->columns; column += TILE_COLUMNS) {
            size_t n = smaller(TILE_COLUMNS, work->columns - column);
            work->product->kernels->gemm_nn(n_tokens, n, work->rank, 1.0f, work->u + token * work->rank,
                                            work->rank, work->a + column, work->columns, tile, n, false);
            for (size_t t = 0; t < n_tokens; t++)
                add_dropped(work, token + t, column, n, tile + t * n);
        }
    }
}

void linnet_dropout_forward(const linnet_product *product, const linnet_dropout_mask *dropout_mask,
                            const float *x, size_t n_tokens, size_t columns, const float *a, size_t rank,
                            float *h)
{
    dropout_work work = {product, dropout_mask, x, a, NULL, n_tokens, columns, rank, h};
    linnet_thread_pool_run(linnet_product_pool(product, n_tokens, columns, rank + FACTOR_WORK), n_tokens,
                           GRAIN_TOKENS, forward_tokens, &work);
}

void linnet_dropout_backward_a(const linnet_product *product, const linnet_dropout_mask *dropout_mask,
                               const float *x, size_t n_tokens, size_t columns, const float *u, size_t rank,
                               float *d_a)
{
    dropout_work work = {product, dropout_mask, x, NULL, u, n_tokens, columns, rank, d_a};
    linnet_thread_pool_run(linnet_product_pool(product, n_tokens, columns, rank + FACTOR_WORK), columns,
                           GRAIN_COLUMNS, backward_a_columns, &work);
}

void linnet_dropout_backward_x(const linnet_product *product, const linnet_dropout_mask *dropout_mask,
                               const float *u, size_t n_tokens, size_t columns, const float *a, size_t rank,
                               float *d_x)
{
    dropout_work work = {product, dropout_mask, NULL, a, u, n_tokens, columns, rank, d_x};
    linnet_thread_pool_run(linnet_product_pool(product, n_tokens, columns, rank + FACTOR_WORK), n_tokens,
                           GRAIN_TOKENS, backward_x_tokens, &work);
}
