/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Robust aggregation. Two families. Per coordinate: sort the column, cut both ends, average the rest; the
 * median is the trimmed mean with the most cut. Over whole vectors: measure, then take a weighted sum, whose
 * factors are all that a rule keeps between passes, so that no vector and no centre is ever held whole.
 *
 * Krum: Blanchard et al. 2017. Geometric median: smoothed Weiszfeld as in RFA (Pillutla et al. 2022,
 * Algorithm 2): factor_k = p_k / max(nu, ||x_k - z||), normed. Ours starts at z = 0, the common start of all
 * deltas, not at their mean: a vector of huge norm then has a bounded part in every iterate. It ends by the
 * bound sum |change of factor_k| ||x_k - z|| on the length of a step, which needs no pass of its own and
 * which a far vector cannot hide a step behind.
 *
 * Sums are in double, coordinate by coordinate in order: any slicing gives the same bits. Left out: Bulyan
 * (n >= 4 f + 3 is more than our cohorts have), rules that remember devices over rounds.
 */
#include "linnet/robust.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NU_MIN                                                                                               \
    1e-150 /* where the median norm is 0: below any distance of float vectors, its inverse finite */

struct linnet_robust {
    linnet_robust_config config;
    size_t n;           /* vectors */
    size_t n_cut;       /* per coordinate: values left out on each side */
    double *weights;    /* owned: p_k, sum 1 */
    double *scales;     /* owned: what clipping leaves of vector k, 0..1 */
    double *factors;    /* owned: c_k of the weighted sum, scales not included until the end */
    double *squares;    /* owned: ||s_k x_k - z||^2 of this pass */
    double *column;     /* owned: scratch for n values */
    double *distances;  /* owned, n x n, the part above the diagonal: ||s_i x_i - s_j x_j||^2; Krum only */
    uint64_t n_added;   /* coordinates in this pass */
    uint64_t n_in_pass; /* coordinates in a whole pass; 0: not known yet */
    double nu;
    uint32_t n_iterations;
    bool has_norms, is_measured; /* the pass over norms is done; no pass is wanted any more */
};

const char *linnet_robust_rule_name(linnet_robust_rule rule)
{
    static const char *const names[LINNET_ROBUST_RULES] = {
        "mean", "median", "trimmed_mean", "geometric_median", "krum", "multi_krum"};
    return (size_t)rule < ARRAY_LEN(names) ? names[rule] : "unknown";
}

void linnet_robust_default(linnet_robust_config *config)
{
    *config = (linnet_robust_config){
        .rule = LINNET_ROBUST_MEAN, .trim = 0.2, .smoothing = 1e-6, .tolerance = 1e-6, .iterations_max = 100};
}

/* ---- create ---- */

static bool is_krum(linnet_robust_rule rule)
{
    return rule == LINNET_ROBUST_KRUM || rule == LINNET_ROBUST_MULTI_KRUM;
}

static bool is_per_coordinate(linnet_robust_rule rule)
{
    return rule == LINNET_ROBUST_MEDIAN || rule == LINNET_ROBUST_TRIMMED_MEAN;
}

/* ceil(trim n); the margin keeps a product like 0.07 x 100 = 7.000000000000001 at 7. */
static size_t trimmed_count(double trim, size_t n)
{
    return (size_t)ceil(trim * (double)n - 1e-9);
}

static linnet_status check_krum(const linnet_robust_config *config, size_t n, linnet_error *err)
{
    uint64_t f = config->n_corrupt;
    if (n < 2 * f + 3)
        return linnet_fail(err, LINNET_ERR_ARG, "%s: %zu vectors, of which %u corrupt: %llu are needed",
                           linnet_robust_rule_name(config->rule), n, config->n_corrupt,
                           (unsigned long long)(2 * f + 3));
    if (config->rule == LINNET_ROBUST_MULTI_KRUM && config->n_keep > n - f)
        return linnet_fail(err, LINNET_ERR_ARG, "multi_krum: keeps %u of %zu vectors, of which %u corrupt",
                           config->n_keep, n, config->n_corrupt);
    return LINNET_OK;
}

static linnet_status check_geometric(const linnet_robust_config *config, linnet_error *err)
{
    if (!(config->smoothing > 0 && config->smoothing <= 1))
        return linnet_fail(err, LINNET_ERR_ARG, "geometric_median: smoothing %g", config->smoothing);
    if (!(config->tolerance >= 0 && config->tolerance < 1) || config->iterations_max < 1)
        return linnet_fail(err, LINNET_ERR_ARG, "geometric_median: tolerance %g, %u iterations",
                           config->tolerance, config->iterations_max);
    return LINNET_OK;
}

linnet_status linnet_robust_check(const linnet_robust_config *config, size_t n, linnet_error *err)
{
    if ((size_t)config->rule >= LINNET_ROBUST_RULES || n == 0)
        return linnet_fail(err, LINNET_ERR_ARG, "robust rule %d over %zu vectors", (int)config->rule, n);
    if (!(config->clip_multiple >= 0 && isfinite(config->clip_multiple)))
        return linnet_fail(err, LINNET_ERR_ARG, "clipping to %g times the median norm",
                           config->clip_multiple);
    if (config->rule == LINNET_ROBUST_TRIMMED_MEAN &&
        (!(config->trim >= 0 && config->trim < 0.5) || 2 * trimmed_count(config->trim, n) >= n))
        return linnet_fail(err, LINNET_ERR_ARG, "trimmed_mean: %g on each side leaves none of %zu vectors",
                           config->trim, n);
    if (config->rule == LINNET_ROBUST_GEOMETRIC_MEDIAN)
        return check_geometric(config, err);
    return is_krum(config->rule) ? check_krum(config, n, err) : LINNET_OK;
}

static linnet_status take_weights(linnet_robust *r, const double *weights, linnet_error *err)
{
    double sum = 0;
    for (size_t k = 0; k < r->n; k++) {
        r->weights[k] = weights ? weights[k] : 1;
        if (!(r->weights[k] >= 0))
            return linnet_fail(err, LINNET_ERR_ARG, "weight %g of vector %zu", r->weights[k], k);
        sum += r->weights[k];
    }
    if (!(sum > 0 && isfinite(sum)))
        return linnet_fail(err, LINNET_ERR_ARG, "the weights of %zu vectors sum to %g", r->n, sum);
    for (size_t k = 0; k < r->n; k++)
        r->weights[k] /= sum;
    return LINNET_OK;
}

static linnet_status allocate(linnet_robust *r, linnet_error *err)
{
    r->weights = calloc(r->n, sizeof(*r->weights));
    r->scales = calloc(r->n, sizeof(*r->scales));
    r->factors = calloc(r->n, sizeof(*r->factors));
    r->squares = calloc(r->n, sizeof(*r->squares));
    r->column = calloc(r->n, sizeof(*r->column));
    if (is_krum(r->config.rule))
        r->distances = calloc(r->n, r->n * sizeof(*r->distances));
    if (!r->weights || !r->scales || !r->factors || !r->squares || !r->column ||
        (is_krum(r->config.rule) && !r->distances))
        return linnet_fail(err, LINNET_ERR_NOMEM, "%s of %zu vectors",
                           linnet_robust_rule_name(r->config.rule), r->n);
    return LINNET_OK;
}

linnet_status linnet_robust_create(const linnet_robust_config *config, size_t n_vectors,
                                   const double *weights, linnet_robust **ret_robust, linnet_error *err)
{
    linnet_status status = linnet_robust_check(config, n_vectors, err);
    if (status != LINNET_OK)
        return status;
    linnet_robust *r = calloc(1, sizeof(*r));
    if (!r)
        return linnet_fail(err, LINNET_ERR_NOMEM, "%s", linnet_robust_rule_name(config->rule));
    r->config = *config;
    r->n = n_vectors;
    status = allocate(r, err);
    if (status == LINNET_OK)
        status = take_weights(r, weights, err);
    if (status != LINNET_OK) {
        linnet_robust_destroy(r);
        return status;
    }
    r->n_cut = config->rule == LINNET_ROBUST_TRIMMED_MEAN ? trimmed_count(config->trim, n_vectors)
                                                          : (n_vectors - 1) / 2;
    for (size_t k = 0; k < r->n; k++)
        r->scales[k] = 1;
    if (config->rule == LINNET_ROBUST_MEAN)
        memcpy(r->factors, r->weights, r->n * sizeof(*r->factors));
    r->has_norms = config->rule != LINNET_ROBUST_GEOMETRIC_MEDIAN && config->clip_multiple == 0;
    r->is_measured = r->has_norms && !is_krum(config->rule);
    *ret_robust = r;
    return LINNET_OK;
}

void linnet_robust_destroy(linnet_robust *r)
{
    if (!r)
        return;
    free(r->weights);
    free(r->scales);
    free(r->factors);
    free(r->squares);
    free(r->column);
    free(r->distances);
    free(r);
}

/* ---- columns ---- */

/* Shell sort (gaps of Ciura 2001): a column is short, and there are very many. */
static void sort(double *values, size_t n)
{
    static const size_t gaps[] = {701, 301, 132, 57, 23, 10, 4, 1};
    for (size_t g = 0; g < ARRAY_LEN(gaps); g++)
        for (size_t i = gaps[g]; i < n; i++) {
            double value = values[i];
            size_t at = i;
            for (; at >= gaps[g] && values[at - gaps[g]] > value; at -= gaps[g])
                values[at] = values[at - gaps[g]];
            values[at] = value;
        }
}

/* Sorts the column, cuts n_cut on both sides and averages the rest. From 0.0 on, so that -0 has no say. */
static double trimmed_mean(double *column, size_t n, size_t n_cut)
{
    double sum = 0.0;
    sort(column, n);
    for (size_t k = n_cut; k < n - n_cut; k++)
        sum += column[k];
    return sum / (double)(n - 2 * n_cut);
}

static linnet_status check_finite(const float *const *slices, size_t n, size_t n_values, linnet_error *err)
{
    for (size_t k = 0; k < n; k++)
        for (size_t i = 0; i < n_values; i++)
            if (!isfinite(slices[k][i]))
                return linnet_fail(err, LINNET_ERR_RANGE, "vector %zu of %zu holds %g", k, n,
                                   (double)slices[k][i]);
    return LINNET_OK;
}

/* ---- passes ---- */

static void add_pair_distances(linnet_robust *r, const float *const *slices, size_t n_values)
{
    for (size_t i = 0; i < r->n; i++)
        for (size_t j = i + 1; j < r->n; j++) {
            double sum = r->distances[i * r->n + j];
            for (size_t v = 0; v < n_values; v++) {
                double difference = r->scales[i] * slices[i][v] - r->scales[j] * slices[j][v];
                sum += difference * difference;
            }
            r->distances[i * r->n + j] = sum;
        }
}

/* To the centre z = sum of factor_k s_k x_k, which is 0 before the first step: these are the norms then. */
static void add_centre_distances(linnet_robust *r, const float *const *slices, size_t n_values)
{
    for (size_t v = 0; v < n_values; v++) {
        double centre = 0;
        for (size_t k = 0; r->has_norms && k < r->n; k++) {
            r->column[k] = r->scales[k] * slices[k][v];
            centre += r->factors[k] * r->column[k];
        }
        for (size_t k = 0; k < r->n; k++) {
            double difference = r->has_norms ? r->column[k] - centre : slices[k][v];
            r->squares[k] += difference * difference;
        }
    }
}

bool linnet_robust_wants_pass(const linnet_robust *robust)
{
    return !robust->is_measured;
}

linnet_status linnet_robust_add(linnet_robust *r, const float *const *slices, size_t n_values,
                                linnet_error *err)
{
    if (r->is_measured)
        return linnet_fail(err, LINNET_ERR_ARG, "%s has measured its vectors",
                           linnet_robust_rule_name(r->config.rule));
    linnet_status status = check_finite(slices, r->n, n_values, err);
    if (status != LINNET_OK)
        return status;
    if (r->has_norms && is_krum(r->config.rule))
        add_pair_distances(r, slices, n_values);
    else
        add_centre_distances(r, slices, n_values);
    r->n_added += n_values;
    return LINNET_OK;
}

/* ---- what a pass tells ---- */

/* squares become distances; where they are the norms, they give the clip and nu, and are clipped too. */
static void take_norms(linnet_robust *r)
{
    for (size_t k = 0; k < r->n; k++)
        r->column[k] = r->squares[k];
    double median = trimmed_mean(r->column, r->n, (r->n - 1) / 2);
    double norm_max = r->config.clip_multiple * median;
    for (size_t k = 0; r->config.clip_multiple > 0 && k < r->n; k++)
        if (r->squares[k] > norm_max) {
            r->scales[k] = norm_max / r->squares[k];
            r->squares[k] = norm_max;
        }
    r->nu = fmax(r->config.smoothing * median, NU_MIN);
    r->has_norms = true;
}

/* One Weiszfeld step from the distances in squares; the first counts as a whole step. */
static void step_weiszfeld(linnet_robust *r)
{
    double sum = 0, moved = 0, typical = 0;
    for (size_t k = 0; k < r->n; k++) {
        r->column[k] = r->weights[k] / fmax(r->nu, r->squares[k]);
        sum += r->column[k];
    }
    for (size_t k = 0; k < r->n; k++) {
        double factor = r->column[k] / sum;
        moved += fabs(factor - r->factors[k]) * r->squares[k];
        typical += factor * r->squares[k];
        r->factors[k] = factor;
    }
    r->n_iterations++;
    r->is_measured = r->n_iterations >= r->config.iterations_max || moved <= r->config.tolerance * typical;
}

/* Sum of the n - f - 2 least distances of vector i to others. */
static double krum_score(linnet_robust *r, size_t i)
{
    size_t n_others = 0, n_nearest = r->n - r->config.n_corrupt - 2;
    double score = 0;
    for (size_t j = 0; j < r->n; j++)
        if (j != i)
            r->column[n_others++] = i < j ? r->distances[i * r->n + j] : r->distances[j * r->n + i];
    sort(r->column, n_others);
    for (size_t j = 0; j < n_nearest; j++)
        score += r->column[j];
    return score;
}

static void select_krum(linnet_robust *r)
{
    size_t n_keep = r->config.rule == LINNET_ROBUST_KRUM ? 1
                    : r->config.n_keep > 0               ? r->config.n_keep
                                                         : r->n - r->config.n_corrupt - 2;
    for (size_t i = 0; i < r->n; i++)
        r->squares[i] = krum_score(r, i);
    for (size_t kept = 0; kept < n_keep; kept++) {
        size_t best = SIZE_MAX; /* of those not taken yet; ties go to the lowest index */
        for (size_t i = 0; i < r->n; i++)
            if (r->factors[i] == 0 && (best == SIZE_MAX || r->squares[i] < r->squares[best]))
                best = i;
        r->factors[best] = 1 / (double)n_keep;
    }
    r->is_measured = true;
}

static void finish_pass(linnet_robust *r)
{
    if (r->has_norms && is_krum(r->config.rule)) {
        select_krum(r);
        return;
    }
    for (size_t k = 0; k < r->n; k++)
        r->squares[k] = sqrt(r->squares[k]);
    if (!r->has_norms)
        take_norms(r);
    if (r->config.rule == LINNET_ROBUST_GEOMETRIC_MEDIAN)
        step_weiszfeld(r);
    else
        r->is_measured = !is_krum(r->config.rule);
    memset(r->squares, 0, r->n * sizeof(*r->squares));
}

linnet_status linnet_robust_end_pass(linnet_robust *r, linnet_error *err)
{
    if (r->is_measured)
        return linnet_fail(err, LINNET_ERR_ARG, "%s has measured its vectors",
                           linnet_robust_rule_name(r->config.rule));
    if (r->n_in_pass > 0 && r->n_added != r->n_in_pass)
        return linnet_fail(err, LINNET_ERR_MISMATCH, "a pass over %llu coordinates after one over %llu",
                           (unsigned long long)r->n_added, (unsigned long long)r->n_in_pass);
    r->n_in_pass = r->n_added;
    r->n_added = 0;
    finish_pass(r);
    for (size_t k = 0; r->is_measured && k < r->n; k++)
        r->factors[k] *= r->scales[k];
    return LINNET_OK;
}

/* ---- results ---- */

static double combine_coordinate(linnet_robust *r, const float *const *slices, size_t v)
{
    if (is_per_coordinate(r->config.rule)) {
        for (size_t k = 0; k < r->n; k++)
            r->column[k] = r->scales[k] * slices[k][v];
        return trimmed_mean(r->column, r->n, r->n_cut);
    }
    double sum = 0;
    for (size_t k = 0; k < r->n; k++)
        sum += r->factors[k] * slices[k][v];
    return sum;
}

linnet_status linnet_robust_combine(linnet_robust *r, const float *const *slices, size_t n_values,
                                    float *ret_values, linnet_error *err)
{
    if (!r->is_measured)
        return linnet_fail(err, LINNET_ERR_ARG, "%s has not measured its vectors yet",
                           linnet_robust_rule_name(r->config.rule));
    linnet_status status = check_finite(slices, r->n, n_values, err);
    if (status != LINNET_OK)
        return status;
    for (size_t v = 0; v < n_values; v++)
        ret_values[v] = (float)combine_coordinate(r, slices, v);
    return LINNET_OK;
}

const double *linnet_robust_factors(const linnet_robust *r)
{
    return r->is_measured && !is_per_coordinate(r->config.rule) ? r->factors : NULL;
}

linnet_status linnet_robust_aggregate(const linnet_robust_config *config, const float *const *vectors,
                                      const double *weights, size_t n_vectors, size_t length,
                                      float *ret_values, linnet_error *err)
{
    linnet_robust *r = NULL;
    linnet_status status = linnet_robust_create(config, n_vectors, weights, &r, err);
    while (status == LINNET_OK && linnet_robust_wants_pass(r)) {
        status = linnet_robust_add(r, vectors, length, err);
        if (status == LINNET_OK)
            status = linnet_robust_end_pass(r, err);
    }
    if (status == LINNET_OK)
        status = linnet_robust_combine(r, vectors, length, ret_values, err);
    linnet_robust_destroy(r);
    return status;
}

linnet_status linnet_step_clip(float *const *parts, const size_t *lengths, size_t n_parts, double norm_max,
                               double *ret_norm, linnet_error *err)
{
    double square = 0;
    if (!(norm_max > 0 && isfinite(norm_max)))
        return linnet_fail(err, LINNET_ERR_ARG, "clipping a step to norm %g", norm_max);
    for (size_t p = 0; p < n_parts; p++)
        for (size_t i = 0; i < lengths[p]; i++) {
            if (!isfinite(parts[p][i]))
                return linnet_fail(err, LINNET_ERR_RANGE, "value %zu of part %zu of the step is %g", i, p,
                                   (double)parts[p][i]);
            square += (double)parts[p][i] * parts[p][i];
        }
    double norm = sqrt(square);
    for (size_t p = 0; norm > norm_max && p < n_parts; p++)
        for (size_t i = 0; i < lengths[p]; i++)
            parts[p][i] = (float)(parts[p][i] * (norm_max / norm));
    if (ret_norm)
        *ret_norm = norm;
    return LINNET_OK;
}
