/* SPDX-License-Identifier: Apache-2.0 */
/* Whole rounds with secure aggregation over the coordinator as it serves: store, spool, sealed requests. What
 * the machines promise by themselves is in tests/crypto; here it is about rows, phases and deadlines
 * (SECURE-AGGREGATION 6.2, 7). */
#include "secure_fixture.h"

#include <pthread.h>
#include <sched.h>

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
            is_missing = is_missing || (drops[i] == leaves && leaves <= NO_UPLOAD);
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
            linnet_round_report closed = scene_round(&s, round);
            assert_string_equal(closed.state, "closed");
            assert_true(closed.bytes_up >
                        COHORT * m[0].d.packed.n_bytes); /* told of the round that it was for */
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

/* ---- dropping out ---- */

static void two_may_drop_out_in_any_phase(void **state)
{
    (void)state;
    for (drop leaves = NO_ADVERT; leaves <= NO_UNMASKING; leaves++) {
        scene s;
        member m[COHORT];
        bool counts[COHORT];
        drop drops[COHORT] = {STAYS};
        linnet_plan plan = secure_plan();
        drops[1] = drops[6] = leaves;
        for (size_t i = 0; i < COHORT; i++) /* whose upload is accepted is in the sum, whatever comes later */
            counts[i] = drops[i] == STAYS || leaves >= NO_ATTESTATION;
        scene_begin(&s, &plan);
        members_begin(m, COHORT, &s);
        play(&s, m, drops, NULL, NULL);
        linnet_round_report round = scene_round(&s, 1);
        linnet_hash want = plain_result(&plan, counts, 1);
        assert_string_equal(round.state, "closed");
        assert_memory_equal(round.adapter.bytes, want.bytes, 32);
        assert_int_equal(round.accepted, leaves >= NO_ATTESTATION ? COHORT : COHORT - 2);
        assert_audited(&s, 3);
        if (leaves == NO_UPLOAD) { /* of U2 and not of U3: the certificate gives the delta back */
            assert_int_equal(member_poll(&m[1]), LINNET_ANSWER_OK);
            assert_int_equal(m[1].d.answer.phase, LINNET_PHASE_CERTIFICATE);
        } else if (leaves > NO_ADVERT) {
            assert_int_equal(member_poll(&m[1]), LINNET_ANSWER_OK);
            assert_int_equal(m[1].d.answer.phase, LINNET_PHASE_CLOSED);
        }
        members_end(m, COHORT);
        scene_end(&s);
    }
}

static void a_sharer_that_is_left_out_gets_its_delta_back(void **state)
{
    (void)state;
    for (int after_close = 0; after_close < 2; after_close++) {
        scene s;
        member m[COHORT];
        linnet_error err = {0};
        drop drops[COHORT] = {[3] = NO_UPLOAD};
        linnet_plan plan = secure_plan();
        scene_begin(&s, &plan);
        members_begin(m, COHORT, &s);
        adverts(&s, m, drops, NULL, NULL);
        for (drop leaves = NO_SHARES; leaves <= (after_close ? NO_UNMASKING : NO_ATTESTATION); leaves++) {
            phase(&s, m, drops, leaves, NULL, NULL);
            if (leaves == NO_SHARES) { /* it knows T2 */
                assert_int_equal(member_poll(&m[3]), LINNET_ANSWER_OK);
                assert_ok(linnet_secagg_device_take_sharers(m[3].machine, m[3].d.raw.bytes,
                                                            m[3].d.raw.n_bytes, &err),
                          &err);
            }
        }
        assert_int_equal(round_state(&s, 1), after_close ? LINNET_ROUND_CLOSED : LINNET_ROUND_FROZEN);
        assert_int_equal(member_poll(&m[3]), LINNET_ANSWER_OK);
        assert_int_equal(m[3].d.answer.phase, LINNET_PHASE_CERTIFICATE);
        assert_ok(
            linnet_secagg_device_take_certificate(m[3].machine, m[3].d.raw.bytes, m[3].d.raw.n_bytes, &err),
            &err);
        assert_int_equal(linnet_secagg_device_phase(m[3].machine), LINNET_SECAGG_EXCLUDED);
        members_end(m, COHORT);
        scene_end(&s);
    }
}

static void too_many_drop_outs_void_the_round_and_the_next_one_closes(void **state)
{
    (void)state;
    for (drop leaves = NO_ADVERT; leaves <= NO_UNMASKING; leaves++) {
        scene s;
        member m[COHORT];
        drop drops[COHORT] = {leaves, leaves, leaves, leaves, STAYS};
        linnet_plan plan = secure_plan();
        scene_begin(&s, &plan);
        members_begin(m, COHORT, &s);
        adverts(&s, m, drops, NULL, NULL);
        for (drop at = NO_SHARES; at <= leaves; at++)
            phase(&s, m, drops, at, NULL, NULL);
        s.now_ms += leaves >= NO_ATTESTATION ? 21 * 1000 : 0;
        (void)scene_tick(&s);
        assert_int_equal(round_state(&s, 1), LINNET_ROUND_VOID);
        assert_int_equal(scene_status(&s).round, 2);
        assert_int_equal(scene_status(&s).version, 0);
        assert_int_equal(member_poll(&m[7]), LINNET_ANSWER_OK);
        assert_int_equal(m[7].d.answer.phase, LINNET_PHASE_VOID);
        play(&s, m, nobody, NULL, NULL);
        assert_int_equal(round_state(&s, 2), LINNET_ROUND_CLOSED);
        assert_int_equal(scene_status(&s).version, 1);
        members_end(m, COHORT);
        scene_end(&s);
    }
}

static void deadlines_run_from_what_was_committed(void **state)
{
    (void)state;
    scene s;
    member m[COHORT];
    linnet_plan plan = secure_plan();
    plan.goal = COHORT - 1; /* over-selection lets one more in */
    plan.over_selection = 1.15;
    assert_int_equal(linnet_plan_join_max(&plan), COHORT + 1);
    scene_begin(&s, &plan);
    members_begin(m, COHORT, &s);
    s.now_ms += 3600 * 1000;
    (void)scene_tick(&s);
    assert_int_equal(round_state(&s, 1), LINNET_ROUND_OPEN); /* nobody has come: it waits */
    for (size_t i = 0; i + 2 < COHORT; i++)
        assert_int_equal(member_join(&m[i]), LINNET_ANSWER_WAIT);
    int64_t first_ms = s.now_ms;
    assert_int_equal(scene_tick(&s), first_ms + 60 * 1000 + 1); /* below the goal: the whole deadline */
    assert_int_equal(member_join(&m[6]), LINNET_ANSWER_WAIT);
    assert_int_equal(scene_tick(&s), first_ms + 20 * 1000 + 1); /* the goal is there: one phase */
    s.now_ms = first_ms + 20 * 1000;
    (void)scene_tick(&s);
    assert_int_equal(round_state(&s, 1), LINNET_ROUND_OPEN);
    s.now_ms++;
    assert_int_equal(scene_tick(&s), s.now_ms + 20 * 1000 + 1);
    assert_int_equal(round_state(&s, 1), LINNET_ROUND_ROSTER);
    s.now_ms += 20 * 1000;
    for (size_t i = 0; i < 7; i++)
        (void)member_step(&m[i]);
    assert_int_equal(round_state(&s, 1), LINNET_ROUND_SHARERS); /* the last message closes it, no tick */
    s.now_ms += 20 * 1000;
    for (size_t i = 0; i < 7; i++)
        (void)member_step(&m[i]);
    assert_int_equal(round_state(&s, 1), LINNET_ROUND_FROZEN);
    s.now_ms += 20 * 1000;
    for (size_t i = 0; i < 7; i++)
        (void)member_step(&m[i]);
    s.now_ms += 20 * 1000; /* the certificate gave it another phase */
    for (size_t i = 0; i < 7; i++)
        (void)member_step(&m[i]);
    (void)scene_tick(&s);
    assert_int_equal(round_state(&s, 1), LINNET_ROUND_CLOSED);
    members_end(m, COHORT);
    scene_end(&s);
}

/* ---- restarts ---- */

typedef struct restarts {
    size_t n_steps, reopen_at;
} restarts;

static void reopen(void *context, scene *s, member *m)
{
    restarts *r = context;
    (void)m;
    if (r->n_steps == r->reopen_at || r->reopen_at == SIZE_MAX)
        scene_reopen(s);
    r->n_steps++;
}

/* One round with a drop-out in it; the adapter it leads to. */
static linnet_hash play_restarted(size_t reopen_at, size_t *ret_n_steps)
{
    scene s;
    member m[COHORT];
    linnet_plan plan = secure_plan();
    drop drops[COHORT] = {[2] = NO_UPLOAD};
    restarts r = {.reopen_at = reopen_at};
    scene_begin(&s, &plan);
    members_begin(m, COHORT, &s);
    play(&s, m, drops, reopen, &r);
    linnet_round_report round = scene_round(&s, 1);
    assert_string_equal(round.state, "closed");
    assert_audited(&s, 3);
    *ret_n_steps = r.n_steps;
    members_end(m, COHORT);
    scene_end(&s);
    return round.adapter;
}

static void a_restart_between_any_two_messages_changes_no_bit(void **state)
{
    (void)state;
    size_t n_steps = 0, n;
    linnet_hash want = play_restarted(SIZE_MAX - 1, &n_steps);
    assert_int_equal(n_steps, 2 * COHORT + 3 * (COHORT - 1));
    linnet_hash always = play_restarted(SIZE_MAX, &n);
    assert_memory_equal(always.bytes, want.bytes, 32);
    for (size_t at = 0; at < n_steps; at++) {
        linnet_hash got = play_restarted(at, &n);
        if (!linnet_hash_equal(&got, &want))
            fail_msg("restarted after message %zu: another adapter", at);
    }
}

static void a_restart_after_the_deadline_voids_what_is_not_frozen(void **state)
{
    (void)state;
    for (drop leaves = NO_ADVERT; leaves <= NO_UNMASKING; leaves++) {
        scene s;
        member m[COHORT];
        linnet_plan plan = secure_plan();
        scene_begin(&s, &plan);
        members_begin(m, COHORT, &s);
        for (size_t i = 0; i < COHORT - 1; i++) /* one phase is under way */
            (void)member_join(&m[i]);
        if (leaves > NO_ADVERT)
            (void)member_join(&m[COHORT - 1]);
        for (drop at = NO_SHARES; at < leaves; at++)
            phase(&s, m, nobody, at, NULL, NULL);
        bool is_frozen = round_state(&s, 1) == LINNET_ROUND_FROZEN;
        assert_int_equal(is_frozen, leaves >= NO_ATTESTATION);
        s.now_ms += 3600 * 1000;
        scene_reopen(&s);
        (void)scene_tick(&s);
        assert_int_equal(round_state(&s, 1), is_frozen ? LINNET_ROUND_FROZEN : LINNET_ROUND_VOID);
        for (drop at = leaves; is_frozen && at <= NO_UNMASKING; at++)
            phase(&s, m, nobody, at, NULL, NULL);
        if (is_frozen)
            assert_int_equal(round_state(&s, 1), LINNET_ROUND_CLOSED);
        members_end(m, COHORT);
        scene_end(&s);
    }
}

/* ---- threads ---- */

typedef struct carrier {
    member *member;
    uint32_t phase; /* the last one it heard of */
} carrier;

static void *carry(void *context)
{
    carrier *c = context;
    for (int turn = 0; turn < 100000 && c->phase != LINNET_PHASE_CLOSED; turn++) {
        (void)member_step(c->member);
        c->phase = c->member->d.answer.phase;
        (void)sched_yield();
    }
    return NULL;
}

static void eight_threads_carry_one_round(void **state)
{
    (void)state;
    scene s;
    member m[COHORT];
    pthread_t threads[COHORT];
    carrier carriers[COHORT];
    linnet_plan plan = secure_plan();
    scene_begin(&s, &plan);
    members_begin(m, COHORT, &s);
    adverts(&s, m, nobody, NULL, NULL);
    for (size_t i = 0; i < COHORT; i++) {
        carriers[i] = (carrier){.member = &m[i]};
        assert_int_equal(pthread_create(&threads[i], NULL, carry, &carriers[i]), 0);
    }
    for (int turn = 0; turn < 100000 && round_state(&s, 1) != LINNET_ROUND_CLOSED; turn++) {
        (void)scene_tick(&s);
        (void)sched_yield();
    }
    for (size_t i = 0; i < COHORT; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(carriers[i].phase, LINNET_PHASE_CLOSED);
    }
    linnet_hash want = plain_result(&plan, everybody, 1);
    assert_memory_equal(scene_round(&s, 1).adapter.bytes, want.bytes, 32);
    members_end(m, COHORT);
    scene_end(&s);
}

/* ---- again, otherwise, too late, by others ---- */

static linnet_status count(void *context, const uint8_t *fields, size_t n_fields, const uint8_t *bytes,
                           size_t n_bytes, linnet_error *err)
{
    size_t *n = context;
    (void)fields;
    (void)n_fields;
    (void)bytes;
    (void)n_bytes;
    (void)err;
    ++*n;
    return LINNET_OK;
}

static size_t count_rows(scene *s, char table)
{
    linnet_error err = {0};
    linnet_store_txn *txn = NULL;
    size_t n = 0;
    linnet_record_id prefix = linnet_record_of(table);
    assert_ok(linnet_store_read_begin(s->coordinator->store, &txn, &err), &err);
    assert_ok(linnet_store_each(txn, &prefix, count, &n, &err), &err);
    linnet_store_read_end(txn);
    return n;
}

/* The last request again, byte for byte, and sealed anew: the same code, nothing counted twice. */
static void repeat(void *context, scene *s, member *m)
{
    size_t *n_repeated = context;
    linnet_buffer wire = {0};
    linnet_round_report before = scene_round(s, 1);
    linnet_buffer_append(&wire, m->d.wire.bytes, m->d.wire.n_bytes);
    for (int again = 0; again < 2; again++)
        assert_int_equal(scene_exchange(s, "POST", m->d.path, wire.bytes, wire.n_bytes, NULL), 200);
    linnet_buffer_release(&wire);
    static const linnet_round_kind kinds[] = {LINNET_ROUND_ADVERT, LINNET_ROUND_SHARES, LINNET_ROUND_ATTEST,
                                              LINNET_ROUND_UNMASK};
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) { /* everything said so far, and the answer of now */
        size_t n = 0;
        const uint8_t *raw = kinds[k] == LINNET_ROUND_ADVERT   ? linnet_secagg_device_advert(m->machine, &n)
                             : kinds[k] == LINNET_ROUND_SHARES ? linnet_secagg_device_shares(m->machine, &n)
                             : kinds[k] == LINNET_ROUND_ATTEST
                                 ? linnet_secagg_device_attestation(m->machine, &n)
                                 : linnet_secagg_device_unmask(m->machine, &n);
        if (!raw)
            continue;
        uint32_t code = member_send(m, kinds[k], raw, n), phase = m->d.answer.phase;
        linnet_buffer answer = {0};
        linnet_buffer_append(&answer, m->d.raw.bytes, m->d.raw.n_bytes);
        assert_true(code == LINNET_ANSWER_OK || code == LINNET_ANSWER_WAIT);
        assert_int_equal(member_poll(m), code);
        assert_int_equal(m->d.answer.phase, phase);
        assert_int_equal(m->d.raw.n_bytes, answer.n_bytes);
        if (answer.n_bytes > 0)
            assert_memory_equal(m->d.raw.bytes, answer.bytes, answer.n_bytes);
        linnet_buffer_release(&answer);
        ++*n_repeated;
    }
    linnet_round_report after = scene_round(s, 1);
    assert_int_equal(after.joined, before.joined);
    assert_int_equal(after.sharers, before.sharers);
    assert_int_equal(after.accepted, before.accepted);
}

static void every_message_may_come_again(void **state)
{
    (void)state;
    scene s;
    member m[COHORT];
    size_t n_repeated = 0;
    linnet_plan plan = secure_plan();
    scene_begin(&s, &plan);
    members_begin(m, COHORT, &s);
    play(&s, m, nobody, repeat, &n_repeated);
    linnet_hash want = plain_result(&plan, everybody, 1);
    /* q = 5 attest; the other three come when the certificate is there, adopt it and unmask at once */
    assert_int_equal(n_repeated, COHORT * (1 + 2 + 2 + 3 + 4) + 3);
    assert_memory_equal(scene_round(&s, 1).adapter.bytes, want.bytes, 32);
    members_end(m, COHORT);
    scene_end(&s);
}

static bool has_evidence(scene *s, const member *m, uint8_t kind)
{
    linnet_error err = {0};
    linnet_store_txn *txn = NULL;
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_record_id id = linnet_record_round_device('x', 1, &m->d.id);
    if (kind != 0)
        linnet_record_add(&id, &kind, 1);
    assert_ok(linnet_store_read_begin(s->coordinator->store, &txn, &err), &err);
    bool found = linnet_store_get(txn, &id, &bytes, &n_bytes, &err) == LINNET_OK;
    linnet_store_read_end(txn);
    return found;
}

/* A message with one bit of its body changed, under its sender's signature again. */
static uint32_t send_changed(member *m, linnet_round_kind kind, linnet_label label, size_t at,
                             const uint8_t *raw, size_t n)
{
    linnet_buffer copy = {0};
    linnet_buffer_append(&copy, raw, n);
    copy.bytes[at] ^= 1;
    size_t n_body = kind == LINNET_ROUND_ADVERT ? LINNET_ADVERT_BODY_BYTES : n - LINNET_SIGNATURE_BYTES;
    linnet_signature signature = linnet_sign(m->d.identity, label, copy.bytes, n_body);
    memcpy(copy.bytes + n_body, signature.bytes, sizeof(signature.bytes));
    uint32_t code = member_send(m, kind, copy.bytes, copy.n_bytes);
    linnet_buffer_release(&copy);
    return code;
}

static void a_second_different_message_is_kept_as_evidence_and_changes_nothing(void **state)
{
    (void)state;
    scene s;
    member m[COHORT];
    linnet_plan plan = secure_plan();
    size_t n;
    scene_begin(&s, &plan);
    members_begin(m, COHORT, &s);
    adverts(&s, m, nobody, NULL, NULL);
    const uint8_t *raw = linnet_secagg_device_advert(m[0].machine, &n);
    size_t nonce = LINNET_ADVERT_BODY_BYTES - 1;
    assert_int_equal(send_changed(&m[0], LINNET_ROUND_ADVERT, LINNET_LABEL_ADVERT, nonce, raw, n),
                     LINNET_ANSWER_CONFLICT);
    assert_true(has_evidence(&s, &m[0], LINNET_ROUND_ADVERT));
    phase(&s, m, nobody, NO_SHARES, NULL, NULL);
    raw = linnet_secagg_device_shares(m[0].machine, &n);
    assert_int_equal(send_changed(&m[0], LINNET_ROUND_SHARES, LINNET_LABEL_SHARE, 60, raw, n),
                     LINNET_ANSWER_CONFLICT);
    assert_true(has_evidence(&s, &m[0], LINNET_ROUND_SHARES));
    phase(&s, m, nobody, NO_UPLOAD, NULL, NULL);
    linnet_hash echo = m[0].d.echo;
    m[0].d.packed.bytes[0] ^= 1;
    device_sign_header(&m[0].d);
    assert_int_equal(device_upload_part(&m[0].d, 0, 10), LINNET_ANSWER_CONFLICT);
    assert_true(has_evidence(&s, &m[0], 0));
    m[0].d.packed.bytes[0] ^= 1;
    device_sign_header(&m[0].d);
    assert_memory_equal(m[0].d.echo.bytes, echo.bytes, 32);
    assert_int_equal(device_upload_part(&m[0].d, 0, 10), LINNET_ANSWER_OK);
    assert_receipt(&m[0].d);
    for (size_t i = 0; i < COHORT - 1; i++)
        (void)member_step(&m[i]);
    raw = linnet_secagg_device_attestation(m[0].machine, &n);
    assert_int_equal(send_changed(&m[0], LINNET_ROUND_ATTEST, LINNET_LABEL_ATTEST, 0, raw, n),
                     LINNET_ANSWER_REFUSED); /* of another T3, under a signature that is none */
    (void)member_step(&m[0]);
    raw = linnet_secagg_device_unmask(m[0].machine, &n);
    assert_int_equal(send_changed(&m[0], LINNET_ROUND_UNMASK, LINNET_LABEL_UNMASK, 50, raw, n),
                     LINNET_ANSWER_CONFLICT);
    assert_true(has_evidence(&s, &m[0], LINNET_ROUND_UNMASK));
    for (size_t i = 1; i < COHORT; i++)
        (void)member_step(&m[i]);
    (void)scene_tick(&s);
    linnet_hash want = plain_result(&plan, everybody, 1);
    assert_memory_equal(scene_round(&s, 1).adapter.bytes, want.bytes, 32);
    members_end(m, COHORT);
    scene_end(&s);
}

static void what_comes_too_late_or_too_early_is_not_counted(void **state)
{
    (void)state;
    scene s;
    member m[COHORT];
    linnet_plan plan = secure_plan();
    size_t n, n_m1;
    linnet_error err = {0};
    const linnet_secagg_trust trust = {.authority = &s.authority};
    scene_begin(&s, &plan);
    members_begin(m, COHORT, &s);
    assert_true(member_invite(&m[7]));
    const uint8_t *m1 = member_advert(&m[7], &n_m1);
    for (size_t i = 0; i < COHORT - 1; i++)
        assert_int_equal(member_join(&m[i]), LINNET_ANSWER_WAIT);
    s.now_ms += 61 * 1000;
    (void)scene_tick(&s);
    assert_int_equal(member_send(&m[7], LINNET_ROUND_ADVERT, m1, n_m1), LINNET_ANSWER_GONE); /* M1 late */
    assert_int_equal(member_poll(&m[0]), LINNET_ANSWER_OK);
    assert_ok(
        linnet_secagg_device_take_roster(m[0].machine, &trust, m[0].d.raw.bytes, m[0].d.raw.n_bytes, &err),
        &err);
    for (size_t i = 1; i < COHORT - 1; i++)
        (void)member_step(&m[i]);
    s.now_ms += 21 * 1000;
    (void)scene_tick(&s);
    assert_int_equal(round_state(&s, 1), LINNET_ROUND_SHARERS);
    const uint8_t *m3 = linnet_secagg_device_shares(m[0].machine, &n);
    assert_int_equal(member_send(&m[0], LINNET_ROUND_SHARES, m3, n), LINNET_ANSWER_GONE); /* M3 late */
    uint8_t early[LINNET_ATTESTATION_BYTES] = {0};
    memcpy(early + LINNET_HASH_BYTES, m[2].d.id.bytes, sizeof(m[2].d.id.bytes));
    assert_int_equal(member_send(&m[2], LINNET_ROUND_ATTEST, early, sizeof(early)), LINNET_ANSWER_GONE);
    assert_int_equal(member_poll(&m[1]), LINNET_ANSWER_OK);
    assert_ok(linnet_secagg_device_take_sharers(m[1].machine, m[1].d.raw.bytes, m[1].d.raw.n_bytes, &err),
              &err);
    member_mask(&m[1]);
    assert_int_equal(device_upload_part(&m[1].d, 0, 20), LINNET_ANSWER_OK); /* begins, and stays away */
    for (size_t i = 2; i < COHORT - 1; i++)
        (void)member_step(&m[i]);
    s.now_ms += 21 * 1000;
    (void)scene_tick(&s);
    assert_int_equal(round_state(&s, 1), LINNET_ROUND_FROZEN);
    assert_int_equal(device_upload_part(&m[1].d, 20, m[1].d.packed.n_bytes - 20), LINNET_ANSWER_GONE);
    assert_int_equal(scene_round(&s, 1).accepted, 5); /* M5 late */
    assert_int_equal(count_rows(&s, 'l'), 1);
    for (int turn = 0; turn < 2; turn++)
        for (size_t i = 2; i < COHORT - 1; i++)
            (void)member_step(&m[i]);
    (void)scene_tick(&s);
    assert_int_equal(round_state(&s, 1), LINNET_ROUND_CLOSED);
    const uint8_t *m7 = linnet_secagg_device_attestation(m[2].machine, &n);
    assert_int_equal(member_send(&m[2], LINNET_ROUND_ATTEST, m7, n), LINNET_ANSWER_OK); /* M7 and M9 late */
    assert_int_equal(m[2].d.answer.phase, LINNET_PHASE_CLOSED);
    const uint8_t *m9 = linnet_secagg_device_unmask(m[2].machine, &n);
    assert_int_equal(member_send(&m[2], LINNET_ROUND_UNMASK, m9, n), LINNET_ANSWER_OK);
    assert_int_equal(m[2].d.answer.phase, LINNET_PHASE_CLOSED);
    members_end(m, COHORT);
    scene_end(&s);
}

/* ---- chunks and clocks: property 30 ---- */

static size_t n_accepted(scene *s)
{
    return scene_round(s, 1).accepted;
}

/* Cut, doubled, in the wrong order, beyond the end, with a bit flipped: nothing of it is in the sum. */
static void torment_upload(scene *s, member *m)
{
    linnet_error err = {0};
    device *d = &m->d;
    assert_int_equal(member_poll(m), LINNET_ANSWER_OK);
    assert_ok(linnet_secagg_device_take_sharers(m->machine, d->raw.bytes, d->raw.n_bytes, &err), &err);
    member_mask(m);
    size_t n = d->packed.n_bytes, before = n_accepted(s);
    assert_true(n > 60);
    assert_int_equal(device_upload_part(d, n / 2, n - n / 2), LINNET_ANSWER_OK); /* the end first */
    assert_int_equal(d->answer.next_offset, 0);
    d->packed.bytes[9] ^= 0x10; /* all there, and one bit another */
    assert_int_equal(device_upload_part(d, 0, 30), LINNET_ANSWER_OK);
    assert_int_equal(device_upload_part(d, 0, 30), LINNET_ANSWER_OK);
    assert_int_equal(device_upload_part(d, 30, n - 30), LINNET_ANSWER_WAIT);
    assert_int_equal(d->answer.n_receipt, 0);
    assert_int_equal(d->answer.next_offset, 0); /* all of it again */
    d->packed.bytes[9] ^= 0x10;
    assert_int_equal(device_upload_part(d, 0, 40), LINNET_ANSWER_OK);
    assert_int_equal(device_upload_part(d, 20, 30), LINNET_ANSWER_OK); /* overlapping */
    assert_int_equal(d->answer.next_offset, 50);
    assert_int_equal(n_accepted(s), before);
    scene_reopen(s);
    assert_int_equal(n_accepted(s), before);
}

/* One member's upload is tormented and then stays away, or comes in full after all. */
static void what_arrives_in_part_or_damaged_is_in_no_sum(void **state)
{
    (void)state;
    for (int is_finished = 0; is_finished < 2; is_finished++) {
        scene s;
        member m[COHORT];
        bool counts[COHORT] = {true, true, true, is_finished, true, true, true, true};
        drop drops[COHORT] = {[3] = is_finished ? STAYS : NO_UPLOAD};
        linnet_plan plan = secure_plan();
        scene_begin(&s, &plan);
        members_begin(m, COHORT, &s);
        adverts(&s, m, nobody, NULL, NULL);
        phase(&s, m, nobody, NO_SHARES, NULL, NULL);
        torment_upload(&s, &m[3]);
        if (is_finished) {
            assert_int_equal(device_upload_part(&m[3].d, 50, m[3].d.packed.n_bytes - 50), LINNET_ANSWER_OK);
            assert_receipt(&m[3].d);
        }
        for (drop leaves = NO_UPLOAD; leaves <= NO_UNMASKING; leaves++)
            phase(&s, m, drops, leaves, NULL, NULL);
        linnet_hash want = plain_result(&plan, counts, 1);
        assert_int_equal(round_state(&s, 1), LINNET_ROUND_CLOSED);
        assert_int_equal(n_accepted(&s), is_finished ? COHORT : COHORT - 1);
        assert_memory_equal(scene_round(&s, 1).adapter.bytes, want.bytes, 32);
        members_end(m, COHORT);
        scene_end(&s);
    }
}

/* The coordinator's clock leaps between two phases. Back: the round only lasts longer. Forward: the phase is
 * over, and what is frozen goes on with those who are there. */
static void a_clock_that_jumps_ends_rounds_and_changes_none(void **state)
{
    (void)state;
    static const int64_t jumps_ms[] = {-3600 * 1000, 3600 * 1000};
    for (drop at = NO_SHARES; at <= NO_UNMASKING; at++)
        for (size_t k = 0; k < ARRAY_LEN(jumps_ms); k++) {
            scene s;
            member m[COHORT];
            linnet_plan plan = secure_plan();
            scene_begin(&s, &plan);
            members_begin(m, COHORT, &s);
            adverts(&s, m, nobody, NULL, NULL);
            for (drop leaves = NO_SHARES; leaves < at; leaves++)
                phase(&s, m, nobody, leaves, NULL, NULL);
            s.now_ms += jumps_ms[k];
            (void)scene_tick(&s);
            if (jumps_ms[k] > 0 && at <= NO_UPLOAD) { /* nobody has said anything in this phase */
                assert_int_equal(round_state(&s, 1), LINNET_ROUND_VOID);
            } else {
                for (drop leaves = at; leaves <= NO_UNMASKING; leaves++)
                    phase(&s, m, nobody, leaves, NULL, NULL);
                linnet_hash want = plain_result(&plan, everybody, 1);
                linnet_round_state got = round_state(&s, 1);
                if (got == LINNET_ROUND_CLOSED)
                    assert_memory_equal(scene_round(&s, 1).adapter.bytes, want.bytes, 32);
                else
                    assert_true(jumps_ms[k] > 0 && got == LINNET_ROUND_VOID);
            }
            members_end(m, COHORT);
            scene_end(&s);
        }
}

static void only_members_are_heard(void **state)
{
    (void)state;
    scene s;
    member m[COHORT], other;
    linnet_plan plan = secure_plan();
    size_t n;
    scene_begin(&s, &plan);
    members_begin(m, COHORT, &s);
    other = (member){0};
    device_enrolled(&other.d, &s, 100);
    assert_true(member_invite(&m[0]));
    other.d.announcement = m[0].d.announcement; /* it has heard of the round, and was not invited */
    other.a = m[0].a;
    const uint8_t *m1 = member_advert(&other, &n);
    assert_int_equal(member_send(&other, LINNET_ROUND_ADVERT, m1, n), LINNET_ANSWER_GONE);
    assert_int_equal(member_send(&m[0], LINNET_ROUND_ADVERT, m1, n), LINNET_ANSWER_REFUSED); /* another's */
    for (size_t i = 0; i < COHORT; i++)
        (void)member_join(&m[i]);
    assert_int_equal(member_poll(&other), LINNET_ANSWER_GONE);
    m1 = linnet_secagg_device_advert(m[0].machine, &n);
    assert_int_equal(member_send(&other, LINNET_ROUND_SHARES, m1, n), LINNET_ANSWER_GONE);
    assert_int_equal(member_send(&m[0], (linnet_round_kind)LINNET_ROUND_ABORT, m1, n), LINNET_ANSWER_REFUSED);
    other.a.bytes[0] ^= 1;
    assert_int_equal(member_poll(&other), LINNET_ANSWER_GONE); /* no such round */
    assert_false(member_invite(&other));                       /* the roster is full */
    assert_int_equal(scene_round(&s, 1).joined, COHORT);
    member_leave(&other);
    linnet_buffer_release(&other.plain);
    device_end(&other.d);
    members_end(m, COHORT);
    scene_end(&s);
}

static void an_abort_is_only_counted(void **state)
{
    (void)state;
    scene s;
    member m[COHORT];
    linnet_plan plan = secure_plan();
    uint8_t message[LINNET_ABORT_BYTES];
    drop drops[COHORT] = {[4] = NO_SHARES};
    scene_begin(&s, &plan);
    members_begin(m, COHORT, &s);
    adverts(&s, m, drops, NULL, NULL);
    linnet_secagg_device_abort(m[4].machine, LINNET_ABORT_TIME, message);
    for (int again = 0; again < 2; again++)
        (void)member_send(&m[4], LINNET_ROUND_ABORT, message, sizeof(message));
    for (drop leaves = NO_SHARES; leaves <= NO_UNMASKING; leaves++)
        phase(&s, m, drops, leaves, NULL, NULL);
    assert_int_equal(round_state(&s, 1), LINNET_ROUND_CLOSED);
    assert_int_equal(scene_round(&s, 1).aborts, 1);
    members_end(m, COHORT);
    scene_end(&s);
}

/* ---- revocation ---- */

static void a_revocation_voids_the_open_roster_and_only_that(void **state)
{
    (void)state;
    scene s;
    member m[COHORT];
    linnet_error err = {0};
    linnet_plan plan = secure_plan();
    drop drops[COHORT] = {[5] = NO_ADVERT};
    scene_begin(&s, &plan);
    members_begin(m, COHORT, &s);
    for (size_t i = 0; i < 6; i++)
        (void)member_join(&m[i]);
    assert_ok(linnet_coordinator_revoke(s.coordinator, &m[5].d.id, &err), &err);
    assert_int_equal(round_state(&s, 1), LINNET_ROUND_VOID);
    assert_int_equal(member_poll(&m[0]), LINNET_ANSWER_OK);
    assert_int_equal(m[0].d.answer.phase, LINNET_PHASE_VOID);
    assert_int_equal(member_poll(&m[5]), LINNET_ANSWER_REVOKED);
    adverts(&s, m, drops, NULL, NULL);
    assert_int_equal(m[0].d.announcement.revocation_number, 1);
    assert_int_equal(round_state(&s, 2), LINNET_ROUND_ROSTER);
    assert_ok(linnet_coordinator_revoke(s.coordinator, &m[6].d.id, &err), &err);
    drops[6] = NO_SHARES; /* it is in the roster, and drops out */
    assert_int_equal(member_poll(&m[6]), LINNET_ANSWER_REVOKED);
    for (drop leaves = NO_SHARES; leaves <= NO_UNMASKING; leaves++)
        phase(&s, m, drops, leaves, NULL, NULL);
    assert_int_equal(round_state(&s, 2), LINNET_ROUND_CLOSED);
    assert_int_equal(scene_round(&s, 2).accepted, 6);
    members_end(m, COHORT);
    scene_end(&s);
}

/* ---- complaints ---- */

/* Shares of m that do not open for the members in spoilt (a bit a roster index). */
static void send_spoilt_shares(member *m, uint32_t index, uint32_t spoilt)
{
    size_t n;
    linnet_buffer copy = {0};
    const uint8_t *m3 = linnet_secagg_device_shares(m->machine, &n);
    linnet_buffer_append(&copy, m3, n);
    for (uint32_t j = 0; j < COHORT; j++)
        if (j != index && (spoilt >> j & 1))
            copy.bytes[LINNET_HASH_BYTES + 16 + (j - (j > index)) * LINNET_SHARE_BOX_BYTES + 30] ^= 1;
    linnet_signature signature =
        linnet_sign(m->d.identity, LINNET_LABEL_SHARE, copy.bytes, n - LINNET_SIGNATURE_BYTES);
    memcpy(copy.bytes + n - LINNET_SIGNATURE_BYTES, signature.bytes, sizeof(signature.bytes));
    (void)member_send(m, LINNET_ROUND_SHARES, copy.bytes, copy.n_bytes);
    linnet_buffer_release(&copy);
}

static uint32_t roster_index(const member *all, const member *m)
{
    uint32_t index = 0;
    for (size_t i = 0; i < COHORT; i++)
        index += memcmp(all[i].d.id.bytes, m->d.id.bytes, 16) < 0;
    return index;
}

/* Adverts and shares of all, those of member 0 spoilt for `n_spoilt` others, and their complaints. */
static void play_complaints(scene *s, member *m, size_t n_spoilt)
{
    linnet_error err = {0};
    uint32_t spoilt = 0, bad = roster_index(m, &m[0]);
    const linnet_secagg_trust trust = {.authority = &s->authority};
    for (size_t i = 1; i <= n_spoilt; i++)
        spoilt |= 1u << roster_index(m, &m[i]);
    adverts(s, m, nobody, NULL, NULL);
    assert_int_equal(member_poll(&m[0]), LINNET_ANSWER_OK);
    assert_ok(
        linnet_secagg_device_take_roster(m[0].machine, &trust, m[0].d.raw.bytes, m[0].d.raw.n_bytes, &err),
        &err);
    send_spoilt_shares(&m[0], bad, spoilt);
    for (size_t i = 1; i < COHORT; i++)
        (void)member_step(&m[i]);
    for (size_t i = 1; i <= n_spoilt; i++) {
        size_t n;
        (void)member_poll(&m[i]);
        assert_ok(linnet_secagg_device_take_sharers(m[i].machine, m[i].d.raw.bytes, m[i].d.raw.n_bytes, &err),
                  &err);
        const uint8_t *complaint = linnet_secagg_device_complaints(m[i].machine, &n);
        assert_int_equal(n, LINNET_COMPLAINT_BYTES);
        for (int again = 0; again < 2; again++)
            assert_int_equal(member_send(&m[i], LINNET_ROUND_COMPLAINT, complaint, n), LINNET_ANSWER_OK);
    }
}

static void complaints_of_more_than_the_corrupt_void_the_round(void **state)
{
    (void)state;
    scene s;
    member m[COHORT];
    linnet_plan plan = secure_plan();
    drop drops[COHORT] = {[0] = NO_ADVERT};
    scene_begin(&s, &plan);
    members_begin(m, COHORT, &s);
    play_complaints(&s, m, 1); /* C = 1: one may be slander */
    assert_int_equal(round_state(&s, 1), LINNET_ROUND_SHARERS);
    scene_end(&s);
    members_end(m, COHORT);
    scene_begin(&s, &plan);
    members_begin(m, COHORT, &s);
    play_complaints(&s, m, 2);
    assert_int_equal(round_state(&s, 1), LINNET_ROUND_VOID);
    assert_int_equal(m[2].d.answer.phase, LINNET_PHASE_VOID);
    assert_false(member_invite(&m[0])); /* left out of the next roster */
    play(&s, m, drops, NULL, NULL);
    assert_int_equal(round_state(&s, 2), LINNET_ROUND_CLOSED);
    assert_true(member_invite(&m[0])); /* of that one only */
    members_end(m, COHORT);
    scene_end(&s);
}

/* ---- wrong shares ---- */

#define LARGER 16 /* t = 9: tries with one share more than that, two, four, and all */

/* Linked with --wrap: how often an opening was tried. */
linnet_status __real_linnet_secagg_server_open(linnet_secagg_server *server, uint32_t *ret_n_wrong,
                                               linnet_error *err);
linnet_status __wrap_linnet_secagg_server_open(linnet_secagg_server *server, uint32_t *ret_n_wrong,
                                               linnet_error *err);
static uint32_t n_tries;

linnet_status __wrap_linnet_secagg_server_open(linnet_secagg_server *server, uint32_t *ret_n_wrong,
                                               linnet_error *err)
{
    n_tries++;
    return __real_linnet_secagg_server_open(server, ret_n_wrong, err);
}

/* M9 of m; a liar's shares all are other scalars. */
static void send_unmasking(member *m, bool lies)
{
    size_t n;
    linnet_error err = {0};
    linnet_buffer m9 = {0};
    assert_int_equal(member_poll(m), LINNET_ANSWER_OK);
    assert_int_equal(m->d.answer.phase, LINNET_PHASE_CERTIFICATE);
    assert_ok(linnet_secagg_device_take_certificate(m->machine, m->d.raw.bytes, m->d.raw.n_bytes, &err),
              &err);
    const uint8_t *own = linnet_secagg_device_unmask(m->machine, &n);
    size_t n_body = n - LINNET_SIGNATURE_BYTES;
    linnet_buffer_append(&m9, own, n);
    for (size_t at = LINNET_HASH_BYTES + 16; lies && at < n_body; at += 1 + LINNET_SCALAR_BYTES)
        linnet_random_bytes(m9.bytes + at + 1, 8);
    linnet_signature signature = linnet_sign(m->d.identity, LINNET_LABEL_UNMASK, m9.bytes, n_body);
    memcpy(m9.bytes + n_body, signature.bytes, sizeof(signature.bytes));
    assert_int_equal(member_send(m, LINNET_ROUND_UNMASK, m9.bytes, m9.n_bytes), LINNET_ANSWER_WAIT);
    linnet_buffer_release(&m9);
}

/* Up to the certificate, whatever is to be said then. */
static void play_to_certificate(scene *s, member *m)
{
    linnet_plan plan = secure_plan();
    plan.goal = LARGER;
    plan.minimum = LARGER - 2;
    scene_begin(s, &plan);
    members_begin(m, LARGER, s);
    for (size_t i = 0; i < LARGER; i++)
        (void)member_join(&m[i]);
    (void)scene_tick(s);
    for (drop leaves = NO_SHARES; leaves <= NO_ATTESTATION; leaves++) {
        for (size_t i = 0; i < (leaves == NO_ATTESTATION ? 9 : LARGER); i++) /* q = 9 make a certificate */
            assert_true(member_step(&m[i]));
        (void)scene_tick(s);
    }
    n_tries = 0;
}

/* The liars answer first, so that only the last answers outweigh them: all that come, or all that came until
 * the deadline. Eight honest members are too few for nine shares of anything. */
static void an_opening_is_tried_again_where_it_may_succeed(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t n_liars, n_answers;
        uint32_t n_tries;          /* before the deadline */
        linnet_round_state before; /* the deadline */
        linnet_round_state after;
    } cases[] = {
        {"nobody lies", 0, 10, 1, LINNET_ROUND_CLOSED, LINNET_ROUND_CLOSED},
        {"all came", 4, LARGER, 4, LINNET_ROUND_CLOSED, LINNET_ROUND_CLOSED},
        {"one did not", 4, LARGER - 1, 3, LINNET_ROUND_FROZEN, LINNET_ROUND_CLOSED},
        {"nobody after a failure", 4, 13, 3, LINNET_ROUND_FROZEN, LINNET_ROUND_VOID},
        {"too many liars", 8, LARGER, 4, LINNET_ROUND_FROZEN, LINNET_ROUND_VOID},
    };
    for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
        scene s;
        member m[LARGER];
        play_to_certificate(&s, m);
        for (size_t i = 0; i < cases[k].n_answers; i++)
            send_unmasking(&m[i], i < cases[k].n_liars);
        (void)scene_tick(&s);
        (void)scene_tick(&s);
        if (n_tries != cases[k].n_tries || round_state(&s, 1) != cases[k].before)
            fail_msg("%s: %u tries, state %d", cases[k].name, (unsigned)n_tries, (int)round_state(&s, 1));
        s.now_ms += 21 * 1000;
        (void)scene_tick(&s);
        bool has_more = cases[k].n_answers == LARGER - 1; /* than at the last try */
        if (n_tries != cases[k].n_tries + has_more || round_state(&s, 1) != cases[k].after)
            fail_msg("%s, late: %u tries, state %d", cases[k].name, (unsigned)n_tries,
                     (int)round_state(&s, 1));
        members_end(m, LARGER);
        scene_end(&s);
    }
}

/* ---- what lies in the state ---- */

static bool has_file(const scene *s, const char *name)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", s->state, name);
    return access(path, F_OK) == 0;
}

/* Every stored unmasking holds one entry an owner, of the kind that the frozen bitmap asks for. */
static linnet_status check_kinds(void *context, const uint8_t *fields, size_t n_fields, const uint8_t *bytes,
                                 size_t n_bytes, linnet_error *err)
{
    const member *all = context;
    uint32_t holder = 0, entry = 0;
    (void)err;
    assert_int_equal(n_fields, 16);
    for (size_t i = 0; i < COHORT; i++)
        if (memcmp(all[i].d.id.bytes, fields, 16) == 0)
            holder = roster_index(all, &all[i]);
    assert_int_equal(n_bytes, 32 + 16 + (COHORT - 1) * 33 + 64);
    for (uint32_t owner = 0; owner < COHORT; owner++) {
        if (owner == holder)
            continue;
        bool survives = false;
        for (size_t i = 0; i < COHORT; i++)
            survives = survives || (i != 3 && roster_index(all, &all[i]) == owner);
        assert_int_equal(bytes[48 + 33 * entry++], survives ? 1 : 2);
    }
    return LINNET_OK;
}

static void never_both_kinds_of_share_and_none_after_the_end(void **state)
{
    (void)state;
    scene s;
    member m[COHORT];
    linnet_error err = {0};
    linnet_store_txn *txn = NULL;
    linnet_plan plan = secure_plan();
    drop drops[COHORT] = {[3] = NO_UPLOAD};
    scene_begin(&s, &plan);
    members_begin(m, COHORT, &s);
    adverts(&s, m, drops, NULL, NULL);
    for (drop leaves = NO_SHARES; leaves <= NO_ATTESTATION; leaves++)
        phase(&s, m, drops, leaves, NULL, NULL);
    for (size_t i = 4; i < COHORT; i++) /* one less than it takes */
        (void)member_step(&m[i]);
    linnet_record_id prefix = linnet_record_number('u', 1);
    assert_ok(linnet_store_read_begin(s.coordinator->store, &txn, &err), &err);
    assert_ok(linnet_store_each(txn, &prefix, check_kinds, m, &err), &err);
    linnet_store_read_end(txn);
    assert_int_equal(count_rows(&s, 'u'), COHORT - 4);
    assert_int_equal(count_rows(&s, 'p'), COHORT);
    assert_true(has_file(&s, "spool/1"));
    for (size_t i = 0; i < 3; i++)
        (void)member_step(&m[i]);
    (void)scene_tick(&s);
    assert_int_equal(round_state(&s, 1), LINNET_ROUND_CLOSED);
    assert_int_equal(count_rows(&s, 'u'), 0);
    assert_int_equal(count_rows(&s, 'p'), 0);
    assert_false(has_file(&s, "spool/1"));
    assert_false(has_file(&s, "sums/1"));
    members_end(m, COHORT);
    scene_end(&s);
}

static linnet_status put_leftovers(linnet_store_txn *txn, void *context, linnet_error *err)
{
    const member *m = context;
    linnet_status status = LINNET_OK;
    for (uint64_t round = 1; round <= 3 && status == LINNET_OK; round++) {
        linnet_record_id p = linnet_record_round_device('p', round, &m->d.id);
        linnet_record_id u = linnet_record_round_device('u', round, &m->d.id);
        status = linnet_store_put(txn, &p, "share", 5, err);
        if (status == LINNET_OK)
            status = linnet_store_put(txn, &u, "share", 5, err);
    }
    return status;
}

static void every_start_sweeps_what_is_over(void **state)
{
    (void)state;
    scene s;
    member m[COHORT];
    linnet_error err = {0};
    char command[512];
    linnet_plan plan = secure_plan();
    scene_begin(&s, &plan);
    members_begin(m, COHORT, &s);
    play(&s, m, nobody, NULL, NULL);
    adverts(&s, m, nobody, NULL, NULL);
    phase(&s, m, nobody, NO_SHARES, NULL, NULL);
    (void)member_poll(&m[0]);
    assert_ok(linnet_secagg_device_take_sharers(m[0].machine, m[0].d.raw.bytes, m[0].d.raw.n_bytes, &err),
              &err);
    member_mask(&m[0]);
    assert_int_equal(device_upload_part(&m[0].d, 0, 20), LINNET_ANSWER_OK);
    (void)snprintf(command, sizeof(command), "mkdir -p %s/spool/1 && touch %s/spool/1/x %s/sums/1", s.state,
                   s.state, s.state);
    assert_int_equal(system(command), 0);
    /* leftovers of round 1, which is closed */
    assert_int_equal(count_rows(&s, 'p'), COHORT);
    device stranger;
    device_begin(&stranger, &s, 77);
    member nobodys = {.d = stranger};
    assert_ok(linnet_store_update(s.coordinator->store, put_leftovers, &nobodys, &err), &err);
    assert_int_equal(count_rows(&s, 'p'), COHORT + 3);
    scene_reopen(&s);
    assert_int_equal(count_rows(&s, 'p'), COHORT + 1); /* of round 2 only */
    assert_int_equal(count_rows(&s, 'u'), 1);
    assert_false(has_file(&s, "spool/1"));
    assert_false(has_file(&s, "sums/1"));
    assert_true(has_file(&s, "spool/2"));
    device_end(&stranger);
    members_end(m, COHORT);
    scene_end(&s);
}

typedef struct damage {
    linnet_record_id id;
    size_t at;
} damage;

/* One bit of a stored row, changed. */
static linnet_status put_damage(linnet_store_txn *txn, void *context, linnet_error *err)
{
    const damage *d = context;
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_buffer copy = {0};
    linnet_status status = linnet_store_get(txn, &d->id, &bytes, &n_bytes, err);
    if (status != LINNET_OK)
        return status;
    linnet_buffer_append(&copy, bytes, n_bytes);
    copy.bytes[d->at] ^= 1;
    return linnet_row_put(txn, &d->id, &copy, err);
}

static void what_a_restart_would_say_otherwise_is_not_said(void **state)
{
    (void)state;
    for (int which = 0; which < 4; which++) { /* M2, sharers, M6, an advert */
        scene s;
        member m[COHORT];
        linnet_error err = {0};
        int64_t next_ms;
        linnet_plan plan = secure_plan();
        scene_begin(&s, &plan);
        members_begin(m, COHORT, &s);
        adverts(&s, m, nobody, NULL, NULL);
        phase(&s, m, nobody, NO_SHARES, NULL, NULL);
        phase(&s, m, nobody, NO_UPLOAD, NULL, NULL);
        damage d = {.id = linnet_record_number('q', 1), .at = 70};
        uint8_t number = (uint8_t)(2 * which + 2);
        linnet_record_add(&d.id, &number, 1);
        if (number == LINNET_PHASE_SHARERS)
            d.at = 64; /* the bitmap's only byte */
        if (which == 3)
            d = (damage){.id = linnet_record_round_device('j', 1, &m[0].d.id), .at = 60};
        assert_ok(linnet_store_update(s.coordinator->store, put_damage, &d, &err), &err);
        scene_reopen(&s);
        assert_int_equal(linnet_coordinator_tick(s.coordinator, s.now_ms, &next_ms, &err), LINNET_ERR_FORMAT);
        assert_int_equal(scene_exchange(&s, "GET", LINNET_PATH_HELLO, NULL, 0, NULL), 503);
        members_end(m, COHORT);
        scene_end(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_secure_sum_is_the_plain_sum),
        cmocka_unit_test(two_may_drop_out_in_any_phase),
        cmocka_unit_test(a_sharer_that_is_left_out_gets_its_delta_back),
        cmocka_unit_test(too_many_drop_outs_void_the_round_and_the_next_one_closes),
        cmocka_unit_test(deadlines_run_from_what_was_committed),
        cmocka_unit_test(a_restart_between_any_two_messages_changes_no_bit),
        cmocka_unit_test(a_restart_after_the_deadline_voids_what_is_not_frozen),
        cmocka_unit_test(eight_threads_carry_one_round),
        cmocka_unit_test(every_message_may_come_again),
        cmocka_unit_test(a_second_different_message_is_kept_as_evidence_and_changes_nothing),
        cmocka_unit_test(what_comes_too_late_or_too_early_is_not_counted),
        cmocka_unit_test(what_arrives_in_part_or_damaged_is_in_no_sum),
        cmocka_unit_test(a_clock_that_jumps_ends_rounds_and_changes_none),
        cmocka_unit_test(only_members_are_heard),
        cmocka_unit_test(an_abort_is_only_counted),
        cmocka_unit_test(a_revocation_voids_the_open_roster_and_only_that),
        cmocka_unit_test(complaints_of_more_than_the_corrupt_void_the_round),
        cmocka_unit_test(an_opening_is_tried_again_where_it_may_succeed),
        cmocka_unit_test(never_both_kinds_of_share_and_none_after_the_end),
        cmocka_unit_test(every_start_sweeps_what_is_over),
        cmocka_unit_test(what_a_restart_would_say_otherwise_is_not_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
