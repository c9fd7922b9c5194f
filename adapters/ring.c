/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring encoding (SECURE-AGGREGATION 2.7, steps 3 to 5 and 7). A value is scaled to a 64-bit integer with
 * 32 fraction bits; adding a uniform 32-bit number and shifting 32 bits away rounds it stochastically and
 * exactly: up with a probability equal to the fraction, to 2^-32, with no randomness in floating point. From
 * there on everything is integer, packed as packing.h says. Left out: clipping and rotation before, and
 * privacy noise after, which are other modules' matter.
 */
#include "linnet/ring.h"

#include <math.h>

#include "limits.h"
#include "linnet/packing.h"

uint32_t linnet_ring_clamp_max(uint32_t bits, uint32_t n_clients, uint32_t weight_max)
{
    uint64_t n_times_w = (uint64_t)n_clients * weight_max; /* fits: both have 32 bits */
    if (!linnet_pack_is_width(bits) || n_times_w == 0)
        return 0;
    return (uint32_t)(((UINT64_C(1) << (bits - 1)) - 1) / n_times_w);
}

linnet_status linnet_ring_check(const linnet_ring_spec *spec, uint32_t n_clients, linnet_error *err)
{
    if (!linnet_pack_is_width(spec->bits))
        return linnet_fail(err, LINNET_ERR_ARG, "ring of %u bits; use 16, 20, 24 or 32",
                           (unsigned)spec->bits);
    if (spec->length < 1 || spec->length > LINNET_RING_LENGTH_MAX)
        return linnet_fail(err, LINNET_ERR_RANGE, "ring vector of %llu coordinates",
                           (unsigned long long)spec->length);
    if (spec->clamp < 1 || spec->weight_max < 1 || n_clients < 1)
        return linnet_fail(err, LINNET_ERR_ARG,
                           "ring with clamp %u, weight %u and %u clients; each is at least 1",
                           (unsigned)spec->clamp, (unsigned)spec->weight_max, (unsigned)n_clients);
    if (spec->exponent < -LINNET_RING_EXPONENT_MAX || spec->exponent > LINNET_RING_EXPONENT_MAX)
        return linnet_fail(err, LINNET_ERR_RANGE, "ring exponent %d is not within %d", (int)spec->exponent,
                           LINNET_RING_EXPONENT_MAX);
    if (spec->clamp > linnet_ring_clamp_max(spec->bits, n_clients, spec->weight_max))
        return linnet_fail(
            err, LINNET_ERR_RANGE,
            "%u clients of weight %u with clamp %u could wrap in %u bits; the clamp may be at most %u",
            (unsigned)n_clients, (unsigned)spec->weight_max, (unsigned)spec->clamp, (unsigned)spec->bits,
            (unsigned)linnet_ring_clamp_max(spec->bits, n_clients, spec->weight_max));
    return LINNET_OK;
}

int32_t linnet_ring_exponent(double range, uint32_t clamp)
{
    const uint32_t useful = UINT32_C(1) << 26;
    int range_exponent, clamp_exponent;
    if (!isfinite(range) || range <= 0 || clamp == 0)
        return 0;
    double range_mantissa = frexp(range, &range_exponent);
    double clamp_mantissa = frexp(clamp < useful ? clamp : useful, &clamp_exponent);
    int f = clamp_exponent - range_exponent - (range_mantissa > clamp_mantissa);
    if (f > LINNET_RING_EXPONENT_MAX)
        return LINNET_RING_EXPONENT_MAX;
    return f < -LINNET_RING_EXPONENT_MAX ? -LINNET_RING_EXPONENT_MAX : f;
}

size_t linnet_ring_bytes(const linnet_ring_spec *spec)
{
    return linnet_pack_bytes(spec->bits, spec->length);
}

/* ---- packing ---- */

void linnet_ring_fold(const linnet_ring_spec *spec, uint64_t first, size_t n, const uint8_t *packed,
                      uint32_t *sum)
{
    linnet_pack_add(spec->bits, packed, n, sum + (size_t)first);
}

linnet_status linnet_ring_check_tail(const linnet_ring_spec *spec, const uint8_t *packed)
{
    return linnet_pack_tail_is_zero(spec->bits, spec->length, packed) ? LINNET_OK : LINNET_ERR_FORMAT;
}

/* ---- encoding ---- */

/* Round, clamp and weigh n values into ring elements. False where a value is NaN, infinite or too large; the
 * index of the first such value is not reported, because it would say something about the data. */
static bool encode_chunk(double scale, int32_t clamp, int32_t weight, const float *values, size_t n,
                         const uint8_t *random, uint32_t *x, uint64_t *n_saturated)
{
    const double limit = 0x1.0p62; /* 2^30 with 32 fraction bits */
    for (size_t i = 0; i < n; i++) {
        double z = (double)values[i] * scale; /* exact: a power of two */
        if (!(fabs(z) < limit))
            return false;
        /* Arithmetic shift, as gcc and clang define it: floor to an integer. */
        int32_t rounded = (int32_t)(((int64_t)z + linnet_load_le32(random + 4 * i)) >> 32);
        int32_t clamped = rounded > clamp ? clamp : rounded < -clamp ? -clamp : rounded;
        *n_saturated += clamped != rounded;
        x[i] = (uint32_t)(clamped * weight); /* the spec's check bounds the product */
    }
    return true;
}

linnet_status linnet_ring_encode(const linnet_ring_spec *spec, const float *values, uint32_t weight,
                                 linnet_random_fn *random, void *random_context, uint8_t *packed,
                                 uint64_t *ret_n_saturated, linnet_error *err)
{
    uint8_t noise[4 * LINNET_RING_CHUNK];
    uint32_t x[LINNET_RING_CHUNK];
    uint64_t n_saturated = 0;
    linnet_status status = linnet_ring_check(spec, 1, err);
    if (status != LINNET_OK)
        return status;
    if (weight < 1 || weight > spec->weight_max)
        return linnet_fail(err, LINNET_ERR_ARG, "weight %u is not in 1..%u", (unsigned)weight,
                           (unsigned)spec->weight_max);
    double scale = ldexp(1, spec->exponent + 32);
    for (size_t first = 0; first < spec->length; first += LINNET_RING_CHUNK) {
        size_t n = (size_t)spec->length - first < LINNET_RING_CHUNK ? (size_t)spec->length - first
                                                                    : LINNET_RING_CHUNK;
        random(random_context, noise, 4 * n);
        if (!encode_chunk(scale, (int32_t)spec->clamp, (int32_t)weight, values + first, n, noise, x,
                          &n_saturated))
            return linnet_fail(err, LINNET_ERR_RANGE,
                               "a value to encode is NaN, infinite or far out of range");
        linnet_pack(spec->bits, x, n, packed + first / 8 * spec->bits);
    }
    if (ret_n_saturated)
        *ret_n_saturated = n_saturated;
    return LINNET_OK;
}

linnet_status linnet_ring_encode_integers(const linnet_ring_spec *spec, const int64_t *values,
                                          uint8_t *packed, linnet_error *err)
{
    uint32_t x[LINNET_RING_CHUNK];
    linnet_status status = linnet_ring_check(spec, 1, err);
    if (status != LINNET_OK)
        return status;
    for (size_t first = 0; first < spec->length; first += LINNET_RING_CHUNK) {
        size_t n = (size_t)spec->length - first < LINNET_RING_CHUNK ? (size_t)spec->length - first
                                                                    : LINNET_RING_CHUNK;
        for (size_t i = 0; i < n; i++) {
            int64_t v = values[first + i];
            if (v > (int64_t)spec->clamp || v < -(int64_t)spec->clamp)
                return linnet_fail(err, LINNET_ERR_RANGE, "an integer to encode is beyond the clamp %u",
                                   (unsigned)spec->clamp);
            x[i] = (uint32_t)v;
        }
        linnet_pack(spec->bits, x, n, packed + first / 8 * spec->bits);
    }
    return LINNET_OK;
}

/* ---- decoding ---- */

int64_t linnet_ring_lift(uint32_t bits, uint32_t sum)
{
    int64_t size = INT64_C(1) << bits, reduced = (int64_t)(sum & (uint64_t)(size - 1));
    return reduced >= size / 2 ? reduced - size : reduced;
}

linnet_status linnet_ring_decode(const linnet_ring_spec *spec, const uint32_t *sum, uint64_t weight_sum,
                                 float *values, linnet_error *err)
{
    linnet_status status = linnet_ring_check(spec, 1, err);
    if (status != LINNET_OK)
        return status;
    if (weight_sum == 0)
        return linnet_fail(err, LINNET_ERR_ARG, "a weight sum of 0 has no mean");
    double scale = ldexp(1, spec->exponent) * (double)weight_sum;
    for (size_t i = 0; i < spec->length; i++)
        values[i] = (float)((double)linnet_ring_lift(spec->bits, sum[i]) / scale);
    return LINNET_OK;
}
