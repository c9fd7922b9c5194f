/* SPDX-License-Identifier: Apache-2.0 */
/* Robust rules in rounds: over single contributions read from the spool, compared with the rule on whole
 * vectors; over the sums of cohorts, made up here. And the clip of the step, and the influence that is
 * kept. */
#include "fixture.h"

#include "coordinator/combine.h"

#define DEVICES 7
#define ATTACKERS 2
#define WIDTH 1024 /* vectors longer than a slice */

static linnet_plan robust_plan(linnet_robust_rule rule)
{
    linnet_plan plan = scene_plan();
    plan.rank = 4;
    plan.rule = LINNET_RULE_FEDAVG;
    plan.combine = (int)rule;
    plan.goal = plan.minimum = DEVICES;
    plan.over_selection = 1;
    plan.ring_bits = 24;
    return plan;
}

/* Everything at the clamp, with the largest weight: the worst that the coordinator takes. */
static void attack_encode(device *d)
{
    linnet_error err = {0};
    d->weight = 4;
    linnet_buffer_clear(&d->packed);
    for (uint32_t i = 0; i < d->announcement.n_vectors; i++) {
        const linnet_ring_spec *spec = &d->announcement.vectors[i];
        size_t n_bytes = linnet_ring_bytes(spec);
        assert_true(linnet_buffer_reserve(&d->packed, n_bytes));
        uint8_t *packed = d->packed.bytes + d->packed.n_bytes;
        if (spec->vector_id == 1) {
            device_pack_lanes(d, spec, d->announcement.round, packed);
        } else {
            linnet_ring_spec wide = *spec;
            int64_t *values = calloc((size_t)spec->length, sizeof(*values));
            assert_non_null(values);
            wide.clamp *= d->weight;
            for (uint64_t j = 0; j < spec->length; j++)
                values[j] = wide.clamp;
            assert_ok(linnet_ring_encode_integers(&wide, values, packed, &err), &err);
            free(values);
        }
        d->packed.n_bytes += n_bytes;
    }
    device_sign_header(d);
}

/* The device's delta as its bytes say it, all factors one after the other (owned). */
static float *decoded(const device *d, size_t *ret_n)
{
    linnet_error err = {0};
    size_t n = 0, at = 0;
    for (uint32_t i = 0; i < d->announcement.n_vectors; i++)
        n += d->announcement.vectors[i].vector_id == 1 ? 0 : (size_t)d->announcement.vectors[i].length;
    float *values = calloc(n, sizeof(float));
    assert_non_null(values);
    n = 0;
    for (uint32_t i = 0; i < d->announcement.n_vectors; i++) {
        const linnet_ring_spec *spec = &d->announcement.vectors[i];
        uint32_t *sum = calloc((size_t)spec->length, sizeof(*sum));
        assert_non_null(sum);
        linnet_ring_fold(spec, 0, (size_t)spec->length, d->packed.bytes + at, sum);
        if (spec->vector_id != 1) {
            assert_ok(linnet_ring_decode(spec, sum, d->weight, values + n, &err), &err);
            n += (size_t)spec->length;
        }
        free(sum);
        at += linnet_ring_bytes(spec);
    }
    *ret_n = n;
    return values;
}

static int by_id(const void *a, const void *b)
{
    return memcmp(((const device *)a)->id.bytes, ((const device *)b)->id.bytes, LINNET_DEVICE_ID_BYTES);
}

/* What a round did, B then A (owned). */
static float *moved(scene *s, uint64_t round)
{
    linnet_error err = {0};
    linnet_adapter *before = NULL, *after = NULL;
    assert_ok(linnet_coordinator_adapter(s->coordinator, round - 1, &before, &err), &err);
    assert_ok(linnet_coordinator_adapter(s->coordinator, round, &after, &err), &err);
    size_t n_b = linnet_factors_length(before->layout, LINNET_FACTOR_B);
    float *values = calloc(before->layout->n_parameters, sizeof(float));
    assert_non_null(values);
    linnet_delta_of(after, before, LINNET_FACTOR_B, values);
    linnet_delta_of(after, before, LINNET_FACTOR_A, values + n_b);
    linnet_adapter_destroy(before);
    linnet_adapter_destroy(after);
    return values;
}

/* Round 1 with the last devices attacking; d is in the order of ids afterwards. */
static void play(scene *s, device *d, const linnet_plan *plan)
{
    scene_begin_in(s, access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", plan, WIDTH);
    devices_begin(d, DEVICES, s);
    for (size_t i = 0; i < DEVICES; i++) {
        device_join(&d[i]);
        if (i < DEVICES - ATTACKERS)
            device_encode(&d[i]);
        else
            attack_encode(&d[i]);
        device_upload(&d[i]);
    }
    (void)scene_tick(s);
    assert_string_equal(scene_round(s, 1).state, "closed");
    qsort(d, DEVICES, sizeof(*d), by_id); /* the order in which the coordinator takes them */
}

static void contributions_are_combined_by_the_rule_slice_by_slice(void **state)
{
    (void)state;
    static const struct {
        linnet_robust_rule rule;
        double trim, norm_clip;
        uint32_t f;
    } cases[] = {
        {LINNET_ROBUST_MEAN, 0.2, 1.5, 0},          {LINNET_ROBUST_MEDIAN, 0.2, 0, 0},
        {LINNET_ROBUST_TRIMMED_MEAN, 0.3, 0, 0},    {LINNET_ROBUST_GEOMETRIC_MEDIAN, 0.2, 0, 0},
        {LINNET_ROBUST_KRUM, 0.2, 0, ATTACKERS},    {LINNET_ROBUST_MULTI_KRUM, 0.2, 0, ATTACKERS},
        {LINNET_ROBUST_TRIMMED_MEAN, 0.15, 1.2, 0},
    };
    for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
        scene s;
        device d[DEVICES];
        linnet_error err = {0};
        linnet_robust_config config;
        float *vectors[DEVICES];
        double weights[DEVICES];
        size_t n = 0;
        linnet_plan plan = robust_plan(cases[k].rule);
        plan.trim = cases[k].trim;
        plan.norm_clip = cases[k].norm_clip;
        plan.assumed_corrupt = cases[k].f;
        play(&s, d, &plan);
        linnet_plan_robust(&plan, &config);
        for (size_t i = 0; i < DEVICES; i++) {
            vectors[i] = decoded(&d[i], &n);
            weights[i] = d[i].weight;
        }
        float *want = calloc(n, sizeof(float)), *got = moved(&s, 1);
        assert_ok(
            linnet_robust_aggregate(&config, (const float *const *)vectors, weights, DEVICES, n, want, &err),
            &err);
        for (size_t j = 0; j < n; j++)
            if (fabs((double)got[j] - want[j]) > 1e-6)
                fail_msg("case %zu, coordinate %zu: %g, want %g", k, j, (double)got[j], (double)want[j]);
        for (size_t i = 0; i < DEVICES; i++)
            free(vectors[i]);
        free(want);
        free(got);
        devices_end(d, DEVICES);
        scene_end(&s);
    }
}

/* Two of seven push everything to the clamp: a mean follows, the robust rules stay among honest values. */
static void a_poisoned_minority_does_not_carry_the_step(void **state)
{
    (void)state;
    static const linnet_robust_rule rules[] = {LINNET_ROBUST_MEAN, LINNET_ROBUST_MEDIAN,
                                               LINNET_ROBUST_TRIMMED_MEAN, LINNET_ROBUST_KRUM};
    for (size_t k = 0; k < ARRAY_LEN(rules); k++) {
        scene s;
        device d[DEVICES];
        float *vectors[DEVICES];
        size_t n = 0, n_outside = 0;
        linnet_plan plan = robust_plan(rules[k]);
        plan.trim = 0.28;
        plan.assumed_corrupt = rules[k] == LINNET_ROBUST_KRUM ? ATTACKERS : 0;
        play(&s, d, &plan);
        float *got = moved(&s, 1);
        for (size_t i = 0; i < DEVICES; i++)
            vectors[i] = decoded(&d[i], &n);
        for (size_t j = 0; j < n; j++) {
            float low = INFINITY, high = -INFINITY;
            for (size_t i = 0; i < DEVICES; i++)
                if (d[i].seed < DEVICES - ATTACKERS) {
                    low = vectors[i][j] < low ? vectors[i][j] : low;
                    high = vectors[i][j] > high ? vectors[i][j] : high;
                }
            n_outside += got[j] > high + 1e-6F || got[j] < low - 1e-6F;
        }
        if ((n_outside > n / 10) != (rules[k] == LINNET_ROBUST_MEAN))
            fail_msg("%s: %zu of %zu coordinates outside", linnet_robust_rule_name(rules[k]), n_outside, n);
        for (size_t i = 0; i < DEVICES; i++)
            free(vectors[i]);
        free(got);
        devices_end(d, DEVICES);
        scene_end(&s);
    }
}

static void a_step_is_clipped_over_all_its_factors(void **state)
{
    (void)state;
    for (int compares = 0; compares < 2; compares++) {
        scene s;
        device d[DEVICES];
        double square = 0;
        linnet_plan plan = robust_plan(compares ? LINNET_ROBUST_MEDIAN : LINNET_ROBUST_MEAN);
        plan.step_clip = 0.125;
        play(&s, d, &plan);
        float *got = moved(&s, 1);
        size_t n = 2 * WIDTH * 4 + (WIDTH + WIDTH / 2) * 4;
        for (size_t j = 0; j < n; j++)
            square += (double)got[j] * got[j];
        assert_true(fabs(sqrt(square) - 0.125) < 1e-4);
        assert_true(scene_round(&s, 1).has_outcome && scene_round(&s, 1).step_norm > 0.25);
        free(got);
        devices_end(d, DEVICES);
        scene_end(&s);
    }
}

static void influence_is_kept_over_a_restart(void **state)
{
    (void)state;
    scene s;
    device d[DEVICES];
    linnet_error err = {0};
    linnet_influence *parts = NULL;
    size_t n = 0;
    double weights = 0, factors = 0;
    linnet_plan plan = robust_plan(LINNET_ROBUST_MULTI_KRUM);
    plan.assumed_corrupt = ATTACKERS;
    play(&s, d, &plan);
    scene_reopen(&s);
    assert_ok(linnet_coordinator_influence(s.coordinator, 1, &parts, &n, &err), &err);
    assert_int_equal(n, DEVICES);
    for (size_t i = 0; i < n; i++) {
        assert_true(parts[i].is_device && parts[i].has_factor && parts[i].norm > 0);
        assert_memory_equal(parts[i].device_id.bytes, d[i].id.bytes, LINNET_DEVICE_ID_BYTES);
        if (d[i].seed >= DEVICES - ATTACKERS)
            assert_true(parts[i].factor == 0 && parts[i].cosine < 0.3);
        weights += parts[i].weight;
        factors += parts[i].factor;
    }
    assert_true(fabs(weights - 1) < 1e-12 && fabs(factors - 1) < 1e-12);
    free(parts);
    assert_ok(linnet_coordinator_influence(s.coordinator, 2, &parts, &n, &err), &err);
    assert_int_equal(n, 0);
    free(parts);
    devices_end(d, DEVICES);
    scene_end(&s);
}

/* ---- cohorts ---- */

#define COHORTS 5

static linnet_plan cohort_plan(linnet_robust_rule rule)
{
    linnet_plan plan = scene_plan();
    plan.profile = LINNET_PROFILE_SECURE;
    plan.goal = 6;
    plan.minimum = 5;
    plan.cohorts = COHORTS;
    plan.combine = (int)rule;
    return plan;
}

/* A cohort of `n` whose mean is `value` lattice units everywhere. */
static linnet_fold cohort_of(const linnet_coordinator *c, uint64_t round, uint64_t n, int64_t value)
{
    linnet_error err = {0};
    linnet_fold fold = {.round = round, .n_contributions = n};
    assert_ok(linnet_plan_vectors(&c->plan, c->layout, 0, fold.specs, &fold.n_specs, &err), &err);
    for (size_t i = 0; i < fold.n_specs; i++)
        fold.n_sums += (size_t)fold.specs[i].length;
    fold.sums = calloc(fold.n_sums, sizeof(*fold.sums));
    assert_non_null(fold.sums);
    for (size_t j = 0; j < fold.specs[0].length; j++)
        fold.sums[j] = (uint32_t)(uint64_t)(value * (int64_t)n);
    fold.lanes[LINNET_LANE_PARTICIPANTS] = fold.lanes[LINNET_LANE_WEIGHT] = n;
    return fold;
}

static void remember_line(void *context, int priority, const char *line)
{
    char *kept = context;
    (void)priority;
    (void)snprintf(kept, 256, "%s", line);
}

static void means_of_cohorts_are_combined_by_the_rule(void **state)
{
    (void)state;
    static const int64_t values[COHORTS] = {10, 12, 11, 400, 13};
    static const uint64_t sizes[COHORTS] = {5, 6, 5, 6, 6};
    static const struct {
        linnet_robust_rule rule;
        double want; /* lattice units */
    } cases[] = {{LINNET_ROBUST_MEAN, (50 + 72 + 55 + 2400 + 78) / 28.0},
                 {LINNET_ROBUST_MEDIAN, 12},
                 {LINNET_ROBUST_TRIMMED_MEAN, 12}};
    for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
        scene s;
        linnet_error err = {0};
        linnet_fold folds[COHORTS];
        linnet_combined combined = {0};
        linnet_plan plan = cohort_plan(cases[k].rule);
        scene_begin(&s, &plan);
        for (size_t i = 0; i < COHORTS; i++)
            folds[i] = cohort_of(s.coordinator, i + 1, sizes[i], values[i]);
        assert_ok(linnet_combine_sums(s.coordinator, 0, folds, COHORTS, &combined, &err), &err);
        double unit = ldexp(1, -combined.specs[0].exponent);
        for (size_t j = 0; j < combined.lengths[0]; j++)
            assert_true(fabs((double)combined.vectors[0][j] - cases[k].want * unit) < 1e-4 * unit);
        assert_int_equal(combined.n_parts, COHORTS);
        assert_int_equal(combined.n_contributions, 28);
        for (size_t i = 0; i < COHORTS; i++) {
            assert_int_equal(combined.parts[i].round, i + 1);
            assert_false(combined.parts[i].is_device);
            assert_true(fabs(combined.parts[i].cosine - 1) < 1e-6);
            assert_true(fabs(combined.parts[i].weight - (double)sizes[i] / 28) < 1e-12);
            assert_true(fabs(combined.parts[i].norm -
                             (double)values[i] * unit * sqrt((double)combined.lengths[0])) < 1e-4 * unit);
        }
        linnet_combined_release(&combined);
        for (size_t i = 0; i < COHORTS; i++)
            linnet_fold_release(&folds[i]);
        scene_end(&s);
    }
}

static void an_impossible_sum_of_a_cohort_is_left_out(void **state)
{
    (void)state;
    scene s;
    char line[256] = "";
    linnet_error err = {0};
    linnet_fold folds[COHORTS];
    linnet_combined combined = {0};
    linnet_plan plan = cohort_plan(LINNET_ROBUST_MEDIAN);
    scene_begin(&s, &plan);
    linnet_coordinator_set_log(s.coordinator, remember_line, line);
    for (size_t i = 0; i < COHORTS; i++)
        folds[i] = cohort_of(s.coordinator, i + 1, 5, 10 + (int64_t)i);
    folds[1].sums[7] = 5 * (folds[1].specs[0].clamp + 1); /* one coordinate more than five clamps make */
    assert_ok(linnet_combine_sums(s.coordinator, 0, folds, COHORTS, &combined, &err), &err);
    assert_int_equal(combined.n_parts, COHORTS - 1);
    assert_non_null(strstr(line, "round 2 is left out"));
    assert_int_equal(combined.parts[1].round, 3);
    linnet_combined_release(&combined);
    folds[2].sums[0] = folds[3].sums[0] = folds[1].sums[7];
    assert_int_equal(linnet_combine_sums(s.coordinator, 0, folds, COHORTS, &combined, &err),
                     LINNET_ERR_RANGE);
    assert_non_null(strstr(err.message, "2 vectors are too few for median"));
    for (size_t i = 0; i < COHORTS; i++)
        linnet_fold_release(&folds[i]);
    scene_end(&s);
}

/* With noise no coordinate has a bound, but the norm has one. */
static void a_noised_sum_has_a_bound_on_its_norm(void **state)
{
    (void)state;
    scene s;
    linnet_error err = {0};
    linnet_privacy p;
    linnet_combined combined = {0};
    linnet_plan plan = scene_plan();
    plan.profile = LINNET_PROFILE_CENTRAL_DP;
    plan.mechanism = LINNET_DP_CENTRAL;
    plan.rule = LINNET_RULE_FFA;
    plan.noise_multiplier = 1;
    plan.clip = 0.5;
    plan.weight_unit_tokens = 0;
    plan.ring_bits = 24;
    scene_begin(&s, &plan);
    assert_ok(linnet_plan_privacy(&plan, s.coordinator->layout, 0, &p, &err), &err);
    double limit = 3 * sqrt((double)p.bound2) + (sqrt((double)p.dimension) + 9) * sqrt((double)p.sigma2);
    for (int is_beyond = 0; is_beyond < 2; is_beyond++) {
        linnet_fold fold = cohort_of(s.coordinator, 1, 3, 0);
        fold.sums[0] = (uint32_t)(limit * (is_beyond ? 1.01 : 0.99));
        linnet_status status = linnet_combine_sums(s.coordinator, 0, &fold, 1, &combined, &err);
        assert_int_equal(status, is_beyond ? LINNET_ERR_RANGE : LINNET_OK);
        linnet_combined_release(&combined);
        linnet_fold_release(&fold);
    }
    scene_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contributions_are_combined_by_the_rule_slice_by_slice),
        cmocka_unit_test(a_poisoned_minority_does_not_carry_the_step),
        cmocka_unit_test(a_step_is_clipped_over_all_its_factors),
        cmocka_unit_test(influence_is_kept_over_a_restart),
        cmocka_unit_test(means_of_cohorts_are_combined_by_the_rule),
        cmocka_unit_test(an_impossible_sum_of_a_cohort_is_left_out),
        cmocka_unit_test(a_noised_sum_has_a_bound_on_its_norm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
