/* SPDX-License-Identifier: Apache-2.0 */
/* HPKE, RFC 9180: mode base, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305; and the HKDF under
 * it.
 *
 * libsodium 1.0.18 has X25519, HMAC-SHA-256 and the AEAD, but neither HKDF (RFC 5869) nor HPKE, so the two
 * derivations are written out here: every HKDF input is a list of pieces, fed to HMAC one by one, so nothing
 * is concatenated and no memory is needed. Names follow the RFC: encap, decap, key schedule, labelled extract
 * and expand. What is not here: the modes with a pre-shared or a sender's key, other suites, DeriveKeyPair.
 */
#include "linnet/channel.h"

#include <assert.h>
#include <sodium.h>

#define KEM_SECRET_BYTES 32
#define NONCE_BYTES crypto_aead_chacha20poly1305_ietf_NPUBBYTES

/* RFC 9180, 5.1 and 4.1: "HPKE" || kem_id || kdf_id || aead_id, and "KEM" || kem_id, big-endian. */
static const uint8_t HPKE_SUITE[] = {'H', 'P', 'K', 'E', 0x00, 0x20, 0x00, 0x01, 0x00, 0x03};
static const uint8_t KEM_SUITE[] = {'K', 'E', 'M', 0x00, 0x20};
static const uint8_t HPKE_VERSION[] = {'H', 'P', 'K', 'E', '-', 'v', '1'};
#define MODE_BASE 0x00

/* ---- HKDF-SHA256 over lists of pieces ---- */

typedef struct piece {
    const void *bytes;
    size_t n_bytes;
} piece;

static void hmac_pieces(crypto_auth_hmacsha256_state *state, const piece *pieces, size_t n_pieces)
{
    for (size_t i = 0; i < n_pieces; i++)
        if (pieces[i].n_bytes > 0) /* an empty piece may be NULL, which libsodium forbids */
            (void)crypto_auth_hmacsha256_update(state, pieces[i].bytes, pieces[i].n_bytes); /* cannot fail */
}

/* RFC 5869, 2.2. An empty salt is HMAC's empty key, which pads to the zeros that the RFC asks for. */
static void extract_pieces(const void *salt, size_t n_salt, const piece *pieces, size_t n_pieces,
                           uint8_t ret_prk[32])
{
    crypto_auth_hmacsha256_state state;
    (void)crypto_auth_hmacsha256_init(&state, n_salt > 0 ? salt : "",
                                      n_salt); /* cannot fail, nor can final */
    hmac_pieces(&state, pieces, n_pieces);
    (void)crypto_auth_hmacsha256_final(&state, ret_prk);
    sodium_memzero(&state, sizeof(state));
}

/* RFC 5869, 2.3: T(i) = HMAC(prk, T(i-1) || info || i), out = T(1) || T(2) || ... */
static void expand_pieces(const uint8_t prk[32], const piece *pieces, size_t n_pieces, uint8_t *out,
                          size_t n_out)
{
    assert(n_out <= 255 * 32);
    crypto_auth_hmacsha256_state state;
    uint8_t block[32];
    uint8_t counter = 0;
    for (size_t at = 0; at < n_out;) {
        counter++;
        (void)crypto_auth_hmacsha256_init(&state, prk, 32);
        if (counter > 1)
            (void)crypto_auth_hmacsha256_update(&state, block, sizeof(block));
        hmac_pieces(&state, pieces, n_pieces);
        (void)crypto_auth_hmacsha256_update(&state, &counter, 1);
        (void)crypto_auth_hmacsha256_final(&state, block);
        size_t n = n_out - at < sizeof(block) ? n_out - at : sizeof(block);
        memcpy(out + at, block, n);
        at += n;
    }
    sodium_memzero(block, sizeof(block));
    sodium_memzero(&state, sizeof(state));
}

void linnet_hkdf_extract(const void *salt, size_t n_salt, const void *ikm, size_t n_ikm, uint8_t ret_prk[32])
{
    piece pieces[] = {{ikm, n_ikm}};
    extract_pieces(salt, n_salt, pieces, ARRAY_LEN(pieces), ret_prk);
}

void linnet_hkdf_expand(const uint8_t prk[32], const void *info, size_t n_info, uint8_t *out, size_t n_out)
{
    piece pieces[] = {{info, n_info}};
    expand_pieces(prk, pieces, ARRAY_LEN(pieces), out, n_out);
}

/* ---- RFC 9180, 4: labelled extract and expand ---- */

static void labelled_extract(piece suite, const void *salt, size_t n_salt, const char *label, const void *ikm,
                             size_t n_ikm, uint8_t ret_prk[32])
{
    piece pieces[] = {{HPKE_VERSION, sizeof(HPKE_VERSION)}, suite, {label, strlen(label)}, {ikm, n_ikm}};
    extract_pieces(salt, n_salt, pieces, ARRAY_LEN(pieces), ret_prk);
}

static void labelled_expand(piece suite, const uint8_t prk[32], const char *label, const void *info,
                            size_t n_info, uint8_t *out, size_t n_out)
{
    uint8_t length[2] = {(uint8_t)(n_out >> 8), (uint8_t)n_out};
    piece pieces[] = {{length, sizeof(length)},
                      {HPKE_VERSION, sizeof(HPKE_VERSION)},
                      suite,
                      {label, strlen(label)},
                      {info, n_info}};
    expand_pieces(prk, pieces, ARRAY_LEN(pieces), out, n_out);
}

/* ---- RFC 9180, 4.1: the KEM ---- */

/* The shared secret of `mine` (secret) and `theirs` (public); kem_context = enc || receiver's public key. */
static linnet_status kem_secret(const uint8_t mine[32], const uint8_t theirs[32], const uint8_t enc[32],
                                const uint8_t receiver_public[32], uint8_t ret_secret[KEM_SECRET_BYTES])
{
    piece suite = {KEM_SUITE, sizeof(KEM_SUITE)};
    uint8_t dh[LINNET_X25519_BYTES], prk[32], context[2 * LINNET_X25519_BYTES];
    linnet_status status = LINNET_ERR_CRYPTO;
    if (crypto_scalarmult_curve25519(dh, mine, theirs) != 0) /* small order: the secret would be all zero */
        goto done;
    memcpy(context, enc, LINNET_X25519_BYTES);
    memcpy(context + LINNET_X25519_BYTES, receiver_public, LINNET_X25519_BYTES);
    labelled_extract(suite, NULL, 0, "eae_prk", dh, sizeof(dh), prk);
    labelled_expand(suite, prk, "shared_secret", context, sizeof(context), ret_secret, KEM_SECRET_BYTES);
    sodium_memzero(prk, sizeof(prk));
    status = LINNET_OK;
done:
    sodium_memzero(dh, sizeof(dh));
    return status;
}

/* ---- RFC 9180, 5.1: the key schedule of mode base ---- */

static void key_schedule(const uint8_t shared_secret[KEM_SECRET_BYTES], const void *info, size_t n_info,
                         linnet_hpke *ret_context)
{
    piece suite = {HPKE_SUITE, sizeof(HPKE_SUITE)};
    uint8_t context[1 + 32 + 32] = {MODE_BASE}, secret[32];
    labelled_extract(suite, NULL, 0, "psk_id_hash", NULL, 0, context + 1);
    labelled_extract(suite, NULL, 0, "info_hash", info, n_info, context + 33);
    labelled_extract(suite, shared_secret, KEM_SECRET_BYTES, "secret", NULL, 0, secret);
    labelled_expand(suite, secret, "key", context, sizeof(context), ret_context->key,
                    sizeof(ret_context->key));
    labelled_expand(suite, secret, "base_nonce", context, sizeof(context), ret_context->base_nonce,
                    sizeof(ret_context->base_nonce));
    labelled_expand(suite, secret, "exp", context, sizeof(context), ret_context->exporter_secret,
                    sizeof(ret_context->exporter_secret));
    ret_context->sequence = 0;
    sodium_memzero(secret, sizeof(secret));
}

linnet_status linnet_hpke_setup_sender_with(const uint8_t ephemeral_secret[32],
                                            const uint8_t receiver_public[32], const void *info,
                                            size_t n_info, linnet_hpke *ret_context, uint8_t ret_enc[32])
{
    uint8_t enc[LINNET_X25519_BYTES], shared[KEM_SECRET_BYTES];
    if (crypto_scalarmult_curve25519_base(enc, ephemeral_secret) != 0)
        return LINNET_ERR_CRYPTO;
    linnet_status status = kem_secret(ephemeral_secret, receiver_public, enc, receiver_public, shared);
    if (status == LINNET_OK) {
        key_schedule(shared, info, n_info, ret_context);
        memcpy(ret_enc, enc, sizeof(enc));
        sodium_memzero(shared, sizeof(shared));
    }
    return status;
}

linnet_status linnet_hpke_setup_sender(const uint8_t receiver_public[32], const void *info, size_t n_info,
                                       linnet_hpke *ret_context, uint8_t ret_enc[32])
{
    uint8_t ephemeral_secret[LINNET_X25519_BYTES];
    randombytes_buf(ephemeral_secret, sizeof(ephemeral_secret));
    linnet_status status =
        linnet_hpke_setup_sender_with(ephemeral_secret, receiver_public, info, n_info, ret_context, ret_enc);
    sodium_memzero(ephemeral_secret, sizeof(ephemeral_secret));
    return status;
}

linnet_status linnet_hpke_setup_receiver(const uint8_t enc[32], const uint8_t receiver_secret[32],
                                         const void *info, size_t n_info, linnet_hpke *ret_context)
{
    uint8_t receiver_public[LINNET_X25519_BYTES], shared[KEM_SECRET_BYTES];
    if (crypto_scalarmult_curve25519_base(receiver_public, receiver_secret) != 0)
        return LINNET_ERR_CRYPTO;
    linnet_status status = kem_secret(receiver_secret, enc, enc, receiver_public, shared);
    if (status == LINNET_OK) {
        key_schedule(shared, info, n_info, ret_context);
        sodium_memzero(shared, sizeof(shared));
    }
    return status;
}

/* ---- RFC 9180, 5.2 and 5.3: seal, open, export ---- */

/* base_nonce xor the sequence number, big-endian at its end. */
static void message_nonce(const linnet_hpke *context, uint8_t ret_nonce[NONCE_BYTES])
{
    uint8_t sequence[8];
    linnet_store_be64(sequence, context->sequence);
    memcpy(ret_nonce, context->base_nonce, NONCE_BYTES);
    for (size_t i = 0; i < sizeof(sequence); i++)
        ret_nonce[NONCE_BYTES - sizeof(sequence) + i] ^= sequence[i];
}

linnet_status linnet_hpke_seal(linnet_hpke *context, const void *aad, size_t n_aad, const void *plaintext,
                               size_t n_bytes, uint8_t *ciphertext)
{
    uint8_t nonce[NONCE_BYTES];
    if (context->sequence == UINT64_MAX || n_bytes > crypto_aead_chacha20poly1305_ietf_MESSAGEBYTES_MAX)
        return LINNET_ERR_LIMIT;
    message_nonce(context, nonce);
    (void)crypto_aead_chacha20poly1305_ietf_encrypt(ciphertext, NULL, plaintext, n_bytes, aad, n_aad, NULL,
                                                    nonce, context->key); /* cannot fail below the limit */
    context->sequence++;
    return LINNET_OK;
}

linnet_status linnet_hpke_open(linnet_hpke *context, const void *aad, size_t n_aad, const void *ciphertext,
                               size_t n_bytes, uint8_t *plaintext)
{
    uint8_t nonce[NONCE_BYTES];
    if (n_bytes < LINNET_AEAD_TAG_BYTES)
        return LINNET_ERR_CRYPTO;
    if (context->sequence == UINT64_MAX ||
        n_bytes - LINNET_AEAD_TAG_BYTES > crypto_aead_chacha20poly1305_ietf_MESSAGEBYTES_MAX)
        return LINNET_ERR_LIMIT;
    message_nonce(context, nonce);
    if (crypto_aead_chacha20poly1305_ietf_decrypt(plaintext, NULL, NULL, ciphertext, n_bytes, aad, n_aad,
                                                  nonce, context->key) != 0)
        return LINNET_ERR_CRYPTO;
    context->sequence++;
    return LINNET_OK;
}

linnet_status linnet_hpke_export(const linnet_hpke *context, const void *label, size_t n_label, uint8_t *out,
                                 size_t n_out)
{
    if (n_out > 255 * 32)
        return LINNET_ERR_RANGE;
    piece suite = {HPKE_SUITE, sizeof(HPKE_SUITE)};
    labelled_expand(suite, context->exporter_secret, "sec", label, n_label, out, n_out);
    return LINNET_OK;
}

void linnet_hpke_release(linnet_hpke *context)
{
    sodium_memzero(context, sizeof(*context));
}
