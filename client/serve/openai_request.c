/* SPDX-License-Identifier: Apache-2.0 */
/* A body into a checked request. A table says what each field may be; a field that is null is absent, and one
 * that stands in no table is somebody's extension and ignored. Messages of errors never quote a text. */
#include "openai.h"

#include "linnet/json_load.h"

#include <math.h>
#include <stdlib.h>

#define ON_CHAT 1u
#define ON_TEXT 2u
#define MESSAGES_MAX 4096

typedef struct parser {
    openai_request *request;
    openai_fault *fault;
    linnet_error *err;
} parser;

static linnet_status wrong(parser *p, const char *field, linnet_status status, const char *why)
{
    p->fault->status = 400;
    (void)snprintf(p->fault->param, sizeof(p->fault->param), "%s", field);
    return linnet_fail(p->err, status, "'%s' %s", field, why);
}

static linnet_status no_memory(parser *p)
{
    p->fault->status = 500;
    return linnet_fail(p->err, LINNET_ERR_NOMEM, "no memory for the request");
}

/* ---- numbers and flags ---- */

static linnet_status take_count(parser *p, const char *field, const json_t *value, uint64_t max,
                                bool *ret_has, uint64_t *ret_count)
{
    if (!json_is_integer(value))
        return wrong(p, field, LINNET_ERR_FORMAT, "is no whole number");
    if (json_integer_value(value) < 0 || (uint64_t)json_integer_value(value) > max)
        return wrong(p, field, LINNET_ERR_RANGE, "is out of range");
    *ret_has = true;
    *ret_count = (uint64_t)json_integer_value(value);
    return LINNET_OK;
}

static linnet_status take_number(parser *p, const char *field, const json_t *value, double max,
                                 double *ret_number)
{
    if (!json_is_number(value))
        return wrong(p, field, LINNET_ERR_FORMAT, "is no number");
    double number = json_number_value(value);
    if (!(number >= 0 && number <= max))
        return wrong(p, field, LINNET_ERR_RANGE, "is out of range");
    *ret_number = number;
    return LINNET_OK;
}

static linnet_status take_flag(parser *p, const char *field, const json_t *value, bool *ret_flag)
{
    if (!json_is_boolean(value))
        return wrong(p, field, LINNET_ERR_FORMAT, "is neither true nor false");
    *ret_flag = json_is_true(value);
    return LINNET_OK;
}

static linnet_status parse_tokens(parser *p, const char *field, const json_t *value)
{
    return take_count(p, field, value, UINT32_MAX, &p->request->has_n_tokens, &p->request->n_tokens);
}

static linnet_status parse_n(parser *p, const char *field, const json_t *value)
{
    bool has = false;
    uint64_t n = 1;
    linnet_status status = take_count(p, field, value, OPENAI_CHOICES_MAX, &has, &n);
    if (status == LINNET_OK && n == 0)
        status = wrong(p, field, LINNET_ERR_RANGE, "is out of range");
    p->request->n_choices = (uint32_t)n;
    return status;
}

/* Any integer: a negative one is as good a seed. */
static linnet_status parse_seed(parser *p, const char *field, const json_t *value)
{
    if (!json_is_integer(value))
        return wrong(p, field, LINNET_ERR_FORMAT, "is no whole number");
    p->request->has_seed = true;
    p->request->seed = (uint64_t)json_integer_value(value);
    return LINNET_OK;
}

static linnet_status parse_temperature(parser *p, const char *field, const json_t *value)
{
    return take_number(p, field, value, 2, &p->request->temperature);
}

static linnet_status parse_top_p(parser *p, const char *field, const json_t *value)
{
    linnet_status status = take_number(p, field, value, 1, &p->request->top_p);
    if (status == LINNET_OK && p->request->top_p == 0)
        p->request->temperature = 0; /* a share of nothing leaves the likeliest token */
    if (status == LINNET_OK && p->request->top_p == 0)
        p->request->top_p = 1;
    return status;
}

static linnet_status parse_stream(parser *p, const char *field, const json_t *value)
{
    return take_flag(p, field, value, &p->request->streams);
}

static linnet_status parse_stream_options(parser *p, const char *field, const json_t *value)
{
    if (!json_is_object(value))
        return wrong(p, field, LINNET_ERR_FORMAT, "is no object");
    const json_t *usage = json_object_get(value, "include_usage");
    return usage && !json_is_null(usage)
               ? take_flag(p, "stream_options.include_usage", usage, &p->request->includes_usage)
               : LINNET_OK;
}

static linnet_status parse_echo(parser *p, const char *field, const json_t *value)
{
    return take_flag(p, field, value, &p->request->echoes);
}

static linnet_status parse_model(parser *p, const char *field, const json_t *value)
{
    p->request->model = json_string_value(value);
    return p->request->model ? LINNET_OK : wrong(p, field, LINNET_ERR_FORMAT, "is no text");
}

/* ---- stop strings ---- */

static linnet_status add_stop(parser *p, const char *field, const json_t *value)
{
    if (!json_is_string(value))
        return wrong(p, field, LINNET_ERR_FORMAT, "is neither a text nor a list of texts");
    if (json_string_length(value) == 0)
        return LINNET_OK; /* stops nothing */
    if (p->request->n_stops == OPENAI_STOPS_MAX)
        return wrong(p, field, LINNET_ERR_LIMIT, "has more than 16 texts");
    p->request->stops[p->request->n_stops++] = json_string_value(value);
    return LINNET_OK;
}

static linnet_status parse_stop(parser *p, const char *field, const json_t *value)
{
    linnet_status status = LINNET_OK;
    if (!json_is_array(value))
        return add_stop(p, field, value);
    for (size_t i = 0; i < json_array_size(value) && status == LINNET_OK; i++)
        status = add_stop(p, field, json_array_get(value, i));
    return status;
}

/* ---- messages ---- */

/* {"type": "text", "text": ...}; an image or a sound is for a larger model. */
static linnet_status add_content_part(parser *p, const json_t *part, linnet_buffer *text)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *value = json_object_get(part, "text");
    if (type && strcmp(type, "text") == 0 && json_is_string(value)) {
        linnet_buffer_append(text, json_string_value(value), json_string_length(value));
        return LINNET_OK;
    }
    if (!type || strcmp(type, "text") == 0)
        return wrong(p, "messages", LINNET_ERR_FORMAT, "has a part of a content that is no text part");
    p->request->unsupported = "messages.content.type";
    return LINNET_OK;
}

static linnet_status parse_content(parser *p, const json_t *message, const json_t *content, char **ret_text)
{
    linnet_buffer text = {0};
    linnet_status status = LINNET_OK;
    bool calls = json_object_get(message, "tool_calls") || json_object_get(message, "function_call");
    if (json_is_string(content)) {
        linnet_buffer_append(&text, json_string_value(content), json_string_length(content));
    } else if (json_is_array(content)) {
        for (size_t i = 0; i < json_array_size(content) && status == LINNET_OK; i++)
            status = add_content_part(p, json_array_get(content, i), &text);
    } else if (!calls) {
        status = wrong(p, "messages", LINNET_ERR_FORMAT, "has a message whose 'content' is no text");
    }
    if (calls)
        p->request->unsupported = "messages.tool_calls";
    linnet_buffer_append_u8(&text, 0);
    if (status != LINNET_OK || text.failed) {
        linnet_buffer_release(&text);
        return status != LINNET_OK ? status : no_memory(p);
    }
    *ret_text = (char *)text.bytes;
    return LINNET_OK;
}

/* A developer is who spoke as the system before; a tool's results are for models that call tools. */
static const char *parse_role(parser *p, const char *role)
{
    static const char *const plain[] = {"system", "user", "assistant"};
    for (size_t i = 0; role && i < ARRAY_LEN(plain); i++)
        if (strcmp(role, plain[i]) == 0)
            return plain[i];
    if (role && strcmp(role, "developer") == 0)
        return "system";
    if (!role || (strcmp(role, "tool") != 0 && strcmp(role, "function") != 0))
        return NULL;
    p->request->unsupported = "messages.role";
    return "user";
}

static linnet_status parse_message(parser *p, const json_t *value, linnet_message *message)
{
    const char *role = parse_role(p, json_string_value(json_object_get(value, "role")));
    if (!role)
        return wrong(p, "messages", LINNET_ERR_FORMAT,
                     "has a message whose 'role' is not system, user or assistant");
    message->role = strdup(role);
    if (!message->role)
        return no_memory(p);
    return parse_content(p, value, json_object_get(value, "content"), &message->content);
}

static linnet_status parse_messages(parser *p, const char *field, const json_t *value)
{
    size_t n = json_array_size(value);
    linnet_status status = LINNET_OK;
    if (n == 0)
        return wrong(p, field, LINNET_ERR_FORMAT, "is no list of messages");
    if (n > MESSAGES_MAX)
        return wrong(p, field, LINNET_ERR_LIMIT, "has more than 4096 messages");
    p->request->messages = calloc(n, sizeof(*p->request->messages));
    if (!p->request->messages)
        return no_memory(p);
    p->request->n_messages = n;
    p->request->n_prompts = 1;
    for (size_t i = 0; i < n && status == LINNET_OK; i++)
        status = parse_message(p, json_array_get(value, i), &p->request->messages[i]);
    return status;
}

/* ---- prompts of text completions ---- */

static linnet_status take_ids(parser *p, const char *field, const json_t *value, linnet_ids *ids)
{
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *id = json_array_get(value, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            return wrong(p, field, LINNET_ERR_FORMAT, "has an item that is no token");
        if (linnet_ids_append(ids, (int32_t)json_integer_value(id)) != LINNET_OK)
            return no_memory(p);
    }
    return LINNET_OK;
}

static linnet_status take_prompt(parser *p, const char *field, const json_t *value, openai_prompt *prompt)
{
    if (json_is_array(value) && json_array_size(value) > 0)
        return take_ids(p, field, value, &prompt->ids);
    prompt->text = json_string_value(value);
    return prompt->text ? LINNET_OK
                        : wrong(p, field, LINNET_ERR_FORMAT,
                                "is neither a text, a list of texts, a list of tokens nor a list of those");
}

static linnet_status parse_prompt(parser *p, const char *field, const json_t *value)
{
    bool is_many = json_is_array(value) && !json_is_integer(json_array_get(value, 0));
    size_t n = is_many ? json_array_size(value) : 1;
    linnet_status status = LINNET_OK;
    if (n == 0)
        return wrong(p, field, LINNET_ERR_FORMAT, "is empty");
    if (n > OPENAI_CHOICES_MAX)
        return wrong(p, field, LINNET_ERR_LIMIT, "has more than 16 prompts");
    p->request->prompts = calloc(n, sizeof(*p->request->prompts));
    if (!p->request->prompts)
        return no_memory(p);
    p->request->n_prompts = n;
    for (size_t i = 0; i < n && status == LINNET_OK; i++)
        status = take_prompt(p, field, is_many ? json_array_get(value, i) : value, &p->request->prompts[i]);
    return status;
}

/* ---- what is not done here ---- */

static bool is_zero(const json_t *value)
{
    return json_is_number(value) && json_number_value(value) == 0;
}

static bool is_empty(const json_t *value)
{
    return (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

static bool is_false(const json_t *value)
{
    return json_is_false(value);
}

static bool is_none_or_auto(const json_t *value)
{
    const char *text = json_string_value(value);
    return text && (strcmp(text, "none") == 0 || strcmp(text, "auto") == 0);
}

static bool is_text_format(const json_t *value)
{
    const char *type = json_string_value(json_object_get(value, "type"));
    return type && strcmp(type, "text") == 0;
}

static bool is_text_only(const json_t *value)
{
    const char *first = json_string_value(json_array_get(value, 0));
    return json_array_size(value) == 1 && first && strcmp(first, "text") == 0;
}

static bool is_at_most_one(const json_t *value)
{
    return json_is_integer(value) && json_integer_value(value) <= 1;
}

static bool never(const json_t *value)
{
    (void)value;
    return false;
}

/* A field, and when it asks for nothing that is not done. */
static const struct {
    const char *name;
    bool (*is_fine)(const json_t *value);
} unsupported[] = {
    {"tools", is_empty},
    {"tool_choice", is_none_or_auto},
    {"functions", is_empty},
    {"function_call", is_none_or_auto},
    {"response_format", is_text_format},
    {"modalities", is_text_only},
    {"audio", never},
    {"web_search_options", never},
    {"logit_bias", is_empty},
    {"logprobs", is_false},
    {"top_logprobs", is_zero},
    {"presence_penalty", is_zero},
    {"frequency_penalty", is_zero},
    {"best_of", is_at_most_one},
    {"suffix", never},
};

static void find_unsupported(openai_request *request)
{
    for (size_t i = 0; i < ARRAY_LEN(unsupported) && !request->unsupported; i++) {
        const json_t *value = json_object_get(request->object, unsupported[i].name);
        if (value && !json_is_null(value) && !unsupported[i].is_fine(value))
            request->unsupported = unsupported[i].name;
    }
}

/* ---- the table ---- */

typedef linnet_status parse_fn(parser *p, const char *field, const json_t *value);

static const struct {
    const char *name;
    unsigned on;
    parse_fn *parse;
} fields[] = {
    {"model", ON_CHAT | ON_TEXT, parse_model},
    {"messages", ON_CHAT, parse_messages},
    {"prompt", ON_TEXT, parse_prompt},
    {"max_tokens", ON_CHAT | ON_TEXT, parse_tokens},
    {"max_completion_tokens", ON_CHAT, parse_tokens}, /* behind the older name, which it replaces */
    {"n", ON_CHAT | ON_TEXT, parse_n},
    {"temperature", ON_CHAT | ON_TEXT, parse_temperature},
    {"top_p", ON_CHAT | ON_TEXT, parse_top_p}, /* behind temperature, which a 0 here overrules */
    {"seed", ON_CHAT | ON_TEXT, parse_seed},
    {"stop", ON_CHAT | ON_TEXT, parse_stop},
    {"stream", ON_CHAT | ON_TEXT, parse_stream},
    {"stream_options", ON_CHAT | ON_TEXT, parse_stream_options},
    {"echo", ON_TEXT, parse_echo},
};

static linnet_status parse_fields(parser *p)
{
    unsigned here = p->request->is_chat ? ON_CHAT : ON_TEXT;
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < ARRAY_LEN(fields) && status == LINNET_OK; i++) {
        const json_t *value = json_object_get(p->request->object, fields[i].name);
        if (value && !json_is_null(value) && (fields[i].on & here))
            status = fields[i].parse(p, fields[i].name, value);
    }
    if (status == LINNET_OK && p->request->n_prompts == 0)
        status = wrong(p, p->request->is_chat ? "messages" : "prompt", LINNET_ERR_FORMAT, "is missing");
    if (status == LINNET_OK && p->request->n_prompts * p->request->n_choices > OPENAI_CHOICES_MAX)
        status = wrong(p, "n", LINNET_ERR_LIMIT, "times the number of prompts is more than 16");
    return status;
}

linnet_status openai_request_parse(const void *body, size_t n_bytes, bool is_chat,
                                   openai_request *ret_request, openai_fault *ret_fault, linnet_error *err)
{
    parser p = {.request = ret_request, .fault = ret_fault, .err = err};
    *ret_request = (openai_request){.is_chat = is_chat, .n_choices = 1, .temperature = 1, .top_p = 1};
    *ret_fault = (openai_fault){.status = 400};
    linnet_status status = linnet_json_load(body, n_bytes, &ret_request->object, err);
    if (status != LINNET_OK) {
        ret_fault->status = status == LINNET_ERR_NOMEM ? 500 : 400;
        return linnet_error_prefix(err, status, "the request");
    }
    status = parse_fields(&p);
    if (status == LINNET_OK)
        find_unsupported(ret_request);
    return status;
}

void openai_request_release(openai_request *request)
{
    for (size_t i = 0; i < request->n_messages; i++) {
        free(request->messages[i].role);
        free(request->messages[i].content);
    }
    for (size_t i = 0; request->prompts && i < request->n_prompts; i++)
        linnet_ids_release(&request->prompts[i].ids);
    free(request->messages);
    free(request->prompts);
    json_decref(request->object);
    *request = (openai_request){0};
}
