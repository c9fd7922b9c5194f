/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What both sides of linnet-sa1 compute from what they see: thresholds (SECURE-AGGREGATION 2.5), bitmaps, and
 * the chain of hashes from announcement to survivors (2.4). None of it is ever sent and believed; each side
 * makes its own and compares.
 */
#include "linnet/secagg.h"

/* ---- thresholds ---- */

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

linnet_secagg_thresholds linnet_secagg_thresholds_of(const linnet_secagg_params *params, uint32_t n)
{
    linnet_secagg_thresholds t;
    t.corrupt = larger(1, (uint32_t)(((uint64_t)n * params->corrupt_permille + 999) / 1000));
    t.shares = (n + t.corrupt - 1) / 2 + 1;
    t.signatures = (n + t.corrupt) / 2 + 1;
    t.survivors_min = larger(params->m_min, t.shares + 1);
    t.sharers_min = larger(params->n_min, t.survivors_min);
    uint32_t needed = larger(t.shares + 1, t.signatures);
    t.drop_outs = n > needed ? n - needed : 0;
    return t;
}

/* ---- bitmaps ---- */

uint32_t linnet_bitmap_count(const uint8_t *bitmap, uint32_t n)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++)
        count += linnet_bitmap_has(bitmap, i);
    return count;
}

linnet_status linnet_bitmap_check(const uint8_t *bitmap, uint32_t n)
{
    if (n % 8 != 0 && bitmap[n / 8] >> (n % 8) != 0)
        return LINNET_ERR_FORMAT;
    return LINNET_OK;
}

/* ---- the chain ---- */

linnet_hash linnet_secagg_leaf(const uint8_t *advert)
{
    return linnet_hash_of(LINNET_LABEL_LEAF, advert, LINNET_ADVERT_BYTES);
}

linnet_hash linnet_secagg_t1(const linnet_hash *announcement, const linnet_hash *leaves, uint32_t n)
{
    uint8_t count[4];
    linnet_hasher hasher;
    linnet_store_le32(count, n);
    linnet_hasher_init(&hasher, LINNET_LABEL_ROSTER);
    linnet_hasher_update(&hasher, announcement->bytes, LINNET_HASH_BYTES);
    linnet_hasher_update(&hasher, count, sizeof(count));
    for (uint32_t i = 0; i < n; i++)
        linnet_hasher_update(&hasher, leaves[i].bytes, LINNET_HASH_BYTES);
    return linnet_hasher_final(&hasher);
}

linnet_hash linnet_secagg_t2(const linnet_hash *t1, const uint8_t *bitmap, uint32_t n)
{
    linnet_hasher hasher;
    linnet_hasher_init(&hasher, LINNET_LABEL_SHARERS);
    linnet_hasher_update(&hasher, t1->bytes, LINNET_HASH_BYTES);
    linnet_hasher_update(&hasher, bitmap, linnet_bitmap_bytes(n));
    return linnet_hasher_final(&hasher);
}

linnet_hash linnet_secagg_survivor_list(const uint8_t *list, size_t n_survivors)
{
    return linnet_hash_of(LINNET_LABEL_SURVIVOR_LIST, list,
                          n_survivors * (LINNET_HASH_BYTES + LINNET_SIGNATURE_BYTES));
}

linnet_hash linnet_secagg_t3(const linnet_hash *t2, const uint8_t *bitmap, uint32_t n, const linnet_hash *r)
{
    linnet_hasher hasher;
    linnet_hasher_init(&hasher, LINNET_LABEL_SURVIVORS);
    linnet_hasher_update(&hasher, t2->bytes, LINNET_HASH_BYTES);
    linnet_hasher_update(&hasher, bitmap, linnet_bitmap_bytes(n));
    linnet_hasher_update(&hasher, r->bytes, LINNET_HASH_BYTES);
    return linnet_hasher_final(&hasher);
}
