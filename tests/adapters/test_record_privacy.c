/* SPDX-License-Identifier: Apache-2.0 */
/* The private sum of record-level DP (SECURE-AGGREGATION 3.6, property 26 of 6.2). */
#include "testing.h"

#include "adapters/dp_inner.h"
#include "linnet/rng.h"

#include <math.h>

#define SEED 36

static int allocations_left = -1; /* before one fails; negative: none does */
void *__real_calloc(size_t n, size_t n_bytes);
void *__wrap_calloc(size_t n, size_t n_bytes);

void *__wrap_calloc(size_t n, size_t n_bytes)
{
    if (allocations_left >= 0 && allocations_left-- == 0)
        return NULL;
    return __real_calloc(n, n_bytes);
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

enum { length = 3001, n_units = 9 };

static linnet_record_spec spec_of(double z, double divisor)
{
    linnet_record_spec spec = {.length = length, .clip = 0.75, .z = z, .divisor = divisor};
    linnet_error err = {0};
    assert_ok(linnet_record_exponent(spec.clip, spec.z, spec.length, &spec.exponent, &err), &err);
    return spec;
}

static linnet_record_sum *sum_of(const linnet_record_spec *spec, linnet_rng *rng)
{
    linnet_record_sum *sum = NULL;
    linnet_error err = {0};
    assert_ok(linnet_record_sum_create(spec, seeded, rng, &sum, &err), &err);
    return sum;
}

/* Unit u's gradient: tiny, ordinary, clipped, enormous, all in one coordinate, or no number at all. */
static void gradient_of(size_t u, float *gradient)
{
    static const double sizes[n_units] = {1e-5, 0.005, 0.014, 0.1, 1, 1e30, 0, 0.01, 0.01};
    linnet_rng rng;
    linnet_rng_init(&rng, SEED, 1000 + u);
    for (size_t i = 0; i < length; i++)
        gradient[i] = (float)(sizes[u] * linnet_rng_normal(&rng));
    if (u == 6)
        gradient[7] = -3;
    if (u == 7)
        gradient[length - 1] = NAN;
    if (u == 8)
        gradient[0] = -INFINITY;
}

/* The noise and each unit's rounding have streams of their own, so that a unit can be left out and nothing
 * else changes. */
static void add_units(linnet_record_sum *sum, linnet_rng *rng, size_t left_out)
{
    static float gradient[length];
    linnet_rng_init(rng, SEED, 0);
    for (size_t u = 0; u < n_units; u++) {
        static const float nothing[length];
        if (u == 0) { /* draws the noise */
            linnet_record_sum_add(sum, nothing);
        }
        gradient_of(u, gradient);
        linnet_rng_init(rng, SEED, 1 + u);
        if (u != left_out)
            linnet_record_sum_add(sum, gradient);
    }
}

/* Property 26. */
static void removing_a_unit_moves_the_sum_by_at_most_d2(void **state)
{
    (void)state;
    linnet_record_spec spec = spec_of(2, 10);
    linnet_rng rng;
    print_message("seed %d\n", SEED);
    linnet_record_sum *all = sum_of(&spec, &rng);
    add_units(all, &rng, n_units);
    for (size_t u = 0; u < n_units; u++) {
        linnet_record_sum *without = sum_of(&spec, &rng);
        add_units(without, &rng, u);
        const int64_t *a = linnet_record_sum_integers(all), *b = linnet_record_sum_integers(without);
        uint64_t squares = 0;
        for (size_t i = 0; i < length; i++)
            squares += (uint64_t)((a[i] - b[i]) * (a[i] - b[i]));
        assert_true(squares <= linnet_record_bound2(&spec));
        if (u >= 7) /* NaN and infinity count as the zero vector */
            assert_int_equal(squares, 0);
        if (u >= 2 && u < 7) /* those longer than the clip norm use it up */
            assert_true((double)squares > 0.9 * pow(ldexp(spec.clip, spec.exponent), 2));
        linnet_record_sum_destroy(without);
    }
    linnet_record_sum_destroy(all);
}

static void a_step_without_units_is_noise_only(void **state)
{
    (void)state;
    static float step[2][length];
    linnet_record_spec spec = spec_of(1.5, 8);
    linnet_rng rng;
    print_message("seed %d\n", SEED);
    linnet_rng_init(&rng, SEED, 50);
    linnet_record_sum *sum = sum_of(&spec, &rng);
    double sigma = sqrt((double)linnet_record_variance(&spec));
    assert_true(sigma > 2048 && sigma <= 4096); /* the finest scale that the sampler allows */
    for (size_t s = 0; s < 2; s++) {
        double squares = 0, mean = 0, want = sigma / ldexp(1, spec.exponent) / spec.divisor;
        linnet_record_sum_finish(sum, step[s]);
        for (size_t i = 0; i < length; i++) {
            mean += (double)step[s][i] / length;
            squares += (double)step[s][i] * step[s][i] / length;
        }
        assert_true(fabs(mean) < 4 * want / sqrt(length));
        assert_true(fabs(squares / want / want - 1) < 4 * sqrt(2.0 / length));
    }
    assert_memory_not_equal(step[0], step[1], sizeof(step[0])); /* each step has its own */
    linnet_record_sum_destroy(sum);
}

static void the_divisor_is_the_public_one(void **state)
{
    (void)state;
    static const double divisors[] = {4, 16};
    static float mean[2][length];
    for (size_t d = 0; d < 2; d++) {
        linnet_record_spec spec = spec_of(1, divisors[d]);
        linnet_rng rng;
        linnet_record_sum *sum = sum_of(&spec, &rng);
        add_units(sum, &rng, d == 0 ? 8 : 7); /* other counts of units that are zero: nothing changes */
        linnet_record_sum_finish(sum, mean[d]);
        linnet_record_sum_destroy(sum);
    }
    for (size_t i = 0; i < length; i++)
        assert_true(mean[0][i] == 4 * mean[1][i]);
}

static void many_units_give_their_mean(void **state)
{
    (void)state;
    enum { n = 400 };
    static float gradient[length], mean[length];
    linnet_record_spec spec = spec_of(1, n);
    linnet_rng rng;
    double norm = 0, squares = 0;
    linnet_rng_init(&rng, SEED, 70);
    print_message("seed %d\n", SEED);
    for (size_t i = 0; i < length; i++) {
        gradient[i] = (float)linnet_rng_normal(&rng);
        norm += (double)gradient[i] * gradient[i];
    }
    norm = sqrt(norm);
    linnet_record_sum *sum = sum_of(&spec, &rng);
    for (int u = 0; u < n; u++)
        linnet_record_sum_add(sum, gradient);
    linnet_record_sum_finish(sum, mean);
    for (size_t i = 0; i < length; i++) {
        double error = mean[i] - gradient[i] * spec.clip / norm;
        squares += error * error / length;
    }
    /* Noise once, a rounding variance of about 1/6 for each unit. */
    double variance = (double)linnet_record_variance(&spec) + n / 6.0;
    double want = sqrt(variance) / ldexp(1, spec.exponent) / n;
    print_message("rms %.4f of the predicted\n", sqrt(squares) / want);
    assert_true(fabs(sqrt(squares) / want - 1) < 0.06);
    linnet_record_sum_destroy(sum);
}

static void the_exponent_is_the_finest_that_the_sampler_allows(void **state)
{
    (void)state;
    static const struct {
        double clip, z;
        uint64_t n;
        linnet_status want;
    } cases[] = {
        {1, 1, 1000, LINNET_OK},           {1e-4, 0.5, 131072, LINNET_OK},   {1e6, 4, 1 << 20, LINNET_OK},
        {1, 8, 1 << 20, LINNET_ERR_RANGE}, {1, 7, 1 << 20, LINNET_OK},       {0, 1, 1000, LINNET_ERR_RANGE},
        {1, 0, 1000, LINNET_ERR_RANGE},    {NAN, 1, 1000, LINNET_ERR_RANGE}, {1, NAN, 1000, LINNET_ERR_RANGE},
        {1, 1, 0, LINNET_ERR_RANGE},       {1, 5000, 1, LINNET_ERR_RANGE},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_record_spec spec = {
            .length = cases[i].n, .clip = cases[i].clip, .z = cases[i].z, .exponent = 777, .divisor = 1};
        linnet_error err = {0};
        linnet_status got = linnet_record_exponent(spec.clip, spec.z, spec.length, &spec.exponent, &err);
        if (got != cases[i].want)
            fail_msg("case %zu: got %s", i, linnet_status_name(got));
        if (got != LINNET_OK) {
            assert_int_equal(spec.exponent, 777);
            continue;
        }
        assert_ok(linnet_record_check(&spec, &err), &err);
        assert_true(spec.z * sqrt((double)linnet_record_bound2(&spec)) <= 4096);
        spec.exponent++;
        assert_int_equal(linnet_record_variance(&spec), 0);
        assert_int_equal(linnet_record_check(&spec, &err), LINNET_ERR_RANGE);
    }
}

static void bad_specs_are_refused(void **state)
{
    (void)state;
    static const struct {
        linnet_record_spec spec;
        linnet_status want;
    } cases[] = {
        {{.length = 100, .clip = 1, .z = 1, .exponent = 8, .divisor = 1}, LINNET_OK},
        {{.length = 0, .clip = 1, .z = 1, .exponent = 8, .divisor = 1}, LINNET_ERR_RANGE},
        {{.length = UINT64_MAX, .clip = 1, .z = 1, .exponent = 8, .divisor = 1}, LINNET_ERR_RANGE},
        {{.length = 100, .clip = 0, .z = 1, .exponent = 8, .divisor = 1}, LINNET_ERR_ARG},
        {{.length = 100, .clip = INFINITY, .z = 1, .exponent = 8, .divisor = 1}, LINNET_ERR_ARG},
        {{.length = 100, .clip = 1, .z = 0, .exponent = 8, .divisor = 1}, LINNET_ERR_ARG},
        {{.length = 100, .clip = 1, .z = NAN, .exponent = 8, .divisor = 1}, LINNET_ERR_ARG},
        {{.length = 100, .clip = 1, .z = 1, .exponent = 8, .divisor = 0}, LINNET_ERR_ARG},
        {{.length = 100, .clip = 1, .z = 1, .exponent = 8, .divisor = INFINITY}, LINNET_ERR_ARG},
        {{.length = 100, .clip = 1, .z = 1, .exponent = 30, .divisor = 1}, LINNET_ERR_RANGE},
        {{.length = 100, .clip = 1, .z = 1, .exponent = INT32_MIN, .divisor = 1}, LINNET_ERR_RANGE},
        {{.length = 100, .clip = 1, .z = 1, .exponent = 12, .divisor = 1}, LINNET_ERR_RANGE}, /* above 2^24 */
        {{.length = 100, .clip = 1, .z = 0.01, .exponent = 8, .divisor = 1}, LINNET_ERR_RANGE}, /* below 16 */
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_record_sum *sum = NULL;
        linnet_error err = {0};
        linnet_rng rng;
        linnet_status got = linnet_record_sum_create(&cases[i].spec, seeded, &rng, &sum, &err);
        if (got != cases[i].want)
            fail_msg("case %zu: got %s: %s", i, linnet_status_name(got), err.message);
        assert_true((sum != NULL) == (got == LINNET_OK));
        linnet_record_sum_destroy(sum);
    }
}

static void lack_of_memory_is_reported(void **state)
{
    (void)state;
    linnet_record_spec spec = spec_of(1, 1);
    for (int failing = 0; failing <= 3; failing++) {
        linnet_record_sum *sum = NULL;
        linnet_rng rng;
        linnet_error err = {0};
        allocations_left = failing;
        linnet_status got = linnet_record_sum_create(&spec, seeded, &rng, &sum, &err);
        allocations_left = -1;
        assert_int_equal(got, failing < 3 ? LINNET_ERR_NOMEM : LINNET_OK);
        linnet_record_sum_destroy(sum);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(removing_a_unit_moves_the_sum_by_at_most_d2),
        cmocka_unit_test(a_step_without_units_is_noise_only),
        cmocka_unit_test(the_divisor_is_the_public_one),
        cmocka_unit_test(many_units_give_their_mean),
        cmocka_unit_test(the_exponent_is_the_finest_that_the_sampler_allows),
        cmocka_unit_test(bad_specs_are_refused),
        cmocka_unit_test(lack_of_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
