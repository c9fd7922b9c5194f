/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_COMBINE_H
#define LINNET_COMBINE_H

/* From the opened sums of one step to its mean delta. */

#include "linnet/adapter.h"
#include "linnet/plan.h"

/** The sum of one cohort, masks off. In profile plain there is one, of all contributions. */
typedef struct linnet_cohort_sum {
    uint64_t round;
    linnet_hash announcement; /* A: the key of a rotation */
    uint32_t survivors;       /* contributions in it */
    uint64_t weight_sum;
    const uint32_t *sums; /* borrowed: all vectors one after the other, modulo 2^bits */
} linnet_cohort_sum;

/** Mean deltas in layout order, linnet_factors_length values each; NULL where the factor rests. */
typedef struct linnet_mean {
    float *b, *a; /* owned */
} linnet_mean;
void linnet_mean_release(linnet_mean *mean);

/** Combine the sums of a step from `version`, n_cohorts >= 1. ARG for a weight sum of zero, RANGE where the
 * plan's privacy cannot be computed, NOMEM. */
linnet_status linnet_combine_sums(const linnet_plan *plan, const linnet_layout *layout, uint64_t version,
                                  const linnet_ring_spec *specs, size_t n_specs,
                                  const linnet_cohort_sum *cohorts, size_t n_cohorts, linnet_mean *ret_mean,
                                  linnet_error *err) LINNET_NODISCARD;

#endif
