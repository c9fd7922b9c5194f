/* SPDX-License-Identifier: Apache-2.0 */
/* Back to an older adapter, forward in versions: devices take releases with rising numbers only, so what was
 * good is published again as the next one. One transaction ends the rounds on the present release, says in
 * the transcript which version comes back, publishes it, and opens the next round on it. Momentum that led
 * here would lead here again: it starts anew. A serving process finds all this in the store; a round that it
 * was about to publish is void by then, and it lets go of it (publish.c). */
#include "state.h"

typedef struct rollback_job {
    linnet_coordinator *coordinator;
    uint64_t wanted; /* UINT64_MAX: the newest that differs */
    int64_t now_ms;
    uint64_t from, to, version; /* out */
    linnet_hash old_state;      /* out: of the optimiser, before */
} rollback_job;

/* The newest release before `version` with another adapter than this one's. */
static linnet_status find_older(linnet_store_txn *txn, uint64_t version, const linnet_hash *adapter,
                                uint64_t *ret_version, linnet_error *err)
{
    linnet_release_row row;
    while (version-- > 0) {
        linnet_status status = linnet_release_get(txn, version, &row, err);
        if (status != LINNET_OK)
            return status;
        if (!linnet_hash_equal(&row.adapter, adapter)) {
            *ret_version = version;
            return LINNET_OK;
        }
    }
    return linnet_fail(err, LINNET_ERR_NOT_FOUND, "there is no older adapter to go back to");
}

/* ret_row's adapter and number are used; its bytes end with the next write. */
static linnet_status target_find(linnet_store_txn *txn, const rollback_job *job,
                                 const linnet_release_row *present, uint64_t *ret_version,
                                 linnet_hash *ret_adapter, linnet_error *err)
{
    linnet_release_row row;
    uint64_t version = job->wanted;
    linnet_status status = LINNET_OK;
    if (job->wanted == UINT64_MAX)
        status = find_older(txn, job->from, &present->adapter, &version, err);
    else if (version >= job->from)
        status =
            linnet_fail(err, LINNET_ERR_NOT_FOUND, "version %llu is not older than the present one, %llu",
                        (unsigned long long)version, (unsigned long long)job->from);
    if (status == LINNET_OK)
        status = linnet_release_get(txn, version, &row, err);
    if (status != LINNET_OK)
        return status;
    if (linnet_hash_equal(&row.adapter, &present->adapter))
        return linnet_fail(err, LINNET_ERR_ARG, "version %llu has the adapter that is out already",
                           (unsigned long long)version);
    *ret_version = version;
    *ret_adapter = row.adapter;
    return LINNET_OK;
}

static linnet_status rollback(linnet_store_txn *txn, void *context, linnet_error *err)
{
    static const linnet_hash no_state;
    rollback_job *job = context;
    linnet_coordinator *c = job->coordinator;
    linnet_release_row present;
    linnet_hash adapter, previous, release;
    linnet_status status = linnet_config_get_u64(txn, "version", &job->from, err);
    if (status == LINNET_OK)
        status = linnet_release_get(txn, job->from, &present, err);
    if (status == LINNET_OK)
        status = target_find(txn, job, &present, &job->to, &adapter, err);
    if (status != LINNET_OK)
        return status;
    previous = present.hash;
    job->old_state = present.server_state;
    job->version = job->from + 1;
    status = linnet_rounds_end_all(c, txn, job->now_ms, err);
    if (status == LINNET_OK)
        status = linnet_transcript_append(txn, LINNET_ENTRY_ROLLBACK, job->to, &adapter, err);
    if (status == LINNET_OK)
        status = linnet_publish_release(c, txn, job->version, &previous, &adapter, &no_state, &release, err);
    if (status == LINNET_OK && (c->plan.rounds == 0 || job->version < c->plan.rounds))
        status = linnet_rounds_open(c, txn, job->version, &release, job->now_ms, err);
    return status;
}

linnet_status linnet_coordinator_rollback(linnet_coordinator *c, uint64_t version, int64_t now_ms,
                                          uint64_t *ret_version, linnet_error *err)
{
    rollback_job job = {.coordinator = c, .wanted = version, .now_ms = now_ms};
    linnet_status status = linnet_store_update(c->store, rollback, &job, err);
    if (status != LINNET_OK)
        return status;
    linnet_server_state_drop(
        c, &job.old_state); /* that of the release gone back to is gone since its own step */
    linnet_coordinator_say(c, 4, "rolled back: version %llu has the adapter of version %llu",
                           (unsigned long long)job.version, (unsigned long long)job.to);
    *ret_version = job.version;
    return LINNET_OK;
}
