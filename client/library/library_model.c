/* SPDX-License-Identifier: Apache-2.0 */
/* A model behind a handle: who may work with it, and which adapter it uses. The adapter is shared between the
 * model and the generations under way, which take up another one between two tokens. */
#include "library.h"

#include <stdlib.h>

enum { THREADS_MAX = 1024 };

/* ---- adapters in use ---- */

static linnet_status load_adapters(const lin_model *model, const char *const *paths, const float *scales,
                                   size_t n, linnet_adapter **ret_adapter, linnet_error *err)
{
    linnet_status status = library_need(paths, "paths", err);
    if (n > LINNET_RANK_MAX) /* each has a rank of at least 1 */
        status = linnet_fail(err, LINNET_ERR_LIMIT, "%zu adapters are too many", n);
    float *ones = status == LINNET_OK && !scales ? calloc(n, sizeof(*ones)) : NULL;
    if (status == LINNET_OK && !scales && !ones)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %zu adapters", n);
    for (size_t i = 0; i < n && status == LINNET_OK; i++) {
        status = library_need(paths[i], "a path", err);
        if (ones)
            ones[i] = 1;
    }
    if (status == LINNET_OK)
        status =
            linnet_adapters_load(model->runtime.model, paths, scales ? scales : ones, n, ret_adapter, err);
    free(ones);
    return status;
}

lin_status lin_model_use_adapters(lin_model *model, const char *const *paths, const float *scales, size_t n,
                                  lin_error *err)
{
    linnet_error why = {0};
    linnet_adapter *adapter = NULL;
    linnet_status status = library_need(model, "model", &why);
    if (status == LINNET_OK && n > 0)
        status = load_adapters(model, paths, scales, n, &adapter, &why);
    if (status == LINNET_OK)
        status = linnet_adapter_slot_put(&model->adapter, adapter, &why);
    return library_return(status, &why, 0, err);
}

/* ---- open, close ---- */

void library_model_share(lin_model *model)
{
    (void)atomic_fetch_add(&model->n_users, 1);
}

void lin_model_close(lin_model *model)
{
    if (!model || atomic_fetch_sub(&model->n_users, 1) > 1)
        return;
    linnet_adapter_slot_release(&model->adapter);
    linnet_runtime_close(&model->runtime);
    free(model->path);
    free(model);
}

static linnet_status open_model(const char *path, const lin_model_options *options, lin_model **ret_model,
                                linnet_error *err)
{
    if (options->n_threads > THREADS_MAX)
        return linnet_fail(err, LINNET_ERR_ARG, "%u threads are too many, %d can be",
                           (unsigned)options->n_threads, THREADS_MAX);
    linnet_status status = linnet_crypto_init(err);
    if (status != LINNET_OK)
        return status;
    lin_model *model = calloc(1, sizeof(*model));
    if (!model)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a model");
    atomic_init(&model->n_users, 1);
    atomic_init(&model->is_busy, false);
    atomic_init(&model->must_cancel, false);
    model->memory_max = options->memory_max;
    model->path = strdup(path);
    status = linnet_adapter_slot_init(&model->adapter, err);
    if (status != LINNET_OK) {
        free(model->path);
        free(model);
        return status;
    }
    status = model->path ? linnet_runtime_open(path, options->n_threads, &model->runtime, err)
                         : linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a path");
    if (status != LINNET_OK) {
        lin_model_close(model);
        return status;
    }
    *ret_model = model;
    return LINNET_OK;
}

lin_status lin_model_open(const char *path, const lin_model_options *options, lin_model **ret_model,
                          lin_error *err)
{
    linnet_error why = {0};
    lin_model_options own;
    linnet_status status = library_take(options, &own, sizeof(own), &why);
    if (status == LINNET_OK)
        status = library_need(path, "path", &why);
    if (status == LINNET_OK)
        status = library_need(ret_model, "ret_model", &why);
    if (status == LINNET_OK)
        status = open_model(path, &own, ret_model, &why);
    return library_return(status, &why, 0, err);
}

lin_status lin_model_describe(const lin_model *model, lin_model_info *ret_info, lin_error *err)
{
    linnet_error why = {0};
    linnet_status status = library_need(model, "model", &why);
    if (status == LINNET_OK)
        status = library_need(ret_info, "ret_info", &why);
    if (status == LINNET_OK)
        status = library_check(ret_info, &why);
    if (status == LINNET_OK) {
        const linnet_runtime *runtime = &model->runtime;
        const linnet_model_shape *shape = linnet_model_shape_of(runtime->model);
        lin_model_info info = {
            .context_tokens = shape->context,
            .vocabulary = shape->vocabulary,
            .n_layers = shape->n_layers,
            .n_threads = linnet_thread_pool_size(runtime->pool),
            .has_chat_template = linnet_tokenizer_chat_template(runtime->tokenizer).n_bytes > 0,
            .mapped_bytes = linnet_gguf_n_bytes(linnet_model_gguf(runtime->model)),
        };
        library_put(info.architecture, sizeof(info.architecture), linnet_model_architecture(runtime->model));
        library_put(info.type, sizeof(info.type), linnet_model_type(runtime->model));
        library_give(&info, sizeof(info), ret_info);
    }
    return library_return(status, &why, 0, err);
}

/* ---- one at a time ---- */

linnet_status library_model_enter(lin_model *model, linnet_error *err)
{
    bool was_busy = false;
    if (!atomic_compare_exchange_strong(&model->is_busy, &was_busy, true))
        return linnet_fail(err, LINNET_ERR_BUSY, "another call is working with this model");
    atomic_store(&model->must_cancel, false);
    return LINNET_OK;
}

void library_model_leave(lin_model *model)
{
    atomic_store(&model->is_busy, false);
}

void lin_model_cancel(lin_model *model)
{
    if (model)
        atomic_store(&model->must_cancel, true);
}

linnet_status library_model_cancelled(lin_model *model, linnet_error *err)
{
    return atomic_load(&model->must_cancel) ? linnet_fail(err, LINNET_ERR_CANCELLED, "cancelled") : LINNET_OK;
}
