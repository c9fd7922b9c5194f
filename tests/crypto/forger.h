/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_TEST_FORGER_H
#define LINNET_TEST_FORGER_H

/* A coordinator of linnet-sa1 that can lie. It holds every key of a small cohort and makes, and signs, any
 * M2, M4, M6 or M8; members stand in the order of their ids, so that i is the index in the roster. Used by
 * tests and fuzz targets alike, hence without cmocka. */

#include "crypto/secagg_device.h"
#include "linnet/secagg.h"

#include <stdlib.h>

#define FORGER_MAX 12
#define FORGER_COORDINATES 9

/* Stop where the fixture itself does not work. */
#define FORGER_REQUIRE(claim)                                                                                \
    do {                                                                                                     \
        if (!(claim))                                                                                        \
            abort();                                                                                         \
    } while (0)

typedef struct forger_member {
    linnet_identity *identity;
    uint8_t certificate[LINNET_SIGNED_CERTIFICATE_BYTES];
    linnet_secagg_device *device;
    linnet_hash echo; /* of the masked vector, once there is one */
    linnet_signature header;
} forger_member;

typedef struct forger {
    uint32_t n;
    linnet_secagg_params params;
    linnet_identity *coordinator, *authority;
    linnet_public_key authority_key;
    linnet_secagg_trust trust;
    linnet_secagg_thresholds thresholds;
    forger_member m[FORGER_MAX];
} forger;

typedef struct forger_set {
    uint8_t bits[LINNET_SECAGG_BITMAP_MAX];
} forger_set;

/* Members 0 .. n - 1. */
static inline forger_set forger_all(uint32_t n)
{
    forger_set set = {{0}};
    for (uint32_t i = 0; i < n; i++)
        linnet_bitmap_set(set.bits, i);
    return set;
}

static inline forger_set forger_without(forger_set set, uint32_t i)
{
    set.bits[i / 8] = (uint8_t)(set.bits[i / 8] & ~(1u << i % 8));
    return set;
}

static inline linnet_identity *forger_identity(uint8_t kind, uint8_t number)
{
    linnet_identity *identity = NULL;
    uint8_t seed[LINNET_SEED_BYTES] = {kind, number};
    FORGER_REQUIRE(linnet_identity_from_seed(seed, &identity, NULL) == LINNET_OK);
    return identity;
}

static inline linnet_device_id forger_id(const forger *f, uint32_t i)
{
    return linnet_device_id_of(linnet_identity_public_key(f->m[i].identity));
}

static inline void forger_certify(const linnet_identity *authority, const linnet_identity *subject,
                                  uint64_t not_before, uint64_t not_after,
                                  uint8_t ret_certificate[LINNET_SIGNED_CERTIFICATE_BYTES])
{
    linnet_certificate certificate = {.public_key = *linnet_identity_public_key(subject),
                                      .serial = 1,
                                      .not_before = not_before,
                                      .not_after = not_after};
    certificate.device_id = linnet_device_id_of(&certificate.public_key);
    linnet_certificate_sign(&certificate, authority, ret_certificate);
}

static inline int forger_compare(const void *a, const void *b)
{
    linnet_device_id x =
        linnet_device_id_of(linnet_identity_public_key(((const forger_member *)a)->identity));
    linnet_device_id y =
        linnet_device_id_of(linnet_identity_public_key(((const forger_member *)b)->identity));
    return memcmp(x.bytes, y.bytes, sizeof(x.bytes));
}

/* n devices that have made their adverts for the announcement that `round` names. */
static inline void forger_init(forger *f, uint32_t n, uint8_t round)
{
    *f = (forger){.n = n};
    FORGER_REQUIRE(n <= FORGER_MAX && linnet_crypto_init(NULL) == LINNET_OK);
    f->coordinator = forger_identity(1, 0);
    f->authority = forger_identity(2, 0);
    f->authority_key = *linnet_identity_public_key(f->authority);
    f->trust = (linnet_secagg_trust){.authority = &f->authority_key, .now_s = 1000};
    f->params = (linnet_secagg_params){.coordinator = *linnet_identity_public_key(f->coordinator),
                                       .announcement = {{0xa0, round}},
                                       .n_min = 5,
                                       .n_max = FORGER_MAX,
                                       .m_min = 4,
                                       .corrupt_permille = 50,
                                       .n_vectors = 1,
                                       .vectors = {{.bits = 24, .length = FORGER_COORDINATES}}};
    f->thresholds = linnet_secagg_thresholds_of(&f->params, n);
    for (uint32_t i = 0; i < n; i++)
        f->m[i].identity = forger_identity(3, (uint8_t)i);
    qsort(f->m, n, sizeof(f->m[0]), forger_compare);
    for (uint32_t i = 0; i < n; i++)
        forger_certify(f->authority, f->m[i].identity, 1, 5000, f->m[i].certificate);
}

/* The devices of all members; after a change of parameters, if there is one. */
static inline void forger_advertise(forger *f)
{
    for (uint32_t i = 0; i < f->n; i++) {
        linnet_secagg_device_destroy(f->m[i].device);
        f->m[i].device = NULL;
        FORGER_REQUIRE(linnet_secagg_device_create(&f->params, f->m[i].identity, f->m[i].certificate,
                                                   &f->m[i].device, NULL) == LINNET_OK);
    }
}

static inline void forger_release(forger *f)
{
    for (uint32_t i = 0; i < f->n; i++) {
        linnet_secagg_device_destroy(f->m[i].device);
        linnet_identity_destroy(f->m[i].identity);
    }
    linnet_identity_destroy(f->coordinator);
    linnet_identity_destroy(f->authority);
}

/* ---- messages, each signed by the coordinator whatever it says ---- */

static inline void forger_append_signature(linnet_buffer *b, const linnet_identity *signer,
                                           const linnet_hash *hash)
{
    linnet_signature signature = linnet_sign_hash(signer, hash);
    linnet_buffer_append(b, signature.bytes, sizeof(signature.bytes));
}

static inline linnet_hash forger_t1(const forger *f, const uint8_t *adverts, uint32_t n)
{
    linnet_hash leaves[FORGER_MAX + 1];
    FORGER_REQUIRE(n <= FORGER_MAX + 1);
    for (uint32_t i = 0; i < n; i++)
        leaves[i] = linnet_secagg_leaf(adverts + (size_t)i * LINNET_ADVERT_BYTES);
    return linnet_secagg_t1(&f->params.announcement, leaves, n);
}

/* M2 of any adverts, one behind the other. */
static inline void forger_m2_of(const forger *f, const uint8_t *adverts, uint32_t n, linnet_buffer *m2)
{
    linnet_hash t1 = forger_t1(f, adverts, n);
    linnet_buffer_clear(m2);
    forger_append_signature(m2, f->coordinator, &t1);
    linnet_buffer_append_le32(m2, n);
    linnet_buffer_append(m2, adverts, (size_t)n * LINNET_ADVERT_BYTES);
}

static inline void forger_adverts(const forger *f, uint8_t *adverts)
{
    for (uint32_t i = 0; i < f->n; i++)
        memcpy(adverts + (size_t)i * LINNET_ADVERT_BYTES, f->m[i].device->advert, LINNET_ADVERT_BYTES);
}

static inline void forger_m2(const forger *f, linnet_buffer *m2)
{
    uint8_t adverts[FORGER_MAX * LINNET_ADVERT_BYTES];
    forger_adverts(f, adverts);
    forger_m2_of(f, adverts, f->n, m2);
}

/* The box that member `from` made for member `to`. */
static inline const uint8_t *forger_box(const forger *f, uint32_t from, uint32_t to)
{
    size_t n_bytes;
    const uint8_t *m3 = linnet_secagg_device_shares(f->m[from].device, &n_bytes);
    FORGER_REQUIRE(m3);
    return m3 + MESSAGE_HEAD_BYTES + (size_t)linnet_secagg_slot(to, from) * LINNET_SHARE_BOX_BYTES;
}

/* M4 for member `to`, of the sharers u2. */
static inline void forger_m4(const forger *f, uint32_t to, const linnet_hash *t1, forger_set u2,
                             linnet_buffer *m4)
{
    linnet_hash t2 = linnet_secagg_t2(t1, u2.bits, f->n);
    linnet_buffer_clear(m4);
    forger_append_signature(m4, f->coordinator, &t2);
    linnet_buffer_append(m4, u2.bits, linnet_bitmap_bytes(f->n));
    for (uint32_t j = 0; j < f->n; j++)
        if (j != to && linnet_bitmap_has(u2.bits, j))
            linnet_buffer_append(m4, forger_box(f, j, to), LINNET_SHARE_BOX_BYTES);
}

/* M6 of the survivors u3, with the echoes that the members fixed. */
static inline linnet_hash forger_m6(const forger *f, const linnet_hash *t2, forger_set u3, linnet_buffer *m6)
{
    linnet_buffer list = {0};
    for (uint32_t j = 0; j < f->n; j++) {
        if (!linnet_bitmap_has(u3.bits, j))
            continue;
        linnet_buffer_append(&list, f->m[j].echo.bytes, LINNET_HASH_BYTES);
        linnet_buffer_append(&list, f->m[j].header.bytes, LINNET_SIGNATURE_BYTES);
    }
    linnet_hash r = linnet_secagg_survivor_list(list.bytes, linnet_bitmap_count(u3.bits, f->n));
    linnet_hash t3 = linnet_secagg_t3(t2, u3.bits, f->n, &r);
    linnet_buffer_clear(m6);
    forger_append_signature(m6, f->coordinator, &t3);
    linnet_buffer_append(m6, u3.bits, linnet_bitmap_bytes(f->n));
    linnet_buffer_append(m6, list.bytes, list.n_bytes);
    linnet_buffer_release(&list);
    return t3;
}

/* Behind an M6: the signatures of these members, as given. */
static inline void forger_certificate(const forger *f, const linnet_hash *t3, const uint32_t *signers,
                                      uint32_t n_signers, linnet_buffer *m8)
{
    linnet_buffer_append_le32(m8, n_signers);
    for (uint32_t k = 0; k < n_signers; k++) {
        const linnet_identity *signer = signers[k] < f->n ? f->m[signers[k]].identity : f->authority;
        linnet_signature s = linnet_sign(signer, LINNET_LABEL_ATTEST, t3->bytes, LINNET_HASH_BYTES);
        linnet_buffer_append_le32(m8, signers[k]);
        linnet_buffer_append(m8, s.bytes, sizeof(s.bytes));
    }
}

/* M8 signed by the first q of u3. */
static inline linnet_hash forger_m8(const forger *f, const linnet_hash *t2, forger_set u3, linnet_buffer *m8)
{
    uint32_t signers[FORGER_MAX], n = 0;
    for (uint32_t i = 0; i < f->n && n < f->thresholds.signatures; i++)
        if (linnet_bitmap_has(u3.bits, i))
            signers[n++] = i;
    linnet_hash t3 = forger_m6(f, t2, u3, m8);
    forger_certificate(f, &t3, signers, n, m8);
    return t3;
}

/* ---- honest steps ---- */

/* The masked vector of member i, whose plain values are its index; fixes the echo. */
static inline void forger_mask(forger *f, uint32_t i, uint8_t y[3 * FORGER_COORDINATES])
{
    uint32_t x[FORGER_COORDINATES];
    for (size_t k = 0; k < FORGER_COORDINATES; k++)
        x[k] = i;
    linnet_pack(24, x, FORGER_COORDINATES, y);
    FORGER_REQUIRE(linnet_secagg_device_mask(f->m[i].device, 0, 0, FORGER_COORDINATES, y, NULL) == LINNET_OK);
    f->m[i].echo = linnet_hash_of(LINNET_LABEL_VECTOR, y, 3 * FORGER_COORDINATES);
    f->m[i].header =
        linnet_sign(f->m[i].identity, LINNET_LABEL_MASKED, f->m[i].echo.bytes, LINNET_HASH_BYTES);
    FORGER_REQUIRE(linnet_secagg_device_fix_echo(f->m[i].device, &f->m[i].echo, &f->m[i].header, NULL) ==
                   LINNET_OK);
}

static inline void forger_step(forger *f, uint32_t i, linnet_secagg_phase from, forger_set u2, forger_set u3,
                               linnet_buffer *b)
{
    linnet_secagg_device *d = f->m[i].device;
    uint8_t y[3 * FORGER_COORDINATES];
    linnet_status status = LINNET_OK;
    if (from == LINNET_SECAGG_ADVERTISED) {
        status = linnet_secagg_device_take_roster(d, &f->trust, b->bytes, b->n_bytes, NULL);
    } else if (from == LINNET_SECAGG_SHARED && linnet_bitmap_has(u2.bits, i)) {
        forger_m4(f, i, &d->t1, u2, b);
        status = linnet_secagg_device_take_sharers(d, b->bytes, b->n_bytes, NULL);
        if (status == LINNET_OK && linnet_bitmap_has(u3.bits, i))
            forger_mask(f, i, y);
    } else if (from == LINNET_SECAGG_MASKING && linnet_bitmap_has(u3.bits, i)) {
        (void)forger_m6(f, &d->t2, u3, b);
        status = linnet_secagg_device_take_survivors(d, b->bytes, b->n_bytes, NULL);
    } else if (from == LINNET_SECAGG_ATTESTED && linnet_bitmap_has(u3.bits, i)) {
        (void)forger_m8(f, &d->t2, u3, b);
        status = linnet_secagg_device_take_certificate(d, b->bytes, b->n_bytes, NULL);
    }
    FORGER_REQUIRE(status == LINNET_OK);
}

/* Everybody goes on honestly until it is in `phase`, or where u2 and u3 leave it behind. */
static inline void forger_play(forger *f, linnet_secagg_phase phase, forger_set u2, forger_set u3)
{
    linnet_buffer b = {0};
    for (int from = LINNET_SECAGG_ADVERTISED; from < (int)phase; from++) {
        if (from == LINNET_SECAGG_ADVERTISED)
            forger_m2(f, &b);
        for (uint32_t i = 0; i < f->n; i++)
            forger_step(f, i, (linnet_secagg_phase)from, u2, u3, &b);
    }
    linnet_buffer_release(&b);
}

#endif
