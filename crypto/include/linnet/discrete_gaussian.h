/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_DISCRETE_GAUSSIAN_H
#define LINNET_DISCRETE_GAUSSIAN_H

/* Exact samples of the discrete Gaussian on the integers, with integers only (Canonne, Kamath, Steinke 2020,
 * arXiv 2004.00010; SECURE-AGGREGATION 3.3). */

#include "linnet/shamir.h"

#define LINNET_DISCRETE_GAUSSIAN_SIGMA2_MAX ((uint64_t)1 << 24)

/**
 * Draw n independent samples with density proportional to exp(-y^2 / (2 sigma2)).
 *
 * sigma2       1 .. LINNET_DISCRETE_GAUSSIAN_SIGMA2_MAX
 * random       the system's generator on devices; simulations give a seeded one
 * ret_samples  n values; |y| <= 64 (floor(sqrt(sigma2)) + 1)
 *
 * The time of a call depends on the samples: draw all noise of a vector in one batch, and let messages leave
 * on a schedule of their own. RANGE for another sigma2.
 */
linnet_status linnet_discrete_gaussian(uint64_t sigma2, linnet_random_fn *random, void *context,
                                       int64_t *ret_samples, size_t n) LINNET_NODISCARD;

#endif
