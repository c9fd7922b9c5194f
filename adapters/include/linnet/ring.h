/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_RING_H
#define LINNET_RING_H

/* The integer ring encoding of SECURE-AGGREGATION 2.7 (without noise): clip, scale by 2^f, exact stochastic
 * rounding, clamp to [-q, q], multiply by an integer weight, reduce modulo 2^b, pack b bits a value. Sums of
 * packed vectors are exact as long as the no-wrap inequality n W q <= 2^(b-1) - 1 holds, which both sides
 * check. */

#include "linnet/hash.h"

#define LINNET_RING_CHUNK 4096 /* coordinates; a chunk of any width starts on a byte */

typedef struct linnet_ring_spec {
    uint32_t vector_id;  /* 0: factor B, 2: factor A, 1: the lane vector */
    uint64_t length;     /* coordinates */
    uint32_t bits;       /* b: 16, 20, 24 or 32 */
    uint32_t clamp;      /* q >= 1 */
    int32_t exponent;    /* f: a value v becomes v 2^f */
    uint32_t weight_max; /* W >= 1 */
} linnet_ring_spec;

/** ARG or RANGE where the spec is no spec, or n_clients contributions could wrap. */
linnet_status linnet_ring_check(const linnet_ring_spec *spec, uint32_t n_clients,
                                linnet_error *err) LINNET_NODISCARD;
/** The largest q for n clients of weight W in b bits: floor((2^(b-1) - 1) / (n W)). 0: none. */
uint32_t linnet_ring_clamp_max(uint32_t bits, uint32_t n_clients, uint32_t weight_max);
/** The finest scale for values in [-range, range]: the largest f with range 2^f <= q. Above q = 2^26 a scale
 * gains nothing over float32, so q counts as 2^26 there: values well past the range then saturate instead of
 * failing. A range that is not positive and finite gives 0. */
int32_t linnet_ring_exponent(double range, uint32_t clamp);
/** Packed bytes of the vector: ceil(length b / 8). */
size_t linnet_ring_bytes(const linnet_ring_spec *spec);

/**
 * Encode values[length] with this weight (1..W) into packed[linnet_ring_bytes] (written, unused tail bits
 * zero). ret_n_saturated (may be NULL) counts clamped values. RANGE for NaN, infinity, or |v 2^f| >= 2^30
 * before the clamp; packed is then unspecified. Four random bytes a coordinate, little-endian, are drawn
 * chunk by chunk.
 */
linnet_status linnet_ring_encode(const linnet_ring_spec *spec, const float *values, uint32_t weight,
                                 linnet_random_fn *random, void *random_context, uint8_t *packed,
                                 uint64_t *ret_n_saturated, linnet_error *err) LINNET_NODISCARD;
/** Encode integers (|v| <= q) as they are: lanes. */
linnet_status linnet_ring_encode_integers(const linnet_ring_spec *spec, const int64_t *values,
                                          uint8_t *packed, linnet_error *err) LINNET_NODISCARD;

/** sum[first + i] += packed coordinate i, modulo 2^32, for n coordinates; packed starts at coordinate
 * `first`, a multiple of LINNET_RING_CHUNK or 0. */
void linnet_ring_fold(const linnet_ring_spec *spec, uint64_t first, size_t n, const uint8_t *packed,
                      uint32_t *sum);
/** FORMAT where bits behind the last coordinate are set. */
linnet_status linnet_ring_check_tail(const linnet_ring_spec *spec, const uint8_t *packed) LINNET_NODISCARD;
/** Centred lift of sum (modulo 2^b) to [-2^(b-1), 2^(b-1)). */
int64_t linnet_ring_lift(uint32_t bits, uint32_t sum);
/** values[i] = lift(sum[i]) / 2^f / weight_sum. ARG for a weight sum that is not positive. */
linnet_status linnet_ring_decode(const linnet_ring_spec *spec, const uint32_t *sum, uint64_t weight_sum,
                                 float *values, linnet_error *err) LINNET_NODISCARD;

#endif
