/* SPDX-License-Identifier: Apache-2.0 */
/* The round machine of profiles without masks (SECURE-AGGREGATION 2.4, table of section 7), and what all
 * profiles share: announcing, check-ins, the tick. A release V is
 * published; the next round opens on it with a signed announcement A; devices whose delta was trained from V
 * join and get A; uploads come in (uploads.c); the round freezes when its goal is reached or its deadline
 * passes with enough of them, else it is void; a frozen round is published (publish.c). OPEN -> FROZEN ->
 * CLOSED, or OPEN -> VOID; every arrow is one transaction, every decision is read from the store, so a
 * restart goes on where the last commit left off.
 *
 * The deadline runs from the first join: a round that nobody joined waits for ever and costs nothing. A round
 * that is void is not used again: the next number opens on the same release, and a delta that was sent to the
 * void one stays spent on its device. */
#include "privacy_ledger.h"
#include "state.h"

#include "linnet/rng.h"

#include <stdarg.h>
#include <stdio.h>

#define SEEN_SECONDS 3600  /* how stale a device's last_seen may get before it costs a commit */
#define FLUSH_MS 10000     /* how often traffic counters reach the round's row without another reason */
#define PHASE_VISITS 8     /* of a device in one phase of a round of messages */
#define RETRY_FULL_MS 5000 /* a full disk: look again */

/* ---- replies ---- */

void linnet_reply_set(linnet_reply *reply, linnet_answer_code code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    reply->answer.code = (uint32_t)code;
    (void)vsnprintf(reply->answer.message, sizeof(reply->answer.message), format, arguments);
    va_end(arguments);
}

void linnet_reply_release(linnet_reply *reply)
{
    linnet_buffer_release(&reply->release);
    linnet_buffer_release(&reply->announcement);
    linnet_buffer_release(&reply->revocation);
    linnet_buffer_release(&reply->raw);
}

static uint32_t spread_ms(double mean, uint64_t serial, int64_t now_ms)
{
    linnet_rng rng;
    linnet_rng_init(&rng, serial,
                    (uint64_t)now_ms); /* spreads devices, hides nothing, repeats in simulations */
    double pause = mean * (0.5 + linnet_rng_double(&rng));
    return pause < 1.0 ? 1 : pause > 4e9 ? 4000000000u : (uint32_t)pause;
}

uint32_t linnet_pace_ms(const linnet_coordinator *c, uint64_t serial, int64_t now_ms)
{
    return spread_ms(1000.0 * c->plan.poll_s, serial, now_ms);
}

uint32_t linnet_round_pace_ms(const linnet_coordinator *c, uint64_t serial, int64_t now_ms)
{
    double poll = 1000.0 * c->plan.poll_s, phase = 1000.0 * c->plan.phase_deadline_s / PHASE_VISITS;
    return spread_ms(poll < phase ? poll : phase, serial, now_ms);
}

/* ---- opening ---- */

linnet_status linnet_rounds_newest(linnet_store_txn *txn, linnet_round_row *ret_row, linnet_error *err)
{
    uint64_t number;
    linnet_status status = linnet_config_get_u64(txn, "round", &number, err);
    if (status != LINNET_OK)
        return status;
    return number == 0 ? LINNET_ERR_NOT_FOUND : linnet_round_get(txn, number, ret_row, err);
}

/* The announcement of a round, from the plan and what the store says now. */
static linnet_status announcement_make(linnet_coordinator *c, linnet_store_txn *txn,
                                       const linnet_round_row *row, linnet_buffer *ret_body,
                                       linnet_error *err)
{
    linnet_buffer list = {0}, head = {0};
    linnet_revocation revocation = {0};
    linnet_announcement a;
    linnet_status status = linnet_announcement_of_plan(&c->plan, c->layout, row->version, &a, err);
    if (status != LINNET_OK)
        return status;
    a.coordinator = *linnet_identity_public_key(c->identity);
    a.round = row->number;
    a.release = row->release;
    memcpy(a.task, c->task, sizeof(a.task));
    status = linnet_config_get(txn, "revocation", &list, err);
    if (status == LINNET_OK && list.n_bytes > LINNET_SIGNATURE_BYTES &&
        linnet_revocation_open(list.bytes, list.n_bytes, &c->authority_key, &revocation) == LINNET_OK) {
        a.revocation_number = revocation.number;
        a.revocation =
            linnet_hash_of(LINNET_LABEL_REVOCATION, list.bytes, list.n_bytes - LINNET_SIGNATURE_BYTES);
    }
    if (status == LINNET_OK)
        status = linnet_config_get(txn, "transcript.head", &head, err);
    if (status == LINNET_OK && head.n_bytes == sizeof(a.checkpoint.bytes))
        memcpy(a.checkpoint.bytes, head.bytes, sizeof(a.checkpoint.bytes));
    if (status == LINNET_OK)
        status = linnet_announcement_pack(&a, ret_body, err);
    linnet_buffer_release(&list);
    linnet_buffer_release(&head);
    return status;
}

/* Announce the round: row->chain, the signed body under its number, the number under the chain, the
 * transcript. */
static linnet_status announce(linnet_coordinator *c, linnet_store_txn *txn, linnet_round_row *row,
                              linnet_error *err)
{
    uint8_t number[8];
    linnet_buffer body = {0}, packed = {0};
    linnet_store_le64(number, row->number);
    linnet_status status = announcement_make(c, txn, row, &body, err);
    if (status != LINNET_OK)
        goto done;
    row->chain = linnet_hash_of(LINNET_LABEL_ANNOUNCE, body.bytes, body.n_bytes);
    linnet_signature signature = linnet_sign_hash(c->identity, &row->chain);
    status = linnet_signed_pack(body.bytes, body.n_bytes, &signature, &packed, err);
    if (status != LINNET_OK)
        goto done;
    linnet_record_id by_number = linnet_record_number('n', row->number);
    linnet_record_id by_chain = linnet_record_bytes('a', row->chain.bytes, sizeof(row->chain.bytes));
    status = linnet_store_put(txn, &by_number, packed.bytes, packed.n_bytes, err);
    if (status == LINNET_OK)
        status = linnet_store_put(txn, &by_chain, number, sizeof(number), err);
    if (status == LINNET_OK)
        status = linnet_round_put(txn, row, err);
    if (status == LINNET_OK)
        status = linnet_transcript_append(txn, LINNET_ENTRY_ANNOUNCE, row->number, &row->chain, err);
done:
    linnet_buffer_release(&body);
    linnet_buffer_release(&packed);
    return status;
}

linnet_status linnet_rounds_open_one(linnet_coordinator *c, linnet_store_txn *txn, uint64_t version,
                                     const linnet_hash *release, int64_t now_ms, uint64_t *ret_round,
                                     linnet_error *err)
{
    linnet_round_row row = {
        .state = LINNET_ROUND_OPEN, .version = version, .release = *release, .opened_ms = now_ms};
    linnet_status status = linnet_config_get_u64(txn, "round", &row.number, err);
    row.number++;
    if (status == LINNET_OK)
        status = announce(c, txn, &row, err);
    if (status == LINNET_OK)
        status = linnet_config_put_u64(txn, "round", row.number, err);
    if (status == LINNET_OK)
        *ret_round = row.number;
    return status;
}

linnet_status linnet_rounds_open(linnet_coordinator *c, linnet_store_txn *txn, uint64_t version,
                                 const linnet_hash *release, int64_t now_ms, linnet_error *err)
{
    uint64_t round;
    if (linnet_profile_is_secure(c->plan.profile))
        return linnet_step_open(c, txn, version, release, now_ms, err);
    return linnet_rounds_open_one(c, txn, version, release, now_ms, &round, err);
}

linnet_status linnet_rounds_announce_again(linnet_coordinator *c, linnet_store_txn *txn, linnet_error *err)
{
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_buffer before = {0};
    linnet_round_row row;
    if (linnet_profile_is_secure(c->plan.profile)) /* adverts are bound to one announcement */
        return linnet_step_open_again(c, txn, err);
    linnet_status status = linnet_rounds_newest(txn, &row, err);
    if (status != LINNET_OK || row.state != LINNET_ROUND_OPEN)
        return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
    linnet_record_id by_number = linnet_record_number('n', row.number);
    linnet_record_id kept = linnet_record_bytes('s', row.chain.bytes, sizeof(row.chain.bytes));
    status = linnet_store_get(txn, &by_number, &bytes, &n_bytes, err);
    if (status == LINNET_OK)
        linnet_buffer_append(&before, bytes, n_bytes); /* a put may move what a get has borrowed */
    if (status == LINNET_OK)
        status = linnet_row_put(txn, &kept, &before, err);
    if (status == LINNET_OK)
        status = announce(c, txn, &row, err);
    linnet_buffer_release(&before);
    return status;
}

/* ---- checking in ---- */

/* What a check-in finds, and, where it has to write, leaves. */
typedef struct checkin_job {
    linnet_coordinator *coordinator;
    int64_t now_ms;
    linnet_device_id device;
    const linnet_checkin *checkin;
    /* out */
    bool must_write; /* set by a look without writing */
    bool may_write;
    bool is_revoked, has_round, is_joined, has_contributed;
    bool is_invited; /* with secure aggregation: the round's announcement is for it */
    uint64_t coins;  /* for the choice of a cohort */
    linnet_round_row round;
} checkin_job;

static linnet_status mark(linnet_store_txn *txn, char table, uint64_t round, const linnet_device_id *device,
                          int64_t now_ms, linnet_error *err)
{
    uint8_t bytes[8];
    linnet_store_le64(bytes, (uint64_t)now_ms);
    linnet_record_id id = linnet_record_round_device(table, round, device);
    return linnet_store_put(txn, &id, bytes, sizeof(bytes), err);
}

static bool takes_joins(const linnet_coordinator *c, const linnet_round_row *round, uint64_t paused,
                        int64_t now_ms)
{
    return !paused && round->joined < linnet_plan_join_max(&c->plan) &&
           (round->deadline_ms == 0 || now_ms <= round->deadline_ms);
}

/* The part of a check-in that concerns the open round. */
static linnet_status visit_round(linnet_store_txn *txn, checkin_job *job, linnet_error *err)
{
    linnet_round_row *round = &job->round;
    bool is_invited = false;
    uint64_t paused = 0;
    linnet_status status = linnet_row_exists(txn, 'i', round->number, &job->device, &is_invited, err);
    if (status == LINNET_OK)
        status = linnet_row_exists(txn, 'j', round->number, &job->device, &job->is_joined, err);
    if (status == LINNET_OK)
        status = linnet_row_exists(txn, 'b', round->number, &job->device, &job->has_contributed, err);
    if (status == LINNET_OK)
        status = linnet_config_get_u64(txn, "paused", &paused, err);
    if (status != LINNET_OK)
        return status;
    bool is_ready = job->checkin->has_ready && linnet_hash_equal(&job->checkin->ready, &round->release);
    bool joins = is_ready && !job->is_joined && takes_joins(job->coordinator, round, paused, job->now_ms);
    job->must_write = job->must_write || !is_invited || joins;
    if (!job->may_write || (is_invited && !joins))
        return LINNET_OK;
    if (!is_invited) {
        round->invited++;
        status = mark(txn, 'i', round->number, &job->device, job->now_ms, err);
    }
    if (status == LINNET_OK && joins) {
        if (round->joined++ == 0)
            round->deadline_ms = job->now_ms + (int64_t)job->coordinator->plan.deadline_s * 1000;
        job->is_joined = true;
        status = mark(txn, 'j', round->number, &job->device, job->now_ms, err);
    }
    return status == LINNET_OK ? linnet_round_put(txn, round, err) : status;
}

/* With secure aggregation a check-in only invites; who sends its advert has joined. */
static linnet_status visit_step(linnet_store_txn *txn, checkin_job *job, linnet_error *err)
{
    linnet_invitation invitation = {0};
    uint64_t version = 0;
    linnet_release_row release;
    linnet_status status = linnet_config_get_u64(txn, "version", &version, err);
    if (status == LINNET_OK)
        status = linnet_release_get(txn, version, &release, err);
    if (status != LINNET_OK || !job->checkin->has_ready ||
        !linnet_hash_equal(&job->checkin->ready, &release.hash))
        return status;
    status = linnet_step_invite(job->coordinator, txn, &job->device, job->coins, job->now_ms, job->may_write,
                                &invitation, err);
    job->is_invited = status == LINNET_OK && invitation.round.number != 0;
    job->must_write = job->must_write || invitation.must_write;
    job->round = invitation.round;
    return status;
}

static linnet_status visit(linnet_store_txn *txn, void *context, linnet_error *err)
{
    checkin_job *job = context;
    linnet_device_row device;
    linnet_status status = linnet_device_get(txn, &job->device, &device, err);
    if (status != LINNET_OK)
        return status;
    job->is_revoked = device.is_revoked;
    uint64_t now_s = (uint64_t)(job->now_ms / 1000);
    bool is_stale = now_s > device.last_seen_s + SEEN_SECONDS;
    job->must_write = is_stale;
    bool is_secure = linnet_profile_is_secure(job->coordinator->plan.profile);
    status = is_secure ? LINNET_ERR_NOT_FOUND : linnet_rounds_newest(txn, &job->round, err);
    job->has_round = status == LINNET_OK && job->round.state == LINNET_ROUND_OPEN;
    if (status != LINNET_OK && status != LINNET_ERR_NOT_FOUND)
        return status;
    status = LINNET_OK;
    if (is_secure && !job->is_revoked)
        status = visit_step(txn, job, err);
    else if (job->has_round && !job->is_revoked)
        status = visit_round(txn, job, err);
    if (status == LINNET_OK && job->may_write && (is_stale || device.last_seen_s < now_s)) {
        device.last_seen_s = now_s;
        status = linnet_device_put(txn, &device, err);
    }
    return status;
}

/* Look first, write only where something changes: most check-ins find nothing new and cost no commit. */
static linnet_status checkin_run(checkin_job *job, linnet_error *err)
{
    linnet_store_txn *txn = NULL;
    linnet_status status = linnet_store_read_begin(job->coordinator->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = visit(txn, job, err);
    linnet_store_read_end(txn);
    if (status != LINNET_OK || !job->must_write)
        return status;
    job->may_write = true;
    return linnet_store_update(job->coordinator->store, visit, job, err);
}

static void copy(linnet_buffer *to, const uint8_t *bytes, size_t n_bytes, const uint8_t **ret_bytes,
                 size_t *ret_n_bytes)
{
    linnet_buffer_append(to, bytes, n_bytes);
    *ret_bytes = to->bytes;
    *ret_n_bytes = to->n_bytes;
}

linnet_status linnet_rounds_leave(linnet_coordinator *c, linnet_store_txn *txn,
                                  const linnet_device_id *device, linnet_error *err)
{
    if (linnet_profile_is_secure(c->plan.profile)) /* a roster never changes; a missing member drops out */
        return LINNET_OK;
    linnet_round_row round;
    bool is_joined = false, has_contributed = false;
    linnet_status status = linnet_rounds_newest(txn, &round, err);
    if (status != LINNET_OK || round.state != LINNET_ROUND_OPEN)
        return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
    status = linnet_row_exists(txn, 'j', round.number, device, &is_joined, err);
    if (status == LINNET_OK)
        status = linnet_row_exists(txn, 'b', round.number, device, &has_contributed, err);
    if (status != LINNET_OK || !is_joined || has_contributed)
        return status;
    linnet_record_id id = linnet_record_round_device('j', round.number, device);
    status = linnet_store_delete(txn, &id, err);
    round.joined--;
    return status == LINNET_OK ? linnet_round_put(txn, &round, err) : status;
}

/* What every answer to a check-in may carry: a newer release, a newer revocation list, the newest channel
 * key. */
static linnet_status attach_news(linnet_coordinator *c, linnet_store_txn *txn, const linnet_checkin *checkin,
                                 linnet_reply *reply, linnet_error *err)
{
    uint64_t version;
    linnet_release_row release;
    linnet_revocation revocation = {0};
    linnet_buffer list = {0};
    linnet_status status = linnet_config_get_u64(txn, "version", &version, err);
    if (status == LINNET_OK)
        status = linnet_release_get(txn, version, &release, err);
    if (status != LINNET_OK)
        return status;
    if (!checkin->has_version || checkin->version < version ||
        (checkin->has_ready && !linnet_hash_equal(&checkin->ready, &release.hash)))
        copy(&reply->release, release.bytes, release.n_bytes, &reply->answer.release,
             &reply->answer.n_release);
    status = linnet_config_get(txn, "revocation", &list, err);
    if (status == LINNET_OK && list.n_bytes > 0 &&
        linnet_revocation_open(list.bytes, list.n_bytes, &c->authority_key, &revocation) == LINNET_OK &&
        revocation.number > checkin->revocation_number)
        copy(&reply->revocation, list.bytes, list.n_bytes, &reply->answer.revocation,
             &reply->answer.n_revocation);
    linnet_buffer_release(&list);
    if (linnet_channel_keys_newest(c, reply->channel_key)) {
        reply->answer.channel_key = reply->channel_key;
        reply->answer.n_channel_key = sizeof(reply->channel_key);
    }
    if (reply->release.failed || reply->revocation.failed)
        return linnet_fail(err, LINNET_ERR_NOMEM, "answer");
    return status;
}

static linnet_status attach_announcement(linnet_store_txn *txn, uint64_t round, linnet_reply *reply,
                                         linnet_error *err)
{
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_record_id id = linnet_record_number('n', round);
    linnet_status status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    if (status != LINNET_OK)
        return status;
    copy(&reply->announcement, bytes, n_bytes, &reply->answer.announcement, &reply->answer.n_announcement);
    return reply->announcement.failed ? linnet_fail(err, LINNET_ERR_NOMEM, "answer") : LINNET_OK;
}

/* Which cohort a device comes to is the coordinator's chance; simulations repeat it. */
static uint64_t coins_of(const linnet_coordinator *c, const linnet_device_id *device)
{
    linnet_rng rng;
    uint64_t coins;
    linnet_rng_init(&rng, c->seed, linnet_load_le64(device->bytes));
    if (c->has_seed)
        return linnet_rng_next(&rng);
    linnet_random_bytes(&coins, sizeof(coins));
    return coins;
}

linnet_status linnet_rounds_checkin(linnet_coordinator *c, int64_t now_ms, const linnet_device_row *device,
                                    const linnet_checkin *checkin, linnet_reply *reply, linnet_error *err)
{
    linnet_store_txn *txn = NULL;
    checkin_job job = {.coordinator = c,
                       .now_ms = now_ms,
                       .device = linnet_device_id_of(&device->public_key),
                       .checkin = checkin};
    job.coins = coins_of(c, &job.device);
    linnet_status status = checkin_run(&job, err);
    if (status == LINNET_OK)
        status = linnet_store_read_begin(c->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = attach_news(c, txn, checkin, reply, err);
    bool joins = job.has_round && job.is_joined && !job.has_contributed && checkin->has_ready &&
                 linnet_hash_equal(&checkin->ready, &job.round.release);
    if (job.is_revoked) {
        linnet_reply_set(reply, LINNET_ANSWER_REVOKED, "this device is revoked");
    } else if ((joins || job.is_invited) && status == LINNET_OK) {
        linnet_reply_set(reply, LINNET_ANSWER_OK, "%s round %llu", joins ? "joined" : "invited to",
                         (unsigned long long)job.round.number);
        status = attach_announcement(txn, job.round.number, reply, err);
    } else if (reply->answer.n_release > 0) {
        linnet_reply_set(reply, LINNET_ANSWER_OK, "a newer release");
    } else {
        linnet_reply_set(reply, LINNET_ANSWER_WAIT, "nothing to do yet");
        reply->answer.retry_after_ms = linnet_pace_ms(c, device->serial, now_ms);
    }
    linnet_store_read_end(txn);
    return status;
}

/* ---- ending ---- */

typedef struct end_job {
    linnet_coordinator *coordinator;
    int64_t now_ms;
    linnet_traffic traffic; /* to add */
    linnet_round_row round; /* out: as it is now */
    bool is_voided;
} end_job;

/* The round ends unpublished: its row, what must not stay of it, what it spent, the transcript. */
linnet_status linnet_rounds_void_one(linnet_coordinator *c, linnet_store_txn *txn, linnet_round_row *row,
                                     int64_t now_ms, linnet_error *err)
{
    row->state = LINNET_ROUND_VOID;
    row->closed_ms = now_ms;
    linnet_status status = linnet_round_put(txn, row, err);
    if (status == LINNET_OK)
        status = linnet_shares_clear(txn, row->number, err);
    if (status == LINNET_OK)
        status = linnet_privacy_ledger_add(c, txn, row, err);
    return status == LINNET_OK
               ? linnet_transcript_append(txn, LINNET_ENTRY_VOID, row->number, &row->chain, err)
               : status;
}

linnet_status linnet_rounds_void(linnet_coordinator *c, linnet_store_txn *txn, linnet_round_row *row,
                                 int64_t now_ms, linnet_error *err)
{
    linnet_status status = linnet_rounds_void_one(c, txn, row, now_ms, err);
    if (status == LINNET_OK && linnet_profile_is_secure(c->plan.profile))
        return linnet_step_settle(c, txn, now_ms, err);
    return status == LINNET_OK ? linnet_rounds_open(c, txn, row->version, &row->release, now_ms, err)
                               : status;
}

linnet_status linnet_rounds_end_all(linnet_coordinator *c, linnet_store_txn *txn, int64_t now_ms,
                                    linnet_error *err)
{
    uint64_t number = 0, version = 0;
    linnet_round_row row;
    linnet_status status = linnet_config_get_u64(txn, "round", &number, err);
    if (status == LINNET_OK)
        status = linnet_config_get_u64(txn, "version", &version, err);
    for (; number > 0 && status == LINNET_OK; number--) {
        status = linnet_round_get(txn, number, &row, err);
        if (status != LINNET_OK || row.version != version)
            break;
        if (linnet_round_is_live(&row))
            status = linnet_rounds_void_one(c, txn, &row, now_ms, err);
    }
    return status;
}

static bool is_over(const linnet_round_row *row, const linnet_plan *plan, int64_t now_ms)
{
    return !linnet_profile_is_secure(plan->profile) && row->state == LINNET_ROUND_OPEN &&
           (row->accepted >= plan->goal || (row->deadline_ms != 0 && now_ms > row->deadline_ms));
}

/* OPEN -> FROZEN or VOID where that is due; from the freeze on no contribution is taken. */
static linnet_status end_round(linnet_store_txn *txn, void *context, linnet_error *err)
{
    end_job *job = context;
    const linnet_plan *plan = &job->coordinator->plan;
    job->is_voided = false;
    linnet_status status = linnet_rounds_newest(txn, &job->round, err);
    if (status != LINNET_OK)
        return status;
    job->round.bytes_up += job->traffic.up;
    job->round.bytes_down += job->traffic.down;
    if (!is_over(&job->round, plan, job->now_ms))
        return linnet_round_put(txn, &job->round, err);
    if (job->round.accepted < plan->minimum) {
        job->is_voided = true;
        return linnet_rounds_void(job->coordinator, txn, &job->round, job->now_ms, err);
    }
    job->round.state = LINNET_ROUND_FROZEN;
    return linnet_round_put(txn, &job->round, err);
}

/* Run end_round and take the traffic it stored off the counters. */
static linnet_status end_run(linnet_coordinator *c, end_job *job, linnet_error *err)
{
    job->traffic = linnet_traffic_peek(c);
    linnet_status status = linnet_store_update(c->store, end_round, job, err);
    if (status != LINNET_OK)
        return status;
    linnet_traffic_settle(c, &job->traffic);
    (void)pthread_mutex_lock(&c->lock);
    c->flushed_ms = job->now_ms;
    (void)pthread_mutex_unlock(&c->lock);
    linnet_store_tidy(c->store);
    if (job->is_voided) {
        linnet_coordinator_say(c, 4, "round %llu void: %u of at least %u contributions at its deadline",
                               (unsigned long long)job->round.number, job->round.accepted, c->plan.minimum);
        linnet_spool_drop_round(c, job->round.number);
    }
    return LINNET_OK;
}

static linnet_status newest_round(linnet_coordinator *c, linnet_round_row *ret_row, linnet_error *err)
{
    linnet_store_txn *txn = NULL;
    linnet_status status = linnet_store_read_begin(c->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_rounds_newest(txn, ret_row, err);
    linnet_store_read_end(txn);
    return status;
}

static bool flush_is_due(linnet_coordinator *c, int64_t now_ms)
{
    (void)pthread_mutex_lock(&c->lock);
    bool is_due = (c->traffic.up > 0 || c->traffic.down > 0) &&
                  (now_ms >= c->flushed_ms + FLUSH_MS || now_ms < c->flushed_ms);
    (void)pthread_mutex_unlock(&c->lock);
    return is_due;
}

/* One look at the newest round, and what is due on it. */
static linnet_status rounds_advance(linnet_coordinator *c, int64_t now_ms, int64_t *next_ms,
                                    linnet_error *err)
{
    end_job job = {.coordinator = c, .now_ms = now_ms};
    linnet_round_row round;
    linnet_status status = newest_round(c, &round, err);
    if (status != LINNET_OK)
        return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
    if (is_over(&round, &c->plan, now_ms) || flush_is_due(c, now_ms)) {
        status = end_run(c, &job, err);
        round = job.round;
    }
    if (linnet_profile_is_secure(c->plan.profile))
        return status == LINNET_OK ? linnet_secure_tick(c, now_ms, next_ms, err) : status;
    if (status == LINNET_OK && round.state == LINNET_ROUND_FROZEN)
        status = linnet_publish_round(c, &round, now_ms, err);
    if (status == LINNET_OK && round.state == LINNET_ROUND_OPEN && round.deadline_ms != 0 &&
        round.deadline_ms < *next_ms)
        *next_ms = round.deadline_ms + 1;
    return status;
}

linnet_status linnet_coordinator_tick(linnet_coordinator *c, int64_t now_ms, int64_t *ret_next_ms,
                                      linnet_error *err)
{
    uint64_t next_s = 0;
    (void)pthread_mutex_lock(&c->lock);
    linnet_error failure = c->failure;
    (void)pthread_mutex_unlock(&c->lock);
    if (failure.status != LINNET_OK)
        return linnet_fail(err, failure.status, "%s", failure.message);
    linnet_status status = linnet_channel_keys_rotate(c, (uint64_t)(now_ms / 1000), &next_s, err);
    int64_t next_ms = (int64_t)next_s * 1000;
    if (status == LINNET_OK)
        status = rounds_advance(c, now_ms, &next_ms, err);
    if (status == LINNET_OK)
        status = linnet_witness_keep(c, err);
    if (status == LINNET_ERR_NO_SPACE || status == LINNET_ERR_NOMEM || status == LINNET_ERR_BUSY) {
        linnet_coordinator_say(c, 4, "%s; trying again in %d s",
                               err ? err->message : linnet_status_text(status), RETRY_FULL_MS / 1000);
        next_ms = now_ms + RETRY_FULL_MS;
        status = LINNET_OK;
    }
    if (status != LINNET_OK)
        return linnet_coordinator_note(c, status, err);
    *ret_next_ms = next_ms;
    return LINNET_OK;
}
