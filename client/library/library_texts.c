/* SPDX-License-Identifier: Apache-2.0 */
/* Texts behind a handle, and their loss under a model. */
#include "library.h"

#include "linnet/trainer.h"

#include <stdlib.h>

/* ---- open, close ---- */

lin_texts *library_texts_share(const lin_texts *texts)
{
    lin_texts *shared = (lin_texts *)(uintptr_t)texts; /* only the count of its users changes */
    if (shared)
        (void)atomic_fetch_add(&shared->n_users, 1);
    return shared;
}

lin_status lin_texts_create(lin_texts **ret_texts, lin_error *err)
{
    linnet_error why = {0};
    linnet_status status = library_need(ret_texts, "ret_texts", &why);
    lin_texts *texts = status == LINNET_OK ? calloc(1, sizeof(*texts)) : NULL;
    linnet_dataset *dataset = texts ? linnet_dataset_create() : NULL;
    if (status == LINNET_OK && !dataset) {
        free(texts);
        status = linnet_fail(&why, LINNET_ERR_NOMEM, "no memory for texts");
    }
    if (status == LINNET_OK) {
        atomic_init(&texts->n_users, 1);
        texts->dataset = dataset;
        *ret_texts = texts;
    }
    return library_return(status, &why, 0, err);
}

void lin_texts_close(lin_texts *texts)
{
    if (!texts || atomic_fetch_sub(&texts->n_users, 1) > 1)
        return;
    linnet_dataset_destroy(texts->dataset);
    free(texts);
}

size_t lin_texts_count(const lin_texts *texts)
{
    return texts ? texts->dataset->n_records : 0;
}

/* ---- adding ---- */

/* A copy; NULL, and *status, where there is none. */
static char *copy_text(const char *text, const char *name, linnet_status *status, linnet_error *err)
{
    if (*status == LINNET_OK)
        *status = library_need(text, name, err);
    if (*status == LINNET_OK && !linnet_utf8_is_valid(text, strlen(text)))
        *status = linnet_fail(err, LINNET_ERR_FORMAT, "the %s is no valid UTF-8", name);
    char *copy = *status == LINNET_OK ? strdup(text) : NULL;
    if (*status == LINNET_OK && !copy)
        *status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a text");
    return copy;
}

static linnet_status add_record(lin_texts *texts, linnet_record *record, linnet_error *err)
{
    record->line = texts->dataset->n_records + 1;
    return linnet_dataset_add(texts->dataset, record, err);
}

static lin_status add(lin_texts *texts, linnet_record_kind kind, const char *text, const char *completion,
                      lin_error *err)
{
    linnet_error why = {0};
    linnet_record record = {.kind = kind};
    linnet_status status = library_need(texts, "texts", &why);
    record.text = copy_text(text, kind == LINNET_RECORD_TEXT ? "text" : "prompt", &status, &why);
    if (kind == LINNET_RECORD_COMPLETION)
        record.completion = copy_text(completion, "completion", &status, &why);
    if (status == LINNET_OK)
        status = add_record(texts, &record, &why);
    linnet_record_release(&record);
    return library_return(status, &why, 0, err);
}

lin_status lin_texts_add(lin_texts *texts, const char *text, lin_error *err)
{
    return add(texts, LINNET_RECORD_TEXT, text, NULL, err);
}

lin_status lin_texts_add_completion(lin_texts *texts, const char *prompt, const char *completion,
                                    lin_error *err)
{
    return add(texts, LINNET_RECORD_COMPLETION, prompt, completion, err);
}

lin_status lin_texts_add_json(lin_texts *texts, const char *line, size_t n_bytes, lin_error *err)
{
    linnet_error why = {0};
    linnet_record record = {0};
    linnet_status status = library_need(texts, "texts", &why);
    if (status == LINNET_OK)
        status = library_need(line, "line", &why);
    if (status == LINNET_OK) {
        status = linnet_record_parse(line, n_bytes, &record, &why);
        if (status != LINNET_OK)
            status = linnet_error_prefix(&why, status, "line %zu", texts->dataset->n_records + 1);
    }
    if (status == LINNET_OK)
        status = add_record(texts, &record, &why);
    return library_return(status, &why, 0, err);
}

static linnet_status move_records(linnet_dataset *from, linnet_dataset *to, linnet_error *err)
{
    size_t n_before = to->n_records;
    for (size_t i = 0; i < from->n_records; i++) {
        linnet_status status = linnet_dataset_add(to, &from->records[i], err);
        if (status == LINNET_OK)
            continue;
        while (to->n_records > n_before)
            linnet_record_release(&to->records[--to->n_records]);
        return status;
    }
    return LINNET_OK;
}

lin_status lin_texts_load(lin_texts *texts, const char *path, lin_error *err)
{
    linnet_error why = {0};
    linnet_dataset *loaded = NULL;
    linnet_status status = library_need(texts, "texts", &why);
    if (status == LINNET_OK)
        status = library_need(path, "path", &why);
    if (status == LINNET_OK)
        status = linnet_dataset_load(path, false, &loaded, &why);
    if (status == LINNET_OK)
        status = move_records(loaded, texts->dataset, &why);
    linnet_dataset_destroy(loaded);
    return library_return(status, &why, 0, err);
}

/* ---- loss ---- */

linnet_status library_evaluate(lin_model *model, linnet_arena *arena, const linnet_adapter *adapter,
                               const linnet_token_set *set, double *ret_loss, uint64_t *ret_tokens,
                               linnet_error *err)
{
    double sum = 0;
    size_t n_counted = 0;
    for (size_t i = 0; i < set->n_items; i++) {
        const linnet_token_set one = {.items = &set->items[i], .n_items = 1};
        double loss = 0;
        size_t n = 0;
        linnet_status status = library_model_cancelled(model, err);
        if (status == LINNET_OK)
            status = linnet_evaluate(arena, adapter, &one, &loss, &n, err);
        if (status != LINNET_OK)
            return status;
        sum += loss;
        n_counted += n;
    }
    if (n_counted == 0)
        return linnet_fail(err, LINNET_ERR_ARG, "no text has a token to score");
    *ret_loss = sum / (double)n_counted;
    if (ret_tokens)
        *ret_tokens = n_counted;
    return LINNET_OK;
}

/* What an evaluation makes and releases. */
typedef struct scoring {
    linnet_shared_adapter *adapter;
    linnet_arena *arena;
    linnet_token_set *set;
    size_t needed_bytes;
} scoring;

static linnet_status score(scoring *s, lin_model *model, const lin_texts *texts, uint32_t context_tokens,
                           double *ret_loss, uint64_t *ret_tokens, linnet_error *err)
{
    const linnet_runtime *runtime = &model->runtime;
    linnet_encoding encoding = {.context_tokens = linnet_context_choose(runtime->model, context_tokens, 0),
                                .end_token = true,
                                .model = runtime->model};
    if (encoding.context_tokens == 0)
        return linnet_fail(err, LINNET_ERR_LIMIT, "a context of %u tokens is more than the model's %u",
                           (unsigned)context_tokens,
                           (unsigned)linnet_model_shape_of(runtime->model)->context);
    s->adapter = linnet_adapter_slot_take(&model->adapter);
    const linnet_adapter *adapter = linnet_shared_adapter_get(s->adapter);
    uint32_t context_min = context_tokens > 0 ? context_tokens : LIBRARY_CONTEXT_MIN;
    linnet_status status = linnet_arena_create_within(
        runtime->model, runtime->pool, adapter, library_bytes_max(model->memory_max), context_min, false,
        &encoding.context_tokens, &s->needed_bytes, &s->arena, err);
    if (status == LINNET_OK) {
        s->needed_bytes = 0;
        status =
            linnet_token_set_create(texts->dataset, NULL, 0, runtime->tokenizer, &encoding, &s->set, err);
    }
    return status == LINNET_OK ? library_evaluate(model, s->arena, adapter, s->set, ret_loss, ret_tokens, err)
                               : status;
}

lin_status lin_evaluate(lin_model *model, const lin_texts *texts, uint32_t context_tokens, double *ret_loss,
                        uint64_t *ret_tokens, lin_error *err)
{
    linnet_error why = {0};
    scoring s = {0};
    linnet_status status = library_need(model, "model", &why);
    if (status == LINNET_OK)
        status = library_need(texts, "texts", &why);
    if (status == LINNET_OK)
        status = library_need(ret_loss, "ret_loss", &why);
    if (status == LINNET_OK)
        status = library_model_enter(model, &why);
    if (status != LINNET_OK)
        return library_return(status, &why, 0, err);
    status = score(&s, model, texts, context_tokens, ret_loss, ret_tokens, &why);
    linnet_token_set_destroy(s.set);
    linnet_arena_destroy(s.arena);
    linnet_shared_adapter_release(s.adapter);
    library_model_leave(model);
    return library_return(status, &why, status == LINNET_ERR_LIMIT ? s.needed_bytes : 0, err);
}
