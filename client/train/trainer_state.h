/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_TRAINER_STATE_H
#define LINNET_TRAINER_STATE_H

/* What a trainer holds; shared by the step (trainer.c) and the checkpoint (checkpoint.c). */

#include "private_step.h"

struct linnet_trainer {
    linnet_training training;
    linnet_arena *arena;         /* borrowed */
    const linnet_token_set *set; /* borrowed */
    linnet_adapter *adapter;     /* borrowed, trained in place */
    linnet_optimizer_state optimizer;
    float *gradient;     /* owned, n_parameters */
    float *start;        /* owned copy of the adapter's data before training; NULL without prox_mu */
    size_t *order;       /* owned; the records' order in pass `order_pass` */
    uint64_t order_pass; /* UINT64_MAX: none yet */
    uint32_t n_steps_taken;
    linnet_private_step private_step; /* empty without privacy */
};

/** Is record-level privacy on? NaN is no way to switch it off. */
static inline bool linnet_training_is_private(const linnet_training *training)
{
    return !(training->privacy.probability == 0);
}

/** What a step drops of a record: masks of their own for each step and record. */
static inline linnet_dropout linnet_training_dropout(const linnet_training *training, uint32_t step,
                                                     uint64_t record)
{
    return (linnet_dropout){
        .share = training->dropout, .seed = training->seed, .step = step, .record = record};
}

/** A record's ids, and which of them count, or its label, into a hash. */
void linnet_tokens_hash(const linnet_tokens *record, linnet_hasher *hasher);

#endif
