/* SPDX-License-Identifier: Apache-2.0 */
/* Attention, causal unless it sees all, a head and QUERIES queries at a time: their scores against all keys
 * they may see fit one thread's tile, so that no tokens x tokens matrix exists beyond it; the backward pass
 * makes the probabilities again (Dao et al. 2022, FlashAttention, algorithm 4, without its inner blocks over
 * keys). Queries of a tile see different keys: the products run over all that one of them sees and the rest
 * of a row is zero. In the backward pass the heads of a group share keys and values; each writes gradients of
 * its own, which are then summed in the order of heads, so that the result does not depend on threads. */
#include "attention.h"

#include <math.h>

#include "ops.h"

enum { QUERIES = LINNET_ATTENTION_QUERIES };

typedef struct attention_work {
    const linnet_attention *attention;
    size_t query_width, kv_width; /* row lengths of q and of k, v */
    const float *q, *k, *v, *d_out;
    float *out;         /* forward */
    float *d_q, *heads; /* backward: d_q is where q stands */
    float *d_k, *d_v;
} attention_work;

static attention_work work_of(const linnet_attention *attention)
{
    return (attention_work){.attention = attention,
                            .query_width = attention->n_heads * attention->head_width,
                            .kv_width = attention->n_kv_heads * attention->head_width};
}

/* Multiply-adds of one of its two products. */
static double cost_of(const linnet_attention *attention)
{
    return (double)attention->n_heads * (double)attention->head_width * (double)attention->n_queries *
           ((double)attention->position + (double)attention->n_queries);
}

/* ---- scores and probabilities ---- */

/* The keys that queries [start, start + n_rows) see between them. */
typedef struct key_range {
    size_t first, n;
} key_range;

/* The first key that a query at `position` sees. */
static size_t first_key(const linnet_attention *attention, size_t position)
{
    return attention->window != 0 && position >= attention->window ? position + 1 - attention->window : 0;
}

/* The end of the keys that a query at `position` sees. */
static size_t last_key(const linnet_attention *attention, size_t position)
{
    return attention->sees_all ? attention->position + attention->n_queries : position + 1;
}

static key_range keys_of(const linnet_attention *attention, size_t start, size_t n_rows)
{
    size_t first = first_key(attention, attention->position + start);
    return (key_range){first, last_key(attention, attention->position + start + n_rows - 1) - first};
}

/* Entries [first, last) of a row of scores become probabilities, the others up to `stride` zero. */
static void softmax(const linnet_kernels *kernels, float *row, size_t first, size_t last, size_t stride)
{
    size_t n = linnet_tile_stride(last);
    for (size_t i = 0; i < first; i++)
        row[i] = -INFINITY;
    for (size_t i = last; i < n; i++)
        row[i] = -INFINITY;
    float inverse = 1.0f / kernels->exp_sum(row, n, kernels->max(row, n));
    for (size_t i = 0; i < n; i++)
        row[i] *= inverse;
    memset(row + n, 0, (stride - n) * sizeof(float));
}

/* Capped scores of n_rows queries of a head against a range of keys, in rows of `step`. */
static void scores(const attention_work *work, const float *q, size_t q_stride, size_t n_rows, size_t kv_head,
                   key_range keys, float *tile, size_t step)
{
    const linnet_attention *attention = work->attention;
    const linnet_kernels *kernels = attention->work->product.kernels;
    size_t width = attention->head_width;
    kernels->gemm_nt(n_rows, keys.n, width, attention->scale, q, q_stride,
                     work->k + keys.first * work->kv_width + kv_head * width, work->kv_width, tile, step,
                     false);
    for (size_t row = 0; attention->cap > 0 && row < n_rows; row++)
        linnet_soft_cap(kernels, tile + row * step, keys.n, attention->cap);
}

/* ---- forward ---- */

/* One query: the heads that share keys are the rows of one small product. Items are key/value heads. */
static void decode_groups(void *context, size_t first, size_t last, unsigned thread)
{
    const attention_work *work = context;
    const linnet_attention *attention = work->attention;
    const linnet_kernels *kernels = attention->work->product.kernels;
    key_range keys = keys_of(attention, 0, 1);
    size_t width = attention->head_width, step = linnet_tile_stride(keys.n);
    size_t group = attention->n_heads / attention->n_kv_heads;
    float *tile = attention->work->tiles + thread * attention->work->tile_stride;
    for (size_t kv_head = first; kv_head < last; kv_head++)
        for (size_t start = 0; start < group; start += QUERIES) {
            size_t n_rows = group - start < QUERIES ? group - start : QUERIES;
            size_t column = (kv_head * group + start) * width;
            scores(work, work->q + column, width, n_rows, kv_head, keys, tile, step);
            for (size_t row = 0; row < n_rows; row++)
                softmax(kernels, tile + row * step, 0, keys.n, step);
            kernels->gemm_nn(n_rows, width, keys.n, 1.0f, tile, step,
                             work->v + keys.first * work->kv_width + kv_head * width, work->kv_width,
                             work->out + column, width, false);
        }
}

/* Probabilities of queries [start, start + n_rows) of a head, in rows of linnet_tile_stride(keys.n). */
static void probabilities(const attention_work *work, size_t head, size_t start, size_t n_rows,
                          key_range keys, float *tile)
{
    const linnet_attention *attention = work->attention;
    size_t width = attention->head_width, kv_head = head / (attention->n_heads / attention->n_kv_heads);
    size_t before = attention->position + start, step = linnet_tile_stride(keys.n);
    scores(work, work->q + start * work->query_width + head * width, work->query_width, n_rows, kv_head, keys,
           tile, step);
    for (size_t row = 0; row < n_rows; row++)
        softmax(attention->work->product.kernels, tile + row * step,
                first_key(attention, before + row) - keys.first,
                last_key(attention, before + row) - keys.first, step);
}

/* Items are tiles of queries, head by head. */
static void forward_tiles(void *context, size_t first, size_t last, unsigned thread)
{
    const attention_work *work = context;
    const linnet_attention *attention = work->attention;
    size_t width = attention->head_width, group = attention->n_heads / attention->n_kv_heads;
    size_t n_tiles = (attention->n_queries + QUERIES - 1) / QUERIES;
    float *tile = attention->work->tiles + thread * attention->work->tile_stride;
    for (size_t item = first; item < last; item++) {
        size_t head = item / n_tiles, start = item % n_tiles * QUERIES;
        size_t n_rows = attention->n_queries - start < QUERIES ? attention->n_queries - start : QUERIES;
        key_range keys = keys_of(attention, start, n_rows);
        probabilities(work, head, start, n_rows, keys, tile);
        attention->work->product.kernels->gemm_nn(
            n_rows, width, keys.n, 1.0f, tile, linnet_tile_stride(keys.n),
            work->v + keys.first * work->kv_width + head / group * width, work->kv_width,
            work->out + start * work->query_width + head * width, work->query_width, false);
    }
}

void linnet_attention_forward(const linnet_attention *attention, const float *q, const float *k,
                              const float *v, float *out)
{
    attention_work work = work_of(attention);
    size_t n_tiles = (attention->n_queries + QUERIES - 1) / QUERIES;
    work.q = q;
    work.k = k;
    work.v = v;
    work.out = out;
    if (attention->n_queries == 1)
        linnet_workspace_run(attention->work, attention->n_kv_heads, 0.2 * cost_of(attention), decode_groups,
                             &work);
    else
        linnet_workspace_run(attention->work, attention->n_heads * n_tiles, 0.1 * cost_of(attention),
                             forward_tiles, &work);
}

/* ---- backward ---- */

/* d_scores = p (d_p - sum(p d_p)) for every row, into d_p. */
static void softmax_backward(const linnet_kernels *kernels, const float *p, float *d_p, size_t n_rows,
                             size_t n)
{
    size_t step = linnet_tile_stride(n);
    for (size_t row = 0; row < n_rows; row++, p += step, d_p += step) {
        float mean = kernels->dot_f32(p, d_p, n);
        for (size_t i = 0; i < n; i++)
            d_p[i] = p[i] * (d_p[i] - mean);
    }
}

/* Scores are capped: d_tile times the cap's slope, 1 - (score / cap)^2. `tile` is room for the scores. */
static void cap_backward(const attention_work *work, const float *q, size_t n_rows, size_t kv_head,
                         key_range keys, float *tile, float *d_tile)
{
    size_t step = linnet_tile_stride(keys.n);
    float inverse = 1.0f / work->attention->cap;
    scores(work, q, work->query_width, n_rows, kv_head, keys, tile, step);
    for (size_t row = 0; row < n_rows; row++)
        for (size_t i = 0; i < keys.n; i++) {
            float share = tile[row * step + i] * inverse;
            d_tile[row * step + i] *= 1.0f - share * share;
        }
}

/* One tile of queries of a head: adds to the head's d_k, d_v and replaces these queries by their gradient. */
static void backward_tile(const attention_work *work, size_t head, size_t start, size_t n_rows, float *d_k,
                          float *d_v, float *tile)
{
    const linnet_attention *attention = work->attention;
    const linnet_kernels *kernels = attention->work->product.kernels;
    key_range keys = keys_of(attention, start, n_rows);
    size_t width = attention->head_width, kv_head = head / (attention->n_heads / attention->n_kv_heads);
    size_t stride = work->query_width, kv_stride = work->kv_width, step = linnet_tile_stride(keys.n);
    const float *k = work->k + keys.first * kv_stride + kv_head * width;
    const float *v = work->v + keys.first * kv_stride + kv_head * width;
    const float *d_out = work->d_out + start * stride + head * width;
    float *q = work->d_q + start * stride + head * width, *d_tile = tile + n_rows * step;
    d_k += keys.first * width;
    d_v += keys.first * width;
    probabilities(work, head, start, n_rows, keys, tile);
    kernels->gemm_nt(n_rows, keys.n, width, 1.0f, d_out, stride, v, kv_stride, d_tile, step, false);
    kernels->gemm_tn(keys.n, width, n_rows, 1.0f, tile, step, d_out, stride, d_v, width, true);
    softmax_backward(kernels, tile, d_tile, n_rows, keys.n);
    if (attention->cap > 0)
        cap_backward(work, q, n_rows, kv_head, keys, tile, d_tile);
    kernels->gemm_tn(keys.n, width, n_rows, attention->scale, d_tile, step, q, stride, d_k, width, true);
    kernels->gemm_nn(n_rows, width, keys.n, attention->scale, d_tile, step, k, kv_stride, q, stride, false);
}

static void backward_heads(void *context, size_t first, size_t last, unsigned thread)
{
    const attention_work *work = context;
    const linnet_attention *attention = work->attention;
    size_t n = attention->n_queries, n_head = n * attention->head_width;
    float *tile = attention->work->tiles + thread * attention->work->tile_stride;
    for (size_t head = first; head < last; head++) {
        float *d_k = work->heads + 2 * head * n_head, *d_v = d_k + n_head;
        memset(d_k, 0, 2 * n_head * sizeof(float));
        for (size_t start = 0; start < n; start += QUERIES)
            backward_tile(work, head, start, n - start < QUERIES ? n - start : QUERIES, d_k, d_v, tile);
    }
}

/* Sum the heads of each group, in order, into d_k and d_v. Items are tokens. */
static void gather_heads(void *context, size_t first, size_t last, unsigned thread)
{
    const attention_work *work = context;
    const linnet_attention *attention = work->attention;
    size_t width = attention->head_width, n_head = attention->n_queries * width;
    size_t group = attention->n_heads / attention->n_kv_heads;
    (void)thread;
    for (size_t t = first; t < last; t++)
        for (size_t head = 0; head < attention->n_heads; head++) {
            const float *part_k = work->heads + 2 * head * n_head + t * width, *part_v = part_k + n_head;
            float *d_k = work->d_k + t * work->kv_width + head / group * width;
            float *d_v = work->d_v + t * work->kv_width + head / group * width;
            for (size_t i = 0; i < width; i++) {
                d_k[i] = head % group == 0 ? part_k[i] : d_k[i] + part_k[i];
                d_v[i] = head % group == 0 ? part_v[i] : d_v[i] + part_v[i];
            }
        }
}

void linnet_attention_backward(const linnet_attention *attention, float *q, float *k, float *v,
                               const float *d_out, float *heads)
{
    attention_work work = work_of(attention);
    work.q = work.d_q = q;
    work.k = work.d_k = k;
    work.v = work.d_v = v;
    work.d_out = d_out;
    work.heads = heads;
    linnet_workspace_run(attention->work, attention->n_heads, 0.3 * cost_of(attention), backward_heads,
                         &work);
    linnet_workspace_run(attention->work, attention->n_queries,
                         (double)attention->n_queries * (double)work.query_width, gather_heads, &work);
}
