/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SERVE_UPSTREAM_H
#define LINNET_SERVE_UPSTREAM_H

/* Another server of the same API that gets the requests which the local model should hand on: by a rule that
 * the operator wrote, never by default. Prompts that are handed on leave the device. */

#include "openai.h"

#include "linnet/http_server.h"

#define UPSTREAM_JUDGED_TOKENS 16 /* of an answer, by which its confidence is told */

typedef struct upstream_rules {
    const char *models[8]; /* requests that name one of these; borrowed */
    size_t n_models;
    bool hands_on_long;        /* prompts that do not fit the context */
    bool hands_on_unsupported; /* requests for what is not done here */
    uint64_t n_prompt_max;     /* prompts of more tokens; 0: off */
    double
        confidence_min; /* answers whose first tokens have a smaller mean probability (geometric); 0: off */
} upstream_rules;

/** Add a rule from its text: "model:NAME", "too-long", "unsupported", "prompt-tokens:N", "confidence:P". ARG
 * with what a rule may be. The text is borrowed. */
linnet_status upstream_rule_add(upstream_rules *rules, const char *text, linnet_error *err) LINNET_NODISCARD;

typedef struct upstream {
    const char *url;   /* "https://host/v1", borrowed; NULL: there is none */
    const char *key;   /* borrowed; NULL: none */
    const char *model; /* asked for there; borrowed, NULL: as the request says */
    upstream_rules rules;
    bool (*must_end)(void *context); /* asked now and then: is it to give up? May be NULL */
    void *context;
} upstream;

/** ARG for a URL that is neither https nor http to this machine. To be called before there are threads. */
linnet_status upstream_check(const upstream *u, linnet_error *err) LINNET_NODISCARD;

/** Does a rule hand the request on before anything is generated? n_prompt_tokens of its longest prompt. */
bool upstream_wants(const upstream *u, const openai_request *request, size_t n_prompt_tokens,
                    bool is_too_long);

/** Hand a request on and pass the answer through as it comes. OK: reply is answered. Else nothing was said to
 * it: IO where no answer came, and with `has_fallback` also where it is an error; CANCELLED where the peer
 * has left. */
linnet_status upstream_forward(const upstream *u, const openai_request *request, linnet_http_reply *reply,
                               bool has_fallback, linnet_error *err) LINNET_NODISCARD;

#endif
