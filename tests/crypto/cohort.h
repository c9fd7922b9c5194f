/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_TEST_COHORT_H
#define LINNET_TEST_COHORT_H

/* A whole cohort in one process: n enrolled devices, one coordinator, and the messages between them carried
 * by hand, so that a test can lose, alter or repeat any of them. */

#include "linnet/secagg.h"
#include "testing.h"

#include <stdlib.h>

#define COHORT_MAX LINNET_SECAGG_MEMBERS_MAX
#define COHORT_COORDINATES 5000 /* more than a chunk, and odd in its last one */

typedef struct cohort_member {
    linnet_identity *identity;
    uint8_t certificate[LINNET_SIGNED_CERTIFICATE_BYTES];
    linnet_secagg_device *device;
    uint8_t *x, *y; /* packed: plain and masked */
    uint8_t *m3;    /* as the coordinator stored it */
    size_t n_m3;
} cohort_member;

typedef struct cohort {
    uint32_t n;
    linnet_secagg_params params;
    linnet_identity *coordinator, *authority;
    linnet_public_key authority_key;
    linnet_secagg_trust trust;
    linnet_secagg_server *server;
    cohort_member *members; /* in the order of creation, which is not the roster's */
    uint32_t *want;         /* sum of the survivors' plain values, modulo 2^32 */
} cohort;

/* A member drops out before it sends this message; LAST: it never does. */
typedef enum cohort_drop {
    DROP_ADVERT = 1,
    DROP_SHARES = 3,
    DROP_MASKED = 5,
    DROP_ATTEST = 7,
    DROP_UNMASK = 9,
    DROP_NEVER = 99
} cohort_drop;

static inline size_t cohort_bytes(const cohort *c)
{
    return linnet_pack_bytes(c->params.vectors[0].bits, c->params.vectors[0].length);
}

static inline void cohort_init(cohort *c, uint32_t n, uint32_t bits)
{
    *c = (cohort){.n = n};
    assert_int_equal(linnet_crypto_init(NULL), LINNET_OK);
    assert_int_equal(linnet_identity_create(&c->coordinator, NULL), LINNET_OK);
    assert_int_equal(linnet_identity_create(&c->authority, NULL), LINNET_OK);
    c->authority_key = *linnet_identity_public_key(c->authority);
    c->trust = (linnet_secagg_trust){.authority = &c->authority_key, .now_s = 1000};
    c->params = (linnet_secagg_params){.coordinator = *linnet_identity_public_key(c->coordinator),
                                       .n_min = 3,
                                       .n_max = n,
                                       .m_min = 2,
                                       .corrupt_permille = 50,
                                       .n_vectors = 1,
                                       .vectors = {{.id = 0, .bits = bits, .length = COHORT_COORDINATES}}};
    linnet_random_bytes(&c->params.announcement, sizeof(c->params.announcement));
    c->members = calloc(n, sizeof(*c->members));
    c->want = calloc(COHORT_COORDINATES, sizeof(*c->want));
    assert_non_null(c->members);
    assert_non_null(c->want);
    assert_int_equal(linnet_secagg_server_create(&c->params, c->coordinator, &c->server, NULL), LINNET_OK);
    for (uint32_t i = 0; i < n; i++) {
        cohort_member *m = &c->members[i];
        assert_int_equal(linnet_identity_create(&m->identity, NULL), LINNET_OK);
        linnet_certificate certificate = {.public_key = *linnet_identity_public_key(m->identity),
                                          .serial = i + 1,
                                          .not_before = 1,
                                          .not_after = 5000};
        certificate.device_id = linnet_device_id_of(&certificate.public_key);
        linnet_certificate_sign(&certificate, c->authority, m->certificate);
        m->x = calloc(cohort_bytes(c), 1);
        m->y = calloc(cohort_bytes(c), 1);
        linnet_random_bytes(m->x, cohort_bytes(c));
        assert_int_equal(
            linnet_secagg_device_create(&c->params, m->identity, m->certificate, &m->device, NULL),
            LINNET_OK);
    }
}

static inline void cohort_release(cohort *c)
{
    for (uint32_t i = 0; i < c->n; i++) {
        linnet_secagg_device_destroy(c->members[i].device);
        linnet_identity_destroy(c->members[i].identity);
        free(c->members[i].x);
        free(c->members[i].y);
        free(c->members[i].m3);
    }
    free(c->members);
    free(c->want);
    linnet_secagg_server_destroy(c->server);
    linnet_identity_destroy(c->coordinator);
    linnet_identity_destroy(c->authority);
}

/* Where member i stands in the roster. */
static inline uint32_t cohort_index(const cohort *c, uint32_t i)
{
    linnet_device_id id = linnet_device_id_of(linnet_identity_public_key(c->members[i].identity));
    int32_t index = linnet_secagg_server_index(c->server, &id);
    assert_true(index >= 0);
    return (uint32_t)index;
}

static inline linnet_status cohort_read(void *context, uint32_t owner, size_t offset, void *bytes,
                                        size_t n_bytes, linnet_error *err)
{
    const cohort *c = context;
    for (uint32_t i = 0; i < c->n; i++) {
        linnet_device_id id = linnet_device_id_of(linnet_identity_public_key(c->members[i].identity));
        const linnet_device_id *wanted = linnet_secagg_server_device(c->server, owner);
        if (memcmp(id.bytes, wanted->bytes, sizeof(id.bytes)) != 0)
            continue;
        assert_true(offset + n_bytes <= c->members[i].n_m3);
        memcpy(bytes, c->members[i].m3 + offset, n_bytes);
        return LINNET_OK;
    }
    return linnet_fail(err, LINNET_ERR_NOT_FOUND, "no such member");
}

/* M1 of all that send it, then M2. */
static inline linnet_status cohort_adverts(cohort *c, const cohort_drop *drops)
{
    for (uint32_t i = 0; i < c->n; i++) {
        size_t n_bytes;
        const uint8_t *m1 = linnet_secagg_device_advert(c->members[i].device, &n_bytes);
        if (drops[i] <= DROP_ADVERT)
            continue;
        linnet_status status = linnet_secagg_server_advert(c->server, &c->trust, m1, n_bytes, false, NULL);
        if (status == LINNET_OK)
            status = linnet_secagg_server_advert(c->server, &c->trust, m1, n_bytes, true, NULL);
        assert_int_equal(status, LINNET_OK);
    }
    return linnet_secagg_server_close_roster(c->server, NULL);
}

static inline linnet_status cohort_shares(cohort *c, const cohort_drop *drops)
{
    linnet_buffer m2 = {0};
    assert_int_equal(linnet_secagg_server_make_roster(c->server, &m2, NULL), LINNET_OK);
    for (uint32_t i = 0; i < c->n; i++) {
        cohort_member *m = &c->members[i];
        linnet_error err = {0};
        if (drops[i] <= DROP_SHARES)
            continue;
        linnet_status status =
            linnet_secagg_device_take_roster(m->device, &c->trust, m2.bytes, m2.n_bytes, &err);
        if (status != LINNET_OK)
            fail_msg("roster: %s", err.message);
        const uint8_t *m3 = linnet_secagg_device_shares(m->device, &m->n_m3);
        m->m3 = malloc(m->n_m3);
        memcpy(m->m3, m3, m->n_m3);
        assert_int_equal(linnet_secagg_server_shares(c->server, m3, m->n_m3, true, &err), LINNET_OK);
    }
    linnet_buffer_release(&m2);
    return linnet_secagg_server_close_sharers(c->server, NULL);
}

/* The masked vector of one member, and its echo, fixed. The header's signature stands for a real header's. */
static inline void cohort_mask(cohort *c, cohort_member *m, linnet_hash *ret_echo,
                               linnet_signature *ret_signature)
{
    const linnet_secagg_vector *v = &c->params.vectors[0];
    memcpy(m->y, m->x, cohort_bytes(c));
    for (uint64_t first = 0; first < v->length; first += LINNET_PACK_CHUNK) {
        size_t n = v->length - first < LINNET_PACK_CHUNK ? (size_t)(v->length - first) : LINNET_PACK_CHUNK;
        assert_int_equal(linnet_secagg_device_mask(m->device, 0, first, n, m->y + first * v->bits / 8, NULL),
                         LINNET_OK);
    }
    *ret_echo = linnet_hash_of(LINNET_LABEL_VECTOR, m->y, cohort_bytes(c));
    *ret_signature = linnet_sign(m->identity, LINNET_LABEL_MASKED, ret_echo, sizeof(*ret_echo));
    assert_int_equal(linnet_secagg_device_fix_echo(m->device, ret_echo, ret_signature, NULL), LINNET_OK);
}

static inline linnet_status cohort_masked(cohort *c, const cohort_drop *drops)
{
    for (uint32_t i = 0; i < c->n; i++) {
        cohort_member *m = &c->members[i];
        linnet_buffer m4 = {0};
        linnet_error err = {0};
        linnet_hash echo;
        linnet_signature signature;
        linnet_device_id id = linnet_device_id_of(linnet_identity_public_key(m->identity));
        if (drops[i] <= DROP_MASKED)
            continue;
        assert_int_equal(linnet_secagg_server_make_sharers(c->server, &id, cohort_read, c, &m4, &err),
                         LINNET_OK);
        if (linnet_secagg_device_take_sharers(m->device, m4.bytes, m4.n_bytes, &err) != LINNET_OK)
            fail_msg("sharers: %s", err.message);
        linnet_buffer_release(&m4);
        cohort_mask(c, m, &echo, &signature);
        assert_int_equal(linnet_secagg_server_masked(c->server, &id, &echo, &signature, true, &err),
                         LINNET_OK);
        linnet_pack_add(c->params.vectors[0].bits, m->x, COHORT_COORDINATES, c->want);
    }
    return linnet_secagg_server_freeze(c->server, NULL);
}

static inline linnet_status cohort_attested(cohort *c, const cohort_drop *drops)
{
    linnet_buffer m6 = {0}, m8 = {0};
    assert_int_equal(linnet_secagg_server_make_survivors(c->server, &m6, NULL), LINNET_OK);
    for (uint32_t i = 0; i < c->n; i++) {
        linnet_secagg_device *d = c->members[i].device;
        linnet_error err = {0};
        size_t n_bytes;
        if (drops[i] <= DROP_ATTEST)
            continue;
        if (linnet_secagg_device_take_survivors(d, m6.bytes, m6.n_bytes, &err) != LINNET_OK)
            fail_msg("survivors: %s", err.message);
        const uint8_t *m7 = linnet_secagg_device_attestation(d, &n_bytes);
        assert_int_equal(linnet_secagg_server_attestation(c->server, m7, n_bytes, true, &err), LINNET_OK);
    }
    linnet_buffer_release(&m6);
    linnet_status status = linnet_secagg_server_make_certificate(c->server, &m8, NULL);
    linnet_buffer_release(&m8);
    return status;
}

/* M8 and M9. Those that dropped out before M7 may come back here and adopt: with DROP_ATTEST they do not. */
static inline linnet_status cohort_unmasked(cohort *c, const cohort_drop *drops)
{
    linnet_buffer m8 = {0};
    assert_int_equal(linnet_secagg_server_make_certificate(c->server, &m8, NULL), LINNET_OK);
    for (uint32_t i = 0; i < c->n; i++) {
        linnet_secagg_device *d = c->members[i].device;
        linnet_error err = {0};
        size_t n_bytes;
        if (drops[i] <= DROP_UNMASK)
            continue;
        if (linnet_secagg_device_take_certificate(d, m8.bytes, m8.n_bytes, &err) != LINNET_OK)
            fail_msg("certificate: %s", err.message);
        const uint8_t *m9 = linnet_secagg_device_unmask(d, &n_bytes);
        assert_int_equal(linnet_secagg_server_unmasking(c->server, m9, n_bytes, true, &err), LINNET_OK);
    }
    linnet_buffer_release(&m8);
    return linnet_secagg_server_open(c->server, NULL, NULL);
}

/* Fold what was uploaded, take the masks off; does it equal the sum of the plain values modulo 2^b? */
static inline bool cohort_sum_is_right(cohort *c)
{
    const linnet_secagg_vector *v = &c->params.vectors[0];
    uint32_t *sum = calloc((size_t)v->length, sizeof(*sum)),
             modulus = v->bits == 32 ? UINT32_MAX : (1u << v->bits) - 1;
    bool is_right = true;
    assert_non_null(sum);
    for (uint32_t i = 0; i < c->n; i++) {
        linnet_device_id id = linnet_device_id_of(linnet_identity_public_key(c->members[i].identity));
        int32_t index = linnet_secagg_server_index(c->server, &id);
        if (index >= 0 && linnet_secagg_server_is_survivor(c->server, (uint32_t)index))
            linnet_pack_add(v->bits, c->members[i].y, (size_t)v->length, sum);
    }
    for (uint64_t first = 0; first < v->length; first += LINNET_PACK_CHUNK) {
        size_t n = v->length - first < LINNET_PACK_CHUNK ? (size_t)(v->length - first) : LINNET_PACK_CHUNK;
        assert_int_equal(linnet_secagg_server_unmask(c->server, 0, first, n, sum + first, NULL), LINNET_OK);
    }
    for (uint64_t i = 0; i < v->length; i++)
        is_right = is_right && ((sum[i] ^ c->want[i]) & modulus) == 0;
    free(sum);
    return is_right;
}

/* A whole round; the status of the step that could not be taken, or OK with the right sum. */
static inline linnet_status cohort_play(cohort *c, const cohort_drop *drops)
{
    linnet_status status = cohort_adverts(c, drops);
    if (status == LINNET_OK)
        status = cohort_shares(c, drops);
    if (status == LINNET_OK)
        status = cohort_masked(c, drops);
    if (status == LINNET_OK)
        status = cohort_attested(c, drops);
    if (status == LINNET_OK)
        status = cohort_unmasked(c, drops);
    if (status == LINNET_OK)
        assert_true(cohort_sum_is_right(c));
    return status;
}

#endif
