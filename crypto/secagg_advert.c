/* SPDX-License-Identifier: Apache-2.0 */

/* Adverts (M1), and the other messages of linnet-sa1 that both sides read: SECURE-AGGREGATION 2.4. A device
 * trusts nothing that the coordinator says about a member: certificate, signature, revocation and keys are
 * checked here by everybody for everybody. */

#include "secagg_inner.h"

#define COHORT_MIN 3 /* of two members each has one holder, and two shares would be needed */

linnet_status linnet_secagg_params_check(const linnet_secagg_params *params, linnet_error *err)
{
    if (params->n_min < COHORT_MIN || params->n_min > params->n_max ||
        params->n_max > LINNET_SECAGG_MEMBERS_MAX)
        return linnet_fail(err, LINNET_ERR_ARG, "secure aggregation: a cohort of %u to %u, must be %d to %d",
                           (unsigned)params->n_min, (unsigned)params->n_max, COHORT_MIN,
                           LINNET_SECAGG_MEMBERS_MAX);
    if (params->corrupt_permille > 500)
        return linnet_fail(err, LINNET_ERR_ARG, "secure aggregation: %u permille corrupt, at most 500",
                           (unsigned)params->corrupt_permille);
    if (params->n_vectors < 1 || params->n_vectors > LINNET_SECAGG_VECTORS_MAX)
        return linnet_fail(err, LINNET_ERR_ARG, "secure aggregation: %u vectors, must be 1 to %d",
                           (unsigned)params->n_vectors, LINNET_SECAGG_VECTORS_MAX);
    for (size_t i = 0; i < params->n_vectors; i++) {
        const linnet_secagg_vector *v = &params->vectors[i];
        if (!linnet_pack_is_width(v->bits) || v->length == 0 || v->length > UINT32_MAX)
            return linnet_fail(err, LINNET_ERR_ARG,
                               "secure aggregation: vector of %llu coordinates of %u bits",
                               (unsigned long long)v->length, (unsigned)v->bits);
        for (size_t j = 0; j < i; j++) /* two vectors of one id would share a keystream */
            if (params->vectors[j].id == v->id)
                return linnet_fail(err, LINNET_ERR_ARG, "secure aggregation: two vectors of id %u",
                                   (unsigned)v->id);
    }
    return LINNET_OK;
}

static bool is_in_consortium(const linnet_secagg_trust *trust, const linnet_public_key *key)
{
    if (!trust->consortium)
        return true;
    for (size_t i = 0; i < trust->n_consortium; i++)
        if (memcmp(trust->consortium[i].bytes, key->bytes, sizeof(key->bytes)) == 0)
            return true;
    return false;
}

/* X25519 ignores the top bit, so that a key with it set equals another one: it is refused. */
static bool is_kx_key(const uint8_t key[32])
{
    return !(key[31] & 0x80) && linnet_x25519_is_usable(key);
}

linnet_status linnet_secagg_advert_open(const uint8_t *advert, const linnet_hash *announcement,
                                        const linnet_secagg_trust *trust, linnet_secagg_member *ret_member,
                                        linnet_error *err)
{
    linnet_certificate certificate;
    linnet_signature signature;
    linnet_secagg_member member;
    memcpy(signature.bytes, advert + ADVERT_SIGNATURE, sizeof(signature.bytes));
    linnet_status status =
        linnet_certificate_open(advert + ADVERT_CERTIFICATE, LINNET_SIGNED_CERTIFICATE_BYTES,
                                trust->authority, trust->now_s, &certificate);
    if (status != LINNET_OK)
        return linnet_fail(err, status, "advert: its certificate is not valid");
    if (linnet_verify(&certificate.public_key, LINNET_LABEL_ADVERT, advert, LINNET_ADVERT_BODY_BYTES,
                      &signature) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_CRYPTO, "advert: not signed by the key of its certificate");
    if (memcmp(advert, announcement->bytes, LINNET_HASH_BYTES) != 0)
        return linnet_fail(err, LINNET_ERR_MISMATCH, "advert: of another announcement");
    if (memcmp(advert + ADVERT_ID, certificate.device_id.bytes, LINNET_DEVICE_ID_BYTES) != 0)
        return linnet_fail(err, LINNET_ERR_MISMATCH, "advert: of another device than its certificate");
    if (trust->revocation && linnet_revocation_contains(trust->revocation, &certificate.device_id))
        return linnet_fail(err, LINNET_ERR_DENIED, "advert: of a revoked device");
    if (!is_in_consortium(trust, &certificate.public_key))
        return linnet_fail(err, LINNET_ERR_DENIED, "advert: of a device outside the pinned consortium");
    member.id = certificate.device_id;
    member.key = certificate.public_key;
    memcpy(member.pk_x, advert + ADVERT_PK_X, 32);
    memcpy(member.pk_e, advert + ADVERT_PK_E, 32);
    memcpy(member.commitment.bytes, advert + ADVERT_COMMITMENT, LINNET_HASH_BYTES);
    if (!is_kx_key(member.pk_x) || !is_kx_key(member.pk_e) || memcmp(member.pk_x, member.pk_e, 32) == 0)
        return linnet_fail(err, LINNET_ERR_CRYPTO, "advert: its key exchange keys are not usable");
    *ret_member = member;
    return LINNET_OK;
}

linnet_status linnet_survivors_parse(const void *bytes, size_t n_bytes, uint32_t n, const linnet_hash *t2,
                                     bool is_whole, linnet_survivors *ret_survivors, linnet_error *err)
{
    linnet_reader reader = linnet_reader_of(bytes, n_bytes);
    linnet_survivors s = {0};
    const uint8_t *signature = linnet_reader_take(&reader, LINNET_SIGNATURE_BYTES);
    s.bitmap = linnet_reader_take(&reader, linnet_bitmap_bytes(n));
    if (reader.failed || linnet_bitmap_check(s.bitmap, n) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_FORMAT, "survivors: malformed");
    s.n_survivors = linnet_bitmap_count(s.bitmap, n);
    s.list = linnet_reader_take(&reader, (size_t)s.n_survivors * SURVIVOR_BYTES);
    if (reader.failed || (is_whole && !linnet_reader_is_done(&reader)))
        return linnet_fail(err, LINNET_ERR_FORMAT, "survivors: of another length than their bitmap asks for");
    memcpy(s.signature.bytes, signature, sizeof(s.signature.bytes));
    linnet_hash r = linnet_secagg_survivor_list(s.list, s.n_survivors);
    s.t3 = linnet_secagg_t3(t2, s.bitmap, n, &r);
    s.n_bytes = reader.at;
    *ret_survivors = s;
    return LINNET_OK;
}
