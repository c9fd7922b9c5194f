/* SPDX-License-Identifier: Apache-2.0 */
/* Training behind a handle: options into linnet/trainer.h, a budget of memory and one of time, cancelling,
 * and what a training leaves. A training owns its tokens, its adapter and its arena; it shares the model. */
#include "library.h"

#include "linnet/file.h"
#include "linnet/trainer.h"

#include <math.h>
#include <stdlib.h>

#define CHECKPOINT_BYTES_MAX (SIZE_MAX / 4)
enum { USUAL_CONTEXT = 256 };

struct lin_training {
    lin_model *model; /* shared */
    linnet_encoding encoding;
    linnet_token_set *set;
    linnet_adapter *adapter;
    linnet_arena *arena;
    linnet_trainer *trainer; /* these four owned */
    pthread_mutex_t lock;    /* for the one below */
    lin_progress progress;
    atomic_bool must_cancel;
    lin_step_fn *on_step;
    void *user;
};

/* ---- create ---- */

static linnet_status start_adapter(lin_training *t, const lin_training_options *o, linnet_error *err)
{
    const linnet_adapter_form form = {.targets = o->targets ? o->targets : "all",
                                      .rank = o->rank == 0 ? 8 : o->rank,
                                      .alpha = o->alpha == 0 ? 16 : (float)o->alpha,
                                      .by_root = (o->flags & LIN_TRAIN_RANK_ROOT) != 0,
                                      .seed = o->seed};
    const float one = 1;
    if (o->start_adapter)
        return linnet_adapters_load(t->model->runtime.model, &o->start_adapter, &one, 1, &t->adapter, err);
    return linnet_adapter_fresh(t->model->runtime.model, &form, &t->adapter, err);
}

/* The longest context for which arena and state are within the limit. */
static linnet_status fit_arena(lin_training *t, const lin_training_options *o, uint64_t *ret_needed,
                               linnet_error *err)
{
    const linnet_runtime *runtime = &t->model->runtime;
    size_t limit = library_bytes_max(o->memory_max > 0 ? o->memory_max : t->model->memory_max), needed = 0;
    uint32_t context = linnet_context_choose(runtime->model, o->context_tokens, USUAL_CONTEXT);
    size_t n_vectors = o->optimizer == LIN_ADAMW ? 4 : 2; /* adapter, gradient; two moments */
    uint64_t state = (uint64_t)t->adapter->layout->n_parameters * sizeof(float) * n_vectors;
    if (context == 0)
        return linnet_fail(err, LINNET_ERR_LIMIT, "a context of %u tokens is more than the model's %u",
                           (unsigned)o->context_tokens,
                           (unsigned)linnet_model_shape_of(runtime->model)->context);
    linnet_status status = linnet_arena_create_within(
        runtime->model, runtime->pool, t->adapter, limit > state ? limit - (size_t)state : 0,
        o->context_min > 0 ? o->context_min : LIBRARY_CONTEXT_MIN, true, &context, &needed, &t->arena, err);
    if (status == LINNET_ERR_LIMIT && needed > 0) {
        *ret_needed = needed + state;
        return linnet_fail(err, status,
                           "training needs %llu bytes with the shortest context, memory_max is %zu",
                           (unsigned long long)*ret_needed, limit);
    }
    t->encoding = (linnet_encoding){.context_tokens = context,
                                    .end_token = (o->flags & LIN_TRAIN_NO_END_TOKEN) == 0,
                                    .model = runtime->model};
    t->progress.context_tokens = context;
    t->progress.state_bytes = state;
    t->progress.arena_bytes = status == LINNET_OK ? linnet_arena_bytes(t->arena) : 0;
    return status;
}

static linnet_status make_trainer(lin_training *t, const lin_training_options *o, linnet_error *err)
{
    linnet_training settings = linnet_training_default();
    settings.optimizer = o->optimizer == LIN_ADAMW ? LINNET_OPTIMIZER_ADAMW : LINNET_OPTIMIZER_SGD;
    settings.schedule = o->schedule == LIN_CONSTANT ? LINNET_SCHEDULE_CONSTANT : LINNET_SCHEDULE_COSINE;
    settings.learning_rate = o->learning_rate == 0 ? settings.learning_rate : o->learning_rate;
    settings.learning_rate_a = o->learning_rate_a;
    settings.weight_decay = o->weight_decay;
    settings.dropout = o->dropout;
    settings.clip_norm = o->clip_norm == 0 ? settings.clip_norm : o->clip_norm < 0 ? 0 : o->clip_norm;
    settings.batch_records = o->batch_texts == 0 ? settings.batch_records : o->batch_texts;
    if (o->warmup_steps != 0)
        settings.warmup_steps = o->warmup_steps < 0 ? 0 : (uint32_t)o->warmup_steps;
    settings.shuffle = (o->flags & LIN_TRAIN_IN_ORDER) == 0;
    settings.seed = o->seed;
    size_t n_batches =
        t->set->n_items / settings.batch_records + (t->set->n_items % settings.batch_records > 0 ? 1 : 0);
    settings.n_steps = o->n_steps > 0           ? o->n_steps
                       : n_batches < UINT32_MAX ? (uint32_t)n_batches
                                                : UINT32_MAX;
    if (settings.n_steps == 0)
        settings.n_steps = 1; /* no text at all, which the trainer says */
    t->progress.n_steps = settings.n_steps;
    t->progress.n_texts = t->set->n_items;
    return linnet_trainer_create(&settings, t->arena, t->set, t->adapter, &t->trainer, err);
}

static linnet_status check_options(const lin_training_options *o, linnet_error *err)
{
    const uint32_t known = LIN_TRAIN_IN_ORDER | LIN_TRAIN_NO_END_TOKEN | LIN_TRAIN_RANK_ROOT;
    if (o->optimizer > LIN_SGD)
        return linnet_fail(err, LINNET_ERR_ARG, "optimizer: LIN_ADAMW or LIN_SGD");
    if (o->schedule > LIN_COSINE)
        return linnet_fail(err, LINNET_ERR_ARG, "schedule: LIN_CONSTANT or LIN_COSINE");
    if ((o->flags & ~known) != 0)
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED, "a flag is newer than this library");
    if (!(o->alpha == 0 || (o->alpha >= 1e-3 && o->alpha <= 1e6)))
        return linnet_fail(err, LINNET_ERR_ARG, "alpha: 0.001 to 1000000");
    return LINNET_OK;
}

static linnet_status create(lin_training *t, const lin_texts *texts, const lin_training_options *o,
                            uint64_t *ret_needed, linnet_error *err)
{
    linnet_status status = start_adapter(t, o, err);
    if (status == LINNET_OK)
        status = fit_arena(t, o, ret_needed, err);
    if (status == LINNET_OK)
        status = linnet_token_set_create(texts->dataset, NULL, 0, t->model->runtime.tokenizer, &t->encoding,
                                         &t->set, err);
    return status == LINNET_OK ? make_trainer(t, o, err) : status;
}

static linnet_status training_alloc(lin_model *model, const lin_training_options *o,
                                    lin_training **ret_training, linnet_error *err)
{
    lin_training *t = calloc(1, sizeof(*t));
    if (!t)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a training");
    if (pthread_mutex_init(&t->lock, NULL) != 0) {
        free(t);
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a mutex");
    }
    atomic_init(&t->must_cancel, false);
    t->model = model;
    library_model_share(model);
    t->on_step = o->on_step;
    t->user = o->user;
    t->progress = (lin_progress){.size = sizeof(t->progress), .loss = (double)NAN};
    *ret_training = t;
    return LINNET_OK;
}

lin_status lin_training_create(lin_model *model, const lin_texts *texts, const lin_training_options *options,
                               lin_training **ret_training, lin_error *err)
{
    linnet_error why = {0};
    lin_training_options own;
    lin_training *t = NULL;
    uint64_t needed = 0;
    linnet_status status = library_take(options, &own, sizeof(own), &why);
    if (status == LINNET_OK)
        status = library_need(model, "model", &why);
    if (status == LINNET_OK)
        status = library_need(texts, "texts", &why);
    if (status == LINNET_OK)
        status = library_need(ret_training, "ret_training", &why);
    if (status == LINNET_OK)
        status = check_options(&own, &why);
    if (status == LINNET_OK)
        status = training_alloc(model, &own, &t, &why);
    if (status == LINNET_OK)
        status = create(t, texts, &own, &needed, &why);
    if (status == LINNET_OK)
        *ret_training = t;
    else
        lin_training_close(t);
    return library_return(status, &why, needed, err);
}

void lin_training_close(lin_training *t)
{
    if (!t)
        return;
    linnet_trainer_destroy(t->trainer);
    linnet_arena_destroy(t->arena);
    linnet_token_set_destroy(t->set);
    linnet_adapter_destroy(t->adapter);
    (void)pthread_mutex_destroy(&t->lock);
    lin_model_close(t->model);
    free(t);
}

/* ---- run ---- */

/* What the training has come to, for whoever asks; step NULL: no step was taken since. */
static lin_progress keep_progress(lin_training *t, const linnet_train_step *step)
{
    (void)pthread_mutex_lock(&t->lock); /* neither fails for a mutex of the default kind */
    t->progress.step = linnet_trainer_steps(t->trainer);
    t->progress.is_done = linnet_trainer_is_done(t->trainer);
    t->progress.loss = step ? step->loss : t->progress.loss;
    t->progress.learning_rate = step ? step->learning_rate : t->progress.learning_rate;
    t->progress.n_tokens += step ? step->tokens : 0;
    lin_progress now = t->progress;
    (void)pthread_mutex_unlock(&t->lock);
    return now;
}

static linnet_status cancelled(lin_training *t, linnet_error *err)
{
    return atomic_exchange(&t->must_cancel, false) ? linnet_fail(err, LINNET_ERR_CANCELLED, "cancelled")
                                                   : LINNET_OK;
}

static linnet_status take_steps(lin_training *t, uint64_t budget_ms, linnet_error *err)
{
    double end = library_seconds() + (double)budget_ms / 1000;
    linnet_status status = cancelled(t, err);
    while (status == LINNET_OK && !linnet_trainer_is_done(t->trainer)) {
        linnet_train_step step = {0};
        status = linnet_trainer_step(t->trainer, &step, err);
        if (status != LINNET_OK)
            return status;
        lin_progress now = keep_progress(t, &step);
        bool has_enough = t->on_step && t->on_step(t->user, &now) != 0;
        status = cancelled(t, err);
        if (has_enough || library_seconds() >= end)
            break;
    }
    return status;
}

/* The way into every call that works with a training. */
static linnet_status enter(lin_training *t, linnet_error *err)
{
    linnet_status status = library_need(t, "training", err);
    return status == LINNET_OK ? library_model_enter(t->model, err) : status;
}

lin_status lin_training_run(lin_training *t, uint64_t budget_ms, lin_progress *progress, lin_error *err)
{
    linnet_error why = {0};
    linnet_status status = progress ? library_check(progress, &why) : LINNET_OK;
    if (status == LINNET_OK)
        status = enter(t, &why);
    if (status != LINNET_OK)
        return library_return(status, &why, 0, err);
    status = take_steps(t, budget_ms, &why);
    const lin_progress now = keep_progress(t, NULL);
    if (progress)
        library_give(&now, sizeof(now), progress);
    library_model_leave(t->model);
    return library_return(status, &why, 0, err);
}

void lin_training_cancel(lin_training *t)
{
    if (t)
        atomic_store(&t->must_cancel, true);
}

lin_status lin_training_progress(const lin_training *t, lin_progress *ret_progress, lin_error *err)
{
    linnet_error why = {0};
    linnet_status status = library_need(t, "training", &why);
    if (status == LINNET_OK)
        status = library_need(ret_progress, "ret_progress", &why);
    if (status == LINNET_OK)
        status = library_check(ret_progress, &why);
    if (status == LINNET_OK) {
        lin_training *own = (lin_training *)(uintptr_t)t; /* for its lock alone */
        (void)pthread_mutex_lock(&own->lock);
        const lin_progress now = t->progress;
        (void)pthread_mutex_unlock(&own->lock);
        library_give(&now, sizeof(now), ret_progress);
    }
    return library_return(status, &why, 0, err);
}

lin_status lin_training_evaluate(lin_training *t, const lin_texts *texts, double *ret_loss,
                                 uint64_t *ret_tokens, lin_error *err)
{
    linnet_error why = {0};
    linnet_token_set *other = NULL;
    linnet_status status = library_need(ret_loss, "ret_loss", &why);
    if (status == LINNET_OK)
        status = enter(t, &why);
    if (status != LINNET_OK)
        return library_return(status, &why, 0, err);
    if (texts)
        status = linnet_token_set_create(texts->dataset, NULL, 0, t->model->runtime.tokenizer, &t->encoding,
                                         &other, &why);
    if (status == LINNET_OK)
        status = library_evaluate(t->model, t->arena, t->adapter, other ? other : t->set, ret_loss,
                                  ret_tokens, &why);
    linnet_token_set_destroy(other);
    library_model_leave(t->model);
    return library_return(status, &why, 0, err);
}

/* ---- what it leaves ---- */

lin_status lin_training_use(lin_training *t, lin_error *err)
{
    linnet_error why = {0};
    linnet_adapter *copy = NULL;
    linnet_status status = enter(t, &why);
    if (status != LINNET_OK)
        return library_return(status, &why, 0, err);
    status = linnet_adapter_copy(t->adapter, &copy, &why);
    if (status == LINNET_OK)
        status = linnet_adapter_slot_put(&t->model->adapter, copy, &why);
    library_model_leave(t->model);
    return library_return(status, &why, 0, err);
}

static linnet_status save_peft(lin_training *t, const char *directory, linnet_error *err)
{
    char *name = linnet_path_name(t->model->path);
    linnet_status status =
        name ? linnet_adapter_save_peft(t->adapter, linnet_model_architecture(t->model->runtime.model),
                                        directory, name, err)
             : linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a name");
    free(name);
    return status;
}

static linnet_status save_gguf(lin_training *t, const char *path, linnet_error *err)
{
    return linnet_adapter_save_gguf(t->adapter, linnet_model_architecture(t->model->runtime.model), path,
                                    err);
}

static linnet_status save_checkpoint(lin_training *t, const char *path, linnet_error *err)
{
    linnet_buffer bytes = {0};
    linnet_status status = linnet_trainer_save(t->trainer, &bytes, err);
    if (status == LINNET_OK)
        status = linnet_file_write(path, bytes.bytes, bytes.n_bytes, 0600, err);
    linnet_buffer_release(&bytes);
    return status;
}

static linnet_status load_checkpoint(lin_training *t, const char *path, linnet_error *err)
{
    linnet_buffer bytes = {0};
    linnet_status status = linnet_file_read(path, CHECKPOINT_BYTES_MAX, &bytes, err);
    if (status == LINNET_OK) {
        status = linnet_trainer_restore(t->trainer, bytes.bytes, bytes.n_bytes, err);
        if (status != LINNET_OK)
            status = linnet_error_prefix(err, status, "'%s'", path);
    }
    linnet_buffer_release(&bytes);
    return status;
}

/* One of the four above, alone with the model. */
static lin_status with_path(lin_training *t, const char *path,
                            linnet_status (*act)(lin_training *, const char *, linnet_error *), bool checks,
                            lin_error *err)
{
    linnet_error why = {0};
    linnet_status status = library_need(path, "path", &why);
    if (status == LINNET_OK)
        status = enter(t, &why);
    if (status != LINNET_OK)
        return library_return(status, &why, 0, err);
    if (checks)
        status = linnet_adapter_check_finite(t->adapter, &why);
    if (status == LINNET_OK)
        status = act(t, path, &why);
    if (status == LINNET_OK)
        (void)keep_progress(t, NULL);
    library_model_leave(t->model);
    return library_return(status, &why, 0, err);
}

lin_status lin_training_save_peft(lin_training *t, const char *directory, lin_error *err)
{
    return with_path(t, directory, save_peft, true, err);
}

lin_status lin_training_save_gguf(lin_training *t, const char *path, lin_error *err)
{
    return with_path(t, path, save_gguf, true, err);
}

lin_status lin_training_checkpoint_file(lin_training *t, const char *path, lin_error *err)
{
    return with_path(t, path, save_checkpoint, false, err);
}

lin_status lin_training_restore_file(lin_training *t, const char *path, lin_error *err)
{
    return with_path(t, path, load_checkpoint, false, err);
}

lin_status lin_training_checkpoint(lin_training *t, uint8_t **ret_bytes, size_t *ret_n_bytes, lin_error *err)
{
    linnet_error why = {0};
    linnet_buffer bytes = {0};
    linnet_status status = library_need(ret_bytes, "ret_bytes", &why);
    if (status == LINNET_OK)
        status = library_need(ret_n_bytes, "ret_n_bytes", &why);
    if (status == LINNET_OK)
        status = enter(t, &why);
    if (status != LINNET_OK)
        return library_return(status, &why, 0, err);
    status = linnet_trainer_save(t->trainer, &bytes, &why);
    if (status == LINNET_OK) {
        *ret_bytes = bytes.bytes; /* moves */
        *ret_n_bytes = bytes.n_bytes;
    } else {
        linnet_buffer_release(&bytes);
    }
    library_model_leave(t->model);
    return library_return(status, &why, 0, err);
}

lin_status lin_training_restore(lin_training *t, const void *bytes, size_t n_bytes, lin_error *err)
{
    linnet_error why = {0};
    linnet_status status = library_need(bytes, "bytes", &why);
    if (status == LINNET_OK)
        status = enter(t, &why);
    if (status != LINNET_OK)
        return library_return(status, &why, 0, err);
    status = linnet_trainer_restore(t->trainer, bytes, n_bytes, &why);
    if (status == LINNET_OK)
        (void)keep_progress(t, NULL);
    library_model_leave(t->model);
    return library_return(status, &why, 0, err);
}
