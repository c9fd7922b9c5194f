/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of the interactive round, M1 to M9 without M5 (uploads.c): checked by the protocol machine, put
 * into a row, counted by the machine, in this order, and only then answered (SECURE-AGGREGATION 7). Every one
 * may come any number of times: the same bytes change nothing and get the answer of the moment, other bytes
 * are refused and kept as evidence. The answer carries what is due to this device now, all of it from rows,
 * so that a poll and a repeated message are the same thing. What is due:
 *
 *   ROSTER   M2, until it has shared
 *   SHARERS  M4 to a sharer whose upload is not there
 *   FROZEN   to a survivor M6, until it has attested or there is a certificate, then M8, until it has
 *            unmasked; to a sharer that is no survivor M8, which gives it its delta back
 *   over     nothing but the word; those sharers still get M8
 */
#include "state.h"

#define MESSAGE_ID_AT LINNET_HASH_BYTES /* every message starts with a hash and the sender's id */

typedef struct round_job {
    linnet_coordinator *coordinator;
    int64_t now_ms;
    const linnet_device_row *device;
    linnet_device_id id;
    uint32_t kind; /* linnet_round_kind */
    const uint8_t *raw;
    size_t n_raw;
    linnet_round_row row; /* as read under the lock */
    bool is_revoked, is_invited, is_member, is_paused;
    linnet_record_id record; /* of the message */
    uint32_t about;          /* a complaint */
    bool is_stale;           /* out of an update: the round has moved on */
    uint32_t n_complaints;   /* out */
} round_job;

/* ---- what the store says ---- */

static linnet_status look(linnet_store_txn *txn, round_job *job, const linnet_hash *announcement,
                          linnet_error *err)
{
    const uint8_t *bytes;
    size_t n_bytes;
    uint64_t paused = 0;
    linnet_device_row device;
    linnet_record_id id = linnet_record_bytes('a', announcement->bytes, sizeof(announcement->bytes));
    linnet_status status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    if (status == LINNET_OK)
        status = linnet_round_get(txn, n_bytes == 8 ? linnet_load_le64(bytes) : 0, &job->row, err);
    if (status == LINNET_OK)
        status = linnet_device_get(txn, &job->id, &device, err);
    if (status == LINNET_OK)
        status = linnet_row_exists(txn, 'j', job->row.number, &job->id, &job->is_member, err);
    if (status == LINNET_OK)
        status = linnet_row_exists(txn, 'i', job->row.number, &job->id, &job->is_invited, err);
    if (status == LINNET_OK)
        status = linnet_config_get_u64(txn, "paused", &paused, err);
    if (status == LINNET_OK)
        job->is_revoked = device.is_revoked;
    job->is_paused = paused != 0;
    return status;
}

/* ---- taking a message ---- */

/* The table of a message and the state in which it counts; 0 for what is none. */
static char table_of(uint32_t kind)
{
    switch (kind) {
    case LINNET_ROUND_ADVERT:
        return 'j';
    case LINNET_ROUND_SHARES:
        return 'p';
    case LINNET_ROUND_ATTEST:
        return 'v';
    case LINNET_ROUND_UNMASK:
        return 'u';
    case LINNET_ROUND_COMPLAINT:
        return 'w';
    case LINNET_ROUND_ABORT:
        return 'g';
    default:
        return 0;
    }
}

static linnet_record_id record_of(const round_job *job)
{
    if (job->kind != LINNET_ROUND_COMPLAINT)
        return linnet_record_round_device(table_of(job->kind), job->row.number, &job->id);
    linnet_record_id id = linnet_record_number('w', job->row.number);
    linnet_record_add_u64(&id, job->about);
    linnet_record_add(&id, job->id.bytes, sizeof(job->id.bytes));
    return id;
}

/* Ask the machine (count false), or let it count (true). */
static linnet_status tell(round_job *job, linnet_secagg_server *server, const linnet_secagg_trust *trust,
                          bool count, linnet_error *err)
{
    linnet_abort_reason reason;
    switch (job->kind) {
    case LINNET_ROUND_ADVERT:
        return linnet_secagg_server_advert(server, trust, job->raw, job->n_raw, count, err);
    case LINNET_ROUND_SHARES:
        return linnet_secagg_server_shares(server, job->raw, job->n_raw, count, err);
    case LINNET_ROUND_ATTEST:
        return linnet_secagg_server_attestation(server, job->raw, job->n_raw, count, err);
    case LINNET_ROUND_UNMASK:
        return linnet_secagg_server_unmasking(server, job->raw, job->n_raw, count, err);
    case LINNET_ROUND_COMPLAINT:
        return count ? LINNET_OK
                     : linnet_secagg_server_complaint(server, job->raw, job->n_raw, &job->about, err);
    default:
        return count ? LINNET_OK : linnet_secagg_server_abort(server, job->raw, job->n_raw, &reason, err);
    }
}

static void count_in_row(const round_job *job, linnet_round_row *row)
{
    if (job->kind == LINNET_ROUND_ADVERT && row->joined++ == 0)
        row->deadline_ms = job->now_ms + (int64_t)job->coordinator->plan.deadline_s * 1000;
    row->sharers += job->kind == LINNET_ROUND_SHARES;
    row->aborts += job->kind == LINNET_ROUND_ABORT;
}

static linnet_status count_record(void *context, const uint8_t *fields, size_t n_fields, const uint8_t *bytes,
                                  size_t n_bytes, linnet_error *err)
{
    uint32_t *n = context;
    (void)fields;
    (void)n_fields;
    (void)bytes;
    (void)n_bytes;
    (void)err;
    ++*n;
    return LINNET_OK;
}

static linnet_status complaints_count(linnet_store_txn *txn, round_job *job, linnet_error *err)
{
    linnet_record_id prefix = linnet_record_number('w', job->row.number);
    linnet_record_add_u64(&prefix, job->about);
    job->n_complaints = 0;
    return linnet_store_each(txn, &prefix, count_record, &job->n_complaints, err);
}

/* The one transaction in which a message becomes a fact. Never over another one. */
static linnet_status put_message(linnet_store_txn *txn, void *context, linnet_error *err)
{
    round_job *job = context;
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_round_row row;
    linnet_status status = linnet_round_get(txn, job->row.number, &row, err);
    if (status != LINNET_OK)
        return status;
    job->is_stale = row.state != job->row.state;
    status = linnet_store_get(txn, &job->record, &bytes, &n_bytes, err);
    if (job->is_stale || status != LINNET_ERR_NOT_FOUND)
        return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
    count_in_row(job, &row);
    status = linnet_store_put(txn, &job->record, job->raw, job->n_raw, err);
    if (status == LINNET_OK)
        status = linnet_round_put(txn, &row, err);
    return status == LINNET_OK && job->kind == LINNET_ROUND_COMPLAINT ? complaints_count(txn, job, err)
                                                                      : status;
}

/* A second, different message: once a device and kind, or a device could fill the store. */
static linnet_status put_evidence(linnet_store_txn *txn, void *context, linnet_error *err)
{
    const round_job *job = context;
    const uint8_t *bytes;
    size_t n_bytes;
    uint8_t kind = (uint8_t)job->kind;
    linnet_record_id id = linnet_record_round_device('x', job->row.number, &job->id);
    linnet_record_add(&id, &kind, 1);
    linnet_status status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    return status == LINNET_ERR_NOT_FOUND ? linnet_store_put(txn, &id, job->raw, job->n_raw, err) : status;
}

/* Check, commit, count. What is refused is an answer: OK with a code other than OK in the reply. */
static linnet_status take(round_job *job, linnet_secagg_server *server, const linnet_secagg_trust *trust,
                          linnet_reply *reply, linnet_error *err)
{
    linnet_coordinator *c = job->coordinator;
    linnet_error flaw = {0};
    linnet_status status = tell(job, server, trust, false, &flaw);
    job->record = record_of(job);
    if (status == LINNET_ERR_EXISTS)
        return LINNET_OK;
    if (status == LINNET_ERR_NOMEM)
        return linnet_fail(err, status, "%s", flaw.message);
    if (status == LINNET_ERR_CONFLICT) {
        linnet_reply_set(reply, LINNET_ANSWER_CONFLICT, "%s", flaw.message);
        return linnet_store_update(c->store, put_evidence, job, err);
    }
    if (status != LINNET_OK) { /* ARG: too early or too late, LIMIT: the roster is full */
        bool is_gone = status == LINNET_ERR_ARG || status == LINNET_ERR_LIMIT;
        linnet_reply_set(reply, is_gone ? LINNET_ANSWER_GONE : LINNET_ANSWER_REFUSED, "%s", flaw.message);
        return LINNET_OK;
    }
    status = linnet_store_update(c->store, put_message, job, err);
    if (status == LINNET_OK && !job->is_stale)
        status = tell(job, server, trust, true, err);
    if (status != LINNET_OK || job->is_stale)
        linnet_secure_forget(c, job->row.number);
    if (status == LINNET_OK && job->is_stale)
        linnet_reply_set(reply, LINNET_ANSWER_GONE, "the round has moved on");
    return status;
}

/* Complaints come one behind the other. */
static linnet_status take_complaints(round_job *job, linnet_secagg_server *server, linnet_reply *reply,
                                     linnet_error *err)
{
    const uint8_t *raw = job->raw;
    size_t n_raw = job->n_raw;
    uint32_t n_max = linnet_secagg_server_count(server).thresholds.corrupt;
    linnet_status status = LINNET_OK;
    for (size_t at = 0; at < n_raw && status == LINNET_OK && reply->answer.code == LINNET_ANSWER_OK;
         at += LINNET_COMPLAINT_BYTES) {
        job->raw = raw + at;
        job->n_raw = n_raw - at < LINNET_COMPLAINT_BYTES ? n_raw - at : LINNET_COMPLAINT_BYTES;
        job->n_complaints = 0;
        status = take(job, server, NULL, reply, err);
        if (status == LINNET_OK && job->n_complaints > n_max)
            return linnet_secure_give_up(job->coordinator, job->row.number,
                                         linnet_secagg_server_device(server, job->about), job->now_ms, err);
    }
    return status;
}

/* May it speak at all? Sets the reply where not. */
static bool is_heard(const round_job *job, linnet_reply *reply)
{
    unsigned long long round = job->row.number;
    bool is_advert = job->kind == LINNET_ROUND_ADVERT;
    if (job->is_revoked)
        linnet_reply_set(reply, LINNET_ANSWER_REVOKED, "this device is revoked");
    else if (job->is_member)
        return true;
    else if (!is_advert || !job->is_invited || job->row.state != LINNET_ROUND_OPEN)
        linnet_reply_set(reply, LINNET_ANSWER_GONE, "this device is not a member of round %llu", round);
    else if (job->is_paused)
        linnet_reply_set(reply, LINNET_ANSWER_WAIT, "nobody joins while the task is paused");
    else
        return true;
    if (reply->answer.code == LINNET_ANSWER_WAIT)
        reply->answer.retry_after_ms = linnet_pace_ms(job->coordinator, job->device->serial, job->now_ms);
    return false;
}

static linnet_status take_message(round_job *job, linnet_store_txn *txn, linnet_reply *reply,
                                  linnet_error *err)
{
    linnet_secagg_server *server;
    linnet_secagg_trust trust;
    linnet_revocation revocation = {0};
    linnet_buffer list = {0};
    if (job->n_raw < MESSAGE_ID_AT + sizeof(job->id.bytes) || table_of(job->kind) == 0 ||
        memcmp(job->raw + MESSAGE_ID_AT, job->id.bytes, sizeof(job->id.bytes)) != 0) {
        linnet_reply_set(reply, LINNET_ANSWER_REFUSED, "not a message of this device");
        return LINNET_OK;
    }
    linnet_status status = linnet_secure_server(job->coordinator, txn, &job->row, &server, err);
    if (status == LINNET_OK)
        status = linnet_secure_trust(job->coordinator, txn, job->now_ms, &list, &revocation, &trust, err);
    if (status == LINNET_OK && job->kind == LINNET_ROUND_COMPLAINT)
        status = take_complaints(job, server, reply, err);
    else if (status == LINNET_OK)
        status = take(job, server, &trust, reply, err);
    linnet_buffer_release(&list);
    return status;
}

/* ---- what is due ---- */

static void wait(const round_job *job, linnet_reply *reply)
{
    linnet_reply_set(reply, LINNET_ANSWER_WAIT, "round %llu: %s", (unsigned long long)job->row.number,
                     linnet_round_state_name(job->row.state));
    reply->answer.retry_after_ms = linnet_round_pace_ms(job->coordinator, job->device->serial, job->now_ms);
}

static linnet_status attach(const round_job *job, linnet_store_txn *txn, uint8_t phase, linnet_reply *reply,
                            linnet_error *err)
{
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_record_id id = linnet_record_number('q', job->row.number);
    linnet_record_add(&id, &phase, 1);
    linnet_status status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    if (status != LINNET_OK)
        return status;
    linnet_buffer_append(&reply->raw, bytes, n_bytes);
    reply->answer.phase = phase;
    return reply->raw.failed ? linnet_fail(err, LINNET_ERR_NOMEM, "answer") : LINNET_OK;
}

/* The boxes of M4 are read out of the stored M3. */
typedef struct box_reader {
    linnet_store_txn *txn;
    const linnet_secagg_server *server;
    uint64_t round;
} box_reader;

static linnet_status read_box(void *context, uint32_t owner, size_t offset, void *ret_bytes, size_t n_bytes,
                              linnet_error *err)
{
    const box_reader *reader = context;
    const uint8_t *bytes;
    size_t n_there;
    linnet_record_id id =
        linnet_record_round_device('p', reader->round, linnet_secagg_server_device(reader->server, owner));
    linnet_status status = linnet_store_get(reader->txn, &id, &bytes, &n_there, err);
    if (status == LINNET_ERR_NOT_FOUND || (status == LINNET_OK && n_there < offset + n_bytes))
        return linnet_fail(err, LINNET_ERR_FORMAT, "store: the shares of a member are damaged");
    if (status == LINNET_OK)
        memcpy(ret_bytes, bytes + offset, n_bytes);
    return status;
}

static linnet_status attach_sharers(const round_job *job, linnet_store_txn *txn, linnet_reply *reply,
                                    linnet_error *err)
{
    box_reader reader = {.txn = txn, .round = job->row.number};
    linnet_secagg_server *server;
    linnet_status status = linnet_secure_server(job->coordinator, txn, &job->row, &server, err);
    if (status != LINNET_OK)
        return status;
    reader.server = server;
    reply->answer.phase = LINNET_PHASE_SHARERS;
    return linnet_secagg_server_make_sharers(server, &job->id, read_box, &reader, &reply->raw, err);
}

/* A device's place in the roster: the adverts' rows stand in its order. */
typedef struct roster_walk {
    const linnet_device_id *device;
    uint32_t n, index;
    bool found;
} roster_walk;

static linnet_status walk_roster(void *context, const uint8_t *fields, size_t n_fields, const uint8_t *bytes,
                                 size_t n_bytes, linnet_error *err)
{
    roster_walk *walk = context;
    (void)bytes;
    (void)n_bytes;
    (void)err;
    if (n_fields == LINNET_DEVICE_ID_BYTES && memcmp(fields, walk->device->bytes, n_fields) == 0) {
        walk->index = walk->n;
        walk->found = true;
    }
    walk->n++;
    return LINNET_OK;
}

/* Is the device in U2? By the bitmap that was signed. */
static linnet_status is_sharer(const round_job *job, linnet_store_txn *txn, bool *ret_is_sharer,
                               linnet_error *err)
{
    const uint8_t *bytes;
    size_t n_bytes;
    uint8_t number = LINNET_PHASE_SHARERS;
    roster_walk walk = {.device = &job->id};
    linnet_record_id prefix = linnet_record_number('j', job->row.number);
    linnet_record_id id = linnet_record_number('q', job->row.number);
    linnet_record_add(&id, &number, 1);
    linnet_status status = linnet_store_each(txn, &prefix, walk_roster, &walk, err);
    if (status == LINNET_OK)
        status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    *ret_is_sharer = status == LINNET_OK && walk.found &&
                     n_bytes == LINNET_SIGNATURE_BYTES + linnet_bitmap_bytes(walk.n) &&
                     linnet_bitmap_has(bytes + LINNET_SIGNATURE_BYTES, walk.index);
    return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
}

/* What this member has done, and whether a certificate is there. */
typedef struct progress {
    bool is_sharer, has_contributed, has_attested, has_unmasked, has_certificate;
} progress;

static linnet_status progress_read(const round_job *job, linnet_store_txn *txn, progress *p,
                                   linnet_error *err)
{
    const uint8_t *bytes;
    size_t n_bytes;
    uint8_t number = LINNET_PHASE_CERTIFICATE;
    uint64_t round = job->row.number;
    linnet_record_id certificate = linnet_record_number('q', round);
    linnet_record_add(&certificate, &number, 1);
    linnet_status status = is_sharer(job, txn, &p->is_sharer, err);
    if (status == LINNET_OK)
        status = linnet_row_exists(txn, 'b', round, &job->id, &p->has_contributed, err);
    if (status == LINNET_OK)
        status = linnet_row_exists(txn, 'v', round, &job->id, &p->has_attested, err);
    if (status == LINNET_OK)
        status = linnet_row_exists(txn, 'u', round, &job->id, &p->has_unmasked, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_store_get(txn, &certificate, &bytes, &n_bytes, err);
    p->has_certificate = status == LINNET_OK;
    return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
}

/* The phase whose message is due; NONE where the device waits. */
static uint8_t due_phase(const linnet_round_row *row, const progress *p, bool has_shared)
{
    bool is_left_out = p->is_sharer && !p->has_contributed && p->has_certificate;
    switch (row->state) {
    case LINNET_ROUND_ROSTER:
        return has_shared ? LINNET_PHASE_NONE : LINNET_PHASE_ROSTER;
    case LINNET_ROUND_SHARERS:
        return p->is_sharer && !p->has_contributed ? LINNET_PHASE_SHARERS : LINNET_PHASE_NONE;
    case LINNET_ROUND_FROZEN:
        if (is_left_out || (p->has_contributed && p->has_certificate && !p->has_unmasked))
            return LINNET_PHASE_CERTIFICATE;
        return p->has_contributed && !p->has_certificate && !p->has_attested ? LINNET_PHASE_SURVIVORS
                                                                             : LINNET_PHASE_NONE;
    case LINNET_ROUND_OPENED:
    case LINNET_ROUND_CLOSED:
    case LINNET_ROUND_REJECTED:
        return is_left_out ? LINNET_PHASE_CERTIFICATE : LINNET_PHASE_CLOSED;
    case LINNET_ROUND_VOID:
        return LINNET_PHASE_VOID;
    default:
        return LINNET_PHASE_NONE;
    }
}

static linnet_status answer(const round_job *job, linnet_store_txn *txn, linnet_reply *reply,
                            linnet_error *err)
{
    progress p = {0};
    bool has_shared = false;
    linnet_status status = progress_read(job, txn, &p, err);
    if (status == LINNET_OK)
        status = linnet_row_exists(txn, 'p', job->row.number, &job->id, &has_shared, err);
    if (status != LINNET_OK)
        return status;
    uint8_t phase = due_phase(&job->row, &p, has_shared);
    if (phase == LINNET_PHASE_NONE) {
        wait(job, reply);
        return LINNET_OK;
    }
    linnet_reply_set(reply, LINNET_ANSWER_OK, "round %llu: %s", (unsigned long long)job->row.number,
                     linnet_round_state_name(job->row.state));
    reply->answer.phase = phase;
    if (phase == LINNET_PHASE_CLOSED || phase == LINNET_PHASE_VOID)
        return LINNET_OK;
    return phase == LINNET_PHASE_SHARERS ? attach_sharers(job, txn, reply, err)
                                         : attach(job, txn, phase, reply, err);
}

/* ---- the request ---- */

/* Take the message where the round still goes on. ret_is_heard: an answer by the state of the round is
 * due. */
static linnet_status hear(round_job *job, const linnet_hash *announcement, linnet_reply *reply,
                          bool *ret_is_heard, linnet_error *err)
{
    linnet_store_txn *txn = NULL;
    linnet_status status = linnet_store_read_begin(job->coordinator->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = look(txn, job, announcement, err);
    if (status == LINNET_ERR_NOT_FOUND) {
        linnet_reply_set(reply, LINNET_ANSWER_GONE, "no such round");
        status = LINNET_OK;
    } else if (status == LINNET_OK && is_heard(job, reply)) {
        bool goes_on = linnet_round_is_live(&job->row) && job->row.state != LINNET_ROUND_OPENED;
        if (job->kind != LINNET_ROUND_POLL && goes_on)
            status = take_message(job, txn, reply, err);
        *ret_is_heard = reply->answer.code == LINNET_ANSWER_OK;
    }
    linnet_store_read_end(txn);
    return status;
}

static linnet_status respond(round_job *job, const linnet_hash *announcement, linnet_reply *reply,
                             linnet_error *err)
{
    linnet_store_txn *txn = NULL;
    linnet_status status = linnet_secure_advance(job->coordinator, job->row.number, job->now_ms, err);
    if (status == LINNET_OK)
        status = linnet_store_read_begin(job->coordinator->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = look(txn, job, announcement, err);
    if (status == LINNET_OK)
        status = answer(job, txn, reply, err);
    linnet_store_read_end(txn);
    return status;
}

linnet_status linnet_secure_handle(linnet_coordinator *c, int64_t now_ms, const linnet_device_row *device,
                                   const linnet_round_message *message, const uint8_t *raw, size_t n_raw,
                                   linnet_reply *reply, linnet_error *err)
{
    bool is_due = false;
    round_job job = {.coordinator = c,
                     .now_ms = now_ms,
                     .device = device,
                     .id = linnet_device_id_of(&device->public_key),
                     .kind = message->kind,
                     .raw = raw,
                     .n_raw = n_raw};
    if (!linnet_profile_is_secure(c->plan.profile)) {
        linnet_reply_set(reply, LINNET_ANSWER_REFUSED, "this task has no rounds of messages");
        return LINNET_OK;
    }
    (void)pthread_mutex_lock(&c->secure_lock);
    linnet_status status = hear(&job, &message->announcement, reply, &is_due, err);
    if (status == LINNET_OK && is_due)
        status = respond(&job, &message->announcement, reply, err);
    (void)pthread_mutex_unlock(&c->secure_lock);
    return status;
}
