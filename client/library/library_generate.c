/* SPDX-License-Identifier: Apache-2.0 */
/* Generating through the handle of a model: options, the callback, the adapter in use, cancelling and the
 * limit of memory around linnet/generation.h. */
#include "library.h"

#include "linnet/generation.h"

#include <stdlib.h>

enum { MAX_TOKENS = 64 }; /* where nothing is said */

typedef struct run {
    lin_model *model;
    linnet_ids prompt;
    linnet_generation generation;
    linnet_shared_adapter *adapter; /* that the session has; NULL: none */
    size_t memory_bytes;
    uint64_t needed_bytes; /* where that is over the limit */
    lin_text_fn *on_text;
    void *user;
} run;

static bool give_text(void *context, const char *text, size_t n_bytes)
{
    run *r = context;
    return r->on_text(r->user, text, n_bytes) == 0;
}

/* The session gets the adapter that the model uses by now. */
static linnet_status take_adapter(run *r, linnet_session *session, linnet_error *err)
{
    linnet_shared_adapter *now = linnet_adapter_slot_take(&r->model->adapter);
    linnet_status status = LINNET_OK;
    if (now != r->adapter) {
        status = linnet_session_swap_adapter(session, linnet_shared_adapter_get(now), err);
        linnet_shared_adapter *before = r->adapter;
        r->adapter = now; /* on failure the session has none, and this is released with the run */
        now = before;
    }
    linnet_shared_adapter_release(now);
    return status;
}

static linnet_status before_feeding(void *context, linnet_session *session, linnet_error *err)
{
    run *r = context;
    linnet_status status = library_model_cancelled(r->model, err);
    if (status == LINNET_OK)
        status = take_adapter(r, session, err);
    if (status != LINNET_OK)
        return status;
    r->memory_bytes = linnet_session_bytes(session);
    if (r->memory_bytes <= library_bytes_max(r->model->memory_max))
        return LINNET_OK;
    r->needed_bytes = r->memory_bytes;
    return linnet_fail(err, LINNET_ERR_LIMIT, "a context of %u tokens needs %zu bytes, memory_max is %llu",
                       (unsigned)r->generation.context_tokens, r->memory_bytes,
                       (unsigned long long)r->model->memory_max);
}

static linnet_status set_options(run *r, const lin_generate_options *o, linnet_error *err)
{
    double top_p = o->top_p == 0 ? 1 : o->top_p;
    if (!(o->temperature >= 0 && o->temperature <= 100))
        return linnet_fail(err, LINNET_ERR_ARG, "temperature: 0 to 100");
    if (!(top_p > 0 && top_p <= 1))
        return linnet_fail(err, LINNET_ERR_ARG, "top_p: 0 to 1");
    linnet_status status = o->n_stop > 0 ? library_need(o->stop, "stop", err) : LINNET_OK;
    for (uint32_t i = 0; i < o->n_stop && status == LINNET_OK; i++) {
        if (!o->stop[i] || o->stop[i][0] == '\0')
            status = linnet_fail(err, LINNET_ERR_ARG, "a stop string is empty");
    }
    linnet_sampler_init(&r->generation.sampler, o->temperature, top_p, o->seed);
    r->generation.n_tokens = o->max_tokens == 0 ? MAX_TOKENS : o->max_tokens;
    r->generation.stops = o->stop;
    r->generation.n_stops = o->n_stop;
    return status;
}

static linnet_status generate(run *r, const lin_generate_options *o, linnet_error *err)
{
    const linnet_model *model = r->model->runtime.model;
    linnet_generation *g = &r->generation;
    uint32_t usual = linnet_generation_context(model, r->prompt.n_items, g->n_tokens);
    uint32_t context = linnet_context_choose(model, o->context_tokens, usual);
    g->context = r;
    g->on_text = r->on_text ? give_text : NULL;
    g->on_feed = before_feeding;
    if (context == 0)
        return linnet_fail(err, LINNET_ERR_LIMIT, "a context of %u tokens is more than the model's %u",
                           (unsigned)o->context_tokens, (unsigned)linnet_model_shape_of(model)->context);
    linnet_status status = linnet_generation_check(&r->prompt, context, err);
    if (status == LINNET_OK)
        status = linnet_generation_open(g, &r->model->runtime, context, err);
    return status == LINNET_OK ? linnet_generation_run(g, &r->prompt, err) : status;
}

static void give_result(const run *r, lin_generate_result *result)
{
    static const uint32_t stopped[] = {[LINNET_STOP_END] = LIN_STOPPED_END,
                                       [LINNET_STOP_TOKENS] = LIN_STOPPED_TOKENS,
                                       [LINNET_STOP_CONTEXT] = LIN_STOPPED_CONTEXT,
                                       [LINNET_STOP_STRING] = LIN_STOPPED_STRING,
                                       [LINNET_STOP_CALLER] = LIN_STOPPED_CALLBACK};
    const lin_generate_result own = {.stopped = stopped[r->generation.stopped],
                                     .n_prompt_tokens = r->prompt.n_items,
                                     .n_tokens = r->generation.ids.n_items,
                                     .prefill_seconds = r->generation.prefill_seconds,
                                     .decode_seconds = r->generation.decode_seconds,
                                     .memory_bytes = r->memory_bytes};
    if (result)
        library_give(&own, sizeof(own), result);
}

/* What a prompt or a conversation is made of. */
typedef struct asked {
    const char *prompt; /* NULL: messages */
    const linnet_message *messages;
    size_t n_messages;
} asked;

static linnet_status encode(run *r, const asked *a, linnet_error *err)
{
    const linnet_tokenizer *tokenizer = r->model->runtime.tokenizer;
    r->generation.end_of_turn = -1;
    if (!a->prompt)
        return linnet_chat_encode(a->messages, a->n_messages, tokenizer, &r->prompt,
                                  &r->generation.end_of_turn, err);
    return linnet_tokenize(tokenizer, a->prompt, strlen(a->prompt),
                           LINNET_TOKENIZE_BEGIN | LINNET_TOKENIZE_PREFIX, &r->prompt, err);
}

static linnet_status run_asked(run *r, const asked *a, const lin_generate_options *options,
                               lin_generate_result *result, linnet_error *err)
{
    lin_generate_options own;
    linnet_status status = library_take(options, &own, sizeof(own), err);
    if (status == LINNET_OK)
        status = set_options(r, &own, err);
    if (status == LINNET_OK && result)
        status = library_check(result, err);
    if (status == LINNET_OK)
        status = library_model_enter(r->model, err);
    if (status != LINNET_OK)
        return status;
    status = encode(r, a, err);
    if (status == LINNET_OK)
        status = generate(r, &own, err);
    if (status == LINNET_OK)
        give_result(r, result);
    linnet_generation_release(&r->generation);
    linnet_ids_release(&r->prompt);
    linnet_shared_adapter_release(r->adapter);
    library_model_leave(r->model);
    return status;
}

lin_status lin_generate(lin_model *model, const char *prompt, const lin_generate_options *options,
                        lin_text_fn *on_text, void *user, lin_generate_result *result, lin_error *err)
{
    linnet_error why = {0};
    run r = {.model = model, .on_text = on_text, .user = user};
    const asked a = {.prompt = prompt};
    linnet_status status = library_need(model, "model", &why);
    if (status == LINNET_OK)
        status = library_need(prompt, "prompt", &why);
    if (status == LINNET_OK)
        status = run_asked(&r, &a, options, result, &why);
    return library_return(status, &why, r.needed_bytes, err);
}

static linnet_status check_messages(const lin_message *messages, size_t n, linnet_error *err)
{
    static const char *const roles[] = {"system", "user", "assistant"};
    linnet_status status = n > 0 ? library_need(messages, "messages", err)
                                 : linnet_fail(err, LINNET_ERR_ARG, "there is no message");
    for (size_t i = 0; i < n && status == LINNET_OK; i++) {
        bool is_known = false;
        for (size_t role = 0; role < ARRAY_LEN(roles); role++)
            is_known = is_known || (messages[i].role && strcmp(messages[i].role, roles[role]) == 0);
        if (!is_known || !messages[i].content)
            status = linnet_fail(err, LINNET_ERR_ARG, "message %zu: %s", i + 1,
                                 is_known ? "content is NULL" : "the role is not system, user or assistant");
    }
    return status;
}

lin_status lin_chat(lin_model *model, const lin_message *messages, size_t n,
                    const lin_generate_options *options, lin_text_fn *on_text, void *user,
                    lin_generate_result *result, lin_error *err)
{
    linnet_error why = {0};
    run r = {.model = model, .on_text = on_text, .user = user};
    linnet_message *own = NULL; /* borrows the strings, which nobody changes */
    linnet_status status = library_need(model, "model", &why);
    if (status == LINNET_OK)
        status = check_messages(messages, n, &why);
    if (status == LINNET_OK) {
        own = calloc(n, sizeof(*own));
        if (!own)
            status = linnet_fail(&why, LINNET_ERR_NOMEM, "no memory for %zu messages", n);
    }
    for (size_t i = 0; i < n && status == LINNET_OK; i++)
        own[i] = (linnet_message){.role = (char *)(uintptr_t)messages[i].role,
                                  .content = (char *)(uintptr_t)messages[i].content};
    const asked a = {.messages = own, .n_messages = n};
    if (status == LINNET_OK)
        status = run_asked(&r, &a, options, result, &why);
    free(own);
    return library_return(status, &why, r.needed_bytes, err);
}
