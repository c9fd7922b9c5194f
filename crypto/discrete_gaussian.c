/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The discrete Gaussian, exactly and with integers only (Canonne, Kamath and Steinke 2020, algorithms 1 to
 * 3). A discrete Laplace proposal of scale t = floor(sigma) + 1 is accepted with probability
 * exp(-(|y| - sigma2/t)^2 / (2 sigma2)); every coin is a uniform integer drawn by rejection, and a coin of
 * probability exp(-x) is the parity of the length of a run of coins x/1, x/2, x/3, ... No probability is ever
 * a floating-point number, so none is rounded.
 *
 * Sizes: sigma2 <= 2^24, so t <= 4097; a proposal beyond 64 t (probability e^-64) is drawn again, so the
 * numerator (|y| t - sigma2)^2 stays below 2^61 and the denominator 2 sigma2 t^2 below 2^50. Left out:
 * constant time. The number of coins depends on the sample, which is why whole vectors are drawn at once.
 */
#include "linnet/discrete_gaussian.h"

#include <stdbool.h>

#define TAIL 64 /* proposals end at TAIL t */

/* Random words, 32 bits each, from a small buffer. */
typedef struct word_source {
    linnet_random_fn *random;
    void *context;
    size_t at;
    uint8_t bytes[1024];
} word_source;

static uint32_t word(word_source *source)
{
    if (source->at == sizeof(source->bytes)) {
        source->random(source->context, source->bytes, sizeof(source->bytes));
        source->at = 0;
    }
    source->at += 4;
    return linnet_load_le32(source->bytes + source->at - 4);
}

/* All ones up to the highest bit of n. */
static uint64_t mask_of(uint64_t n)
{
    for (unsigned shift = 1; shift < 64; shift *= 2)
        n |= n >> shift;
    return n;
}

/* Uniform in 0 .. n - 1: as many bits as n - 1 has, drawn until they are below n. */
static uint64_t uniform(word_source *source, uint64_t n)
{
    uint64_t x;
    if (n == 1)
        return 0;
    uint64_t mask = mask_of(n - 1);
    do {
        x = word(source);
        if (mask > UINT32_MAX)
            x |= (uint64_t)word(source) << 32;
        x &= mask;
    } while (x >= n);
    return x;
}

/* True with probability exp(-numerator / denominator), for a fraction of at most 1. */
static bool coin_exp_small(word_source *source, uint64_t numerator, uint64_t denominator)
{
    uint64_t k = 1;
    while (uniform(source, k) == 0 && uniform(source, denominator) < numerator) /* a coin of fraction / k */
        k++;
    return k % 2 == 1;
}

static bool coin_exp(word_source *source, uint64_t numerator, uint64_t denominator)
{
    for (; numerator > denominator; numerator -= denominator)
        if (!coin_exp_small(source, 1, 1))
            return false;
    return coin_exp_small(source, numerator, denominator);
}

/* Discrete Laplace of scale t: P(y) proportional to exp(-|y| / t), |y| <= TAIL t. */
static int64_t laplace(word_source *source, uint64_t t)
{
    for (;;) {
        uint64_t low = uniform(source, t), high = 0;
        if (!coin_exp_small(source, low, t))
            continue;
        while (high <= TAIL && coin_exp_small(source, 1, 1))
            high++;
        uint64_t y = low + t * high;
        bool is_negative = uniform(source, 2) == 1;
        if (y > TAIL * t || (is_negative && y == 0)) /* too far out; or zero would count twice */
            continue;
        return is_negative ? -(int64_t)y : (int64_t)y;
    }
}

static int64_t gaussian(word_source *source, uint64_t sigma2, uint64_t t)
{
    for (;;) {
        int64_t y = laplace(source, t);
        uint64_t size = (uint64_t)(y < 0 ? -y : y) * t;
        uint64_t off = size > sigma2 ? size - sigma2 : sigma2 - size;
        if (coin_exp(source, off * off, 2 * sigma2 * t * t))
            return y;
    }
}

static uint64_t floor_sqrt(uint64_t n)
{
    uint64_t root = 0;
    for (uint64_t bit = 1 << 12; bit > 0; bit /= 2) /* n <= 2^24 */
        if ((root + bit) * (root + bit) <= n)
            root += bit;
    return root;
}

linnet_status linnet_discrete_gaussian(uint64_t sigma2, linnet_random_fn *random, void *context,
                                       int64_t *ret_samples, size_t n)
{
    word_source source = {.random = random, .context = context, .at = sizeof(source.bytes)};
    if (sigma2 < 1 || sigma2 > LINNET_DISCRETE_GAUSSIAN_SIGMA2_MAX)
        return LINNET_ERR_RANGE;
    uint64_t t = floor_sqrt(sigma2) + 1;
    for (size_t i = 0; i < n; i++)
        ret_samples[i] = gaussian(&source, sigma2, t);
    linnet_wipe(&source, sizeof(source));
    return LINNET_OK;
}
