/* SPDX-License-Identifier: Apache-2.0 */
/* One optimiser step a call. The order of the data is a function of the seed and the pass alone (stream =
 * pass), so the number of steps taken is all that a checkpoint needs to know about it. Batches run on across
 * passes. */
#include "trainer_state.h"

#include "linnet/aggregate.h"

#include <math.h>
#include <stdlib.h>

#define SCHEDULE_FINAL 0.02 /* of the cosine schedule */

linnet_training linnet_training_default(void)
{
    return (linnet_training){.optimizer = LINNET_OPTIMIZER_ADAMW,
                             .schedule = LINNET_SCHEDULE_CONSTANT,
                             .factors = LINNET_FACTORS_BOTH,
                             .learning_rate = 1e-3,
                             .beta1 = 0.9,
                             .beta2 = 0.999,
                             .epsilon = 1e-8,
                             .clip_norm = 1,
                             .n_steps = 100,
                             .batch_records = 4,
                             .warmup_steps = 3,
                             .shuffle = true};
}

static bool is_in(double value, double low, double high)
{
    return value >= low && value <= high; /* false for NaN */
}

/* Out of what a private training draws its units. */
static bool has_units(const linnet_token_set *set)
{
    return set->n_items == 0 || (set->units && set->n_units > 0 && set->n_units <= set->n_items);
}

static linnet_status check(const linnet_training *t, const linnet_token_set *set, linnet_error *err)
{
    bool is_private = linnet_training_is_private(t);
    const struct {
        const char *name;
        bool good;
    } rules[] = {
        {"learning rate: 0 to 1000", is_in(t->learning_rate, 0, 1000) && is_in(t->learning_rate_a, 0, 1000)},
        {"beta1 and beta2: 0 to below 1",
         is_in(t->beta1, 0, 1) && t->beta1 < 1 && is_in(t->beta2, 0, 1) && t->beta2 < 1},
        {"epsilon: above 0", is_in(t->epsilon, 0, 1) && t->epsilon > 0},
        {"weight decay: 0 to 1000", is_in(t->weight_decay, 0, 1000)},
        {"clip norm: 0 (off) or a positive number", is_in(t->clip_norm, 0, HUGE_VAL)},
        {"prox mu: 0 (off) to 1000", is_in(t->prox_mu, 0, 1000)},
        {"dropout: 0 (off) to below 1", is_in(t->dropout, 0, 1) && t->dropout < 1},
        {"steps: at least 1", t->n_steps > 0},
        {"batch: at least 1 record", t->batch_records > 0},
        {"factors: A, B or both", t->factors >= LINNET_FACTOR_A && t->factors <= LINNET_FACTORS_BOTH},
        {"privacy probability: 0 (off) to 1", is_in(t->privacy.probability, 0, 1)},
        {"privacy clip norm: a positive number", !is_private || t->privacy.clip_norm > 0},
        {"privacy noise: a positive number", !is_private || t->privacy.noise_multiplier > 0},
        {"privacy units: at least 1", !is_private || t->privacy.n_units > 0},
        {"privacy needs the units of the records", !is_private || has_units(set)},
    };
    for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
        if (!rules[i].good)
            return linnet_fail(err, LINNET_ERR_ARG, "cannot train: %s", rules[i].name);
    }
    if (set->n_items == 0 && !is_private)
        return linnet_fail(err, LINNET_ERR_ARG, "cannot train: no record has a token to learn");
    return LINNET_OK;
}

/* What docs/architecture.md says of DoRA, before a step is taken. */
static linnet_status check_adapter(const linnet_adapter *adapter, linnet_error *err)
{
    if (!adapter->magnitudes)
        return LINNET_OK;
    return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                       "cannot train an adapter with magnitudes (DoRA); merge it into the F16 or F32 file of "
                       "its model and train a new adapter on that");
}

linnet_status linnet_trainer_create(const linnet_training *training, linnet_arena *arena,
                                    const linnet_token_set *set, linnet_adapter *adapter,
                                    linnet_trainer **ret_trainer, linnet_error *err)
{
    linnet_status status = check(training, set, err);
    if (status == LINNET_OK)
        status = check_adapter(adapter, err);
    if (status != LINNET_OK)
        return status;
    size_t n_parameters = adapter->layout->n_parameters;
    linnet_trainer *t = calloc(1, sizeof(*t));
    if (!t)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a trainer");
    *t = (linnet_trainer){
        .training = *training, .arena = arena, .set = set, .adapter = adapter, .order_pass = UINT64_MAX};
    if (!t->training.privacy.random)
        t->training.privacy.random = linnet_system_random;
    t->gradient = calloc(n_parameters + 1, sizeof(*t->gradient));
    t->order = calloc(set->n_items + 1, sizeof(*t->order));
    if (training->prox_mu > 0)
        t->start = calloc(n_parameters + 1, sizeof(*t->start));
    if (!t->gradient || !t->order || (training->prox_mu > 0 && !t->start))
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory to train %zu parameters", n_parameters);
    else
        status = linnet_optimizer_init(&t->optimizer, training->optimizer, adapter->layout, training->factors,
                                       err);
    if (status == LINNET_OK && linnet_training_is_private(training))
        status = linnet_private_step_init(t, err);
    if (status != LINNET_OK) {
        linnet_trainer_destroy(t);
        return status;
    }
    if (t->start)
        memcpy(t->start, adapter->data, n_parameters * sizeof(*t->start));
    *ret_trainer = t;
    return LINNET_OK;
}

void linnet_trainer_destroy(linnet_trainer *trainer)
{
    if (!trainer)
        return;
    linnet_private_step_release(&trainer->private_step);
    linnet_optimizer_release(&trainer->optimizer);
    free(trainer->gradient);
    free(trainer->start);
    free(trainer->order);
    free(trainer);
}

/* The record at a place in the endless sequence of passes. */
static const linnet_tokens *record_at(linnet_trainer *t, uint64_t place)
{
    uint64_t pass = place / t->set->n_items;
    if (t->order_pass != pass) {
        for (size_t i = 0; i < t->set->n_items; i++)
            t->order[i] = i;
        if (t->training.shuffle) {
            linnet_rng rng;
            linnet_rng_init(&rng, t->training.seed, pass);
            linnet_rng_shuffle(&rng, t->order, t->set->n_items);
        }
        t->order_pass = pass;
    }
    return &t->set->items[t->order[place % t->set->n_items]];
}

/* What the rates are multiplied by in a step (from 1): warm-up, then the schedule. */
static double rate_factor(const linnet_training *t, uint32_t step)
{
    double factor = step < t->warmup_steps ? (double)step / t->warmup_steps : 1;
    if (t->schedule == LINNET_SCHEDULE_COSINE)
        factor *= linnet_schedule_cosine(step - 1, t->n_steps, SCHEDULE_FINAL);
    return factor;
}

/* The gradient of the batch's mean loss into t->gradient; the mean loss and the counts into *result. */
static linnet_status batch_gradient(linnet_trainer *t, linnet_train_step *result, linnet_error *err)
{
    uint64_t first = (uint64_t)t->n_steps_taken * t->training.batch_records;
    double loss_sum = 0;
    for (uint32_t i = 0; i < t->training.batch_records; i++) {
        const linnet_tokens *record = record_at(t, first + i);
        result->tokens += record->n_ids;
        result->counted += record->n_counted;
    }
    linnet_gradient_zero(&t->optimizer, t->gradient);
    for (uint32_t i = 0; i < t->training.batch_records; i++) {
        linnet_sequence sequence = linnet_tokens_sequence(record_at(t, first + i));
        linnet_dropout dropout = linnet_training_dropout(&t->training, result->step, i);
        double loss = 0;
        size_t n_counted = 0;
        linnet_status status =
            linnet_arena_gradient(t->arena, t->adapter, t->training.factors, &dropout, &sequence,
                                  1.0 / (double)result->counted, t->gradient, &loss, &n_counted, err);
        if (status != LINNET_OK)
            return status;
        loss_sum += loss;
    }
    result->loss = loss_sum / (double)result->counted;
    return LINNET_OK;
}

static linnet_status step_gradient(linnet_trainer *t, linnet_train_step *result, linnet_error *err)
{
    if (!linnet_training_is_private(&t->training))
        return batch_gradient(t, result, err);
    return linnet_private_step_gradient(t, result, err);
}

linnet_status linnet_trainer_step(linnet_trainer *trainer, linnet_train_step *ret_step, linnet_error *err)
{
    const linnet_training *t = &trainer->training;
    bool is_private = linnet_training_is_private(t); /* then the loss is no reason to stop */
    linnet_train_step result = {.step = trainer->n_steps_taken + 1};
    if (linnet_trainer_is_done(trainer))
        return linnet_fail(err, LINNET_ERR_ARG, "all %u steps are taken", (unsigned)t->n_steps);
    linnet_status status = step_gradient(trainer, &result, err);
    if (status != LINNET_OK)
        return linnet_error_prefix(err, status, "step %u (learning rate %g)", (unsigned)result.step,
                                   t->learning_rate);
    if (t->prox_mu > 0)
        linnet_gradient_add_prox(&trainer->optimizer, t->prox_mu, trainer->adapter->data, trainer->start,
                                 trainer->gradient);
    result.gradient_norm = linnet_gradient_norm(&trainer->optimizer, trainer->gradient);
    bool has_loss = is_private || isfinite(result.loss);
    if (!has_loss || !isfinite(result.gradient_norm))
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "step %u: the %s is not finite, training went astray; try a lower learning rate",
                           (unsigned)result.step, has_loss ? "gradient" : "loss");
    if (t->clip_norm > 0 && result.gradient_norm > t->clip_norm)
        linnet_gradient_scale(&trainer->optimizer, trainer->gradient, t->clip_norm / result.gradient_norm);
    double factor = rate_factor(t, result.step);
    double rate_a = t->learning_rate_a > 0 ? t->learning_rate_a : t->learning_rate;
    result.learning_rate = t->learning_rate * factor;
    linnet_optimizer_update(&trainer->optimizer, t, result.step, rate_a * factor, result.learning_rate,
                            trainer->gradient, trainer->adapter->data);
    trainer->n_steps_taken++;
    *ret_step = result;
    return LINNET_OK;
}

bool linnet_trainer_is_done(const linnet_trainer *trainer)
{
    return trainer->n_steps_taken >= trainer->training.n_steps;
}

uint32_t linnet_trainer_steps(const linnet_trainer *trainer)
{
    return trainer->n_steps_taken;
}

linnet_status linnet_evaluate(linnet_arena *arena, const linnet_adapter *adapter, const linnet_token_set *set,
                              double *ret_loss_sum, size_t *ret_n_counted, linnet_error *err)
{
    double loss_sum = 0;
    size_t n_counted = 0;
    for (size_t i = 0; i < set->n_items; i++) {
        linnet_sequence sequence = linnet_tokens_sequence(&set->items[i]);
        double loss = 0;
        size_t n = 0;
        linnet_status status = linnet_arena_score(arena, adapter, &sequence, &loss, &n, NULL, err);
        if (status != LINNET_OK)
            return status;
        loss_sum += loss;
        n_counted += n;
    }
    *ret_loss_sum = loss_sum;
    *ret_n_counted = n_counted;
    return LINNET_OK;
}
