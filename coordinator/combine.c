/* SPDX-License-Identifier: Apache-2.0 */
/* The mean of one step out of the sums of its cohorts: each sum is decoded by itself (it has a rotation of
 * its own), then the cohorts' means are averaged by the weights in them, so that the result is the mean over
 * all contributions, as if there had been one cohort. */
#include "combine.h"

#include "linnet/dp_encode.h"

#include <stdlib.h>

void linnet_mean_release(linnet_mean *mean)
{
    free(mean->b);
    free(mean->a);
    *mean = (linnet_mean){0};
}

/* What decoding one vector needs. */
typedef struct decoder {
    const linnet_ring_spec *spec;
    linnet_dp_spec dp;
    bool rotates;
    size_t n_values;
} decoder;

static linnet_status decode(const decoder *d, const linnet_cohort_sum *cohort, const uint32_t *sum,
                            float *values, linnet_error *err)
{
    if (d->rotates)
        return linnet_dp_decode(d->spec, &d->dp, &cohort->announcement, sum, cohort->weight_sum, values,
                                d->n_values, err);
    return linnet_ring_decode(d->spec, sum, cohort->weight_sum, values, err);
}

/* total += weight x values, in double: a mean of floats then depends on no order that matters. */
static void add_weighted(double *total, const float *values, size_t n, double weight)
{
    for (size_t i = 0; i < n; i++)
        total[i] += weight * (double)values[i];
}

/* The mean of one vector; `at` is its place in every cohort's sums. */
static linnet_status average(const decoder *d, const linnet_cohort_sum *cohorts, size_t n_cohorts, size_t at,
                             float *mean, linnet_error *err)
{
    double weights = 0;
    if (n_cohorts == 1)
        return decode(d, &cohorts[0], cohorts[0].sums + at, mean, err);
    double *total = calloc(d->n_values, sizeof(*total));
    if (!total)
        return linnet_fail(err, LINNET_ERR_NOMEM, "mean of %zu coordinates", d->n_values);
    linnet_status status = LINNET_OK;
    for (size_t k = 0; k < n_cohorts && status == LINNET_OK; k++) {
        status = decode(d, &cohorts[k], cohorts[k].sums + at, mean, err);
        if (status == LINNET_OK)
            add_weighted(total, mean, d->n_values, (double)cohorts[k].weight_sum);
        weights += (double)cohorts[k].weight_sum;
    }
    for (size_t i = 0; i < d->n_values && status == LINNET_OK; i++)
        mean[i] = (float)(total[i] / weights);
    free(total);
    return status;
}

/* Where this vector's mean goes: the padding of a rotation stays behind. */
static linnet_status mean_of_vector(const decoder *d, const linnet_cohort_sum *cohorts, size_t n_cohorts,
                                    size_t at, float **ret_mean, linnet_error *err)
{
    float *mean = malloc(d->n_values * sizeof(*mean));
    if (!mean)
        return linnet_fail(err, LINNET_ERR_NOMEM, "mean of %zu coordinates", d->n_values);
    linnet_status status = average(d, cohorts, n_cohorts, at, mean, err);
    if (status == LINNET_OK)
        *ret_mean = mean;
    else
        free(mean);
    return status;
}

linnet_status linnet_combine_sums(const linnet_plan *plan, const linnet_layout *layout, uint64_t version,
                                  const linnet_ring_spec *specs, size_t n_specs,
                                  const linnet_cohort_sum *cohorts, size_t n_cohorts, linnet_mean *ret_mean,
                                  linnet_error *err)
{
    size_t at = 0;
    linnet_mean mean = {0};
    linnet_privacy privacy;
    linnet_status status = linnet_plan_privacy(plan, layout, version, &privacy, err);
    for (size_t i = 0; i < n_specs && status == LINNET_OK; at += (size_t)specs[i++].length) {
        bool is_b = specs[i].vector_id == 0;
        decoder d = {.spec = &specs[i],
                     .dp = {.clip = privacy.clip, .sigma2 = privacy.sigma2, .rotates = privacy.rotates},
                     .rotates = privacy.rotates,
                     .n_values = linnet_factors_length(layout, is_b ? LINNET_FACTOR_B : LINNET_FACTOR_A)};
        if (specs[i].vector_id != 1)
            status = mean_of_vector(&d, cohorts, n_cohorts, at, is_b ? &mean.b : &mean.a, err);
    }
    if (status == LINNET_OK)
        *ret_mean = mean;
    else
        linnet_mean_release(&mean);
    return status;
}
