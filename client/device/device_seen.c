/* SPDX-License-Identifier: Apache-2.0 */

/* What the coordinator signed and this device saw of the rounds it contributed to (SECURE-AGGREGATION 7,
 * "Transcript"): one value beside each entry of the ledger, in the same commit, so that an auditor can hold
 * it against the coordinator's log. Nothing here decides anything: what there was no memory for is not shown,
 * and the round goes on. */

#include "device_internal.h"

#include "linnet/secagg_audit.h"
#include "linnet/transcript.h"

#include <stdio.h>
#include <stdlib.h>

#define SURVIVOR_BYTES (LINNET_HASH_BYTES + LINNET_SIGNATURE_BYTES)

void device_seen_name(uint64_t index, char ret_name[40])
{
    (void)snprintf(ret_name, 40, KV_SEEN_ENTRY, (unsigned long long)index);
}

/* ---- while the round goes on ---- */

/* Bytes of the M6 that an M8 begins with; all of an M6. */
static size_t survivors_bytes(const linnet_buffer *message, uint32_t n)
{
    size_t head = LINNET_SIGNATURE_BYTES + linnet_bitmap_bytes(n);
    if (message->n_bytes < head)
        return message->n_bytes;
    return head + linnet_bitmap_count(message->bytes + LINNET_SIGNATURE_BYTES, n) * SURVIVOR_BYTES;
}

/* The body that the message's signature is over. */
static linnet_status body_of(const secure_round *round, uint32_t phase, const linnet_buffer *message,
                             linnet_buffer *body, linnet_signature *signature)
{
    uint32_t n = linnet_secagg_device_members(round->machine);
    const linnet_hash *t1 = linnet_secagg_device_t1(round->machine),
                      *t2 = linnet_secagg_device_t2(round->machine);
    size_t n_sharers = LINNET_SIGNATURE_BYTES + linnet_bitmap_bytes(n);
    if (phase == LINNET_PHASE_ROSTER)
        return linnet_secagg_roster_body(&round->chain, message->bytes, message->n_bytes, body, signature);
    if (phase == LINNET_PHASE_SHARERS && t1 && message->n_bytes >= n_sharers)
        return linnet_secagg_sharers_body(t1, message->bytes, n_sharers, body, signature);
    if (phase == LINNET_PHASE_SHARERS || !t2 || survivors_bytes(message, n) > message->n_bytes)
        return LINNET_ERR_FORMAT;
    return linnet_secagg_survivors_body(t2, n, message->bytes, survivors_bytes(message, n), body, signature);
}

void device_seen_take(linnet_device *device, uint32_t phase, const linnet_buffer *message)
{
    secure_round *round = &device->round;
    linnet_signature signature;
    linnet_buffer body = {0};
    linnet_buffer *seen = phase == LINNET_PHASE_ROSTER    ? &round->seen[0]
                          : phase == LINNET_PHASE_SHARERS ? &round->seen[1]
                                                          : &round->seen[2];
    linnet_buffer_clear(seen);
    if (body_of(round, phase, message, &body, &signature) != LINNET_OK ||
        linnet_signed_pack(body.bytes, body.n_bytes, &signature, seen, NULL) != LINNET_OK)
        linnet_buffer_clear(seen);
    linnet_buffer_release(&body);
}

void device_seen_forget(secure_round *round)
{
    for (size_t i = 0; i < ARRAY_LEN(round->seen); i++)
        linnet_buffer_release(&round->seen[i]);
}

/* ---- the records ---- */

static linnet_span span_of(const linnet_buffer *bytes)
{
    return (linnet_span){bytes->bytes, bytes->n_bytes};
}

linnet_status device_seen_pack(linnet_device *device, const linnet_ledger_entry *entry, const void *announced,
                               size_t n_announced, linnet_buffer *ret_record, linnet_error *err)
{
    linnet_kv *kv = device->config.kv;
    linnet_buffer release = {0}, roster = {0};
    secure_round *round = &device->round;
    linnet_status status = kv->get(kv->context, KV_RELEASE, &release, err);
    if (status == LINNET_OK && round->machine && round->seen[0].n_bytes == 0) { /* before a restart */
        status = kv->get(kv->context, KV_SEEN_ROSTER, &roster, err);
        status = status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
    }
    if (status == LINNET_OK) {
        const linnet_contribution_record record = {
            .round = entry->round,
            .echo = entry->echo,
            .release = span_of(&release),
            .announcement = {announced, n_announced},
            .t1 = span_of(round->seen[0].n_bytes > 0 ? &round->seen[0] : &roster),
            .t2 = span_of(&round->seen[1])};
        status = linnet_contribution_record_write(&record, ret_record, err);
    }
    linnet_buffer_release(&release);
    linnet_buffer_release(&roster);
    return status;
}

linnet_status device_seen_survivors(linnet_device *device, char ret_name[40], linnet_buffer *ret_record,
                                    linnet_error *err)
{
    linnet_kv *kv = device->config.kv;
    linnet_buffer before = {0};
    linnet_contribution_record record;
    const linnet_buffer *t3 = &device->round.seen[2];
    if (t3->n_bytes == 0 || device->record.delta != DELTA_SPENT || device->record.n_ledger == 0)
        return LINNET_OK;
    device_seen_name(device->record.n_ledger - 1, ret_name);
    linnet_status status = kv->get(kv->context, ret_name, &before, err);
    if (status == LINNET_OK)
        status = linnet_contribution_record_parse(before.bytes, before.n_bytes, &record, err);
    if (status == LINNET_OK) {
        record.t3 = span_of(t3);
        status = linnet_contribution_record_write(&record, ret_record, err);
    }
    linnet_buffer_release(&before);
    return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
}

/* ---- for the auditor ---- */

typedef struct receipts_job {
    linnet_receipts receipts;
    linnet_buffer announcement;
    linnet_buffer *seen; /* owned: storage of each record */
    uint8_t (*receipt)[LINNET_SIGNED_RECEIPT_BYTES];
} receipts_job;

static void job_release(receipts_job *job)
{
    for (size_t i = 0; job->seen && i < job->receipts.n_records; i++)
        linnet_buffer_release(&job->seen[i]);
    linnet_buffer_release(&job->announcement);
    free(job->seen);
    free(job->receipt);
    linnet_receipts_release(&job->receipts);
}

static linnet_status read_record(linnet_kv *kv, receipts_job *job, size_t i, linnet_error *err)
{
    char name[40];
    linnet_ledger_entry entry;
    linnet_contribution_record *record = &job->receipts.records[i];
    device_seen_name(i, name);
    linnet_status status = linnet_device_ledger(kv, i, &entry, err);
    if (status == LINNET_OK)
        status = kv->get(kv->context, name, &job->seen[i], err);
    if (status == LINNET_OK)
        status = linnet_contribution_record_parse(job->seen[i].bytes, job->seen[i].n_bytes, record, err);
    else if (status == LINNET_ERR_NOT_FOUND) /* of a program that kept none */
        status = LINNET_OK;
    if (status != LINNET_OK)
        return status;
    record->round = entry.round;
    record->echo = entry.echo;
    if (entry.is_accepted) {
        memcpy(job->receipt[i], entry.receipt, sizeof(entry.receipt));
        record->receipt = (linnet_span){job->receipt[i], sizeof(entry.receipt)};
    }
    return LINNET_OK;
}

static linnet_status read_records(linnet_kv *kv, uint64_t n, receipts_job *job, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    if (n > SIZE_MAX / 1024)
        return linnet_fail(err, LINNET_ERR_FORMAT, "a ledger of %llu entries", (unsigned long long)n);
    job->receipts.records = calloc((size_t)n + 1, sizeof(*job->receipts.records));
    job->seen = calloc((size_t)n + 1, sizeof(*job->seen));
    job->receipt = calloc((size_t)n + 1, sizeof(*job->receipt));
    if (!job->receipts.records || !job->seen || !job->receipt)
        return linnet_fail(err, LINNET_ERR_NOMEM, "receipts of %llu contributions", (unsigned long long)n);
    job->receipts.n_records = (size_t)n;
    for (size_t i = 0; i < n && status == LINNET_OK; i++)
        status = read_record(kv, job, i, err);
    return status;
}

linnet_status linnet_device_receipts(linnet_kv *kv, linnet_buffer *ret_bytes, linnet_error *err)
{
    receipts_job job = {.seen = NULL};
    identity_record identity;
    linnet_identity *own = NULL;
    device_record record;
    linnet_status status = device_identity_load(kv, &identity, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_identity_from_seed(identity.seed, &own, err);
    if (status == LINNET_OK)
        job.receipts.device_id = linnet_device_id_of(linnet_identity_public_key(own));
    linnet_identity_destroy(own);
    job.receipts.coordinator = identity.coordinator;
    memcpy(job.receipts.task, identity.task, sizeof(job.receipts.task));
    linnet_wipe(&identity, sizeof(identity));
    if (status == LINNET_OK)
        status = device_record_load(kv, &record, err);
    if (status == LINNET_OK) {
        status = kv->get(kv->context, KV_SEEN_LAST, &job.announcement, err);
        if (status == LINNET_OK || status == LINNET_ERR_NOT_FOUND)
            status = read_records(kv, record.n_ledger, &job, err);
    }
    job.receipts.announcement = span_of(&job.announcement);
    if (status == LINNET_OK)
        status = linnet_receipts_write(&job.receipts, ret_bytes, err);
    job_release(&job);
    return status;
}
