/* SPDX-License-Identifier: Apache-2.0 */
/* Plans as text: what is read, what is refused and how it is said, and what follows from a plan. */
#include "linnet/limits.h"
#include "linnet/messages.h"
#include "linnet/plan.h"
#include "linnet/record_privacy.h"

#include <locale.h>
#include <math.h>

#include "testing.h"

/* What noised whole deltas need beside the profile. */
#define DEVICE_NOISE                                                                                         \
    "[privacy]\nnoise_multiplier = 1\nclip = 0.5\n[encoding]\nweight_unit_tokens = 0\n[aggregation]\nrule "  \
    "= "                                                                                                     \
    "ffa\n"

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
        "[task]\npreset = wearables-dp",
        "[task]\npreset = clinics-dp\n[privacy]\nepsilon_max = 12.5\n",
        "[secure]\nprofile = secure\ncorrupt = 0.125\nsurvivors = 3\nphase_deadline = "
        "45s\n[cohort]\ncohorts = 8\n",
        "[secure]\nprofile = central-dp\n" DEVICE_NOISE,
        "[task]\npreset = clinics\nname = st-anna_2\nseed = 18446744073709551615\n",
        "[model]\nbase_hash = 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n",
        "[adapter]\ntargets = attn_q,ffn_down\nalpha = 0.1\n[training]\nlearning_rate_b = "
        "0.0033333333333333335\nweight_decay = 1e-7\ndropout = 0.05\n",
        "[cohort]\ndeadline = 90061s\npoll = 3m\nover_selection = 1.3\n[training]\ncosine = off\noptimizer = "
        "sgd\n",
        "[aggregation]\nserver_optimizer = fedavgm\nserver_momentum = 0.9\nserver_rate = 0.1\nrule = ffa\n",
        "[secure]\nprofile = plain\n[aggregation]\ncombine = trimmed-mean\ntrim = 0.1\nnorm_clip = "
        "2.5\nstep_clip = 0.75\n"
        "[evaluation]\ngate_tolerance = 1.02\n",
        "[task]\npreset = wearables\n[secure]\nprofile = plain\n[aggregation]\ncombine = "
        "multi-krum\nassumed_corrupt = 30\n",
        "[task]\npreset = clinics\n[secure]\nprofile = secure\n[cohort]\ncohorts = 3\n[aggregation]\ncombine "
        "= geometric-median\n",
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
        {"[training]\ndropout = 1\n", LINNET_ERR_RANGE, {"training.dropout", "0 to 0.999", ""}},
        {"[training]\noptimizer = adam\n", LINNET_ERR_RANGE, {"'adam'", "adamw|sgd", ""}},
        {"[training]\ncosine = yes\n", LINNET_ERR_FORMAT, {"on|off", "", ""}},
        {"[task]\nname = two words\n", LINNET_ERR_FORMAT, {"task.name", "letters, digits", ""}},
        {"[task]\nname =\n", LINNET_ERR_RANGE, {"task.name", "1 to 63", ""}},
        {"[task]\npreset = phones\n",
         LINNET_ERR_RANGE,
         {"line 2", "none|wearables|clinics|wearables-dp", ""}},
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
        {"[secure]\nprofile = plain\n[cohort]\nminimum = 2\n[aggregation]\ncombine = median\n",
         LINNET_ERR_RANGE,
         {"aggregation.combine", "cohort.minimum, 2", "at least 3"}},
        {"[secure]\nprofile = plain\n[aggregation]\ncombine = trimmed-mean\ntrim = 0.4\n",
         LINNET_ERR_RANGE,
         {"aggregation.combine", "trimmed_mean", "none of 3"}},
        {"[secure]\nprofile = plain\n[aggregation]\ncombine = krum\nassumed_corrupt = 1\n",
         LINNET_ERR_RANGE,
         {"aggregation.combine", "3 vectors", "5 are needed"}},
        {"[aggregation]\nassumed_corrupt = 1\n", LINNET_ERR_RANGE, {"assumed_corrupt", "krum", ""}},
        {"[task]\npreset = clinics\n[secure]\nprofile = secure\n[aggregation]\ncombine = median\n",
         LINNET_ERR_RANGE,
         {"aggregation.combine", "profile secure", "cohort.cohorts to at least 3"}},
        {"[task]\npreset = clinics\n[secure]\nprofile = secure\n[cohort]\ncohorts = "
         "2\n[aggregation]\nnorm_clip "
         "= 2\n",
         LINNET_ERR_RANGE,
         {"norm_clip", "2 of them", "nothing to compare"}},
        {"[task]\npreset = clinics\n[secure]\nprofile = secure\n[cohort]\ncohorts = "
         "9\n[aggregation]\ncombine = "
         "krum\n",
         LINNET_ERR_RANGE,
         {"krum picks single deltas", "profile secure hides", "median"}},
        {"[secure]\nprofile = central-dp\n" DEVICE_NOISE "[aggregation]\ncombine = median\n",
         LINNET_ERR_RANGE,
         {"aggregation.combine", "central-dp", ""}},
        {"[evaluation]\ngate_tolerance = 0.1\n", LINNET_ERR_RANGE, {"gate_tolerance", "no adapter", ""}},
        {"[secure]\nprofile = secret\n", LINNET_ERR_RANGE, {"plain|secure|secure+dp|central-dp", "", ""}},
        {"[secure]\ncorrupt = 0.31\n", LINNET_ERR_RANGE, {"secure.corrupt", "0 to 0.3", ""}},
        {"[secure]\nprofile = secure\nsurvivors = 4\n",
         LINNET_ERR_RANGE,
         {"secure.survivors", "4", "cohort.minimum, 3"}},
        {"[secure]\nprofile = secure\n[cohort]\nminimum = 2\n",
         LINNET_ERR_RANGE,
         {"hides nobody", "cohort.minimum", "3"}},
        {"[secure]\nprofile = secure\nsurvivors = 2\n", LINNET_ERR_RANGE, {"hides nobody", "", ""}},
        {"[secure]\nprofile = plain\n[cohort]\ncohorts = 2\n",
         LINNET_ERR_RANGE,
         {"cohort.cohorts", "plain", "one cohort"}},
        {"[cohort]\ncohorts = 65\n", LINNET_ERR_RANGE, {"1 to 64", "", ""}},
        {"[privacy]\nnoise_multiplier = 1\n",
         LINNET_ERR_RANGE,
         {"privacy.mechanism", "none", "no differential privacy"}},
        {"[privacy]\nepsilon_max = 8\n", LINNET_ERR_RANGE, {"no differential privacy", "", ""}},
        {"[privacy]\nmechanism = record-joint\n",
         LINNET_ERR_UNSUPPORTED,
         {"record-joint is refused", "shared across clinics", "record-local"}},
        {"[secure]\nprofile = secure+dp\n",
         LINNET_ERR_RANGE,
         {"privacy.mechanism", "distributed or record-local", ""}},
        {"[secure]\nprofile = secure\n[privacy]\nmechanism = distributed\n",
         LINNET_ERR_RANGE,
         {"secure.profile = secure+dp", "not secure", ""}},
        {"[secure]\nprofile = central-dp\n[privacy]\nmechanism = distributed\n",
         LINNET_ERR_RANGE,
         {"secure.profile = secure+dp", "not central-dp", ""}},
        {"[secure]\nprofile = secure+dp\n[privacy]\nmechanism = central\n",
         LINNET_ERR_RANGE,
         {"secure.profile = central-dp", "", ""}},
        {"[task]\npreset = wearables-dp\n[privacy]\nnoise_multiplier = 0\n",
         LINNET_ERR_RANGE,
         {"noise_multiplier", "above 0", ""}},
        {"[task]\npreset = wearables-dp\n[privacy]\nclip = 0\n",
         LINNET_ERR_RANGE,
         {"privacy.clip", "above 0", ""}},
        {"[task]\npreset = wearables-dp\n[encoding]\nweight_unit_tokens = 256\n",
         LINNET_ERR_RANGE,
         {"weight_unit_tokens", "how much text", "sensitivity"}},
        {"[task]\npreset = wearables-dp\n[aggregation]\nrule = fedavg\n",
         LINNET_ERR_RANGE,
         {"must be ffa", "multiply", ""}},
        {"[task]\npreset = wearables-dp\n[aggregation]\nrule = alternate\n",
         LINNET_ERR_RANGE,
         {"must be ffa", "", ""}},
        {"[task]\npreset = wearables-dp\n[encoding]\nvalue_bits = 8\n",
         LINNET_ERR_RANGE,
         {"value_bits", "whole ring", ""}},
        {"[task]\npreset = wearables-dp\n[privacy]\nrecord_units = 8\n",
         LINNET_ERR_RANGE,
         {"record-local", "distributed", ""}},
        {"[task]\npreset = wearables-dp\n[secure]\nsurvivors = 52\n",
         LINNET_ERR_RANGE,
         {"secure.survivors", "52 may be corrupt", "noise"}},
        {"[task]\npreset = wearables-dp\n[privacy]\nepsilon_max = 1\n",
         LINNET_ERR_RANGE,
         {"epsilon_max", "20 rounds", "budget is 1, which lasts for 0 rounds"}},
        {"[task]\npreset = clinics-dp\n[privacy]\nrecord_probability = 0\n",
         LINNET_ERR_RANGE,
         {"record_probability", "above 0", ""}},
        {"[task]\npreset = clinics-dp\n[privacy]\nrecord_units = 19\n",
         LINNET_ERR_RANGE,
         {"record_units", "0.95", "at least 1"}},
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
    assert_int_equal(n, 56);
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

/* ---- masks ---- */

static void masked_rounds_open_with_three_quarters_of_the_minimum(void **state)
{
    (void)state;
    static const struct {
        uint32_t minimum, survivors;
    } cases[] = {{3, 3}, {4, 3}, {5, 4}, {6, 5}, {64, 48}, {101, 76}};
    linnet_plan plan = good("[secure]\nprofile = secure\n");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        plan.minimum = cases[i].minimum;
        assert_int_equal(linnet_plan_survivors_min(&plan), cases[i].survivors);
    }
    plan.survivors = 70;
    assert_int_equal(linnet_plan_survivors_min(&plan), 70);
    assert_int_equal(linnet_plan_corrupt_permille(&plan), 50);
    plan.corrupt = 0.0501;
    assert_int_equal(linnet_plan_corrupt_permille(&plan), 51); /* never less than the plan assumes */
    plan.profile = LINNET_PROFILE_PLAIN;
    assert_int_equal(linnet_plan_survivors_min(&plan), 101); /* as before: the minimum */
    assert_int_equal(linnet_plan_corrupt_permille(&plan), 0);
}

static void presets_keep_the_floors_of_their_fleet(void **state)
{
    (void)state;
    linnet_plan plan = good("[task]\npreset = wearables\n[secure]\nprofile = secure\n");
    assert_true(plan.goal == 128 && plan.minimum == 64 && linnet_plan_survivors_min(&plan) == 48);
    plan = good("[task]\npreset = clinics\n[secure]\nprofile = secure\n");
    assert_true(plan.minimum == 5 && linnet_plan_survivors_min(&plan) == 4);
    plan = good("[task]\npreset = wearables-dp\n");
    assert_true(plan.profile == LINNET_PROFILE_SECURE_DP && plan.mechanism == LINNET_DP_DISTRIBUTED);
    assert_int_equal(linnet_plan_join_max(&plan), LINNET_COHORT_MAX);
    plan = good("[task]\npreset = clinics-dp\n");
    assert_true(plan.profile == LINNET_PROFILE_SECURE_DP && plan.mechanism == LINNET_DP_RECORD_LOCAL);
    assert_int_equal(linnet_plan_dp_unit(&plan), LINNET_DP_UNIT_RECORD);
}

/* ---- noise ---- */

static linnet_layout layout_of(size_t n_b, size_t n_a)
{
    return (linnet_layout){.alpha = 16, .n_parameters = n_a + n_b, .n_a = n_a, .n_b = n_b};
}

static linnet_privacy privacy_of(const linnet_plan *plan, const linnet_layout *layout)
{
    linnet_privacy p;
    linnet_error err = {0};
    assert_ok(linnet_plan_privacy(plan, layout, 0, &p, &err), &err);
    return p;
}

/* What an announcement says by itself spends what the plan says, to the last bit. */
static void assert_same_privacy(const linnet_plan *plan, const linnet_layout *layout, uint64_t version)
{
    linnet_announcement a;
    linnet_privacy p, q;
    linnet_error err = {0};
    assert_ok(linnet_plan_privacy(plan, layout, version, &p, &err), &err);
    assert_ok(linnet_announcement_of_plan(plan, layout, version, &a, &err), &err);
    assert_ok(linnet_announcement_privacy(&a, &q, &err), &err);
    assert_int_equal(q.mechanism, p.mechanism);
    assert_int_equal(q.unit, p.unit);
    assert_int_equal(q.dimension, p.dimension);
    assert_int_equal(q.bound2, p.bound2);
    assert_int_equal(q.sigma2, p.sigma2);
    assert_int_equal(q.n_steps, p.n_steps);
    assert_memory_equal(&q.noise_multiplier, &p.noise_multiplier, sizeof(double));
    assert_memory_equal(&q.probability, &p.probability, sizeof(double));
    a.dp_clip = 1e30; /* no lattice bounds that */
    assert_int_equal(linnet_announcement_privacy(&a, &q, NULL), LINNET_ERR_RANGE);
}

/* The no-wrap inequality of SECURE-AGGREGATION 2.7 for a full cohort. */
static bool fits(const linnet_plan *plan, const linnet_privacy *p, double clamp)
{
    double n = linnet_plan_join_max(plan);
    double variance = p->mechanism == LINNET_DP_CENTRAL ? (double)p->sigma2 : n * (double)p->sigma2;
    return n * clamp + 9 * sqrt(variance) <= ldexp(1, (int)plan->ring_bits - 1) - 1;
}

/* Property 24, and 3.2: at least 4 units of noise in every draw, a bound that holds, the finest scale. */
static void noised_vectors_get_the_finest_lattice_that_fits(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "[task]\npreset = wearables-dp\n",
        "[task]\npreset = wearables-dp\n[privacy]\nnoise_multiplier = 0.3\n[encoding]\nring_bits = 24\n",
        "[task]\npreset = wearables-dp\n[privacy]\nclip = 1e-4\n[encoding]\nring_bits = 32\n",
        "[secure]\nprofile = central-dp\n" DEVICE_NOISE,
        "[secure]\nprofile = secure+dp\n[cohort]\nminimum = 5\n" DEVICE_NOISE "[privacy]\nmechanism = "
        "distributed\n",
    };
    static const size_t lengths[] = {1000, 4096, 100000, 1000000};
    for (size_t i = 0; i < ARRAY_LEN(texts) * ARRAY_LEN(lengths); i++) {
        linnet_plan plan = good(texts[i / ARRAY_LEN(lengths)]);
        linnet_layout layout = layout_of(lengths[i % ARRAY_LEN(lengths)], 500);
        linnet_privacy p = privacy_of(&plan, &layout);
        linnet_ring_spec specs[3];
        size_t n = 0;
        linnet_error err = {0};
        assert_ok(linnet_plan_vectors(&plan, &layout, 0, specs, &n, &err), &err);
        assert_int_equal(n, 2);
        assert_int_equal(specs[0].length, p.dimension);
        assert_int_equal(specs[0].exponent, p.exponent);
        assert_int_equal(specs[0].weight_max, 1);
        assert_int_equal(specs[1].length, LINNET_DP_LANES);
        assert_int_equal(p.rotates, p.mechanism == LINNET_DP_DISTRIBUTED);
        assert_true(p.rotates ? p.dimension % 4096 == 0 && p.dimension - layout.n_b < 4096
                              : p.dimension == layout.n_b);
        assert_in_range(p.sigma2, 16, 1 << 24);
        double d = (double)p.dimension, scaled = ldexp(p.clip, p.exponent);
        double shares = p.mechanism == LINNET_DP_CENTRAL ? 1 : p.survivors_min - p.corrupt;
        assert_true((double)p.bound2 >= scaled * scaled);
        assert_true((double)p.bound2 <= (scaled + sqrt(d)) * (scaled + sqrt(d)));
        assert_true((double)p.sigma2 * shares >=
                    plan.noise_multiplier * plan.noise_multiplier * (double)p.bound2);
        assert_true(p.noise_multiplier >= plan.noise_multiplier);
        assert_true(p.noise_multiplier < plan.noise_multiplier * 1.05);
        assert_same_privacy(&plan, &layout, 0);
        assert_true(fits(&plan, &p, specs[0].clamp));
        /* twice as fine does not: the noise leaves the sampler, or the sum may wrap */
        linnet_privacy finer = p;
        finer.sigma2 *= 4;
        double clamp = 2 * (specs[0].clamp - 2.0);
        assert_true(4 * (double)p.sigma2 > 0.9 * (1 << 24) || !fits(&plan, &finer, clamp * 1.1) ||
                    ldexp(p.clip, p.exponent + 1) >= 1 << 30 || p.bound2 < d);
    }
}

/* SECURE-AGGREGATION 3.2, the example: n = 1000, d = 2^20, Delta = 1, f = 10, z = 1. And 3.5, row 11. */
static void the_bound_is_that_of_the_specification(void **state)
{
    (void)state;
    linnet_plan plan = good("[task]\npreset = clinics-dp\n[aggregation]\nrule = fedavg\n");
    plan.noise_multiplier = 4096 / 1145.6; /* so that f = 10 is the finest */
    plan.clip = 1;
    linnet_layout layout = layout_of(1 << 19, 1 << 19);
    linnet_privacy p = privacy_of(&plan, &layout);
    assert_int_equal(p.exponent, 10);
    assert_int_equal(p.dimension, 1 << 20);
    assert_int_equal(p.bound2, (1 << 20) + (1 << 18) + 1024 + 512);
    assert_same_privacy(&plan, &layout, 0); /* of both factors */
    assert_true(fabs(sqrt((double)p.bound2) - 1145.5) < 0.2);
}

static void too_little_room_for_noise_is_refused(void **state)
{
    (void)state;
    linnet_layout layout = layout_of(1000000, 1000);
    linnet_privacy p;
    linnet_ring_spec specs[3];
    size_t n = 0;
    linnet_error err = {0};
    linnet_plan plan = good("[task]\npreset = wearables-dp\n");
    plan.noise_multiplier = 0.02; /* 2.9 units a device at the most that 16 bits hold */
    plan.ring_bits = 16;
    assert_int_equal(linnet_plan_privacy(&plan, &layout, 0, &p, &err), LINNET_ERR_RANGE);
    assert_non_null(strstr(err.message, "at least 4 units"));
    assert_non_null(strstr(err.message, "ring_bits"));
    assert_int_equal(linnet_plan_vectors(&plan, &layout, 0, specs, &n, &err), LINNET_ERR_RANGE);
    plan = good("[task]\npreset = clinics-dp\n");
    plan.noise_multiplier = 9; /* z D2 > z sqrt(d) / 2 > 4096 at any scale */
    assert_int_equal(linnet_plan_privacy(&plan, &layout, 0, &p, &err), LINNET_ERR_RANGE);
    assert_non_null(strstr(err.message, "4096"));
}

static void record_noise_stays_on_the_device(void **state)
{
    (void)state;
    linnet_plan plan = good("[task]\npreset = clinics-dp\n"), quiet = plan;
    linnet_layout layout = layout_of(50000, 30000);
    linnet_privacy p = privacy_of(&plan, &layout);
    linnet_ring_spec specs[3], same[3];
    size_t n = 0;
    linnet_error err = {0};
    assert_int_equal(p.dimension, 50000); /* ffa: B alone; no padding, no rotation */
    assert_same_privacy(&plan, &layout, 0);
    assert_false(p.rotates);
    assert_int_equal(p.n_steps, plan.local_steps);
    assert_true(p.divisor == 50);
    int32_t exponent = 0; /* the module that draws the noise would choose the same */
    assert_ok(linnet_record_exponent(plan.clip, plan.noise_multiplier, 50000, &exponent, &err), &err);
    assert_int_equal(p.exponent, exponent);
    const linnet_record_spec spec = {
        .length = 50000, .clip = plan.clip, .z = plan.noise_multiplier, .exponent = exponent, .divisor = 50};
    assert_int_equal(p.sigma2, linnet_record_variance(&spec));
    assert_true(plan.noise_multiplier * sqrt((double)p.bound2) <= 4096);
    assert_true(2.01 * plan.noise_multiplier * sqrt((double)p.bound2) > 4096);
    assert_ok(linnet_plan_vectors(&plan, &layout, 0, specs, &n, &err), &err);
    quiet.profile = LINNET_PROFILE_SECURE; /* what is uploaded is encoded as without noise */
    quiet.mechanism = LINNET_DP_NONE;
    quiet.noise_multiplier = quiet.clip = quiet.record_probability = 0;
    quiet.record_units = 0;
    assert_ok(linnet_plan_vectors(&quiet, &layout, 0, same, &n, &err), &err);
    assert_memory_equal(&specs[0], &same[0], sizeof(specs[0]));
    assert_int_equal(specs[1].length, LINNET_DP_LANES);
    assert_int_equal(same[1].length, LINNET_LANES);
}

/* Rows of SECURE-AGGREGATION 3.5: 8, 9 and 14. */
static void epsilon_is_that_of_the_accountant(void **state)
{
    (void)state;
    static const struct {
        double z, p, rounds, dp_delta, dp_epsilon;
        uint32_t steps;
    } cases[] = {
        {1, 0, 1, 1e-5, 4.752728336819822, 1},
        {10, 0, 50, 1e-5, 3.190351872825228, 1},
        {4, 0, 100, 1e-6, 15.328, 1},
        {1, 0.01, 100, 1e-5, 2.450287904421, 10},
        {1.5, 0.04, 20, 1e-5, 4.063201313934, 25},
        {1, 1, 1, 1e-5, 4.752728336819822, 1},
        {10, 1, 10, 1e-5, 3.190351872825228, 5},
    };
    linnet_layout layout = layout_of(50000, 30000);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_plan plan =
            good(cases[i].p > 0 ? "[task]\npreset = clinics-dp\n" : "[task]\npreset = wearables-dp\n");
        plan.noise_multiplier = cases[i].z;
        plan.dp_delta = cases[i].dp_delta;
        plan.record_probability = cases[i].p;
        plan.local_steps = cases[i].steps;
        double got = linnet_plan_epsilon(&plan, cases[i].rounds);
        if (fabs(got - cases[i].dp_epsilon) > 1e-4 * cases[i].dp_epsilon)
            fail_msg("case %zu: %.10g, want %.10g", i, got, cases[i].dp_epsilon);
        assert_true(linnet_plan_epsilon(&plan, 0) == 0);
        linnet_privacy p = privacy_of(&plan, &layout); /* what the lattice gives is never worse */
        linnet_rdp rdp = {{0}};
        linnet_privacy_spend(&p, cases[i].rounds, &rdp);
        double spent = linnet_dp_epsilon(&rdp, plan.dp_delta, NULL);
        assert_true(spent <= got * (1 + 1e-9) && spent > got * 0.9);
    }
    linnet_plan plan = good("");
    assert_true(isinf(linnet_plan_epsilon(&plan, 1)));
}

static void a_budget_is_kept_or_the_plan_is_refused(void **state)
{
    (void)state;
    linnet_plan plan = good("[task]\npreset = wearables-dp\nrounds = 20\n");
    double spent = linnet_plan_epsilon(&plan, 20), less = linnet_plan_epsilon(&plan, 12) * 1.0001;
    linnet_error err = {0};
    plan.dp_epsilon_max = spent;
    assert_ok(linnet_plan_check(&plan, &err), &err);
    plan.dp_epsilon_max = less;
    assert_int_equal(linnet_plan_check(&plan, &err), LINNET_ERR_RANGE);
    assert_non_null(strstr(err.message, "lasts for 12 rounds"));
    plan.rounds = 0; /* no end: the device's ledger ends it */
    assert_ok(linnet_plan_check(&plan, &err), &err);
}

/* ---- announcements ---- */

static void what_follows_from_a_plan_is_announced_and_compared(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "[secure]\nprofile = secure\n",
        "[task]\npreset = wearables-dp\n",
        "[task]\npreset = clinics-dp\n",
        "[secure]\nprofile = central-dp\n" DEVICE_NOISE,
    };
    linnet_layout layout = layout_of(50000, 30000);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        linnet_plan plan = good(texts[i]);
        linnet_announcement planned, a;
        linnet_buffer body = {0};
        linnet_error err = {0};
        assert_ok(linnet_announcement_of_plan(&plan, &layout, 0, &planned, &err), &err);
        assert_int_equal(planned.m_min, linnet_plan_survivors_min(&plan));
        assert_int_equal(planned.phase_s != 0, linnet_profile_is_secure(plan.profile));
        a = planned;
        a.round = 5;
        assert_ok(linnet_announcement_pack(&a, &body, &err), &err);
        assert_ok(linnet_announcement_unpack(body.bytes, body.n_bytes, &a, &err), &err);
        assert_null(linnet_announcement_difference(&a, &planned));
#define DIFFERS(change)                                                                                      \
    do {                                                                                                     \
        linnet_announcement other = a;                                                                       \
        change;                                                                                              \
        assert_non_null(linnet_announcement_difference(&other, &planned));                                   \
    } while (0)
        DIFFERS(other.profile++);
        DIFFERS(other.n_min--);
        DIFFERS(other.n_max--);
        DIFFERS(other.m_min--);
        DIFFERS(other.corrupt_permille++);
        DIFFERS(other.phase_s++);
        DIFFERS(other.n_vectors--);
        DIFFERS(other.chunk++);
        DIFFERS(other.vectors[0].length++);
        DIFFERS(other.vectors[0].bits = 17);
        DIFFERS(other.vectors[0].clamp++);
        DIFFERS(other.vectors[0].exponent--);
        DIFFERS(other.vectors[1].weight_max++);
        DIFFERS(other.vectors[1].vector_id = 2);
        DIFFERS(other.dp_mechanism++);
        DIFFERS(other.dp_unit++);
        DIFFERS(other.dp_clip += 1e-3);
        DIFFERS(other.dp_sigma2--);
        DIFFERS(other.dp_rotates = !other.dp_rotates);
        DIFFERS(other.dp_exponent++);
        DIFFERS(other.dp_probability += 1e-9);
        DIFFERS(other.dp_steps++);
#undef DIFFERS
        linnet_buffer_release(&body);
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
        cmocka_unit_test(masked_rounds_open_with_three_quarters_of_the_minimum),
        cmocka_unit_test(presets_keep_the_floors_of_their_fleet),
        cmocka_unit_test(noised_vectors_get_the_finest_lattice_that_fits),
        cmocka_unit_test(the_bound_is_that_of_the_specification),
        cmocka_unit_test(too_little_room_for_noise_is_refused),
        cmocka_unit_test(record_noise_stays_on_the_device),
        cmocka_unit_test(epsilon_is_that_of_the_accountant),
        cmocka_unit_test(a_budget_is_kept_or_the_plan_is_refused),
        cmocka_unit_test(what_follows_from_a_plan_is_announced_and_compared),
        cmocka_unit_test(alternation_starts_with_b),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
