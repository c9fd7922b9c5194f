/* SPDX-License-Identifier: Apache-2.0 */
/* The sampler against the exact probabilities (SECURE-AGGREGATION 3.3, property 16 of 6.2). */
#include "testing.h"

#include "linnet/discrete_gaussian.h"
#include "linnet/rng.h"

#include <math.h>

#define SEED 20200404

static void seeded(void *context, void *bytes, size_t n_bytes)
{
    uint8_t *at = bytes;
    for (size_t i = 0; i < n_bytes; i += 8) {
        uint8_t word[8];
        linnet_store_le64(word, linnet_rng_next(context));
        memcpy(at + i, word, n_bytes - i < 8 ? n_bytes - i : 8);
    }
}

static int64_t *draw(uint64_t sigma2, uint64_t stream, size_t n)
{
    linnet_rng rng;
    int64_t *samples = malloc(n * sizeof(samples[0]));
    linnet_rng_init(&rng, SEED, stream);
    assert_non_null(samples);
    assert_int_equal(linnet_discrete_gaussian(sigma2, seeded, &rng, samples, n), LINNET_OK);
    return samples;
}

enum { bound = 400 }; /* beyond every sample that the chi-square tests see */

/* Chi-square of the samples against sigma2, values with fewer than 10 expected pooled in the tails. */
static double chi_square(const int64_t *samples, size_t n, double sigma2, size_t *ret_freedom)
{
    static size_t counts[2 * bound + 1];
    double mass = 0, chi2 = 0, pooled_want = 0, pooled_got = 0;
    memset(counts, 0, sizeof(counts));
    for (size_t i = 0; i < n; i++) {
        assert_true(samples[i] >= -bound && samples[i] <= bound);
        counts[samples[i] + bound]++;
    }
    for (int y = -bound; y <= bound; y++)
        mass += exp(-y * y / (2 * sigma2));
    *ret_freedom = 0;
    for (int y = -bound; y <= bound; y++) {
        double want = (double)n * exp(-y * y / (2 * sigma2)) / mass, got = (double)counts[y + bound];
        if (want >= 10) {
            chi2 += (got - want) * (got - want) / want;
            ++*ret_freedom;
        } else {
            pooled_want += want;
            pooled_got += got;
        }
    }
    return chi2 + (pooled_got - pooled_want) * (pooled_got - pooled_want) / pooled_want;
}

static void samples_have_the_exact_probabilities(void **state)
{
    (void)state;
    static const uint64_t variances[] = {1, 16, 100};
    const size_t n = 1000000;
    print_message("seed %d\n", SEED);
    for (size_t v = 0; v < ARRAY_LEN(variances); v++) {
        size_t freedom = 0;
        int64_t *samples = draw(variances[v], v, n);
        double chi2 = chi_square(samples, n, (double)variances[v], &freedom);
        print_message("sigma2 %d: chi-square %.1f on %zu\n", (int)variances[v], chi2, freedom);
        assert_true(fabs(chi2 - (double)freedom) < 4 * sqrt(2 * (double)freedom));
        /* The test would see a variance that is off by 2 %. */
        assert_true(chi_square(samples, n, 1.02 * (double)variances[v], &freedom) > 2 * (double)freedom);
        free(samples);
    }
}

static void samples_are_symmetric_with_the_right_variance(void **state)
{
    (void)state;
    static const uint64_t variances[] = {1, 2, 3, 4, 16, 99, 100, 12345, UINT64_C(1) << 24};
    const size_t n = 200000;
    print_message("seed %d\n", SEED);
    for (size_t v = 0; v < ARRAY_LEN(variances); v++) {
        int64_t *samples = draw(variances[v], 100 + v, n);
        double sum = 0, squares = 0, above = 0, below = 0, mass = 0, want = 0;
        double sigma2 = (double)variances[v], sigma = sqrt(sigma2);
        for (size_t i = 0; i < n; i++) {
            double y = (double)samples[i];
            sum += y;
            squares += y * y;
            above += y > 0;
            below += y < 0;
        }
        for (int y = -(int)(40 * sigma); y <= 40 * sigma; y++) {
            mass += exp(-(double)y * y / (2 * sigma2));
            want += (double)y * y * exp(-(double)y * y / (2 * sigma2));
        }
        want /= mass;
        assert_true(fabs(sum / (double)n) < 4 * sqrt(want / (double)n));
        assert_true(fabs(squares / (double)n - want) < 4 * want * sqrt(2 / (double)n));
        assert_true(fabs(above - below) < 4 * sqrt((double)n));
        free(samples);
    }
}

static uint64_t floor_sqrt(uint64_t n)
{
    uint64_t root = 0;
    while ((root + 1) * (root + 1) <= n)
        root++;
    return root;
}

static void samples_stay_within_the_bound(void **state)
{
    (void)state;
    static const uint64_t variances[] = {1,  3,  4,  8,    9,
                                         15, 16, 17, 1000, LINNET_DISCRETE_GAUSSIAN_SIGMA2_MAX};
    for (size_t v = 0; v < ARRAY_LEN(variances); v++) {
        const size_t n = 20000;
        int64_t *samples = draw(variances[v], 200 + v, n);
        int64_t last = 64 * (int64_t)(floor_sqrt(variances[v]) + 1), largest = 0;
        for (size_t i = 0; i < n; i++) {
            int64_t size = samples[i] < 0 ? -samples[i] : samples[i];
            assert_true(size <= last);
            largest = size > largest ? size : largest;
        }
        assert_true((double)largest > 3 * sqrt((double)variances[v])); /* and they do have tails */
        free(samples);
    }
}

static void variances_without_a_sampler_are_refused(void **state)
{
    (void)state;
    static const uint64_t refused[] = {0, LINNET_DISCRETE_GAUSSIAN_SIGMA2_MAX + 1, UINT64_C(1) << 32,
                                       UINT64_MAX};
    linnet_rng rng;
    linnet_rng_init(&rng, SEED, 0);
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        int64_t sample = 77;
        assert_int_equal(linnet_discrete_gaussian(refused[i], seeded, &rng, &sample, 1), LINNET_ERR_RANGE);
        assert_int_equal(sample, 77);
    }
}

static void one_stream_gives_one_vector(void **state)
{
    (void)state;
    const size_t n = 5000;
    int64_t *a = draw(100, 300, n), *b = draw(100, 300, n), *c = draw(100, 301, n);
    assert_memory_equal(a, b, n * sizeof(a[0]));
    assert_memory_not_equal(a, c, n * sizeof(a[0]));
    free(a);
    free(b);
    free(c);
}

static void the_system_generator_serves(void **state)
{
    (void)state;
    static int64_t a[1000], b[1000];
    linnet_error err = {0};
    assert_ok(linnet_crypto_init(&err), &err);
    assert_int_equal(linnet_discrete_gaussian(400, linnet_system_random, NULL, a, ARRAY_LEN(a)), LINNET_OK);
    assert_int_equal(linnet_discrete_gaussian(400, linnet_system_random, NULL, b, ARRAY_LEN(b)), LINNET_OK);
    assert_memory_not_equal(a, b, sizeof(a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_have_the_exact_probabilities),
        cmocka_unit_test(samples_are_symmetric_with_the_right_variance),
        cmocka_unit_test(samples_stay_within_the_bound),
        cmocka_unit_test(variances_without_a_sampler_are_refused),
        cmocka_unit_test(one_stream_gives_one_vector),
        cmocka_unit_test(the_system_generator_serves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
