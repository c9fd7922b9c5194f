/* SPDX-License-Identifier: Apache-2.0 */
/* Seeded streams repeat, differ by stream, and have the moments they should. */
#include "testing.h"

#include "linnet/rng.h"

#include <math.h>

static void a_stream_repeats_and_its_neighbour_differs(void **state)
{
    (void)state;
    linnet_rng a, b, c;
    linnet_rng_init(&a, 7, 0);
    linnet_rng_init(&b, 7, 0);
    linnet_rng_init(&c, 7, 1);
    int equal = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t x = linnet_rng_next(&a);
        assert_true(x == linnet_rng_next(&b));
        equal += x == linnet_rng_next(&c);
    }
    assert_int_equal(equal, 0);
}

static void the_first_draws_stay_what_they_were(void **state)
{
    (void)state;
    linnet_rng rng; /* data orders and adapters of older runs depend on these bits */
    linnet_rng_init(&rng, 0, 0);
    uint64_t first = linnet_rng_next(&rng), second = linnet_rng_next(&rng);
    assert_true(first == UINT64_C(0xb6dac55adf1d64a9));
    assert_true(second == UINT64_C(0x9c3ec147adfd99eb));
}

static void draws_below_n_are_uniform(void **state)
{
    (void)state;
    enum { N = 7, DRAWS = 70000 };
    int count[N] = {0};
    linnet_rng rng;
    linnet_rng_init(&rng, 11, 3);
    for (int i = 0; i < DRAWS; i++)
        count[linnet_rng_below(&rng, N)]++;
    double chi_square = 0;
    for (int i = 0; i < N; i++)
        chi_square += pow(count[i] - DRAWS / N, 2) / (DRAWS / N);
    assert_true(chi_square < 22.5); /* 6 degrees of freedom, p = 0.001 */
    assert_true(linnet_rng_below(&rng, 0) == 0);
}

static void moments_are_those_of_the_distribution(void **state)
{
    (void)state;
    enum { DRAWS = 200000 };
    static const double shapes[] = {0.1, 0.5, 1, 4};
    linnet_rng rng;
    linnet_rng_init(&rng, 5, 0);
    double sum = 0, squares = 0;
    for (int i = 0; i < DRAWS; i++) {
        double x = linnet_rng_normal(&rng);
        sum += x;
        squares += x * x;
    }
    assert_true(fabs(sum / DRAWS) < 5 / sqrt(DRAWS));
    assert_true(fabs(squares / DRAWS - 1) < 5 * sqrt(2.0 / DRAWS));
    for (size_t s = 0; s < ARRAY_LEN(shapes); s++) {
        double mean = 0;
        for (int i = 0; i < DRAWS; i++)
            mean += linnet_rng_gamma(&rng, shapes[s]) / DRAWS;
        if (fabs(mean - shapes[s]) > 5 * sqrt(shapes[s] / DRAWS))
            fail_msg("gamma(%g) has the mean %g", shapes[s], mean);
    }
}

static void a_shuffle_is_a_permutation_and_every_place_is_reached(void **state)
{
    (void)state;
    enum { N = 5, DRAWS = 50000 };
    int at[N] = {0};
    linnet_rng rng;
    linnet_rng_init(&rng, 1, 1);
    for (int d = 0; d < DRAWS; d++) {
        size_t order[N] = {0, 1, 2, 3, 4};
        unsigned seen = 0;
        linnet_rng_shuffle(&rng, order, N);
        for (int i = 0; i < N; i++) {
            seen |= 1u << order[i];
            at[i] += order[i] == 0;
        }
        assert_int_equal(seen, 31);
    }
    for (int i = 0; i < N; i++)
        assert_true(abs(at[i] - DRAWS / N) < 5 * sqrt(DRAWS * 0.16));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_repeats_and_its_neighbour_differs),
        cmocka_unit_test(the_first_draws_stay_what_they_were),
        cmocka_unit_test(draws_below_n_are_uniform),
        cmocka_unit_test(moments_are_those_of_the_distribution),
        cmocka_unit_test(a_shuffle_is_a_permutation_and_every_place_is_reached),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
