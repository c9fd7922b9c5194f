/* SPDX-License-Identifier: Apache-2.0 */
/* The row of a round's outcome, as fixed-width little-endian bytes: norm, gate, then the parts. A part that
 * is a cohort's mean has a device id of zeros. */
#include "outcome.h"

#include <stdlib.h>

#define PART_BYTES (1 + LINNET_DEVICE_ID_BYTES + 8 * 3 + 1 + 8)

static bool take_bool(linnet_reader *reader)
{
    uint8_t v = linnet_reader_u8(reader);
    if (v > 1)
        reader->failed = true;
    return v == 1;
}

void linnet_outcome_row_release(linnet_outcome_row *row)
{
    free(row->parts);
    *row = (linnet_outcome_row){0};
}

static void part_pack(const linnet_influence *part, linnet_buffer *bytes)
{
    linnet_buffer_append_u8(bytes, part->is_device);
    linnet_buffer_append(bytes, part->device_id.bytes, sizeof(part->device_id.bytes));
    linnet_buffer_append_f64(bytes, part->weight);
    linnet_buffer_append_f64(bytes, part->norm);
    linnet_buffer_append_f64(bytes, part->cosine);
    linnet_buffer_append_u8(bytes, part->has_factor);
    linnet_buffer_append_f64(bytes, part->factor);
}

static linnet_influence part_unpack(linnet_reader *reader, uint64_t round)
{
    linnet_influence part = {.round = round, .is_device = take_bool(reader)};
    const uint8_t *id = linnet_reader_take(reader, sizeof(part.device_id.bytes));
    if (id)
        memcpy(part.device_id.bytes, id, sizeof(part.device_id.bytes));
    part.weight = linnet_reader_f64(reader);
    part.norm = linnet_reader_f64(reader);
    part.cosine = linnet_reader_f64(reader);
    part.has_factor = take_bool(reader);
    part.factor = linnet_reader_f64(reader);
    return part;
}

void linnet_outcome_row_pack(const linnet_outcome_row *row, linnet_buffer *bytes)
{
    linnet_buffer_append_f64(bytes, row->norm);
    linnet_buffer_append_u8(bytes, row->has_gate);
    linnet_buffer_append_f64(bytes, row->gate_loss_before);
    linnet_buffer_append_f64(bytes, row->gate_loss_after);
    for (size_t k = 0; k < row->n_parts; k++)
        part_pack(&row->parts[k], bytes);
}

linnet_status linnet_outcome_row_unpack(const void *bytes, size_t n_bytes, uint64_t round,
                                        linnet_outcome_row *ret_row)
{
    linnet_reader reader = linnet_reader_of(bytes, n_bytes);
    linnet_outcome_row row = {0};
    row.norm = linnet_reader_f64(&reader);
    row.has_gate = take_bool(&reader);
    row.gate_loss_before = linnet_reader_f64(&reader);
    row.gate_loss_after = linnet_reader_f64(&reader);
    if (reader.failed || (n_bytes - reader.at) % PART_BYTES != 0)
        return LINNET_ERR_FORMAT;
    row.n_parts = (n_bytes - reader.at) / PART_BYTES;
    row.parts = calloc(row.n_parts + 1, sizeof(*row.parts));
    if (!row.parts)
        return LINNET_ERR_NOMEM;
    for (size_t k = 0; k < row.n_parts; k++)
        row.parts[k] = part_unpack(&reader, round);
    if (!linnet_reader_is_done(&reader)) {
        linnet_outcome_row_release(&row);
        return LINNET_ERR_FORMAT;
    }
    *ret_row = row;
    return LINNET_OK;
}

linnet_status linnet_outcome_put(linnet_store_txn *txn, uint64_t round, const linnet_outcome_row *row,
                                 linnet_error *err)
{
    linnet_record_id id = linnet_record_number('f', round);
    linnet_buffer bytes = {0};
    linnet_outcome_row own = *row;
    own.n_parts = 0;
    linnet_outcome_row_pack(&own, &bytes);
    for (size_t k = 0; k < row->n_parts; k++)
        if (row->parts[k].round == round)
            part_pack(&row->parts[k], &bytes);
    return linnet_row_put(txn, &id, &bytes, err);
}

linnet_status linnet_outcome_get(linnet_store_txn *txn, uint64_t round, linnet_outcome_row *ret_row,
                                 linnet_error *err)
{
    linnet_record_id id = linnet_record_number('f', round);
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_status status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_outcome_row_unpack(bytes, n_bytes, round, ret_row);
    return status == LINNET_ERR_FORMAT
               ? linnet_fail(err, status,
                             "store: the row of an outcome is damaged; restore the state from a backup")
               : status;
}
