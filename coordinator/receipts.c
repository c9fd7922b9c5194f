/* SPDX-License-Identifier: Apache-2.0 */
/* A device that may have lost a part of its ledger asks for what it was given receipts for
 * (SECURE-AGGREGATION 3.4). The rows of contributions outlive their rounds, closed or void, and with the hash
 * under which each came in they give the same receipt again, byte for byte. That hash, T2 or A, is found by
 * going through the table that leads from it to the round; without masks a round may have several, of which
 * the device's own signature tells the right one. Nothing is written. */
#include "state.h"

#include <stdlib.h>

#include "linnet/receipt_list.h"

#define CHAIN_BYTES (8 + LINNET_HASH_BYTES) /* number of the round, big-endian, and the hash */

typedef struct receipts_job {
    linnet_coordinator *coordinator;
    linnet_store_txn *txn;
    linnet_receipt_owner owner;
    linnet_device_id id;
    uint64_t first;
    linnet_buffer chains; /* CHAIN_BYTES each */
    bool is_full;
} receipts_job;

static linnet_status collect(void *context, const uint8_t *fields, size_t n_fields, const uint8_t *bytes,
                             size_t n_bytes, linnet_error *err)
{
    receipts_job *job = context;
    uint8_t chain[CHAIN_BYTES];
    if (n_fields != LINNET_HASH_BYTES || n_bytes != 8)
        return linnet_fail(err, LINNET_ERR_FORMAT, "store: the row of a round's hash is damaged");
    linnet_store_be64(chain, linnet_load_le64(bytes));
    memcpy(chain + 8, fields, LINNET_HASH_BYTES);
    if (linnet_load_le64(bytes) >= job->first)
        linnet_buffer_append(&job->chains, chain, sizeof(chain));
    return job->chains.failed ? linnet_fail(err, LINNET_ERR_NOMEM, "hashes of rounds") : LINNET_OK;
}

static int by_round(const void *a, const void *b)
{
    return memcmp(a, b, CHAIN_BYTES);
}

/* Hashes under which uploads come in, by increasing round. */
static linnet_status collect_chains(receipts_job *job, linnet_error *err)
{
    linnet_record_id table =
        linnet_record_of(linnet_profile_is_secure(job->coordinator->plan.profile) ? 'm' : 'a');
    linnet_status status = linnet_store_each(job->txn, &table, collect, job, err);
    if (status == LINNET_OK && job->chains.n_bytes > 0)
        qsort(job->chains.bytes, job->chains.n_bytes / CHAIN_BYTES, CHAIN_BYTES, by_round);
    return status;
}

/* The Signed announcement: the last one of the round, or one that it replaced. */
static linnet_status find_announcement(const receipts_job *job, uint64_t round, const linnet_hash *chain,
                                       linnet_receipt_item *item, linnet_error *err)
{
    linnet_record_id replaced = linnet_record_bytes('s', chain->bytes, sizeof(chain->bytes));
    linnet_record_id last = linnet_record_number('n', round);
    linnet_status status =
        linnet_store_get(job->txn, &replaced, &item->announcement, &item->n_announcement, err);
    return status == LINNET_ERR_NOT_FOUND
               ? linnet_store_get(job->txn, &last, &item->announcement, &item->n_announcement, err)
               : status;
}

/* What the device contributed under this hash; nothing is fine. */
static linnet_status add_item(receipts_job *job, uint64_t round, const linnet_hash *chain,
                              linnet_buffer *list, linnet_error *err)
{
    uint8_t receipt_bytes[LINNET_SIGNED_RECEIPT_BYTES];
    linnet_contribution_row row;
    linnet_proven_receipt proven;
    linnet_status status = linnet_contribution_get(job->txn, round, &job->id, &row, err);
    if (status != LINNET_OK)
        return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
    const linnet_receipt receipt = {
        .chain = *chain, .echo = row.echo, .device_id = job->id, .sequence = row.sequence};
    linnet_receipt_item item = {.receipt = receipt_bytes, .upload = row.signature};
    linnet_receipt_sign(&receipt, job->coordinator->identity, receipt_bytes);
    status = find_announcement(job, round, chain, &item, err);
    if (status == LINNET_ERR_NOT_FOUND)
        status = linnet_fail(err, LINNET_ERR_FORMAT, "store: the announcement of a round is gone");
    if (status != LINNET_OK)
        return status;
    status = linnet_receipt_item_prove(&item, &job->owner, &proven, NULL);
    if (status != LINNET_OK) /* it was uploaded under another hash of this round */
        return status == LINNET_ERR_NOMEM ? linnet_fail(err, status, "receipts") : LINNET_OK;
    status = linnet_receipt_list_add(list, &item, err);
    job->is_full = status == LINNET_ERR_LIMIT;
    return job->is_full ? LINNET_OK : status;
}

static linnet_status add_items(receipts_job *job, linnet_buffer *list, linnet_error *err)
{
    linnet_status status = collect_chains(job, err);
    for (size_t at = 0; status == LINNET_OK && at < job->chains.n_bytes && !job->is_full; at += CHAIN_BYTES) {
        linnet_hash chain;
        memcpy(chain.bytes, job->chains.bytes + at + 8, sizeof(chain.bytes));
        status = add_item(job, linnet_load_be64(job->chains.bytes + at), &chain, list, err);
    }
    return status;
}

linnet_status linnet_receipts_handle(linnet_coordinator *c, const linnet_device_row *device,
                                     const linnet_round_message *message, const uint8_t *raw, size_t n_raw,
                                     linnet_reply *reply, linnet_error *err)
{
    static const linnet_hash none;
    receipts_job job = {.coordinator = c, .id = linnet_device_id_of(&device->public_key)};
    if (n_raw != LINNET_RECEIPT_QUERY_BYTES || !linnet_hash_equal(&message->announcement, &none)) {
        reply->is_bad_request = true;
        return LINNET_OK;
    }
    job.first = linnet_load_le64(raw);
    job.owner.coordinator = *linnet_identity_public_key(c->identity);
    job.owner.device = device->public_key;
    memcpy(job.owner.task, c->task, sizeof(job.owner.task));
    linnet_reply_set(reply, LINNET_ANSWER_OK, "receipts");
    linnet_status status = linnet_store_read_begin(c->store, &job.txn, err);
    if (status != LINNET_OK)
        return status;
    status = add_items(&job, &reply->raw, err);
    linnet_store_read_end(job.txn);
    linnet_buffer_release(&job.chains);
    return status;
}
