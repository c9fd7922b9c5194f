/* SPDX-License-Identifier: Apache-2.0 */
/* The queue of requests and the threads that empty it. */
#include "jobs.h"

#include <stdlib.h>

static void *work(void *context)
{
    job_queue *q = context;
    (void)pthread_mutex_lock(&q->lock);
    for (;;) {
        while (!q->first && !q->is_closing)
            (void)pthread_cond_wait(&q->work, &q->lock);
        serve_job *job = q->first;
        if (!job)
            break;
        q->first = job->next;
        if (!q->first)
            q->last = &q->first;
        q->n_waiting--;
        (void)pthread_mutex_unlock(&q->lock);
        q->run(q->context, job);
        (void)pthread_mutex_lock(&q->lock);
    }
    (void)pthread_mutex_unlock(&q->lock);
    return NULL;
}

linnet_status job_queue_start(job_queue *queue, unsigned n_threads, size_t n_waiting_max,
                              void (*run)(void *context, serve_job *job), void *context, linnet_error *err)
{
    *queue = (job_queue){.n_waiting_max = n_waiting_max, .run = run, .context = context};
    queue->last = &queue->first;
    queue->threads = calloc(n_threads, sizeof(*queue->threads));
    if (!queue->threads)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %u threads", n_threads);
    (void)pthread_mutex_init(&queue->lock, NULL); /* default attributes: cannot fail on Linux */
    (void)pthread_cond_init(&queue->work, NULL);
    for (; queue->n_threads < n_threads; queue->n_threads++) {
        if (pthread_create(&queue->threads[queue->n_threads], NULL, work, queue) != 0) {
            job_queue_close(queue);
            job_queue_join(queue);
            job_queue_release(queue);
            return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %u threads", n_threads);
        }
    }
    return LINNET_OK;
}

/* With the lock: take those out that nobody waits for any more. */
static serve_job *take_gone(job_queue *queue)
{
    serve_job *gone = NULL, **at = &queue->first;
    while (*at) {
        serve_job *job = *at;
        if (!linnet_http_reply_is_gone(job->reply)) {
            at = &job->next;
            continue;
        }
        *at = job->next;
        queue->n_waiting--;
        job->next = gone;
        gone = job;
    }
    queue->last = at;
    return gone;
}

bool job_queue_put(job_queue *queue, serve_job *job, serve_job **ret_gone)
{
    (void)pthread_mutex_lock(&queue->lock);
    *ret_gone = queue->n_waiting >= queue->n_waiting_max ? take_gone(queue) : NULL;
    bool has_room = queue->n_waiting < queue->n_waiting_max && !queue->is_closing;
    if (has_room) {
        job->next = NULL;
        *queue->last = job;
        queue->last = &job->next;
        queue->n_waiting++;
        (void)pthread_cond_signal(&queue->work);
    }
    (void)pthread_mutex_unlock(&queue->lock);
    return has_room;
}

void job_queue_close(job_queue *queue)
{
    if (!queue->threads)
        return;
    (void)pthread_mutex_lock(&queue->lock);
    queue->is_closing = true;
    (void)pthread_cond_broadcast(&queue->work);
    (void)pthread_mutex_unlock(&queue->lock);
}

void job_queue_join(job_queue *queue)
{
    for (unsigned i = 0; i < queue->n_threads; i++)
        (void)pthread_join(queue->threads[i], NULL);
    queue->n_threads = 0;
}

void job_queue_release(job_queue *queue)
{
    if (!queue->threads)
        return;
    (void)pthread_cond_destroy(&queue->work);
    (void)pthread_mutex_destroy(&queue->lock);
    free(queue->threads);
    *queue = (job_queue){0};
}
