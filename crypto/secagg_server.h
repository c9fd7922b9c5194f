/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SECAGG_SERVER_INNER_H
#define LINNET_SECAGG_SERVER_INNER_H

/* The coordinator's machine from inside: secagg_server.c takes messages, secagg_open.c rebuilds secrets. */

#include "secagg_inner.h"

typedef struct server_member {
    linnet_secagg_member member;
    uint8_t advert[LINNET_ADVERT_BYTES];
    bool has_shared, has_masked, has_attested, has_unmasked;
    bool is_wrong;  /* handed over a share that does not fit the others: its fault, or that of the owner */
    uint32_t blame; /* how much for that: the less, the sooner secrets are rebuilt from its shares */
    linnet_signature shares_signature, header_signature, attest_signature, unmask_signature;
    linnet_hash echo;
    uint8_t *unmask;      /* owned, secret: |U2| - 1 entries of kind and share */
    linnet_scalar secret; /* rebuilt: r_b or r_s; wiped once the round is open */
    bool has_secret;
} server_member;

struct linnet_secagg_server {
    linnet_secagg_params params;
    const linnet_identity *identity; /* borrowed */
    linnet_secagg_server_phase phase;
    uint32_t n;
    server_member *members; /* owned; by id once the roster is closed */
    size_t capacity;
    linnet_secagg_thresholds thresholds;
    linnet_hash t1, t2, t3;
    linnet_signature t1_signature, t2_signature, t3_signature;
    uint8_t u2[LINNET_SECAGG_BITMAP_MAX], u3[LINNET_SECAGG_BITMAP_MAX];
    uint16_t rank[LINNET_SECAGG_MEMBERS_MAX];                     /* sharers before each member */
    uint32_t attest_order[LINNET_SECAGG_MEMBERS_MAX], n_attested; /* as they came */
    /* in OPENED: every mask to take off, and its sign */
    linnet_hash *keys; /* owned, wiped */
    int8_t *signs;     /* owned: what the mask counts in the sum */
    size_t n_keys;
};

/** Entry of `holder`'s unmasking about `owner`. */
static inline const uint8_t *linnet_server_entry(const linnet_secagg_server *server, uint32_t holder,
                                                 uint32_t owner)
{
    uint32_t slot = server->rank[owner] - (holder < owner); /* holders are sharers */
    return server->members[holder].unmask + (size_t)slot * UNMASK_ENTRY_BYTES;
}

#endif
