/* SPDX-License-Identifier: Apache-2.0 */
/* run: the federated agent as a program. The agent says what it needs; this loop gives it time, memory and
 * the network, sleeps in between, and writes every adapter that was installed as files beside the state. */
#include "commands.h"

#include "linnet/dataset.h"
#include "linnet/device.h"
#include "linnet/file.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ONCE_WAIT_MS 5000  /* --once leaves rather than wait longer, or where a check-in changed nothing */
#define FULL_DISK_MS 60000 /* then it is tried again */
#define NAP_MS 3600000     /* a sleep is looked at again after this */
#define MARK_FILE "HASH"   /* in an adapter directory: the object it was written from */

typedef struct run {
    const linnet_cli *cli;
    const char *state, *model_path, *data_path, *held_out_path, *policy_path, *consortium_path, *ledger_path;
    bool once, skip_bad, has_seed;
    uint64_t seed, n_rounds;

    client_model model;
    linnet_hash model_hash;
    linnet_dataset *dataset, *held_out;
    linnet_kv kv;
    linnet_round_vault *vault;
    linnet_budget_ledger *ledger;
    linnet_consortium consortium;
    linnet_object_cache objects;
    linnet_http_client *client;
    linnet_device *device;
    linnet_arena *arena;
    uint32_t arena_context;
    int64_t started_ms, started_boot_ms;
    linnet_device_report last; /* as it was told */
    bool has_told, is_calm;    /* the last exchange was answered and changed nothing */
    linnet_progress progress;
    bool has_progress;
} run;

static volatile sig_atomic_t stop_asked;

static void on_signal(int number)
{
    (void)number;
    if (stop_asked)
        _exit(130); /* the second one: at once; every state is durable */
    stop_asked = 1;
}

/* ---- time: unix milliseconds that no clock change moves while the program runs ---- */

static int64_t clock_ms(clockid_t clock)
{
    struct timespec t;
    (void)clock_gettime(clock, &t); /* these clocks exist */
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int64_t now_ms(const run *r)
{
    return r->started_ms + clock_ms(CLOCK_BOOTTIME) - r->started_boot_ms;
}

/* Sleep that a signal ends, also one that comes just before. */
static void sleep_until(const run *r, int64_t wake_ms)
{
    sigset_t both, before;
    int64_t delay = wake_ms - now_ms(r);
    (void)sigemptyset(&both);
    (void)sigaddset(&both, SIGINT);
    (void)sigaddset(&both, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &both, &before);
    if (!stop_asked && delay > 0) {
        delay = delay < NAP_MS ? delay : NAP_MS;
        struct timespec t = {.tv_sec = delay / 1000, .tv_nsec = delay % 1000 * 1000000};
        (void)pselect(0, NULL, NULL, NULL, &t, &before);
    }
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
}

/* ---- adapter files ---- */

static void remove_tree(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *entry = dir ? readdir(dir) : NULL; entry; entry = readdir(dir)) {
        char *file = entry->d_type == DT_REG ? linnet_path_join(path, entry->d_name) : NULL;
        if (file)
            (void)unlink(file);
        free(file);
    }
    if (dir)
        closedir(dir);
    (void)rmdir(path); /* what is left is found by the write that follows */
}

static linnet_status write_files(const run *r, const linnet_adapter *adapter, const char *directory,
                                 const linnet_hash *hash, linnet_error *err)
{
    char hex[2 * LINNET_HASH_BYTES + 1];
    char *gguf = linnet_path_join(directory, "adapter.gguf"), *mark = linnet_path_join(directory, MARK_FILE);
    linnet_hex_write(hash->bytes, LINNET_HASH_BYTES, hex);
    linnet_status status = gguf && mark
                               ? linnet_adapter_save_peft(adapter, linnet_model_architecture(r->model.model),
                                                          directory, r->model_path, err)
                               : linnet_fail(err, LINNET_ERR_NOMEM, "path");
    if (status == LINNET_OK)
        status = linnet_adapter_save_gguf(adapter, linnet_model_architecture(r->model.model), gguf, err);
    if (status == LINNET_OK)
        status = linnet_file_write(mark, hex, strlen(hex), 0600, err);
    free(gguf);
    free(mark);
    return status;
}

static bool is_written(const char *directory, const linnet_hash *hash)
{
    char hex[2 * LINNET_HASH_BYTES + 1];
    linnet_buffer bytes = {0};
    char *mark = linnet_path_join(directory, MARK_FILE);
    linnet_hex_write(hash->bytes, LINNET_HASH_BYTES, hex);
    bool is_same = mark && linnet_file_read(mark, sizeof(hex), &bytes, NULL) == LINNET_OK &&
                   bytes.n_bytes == strlen(hex) && memcmp(bytes.bytes, hex, bytes.n_bytes) == 0;
    linnet_buffer_release(&bytes);
    free(mark);
    return is_same;
}

/* adapter/current is always whole: the new one is written beside it and renamed; the one before stays as
 * previous. */
static linnet_status write_installed(run *r, linnet_error *err)
{
    linnet_device_report report;
    linnet_device_status(r->device, &report);
    const linnet_adapter *adapter = linnet_device_adapter(r->device);
    char *parent = linnet_path_join(r->state, "adapter"),
         *current = linnet_path_join(r->state, "adapter/current");
    char *next = linnet_path_join(r->state, "adapter/next"),
         *previous = linnet_path_join(r->state, "adapter/previous");
    linnet_status status =
        parent && current && next && previous ? LINNET_OK : linnet_fail(err, LINNET_ERR_NOMEM, "path");
    if (status == LINNET_OK && adapter && !is_written(current, &report.installed)) {
        remove_tree(next);
        status = linnet_directory_create(parent, err);
        if (status == LINNET_OK)
            status = write_files(r, adapter, next, &report.installed, err);
        if (status == LINNET_OK && access(current, F_OK) == 0) {
            remove_tree(previous);
            if (rename(current, previous) != 0)
                status = linnet_fail_errno(err, errno, "'%s'", previous);
        }
        if (status == LINNET_OK && rename(next, current) != 0)
            status = linnet_fail_errno(err, errno, "'%s'", current);
        if (status == LINNET_OK)
            status = linnet_directory_sync(parent, err);
    }
    free(parent);
    free(current);
    free(next);
    free(previous);
    return status;
}

/* ---- what is told ---- */

static json_t *report_json(const char *event, const linnet_device_report *report)
{
    json_t *object = client_event(event);
    client_put_text(object, "phase", report->phase, strlen(report->phase));
    client_put_count(object, "version", report->version);
    client_put_count(object, "round", report->round);
    client_put_count(object, "accepted", report->n_contributions);
    client_put_count(object, "bytes_up", report->bytes_up);
    client_put_count(object, "bytes_down", report->bytes_down);
    client_put_number(object, "held_out_loss",
                      report->has_held_out_loss ? report->held_out_loss : (double)NAN);
    (void)json_object_set_new(
        object, "adapter_hash",
        linnet_json_hex(report->installed.bytes, LINNET_HASH_BYTES)); /* a missing field is seen */
    client_put_text(object, "note", report->note, strlen(report->note));
    return object;
}

static void end_progress(run *r)
{
    if (r->has_progress)
        linnet_progress_finish(&r->progress);
    r->has_progress = false;
}

/* One line, or one JSON object, whenever something changed that a person would want to know. */
static void tell(run *r)
{
    linnet_device_report report;
    linnet_device_status(r->device, &report);
    bool same_phase = r->has_told && strcmp(report.phase, r->last.phase) == 0 &&
                      report.version == r->last.version && report.n_contributions == r->last.n_contributions;
    bool same = same_phase && linnet_hash_equal(&report.installed, &r->last.installed) &&
                strcmp(report.note, r->last.note) == 0;
    r->last = report;
    r->has_told = true;
    r->is_calm = same && report.note[0] == '\0';
    if (same)
        return;
    end_progress(r);
    linnet_cli_emit(r->cli, report_json("state", &report));
    linnet_cli_say(r->cli, "%-9s version %llu, %llu contributions accepted", report.phase,
                   (unsigned long long)report.version, (unsigned long long)report.n_contributions);
    if (report.has_held_out_loss)
        linnet_cli_say(r->cli, ", held-out loss %.4f", report.held_out_loss);
    linnet_cli_say(r->cli, "%s%s\n", report.note[0] ? "; " : "", report.note);
}

static void tell_step(run *r)
{
    linnet_device_report report;
    char note[32];
    linnet_device_status(r->device, &report);
    if (!r->has_progress)
        linnet_progress_start(&r->progress, r->cli, "training", report.n_steps);
    r->has_progress = true;
    (void)snprintf(note, sizeof(note), "loss %.4f", report.train_loss);
    linnet_progress_update(&r->progress, report.step, note);
}

/* ---- the loop ---- */

static linnet_status need_arena(run *r, linnet_error *err)
{
    uint32_t context = linnet_device_context(r->device);
    if (r->arena && r->arena_context >= context)
        return LINNET_OK;
    linnet_arena_destroy(r->arena);
    r->arena = NULL;
    linnet_status status = linnet_arena_create(r->model.model, r->model.pool, context, true, &r->arena, err);
    r->arena_context = status == LINNET_OK ? context : 0;
    return status;
}

static linnet_status train(run *r, linnet_error *err)
{
    linnet_status status = need_arena(r, err);
    if (status == LINNET_OK)
        status = linnet_device_train(r->device, r->arena, 1, err);
    if (status == LINNET_OK)
        tell_step(r);
    return status;
}

static linnet_status evaluate(run *r, linnet_error *err)
{
    linnet_status status = need_arena(r, err);
    if (status == LINNET_OK)
        status = linnet_device_evaluate(r->device, r->arena, err);
    return status == LINNET_OK ? write_installed(r, err) : status;
}

/* --rounds is reached when so many contributions of this run were accepted and the release after the last is
 * here. */
typedef struct run_goal {
    uint64_t n_before, version;
    bool is_counted;
} run_goal;

static bool reached(const run *r, run_goal *goal)
{
    linnet_device_report report;
    linnet_device_status(r->device, &report);
    if (r->n_rounds == 0 || report.n_contributions - report.n_recovered < goal->n_before + r->n_rounds)
        return false;
    if (!goal->is_counted) {
        goal->is_counted = true;
        goal->version = report.version;
    }
    int64_t wake_ms;
    return report.version > goal->version &&
           linnet_device_next(r->device, &wake_ms) != LINNET_DEVICE_EVALUATE &&
           strcmp(report.phase, "fetching") != 0;
}

/* With --once: is there nothing left but waiting? A masked round is waited for: the others count on it. */
static bool has_done_all(const run *r, int64_t wake_ms)
{
    int64_t left = wake_ms - now_ms(r);
    linnet_device_report report;
    linnet_device_status(r->device, &report);
    if (report.is_in_round)
        return false;
    return r->once && (left > ONCE_WAIT_MS || (r->is_calm && left > 0));
}

/* The next thing, once it is due. *ret_is_done: nothing is left for this run. */
static linnet_status do_next(run *r, bool *ret_is_done, linnet_error *err)
{
    int64_t wake_ms = 0;
    linnet_device_need need = linnet_device_next(r->device, &wake_ms);
    if (need != LINNET_DEVICE_EVALUATE) /* its outcome is told */
        tell(r);
    if (need == LINNET_DEVICE_TRAIN)
        return train(r, err);
    if (need == LINNET_DEVICE_EVALUATE)
        return evaluate(r, err);
    end_progress(r);
    *ret_is_done = need == LINNET_DEVICE_FINISHED || r->last.is_other_model || has_done_all(r, wake_ms);
    if (*ret_is_done)
        return LINNET_OK;
    sleep_until(r, wake_ms);
    return !stop_asked && now_ms(r) >= wake_ms ? linnet_device_poll(r->device, now_ms(r), err) : LINNET_OK;
}

/* What no later release changes: a person has to do something. */
static linnet_status check_hopeless(const run *r, linnet_error *err)
{
    char hex[2 * LINNET_HASH_BYTES + 1];
    if (strcmp(r->last.phase, "revoked") == 0)
        return linnet_fail(
            err, LINNET_ERR_DENIED,
            "this device is revoked and takes no more part; what was accepted before stays in its "
            "rounds ('forget' erases the state)");
    if (!r->last.is_other_model)
        return LINNET_OK;
    linnet_hex_write(r->last.base_model.bytes, LINNET_HASH_BYTES, hex);
    return linnet_fail(err, LINNET_ERR_MISMATCH,
                       "'%.120s' is not the base model of this task: give --model the file whose hash is %s",
                       r->model_path, hex);
}

/* A full disk is waited out: what could not be committed did not happen, and is done when there is room. */
static linnet_status loop(run *r, linnet_error *err)
{
    linnet_device_report report;
    linnet_device_status(r->device, &report);
    run_goal goal = {.n_before = report.n_contributions};
    linnet_status status = LINNET_OK;
    bool is_done = false;
    while (status == LINNET_OK && !stop_asked && !is_done && !reached(r, &goal)) {
        status = do_next(r, &is_done, err);
        if (status == LINNET_ERR_NO_SPACE && !r->once) {
            end_progress(r);
            fprintf(r->cli->log, "%s %s: %s; trying again in a minute\n", r->cli->program, r->cli->command,
                    err->message);
            sleep_until(r, now_ms(r) + FULL_DISK_MS);
            status = LINNET_OK;
        }
    }
    tell(r);
    end_progress(r);
    return status == LINNET_OK ? check_hopeless(r, err) : status;
}

/* ---- opening and closing ---- */

static linnet_status load_data(run *r, linnet_error *err)
{
    char *own = r->data_path ? NULL : linnet_path_join(r->state, "data.jsonl");
    const char *path = r->data_path ? r->data_path : own;
    linnet_status status = path ? LINNET_OK : linnet_fail(err, LINNET_ERR_NOMEM, "path");
    if (status == LINNET_OK && own && access(own, F_OK) != 0)
        status = linnet_fail(err, LINNET_ERR_NOT_FOUND,
                             "no texts to train on: give --data FILE, or add some with 'data --add FILE'");
    if (status == LINNET_OK)
        status = linnet_dataset_load(path, r->skip_bad, &r->dataset, err);
    if (status == LINNET_OK && r->held_out_path)
        status = linnet_dataset_load(r->held_out_path, r->skip_bad, &r->held_out, err);
    free(own);
    return status;
}

static linnet_status open_device(run *r, const linnet_policy *policy, linnet_error *err)
{
    const linnet_device_config config = {
        .kv = &r->kv,
        .objects = &r->objects,
        .http = linnet_http_client_exchange,
        .http_context = r->client,
        .model = r->model.model,
        .model_hash = &r->model_hash,
        .tokenizer = r->model.tokenizer,
        .dataset = r->dataset,
        .held_out = r->held_out,
        .policy = *policy,
        .vault = r->vault,
        .ledger = r->ledger,
        .consortium = r->consortium.keys,
        .n_consortium = r->consortium.n_keys,
        .has_seed = r->has_seed,
        .seed = r->seed,
    };
    return linnet_device_create(&config, now_ms(r), &r->device, err);
}

/* What a masked or noised round needs beside the state: the round key, the ledger, the pinned members. */
static linnet_status open_guards(run *r, const linnet_policy *policy, const linnet_device_report *report,
                                 linnet_error *err)
{
    const char *members = r->consortium_path ? r->consortium_path : policy->consortium;
    linnet_status status =
        members[0] != '\0' ? linnet_consortium_load(members, &r->consortium, err) : LINNET_OK;
    if (status == LINNET_OK)
        status = linnet_budget_ledger_open(r->ledger_path ? r->ledger_path : r->state, &r->ledger, err);
    if (status == LINNET_OK)
        status = linnet_round_vault_open(r->state, &report->device_id, policy->round_key_on_disk, NULL,
                                         &r->vault, err);
    return status;
}

static linnet_status open_run(run *r, linnet_error *err)
{
    linnet_policy policy = linnet_policy_default();
    linnet_device_report report;
    r->started_ms = clock_ms(CLOCK_REALTIME);
    r->started_boot_ms = clock_ms(CLOCK_BOOTTIME);
    linnet_status status = linnet_kv_open_lmdb(r->state, false, &r->kv, err);
    if (status == LINNET_OK)
        status = linnet_device_status_of(&r->kv, &report, err);
    if (status == LINNET_OK && r->policy_path)
        status = linnet_policy_load(r->policy_path, &policy, err);
    if (status == LINNET_OK)
        status = open_guards(r, &policy, &report, err);
    if (status == LINNET_OK)
        status = linnet_object_cache_open_files(r->state, &r->objects, err);
    if (status == LINNET_OK)
        status = linnet_http_client_create(report.coordinator_url, &r->client, err);
    if (status == LINNET_OK)
        status = load_data(r, err);
    if (status == LINNET_OK)
        status = client_model_open(r->cli, r->model_path, NULL, &r->model, err);
    if (status == LINNET_OK)
        status = linnet_gguf_hash(linnet_model_gguf(r->model.model), &r->model_hash, err);
    if (status == LINNET_OK)
        status = open_device(r, &policy, err);
    return status == LINNET_OK ? write_installed(r, err) : status;
}

/* A device that has no round any more needs no round key; if it is ever started again, that is as after a
 * reboot. Between rounds the file stays: it tells a restored backup. */
static void close_vault(run *r)
{
    linnet_device_report report = {.phase = ""};
    if (r->device)
        linnet_device_status(r->device, &report);
    bool is_over = strcmp(report.phase, "finished") == 0 || strcmp(report.phase, "revoked") == 0;
    linnet_device_destroy(r->device);
    if (is_over)
        linnet_round_vault_forget(r->vault);
    else
        linnet_round_vault_close(r->vault);
}

static void close_run(run *r)
{
    close_vault(r);
    linnet_budget_ledger_close(r->ledger);
    linnet_consortium_release(&r->consortium);
    linnet_arena_destroy(r->arena);
    linnet_http_client_destroy(r->client);
    if (r->objects.context)
        linnet_object_cache_close(&r->objects);
    if (r->kv.close)
        r->kv.close(r->kv.context);
    linnet_dataset_destroy(r->dataset);
    linnet_dataset_destroy(r->held_out);
    client_model_close(&r->model);
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, NULL); /* cannot fail for these signals */
    (void)sigaction(SIGTERM, &action, NULL);
}

static int command_run(linnet_cli *cli, int argc, char **argv)
{
    run r = {.cli = cli};
    linnet_option options[] = {
        CLIENT_REQUIRED("state", &r.state, "DIR", "this device's state directory"),
        CLIENT_REQUIRED("model", &r.model_path, "M.gguf", "the task's base model"),
        CLIENT_TEXT("data", &r.data_path, "D.jsonl",
                    "this device's texts; absent: those added with 'data --add'"),
        CLIENT_TEXT("held-out", &r.held_out_path, "E.jsonl",
                    "records for this device's own evaluation; absent: a part of its texts"),
        CLIENT_TEXT("policy", &r.policy_path, "FILE",
                    "what this device refuses: INI file with a section [policy]"),
        CLIENT_TEXT("consortium", &r.consortium_path, "FILE",
                    "the only members to join with: a public key a line; overrides the policy's"),
        CLIENT_TEXT(
            "ledger", &r.ledger_path, "DIR",
            "where spent privacy is counted; share one among all tasks on the same texts; absent: the "
            "state directory"),
        CLIENT_FLAG("once", &r.once,
                    "do what can be done now; leave when the coordinator has nothing to do, or asks to wait "
                    "longer than "
                    "five seconds"),
        CLIENT_COUNT("rounds", &r.n_rounds, 0, 1e9,
                     "leave after so many accepted contributions and the release that follows; 0: never"),
        CLIENT_COUNT("seed", &r.seed, 0, 9e15,
                     "data order and rounding from this seed, for repeatable trials"),
        CLIENT_FLAG("skip-bad", &r.skip_bad, "count bad lines of the texts and go on"),
    };
    linnet_error err = {0};
    int result = linnet_cli_parse(cli, &client_command_run, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (result >= 0)
        return result;
    for (size_t i = 0; i < ARRAY_LEN(options); i++)
        r.has_seed = r.has_seed || (options[i].value == &r.seed && options[i].is_set);
    catch_signals();
    linnet_status status = open_run(&r, &err);
    if (status == LINNET_OK)
        status = loop(&r, &err);
    if (status == LINNET_OK) {
        linnet_device_status(r.device, &r.last);
        linnet_cli_emit(cli, report_json("result", &r.last));
    }
    close_run(&r);
    return status == LINNET_OK ? 0 : linnet_cli_fail(cli, &err);
}

const linnet_command client_command_run = {"run", NULL, "Take part in the federated task.", command_run};
