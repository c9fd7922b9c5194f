/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shamir's secret sharing (Shamir 1979) over the scalar field of ristretto255. Shares are values of a random
 * polynomial, by Horner's rule; the secret comes back by Lagrange's interpolation at 0. Scalars are worked on
 * by libsodium alone, without a branch on their values. Points are public, so the coefficients, which depend
 * on nothing else, may take short cuts: differences of points are small integers, many of which fit into a
 * word before a multiplication modulo L is due, and all denominators are inverted with one inversion
 * (Montgomery 1987). Wrong shares among more than a threshold are found by decoding all as the Reed-Solomon
 * code that they are (McEliece and Sarwate 1981): by syndromes and the algorithm of Berlekamp and Massey
 * (Massey 1969). That alone branches on shares; who decodes holds all of them anyway. Left out: commitments
 * to the polynomial, which would name who gave a wrong share among fewer.
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
_Static_assert(LINNET_SHAMIR_DECODE_MAX <= SMALL_POINT_MAX, "points of a decoding are small");

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

static bool are_canonical(const linnet_scalar *shares, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!linnet_scalar_is_canonical(&shares[i]))
            return false;
    return true;
}

linnet_status linnet_shamir_combine(const linnet_scalar *coefficients, const linnet_scalar *shares, size_t n,
                                    linnet_scalar *ret_secret)
{
    linnet_scalar sum = scalar_of(0), term;
    if (!are_canonical(shares, n))
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

/* ---- rebuilding where shares are wrong ---- */

/* Room for one decoding, all of it in `room`. */
typedef struct decoder {
    linnet_scalar *room; /* owned, wiped */
    size_t n_room, n_syndromes;
    linnet_scalar *terms;                      /* n: what is summed */
    linnet_scalar *syndromes;                  /* n - t */
    linnet_scalar *locator, *previous, *spare; /* polynomials of degree (n - t) / 2 at most, constant first */
} decoder;

static bool decoder_init(decoder *d, size_t n, size_t threshold)
{
    size_t n_syndromes = n - threshold, n_locator = n_syndromes / 2 + 1;
    *d = (decoder){.n_room = n + n_syndromes + 3 * n_locator, .n_syndromes = n_syndromes};
    d->room = calloc(d->n_room, sizeof(*d->room));
    if (!d->room)
        return false;
    d->terms = d->room;
    d->syndromes = d->terms + n;
    d->locator = d->syndromes + n_syndromes;
    d->previous = d->locator + n_locator;
    d->spare = d->previous + n_locator;
    return true;
}

static void decoder_release(decoder *d)
{
    sodium_memzero(d->room, d->n_room * sizeof(*d->room));
    free(d->room);
}

/* Syndrome k: the sum of coefficient_i x_i^(k + 1) share_i. It is what Lagrange's interpolation says of
 * x^(k + 1) times the polynomial at 0, hence 0, as long as that product's degree is below n; so wrong shares
 * alone leave something in it. STRIDE of them in one pass. */
static void find_syndromes(decoder *d, const uint32_t *points, const linnet_scalar *coefficients,
                           const linnet_scalar *shares, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        linnet_scalar at = scalar_of(points[i]);
        multiply(&coefficients[i], &shares[i], &d->terms[i]);
        multiply(&d->terms[i], &at, &d->terms[i]);
    }
    for (size_t first = 0; first < d->n_syndromes; first += STRIDE) {
        wide sums[STRIDE] = {{{0}}};
        for (size_t i = 0; i < n; i++) {
            wide next = {{0}};
            uint32_t power = 1;
            for (size_t k = 0; k < STRIDE; k++, power *= points[i])
                wide_add_product(&sums[k], power, &d->terms[i]);
            wide_add_product(&next, power, &d->terms[i]);
            wide_reduce(&next, &d->terms[i]);
            sodium_memzero(&next, sizeof(next));
        }
        for (size_t k = 0; k < STRIDE && first + k < d->n_syndromes; k++)
            wide_reduce(&sums[k], &d->syndromes[first + k]);
        sodium_memzero(sums, sizeof(sums));
    }
}

/* Syndrome `at` counted from the last: in that order the locator is made of 1 - z / x_i. */
static const linnet_scalar *syndrome_back(const decoder *d, size_t at)
{
    return &d->syndromes[d->n_syndromes - 1 - at];
}

/* By how much the locator of that degree misses syndrome `at`. */
static linnet_scalar discrepancy(const decoder *d, size_t at, size_t degree)
{
    linnet_scalar sum = *syndrome_back(d, at), term;
    for (size_t j = 1; j <= degree; j++) {
        multiply(&d->locator[j], syndrome_back(d, at - j), &term);
        add(&sum, &term, &sum);
    }
    return sum;
}

/* locator -= factor z^shift previous */
static void correct(const decoder *d, const linnet_scalar *factor, size_t degree_previous, size_t shift)
{
    linnet_scalar term;
    for (size_t j = 0; j <= degree_previous; j++) {
        linnet_scalar *into = &d->locator[j + shift];
        multiply(factor, &d->previous[j], &term);
        crypto_core_ristretto255_scalar_sub(into->bytes, into->bytes, term.bytes);
    }
}

/* Berlekamp and Massey: the shortest recursion that makes the syndromes, in steps of one syndrome. False
 * where it is longer than half of them. A step has shift + degree_previous at most the degree after it. */
static bool find_locator(decoder *d, size_t *ret_degree)
{
    size_t degree = 0, degree_previous = 0, shift = 1;
    linnet_scalar inverse = scalar_of(1), factor;
    d->locator[0] = d->previous[0] = scalar_of(1);
    for (size_t at = 0; at < d->n_syndromes; at++, shift++) {
        linnet_scalar missed = discrepancy(d, at, degree);
        bool grows = 2 * degree <= at;
        if (sodium_is_zero(missed.bytes, sizeof(missed.bytes)))
            continue;
        if (grows && 2 * (at + 1 - degree) > d->n_syndromes)
            return false;
        multiply(&missed, &inverse, &factor);
        if (grows)
            memcpy(d->spare, d->locator, (degree + 1) * sizeof(*d->spare));
        correct(d, &factor, degree_previous, shift);
        if (!grows)
            continue;
        linnet_scalar *held = d->previous;
        d->previous = d->spare;
        d->spare = held;
        degree_previous = degree;
        degree = at + 1 - degree;
        shift = 0;
        (void)crypto_core_ristretto255_scalar_invert(inverse.bytes, missed.bytes); /* not zero */
    }
    *ret_degree = degree;
    return true;
}

/* The locator is 1 at 0 and 0 at the points of wrong shares: it takes them out of the coefficients. They are
 * the only ones, and all others lie on one polynomial, if it has as many zeros among the points as its degree
 * (a recursion with those roots makes all syndromes, so they are the syndromes of those errors). */
static bool find_wrong(decoder *d, const uint32_t *points, const linnet_scalar *coefficients, size_t n,
                       size_t degree)
{
    size_t n_wrong = 0;
    for (size_t i = 0; i < n; i++) {
        evaluate_small(d->locator, degree + 1, points[i], &d->terms[i]);
        n_wrong += sodium_is_zero(d->terms[i].bytes, sizeof(d->terms[i].bytes));
        multiply(&coefficients[i], &d->terms[i], &d->terms[i]);
    }
    return n_wrong == degree;
}

linnet_status linnet_shamir_decode(const uint32_t *points, const linnet_scalar *coefficients,
                                   const linnet_scalar *shares, size_t n, uint32_t threshold,
                                   linnet_scalar *ret_secret, bool *ret_is_wrong)
{
    decoder d;
    size_t degree = 0;
    if (threshold == 0 || threshold > n || !points_are_usable(points, n) ||
        largest_of(points, n) > LINNET_SHAMIR_DECODE_MAX)
        return LINNET_ERR_ARG;
    if (!are_canonical(shares, n))
        return LINNET_ERR_CRYPTO;
    if (!decoder_init(&d, n, threshold))
        return LINNET_ERR_NOMEM;
    find_syndromes(&d, points, coefficients, shares, n);
    linnet_status status = LINNET_ERR_NOT_FOUND;
    if (find_locator(&d, &degree) && find_wrong(&d, points, coefficients, n, degree))
        status = linnet_shamir_combine(d.terms, shares, n, ret_secret);
    for (size_t i = 0; i < n && status == LINNET_OK; i++)
        ret_is_wrong[i] = sodium_is_zero(d.terms[i].bytes, sizeof(d.terms[i].bytes));
    decoder_release(&d);
    return status;
}
