/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of the coordinator's store: any bytes unpack to a row that packs to the same bytes, or are
 * refused. */
#include "coordinator/outcome.h"
#include "coordinator/privacy_ledger.h"
#include "coordinator/rows.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static void must_match(linnet_buffer *packed, const uint8_t *bytes, size_t n_bytes)
{
    if (packed->n_bytes != n_bytes || memcmp(packed->bytes, bytes, n_bytes) != 0)
        abort();
    linnet_buffer_release(packed);
}

#define TRY(type, unpack, pack)                                                                              \
    do {                                                                                                     \
        type row_;                                                                                           \
        linnet_buffer packed_ = {0};                                                                         \
        if (unpack(bytes, n_bytes, &row_) == LINNET_OK) {                                                    \
            pack(&row_, &packed_);                                                                           \
            must_match(&packed_, bytes, n_bytes);                                                            \
        }                                                                                                    \
    } while (0)

static void try_outcome(const uint8_t *bytes, size_t n_bytes)
{
    linnet_outcome_row row;
    linnet_buffer packed = {0};
    if (linnet_outcome_row_unpack(bytes, n_bytes, 0, &row) != LINNET_OK)
        return;
    linnet_outcome_row_pack(&row, &packed);
    must_match(&packed, bytes, n_bytes);
    linnet_outcome_row_release(&row);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    try_outcome(bytes, n_bytes);
    TRY(linnet_round_row, linnet_round_row_unpack, linnet_round_row_pack);
    TRY(linnet_token_row, linnet_token_row_unpack, linnet_token_row_pack);
    TRY(linnet_device_row, linnet_device_row_unpack, linnet_device_row_pack);
    TRY(linnet_release_row, linnet_release_row_unpack, linnet_release_row_pack);
    TRY(linnet_contribution_row, linnet_contribution_row_unpack, linnet_contribution_row_pack);
    TRY(linnet_ledger_row, linnet_ledger_row_unpack, linnet_ledger_row_pack);
    TRY(linnet_entry_row, linnet_entry_row_unpack, linnet_entry_row_pack);
    return 0;
}
