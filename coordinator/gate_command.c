/* SPDX-License-Identifier: Apache-2.0 */
/* The operator's command as a gate: one child in a process group of its own, no shell, an empty standard
 * input, its standard output into a pipe that is read to its end or to the timeout. The engine thus stays in
 * another process: what evaluates a model is none of the coordinator's libraries, and a crash or a hang there
 * costs a round, not the service. */
#include "gate_command.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OUTPUT_BYTES_MAX ((size_t)1 << 20) /* a loss fits one line; a progress report does too */
#define EXIT_LOOK_MS 20                    /* between looks at a child that closed its output and goes on */

extern char **environ;

/* ---- the words ---- */

linnet_status linnet_gate_command_init(const char *text, linnet_gate_command *command, linnet_error *err)
{
    char *save = NULL;
    linnet_gate_command made = {.stop_fd = -1, .timeout_ms = LINNET_GATE_TIMEOUT_S * 1000};
    made.text = strdup(text);
    if (!made.text)
        return linnet_fail(err, LINNET_ERR_NOMEM, "gate command");
    bool has_place = false;
    for (char *word = strtok_r(made.text, " \t\n", &save); word; word = strtok_r(NULL, " \t\n", &save)) {
        bool is_place = strcmp(word, "{}") == 0 && !has_place;
        if (made.n_arguments == LINNET_GATE_ARGUMENTS_MAX) {
            free(made.text);
            return linnet_fail(err, LINNET_ERR_ARG, "the gate command has more than %d words",
                               LINNET_GATE_ARGUMENTS_MAX);
        }
        if (is_place)
            made.path_at = made.n_arguments;
        has_place = has_place || is_place;
        made.arguments[made.n_arguments++] = is_place ? NULL : word;
    }
    if (!has_place)
        made.path_at = made.n_arguments++;
    if (made.path_at == 0) {
        free(made.text);
        return linnet_fail(err, LINNET_ERR_ARG, "the gate command names no program");
    }
    *command = made;
    return LINNET_OK;
}

void linnet_gate_command_release(linnet_gate_command *command)
{
    free(command->text);
    *command = (linnet_gate_command){0};
}

/* ---- the child ---- */

static int64_t clock_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Signals as a new program expects them: the service has blocked and ignored some. */
static int attributes_set(posix_spawnattr_t *attributes)
{
    sigset_t none, defaults;
    (void)sigemptyset(&none);
    (void)sigemptyset(&defaults);
    (void)sigaddset(&defaults, SIGPIPE);
    (void)sigaddset(&defaults, SIGXFSZ);
    int error = posix_spawnattr_setsigmask(attributes, &none);
    if (error == 0)
        error = posix_spawnattr_setsigdefault(attributes, &defaults);
    if (error == 0)
        error = posix_spawnattr_setpgroup(attributes, 0);
    return error ? error
                 : posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                                            POSIX_SPAWN_SETPGROUP);
}

static int spawn(linnet_gate_command *command, int output, pid_t *ret_child)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int error = posix_spawn_file_actions_init(&actions);
    if (error != 0)
        return error;
    error = posix_spawnattr_init(&attributes);
    if (error != 0) {
        (void)posix_spawn_file_actions_destroy(&actions);
        return error;
    }
    error = attributes_set(&attributes);
    if (error == 0)
        error = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (error == 0)
        error = posix_spawn_file_actions_adddup2(&actions, output, 1);
    if (error == 0)
        error = posix_spawnp(ret_child, command->arguments[0], &actions, &attributes, command->arguments,
                             environ);
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&actions);
    return error;
}

/* A pipe whose ends no other child inherits. */
static linnet_status pipe_open(int fds[2], linnet_error *err)
{
    if (pipe(fds) != 0)
        return linnet_fail(err, LINNET_ERR_BUSY, "no file descriptors left for the gate");
    for (int i = 0; i < 2; i++)
        (void)fcntl(fds[i], F_SETFD, FD_CLOEXEC); /* an open descriptor takes the flag */
    return LINNET_OK;
}

/* Wait for the descriptor or the time; BUSY where the service is asked to stop. */
static linnet_status wait_for(const linnet_gate_command *command, int fd, int wait_ms, linnet_error *err)
{
    struct pollfd fds[] = {{.fd = fd, .events = POLLIN}, {.fd = command->stop_fd, .events = POLLIN}};
    (void)poll(fds, 2, wait_ms); /* interrupted: the caller looks at the clock and comes again */
    return fds[1].revents & POLLIN
               ? linnet_fail(err, LINNET_ERR_BUSY, "the gate was left, the service is ending")
               : LINNET_OK;
}

static linnet_status too_long(const linnet_gate_command *command, linnet_error *err)
{
    return linnet_fail(err, LINNET_ERR_ARG, "'%s' took longer than %d s", command->arguments[0],
                       command->timeout_ms / 1000);
}

/* Everything that it prints; of more than fits, that much is left out and said. */
static linnet_status read_output(const linnet_gate_command *command, int fd, int64_t end_ms,
                                 linnet_buffer *output, linnet_error *err)
{
    for (;;) {
        int64_t left = end_ms - clock_ms();
        if (left <= 0)
            return too_long(command, err);
        linnet_status status = wait_for(command, fd, (int)left, err);
        if (status != LINNET_OK)
            return status;
        if (!linnet_buffer_reserve(output, 4096))
            return linnet_fail(err, LINNET_ERR_NOMEM, "output of the gate");
        ssize_t n = read(fd, output->bytes + output->n_bytes, 4096);
        if (n == 0)
            return LINNET_OK;
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return linnet_fail(err, LINNET_ERR_ARG, "cannot read what '%s' prints", command->arguments[0]);
        output->n_bytes += n > 0 ? (size_t)n : 0;
        if (output->n_bytes > OUTPUT_BYTES_MAX)
            return linnet_fail(err, LINNET_ERR_ARG, "'%s' prints more than %zu bytes", command->arguments[0],
                               OUTPUT_BYTES_MAX);
    }
}

/* Its end, in time. */
static linnet_status wait_exit(const linnet_gate_command *command, pid_t child, int64_t end_ms, bool *is_over,
                               linnet_error *err)
{
    int how = 0;
    pid_t got = waitpid(child, &how, WNOHANG);
    while (got == 0) {
        if (clock_ms() >= end_ms)
            return too_long(command, err);
        linnet_status status = wait_for(command, -1, EXIT_LOOK_MS, err);
        if (status != LINNET_OK)
            return status;
        got = waitpid(child, &how, WNOHANG);
    }
    *is_over = true;
    if (got == child && WIFEXITED(how) && WEXITSTATUS(how) == 0)
        return LINNET_OK;
    return linnet_fail(err, LINNET_ERR_ARG, "'%s' failed with %s %d", command->arguments[0],
                       WIFSIGNALED(how) ? "signal" : "status",
                       WIFSIGNALED(how) ? WTERMSIG(how) : WEXITSTATUS(how));
}

/* Run it to its end; whatever happens, nothing of it goes on afterwards. */
static linnet_status run(linnet_gate_command *command, linnet_buffer *output, linnet_error *err)
{
    int fds[2];
    pid_t child = -1;
    bool is_over = false;
    int64_t end_ms = clock_ms() + command->timeout_ms;
    linnet_status status = pipe_open(fds, err);
    if (status != LINNET_OK)
        return status;
    int error = spawn(command, fds[1], &child);
    (void)close(fds[1]);
    if (error != 0) {
        (void)close(fds[0]);
        return linnet_fail(err, LINNET_ERR_ARG, "cannot run '%s': %s", command->arguments[0],
                           strerror(error));
    }
    (void)fcntl(fds[0], F_SETFL, O_NONBLOCK);
    status = read_output(command, fds[0], end_ms, output, err);
    if (status == LINNET_OK)
        status = wait_exit(command, child, end_ms, &is_over, err);
    (void)close(fds[0]);
    if (!is_over) {
        (void)kill(-child, SIGKILL);
        (void)waitpid(child, NULL, 0);
    }
    return status;
}

/* ---- its answer ---- */

/* The loss in this line; false where it is no object with one. */
static bool line_loss(const char *line, size_t n, double *ret_loss)
{
    json_t *object = json_loadb(line, n, 0, NULL);
    const json_t *loss = json_object_get(object, "loss");
    bool is_there = json_is_number(loss) || json_is_null(loss);
    if (is_there)
        *ret_loss = json_is_number(loss) ? json_number_value(loss) : NAN;
    json_decref(object);
    return is_there;
}

static linnet_status output_loss(const linnet_gate_command *command, const linnet_buffer *output,
                                 double *ret_loss, linnet_error *err)
{
    const char *text = (const char *)output->bytes;
    bool is_found = false;
    for (size_t at = 0; at < output->n_bytes;) {
        const char *end = memchr(text + at, '\n', output->n_bytes - at);
        size_t n = end ? (size_t)(end - (text + at)) : output->n_bytes - at;
        is_found = line_loss(text + at, n, ret_loss) || is_found;
        at += n + 1;
    }
    return is_found ? LINNET_OK
                    : linnet_fail(err, LINNET_ERR_ARG, "'%s' printed no JSON object with a \"loss\"",
                                  command->arguments[0]);
}

linnet_status linnet_gate_command_ask(void *context, const linnet_adapter *adapter, double *ret_loss,
                                      linnet_error *err)
{
    linnet_gate_command *command = context;
    linnet_buffer output = {0};
    linnet_status status =
        linnet_adapter_save_gguf(adapter, command->architecture, command->adapter_path, err);
    if (status != LINNET_OK)
        return status;
    command->arguments[command->path_at] = command->adapter_path;
    status = run(command, &output, err);
    if (status == LINNET_OK)
        status = output_loss(command, &output, ret_loss, err);
    (void)unlink(command->adapter_path); /* the next one replaces it anyway */
    linnet_buffer_release(&output);
    return status;
}
