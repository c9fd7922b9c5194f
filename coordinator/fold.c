/* SPDX-License-Identifier: Apache-2.0 */
/* From spool to sum. A frozen round's contributions never change and all lie complete on disk, so folding is
 * a pure function of the store: it is done once, after the freeze, and done again from the start if the
 * process dies in between. (A snapshot of the accumulator, as SECURE-AGGREGATION 7 has it, would save at most
 * one reading of at most 1024 files; it belongs to folding while uploads still arrive, which this version
 * does not do.) Sums are unsigned modulo 2^32, so neither order nor interruption changes a bit. Memory: one
 * accumulator and one chunk. */
#include "state.h"

#include <stdlib.h>

typedef struct fold_job {
    linnet_coordinator *coordinator;
    uint64_t round;
    linnet_device_id *devices; /* owned */
    size_t n_devices, capacity;
} fold_job;

static linnet_status add_device(void *context, const uint8_t *fields, size_t n_fields, const uint8_t *bytes,
                                size_t n_bytes, linnet_error *err)
{
    fold_job *job = context;
    (void)bytes;
    (void)n_bytes;
    if (n_fields != LINNET_DEVICE_ID_BYTES || job->n_devices == job->capacity)
        return linnet_fail(err, LINNET_ERR_FORMAT,
                           "store: round %llu has other contributions than it counted",
                           (unsigned long long)job->round);
    memcpy(job->devices[job->n_devices++].bytes, fields, LINNET_DEVICE_ID_BYTES);
    return LINNET_OK;
}

/* Who contributed, in the order of their ids. */
static linnet_status devices_list(fold_job *job, size_t n_accepted, linnet_error *err)
{
    linnet_store_txn *txn = NULL;
    linnet_record_id prefix = linnet_record_number('b', job->round);
    job->devices = malloc((n_accepted + 1) * sizeof(*job->devices));
    job->capacity = n_accepted;
    if (!job->devices)
        return linnet_fail(err, LINNET_ERR_NOMEM, "contributions of a round");
    linnet_status status = linnet_store_read_begin(job->coordinator->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_store_each(txn, &prefix, add_device, job, err);
    linnet_store_read_end(txn);
    if (status == LINNET_OK && job->n_devices != n_accepted)
        status = linnet_fail(err, LINNET_ERR_FORMAT, "store: round %llu counts %zu contributions and has %zu",
                             (unsigned long long)job->round, n_accepted, job->n_devices);
    return status;
}

/* The totals of the lane vector. They are sums of non-negative numbers below 2^32 by the plan's check. */
static void lanes_read(linnet_fold *fold)
{
    const uint32_t *sums = fold->sums;
    for (size_t i = 0; i < fold->n_specs; i++) {
        if (fold->specs[i].vector_id == 1)
            for (size_t lane = 0; lane < LINNET_LANES && lane < fold->specs[i].length; lane++)
                fold->lanes[lane] = sums[lane];
        sums += fold->specs[i].length;
    }
}

linnet_status linnet_fold_round(linnet_coordinator *c, const linnet_round_row *round, linnet_fold *ret_fold,
                                linnet_error *err)
{
    linnet_fold fold = {0};
    fold_job job = {.coordinator = c, .round = round->number};
    size_t n_sums = 0;
    linnet_status status =
        linnet_plan_vectors(&c->plan, c->layout, round->version, fold.specs, &fold.n_specs, err);
    if (status == LINNET_OK)
        status = devices_list(&job, round->accepted, err);
    for (size_t i = 0; status == LINNET_OK && i < fold.n_specs; i++)
        n_sums += (size_t)fold.specs[i].length;
    if (status == LINNET_OK && !(fold.sums = calloc(n_sums, sizeof(*fold.sums))))
        status = linnet_fail(err, LINNET_ERR_NOMEM, "accumulator of %zu coordinates", n_sums);
    for (size_t i = 0; status == LINNET_OK && i < job.n_devices; i++) {
        linnet_spool_id id = {.round = round->number, .device = job.devices[i]};
        status = linnet_spool_fold(c, &id, fold.specs, fold.n_specs, fold.sums, err);
    }
    free(job.devices);
    fold.n_contributions = job.n_devices;
    if (status == LINNET_OK)
        lanes_read(&fold);
    if (status == LINNET_OK && fold.lanes[LINNET_LANE_PARTICIPANTS] != fold.n_contributions)
        status = linnet_fail(
            err, LINNET_ERR_INTERNAL, "round %llu: the lanes count %llu participants, the store %llu",
            (unsigned long long)round->number, (unsigned long long)fold.lanes[LINNET_LANE_PARTICIPANTS],
            (unsigned long long)fold.n_contributions);
    if (status != LINNET_OK) {
        linnet_fold_release(&fold);
        return status;
    }
    *ret_fold = fold;
    return LINNET_OK;
}

void linnet_fold_release(linnet_fold *fold)
{
    free(fold->sums);
    *fold = (linnet_fold){0};
}
