/* SPDX-License-Identifier: Apache-2.0 */
/* Rows as fixed-width little-endian bytes, read through a bounded reader: a damaged row is FORMAT, never a
 * surprise. Fields stand in the order of the structs. */
#include "rows.h"

const char *linnet_round_state_name(linnet_round_state state)
{
    switch (state) {
    case LINNET_ROUND_OPEN:
        return "open";
    case LINNET_ROUND_FROZEN:
        return "frozen";
    case LINNET_ROUND_CLOSED:
        return "closed";
    case LINNET_ROUND_VOID:
        return "void";
    case LINNET_ROUND_ROSTER:
        return "roster";
    case LINNET_ROUND_SHARERS:
        return "sharers";
    case LINNET_ROUND_OPENED:
        return "opened";
    case LINNET_ROUND_REJECTED:
        return "rejected";
    }
    return "none";
}

bool linnet_round_is_live(const linnet_round_row *row)
{
    return !linnet_round_has_release(row) && row->state != LINNET_ROUND_VOID;
}

bool linnet_round_has_release(const linnet_round_row *row)
{
    return row->state == LINNET_ROUND_CLOSED || row->state == LINNET_ROUND_REJECTED;
}

/* ---- ids ---- */

linnet_record_id linnet_record_config(const char *name)
{
    return linnet_record_bytes('c', name, strlen(name));
}

linnet_record_id linnet_record_number(char table, uint64_t number)
{
    linnet_record_id id = linnet_record_of(table);
    linnet_record_add_u64(&id, number);
    return id;
}

linnet_record_id linnet_record_bytes(char table, const void *bytes, size_t n_bytes)
{
    linnet_record_id id = linnet_record_of(table);
    linnet_record_add(&id, bytes, n_bytes);
    return id;
}

linnet_record_id linnet_record_round_device(char table, uint64_t round, const linnet_device_id *device)
{
    linnet_record_id id = linnet_record_number(table, round);
    linnet_record_add(&id, device->bytes, sizeof(device->bytes));
    return id;
}

/* ---- small pieces ---- */

static void take(linnet_reader *reader, void *bytes, size_t n_bytes)
{
    const uint8_t *from = linnet_reader_take(reader, n_bytes);
    if (from)
        memcpy(bytes, from, n_bytes);
}

static bool take_bool(linnet_reader *reader)
{
    uint8_t v = linnet_reader_u8(reader);
    if (v > 1)
        reader->failed = true;
    return v == 1;
}

static linnet_status done(const linnet_reader *reader)
{
    return linnet_reader_is_done(reader) ? LINNET_OK : LINNET_ERR_FORMAT;
}

/* ---- the rows ---- */

#define LONG_ROW 0x80 /* in the byte of the state: the fields of secure aggregation follow */

/* They are left out where they say nothing: a plain round's row is as it always was. */
static bool has_tail(const linnet_round_row *row)
{
    static const linnet_hash zero;
    return row->sharers != 0 || row->aborts != 0 || !linnet_hash_equal(&row->sum, &zero);
}

void linnet_round_row_pack(const linnet_round_row *row, linnet_buffer *bytes)
{
    linnet_buffer_append_u8(bytes, (uint8_t)(row->state | (has_tail(row) ? LONG_ROW : 0)));
    linnet_buffer_append_le64(bytes, row->number);
    linnet_buffer_append_le64(bytes, row->version);
    linnet_buffer_append(bytes, row->release.bytes, sizeof(row->release.bytes));
    linnet_buffer_append(bytes, row->chain.bytes, sizeof(row->chain.bytes));
    linnet_buffer_append_le32(bytes, row->invited);
    linnet_buffer_append_le32(bytes, row->joined);
    linnet_buffer_append_le32(bytes, row->accepted);
    linnet_buffer_append_le64(bytes, (uint64_t)row->opened_ms);
    linnet_buffer_append_le64(bytes, (uint64_t)row->deadline_ms);
    linnet_buffer_append_le64(bytes, (uint64_t)row->closed_ms);
    linnet_buffer_append_le64(bytes, row->bytes_up);
    linnet_buffer_append_le64(bytes, row->bytes_down);
    linnet_buffer_append_u8(bytes, row->has_loss_before);
    linnet_buffer_append_u8(bytes, row->has_loss_after);
    linnet_buffer_append_f64(bytes, row->loss_before);
    linnet_buffer_append_f64(bytes, row->loss_after);
    linnet_buffer_append(bytes, row->adapter.bytes, sizeof(row->adapter.bytes));
    if (!has_tail(row))
        return;
    linnet_buffer_append_le32(bytes, row->sharers);
    linnet_buffer_append_le32(bytes, row->aborts);
    linnet_buffer_append(bytes, row->sum.bytes, sizeof(row->sum.bytes));
}

linnet_status linnet_round_row_unpack(const void *bytes, size_t n_bytes, linnet_round_row *ret_row)
{
    linnet_reader reader = linnet_reader_of(bytes, n_bytes);
    linnet_round_row row = {0};
    uint8_t state = linnet_reader_u8(&reader);
    bool is_long = state & LONG_ROW;
    state &= LONG_ROW - 1;
    row.number = linnet_reader_le64(&reader);
    row.version = linnet_reader_le64(&reader);
    take(&reader, row.release.bytes, sizeof(row.release.bytes));
    take(&reader, row.chain.bytes, sizeof(row.chain.bytes));
    row.invited = linnet_reader_le32(&reader);
    row.joined = linnet_reader_le32(&reader);
    row.accepted = linnet_reader_le32(&reader);
    row.opened_ms = (int64_t)linnet_reader_le64(&reader);
    row.deadline_ms = (int64_t)linnet_reader_le64(&reader);
    row.closed_ms = (int64_t)linnet_reader_le64(&reader);
    row.bytes_up = linnet_reader_le64(&reader);
    row.bytes_down = linnet_reader_le64(&reader);
    row.has_loss_before = take_bool(&reader);
    row.has_loss_after = take_bool(&reader);
    row.loss_before = linnet_reader_f64(&reader);
    row.loss_after = linnet_reader_f64(&reader);
    take(&reader, row.adapter.bytes, sizeof(row.adapter.bytes));
    if (is_long) {
        row.sharers = linnet_reader_le32(&reader);
        row.aborts = linnet_reader_le32(&reader);
        take(&reader, row.sum.bytes, sizeof(row.sum.bytes));
    }
    if (done(&reader) != LINNET_OK || is_long != has_tail(&row) || state < LINNET_ROUND_OPEN ||
        state > LINNET_ROUND_REJECTED)
        return LINNET_ERR_FORMAT;
    row.state = (linnet_round_state)state;
    *ret_row = row;
    return LINNET_OK;
}

void linnet_token_row_pack(const linnet_token_row *row, linnet_buffer *bytes)
{
    linnet_buffer_append_le64(bytes, row->expires_s);
    linnet_buffer_append_u8(bytes, row->is_used);
    linnet_buffer_append(bytes, row->secret, sizeof(row->secret));
    linnet_buffer_append(bytes, row->public_key.bytes, sizeof(row->public_key.bytes));
}

linnet_status linnet_token_row_unpack(const void *bytes, size_t n_bytes, linnet_token_row *ret_row)
{
    linnet_reader reader = linnet_reader_of(bytes, n_bytes);
    linnet_token_row row = {0};
    row.expires_s = linnet_reader_le64(&reader);
    row.is_used = take_bool(&reader);
    take(&reader, row.secret, sizeof(row.secret));
    take(&reader, row.public_key.bytes, sizeof(row.public_key.bytes));
    if (done(&reader) != LINNET_OK)
        return LINNET_ERR_FORMAT;
    *ret_row = row;
    return LINNET_OK;
}

void linnet_device_row_pack(const linnet_device_row *row, linnet_buffer *bytes)
{
    linnet_buffer_append(bytes, row->public_key.bytes, sizeof(row->public_key.bytes));
    linnet_buffer_append_le32(bytes, row->device_class);
    linnet_buffer_append_le64(bytes, row->serial);
    linnet_buffer_append_le64(bytes, row->enrolled_s);
    linnet_buffer_append_le64(bytes, row->last_seen_s);
    linnet_buffer_append_le64(bytes, row->rounds_accepted);
    linnet_buffer_append_u8(bytes, row->is_revoked);
    linnet_buffer_append_u8(bytes, row->has_certificate);
    linnet_buffer_append(bytes, row->certificate, sizeof(row->certificate));
    linnet_buffer_append(bytes, row->request, sizeof(row->request));
}

linnet_status linnet_device_row_unpack(const void *bytes, size_t n_bytes, linnet_device_row *ret_row)
{
    linnet_reader reader = linnet_reader_of(bytes, n_bytes);
    linnet_device_row row = {0};
    take(&reader, row.public_key.bytes, sizeof(row.public_key.bytes));
    row.device_class = linnet_reader_le32(&reader);
    row.serial = linnet_reader_le64(&reader);
    row.enrolled_s = linnet_reader_le64(&reader);
    row.last_seen_s = linnet_reader_le64(&reader);
    row.rounds_accepted = linnet_reader_le64(&reader);
    row.is_revoked = take_bool(&reader);
    row.has_certificate = take_bool(&reader);
    take(&reader, row.certificate, sizeof(row.certificate));
    take(&reader, row.request, sizeof(row.request));
    if (done(&reader) != LINNET_OK)
        return LINNET_ERR_FORMAT;
    *ret_row = row;
    return LINNET_OK;
}

void linnet_release_row_pack(const linnet_release_row *row, linnet_buffer *bytes)
{
    linnet_buffer_append(bytes, row->hash.bytes, sizeof(row->hash.bytes));
    linnet_buffer_append(bytes, row->adapter.bytes, sizeof(row->adapter.bytes));
    linnet_buffer_append(bytes, row->server_state.bytes, sizeof(row->server_state.bytes));
    linnet_buffer_append_u8(bytes, row->is_final);
    linnet_buffer_append(bytes, row->bytes, row->n_bytes);
}

linnet_status linnet_release_row_unpack(const void *bytes, size_t n_bytes, linnet_release_row *ret_row)
{
    linnet_reader reader = linnet_reader_of(bytes, n_bytes);
    linnet_release_row row = {0};
    take(&reader, row.hash.bytes, sizeof(row.hash.bytes));
    take(&reader, row.adapter.bytes, sizeof(row.adapter.bytes));
    take(&reader, row.server_state.bytes, sizeof(row.server_state.bytes));
    row.is_final = take_bool(&reader);
    if (reader.failed || reader.at == reader.n_bytes)
        return LINNET_ERR_FORMAT;
    row.n_bytes = reader.n_bytes - reader.at;
    row.bytes = linnet_reader_take(&reader, row.n_bytes);
    *ret_row = row;
    return LINNET_OK;
}

void linnet_contribution_row_pack(const linnet_contribution_row *row, linnet_buffer *bytes)
{
    linnet_buffer_append(bytes, row->echo.bytes, sizeof(row->echo.bytes));
    linnet_buffer_append_le64(bytes, row->n_bytes);
    linnet_buffer_append_le64(bytes, row->sequence);
    linnet_buffer_append(bytes, row->signature.bytes, sizeof(row->signature.bytes));
}

linnet_status linnet_contribution_row_unpack(const void *bytes, size_t n_bytes,
                                             linnet_contribution_row *ret_row)
{
    linnet_reader reader = linnet_reader_of(bytes, n_bytes);
    linnet_contribution_row row = {0};
    take(&reader, row.echo.bytes, sizeof(row.echo.bytes));
    row.n_bytes = linnet_reader_le64(&reader);
    row.sequence = linnet_reader_le64(&reader);
    take(&reader, row.signature.bytes, sizeof(row.signature.bytes));
    if (done(&reader) != LINNET_OK)
        return LINNET_ERR_FORMAT;
    *ret_row = row;
    return LINNET_OK;
}

/* What the head hashes: everything but the head itself. */
static void entry_pack_body(const linnet_entry_row *row, linnet_buffer *bytes)
{
    linnet_buffer_append_u8(bytes, row->type);
    linnet_buffer_append_le64(bytes, row->round);
    linnet_buffer_append(bytes, row->body.bytes, sizeof(row->body.bytes));
}

void linnet_entry_row_pack(const linnet_entry_row *row, linnet_buffer *bytes)
{
    entry_pack_body(row, bytes);
    linnet_buffer_append(bytes, row->head.bytes, sizeof(row->head.bytes));
}

linnet_status linnet_entry_row_unpack(const void *bytes, size_t n_bytes, linnet_entry_row *ret_row)
{
    linnet_reader reader = linnet_reader_of(bytes, n_bytes);
    linnet_entry_row row = {0};
    row.type = linnet_reader_u8(&reader);
    row.round = linnet_reader_le64(&reader);
    take(&reader, row.body.bytes, sizeof(row.body.bytes));
    take(&reader, row.head.bytes, sizeof(row.head.bytes));
    if (done(&reader) != LINNET_OK || row.type < LINNET_ENTRY_RELEASE || row.type > LINNET_ENTRY_LAST)
        return LINNET_ERR_FORMAT;
    *ret_row = row;
    return LINNET_OK;
}

/* ---- rows by id ---- */

linnet_status linnet_row_put(linnet_store_txn *txn, const linnet_record_id *id, linnet_buffer *row,
                             linnet_error *err)
{
    linnet_status status = row->failed ? linnet_fail(err, LINNET_ERR_NOMEM, "store: a row")
                                       : linnet_store_put(txn, id, row->bytes, row->n_bytes, err);
    linnet_buffer_release(row);
    return status;
}

static linnet_status damaged(linnet_error *err, const char *what)
{
    return linnet_fail(err, LINNET_ERR_FORMAT,
                       "store: the row of a %s is damaged; restore the state from a backup", what);
}

linnet_status linnet_round_get(linnet_store_txn *txn, uint64_t round, linnet_round_row *ret_row,
                               linnet_error *err)
{
    linnet_record_id id = linnet_record_number('o', round);
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_status status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    if (status != LINNET_OK)
        return status;
    return linnet_round_row_unpack(bytes, n_bytes, ret_row) == LINNET_OK ? LINNET_OK : damaged(err, "round");
}

linnet_status linnet_round_put(linnet_store_txn *txn, const linnet_round_row *row, linnet_error *err)
{
    linnet_record_id id = linnet_record_number('o', row->number);
    linnet_buffer bytes = {0};
    linnet_round_row_pack(row, &bytes);
    return linnet_row_put(txn, &id, &bytes, err);
}

linnet_status linnet_device_get(linnet_store_txn *txn, const linnet_device_id *device,
                                linnet_device_row *ret_row, linnet_error *err)
{
    linnet_record_id id = linnet_record_bytes('d', device->bytes, sizeof(device->bytes));
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_status status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    if (status != LINNET_OK)
        return status;
    return linnet_device_row_unpack(bytes, n_bytes, ret_row) == LINNET_OK ? LINNET_OK
                                                                          : damaged(err, "device");
}

linnet_status linnet_device_put(linnet_store_txn *txn, const linnet_device_row *row, linnet_error *err)
{
    linnet_device_id device = linnet_device_id_of(&row->public_key);
    linnet_record_id id = linnet_record_bytes('d', device.bytes, sizeof(device.bytes));
    linnet_buffer bytes = {0};
    linnet_device_row_pack(row, &bytes);
    return linnet_row_put(txn, &id, &bytes, err);
}

linnet_status linnet_release_get(linnet_store_txn *txn, uint64_t version, linnet_release_row *ret_row,
                                 linnet_error *err)
{
    linnet_record_id id = linnet_record_number('r', version);
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_status status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    if (status != LINNET_OK)
        return status;
    return linnet_release_row_unpack(bytes, n_bytes, ret_row) == LINNET_OK ? LINNET_OK
                                                                           : damaged(err, "release");
}

linnet_status linnet_contribution_get(linnet_store_txn *txn, uint64_t round, const linnet_device_id *device,
                                      linnet_contribution_row *ret_row, linnet_error *err)
{
    linnet_record_id id = linnet_record_round_device('b', round, device);
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_status status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    if (status != LINNET_OK)
        return status;
    return linnet_contribution_row_unpack(bytes, n_bytes, ret_row) == LINNET_OK
               ? LINNET_OK
               : damaged(err, "contribution");
}

linnet_status linnet_config_get(linnet_store_txn *txn, const char *name, linnet_buffer *ret_bytes,
                                linnet_error *err)
{
    linnet_record_id id = linnet_record_config(name);
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_status status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    if (status == LINNET_ERR_NOT_FOUND)
        return LINNET_OK;
    if (status != LINNET_OK)
        return status;
    linnet_buffer_append(ret_bytes, bytes, n_bytes);
    return ret_bytes->failed ? linnet_fail(err, LINNET_ERR_NOMEM, "store: '%s'", name) : LINNET_OK;
}

linnet_status linnet_config_put(linnet_store_txn *txn, const char *name, const void *bytes, size_t n_bytes,
                                linnet_error *err)
{
    linnet_record_id id = linnet_record_config(name);
    return linnet_store_put(txn, &id, bytes, n_bytes, err);
}

linnet_status linnet_config_get_u64(linnet_store_txn *txn, const char *name, uint64_t *ret_value,
                                    linnet_error *err)
{
    linnet_record_id id = linnet_record_config(name);
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_status status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    if (status == LINNET_OK && n_bytes != 8)
        return damaged(err, name);
    if (status != LINNET_OK && status != LINNET_ERR_NOT_FOUND)
        return status;
    *ret_value = status == LINNET_OK ? linnet_load_le64(bytes) : 0;
    return LINNET_OK;
}

linnet_status linnet_config_put_u64(linnet_store_txn *txn, const char *name, uint64_t value,
                                    linnet_error *err)
{
    uint8_t bytes[8];
    linnet_store_le64(bytes, value);
    return linnet_config_put(txn, name, bytes, sizeof(bytes), err);
}

typedef struct id_list {
    linnet_buffer bytes; /* owned: length and fields of each id behind the prefix */
} id_list;

static linnet_status list_id(void *context, const uint8_t *fields, size_t n_fields, const uint8_t *bytes,
                             size_t n_bytes, linnet_error *err)
{
    id_list *list = context;
    (void)bytes;
    (void)n_bytes;
    linnet_buffer_append_u8(&list->bytes, (uint8_t)n_fields); /* ids have at most 80 bytes */
    linnet_buffer_append(&list->bytes, fields, n_fields);
    return list->bytes.failed ? linnet_fail(err, LINNET_ERR_NOMEM, "store: records to delete") : LINNET_OK;
}

/* Listed first: a cursor does not stay where it is while records go. */
linnet_status linnet_table_clear(linnet_store_txn *txn, const linnet_record_id *prefix, linnet_error *err)
{
    id_list list = {0};
    linnet_status status = linnet_store_each(txn, prefix, list_id, &list, err);
    linnet_reader reader = linnet_reader_of(list.bytes.bytes, list.bytes.n_bytes);
    while (status == LINNET_OK && reader.at < reader.n_bytes) {
        linnet_record_id id = *prefix;
        uint8_t n_fields = linnet_reader_u8(&reader);
        linnet_record_add(&id, linnet_reader_take(&reader, n_fields), n_fields);
        status = linnet_store_delete(txn, &id, err);
    }
    linnet_buffer_release(&list.bytes);
    return status;
}

linnet_status linnet_shares_clear(linnet_store_txn *txn, uint64_t round, linnet_error *err)
{
    linnet_record_id shares = linnet_record_number('p', round), unmaskings = linnet_record_number('u', round);
    linnet_status status = linnet_table_clear(txn, &shares, err);
    return status == LINNET_OK ? linnet_table_clear(txn, &unmaskings, err) : status;
}

linnet_status linnet_row_exists(linnet_store_txn *txn, char table, uint64_t round,
                                const linnet_device_id *device, bool *ret_exists, linnet_error *err)
{
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_record_id id = linnet_record_round_device(table, round, device);
    linnet_status status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    if (status != LINNET_OK && status != LINNET_ERR_NOT_FOUND)
        return status;
    *ret_exists = status == LINNET_OK;
    return LINNET_OK;
}

linnet_status linnet_transcript_append(linnet_store_txn *txn, linnet_entry_type type, uint64_t round,
                                       const linnet_hash *body, linnet_error *err)
{
    uint64_t n_entries;
    linnet_buffer before = {0}, bytes = {0};
    linnet_entry_row entry = {.type = (uint8_t)type, .round = round, .body = *body};
    linnet_status status = linnet_config_get_u64(txn, "transcript.entries", &n_entries, err);
    if (status == LINNET_OK)
        status = linnet_config_get(txn, "transcript.head", &before, err);
    if (status != LINNET_OK)
        goto done;
    entry_pack_body(&entry, &before);
    entry.head = linnet_hash_of(LINNET_LABEL_TRANSCRIPT, before.bytes, before.n_bytes);
    linnet_record_id id = linnet_record_number('h', n_entries);
    linnet_entry_row_pack(&entry, &bytes);
    status = before.failed ? linnet_fail(err, LINNET_ERR_NOMEM, "transcript")
                           : linnet_row_put(txn, &id, &bytes, err);
    if (status == LINNET_OK)
        status = linnet_config_put(txn, "transcript.head", entry.head.bytes, sizeof(entry.head.bytes), err);
    if (status == LINNET_OK)
        status = linnet_config_put_u64(txn, "transcript.entries", n_entries + 1, err);
done:
    linnet_buffer_release(&before);
    linnet_buffer_release(&bytes);
    return status;
}
