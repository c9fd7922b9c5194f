/* SPDX-License-Identifier: Apache-2.0 */

/* The coordinator of linnet-sa1 against devices that lie (SECURE-AGGREGATION 2.4, 6.2): a false message
 * counts nothing, and wrong shares give the right sum or none. */

#include "crypto/secagg_server.h"
#include "forger.h"
#include "testing.h"

/* A cohort whose devices have gone through a whole round, and a coordinator that takes what they made. */
typedef struct served {
    forger f;
    forger_set u2, u3;
    linnet_secagg_server *server;
} served;

typedef enum kind { ADVERT, SHARES, MASKED, ATTESTATION, UNMASKING, KINDS } kind;

static const uint8_t *message_of(const served *s, kind k, uint32_t i, size_t *ret_n)
{
    const linnet_secagg_device *d = s->f.m[i].device;
    if (k == ADVERT)
        *ret_n = LINNET_ADVERT_BYTES;
    return k == ADVERT        ? d->advert
           : k == SHARES      ? linnet_secagg_device_shares(d, ret_n)
           : k == ATTESTATION ? linnet_secagg_device_attestation(d, ret_n)
                              : linnet_secagg_device_unmask(d, ret_n);
}

static size_t copy_message(const served *s, kind k, uint32_t i, uint8_t *bytes)
{
    size_t n_bytes;
    const uint8_t *m = message_of(s, k, i, &n_bytes);
    memcpy(bytes, m, n_bytes);
    return n_bytes;
}

static linnet_status give(served *s, kind k, const void *bytes, size_t n_bytes, bool commit)
{
    return k == ADVERT   ? linnet_secagg_server_advert(s->server, &s->f.trust, bytes, n_bytes, commit, NULL)
           : k == SHARES ? linnet_secagg_server_shares(s->server, bytes, n_bytes, commit, NULL)
           : k == ATTESTATION ? linnet_secagg_server_attestation(s->server, bytes, n_bytes, commit, NULL)
                              : linnet_secagg_server_unmasking(s->server, bytes, n_bytes, commit, NULL);
}

static linnet_status give_own(served *s, kind k, uint32_t i, bool commit)
{
    size_t n_bytes;
    linnet_device_id id = forger_id(&s->f, i);
    if (k == MASKED)
        return linnet_secagg_server_masked(s->server, &id, &s->f.m[i].echo, &s->f.m[i].header, commit, NULL);
    const uint8_t *bytes = message_of(s, k, i, &n_bytes);
    return give(s, k, bytes, n_bytes, commit);
}

static linnet_status close_phase(served *s, kind k)
{
    return k == ADVERT   ? linnet_secagg_server_close_roster(s->server, NULL)
           : k == SHARES ? linnet_secagg_server_close_sharers(s->server, NULL)
           : k == MASKED ? linnet_secagg_server_freeze(s->server, NULL)
                         : LINNET_OK;
}

static bool is_due(const served *s, kind k, uint32_t i)
{
    return k == ADVERT || linnet_bitmap_has(k == SHARES ? s->u2.bits : s->u3.bits, i);
}

/* A new coordinator that has taken everything before kind `until`; `from_behind`: the last member first. */
static void serve(served *s, kind until, bool from_behind)
{
    linnet_secagg_server_destroy(s->server);
    s->server = NULL;
    assert_int_equal(linnet_secagg_server_create(&s->f.params, s->f.coordinator, &s->server, NULL),
                     LINNET_OK);
    for (int k = 0; k < (int)until; k++) {
        for (uint32_t j = 0; j < s->f.n; j++) {
            uint32_t i = from_behind ? s->f.n - 1 - j : j;
            if (!is_due(s, (kind)k, i))
                continue;
            assert_int_equal(give_own(s, (kind)k, i, false), LINNET_OK);
            assert_int_equal(give_own(s, (kind)k, i, true), LINNET_OK);
        }
        assert_int_equal(close_phase(s, (kind)k), LINNET_OK);
    }
}

static void start_with(served *s, uint32_t n, forger_set u2, forger_set u3)
{
    *s = (served){.u2 = u2, .u3 = u3};
    forger_init(&s->f, n, 0);
    forger_advertise(&s->f);
    forger_play(&s->f, LINNET_SECAGG_RELEASED, u2, u3);
}

/* Seven members, of which one shares nothing and one never uploads. */
static void start(served *s)
{
    forger_set u2 = forger_without(forger_all(7), 6);
    start_with(s, 7, u2, forger_without(u2, 2));
}

static void stop(served *s)
{
    linnet_secagg_server_destroy(s->server);
    forger_release(&s->f);
}

static bool counts_are(const served *s, const linnet_secagg_server_counts *want)
{
    linnet_secagg_server_counts got = linnet_secagg_server_count(s->server);
    return memcmp(&got, want, sizeof(got)) == 0;
}

static linnet_hash fixed(const linnet_hash *t)
{
    static const linnet_hash none;
    return t ? *t : none;
}

/* ---- order and repetition ---- */

static void a_check_changes_nothing(void **state)
{
    (void)state;
    served s;
    start(&s);
    for (int k = ADVERT; k < KINDS; k++) {
        serve(&s, (kind)k, false);
        linnet_secagg_server_counts before = linnet_secagg_server_count(s.server);
        for (int times = 0; times < 3; times++)
            for (uint32_t i = 0; i < 6; i++)
                if (is_due(&s, (kind)k, i))
                    assert_int_equal(give_own(&s, (kind)k, i, false), LINNET_OK);
        assert_true(counts_are(&s, &before));
        assert_false(linnet_secagg_server_can_open(s.server));
        assert_int_equal(linnet_secagg_server_open(s.server, NULL, NULL), LINNET_ERR_AGAIN);
    }
    stop(&s);
}

static void the_same_message_again_exists(void **state)
{
    (void)state;
    served s;
    start(&s);
    for (int k = ADVERT; k < KINDS; k++) {
        serve(&s, KINDS, false); /* and even when the phase is long over */
        linnet_secagg_server_counts before = linnet_secagg_server_count(s.server);
        for (uint32_t i = 0; i < 6; i++)
            if (is_due(&s, (kind)k, i))
                assert_int_equal(give_own(&s, (kind)k, i, true), LINNET_ERR_EXISTS);
        assert_true(counts_are(&s, &before));
    }
    stop(&s);
}

static void a_message_out_of_its_time_is_refused(void **state)
{
    (void)state;
    served s;
    start(&s);
    for (int until = ADVERT; until < KINDS; until++)
        for (int k = SHARES; k < KINDS; k++) {
            bool is_frozen = until >= ATTESTATION;
            if (k <= until || (is_frozen && k >= ATTESTATION))
                continue;
            serve(&s, (kind)until, false);
            linnet_secagg_server_counts before = linnet_secagg_server_count(s.server);
            assert_int_equal(give_own(&s, (kind)k, 0, true), LINNET_ERR_ARG);
            assert_true(counts_are(&s, &before));
        }
    stop(&s);
}

/* Members 6 (did not share) and 2 (did not upload) come late. */
static void who_comes_late_is_not_counted(void **state)
{
    (void)state;
    served s;
    start(&s);
    serve(&s, MASKED, false);
    linnet_hash t2 = *linnet_secagg_server_t2(s.server);
    assert_int_equal(give_own(&s, SHARES, 6, true), LINNET_ERR_ARG);
    assert_int_equal(give_own(&s, MASKED, 6, true), LINNET_ERR_DENIED);
    serve(&s, ATTESTATION, false);
    linnet_hash t3 = *linnet_secagg_server_t3(s.server);
    assert_int_equal(give_own(&s, MASKED, 2, true), LINNET_ERR_ARG);
    assert_false(linnet_secagg_server_is_survivor(s.server, 2));
    assert_memory_equal(linnet_secagg_server_t2(s.server), &t2, sizeof(t2));
    assert_memory_equal(linnet_secagg_server_t3(s.server), &t3, sizeof(t3));
    stop(&s);
}

static void too_few_is_range(void **state)
{
    (void)state;
    served s;
    start(&s);
    for (int k = ADVERT; k <= MASKED; k++)
        for (uint32_t count = 0; count < 5; count++) {
            serve(&s, (kind)k, false);
            for (uint32_t i = 0, n = 0; n < count; i++)
                if (is_due(&s, (kind)k, i)) {
                    assert_int_equal(give_own(&s, (kind)k, i, true), LINNET_OK);
                    n++;
                }
            assert_int_equal(close_phase(&s, (kind)k), LINNET_ERR_RANGE);
            assert_int_equal(close_phase(&s, (kind)k), LINNET_ERR_RANGE); /* and may be asked again */
        }
    stop(&s);
}

static void a_full_cohort_takes_nobody_more(void **state)
{
    (void)state;
    served s;
    start(&s);
    s.f.params.n_max = 6;
    serve(&s, ADVERT, false);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(give_own(&s, ADVERT, i, true), LINNET_OK);
    assert_int_equal(give_own(&s, ADVERT, 6, true), LINNET_ERR_LIMIT);
    assert_int_equal(linnet_secagg_server_members(s.server), 6);
    stop(&s);
}

/* ---- malformed, forged, replayed ---- */

static void every_cut_and_every_flip_of_a_message_is_refused(void **state)
{
    (void)state;
    served s;
    start(&s);
    for (int k = ADVERT; k < KINDS; k++) {
        uint8_t bytes[2048];
        size_t n_bytes;
        if (k == MASKED)
            continue; /* no bytes: the caller has checked header and hash */
        serve(&s, (kind)k, false);
        linnet_secagg_server_counts before = linnet_secagg_server_count(s.server);
        const uint8_t *m = message_of(&s, (kind)k, 0, &n_bytes);
        assert_true(n_bytes < sizeof(bytes));
        memcpy(bytes, m, n_bytes);
        for (size_t i = 0; i < n_bytes; i++) {
            assert_int_equal(give(&s, (kind)k, bytes, i, true), LINNET_ERR_FORMAT);
            bytes[i] ^= (uint8_t)(1u << i % 8);
            linnet_status status = give(&s, (kind)k, bytes, n_bytes, true);
            if (status == LINNET_OK || status == LINNET_ERR_EXISTS)
                fail_msg("kind %d flipped at byte %zu: %s", k, i, linnet_status_name(status));
            bytes[i] ^= (uint8_t)(1u << i % 8);
        }
        bytes[n_bytes] = 0;
        assert_int_equal(give(&s, (kind)k, bytes, n_bytes + 1, true), LINNET_ERR_FORMAT);
        assert_true(counts_are(&s, &before));
        assert_int_equal(give(&s, (kind)k, bytes, n_bytes, true), LINNET_OK);
    }
    stop(&s);
}

/* The body that the device signs, and under which label. */
typedef struct signed_form {
    linnet_label label;
    size_t from_end; /* bytes from the signature to the end */
    bool chain_only; /* M7: the signature is over T3 alone */
} signed_form;

static const signed_form forms[KINDS] = {
    [ADVERT] = {LINNET_LABEL_ADVERT, 64 + LINNET_SIGNED_CERTIFICATE_BYTES, false},
    [SHARES] = {LINNET_LABEL_SHARE, 64, false},
    [ATTESTATION] = {LINNET_LABEL_ATTEST, 64, true},
    [UNMASKING] = {LINNET_LABEL_UNMASK, 64, false},
};

static void sign_as(kind k, const linnet_identity *who, linnet_label label, uint8_t *bytes, size_t n_bytes)
{
    size_t n_body = n_bytes - forms[k].from_end;
    linnet_signature s = linnet_sign(who, label, bytes, forms[k].chain_only ? LINNET_HASH_BYTES : n_body);
    memcpy(bytes + n_body, s.bytes, sizeof(s.bytes));
}

/* Property 23, the devices' part; and the right label with another member's key. */
static void a_message_signed_under_another_label_or_key_is_refused(void **state)
{
    (void)state;
    served s;
    start(&s);
    for (int k = ADVERT; k < KINDS; k++) {
        uint8_t bytes[2048];
        size_t n_bytes;
        if (k == MASKED)
            continue;
        serve(&s, (kind)k, false);
        linnet_secagg_server_counts before = linnet_secagg_server_count(s.server);
        n_bytes = copy_message(&s, (kind)k, 0, bytes);
        for (int label = 0; label < LINNET_LABELS; label++) {
            if ((linnet_label)label == forms[k].label)
                continue;
            sign_as((kind)k, s.f.m[0].identity, (linnet_label)label, bytes, n_bytes);
            assert_int_equal(give(&s, (kind)k, bytes, n_bytes, true), LINNET_ERR_CRYPTO);
        }
        sign_as((kind)k, s.f.m[1].identity, forms[k].label, bytes, n_bytes);
        assert_int_equal(give(&s, (kind)k, bytes, n_bytes, true), LINNET_ERR_CRYPTO);
        assert_true(counts_are(&s, &before));
        sign_as((kind)k, s.f.m[0].identity, forms[k].label, bytes, n_bytes);
        assert_int_equal(give(&s, (kind)k, bytes, n_bytes, true), LINNET_OK);
    }
    stop(&s);
}

/* Property 11: the same members in another round. */
static void a_message_of_another_round_is_refused(void **state)
{
    (void)state;
    served s, other = {0};
    start(&s);
    other.u2 = s.u2;
    other.u3 = s.u3;
    forger_init(&other.f, 7, 1);
    forger_advertise(&other.f);
    forger_play(&other.f, LINNET_SECAGG_RELEASED, s.u2, s.u3);
    for (int k = ADVERT; k < KINDS; k++) {
        size_t n_bytes;
        if (k == MASKED)
            continue;
        serve(&s, (kind)k, false);
        linnet_secagg_server_counts before = linnet_secagg_server_count(s.server);
        const uint8_t *m = message_of(&other, (kind)k, 0, &n_bytes);
        assert_int_equal(give(&s, (kind)k, m, n_bytes, true), LINNET_ERR_MISMATCH);
        assert_true(counts_are(&s, &before));
    }
    stop(&s);
    stop(&other);
}

/* Other bytes, well signed: evidence against the device, and the first ones stay. */
static void a_second_and_different_message_is_a_conflict(void **state)
{
    (void)state;
    served s;
    start(&s);
    for (int k = ADVERT; k < KINDS; k++) {
        uint8_t bytes[2048];
        size_t n_bytes;
        linnet_device_id id = forger_id(&s.f, 0);
        if (k == ATTESTATION)
            continue; /* a second one over the same T3 says the same */
        serve(&s, (kind)k, false);
        assert_int_equal(give_own(&s, (kind)k, 0, true), LINNET_OK);
        linnet_secagg_server_counts before = linnet_secagg_server_count(s.server);
        if (k == MASKED) {
            linnet_hash echo = s.f.m[0].echo;
            echo.bytes[0] ^= 1;
            assert_int_equal(linnet_secagg_server_masked(s.server, &id, &echo, &s.f.m[0].header, true, NULL),
                             LINNET_ERR_CONFLICT);
        } else {
            n_bytes = copy_message(&s, (kind)k, 0, bytes);
            bytes[n_bytes - forms[k].from_end - 40] ^= 1;
            sign_as((kind)k, s.f.m[0].identity, forms[k].label, bytes, n_bytes);
            assert_int_equal(give(&s, (kind)k, bytes, n_bytes, true), LINNET_ERR_CONFLICT);
        }
        assert_true(counts_are(&s, &before));
        assert_int_equal(give_own(&s, (kind)k, 0, true), LINNET_ERR_EXISTS);
    }
    stop(&s);
}

static void strangers_are_refused(void **state)
{
    (void)state;
    served s;
    start(&s);
    linnet_identity *stranger = forger_identity(9, 9);
    linnet_device_id id = linnet_device_id_of(linnet_identity_public_key(stranger));
    for (int k = SHARES; k < KINDS; k++) {
        uint8_t bytes[2048];
        size_t n_bytes;
        serve(&s, (kind)k, false);
        linnet_secagg_server_counts before = linnet_secagg_server_count(s.server);
        if (k == MASKED) {
            assert_int_equal(
                linnet_secagg_server_masked(s.server, &id, &s.f.m[0].echo, &s.f.m[0].header, true, NULL),
                LINNET_ERR_DENIED);
            continue;
        }
        n_bytes = copy_message(&s, (kind)k, 0, bytes);
        memcpy(bytes + LINNET_HASH_BYTES, id.bytes, sizeof(id.bytes));
        sign_as((kind)k, stranger, forms[k].label, bytes, n_bytes);
        assert_int_equal(give(&s, (kind)k, bytes, n_bytes, true), LINNET_ERR_DENIED);
        id = forger_id(&s.f, 2); /* a member, but no survivor */
        memcpy(bytes + LINNET_HASH_BYTES, id.bytes, sizeof(id.bytes));
        sign_as((kind)k, s.f.m[2].identity, forms[k].label, bytes, n_bytes);
        if (k >= ATTESTATION)
            assert_int_equal(give(&s, (kind)k, bytes, n_bytes, true), LINNET_ERR_DENIED);
        id = linnet_device_id_of(linnet_identity_public_key(stranger));
        assert_true(counts_are(&s, &before));
    }
    linnet_identity_destroy(stranger);
    stop(&s);
}

/* Property 28 at the coordinator: a key that is taken, in either place. */
static void an_advert_with_a_key_of_another_is_refused(void **state)
{
    (void)state;
    static const size_t places[] = {ADVERT_PK_X, ADVERT_PK_E};
    served s;
    start(&s);
    for (size_t from = 0; from < 2; from++)
        for (size_t to = 0; to < 2; to++) {
            uint8_t bytes[LINNET_ADVERT_BYTES];
            serve(&s, ADVERT, false);
            assert_int_equal(give_own(&s, ADVERT, 0, true), LINNET_OK);
            memcpy(bytes, s.f.m[1].device->advert, sizeof(bytes));
            memcpy(bytes + places[to], s.f.m[0].device->advert + places[from], 32);
            sign_as(ADVERT, s.f.m[1].identity, LINNET_LABEL_ADVERT, bytes, sizeof(bytes));
            assert_int_equal(give(&s, ADVERT, bytes, sizeof(bytes), true), LINNET_ERR_CRYPTO);
            bytes[places[to] + 31] |= 0x80; /* the same key for X25519 */
            sign_as(ADVERT, s.f.m[1].identity, LINNET_LABEL_ADVERT, bytes, sizeof(bytes));
            assert_int_equal(give(&s, ADVERT, bytes, sizeof(bytes), true), LINNET_ERR_CRYPTO);
            memset(bytes + places[to], 0, 32);
            sign_as(ADVERT, s.f.m[1].identity, LINNET_LABEL_ADVERT, bytes, sizeof(bytes));
            assert_int_equal(give(&s, ADVERT, bytes, sizeof(bytes), true), LINNET_ERR_CRYPTO);
            assert_int_equal(linnet_secagg_server_members(s.server), 1);
        }
    stop(&s);
}

/* ---- M9: property 12. x = 0 and a second x cannot be said: the point of a share is its place ---- */

static uint8_t *entry_at(uint8_t *m9, uint32_t slot)
{
    return m9 + MESSAGE_HEAD_BYTES + (size_t)slot * UNMASK_ENTRY_BYTES;
}

static void a_share_that_is_not_due_is_refused(void **state)
{
    (void)state;
    static const char *const no_scalars[] = {
        "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010", /* L */
        "0000000000000000000000000000000000000000000000000000000000000080", /* 2^255 */
        "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    };
    served s;
    uint8_t m9[2048], bytes[2048];
    size_t n_bytes;
    start(&s);
    serve(&s, UNMASKING, false);
    linnet_secagg_server_counts before = linnet_secagg_server_count(s.server);
    n_bytes = copy_message(&s, UNMASKING, 0, m9);
    for (uint32_t slot = 0; slot < 5; slot++)
        for (int kind_byte = 0; kind_byte < 256; kind_byte++) {
            uint8_t due = entry_at(m9, slot)[0];
            if (kind_byte == due)
                continue;
            memcpy(bytes, m9, n_bytes);
            entry_at(bytes, slot)[0] = (uint8_t)kind_byte; /* missing: with a share behind it */
            sign_as(UNMASKING, s.f.m[0].identity, LINNET_LABEL_UNMASK, bytes, n_bytes);
            assert_int_equal(give(&s, UNMASKING, bytes, n_bytes, true),
                             kind_byte == UNMASK_MISSING ? LINNET_ERR_FORMAT : LINNET_ERR_DENIED);
        }
    for (size_t i = 0; i < ARRAY_LEN(no_scalars); i++) {
        memcpy(bytes, m9, n_bytes);
        assert_int_equal(linnet_hex_read(no_scalars[i], entry_at(bytes, 1) + 1, 32), LINNET_OK);
        sign_as(UNMASKING, s.f.m[0].identity, LINNET_LABEL_UNMASK, bytes, n_bytes);
        assert_int_equal(give(&s, UNMASKING, bytes, n_bytes, true), LINNET_ERR_CRYPTO);
    }
    assert_true(counts_are(&s, &before));
    for (int change = -1; change <= 1; change += 2) { /* an entry fewer, an entry more */
        memcpy(bytes, m9, n_bytes);
        size_t n = change < 0 ? n_bytes - UNMASK_ENTRY_BYTES : n_bytes + UNMASK_ENTRY_BYTES;
        memset(bytes + n_bytes - 64, 0, UNMASK_ENTRY_BYTES + 64);
        sign_as(UNMASKING, s.f.m[0].identity, LINNET_LABEL_UNMASK, bytes, n);
        assert_int_equal(give(&s, UNMASKING, bytes, n, true), LINNET_ERR_FORMAT);
    }
    memcpy(bytes, m9, n_bytes);
    memset(entry_at(bytes, 1), 0, UNMASK_ENTRY_BYTES); /* honestly missing */
    sign_as(UNMASKING, s.f.m[0].identity, LINNET_LABEL_UNMASK, bytes, n_bytes);
    assert_int_equal(give(&s, UNMASKING, bytes, n_bytes, true), LINNET_OK);
    stop(&s);
}

/* ---- opening ---- */

/* Give in all unmaskings; where spoils[holder][owner], the share is another scalar. */
static void give_unmaskings(served *s, bool spoils[FORGER_MAX][FORGER_MAX])
{
    for (uint32_t i = 0; i < s->f.n; i++) {
        uint8_t bytes[2048];
        size_t n_bytes;
        if (!is_due(s, UNMASKING, i))
            continue;
        n_bytes = copy_message(s, UNMASKING, i, bytes);
        for (uint32_t owner = 0, slot = 0; owner < s->f.n; owner++) {
            if (owner == i || !linnet_bitmap_has(s->u2.bits, owner))
                continue;
            linnet_scalar share;
            linnet_scalar_draw(linnet_system_random, NULL, &share);
            if (spoils[i][owner])
                memcpy(entry_at(bytes, slot) + 1, share.bytes, sizeof(share.bytes));
            slot++;
        }
        sign_as(UNMASKING, s->f.m[i].identity, LINNET_LABEL_UNMASK, bytes, n_bytes);
        assert_int_equal(give(s, UNMASKING, bytes, n_bytes, true), LINNET_OK);
    }
}

/* n = 10, C = 1, t = 6: nine hold shares of each survivor, so that three may lie. */
static void start_ten(served *s)
{
    start_with(s, 10, forger_all(10), forger_all(10));
    assert_int_equal(s->f.thresholds.shares, 6);
    serve(s, UNMASKING, false);
}

static void liars_up_to_holders_less_t_are_survived_and_named(void **state)
{
    (void)state;
    for (uint32_t n_liars = 0; n_liars <= 4; n_liars++)
        for (uint32_t first = 0; first + n_liars <= 10; first += 3) {
            served s;
            bool spoils[FORGER_MAX][FORGER_MAX] = {{false}};
            uint32_t n_wrong = 99;
            linnet_error err = {0};
            start_ten(&s);
            for (uint32_t i = first; i < first + n_liars; i++)
                for (uint32_t owner = 0; owner < 10; owner++)
                    spoils[i][owner] = true;
            give_unmaskings(&s, spoils);
            linnet_status status = linnet_secagg_server_open(s.server, &n_wrong, &err);
            if (n_liars <= 3) {
                assert_int_equal(status, LINNET_OK);
                assert_int_equal(s.server->phase, LINNET_SERVER_OPENED);
                for (uint32_t i = 0; i < 10; i++)
                    if (s.server->members[i].is_wrong)
                        assert_true(i >= first && i < first + n_liars);
                if (n_liars > 0 && first == 0) /* they stand in front: all are met */
                    assert_int_equal(n_wrong, n_liars);
            } else {
                uint32_t sum[FORGER_COORDINATES] = {0};
                assert_int_equal(status, LINNET_ERR_CRYPTO);
                assert_int_equal(s.server->phase, LINNET_SERVER_FROZEN);
                assert_int_equal(linnet_secagg_server_unmask(s.server, 0, 0, FORGER_COORDINATES, sum, NULL),
                                 LINNET_ERR_ARG);
            }
            stop(&s);
        }
}

/* Two dealers gave three holders each shares of another polynomial: six honest holders look wrong, of ten. */
static void a_dealer_of_two_polynomials_cannot_void_a_round(void **state)
{
    (void)state;
    served s;
    bool spoils[FORGER_MAX][FORGER_MAX] = {{false}};
    start_ten(&s);
    for (uint32_t i = 1; i <= 3; i++)
        spoils[i][0] = spoils[i + 3][9] = true;
    give_unmaskings(&s, spoils);
    assert_int_equal(linnet_secagg_server_open(s.server, NULL, NULL), LINNET_OK);
    stop(&s);
}

/* Three liars of nine holders who know five honest shares of member 9: eight shares are those of a polynomial
 * of theirs, and it is found first; but its constant, 120 less than the secret, is not what was committed. */
static void liars_who_agree_on_a_polynomial_are_found_out(void **state)
{
    (void)state;
    static const linnet_scalar ones[2] = {{{1}}, {{1}}};
    served s;
    bool spoils[FORGER_MAX][FORGER_MAX] = {{false}};
    uint32_t n_wrong = 99;
    start_ten(&s);
    give_unmaskings(&s, spoils);
    for (uint32_t i = 6; i <= 8; i++) {
        uint32_t difference = 1;
        for (uint32_t k = 0; k < 5; k++) /* (x - 1)(x - 2)...(x - 5) */
            difference *= i - k;
        uint8_t *share = s.server->members[i].unmask + 8 * UNMASK_ENTRY_BYTES + 1;
        assert_ptr_equal(share, linnet_server_entry(s.server, i, 9) + 1);
        linnet_scalar pair[2] = {{{0}}, {{0}}};
        memcpy(pair[0].bytes, share, LINNET_SCALAR_BYTES);
        linnet_store_le32(pair[1].bytes, difference);
        assert_int_equal(linnet_shamir_combine(ones, pair, 2, &pair[0]), LINNET_OK);
        memcpy(share, pair[0].bytes, LINNET_SCALAR_BYTES);
    }
    assert_int_equal(linnet_secagg_server_open(s.server, &n_wrong, NULL), LINNET_OK);
    assert_int_equal(n_wrong, 3);
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(s.server->members[i].is_wrong, i >= 6 && i <= 8);
    stop(&s);
}

/* The masks that the opened server takes off are those that the devices put on. */
static void an_opened_sum_is_that_of_the_survivors(void **state)
{
    (void)state;
    for (uint32_t n_liars = 0; n_liars <= 3; n_liars++) {
        served s = {.u2 = forger_all(10), .u3 = forger_without(forger_all(10), 4)};
        bool spoils[FORGER_MAX][FORGER_MAX] = {{false}};
        uint32_t sum[FORGER_COORDINATES] = {0}, want = 0;
        linnet_buffer b = {0};
        forger_init(&s.f, 10, 0);
        forger_advertise(&s.f);
        forger_play(&s.f, LINNET_SECAGG_MASKING, s.u2, (forger_set){{0}});
        for (uint32_t i = 0; i < 10; i++) {
            uint8_t y[3 * FORGER_COORDINATES];
            if (!linnet_bitmap_has(s.u3.bits, i))
                continue;
            forger_mask(&s.f, i, y);
            linnet_pack_add(24, y, FORGER_COORDINATES, sum);
            want += i;
        }
        for (uint32_t i = 0; i < 10; i++)
            for (int from = LINNET_SECAGG_MASKING; from < LINNET_SECAGG_RELEASED; from++)
                forger_step(&s.f, i, (linnet_secagg_phase)from, s.u2, s.u3, &b);
        serve(&s, UNMASKING, false);
        for (uint32_t i = 0; i < n_liars; i++) /* 9 survive, 8 hold each of them, so that two may lie */
            for (uint32_t owner = 0; owner < 10; owner++)
                spoils[i][owner] = true;
        give_unmaskings(&s, spoils);
        linnet_status status = linnet_secagg_server_open(s.server, NULL, NULL);
        assert_int_equal(status, n_liars <= 2 ? LINNET_OK : LINNET_ERR_CRYPTO);
        if (status == LINNET_OK) {
            assert_int_equal(linnet_secagg_server_unmask(s.server, 0, 0, FORGER_COORDINATES, sum, NULL),
                             LINNET_OK);
            for (size_t k = 0; k < FORGER_COORDINATES; k++)
                assert_int_equal(sum[k] & 0xffffff, want);
        }
        linnet_buffer_release(&b);
        stop(&s);
    }
}

static void below_t_unmaskings_nothing_opens(void **state)
{
    (void)state;
    served s;
    start_ten(&s);
    for (uint32_t i = 0; i < 7; i++) { /* t + 1: those who unmask are owners too */
        assert_false(linnet_secagg_server_can_open(s.server));
        assert_int_equal(linnet_secagg_server_open(s.server, NULL, NULL), LINNET_ERR_AGAIN);
        assert_int_equal(give_own(&s, UNMASKING, i, true), LINNET_OK);
    }
    assert_true(linnet_secagg_server_can_open(s.server));
    assert_int_equal(linnet_secagg_server_open(s.server, NULL, NULL), LINNET_OK);
    stop(&s);
}

/* ---- rebuilding ---- */

static void a_rebuilt_coordinator_says_the_same(void **state)
{
    (void)state;
    served s;
    start(&s);
    for (int until = SHARES; until <= KINDS; until++) {
        linnet_hash first[3], second[3];
        linnet_buffer m2[2] = {{0}}, m8[2] = {{0}};
        for (int times = 0; times < 2; times++) {
            serve(&s, (kind)until, times == 1); /* within a phase the order of arrival does not matter */
            linnet_hash *t = times ? second : first;
            t[0] = fixed(linnet_secagg_server_t1(s.server));
            t[1] = fixed(linnet_secagg_server_t2(s.server));
            t[2] = fixed(linnet_secagg_server_t3(s.server));
            assert_int_equal(linnet_secagg_server_make_roster(s.server, &m2[times], NULL), LINNET_OK);
            if (until > ATTESTATION)
                assert_int_equal(linnet_secagg_server_make_certificate(s.server, &m8[times], NULL),
                                 LINNET_OK);
        }
        assert_memory_equal(first, second, sizeof(first));
        assert_int_equal(m2[0].n_bytes, m2[1].n_bytes);
        assert_memory_equal(m2[0].bytes, m2[1].bytes, m2[0].n_bytes);
        for (int times = 0; times < 2 && until == KINDS; times++) /* for a device that waits still */
            assert_int_equal(linnet_secagg_device_take_certificate(s.f.m[2].device, m8[times].bytes,
                                                                   m8[times].n_bytes, NULL),
                             times == 0 ? LINNET_OK : LINNET_ERR_ARG);
        for (int times = 0; times < 2; times++) {
            linnet_buffer_release(&m2[times]);
            linnet_buffer_release(&m8[times]);
        }
    }
    assert_int_equal(s.f.m[2].device->phase, LINNET_SECAGG_EXCLUDED);
    stop(&s);
}

static void two_certificates_of_one_set_are_both_good(void **state)
{
    (void)state;
    for (int from_behind = 0; from_behind < 2; from_behind++) {
        served s = {.u2 = forger_all(7), .u3 = forger_all(7)};
        linnet_buffer m8 = {0}, again = {0};
        forger_init(&s.f, 7, 0);
        forger_advertise(&s.f);
        forger_play(&s.f, LINNET_SECAGG_ATTESTED, s.u2, s.u3);
        serve(&s, UNMASKING, from_behind);
        assert_int_equal(linnet_secagg_server_make_certificate(s.server, &m8, NULL), LINNET_OK);
        assert_int_equal(linnet_secagg_server_make_certificate(s.server, &again, NULL), LINNET_OK);
        assert_int_equal(m8.n_bytes, again.n_bytes);
        assert_memory_equal(m8.bytes, again.bytes, m8.n_bytes);
        for (uint32_t i = 0; i < 7; i++)
            assert_int_equal(
                linnet_secagg_device_take_certificate(s.f.m[i].device, m8.bytes, m8.n_bytes, NULL),
                LINNET_OK);
        linnet_buffer_release(&m8);
        linnet_buffer_release(&again);
        stop(&s);
    }
}

static void below_q_attestations_there_is_no_certificate(void **state)
{
    (void)state;
    served s;
    start(&s);
    serve(&s, ATTESTATION, false);
    for (uint32_t i = 0, n = 0; i < 7; i++) {
        linnet_buffer m8 = {0};
        if (!is_due(&s, ATTESTATION, i))
            continue;
        assert_int_equal(linnet_secagg_server_make_certificate(s.server, &m8, NULL), LINNET_ERR_NOT_FOUND);
        assert_int_equal(m8.n_bytes, 0);
        assert_int_equal(give_own(&s, ATTESTATION, i, true), LINNET_OK);
        if (++n < s.f.thresholds.signatures)
            continue;
        assert_int_equal(linnet_secagg_server_make_certificate(s.server, &m8, NULL), LINNET_OK);
        linnet_buffer_release(&m8);
    }
    stop(&s);
}

/* ---- complaints and aborts ---- */

static void make_complaint(const served *s, uint32_t by, uint32_t about, linnet_label label,
                           uint8_t message[LINNET_COMPLAINT_BYTES])
{
    linnet_device_id id = forger_id(&s->f, by);
    memcpy(message, s->f.m[0].device->t2.bytes, LINNET_HASH_BYTES);
    memcpy(message + LINNET_HASH_BYTES, id.bytes, sizeof(id.bytes));
    linnet_store_le32(message + MESSAGE_HEAD_BYTES, about);
    linnet_signature sig = linnet_sign(s->f.m[by].identity, label, message, MESSAGE_HEAD_BYTES + 4);
    memcpy(message + MESSAGE_HEAD_BYTES + 4, sig.bytes, sizeof(sig.bytes));
}

static void a_complaint_is_of_a_sharer_about_another(void **state)
{
    (void)state;
    static const struct {
        uint32_t by, about;
        linnet_status want;
    } cases[] = {
        {0, 1, LINNET_OK},         {0, 2, LINNET_OK},
        {0, 0, LINNET_ERR_RANGE},  {0, 6, LINNET_ERR_RANGE}, /* never shared */
        {0, 7, LINNET_ERR_RANGE},  {0, UINT32_MAX, LINNET_ERR_RANGE},
        {6, 1, LINNET_ERR_DENIED},
    };
    served s;
    uint8_t message[LINNET_COMPLAINT_BYTES];
    start(&s);
    serve(&s, MASKED, false);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint32_t about = 77;
        make_complaint(&s, cases[i].by, cases[i].about, LINNET_LABEL_COMPLAINT, message);
        assert_int_equal(linnet_secagg_server_complaint(s.server, message, sizeof(message), &about, NULL),
                         cases[i].want);
        assert_int_equal(about, cases[i].want == LINNET_OK ? cases[i].about : 77);
    }
    for (int label = 0; label < LINNET_LABELS; label++) {
        uint32_t about;
        make_complaint(&s, 0, 1, (linnet_label)label, message);
        assert_int_equal(linnet_secagg_server_complaint(s.server, message, sizeof(message), &about, NULL),
                         label == LINNET_LABEL_COMPLAINT ? LINNET_OK : LINNET_ERR_CRYPTO);
    }
    make_complaint(&s, 0, 1, LINNET_LABEL_COMPLAINT, message);
    for (size_t n = 0; n < sizeof(message); n++) {
        uint32_t about = 77;
        assert_int_equal(linnet_secagg_server_complaint(s.server, message, n, &about, NULL),
                         LINNET_ERR_FORMAT);
        message[n] ^= 1;
        assert_int_not_equal(linnet_secagg_server_complaint(s.server, message, sizeof(message), &about, NULL),
                             LINNET_OK);
        message[n] ^= 1;
        assert_int_equal(about, 77);
    }
    serve(&s, SHARES, false);
    uint32_t about;
    assert_int_equal(linnet_secagg_server_complaint(s.server, message, sizeof(message), &about, NULL),
                     LINNET_ERR_ARG);
    stop(&s);
}

static void an_abort_names_a_check_of_the_protocol(void **state)
{
    (void)state;
    served s;
    uint8_t message[LINNET_ABORT_BYTES];
    linnet_abort_reason reason;
    start(&s);
    serve(&s, SHARES, false);
    linnet_secagg_device_abort(s.f.m[0].device, LINNET_ABORT_TIME, message);
    assert_int_equal(linnet_secagg_server_abort(s.server, message, sizeof(message), &reason, NULL),
                     LINNET_OK);
    assert_int_equal(reason, LINNET_ABORT_TIME);
    for (size_t n = 0; n < sizeof(message); n++) {
        assert_int_equal(linnet_secagg_server_abort(s.server, message, n, &reason, NULL), LINNET_ERR_FORMAT);
        message[n] ^= 1;
        assert_int_not_equal(linnet_secagg_server_abort(s.server, message, sizeof(message), &reason, NULL),
                             LINNET_OK);
        message[n] ^= 1;
    }
    for (int code = 0; code < 256; code++) {
        message[MESSAGE_HEAD_BYTES] = (uint8_t)code;
        linnet_signature sig =
            linnet_sign(s.f.m[0].identity, LINNET_LABEL_ABORT, message, MESSAGE_HEAD_BYTES + 1);
        memcpy(message + MESSAGE_HEAD_BYTES + 1, sig.bytes, sizeof(sig.bytes));
        assert_int_equal(linnet_secagg_server_abort(s.server, message, sizeof(message), &reason, NULL),
                         code >= LINNET_ABORT_ROSTER && code <= LINNET_ABORT_TIME ? LINNET_OK
                                                                                  : LINNET_ERR_RANGE);
    }
    for (int label = 0; label < LINNET_LABELS; label++) {
        message[MESSAGE_HEAD_BYTES] = LINNET_ABORT_TIME;
        linnet_signature sig =
            linnet_sign(s.f.m[0].identity, (linnet_label)label, message, MESSAGE_HEAD_BYTES + 1);
        memcpy(message + MESSAGE_HEAD_BYTES + 1, sig.bytes, sizeof(sig.bytes));
        assert_int_equal(linnet_secagg_server_abort(s.server, message, sizeof(message), &reason, NULL),
                         label == LINNET_LABEL_ABORT ? LINNET_OK : LINNET_ERR_CRYPTO);
    }
    stop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_check_changes_nothing),
        cmocka_unit_test(the_same_message_again_exists),
        cmocka_unit_test(a_message_out_of_its_time_is_refused),
        cmocka_unit_test(who_comes_late_is_not_counted),
        cmocka_unit_test(too_few_is_range),
        cmocka_unit_test(a_full_cohort_takes_nobody_more),
        cmocka_unit_test(every_cut_and_every_flip_of_a_message_is_refused),
        cmocka_unit_test(a_message_signed_under_another_label_or_key_is_refused),
        cmocka_unit_test(a_message_of_another_round_is_refused),
        cmocka_unit_test(a_second_and_different_message_is_a_conflict),
        cmocka_unit_test(strangers_are_refused),
        cmocka_unit_test(an_advert_with_a_key_of_another_is_refused),
        cmocka_unit_test(a_share_that_is_not_due_is_refused),
        cmocka_unit_test(liars_up_to_holders_less_t_are_survived_and_named),
        cmocka_unit_test(a_dealer_of_two_polynomials_cannot_void_a_round),
        cmocka_unit_test(liars_who_agree_on_a_polynomial_are_found_out),
        cmocka_unit_test(an_opened_sum_is_that_of_the_survivors),
        cmocka_unit_test(below_t_unmaskings_nothing_opens),
        cmocka_unit_test(a_rebuilt_coordinator_says_the_same),
        cmocka_unit_test(two_certificates_of_one_set_are_both_good),
        cmocka_unit_test(below_q_attestations_there_is_no_certificate),
        cmocka_unit_test(a_complaint_is_of_a_sharer_about_another),
        cmocka_unit_test(an_abort_names_a_check_of_the_protocol),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
