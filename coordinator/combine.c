/* SPDX-License-Identifier: Apache-2.0 */
/* One delta out of several. What is combined are parts: the means of cohorts, decoded whole, or single
 * contributions, decoded from the spool slice by slice, so that memory holds one slice of each and the
 * result. The rules themselves are in robust.c; they take some passes over the parts to measure them and one
 * to combine. A last pass measures every part against the result: norm, cosine and factor are the influence
 * that is logged, of cohorts where the profile hides devices.
 *
 * A masked sum cannot be checked device by device, but not every sum can come from devices that keep to the
 * plan: every coordinate of the mean has a bound, or with noise its norm. (The lanes are checked when a sum
 * is opened.) */
#include "combine.h"

#include "linnet/dp_encode.h"

#include <math.h>
#include <stdlib.h>

#define NOISE_SIGMAS 9 /* by which the norm of summed noise may exceed its mean: probability e^-40 */

typedef struct combining combining;
/* Coordinates first .. first + n of the factor of spec i of part k. */
typedef linnet_status slice_fn(const combining *m, size_t k, size_t i, uint64_t first, size_t n,
                               float *ret_values, linnet_error *err);

struct combining {
    linnet_coordinator *coordinator;
    linnet_combined *out;
    slice_fn *slice;
    /* cohorts */
    const float *const *means; /* n_specs of each part */
    /* contributions */
    uint64_t round;
    const linnet_device_id *devices;
    const uint32_t *weights;
    /* one slice of each part */
    float **slices; /* owned, like what they point to */
    double *dots;   /* owned: of each part with the result */
    linnet_robust *robust;
};

void linnet_combined_release(linnet_combined *combined)
{
    for (size_t i = 0; i < combined->n_specs; i++)
        free(combined->vectors[i]);
    free(combined->parts);
    *combined = (linnet_combined){0};
}

static linnet_factors factor_of(const linnet_ring_spec *spec)
{
    return spec->vector_id == 0 ? LINNET_FACTOR_B : LINNET_FACTOR_A;
}

static bool is_lanes(const linnet_ring_spec *spec)
{
    return spec->vector_id == 1;
}

/* Specs, lengths and room for the result and the parts. */
static linnet_status combined_init(const linnet_coordinator *c, uint64_t version, size_t n_parts,
                                   linnet_combined *out, linnet_error *err)
{
    linnet_status status = linnet_plan_vectors(&c->plan, c->layout, version, out->specs, &out->n_specs, err);
    if (status != LINNET_OK)
        return status;
    out->n_parts = n_parts;
    out->parts = calloc(n_parts ? n_parts : 1, sizeof(*out->parts));
    bool failed = !out->parts;
    for (size_t i = 0; i < out->n_specs; i++) {
        if (is_lanes(&out->specs[i]))
            continue;
        out->lengths[i] = linnet_factors_length(c->layout, factor_of(&out->specs[i]));
        out->vectors[i] = malloc(out->lengths[i] * sizeof(float));
        failed = failed || !out->vectors[i];
    }
    return failed ? linnet_fail(err, LINNET_ERR_NOMEM, "a combined delta") : LINNET_OK;
}

/* ---- one pass over all parts ---- */

typedef linnet_status visit_fn(combining *m, size_t i, uint64_t first, size_t n, linnet_error *err);

static linnet_status each_slice(combining *m, visit_fn *visit, linnet_error *err)
{
    linnet_combined *out = m->out;
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < out->n_specs && status == LINNET_OK; i++)
        for (uint64_t first = 0; first < out->lengths[i] && status == LINNET_OK; first += LINNET_RING_CHUNK) {
            uint64_t left = out->lengths[i] - first;
            size_t n = left < LINNET_RING_CHUNK ? (size_t)left : LINNET_RING_CHUNK;
            for (size_t k = 0; k < out->n_parts && status == LINNET_OK; k++)
                status = m->slice(m, k, i, first, n, m->slices[k], err);
            if (status == LINNET_OK)
                status = visit(m, i, first, n, err);
        }
    return status;
}

static linnet_status measure_slice(combining *m, size_t i, uint64_t first, size_t n, linnet_error *err)
{
    (void)i;
    (void)first;
    return linnet_robust_add(m->robust, (const float *const *)m->slices, n, err);
}

/* The result, and what each part has in common with it. */
static linnet_status combine_slice(combining *m, size_t i, uint64_t first, size_t n, linnet_error *err)
{
    linnet_combined *out = m->out;
    float *result = out->vectors[i] + first;
    linnet_status status = linnet_robust_combine(m->robust, (const float *const *)m->slices, n, result, err);
    if (status != LINNET_OK)
        return status;
    for (size_t j = 0; j < n; j++)
        out->norm += (double)result[j] * result[j];
    for (size_t k = 0; k < out->n_parts; k++)
        for (size_t j = 0; j < n; j++) {
            double value = m->slices[k][j];
            out->parts[k].norm += value * value;
            m->dots[k] += value * result[j];
        }
    return LINNET_OK;
}

/* Squares become norms, dots cosines. */
static void influence_finish(combining *m)
{
    linnet_combined *out = m->out;
    const double *factors = linnet_robust_factors(m->robust);
    double weights = 0;
    for (size_t k = 0; k < out->n_parts; k++)
        weights += out->parts[k].weight;
    out->norm = sqrt(out->norm);
    for (size_t k = 0; k < out->n_parts; k++) {
        linnet_influence *part = &out->parts[k];
        part->norm = sqrt(part->norm);
        part->weight /= weights;
        double both = part->norm * out->norm;
        part->cosine = both > 0 ? m->dots[k] / both : 0;
        part->has_factor = factors != NULL;
        part->factor = factors ? factors[k] : 0;
    }
}

static linnet_status passes(combining *m, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    while (status == LINNET_OK && linnet_robust_wants_pass(m->robust)) {
        status = each_slice(m, measure_slice, err);
        if (status == LINNET_OK)
            status = linnet_robust_end_pass(m->robust, err);
    }
    if (status == LINNET_OK)
        status = each_slice(m, combine_slice, err);
    if (status == LINNET_OK)
        influence_finish(m);
    return status;
}

static linnet_status room_make(combining *m, size_t n_parts, linnet_error *err)
{
    m->slices = calloc(n_parts, sizeof(*m->slices));
    m->dots = calloc(n_parts, sizeof(*m->dots));
    bool failed = !m->slices || !m->dots;
    for (size_t k = 0; k < n_parts && !failed; k++)
        failed = !(m->slices[k] = malloc(LINNET_RING_CHUNK * sizeof(float)));
    return failed ? linnet_fail(err, LINNET_ERR_NOMEM, "slices of %zu vectors", n_parts) : LINNET_OK;
}

static void room_free(combining *m, size_t n_parts)
{
    for (size_t k = 0; m->slices && k < n_parts; k++)
        free(m->slices[k]);
    free(m->slices);
    free(m->dots);
    linnet_robust_destroy(m->robust);
}

/* Two vectors cannot outvote each other: fewer than three are no median, whatever the plan expected. */
static linnet_status robust_make(combining *m, linnet_error *err)
{
    const linnet_plan *plan = &m->coordinator->plan;
    const linnet_combined *out = m->out;
    linnet_robust_config config;
    linnet_plan_robust(plan, &config);
    if (linnet_plan_compares(plan) && out->n_parts < 3)
        return linnet_fail(err, LINNET_ERR_RANGE, "%zu vectors are too few for %s", out->n_parts,
                           linnet_robust_rule_name(config.rule));
    linnet_status status = linnet_robust_check(&config, out->n_parts, err);
    if (status != LINNET_OK)
        return LINNET_ERR_RANGE;
    double *weights = malloc(out->n_parts * sizeof(*weights));
    if (!weights)
        return linnet_fail(err, LINNET_ERR_NOMEM, "weights");
    for (size_t k = 0; k < out->n_parts; k++)
        weights[k] = out->parts[k].weight;
    status = linnet_robust_create(&config, out->n_parts, weights, &m->robust, err);
    free(weights);
    return status;
}

static linnet_status run(combining *m, linnet_error *err)
{
    size_t n_parts = m->out->n_parts;
    if (n_parts == 0)
        return linnet_fail(err, LINNET_ERR_RANGE, "there is nothing to combine");
    linnet_status status = robust_make(m, err);
    if (status == LINNET_OK)
        status = room_make(m, n_parts, err);
    if (status == LINNET_OK)
        status = passes(m, err);
    room_free(m, n_parts);
    return status;
}

/* ---- cohorts ---- */

static linnet_status decode(const linnet_coordinator *c, uint64_t version, const linnet_fold *cohort,
                            const linnet_ring_spec *spec, const uint32_t *sums, size_t length, float *values,
                            linnet_error *err)
{
    linnet_privacy p;
    uint64_t weight = cohort->lanes[LINNET_LANE_WEIGHT];
    if (c->plan.mechanism != LINNET_DP_DISTRIBUTED)
        return linnet_ring_decode(spec, sums, weight, values, err);
    linnet_status status = linnet_plan_privacy(&c->plan, c->layout, version, &p, err);
    const linnet_dp_spec dp = {.clip = p.clip, .sigma2 = p.sigma2, .rotates = p.rotates};
    return status == LINNET_OK
               ? linnet_dp_decode(spec, &dp, &cohort->announcement, sums, weight, values, length, err)
               : status;
}

/* Every coordinate of a mean of kept values lies within the clamp. */
static bool is_in_clamp(const linnet_ring_spec *spec, const float *mean, size_t length)
{
    double limit = ldexp((double)spec->clamp, -spec->exponent) * (1 + 1e-6);
    for (size_t j = 0; j < length; j++)
        if (!(fabs((double)mean[j]) <= limit))
            return false;
    return true;
}

/* n deltas of norm D2 at most, and the noise of n devices: as norms, in units of the lattice. */
static bool is_in_norm(const linnet_privacy *p, uint64_t n, const float *mean, size_t length)
{
    double square = 0, count = (double)n;
    for (size_t j = 0; j < length; j++)
        square += (double)mean[j] * mean[j];
    double variance = (double)p->sigma2 * (p->mechanism == LINNET_DP_DISTRIBUTED ? count : 1);
    double noise = (sqrt((double)p->dimension) + NOISE_SIGMAS) * sqrt(variance);
    double limit = count * sqrt((double)p->bound2) + noise;
    return ldexp(sqrt(square) * count, p->exponent) <= limit * (1 + 1e-6);
}

/* Why no set of honest devices made this sum; NULL where one may have. */
static linnet_status values_flaw(const linnet_coordinator *c, uint64_t version, const linnet_fold *cohort,
                                 const linnet_combined *out, float *const *mean, const char **ret_flaw,
                                 linnet_error *err)
{
    linnet_privacy p;
    linnet_status status = linnet_plan_privacy(&c->plan, c->layout, version, &p, err);
    if (status != LINNET_OK)
        return status;
    bool is_noised = p.mechanism == LINNET_DP_DISTRIBUTED || p.mechanism == LINNET_DP_CENTRAL;
    for (size_t i = 0; i < out->n_specs; i++) {
        if (!mean[i]) /* lanes */
            continue;
        bool is_good = is_noised ? is_in_norm(&p, cohort->n_contributions, mean[i], out->lengths[i])
                                 : is_in_clamp(&out->specs[i], mean[i], out->lengths[i]);
        if (!is_good)
            *ret_flaw = "its mean is beyond what its devices may send";
    }
    return LINNET_OK;
}

/* Decode one cohort into mean[n_specs] (owned by the caller). ret_flaw is set where it does not count. */
static linnet_status cohort_decode(linnet_coordinator *c, uint64_t version, const linnet_fold *cohort,
                                   const linnet_combined *out, float **mean, const char **ret_flaw,
                                   linnet_error *err)
{
    const uint32_t *sums = cohort->sums;
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < out->n_specs && status == LINNET_OK; i++) {
        if (!is_lanes(&out->specs[i])) {
            mean[i] = malloc(out->lengths[i] * sizeof(float));
            status = mean[i] ? decode(c, version, cohort, &out->specs[i], sums, out->lengths[i], mean[i], err)
                             : linnet_fail(err, LINNET_ERR_NOMEM, "mean of a cohort");
        }
        sums += out->specs[i].length;
    }
    return status == LINNET_OK ? values_flaw(c, version, cohort, out, mean, ret_flaw, err) : status;
}

static linnet_status cohort_slice(const combining *m, size_t k, size_t i, uint64_t first, size_t n,
                                  float *ret_values, linnet_error *err)
{
    (void)err;
    memcpy(ret_values, m->means[k * LINNET_VECTORS_MAX + i] + first, n * sizeof(float));
    return LINNET_OK;
}

/* Part number out->n_parts is this cohort, unless it has a flaw. */
static linnet_status cohort_take(linnet_coordinator *c, uint64_t version, const linnet_fold *cohort,
                                 linnet_combined *out, float **means, linnet_error *err)
{
    const char *flaw = NULL;
    float **mean = means + out->n_parts * LINNET_VECTORS_MAX;
    linnet_status status = cohort_decode(c, version, cohort, out, mean, &flaw, err);
    if (status != LINNET_OK)
        return status;
    if (flaw) {
        linnet_coordinator_say(c, 4, "round %llu is left out of its step: %s",
                               (unsigned long long)cohort->round, flaw);
        for (size_t i = 0; i < LINNET_VECTORS_MAX; i++) {
            free(mean[i]);
            mean[i] = NULL;
        }
        return LINNET_OK;
    }
    out->parts[out->n_parts++] =
        (linnet_influence){.round = cohort->round, .weight = (double)cohort->lanes[LINNET_LANE_WEIGHT]};
    out->n_contributions += cohort->n_contributions;
    for (size_t lane = 0; lane < LINNET_LANES; lane++)
        out->lanes[lane] += cohort->lanes[lane];
    return LINNET_OK;
}

static void means_free(float **means, size_t n_cohorts)
{
    for (size_t i = 0; means && i < n_cohorts * LINNET_VECTORS_MAX; i++)
        free(means[i]);
    free(means);
}

linnet_status linnet_combine_sums(linnet_coordinator *c, uint64_t version, const linnet_fold *cohorts,
                                  size_t n_cohorts, linnet_combined *ret_combined, linnet_error *err)
{
    linnet_combined out = {0};
    float **means = calloc(n_cohorts ? n_cohorts * LINNET_VECTORS_MAX : 1, sizeof(*means));
    linnet_status status = means ? combined_init(c, version, n_cohorts, &out, err)
                                 : linnet_fail(err, LINNET_ERR_NOMEM, "means of cohorts");
    out.n_parts = 0;
    for (size_t k = 0; k < n_cohorts && status == LINNET_OK; k++)
        status = cohort_take(c, version, &cohorts[k], &out, means, err);
    if (status == LINNET_OK && out.n_parts == 0)
        status = linnet_fail(err, LINNET_ERR_RANGE, "no cohort has a sum that devices can have made");
    combining m = {
        .coordinator = c, .out = &out, .slice = cohort_slice, .means = (const float *const *)means};
    if (status == LINNET_OK)
        status = run(&m, err);
    means_free(means, n_cohorts);
    if (status != LINNET_OK) {
        linnet_combined_release(&out);
        return status;
    }
    *ret_combined = out;
    return LINNET_OK;
}

/* ---- contributions ---- */

static linnet_status contribution_slice(const combining *m, size_t k, size_t i, uint64_t first, size_t n,
                                        float *ret_values, linnet_error *err)
{
    uint32_t raw[LINNET_RING_CHUNK];
    linnet_ring_spec part = m->out->specs[i];
    const linnet_spool_id id = {.round = m->round, .device = m->devices[k]};
    linnet_status status = linnet_spool_slice(m->coordinator, &id, m->out->specs, i, first, n, raw, err);
    part.length = n;
    return status == LINNET_OK ? linnet_ring_decode(&part, raw, m->weights[k], ret_values, err) : status;
}

/* The lanes of every contribution: totals, and what each part weighs. */
static linnet_status lanes_take(linnet_coordinator *c, uint64_t round, const linnet_device_id *devices,
                                linnet_combined *out, uint32_t *weights, linnet_error *err)
{
    size_t at = out->n_specs - 1; /* lanes stand last */
    linnet_status status = LINNET_OK;
    for (size_t k = 0; k < out->n_parts && status == LINNET_OK; k++) {
        uint32_t lanes[LINNET_LANES] = {0};
        const linnet_spool_id id = {.round = round, .device = devices[k]};
        status = linnet_spool_slice(c, &id, out->specs, at, 0, (size_t)out->specs[at].length, lanes, err);
        weights[k] = out->specs[at].length > LINNET_LANE_WEIGHT ? lanes[LINNET_LANE_WEIGHT] : 1;
        out->parts[k] = (linnet_influence){
            .round = round, .is_device = true, .device_id = devices[k], .weight = weights[k]};
        for (size_t lane = 0; lane < LINNET_LANES; lane++)
            out->lanes[lane] += lanes[lane];
    }
    out->n_contributions = out->n_parts;
    return status;
}

linnet_status linnet_combine_contributions(linnet_coordinator *c, const linnet_round_row *round,
                                           linnet_combined *ret_combined, linnet_error *err)
{
    linnet_combined out = {0};
    linnet_device_id *devices = NULL;
    uint32_t *weights = calloc((size_t)round->accepted + 1, sizeof(*weights));
    linnet_status status = weights ? linnet_contributors_list(c, round, &devices, err)
                                   : linnet_fail(err, LINNET_ERR_NOMEM, "weights");
    if (status == LINNET_OK)
        status = combined_init(c, round->version, round->accepted, &out, err);
    if (status == LINNET_OK)
        status = lanes_take(c, round->number, devices, &out, weights, err);
    combining m = {.coordinator = c,
                   .out = &out,
                   .slice = contribution_slice,
                   .round = round->number,
                   .devices = devices,
                   .weights = weights};
    if (status == LINNET_OK)
        status = run(&m, err);
    free(devices);
    free(weights);
    if (status != LINNET_OK) {
        linnet_combined_release(&out);
        return status;
    }
    *ret_combined = out;
    return LINNET_OK;
}
