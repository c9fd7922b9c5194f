/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_IDENTITY_H
#define LINNET_IDENTITY_H

/* Ed25519 identities; enrolment tokens, certificates and revocation lists (SECURE-AGGREGATION 2.2, 2.3). */

#include "linnet/hash.h"

#define LINNET_PUBLIC_KEY_BYTES 32
#define LINNET_SIGNATURE_BYTES 64
#define LINNET_DEVICE_ID_BYTES 16
#define LINNET_SEED_BYTES 32
#define LINNET_TOKEN_ID_BYTES 16
#define LINNET_TOKEN_SECRET_BYTES 32

typedef struct linnet_public_key {
    uint8_t bytes[LINNET_PUBLIC_KEY_BYTES];
} linnet_public_key;
typedef struct linnet_signature {
    uint8_t bytes[LINNET_SIGNATURE_BYTES];
} linnet_signature;
typedef struct linnet_device_id {
    uint8_t bytes[LINNET_DEVICE_ID_BYTES];
} linnet_device_id;

/** An Ed25519 key pair; the secret lives in guarded memory and is wiped by destroy. Guarded memory takes four
 * maps, of which Linux gives a process 65530: some 16 000 identities. Who plays more devices keeps seeds of
 * those that sleep. */
typedef struct linnet_identity linnet_identity;

linnet_status linnet_identity_create(linnet_identity **ret_identity, linnet_error *err) LINNET_NODISCARD;
/** From a stored 32-byte seed (copied; the caller wipes its own). */
linnet_status linnet_identity_from_seed(const uint8_t seed[LINNET_SEED_BYTES], linnet_identity **ret_identity,
                                        linnet_error *err) LINNET_NODISCARD;
void linnet_identity_seed(const linnet_identity *identity, uint8_t ret_seed[LINNET_SEED_BYTES]);
void linnet_identity_destroy(linnet_identity *identity);
const linnet_public_key *linnet_identity_public_key(const linnet_identity *identity);
/** First 16 bytes of H("devid", public key). */
linnet_device_id linnet_device_id_of(const linnet_public_key *public_key);

/** Ed25519 over the 32 bytes H(label, body). */
linnet_signature linnet_sign(const linnet_identity *identity, linnet_label label, const void *body,
                             size_t n_bytes);
linnet_status linnet_verify(const linnet_public_key *signer, linnet_label label, const void *body,
                            size_t n_bytes, const linnet_signature *signature) LINNET_NODISCARD;
/** Ed25519 over a hash that carries its own label (V, A, T1, T2, T3). */
linnet_signature linnet_sign_hash(const linnet_identity *identity, const linnet_hash *hash);
linnet_status linnet_verify_hash(const linnet_public_key *signer, const linnet_hash *hash,
                                 const linnet_signature *signature) LINNET_NODISCARD;

/* ---- enrolment: all bodies fixed width, little-endian, fields in the order given ---- */

/** A one-use right to enrol: id (public) and secret, handed over out of band. */
typedef struct linnet_enrol_token {
    uint8_t id[LINNET_TOKEN_ID_BYTES];
    uint8_t secret[LINNET_TOKEN_SECRET_BYTES];
} linnet_enrol_token;

/** What a device signs to be enrolled: public key 32, class u32, token id 16, coordinator public key 32. */
typedef struct linnet_csr {
    linnet_public_key public_key;
    uint32_t device_class;
    uint8_t token_id[LINNET_TOKEN_ID_BYTES];
    linnet_public_key coordinator;
} linnet_csr;
#define LINNET_CSR_BYTES (32 + 4 + 16 + 32)
/** On the wire: body, proof = K("token", secret, body), signature `enrol`. */
#define LINNET_SIGNED_CSR_BYTES (LINNET_CSR_BYTES + 32 + 64)

void linnet_csr_sign(const linnet_csr *csr, const linnet_enrol_token *token, const linnet_identity *device,
                     uint8_t ret_bytes[LINNET_SIGNED_CSR_BYTES]);
/** Parse without checking the token proof: the caller needs the token id first. Checks length and the
 * device's signature. */
linnet_status linnet_csr_open(const void *bytes, size_t n_bytes, linnet_csr *ret_csr) LINNET_NODISCARD;
/** The proof of a CSR against the token's secret, in constant time. CRYPTO if wrong. */
linnet_status linnet_csr_check_token(const void *bytes, size_t n_bytes,
                                     const uint8_t secret[LINNET_TOKEN_SECRET_BYTES]) LINNET_NODISCARD;

/** Certificate body: version u16 = 1, device_id 16, public key 32, class u32, serial u64, not_before u64,
 * not_after u64 (unix seconds). */
typedef struct linnet_certificate {
    linnet_device_id device_id;
    linnet_public_key public_key;
    uint32_t device_class;
    uint64_t serial, not_before, not_after;
} linnet_certificate;
#define LINNET_CERTIFICATE_BYTES (2 + 16 + 32 + 4 + 8 + 8 + 8)
#define LINNET_SIGNED_CERTIFICATE_BYTES (LINNET_CERTIFICATE_BYTES + 64)

void linnet_certificate_sign(const linnet_certificate *certificate, const linnet_identity *authority,
                             uint8_t ret_bytes[LINNET_SIGNED_CERTIFICATE_BYTES]);
/** Verify the authority's signature (`certf`), then parse; check device_id against the key, and the validity
 * against now_s (0: skip the clock). CRYPTO, FORMAT or EXPIRED. */
linnet_status linnet_certificate_open(const void *bytes, size_t n_bytes, const linnet_public_key *authority,
                                      uint64_t now_s, linnet_certificate *ret_certificate) LINNET_NODISCARD;

/** Revocation list body: number u64, n u32, then n device ids in strictly increasing order; signature `revok`
 * behind. */
linnet_status linnet_revocation_sign(uint64_t number, const linnet_device_id *ids, size_t n_ids,
                                     const linnet_identity *authority, linnet_buffer *ret_bytes,
                                     linnet_error *err) LINNET_NODISCARD;
typedef struct linnet_revocation {
    uint64_t number;
    size_t n_ids;
    const uint8_t *ids; /* n_ids x 16 bytes, borrowed from the opened bytes */
} linnet_revocation;
linnet_status linnet_revocation_open(const void *bytes, size_t n_bytes, const linnet_public_key *authority,
                                     linnet_revocation *ret_revocation) LINNET_NODISCARD;
bool linnet_revocation_contains(const linnet_revocation *revocation, const linnet_device_id *id);

/* ---- the invite code a person hands to a device: token, and the keys to pin ---- */
typedef struct linnet_invite {
    linnet_enrol_token token;
    linnet_public_key coordinator, authority;
} linnet_invite;
/** "linnet1-" + Crockford base32 of the 112 bytes + 5 bytes of H("invit", them): case-insensitive, dashes
 * ignored. */
#define LINNET_INVITE_TEXT_MAX 224
void linnet_invite_write(const linnet_invite *invite, char ret_text[LINNET_INVITE_TEXT_MAX]);
/** FORMAT where the text is no invite or its checksum is wrong (a typing slip). */
linnet_status linnet_invite_read(const char *text, linnet_invite *ret_invite) LINNET_NODISCARD;

#endif
