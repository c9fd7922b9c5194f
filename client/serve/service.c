/* SPDX-License-Identifier: Apache-2.0 */
/* Routes, and what is checked before a request may wait: who asks, what for, and whether the prompt fits.
 * What is wrong is said at once, with a status and an error object, before any answer begins. */
#include "local_host.h"
#include "serve_state.h"

#include <stdlib.h>
#include <strings.h>
#include <time.h>

#define HTTP_THREADS 2       /* parse and tokenise; answers have threads of their own */
#define CONNECTIONS_SPARE 32 /* beside those that are answered or wait: for what is answered at once */
#define IDLE_SECONDS 30      /* a client that neither reads nor writes is not waited for longer */
#define BODY_MAX ((size_t)1 << 20)
#define BODY_DROPPED_MAX ((size_t)64 << 20)
#define HANDED_ON_THREADS 4
#define RETRY_S 1
#define STOP_SECONDS 5

double serve_seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- the ends of a request ---- */

static void log_record(serve *s, const serve_record *record)
{
    if (!s->options.log)
        return;
    (void)pthread_mutex_lock(&s->log_lock);
    s->options.log(s->options.log_context, record);
    (void)pthread_mutex_unlock(&s->log_lock);
}

static void job_free(serve_job *job)
{
    for (size_t i = 0; job->prompts && i < job->request.n_prompts; i++)
        linnet_ids_release(&job->prompts[i]);
    free(job->prompts);
    openai_request_release(&job->request);
    free(job);
}

static const char *path_of(bool is_chat)
{
    return is_chat ? "/v1/chat/completions" : "/v1/completions";
}

void serve_job_done(serve *s, serve_job *job, int status, bool is_upstream, const openai_usage *usage)
{
    const serve_record record = {.method = "POST",
                                 .path = path_of(job->request.is_chat),
                                 .status = status,
                                 .is_upstream = is_upstream,
                                 .usage = usage ? *usage : (openai_usage){0},
                                 .seconds = serve_seconds() - job->started_s};
    log_record(s, &record);
    job_free(job);
}

static void write_refusal(linnet_http_response *response, int status, const openai_fault *fault,
                          const char *message)
{
    response->status = status;
    response->content_type = "application/json";
    response->retry_after_s = status == 503 ? RETRY_S : 0;
    openai_write_error(&response->body, status, fault, message);
}

void serve_job_fail(serve *s, serve_job *job, int status, const openai_fault *fault, const char *message)
{
    linnet_http_response response = {0};
    write_refusal(&response, status, fault, message);
    linnet_http_reply_send(job->reply, &response);
    job->reply = NULL;
    serve_job_done(s, job, status, false, NULL);
}

/* ---- who may ask ---- */

/* In a time that does not tell how much of the key is right. */
static bool has_key(const char *key, const char *authorization)
{
    if (!authorization || strncasecmp(authorization, "Bearer ", 7) != 0)
        return false;
    linnet_hash given = linnet_hash_of(LINNET_LABEL_TOKEN, authorization + 7, strlen(authorization + 7));
    linnet_hash wanted = linnet_hash_of(LINNET_LABEL_TOKEN, key, strlen(key));
    return linnet_hash_equal(&given, &wanted);
}

static bool is_json(const char *content_type)
{
    static const char json[] = "application/json";
    size_t n = sizeof(json) - 1;
    return content_type && strncasecmp(content_type, json, n) == 0 &&
           (content_type[n] == '\0' || content_type[n] == ';' || content_type[n] == ' ');
}

/* ---- prompts ---- */

static linnet_status encode_prompt(const serve *s, const openai_prompt *asked, linnet_ids *ids,
                                   openai_fault *fault, linnet_error *err)
{
    uint32_t vocabulary = linnet_model_shape_of(s->runtime->model)->vocabulary;
    fault->status = 400;
    (void)snprintf(fault->param, sizeof(fault->param), "prompt");
    if (asked->text)
        return linnet_tokenize(s->runtime->tokenizer, asked->text, strlen(asked->text),
                               LINNET_TOKENIZE_BEGIN | LINNET_TOKENIZE_PREFIX, ids, err);
    for (size_t i = 0; i < asked->ids.n_items; i++) {
        if ((uint32_t)asked->ids.items[i] >= vocabulary)
            return linnet_fail(err, LINNET_ERR_RANGE, "'prompt' has the token %d, the model has %u",
                               (int)asked->ids.items[i], (unsigned)vocabulary);
        if (linnet_ids_append(ids, asked->ids.items[i]) != LINNET_OK)
            return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the prompt");
    }
    return LINNET_OK;
}

static linnet_status encode(const serve *s, serve_job *job, openai_fault *fault, linnet_error *err)
{
    openai_request *request = &job->request;
    job->end_of_turn = -1;
    job->prompts = calloc(request->n_prompts, sizeof(*job->prompts));
    if (!job->prompts)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the prompt");
    fault->status = 400;
    (void)snprintf(fault->param, sizeof(fault->param), "messages");
    if (request->is_chat)
        return linnet_chat_encode(request->messages, request->n_messages, s->runtime->tokenizer,
                                  &job->prompts[0], &job->end_of_turn, err);
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < request->n_prompts && status == LINNET_OK; i++)
        status = encode_prompt(s, &request->prompts[i], &job->prompts[i], fault, err);
    return status;
}

static linnet_status check_length(const serve *s, const serve_job *job, size_t *ret_longest,
                                  openai_fault *fault, linnet_error *err)
{
    size_t shortest = SIZE_MAX;
    *ret_longest = 0;
    for (size_t i = 0; i < job->request.n_prompts; i++) {
        size_t n = job->prompts[i].n_items;
        *ret_longest = n > *ret_longest ? n : *ret_longest;
        shortest = n < shortest ? n : shortest;
    }
    if (shortest == 0)
        return linnet_fail(err, LINNET_ERR_ARG, "'%s' has no token", fault->param);
    if (*ret_longest < s->options.context)
        return LINNET_OK;
    fault->code = "context_length_exceeded";
    return linnet_fail(err, LINNET_ERR_LIMIT,
                       "the prompt has %zu tokens; with its answer it may have %u: shorten it", *ret_longest,
                       (unsigned)s->options.context);
}

/* ---- requests that are answered in their turn ---- */

static int status_of(linnet_status status)
{
    return status == LINNET_ERR_NOMEM || status == LINNET_ERR_INTERNAL ? 500 : 400;
}

static void put(serve *s, job_queue *queue, serve_job *job)
{
    serve_job *gone = NULL;
    bool is_put = job_queue_put(queue, job, &gone);
    while (gone) {
        serve_job *next = gone->next;
        serve_job_fail(s, gone, 499, NULL, "the client has left");
        gone = next;
    }
    if (!is_put)
        serve_job_fail(s, job, 503, NULL,
                       atomic_load(&s->is_closing) ? "the server is stopping"
                                                   : "too many requests wait already: try again");
}

static void take_request(serve *s, serve_job *job, const linnet_http_request *http)
{
    openai_fault fault = {.status = 400};
    linnet_error err = {0};
    size_t longest = 0;
    const upstream *u = &s->options.upstream;
    linnet_status status =
        openai_request_parse(http->body, http->n_body, job->request.is_chat, &job->request, &fault, &err);
    if (status != LINNET_OK) {
        serve_job_fail(s, job, fault.status, &fault, err.message);
        return;
    }
    if (upstream_wants(u, &job->request, 0, false)) {
        put(s, &s->handed_on, job);
        return;
    }
    if (job->request.unsupported) {
        (void)snprintf(fault.param, sizeof(fault.param), "%s", job->request.unsupported);
        fault.code = "unsupported_parameter";
        (void)linnet_fail(&err, LINNET_ERR_UNSUPPORTED, "'%s' asks for what this server does not do",
                          job->request.unsupported);
        serve_job_fail(s, job, 400, &fault, err.message);
        return;
    }
    status = encode(s, job, &fault, &err);
    if (status == LINNET_OK)
        status = check_length(s, job, &longest, &fault, &err);
    if (status == LINNET_OK || status == LINNET_ERR_LIMIT) {
        if (upstream_wants(u, &job->request, longest, status == LINNET_ERR_LIMIT)) {
            put(s, &s->handed_on, job);
            return;
        }
    }
    if (status != LINNET_OK)
        serve_job_fail(s, job, status_of(status), &fault, err.message);
    else
        put(s, &s->local, job);
}

/* ---- requests that are answered at once ---- */

static void answer_at_once(serve *s, const linnet_http_request *http, linnet_http_reply *reply,
                           linnet_http_response *response)
{
    serve_record record = {.method = http->method, .path = http->path, .status = response->status};
    if (response->body.failed) {
        linnet_buffer_release(&response->body);
        response->status = record.status = 500;
    }
    /* After the reply is sent the request is gone. */
    log_record(s, &record);
    linnet_http_reply_send(reply, response);
}

static void refuse(serve *s, const linnet_http_request *http, linnet_http_reply *reply, int status,
                   const char *allow, const char *message)
{
    linnet_http_response response = {.allow = allow};
    write_refusal(&response, status, NULL, message);
    answer_at_once(s, http, reply, &response);
}

typedef enum route_kind {
    ROUTE_NONE,
    ROUTE_HEALTH,
    ROUTE_MODELS,
    ROUTE_MODEL,
    ROUTE_CHAT,
    ROUTE_TEXT
} route_kind;

static route_kind find_route(const char *path)
{
    static const struct {
        const char *path;
        route_kind route;
    } routes[] = {
        {"/health", ROUTE_HEALTH},
        {"/v1/models", ROUTE_MODELS},
        {"/v1/chat/completions", ROUTE_CHAT},
        {"/v1/completions", ROUTE_TEXT},
    };
    for (size_t i = 0; i < ARRAY_LEN(routes); i++)
        if (strcmp(path, routes[i].path) == 0)
            return routes[i].route;
    return strncmp(path, "/v1/models/", 11) == 0 ? ROUTE_MODEL : ROUTE_NONE;
}

static void answer_get(serve *s, route_kind route, const linnet_http_request *http, linnet_http_reply *reply)
{
    linnet_http_response response = {.status = 200, .content_type = "application/json"};
    if (route == ROUTE_MODEL && strcmp(http->path + 11, s->options.name) != 0) {
        refuse(s, http, reply, 404, NULL, "there is no such model here; /v1/models lists what there is");
        return;
    }
    if (route == ROUTE_HEALTH)
        linnet_buffer_append_text(&response.body, "{\"status\":\"ok\"}");
    else
        openai_write_model(s->options.name, s->created, route == ROUTE_MODELS, &response.body);
    answer_at_once(s, http, reply, &response);
}

static void answer_post(serve *s, route_kind route, const linnet_http_request *http, linnet_http_reply *reply)
{
    if (!is_json(http->content_type)) {
        refuse(s, http, reply, 415, NULL, "the body is to be application/json");
        return;
    }
    serve_job *job = calloc(1, sizeof(*job));
    if (!job) {
        refuse(s, http, reply, 500, NULL, "no memory for a request");
        return;
    }
    job->reply = reply;
    job->started_s = serve_seconds();
    job->request.is_chat = route == ROUTE_CHAT;
    take_request(s, job, http);
}

static void on_request(void *context, const linnet_http_request *http, linnet_http_reply *reply)
{
    serve *s = context;
    route_kind route = find_route(http->path);
    bool is_get = strcmp(http->method, "GET") == 0 || strcmp(http->method, "HEAD") == 0; /* one has no body */
    bool wants_get = route != ROUTE_CHAT && route != ROUTE_TEXT;
    if (s->options.api_key && route != ROUTE_HEALTH && !has_key(s->options.api_key, http->authorization))
        refuse(s, http, reply, 401, NULL, "the API key is missing or wrong");
    else if (!s->options.api_key && !is_local_host(http->host)) /* a page from the network, whose own name
                                                                  leads here */
        refuse(s, http, reply, 403, NULL, "this server is for programs of its own machine: ask localhost");
    else if (route == ROUTE_NONE)
        refuse(s, http, reply, 404, NULL,
               "nothing is here: /v1/chat/completions, /v1/completions, /v1/models, /health");
    else if (wants_get != is_get || (!is_get && strcmp(http->method, "POST") != 0))
        refuse(s, http, reply, 405, wants_get ? "GET, HEAD" : "POST", "this is no method for it");
    else if (is_get)
        answer_get(s, route, http, reply);
    else
        answer_post(s, route, http, reply);
}

/* What the HTTP server refuses by itself. */
static void explain(void *context, int status, linnet_http_response *response)
{
    (void)context;
    const char *message = status == 413   ? "the request is too long: 1 MiB is taken"
                          : status == 503 ? "too many requests wait already: try again"
                          : status == 404 ? "nothing is here"
                                          : "this is no plain HTTP/1.1 request with one Content-Length";
    write_refusal(response, status, NULL, message);
}

/* ---- starting and stopping ---- */

/* As many as may be answered or wait: each may hold a body, and the operator says how many that is. */
static unsigned connection_count(const serve_options *options)
{
    unsigned n = options->n_parallel + options->n_queue_max + CONNECTIONS_SPARE;
    return options->upstream.url ? n + HANDED_ON_THREADS + options->n_queue_max : n;
}

static linnet_status start(serve *s, linnet_error *err)
{
    const linnet_http_server_options http = {.listen = s->options.listen,
                                             .n_threads = HTTP_THREADS,
                                             .n_connections_max = connection_count(&s->options),
                                             .idle_timeout_s = IDLE_SECONDS,
                                             .n_body_max = BODY_MAX,
                                             .n_body_dropped_max = BODY_DROPPED_MAX,
                                             .explain = explain};
    linnet_status status =
        job_queue_start(&s->local, s->options.n_parallel, s->options.n_queue_max, serve_run_local, s, err);
    if (status == LINNET_OK && s->options.upstream.url)
        status = job_queue_start(&s->handed_on, HANDED_ON_THREADS, s->options.n_queue_max,
                                 serve_run_handed_on, s, err);
    return status == LINNET_OK ? linnet_http_server_start(&http, on_request, s, &s->server, err) : status;
}

linnet_status serve_start(const serve_options *options, const linnet_runtime *runtime,
                          linnet_adapter_slot *adapters, serve **ret_serve, linnet_error *err)
{
    serve *s = calloc(1, sizeof(*s));
    if (!s)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a server");
    s->options = *options;
    s->options.upstream.must_end = serve_must_end;
    s->options.upstream.context = s;
    s->runtime = runtime;
    s->adapters = adapters;
    s->created = (int64_t)time(NULL);
    turns_init(&s->engine);
    (void)pthread_mutex_init(&s->log_lock, NULL); /* default attributes: cannot fail on Linux */
    atomic_init(&s->is_closing, false);
    linnet_status status = start(s, err);
    if (status != LINNET_OK) {
        serve_stop(s);
        return status;
    }
    *ret_serve = s;
    return LINNET_OK;
}

unsigned serve_port(const serve *s)
{
    return linnet_http_server_port(s->server);
}

bool serve_must_end(void *context)
{
    const serve *s = context;
    return atomic_load(&s->is_closing) && serve_seconds() > s->end_s;
}

void serve_stop(serve *s)
{
    if (!s)
        return;
    s->end_s = serve_seconds() + STOP_SECONDS;
    atomic_store(&s->is_closing, true);
    job_queue_close(&s->local);
    job_queue_close(&s->handed_on);
    job_queue_join(&s->local);
    job_queue_join(&s->handed_on);
    linnet_http_server_stop(s->server);
    job_queue_release(&s->local);
    job_queue_release(&s->handed_on);
    turns_release(&s->engine);
    (void)pthread_mutex_destroy(&s->log_lock);
    free(s);
}
