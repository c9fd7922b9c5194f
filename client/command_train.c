/* SPDX-License-Identifier: Apache-2.0 */
/* train on this device's own records, without a coordinator. A training run leaves the adapter
 * in two forms, a log of its steps, and a checkpoint from which --resume goes on to the same bits; it is
 * written every so many steps, at the end, and when a signal asks the run to stop. */
#include "commands.h"

#include "linnet/accountant.h"
#include "linnet/trainer.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>

#define CHECKPOINT_BYTES_MAX (SIZE_MAX / 4)
#define LOG_BYTES_MAX ((size_t)1 << 30)
#define USUAL_CONTEXT 256
#define STEPS_MAX 1e9

typedef struct train_options {
    const char *model, *adapter, *data, *out, *targets, *eval;
    uint64_t rank, n_steps, batch, context, seed, warmup, checkpoint_every;
    double alpha, learning_rate, learning_rate_a, epochs, clip_norm, weight_decay, dropout;
    double privacy_probability, privacy_noise, privacy_clip, privacy_delta;
    uint64_t privacy_units;
    int optimizer, schedule; /* index into the choices, as the enums */
    bool shuffle, end_token, resume, skip_bad, rslora;
} train_options;

/* A run's things, from the model to the log. */
typedef struct train_run {
    const linnet_cli *cli;
    const train_options *options;
    client_model m;
    linnet_dataset *data, *eval_data;
    linnet_token_set *set, *eval_set;
    linnet_arena *arena;
    linnet_trainer *trainer;
    FILE *log;
    char *checkpoint_path, *log_path, *gguf_path;
    double loss_first, loss_last, eval_before, eval_after, seconds; /* NaN: not measured */
    size_t n_tokens, n_said;
} train_run;

static volatile sig_atomic_t stop_asked;

static void ask_to_stop(int signal_number)
{
    stop_asked = signal_number;
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = ask_to_stop,
                               .sa_flags = (int)SA_RESETHAND}; /* the second one kills */
    (void)sigaction(SIGINT, &action, NULL);                    /* cannot fail for these */
    (void)sigaction(SIGTERM, &action, NULL);
}

static void release_run(train_run *r)
{
    if (r->log)
        (void)fclose(r->log); /* every line was flushed and checked */
    linnet_trainer_destroy(r->trainer);
    linnet_arena_destroy(r->arena);
    linnet_token_set_destroy(r->set);
    linnet_token_set_destroy(r->eval_set);
    linnet_dataset_destroy(r->data);
    linnet_dataset_destroy(r->eval_data);
    client_model_close(&r->m);
    free(r->checkpoint_path);
    free(r->log_path);
    free(r->gguf_path);
}

/* The adapter to start from: --adapter as it is, or a fresh one of the wanted layout. */
static linnet_status start_adapter(train_run *r, linnet_error *err)
{
    const train_options *o = r->options;
    const linnet_adapter_form form = {.targets = o->targets,
                                      .rank = (uint32_t)o->rank,
                                      .alpha = (float)o->alpha,
                                      .by_root = o->rslora,
                                      .seed = o->seed};
    return r->m.adapter ? LINNET_OK : linnet_adapter_fresh(r->m.model, &form, &r->m.adapter, err);
}

static linnet_status load_records(train_run *r, linnet_error *err)
{
    const train_options *o = r->options;
    linnet_encoding encoding = {.end_token = o->end_token, .model = r->m.model};
    linnet_status status = client_context(&r->m, o->context, USUAL_CONTEXT, &encoding.context_tokens, err);
    if (status == LINNET_OK)
        status = linnet_dataset_load(o->data, o->skip_bad, &r->data, err);
    if (status == LINNET_OK)
        status = linnet_token_set_create(r->data, NULL, 0, r->m.tokenizer, &encoding, &r->set, err);
    if (status == LINNET_OK && o->eval)
        status = linnet_dataset_load(o->eval, o->skip_bad, &r->eval_data, err);
    if (status == LINNET_OK && o->eval)
        status = linnet_token_set_create(r->eval_data, NULL, 0, r->m.tokenizer, &encoding, &r->eval_set, err);
    if (status == LINNET_OK)
        status = linnet_arena_create(r->m.model, r->m.pool, encoding.context_tokens, true, &r->arena, err);
    return status;
}

/* --steps, or what --epochs (1 where neither is given) comes to; a private pass takes each unit once in the
 * mean, and its length must not tell how many there are. */
static linnet_status steps_of(const train_run *r, uint32_t *ret_steps, linnet_error *err)
{
    const train_options *o = r->options;
    double epochs = o->epochs > 0 ? o->epochs : 1;
    double pass =
        o->privacy_probability > 0 ? 1 / o->privacy_probability : (double)r->set->n_items / (double)o->batch;
    double steps = o->n_steps > 0 ? (double)o->n_steps : ceil(epochs * pass);
    if (steps < 1)
        steps = 1;
    if (steps > STEPS_MAX)
        return linnet_fail(err, LINNET_ERR_LIMIT, "%.0f steps are too many, %.0f can be", steps, STEPS_MAX);
    *ret_steps = (uint32_t)steps;
    return LINNET_OK;
}

static linnet_status make_trainer(train_run *r, linnet_error *err)
{
    const train_options *o = r->options;
    linnet_training t = linnet_training_default();
    t.optimizer = o->optimizer == 0 ? LINNET_OPTIMIZER_ADAMW : LINNET_OPTIMIZER_SGD;
    t.schedule = o->schedule == 0 ? LINNET_SCHEDULE_CONSTANT : LINNET_SCHEDULE_COSINE;
    t.learning_rate = o->learning_rate;
    t.learning_rate_a = o->learning_rate_a;
    t.weight_decay = o->weight_decay;
    t.clip_norm = o->clip_norm;
    t.dropout = o->dropout;
    t.batch_records = (uint32_t)o->batch;
    t.warmup_steps = (uint32_t)o->warmup;
    t.shuffle = o->shuffle;
    t.seed = o->seed;
    t.privacy = (linnet_record_training){.probability = o->privacy_probability,
                                         .clip_norm = o->privacy_clip,
                                         .noise_multiplier = o->privacy_noise,
                                         .n_units = (uint32_t)o->privacy_units};
    linnet_status status = steps_of(r, &t.n_steps, err);
    if (status == LINNET_OK)
        status = linnet_trainer_create(&t, r->arena, r->set, r->m.adapter, &r->trainer, err);
    return status;
}

static linnet_status evaluate_set(train_run *r, double *ret_loss, linnet_error *err)
{
    double sum = 0;
    size_t n = 0;
    if (!r->eval_set)
        return LINNET_OK;
    linnet_status status = linnet_evaluate(r->arena, r->m.adapter, r->eval_set, &sum, &n, err);
    if (status == LINNET_OK && n == 0)
        status = linnet_fail(err, LINNET_ERR_ARG, "'%s': no record has a token to score", r->options->eval);
    if (status == LINNET_OK)
        *ret_loss = sum / (double)n;
    return status;
}

/* ---- what a run leaves in its directory ---- */

static linnet_status name_files(train_run *r, linnet_error *err)
{
    r->checkpoint_path = linnet_path_join(r->options->out, "checkpoint.bin");
    r->log_path = linnet_path_join(r->options->out, "train.jsonl");
    r->gguf_path = linnet_path_join(r->options->out, "adapter.gguf");
    if (!r->checkpoint_path || !r->log_path || !r->gguf_path)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for paths");
    return linnet_directory_create(r->options->out, err);
}

static linnet_status save_checkpoint(const train_run *r, linnet_error *err)
{
    linnet_buffer bytes = {0};
    linnet_status status = linnet_trainer_save(r->trainer, &bytes, err);
    if (status == LINNET_OK)
        status = linnet_file_write(r->checkpoint_path, bytes.bytes, bytes.n_bytes, 0600, err);
    linnet_buffer_release(&bytes);
    return status;
}

static linnet_status restore_checkpoint(train_run *r, linnet_error *err)
{
    linnet_buffer bytes = {0};
    linnet_status status = linnet_file_read(r->checkpoint_path, CHECKPOINT_BYTES_MAX, &bytes, err);
    if (status == LINNET_ERR_NOT_FOUND)
        return linnet_fail(err, status, "'%s' has no checkpoint to go on from; start without --resume",
                           r->options->out);
    if (status != LINNET_OK)
        return status;
    status = linnet_trainer_restore(r->trainer, bytes.bytes, bytes.n_bytes, err);
    linnet_buffer_release(&bytes);
    return status == LINNET_OK ? status : linnet_error_prefix(err, status, "'%s'", r->checkpoint_path);
}

/* A step's loss as its line has it: null where it was none, which is an empty draw's. */
static void note_loss(train_run *r, const json_t *loss)
{
    if (!json_is_number(loss))
        return;
    r->loss_last = json_number_value(loss);
    if (isnan(r->loss_first))
        r->loss_first = r->loss_last;
}

/* The lines of an earlier log up to the step the run goes on from: later steps will be taken again. */
static void keep_log(train_run *r, const linnet_buffer *old, linnet_buffer *kept)
{
    for (size_t at = 0; at < old->n_bytes;) {
        const uint8_t *newline = memchr(old->bytes + at, '\n', old->n_bytes - at);
        if (!newline)
            return;
        size_t n = (size_t)(newline - old->bytes) - at + 1;
        json_t *line = json_loadb((const char *)old->bytes + at, n, 0, NULL);
        json_int_t step = json_integer_value(json_object_get(line, "step"));
        if (step >= 1 && step <= (json_int_t)linnet_trainer_steps(r->trainer)) {
            linnet_buffer_append(kept, old->bytes + at, n);
            note_loss(r, json_object_get(line, "loss"));
        }
        json_decref(line);
        at += n;
    }
}

static linnet_status open_log(train_run *r, linnet_error *err)
{
    linnet_buffer old = {0}, kept = {0};
    linnet_status status = LINNET_OK;
    if (r->options->resume) {
        status = linnet_file_read(r->log_path, LOG_BYTES_MAX, &old, err);
        if (status == LINNET_OK)
            keep_log(r, &old, &kept);
        if (status == LINNET_ERR_NOT_FOUND)
            status = LINNET_OK;
    }
    if (status == LINNET_OK && kept.failed)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for '%s'", r->log_path);
    if (status == LINNET_OK)
        status = linnet_file_write(r->log_path, kept.bytes, kept.n_bytes, 0600, err);
    if (status == LINNET_OK) {
        r->log = fopen(r->log_path, "ae");
        if (!r->log)
            status = linnet_fail_errno(err, errno, "cannot open '%s'", r->log_path);
    }
    linnet_buffer_release(&old);
    linnet_buffer_release(&kept);
    return status;
}

/* One object into the log and, with --json, onto stdout. Steals the reference. */
static linnet_status log_object(train_run *r, json_t *object, linnet_error *err)
{
    char *line = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(12));
    linnet_status status = LINNET_OK;
    if (!line)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a line of '%s'", r->log_path);
    else if (fprintf(r->log, "%s\n", line) < 0 || fflush(r->log) != 0)
        status = linnet_fail_errno(err, errno, "cannot write '%s'", r->log_path);
    free(line);
    linnet_cli_emit(r->cli, object);
    return status;
}

static linnet_status save_adapter(const train_run *r, linnet_error *err)
{
    char *name = linnet_path_name(r->options->model);
    linnet_status status = name ? linnet_adapter_check_finite(r->m.adapter, err)
                                : linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a name");
    if (status == LINNET_OK)
        status = linnet_adapter_save_peft(r->m.adapter, linnet_model_architecture(r->m.model),
                                          r->options->out, name, err);
    free(name);
    if (status == LINNET_OK)
        status =
            linnet_adapter_save_gguf(r->m.adapter, linnet_model_architecture(r->m.model), r->gguf_path, err);
    return status;
}

/* ---- the steps ---- */

static linnet_status report_step(train_run *r, const linnet_train_step *step, uint32_t n_steps, bool has_bar,
                                 linnet_error *err)
{
    json_t *object = client_event("step");
    client_put_count(object, "step", step->step);
    client_put_number(object, "loss", step->loss);
    client_put_number(object, "learning_rate", step->learning_rate);
    client_put_number(object, "gradient_norm", step->gradient_norm);
    client_put_count(object, "tokens", step->tokens);
    client_put_count(object, "counted", step->counted);
    if (r->options->privacy_probability > 0)
        client_put_count(object, "units", step->units);
    note_loss(r, json_object_get(object, "loss"));
    r->n_tokens += step->tokens;
    size_t tenth = (size_t)step->step * 10 / n_steps;
    if (!has_bar && (step->step == 1 || tenth > r->n_said))
        linnet_cli_say(r->cli, "step %u of %u: loss %.4f\n", (unsigned)step->step, (unsigned)n_steps,
                       r->loss_last);
    r->n_said = tenth;
    return log_object(r, object, err);
}

static linnet_status stop_early(train_run *r, linnet_error *err)
{
    linnet_status status = save_checkpoint(r, err);
    if (status != LINNET_OK)
        return status;
    return linnet_fail(err, LINNET_ERR_CANCELLED,
                       "stopped by signal %d after step %u; the same command with --resume goes on",
                       (int)stop_asked, (unsigned)linnet_trainer_steps(r->trainer));
}

static linnet_status take_steps(train_run *r, uint32_t n_steps, linnet_error *err)
{
    linnet_progress progress;
    linnet_status status = LINNET_OK;
    double start = client_seconds();
    linnet_progress_start(&progress, r->cli, "train", n_steps);
    while (status == LINNET_OK && !linnet_trainer_is_done(r->trainer)) {
        linnet_train_step step = {0};
        char note[32];
        if (stop_asked) {
            status = stop_early(r, err);
            break;
        }
        status = linnet_trainer_step(r->trainer, &step, err);
        if (status == LINNET_OK)
            status = report_step(r, &step, n_steps, progress.active, err);
        (void)snprintf(note, sizeof(note), "loss %.4f", r->loss_last);
        linnet_progress_update(&progress, step.step, note);
        uint64_t every = r->options->checkpoint_every;
        if (status == LINNET_OK && every > 0 && step.step % every == 0)
            status = save_checkpoint(r, err);
    }
    linnet_progress_finish(&progress);
    r->seconds = client_seconds() - start;
    return status == LINNET_OK ? save_checkpoint(r, err) : status;
}

/* What the whole training, resumed parts included, tells about one unit. */
static void report_privacy(const train_run *r, json_t *result)
{
    const train_options *o = r->options;
    linnet_rdp rdp = {0};
    if (o->privacy_probability <= 0)
        return;
    linnet_rdp_add_sampled(&rdp, o->privacy_probability, o->privacy_noise,
                           (double)linnet_trainer_steps(r->trainer));
    double dp_epsilon = linnet_dp_epsilon(&rdp, o->privacy_delta, NULL);
    client_put_number(result, "dp_epsilon", dp_epsilon);
    client_put_number(result, "dp_delta", o->privacy_delta);
    client_put_count(result, "units", r->set->n_units);
    linnet_cli_say(r->cli, "privacy of a unit: epsilon %.3g at delta %g after %u steps\n", dp_epsilon,
                   o->privacy_delta, (unsigned)linnet_trainer_steps(r->trainer));
}

static linnet_status report_run(train_run *r, linnet_error *err)
{
    char human[16];
    json_t *result = client_event("result");
    client_put_count(result, "steps", linnet_trainer_steps(r->trainer));
    client_put_number(result, "loss_first", r->loss_first);
    client_put_number(result, "loss_last", r->loss_last);
    client_put_number(result, "eval_loss_before", r->eval_before);
    client_put_number(result, "eval_loss_after", r->eval_after);
    client_put_number(result, "tokens_per_second", r->seconds > 0 ? (double)r->n_tokens / r->seconds : 0);
    client_put_count(result, "peak_rss_bytes", client_peak_rss());
    client_put_text(result, "adapter", r->options->out, strlen(r->options->out));
    client_put_count(result, "records", r->set->n_items);
    client_put_count(result, "records_without_tokens", r->set->n_empty);
    client_put_count(result, "lines_skipped", r->data->n_skipped);
    linnet_cli_say(r->cli, "%u steps, loss %.4f -> %.4f", (unsigned)linnet_trainer_steps(r->trainer),
                   r->loss_first, r->loss_last);
    if (r->eval_set)
        linnet_cli_say(r->cli, ", evaluation %.4f -> %.4f", r->eval_before, r->eval_after);
    linnet_cli_say(r->cli, "; %.0f tokens a second, %s at the peak\nadapter: %s (PEFT), %s (GGUF)\n",
                   r->seconds > 0 ? (double)r->n_tokens / r->seconds : 0,
                   linnet_human_bytes(client_peak_rss(), human), r->options->out, r->gguf_path);
    report_privacy(r, result);
    return log_object(r, result, err);
}

static linnet_status run_train(train_run *r, linnet_error *err)
{
    const train_options *o = r->options;
    uint32_t n_steps = 0;
    const linnet_texts start = {.items = {o->adapter}, .n_items = o->adapter ? 1 : 0};
    linnet_status status = client_model_open(r->cli, o->model, &start, &r->m, err);
    if (status == LINNET_OK)
        status = start_adapter(r, err);
    if (status == LINNET_OK)
        status = load_records(r, err);
    if (status == LINNET_OK)
        status = make_trainer(r, err);
    if (status == LINNET_OK)
        status = name_files(r, err);
    if (status == LINNET_OK) /* before a checkpoint replaces the adapter's start */
        status = evaluate_set(r, &r->eval_before, err);
    if (status == LINNET_OK && o->resume)
        status = restore_checkpoint(r, err);
    if (status == LINNET_OK)
        status = open_log(r, err);
    if (status == LINNET_OK)
        status = steps_of(r, &n_steps, err);
    if (status == LINNET_OK)
        status = take_steps(r, n_steps, err);
    if (status == LINNET_OK)
        status = evaluate_set(r, &r->eval_after, err);
    if (status == LINNET_OK)
        status = save_adapter(r, err);
    return status == LINNET_OK ? report_run(r, err) : status;
}

static int command_train(linnet_cli *cli, int argc, char **argv)
{
    train_options o = {.targets = "all",
                       .rank = 8,
                       .alpha = 16,
                       .learning_rate = 1e-3,
                       .batch = 4,
                       .warmup = 3,
                       .clip_norm = 1,
                       .privacy_noise = 1,
                       .privacy_clip = 1,
                       .privacy_delta = 1e-5,
                       .checkpoint_every = 25,
                       .shuffle = true,
                       .end_token = true};
    linnet_option options[] = {
        CLIENT_REQUIRED("model", &o.model, "FILE", "GGUF model, or a checkpoint's folder"),
        CLIENT_REQUIRED("data", &o.data, "FILE", "records to learn, JSON Lines"),
        CLIENT_REQUIRED("out", &o.out, "DIR", "where the adapter, the log and the checkpoint go"),
        CLIENT_TEXT("adapter", &o.adapter, "PATH",
                    "start from this adapter; its rank, alpha and targets hold"),
        CLIENT_COUNT("rank", &o.rank, 1, LINNET_RANK_MAX, "of the adapter"),
        CLIENT_NUMBER("alpha", &o.alpha, 1e-3, 1e6, "the adapter is scaled by alpha / rank"),
        CLIENT_FLAG("rslora", &o.rslora, "scale by alpha / sqrt(rank)"),
        CLIENT_TEXT("targets", &o.targets, "NAMES",
                    "all, or adapted matrices: attn_q,attn_v; NAME[:RANK[:ALPHA]], NAME may be a pattern"),
        CLIENT_NUMBER("learning-rate", &o.learning_rate, 0, 1000, "of factor B, and of A too"),
        CLIENT_NUMBER("learning-rate-a", &o.learning_rate_a, 0, 1000, "of factor A; 0: the same"),
        CLIENT_COUNT("steps", &o.n_steps, 0, STEPS_MAX, "optimiser steps; 0: by --epochs"),
        CLIENT_NUMBER("epochs", &o.epochs, 0, 1e6,
                      "passes over the records; 0: one, unless there are --steps"),
        CLIENT_COUNT("batch", &o.batch, 1, 65536, "records a step"),
        CLIENT_COUNT("context", &o.context, 0, 0,
                     "tokens of a record at most; 0: 256 or the model's context"),
        CLIENT_CHOICE("optimizer", &o.optimizer, "adamw|sgd", "the update rule"),
        CLIENT_TEXT("eval", &o.eval, "FILE", "records to score before and after"),
        CLIENT_COUNT("seed", &o.seed, 0, 0, "of the adapter's start, the data's order and dropout"),
        CLIENT_FLAG("resume", &o.resume, "go on from the checkpoint in --out"),
        CLIENT_COUNT("warmup", &o.warmup, 0, STEPS_MAX, "steps until the full rate; 0: off"),
        CLIENT_NUMBER("clip-norm", &o.clip_norm, 0, 1e30, "longest gradient; 0: off"),
        CLIENT_NUMBER("weight-decay", &o.weight_decay, 0, 1000, "0: off"),
        CLIENT_NUMBER("dropout", &o.dropout, 0, 0.999,
                      "share that side paths do not see of their inputs; 0: off"),
        CLIENT_CHOICE("schedule", &o.schedule, "constant|cosine", "of the rate; cosine: down to a fiftieth"),
        CLIENT_SWITCH("shuffle", &o.shuffle, "records in a new order in each pass"),
        CLIENT_SWITCH("end-token", &o.end_token, "texts and answers end with end-of-text, which counts"),
        CLIENT_FLAG("skip-bad", &o.skip_bad, "pass over bad lines and count them"),
        CLIENT_COUNT("checkpoint-every", &o.checkpoint_every, 0, 0,
                     "steps; 0: only at the end and on a signal"),
        CLIENT_NUMBER("privacy-probability", &o.privacy_probability, 0, 1,
                      "record-level privacy: chance of a unit in a step; 0: off"),
        CLIENT_NUMBER("privacy-noise", &o.privacy_noise, 1e-6, 1e6, "noise over the sensitivity of a step"),
        CLIENT_NUMBER("privacy-clip", &o.privacy_clip, 1e-9, 1e9, "longest gradient of a unit"),
        CLIENT_COUNT("privacy-units", &o.privacy_units, 0, UINT32_MAX,
                     "public rough number of units, needed with privacy; never the exact count"),
        CLIENT_NUMBER("privacy-delta", &o.privacy_delta, 1e-15, 0.5, "at which epsilon is told"),
    };
    int exit_status =
        linnet_cli_parse(cli, &client_command_train, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (exit_status >= 0)
        return exit_status;
    if (o.n_steps > 0 && o.epochs > 0)
        return linnet_cli_usage(cli, "--steps and --epochs exclude each other");
    if (o.privacy_probability > 0 && o.privacy_units == 0)
        return linnet_cli_usage(cli, "--privacy-probability needs --privacy-units");
    train_run r = {.cli = cli,
                   .options = &o,
                   .loss_first = NAN,
                   .loss_last = NAN,
                   .eval_before = NAN,
                   .eval_after = NAN};
    linnet_error err = {0};
    catch_signals();
    linnet_status status = run_train(&r, &err);
    release_run(&r);
    return status == LINNET_OK ? 0 : linnet_cli_fail(cli, &err);
}

const linnet_command client_command_train = {"train", NULL, "Train a LoRA adapter on records of this device.",
                                             command_train};
