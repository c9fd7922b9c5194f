/* SPDX-License-Identifier: Apache-2.0 */
/* Robust rules: what they give on tables made by hand, that a few bad vectors have a bounded say, and that
 * order and slicing have none. */
#include "testing.h"

#include "linnet/rng.h"
#include "linnet/robust.h"

#include <float.h>
#include <math.h>

enum { n_max = 12, length_max = 200 };

typedef struct vectors {
    float values[n_max][length_max];
    const float *rows[n_max];
} vectors;

static linnet_robust_config config_of(linnet_robust_rule rule)
{
    linnet_robust_config config;
    linnet_robust_default(&config);
    config.rule = rule;
    return config;
}

static void point_rows(vectors *v)
{
    for (size_t k = 0; k < n_max; k++)
        v->rows[k] = v->values[k];
}

/* Values in [centre - 1, centre + 1), another centre for each coordinate. */
static void draw(vectors *v, linnet_rng *rng, size_t n, size_t length)
{
    for (size_t k = 0; k < n; k++)
        for (size_t i = 0; i < length; i++)
            v->values[k][i] = (float)((double)(i % 7) - 3 + 2 * linnet_rng_double(rng) - 1);
    point_rows(v);
}

static double distance(const float *a, const float *b, size_t length)
{
    double square = 0;
    for (size_t i = 0; i < length; i++)
        square += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return sqrt(square);
}

static void names_are_those_of_the_plan(void **state)
{
    (void)state;
    static const char *const names[] = {"mean", "median",    "trimmed_mean", "geometric_median",
                                        "krum", "multi_krum"};
    for (size_t r = 0; r < LINNET_ROBUST_RULES; r++)
        assert_string_equal(linnet_robust_rule_name((linnet_robust_rule)r), names[r]);
    assert_string_equal(linnet_robust_rule_name(LINNET_ROBUST_RULES), "unknown");
}

/* Five vectors of two values. Squared distances of the first four, f = 1, two nearest each:
 * (0,0): 1 + 1 = 2; (1,0): 1 + 2 = 3; (0,1): 1 + 2 = 3; (2,2): 5 + 5 = 10; (9,-9): far. */
static void tables_made_by_hand_come_out(void **state)
{
    (void)state;
    static const float table[5][2] = {{2, 2}, {1, 0}, {0, 0}, {0, 1}, {9, -9}};
    static const float *const rows[5] = {table[0], table[1], table[2], table[3], table[4]};
    static const double weights[5] = {1, 1, 2, 0, 0};
    static const struct {
        const char *name;
        linnet_robust_config config;
        size_t n;
        const double *weights;
        float want[2];
    } cases[] = {
        {"mean", {.rule = LINNET_ROBUST_MEAN}, 5, NULL, {2.4f, -1.2f}},
        {"weighted mean", {.rule = LINNET_ROBUST_MEAN}, 5, weights, {0.75f, 0.5f}},
        {"odd median", {.rule = LINNET_ROBUST_MEDIAN}, 5, NULL, {1, 0}},
        {"even median", {.rule = LINNET_ROBUST_MEDIAN}, 4, NULL, {0.5f, 0.5f}},
        {"median of two", {.rule = LINNET_ROBUST_MEDIAN}, 2, NULL, {1.5f, 1}},
        {"median of one", {.rule = LINNET_ROBUST_MEDIAN}, 1, NULL, {2, 2}},
        {"nothing trimmed", {.rule = LINNET_ROBUST_TRIMMED_MEAN}, 5, NULL, {2.4f, -1.2f}},
        {"one trimmed", {.rule = LINNET_ROBUST_TRIMMED_MEAN, .trim = 0.2}, 5, NULL, {1, 1.0f / 3}},
        {"a fraction trims one", {.rule = LINNET_ROBUST_TRIMMED_MEAN, .trim = 0.01}, 5, NULL, {1, 1.0f / 3}},
        {"two trimmed", {.rule = LINNET_ROBUST_TRIMMED_MEAN, .trim = 0.21}, 5, NULL, {1, 0}},
        {"krum", {.rule = LINNET_ROBUST_KRUM, .n_corrupt = 1}, 5, NULL, {0, 0}},
        {"best two", {.rule = LINNET_ROBUST_MULTI_KRUM, .n_corrupt = 1, .n_keep = 2}, 5, NULL, {0.5f, 0}},
        {"best three",
         {.rule = LINNET_ROBUST_MULTI_KRUM, .n_corrupt = 1, .n_keep = 3},
         5,
         NULL,
         {1.0f / 3, 1.0f / 3}},
        {"best by default", {.rule = LINNET_ROBUST_MULTI_KRUM, .n_corrupt = 1}, 5, NULL, {0.5f, 0}},
        {"best four",
         {.rule = LINNET_ROBUST_MULTI_KRUM, .n_corrupt = 1, .n_keep = 4},
         5,
         NULL,
         {0.75f, 0.75f}},
    };
    for (size_t c = 0; c < ARRAY_LEN(cases); c++) {
        float got[2] = {-7, -7};
        linnet_error err = {0};
        assert_ok(linnet_robust_aggregate(&cases[c].config, rows, cases[c].weights, cases[c].n, 2, got, &err),
                  &err);
        for (size_t i = 0; i < 2; i++)
            if (!(fabsf(got[i] - cases[c].want[i]) <= 1e-6f))
                fail_msg("%s: value %zu is %g, not %g", cases[c].name, i, got[i], cases[c].want[i]);
    }
}

static void a_tie_goes_to_the_lowest_index(void **state)
{
    (void)state;
    static const float table[4][1] = {{3}, {1}, {2}, {0}}; /* scores 5, 2, 2, 5 */
    static const float *const rows[4] = {table[0], table[1], table[2], table[3]};
    static const float *const swapped[4] = {table[3], table[2], table[1], table[0]};
    linnet_robust_config config = config_of(LINNET_ROBUST_KRUM);
    linnet_error err = {0};
    float got = 0;
    assert_ok(linnet_robust_aggregate(&config, rows, NULL, 4, 1, &got, &err), &err);
    assert_true(got == 1);
    assert_ok(linnet_robust_aggregate(&config, swapped, NULL, 4, 1, &got, &err), &err);
    assert_true(got == 2);
}

static void what_is_no_rule_is_refused(void **state)
{
    (void)state;
    static const double ones[8] = {1, 1, 1, 1, 1, 1, 1, 1}, negative[8] = {1, -1, 1}, none[8] = {0};
    static const double nan_weight[8] = {1, NAN, 1}, endless[8] = {DBL_MAX, DBL_MAX, DBL_MAX};
    static const struct {
        const char *name;
        linnet_robust_config config;
        size_t n;
        const double *weights;
        linnet_status want;
    } cases[] = {
        {"no vectors", {.rule = LINNET_ROBUST_MEAN}, 0, ones, LINNET_ERR_ARG},
        {"one vector", {.rule = LINNET_ROBUST_MEAN}, 1, ones, LINNET_OK},
        {"no rule", {.rule = LINNET_ROBUST_RULES}, 3, ones, LINNET_ERR_ARG},
        {"weight below 0", {.rule = LINNET_ROBUST_MEAN}, 3, negative, LINNET_ERR_ARG},
        {"weights 0", {.rule = LINNET_ROBUST_MEAN}, 3, none, LINNET_ERR_ARG},
        {"weight NaN", {.rule = LINNET_ROBUST_MEAN}, 3, nan_weight, LINNET_ERR_ARG},
        {"endless sum", {.rule = LINNET_ROBUST_MEAN}, 3, endless, LINNET_ERR_ARG},
        {"clip below 0", {.rule = LINNET_ROBUST_MEAN, .clip_multiple = -1}, 3, ones, LINNET_ERR_ARG},
        {"clip NaN", {.rule = LINNET_ROBUST_MEAN, .clip_multiple = NAN}, 3, ones, LINNET_ERR_ARG},
        {"trim 0.5", {.rule = LINNET_ROBUST_TRIMMED_MEAN, .trim = 0.5}, 8, ones, LINNET_ERR_ARG},
        {"trim below 0", {.rule = LINNET_ROBUST_TRIMMED_MEAN, .trim = -0.1}, 8, ones, LINNET_ERR_ARG},
        {"trim NaN", {.rule = LINNET_ROBUST_TRIMMED_MEAN, .trim = NAN}, 8, ones, LINNET_ERR_ARG},
        {"trim leaves none", {.rule = LINNET_ROBUST_TRIMMED_MEAN, .trim = 0.2}, 2, ones, LINNET_ERR_ARG},
        {"trim leaves one", {.rule = LINNET_ROBUST_TRIMMED_MEAN, .trim = 0.2}, 3, ones, LINNET_OK},
        {"trim leaves two", {.rule = LINNET_ROBUST_TRIMMED_MEAN, .trim = 0.3}, 8, ones, LINNET_OK},
        {"trim leaves none of 8", {.rule = LINNET_ROBUST_TRIMMED_MEAN, .trim = 0.4}, 8, ones, LINNET_ERR_ARG},
        {"krum of 2", {.rule = LINNET_ROBUST_KRUM}, 2, ones, LINNET_ERR_ARG},
        {"krum of 3", {.rule = LINNET_ROBUST_KRUM}, 3, ones, LINNET_OK},
        {"krum of 6, 2 bad", {.rule = LINNET_ROBUST_KRUM, .n_corrupt = 2}, 6, ones, LINNET_ERR_ARG},
        {"krum of 7, 2 bad", {.rule = LINNET_ROBUST_KRUM, .n_corrupt = 2}, 7, ones, LINNET_OK},
        {"f endless", {.rule = LINNET_ROBUST_KRUM, .n_corrupt = UINT32_MAX}, 8, ones, LINNET_ERR_ARG},
        {"keeps bad ones",
         {.rule = LINNET_ROBUST_MULTI_KRUM, .n_corrupt = 2, .n_keep = 6},
         7,
         ones,
         LINNET_ERR_ARG},
        {"keeps 5", {.rule = LINNET_ROBUST_MULTI_KRUM, .n_corrupt = 2, .n_keep = 5}, 7, ones, LINNET_OK},
        {"nu 0",
         {.rule = LINNET_ROBUST_GEOMETRIC_MEDIAN, .tolerance = 0.1, .iterations_max = 1},
         3,
         ones,
         LINNET_ERR_ARG},
        {"no iterations",
         {.rule = LINNET_ROBUST_GEOMETRIC_MEDIAN, .smoothing = 0.1, .tolerance = 0.1},
         3,
         ones,
         LINNET_ERR_ARG},
        {"tolerance 1",
         {.rule = LINNET_ROBUST_GEOMETRIC_MEDIAN, .smoothing = 0.1, .tolerance = 1, .iterations_max = 1},
         3,
         ones,
         LINNET_ERR_ARG},
        {"one iteration",
         {.rule = LINNET_ROBUST_GEOMETRIC_MEDIAN, .smoothing = 0.1, .iterations_max = 1},
         3,
         ones,
         LINNET_OK},
    };
    for (size_t c = 0; c < ARRAY_LEN(cases); c++) {
        linnet_robust *robust = NULL;
        linnet_error err = {0};
        linnet_status got =
            linnet_robust_create(&cases[c].config, cases[c].n, cases[c].weights, &robust, &err);
        if (got != cases[c].want || (got == LINNET_OK) != (robust != NULL))
            fail_msg("%s: got %s", cases[c].name, linnet_status_name(got));
        linnet_robust_destroy(robust);
    }
}

/* 0.07 x 100 is a little more than 7 in binary; n = 100 with 7 cut leaves 86. */
static void rounding_does_not_cut_one_more(void **state)
{
    (void)state;
    enum { n = 100 };
    static float table[n];
    const float *rows[n];
    linnet_robust_config config = config_of(LINNET_ROBUST_TRIMMED_MEAN);
    linnet_error err = {0};
    float got = 0;
    config.trim = 0.07;
    for (size_t k = 0; k < n; k++) { /* 92 of 0, one of 86 that is just not cut, seven of 1000 */
        table[k] = k < 92 ? 0 : k == 92 ? 86 : 1000;
        rows[k] = &table[k];
    }
    assert_ok(linnet_robust_aggregate(&config, rows, NULL, n, 1, &got, &err), &err);
    assert_true(got == 1);
}

static void a_vector_that_is_not_finite_is_named(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    linnet_rng rng;
    vectors v;
    linnet_rng_init(&rng, 1, 0);
    for (size_t b = 0; b < ARRAY_LEN(bad); b++)
        for (size_t rule = 0; rule < LINNET_ROBUST_RULES; rule++) {
            linnet_robust_config config = config_of((linnet_robust_rule)rule);
            linnet_error err = {0};
            float got[9];
            draw(&v, &rng, 7, 9);
            v.values[5][8] = bad[b];
            memset(got, 0x55, sizeof(got));
            assert_int_equal(linnet_robust_aggregate(&config, v.rows, NULL, 7, 9, got, &err),
                             LINNET_ERR_RANGE);
            assert_non_null(strstr(err.message, "vector 5"));
            for (size_t i = 0; i < sizeof(got); i++)
                assert_int_equal(((uint8_t *)got)[i], 0x55);
        }
}

static void order_has_no_say(void **state)
{
    (void)state;
    enum { n = 11, length = 50 };
    const uint64_t seed = 29;
    linnet_rng rng;
    static vectors v;
    print_message("seed %llu\n", (unsigned long long)seed);
    linnet_rng_init(&rng, seed, 0);
    draw(&v, &rng, n, length);
    for (size_t rule = 0; rule < LINNET_ROBUST_RULES; rule++)
        for (int turn = 0; turn < 5; turn++) {
            linnet_robust_config config = config_of((linnet_robust_rule)rule);
            size_t order[n];
            const float *shuffled[n];
            double weights[n], shuffled_weights[n];
            float want[length], got[length];
            linnet_error err = {0};
            config.n_corrupt = 3;
            config.clip_multiple = turn % 2;
            for (size_t k = 0; k < n; k++) {
                order[k] = k;
                weights[k] = 1 + linnet_rng_double(&rng);
            }
            linnet_rng_shuffle(&rng, order, n);
            for (size_t k = 0; k < n; k++) {
                shuffled[k] = v.rows[order[k]];
                shuffled_weights[k] = weights[order[k]];
            }
            assert_ok(linnet_robust_aggregate(&config, v.rows, weights, n, length, want, &err), &err);
            assert_ok(linnet_robust_aggregate(&config, shuffled, shuffled_weights, n, length, got, &err),
                      &err);
            for (size_t i = 0; i < length; i++)
                if (!(fabsf(got[i] - want[i]) <= 1e-5f))
                    fail_msg("%s: value %zu is %g, not %g", linnet_robust_rule_name(config.rule), i, got[i],
                             want[i]);
        }
}

/* Cuts a pass or the result at random places. */
static size_t next_cut(linnet_rng *rng, size_t at, size_t length, const vectors *v, size_t n,
                       const float **slices)
{
    size_t n_values = (size_t)linnet_rng_below(rng, 17); /* an empty slice is one too */
    for (size_t k = 0; k < n; k++)
        slices[k] = v->values[k] + at;
    return n_values < length - at ? n_values : length - at;
}

static void slices_give_the_bits_of_the_whole(void **state)
{
    (void)state;
    enum { n = 9, length = 131 };
    const uint64_t seed = 31;
    linnet_rng rng;
    static vectors v;
    print_message("seed %llu\n", (unsigned long long)seed);
    linnet_rng_init(&rng, seed, 0);
    draw(&v, &rng, n, length);
    for (size_t rule = 0; rule < LINNET_ROBUST_RULES; rule++)
        for (int clips = 0; clips < 2; clips++) {
            linnet_robust_config config = config_of((linnet_robust_rule)rule);
            linnet_robust *robust = NULL;
            const float *slices[n];
            float whole[length], cut[length];
            linnet_error err = {0};
            size_t n_passes = 0;
            config.n_corrupt = 2;
            config.clip_multiple = clips * 0.9;
            assert_ok(linnet_robust_aggregate(&config, v.rows, NULL, n, length, whole, &err), &err);
            assert_ok(linnet_robust_create(&config, n, NULL, &robust, &err), &err);
            for (; linnet_robust_wants_pass(robust); n_passes++) {
                for (size_t at = 0, m; at < length; at += m) {
                    m = next_cut(&rng, at, length, &v, n, slices);
                    assert_ok(linnet_robust_add(robust, slices, m, &err), &err);
                }
                assert_ok(linnet_robust_end_pass(robust, &err), &err);
            }
            for (size_t at = 0, m; at < length; at += m) {
                m = next_cut(&rng, at, length, &v, n, slices);
                assert_ok(linnet_robust_combine(robust, slices, m, cut + at, &err), &err);
            }
            assert_memory_equal(whole, cut, sizeof(whole));
            if (rule == LINNET_ROBUST_GEOMETRIC_MEDIAN)
                assert_in_range(n_passes, 2, config.iterations_max);
            else
                assert_int_equal(n_passes, clips + (rule >= LINNET_ROBUST_KRUM));
            linnet_robust_destroy(robust);
        }
}

static void calls_out_of_turn_are_refused(void **state)
{
    (void)state;
    static const float values[4] = {1, 2, 3, 4};
    const float *rows[3] = {values, values + 1, values};
    linnet_robust_config config = config_of(LINNET_ROBUST_GEOMETRIC_MEDIAN);
    linnet_robust *robust = NULL;
    linnet_error err = {0};
    float got[2];
    assert_ok(linnet_robust_create(&config, 3, NULL, &robust, &err), &err);
    assert_int_equal(linnet_robust_combine(robust, rows, 2, got, &err), LINNET_ERR_ARG);
    assert_null(linnet_robust_factors(robust));
    assert_ok(linnet_robust_add(robust, rows, 2, &err), &err);
    assert_ok(linnet_robust_end_pass(robust, &err), &err);
    assert_true(linnet_robust_wants_pass(robust));
    assert_ok(linnet_robust_add(robust, rows, 3, &err), &err);
    assert_int_equal(linnet_robust_end_pass(robust, &err), LINNET_ERR_MISMATCH);
    linnet_robust_destroy(robust);
    config.rule = LINNET_ROBUST_MEAN;
    assert_ok(linnet_robust_create(&config, 3, NULL, &robust, &err), &err);
    assert_int_equal(linnet_robust_add(robust, rows, 2, &err), LINNET_ERR_ARG);
    assert_int_equal(linnet_robust_end_pass(robust, &err), LINNET_ERR_ARG);
    linnet_robust_destroy(robust);
    linnet_robust_destroy(NULL);
}

/* Eight honest vectors within 1 of a centre in every coordinate, three that are huge: all to one side, each
 * to its own, or next to the largest float. */
static void corrupt_vectors_do_not_move_a_robust_rule_out_of_the_honest_range(void **state)
{
    (void)state;
    enum { n = 11, f = 3, length = 40 };
    static const double sizes[] = {1e3, 1e9, 1e20, 3e38};
    const uint64_t seed = 37;
    linnet_rng rng;
    static vectors v;
    print_message("seed %llu\n", (unsigned long long)seed);
    linnet_rng_init(&rng, seed, 0);
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++)
        for (int together = 0; together < 2; together++)
            for (size_t rule = 0; rule < LINNET_ROBUST_RULES; rule++) {
                linnet_robust_config config = config_of((linnet_robust_rule)rule);
                float got[length], centre[length];
                linnet_error err = {0};
                config.n_corrupt = f;
                config.trim = 0.27; /* ceil(0.27 x 11) = 3 */
                draw(&v, &rng, n, length);
                for (size_t k = 0; k < f; k++)
                    for (size_t i = 0; i < length; i++) /* indices 0, 4 and 8 */
                        v.values[4 * k][i] =
                            (float)(sizes[s] * (together ? 1 : 2 * linnet_rng_double(&rng) - 1));
                assert_ok(linnet_robust_aggregate(&config, v.rows, NULL, n, length, got, &err), &err);
                bool is_coordinate = rule == LINNET_ROBUST_MEDIAN || rule == LINNET_ROBUST_TRIMMED_MEAN;
                bool is_inside = true;
                for (size_t i = 0; i < length; i++) {
                    centre[i] = (float)(i % 7) - 3;
                    is_inside &= fabsf(got[i] - centre[i]) <= 1;
                }
                /* A centre of the whole vector may leave the box, not the ball by more than its radius times
                 * 2 (n - f) / (n - 2 f) (RFA, theorem on breakdown). */
                double away = distance(got, centre, length), radius = sqrt(length);
                if (rule == LINNET_ROBUST_MEAN)
                    assert_true(away > 10 * radius);
                else if (is_coordinate || rule >= LINNET_ROBUST_KRUM)
                    assert_true(is_inside);
                else
                    assert_true(away <= radius * 2 * (n - f) / (n - 2 * f));
            }
}

static void krum_gives_an_honest_vector_itself(void **state)
{
    (void)state;
    enum { n = 11, f = 4, length = 30 };
    const uint64_t seed = 41;
    linnet_rng rng;
    static vectors v;
    print_message("seed %llu\n", (unsigned long long)seed);
    linnet_rng_init(&rng, seed, 0);
    for (int turn = 0; turn < 20; turn++) {
        linnet_robust_config config = config_of(LINNET_ROBUST_KRUM);
        linnet_robust *robust = NULL;
        linnet_error err = {0};
        float got[length];
        config.n_corrupt = f;
        draw(&v, &rng, n, length);
        for (size_t k = 0; k < f; k++) /* four who agree to the bit */
            for (size_t i = 0; i < length; i++)
                v.values[k][i] = 500 + (float)i;
        assert_ok(linnet_robust_create(&config, n, NULL, &robust, &err), &err);
        assert_ok(linnet_robust_add(robust, v.rows, length, &err), &err);
        assert_ok(linnet_robust_end_pass(robust, &err), &err);
        assert_ok(linnet_robust_combine(robust, v.rows, length, got, &err), &err);
        const double *factors = linnet_robust_factors(robust);
        size_t picked = n;
        for (size_t k = 0; k < n; k++)
            if (factors[k] == 1)
                picked = k;
        assert_in_range(picked, f, n - 1);
        assert_memory_equal(got, v.values[picked], sizeof(got));
        linnet_robust_destroy(robust);
    }
}

/* Medians that are known: the Fermat point (three equal angles) of a triangle; its corner, where an angle has
 * 120 degrees or more; the middle one on a line; the crossing of the diagonals of a convex quadrangle; the
 * point that holds half the weight. */
static void weiszfeld_finds_known_geometric_medians(void **state)
{
    (void)state;
    static const double heavy[4] = {3, 1, 1, 1};
    static const struct {
        const char *name;
        size_t n;
        const double *weights;
        float points[5][2], want[2];
    } cases[] = {
        {"equilateral", 3, NULL, {{10, 0}, {12, 0}, {11, 1.7320508f}}, {11, 0.57735027f}},
        {"isosceles", 3, NULL, {{-1, 5}, {1, 5}, {0, 8}}, {0, 5.57735027f}},
        {"wide corner", 3, NULL, {{0, 1}, {-9, 0}, {9, 0}}, {0, 1}},
        {"line", 5, NULL, {{1, 1}, {7, 7}, {2, 2}, {40, 40}, {3, 3}}, {3, 3}},
        {"diagonals", 4, NULL, {{0, 0}, {4, 0}, {6, 6}, {0, 4}}, {2, 2}},
        {"half the weight", 4, heavy, {{1, 2}, {5, 0}, {5, 9}, {8, 1}}, {1, 2}},
        {"start at a point", 4, NULL, {{0, 0}, {100, 99}, {100, 101}, {101, 100}}, {100, 99.00990099f}},
        {"all the same", 3, NULL, {{4, 5}, {4, 5}, {4, 5}}, {4, 5}},
        {"all zero", 3, NULL, {{0, 0}, {0, 0}, {0, 0}}, {0, 0}},
        {"most zero", 4, NULL, {{0, 0}, {0, 0}, {0, 0}, {1, 0}}, {0, 0}},
    };
    for (size_t c = 0; c < ARRAY_LEN(cases); c++)
        for (int scale = -60; scale <= 60; scale += 60) { /* units have no say */
            linnet_robust_config config = config_of(LINNET_ROBUST_GEOMETRIC_MEDIAN);
            float points[5][2], got[2];
            const float *rows[5];
            linnet_error err = {0};
            config.tolerance = 1e-9;
            config.iterations_max = 5000;
            for (size_t k = 0; k < 5; k++) {
                rows[k] = points[k];
                for (size_t i = 0; i < 2; i++)
                    points[k][i] = ldexpf(cases[c].points[k][i], scale);
            }
            assert_ok(linnet_robust_aggregate(&config, rows, cases[c].weights, cases[c].n, 2, got, &err),
                      &err);
            for (size_t i = 0; i < 2; i++)
                if (!(fabs(ldexp((double)got[i], -scale) - cases[c].want[i]) <= 1e-4))
                    fail_msg("%s at 2^%d: value %zu is %g, not %g", cases[c].name, scale, i,
                             ldexp((double)got[i], -scale), cases[c].want[i]);
        }
}

/* Norms 1, 2, 4 with median 2. From 0, factors go with p / max(nu, norm). */
static void the_first_iteration_is_made_by_hand(void **state)
{
    (void)state;
    static const float table[3] = {1, 2, 4};
    static const float *const rows[3] = {&table[0], &table[1], &table[2]};
    static const double weights[3] = {1, 2, 4};
    static const struct {
        double smoothing, clip_multiple;
        const double *weights;
        float want;
    } cases[] = {
        {0.01, 0, NULL, 12.0f / 7},   /* 1, 1/2, 1/4 */
        {1, 0, NULL, 2},              /* nu 2: 1/2, 1/2, 1/4 */
        {0.01, 1, NULL, 1.5f},        /* 1, 2, 2: 1, 1/2, 1/2 */
        {0.01, 0, weights, 7.0f / 3}, /* 1, 1, 1 */
    };
    for (size_t c = 0; c < ARRAY_LEN(cases); c++) {
        linnet_robust_config config = config_of(LINNET_ROBUST_GEOMETRIC_MEDIAN);
        linnet_error err = {0};
        float got = 0;
        config.smoothing = cases[c].smoothing;
        config.clip_multiple = cases[c].clip_multiple;
        config.iterations_max = 1;
        assert_ok(linnet_robust_aggregate(&config, rows, cases[c].weights, 3, 1, &got, &err), &err);
        if (!(fabsf(got - cases[c].want) <= 1e-6f))
            fail_msg("case %zu: %g, not %g", c, got, cases[c].want);
    }
}

/* Every step lowers the sum of distances, and one more iteration is one more step. */
static void weiszfeld_descends(void **state)
{
    (void)state;
    enum { n = 9, length = 20 };
    const uint64_t seed = 43;
    linnet_rng rng;
    static vectors v;
    double before = INFINITY;
    print_message("seed %llu\n", (unsigned long long)seed);
    linnet_rng_init(&rng, seed, 0);
    draw(&v, &rng, n, length);
    for (uint32_t iterations = 1; iterations <= 8; iterations++) {
        linnet_robust_config config = config_of(LINNET_ROBUST_GEOMETRIC_MEDIAN);
        float got[length];
        double sum = 0;
        linnet_error err = {0};
        config.iterations_max = iterations;
        config.tolerance = 0;
        assert_ok(linnet_robust_aggregate(&config, v.rows, NULL, n, length, got, &err), &err);
        for (size_t k = 0; k < n; k++)
            sum += distance(got, v.values[k], length);
        assert_true(sum < before + 1e-5);
        assert_true(iterations > 3 || sum < before);
        before = sum;
    }
}

/* Norms 3, 4, 5, 5, 100: median 5, twice that 10. */
static void clipping_goes_to_a_multiple_of_the_median_norm(void **state)
{
    (void)state;
    static const float table[5][2] = {{3, 0}, {0, 4}, {3, 4}, {-4, 3}, {60, -80}};
    static const float *const rows[5] = {table[0], table[1], table[2], table[3], table[4]};
    static const double want[5] = {0.2, 0.2, 0.2, 0.2, 0.02};
    linnet_robust_config config = config_of(LINNET_ROBUST_MEAN);
    linnet_robust *robust = NULL;
    linnet_error err = {0};
    float got[2];
    config.clip_multiple = 2;
    assert_ok(linnet_robust_create(&config, 5, NULL, &robust, &err), &err);
    assert_ok(linnet_robust_add(robust, rows, 2, &err), &err);
    assert_ok(linnet_robust_end_pass(robust, &err), &err);
    assert_false(linnet_robust_wants_pass(robust));
    const double *factors = linnet_robust_factors(robust);
    for (size_t k = 0; k < 5; k++)
        assert_true(fabs(factors[k] - want[k]) < 1e-15);
    assert_ok(linnet_robust_combine(robust, rows, 2, got, &err), &err);
    assert_true(fabsf(got[0] - 1.6f) < 1e-6f && fabsf(got[1] - 0.6f) < 1e-6f);
    linnet_robust_destroy(robust);
    config.rule = LINNET_ROBUST_MEDIAN; /* the last one enters as (6, -8) */
    assert_ok(linnet_robust_aggregate(&config, rows, NULL, 5, 2, got, &err), &err);
    assert_true(got[0] == 3 && got[1] == 3);
}

static void clipping_bounds_the_mean_and_the_geometric_median(void **state)
{
    (void)state;
    enum { n = 9, length = 16 };
    linnet_rng rng;
    static vectors v;
    linnet_rng_init(&rng, 47, 0);
    draw(&v, &rng, n, length);
    double largest = 0;
    for (size_t k = 2; k < n; k++) {
        static const float zero[length];
        largest = fmax(largest, distance(v.values[k], zero, length));
    }
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; i < length; i++)
            v.values[k][i] = 1e30f;
    for (size_t rule = 0; rule < LINNET_ROBUST_RULES; rule++) {
        static const float zero[length];
        linnet_robust_config config = config_of((linnet_robust_rule)rule);
        float got[length];
        linnet_error err = {0};
        config.clip_multiple = 1;
        assert_ok(linnet_robust_aggregate(&config, v.rows, NULL, n, length, got, &err), &err);
        assert_true(distance(got, zero, length) <= largest);
    }
}

static void a_step_is_clipped_over_all_its_parts(void **state)
{
    (void)state;
    float b[2] = {3, 0}, a[3] = {0, -4, 0};
    float *const parts[2] = {b, a};
    static const size_t lengths[2] = {2, 3};
    double norm = 0;
    linnet_error err = {0};
    assert_ok(linnet_step_clip(parts, lengths, 2, 5, &norm, &err), &err);
    assert_true(norm == 5 && b[0] == 3 && a[1] == -4); /* not longer: not touched */
    assert_ok(linnet_step_clip(parts, lengths, 2, 2.5, &norm, &err), &err);
    assert_true(norm == 5 && b[0] == 1.5f && b[1] == 0 && a[1] == -2);
    assert_ok(linnet_step_clip(parts, lengths, 2, 0.5, NULL, &err), &err);
    assert_true(fabsf(b[0] - 0.3f) < 1e-7f && fabsf(a[1] + 0.4f) < 1e-7f);
    float huge[2] = {FLT_MAX, FLT_MAX};
    float *const one[1] = {huge};
    assert_ok(linnet_step_clip(one, lengths, 1, 1, &norm, &err), &err);
    assert_true(fabs(norm / FLT_MAX - sqrt(2)) < 1e-12 && fabsf(huge[0] - 0.70710678f) < 1e-6f);
}

static void a_step_that_cannot_be_clipped_is_left_alone(void **state)
{
    (void)state;
    static const double bad_norms[] = {0, -1, NAN, INFINITY};
    static const float bad_values[] = {NAN, INFINITY, -INFINITY};
    float b[2] = {30, 40}, a[1] = {0};
    float *const parts[2] = {b, a};
    static const size_t lengths[2] = {2, 1};
    double norm = -1;
    linnet_error err = {0};
    for (size_t i = 0; i < ARRAY_LEN(bad_norms); i++)
        assert_int_equal(linnet_step_clip(parts, lengths, 2, bad_norms[i], &norm, &err), LINNET_ERR_ARG);
    for (size_t i = 0; i < ARRAY_LEN(bad_values); i++) {
        a[0] = bad_values[i];
        assert_int_equal(linnet_step_clip(parts, lengths, 2, 1, &norm, &err), LINNET_ERR_RANGE);
        assert_non_null(strstr(err.message, "value 0 of part 1"));
    }
    assert_true(norm == -1 && b[0] == 30 && b[1] == 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_those_of_the_plan),
        cmocka_unit_test(tables_made_by_hand_come_out),
        cmocka_unit_test(a_tie_goes_to_the_lowest_index),
        cmocka_unit_test(what_is_no_rule_is_refused),
        cmocka_unit_test(rounding_does_not_cut_one_more),
        cmocka_unit_test(a_vector_that_is_not_finite_is_named),
        cmocka_unit_test(order_has_no_say),
        cmocka_unit_test(slices_give_the_bits_of_the_whole),
        cmocka_unit_test(calls_out_of_turn_are_refused),
        cmocka_unit_test(corrupt_vectors_do_not_move_a_robust_rule_out_of_the_honest_range),
        cmocka_unit_test(krum_gives_an_honest_vector_itself),
        cmocka_unit_test(weiszfeld_finds_known_geometric_medians),
        cmocka_unit_test(the_first_iteration_is_made_by_hand),
        cmocka_unit_test(weiszfeld_descends),
        cmocka_unit_test(clipping_goes_to_a_multiple_of_the_median_norm),
        cmocka_unit_test(clipping_bounds_the_mean_and_the_geometric_median),
        cmocka_unit_test(a_step_is_clipped_over_all_its_parts),
        cmocka_unit_test(a_step_that_cannot_be_clipped_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
