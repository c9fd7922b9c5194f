/* SPDX-License-Identifier: Apache-2.0 */

/* The agent: what comes next, and the check-in that moves it from one release to the next. The order of a
 * round is check in, fetch plan and adapter, evaluate (install or not), train, check in with a fresh delta,
 * join, upload, receipt; every state in between is durable, so that a device may be killed anywhere and go on
 * (DESIGN.md section 5). A round whose sum is masked puts its exchanges between the check-in and the receipt:
 * device_secure.c. */

#include "device_internal.h"

#include <stdlib.h>

#define POLL_MS_DEFAULT ((uint64_t)60 * 1000) /* before a plan says otherwise */

/* ---- create, destroy ---- */

/* The stored signed release, parsed again: its signature was verified before it was stored. */
static linnet_status load_release(linnet_device *device, linnet_error *err)
{
    linnet_kv *kv = device->config.kv;
    linnet_buffer bytes = {0};
    linnet_signed sealed;
    if (!device->record.has_release)
        return LINNET_OK;
    linnet_status status = kv->get(kv->context, KV_RELEASE, &bytes, err);
    if (status == LINNET_OK)
        status = linnet_signed_open(bytes.bytes, bytes.n_bytes, &sealed, err);
    if (status == LINNET_OK)
        status = linnet_release_unpack(sealed.body, sealed.n_body, &device->release, err);
    linnet_buffer_release(&bytes);
    return status == LINNET_OK ? device_load_objects(device, err) : status;
}

static linnet_status load_channel_key(linnet_device *device, linnet_error *err)
{
    linnet_kv *kv = device->config.kv;
    linnet_buffer bytes = {0};
    linnet_channel_key key = {0};
    linnet_status status = kv->get(kv->context, KV_CHANNEL_KEY, &bytes, err);
    if (status == LINNET_OK &&
        linnet_channel_key_open(bytes.bytes, bytes.n_bytes, &device->identity_record.coordinator, 0, &key) ==
            LINNET_OK) {
        memcpy(device->channel_key, bytes.bytes, LINNET_SIGNED_CHANNEL_KEY_BYTES);
        device->has_channel_key = true;
        device->channel_not_after = key.not_after;
        if (device->record.channel_number < key.number)
            device->record.channel_number = key.number;
    }
    linnet_buffer_release(&bytes);
    return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
}

static linnet_status load_state(linnet_device *device, linnet_error *err)
{
    linnet_status status = device_identity_load(device->config.kv, &device->identity_record, err);
    if (status == LINNET_OK && !device->identity_record.is_enrolled)
        status =
            linnet_fail(err, LINNET_ERR_NOT_FOUND,
                        "the enrolment of this device is not finished; enroll again with the same invite");
    if (status == LINNET_OK)
        status = linnet_identity_from_seed(device->identity_record.seed, &device->identity, err);
    linnet_wipe(device->identity_record.seed, sizeof(device->identity_record.seed));
    if (status == LINNET_OK)
        status = device_record_load(device->config.kv, &device->record, err);
    if (status == LINNET_OK)
        status = device_vault_attach(device, err);
    if (status == LINNET_OK)
        status = load_channel_key(device, err);
    if (status == LINNET_OK)
        status = load_release(device, err);
    return status == LINNET_OK ? device_secure_load(device, err) : status;
}

linnet_status linnet_device_create(const linnet_device_config *config, int64_t now_ms,
                                   linnet_device **ret_device, linnet_error *err)
{
    linnet_device *device = calloc(1, sizeof(*device));
    if (!device)
        return linnet_fail(err, LINNET_ERR_NOMEM, "device");
    device->config = *config;
    device->now_ms = now_ms;
    device->wake_ms = now_ms;
    uint64_t jitter = config->seed;
    if (!config->has_seed)
        linnet_random_bytes(&jitter, sizeof(jitter));
    linnet_rng_init(&device->rng, jitter, UINT64_MAX); /* versions are the other streams of the seed */
    linnet_status status = load_state(device, err);
    if (status != LINNET_OK) {
        linnet_device_destroy(device);
        return status;
    }
    *ret_device = device;
    return LINNET_OK;
}

void linnet_device_destroy(linnet_device *device)
{
    if (!device)
        return;
    device_training_release(device);
    device_secure_release(device);
    linnet_round_vault_close(device->own_vault);
    linnet_layout_destroy(device->layout);
    linnet_adapter_destroy(device->installed);
    linnet_identity_destroy(device->identity);
    linnet_buffer_release(&device->part_bytes);
    linnet_buffer_release(&device->upload);
    linnet_wipe(&device->identity_record, sizeof(device->identity_record));
    free(device);
}

/* ---- what comes next ---- */

static bool is_finished(const linnet_device *device)
{
    const device_record *r = &device->record;
    return r->is_revoked || (r->has_release && device->release.is_final && r->is_evaluated &&
                             r->delta != DELTA_SPENT && !device_is_in_round(device));
}

linnet_device_need linnet_device_next(const linnet_device *device, int64_t *ret_wake_ms)
{
    const device_record *r = &device->record;
    *ret_wake_ms = device->now_ms;
    if (is_finished(device))
        return LINNET_DEVICE_FINISHED;
    if (device_release_is_ready(device) && r->delta != DELTA_SPENT && !device_is_in_round(device)) {
        if (!r->is_evaluated)
            return LINNET_DEVICE_EVALUATE;
        bool may_train =
            r->delta != DELTA_READY && !r->is_contributed && !device->cannot_train && !device->must_check_in;
        if (may_train)
            return LINNET_DEVICE_TRAIN;
    }
    *ret_wake_ms = device->wake_ms;
    return LINNET_DEVICE_POLL;
}

uint32_t linnet_device_context(const linnet_device *device)
{
    return device->has_plan ? device->plan.context_tokens : 0;
}

/* ---- the check-in ---- */

static uint64_t poll_ms(const linnet_device *device)
{
    return device->has_plan ? (uint64_t)device->plan.poll_s * 1000 : POLL_MS_DEFAULT;
}

/* Seven eighths, since waiting adds up to a quarter: the mean is what the plan says. */
static void wait_for_next_poll(linnet_device *device, const linnet_answer *answer)
{
    device_wait(device, answer->retry_after_ms > 0 ? answer->retry_after_ms : poll_ms(device) / 8 * 7);
}

/* A round that was joined may end without a result. Nobody tells: either a later round of the same release is
 * announced, or the deadline has passed and more. Then a new delta is trained; the old one stays spent. */
static linnet_status renew_contribution(linnet_device *device, const linnet_answer *answer, linnet_error *err)
{
    device_record next = device->record;
    int64_t patience_ms = 1000 * (int64_t)device->plan.deadline_s + 2 * (int64_t)poll_ms(device);
    bool again = answer->n_announcement > 0 &&
                 device_announces_again(device, answer->announcement, answer->n_announcement);
    if (!next.is_contributed || !device->has_plan)
        return LINNET_OK;
    if (device->now_ms < next.contributed_ms) /* the clock went back: wait anew */
        next.contributed_ms = device->now_ms;
    else if (again || device->now_ms - next.contributed_ms > patience_ms)
        next.is_contributed = false;
    else
        return LINNET_OK;
    return device_commit(device, &next, NULL, 0, err);
}

static bool must_fetch(const linnet_device *device)
{
    return device->record.has_release && !device->release_is_bad &&
           !(device->has_plan && device->has_adapter);
}

static linnet_status take_check_in_answer(linnet_device *device, const linnet_answer *answer,
                                          linnet_error *err)
{
    linnet_status status = LINNET_OK;
    uint64_t version = device->record.version;
    bool failed = device->fetch_failed;
    device->fetch_failed = false;
    device->must_check_in = false;
    device->cannot_train = false; /* records may have been added */
    wait_for_next_poll(device, answer);
    if (answer->n_release > 0)
        status = device_take_release(device, answer->release, answer->n_release, err);
    if (status == LINNET_OK && device->record.delta == DELTA_READY && device_release_is_ready(device) &&
        answer->n_announcement > 0)
        status = device_join(device, answer->announcement, answer->n_announcement, err);
    else if (status == LINNET_OK)
        status = renew_contribution(device, answer, err);
    /* Something to fetch or to send is not waited for, unless it was not to be had just now. */
    bool is_new = device->record.version != version;
    if (device_is_in_round(device)) /* which has its own pace */
        return status;
    if (device->record.delta == DELTA_SPENT || (must_fetch(device) && (is_new || !failed)))
        device->wake_ms = device->now_ms;
    return status;
}

static linnet_status check_in(linnet_device *device, linnet_error *err)
{
    const device_record *r = &device->record;
    const linnet_checkin checkin = {
        .has_version = r->has_release,
        .version = r->version,
        .has_ready =
            r->delta == DELTA_READY && device_release_is_ready(device) && !device_owes_receipts(device),
        .ready = r->release,
        .revocation_number = r->revocation_number,
    };
    linnet_buffer message = {0}, storage = {0};
    linnet_answer answer = {0};
    bool is_answered = false;
    device->receipts_failed = false;
    linnet_status status = linnet_checkin_pack(&checkin, &message, err);
    if (status == LINNET_OK) {
        const linnet_frame frame = {
            .header = message.bytes, .n_header = message.n_bytes, .raw = message.bytes, .n_raw = 0};
        status = device_exchange_sealed(device, LINNET_PATH_CHECKIN, &frame, &storage, NULL, &answer,
                                        &is_answered, err);
    }
    if (status == LINNET_OK && is_answered)
        status = device_take_lists(device, answer.channel_key, answer.n_channel_key, answer.revocation,
                                   answer.n_revocation, err);
    if (status == LINNET_OK && is_answered) {
        if (answer.code == LINNET_ANSWER_OK || answer.code == LINNET_ANSWER_WAIT) {
            /* What is wrong with a release stays so, and what no round is joined without. */
            if (!device->release_is_bad && !device->fetch_failed && !device_owes_receipts(device))
                device->note[0] = '\0';
            status = take_check_in_answer(device, &answer, err);
        } else { /* a claim of revocation counts only with the signed list that take_lists has seen */
            device_note(device, "the coordinator refuses this device: %.150s", answer.message);
            wait_for_next_poll(device, &answer);
        }
    }
    linnet_buffer_release(&message);
    linnet_buffer_release(&storage);
    return status;
}

linnet_status linnet_device_poll(linnet_device *device, int64_t now_ms, linnet_error *err)
{
    device->now_ms = now_ms;
    if (is_finished(device))
        return LINNET_OK;
    linnet_status status = device_must_end(device, err);
    if (status != LINNET_OK)
        return status;
    bool has_expired = (uint64_t)(now_ms > 0 ? now_ms : 0) / 1000 > device->channel_not_after &&
                       now_ms >= device->hello_again_ms;
    if (!device->has_channel_key || device->needs_hello || has_expired)
        return device_exchange_hello(device, err);
    if (device_is_in_round(device) || device->round.has_farewell)
        return device_secure_poll(device, err);
    if (device->record.delta == DELTA_SPENT)
        return device_upload(device, err);
    if (must_fetch(device) && !device->fetch_failed)
        return device_fetch(device, err);
    if (device_owes_receipts(device) && !device->receipts_failed)
        return device_ask_receipts(device, err);
    return check_in(device, err);
}

/* ---- reports ---- */

static const char *phase_of(const device_record *r, const char *in_round, bool is_final, bool is_fetching)
{
    if (r->is_revoked)
        return "revoked";
    if (is_final && r->is_evaluated && r->delta != DELTA_SPENT)
        return "finished";
    if (in_round)
        return in_round;
    switch (r->delta) {
    case DELTA_SPENT:
        return "uploading";
    case DELTA_READY:
        return "ready";
    case DELTA_TRAINING:
        return "training";
    case DELTA_NONE:
        break;
    }
    return is_fetching ? "fetching" : "idle";
}

static void report_record(const device_record *r, const identity_record *identity,
                          linnet_device_report *report)
{
    memcpy(report->coordinator_url, identity->url, sizeof(report->coordinator_url));
    report->operator_is_authority = identity->operator_is_authority;
    report->version = r->version;
    report->round = r->last_round;
    report->n_contributions = r->n_contributions;
    report->bytes_up = r->bytes_up;
    report->bytes_down = r->bytes_down;
    report->has_held_out_loss = r->has_held_out_loss;
    report->held_out_loss = r->held_out_loss;
    report->installed = r->installed;
    report->previous = r->previous;
    report->profile = r->profile;
    report->is_in_round = r->has_round;
    memcpy(report->note, r->note, sizeof(report->note));
}

void linnet_device_budget(linnet_budget_ledger *ledger, const linnet_policy *policy,
                          linnet_device_report *report)
{
    report->has_budget =
        ledger && linnet_budget_ledger_total(ledger, NULL, &report->spent, NULL) == LINNET_OK;
    if (!report->has_budget)
        return;
    report->dp_delta = policy->dp_delta;
    report->dp_epsilon_max = policy->dp_epsilon_max;
    report->dp_epsilon = linnet_dp_epsilon(&report->spent.rdp, policy->dp_delta, NULL);
}

void linnet_device_status(const linnet_device *device, linnet_device_report *ret_report)
{
    linnet_device_report report = {0};
    bool is_fetching =
        device->record.has_release && !device_release_is_ready(device) && !device->release_is_bad;
    report_record(&device->record, &device->identity_record, &report);
    report.device_id = linnet_device_id_of(linnet_identity_public_key(device->identity));
    report.n_recovered = device->n_recovered;
    int64_t wake_ms;
    bool trains = linnet_device_next(device, &wake_ms) == LINNET_DEVICE_TRAIN;
    bool is_final = device->record.has_release && device->release.is_final;
    const char *in_round = device_secure_phase(&device->record, &device->round);
    report.phase = trains ? "training" : phase_of(&device->record, in_round, is_final, is_fetching);
    report.step = device->trainer ? linnet_trainer_steps(device->trainer) : 0;
    report.n_steps = device->has_plan ? device->plan.local_steps : 0;
    report.train_loss = device->has_step ? device->last_step.loss : 0;
    report.base_model = device->record.has_release ? device->release.base_model : (linnet_hash){{0}};
    report.is_other_model =
        device->record.has_release && !linnet_hash_equal(&report.base_model, device->config.model_hash);
    memcpy(report.note, device->note, sizeof(report.note));
    if (device->has_plan)
        report.profile = device->plan.profile;
    report.is_in_round = device_is_in_round(device);
    report.round_key = linnet_round_vault_place(device->vault);
    linnet_device_budget(device->config.ledger, &device->config.policy, &report);
    *ret_report = report;
}

linnet_status linnet_device_status_of(linnet_kv *kv, linnet_device_report *ret_report, linnet_error *err)
{
    identity_record identity = {0};
    device_record record = {0};
    linnet_identity *key = NULL;
    linnet_device_report report = {0};
    linnet_signed sealed;
    linnet_release release = {0};
    linnet_buffer bytes = {0};
    linnet_status status = device_identity_load(kv, &identity, err);
    if (status == LINNET_OK)
        status = linnet_identity_from_seed(identity.seed, &key, err);
    if (status == LINNET_OK)
        status = device_record_load(kv, &record, err);
    if (status == LINNET_OK && record.has_release)
        status = kv->get(kv->context, KV_RELEASE, &bytes, err);
    if (status == LINNET_OK && record.has_release)
        status = linnet_signed_open(bytes.bytes, bytes.n_bytes, &sealed, err);
    if (status == LINNET_OK && record.has_release)
        status = linnet_release_unpack(sealed.body, sealed.n_body, &release, err);
    if (status == LINNET_OK) {
        report_record(&record, &identity, &report);
        report.device_id = linnet_device_id_of(linnet_identity_public_key(key));
        report.phase = phase_of(&record, device_secure_phase(&record, NULL), release.is_final, false);
        *ret_report = report;
    }
    linnet_identity_destroy(key);
    linnet_buffer_release(&bytes);
    linnet_wipe(&identity, sizeof(identity));
    return status;
}

/* ---- the installed adapter ---- */

const linnet_adapter *linnet_device_adapter(linnet_device *device)
{
    static const linnet_hash none;
    if (device->installed || !device->has_plan || linnet_hash_equal(&device->record.installed, &none))
        return device->installed;
    if (device_adapter_load(device, &device->record.installed, &device->installed, NULL) != LINNET_OK)
        return NULL; /* of another layout, or gone from the cache: as good as none */
    return device->installed;
}

linnet_status linnet_device_roll_back(linnet_device *device, linnet_error *err)
{
    static const linnet_hash none;
    device_record next = device->record;
    if (linnet_hash_equal(&next.previous, &none))
        return linnet_fail(err, LINNET_ERR_NOT_FOUND, "there is no adapter before the installed one");
    next.installed = next.previous;
    next.installed_version = next.previous_version;
    next.previous = none;
    next.previous_version = 0;
    next.has_held_out_loss = false; /* measured again with the next release */
    linnet_status status = device_commit(device, &next, NULL, 0, err);
    if (status != LINNET_OK)
        return status;
    linnet_adapter_destroy(device->installed);
    device->installed = NULL;
    return LINNET_OK;
}
