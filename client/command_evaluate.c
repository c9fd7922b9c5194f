/* SPDX-License-Identifier: Apache-2.0 */
/* evaluate: the mean loss of records under a model, with or without an adapter. One record is in memory as
 * tokens at a time. */
#include "commands.h"

#include "linnet/dataset.h"

#include <math.h>

typedef struct evaluation {
    double loss_sum;
    size_t n_counted, n_records, n_empty;
    size_t n_labels, n_right; /* records with a label, and those whose label is the likeliest */
} evaluation;

/* Is the label of the sequence scored last the likeliest of the model's? */
static bool is_right(const linnet_model *model, const linnet_arena *arena, uint32_t label)
{
    const float *logits = linnet_arena_logits(arena);
    for (uint32_t i = 0; i < linnet_model_n_labels(model); i++)
        if (logits[i] > logits[label] || (logits[i] == logits[label] && i < label))
            return false;
    return true;
}

static linnet_status score_record(const linnet_cli *cli, const client_model *m, linnet_arena *arena,
                                  const linnet_dataset *data, const linnet_record *record,
                                  const linnet_encoding *encoding, bool each, evaluation *e,
                                  linnet_error *err)
{
    linnet_tokens tokens = {0};
    double loss = 0;
    size_t n = 0;
    linnet_status status = linnet_record_encode(record, m->tokenizer, encoding, &tokens, err);
    if (status != LINNET_OK)
        return linnet_record_place(data, record, status, err);
    linnet_sequence sequence = linnet_tokens_sequence(&tokens);
    if (tokens.n_counted > 0)
        status = linnet_arena_score(arena, m->adapter, &sequence, &loss, &n, NULL, err);
    linnet_tokens_release(&tokens);
    if (status != LINNET_OK)
        return status;
    e->loss_sum += loss;
    e->n_counted += n;
    e->n_records += n > 0;
    e->n_empty += n == 0;
    bool has_label = sequence.has_label && n > 0;
    bool right = has_label && is_right(m->model, arena, sequence.label);
    e->n_labels += has_label;
    e->n_right += right;
    if (each) {
        json_t *object = client_event("record");
        client_put_count(object, "line", record->line);
        client_put_number(object, "loss", n > 0 ? loss / (double)n : NAN);
        client_put_count(object, "tokens", n);
        if (has_label)
            (void)json_object_set_new(object, "right", json_boolean(right));
        linnet_cli_emit(cli, object);
        if (has_label)
            linnet_cli_say(cli, "line %zu: loss %.4f, %s\n", record->line, loss, right ? "right" : "wrong");
        else if (n > 0)
            linnet_cli_say(cli, "line %zu: loss %.4f over %zu tokens\n", record->line, loss / (double)n, n);
    }
    return LINNET_OK;
}

static linnet_status score_all(const linnet_cli *cli, const client_model *m, linnet_arena *arena,
                               const linnet_dataset *data, const linnet_encoding *encoding, bool each,
                               evaluation *e, linnet_error *err)
{
    linnet_progress progress;
    linnet_status status = LINNET_OK;
    linnet_progress_start(&progress, cli, "evaluate", data->n_records);
    for (size_t i = 0; i < data->n_records && status == LINNET_OK; i++) {
        status = score_record(cli, m, arena, data, &data->records[i], encoding, each, e, err);
        linnet_progress_update(&progress, i + 1, NULL);
    }
    linnet_progress_finish(&progress);
    if (status == LINNET_OK && e->n_counted == 0)
        status = linnet_fail(err, LINNET_ERR_ARG, "no record has a token to score");
    return status;
}

static void report_evaluation(const linnet_cli *cli, const evaluation *e, const linnet_dataset *data)
{
    double loss = e->loss_sum / (double)e->n_counted;
    json_t *result = client_event("result");
    client_put_number(result, "loss", loss);
    client_put_number(result, "perplexity", exp(loss));
    client_put_count(result, "tokens", e->n_counted);
    client_put_count(result, "records", e->n_records);
    client_put_count(result, "records_without_tokens", e->n_empty);
    client_put_count(result, "lines_skipped", data->n_skipped);
    if (e->n_labels > 0)
        client_put_number(result, "accuracy", (double)e->n_right / (double)e->n_labels);
    linnet_cli_emit(cli, result);
    if (e->n_labels > 0)
        linnet_cli_say(cli, "loss %.4f, perplexity %.4g, %zu of %zu labels right\n", loss, exp(loss),
                       e->n_right, e->n_labels);
    else
        linnet_cli_say(cli, "loss %.4f, perplexity %.4g, %zu tokens in %zu records\n", loss, exp(loss),
                       e->n_counted, e->n_records);
    if (data->n_skipped > 0)
        linnet_cli_say(cli, "%zu bad lines were passed over\n", data->n_skipped);
}

static linnet_status run_evaluate(const linnet_cli *cli, const client_model *m, const char *data_path,
                                  uint64_t context, bool end_token, bool skip_bad, bool each,
                                  linnet_error *err)
{
    linnet_encoding encoding = {.end_token = end_token, .model = m->model};
    linnet_dataset *data = NULL;
    linnet_arena *arena = NULL;
    evaluation e = {0};
    linnet_status status = client_context(m, context, 0, &encoding.context_tokens, err);
    if (status == LINNET_OK)
        status = linnet_dataset_load(data_path, skip_bad, &data, err);
    if (status == LINNET_OK)
        status = linnet_arena_create(m->model, m->pool, encoding.context_tokens, false, &arena, err);
    if (status == LINNET_OK)
        status = score_all(cli, m, arena, data, &encoding, each, &e, err);
    if (status == LINNET_OK)
        report_evaluation(cli, &e, data);
    linnet_arena_destroy(arena);
    linnet_dataset_destroy(data);
    return status;
}

static int command_evaluate(linnet_cli *cli, int argc, char **argv)
{
    const char *path = NULL, *data = NULL;
    linnet_texts adapters = {0};
    uint64_t context = 0;
    bool each = false, end_token = true, skip_bad = false;
    linnet_option options[] = {
        CLIENT_REQUIRED("model", &path, "FILE", "GGUF model, or a checkpoint's folder"),
        CLIENT_ADAPTERS(&adapters),
        CLIENT_REQUIRED("data", &data, "FILE", "records, JSON Lines"),
        CLIENT_COUNT("context", &context, 0, 0, "tokens of a record at most; 0: the model's context"),
        CLIENT_SWITCH("end-token", &end_token, "texts and answers end with end-of-text, which counts"),
        CLIENT_FLAG("each", &each, "a line for every record too"),
        CLIENT_FLAG("skip-bad", &skip_bad, "pass over bad lines and count them"),
    };
    int exit_status =
        linnet_cli_parse(cli, &client_command_evaluate, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (exit_status >= 0)
        return exit_status;
    client_model m = {0};
    linnet_error err = {0};
    linnet_status status = client_model_open(cli, path, &adapters, &m, &err);
    if (status == LINNET_OK)
        status = run_evaluate(cli, &m, data, context, end_token, skip_bad, each, &err);
    client_model_close(&m);
    return status == LINNET_OK ? 0 : linnet_cli_fail(cli, &err);
}

const linnet_command client_command_evaluate = {
    "evaluate", NULL, "Score records: mean loss in nats a token or label, perplexity, accuracy of labels.",
    command_evaluate};
