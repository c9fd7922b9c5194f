/* SPDX-License-Identifier: Apache-2.0 */
/* The transcript in the store verified (SECURE-AGGREGATION 7): everything that a log shows
 * (linnet/transcript.h), and that the rows of rounds and contributions say the same. It does not prove that
 * an adapter is the sum of its round's contributions; whoever keeps the spool could fold it again. */
#include "transcript_log.h"

#include <stdlib.h>

typedef struct audit_job {
    linnet_audit_entry *entries;
    size_t n_entries;
} audit_job;

/* Does the round's row say what the entry says? */
static const char *end_flaw(linnet_store_txn *txn, const linnet_log_entry *entry)
{
    linnet_round_row row;
    if (linnet_round_get(txn, entry->number, &row, NULL) != LINNET_OK)
        return "the round's row is missing";
    if ((entry->type == LINNET_LOG_VOID) != (row.state == LINNET_ROUND_VOID) ||
        (entry->type == LINNET_LOG_CLOSED && row.state != LINNET_ROUND_CLOSED) ||
        (entry->type == LINNET_LOG_REJECTED && row.state != LINNET_ROUND_REJECTED))
        return "the round's row says that it ended otherwise";
    return linnet_hash_equal(entry->type == LINNET_LOG_VOID ? &row.chain : &row.adapter, &entry->body)
               ? NULL
               : "the round's row names another hash";
}

static const char *release_flaw(linnet_store_txn *txn, const linnet_log_entry *entry)
{
    linnet_release_row row;
    linnet_signed body;
    linnet_release release;
    if (linnet_release_get(txn, entry->number, &row, NULL) != LINNET_OK ||
        linnet_signed_open(row.bytes, row.n_bytes, &body, NULL) != LINNET_OK ||
        linnet_release_unpack(body.body, body.n_body, &release, NULL) != LINNET_OK)
        return "the release's row is missing or damaged";
    return linnet_hash_equal(&release.adapter, &row.adapter) ? NULL : "its row names another adapter";
}

/* ---- contributions against R ---- */

typedef struct row_count {
    const uint8_t *list; /* R's entries */
    size_t n_list, n_rows;
    bool is_missing;
} row_count;

static linnet_status find_in_list(void *context, const uint8_t *fields, size_t n_fields, const uint8_t *bytes,
                                  size_t n_bytes, linnet_error *err)
{
    row_count *count = context;
    linnet_contribution_row row;
    (void)fields;
    (void)n_fields;
    if (linnet_contribution_row_unpack(bytes, n_bytes, &row) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_FORMAT, "store: the row of a contribution is damaged");
    bool is_there = false;
    for (size_t i = 0; i < count->n_list && !is_there; i++) {
        const uint8_t *item = count->list + i * (LINNET_HASH_BYTES + LINNET_SIGNATURE_BYTES);
        is_there = memcmp(item, row.echo.bytes, LINNET_HASH_BYTES) == 0 &&
                   memcmp(item + LINNET_HASH_BYTES, row.signature.bytes, LINNET_SIGNATURE_BYTES) == 0;
    }
    count->n_rows++;
    count->is_missing = count->is_missing || !is_there;
    return LINNET_OK;
}

/* M6 is signature, bitmap, list: the list is what is left behind the bitmap of a roster of n. */
static const char *contributions_flaw(linnet_store_txn *txn, const linnet_log_entry *entry, uint32_t n)
{
    size_t head = LINNET_SIGNATURE_BYTES + linnet_bitmap_bytes(n);
    row_count count = {0};
    linnet_record_id prefix = linnet_record_number('b', entry->number);
    if (n == 0 || entry->object.n_bytes < head)
        return NULL; /* found by the log's own verification */
    count.list = entry->object.bytes + head;
    count.n_list = (entry->object.n_bytes - head) / (LINNET_HASH_BYTES + LINNET_SIGNATURE_BYTES);
    if (linnet_store_each(txn, &prefix, find_in_list, &count, NULL) != LINNET_OK)
        return "a row of its contributions is damaged";
    if (count.is_missing)
        return "an accepted contribution is missing from R";
    return count.n_rows == count.n_list ? NULL : "R has contributions that were never accepted";
}

static uint32_t roster_size(const linnet_log *log, size_t before, uint64_t round)
{
    for (size_t i = before; i > 0; i--) {
        const linnet_log_entry *entry = &log->entries[i - 1];
        if (entry->type == LINNET_LOG_ROSTER && entry->number == round)
            return entry->object.n_bytes < 68
                       ? 0
                       : linnet_load_le32(entry->object.bytes + LINNET_SIGNATURE_BYTES);
    }
    return 0;
}

static const char *row_flaw(linnet_store_txn *txn, const linnet_log *log, size_t index)
{
    const linnet_log_entry *entry = &log->entries[index];
    uint32_t n;
    switch ((linnet_log_type)entry->type) {
    case LINNET_LOG_RELEASE:
        return release_flaw(txn, entry);
    case LINNET_LOG_CLOSED:
    case LINNET_LOG_REJECTED:
    case LINNET_LOG_VOID:
        return end_flaw(txn, entry);
    case LINNET_LOG_SURVIVORS:
        n = roster_size(log, index, entry->number);
        return n > LINNET_SECAGG_MEMBERS_MAX ? NULL : contributions_flaw(txn, entry, n);
    default:
        return NULL;
    }
}

/* ---- all of it ---- */

static linnet_status fill_entries(audit_job *job, linnet_store_txn *txn, const linnet_log *log,
                                  const linnet_log_report *report, linnet_error *err)
{
    size_t n_whole = 0, at = 0;
    for (size_t i = 0; i < report->n_findings; i++)
        n_whole += report->findings[i].index == SIZE_MAX;
    job->n_entries = log->n_entries + n_whole;
    job->entries = calloc(job->n_entries + 1, sizeof(*job->entries));
    if (!job->entries)
        return linnet_fail(err, LINNET_ERR_NOMEM, "transcript");
    for (size_t i = 0; i < log->n_entries; i++)
        job->entries[i] = (linnet_audit_entry){.type = linnet_log_type_name(log->entries[i].type),
                                               .number = log->entries[i].number,
                                               .hash = log->entries[i].body,
                                               .flaw = row_flaw(txn, log, i)};
    for (size_t i = 0; i < report->n_findings; i++) {
        const linnet_finding *finding = &report->findings[i];
        if (finding->index == SIZE_MAX)
            job->entries[log->n_entries + at++] = (linnet_audit_entry){.type = "log", .flaw = finding->flaw};
        else
            job->entries[finding->index].flaw = finding->flaw; /* it says more than a row */
    }
    return LINNET_OK;
}

static linnet_status verify(void *context, linnet_store_txn *txn, const linnet_log *log, linnet_error *err)
{
    audit_job *job = context;
    linnet_log_report report = {0};
    linnet_status status = linnet_log_verify(log, NULL, NULL, &report, err);
    if (status == LINNET_OK)
        status = fill_entries(job, txn, log, &report, err);
    linnet_log_report_release(&report);
    return status;
}

linnet_status linnet_coordinator_audit(linnet_coordinator *c, linnet_audit_entry **ret_entries, size_t *ret_n,
                                       linnet_error *err)
{
    audit_job job = {0};
    linnet_status status = linnet_transcript_read(c, verify, &job, err);
    if (status != LINNET_OK) {
        free(job.entries);
        return status;
    }
    *ret_entries = job.entries; /* ownership moves to the caller */
    *ret_n = job.n_entries;
    return LINNET_OK;
}
