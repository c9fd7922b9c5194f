/* SPDX-License-Identifier: Apache-2.0 */
/* An adapter that several threads use while another takes its place. */
#include "testing.h"

#include "linnet/adapter_slot.h"

#include <pthread.h>
#include <stdatomic.h>

enum { TAKERS = 4, SWAPS = 2000, FLOATS = 64 };

/* An adapter of one matrix, all of whose numbers are `value`. */
static linnet_adapter *filled(float value)
{
    linnet_layout_entry entry = {
        .name = "blk.0.attn_q.weight", .rows = 24, .columns = 8, .rank = 2, .b_offset = 16};
    linnet_layout layout = {.alpha = 4, .entries = &entry, .n_entries = 1, .n_parameters = FLOATS};
    linnet_adapter *adapter = NULL;
    linnet_error err = {0};
    assert_ok(linnet_adapter_create(&layout, &adapter, &err), &err);
    for (size_t i = 0; i < FLOATS; i++)
        adapter->data[i] = value;
    return adapter;
}

static void what_was_taken_stays_while_another_is_put(void **state)
{
    (void)state;
    linnet_adapter_slot slot;
    linnet_error err = {0};
    linnet_hash none = linnet_shared_adapter_hash(NULL);
    assert_ok(linnet_adapter_slot_init(&slot, &err), &err);
    assert_null(linnet_adapter_slot_take(&slot));
    assert_null(linnet_shared_adapter_get(NULL));
    assert_ok(linnet_adapter_slot_put(&slot, filled(1), &err), &err);
    linnet_shared_adapter *first = linnet_adapter_slot_take(&slot);
    assert_ok(linnet_adapter_slot_put(&slot, filled(2), &err), &err);
    linnet_shared_adapter *second = linnet_adapter_slot_take(&slot);
    assert_true(linnet_shared_adapter_get(first)->data[0] == 1);
    assert_true(linnet_shared_adapter_get(second)->data[0] == 2);
    linnet_hash hashes[] = {linnet_shared_adapter_hash(first), linnet_shared_adapter_hash(second)};
    linnet_hash wanted = linnet_adapter_hash(linnet_shared_adapter_get(first));
    assert_true(linnet_hash_equal(&hashes[0], &wanted));
    assert_false(linnet_hash_equal(&hashes[0], &hashes[1]));
    assert_false(linnet_hash_equal(&hashes[0], &none));
    assert_ok(linnet_adapter_slot_put(&slot, NULL, &err), &err);
    assert_null(linnet_adapter_slot_take(&slot));
    linnet_adapter_slot_release(&slot); /* what is shared outlives it */
    assert_true(linnet_shared_adapter_get(second)->data[FLOATS - 1] == 2);
    linnet_shared_adapter_release(first);
    linnet_shared_adapter_release(second);
}

typedef struct taker {
    pthread_t thread;
    linnet_adapter_slot *slot;
    atomic_bool *must_end;
    unsigned n_torn;
} taker;

/* Every adapter that is seen is one of those that were put, and whole. */
static void *take_on(void *context)
{
    taker *t = context;
    while (!atomic_load(t->must_end)) {
        linnet_shared_adapter *shared = linnet_adapter_slot_take(t->slot);
        const linnet_adapter *adapter = linnet_shared_adapter_get(shared);
        for (size_t i = 1; i < FLOATS; i++)
            t->n_torn += adapter->data[i] != adapter->data[0];
        linnet_shared_adapter_release(shared);
    }
    return NULL;
}

static void threads_see_whole_adapters_only(void **state)
{
    (void)state;
    linnet_adapter_slot slot;
    linnet_error err = {0};
    taker takers[TAKERS];
    atomic_bool must_end = false;
    assert_ok(linnet_adapter_slot_init(&slot, &err), &err);
    assert_ok(linnet_adapter_slot_put(&slot, filled(0), &err), &err);
    for (size_t i = 0; i < TAKERS; i++) {
        takers[i] = (taker){.slot = &slot, .must_end = &must_end};
        assert_int_equal(pthread_create(&takers[i].thread, NULL, take_on, &takers[i]), 0);
    }
    for (int i = 1; i <= SWAPS; i++)
        assert_ok(linnet_adapter_slot_put(&slot, filled((float)i), &err), &err);
    atomic_store(&must_end, true);
    for (size_t i = 0; i < TAKERS; i++) {
        (void)pthread_join(takers[i].thread, NULL);
        assert_int_equal(takers[i].n_torn, 0);
    }
    linnet_adapter_slot_release(&slot);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_taken_stays_while_another_is_put),
        cmocka_unit_test(threads_see_whole_adapters_only),
    };
    linnet_error err = {0};
    return linnet_crypto_init(&err) == LINNET_OK ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
