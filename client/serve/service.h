/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SERVE_SERVICE_H
#define LINNET_SERVE_SERVICE_H

/* A model behind the OpenAI API on a socket: routes, a queue, and a few answers that grow side by side. A
 * request keeps the adapter that it began with; one that comes later has the newest. */

#include "upstream.h"

#include "linnet/adapter_slot.h"
#include "linnet/runtime.h"

/** One request that is over, for a log. No text of it is here. */
typedef struct serve_record {
    const char *method, *path;
    int status; /* of HTTP; 499: the client left before its answer */
    bool is_upstream;
    openai_usage usage;
    double seconds;
} serve_record;

typedef struct serve_options {
    const char *listen;                                     /* HOST:PORT */
    const char *name;                                       /* of the model; valid UTF-8 */
    const char *api_key;                                    /* that requests must have; NULL: none */
    uint32_t n_parallel;                                    /* answers that grow at a time */
    uint32_t n_queue_max;                                   /* requests that wait */
    uint32_t context;                                       /* tokens of prompt and answer at most */
    uint32_t n_tokens;                                      /* of an answer, where the request does not say */
    upstream upstream;                                      /* url NULL: none */
    void (*log)(void *context, const serve_record *record); /* from any thread, one at a time; may be NULL */
    void *log_context;
} serve_options;

typedef struct serve serve;

/** Start to serve a model with the adapters that the slot holds at each time. All of runtime, slot and the
 * options' strings are borrowed until the stop; runtime's own adapter is not used. */
linnet_status serve_start(const serve_options *options, const linnet_runtime *runtime,
                          linnet_adapter_slot *adapters, serve **ret_serve,
                          linnet_error *err) LINNET_NODISCARD;
unsigned serve_port(const serve *s);
/** Take nothing new, let answers grow for a few seconds more, then end them. */
void serve_stop(serve *s);

#endif
