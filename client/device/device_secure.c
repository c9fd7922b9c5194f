/* SPDX-License-Identifier: Apache-2.0 */

/* A round whose sum is masked (SECURE-AGGREGATION 2.4 and 7): the machine of secagg.h between the coordinator
 * and the store. Every phase is one commit before its message leaves, so a device that is killed anywhere
 * goes on with the same bytes, and one whose record or key is gone is a drop-out. What is encoded is fixed
 * before M1, spent with the commit of M5, and fresh again only where a certificate leaves this device out.
 * The clock only ends rounds. What a device says never depends on its data: it leaves a round for reasons of
 * the protocol alone. */

#include "device_internal.h"

#include <stdlib.h>

#define PATIENCE_PHASES 4 /* a coordinator that starts again gives each phase anew */
#define STALL_PARTS 4     /* of a phase, after which an exchange without progress is tried anew */
#define PACE_PARTS 8      /* polls of a phase, where the coordinator names no pace */

/* How a round ends for this device. */
typedef enum round_end {
    END_VOID,     /* before M5 the delta is fresh as before, after it spent */
    END_DONE,     /* the contribution counts, as far as this device can know */
    END_EXCLUDED, /* certified to be in no sum: fresh again */
} round_end;

bool device_is_in_round(const linnet_device *device)
{
    return device->round.machine != NULL || device->round.must_drop || device->record.has_round;
}

/* What is in memory; a farewell outlives its round. */
static void forget_round(linnet_device *device)
{
    secure_round *round = &device->round;
    linnet_secagg_device_destroy(round->machine);
    linnet_buffer_release(&round->announced);
    device_wipe(&round->vector);
    device_seen_forget(round);
    const secure_round kept = {.has_farewell = round->has_farewell, .farewell = round->farewell};
    *round = kept;
}

void device_secure_release(linnet_device *device)
{
    forget_round(device);
}

/* Between two polls of a phase: some of them fit into it, and none is later than the plan's pace. */
static uint64_t pace_ms(const linnet_device *device)
{
    uint64_t pace = (uint64_t)device->round.announcement.phase_s * 1000 / PACE_PARTS;
    uint64_t poll = device->has_plan ? (uint64_t)device->plan.poll_s * 1000 : pace;
    return poll < pace ? poll : pace;
}

uint64_t device_secure_delay(const linnet_device *device, uint64_t retry_after_ms)
{
    uint64_t pace = pace_ms(device);
    bool is_in_round = device->round.machine || device->record.has_round;
    return is_in_round && pace > 0 && pace < retry_after_ms ? pace : retry_after_ms;
}

uint32_t device_secure_stall_s(const linnet_device *device)
{
    uint32_t phase_s = device_is_in_round(device) ? device->round.announcement.phase_s : 0;
    return phase_s > 0 && phase_s < STALL_PARTS ? 1 : phase_s / STALL_PARTS;
}

static void begin_phase(linnet_device *device)
{
    device->round.is_sent = false;
    device->round.phase_began_ms = device->now_ms;
}

/* ---- the round's record ---- */

static linnet_status pack_round(const linnet_device *device, linnet_buffer *ret_bytes, linnet_error *err)
{
    const secure_round *round = &device->round;
    uint64_t bits;
    memcpy(&bits, &round->noise_multiplier, sizeof(bits));
    linnet_buffer_append_le32(ret_bytes, round->weight);
    linnet_buffer_append_le64(ret_bytes, bits);
    linnet_buffer_append_le32(ret_bytes, (uint32_t)round->announced.n_bytes);
    linnet_buffer_append(ret_bytes, round->announced.bytes, round->announced.n_bytes);
    if (ret_bytes->failed)
        return linnet_fail(err, LINNET_ERR_NOMEM, "round record");
    return linnet_secagg_device_save(round->machine, ret_bytes, err);
}

/* Sealed for the next commit. */
static linnet_status seal_round(const linnet_device *device, linnet_buffer *ret_sealed, linnet_error *err)
{
    linnet_buffer plain = {0};
    linnet_status status = pack_round(device, &plain, err);
    if (status == LINNET_OK)
        status = device_seal(device, KV_ROUND, &plain, ret_sealed, err);
    device_wipe(&plain);
    return status;
}

static linnet_status open_round(linnet_device *device, const linnet_buffer *plain, linnet_error *err)
{
    secure_round *round = &device->round;
    linnet_secagg_params params;
    linnet_reader reader = linnet_reader_of(plain->bytes, plain->n_bytes);
    round->weight = linnet_reader_le32(&reader);
    uint64_t bits = linnet_reader_le64(&reader);
    memcpy(&round->noise_multiplier, &bits, sizeof(bits));
    size_t n = linnet_reader_le32(&reader);
    const uint8_t *announced = linnet_reader_take(&reader, n);
    if (reader.failed)
        return linnet_fail(err, LINNET_ERR_FORMAT, "round record: damaged");
    linnet_buffer_append(&round->announced, announced, n);
    if (round->announced.failed)
        return linnet_fail(err, LINNET_ERR_NOMEM, "round record");
    linnet_status status =
        device_open_announcement(device, announced, n, &round->announcement, &round->chain, err);
    if (status == LINNET_OK)
        status = linnet_secagg_params_of(&round->announcement, &round->chain, &params, err);
    if (status == LINNET_OK)
        status = linnet_secagg_device_load(&params, device->identity, reader.bytes + reader.at,
                                           reader.n_bytes - reader.at, &round->machine, err);
    return status;
}

/* ---- the end ---- */

/* The entry of what will never be opened, as a certificate proves, is taken back; a receipt keeps it. */
static linnet_status take_back(linnet_device *device, device_record *next, char name[40], char seen[40],
                               linnet_kv_item *items, size_t *n_items, linnet_error *err)
{
    linnet_ledger_entry entry;
    if (next->n_ledger == 0)
        return LINNET_OK;
    linnet_status status = linnet_device_ledger(device->config.kv, next->n_ledger - 1, &entry, err);
    if (status != LINNET_OK || entry.is_accepted)
        return status;
    next->n_ledger--;
    device_ledger_name(next->n_ledger, name);
    device_seen_name(next->n_ledger, seen);
    items[(*n_items)++] = (linnet_kv_item){name, NULL, 0};
    items[(*n_items)++] = (linnet_kv_item){seen, NULL, 0};
    return LINNET_OK;
}

/* After the commit: where this fails, too much is counted, which is safe. */
static void unspend(linnet_device *device)
{
    const secure_round *round = &device->round;
    const linnet_privacy_entry entry =
        device_privacy_entry(device, &round->announcement, &round->chain, round->noise_multiplier);
    if (entry.mechanism != LINNET_DP_NONE && device->config.ledger &&
        linnet_budget_ledger_take_back(device->config.ledger, &entry, NULL) != LINNET_OK)
        device_note(device, "the ledger of privacy could not be written and counts one round too many");
}

/* One commit takes the round and all that only it needed; where no sealed value is left, the key goes too. */
static linnet_status end_round(linnet_device *device, round_end end, linnet_error *err)
{
    device_record next = device->record;
    char name[40], seen[40];
    linnet_kv_item items[6] = {{KV_ROUND, NULL, 0}, {KV_VECTOR, NULL, 0}, {KV_SEEN_ROSTER, NULL, 0}};
    size_t n_items = 3;
    linnet_status status = LINNET_OK;
    bool is_spent = next.delta == DELTA_SPENT;
    uint64_t n_ledger = next.n_ledger;
    if (is_spent) {
        items[n_items++] = (linnet_kv_item){KV_UPLOAD, NULL, 0};
        next.delta = end == END_EXCLUDED ? DELTA_READY : DELTA_NONE;
        next.is_contributed = next.is_contributed && end == END_DONE;
        if (end == END_EXCLUDED)
            status = take_back(device, &next, name, seen, items, &n_items, err);
        else
            items[n_items++] = (linnet_kv_item){KV_DELTA, NULL, 0};
    }
    next.has_round = false;
    next.is_uploaded = false;
    next.round_phase = 0;
    device->round.must_drop = true; /* whatever happens, nothing more is said in this round */
    if (status == LINNET_OK)
        status = device_commit(device, &next, items, n_items, err);
    if (status != LINNET_OK)
        return status;
    if (next.n_ledger < n_ledger)
        unspend(device);
    forget_round(device);
    device_release_upload(device);
    if (next.delta == DELTA_NONE)
        linnet_round_vault_renew(device->vault);
    device->must_check_in = true;
    return LINNET_OK;
}

static void prepare_farewell(linnet_device *device, linnet_abort_reason reason)
{
    secure_round *round = &device->round;
    round->has_farewell = true;
    round->farewell.chain = round->chain;
    linnet_secagg_device_abort(round->machine, reason, round->farewell.message);
}

/* A check of the protocol failed, or time ran out: the reason is all that is said, once. */
static linnet_status abort_round(linnet_device *device, linnet_abort_reason reason, linnet_error *err)
{
    prepare_farewell(device, reason);
    device_wait(device, pace_ms(device));
    return end_round(device, END_VOID, err);
}

/* Nothing was committed: this round is left and the device goes on. Where nobody knows what is on the disk
 * the process must end, and start from what it can read; status has its text already. */
static linnet_status give_up_commit(linnet_device *device, linnet_status status)
{
    linnet_error why = {0};
    device->round.must_drop = true;
    if (device->is_state_unknown)
        return status;
    device_note(device, "a step of the round could not be kept (%s), so the round is left",
                linnet_status_text(status));
    device_back_off(device, 0);
    return end_round(device, END_VOID, &why) == LINNET_OK ? LINNET_OK : status;
}

linnet_status device_secure_lose(linnet_device *device, linnet_error *err)
{
    device_wait(device, pace_ms(device));
    return end_round(device, END_VOID, err);
}

/* ---- at the start ---- */

linnet_status device_secure_load(linnet_device *device, linnet_error *err)
{
    linnet_buffer plain = {0};
    linnet_error why = {0};
    if (!device->record.has_round)
        return LINNET_OK;
    linnet_status status = device_unseal(device, KV_ROUND, &plain, &why);
    if (status == LINNET_OK)
        status = open_round(device, &plain, &why);
    device_wipe(&plain);
    if (status == LINNET_ERR_NOMEM || status == LINNET_ERR_IO)
        return linnet_fail(err, status, "%s", why.message);
    if (status != LINNET_OK) { /* the round is lost, never started again */
        device_note(device, "the round was lost on this device: %.140s", why.message);
        return end_round(device, END_VOID, err);
    }
    begin_phase(device);
    return LINNET_OK;
}

/* ---- M1 ---- */

linnet_status device_secure_join(linnet_device *device, const linnet_announcement *announcement,
                                 const linnet_hash *chain, const uint8_t *bytes, size_t n_bytes,
                                 double noise_multiplier, uint32_t weight, linnet_buffer *vector,
                                 linnet_error *err)
{
    secure_round *round = &device->round;
    linnet_secagg_params params;
    device_record next = device->record;
    const linnet_kv_item last = {KV_SEEN_LAST, bytes, n_bytes};
    next.last_round = announcement->round;
    linnet_status status = linnet_secagg_params_of(announcement, chain, &params, err);
    if (status == LINNET_OK)
        status = device_commit(device, &next, &last, 1, err);
    if (status == LINNET_OK)
        status = linnet_secagg_device_create(&params, device->identity, device->identity_record.certificate,
                                             &round->machine, err);
    if (status != LINNET_OK)
        return status;
    linnet_buffer_append(&round->announced, bytes, n_bytes);
    if (round->announced.failed) {
        forget_round(device);
        return linnet_fail(err, LINNET_ERR_NOMEM, "announcement");
    }
    round->announcement = *announcement;
    round->chain = *chain;
    round->weight = weight;
    round->noise_multiplier = noise_multiplier;
    round->vector = *vector; /* moves */
    *vector = (linnet_buffer){0};
    begin_phase(device);
    device_wait(device, pace_ms(device)); /* not at the instant at which encoding ends */
    return LINNET_OK;
}

/* ---- M3 ---- */

/* The secrets, M3 and X, before M3 leaves. */
static linnet_status commit_shares(linnet_device *device, linnet_error *err)
{
    linnet_buffer record = {0}, vector = {0};
    const linnet_buffer *roster = &device->round.seen[0];
    device_record next = device->record;
    linnet_status status = seal_round(device, &record, err);
    if (status == LINNET_OK)
        status = device_seal(device, KV_VECTOR, &device->round.vector, &vector, err);
    if (status == LINNET_OK) {
        next.has_round = true;
        next.round_phase = LINNET_SECAGG_SHARED;
        const linnet_kv_item items[] = {{KV_ROUND, record.bytes, record.n_bytes},
                                        {KV_VECTOR, vector.bytes, vector.n_bytes},
                                        {KV_SEEN_ROSTER, roster->bytes, roster->n_bytes}};
        status = device_commit(device, &next, items, ARRAY_LEN(items), err);
    }
    linnet_buffer_release(&record);
    linnet_buffer_release(&vector);
    return status;
}

/* ---- M5 ---- */

/* X and all masks, in place. */
static linnet_status put_masks_on(const linnet_device *device, linnet_buffer *vector, linnet_error *err)
{
    const linnet_announcement *a = &device->round.announcement;
    uint8_t *at = vector->bytes;
    size_t n_left = vector->n_bytes;
    for (uint32_t i = 0; i < a->n_vectors; i++) {
        const linnet_ring_spec *spec = &a->vectors[i];
        size_t n_bytes = linnet_ring_bytes(spec), n_done = 0;
        if (n_left < n_bytes)
            return linnet_fail(err, LINNET_ERR_FORMAT, "the encoded vectors are too short");
        for (uint64_t first = 0; first < spec->length; first += LINNET_PACK_CHUNK) {
            size_t n =
                spec->length - first < LINNET_PACK_CHUNK ? (size_t)(spec->length - first) : LINNET_PACK_CHUNK;
            linnet_status status =
                linnet_secagg_device_mask(device->round.machine, i, first, n, at + n_done, err);
            if (status != LINNET_OK)
                return status;
            n_done += linnet_pack_bytes(spec->bits, n);
        }
        at += n_bytes;
        n_left -= n_bytes;
    }
    return n_left == 0 ? LINNET_OK : linnet_fail(err, LINNET_ERR_FORMAT, "the encoded vectors are too long");
}

/* The masked vectors and their signed header, fixed in the machine. X is used up. */
static linnet_status make_upload(linnet_device *device, linnet_buffer *masked, linnet_hash *ret_echo,
                                 linnet_buffer *ret_header, linnet_error *err)
{
    secure_round *round = &device->round;
    linnet_signed header;
    linnet_status status = LINNET_OK;
    *masked = round->vector;
    round->vector = (linnet_buffer){0};
    if (masked->n_bytes == 0)
        status = device_unseal(device, KV_VECTOR, masked, err);
    if (status == LINNET_OK)
        status = put_masks_on(device, masked, err);
    if (status == LINNET_OK)
        status = device_sign_header(device, linnet_secagg_device_t2(round->machine), &round->announcement,
                                    masked, ret_echo, ret_header, err);
    if (status == LINNET_OK)
        status = linnet_signed_open(ret_header->bytes, ret_header->n_bytes, &header, err);
    if (status == LINNET_OK)
        status = linnet_secagg_device_fix_echo(round->machine, ret_echo, &header.signature, err);
    return status;
}

static linnet_status pack_upload(const linnet_buffer *header, const linnet_buffer *masked,
                                 linnet_buffer *ret_upload, linnet_error *err)
{
    linnet_buffer_append_le32(ret_upload, (uint32_t)header->n_bytes);
    linnet_buffer_append(ret_upload, header->bytes, header->n_bytes);
    linnet_buffer_append(ret_upload, masked->bytes, masked->n_bytes);
    return ret_upload->failed ? linnet_fail(err, LINNET_ERR_NOMEM, "upload of %zu bytes", masked->n_bytes)
                              : LINNET_OK;
}

/* {T2, Hy}, the delta spent, the ledger: one commit before the first byte leaves. */
static linnet_status put_upload(linnet_device *device, const linnet_ledger_entry *entry,
                                const linnet_buffer *upload, linnet_error *err)
{
    char name[40], seen_name[40];
    linnet_buffer record = {0}, ledger = {0}, seen = {0};
    const linnet_buffer *announced = &device->round.announced;
    device_record next = device->record;
    device_ledger_name(next.n_ledger, name);
    const secure_round *round = &device->round;
    const linnet_privacy_entry spent =
        device_privacy_entry(device, &round->announcement, &round->chain, round->noise_multiplier);
    device_seen_name(next.n_ledger, seen_name);
    linnet_status status = seal_round(device, &record, err);
    if (status == LINNET_OK)
        status = device_ledger_pack(entry, &ledger, err);
    if (status == LINNET_OK)
        status = device_seen_pack(device, entry, announced->bytes, announced->n_bytes, &seen, err);
    if (status == LINNET_OK)
        status = device_spend(device, &spent, err);
    if (status == LINNET_OK) {
        next.chain = entry->chain;
        next.upload_offset = 0;
        next.delta = DELTA_SPENT;
        next.n_ledger++;
        next.round_phase = LINNET_SECAGG_MASKING;
        const linnet_kv_item items[] = {{KV_ROUND, record.bytes, record.n_bytes},
                                        {KV_UPLOAD, upload->bytes, upload->n_bytes},
                                        {name, ledger.bytes, ledger.n_bytes},
                                        {seen_name, seen.bytes, seen.n_bytes},
                                        {KV_SEEN_ROSTER, NULL, 0},
                                        {KV_VECTOR, NULL, 0}};
        status = device_commit(device, &next, items, ARRAY_LEN(items), err);
    }
    linnet_buffer_release(&record);
    linnet_buffer_release(&ledger);
    linnet_buffer_release(&seen);
    return status;
}

static linnet_status commit_masked(linnet_device *device, linnet_error *err)
{
    const secure_round *round = &device->round;
    linnet_buffer masked = {0}, header = {0}, upload = {0};
    linnet_ledger_entry entry = {.round = round->announcement.round,
                                 .version = device->record.version,
                                 .sample_weight = round->weight,
                                 .release = device->record.release};
    linnet_status status = make_upload(device, &masked, &entry.echo, &header, err);
    entry.n_bytes = masked.n_bytes;
    if (status == LINNET_OK)
        status = pack_upload(&header, &masked, &upload, err);
    if (status == LINNET_OK) {
        entry.chain = *linnet_secagg_device_t2(round->machine);
        status = put_upload(device, &entry, &upload, err);
    }
    if (status == LINNET_OK)
        device_hold_upload(device, &upload, header.n_bytes);
    device_wipe(&masked); /* of a failure half-way it is X */
    linnet_buffer_release(&header);
    linnet_buffer_release(&upload);
    return status;
}

/* ---- M7 and M9 ---- */

/* T3, or that M9 is made: nothing else changes. */
static linnet_status commit_machine(linnet_device *device, linnet_error *err)
{
    char name[40];
    linnet_buffer record = {0}, seen = {0};
    device_record next = device->record;
    linnet_status status = seal_round(device, &record, err);
    if (status == LINNET_OK)
        status = device_seen_survivors(device, name, &seen, err);
    if (status == LINNET_OK) {
        next.round_phase = (uint8_t)linnet_secagg_device_phase(device->round.machine);
        const linnet_kv_item items[] = {{KV_ROUND, record.bytes, record.n_bytes},
                                        {name, seen.bytes, seen.n_bytes}};
        status = device_commit(device, &next, items, seen.n_bytes > 0 ? 2 : 1, err);
    }
    linnet_buffer_release(&record);
    linnet_buffer_release(&seen);
    return status;
}

/* ---- what comes from the coordinator ---- */

/* Commit what the machine has just made. */
static linnet_status commit_phase(linnet_device *device, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    switch (linnet_secagg_device_phase(device->round.machine)) {
    case LINNET_SECAGG_SHARED:
        status = commit_shares(device, err);
        break;
    case LINNET_SECAGG_MASKING:
        status = commit_masked(device, err);
        break;
    case LINNET_SECAGG_ATTESTED:
    case LINNET_SECAGG_RELEASED:
        status = commit_machine(device, err);
        break;
    case LINNET_SECAGG_EXCLUDED:
        device_note(device, "the round closed without this device; its delta waits for another one");
        status = end_round(device, END_EXCLUDED, err);
        break;
    case LINNET_SECAGG_ADVERTISED:
    case LINNET_SECAGG_ABORTED:
        status = linnet_fail(err, LINNET_ERR_INTERNAL, "a round's phase that is never committed");
        break;
    }
    if (status != LINNET_OK)
        return give_up_commit(device, status);
    if (device->round.machine)
        begin_phase(device);
    return LINNET_OK;
}

static linnet_status take_roster(linnet_device *device, const linnet_buffer *raw, linnet_error *err)
{
    const linnet_device_config *config = &device->config;
    linnet_buffer bytes = {0};
    linnet_revocation list = {0};
    linnet_status status = LINNET_OK;
    if (device->record.revocation_number > 0)
        status = config->kv->get(config->kv->context, KV_REVOCATION, &bytes, err);
    if (status == LINNET_OK && bytes.n_bytes > 0)
        status =
            linnet_revocation_open(bytes.bytes, bytes.n_bytes, &device->identity_record.authority, &list);
    const linnet_secagg_trust trust = {.authority = &device->identity_record.authority,
                                       .now_s = device->now_ms > 0 ? (uint64_t)device->now_ms / 1000 : 0,
                                       .revocation = bytes.n_bytes > 0 ? &list : NULL,
                                       .consortium = config->consortium,
                                       .n_consortium = config->n_consortium,
                                       .cache = config->cache};
    if (status == LINNET_OK)
        status =
            linnet_secagg_device_take_roster(device->round.machine, &trust, raw->bytes, raw->n_bytes, err);
    linnet_buffer_release(&bytes);
    return status;
}

static linnet_status take_message(linnet_device *device, uint32_t phase, const linnet_buffer *raw,
                                  linnet_error *err)
{
    linnet_secagg_device *machine = device->round.machine;
    switch ((linnet_round_phase)phase) {
    case LINNET_PHASE_ROSTER:
        return take_roster(device, raw, err);
    case LINNET_PHASE_SHARERS:
        return linnet_secagg_device_take_sharers(machine, raw->bytes, raw->n_bytes, err);
    case LINNET_PHASE_SURVIVORS:
        return linnet_secagg_device_take_survivors(machine, raw->bytes, raw->n_bytes, err);
    case LINNET_PHASE_CERTIFICATE:
        return linnet_secagg_device_take_certificate(machine, raw->bytes, raw->n_bytes, err);
    case LINNET_PHASE_NONE:
    case LINNET_PHASE_CLOSED:
    case LINNET_PHASE_VOID:
        break;
    }
    return LINNET_OK;
}

/* Give the message to the machine; where that takes it a phase further, commit. */
static linnet_status advance(linnet_device *device, uint32_t phase, const linnet_buffer *raw,
                             uint64_t retry_after_ms, linnet_error *err)
{
    secure_round *round = &device->round;
    linnet_error why = {0};
    linnet_secagg_phase before = linnet_secagg_device_phase(round->machine);
    linnet_status status = take_message(device, phase, raw, &why);
    if (status == LINNET_ERR_NOMEM || status == LINNET_ERR_IO)
        return linnet_fail(err, status, "%s", why.message);
    if (linnet_secagg_device_phase(round->machine) == LINNET_SECAGG_ABORTED) {
        device_note(device, "left the round: %.170s", why.message);
        return abort_round(device, linnet_secagg_device_abort_reason(round->machine), err);
    }
    if (status != LINNET_OK || linnet_secagg_device_phase(round->machine) == before) {
        device_wait(device, retry_after_ms > 0 ? retry_after_ms : pace_ms(device));
        return LINNET_OK;
    }
    device_seen_take(device, phase, raw);
    device_wait(device, retry_after_ms);
    return commit_phase(device, err);
}

static bool has_contributed(const linnet_device *device)
{
    return device->record.delta == DELTA_SPENT && device->record.is_uploaded;
}

/* What was said is with the coordinator. */
static void take_word(secure_round *round, uint32_t kind, bool is_stored)
{
    if (kind == LINNET_ROUND_COMPLAINT)
        round->n_complained++;
    else
        round->is_sent = is_stored;
}

static linnet_status take_answer(linnet_device *device, uint32_t kind, const linnet_answer *answer,
                                 const linnet_buffer *raw, linnet_error *err)
{
    secure_round *round = &device->round;
    if (answer->code == LINNET_ANSWER_NO_SPACE) { /* room may come while there is still time */
        device_note(device, "the coordinator asks to wait: %.150s", answer->message);
        device_back_off(device, device_secure_delay(device, answer->retry_after_ms));
        return LINNET_OK;
    }
    device_wait(device, answer->retry_after_ms > 0 ? answer->retry_after_ms : pace_ms(device));
    if (answer->code == LINNET_ANSWER_WAIT) { /* others are not there yet; an advert may not be taken yet */
        take_word(round, kind, kind != LINNET_ROUND_ADVERT);
        return LINNET_OK;
    }
    if (answer->code != LINNET_ANSWER_OK || device->record.is_revoked) {
        device_note(device, "the round is over for this device: %.140s", answer->message);
        return end_round(device, has_contributed(device) ? END_DONE : END_VOID, err);
    }
    if (answer->phase == LINNET_PHASE_CLOSED)
        return end_round(device, has_contributed(device) ? END_DONE : END_VOID, err);
    if (answer->phase == LINNET_PHASE_VOID) {
        device_note(device, "the round failed");
        return end_round(device, END_VOID, err);
    }
    take_word(round, kind, true);
    return advance(device, answer->phase, raw, answer->retry_after_ms, err);
}

/* ---- what goes to it ---- */

typedef struct outgoing {
    uint32_t kind;
    const uint8_t *bytes; /* borrowed */
    size_t n_bytes;
} outgoing;

static const uint8_t *next_complaint(const secure_round *round)
{
    size_t n = 0;
    const uint8_t *all = linnet_secagg_device_complaints(round->machine, &n);
    size_t at = round->n_complained * LINNET_COMPLAINT_BYTES;
    return all && at < n ? all + at : NULL;
}

/* What this phase has to say, until it was answered; then only the question how far the round is. */
static outgoing next_message(const linnet_device *device)
{
    const secure_round *round = &device->round;
    outgoing o = {.kind = LINNET_ROUND_POLL};
    linnet_secagg_phase phase = linnet_secagg_device_phase(round->machine);
    if (phase == LINNET_SECAGG_MASKING && next_complaint(round)) {
        return (outgoing){LINNET_ROUND_COMPLAINT, next_complaint(round), LINNET_COMPLAINT_BYTES};
    } else if (round->is_sent) {
        return o;
    } else if (phase == LINNET_SECAGG_ADVERTISED) {
        o.kind = LINNET_ROUND_ADVERT;
        o.bytes = linnet_secagg_device_advert(round->machine, &o.n_bytes);
    } else if (phase == LINNET_SECAGG_SHARED) {
        o.kind = LINNET_ROUND_SHARES;
        o.bytes = linnet_secagg_device_shares(round->machine, &o.n_bytes);
    } else if (phase == LINNET_SECAGG_ATTESTED) {
        o.kind = LINNET_ROUND_ATTEST;
        o.bytes = linnet_secagg_device_attestation(round->machine, &o.n_bytes);
    } else if (phase == LINNET_SECAGG_RELEASED) {
        o.kind = LINNET_ROUND_UNMASK;
        o.bytes = linnet_secagg_device_unmask(round->machine, &o.n_bytes);
    }
    return o;
}

static linnet_status exchange(linnet_device *device, const linnet_hash *chain, const outgoing *o,
                              linnet_buffer *storage, linnet_buffer *raw, linnet_answer *ret_answer,
                              bool *ret_is_answered, linnet_error *err)
{
    static const uint8_t nothing[1];
    const linnet_round_message message = {.announcement = *chain, .kind = o->kind};
    linnet_buffer header = {0};
    linnet_status status = linnet_round_message_pack(&message, &header, err);
    if (status == LINNET_OK) {
        const linnet_frame frame = {.header = header.bytes,
                                    .n_header = header.n_bytes,
                                    .raw = o->bytes ? o->bytes : nothing,
                                    .n_raw = o->n_bytes};
        status = device_exchange_sealed(device, LINNET_PATH_ROUND, &frame, storage, raw, ret_answer,
                                        ret_is_answered, err);
    }
    if (status == LINNET_OK && *ret_is_answered)
        status = device_take_lists(device, ret_answer->channel_key, ret_answer->n_channel_key,
                                   ret_answer->revocation, ret_answer->n_revocation, err);
    linnet_buffer_release(&header);
    return status;
}

/* What an attacker of a simulation says in its place. */
static linnet_status change_message(const linnet_device *device, outgoing *o, linnet_buffer *copy,
                                    linnet_error *err)
{
    const linnet_mischief *mischief = device->config.mischief;
    if (!mischief || !mischief->change_message || !o->bytes)
        return LINNET_OK;
    linnet_buffer_append(copy, o->bytes, o->n_bytes);
    if (copy->failed)
        return linnet_fail(err, LINNET_ERR_NOMEM, "message");
    mischief->change_message(mischief->context, o->kind, device->identity, copy->bytes, copy->n_bytes);
    o->bytes = copy->bytes;
    return LINNET_OK;
}

static linnet_status say(linnet_device *device, linnet_error *err)
{
    outgoing o = next_message(device);
    linnet_buffer storage = {0}, raw = {0}, copy = {0};
    linnet_answer answer = {0};
    bool is_answered = false;
    linnet_status status = change_message(device, &o, &copy, err);
    if (status == LINNET_OK)
        status = exchange(device, &device->round.chain, &o, &storage, &raw, &answer, &is_answered, err);
    if (status == LINNET_OK && is_answered)
        status = take_answer(device, o.kind, &answer, &raw, err);
    linnet_buffer_release(&storage);
    linnet_buffer_release(&raw);
    linnet_buffer_release(&copy);
    return status;
}

/* Best effort: what the answer says changes nothing. */
static linnet_status say_farewell(linnet_device *device, linnet_error *err)
{
    const outgoing o = {LINNET_ROUND_ABORT, device->round.farewell.message, LINNET_ABORT_BYTES};
    linnet_buffer storage = {0};
    linnet_answer answer = {0};
    bool is_answered = false;
    device->round.has_farewell = false;
    linnet_status status =
        exchange(device, &device->round.farewell.chain, &o, &storage, NULL, &answer, &is_answered, err);
    if (status == LINNET_OK && is_answered)
        device_wait(device, answer.retry_after_ms);
    linnet_buffer_release(&storage);
    return status;
}

/* Has this phase lasted longer than any coordinator that keeps its deadlines lets it? */
static bool is_out_of_patience(linnet_device *device)
{
    secure_round *round = &device->round;
    int64_t phase_ms = 1000 * (int64_t)round->announcement.phase_s;
    int64_t patience_ms = PATIENCE_PHASES * phase_ms;
    if (linnet_secagg_device_phase(round->machine) == LINNET_SECAGG_ADVERTISED && device->has_plan)
        patience_ms += 1000 * (int64_t)device->plan.deadline_s;
    if (device->now_ms < round->phase_began_ms) /* the clock went back: wait anew */
        round->phase_began_ms = device->now_ms;
    return device->now_ms - round->phase_began_ms > patience_ms;
}

static linnet_status run_out_of_patience(linnet_device *device, linnet_error *err)
{
    bool is_done = linnet_secagg_device_phase(device->round.machine) == LINNET_SECAGG_RELEASED;
    device_note(device, "the coordinator has not gone on with the round in time");
    if (!is_done)
        return abort_round(device, LINNET_ABORT_TIME, err);
    device_wait(device, pace_ms(device));
    return end_round(device, END_DONE, err);
}

linnet_status device_secure_poll(linnet_device *device, linnet_error *err)
{
    secure_round *round = &device->round;
    if (round->must_drop)
        return end_round(device, END_VOID, err);
    if (round->has_farewell)
        return say_farewell(device, err);
    if (is_out_of_patience(device))
        return run_out_of_patience(device, err);
    bool is_masking = linnet_secagg_device_phase(round->machine) == LINNET_SECAGG_MASKING;
    if (is_masking && device->record.delta != DELTA_SPENT) /* there was no memory for it */
        return commit_phase(device, err);
    bool uploads = is_masking && !next_complaint(round) && !device->record.is_uploaded;
    linnet_status status =
        uploads && !round->is_upload_refused ? device_upload(device, err) : say(device, err);
    if (status == LINNET_OK && device->record.is_revoked && device_is_in_round(device))
        status = end_round(device, END_VOID, err);
    return status;
}

const char *device_secure_phase(const device_record *record, const secure_round *round)
{
    uint32_t phase =
        round && round->machine ? linnet_secagg_device_phase(round->machine) : record->round_phase;
    switch (phase) {
    case LINNET_SECAGG_ADVERTISED:
        return "joining";
    case LINNET_SECAGG_SHARED:
        return "sharing";
    case LINNET_SECAGG_MASKING:
        return "uploading";
    case LINNET_SECAGG_ATTESTED:
        return "attesting";
    case LINNET_SECAGG_RELEASED:
        return "unmasking";
    default:
        return NULL;
    }
}
