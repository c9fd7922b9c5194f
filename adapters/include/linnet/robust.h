/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ROBUST_H
#define LINNET_ROBUST_H

/* Robust aggregation (SECURE-AGGREGATION 5, FEDERATED-LORA 3): one vector out of n, of which a few may be
 * anything. The vectors are single deltas where they are in the open, or the means of cohorts where they are
 * not; each is read in slices, so that no two need to be in memory whole. */

#include "linnet/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum linnet_robust_rule {
    LINNET_ROBUST_MEAN,             /* sum of p_k x_k; bounded by clipping only */
    LINNET_ROBUST_MEDIAN,           /* per coordinate; even n: mean of the two in the middle */
    LINNET_ROBUST_TRIMMED_MEAN,     /* per coordinate, without the ceil(trim n) least and greatest */
    LINNET_ROBUST_GEOMETRIC_MEDIAN, /* least sum of p_k ||x_k - z|| (RFA, arXiv 1912.13445) */
    LINNET_ROBUST_KRUM,             /* the one nearest to its n - f - 2 nearest (Blanchard et al. 2017) */
    LINNET_ROBUST_MULTI_KRUM,       /* mean of the n_keep nearest in that sense */
    LINNET_ROBUST_RULES
} linnet_robust_rule;
/** "mean", "median", "trimmed_mean", "geometric_median", "krum", "multi_krum"; else "unknown". */
const char *linnet_robust_rule_name(linnet_robust_rule rule);

typedef struct linnet_robust_config {
    linnet_robust_rule rule;
    double clip_multiple; /* every vector is first scaled down to this times the median norm; 0: never */
    double trim;          /* TRIMMED_MEAN: fraction cut on each side, 0 <= trim < 0.5 */
    double smoothing;     /* GEOMETRIC_MEDIAN: nu as a fraction of the median norm, in (0, 1] */
    double tolerance;     /* GEOMETRIC_MEDIAN: ends where a step is below this times the typical distance */
    uint32_t iterations_max; /* GEOMETRIC_MEDIAN: at least 1; 3 are enough in RFA's experiments */
    uint32_t n_corrupt;      /* (MULTI_)KRUM: f, with n >= 2 f + 3 */
    uint32_t n_keep;         /* MULTI_KRUM: 1 to n - f; 0: n - f - 2 */
} linnet_robust_config;
/** MEAN without clipping; trim 0.2, smoothing 1e-6, tolerance 1e-6, 100 iterations, f = 0, n_keep 0. */
void linnet_robust_default(linnet_robust_config *config);

/** Is this a config, and are n vectors enough for its rule? ARG says why not. */
linnet_status linnet_robust_check(const linnet_robust_config *config, size_t n_vectors,
                                  linnet_error *err) LINNET_NODISCARD;

/**
 * A rule at work on n vectors. Some rules first measure the vectors (norms, distances) in passes over all
 * coordinates; then every slice is combined by itself:
 *
 *     linnet_robust_create(...)
 *     while (linnet_robust_wants_pass(r)) {
 *         for each slice: linnet_robust_add(r, slices, n_values, err)
 *         linnet_robust_end_pass(r, err)
 *     }
 *     for each slice: linnet_robust_combine(r, slices, n_values, out, err)
 *
 * Every pass gives the same coordinates in the same order, cut anywhere: the result has the same bits for any
 * slicing. Passes: MEAN, MEDIAN, TRIMMED_MEAN none; KRUM and MULTI_KRUM one; GEOMETRIC_MEDIAN one an
 * iteration; clipping adds one, except to GEOMETRIC_MEDIAN, whose first pass measures the norms anyway.
 */
typedef struct linnet_robust linnet_robust;

/** weights p_k (not negative, sum positive; NULL: all equal) count for MEAN and GEOMETRIC_MEDIAN only: where
 * a device states its own weight, the other rules are meant not to believe it. They are copied. ARG where the
 * config is none or n is too small for the rule. */
linnet_status linnet_robust_create(const linnet_robust_config *config, size_t n_vectors,
                                   const double *weights, linnet_robust **ret_robust,
                                   linnet_error *err) LINNET_NODISCARD;
void linnet_robust_destroy(linnet_robust *robust);

bool linnet_robust_wants_pass(const linnet_robust *robust);
/** slices[k] has n_values values of vector k, borrowed for the call. RANGE names the vector with a NaN or an
 * infinity, and nothing was added. ARG where no pass is wanted. */
linnet_status linnet_robust_add(linnet_robust *robust, const float *const *slices, size_t n_values,
                                linnet_error *err) LINNET_NODISCARD;
/** MISMATCH where this pass had another number of coordinates than the first. */
linnet_status linnet_robust_end_pass(linnet_robust *robust, linnet_error *err) LINNET_NODISCARD;
/** ret_values[n_values], written on success only; it may not overlap a slice. ARG where a pass is wanted
 * still; RANGE as above. */
linnet_status linnet_robust_combine(linnet_robust *robust, const float *const *slices, size_t n_values,
                                    float *ret_values, linnet_error *err) LINNET_NODISCARD;

/** The factor c_k of every vector in the result, sum of c_k x_k, clipping included: the influence to log.
 * Borrowed until destroy; NULL for MEDIAN and TRIMMED_MEAN, and while a pass is wanted. */
const double *linnet_robust_factors(const linnet_robust *robust);

/** All of the above on whole vectors of `length` values. */
linnet_status linnet_robust_aggregate(const linnet_robust_config *config, const float *const *vectors,
                                      const double *weights, size_t n_vectors, size_t length,
                                      float *ret_values, linnet_error *err) LINNET_NODISCARD;

/**
 * Scale a step down so that its L2 norm, over all its parts (one a factor) together, is at most norm_max up
 * to float rounding. Changed in place, and only if it is longer; untouched on failure.
 *
 * ret_norm  the norm before, on success only; may be NULL
 *
 * ARG where norm_max is not positive and finite; RANGE, naming part and place, for NaN or infinity.
 */
linnet_status linnet_step_clip(float *const *parts, const size_t *lengths, size_t n_parts, double norm_max,
                               double *ret_norm, linnet_error *err) LINNET_NODISCARD;

#endif
