/* SPDX-License-Identifier: Apache-2.0 */

/* From a trained delta to the vectors of a round (SECURE-AGGREGATION 2.7): everything that is random or in
 * floating point happens here, once for a round, before anything of the round is sent. With differential
 * privacy the noised vector is all that depends on data. */

#include "device_internal.h"

#include <math.h>
#include <stdlib.h>

#include "linnet/dp_encode.h"
#include "linnet/packing.h"

#define ROUNDINGS_MAX 32 /* of a clipped vector: each fits with probability above 0.88 */

static void seeded_random(void *context, void *bytes, size_t n_bytes)
{
    uint8_t *p = bytes;
    for (size_t i = 0; i < n_bytes; i += 8) {
        uint8_t word[8];
        linnet_store_le64(word, linnet_rng_next(context));
        memcpy(p + i, word, n_bytes - i < 8 ? n_bytes - i : 8);
    }
}

/* Participants, weight, weighted held-out loss of the release, weight of the losses. Profiles with
 * differential privacy must send the first one only (SECURE-AGGREGATION 2.7). */
static linnet_status encode_lanes(const linnet_device *device, const linnet_ring_spec *spec, uint32_t weight,
                                  uint8_t *packed, linnet_error *err)
{
    const device_record *r = &device->record;
    int64_t lanes[LINNET_LANES] = {[LINNET_LANE_PARTICIPANTS] = 1, [LINNET_LANE_WEIGHT] = weight};
    if (r->has_release_loss && isfinite(r->release_loss)) {
        double loss = fmin(fmax(r->release_loss, 0), LINNET_LANE_LOSS_MAX);
        lanes[LINNET_LANE_LOSS] = (int64_t)weight * llround(LINNET_LANE_LOSS_SCALE * loss);
        lanes[LINNET_LANE_LOSS_WEIGHT] = weight;
    }
    return linnet_ring_encode_integers(spec, lanes, packed, err);
}

/* What rounding and noise are drawn from: seeded streams are for simulations. A seeded rounding is of the
 * delta, not of the round, so that a run in which rounds fail ends in the same bits; noise is never used
 * twice. */
#define STREAM_ROUNDING UINT64_C(0x726f756e64)
typedef struct randomness {
    linnet_random_fn *rounding, *noise;
    void *rounding_context, *noise_context; /* borrowed */
} randomness;

/* The whole delta as one clipped and noised vector: NaN and all else about it stays in there. */
static linnet_status encode_noised(const linnet_device *device, const encode_job *job,
                                   const linnet_ring_spec *spec, const float *values, size_t n_values,
                                   const randomness *random, uint8_t *packed, linnet_error *err)
{
    linnet_dp_spec dp = {
        .clip = job->privacy->clip, .sigma2 = job->privacy->sigma2, .rotates = job->privacy->rotates};
    const linnet_mischief *mischief = device->config.mischief;
    if (mischief && mischief->omits_noise)
        dp.sigma2 = LINNET_DP_VARIANCE_MIN;
    return linnet_dp_encode(spec, &dp, job->chain, values, n_values, random->noise, random->noise_context,
                            packed, err);
}

/* The squared norm of a packed vector's integers, leaving as soon as it is above the bound. */
static bool is_within(const linnet_ring_spec *spec, const uint8_t *packed, uint64_t bound2)
{
    uint64_t squares = 0;
    for (uint64_t first = 0; first < spec->length && squares <= bound2; first += LINNET_PACK_CHUNK) {
        uint32_t sum[LINNET_PACK_CHUNK] = {0};
        size_t n =
            spec->length - first < LINNET_PACK_CHUNK ? (size_t)(spec->length - first) : LINNET_PACK_CHUNK;
        linnet_pack_add(spec->bits, packed, n, sum);
        packed += linnet_pack_bytes(spec->bits, n);
        for (size_t i = 0; i < n && squares <= bound2; i++) {
            int64_t x = (int64_t)((uint64_t)sum[i] << (64 - spec->bits)) >> (64 - spec->bits);
            squares += (uint64_t)(x * x); /* both at most 2^62 */
        }
    }
    return squares <= bound2;
}

/* Where the coordinator adds the noise: clipped, and rounded to integers within the bound of 3.2, drawn again
 * where they are not. */
static linnet_status encode_clipped(const encode_job *job, const linnet_ring_spec *spec, float *values,
                                    const randomness *random, uint8_t *packed, linnet_error *err)
{
    double squares = 0;
    for (size_t i = 0; i < spec->length; i++)
        squares += (double)values[i] * values[i];
    double norm = sqrt(squares), factor = norm > job->privacy->clip ? job->privacy->clip / norm : 1;
    for (size_t i = 0; i < spec->length; i++)
        values[i] = isfinite(norm) ? (float)(values[i] * factor) : 0;
    for (int i = 0; i < ROUNDINGS_MAX; i++) {
        linnet_status status = linnet_ring_encode(spec, values, 1, random->rounding, random->rounding_context,
                                                  packed, NULL, err);
        if (status != LINNET_OK || is_within(spec, packed, job->privacy->bound2))
            return status;
    }
    memset(values, 0, (size_t)spec->length * sizeof(*values));
    return linnet_ring_encode(spec, values, 1, random->rounding, random->rounding_context, packed, NULL, err);
}

/* One factor's vector from its floats, of which a noised one may be padded. */
static linnet_status encode_factor(const linnet_device *device, const encode_job *job,
                                   const linnet_ring_spec *spec, const uint8_t *floats, size_t n_values,
                                   const randomness *random, uint8_t *packed, linnet_error *err)
{
    float *values = calloc((size_t)spec->length + 1, sizeof(*values));
    if (!values)
        return linnet_fail(err, LINNET_ERR_NOMEM, "vector of %llu values", (unsigned long long)spec->length);
    for (size_t i = 0; i < n_values; i++)
        values[i] = linnet_load_f32(floats + i * sizeof(float));
    linnet_status status = LINNET_OK;
    if (job->privacy->mechanism == LINNET_DP_DISTRIBUTED)
        status = encode_noised(device, job, spec, values, n_values, random, packed, err);
    else if (job->privacy->mechanism == LINNET_DP_CENTRAL)
        status = encode_clipped(job, spec, values, random, packed, err);
    else
        status = linnet_ring_encode(spec, values, job->weight, random->rounding, random->rounding_context,
                                    packed, NULL, err);
    linnet_wipe(values, (size_t)spec->length * sizeof(*values));
    free(values);
    return status;
}

/* How many floats of the delta a vector holds: as many as it is long, but that a noised one is padded. */
static size_t floats_of(const encode_job *job, const linnet_ring_spec *spec, size_t n_bytes_left)
{
    size_t n_left = n_bytes_left / sizeof(float);
    bool is_padded = job->privacy->mechanism == LINNET_DP_DISTRIBUTED && n_left < spec->length;
    return is_padded ? n_left : (size_t)spec->length;
}

static linnet_status load_delta(const linnet_device *device, linnet_buffer *ret_delta, linnet_error *err)
{
    linnet_kv *kv = device->config.kv;
    return linnet_profile_is_secure(device->plan.profile) ? device_unseal(device, KV_DELTA, ret_delta, err)
                                                          : kv->get(kv->context, KV_DELTA, ret_delta, err);
}

/* What an attacker of a simulation sends in the place of what it trained: `bytes` are the floats of B, of A,
 * or of both. */
static linnet_status change_delta(const linnet_device *device, linnet_buffer *bytes, linnet_error *err)
{
    const linnet_mischief *mischief = device->config.mischief;
    uint32_t factors = device->release.factors;
    size_t n = bytes->n_bytes / sizeof(float), lengths[2] = {n, 0}, n_parts = 1;
    if (!mischief || !mischief->change_delta)
        return LINNET_OK;
    float *values = calloc(n + 1, sizeof(*values)), *parts[2] = {values, NULL};
    if (!values)
        return linnet_fail(err, LINNET_ERR_NOMEM, "delta of %zu values", n);
    if (factors == LINNET_FACTORS_BOTH && device->layout && device->layout->n_b <= n) {
        lengths[0] = device->layout->n_b;
        lengths[1] = n - lengths[0];
        parts[1] = values + lengths[0];
        n_parts = 2;
    }
    for (size_t i = 0; i < n; i++)
        values[i] = linnet_load_f32(bytes->bytes + i * sizeof(float));
    mischief->change_delta(mischief->context, parts, lengths, n_parts);
    for (size_t i = 0; i < n; i++)
        linnet_store_f32(bytes->bytes + i * sizeof(float), values[i]);
    free(values);
    return LINNET_OK;
}

linnet_status device_encode(const linnet_device *device, const encode_job *job, linnet_buffer *packed,
                            linnet_error *err)
{
    const linnet_announcement *a = job->announcement;
    linnet_buffer delta = {0};
    linnet_rng rounding, noise;
    linnet_random_stream stream;
    randomness random = {linnet_random_stream_fill, linnet_random_stream_fill, &stream, &stream};
    size_t at = 0;
    linnet_rng_init(&rounding, device->record.train_seed ^ STREAM_ROUNDING, device->record.version);
    linnet_rng_init(&noise, device->record.train_seed, a->round);
    linnet_random_stream_init(&stream);
    if (device->config.has_seed) {
        random.rounding = seeded_random;
        random.rounding_context = &rounding;
    }
    if (device->config.has_seed && device->config.seeds_noise) {
        random.noise = seeded_random;
        random.noise_context = &noise;
    }
    linnet_status status = load_delta(device, &delta, err);
    if (status == LINNET_OK)
        status = change_delta(device, &delta, err);
    for (size_t i = 0; i < a->n_vectors && status == LINNET_OK; i++) {
        const linnet_ring_spec *spec = &a->vectors[i];
        size_t n = linnet_ring_bytes(spec), n_floats = floats_of(job, spec, delta.n_bytes - at);
        if (!linnet_buffer_reserve(packed, n)) {
            status = linnet_fail(err, LINNET_ERR_NOMEM, "vector of %zu bytes", n);
        } else if (spec->vector_id == 1) {
            status = encode_lanes(device, spec, job->weight, packed->bytes + packed->n_bytes, err);
        } else if (delta.n_bytes - at < n_floats * sizeof(float)) {
            status = linnet_fail(err, LINNET_ERR_FORMAT, "the stored delta is too short");
        } else {
            status = encode_factor(device, job, spec, delta.bytes + at, n_floats, &random,
                                   packed->bytes + packed->n_bytes, err);
            at += n_floats * sizeof(float);
        }
        packed->n_bytes += status == LINNET_OK ? n : 0;
    }
    device_wipe(&delta);
    linnet_random_stream_release(&stream);
    return status;
}
