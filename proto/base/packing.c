/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing integers modulo 2^b as bit strings, and folding them into sums (SECURE-AGGREGATION 2.4, M5). The
 * inner loops move whole words: a store may spill into the bytes of the next coordinates, which come later
 * and overwrite them, and a load may take bytes of the next coordinates along and mask them away; only the
 * last few coordinates, where a word would leave the array, go byte by byte. No branch and no address depends
 * on a value, so the same loops fold uploads, which are public, and mask keystreams, which are not. Left out:
 * SIMD by hand. The keystream costs several times as much as the sum.
 */
#include "linnet/packing.h"

/* ---- packing ---- */

static void pack16(const uint32_t *x, size_t n, uint8_t *packed)
{
    for (size_t i = 0; i < n; i++)
        linnet_store_le16(packed + 2 * i, (uint16_t)x[i]);
}

static void pack20(const uint32_t *x, size_t n, uint8_t *packed)
{
    size_t i = 0;
    for (; i + 4 <= n; i += 2, packed += 5) /* 8 bytes, of which the next pair overwrites 3 */
        linnet_store_le64(packed, (x[i] & 0xfffff) | (uint64_t)(x[i + 1] & 0xfffff) << 20);
    for (; i < n; i += 2, packed += 5) {
        uint32_t low = x[i] & 0xfffff, high = i + 1 < n ? x[i + 1] & 0xfffff : 0;
        linnet_store_le16(packed, (uint16_t)low);
        packed[2] = (uint8_t)(low >> 16 | high << 4);
        if (i + 1 < n)
            linnet_store_le16(packed + 3, (uint16_t)(high >> 4));
    }
}

static void pack24(const uint32_t *x, size_t n, uint8_t *packed)
{
    size_t i = 0;
    for (; i + 2 <= n; i++, packed += 3) /* 4 bytes, of which the next coordinate overwrites 1 */
        linnet_store_le32(packed, x[i]);
    for (; i < n; i++, packed += 3) {
        linnet_store_le16(packed, (uint16_t)x[i]);
        packed[2] = (uint8_t)(x[i] >> 16);
    }
}

static void pack32(const uint32_t *x, size_t n, uint8_t *packed)
{
    for (size_t i = 0; i < n; i++)
        linnet_store_le32(packed + 4 * i, x[i]);
}

void linnet_pack(uint32_t bits, const uint32_t *x, size_t n, uint8_t *packed)
{
    if (bits == 16)
        pack16(x, n, packed);
    else if (bits == 20)
        pack20(x, n, packed);
    else if (bits == 24)
        pack24(x, n, packed);
    else
        pack32(x, n, packed);
}

/* ---- folding ---- */

/* sum += sign * coordinate, where sign is 1 or -1 modulo 2^32: a constant of the caller's. */

static inline void fold16(uint32_t sign, const uint8_t *restrict packed, size_t n, uint32_t *restrict sum)
{
    for (size_t i = 0; i < n; i++)
        sum[i] += sign * linnet_load_le16(packed + 2 * i);
}

static inline void fold20(uint32_t sign, const uint8_t *restrict packed, size_t n, uint32_t *restrict sum)
{
    size_t i = 0;
    for (; i + 4 <= n; i += 2, packed += 5) { /* 8 bytes, of which 3 belong to the next pair */
        uint64_t both = linnet_load_le64(packed);
        sum[i] += sign * ((uint32_t)both & 0xfffff);
        sum[i + 1] += sign * ((uint32_t)(both >> 20) & 0xfffff);
    }
    for (; i < n; i += 2, packed += 5) {
        sum[i] += sign * (linnet_load_le16(packed) | (uint32_t)(packed[2] & 0xf) << 16);
        if (i + 1 < n)
            sum[i + 1] += sign * (packed[2] >> 4 | (uint32_t)linnet_load_le16(packed + 3) << 4);
    }
}

static inline void fold24(uint32_t sign, const uint8_t *restrict packed, size_t n, uint32_t *restrict sum)
{
    size_t i = 0;
    for (; i + 4 <= n; i += 2, packed += 6) { /* 8 bytes, of which 2 belong to the next pair */
        uint64_t both = linnet_load_le64(packed);
        sum[i] += sign * ((uint32_t)both & 0xffffff);
        sum[i + 1] += sign * ((uint32_t)(both >> 24) & 0xffffff);
    }
    for (; i < n; i++, packed += 3)
        sum[i] += sign * (linnet_load_le16(packed) | (uint32_t)packed[2] << 16);
}

static inline void fold32(uint32_t sign, const uint8_t *restrict packed, size_t n, uint32_t *restrict sum)
{
    for (size_t i = 0; i < n; i++)
        sum[i] += sign * linnet_load_le32(packed + 4 * i);
}

void linnet_pack_add(uint32_t bits, const uint8_t *packed, size_t n, uint32_t *sum)
{
    if (bits == 16)
        fold16(1, packed, n, sum);
    else if (bits == 20)
        fold20(1, packed, n, sum);
    else if (bits == 24)
        fold24(1, packed, n, sum);
    else
        fold32(1, packed, n, sum);
}

void linnet_pack_subtract(uint32_t bits, const uint8_t *packed, size_t n, uint32_t *sum)
{
    if (bits == 16)
        fold16(UINT32_MAX, packed, n, sum);
    else if (bits == 20)
        fold20(UINT32_MAX, packed, n, sum);
    else if (bits == 24)
        fold24(UINT32_MAX, packed, n, sum);
    else
        fold32(UINT32_MAX, packed, n, sum);
}

bool linnet_pack_tail_is_zero(uint32_t bits, uint64_t n, const uint8_t *packed)
{
    unsigned used = (unsigned)(n * bits % 8);
    return used == 0 || packed[linnet_pack_bytes(bits, n) - 1] >> used == 0;
}
