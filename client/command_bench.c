/* SPDX-License-Identifier: Apache-2.0 */
/* bench: how fast a model reads a prompt, writes and learns on this machine. Each figure is the median of
 * several runs; the input is random tokens, since time does not depend on their meaning. */
#include "commands.h"

#include "linnet/trainer.h"

#include <stdlib.h>

#define RUNS_MAX 31
#define CONTEXT 256
#define DECODED 64
#define RANK 8

typedef struct bench {
    client_model m;
    uint32_t context;
    size_t n_runs;
    int32_t *ids;     /* owned, `context` of them */
    uint8_t *counted; /* owned */
} bench;

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof(*values), by_value);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static linnet_status make_input(bench *b, linnet_error *err)
{
    linnet_rng rng;
    uint32_t most = linnet_model_shape_of(b->m.model)->context;
    b->context = CONTEXT < most ? CONTEXT : most;
    b->ids = calloc(b->context, sizeof(*b->ids));
    b->counted = malloc(b->context);
    if (!b->ids || !b->counted)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %u tokens", (unsigned)b->context);
    linnet_rng_init(&rng, 1, 0);
    for (uint32_t i = 0; i < b->context; i++) {
        b->ids[i] = (int32_t)linnet_rng_below(&rng, linnet_model_shape_of(b->m.model)->vocabulary);
        b->counted[i] = i > 0;
    }
    return LINNET_OK;
}

/* Tokens a second of the prompt, and of the tokens behind a prompt of one. */
static linnet_status measure_inference(const bench *b, double *ret_prefill, double *ret_decode,
                                       linnet_error *err)
{
    linnet_session *session = NULL;
    const float *logits = NULL;
    double prefill[RUNS_MAX], decode[RUNS_MAX];
    size_t n_decoded = DECODED < b->context ? DECODED : b->context;
    linnet_status status = linnet_session_create(b->m.model, b->m.pool, b->context, &session, err);
    for (size_t run = 0; run < b->n_runs && status == LINNET_OK; run++) {
        linnet_session_reset(session);
        double start = client_seconds();
        status = linnet_session_feed(session, b->ids, b->context, &logits, err);
        prefill[run] = (double)b->context / (client_seconds() - start);
        linnet_session_reset(session);
        start = client_seconds();
        for (size_t i = 0; i < n_decoded && status == LINNET_OK; i++)
            status = linnet_session_feed(session, &b->ids[i], 1, &logits, err);
        decode[run] = (double)n_decoded / (client_seconds() - start);
    }
    linnet_session_destroy(session);
    if (status == LINNET_OK) {
        *ret_prefill = median(prefill, b->n_runs);
        *ret_decode = median(decode, b->n_runs);
    }
    return status;
}

/* Whole optimiser steps of one record with a rank 8 adapter on all seven matrices. */
static linnet_status measure_training(const bench *b, double *ret_rate, linnet_error *err)
{
    linnet_layout *layout = NULL;
    linnet_adapter *adapter = NULL;
    linnet_arena *arena = NULL;
    linnet_trainer *trainer = NULL;
    double rate[RUNS_MAX];
    uint32_t targets = 0;
    linnet_tokens item = {
        .ids = b->ids, .counted = b->counted, .n_ids = b->context, .n_counted = b->context - 1};
    linnet_token_set set = {.items = &item, .n_items = 1, .n_counted = item.n_counted};
    linnet_training training = linnet_training_default();
    training.batch_records = 1;
    training.n_steps = RUNS_MAX;
    linnet_status status = linnet_targets_parse("all", &targets, err);
    if (status == LINNET_OK)
        status = linnet_layout_create(linnet_model_gguf(b->m.model), RANK, 16, targets, &layout, err);
    if (status == LINNET_OK)
        status = linnet_adapter_create(layout, &adapter, err);
    if (status == LINNET_OK) {
        linnet_adapter_init(adapter, 0);
        status = linnet_arena_create(b->m.model, b->m.pool, b->context, true, &arena, err);
    }
    if (status == LINNET_OK)
        status = linnet_trainer_create(&training, arena, &set, adapter, &trainer, err);
    for (size_t run = 0; run < b->n_runs && status == LINNET_OK; run++) {
        linnet_train_step step;
        double start = client_seconds();
        status = linnet_trainer_step(trainer, &step, err);
        rate[run] = (double)b->context / (client_seconds() - start);
    }
    if (status == LINNET_OK)
        *ret_rate = median(rate, b->n_runs);
    linnet_trainer_destroy(trainer);
    linnet_arena_destroy(arena);
    linnet_adapter_destroy(adapter);
    linnet_layout_destroy(layout);
    return status;
}

/* Weight bytes read for one token: all tensors, but of the embedding only a row where the output is not tied
 * to it. */
static uint64_t bytes_per_token(const client_model *m)
{
    const linnet_gguf *gguf = linnet_model_gguf(m->model);
    const linnet_model_shape *shape = linnet_model_shape_of(m->model);
    uint64_t n = 0;
    for (size_t i = 0; i < linnet_gguf_n_tensors(gguf); i++) {
        const linnet_gguf_tensor *t = linnet_gguf_tensor_at(gguf, i);
        bool row_only = !shape->tied_output && linnet_text_is(t->name, "token_embd.weight");
        n += row_only ? t->n_bytes / shape->vocabulary : t->n_bytes;
    }
    return n;
}

static linnet_status run_bench(const linnet_cli *cli, const char *path, bench *b, linnet_error *err)
{
    double prefill = 0, decode = 0, train = 0;
    char human[16];
    linnet_status status = make_input(b, err);
    if (status == LINNET_OK)
        status = measure_inference(b, &prefill, &decode, err);
    if (status == LINNET_OK)
        status = measure_training(b, &train, err);
    if (status != LINNET_OK)
        return status;
    double read_gb = decode * (double)bytes_per_token(&b->m) * 1e-9;
    json_t *result = client_event("result");
    client_put_text(result, "model", path, strlen(path));
    client_put_text(result, "type", linnet_model_type(b->m.model), strlen(linnet_model_type(b->m.model)));
    client_put_count(result, "threads", linnet_thread_pool_size(b->m.pool));
    client_put_number(result, "prefill_tokens_per_second", prefill);
    client_put_number(result, "decode_tokens_per_second", decode);
    client_put_number(result, "train_tokens_per_second", train);
    client_put_count(result, "peak_rss_bytes", client_peak_rss());
    client_put_number(result, "read_gb_per_second", read_gb);
    client_put_count(result, "context", b->context);
    linnet_cli_emit(cli, result);
    linnet_cli_say(cli, "%s (%s), %u threads, median of %zu runs\n", path, linnet_model_type(b->m.model),
                   linnet_thread_pool_size(b->m.pool), b->n_runs);
    linnet_cli_say(cli, "prefill %10.1f tokens a second (prompt of %u)\n", prefill, (unsigned)b->context);
    linnet_cli_say(cli, "decode  %10.1f tokens a second (%.2f GB of weights a second)\n", decode, read_gb);
    linnet_cli_say(cli, "train   %10.1f tokens a second (rank %d, all targets, batch 1)\n", train, RANK);
    linnet_cli_say(cli, "memory  %10s at the peak\n", linnet_human_bytes(client_peak_rss(), human));
    return LINNET_OK;
}

static int command_bench(linnet_cli *cli, int argc, char **argv)
{
    const char *path = NULL;
    uint64_t n_runs = 5;
    linnet_option options[] = {
        CLIENT_REQUIRED("model", &path, "FILE", "GGUF model, or a checkpoint's folder"),
        CLIENT_COUNT("runs", &n_runs, 1, RUNS_MAX, "of which the median is taken"),
    };
    int exit_status =
        linnet_cli_parse(cli, &client_command_bench, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (exit_status >= 0)
        return exit_status;
    bench b = {.n_runs = (size_t)n_runs};
    linnet_error err = {0};
    linnet_status status = client_model_open(cli, path, NULL, &b.m, &err);
    if (status == LINNET_OK)
        status = run_bench(cli, path, &b, &err);
    free(b.ids);
    free(b.counted);
    client_model_close(&b.m);
    return status == LINNET_OK ? 0 : linnet_cli_fail(cli, &err);
}

const linnet_command client_command_bench = {"bench", NULL, "Measure a model's speed on this machine.",
                                             command_bench};
