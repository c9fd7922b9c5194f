/* SPDX-License-Identifier: Apache-2.0 */
/* Central noise (SECURE-AGGREGATION 3.1): a trusted coordinator sees single deltas, holds each to the planned
 * bound, adds them up and adds one discrete Gaussian draw, so that what leaves it has the same form as in
 * 3.2 with all of the noise in one place. Devices keep the bound by themselves (conditional rounding); a
 * contribution beyond it is scaled down in whole numbers, toward zero, which never passes the bound again.
 *
 * The noise is drawn once a round. The noised sum becomes a file of the round's spool, all or nothing, before
 * anybody reads it; where that file is, it is the sum, and nothing is drawn. Two published sums of one round
 * with different noise would be two releases for the price of one. */
#include "combine.h"

#include "linnet/discrete_gaussian.h"
#include "linnet/file.h"
#include "linnet/rng.h"

#include <math.h>
#include <stdlib.h>

#define MAGIC "LNNS0001" /* noised sum, version 1 */
#define HEAD_BYTES (8 + LINNET_HASH_BYTES + 8 + 8)
#define SHRINK (1 - 1e-9) /* more than rounding can add back */

/* ---- the bound ---- */

/* Squared norm of a contribution's noised vector, as far as it matters: exact up to bound2, and in ret_norm2
 * a double of all of it. */
static linnet_status norm_take(linnet_coordinator *c, const linnet_spool_id *id, const linnet_fold *fold,
                               uint64_t bound2, bool *ret_is_beyond, double *ret_norm2, linnet_error *err)
{
    uint32_t raw[LINNET_RING_CHUNK];
    const linnet_ring_spec *spec = &fold->specs[0];
    uint64_t exact = 0;
    double norm2 = 0;
    for (uint64_t first = 0; first < spec->length; first += LINNET_RING_CHUNK) {
        uint64_t left = spec->length - first;
        size_t n = left < LINNET_RING_CHUNK ? (size_t)left : LINNET_RING_CHUNK;
        linnet_status status = linnet_spool_slice(c, id, fold->specs, 0, first, n, raw, err);
        if (status != LINNET_OK)
            return status;
        for (size_t j = 0; j < n; j++) {
            int64_t value = linnet_ring_lift(spec->bits, raw[j]);
            if (exact <= bound2) /* below 2^63, so that one more square of 2^62 fits */
                exact += (uint64_t)(value * value);
            norm2 += (double)value * (double)value;
        }
    }
    *ret_is_beyond = exact > bound2;
    *ret_norm2 = norm2;
    return LINNET_OK;
}

/* The vector scaled and cut toward zero; its lanes as they are. */
static linnet_status fold_scaled(linnet_coordinator *c, const linnet_spool_id *id, linnet_fold *fold,
                                 double scale, linnet_error *err)
{
    uint32_t raw[LINNET_RING_CHUNK];
    uint32_t *sum = fold->sums;
    for (size_t i = 0; i < fold->n_specs; i++)
        for (uint64_t first = 0; first < fold->specs[i].length; first += LINNET_RING_CHUNK) {
            uint64_t left = fold->specs[i].length - first;
            size_t n = left < LINNET_RING_CHUNK ? (size_t)left : LINNET_RING_CHUNK;
            linnet_status status = linnet_spool_slice(c, id, fold->specs, i, first, n, raw, err);
            if (status != LINNET_OK)
                return status;
            for (size_t j = 0; j < n; j++) {
                int64_t value = linnet_ring_lift(fold->specs[i].bits, raw[j]);
                if (fold->specs[i].vector_id != 1)
                    value = (int64_t)((double)value * scale);
                *sum++ += (uint32_t)(uint64_t)value;
            }
        }
    return LINNET_OK;
}

static linnet_status fold_bounded(linnet_coordinator *c, const linnet_spool_id *id, linnet_fold *fold,
                                  uint64_t bound2, uint32_t *n_scaled, linnet_error *err)
{
    bool is_beyond = false;
    double norm2 = 0;
    linnet_status status = norm_take(c, id, fold, bound2, &is_beyond, &norm2, err);
    if (status != LINNET_OK)
        return status;
    if (!is_beyond)
        return linnet_spool_fold(c, id, fold->specs, fold->n_specs, fold->sums, err);
    ++*n_scaled;
    return fold_scaled(c, id, fold, sqrt((double)bound2 / norm2) * SHRINK, err);
}

static linnet_status fold_all(linnet_coordinator *c, const linnet_round_row *round, linnet_fold *fold,
                              uint64_t bound2, linnet_error *err)
{
    linnet_device_id *devices = NULL;
    uint32_t n_scaled = 0;
    linnet_status status = linnet_contributors_list(c, round, &devices, err);
    for (uint32_t k = 0; k < round->accepted && status == LINNET_OK; k++) {
        const linnet_spool_id id = {.round = round->number, .device = devices[k]};
        status = fold_bounded(c, &id, fold, bound2, &n_scaled, err);
    }
    free(devices);
    if (n_scaled > 0)
        linnet_coordinator_say(c, 4, "round %llu: %u contributions were longer than the clip and scaled down",
                               (unsigned long long)round->number, n_scaled);
    return status;
}

/* ---- the noise ---- */

static void seeded(void *context, void *bytes, size_t n_bytes)
{
    uint8_t *out = bytes;
    for (size_t i = 0; i < n_bytes; i++)
        out[i] = (uint8_t)linnet_rng_next(context);
}

static linnet_status noise_add(const linnet_coordinator *c, uint64_t round, uint64_t sigma2,
                               linnet_fold *fold, linnet_error *err)
{
    linnet_rng rng;
    size_t n = (size_t)fold->specs[0].length;
    int64_t *noise = malloc(n * sizeof(*noise));
    if (!noise)
        return linnet_fail(err, LINNET_ERR_NOMEM, "noise of %zu coordinates", n);
    linnet_rng_init(&rng, c->seed, round);
    linnet_status status = c->has_seed
                               ? linnet_discrete_gaussian(sigma2, seeded, &rng, noise, n)
                               : linnet_discrete_gaussian(sigma2, linnet_system_random, NULL, noise, n);
    for (size_t j = 0; j < n && status == LINNET_OK; j++)
        fold->sums[j] += (uint32_t)(uint64_t)noise[j];
    linnet_wipe(noise, n * sizeof(*noise));
    free(noise);
    return status == LINNET_OK
               ? status
               : linnet_fail(err, status, "noise of variance %llu", (unsigned long long)sigma2);
}

/* ---- the file: magic, A, contributions, coordinates; sums; H(OBJECT) of all that ---- */

static linnet_status noised_path(const linnet_coordinator *c, uint64_t round, char path[4096],
                                 linnet_error *err)
{
    return linnet_coordinator_path(c, path, "spool/%llu/noised", (unsigned long long)round)
               ? LINNET_OK
               : linnet_fail(err, LINNET_ERR_LIMIT, "state directory: the path is too long");
}

static linnet_status noised_write(const linnet_coordinator *c, const char *path, const linnet_fold *fold,
                                  linnet_error *err)
{
    linnet_buffer bytes = {0};
    linnet_buffer_append(&bytes, MAGIC, 8);
    linnet_buffer_append(&bytes, fold->announcement.bytes, sizeof(fold->announcement.bytes));
    linnet_buffer_append_le64(&bytes, fold->n_contributions);
    linnet_buffer_append_le64(&bytes, fold->n_sums);
    for (size_t j = 0; j < fold->n_sums; j++)
        linnet_buffer_append_le32(&bytes, fold->sums[j]);
    linnet_hash hash = linnet_hash_of(LINNET_LABEL_OBJECT, bytes.bytes, bytes.n_bytes);
    linnet_buffer_append(&bytes, hash.bytes, sizeof(hash.bytes));
    linnet_status status = bytes.failed ? linnet_fail(err, LINNET_ERR_NOMEM, "noised sum")
                                        : linnet_file_write(path, bytes.bytes, bytes.n_bytes, 0600, err);
    linnet_buffer_release(&bytes);
    (void)c;
    return status;
}

static bool noised_fits(const linnet_buffer *bytes, const linnet_fold *fold)
{
    size_t n_body = HEAD_BYTES + 4 * fold->n_sums;
    if (bytes->n_bytes != n_body + LINNET_HASH_BYTES || memcmp(bytes->bytes, MAGIC, 8) != 0 ||
        memcmp(bytes->bytes + 8, fold->announcement.bytes, LINNET_HASH_BYTES) != 0 ||
        linnet_load_le64(bytes->bytes + 8 + LINNET_HASH_BYTES) != fold->n_contributions ||
        linnet_load_le64(bytes->bytes + 8 + LINNET_HASH_BYTES + 8) != fold->n_sums)
        return false;
    linnet_hash hash = linnet_hash_of(LINNET_LABEL_OBJECT, bytes->bytes, n_body);
    return memcmp(hash.bytes, bytes->bytes + n_body, sizeof(hash.bytes)) == 0;
}

/* NOT_FOUND: nothing was drawn for this round yet. */
static linnet_status noised_read(const char *path, linnet_fold *fold, linnet_error *err)
{
    linnet_buffer bytes = {0};
    linnet_status status =
        linnet_file_read(path, HEAD_BYTES + 4 * fold->n_sums + LINNET_HASH_BYTES, &bytes, err);
    if (status == LINNET_OK && !noised_fits(&bytes, fold))
        status =
            linnet_fail(err, LINNET_ERR_FORMAT, "'%s' is damaged: restore the state from a backup", path);
    for (size_t j = 0; j < fold->n_sums && status == LINNET_OK; j++)
        fold->sums[j] = linnet_load_le32(bytes.bytes + HEAD_BYTES + 4 * j);
    linnet_buffer_release(&bytes);
    return status;
}

/* ---- the round ---- */

static linnet_status draw(linnet_coordinator *c, const linnet_round_row *round, const char *path,
                          linnet_fold *fold, linnet_error *err)
{
    linnet_privacy p;
    linnet_status status = linnet_plan_privacy(&c->plan, c->layout, round->version, &p, err);
    if (status == LINNET_OK)
        status = fold_all(c, round, fold, p.bound2, err);
    if (status == LINNET_OK)
        status = noise_add(c, round->number, p.sigma2, fold, err);
    if (status == LINNET_OK)
        status = noised_write(c, path, fold, err);
    if (status == LINNET_OK)
        linnet_coordinator_say(c, 6, "round %llu: noise of multiplier %.4g added to %u clipped contributions",
                               (unsigned long long)round->number, p.noise_multiplier, round->accepted);
    return status;
}

linnet_status linnet_central_fold(linnet_coordinator *c, const linnet_round_row *round, linnet_fold *ret_fold,
                                  linnet_error *err)
{
    char path[4096];
    linnet_fold fold = {0};
    linnet_status status = linnet_fold_begin(c, round, &fold, err);
    if (status == LINNET_OK)
        status = noised_path(c, round->number, path, err);
    if (status == LINNET_OK) {
        fold.n_contributions = round->accepted;
        status = noised_read(path, &fold, err);
        if (status == LINNET_ERR_NOT_FOUND)
            status = draw(c, round, path, &fold, err);
    }
    if (status == LINNET_OK)
        status = linnet_fold_read_lanes(&fold, err);
    if (status != LINNET_OK) {
        linnet_fold_release(&fold);
        return status;
    }
    *ret_fold = fold;
    return LINNET_OK;
}
