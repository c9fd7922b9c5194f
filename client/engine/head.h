/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ENGINE_HEAD_H
#define LINNET_ENGINE_HEAD_H

/* Inner header: the classification head of an encoder over one text, forward and backward. */

#include "block.h"

/** Buffers of a head, and whose it is; all of them as the last forward pass left them. */
typedef struct linnet_head_state {
    const linnet_model *model; /* with a head */
    const linnet_workspace *work;
    const linnet_lora *lora;  /* LINNET_HEAD_LINEARS entries */
    float *pooled, *d_pooled; /* width */
    float *logits, *d_logits; /* n_labels */
    float *h;                 /* of both linears, rank floats after one another */
} linnet_head_state;

/** The parts of a head's buffers, for linnet_parts_place; none for a model without one. The gradients' where
 * train. */
enum { LINNET_HEAD_PARTS = 5 };
void linnet_head_parts(linnet_head_state *head, bool train, linnet_part parts[LINNET_HEAD_PARTS]);

/** logits, from hidden (width), the first token's output of the last block. */
void linnet_head_forward(const linnet_head_state *head, const float *hidden);
/** -ln p of a label in nats, behind a forward pass. */
double linnet_head_loss(const linnet_head_state *head, uint32_t label);
/** From scale times the gradient of the label's loss to that of hidden in d_hidden (overwritten), and to the
 * factors' gradients. Right after a forward pass over the same hidden, whose h it consumes. */
void linnet_head_backward(const linnet_head_state *head, const float *hidden, uint32_t label, double scale,
                          const linnet_block_gradient *gradient, float *d_hidden);

#endif
