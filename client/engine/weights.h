/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ENGINE_WEIGHTS_H
#define LINNET_ENGINE_WEIGHTS_H

/* Inner header: the model as model.c has read and checked it. After a successful open every matrix has the
 * shape that the model's numbers ask for, so that the passes index without looking. */

#include "linnet/architecture.h"
#include "linnet/model.h"

#include "kernels.h"

#define LINNET_CONTEXT_MAX ((uint32_t)1 << 24) /* tokens; the longest trained contexts are 10 million */

/** The linears of a block as they run: the targets from attn_q to ffn_down. One without a gate has its up
 * only. A matrix that a file keeps in one (q, k and v; gate and up) is here as views of its rows. */
enum { LINNET_LINEARS = LINNET_TARGET_FFN_DOWN + 1 };

/** weight NULL: there is no such norm. bias NULL: none. */
typedef struct linnet_norm {
    linnet_norm_kind kind;
    float epsilon;
    const float *weight, *bias;
} linnet_norm;

/** One transformer block. Matrices point into the map; vectors are owned by the model. */
typedef struct linnet_layer {
    linnet_norm attention_norm, ffn_norm;           /* over width; a parallel block has the first only */
    linnet_norm attention_post_norm, ffn_post_norm; /* over width, before a sum */
    linnet_norm attention_sum_norm, ffn_sum_norm;   /* over width, behind a sum */
    linnet_norm q_norm, k_norm;                     /* over head_width */
    linnet_matrix linears[LINNET_LINEARS];          /* indexed by linnet_target; bytes NULL: none */
    const float *biases[LINNET_LINEARS];            /* NULL: none */
    uint32_t window;                                /* keys that a query sees, itself included; 0: all */
    uint32_t rope;                                  /* which of the model's ropes */
} linnet_layer;

/** The linears of a head as targets of adapters, from LINNET_TARGET_CLS on. */
enum { LINNET_HEAD_LINEARS = LINNET_TARGETS - LINNET_BLOCK_TARGETS };

/** logits of labels = O tanh(P x + p) + o, where x is the first token's output of the last block; O x + o in
 * a file without P. */
typedef struct linnet_head {
    linnet_matrix linears[LINNET_HEAD_LINEARS]; /* P (width, width), bytes NULL: none; O (n_labels, width) */
    const float *biases[LINNET_HEAD_LINEARS];   /* NULL: none */
    uint32_t n_labels;                          /* 0: the model has no head */
    linnet_text *labels;                        /* owned, n_labels; names are in the map, or in names */
    char *names;                                /* owned: of labels that the file does not name; NULL: none */
} linnet_head;

/** How positions turn: angle(position, i) = position x frequency(i), and cosine and sine times magnitude. */
typedef struct linnet_rope {
    float base;
    float scale;                          /* of positions: 1, or 1 / the factor of linear scaling and YaRN */
    float magnitude;                      /* of the turned vector */
    const float *short_factors;           /* frequencies are divided by these; NULL: none */
    const float *long_factors;            /* in contexts beyond original_context; NULL: the short ones */
    bool is_yarn;                         /* Peng et al. 2023 */
    float original_context;               /* tokens that it was trained with before it was stretched */
    float yarn_beta_fast, yarn_beta_slow; /* turns in original_context between which it blends */
} linnet_rope;

enum { LINNET_ROPES = 2 }; /* of layers that see everything, and of those with a window */

struct linnet_model {
    linnet_gguf *gguf; /* owned */
    linnet_model_shape shape;
    const linnet_architecture *architecture;
    uint32_t type;                        /* that most weights have */
    uint32_t query_width;                 /* n_heads x head_width: columns of attn_output */
    uint32_t kv_width;                    /* n_kv_heads x head_width */
    float attention_scale, attention_cap; /* of scores; cap 0: none */
    float embedding_scale, residual_scale, logit_scale, logit_cap;
    linnet_rope ropes[LINNET_ROPES];
    uint32_t n_ropes;     /* 0: positions are learned */
    linnet_layer *layers; /* owned, n_layers */
    float *vectors;       /* owned: norms, biases, rope factors as floats */
    linnet_norm embedding_norm, output_norm;
    const float *output_bias;        /* vocabulary; NULL: none */
    linnet_matrix embedding, output; /* (vocabulary, width) both, the same bytes where tied; an encoder has no
                                        output */
    linnet_matrix positions;         /* (context, width); bytes NULL: none */
    linnet_matrix token_types;       /* (kinds, width), of which the first is used; bytes NULL: none */
    linnet_head head;
};

#endif
