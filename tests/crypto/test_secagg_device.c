/* SPDX-License-Identifier: Apache-2.0 */

/* A device of linnet-sa1 against a coordinator that lies (SECURE-AGGREGATION 2.4, 2.6, 6.2): every lie ends
 * in a refusal with the secrets gone, or, where the device cannot know, in a sum that says nothing. */

#include "forger.h"
#include "testing.h"

#include <math.h>

#define N 7 /* C = 1, t = 4, q = 5, |U2| and |U3| at least 5 */

typedef struct lie {
    linnet_buffer message;
    forger f;
} lie;

static void start(lie *l, linnet_secagg_phase phase)
{
    *l = (lie){0};
    forger_init(&l->f, N, 0);
    forger_advertise(&l->f);
    forger_play(&l->f, phase, forger_all(N), forger_all(N));
}

static void stop(lie *l)
{
    linnet_buffer_release(&l->message);
    forger_release(&l->f);
}

static linnet_secagg_device *device_of(lie *l, uint32_t i)
{
    return l->f.m[i].device;
}

static void assert_has_no_secrets(const linnet_secagg_device *d)
{
    size_t n_bytes;
    linnet_buffer record = {0};
    assert_null(d->secrets);
    assert_null(d->received);
    assert_null(d->mask_keys);
    assert_null(d->unmask.bytes);
    assert_null(linnet_secagg_device_unmask(d, &n_bytes));
    assert_null(linnet_secagg_device_attestation(d, &n_bytes));
    assert_null(linnet_secagg_device_shares(d, &n_bytes));
    assert_int_equal(linnet_secagg_device_save(d, &record, NULL), LINNET_ERR_ARG);
    linnet_buffer_release(&record);
}

/* The lie was called by its name, and the machine is dead. */
static void assert_refused(const char *name, linnet_secagg_device *d, linnet_status got, linnet_status want,
                           linnet_abort_reason reason)
{
    if (got != want || linnet_secagg_device_phase(d) != LINNET_SECAGG_ABORTED ||
        linnet_secagg_device_abort_reason(d) != reason)
        fail_msg("%s: %s, want %s; phase %d, reason %d", name, linnet_status_name(got),
                 linnet_status_name(want), (int)linnet_secagg_device_phase(d),
                 (int)linnet_secagg_device_abort_reason(d));
    assert_has_no_secrets(d);
    assert_int_equal(linnet_secagg_device_take_roster(d, NULL, "", 0, NULL), LINNET_ERR_ARG);
    assert_int_equal(linnet_secagg_device_take_sharers(d, "", 0, NULL), LINNET_ERR_ARG);
    assert_int_equal(linnet_secagg_device_take_survivors(d, "", 0, NULL), LINNET_ERR_ARG);
    assert_int_equal(linnet_secagg_device_take_certificate(d, "", 0, NULL), LINNET_ERR_ARG);
}

/* ---- M2 ---- */

typedef struct adverts {
    uint8_t bytes[(FORGER_MAX + 1) * LINNET_ADVERT_BYTES];
    uint32_t n;
    linnet_secagg_trust *trust;
} adverts;

static uint8_t *advert(adverts *a, uint32_t i)
{
    return a->bytes + (size_t)i * LINNET_ADVERT_BYTES;
}

/* Member i signs what its advert says now. */
static void resign(const forger *f, adverts *a, uint32_t i)
{
    uint8_t *p = advert(a, i);
    linnet_signature s = linnet_sign(f->m[i].identity, LINNET_LABEL_ADVERT, p, LINNET_ADVERT_BODY_BYTES);
    memcpy(p + ADVERT_SIGNATURE, s.bytes, sizeof(s.bytes));
}

static void set_key(const forger *f, adverts *a, uint32_t i, size_t at, const uint8_t key[32])
{
    memcpy(advert(a, i) + at, key, 32);
    resign(f, a, i);
}

static void certify(const forger *f, adverts *a, uint32_t i, const linnet_identity *authority, uint64_t from,
                    uint64_t to)
{
    forger_certify(authority, f->m[i].identity, from, to, advert(a, i) + ADVERT_CERTIFICATE);
}

static void nothing(const forger *f, adverts *a)
{
    (void)f, (void)a;
}
static void too_few(const forger *f, adverts *a)
{
    (void)f;
    a->n = 4;
}
static void too_many(const forger *f, adverts *a)
{
    (void)f;
    a->n = FORGER_MAX + 1;
}
static void unsorted(const forger *f, adverts *a)
{
    uint8_t held[LINNET_ADVERT_BYTES];
    (void)f;
    memcpy(held, advert(a, 4), sizeof(held));
    memcpy(advert(a, 4), advert(a, 5), sizeof(held));
    memcpy(advert(a, 5), held, sizeof(held));
}
static void member_twice(const forger *f, adverts *a)
{
    (void)f;
    memcpy(advert(a, 4), advert(a, 3), LINNET_ADVERT_BYTES);
}
static void victim_twice(const forger *f, adverts *a)
{
    (void)f;
    memcpy(advert(a, 1), advert(a, 0), LINNET_ADVERT_BYTES);
}
static void victim_absent(const forger *f, adverts *a)
{
    (void)f;
    memmove(advert(a, 0), advert(a, 1), (size_t)(N - 1) * LINNET_ADVERT_BYTES);
    a->n = N - 1;
}
static void victim_changed(const forger *f, adverts *a)
{
    advert(a, 0)[ADVERT_NONCE] ^= 1;
    resign(f, a, 0);
}
static void victim_recertified(const forger *f, adverts *a)
{
    certify(f, a, 0, f->authority, 1, 4999);
}
static void key_substituted(const forger *f, adverts *a)
{
    uint8_t secret[32];
    (void)f;
    linnet_x25519_draw(secret, advert(a, 3) + ADVERT_PK_X);
}
static void key_substituted_and_signed_by_coordinator(const forger *f, adverts *a)
{
    uint8_t secret[32], *p = advert(a, 3);
    linnet_x25519_draw(secret, p + ADVERT_PK_E);
    linnet_signature s = linnet_sign(f->coordinator, LINNET_LABEL_ADVERT, p, LINNET_ADVERT_BODY_BYTES);
    memcpy(p + ADVERT_SIGNATURE, s.bytes, sizeof(s.bytes));
}
static void pk_x_with_top_bit(const forger *f, adverts *a)
{
    advert(a, 3)[ADVERT_PK_X + 31] |= 0x80;
    resign(f, a, 3);
}
static void pk_e_with_top_bit(const forger *f, adverts *a)
{
    advert(a, 3)[ADVERT_PK_E + 31] |= 0x80;
    resign(f, a, 3);
}
static void pk_x_of_victim(const forger *f, adverts *a)
{
    set_key(f, a, 3, ADVERT_PK_X, advert(a, 0) + ADVERT_PK_X);
}
static void pk_e_of_victim(const forger *f, adverts *a)
{
    set_key(f, a, 3, ADVERT_PK_E, advert(a, 0) + ADVERT_PK_E);
}
static void pk_x_is_pk_e_of_victim(const forger *f, adverts *a)
{
    set_key(f, a, 3, ADVERT_PK_X, advert(a, 0) + ADVERT_PK_E);
}
static void pk_e_is_pk_x_of_another(const forger *f, adverts *a)
{
    set_key(f, a, 3, ADVERT_PK_E, advert(a, 4) + ADVERT_PK_X);
}
static void pk_e_is_own_pk_x(const forger *f, adverts *a)
{
    set_key(f, a, 3, ADVERT_PK_E, advert(a, 3) + ADVERT_PK_X);
}
static void expired(const forger *f, adverts *a)
{
    certify(f, a, 3, f->authority, 1, 999);
}
static void not_yet_valid(const forger *f, adverts *a)
{
    certify(f, a, 3, f->authority, 1001, 5000);
}
static void certified_by_the_coordinator(const forger *f, adverts *a)
{
    certify(f, a, 3, f->coordinator, 1, 5000);
}
static void certified_by_itself(const forger *f, adverts *a)
{
    certify(f, a, 3, f->m[3].identity, 1, 5000);
}
static void with_the_certificate_of_another(const forger *f, adverts *a)
{
    memcpy(advert(a, 3) + ADVERT_CERTIFICATE, f->m[4].certificate, LINNET_SIGNED_CERTIFICATE_BYTES);
}
static void with_the_id_of_another(const forger *f, adverts *a)
{
    memcpy(advert(a, 3) + ADVERT_ID, advert(a, 4) + ADVERT_ID, LINNET_DEVICE_ID_BYTES);
    resign(f, a, 3);
}
static void of_another_announcement(const forger *f, adverts *a)
{
    advert(a, 3)[0] ^= 1;
    resign(f, a, 3);
}
static void revoked(const forger *f, adverts *a)
{
    static linnet_device_id id;
    static linnet_revocation list = {.number = 1, .n_ids = 1};
    id = forger_id(f, 3);
    list.ids = id.bytes;
    a->trust->revocation = &list;
}
static void outside_the_consortium(const forger *f, adverts *a)
{
    static linnet_public_key members[N - 1];
    for (uint32_t i = 0, k = 0; i < N; i++)
        if (i != 3)
            members[k++] = *linnet_identity_public_key(f->m[i].identity);
    a->trust->consortium = members;
    a->trust->n_consortium = N - 1;
}
static void in_an_empty_consortium(const forger *f, adverts *a)
{
    static const linnet_public_key nobody;
    (void)f;
    a->trust->consortium = &nobody;
    a->trust->n_consortium = 0;
}

static linnet_status show_roster(lie *l, void (*change)(const forger *, adverts *))
{
    static adverts a;
    linnet_secagg_trust trust = l->f.trust;
    memset(&a, 0, sizeof(a));
    a.n = N;
    a.trust = &trust;
    forger_adverts(&l->f, a.bytes);
    change(&l->f, &a);
    forger_m2_of(&l->f, a.bytes, a.n, &l->message);
    return linnet_secagg_device_take_roster(device_of(l, 0), &trust, l->message.bytes, l->message.n_bytes,
                                            NULL);
}

static void a_false_roster_is_refused(void **state)
{
    (void)state;
#define CASE(change, status)                                                                                 \
    {                                                                                                        \
#change, change, LINNET_ERR_##status                                                                 \
    }
    static const struct {
        const char *name;
        void (*change)(const forger *, adverts *);
        linnet_status want;
    } cases[] = {
        CASE(too_few, RANGE),
        CASE(too_many, RANGE),
        CASE(unsorted, FORMAT),
        CASE(member_twice, FORMAT),
        CASE(victim_twice, FORMAT),
        CASE(victim_absent, MISMATCH),
        CASE(victim_changed, MISMATCH),
        CASE(victim_recertified, MISMATCH),
        CASE(key_substituted, CRYPTO),
        CASE(key_substituted_and_signed_by_coordinator, CRYPTO),
        CASE(pk_x_with_top_bit, CRYPTO),
        CASE(pk_e_with_top_bit, CRYPTO),
        CASE(pk_x_of_victim, CRYPTO),
        CASE(pk_e_of_victim, CRYPTO),
        CASE(pk_x_is_pk_e_of_victim, CRYPTO),
        CASE(pk_e_is_pk_x_of_another, CRYPTO),
        CASE(pk_e_is_own_pk_x, CRYPTO),
        CASE(expired, EXPIRED),
        CASE(not_yet_valid, EXPIRED),
        CASE(certified_by_the_coordinator, CRYPTO),
        CASE(certified_by_itself, CRYPTO),
        CASE(with_the_certificate_of_another, CRYPTO),
        CASE(with_the_id_of_another, MISMATCH),
        CASE(of_another_announcement, MISMATCH),
        CASE(revoked, DENIED),
        CASE(outside_the_consortium, DENIED),
        CASE(in_an_empty_consortium, DENIED),
    };
#undef CASE
    lie l;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        start(&l, LINNET_SECAGG_ADVERTISED);
        assert_refused(cases[i].name, device_of(&l, 0), show_roster(&l, cases[i].change), cases[i].want,
                       LINNET_ABORT_ROSTER);
        stop(&l);
    }
    start(&l, LINNET_SECAGG_ADVERTISED);
    assert_int_equal(show_roster(&l, nothing), LINNET_OK);
    stop(&l);
}

/* The points whose order divides 8 (RFC 7748, 6.1), also as encodings that are not canonical. */
static void keys_of_small_order_are_refused(void **state)
{
    (void)state;
    static const char *const points[] = {
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    };
    static const size_t places[] = {ADVERT_PK_X, ADVERT_PK_E};
    for (size_t i = 0; i < ARRAY_LEN(points); i++)
        for (size_t k = 0; k < ARRAY_LEN(places); k++) {
            lie l;
            adverts a = {.n = N};
            uint8_t point[32];
            start(&l, LINNET_SECAGG_ADVERTISED);
            assert_int_equal(linnet_hex_read(points[i], point, 32), LINNET_OK);
            forger_adverts(&l.f, a.bytes);
            set_key(&l.f, &a, 3, places[k], point);
            forger_m2_of(&l.f, a.bytes, N, &l.message);
            linnet_status status = linnet_secagg_device_take_roster(device_of(&l, 0), &l.f.trust,
                                                                    l.message.bytes, l.message.n_bytes, NULL);
            assert_refused(points[i], device_of(&l, 0), status, LINNET_ERR_CRYPTO, LINNET_ABORT_ROSTER);
            stop(&l);
        }
}

static void a_roster_too_small_for_its_thresholds_is_refused(void **state)
{
    (void)state;
    lie l = {0};
    forger_init(&l.f, 5, 0);
    l.f.params.corrupt_permille = 500; /* C = 3, t = 4, so that five would have to survive */
    l.f.params.m_min = 6;
    forger_advertise(&l.f);
    forger_m2(&l.f, &l.message);
    linnet_status status = linnet_secagg_device_take_roster(device_of(&l, 0), &l.f.trust, l.message.bytes,
                                                            l.message.n_bytes, NULL);
    assert_refused("m_min above n", device_of(&l, 0), status, LINNET_ERR_RANGE, LINNET_ABORT_ROSTER);
    stop(&l);
}

/* ---- any message: signature, length ---- */

/* Make the message that a device in `phase` waits for. */
static void make_next(lie *l, linnet_secagg_phase phase)
{
    linnet_secagg_device *d = device_of(l, 0);
    if (phase == LINNET_SECAGG_ADVERTISED)
        forger_m2(&l->f, &l->message);
    else if (phase == LINNET_SECAGG_SHARED)
        forger_m4(&l->f, 0, &d->t1, forger_all(N), &l->message);
    else if (phase == LINNET_SECAGG_MASKING)
        (void)forger_m6(&l->f, &d->t2, forger_all(N), &l->message);
    else
        (void)forger_m8(&l->f, &d->t2, forger_all(N), &l->message);
}

static linnet_status take(lie *l, linnet_secagg_phase phase, const void *bytes, size_t n_bytes)
{
    linnet_secagg_device *d = device_of(l, 0);
    if (phase == LINNET_SECAGG_ADVERTISED)
        return linnet_secagg_device_take_roster(d, &l->f.trust, bytes, n_bytes, NULL);
    if (phase == LINNET_SECAGG_SHARED)
        return linnet_secagg_device_take_sharers(d, bytes, n_bytes, NULL);
    if (phase == LINNET_SECAGG_MASKING)
        return linnet_secagg_device_take_survivors(d, bytes, n_bytes, NULL);
    return linnet_secagg_device_take_certificate(d, bytes, n_bytes, NULL);
}

static const linnet_abort_reason reasons[] = {
    [LINNET_SECAGG_ADVERTISED] = LINNET_ABORT_ROSTER,
    [LINNET_SECAGG_SHARED] = LINNET_ABORT_SHARERS,
    [LINNET_SECAGG_MASKING] = LINNET_ABORT_SURVIVORS,
    [LINNET_SECAGG_ATTESTED] = LINNET_ABORT_CERTIFICATE,
};

/* Device 0 again as it was, so that many lies need one cohort only. */
static void reload(lie *l, const linnet_buffer *record)
{
    forger_member *m = &l->f.m[0];
    linnet_secagg_device_destroy(m->device);
    m->device = NULL;
    assert_int_equal(linnet_secagg_device_load(&l->f.params, m->identity, record->bytes, record->n_bytes,
                                               &m->device, NULL),
                     LINNET_OK);
}

static void every_cut_and_every_flip_of_a_message_is_refused(void **state)
{
    (void)state;
    for (int phase = LINNET_SECAGG_SHARED; phase <= LINNET_SECAGG_ATTESTED; phase++) {
        lie l;
        linnet_buffer record = {0};
        start(&l, (linnet_secagg_phase)phase);
        make_next(&l, (linnet_secagg_phase)phase);
        assert_int_equal(linnet_secagg_device_save(device_of(&l, 0), &record, NULL), LINNET_OK);
        for (size_t i = 0; i < l.message.n_bytes; i++) {
            linnet_status status = take(&l, (linnet_secagg_phase)phase, l.message.bytes, i);
            if (status == LINNET_OK || device_of(&l, 0)->phase != LINNET_SECAGG_ABORTED)
                fail_msg("phase %d cut to %zu bytes: %s", phase, i, linnet_status_name(status));
            assert_has_no_secrets(device_of(&l, 0));
            reload(&l, &record);
            if (phase == LINNET_SECAGG_SHARED && i >= 64 + linnet_bitmap_bytes(N))
                continue; /* a box may fail to open: tested elsewhere */
            l.message.bytes[i] ^= (uint8_t)(1u << i % 8);
            status = take(&l, (linnet_secagg_phase)phase, l.message.bytes, l.message.n_bytes);
            if (status == LINNET_OK || device_of(&l, 0)->phase != LINNET_SECAGG_ABORTED)
                fail_msg("phase %d flipped at byte %zu: %s", phase, i, linnet_status_name(status));
            l.message.bytes[i] ^= (uint8_t)(1u << i % 8);
            reload(&l, &record);
        }
        linnet_buffer_append_u8(&l.message, 0);
        assert_refused("a byte more", device_of(&l, 0),
                       take(&l, (linnet_secagg_phase)phase, l.message.bytes, l.message.n_bytes),
                       LINNET_ERR_FORMAT, reasons[phase]);
        linnet_buffer_release(&record);
        stop(&l);
    }
}

/* Property 23, coordinator's part: T1, T2 and T3 are signed themselves and under no label. */
static void a_chain_signed_under_a_label_is_refused(void **state)
{
    (void)state;
    for (int phase = LINNET_SECAGG_ADVERTISED; phase <= LINNET_SECAGG_ATTESTED; phase++)
        for (int label = 0; label <= LINNET_LABELS; label++) {
            lie l;
            uint8_t bytes[FORGER_MAX * LINNET_ADVERT_BYTES];
            start(&l, (linnet_secagg_phase)phase);
            make_next(&l, (linnet_secagg_phase)phase);
            forger_adverts(&l.f, bytes);
            linnet_hash chain = phase == LINNET_SECAGG_ADVERTISED ? forger_t1(&l.f, bytes, N)
                                : phase == LINNET_SECAGG_SHARED
                                    ? linnet_secagg_t2(&device_of(&l, 0)->t1, forger_all(N).bits, N)
                                    : forger_m6(&l.f, &device_of(&l, 0)->t2, forger_all(N), &l.message);
            make_next(&l, (linnet_secagg_phase)phase);
            linnet_signature s =
                label < LINNET_LABELS
                    ? linnet_sign(l.f.coordinator, (linnet_label)label, chain.bytes, LINNET_HASH_BYTES)
                    : linnet_sign_hash(l.f.authority, &chain); /* the right hash, the wrong key */
            memcpy(l.message.bytes, s.bytes, sizeof(s.bytes));
            assert_refused("label", device_of(&l, 0),
                           take(&l, (linnet_secagg_phase)phase, l.message.bytes, l.message.n_bytes),
                           LINNET_ERR_CRYPTO, reasons[phase]);
            stop(&l);
        }
}

/* Property 11: what is good in one round is refused in the next, in another task (which is another A), and
 * in a cohort of other members. */
static void a_message_of_another_round_is_refused(void **state)
{
    (void)state;
    for (int phase = LINNET_SECAGG_ADVERTISED; phase <= LINNET_SECAGG_ATTESTED; phase++) {
        lie here, there = {0};
        start(&here, (linnet_secagg_phase)phase);
        forger_init(&there.f, N, 1);
        forger_advertise(&there.f);
        forger_play(&there.f, (linnet_secagg_phase)phase, forger_all(N), forger_all(N));
        make_next(&there, (linnet_secagg_phase)phase);
        assert_refused("another round", device_of(&here, 0),
                       take(&here, (linnet_secagg_phase)phase, there.message.bytes, there.message.n_bytes),
                       LINNET_ERR_CRYPTO, reasons[phase]);
        stop(&here);
        stop(&there);
    }
}

static void a_message_of_another_cohort_is_refused(void **state)
{
    (void)state;
    for (int phase = LINNET_SECAGG_SHARED; phase <= LINNET_SECAGG_ATTESTED; phase++) {
        lie here, there;
        start(&here, (linnet_secagg_phase)phase);
        start(&there, (linnet_secagg_phase)phase); /* one A, one n, other adverts: another T1 */
        make_next(&there, (linnet_secagg_phase)phase);
        assert_refused("another cohort", device_of(&here, 0),
                       take(&here, (linnet_secagg_phase)phase, there.message.bytes, there.message.n_bytes),
                       LINNET_ERR_CRYPTO, reasons[phase]);
        stop(&here);
        stop(&there);
    }
}

static void a_message_out_of_its_time_changes_nothing(void **state)
{
    (void)state;
    for (int phase = LINNET_SECAGG_ADVERTISED; phase < LINNET_SECAGG_MASKING; phase++) {
        lie l;
        start(&l, (linnet_secagg_phase)phase);
        for (int other = phase + 1; other <= LINNET_SECAGG_ATTESTED; other++)
            assert_int_equal(take(&l, (linnet_secagg_phase)other, "junk", 4), LINNET_ERR_ARG);
        assert_int_equal(device_of(&l, 0)->phase, phase);
        assert_non_null(device_of(&l, 0)->secrets);
        make_next(&l, (linnet_secagg_phase)phase);
        assert_int_equal(take(&l, (linnet_secagg_phase)phase, l.message.bytes, l.message.n_bytes), LINNET_OK);
        stop(&l);
    }
}

/* ---- second messages: property 8 ---- */

static void the_same_message_again_changes_nothing(void **state)
{
    (void)state;
    for (int phase = LINNET_SECAGG_ADVERTISED; phase <= LINNET_SECAGG_ATTESTED; phase++) {
        lie l;
        start(&l, LINNET_SECAGG_RELEASED);
        make_next(&l, (linnet_secagg_phase)phase);
        assert_int_equal(take(&l, (linnet_secagg_phase)phase, l.message.bytes, l.message.n_bytes), LINNET_OK);
        assert_int_equal(device_of(&l, 0)->phase, LINNET_SECAGG_RELEASED);
        stop(&l);
        start(&l, (linnet_secagg_phase)(phase < LINNET_SECAGG_ATTESTED ? phase + 1 : phase));
        make_next(&l, (linnet_secagg_phase)phase);
        assert_int_equal(take(&l, (linnet_secagg_phase)phase, l.message.bytes, l.message.n_bytes), LINNET_OK);
        stop(&l);
    }
}

/* Another message of the kind that a device in `phase` has taken already: fewer are in it. */
static void make_other(lie *l, linnet_secagg_phase taken)
{
    const linnet_secagg_device *d = device_of(l, 0);
    uint8_t bytes[FORGER_MAX * LINNET_ADVERT_BYTES];
    forger_set fewer = forger_without(forger_all(N), 4);
    if (taken == LINNET_SECAGG_ADVERTISED) {
        forger_adverts(&l->f, bytes);
        forger_m2_of(&l->f, bytes, N - 1, &l->message);
    } else if (taken == LINNET_SECAGG_SHARED) {
        forger_m4(&l->f, 0, &d->t1, fewer, &l->message);
    } else if (taken == LINNET_SECAGG_MASKING) {
        (void)forger_m6(&l->f, &d->t2, fewer, &l->message);
    } else {
        (void)forger_m8(&l->f, &d->t2, fewer, &l->message);
    }
}

static void a_second_and_different_message_ends_the_round(void **state)
{
    (void)state;
    static const struct {
        linnet_secagg_phase taken, at;
    } cases[] = {
        {LINNET_SECAGG_ADVERTISED, LINNET_SECAGG_SHARED},   {LINNET_SECAGG_ADVERTISED, LINNET_SECAGG_MASKING},
        {LINNET_SECAGG_ADVERTISED, LINNET_SECAGG_ATTESTED}, {LINNET_SECAGG_SHARED, LINNET_SECAGG_MASKING},
        {LINNET_SECAGG_SHARED, LINNET_SECAGG_ATTESTED},     {LINNET_SECAGG_MASKING, LINNET_SECAGG_ATTESTED},
        {LINNET_SECAGG_ATTESTED, LINNET_SECAGG_ATTESTED}, /* attested one T3, certified is another */
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        lie l;
        start(&l, cases[i].at);
        make_other(&l, cases[i].taken);
        assert_refused("second", device_of(&l, 0),
                       take(&l, cases[i].taken, l.message.bytes, l.message.n_bytes), LINNET_ERR_CONFLICT,
                       LINNET_ABORT_EQUIVOCATION);
        stop(&l);
        start(&l, cases[i].at); /* the same, not signed: a refusal, and no evidence against anybody */
        make_other(&l, cases[i].taken);
        l.message.bytes[0] ^= 1;
        assert_refused("unsigned", device_of(&l, 0),
                       take(&l, cases[i].taken, l.message.bytes, l.message.n_bytes), LINNET_ERR_CRYPTO,
                       reasons[cases[i].taken]);
        stop(&l);
    }
}

static void what_was_released_stays_the_same(void **state)
{
    (void)state;
    for (int taken = LINNET_SECAGG_ADVERTISED; taken <= LINNET_SECAGG_ATTESTED; taken++) {
        lie l;
        size_t n_bytes, n_again;
        uint8_t before[1024];
        start(&l, LINNET_SECAGG_RELEASED);
        const uint8_t *m9 = linnet_secagg_device_unmask(device_of(&l, 0), &n_bytes);
        memcpy(before, m9, n_bytes);
        make_other(&l, (linnet_secagg_phase)taken);
        assert_int_equal(take(&l, (linnet_secagg_phase)taken, l.message.bytes, l.message.n_bytes),
                         LINNET_ERR_CONFLICT);
        m9 = linnet_secagg_device_unmask(device_of(&l, 0), &n_again);
        assert_int_equal(n_again, n_bytes);
        assert_memory_equal(m9, before, n_bytes);
        stop(&l);
    }
}

/* ---- M4 ---- */

static void a_false_set_of_sharers_is_refused(void **state)
{
    (void)state;
    lie l;
    start(&l, LINNET_SECAGG_SHARED);
    forger_m4(&l.f, 0, &device_of(&l, 0)->t1, forger_without(forger_all(N), 0), &l.message);
    assert_refused("without the victim", device_of(&l, 0),
                   take(&l, LINNET_SECAGG_SHARED, l.message.bytes, l.message.n_bytes), LINNET_ERR_MISMATCH,
                   LINNET_ABORT_SHARERS);
    stop(&l);
    start(&l, LINNET_SECAGG_SHARED);
    forger_m4(&l.f, 0, &device_of(&l, 0)->t1, forger_all(4), &l.message);
    assert_refused("too few", device_of(&l, 0),
                   take(&l, LINNET_SECAGG_SHARED, l.message.bytes, l.message.n_bytes), LINNET_ERR_RANGE,
                   LINNET_ABORT_SHARERS);
    stop(&l);
    start(&l, LINNET_SECAGG_SHARED);
    forger_m4(&l.f, 0, &device_of(&l, 0)->t1, forger_all(N + 1), &l.message); /* a bit that nobody has */
    assert_refused("unused bit", device_of(&l, 0),
                   take(&l, LINNET_SECAGG_SHARED, l.message.bytes, l.message.n_bytes), LINNET_ERR_FORMAT,
                   LINNET_ABORT_SHARERS);
    stop(&l);
}

/* Damage the first n boxes of an M4. */
static void damage(linnet_buffer *m4, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++)
        m4->bytes[64 + linnet_bitmap_bytes(N) + (size_t)k * LINNET_SHARE_BOX_BYTES + 30] ^= 1;
}

static void up_to_c_boxes_may_fail_and_are_complained_about(void **state)
{
    (void)state;
    lie l;
    size_t n_complaints, n_m9;
    start(&l, LINNET_SECAGG_SHARED);
    make_next(&l, LINNET_SECAGG_SHARED);
    damage(&l.message, 1);
    assert_int_equal(take(&l, LINNET_SECAGG_SHARED, l.message.bytes, l.message.n_bytes), LINNET_OK);
    const uint8_t *complaint = linnet_secagg_device_complaints(device_of(&l, 0), &n_complaints);
    assert_int_equal(n_complaints, LINNET_COMPLAINT_BYTES);
    assert_memory_equal(complaint, device_of(&l, 0)->t2.bytes, LINNET_HASH_BYTES);
    assert_int_equal(linnet_load_le32(complaint + MESSAGE_HEAD_BYTES), 1);
    forger_play(&l.f, LINNET_SECAGG_SHARED, forger_all(N), forger_all(N)); /* nothing to do: controls */
    for (uint32_t i = 0; i < N; i++) {
        uint8_t y[3 * FORGER_COORDINATES];
        if (i > 0) {
            forger_m4(&l.f, i, &device_of(&l, i)->t1, forger_all(N), &l.message);
            assert_int_equal(
                linnet_secagg_device_take_sharers(device_of(&l, i), l.message.bytes, l.message.n_bytes, NULL),
                LINNET_OK);
        }
        forger_mask(&l.f, i, y);
    }
    (void)forger_m8(&l.f, &device_of(&l, 0)->t2, forger_all(N), &l.message);
    assert_int_equal(take(&l, LINNET_SECAGG_ATTESTED, l.message.bytes, l.message.n_bytes), LINNET_OK);
    const uint8_t *m9 = linnet_secagg_device_unmask(device_of(&l, 0), &n_m9);
    static const uint8_t zeros[LINNET_SCALAR_BYTES];
    assert_int_equal(m9[MESSAGE_HEAD_BYTES], UNMASK_MISSING);
    assert_memory_equal(m9 + MESSAGE_HEAD_BYTES + 1, zeros, sizeof(zeros));
    assert_int_equal(m9[MESSAGE_HEAD_BYTES + UNMASK_ENTRY_BYTES], UNMASK_SELF);
    stop(&l);
}

static void more_than_c_boxes_that_fail_end_the_round(void **state)
{
    (void)state;
    lie l;
    size_t n_bytes;
    start(&l, LINNET_SECAGG_SHARED);
    make_next(&l, LINNET_SECAGG_SHARED);
    damage(&l.message, 2);
    assert_refused("C + 1 boxes", device_of(&l, 0),
                   take(&l, LINNET_SECAGG_SHARED, l.message.bytes, l.message.n_bytes), LINNET_ERR_CRYPTO,
                   LINNET_ABORT_BOXES);
    assert_null(linnet_secagg_device_complaints(device_of(&l, 0), &n_bytes));
    stop(&l);
}

/* Boxes of two peers changed places, or made under another roster: T1 and both indices are in the key. */
static void a_box_of_another_place_or_roster_does_not_open(void **state)
{
    (void)state;
    lie here, there;
    uint8_t held[LINNET_SHARE_BOX_BYTES];
    start(&here, LINNET_SECAGG_SHARED);
    make_next(&here, LINNET_SECAGG_SHARED);
    uint8_t *boxes = here.message.bytes + 64 + linnet_bitmap_bytes(N);
    memcpy(held, boxes, sizeof(held));
    memcpy(boxes, boxes + sizeof(held), sizeof(held));
    memcpy(boxes + sizeof(held), held, sizeof(held));
    assert_refused("swapped", device_of(&here, 0),
                   take(&here, LINNET_SECAGG_SHARED, here.message.bytes, here.message.n_bytes),
                   LINNET_ERR_CRYPTO, LINNET_ABORT_BOXES);
    stop(&here);
    start(&here, LINNET_SECAGG_SHARED);
    start(&there, LINNET_SECAGG_SHARED);
    make_next(&here, LINNET_SECAGG_SHARED);
    make_next(&there, LINNET_SECAGG_SHARED);
    boxes = here.message.bytes + 64 + linnet_bitmap_bytes(N);
    memcpy(boxes, there.message.bytes + 64 + linnet_bitmap_bytes(N), 2 * sizeof(held));
    assert_refused("another roster", device_of(&here, 0),
                   take(&here, LINNET_SECAGG_SHARED, here.message.bytes, here.message.n_bytes),
                   LINNET_ERR_CRYPTO, LINNET_ABORT_BOXES);
    stop(&here);
    stop(&there);
}

/* ---- M5 ---- */

static void other_bytes_under_the_same_masks_end_the_round(void **state)
{
    (void)state;
    for (int what = 0; what < 2; what++) {
        lie l;
        start(&l, LINNET_SECAGG_MASKING);
        linnet_hash echo = l.f.m[0].echo;
        linnet_signature header = l.f.m[0].header;
        assert_int_equal(linnet_secagg_device_fix_echo(device_of(&l, 0), &echo, &header, NULL), LINNET_OK);
        (what ? echo.bytes : header.bytes)[0] ^= 1;
        assert_refused("echo", device_of(&l, 0),
                       linnet_secagg_device_fix_echo(device_of(&l, 0), &echo, &header, NULL),
                       LINNET_ERR_CONFLICT, LINNET_ABORT_ECHO);
        uint8_t y[3 * FORGER_COORDINATES] = {0};
        assert_int_equal(linnet_secagg_device_mask(device_of(&l, 0), 0, 0, FORGER_COORDINATES, y, NULL),
                         LINNET_ERR_ARG);
        stop(&l);
    }
}

/* ---- M6: property 9 ---- */

static void a_false_set_of_survivors_is_refused(void **state)
{
    (void)state;
    enum { WITHOUT_VICTIM, TOO_FEW, NO_SHARER, OTHER_ECHO, OTHER_HEADER, UNUSED_BIT, CASES };
    static const linnet_status wants[] = {
        [WITHOUT_VICTIM] = LINNET_ERR_MISMATCH, [TOO_FEW] = LINNET_ERR_RANGE,
        [NO_SHARER] = LINNET_ERR_MISMATCH,      [OTHER_ECHO] = LINNET_ERR_MISMATCH,
        [OTHER_HEADER] = LINNET_ERR_MISMATCH,   [UNUSED_BIT] = LINNET_ERR_FORMAT,
    };
    for (int with_certificate = 0; with_certificate < 2; with_certificate++)
        for (int i = with_certificate; i < CASES; i++) { /* a certificate without the victim sets it free */
            lie l = {0};
            forger_set u2 = forger_without(forger_all(N), 6), u3 = u2;
            forger_init(&l.f, N, 0);
            forger_advertise(&l.f);
            forger_play(&l.f, LINNET_SECAGG_MASKING, u2, u2);
            if (i == WITHOUT_VICTIM)
                u3 = forger_without(u3, 0);
            if (i == TOO_FEW)
                u3 = forger_all(4);
            if (i == NO_SHARER)
                u3 = forger_all(N);
            if (i == OTHER_ECHO)
                l.f.m[0].echo.bytes[5] ^= 1;
            if (i == OTHER_HEADER)
                l.f.m[0].header.bytes[5] ^= 1;
            if (i == UNUSED_BIT)
                linnet_bitmap_set(u3.bits, 7);
            linnet_secagg_phase phase = with_certificate ? LINNET_SECAGG_ATTESTED : LINNET_SECAGG_MASKING;
            if (with_certificate)
                (void)forger_m8(&l.f, &device_of(&l, 0)->t2, u3, &l.message);
            else
                (void)forger_m6(&l.f, &device_of(&l, 0)->t2, u3, &l.message);
            char name[32];
            (void)snprintf(name, sizeof(name), "case %d of phase %d", i, (int)phase);
            assert_refused(name, device_of(&l, 0), take(&l, phase, l.message.bytes, l.message.n_bytes),
                           wants[i], reasons[phase]);
            stop(&l);
        }
}

static void survivors_before_the_upload_are_not_taken(void **state)
{
    (void)state;
    lie l = {0};
    forger_init(&l.f, N, 0);
    forger_advertise(&l.f);
    forger_play(&l.f, LINNET_SECAGG_MASKING, forger_all(N), forger_without(forger_all(N), 0));
    (void)forger_m6(&l.f, &device_of(&l, 0)->t2, forger_all(N), &l.message);
    assert_int_equal(take(&l, LINNET_SECAGG_MASKING, l.message.bytes, l.message.n_bytes), LINNET_ERR_ARG);
    assert_int_equal(device_of(&l, 0)->phase, LINNET_SECAGG_MASKING);
    (void)forger_m8(&l.f, &device_of(&l, 0)->t2, forger_all(N), &l.message); /* says that it uploaded */
    assert_refused("no upload", device_of(&l, 0),
                   take(&l, LINNET_SECAGG_ATTESTED, l.message.bytes, l.message.n_bytes), LINNET_ERR_MISMATCH,
                   LINNET_ABORT_CERTIFICATE);
    stop(&l);
}

/* ---- M8: properties 10 and 22 ---- */

static void a_false_certificate_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t signers[8], n;
        linnet_status want;
    } cases[] = {
        {"q - 1 signatures", {0, 1, 2, 3}, 4, LINNET_ERR_RANGE},
        {"none", {0}, 0, LINNET_ERR_RANGE},
        {"a signer twice", {0, 1, 2, 3, 3}, 5, LINNET_ERR_FORMAT},
        {"a signer twice, apart", {0, 1, 2, 3, 0}, 5, LINNET_ERR_FORMAT},
        {"q and one twice", {0, 1, 2, 3, 4, 4}, 6, LINNET_ERR_FORMAT},
        {"a signer outside the roster", {0, 1, 2, 3, 7}, 5, LINNET_ERR_FORMAT},
        {"a signer far outside", {0, 1, 2, 3, UINT32_MAX}, 5, LINNET_ERR_FORMAT},
        {"a signer outside the survivors", {0, 1, 2, 3, 6}, 5, LINNET_ERR_FORMAT},
        {"not in order", {1, 0, 2, 3, 4}, 5, LINNET_ERR_FORMAT},
        {"exactly q", {0, 1, 2, 3, 4}, 5, LINNET_OK},
        {"more than q", {0, 1, 2, 3, 4, 5}, 6, LINNET_OK},
    };
    for (int adopts = 0; adopts < 2; adopts++)
        for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
            lie l = {0};
            forger_set u3 = forger_without(forger_all(N), 6);
            forger_init(&l.f, N, 0);
            forger_advertise(&l.f);
            forger_play(&l.f, adopts ? LINNET_SECAGG_MASKING : LINNET_SECAGG_ATTESTED, forger_all(N), u3);
            linnet_hash t3 = forger_m6(&l.f, &device_of(&l, 0)->t2, u3, &l.message);
            forger_certificate(&l.f, &t3, cases[i].signers, cases[i].n, &l.message);
            linnet_status status = take(&l, LINNET_SECAGG_ATTESTED, l.message.bytes, l.message.n_bytes);
            if (cases[i].want != LINNET_OK) {
                assert_refused(cases[i].name, device_of(&l, 0), status, cases[i].want,
                               LINNET_ABORT_CERTIFICATE);
            } else {
                assert_int_equal(status, LINNET_OK);
                assert_int_equal(device_of(&l, 0)->phase, LINNET_SECAGG_RELEASED);
            }
            stop(&l);
        }
}

/* Property 23, certificate's part; and a signature by another key, or over another T3. */
static void an_attestation_of_something_else_is_refused(void **state)
{
    (void)state;
    for (int label = 0; label < LINNET_LABELS + 2; label++) {
        lie l;
        start(&l, LINNET_SECAGG_ATTESTED);
        make_next(&l, LINNET_SECAGG_ATTESTED);
        const forger_member *m = &l.f.m[4]; /* the last of the signers */
        linnet_hash t3 = device_of(&l, 0)->t3, other = t3;
        other.bytes[0] ^= 1;
        linnet_signature s =
            label < LINNET_LABELS ? linnet_sign(m->identity, (linnet_label)label, t3.bytes, LINNET_HASH_BYTES)
            : label == LINNET_LABELS
                ? linnet_sign(l.f.m[5].identity, LINNET_LABEL_ATTEST, t3.bytes, LINNET_HASH_BYTES)
                : linnet_sign(m->identity, LINNET_LABEL_ATTEST, other.bytes, LINNET_HASH_BYTES);
        memcpy(l.message.bytes + l.message.n_bytes - LINNET_SIGNATURE_BYTES, s.bytes, sizeof(s.bytes));
        linnet_status status = take(&l, LINNET_SECAGG_ATTESTED, l.message.bytes, l.message.n_bytes);
        if (label == LINNET_LABEL_ATTEST)
            assert_int_equal(status, LINNET_OK);
        else
            assert_refused("attestation", device_of(&l, 0), status, LINNET_ERR_CRYPTO,
                           LINNET_ABORT_CERTIFICATE);
        stop(&l);
    }
}

static void a_device_that_attested_nothing_adopts_the_certified_set(void **state)
{
    (void)state;
    lie l;
    size_t n_m7, n_m9;
    start(&l, LINNET_SECAGG_MASKING);
    linnet_hash t3 = forger_m8(&l.f, &device_of(&l, 0)->t2, forger_all(N), &l.message);
    assert_int_equal(take(&l, LINNET_SECAGG_ATTESTED, l.message.bytes, l.message.n_bytes), LINNET_OK);
    assert_int_equal(device_of(&l, 0)->phase, LINNET_SECAGG_RELEASED);
    assert_memory_equal(linnet_secagg_device_t3(device_of(&l, 0)), t3.bytes, LINNET_HASH_BYTES);
    assert_memory_equal(linnet_secagg_device_attestation(device_of(&l, 0), &n_m7), t3.bytes,
                        LINNET_HASH_BYTES);
    assert_memory_equal(linnet_secagg_device_unmask(device_of(&l, 0), &n_m9), t3.bytes, LINNET_HASH_BYTES);
    stop(&l);
}

static void a_certificate_for_other_sharers_is_refused(void **state)
{
    (void)state;
    for (int has_bit = 0; has_bit < 2; has_bit++) {
        lie l;
        start(&l, LINNET_SECAGG_MASKING);
        forger_set u2 = forger_without(forger_all(N), 6), u3 = has_bit ? u2 : forger_without(u2, 0);
        linnet_hash t2 = linnet_secagg_t2(&device_of(&l, 0)->t1, u2.bits, N);
        (void)forger_m8(&l.f, &t2, u3, &l.message);
        assert_refused("another U2", device_of(&l, 0),
                       take(&l, LINNET_SECAGG_ATTESTED, l.message.bytes, l.message.n_bytes),
                       LINNET_ERR_CRYPTO, LINNET_ABORT_CERTIFICATE);
        stop(&l);
    }
}

/* ---- EXCLUDED: property 20 ---- */

static void only_a_certificate_of_its_own_round_sets_a_device_free(void **state)
{
    (void)state;
    for (uint32_t n_signers = 4; n_signers <= 6; n_signers++)
        for (int has_uploaded = 0; has_uploaded < 2; has_uploaded++) {
            static const uint32_t signers[] = {1, 2, 3, 4, 5, 6};
            lie l = {0};
            size_t n_bytes;
            forger_set u3 = forger_without(forger_all(N), 0);
            forger_init(&l.f, N, 0);
            forger_advertise(&l.f);
            forger_play(&l.f, LINNET_SECAGG_MASKING, forger_all(N), has_uploaded ? forger_all(N) : u3);
            linnet_hash t3 = forger_m6(&l.f, &device_of(&l, 0)->t2, u3, &l.message);
            forger_certificate(&l.f, &t3, signers, n_signers, &l.message);
            linnet_status status = take(&l, LINNET_SECAGG_ATTESTED, l.message.bytes, l.message.n_bytes);
            if (n_signers < 5) {
                assert_refused("q - 1", device_of(&l, 0), status, LINNET_ERR_RANGE, LINNET_ABORT_CERTIFICATE);
            } else {
                assert_int_equal(status, LINNET_OK);
                assert_int_equal(device_of(&l, 0)->phase, LINNET_SECAGG_EXCLUDED);
                assert_has_no_secrets(device_of(&l, 0));
                assert_null(linnet_secagg_device_unmask(device_of(&l, 0), &n_bytes));
                assert_int_equal(take(&l, LINNET_SECAGG_ATTESTED, l.message.bytes, l.message.n_bytes),
                                 LINNET_ERR_ARG);
            }
            stop(&l);
        }
}

static void a_device_that_attested_is_never_set_free(void **state)
{
    (void)state;
    lie l;
    start(&l, LINNET_SECAGG_ATTESTED);
    (void)forger_m8(&l.f, &device_of(&l, 0)->t2, forger_without(forger_all(N), 0), &l.message);
    assert_refused("excluded after all", device_of(&l, 0),
                   take(&l, LINNET_SECAGG_ATTESTED, l.message.bytes, l.message.n_bytes), LINNET_ERR_CONFLICT,
                   LINNET_ABORT_EQUIVOCATION);
    stop(&l);
}

/* ---- one kind of share for each owner ---- */

static void each_owner_has_the_kind_of_share_that_its_bit_says(void **state)
{
    (void)state;
    lie l = {0};
    size_t n_bytes;
    forger_set u3 = forger_without(forger_without(forger_all(N), 2), 5);
    forger_init(&l.f, N, 0);
    forger_advertise(&l.f);
    forger_play(&l.f, LINNET_SECAGG_ATTESTED, forger_all(N), u3);
    const linnet_secagg_device *d = device_of(&l, 0);
    share_pair received[N];
    memcpy(received, d->received, sizeof(received));
    make_next(&l, LINNET_SECAGG_ATTESTED);
    (void)forger_m8(&l.f, &d->t2, u3, &l.message);
    assert_int_equal(take(&l, LINNET_SECAGG_ATTESTED, l.message.bytes, l.message.n_bytes), LINNET_OK);
    const uint8_t *m9 = linnet_secagg_device_unmask(d, &n_bytes);
    assert_int_equal(n_bytes, MESSAGE_HEAD_BYTES + (N - 1) * UNMASK_ENTRY_BYTES + LINNET_SIGNATURE_BYTES);
    for (uint32_t j = 1; j < N; j++) {
        const uint8_t *entry = m9 + MESSAGE_HEAD_BYTES + (size_t)(j - 1) * UNMASK_ENTRY_BYTES;
        bool survives = linnet_bitmap_has(u3.bits, j);
        assert_int_equal(entry[0], survives ? UNMASK_SELF : UNMASK_PAIR);
        assert_memory_equal(entry + 1, survives ? &received[j].b : &received[j].s, LINNET_SCALAR_BYTES);
        for (size_t at = 0; at + LINNET_SCALAR_BYTES <= n_bytes; at++) /* and the other one nowhere */
            assert_memory_not_equal(m9 + at, survives ? &received[j].s : &received[j].b, LINNET_SCALAR_BYTES);
    }
    stop(&l);
}

/* ---- records: property 13, the machine's part ---- */

static linnet_secagg_device *copy_of(lie *l, const linnet_secagg_device *d)
{
    linnet_buffer record = {0};
    linnet_secagg_device *copy = NULL;
    assert_int_equal(linnet_secagg_device_save(d, &record, NULL), LINNET_OK);
    assert_int_equal(linnet_secagg_device_load(&l->f.params, l->f.m[0].identity, record.bytes, record.n_bytes,
                                               &copy, NULL),
                     LINNET_OK);
    linnet_wipe(record.bytes, record.n_bytes);
    linnet_buffer_release(&record);
    return copy;
}

static void assert_same(const uint8_t *a, size_t n_a, const uint8_t *b, size_t n_b)
{
    assert_int_equal(n_a, n_b);
    assert_int_equal(a == NULL, b == NULL);
    if (a)
        assert_memory_equal(a, b, n_a);
}

static void assert_twins(const linnet_secagg_device *a, const linnet_secagg_device *b)
{
    typedef const uint8_t *getter(const linnet_secagg_device *, size_t *);
    static getter *const getters[] = {linnet_secagg_device_advert, linnet_secagg_device_shares,
                                      linnet_secagg_device_attestation, linnet_secagg_device_unmask,
                                      linnet_secagg_device_complaints};
    assert_int_equal(a->phase, b->phase);
    for (size_t i = 0; i < ARRAY_LEN(getters); i++) {
        size_t n_a, n_b;
        const uint8_t *x = getters[i](a, &n_a), *y = getters[i](b, &n_b);
        assert_same(x, n_a, y, n_b);
    }
    assert_int_equal(a->has_echo, b->has_echo);
    assert_memory_equal(&a->echo, &b->echo, sizeof(a->echo));
    if (a->phase != LINNET_SECAGG_MASKING)
        return;
    uint8_t x[3 * FORGER_COORDINATES] = {0}, y[3 * FORGER_COORDINATES] = {0};
    assert_int_equal(linnet_secagg_device_mask(a, 0, 0, FORGER_COORDINATES, x, NULL), LINNET_OK);
    assert_int_equal(linnet_secagg_device_mask(b, 0, 0, FORGER_COORDINATES, y, NULL), LINNET_OK);
    assert_memory_equal(x, y, sizeof(x));
}

/* From every phase a restored copy, and a copy of the copy after every step, says the same bytes. */
static void a_restored_copy_says_the_same_bytes(void **state)
{
    (void)state;
    for (int from = LINNET_SECAGG_SHARED; from <= LINNET_SECAGG_RELEASED; from++) {
        lie l;
        start(&l, LINNET_SECAGG_ADVERTISED);
        forger_play(&l.f, (linnet_secagg_phase)from, forger_all(N), forger_all(N));
        linnet_secagg_device *copy = copy_of(&l, device_of(&l, 0)), *original = device_of(&l, 0);
        for (int phase = from; phase <= LINNET_SECAGG_RELEASED; phase++) {
            linnet_secagg_device *again = copy_of(&l, copy);
            assert_twins(original, copy);
            assert_twins(copy, again);
            linnet_secagg_device_destroy(copy);
            copy = again;
            if (phase == LINNET_SECAGG_RELEASED)
                break;
            if (phase == LINNET_SECAGG_MASKING && from < LINNET_SECAGG_MASKING) {
                for (uint32_t i = 0; i < N; i++) {
                    uint8_t y[3 * FORGER_COORDINATES];
                    if (i > 0) {
                        forger_m4(&l.f, i, &device_of(&l, i)->t1, forger_all(N), &l.message);
                        assert_int_equal(linnet_secagg_device_take_sharers(device_of(&l, i), l.message.bytes,
                                                                           l.message.n_bytes, NULL),
                                         LINNET_OK);
                    }
                    forger_mask(&l.f, i, y);
                }
                l.f.m[0].device = copy;
                linnet_hash echo = l.f.m[0].echo;
                uint8_t y[3 * FORGER_COORDINATES];
                forger_mask(&l.f, 0, y); /* by the copy: the same echo */
                assert_memory_equal(&echo, &l.f.m[0].echo, sizeof(echo));
                l.f.m[0].device = original;
            }
            make_next(&l, (linnet_secagg_phase)phase);
            assert_int_equal(take(&l, (linnet_secagg_phase)phase, l.message.bytes, l.message.n_bytes),
                             LINNET_OK);
            l.f.m[0].device = copy;
            assert_int_equal(take(&l, (linnet_secagg_phase)phase, l.message.bytes, l.message.n_bytes),
                             LINNET_OK);
            l.f.m[0].device = original;
        }
        assert_twins(original, copy);
        linnet_secagg_device_destroy(copy);
        stop(&l);
    }
}

static void a_restored_copy_refuses_what_the_first_one_would(void **state)
{
    (void)state;
    for (int at = LINNET_SECAGG_MASKING; at <= LINNET_SECAGG_ATTESTED; at++)
        for (int taken = LINNET_SECAGG_ADVERTISED; taken < at; taken++) {
            lie l;
            start(&l, (linnet_secagg_phase)at);
            linnet_secagg_device *copy = copy_of(&l, device_of(&l, 0));
            linnet_secagg_device_destroy(device_of(&l, 0));
            l.f.m[0].device = copy;
            make_other(&l, (linnet_secagg_phase)taken);
            assert_refused("after a restart", copy,
                           take(&l, (linnet_secagg_phase)taken, l.message.bytes, l.message.n_bytes),
                           LINNET_ERR_CONFLICT, LINNET_ABORT_EQUIVOCATION);
            stop(&l);
        }
}

/* A flip may stay unseen here (the record is sealed); the machine then still moves without harm. */
static void a_damaged_record_is_refused_or_harmless(void **state)
{
    (void)state;
    for (int phase = LINNET_SECAGG_SHARED; phase <= LINNET_SECAGG_RELEASED; phase++) {
        lie l;
        linnet_buffer record = {0};
        linnet_secagg_device *d = NULL;
        start(&l, (linnet_secagg_phase)phase);
        make_next(&l, (linnet_secagg_phase)phase);
        assert_int_equal(linnet_secagg_device_save(device_of(&l, 0), &record, NULL), LINNET_OK);
        for (size_t i = 0; i < record.n_bytes; i++) {
            assert_int_equal(
                linnet_secagg_device_load(&l.f.params, l.f.m[0].identity, record.bytes, i, &d, NULL),
                LINNET_ERR_FORMAT);
            record.bytes[i] ^= (uint8_t)(1u << (i * 5) % 8);
            linnet_status status = linnet_secagg_device_load(&l.f.params, l.f.m[0].identity, record.bytes,
                                                             record.n_bytes, &d, NULL);
            record.bytes[i] ^= (uint8_t)(1u << (i * 5) % 8);
            if (status == LINNET_OK) {
                linnet_secagg_device *held = l.f.m[0].device;
                l.f.m[0].device = d;
                status = take(&l, (linnet_secagg_phase)(phase < 4 ? phase : 4), l.message.bytes,
                              l.message.n_bytes);
                assert_true(d->phase >= (linnet_secagg_phase)phase);
                l.f.m[0].device = held;
            } else if (status != LINNET_ERR_FORMAT && status != LINNET_ERR_MISMATCH) {
                fail_msg("phase %d, byte %zu: %s", phase, i, linnet_status_name(status));
            }
            linnet_secagg_device_destroy(d);
            d = NULL;
        }
        linnet_buffer_append_u8(&record, 0);
        assert_int_equal(
            linnet_secagg_device_load(&l.f.params, l.f.m[0].identity, record.bytes, record.n_bytes, &d, NULL),
            LINNET_ERR_FORMAT);
        linnet_buffer_release(&record);
        stop(&l);
    }
}

static void a_record_of_another_round_or_device_is_refused(void **state)
{
    (void)state;
    lie l;
    linnet_buffer record = {0};
    linnet_secagg_device *d = NULL;
    start(&l, LINNET_SECAGG_MASKING);
    assert_int_equal(linnet_secagg_device_save(device_of(&l, 0), &record, NULL), LINNET_OK);
    assert_int_equal(
        linnet_secagg_device_load(&l.f.params, l.f.m[1].identity, record.bytes, record.n_bytes, &d, NULL),
        LINNET_ERR_MISMATCH);
    l.f.params.announcement.bytes[31] ^= 1;
    assert_int_equal(
        linnet_secagg_device_load(&l.f.params, l.f.m[0].identity, record.bytes, record.n_bytes, &d, NULL),
        LINNET_ERR_MISMATCH);
    assert_null(d);
    linnet_buffer_release(&record);
    stop(&l);
}

static void secrets_before_the_roster_are_never_saved(void **state)
{
    (void)state;
    lie l;
    linnet_buffer record = {0};
    start(&l, LINNET_SECAGG_ADVERTISED);
    assert_int_equal(linnet_secagg_device_save(device_of(&l, 0), &record, NULL), LINNET_ERR_ARG);
    assert_int_equal(record.n_bytes, 0);
    stop(&l);
}

static void an_abort_is_signed_and_final_in_every_phase(void **state)
{
    (void)state;
    for (int phase = LINNET_SECAGG_ADVERTISED; phase <= LINNET_SECAGG_RELEASED; phase++) {
        lie l;
        uint8_t message[LINNET_ABORT_BYTES];
        linnet_signature s;
        start(&l, (linnet_secagg_phase)phase);
        linnet_secagg_device_abort(device_of(&l, 0), LINNET_ABORT_TIME, message);
        assert_int_equal(device_of(&l, 0)->phase, LINNET_SECAGG_ABORTED);
        assert_has_no_secrets(device_of(&l, 0));
        assert_int_equal(message[MESSAGE_HEAD_BYTES], LINNET_ABORT_TIME);
        memcpy(s.bytes, message + MESSAGE_HEAD_BYTES + 1, sizeof(s.bytes));
        assert_int_equal(linnet_verify(linnet_identity_public_key(l.f.m[0].identity), LINNET_LABEL_ABORT,
                                       message, MESSAGE_HEAD_BYTES + 1, &s),
                         LINNET_OK);
        stop(&l);
    }
}

/* ---- what the coordinator sees: properties 3 and 4 ---- */

#define BINS 256
#define SAMPLES (4 * LINNET_PACK_CHUNK)

/* Pearson's statistic of the lowest and of the highest 8 bits: 255 degrees of freedom, of which 420 is passed
 * by chance once in some 10^9 runs. */
static double chi_square(const uint32_t *values, uint32_t shift)
{
    double counts[BINS] = {0}, sum = 0, expected = (double)SAMPLES / BINS;
    for (size_t i = 0; i < SAMPLES; i++)
        counts[values[i] >> shift & (BINS - 1)]++;
    for (size_t i = 0; i < BINS; i++)
        sum += (counts[i] - expected) * (counts[i] - expected) / expected;
    return sum;
}

static void assert_uniform(const char *what, const uint32_t *values, uint32_t bits)
{
    double low = chi_square(values, 0), high = chi_square(values, bits - 8);
    if (low > 420 || high > 420)
        fail_msg("%s, %u bits: chi-square %.1f of the low byte, %.1f of the high one", what, (unsigned)bits,
                 low, high);
}

/* sum += (sign +1) or -= the masked vector of device i with all plain values `x`; self mask left in. */
static void add_masked(const forger *f, uint32_t i, uint32_t x, bool without_self, uint32_t *sum)
{
    uint32_t bits = f->params.vectors[0].bits;
    const linnet_secagg_device *d = f->m[i].device;
    for (size_t first = 0; first < SAMPLES; first += LINNET_PACK_CHUNK) {
        static uint8_t y[4 * LINNET_PACK_CHUNK];
        static uint32_t plain[LINNET_PACK_CHUNK];
        for (size_t k = 0; k < LINNET_PACK_CHUNK; k++)
            plain[k] = x;
        linnet_pack(bits, plain, LINNET_PACK_CHUNK, y);
        assert_int_equal(linnet_secagg_device_mask(d, 0, first, LINNET_PACK_CHUNK, y, NULL), LINNET_OK);
        linnet_pack_add(bits, y, LINNET_PACK_CHUNK, sum + first);
        if (without_self)
            linnet_mask_subtract(&d->mask_keys[i], 0, bits, first, LINNET_PACK_CHUNK, sum + first);
    }
}

static void start_masking(forger *f, uint32_t bits, uint8_t round, forger_set u2)
{
    forger_init(f, N, round);
    f->params.vectors[0] = (linnet_secagg_vector){.id = 0, .bits = bits, .length = SAMPLES};
    forger_advertise(f);
    forger_play(f, LINNET_SECAGG_MASKING, u2, (forger_set){{0}});
}

static void a_masked_vector_alone_is_uniform(void **state)
{
    (void)state;
    static const uint32_t widths[] = {16, 20, 24, 32}, plain[] = {0, UINT32_MAX};
    for (size_t w = 0; w < ARRAY_LEN(widths); w++)
        for (size_t p = 0; p < ARRAY_LEN(plain); p++) {
            forger f;
            static uint32_t sum[SAMPLES];
            memset(sum, 0, sizeof(sum));
            start_masking(&f, widths[w], 0, forger_all(N));
            add_masked(&f, 0, plain[p], false, sum);
            assert_uniform("y alone", sum, widths[w]);
            forger_release(&f);
        }
}

/* With all self masks given to the coordinator: the pair masks alone. `others`: device 0 saw another U2. */
static void sum_with_views(uint32_t bits, bool differs, uint32_t *sum)
{
    forger f;
    forger_set all = forger_all(N);
    start_masking(&f, bits, 0, (forger_set){{0}});
    memset(sum, 0, SAMPLES * sizeof(*sum));
    for (uint32_t i = 0; i < N; i++) {
        linnet_buffer m4 = {0};
        forger_set u2 = differs && i == 0 ? forger_without(all, 6) : all;
        forger_m4(&f, i, &f.m[i].device->t1, u2, &m4);
        assert_int_equal(linnet_secagg_device_take_sharers(f.m[i].device, m4.bytes, m4.n_bytes, NULL),
                         LINNET_OK);
        add_masked(&f, i, i, true, sum);
        linnet_buffer_release(&m4);
    }
    forger_release(&f);
}

static void another_set_of_sharers_gives_a_random_sum(void **state)
{
    (void)state;
    static const uint32_t widths[] = {16, 20, 24, 32};
    static uint32_t sum[SAMPLES];
    for (size_t w = 0; w < ARRAY_LEN(widths); w++) {
        uint32_t modulus = widths[w] == 32 ? UINT32_MAX : (1u << widths[w]) - 1;
        sum_with_views(widths[w], false, sum); /* control: with one U2 they cancel */
        for (size_t i = 0; i < SAMPLES; i++)
            assert_int_equal(sum[i] & modulus, N * (N - 1) / 2);
        sum_with_views(widths[w], true, sum);
        assert_uniform("two U2", sum, widths[w]);
    }
}

/* The announcement binds the model release; one bit of it differs for device 0. */
static void another_model_gives_a_random_sum(void **state)
{
    (void)state;
    forger f, g;
    static uint32_t sum[SAMPLES];
    memset(sum, 0, sizeof(sum));
    start_masking(&f, 24, 0, forger_all(N));
    start_masking(&g, 24, 1, forger_all(N)); /* the same members */
    for (uint32_t i = 0; i < N; i++)
        add_masked(i == 0 ? &g : &f, i, i, true, sum);
    assert_uniform("two models", sum, 24);
    forger_release(&f);
    forger_release(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_false_roster_is_refused),
        cmocka_unit_test(keys_of_small_order_are_refused),
        cmocka_unit_test(a_roster_too_small_for_its_thresholds_is_refused),
        cmocka_unit_test(every_cut_and_every_flip_of_a_message_is_refused),
        cmocka_unit_test(a_chain_signed_under_a_label_is_refused),
        cmocka_unit_test(a_message_of_another_round_is_refused),
        cmocka_unit_test(a_message_of_another_cohort_is_refused),
        cmocka_unit_test(a_message_out_of_its_time_changes_nothing),
        cmocka_unit_test(the_same_message_again_changes_nothing),
        cmocka_unit_test(a_second_and_different_message_ends_the_round),
        cmocka_unit_test(what_was_released_stays_the_same),
        cmocka_unit_test(a_false_set_of_sharers_is_refused),
        cmocka_unit_test(up_to_c_boxes_may_fail_and_are_complained_about),
        cmocka_unit_test(more_than_c_boxes_that_fail_end_the_round),
        cmocka_unit_test(a_box_of_another_place_or_roster_does_not_open),
        cmocka_unit_test(other_bytes_under_the_same_masks_end_the_round),
        cmocka_unit_test(a_false_set_of_survivors_is_refused),
        cmocka_unit_test(survivors_before_the_upload_are_not_taken),
        cmocka_unit_test(a_false_certificate_is_refused),
        cmocka_unit_test(an_attestation_of_something_else_is_refused),
        cmocka_unit_test(a_device_that_attested_nothing_adopts_the_certified_set),
        cmocka_unit_test(a_certificate_for_other_sharers_is_refused),
        cmocka_unit_test(only_a_certificate_of_its_own_round_sets_a_device_free),
        cmocka_unit_test(a_device_that_attested_is_never_set_free),
        cmocka_unit_test(each_owner_has_the_kind_of_share_that_its_bit_says),
        cmocka_unit_test(a_restored_copy_says_the_same_bytes),
        cmocka_unit_test(a_restored_copy_refuses_what_the_first_one_would),
        cmocka_unit_test(a_damaged_record_is_refused_or_harmless),
        cmocka_unit_test(a_record_of_another_round_or_device_is_refused),
        cmocka_unit_test(secrets_before_the_roster_are_never_saved),
        cmocka_unit_test(an_abort_is_signed_and_final_in_every_phase),
        cmocka_unit_test(a_masked_vector_alone_is_uniform),
        cmocka_unit_test(another_set_of_sharers_gives_a_random_sum),
        cmocka_unit_test(another_model_gives_a_random_sum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
