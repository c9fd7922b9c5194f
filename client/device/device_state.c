/* SPDX-License-Identifier: Apache-2.0 */

/* The durable records of a device: a version number, then fixed fields in order, little-endian. A record of a
 * newer version is refused, so that an older program never acts on a state that it half understands. Every
 * change of the main record is one commit, together with the values that must change with it
 * (SECURE-AGGREGATION 7). */

#include "device_internal.h"

#include <stdio.h>
#include <stdlib.h>

#define STATE_VERSION 3 /* 2: masked rounds, at the end of the main record; 3: receipts, behind them */

static linnet_status state_get(linnet_kv *kv, const char *name, linnet_buffer *bytes, linnet_error *err)
{
    linnet_status status = kv->get(kv->context, name, bytes, err);
    if (status != LINNET_OK)
        return status;
    uint32_t version = bytes->n_bytes < 4 ? 0 : linnet_load_le32(bytes->bytes);
    if (version > STATE_VERSION)
        return linnet_fail(
            err, LINNET_ERR_UNSUPPORTED,
            "state record '%s' is of version %u, written by a newer program; this one reads up to %d", name,
            (unsigned)version, STATE_VERSION);
    if (version < 1)
        return linnet_fail(err, LINNET_ERR_FORMAT, "state record '%s' is damaged", name);
    return LINNET_OK;
}

static void take(linnet_reader *reader, void *into, size_t n_bytes)
{
    const uint8_t *p = linnet_reader_take(reader, n_bytes);
    if (p)
        memcpy(into, p, n_bytes);
}

static bool take_bool(linnet_reader *reader)
{
    uint8_t v = linnet_reader_u8(reader);
    if (v > 1)
        reader->failed = true;
    return v == 1;
}

linnet_status device_identity_pack(const identity_record *identity, linnet_buffer *bytes, linnet_error *err)
{
    size_t n_url = strnlen(identity->url, sizeof(identity->url) - 1);
    linnet_buffer_append_le32(bytes, STATE_VERSION);
    linnet_buffer_append(bytes, identity->seed, sizeof(identity->seed));
    linnet_buffer_append(bytes, identity->coordinator.bytes, LINNET_PUBLIC_KEY_BYTES);
    linnet_buffer_append(bytes, identity->authority.bytes, LINNET_PUBLIC_KEY_BYTES);
    linnet_buffer_append(bytes, identity->task, sizeof(identity->task));
    linnet_buffer_append_le32(bytes, identity->device_class);
    linnet_buffer_append(bytes, identity->token.id, LINNET_TOKEN_ID_BYTES);
    linnet_buffer_append(bytes, identity->token.secret, LINNET_TOKEN_SECRET_BYTES);
    linnet_buffer_append_le64(bytes, identity->enrolled_s);
    linnet_buffer_append_u8(bytes, identity->operator_is_authority);
    linnet_buffer_append_u8(bytes, identity->is_enrolled);
    linnet_buffer_append(bytes, identity->certificate, sizeof(identity->certificate));
    linnet_buffer_append_le16(bytes, (uint16_t)n_url);
    linnet_buffer_append(bytes, identity->url, n_url);
    return bytes->failed ? linnet_fail(err, LINNET_ERR_NOMEM, "identity record") : LINNET_OK;
}

linnet_status device_identity_load(linnet_kv *kv, identity_record *ret_identity, linnet_error *err)
{
    linnet_buffer bytes = {0};
    identity_record r = {0};
    linnet_status status = state_get(kv, KV_IDENTITY, &bytes, err);
    if (status != LINNET_OK)
        goto done;
    linnet_reader reader = linnet_reader_of(bytes.bytes, bytes.n_bytes);
    (void)linnet_reader_le32(&reader); /* the version, seen by state_get */
    take(&reader, r.seed, sizeof(r.seed));
    take(&reader, r.coordinator.bytes, LINNET_PUBLIC_KEY_BYTES);
    take(&reader, r.authority.bytes, LINNET_PUBLIC_KEY_BYTES);
    take(&reader, r.task, sizeof(r.task));
    r.device_class = linnet_reader_le32(&reader);
    take(&reader, r.token.id, LINNET_TOKEN_ID_BYTES);
    take(&reader, r.token.secret, LINNET_TOKEN_SECRET_BYTES);
    r.enrolled_s = linnet_reader_le64(&reader);
    r.operator_is_authority = take_bool(&reader);
    r.is_enrolled = take_bool(&reader);
    take(&reader, r.certificate, sizeof(r.certificate));
    size_t n_url = linnet_reader_le16(&reader);
    if (n_url < sizeof(r.url))
        take(&reader, r.url, n_url);
    if (!linnet_reader_is_done(&reader))
        status = linnet_fail(err, LINNET_ERR_FORMAT, "state record '" KV_IDENTITY "' is damaged");
    else
        *ret_identity = r;
done:
    if (bytes.n_bytes > 0)
        linnet_wipe(bytes.bytes, bytes.n_bytes);
    linnet_buffer_release(&bytes);
    linnet_wipe(&r, sizeof(r));
    return status;
}

static void record_pack(const device_record *r, linnet_buffer *b)
{
    linnet_buffer_append_le32(b, STATE_VERSION);
    linnet_buffer_append_u8(b, r->has_release);
    linnet_buffer_append_le64(b, r->version);
    linnet_buffer_append(b, r->release.bytes, LINNET_HASH_BYTES);
    linnet_buffer_append_u8(b, (uint8_t)r->delta);
    linnet_buffer_append_le64(b, r->attempt);
    linnet_buffer_append_le64(b, r->train_seed);
    linnet_buffer_append_le64(b, r->counted_tokens);
    linnet_buffer_append_le64(b, r->last_round);
    linnet_buffer_append(b, r->chain.bytes, LINNET_HASH_BYTES);
    linnet_buffer_append_le64(b, r->upload_offset);
    linnet_buffer_append_le64(b, r->n_ledger);
    linnet_buffer_append_le64(b, r->n_contributions);
    linnet_buffer_append_le64(b, r->bytes_up);
    linnet_buffer_append_le64(b, r->bytes_down);
    linnet_buffer_append_le64(b, r->revocation_number);
    linnet_buffer_append_le64(b, r->channel_number);
    linnet_buffer_append_u8(b, r->is_evaluated);
    linnet_buffer_append_u8(b, r->has_release_loss);
    linnet_buffer_append_f64(b, r->release_loss);
    linnet_buffer_append_u8(b, r->is_contributed);
    linnet_buffer_append_le64(b, (uint64_t)r->contributed_ms);
    linnet_buffer_append_u8(b, r->is_revoked);
    linnet_buffer_append(b, r->installed.bytes, LINNET_HASH_BYTES);
    linnet_buffer_append(b, r->previous.bytes, LINNET_HASH_BYTES);
    linnet_buffer_append_le64(b, r->installed_version);
    linnet_buffer_append_le64(b, r->previous_version);
    linnet_buffer_append_u8(b, r->has_held_out_loss);
    linnet_buffer_append_f64(b, r->held_out_loss);
    linnet_buffer_append_le64(b, r->held_out_tokens);
    linnet_buffer_append_le64(b, r->n_parts);
    linnet_buffer_append(b, r->part_object.bytes, LINNET_HASH_BYTES);
    linnet_buffer_append_le64(b, r->generation);
    linnet_buffer_append_u8(b, r->has_round);
    linnet_buffer_append_u8(b, r->is_uploaded);
    linnet_buffer_append_u8(b, r->round_phase);
    linnet_buffer_append_u8(b, r->profile);
    linnet_buffer_append(b, r->note, sizeof(r->note));
    linnet_buffer_append_u8(b, r->receipts_due);
    linnet_buffer_append_le64(b, r->receipts_next);
}

static void record_read(linnet_reader *b, device_record *r)
{
    uint32_t version = linnet_reader_le32(b);
    r->receipts_due = true; /* of a program that asked for none */
    r->has_release = take_bool(b);
    r->version = linnet_reader_le64(b);
    take(b, r->release.bytes, LINNET_HASH_BYTES);
    uint8_t delta = linnet_reader_u8(b);
    if (delta > DELTA_SPENT)
        b->failed = true;
    r->delta = (delta_state)delta;
    r->attempt = linnet_reader_le64(b);
    r->train_seed = linnet_reader_le64(b);
    r->counted_tokens = linnet_reader_le64(b);
    r->last_round = linnet_reader_le64(b);
    take(b, r->chain.bytes, LINNET_HASH_BYTES);
    r->upload_offset = linnet_reader_le64(b);
    r->n_ledger = linnet_reader_le64(b);
    r->n_contributions = linnet_reader_le64(b);
    r->bytes_up = linnet_reader_le64(b);
    r->bytes_down = linnet_reader_le64(b);
    r->revocation_number = linnet_reader_le64(b);
    r->channel_number = linnet_reader_le64(b);
    r->is_evaluated = take_bool(b);
    r->has_release_loss = take_bool(b);
    r->release_loss = linnet_reader_f64(b);
    r->is_contributed = take_bool(b);
    r->contributed_ms = (int64_t)linnet_reader_le64(b);
    r->is_revoked = take_bool(b);
    take(b, r->installed.bytes, LINNET_HASH_BYTES);
    take(b, r->previous.bytes, LINNET_HASH_BYTES);
    r->installed_version = linnet_reader_le64(b);
    r->previous_version = linnet_reader_le64(b);
    r->has_held_out_loss = take_bool(b);
    r->held_out_loss = linnet_reader_f64(b);
    r->held_out_tokens = linnet_reader_le64(b);
    r->n_parts = linnet_reader_le64(b);
    take(b, r->part_object.bytes, LINNET_HASH_BYTES);
    if (version < 2)
        return;
    r->generation = linnet_reader_le64(b);
    r->has_round = take_bool(b);
    r->is_uploaded = take_bool(b);
    r->round_phase = linnet_reader_u8(b);
    r->profile = linnet_reader_u8(b);
    take(b, r->note, sizeof(r->note));
    r->note[sizeof(r->note) - 1] = '\0';
    if (version < 3)
        return;
    r->receipts_due = take_bool(b);
    r->receipts_next = linnet_reader_le64(b);
}

linnet_status device_record_load(linnet_kv *kv, device_record *ret_record, linnet_error *err)
{
    linnet_buffer bytes = {0};
    device_record record = {0};
    linnet_status status = state_get(kv, KV_RECORD, &bytes, err);
    if (status == LINNET_ERR_NOT_FOUND) { /* enrolled, nothing done yet */
        *ret_record = record;
        status = LINNET_OK;
        goto done;
    }
    if (status != LINNET_OK)
        goto done;
    linnet_reader reader = linnet_reader_of(bytes.bytes, bytes.n_bytes);
    record_read(&reader, &record);
    if (!linnet_reader_is_done(&reader))
        status = linnet_fail(err, LINNET_ERR_FORMAT, "state record '" KV_RECORD "' is damaged");
    else
        *ret_record = record;
done:
    linnet_buffer_release(&bytes);
    return status;
}

uint64_t device_next_generation(const linnet_device *device)
{
    uint64_t seen = linnet_round_vault_generation(device->vault);
    return (device->record.generation > seen ? device->record.generation : seen) + 1;
}

/* The disk first, then the volatile generation: a crash in between leaves a store that is newer, which
 * counts. Where a commit may or may not have happened, nothing is said to anybody any more. */
static linnet_status put_record(linnet_device *device, const device_record *record,
                                const linnet_kv_item *items, size_t n_items, linnet_error *err)
{
    linnet_status status = device->config.kv->put(device->config.kv->context, items, n_items, err);
    if (status == LINNET_OK)
        device->record = *record;
    if (record->generation == 0)
        return status;
    if (status == LINNET_OK)
        status = linnet_round_vault_advance(device->vault, record->generation, err);
    else if (status != LINNET_ERR_IO)
        return status; /* it did not happen */
    device->is_state_unknown = status != LINNET_OK;
    return status;
}

linnet_status device_commit(linnet_device *device, const device_record *next, const linnet_kv_item *items,
                            size_t n_items, linnet_error *err)
{
    linnet_buffer bytes = {0};
    linnet_kv_item few[8], *all = n_items < ARRAY_LEN(few) ? few : calloc(n_items + 1, sizeof(*all));
    device_record record = *next;
    if (!all)
        return linnet_fail(err, LINNET_ERR_NOMEM, "commit of %zu items", n_items);
    if (record.generation > 0)
        record.generation = device_next_generation(device);
    if (device->has_plan)
        record.profile = (uint8_t)device->plan.profile;
    memcpy(record.note, device->note, sizeof(record.note));
    record_pack(&record, &bytes);
    all[0] = (linnet_kv_item){KV_RECORD, bytes.bytes, bytes.n_bytes};
    if (n_items > 0)
        memcpy(all + 1, items, n_items * sizeof(*items));
    linnet_status status = bytes.failed ? linnet_fail(err, LINNET_ERR_NOMEM, "state record")
                                        : put_record(device, &record, all, n_items + 1, err);
    linnet_buffer_release(&bytes);
    if (all != few)
        free(all);
    return status;
}

linnet_status device_must_end(const linnet_device *device, linnet_error *err)
{
    return device->is_state_unknown
               ? linnet_fail(err, LINNET_ERR_IO, "a commit failed, and only a new start tells how far it got")
               : LINNET_OK;
}

/* ---- the ledger: what left this device, one entry for every upload that was begun ---- */

linnet_status device_ledger_pack(const linnet_ledger_entry *entry, linnet_buffer *bytes, linnet_error *err)
{
    linnet_buffer_append_le32(bytes, STATE_VERSION);
    linnet_buffer_append_le64(bytes, entry->round);
    linnet_buffer_append_le64(bytes, entry->version);
    linnet_buffer_append_le64(bytes, entry->n_bytes);
    linnet_buffer_append_le32(bytes, entry->sample_weight);
    linnet_buffer_append(bytes, entry->chain.bytes, LINNET_HASH_BYTES);
    linnet_buffer_append(bytes, entry->release.bytes, LINNET_HASH_BYTES);
    linnet_buffer_append(bytes, entry->echo.bytes, LINNET_HASH_BYTES);
    linnet_buffer_append_u8(bytes, entry->is_accepted);
    linnet_buffer_append(bytes, entry->receipt, sizeof(entry->receipt));
    return bytes->failed ? linnet_fail(err, LINNET_ERR_NOMEM, "ledger entry") : LINNET_OK;
}

linnet_status linnet_device_ledger(linnet_kv *kv, uint64_t index, linnet_ledger_entry *ret_entry,
                                   linnet_error *err)
{
    char name[40];
    linnet_buffer bytes = {0};
    linnet_ledger_entry e = {0};
    snprintf(name, sizeof(name), KV_LEDGER, (unsigned long long)index);
    linnet_status status = state_get(kv, name, &bytes, err);
    if (status != LINNET_OK)
        goto done;
    linnet_reader reader = linnet_reader_of(bytes.bytes, bytes.n_bytes);
    (void)linnet_reader_le32(&reader); /* the version, seen by state_get */
    e.round = linnet_reader_le64(&reader);
    e.version = linnet_reader_le64(&reader);
    e.n_bytes = linnet_reader_le64(&reader);
    e.sample_weight = linnet_reader_le32(&reader);
    take(&reader, e.chain.bytes, LINNET_HASH_BYTES);
    take(&reader, e.release.bytes, LINNET_HASH_BYTES);
    take(&reader, e.echo.bytes, LINNET_HASH_BYTES);
    e.is_accepted = take_bool(&reader);
    take(&reader, e.receipt, sizeof(e.receipt));
    if (!linnet_reader_is_done(&reader))
        status = linnet_fail(err, LINNET_ERR_FORMAT, "state record '%s' is damaged", name);
    else
        *ret_entry = e;
done:
    linnet_buffer_release(&bytes);
    return status;
}
