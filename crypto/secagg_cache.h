/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SECAGG_CACHE_H
#define LINNET_SECAGG_CACHE_H

/* Rosters and certificates that were checked before in this process. NULL caches know nothing. */

#include "secagg_inner.h"

/** The members of a roster that was checked, into members[n]. */
bool linnet_secagg_cache_find_roster(linnet_secagg_cache *cache, const linnet_hash *t1,
                                     linnet_secagg_member *members, uint32_t n);
void linnet_secagg_cache_keep_roster(linnet_secagg_cache *cache, const linnet_hash *t1,
                                     const linnet_secagg_member *members, uint32_t n);
/** Were these attestations of T3 by members of T1 checked? */
bool linnet_secagg_cache_has_certificate(linnet_secagg_cache *cache, const linnet_hash *t1,
                                         const linnet_hash *t3, const void *attestations, size_t n_bytes);
void linnet_secagg_cache_keep_certificate(linnet_secagg_cache *cache, const linnet_hash *t1,
                                          const linnet_hash *t3, const void *attestations, size_t n_bytes);

#endif
