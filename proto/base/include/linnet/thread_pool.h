/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_THREAD_POOL_H
#define LINNET_THREAD_POOL_H

/* One pool of threads per engine: blocking workers, static partition, no spinning (simulators share few
 * cores). */

#include "linnet/status.h"

typedef struct linnet_thread_pool linnet_thread_pool;

/** Work on items [first, last). Called from the pool's threads and the caller's; parts never overlap. */
typedef void linnet_work_fn(void *context, size_t first, size_t last, unsigned thread);

/** n_threads 0 means one per online core. The pool has n_threads - 1 threads of its own; the caller is the
 * other. */
linnet_status linnet_thread_pool_create(unsigned n_threads, linnet_thread_pool **ret_pool,
                                        linnet_error *err) LINNET_NODISCARD;
void linnet_thread_pool_destroy(linnet_thread_pool *pool);
unsigned linnet_thread_pool_size(const linnet_thread_pool *pool);

/** Cut [0, n_items) into at most size parts of whole multiples of `grain` and run them; returns when all are
 * done. pool NULL, or one part, runs in the caller. Not reentrant: one run at a time on a pool. */
void linnet_thread_pool_run(linnet_thread_pool *pool, size_t n_items, size_t grain, linnet_work_fn *work,
                            void *context);

#endif
