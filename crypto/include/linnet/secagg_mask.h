/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SECAGG_MASK_H
#define LINNET_SECAGG_MASK_H

/* The keys of linnet-sa1 and the masks that come from them (SECURE-AGGREGATION 2.2, 2.4). A mask is the
 * keystream of ChaCha20-IETF, packed as the vector is: vector `id` has the nonce LE32(id) || 0^8, and the
 * block counter is the byte offset / 64, so that any chunk of LINNET_PACK_CHUNK coordinates can be made
 * alone. */

#include "linnet/identity.h"
#include "linnet/packing.h"
#include "linnet/shamir.h"

#define LINNET_SHARE_BOX_BYTES (24 + 32 + 32 + 16) /* nonce, two shares, tag */

/** sk_x = K("kxsec", r_s, A || device_id), pk_x = base point x sk_x. */
void linnet_secagg_kx_pair(const linnet_scalar *r_s, const linnet_hash *announcement,
                           const linnet_device_id *device, uint8_t ret_secret[32], uint8_t ret_public[32]);
/** cb = K("selfc", r_b, A || device_id). */
linnet_hash linnet_secagg_self_commitment(const linnet_scalar *r_b, const linnet_hash *announcement,
                                          const linnet_device_id *device);
/** K("selfm", r_b, T2 || device_id). */
linnet_hash linnet_secagg_self_key(const linnet_scalar *r_b, const linnet_hash *t2,
                                   const linnet_device_id *device);
/** K("pairm", X25519(sk_x, pk_x_j), T2 || min(pk_x) || max(pk_x)): the same from both ends. CRYPTO where the
 * X25519 result is all zero. */
linnet_status linnet_secagg_pair_key(const uint8_t own_secret[32], const uint8_t own_public[32],
                                     const uint8_t peer_public[32], const linnet_hash *t2,
                                     linnet_hash *ret_key) LINNET_NODISCARD;
/** Does X25519 with this public key give something else than zero? False for points of small order. */
bool linnet_x25519_is_usable(const uint8_t public_key[32]);
/** A fresh X25519 pair from the system's generator. */
void linnet_x25519_draw(uint8_t ret_secret[32], uint8_t ret_public[32]);

/** What the share box from member i to member j (indices in the roster) is sealed with. */
typedef struct linnet_share_box_key {
    linnet_hash key;    /* ke = K("shenc", X25519(sk_e_i, pk_e_j), T1 || LE32 i || LE32 j) */
    uint8_t ad[32 + 8]; /* T1 || LE32 i || LE32 j */
} linnet_share_box_key;
/** The key of i -> j from either end: own_secret is sk_e of one, peer_public pk_e of the other. CRYPTO on an
 * all-zero X25519 result. Wipe it after use. */
linnet_status linnet_share_box_key_derive(const uint8_t own_secret[32], const uint8_t peer_public[32],
                                          const linnet_hash *t1, uint32_t from, uint32_t to,
                                          linnet_share_box_key *ret_key) LINNET_NODISCARD;
/** nonce || XChaCha20-Poly1305(key, nonce, s_share || b_share, ad). */
void linnet_share_box_seal(const linnet_share_box_key *key, const uint8_t nonce[24],
                           const linnet_scalar *s_share, const linnet_scalar *b_share,
                           uint8_t ret_box[LINNET_SHARE_BOX_BYTES]);
/** CRYPTO where the box does not open or a scalar is not canonical; both results are zero then. */
linnet_status linnet_share_box_open(const linnet_share_box_key *key,
                                    const uint8_t box[LINNET_SHARE_BOX_BYTES], linnet_scalar *ret_s_share,
                                    linnet_scalar *ret_b_share) LINNET_NODISCARD;

/**
 * sum[i] += (or -=) the mask's coordinate first + i, modulo 2^32, for i in [0, n).
 *
 * key        of the mask
 * vector_id  of the announcement's vector
 * first      a multiple of LINNET_PACK_CHUNK
 * n          1 .. LINNET_PACK_CHUNK
 *
 * Time depends on bits and n only. Threads may mask different chunks at once.
 */
void linnet_mask_add(const linnet_hash *key, uint32_t vector_id, uint32_t bits, uint64_t first, size_t n,
                     uint32_t *sum);
void linnet_mask_subtract(const linnet_hash *key, uint32_t vector_id, uint32_t bits, uint64_t first, size_t n,
                          uint32_t *sum);

#endif
