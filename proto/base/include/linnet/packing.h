/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_PACKING_H
#define LINNET_PACKING_H

/* Integers modulo 2^b as bit strings, b in {16, 20, 24, 32}: coordinate m is bits m b to m b + b - 1,
 * little-endian (SECURE-AGGREGATION 2.4, M5). Vectors and mask keystreams are packed alike. */

#include "linnet/bytes.h"

/** Coordinates worked on at a time; a chunk of any width starts on a byte, and on a 64-byte cipher block. */
#define LINNET_PACK_CHUNK 4096

static inline bool linnet_pack_is_width(uint32_t bits)
{
    return bits == 16 || bits == 20 || bits == 24 || bits == 32;
}
/** Bytes of n packed coordinates: ceil(n bits / 8). */
static inline size_t linnet_pack_bytes(uint32_t bits, uint64_t n)
{
    return (size_t)((n * bits + 7) / 8);
}
/** x[0..n) modulo 2^bits into packed[linnet_pack_bytes]; bits behind the last coordinate become zero. */
void linnet_pack(uint32_t bits, const uint32_t *x, size_t n, uint8_t *packed);
/** sum[i] += coordinate i, and sum[i] -= coordinate i, modulo 2^32. */
void linnet_pack_add(uint32_t bits, const uint8_t *packed, size_t n, uint32_t *sum);
void linnet_pack_subtract(uint32_t bits, const uint8_t *packed, size_t n, uint32_t *sum);
/** Are the bits behind coordinate n - 1 in its last byte zero? */
bool linnet_pack_tail_is_zero(uint32_t bits, uint64_t n, const uint8_t *packed);

#endif
