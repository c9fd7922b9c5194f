/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_RUNTIME_H
#define LINNET_RUNTIME_H

/* What running a model takes beside the mapped file: its tokenizer, threads, and an adapter, loaded from
 * files or fresh. */

#include "linnet/model.h"
#include "linnet/tokenizer.h"

typedef struct linnet_runtime {
    linnet_thread_pool *pool;
    linnet_model *model;
    linnet_tokenizer *tokenizer;
    linnet_adapter *adapter; /* NULL: none */
} linnet_runtime;            /* all owned */

/** Into a runtime of zeros; no adapter. n_threads 0: one per core. FORMAT where the tokenizer has tokens that
 * the model has not. On failure what is open is left to linnet_runtime_close. */
linnet_status linnet_runtime_open(const char *path, unsigned n_threads, linnet_runtime *runtime,
                                  linnet_error *err) LINNET_NODISCARD;
/** Takes half-open ones; zeros are left. */
void linnet_runtime_close(linnet_runtime *runtime);

/** The context to work with: `wanted`, or where that is 0 `usual` (0: the model's), at most the model's; 0
 * where more is wanted. */
uint32_t linnet_context_choose(const linnet_model *model, uint64_t wanted, uint32_t usual);

/** n >= 1 adapter files, each times its scale, as one adapter; a single one with scale 1 stays as it is. */
linnet_status linnet_adapters_load(const linnet_model *model, const char *const *paths, const float *scales,
                                   size_t n, linnet_adapter **ret_adapter,
                                   linnet_error *err) LINNET_NODISCARD;

/** What an adapter is made of where training starts from none; see linnet_layout_create_for. */
typedef struct linnet_adapter_form {
    const char *targets;
    uint32_t rank;
    float alpha;
    bool by_root;
    uint64_t seed; /* of factor A */
} linnet_adapter_form;
linnet_status linnet_adapter_fresh(const linnet_model *model, const linnet_adapter_form *form,
                                   linnet_adapter **ret_adapter, linnet_error *err) LINNET_NODISCARD;

#endif
