/* SPDX-License-Identifier: Apache-2.0 */

/* One round: check the announcement, encode the fresh delta once, commit, upload, keep the receipt
 * (SECURE-AGGREGATION 2.4 and 2.7). The commit makes the delta spent, fixes the round number and stores the
 * packed bytes before the first of them leaves, so that every retry sends the same ones and no delta ever
 * enters a second upload, whatever the coordinator says about the round. Where sums are masked the encoded
 * vectors go to device_secure.c instead, which comes back here with what to upload. */

#include "device_internal.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- the announcement ---- */

linnet_status device_open_announcement(const linnet_device *device, const uint8_t *bytes, size_t n_bytes,
                                       linnet_announcement *ret_announcement, linnet_hash *ret_chain,
                                       linnet_error *err)
{
    linnet_signed sealed;
    linnet_status status = linnet_signed_open(bytes, n_bytes, &sealed, err);
    if (status != LINNET_OK)
        return status;
    linnet_hash chain = linnet_hash_of(LINNET_LABEL_ANNOUNCE, sealed.body, sealed.n_body);
    if (linnet_verify_hash(&device->identity_record.coordinator, &chain, &sealed.signature) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_CRYPTO,
                           "the announcement is not signed by the pinned coordinator");
    status = linnet_announcement_unpack(sealed.body, sealed.n_body, ret_announcement, err);
    if (status == LINNET_OK)
        *ret_chain = chain;
    return status;
}

/* What the plan says about a round, computed here and not taken from the coordinator. */
typedef struct round_plan {
    linnet_announcement announcement;
    linnet_privacy privacy;
} round_plan;

static linnet_status plan_round(linnet_device *device, round_plan *ret_plan, linnet_error *err)
{
    const linnet_layout *layout = NULL;
    uint64_t version = device->record.version;
    linnet_status status = device_layout(device, &layout, err);
    if (status == LINNET_OK)
        status = linnet_announcement_of_plan(&device->plan, layout, version, &ret_plan->announcement, err);
    if (status == LINNET_OK)
        status = linnet_plan_privacy(&device->plan, layout, version, &ret_plan->privacy, err);
    return status;
}

static bool is_same_spec(const linnet_ring_spec *a, const linnet_ring_spec *b)
{
    return a->vector_id == b->vector_id && a->length == b->length && a->bits == b->bits &&
           a->clamp == b->clamp && a->exponent == b->exponent && a->weight_max == b->weight_max;
}

/* The encoding is computed here from plan, model and version; the announcement must say the same, and the
 * whole cohort must fit the ring. */
static const char *vectors_refusal(const linnet_announcement *a, const linnet_ring_spec *specs,
                                   size_t n_specs)
{
    if (a->n_vectors != n_specs)
        return "the announced vectors are not those of the plan";
    for (size_t i = 0; i < n_specs; i++) {
        if (!is_same_spec(&a->vectors[i], &specs[i]))
            return "the announced encoding is not that of the plan";
        if (linnet_ring_check(&specs[i], a->n_max, NULL) != LINNET_OK)
            return "the announced cohort could wrap the ring";
    }
    return NULL;
}

/* What a device must know to check the roster of a masked round: exactly the announced revocation list. */
static const char *masks_refusal(const linnet_device *device, const linnet_announcement *a)
{
    static const linnet_hash none;
    linnet_kv *kv = device->config.kv;
    linnet_buffer list = {0};
    linnet_hash hash = none;
    if (a->revocation_number != device->record.revocation_number)
        return "the announced revocation list is not the one this device has";
    if (a->revocation_number == 0)
        return NULL;
    if (kv->get(kv->context, KV_REVOCATION, &list, NULL) == LINNET_OK &&
        list.n_bytes > LINNET_SIGNATURE_BYTES)
        hash = linnet_hash_of(LINNET_LABEL_REVOCATION, list.bytes, list.n_bytes - LINNET_SIGNATURE_BYTES);
    linnet_buffer_release(&list);
    return linnet_hash_equal(&hash, &a->revocation) ? NULL
                                                    : "two revocation lists of one number: keep the state "
                                                      "directory as evidence";
}

linnet_privacy_entry device_privacy_entry(const linnet_device *device,
                                          const linnet_announcement *announcement, const linnet_hash *chain,
                                          double noise_multiplier)
{
    linnet_privacy_entry entry = {.device = linnet_device_id_of(linnet_identity_public_key(device->identity)),
                                  .round = announcement->round,
                                  .announcement = *chain,
                                  .mechanism = (linnet_dp_mechanism)announcement->dp_mechanism,
                                  .unit = (linnet_dp_unit)announcement->dp_unit,
                                  .noise_multiplier = noise_multiplier,
                                  .probability = announcement->dp_probability,
                                  .n_steps = announcement->dp_steps};
    memcpy(entry.task, announcement->task, sizeof(entry.task));
    return entry;
}

linnet_status device_spend(linnet_device *device, const linnet_privacy_entry *entry, linnet_error *err)
{
    const linnet_policy *policy = &device->config.policy;
    const linnet_privacy_limit limit = {.dp_epsilon_max = policy->dp_epsilon_max,
                                        .dp_delta = policy->dp_delta};
    if (entry->mechanism == LINNET_DP_NONE || !device->config.ledger)
        return LINNET_OK;
    linnet_status status = linnet_budget_ledger_add(device->config.ledger, entry, &limit, err);
    if (status == LINNET_ERR_IO) /* it may be on the disk or not */
        device->is_state_unknown = true;
    return status;
}

/* NULL, or why the ledger forbids the round; *ret_spent is what it holds. */
static const char *budget_refusal(const linnet_device *device, const linnet_announcement *a,
                                  const linnet_hash *chain, const linnet_privacy *privacy,
                                  linnet_privacy_total *ret_spent)
{
    const linnet_privacy_entry next = device_privacy_entry(device, a, chain, privacy->noise_multiplier);
    if (privacy->mechanism == LINNET_DP_NONE)
        return NULL;
    if (!device->config.ledger)
        return device->config.policy.dp_epsilon_max > 0 ? "policy: epsilon_max is set, and there is no ledger"
                                                        : NULL;
    return linnet_budget_ledger_total(device->config.ledger, &next, ret_spent, NULL) == LINNET_OK
               ? NULL
               : "the ledger of privacy cannot be read";
}

/* NULL, or why this round is not joined. Never because of data: with differential privacy that would tell. */
static const char *announcement_refusal(const linnet_device *device, const linnet_announcement *a,
                                        const linnet_hash *chain, const round_plan *planned)
{
    linnet_privacy_total spent = {0};
    if (memcmp(a->coordinator.bytes, device->identity_record.coordinator.bytes, LINNET_PUBLIC_KEY_BYTES) !=
            0 ||
        memcmp(a->task, device->identity_record.task, sizeof(a->task)) != 0)
        return "the announcement is of another coordinator or task";
    if (a->round <= device->record.last_round)
        return "the announced round is not later than the last one joined";
    if (!linnet_hash_equal(&a->release, &device->record.release))
        return "the announced round is for another release than the delta";
    if (a->profile != (uint32_t)device->plan.profile)
        return "the announced profile is not that of the plan";
    if (a->revocation_number < device->record.revocation_number)
        return "the announcement's revocation list goes back";
    if (device_owes_receipts(device))
        return "the ledger is not complete before the coordinator's receipts are here";
    const char *refusal = NULL;
    if (a->profile != LINNET_PROFILE_PLAIN)
        refusal = budget_refusal(device, a, chain, &planned->privacy, &spent);
    if (!refusal)
        refusal = linnet_policy_round_refusal(&device->config.policy, a, &planned->privacy, &spent.rdp);
    if (!refusal)
        refusal = vectors_refusal(a, planned->announcement.vectors, planned->announcement.n_vectors);
    if (!refusal && a->profile != LINNET_PROFILE_PLAIN)
        refusal = linnet_announcement_difference(a, &planned->announcement);
    if (!refusal && linnet_profile_is_secure((int)a->profile))
        refusal = masks_refusal(device, a);
    return refusal;
}

bool device_announces_again(const linnet_device *device, const uint8_t *bytes, size_t n_bytes)
{
    linnet_announcement a;
    linnet_hash chain;
    return device_open_announcement(device, bytes, n_bytes, &a, &chain, NULL) == LINNET_OK &&
           a.round > device->record.last_round &&
           memcmp(a.task, device->identity_record.task, sizeof(a.task)) == 0 &&
           linnet_hash_equal(&a.release, &device->record.release);
}

/* ---- joining: one commit ---- */

linnet_status device_sign_header(const linnet_device *device, const linnet_hash *chain,
                                 const linnet_announcement *announcement, const linnet_buffer *packed,
                                 linnet_hash *ret_echo, linnet_buffer *ret_signed, linnet_error *err)
{
    linnet_buffer body = {0};
    linnet_upload_header header = {
        .chain = *chain, .n_vectors = announcement->n_vectors, .n_bytes = packed->n_bytes};
    header.device_id = linnet_device_id_of(linnet_identity_public_key(device->identity));
    header.echo = linnet_hash_of(LINNET_LABEL_VECTOR, packed->bytes, packed->n_bytes);
    for (size_t i = 0; i < announcement->n_vectors; i++)
        header.lengths[i] = announcement->vectors[i].length;
    linnet_status status = linnet_upload_header_pack(&header, &body, err);
    if (status == LINNET_OK) {
        linnet_signature signature =
            linnet_sign(device->identity, LINNET_LABEL_MASKED, body.bytes, body.n_bytes);
        status = linnet_signed_pack(body.bytes, body.n_bytes, &signature, ret_signed, err);
    }
    *ret_echo = header.echo;
    linnet_buffer_release(&body);
    return status;
}

void device_ledger_name(uint64_t index, char ret_name[40])
{
    (void)snprintf(ret_name, 40, KV_LEDGER, (unsigned long long)index);
}

void device_hold_upload(linnet_device *device, linnet_buffer *upload, size_t n_header)
{
    linnet_buffer_release(&device->upload);
    device->upload = *upload;
    *upload = (linnet_buffer){0};
    device->n_upload_header = n_header;
    device->upload_offset = 0;
    device->has_upload_offset = true;
    device->wake_ms = device->now_ms;
}

static linnet_status commit_join(linnet_device *device, const linnet_announcement *a,
                                 const linnet_hash *chain, const linnet_hash *echo, uint32_t weight,
                                 const linnet_buffer *header, linnet_buffer *packed,
                                 const linnet_kv_item *announced, linnet_error *err)
{
    char ledger_name[40], seen_name[40];
    linnet_buffer upload = {0}, ledger = {0}, seen = {0};
    device_record next = device->record;
    const linnet_ledger_entry entry = {.round = a->round,
                                       .version = next.version,
                                       .n_bytes = packed->n_bytes,
                                       .sample_weight = weight,
                                       .chain = *chain,
                                       .release = next.release,
                                       .echo = *echo};
    device_ledger_name(next.n_ledger, ledger_name);
    device_seen_name(next.n_ledger, seen_name);
    linnet_status status = device_ledger_pack(&entry, &ledger, err);
    if (status == LINNET_OK)
        status = device_seen_pack(device, &entry, announced->bytes, announced->n_bytes, &seen, err);
    linnet_buffer_append_le32(&upload, (uint32_t)header->n_bytes);
    linnet_buffer_append(&upload, header->bytes, header->n_bytes);
    linnet_buffer_append(&upload, packed->bytes, packed->n_bytes);
    if (status == LINNET_OK && upload.failed)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "upload of %zu bytes", packed->n_bytes);
    if (status == LINNET_OK) {
        next.last_round = a->round;
        next.chain = *chain;
        next.upload_offset = 0;
        next.delta = DELTA_SPENT;
        next.n_ledger++;
        const linnet_kv_item items[] = {{KV_UPLOAD, upload.bytes, upload.n_bytes},
                                        {ledger_name, ledger.bytes, ledger.n_bytes},
                                        {seen_name, seen.bytes, seen.n_bytes},
                                        *announced,
                                        {KV_DELTA, NULL, 0}};
        status = device_commit(device, &next, items, ARRAY_LEN(items), err);
    }
    if (status == LINNET_OK)
        device_hold_upload(device, &upload, header->n_bytes);
    linnet_buffer_release(&seen);
    linnet_buffer_release(&ledger);
    linnet_buffer_release(&upload);
    return status;
}

/* A delta that is damaged, or that no ring can hold, is not joined with: another training comes after the
 * next check-in. */
static linnet_status discard_delta(linnet_device *device, linnet_status status, const linnet_error *why,
                                   linnet_error *err)
{
    device_record next = device->record;
    if (status != LINNET_ERR_RANGE && status != LINNET_ERR_FORMAT && status != LINNET_ERR_NOT_FOUND &&
        status != LINNET_ERR_CRYPTO) /* sealed bytes that do not open */
        return linnet_fail(err, status, "%s", why->message);
    next.delta = DELTA_NONE;
    device->must_check_in = true;
    device_note(device, "the trained delta is of no use: %.150s", why->message);
    const linnet_kv_item item = {KV_DELTA, NULL, 0};
    return device_commit(device, &next, &item, 1, err);
}

/* The upload begins with the next exchange: nobody else's vector hides this one. */
static linnet_status join_plain(linnet_device *device, const linnet_announcement *a, const linnet_hash *chain,
                                double noise_multiplier, uint32_t weight, linnet_buffer *packed,
                                const linnet_kv_item *announced, linnet_error *err)
{
    linnet_hash echo;
    linnet_buffer header = {0};
    const linnet_privacy_entry spent = device_privacy_entry(device, a, chain, noise_multiplier);
    linnet_status status = device_sign_header(device, chain, a, packed, &echo, &header, err);
    if (status == LINNET_OK)
        status = device_spend(device, &spent, err);
    if (status == LINNET_OK)
        status = commit_join(device, a, chain, &echo, weight, &header, packed, announced, err);
    linnet_buffer_release(&header);
    return status;
}

/* A refusal is told to who asks the store, too. */
static linnet_status keep_note(linnet_device *device, linnet_error *err)
{
    device_record next = device->record;
    if (memcmp(next.note, device->note, sizeof(next.note)) == 0)
        return LINNET_OK;
    return device_commit(device, &next, NULL, 0, err);
}

linnet_status device_join(linnet_device *device, const uint8_t *bytes, size_t n_bytes, linnet_error *err)
{
    linnet_announcement a;
    linnet_hash chain;
    linnet_error why = {0};
    round_plan planned;
    linnet_buffer packed = {0};
    linnet_status status = device_open_announcement(device, bytes, n_bytes, &a, &chain, &why);
    if (status == LINNET_OK)
        status = plan_round(device, &planned, &why);
    const char *refusal =
        status == LINNET_OK ? announcement_refusal(device, &a, &chain, &planned) : why.message;
    if (refusal) {
        device_note(device, "%.190s", refusal);
        return status == LINNET_ERR_NOMEM ? linnet_fail(err, status, "%s", why.message)
                                          : keep_note(device, err);
    }
    uint32_t weight = linnet_plan_weight(&device->plan, device->record.counted_tokens);
    const linnet_kv_item announced = {KV_SEEN_LAST, bytes, n_bytes};
    const encode_job job = {
        .announcement = &a, .chain = &chain, .privacy = &planned.privacy, .weight = weight};
    status = device_encode(device, &job, &packed, &why);
    if (status != LINNET_OK) {
        device_wipe(&packed);
        return discard_delta(device, status, &why, err);
    }
    status = linnet_profile_is_secure((int)a.profile)
                 ? device_secure_join(device, &a, &chain, bytes, n_bytes, planned.privacy.noise_multiplier,
                                      weight, &packed, err)
                 : join_plain(device, &a, &chain, planned.privacy.noise_multiplier, weight, &packed,
                              &announced, err);
    device_wipe(&packed);
    return status;
}

/* ---- the upload ---- */

/* Are these the bytes whose hash was signed? Others are never sent: the coordinator would not take them. */
static linnet_status check_upload(const linnet_buffer *upload, size_t n_header, linnet_error *err)
{
    linnet_signed opened;
    linnet_upload_header header;
    const uint8_t *packed = upload->bytes + 4 + n_header;
    linnet_status status = linnet_signed_open(upload->bytes + 4, n_header, &opened, err);
    if (status == LINNET_OK)
        status = linnet_upload_header_unpack(opened.body, opened.n_body, &header, err);
    if (status != LINNET_OK)
        return status;
    linnet_hash echo = linnet_hash_of(LINNET_LABEL_VECTOR, packed, upload->n_bytes - 4 - n_header);
    if (!linnet_hash_equal(&echo, &header.echo))
        return linnet_fail(err, LINNET_ERR_FORMAT, "state record '" KV_UPLOAD "' is damaged");
    return LINNET_OK;
}

static linnet_status load_upload(linnet_device *device, linnet_error *err)
{
    linnet_kv *kv = device->config.kv;
    if (device->upload.n_bytes > 0)
        return LINNET_OK;
    linnet_status status = kv->get(kv->context, KV_UPLOAD, &device->upload, err);
    if (status != LINNET_OK)
        return status;
    size_t n_header = device->upload.n_bytes < 4 ? SIZE_MAX : linnet_load_le32(device->upload.bytes);
    if (n_header > device->upload.n_bytes - 4)
        return linnet_fail(err, LINNET_ERR_FORMAT, "state record '" KV_UPLOAD "' is damaged");
    status = check_upload(&device->upload, n_header, err);
    if (status != LINNET_OK)
        return status;
    size_t n_packed = device->upload.n_bytes - 4 - n_header;
    device->n_upload_header = n_header;
    device->upload_offset = device->record.upload_offset;
    device->has_upload_offset = device->upload_offset < n_packed;
    return LINNET_OK;
}

void device_release_upload(linnet_device *device)
{
    linnet_buffer_release(&device->upload);
    device->n_upload_header = 0;
    device->upload_offset = 0;
    device->has_upload_offset = false;
}

/* The upload is over, with a receipt or without. The delta is spent whatever became of it; a later round gets
 * a new training. A masked round goes on from here. */
static linnet_status end_upload(linnet_device *device, const uint8_t *receipt, linnet_error *err)
{
    char ledger_name[40];
    linnet_buffer ledger = {0};
    linnet_ledger_entry entry = {0};
    device_record next = device->record;
    device_ledger_name(next.n_ledger - 1, ledger_name);
    linnet_status status = linnet_device_ledger(device->config.kv, next.n_ledger - 1, &entry, err);
    if (status != LINNET_OK)
        return status;
    if (next.has_round)
        next.is_uploaded = true;
    else
        next.delta = DELTA_NONE;
    if (receipt) {
        entry.is_accepted = true;
        memcpy(entry.receipt, receipt, sizeof(entry.receipt));
        next.n_contributions++;
        /* The release may have moved on while the upload was under way. */
        next.is_contributed = linnet_hash_equal(&entry.release, &next.release);
        next.contributed_ms = device->now_ms;
    }
    status = device_ledger_pack(&entry, &ledger, err);
    if (status == LINNET_OK) {
        const linnet_kv_item items[] = {{KV_UPLOAD, NULL, 0}, {ledger_name, ledger.bytes, ledger.n_bytes}};
        status = device_commit(device, &next, items, ARRAY_LEN(items), err);
    }
    linnet_buffer_release(&ledger);
    if (status != LINNET_OK)
        return status;
    device_release_upload(device);
    device->must_check_in = !next.has_round;
    device->round.is_sent = true;
    return LINNET_OK;
}

/* Not taken, and never will be. In a masked round a certificate may still say so, and free the delta. */
static linnet_status end_refused(linnet_device *device, linnet_error *err)
{
    if (!device->record.has_round)
        return end_upload(device, NULL, err);
    device->round.is_upload_refused = true;
    device->round.is_sent = true;
    return LINNET_OK;
}

/* A receipt counts only if the coordinator signed it for this round, this device and these bytes. */
static bool receipt_is_ours(const linnet_device *device, const linnet_answer *answer)
{
    linnet_receipt receipt;
    linnet_ledger_entry entry;
    linnet_device_id self = linnet_device_id_of(linnet_identity_public_key(device->identity));
    return answer->n_receipt > 0 &&
           linnet_receipt_open(answer->receipt, answer->n_receipt, &device->identity_record.coordinator,
                               &receipt) == LINNET_OK &&
           linnet_device_ledger(device->config.kv, device->record.n_ledger - 1, &entry, NULL) == LINNET_OK &&
           linnet_hash_equal(&receipt.chain, &device->record.chain) &&
           linnet_hash_equal(&receipt.echo, &entry.echo) &&
           memcmp(receipt.device_id.bytes, self.bytes, sizeof(self.bytes)) == 0;
}

/* Where to go on: never past the end, and not to the same place again and again without a pause. Progress is
 * committed, so that a device that is often killed gets to the end. */
static linnet_status follow_offset(linnet_device *device, const linnet_answer *answer, uint64_t n_packed,
                                   linnet_error *err)
{
    device_record next = device->record;
    if (answer->next_offset >= n_packed) { /* without a receipt: ask for it */
        device->has_upload_offset = false;
        device_back_off(device, answer->retry_after_ms);
        return LINNET_OK;
    }
    bool advances = !device->has_upload_offset || answer->next_offset > device->upload_offset;
    device->upload_offset = answer->next_offset;
    device->has_upload_offset = true;
    if (!advances) {
        device_back_off(device, answer->retry_after_ms);
        return LINNET_OK;
    }
    device->n_failures = 0;
    device->wake_ms = device->now_ms + (int64_t)answer->retry_after_ms;
    next.upload_offset = answer->next_offset;
    return device_commit(device, &next, NULL, 0, err);
}

static linnet_status take_upload_answer(linnet_device *device, const linnet_answer *answer, uint64_t n_packed,
                                        linnet_error *err)
{
    switch ((linnet_answer_code)answer->code) {
    case LINNET_ANSWER_OK:
        if (receipt_is_ours(device, answer)) {
            device->note[0] = '\0';
            device_wait(device, device_secure_delay(device, answer->retry_after_ms));
            return end_upload(device, answer->receipt, err);
        }
        return follow_offset(device, answer, n_packed, err);
    case LINNET_ANSWER_GONE:
    case LINNET_ANSWER_REFUSED:
    case LINNET_ANSWER_CONFLICT:
    case LINNET_ANSWER_REVOKED:
        device_note(device, "the contribution to round %llu was not taken: %.120s",
                    (unsigned long long)device->record.last_round, answer->message);
        device_wait(device, device_secure_delay(device, answer->retry_after_ms));
        return end_refused(device, err);
    case LINNET_ANSWER_WAIT:
    case LINNET_ANSWER_NO_SPACE:
        device_note(device, "the coordinator asks to wait: %.150s", answer->message);
        device->has_upload_offset = false;
        device_back_off(device, device_secure_delay(device, answer->retry_after_ms));
        return LINNET_OK;
    }
    return LINNET_OK;
}

linnet_status device_upload(linnet_device *device, linnet_error *err)
{
    linnet_buffer message = {0}, storage = {0};
    linnet_answer answer = {0};
    bool is_answered = false;
    linnet_error why = {0};
    linnet_status status = load_upload(device, &why);
    if (status == LINNET_ERR_NOT_FOUND ||
        status == LINNET_ERR_FORMAT) { /* the round is lost, never restarted */
        device_note(device, "the contribution was lost on this device: %.140s", why.message);
        device_release_upload(device);
        return device->record.has_round ? device_secure_lose(device, err) : end_upload(device, NULL, err);
    }
    if (status != LINNET_OK)
        return linnet_fail(err, status, "%s", why.message);
    const uint8_t *packed = device->upload.bytes + 4 + device->n_upload_header;
    size_t n_packed = device->upload.n_bytes - 4 - device->n_upload_header;
    size_t offset = device->has_upload_offset ? (size_t)device->upload_offset : 0;
    size_t n = device->has_upload_offset ? n_packed - offset : 0; /* nothing: ask where to go on */
    if (n > LINNET_UPLOAD_CHUNK_BYTES)
        n = LINNET_UPLOAD_CHUNK_BYTES;
    const linnet_upload upload = {
        .header = device->upload.bytes + 4, .n_header = device->n_upload_header, .offset = offset};
    status = linnet_upload_pack(&upload, &message, err);
    if (status == LINNET_OK) {
        const linnet_frame frame = {
            .header = message.bytes, .n_header = message.n_bytes, .raw = packed + offset, .n_raw = n};
        status = device_exchange_sealed(device, LINNET_PATH_UPLOAD, &frame, &storage, NULL, &answer,
                                        &is_answered, err);
    }
    if (status == LINNET_OK && !is_answered)
        device->has_upload_offset = false; /* a part may have arrived */
    if (status == LINNET_OK && is_answered)
        status = device_take_lists(device, answer.channel_key, answer.n_channel_key, answer.revocation,
                                   answer.n_revocation, err);
    if (status == LINNET_OK && is_answered)
        status = take_upload_answer(device, &answer, n_packed, err);
    linnet_buffer_release(&message);
    linnet_buffer_release(&storage);
    return status;
}
