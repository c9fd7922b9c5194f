/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys and masks of linnet-sa1 (SECURE-AGGREGATION 2.2, 2.4). Every key is a keyed hash under a label of its
 * own over what it is for: the announcement, the roster T1 or the sharers T2, and who is at its ends. X25519
 * ignores the top bit of a public key and small-order components, so the shared secret alone would not tell
 * two keys apart; hashing the public keys, or T1 and the indices, does (2.1). Masks are made chunk by chunk
 * on the stack and wiped. Left out: who masks what with which sign, which the protocol's state machines know.
 */
#include "linnet/secagg_mask.h"

#include <assert.h>

#include <sodium.h>

#define KEY_BYTES crypto_scalarmult_curve25519_BYTES
#define NONCE_BYTES crypto_aead_xchacha20poly1305_ietf_NPUBBYTES

_Static_assert(LINNET_SHARE_BOX_BYTES ==
                   NONCE_BYTES + 2 * LINNET_SCALAR_BYTES + crypto_aead_xchacha20poly1305_ietf_ABYTES,
               "a box is nonce, two shares and tag");
_Static_assert(sizeof(linnet_hash) == crypto_stream_chacha20_ietf_KEYBYTES, "a hash is a cipher's key");

/* ---- keys ---- */

/* K(label, secret, hash || device_id). */
static linnet_hash device_key(linnet_label label, const linnet_scalar *secret, const linnet_hash *hash,
                              const linnet_device_id *device)
{
    uint8_t message[LINNET_HASH_BYTES + LINNET_DEVICE_ID_BYTES];
    memcpy(message, hash->bytes, LINNET_HASH_BYTES);
    memcpy(message + LINNET_HASH_BYTES, device->bytes, LINNET_DEVICE_ID_BYTES);
    return linnet_hash_keyed(label, secret->bytes, LINNET_SCALAR_BYTES, message, sizeof(message));
}

void linnet_secagg_kx_pair(const linnet_scalar *r_s, const linnet_hash *announcement,
                           const linnet_device_id *device, uint8_t ret_secret[32], uint8_t ret_public[32])
{
    linnet_hash secret = device_key(LINNET_LABEL_KX_SECRET, r_s, announcement, device);
    memcpy(ret_secret, secret.bytes, KEY_BYTES);
    (void)crypto_scalarmult_curve25519_base(ret_public, ret_secret); /* cannot fail: the order is large */
    sodium_memzero(&secret, sizeof(secret));
}

linnet_hash linnet_secagg_self_commitment(const linnet_scalar *r_b, const linnet_hash *announcement,
                                          const linnet_device_id *device)
{
    return device_key(LINNET_LABEL_SELF_COMMIT, r_b, announcement, device);
}

linnet_hash linnet_secagg_self_key(const linnet_scalar *r_b, const linnet_hash *t2,
                                   const linnet_device_id *device)
{
    return device_key(LINNET_LABEL_SELF_MASK, r_b, t2, device);
}

/* K(label, X25519(secret, public), message). CRYPTO where X25519 gives zero. */
static linnet_status exchange(linnet_label label, const uint8_t secret[32], const uint8_t public_key[32],
                              const void *message, size_t n_bytes, linnet_hash *ret_key)
{
    uint8_t shared[KEY_BYTES];
    if (crypto_scalarmult_curve25519(shared, secret, public_key) != 0) {
        sodium_memzero(shared, sizeof(shared));
        return LINNET_ERR_CRYPTO;
    }
    *ret_key = linnet_hash_keyed(label, shared, sizeof(shared), message, n_bytes);
    sodium_memzero(shared, sizeof(shared));
    return LINNET_OK;
}

linnet_status linnet_secagg_pair_key(const uint8_t own_secret[32], const uint8_t own_public[32],
                                     const uint8_t peer_public[32], const linnet_hash *t2,
                                     linnet_hash *ret_key)
{
    uint8_t message[LINNET_HASH_BYTES + 2 * KEY_BYTES];
    bool own_first = memcmp(own_public, peer_public, KEY_BYTES) < 0;
    memcpy(message, t2->bytes, LINNET_HASH_BYTES);
    memcpy(message + LINNET_HASH_BYTES, own_first ? own_public : peer_public, KEY_BYTES);
    memcpy(message + LINNET_HASH_BYTES + KEY_BYTES, own_first ? peer_public : own_public, KEY_BYTES);
    return exchange(LINNET_LABEL_PAIR_MASK, own_secret, peer_public, message, sizeof(message), ret_key);
}

bool linnet_x25519_is_usable(const uint8_t public_key[32])
{
    static const uint8_t any_secret[KEY_BYTES] = {1}; /* clamped, it kills small orders as all secrets do */
    uint8_t shared[KEY_BYTES];
    return crypto_scalarmult_curve25519(shared, any_secret, public_key) == 0;
}

void linnet_x25519_draw(uint8_t ret_secret[32], uint8_t ret_public[32])
{
    randombytes_buf(ret_secret, KEY_BYTES);
    (void)crypto_scalarmult_curve25519_base(ret_public, ret_secret); /* cannot fail: the order is large */
}

/* ---- share boxes ---- */

linnet_status linnet_share_box_key_derive(const uint8_t own_secret[32], const uint8_t peer_public[32],
                                          const linnet_hash *t1, uint32_t from, uint32_t to,
                                          linnet_share_box_key *ret_key)
{
    uint8_t ad[sizeof(ret_key->ad)];
    memcpy(ad, t1->bytes, LINNET_HASH_BYTES);
    linnet_store_le32(ad + LINNET_HASH_BYTES, from);
    linnet_store_le32(ad + LINNET_HASH_BYTES + 4, to);
    linnet_status status =
        exchange(LINNET_LABEL_SHARE_ENCRYPT, own_secret, peer_public, ad, sizeof(ad), &ret_key->key);
    if (status == LINNET_OK)
        memcpy(ret_key->ad, ad, sizeof(ad));
    return status;
}

void linnet_share_box_seal(const linnet_share_box_key *key, const uint8_t nonce[24],
                           const linnet_scalar *s_share, const linnet_scalar *b_share,
                           uint8_t ret_box[LINNET_SHARE_BOX_BYTES])
{
    uint8_t shares[2 * LINNET_SCALAR_BYTES];
    memcpy(shares, s_share->bytes, LINNET_SCALAR_BYTES);
    memcpy(shares + LINNET_SCALAR_BYTES, b_share->bytes, LINNET_SCALAR_BYTES);
    memcpy(ret_box, nonce, NONCE_BYTES);
    (void)crypto_aead_xchacha20poly1305_ietf_encrypt(ret_box + NONCE_BYTES, NULL, shares, sizeof(shares),
                                                     key->ad, sizeof(key->ad), NULL, nonce,
                                                     key->key.bytes); /* always 0 */
    sodium_memzero(shares, sizeof(shares));
}

linnet_status linnet_share_box_open(const linnet_share_box_key *key,
                                    const uint8_t box[LINNET_SHARE_BOX_BYTES], linnet_scalar *ret_s_share,
                                    linnet_scalar *ret_b_share)
{
    uint8_t shares[2 * LINNET_SCALAR_BYTES];
    bool opened = crypto_aead_xchacha20poly1305_ietf_decrypt(shares, NULL, NULL, box + NONCE_BYTES,
                                                             LINNET_SHARE_BOX_BYTES - NONCE_BYTES, key->ad,
                                                             sizeof(key->ad), box, key->key.bytes) == 0;
    if (opened) {
        memcpy(ret_s_share->bytes, shares, LINNET_SCALAR_BYTES);
        memcpy(ret_b_share->bytes, shares + LINNET_SCALAR_BYTES, LINNET_SCALAR_BYTES);
    }
    sodium_memzero(shares, sizeof(shares));
    if (opened && linnet_scalar_is_canonical(ret_s_share) && linnet_scalar_is_canonical(ret_b_share))
        return LINNET_OK;
    sodium_memzero(ret_s_share, sizeof(*ret_s_share));
    sodium_memzero(ret_b_share, sizeof(*ret_b_share));
    return LINNET_ERR_CRYPTO;
}

/* ---- masks ---- */

#define STREAM_BYTES_MAX (4 * LINNET_PACK_CHUNK)
#define BLOCK_BYTES 64

/* The keystream bytes of coordinates [first, first + n). */
static void keystream(const linnet_hash *key, uint32_t vector_id, uint32_t bits, uint64_t first, size_t n,
                      uint8_t stream[STREAM_BYTES_MAX])
{
    uint8_t nonce[crypto_stream_chacha20_ietf_NONCEBYTES] = {0};
    uint64_t block = first / 8 * bits / BLOCK_BYTES; /* `first` is a multiple of the chunk */
    size_t n_bytes = linnet_pack_bytes(bits, n);
    assert(first % LINNET_PACK_CHUNK == 0 && n <= LINNET_PACK_CHUNK && linnet_pack_is_width(bits));
    assert(block <= UINT32_MAX - STREAM_BYTES_MAX / BLOCK_BYTES);
    linnet_store_le32(nonce, vector_id);
    memset(stream, 0, n_bytes);
    (void)crypto_stream_chacha20_ietf_xor_ic(stream, stream, n_bytes, nonce, (uint32_t)block,
                                             key->bytes); /* always 0 */
}

void linnet_mask_add(const linnet_hash *key, uint32_t vector_id, uint32_t bits, uint64_t first, size_t n,
                     uint32_t *sum)
{
    uint8_t stream[STREAM_BYTES_MAX];
    keystream(key, vector_id, bits, first, n, stream);
    linnet_pack_add(bits, stream, n, sum);
    sodium_memzero(stream, linnet_pack_bytes(bits, n));
}

void linnet_mask_subtract(const linnet_hash *key, uint32_t vector_id, uint32_t bits, uint64_t first, size_t n,
                          uint32_t *sum)
{
    uint8_t stream[STREAM_BYTES_MAX];
    keystream(key, vector_id, bits, first, n, stream);
    linnet_pack_subtract(bits, stream, n, sum);
    sodium_memzero(stream, linnet_pack_bytes(bits, n));
}
