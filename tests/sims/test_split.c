/* SPDX-License-Identifier: Apache-2.0 */
/* Every record goes to exactly one device, by the rule that was asked for, and the same seed deals the same.
 */
#include "testing.h"

#include "linnet/simulation.h"

#include <math.h>

enum { N_RECORDS = 1200 };

/* n records of clients c0..c(n_clients-1) in turn; client k has weight k + 1. */
static linnet_dataset *make_set(size_t n, size_t n_clients)
{
    linnet_dataset *set = calloc(1, sizeof(*set));
    assert_non_null(set);
    set->records = calloc(n, sizeof(*set->records));
    assert_non_null(set->records);
    set->n_records = n;
    for (size_t i = 0, at = 0; i < n; i++, at = (at + 1) % (n_clients * (n_clients + 1) / 2)) {
        size_t client = 0, left = at;
        while (left > client)
            left -= ++client;
        char name[16];
        (void)snprintf(name, sizeof(name), "c%zu", client);
        set->records[i].client = strdup(name);
        set->records[i].text = strdup("x");
        set->records[i].line = i + 1;
    }
    return set;
}

static void count_each_record_once(const linnet_shares *shares, size_t n_records, size_t n_eval)
{
    unsigned char *seen = calloc(n_records + n_eval, 1);
    assert_non_null(seen);
    for (size_t d = 0; d < shares->n_items; d++) {
        const linnet_share *share = &shares->items[d];
        for (size_t i = 0; i < share->n_records; i++) {
            assert_true(i == 0 || share->records[i] > share->records[i - 1]);
            seen[share->records[i]]++;
        }
        for (size_t i = 0; i < share->n_eval_records; i++)
            seen[n_records + share->eval_records[i]]++;
    }
    for (size_t i = 0; i < n_records + n_eval; i++)
        if (seen[i] != 1)
            fail_msg("record %zu is dealt %d times", i, seen[i]);
    free(seen);
}

static void by_client_every_device_has_its_own_records(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_dataset *data = make_set(N_RECORDS, 4), *eval = make_set(100, 4);
    linnet_shares *shares = NULL;
    assert_ok(linnet_shares_create(data, eval, LINNET_SPLIT_CLIENT, 0, 0, 0, 1, &shares, &err), &err);
    assert_int_equal(shares->n_items, 4);
    count_each_record_once(shares, N_RECORDS, 100);
    for (size_t d = 0; d < 4; d++) {
        assert_true(d == 0 || shares->items[d].n_records <= shares->items[d - 1].n_records);
        for (size_t i = 0; i < shares->items[d].n_records; i++)
            assert_string_equal(data->records[shares->items[d].records[i]].client, shares->items[d].name);
        for (size_t i = 0; i < shares->items[d].n_eval_records; i++)
            assert_string_equal(eval->records[shares->items[d].eval_records[i]].client,
                                shares->items[d].name);
    }
    assert_string_equal(shares->items[0].name, "c3");
    linnet_shares_destroy(shares);
    linnet_dataset_destroy(data);
    linnet_dataset_destroy(eval);
}

static void the_largest_clients_with_evaluation_records_are_chosen(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_dataset *data = make_set(N_RECORDS, 4),
                   *eval = make_set(3, 2); /* evaluation records of c0 and c1 only */
    linnet_shares *shares = NULL;
    assert_ok(linnet_shares_create(data, eval, LINNET_SPLIT_CLIENT, 0, 3, 0, 1, &shares, &err), &err);
    assert_string_equal(shares->items[0].name, "c1");
    assert_string_equal(shares->items[1].name, "c0");
    assert_string_equal(shares->items[2].name, "c3");
    linnet_shares_destroy(shares);
    linnet_dataset_destroy(data);
    linnet_dataset_destroy(eval);
}

static void evaluation_records_are_thinned_evenly(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_dataset *data = make_set(N_RECORDS, 1), *eval = make_set(450, 1);
    linnet_shares *shares = NULL;
    assert_ok(linnet_shares_create(data, eval, LINNET_SPLIT_CLIENT, 0, 1, 40, 1, &shares, &err), &err);
    assert_int_equal(shares->items[0].n_eval_records, 38); /* every ceil(450/40) = 12th */
    assert_int_equal(shares->items[0].eval_records[37], 37 * 12);
    linnet_shares_destroy(shares);
    linnet_dataset_destroy(data);
    linnet_dataset_destroy(eval);
}

static void iid_shares_are_equal_and_mixed(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_dataset *data = make_set(N_RECORDS, 4);
    linnet_shares *shares = NULL;
    assert_ok(linnet_shares_create(data, NULL, LINNET_SPLIT_IID, 0, 10, 0, 5, &shares, &err), &err);
    count_each_record_once(shares, N_RECORDS, 0);
    for (size_t d = 0; d < 10; d++) {
        size_t n_largest = 0;
        assert_int_equal(shares->items[d].n_records, N_RECORDS / 10);
        for (size_t i = 0; i < shares->items[d].n_records; i++)
            n_largest += strcmp(data->records[shares->items[d].records[i]].client, "c3") == 0;
        assert_in_range(n_largest, 25, 71); /* 40 % of 120 +- 4 sigma */
    }
    linnet_shares_destroy(shares);
    linnet_dataset_destroy(data);
}

/* Mean over devices of the largest label share: 1 where every device has one label. */
static double skew(const linnet_dataset *data, const linnet_shares *shares)
{
    double sum = 0;
    size_t n_devices = 0;
    for (size_t d = 0; d < shares->n_items; d++) {
        size_t counts[4] = {0}, largest = 0;
        for (size_t i = 0; i < shares->items[d].n_records; i++)
            counts[data->records[shares->items[d].records[i]].client[1] - '0']++;
        for (int c = 0; c < 4; c++)
            largest = counts[c] > largest ? counts[c] : largest;
        if (shares->items[d].n_records > 0) {
            sum += (double)largest / (double)shares->items[d].n_records;
            n_devices++;
        }
    }
    return sum / (double)n_devices;
}

static void a_small_dirichlet_alpha_is_more_skewed(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_dataset *data = make_set(N_RECORDS, 4);
    linnet_shares *narrow = NULL, *wide = NULL, *again = NULL;
    assert_ok(linnet_shares_create(data, NULL, LINNET_SPLIT_DIRICHLET, 0.05, 10, 0, 5, &narrow, &err), &err);
    assert_ok(linnet_shares_create(data, NULL, LINNET_SPLIT_DIRICHLET, 1000, 10, 0, 5, &wide, &err), &err);
    assert_ok(linnet_shares_create(data, NULL, LINNET_SPLIT_DIRICHLET, 0.05, 10, 0, 5, &again, &err), &err);
    count_each_record_once(narrow, N_RECORDS, 0);
    count_each_record_once(wide, N_RECORDS, 0);
    assert_true(skew(data, narrow) > 0.75);
    assert_true(skew(data, wide) < 0.5);
    for (size_t d = 0; d < 10; d++) {
        assert_int_equal(narrow->items[d].n_records, again->items[d].n_records);
        if (narrow->items[d].n_records > 0)
            assert_memory_equal(narrow->items[d].records, again->items[d].records,
                                narrow->items[d].n_records * sizeof(size_t));
    }
    linnet_shares_destroy(narrow);
    linnet_shares_destroy(wide);
    linnet_shares_destroy(again);
    linnet_dataset_destroy(data);
}

static void more_devices_than_clients_are_refused(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_dataset *data = make_set(100, 4);
    linnet_shares *shares = NULL;
    assert_int_equal(linnet_shares_create(data, NULL, LINNET_SPLIT_CLIENT, 0, 5, 0, 1, &shares, &err),
                     LINNET_ERR_RANGE);
    assert_non_null(strstr(err.message, "4 clients"));
    assert_int_equal(linnet_shares_create(data, NULL, LINNET_SPLIT_IID, 0, 101, 0, 1, &shares, &err),
                     LINNET_ERR_RANGE);
    assert_null(shares);
    linnet_dataset_destroy(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_client_every_device_has_its_own_records),
        cmocka_unit_test(the_largest_clients_with_evaluation_records_are_chosen),
        cmocka_unit_test(evaluation_records_are_thinned_evenly),
        cmocka_unit_test(iid_shares_are_equal_and_mixed),
        cmocka_unit_test(a_small_dirichlet_alpha_is_more_skewed),
        cmocka_unit_test(more_devices_than_clients_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
