/* SPDX-License-Identifier: Apache-2.0 */

/* A ledger that may have lost entries (SECURE-AGGREGATION 3.4). Whoever starts without the volatile file
 * cannot tell a reboot from an older copy of the state, so before a round that spends privacy the coordinator
 * is asked for every receipt that it gave this device, and what the ledgers lack is added. Each one counts
 * only with the signatures of both sides: a coordinator can keep its own receipts back, but neither make up
 * rounds nor touch what other tasks have spent. Until the list has come to its end the device trains, checks
 * in and takes releases as ever, and does not say that it is ready. What is not known from a receipt, version
 * and weight, stays zero in the state's ledger. */

#include "device_internal.h"

#include <stdlib.h>

#include "linnet/receipt_list.h"
#include "linnet/transcript.h"

bool device_owes_receipts(const linnet_device *device)
{
    return device->record.receipts_due && device->has_plan && device->plan.mechanism != LINNET_DP_NONE;
}

/* One answer, proven. */
typedef struct receipts_job {
    size_t n;
    linnet_receipt_item *items;    /* owned; they borrow from the answer */
    linnet_proven_receipt *proven; /* owned */
    linnet_privacy_entry *spent;   /* owned */
    uint64_t *rounds, n_rounds;    /* owned: of the state's ledger */
    linnet_kv_item *values;        /* owned, two for each new entry */
    char (*names)[40];             /* owned, and their names */
    linnet_buffer *bytes;          /* owned, and their bytes */
    size_t n_values;
    device_record next;
} receipts_job;

static void job_release(receipts_job *job)
{
    for (size_t i = 0; job->bytes && i < 2 * job->n; i++)
        linnet_buffer_release(&job->bytes[i]);
    free(job->items);
    free(job->proven);
    free(job->spent);
    free(job->rounds);
    free(job->values);
    free(job->names);
    free(job->bytes);
}

static linnet_status job_make(const linnet_device *device, size_t n, receipts_job *job, linnet_error *err)
{
    job->n = n;
    job->next = device->record;
    job->n_rounds = device->record.n_ledger;
    job->items = calloc(n + 1, sizeof(*job->items));
    job->proven = calloc(n + 1, sizeof(*job->proven));
    job->spent = calloc(n + 1, sizeof(*job->spent));
    job->rounds =
        job->n_rounds < SIZE_MAX / 64 ? calloc((size_t)job->n_rounds + 1, sizeof(*job->rounds)) : NULL;
    job->values = calloc(2 * n + 1, sizeof(*job->values));
    job->names = calloc(2 * n + 1, sizeof(*job->names));
    job->bytes = calloc(2 * n + 1, sizeof(*job->bytes));
    if (job->items && job->proven && job->spent && job->rounds && job->values && job->names && job->bytes)
        return LINNET_OK;
    return linnet_fail(err, LINNET_ERR_NOMEM, "list of %zu receipts", n);
}

/* ---- checking: nothing changes before the whole list is proven ---- */

static linnet_status prove(const linnet_device *device, linnet_receipt_list *list, receipts_job *job,
                           linnet_error *err)
{
    linnet_receipt_owner owner = {.coordinator = device->identity_record.coordinator,
                                  .device = *linnet_identity_public_key(device->identity)};
    memcpy(owner.task, device->identity_record.task, sizeof(owner.task));
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < job->n && status == LINNET_OK; i++) {
        linnet_proven_receipt *p = &job->proven[i];
        linnet_privacy privacy;
        if (!linnet_receipt_list_next(list, &job->items[i]))
            return linnet_fail(err, LINNET_ERR_INTERNAL, "a list that was walked ends early");
        status = linnet_receipt_item_prove(&job->items[i], &owner, p, err);
        if (status == LINNET_OK && p->announcement.round < job->next.receipts_next)
            status = linnet_fail(err, LINNET_ERR_FORMAT, "its round was not asked for, or comes twice");
        if (status == LINNET_OK)
            status = linnet_announcement_privacy(&p->announcement, &privacy, err);
        if (status != LINNET_OK)
            return linnet_error_prefix(err, status, "receipt %zu", i);
        job->spent[i] = device_privacy_entry(device, &p->announcement, &p->a, privacy.noise_multiplier);
        job->next.receipts_next = p->announcement.round + 1;
        if (job->next.last_round < p->announcement.round)
            job->next.last_round = p->announcement.round;
    }
    return status;
}

/* ---- the union ---- */

static linnet_status read_rounds(const linnet_device *device, receipts_job *job, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    for (uint64_t i = 0; i < job->n_rounds && status == LINNET_OK; i++) {
        linnet_ledger_entry entry;
        status = linnet_device_ledger(device->config.kv, i, &entry, err);
        if (status == LINNET_OK)
            job->rounds[i] = entry.round;
    }
    return status;
}

static bool has_round(const receipts_job *job, uint64_t round)
{
    for (uint64_t i = 0; i < job->n_rounds; i++)
        if (job->rounds[i] == round)
            return true;
    return false;
}

/* Moves nothing: the bytes stay the job's. */
static void put_value(receipts_job *job)
{
    const linnet_buffer *bytes = &job->bytes[job->n_values];
    job->values[job->n_values] = (linnet_kv_item){job->names[job->n_values], bytes->bytes, bytes->n_bytes};
    job->n_values++;
}

/* An entry that the state's ledger lacks, and what was seen of its round. */
static linnet_status add_entry(receipts_job *job, size_t i, linnet_error *err)
{
    const linnet_proven_receipt *p = &job->proven[i];
    linnet_ledger_entry entry = {.round = p->announcement.round,
                                 .n_bytes = p->n_bytes,
                                 .chain = p->receipt.chain,
                                 .release = p->announcement.release,
                                 .echo = p->receipt.echo,
                                 .is_accepted = true};
    const linnet_contribution_record seen = {
        .round = entry.round,
        .echo = entry.echo,
        .announcement = {job->items[i].announcement, job->items[i].n_announcement}};
    memcpy(entry.receipt, job->items[i].receipt, sizeof(entry.receipt));
    if (linnet_hash_equal(&entry.release, &job->next.release))
        entry.version = job->next.version;
    device_ledger_name(job->next.n_ledger, job->names[job->n_values]);
    linnet_status status = device_ledger_pack(&entry, &job->bytes[job->n_values], err);
    if (status != LINNET_OK)
        return status;
    put_value(job);
    device_seen_name(job->next.n_ledger, job->names[job->n_values]);
    status = linnet_contribution_record_write(&seen, &job->bytes[job->n_values], err);
    if (status != LINNET_OK)
        return status;
    put_value(job);
    job->next.n_ledger++;
    job->next.n_contributions++;
    return LINNET_OK;
}

/* The ledger of privacy first: a crash in between counts nothing twice, since the list is asked for again. It
 * may lack what the state has, so every item goes there, and no limit keeps out what has left already. */
static linnet_status unite(linnet_device *device, receipts_job *job, linnet_error *err)
{
    linnet_status status = read_rounds(device, job, err);
    for (size_t i = 0; i < job->n && status == LINNET_OK; i++) {
        if (job->spent[i].mechanism != LINNET_DP_NONE && device->config.ledger)
            status = linnet_budget_ledger_add(device->config.ledger, &job->spent[i], NULL, err);
        if (status == LINNET_ERR_IO) /* it may be on the disk or not */
            device->is_state_unknown = true;
        if (status == LINNET_OK && !has_round(job, job->spent[i].round))
            status = add_entry(job, i, err);
    }
    if (status == LINNET_OK)
        status = device_commit(device, &job->next, job->values, job->n_values, err);
    if (status == LINNET_OK)
        device->n_recovered += job->n_values / 2;
    return status;
}

/* ---- the exchange ---- */

static void refuse(linnet_device *device, const char *why)
{
    device->receipts_failed = true;
    device_note(device, "no noised round before the coordinator's receipts are here: %.120s", why);
    device_wait(device, 0); /* the check-in that comes now names the pace */
}

static linnet_status take_list(linnet_device *device, const linnet_buffer *raw, linnet_error *err)
{
    linnet_receipt_list list;
    linnet_error why = {0};
    receipts_job job = {0};
    linnet_status status = linnet_receipt_list_open(raw->bytes, raw->n_bytes, &list, &why);
    if (status == LINNET_OK)
        status = job_make(device, list.n_items, &job, &why);
    if (status == LINNET_OK)
        status = prove(device, &list, &job, &why);
    if (status == LINNET_ERR_NOMEM || status == LINNET_ERR_INTERNAL) {
        status = linnet_fail(err, status, "%s", why.message);
    } else if (status != LINNET_OK) {
        refuse(device, why.message);
        status = LINNET_OK;
    } else {
        job.next.receipts_due = list.n_items > 0;
        status = unite(device, &job, err);
        device_wait(device, 0);
    }
    job_release(&job);
    return status;
}

static linnet_status exchange(linnet_device *device, linnet_buffer *storage, linnet_buffer *raw,
                              linnet_answer *ret_answer, bool *ret_is_answered, linnet_error *err)
{
    uint8_t query[LINNET_RECEIPT_QUERY_BYTES];
    const linnet_round_message message = {.kind = LINNET_ROUND_RECEIPTS};
    linnet_buffer header = {0};
    linnet_store_le64(query, device->record.receipts_next);
    linnet_status status = linnet_round_message_pack(&message, &header, err);
    if (status == LINNET_OK) {
        const linnet_frame frame = {
            .header = header.bytes, .n_header = header.n_bytes, .raw = query, .n_raw = sizeof(query)};
        status = device_exchange_sealed(device, LINNET_PATH_ROUND, &frame, storage, raw, ret_answer,
                                        ret_is_answered, err);
    }
    linnet_buffer_release(&header);
    return status;
}

linnet_status device_ask_receipts(linnet_device *device, linnet_error *err)
{
    linnet_buffer storage = {0}, raw = {0};
    linnet_answer answer = {0};
    bool is_answered = false;
    linnet_status status = exchange(device, &storage, &raw, &answer, &is_answered, err);
    if (status == LINNET_OK && !is_answered)
        device->receipts_failed = true; /* and waits already; a check-in comes first */
    else if (status == LINNET_OK && answer.code != LINNET_ANSWER_OK)
        refuse(device, answer.message);
    else if (status == LINNET_OK)
        status = take_list(device, &raw, err);
    linnet_buffer_release(&storage);
    linnet_buffer_release(&raw);
    return status;
}
