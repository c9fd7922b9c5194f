/* SPDX-License-Identifier: Apache-2.0 */
/* From a sum to the next global adapter: decode the mean, take the server's step on each active factor, write
 * the new adapter as a durable object, and then, in one transaction, everything that names it: the release,
 * the round's end, the next round and its announcement, the optimiser's state. A crash before that
 * transaction leaves a frozen round, which is published again to the same bytes; one after it leaves a spool
 * that the next start sweeps. */
#include "state.h"

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

linnet_status linnet_object_write(const linnet_coordinator *c, const char *folder, const linnet_hash *name,
                                  const void *bytes, size_t n_bytes, linnet_error *err)
{
    char path[4096], hex[2 * LINNET_HASH_BYTES + 1];
    linnet_hex_write(name->bytes, sizeof(name->bytes), hex);
    if (!linnet_coordinator_path(c, path, "%s/%s", folder, hex))
        return linnet_fail(err, LINNET_ERR_LIMIT, "state directory: the path is too long");
    return c->is_durable ? linnet_file_write(path, bytes, n_bytes, 0600, err)
                         : write_quickly(path, bytes, n_bytes, err);
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

static linnet_status step_factor(const linnet_coordinator *c, const linnet_ring_spec *spec,
                                 const uint32_t *sum, uint64_t weight_sum, linnet_server_state *state,
                                 linnet_adapter *adapter, linnet_error *err)
{
    size_t length = (size_t)spec->length;
    float *mean = malloc(length * sizeof(*mean));
    if (!mean)
        return linnet_fail(err, LINNET_ERR_NOMEM, "mean of %zu coordinates", length);
    linnet_status status = linnet_ring_decode(spec, sum, weight_sum, mean, err);
    if (status == LINNET_OK)
        linnet_server_step((linnet_server_optimizer)c->plan.server_optimizer, c->plan.server_rate,
                           c->plan.server_momentum, state, adapter,
                           spec->vector_id == 0 ? LINNET_FACTOR_B : LINNET_FACTOR_A, mean);
    free(mean);
    return status;
}

/* adapter and state move by the mean of a fold. */
static linnet_status step(const linnet_coordinator *c, const linnet_fold *fold, linnet_server_state *state,
                          linnet_adapter *adapter, linnet_error *err)
{
    const uint32_t *sum = fold->sums;
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < fold->n_specs && status == LINNET_OK; i++) {
        if (fold->specs[i].vector_id != 1)
            status =
                step_factor(c, &fold->specs[i], sum, fold->lanes[LINNET_LANE_WEIGHT], state, adapter, err);
        sum += fold->specs[i].length;
    }
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

typedef struct publish_job {
    linnet_coordinator *coordinator;
    uint64_t round;
    int64_t now_ms;
    linnet_hash previous, adapter, server_state;
    bool has_loss;
    double loss;
    linnet_round_row row; /* out */
} publish_job;

/* The held-out loss a round starts from is the one the closed round before it led to. */
static linnet_status fill_loss_after(linnet_store_txn *txn, const publish_job *job, linnet_error *err)
{
    linnet_round_row row;
    for (uint64_t number = job->round - 1; number > 0 && job->has_loss; number--) {
        linnet_status status = linnet_round_get(txn, number, &row, err);
        if (status != LINNET_OK)
            return status;
        if (row.state != LINNET_ROUND_CLOSED)
            continue;
        row.has_loss_after = true;
        row.loss_after = job->loss;
        return linnet_round_put(txn, &row, err);
    }
    return LINNET_OK;
}

static linnet_status publish(linnet_store_txn *txn, void *context, linnet_error *err)
{
    publish_job *job = context;
    linnet_coordinator *c = job->coordinator;
    linnet_hash release;
    linnet_round_row *row = &job->row;
    linnet_status status = linnet_round_get(txn, job->round, row, err);
    if (status != LINNET_OK)
        return status;
    if (row->state != LINNET_ROUND_FROZEN)
        return linnet_fail(err, LINNET_ERR_INTERNAL, "round %llu is published already",
                           (unsigned long long)job->round);
    row->state = LINNET_ROUND_CLOSED;
    row->closed_ms = job->now_ms;
    row->adapter = job->adapter;
    row->has_loss_before = job->has_loss;
    row->loss_before = job->loss;
    status = linnet_round_put(txn, row, err);
    if (status == LINNET_OK)
        status = fill_loss_after(txn, job, err);
    if (status == LINNET_OK)
        status = linnet_transcript_append(txn, LINNET_ENTRY_CLOSED, row->number, &job->adapter, err);
    if (status == LINNET_OK)
        status = linnet_publish_release(c, txn, row->version + 1, &job->previous, &job->adapter,
                                        &job->server_state, &release, err);
    if (status == LINNET_OK && (c->plan.rounds == 0 || row->version + 1 < c->plan.rounds))
        status = linnet_rounds_open(c, txn, row->version + 1, &release, job->now_ms, err);
    return status;
}

static linnet_status give_up(linnet_store_txn *txn, void *context, linnet_error *err)
{
    publish_job *job = context;
    linnet_status status = linnet_round_get(txn, job->round, &job->row, err);
    return status == LINNET_OK ? linnet_rounds_void(job->coordinator, txn, &job->row, job->now_ms, err)
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

/* Everything before the transaction: fold, step, files. RANGE: the result is not finite. */
static linnet_status result_make(linnet_coordinator *c, const linnet_round_row *round, publish_job *job,
                                 linnet_error *err)
{
    linnet_fold fold = {0};
    linnet_server_state state = {0};
    linnet_adapter *adapter = NULL;
    linnet_hash start, start_state;
    linnet_status status = start_load(c, round->version, &start, &start_state, err);
    if (status == LINNET_OK)
        status = linnet_fold_round(c, round, &fold, err);
    if (status == LINNET_OK)
        status = linnet_object_load_adapter(c, &start, &adapter, err);
    if (status == LINNET_OK)
        status = linnet_server_state_init(&state, (linnet_server_optimizer)c->plan.server_optimizer,
                                          c->layout->n_parameters, err);
    if (status == LINNET_OK && state.momentum && !hash_is_zero(&start_state))
        status = momentum_read(c, &start_state, &state, err);
    if (status == LINNET_OK)
        status = step(c, &fold, &state, adapter, err);
    if (status == LINNET_OK)
        status = adapter_write(c, adapter, &job->adapter, err);
    if (status == LINNET_OK)
        status = momentum_write(c, &state, &job->server_state, err);
    job->has_loss = fold.lanes[LINNET_LANE_LOSS_WEIGHT] > 0;
    if (job->has_loss)
        job->loss = (double)fold.lanes[LINNET_LANE_LOSS] / LINNET_LANE_LOSS_SCALE /
                    (double)fold.lanes[LINNET_LANE_LOSS_WEIGHT];
    linnet_fold_release(&fold);
    linnet_server_state_release(&state);
    linnet_adapter_destroy(adapter);
    return status;
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

linnet_status linnet_publish_round(linnet_coordinator *c, const linnet_round_row *round, int64_t now_ms,
                                   linnet_error *err)
{
    publish_job job = {
        .coordinator = c, .round = round->number, .now_ms = now_ms, .previous = round->release};
    linnet_hash start, start_state = {{0}};
    linnet_status status = result_make(c, round, &job, err);
    if (status == LINNET_ERR_RANGE) {
        linnet_coordinator_say(c, 3, "round %llu void: %s", (unsigned long long)round->number,
                               err ? err->message : "its result is not finite");
        status = linnet_store_update(c->store, give_up, &job, err);
    } else if (status == LINNET_OK) {
        status = linnet_store_update(c->store, publish, &job, err);
        if (status == LINNET_OK)
            linnet_coordinator_say(c, 6, "round %llu closed: %u contributions, version %llu",
                                   (unsigned long long)round->number, job.row.accepted,
                                   (unsigned long long)round->version + 1);
    }
    if (status != LINNET_OK)
        return status;
    linnet_spool_drop_round(c, round->number);
    if (job.row.state == LINNET_ROUND_CLOSED &&
        start_load(c, round->version, &start, &start_state, NULL) == LINNET_OK)
        old_state_drop(c, &start_state, &job.server_state);
    return LINNET_OK;
}
