/* SPDX-License-Identifier: Apache-2.0 */
/* Memory and threads of a pass. Everything a session or an arena needs is summed up with checks, allocated at
 * once and cut up, so that a pass itself cannot run out of memory half way. Rotation angles are computed in
 * double once for all positions: pos base^(-2i/d) (Su et al. 2021, RoFormer, equation 15). */
#include "workspace.h"

#include <math.h>
#include <stdlib.h>

enum {
    LINE_FLOATS = 16,         /* a part starts on a cache line, so that threads do not share one */
    PARALLEL_COST_MIN = 30000 /* nanoseconds of work below which waking threads does not pay */
};

linnet_status linnet_parts_place(const linnet_part *parts, size_t n_parts, void **ret_block,
                                 size_t *ret_bytes, linnet_error *err)
{
    size_t n_floats = 0, n_bytes;
    void *block = NULL;
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

static void fill_rotations(linnet_workspace *work, const linnet_model_shape *shape, size_t context_tokens)
{
    for (size_t i = 0; i < work->n_rope_pairs; i++) {
        double frequency = pow(shape->rope_base, -2.0 * (double)i / shape->rope_width);
        for (size_t position = 0; position < context_tokens; position++) {
            double angle = (double)position * frequency;
            work->cosines[position * work->n_rope_pairs + i] = (float)cos(angle);
            work->sines[position * work->n_rope_pairs + i] = (float)sin(angle);
        }
    }
}

linnet_status linnet_workspace_init(linnet_workspace *work, const linnet_model *model,
                                    linnet_thread_pool *pool, size_t context_tokens, size_t n_tile_rows,
                                    linnet_error *err)
{
    const linnet_model_shape *shape = &model->shape;
    size_t columns_max = model->query_width, n_threads = linnet_thread_pool_size(pool);
    columns_max = shape->width > columns_max ? shape->width : columns_max;
    columns_max = shape->ffn_width > columns_max ? shape->ffn_width : columns_max;
    *work = (linnet_workspace){.product = {.pool = pool, .kernels = linnet_kernels_best()},
                               .n_rope_pairs = shape->rope_width / 2};
    if (context_tokens > LINNET_CONTEXT_MAX)
        return linnet_fail(err, LINNET_ERR_LIMIT, "a context of %zu tokens is too long", context_tokens);
    work->product.scratch_stride = linnet_product_scratch(columns_max);
    const linnet_part parts[] = {
        {&work->product.scratch, n_threads, work->product.scratch_stride},
        {&work->cosines, context_tokens, work->n_rope_pairs},
        {&work->sines, context_tokens, work->n_rope_pairs},
        {&work->tiles, n_threads * n_tile_rows, linnet_tile_stride(context_tokens)},
        {&work->rows, n_threads, shape->width},
    };
    linnet_status status = linnet_parts_place(parts, ARRAY_LEN(parts), &work->block, &work->n_bytes, err);
    if (status != LINNET_OK)
        return status;
    work->tile_stride = n_tile_rows * linnet_tile_stride(context_tokens);
    fill_rotations(work, shape, context_tokens);
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
