/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SERVE_STATE_H
#define LINNET_SERVE_STATE_H

/* Inside of the local server: what its parts share. */

#include "jobs.h"
#include "service.h"
#include "turns.h"

#include <stdatomic.h>

struct serve {
    serve_options options;
    const linnet_runtime *runtime;
    linnet_adapter_slot *adapters;
    int64_t created; /* seconds since 1970 */
    linnet_http_server *server;
    job_queue local, handed_on; /* answers of the model; requests for the upstream server */
    turns engine;
    pthread_mutex_t log_lock;
    double end_s;           /* when answers end that still grow; set before is_closing */
    atomic_bool is_closing; /* nothing new; jobs that wait are refused */
};

double serve_seconds(void); /* monotonic */
/** Must answers of a server (context) end that still grow? */
bool serve_must_end(void *context);
/** Answer with an error and log it. fault may be NULL; where a reply is gone already nothing is said. */
void serve_job_fail(serve *s, serve_job *job, int status, const openai_fault *fault, const char *message);
/** Log what became of a job and free it. */
void serve_job_done(serve *s, serve_job *job, int status, bool is_upstream, const openai_usage *usage);

/** Runners of the two queues. */
void serve_run_local(void *context, serve_job *job);
void serve_run_handed_on(void *context, serve_job *job);

#endif
