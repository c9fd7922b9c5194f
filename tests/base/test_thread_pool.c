/* SPDX-License-Identifier: Apache-2.0 */
/* Every item is worked on exactly once, in whole grains, whatever the number of threads. */
#include "testing.h"

#include "linnet/thread_pool.h"

typedef struct work {
    unsigned char touched[1000];
    size_t grain, n_items;
} work;

static void touch(void *context, size_t first, size_t last, unsigned thread)
{
    work *w = context;
    (void)thread;
    if (first % w->grain != 0 || (last % w->grain != 0 && last != w->n_items))
        return; /* leaves the items untouched: the test then fails */
    for (size_t i = first; i < last; i++)
        w->touched[i]++;
}

static void every_item_is_touched_once(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 2, 3, 7, 8, 64, 999, 1000}, grains[] = {1, 3, 16};
    for (unsigned n_threads = 1; n_threads <= 5; n_threads++) {
        linnet_thread_pool *pool = NULL;
        linnet_error err = {0};
        assert_ok(linnet_thread_pool_create(n_threads, &pool, &err), &err);
        assert_int_equal(linnet_thread_pool_size(pool), n_threads);
        for (size_t s = 0; s < ARRAY_LEN(sizes); s++)
            for (size_t g = 0; g < ARRAY_LEN(grains); g++)
                for (int again = 0; again < 20; again++) {
                    work w = {.grain = grains[g], .n_items = sizes[s]};
                    linnet_thread_pool_run(pool, sizes[s], grains[g], touch, &w);
                    for (size_t i = 0; i < sizeof(w.touched); i++)
                        if (w.touched[i] != (i < sizes[s]))
                            fail_msg("%u threads, %zu items, grain %zu: item %zu is touched %d times",
                                     n_threads, sizes[s], grains[g], i, w.touched[i]);
                }
        linnet_thread_pool_destroy(pool);
    }
}

static void no_pool_means_the_caller(void **state)
{
    (void)state;
    work w = {.grain = 1, .n_items = 10};
    linnet_thread_pool_run(NULL, 10, 1, touch, &w);
    assert_int_equal(w.touched[9], 1);
    assert_int_equal(linnet_thread_pool_size(NULL), 1);
    linnet_thread_pool_destroy(NULL);
}

static void too_many_threads_are_refused(void **state)
{
    (void)state;
    linnet_thread_pool *pool = NULL;
    linnet_error err = {0};
    assert_int_equal(linnet_thread_pool_create(100000, &pool, &err), LINNET_ERR_RANGE);
    assert_null(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_is_touched_once),
        cmocka_unit_test(no_pool_means_the_caller),
        cmocka_unit_test(too_many_threads_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
