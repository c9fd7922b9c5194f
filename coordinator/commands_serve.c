/* SPDX-License-Identifier: Apache-2.0 */
/* serve: the HTTP server's threads answer, this thread keeps time. It sleeps until something is due, a
 * contribution was accepted, or a signal comes; SIGTERM and SIGINT end it in order. The log goes to stderr
 * with the <N> priorities that a service manager understands. An error after which the disk's state is
 * unknown ends the process with status 1: it starts again from what it can read. */
#include "commands.h"
#include "gate_command.h"

#include "linnet/audit.h"
#include "linnet/http_server.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define CONNECTIONS_MAX 10000
#define FILES_KEPT 300    /* descriptors for spool files, objects, the store: one for each worker and some */
#define SLEEP_MS_MAX 1000 /* joins set deadlines and other processes write to the store: look again */

typedef struct service {
    const linnet_cli *cli;
    linnet_coordinator *coordinator;
    int wake_fd, signal_fd;
    uint64_t round_shown; /* all rounds up to this one were told when they ended */
    uint64_t told_ahead;  /* bit i: round_shown + 1 + i, too */
    linnet_gate_command gate;
} service;

static void on_log(void *context, int priority, const char *line)
{
    const linnet_cli *cli = context;
    if (cli->quiet && priority > 4)
        return;
    fprintf(cli->log, "<%d>%s\n", priority, line);
    (void)fflush(cli->log); /* a log that cannot be written stops nothing */
}

/* Called from the server's threads. */
static void on_request(void *context, const linnet_http_request *request, linnet_http_reply *reply)
{
    service *s = context;
    const uint64_t one = 1;
    linnet_http_response response = {0};
    linnet_coordinator_handle(s->coordinator, coordinator_now_ms(), request, &response);
    bool may_end_a_phase =
        strcmp(request->path, LINNET_PATH_UPLOAD) == 0 || strcmp(request->path, LINNET_PATH_ROUND) == 0;
    if (may_end_a_phase && write(s->wake_fd, &one, sizeof(one)) != sizeof(one))
        on_log((void *)(uintptr_t)s->cli, 4,
               "cannot wake the clock thread; it wakes by itself within a second");
    linnet_http_reply_send(reply, &response);
}

static json_t *number_or_null(bool is_there, double value)
{
    return is_there ? linnet_json_number(value) : json_null();
}

json_t *coordinator_round_json(linnet_coordinator *c, const char *event, const linnet_round_report *r)
{
    double epsilon = 0;
    bool has_epsilon = linnet_coordinator_plan(c)->mechanism != LINNET_DP_NONE &&
                       linnet_coordinator_epsilon_at(c, r->round, &epsilon, NULL) == LINNET_OK;
    return json_pack(
        "{s:s, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:I, s:I, s:o, s:o, s:o, s:o, s:o}",
        "event", event, "round", (json_int_t)r->round, "state", r->state, "version", (json_int_t)r->version,
        "invited", (json_int_t)r->invited, "joined", (json_int_t)r->joined, "shared", (json_int_t)r->sharers,
        "aborts", (json_int_t)r->aborts, "accepted", (json_int_t)r->accepted, "dropped",
        (json_int_t)r->dropped, "loss_before", number_or_null(r->has_loss_before, r->loss_before),
        "loss_after", number_or_null(r->has_loss_after, r->loss_after), "bytes_up", (json_int_t)r->bytes_up,
        "bytes_down", (json_int_t)r->bytes_down, "adapter_hash",
        linnet_json_hex(&r->adapter, sizeof(r->adapter)), "epsilon", number_or_null(has_epsilon, epsilon),
        "step_norm", number_or_null(r->has_outcome, r->step_norm), "gate_loss_before",
        number_or_null(r->has_gate, r->gate_loss_before), "gate_loss_after",
        number_or_null(r->has_gate, r->gate_loss_after));
}

static bool round_is_over(const char *state)
{
    return strcmp(state, "closed") == 0 || strcmp(state, "rejected") == 0 || strcmp(state, "void") == 0;
}

/* Tell the rounds that ended since the last look. Those of several cohorts end in any order: told_ahead marks
 * the ones behind the first that goes on. */
static void tell_rounds(service *s)
{
    linnet_coordinator_report now;
    linnet_round_report *rounds = NULL;
    size_t n = 0;
    if (!s->cli->json || linnet_coordinator_status(s->coordinator, &now, NULL) != LINNET_OK)
        return;
    bool is_over = round_is_over(now.round_state);
    if (now.round <= s->round_shown + (is_over ? 0 : 1) ||
        linnet_coordinator_rounds(s->coordinator, &rounds, &n, NULL) != LINNET_OK)
        return;
    for (size_t i = 0; i < n; i++) {
        uint64_t ahead = rounds[i].round - s->round_shown - 1; /* wraps for those behind it */
        bool is_told = rounds[i].round <= s->round_shown || ahead >= 64 || (s->told_ahead >> ahead & 1);
        if (is_told || !round_is_over(rounds[i].state))
            continue;
        linnet_cli_emit(s->cli, coordinator_round_json(s->coordinator, "round", &rounds[i]));
        s->told_ahead |= UINT64_C(1) << ahead;
    }
    for (; s->told_ahead & 1; s->told_ahead >>= 1)
        s->round_shown++;
    free(rounds);
}

/* Sleep until the time, a contribution or a signal; false: a signal asks to end. */
static bool wait_for_more(service *s, int64_t next_ms)
{
    int64_t left = next_ms - coordinator_now_ms();
    struct pollfd fds[] = {{.fd = s->wake_fd, .events = POLLIN}, {.fd = s->signal_fd, .events = POLLIN}};
    uint64_t drained;
    (void)poll(fds, ARRAY_LEN(fds), left < 0 ? 0 : left > SLEEP_MS_MAX ? SLEEP_MS_MAX : (int)left);
    if ((fds[0].revents & POLLIN) && read(s->wake_fd, &drained, sizeof(drained)) < 0)
        return true; /* nothing to drain after all */
    return !(fds[1].revents & POLLIN);
}

static linnet_status keep_time(service *s, linnet_error *err)
{
    int64_t next_ms = 0;
    for (;;) {
        linnet_status status = linnet_coordinator_tick(s->coordinator, coordinator_now_ms(), &next_ms, err);
        if (status != LINNET_OK)
            return status;
        tell_rounds(s);
        if (!wait_for_more(s, next_ms))
            return LINNET_OK;
    }
}

/* Signals as file descriptors: blocked before any thread starts, so that all inherit that. */
static linnet_status events_open(service *s, linnet_error *err)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN); /* a file size limit becomes an error of the write */
    s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return s->wake_fd < 0 || s->signal_fd < 0
               ? linnet_fail(err, LINNET_ERR_IO, "no file descriptors left for signals")
               : LINNET_OK;
}

static void tell_start(const linnet_cli *cli, const linnet_coordinator_report *report,
                       const char *listen_text, unsigned port)
{
    char address[300];
    const char *colon = strrchr(listen_text, ':');
    (void)snprintf(address, sizeof(address), "%.*s:%u",
                   (int)(colon - listen_text < 256 ? colon - listen_text : 256), listen_text, port);
    linnet_cli_emit(cli, json_pack("{s:s, s:s, s:b}", "event", "listening", "address", address,
                                   "operator_is_authority", report->operator_is_authority));
    linnet_cli_say(cli, "Listening on %s, task '%s', version %llu, round %llu.\n", address, report->name,
                   (unsigned long long)report->version, (unsigned long long)report->round);
    if (report->operator_is_authority)
        linnet_cli_say(cli, "%s\n", COORDINATOR_TRIAL_TEXT);
    (void)fflush(cli->out);
}

static unsigned worker_count(const linnet_cli *cli)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (cli->n_threads > 0)
        return cli->n_threads < 256 ? (unsigned)cli->n_threads : 256;
    return cores > 2 ? (unsigned)cores * 2 : 4; /* some of them wait for the disk */
}

/* As many connections as there are file descriptors, less what files and the store need. */
static unsigned connection_count(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 512;
    if (limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* where it is refused, getrlimit says what there is */
        (void)getrlimit(RLIMIT_NOFILE, &limit);
    }
    rlim_t n = limit.rlim_cur > 2 * FILES_KEPT ? limit.rlim_cur - FILES_KEPT : FILES_KEPT;
    return n < CONNECTIONS_MAX ? (unsigned)n : CONNECTIONS_MAX;
}

static linnet_status serve(service *s, const char *listen_text, linnet_error *err)
{
    linnet_http_server *server = NULL;
    linnet_coordinator_report report;
    const linnet_http_server_options options = {.listen = listen_text,
                                                .n_threads = worker_count(s->cli),
                                                .n_connections_max = connection_count(),
                                                .idle_timeout_s = 60,
                                                .n_body_max = LINNET_REQUEST_BYTES_MAX};
    linnet_status status = linnet_coordinator_status(s->coordinator, &report, err);
    if (status != LINNET_OK)
        return status;
    uint64_t n_cohorts = linnet_coordinator_plan(s->coordinator)->cohorts; /* rounds that may go on */
    s->round_shown = report.round > n_cohorts ? report.round - n_cohorts : 0;
    status = linnet_http_server_start(&options, on_request, s, &server, err);
    if (status != LINNET_OK)
        return status;
    tell_start(s->cli, &report, listen_text, linnet_http_server_port(server));
    status = keep_time(s, err);
    linnet_http_server_stop(server);
    return status;
}

/* The gate that the plan wants and the one that the operator gives go together: a gate that nobody asks, or a
 * round that nothing can end, would be found out too late. */
static linnet_status gate_set(service *s, const char *state, const char *text, uint64_t timeout_s,
                              linnet_error *err)
{
    double tolerance = linnet_coordinator_plan(s->coordinator)->gate_tolerance;
    if (!text && tolerance > 0)
        return linnet_fail(err, LINNET_ERR_ARG,
                           "the plan's evaluation.gate_tolerance asks for a gate: give --gate COMMAND");
    if (text && !(tolerance > 0))
        return linnet_fail(err, LINNET_ERR_ARG,
                           "--gate: the plan's evaluation.gate_tolerance is 0, nothing would ask it");
    if (!text)
        return LINNET_OK;
    linnet_status status = linnet_gate_command_init(text, &s->gate, err);
    if (status != LINNET_OK)
        return status;
    int n = snprintf(s->gate.adapter_path, sizeof(s->gate.adapter_path), "%s/candidate.gguf", state);
    if (n < 0 || (size_t)n >= sizeof(s->gate.adapter_path))
        return linnet_fail(err, LINNET_ERR_LIMIT, "state directory: the path is too long");
    s->gate.architecture = linnet_coordinator_architecture(s->coordinator);
    s->gate.timeout_ms = (int)timeout_s * 1000;
    s->gate.stop_fd = s->signal_fd;
    linnet_coordinator_set_gate(s->coordinator, linnet_gate_command_ask, &s->gate);
    return LINNET_OK;
}

static int run_serve(linnet_cli *cli, int argc, char **argv)
{
    const char *state = NULL, *listen_text = "127.0.0.1:8440", *gate = NULL, *log_path = NULL;
    uint64_t gate_timeout_s = LINNET_GATE_TIMEOUT_S;
    linnet_option options[] = {
        {.name = "state",
         .kind = LINNET_OPTION_TEXT,
         .value = &state,
         .argument = "DIR",
         .help = "state directory",
         .required = true},
        {.name = "listen",
         .kind = LINNET_OPTION_TEXT,
         .value = &listen_text,
         .argument = "HOST:PORT",
         .help = "address to listen on; port 0 takes a free one"},
        {.name = "gate",
         .kind = LINNET_OPTION_TEXT,
         .value = &gate,
         .argument = "COMMAND",
         .help =
             "program and arguments that print an adapter's loss as JSON; its path comes last, or for {}"},
        {.name = "gate-timeout",
         .kind = LINNET_OPTION_COUNT,
         .value = &gate_timeout_s,
         .argument = "SECONDS",
         .help = "longest run of the gate's command",
         .min = 1,
         .max = 86400},
        {.name = "log",
         .kind = LINNET_OPTION_TEXT,
         .value = &log_path,
         .argument = "FILE",
         .help = "log of what the state has said, best on another volume: finds a restored backup"},
    };
    int done =
        linnet_cli_parse(cli, &coordinator_command_serve, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (done >= 0)
        return done;
    linnet_error err = {0};
    service s = {.cli = cli, .wake_fd = -1, .signal_fd = -1};
    const linnet_coordinator_options open_options = {.serve = true, .log_path = log_path};
    linnet_status status = events_open(&s, &err);
    if (status == LINNET_OK)
        status = linnet_coordinator_open(state, &open_options, coordinator_now_ms(), &s.coordinator, &err);
    if (status == LINNET_ERR_BUSY)
        (void)linnet_fail(&err, status, "another process serves '%s' already", state);
    if (status == LINNET_OK) {
        linnet_coordinator_set_log(s.coordinator, on_log, cli);
        status = gate_set(&s, state, gate, gate_timeout_s, &err);
        if (status == LINNET_OK)
            status = serve(&s, listen_text, &err);
    }
    linnet_coordinator_close(s.coordinator);
    linnet_gate_command_release(&s.gate);
    if (s.wake_fd >= 0)
        (void)close(s.wake_fd);
    if (s.signal_fd >= 0)
        (void)close(s.signal_fd);
    if (status != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    linnet_cli_emit(cli, json_pack("{s:s, s:s}", "event", "result", "stopped", "by signal"));
    return 0;
}

const linnet_command coordinator_command_serve = {
    .name = "serve", .summary = "Answer devices and run the rounds", .run = run_serve};
