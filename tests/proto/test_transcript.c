/* SPDX-License-Identifier: Apache-2.0 */
/* The auditor: what an honest log shows, and that every way to change, cut, reorder or forge one is found and
 * named. */
#include "history.h"

#include <math.h>

static linnet_log_report verify(const linnet_log *log, const linnet_receipts *receipts,
                                const linnet_log *other)
{
    linnet_error err = {0};
    linnet_log_report report = {.n_findings = 0};
    assert_ok(linnet_log_verify(log, receipts, other, &report, &err), &err);
    return report;
}

static bool has_flaw(const linnet_log_report *report, const char *words)
{
    for (size_t i = 0; i < report->n_findings; i++)
        if (strstr(report->findings[i].flaw, words))
            return true;
    return false;
}

static void must_be_clean(const linnet_log_report *report)
{
    if (report->n_findings > 0)
        fail_msg("%zu findings, first in %d at %zu: %s", report->n_findings, (int)report->findings[0].where,
                 report->findings[0].index, report->findings[0].flaw);
    assert_int_equal(report->n_equivocations, 0);
}

static void an_honest_log_is_clean_and_adds_up(void **state)
{
    (void)state;
    history h;
    linnet_error err = {0};
    linnet_buffer bytes = {0};
    linnet_log log;
    history_begin(&h, LIE_NONE);
    history_play(&h);
    assert_ok(linnet_log_write(&h.log, &bytes, &err), &err);
    assert_ok(linnet_log_parse(bytes.bytes, bytes.n_bytes, &log, &err), &err);
    linnet_log_report report = verify(&log, NULL, NULL);
    must_be_clean(&report);
    assert_int_equal(report.n_releases, 2);
    assert_int_equal(report.n_rounds, 3);
    assert_int_equal(report.n_closed, 1);
    assert_int_equal(report.n_void, 1);
    assert_int_equal(report.dp_rounds, 2);
    /* two Gaussian releases of z = 4 or a little more: below the plan's own bound for two rounds */
    assert_true(report.dp_epsilon > 0 && report.dp_epsilon <= linnet_plan_epsilon(&h.plan, 2) * (1 + 1e-12));
    assert_true(report.dp_epsilon >= 0.9 * linnet_plan_epsilon(&h.plan, 2));
    linnet_log_report_release(&report);
    linnet_log_release(&log);
    linnet_buffer_release(&bytes);
    history_end(&h);
}

/* Properties 9, 10, 12 of SECURE-AGGREGATION 6.2, as an auditor sees them. */
static void every_lie_is_named(void **state)
{
    (void)state;
    static const struct {
        history_lie lie;
        const char *flaw;
    } cases[] = {
        {LIE_REVOKED_MEMBER, "revoked member"},
        {LIE_STRANGER, "certificate, signature or keys"},
        {LIE_TWO_KEYS, "one key twice"},
        {LIE_UNSORTED, "devices do not increase"},
        {LIE_FEW_SHARERS, "fewer members shared"},
        {LIE_OUTSIDE_U2, "not among the sharers"},
        {LIE_FEW_SURVIVORS, "fewer members survived"},
        {LIE_MADE_UP, "not signed by its device"},
        {LIE_WRONG_Q, "fewer attestations than q"},
        {LIE_FORGED_ATTEST, "attestation in the certificate is forged"},
        {LIE_EPSILON, "epsilon does not add up"},
        {LIE_ROUNDS, "counts other rounds"},
        {LIE_PARAMETERS, "noise is not that of the plan"},
        {LIE_ADAPTER, "not the one that a closed round led to"},
        {LIE_CHECKPOINT, "checkpoint is not the head"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        history h;
        history_begin(&h, cases[i].lie);
        history_play(&h);
        linnet_log_report report = verify(&h.log, NULL, NULL);
        if (!has_flaw(&report, cases[i].flaw))
            fail_msg("not found: %s; %zu findings, first %s", cases[i].flaw, report.n_findings,
                     report.n_findings ? report.findings[0].flaw : "none");
        linnet_log_report_release(&report);
        history_end(&h);
    }
}

static void every_flipped_bit_is_found(void **state)
{
    (void)state;
    history h;
    linnet_error err = {0};
    linnet_buffer bytes = {0};
    history_begin(&h, LIE_NONE);
    history_play(&h);
    assert_ok(linnet_log_write(&h.log, &bytes, &err), &err);
    /* the last digits of epsilon, which differ between machines */
    size_t epsilon = 12 + 16 + 64 + 4 + h.log.plan.n_bytes + 4 + h.log.layout.n_bytes + 8;
    const uint32_t near = testing_size("bytes from flip to flip, first", 1, 23),
                   far = testing_size("bytes from flip to flip, then", 5, 101);
    for (size_t at = 0; at < bytes.n_bytes; at += at < 2200 ? near : far) {
        linnet_log log;
        if (at >= epsilon && at < epsilon + 4)
            continue;
        bytes.bytes[at] ^= (uint8_t)(1u << at % 8);
        linnet_status status = linnet_log_parse(bytes.bytes, bytes.n_bytes, &log, NULL);
        if (status == LINNET_OK) {
            linnet_log_report report = verify(&log, NULL, NULL);
            if (report.n_findings == 0)
                fail_msg("byte %zu of %zu changed: nothing found", at, bytes.n_bytes);
            linnet_log_report_release(&report);
            linnet_log_release(&log);
        }
        bytes.bytes[at] ^= (uint8_t)(1u << at % 8);
    }
    linnet_buffer_release(&bytes);
    history_end(&h);
}

static void a_cut_file_is_refused_and_a_cut_log_is_found(void **state)
{
    (void)state;
    history h;
    history_receipts r;
    linnet_error err = {0};
    linnet_buffer bytes = {0};
    linnet_log log;
    history_begin(&h, LIE_NONE);
    history_play(&h);
    history_receipts_begin(&h, 2, &r);
    assert_ok(linnet_log_write(&h.log, &bytes, &err), &err);
    for (size_t n = 0; n < bytes.n_bytes; n += 7)
        assert_int_equal(linnet_log_parse(bytes.bytes, n, &log, NULL), LINNET_ERR_FORMAT);
    linnet_buffer_append_u8(&bytes, 0);
    assert_int_equal(linnet_log_parse(bytes.bytes, bytes.n_bytes, &log, NULL), LINNET_ERR_FORMAT);
    linnet_buffer_release(&bytes);
    /* a log that ends earlier is a good log, but not for a device that saw more of it */
    h.log.n_entries = 8;
    h.log.dp_rounds = 1;
    linnet_log_report report = verify(&h.log, &r.receipts, NULL);
    assert_true(has_flaw(&report, "checkpoint is not on this log's chain"));
    linnet_log_report_release(&report);
    history_receipts_end(&r);
    history_end(&h);
}

/* With heads made anew, as who holds the log's store can. */
static void rehead(history *h)
{
    for (size_t i = 0; i < h->log.n_entries; i++)
        h->entries[i].head = linnet_log_head(i > 0 ? &h->entries[i - 1].head : NULL, &h->entries[i]);
}

static void a_dropped_or_moved_entry_is_found(void **state)
{
    (void)state;
    history h;
    history_begin(&h, LIE_NONE);
    history_play(&h);
    size_t n = h.log.n_entries;
    linnet_log_entry all[ARRAY_LEN(h.entries)];
    memcpy(all, h.entries, sizeof(all));
    for (size_t gone = 0; gone + 1 < n; gone++)
        for (int is_reheaded = 0; is_reheaded < 2; is_reheaded++) {
            memcpy(h.entries, all, sizeof(all));
            memmove(h.entries + gone, h.entries + gone + 1, (n - gone - 1) * sizeof(all[0]));
            h.log.n_entries = n - 1;
            if (is_reheaded)
                rehead(&h);
            linnet_log_report report = verify(&h.log, NULL, NULL);
            if (report.n_findings == 0)
                fail_msg("entry %zu dropped: nothing found", gone);
            linnet_log_report_release(&report);
        }
    h.log.n_entries = n;
    for (size_t i = 0; i + 1 < n; i++)
        for (int is_reheaded = 0; is_reheaded < 2; is_reheaded++) {
            memcpy(h.entries, all, sizeof(all));
            h.entries[i] = all[i + 1];
            h.entries[i + 1] = all[i];
            if (is_reheaded)
                rehead(&h);
            linnet_log_report report = verify(&h.log, NULL, NULL);
            if (report.n_findings == 0)
                fail_msg("entries %zu and %zu swapped: nothing found", i, i + 1);
            linnet_log_report_release(&report);
        }
    history_end(&h);
}

static void a_second_entry_of_a_kind_is_found(void **state)
{
    (void)state;
    history h;
    history_begin(&h, LIE_NONE);
    history_play(&h);
    size_t n = h.log.n_entries;
    for (size_t twice = 0; twice < n; twice++) {
        h.log.n_entries = n;
        h.entries[n] = h.entries[twice];
        h.entries[n].head = linnet_log_head(&h.entries[n - 1].head, &h.entries[n]);
        h.log.n_entries++;
        linnet_log_report report = verify(&h.log, NULL, NULL);
        if (report.n_findings == 0)
            fail_msg("entry %zu twice: nothing found", twice);
        linnet_log_report_release(&report);
    }
    history_end(&h);
}

/* ---- receipts ---- */

static void an_accepted_contribution_is_in_the_sum(void **state)
{
    (void)state;
    history h;
    history_begin(&h, LIE_NONE);
    history_play(&h);
    for (uint32_t i = 0; i < HISTORY_MEMBERS; i++) {
        history_receipts r;
        linnet_error err = {0};
        linnet_buffer bytes = {0};
        linnet_receipts read;
        history_receipts_begin(&h, i, &r);
        assert_ok(linnet_receipts_write(&r.receipts, &bytes, &err), &err);
        assert_ok(linnet_receipts_parse(bytes.bytes, bytes.n_bytes, &read, &err), &err);
        linnet_log_report report = verify(&h.log, &read, NULL);
        must_be_clean(&report);
        assert_int_equal(report.n_included, 1);
        linnet_log_report_release(&report);
        linnet_receipts_release(&read);
        linnet_buffer_release(&bytes);
        history_receipts_end(&r);
    }
    history_end(&h);
}

static void a_missing_contribution_is_found(void **state)
{
    (void)state;
    history h;
    history_receipts r;
    history_begin(&h, LIE_DROPPED_MEMBER);
    history_play(&h);
    history_receipts_begin(&h, 5, &r);
    r.record.t3 = (linnet_span){0}; /* it was never told of a set without it */
    linnet_log_report alone = verify(&h.log, NULL, NULL);
    must_be_clean(&alone);
    linnet_log_report report = verify(&h.log, &r.receipts, NULL);
    assert_true(has_flaw(&report, "missing from R"));
    assert_int_equal(report.n_included, 0);
    linnet_log_report_release(&alone);
    linnet_log_report_release(&report);
    history_receipts_end(&r);
    history_end(&h);
}

static void forged_receipts_prove_nothing(void **state)
{
    (void)state;
    static const struct {
        size_t span; /* 0 release .. 4 t3, 5 receipt, 6 last announcement */
        const char *flaw;
    } cases[] = {{0, "release is not signed"},    {1, "announcement is not signed"},
                 {2, "roster is not signed"},     {3, "sharers are not signed"},
                 {4, "survivors are not signed"}, {5, "receipt is not signed"},
                 {6, "last announcement"}};
    history h;
    history_begin(&h, LIE_NONE);
    history_play(&h);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        history_receipts r;
        uint8_t bytes[8192];
        history_receipts_begin(&h, 1, &r);
        linnet_span *const spans[] = {
            &r.record.release, &r.record.announcement,  &r.record.t1, &r.record.t2, &r.record.t3,
            &r.record.receipt, &r.receipts.announcement};
        linnet_span *span = spans[cases[i].span];
        assert_true(span->n_bytes <= sizeof(bytes));
        memcpy(bytes, span->bytes, span->n_bytes);
        bytes[span->n_bytes - 1] ^= 1;
        span->bytes = bytes;
        linnet_log_report report = verify(&h.log, &r.receipts, NULL);
        if (!has_flaw(&report, cases[i].flaw))
            fail_msg("not found: %s", cases[i].flaw);
        assert_int_equal(report.n_equivocations, 0);
        linnet_log_report_release(&report);
        history_receipts_end(&r);
    }
    history_end(&h);
}

/* ---- equivocation ---- */

static const struct {
    history_lie lie;
    uint8_t kind;
} forks[] = {{LIE_RELEASE, LINNET_SLOT_RELEASE},
             {LIE_FORK, LINNET_SLOT_ANNOUNCE},
             {LIE_ROSTER, LINNET_SLOT_ROSTER},
             {LIE_SHARERS, LINNET_SLOT_SHARERS},
             {LIE_SURVIVORS, LINNET_SLOT_SURVIVORS}};

/* Adverts are random, so that two plays of one history differ from the first roster on: give the second the
 * first one's messages up to where the lie begins. */
static void play_beside(history *h, const history *first)
{
    history_release(h, 0);
    history_announce(h, 1, 0, 1);
    assert_true(linnet_hash_equal(&h->round[1].a, &first->round[1].a));
    if (h->lie != LIE_ROSTER) {
        history_round *round = &h->round[1];
        memcpy(round->advert, first->round[1].advert, sizeof(round->advert));
        linnet_buffer_append(&round->m2, first->round[1].m2.bytes, first->round[1].m2.n_bytes);
        round->t1 = first->round[1].t1;
        history_add(h, LINNET_LOG_ROSTER, 1, &round->t1, &round->m2);
    } else {
        history_roster(h, 1);
    }
    history_sharers(h, 1);
    history_survivors(h, 1);
    history_close(h, 1);
    history_release(h, 1);
    history_announce(h, 2, 1, 2);
    if (h->lie >= LIE_ROSTER && h->lie <= LIE_SURVIVORS)
        h->log.n_entries--; /* its checkpoint would be a second proof */
    h->log.dp_rounds = 1;
    linnet_privacy privacy;
    linnet_rdp spent = {{0}};
    assert_int_equal(linnet_plan_privacy(&h->plan, &h->layout, 0, &privacy, NULL), LINNET_OK);
    linnet_privacy_spend(&privacy, 1, &spent);
    h->log.dp_epsilon = linnet_dp_epsilon(&spent, h->plan.dp_delta, NULL);
}

static void check_evidence(const linnet_log_report *report, const history *h, uint8_t kind)
{
    linnet_error err = {0};
    linnet_evidence evidence;
    assert_true(report->n_equivocations >= 1);
    assert_ok(linnet_evidence_check(report->evidence.bytes, report->evidence.n_bytes, &evidence, &err), &err);
    assert_int_equal(evidence.kind, kind);
    assert_memory_equal(&evidence.coordinator, &h->log.coordinator, sizeof(evidence.coordinator));
}

static void two_logs_prove_equivocation(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(forks); i++) {
        history h, other;
        history_begin(&h, LIE_NONE);
        history_play(&h);
        history_begin(&other, forks[i].lie);
        play_beside(&other, &h);
        linnet_log_report alone = verify(&other.log, NULL, NULL);
        must_be_clean(&alone);
        linnet_log_report report = verify(&h.log, NULL, &other.log);
        assert_true(has_flaw(&report, "the two logs part here"));
        check_evidence(&report, &h, forks[i].kind);
        linnet_log_report_release(&alone);
        linnet_log_report_release(&report);
        history_end(&h);
        history_end(&other);
    }
}

static void equal_logs_agree(void **state)
{
    (void)state;
    history h, other;
    history_begin(&h, LIE_NONE);
    history_play(&h);
    history_begin(&other, LIE_NONE);
    play_beside(&other, &h);
    linnet_log_report report = verify(&h.log, NULL, &other.log);
    must_be_clean(&report);
    linnet_log_report_release(&report);
    history_end(&h);
    history_end(&other);
}

static void receipts_prove_equivocation(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(forks); i++) {
        history h, other;
        history_receipts r;
        history_begin(&h, LIE_NONE);
        history_play(&h);
        history_begin(&other, forks[i].lie);
        play_beside(&other, &h);
        history_receipts_begin(&other, 2, &r);
        const history_round *last = &other.round[2];
        r.receipts.announcement = (linnet_span){last->announcement.bytes, last->announcement.n_bytes};
        if (forks[i].kind >= LINNET_SLOT_ROSTER)
            r.receipts.announcement = (linnet_span){0}; /* its checkpoint would be a second proof */
        r.record.release = (linnet_span){other.release[1].bytes, other.release[1].n_bytes};
        linnet_log_report report = verify(&h.log, &r.receipts, NULL);
        assert_true(report.n_findings >= 1);
        check_evidence(&report, &h, forks[i].kind);
        linnet_log_report_release(&report);
        history_receipts_end(&r);
        history_end(&h);
        history_end(&other);
    }
}

static void evidence_that_is_none_is_refused(void **state)
{
    (void)state;
    history h, other;
    linnet_error err = {0};
    linnet_evidence evidence;
    history_begin(&h, LIE_NONE);
    history_play(&h);
    history_begin(&other, LIE_FORK);
    play_beside(&other, &h);
    const linnet_span one = {h.round[2].announcement.bytes, h.round[2].announcement.n_bytes},
                      two = {other.round[2].announcement.bytes, other.round[2].announcement.n_bytes},
                      three = {h.round[3].announcement.bytes, h.round[3].announcement.n_bytes};
    const struct {
        linnet_evidence evidence;
        linnet_status want;
    } cases[] = {
        {{h.log.coordinator, LINNET_SLOT_ANNOUNCE, one, two}, LINNET_OK},
        {{h.log.coordinator, LINNET_SLOT_ANNOUNCE, one, one}, LINNET_ERR_MISMATCH},
        {{h.log.coordinator, LINNET_SLOT_ANNOUNCE, one, three}, LINNET_ERR_MISMATCH},
        {{h.log.authority, LINNET_SLOT_ANNOUNCE, one, two}, LINNET_ERR_CRYPTO},
        {{h.log.coordinator, LINNET_SLOT_RELEASE, one, two}, LINNET_ERR_CRYPTO}, /* property 23 */
        {{h.log.coordinator, LINNET_SLOT_ROSTER, one, two}, LINNET_ERR_CRYPTO},
        {{h.log.coordinator, 9, one, two}, LINNET_ERR_FORMAT},
        {{h.log.coordinator, LINNET_SLOT_ANNOUNCE, one, {0}}, LINNET_ERR_FORMAT},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_buffer bytes = {0};
        assert_ok(linnet_evidence_write(&cases[i].evidence, &bytes, &err), &err);
        linnet_status got = linnet_evidence_check(bytes.bytes, bytes.n_bytes, &evidence, NULL);
        if (got != cases[i].want)
            fail_msg("case %zu: got %s", i, linnet_status_name(got));
        for (size_t n = 0; i == 0 && n < bytes.n_bytes; n++) {
            assert_int_not_equal(linnet_evidence_check(bytes.bytes, n, &evidence, NULL), LINNET_OK);
            bytes.bytes[n] ^= 0x10;
            assert_int_not_equal(linnet_evidence_check(bytes.bytes, bytes.n_bytes, &evidence, NULL),
                                 LINNET_OK);
            bytes.bytes[n] ^= 0x10;
        }
        linnet_buffer_release(&bytes);
    }
    history_end(&h);
    history_end(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_honest_log_is_clean_and_adds_up),
        cmocka_unit_test(every_lie_is_named),
        cmocka_unit_test(every_flipped_bit_is_found),
        cmocka_unit_test(a_cut_file_is_refused_and_a_cut_log_is_found),
        cmocka_unit_test(a_dropped_or_moved_entry_is_found),
        cmocka_unit_test(a_second_entry_of_a_kind_is_found),
        cmocka_unit_test(an_accepted_contribution_is_in_the_sum),
        cmocka_unit_test(a_missing_contribution_is_found),
        cmocka_unit_test(forged_receipts_prove_nothing),
        cmocka_unit_test(two_logs_prove_equivocation),
        cmocka_unit_test(equal_logs_agree),
        cmocka_unit_test(receipts_prove_equivocation),
        cmocka_unit_test(evidence_that_is_none_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
