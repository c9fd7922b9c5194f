/* SPDX-License-Identifier: Apache-2.0 */
/* Seeded random streams: xoshiro256** with splitmix64 seeding (prng.di.unimi.it; written from the papers). */
#include "linnet/rng.h"

#include <math.h>

static uint64_t splitmix(uint64_t *x)
{
    uint64_t z = *x += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void linnet_rng_init(linnet_rng *rng, uint64_t seed, uint64_t stream)
{
    uint64_t x = seed, y = stream ^ UINT64_C(0x6c696e6e65742d31);
    for (int i = 0; i < 4; i++)
        rng->state[i] = splitmix(&x) ^ splitmix(&y);
    if (!(rng->state[0] | rng->state[1] | rng->state[2] | rng->state[3]))
        rng->state[0] = 1; /* the all-zero state never leaves itself */
}

static uint64_t rotate(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

uint64_t linnet_rng_next(linnet_rng *rng)
{
    uint64_t *s = rng->state;
    uint64_t result = rotate(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
}

uint64_t linnet_rng_below(linnet_rng *rng, uint64_t n)
{
    if (n == 0)
        return 0;
    uint64_t reject_below = (0 - n) % n, x;
    do
        x = linnet_rng_next(rng);
    while (x < reject_below);
    return x % n;
}

double linnet_rng_double(linnet_rng *rng)
{
    return (double)(linnet_rng_next(rng) >> 11) * 0x1.0p-53;
}

double linnet_rng_normal(linnet_rng *rng)
{
    double u, v, s;
    do {
        u = 2 * linnet_rng_double(rng) - 1;
        v = 2 * linnet_rng_double(rng) - 1;
        s = u * u + v * v;
    } while (s >= 1 || s == 0);
    return u * sqrt(-2 * log(s) / s);
}

double linnet_rng_gamma(linnet_rng *rng, double shape)
{
    if (shape < 1) /* boost: Gamma(a) = Gamma(a+1) U^(1/a) */
        return linnet_rng_gamma(rng, shape + 1) * pow(1 - linnet_rng_double(rng), 1 / shape);
    double d = shape - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        double x = linnet_rng_normal(rng), v = 1 + c * x;
        if (v <= 0)
            continue;
        v = v * v * v;
        double u = 1 - linnet_rng_double(rng);
        if (log(u) < 0.5 * x * x + d - d * v + d * log(v))
            return d * v;
    }
}

void linnet_rng_shuffle(linnet_rng *rng, size_t *indices, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)linnet_rng_below(rng, i), swap = indices[i - 1];
        indices[i - 1] = indices[j];
        indices[j] = swap;
    }
}
