/* SPDX-License-Identifier: Apache-2.0 */
/* Whole rounds with secure aggregation over the coordinator as it serves: store, spool, sealed requests. What
 * the machines promise by themselves is in tests/crypto; here it is about rows, phases and deadlines
 * (SECURE-AGGREGATION 6.2, 7). */
#include "secure_fixture.h"

/* ---- sums ---- */

/* The adapter that a plain round of these devices leads to. */
static linnet_hash plain_result(const linnet_plan *secure, const bool *takes_part, uint64_t n_rounds)
{
    scene s;
    device d[COHORT];
    linnet_plan plan = *secure;
    plan.profile = LINNET_PROFILE_PLAIN;
    plan.minimum = 1;
    scene_begin(&s, &plan);
    devices_begin(d, COHORT, &s);
    for (uint64_t round = 0; round < n_rounds; round++) {
        for (size_t i = 0; i < COHORT; i++)
            if (takes_part[i])
                device_contribute(&d[i]);
        s.now_ms += 3600 * 1000;
        (void)scene_tick(&s);
    }
    linnet_coordinator_report report = scene_status(&s);
    assert_int_equal(report.version, n_rounds);
    devices_end(d, COHORT);
    scene_end(&s);
    return report.adapter;
}

static const bool everybody[COHORT] = {true, true, true, true, true, true, true, true};

/* Where members leave a round, in the order of the phases. */
typedef enum drop { STAYS, NO_ADVERT, NO_SHARES, NO_UPLOAD, NO_ATTESTATION, NO_UNMASKING } drop;

/* Called after every message that was answered. */
typedef void after_fn(void *context, scene *s, member *m);

static void step(after_fn *after, void *context, scene *s, member *m)
{
    if (after)
        after(context, s, m);
}

/* Members that stay poll once each; then the phase's time passes where somebody is missing. */
static void phase(scene *s, member *m, const drop *drops, drop leaves, after_fn *after, void *context)
{
    bool is_missing = false;
    for (size_t i = 0; i < COHORT; i++) {
        if (drops[i] != STAYS && drops[i] <= leaves) {
            is_missing = is_missing || drops[i] == leaves || leaves < NO_ATTESTATION;
            continue;
        }
        (void)member_step(&m[i]);
        step(after, context, s, &m[i]);
    }
    if (is_missing)
        s->now_ms += 61 * 1000;
    (void)scene_tick(s);
}

static void adverts(scene *s, member *m, const drop *drops, after_fn *after, void *context)
{
    bool is_missing = false;
    for (size_t i = 0; i < COHORT; i++) {
        is_missing = is_missing || drops[i] == NO_ADVERT;
        if (drops[i] == NO_ADVERT)
            continue;
        uint32_t code = member_join(&m[i]);
        assert_true(code == LINNET_ANSWER_WAIT || code == LINNET_ANSWER_OK);
        step(after, context, s, &m[i]);
    }
    if (is_missing)
        s->now_ms += 61 * 1000;
    (void)scene_tick(s);
}

static void play(scene *s, member *m, const drop *drops, after_fn *after, void *context)
{
    adverts(s, m, drops, after, context);
    for (drop leaves = NO_SHARES; leaves <= NO_UNMASKING; leaves++)
        phase(s, m, drops, leaves, after, context);
}

static const drop nobody[COHORT] = {STAYS};

/* Every entry of the transcript names what the store holds. */
static void assert_audited(scene *s, size_t n_sets)
{
    linnet_error err = {0};
    linnet_audit_entry *entries = NULL;
    size_t n = 0, found = 0;
    assert_ok(linnet_coordinator_audit(s->coordinator, &entries, &n, &err), &err);
    for (size_t i = 0; i < n; i++) {
        if (entries[i].flaw)
            fail_msg("entry %zu, %s %llu: %s", i, entries[i].type, (unsigned long long)entries[i].number,
                     entries[i].flaw);
        found += strcmp(entries[i].type, "roster") == 0 || strcmp(entries[i].type, "sharers") == 0 ||
                 strcmp(entries[i].type, "survivors") == 0;
    }
    free(entries);
    assert_int_equal(found, n_sets);
}

static void the_secure_sum_is_the_plain_sum(void **state)
{
    (void)state;
    static const linnet_rule rules[] = {LINNET_RULE_ALTERNATE, LINNET_RULE_FEDAVG};
    for (size_t r = 0; r < ARRAY_LEN(rules); r++) {
        scene s;
        member m[COHORT];
        linnet_plan plan = secure_plan();
        plan.rule = (int)rules[r];
        scene_begin(&s, &plan);
        members_begin(m, COHORT, &s);
        for (uint64_t round = 1; round <= 3; round++) {
            play(&s, m, nobody, NULL, NULL);
            assert_string_equal(scene_round(&s, round).state, "closed");
            for (size_t i = 0; i < COHORT; i++) {
                assert_int_equal(member_poll(&m[i]), LINNET_ANSWER_OK);
                assert_int_equal(m[i].d.answer.phase, LINNET_PHASE_CLOSED);
            }
        }
        linnet_coordinator_report report = scene_status(&s);
        linnet_hash want = plain_result(&plan, everybody, 3);
        assert_true(report.is_finished);
        assert_audited(&s, 9);
        assert_memory_equal(report.adapter.bytes, want.bytes, 32);
        members_end(m, COHORT);
        scene_end(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_secure_sum_is_the_plain_sum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
