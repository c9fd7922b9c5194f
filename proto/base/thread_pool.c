/* SPDX-License-Identifier: Apache-2.0 */
/* A fork-join pool. Thread i always gets part i of a static partition, so that which thread computes what
 * depends on nothing but the sizes; the results of linnet's kernels do not depend on the partition either. */
#include "linnet/thread_pool.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct worker {
    linnet_thread_pool *pool;
    pthread_t thread;
    unsigned index; /* 1..n-1; the caller is thread 0 */
} worker;

struct linnet_thread_pool {
    unsigned n_threads, n_started;
    worker *workers;
    pthread_mutex_t lock;
    pthread_cond_t start, finished;
    unsigned long generation; /* number of the run; a worker that sees a new one works */
    unsigned n_running;
    bool stop;
    linnet_work_fn *work; /* of this run */
    void *context;
    size_t n_items, part;
};

static void run_part(const linnet_thread_pool *pool, unsigned index)
{
    size_t first = index * pool->part;
    size_t last = first + pool->part < pool->n_items ? first + pool->part : pool->n_items;
    if (first < last)
        pool->work(pool->context, first, last, index);
}

static void *worker_main(void *argument)
{
    worker *self = argument;
    linnet_thread_pool *pool = self->pool;
    unsigned long seen = 0;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->stop && pool->generation == seen)
            pthread_cond_wait(&pool->start, &pool->lock);
        if (pool->stop)
            break;
        seen = pool->generation;
        pthread_mutex_unlock(&pool->lock);
        run_part(pool, self->index);
        pthread_mutex_lock(&pool->lock);
        if (--pool->n_running == 0)
            pthread_cond_signal(&pool->finished);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

linnet_status linnet_thread_pool_create(unsigned n_threads, linnet_thread_pool **ret_pool, linnet_error *err)
{
    if (n_threads == 0) {
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        n_threads = online > 0 ? (unsigned)online : 1;
    }
    if (n_threads > 256)
        return linnet_fail(err, LINNET_ERR_RANGE, "%u threads: at most 256", n_threads);
    linnet_thread_pool *pool = calloc(1, sizeof(*pool));
    worker *workers = calloc(n_threads, sizeof(*workers));
    if (!pool || !workers) {
        free(pool);
        free(workers);
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %u threads", n_threads);
    }
    pool->n_threads = n_threads;
    pool->workers = workers;
    (void)pthread_mutex_init(&pool->lock, NULL); /* default attributes cannot fail on Linux */
    (void)pthread_cond_init(&pool->start, NULL);
    (void)pthread_cond_init(&pool->finished, NULL);
    for (unsigned i = 1; i < n_threads; i++) {
        workers[i] = (worker){.pool = pool, .index = i};
        int error_number = pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]);
        if (error_number != 0) {
            linnet_thread_pool_destroy(pool);
            return linnet_fail_errno(err, error_number, "cannot start thread %u of %u", i + 1, n_threads);
        }
        pool->n_started = i;
    }
    *ret_pool = pool;
    return LINNET_OK;
}

void linnet_thread_pool_destroy(linnet_thread_pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->stop = true;
    pthread_cond_broadcast(&pool->start);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 1; i <= pool->n_started; i++)
        (void)pthread_join(pool->workers[i].thread, NULL);
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->start);
    pthread_cond_destroy(&pool->finished);
    free(pool->workers);
    free(pool);
}

unsigned linnet_thread_pool_size(const linnet_thread_pool *pool)
{
    return pool ? pool->n_threads : 1;
}

void linnet_thread_pool_run(linnet_thread_pool *pool, size_t n_items, size_t grain, linnet_work_fn *work,
                            void *context)
{
    if (grain == 0)
        grain = 1;
    size_t n_grains = n_items / grain + (n_items % grain != 0);
    unsigned n_threads = linnet_thread_pool_size(pool);
    size_t part = (n_grains / n_threads + (n_grains % n_threads != 0)) * grain;
    if (n_items == 0)
        return;
    if (n_threads == 1 || part >= n_items) {
        work(context, 0, n_items, 0);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->work = work;
    pool->context = context;
    pool->n_items = n_items;
    pool->part = part;
    pool->n_running = n_threads - 1;
    pool->generation++;
    pthread_cond_broadcast(&pool->start);
    pthread_mutex_unlock(&pool->lock);
    run_part(pool, 0);
    pthread_mutex_lock(&pool->lock);
    while (pool->n_running > 0)
        pthread_cond_wait(&pool->finished, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}
