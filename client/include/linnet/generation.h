/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_GENERATION_H
#define LINNET_GENERATION_H

/* A text token by token: feed the prompt, draw, feed what was drawn, until a token or a string ends the text,
 * the number is reached, the context is full or the caller has had enough. Text comes out as it grows, in
 * whole characters. */

#include "linnet/runtime.h"
#include "linnet/sampler.h"

typedef enum linnet_stop {
    LINNET_STOP_END,     /* the end token, or the one that ends a turn */
    LINNET_STOP_TOKENS,  /* n_tokens are drawn */
    LINNET_STOP_CONTEXT, /* no room for another */
    LINNET_STOP_STRING,  /* a stop string came, which is not part of the text */
    LINNET_STOP_CALLER,  /* on_text said so */
} linnet_stop;

typedef struct linnet_generation {
    /* Zero or set before a run. */
    linnet_sampler sampler;   /* linnet_sampler_init; released with the rest */
    uint64_t n_tokens;        /* at most so many */
    int32_t end_of_turn;      /* stops, besides the end token; -1: none */
    const char *const *stops; /* strings that end the text, none of them empty; borrowed while it runs */
    size_t n_stops;
    /* Valid UTF-8, at least one byte; what is none becomes U+FFFD. false: stop. May be NULL. */
    bool (*on_text)(void *context, const char *text, size_t n_bytes);
    /* Before anything is fed: the place to swap the session's adapter. A status other than OK ends the run
     * with it. May be NULL. */
    linnet_status (*on_feed)(void *context, linnet_session *session, linnet_error *err);
    /* Each token that is drawn, with the logits it was drawn from, one for each of the vocabulary, borrowed.
     * May be NULL. */
    void (*on_token)(void *context, int32_t id, const float *logits);
    void *context;
    /* What the last run left. */
    linnet_ids ids;     /* drawn, without the one that ended the text */
    linnet_buffer text; /* their bytes as the tokens have them, without a stop string */
    linnet_stop stopped;
    double prefill_seconds, decode_seconds;
    /* Inner. */
    const linnet_runtime *runtime;
    linnet_session *session;
    uint32_t context_tokens;
    size_t n_given, n_stop_max;
    linnet_buffer piece;
} linnet_generation;

/** The context that a prompt and so many tokens need, at most the model's. */
uint32_t linnet_generation_context(const linnet_model *model, size_t n_prompt, uint64_t n_tokens);
/** Make the session, with the runtime's adapter; the runtime is borrowed for its life. context_tokens 0: the
 * model's context. On failure release what there is. */
linnet_status linnet_generation_open(linnet_generation *g, const linnet_runtime *runtime,
                                     uint32_t context_tokens, linnet_error *err) LINNET_NODISCARD;
void linnet_generation_release(linnet_generation *g);
/** ARG for an empty prompt, LIMIT for one longer than the context. */
linnet_status linnet_generation_check(const linnet_ids *prompt, uint32_t context_tokens,
                                      linnet_error *err) LINNET_NODISCARD;
/** From an empty session; what an earlier run left goes. After a failure ids and text are what there was. */
linnet_status linnet_generation_run(linnet_generation *g, const linnet_ids *prompt,
                                    linnet_error *err) LINNET_NODISCARD;

#endif
