/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_CHANNEL_H
#define LINNET_CHANNEL_H

/* HPKE (RFC 9180, mode base) on libsodium and the request channel built on it (SECURE-AGGREGATION 2.11). One
 * request, one answer, no session; both bound to the coordinator's channel key record, the method and the
 * path. */

#include "linnet/identity.h"

/* ---- HPKE: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305 ---- */
#define LINNET_X25519_BYTES 32
#define LINNET_AEAD_TAG_BYTES 16

/** A context after setup; seal/open use its sequence number. Wipe it with linnet_hpke_release. */
typedef struct linnet_hpke {
    uint8_t key[32], base_nonce[12], exporter_secret[32];
    uint64_t sequence;
} linnet_hpke;

/** Sender: draws the ephemeral key pair; enc is what goes on the wire. CRYPTO on an all-zero shared secret.
 */
linnet_status linnet_hpke_setup_sender(const uint8_t receiver_public[32], const void *info, size_t n_info,
                                       linnet_hpke *ret_context, uint8_t ret_enc[32]) LINNET_NODISCARD;
/** The same with a given ephemeral secret: for the RFC's vectors only. */
linnet_status linnet_hpke_setup_sender_with(const uint8_t ephemeral_secret[32],
                                            const uint8_t receiver_public[32], const void *info,
                                            size_t n_info, linnet_hpke *ret_context,
                                            uint8_t ret_enc[32]) LINNET_NODISCARD;
linnet_status linnet_hpke_setup_receiver(const uint8_t enc[32], const uint8_t receiver_secret[32],
                                         const void *info, size_t n_info,
                                         linnet_hpke *ret_context) LINNET_NODISCARD;
/** ciphertext has room for n_bytes + 16; may not overlap plaintext. */
linnet_status linnet_hpke_seal(linnet_hpke *context, const void *aad, size_t n_aad, const void *plaintext,
                               size_t n_bytes, uint8_t *ciphertext) LINNET_NODISCARD;
/** plaintext has room for n_bytes - 16. CRYPTO where the tag is wrong. */
linnet_status linnet_hpke_open(linnet_hpke *context, const void *aad, size_t n_aad, const void *ciphertext,
                               size_t n_bytes, uint8_t *plaintext) LINNET_NODISCARD;
linnet_status linnet_hpke_export(const linnet_hpke *context, const void *label, size_t n_label, uint8_t *out,
                                 size_t n_out) LINNET_NODISCARD;
void linnet_hpke_release(linnet_hpke *context);

/** HKDF-SHA256 (RFC 5869). n_out <= 255*32. */
void linnet_hkdf_extract(const void *salt, size_t n_salt, const void *ikm, size_t n_ikm, uint8_t ret_prk[32]);
void linnet_hkdf_expand(const uint8_t prk[32], const void *info, size_t n_info, uint8_t *out, size_t n_out);

/* ---- the channel key record: task 16, S 32, number u64, not_before u64, not_after u64; signature `chkey`
 * ---- */
#define LINNET_TASK_ID_BYTES 16
typedef struct linnet_channel_key {
    uint8_t task[LINNET_TASK_ID_BYTES];
    uint8_t public_key[32];
    uint64_t number, not_before, not_after; /* unix seconds; a record lives at most 7 days */
} linnet_channel_key;
#define LINNET_CHANNEL_KEY_BYTES (16 + 32 + 8 + 8 + 8)
#define LINNET_SIGNED_CHANNEL_KEY_BYTES (LINNET_CHANNEL_KEY_BYTES + 64)
#define LINNET_CHANNEL_KEY_SECONDS_MAX (7 * 24 * 3600)

/** Draw a fresh X25519 pair into key->public_key and ret_secret; the other fields of key are the caller's. */
void linnet_channel_key_draw(linnet_channel_key *key, uint8_t ret_secret[32]);
void linnet_channel_key_sign(const linnet_channel_key *key, const linnet_identity *coordinator,
                             uint8_t ret_bytes[LINNET_SIGNED_CHANNEL_KEY_BYTES]);
/** Verify, then parse, then check lifetime and clock (now_s 0: skip the clock). CRYPTO, FORMAT or EXPIRED. */
linnet_status linnet_channel_key_open(const void *bytes, size_t n_bytes, const linnet_public_key *coordinator,
                                      uint64_t now_s, linnet_channel_key *ret_key) LINNET_NODISCARD;

/* ---- requests and responses ---- */
/* Sealed request on the wire: version u8 = 1, key number u64, E 32, ciphertext of (device_id 16 || body ||
 * signature 64). */
#define LINNET_REQUEST_OVERHEAD (1 + 8 + 32 + 16 + 64 + 16)
/* Sealed response: response nonce 32, ciphertext of the body. */
#define LINNET_RESPONSE_OVERHEAD (32 + 16)

/** What links an answer to its request; keep it until the answer is opened or sealed, then wipe with release.
 */
typedef struct linnet_exchange {
    uint8_t secret[32];  /* exported from the HPKE context */
    uint8_t enc[32];     /* E */
    linnet_hash header;  /* h0 = H("chhdr", version || H("chkey", record) || method || 0 || path) */
    linnet_hash request; /* H("chreq", request ciphertext) */
} linnet_exchange;
void linnet_exchange_release(linnet_exchange *exchange);

/** Device: seal body for `method path`; ret_bytes gets the whole wire message (appended to an empty buffer).
 *  signed_key_record: the LINNET_SIGNED_CHANNEL_KEY_BYTES of the record in use, verified before. */
linnet_status linnet_request_seal(const uint8_t *signed_key_record, const char *method, const char *path,
                                  const linnet_identity *device, const void *body, size_t n_body,
                                  linnet_buffer *ret_bytes, linnet_exchange *ret_exchange,
                                  linnet_error *err) LINNET_NODISCARD;

/** The key number that a sealed request names, before anything is opened. FORMAT on a short or foreign
 * message. */
linnet_status linnet_request_key_number(const void *bytes, size_t n_bytes,
                                        uint64_t *ret_number) LINNET_NODISCARD;

/** Coordinator: open a request in two steps, because the signature needs the device's public key, which only
 * the device id inside names. After open, call verify with that key before any use of the body. */
typedef struct linnet_opened_request {
    linnet_device_id device_id;
    const uint8_t *body; /* borrowed from plaintext */
    size_t n_body;
    linnet_signature signature;
    linnet_buffer plaintext; /* owned: release with linnet_opened_request_release, which wipes */
    linnet_exchange exchange;
} linnet_opened_request;
linnet_status linnet_request_open(const uint8_t *signed_key_record, const uint8_t key_secret[32],
                                  const char *method, const char *path, const void *bytes, size_t n_bytes,
                                  linnet_opened_request *ret_request, linnet_error *err) LINNET_NODISCARD;
/** CRYPTO unless the signature H("reqst", h0 || E || body) is by this key and the device id belongs to it. */
linnet_status linnet_request_verify(const linnet_opened_request *request,
                                    const linnet_public_key *device) LINNET_NODISCARD;
void linnet_opened_request_release(linnet_opened_request *request);

linnet_status linnet_response_seal(const linnet_exchange *exchange, const void *body, size_t n_body,
                                   linnet_buffer *ret_bytes, linnet_error *err) LINNET_NODISCARD;
/** CRYPTO where it does not answer exactly this request. ret_body is appended to an empty buffer. */
linnet_status linnet_response_open(const linnet_exchange *exchange, const void *bytes, size_t n_bytes,
                                   linnet_buffer *ret_body, linnet_error *err) LINNET_NODISCARD;

#endif
