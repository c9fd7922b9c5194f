/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SERVE_OPENAI_H
#define LINNET_SERVE_OPENAI_H

/* Requests and answers of the OpenAI API for chat and text completions, as far as a local model goes:
 * https://platform.openai.com/docs/api-reference. Bytes in, a checked struct out; pieces of text in, bytes
 * out. */

#include "linnet/dataset.h"

#include <jansson.h>

#define OPENAI_STOPS_MAX 16
#define OPENAI_CHOICES_MAX 16 /* prompts x n */

/** Where a request is wrong, as the API says it. */
typedef struct openai_fault {
    int status;       /* of HTTP: 400, 404, ... */
    const char *code; /* "context_length_exceeded"; static, NULL: none */
    char param[48];   /* the field; empty: none */
} openai_fault;

/** One prompt of a text completion: text, or ids where text is NULL. */
typedef struct openai_prompt {
    const char *text; /* borrowed from the request's object */
    linnet_ids ids;   /* owned */
} openai_prompt;

typedef struct openai_request {
    json_t *object; /* owned: the request as it came */
    bool is_chat;
    const char *model; /* as it was named; borrowed, NULL: not */
    /* A field that asks for what a local model does not do ("tools"); static, NULL: none. */
    const char *unsupported;
    linnet_message *messages; /* of a chat; owned */
    size_t n_messages;
    openai_prompt *prompts; /* of a text completion; owned */
    size_t n_prompts;       /* of a chat 1 */
    uint32_t n_choices;     /* for each prompt */
    bool has_n_tokens, has_seed, streams, includes_usage, echoes;
    uint64_t n_tokens, seed;
    double temperature, top_p;
    const char *stops[OPENAI_STOPS_MAX]; /* borrowed */
    size_t n_stops;
} openai_request;

/** Parse a body. FORMAT, RANGE or LIMIT with the field in ret_fault; a field that asks for what is not
 * supported is no failure, but named in `unsupported`. What is parsed is released by the caller, also after a
 * failure. */
linnet_status openai_request_parse(const void *body, size_t n_bytes, bool is_chat,
                                   openai_request *ret_request, openai_fault *ret_fault,
                                   linnet_error *err) LINNET_NODISCARD;
void openai_request_release(openai_request *request);

/** {"error": ...} for a status of HTTP; fault (may be NULL) names code and field. */
void openai_write_error(linnet_buffer *body, int status, const openai_fault *fault, const char *message);

/** What all parts of one answer have in common. */
typedef struct openai_answer {
    bool is_chat;
    char id[40];          /* "chatcmpl-..." */
    int64_t created;      /* seconds since 1970 */
    const char *model;    /* borrowed */
    char fingerprint[24]; /* of the adapter that answered */
} openai_answer;
void openai_answer_init(openai_answer *answer, bool is_chat, const char *model);

typedef struct openai_choice {
    linnet_buffer text; /* owned; valid UTF-8 */
    const char *finish; /* "stop", "length"; static, NULL: not finished */
} openai_choice;

typedef struct openai_usage {
    uint64_t n_prompt_tokens, n_tokens;
} openai_usage;

/** The whole answer. */
void openai_write_answer(const openai_answer *answer, const openai_choice *choices, size_t n,
                         const openai_usage *usage, linnet_buffer *body);
/** One event of a stream: a piece of a choice's text (n_bytes 0: none), the beginning of one (is_first), its
 * end (finish). */
void openai_write_piece(const openai_answer *answer, size_t choice, bool is_first, const char *text,
                        size_t n_bytes, const char *finish, linnet_buffer *stream);
/** The event that says the usage, an error's event, and the last event. */
void openai_write_usage(const openai_answer *answer, const openai_usage *usage, linnet_buffer *stream);
void openai_write_failure(const char *message, linnet_buffer *stream);
void openai_write_done(linnet_buffer *stream);

/** The list of the one model, or with is_list false the model. */
void openai_write_model(const char *name, int64_t created, bool is_list, linnet_buffer *body);

#endif
