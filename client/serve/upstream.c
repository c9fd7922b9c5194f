/* SPDX-License-Identifier: Apache-2.0 */
/* Handing on with libcurl: the request as it came but for the model's name, the answer as it comes. Nothing
 * is said to the peer before the answer's status is known, so that whoever asked can still answer by itself.
 */
#include "upstream.h"

#include "local_host.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <time.h>

#define CONNECT_SECONDS 20L
#define SILENCE_SECONDS 300L /* a large model thinks before it says a word */
#define BACKLOG_MAX ((size_t)256 << 10)
#define PAUSE_NS 10000000L

/* ---- rules ---- */

/* The number behind the colon, in (0, max]; false: none. */
static bool rule_number(const char *text, double max, double *ret_number)
{
    char *end = NULL;
    double number = strtod(text, &end);
    if (end == text || *end != '\0' || !(number > 0 && number <= max))
        return false;
    *ret_number = number;
    return true;
}

linnet_status upstream_rule_add(upstream_rules *rules, const char *text, linnet_error *err)
{
    const char *colon = strchr(text, ':'), *value = colon ? colon + 1 : "";
    size_t n = colon ? (size_t)(colon - text) : strlen(text);
    double number = 0;
    if (n == 5 && memcmp(text, "model", n) == 0 && *value != '\0' &&
        rules->n_models < ARRAY_LEN(rules->models)) {
        rules->models[rules->n_models++] = value;
        return LINNET_OK;
    }
    if (strcmp(text, "too-long") == 0) {
        rules->hands_on_long = true;
        return LINNET_OK;
    }
    if (strcmp(text, "unsupported") == 0) {
        rules->hands_on_unsupported = true;
        return LINNET_OK;
    }
    if (n == 13 && memcmp(text, "prompt-tokens", n) == 0 && rule_number(value, 1e9, &number)) {
        rules->n_prompt_max = (uint64_t)number;
        return LINNET_OK;
    }
    if (n == 10 && memcmp(text, "confidence", n) == 0 && rule_number(value, 1, &rules->confidence_min))
        return LINNET_OK;
    return linnet_fail(err, LINNET_ERR_ARG,
                       "'%.100s' is no rule: write model:NAME, too-long, unsupported, prompt-tokens:N or "
                       "confidence:P with P above 0 and at most 1",
                       text);
}

linnet_status upstream_check(const upstream *u, linnet_error *err)
{
    bool is_good = strncmp(u->url, "https://", 8) == 0 ||
                   (strncmp(u->url, "http://", 7) == 0 && is_local_host(u->url + 7));
    if (!is_good)
        return linnet_fail(err, LINNET_ERR_ARG,
                           "upstream '%.200s': must start with https://, or http:// to this machine: prompts "
                           "would go over the network in the clear",
                           u->url);
    return curl_global_init(CURL_GLOBAL_DEFAULT) == 0
               ? LINNET_OK
               : linnet_fail(err, LINNET_ERR_INTERNAL, "libcurl does not start");
}

bool upstream_wants(const upstream *u, const openai_request *request, size_t n_prompt_tokens,
                    bool is_too_long)
{
    const upstream_rules *rules = &u->rules;
    if (!u->url)
        return false;
    for (size_t i = 0; request->model && i < rules->n_models; i++)
        if (strcmp(request->model, rules->models[i]) == 0)
            return true;
    return (request->unsupported && rules->hands_on_unsupported) || (is_too_long && rules->hands_on_long) ||
           (rules->n_prompt_max > 0 && n_prompt_tokens > rules->n_prompt_max);
}

/* ---- the exchange ---- */

typedef struct transfer {
    const upstream *upstream;
    CURL *curl;
    linnet_http_reply *reply;
    bool has_fallback, has_begun, is_refused; /* refused: an error that the peer does not get */
    bool is_gone;
} transfer;

/* The answer's head, once its status is there. false: it is not to be passed through. */
static bool begin(transfer *t)
{
    long status = 0;
    const char *type = NULL;
    curl_off_t retry_after = 0;
    (void)curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status); /* cannot fail for a live transfer */
    (void)curl_easy_getinfo(t->curl, CURLINFO_CONTENT_TYPE, &type);
    (void)curl_easy_getinfo(t->curl, CURLINFO_RETRY_AFTER, &retry_after);
    t->is_refused = status < 200 || status > 599 || (t->has_fallback && status >= 400);
    if (t->is_refused)
        return false;
    bool is_stream = type && strncmp(type, "text/event-stream", 17) == 0;
    linnet_http_response head = {.status = (int)status,
                                 .retry_after_s =
                                     retry_after > 0 && retry_after < 86400 ? (uint32_t)retry_after : 0,
                                 .content_type = is_stream ? "text/event-stream" : "application/json"};
    linnet_http_reply_begin(t->reply, &head);
    t->has_begun = true;
    return true;
}

static bool is_gone(transfer *t)
{
    const upstream *u = t->upstream;
    t->is_gone =
        t->is_gone || linnet_http_reply_is_gone(t->reply) || (u->must_end && u->must_end(u->context));
    return t->is_gone;
}

static size_t on_bytes(char *bytes, size_t size, size_t n, void *user)
{
    transfer *t = user;
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    if (!t->has_begun && !begin(t))
        return 0; /* curl ends the transfer */
    while (linnet_http_reply_backlog(t->reply) > BACKLOG_MAX && !is_gone(t))
        (void)nanosleep(&pause, NULL);
    return linnet_http_reply_write(t->reply, bytes, size * n) ? size * n : 0;
}

static int on_progress(void *user, curl_off_t down_total, curl_off_t down, curl_off_t up_total, curl_off_t up)
{
    (void)down_total;
    (void)down;
    (void)up_total;
    (void)up;
    return is_gone(user) ? 1 : 0;
}

static char *make_body(const upstream *u, const openai_request *request)
{
    json_t *object = json_copy(request->object);
    char *body = NULL;
    if (object && (!u->model || json_object_set_new(object, "model", json_string(u->model)) == 0))
        body = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    return body;
}

static struct curl_slist *make_headers(const upstream *u)
{
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    linnet_buffer line = {0};
    if (headers && u->key) {
        linnet_buffer_append_format(&line, "Authorization: Bearer %s", u->key);
        linnet_buffer_append_u8(&line, 0);
        struct curl_slist *more = line.failed ? NULL : curl_slist_append(headers, (const char *)line.bytes);
        if (!more)
            curl_slist_free_all(headers);
        headers = more;
    }
    if (line.bytes)
        linnet_wipe(line.bytes, line.n_bytes);
    linnet_buffer_release(&line);
    return headers;
}

static bool set_options(transfer *t, const char *url, const char *body, const struct curl_slist *headers)
{
    CURL *curl = t->curl;
    return curl_easy_setopt(curl, CURLOPT_URL, url) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, CONNECT_SECONDS) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, SILENCE_SECONDS) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_USERAGENT, "linnet/" LINNET_VERSION) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_POST, 1L) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body)) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_bytes) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_WRITEDATA, t) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress) == CURLE_OK &&
           curl_easy_setopt(curl, CURLOPT_XFERINFODATA, t) == CURLE_OK;
}

/* What came of it; the reply is answered where OK. */
static linnet_status conclude(transfer *t, CURLcode code, linnet_error *err)
{
    if (code == CURLE_OK && !t->has_begun && !t->is_refused)
        (void)begin(t); /* an answer without a body */
    if (t->has_begun) {
        if (code == CURLE_OK)
            linnet_http_reply_end(t->reply);
        else
            linnet_http_reply_break_off(t->reply);
        return LINNET_OK;
    }
    if (t->is_gone)
        return linnet_fail(err, LINNET_ERR_CANCELLED, "the client has left, or the server is stopping");
    if (t->is_refused)
        return linnet_fail(err, LINNET_ERR_IO, "the upstream server answers with an error");
    return linnet_fail(err, LINNET_ERR_IO, "the upstream server does not answer: %s",
                       curl_easy_strerror(code));
}

linnet_status upstream_forward(const upstream *u, const openai_request *request, linnet_http_reply *reply,
                               bool has_fallback, linnet_error *err)
{
    transfer t = {.upstream = u, .curl = curl_easy_init(), .reply = reply, .has_fallback = has_fallback};
    char *body = make_body(u, request);
    struct curl_slist *headers = make_headers(u);
    linnet_buffer url = {0};
    linnet_buffer_append_format(&url, "%s/%s", u->url, request->is_chat ? "chat/completions" : "completions");
    linnet_buffer_append_u8(&url, 0);
    linnet_status status = LINNET_OK;
    if (!t.curl || !body || !headers || url.failed ||
        !set_options(&t, (const char *)url.bytes, body, headers))
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory to hand a request on");
    else
        status = conclude(&t, curl_easy_perform(t.curl), err);
    curl_easy_cleanup(t.curl);
    curl_slist_free_all(headers);
    linnet_buffer_release(&url);
    free(body);
    return status;
}
