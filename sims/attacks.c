/* SPDX-License-Identifier: Apache-2.0 */
/* Attacks on a delta: the model-poisoning baselines that robust rules are measured against (Blanchard et al.
 * 2017; Pillutla et al. 2022). They are blind: an attacker knows its own delta only. Left out: attackers that
 * see the others' deltas, which secure aggregation hides from them as well. */
#include "attacks.h"

#include <math.h>
#include <string.h>

#include "linnet/secagg.h"

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

/* ---- label flip ---- */

/* The words of a text from the last to the first. */
static void reverse_words(char *text)
{
    size_t n = strlen(text), first = 0;
    for (size_t i = 0; i < n / 2; i++) {
        char c = text[i];
        text[i] = text[n - 1 - i];
        text[n - 1 - i] = c;
    }
    for (size_t i = 0; i <= n; i++) {
        if (text[i] != ' ' && text[i] != '\0')
            continue;
        for (size_t a = first, b = i; a + 1 < b; a++, b--) {
            char c = text[a];
            text[a] = text[b - 1];
            text[b - 1] = c;
        }
        first = i + 1;
    }
}

static void swap_numbers(uint32_t *a, uint32_t *b)
{
    uint32_t held = *a;
    *a = *b;
    *b = held;
}

/* What a record is scored on, NULL for a text that is learned. */
static char **label_of(linnet_record *record, bool classifies)
{
    if (record->kind == LINNET_RECORD_COMPLETION)
        return &record->completion;
    if (record->kind == LINNET_RECORD_MESSAGES && record->n_messages > 0)
        return &record->messages[record->n_messages - 1].content;
    if (classifies)
        return &record->label; /* NULL where the record has a number */
    return NULL;
}

void attack_labels(linnet_dataset *dataset, bool classifies)
{
    size_t half = dataset->n_records / 2;
    for (size_t i = 0; i < dataset->n_records; i++) {
        char **own = label_of(&dataset->records[i], classifies);
        char **other = i < half ? label_of(&dataset->records[i + half], classifies) : NULL;
        if (!own)
            reverse_words(dataset->records[i].text);
        if (!own || !other)
            continue;
        char *held = *own;
        *own = *other;
        *other = held;
        swap_numbers(&dataset->records[i].label_index, &dataset->records[i + half].label_index);
    }
}

/* ---- wrong shares ---- */

#define M9_HEAD_BYTES (LINNET_HASH_BYTES + LINNET_DEVICE_ID_BYTES)
#define M9_ENTRY_BYTES (1 + LINNET_SCALAR_BYTES)

void attack_shares(linnet_rng *rng, const linnet_identity *identity, uint8_t *m9, size_t n_bytes)
{
    if (n_bytes < M9_HEAD_BYTES + LINNET_SIGNATURE_BYTES)
        return;
    size_t n_body = n_bytes - LINNET_SIGNATURE_BYTES;
    for (size_t at = M9_HEAD_BYTES; at + M9_ENTRY_BYTES <= n_body; at += M9_ENTRY_BYTES)
        if (m9[at] != 0)                   /* "missing" has no share */
            for (size_t i = 0; i < 8; i++) /* the low bytes: it stays a scalar */
                m9[at + 1 + i] = (uint8_t)linnet_rng_next(rng);
    linnet_signature signature = linnet_sign(identity, LINNET_LABEL_UNMASK, m9, n_body);
    memcpy(m9 + n_body, signature.bytes, sizeof(signature.bytes));
}
