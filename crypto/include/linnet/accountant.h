/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ACCOUNTANT_H
#define LINNET_ACCOUNTANT_H

/* Renyi accounting of differential privacy (SECURE-AGGREGATION 3.4): integer orders only. RDP adds up over
 * rounds, steps and tasks; epsilon is read off at the end. */

#include "linnet/status.h"

#include <stdint.h>

#define LINNET_RENYI_ORDERS 257 /* 2 .. 256, 512, 1024 */
/** The order at position i. */
uint32_t linnet_renyi_order(size_t i);

/** R(a) at every order, summed over what was spent. Zero-initialise it. */
typedef struct linnet_rdp {
    double at[LINNET_RENYI_ORDERS];
} linnet_rdp;

/** One Gaussian release of noise multiplier z: R(a) += a / (2 z^2). z > 0; z = infinity adds nothing. */
void linnet_rdp_add_gaussian(linnet_rdp *rdp, double z);
/** n_steps Poisson-sampled releases with probability p, by the bound for any mechanism (Zhu and Wang 2019,
 * theorem 5) with e(l) = l / (2 z^2): what linnet accounts record-level privacy with. */
void linnet_rdp_add_sampled(linnet_rdp *rdp, double p, double z, double n_steps);
/** The same by the formula for the continuous Gaussian (Mironov et al. 2019): reference and tests only. */
void linnet_rdp_add_sampled_gaussian(linnet_rdp *rdp, double p, double z, double n_steps);

/** epsilon = max(0, min over a of R(a) + ln(1 - 1/a) - ln(dp_delta a) / (a - 1)); ret_order (may be NULL) is
 * the order of the minimum. infinity where no order gives a bound; 0 where R is 0 at some order: nothing was
 * released. */
double linnet_dp_epsilon(const linnet_rdp *rdp, double dp_delta, uint32_t *ret_order);
/** The delta at which this epsilon holds: min over a of exp((a - 1)(R(a) - eps + ln(1 - 1/a)) - ln a), at
 * most 1. */
double linnet_dp_delta(const linnet_rdp *rdp, double dp_epsilon, uint32_t *ret_order);

/** The exact figures of one Gaussian release (Balle and Wang 2018): no accountant may be below them. */
double linnet_dp_analytic_epsilon(double z, double dp_delta);
double linnet_dp_analytic_sigma(double dp_epsilon, double dp_delta);

/** Smallest z, to 1e-6 relative from above, for which n_rounds Gaussian releases stay within dp_epsilon; 0
 * for no round at all, infinity where no noise is enough. */
double linnet_dp_noise_gaussian(double dp_epsilon, double dp_delta, double n_rounds);
/** The same for n_steps sampled releases. */
double linnet_dp_noise_sampled(double dp_epsilon, double dp_delta, double p, double n_steps);

#endif
