/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ENGINE_WORKSPACE_H
#define LINNET_ENGINE_WORKSPACE_H

/* Inner header: what every pass over a model borrows: kernels, threads, scratch of each thread, rotation
 * tables. And the one way in which sessions and arenas get memory: a list of parts, one checked sum, one
 * allocation. */

#include "weights.h"

/** A float buffer to be placed: *where gets n floats. */
typedef struct linnet_part {
    float **where;
    size_t n_rows, n_columns; /* n = their product, which is checked */
} linnet_part;

/** Place all parts in one block, each on a cache line of its own. The block is the caller's (free). LIMIT
 * where the sum is beyond this machine's sizes, NOMEM where there is no such memory. */
linnet_status linnet_parts_place(const linnet_part *parts, size_t n_parts, void **ret_block,
                                 size_t *ret_bytes, linnet_error *err) LINNET_NODISCARD;

/** What they take together. */
linnet_status linnet_parts_bytes(const linnet_part *parts, size_t n_parts, size_t *ret_bytes,
                                 linnet_error *err) LINNET_NODISCARD;

/** Angles of one of the model's ropes at every position. n_pairs 0: there is none. */
typedef struct linnet_rotation {
    float *cosines, *sines; /* [context_tokens][n_pairs] */
    size_t n_pairs;
    bool is_halves; /* element i turns with i + n_pairs, else 2i with 2i + 1 */
} linnet_rotation;

typedef struct linnet_workspace {
    linnet_product product;
    linnet_rotation rotations[LINNET_ROPES];
    float *tiles; /* attention: of each thread, tile_stride floats: rows of round_up(context_tokens, 16) */
    size_t tile_stride;
    float *rows; /* of each thread, width floats: a row of the vocabulary or of learned positions */
    void *block; /* owned: all of these */
    size_t n_bytes;
} linnet_workspace;

/** LIMIT where context_tokens is beyond LINNET_CONTEXT_MAX, or beyond the positions that a model has learned.
 * n_tile_rows: see attention.h. */
linnet_status linnet_workspace_init(linnet_workspace *work, const linnet_model *model,
                                    linnet_thread_pool *pool, size_t context_tokens, size_t n_tile_rows,
                                    linnet_error *err) LINNET_NODISCARD;
/** What it would take. */
linnet_status linnet_workspace_bytes(const linnet_model *model, linnet_thread_pool *pool,
                                     size_t context_tokens, size_t n_tile_rows, size_t *ret_bytes,
                                     linnet_error *err) LINNET_NODISCARD;
void linnet_workspace_release(linnet_workspace *work);

/** Row length of an attention tile for n_keys keys: whole vectors, so that rows have no odd ends. */
static inline size_t linnet_tile_stride(size_t n_keys)
{
    return (n_keys + 15) / 16 * 16;
}

/** Run over n_items with the pool, or in the caller where `cost` (about a nanosecond each) does not pay a
 * wake-up. */
void linnet_workspace_run(const linnet_workspace *work, size_t n_items, double cost, linnet_work_fn *function,
                          void *context);

#endif
