/* SPDX-License-Identifier: Apache-2.0 */
/* The same run with nothing simulated: one linnet-coordinator serving on loopback and one linnet-client per
 * device, each with its own state directory and its own records in a file. The simulator only starts them,
 * reads the coordinator's store beside it, and, where the scenario asks for it, ends one with SIGKILL and
 * starts it again. Everybody takes part in every round, so that the aggregate must equal the in-memory run's
 * bit for bit. */
#include "simulate.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    PROCESSES_MAX = 64,
    START_TIMEOUT_MS = 20000,
    IDLE_TIMEOUT_MS = 600000,
    POLL_MS = 20,
    STREAM_KILLS = 0x6b696c6c
};

/* The coordinator is child 0, device i is child i + 1. */
typedef struct crew {
    fleet *f;
    pid_t pids[PROCESSES_MAX + 1];
    char coordinator_program[4200], client_program[4200], policy_path[4300], address[128];
    char (*directories)[4300]; /* of the devices */
    linnet_rng rng;
    uint64_t kills; /* so far */
    int64_t next_kill_ms;
} crew;

static int64_t now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail for this clock */
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void sleep_ms(long ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    (void)nanosleep(&t, NULL); /* waking early is fine */
}

/* Start a program; stdout goes to out_fd (or the log), stderr is appended to the log. */
static linnet_status start(const char *const argv[], const char *log_path, int out_fd, pid_t *ret_pid,
                           linnet_error *err)
{
    pid_t self = getpid(), pid = fork();
    if (pid < 0)
        return linnet_fail_errno(err, errno, "cannot start '%s'", argv[0]);
    if (pid == 0) {
        /* Whatever ends the simulator ends its processes; one that ended already is somebody else's child
         * now. */
        if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0 || getppid() != self)
            _exit(127);
        int log = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (log >= 0 && dup2(out_fd >= 0 ? out_fd : log, STDOUT_FILENO) >= 0 && dup2(log, STDERR_FILENO) >= 0)
            (void)execv(argv[0],
                        (char *const *)(uintptr_t)argv); /* exec changes nothing: POSIX, exec, Rationale */
        _exit(127);
    }
    *ret_pid = pid;
    return LINNET_OK;
}

static linnet_status run_to_end(const char *const argv[], const char *log_path, linnet_error *err)
{
    pid_t pid = 0;
    int state = 0;
    linnet_status status = start(argv, log_path, -1, &pid, err);
    if (status != LINNET_OK)
        return status;
    while (waitpid(pid, &state, 0) < 0 && errno == EINTR)
        continue;
    if (!WIFEXITED(state) || WEXITSTATUS(state) != 0)
        return linnet_fail(err, LINNET_ERR_IO, "'%s %s' failed; see '%s'", argv[0], argv[1], log_path);
    return LINNET_OK;
}

/* Read the coordinator's first event from a pipe: {"event":"listening","address":"127.0.0.1:PORT",...}. */
static linnet_status read_address(int fd, char address[128], linnet_error *err)
{
    char line[1024];
    size_t n = 0;
    int64_t until = now_ms() + START_TIMEOUT_MS;
    while (n + 1 < sizeof(line) && now_ms() < until) {
        struct pollfd waiting = {.fd = fd, .events = POLLIN};
        ssize_t got = poll(&waiting, 1, 100) > 0 ? read(fd, line + n, 1) : 0;
        if (got < 0 || (got == 0 && (waiting.revents & POLLHUP)))
            break;
        if (got == 0)
            continue;
        if (line[n++] != '\n')
            continue;
        json_t *event = json_loadb(line, n, 0, NULL);
        const char *text = json_string_value(json_object_get(event, "address"));
        if (text)
            (void)snprintf(address, 128, "%s", text);
        json_decref(event);
        n = 0;
        if (text)
            return LINNET_OK;
    }
    return linnet_fail(err, LINNET_ERR_IO, "the coordinator does not start; see coordinator.log");
}

static linnet_status start_coordinator(crew *c, linnet_error *err)
{
    char log_path[4300], listen_address[128];
    int ends[2];
    (void)snprintf(log_path, sizeof(log_path), "%s/coordinator.log", c->f->config->out_directory);
    (void)snprintf(listen_address, sizeof(listen_address), "%s", c->address[0] ? c->address : "127.0.0.1:0");
    const char *const argv[] = {
        c->coordinator_program, "serve",  "--state", c->f->coordinator_directory, "--listen",
        listen_address,         "--json", NULL};
    if (pipe(ends) != 0)
        return linnet_fail_errno(err, errno, "cannot make a pipe");
    linnet_status status = start(argv, log_path, ends[1], &c->pids[0], err);
    (void)close(ends[1]); /* the child has its own */
    if (status == LINNET_OK)
        status = read_address(ends[0], c->address, err);
    (void)close(ends[0]); /* later events are not read: the store says the same; the server must live with a
                             closed pipe */
    return status;
}

/* The device's records as the file has them, line by line. */
static linnet_status write_records(const crew *c, size_t device, const linnet_buffer *lines,
                                   linnet_error *err)
{
    const linnet_share *share = &c->f->shares->items[device];
    linnet_buffer own = {0};
    char path[4400];
    size_t at = 0, line = 1;
    for (size_t i = 0; i < share->n_records; i++) {
        size_t wanted = c->f->data->records[share->records[i]].line;
        for (; line < wanted; line++) {
            const uint8_t *end = memchr(lines->bytes + at, '\n', lines->n_bytes - at);
            at = end ? (size_t)(end - lines->bytes) + 1 : lines->n_bytes;
        }
        const uint8_t *end = memchr(lines->bytes + at, '\n', lines->n_bytes - at);
        linnet_buffer_append(&own, lines->bytes + at,
                             (end ? (size_t)(end - lines->bytes) : lines->n_bytes) - at);
        linnet_buffer_append_text(&own, "\n");
    }
    (void)snprintf(path, sizeof(path), "%s/data.jsonl", c->directories[device]);
    linnet_status status = own.failed ? linnet_fail(err, LINNET_ERR_NOMEM, "no memory for records")
                                      : linnet_file_write(path, own.bytes, own.n_bytes, 0600, err);
    linnet_buffer_release(&own);
    return status;
}

static linnet_status enroll_device(crew *c, size_t device, linnet_error *err)
{
    virtual_device *d = &c->f->devices[device];
    char text[LINNET_INVITE_TEXT_MAX], url[160], log_path[4400];
    linnet_kv kv = {0};
    linnet_device_report report;
    linnet_status status =
        linnet_coordinator_invite(c->f->coordinator, (uint64_t)time(NULL) + 86400, text, err);
    if (status != LINNET_OK)
        return status;
    (void)snprintf(url, sizeof(url), "http://%s", c->address);
    (void)snprintf(log_path, sizeof(log_path), "%s/client.log", c->directories[device]);
    const char *const argv[] = {
        c->client_program, "enroll", "--state", c->directories[device], "--coordinator", url,
        "--invite",        text,     NULL};
    status = run_to_end(argv, log_path, err);
    linnet_wipe(text, sizeof(text));
    if (status == LINNET_OK)
        status = linnet_kv_open_lmdb(c->directories[device], false, &kv, err);
    if (status == LINNET_OK) {
        status = linnet_device_status_of(&kv, &report, err);
        kv.close(kv.context);
    }
    if (status == LINNET_OK)
        d->id = report.device_id;
    return status;
}

/* fleet_policy for devices that read theirs from a file. */
static linnet_status write_policy(crew *c, linnet_error *err)
{
    linnet_policy policy = fleet_policy(&c->f->config->plan);
    unsigned permille = (unsigned)(policy.corrupt_min * 1000);
    char text[160];
    int n = snprintf(text, sizeof(text),
                     "[policy]\nallow_plain = %s\nallow_central_noise = %s\ncorrupt_min = 0.%03u\n",
                     policy.allow_plain ? "on" : "off", policy.allow_central_noise ? "on" : "off", permille);
    (void)snprintf(c->policy_path, sizeof(c->policy_path), "%s/policy.ini", c->f->config->out_directory);
    return linnet_file_write(c->policy_path, text, (size_t)n, 0600, err);
}

static linnet_status start_device(crew *c, size_t device, linnet_error *err)
{
    char data[4400], log_path[4400], seed[32];
    (void)snprintf(data, sizeof(data), "%s/data.jsonl", c->directories[device]);
    (void)snprintf(log_path, sizeof(log_path), "%s/client.log", c->directories[device]);
    (void)snprintf(seed, sizeof(seed), "%llu", (unsigned long long)c->f->devices[device].seed);
    const char *const argv[] = {c->client_program, "run",
                                "--state",         c->directories[device],
                                "--model",         c->f->config->model_path,
                                "--data",          data,
                                "--policy",        c->policy_path,
                                "--seed",          seed,
                                "--threads",       "1",
                                "--json",          NULL};
    return start(argv, log_path, -1, &c->pids[device + 1], err);
}

/* Make the devices' folders and files, the coordinator's state, and start everything. */
static linnet_status start_crew(crew *c, linnet_error *err)
{
    fleet *f = c->f;
    linnet_coordinator_options options = {.serve = false};
    linnet_buffer lines = {0};
    linnet_rng speeds; /* seeds come from the same stream as in memory */
    int64_t wall_ms = (int64_t)time(NULL) * 1000;
    linnet_rng_init(&speeds, f->config->seed, FLEET_STREAM_DEVICE);
    linnet_status status = linnet_coordinator_init(f->coordinator_directory, &f->config->plan,
                                                   f->config->model_path, NULL, wall_ms, err);
    if (status == LINNET_OK)
        status = write_policy(c, err);
    if (status == LINNET_OK)
        status = start_coordinator(c, err);
    if (status == LINNET_OK)
        status = linnet_coordinator_open(f->coordinator_directory, &options, wall_ms, &f->coordinator, err);
    if (status == LINNET_OK)
        status = linnet_file_read(f->config->data_path, SIZE_MAX / 2, &lines, err);
    for (size_t i = 0; status == LINNET_OK && i < f->n_devices; i++) {
        f->devices[i] = (virtual_device){
            .fleet = f, .share = &f->shares->items[i], .seed = linnet_rng_next(&speeds) >> 11};
        f->devices[i].speed = linnet_rng_double(&speeds);
        (void)snprintf(c->directories[i], sizeof(c->directories[i]), "%s/devices/%zu",
                       f->config->out_directory, i);
        status = linnet_directory_create(c->directories[i], err);
        if (status == LINNET_OK)
            status = write_records(c, i, &lines, err);
        if (status == LINNET_OK)
            status = enroll_device(c, i, err);
    }
    for (size_t i = 0; status == LINNET_OK && i < f->n_devices; i++)
        status = start_device(c, i, err);
    linnet_buffer_release(&lines);
    return status;
}

static void stop(pid_t *pid, int signal_number)
{
    int state;
    if (*pid <= 0)
        return;
    (void)kill(*pid, signal_number); /* our own child, not yet waited for */
    while (waitpid(*pid, &state, 0) < 0 && errno == EINTR)
        continue;
    *pid = 0;
}

/* One of the crew, at a random instant, between 0.05 and 2 s after the last. */
static linnet_status maybe_kill(crew *c, linnet_error *err)
{
    if (c->kills >= (uint64_t)c->f->config->scenario.kills || now_ms() < c->next_kill_ms)
        return LINNET_OK;
    size_t victim = (size_t)linnet_rng_below(&c->rng, c->f->n_devices + 1);
    if (linnet_rng_below(&c->rng, 2) == 0)
        victim = 0; /* the coordinator, every other time */
    c->next_kill_ms = now_ms() + 50 + (int64_t)linnet_rng_below(&c->rng, 1950);
    if (c->pids[victim] <= 0)
        return LINNET_OK;
    stop(&c->pids[victim], SIGKILL);
    c->kills++;
    return victim == 0 ? start_coordinator(c, err) : start_device(c, victim - 1, err);
}

/* Children that ended by themselves: a device has finished the task; anything else is a failure. */
static linnet_status reap(crew *c, linnet_error *err)
{
    for (size_t i = 0; i <= c->f->n_devices; i++) {
        int state;
        if (c->pids[i] <= 0 || waitpid(c->pids[i], &state, WNOHANG) != c->pids[i])
            continue;
        c->pids[i] = 0;
        if (i == 0)
            return linnet_fail(err, LINNET_ERR_IO, "the coordinator ended; see '%s/coordinator.log'",
                               c->f->config->out_directory);
        if (!WIFEXITED(state) || WEXITSTATUS(state) != 0)
            return linnet_fail(err, LINNET_ERR_IO, "device %zu failed; see '%s/client.log'", i - 1,
                               c->directories[i - 1]);
    }
    return LINNET_OK;
}

/* Rounds that have closed since the last look, in order. */
static linnet_status collect_rounds(crew *c, const evaluation *e, const outcome *o, linnet_hasher *hasher,
                                    uint64_t *last_seen, linnet_simulation_result *result, linnet_error *err)
{
    linnet_round_report *list = NULL;
    size_t n = 0;
    linnet_status status = linnet_coordinator_rounds(c->f->coordinator, &list, &n, err);
    for (size_t i = 0; status == LINNET_OK && i < n && result->n_rounds < c->f->config->n_rounds; i++) {
        if (list[i].round <= *last_seen ||
            (strcmp(list[i].state, "closed") != 0 && strcmp(list[i].state, "rejected") != 0 &&
             strcmp(list[i].state, "void") != 0))
            continue;
        *last_seen = list[i].round;
        if (list[i].state[0] == 'v')
            continue;
        linnet_simulation_round *round = &result->rounds[result->n_rounds];
        status = finish_round(c->f, e, result->n_rounds + 1, list[i].round, hasher, round,
                              result->device_federated, err);
        if (status == LINNET_OK) {
            result->n_rounds++;
            result->bytes_up += round->bytes_up;
            result->bytes_down += round->bytes_down;
            outcome_round(o, round);
        }
    }
    free(list);
    return status;
}

static linnet_status watch(crew *c, const evaluation *e, const outcome *o, linnet_hasher *hasher,
                           linnet_simulation_result *result, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    linnet_progress progress;
    uint64_t last_seen = 0;
    size_t n_before = 0;
    int64_t progress_ms = now_ms();
    linnet_progress_start(&progress, o->cli, "rounds", c->f->config->n_rounds);
    while (status == LINNET_OK && result->n_rounds < c->f->config->n_rounds) {
        status = reap(c, err);
        if (status == LINNET_OK)
            status = maybe_kill(c, err);
        if (status == LINNET_OK)
            status = collect_rounds(c, e, o, hasher, &last_seen, result, err);
        if (result->n_rounds != n_before) {
            n_before = result->n_rounds;
            progress_ms = now_ms();
            linnet_progress_update(&progress, n_before, NULL);
        }
        if (status == LINNET_OK && now_ms() - progress_ms > IDLE_TIMEOUT_MS)
            status = linnet_fail(err, LINNET_ERR_LIMIT, "no round has closed for %d s; see the logs in '%s'",
                                 IDLE_TIMEOUT_MS / 1000, c->f->config->out_directory);
        sleep_ms(POLL_MS);
    }
    linnet_progress_finish(&progress);
    return status;
}

linnet_status simulate_processes(fleet *f, const evaluation *e, const outcome *o,
                                 linnet_simulation_result *result, linnet_adapter **ret_adapter,
                                 linnet_error *err)
{
    crew c = {.f = f};
    linnet_hasher hasher;
    linnet_status status = LINNET_OK;
    if (f->n_devices > PROCESSES_MAX || f->config->scenario.participation < 1)
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                           "--processes runs at most %d devices, all of them in every round", PROCESSES_MAX);
    if (f->config->scenario.attack != LINNET_ATTACK_NONE)
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                           "the clients of --processes are honest: run attacks without it");
    linnet_hasher_init(&hasher, LINNET_LABEL_TRANSCRIPT);
    linnet_rng_init(&c.rng, f->config->seed, STREAM_KILLS);
    c.next_kill_ms = now_ms() + 1500;
    (void)snprintf(c.coordinator_program, sizeof(c.coordinator_program), "%s/linnet-coordinator",
                   f->config->bin_directory);
    (void)snprintf(c.client_program, sizeof(c.client_program), "%s/linnet-client", f->config->bin_directory);
    c.directories = calloc(f->n_devices, sizeof(*c.directories));
    f->devices = calloc(f->n_devices, sizeof(*f->devices));
    f->coordinator_directory = linnet_path_join(f->config->out_directory, "coordinator");
    if (!c.directories || !f->devices || !f->coordinator_directory)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %zu processes", f->n_devices);
    if (status == LINNET_OK)
        status = start_crew(&c, err);
    if (status == LINNET_OK)
        status = watch(&c, e, o, &hasher, result, err);
    if (status == LINNET_OK)
        status = linnet_coordinator_adapter(f->coordinator, UINT64_MAX, ret_adapter, err);
    for (size_t i = f->n_devices + 1; i-- > 0;)
        stop(&c.pids[i], SIGTERM);
    struct rusage children;
    if (getrusage(RUSAGE_CHILDREN, &children) == 0)
        result->device_seconds = (double)children.ru_utime.tv_sec + (double)children.ru_utime.tv_usec * 1e-6;
    result->transcript = linnet_hasher_final(&hasher);
    result->kills = c.kills;
    free(c.directories);
    return status;
}
