/* SPDX-License-Identifier: Apache-2.0 */
/* Who may speak: invites, devices, certificates, revocation (SECURE-AGGREGATION 2.3). An invite is used up in
 * the same transaction that stores what it was used for, and remembers by whom: the same device may ask again
 * for a lost answer, another one is refused. Where the authority's key lies elsewhere a request waits, as a
 * device row without a certificate, until the authority has signed it. A contribution that was accepted
 * before its device was revoked stays in its round: it is part of a sum that may be announced already. */
#include "transcript_log.h"

#include <stdlib.h>

/* ---- enrolment ---- */

typedef struct enroll_job {
    linnet_coordinator *coordinator;
    uint64_t now_s;
    const uint8_t *signed_csr;
    const linnet_csr *csr;
    /* out */
    linnet_answer_code code;
    const char *message; /* static */
    linnet_device_row device;
} enroll_job;

static linnet_status refuse(enroll_job *job, linnet_answer_code code, const char *message)
{
    job->code = code;
    job->message = message;
    return LINNET_OK;
}

static linnet_status token_get(linnet_store_txn *txn, const linnet_record_id *id, linnet_token_row *ret_row,
                               linnet_error *err)
{
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_status status = linnet_store_get(txn, id, &bytes, &n_bytes, err);
    if (status != LINNET_OK)
        return status;
    if (linnet_token_row_unpack(bytes, n_bytes, ret_row) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_FORMAT,
                           "store: the row of an invite is damaged; restore the state from a backup");
    return LINNET_OK;
}

static linnet_status token_put(linnet_store_txn *txn, const linnet_record_id *id, const linnet_token_row *row,
                               linnet_error *err)
{
    linnet_buffer bytes = {0};
    linnet_token_row_pack(row, &bytes);
    return linnet_row_put(txn, id, &bytes, err);
}

/* A new device: its serial, its certificate where the authority is here, its row. */
static linnet_status device_add(linnet_store_txn *txn, enroll_job *job, linnet_error *err)
{
    linnet_device_row *device = &job->device;
    uint64_t serial;
    linnet_status status = linnet_config_get_u64(txn, "serial", &serial, err);
    if (status == LINNET_OK)
        status = linnet_config_put_u64(txn, "serial", serial + 1, err);
    if (status != LINNET_OK)
        return status;
    *device = (linnet_device_row){.public_key = job->csr->public_key,
                                  .device_class = job->csr->device_class,
                                  .serial = serial + 1,
                                  .enrolled_s = job->now_s,
                                  .last_seen_s = job->now_s,
                                  .has_certificate = job->coordinator->authority != NULL};
    memcpy(device->request, job->signed_csr, sizeof(device->request));
    if (device->has_certificate)
        linnet_authority_certify(job->coordinator->authority, job->csr, device->serial, job->now_s,
                                 device->certificate);
    return linnet_device_put(txn, device, err);
}

/* An invite of an authority elsewhere: only it has the secret, and it checks the proof before it signs. */
static bool is_judged_elsewhere(const linnet_token_row *token)
{
    uint8_t any = 0; /* no early way out: it may be a secret */
    for (size_t i = 0; i < sizeof(token->secret); i++)
        any |= token->secret[i];
    return any == 0;
}

static void answer_with_device(enroll_job *job)
{
    if (job->device.is_revoked)
        (void)refuse(job, LINNET_ANSWER_REVOKED, "this device is revoked");
    else if (job->device.has_certificate)
        (void)refuse(job, LINNET_ANSWER_OK, "");
    else
        (void)refuse(job, LINNET_ANSWER_WAIT, "the enrolment authority has not signed the request yet");
}

static linnet_status enroll(linnet_store_txn *txn, void *context, linnet_error *err)
{
    enroll_job *job = context;
    linnet_token_row token;
    linnet_record_id id = linnet_record_bytes('t', job->csr->token_id, sizeof(job->csr->token_id));
    linnet_device_id device_id = linnet_device_id_of(&job->csr->public_key);
    linnet_status status = token_get(txn, &id, &token, err);
    if (status == LINNET_ERR_NOT_FOUND)
        return refuse(job, LINNET_ANSWER_REFUSED, "unknown invite");
    if (status != LINNET_OK)
        return status;
    if (token.is_used &&
        memcmp(token.public_key.bytes, job->csr->public_key.bytes, sizeof(token.public_key.bytes)) != 0)
        return refuse(job, LINNET_ANSWER_REFUSED, "this invite is already used by another device");
    if (!token.is_used && !is_judged_elsewhere(&token) &&
        linnet_csr_check_token(job->signed_csr, LINNET_SIGNED_CSR_BYTES, token.secret) != LINNET_OK)
        return refuse(job, LINNET_ANSWER_REFUSED,
                      "unknown invite"); /* a guessed secret learns no more than that */
    if (!token.is_used && job->now_s > token.expires_s)
        return refuse(job, LINNET_ANSWER_REFUSED, "this invite is expired: ask for a new one");
    status = linnet_device_get(txn, &device_id, &job->device, err);
    if (status != LINNET_OK && status != LINNET_ERR_NOT_FOUND)
        return status;
    if (!token.is_used) {
        if (status == LINNET_ERR_NOT_FOUND && (status = device_add(txn, job, err)) != LINNET_OK)
            return status;
        linnet_wipe(token.secret, sizeof(token.secret));
        token.is_used = true;
        token.public_key = job->csr->public_key;
        status = token_put(txn, &id, &token, err);
    }
    if (status == LINNET_OK)
        answer_with_device(job);
    return status;
}

linnet_status linnet_registry_enroll(linnet_coordinator *c, int64_t now_ms, const uint8_t *signed_csr,
                                     const linnet_csr *csr, linnet_reply *reply, linnet_error *err)
{
    enroll_job job = {
        .coordinator = c, .now_s = (uint64_t)(now_ms / 1000), .signed_csr = signed_csr, .csr = csr};
    if (memcmp(csr->coordinator.bytes, linnet_identity_public_key(c->identity)->bytes,
               sizeof(csr->coordinator.bytes)) != 0) {
        linnet_reply_set(reply, LINNET_ANSWER_REFUSED, "the invite is for another coordinator");
        return LINNET_OK;
    }
    linnet_status status = linnet_store_update(c->store, enroll, &job, err);
    if (status != LINNET_OK)
        return status;
    linnet_reply_set(reply, job.code, "%s", job.message);
    if (job.code == LINNET_ANSWER_WAIT)
        reply->answer.retry_after_ms = linnet_pace_ms(c, job.device.serial, now_ms);
    if (job.code == LINNET_ANSWER_OK) {
        memcpy(reply->certificate, job.device.certificate, sizeof(reply->certificate));
        reply->answer.certificate = reply->certificate;
        reply->answer.n_certificate = sizeof(reply->certificate);
    }
    return LINNET_OK;
}

linnet_status linnet_registry_find(linnet_coordinator *c, const linnet_device_id *id,
                                   linnet_device_row *ret_row, linnet_error *err)
{
    linnet_store_txn *txn = NULL;
    linnet_status status = linnet_store_read_begin(c->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_device_get(txn, id, ret_row, err);
    linnet_store_read_end(txn);
    return status;
}

/* ---- invites ---- */

typedef struct invite_job {
    linnet_record_id id;
    linnet_token_row row;
} invite_job;

static linnet_status put_invite(linnet_store_txn *txn, void *context, linnet_error *err)
{
    const invite_job *job = context;
    return token_put(txn, &job->id, &job->row, err);
}

linnet_status linnet_coordinator_invite(linnet_coordinator *c, uint64_t expires_s,
                                        char ret_text[LINNET_INVITE_TEXT_MAX], linnet_error *err)
{
    linnet_invite invite = {.coordinator = *linnet_identity_public_key(c->identity),
                            .authority = c->authority_key};
    linnet_random_bytes(&invite.token, sizeof(invite.token));
    invite_job job = {.id = linnet_record_bytes('t', invite.token.id, sizeof(invite.token.id)),
                      .row = {.expires_s = expires_s}};
    memcpy(job.row.secret, invite.token.secret, sizeof(job.row.secret));
    linnet_status status = linnet_store_update(c->store, put_invite, &job, err);
    if (status == LINNET_OK)
        linnet_invite_write(&invite, ret_text);
    linnet_wipe(&invite, sizeof(invite));
    linnet_wipe(&job, sizeof(job));
    return status;
}

/* ---- revocation ---- */

typedef struct revoke_job {
    linnet_coordinator *coordinator;
    const linnet_device_id *device;
} revoke_job;

static int compare_ids(const void *a, const void *b)
{
    return memcmp(a, b, LINNET_DEVICE_ID_BYTES);
}

/* The ids of the present list and one more, sorted, in a new array. */
static linnet_status list_extend(const linnet_revocation *present, const linnet_device_id *device,
                                 linnet_device_id **ret_ids, linnet_error *err)
{
    linnet_device_id *ids = malloc((present->n_ids + 1) * sizeof(*ids));
    if (!ids)
        return linnet_fail(err, LINNET_ERR_NOMEM, "revocation list");
    if (present->n_ids > 0)
        memcpy(ids, present->ids, present->n_ids * sizeof(*ids));
    ids[present->n_ids] = *device;
    qsort(ids, present->n_ids + 1, sizeof(*ids), compare_ids);
    *ret_ids = ids;
    return LINNET_OK;
}

linnet_status linnet_revocation_extend(const linnet_buffer *list, const linnet_device_id *device,
                                       const linnet_identity *authority, linnet_buffer *ret_list,
                                       linnet_error *err)
{
    linnet_device_id *ids = NULL;
    linnet_revocation present = {0};
    linnet_status status = LINNET_OK;
    if (list->n_bytes > 0 &&
        linnet_revocation_open(list->bytes, list->n_bytes, linnet_identity_public_key(authority), &present) !=
            LINNET_OK)
        return linnet_fail(err, LINNET_ERR_FORMAT,
                           "the revocation list is damaged; restore it from a backup");
    if (linnet_revocation_contains(&present, device)) {
        linnet_buffer_append(ret_list, list->bytes, list->n_bytes);
        return ret_list->failed ? linnet_fail(err, LINNET_ERR_NOMEM, "revocation list") : LINNET_OK;
    }
    status = list_extend(&present, device, &ids, err);
    if (status == LINNET_OK)
        status = linnet_revocation_sign(present.number + 1, ids, present.n_ids + 1, authority, ret_list, err);
    if (status == LINNET_OK && ret_list->n_bytes > LINNET_REVOCATION_BYTES_MAX)
        status = linnet_fail(err, LINNET_ERR_LIMIT,
                             "the revocation list is full (%zu bytes): start a new task", ret_list->n_bytes);
    free(ids);
    return status;
}

static linnet_status revoke(linnet_store_txn *txn, void *context, linnet_error *err)
{
    const revoke_job *job = context;
    linnet_device_row device;
    linnet_buffer present = {0}, list = {0};
    linnet_status status = linnet_device_get(txn, job->device, &device, err);
    if (status == LINNET_ERR_NOT_FOUND)
        return linnet_fail(err, status, "no such device; 'linnet-coordinator devices' lists them");
    if (status != LINNET_OK || device.is_revoked)
        return status;
    device.is_revoked = true;
    status = linnet_device_put(txn, &device, err);
    if (status == LINNET_OK)
        status = linnet_rounds_leave(job->coordinator, txn, job->device, err);
    if (status == LINNET_OK)
        status = linnet_config_get(txn, "revocation", &present, err);
    if (status == LINNET_OK)
        status = linnet_revocation_extend(&present, job->device, job->coordinator->authority, &list, err);
    if (status == LINNET_OK)
        status = linnet_revocation_put(txn, list.bytes, list.n_bytes, err);
    if (status == LINNET_OK)
        status = linnet_rounds_announce_again(job->coordinator, txn, err);
    linnet_buffer_release(&present);
    linnet_buffer_release(&list);
    return status;
}

linnet_status linnet_coordinator_revoke(linnet_coordinator *c, const linnet_device_id *device,
                                        linnet_error *err)
{
    revoke_job job = {.coordinator = c, .device = device};
    if (!c->authority)
        return linnet_fail(err, LINNET_ERR_DENIED,
                           "the authority's key is not in this state directory: sign a list where it is with "
                           "'linnet-coordinator authority revoke' and import it");
    return linnet_store_update(c->store, revoke, &job, err);
}

/* ---- reports ---- */

typedef struct device_list {
    linnet_registered_device *items;
    size_t n_items, capacity;
} device_list;

static linnet_status add_device(void *context, const uint8_t *fields, size_t n_fields, const uint8_t *bytes,
                                size_t n_bytes, linnet_error *err)
{
    device_list *list = context;
    linnet_device_row row;
    if (n_fields != LINNET_DEVICE_ID_BYTES || linnet_device_row_unpack(bytes, n_bytes, &row) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_FORMAT,
                           "store: the row of a device is damaged; restore the state from a backup");
    if (list->n_items == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 64;
        linnet_registered_device *items = realloc(list->items, capacity * sizeof(*items));
        if (!items)
            return linnet_fail(err, LINNET_ERR_NOMEM, "list of devices");
        list->items = items;
        list->capacity = capacity;
    }
    linnet_registered_device *item = &list->items[list->n_items++];
    *item = (linnet_registered_device){.device_class = row.device_class,
                                       .serial = row.serial,
                                       .enrolled_s = row.enrolled_s,
                                       .last_seen_s = row.last_seen_s,
                                       .rounds_accepted = row.rounds_accepted,
                                       .is_revoked = row.is_revoked};
    memcpy(item->device_id.bytes, fields, sizeof(item->device_id.bytes));
    return LINNET_OK;
}

static int by_serial(const void *a, const void *b)
{
    const linnet_registered_device *x = a, *y = b;
    return x->serial < y->serial ? -1 : x->serial > y->serial;
}

linnet_status linnet_coordinator_devices(linnet_coordinator *c, linnet_registered_device **ret_devices,
                                         size_t *ret_n, linnet_error *err)
{
    linnet_store_txn *txn = NULL;
    device_list list = {0};
    linnet_record_id prefix = linnet_record_of('d');
    linnet_status status = linnet_store_read_begin(c->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_store_each(txn, &prefix, add_device, &list, err);
    linnet_store_read_end(txn);
    if (status != LINNET_OK) {
        free(list.items);
        return status;
    }
    if (list.n_items > 0)
        qsort(list.items, list.n_items, sizeof(*list.items), by_serial);
    *ret_devices = list.items;
    *ret_n = list.n_items;
    return LINNET_OK;
}
