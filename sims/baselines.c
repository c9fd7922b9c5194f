/* SPDX-License-Identifier: Apache-2.0 */
/* Baselines beside a federated run (FEDERATED-LORA 6): the base model, every device alone, and all records in
 * one place, with the same adapter shape, start, batch and number of examples. Both train A and B together, A
 * at a quarter of B's rate, cosine over the whole run, which FEDERATED-LORA 12.1 recommends for them. */
#include "baselines.h"

#include <math.h>
#include <stdlib.h>

typedef struct evaluate_work {
    const evaluation *e;
    const linnet_adapter *adapter;
    double *sums;
    size_t *counts;
    linnet_status *statuses;
    linnet_error *errors;
} evaluate_work;

linnet_status evaluation_create(const fleet *f, evaluation *ret_evaluation, linnet_error *err)
{
    evaluation e = {.n_devices = f->n_devices};
    linnet_status status = LINNET_OK;
    linnet_encoding encoding = fleet_encoding(f);
    e.devices = calloc(f->n_devices, sizeof(*e.devices));
    if (!e.devices)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the evaluation");
    for (size_t i = 0; status == LINNET_OK && i < f->n_devices; i++) {
        const linnet_share *share = &f->shares->items[i];
        if (share->n_eval_records > 0)
            status = linnet_token_set_create(f->eval, share->eval_records, share->n_eval_records,
                                             f->tokenizer, &encoding, &e.devices[i], err);
    }
    if (status == LINNET_OK && f->config->general_path) {
        linnet_dataset *general = NULL;
        status = linnet_dataset_load(f->config->general_path, false, &general, err);
        if (status == LINNET_OK)
            status = linnet_token_set_create(general, NULL, 0, f->tokenizer, &encoding, &e.general, err);
        linnet_dataset_destroy(general);
    }
    if (status == LINNET_OK)
        *ret_evaluation = e;
    else
        evaluation_release(&e);
    return status;
}

void evaluation_release(evaluation *e)
{
    for (size_t i = 0; e->devices && i < e->n_devices; i++)
        linnet_token_set_destroy(e->devices[i]);
    free(e->devices);
    linnet_token_set_destroy(e->general);
    *e = (evaluation){0};
}

static void evaluate_device(void *context, size_t item, linnet_arena *arena)
{
    evaluate_work *work = context;
    if (work->e->devices[item])
        work->statuses[item] = linnet_evaluate(arena, work->adapter, work->e->devices[item],
                                               &work->sums[item], &work->counts[item], &work->errors[item]);
}

/* Pooled mean in device order, so that its bits do not depend on who finished first. */
static double pool_losses(const double *sums, const size_t *counts, size_t n, double *each)
{
    double sum = 0;
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        sum += sums[i];
        count += counts[i];
        if (each)
            each[i] = counts[i] ? sums[i] / (double)counts[i] : (double)NAN;
    }
    return count ? sum / (double)count : (double)NAN;
}

static linnet_status first_failure(const linnet_status *statuses, const linnet_error *errors, size_t n,
                                   linnet_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (statuses[i] != LINNET_OK)
            return linnet_fail(err, statuses[i], "%s", errors[i].message);
    return LINNET_OK;
}

linnet_status evaluation_run(fleet *f, const evaluation *e, const linnet_adapter *adapter, double *ret_loss,
                             double *each, linnet_error *err)
{
    size_t n = e->n_devices;
    evaluate_work work = {.e = e, .adapter = adapter};
    linnet_status status;
    work.sums = calloc(n, sizeof(*work.sums));
    work.counts = calloc(n, sizeof(*work.counts));
    work.statuses = calloc(n, sizeof(*work.statuses));
    work.errors = calloc(n, sizeof(*work.errors));
    if (!work.sums || !work.counts || !work.statuses || !work.errors) {
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the evaluation");
    } else {
        fleet_run(f, n, evaluate_device, &work);
        status = first_failure(work.statuses, work.errors, n, err);
    }
    if (status == LINNET_OK)
        *ret_loss = pool_losses(work.sums, work.counts, n, each);
    free(work.sums);
    free(work.counts);
    free(work.statuses);
    free(work.errors);
    return status;
}

linnet_status evaluation_general(fleet *f, const evaluation *e, const linnet_adapter *adapter,
                                 double *ret_loss, linnet_error *err)
{
    double sum = 0;
    size_t count = 0;
    *ret_loss = (double)NAN;
    if (!e->general || e->general->n_items == 0)
        return LINNET_OK;
    linnet_status status = linnet_evaluate(f->arenas[0], adapter, e->general, &sum, &count, err);
    if (status == LINNET_OK && count > 0)
        *ret_loss = sum / (double)count;
    return status;
}

static linnet_training baseline_training(const linnet_plan *plan, uint32_t n_steps, double rate,
                                         uint64_t seed)
{
    linnet_training training = linnet_training_default();
    training.optimizer = plan->optimizer == 0 ? LINNET_OPTIMIZER_ADAMW : LINNET_OPTIMIZER_SGD;
    training.schedule = LINNET_SCHEDULE_COSINE;
    training.factors = LINNET_FACTORS_BOTH;
    training.learning_rate = rate;
    training.learning_rate_a = rate / 4;
    training.weight_decay = plan->weight_decay;
    training.clip_norm = plan->clip_norm;
    training.dropout = plan->dropout;
    training.n_steps = n_steps;
    training.batch_records = plan->batch_records;
    training.warmup_steps = plan->warmup_steps;
    training.seed = seed;
    return training;
}

/* Train a fresh adapter on a token set with a given arena. */
static linnet_status train(const fleet *f, const linnet_training *training, linnet_arena *arena,
                           const linnet_token_set *set, const linnet_cli *cli, linnet_adapter **ret_adapter,
                           linnet_error *err)
{
    const linnet_plan *plan = &f->config->plan;
    linnet_layout *layout = NULL;
    linnet_adapter *adapter = NULL;
    linnet_trainer *trainer = NULL;
    linnet_progress progress = {0};
    linnet_status status = linnet_layout_create(linnet_model_gguf(f->model), plan->rank, (float)plan->alpha,
                                                plan->targets, &layout, err);
    if (status == LINNET_OK)
        status = linnet_adapter_create(layout, &adapter, err);
    if (status == LINNET_OK) {
        linnet_adapter_init(adapter, plan->seed);
        status = linnet_trainer_create(training, arena, set, adapter, &trainer, err);
    }
    if (cli)
        linnet_progress_start(&progress, cli, "centralised", training->n_steps);
    while (status == LINNET_OK && !linnet_trainer_is_done(trainer)) {
        linnet_train_step step;
        status = linnet_trainer_step(trainer, &step, err);
        if (cli)
            linnet_progress_update(&progress, linnet_trainer_steps(trainer), NULL);
    }
    if (cli)
        linnet_progress_finish(&progress);
    linnet_trainer_destroy(trainer);
    linnet_layout_destroy(layout);
    if (status == LINNET_OK)
        *ret_adapter = adapter;
    else
        linnet_adapter_destroy(adapter);
    return status;
}

typedef struct local_work {
    fleet *f;
    const evaluation *e;
    uint32_t n_steps;
    double rate;
    evaluate_work out;
} local_work;

static linnet_status train_alone(local_work *work, size_t item, linnet_arena *arena, linnet_error *err)
{
    fleet *f = work->f;
    const linnet_share *share = &f->shares->items[item];
    linnet_encoding encoding = fleet_encoding(f);
    linnet_training training =
        baseline_training(&f->config->plan, work->n_steps, work->rate, f->config->seed + 1 + item);
    linnet_token_set *set = NULL;
    linnet_adapter *adapter = NULL;
    linnet_status status = linnet_token_set_create(f->data, share->records, share->n_records, f->tokenizer,
                                                   &encoding, &set, err);
    if (status == LINNET_OK && set->n_items > 0)
        status = train(f, &training, arena, set, NULL, &adapter, err);
    if (status == LINNET_OK)
        status = linnet_evaluate(arena, adapter, work->e->devices[item], &work->out.sums[item],
                                 &work->out.counts[item], err);
    linnet_adapter_destroy(adapter);
    linnet_token_set_destroy(set);
    return status;
}

static void local_device(void *context, size_t item, linnet_arena *arena)
{
    local_work *work = context;
    if (work->e->devices[item])
        work->out.statuses[item] = train_alone(work, item, arena, &work->out.errors[item]);
}

linnet_status baseline_local(fleet *f, const evaluation *e, uint32_t n_steps, double rate,
                             const linnet_cli *cli, double *each, double *ret_loss, linnet_error *err)
{
    size_t n = e->n_devices;
    local_work work = {.f = f, .e = e, .n_steps = n_steps, .rate = rate};
    linnet_status status;
    linnet_progress progress;
    linnet_progress_start(&progress, cli, "local-only", 1);
    linnet_progress_update(&progress, 0, NULL);
    work.out.sums = calloc(n, sizeof(*work.out.sums));
    work.out.counts = calloc(n, sizeof(*work.out.counts));
    work.out.statuses = calloc(n, sizeof(*work.out.statuses));
    work.out.errors = calloc(n, sizeof(*work.out.errors));
    if (!work.out.sums || !work.out.counts || !work.out.statuses || !work.out.errors) {
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the local baseline");
    } else {
        fleet_run(f, n, local_device, &work);
        status = first_failure(work.out.statuses, work.out.errors, n, err);
    }
    if (status == LINNET_OK)
        *ret_loss = pool_losses(work.out.sums, work.out.counts, n, each);
    linnet_progress_finish(&progress);
    free(work.out.sums);
    free(work.out.counts);
    free(work.out.statuses);
    free(work.out.errors);
    return status;
}

linnet_status baseline_central(fleet *f, uint32_t n_steps, double rate, const linnet_cli *cli,
                               linnet_adapter **ret_adapter, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    linnet_encoding encoding = fleet_encoding(f);
    linnet_training training = baseline_training(&f->config->plan, n_steps, rate, f->config->seed);
    linnet_token_set *set = NULL;
    linnet_arena *arena = NULL;
    size_t n_all = 0, *all = NULL;
    for (size_t i = 0; i < f->n_devices; i++)
        n_all += f->shares->items[i].n_records;
    all = calloc(n_all + 1, sizeof(*all));
    if (!all)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %zu records", n_all);
    n_all = 0;
    for (size_t i = 0; i < f->n_devices; i++)
        for (size_t j = 0; j < f->shares->items[i].n_records; j++)
            all[n_all++] = f->shares->items[i].records[j];
    status = linnet_token_set_create(f->data, all, n_all, f->tokenizer, &encoding, &set, err);
    if (status == LINNET_OK) /* one run: all threads inside it */
        status = linnet_arena_create(f->model, f->pool, encoding.context_tokens, true, &arena, err);
    if (status == LINNET_OK)
        status = train(f, &training, arena, set, cli, ret_adapter, err);
    linnet_arena_destroy(arena);
    linnet_token_set_destroy(set);
    free(all);
    return status;
}
