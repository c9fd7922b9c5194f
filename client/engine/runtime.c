/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a model with all that running it takes, and adapters for it. */
#include "linnet/runtime.h"

#include <stdlib.h>

linnet_status linnet_runtime_open(const char *path, unsigned n_threads, linnet_runtime *runtime,
                                  linnet_error *err)
{
    linnet_status status = linnet_thread_pool_create(n_threads, &runtime->pool, err);
    if (status == LINNET_OK)
        status = linnet_model_open(path, &runtime->model, err);
    if (status == LINNET_OK)
        status = linnet_tokenizer_create(linnet_model_gguf(runtime->model), &runtime->tokenizer, err);
    if (status != LINNET_OK)
        return status;
    uint32_t n_tokens = linnet_tokenizer_vocabulary(runtime->tokenizer),
             n_rows = linnet_model_shape_of(runtime->model)->vocabulary;
    if (n_tokens > n_rows)
        return linnet_fail(err, LINNET_ERR_FORMAT, "'%s': the tokenizer has %u tokens, the model %u", path,
                           (unsigned)n_tokens, (unsigned)n_rows);
    return LINNET_OK;
}

void linnet_runtime_close(linnet_runtime *runtime)
{
    linnet_adapter_destroy(runtime->adapter);
    linnet_tokenizer_destroy(runtime->tokenizer);
    linnet_model_close(runtime->model);
    linnet_thread_pool_destroy(runtime->pool);
    *runtime = (linnet_runtime){0};
}

uint32_t linnet_context_choose(const linnet_model *model, uint64_t wanted, uint32_t usual)
{
    uint32_t most = linnet_model_shape_of(model)->context;
    if (wanted > most)
        return 0;
    return wanted > 0 ? (uint32_t)wanted : usual > 0 && usual < most ? usual : most;
}

linnet_status linnet_adapters_load(const linnet_model *model, const char *const *paths, const float *scales,
                                   size_t n, linnet_adapter **ret_adapter, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    linnet_adapter **list = calloc(n > 0 ? n : 1, sizeof(*list));
    if (!list)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %zu adapters", n);
    for (size_t i = 0; i < n && status == LINNET_OK; i++)
        status = linnet_adapter_load(paths[i], linnet_model_gguf(model), &list[i], err);
    if (status == LINNET_OK && n == 1 && scales[0] == 1) {
        status = linnet_model_prepare_adapter(model, list[0], err);
        if (status == LINNET_OK) {
            *ret_adapter = list[0]; /* as it is: training goes on from it */
            list[0] = NULL;
        }
    } else if (status == LINNET_OK) {
        status = linnet_adapter_blend((const linnet_adapter *const *)list, scales, n, ret_adapter, err);
    }
    for (size_t i = 0; i < n; i++)
        linnet_adapter_destroy(list[i]);
    free(list);
    return status;
}

linnet_status linnet_adapter_fresh(const linnet_model *model, const linnet_adapter_form *form,
                                   linnet_adapter **ret_adapter, linnet_error *err)
{
    linnet_layout *layout = NULL;
    linnet_status status = linnet_layout_create_for(linnet_model_gguf(model), form->targets, form->rank,
                                                    form->alpha, form->by_root, &layout, err);
    if (status == LINNET_OK)
        status = linnet_adapter_create(layout, ret_adapter, err);
    if (status == LINNET_OK)
        linnet_adapter_init(*ret_adapter, form->seed);
    linnet_layout_destroy(layout);
    return status;
}
