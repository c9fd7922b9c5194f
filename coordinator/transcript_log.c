/* SPDX-License-Identifier: Apache-2.0 */
/* The transcript as a log: every entry of the store with the signed bytes it stands for, beside keys, plan,
 * layout and revocation lists (linnet/transcript.h). The verifier that anybody has is the one that `audit`
 * runs on the store; what only the store knows, its rows, is compared on top of it (audit.c). Objects are
 * borrowed from one read transaction: a log of many rosters is never copied to be checked. */
#include "transcript_log.h"

#include "linnet/audit.h"
#include "privacy_ledger.h"
#include "rows.h"

#define OBJECT_ROSTER 2
#define OBJECT_SHARERS 4
#define OBJECT_SURVIVORS 6
#define OBJECT_CERTIFICATE 8

_Static_assert((int)LINNET_ENTRY_RELEASE == (int)LINNET_LOG_RELEASE &&
                   (int)LINNET_ENTRY_ANNOUNCE == (int)LINNET_LOG_ANNOUNCE &&
                   (int)LINNET_ENTRY_CLOSED == (int)LINNET_LOG_CLOSED &&
                   (int)LINNET_ENTRY_VOID == (int)LINNET_LOG_VOID &&
                   (int)LINNET_ENTRY_ROSTER == (int)LINNET_LOG_ROSTER &&
                   (int)LINNET_ENTRY_SHARERS == (int)LINNET_LOG_SHARERS &&
                   (int)LINNET_ENTRY_SURVIVORS == (int)LINNET_LOG_SURVIVORS &&
                   (int)LINNET_ENTRY_REJECTED == (int)LINNET_LOG_REJECTED &&
                   (int)LINNET_ENTRY_ROLLBACK == (int)LINNET_LOG_ROLLBACK,
               "an entry of the store is an entry of the log");

typedef struct log_job {
    linnet_store_txn *txn;
    linnet_log log;
    size_t entries_capacity, lists_capacity;
} log_job;

static linnet_status get_span(linnet_store_txn *txn, const linnet_record_id *id, linnet_span *ret_span,
                              linnet_error *err)
{
    linnet_status status = linnet_store_get(txn, id, &ret_span->bytes, &ret_span->n_bytes, err);
    if (status == LINNET_ERR_NOT_FOUND)
        *ret_span = (linnet_span){0}; /* a flaw, and found as one */
    return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
}

static linnet_status get_object(linnet_store_txn *txn, uint64_t round, uint8_t object, linnet_span *ret_span,
                                linnet_error *err)
{
    linnet_record_id id = linnet_record_number('q', round);
    linnet_record_add(&id, &object, 1);
    return get_span(txn, &id, ret_span, err);
}

static linnet_status get_release(linnet_store_txn *txn, uint64_t version, linnet_span *ret_span,
                                 linnet_error *err)
{
    linnet_release_row row;
    linnet_status status = linnet_release_get(txn, version, &row, err);
    if (status == LINNET_OK)
        *ret_span = (linnet_span){row.bytes, row.n_bytes};
    return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
}

static linnet_status get_announcement(linnet_store_txn *txn, const linnet_log_entry *entry,
                                      linnet_span *ret_span, linnet_error *err)
{
    linnet_record_id replaced = linnet_record_bytes('s', entry->body.bytes, sizeof(entry->body.bytes));
    linnet_record_id present = linnet_record_number('n', entry->number);
    linnet_status status = get_span(txn, &replaced, ret_span, err);
    return status == LINNET_OK && !ret_span->bytes ? get_span(txn, &present, ret_span, err) : status;
}

/* The bytes that an entry stands for; none where it has none, or where they are missing. */
static linnet_status find_object(linnet_store_txn *txn, linnet_log_entry *entry, linnet_error *err)
{
    switch ((linnet_log_type)entry->type) {
    case LINNET_LOG_RELEASE:
        return get_release(txn, entry->number, &entry->object, err);
    case LINNET_LOG_ANNOUNCE:
        return get_announcement(txn, entry, &entry->object, err);
    case LINNET_LOG_ROSTER:
        return get_object(txn, entry->number, OBJECT_ROSTER, &entry->object, err);
    case LINNET_LOG_SHARERS:
        return get_object(txn, entry->number, OBJECT_SHARERS, &entry->object, err);
    case LINNET_LOG_SURVIVORS:
        return get_object(txn, entry->number, OBJECT_SURVIVORS, &entry->object, err);
    case LINNET_LOG_CLOSED:
    case LINNET_LOG_REJECTED:
        return get_object(txn, entry->number, OBJECT_CERTIFICATE, &entry->object, err);
    case LINNET_LOG_VOID:
    case LINNET_LOG_ROLLBACK:
        break;
    }
    return LINNET_OK;
}

static linnet_status add_entry(void *context, const uint8_t *fields, size_t n_fields, const uint8_t *bytes,
                               size_t n_bytes, linnet_error *err)
{
    log_job *job = context;
    linnet_entry_row row;
    (void)fields;
    (void)n_fields;
    if (linnet_entry_row_unpack(bytes, n_bytes, &row) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_FORMAT, "transcript: entry %zu is damaged", job->log.n_entries);
    linnet_log_entry *entries =
        linnet_array_grow(job->log.entries, job->log.n_entries, &job->entries_capacity, sizeof(*entries));
    if (!entries)
        return linnet_fail(err, LINNET_ERR_NOMEM, "transcript");
    job->log.entries = entries;
    linnet_log_entry *entry = &job->log.entries[job->log.n_entries++];
    *entry = (linnet_log_entry){.type = row.type, .number = row.round, .body = row.body, .head = row.head};
    return find_object(job->txn, entry, err);
}

static linnet_status add_list(void *context, const uint8_t *fields, size_t n_fields, const uint8_t *bytes,
                              size_t n_bytes, linnet_error *err)
{
    log_job *job = context;
    (void)fields;
    (void)n_fields;
    linnet_span *lists =
        linnet_array_grow(job->log.lists, job->log.n_lists, &job->lists_capacity, sizeof(*lists));
    if (!lists)
        return linnet_fail(err, LINNET_ERR_NOMEM, "transcript");
    job->log.lists = lists;
    job->log.lists[job->log.n_lists++] = (linnet_span){bytes, n_bytes};
    return LINNET_OK;
}

static linnet_status log_fill(linnet_coordinator *c, log_job *job, linnet_error *err)
{
    linnet_rdp spent;
    uint64_t n_void = 0;
    linnet_record_id entries = linnet_record_of('h'), lists = linnet_record_of('z');
    linnet_status status = linnet_store_each(job->txn, &entries, add_entry, job, err);
    if (status == LINNET_OK)
        status = linnet_store_each(job->txn, &lists, add_list, job, err);
    if (status == LINNET_OK)
        status = linnet_privacy_ledger_sum(job->txn, UINT64_MAX, &spent, &job->log.dp_rounds, &n_void, err);
    if (status == LINNET_OK && job->log.dp_rounds > 0)
        job->log.dp_epsilon = linnet_dp_epsilon(&spent, c->plan.dp_delta, NULL);
    return status;
}

linnet_status linnet_transcript_read(linnet_coordinator *c, linnet_transcript_use_fn *fn, void *context,
                                     linnet_error *err)
{
    log_job job = {
        .log = {.coordinator = *linnet_identity_public_key(c->identity), .authority = c->authority_key}};
    linnet_buffer plan = {0}, layout = {0};
    memcpy(job.log.task, c->task, sizeof(job.log.task));
    linnet_status status = linnet_layout_write(c->layout, &layout, err);
    if (status == LINNET_OK)
        status = linnet_store_read_begin(c->store, &job.txn, err);
    if (status == LINNET_OK) {
        /* the text that releases sign the hash of: written anew it has keys that came later */
        status = linnet_config_get(job.txn, "plan", &plan, err);
        job.log.plan = (linnet_span){plan.bytes, plan.n_bytes};
        job.log.layout = (linnet_span){layout.bytes, layout.n_bytes};
        if (status == LINNET_OK)
            status = log_fill(c, &job, err);
        if (status == LINNET_OK)
            status = fn(context, job.txn, &job.log, err);
        linnet_store_read_end(job.txn);
    }
    linnet_log_release(&job.log);
    linnet_buffer_release(&plan);
    linnet_buffer_release(&layout);
    return status;
}

static linnet_status write_log(void *context, linnet_store_txn *txn, const linnet_log *log, linnet_error *err)
{
    (void)txn;
    return linnet_log_write(log, context, err);
}

linnet_status linnet_coordinator_log_export(linnet_coordinator *c, linnet_buffer *ret_bytes,
                                            linnet_error *err)
{
    return linnet_transcript_read(c, write_log, ret_bytes, err);
}

linnet_status linnet_revocation_put(linnet_store_txn *txn, const void *bytes, size_t n_bytes,
                                    linnet_error *err)
{
    linnet_record_id id =
        linnet_record_number('z', linnet_load_le64(bytes)); /* a list starts with its number */
    linnet_status status = linnet_config_put(txn, "revocation", bytes, n_bytes, err);
    return status == LINNET_OK ? linnet_store_put(txn, &id, bytes, n_bytes, err) : status;
}
