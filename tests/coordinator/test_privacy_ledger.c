/* SPDX-License-Identifier: Apache-2.0 */
/* What a task has spent: rows, sums, and which rounds count. */
#include "fixture.h"

#include "coordinator/privacy_ledger.h"
#include "linnet/audit.h"

static linnet_plan noised_plan(const char *more)
{
    linnet_plan plan;
    linnet_error err = {0};
    char text[2048];
    (void)snprintf(
        text, sizeof(text),
        "[task]\nname = ledger\nrounds = 10\n[adapter]\ntargets = attn_q,attn_v\nrank = 2\n[cohort]\n"
        "goal = 5\nminimum = 5\nover_selection = 1.2\n[encoding]\nweight_unit_tokens = 0\n"
        "ring_bits = 32\n[aggregation]\nrule = ffa\n%s",
        more);
    assert_ok(linnet_plan_parse("ledger", text, strlen(text), &plan, &err), &err);
    return plan;
}

#define DISTRIBUTED                                                                                          \
    "[secure]\nprofile = secure+dp\nsurvivors = 4\n[privacy]\nmechanism = distributed\nnoise_multiplier = "  \
    "4\n"                                                                                                    \
    "clip = 0.5\n"
#define CENTRAL                                                                                              \
    "[secure]\nprofile = central-dp\n[privacy]\nmechanism = central\nnoise_multiplier = 4\nclip = 0.5\n"
#define RECORDS                                                                                              \
    "[secure]\nprofile = secure+dp\nsurvivors = 4\n[privacy]\nmechanism = record-local\nnoise_multiplier = " \
    "2\n"                                                                                                    \
    "clip = 0.5\nrecord_probability = 0.1\nrecord_units = 100\n"

typedef struct round_job {
    linnet_coordinator *coordinator;
    uint64_t number;
    bool is_void, has_sharers;
} round_job;

static linnet_status add_round(linnet_store_txn *txn, void *context, linnet_error *err)
{
    const round_job *job = context;
    const uint8_t object = 4;
    linnet_round_row row = {.state = job->is_void ? LINNET_ROUND_VOID : LINNET_ROUND_CLOSED,
                            .number = job->number};
    linnet_record_id id = linnet_record_number('q', job->number);
    linnet_record_add(&id, &object, 1);
    linnet_status status = job->has_sharers ? linnet_store_put(txn, &id, "x", 1, err) : LINNET_OK;
    return status == LINNET_OK ? linnet_privacy_ledger_add(job->coordinator, txn, &row, err) : status;
}

static void end_round(scene *s, uint64_t number, bool is_void, bool has_sharers)
{
    linnet_error err = {0};
    round_job job = {s->coordinator, number, is_void, has_sharers};
    assert_ok(linnet_store_update(s->coordinator->store, add_round, &job, &err), &err);
}

static linnet_privacy_report report_of(scene *s)
{
    linnet_error err = {0};
    linnet_privacy_report report;
    assert_ok(linnet_coordinator_privacy(s->coordinator, &report, &err), &err);
    return report;
}

/* Property 15: monotone in rounds, and the accountant's own figure. */
static void epsilon_adds_up_over_rounds(void **state)
{
    (void)state;
    static const char *const plans[] = {DISTRIBUTED, CENTRAL, RECORDS};
    for (size_t i = 0; i < ARRAY_LEN(plans); i++) {
        scene s;
        linnet_error err = {0};
        linnet_plan plan = noised_plan(plans[i]);
        double before = 0, at = 0;
        scene_begin(&s, &plan);
        assert_true(report_of(&s).dp_epsilon == 0);
        for (uint64_t n = 1; n <= 4; n++) {
            end_round(&s, n, false, true);
            linnet_privacy_report r = report_of(&s);
            double bound = linnet_plan_epsilon(&plan, (double)n);
            assert_int_equal(r.n_rounds, n);
            assert_true(r.dp_epsilon > before);
            assert_true(r.dp_epsilon <= bound * (1 + 1e-12) && r.dp_epsilon > 0.8 * bound);
            assert_ok(linnet_coordinator_epsilon_at(s.coordinator, n, &at, &err), &err);
            assert_true(at == r.dp_epsilon);
            if (n == 1)
                assert_true(fabs(r.dp_epsilon - r.dp_epsilon_round) <= 1e-12 * r.dp_epsilon);
            before = r.dp_epsilon;
        }
        assert_ok(linnet_coordinator_epsilon_at(s.coordinator, 2, &at, &err), &err);
        assert_true(at > 0 && at < before);
        scene_end(&s);
    }
}

static void a_void_round_counts_once_vectors_may_have_left(void **state)
{
    (void)state;
    scene s;
    linnet_plan plan = noised_plan(DISTRIBUTED);
    scene_begin(&s, &plan);
    end_round(&s, 1, true, false);
    assert_int_equal(report_of(&s).n_rounds, 0);
    end_round(&s, 2, true, true);
    assert_int_equal(report_of(&s).n_rounds, 1);
    assert_int_equal(report_of(&s).n_void, 1);
    assert_true(report_of(&s).dp_epsilon > 0);
    end_round(&s, 2, true, true); /* a round has one row */
    assert_int_equal(report_of(&s).n_rounds, 1);
    scene_end(&s);
}

static void the_budget_says_how_many_rounds_are_left(void **state)
{
    (void)state;
    scene s;
    linnet_plan plan = noised_plan(DISTRIBUTED);
    plan.rounds = 5;
    plan.dp_epsilon_max = linnet_plan_epsilon(&plan, 5) * 1.0001;
    scene_begin(&s, &plan);
    assert_int_equal(report_of(&s).rounds_left, 5);
    for (uint64_t n = 1; n <= 3; n++)
        end_round(&s, n, n == 2, true);
    /* the version did not move with these rows: the plan alone would allow five */
    assert_int_equal(report_of(&s).rounds_left, 2);
    for (uint64_t n = 4; n <= 5; n++)
        end_round(&s, n, false, true);
    assert_int_equal(report_of(&s).rounds_left, 0);
    scene_end(&s);
}

static void without_noise_nothing_is_entered(void **state)
{
    (void)state;
    scene s;
    linnet_plan plan = scene_plan();
    scene_begin(&s, &plan);
    end_round(&s, 1, false, true);
    linnet_privacy_report r = report_of(&s);
    assert_int_equal(r.n_rounds, 0);
    assert_int_equal(r.mechanism, LINNET_DP_NONE);
    assert_true(r.dp_epsilon == 0);
    scene_end(&s);
}

static void a_damaged_row_is_refused(void **state)
{
    (void)state;
    linnet_ledger_row row = {.mechanism = LINNET_DP_DISTRIBUTED,
                             .unit = LINNET_DP_UNIT_DEVICE,
                             .is_counted = true,
                             .noise_multiplier = 4},
                      read;
    linnet_buffer bytes = {0};
    linnet_ledger_row_pack(&row, &bytes);
    assert_int_equal(linnet_ledger_row_unpack(bytes.bytes, bytes.n_bytes, &read), LINNET_OK);
    assert_true(read.noise_multiplier == 4 && read.is_counted && !read.is_void);
    for (size_t n = 0; n < bytes.n_bytes; n++)
        assert_int_equal(linnet_ledger_row_unpack(bytes.bytes, n, &read), LINNET_ERR_FORMAT);
    static const struct {
        size_t at;
        uint8_t value;
    } bad[] = {{0, 0}, {0, 4}, {1, 0}, {1, 3}, {2, 2}, {3, 2}, {15, 0xff}, {23, 0x7f}, {23, 0xbf}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        uint8_t kept = bytes.bytes[bad[i].at];
        bytes.bytes[bad[i].at] = bad[i].value;
        if (linnet_ledger_row_unpack(bytes.bytes, bytes.n_bytes, &read) != LINNET_ERR_FORMAT)
            fail_msg("byte %zu as %u is taken", bad[i].at, bad[i].value);
        bytes.bytes[bad[i].at] = kept;
    }
    linnet_buffer_release(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(epsilon_adds_up_over_rounds),
        cmocka_unit_test(a_void_round_counts_once_vectors_may_have_left),
        cmocka_unit_test(the_budget_says_how_many_rounds_are_left),
        cmocka_unit_test(without_noise_nothing_is_entered),
        cmocka_unit_test(a_damaged_row_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
