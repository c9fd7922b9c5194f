/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ENGINE_ATTENTION_H
#define LINNET_ENGINE_ATTENTION_H

/* Inner header: attention with grouped key/value heads, causal or not, forward and backward. */

#include "workspace.h"

typedef struct linnet_attention {
    const linnet_workspace *work;
    size_t n_heads, n_kv_heads, head_width;
    size_t n_queries, position; /* query i stands at position + i and sees no keys behind itself */
    size_t window;              /* and this many at most, itself included; 0: all */
    bool sees_all;              /* an encoder's: a query sees all keys; window is 0 */
    float scale;                /* of scores */
    float cap;                  /* scores become cap tanh(score / cap); 0: they do not */
} linnet_attention;

/** Rows of linnet_tile_stride(context_tokens) floats that a thread needs in linnet_workspace.tiles. */
enum {
    LINNET_ATTENTION_QUERIES = 48,
    LINNET_ATTENTION_ROWS = LINNET_ATTENTION_QUERIES,
    LINNET_ATTENTION_ROWS_TRAIN = 2 * LINNET_ATTENTION_QUERIES
};

/** out (n_queries, n_heads x head_width) = softmax(cap(scale q k^T)) v, per head; k and v have
 *  position + n_queries rows of n_kv_heads x head_width. */
void linnet_attention_forward(const linnet_attention *attention, const float *q, const float *k,
                              const float *v, float *out);

/** q, k and v become their own gradients. position is 0. heads: scratch of n_heads x 2 x n_queries x
 * head_width floats. */
void linnet_attention_backward(const linnet_attention *attention, float *q, float *k, float *v,
                               const float *d_out, float *heads);

#endif
