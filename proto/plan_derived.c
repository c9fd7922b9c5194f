/* SPDX-License-Identifier: Apache-2.0 */

/* What follows from a plan: who may join, what a contribution weighs, the rates of a round, and how its
 * vectors are encoded. Coordinator and device compute the same from the same text; a device compares the
 * result with what it is told (SECURE-AGGREGATION 2.7, FEDERATED-LORA 7.1). */

#include "linnet/plan.h"

#include <math.h>

#include "linnet/limits.h"
#include "plan_privacy.h"

#define FEDAVG_RATE_A 0.25 /* of B's rate where both factors are trained at once: FEDERATED-LORA 7.1 */
#define CLAMP_MIN 7        /* fewer steps than that to each side is no encoding of a delta */

uint32_t linnet_plan_join_max(const linnet_plan *plan)
{
    double joined = ceil(plan->goal * plan->over_selection - 1e-9); /* 10 x 1.1 is 11 */
    return joined < LINNET_COHORT_MAX ? (uint32_t)joined : LINNET_COHORT_MAX;
}

uint32_t linnet_plan_weight(const linnet_plan *plan, uint64_t counted_tokens)
{
    if (plan->weight_unit_tokens == 0 || counted_tokens == 0)
        return 1;
    uint64_t weight = (counted_tokens - 1) / plan->weight_unit_tokens + 1;
    return weight < plan->weight_max ? (uint32_t)weight : plan->weight_max;
}

void linnet_plan_rates(const linnet_plan *plan, uint64_t version, double *ret_rate_b, double *ret_rate_a)
{
    double share = plan->cosine && plan->rounds > 0
                       ? linnet_schedule_cosine(version, plan->rounds, plan->schedule_final)
                       : 1;
    double rate_a = plan->learning_rate_a;
    if (rate_a == 0)
        rate_a =
            plan->rule == LINNET_RULE_FEDAVG ? FEDAVG_RATE_A * plan->learning_rate_b : plan->learning_rate_b;
    *ret_rate_b = share * plan->learning_rate_b;
    *ret_rate_a = share * rate_a;
}

/* With differential privacy every contribution weighs 1. */
static uint32_t weight_max_of(const linnet_plan *plan)
{
    return plan->mechanism == LINNET_DP_NONE ? plan->weight_max : 1;
}

/* The largest q that the ring allows for a whole cohort, or the planned width of a value where that is
 * less. */
static uint32_t planned_clamp(const linnet_plan *plan)
{
    uint32_t clamp = linnet_ring_clamp_max(plan->ring_bits, linnet_plan_join_max(plan), weight_max_of(plan));
    uint32_t width = plan->value_bits ? ((uint32_t)1 << (plan->value_bits - 1)) - 1 : clamp;
    return width < clamp ? width : clamp;
}

static linnet_ring_spec lane_spec(const linnet_plan *plan)
{
    return (linnet_ring_spec){
        .vector_id = 1,
        .length = plan->mechanism == LINNET_DP_NONE ? LINNET_LANES : LINNET_DP_LANES,
        .bits = 32,
        .clamp = linnet_ring_clamp_max(32, linnet_plan_join_max(plan), 1),
        .weight_max = 1,
    };
}

static linnet_status check_ring(const linnet_plan *plan, linnet_error *err)
{
    if (plan->ring_bits != 16 && plan->ring_bits != 20 && plan->ring_bits != 24 && plan->ring_bits != 32)
        return linnet_fail(err, LINNET_ERR_RANGE, "encoding.ring_bits: %u, must be 16, 20, 24 or 32",
                           (unsigned)plan->ring_bits);
    if (linnet_plan_clips_deltas(plan))
        return LINNET_OK; /* its ring follows from the noise, once the length is known */
    if (planned_clamp(plan) < CLAMP_MIN)
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "encoding: %u devices of weight up to %u leave values of only %u steps; raise "
                           "encoding.ring_bits or value_bits, or lower weight_max or the cohort",
                           (unsigned)linnet_plan_join_max(plan), (unsigned)weight_max_of(plan),
                           (unsigned)planned_clamp(plan));
    /* A weighted loss is the largest value of a lane. */
    uint64_t lane_max = (uint64_t)weight_max_of(plan) * LINNET_LANE_LOSS_SCALE * LINNET_LANE_LOSS_MAX;
    if (lane_max > lane_spec(plan).clamp)
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "encoding.weight_max: %u does not fit the lanes of %u devices",
                           (unsigned)plan->weight_max, (unsigned)linnet_plan_join_max(plan));
    return LINNET_OK;
}

linnet_status linnet_plan_check(const linnet_plan *plan, linnet_error *err)
{
    if (plan->minimum > plan->goal)
        return linnet_fail(err, LINNET_ERR_RANGE, "cohort.minimum: %u is above cohort.goal, %u",
                           (unsigned)plan->minimum, (unsigned)plan->goal);
    if (plan->goal * plan->over_selection > LINNET_COHORT_MAX)
        return linnet_fail(err, LINNET_ERR_RANGE, "cohort: goal x over_selection is %.0f devices, at most %d",
                           plan->goal * plan->over_selection, LINNET_COHORT_MAX);
    if (plan->profile < LINNET_PROFILE_PLAIN || plan->profile > LINNET_PROFILE_CENTRAL_DP)
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED, "secure.profile: %d is not known", plan->profile);
    linnet_status status = linnet_plan_check_secure(plan, err);
    if (status == LINNET_OK)
        status = linnet_plan_check_privacy(plan, err);
    if (status == LINNET_OK)
        status = linnet_plan_check_aggregation(plan, err);
    return status == LINNET_OK ? check_ring(plan, err) : status;
}

/* One factor's vector. The exponent is the finest for the clamp; the clamp is then cut to what the range
 * needs. */
static linnet_status factor_spec(const linnet_plan *plan, const linnet_layout *layout, linnet_factors factor,
                                 double rate, linnet_ring_spec *ret_spec, linnet_error *err)
{
    double range = plan->range * linnet_delta_range(rate, plan->local_steps, plan->warmup_steps);
    linnet_ring_spec spec = {
        .vector_id = factor == LINNET_FACTOR_B ? 0 : 2,
        .length = linnet_factors_length(layout, factor),
        .bits = plan->ring_bits,
        .clamp = planned_clamp(plan),
        .weight_max = weight_max_of(plan),
    };
    spec.exponent = linnet_ring_exponent(range, spec.clamp);
    double needed = ceil(ldexp(range, spec.exponent));
    if (needed >= 1 && needed < spec.clamp)
        spec.clamp = (uint32_t)needed;
    linnet_status status = linnet_ring_check(&spec, linnet_plan_join_max(plan), err);
    if (status != LINNET_OK)
        return linnet_error_prefix(err, status, "factor %s", factor == LINNET_FACTOR_B ? "B" : "A");
    *ret_spec = spec;
    return LINNET_OK;
}

linnet_status linnet_plan_vectors(const linnet_plan *plan, const linnet_layout *layout, uint64_t version,
                                  linnet_ring_spec ret_specs[3], size_t *ret_n, linnet_error *err)
{
    linnet_ring_spec specs[LINNET_VECTORS_MAX];
    size_t n = 0;
    double rate_b = 0, rate_a = 0;
    linnet_factors factors = linnet_rule_factors((linnet_rule)plan->rule, version);
    linnet_status status = linnet_plan_check(plan, err);
    linnet_plan_rates(plan, version, &rate_b, &rate_a);
    if (status == LINNET_OK && linnet_plan_clips_deltas(plan)) {
        factors = (linnet_factors)0; /* ffa: the noised vector is B, and there is no other */
        status = linnet_plan_noised_spec(plan, layout, version, &specs[n++], err);
    }
    if (status == LINNET_OK && (factors & LINNET_FACTOR_B))
        status = factor_spec(plan, layout, LINNET_FACTOR_B, rate_b, &specs[n++], err);
    if (status == LINNET_OK && (factors & LINNET_FACTOR_A))
        status = factor_spec(plan, layout, LINNET_FACTOR_A, rate_a, &specs[n++], err);
    if (status != LINNET_OK)
        return status;
    specs[n++] = lane_spec(plan);
    memcpy(ret_specs, specs, n * sizeof(*specs));
    *ret_n = n;
    return LINNET_OK;
}
