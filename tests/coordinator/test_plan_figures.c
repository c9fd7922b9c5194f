/* SPDX-License-Identifier: Apache-2.0 */
/* The figures of plan-check against the tables and examples of the specification. */
#include <math.h>

#include "coordinator/plan_figures.h"

#include "testing.h"

static linnet_plan plan_of(const char *text)
{
    linnet_plan plan;
    linnet_error err = {0};
    assert_ok(linnet_plan_parse("p", text, strlen(text), &plan, &err), &err);
    return plan;
}

static linnet_layout layout_of(size_t n_b, size_t n_a)
{
    return (linnet_layout){.alpha = 16, .n_parameters = n_a + n_b, .n_a = n_a, .n_b = n_b};
}

/* SECURE-AGGREGATION 2.5, the whole table. */
static void rosters_tolerate_what_the_specification_says(void **state)
{
    (void)state;
    static const struct {
        uint32_t n, corrupt[2], shares[2], signatures[2], drop_outs[2];
    } cases[] = {
        {5, {1, 1}, {3, 3}, {4, 4}, {1, 1}},          {20, {1, 2}, {11, 11}, {11, 12}, {8, 8}},
        {50, {3, 5}, {27, 28}, {27, 28}, {22, 21}},   {100, {5, 10}, {53, 55}, {53, 56}, {46, 44}},
        {128, {7, 13}, {68, 71}, {68, 71}, {59, 56}}, {1000, {50, 100}, {525, 550}, {526, 551}, {474, 449}},
    };
    linnet_plan plan = plan_of("[secure]\nprofile = secure\n");
    for (size_t i = 0; i < 2 * ARRAY_LEN(cases); i++) {
        size_t row = i / 2, column = i % 2;
        plan.corrupt = column ? 0.1 : 0.05;
        linnet_roster_figures r = linnet_plan_roster(&plan, cases[row].n);
        assert_int_equal(r.thresholds.corrupt, cases[row].corrupt[column]);
        assert_int_equal(r.thresholds.shares, cases[row].shares[column]);
        assert_int_equal(r.thresholds.signatures, cases[row].signatures[column]);
        assert_int_equal(r.drop_outs, cases[row].drop_outs[column]);
    }
}

static void fewer_may_drop_out_where_a_sum_must_be_large(void **state)
{
    (void)state;
    linnet_plan plan = plan_of("[task]\npreset = wearables\n[secure]\nprofile = secure\n");
    linnet_roster_figures r = linnet_plan_roster(&plan, 64);
    assert_int_equal(r.before_shares, 0); /* fewer than cohort.minimum may not share */
    assert_int_equal(r.drop_outs, 16);    /* 48 of 64 must stay */
    r = linnet_plan_roster(&plan, 70);
    assert_int_equal(r.before_shares, 6);
    assert_int_equal(r.drop_outs, 22);
    plan.survivors = 64;
    assert_int_equal(linnet_plan_roster(&plan, 64).drop_outs, 0);
}

/* 2.7, wire size: 318 kB up for d = 10^5, b = 24, n = 128, of which 300 kB are the vector; down the
 * roster (47 kB: certificates are in it), 13 kB of shares, 12 kB of survivors, and a certificate that brings
 * the survivors again. */
static void the_bytes_of_a_round_are_those_of_the_specification(void **state)
{
    (void)state;
    linnet_plan plan = plan_of("[secure]\nprofile = secure\n[cohort]\ngoal = 128\nminimum = "
                               "64\nover_selection = 1\n");
    linnet_layout layout = layout_of(100000, 1000);
    linnet_wire_figures wire;
    linnet_error err = {0};
    assert_ok(linnet_plan_wire(&plan, &layout, 0, &wire, &err), &err);
    assert_in_range(wire.contribution, 300016, 302000);
    assert_in_range(wire.messages_up, 13200 + 4200, 13200 + 4200 + 500 + 8 * 700);
    assert_in_range(wire.messages_down, 46916 + 13288 + 12368 + 16996,
                    46916 + 13288 + 12368 + 16996 + 8 * 700);
    assert_true((double)(wire.contribution + wire.messages_up) <= 1.10 * 300000); /* 6.3 */
    assert_int_equal(wire.adapter, 404000);
    plan.profile = LINNET_PROFILE_PLAIN;
    assert_ok(linnet_plan_wire(&plan, &layout, 0, &wire, &err), &err);
    assert_int_equal(wire.messages_up, 0);
    assert_int_equal(wire.messages_down, 0);
}

#define DEVICE_NOISE                                                                                         \
    "[secure]\nprofile = secure+dp\ncorrupt = 0\n[privacy]\nmechanism = distributed\nclip = "                \
    "0.1\n[encoding]\nring_bits = 32\nweight_unit_tokens = 0\n[aggregation]\nrule = ffa\n"

/* 3.6: the norm in the mean is about z Delta sqrt(d) / n; a thousand devices can work, twenty cannot. */
static void verdicts_follow_noise_against_signal(void **state)
{
    (void)state;
    static const struct {
        uint32_t n, cohorts;
        double z, ratio;
        linnet_plan_verdict verdict;
    } cases[] = {
        {1000, 1, 1, 0.32, LINNET_VERDICT_WORKABLE},
        {128, 1, 1, 2.5, LINNET_VERDICT_USELESS},
        {128, 8, 1, 0.87, LINNET_VERDICT_NOISY},
        {20, 1, 4, 63, LINNET_VERDICT_USELESS},
    };
    linnet_layout layout = layout_of(100000, 1000);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_plan plan = plan_of("[privacy]\nnoise_multiplier = 1\n" DEVICE_NOISE);
        linnet_noise_figures f;
        linnet_error err = {0};
        plan.over_selection = 1;
        plan.goal = plan.minimum = plan.survivors = cases[i].n;
        plan.cohorts = cases[i].cohorts;
        plan.noise_multiplier = cases[i].z;
        assert_ok(linnet_plan_noise(&plan, &layout, 0, &f, &err), &err);
        double got = f.noise_norm / f.signal_norm;
        /* above it by padding, rounding and one device that may leave its noise out */
        if (got < cases[i].ratio * 0.99 || got > cases[i].ratio * 1.06)
            fail_msg("%u devices: ratio %g, want %g", cases[i].n, got, cases[i].ratio);
        assert_int_equal(f.verdict, cases[i].verdict);
        assert_true(f.signal_norm == 0.1);
    }
}

static void a_clip_above_what_rates_can_move_is_no_signal(void **state)
{
    (void)state;
    linnet_plan plan = plan_of("[task]\npreset = wearables-dp\n");
    linnet_layout layout = layout_of(4096, 1000);
    linnet_noise_figures f;
    linnet_error err = {0};
    plan.clip = 100;
    assert_ok(linnet_plan_noise(&plan, &layout, 0, &f, &err), &err);
    double most = linnet_delta_range(plan.learning_rate_b, plan.local_steps, plan.warmup_steps) * 64;
    assert_true(fabs(f.signal_norm - most) < 1e-12);
    assert_int_equal(f.verdict, LINNET_VERDICT_USELESS);
}

static void more_units_a_step_make_record_noise_smaller(void **state)
{
    (void)state;
    linnet_plan plan = plan_of("[task]\npreset = clinics-dp\n");
    linnet_layout layout = layout_of(50000, 1000);
    linnet_noise_figures f;
    linnet_error err = {0};
    assert_ok(linnet_plan_noise(&plan, &layout, 0, &f, &err), &err);
    /* z sqrt(d) / (p units) a step, averaged over 6 clinics and 10 steps, in units of the clip */
    double want = plan.noise_multiplier * sqrt(50000) / 50 / sqrt(60);
    double got = f.noise_norm / f.signal_norm;
    assert_true(got > want && got < 1.02 * want);
    plan.record_units *= 100;
    assert_ok(linnet_plan_noise(&plan, &layout, 0, &f, &err), &err);
    assert_true(fabs(f.noise_norm / f.signal_norm - got / 100) < 1e-9);
    assert_int_equal(f.verdict, LINNET_VERDICT_WORKABLE);
    plan = plan_of("");
    assert_ok(linnet_plan_noise(&plan, &layout, 0, &f, &err), &err);
    assert_int_equal(f.verdict, LINNET_VERDICT_NO_NOISE);
}

/* The promise never stands without what it rests on: SECURE-AGGREGATION 0, line 12. */
static void every_claim_comes_with_its_assumption(void **state)
{
    (void)state;
    static const struct {
        const char *plan, *claim, *assumption;
    } cases[] = {
        {"[secure]\nprofile = plain\n", "sees single deltas", "trusted"},
        {"[secure]\nprofile = secure\n", "sums of masked deltas", "not the operator's"},
        {"[task]\npreset = wearables-dp\n", "any one device", "add their noise"},
        {"[task]\npreset = clinics-dp\n", "records or units", "two units"},
        {"[secure]\nprofile = central-dp\n[privacy]\nnoise_multiplier = 1\nclip = 1\n[encoding]\n"
         "weight_unit_tokens = 0\n[aggregation]\nrule = ffa\n",
         "No promise against the coordinator", "adds the noise"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_plan plan = plan_of(cases[i].plan);
        if (!strstr(linnet_plan_claim(&plan), cases[i].claim))
            fail_msg("case %zu: '%s'", i, linnet_plan_claim(&plan));
        if (!strstr(linnet_plan_assumption(&plan), cases[i].assumption))
            fail_msg("case %zu: '%s'", i, linnet_plan_assumption(&plan));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rosters_tolerate_what_the_specification_says),
        cmocka_unit_test(fewer_may_drop_out_where_a_sum_must_be_large),
        cmocka_unit_test(the_bytes_of_a_round_are_those_of_the_specification),
        cmocka_unit_test(verdicts_follow_noise_against_signal),
        cmocka_unit_test(a_clip_above_what_rates_can_move_is_no_signal),
        cmocka_unit_test(more_units_a_step_make_record_noise_smaller),
        cmocka_unit_test(every_claim_comes_with_its_assumption),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
