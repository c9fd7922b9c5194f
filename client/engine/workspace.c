/* SPDX-License-Identifier: Apache-2.0 */
/* Memory and threads of a pass. Everything a session or an arena needs is summed up with checks, allocated at
 * once and cut up, so that a pass itself cannot run out of memory half way. Rotation angles are computed in
 * double once for all positions: pos base^(-2i/d) (Su et al. 2021, RoFormer, equation 15), stretched for
 * contexts longer than the model was trained with: all alike (Chen et al. 2023), by a factor of each
 * frequency (Llama 3; Ding et al. 2024, LongRoPE), or slow ones only (Peng et al. 2023, YaRN). */
#include "workspace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    LINE_FLOATS = 16,         /* a part starts on a cache line, so that threads do not share one */
    PARALLEL_COST_MIN = 30000 /* nanoseconds of work below which waking threads does not pay */
};

linnet_status linnet_parts_bytes(const linnet_part *parts, size_t n_parts, size_t *ret_bytes,
                                 linnet_error *err)
{
    size_t n_floats = 0, n_bytes;
    for (size_t i = 0; i < n_parts; i++) {
        size_t n;
        if (!linnet_size_mul(parts[i].n_rows, parts[i].n_columns, &n) ||
            !linnet_size_add(n, LINE_FLOATS - 1, &n) ||
            !linnet_size_add(n_floats, n / LINE_FLOATS * LINE_FLOATS, &n_floats))
            return linnet_fail(err, LINNET_ERR_LIMIT,
                               "the model and context need more memory than can be addressed");
    }
    if (!linnet_size_mul(n_floats, sizeof(float), &n_bytes) || n_bytes > PTRDIFF_MAX)
        return linnet_fail(err, LINNET_ERR_LIMIT,
                           "the model and context need more memory than can be addressed");
    *ret_bytes = n_bytes;
    return LINNET_OK;
}

linnet_status linnet_parts_place(const linnet_part *parts, size_t n_parts, void **ret_block,
                                 size_t *ret_bytes, linnet_error *err)
{
    size_t n_bytes;
    void *block = NULL;
    linnet_status status = linnet_parts_bytes(parts, n_parts, &n_bytes, err);
    if (status != LINNET_OK)
        return status;
    if (posix_memalign(&block, LINE_FLOATS * sizeof(float), n_bytes > 0 ? n_bytes : 1) != 0)
        return linnet_fail(err, LINNET_ERR_NOMEM,
                           "no memory: %zu MB for activations; a shorter context needs less", n_bytes >> 20);
    float *at = block;
    for (size_t i = 0; i < n_parts; i++) {
        size_t n = parts[i].n_rows * parts[i].n_columns;
        *parts[i].where = at;
        at += (n + LINE_FLOATS - 1) / LINE_FLOATS * LINE_FLOATS;
    }
    *ret_block = block;
    *ret_bytes = n_bytes;
    return LINNET_OK;
}

/* The pair that makes `turns` turns within the original context. */
static double pair_of_turns(const linnet_rope *rope, size_t width, double turns)
{
    const double pi = 3.14159265358979323846;
    return (double)width * log(rope->original_context / (turns * 2 * pi)) / (2 * log(rope->base));
}

/* YaRN: 1 for pairs that turn fast and keep their frequency, 0 for those that are stretched. */
static double kept_share(const linnet_rope *rope, size_t width, size_t pair)
{
    double low = floor(pair_of_turns(rope, width, rope->yarn_beta_fast));
    double high = ceil(pair_of_turns(rope, width, rope->yarn_beta_slow));
    low = low < 0 ? 0 : low;
    high = high > (double)width - 1 ? (double)width - 1 : high;
    double at = ((double)pair - low) / (high - low < 0.001 ? 0.001 : high - low);
    return at < 0 ? 1 : at > 1 ? 0 : 1 - at;
}

static double frequency_of(const linnet_rope *rope, size_t width, size_t pair, bool is_long)
{
    const float *factors = is_long && rope->long_factors ? rope->long_factors : rope->short_factors;
    double frequency = pow(rope->base, -2.0 * (double)pair / (double)width);
    if (factors)
        frequency /= factors[pair];
    if (!rope->is_yarn)
        return frequency * rope->scale;
    double kept = kept_share(rope, width, pair);
    return frequency * (kept + (1 - kept) * rope->scale);
}

static void fill_rotation(linnet_rotation *rotation, const linnet_rope *rope, size_t context_tokens)
{
    bool is_long = (double)context_tokens > rope->original_context;
    for (size_t i = 0; i < rotation->n_pairs; i++) {
        double frequency = frequency_of(rope, 2 * rotation->n_pairs, i, is_long);
        for (size_t position = 0; position < context_tokens; position++) {
            double angle = (double)position * frequency;
            rotation->cosines[position * rotation->n_pairs + i] = rope->magnitude * (float)cos(angle);
            rotation->sines[position * rotation->n_pairs + i] = rope->magnitude * (float)sin(angle);
        }
    }
}

enum { WORK_PARTS = 7 };

/* The buffers of a workspace, which holds nothing else by then. */
static linnet_status list_parts(linnet_workspace *work, const linnet_model *model, linnet_thread_pool *pool,
                                size_t context_tokens, size_t n_tile_rows, linnet_part parts[WORK_PARTS],
                                linnet_error *err)
{
    const linnet_model_shape *shape = &model->shape;
    size_t columns_max = model->query_width, n_threads = linnet_thread_pool_size(pool);
    columns_max = shape->width > columns_max ? shape->width : columns_max;
    columns_max = shape->ffn_width > columns_max ? shape->ffn_width : columns_max;
    *work = (linnet_workspace){.product = {.pool = pool, .kernels = linnet_kernels_best()}};
    if (context_tokens > LINNET_CONTEXT_MAX)
        return linnet_fail(err, LINNET_ERR_LIMIT, "a context of %zu tokens is too long", context_tokens);
    if (model->positions.bytes && context_tokens > model->positions.rows)
        return linnet_fail(err, LINNET_ERR_LIMIT,
                           "a context of %zu tokens is too long: the model has learned %zu positions",
                           context_tokens, model->positions.rows);
    for (size_t i = 0; i < model->n_ropes; i++)
        work->rotations[i] = (linnet_rotation){.n_pairs = shape->rope_width / 2,
                                               .is_halves = model->architecture->rope == LINNET_ROPE_HALVES};
    linnet_rotation *all = &work->rotations[0], *local = &work->rotations[1];
    work->product.scratch_stride = linnet_product_scratch(columns_max);
    const linnet_part list[WORK_PARTS] = {
        {&work->product.scratch, n_threads, work->product.scratch_stride},
        {&all->cosines, context_tokens, all->n_pairs},
        {&all->sines, context_tokens, all->n_pairs},
        {&local->cosines, context_tokens, local->n_pairs},
        {&local->sines, context_tokens, local->n_pairs},
        {&work->tiles, n_threads * n_tile_rows, linnet_tile_stride(context_tokens)},
        {&work->rows, n_threads, shape->width},
    };
    memcpy(parts, list, sizeof(list));
    return LINNET_OK;
}

linnet_status linnet_workspace_bytes(const linnet_model *model, linnet_thread_pool *pool,
                                     size_t context_tokens, size_t n_tile_rows, size_t *ret_bytes,
                                     linnet_error *err)
{
    linnet_workspace work;
    linnet_part parts[WORK_PARTS];
    linnet_status status = list_parts(&work, model, pool, context_tokens, n_tile_rows, parts, err);
    return status == LINNET_OK ? linnet_parts_bytes(parts, WORK_PARTS, ret_bytes, err) : status;
}

linnet_status linnet_workspace_init(linnet_workspace *work, const linnet_model *model,
                                    linnet_thread_pool *pool, size_t context_tokens, size_t n_tile_rows,
                                    linnet_error *err)
{
    linnet_part parts[WORK_PARTS];
    linnet_status status = list_parts(work, model, pool, context_tokens, n_tile_rows, parts, err);
    if (status == LINNET_OK)
        status = linnet_parts_place(parts, WORK_PARTS, &work->block, &work->n_bytes, err);
    if (status != LINNET_OK)
        return status;
    work->tile_stride = n_tile_rows * linnet_tile_stride(context_tokens);
    for (size_t i = 0; i < model->n_ropes; i++)
        fill_rotation(&work->rotations[i], &model->ropes[i], context_tokens);
    return LINNET_OK;
}

void linnet_workspace_release(linnet_workspace *work)
{
    free(work->block);
    work->block = NULL;
}

void linnet_workspace_run(const linnet_workspace *work, size_t n_items, double cost, linnet_work_fn *function,
                          void *context)
{
    linnet_thread_pool_run(cost < PARALLEL_COST_MIN ? NULL : work->product.pool, n_items, 1, function,
                           context);
}
