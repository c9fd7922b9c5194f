/* SPDX-License-Identifier: Apache-2.0 */
/* Contributions on their way in (M5 of SECURE-AGGREGATION 2.4; the chain they name is T2, without masks A).
 * Every request carries the signed header and one chunk, and stands alone: any order, any number of times,
 * from any process of the device. The chain of durable facts: file complete and hashed -> file and
 * directories fsynced -> row in the store, in one transaction with the round's counters -> receipt. One
 * device has one contribution to a round: the same echo again gets the same receipt, another one is refused
 * and kept as evidence. After the freeze what comes is deleted unread. */
#include "state.h"

#define GAP_RETRY_MS 1000       /* the bytes did not hash to the echo: from the start, not at once */
#define NO_SPACE_RETRY_MS 30000 /* somebody has to make room */

typedef struct upload_job {
    linnet_coordinator *coordinator;
    int64_t now_ms;
    const linnet_device_row *device;
    linnet_spool_id id;
    const linnet_upload_header *header;
    const linnet_signed *signed_header;
    /* out */
    linnet_round_row round;
    linnet_contribution_row row;
    enum {
        UPLOAD_GO_ON,
        UPLOAD_ACCEPTED,
        UPLOAD_CONFLICT,
        UPLOAD_LATE,
        UPLOAD_NOT_JOINED,
        UPLOAD_REVOKED
    } verdict;
} upload_job;

/* Where this upload stands, from the store alone. */
static linnet_status judge(linnet_store_txn *txn, upload_job *job, linnet_error *err)
{
    bool has_joined = false, has_shared = false;
    linnet_device_row device;
    linnet_status status = linnet_device_get(txn, &job->id.device, &device, err);
    if (status == LINNET_OK)
        status = linnet_round_get(txn, job->id.round, &job->round, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_contribution_get(txn, job->id.round, &job->id.device, &job->row, err);
    bool has_row = status == LINNET_OK;
    if (status != LINNET_OK && status != LINNET_ERR_NOT_FOUND)
        return status;
    status = linnet_row_exists(txn, 'j', job->id.round, &job->id.device, &has_joined, err);
    if (status == LINNET_OK)
        status = linnet_row_exists(txn, 'p', job->id.round, &job->id.device, &has_shared, err);
    if (status != LINNET_OK)
        return status;
    bool is_secure = linnet_profile_is_secure(job->coordinator->plan.profile);
    linnet_round_state state = is_secure ? LINNET_ROUND_SHARERS : LINNET_ROUND_OPEN;
    if (device.is_revoked)
        job->verdict = UPLOAD_REVOKED;
    else if (has_row)
        job->verdict =
            linnet_hash_equal(&job->row.echo, &job->header->echo) ? UPLOAD_ACCEPTED : UPLOAD_CONFLICT;
    else if (!has_joined)
        job->verdict = UPLOAD_NOT_JOINED;
    else if (job->round.state != state ||
             (job->round.deadline_ms != 0 && job->now_ms > job->round.deadline_ms))
        job->verdict = UPLOAD_LATE;
    else if (is_secure && !has_shared) /* in the roster, but not in U2 */
        job->verdict = UPLOAD_NOT_JOINED;
    else
        job->verdict = UPLOAD_GO_ON;
    return LINNET_OK;
}

/* The one transaction that makes a contribution count. */
static linnet_status accept(linnet_store_txn *txn, void *context, linnet_error *err)
{
    upload_job *job = context;
    linnet_device_row device;
    linnet_buffer bytes = {0};
    linnet_status status = judge(txn, job, err);
    if (status != LINNET_OK || job->verdict != UPLOAD_GO_ON)
        return status;
    job->row = (linnet_contribution_row){.echo = job->header->echo,
                                         .n_bytes = job->header->n_bytes,
                                         .sequence = ++job->round.accepted,
                                         .signature = job->signed_header->signature};
    linnet_record_id id = linnet_record_round_device('b', job->id.round, &job->id.device);
    linnet_contribution_row_pack(&job->row, &bytes);
    status = linnet_row_put(txn, &id, &bytes, err);
    if (status == LINNET_OK)
        status = linnet_round_put(txn, &job->round, err);
    if (status == LINNET_OK)
        status = linnet_device_get(txn, &job->id.device, &device, err);
    if (status != LINNET_OK)
        return status;
    device.rounds_accepted++;
    device.last_seen_s = (uint64_t)(job->now_ms / 1000);
    status = linnet_device_put(txn, &device, err);
    if (status == LINNET_OK)
        job->verdict = UPLOAD_ACCEPTED;
    return status;
}

/* Put a row unless it is there: what arrived late, or the signed header of a second, different upload. */
static linnet_status record_trouble(linnet_store_txn *txn, void *context, linnet_error *err)
{
    const upload_job *job = context;
    const uint8_t *bytes;
    size_t n_bytes;
    bool is_conflict = job->verdict == UPLOAD_CONFLICT;
    linnet_buffer evidence = {0};
    linnet_record_id id = linnet_record_round_device(is_conflict ? 'x' : 'l', job->id.round, &job->id.device);
    linnet_status status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    if (status != LINNET_ERR_NOT_FOUND)
        return status;
    linnet_buffer_append(&evidence, job->signed_header->body, job->signed_header->n_body);
    linnet_buffer_append(&evidence, job->signed_header->signature.bytes,
                         sizeof(job->signed_header->signature.bytes));
    return linnet_row_put(txn, &id, &evidence, err);
}

/* Evidence is kept once a round and device: one second header proves it, and more would let a device fill the
 * store. */
static linnet_status trouble(upload_job *job, linnet_error *err)
{
    linnet_store_txn *txn = NULL;
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_record_id id = linnet_record_round_device(job->verdict == UPLOAD_CONFLICT ? 'x' : 'l',
                                                     job->id.round, &job->id.device);
    linnet_status status = linnet_store_read_begin(job->coordinator->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    linnet_store_read_end(txn);
    return status == LINNET_ERR_NOT_FOUND
               ? linnet_store_update(job->coordinator->store, record_trouble, job, err)
               : status;
}

/* ---- answers ---- */

static void receipt(upload_job *job, linnet_reply *reply)
{
    linnet_receipt receipt = {.chain = job->header->chain, /* under which it joined, or T2 */
                              .echo = job->row.echo,
                              .device_id = job->id.device,
                              .sequence = job->row.sequence};
    linnet_receipt_sign(&receipt, job->coordinator->identity, reply->receipt);
    linnet_reply_set(reply, LINNET_ANSWER_OK, "accepted");
    reply->answer.receipt = reply->receipt;
    reply->answer.n_receipt = sizeof(reply->receipt);
    reply->answer.next_offset = job->header->n_bytes;
    reply->answer.retry_after_ms = linnet_pace_ms(job->coordinator, job->device->serial, job->now_ms);
}

/* Everything but UPLOAD_GO_ON is an answer. */
static linnet_status answer(upload_job *job, linnet_reply *reply, linnet_error *err)
{
    unsigned long long round = job->id.round;
    switch (job->verdict) {
    case UPLOAD_ACCEPTED:
        receipt(job, reply);
        return LINNET_OK;
    case UPLOAD_REVOKED:
        linnet_reply_set(reply, LINNET_ANSWER_REVOKED, "this device is revoked");
        return LINNET_OK;
    case UPLOAD_NOT_JOINED:
        linnet_reply_set(reply, LINNET_ANSWER_REFUSED, "this device has not joined round %llu", round);
        return LINNET_OK;
    case UPLOAD_CONFLICT:
        linnet_reply_set(reply, LINNET_ANSWER_CONFLICT, "round %llu has other bytes of this device", round);
        return trouble(job, err);
    case UPLOAD_LATE:
        linnet_reply_set(reply, LINNET_ANSWER_GONE, "round %llu is over", round);
        linnet_spool_drop(job->coordinator, &job->id);
        return trouble(job, err);
    case UPLOAD_GO_ON:
        break;
    }
    return LINNET_OK;
}

/* ---- the file ---- */

/* With masks the machine of the round is asked first and counts last, under the lock that keeps the two and
 * the row together. */
static linnet_status accept_masked(upload_job *job, linnet_error *err)
{
    linnet_store_txn *txn = NULL;
    linnet_secagg_server *server = NULL;
    linnet_coordinator *c = job->coordinator;
    linnet_status status = linnet_store_read_begin(c->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = judge(txn, job, err);
    if (status == LINNET_OK && job->verdict == UPLOAD_GO_ON)
        status = linnet_secure_server(c, txn, &job->round, &server, err);
    linnet_store_read_end(txn);
    if (status != LINNET_OK || job->verdict != UPLOAD_GO_ON)
        return status;
    const linnet_signature *signature = &job->signed_header->signature;
    status = linnet_secagg_server_masked(server, &job->id.device, &job->header->echo, signature, false, err);
    if (status == LINNET_OK)
        status = linnet_store_update(c->store, accept, job, err);
    if (status == LINNET_OK && job->verdict == UPLOAD_ACCEPTED)
        status =
            linnet_secagg_server_masked(server, &job->id.device, &job->header->echo, signature, true, err);
    if (status != LINNET_OK || job->verdict != UPLOAD_ACCEPTED)
        linnet_secure_forget(c, job->id.round);
    return status;
}

static linnet_status accept_in_round(upload_job *job, linnet_error *err)
{
    linnet_coordinator *c = job->coordinator;
    if (!linnet_profile_is_secure(c->plan.profile))
        return linnet_store_update(c->store, accept, job, err);
    (void)pthread_mutex_lock(&c->secure_lock);
    linnet_status status = accept_masked(job, err);
    if (status == LINNET_OK)
        status = linnet_secure_advance(c, job->id.round, job->now_ms, err);
    (void)pthread_mutex_unlock(&c->secure_lock);
    return status;
}

/* A complete file: check, make durable, accept. */
static linnet_status complete(upload_job *job, const linnet_ring_spec *specs, size_t n_specs,
                              linnet_reply *reply, linnet_error *err)
{
    linnet_error flaw = {0};
    linnet_coordinator *c = job->coordinator;
    linnet_status status = linnet_spool_check(c, &job->id, specs, n_specs, &job->header->echo, &flaw);
    if (status == LINNET_ERR_CRYPTO) { /* damaged here or there: the device may send it again */
        linnet_spool_drop(c, &job->id);
        linnet_reply_set(reply, LINNET_ANSWER_WAIT, "%s: send them again from the start", flaw.message);
        reply->answer.retry_after_ms = GAP_RETRY_MS;
        return LINNET_OK;
    }
    if (status == LINNET_ERR_FORMAT || status == LINNET_ERR_RANGE) {
        linnet_spool_drop(c, &job->id);
        linnet_reply_set(reply, LINNET_ANSWER_REFUSED, "%s", flaw.message);
        return LINNET_OK;
    }
    if (status != LINNET_OK)
        return linnet_fail(err, status, "%s", flaw.message);
    status = linnet_spool_sync(c, &job->id, err);
    if (status == LINNET_OK)
        status = accept_in_round(job, err);
    return status == LINNET_OK ? answer(job, reply, err) : status;
}

static linnet_status take_chunk(upload_job *job, const linnet_ring_spec *specs, size_t n_specs,
                                uint64_t offset, const uint8_t *raw, size_t n_raw, linnet_reply *reply,
                                linnet_error *err)
{
    uint64_t length = 0;
    linnet_status status =
        linnet_spool_append(job->coordinator, &job->id, &job->header->echo, offset, raw, n_raw, &length, err);
    if (status == LINNET_ERR_CONFLICT) {
        job->verdict = UPLOAD_CONFLICT;
        return answer(job, reply, err);
    }
    if (status != LINNET_OK)
        return status;
    if (length == job->header->n_bytes)
        return complete(job, specs, n_specs, reply, err);
    linnet_reply_set(reply, LINNET_ANSWER_OK, "go on");
    reply->answer.next_offset = length;
    return LINNET_OK;
}

/* ---- the request ---- */

/* Verify the signed header, then parse it; is_bad_request where it is not one of this device. */
static linnet_status header_open(const linnet_device_row *device, const linnet_upload *upload,
                                 linnet_signed *ret_signed, linnet_upload_header *ret_header,
                                 linnet_reply *reply)
{
    linnet_device_id id = linnet_device_id_of(&device->public_key);
    reply->is_bad_request =
        linnet_signed_open(upload->header, upload->n_header, ret_signed, NULL) != LINNET_OK ||
        linnet_verify(&device->public_key, LINNET_LABEL_MASKED, ret_signed->body, ret_signed->n_body,
                      &ret_signed->signature) != LINNET_OK ||
        linnet_upload_header_unpack(ret_signed->body, ret_signed->n_body, ret_header, NULL) != LINNET_OK ||
        memcmp(ret_header->device_id.bytes, id.bytes, sizeof(id.bytes)) != 0;
    return reply->is_bad_request ? LINNET_ERR_FORMAT : LINNET_OK;
}

static bool header_fits(const linnet_upload_header *header, const linnet_ring_spec *specs, size_t n_specs)
{
    bool fits = header->n_vectors == n_specs && header->n_bytes == linnet_specs_bytes(specs, n_specs);
    for (size_t i = 0; fits && i < n_specs; i++)
        fits = header->lengths[i] == specs[i].length;
    return fits;
}

/* The round whose A, or T2, the header names, and the verdict. NOT_FOUND: nobody's. */
static linnet_status look(upload_job *job, linnet_error *err)
{
    linnet_store_txn *txn = NULL;
    const uint8_t *bytes;
    size_t n_bytes;
    char table = linnet_profile_is_secure(job->coordinator->plan.profile) ? 'm' : 'a';
    linnet_record_id id =
        linnet_record_bytes(table, job->header->chain.bytes, sizeof(job->header->chain.bytes));
    linnet_status status = linnet_store_read_begin(job->coordinator->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    if (status == LINNET_OK && n_bytes == 8) {
        job->id.round = linnet_load_le64(bytes);
        status = judge(txn, job, err);
    }
    linnet_store_read_end(txn);
    return status;
}

linnet_status linnet_uploads_handle(linnet_coordinator *c, int64_t now_ms, const linnet_device_row *device,
                                    const linnet_upload *upload, const uint8_t *raw, size_t n_raw,
                                    linnet_reply *reply, linnet_error *err)
{
    linnet_signed signed_header;
    linnet_upload_header header;
    linnet_ring_spec specs[LINNET_VECTORS_MAX];
    size_t n_specs = 0;
    if (header_open(device, upload, &signed_header, &header, reply) != LINNET_OK)
        return LINNET_OK;
    upload_job job = {.coordinator = c,
                      .now_ms = now_ms,
                      .device = device,
                      .id.device = header.device_id,
                      .header = &header,
                      .signed_header = &signed_header};
    linnet_status status = look(&job, err);
    if (status == LINNET_ERR_NOT_FOUND) {
        linnet_reply_set(reply, LINNET_ANSWER_REFUSED, "no such round");
        return LINNET_OK;
    }
    if (status != LINNET_OK || job.verdict != UPLOAD_GO_ON)
        return status == LINNET_OK ? answer(&job, reply, err) : status;
    status = linnet_plan_vectors(&c->plan, c->layout, job.round.version, specs, &n_specs, err);
    if (status != LINNET_OK)
        return status;
    if (!header_fits(&header, specs, n_specs) || upload->offset > header.n_bytes ||
        n_raw > header.n_bytes - upload->offset) {
        linnet_reply_set(reply, LINNET_ANSWER_REFUSED, "the upload does not have the announced lengths");
        return LINNET_OK;
    }
    pthread_mutex_t *turn = &c->spool_locks[header.device_id.bytes[0] % LINNET_SPOOL_LOCKS];
    (void)pthread_mutex_lock(turn);
    status = take_chunk(&job, specs, n_specs, upload->offset, raw, n_raw, reply, err);
    (void)pthread_mutex_unlock(turn);
    if (status == LINNET_ERR_NO_SPACE) {
        linnet_coordinator_say(c, 4, "disk full: an upload waits (%s)", err ? err->message : "");
        linnet_reply_set(reply, LINNET_ANSWER_NO_SPACE,
                         "the coordinator's disk is full; its operator has to make room");
        reply->answer.retry_after_ms = NO_SPACE_RETRY_MS;
        return LINNET_OK;
    }
    return status;
}
