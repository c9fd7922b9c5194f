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
    linnet_hash key = linnet_hash_keyed(label, shared, sizeof(shared), message, n_bytes);
    *ret_key = key;
    sodium_memzero(&key, sizeof(key));
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

/* The u-coordinates below 2^255 of all points of small order, on the curve and its twist: 0, 1, p - 1, p, p +
 * 1 and the two of order 8. X25519 gives zero for these and for no others. */
bool linnet_x25519_is_usable(const uint8_t public_key[32])
{
    static const uint8_t small_orders[][KEY_BYTES] = {
        {0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
         0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00},
        {0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
         0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00},
        {0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
         0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00},
        {0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b,
         0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57},
        {0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
         0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
        {0xed, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
         0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
        {0xee, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
         0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
    };
    uint8_t u[KEY_BYTES];
    memcpy(u, public_key, KEY_BYTES);
    u[KEY_BYTES - 1] &= 0x7f; /* X25519 ignores the top bit */
    for (size_t i = 0; i < ARRAY_LEN(small_orders); i++)
        if (memcmp(u, small_orders[i], KEY_BYTES) == 0)
            return false;
    return true;
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
