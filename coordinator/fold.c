/* SPDX-License-Identifier: Apache-2.0 */
/* From spool to sum. A frozen round's contributions never change and all lie complete on disk, so folding is
 * a pure function of the store: it is done once, after the freeze, and done again from the start if the
 * process dies in between. (A snapshot of the accumulator, as SECURE-AGGREGATION 7 has it, would save at most
 * one reading of at most 1024 files; it belongs to folding while uploads still arrive, which this version
 * does not do.) Sums are unsigned modulo 2^32, so neither order nor interruption changes a bit. Memory: one
 * accumulator and one chunk. */
#include "state.h"

#include "linnet/file.h"

#include <stdlib.h>
#include <unistd.h>

typedef struct contributors {
    uint64_t round;
    linnet_device_id *devices; /* owned */
    size_t n_devices, capacity;
} contributors;

static linnet_status add_device(void *context, const uint8_t *fields, size_t n_fields, const uint8_t *bytes,
                                size_t n_bytes, linnet_error *err)
{
    contributors *job = context;
    (void)bytes;
    (void)n_bytes;
    if (n_fields != LINNET_DEVICE_ID_BYTES || job->n_devices == job->capacity)
        return linnet_fail(err, LINNET_ERR_FORMAT,
                           "store: round %llu has other contributions than it counted",
                           (unsigned long long)job->round);
    memcpy(job->devices[job->n_devices++].bytes, fields, LINNET_DEVICE_ID_BYTES);
    return LINNET_OK;
}

linnet_status linnet_contributors_list(linnet_coordinator *c, const linnet_round_row *round,
                                       linnet_device_id **ret_devices, linnet_error *err)
{
    linnet_store_txn *txn = NULL;
    contributors list = {.round = round->number, .capacity = round->accepted};
    linnet_record_id prefix = linnet_record_number('b', round->number);
    linnet_status status = linnet_store_read_begin(c->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    list.devices = malloc(((size_t)round->accepted + 1) * sizeof(*list.devices));
    status = list.devices ? linnet_store_each(txn, &prefix, add_device, &list, err)
                          : linnet_fail(err, LINNET_ERR_NOMEM, "contributions of a round");
    linnet_store_read_end(txn);
    if (status == LINNET_OK && list.n_devices != list.capacity)
        status = linnet_fail(err, LINNET_ERR_FORMAT, "store: round %llu counts %zu contributions and has %zu",
                             (unsigned long long)round->number, list.capacity, list.n_devices);
    if (status != LINNET_OK) {
        free(list.devices);
        return status;
    }
    *ret_devices = list.devices;
    return LINNET_OK;
}

/* The totals of the lane vector. They are sums of non-negative numbers below 2^32 by the plan's check. Where
 * participants are all it holds, everybody weighs 1. */
static void lanes_read(linnet_fold *fold)
{
    const uint32_t *sums = fold->sums;
    for (size_t i = 0; i < fold->n_specs; i++) {
        if (fold->specs[i].vector_id == 1)
            for (size_t lane = 0; lane < LINNET_LANES && lane < fold->specs[i].length; lane++)
                fold->lanes[lane] = sums[lane];
        if (fold->specs[i].vector_id == 1 && fold->specs[i].length == LINNET_DP_LANES)
            fold->lanes[LINNET_LANE_WEIGHT] = sums[LINNET_LANE_PARTICIPANTS];
        sums += fold->specs[i].length;
    }
}

linnet_status linnet_fold_begin(linnet_coordinator *c, const linnet_round_row *round, linnet_fold *fold,
                                linnet_error *err)
{
    fold->round = round->number;
    fold->announcement = round->chain;
    linnet_status status =
        linnet_plan_vectors(&c->plan, c->layout, round->version, fold->specs, &fold->n_specs, err);
    for (size_t i = 0; status == LINNET_OK && i < fold->n_specs; i++)
        fold->n_sums += (size_t)fold->specs[i].length;
    if (status == LINNET_OK && !(fold->sums = calloc(fold->n_sums, sizeof(*fold->sums))))
        status = linnet_fail(err, LINNET_ERR_NOMEM, "accumulator of %zu coordinates", fold->n_sums);
    return status;
}

linnet_status linnet_fold_spool(linnet_coordinator *c, const linnet_round_row *round, linnet_fold *ret_fold,
                                linnet_error *err)
{
    linnet_fold fold = {0};
    linnet_device_id *devices = NULL;
    linnet_status status = linnet_fold_begin(c, round, &fold, err);
    if (status == LINNET_OK)
        status = linnet_contributors_list(c, round, &devices, err);
    for (size_t i = 0; status == LINNET_OK && i < round->accepted; i++) {
        linnet_spool_id id = {.round = round->number, .device = devices[i]};
        status = linnet_spool_fold(c, &id, fold.specs, fold.n_specs, fold.sums, err);
    }
    free(devices);
    fold.n_contributions = round->accepted;
    if (status != LINNET_OK) {
        linnet_fold_release(&fold);
        return status;
    }
    *ret_fold = fold;
    return LINNET_OK;
}

linnet_status linnet_fold_read_lanes(linnet_fold *fold, linnet_error *err)
{
    lanes_read(fold);
    if (fold->lanes[LINNET_LANE_PARTICIPANTS] != fold->n_contributions)
        return linnet_fail(
            err, LINNET_ERR_INTERNAL, "round %llu: the lanes count %llu participants, the store %llu",
            (unsigned long long)fold->round, (unsigned long long)fold->lanes[LINNET_LANE_PARTICIPANTS],
            (unsigned long long)fold->n_contributions);
    return LINNET_OK;
}

linnet_status linnet_fold_round(linnet_coordinator *c, const linnet_round_row *round, linnet_fold *ret_fold,
                                linnet_error *err)
{
    linnet_fold fold = {0};
    linnet_status status = linnet_fold_spool(c, round, &fold, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_fold_read_lanes(&fold, err);
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

/* ---- opened sums: the accumulator as it is, little-endian, in sums/<round> ---- */

static linnet_status sum_path(const linnet_coordinator *c, uint64_t round, char path[4096], linnet_error *err)
{
    return linnet_coordinator_path(c, path, "sums/%llu", (unsigned long long)round)
               ? LINNET_OK
               : linnet_fail(err, LINNET_ERR_LIMIT, "state directory: the path is too long");
}

/* Every coordinate modulo 2^bits, as bytes, in place. */
static void to_bytes(linnet_fold *fold)
{
    uint32_t *sum = fold->sums;
    for (size_t i = 0; i < fold->n_specs; i++)
        for (uint64_t j = 0; j < fold->specs[i].length; j++, sum++)
            linnet_store_le32((uint8_t *)sum, fold->specs[i].bits == 32
                                                  ? *sum
                                                  : *sum & ((UINT32_C(1) << fold->specs[i].bits) - 1));
}

static void from_bytes(linnet_fold *fold)
{
    for (size_t i = 0; i < fold->n_sums; i++)
        fold->sums[i] = linnet_load_le32((const uint8_t *)&fold->sums[i]);
    lanes_read(fold);
}

/* SECURE-AGGREGATION 5: one participant a contribution, and no weight beyond the plan's. The plan's ring
 * keeps these sums from wrapping. */
static linnet_status lanes_check(const linnet_coordinator *c, const linnet_fold *fold, linnet_error *err)
{
    uint64_t n = fold->n_contributions, weight = fold->lanes[LINNET_LANE_WEIGHT];
    if (fold->lanes[LINNET_LANE_PARTICIPANTS] != n)
        return linnet_fail(err, LINNET_ERR_RANGE, "its lanes count %llu participants, %llu contributed",
                           (unsigned long long)fold->lanes[LINNET_LANE_PARTICIPANTS], (unsigned long long)n);
    if (weight < n || weight > n * c->plan.weight_max)
        return linnet_fail(err, LINNET_ERR_RANGE, "its weights add up to %llu, must be %llu to %llu",
                           (unsigned long long)weight, (unsigned long long)n,
                           (unsigned long long)(n * c->plan.weight_max));
    return LINNET_OK;
}

linnet_status linnet_sum_write(linnet_coordinator *c, linnet_fold *fold, linnet_hash *ret_hash,
                               linnet_error *err)
{
    char path[4096];
    size_t n_bytes = fold->n_sums * sizeof(*fold->sums);
    linnet_status status = sum_path(c, fold->round, path, err);
    lanes_read(fold);
    if (status == LINNET_OK)
        status = lanes_check(c, fold, err);
    if (status != LINNET_OK)
        return status;
    to_bytes(fold);
    *ret_hash = linnet_hash_of(LINNET_LABEL_OBJECT, fold->sums, n_bytes);
    return linnet_state_write(c, path, fold->sums, n_bytes, err);
}

linnet_status linnet_sum_read(linnet_coordinator *c, const linnet_round_row *round, linnet_fold *ret_fold,
                              linnet_error *err)
{
    char path[4096];
    linnet_fold fold = {0};
    linnet_buffer bytes = {0};
    linnet_status status = linnet_fold_begin(c, round, &fold, err);
    if (status == LINNET_OK)
        status = sum_path(c, round->number, path, err);
    if (status == LINNET_OK)
        status = linnet_file_read(path, fold.n_sums * sizeof(*fold.sums), &bytes, err);
    if (status == LINNET_OK) {
        linnet_hash there = linnet_hash_of(LINNET_LABEL_OBJECT, bytes.bytes, bytes.n_bytes);
        if (bytes.n_bytes != fold.n_sums * sizeof(*fold.sums) || !linnet_hash_equal(&there, &round->sum))
            status =
                linnet_fail(err, LINNET_ERR_FORMAT, "'%s' is damaged: restore the state from a backup", path);
    }
    if (status == LINNET_OK) {
        memcpy(fold.sums, bytes.bytes, bytes.n_bytes);
        fold.n_contributions = round->accepted;
        from_bytes(&fold);
        *ret_fold = fold;
    } else {
        linnet_fold_release(&fold);
    }
    linnet_buffer_release(&bytes);
    return status;
}

void linnet_sum_drop(linnet_coordinator *c, uint64_t round)
{
    char path[4096];
    if (sum_path(c, round, path, NULL) == LINNET_OK)
        (void)unlink(path); /* what stays is swept at the next start */
}
