/* SPDX-License-Identifier: Apache-2.0 */

/* The newest rosters and certificates that some machine of this process has checked, for simulators: a round
 * of a thousand virtual devices would verify two million signatures, all but two thousand of them again. T1
 * names every byte of a roster, so what was checked under one T1 holds for all who have the same trust. */

#include "secagg_cache.h"

#include <pthread.h>
#include <stdlib.h>

#define KEPT 64 /* rounds: as many as a step has cohorts */

typedef struct kept_round {
    linnet_hash t1, certificate;   /* certificate: what was checked of it, hashed */
    linnet_secagg_member *members; /* owned; NULL: this place is free */
    uint32_t n;
    bool has_certificate;
} kept_round;

struct linnet_secagg_cache {
    pthread_mutex_t lock;
    kept_round rounds[KEPT];
    size_t next; /* the place that is taken over next */
};

linnet_status linnet_secagg_cache_create(linnet_secagg_cache **ret_cache, linnet_error *err)
{
    linnet_secagg_cache *cache = calloc(1, sizeof(*cache));
    if (!cache)
        return linnet_fail(err, LINNET_ERR_NOMEM, "cache of rosters");
    (void)pthread_mutex_init(&cache->lock, NULL); /* default attributes: cannot fail on Linux */
    *ret_cache = cache;
    return LINNET_OK;
}

void linnet_secagg_cache_destroy(linnet_secagg_cache *cache)
{
    if (!cache)
        return;
    for (size_t i = 0; i < KEPT; i++)
        free(cache->rounds[i].members);
    (void)pthread_mutex_destroy(&cache->lock);
    free(cache);
}

/* Under the lock. */
static kept_round *find(linnet_secagg_cache *cache, const linnet_hash *t1)
{
    for (size_t i = 0; i < KEPT; i++)
        if (cache->rounds[i].members && linnet_hash_equal(&cache->rounds[i].t1, t1))
            return &cache->rounds[i];
    return NULL;
}

bool linnet_secagg_cache_find_roster(linnet_secagg_cache *cache, const linnet_hash *t1,
                                     linnet_secagg_member *members, uint32_t n)
{
    if (!cache)
        return false;
    (void)pthread_mutex_lock(&cache->lock);
    const kept_round *kept = find(cache, t1);
    bool is_there = kept && kept->n == n;
    if (is_there)
        memcpy(members, kept->members, n * sizeof(*members));
    (void)pthread_mutex_unlock(&cache->lock);
    return is_there;
}

void linnet_secagg_cache_keep_roster(linnet_secagg_cache *cache, const linnet_hash *t1,
                                     const linnet_secagg_member *members, uint32_t n)
{
    linnet_secagg_member *copy = cache ? calloc(n, sizeof(*copy)) : NULL;
    if (!copy)
        return; /* the next one checks it again */
    memcpy(copy, members, n * sizeof(*copy));
    (void)pthread_mutex_lock(&cache->lock);
    if (!find(cache, t1)) {
        kept_round *into = &cache->rounds[cache->next++ % KEPT];
        free(into->members);
        *into = (kept_round){.t1 = *t1, .members = copy, .n = n};
        copy = NULL;
    }
    (void)pthread_mutex_unlock(&cache->lock);
    free(copy);
}

static linnet_hash certificate_hash(const linnet_hash *t3, const void *attestations, size_t n_bytes)
{
    linnet_hasher hasher;
    linnet_hasher_init(&hasher, LINNET_LABEL_OBJECT);
    linnet_hasher_update(&hasher, t3->bytes, sizeof(t3->bytes));
    linnet_hasher_update(&hasher, attestations, n_bytes);
    return linnet_hasher_final(&hasher);
}

bool linnet_secagg_cache_has_certificate(linnet_secagg_cache *cache, const linnet_hash *t1,
                                         const linnet_hash *t3, const void *attestations, size_t n_bytes)
{
    if (!cache)
        return false;
    linnet_hash hash = certificate_hash(t3, attestations, n_bytes);
    (void)pthread_mutex_lock(&cache->lock);
    const kept_round *kept = find(cache, t1);
    bool is_there = kept && kept->has_certificate && linnet_hash_equal(&kept->certificate, &hash);
    (void)pthread_mutex_unlock(&cache->lock);
    return is_there;
}

void linnet_secagg_cache_keep_certificate(linnet_secagg_cache *cache, const linnet_hash *t1,
                                          const linnet_hash *t3, const void *attestations, size_t n_bytes)
{
    if (!cache)
        return;
    linnet_hash hash = certificate_hash(t3, attestations, n_bytes);
    (void)pthread_mutex_lock(&cache->lock);
    kept_round *kept = find(cache, t1);
    if (kept) {
        kept->certificate = hash;
        kept->has_certificate = true;
    }
    (void)pthread_mutex_unlock(&cache->lock);
}
