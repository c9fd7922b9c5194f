/* SPDX-License-Identifier: Apache-2.0 */
/* Plans as text: what is read, what is refused and how it is said, and what follows from a plan. */
#include "linnet/limits.h"
#include "linnet/plan.h"

#include <locale.h>
#include <math.h>

#include "testing.h"

static linnet_status parse(const char *text, linnet_plan *plan, linnet_error *err)
{
    return linnet_plan_parse("p.ini", text, strlen(text), plan, err);
}

static linnet_plan good(const char *text)
{
    linnet_plan plan;
    linnet_error err = {0};
    assert_ok(parse(text, &plan, &err), &err);
    return plan;
}

static char *written(const linnet_plan *plan)
{
    linnet_buffer text = {0};
    linnet_error err = {0};
    assert_ok(linnet_plan_write(plan, &text, &err), &err);
    linnet_buffer_append_u8(&text, 0);
    return (char *)text.bytes;
}

static void an_empty_plan_has_every_default(void **state)
{
    (void)state;
    linnet_plan plan = good(""), defaults;
    linnet_plan_default(&defaults);
    assert_memory_equal(&plan, &defaults, sizeof(plan));
    assert_int_equal(plan.rank, 8);
    assert_true(plan.learning_rate_b == 5e-3 && plan.learning_rate_a == 0 && plan.cosine && plan.end_token);
    assert_int_equal(plan.rule, LINNET_RULE_ALTERNATE);
}

static void writing_and_parsing_gives_the_same_plan(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "[task]\npreset = wearables",
        "[task]\npreset = clinics\nname = st-anna_2\nseed = 18446744073709551615\n",
        "[model]\nbase_hash = 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n",
        "[adapter]\ntargets = attn_q,ffn_down\nalpha = 0.1\n[training]\nlearning_rate_b = "
        "0.0033333333333333335\nweight_decay = 1e-7\n",
        "[cohort]\ndeadline = 90061s\npoll = 3m\nover_selection = 1.3\n[training]\ncosine = off\noptimizer = "
        "sgd\n",
        "[aggregation]\nserver_optimizer = fedavgm\nserver_momentum = 0.9\nserver_rate = 0.1\nrule = ffa\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        linnet_plan plan = good(texts[i]);
        char *text = written(&plan);
        linnet_plan again = good(text);
        char *text_again = written(&again);
        assert_memory_equal(&plan, &again, sizeof(plan));
        assert_string_equal(text, text_again);
        for (size_t k = 0; linnet_plan_key(k); k++) { /* canonical text holds every key */
            const char *key = strchr(linnet_plan_key(k), '.') + 1;
            char line[80];
            (void)snprintf(line, sizeof(line), "\n%s = ", key);
            if (!strstr(text, line))
                fail_msg("no line for %s", linnet_plan_key(k));
        }
        free(text);
        free(text_again);
    }
}

static void presets_come_first_wherever_they_stand(void **state)
{
    (void)state;
    linnet_plan before = good("[task]\npreset = clinics\n[encoding]\nring_bits = 24\n");
    linnet_plan after = good("[encoding]\nring_bits = 24\n[task]\npreset = clinics\n");
    assert_memory_equal(&before, &after, sizeof(before));
    assert_int_equal(after.ring_bits, 24);
    assert_int_equal(after.rule, LINNET_RULE_FEDAVG);
    linnet_plan wearables = good("[task]\npreset = wearables\n");
    assert_int_equal(wearables.rule, LINNET_RULE_ALTERNATE);
    assert_int_equal(wearables.ring_bits, 16);
    assert_int_equal(wearables.goal, 128);
}

static void comments_spaces_and_indentation_are_fine(void **state)
{
    (void)state;
    linnet_plan plan = good("# a plan\r\n; of ours\n\n   [adapter]  \r\n  rank=4   ; small\n\talpha : 8\n");
    assert_int_equal(plan.rank, 4);
    assert_true(plan.alpha == 8);
}

static void durations_take_units(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint32_t seconds;
    } cases[] = {{"90", 90}, {"90s", 90}, {"10m", 600}, {"2h", 7200}, {"1d", 86400}, {"30d", 2592000}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[64];
        (void)snprintf(text, sizeof(text), "[cohort]\ndeadline = %s\n", cases[i].text);
        assert_int_equal(good(text).deadline_s, cases[i].seconds);
    }
}

/* Every wrong plan names the file, the line, and what is allowed or nearest. */
static void wrong_plans_say_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        linnet_status status;
        const char *says[3];
    } cases[] = {
        {"[adapter]\nranks = 8\n", LINNET_ERR_FORMAT, {"p.ini", "line 2", "adapter.rank"}},
        {"[training]\nrank = 8\n", LINNET_ERR_FORMAT, {"line 2", "[training]", "adapter.rank"}},
        {"[adaptor]\nrank = 8\n", LINNET_ERR_FORMAT, {"[adaptor]", "adapter.rank", "line 2"}},
        {"rank = 8\n", LINNET_ERR_FORMAT, {"line 1", "adapter.rank", ""}},
        {"[training]\nlearning_rat_b = 1\n", LINNET_ERR_FORMAT, {"training.learning_rate_b", "", ""}},
        {"\n\n[adapter]\nrank = 0\n", LINNET_ERR_RANGE, {"line 4", "adapter.rank", "1 to 256"}},
        {"[adapter]\nrank = 257\n", LINNET_ERR_RANGE, {"'257'", "1 to 256", ""}},
        {"[adapter]\nrank = -1\n", LINNET_ERR_FORMAT, {"'-1'", "1 to 256", ""}},
        {"[adapter]\nrank = 8x\n", LINNET_ERR_FORMAT, {"'8x'", "", ""}},
        {"[adapter]\nrank =\n", LINNET_ERR_FORMAT, {"adapter.rank", "", ""}},
        {"[adapter]\nrank = 18446744073709551617\n", LINNET_ERR_FORMAT, {"adapter.rank", "", ""}},
        {"[adapter]\nrank = 8\nrank = 8\n", LINNET_ERR_FORMAT, {"line 3", "second time", "adapter.rank"}},
        {"[adapter]\nrank = 8\n[task]\n[adapter]\nrank = 8\n",
         LINNET_ERR_FORMAT,
         {"line 5", "second time", ""}},
        {"[adapter]\ntargets = attn_q,attn_z\n", LINNET_ERR_ARG, {"line 2", "adapter.targets", "attn_z"}},
        {"[adapter]\nalpha = nan\n", LINNET_ERR_FORMAT, {"adapter.alpha", "0.001 to 4096", ""}},
        {"[adapter]\nalpha = 0x10\n", LINNET_ERR_FORMAT, {"adapter.alpha", "", ""}},
        {"[adapter]\nalpha = inf\n", LINNET_ERR_FORMAT, {"adapter.alpha", "", ""}},
        {"[adapter]\nalpha = 1e999\n", LINNET_ERR_RANGE, {"adapter.alpha", "", ""}},
        {"[adapter]\nalpha = 1,5\n", LINNET_ERR_FORMAT, {"adapter.alpha", "", ""}},
        {"[adapter]\nalpha = 1.5.5\n", LINNET_ERR_FORMAT, {"adapter.alpha", "", ""}},
        {"[training]\nlearning_rate_b = 0\n", LINNET_ERR_RANGE, {"1e-08 to 10", "", ""}},
        {"[training]\noptimizer = adam\n", LINNET_ERR_RANGE, {"'adam'", "adamw|sgd", ""}},
        {"[training]\ncosine = yes\n", LINNET_ERR_FORMAT, {"on|off", "", ""}},
        {"[task]\nname = two words\n", LINNET_ERR_FORMAT, {"task.name", "letters, digits", ""}},
        {"[task]\nname =\n", LINNET_ERR_RANGE, {"task.name", "1 to 63", ""}},
        {"[task]\npreset = phones\n", LINNET_ERR_RANGE, {"line 2", "none|wearables|clinics", ""}},
        {"[model]\nbase_hash = 0011\n", LINNET_ERR_FORMAT, {"model.base_hash", "64 hex", ""}},
        {"[cohort]\ndeadline = 10 m\n", LINNET_ERR_FORMAT, {"cohort.deadline", "1s to 30d", ""}},
        {"[cohort]\ndeadline = 10w\n", LINNET_ERR_FORMAT, {"cohort.deadline", "", ""}},
        {"[cohort]\ndeadline = 31d\n", LINNET_ERR_RANGE, {"cohort.deadline", "1s to 30d", ""}},
        {"[cohort]\ndeadline = 0\n", LINNET_ERR_RANGE, {"cohort.deadline", "", ""}},
        {"[cohort]\nminimum = 6\n", LINNET_ERR_RANGE, {"cohort.minimum", "6", "5"}},
        {"[cohort]\ngoal = 1000\nover_selection = 1.2\n", LINNET_ERR_RANGE, {"1200", "1024", ""}},
        {"[encoding]\nring_bits = 18\n", LINNET_ERR_RANGE, {"16, 20, 24 or 32", "", ""}},
        {"[encoding]\nring_bits = 16\n[cohort]\ngoal = 800\n",
         LINNET_ERR_RANGE,
         {"ring_bits", "weight_max", ""}},
        {"[encoding]\nweight_max = 64\n", LINNET_ERR_RANGE, {"1 to 63", "", ""}},
        {"[secure]\nprofile = secure\n", LINNET_ERR_RANGE, {"plain", "", ""}},
        {"[adapter\nrank = 8\n", LINNET_ERR_FORMAT, {"line 1", "", ""}},
        {"[adapter]\nrank\n", LINNET_ERR_FORMAT, {"line 2", "key = value", ""}},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_plan plan;
        linnet_error err = {0};
        linnet_status status = parse(cases[i].text, &plan, &err);
        if (status != cases[i].status)
            fail_msg("'%s': got %s (%s)", cases[i].text, linnet_status_name(status), err.message);
        for (size_t k = 0; k < 3; k++)
            if (cases[i].says[k] && !strstr(err.message, cases[i].says[k]))
                fail_msg("'%s': '%s' does not say '%s'", cases[i].text, err.message, cases[i].says[k]);
    }
}

static void long_lines_and_zero_bytes_are_not_cut_silently(void **state)
{
    (void)state;
    char text[1024];
    linnet_plan plan;
    linnet_error err = {0};
    (void)snprintf(text, sizeof(text), "[adapter]\n# %0500d\nrank = 8\n", 0);
    assert_int_equal(parse(text, &plan, &err), LINNET_ERR_FORMAT);
    assert_non_null(strstr(err.message, "line 2"));
    assert_int_equal(linnet_plan_parse("p.ini", "[adapter]\nrank = 8\0\n", 20, &plan, &err),
                     LINNET_ERR_FORMAT);
    char *large = calloc(1, LINNET_PLAN_BYTES_MAX + 1);
    memset(large, '\n', LINNET_PLAN_BYTES_MAX + 1);
    assert_int_equal(linnet_plan_parse("p.ini", large, LINNET_PLAN_BYTES_MAX + 1, &plan, &err),
                     LINNET_ERR_LIMIT);
    assert_int_equal(linnet_plan_parse("p.ini", large, LINNET_PLAN_BYTES_MAX, &plan, &err), LINNET_OK);
    free(large);
}

static void a_failed_parse_leaves_the_result_alone(void **state)
{
    (void)state;
    linnet_plan plan, before;
    memset(&plan, 0x5a, sizeof(plan));
    memset(&before, 0x5a, sizeof(before));
    assert_int_not_equal(parse("[adapter]\nrank = 0\n", &plan, NULL), LINNET_OK);
    assert_memory_equal(&plan, &before, sizeof(plan));
}

static void the_locale_of_the_process_does_not_matter(void **state)
{
    (void)state;
    const char *locale = setlocale(LC_NUMERIC, "de_DE.UTF-8");
    linnet_plan plan = good("[adapter]\nalpha = 1.5\n");
    char *text = written(&plan);
    assert_true(plan.alpha == 1.5);
    assert_non_null(strstr(text, "alpha = 1.5\n"));
    free(text);
    setlocale(LC_NUMERIC, "C");
    if (!locale)
        print_message("no German locale here: checked in the C locale only\n");
}

static void the_table_of_keys_is_complete(void **state)
{
    (void)state;
    size_t n = 0;
    char *text = NULL;
    size_t n_text = 0;
    FILE *out = open_memstream(&text, &n_text);
    linnet_plan_describe(out);
    assert_int_equal(fclose(out), 0);
    for (; linnet_plan_key(n); n++) {
        assert_non_null(strchr(linnet_plan_key(n), '.'));
        if (!strstr(text, linnet_plan_key(n)))
            fail_msg("%s is not described", linnet_plan_key(n));
        for (size_t k = 0; k < n; k++)
            assert_string_not_equal(linnet_plan_key(k), linnet_plan_key(n));
    }
    assert_int_equal(n, 38);
    free(text);
}

/* ---- what follows ---- */

/* FEDERATED-LORA 12.3: supervised tokens and weights of the six clinics. */
static void the_clinics_weigh_what_they_should(void **state)
{
    (void)state;
    static const uint64_t tokens[] = {15128, 43677, 5539, 1375, 1761, 674};
    static const uint32_t weights[] = {5, 15, 2, 1, 1, 1};
    linnet_plan plan = good("[task]\npreset = clinics\n");
    for (size_t i = 0; i < ARRAY_LEN(tokens); i++)
        assert_int_equal(linnet_plan_weight(&plan, tokens[i]), weights[i]);
    assert_int_equal(linnet_plan_weight(&plan, 0), 1);
    assert_int_equal(linnet_plan_weight(&plan, UINT64_MAX), 15);
    plan.weight_unit_tokens = 0;
    assert_int_equal(linnet_plan_weight(&plan, 43677), 1);
}

static void a_round_joins_goal_times_over_selection(void **state)
{
    (void)state;
    linnet_plan plan = good("[cohort]\ngoal = 10\nover_selection = 1.1\n");
    assert_int_equal(linnet_plan_join_max(&plan), 11); /* 10 x 1.1 is a little above 11 in binary */
    plan = good("[cohort]\ngoal = 128\n");
    assert_int_equal(linnet_plan_join_max(&plan), 154);
}

static void rates_follow_rule_and_schedule(void **state)
{
    (void)state;
    double b, a;
    linnet_plan plan = good("[task]\nrounds = 20\n");
    linnet_plan_rates(&plan, 0, &b, &a);
    assert_true(b == 5e-3 && a == 5e-3);
    linnet_plan_rates(&plan, 19, &b, &a);
    assert_true(b >= 0.02 * 5e-3 * 0.999 && b < 0.05 * 5e-3);
    linnet_plan_rates(&plan, 1000, &b, &a);
    assert_true(fabs(b - 0.02 * 5e-3) < 1e-9);
    plan = good("[aggregation]\nrule = fedavg\n");
    linnet_plan_rates(&plan, 0, &b, &a);
    assert_true(b == 5e-3 && a == 1.25e-3);
    plan = good("[aggregation]\nrule = fedavg\n[training]\nlearning_rate_a = 0.002\ncosine = off\n");
    linnet_plan_rates(&plan, 17, &b, &a);
    assert_true(b == 5e-3 && a == 0.002);
    plan = good("[task]\nrounds = 0\n");
    linnet_plan_rates(&plan, 1000000, &b, &a);
    assert_true(b == 5e-3);
}

static linnet_layout small_layout(linnet_layout_entry entry[1])
{
    *entry = (linnet_layout_entry){.name = "blk.0.attn_q.weight", .rows = 100, .columns = 50, .rank = 8};
    return (linnet_layout){
        .alpha = 16, .n_entries = 1, .entries = entry, .n_parameters = 1200, .n_a = 400, .n_b = 800};
}

static void vectors_hold_the_range_and_the_cohort(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "[task]\npreset = wearables\n",
        "[task]\npreset = clinics\n",
        "[encoding]\nring_bits = 20\nvalue_bits = 8\nrange = 2.5\n[cohort]\ngoal = 100\n",
        "[encoding]\nring_bits = 32\nweight_max = 63\n[cohort]\ngoal = 1024\nover_selection = 1\n",
    };
    linnet_layout_entry entry[1];
    linnet_layout layout = small_layout(entry);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        linnet_plan plan = good(texts[i]);
        for (uint64_t version = 0; version < 2; version++) {
            linnet_ring_spec specs[3];
            size_t n = 0;
            double rates[2];
            linnet_error err = {0};
            assert_ok(linnet_plan_vectors(&plan, &layout, version, specs, &n, &err), &err);
            linnet_plan_rates(&plan, version, &rates[0], &rates[1]);
            assert_int_equal(n, plan.rule == LINNET_RULE_FEDAVG ? 3 : 2);
            for (size_t k = 0; k + 1 < n; k++) {
                double range = plan.range * linnet_delta_range(rates[specs[k].vector_id / 2],
                                                               plan.local_steps, plan.warmup_steps);
                assert_ok(linnet_ring_check(&specs[k], linnet_plan_join_max(&plan), &err), &err);
                assert_int_equal(specs[k].length, specs[k].vector_id == 0 ? 800 : 400);
                assert_true(ldexp(range, specs[k].exponent) <=
                            specs[k].clamp); /* nothing inside the range saturates */
                assert_true(ldexp(range, specs[k].exponent) > specs[k].clamp - 1.0);
                if (plan.value_bits)
                    assert_true(specs[k].clamp <= (1u << (plan.value_bits - 1)) - 1);
            }
            assert_int_equal(specs[n - 1].vector_id, 1);
            assert_int_equal(specs[n - 1].length, LINNET_LANES);
            assert_int_equal(specs[n - 1].exponent, 0);
            assert_int_equal(specs[n - 1].bits, 32);
            assert_ok(linnet_ring_check(&specs[n - 1], linnet_plan_join_max(&plan), &err), &err);
        }
    }
}

static void alternation_starts_with_b(void **state)
{
    (void)state;
    linnet_layout_entry entry[1];
    linnet_layout layout = small_layout(entry);
    linnet_plan plan = good("");
    linnet_ring_spec specs[3];
    size_t n = 0;
    for (uint64_t version = 0; version < 4; version++) {
        linnet_error err = {0};
        assert_ok(linnet_plan_vectors(&plan, &layout, version, specs, &n, &err), &err);
        assert_int_equal(specs[0].vector_id, version % 2 == 0 ? 0 : 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_plan_has_every_default),
        cmocka_unit_test(writing_and_parsing_gives_the_same_plan),
        cmocka_unit_test(presets_come_first_wherever_they_stand),
        cmocka_unit_test(comments_spaces_and_indentation_are_fine),
        cmocka_unit_test(durations_take_units),
        cmocka_unit_test(wrong_plans_say_what_is_wrong),
        cmocka_unit_test(long_lines_and_zero_bytes_are_not_cut_silently),
        cmocka_unit_test(a_failed_parse_leaves_the_result_alone),
        cmocka_unit_test(the_locale_of_the_process_does_not_matter),
        cmocka_unit_test(the_table_of_keys_is_complete),
        cmocka_unit_test(the_clinics_weigh_what_they_should),
        cmocka_unit_test(a_round_joins_goal_times_over_selection),
        cmocka_unit_test(rates_follow_rule_and_schedule),
        cmocka_unit_test(vectors_hold_the_range_and_the_cohort),
        cmocka_unit_test(alternation_starts_with_b),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
