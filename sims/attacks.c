/* SPDX-License-Identifier: Apache-2.0 */
/* Attacks on a delta: the model-poisoning baselines that robust rules are measured against (Blanchard et al.
 * 2017; Pillutla et al. 2022). They are blind: an attacker knows its own delta only. Left out: attackers that
 * see the others' deltas, which secure aggregation hides from them as well. */
#include "attacks.h"

#include <math.h>

/* Streams of the seed: who attacks, what noise an attacker draws. */
#define STREAM_ATTACKERS UINT64_C(0x61747461636b)
#define STREAM_NOISE UINT64_C(0x61746b6e6f697365)

const char *linnet_attack_name(linnet_attack attack)
{
    static const char *const names[LINNET_ATTACKS] = {"none",       "sign_flip",  "scale",        "random",
                                                      "label_flip", "omit_noise", "wrong_shares", "abort"};
    return (size_t)attack < ARRAY_LEN(names) ? names[attack] : "unknown";
}

/* Selection sampling (Knuth, volume 2, algorithm S): every set of that size is equally likely. */
size_t attackers_choose(const linnet_scenario *scenario, uint64_t seed, size_t n_devices,
                        bool *ret_is_attacker)
{
    size_t n = (size_t)floor(scenario->attackers * (double)n_devices + 0.5), n_chosen = 0;
    linnet_rng rng;
    if (scenario->attack == LINNET_ATTACK_NONE)
        n = 0;
    linnet_rng_init(&rng, seed ^ STREAM_ATTACKERS, 0);
    for (size_t i = 0; i < n_devices; i++) {
        ret_is_attacker[i] = linnet_rng_below(&rng, n_devices - i) < n - n_chosen;
        n_chosen += ret_is_attacker[i];
    }
    return n_chosen;
}

linnet_rng attack_stream(uint64_t seed, uint64_t round, uint32_t device)
{
    linnet_rng rng;
    linnet_rng_init(&rng, seed ^ STREAM_NOISE, round << 32 | device);
    return rng;
}

bool attack_is_on_delta(linnet_attack attack)
{
    return attack == LINNET_ATTACK_SIGN_FLIP || attack == LINNET_ATTACK_SCALE ||
           attack == LINNET_ATTACK_RANDOM;
}

static double norm_of(float *const *parts, const size_t *lengths, size_t n_parts)
{
    double square = 0;
    for (size_t p = 0; p < n_parts; p++)
        for (size_t i = 0; i < lengths[p]; i++)
            square += (double)parts[p][i] * parts[p][i];
    return sqrt(square);
}

static void multiply(double factor, float *const *parts, const size_t *lengths, size_t n_parts)
{
    for (size_t p = 0; p < n_parts; p++)
        for (size_t i = 0; i < lengths[p]; i++)
            parts[p][i] = (float)(factor * parts[p][i]);
}

static void become_noise(linnet_rng *rng, float *const *parts, const size_t *lengths, size_t n_parts)
{
    double norm = norm_of(parts, lengths, n_parts);
    for (size_t p = 0; p < n_parts; p++)
        for (size_t i = 0; i < lengths[p]; i++)
            parts[p][i] = (float)linnet_rng_normal(rng);
    double drawn = norm_of(parts, lengths, n_parts);
    multiply(drawn > 0 ? norm / drawn : 0, parts, lengths, n_parts);
}

void attack_delta(linnet_attack attack, double scale, linnet_rng *rng, float *const *parts,
                  const size_t *lengths, size_t n_parts)
{
    if (attack == LINNET_ATTACK_SIGN_FLIP)
        multiply(-1, parts, lengths, n_parts);
    else if (attack == LINNET_ATTACK_SCALE)
        multiply(scale, parts, lengths, n_parts);
    else if (attack == LINNET_ATTACK_RANDOM)
        become_noise(rng, parts, lengths, n_parts);
}
