/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_TRAINER_H
#define LINNET_TRAINER_H

/* Training of an adapter on a token set: batches, loss, clipping, schedule, optimiser, checkpoints. The
 * trainer advances one step a call, so that a device can stop between any two. Same seed, same inputs, same
 * instruction set: same bits. */

#include "linnet/dataset.h"

typedef enum linnet_optimizer { LINNET_OPTIMIZER_ADAMW, LINNET_OPTIMIZER_SGD } linnet_optimizer;
typedef enum linnet_schedule { LINNET_SCHEDULE_CONSTANT, LINNET_SCHEDULE_COSINE } linnet_schedule;

typedef struct linnet_training {
    linnet_optimizer optimizer;
    linnet_schedule schedule;       /* cosine: from 1 to 0.02 over n_steps */
    linnet_factors factors;         /* what is trained */
    double learning_rate;           /* of factor B */
    double learning_rate_a;         /* of factor A; 0: the same */
    double beta1, beta2, epsilon;   /* AdamW: 0.9, 0.999, 1e-8 */
    double weight_decay, clip_norm; /* 0: off; the norm over all active factors together */
    double prox_mu;                 /* FedProx: adds mu (x - start) to the gradient; 0: off */
    uint32_t n_steps, batch_records, warmup_steps;
    bool shuffle;  /* off: records in file order, again and again */
    uint64_t seed; /* of the data order */
} linnet_training;
linnet_training
linnet_training_default(void); /* DESIGN.md section 2: AdamW 1e-3, batch 4, warmup 3, clip 1 */

typedef struct linnet_train_step {
    uint32_t step;          /* from 1 */
    double loss;            /* mean over the counted tokens of the batch, before the step */
    double learning_rate;   /* of factor B, after warm-up and schedule */
    double gradient_norm;   /* before clipping */
    size_t tokens, counted; /* of the batch: all ids, counted targets */
} linnet_train_step;

typedef struct linnet_trainer linnet_trainer;
/** adapter is trained in place (borrowed); set and arena are borrowed. ARG for an empty set or bad settings.
 */
linnet_status linnet_trainer_create(const linnet_training *training, linnet_arena *arena,
                                    const linnet_token_set *set, linnet_adapter *adapter,
                                    linnet_trainer **ret_trainer, linnet_error *err) LINNET_NODISCARD;
void linnet_trainer_destroy(linnet_trainer *trainer);
/** One optimiser step. RANGE where the loss is not finite: the adapter is then as before the step. */
linnet_status linnet_trainer_step(linnet_trainer *trainer, linnet_train_step *ret_step,
                                  linnet_error *err) LINNET_NODISCARD;
bool linnet_trainer_is_done(const linnet_trainer *trainer); /* n_steps taken */
uint32_t linnet_trainer_steps(const linnet_trainer *trainer);

/** Everything that a later process needs to go on to the same bits: magic, version, settings hash, step,
 * order, moments, adapter. restore refuses (MISMATCH) a checkpoint of other settings, data or layout.
 * ret_bytes is appended to. */
linnet_status linnet_trainer_save(const linnet_trainer *trainer, linnet_buffer *ret_bytes,
                                  linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_trainer_restore(linnet_trainer *trainer, const void *bytes, size_t n_bytes,
                                     linnet_error *err) LINNET_NODISCARD;

/** Loss sum and counted tokens of a whole set. adapter may be NULL. */
linnet_status linnet_evaluate(linnet_arena *arena, const linnet_adapter *adapter, const linnet_token_set *set,
                              double *ret_loss_sum, size_t *ret_n_counted,
                              linnet_error *err) LINNET_NODISCARD;

#endif
