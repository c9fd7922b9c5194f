/* SPDX-License-Identifier: Apache-2.0 */
/* The store: order, undoing, sharing of commits; and that a damaged row is an error, never a surprise. */
#include "testing.h"

#include "coordinator/rows.h"

#include <pthread.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/linnet-test-store-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    char command[64];
    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command);
}

static linnet_store *open_store(const char *name, bool create)
{
    char path[128];
    linnet_error err = {0};
    linnet_store *store = NULL;
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    (void)mkdir(path, 0700);
    assert_ok(linnet_store_open(path, create, false, &store, &err), &err);
    return store;
}

typedef struct counting {
    uint64_t add;
    linnet_status then; /* what the job returns after its writes */
    unsigned n_runs;
} counting;

static linnet_status add_to_counter(linnet_store_txn *txn, void *context, linnet_error *err)
{
    counting *job = context;
    uint64_t value;
    job->n_runs++;
    linnet_status status = linnet_config_get_u64(txn, "counter", &value, err);
    if (status == LINNET_OK)
        status = linnet_config_put_u64(txn, "counter", value + job->add, err);
    return status == LINNET_OK && job->then != LINNET_OK ? linnet_fail(err, job->then, "as the test wants")
                                                         : status;
}

static uint64_t counter(linnet_store *store)
{
    linnet_error err = {0};
    linnet_store_txn *txn = NULL;
    uint64_t value = 0;
    assert_ok(linnet_store_read_begin(store, &txn, &err), &err);
    assert_ok(linnet_config_get_u64(txn, "counter", &value, &err), &err);
    linnet_store_read_end(txn);
    return value;
}

static void a_failed_update_leaves_nothing(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_store *store = open_store("undo", true);
    counting good = {.add = 3}, bad = {.add = 100, .then = LINNET_ERR_DENIED};
    assert_ok(linnet_store_update(store, add_to_counter, &good, &err), &err);
    assert_int_equal(linnet_store_update(store, add_to_counter, &bad, &err), LINNET_ERR_DENIED);
    assert_int_equal(counter(store), 3);
    linnet_store_close(store);
    store = open_store("undo", false);
    assert_int_equal(counter(store), 3);
    linnet_store_close(store);
}

typedef struct worker {
    linnet_store *store;
    unsigned number, n_good, n_wrong;
} worker;

static void *work(void *context)
{
    worker *w = context;
    for (unsigned i = 0; i < 200; i++) {
        bool fails = (i + w->number) % 7 == 0;
        linnet_error err = {0};
        counting job = {.add = 1, .then = fails ? LINNET_ERR_DENIED : LINNET_OK};
        linnet_status status = linnet_store_update(w->store, add_to_counter, &job, &err);
        w->n_good += status == LINNET_OK;
        w->n_wrong += status != (fails ? LINNET_ERR_DENIED : LINNET_OK) || job.n_runs < 1 || job.n_runs > 2;
    }
    return NULL;
}

static void updates_of_many_threads_share_commits_and_spoil_no_other(void **state)
{
    (void)state;
    pthread_t threads[6];
    worker workers[6] = {{0}};
    uint64_t n_good = 0;
    linnet_store *store = open_store("group", true);
    for (unsigned i = 0; i < 6; i++) {
        workers[i] = (worker){.store = store, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(workers[i].n_wrong, 0);
        n_good += workers[i].n_good;
    }
    assert_int_equal(counter(store), n_good);
    linnet_store_close(store);
}

static linnet_status put_numbers(linnet_store_txn *txn, void *context, linnet_error *err)
{
    static const uint64_t numbers[] = {300, 2, 70000, 1, 255, 256};
    (void)context;
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        linnet_record_id id = linnet_record_number('o', numbers[i]),
                         other = linnet_record_number('p', numbers[i]);
        linnet_status status = linnet_store_put(txn, &id, &numbers[i], 8, err);
        if (status == LINNET_OK)
            status = linnet_store_put(txn, &other, "x", 1, err);
        if (status != LINNET_OK)
            return status;
    }
    linnet_record_id gone = linnet_record_number('o', 2);
    return linnet_store_delete(txn, &gone, err);
}

static linnet_status collect(void *context, const uint8_t *fields, size_t n_fields, const uint8_t *bytes,
                             size_t n_bytes, linnet_error *err)
{
    uint64_t **next = context;
    (void)err;
    (void)bytes;
    assert_int_equal(n_fields, 8);
    assert_int_equal(n_bytes, 8);
    *(*next)++ = linnet_load_be64(fields);
    return LINNET_OK;
}

static void a_walk_is_in_the_order_of_numbers_and_stays_in_its_table(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_store_txn *txn = NULL;
    uint64_t seen[8] = {0}, *next = seen;
    static const uint64_t want[] = {1, 255, 256, 300, 70000};
    linnet_record_id prefix = linnet_record_of('o'), none = linnet_record_of('q');
    linnet_store *store = open_store("walk", true);
    assert_ok(linnet_store_update(store, put_numbers, NULL, &err), &err);
    assert_ok(linnet_store_read_begin(store, &txn, &err), &err);
    assert_ok(linnet_store_each(txn, &prefix, collect, &next, &err), &err);
    assert_int_equal(next - seen, ARRAY_LEN(want));
    assert_memory_equal(seen, want, sizeof(want));
    assert_ok(linnet_store_each(txn, &none, collect, &next, &err), &err);
    assert_int_equal(next - seen, ARRAY_LEN(want));
    linnet_store_read_end(txn);
    linnet_store_close(store);
}

static void two_processes_see_each_others_commits(void **state)
{
    (void)state;
    linnet_error err = {0};
    int status = 0;
    counting job = {.add = 1};
    linnet_store *store = open_store("processes", true);
    linnet_store_close(store); /* no open environment across a fork */
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        store = open_store("processes", false);
        for (int i = 0; i < 50; i++)
            if (linnet_store_update(store, add_to_counter, &job, &err) != LINNET_OK)
                _exit(1);
        linnet_store_close(store);
        _exit(0);
    }
    store = open_store("processes", false);
    for (int i = 0; i < 50; i++)
        assert_ok(linnet_store_update(store, add_to_counter, &job, &err), &err);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(counter(store), 100);
    linnet_store_close(store);
}

/* ---- rows ---- */

/* Every strict prefix, and one byte more, is refused. */
#define assert_exact(row, unpack, out)                                                                       \
    do {                                                                                                     \
        for (size_t n_ = 0; n_ < (row).n_bytes; n_++)                                                        \
            assert_int_equal(unpack((row).bytes, n_, &(out)), LINNET_ERR_FORMAT);                            \
        assert_int_equal(unpack((row).bytes, (row).n_bytes, &(out)), LINNET_OK);                             \
        linnet_buffer_append_u8(&(row), 0);                                                                  \
        assert_int_equal(unpack((row).bytes, (row).n_bytes, &(out)), LINNET_ERR_FORMAT);                     \
        linnet_buffer_release(&(row));                                                                       \
    } while (0)

static void rows_come_back_as_they_went(void **state)
{
    (void)state;
    linnet_buffer bytes = {0};
    linnet_round_row round = {.state = LINNET_ROUND_FROZEN,
                              .number = 7,
                              .version = 5,
                              .invited = 9,
                              .joined = 8,
                              .accepted = 6,
                              .opened_ms = -1,
                              .deadline_ms = 1234567890123,
                              .has_loss_before = true,
                              .loss_before = 2.5},
                     round_back;
    linnet_round_row_pack(&round, &bytes);
    assert_exact(bytes, linnet_round_row_unpack, round_back);
    assert_int_equal(round_back.state, LINNET_ROUND_FROZEN);
    assert_int_equal(round_back.deadline_ms, 1234567890123);
    assert_int_equal(round_back.opened_ms, -1);
    assert_true(round_back.has_loss_before && !round_back.has_loss_after && round_back.loss_before > 2.4 &&
                round_back.loss_before < 2.6);
    round.state = LINNET_ROUND_OPENED;
    round.sharers = 7;
    round.aborts = 1;
    round.sum.bytes[0] = 9;
    linnet_round_row_pack(&round, &bytes);
    assert_exact(bytes, linnet_round_row_unpack, round_back);
    assert_int_equal(round_back.state, LINNET_ROUND_OPENED);
    assert_int_equal(round_back.sharers, 7);
    assert_int_equal(round_back.aborts, 1);
    assert_memory_equal(round_back.sum.bytes, round.sum.bytes, 32);
    linnet_token_row token = {.expires_s = 99, .secret = {1, 2, 3}}, token_back;
    linnet_token_row_pack(&token, &bytes);
    assert_exact(bytes, linnet_token_row_unpack, token_back);
    assert_memory_equal(token_back.secret, token.secret, sizeof(token.secret));
    linnet_device_row device = {.serial = 4, .rounds_accepted = 3, .is_revoked = true}, device_back;
    linnet_device_row_pack(&device, &bytes);
    assert_exact(bytes, linnet_device_row_unpack, device_back);
    assert_true(device_back.is_revoked && !device_back.has_certificate);
    linnet_contribution_row contribution = {.n_bytes = 77, .sequence = 2}, contribution_back;
    linnet_contribution_row_pack(&contribution, &bytes);
    assert_exact(bytes, linnet_contribution_row_unpack, contribution_back);
    assert_int_equal(contribution_back.sequence, 2);
    linnet_entry_row entry = {.type = LINNET_ENTRY_CLOSED, .round = 3}, entry_back;
    linnet_entry_row_pack(&entry, &bytes);
    assert_exact(bytes, linnet_entry_row_unpack, entry_back);
    assert_int_equal(entry_back.round, 3);
}

static void impossible_values_in_rows_are_refused(void **state)
{
    (void)state;
    linnet_buffer bytes = {0};
    linnet_round_row round = {.state = LINNET_ROUND_OPEN}, round_back;
    linnet_round_row_pack(&round, &bytes);
    static const uint8_t bad_states[] = {0, 9, 255};
    for (size_t i = 0; i < ARRAY_LEN(bad_states); i++) {
        bytes.bytes[0] = bad_states[i];
        assert_int_equal(linnet_round_row_unpack(bytes.bytes, bytes.n_bytes, &round_back), LINNET_ERR_FORMAT);
    }
    linnet_buffer_release(&bytes);
    linnet_round_row_pack(&round, &bytes); /* fields of secure aggregation that say nothing are left out */
    linnet_buffer_append(&bytes, (const uint8_t[4 + 4 + 32]){0}, 4 + 4 + 32);
    bytes.bytes[0] |= 0x80;
    assert_int_equal(linnet_round_row_unpack(bytes.bytes, bytes.n_bytes, &round_back), LINNET_ERR_FORMAT);
    linnet_buffer_release(&bytes);
    linnet_token_row token = {0}, token_back;
    linnet_token_row_pack(&token, &bytes);
    bytes.bytes[8] = 2; /* neither used nor unused */
    assert_int_equal(linnet_token_row_unpack(bytes.bytes, bytes.n_bytes, &token_back), LINNET_ERR_FORMAT);
    linnet_buffer_release(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_update_leaves_nothing),
        cmocka_unit_test(updates_of_many_threads_share_commits_and_spoil_no_other),
        cmocka_unit_test(a_walk_is_in_the_order_of_numbers_and_stays_in_its_table),
        cmocka_unit_test(two_processes_see_each_others_commits),
        cmocka_unit_test(rows_come_back_as_they_went),
        cmocka_unit_test(impossible_values_in_rows_are_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
