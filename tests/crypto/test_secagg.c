/* SPDX-License-Identifier: Apache-2.0 */

/* Whole rounds of linnet-sa1: the sum is exactly that of the survivors, whoever drops out when. */

#include "cohort.h"

static void the_sum_is_exact_for_every_size_and_width(void **state)
{
    (void)state;
    static const uint32_t widths[] = {16, 20, 24, 32};
    const uint32_t most = testing_size("largest cohort", 40, 10);
    for (uint32_t n = 3; n <= most; n++) {
        cohort c;
        cohort_drop drops[40];
        for (uint32_t i = 0; i < n; i++)
            drops[i] = DROP_NEVER;
        cohort_init(&c, n, widths[n % 4]);
        assert_int_equal(cohort_play(&c, drops), LINNET_OK);
        cohort_release(&c);
    }
}

static const cohort_drop phases[] = {DROP_SHARES, DROP_MASKED, DROP_ATTEST, DROP_UNMASK};

static void play_with(uint32_t n, uint32_t n_dropped, size_t first_phase, size_t n_phases)
{
    cohort c;
    cohort_drop drops[40];
    for (uint32_t i = 0; i < n; i++)
        drops[i] = i < n_dropped ? phases[first_phase + i % n_phases] : DROP_NEVER;
    cohort_init(&c, n, 24);
    assert_int_equal(cohort_play(&c, drops), LINNET_OK);
    cohort_release(&c);
}

static uint32_t tolerated(uint32_t n)
{
    linnet_secagg_params params = {.n_min = 3, .n_max = n, .m_min = 2, .corrupt_permille = 50};
    return linnet_secagg_thresholds_of(&params, n).drop_outs;
}

static void drop_outs_in_one_phase_cost_nothing(void **state)
{
    (void)state;
    const uint32_t most = testing_size("largest cohort", 10, 6);
    for (uint32_t n = 5; n <= most; n++)
        for (size_t p = 0; p < ARRAY_LEN(phases); p++)
            play_with(n, tolerated(n), p, 1);
}

static void drop_outs_in_all_phases_cost_nothing(void **state)
{
    (void)state;
    const uint32_t most = testing_size("largest cohort", 40, 10);
    for (uint32_t n = 5; n <= most; n++)
        play_with(n, tolerated(n), 0, ARRAY_LEN(phases));
}

/* t + 1 of n must be able to answer, and n - 1 = t holders are too few. */
static void a_cohort_of_two_is_refused(void **state)
{
    (void)state;
    cohort c;
    cohort_init(&c, 3, 24);
    c.params.n_min = 1;
    linnet_secagg_server *server = NULL;
    assert_int_equal(linnet_secagg_server_create(&c.params, c.coordinator, &server, NULL), LINNET_ERR_ARG);
    c.params.n_min = 2;
    assert_int_equal(linnet_secagg_server_create(&c.params, c.coordinator, &server, NULL), LINNET_ERR_ARG);
    cohort_release(&c);
}

/* What a round must come to, from the thresholds alone: OK, or the status of the first step that cannot be
 * taken. */
static linnet_status verdict_of(const cohort *c, uint32_t n_dropped, cohort_drop phase)
{
    uint32_t left = c->n - n_dropped, n = phase == DROP_ADVERT ? left : c->n;
    linnet_secagg_thresholds t = linnet_secagg_thresholds_of(&c->params, n);
    if (n < c->params.n_min || (phase <= DROP_SHARES && left < t.sharers_min) ||
        (phase <= DROP_MASKED && left < t.survivors_min))
        return LINNET_ERR_RANGE;
    if (phase <= DROP_ATTEST && left < t.signatures)
        return LINNET_ERR_NOT_FOUND;
    return left <= t.shares ? LINNET_ERR_AGAIN : LINNET_OK; /* an owner holds no share of its own */
}

/* Every subset of the members of every cohort of up to eight, in every phase: the exact sum or none. */
static void every_subset_may_drop_out_in_every_phase(void **state)
{
    (void)state;
    static const cohort_drop all[] = {DROP_ADVERT, DROP_SHARES, DROP_MASKED, DROP_ATTEST, DROP_UNMASK};
    const uint32_t most = testing_size("largest cohort with every subset", 8, 5);
    uint32_t n_exact = 0, n_none = 0;
    for (uint32_t n = 3; n <= most; n++)
        for (size_t p = 0; p < ARRAY_LEN(all); p++)
            for (uint32_t subset = 0; subset < 1u << n; subset++) {
                cohort c;
                cohort_drop drops[8];
                uint32_t n_dropped = 0;
                linnet_secagg_cache *cache = NULL;
                for (uint32_t i = 0; i < n; i++) {
                    drops[i] = subset >> i & 1 ? all[p] : DROP_NEVER;
                    n_dropped += subset >> i & 1;
                }
                assert_int_equal(linnet_secagg_cache_create(&cache, NULL), LINNET_OK);
                cohort_init(&c, n, 16);
                c.trust.cache = cache;
                linnet_status want = verdict_of(&c, n_dropped, all[p]), got = cohort_play(&c, drops);
                if (got != want)
                    fail_msg("n %u, subset %x, before M%d: %s, not %s", (unsigned)n, (unsigned)subset,
                             (int)all[p], linnet_status_name(got), linnet_status_name(want));
                n_exact += got == LINNET_OK;
                n_none += got != LINNET_OK;
                cohort_release(&c);
                linnet_secagg_cache_destroy(cache);
            }
    assert_true(n_exact >= 15 && n_none > 2 * n_exact); /* at least the whole cohorts, in every phase */
}

/* Devices of one process that share a cache play the same rounds; what nobody has checked is checked. */
static void a_shared_cache_changes_no_verdict(void **state)
{
    (void)state;
    cohort c;
    linnet_secagg_cache *cache = NULL;
    linnet_buffer m2 = {0};
    cohort_drop drops[8] = {DROP_NEVER, DROP_NEVER,  DROP_NEVER,  DROP_NEVER,
                            DROP_NEVER, DROP_MASKED, DROP_ATTEST, DROP_NEVER};
    assert_int_equal(linnet_secagg_cache_create(&cache, NULL), LINNET_OK);
    cohort_init(&c, 8, 24);
    c.trust.cache = cache;
    assert_int_equal(cohort_play(&c, drops), LINNET_OK);
    cohort_release(&c);

    cohort_init(&c, 8, 24); /* a member whose advert is not its own, signed into a roster */
    c.trust.cache = cache;
    assert_int_equal(cohort_adverts(&c, drops), LINNET_OK);
    assert_int_equal(linnet_secagg_server_make_roster(c.server, &m2, NULL), LINNET_OK);
    m2.bytes[m2.n_bytes - LINNET_SIGNED_CERTIFICATE_BYTES - 1] ^= 1; /* its signature */
    linnet_hash leaves[8];
    for (uint32_t i = 0; i < 8; i++)
        leaves[i] =
            linnet_secagg_leaf(m2.bytes + LINNET_SIGNATURE_BYTES + 4 + (size_t)i * LINNET_ADVERT_BYTES);
    linnet_hash t1 = linnet_secagg_t1(&c.params.announcement, leaves, 8);
    linnet_signature signature = linnet_sign_hash(c.coordinator, &t1);
    memcpy(m2.bytes, signature.bytes, sizeof(signature.bytes));
    for (uint32_t i = 0; i < 8; i++) /* the first refuses it, and so do all after */
        assert_int_not_equal(
            linnet_secagg_device_take_roster(c.members[i].device, &c.trust, m2.bytes, m2.n_bytes, NULL),
            LINNET_OK);
    linnet_buffer_release(&m2);
    cohort_release(&c);
    linnet_secagg_cache_destroy(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sum_is_exact_for_every_size_and_width),
        cmocka_unit_test(drop_outs_in_one_phase_cost_nothing),
        cmocka_unit_test(drop_outs_in_all_phases_cost_nothing),
        cmocka_unit_test(a_cohort_of_two_is_refused),
        cmocka_unit_test(every_subset_may_drop_out_in_every_phase),
        cmocka_unit_test(a_shared_cache_changes_no_verdict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
