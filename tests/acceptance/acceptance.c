/* SPDX-License-Identifier: Apache-2.0 */
/* Running the built programs from tests. Every child is known by its pid and ended by it; a deadline guards
 * every wait, so that a program that hangs is a failure with a name and not a stuck suite. */
#include "acceptance.h"
#include "runtime_directory.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHILDREN_MAX 64

static char scratch[] = "/tmp/linnet-acceptance-XXXXXX";
static pid_t children[CHILDREN_MAX]; /* 0: free */

static const char tiny_plan[] =
    "[task]\nname = tiny\nrounds = 1000\n[adapter]\nrank = 2\ntargets = attn_q\n"
    "[training]\nlocal_steps = 1\nbatch_records = 1\ncontext_tokens = 16\nheld_out = 0\n"
    "[cohort]\ngoal = 3\nminimum = 3\nover_selection = 1\ndeadline = 10m\npoll = 1s\n"
    "[secure]\nphase_deadline = 20s\n";
static const char to_plain[] = "sed -e 's/^goal = 3/goal = 2/' -e 's/^minimum = 3/minimum = 1/' "
                               "-e 's/^phase_deadline.*/profile = plain/' tiny.ini >plain.ini";

/* ---- the scratch folder ---- */

int acceptance_set_up(void **state)
{
    (void)state;
    static const struct {
        const char *name, *value;
    } names[] = {
        {"C", LINNET_BIN "/linnet-client"},
        {"K", LINNET_BIN "/linnet-coordinator"},
        {"M", LINNET_SOURCE "/sims/bundled/linnet-notes-Q8_0.gguf"},
        {"D", LINNET_SOURCE "/sims/bundled/notes-train.jsonl"},
        {"E", LINNET_SOURCE "/sims/bundled/notes-test.jsonl"},
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (setenv(names[i].name, names[i].value, 1) != 0)
            return -1;
    (void)signal(SIGPIPE, SIG_IGN); /* peers that hang up are part of the game */
    if (runtime_directory_make() != 0 || !mkdtemp(scratch) || chdir(scratch) != 0)
        return -1;
    put_text("tiny.ini", tiny_plan);
    put_text("plain.policy", "[policy]\nallow_plain = on\n");
    if (system(to_plain) != 0)
        return -1;
    return system("head -n 20 \"$D\" >few.jsonl");
}

int acceptance_clean(void **state)
{
    (void)state;
    for (size_t i = 0; i < CHILDREN_MAX; i++)
        if (children[i] != 0)
            (void)end(children[i], SIGKILL);
    return 0;
}

int acceptance_tear_down(void **state)
{
    char line[64];
    (void)acceptance_clean(state);
    (void)snprintf(line, sizeof(line), "rm -rf %s", scratch);
    int removed = runtime_directory_remove();
    return chdir("/") == 0 && removed == 0 ? system(line) : -1;
}

int count_round_keys(void)
{
    return runtime_directory_count();
}

linnet_buffer take_file(const char *name)
{
    linnet_buffer bytes = {0};
    FILE *file = fopen(name, "rb");
    if (!file)
        fail_msg("cannot open '%s'", name);
    assert_true(linnet_buffer_reserve(&bytes, 1 << 20));
    bytes.n_bytes = fread(bytes.bytes, 1, (1 << 20) - 1, file);
    bytes.bytes[bytes.n_bytes] = '\0';
    (void)fclose(file);
    return bytes;
}

void put_file(const char *name, const void *bytes, size_t n_bytes)
{
    FILE *file = fopen(name, "wb");
    if (!file || fwrite(bytes, 1, n_bytes, file) != n_bytes || fclose(file) != 0)
        fail_msg("cannot write '%s'", name);
}

void put_text(const char *name, const char *text)
{
    put_file(name, text, strlen(text));
}

bool file_exists(const char *name)
{
    return access(name, F_OK) == 0;
}

/* ---- time ---- */

int64_t now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail for this clock */
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void pause_ms(long ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    (void)nanosleep(&t, NULL); /* waking early is fine */
}

/* ---- children ---- */

static pid_t spawn(const char *line, const char *out_name, const char *err_name, int flags)
{
    size_t free_place = 0;
    while (free_place < CHILDREN_MAX && children[free_place] != 0)
        free_place++;
    assert_true(free_place < CHILDREN_MAX);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
        int out = open(out_name, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);
        int err = open(err_name, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);
        (void)signal(SIGPIPE, SIG_DFL);
        if (dup2(in, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0 && dup2(err, STDERR_FILENO) >= 0)
            (void)execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(127);
    }
    children[free_place] = pid;
    return pid;
}

static void forget(pid_t pid)
{
    for (size_t i = 0; i < CHILDREN_MAX; i++)
        if (children[i] == pid)
            children[i] = 0;
}

static int wait_end(pid_t pid, int64_t until)
{
    int state = 0;
    for (long nap = 1;; nap = nap < 20 ? nap + 1 : nap) {
        pid_t got = waitpid(pid, &state, WNOHANG);
        if (got == pid)
            break;
        if (got < 0 && errno != EINTR)
            fail_msg("process %ld is not a child", (long)pid);
        if (now_ms() > until) {
            (void)kill(pid, SIGKILL); /* our own child, not yet waited for */
            (void)waitpid(pid, &state, 0);
            forget(pid);
            return -1;
        }
        pause_ms(nap);
    }
    forget(pid);
    return WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
}

int end(pid_t pid, int signal_number)
{
    if (signal_number != 0)
        (void)kill(pid, signal_number);
    return wait_end(pid, now_ms() + DEADLINE_MS);
}

bool is_running(pid_t pid)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
}

/* ---- commands that end ---- */

/* What a file has behind its first n_skip bytes, as much as fits. */
static void read_text(const char *name, size_t n_skip, char *text, size_t n_max)
{
    FILE *file = fopen(name, "rb");
    bool is_there = file && fseek(file, (long)n_skip, SEEK_SET) == 0;
    size_t n = is_there ? fread(text, 1, n_max - 1, file) : 0;
    text[n] = '\0';
    if (file)
        (void)fclose(file);
}

static outcome last;
static char last_line[4096];

static void run_line(void)
{
    last.status = wait_end(spawn(last_line, "run.out", "run.err", O_TRUNC), now_ms() + DEADLINE_MS);
    read_text("run.out", 0, last.out, sizeof(last.out));
    read_text("run.err", 0, last.err, sizeof(last.err));
    last.n_lines = 0;
    for (const char *at = last.err; (at = strchr(at, '\n')) != NULL; at++)
        last.n_lines++;
}

#define RUN(format)                                                                                          \
    do {                                                                                                     \
        va_list arguments_;                                                                                  \
        va_start(arguments_, format);                                                                        \
        int n_ = vsnprintf(last_line, sizeof(last_line), format, arguments_);                                \
        va_end(arguments_);                                                                                  \
        assert_true(n_ > 0 && (size_t)n_ < sizeof(last_line));                                               \
        run_line();                                                                                          \
    } while (0)

const outcome *run(const char *format, ...)
{
    RUN(format);
    return &last;
}

/* One line that names the program and has the words; nothing that looks like a success. */
static void check_failure(int status, const char *wanted)
{
    if (last.status != status || last.n_lines != 1 || strncmp(last.err, "linnet-", 7) != 0 ||
        last.err[strlen(last.err) - 1] != '\n' || !strstr(last.err, wanted) || strstr(last.out, "\"result\""))
        fail_msg("%s\n  status %d (%d wanted), %zu lines on stderr, which want '%s':\n%s", last_line,
                 last.status, status, last.n_lines, wanted, last.err);
}

void must_fail(const char *wanted, const char *format, ...)
{
    RUN(format);
    check_failure(1, wanted);
}

void must_refuse_usage(const char *wanted, const char *format, ...)
{
    RUN(format);
    check_failure(2, wanted);
}

static void check_success(void)
{
    if (last.status != 0 || last.err[0])
        fail_msg("%s\n  status %d, stderr:\n%s", last_line, last.status, last.err);
}

void must_do(const char *format, ...)
{
    RUN(format);
    check_success();
}

static json_t *last_result(void)
{
    check_success();
    const char *line = last.out;
    for (const char *at = line; (at = strchr(at, '\n')) != NULL && at[1]; at++)
        line = at + 1;
    json_t *json = json_loads(line, 0, NULL);
    if (!json)
        fail_msg("%s\n  no JSON: %s", last_line, line);
    return json;
}

json_t *result_of(const char *format, ...)
{
    RUN(format);
    return last_result();
}

long long number_of(const char *field, const char *format, ...)
{
    RUN(format);
    json_t *result = last_result();
    const json_t *value = json_object_get(result, field);
    if (!json_is_integer(value) && !json_is_boolean(value))
        fail_msg("%s\n  no number '%s'", last_line, field);
    long long number = json_is_boolean(value) ? json_is_true(value) : json_integer_value(value);
    json_decref(result);
    return number;
}

const char *text_of(const char *field, const char *format, ...)
{
    static char text[1024];
    RUN(format);
    json_t *result = last_result();
    const char *value = json_string_value(json_object_get(result, field));
    if (!value)
        fail_msg("%s\n  no text '%s'", last_line, field);
    (void)snprintf(text, sizeof(text), "%s", value);
    json_decref(result);
    return text;
}

/* ---- commands that stay ---- */

pid_t start(const char *name, const char *format, ...)
{
    char line[4096] = "exec ", out_name[256], err_name[256];
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(line + 5, sizeof(line) - 5, format, arguments);
    va_end(arguments);
    assert_true(n > 0 && (size_t)n < sizeof(line) - 5);
    (void)snprintf(out_name, sizeof(out_name), "%s.out", name);
    (void)snprintf(err_name, sizeof(err_name), "%s.err", name);
    return spawn(line, out_name, err_name, O_APPEND);
}

void await_text(const char *name, const char *words)
{
    static char text[1 << 18];
    for (int64_t until = now_ms() + DEADLINE_MS; now_ms() < until; pause_ms(10)) {
        read_text(name, 0, text, sizeof(text));
        if (strstr(text, words))
            return;
    }
    fail_msg("'%s' never said '%s':\n%s", name, words, text);
}

/* ---- a fleet ---- */

void make_task(const char *state)
{
    must_do("$K init --state %s --plan tiny.ini --model $M --quiet", state);
}

void make_plain_task(const char *state)
{
    must_do("$K init --state %s --plan plain.ini --model $M --quiet", state);
}

/* The newest address in the server's output, which its process has written; 0: none yet. */
static int listening_port(const char *out_name, size_t n_skip)
{
    static char text[1 << 16];
    int port = 0;
    read_text(out_name, n_skip, text, sizeof(text));
    for (const char *at = text; (at = strstr(at, "\"address\":")) != NULL; at++) {
        const char *colon = strchr(at + 11, ':');
        if (colon && strchr(colon, '\n'))
            port = atoi(colon + 1);
    }
    return port;
}

/* The server that a command line starts, once it listens. */
static server start_server(const char *name, const char *line)
{
    char out_name[256], err_name[256];
    struct stat st = {0};
    (void)snprintf(out_name, sizeof(out_name), "%s.out", name);
    (void)snprintf(err_name, sizeof(err_name), "%s.err", name);
    size_t n_skip = stat(out_name, &st) == 0 ? (size_t)st.st_size : 0;
    server s = {.pid = start(name, "%s", line)};
    for (int64_t until = now_ms() + DEADLINE_MS; s.port == 0 && now_ms() < until; pause_ms(5)) {
        s.port = listening_port(out_name, n_skip);
        if (s.port == 0 && !is_running(s.pid)) {
            linnet_buffer text = take_file(err_name);
            fail_msg("the server ended:\n%s", (const char *)text.bytes);
        }
    }
    assert_true(s.port != 0);
    return s;
}

server serve(const char *state, int port, const char *more)
{
    char line[4096];
    (void)snprintf(line, sizeof(line), "$K serve --state %s --listen 127.0.0.1:%d --json %s", state, port,
                   more);
    return start_server(state, line);
}

server serve_model(const char *name, const char *more)
{
    char line[4096];
    (void)snprintf(line, sizeof(line), "$C serve --model $M --listen 127.0.0.1:0 --json %s", more);
    return start_server(name, line);
}

void stop(server *s, int signal_number)
{
    int status = end(s->pid, signal_number);
    s->pid = 0;
    if (signal_number == SIGTERM)
        assert_int_equal(status, 0);
}

const char *invite(const char *state)
{
    static char code[1024];
    must_do("$K invite --state %s", state);
    (void)snprintf(code, sizeof(code), "%.*s", (int)strcspn(last.out, "\n"), last.out);
    return code;
}

void enroll(const char *device, const char *coordinator, int port)
{
    must_do("$C enroll --state %s --coordinator http://127.0.0.1:%d --invite %s", device, port,
            invite(coordinator));
}

pid_t start_seeded(const char *device, unsigned seed, const char *more)
{
    return start(
        device,
        "$C run --state %s --model $M --data few.jsonl --policy plain.policy --threads 1 --json --seed %u %s",
        device, seed, more);
}

pid_t start_device(const char *device, const char *more)
{
    unsigned seed = 0;
    for (const char *at = device; *at; at++)
        seed = seed * 31 + (unsigned char)*at;
    return start_seeded(device, seed % 100000, more);
}

void await_count(const char *coordinator, const char *field, long long count)
{
    long long got = 0;
    for (int64_t until = now_ms() + DEADLINE_MS; now_ms() < until; pause_ms(30)) {
        got = number_of(field, "$K status --state %s --json", coordinator);
        if (got >= count)
            return;
    }
    fail_msg("%s of %s is %lld, %lld wanted", field, coordinator, got, count);
}

void contribute(const char *device, int rounds)
{
    char more[32];
    (void)snprintf(more, sizeof(more), "--rounds %d", rounds);
    int status = end(start_device(device, more), 0);
    if (status == 0)
        return;
    char out_name[64], err_name[64];
    (void)snprintf(out_name, sizeof(out_name), "%s.out", device);
    (void)snprintf(err_name, sizeof(err_name), "%s.err", device);
    linnet_buffer out = take_file(out_name), err = take_file(err_name); /* tests that fail may leak */
    fail_msg("%s: status %d\n%s%s", device, status, (const char *)out.bytes, (const char *)err.bytes);
}

/* ---- a fleet whose sum is masked, or is not ---- */

const fleet_profile profiles[2] = {{"secure", "tiny.ini", 3}, {"plain", "plain.ini", 2}};

void make_profile_task(const char *state, const fleet_profile *profile)
{
    must_do("$K init --state %s --plan %s --model $M --quiet", state, profile->plan);
}

const char *member(const char *task, int i)
{
    static char name[64];
    (void)snprintf(name, sizeof(name), "%s-device-%d", task, i);
    return name;
}

void enroll_members(const char *task, const char *coordinator, const fleet_profile *profile, int port)
{
    for (int i = 0; i < profile->n_members; i++)
        enroll(member(task, i), coordinator, port);
}

void start_members(const char *task, const fleet_profile *profile, const char *more, pid_t *ret_pids)
{
    for (int i = 0; i < profile->n_members; i++)
        ret_pids[i] = start_seeded(member(task, i), 100 + (unsigned)i, more);
}

void stop_members(const fleet_profile *profile, const pid_t *pids)
{
    for (int i = 0; i < profile->n_members; i++)
        assert_int_equal(end(pids[i], SIGTERM), 0);
}

void finish_rounds(const char *task, const char *coordinator, const fleet_profile *profile, int n_rounds,
                   int n_accepted)
{
    pid_t pids[MEMBERS_MAX];
    char more[32];
    (void)snprintf(more, sizeof(more), "--rounds %d", n_rounds);
    start_members(task, profile, more, pids);
    for (int i = 0; i < profile->n_members; i++)
        assert_int_equal(end(pids[i], 0), 0);
    const outcome *o = run("$K rounds --state %s --json", coordinator);
    assert_non_null(strstr(o->out, "\"state\":\"closed\""));
    for (const char *at = o->out; (at = strstr(at, "\"state\":\"closed\"")) != NULL; at++)
        assert_int_equal(atoi(strstr(at, "\"accepted\":") + 11), profile->n_members);
    for (int i = 0; i < profile->n_members; i++)
        assert_int_equal(number_of("accepted", "$C status --state %s --json", member(task, i)), n_accepted);
    assert_int_equal(number_of("flaws", "$K audit --state %s --json", coordinator), 0);
}

const char *calm_adapter(const fleet_profile *profile)
{
    static char adapters[ARRAY_LEN(profiles)][65];
    char task[32], *adapter = adapters[profile - profiles];
    if (adapter[0])
        return adapter;
    (void)snprintf(task, sizeof(task), "calm-%s", profile->name);
    make_profile_task(task, profile);
    server s = serve(task, 0, "");
    enroll_members(task, task, profile, s.port);
    finish_rounds(task, task, profile, 1, 1);
    (void)snprintf(adapter, sizeof(adapters[0]), "%s",
                   text_of("adapter_hash", "$K status --state %s --json", task));
    stop(&s, SIGTERM);
    return adapter;
}

/* ---- raw HTTP ---- */

int dial(int port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0)
        fail_msg("cannot connect to port %d: %s", port, strerror(errno));
    return fd;
}

static int first_status(int port, const void *bytes, size_t n_bytes, int64_t patience_ms)
{
    char answer[64] = "";
    size_t n = 0;
    int fd = dial(port), status = -1;
    const uint8_t *at = bytes;
    while (n_bytes > 0) {
        ssize_t sent = send(fd, at, n_bytes, MSG_NOSIGNAL);
        if (sent <= 0)
            break; /* refused before the end: the answer says so */
        at += sent;
        n_bytes -= (size_t)sent;
    }
    for (int64_t until = now_ms() + patience_ms; n < 12 && now_ms() < until;) {
        struct pollfd waiting = {.fd = fd, .events = POLLIN};
        if (poll(&waiting, 1, 100) <= 0)
            continue;
        ssize_t got = recv(fd, answer + n, sizeof(answer) - 1 - n, 0);
        if (got <= 0) {
            status = 0;
            break;
        }
        n += (size_t)got;
    }
    (void)close(fd);
    return n >= 12 && strncmp(answer, "HTTP/1.1 ", 9) == 0 ? atoi(answer + 9) : status;
}

int http_status(int port, const void *bytes, size_t n_bytes)
{
    return first_status(port, bytes, n_bytes, DEADLINE_MS);
}

int http_probe(int port, const void *bytes, size_t n_bytes)
{
    return first_status(port, bytes, n_bytes, 5000);
}

int http_post(int port, const char *path, const void *body, size_t n_body)
{
    linnet_buffer request = {0};
    char head[256];
    (void)snprintf(head, sizeof(head),
                   "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n", path,
                   n_body);
    linnet_buffer_append_text(&request, head);
    linnet_buffer_append(&request, body, n_body);
    assert_false(request.failed);
    int status = http_status(port, request.bytes, request.n_bytes);
    linnet_buffer_release(&request);
    return status;
}
