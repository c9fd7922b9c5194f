/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The three files of an audit as bytes (transcript.h). Reading borrows: a log may be mapped and be larger
 * than memory. Counts are bounded by the bytes that are there before anything is allocated, so that a short
 * file never asks for much.
 */
#include "transcript_inner.h"

#include <stdlib.h>

#define FILE_VERSION 1
#define ENTRY_BYTES_MIN (1 + 8 + 32 + 32 + 4)
#define RECORD_BYTES_MIN (8 + 32 + 6 * 4)

static const char log_magic[] = "LNLOG\r\n\x1a", receipts_magic[] = "LNRCPT\r\n",
                  evidence_magic[] = "LNEVID\r\n";

const char *linnet_log_type_name(uint8_t type)
{
    static const char *const names[] = {"release", "announce",  "closed",   "void",    "roster",
                                        "sharers", "survivors", "rejected", "rollback"};
    return type >= 1 && type <= ARRAY_LEN(names) ? names[type - 1] : "unknown";
}

linnet_hash linnet_log_head(const linnet_hash *before, const linnet_log_entry *entry)
{
    uint8_t number[8];
    linnet_hasher hasher;
    linnet_store_le64(number, entry->number);
    linnet_hasher_init(&hasher, LINNET_LABEL_TRANSCRIPT);
    if (before)
        linnet_hasher_update(&hasher, before->bytes, LINNET_HASH_BYTES);
    linnet_hasher_update(&hasher, &entry->type, 1);
    linnet_hasher_update(&hasher, number, sizeof(number));
    linnet_hasher_update(&hasher, entry->body.bytes, LINNET_HASH_BYTES);
    return linnet_hasher_final(&hasher);
}

/* ---- small pieces ---- */

static void put_head(linnet_buffer *bytes, const char *magic)
{
    linnet_buffer_append(bytes, magic, 8);
    linnet_buffer_append_le32(bytes, FILE_VERSION);
}

static linnet_status take_head(linnet_reader *reader, const char *magic, const char *what, linnet_error *err)
{
    const uint8_t *there = linnet_reader_take(reader, 8);
    uint32_t version = linnet_reader_le32(reader);
    if (reader->failed || memcmp(there, magic, 8) != 0)
        return linnet_fail(err, LINNET_ERR_FORMAT, "this is no %s", what);
    if (version != FILE_VERSION)
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED, "%s of version %u; version %d is supported", what,
                           (unsigned)version, FILE_VERSION);
    return LINNET_OK;
}

static void put_span(linnet_buffer *bytes, const linnet_span *span)
{
    if (span->n_bytes > UINT32_MAX)
        bytes->failed = true;
    linnet_buffer_append_le32(bytes, (uint32_t)span->n_bytes);
    if (span->n_bytes > 0)
        linnet_buffer_append(bytes, span->bytes, span->n_bytes);
}

static linnet_span take_span(linnet_reader *reader)
{
    size_t n = linnet_reader_le32(reader);
    const uint8_t *bytes = linnet_reader_take(reader, n);
    return bytes ? (linnet_span){.bytes = bytes, .n_bytes = n} : (linnet_span){0};
}

static void take(linnet_reader *reader, void *into, size_t n_bytes)
{
    const uint8_t *bytes = linnet_reader_take(reader, n_bytes);
    if (bytes)
        memcpy(into, bytes, n_bytes);
}

static linnet_status written(const linnet_buffer *bytes, const char *what, linnet_error *err)
{
    return bytes->failed ? linnet_fail(err, LINNET_ERR_NOMEM, "%s", what) : LINNET_OK;
}

static linnet_status cut(const linnet_reader *reader, const char *what, linnet_error *err)
{
    return linnet_fail(err, LINNET_ERR_FORMAT, "%s: damaged at byte %zu of %zu", what, reader->at,
                       reader->n_bytes);
}

/* A count of things of at least n_each bytes, which must be there. */
static size_t take_count(linnet_reader *reader, size_t n_each)
{
    size_t n = linnet_reader_le32(reader);
    if (n > (reader->n_bytes - reader->at) / n_each)
        reader->failed = true;
    return reader->failed ? 0 : n;
}

/* ---- the log ---- */

linnet_status linnet_log_write(const linnet_log *log, linnet_buffer *ret_bytes, linnet_error *err)
{
    uint64_t epsilon;
    memcpy(&epsilon, &log->dp_epsilon, sizeof(epsilon));
    put_head(ret_bytes, log_magic);
    linnet_buffer_append(ret_bytes, log->task, sizeof(log->task));
    linnet_buffer_append(ret_bytes, log->coordinator.bytes, LINNET_PUBLIC_KEY_BYTES);
    linnet_buffer_append(ret_bytes, log->authority.bytes, LINNET_PUBLIC_KEY_BYTES);
    put_span(ret_bytes, &log->plan);
    put_span(ret_bytes, &log->layout);
    linnet_buffer_append_le64(ret_bytes, log->dp_rounds);
    linnet_buffer_append_le64(ret_bytes, epsilon);
    linnet_buffer_append_le32(ret_bytes, (uint32_t)log->n_lists);
    for (size_t i = 0; i < log->n_lists; i++)
        put_span(ret_bytes, &log->lists[i]);
    linnet_buffer_append_le32(ret_bytes, (uint32_t)log->n_entries);
    for (size_t i = 0; i < log->n_entries; i++) {
        const linnet_log_entry *entry = &log->entries[i];
        linnet_buffer_append_u8(ret_bytes, entry->type);
        linnet_buffer_append_le64(ret_bytes, entry->number);
        linnet_buffer_append(ret_bytes, entry->body.bytes, LINNET_HASH_BYTES);
        linnet_buffer_append(ret_bytes, entry->head.bytes, LINNET_HASH_BYTES);
        put_span(ret_bytes, &entry->object);
    }
    return written(ret_bytes, "log", err);
}

static linnet_status parse_lists(linnet_reader *reader, linnet_log *log, linnet_error *err)
{
    size_t n = take_count(reader, 4);
    if (n > 0 && !(log->lists = calloc(n, sizeof(*log->lists))))
        return linnet_fail(err, LINNET_ERR_NOMEM, "log of %zu lists", n);
    log->n_lists = n;
    for (size_t i = 0; i < n; i++)
        log->lists[i] = take_span(reader);
    return reader->failed ? cut(reader, "log", err) : LINNET_OK;
}

static linnet_status parse_entries(linnet_reader *reader, linnet_log *log, linnet_error *err)
{
    size_t n = take_count(reader, ENTRY_BYTES_MIN);
    if (n > 0 && !(log->entries = calloc(n, sizeof(*log->entries))))
        return linnet_fail(err, LINNET_ERR_NOMEM, "log of %zu entries", n);
    log->n_entries = n;
    for (size_t i = 0; i < n && !reader->failed; i++) {
        linnet_log_entry *entry = &log->entries[i];
        entry->type = linnet_reader_u8(reader);
        entry->number = linnet_reader_le64(reader);
        take(reader, entry->body.bytes, LINNET_HASH_BYTES);
        take(reader, entry->head.bytes, LINNET_HASH_BYTES);
        entry->object = take_span(reader);
    }
    return linnet_reader_is_done(reader) ? LINNET_OK : cut(reader, "log", err);
}

linnet_status linnet_log_parse(const void *bytes, size_t n_bytes, linnet_log *ret_log, linnet_error *err)
{
    linnet_log log = {0};
    linnet_reader reader = linnet_reader_of(bytes, n_bytes);
    linnet_status status = take_head(&reader, log_magic, "log of a task", err);
    if (status != LINNET_OK)
        return status;
    take(&reader, log.task, sizeof(log.task));
    take(&reader, log.coordinator.bytes, LINNET_PUBLIC_KEY_BYTES);
    take(&reader, log.authority.bytes, LINNET_PUBLIC_KEY_BYTES);
    log.plan = take_span(&reader);
    log.layout = take_span(&reader);
    log.dp_rounds = linnet_reader_le64(&reader);
    uint64_t epsilon = linnet_reader_le64(&reader);
    memcpy(&log.dp_epsilon, &epsilon, sizeof(log.dp_epsilon));
    status = parse_lists(&reader, &log, err);
    if (status == LINNET_OK)
        status = parse_entries(&reader, &log, err);
    if (status != LINNET_OK)
        linnet_log_release(&log);
    else
        *ret_log = log; /* ownership of the arrays moves to the caller */
    return status;
}

void linnet_log_release(linnet_log *log)
{
    free(log->lists);
    free(log->entries);
    *log = (linnet_log){0};
}

/* ---- receipts ---- */

linnet_status linnet_contribution_record_write(const linnet_contribution_record *r, linnet_buffer *ret_bytes,
                                               linnet_error *err)
{
    linnet_buffer_append_le64(ret_bytes, r->round);
    linnet_buffer_append(ret_bytes, r->echo.bytes, LINNET_HASH_BYTES);
    put_span(ret_bytes, &r->release);
    put_span(ret_bytes, &r->announcement);
    put_span(ret_bytes, &r->t1);
    put_span(ret_bytes, &r->t2);
    put_span(ret_bytes, &r->t3);
    put_span(ret_bytes, &r->receipt);
    return written(ret_bytes, "contribution record", err);
}

static void take_record(linnet_reader *reader, linnet_contribution_record *r)
{
    r->round = linnet_reader_le64(reader);
    take(reader, r->echo.bytes, LINNET_HASH_BYTES);
    r->release = take_span(reader);
    r->announcement = take_span(reader);
    r->t1 = take_span(reader);
    r->t2 = take_span(reader);
    r->t3 = take_span(reader);
    r->receipt = take_span(reader);
}

linnet_status linnet_contribution_record_parse(const void *bytes, size_t n_bytes,
                                               linnet_contribution_record *ret_record, linnet_error *err)
{
    linnet_contribution_record record = {0};
    linnet_reader reader = linnet_reader_of(bytes, n_bytes);
    take_record(&reader, &record);
    if (!linnet_reader_is_done(&reader))
        return cut(&reader, "contribution record", err);
    *ret_record = record;
    return LINNET_OK;
}

linnet_status linnet_receipts_write(const linnet_receipts *receipts, linnet_buffer *ret_bytes,
                                    linnet_error *err)
{
    put_head(ret_bytes, receipts_magic);
    linnet_buffer_append(ret_bytes, receipts->device_id.bytes, LINNET_DEVICE_ID_BYTES);
    linnet_buffer_append(ret_bytes, receipts->coordinator.bytes, LINNET_PUBLIC_KEY_BYTES);
    linnet_buffer_append(ret_bytes, receipts->task, sizeof(receipts->task));
    put_span(ret_bytes, &receipts->announcement);
    linnet_buffer_append_le32(ret_bytes, (uint32_t)receipts->n_records);
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < receipts->n_records && status == LINNET_OK; i++)
        status = linnet_contribution_record_write(&receipts->records[i], ret_bytes, err);
    return status == LINNET_OK ? written(ret_bytes, "receipts", err) : status;
}

linnet_status linnet_receipts_parse(const void *bytes, size_t n_bytes, linnet_receipts *ret_receipts,
                                    linnet_error *err)
{
    linnet_receipts r = {0};
    linnet_reader reader = linnet_reader_of(bytes, n_bytes);
    linnet_status status = take_head(&reader, receipts_magic, "receipts file", err);
    if (status != LINNET_OK)
        return status;
    take(&reader, r.device_id.bytes, LINNET_DEVICE_ID_BYTES);
    take(&reader, r.coordinator.bytes, LINNET_PUBLIC_KEY_BYTES);
    take(&reader, r.task, sizeof(r.task));
    r.announcement = take_span(&reader);
    size_t n = take_count(&reader, RECORD_BYTES_MIN);
    if (n > 0 && !(r.records = calloc(n, sizeof(*r.records))))
        return linnet_fail(err, LINNET_ERR_NOMEM, "receipts of %zu contributions", n);
    r.n_records = n;
    for (size_t i = 0; i < n && !reader.failed; i++)
        take_record(&reader, &r.records[i]);
    if (!linnet_reader_is_done(&reader)) {
        linnet_receipts_release(&r);
        return cut(&reader, "receipts", err);
    }
    *ret_receipts = r; /* ownership of the array moves to the caller */
    return LINNET_OK;
}

void linnet_receipts_release(linnet_receipts *receipts)
{
    free(receipts->records);
    *receipts = (linnet_receipts){0};
}

/* ---- evidence ---- */

const char *linnet_slot_name(uint8_t kind)
{
    static const char *const names[] = {"release of one version", "announcement of one round",
                                        "roster of one announcement", "set of sharers of one roster",
                                        "set of survivors of one set of sharers"};
    return kind >= 1 && kind <= ARRAY_LEN(names) ? names[kind - 1] : "nothing known";
}

linnet_status linnet_evidence_write(const linnet_evidence *evidence, linnet_buffer *ret_bytes,
                                    linnet_error *err)
{
    put_head(ret_bytes, evidence_magic);
    linnet_buffer_append(ret_bytes, evidence->coordinator.bytes, LINNET_PUBLIC_KEY_BYTES);
    linnet_buffer_append_u8(ret_bytes, evidence->kind);
    put_span(ret_bytes, &evidence->first);
    put_span(ret_bytes, &evidence->other);
    return written(ret_bytes, "evidence", err);
}

static linnet_status evidence_parse(const void *bytes, size_t n_bytes, linnet_evidence *evidence,
                                    linnet_error *err)
{
    linnet_reader reader = linnet_reader_of(bytes, n_bytes);
    linnet_status status = take_head(&reader, evidence_magic, "evidence file", err);
    if (status != LINNET_OK)
        return status;
    take(&reader, evidence->coordinator.bytes, LINNET_PUBLIC_KEY_BYTES);
    evidence->kind = linnet_reader_u8(&reader);
    evidence->first = take_span(&reader);
    evidence->other = take_span(&reader);
    if (!linnet_reader_is_done(&reader))
        return cut(&reader, "evidence", err);
    return LINNET_OK;
}

linnet_status linnet_evidence_check(const void *bytes, size_t n_bytes, linnet_evidence *ret_evidence,
                                    linnet_error *err)
{
    linnet_evidence e = {0};
    linnet_slot first, other;
    linnet_status status = evidence_parse(bytes, n_bytes, &e, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_slot_of(e.kind, &e.first, &e.coordinator, &first);
    if (status == LINNET_OK)
        status = linnet_slot_of(e.kind, &e.other, &e.coordinator, &other);
    if (status == LINNET_ERR_CRYPTO)
        return linnet_fail(err, status, "evidence: a body is not signed by the coordinator it names");
    if (status != LINNET_OK)
        return linnet_fail(err, status, "evidence: malformed");
    if (memcmp(first.id, other.id, sizeof(first.id)) != 0)
        return linnet_fail(err, LINNET_ERR_MISMATCH, "evidence: the two bodies are of different slots");
    if (linnet_hash_equal(&first.hash, &other.hash))
        return linnet_fail(err, LINNET_ERR_MISMATCH, "evidence: the two bodies are one");
    *ret_evidence = e;
    return LINNET_OK;
}
