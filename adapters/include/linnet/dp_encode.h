/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_DP_ENCODE_H
#define LINNET_DP_ENCODE_H

/* Device-level privacy of one vector (SECURE-AGGREGATION 2.7 and 3.2): clip to the norm Delta, rotate, round
 * to integers whose squared norm is at most bound2 = floor(D2^2), add discrete Gaussian noise, reduce modulo
 * 2^b and pack. A dp_spec stands beside the ring_spec of the vector, which gives b, q, f and the padded
 * length.
 *
 * The sum over devices then is a Gaussian release of noise multiplier z = sqrt(m_min - C) sigma / D2, by
 * noise of at least `n_noisy` = m_min - C devices that are there and honest. The lattice floor sigma >= 4
 * makes a sum of discrete Gaussians as good as one.
 *
 * No status, length or count of this module depends on the data, and clamped values are not counted: with DP
 * nothing that depends on data leaves a device but the noised vector. */

#include "linnet/ring.h"

#define LINNET_DP_BLOCK 4096      /* coordinates of one Hadamard block */
#define LINNET_DP_VARIANCE_MIN 16 /* sigma >= 4 lattice units */

typedef struct linnet_dp_spec {
    double clip; /* Delta: L2 norm of the whole vector, > 0, in the units of the values; 2^f Delta < 2^30 */
    uint64_t sigma2; /* variance of this device's noise in lattice units, LINNET_DP_VARIANCE_MIN .. 2^24 */
    bool rotates;    /* sign flips and Walsh-Hadamard first; the ring's length is then whole blocks */
} linnet_dp_spec;

/* ---- figures that both sides compute and compare ---- */

/** Length of the ring vector for n values: n, or with rotation the next multiple of LINNET_DP_BLOCK. */
uint64_t linnet_dp_length(uint64_t n_values, bool rotates);
/** floor(D2^2) = floor(s^2 Delta^2 + d/4 + s Delta + sqrt(d)/2), s = 2^exponent, d = length: 3.2 with beta =
 * exp(-1/2), where the other branch of the minimum never is the smaller. 0 for a clip that is not positive
 * and finite, a length of 0 or above the ring's, or 2^f Delta >= 2^30. The same bits on every platform. */
uint64_t linnet_dp_bound2(double clip, int32_t exponent, uint64_t length);
/** Variance of each device's noise for multiplier z: ceil(z^2 bound2 / n_noisy), n_noisy = m_min - C. 0 where
 * it would pass the sampler's 2^24 or an argument is none. */
uint64_t linnet_dp_device_variance(double z, uint64_t bound2, uint32_t n_noisy);
/** The other way: the z that devices account, sqrt(n_noisy sigma2 / bound2). 0 (no privacy) where bound2 is
 * 0. */
double linnet_dp_noise_multiplier(uint64_t sigma2, uint32_t n_noisy, uint64_t bound2);
/** The largest q for n devices with noise in b bits: n q + 9 sqrt(n sigma2) <= 2^(b-1) - 1, in whole numbers.
 * 0: none. */
uint32_t linnet_dp_clamp_max(uint32_t bits, uint32_t n_clients, uint64_t sigma2);

/** Everything a device checks before it joins: the ring's own rules, weight_max 1 (weights and DP do not go
 * together), clip, variance between the lattice floor and the sampler's limit, whole blocks where it rotates,
 * and no wrap among n_clients with noise. ARG or RANGE. */
linnet_status linnet_dp_check(const linnet_ring_spec *ring, const linnet_dp_spec *dp, uint32_t n_clients,
                              linnet_error *err) LINNET_NODISCARD;

/* ---- vectors ---- */

/**
 * Encode values[n_values] for one upload.
 *
 * announcement  A: the signs of the rotation are the bits of the mask of vector ring->vector_id under the key
 *               H("rotat", A), coordinate j is bit j of it, so all devices of a cohort rotate alike
 * n_values      linnet_dp_length(n_values) is ring->length where it rotates, at most ring->length otherwise;
 *               what is missing counts as 0
 * random        rounding and noise; the system's generator on devices
 * packed        linnet_ring_bytes(ring), written on success
 *
 * A NaN or infinity anywhere makes the vector zero, silently: it still gets its noise. ARG or RANGE for specs
 * that are none; NOMEM. Temporary copies are wiped.
 */
linnet_status linnet_dp_encode(const linnet_ring_spec *ring, const linnet_dp_spec *dp,
                               const linnet_hash *announcement, const float *values, size_t n_values,
                               linnet_random_fn *random, void *random_context, uint8_t *packed,
                               linnet_error *err) LINNET_NODISCARD;

/** The mean of the opened sum over n_summed devices: centred lift, / 2^f / n_summed, inverse rotation, the
 * first n_values. sum has ring->length elements, modulo 2^b. ARG for n_summed 0 or lengths that do not fit;
 * NOMEM. */
linnet_status linnet_dp_decode(const linnet_ring_spec *ring, const linnet_dp_spec *dp,
                               const linnet_hash *announcement, const uint32_t *sum, uint64_t n_summed,
                               float *values, size_t n_values, linnet_error *err) LINNET_NODISCARD;

#endif
