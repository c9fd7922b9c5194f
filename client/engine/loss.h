/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ENGINE_LOSS_H
#define LINNET_ENGINE_LOSS_H

/* Inner header: -ln p of target tokens and its gradient, over vocabulary tiles. */

#include "workspace.h"

/** What is known of one token's softmax after some tiles. */
typedef struct linnet_loss_row {
    double others;     /* sum of exp(logit - top) over what was seen, without the target */
    float top, target; /* the largest logit seen; the target's */
    float slope;       /* the target's, where logits are capped */
} linnet_loss_row;

typedef struct linnet_loss {
    const linnet_workspace *work;
    const linnet_model *model;
    size_t tile_rows; /* logits of a tile: never tokens x vocabulary for a vocabulary worth the name */
    float *logits;    /* n_tokens_max x tile_rows */
    float *slopes;    /* the same size: d(logit) / d(its product), where logits are capped and a gradient is
                         asked for */
    linnet_loss_row *rows; /* n_tokens_max */
} linnet_loss;

size_t linnet_loss_tile_rows(size_t vocabulary);

/**
 * ret_each[i] = -ln p(targets[i] | hidden[i]) for n normed hidden states (n, width). d_hidden, unless NULL,
 * becomes scale times the gradient of their sum.
 */
void linnet_loss_run(const linnet_loss *loss, const float *hidden, const int32_t *targets, size_t n,
                     float scale, double *ret_each, float *d_hidden);

#endif
