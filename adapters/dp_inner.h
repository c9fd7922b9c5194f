/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ADAPTERS_DP_INNER_H
#define LINNET_ADAPTERS_DP_INNER_H

/* The steps that device-level and record-level privacy share, and what tests want to see before noise. */

#include "linnet/dp_encode.h"
#include "linnet/record_privacy.h"

#define LINNET_DP_ROUNDINGS 32 /* then the zero vector */

/** min(1, clip / norm), the norm in double from left to right; 0 where a value is NaN or infinite. */
double linnet_dp_clip_factor(const float *values, size_t n, double clip);
/** x = values * factor * 2^exponent (0 for factor 0), rounded stochastically, redrawn while the squared norm
 * exceeds bound2, at most LINNET_DP_ROUNDINGS times; then zeros. |values[i]| factor 2^exponent < 2^31 - 1.
 * Returns the rounding that was taken, from 1, or LINNET_DP_ROUNDINGS + 1: for tests only. */
int linnet_dp_round(const float *values, size_t n, double factor, int32_t exponent, uint64_t bound2,
                    linnet_random_fn *random, void *random_context, int32_t *ret_x);
/** Sign flips and Walsh-Hadamard of values[n_values], padded to length coordinates, into ret_rotated[length]:
 * block k is coordinates 4096 k on and takes the values k, k + n_blocks, k + 2 n_blocks, ... */
void linnet_dp_rotate(const linnet_ring_spec *ring, const linnet_hash *announcement, const float *values,
                      size_t n_values, double factor, float *ret_rotated);
/** The inverse, of the first n_values. rotated[length] is overwritten. */
void linnet_dp_rotate_back(const linnet_ring_spec *ring, const linnet_hash *announcement, float *rotated,
                           float *ret_values, size_t n_values);
/** Steps 1 to 4: what linnet_dp_encode adds noise to. x has ring->length elements. */
linnet_status linnet_dp_integers(const linnet_ring_spec *ring, const linnet_dp_spec *dp,
                                 const linnet_hash *announcement, const float *values, size_t n_values,
                                 linnet_random_fn *random, void *random_context, int32_t *ret_x,
                                 linnet_error *err) LINNET_NODISCARD;

/** The integer sum with its noise so far; length elements, borrowed until the next call. */
const int64_t *linnet_record_sum_integers(const linnet_record_sum *sum);

#endif
