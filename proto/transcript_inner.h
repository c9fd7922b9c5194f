/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_TRANSCRIPT_INNER_H
#define LINNET_TRANSCRIPT_INNER_H

/* Slots: the places that the coordinator may sign one body for. */

#include "linnet/transcript.h"

typedef struct linnet_slot {
    uint8_t id[1 + 16 + 8 + 8]; /* kind; then task, number, revocation list's number, or the parent's hash */
    linnet_hash hash;           /* V, A, T1, T2 or T3 */
} linnet_slot;

/** The slot of a Signed body that was verified with the key. FORMAT, CRYPTO. */
linnet_status linnet_slot_of(uint8_t kind, const linnet_span *signed_bytes,
                             const linnet_public_key *coordinator, linnet_slot *ret_slot) LINNET_NODISCARD;

/** The slots of the logs and receipts (NULL: none); two bodies in one become an equivocation in the report,
 * the first of them its evidence. NOMEM. */
linnet_status linnet_slots_compare(const linnet_log *log, const linnet_receipts *receipts,
                                   const linnet_log *other, linnet_log_report *report,
                                   linnet_error *err) LINNET_NODISCARD;

/** A finding more; NOMEM is OK's only other. flaw is static. */
linnet_status linnet_report_add(linnet_log_report *report, int where, size_t index, const char *flaw,
                                linnet_error *err) LINNET_NODISCARD;

#endif
