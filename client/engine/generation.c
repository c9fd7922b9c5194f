/* SPDX-License-Identifier: Apache-2.0 */
/* The loop of drawing tokens. What could be the beginning of a stop string, or of a character, is held back
 * until more is known. There is one sequence at a time, and no penalties or grammars. */
#include "linnet/generation.h"

#include <time.h>

enum { FEED_TOKENS = 256 }; /* between two calls of on_feed; a multiple of what a session takes at once */

static double seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

uint32_t linnet_generation_context(const linnet_model *model, size_t n_prompt, uint64_t n_tokens)
{
    uint64_t needed = n_prompt + (n_tokens < UINT32_MAX ? n_tokens : UINT32_MAX);
    uint32_t most = linnet_model_shape_of(model)->context;
    return needed > 0 && needed < most ? (uint32_t)needed : most;
}

linnet_status linnet_generation_open(linnet_generation *g, const linnet_runtime *runtime,
                                     uint32_t context_tokens, linnet_error *err)
{
    g->runtime = runtime;
    g->context_tokens = context_tokens > 0 ? context_tokens : linnet_model_shape_of(runtime->model)->context;
    linnet_status status =
        linnet_session_create(runtime->model, runtime->pool, g->context_tokens, &g->session, err);
    if (status == LINNET_OK && runtime->adapter)
        status = linnet_session_set_adapter(g->session, runtime->adapter, err);
    return status;
}

void linnet_generation_release(linnet_generation *g)
{
    linnet_session_destroy(g->session);
    linnet_sampler_release(&g->sampler);
    linnet_ids_release(&g->ids);
    linnet_buffer_release(&g->text);
    linnet_buffer_release(&g->piece);
    g->session = NULL;
}

linnet_status linnet_generation_check(const linnet_ids *prompt, uint32_t context_tokens, linnet_error *err)
{
    if (prompt->n_items == 0)
        return linnet_fail(err, LINNET_ERR_ARG, "the prompt is empty");
    if (prompt->n_items > context_tokens)
        return linnet_fail(err, LINNET_ERR_LIMIT, "the prompt has %zu tokens, the model's context is %u",
                           prompt->n_items, (unsigned)context_tokens);
    return LINNET_OK;
}

/* ---- text ---- */

static bool stands_at(const linnet_buffer *text, size_t at, const char *stop, size_t n)
{
    return text->n_bytes - at >= n && memcmp(text->bytes + at, stop, n) == 0;
}

/* Where the first stop string begins that ends behind n_before; the text's length where there is none. */
static size_t find_stop(const linnet_generation *g, size_t n_before)
{
    size_t at = n_before > g->n_stop_max ? n_before - g->n_stop_max : 0;
    for (; at < g->text.n_bytes; at++) {
        for (size_t i = 0; i < g->n_stops; i++) {
            if (stands_at(&g->text, at, g->stops[i], strlen(g->stops[i])))
                return at;
        }
    }
    return at;
}

/* Up to where no stop string may have begun. */
static size_t safe_length(const linnet_generation *g)
{
    size_t at = g->text.n_bytes > g->n_stop_max ? g->text.n_bytes - g->n_stop_max : 0;
    for (; at < g->text.n_bytes; at++) {
        for (size_t i = 0; i < g->n_stops; i++) {
            if (strncmp(g->stops[i], (const char *)g->text.bytes + at, g->text.n_bytes - at) == 0)
                return at;
        }
    }
    return at;
}

/* Hand out what is new up to n_bytes of the text. false: the caller has had enough. */
static bool give_text(linnet_generation *g, size_t n_bytes, bool is_end)
{
    if (!g->on_text || n_bytes <= g->n_given)
        return true;
    linnet_buffer_clear(&g->piece);
    g->n_given += linnet_utf8_repair(g->text.bytes + g->n_given, n_bytes - g->n_given, is_end, &g->piece);
    return g->piece.n_bytes == 0 || g->on_text(g->context, (const char *)g->piece.bytes, g->piece.n_bytes);
}

/* ---- tokens ---- */

static bool is_end(const linnet_generation *g, int32_t id)
{
    return linnet_tokenizer_is_end(g->runtime->tokenizer, id) || (id == g->end_of_turn && id >= 0);
}

static linnet_status feed(linnet_generation *g, const int32_t *ids, size_t n, const float **ret_logits,
                          linnet_error *err)
{
    linnet_status status = LINNET_OK;
    for (size_t at = 0; at < n && status == LINNET_OK; at += FEED_TOKENS) {
        size_t n_part = n - at < FEED_TOKENS ? n - at : FEED_TOKENS;
        if (g->on_feed)
            status = g->on_feed(g->context, g->session, err);
        if (status == LINNET_OK)
            status = linnet_session_feed(g->session, ids + at, n_part, ret_logits, err);
    }
    return status;
}

static linnet_status keep_token(linnet_generation *g, int32_t id, linnet_error *err)
{
    if (linnet_ids_append(&g->ids, id) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the text");
    linnet_detokenize(g->runtime->tokenizer, id, &g->text);
    return g->text.failed ? linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the text") : LINNET_OK;
}

/* Take a drawn token into the text. *ret_goes_on: may another be drawn? */
static linnet_status take_token(linnet_generation *g, int32_t id, bool *ret_goes_on, linnet_error *err)
{
    size_t n_before = g->text.n_bytes;
    *ret_goes_on = false;
    if (is_end(g, id)) {
        g->stopped = LINNET_STOP_END;
        return LINNET_OK;
    }
    linnet_status status = keep_token(g, id, err);
    if (status != LINNET_OK)
        return status;
    size_t stop_at = find_stop(g, n_before);
    if (stop_at < g->text.n_bytes) {
        g->text.n_bytes = stop_at;
        g->stopped = LINNET_STOP_STRING;
    } else if (!give_text(g, safe_length(g), false)) {
        g->stopped = LINNET_STOP_CALLER;
    } else if (g->ids.n_items >= g->n_tokens) {
        g->stopped = LINNET_STOP_TOKENS;
    } else if (linnet_session_n_tokens(g->session) >= g->context_tokens) {
        g->stopped = LINNET_STOP_CONTEXT;
    } else {
        *ret_goes_on = true;
    }
    return LINNET_OK;
}

static linnet_status decode(linnet_generation *g, const float *logits, linnet_error *err)
{
    uint32_t vocabulary = linnet_model_shape_of(g->runtime->model)->vocabulary;
    bool goes_on = g->n_tokens > 0;
    g->stopped = LINNET_STOP_TOKENS;
    while (goes_on) {
        int32_t id = -1;
        linnet_status status = linnet_sampler_next(&g->sampler, logits, vocabulary, &id, err);
        if (status == LINNET_OK && g->on_token)
            g->on_token(g->context, id, logits);
        if (status == LINNET_OK)
            status = take_token(g, id, &goes_on, err);
        if (status == LINNET_OK && goes_on)
            status = feed(g, &id, 1, &logits, err);
        if (status != LINNET_OK)
            return status;
    }
    if (g->stopped != LINNET_STOP_CALLER)
        (void)give_text(g, g->text.n_bytes, true); /* it ends either way */
    return g->piece.failed ? linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the text") : LINNET_OK;
}

linnet_status linnet_generation_run(linnet_generation *g, const linnet_ids *prompt, linnet_error *err)
{
    const float *logits = NULL;
    linnet_session_reset(g->session);
    g->ids.n_items = 0;
    linnet_buffer_clear(&g->text);
    linnet_buffer_clear(&g->piece);
    g->n_given = g->n_stop_max = 0;
    for (size_t i = 0; i < g->n_stops; i++) {
        size_t n = strlen(g->stops[i]);
        g->n_stop_max = n > g->n_stop_max ? n : g->n_stop_max;
    }
    double start = seconds();
    linnet_status status = feed(g, prompt->items, prompt->n_items, &logits, err);
    g->prefill_seconds = seconds() - start;
    start = seconds();
    if (status == LINNET_OK)
        status = decode(g, logits, err);
    g->decode_seconds = seconds() - start;
    return status;
}
