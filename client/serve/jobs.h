/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SERVE_JOBS_H
#define LINNET_SERVE_JOBS_H

/* Requests that wait for a thread, first come, first served: a queue of bounded length and its threads. */

#include "openai.h"

#include "linnet/http_server.h"

#include <pthread.h>

/** A request on its way, from when it was checked to when its reply is answered. */
typedef struct serve_job {
    linnet_http_reply *reply; /* owed; NULL: answered */
    openai_request request;
    linnet_ids *prompts; /* owned, request.n_prompts of them */
    int32_t end_of_turn; /* -1: none */
    double started_s;    /* monotonic */
    struct serve_job *next;
} serve_job;

typedef struct job_queue {
    pthread_mutex_t lock;
    pthread_cond_t work;
    serve_job *first, **last;
    size_t n_waiting, n_waiting_max;
    bool is_closing; /* takes nothing new */
    void (*run)(void *context, serve_job *job);
    void *context;
    pthread_t *threads; /* owned */
    unsigned n_threads;
} job_queue;

/** Start n_threads >= 1 threads that run jobs, each of which is the runner's to free. */
linnet_status job_queue_start(job_queue *queue, unsigned n_threads, size_t n_waiting_max,
                              void (*run)(void *context, serve_job *job), void *context,
                              linnet_error *err) LINNET_NODISCARD;
/** false, and the job stays the caller's, where too many wait or the queue is closing. *ret_gone is a list of
 * jobs that gave up their places, since their clients have left; they are the caller's. */
bool job_queue_put(job_queue *queue, serve_job *job, serve_job **ret_gone);
/** Take nothing new. Jobs that wait are still run: the runner sees that it is closing. */
void job_queue_close(job_queue *queue);
/** Wait for the threads' end; then nothing waits any more, and jobs are still refused. */
void job_queue_join(job_queue *queue);
/** For when nobody puts anything. All three take a queue of zeros. */
void job_queue_release(job_queue *queue);

#endif
