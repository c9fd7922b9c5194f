/* SPDX-License-Identifier: Apache-2.0 */
/* linnet-client serve, asked as its clients do: by libcurl and by hand. What it says is held to what generate
 * and chat say to the same. */
#include "acceptance.h"

#include <curl/curl.h>
#include <poll.h>
#include <pthread.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS 32
#define ROUNDS_SERVED 3
#define NAMED_DIGITS 22 /* of an adapter's hash, in a fingerprint */
#define NO_ADAPTER "0000000000000000000000"

/* ---- one request ---- */

typedef struct asked {
    int status;      /* 0: no answer */
    char type[64];   /* of the content */
    char header[64]; /* the value of the header that was looked for */
    linnet_buffer body;
} asked;

typedef struct question {
    int port;
    const char *method, *path, *body; /* body NULL: none */
    const char *host, *key, *type;    /* NULL: as usual, none, JSON */
    const char *look_for;             /* a header of the answer */
    long patience_s;                  /* 0: as long as any test */
    asked *answer;
} question;

static size_t keep_body(char *bytes, size_t size, size_t n, void *user)
{
    linnet_buffer *body = user;
    linnet_buffer_append(body, bytes, size * n);
    return body->failed ? 0 : size * n;
}

static size_t keep_header(char *bytes, size_t size, size_t n, void *user)
{
    question *q = user;
    size_t n_name = q->look_for ? strlen(q->look_for) : 0;
    if (n_name > 0 && size * n > n_name + 2 && strncasecmp(bytes, q->look_for, n_name) == 0 &&
        bytes[n_name] == ':')
        (void)snprintf(q->answer->header, sizeof(q->answer->header), "%.*s",
                       (int)strcspn(bytes + n_name + 2, "\r\n"), bytes + n_name + 2);
    return size * n;
}

static struct curl_slist *headers_of(const question *q)
{
    char line[512];
    struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
    (void)snprintf(line, sizeof(line), "Content-Type: %s", q->type ? q->type : "application/json");
    headers = curl_slist_append(headers, line);
    if (q->host) {
        (void)snprintf(line, sizeof(line), "Host: %s", q->host);
        headers = curl_slist_append(headers, line);
    }
    if (q->key) {
        (void)snprintf(line, sizeof(line), "Authorization: Bearer %s", q->key);
        headers = curl_slist_append(headers, line);
    }
    return headers;
}

/* The answer's body is followed by a zero; its memory is the caller's. */
static asked ask(question q)
{
    asked answer = {0};
    char url[256];
    long status = 0;
    const char *type = NULL;
    CURL *curl = curl_easy_init();
    struct curl_slist *headers = headers_of(&q);
    q.answer = &answer;
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%d%s", q.port, q.path);
    (void)curl_easy_setopt(curl, CURLOPT_URL, url);
    (void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(curl, CURLOPT_PROXY, "");
    (void)curl_easy_setopt(curl, CURLOPT_TIMEOUT, q.patience_s > 0 ? q.patience_s : DEADLINE_MS / 1000);
    (void)curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    if (q.body)
        (void)curl_easy_setopt(curl, CURLOPT_POSTFIELDS, q.body);
    if (q.method)
        (void)curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, q.method);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, keep_body);
    (void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer.body);
    (void)curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, keep_header);
    (void)curl_easy_setopt(curl, CURLOPT_HEADERDATA, &q);
    if (curl_easy_perform(curl) == CURLE_OK) {
        (void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
        (void)curl_easy_getinfo(curl, CURLINFO_CONTENT_TYPE, &type);
    }
    answer.status = (int)status;
    (void)snprintf(answer.type, sizeof(answer.type), "%s", type ? type : "");
    linnet_buffer_append_u8(&answer.body, 0);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    return answer;
}

static json_t *json_of(const asked *answer)
{
    json_error_t error;
    json_t *object = json_loads((const char *)answer->body.bytes, 0, &error);
    if (!object)
        fail_msg("no JSON (%s): '%.300s'", error.text, (const char *)answer->body.bytes);
    return object;
}

/* An answer that must be given; owned. */
static json_t *post(int port, const char *path, const char *body)
{
    asked answer = ask((question){.port = port, .path = path, .body = body});
    if (answer.status != 200)
        fail_msg("%s %s: %d %.300s", path, body, answer.status, (const char *)answer.body.bytes);
    assert_string_equal(answer.type, "application/json");
    json_t *object = json_of(&answer);
    linnet_buffer_release(&answer.body);
    return object;
}

static const json_t *choice_of(const json_t *object, size_t i)
{
    const json_t *choice = json_array_get(json_object_get(object, "choices"), i);
    if (!choice)
        fail_msg("there is no choice %zu", i);
    return choice;
}

static const char *string_of(const json_t *object, const char *field)
{
    const char *text = json_string_value(json_object_get(object, field));
    if (!text)
        fail_msg("there is no text '%s'", field);
    return text;
}

/* The text of a choice, of either kind of answer. */
static const char *said(const json_t *object, size_t i)
{
    const json_t *message = json_object_get(choice_of(object, i), "message");
    return message ? string_of(message, "content") : string_of(choice_of(object, i), "text");
}

static long long usage_of(const json_t *object, const char *field)
{
    return json_integer_value(json_object_get(json_object_get(object, "usage"), field));
}

/* ---- answers ---- */

static void a_completion_is_what_generate_says(void **state)
{
    (void)state;
    server s = serve_model("server", "");
    json_t *wanted = result_of("$C generate --model $M --prompt 'Sat down' --tokens 24 --json");
    json_t *got = post(s.port, "/v1/completions",
                       "{\"model\":\"any\",\"prompt\":\"Sat down\",\"max_tokens\":24,\"temperature\":0}");
    assert_string_equal(said(got, 0), string_of(wanted, "text"));
    assert_int_equal(usage_of(got, "completion_tokens"), json_array_size(json_object_get(wanted, "ids")));
    assert_int_equal(usage_of(got, "prompt_tokens"), json_array_size(json_object_get(wanted, "prompt_ids")));
    assert_string_equal(string_of(got, "object"), "text_completion");
    assert_string_equal(string_of(got, "model"), "linnet-notes-Q8_0");
    char *ids = json_dumps(json_object_get(wanted, "prompt_ids"), JSON_COMPACT), body[512];
    (void)snprintf(body, sizeof(body), "{\"prompt\":%s,\"max_tokens\":24,\"temperature\":0}", ids);
    json_t *by_ids = post(s.port, "/v1/completions", body);
    assert_string_equal(said(by_ids, 0), said(got, 0));
    free(ids);
    json_decref(by_ids);
    json_decref(wanted);

    wanted = result_of("$C generate --model $M --prompt 'Sat down' --tokens 24 --temperature 0.9 --top-p 0.8 "
                       "--seed 7 --json");
    json_t *drawn = post(s.port, "/v1/completions",
                         "{\"prompt\":\"Sat down\",\"max_tokens\":24,\"temperature\":0.9,\"top_p\":0.8,"
                         "\"seed\":7}");
    assert_string_equal(said(drawn, 0), string_of(wanted, "text"));
    json_decref(drawn);
    json_decref(wanted);
    json_decref(got);
    stop(&s, SIGTERM);
}

static void a_chat_answers_as_chat_does(void **state)
{
    (void)state;
    server s = serve_model("server", "");
    put_text("turn.txt", "Where did you go?\n");
    const outcome *o =
        run("$C chat --model $M --system 'Be brief.' --temperature 0 --tokens 16 --json <turn.txt");
    assert_int_equal(o->status, 0);
    json_error_t error;
    json_t *wanted = json_loads(o->out, JSON_DISABLE_EOF_CHECK, &error); /* the first line */
    const char *text = string_of(wanted, "text");
    json_t *got = post(s.port, "/v1/chat/completions",
                       "{\"messages\":[{\"role\":\"developer\",\"content\":\"Be brief.\"},{\"role\":\"user\","
                       "\"content\":[{\"type\":\"text\",\"text\":\"Where did \"},{\"type\":\"text\",\"text\":"
                       "\"you go?\"}]}],\"max_completion_tokens\":16,\"temperature\":0}");
    assert_string_equal(said(got, 0), text + strspn(text, " "));
    assert_string_equal(string_of(got, "object"), "chat.completion");
    assert_string_equal(string_of(json_object_get(choice_of(got, 0), "message"), "role"), "assistant");
    json_decref(got);
    json_decref(wanted);
    stop(&s, SIGTERM);
}

/* What the events of a stream say, put together. */
typedef struct streamed {
    linnet_buffer text[2];
    const char *finish[2];
    unsigned n_pieces, n_usages;
    bool is_done;
    json_t *kept; /* array of the events */
} streamed;

static void take_event(streamed *s, const char *line, size_t n)
{
    json_error_t error;
    if (n == 6 && strncmp(line, "[DONE]", n) == 0) {
        s->is_done = true;
        return;
    }
    assert_false(s->is_done);
    json_t *event = json_loadb(line, n, 0, &error);
    assert_non_null(event);
    (void)json_array_append_new(s->kept, event);
    if (json_array_size(json_object_get(event, "choices")) == 0) {
        s->n_usages += json_is_object(json_object_get(event, "usage"));
        return;
    }
    const json_t *choice = choice_of(event, 0), *delta = json_object_get(choice, "delta");
    size_t i = (size_t)json_integer_value(json_object_get(choice, "index"));
    const char *text =
        json_string_value(delta ? json_object_get(delta, "content") : json_object_get(choice, "text"));
    const char *finish = json_string_value(json_object_get(choice, "finish_reason"));
    assert_true(i < 2);
    assert_null(s->finish[i]); /* nothing comes behind the end */
    linnet_buffer_append_text(&s->text[i], text ? text : "");
    s->finish[i] = finish;
    s->n_pieces++;
}

static streamed stream(int port, const char *path, const char *body)
{
    streamed s = {.kept = json_array()};
    asked answer = ask((question){.port = port, .path = path, .body = body});
    if (answer.status != 200)
        fail_msg("%s: %d %.300s", body, answer.status, (const char *)answer.body.bytes);
    assert_string_equal(answer.type, "text/event-stream");
    const char *at = (const char *)answer.body.bytes;
    while (*at) {
        const char *end = strstr(at, "\n\n");
        assert_non_null(end);
        assert_int_equal(strncmp(at, "data: ", 6), 0);
        take_event(&s, at + 6, (size_t)(end - at) - 6);
        at = end + 2;
    }
    assert_true(s.is_done);
    for (size_t i = 0; i < 2; i++)
        linnet_buffer_append_u8(&s.text[i], 0);
    linnet_buffer_release(&answer.body);
    return s;
}

static void streamed_release(streamed *s)
{
    linnet_buffer_release(&s->text[0]);
    linnet_buffer_release(&s->text[1]);
    json_decref(s->kept);
}

static void a_stream_says_the_same_piece_by_piece(void **state)
{
    (void)state;
    static const struct {
        const char *path, *fields;
    } cases[] = {
        {"/v1/completions", "\"prompt\":\"Sat down\",\"n\":2,\"temperature\":0.9,\"seed\":3"},
        {"/v1/chat/completions", "\"messages\":[{\"role\":\"user\",\"content\":\"Tell me.\"}],\"n\":2,"
                                 "\"temperature\":1.2,\"seed\":5"},
        {"/v1/completions", "\"prompt\":[\"Walked\",\"Evening\"],\"temperature\":0,\"echo\":true"},
        {"/v1/completions", "\"prompt\":\"Sat down\",\"n\":2,\"temperature\":0,\"max_tokens\":0"},
    };
    server local = serve_model("server", "");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char body[512];
        (void)snprintf(body, sizeof(body), "{%s,\"max_tokens\":%s}", cases[i].fields,
                       strstr(cases[i].fields, "max_tokens") ? "0" : "20");
        if (strstr(cases[i].fields, "max_tokens"))
            (void)snprintf(body, sizeof(body), "{%s}", cases[i].fields);
        json_t *whole = post(local.port, cases[i].path, body);
        body[strlen(body) - 1] = '\0';
        char streaming[640];
        (void)snprintf(streaming, sizeof(streaming),
                       "%s,\"stream\":true,\"stream_options\":{\"include_usage\":true}}", body);
        streamed s = stream(local.port, cases[i].path, streaming);
        for (size_t k = 0; k < 2; k++) {
            assert_string_equal((const char *)s.text[k].bytes, said(whole, k));
            assert_string_equal(s.finish[k], string_of(choice_of(whole, k), "finish_reason"));
        }
        assert_int_equal(s.n_usages, 1);
        const json_t *last = json_array_get(s.kept, json_array_size(s.kept) - 1);
        assert_int_equal(usage_of(last, "total_tokens"), usage_of(whole, "total_tokens"));
        streamed_release(&s);
        json_decref(whole);
    }
    streamed s = stream(local.port, "/v1/chat/completions",
                        "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"stream\":true}");
    assert_string_equal(string_of(json_object_get(choice_of(json_array_get(s.kept, 0), 0), "delta"), "role"),
                        "assistant");
    assert_int_equal(s.n_usages, 0); /* not asked for */
    streamed_release(&s);
    stop(&local, SIGTERM);
}

static void stop_strings_and_limits_end_an_answer(void **state)
{
    (void)state;
    server s = serve_model("server", "--tokens 6");
    json_t *whole =
        post(s.port, "/v1/completions", "{\"prompt\":\"Sat down\",\"max_tokens\":40,\"temperature\":0}");
    const char *text = said(whole, 0), *word = strrchr(text, ' ');
    assert_non_null(word);
    assert_string_equal(string_of(choice_of(whole, 0), "finish_reason"), "stop"); /* its own end */
    char body[512];
    (void)snprintf(
        body, sizeof(body),
        "{\"prompt\":\"Sat down\",\"max_tokens\":40,\"temperature\":0,\"stop\":[\"never said\",\"%s\"]}",
        word);
    json_t *stopped = post(s.port, "/v1/completions", body);
    assert_int_equal(strlen(said(stopped, 0)), word - text); /* up to it, without it */
    assert_memory_equal(said(stopped, 0), text, (size_t)(word - text));
    assert_string_equal(string_of(choice_of(stopped, 0), "finish_reason"), "stop");
    json_t *usual = post(s.port, "/v1/completions", "{\"prompt\":\"Sat down\",\"temperature\":0}");
    assert_int_equal(usage_of(usual, "completion_tokens"), 6);
    assert_string_equal(string_of(choice_of(usual, 0), "finish_reason"), "length");
    json_t *full =
        post(s.port, "/v1/completions",
             "{\"prompt\":\"Sat down\",\"max_tokens\":100000,\"temperature\":2,\"seed\":11,\"n\":4}");
    for (size_t i = 0; i < 4; i++)
        assert_true(strlen(said(full, i)) > 0);
    json_decref(whole);
    json_decref(stopped);
    json_decref(usual);
    json_decref(full);
    stop(&s, SIGTERM);
}

/* ---- what is wrong is said ---- */

static void assert_error(const char *name, const asked *answer, int status, const char *param,
                         const char *code)
{
    if (answer->status != status)
        fail_msg("%s: %d, wanted %d: %.300s", name, answer->status, status, (const char *)answer->body.bytes);
    assert_string_equal(answer->type, "application/json");
    json_t *object = json_of(answer);
    const json_t *error = json_object_get(object, "error");
    assert_true(strlen(string_of(error, "message")) > 0);
    assert_true(strlen(string_of(error, "type")) > 0);
    const char *got = json_string_value(json_object_get(error, "param"));
    if (param && (!got || strcmp(got, param) != 0))
        fail_msg("%s: the field is '%s', wanted '%s'", name, got ? got : "none", param);
    got = json_string_value(json_object_get(error, "code"));
    if (code && (!got || strcmp(got, code) != 0))
        fail_msg("%s: the code is '%s', wanted '%s'", name, got ? got : "none", code);
    json_decref(object);
}

static void bad_requests_name_the_field(void **state)
{
    (void)state;
#define CHAT "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"
    static const struct {
        const char *path, *body, *param, *code;
    } cases[] = {
        {"/v1/completions", "{", NULL, NULL},
        {"/v1/completions", "", NULL, NULL},
        {"/v1/completions", "[]", NULL, NULL},
        {"/v1/completions", "{\"prompt\":\"a\"}x", NULL, NULL},
        {"/v1/completions", "{\"prompt\":\"a\",\"prompt\":\"b\"}", NULL, NULL},
        {"/v1/completions", "{\"prompt\":\"\xff\"}", NULL, NULL},
        {"/v1/completions", "{\"prompt\":\"\\u0000\"}", NULL, NULL},
        {"/v1/completions", "{}", "prompt", NULL},
        {"/v1/completions", "{\"prompt\":null}", "prompt", NULL},
        {"/v1/completions", "{\"prompt\":[]}", "prompt", NULL},
        {"/v1/completions", "{\"prompt\":3}", "prompt", NULL},
        {"/v1/completions", "{\"prompt\":[3.5]}", "prompt", NULL},
        {"/v1/completions", "{\"prompt\":[[1,\"a\"]]}", "prompt", NULL},
        {"/v1/completions", "{\"prompt\":[[]]}", "prompt", NULL},
        {"/v1/completions", "{\"prompt\":[-1]}", "prompt", NULL},
        {"/v1/completions", "{\"prompt\":[1024]}", "prompt", NULL}, /* the model has 1024 tokens */
        {"/v1/completions", "{\"prompt\":[99999999999]}", "prompt", NULL},
        {"/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":-1}", "max_tokens", NULL},
        {"/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":1.5}", "max_tokens", NULL},
        {"/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":\"9\"}", "max_tokens", NULL},
        {"/v1/completions", "{\"prompt\":\"a\",\"temperature\":-0.1}", "temperature", NULL},
        {"/v1/completions", "{\"prompt\":\"a\",\"temperature\":2.1}", "temperature", NULL},
        {"/v1/completions", "{\"prompt\":\"a\",\"top_p\":1.1}", "top_p", NULL},
        {"/v1/completions", "{\"prompt\":\"a\",\"seed\":\"x\"}", "seed", NULL},
        {"/v1/completions", "{\"prompt\":\"a\",\"n\":0}", "n", NULL},
        {"/v1/completions", "{\"prompt\":\"a\",\"n\":17}", "n", NULL},
        {"/v1/completions", "{\"prompt\":[\"a\",\"b\",\"c\"],\"n\":6}", "n", NULL},
        {"/v1/completions", "{\"prompt\":\"a\",\"stop\":3}", "stop", NULL},
        {"/v1/completions", "{\"prompt\":\"a\",\"stop\":[\"b\",null]}", "stop", NULL},
        {"/v1/completions", "{\"prompt\":\"a\",\"stream\":1}", "stream", NULL},
        {"/v1/completions", "{\"prompt\":\"a\",\"stream_options\":[]}", "stream_options", NULL},
        {"/v1/completions", "{\"prompt\":\"a\",\"model\":7}", "model", NULL},
        {"/v1/completions", "{\"prompt\":\"a\",\"logprobs\":2}", "logprobs", "unsupported_parameter"},
        {"/v1/completions", "{\"prompt\":\"a\",\"suffix\":\"b\"}", "suffix", "unsupported_parameter"},
        {"/v1/chat/completions", "{\"prompt\":\"a\"}", "messages", NULL},
        {"/v1/chat/completions", "{\"messages\":[]}", "messages", NULL},
        {"/v1/chat/completions", "{\"messages\":[\"Hi\"]}", "messages", NULL},
        {"/v1/chat/completions", "{\"messages\":[{\"role\":\"user\"}]}", "messages", NULL},
        {"/v1/chat/completions", "{\"messages\":[{\"role\":\"king\",\"content\":\"Hi\"}]}", "messages", NULL},
        {"/v1/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}",
         "messages", NULL},
        {"/v1/chat/completions",
         "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}]}",
         "messages.content.type", "unsupported_parameter"},
        {"/v1/chat/completions", "{" CHAT ",\"tools\":[{\"type\":\"function\"}]}", "tools",
         "unsupported_parameter"},
        {"/v1/chat/completions", "{" CHAT ",\"response_format\":{\"type\":\"json_object\"}}",
         "response_format", "unsupported_parameter"},
        {"/v1/chat/completions", "{" CHAT ",\"frequency_penalty\":0.5}", "frequency_penalty",
         "unsupported_parameter"},
    };
    server s = serve_model("server", "");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        asked answer = ask((question){.port = s.port, .path = cases[i].path, .body = cases[i].body});
        assert_error(cases[i].body, &answer, 400, cases[i].param, cases[i].code);
        linnet_buffer_release(&answer.body);
    }
    /* Fields that ask for nothing special, and those of others. */
    json_decref(post(s.port, "/v1/chat/completions",
                     "{" CHAT
                     ",\"max_tokens\":4,\"temperature\":null,\"stop\":null,\"tools\":[],\"logprobs\":false,"
                     "\"presence_penalty\":0,\"response_format\":{\"type\":\"text\"},\"user\":\"me\","
                     "\"min_p\":0.1,\"top_p\":0}"));
    stop(&s, SIGTERM);
#undef CHAT
}

static char *repeated(const char *before, const char *word, size_t n, const char *after)
{
    linnet_buffer text = {0};
    linnet_buffer_append_text(&text, before);
    for (size_t i = 0; i < n; i++)
        linnet_buffer_append_text(&text, word);
    linnet_buffer_append_text(&text, after);
    linnet_buffer_append_u8(&text, 0);
    assert_false(text.failed);
    return (char *)text.bytes;
}

static void prompts_beyond_a_limit_are_refused(void **state)
{
    (void)state;
    server s = serve_model("server", "--context 64");
    char *longer = repeated("{\"prompt\":\"", "walk ", 100, "\"}"), *longest = repeated("", "[", 100000, "");
    char *huge = repeated("{\"prompt\":\"", "walked to the library ", 500000, "\"}");
    asked answer = ask((question){.port = s.port, .path = "/v1/completions", .body = longer});
    assert_error("longer than the context", &answer, 400, "prompt", "context_length_exceeded");
    linnet_buffer_release(&answer.body);
    answer = ask((question){.port = s.port, .path = "/v1/completions", .body = longest});
    assert_error("nested deeply", &answer, 400, NULL, NULL);
    linnet_buffer_release(&answer.body);
    answer = ask((question){.port = s.port, .path = "/v1/completions", .body = huge}); /* 11 MB */
    assert_error("longer than a request may be", &answer, 413, NULL, NULL);
    linnet_buffer_release(&answer.body);
    free(longer);
    free(longest);
    free(huge);
    stop(&s, SIGTERM);
}

static void routes_methods_hosts_and_keys_are_checked(void **state)
{
    (void)state;
    server s = serve_model("server", "--name 'my model'");
    const char *body = "{\"prompt\":\"Sat down\",\"max_tokens\":2}";
    const struct {
        const char *name;
        question question;
        int status;
    } cases[] = {
        {"no such path", {.path = "/v1/embeddings", .body = "{}"}, 404},
        {"no such model", {.path = "/v1/models/other"}, 404},
        {"GET of an answer", {.path = "/v1/completions"}, 405},
        {"POST of a list", {.path = "/v1/models", .body = "{}"}, 405},
        {"another method", {.path = "/v1/completions", .method = "PUT", .body = "{}"}, 405},
        {"no JSON", {.path = "/v1/completions", .body = body, .type = "text/plain"}, 415},
        {"nearly JSON", {.path = "/v1/completions", .body = body, .type = "application/jsonl"}, 415},
        {"a name of the network", {.path = "/v1/completions", .body = body, .host = "evil.example"}, 403},
        {"one that begins well",
         {.path = "/v1/completions", .body = body, .host = "localhost.evil.example"},
         403},
        {"an address that begins well", {.path = "/v1/models", .host = "127.0.0.1.evil.example:80"}, 403},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        question q = cases[i].question;
        q.port = s.port;
        q.look_for = "Allow";
        asked answer = ask(q);
        assert_error(cases[i].name, &answer, cases[i].status, NULL, NULL);
        assert_int_equal(answer.header[0] != '\0', answer.status == 405);
        linnet_buffer_release(&answer.body);
    }
    asked answer = ask((question){.port = s.port, .path = "/health"});
    assert_string_equal((const char *)answer.body.bytes, "{\"status\":\"ok\"}");
    linnet_buffer_release(&answer.body);
    answer = ask((question){.port = s.port, .path = "/v1/models", .host = "LocalHost:1"});
    assert_int_equal(answer.status, 200);
    json_t *list = json_of(&answer);
    assert_string_equal(string_of(json_array_get(json_object_get(list, "data"), 0), "id"), "my model");
    json_decref(list);
    linnet_buffer_release(&answer.body);
    stop(&s, SIGTERM);

    put_text("key", "sesame-123\n");
    s = serve_model("server", "--api-key key");
    static const struct {
        const char *key;
        int status;
    } keys[] = {{NULL, 401}, {"", 401}, {"sesame-12", 401}, {"sesame-1234", 401}, {"sesame-123", 200}};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        answer = ask((question){.port = s.port,
                                .path = "/v1/completions",
                                .body = body,
                                .key = keys[i].key,
                                .host = "model.clinic.example",
                                .look_for = "WWW-Authenticate"});
        assert_int_equal(answer.status, keys[i].status);
        assert_string_equal(answer.header, answer.status == 401 ? "Bearer" : "");
        linnet_buffer_release(&answer.body);
    }
    stop(&s, SIGTERM);
}

static void what_cannot_be_served_is_said_in_a_line(void **state)
{
    (void)state;
    put_text("empty-key", "\n");
    put_text("two-keys", "one two\n");
    server s = serve_model("server", "");
    must_fail("give --api-key", "$C serve --model $M --listen 0.0.0.0:0");
    must_fail("no address", "$C serve --model $M --listen localhost");
    must_fail("in use", "$C serve --model $M --listen 127.0.0.1:%d", s.port);
    must_fail("there is no key in it", "$C serve --model $M --api-key empty-key");
    must_fail("one line without spaces", "$C serve --model $M --api-key two-keys");
    must_fail("absent", "$C serve --model $M --api-key absent");
    must_fail("--context 4096 is more than the model's", "$C serve --model $M --context 4096");
    must_fail("--hand-on RULE is missing", "$C serve --model $M --upstream https://a.example/v1");
    must_fail("--upstream URL is missing", "$C serve --model $M --hand-on too-long");
    must_fail("in the clear", "$C serve --model $M --upstream http://a.example/v1 --hand-on too-long");
    must_fail("in the clear", "$C serve --model $M --upstream http://localhost@a.example --hand-on too-long");
    must_fail("is no rule", "$C serve --model $M --upstream https://a.example --hand-on confidence:1.5");
    must_fail("is no rule", "$C serve --model $M --upstream https://a.example --hand-on sometimes");
    must_refuse_usage("one of --state and --adapter", "$C serve --model $M --state a --adapter b");
    stop(&s, SIGTERM);
}

/* ---- many, slow and impatient clients ---- */

typedef struct client {
    pthread_t thread;
    int port;
    char text[1024];
    int status;
} client;

static void *ask_once(void *context)
{
    client *c = context;
    asked answer = ask((question){.port = c->port,
                                  .path = "/v1/completions",
                                  .body = "{\"prompt\":\"Sat down\",\"max_tokens\":200,\"temperature\":1.5,"
                                          "\"seed\":21}"});
    c->status = answer.status;
    json_t *object = json_loads((const char *)answer.body.bytes, 0, NULL);
    const json_t *choice = json_array_get(json_object_get(object, "choices"), 0);
    const char *text = json_string_value(json_object_get(choice, "text"));
    (void)snprintf(c->text, sizeof(c->text), "%s", text ? text : "");
    json_decref(object);
    linnet_buffer_release(&answer.body);
    return NULL;
}

static void thirty_two_clients_at_once_all_get_theirs(void **state)
{
    (void)state;
    static client clients[CLIENTS];
    server s = serve_model("server", "");
    client alone = {.port = s.port};
    (void)ask_once(&alone);
    assert_int_equal(alone.status, 200);
    assert_true(strlen(alone.text) > 0);
    for (size_t i = 0; i < CLIENTS; i++) {
        clients[i] = (client){.port = s.port};
        assert_int_equal(pthread_create(&clients[i].thread, NULL, ask_once, &clients[i]), 0);
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        (void)pthread_join(clients[i].thread, NULL);
        assert_int_equal(clients[i].status, 200);
        assert_string_equal(clients[i].text, alone.text); /* nobody's tokens come into another's answer */
    }
    stop(&s, SIGTERM);
}

/* Send a request by hand and leave, or stay without reading. */
static int begin_request(int port, const char *body)
{
    char head[256];
    int fd = dial(port);
    (void)snprintf(head, sizeof(head),
                   "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                   "Content-Length: %zu\r\n\r\n",
                   strlen(body));
    assert_int_equal(send(fd, head, strlen(head), MSG_NOSIGNAL), strlen(head));
    assert_int_equal(send(fd, body, strlen(body), MSG_NOSIGNAL), strlen(body));
    return fd;
}

#define LONG_ANSWER "\"prompt\":\"Sat down\",\"max_tokens\":240,\"temperature\":2,\"n\":16,\"seed\":5"

static void who_leaves_is_not_answered_any_further(void **state)
{
    (void)state;
    server s = serve_model("left", "--parallel 1");
    (void)close(begin_request(s.port, "{" LONG_ANSWER "}"));
    await_text("left.out", "\"status\":499");
    int fd = begin_request(s.port, "{" LONG_ANSWER ",\"stream\":true}");
    char bytes[64];
    assert_true(recv(fd, bytes, sizeof(bytes), 0) > 0); /* it has begun */
    (void)close(fd);
    client after = {.port = s.port};
    (void)ask_once(&after); /* the one place is free again */
    assert_int_equal(after.status, 200);
    stop(&s, SIGTERM);
}

static void slow_readers_hold_up_nobody(void **state)
{
    (void)state;
    int fds[8];
    server s = serve_model("server", "--parallel 2");
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        fds[i] = begin_request(s.port, "{" LONG_ANSWER ",\"stream\":true}"); /* and nobody reads */
    client other = {.port = s.port};
    (void)ask_once(&other);
    assert_int_equal(other.status, 200);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) { /* what they did not read is still theirs */
        static char bytes[1 << 16];
        linnet_buffer all = {0};
        for (;;) {
            ssize_t n = recv(fds[i], bytes, sizeof(bytes), 0);
            assert_true(n > 0);
            linnet_buffer_append(&all, bytes, (size_t)n);
            linnet_buffer_append_u8(&all, 0);
            all.n_bytes--;
            if (strstr((const char *)all.bytes, "[DONE]"))
                break;
        }
        linnet_buffer_release(&all);
        (void)close(fds[i]);
    }
    stop(&s, SIGTERM);
}

static void a_stop_ends_what_grows_and_refuses_what_waits(void **state)
{
    (void)state;
    server s = serve_model("server", "--parallel 1");
    int fd = begin_request(s.port, "{" LONG_ANSWER ",\"stream\":true}");
    char bytes[64];
    assert_true(recv(fd, bytes, sizeof(bytes), 0) > 0);
    int64_t started = now_ms();
    stop(&s, SIGTERM); /* exit status 0 */
    assert_true(now_ms() - started < 60000);
    (void)close(fd);
}

/* ---- another adapter while it serves ---- */

typedef struct asker {
    pthread_t thread;
    int port;
    _Atomic bool must_end;
    unsigned n_answers, n_bad;
} asker;

static void *ask_on(void *context)
{
    asker *a = context;
    while (!a->must_end) {
        client c = {.port = a->port};
        (void)ask_once(&c);
        a->n_answers++;
        a->n_bad += c.status != 200 || c.text[0] == '\0';
    }
    return NULL;
}

/* The adapter that a server's answers come from, by their fingerprint; wait until it is this one. */
static void await_fingerprint(int port, const char *hash)
{
    char seen[64] = "";
    for (int64_t until = now_ms() + DEADLINE_MS; now_ms() < until; pause_ms(50)) {
        json_t *object = post(port, "/v1/completions", "{\"prompt\":\"Sat\",\"max_tokens\":1}");
        (void)snprintf(seen, sizeof(seen), "%s", string_of(object, "system_fingerprint"));
        json_decref(object);
        if (strncmp(seen, hash, NAMED_DIGITS) == 0)
            return;
    }
    fail_msg("the fingerprint is '%s', wanted '%s'", seen, hash);
}

static void a_newly_installed_adapter_is_taken_without_dropping_a_request(void **state)
{
    (void)state;
    const fleet_profile *plain = &profiles[1];
    static asker askers[3];
    char hash[80];
    make_plain_task("task");
    server coordinator = serve("task", 0, "");
    enroll_members("task", "task", plain, coordinator.port);
    char more[128];
    (void)snprintf(more, sizeof(more), "--state %s", member("task", 0));
    server s = serve_model("server", more);
    await_fingerprint(s.port, NO_ADAPTER); /* none yet */
    for (size_t i = 0; i < ARRAY_LEN(askers); i++) {
        askers[i] = (asker){.port = s.port};
        assert_int_equal(pthread_create(&askers[i].thread, NULL, ask_on, &askers[i]), 0);
    }
    for (int i = 0; i < ROUNDS_SERVED; i++) {
        finish_rounds("task", "task", plain, 1, i + 1);
        (void)snprintf(hash, sizeof(hash), "%s",
                       text_of("adapter_hash", "$C status --state %s --json", member("task", 0)));
        await_fingerprint(s.port, hash);
    }
    for (size_t i = 0; i < ARRAY_LEN(askers); i++) {
        askers[i].must_end = true;
        (void)pthread_join(askers[i].thread, NULL);
        assert_true(askers[i].n_answers > 0);
        assert_int_equal(askers[i].n_bad, 0);
    }
    json_t *wanted = result_of(
        "$C generate --model $M --adapter %s/adapter/current --prompt 'Sat down' --tokens 24 --json",
        member("task", 0));
    json_t *got =
        post(s.port, "/v1/completions", "{\"prompt\":\"Sat down\",\"max_tokens\":24,\"temperature\":0}");
    assert_string_equal(said(got, 0), string_of(wanted, "text"));
    json_decref(got);
    json_decref(wanted);
    must_do("$C forget --state %s --yes --quiet", member("task", 0));
    await_fingerprint(s.port, NO_ADAPTER);
    stop(&s, SIGTERM);
    stop(&coordinator, SIGTERM);
}

/* ---- the upstream server ---- */

#define WAITING_MAX 16
#define HANDED_ON "{\"prompt\":\"Sat down\",\"model\":\"large\"}"

static const char *model_of(int port, const char *body)
{
    static char model[64];
    json_t *object = post(port, "/v1/completions", body);
    (void)snprintf(model, sizeof(model), "%s", string_of(object, "model"));
    json_decref(object);
    return model;
}

static void rules_hand_requests_on(void **state)
{
    (void)state;
    char more[512];
    put_text("key", "sesame\n");
    server far = serve_model("far", "--name far --api-key key");
    (void)snprintf(
        more, sizeof(more),
        "--name near --context 64 --upstream http://127.0.0.1:%d/v1 --upstream-key key --hand-on model:large "
        "--hand-on too-long --hand-on prompt-tokens:20 --hand-on unsupported",
        far.port);
    server near = serve_model("near", more);
    assert_string_equal(model_of(near.port, "{\"prompt\":\"Sat down\"}"), "near");
    assert_string_equal(model_of(near.port, "{\"prompt\":\"Sat down\",\"model\":\"larger\"}"), "near");
    assert_string_equal(model_of(near.port, "{\"prompt\":\"Sat down\",\"model\":\"large\"}"), "far");
    char *longer = repeated("{\"max_tokens\":4,\"prompt\":\"", "walk ", 30, "\"}");
    assert_string_equal(model_of(near.port, longer), "far"); /* more than 20 tokens */
    free(longer);
    longer = repeated("{\"max_tokens\":4,\"prompt\":\"", "walk ", 100, "\"}");
    assert_string_equal(model_of(near.port, longer), "far"); /* more than the context */
    free(longer);
    streamed got = stream(near.port, "/v1/completions",
                          "{\"prompt\":\"Sat down\",\"model\":\"large\",\"stream\":true,\"temperature\":0}");
    streamed own =
        stream(near.port, "/v1/completions", "{\"prompt\":\"Sat down\",\"stream\":true,\"temperature\":0}");
    assert_string_equal((const char *)got.text[0].bytes, (const char *)own.text[0].bytes);
    assert_string_equal(string_of(json_array_get(got.kept, 0), "model"), "far");
    streamed_release(&got);
    streamed_release(&own);
    asked answer = ask((question){.port = near.port,
                                  .path = "/v1/completions",
                                  .body = "{\"prompt\":\"a\",\"logprobs\":2}"}); /* it cannot, either */
    assert_error("passed through", &answer, 400, "logprobs", "unsupported_parameter");
    linnet_buffer_release(&answer.body);
    stop(&far, SIGTERM);
    answer = ask((question){.port = near.port,
                            .path = "/v1/completions",
                            .body = "{\"prompt\":\"Sat down\",\"model\":\"large\"}"});
    assert_error("nobody there", &answer, 502, NULL, NULL);
    linnet_buffer_release(&answer.body);
    stop(&near, SIGTERM);
}

static void an_unsure_answer_is_handed_on_where_that_can_be(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{\"prompt\":\"Sat down\",\"temperature\":0,\"max_tokens\":40}",
        "{\"prompt\":\"Sat down\",\"temperature\":0,\"max_tokens\":4}", /* shorter than what is judged */
    };
    char more[512];
    server far = serve_model("far", "--name far");
    (void)snprintf(more, sizeof(more), "--name near --upstream http://127.0.0.1:%d/v1 --hand-on confidence:1",
                   far.port);
    server unsure = serve_model("unsure", more);
    (void)snprintf(more, sizeof(more),
                   "--name near --upstream http://127.0.0.1:%d/v1 --hand-on confidence:1e-9", far.port);
    server sure = serve_model("sure", more);
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        assert_string_equal(model_of(unsure.port, bodies[i]), "far");
        assert_string_equal(model_of(sure.port, bodies[i]), "near");
    }
    streamed handed =
        stream(unsure.port, "/v1/completions", "{\"prompt\":\"Sat down\",\"temperature\":0,\"stream\":true}");
    streamed own =
        stream(sure.port, "/v1/completions", "{\"prompt\":\"Sat down\",\"temperature\":0,\"stream\":true}");
    assert_string_equal(string_of(json_array_get(handed.kept, 0), "model"), "far");
    assert_string_equal(string_of(json_array_get(own.kept, 0), "model"), "near");
    assert_string_equal((const char *)handed.text[0].bytes, (const char *)own.text[0].bytes);
    stop(&far, SIGTERM);
    streamed fallback =
        stream(unsure.port, "/v1/completions", "{\"prompt\":\"Sat down\",\"temperature\":0,\"stream\":true}");
    assert_string_equal(string_of(json_array_get(fallback.kept, 0), "model"), "near"); /* better than none */
    assert_string_equal((const char *)fallback.text[0].bytes, (const char *)own.text[0].bytes);
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++)
        assert_string_equal(model_of(unsure.port, bodies[i]), "near");
    streamed_release(&handed);
    streamed_release(&own);
    streamed_release(&fallback);
    stop(&unsure, SIGTERM);
    stop(&sure, SIGTERM);
}

/* A server whose upstream takes requests and says nothing, so that four of them are under way. */
static server start_stuck(int *ret_mute, int fds[4])
{
    int mute = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(address);
    char more[256];
    assert_int_equal(bind(mute, (struct sockaddr *)&address, n), 0);
    assert_int_equal(listen(mute, 16), 0);
    assert_int_equal(getsockname(mute, (struct sockaddr *)&address, &n), 0);
    (void)snprintf(more, sizeof(more), "--queue 1 --upstream http://127.0.0.1:%d --hand-on model:large",
                   ntohs(address.sin_port));
    server s = serve_model("stuck", more);
    for (size_t i = 0; i < 4; i++) {
        struct pollfd p = {.fd = mute, .events = POLLIN};
        fds[i] = begin_request(s.port, HANDED_ON);
        assert_int_equal(poll(&p, 1, 60000), 1);
        (void)accept(mute, NULL, NULL); /* kept open until the end of the program */
    }
    *ret_mute = mute;
    return s;
}

/* Ask until there is no room. Two requests may overtake each other, and one that gives up leaves its place,
 * so each try has another one before it that stays. */
static asked ask_for_room(int port, int waiting[WAITING_MAX])
{
    asked answer = {0};
    for (size_t i = 0; i < WAITING_MAX && answer.status != 503; i++) {
        linnet_buffer_release(&answer.body);
        waiting[i] = begin_request(port, HANDED_ON);
        answer = ask((question){.port = port,
                                .path = "/v1/completions",
                                .body = HANDED_ON,
                                .look_for = "Retry-After",
                                .patience_s = 2});
    }
    return answer;
}

static void more_than_may_wait_are_told_to_try_again(void **state)
{
    (void)state;
    int fds[4], mute = -1;
    server s = start_stuck(&mute, fds);
    int waiting[WAITING_MAX] = {0};
    asked answer = ask_for_room(s.port, waiting);
    assert_error("no room", &answer, 503, NULL, NULL);
    assert_string_equal(answer.header, "1");
    linnet_buffer_release(&answer.body);
    client own = {.port = s.port};
    (void)ask_once(&own); /* what the model answers itself waits elsewhere */
    assert_int_equal(own.status, 200);
    for (size_t i = 0; i < WAITING_MAX && waiting[i] > 0; i++)
        (void)close(waiting[i]); /* who leaves gives up the place */
    int next = begin_request(s.port, HANDED_ON);
    await_text("stuck.out", "\"status\":499");
    (void)close(next);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        (void)close(fds[i]);
    stop(&s, SIGTERM);
    (void)close(mute);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_completion_is_what_generate_says, acceptance_clean),
        cmocka_unit_test_setup(a_chat_answers_as_chat_does, acceptance_clean),
        cmocka_unit_test_setup(a_stream_says_the_same_piece_by_piece, acceptance_clean),
        cmocka_unit_test_setup(stop_strings_and_limits_end_an_answer, acceptance_clean),
        cmocka_unit_test_setup(bad_requests_name_the_field, acceptance_clean),
        cmocka_unit_test_setup(prompts_beyond_a_limit_are_refused, acceptance_clean),
        cmocka_unit_test_setup(routes_methods_hosts_and_keys_are_checked, acceptance_clean),
        cmocka_unit_test_setup(what_cannot_be_served_is_said_in_a_line, acceptance_clean),
        cmocka_unit_test_setup(thirty_two_clients_at_once_all_get_theirs, acceptance_clean),
        cmocka_unit_test_setup(who_leaves_is_not_answered_any_further, acceptance_clean),
        cmocka_unit_test_setup(slow_readers_hold_up_nobody, acceptance_clean),
        cmocka_unit_test_setup(a_stop_ends_what_grows_and_refuses_what_waits, acceptance_clean),
        cmocka_unit_test_setup(a_newly_installed_adapter_is_taken_without_dropping_a_request,
                               acceptance_clean),
        cmocka_unit_test_setup(rules_hand_requests_on, acceptance_clean),
        cmocka_unit_test_setup(an_unsure_answer_is_handed_on_where_that_can_be, acceptance_clean),
        cmocka_unit_test_setup(more_than_may_wait_are_told_to_try_again, acceptance_clean),
    };
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
    return acceptance_main(tests);
}
