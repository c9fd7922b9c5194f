/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device-level privacy of one vector (SECURE-AGGREGATION 2.7, 3.2). Clipping and rotation are floating point
 * and need not be exact, for the proof rests on one test in integers alone: the rounded vector's squared norm
 * is at most bound2, or the rounding is drawn again (Kairouz et al. 2021, conditional rounding). The rotation
 * spreads a vector whose weight sits in few coordinates over all of them, so that a small clamp q, and with
 * it few bits, serve: random signs, then an orthonormal Walsh-Hadamard transform in blocks, each of which
 * takes every n_blocks-th coordinate and so sees every layer.
 *
 * The noise is drawn first and in one batch: its time depends on the samples (Jin et al. 2021), and nothing
 * else is then timed by it. Left out: accounting and the choice of z, which the plan and crypto/accountant
 * do; weights, which would multiply the sensitivity.
 */
#include "linnet/dp_encode.h"

#include <math.h>
#include <stdlib.h>

#include "dp_inner.h"
#include "limits.h"
#include "linnet/discrete_gaussian.h"
#include "linnet/packing.h"
#include "linnet/secagg_mask.h"

#define SIGN_CHUNK (32 * LINNET_PACK_CHUNK) /* signs made at a time: one chunk of 32-bit words */
#define WRAP_SIGMAS 9                       /* 10^6 coordinates: a wrap with probability below 6e-12 */

/* ---- figures ---- */

uint64_t linnet_dp_length(uint64_t n_values, bool rotates)
{
    return rotates ? (n_values + LINNET_DP_BLOCK - 1) / LINNET_DP_BLOCK * LINNET_DP_BLOCK : n_values;
}

uint64_t linnet_dp_bound2(double clip, int32_t exponent, uint64_t length)
{
    if (!(clip > 0) || length < 1 || length > LINNET_RING_LENGTH_MAX ||
        exponent < -LINNET_RING_EXPONENT_MAX || exponent > LINNET_RING_EXPONENT_MAX)
        return 0;
    double norm = ldexp(clip, exponent), d = (double)length;
    if (!(norm < 0x1.0p30))
        return 0;
    return (uint64_t)(norm * norm + d / 4 + (norm + sqrt(d) / 2));
}

uint64_t linnet_dp_device_variance(double z, uint64_t bound2, uint32_t n_noisy)
{
    if (!(z > 0) || n_noisy == 0)
        return 0;
    double variance = ceil(z * z * (double)bound2 / n_noisy);
    return variance <= (double)LINNET_DISCRETE_GAUSSIAN_SIGMA2_MAX ? (uint64_t)variance : 0;
}

double linnet_dp_noise_multiplier(uint64_t sigma2, uint32_t n_noisy, uint64_t bound2)
{
    return bound2 == 0 ? 0 : sqrt((double)sigma2 * n_noisy / (double)bound2);
}

static uint64_t ceil_sqrt(uint64_t n)
{
    uint64_t root = (uint64_t)sqrt((double)n); /* off by one at most */
    while (root * root >= n && root > 0)
        root--;
    while (root * root < n)
        root++;
    return root;
}

uint32_t linnet_dp_clamp_max(uint32_t bits, uint32_t n_clients, uint64_t sigma2)
{
    if (!linnet_pack_is_width(bits) || n_clients == 0 || sigma2 > LINNET_DISCRETE_GAUSSIAN_SIGMA2_MAX)
        return 0;
    uint64_t half = (UINT64_C(1) << (bits - 1)) - 1;
    uint64_t noise = ceil_sqrt(WRAP_SIGMAS * WRAP_SIGMAS * n_clients * sigma2); /* below 2^63 */
    return noise < half ? (uint32_t)((half - noise) / n_clients) : 0;
}

linnet_status linnet_dp_check(const linnet_ring_spec *ring, const linnet_dp_spec *dp, uint32_t n_clients,
                              linnet_error *err)
{
    linnet_status status = linnet_ring_check(ring, n_clients, err);
    if (status != LINNET_OK)
        return status;
    if (ring->weight_max != 1)
        return linnet_fail(err, LINNET_ERR_ARG, "privacy noise and weights do not go together");
    if (dp->rotates && ring->length % LINNET_DP_BLOCK != 0)
        return linnet_fail(err, LINNET_ERR_ARG, "a rotated vector has whole blocks of %d, not %llu",
                           LINNET_DP_BLOCK, (unsigned long long)ring->length);
    if (linnet_dp_bound2(dp->clip, ring->exponent, ring->length) == 0)
        return linnet_fail(err, LINNET_ERR_RANGE, "clip norm %g with scale 2^%d is not in (0, 2^30)",
                           dp->clip, (int)ring->exponent);
    if (dp->sigma2 < LINNET_DP_VARIANCE_MIN || dp->sigma2 > LINNET_DISCRETE_GAUSSIAN_SIGMA2_MAX)
        return linnet_fail(err, LINNET_ERR_RANGE, "noise of variance %llu; it is %d to %llu",
                           (unsigned long long)dp->sigma2, LINNET_DP_VARIANCE_MIN,
                           (unsigned long long)LINNET_DISCRETE_GAUSSIAN_SIGMA2_MAX);
    uint32_t clamp_max = linnet_dp_clamp_max(ring->bits, n_clients, dp->sigma2);
    if (ring->clamp > clamp_max)
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "%u clients with clamp %u and noise could wrap in %u bits; the clamp may be at "
                           "most %u",
                           (unsigned)n_clients, (unsigned)ring->clamp, (unsigned)ring->bits,
                           (unsigned)clamp_max);
    return LINNET_OK;
}

/* ---- clipping and rotation ---- */

double linnet_dp_clip_factor(const float *values, size_t n, double clip)
{
    double squares = 0;
    for (size_t i = 0; i < n; i++)
        squares += (double)values[i] * values[i];
    if (!isfinite(squares)) /* a float's square and the sum of 2^28 of them are far below DBL_MAX */
        return 0;
    double norm = sqrt(squares);
    return norm > clip ? clip / norm : 1;
}

/* Orthonormal, so its own inverse; 64 is the root of 4096. */
static void hadamard(float *values)
{
    double x[LINNET_DP_BLOCK];
    for (size_t i = 0; i < LINNET_DP_BLOCK; i++)
        x[i] = values[i];
    for (size_t half = 1; half < LINNET_DP_BLOCK; half *= 2)
        for (size_t start = 0; start < LINNET_DP_BLOCK; start += 2 * half)
            for (size_t i = start; i < start + half; i++) {
                double a = x[i], b = x[i + half];
                x[i] = a + b;
                x[i + half] = a - b;
            }
    for (size_t i = 0; i < LINNET_DP_BLOCK; i++)
        values[i] = (float)(x[i] / 64);
    linnet_wipe(x, sizeof(x));
}

/* Where coordinate j lies among the blocks, and its sign. Coordinates are visited in order. */
typedef struct walk {
    linnet_hash key;
    uint32_t vector_id;
    size_t j, block, at, n_blocks;
    uint32_t signs[LINNET_PACK_CHUNK]; /* of the coordinates from j - j % SIGN_CHUNK on */
} walk;

static void walk_start(walk *w, const linnet_ring_spec *ring, const linnet_hash *announcement)
{
    w->key = linnet_hash_of(LINNET_LABEL_ROTATE, announcement->bytes, LINNET_HASH_BYTES);
    w->vector_id = ring->vector_id;
    w->j = w->block = w->at = 0;
    w->n_blocks = (size_t)ring->length / LINNET_DP_BLOCK;
}

/* The signs are the bits of the mask that this key would make, 32 bits a word, the lowest bit first. */
static void make_signs(walk *w)
{
    size_t n = (w->n_blocks * LINNET_DP_BLOCK - w->j) / 32;
    memset(w->signs, 0, sizeof(w->signs));
    linnet_mask_add(&w->key, w->vector_id, 32, w->j / 32, n < LINNET_PACK_CHUNK ? n : LINNET_PACK_CHUNK,
                    w->signs);
}

/* The next coordinate's place; *ret_sign becomes 1 or -1. */
static size_t walk_next(walk *w, float *ret_sign)
{
    size_t bit = w->j % SIGN_CHUNK, place = w->block * LINNET_DP_BLOCK + w->at;
    if (bit == 0)
        make_signs(w);
    *ret_sign = w->signs[bit / 32] >> (bit % 32) & 1 ? -1.0f : 1.0f;
    w->j++;
    if (++w->block == w->n_blocks) {
        w->block = 0;
        w->at++;
    }
    return place;
}

void linnet_dp_rotate(const linnet_ring_spec *ring, const linnet_hash *announcement, const float *values,
                      size_t n_values, double factor, float *ret_rotated)
{
    walk w;
    walk_start(&w, ring, announcement);
    for (size_t j = 0; j < ring->length; j++) {
        float sign;
        size_t place = walk_next(&w, &sign);
        ret_rotated[place] = j < n_values && factor > 0 ? sign * (float)(values[j] * factor) : 0;
    }
    for (size_t first = 0; first < ring->length; first += LINNET_DP_BLOCK)
        hadamard(ret_rotated + first);
}

void linnet_dp_rotate_back(const linnet_ring_spec *ring, const linnet_hash *announcement, float *rotated,
                           float *ret_values, size_t n_values)
{
    walk w;
    walk_start(&w, ring, announcement);
    for (size_t first = 0; first < ring->length; first += LINNET_DP_BLOCK)
        hadamard(rotated + first);
    for (size_t j = 0; j < n_values; j++) {
        float sign;
        size_t place = walk_next(&w, &sign);
        ret_values[j] = sign * rotated[place];
    }
}

/* ---- rounding ---- */

/* One stochastic rounding of everything, exact to 2^-32. False as soon as the squared norm passes bound2. */
static bool round_once(const float *values, size_t n, double factor, double scale, uint64_t bound2,
                       linnet_random_fn *random, void *random_context, int32_t *ret_x)
{
    uint8_t words[4 * LINNET_RING_CHUNK];
    uint64_t squares = 0;
    for (size_t i = 0; i < n && squares <= bound2; i++) {
        if (i % LINNET_RING_CHUNK == 0)
            random(random_context, words, n - i < LINNET_RING_CHUNK ? 4 * (n - i) : sizeof(words));
        double z = factor > 0 ? values[i] * factor * scale : 0;
        /* Arithmetic shift, as gcc and clang define it: floor to an integer. */
        int64_t x = ((int64_t)z + linnet_load_le32(words + 4 * (i % LINNET_RING_CHUNK))) >> 32;
        ret_x[i] = (int32_t)x;
        squares += (uint64_t)(x * x);
    }
    linnet_wipe(words, sizeof(words));
    return squares <= bound2;
}

int linnet_dp_round(const float *values, size_t n, double factor, int32_t exponent, uint64_t bound2,
                    linnet_random_fn *random, void *random_context, int32_t *ret_x)
{
    double scale = ldexp(1, exponent + 32);
    for (int round = 1; round <= LINNET_DP_ROUNDINGS; round++)
        if (round_once(values, n, factor, scale, bound2, random, random_context, ret_x))
            return round;
    memset(ret_x, 0, n * sizeof(ret_x[0]));
    return LINNET_DP_ROUNDINGS + 1;
}

static void wipe_and_free(void *memory, size_t n_bytes)
{
    if (memory)
        linnet_wipe(memory, n_bytes);
    free(memory);
}

static linnet_status check_lengths(const linnet_ring_spec *ring, const linnet_dp_spec *dp, size_t n_values,
                                   linnet_error *err)
{
    bool fits = dp->rotates ? linnet_dp_length(n_values, true) == ring->length : n_values <= ring->length;
    if (n_values > 0 && fits)
        return LINNET_OK;
    return linnet_fail(err, LINNET_ERR_ARG, "%zu values do not make a private vector of %llu", n_values,
                       (unsigned long long)ring->length);
}

linnet_status linnet_dp_integers(const linnet_ring_spec *ring, const linnet_dp_spec *dp,
                                 const linnet_hash *announcement, const float *values, size_t n_values,
                                 linnet_random_fn *random, void *random_context, int32_t *ret_x,
                                 linnet_error *err)
{
    size_t n = (size_t)ring->length;
    uint64_t bound2 = linnet_dp_bound2(dp->clip, ring->exponent, ring->length);
    double factor = linnet_dp_clip_factor(values, n_values, dp->clip);
    int32_t clamp = (int32_t)ring->clamp;
    if (dp->rotates) {
        float *rotated = malloc(n * sizeof(rotated[0]));
        if (!rotated)
            return linnet_fail(err, LINNET_ERR_NOMEM, "rotated vector of %zu coordinates", n);
        linnet_dp_rotate(ring, announcement, values, n_values, factor, rotated);
        (void)linnet_dp_round(rotated, n, 1, ring->exponent, bound2, random, random_context, ret_x);
        wipe_and_free(rotated, n * sizeof(rotated[0]));
    } else {
        memset(ret_x + n_values, 0, (n - n_values) * sizeof(ret_x[0]));
        (void)linnet_dp_round(values, n_values, factor, ring->exponent, bound2, random, random_context,
                              ret_x);
    }
    for (size_t i = 0; i < n; i++) /* makes the norm smaller, if anything */
        ret_x[i] = ret_x[i] > clamp ? clamp : ret_x[i] < -clamp ? -clamp : ret_x[i];
    return LINNET_OK;
}

/* ---- encoding and decoding ---- */

linnet_status linnet_dp_encode(const linnet_ring_spec *ring, const linnet_dp_spec *dp,
                               const linnet_hash *announcement, const float *values, size_t n_values,
                               linnet_random_fn *random, void *random_context, uint8_t *packed,
                               linnet_error *err)
{
    linnet_status status = linnet_dp_check(ring, dp, 1, err);
    if (status == LINNET_OK)
        status = check_lengths(ring, dp, n_values, err);
    if (status != LINNET_OK)
        return status;
    size_t n = (size_t)ring->length;
    int64_t *noise = calloc(n, sizeof(noise[0])); /* checks the product */
    uint32_t *x = calloc(n, sizeof(x[0]));
    if (!noise || !x) {
        status = linnet_fail(err, LINNET_ERR_NOMEM, "private vector of %zu coordinates", n);
        goto done;
    }
    status = linnet_discrete_gaussian(dp->sigma2, random, random_context, noise, n);
    if (status != LINNET_OK)
        goto done;
    status = linnet_dp_integers(ring, dp, announcement, values, n_values, random, random_context,
                                (int32_t *)x, err);
    if (status != LINNET_OK)
        goto done;
    for (size_t i = 0; i < n; i++)
        x[i] += (uint32_t)noise[i];
    linnet_pack(ring->bits, x, n, packed);
done:
    wipe_and_free(noise, n * sizeof(noise[0]));
    wipe_and_free(x, n * sizeof(x[0]));
    return status;
}

linnet_status linnet_dp_decode(const linnet_ring_spec *ring, const linnet_dp_spec *dp,
                               const linnet_hash *announcement, const uint32_t *sum, uint64_t n_summed,
                               float *values, size_t n_values, linnet_error *err)
{
    size_t n = (size_t)ring->length;
    linnet_status status = linnet_dp_check(ring, dp, 1, err);
    if (status == LINNET_OK)
        status = check_lengths(ring, dp, n_values, err);
    if (status != LINNET_OK)
        return status;
    float *mean = calloc(n, sizeof(mean[0]));
    if (!mean)
        return linnet_fail(err, LINNET_ERR_NOMEM, "private mean of %zu coordinates", n);
    status = linnet_ring_decode(ring, sum, n_summed, mean, err);
    if (status == LINNET_OK && dp->rotates)
        linnet_dp_rotate_back(ring, announcement, mean, values, n_values);
    else if (status == LINNET_OK)
        memcpy(values, mean, n_values * sizeof(values[0]));
    free(mean);
    return status;
}
