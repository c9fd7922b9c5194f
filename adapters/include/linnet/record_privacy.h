/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_RECORD_PRIVACY_H
#define LINNET_RECORD_PRIVACY_H

/* Record-level privacy of one optimisation step (SECURE-AGGREGATION 3.6, common core): a sum of clipped unit
 * gradients in integers, so that adding or removing one unit moves it by at most D2 = sqrt(bound2), exactly,
 * plus one discrete Gaussian vector of variance ceil((z D2)^2). A unit is one record, or all records of one
 * patient: its gradient is clipped as a whole, and a mean over units is never clipped.
 *
 * The caller draws every unit with the public probability p of the plan from the system's generator, adds the
 * gradients of the drawn ones and finishes, also where none was drawn. The ledger takes one sampled Gaussian
 * of (p, z) for each finished step. */

#include "linnet/hash.h"

typedef struct linnet_record_spec {
    uint64_t length;  /* coordinates of a gradient, not padded: there is no rotation */
    double clip;      /* Delta: L2 norm of one unit's gradient, > 0 */
    double z;         /* noise multiplier, > 0 */
    int32_t exponent; /* f: a value v becomes v 2^f; linnet_record_exponent chooses it */
    double divisor;   /* > 0, public: p times a nominal number of units, never a number of drawn units */
} linnet_record_spec;

/** The largest f, at most LINNET_RECORD_EXPONENT_MAX, for which z D2 <= 4096 (the sampler's limit) and
 * 2^f clip < 2^30. RANGE where none is: z is then too large for so many coordinates (z sqrt(length) / 2 must
 * stay below 4096). */
#define LINNET_RECORD_EXPONENT_MAX 100
linnet_status linnet_record_exponent(double clip, double z, uint64_t length, int32_t *ret_exponent,
                                     linnet_error *err) LINNET_NODISCARD;
/** floor(D2^2): no unit moves the integer sum by more. 0 for a spec that is none. */
uint64_t linnet_record_bound2(const linnet_record_spec *spec);
/** ceil((z D2)^2). 0 for a spec that is none, or where it exceeds the sampler's 2^24. */
uint64_t linnet_record_variance(const linnet_record_spec *spec);
/** ARG or RANGE where the spec is none, or its noise has less than 4 or more than 4096 lattice units. */
linnet_status linnet_record_check(const linnet_record_spec *spec, linnet_error *err) LINNET_NODISCARD;

/** The accumulator: 12 bytes a coordinate, all of it secret. One thread at a time. */
typedef struct linnet_record_sum linnet_record_sum;

/** An empty sum. random and its context are borrowed for life: the system's generator on devices, a seeded
 * stream in simulations and tests. ARG and RANGE as linnet_record_check; NOMEM. */
linnet_status linnet_record_sum_create(const linnet_record_spec *spec, linnet_random_fn *random,
                                       void *context, linnet_record_sum **ret_sum,
                                       linnet_error *err) LINNET_NODISCARD;
/** Wipes. Takes NULL. */
void linnet_record_sum_destroy(linnet_record_sum *sum);

/** Add one unit's gradient[length]: clip, scale, round stochastically within bound2, add. It cannot fail and
 * says nothing: a gradient with NaN or infinity, or one that 32 roundings left above the bound, counts as the
 * zero vector. */
void linnet_record_sum_add(linnet_record_sum *sum, const float *gradient);

/** End the step: write (sum + noise) / 2^f / divisor to ret_mean[length], and empty the sum for the next
 * step. A step without units gives noise only. */
void linnet_record_sum_finish(linnet_record_sum *sum, float *ret_mean);

#endif
