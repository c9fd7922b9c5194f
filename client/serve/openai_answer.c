/* SPDX-License-Identifier: Apache-2.0 */
/* Answers as JSON, whole or as server-sent events
 * (https://html.spec.whatwg.org/multipage/server-sent-events.html). On lack of memory the buffer's `failed`
 * says so. */
#include "openai.h"

#include "linnet/hash.h"

#include <stdlib.h>
#include <time.h>

static int append(const char *text, size_t n_bytes, void *buffer)
{
    linnet_buffer_append(buffer, text, n_bytes);
    return ((linnet_buffer *)buffer)->failed ? -1 : 0;
}

/* Steals the object, which may be NULL. */
static void write_json(json_t *object, linnet_buffer *to)
{
    if (!object || json_dump_callback(object, append, to, JSON_COMPACT) != 0)
        to->failed = true;
    json_decref(object);
}

static void write_event(json_t *object, linnet_buffer *stream)
{
    linnet_buffer_append_text(stream, "data: ");
    write_json(object, stream);
    linnet_buffer_append_text(stream, "\n\n");
}

/* ---- errors ---- */

static const char *type_of(int status)
{
    switch (status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 429:
    case 503:
        return "overloaded_error";
    default:
        return status < 500 ? "invalid_request_error" : "server_error";
    }
}

static json_t *error_object(int status, const openai_fault *fault, const char *message)
{
    const char *param = fault && fault->param[0] ? fault->param : NULL;
    return json_pack("{s:{s:s, s:s, s:s?, s:s?}}", "error", "message", message, "type", type_of(status),
                     "param", param, "code", fault ? fault->code : NULL);
}

void openai_write_error(linnet_buffer *body, int status, const openai_fault *fault, const char *message)
{
    write_json(error_object(status, fault, message), body);
}

void openai_write_failure(const char *message, linnet_buffer *stream)
{
    write_event(error_object(500, NULL, message), stream);
}

/* ---- answers ---- */

void openai_answer_init(openai_answer *answer, bool is_chat, const char *model)
{
    uint8_t random[12];
    char hex[2 * sizeof(random) + 1];
    linnet_random_bytes(random, sizeof(random));
    linnet_hex_write(random, sizeof(random), hex);
    *answer = (openai_answer){.is_chat = is_chat, .created = (int64_t)time(NULL), .model = model};
    (void)snprintf(answer->id, sizeof(answer->id), "%s-%s", is_chat ? "chatcmpl" : "cmpl", hex);
}

static json_t *usage_object(const openai_usage *usage)
{
    return json_pack("{s:I, s:I, s:I}", "prompt_tokens", (json_int_t)usage->n_prompt_tokens,
                     "completion_tokens", (json_int_t)usage->n_tokens, "total_tokens",
                     (json_int_t)(usage->n_prompt_tokens + usage->n_tokens));
}

/* Steals choices. */
static json_t *answer_object(const openai_answer *a, bool is_piece, json_t *choices)
{
    const char *kind = !a->is_chat ? "text_completion"
                       : is_piece  ? "chat.completion.chunk"
                                   : "chat.completion";
    return json_pack("{s:s, s:s, s:I, s:s, s:s, s:o}", "id", a->id, "object", kind, "created",
                     (json_int_t)a->created, "model", a->model, "system_fingerprint", a->fingerprint,
                     "choices", choices);
}

static json_t *choice_object(const openai_answer *a, size_t index, const openai_choice *choice)
{
    const char *bytes = choice->text.bytes ? (const char *)choice->text.bytes : "";
    json_t *text = json_stringn(bytes, choice->text.n_bytes);
    if (!a->is_chat)
        return json_pack("{s:o, s:I, s:n, s:s?}", "text", text, "index", (json_int_t)index, "logprobs",
                         "finish_reason", choice->finish);
    return json_pack("{s:I, s:{s:s, s:o, s:n}, s:n, s:s?}", "index", (json_int_t)index, "message", "role",
                     "assistant", "content", text, "refusal", "logprobs", "finish_reason", choice->finish);
}

void openai_write_answer(const openai_answer *answer, const openai_choice *choices, size_t n,
                         const openai_usage *usage, linnet_buffer *body)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        if (json_array_append_new(list, choice_object(answer, i, &choices[i])) != 0)
            body->failed = true;
    json_t *object = answer_object(answer, false, list);
    if (json_object_set_new(object, "usage", usage_object(usage)) != 0)
        body->failed = true;
    write_json(object, body);
}

static json_t *delta_object(bool is_first, const char *text, size_t n_bytes)
{
    json_t *delta = is_first ? json_pack("{s:s}", "role", "assistant") : json_object();
    if (is_first || n_bytes > 0)
        (void)json_object_set_new(delta, "content", json_stringn(text, n_bytes)); /* takes NULL, and fails */
    return delta;
}

void openai_write_piece(const openai_answer *answer, size_t choice, bool is_first, const char *text,
                        size_t n_bytes, const char *finish, linnet_buffer *stream)
{
    json_t *piece =
        answer->is_chat
            ? json_pack("{s:I, s:o, s:n, s:s?}", "index", (json_int_t)choice, "delta",
                        delta_object(is_first, text, n_bytes), "logprobs", "finish_reason", finish)
            : json_pack("{s:I, s:o, s:n, s:s?}", "index", (json_int_t)choice, "text",
                        json_stringn(text, n_bytes), "logprobs", "finish_reason", finish);
    write_event(answer_object(answer, true, json_pack("[o]", piece)), stream);
}

void openai_write_usage(const openai_answer *answer, const openai_usage *usage, linnet_buffer *stream)
{
    json_t *object = answer_object(answer, true, json_array());
    if (json_object_set_new(object, "usage", usage_object(usage)) != 0)
        stream->failed = true;
    write_event(object, stream);
}

void openai_write_done(linnet_buffer *stream)
{
    linnet_buffer_append_text(stream, "data: [DONE]\n\n");
}

void openai_write_model(const char *name, int64_t created, bool is_list, linnet_buffer *body)
{
    json_t *model = json_pack("{s:s, s:s, s:I, s:s}", "id", name, "object", "model", "created",
                              (json_int_t)created, "owned_by", "linnet");
    write_json(is_list ? json_pack("{s:s, s:[o]}", "object", "list", "data", model) : model, body);
}
