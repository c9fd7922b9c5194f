/* SPDX-License-Identifier: Apache-2.0 */
/* One step of record-level privacy, mode `record-local` (SECURE-AGGREGATION 3.6): every unit is drawn by a
 * coin of its own; the gradient of a drawn unit's mean loss at the current weights is clipped, rounded and
 * summed on an integer lattice; one discrete Gaussian vector is added to the sum, which is then divided by a
 * public number (Abadi et al. 2016, algorithm 1, with the unit in the place of the example). A mean over a
 * batch is never clipped, and neither the drawn nor the true number of units divides anything.
 *
 * Dropout inside is no matter of privacy, as long as what one unit drops depends on no other: a clipped
 * function of the unit, the weights and public numbers is all that the sum's sensitivity asks for. So masks
 * are keyed by the seed, the step and the record's own ids, and never by its place, which is another where a
 * unit before it is missing: the sum would then move by more than one clip norm.
 *
 * A unit whose loss or gradient is not finite counts as the zero vector, in silence: an error would tell of
 * one unit's data. What fails otherwise (memory, an adapter of another model) fails for any data. The time of
 * a step grows with the units drawn, so it is not to leave the device either. */
#include "trainer_state.h"

#include <math.h>
#include <stdlib.h>

/* ---- the units ---- */

/* Sort the set's items by unit, in counting: first the ends of the units, which come down to their begins. */
static void group_items(linnet_private_step *step, const linnet_token_set *set)
{
    size_t *end = step->first + 1;
    for (size_t i = 0; i < set->n_items; i++)
        end[set->units[i]]++;
    for (size_t u = 1; u < set->n_units; u++)
        end[u] += end[u - 1];
    for (size_t i = set->n_items; i-- > 0;)
        step->items[--end[set->units[i]]] = i;
    memmove(step->first, end, set->n_units * sizeof(*end));
    step->first[set->n_units] = set->n_items;
}

static linnet_status make_sum(linnet_private_step *step, const linnet_record_training *privacy,
                              linnet_error *err)
{
    linnet_record_spec spec = {.length = step->n_active,
                               .clip = privacy->clip_norm,
                               .z = privacy->noise_multiplier,
                               .divisor = privacy->probability * privacy->n_units};
    linnet_status status = linnet_record_exponent(spec.clip, spec.z, spec.length, &spec.exponent, err);
    return status == LINNET_OK
               ? linnet_record_sum_create(&spec, privacy->random, privacy->random_context, &step->sum, err)
               : status;
}

linnet_status linnet_private_step_init(linnet_trainer *trainer, linnet_error *err)
{
    const linnet_token_set *set = trainer->set;
    const linnet_record_training *privacy = &trainer->training.privacy;
    linnet_private_step s = {.n_units = set->n_units, .n_active = trainer->optimizer.n_active};
    s.first = calloc(s.n_units + 1, sizeof(*s.first));
    s.items = calloc(set->n_items + 1, sizeof(*s.items));
    s.drawn = calloc(s.n_units + 1, sizeof(*s.drawn));
    s.vector = calloc(s.n_active + 1, sizeof(*s.vector));
    linnet_status status = LINNET_OK;
    if (!s.first || !s.items || !s.drawn || !s.vector)
        status =
            linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a private training of %zu units", s.n_units);
    if (status == LINNET_OK)
        status = make_sum(&s, privacy, err);
    if (status != LINNET_OK) {
        linnet_private_step_release(&s);
        return status;
    }
    group_items(&s, set);
    trainer->private_step = s;
    return LINNET_OK;
}

void linnet_private_step_release(linnet_private_step *step)
{
    linnet_record_sum_destroy(step->sum);
    if (step->drawn)
        linnet_wipe(step->drawn, step->n_units);
    if (step->vector)
        linnet_wipe(step->vector, step->n_active * sizeof(*step->vector));
    free(step->first);
    free(step->items);
    free(step->drawn);
    free(step->vector);
    *step = (linnet_private_step){0};
}

/* A coin for each unit: 64 uniform bits below p 2^64. That product is exact but for a last fraction, which is
 * dropped, so no unit comes more often than the accountant is told. */
static void draw_units(linnet_private_step *step, const linnet_record_training *privacy)
{
    bool all = privacy->probability >= 1;
    uint64_t below = all ? 0 : (uint64_t)ldexp(privacy->probability, 64);
    for (size_t u = 0; u < step->n_units; u++) {
        uint8_t coin[8];
        privacy->random(privacy->random_context, coin, sizeof(coin));
        step->drawn[u] = all || linnet_load_le64(coin) < below;
    }
}

/* ---- the gradients ---- */

static void gather(const linnet_optimizer_state *active, const float *gradient, float *vector)
{
    for (size_t s = 0; s < active->n_spans; s++) {
        memcpy(vector, gradient + active->spans[s].first, active->spans[s].n * sizeof(*vector));
        vector += active->spans[s].n;
    }
}

static void scatter(const linnet_optimizer_state *active, const float *vector, float *gradient)
{
    for (size_t s = 0; s < active->n_spans; s++) {
        memcpy(gradient + active->spans[s].first, vector, active->spans[s].n * sizeof(*vector));
        vector += active->spans[s].n;
    }
}

/* What tells records apart wherever they stand. */
static uint64_t record_key(const linnet_tokens *record)
{
    linnet_hasher hasher;
    linnet_hasher_init(&hasher, LINNET_LABEL_OBJECT);
    linnet_tokens_hash(record, &hasher);
    linnet_hash hash = linnet_hasher_final(&hasher);
    return linnet_load_le64(hash.bytes);
}

/* The gradient of one record's part in its unit's mean loss, added to the trainer's; ret_loss is the loss
 * sum, NaN where it is not finite. */
static linnet_status add_record(linnet_trainer *t, const linnet_tokens *record, uint32_t step,
                                size_t n_counted, double *ret_loss, linnet_error *err)
{
    linnet_sequence sequence = linnet_tokens_sequence(record);
    linnet_dropout dropout =
        linnet_training_dropout(&t->training, step, t->training.dropout > 0 ? record_key(record) : 0);
    linnet_error why = {0};
    size_t n = 0;
    linnet_status status =
        linnet_arena_gradient(t->arena, t->adapter, t->training.factors, &dropout, &sequence,
                              1.0 / (double)n_counted, t->gradient, ret_loss, &n, &why);
    if (status == LINNET_ERR_RANGE) {
        *ret_loss = NAN;
        return LINNET_OK;
    }
    return status == LINNET_OK ? status : linnet_fail(err, status, "%s", why.message);
}

/* Add one unit: the gradient of its loss, a mean over all counted tokens of its records. */
static linnet_status add_unit(linnet_trainer *t, size_t unit, double *loss_sum, linnet_train_step *result,
                              linnet_error *err)
{
    linnet_private_step *step = &t->private_step;
    double loss = 0;
    size_t n_tokens = 0, n_counted = 0;
    for (size_t i = step->first[unit]; i < step->first[unit + 1]; i++) {
        n_tokens += t->set->items[step->items[i]].n_ids;
        n_counted += t->set->items[step->items[i]].n_counted;
    }
    linnet_gradient_zero(&t->optimizer, t->gradient);
    for (size_t i = step->first[unit]; i < step->first[unit + 1]; i++) {
        double part = 0;
        linnet_status status =
            add_record(t, &t->set->items[step->items[i]], result->step, n_counted, &part, err);
        if (status != LINNET_OK)
            return status;
        loss += part;
    }
    result->units++;
    result->tokens += n_tokens;
    if (!isfinite(loss))
        return LINNET_OK; /* as if its gradient were zero */
    result->counted += n_counted;
    *loss_sum += loss;
    gather(&t->optimizer, t->gradient, step->vector);
    linnet_record_sum_add(step->sum, step->vector); /* zero where the gradient is not finite */
    return LINNET_OK;
}

linnet_status linnet_private_step_gradient(linnet_trainer *trainer, linnet_train_step *result,
                                           linnet_error *err)
{
    linnet_private_step *step = &trainer->private_step;
    const linnet_record_training *privacy = &trainer->training.privacy;
    linnet_status status = LINNET_OK;
    double loss_sum = 0;
    if (privacy->begin_step)
        privacy->begin_step(privacy->random_context, result->step);
    draw_units(step, privacy);
    for (size_t u = 0; u < step->n_units && status == LINNET_OK; u++) {
        if (step->drawn[u])
            status = add_unit(trainer, u, &loss_sum, result, err);
    }
    linnet_record_sum_finish(step->sum, step->vector); /* also empties the sum of a step that failed */
    if (status != LINNET_OK)
        return status;
    scatter(&trainer->optimizer, step->vector, trainer->gradient);
    result->loss = result->counted > 0 ? loss_sum / (double)result->counted : NAN;
    return LINNET_OK;
}
