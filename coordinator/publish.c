/* SPDX-License-Identifier: Apache-2.0 */
/* From a sum to the next global adapter: decode the mean, take the server's step on each active factor, write
 * the new adapter as a durable object, and then, in one transaction, everything that names it: the release,
 * the round's end, the next round and its announcement, the optimiser's state. A crash before that
 * transaction leaves a frozen round, which is published again to the same bytes; one after it leaves a spool
 * that the next start sweeps. */
#include "combine.h"
#include "gate.h"
#include "outcome.h"
#include "privacy_ledger.h"
#include "state.h"

#include "linnet/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- objects ---- */

/* Without durability, for simulations: the name and the bytes, no fsync. */
static linnet_status write_quickly(const char *path, const void *bytes, size_t n_bytes, linnet_error *err)
{
    FILE *file = fopen(path, "wb");
    if (!file)
        return linnet_fail_errno(err, errno, "cannot create '%s'", path);
    size_t n = fwrite(bytes, 1, n_bytes, file);
    if (fclose(file) != 0 || n != n_bytes)
        return linnet_fail_errno(err, errno, "cannot write '%s'", path);
    return LINNET_OK;
}

linnet_status linnet_state_write(const linnet_coordinator *c, const char *path, const void *bytes,
                                 size_t n_bytes, linnet_error *err)
{
    return c->is_durable ? linnet_file_write(path, bytes, n_bytes, 0600, err)
                         : write_quickly(path, bytes, n_bytes, err);
}

linnet_status linnet_object_write(const linnet_coordinator *c, const char *folder, const linnet_hash *name,
                                  const void *bytes, size_t n_bytes, linnet_error *err)
{
    char path[4096], hex[2 * LINNET_HASH_BYTES + 1];
    linnet_hex_write(name->bytes, sizeof(name->bytes), hex);
    if (!linnet_coordinator_path(c, path, "%s/%s", folder, hex))
        return linnet_fail(err, LINNET_ERR_LIMIT, "state directory: the path is too long");
    return linnet_state_write(c, path, bytes, n_bytes, err);
}

linnet_status linnet_object_load_adapter(const linnet_coordinator *c, const linnet_hash *hash,
                                         linnet_adapter **ret_adapter, linnet_error *err)
{
    char path[4096], hex[2 * LINNET_HASH_BYTES + 1];
    linnet_buffer bytes = {0};
    linnet_hex_write(hash->bytes, sizeof(hash->bytes), hex);
    if (!linnet_coordinator_path(c, path, "objects/%s", hex))
        return linnet_fail(err, LINNET_ERR_LIMIT, "state directory: the path is too long");
    linnet_status status = linnet_file_read(path, LINNET_OBJECT_BYTES_MAX, &bytes, err);
    if (status == LINNET_OK) {
        linnet_hash there = linnet_hash_of(LINNET_LABEL_OBJECT, bytes.bytes, bytes.n_bytes);
        status = linnet_hash_equal(&there, hash)
                     ? linnet_adapter_unpack(c->layout, bytes.bytes, bytes.n_bytes, ret_adapter, err)
                     : linnet_fail(err, LINNET_ERR_MISMATCH,
                                   "'%s' is damaged: restore the state from a backup", path);
    }
    linnet_buffer_release(&bytes);
    return status;
}

static linnet_status adapter_write(const linnet_coordinator *c, const linnet_adapter *adapter,
                                   linnet_hash *ret_hash, linnet_error *err)
{
    linnet_buffer bytes = {0};
    linnet_status status = linnet_adapter_pack(adapter, &bytes, err);
    if (status == LINNET_OK) {
        linnet_hash hash = linnet_hash_of(LINNET_LABEL_OBJECT, bytes.bytes, bytes.n_bytes);
        status = linnet_object_write(c, "objects", &hash, bytes.bytes, bytes.n_bytes, err);
        if (status == LINNET_OK)
            *ret_hash = hash;
    }
    linnet_buffer_release(&bytes);
    return status;
}

/* ---- the optimiser's state between rounds: floats in a file that its release names ---- */

static bool hash_is_zero(const linnet_hash *hash)
{
    static const linnet_hash zero;
    return linnet_hash_equal(hash, &zero);
}

static linnet_status momentum_read(const linnet_coordinator *c, const linnet_hash *name,
                                   linnet_server_state *state, linnet_error *err)
{
    char path[4096], hex[2 * LINNET_HASH_BYTES + 1];
    linnet_buffer bytes = {0};
    linnet_hex_write(name->bytes, sizeof(name->bytes), hex);
    if (!linnet_coordinator_path(c, path, "server/%s", hex))
        return linnet_fail(err, LINNET_ERR_LIMIT, "state directory: the path is too long");
    linnet_status status = linnet_file_read(path, LINNET_OBJECT_BYTES_MAX, &bytes, err);
    if (status == LINNET_OK && bytes.n_bytes != state->n_parameters * 4)
        status =
            linnet_fail(err, LINNET_ERR_MISMATCH, "'%s' is damaged: restore the state from a backup", path);
    for (size_t i = 0; status == LINNET_OK && i < state->n_parameters; i++)
        state->momentum[i] = linnet_load_f32(bytes.bytes + 4 * i);
    linnet_buffer_release(&bytes);
    return status;
}

static linnet_status momentum_write(const linnet_coordinator *c, const linnet_server_state *state,
                                    linnet_hash *ret_name, linnet_error *err)
{
    linnet_buffer bytes = {0};
    if (!state->momentum)
        return LINNET_OK;
    if (!linnet_buffer_reserve(&bytes, state->n_parameters * 4))
        return linnet_fail(err, LINNET_ERR_NOMEM, "server state");
    bytes.n_bytes = state->n_parameters * 4;
    for (size_t i = 0; i < state->n_parameters; i++)
        linnet_store_f32(bytes.bytes + 4 * i, state->momentum[i]);
    linnet_hash name = linnet_hash_of(LINNET_LABEL_OBJECT, bytes.bytes, bytes.n_bytes);
    linnet_status status = linnet_object_write(c, "server", &name, bytes.bytes, bytes.n_bytes, err);
    if (status == LINNET_OK)
        *ret_name = name;
    linnet_buffer_release(&bytes);
    return status;
}

void linnet_server_state_drop(const linnet_coordinator *c, const linnet_hash *name)
{
    char path[4096], hex[2 * LINNET_HASH_BYTES + 1];
    linnet_hex_write(name->bytes, sizeof(name->bytes), hex);
    if (!hash_is_zero(name) && linnet_coordinator_path(c, path, "server/%s", hex))
        (void)unlink(path); /* what stays goes with the next start */
}

/* The name of the newest release's state. */
static linnet_status state_now(const linnet_coordinator *c, linnet_hash *ret_name)
{
    linnet_store_txn *txn = NULL;
    linnet_release_row row;
    uint64_t version;
    linnet_status status = linnet_store_read_begin(c->store, &txn, NULL);
    if (status != LINNET_OK)
        return status;
    status = linnet_config_get_u64(txn, "version", &version, NULL);
    if (status == LINNET_OK)
        status = linnet_release_get(txn, version, &row, NULL);
    if (status == LINNET_OK)
        *ret_name = row.server_state;
    linnet_store_read_end(txn);
    return status;
}

void linnet_server_state_sweep(const linnet_coordinator *c)
{
    char path[4096], hex[2 * LINNET_HASH_BYTES + 1];
    linnet_hash name;
    DIR *dir = linnet_coordinator_path(c, path, "server") ? opendir(path) : NULL;
    if (!dir)
        return;
    if (state_now(c, &name) == LINNET_OK) { /* else nobody knows what is of use */
        linnet_hex_write(name.bytes, sizeof(name.bytes), hex);
        for (const struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
                strcmp(entry->d_name, hex) != 0 &&
                linnet_coordinator_path(c, path, "server/%s", entry->d_name))
                (void)unlink(path);
    }
    (void)closedir(dir);
}

/* ---- the step ---- */

/* adapter and state move by the combined delta, clipped as one. */
static linnet_status step(const linnet_coordinator *c, linnet_combined *combined, linnet_server_state *state,
                          linnet_adapter *adapter, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    if (c->plan.step_clip > 0)
        status = linnet_step_clip(combined->vectors, combined->lengths, combined->n_specs, c->plan.step_clip,
                                  NULL, err);
    for (size_t i = 0; i < combined->n_specs && status == LINNET_OK; i++)
        if (combined->vectors[i])
            linnet_server_step((linnet_server_optimizer)c->plan.server_optimizer, c->plan.server_rate,
                               c->plan.server_momentum, state, adapter,
                               combined->specs[i].vector_id == 0 ? LINNET_FACTOR_B : LINNET_FACTOR_A,
                               combined->vectors[i]);
    return status == LINNET_OK ? linnet_adapter_check_finite(adapter, err) : status;
}

/* ---- the release ---- */

linnet_status linnet_publish_release(linnet_coordinator *c, linnet_store_txn *txn, uint64_t version,
                                     const linnet_hash *previous, const linnet_hash *adapter,
                                     const linnet_hash *server_state, linnet_hash *ret_hash,
                                     linnet_error *err)
{
    linnet_buffer body = {0}, packed = {0}, bytes = {0};
    linnet_release release = {.version = version,
                              .previous = *previous,
                              .base_model = c->base_model,
                              .adapter = *adapter,
                              .layout = linnet_layout_hash(c->layout),
                              .plan = c->plan_hash,
                              .factors = (uint32_t)linnet_rule_factors((linnet_rule)c->plan.rule, version),
                              .is_final = c->plan.rounds != 0 && version >= c->plan.rounds};
    memcpy(release.task, c->task, sizeof(release.task));
    release.dp_unit = linnet_plan_dp_unit(&c->plan);
    linnet_plan_rates(&c->plan, version, &release.learning_rate_b, &release.learning_rate_a);
    linnet_status status = linnet_release_pack(&release, &body, err);
    if (status != LINNET_OK)
        goto done;
    linnet_hash hash = linnet_hash_of(LINNET_LABEL_MODEL, body.bytes, body.n_bytes);
    linnet_signature signature = linnet_sign_hash(c->identity, &hash);
    status = linnet_signed_pack(body.bytes, body.n_bytes, &signature, &packed, err);
    if (status != LINNET_OK)
        goto done;
    linnet_release_row row = {.hash = hash,
                              .adapter = *adapter,
                              .server_state = *server_state,
                              .is_final = release.is_final,
                              .bytes = packed.bytes,
                              .n_bytes = packed.n_bytes};
    linnet_record_id id = linnet_record_number('r', version);
    linnet_release_row_pack(&row, &bytes);
    status = linnet_row_put(txn, &id, &bytes, err);
    if (status == LINNET_OK)
        status = linnet_config_put_u64(txn, "version", version, err);
    if (status == LINNET_OK)
        status = linnet_transcript_append(txn, LINNET_ENTRY_RELEASE, version, &hash, err);
    if (status == LINNET_OK)
        *ret_hash = hash;
done:
    linnet_buffer_release(&body);
    linnet_buffer_release(&packed);
    linnet_buffer_release(&bytes);
    return status;
}

/* ---- the round's end ---- */

/* The rounds that make one step: one, or the opened ones of several cohorts. */
typedef struct publish_job {
    linnet_coordinator *coordinator;
    const linnet_round_row *rounds;
    size_t n_rounds;
    int64_t now_ms;
    linnet_traffic traffic;   /* to add to the newest of them */
    linnet_combined combined; /* owned: what they came to */
    linnet_verdict verdict;
    linnet_hash adapter, server_state; /* of the next release: where the gate rejects, the present ones */
    bool has_loss;
    double loss;
    bool is_stale; /* out: somebody else ended the rounds meanwhile */
} publish_job;

/* The held-out loss a step starts from is the one that the rounds of the step before it led to. (After a
 * rollback nothing did.) */
static linnet_status fill_loss_after(linnet_store_txn *txn, const publish_job *job, linnet_error *err)
{
    linnet_round_row row;
    uint64_t version = job->rounds[0].version;
    for (uint64_t number = job->rounds[0].number - 1; number > 0 && job->has_loss; number--) {
        linnet_status status = linnet_round_get(txn, number, &row, err);
        if (status != LINNET_OK)
            return status;
        if (row.version + 1 < version)
            break;
        if (!linnet_round_has_release(&row) || row.version + 1 != version)
            continue;
        row.has_loss_after = true;
        row.loss_after = job->loss;
        status = linnet_round_put(txn, &row, err);
        if (status != LINNET_OK)
            return status;
    }
    return LINNET_OK;
}

/* A rollback beside this process voids what is under way. */
static linnet_status look_stale(linnet_store_txn *txn, publish_job *job, linnet_error *err)
{
    job->is_stale = false;
    for (size_t i = 0; i < job->n_rounds; i++) {
        linnet_round_row row;
        linnet_status status = linnet_round_get(txn, job->rounds[i].number, &row, err);
        if (status != LINNET_OK)
            return status;
        job->is_stale = job->is_stale || !linnet_round_is_live(&row);
    }
    return LINNET_OK;
}

static linnet_status close_round(linnet_store_txn *txn, const publish_job *job, uint64_t round,
                                 linnet_error *err)
{
    linnet_round_row row;
    bool is_rejected = job->verdict.is_rejected;
    const linnet_outcome_row outcome = {.norm = job->combined.norm,
                                        .has_gate = job->verdict.is_asked,
                                        .gate_loss_before = job->verdict.loss_before,
                                        .gate_loss_after = job->verdict.loss_after,
                                        .parts = job->combined.parts,
                                        .n_parts = job->combined.n_parts};
    linnet_status status = linnet_round_get(txn, round, &row, err);
    if (status != LINNET_OK)
        return status;
    row.state = is_rejected ? LINNET_ROUND_REJECTED : LINNET_ROUND_CLOSED;
    row.closed_ms = job->now_ms;
    if (round == job->rounds[job->n_rounds - 1].number) {
        row.bytes_up += job->traffic.up;
        row.bytes_down += job->traffic.down;
    }
    row.adapter = job->adapter;
    row.has_loss_before = job->has_loss;
    row.loss_before = job->loss;
    status = linnet_round_put(txn, &row, err);
    if (status == LINNET_OK)
        status = linnet_outcome_put(txn, round, &outcome, err);
    if (status == LINNET_OK)
        status = linnet_privacy_ledger_add(job->coordinator, txn, &row, err);
    return status == LINNET_OK
               ? linnet_transcript_append(txn, is_rejected ? LINNET_ENTRY_REJECTED : LINNET_ENTRY_CLOSED,
                                          round, &job->adapter, err)
               : status;
}

static linnet_status publish(linnet_store_txn *txn, void *context, linnet_error *err)
{
    publish_job *job = context;
    linnet_coordinator *c = job->coordinator;
    const linnet_round_row *first = &job->rounds[0];
    linnet_hash release;
    linnet_status status = look_stale(txn, job, err);
    if (status != LINNET_OK || job->is_stale)
        return status;
    for (size_t i = 0; i < job->n_rounds && status == LINNET_OK; i++)
        status = close_round(txn, job, job->rounds[i].number, err);
    if (status == LINNET_OK)
        status = fill_loss_after(txn, job, err);
    if (status == LINNET_OK)
        status = linnet_publish_release(c, txn, first->version + 1, &first->release, &job->adapter,
                                        &job->server_state, &release, err);
    if (status == LINNET_OK && (c->plan.rounds == 0 || first->version + 1 < c->plan.rounds))
        status = linnet_rounds_open(c, txn, first->version + 1, &release, job->now_ms, err);
    return status;
}

/* Every cohort of the step begins anew. */
static linnet_status give_up(linnet_store_txn *txn, void *context, linnet_error *err)
{
    publish_job *job = context;
    const linnet_round_row *first = &job->rounds[0];
    linnet_status status = look_stale(txn, job, err);
    if (status != LINNET_OK || job->is_stale)
        return status;
    status = linnet_rounds_end_all(job->coordinator, txn, job->now_ms, err);
    return status == LINNET_OK
               ? linnet_rounds_open(job->coordinator, txn, first->version, &first->release, job->now_ms, err)
               : status;
}

/* What the release that a round started from says of adapter and optimiser state. */
static linnet_status start_load(linnet_coordinator *c, uint64_t version, linnet_hash *ret_adapter,
                                linnet_hash *ret_state, linnet_error *err)
{
    linnet_store_txn *txn = NULL;
    linnet_release_row release;
    linnet_status status = linnet_store_read_begin(c->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_release_get(txn, version, &release, err);
    if (status == LINNET_OK) {
        *ret_adapter = release.adapter;
        *ret_state = release.server_state;
    }
    linnet_store_read_end(txn);
    return status;
}

/* The step from `present` to a candidate, through the gate, into files. */
static linnet_status candidate_make(linnet_coordinator *c, const linnet_adapter *present,
                                    linnet_server_state *state, publish_job *job, linnet_error *err)
{
    linnet_adapter *candidate = NULL;
    linnet_status status = linnet_adapter_copy(present, &candidate, err);
    if (status == LINNET_OK)
        status = step(c, &job->combined, state, candidate, err);
    if (status == LINNET_OK)
        status = linnet_gate_judge(c, present, candidate, &job->verdict, err);
    if (status == LINNET_OK && !job->verdict.is_rejected) {
        status = adapter_write(c, candidate, &job->adapter, err);
        job->server_state = (linnet_hash){{0}};
        if (status == LINNET_OK)
            status = momentum_write(c, state, &job->server_state, err);
    }
    linnet_adapter_destroy(candidate);
    return status;
}

/* What the step leads to. RANGE: nothing that can be released. */
static linnet_status result_make(linnet_coordinator *c, publish_job *job, linnet_error *err)
{
    linnet_server_state state = {0};
    linnet_adapter *present = NULL;
    linnet_status status = start_load(c, job->rounds[0].version, &job->adapter, &job->server_state, err);
    if (status == LINNET_OK)
        status = linnet_object_load_adapter(c, &job->adapter, &present, err);
    if (status == LINNET_OK)
        status = linnet_server_state_init(&state, (linnet_server_optimizer)c->plan.server_optimizer,
                                          c->layout->n_parameters, err);
    if (status == LINNET_OK && state.momentum && !hash_is_zero(&job->server_state))
        status = momentum_read(c, &job->server_state, &state, err);
    if (status == LINNET_OK)
        status = candidate_make(c, present, &state, job, err);
    linnet_server_state_release(&state);
    linnet_adapter_destroy(present);
    return status;
}

/* The mean held-out loss that the participants reported. */
static void loss_of(publish_job *job)
{
    const uint64_t *lanes = job->combined.lanes;
    job->has_loss = lanes[LINNET_LANE_LOSS_WEIGHT] > 0;
    if (job->has_loss)
        job->loss =
            (double)lanes[LINNET_LANE_LOSS] / LINNET_LANE_LOSS_SCALE / (double)lanes[LINNET_LANE_LOSS_WEIGHT];
}

/* Cohorts side by side; what a single device did is in no log. */
static void tell_influence(const publish_job *job)
{
    const linnet_combined *combined = &job->combined;
    for (size_t k = 0; combined->n_parts > 1 && k < combined->n_parts; k++) {
        const linnet_influence *part = &combined->parts[k];
        if (!part->is_device)
            linnet_coordinator_say(job->coordinator, 6,
                                   "round %llu: its mean has norm %.4g and cosine %.3f with the step",
                                   (unsigned long long)part->round, part->norm, part->cosine);
    }
}

static void tell_end(const publish_job *job)
{
    linnet_coordinator *c = job->coordinator;
    unsigned long long number = job->rounds[job->n_rounds - 1].number, version = job->rounds[0].version;
    tell_influence(job);
    if (job->verdict.is_rejected)
        linnet_coordinator_say(c, 4,
                               "round %llu rejected: the gate says loss %.4f, at most %g times %.4f passes; "
                               "version %llu keeps the adapter of version %llu",
                               number, job->verdict.loss_after, c->plan.gate_tolerance,
                               job->verdict.loss_before, version + 1, version);
    else
        linnet_coordinator_say(c, 6, "round %llu closed: %llu contributions, version %llu", number,
                               (unsigned long long)job->combined.n_contributions, version + 1);
}

static linnet_status void_all(publish_job *job, linnet_error *err)
{
    linnet_coordinator_say(job->coordinator, 3, "round %llu void: %s",
                           (unsigned long long)job->rounds[job->n_rounds - 1].number,
                           err ? err->message : "its result cannot be released");
    return linnet_store_update(job->coordinator->store, give_up, job, err);
}

/* From what was combined to a release, in one transaction that closes the rounds, or voids them. */
static linnet_status publish_job_run(publish_job *job, linnet_status combined, linnet_error *err)
{
    linnet_coordinator *c = job->coordinator;
    linnet_status status = combined;
    if (status == LINNET_OK) {
        loss_of(job);
        status = result_make(c, job, err);
    }
    if (status == LINNET_ERR_RANGE)
        return void_all(job, err);
    job->traffic = linnet_traffic_peek(c);
    if (status == LINNET_OK)
        status = linnet_store_update(c->store, publish, job, err);
    if (status != LINNET_OK)
        return status;
    if (!job->is_stale) {
        linnet_traffic_settle(c, &job->traffic);
        tell_end(job);
    }
    linnet_server_state_sweep(c);
    return LINNET_OK;
}

/* A frozen round whose contributions are in the open. */
static linnet_status combine_round(linnet_coordinator *c, const linnet_round_row *round,
                                   linnet_combined *ret_combined, linnet_error *err)
{
    linnet_fold fold = {0};
    if (linnet_plan_compares(&c->plan))
        return linnet_combine_contributions(c, round, ret_combined, err);
    linnet_status status = c->plan.profile == LINNET_PROFILE_CENTRAL_DP
                               ? linnet_central_fold(c, round, &fold, err)
                               : linnet_fold_round(c, round, &fold, err);
    if (status == LINNET_OK)
        status = linnet_combine_sums(c, round->version, &fold, 1, ret_combined, err);
    linnet_fold_release(&fold);
    return status;
}

linnet_status linnet_publish_round(linnet_coordinator *c, const linnet_round_row *round, int64_t now_ms,
                                   linnet_error *err)
{
    publish_job job = {.coordinator = c, .rounds = round, .n_rounds = 1, .now_ms = now_ms};
    linnet_status status = publish_job_run(&job, combine_round(c, round, &job.combined, err), err);
    linnet_combined_release(&job.combined);
    if (status == LINNET_OK)
        linnet_spool_drop_round(c, round->number);
    return status;
}

/* The sums of cohorts, out of their files. */
static linnet_status combine_step(linnet_coordinator *c, const linnet_round_row *rounds, size_t n_rounds,
                                  linnet_combined *ret_combined, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    linnet_fold *folds = calloc(n_rounds, sizeof(*folds));
    if (!folds)
        return linnet_fail(err, LINNET_ERR_NOMEM, "sums of %zu cohorts", n_rounds);
    for (size_t i = 0; i < n_rounds && status == LINNET_OK; i++)
        status = linnet_sum_read(c, &rounds[i], &folds[i], err);
    if (status == LINNET_OK)
        status = linnet_combine_sums(c, rounds[0].version, folds, n_rounds, ret_combined, err);
    for (size_t i = 0; i < n_rounds; i++)
        linnet_fold_release(&folds[i]);
    free(folds);
    return status;
}

linnet_status linnet_publish_step(linnet_coordinator *c, const linnet_round_row *rounds, size_t n_rounds,
                                  int64_t now_ms, linnet_error *err)
{
    publish_job job = {.coordinator = c, .rounds = rounds, .n_rounds = n_rounds, .now_ms = now_ms};
    linnet_status status = publish_job_run(&job, combine_step(c, rounds, n_rounds, &job.combined, err), err);
    linnet_combined_release(&job.combined);
    for (size_t i = 0; i < n_rounds && status == LINNET_OK; i++)
        linnet_sum_drop(c, rounds[i].number);
    return status;
}
