/* SPDX-License-Identifier: Apache-2.0 */
/* The request channel (SECURE-AGGREGATION 2.11): one request, one answer, no session, no clock, no counter.
 *
 * A request is sealed with HPKE to the coordinator's channel key. h0 hashes what it is meant for (key record,
 * method, path) and is both `info` and associated data, so a request opens only where it was sent to. Inside
 * stands the device's signature over h0, the ephemeral key E and the body, so nobody can seal the same body
 * anew. The answer is sealed as in RFC 9458 (Oblivious HTTP), 4.4, under a key that both sides export from
 * the request's context, with h0 and the hash of the request's ciphertext as associated data: it answers this
 * request and no other. docs/protocol-channel.md gives the bytes. What is not here: replay, which is the
 * store's business (every request is idempotent), the rule that a key number never goes back, which needs
 * memory, and padding of bodies. */
#include "channel_inner.h"

#include <sodium.h>

#define CHANNEL_VERSION 1
#define NUMBER_AT 1
#define ENC_AT (NUMBER_AT + 8)
#define CIPHERTEXT_AT (ENC_AT + LINNET_X25519_BYTES)
#define PLAINTEXT_OVERHEAD (LINNET_DEVICE_ID_BYTES + LINNET_SIGNATURE_BYTES)
#define RESPONSE_NONCE_BYTES 32
#define AEAD_NONCE_BYTES crypto_aead_chacha20poly1305_ietf_NPUBBYTES
#define AEAD_KEY_BYTES crypto_aead_chacha20poly1305_ietf_KEYBYTES
#define RESPONSE_AAD_BYTES (2 * LINNET_HASH_BYTES)

_Static_assert(CIPHERTEXT_AT + PLAINTEXT_OVERHEAD + LINNET_AEAD_TAG_BYTES == LINNET_REQUEST_OVERHEAD,
               "the overhead of a request adds up");
_Static_assert(RESPONSE_NONCE_BYTES + LINNET_AEAD_TAG_BYTES == LINNET_RESPONSE_OVERHEAD,
               "the overhead of a response adds up");

/* ---- channel key records ---- */

#define NUMBER_IN_RECORD (LINNET_TASK_ID_BYTES + LINNET_X25519_BYTES)

void linnet_channel_key_draw(linnet_channel_key *key, uint8_t ret_secret[32])
{
    randombytes_buf(ret_secret, LINNET_X25519_BYTES);
    (void)crypto_scalarmult_curve25519_base(key->public_key,
                                            ret_secret); /* cannot fail: the secret is clamped */
}

void linnet_channel_key_sign(const linnet_channel_key *key, const linnet_identity *coordinator,
                             uint8_t ret_bytes[LINNET_SIGNED_CHANNEL_KEY_BYTES])
{
    uint8_t *body = ret_bytes;
    memcpy(body, key->task, LINNET_TASK_ID_BYTES);
    memcpy(body + LINNET_TASK_ID_BYTES, key->public_key, LINNET_X25519_BYTES);
    linnet_store_le64(body + NUMBER_IN_RECORD, key->number);
    linnet_store_le64(body + NUMBER_IN_RECORD + 8, key->not_before);
    linnet_store_le64(body + NUMBER_IN_RECORD + 16, key->not_after);
    linnet_signature signature =
        linnet_sign(coordinator, LINNET_LABEL_CHANNEL_KEY, body, LINNET_CHANNEL_KEY_BYTES);
    memcpy(ret_bytes + LINNET_CHANNEL_KEY_BYTES, signature.bytes, sizeof(signature.bytes));
}

linnet_status linnet_channel_key_open(const void *bytes, size_t n_bytes, const linnet_public_key *coordinator,
                                      uint64_t now_s, linnet_channel_key *ret_key)
{
    if (n_bytes != LINNET_SIGNED_CHANNEL_KEY_BYTES)
        return LINNET_ERR_FORMAT;
    const uint8_t *body = bytes;
    linnet_signature signature;
    memcpy(signature.bytes, body + LINNET_CHANNEL_KEY_BYTES, sizeof(signature.bytes));
    if (linnet_verify(coordinator, LINNET_LABEL_CHANNEL_KEY, body, LINNET_CHANNEL_KEY_BYTES, &signature) !=
        LINNET_OK)
        return LINNET_ERR_CRYPTO;
    linnet_channel_key key;
    memcpy(key.task, body, LINNET_TASK_ID_BYTES);
    memcpy(key.public_key, body + LINNET_TASK_ID_BYTES, LINNET_X25519_BYTES);
    key.number = linnet_load_le64(body + NUMBER_IN_RECORD);
    key.not_before = linnet_load_le64(body + NUMBER_IN_RECORD + 8);
    key.not_after = linnet_load_le64(body + NUMBER_IN_RECORD + 16);
    if (key.not_after < key.not_before || key.not_after - key.not_before > LINNET_CHANNEL_KEY_SECONDS_MAX)
        return LINNET_ERR_FORMAT;
    if (now_s != 0 && (now_s < key.not_before || now_s > key.not_after))
        return LINNET_ERR_EXPIRED;
    *ret_key = key;
    return LINNET_OK;
}

/* ---- what both sides compute ---- */

/* h0 = H("chhdr", version || H("chkey", record) || method || 0 || path). */
static linnet_hash header_hash(const uint8_t *key_record, const char *method, const char *path)
{
    static const uint8_t version = CHANNEL_VERSION, separator = 0;
    linnet_hash record = linnet_hash_of(LINNET_LABEL_CHANNEL_KEY, key_record, LINNET_CHANNEL_KEY_BYTES);
    linnet_hasher hasher;
    linnet_hasher_init(&hasher, LINNET_LABEL_CHANNEL_HEADER);
    linnet_hasher_update(&hasher, &version, 1);
    linnet_hasher_update(&hasher, record.bytes, sizeof(record.bytes));
    linnet_hasher_update(&hasher, method, strlen(method));
    linnet_hasher_update(&hasher, &separator, 1);
    linnet_hasher_update(&hasher, path, strlen(path));
    return linnet_hasher_final(&hasher);
}

/* H("reqst", h0 || E || body): what the device signs. */
static linnet_hash request_hash(const linnet_exchange *exchange, const void *body, size_t n_body)
{
    linnet_hasher hasher;
    linnet_hasher_init(&hasher, LINNET_LABEL_REQUEST_SIGNATURE);
    linnet_hasher_update(&hasher, exchange->header.bytes, sizeof(exchange->header.bytes));
    linnet_hasher_update(&hasher, exchange->enc, sizeof(exchange->enc));
    linnet_hasher_update(&hasher, body, n_body);
    return linnet_hasher_final(&hasher);
}

/* The secret of the answer and the hash of the request's ciphertext, once both are known. */
static linnet_status exchange_complete(linnet_exchange *exchange, const linnet_hpke *context,
                                       const uint8_t *ciphertext, size_t n_bytes)
{
    exchange->request = linnet_hash_of(LINNET_LABEL_CHANNEL_REQUEST, ciphertext, n_bytes);
    return linnet_hpke_export(context, linnet_label_bytes(LINNET_LABEL_CHANNEL_RESPONSE), 16,
                              exchange->secret, sizeof(exchange->secret));
}

/* Release a buffer that held a plaintext. */
static void buffer_wipe(linnet_buffer *buffer)
{
    if (buffer->bytes)
        sodium_memzero(buffer->bytes, buffer->capacity);
    linnet_buffer_release(buffer);
}

void linnet_exchange_release(linnet_exchange *exchange)
{
    sodium_memzero(exchange, sizeof(*exchange));
}

/* ---- requests ---- */

/* device_id || body || signature, into room for all three. */
static void plaintext_write(uint8_t *plaintext, const linnet_identity *device,
                            const linnet_exchange *exchange, const void *body, size_t n_body)
{
    linnet_device_id id = linnet_device_id_of(linnet_identity_public_key(device));
    linnet_hash hash = request_hash(exchange, body, n_body);
    linnet_signature signature = linnet_sign_hash(device, &hash);
    memcpy(plaintext, id.bytes, sizeof(id.bytes));
    if (n_body > 0)
        memcpy(plaintext + sizeof(id.bytes), body, n_body);
    memcpy(plaintext + sizeof(id.bytes) + n_body, signature.bytes, sizeof(signature.bytes));
}

/* Encapsulate to the record's key and seal the plaintext, into room for the whole wire message. */
static linnet_status wire_write(uint8_t *wire, const uint8_t ephemeral_secret[32],
                                const uint8_t *signed_key_record, const linnet_identity *device,
                                const void *body, uint8_t *plaintext, size_t n_plaintext,
                                linnet_exchange *exchange)
{
    linnet_hpke context = {0};
    const linnet_hash *header = &exchange->header;
    linnet_status status =
        linnet_hpke_setup_sender_with(ephemeral_secret, signed_key_record + LINNET_TASK_ID_BYTES,
                                      header->bytes, sizeof(header->bytes), &context, exchange->enc);
    if (status != LINNET_OK)
        return status;
    wire[0] = CHANNEL_VERSION;
    memcpy(wire + NUMBER_AT, signed_key_record + NUMBER_IN_RECORD, 8);
    memcpy(wire + ENC_AT, exchange->enc, sizeof(exchange->enc));
    plaintext_write(plaintext, device, exchange, body, n_plaintext - PLAINTEXT_OVERHEAD);
    status = linnet_hpke_seal(&context, header->bytes, sizeof(header->bytes), plaintext, n_plaintext,
                              wire + CIPHERTEXT_AT);
    if (status == LINNET_OK)
        status =
            exchange_complete(exchange, &context, wire + CIPHERTEXT_AT, n_plaintext + LINNET_AEAD_TAG_BYTES);
    linnet_hpke_release(&context);
    return status;
}

linnet_status linnet_request_seal_with(const uint8_t ephemeral_secret[32], const uint8_t *signed_key_record,
                                       const char *method, const char *path, const linnet_identity *device,
                                       const void *body, size_t n_body, linnet_buffer *ret_bytes,
                                       linnet_exchange *ret_exchange, linnet_error *err)
{
    size_t total;
    if (!linnet_size_add(n_body, LINNET_REQUEST_OVERHEAD, &total))
        return linnet_fail(err, LINNET_ERR_LIMIT, "request '%s %s': a body of %zu bytes", method, path,
                           n_body);
    linnet_exchange exchange = {.header = header_hash(signed_key_record, method, path)};
    linnet_buffer plaintext = {0};
    linnet_status status = LINNET_ERR_NOMEM;
    if (linnet_buffer_reserve(&plaintext, n_body + PLAINTEXT_OVERHEAD) &&
        linnet_buffer_reserve(ret_bytes, total))
        status = wire_write(ret_bytes->bytes + ret_bytes->n_bytes, ephemeral_secret, signed_key_record,
                            device, body, plaintext.bytes, n_body + PLAINTEXT_OVERHEAD, &exchange);
    if (status == LINNET_OK) {
        ret_bytes->n_bytes += total;
        *ret_exchange = exchange;
    } else {
        (void)linnet_fail(err, status, "request '%s %s' with a body of %zu bytes cannot be sealed: %s",
                          method, path, n_body, linnet_status_text(status));
    }
    buffer_wipe(&plaintext);
    linnet_exchange_release(&exchange);
    return status;
}

linnet_status linnet_request_seal(const uint8_t *signed_key_record, const char *method, const char *path,
                                  const linnet_identity *device, const void *body, size_t n_body,
                                  linnet_buffer *ret_bytes, linnet_exchange *ret_exchange, linnet_error *err)
{
    uint8_t ephemeral_secret[LINNET_X25519_BYTES];
    randombytes_buf(ephemeral_secret, sizeof(ephemeral_secret));
    linnet_status status = linnet_request_seal_with(ephemeral_secret, signed_key_record, method, path, device,
                                                    body, n_body, ret_bytes, ret_exchange, err);
    sodium_memzero(ephemeral_secret, sizeof(ephemeral_secret));
    return status;
}

linnet_status linnet_request_key_number(const void *bytes, size_t n_bytes, uint64_t *ret_number)
{
    const uint8_t *wire = bytes;
    if (n_bytes < LINNET_REQUEST_OVERHEAD || wire[0] != CHANNEL_VERSION)
        return LINNET_ERR_FORMAT;
    *ret_number = linnet_load_le64(wire + NUMBER_AT);
    return LINNET_OK;
}

/* Point into the plaintext of an opened request. It is at least PLAINTEXT_OVERHEAD bytes long. */
static void plaintext_split(linnet_opened_request *request)
{
    const uint8_t *plaintext = request->plaintext.bytes;
    request->n_body = request->plaintext.n_bytes - PLAINTEXT_OVERHEAD;
    request->body = plaintext + LINNET_DEVICE_ID_BYTES;
    memcpy(request->device_id.bytes, plaintext, LINNET_DEVICE_ID_BYTES);
    memcpy(request->signature.bytes, request->body + request->n_body, LINNET_SIGNATURE_BYTES);
}

/* Open the ciphertext into request->plaintext, which has room for it. */
static linnet_status ciphertext_open(const uint8_t key_secret[32], const uint8_t *ciphertext, size_t n_bytes,
                                     linnet_opened_request *request)
{
    linnet_hpke context = {0};
    const linnet_hash *header = &request->exchange.header;
    linnet_status status = linnet_hpke_setup_receiver(request->exchange.enc, key_secret, header->bytes,
                                                      sizeof(header->bytes), &context);
    if (status == LINNET_OK)
        status = linnet_hpke_open(&context, header->bytes, sizeof(header->bytes), ciphertext, n_bytes,
                                  request->plaintext.bytes);
    if (status == LINNET_OK)
        status = exchange_complete(&request->exchange, &context, ciphertext, n_bytes);
    linnet_hpke_release(&context);
    if (status == LINNET_OK) {
        request->plaintext.n_bytes = n_bytes - LINNET_AEAD_TAG_BYTES;
        plaintext_split(request);
    }
    return status;
}

linnet_status linnet_request_open(const uint8_t *signed_key_record, const uint8_t key_secret[32],
                                  const char *method, const char *path, const void *bytes, size_t n_bytes,
                                  linnet_opened_request *ret_request, linnet_error *err)
{
    const uint8_t *wire = bytes;
    uint64_t number;
    if (linnet_request_key_number(bytes, n_bytes, &number) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_FORMAT,
                           "request '%s %s': %zu bytes are no sealed request of version %d", method, path,
                           n_bytes, CHANNEL_VERSION);
    if (number != linnet_load_le64(signed_key_record + NUMBER_IN_RECORD))
        return linnet_fail(err, LINNET_ERR_MISMATCH,
                           "request '%s %s' is sealed to another channel key, number %llu", method, path,
                           (unsigned long long)number);
    linnet_opened_request request = {.exchange = {.header = header_hash(signed_key_record, method, path)}};
    memcpy(request.exchange.enc, wire + ENC_AT, LINNET_X25519_BYTES);
    linnet_status status = LINNET_ERR_NOMEM;
    if (linnet_buffer_reserve(&request.plaintext, n_bytes - CIPHERTEXT_AT))
        status = ciphertext_open(key_secret, wire + CIPHERTEXT_AT, n_bytes - CIPHERTEXT_AT, &request);
    if (status == LINNET_OK) {
        *ret_request = request; /* the plaintext moves to the caller */
        request.plaintext = (linnet_buffer){0};
    } else {
        (void)linnet_fail(err, status, "request '%s %s' does not open with channel key %llu: %s", method,
                          path, (unsigned long long)number, linnet_status_text(status));
    }
    linnet_opened_request_release(&request);
    return status;
}

linnet_status linnet_request_verify(const linnet_opened_request *request, const linnet_public_key *device)
{
    linnet_device_id id = linnet_device_id_of(device);
    if (memcmp(id.bytes, request->device_id.bytes, sizeof(id.bytes)) != 0)
        return LINNET_ERR_CRYPTO;
    linnet_hash hash = request_hash(&request->exchange, request->body, request->n_body);
    return linnet_verify_hash(device, &hash, &request->signature);
}

void linnet_opened_request_release(linnet_opened_request *request)
{
    buffer_wipe(&request->plaintext);
    sodium_memzero(request, sizeof(*request));
}

/* ---- responses ---- */

typedef struct response_keys {
    uint8_t key[AEAD_KEY_BYTES], nonce[AEAD_NONCE_BYTES], aad[RESPONSE_AAD_BYTES];
} response_keys;

/* RFC 9458, 4.4: salt = enc || response nonce; Extract, then Expand to key and nonce. Wipe the result. */
static void response_keys_derive(const linnet_exchange *exchange,
                                 const uint8_t response_nonce[RESPONSE_NONCE_BYTES], response_keys *ret_keys)
{
    uint8_t salt[LINNET_X25519_BYTES + RESPONSE_NONCE_BYTES], prk[32];
    memcpy(salt, exchange->enc, LINNET_X25519_BYTES);
    memcpy(salt + LINNET_X25519_BYTES, response_nonce, RESPONSE_NONCE_BYTES);
    linnet_hkdf_extract(salt, sizeof(salt), exchange->secret, sizeof(exchange->secret), prk);
    linnet_hkdf_expand(prk, "key", 3, ret_keys->key, sizeof(ret_keys->key));
    linnet_hkdf_expand(prk, "nonce", 5, ret_keys->nonce, sizeof(ret_keys->nonce));
    memcpy(ret_keys->aad, exchange->header.bytes, LINNET_HASH_BYTES);
    memcpy(ret_keys->aad + LINNET_HASH_BYTES, exchange->request.bytes, LINNET_HASH_BYTES);
    sodium_memzero(prk, sizeof(prk));
}

linnet_status linnet_response_seal_with(const uint8_t response_nonce[32], const linnet_exchange *exchange,
                                        const void *body, size_t n_body, linnet_buffer *ret_bytes,
                                        linnet_error *err)
{
    size_t total;
    if (!linnet_size_add(n_body, LINNET_RESPONSE_OVERHEAD, &total) ||
        n_body > crypto_aead_chacha20poly1305_ietf_MESSAGEBYTES_MAX)
        return linnet_fail(err, LINNET_ERR_LIMIT, "response: a body of %zu bytes", n_body);
    if (!linnet_buffer_reserve(ret_bytes, total))
        return linnet_fail(err, LINNET_ERR_NOMEM, "response of %zu bytes", n_body);
    uint8_t *wire = ret_bytes->bytes + ret_bytes->n_bytes;
    response_keys keys;
    response_keys_derive(exchange, response_nonce, &keys);
    memcpy(wire, response_nonce, RESPONSE_NONCE_BYTES);
    (void)crypto_aead_chacha20poly1305_ietf_encrypt(wire + RESPONSE_NONCE_BYTES, NULL, body, n_body, keys.aad,
                                                    sizeof(keys.aad), NULL, keys.nonce,
                                                    keys.key); /* cannot fail below the limit */
    ret_bytes->n_bytes += total;
    sodium_memzero(&keys, sizeof(keys));
    return LINNET_OK;
}

linnet_status linnet_response_seal(const linnet_exchange *exchange, const void *body, size_t n_body,
                                   linnet_buffer *ret_bytes, linnet_error *err)
{
    uint8_t response_nonce[RESPONSE_NONCE_BYTES];
    randombytes_buf(response_nonce, sizeof(response_nonce));
    return linnet_response_seal_with(response_nonce, exchange, body, n_body, ret_bytes, err);
}

linnet_status linnet_response_open(const linnet_exchange *exchange, const void *bytes, size_t n_bytes,
                                   linnet_buffer *ret_body, linnet_error *err)
{
    const uint8_t *wire = bytes;
    if (n_bytes < LINNET_RESPONSE_OVERHEAD)
        return linnet_fail(err, LINNET_ERR_FORMAT, "response: %zu bytes are too short", n_bytes);
    size_t n_body = n_bytes - LINNET_RESPONSE_OVERHEAD;
    if (n_body > crypto_aead_chacha20poly1305_ietf_MESSAGEBYTES_MAX)
        return linnet_fail(err, LINNET_ERR_LIMIT, "response: %zu bytes are too long", n_bytes);
    if (!linnet_buffer_reserve(ret_body, n_bytes)) /* more than the body: never a pointer to nothing */
        return linnet_fail(err, LINNET_ERR_NOMEM, "response of %zu bytes", n_bytes);
    response_keys keys;
    response_keys_derive(exchange, wire, &keys);
    int opened = crypto_aead_chacha20poly1305_ietf_decrypt(
        ret_body->bytes + ret_body->n_bytes, NULL, NULL, wire + RESPONSE_NONCE_BYTES,
        n_bytes - RESPONSE_NONCE_BYTES, keys.aad, sizeof(keys.aad), keys.nonce, keys.key);
    sodium_memzero(&keys, sizeof(keys));
    if (opened != 0)
        return linnet_fail(err, LINNET_ERR_CRYPTO, "response does not answer this request, or was altered");
    ret_body->n_bytes += n_body;
    return LINNET_OK;
}
