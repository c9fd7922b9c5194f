/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Renyi accounting (SECURE-AGGREGATION 3.4). What was released is a vector of Renyi divergences at integer
 * orders; releases add up, and the conversion of Canonne, Kamath and Steinke (2020, proposition 12) reads
 * epsilon or delta off at the best order.
 *
 * Sampled releases: both formulas are a binomial mean of exponentials, sum P(l) f(l), with the P(l) adding up
 * to 1. The code sums P(l) (f(l) - 1) instead, whose terms are all positive, in log space, and takes log1p:
 * exact for tiny probabilities, where the plain sum cancels, and without overflow for tiny z. Binomial
 * coefficients up to order 1024 fit a double.
 *
 * Where an argument has no meaning (z = 0, a NaN), the answer is the safe one: infinite loss. Left out:
 * fractional orders (for them the published programs disagree), Skellam, amplification by shuffling.
 */
#include "linnet/accountant.h"

#include <math.h>
#include <stdbool.h>

#define CONSECUTIVE_ORDERS 255 /* 2 .. 256 */
#define NOISE_MAX 1e12         /* a search that is beyond it gives up */

_Static_assert(LINNET_RENYI_ORDERS == CONSECUTIVE_ORDERS + 2, "2 .. 256, 512, 1024");

uint32_t linnet_renyi_order(size_t i)
{
    if (i < CONSECUTIVE_ORDERS)
        return (uint32_t)i + 2;
    return i == CONSECUTIVE_ORDERS ? 512 : 1024;
}

/* ---- one release ---- */

/* Renyi divergence of the Gaussian mechanism at this order. */
static double gaussian_rdp(double order, double z)
{
    return z > 0 ? order / 2 / z / z : (double)INFINITY;
}

/* A sum of positive terms given by their logarithms: the value is exp(max) * sum. */
typedef struct log_sum {
    double max, sum;
} log_sum;

static void log_sum_add(log_sum *total, double term)
{
    if (term == (double)INFINITY || total->max == (double)INFINITY) {
        total->max = (double)INFINITY;
    } else if (term > total->max) {
        total->sum = total->sum * exp(total->max - term) + 1;
        total->max = term;
    } else if (term > (double)-INFINITY) {
        total->sum += exp(term - total->max);
    }
}

/* ln(1 + the sum). */
static double log_sum_log1p(const log_sum *total)
{
    if (total->max == (double)INFINITY)
        return (double)INFINITY;
    double log_value = total->max + log(total->sum);
    return log_value > 40 ? log_value : log1p(exp(log_value)); /* beyond 40 the 1 is below one rounding */
}

/* ln(f(l) - 1) of the bound for any mechanism: f(2) = exp(e(2)), f(l) = 3 exp((l - 1) e(l)). */
static double any_mechanism_excess(uint32_t l, double z)
{
    double x = (l - 1) * gaussian_rdp(l, z);
    return l == 2 ? x + log(-expm1(-x)) : x + log(3 - exp(-x));
}

/* The same for the continuous Gaussian: f(l) = exp((l^2 - l) / (2 z^2)). */
static double gaussian_excess(uint32_t l, double z)
{
    double x = (l - 1) * gaussian_rdp(l, z);
    return x + log(-expm1(-x));
}

/* RDP of one release with sampling probability 0 < p < 1. */
static double sampled_rdp(uint32_t order, double p, double z, double (*excess)(uint32_t, double))
{
    log_sum total = {(double)-INFINITY, 0};
    double log_p = log(p), log_not_p = log1p(-p), binomial = order;
    for (uint32_t l = 2; l <= order; l++) {
        binomial *= (double)(order - l + 1) / l;
        log_sum_add(&total, log(binomial) + l * log_p + (order - l) * log_not_p + excess(l, z));
    }
    return log_sum_log1p(&total) / (order - 1);
}

static void rdp_add_sampled(linnet_rdp *rdp, double p, double z, double n_steps,
                            double (*excess)(uint32_t, double))
{
    if (n_steps <= 0 || p <= 0 || z == (double)INFINITY)
        return;
    for (size_t i = 0; i < LINNET_RENYI_ORDERS; i++) {
        uint32_t order = linnet_renyi_order(i);
        double plain = gaussian_rdp(order, z);
        double one =
            p < 1 && plain < (double)INFINITY ? fmin(plain, sampled_rdp(order, p, z, excess)) : plain;
        double all = one * n_steps;
        rdp->at[i] += isnan(all) ? (double)INFINITY : all;
    }
}

void linnet_rdp_add_gaussian(linnet_rdp *rdp, double z)
{
    for (size_t i = 0; i < LINNET_RENYI_ORDERS; i++)
        rdp->at[i] += gaussian_rdp(linnet_renyi_order(i), z);
}

void linnet_rdp_add_sampled(linnet_rdp *rdp, double p, double z, double n_steps)
{
    rdp_add_sampled(rdp, p, z, n_steps, any_mechanism_excess);
}

void linnet_rdp_add_sampled_gaussian(linnet_rdp *rdp, double p, double z, double n_steps)
{
    rdp_add_sampled(rdp, p, z, n_steps, gaussian_excess);
}

/* ---- conversion ---- */

/* What the conversion adds to R(a). */
static double conversion_cost(uint32_t order, double dp_delta)
{
    return log1p(-1.0 / order) - (log(dp_delta) + log(order)) / (order - 1);
}

static void give_order(uint32_t *ret_order, uint32_t order)
{
    if (ret_order)
        *ret_order = order;
}

double linnet_dp_epsilon(const linnet_rdp *rdp, double dp_delta, uint32_t *ret_order)
{
    double best = (double)INFINITY;
    uint32_t best_order = linnet_renyi_order(0);
    for (size_t i = 0; i < LINNET_RENYI_ORDERS; i++) {
        uint32_t order = linnet_renyi_order(i);
        double epsilon = rdp->at[i] + conversion_cost(order, dp_delta);
        if (rdp->at[i] == 0) /* the outputs with and without the unit are equal: nothing was released */
            epsilon = 0;
        if (epsilon < best) {
            best = epsilon;
            best_order = order;
        }
    }
    give_order(ret_order, best_order);
    return best > 0 ? best : 0;
}

double linnet_dp_delta(const linnet_rdp *rdp, double dp_epsilon, uint32_t *ret_order)
{
    double best = 1;
    uint32_t best_order = linnet_renyi_order(0);
    for (size_t i = 0; i < LINNET_RENYI_ORDERS; i++) {
        uint32_t order = linnet_renyi_order(i);
        double delta = exp((order - 1) * (rdp->at[i] - dp_epsilon + log1p(-1.0 / order)) - log(order));
        if (rdp->at[i] == 0 && dp_epsilon >= 0)
            delta = 0;
        if (delta < best) {
            best = delta;
            best_order = order;
        }
    }
    give_order(ret_order, best_order);
    return best;
}

/* ---- the exact Gaussian ---- */

/* exp(x^2) erfc(x) for x >= 0; from 25 on by the asymptotic series, whose fifth term is below 1e-12. */
static double scaled_erfc(double x)
{
    const double root_of_pi = 1.77245385090551602730;
    if (x < 25)
        return exp(x * x) * erfc(x);
    double y = 1 / (2 * x * x);
    return (1 - y * (1 - 3 * y * (1 - 5 * y * (1 - 7 * y)))) / (x * root_of_pi);
}

/* delta(epsilon) = Phi(u) - e^epsilon Phi(-v) with u = 1/(2z) - epsilon z, v = 1/(2z) + epsilon z (Balle and
 * Wang 2018, theorem 8). e^epsilon Phi(-v) is exp(-u^2/2) scaled_erfc(v / sqrt 2) / 2, which never overflows;
 * for u < 0 the same factor is taken out of Phi(u) too. */
static double analytic_delta(double z, double epsilon)
{
    double u = 0.5 / z - epsilon * z, v = 0.5 / z + epsilon * z, root = sqrt(2);
    double factor = exp(-u * u / 2) / 2, second = scaled_erfc(v / root);
    if (u < 0)
        return factor * (scaled_erfc(-u / root) - second);
    return erfc(-u / root) / 2 - factor * second;
}

/* The least epsilon (or z, where for_z) within [low, high] whose delta is at most dp_delta, the other one
 * being fixed: false at low, true at high, halved until no number lies between. */
static double analytic_least(bool for_z, double fixed, double dp_delta, double low, double high)
{
    for (;;) {
        double middle = low + (high - low) / 2;
        if (!(middle > low && middle < high))
            return high;
        double delta = for_z ? analytic_delta(middle, fixed) : analytic_delta(fixed, middle);
        if (delta <= dp_delta)
            high = middle;
        else
            low = middle;
    }
}

double linnet_dp_analytic_epsilon(double z, double dp_delta)
{
    double high = 1;
    if (z == (double)INFINITY || dp_delta >= 1)
        return 0;
    if (!(z > 0) || !(dp_delta > 0))
        return (double)INFINITY;
    if (analytic_delta(z, 0) <= dp_delta)
        return 0;
    while (!(analytic_delta(z, high) <= dp_delta)) {
        high *= 2;
        if (high > 1e300)
            return (double)INFINITY;
    }
    return analytic_least(false, z, dp_delta, 0, high);
}

double linnet_dp_analytic_sigma(double dp_epsilon, double dp_delta)
{
    double low = 1, high = 1;
    if (dp_delta >= 1 || dp_epsilon == (double)INFINITY)
        return 0;
    if (!(dp_delta > 0) || !(dp_epsilon >= 0))
        return (double)INFINITY;
    while (high < NOISE_MAX && !(analytic_delta(high, dp_epsilon) <= dp_delta))
        high *= 2;
    if (high >= NOISE_MAX)
        return (double)INFINITY;
    while (low > 1 / NOISE_MAX && analytic_delta(low, dp_epsilon) <= dp_delta)
        low /= 2;
    return analytic_least(true, dp_epsilon, dp_delta, low, high);
}

/* ---- noise for a budget ---- */

static double epsilon_of_sampled(double dp_delta, double p, double z, double n_steps)
{
    linnet_rdp rdp = {{0}};
    linnet_rdp_add_sampled(&rdp, p, z, n_steps);
    return linnet_dp_epsilon(&rdp, dp_delta, NULL);
}

/* n_rounds a / (2 z^2) + cost(a) <= epsilon, solved for z at every order: the least z is the answer. One part
 * in 10^9 on top covers the rounding of the way back. */
double linnet_dp_noise_gaussian(double dp_epsilon, double dp_delta, double n_rounds)
{
    double best = (double)INFINITY;
    if (n_rounds <= 0 || dp_epsilon == (double)INFINITY)
        return 0;
    for (size_t i = 0; i < LINNET_RENYI_ORDERS; i++) {
        uint32_t order = linnet_renyi_order(i);
        double room = dp_epsilon - conversion_cost(order, dp_delta);
        double z = sqrt(n_rounds * order / (2 * room));
        if (room > 0 && dp_epsilon >= 0 && z < best)
            best = z;
    }
    return best * (1 + 1e-9);
}

double linnet_dp_noise_sampled(double dp_epsilon, double dp_delta, double p, double n_steps)
{
    double low = 1, high = 1;
    if (n_steps <= 0 || p <= 0 || dp_epsilon == (double)INFINITY)
        return 0;
    while (high < NOISE_MAX && !(epsilon_of_sampled(dp_delta, p, high, n_steps) <= dp_epsilon))
        high *= 2;
    if (high >= NOISE_MAX)
        return (double)INFINITY;
    while (low > 1 / NOISE_MAX && epsilon_of_sampled(dp_delta, p, low, n_steps) <= dp_epsilon)
        low /= 2;
    while (high > low * (1 + 1e-6)) {
        double middle = sqrt(low * high);
        if (epsilon_of_sampled(dp_delta, p, middle, n_steps) <= dp_epsilon)
            high = middle;
        else
            low = middle;
    }
    return high;
}
