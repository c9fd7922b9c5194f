/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ENGINE_WEIGHTS_H
#define LINNET_ENGINE_WEIGHTS_H

/* Inner header: the model as model.c has read and checked it. After a successful open every matrix has the
 * shape that the model's numbers ask for, so that the passes index without looking. */

#include "linnet/model.h"

#include "kernels.h"

#define LINNET_CONTEXT_MAX ((uint32_t)1 << 24) /* tokens; the longest trained contexts are 10 million */

/** One transformer block. Matrices point into the map; norms are owned by the model. */
typedef struct linnet_layer {
    const float *attention_norm, *ffn_norm; /* width floats each */
    linnet_matrix linears[LINNET_TARGETS];  /* indexed by linnet_target */
} linnet_layer;

struct linnet_model {
    linnet_gguf *gguf; /* owned */
    linnet_model_shape shape;
    const char *architecture; /* static */
    uint32_t type;            /* that most weights have */
    uint32_t query_width;     /* n_heads x head_width: columns of attn_output */
    uint32_t kv_width;        /* n_kv_heads x head_width */
    linnet_layer *layers;     /* owned, n_layers */
    float *norms;             /* owned: all norm weights as floats */
    const float *output_norm;
    linnet_matrix embedding, output; /* (vocabulary, width) both, the same bytes where tied */
};

#endif
