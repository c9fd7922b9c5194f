/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the ledger of privacy: it adds up over tasks and processes, and what is damaged costs the most. */
#include "linnet/file.h"
#include "linnet/budget_ledger.h"
#include "testing.h"

#include <math.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SLOT = 128 };

static char directory[64];

static int make_directory(void **state)
{
    (void)state;
    (void)snprintf(directory, sizeof(directory), "/tmp/linnet-ledger-XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
    (void)state;
    char command[96];
    (void)snprintf(command, sizeof(command), "rm -r '%s'", directory); /* made by mkdtemp above */
    return system(command);
}

static linnet_budget_ledger *open_ledger(void)
{
    linnet_budget_ledger *ledger = NULL;
    linnet_error err = {0};
    assert_ok(linnet_budget_ledger_open(directory, &ledger, &err), &err);
    return ledger;
}

/* A device-level round of multiplier z. */
static linnet_privacy_entry entry_of(uint64_t task, uint64_t round, double z)
{
    linnet_privacy_entry e = {.round = round,
                              .mechanism = LINNET_DP_DISTRIBUTED,
                              .unit = LINNET_DP_UNIT_DEVICE,
                              .noise_multiplier = z};
    linnet_store_le64(e.task, task);
    linnet_store_le64(e.device.bytes, task);
    linnet_store_le64(e.announcement.bytes, task);
    linnet_store_le64(e.announcement.bytes + 8, round);
    return e;
}

static void add(const linnet_privacy_entry *entry)
{
    linnet_budget_ledger *ledger = open_ledger();
    linnet_error err = {0};
    assert_ok(linnet_budget_ledger_add(ledger, entry, NULL, &err), &err);
    linnet_budget_ledger_close(ledger);
}

static linnet_privacy_total total_of(const linnet_privacy_entry *next)
{
    linnet_budget_ledger *ledger = open_ledger();
    linnet_privacy_total total = {0};
    linnet_error err = {0};
    assert_ok(linnet_budget_ledger_total(ledger, next, &total, &err), &err);
    linnet_budget_ledger_close(ledger);
    return total;
}

static void must_equal(const linnet_rdp *got, const linnet_rdp *want)
{
    for (size_t i = 0; i < LINNET_RENYI_ORDERS; i++)
        assert_true(fabs(got->at[i] - want->at[i]) <= 1e-12 * want->at[i]);
}

static void rounds_of_two_tasks_add_up(void **state)
{
    (void)state;
    linnet_rdp want = {{0}};
    for (uint64_t task = 1; task <= 2; task++)
        for (uint64_t round = 1; round <= 5; round++) {
            linnet_privacy_entry e = entry_of(task, round, (double)(task + round));
            add(&e);
            linnet_rdp_add_gaussian(&want, e.noise_multiplier);
        }
    linnet_privacy_entry records = entry_of(3, 1, 2);
    records.mechanism = LINNET_DP_RECORD_LOCAL;
    records.unit = LINNET_DP_UNIT_RECORD;
    records.probability = 0.05;
    records.n_steps = 40;
    add(&records);
    linnet_rdp_add_sampled(&want, 0.05, 2, 40);
    linnet_privacy_total total = total_of(NULL);
    assert_int_equal(total.n_entries, 11);
    assert_int_equal(total.n_damaged, 0);
    assert_true(total.has_device_unit && total.has_record_unit);
    must_equal(&total.rdp, &want);
}

static void one_round_counts_once_and_may_be_taken_back(void **state)
{
    (void)state;
    linnet_privacy_entry a = entry_of(1, 1, 3), b = entry_of(1, 2, 4);
    linnet_rdp want = {{0}};
    linnet_error err = {0};
    add(&a);
    add(&b);
    add(&a);
    assert_int_equal(total_of(NULL).n_entries, 2);
    linnet_budget_ledger *ledger = open_ledger();
    assert_ok(linnet_budget_ledger_take_back(ledger, &a, &err), &err);
    assert_ok(linnet_budget_ledger_take_back(ledger, &a, &err), &err);
    linnet_privacy_entry stranger = entry_of(9, 9, 1);
    assert_ok(linnet_budget_ledger_take_back(ledger, &stranger, &err), &err);
    linnet_budget_ledger_close(ledger);
    linnet_rdp_add_gaussian(&want, 4);
    linnet_privacy_total total = total_of(NULL);
    assert_int_equal(total.n_entries, 1);
    must_equal(&total.rdp, &want);
    add(&a); /* it left after all, in another try */
    assert_int_equal(total_of(NULL).n_entries, 2);
}

static void no_round_passes_the_limit(void **state)
{
    (void)state;
    linnet_privacy_limit limit = {.dp_delta = 1e-5};
    linnet_error err = {0};
    linnet_rdp three = {{0}};
    for (int i = 0; i < 3; i++)
        linnet_rdp_add_gaussian(&three, 5);
    limit.dp_epsilon_max = linnet_dp_epsilon(&three, limit.dp_delta, NULL) * 1.0001;
    linnet_budget_ledger *ledger = open_ledger();
    for (uint64_t round = 1; round <= 5; round++) {
        linnet_privacy_entry e = entry_of(round % 2, round, 5); /* of two tasks in turn */
        linnet_status status = linnet_budget_ledger_add(ledger, &e, &limit, &err);
        assert_int_equal(status, round <= 3 ? LINNET_OK : LINNET_ERR_DENIED);
    }
    assert_non_null(strstr(err.message, "epsilon"));
    linnet_budget_ledger_close(ledger);
    assert_int_equal(total_of(NULL).n_entries, 3);
}

static void damage(size_t at, uint8_t flip)
{
    char path[96];
    (void)snprintf(path, sizeof(path), "%s/privacy.ledger", directory);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
    int c = fgetc(file);
    assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
    assert_int_not_equal(fputc(c ^ flip, file), EOF);
    assert_int_equal(fclose(file), 0);
}

static void a_damaged_entry_counts_as_the_costliest(void **state)
{
    (void)state;
    for (size_t at = 0; at < SLOT; at++) { /* any byte of the newest */
        linnet_privacy_entry cheap = entry_of(1, 1, 9), dear = entry_of(1, 2, 2), newest = entry_of(1, 3, 9);
        linnet_rdp want = {{0}};
        assert_int_equal(make_directory(NULL), 0);
        add(&cheap);
        add(&dear);
        add(&newest);
        damage(2 * SLOT + at, 0x10);
        linnet_rdp_add_gaussian(&want, 9);
        linnet_rdp_add_gaussian(&want, 2);
        linnet_rdp_add_gaussian(&want, 2);
        linnet_privacy_total total = total_of(NULL);
        assert_int_equal(total.n_damaged, 1);
        assert_int_equal(total.n_entries, 3);
        must_equal(&total.rdp, &want);
        assert_int_equal(remove_directory(NULL), 0);
    }
    assert_int_equal(make_directory(NULL), 0);
}

static void a_torn_entry_counts_and_the_next_one_goes_behind_it(void **state)
{
    (void)state;
    for (size_t n = SLOT + 1; n < 2 * SLOT; n += 13) {
        char path[96];
        linnet_privacy_entry first = entry_of(1, 1, 5), torn = entry_of(1, 2, 5), next = entry_of(1, 3, 1);
        linnet_rdp want = {{0}};
        assert_int_equal(make_directory(NULL), 0);
        add(&first);
        add(&torn);
        (void)snprintf(path, sizeof(path), "%s/privacy.ledger", directory);
        assert_int_equal(truncate(path, (off_t)n), 0);
        linnet_rdp_add_gaussian(&want, 5);
        linnet_rdp_add_gaussian(&want, 1); /* the one that is about to be added may be what was torn */
        linnet_privacy_total total = total_of(&next);
        must_equal(&total.rdp, &want);
        add(&next);
        linnet_rdp_add_gaussian(&want, 1);
        total = total_of(NULL);
        must_equal(&total.rdp, &want);
        assert_int_equal(total.n_damaged, 1);
        assert_int_equal(remove_directory(NULL), 0);
    }
    assert_int_equal(make_directory(NULL), 0);
}

static void a_ledger_of_nothing_but_damage_bounds_nothing(void **state)
{
    (void)state;
    linnet_privacy_entry e = entry_of(1, 1, 5);
    add(&e);
    damage(20, 1);
    linnet_privacy_total total = total_of(NULL);
    assert_true(isinf(linnet_dp_epsilon(&total.rdp, 1e-5, NULL)));
}

/* Two processes that add at once: neither loses an entry, and together they keep the limit. */
static void two_processes_share_one_ledger(void **state)
{
    (void)state;
    enum { EACH = 20 };
    pid_t child = fork();
    assert_true(child >= 0);
    for (uint64_t round = 1; round <= EACH; round++) {
        linnet_privacy_entry e = entry_of(child == 0 ? 1 : 2, round, 50);
        add(&e);
    }
    if (child == 0)
        _exit(0);
    int result = -1;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_int_equal(result, 0);
    assert_int_equal(total_of(NULL).n_entries, 2 * EACH);
    assert_int_equal(total_of(NULL).n_damaged, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rounds_of_two_tasks_add_up, make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(one_round_counts_once_and_may_be_taken_back, make_directory,
                                        remove_directory),
        cmocka_unit_test_setup_teardown(no_round_passes_the_limit, make_directory, remove_directory),
        cmocka_unit_test_teardown(a_damaged_entry_counts_as_the_costliest, remove_directory),
        cmocka_unit_test_teardown(a_torn_entry_counts_and_the_next_one_goes_behind_it, remove_directory),
        cmocka_unit_test_setup_teardown(a_ledger_of_nothing_but_damage_bounds_nothing, make_directory,
                                        remove_directory),
        cmocka_unit_test_setup_teardown(two_processes_share_one_ledger, make_directory, remove_directory),
    };
    if (linnet_crypto_init(NULL) != LINNET_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
