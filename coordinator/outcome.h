/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_OUTCOME_H
#define LINNET_OUTCOME_H

/* What combining a round came to: the row "f round". Written with the round's end, read by reports. */

#include "rows.h"

#include "linnet/coordinator.h"

typedef struct linnet_outcome_row {
    double norm; /* of the combined delta */
    bool has_gate;
    double gate_loss_before, gate_loss_after;
    linnet_influence *parts; /* owned */
    size_t n_parts;
} linnet_outcome_row;
void linnet_outcome_row_release(linnet_outcome_row *row);

void linnet_outcome_row_pack(const linnet_outcome_row *row, linnet_buffer *bytes);
linnet_status linnet_outcome_row_unpack(const void *bytes, size_t n_bytes, uint64_t round,
                                        linnet_outcome_row *ret_row) LINNET_NODISCARD;
/** Its parts are those of `row` that are of this round. */
linnet_status linnet_outcome_put(linnet_store_txn *txn, uint64_t round, const linnet_outcome_row *row,
                                 linnet_error *err) LINNET_NODISCARD;
/** NOT_FOUND for a round that was not combined. */
linnet_status linnet_outcome_get(linnet_store_txn *txn, uint64_t round, linnet_outcome_row *ret_row,
                                 linnet_error *err) LINNET_NODISCARD;

#endif
