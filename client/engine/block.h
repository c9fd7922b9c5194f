/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ENGINE_BLOCK_H
#define LINNET_ENGINE_BLOCK_H

/* Inner header: one transformer block over n_tokens tokens, forward and backward. */

#include "linear.h"
#include "workspace.h"

/** Buffers of one block; every layer uses the same. Rows are tokens, up to n_tokens_max. */
typedef struct linnet_block {
    const linnet_model *model;
    const linnet_workspace *work;
    size_t n_tokens_max;
    float *normed;    /* width: input of q, k, v, then of gate, up; backward: its gradient */
    float *q;         /* query_width; backward: its gradient */
    float *attended;  /* query_width: input of attn_output; backward: its gradient */
    float *middle;    /* width: the residual stream between attention and feed-forward; backward of a parallel
                         block: the gradient of normed */
    float *gate, *up; /* ffn_width; without a gate, gate is what the activation reads */
    float *activated; /* ffn_width: input of ffn_down; backward: its gradient. May be gate where there is no
                         backward */
    float *heads; /* backward only, may be gate: 2 x query_width, of gate and up once they are done with */
    float *raw_q, *raw_k; /* query_width, kv_width: before their norms, for the backward pass; else NULL */
    float *attention_out; /* width: what a norm behind the branch or the sum reads, for the backward pass;
                             else middle */
    float *ffn_out;       /* width: the same; else NULL, and y is used */
    float *branch;        /* width: the gradient of a branch that is normed or scaled; else NULL */
    float *h;             /* lora_table.rank_sum: of every linear, (n_tokens, rank) after one another */
} linnet_block;

/** The parts of a block's buffers except h, for linnet_parts_place; `block` must stay where it is until then.
 */
enum { LINNET_BLOCK_PARTS = 11 };
void linnet_block_parts(linnet_block *block, bool train, linnet_part parts[LINNET_BLOCK_PARTS]);
/** After the placing: the buffers that share. */
void linnet_block_share(linnet_block *block, bool train);

/** Where a pass stands. k and v have rows for tokens 0..position + n_tokens - 1 of the sequence; a forward
 * pass writes the last n_tokens of them, rotated. */
typedef struct linnet_block_pass {
    uint32_t layer;
    const linnet_lora *lora; /* LINNET_LINEARS entries of this layer */
    size_t n_tokens, position;
    float *k, *v;
} linnet_block_pass;

/** y = block(x) for tokens skip..n_tokens-1 of x, (n_tokens - skip, width); y may be x. skip drops tokens
 * whose k and v alone are wanted. y NULL: only what the backward pass needs. */
void linnet_block_forward(const linnet_block *block, const linnet_block_pass *pass, const float *x,
                          size_t skip, float *y);

/** What a backward pass adds gradients to: in the adapter's data order. */
typedef struct linnet_block_gradient {
    linnet_factors factors;
    float *data;
} linnet_block_gradient;

/**
 * From d_y in d_x to the factors' gradients and, where need_input, d_x in d_x. Right after a forward pass
 * over the same tokens from position 0 without skip: it consumes that pass's buffers, k and v. Without
 * need_input it stops at the lowest adapted linear. Inputs of linears are looked at only where factor A is
 * active.
 */
void linnet_block_backward(const linnet_block *block, const linnet_block_pass *pass, const float *x,
                           const linnet_block_gradient *gradient, bool need_input, float *d_x);

#endif
