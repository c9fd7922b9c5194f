/* SPDX-License-Identifier: Apache-2.0 */

/* What a plan says about combining: which robust rule may stand where (SECURE-AGGREGATION 5). Rules that
 * compare vectors need vectors in the open: single deltas in profile plain, the means of several cohorts with
 * masks. The noise of central-dp is measured for a clipped sum, so nothing but a sum goes with it. */

#include "plan_privacy.h"

#define COMPARED_MIN 3         /* two vectors cannot outvote each other */
#define GATE_TOLERANCE_MIN 0.5 /* below, no step of a training passes */

bool linnet_plan_compares(const linnet_plan *plan)
{
    return plan->combine != LINNET_ROBUST_MEAN || plan->norm_clip > 0;
}

void linnet_plan_robust(const linnet_plan *plan, linnet_robust_config *ret_config)
{
    linnet_robust_default(ret_config);
    ret_config->rule = (linnet_robust_rule)plan->combine;
    ret_config->trim = plan->trim;
    ret_config->n_corrupt = plan->assumed_corrupt;
    ret_config->clip_multiple = plan->norm_clip;
}

static bool is_krum(const linnet_plan *plan)
{
    return plan->combine == LINNET_ROBUST_KRUM || plan->combine == LINNET_ROBUST_MULTI_KRUM;
}

/* Profiles with masks: the means of cohorts are what can be compared. */
static linnet_status check_cohorts(const linnet_plan *plan, linnet_error *err)
{
    if (is_krum(plan))
        return linnet_fail(
            err, LINNET_ERR_RANGE,
            "aggregation.combine: %s picks single deltas, which profile %s hides; take median, "
            "trimmed-mean or geometric-median over cohorts",
            linnet_robust_rule_name((linnet_robust_rule)plan->combine), linnet_profile_name(plan->profile));
    if (plan->cohorts < COMPARED_MIN)
        return linnet_fail(
            err, LINNET_ERR_RANGE,
            "aggregation.combine, norm_clip: profile %s opens one sum a cohort, and %u of them "
            "leave nothing to compare; set cohort.cohorts to at least %d, better 5",
            linnet_profile_name(plan->profile), (unsigned)plan->cohorts, COMPARED_MIN);
    return LINNET_OK;
}

static linnet_status check_counts(const linnet_plan *plan, linnet_error *err)
{
    linnet_robust_config config;
    bool has_cohorts = linnet_profile_is_secure(plan->profile);
    uint32_t low = has_cohorts ? plan->cohorts : plan->minimum;
    uint32_t high = has_cohorts ? plan->cohorts : linnet_plan_join_max(plan);
    linnet_plan_robust(plan, &config);
    if (low < COMPARED_MIN)
        return linnet_fail(
            err, LINNET_ERR_RANGE,
            "aggregation.combine, norm_clip: compare deltas, so cohort.minimum, %u, must be at "
            "least %d",
            (unsigned)low, COMPARED_MIN);
    for (uint32_t n = low; n <= high; n++) {
        linnet_status status = linnet_robust_check(&config, n, err);
        if (status != LINNET_OK)
            return linnet_error_prefix(err, LINNET_ERR_RANGE, "aggregation.combine");
    }
    return LINNET_OK;
}

linnet_status linnet_plan_check_aggregation(const linnet_plan *plan, linnet_error *err)
{
    if (plan->gate_tolerance > 0 && plan->gate_tolerance < GATE_TOLERANCE_MIN)
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "evaluation.gate_tolerance: %g lets no adapter pass; 0 is off, 1 is no worse than "
                           "before",
                           plan->gate_tolerance);
    if (plan->assumed_corrupt > 0 && !is_krum(plan))
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "aggregation.assumed_corrupt belongs to krum and multi-krum");
    if (!linnet_plan_compares(plan))
        return LINNET_OK;
    if (plan->profile == LINNET_PROFILE_CENTRAL_DP)
        return linnet_fail(
            err, LINNET_ERR_RANGE,
            "aggregation.combine, norm_clip: the noise of central-dp hides one delta in a sum, "
            "not in what compares deltas; set mean and 0");
    linnet_status status = linnet_profile_is_secure(plan->profile) ? check_cohorts(plan, err) : LINNET_OK;
    return status == LINNET_OK ? check_counts(plan, err) : status;
}
