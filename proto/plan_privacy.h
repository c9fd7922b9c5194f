/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_PLAN_PRIVACY_H
#define LINNET_PLAN_PRIVACY_H

/* The part of the plan's checks and derivations that is about masks, noise and combining. */

#include "linnet/plan.h"

/** Thresholds that a roster of every allowed size can meet; one cohort where there are no masks. */
linnet_status linnet_plan_check_secure(const linnet_plan *plan, linnet_error *err) LINNET_NODISCARD;
/** Profile, mechanism, rule, weights and figures go together, and the rounds stay within the budget. */
linnet_status linnet_plan_check_privacy(const linnet_plan *plan, linnet_error *err) LINNET_NODISCARD;
/** The rule that combines goes with the profile and with as few vectors as a round may have. */
linnet_status linnet_plan_check_aggregation(const linnet_plan *plan, linnet_error *err) LINNET_NODISCARD;
/** Whole deltas are clipped and noised: distributed and central. */
bool linnet_plan_clips_deltas(const linnet_plan *plan);
/** The noised factor's vector, for such a plan. */
linnet_status linnet_plan_noised_spec(const linnet_plan *plan, const linnet_layout *layout, uint64_t version,
                                      linnet_ring_spec *ret_spec, linnet_error *err) LINNET_NODISCARD;

#endif
