/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shamir's secret sharing (Shamir 1979) over the scalar field of ristretto255. Shares are values of a random
 * polynomial, by Horner's rule; the secret comes back by Lagrange's interpolation at 0. Scalars are worked on
 * by libsodium alone, without a branch on their values. Points are public, so the coefficients, which depend
 * on nothing else, may take short cuts: differences of points are small integers, many of which fit into a
 * word before a multiplication modulo L is due, and all denominators are inverted with one inversion
 * (Montgomery 1987). Left out: commitments to the polynomial, which would name who gave a wrong share.
 */
#include "linnet/shamir.h"

#include <stdlib.h>

#include <sodium.h>

_Static_assert(LINNET_SCALAR_BYTES == crypto_core_ristretto255_SCALARBYTES, "a scalar is libsodium's");
#define DRAW_BYTES crypto_core_ristretto255_NONREDUCEDSCALARBYTES

/* ret = a b, ret = a + b; operands and result may be the same. */
static void multiply(const linnet_scalar *a, const linnet_scalar *b, linnet_scalar *ret)
{
    crypto_core_ristretto255_scalar_mul(ret->bytes, a->bytes, b->bytes);
}

static void add(const linnet_scalar *a, const linnet_scalar *b, linnet_scalar *ret)
{
    crypto_core_ristretto255_scalar_add(ret->bytes, a->bytes, b->bytes);
}

static linnet_scalar scalar_of(uint64_t value)
{
    linnet_scalar scalar = {{0}};
    linnet_store_le64(scalar.bytes, value);
    return scalar;
}

bool linnet_scalar_is_canonical(const linnet_scalar *scalar)
{
    uint8_t wide[DRAW_BYTES] = {0};
    linnet_scalar reduced;
    memcpy(wide, scalar->bytes, LINNET_SCALAR_BYTES);
    crypto_core_ristretto255_scalar_reduce(reduced.bytes, wide);
    bool same = sodium_memcmp(reduced.bytes, scalar->bytes, LINNET_SCALAR_BYTES) == 0;
    sodium_memzero(wide, sizeof(wide));
    sodium_memzero(&reduced, sizeof(reduced));
    return same;
}

void linnet_scalar_draw(linnet_random_fn *random, void *context, linnet_scalar *ret_scalar)
{
    uint8_t wide[DRAW_BYTES];
    random(context, wide, sizeof(wide));
    crypto_core_ristretto255_scalar_reduce(ret_scalar->bytes, wide);
    sodium_memzero(wide, sizeof(wide));
}

/* At least one point, none of them 0, no two the same. */
static bool points_are_usable(const uint32_t *points, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (points[i] == 0)
            return false;
        for (size_t j = 0; j < i; j++)
            if (points[i] == points[j])
                return false;
    }
    return n > 0;
}

/* ---- sharing ---- */

/* The value at x of the polynomial with coefficients[0..n), the constant first: by Horner's rule. */
static void evaluate(const linnet_scalar *coefficients, size_t n, uint32_t x, linnet_scalar *ret_value)
{
    linnet_scalar at = scalar_of(x);
    *ret_value = coefficients[n - 1];
    for (size_t m = n - 1; m-- > 0;) {
        multiply(ret_value, &at, ret_value);
        add(ret_value, &coefficients[m], ret_value);
    }
}

/* An integer below 2^512, which is what libsodium reduces modulo L. */
typedef struct wide {
    uint32_t limbs[DRAW_BYTES / 4]; /* least significant first */
} wide;

/* sum += factor x scalar, without reducing: sum has room for far more such terms than a step of Horner's
 * has. */
static void wide_add_product(wide *sum, uint32_t factor, const linnet_scalar *scalar)
{
    uint64_t carry = 0;
    for (size_t i = 0; i < LINNET_SCALAR_BYTES / 4; i++) {
        carry += sum->limbs[i] + (uint64_t)factor * linnet_load_le32(scalar->bytes + 4 * i);
        sum->limbs[i] = (uint32_t)carry;
        carry >>= 32;
    }
    sum->limbs[LINNET_SCALAR_BYTES / 4] += (uint32_t)carry;
}

static void wide_reduce(const wide *value, linnet_scalar *ret_scalar)
{
    uint8_t bytes[DRAW_BYTES];
    for (size_t i = 0; i < ARRAY_LEN(value->limbs); i++)
        linnet_store_le32(bytes + 4 * i, value->limbs[i]);
    crypto_core_ristretto255_scalar_reduce(ret_scalar->bytes, bytes);
    sodium_memzero(bytes, sizeof(bytes));
}

#define STRIDE 3             /* coefficients taken in one step */
#define SMALL_POINT_MAX 1024 /* its third power fits a limb: rosters are that long at most */

/* The same for a small x: Horner's rule in x^3, three coefficients a step, one reduction a step. A cohort of
 * a thousand shares with five hundred coefficients a thousand times, which costs a quarter of a second above
 * and a fifth of that here. */
static void evaluate_small(const linnet_scalar *coefficients, size_t n, uint32_t x, linnet_scalar *ret_value)
{
    const uint32_t powers[] = {1, x, x * x, x * x * x};
    linnet_scalar value = scalar_of(0);
    wide sum;
    for (size_t first = (n - 1) / STRIDE * STRIDE;; first -= STRIDE) {
        size_t taken = n - first < STRIDE ? n - first : STRIDE;
        sum = (wide){{0}};
        wide_add_product(&sum, powers[STRIDE], &value);
        for (size_t k = 0; k < taken; k++)
            wide_add_product(&sum, powers[k], &coefficients[first + k]);
        wide_reduce(&sum, &value);
        if (first == 0)
            break;
    }
    *ret_value = value;
    sodium_memzero(&sum, sizeof(sum));
    sodium_memzero(&value, sizeof(value));
}

linnet_status linnet_shamir_share(const linnet_scalar *secret, uint32_t threshold, const uint32_t *points,
                                  size_t n, linnet_random_fn *random, void *context,
                                  linnet_scalar *ret_shares)
{
    if (threshold == 0 || threshold > n || !points_are_usable(points, n))
        return LINNET_ERR_ARG;
    if (!linnet_scalar_is_canonical(secret))
        return LINNET_ERR_CRYPTO;
    linnet_scalar *coefficients = calloc(threshold, sizeof(*coefficients));
    if (!coefficients)
        return LINNET_ERR_NOMEM;
    coefficients[0] = *secret;
    for (size_t m = 1; m < threshold; m++)
        linnet_scalar_draw(random, context, &coefficients[m]);
    for (size_t i = 0; i < n; i++)
        (points[i] <= SMALL_POINT_MAX ? evaluate_small : evaluate)(coefficients, threshold, points[i],
                                                                   &ret_shares[i]);
    sodium_memzero(coefficients, threshold * sizeof(*coefficients));
    free(coefficients);
    return LINNET_OK;
}

/* ---- rebuilding ---- */

/* A product of public integers modulo L: `word` collects factors as long as another one surely fits. */
typedef struct product {
    linnet_scalar scalar;
    uint64_t word, word_max;
} product;

/* 1, to be multiplied with factors of at most factor_max. */
static product product_of_none(uint32_t factor_max)
{
    return (product){.scalar = scalar_of(1), .word = 1, .word_max = UINT64_MAX / factor_max};
}

static void product_multiply(product *p, uint32_t factor)
{
    if (p->word > p->word_max) {
        linnet_scalar word = scalar_of(p->word);
        multiply(&p->scalar, &word, &p->scalar);
        p->word = 1;
    }
    p->word *= factor;
}

static linnet_scalar product_value(const product *p)
{
    linnet_scalar word = scalar_of(p->word), value;
    multiply(&p->scalar, &word, &value);
    return value;
}

static uint32_t largest_of(const uint32_t *points, size_t n)
{
    uint32_t largest = points[0];
    for (size_t i = 1; i < n; i++)
        largest = points[i] > largest ? points[i] : largest;
    return largest;
}

/* The product of all points. */
static linnet_scalar numerator(const uint32_t *points, size_t n, uint32_t largest)
{
    product p = product_of_none(largest);
    for (size_t i = 0; i < n; i++)
        product_multiply(&p, points[i]);
    return product_value(&p);
}

/* x_i times the product of x_j - x_i over all j but i. */
static linnet_scalar denominator(const uint32_t *points, size_t n, size_t i, uint32_t largest)
{
    product p = product_of_none(largest);
    bool is_negative = false;
    product_multiply(&p, points[i]);
    for (size_t j = 0; j < n; j++) {
        if (j == i)
            continue;
        is_negative ^= points[j] < points[i];
        product_multiply(&p, points[j] < points[i] ? points[i] - points[j] : points[j] - points[i]);
    }
    linnet_scalar value = product_value(&p);
    if (is_negative)
        crypto_core_ristretto255_scalar_negate(value.bytes, value.bytes);
    return value;
}

linnet_status linnet_shamir_coefficients(const uint32_t *points, size_t n, linnet_scalar *ret_coefficients)
{
    if (!points_are_usable(points, n))
        return LINNET_ERR_ARG;
    linnet_scalar *denominators = calloc(n, sizeof(*denominators)), running = scalar_of(1);
    if (!denominators)
        return LINNET_ERR_NOMEM;
    uint32_t largest = largest_of(points, n);
    for (size_t i = 0; i < n; i++) { /* coefficient i: the product of the denominators before it */
        denominators[i] = denominator(points, n, i, largest);
        ret_coefficients[i] = running;
        multiply(&running, &denominators[i], &running);
    }
    /* Not zero: L is prime and every factor lies between 0 and 2^32. */
    (void)crypto_core_ristretto255_scalar_invert(running.bytes, running.bytes);
    linnet_scalar top = numerator(points, n, largest);
    multiply(&running, &top, &running);
    for (size_t i = n; i-- > 0;) { /* running: numerator / product of the denominators up to i */
        multiply(&ret_coefficients[i], &running, &ret_coefficients[i]);
        multiply(&running, &denominators[i], &running);
    }
    free(denominators);
    return LINNET_OK;
}

linnet_status linnet_shamir_combine(const linnet_scalar *coefficients, const linnet_scalar *shares, size_t n,
                                    linnet_scalar *ret_secret)
{
    linnet_scalar sum = scalar_of(0), term;
    for (size_t i = 0; i < n; i++)
        if (!linnet_scalar_is_canonical(&shares[i]))
            return LINNET_ERR_CRYPTO;
    for (size_t i = 0; i < n; i++) {
        multiply(&coefficients[i], &shares[i], &term);
        add(&sum, &term, &sum);
    }
    *ret_secret = sum;
    sodium_memzero(&sum, sizeof(sum));
    sodium_memzero(&term, sizeof(term));
    return LINNET_OK;
}
