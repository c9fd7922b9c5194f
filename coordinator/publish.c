/* SPDX-License-Identifier: Apache-2.0 */
/* From a sum to the next global adapter: decode the mean, take the server's step on each active factor, write
 * the new adapter as a durable object, and then, in one transaction, everything that names it: the release,
 * the round's end, the next round and its announcement, the optimiser's state. A crash before that
 * transaction leaves a frozen round, which is published again to the same bytes; one after it leaves a spool
 * that the next start sweeps. */
#include "privacy_ledger.h"
#include "state.h"

#include "combine.h"
#include "linnet/file.h"

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

/* ---- the step ---- */

static void step_factor(const linnet_coordinator *c, linnet_factors factor, const float *mean,
                        linnet_server_state *state, linnet_adapter *adapter)
{
    if (mean)
        linnet_server_step((linnet_server_optimizer)c->plan.server_optimizer, c->plan.server_rate,
                           c->plan.server_momentum, state, adapter, factor, mean);
}

/* adapter and state move by the mean of a step's sums. */
static linnet_status step(const linnet_coordinator *c, uint64_t version, const linnet_fold *folds,
                          size_t n_folds, linnet_server_state *state, linnet_adapter *adapter,
                          linnet_error *err)
{
    linnet_mean mean = {0};
    linnet_cohort_sum *cohorts = calloc(n_folds, sizeof(*cohorts));
    if (!cohorts)
        return linnet_fail(err, LINNET_ERR_NOMEM, "sums of %zu cohorts", n_folds);
    for (size_t i = 0; i < n_folds; i++)
        cohorts[i] = (linnet_cohort_sum){.round = folds[i].round,
                                         .announcement = folds[i].announcement,
                                         .survivors = (uint32_t)folds[i].n_contributions,
                                         .weight_sum = folds[i].lanes[LINNET_LANE_WEIGHT],
                                         .sums = folds[i].sums};
    linnet_status status = linnet_combine_sums(&c->plan, c->layout, version, folds[0].specs, folds[0].n_specs,
                                               cohorts, n_folds, &mean, err);
    if (status == LINNET_OK) {
        step_factor(c, LINNET_FACTOR_B, mean.b, state, adapter);
        step_factor(c, LINNET_FACTOR_A, mean.a, state, adapter);
        status = linnet_adapter_check_finite(adapter, err);
    }
    linnet_mean_release(&mean);
    free(cohorts);
    return status;
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
                              .is_final = c->plan.rounds != 0 && version >= c->plan.rounds,
                              .dp_unit = (uint32_t)linnet_plan_dp_unit(&c->plan)};
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

/* The rounds whose sums make one step: one, or the opened ones of several cohorts. */
typedef struct publish_job {
    linnet_coordinator *coordinator;
    const linnet_round_row *rounds;
    size_t n_rounds;
    int64_t now_ms;
    linnet_hash adapter, server_state;
    bool has_loss;
    double loss;
} publish_job;

/* The held-out loss a step starts from is the one the closed rounds of the step before it led to. */
static linnet_status fill_loss_after(linnet_store_txn *txn, const publish_job *job, linnet_error *err)
{
    linnet_round_row row;
    bool has_version = false;
    uint64_t version = 0;
    for (uint64_t number = job->rounds[0].number - 1; number > 0 && job->has_loss; number--) {
        linnet_status status = linnet_round_get(txn, number, &row, err);
        if (status != LINNET_OK)
            return status;
        if (row.state != LINNET_ROUND_CLOSED || row.version == job->rounds[0].version)
            continue;
        if (has_version && row.version != version)
            break;
        has_version = true;
        version = row.version;
        row.has_loss_after = true;
        row.loss_after = job->loss;
        status = linnet_round_put(txn, &row, err);
        if (status != LINNET_OK)
            return status;
    }
    return LINNET_OK;
}

static linnet_status close_round(linnet_store_txn *txn, const publish_job *job, uint64_t round,
                                 linnet_error *err)
{
    linnet_round_row row;
    linnet_status status = linnet_round_get(txn, round, &row, err);
    if (status != LINNET_OK)
        return status;
    if (row.state != LINNET_ROUND_FROZEN && row.state != LINNET_ROUND_OPENED)
        return linnet_fail(err, LINNET_ERR_INTERNAL, "round %llu is published already",
                           (unsigned long long)round);
    row.state = LINNET_ROUND_CLOSED;
    row.closed_ms = job->now_ms;
    row.adapter = job->adapter;
    row.has_loss_before = job->has_loss;
    row.loss_before = job->loss;
    status = linnet_round_put(txn, &row, err);
    if (status == LINNET_OK)
        status = linnet_privacy_ledger_add(job->coordinator, txn, &row, err);
    return status == LINNET_OK ? linnet_transcript_append(txn, LINNET_ENTRY_CLOSED, round, &job->adapter, err)
                               : status;
}

static linnet_status publish(linnet_store_txn *txn, void *context, linnet_error *err)
{
    const publish_job *job = context;
    linnet_coordinator *c = job->coordinator;
    const linnet_round_row *first = &job->rounds[0];
    linnet_hash release;
    linnet_status status = LINNET_OK;
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

static linnet_status give_up(linnet_store_txn *txn, void *context, linnet_error *err)
{
    const publish_job *job = context;
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < job->n_rounds && status == LINNET_OK; i++) {
        linnet_round_row row;
        status = linnet_round_get(txn, job->rounds[i].number, &row, err);
        if (status == LINNET_OK)
            status = linnet_rounds_void(job->coordinator, txn, &row, job->now_ms, err);
    }
    return status;
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

/* Step, files. RANGE: the result is not finite. */
static linnet_status result_make(linnet_coordinator *c, const linnet_fold *folds, publish_job *job,
                                 linnet_error *err)
{
    linnet_server_state state = {0};
    linnet_adapter *adapter = NULL;
    linnet_hash start, start_state;
    uint64_t version = job->rounds[0].version;
    linnet_status status = start_load(c, version, &start, &start_state, err);
    if (status == LINNET_OK)
        status = linnet_object_load_adapter(c, &start, &adapter, err);
    if (status == LINNET_OK)
        status = linnet_server_state_init(&state, (linnet_server_optimizer)c->plan.server_optimizer,
                                          c->layout->n_parameters, err);
    if (status == LINNET_OK && state.momentum && !hash_is_zero(&start_state))
        status = momentum_read(c, &start_state, &state, err);
    if (status == LINNET_OK)
        status = step(c, version, folds, job->n_rounds, &state, adapter, err);
    if (status == LINNET_OK)
        status = adapter_write(c, adapter, &job->adapter, err);
    if (status == LINNET_OK)
        status = momentum_write(c, &state, &job->server_state, err);
    linnet_server_state_release(&state);
    linnet_adapter_destroy(adapter);
    return status;
}

/* The mean held-out loss that the participants reported. */
static void loss_of(const linnet_fold *folds, size_t n_folds, publish_job *job)
{
    uint64_t loss = 0, weight = 0;
    for (size_t i = 0; i < n_folds; i++) {
        loss += folds[i].lanes[LINNET_LANE_LOSS];
        weight += folds[i].lanes[LINNET_LANE_LOSS_WEIGHT];
    }
    job->has_loss = weight > 0;
    if (job->has_loss)
        job->loss = (double)loss / LINNET_LANE_LOSS_SCALE / (double)weight;
}

/* The state file that only the closed round's start named is of no use any more. */
static void old_state_drop(const linnet_coordinator *c, const linnet_hash *old, const linnet_hash *current)
{
    char path[4096], hex[2 * LINNET_HASH_BYTES + 1];
    linnet_hex_write(old->bytes, sizeof(old->bytes), hex);
    if (!hash_is_zero(old) && !linnet_hash_equal(old, current) &&
        linnet_coordinator_path(c, path, "server/%s", hex))
        (void)unlink(path);
}

/* From sums to a release, in one transaction that closes the rounds, or voids them. */
static linnet_status publish_job_run(publish_job *job, const linnet_fold *folds, linnet_error *err)
{
    linnet_coordinator *c = job->coordinator;
    unsigned long long number = job->rounds[job->n_rounds - 1].number;
    linnet_hash start, start_state = {{0}};
    loss_of(folds, job->n_rounds, job);
    linnet_status status = result_make(c, folds, job, err);
    if (status == LINNET_ERR_RANGE) {
        linnet_coordinator_say(c, 3, "round %llu void: %s", number,
                               err ? err->message : "its result is not finite");
        return linnet_store_update(c->store, give_up, job, err);
    }
    if (status == LINNET_OK)
        status = linnet_store_update(c->store, publish, job, err);
    if (status != LINNET_OK)
        return status;
    uint64_t n_contributions = 0, version = job->rounds[0].version;
    for (size_t i = 0; i < job->n_rounds; i++)
        n_contributions += folds[i].n_contributions;
    linnet_coordinator_say(c, 6, "round %llu closed: %llu contributions, version %llu", number,
                           (unsigned long long)n_contributions, (unsigned long long)version + 1);
    if (start_load(c, version, &start, &start_state, NULL) == LINNET_OK)
        old_state_drop(c, &start_state, &job->server_state);
    return LINNET_OK;
}

linnet_status linnet_publish_round(linnet_coordinator *c, const linnet_round_row *round, int64_t now_ms,
                                   linnet_error *err)
{
    publish_job job = {.coordinator = c, .rounds = round, .n_rounds = 1, .now_ms = now_ms};
    linnet_fold fold = {0};
    linnet_status status = linnet_fold_round(c, round, &fold, err);
    if (status == LINNET_OK)
        status = publish_job_run(&job, &fold, err);
    linnet_fold_release(&fold);
    if (status == LINNET_OK)
        linnet_spool_drop_round(c, round->number);
    return status;
}

linnet_status linnet_publish_step(linnet_coordinator *c, const linnet_round_row *rounds, size_t n_rounds,
                                  int64_t now_ms, linnet_error *err)
{
    publish_job job = {.coordinator = c, .rounds = rounds, .n_rounds = n_rounds, .now_ms = now_ms};
    linnet_status status = LINNET_OK;
    linnet_fold *folds = calloc(n_rounds, sizeof(*folds));
    if (!folds)
        return linnet_fail(err, LINNET_ERR_NOMEM, "sums of %zu cohorts", n_rounds);
    for (size_t i = 0; i < n_rounds && status == LINNET_OK; i++)
        status = linnet_sum_read(c, &rounds[i], &folds[i], err);
    if (status == LINNET_OK)
        status = publish_job_run(&job, folds, err);
    for (size_t i = 0; i < n_rounds; i++) {
        linnet_fold_release(&folds[i]);
        if (status == LINNET_OK)
            linnet_sum_drop(c, rounds[i].number);
    }
    free(folds);
    return status;
}
