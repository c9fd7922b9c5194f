/* SPDX-License-Identifier: Apache-2.0 */
/* Shamir's sharing: vectors, what is refused, and that fewer shares than the threshold say nothing. */
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
        }
        shares[0] = shares[1] = bad;
        assert_int_equal(linnet_shamir_combine(coefficients, shares, 2, &got), LINNET_ERR_CRYPTO);
    }
    json_decref(v);
}

static void sharing_wipes_its_polynomial(void **state)
{
    (void)state;
    static const uint32_t points[3] = {1, 2, 3};
    linnet_scalar secret, shares[3];
    linnet_scalar_draw(linnet_system_random, NULL, &secret);
    n_dirty = watched_bytes = 0;
    is_watching = true;
    linnet_status status = linnet_shamir_share(&secret, 3, points, 3, linnet_system_random, NULL, shares);
    is_watching = false;
    assert_int_equal(status, LINNET_OK);
    assert_int_equal(watched_bytes, 3 * LINNET_SCALAR_BYTES);
    assert_int_equal(n_dirty, 0);
}

static void lack_of_memory_leaves_the_results_alone(void **state)
{
    (void)state;
    static const uint32_t points[3] = {1, 2, 3};
    linnet_scalar secret = scalar_of(7), shares[3], before[3];
    memset(shares, 0x5a, sizeof(shares));
    memcpy(before, shares, sizeof(before));
    calloc_fails = true;
    linnet_status share = linnet_shamir_share(&secret, 2, points, 3, linnet_system_random, NULL, shares);
    linnet_status coefficients = linnet_shamir_coefficients(points, 3, shares);
    calloc_fails = false;
    assert_int_equal(share, LINNET_ERR_NOMEM);
    assert_int_equal(coefficients, LINNET_ERR_NOMEM);
    assert_memory_equal(shares, before, sizeof(shares));
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
        cmocka_unit_test(sharing_wipes_its_polynomial),
        cmocka_unit_test(lack_of_memory_leaves_the_results_alone),
        cmocka_unit_test(two_shares_of_three_needed_say_nothing_in_a_toy_field),
        cmocka_unit_test(coefficients_without_zero_would_say_something),
        cmocka_unit_test(one_share_is_uniform_whatever_the_secret),
        cmocka_unit_test(a_draw_is_canonical_can_be_zero_and_uses_all_its_bytes),
    };
    return cmocka_run_group_tests(tests, crypto_start, NULL);
}
