/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A round's chain checked by an auditor (SECURE-AGGREGATION 2.4, 7). The checks are those of a member, except
 * the ones that need a member's own messages; the hashes are made again from the messages and never read. The
 * validity of certificates is not held against a clock: a log has no time that its writer could not choose.
 */
#include "linnet/secagg_audit.h"

#include "secagg_inner.h"

#define CERTIFICATE_KEY (ADVERT_CERTIFICATE + 2 + LINNET_DEVICE_ID_BYTES) /* behind version and id */

static linnet_signature signature_at(const uint8_t *bytes)
{
    linnet_signature signature;
    memcpy(signature.bytes, bytes, sizeof(signature.bytes));
    return signature;
}

static const uint8_t *advert_at(const linnet_secagg_audit *audit, uint32_t index)
{
    return audit->adverts + (size_t)index * LINNET_ADVERT_BYTES;
}

linnet_device_id linnet_secagg_audit_device(const linnet_secagg_audit *audit, uint32_t index)
{
    linnet_device_id id;
    memcpy(id.bytes, advert_at(audit, index) + ADVERT_ID, sizeof(id.bytes));
    return id;
}

linnet_public_key linnet_secagg_audit_key(const linnet_secagg_audit *audit, uint32_t index)
{
    linnet_public_key key;
    memcpy(key.bytes, advert_at(audit, index) + CERTIFICATE_KEY, sizeof(key.bytes));
    return key;
}

int32_t linnet_secagg_audit_index(const linnet_secagg_audit *audit, const linnet_device_id *device)
{
    for (uint32_t i = 0; i < audit->n; i++)
        if (memcmp(advert_at(audit, i) + ADVERT_ID, device->bytes, sizeof(device->bytes)) == 0)
            return (int32_t)i;
    return -1;
}

const uint8_t *linnet_secagg_audit_contribution(const linnet_secagg_audit *audit, uint32_t index)
{
    if (index >= audit->n || !linnet_bitmap_has(audit->survivors, index))
        return NULL;
    return audit->list + (size_t)linnet_bitmap_count(audit->survivors, index) * SURVIVOR_BYTES;
}

/* ---- T1 ---- */

/* An M2 taken apart; NULL where its length is not that of its count. */
static const uint8_t *roster_open(const void *m2, size_t n_bytes, uint32_t *ret_n)
{
    linnet_reader reader = linnet_reader_of(m2, n_bytes);
    (void)linnet_reader_take(&reader, LINNET_SIGNATURE_BYTES);
    uint32_t n = linnet_reader_le32(&reader);
    if (reader.failed || n == 0 || n > LINNET_SECAGG_MEMBERS_MAX)
        return NULL;
    const uint8_t *adverts = linnet_reader_take(&reader, (size_t)n * LINNET_ADVERT_BYTES);
    *ret_n = n;
    return linnet_reader_is_done(&reader) ? adverts : NULL;
}

/* Keys of member i against those of the members before: two of one key would share a mask. */
static bool keys_differ(const uint8_t *adverts, uint32_t i)
{
    const uint8_t *own = adverts + (size_t)i * LINNET_ADVERT_BYTES;
    for (uint32_t j = 0; j < i; j++) {
        const uint8_t *other = adverts + (size_t)j * LINNET_ADVERT_BYTES;
        if (memcmp(own + ADVERT_PK_X, other + ADVERT_PK_X, 32) == 0 ||
            memcmp(own + ADVERT_PK_X, other + ADVERT_PK_E, 32) == 0 ||
            memcmp(own + ADVERT_PK_E, other + ADVERT_PK_X, 32) == 0 ||
            memcmp(own + ADVERT_PK_E, other + ADVERT_PK_E, 32) == 0)
            return false;
    }
    return true;
}

static const char *member_flaw(const linnet_secagg_audit *audit, const linnet_secagg_trust *trust,
                               const uint8_t *adverts, uint32_t i)
{
    linnet_secagg_member member;
    const uint8_t *advert = adverts + (size_t)i * LINNET_ADVERT_BYTES;
    switch (linnet_secagg_advert_open(advert, &audit->params.announcement, trust, &member, NULL)) {
    case LINNET_OK:
        break;
    case LINNET_ERR_DENIED:
        return "the roster has a revoked member, or one outside the consortium";
    case LINNET_ERR_MISMATCH:
        return "the roster has an advert of another announcement or device";
    default:
        return "the roster has an advert whose certificate, signature or keys are not good";
    }
    if (i > 0 &&
        memcmp(advert - LINNET_ADVERT_BYTES + ADVERT_ID, advert + ADVERT_ID, LINNET_DEVICE_ID_BYTES) >= 0)
        return "the roster's devices do not increase";
    return keys_differ(adverts, i) ? NULL : "the roster has one key twice";
}

linnet_status linnet_secagg_roster_body(const linnet_hash *announcement, const void *m2, size_t n_bytes,
                                        linnet_buffer *ret_body, linnet_signature *ret_signature)
{
    uint32_t n = 0;
    const uint8_t *adverts = roster_open(m2, n_bytes, &n);
    if (!adverts)
        return LINNET_ERR_FORMAT;
    linnet_buffer_append(ret_body, announcement->bytes, LINNET_HASH_BYTES);
    linnet_buffer_append_le32(ret_body, n);
    for (uint32_t i = 0; i < n; i++) {
        linnet_hash leaf = linnet_secagg_leaf(adverts + (size_t)i * LINNET_ADVERT_BYTES);
        linnet_buffer_append(ret_body, leaf.bytes, LINNET_HASH_BYTES);
    }
    *ret_signature = signature_at(m2);
    return ret_body->failed ? LINNET_ERR_NOMEM : LINNET_OK;
}

static bool is_signed(const linnet_secagg_audit *audit, const linnet_hash *hash, const void *signature)
{
    linnet_signature s = signature_at(signature);
    return linnet_verify_hash(&audit->params.coordinator, hash, &s) == LINNET_OK;
}

const char *linnet_secagg_audit_roster(linnet_secagg_audit *audit, const linnet_secagg_trust *trust,
                                       const void *m2, size_t n_bytes)
{
    uint32_t n = 0;
    linnet_hash leaves[LINNET_SECAGG_MEMBERS_MAX];
    const uint8_t *adverts = roster_open(m2, n_bytes, &n);
    if (!adverts)
        return "the roster is malformed";
    if (n < audit->params.n_min || n > audit->params.n_max)
        return "the roster is smaller or larger than announced";
    for (uint32_t i = 0; i < n; i++)
        leaves[i] = linnet_secagg_leaf(adverts + (size_t)i * LINNET_ADVERT_BYTES);
    linnet_hash t1 = linnet_secagg_t1(&audit->params.announcement, leaves, n);
    if (!is_signed(audit, &t1, m2))
        return "the roster is not signed by the coordinator";
    for (uint32_t i = 0; i < n; i++) {
        const char *flaw = member_flaw(audit, trust, adverts, i);
        if (flaw)
            return flaw;
    }
    audit->n = n;
    audit->adverts = adverts;
    audit->t1 = t1;
    audit->thresholds = linnet_secagg_thresholds_of(&audit->params, n);
    return NULL;
}

/* ---- T2 ---- */

linnet_status linnet_secagg_sharers_body(const linnet_hash *t1, const void *bytes, size_t n_bytes,
                                         linnet_buffer *ret_body, linnet_signature *ret_signature)
{
    if (n_bytes <= LINNET_SIGNATURE_BYTES || n_bytes > LINNET_SIGNATURE_BYTES + LINNET_SECAGG_BITMAP_MAX)
        return LINNET_ERR_FORMAT;
    linnet_buffer_append(ret_body, t1->bytes, LINNET_HASH_BYTES);
    linnet_buffer_append(ret_body, (const uint8_t *)bytes + LINNET_SIGNATURE_BYTES,
                         n_bytes - LINNET_SIGNATURE_BYTES);
    *ret_signature = signature_at(bytes);
    return ret_body->failed ? LINNET_ERR_NOMEM : LINNET_OK;
}

const char *linnet_secagg_audit_sharers(linnet_secagg_audit *audit, const void *bytes, size_t n_bytes)
{
    const uint8_t *bitmap = (const uint8_t *)bytes + LINNET_SIGNATURE_BYTES;
    if (n_bytes != LINNET_SIGNATURE_BYTES + linnet_bitmap_bytes(audit->n) ||
        linnet_bitmap_check(bitmap, audit->n) != LINNET_OK)
        return "the set of sharers is malformed";
    linnet_hash t2 = linnet_secagg_t2(&audit->t1, bitmap, audit->n);
    if (!is_signed(audit, &t2, bytes))
        return "the set of sharers is not signed by the coordinator";
    audit->n_sharers = linnet_bitmap_count(bitmap, audit->n);
    if (audit->n_sharers < audit->thresholds.sharers_min)
        return "fewer members shared than the thresholds ask for";
    audit->sharers = bitmap;
    audit->t2 = t2;
    return NULL;
}

/* ---- T3 ---- */

linnet_status linnet_secagg_survivors_body(const linnet_hash *t2, uint32_t n, const void *m6, size_t n_bytes,
                                           linnet_buffer *ret_body, linnet_signature *ret_signature)
{
    linnet_survivors s;
    linnet_status status = n == 0 || n > LINNET_SECAGG_MEMBERS_MAX
                               ? LINNET_ERR_FORMAT
                               : linnet_survivors_parse(m6, n_bytes, n, t2, true, &s, NULL);
    if (status != LINNET_OK)
        return status;
    linnet_hash r = linnet_secagg_survivor_list(s.list, s.n_survivors);
    linnet_buffer_append(ret_body, t2->bytes, LINNET_HASH_BYTES);
    linnet_buffer_append(ret_body, s.bitmap, linnet_bitmap_bytes(n));
    linnet_buffer_append(ret_body, r.bytes, LINNET_HASH_BYTES);
    *ret_signature = s.signature;
    return ret_body->failed ? LINNET_ERR_NOMEM : LINNET_OK;
}

static const char *survivors_flaw(const linnet_secagg_audit *audit, const linnet_survivors *s)
{
    if (linnet_verify_hash(&audit->params.coordinator, &s->t3, &s->signature) != LINNET_OK)
        return "the set of survivors is not signed by the coordinator";
    for (uint32_t i = 0; i < audit->n; i++)
        if (linnet_bitmap_has(s->bitmap, i) && !linnet_bitmap_has(audit->sharers, i))
            return "a survivor is not among the sharers";
    if (s->n_survivors < audit->thresholds.survivors_min)
        return "fewer members survived than the thresholds ask for";
    return NULL;
}

const char *linnet_secagg_audit_survivors(linnet_secagg_audit *audit, const void *m6, size_t n_bytes)
{
    linnet_survivors s;
    if (linnet_survivors_parse(m6, n_bytes, audit->n, &audit->t2, true, &s, NULL) != LINNET_OK)
        return "the set of survivors is malformed";
    const char *flaw = survivors_flaw(audit, &s);
    if (flaw)
        return flaw;
    audit->survivors = s.bitmap;
    audit->list = s.list;
    audit->n_survivors = s.n_survivors;
    audit->t3 = s.t3;
    return NULL;
}

/* ---- the certificate ---- */

const char *linnet_secagg_audit_certificate(linnet_secagg_audit *audit, const void *m8, size_t n_bytes)
{
    linnet_survivors s;
    if (linnet_survivors_parse(m8, n_bytes, audit->n, &audit->t2, false, &s, NULL) != LINNET_OK)
        return "the certificate is malformed";
    if (!linnet_hash_equal(&s.t3, &audit->t3))
        return "the certificate is for another set of survivors";
    if (!is_signed(audit, &s.t3, m8))
        return "the certificate's set of survivors is not signed by the coordinator";
    linnet_reader reader = linnet_reader_of((const uint8_t *)m8 + s.n_bytes, n_bytes - s.n_bytes);
    uint32_t count = linnet_reader_le32(&reader);
    if (reader.failed || count > audit->n || n_bytes - s.n_bytes != 4 + (size_t)count * ATTEST_ENTRY_BYTES)
        return "the certificate is malformed";
    if (count < audit->thresholds.signatures)
        return "the certificate has fewer attestations than q";
    for (uint32_t i = 0, before = 0; i < count; i++) {
        uint32_t index = linnet_reader_le32(&reader);
        linnet_signature signature = signature_at(linnet_reader_take(&reader, LINNET_SIGNATURE_BYTES));
        if (index >= audit->n || (i > 0 && index <= before))
            return "the certificate's signers do not increase";
        if (!linnet_bitmap_has(audit->survivors, index))
            return "the certificate is signed by a member that is no survivor";
        linnet_public_key key = linnet_secagg_audit_key(audit, index);
        if (linnet_verify(&key, LINNET_LABEL_ATTEST, audit->t3.bytes, LINNET_HASH_BYTES, &signature) !=
            LINNET_OK)
            return "an attestation in the certificate is forged";
        before = index;
    }
    audit->n_attested = count;
    return NULL;
}
