/* SPDX-License-Identifier: Apache-2.0 */
/* The body of an announcement before the floors of a policy. The first bytes choose the policy, what was
 * spent before and the noise that the announcement stands for; what passes keeps every floor. */
#include "linnet/device.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

#define HEAD 8

static void require(bool is_so)
{
    if (!is_so)
        abort();
}

static linnet_policy policy_of(const uint8_t *head)
{
    linnet_policy policy = linnet_policy_default();
    policy.cohort_min = head[0];
    policy.survivors_min = head[1];
    policy.corrupt_min = head[2] / 256.0;
    policy.phase_min_s = head[3];
    policy.noise_min = head[4] / 64.0;
    policy.dp_epsilon_max = head[5] / 8.0;
    policy.upload_bytes_max = (uint64_t)1 << head[6] % 40;
    policy.allow_plain = (head[7] & 1) != 0;
    policy.allow_central_noise = (head[7] & 2) != 0;
    return policy;
}

static double epsilon_after(const linnet_policy *policy, const linnet_privacy *privacy,
                            const linnet_rdp *spent)
{
    linnet_rdp rdp = *spent;
    linnet_privacy_spend(privacy, 1, &rdp);
    return linnet_dp_epsilon(&rdp, policy->dp_delta, NULL);
}

static void must_be_kept(const linnet_policy *policy, const linnet_announcement *a,
                         const linnet_privacy *privacy, const linnet_rdp *spent)
{
    uint64_t n_bytes = 0;
    bool has_noise = privacy->mechanism != LINNET_DP_NONE;
    for (uint32_t i = 0; i < a->n_vectors; i++)
        n_bytes += linnet_ring_bytes(&a->vectors[i]);
    require(n_bytes <= policy->upload_bytes_max);
    require(a->n_min >= policy->cohort_min);
    require(a->profile != LINNET_PROFILE_PLAIN || policy->allow_plain);
    require(a->profile != LINNET_PROFILE_CENTRAL_DP || policy->allow_central_noise);
    if (linnet_profile_is_secure((int)a->profile)) {
        require(a->m_min >= policy->survivors_min && a->phase_s >= policy->phase_min_s);
        require(a->corrupt_permille >= 1000 * policy->corrupt_min - 1e-6);
    }
    require(policy->noise_min == 0 || (has_noise && privacy->noise_multiplier >= policy->noise_min));
    if (policy->dp_epsilon_max > 0)
        require(has_noise && epsilon_after(policy, privacy, spent) <= policy->dp_epsilon_max);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    linnet_announcement a;
    linnet_error err = {0};
    linnet_rdp spent = {{0}};
    if (n_bytes < HEAD || linnet_announcement_unpack(data + HEAD, n_bytes - HEAD, &a, &err) != LINNET_OK)
        return 0;
    linnet_policy policy = policy_of(data);
    const linnet_privacy privacy = {.mechanism = (linnet_dp_mechanism)a.dp_mechanism,
                                    .unit = (linnet_dp_unit)a.dp_unit,
                                    .clip = a.dp_clip,
                                    .sigma2 = a.dp_sigma2,
                                    .noise_multiplier = (1 + (data[7] >> 4)) / 4.0,
                                    .probability = a.dp_probability,
                                    .n_steps = a.dp_steps};
    if ((data[7] & 4) != 0)
        linnet_privacy_spend(&privacy, 3, &spent);
    if (!linnet_policy_round_refusal(&policy, &a, &privacy, &spent))
        must_be_kept(&policy, &a, &privacy, &spent);
    return 0;
}
