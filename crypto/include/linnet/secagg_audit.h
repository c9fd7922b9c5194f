/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SECAGG_AUDIT_H
#define LINNET_SECAGG_AUDIT_H

/* The chain of one round of linnet-sa1 as a third party checks it: from the messages that went to the members
 * (secagg.h), without a secret and without a member's view. What it shows: whom the roster had, that each was
 * certified, who shared, whose vectors are in the sum, and that enough of them signed one set of
 * survivors. */

#include "linnet/secagg.h"

typedef struct linnet_secagg_audit {
    linnet_secagg_params params; /* in */
    linnet_hash t1, t2, t3;      /* as far as they are checked */
    uint32_t n, n_sharers, n_survivors, n_attested;
    linnet_secagg_thresholds thresholds;
    /* borrowed from the messages: adverts of M2, bitmaps, R's list of M6 */
    const uint8_t *adverts, *sharers, *survivors, *list;
} linnet_secagg_audit;

/* In this order, each after the one before was good. NULL: good; else what is wrong, one static line. The
 * messages are borrowed as long as the audit is used. */
const char *linnet_secagg_audit_roster(linnet_secagg_audit *audit, const linnet_secagg_trust *trust,
                                       const void *m2, size_t n_bytes) LINNET_NODISCARD;
/** Signature of T2 and bitmap U2: the head of every M4. */
const char *linnet_secagg_audit_sharers(linnet_secagg_audit *audit, const void *bytes,
                                        size_t n_bytes) LINNET_NODISCARD;
const char *linnet_secagg_audit_survivors(linnet_secagg_audit *audit, const void *m6,
                                          size_t n_bytes) LINNET_NODISCARD;
const char *linnet_secagg_audit_certificate(linnet_secagg_audit *audit, const void *m8,
                                            size_t n_bytes) LINNET_NODISCARD;

/** Member `index` of the roster. */
linnet_device_id linnet_secagg_audit_device(const linnet_secagg_audit *audit, uint32_t index);
linnet_public_key linnet_secagg_audit_key(const linnet_secagg_audit *audit, uint32_t index);
/** Roster index, or -1. */
int32_t linnet_secagg_audit_index(const linnet_secagg_audit *audit, const linnet_device_id *device);
/** Hy and the signature of the M5 header of member `index` in R; NULL where it is no survivor. Borrowed. */
const uint8_t *linnet_secagg_audit_contribution(const linnet_secagg_audit *audit, uint32_t index);

/* What T1, T2 and T3 hash, appended to ret_body: with its signature each is a statement of the coordinator
 * that stands alone. FORMAT where the message is malformed; NOMEM. */
/** From M2: A || LE32 n || leaves. */
linnet_status linnet_secagg_roster_body(const linnet_hash *announcement, const void *m2, size_t n_bytes,
                                        linnet_buffer *ret_body,
                                        linnet_signature *ret_signature) LINNET_NODISCARD;
/** From signature and bitmap: T1 || bitmap. */
linnet_status linnet_secagg_sharers_body(const linnet_hash *t1, const void *bytes, size_t n_bytes,
                                         linnet_buffer *ret_body,
                                         linnet_signature *ret_signature) LINNET_NODISCARD;
/** From an M6 of a roster of n: T2 || bitmap || R. */
linnet_status linnet_secagg_survivors_body(const linnet_hash *t2, uint32_t n, const void *m6, size_t n_bytes,
                                           linnet_buffer *ret_body,
                                           linnet_signature *ret_signature) LINNET_NODISCARD;

#endif
