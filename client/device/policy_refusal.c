/* SPDX-License-Identifier: Apache-2.0 */

/* What the floors of a policy mean: pure functions of policy, plan and announcement, so that every floor can
 * be tested without a device, and so that the answer never depends on texts or training
 * (SECURE-AGGREGATION 2.4, 2.8, 3.4). */

#include <math.h>

#include "linnet/device.h"

static bool key_equal(const linnet_public_key *a, const linnet_public_key *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

const char *linnet_policy_pin_refusal(const linnet_policy *policy, const linnet_public_key *coordinator,
                                      const linnet_public_key *authority, const linnet_hash *plan,
                                      const linnet_hash *base)
{
    if (policy->has_coordinator && !key_equal(&policy->coordinator, coordinator))
        return "policy: the coordinator's key is not the pinned one (coordinator_key)";
    if (policy->has_authority && !key_equal(&policy->authority, authority))
        return "policy: the enrolment authority's key is not the pinned one (authority_key)";
    if (policy->has_base && !linnet_hash_equal(&policy->base, base))
        return "policy: the base model is not the pinned one (base_hash)";
    if (policy->has_plan && !linnet_hash_equal(&policy->plan, plan))
        return "policy: the plan is not the pinned one (plan_hash)";
    return NULL;
}

static const char *profile_refusal(const linnet_policy *policy, int profile)
{
    if (profile == LINNET_PROFILE_PLAIN && !policy->allow_plain)
        return "policy: profile plain is not allowed (allow_plain = off)";
    if (profile == LINNET_PROFILE_CENTRAL_DP && !policy->allow_central_noise)
        return "policy: profile central-dp is not allowed (allow_central_noise = off)";
    return NULL;
}

static uint32_t permille_min(const linnet_policy *policy)
{
    return (uint32_t)ceil(1000 * policy->corrupt_min - 1e-9); /* 0.05 is 50, not 51 */
}

/* What masked sums hide a device among. */
static const char *masks_refusal(const linnet_policy *policy, uint32_t m_min, uint32_t corrupt_permille,
                                 uint32_t phase_s)
{
    if (m_min < policy->survivors_min)
        return "policy: sums of fewer devices than survivors_min would be opened";
    if (corrupt_permille < permille_min(policy))
        return "policy: fewer corrupt devices than corrupt_min are assumed";
    if (phase_s < policy->phase_min_s)
        return "policy: the phases are shorter than phase_deadline_min";
    return NULL;
}

/* Would this noise, spent once more, pass the limits? */
static const char *noise_refusal(const linnet_policy *policy, const linnet_privacy *privacy,
                                 const linnet_rdp *spent)
{
    bool has_noise = privacy->mechanism != LINNET_DP_NONE;
    if (policy->noise_min > 0 && !(has_noise && privacy->noise_multiplier >= policy->noise_min))
        return "policy: the noise is less than noise_min";
    if (policy->dp_epsilon_max == 0)
        return NULL;
    if (!has_noise)
        return "policy: without differential privacy no epsilon_max can be kept";
    linnet_rdp rdp = {{0}};
    if (spent)
        rdp = *spent;
    linnet_privacy_spend(privacy, 1, &rdp);
    if (!(linnet_dp_epsilon(&rdp, policy->dp_delta, NULL) <= policy->dp_epsilon_max))
        return "policy: one more round would pass epsilon_max";
    return NULL;
}

const char *linnet_policy_plan_refusal(const linnet_policy *policy, const linnet_plan *plan)
{
    const linnet_privacy privacy = {.mechanism = (linnet_dp_mechanism)plan->mechanism,
                                    .noise_multiplier = plan->noise_multiplier,
                                    .probability = plan->record_probability,
                                    .n_steps = plan->local_steps};
    const char *refusal = profile_refusal(policy, plan->profile);
    if (refusal)
        return refusal;
    if (plan->goal < policy->cohort_min || plan->minimum < policy->cohort_min)
        return "policy: the plan's cohort is smaller than cohort_min";
    if (linnet_profile_is_secure(plan->profile))
        refusal = masks_refusal(policy, linnet_plan_survivors_min(plan), linnet_plan_corrupt_permille(plan),
                                plan->phase_deadline_s);
    if (refusal)
        return refusal;
    if (plan->local_steps > policy->local_steps_max)
        return "policy: the plan trains more than local_steps_max";
    if (plan->context_tokens > policy->context_tokens_max)
        return "policy: the plan's context is longer than context_tokens_max";
    return noise_refusal(policy, &privacy, NULL);
}

const char *linnet_policy_round_refusal(const linnet_policy *policy, const linnet_announcement *announcement,
                                        const linnet_privacy *privacy, const linnet_rdp *spent)
{
    const linnet_announcement *a = announcement;
    uint64_t n_bytes = 0;
    const char *refusal = profile_refusal(policy, (int)a->profile);
    if (refusal)
        return refusal;
    if (a->n_min < policy->cohort_min)
        return "policy: the announced cohort is smaller than cohort_min";
    if (linnet_profile_is_secure((int)a->profile))
        refusal = masks_refusal(policy, a->m_min, a->corrupt_permille, a->phase_s);
    if (refusal)
        return refusal;
    for (size_t i = 0; i < a->n_vectors; i++)
        n_bytes += linnet_ring_bytes(&a->vectors[i]);
    if (n_bytes > policy->upload_bytes_max)
        return "policy: the contribution is larger than upload_bytes_max";
    return noise_refusal(policy, privacy, spent);
}
