/* SPDX-License-Identifier: Apache-2.0 */
/* Ed25519 identities, signatures under labels, and the three signed things of enrolment
 * (SECURE-AGGREGATION 2.2, 2.3): the request for a certificate, the certificate, the revocation list.
 *
 * A signature is over H(label, body), never over the body itself, so that a body signed for one purpose
 * verifies for no other. Whatever arrives is checked in the order length, signature, contents: nothing
 * unsigned is parsed, except the public key in a request for a certificate, which is what the signature is
 * checked with. The secret key lives in libsodium's guarded pages, read-only; each identity costs a few of
 * them, so keep seeds, not identities, of devices that sleep. What is not here: which token was used, which
 * serial is next (the coordinator's store), and the log key. */
#include "linnet/identity.h"

#include <sodium.h>

#define CERTIFICATE_VERSION 1
#define REVOCATION_HEAD_BYTES (8 + 4)

/* Bytes only: sodium_malloc promises no alignment. */
struct linnet_identity {
    uint8_t secret_key[crypto_sign_SECRETKEYBYTES]; /* seed, then the public key again: libsodium's layout */
    linnet_public_key public_key;
};

_Static_assert(LINNET_SEED_BYTES == crypto_sign_SEEDBYTES, "a seed is libsodium's seed");
_Static_assert(LINNET_SIGNATURE_BYTES == crypto_sign_BYTES, "a signature is Ed25519's");

linnet_status linnet_identity_from_seed(const uint8_t seed[LINNET_SEED_BYTES], linnet_identity **ret_identity,
                                        linnet_error *err)
{
    linnet_identity *identity = sodium_malloc(sizeof(*identity));
    if (!identity)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no guarded memory for a secret key");
    (void)crypto_sign_seed_keypair(identity->public_key.bytes, identity->secret_key, seed); /* cannot fail */
    (void)sodium_mprotect_readonly(identity); /* a second wall only: go on where the system has none */
    *ret_identity = identity;
    return LINNET_OK;
}

linnet_status linnet_identity_create(linnet_identity **ret_identity, linnet_error *err)
{
    uint8_t seed[LINNET_SEED_BYTES];
    randombytes_buf(seed, sizeof(seed));
    linnet_status status = linnet_identity_from_seed(seed, ret_identity, err);
    sodium_memzero(seed, sizeof(seed));
    return status;
}

void linnet_identity_seed(const linnet_identity *identity, uint8_t ret_seed[LINNET_SEED_BYTES])
{
    memcpy(ret_seed, identity->secret_key, LINNET_SEED_BYTES);
}

void linnet_identity_destroy(linnet_identity *identity)
{
    sodium_free(identity); /* wipes, and takes NULL */
}

const linnet_public_key *linnet_identity_public_key(const linnet_identity *identity)
{
    return &identity->public_key;
}

linnet_device_id linnet_device_id_of(const linnet_public_key *public_key)
{
    linnet_device_id id;
    linnet_hash hash = linnet_hash_of(LINNET_LABEL_DEVICE_ID, public_key->bytes, sizeof(public_key->bytes));
    memcpy(id.bytes, hash.bytes, sizeof(id.bytes));
    return id;
}

linnet_signature linnet_sign_hash(const linnet_identity *identity, const linnet_hash *hash)
{
    linnet_signature signature;
    (void)crypto_sign_detached(signature.bytes, NULL, hash->bytes, sizeof(hash->bytes), identity->secret_key);
    return signature; /* Ed25519 signing cannot fail */
}

linnet_status linnet_verify_hash(const linnet_public_key *signer, const linnet_hash *hash,
                                 const linnet_signature *signature)
{
    if (crypto_sign_verify_detached(signature->bytes, hash->bytes, sizeof(hash->bytes), signer->bytes) != 0)
        return LINNET_ERR_CRYPTO;
    return LINNET_OK;
}

linnet_signature linnet_sign(const linnet_identity *identity, linnet_label label, const void *body,
                             size_t n_bytes)
{
    linnet_hash hash = linnet_hash_of(label, body, n_bytes);
    return linnet_sign_hash(identity, &hash);
}

linnet_status linnet_verify(const linnet_public_key *signer, linnet_label label, const void *body,
                            size_t n_bytes, const linnet_signature *signature)
{
    linnet_hash hash = linnet_hash_of(label, body, n_bytes);
    return linnet_verify_hash(signer, &hash, signature);
}

/* ---- requests for a certificate ---- */

#define CSR_PROOF_AT LINNET_CSR_BYTES
#define CSR_SIGNATURE_AT (LINNET_CSR_BYTES + LINNET_HASH_BYTES)

void linnet_csr_sign(const linnet_csr *csr, const linnet_enrol_token *token, const linnet_identity *device,
                     uint8_t ret_bytes[LINNET_SIGNED_CSR_BYTES])
{
    uint8_t *body = ret_bytes;
    memcpy(body, csr->public_key.bytes, 32);
    linnet_store_le32(body + 32, csr->device_class);
    memcpy(body + 36, csr->token_id, LINNET_TOKEN_ID_BYTES);
    memcpy(body + 52, csr->coordinator.bytes, 32);
    linnet_hash proof =
        linnet_hash_keyed(LINNET_LABEL_TOKEN, token->secret, sizeof(token->secret), body, LINNET_CSR_BYTES);
    memcpy(ret_bytes + CSR_PROOF_AT, proof.bytes, sizeof(proof.bytes));
    linnet_signature signature = linnet_sign(device, LINNET_LABEL_ENROLL, body, LINNET_CSR_BYTES);
    memcpy(ret_bytes + CSR_SIGNATURE_AT, signature.bytes, sizeof(signature.bytes));
}

linnet_status linnet_csr_open(const void *bytes, size_t n_bytes, linnet_csr *ret_csr)
{
    if (n_bytes != LINNET_SIGNED_CSR_BYTES)
        return LINNET_ERR_FORMAT;
    const uint8_t *body = bytes;
    linnet_csr csr;
    linnet_signature signature;
    memcpy(csr.public_key.bytes, body, 32);
    memcpy(signature.bytes, body + CSR_SIGNATURE_AT, sizeof(signature.bytes));
    if (linnet_verify(&csr.public_key, LINNET_LABEL_ENROLL, body, LINNET_CSR_BYTES, &signature) != LINNET_OK)
        return LINNET_ERR_CRYPTO;
    csr.device_class = linnet_load_le32(body + 32);
    memcpy(csr.token_id, body + 36, LINNET_TOKEN_ID_BYTES);
    memcpy(csr.coordinator.bytes, body + 52, 32);
    *ret_csr = csr;
    return LINNET_OK;
}

linnet_status linnet_csr_check_token(const void *bytes, size_t n_bytes,
                                     const uint8_t secret[LINNET_TOKEN_SECRET_BYTES])
{
    if (n_bytes != LINNET_SIGNED_CSR_BYTES)
        return LINNET_ERR_FORMAT;
    const uint8_t *body = bytes;
    linnet_hash proof =
        linnet_hash_keyed(LINNET_LABEL_TOKEN, secret, LINNET_TOKEN_SECRET_BYTES, body, LINNET_CSR_BYTES);
    return sodium_memcmp(proof.bytes, body + CSR_PROOF_AT, sizeof(proof.bytes)) == 0 ? LINNET_OK
                                                                                     : LINNET_ERR_CRYPTO;
}

/* ---- certificates ---- */

void linnet_certificate_sign(const linnet_certificate *certificate, const linnet_identity *authority,
                             uint8_t ret_bytes[LINNET_SIGNED_CERTIFICATE_BYTES])
{
    uint8_t *body = ret_bytes;
    linnet_store_le16(body, CERTIFICATE_VERSION);
    memcpy(body + 2, certificate->device_id.bytes, LINNET_DEVICE_ID_BYTES);
    memcpy(body + 18, certificate->public_key.bytes, 32);
    linnet_store_le32(body + 50, certificate->device_class);
    linnet_store_le64(body + 54, certificate->serial);
    linnet_store_le64(body + 62, certificate->not_before);
    linnet_store_le64(body + 70, certificate->not_after);
    linnet_signature signature =
        linnet_sign(authority, LINNET_LABEL_CERTIFICATE, body, LINNET_CERTIFICATE_BYTES);
    memcpy(ret_bytes + LINNET_CERTIFICATE_BYTES, signature.bytes, sizeof(signature.bytes));
}

/* The contents of a certificate whose signature is good. */
static linnet_status certificate_parse(const uint8_t *body, uint64_t now_s, linnet_certificate *certificate)
{
    if (linnet_load_le16(body) != CERTIFICATE_VERSION)
        return LINNET_ERR_FORMAT;
    memcpy(certificate->device_id.bytes, body + 2, LINNET_DEVICE_ID_BYTES);
    memcpy(certificate->public_key.bytes, body + 18, 32);
    certificate->device_class = linnet_load_le32(body + 50);
    certificate->serial = linnet_load_le64(body + 54);
    certificate->not_before = linnet_load_le64(body + 62);
    certificate->not_after = linnet_load_le64(body + 70);
    linnet_device_id id = linnet_device_id_of(&certificate->public_key);
    if (memcmp(id.bytes, certificate->device_id.bytes, sizeof(id.bytes)) != 0 ||
        certificate->not_before > certificate->not_after)
        return LINNET_ERR_FORMAT;
    if (now_s != 0 && (now_s < certificate->not_before || now_s > certificate->not_after))
        return LINNET_ERR_EXPIRED;
    return LINNET_OK;
}

linnet_status linnet_certificate_open(const void *bytes, size_t n_bytes, const linnet_public_key *authority,
                                      uint64_t now_s, linnet_certificate *ret_certificate)
{
    if (n_bytes != LINNET_SIGNED_CERTIFICATE_BYTES)
        return LINNET_ERR_FORMAT;
    const uint8_t *body = bytes;
    linnet_signature signature;
    memcpy(signature.bytes, body + LINNET_CERTIFICATE_BYTES, sizeof(signature.bytes));
    if (linnet_verify(authority, LINNET_LABEL_CERTIFICATE, body, LINNET_CERTIFICATE_BYTES, &signature) !=
        LINNET_OK)
        return LINNET_ERR_CRYPTO;
    linnet_certificate certificate;
    linnet_status status = certificate_parse(body, now_s, &certificate);
    if (status == LINNET_OK)
        *ret_certificate = certificate;
    return status;
}

/* ---- revocation lists ---- */

/* Strictly increasing in memcmp order: sorted, and nothing twice. */
static bool ids_increase(const uint8_t *ids, size_t n_ids)
{
    for (size_t i = 1; i < n_ids; i++)
        if (memcmp(ids + (i - 1) * LINNET_DEVICE_ID_BYTES, ids + i * LINNET_DEVICE_ID_BYTES,
                   LINNET_DEVICE_ID_BYTES) >= 0)
            return false;
    return true;
}

linnet_status linnet_revocation_sign(uint64_t number, const linnet_device_id *ids, size_t n_ids,
                                     const linnet_identity *authority, linnet_buffer *ret_bytes,
                                     linnet_error *err)
{
    size_t ids_bytes, total;
    if (n_ids > UINT32_MAX || !linnet_size_mul(n_ids, LINNET_DEVICE_ID_BYTES, &ids_bytes) ||
        !linnet_size_add(ids_bytes, REVOCATION_HEAD_BYTES + LINNET_SIGNATURE_BYTES, &total))
        return linnet_fail(err, LINNET_ERR_LIMIT, "revocation list %llu: %zu entries are too many",
                           (unsigned long long)number, n_ids);
    if (!ids_increase((const uint8_t *)ids, n_ids))
        return linnet_fail(err, LINNET_ERR_ARG, "revocation list %llu: sort its ids and drop repeated ones",
                           (unsigned long long)number);
    if (!linnet_buffer_reserve(ret_bytes, total))
        return linnet_fail(err, LINNET_ERR_NOMEM, "revocation list %llu of %zu entries",
                           (unsigned long long)number, n_ids);
    size_t start = ret_bytes->n_bytes;
    linnet_buffer_append_le64(ret_bytes, number);
    linnet_buffer_append_le32(ret_bytes, (uint32_t)n_ids);
    linnet_buffer_append(ret_bytes, ids, ids_bytes);
    linnet_signature signature = linnet_sign(authority, LINNET_LABEL_REVOCATION, ret_bytes->bytes + start,
                                             REVOCATION_HEAD_BYTES + ids_bytes);
    linnet_buffer_append(ret_bytes, signature.bytes, sizeof(signature.bytes));
    return LINNET_OK;
}

linnet_status linnet_revocation_open(const void *bytes, size_t n_bytes, const linnet_public_key *authority,
                                     linnet_revocation *ret_revocation)
{
    if (n_bytes < REVOCATION_HEAD_BYTES + LINNET_SIGNATURE_BYTES)
        return LINNET_ERR_FORMAT;
    const uint8_t *body = bytes;
    size_t n_body = n_bytes - LINNET_SIGNATURE_BYTES;
    linnet_signature signature;
    memcpy(signature.bytes, body + n_body, sizeof(signature.bytes));
    if (linnet_verify(authority, LINNET_LABEL_REVOCATION, body, n_body, &signature) != LINNET_OK)
        return LINNET_ERR_CRYPTO;
    uint64_t n_ids = linnet_load_le32(body + 8);
    const uint8_t *ids = body + REVOCATION_HEAD_BYTES;
    if (n_body - REVOCATION_HEAD_BYTES != n_ids * LINNET_DEVICE_ID_BYTES || !ids_increase(ids, (size_t)n_ids))
        return LINNET_ERR_FORMAT;
    *ret_revocation =
        (linnet_revocation){.number = linnet_load_le64(body), .n_ids = (size_t)n_ids, .ids = ids};
    return LINNET_OK;
}

bool linnet_revocation_contains(const linnet_revocation *revocation, const linnet_device_id *id)
{
    size_t low = 0, high = revocation->n_ids;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order =
            memcmp(id->bytes, revocation->ids + middle * LINNET_DEVICE_ID_BYTES, LINNET_DEVICE_ID_BYTES);
        if (order == 0)
            return true;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return false;
}
