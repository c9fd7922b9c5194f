/* SPDX-License-Identifier: Apache-2.0 */
/* Shamir's sharing: vectors, what is refused, that fewer shares than the threshold say nothing, and that
 * wrong shares are found as long as they are at most half of those beyond it. */
#include "vectors.h"

#include "linnet/rng.h"
#include "linnet/shamir.h"

#define N_MAX 64

static linnet_scalar scalar_of(uint64_t value)
{
    linnet_scalar scalar = {{0}};
    linnet_store_le64(scalar.bytes, value);
    return scalar;
}

static void seeded(void *context, void *bytes, size_t n_bytes)
{
    uint8_t *at = bytes;
    for (size_t i = 0; i < n_bytes; i += 8) {
        uint8_t word[8];
        linnet_store_le64(word, linnet_rng_next(context));
        memcpy(at + i, word, n_bytes - i < 8 ? n_bytes - i : 8);
    }
}

/* A "random" stream that is what a test wants: 64 bytes for each coefficient, a small number first. */
typedef struct script {
    const uint32_t *numbers;
    size_t at;
} script;

static void scripted(void *context, void *bytes, size_t n_bytes)
{
    script *s = context;
    for (size_t i = 0; i < n_bytes; i++, s->at++) {
        size_t within = s->at % 64;
        ((uint8_t *)bytes)[i] = within < 4 ? (uint8_t)(s->numbers[s->at / 64] >> 8 * within) : 0;
    }
}

/* Linked with --wrap: the next allocation fails where a test says so, and what is given back is looked at. */
void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void __real_free(void *memory);
void __wrap_free(void *memory);
static bool calloc_fails, is_watching;
static size_t watched_bytes, n_dirty;

void *__wrap_calloc(size_t n, size_t size)
{
    watched_bytes = n * size;
    return calloc_fails ? NULL : __real_calloc(n, size);
}

void __wrap_free(void *memory)
{
    for (size_t i = 0; is_watching && i < watched_bytes; i++)
        n_dirty += ((const uint8_t *)memory)[i] != 0;
    __real_free(memory);
}

static void assert_scalar_equal(const linnet_scalar *got, const linnet_scalar *want)
{
    assert_memory_equal(got->bytes, want->bytes, LINNET_SCALAR_BYTES);
}

static void assert_rebuilds(const uint32_t *points, const linnet_scalar *shares, size_t n,
                            const linnet_scalar *want)
{
    linnet_scalar coefficients[N_MAX], got;
    assert_true(n <= N_MAX);
    assert_int_equal(linnet_shamir_coefficients(points, n, coefficients), LINNET_OK);
    assert_int_equal(linnet_shamir_combine(coefficients, shares, n, &got), LINNET_OK);
    assert_scalar_equal(&got, want);
}

static void only_integers_below_the_order_are_canonical(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/secagg.json");
    linnet_scalar order, less, high, zero = {{0}}, ones;
    vector_copy(v, "order", order.bytes, LINNET_SCALAR_BYTES);
    vector_copy(v, "order_less_one", less.bytes, LINNET_SCALAR_BYTES);
    vector_copy(v, "two_to_255", high.bytes, LINNET_SCALAR_BYTES);
    memset(&ones, 0xff, sizeof(ones));
    assert_true(linnet_scalar_is_canonical(&zero));
    assert_true(linnet_scalar_is_canonical(&less));
    assert_false(linnet_scalar_is_canonical(&order));
    assert_false(linnet_scalar_is_canonical(&high));
    assert_false(linnet_scalar_is_canonical(&ones));
    for (size_t bit = 0; bit < 256; bit++) { /* 2^bit is below the order up to 2^252 */
        linnet_scalar power = {{0}};
        power.bytes[bit / 8] = (uint8_t)(1 << bit % 8);
        assert_int_equal(linnet_scalar_is_canonical(&power), bit <= 252);
    }
    for (size_t i = 0; i < LINNET_SCALAR_BYTES; i++) { /* one more anywhere, carry or not */
        linnet_scalar above = order;
        above.bytes[i]++;
        assert_int_equal(linnet_scalar_is_canonical(&above), above.bytes[i] == 0 && i < 31);
    }
    json_decref(v);
}

static void shares_match_the_protocols_vector(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/secagg.json"), *s = json_object_get(v, "shamir");
    linnet_scalar secret, shares[3];
    uint32_t numbers[2], points[3];
    vector_copy(v, "order_less_one", secret.bytes, LINNET_SCALAR_BYTES);
    for (size_t i = 0; i < 2; i++)
        numbers[i] = (uint32_t)json_integer_value(json_array_get(json_object_get(s, "coefficients"), i));
    for (size_t i = 0; i < 3; i++)
        points[i] = (uint32_t)json_integer_value(json_array_get(json_object_get(s, "points"), i));
    script stream = {.numbers = numbers};
    assert_int_equal(linnet_shamir_share(&secret, 3, points, 3, scripted, &stream, shares), LINNET_OK);
    for (size_t i = 0; i < 3; i++) {
        linnet_scalar want =
            scalar_of((uint64_t)json_integer_value(json_array_get(json_object_get(s, "shares"), i)));
        assert_scalar_equal(&shares[i], &want);
    }
    assert_rebuilds(points, shares, 3, &secret);
    json_decref(v);
}

static void any_threshold_of_the_shares_rebuild_the_secret(void **state)
{
    (void)state;
    /* Points up to 1024 and above it go through different code; the polynomial is one. */
    static const uint32_t points[7] = {1, 2, 3, 1024, 1025, 77, UINT32_MAX};
    for (uint32_t threshold = 1; threshold <= 7; threshold++) {
        linnet_scalar secret, shares[7];
        linnet_scalar_draw(linnet_system_random, NULL, &secret);
        assert_int_equal(
            linnet_shamir_share(&secret, threshold, points, 7, linnet_system_random, NULL, shares),
            LINNET_OK);
        for (unsigned subset = 0; subset < 128; subset++) {
            uint32_t some_points[7];
            linnet_scalar some[7], coefficients[7], got;
            size_t n = 0;
            for (unsigned i = 0; i < 7; i++)
                if (subset >> i & 1) {
                    some_points[n] = points[i];
                    some[n++] = shares[i];
                }
            if (n >= threshold)
                assert_rebuilds(some_points, some, n, &secret);
            if (n == 0 || n >= threshold)
                continue;
            assert_int_equal(linnet_shamir_coefficients(some_points, n, coefficients), LINNET_OK);
            assert_int_equal(linnet_shamir_combine(coefficients, some, n, &got), LINNET_OK);
            assert_memory_not_equal(&got, &secret, sizeof(got));
        }
    }
}

/* Sum of coefficient_i x_i^k is 1 for k = 0 and 0 for 0 < k < n: what makes them Lagrange's, for the largest
 * roster, without asking the code that made them. Powers are taken by combining once more. */
static void coefficients_of_a_thousand_points_interpolate(void **state)
{
    (void)state;
    static uint32_t points[1024];
    static linnet_scalar coefficients[1024], values[1024], weights[1024];
    for (uint32_t i = 0; i < 1024; i++) { /* every other one far away and not in order */
        points[i] = i % 2 ? 1024 - i : UINT32_MAX - 3 * i;
        values[i] = scalar_of(1);
    }
    assert_int_equal(linnet_shamir_coefficients(points, 1024, coefficients), LINNET_OK);
    for (int k = 0; k < 6; k++) {
        linnet_scalar sum, want = scalar_of(k == 0);
        assert_int_equal(linnet_shamir_combine(coefficients, values, 1024, &sum), LINNET_OK);
        assert_scalar_equal(&sum, &want);
        for (size_t i = 0; i < 1024; i++) { /* values[i] *= points[i] */
            weights[i] = scalar_of(points[i]);
            assert_int_equal(linnet_shamir_combine(&weights[i], &values[i], 1, &values[i]), LINNET_OK);
        }
    }
}

static void a_large_roster_rebuilds(void **state)
{
    (void)state;
    static uint32_t points[999];
    static linnet_scalar shares[999], coefficients[525];
    linnet_scalar secret, got;
    for (uint32_t i = 0; i < 999; i++)
        points[i] = i + 1;
    linnet_scalar_draw(linnet_system_random, NULL, &secret);
    assert_int_equal(linnet_shamir_share(&secret, 525, points, 999, linnet_system_random, NULL, shares),
                     LINNET_OK);
    for (size_t first = 0; first <= 999 - 525; first += 237) {
        assert_int_equal(linnet_shamir_coefficients(points + first, 525, coefficients), LINNET_OK);
        assert_int_equal(linnet_shamir_combine(coefficients, shares + first, 525, &got), LINNET_OK);
        assert_scalar_equal(&got, &secret);
    }
}

static void zero_and_double_points_and_wrong_thresholds_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t points[3], threshold;
        size_t n;
        bool is_good;
    } cases[] = {
        {"good", {1, 2, 3}, 2, 3, true},           {"x = 0", {1, 0, 3}, 2, 3, false},
        {"x = 0 first", {0, 1, 3}, 2, 3, false},   {"double", {1, 2, 1}, 2, 3, false},
        {"double beside", {5, 5, 1}, 2, 3, false}, {"threshold 0", {1, 2, 3}, 0, 3, false},
        {"above n", {1, 2, 3}, 4, 3, false},       {"nobody", {0, 0, 0}, 0, 0, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_scalar secret = scalar_of(7), shares[3], before[3];
        memset(shares, 0x5a, sizeof(shares));
        memcpy(before, shares, sizeof(before));
        linnet_status got = linnet_shamir_share(&secret, cases[i].threshold, cases[i].points, cases[i].n,
                                                linnet_system_random, NULL, shares);
        if (got != (cases[i].is_good ? LINNET_OK : LINNET_ERR_ARG))
            fail_msg("%s: share gave %s", cases[i].name, linnet_status_name(got));
        assert_int_equal(memcmp(shares, before, sizeof(shares)) != 0, cases[i].is_good);
        memcpy(shares, before, sizeof(shares));
        if (cases[i].threshold == 2) {
            got = linnet_shamir_coefficients(cases[i].points, cases[i].n, shares);
            assert_int_equal(got, cases[i].is_good ? LINNET_OK : LINNET_ERR_ARG);
            assert_int_equal(memcmp(shares, before, sizeof(shares)) != 0, cases[i].is_good);
        }
    }
    linnet_scalar none;
    assert_int_equal(linnet_shamir_coefficients(NULL, 0, &none), LINNET_ERR_ARG);
}

/* add(2^255, 2^255) would be 0 in libsodium: such scalars must not come as far (SECURE-AGGREGATION 2.1). */
static void scalars_that_are_not_canonical_are_refused_everywhere(void **state)
{
    (void)state;
    static const uint32_t points[2] = {1, 2};
    static const char *const names[] = {"order", "two_to_255"};
    json_t *v = vectors_load("crypto/secagg.json");
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        linnet_scalar bad, coefficients[2], shares[2], got, before;
        bool is_wrong[2];
        vector_copy(v, names[i], bad.bytes, LINNET_SCALAR_BYTES);
        memset(shares, 0x5a, sizeof(shares));
        before = shares[0];
        assert_int_equal(linnet_shamir_share(&bad, 2, points, 2, linnet_system_random, NULL, shares),
                         LINNET_ERR_CRYPTO);
        assert_scalar_equal(&shares[0], &before);
        assert_int_equal(linnet_shamir_coefficients(points, 2, coefficients), LINNET_OK);
        got = before;
        for (size_t at = 0; at < 2; at++) {
            shares[at] = bad;
            shares[1 - at] = scalar_of(1);
            assert_int_equal(linnet_shamir_combine(coefficients, shares, 2, &got), LINNET_ERR_CRYPTO);
            assert_scalar_equal(&got, &before);
            assert_int_equal(linnet_shamir_decode(points, coefficients, shares, 2, 1, &got, is_wrong),
                             LINNET_ERR_CRYPTO);
            assert_scalar_equal(&got, &before);
        }
        shares[0] = shares[1] = bad;
        assert_int_equal(linnet_shamir_combine(coefficients, shares, 2, &got), LINNET_ERR_CRYPTO);
    }
    json_decref(v);
}

/* ---- wrong shares ---- */

#define DECODED_MAX 1024

/* A secret and its shares, in a random order of points; `other` lies on another polynomial. */
typedef struct dealt {
    size_t n;
    uint32_t threshold, points[DECODED_MAX];
    linnet_scalar secret, other_secret, shares[DECODED_MAX], other[DECODED_MAX], coefficients[DECODED_MAX];
} dealt;

static void deal_at_points(dealt *d, linnet_rng *rng)
{
    linnet_scalar_draw(seeded, rng, &d->secret);
    linnet_scalar_draw(seeded, rng, &d->other_secret);
    assert_int_equal(linnet_shamir_share(&d->secret, d->threshold, d->points, d->n, seeded, rng, d->shares),
                     LINNET_OK);
    assert_int_equal(
        linnet_shamir_share(&d->other_secret, d->threshold, d->points, d->n, seeded, rng, d->other),
        LINNET_OK);
    assert_int_equal(linnet_shamir_coefficients(d->points, d->n, d->coefficients), LINNET_OK);
}

static void deal(dealt *d, linnet_rng *rng, size_t n, uint32_t threshold)
{
    static uint32_t all[DECODED_MAX];
    *d = (dealt){.n = n, .threshold = threshold};
    for (uint32_t i = 0; i < DECODED_MAX; i++)
        all[i] = i + 1;
    for (size_t i = 0; i < n; i++) {
        size_t from = i + linnet_rng_next(rng) % (DECODED_MAX - i);
        d->points[i] = all[from];
        all[from] = all[i];
    }
    deal_at_points(d, rng);
}

/* Decoding gives this secret, and names those whose share is not the one in good[]. */
static void assert_decodes(const dealt *d, const linnet_scalar *shares, const linnet_scalar *good,
                           const linnet_scalar *want)
{
    static bool is_wrong[DECODED_MAX];
    linnet_scalar got;
    assert_int_equal(
        linnet_shamir_decode(d->points, d->coefficients, shares, d->n, d->threshold, &got, is_wrong),
        LINNET_OK);
    assert_scalar_equal(&got, want);
    for (size_t i = 0; i < d->n; i++)
        assert_int_equal(is_wrong[i], memcmp(&shares[i], &good[i], sizeof(*good)) != 0);
}

static void assert_does_not_decode(const dealt *d, const linnet_scalar *shares)
{
    static bool is_wrong[DECODED_MAX], before[DECODED_MAX];
    linnet_scalar got, untouched;
    memset(&got, 0x5a, sizeof(got));
    memset(is_wrong, 1, sizeof(is_wrong));
    untouched = got;
    memcpy(before, is_wrong, sizeof(before));
    assert_int_equal(
        linnet_shamir_decode(d->points, d->coefficients, shares, d->n, d->threshold, &got, is_wrong),
        LINNET_ERR_NOT_FOUND);
    assert_scalar_equal(&got, &untouched);
    assert_memory_equal(is_wrong, before, sizeof(before));
}

/* How a share may be wrong. */
typedef enum lie { LIE_RANDOM, LIE_BY_ONE, LIE_ZERO, LIE_OF_NEIGHBOUR, LIE_OTHER_POLYNOMIAL, LIES } lie;

static linnet_scalar lie_about(const dealt *d, linnet_rng *rng, lie how, size_t i)
{
    static const linnet_scalar ones[2] = {{{1}}, {{1}}};
    linnet_scalar pair[2] = {d->shares[i], ones[0]}, drawn;
    switch (how) {
    case LIE_BY_ONE: /* all errors the same */
        assert_int_equal(linnet_shamir_combine(ones, pair, 2, &pair[0]), LINNET_OK);
        return pair[0];
    case LIE_ZERO:
        return (linnet_scalar){{0}};
    case LIE_OF_NEIGHBOUR:
        return d->shares[(i + 1) % d->n];
    case LIE_OTHER_POLYNOMIAL:
        return d->other[i];
    case LIE_RANDOM:
    case LIES:
        break;
    }
    linnet_scalar_draw(seeded, rng, &drawn);
    return drawn;
}

/* Every number of wrong shares up to one more than can be, in every way. That one more is not looked at where
 * any shares are those of some polynomial, or liars who add the same agree on one. */
static void half_of_the_shares_beyond_the_threshold_may_be_wrong(void **state)
{
    (void)state;
    static const struct {
        size_t n;
        uint32_t threshold;
    } sizes[] = {{1, 1}, {2, 1}, {3, 1}, {5, 1},  {12, 1},  {7, 7},
                 {8, 7}, {9, 7}, {9, 6}, {16, 5}, {33, 17}, {64, 34}};
    const uint64_t seed = 1981;
    print_message("seed %llu\n", (unsigned long long)seed);
    static dealt d;
    linnet_rng rng;
    linnet_rng_init(&rng, seed, 0);
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
        deal(&d, &rng, sizes[s].n, sizes[s].threshold);
        size_t radius = (d.n - d.threshold) / 2;
        for (int how = 0; how < LIES; how++)
            for (size_t n_wrong = 0; n_wrong <= radius + 1; n_wrong++) {
                linnet_scalar shares[N_MAX];
                memcpy(shares, d.shares, d.n * sizeof(shares[0]));
                size_t first = (size_t)linnet_rng_next(&rng) % d.n;
                for (size_t k = 0; k < n_wrong; k++) { /* some beside each other, in no order of points */
                    size_t i = (first + k) % d.n;
                    shares[i] = lie_about(&d, &rng, (lie)how, i);
                }
                if (n_wrong <= radius)
                    assert_decodes(&d, shares, d.shares, &d.secret);
                else if (d.n > d.threshold && d.threshold > 1)
                    assert_does_not_decode(&d, shares);
            }
    }
}

/* Two polynomials: the one with which (n + t) / 2 shares agree wins, and in between there is none. */
static void of_two_polynomials_the_one_of_enough_shares_is_found(void **state)
{
    (void)state;
    static dealt d;
    linnet_rng rng;
    linnet_rng_init(&rng, 7, 0);
    deal(&d, &rng, 20, 7);
    for (size_t n_other = 0; n_other <= d.n; n_other++) {
        linnet_scalar shares[20];
        for (size_t i = 0; i < d.n; i++)
            shares[i] = i < n_other ? d.other[i] : d.shares[i];
        if (n_other <= 6)
            assert_decodes(&d, shares, d.shares, &d.secret);
        else if (n_other >= 14)
            assert_decodes(&d, shares, d.other, &d.other_secret);
        else
            assert_does_not_decode(&d, shares);
    }
}

/* The worst that liars can do: their shares and t - 1 honest ones are those of one polynomial, which is the
 * dealer's and a multiple of (x - 1)(x - 2)...(x - 6). It is found from the first liar on that is too many.
 */
static void liars_win_where_they_are_one_too_many(void **state)
{
    (void)state;
    static dealt d;
    linnet_rng rng;
    static const linnet_scalar ones[2] = {{{1}}, {{1}}};
    linnet_scalar pair[2], at_zero = scalar_of(720);
    linnet_rng_init(&rng, 8, 0);
    d = (dealt){.n = 21, .threshold = 7};
    for (uint32_t i = 0; i < d.n; i++)
        d.points[i] = i + 1;
    deal_at_points(&d, &rng);
    for (uint32_t i = 0; i < d.n; i++) {
        uint64_t difference = 1;
        for (uint32_t root = 1; root <= 6; root++)
            difference *= i + 1 > root ? i + 1 - root : 0;
        pair[0] = d.shares[i];
        pair[1] = scalar_of(i < 6 ? 0 : difference);
        assert_int_equal(linnet_shamir_combine(ones, pair, 2, &d.other[i]), LINNET_OK);
    }
    pair[0] = d.secret;
    pair[1] = at_zero;
    assert_int_equal(linnet_shamir_combine(ones, pair, 2, &d.other_secret), LINNET_OK);
    for (size_t n_liars = 0; n_liars <= 15; n_liars++) {
        linnet_scalar shares[21];
        for (size_t i = 0; i < d.n; i++)
            shares[i] = i >= 6 && i < 6 + n_liars ? d.other[i] : d.shares[i];
        assert_decodes(&d, shares, n_liars <= 7 ? d.shares : d.other,
                       n_liars <= 7 ? &d.secret : &d.other_secret);
    }
}

static void a_tenth_of_the_largest_roster_may_lie(void **state)
{
    (void)state;
    static dealt d;
    static linnet_scalar shares[DECODED_MAX];
    linnet_rng rng;
    uint32_t n = testing_size("holders", 1024, 128);
    linnet_rng_init(&rng, 9, 0);
    deal(&d, &rng, n, (n + n / 20) / 2);
    memcpy(shares, d.shares, sizeof(shares));
    for (size_t k = 0; k < n / 10; k++)
        shares[k * 7] = lie_about(&d, &rng, LIE_RANDOM, k * 7);
    assert_decodes(&d, shares, d.shares, &d.secret);
}

static void decoding_refuses_points_and_thresholds_that_cannot_be(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t points[3], threshold;
        size_t n;
        linnet_status want;
    } cases[] = {
        {"good", {1, 2, 1024}, 2, 3, LINNET_OK},
        {"x = 0", {1, 0, 3}, 2, 3, LINNET_ERR_ARG},
        {"double", {1, 2, 1}, 2, 3, LINNET_ERR_ARG},
        {"above the largest", {1, 2, 1025}, 2, 3, LINNET_ERR_ARG},
        {"threshold 0", {1, 2, 3}, 0, 3, LINNET_ERR_ARG},
        {"threshold above n", {1, 2, 3}, 4, 3, LINNET_ERR_ARG},
        {"nobody", {1, 2, 3}, 1, 0, LINNET_ERR_ARG},
    };
    static const uint32_t points[3] = {1, 2, 1024};
    linnet_scalar coefficients[3];
    assert_int_equal(linnet_shamir_coefficients(points, 3, coefficients), LINNET_OK);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_scalar shares[3] = {scalar_of(5), scalar_of(5), scalar_of(5)}, got = scalar_of(1);
        bool is_wrong[3] = {true, true, true};
        linnet_status status = linnet_shamir_decode(cases[i].points, coefficients, shares, cases[i].n,
                                                    cases[i].threshold, &got, is_wrong);
        if (status != cases[i].want)
            fail_msg("%s: %s", cases[i].name, linnet_status_name(status));
        linnet_scalar want = scalar_of(status == LINNET_OK ? 5 : 1);
        assert_scalar_equal(&got, &want);
        for (size_t k = 0; k < 3; k++)
            assert_int_equal(is_wrong[k], status != LINNET_OK);
    }
}

static void sharing_and_decoding_wipe_what_they_worked_on(void **state)
{
    (void)state;
    static const uint32_t points[6] = {1, 2, 3, 4, 5, 6};
    linnet_scalar secret, shares[6], coefficients[6];
    bool is_wrong[6];
    linnet_scalar_draw(linnet_system_random, NULL, &secret);
    n_dirty = watched_bytes = 0;
    is_watching = true;
    linnet_status status = linnet_shamir_share(&secret, 3, points, 6, linnet_system_random, NULL, shares);
    is_watching = false;
    assert_int_equal(status, LINNET_OK);
    assert_int_equal(watched_bytes, 3 * LINNET_SCALAR_BYTES);
    assert_int_equal(linnet_shamir_coefficients(points, 6, coefficients), LINNET_OK);
    for (size_t n_wrong = 0; n_wrong <= 2; n_wrong++) {
        is_watching = true;
        status = linnet_shamir_decode(points, coefficients, shares, 6, 3, &secret, is_wrong);
        is_watching = false;
        assert_int_equal(status, n_wrong <= 1 ? LINNET_OK : LINNET_ERR_NOT_FOUND);
        assert_true(watched_bytes >= 6 * LINNET_SCALAR_BYTES);
        shares[n_wrong].bytes[0] ^= 1;
    }
    assert_int_equal(n_dirty, 0);
}

static void lack_of_memory_leaves_the_results_alone(void **state)
{
    (void)state;
    static const uint32_t points[3] = {1, 2, 3};
    linnet_scalar secret = scalar_of(7), shares[3], before[3], good[3];
    bool is_wrong[3] = {true, true, true};
    assert_int_equal(linnet_shamir_coefficients(points, 3, good), LINNET_OK);
    memset(shares, 0x0a, sizeof(shares)); /* scalars, but no results */
    memcpy(before, shares, sizeof(before));
    calloc_fails = true;
    linnet_status share = linnet_shamir_share(&secret, 2, points, 3, linnet_system_random, NULL, shares);
    linnet_status coefficients = linnet_shamir_coefficients(points, 3, shares);
    linnet_status decode = linnet_shamir_decode(points, good, before, 3, 1, &shares[0], is_wrong);
    calloc_fails = false;
    assert_int_equal(share, LINNET_ERR_NOMEM);
    assert_int_equal(coefficients, LINNET_ERR_NOMEM);
    assert_int_equal(decode, LINNET_ERR_NOMEM);
    assert_memory_equal(shares, before, sizeof(shares));
    assert_true(is_wrong[0] && is_wrong[1] && is_wrong[2]);
}

/* With a secret and coefficients below a toy prime p the real code never wraps, so its shares modulo p are
 * those of the toy field. counts[secret][pair of shares modulo p] over all polynomials whose coefficients
 * come from first .. p - 1. */
#define TOY 7
static void count_toy_pairs(uint32_t first, size_t a, size_t b, uint32_t counts[TOY][TOY * TOY])
{
    static const uint32_t points[5] = {1, 2, 3, 4, 5};
    memset(counts, 0, sizeof(uint32_t[TOY][TOY * TOY]));
    for (uint32_t secret = 0; secret < TOY; secret++)
        for (uint32_t linear = first; linear < TOY; linear++)
            for (uint32_t square = first; square < TOY; square++) {
                linnet_scalar constant = scalar_of(secret), shares[5];
                uint32_t numbers[2] = {linear, square};
                script stream = {.numbers = numbers};
                assert_int_equal(linnet_shamir_share(&constant, 3, points, 5, scripted, &stream, shares),
                                 LINNET_OK);
                counts[secret][linnet_load_le64(shares[a].bytes) % TOY * TOY +
                               linnet_load_le64(shares[b].bytes) % TOY]++;
            }
}

static void two_shares_of_three_needed_say_nothing_in_a_toy_field(void **state)
{
    (void)state;
    static uint32_t counts[TOY][TOY * TOY];
    for (size_t a = 0; a < 5; a++)
        for (size_t b = 0; b < a; b++) {
            count_toy_pairs(0, a, b, counts);
            for (size_t secret = 0; secret < TOY; secret++)
                for (size_t pair = 0; pair < (size_t)TOY * TOY; pair++)
                    assert_int_equal(counts[secret][pair], 1);
        }
}

/* The control: without the coefficient 0, which crypto_core_*_scalar_random never gives, shares say
 * something. */
static void coefficients_without_zero_would_say_something(void **state)
{
    (void)state;
    static uint32_t counts[TOY][TOY * TOY];
    count_toy_pairs(1, 0, 1, counts);
    size_t n_different = 0;
    for (size_t pair = 0; pair < (size_t)TOY * TOY; pair++)
        n_different += counts[0][pair] != counts[1][pair];
    assert_true(n_different > 0);
}

/* Chi-square of the low bytes of share 1 of 2 needed, for two secrets: 255 degrees of freedom, 5 sigma. */
static void one_share_is_uniform_whatever_the_secret(void **state)
{
    (void)state;
    static const uint32_t points[2] = {1, 2};
    const uint64_t seed = 20240;
    const size_t n_draws = 16384;
    print_message("seed %llu\n", (unsigned long long)seed);
    json_t *v = vectors_load("crypto/secagg.json");
    linnet_rng rng;
    linnet_rng_init(&rng, seed, 0);
    linnet_scalar secrets[2] = {scalar_of(0)};
    vector_copy(v, "order_less_one", secrets[1].bytes, LINNET_SCALAR_BYTES);
    for (size_t s = 0; s < 2; s++) {
        size_t counts[256] = {0};
        double chi_square = 0, expected = (double)n_draws / 256;
        for (size_t i = 0; i < n_draws; i++) {
            linnet_scalar shares[2];
            assert_int_equal(linnet_shamir_share(&secrets[s], 2, points, 2, seeded, &rng, shares), LINNET_OK);
            assert_true(linnet_scalar_is_canonical(&shares[0]));
            counts[shares[0].bytes[0]]++;
        }
        for (size_t i = 0; i < 256; i++)
            chi_square += ((double)counts[i] - expected) * ((double)counts[i] - expected) / expected;
        assert_true(chi_square > 255 - 5 * 22.6 && chi_square < 255 + 5 * 22.6);
    }
    json_decref(v);
}

static void a_draw_is_canonical_can_be_zero_and_uses_all_its_bytes(void **state)
{
    (void)state;
    static const uint32_t nothing[1] = {0};
    linnet_scalar zero = {{0}}, got;
    script stream = {.numbers = nothing};
    linnet_scalar_draw(scripted, &stream, &got);
    assert_int_equal(stream.at, 64);
    assert_scalar_equal(&got, &zero);
    linnet_rng rng;
    linnet_rng_init(&rng, 5, 0);
    uint8_t high = 0;
    for (int i = 0; i < 256; i++) {
        linnet_scalar_draw(seeded, &rng, &got);
        assert_true(linnet_scalar_is_canonical(&got));
        high |= got.bytes[31];
    }
    assert_int_equal(high, 0x0f); /* up to 2^252 and hardly ever above */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_integers_below_the_order_are_canonical),
        cmocka_unit_test(shares_match_the_protocols_vector),
        cmocka_unit_test(any_threshold_of_the_shares_rebuild_the_secret),
        cmocka_unit_test(coefficients_of_a_thousand_points_interpolate),
        cmocka_unit_test(a_large_roster_rebuilds),
        cmocka_unit_test(zero_and_double_points_and_wrong_thresholds_are_refused),
        cmocka_unit_test(scalars_that_are_not_canonical_are_refused_everywhere),
        cmocka_unit_test(half_of_the_shares_beyond_the_threshold_may_be_wrong),
        cmocka_unit_test(of_two_polynomials_the_one_of_enough_shares_is_found),
        cmocka_unit_test(liars_win_where_they_are_one_too_many),
        cmocka_unit_test(a_tenth_of_the_largest_roster_may_lie),
        cmocka_unit_test(decoding_refuses_points_and_thresholds_that_cannot_be),
        cmocka_unit_test(sharing_and_decoding_wipe_what_they_worked_on),
        cmocka_unit_test(lack_of_memory_leaves_the_results_alone),
        cmocka_unit_test(two_shares_of_three_needed_say_nothing_in_a_toy_field),
        cmocka_unit_test(coefficients_without_zero_would_say_something),
        cmocka_unit_test(one_share_is_uniform_whatever_the_secret),
        cmocka_unit_test(a_draw_is_canonical_can_be_zero_and_uses_all_its_bytes),
    };
    return cmocka_run_group_tests(tests, crypto_start, NULL);
}
