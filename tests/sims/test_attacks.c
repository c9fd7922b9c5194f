/* SPDX-License-Identifier: Apache-2.0 */
/* Attackers are chosen by the seed, and do to a delta what their name says. */
#include "testing.h"

#include "linnet/secagg.h"
#include "sims/attacks.h"

#include <math.h>

static void names_are_those_of_the_scenario(void **state)
{
    (void)state;
    static const char *const names[] = {"none",       "sign_flip",  "scale",        "random",
                                        "label_flip", "omit_noise", "wrong_shares", "abort"};
    for (size_t i = 0; i < LINNET_ATTACKS; i++)
        assert_string_equal(linnet_attack_name((linnet_attack)i), names[i]);
    assert_string_equal(linnet_attack_name(LINNET_ATTACKS), "unknown");
}

static void the_fraction_is_kept(void **state)
{
    (void)state;
    static const struct {
        linnet_attack attack;
        double attackers;
        size_t n_devices, want;
    } cases[] = {
        {LINNET_ATTACK_SCALE, 0, 10, 0},      {LINNET_ATTACK_SCALE, 0.2, 10, 2},
        {LINNET_ATTACK_ABORT, 0.24, 10, 2},   {LINNET_ATTACK_ABORT, 0.25, 10, 3},
        {LINNET_ATTACK_SCALE, 1, 10, 10},     {LINNET_ATTACK_SCALE, 0.04, 10, 0},
        {LINNET_ATTACK_RANDOM, 0.5, 1, 1},    {LINNET_ATTACK_NONE, 0.5, 10, 0},
        {LINNET_ATTACK_RANDOM, 0.1, 100, 10}, {LINNET_ATTACK_RANDOM, 0.5, 0, 0},
    };
    for (size_t c = 0; c < ARRAY_LEN(cases); c++)
        for (uint64_t seed = 0; seed < 20; seed++) {
            linnet_scenario scenario = {.attack = cases[c].attack, .attackers = cases[c].attackers};
            bool is_attacker[100] = {false};
            size_t n = 0, told = attackers_choose(&scenario, seed, cases[c].n_devices, is_attacker);
            for (size_t i = 0; i < ARRAY_LEN(is_attacker); i++)
                n += is_attacker[i];
            if (told != cases[c].want || n != cases[c].want)
                fail_msg("case %zu: %zu of %zu", c, n, cases[c].n_devices);
        }
}

/* 3 of 10 over 4000 seeds: each device 1200 times, standard deviation sqrt(4000 x 0.3 x 0.7) = 29. */
static void the_seed_chooses_and_favours_nobody(void **state)
{
    (void)state;
    enum { n_devices = 10, n_seeds = 4000 };
    linnet_scenario scenario = {.attack = LINNET_ATTACK_SIGN_FLIP, .attackers = 0.3};
    size_t n_times[n_devices] = {0};
    for (uint64_t seed = 0; seed < n_seeds; seed++) {
        bool one[n_devices], again[n_devices];
        assert_int_equal(attackers_choose(&scenario, seed, n_devices, one), 3);
        assert_int_equal(attackers_choose(&scenario, seed, n_devices, again), 3);
        assert_memory_equal(one, again, sizeof(one));
        for (size_t i = 0; i < n_devices; i++)
            n_times[i] += one[i];
    }
    for (size_t i = 0; i < n_devices; i++)
        assert_in_range(n_times[i], 1200 - 5 * 29, 1200 + 5 * 29);
}

static void deterministic_attacks_give_the_table(void **state)
{
    (void)state;
    static const struct {
        linnet_attack attack;
        double scale;
        float want[4];
    } cases[] = {
        {LINNET_ATTACK_NONE, 10, {1, -2, 0, 0.5f}},       {LINNET_ATTACK_SIGN_FLIP, 10, {-1, 2, 0, -0.5f}},
        {LINNET_ATTACK_SCALE, 10, {10, -20, 0, 5}},       {LINNET_ATTACK_SCALE, 0, {0, 0, 0, 0}},
        {LINNET_ATTACK_LABEL_FLIP, 10, {1, -2, 0, 0.5f}}, {LINNET_ATTACK_OMIT_NOISE, 10, {1, -2, 0, 0.5f}},
        {LINNET_ATTACK_ABORT, 10, {1, -2, 0, 0.5f}},      {LINNET_ATTACK_WRONG_SHARES, 10, {1, -2, 0, 0.5f}},
    };
    static const size_t lengths[2] = {3, 1};
    for (size_t c = 0; c < ARRAY_LEN(cases); c++) {
        float b[3] = {1, -2, 0}, a[1] = {0.5f};
        float *const parts[2] = {b, a};
        linnet_rng rng = attack_stream(1, 2, 3);
        attack_delta(cases[c].attack, cases[c].scale, &rng, parts, lengths, 2);
        if (b[0] != cases[c].want[0] || b[1] != cases[c].want[1] || b[2] != cases[c].want[2] ||
            a[0] != cases[c].want[3])
            fail_msg("%s: %g %g %g %g", linnet_attack_name(cases[c].attack), b[0], b[1], b[2], a[0]);
        bool moved = cases[c].attack == LINNET_ATTACK_SIGN_FLIP || cases[c].attack == LINNET_ATTACK_SCALE;
        assert_int_equal(attack_is_on_delta(cases[c].attack), moved);
    }
    assert_true(attack_is_on_delta(LINNET_ATTACK_RANDOM));
}

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

/* The cosine of two independent vectors of n values has the standard deviation 1 / sqrt(n). */
static void random_has_the_norm_and_nothing_else_of_the_delta(void **state)
{
    (void)state;
    enum { n = 10000 };
    static const size_t lengths[2] = {n / 4, n - n / 4};
    static float delta[n], drawn[4][n];
    const uint64_t seed = 53;
    static const uint64_t rounds[4] = {7, 7, 8, 7};
    static const uint32_t devices[4] = {1, 1, 1, 2};
    for (size_t i = 0; i < n; i++)
        delta[i] = (float)(i % 13) * 1e-3f;
    print_message("seed %llu\n", (unsigned long long)seed);
    for (size_t t = 0; t < 4; t++) {
        float *const parts[2] = {drawn[t], drawn[t] + n / 4};
        linnet_rng rng = attack_stream(seed, rounds[t], devices[t]);
        memcpy(drawn[t], delta, sizeof(delta));
        attack_delta(LINNET_ATTACK_RANDOM, 10, &rng, parts, lengths, 2);
        double square = dot(delta, delta, n);
        assert_true(fabs(dot(drawn[t], drawn[t], n) / square - 1) < 1e-6);
        assert_true(fabs(dot(drawn[t], delta, n) / square) < 5 / sqrt(n));
    }
    assert_memory_equal(drawn[0], drawn[1], sizeof(drawn[0]));
    for (size_t t = 2; t < 4; t++) /* another round, another device: other noise */
        assert_true(fabs(dot(drawn[0], drawn[t], n) / dot(delta, delta, n)) < 5 / sqrt(n));
}

static void random_leaves_a_zero_delta_zero(void **state)
{
    (void)state;
    static const size_t length = 5;
    float zero[5] = {0};
    float *const parts[1] = {zero};
    linnet_rng rng = attack_stream(1, 1, 1);
    attack_delta(LINNET_ATTACK_RANDOM, 10, &rng, parts, &length, 1);
    for (size_t i = 0; i < length; i++)
        assert_true(zero[i] == 0);
}

/* ---- labels and shares ---- */

static void every_label_becomes_another_ones(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "{\"prompt\":\"a\",\"completion\":\"one\"}",   "{\"prompt\":\"b\",\"completion\":\"two\"}",
        "{\"text\":\"pull the net\",\"label\":\"x\"}", "{\"prompt\":\"c\",\"completion\":\"three\"}",
        "{\"prompt\":\"d\",\"completion\":\"four\"}",  "{\"text\":\"up\"}"};
    static const char *const want[] = {"three", "four", "net the pull", "one", "two", "up"};
    linnet_record records[ARRAY_LEN(lines)];
    linnet_dataset dataset = {.records = records, .n_records = ARRAY_LEN(lines)};
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        assert_int_equal(linnet_record_parse(lines[i], strlen(lines[i]), &records[i], NULL), LINNET_OK);
    attack_labels(&dataset, false);
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        assert_string_equal(records[i].completion ? records[i].completion : records[i].text, want[i]);
        linnet_record_release(&records[i]);
    }
}

static void forged_shares_are_signed_and_of_the_same_kind(void **state)
{
    (void)state;
    enum { ENTRIES = 5, N = 32 + 16 + ENTRIES * 33 + 64 };
    uint8_t m9[N] = {0}, before[N];
    linnet_identity *identity = NULL;
    linnet_signature signature;
    linnet_rng rng = attack_stream(1, 1, 0);
    assert_int_equal(linnet_crypto_init(NULL), LINNET_OK);
    assert_int_equal(linnet_identity_create(&identity, NULL), LINNET_OK);
    for (size_t i = 0; i < ENTRIES; i++)
        m9[48 + i * 33] = (uint8_t)(i % 3);
    memcpy(before, m9, N);
    attack_shares(&rng, identity, m9, N);
    for (size_t i = 0; i < ENTRIES; i++) {
        const uint8_t *entry = m9 + 48 + i * 33;
        linnet_scalar share;
        memcpy(share.bytes, entry + 1, sizeof(share.bytes));
        assert_int_equal(entry[0], i % 3);
        assert_true(linnet_scalar_is_canonical(&share));
        assert_int_equal(memcmp(entry, before + 48 + i * 33, 33) != 0, i % 3 != 0);
    }
    memcpy(signature.bytes, m9 + N - 64, sizeof(signature.bytes));
    assert_int_equal(
        linnet_verify(linnet_identity_public_key(identity), LINNET_LABEL_UNMASK, m9, N - 64, &signature),
        LINNET_OK);
    linnet_identity_destroy(identity);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_label_becomes_another_ones),
        cmocka_unit_test(forged_shares_are_signed_and_of_the_same_kind),
        cmocka_unit_test(names_are_those_of_the_scenario),
        cmocka_unit_test(the_fraction_is_kept),
        cmocka_unit_test(the_seed_chooses_and_favours_nobody),
        cmocka_unit_test(deterministic_attacks_give_the_table),
        cmocka_unit_test(random_has_the_norm_and_nothing_else_of_the_delta),
        cmocka_unit_test(random_leaves_a_zero_delta_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
