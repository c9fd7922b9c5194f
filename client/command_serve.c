/* SPDX-License-Identifier: Apache-2.0 */
/* serve: the model behind the OpenAI API on this machine. This thread looks every second whether the
 * federated agent has installed another adapter, until a signal ends it; requests have threads of their own.
 */
#include "commands.h"

#include "linnet/file.h"
#include "serve/local_host.h"
#include "serve/service.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define LOOK_SECONDS 1
#define CONTEXT_USUAL 4096
#define KEY_FILE_BYTES_MAX 4096

typedef struct server {
    const linnet_cli *cli;
    const char *model_path, *state, *key_path, *upstream_key_path;
    uint64_t n_parallel, n_queue, context, n_tokens;
    linnet_texts adapters, rules;
    serve_options options;

    client_model model;
    linnet_adapter_slot slot;
    bool has_slot;
    char *own_name;                  /* owned; where --name says none */
    linnet_buffer key, upstream_key; /* owned, with a zero at the end */
    linnet_buffer mark;              /* of the state's adapter that is in use; empty: none */
    serve *serve;
} server;

/* ---- what is told ---- */

static void on_record(void *context, const serve_record *r)
{
    const linnet_cli *cli = context;
    linnet_buffer what = {0};
    json_t *object = client_event("request");
    client_put_text(object, "method", r->method, strlen(r->method));
    client_put_text(object, "path", r->path, strlen(r->path));
    client_put_count(object, "status", (uint64_t)r->status);
    client_put_count(object, "prompt_tokens", r->usage.n_prompt_tokens);
    client_put_count(object, "tokens", r->usage.n_tokens);
    client_put_number(object, "seconds", r->seconds);
    (void)json_object_set_new(object, "upstream", json_boolean(r->is_upstream)); /* a missing field is seen */
    linnet_cli_emit(cli, object);
    client_append_line(&what, r->method, strlen(r->method)); /* a client's: no commands to the terminal */
    linnet_buffer_append_u8(&what, ' ');
    client_append_line(&what, r->path, strlen(r->path));
    linnet_cli_say(cli, "%.*s %d, %llu + %llu tokens, %.2f s%s\n", (int)what.n_bytes,
                   what.bytes ? (const char *)what.bytes : "", r->status,
                   (unsigned long long)r->usage.n_prompt_tokens, (unsigned long long)r->usage.n_tokens,
                   r->seconds, r->is_upstream ? ", upstream" : "");
    (void)fflush(cli->out);
    linnet_buffer_release(&what);
}

static void tell_adapter(const server *s, const char *what)
{
    linnet_shared_adapter *now = linnet_adapter_slot_take((linnet_adapter_slot *)(uintptr_t)&s->slot);
    linnet_hash hash = linnet_shared_adapter_hash(now);
    json_t *object = client_event("adapter");
    (void)json_object_set_new(object, "adapter_hash",
                              now ? linnet_json_hex(hash.bytes, sizeof(hash.bytes)) : json_null());
    linnet_cli_emit(s->cli, object);
    linnet_cli_say(s->cli, "%s\n", what);
    (void)fflush(s->cli->out);
    linnet_shared_adapter_release(now);
}

static void tell_start(const server *s)
{
    char address[272], url[300];
    const char *colon = strrchr(s->options.listen, ':');
    (void)snprintf(address, sizeof(address), "%.*s:%u", (int)(colon - s->options.listen), s->options.listen,
                   serve_port(s->serve));
    (void)snprintf(url, sizeof(url), "http://%s/v1", address);
    json_t *object = client_event("listening");
    client_put_text(object, "address", address, strlen(address));
    client_put_text(object, "url", url, strlen(url));
    client_put_text(object, "model", s->options.name, strlen(s->options.name));
    linnet_cli_emit(s->cli, object);
    linnet_cli_say(s->cli, "Serving '%s' at %s, %u answers at a time, contexts of %u tokens.\n",
                   s->options.name, url, (unsigned)s->options.n_parallel, (unsigned)s->options.context);
    if (s->options.upstream.url)
        linnet_cli_say(s->cli, "What the rules hand on goes to %s: those prompts leave this device.\n",
                       s->options.upstream.url);
    (void)fflush(s->cli->out);
}

/* ---- the adapter that the agent has installed ---- */

/* The mark that says which one lies there; NOT_FOUND where none does. */
static linnet_status read_mark(const char *directory, linnet_buffer *ret_mark, linnet_error *err)
{
    char *path = linnet_path_join(directory, "HASH");
    linnet_status status = path ? linnet_file_read(path, 2 * LINNET_HASH_BYTES + 1, ret_mark, err)
                                : linnet_fail(err, LINNET_ERR_NOMEM, "path");
    free(path);
    return status;
}

static bool is_same(const linnet_buffer *a, const linnet_buffer *b)
{
    return a->n_bytes == b->n_bytes && (a->n_bytes == 0 || memcmp(a->bytes, b->bytes, a->n_bytes) == 0);
}

/* Load what lies there, unless it is exchanged meanwhile: then the next look has it. */
static linnet_status load_installed(server *s, const char *directory, linnet_buffer *mark, linnet_error *err)
{
    static const float scale = 1;
    linnet_adapter *adapter = NULL;
    linnet_buffer after = {0};
    linnet_status status = linnet_adapters_load(s->model.model, &directory, &scale, 1, &adapter, err);
    if (status == LINNET_OK)
        status = read_mark(directory, &after, err);
    if (status == LINNET_OK && is_same(mark, &after)) {
        status = linnet_adapter_slot_put(&s->slot, adapter, err);
        adapter = NULL;
        linnet_buffer_release(&s->mark);
        s->mark = *mark;
        *mark = (linnet_buffer){0};
        if (status == LINNET_OK)
            tell_adapter(s, "The adapter that the federated agent has installed is in use.");
    }
    linnet_adapter_destroy(adapter);
    linnet_buffer_release(&after);
    return status;
}

/* The state was erased, and so its adapter is. */
static linnet_status forget_installed(server *s, linnet_error *err)
{
    char *store = linnet_path_join(s->state, "device.mdb");
    bool is_gone = store && access(store, F_OK) != 0 && errno == ENOENT;
    free(store);
    if (!is_gone || s->mark.n_bytes == 0)
        return LINNET_OK;
    linnet_buffer_release(&s->mark);
    linnet_status status = linnet_adapter_slot_put(&s->slot, NULL, err);
    tell_adapter(s, "The device's state was erased: the model goes on without its adapter.");
    return status;
}

static linnet_status look_for_installed(server *s, linnet_error *err)
{
    linnet_buffer mark = {0};
    linnet_error why = {0};
    char *directory = linnet_path_join(s->state, "adapter/current");
    if (!directory)
        return linnet_fail(err, LINNET_ERR_NOMEM, "path");
    linnet_status status = read_mark(directory, &mark, &why);
    if (status == LINNET_ERR_NOT_FOUND) /* none yet, or it is being exchanged */
        status = forget_installed(s, err);
    else if (status == LINNET_OK && !is_same(&mark, &s->mark))
        status = load_installed(s, directory, &mark, err);
    else if (status != LINNET_OK)
        (void)linnet_fail(err, status, "%s", why.message);
    linnet_buffer_release(&mark);
    free(directory);
    return status;
}

/* ---- until a signal ---- */

/* A failure to load another adapter is told once for each text, and the one in use stays. */
static void keep_looking(server *s, const sigset_t *signals)
{
    const struct timespec pause = {.tv_sec = LOOK_SECONDS};
    linnet_error last = {0};
    for (;;) {
        linnet_error err = {0};
        if (sigtimedwait(signals, NULL, &pause) > 0)
            return;
        if (!s->state || look_for_installed(s, &err) == LINNET_OK || strcmp(err.message, last.message) == 0)
            continue;
        fprintf(s->cli->log, "%s %s: %s; the adapter in use stays\n", s->cli->program, s->cli->command,
                err.message);
        last = err;
    }
}

/* ---- opening ---- */

static linnet_status read_key(const char *path, linnet_buffer *key, const char **ret_key, linnet_error *err)
{
    linnet_status status = linnet_file_read(path, KEY_FILE_BYTES_MAX, key, err);
    if (status != LINNET_OK)
        return status;
    while (key->n_bytes > 0 && key->bytes[key->n_bytes - 1] <= ' ')
        key->n_bytes--;
    linnet_buffer_append_u8(key, 0);
    if (key->failed)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a key");
    for (size_t i = 0; i + 1 < key->n_bytes; i++)
        if (key->bytes[i] <= ' ' || key->bytes[i] > '~')
            return linnet_fail(err, LINNET_ERR_FORMAT, "'%s': a key is one line without spaces", path);
    if (key->n_bytes == 1)
        return linnet_fail(err, LINNET_ERR_FORMAT, "'%s': there is no key in it", path);
    *ret_key = (const char *)key->bytes;
    return LINNET_OK;
}

/* The file's name without its end, as far as it is text. */
static linnet_status name_model(server *s, linnet_error *err)
{
    linnet_buffer name = {0};
    char *file = linnet_path_name(s->model_path);
    size_t n = file ? strlen(file) : 0;
    if (n > 5 && strcmp(file + n - 5, ".gguf") == 0)
        n -= 5;
    (void)linnet_utf8_repair(file, n, true, &name);
    linnet_buffer_append_u8(&name, 0);
    free(file);
    if (!file || name.failed) {
        linnet_buffer_release(&name);
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a name");
    }
    s->own_name = (char *)name.bytes;
    s->options.name = s->own_name;
    return LINNET_OK;
}

static linnet_status check_address(const server *s, linnet_error *err)
{
    if (s->key_path || is_local_host(s->options.listen))
        return LINNET_OK;
    return linnet_fail(
        err, LINNET_ERR_ARG,
        "--listen %s: others could reach the model there; give --api-key FILE, or an address of "
        "this machine such as 127.0.0.1:8441",
        s->options.listen);
}

static linnet_status set_upstream(server *s, linnet_error *err)
{
    upstream *u = &s->options.upstream;
    linnet_status status = LINNET_OK;
    if (!u->url)
        return s->rules.n_items == 0 && !s->upstream_key_path && !u->model
                   ? LINNET_OK
                   : linnet_fail(err, LINNET_ERR_ARG,
                                 "--upstream URL is missing: where to hand requests on to");
    if (s->rules.n_items == 0)
        return linnet_fail(err, LINNET_ERR_ARG, "--hand-on RULE is missing: which requests go to --upstream");
    for (size_t i = 0; i < s->rules.n_items && status == LINNET_OK; i++)
        status = upstream_rule_add(&u->rules, s->rules.items[i], err);
    if (status == LINNET_OK)
        status = upstream_check(u, err);
    if (status == LINNET_OK && s->upstream_key_path)
        status = read_key(s->upstream_key_path, &s->upstream_key, &u->key, err);
    return status;
}

/* A model that writes no text is refused before anybody asks it for one. */
static linnet_status check_model(const server *s, linnet_error *err)
{
    linnet_session *session = NULL;
    linnet_status status = linnet_session_create(s->model.model, s->model.pool, 1, &session, err);
    linnet_session_destroy(session);
    return status;
}

static linnet_status open_server(server *s, linnet_error *err)
{
    linnet_status status = check_address(s, err);
    if (status == LINNET_OK)
        status = set_upstream(s, err);
    if (status == LINNET_OK && s->key_path)
        status = read_key(s->key_path, &s->key, &s->options.api_key, err);
    if (status == LINNET_OK && !s->options.name)
        status = name_model(s, err);
    if (status == LINNET_OK)
        status = linnet_adapter_slot_init(&s->slot, err);
    s->has_slot = status == LINNET_OK;
    if (status == LINNET_OK)
        status = client_model_open(s->cli, s->model_path, &s->adapters, &s->model, err);
    if (status == LINNET_OK)
        status = check_model(s, err);
    if (status == LINNET_OK)
        status = client_context(&s->model, s->context, CONTEXT_USUAL, &s->options.context, err);
    if (status == LINNET_OK && s->model.adapter) {
        status = linnet_adapter_slot_put(&s->slot, s->model.adapter, err);
        s->model.adapter = NULL;
    }
    if (status == LINNET_OK && s->state)
        status = look_for_installed(s, err);
    if (status != LINNET_OK)
        return status;
    s->options.n_parallel = (uint32_t)s->n_parallel;
    s->options.n_queue_max = (uint32_t)s->n_queue;
    s->options.n_tokens = (uint32_t)s->n_tokens;
    s->options.log = on_record;
    s->options.log_context = (void *)(uintptr_t)s->cli;
    return serve_start(&s->options, &s->model, &s->slot, &s->serve, err);
}

static void close_server(server *s)
{
    serve_stop(s->serve);
    if (s->has_slot)
        linnet_adapter_slot_release(&s->slot);
    client_model_close(&s->model);
    if (s->key.bytes)
        linnet_wipe(s->key.bytes, s->key.capacity);
    if (s->upstream_key.bytes)
        linnet_wipe(s->upstream_key.bytes, s->upstream_key.capacity);
    linnet_buffer_release(&s->key);
    linnet_buffer_release(&s->upstream_key);
    linnet_buffer_release(&s->mark);
    free(s->own_name);
}

static int run_server(server *s)
{
    linnet_error err = {0};
    sigset_t signals;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)pthread_sigmask(SIG_BLOCK, &signals, NULL); /* before any thread, which all inherit it */
    (void)signal(SIGPIPE, SIG_IGN);
    linnet_status status = open_server(s, &err);
    if (status == LINNET_OK) {
        tell_start(s);
        keep_looking(s, &signals);
    }
    close_server(s);
    if (status != LINNET_OK)
        return linnet_cli_fail(s->cli, &err);
    json_t *result = client_event("result");
    client_put_text(result, "stopped", "by signal", 9);
    linnet_cli_emit(s->cli, result);
    return 0;
}

static int command_serve(linnet_cli *cli, int argc, char **argv)
{
    server s = {.cli = cli, .n_parallel = 4, .n_queue = 64, .n_tokens = 512};
    s.options.listen = "127.0.0.1:8441";
    linnet_option options[] = {
        CLIENT_REQUIRED("model", &s.model_path, "FILE", "GGUF model, or a checkpoint's folder"),
        CLIENT_ADAPTERS(&s.adapters),
        CLIENT_TEXT("state", &s.state, "DIR",
                    "serve with the adapter that 'run' has installed here, and with each newer one"),
        CLIENT_TEXT("listen", &s.options.listen, "HOST:PORT",
                    "address to listen on; port 0 takes a free one"),
        CLIENT_TEXT("name", &s.options.name, "NAME", "of the model, for clients; absent: the file's name"),
        CLIENT_TEXT("api-key", &s.key_path, "FILE",
                    "holds the key that requests must have; needed beyond this machine's own addresses"),
        CLIENT_COUNT("context", &s.context, 0, 1e9,
                     "tokens of prompt and answer at most; 0: the model's, or 4096 where that is less"),
        CLIENT_COUNT("tokens", &s.n_tokens, 1, 1e9, "tokens of an answer where the request does not say"),
        CLIENT_COUNT("parallel", &s.n_parallel, 1, 64, "answers that grow at a time"),
        CLIENT_COUNT("queue", &s.n_queue, 1, 4096, "requests that may wait; more are told to try again"),
        CLIENT_TEXT(
            "upstream", &s.options.upstream.url, "URL",
            "another server of this API (https://HOST/v1) for what --hand-on names; prompts leave the "
            "device"),
        CLIENT_TEXT("upstream-key", &s.upstream_key_path, "FILE", "holds the key for --upstream"),
        CLIENT_TEXT("upstream-model", &s.options.upstream.model, "NAME",
                    "the model to ask for there; absent: the one that the request names"),
        CLIENT_TEXTS(
            "hand-on", &s.rules, "RULE",
            "model:NAME, too-long, unsupported, prompt-tokens:N, or confidence:P (the first 16 tokens "
            "have a mean probability below P)"),
    };
    int result = linnet_cli_parse(cli, &client_command_serve, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (result >= 0)
        return result;
    if (s.state && s.adapters.n_items > 0)
        return linnet_cli_usage(cli, "one of --state and --adapter is wanted: where the adapter comes from");
    return run_server(&s);
}

const linnet_command client_command_serve = {
    "serve", NULL, "Answer the OpenAI API for chat and text completions on this machine.", command_serve};
