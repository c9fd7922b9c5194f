/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_TRAINER_H
#define LINNET_TRAINER_H

/* Training of an adapter on a token set: batches, loss, clipping, schedule, optimiser, checkpoints. The
 * trainer advances one step a call, so that a device can stop between any two. Same seed, same inputs, same
 * instruction set: same bits. */

#include "linnet/dataset.h"
#include "linnet/hash.h"

typedef enum linnet_optimizer { LINNET_OPTIMIZER_ADAMW, LINNET_OPTIMIZER_SGD } linnet_optimizer;
typedef enum linnet_schedule { LINNET_SCHEDULE_CONSTANT, LINNET_SCHEDULE_COSINE } linnet_schedule;

/** Record-level privacy inside this training (SECURE-AGGREGATION 3.6, `record-local`): what it releases, with
 * or without one unit of the set, differs as n_steps Poisson-sampled Gaussian releases of `probability` and
 * `noise_multiplier` do. All four numbers are public; none may be read off the data. */
typedef struct linnet_record_training {
    double probability;      /* of each unit in each step; above 0, at most 1; 0: off */
    double clip_norm;        /* longest gradient of one unit's mean loss */
    double noise_multiplier; /* standard deviation of the noise over the sensitivity of the sum */
    uint32_t n_units; /* nominal; probability x n_units, not the drawn number, divides the sum of a step */
    /* Coins, rounding and noise. NULL: the system's generator, which alone makes a training private;
     * simulations pass a seeded stream (context borrowed while the trainer lives). begin_step, which may be
     * NULL, is called before the first draw of a step (from 1): a stream that is then keyed by the step's
     * number gives a resumed training the same bits. Both are called on the thread that steps. */
    linnet_random_fn *random;
    void (*begin_step)(void *random_context, uint32_t step);
    void *random_context;
} linnet_record_training;

typedef struct linnet_training {
    linnet_optimizer optimizer;
    linnet_schedule schedule;       /* cosine: from 1 to 0.02 over n_steps */
    linnet_factors factors;         /* what is trained */
    double learning_rate;           /* of factor B */
    double learning_rate_a;         /* of factor A; 0: the same */
    double beta1, beta2, epsilon;   /* AdamW: 0.9, 0.999, 1e-8 */
    double weight_decay, clip_norm; /* 0: off; the norm over all active factors together */
    double prox_mu;                 /* FedProx: adds mu (x - start) to the gradient; 0: off */
    double dropout;                 /* share that side paths do not see of their inputs; below 1; 0: off */
    uint32_t n_steps, batch_records, warmup_steps;
    bool shuffle;                   /* off: records in file order, again and again */
    uint64_t seed;                  /* of the data order and of dropout */
    linnet_record_training privacy; /* on: units are drawn, so batch_records and shuffle mean nothing */
} linnet_training;
linnet_training
linnet_training_default(void); /* DESIGN.md section 2: AdamW 1e-3, batch 4, warmup 3, clip 1 */

typedef struct linnet_train_step {
    uint32_t step; /* from 1 */
    double loss;   /* mean over the counted tokens of the batch, before the step and with its dropout; NaN for
                      an empty draw */
    double learning_rate;   /* of factor B, after warm-up and schedule */
    double gradient_norm;   /* before clipping; of a private step, with its noise */
    size_t tokens, counted; /* of the batch: all ids, counted targets */
    size_t units;           /* drawn, of a private step */
} linnet_train_step; /* of a private step, loss and counts are of the drawn records: not to leave the device
                      */

typedef struct linnet_trainer linnet_trainer;
/** adapter is trained in place (borrowed); set and arena are borrowed. ARG for bad settings, and for an empty
 * set, which only a private training takes: its steps are noise. UNSUPPORTED for an adapter with magnitudes.
 */
linnet_status linnet_trainer_create(const linnet_training *training, linnet_arena *arena,
                                    const linnet_token_set *set, linnet_adapter *adapter,
                                    linnet_trainer **ret_trainer, linnet_error *err) LINNET_NODISCARD;
void linnet_trainer_destroy(linnet_trainer *trainer);
/** One optimiser step. RANGE where the loss is not finite: the adapter is then as before the step. In a
 * private step a unit whose loss or gradient is not finite counts as zero instead. */
linnet_status linnet_trainer_step(linnet_trainer *trainer, linnet_train_step *ret_step,
                                  linnet_error *err) LINNET_NODISCARD;
bool linnet_trainer_is_done(const linnet_trainer *trainer); /* n_steps taken */
uint32_t linnet_trainer_steps(const linnet_trainer *trainer);

/** Everything that a later process needs to go on to the same bits: magic, version, settings hash, step,
 * order, moments, adapter. restore refuses (MISMATCH) a checkpoint of other settings, data or layout.
 * ret_bytes is appended to.
 *
 * The noise of a private training is in the adapter and the moments; its random stream is not saved, so a
 * training that is killed and restored takes the steps behind the checkpoint again with fresh coins and
 * noise. The steps lost this way released nothing: a checkpoint stays on the device, and of all tries at a
 * training only the last one's adapter leaves, after its steps are in the ledger. Whoever lets out anything
 * of a checkpoint must count its steps too. */
linnet_status linnet_trainer_save(const linnet_trainer *trainer, linnet_buffer *ret_bytes,
                                  linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_trainer_restore(linnet_trainer *trainer, const void *bytes, size_t n_bytes,
                                     linnet_error *err) LINNET_NODISCARD;

/** Loss sum and counted tokens of a whole set. adapter may be NULL. */
linnet_status linnet_evaluate(linnet_arena *arena, const linnet_adapter *adapter, const linnet_token_set *set,
                              double *ret_loss_sum, size_t *ret_n_counted,
                              linnet_error *err) LINNET_NODISCARD;

#endif
