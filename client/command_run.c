/* SPDX-License-Identifier: Apache-2.0 */
/* run: the federated agent as a program. The agent says what is next; this loop lets it, tells about it, and
 * sleeps in between. */
#include "commands.h"

#include "linnet/agent.h"
#include "linnet/dataset.h"
#include "linnet/file.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

#define ONCE_WAIT_MS 5000  /* --once leaves rather than wait longer, or where a check-in changed nothing */
#define FULL_DISK_MS 60000 /* then it is tried again */
#define NAP_MS 3600000     /* a sleep is looked at again after this */

typedef struct run {
    const linnet_cli *cli;
    const char *state, *model_path, *data_path, *held_out_path, *policy_path, *consortium_path, *ledger_path;
    bool once, skip_bad, has_seed;
    uint64_t seed, n_rounds;

    client_model model;
    linnet_dataset *dataset, *held_out;
    linnet_agent *agent;
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

/* Sleep that a signal ends, also one that comes just before. */
static void sleep_until(const run *r, int64_t wake_ms)
{
    sigset_t both, before;
    int64_t delay = wake_ms - linnet_agent_now_ms(r->agent);
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
    linnet_device_status(linnet_agent_device(r->agent), &report);
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
    linnet_device_status(linnet_agent_device(r->agent), &report);
    if (!r->has_progress)
        linnet_progress_start(&r->progress, r->cli, "training", report.n_steps);
    r->has_progress = true;
    (void)snprintf(note, sizeof(note), "loss %.4f", report.train_loss);
    linnet_progress_update(&r->progress, report.step, note);
}

/* ---- the loop ---- */

/* --rounds is reached when so many contributions of this run were accepted and the release after the last is
 * here. */
typedef struct run_goal {
    uint64_t n_before, version;
    bool is_counted;
} run_goal;

static bool reached(const run *r, run_goal *goal)
{
    linnet_device_report report;
    linnet_device_status(linnet_agent_device(r->agent), &report);
    if (r->n_rounds == 0 || report.n_contributions - report.n_recovered < goal->n_before + r->n_rounds)
        return false;
    if (!goal->is_counted) {
        goal->is_counted = true;
        goal->version = report.version;
    }
    int64_t wake_ms;
    return report.version > goal->version &&
           linnet_device_next(linnet_agent_device(r->agent), &wake_ms) != LINNET_DEVICE_EVALUATE &&
           strcmp(report.phase, "fetching") != 0;
}

/* With --once: is there nothing left but waiting? A masked round is waited for: the others count on it. */
static bool has_done_all(const run *r, int64_t wake_ms)
{
    int64_t left = wake_ms - linnet_agent_now_ms(r->agent);
    linnet_device_report report;
    linnet_device_status(linnet_agent_device(r->agent), &report);
    if (report.is_in_round)
        return false;
    return r->once && (left > ONCE_WAIT_MS || (r->is_calm && left > 0));
}

/* The next thing, once it is due. *ret_is_done: nothing is left for this run. */
static linnet_status do_next(run *r, bool *ret_is_done, linnet_error *err)
{
    int64_t wake_ms = 0;
    linnet_device_need need = linnet_device_next(linnet_agent_device(r->agent), &wake_ms);
    if (need != LINNET_DEVICE_EVALUATE) /* its outcome is told */
        tell(r);
    if (need == LINNET_DEVICE_TRAIN || need == LINNET_DEVICE_EVALUATE) {
        linnet_status status = linnet_agent_act(r->agent, err);
        if (status == LINNET_OK && need == LINNET_DEVICE_TRAIN)
            tell_step(r);
        return status;
    }
    end_progress(r);
    *ret_is_done = need == LINNET_DEVICE_FINISHED || r->last.is_other_model || has_done_all(r, wake_ms);
    if (*ret_is_done)
        return LINNET_OK;
    sleep_until(r, wake_ms);
    return !stop_asked && linnet_agent_now_ms(r->agent) >= wake_ms ? linnet_agent_act(r->agent, err)
                                                                   : LINNET_OK;
}

/* A full disk is waited out: what could not be committed did not happen, and is done when there is room. */
static linnet_status loop(run *r, linnet_error *err)
{
    linnet_device_report report;
    linnet_device_status(linnet_agent_device(r->agent), &report);
    run_goal goal = {.n_before = report.n_contributions};
    linnet_status status = LINNET_OK;
    bool is_done = false;
    while (status == LINNET_OK && !stop_asked && !is_done && !reached(r, &goal)) {
        status = do_next(r, &is_done, err);
        if (status == LINNET_ERR_NO_SPACE && !r->once) {
            end_progress(r);
            fprintf(r->cli->log, "%s %s: %s; trying again in a minute\n", r->cli->program, r->cli->command,
                    err->message);
            sleep_until(r, linnet_agent_now_ms(r->agent) + FULL_DISK_MS);
            status = LINNET_OK;
        }
    }
    tell(r);
    end_progress(r);
    return status == LINNET_OK ? linnet_agent_check(r->agent, err) : status;
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

static linnet_status open_run(run *r, linnet_error *err)
{
    const linnet_agent_config config = {.state_directory = r->state,
                                        .policy_path = r->policy_path,
                                        .consortium_path = r->consortium_path,
                                        .ledger_directory = r->ledger_path};
    linnet_status status = linnet_agent_open(&config, &r->agent, err);
    if (status == LINNET_OK)
        status = load_data(r, err);
    if (status == LINNET_OK)
        status = client_model_open(r->cli, r->model_path, NULL, &r->model, err);
    const linnet_agent_work work = {.runtime = &r->model,
                                    .model_path = r->model_path,
                                    .dataset = r->dataset,
                                    .held_out = r->held_out,
                                    .has_seed = r->has_seed,
                                    .seed = r->seed};
    return status == LINNET_OK ? linnet_agent_start(r->agent, &work, err) : status;
}

static void close_run(run *r)
{
    linnet_agent_close(r->agent);
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
        linnet_device_status(linnet_agent_device(r.agent), &r.last);
        linnet_cli_emit(cli, report_json("result", &r.last));
    }
    close_run(&r);
    return status == LINNET_OK ? 0 : linnet_cli_fail(cli, &err);
}

const linnet_command client_command_run = {"run", NULL, "Take part in the federated task.", command_run};
