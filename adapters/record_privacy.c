/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The private sum of record-level DP-SGD (SECURE-AGGREGATION 3.6, common core; Abadi et al. 2016 with the
 * integer rounding of Kairouz et al. 2021). Each step's accumulator starts as the noise vector, drawn in one
 * batch before any data is seen, and units are added to it as integers: addition is exact, so their order
 * does not matter, and a unit moves the sum by its own rounded vector and nothing else. Left out: drawing the
 * units, which the trainer does, and the ledger.
 */
#include "linnet/record_privacy.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "dp_inner.h"
#include "limits.h"
#include "linnet/discrete_gaussian.h"

struct linnet_record_sum {
    linnet_record_spec spec;
    uint64_t bound2, variance;
    linnet_random_fn *random;
    void *random_context;
    bool has_noise; /* of this step, in total */
    int64_t *total; /* noise plus units */
    int32_t *unit;  /* the one being added */
};

uint64_t linnet_record_bound2(const linnet_record_spec *spec)
{
    return linnet_dp_bound2(spec->clip, spec->exponent, spec->length);
}

uint64_t linnet_record_variance(const linnet_record_spec *spec)
{
    return linnet_dp_device_variance(spec->z, linnet_record_bound2(spec), 1);
}

linnet_status linnet_record_exponent(double clip, double z, uint64_t length, int32_t *ret_exponent,
                                     linnet_error *err)
{
    linnet_record_spec spec = {.length = length, .clip = clip, .z = z};
    for (int32_t f = LINNET_RECORD_EXPONENT_MAX; f >= -LINNET_RING_EXPONENT_MAX; f--) {
        spec.exponent = f;
        if (linnet_record_variance(&spec) > 0) {
            *ret_exponent = f;
            return LINNET_OK;
        }
    }
    return linnet_fail(err, LINNET_ERR_RANGE,
                       "no scale for noise multiplier %g, clip norm %g and %llu coordinates", z, clip,
                       (unsigned long long)length);
}

linnet_status linnet_record_check(const linnet_record_spec *spec, linnet_error *err)
{
    if (!(spec->clip > 0 && isfinite(spec->clip)) || !(spec->z > 0 && isfinite(spec->z)) ||
        !(spec->divisor > 0 && isfinite(spec->divisor)))
        return linnet_fail(err, LINNET_ERR_ARG,
                           "clip norm %g, noise multiplier %g, divisor %g: all are "
                           "positive and finite",
                           spec->clip, spec->z, spec->divisor);
    if (spec->length < 1 || spec->length > LINNET_RING_LENGTH_MAX)
        return linnet_fail(err, LINNET_ERR_RANGE, "gradient of %llu coordinates",
                           (unsigned long long)spec->length);
    if (linnet_record_bound2(spec) == 0)
        return linnet_fail(err, LINNET_ERR_RANGE, "clip norm %g with scale 2^%d is not in (0, 2^30)",
                           spec->clip, (int)spec->exponent);
    if (linnet_record_variance(spec) < LINNET_DP_VARIANCE_MIN)
        return linnet_fail(err, LINNET_ERR_RANGE, "noise has 4 to 4096 lattice units; choose another scale");
    return LINNET_OK;
}

linnet_status linnet_record_sum_create(const linnet_record_spec *spec, linnet_random_fn *random,
                                       void *context, linnet_record_sum **ret_sum, linnet_error *err)
{
    linnet_status status = linnet_record_check(spec, err);
    if (status != LINNET_OK)
        return status;
    linnet_record_sum *sum = calloc(1, sizeof(*sum));
    if (!sum)
        return linnet_fail(err, LINNET_ERR_NOMEM, "private sum");
    *sum = (linnet_record_sum){.spec = *spec,
                               .bound2 = linnet_record_bound2(spec),
                               .variance = linnet_record_variance(spec),
                               .random = random,
                               .random_context = context};
    sum->total = calloc((size_t)spec->length, sizeof(sum->total[0])); /* checks the product */
    sum->unit = calloc((size_t)spec->length, sizeof(sum->unit[0]));
    if (!sum->total || !sum->unit) {
        linnet_record_sum_destroy(sum);
        return linnet_fail(err, LINNET_ERR_NOMEM, "private sum of %llu coordinates",
                           (unsigned long long)spec->length);
    }
    *ret_sum = sum;
    return LINNET_OK;
}

void linnet_record_sum_destroy(linnet_record_sum *sum)
{
    if (!sum)
        return;
    if (sum->total)
        linnet_wipe(sum->total, (size_t)sum->spec.length * sizeof(sum->total[0]));
    if (sum->unit)
        linnet_wipe(sum->unit, (size_t)sum->spec.length * sizeof(sum->unit[0]));
    free(sum->total);
    free(sum->unit);
    free(sum);
}

static void draw_noise(linnet_record_sum *sum)
{
    if (sum->has_noise)
        return;
    linnet_status status = linnet_discrete_gaussian(sum->variance, sum->random, sum->random_context,
                                                    sum->total, (size_t)sum->spec.length);
    assert(status == LINNET_OK); /* create has checked the variance, and nothing else can fail */
    (void)status;
    sum->has_noise = true;
}

void linnet_record_sum_add(linnet_record_sum *sum, const float *gradient)
{
    size_t n = (size_t)sum->spec.length;
    draw_noise(sum);
    (void)linnet_dp_round(gradient, n, linnet_dp_clip_factor(gradient, n, sum->spec.clip), sum->spec.exponent,
                          sum->bound2, sum->random, sum->random_context, sum->unit);
    for (size_t i = 0; i < n; i++)
        sum->total[i] += sum->unit[i];
}

const int64_t *linnet_record_sum_integers(const linnet_record_sum *sum)
{
    return sum->total;
}

void linnet_record_sum_finish(linnet_record_sum *sum, float *ret_mean)
{
    double scale = ldexp(sum->spec.divisor, sum->spec.exponent);
    draw_noise(sum);
    for (size_t i = 0; i < sum->spec.length; i++)
        ret_mean[i] = (float)((double)sum->total[i] / scale);
    sum->has_noise = false;
}
