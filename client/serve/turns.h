/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SERVE_TURNS_H
#define LINNET_SERVE_TURNS_H

/* One engine for several threads: they take turns in the order in which they asked, so that answers grow side
 * by side, a token each. */

#include <pthread.h>
#include <stdint.h>

typedef struct turns {
    pthread_mutex_t lock;
    pthread_cond_t next;
    uint64_t n_asked, n_ended;
} turns;

static inline void turns_init(turns *t)
{
    *t = (turns){0};
    (void)pthread_mutex_init(&t->lock, NULL); /* default attributes: cannot fail on Linux */
    (void)pthread_cond_init(&t->next, NULL);
}

static inline void turns_release(turns *t)
{
    (void)pthread_cond_destroy(&t->next);
    (void)pthread_mutex_destroy(&t->lock);
}

/** Wait for one's turn. */
static inline void turns_begin(turns *t)
{
    (void)pthread_mutex_lock(&t->lock);
    uint64_t mine = t->n_asked++;
    while (t->n_ended != mine)
        (void)pthread_cond_wait(&t->next, &t->lock);
    (void)pthread_mutex_unlock(&t->lock);
}

static inline void turns_end(turns *t)
{
    (void)pthread_mutex_lock(&t->lock);
    t->n_ended++;
    (void)pthread_cond_broadcast(&t->next);
    (void)pthread_mutex_unlock(&t->lock);
}

#endif
