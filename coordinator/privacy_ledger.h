/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_PRIVACY_LEDGER_H
#define LINNET_PRIVACY_LEDGER_H

#include "state.h"

/* One row "e round" for every announced round with differential privacy that is over. */
typedef struct linnet_ledger_row {
    uint8_t mechanism, unit;
    bool is_void, is_counted;
    uint32_t n_steps;
    double noise_multiplier, probability;
} linnet_ledger_row;
void linnet_ledger_row_pack(const linnet_ledger_row *row, linnet_buffer *bytes);
linnet_status linnet_ledger_row_unpack(const void *bytes, size_t n_bytes,
                                       linnet_ledger_row *ret_row) LINNET_NODISCARD;

/** In the update that closes or voids a round, row->state as it will be: enter what it spent. Nothing without
 * differential privacy. A void round counts from the moment its sharers were told to whom they are masked:
 * vectors may have left. */
linnet_status linnet_privacy_ledger_add(const linnet_coordinator *coordinator, linnet_store_txn *txn,
                                        const linnet_round_row *row, linnet_error *err) LINNET_NODISCARD;
/** What all counted rounds up to and with `round` spent; n_void of the n_rounds were void. */
linnet_status linnet_privacy_ledger_sum(linnet_store_txn *txn, uint64_t round, linnet_rdp *ret_rdp,
                                        uint64_t *ret_n_rounds, uint64_t *ret_n_void,
                                        linnet_error *err) LINNET_NODISCARD;

#endif
