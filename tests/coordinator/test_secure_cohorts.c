/* SPDX-License-Identifier: Apache-2.0 */
/* Several cohorts of one step, each a round of its own, and steps whose sums carry noise. */
#include "secure_fixture.h"

#define EACH 4 /* members of a cohort: t = 3, q = 3, nobody may drop out */
#define COHORTS 3
#define FLEET (EACH * COHORTS)

static linnet_plan cohorts_plan(uint32_t n_cohorts)
{
    linnet_plan plan = secure_plan();
    plan.cohorts = n_cohorts;
    plan.goal = plan.minimum = EACH;
    plan.rule = LINNET_RULE_FFA;
    return plan;
}

/* Everybody joins where it is invited; the number of members of each round from `first` on. */
static void all_join(member *m, size_t n, uint64_t first, size_t *ret_counts, size_t n_counts)
{
    memset(ret_counts, 0, n_counts * sizeof(*ret_counts));
    for (size_t i = 0; i < n; i++) {
        uint32_t code = member_join(&m[i]);
        assert_true(code == LINNET_ANSWER_WAIT || code == LINNET_ANSWER_OK);
        assert_in_range(m[i].d.announcement.round, first, first + n_counts - 1);
        ret_counts[m[i].d.announcement.round - first]++;
    }
}

/* Phases of one round, to the end of its members' work. */
static void play_round(scene *s, member *m, size_t n, uint64_t round)
{
    for (int turn = 0; turn < 4; turn++)
        for (size_t i = 0; i < n; i++)
            if (m[i].machine && m[i].d.announcement.round == round)
                (void)member_step(&m[i]);
    (void)scene_tick(s);
}

/* The step must be the weighted mean over all members of these rounds. */
static void assert_step(scene *s, const member *m, size_t n, uint64_t without)
{
    linnet_error err = {0};
    linnet_adapter *before = NULL, *after = NULL;
    const linnet_ring_spec *spec = &m[0].d.announcement.vectors[0];
    assert_ok(linnet_coordinator_adapter(s->coordinator, 0, &before, &err), &err);
    assert_ok(linnet_coordinator_adapter(s->coordinator, UINT64_MAX, &after, &err), &err);
    float *moved = calloc((size_t)spec->length, sizeof(float));
    linnet_delta_of(after, before, LINNET_FACTOR_B, moved);
    for (uint64_t i = 0; i < spec->length; i++) {
        double sum = 0, weights = 0;
        for (size_t j = 0; j < n; j++) {
            const device *d = &m[j].d;
            if (d->announcement.round == without)
                continue;
            sum += d->weight * (double)device_value(d, spec, d->announcement.round, i);
            weights += d->weight;
        }
        if (fabs((double)moved[i] - sum / weights) > ldexp(1.0, -spec->exponent) + 1e-6)
            fail_msg("coordinate %llu: %g, want %g", (unsigned long long)i, (double)moved[i], sum / weights);
    }
    free(moved);
    linnet_adapter_destroy(before);
    linnet_adapter_destroy(after);
}

static bool has_sum(const scene *s, uint64_t round)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/sums/%llu", s->state, (unsigned long long)round);
    return access(path, F_OK) == 0;
}

static void two_cohorts_on_one_release_make_one_step(void **state)
{
    (void)state;
    scene s;
    member m[2 * EACH];
    size_t counts[2];
    linnet_plan plan = cohorts_plan(2);
    scene_begin(&s, &plan);
    members_begin(m, ARRAY_LEN(m), &s);
    all_join(m, ARRAY_LEN(m), 1, counts, 2);
    assert_int_equal(counts[0], EACH);
    for (size_t i = 1; i < ARRAY_LEN(m); i++) {
        bool same = m[i].d.announcement.round == m[0].d.announcement.round;
        assert_int_equal(memcmp(m[i].a.bytes, m[0].a.bytes, 32) == 0, same);
        assert_memory_equal(m[i].d.announcement.release.bytes, m[0].d.announcement.release.bytes, 32);
    }
    play_round(&s, m, ARRAY_LEN(m), 2);
    assert_int_equal(round_state(&s, 1), LINNET_ROUND_ROSTER);
    assert_int_equal(round_state(&s, 2), LINNET_ROUND_OPENED);
    assert_true(has_sum(&s, 2)); /* waits for the other one */
    assert_int_equal(scene_status(&s).version, 0);
    scene_reopen(&s);
    assert_true(has_sum(&s, 2));
    play_round(&s, m, ARRAY_LEN(m), 1);
    assert_int_equal(scene_status(&s).version, 1);
    assert_int_equal(round_state(&s, 1), LINNET_ROUND_CLOSED);
    assert_int_equal(round_state(&s, 2), LINNET_ROUND_CLOSED);
    assert_int_equal(round_state(&s, 4), LINNET_ROUND_OPEN);
    assert_false(has_sum(&s, 1) || has_sum(&s, 2));
    assert_step(&s, m, ARRAY_LEN(m), 0);
    all_join(m, ARRAY_LEN(m), 3, counts, 2);
    play_round(&s, m, ARRAY_LEN(m), 3);
    play_round(&s, m, ARRAY_LEN(m), 4);
    linnet_round_report first = scene_round(&s, 1), second = scene_round(&s, 2), next = scene_round(&s, 4);
    assert_true(first.has_loss_after && second.has_loss_after && next.has_loss_before);
    assert_true(fabs(first.loss_after - next.loss_before) < 1e-12);
    members_end(m, ARRAY_LEN(m));
    scene_end(&s);
}

static void a_step_goes_on_without_a_minority_of_void_cohorts(void **state)
{
    (void)state;
    scene s;
    member m[FLEET];
    size_t counts[COHORTS];
    linnet_plan plan = cohorts_plan(COHORTS);
    scene_begin(&s, &plan);
    members_begin(m, FLEET, &s);
    all_join(m, FLEET, 1, counts, COHORTS);
    play_round(&s, m, FLEET, 1);
    play_round(&s, m, FLEET, 3);
    assert_int_equal(scene_status(&s).version, 0);
    s.now_ms += 61 * 1000;
    (void)scene_tick(&s);
    assert_int_equal(round_state(&s, 2), LINNET_ROUND_VOID);
    assert_int_equal(scene_status(&s).version, 1);
    assert_step(&s, m, FLEET, 2);
    members_end(m, FLEET);
    scene_end(&s);
}

static void a_step_waits_for_more_than_half_of_its_cohorts(void **state)
{
    (void)state;
    scene s;
    member m[2 * EACH];
    size_t counts[2];
    linnet_plan plan = cohorts_plan(2);
    scene_begin(&s, &plan);
    members_begin(m, ARRAY_LEN(m), &s);
    all_join(m, ARRAY_LEN(m), 1, counts, 2);
    s.now_ms += 21 * 1000;
    (void)scene_tick(&s); /* both void: both open again */
    assert_int_equal(round_state(&s, 1), LINNET_ROUND_VOID);
    assert_int_equal(scene_status(&s).round, 4);
    all_join(m, ARRAY_LEN(m), 3, counts, 2);
    play_round(&s, m, ARRAY_LEN(m), 3);
    s.now_ms += 21 * 1000;
    (void)scene_tick(&s);
    assert_int_equal(round_state(&s, 3), LINNET_ROUND_OPENED);
    assert_int_equal(round_state(&s, 4), LINNET_ROUND_VOID);
    assert_int_equal(round_state(&s, 5), LINNET_ROUND_OPEN); /* half is not enough */
    for (size_t i = 0; i < ARRAY_LEN(m); i++) {
        bool has_contributed = m[i].d.announcement.round == 3;
        assert_int_equal(member_invite(&m[i]), !has_contributed); /* once a step */
        if (has_contributed)
            continue;
        assert_int_equal(m[i].d.announcement.round, 5);
        (void)member_join(&m[i]);
    }
    play_round(&s, m, ARRAY_LEN(m), 5);
    assert_int_equal(scene_status(&s).version, 1);
    for (size_t i = 0; i < ARRAY_LEN(m); i++)
        if (m[i].d.announcement.round != 5)
            m[i].d.announcement.round = 3;
    assert_step(&s, m, ARRAY_LEN(m), 0);
    members_end(m, ARRAY_LEN(m));
    scene_end(&s);
}

/* Bit i: the cohort of device i, on a coordinator with this seed. */
static uint32_t cohorts_drawn(bool has_seed, uint64_t seed)
{
    scene s;
    member m[2 * EACH];
    size_t counts[2];
    uint32_t drawn = 0;
    linnet_error err = {0};
    linnet_plan plan = cohorts_plan(2);
    const linnet_coordinator_options options = {.serve = true, .has_seed = has_seed, .seed = seed};
    scene_begin(&s, &plan);
    scene_close(&s);
    assert_ok(linnet_coordinator_open(s.state, &options, s.now_ms, &s.coordinator, &err), &err);
    members_begin(m, ARRAY_LEN(m), &s);
    all_join(m, ARRAY_LEN(m), 1, counts, 2);
    assert_int_equal(counts[0], EACH); /* by chance, but evenly */
    for (size_t i = 0; i < ARRAY_LEN(m); i++)
        drawn |= (uint32_t)(m[i].d.announcement.round - 1) << i;
    members_end(m, ARRAY_LEN(m));
    scene_end(&s);
    return drawn;
}

static void a_seed_repeats_the_cohorts_and_chance_does_not(void **state)
{
    (void)state;
    bool differs = false, differs_by_chance = false;
    uint32_t first = cohorts_drawn(true, 1), by_chance = cohorts_drawn(false, 0);
    assert_int_equal(cohorts_drawn(true, 1), first);
    for (uint64_t seed = 2; seed < 12; seed++) { /* 2^-4 a draw that one agrees */
        differs = differs || cohorts_drawn(true, seed) != first;
        differs_by_chance = differs_by_chance || cohorts_drawn(false, 0) != by_chance;
    }
    assert_true(differs && differs_by_chance);
}

/* ---- noise ---- */

static void a_noised_step_is_the_mean_but_for_the_noise(void **state)
{
    (void)state;
    scene s;
    member m[COHORT];
    linnet_error err = {0};
    linnet_adapter *before = NULL, *after = NULL;
    linnet_plan plan = secure_plan();
    plan.profile = LINNET_PROFILE_SECURE_DP;
    plan.mechanism = LINNET_DP_DISTRIBUTED;
    plan.rule = LINNET_RULE_FFA;
    plan.weight_max = 1;
    plan.weight_unit_tokens = 0;
    plan.ring_bits = 32;
    plan.noise_multiplier = 0.5;
    plan.clip = 0.125;
    scene_begin(&s, &plan);
    members_begin(m, COHORT, &s);
    for (size_t i = 0; i < COHORT; i++)
        (void)member_join(&m[i]);
    assert_true(m[0].d.announcement.dp_rotates);
    play_round(&s, m, COHORT, 1);
    assert_int_equal(round_state(&s, 1), LINNET_ROUND_CLOSED);
    assert_ok(linnet_coordinator_adapter(s.coordinator, 0, &before, &err), &err);
    assert_ok(linnet_coordinator_adapter(s.coordinator, 1, &after, &err), &err);
    size_t n = linnet_factors_length(s.coordinator->layout, LINNET_FACTOR_B);
    float *moved = calloc(n, sizeof(float));
    linnet_delta_of(after, before, LINNET_FACTOR_B, moved);
    /* the noise of eight shares on the sum; a rotation leaves its deviation as it is */
    double lattice = ldexp(1.0, -m[0].d.announcement.vectors[0].exponent);
    double deviation = sqrt(COHORT * (double)m[0].d.announcement.dp_sigma2) * lattice / COHORT, energy = 0;
    for (size_t i = 0; i < n; i++) {
        double want = 0;
        for (size_t j = 0; j < COHORT; j++)
            want += (double)member_noised_value(&m[j], i, n) / COHORT;
        double off = (double)moved[i] - want;
        if (fabs(off) > 6 * deviation + 1e-6)
            fail_msg("coordinate %zu: %g, want %g +- %g", i, (double)moved[i], want, deviation);
        energy += off * off / (double)n;
    }
    assert_true(sqrt(energy) > 0.5 * deviation); /* and it is there */
    free(moved);
    linnet_adapter_destroy(before);
    linnet_adapter_destroy(after);
    members_end(m, COHORT);
    scene_end(&s);
}

static void assert_log_is_good(scene *s)
{
    linnet_error err = {0};
    linnet_audit_entry *entries = NULL;
    size_t n = 0;
    assert_ok(linnet_coordinator_audit(s->coordinator, &entries, &n, &err), &err);
    for (size_t i = 0; i < n; i++)
        if (entries[i].flaw)
            fail_msg("%s %llu: %s", entries[i].type, (unsigned long long)entries[i].number, entries[i].flaw);
    free(entries);
}

/* Weighted mean of one round's members at one coordinate. */
static double mean_of_round(const member *m, size_t n, uint64_t round, uint64_t i)
{
    double sum = 0, weights = 0;
    for (size_t j = 0; j < n; j++) {
        const device *d = &m[j].d;
        if (d->announcement.round != round)
            continue;
        sum += d->weight * (double)device_value(d, &d->announcement.vectors[0], round, i);
        weights += d->weight;
    }
    return sum / weights;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void a_step_is_the_median_of_its_cohorts(void **state)
{
    (void)state;
    scene s;
    member m[FLEET];
    size_t counts[COHORTS], n = 0;
    linnet_error err = {0};
    linnet_adapter *before = NULL, *after = NULL;
    linnet_influence *parts = NULL;
    linnet_plan plan = cohorts_plan(COHORTS);
    plan.combine = LINNET_ROBUST_MEDIAN;
    scene_begin(&s, &plan);
    members_begin(m, FLEET, &s);
    all_join(m, FLEET, 1, counts, COHORTS);
    for (uint64_t round = 1; round <= COHORTS; round++)
        play_round(&s, m, FLEET, round);
    assert_int_equal(scene_status(&s).version, 1);
    const linnet_ring_spec *spec = &m[0].d.announcement.vectors[0];
    assert_ok(linnet_coordinator_adapter(s.coordinator, 0, &before, &err), &err);
    assert_ok(linnet_coordinator_adapter(s.coordinator, UINT64_MAX, &after, &err), &err);
    float *moved = calloc((size_t)spec->length, sizeof(float));
    linnet_delta_of(after, before, LINNET_FACTOR_B, moved);
    for (uint64_t i = 0; i < spec->length; i++) {
        double means[COHORTS];
        for (uint64_t round = 1; round <= COHORTS; round++)
            means[round - 1] = mean_of_round(m, FLEET, round, i);
        qsort(means, COHORTS, sizeof(*means), by_value);
        if (fabs((double)moved[i] - means[1]) > ldexp(1.0, -spec->exponent) + 1e-6)
            fail_msg("coordinate %llu: %g, want %g", (unsigned long long)i, (double)moved[i], means[1]);
    }
    double most = -1;
    for (uint64_t round = 1; round <= COHORTS; round++) { /* of each cohort its own, and no device's */
        assert_ok(linnet_coordinator_influence(s.coordinator, round, &parts, &n, &err), &err);
        assert_int_equal(n, 1);
        assert_true(!parts[0].is_device && parts[0].round == round && fabs(parts[0].cosine) <= 1);
        most = fmax(most, parts[0].cosine);
        free(parts);
    }
    assert_true(most > 0); /* one cohort may go the other way by chance, but not all */
    free(moved);
    linnet_adapter_destroy(before);
    linnet_adapter_destroy(after);
    members_end(m, FLEET);
    scene_end(&s);
}

static void a_median_of_two_cohorts_is_none(void **state)
{
    (void)state;
    scene s;
    member m[FLEET];
    size_t counts[COHORTS];
    linnet_plan plan = cohorts_plan(COHORTS);
    plan.combine = LINNET_ROBUST_MEDIAN;
    scene_begin(&s, &plan);
    members_begin(m, FLEET, &s);
    all_join(m, FLEET, 1, counts, COHORTS);
    play_round(&s, m, FLEET, 1);
    play_round(&s, m, FLEET, 3);
    s.now_ms += 61 * 1000;
    (void)scene_tick(&s);
    assert_int_equal(scene_status(&s).version, 0);
    for (uint64_t round = 1; round <= COHORTS; round++)
        assert_int_equal(round_state(&s, round), LINNET_ROUND_VOID);
    for (uint64_t round = COHORTS + 1; round <= 2 * COHORTS; round++) /* every cohort begins anew */
        assert_int_equal(round_state(&s, round), LINNET_ROUND_OPEN);
    assert_log_is_good(&s);
    members_end(m, FLEET);
    scene_end(&s);
}

/* The second time, and from then on, the loss is too high. */
static linnet_status refuse(void *context, const linnet_adapter *adapter, double *ret_loss, linnet_error *err)
{
    int *n_asked = context;
    (void)adapter;
    (void)err;
    *ret_loss = ++*n_asked == 1 ? 2 : 9;
    return LINNET_OK;
}

static void the_gate_and_a_rollback_end_all_cohorts(void **state)
{
    (void)state;
    scene s;
    member m[2 * EACH];
    size_t counts[2];
    int n_asked = 0;
    uint64_t version = 0;
    linnet_error err = {0};
    linnet_plan plan = cohorts_plan(2);
    plan.gate_tolerance = 1.5;
    plan.rounds = 5;
    scene_begin(&s, &plan);
    linnet_coordinator_set_gate(s.coordinator, refuse, &n_asked);
    members_begin(m, ARRAY_LEN(m), &s);
    linnet_hash first = scene_status(&s).adapter;
    all_join(m, ARRAY_LEN(m), 1, counts, 2);
    play_round(&s, m, ARRAY_LEN(m), 1);
    play_round(&s, m, ARRAY_LEN(m), 2);
    assert_int_equal(round_state(&s, 1), LINNET_ROUND_REJECTED);
    assert_int_equal(round_state(&s, 2), LINNET_ROUND_REJECTED);
    linnet_hash now = scene_status(&s).adapter;
    assert_memory_equal(now.bytes, first.bytes, sizeof(first.bytes));
    all_join(m, ARRAY_LEN(m), 3, counts, 2);
    linnet_coordinator_set_gate(s.coordinator, refuse, &n_asked); /* forgets what the first release scored */
    play_round(&s, m, ARRAY_LEN(m), 3);                           /* opened, and waits */
    assert_int_equal(round_state(&s, 3), LINNET_ROUND_OPENED);
    assert_int_equal(linnet_coordinator_rollback(s.coordinator, UINT64_MAX, s.now_ms, &version, &err),
                     LINNET_ERR_NOT_FOUND); /* nothing else was ever released */
    play_round(&s, m, ARRAY_LEN(m), 4);     /* 9 is not worse than 9 */
    assert_int_equal(round_state(&s, 4), LINNET_ROUND_CLOSED);
    all_join(m, ARRAY_LEN(m), 5, counts, 2);
    play_round(&s, m, ARRAY_LEN(m), 5);
    assert_ok(linnet_coordinator_rollback(s.coordinator, UINT64_MAX, s.now_ms, &version, &err), &err);
    assert_int_equal(version, 3);
    assert_int_equal(round_state(&s, 5), LINNET_ROUND_VOID); /* though its sum was open */
    assert_int_equal(round_state(&s, 6), LINNET_ROUND_VOID);
    now = scene_status(&s).adapter;
    assert_memory_equal(now.bytes, first.bytes, sizeof(first.bytes));
    scene_reopen(&s);
    linnet_coordinator_set_gate(s.coordinator, refuse, &n_asked);
    assert_false(has_sum(&s, 5));
    all_join(m, ARRAY_LEN(m), 7, counts, 2);
    play_round(&s, m, ARRAY_LEN(m), 7);
    play_round(&s, m, ARRAY_LEN(m), 8);
    assert_int_equal(round_state(&s, 8), LINNET_ROUND_CLOSED);
    assert_int_equal(scene_status(&s).version, 4);
    assert_log_is_good(&s);
    members_end(m, ARRAY_LEN(m));
    scene_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_cohorts_on_one_release_make_one_step),
        cmocka_unit_test(a_step_goes_on_without_a_minority_of_void_cohorts),
        cmocka_unit_test(a_step_waits_for_more_than_half_of_its_cohorts),
        cmocka_unit_test(a_seed_repeats_the_cohorts_and_chance_does_not),
        cmocka_unit_test(a_noised_step_is_the_mean_but_for_the_noise),
        cmocka_unit_test(a_step_is_the_median_of_its_cohorts),
        cmocka_unit_test(a_median_of_two_cohorts_is_none),
        cmocka_unit_test(the_gate_and_a_rollback_end_all_cohorts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
