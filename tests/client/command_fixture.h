/* SPDX-License-Identifier: Apache-2.0 */
#ifndef COMMAND_FIXTURE_H
#define COMMAND_FIXTURE_H

/* What tests of the built linnet-client share: running a shell line and reading what it said. In a line, $M
 * is the folder of shared models, $T a scratch folder. */

#include "client/client_fixture.h"

#include <jansson.h>
#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef LINNET_EMULATOR
#define LINNET_EMULATOR ""
#endif
#define PROGRAM LINNET_EMULATOR " " LINNET_BIN "/linnet-client "

static char scratch[] = "/tmp/linnet-test-commands-XXXXXX";

static inline int set_up(void **state)
{
    (void)state;
    const char *shared = getenv("LINNET_SHARED");
    char models[512];
    if (!mkdtemp(scratch) || setenv("T", scratch, 1) != 0)
        return -1;
    (void)snprintf(models, sizeof(models), "%s/models", shared ? shared : "/nonexistent");
    return setenv("M", models, 1);
}

static inline int tear_down(void **state)
{
    (void)state;
    return system("rm -rf \"$T\"");
}

static inline void need_models(void)
{
    char path[512];
    (void)shared_path("models/README.md", path);
}

/* ---- running a command ---- */

typedef struct outcome {
    int status;             /* exit status */
    linnet_buffer out, err; /* zero terminated */
} outcome;

static inline linnet_buffer take_file(const char *name)
{
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/%s", scratch, name);
    linnet_buffer text = read_file(path);
    linnet_buffer_append_u8(&text, 0);
    assert_false(text.failed);
    return text;
}

static inline outcome run(const char *arguments)
{
    char line[4096];
    outcome o;
    int n = snprintf(line, sizeof(line), PROGRAM "%s >$T/out 2>$T/err </dev/null", arguments);
    assert_true(n > 0 && (size_t)n < sizeof(line));
    int status = system(line);
    assert_true(WIFEXITED(status));
    o.status = WEXITSTATUS(status);
    o.out = take_file("out");
    o.err = take_file("err");
    return o;
}

static inline void release(outcome *o)
{
    linnet_buffer_release(&o->out);
    linnet_buffer_release(&o->err);
}

static inline size_t n_lines(const linnet_buffer *text)
{
    size_t n = 0;
    for (size_t i = 0; i < text->n_bytes; i++)
        n += text->bytes[i] == '\n';
    return n;
}

/* The last line of stdout as JSON, which is a result; owned by the caller. The command must succeed, silently
 * on stderr. */
static inline json_t *result_of(const char *arguments)
{
    outcome o = run(arguments);
    if (o.status != 0 || o.err.n_bytes != 1)
        fail_msg("%s: exit status %d, '%s'", arguments, o.status, (const char *)o.err.bytes);
    const char *text = (const char *)o.out.bytes, *last = text;
    for (const char *at = text; (at = strchr(at, '\n')) != NULL && at[1]; at++)
        last = at + 1;
    json_t *json = json_loads(last, 0, NULL);
    const char *event = json_string_value(json_object_get(json, "event"));
    if (!event || strcmp(event, "result") != 0)
        fail_msg("%s: no result in '%s'", arguments, last);
    release(&o);
    return json;
}

static inline double number(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    if (!json_is_number(value))
        fail_msg("no number '%s'", name);
    return json_number_value(value);
}

static inline double result_number(const char *arguments, const char *name)
{
    json_t *result = result_of(arguments);
    double value = number(result, name);
    json_decref(result);
    return value;
}

static inline void shell(const char *line)
{
    if (system(line) != 0)
        fail_msg("'%s' failed", line);
}

#endif
