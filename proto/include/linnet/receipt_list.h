/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_RECEIPT_LIST_H
#define LINNET_RECEIPT_LIST_H

/* What a coordinator hands back to a device that may have lost a part of its ledger: one item for each of the
 * device's accepted contributions, by increasing round (SECURE-AGGREGATION 3.4; docs/protocol.md). */

#include "linnet/messages.h"

#define LINNET_RECEIPT_QUERY_BYTES 8 /* the question: u64, the first round that is wanted */
#define LINNET_RECEIPT_LIST_BYTES_MAX ((size_t)256 << 10) /* of one answer; what does not fit comes later */

typedef struct linnet_receipt_item {
    const uint8_t *announcement; /* Signed; borrowed */
    size_t n_announcement;
    const uint8_t *receipt;  /* LINNET_SIGNED_RECEIPT_BYTES, borrowed */
    linnet_signature upload; /* the device's own, of its upload's header: nobody else can make up an item */
} linnet_receipt_item;

/** Append an item. LIMIT where the list would be too long, NOMEM; the list is unchanged then. */
linnet_status linnet_receipt_list_add(linnet_buffer *list, const linnet_receipt_item *item,
                                      linnet_error *err) LINNET_NODISCARD;

typedef struct linnet_receipt_list {
    linnet_reader reader; /* at the next item */
    size_t n_items;       /* of the whole list; 0: the end */
} linnet_receipt_list;
/** Walk the whole list. It borrows bytes. FORMAT where one item is not whole. */
linnet_status linnet_receipt_list_open(const void *bytes, size_t n_bytes, linnet_receipt_list *ret_list,
                                       linnet_error *err) LINNET_NODISCARD;
/** false: there is no other. */
bool linnet_receipt_list_next(linnet_receipt_list *list, linnet_receipt_item *ret_item);

/** What an item must be of. */
typedef struct linnet_receipt_owner {
    linnet_public_key coordinator, device;
    uint8_t task[16];
} linnet_receipt_owner;

/** An item of which every signature is good. */
typedef struct linnet_proven_receipt {
    linnet_announcement announcement;
    linnet_hash a;
    linnet_receipt receipt;
    uint64_t n_bytes; /* of the contribution */
} linnet_proven_receipt;

/** CRYPTO where a signature is bad, MISMATCH where the item is of another coordinator, task, device or round.
 * With masks the chain of a receipt is T2, of which nobody can tell here which A it follows. */
linnet_status linnet_receipt_item_prove(const linnet_receipt_item *item, const linnet_receipt_owner *owner,
                                        linnet_proven_receipt *ret_proven,
                                        linnet_error *err) LINNET_NODISCARD;

#endif
