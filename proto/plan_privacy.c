/* SPDX-License-Identifier: Apache-2.0 */

/* What a plan says about masks and noise. The lattice of a noised vector is chosen here, the same on both
 * sides: the finest scale at which the noise fits the exact sampler and the sum of a whole cohort cannot wrap
 * (SECURE-AGGREGATION 2.7, 3.2, 3.6). Epsilon comes from the accountant; nothing is amplified but the draw of
 * records, whose coins the device itself throws. Left out: adaptive clipping and several noised vectors. */

#include "plan_privacy.h"

#include <math.h>

#include "linnet/dp_encode.h"
#include "linnet/limits.h"
#include "linnet/secagg.h"

#define ROTATED_CLAMP_SIGMAS 8 /* a rotated coordinate is near Gaussian of deviation s Delta / sqrt(d) */
#define EXPONENT_MAX 64        /* of either sign; the ring's own bound */

static const char *const profile_names[] = {"?", "plain", "secure", "secure+dp", "central-dp"};
static const char *const mechanism_names[] = {"none", "distributed", "record-local", "central"};
static const char *const unit_names[] = {"none", "device", "record"};

static const char *name_of(const char *const *names, size_t n, int value)
{
    return value >= 0 && (size_t)value < n ? names[value] : "?";
}

const char *linnet_profile_name(int profile)
{
    return name_of(profile_names, ARRAY_LEN(profile_names), profile);
}

const char *linnet_dp_mechanism_name(int mechanism)
{
    return name_of(mechanism_names, ARRAY_LEN(mechanism_names), mechanism);
}

const char *linnet_dp_unit_name(int unit)
{
    return name_of(unit_names, ARRAY_LEN(unit_names), unit);
}

bool linnet_profile_is_secure(int profile)
{
    return profile == LINNET_PROFILE_SECURE || profile == LINNET_PROFILE_SECURE_DP;
}

bool linnet_plan_clips_deltas(const linnet_plan *plan)
{
    return plan->mechanism == LINNET_DP_DISTRIBUTED || plan->mechanism == LINNET_DP_CENTRAL;
}

linnet_dp_unit linnet_plan_dp_unit(const linnet_plan *plan)
{
    if (plan->mechanism == LINNET_DP_NONE)
        return LINNET_DP_UNIT_NONE;
    return plan->mechanism == LINNET_DP_RECORD_LOCAL ? LINNET_DP_UNIT_RECORD : LINNET_DP_UNIT_DEVICE;
}

uint32_t linnet_plan_survivors_min(const linnet_plan *plan)
{
    if (!linnet_profile_is_secure(plan->profile))
        return plan->minimum;
    return plan->survivors > 0 ? plan->survivors : (3 * plan->minimum + 3) / 4;
}

uint32_t linnet_plan_corrupt_permille(const linnet_plan *plan)
{
    if (!linnet_profile_is_secure(plan->profile))
        return 0;
    return (uint32_t)ceil(1000 * plan->corrupt - 1e-9); /* 0.05 is 50, not 51 */
}

/* ---- masks ---- */

/* Of a roster of n (SECURE-AGGREGATION 2.5). */
static linnet_secagg_thresholds thresholds_of(const linnet_plan *plan, uint32_t n)
{
    const linnet_secagg_params params = {.n_min = plan->minimum,
                                         .n_max = linnet_plan_join_max(plan),
                                         .m_min = linnet_plan_survivors_min(plan),
                                         .corrupt_permille = linnet_plan_corrupt_permille(plan)};
    return linnet_secagg_thresholds_of(&params, n);
}

linnet_status linnet_plan_check_secure(const linnet_plan *plan, linnet_error *err)
{
    if (!linnet_profile_is_secure(plan->profile)) {
        if (plan->cohorts > 1)
            return linnet_fail(err, LINNET_ERR_RANGE,
                               "cohort.cohorts: %u, but profile %s sees single deltas and has one cohort",
                               (unsigned)plan->cohorts, linnet_profile_name(plan->profile));
        return LINNET_OK;
    }
    if (plan->survivors > plan->minimum)
        return linnet_fail(err, LINNET_ERR_RANGE, "secure.survivors: %u is above cohort.minimum, %u",
                           (unsigned)plan->survivors, (unsigned)plan->minimum);
    if (linnet_plan_survivors_min(plan) < LINNET_SECURE_COHORT_MIN)
        return linnet_fail(
            err, LINNET_ERR_RANGE,
            "profile %s: a sum of %u devices hides nobody; cohort.minimum and secure.survivors "
            "must be at least %d",
            linnet_profile_name(plan->profile), (unsigned)linnet_plan_survivors_min(plan),
            LINNET_SECURE_COHORT_MIN);
    for (uint32_t n = plan->minimum; n <= linnet_plan_join_max(plan); n++) {
        linnet_secagg_thresholds t = thresholds_of(plan, n);
        if (t.shares + 1 > n || t.signatures > n)
            return linnet_fail(err, LINNET_ERR_RANGE,
                               "secure.corrupt: a roster of %u, %u of them corrupt, cannot meet its own "
                               "thresholds; lower it or raise cohort.minimum",
                               (unsigned)n, (unsigned)t.corrupt);
    }
    return LINNET_OK;
}

/* ---- what must agree ---- */

static linnet_status check_absent(const linnet_plan *plan, linnet_error *err)
{
    if (plan->profile == LINNET_PROFILE_SECURE_DP)
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "privacy.mechanism: profile secure+dp needs distributed or record-local");
    if (plan->profile == LINNET_PROFILE_CENTRAL_DP)
        return linnet_fail(err, LINNET_ERR_RANGE, "privacy.mechanism: profile central-dp needs central");
    if (plan->noise_multiplier != 0 || plan->clip != 0 || plan->dp_epsilon_max != 0 ||
        plan->record_probability != 0 || plan->record_units != 0)
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "privacy.mechanism: none, but other keys of [privacy] are set: this plan would "
                           "give no differential privacy at all");
    return LINNET_OK;
}

static linnet_status check_profile(const linnet_plan *plan, linnet_error *err)
{
    bool is_central = plan->mechanism == LINNET_DP_CENTRAL;
    if (plan->profile != (is_central ? LINNET_PROFILE_CENTRAL_DP : LINNET_PROFILE_SECURE_DP))
        return linnet_fail(err, LINNET_ERR_RANGE, "privacy.mechanism: %s needs secure.profile = %s, not %s",
                           linnet_dp_mechanism_name(plan->mechanism), is_central ? "central-dp" : "secure+dp",
                           linnet_profile_name(plan->profile));
    if (!(plan->noise_multiplier > 0))
        return linnet_fail(err, LINNET_ERR_RANGE, "privacy.noise_multiplier: must be above 0 with %s",
                           linnet_dp_mechanism_name(plan->mechanism));
    if (!(plan->clip > 0))
        return linnet_fail(err, LINNET_ERR_RANGE, "privacy.clip: must be above 0 with %s",
                           linnet_dp_mechanism_name(plan->mechanism));
    if (plan->weight_unit_tokens != 0)
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "encoding.weight_unit_tokens: must be 0 with differential privacy: a weight tells "
                           "how much text a device holds, and multiplies its sensitivity");
    return LINNET_OK;
}

static linnet_status check_deltas(const linnet_plan *plan, linnet_error *err)
{
    if (plan->rule != LINNET_RULE_FFA)
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "aggregation.rule: must be ffa with %s noise: the noise of both factors would "
                           "multiply in their product",
                           linnet_dp_mechanism_name(plan->mechanism));
    if (plan->value_bits != 0)
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "encoding.value_bits: must be 0 with %s noise, which needs the whole ring",
                           linnet_dp_mechanism_name(plan->mechanism));
    if (plan->record_probability != 0 || plan->record_units != 0)
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "privacy.record_probability and record_units belong to record-local, not to %s",
                           linnet_dp_mechanism_name(plan->mechanism));
    uint32_t corrupt = thresholds_of(plan, linnet_plan_join_max(plan)).corrupt;
    if (plan->mechanism == LINNET_DP_DISTRIBUTED && linnet_plan_survivors_min(plan) <= corrupt)
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "secure.survivors: of %u devices %u may be corrupt and leave their noise out, so "
                           "no noise is sure; raise it or lower secure.corrupt",
                           (unsigned)linnet_plan_survivors_min(plan), (unsigned)corrupt);
    return LINNET_OK;
}

static linnet_status check_records(const linnet_plan *plan, linnet_error *err)
{
    if (!(plan->record_probability > 0))
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "privacy.record_probability: must be above 0 with record-local");
    if (plan->record_probability * plan->record_units < 1)
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "privacy.record_units: a step is expected to draw %.3g units, must be at least 1",
                           plan->record_probability * plan->record_units);
    return LINNET_OK;
}

/* The most rounds that stay within the budget, by bisection: epsilon grows with the rounds. */
static uint32_t rounds_within(const linnet_plan *plan)
{
    uint32_t low = 0, high = plan->rounds;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        *(linnet_plan_epsilon(plan, middle) <= plan->dp_epsilon_max ? &low : &high) = middle;
    }
    return low;
}

static linnet_status check_budget(const linnet_plan *plan, linnet_error *err)
{
    if (plan->dp_epsilon_max == 0 || plan->rounds == 0)
        return LINNET_OK;
    double dp_epsilon = linnet_plan_epsilon(plan, plan->rounds);
    if (dp_epsilon <= plan->dp_epsilon_max)
        return LINNET_OK;
    return linnet_fail(
        err, LINNET_ERR_RANGE,
        "privacy.epsilon_max: %u rounds spend epsilon %.4g, the budget is %.4g, which lasts for "
        "%u rounds; raise privacy.noise_multiplier or lower task.rounds",
        (unsigned)plan->rounds, dp_epsilon, plan->dp_epsilon_max, (unsigned)rounds_within(plan));
}

linnet_status linnet_plan_check_privacy(const linnet_plan *plan, linnet_error *err)
{
    if (plan->mechanism == LINNET_DP_NONE)
        return check_absent(plan, err);
    linnet_status status = check_profile(plan, err);
    if (status == LINNET_OK)
        status =
            plan->mechanism == LINNET_DP_RECORD_LOCAL ? check_records(plan, err) : check_deltas(plan, err);
    return status == LINNET_OK ? check_budget(plan, err) : status;
}

/* ---- the lattice ---- */

/* The largest coordinate of a noised vector. Rotation spreads a delta evenly over its coordinates; without it
 * one of them may hold the whole norm. */
static double clamp_of(const linnet_privacy *p)
{
    double scaled_clip = ldexp(p->clip, p->exponent);
    if (p->rotates)
        scaled_clip *= ROTATED_CLAMP_SIGMAS / sqrt((double)p->dimension);
    return ceil(scaled_clip) + 1;
}

/* Shares of noise that are sure to be in a sum. */
static uint32_t sure_shares(const linnet_privacy *p)
{
    return p->mechanism == LINNET_DP_DISTRIBUTED ? p->survivors_min - p->corrupt : 1;
}

/* Room for a full cohort and all its noise. Gradients of record-local are added up in 64 bits and never wrap;
 * central noise is one draw and gets the room of n. */
static bool cannot_wrap(const linnet_plan *plan, const linnet_privacy *p)
{
    return p->mechanism == LINNET_DP_RECORD_LOCAL ||
           clamp_of(p) <= linnet_dp_clamp_max(plan->ring_bits, linnet_plan_join_max(plan), p->sigma2);
}

static linnet_status no_lattice(const linnet_plan *plan, const linnet_privacy *p, linnet_error *err)
{
    if (p->mechanism == LINNET_DP_RECORD_LOCAL)
        return linnet_fail(
            err, LINNET_ERR_RANGE,
            "privacy: %llu coordinates with noise_multiplier %g need more than the largest noise "
            "that is drawn exactly, 4096 units; lower adapter.rank, targets or the multiplier",
            (unsigned long long)p->dimension, plan->noise_multiplier);
    return linnet_fail(
        err, LINNET_ERR_RANGE,
        "privacy: no scale gives %llu coordinates of up to %u devices at least 4 units of noise "
        "each in %u bits; raise encoding.ring_bits or privacy.noise_multiplier, or lower "
        "cohort.goal",
        (unsigned long long)p->dimension, (unsigned)linnet_plan_join_max(plan), (unsigned)plan->ring_bits);
}

/* The finest scale that fits. Finer is better: rounding adds less to the bound, and noise is further above
 * the 4 units. */
static linnet_status choose_lattice(const linnet_plan *plan, linnet_privacy *p, linnet_error *err)
{
    for (int f = EXPONENT_MAX; f >= -EXPONENT_MAX; f--) {
        p->exponent = f;
        p->bound2 = linnet_dp_bound2(p->clip, f, p->dimension);
        p->sigma2 = linnet_dp_device_variance(plan->noise_multiplier, p->bound2, sure_shares(p));
        if (p->bound2 == 0 || p->sigma2 == 0 || !cannot_wrap(plan, p))
            continue; /* too fine */
        if (p->sigma2 < LINNET_DP_VARIANCE_MIN)
            break; /* coarser ones have less */
        p->noise_multiplier = linnet_dp_noise_multiplier(p->sigma2, sure_shares(p), p->bound2);
        return LINNET_OK;
    }
    return no_lattice(plan, p, err);
}

linnet_status linnet_plan_privacy(const linnet_plan *plan, const linnet_layout *layout, uint64_t version,
                                  linnet_privacy *ret_privacy, linnet_error *err)
{
    linnet_privacy p = {.mechanism = (linnet_dp_mechanism)plan->mechanism, .unit = linnet_plan_dp_unit(plan)};
    linnet_status status = linnet_plan_check(plan, err);
    if (status == LINNET_OK && p.mechanism != LINNET_DP_NONE) {
        p.rotates = p.mechanism == LINNET_DP_DISTRIBUTED;
        p.dimension = linnet_factors_length(layout, linnet_rule_factors((linnet_rule)plan->rule, version));
        p.dimension = linnet_dp_length(p.dimension, p.rotates);
        p.clip = plan->clip;
        p.survivors_min = linnet_plan_survivors_min(plan);
        if (linnet_profile_is_secure(plan->profile))
            p.corrupt = thresholds_of(plan, linnet_plan_join_max(plan)).corrupt;
        if (p.mechanism == LINNET_DP_RECORD_LOCAL) {
            p.probability = plan->record_probability;
            p.n_steps = plan->local_steps;
            p.divisor = plan->record_probability * plan->record_units;
        }
        status = choose_lattice(plan, &p, err);
    }
    if (status == LINNET_OK)
        *ret_privacy = p;
    return status;
}

linnet_status linnet_plan_noised_spec(const linnet_plan *plan, const linnet_layout *layout, uint64_t version,
                                      linnet_ring_spec *ret_spec, linnet_error *err)
{
    linnet_privacy p;
    linnet_status status = linnet_plan_privacy(plan, layout, version, &p, err);
    if (status != LINNET_OK)
        return status;
    *ret_spec = (linnet_ring_spec){.vector_id = 0,
                                   .length = p.dimension,
                                   .bits = plan->ring_bits,
                                   .clamp = (uint32_t)clamp_of(&p),
                                   .exponent = p.exponent,
                                   .weight_max = 1};
    const linnet_dp_spec dp = {.clip = p.clip, .sigma2 = p.sigma2, .rotates = p.rotates};
    return linnet_dp_check(ret_spec, &dp, linnet_plan_join_max(plan), err);
}

/* ---- epsilon ---- */

void linnet_privacy_spend(const linnet_privacy *privacy, double n_rounds, linnet_rdp *rdp)
{
    double n = privacy->mechanism == LINNET_DP_RECORD_LOCAL ? n_rounds * privacy->n_steps : n_rounds;
    if (privacy->mechanism == LINNET_DP_NONE || !(n > 0))
        return;
    if (privacy->mechanism == LINNET_DP_RECORD_LOCAL && privacy->probability < 1)
        linnet_rdp_add_sampled(rdp, privacy->probability, privacy->noise_multiplier, n);
    else /* n Gaussian releases of z are one of z / sqrt(n) */
        linnet_rdp_add_gaussian(rdp, privacy->noise_multiplier / sqrt(n));
}

double linnet_plan_epsilon(const linnet_plan *plan, double n_rounds)
{
    linnet_rdp rdp = {{0}};
    const linnet_privacy privacy = {.mechanism = (linnet_dp_mechanism)plan->mechanism,
                                    .noise_multiplier = plan->noise_multiplier,
                                    .probability = plan->record_probability,
                                    .n_steps = plan->local_steps};
    if (!(n_rounds > 0))
        return 0;
    if (privacy.mechanism == LINNET_DP_NONE)
        return INFINITY;
    linnet_privacy_spend(&privacy, n_rounds, &rdp);
    return linnet_dp_epsilon(&rdp, plan->dp_delta, NULL);
}
