/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_COMBINE_H
#define LINNET_COMBINE_H

/* From what came in to one delta (SECURE-AGGREGATION 5): the sums of cohorts, or single contributions where
 * the profile leaves them in the open, under the rule of the plan. */

#include "state.h"

typedef struct linnet_combined {
    linnet_ring_spec specs[LINNET_VECTORS_MAX];
    size_t n_specs;
    float *vectors[LINNET_VECTORS_MAX]; /* owned: the delta of the factor of spec i in layout order; NULL for
                                           lanes */
    size_t lengths[LINNET_VECTORS_MAX]; /* of these; padding is gone */
    double norm;                        /* of the delta over all factors, before any clip of the step */
    linnet_influence *parts;            /* owned: what was combined, and how far each went */
    size_t n_parts;
    uint64_t lanes[LINNET_LANES]; /* totals */
    uint64_t n_contributions;
} linnet_combined;
void linnet_combined_release(linnet_combined *combined);

/** The sums of cohorts that made a step from `version`. A sum that no set of honest devices can have made
 * (values beyond every bound) is left out and logged. RANGE: none, or too few for the rule, are
 * left. */
linnet_status linnet_combine_sums(linnet_coordinator *coordinator, uint64_t version,
                                  const linnet_fold *cohorts, size_t n_cohorts, linnet_combined *ret_combined,
                                  linnet_error *err) LINNET_NODISCARD;
/** The contributions in the spool of a frozen round, read slice by slice. RANGE: too few for the rule. */
linnet_status linnet_combine_contributions(linnet_coordinator *coordinator, const linnet_round_row *round,
                                           linnet_combined *ret_combined, linnet_error *err) LINNET_NODISCARD;

/** A frozen round of profile central-dp: every contribution scaled down to the planned bound in whole
 * numbers, summed, and noised once. The noised sum is durable before this returns, and from then on it is the
 * round's only one: a restart reads it again. */
linnet_status linnet_central_fold(linnet_coordinator *coordinator, const linnet_round_row *round,
                                  linnet_fold *ret_fold, linnet_error *err) LINNET_NODISCARD;

#endif
