/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_RNG_H
#define LINNET_RNG_H

/* Seeded random streams for data order, initial adapters, sampling and simulation: fast, repeatable on every
 * platform, and NOT for keys, masks, nonces or privacy noise, which come from libsodium. */

#include <stddef.h>
#include <stdint.h>

/** xoshiro256** (Blackman and Vigna 2018), seeded through splitmix64. Plain data: copy it to save it. */
typedef struct linnet_rng {
    uint64_t state[4];
} linnet_rng;

/** Streams of one seed with different numbers are independent for all practical purposes. */
void linnet_rng_init(linnet_rng *rng, uint64_t seed, uint64_t stream);
uint64_t linnet_rng_next(linnet_rng *rng);
/** Uniform in 0..n-1 without bias; n 0 gives 0. */
uint64_t linnet_rng_below(linnet_rng *rng, uint64_t n);
/** Uniform in [0, 1) with 53 bits. */
double linnet_rng_double(linnet_rng *rng);
/** Standard normal (polar method; the same bits on every platform up to libm's log and sqrt). */
double linnet_rng_normal(linnet_rng *rng);
/** Gamma(shape, 1), shape > 0 (Marsaglia and Tsang 2000); for Dirichlet splits. */
double linnet_rng_gamma(linnet_rng *rng, double shape);
/** Fisher-Yates shuffle of n indices. */
void linnet_rng_shuffle(linnet_rng *rng, size_t *indices, size_t n);

#endif
