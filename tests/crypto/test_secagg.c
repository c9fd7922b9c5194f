/* SPDX-License-Identifier: Apache-2.0 */

/* Whole rounds of linnet-sa1: the sum is exactly that of the survivors, whoever drops out when. */

#include "cohort.h"

static void the_sum_is_exact_for_every_size_and_width(void **state)
{
    (void)state;
    static const uint32_t widths[] = {16, 20, 24, 32};
    for (uint32_t n = 3; n <= 40; n++) {
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
    for (uint32_t n = 5; n <= 10; n++)
        for (size_t p = 0; p < ARRAY_LEN(phases); p++)
            play_with(n, tolerated(n), p, 1);
}

static void drop_outs_in_all_phases_cost_nothing(void **state)
{
    (void)state;
    for (uint32_t n = 5; n <= 40; n++)
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sum_is_exact_for_every_size_and_width),
        cmocka_unit_test(drop_outs_in_one_phase_cost_nothing),
        cmocka_unit_test(drop_outs_in_all_phases_cost_nothing),
        cmocka_unit_test(a_cohort_of_two_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
