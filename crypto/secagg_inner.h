/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SECAGG_INNER_H
#define LINNET_SECAGG_INNER_H

/* What both sides of linnet-sa1 share: members of a roster, and what a fixed-width message looks like. */

#include "linnet/secagg.h"

/* Offsets in an advert. */
#define ADVERT_ID 32
#define ADVERT_PK_X 48
#define ADVERT_PK_E 80
#define ADVERT_COMMITMENT 112
#define ADVERT_NONCE 144
#define ADVERT_SIGNATURE LINNET_ADVERT_BODY_BYTES
#define ADVERT_CERTIFICATE (LINNET_ADVERT_BODY_BYTES + LINNET_SIGNATURE_BYTES)

#define ROSTER_HEAD_BYTES (LINNET_SIGNATURE_BYTES + 4)                  /* of M2 */
#define MESSAGE_HEAD_BYTES (LINNET_HASH_BYTES + LINNET_DEVICE_ID_BYTES) /* T and device id of M3, M7, M9 */
#define SURVIVOR_BYTES (LINNET_HASH_BYTES + LINNET_SIGNATURE_BYTES)
#define ATTEST_ENTRY_BYTES (4 + LINNET_SIGNATURE_BYTES)
#define UNMASK_ENTRY_BYTES (1 + LINNET_SCALAR_BYTES)
enum {
    UNMASK_MISSING = 0,
    UNMASK_SELF = 1,
    UNMASK_PAIR = 2
}; /* b_share of a survivor, s_share of a drop-out */

/** A member of the roster, from its verified advert. */
typedef struct linnet_secagg_member {
    linnet_device_id id;
    linnet_public_key key; /* Ed25519, certified */
    uint8_t pk_x[32], pk_e[32];
    linnet_hash commitment; /* cb */
} linnet_secagg_member;

/** ARG for parameters that no cohort can have. */
linnet_status linnet_secagg_params_check(const linnet_secagg_params *params,
                                         linnet_error *err) LINNET_NODISCARD;

/** Verify certificate and signature, then parse: of this announcement, certified, not revoked, in the
 * consortium, keys usable and different. Whether the keys differ from other members' is the caller's
 * check. */
linnet_status linnet_secagg_advert_open(const uint8_t *advert, const linnet_hash *announcement,
                                        const linnet_secagg_trust *trust, linnet_secagg_member *ret_member,
                                        linnet_error *err) LINNET_NODISCARD;

/** Position of member `about` in a list of the others that leaves `self` out. */
static inline uint32_t linnet_secagg_slot(uint32_t about, uint32_t self)
{
    return about < self ? about : about - 1;
}
static inline size_t linnet_secagg_shares_bytes(uint32_t n)
{
    return MESSAGE_HEAD_BYTES + (size_t)(n - 1) * LINNET_SHARE_BOX_BYTES + LINNET_SIGNATURE_BYTES;
}

/** An M6, taken apart: borrowed parts and the T3 they give. */
typedef struct linnet_survivors {
    linnet_signature signature; /* of T3 */
    const uint8_t *bitmap, *list;
    uint32_t n_survivors;
    linnet_hash t3;
    size_t n_bytes; /* of the M6, where more follows it */
} linnet_survivors;
/** FORMAT on bad lengths or bits. With is_whole nothing may follow. */
linnet_status linnet_survivors_parse(const void *bytes, size_t n_bytes, uint32_t n, const linnet_hash *t2,
                                     bool is_whole, linnet_survivors *ret_survivors,
                                     linnet_error *err) LINNET_NODISCARD;

#endif
