/* SPDX-License-Identifier: Apache-2.0 */
/* classify: which of an encoder's labels a text has, and how likely each is. */
#include "commands.h"

#include "linnet/dataset.h"

#include <math.h>
#include <stdlib.h>

typedef struct classification {
    const linnet_cli *cli;
    const client_model *m;
    linnet_arena *arena;
    uint32_t context_tokens, n_labels;
    double *probabilities; /* of the labels, for the text at hand */
    uint32_t best;         /* the likeliest */
} classification;

/* What logits say: a softmax, in double. */
static void read_logits(classification *c, const float *logits)
{
    double sum = 0;
    c->best = 0;
    for (uint32_t i = 1; i < c->n_labels; i++)
        c->best = logits[i] > logits[c->best] ? i : c->best;
    for (uint32_t i = 0; i < c->n_labels; i++)
        sum += c->probabilities[i] = exp((double)logits[i] - logits[c->best]);
    for (uint32_t i = 0; i < c->n_labels; i++)
        c->probabilities[i] /= sum;
}

static linnet_status classify(classification *c, const char *text, linnet_error *err)
{
    linnet_ids ids = {0};
    const float *logits = NULL;
    linnet_status status = linnet_text_encode(text, c->m->tokenizer, c->context_tokens, &ids, err);
    if (status == LINNET_OK)
        status = linnet_arena_classify(c->arena, c->m->adapter, ids.items, ids.n_items, &logits, err);
    if (status == LINNET_OK)
        read_logits(c, logits);
    linnet_ids_release(&ids);
    return status;
}

/* ---- telling ---- */

static json_t *names_of_labels(const classification *c)
{
    json_t *names = json_array();
    for (uint32_t i = 0; i < c->n_labels; i++) {
        linnet_text name = linnet_model_label(c->m->model, i);
        (void)json_array_append_new(names, client_json_text(name.bytes, name.n_bytes));
    }
    return names;
}

/* The label and all probabilities, in the order of the labels. */
static void put_classification(const classification *c, json_t *object)
{
    linnet_text name = linnet_model_label(c->m->model, c->best);
    json_t *probabilities = json_array();
    client_put_text(object, "label", name.bytes, name.n_bytes);
    client_put_count(object, "label_index", c->best);
    client_put_number(object, "probability", c->probabilities[c->best]);
    for (uint32_t i = 0; i < c->n_labels; i++)
        (void)json_array_append_new(probabilities, linnet_json_number(c->probabilities[i]));
    (void)json_object_set_new(object, "probabilities", probabilities);
}

static void add_label_cell(const classification *c, linnet_table *table, uint32_t label)
{
    linnet_text name = linnet_model_label(c->m->model, label);
    linnet_buffer line = {0};
    client_append_line(&line, name.bytes, name.n_bytes);
    linnet_table_cell(table, "%.*s", (int)line.n_bytes, line.bytes ? (const char *)line.bytes : "");
    linnet_buffer_release(&line);
}

static void print_labels(const classification *c)
{
    static const char *const headers[] = {"label", "probability"};
    linnet_table *table = linnet_table_create(headers, ARRAY_LEN(headers));
    for (uint32_t i = 0; i < c->n_labels; i++) {
        add_label_cell(c, table, i);
        linnet_table_cell(table, "%.4f%s", c->probabilities[i], i == c->best ? " *" : "");
    }
    linnet_table_print(table, c->cli->out);
    linnet_table_destroy(table);
}

/* ---- one text, and a file of them ---- */

static linnet_status classify_text(classification *c, const char *text, linnet_error *err)
{
    linnet_status status = classify(c, text, err);
    if (status != LINNET_OK)
        return status;
    json_t *result = client_event("result");
    put_classification(c, result);
    (void)json_object_set_new(result, "labels", names_of_labels(c));
    linnet_cli_emit(c->cli, result);
    if (!c->cli->json && !c->cli->quiet)
        print_labels(c);
    return LINNET_OK;
}

static linnet_status classify_record(classification *c, const linnet_dataset *data,
                                     const linnet_record *record, linnet_table *table, linnet_error *err)
{
    bool has_text = record->kind == LINNET_RECORD_TEXT;
    linnet_status status =
        has_text ? classify(c, record->text, err)
                 : linnet_fail(err, LINNET_ERR_UNSUPPORTED, "a record to classify has \"text\"");
    if (status != LINNET_OK)
        return linnet_record_place(data, record, status, err);
    json_t *object = client_event("record");
    client_put_count(object, "line", record->line);
    put_classification(c, object);
    linnet_cli_emit(c->cli, object);
    linnet_table_cell(table, "%zu", record->line);
    add_label_cell(c, table, c->best);
    linnet_table_cell(table, "%.4f", c->probabilities[c->best]);
    return LINNET_OK;
}

static linnet_status classify_records(classification *c, const linnet_dataset *data, linnet_error *err)
{
    static const char *const headers[] = {"line", "label", "probability"};
    linnet_table *table = linnet_table_create(headers, ARRAY_LEN(headers));
    linnet_progress progress;
    linnet_status status = LINNET_OK;
    linnet_progress_start(&progress, c->cli, "classify", data->n_records);
    for (size_t i = 0; i < data->n_records && status == LINNET_OK; i++) {
        status = classify_record(c, data, &data->records[i], table, err);
        linnet_progress_update(&progress, i + 1, NULL);
    }
    linnet_progress_finish(&progress);
    if (status == LINNET_OK) {
        json_t *result = client_event("result");
        client_put_count(result, "records", data->n_records);
        client_put_count(result, "lines_skipped", data->n_skipped);
        (void)json_object_set_new(result, "labels", names_of_labels(c));
        linnet_cli_emit(c->cli, result);
        if (!c->cli->json && !c->cli->quiet)
            linnet_table_print(table, c->cli->out);
    }
    linnet_table_destroy(table);
    return status;
}

static linnet_status open_classification(classification *c, uint64_t context, linnet_error *err)
{
    linnet_status status = linnet_model_require_head(c->m->model, err);
    if (status == LINNET_OK)
        status = client_context(c->m, context, 0, &c->context_tokens, err);
    if (status == LINNET_OK)
        status = linnet_arena_create(c->m->model, c->m->pool, c->context_tokens, false, &c->arena, err);
    c->n_labels = linnet_model_n_labels(c->m->model);
    c->probabilities = calloc((size_t)c->n_labels + 1, sizeof(*c->probabilities));
    if (status == LINNET_OK && !c->probabilities)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %u labels", (unsigned)c->n_labels);
    return status;
}

static int command_classify(linnet_cli *cli, int argc, char **argv)
{
    const char *path = NULL, *text = NULL, *data_path = NULL;
    linnet_texts adapters = {0};
    uint64_t context = 0;
    bool skip_bad = false;
    linnet_option options[] = {
        CLIENT_REQUIRED("model", &path, "FILE", "encoder with labels, GGUF or a checkpoint's folder"),
        CLIENT_ADAPTERS(&adapters),
        CLIENT_TEXT("text", &text, "TEXT", "what to classify"),
        CLIENT_TEXT("data", &data_path, "FILE", "records to classify instead, JSON Lines"),
        CLIENT_COUNT("context", &context, 0, 0, "tokens of a text at most; 0: the model's context"),
        CLIENT_FLAG("skip-bad", &skip_bad, "pass over bad lines and count them"),
    };
    int exit_status =
        linnet_cli_parse(cli, &client_command_classify, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (exit_status >= 0)
        return exit_status;
    if (!text == !data_path)
        return linnet_cli_usage(cli, "one of --text and --data is wanted");
    client_model m = {0};
    classification c = {.cli = cli, .m = &m};
    linnet_dataset *data = NULL;
    linnet_error err = {0};
    linnet_status status = client_model_open(cli, path, &adapters, &m, &err);
    if (status == LINNET_OK)
        status = open_classification(&c, context, &err);
    if (status == LINNET_OK && data_path)
        status = linnet_dataset_load(data_path, skip_bad, &data, &err);
    if (status == LINNET_OK)
        status = data ? classify_records(&c, data, &err) : classify_text(&c, text, &err);
    linnet_dataset_destroy(data);
    linnet_arena_destroy(c.arena);
    free(c.probabilities);
    client_model_close(&m);
    return status == LINNET_OK ? 0 : linnet_cli_fail(cli, &err);
}

const linnet_command client_command_classify = {
    "classify", NULL, "Tell which of an encoder's labels a text has.", command_classify};
