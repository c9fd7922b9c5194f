/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels under softmax, every variant that this CPU runs: values, sums, ends of rows and what is not
 * finite. */
#include <math.h>

#include "client/engine/kernels.h"

#include "linnet/rng.h"

#include "testing.h"

enum { N_MAX = 150, SEED = 77 };

static const linnet_kernels *list[8];
static size_t n_list;

static void fill(linnet_rng *rng, float *x, size_t n, double spread)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(spread * linnet_rng_normal(rng));
}

static void max_is_the_largest_at_any_length(void **state)
{
    (void)state;
    linnet_rng rng;
    float x[N_MAX];
    linnet_rng_init(&rng, SEED, 1);
    for (size_t n = 1; n <= N_MAX; n++)
        for (size_t at = 0; at < n; at++) { /* the largest in every place, all others negative */
            fill(&rng, x, n, 10);
            for (size_t i = 0; i < n; i++)
                x[i] = -fabsf(x[i]) - 1;
            x[at] = -0.5f;
            for (size_t v = 0; v < n_list; v++)
                if (list[v]->max(x, n) != -0.5f)
                    fail_msg("%s: length %zu, largest at %zu", list[v]->name, n, at);
        }
}

static void exp_sum_is_the_softmax_numerator(void **state)
{
    (void)state;
    linnet_rng rng;
    linnet_rng_init(&rng, SEED, 2);
    for (size_t n = 1; n <= N_MAX; n++)
        for (size_t v = 0; v < n_list; v++) {
            float x[N_MAX], y[N_MAX + 1];
            double sum = 0;
            fill(&rng, x, n, n % 3 == 0 ? 60 : 3);
            memcpy(y, x, n * sizeof(float));
            y[n] = 123;
            float top = list[v]->max(x, n), got = list[v]->exp_sum(y, n, top);
            assert_true(y[n] == 123);
            for (size_t i = 0; i < n; i++) {
                double want =
                    exp((double)x[i] - top); /* the difference in float may round once: 4 ulp of 80 */
                sum += want;
                if (!(fabs(y[i] - want) <= 1e-5 * want + 1e-25))
                    fail_msg("%s: exp(%a - %a) is %a", list[v]->name, (double)x[i], (double)top,
                             (double)y[i]);
                assert_true(y[i] == 0 || y[i] > 1e-33f); /* nothing subnormal, nor near it */
            }
            assert_true(fabs(got - sum) <= 2e-6 * sum);
        }
}

static void what_is_far_below_is_zero_and_nan_stays(void **state)
{
    (void)state;
    for (size_t v = 0; v < n_list; v++)
        for (size_t n = 4; n <= 70; n++) {
            float x[70] = {0, -INFINITY, -58, -1e30f};
            float sum = list[v]->exp_sum(x, n, 0);
            assert_true(x[0] == 1 && x[1] == 0 && x[2] == 0 && x[3] == 0);
            assert_true(sum == (float)(n - 3));
            x[n - 1] = NAN;
            assert_true(isnan(list[v]->exp_sum(x, n, 1)));
            assert_true(isnan(x[n - 1]));
        }
}

int main(void)
{
    n_list = linnet_kernels_available(list);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(max_is_the_largest_at_any_length),
        cmocka_unit_test(exp_sum_is_the_softmax_numerator),
        cmocka_unit_test(what_is_far_below_is_zero_and_nan_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
