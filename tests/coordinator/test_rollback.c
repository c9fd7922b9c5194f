/* SPDX-License-Identifier: Apache-2.0 */
/* Going back to an older adapter: versions rise, devices follow, momentum is forgotten, what was under way is
 * void; at any moment, and over restarts. */
#include "fixture.h"

#include "coordinator/state.h"
#include "linnet/file.h"

#include <dirent.h>
#include <unistd.h>

#define DEVICES 3

static linnet_plan rollback_plan(void)
{
    linnet_plan plan = scene_plan();
    plan.rounds = 6;
    plan.goal = plan.minimum = DEVICES;
    plan.over_selection = 1;
    plan.server_optimizer = LINNET_SERVER_FEDAVGM;
    plan.server_momentum = 0.5;
    return plan;
}

static void play_round(scene *s, device *d)
{
    for (size_t i = 0; i < DEVICES; i++)
        device_contribute(&d[i]);
    (void)scene_tick(s);
}

static linnet_hash release_adapter(scene *s, uint64_t version, linnet_hash *ret_state)
{
    linnet_error err = {0};
    linnet_store_txn *txn = NULL;
    linnet_release_row row;
    assert_ok(linnet_store_read_begin(s->coordinator->store, &txn, &err), &err);
    assert_ok(linnet_release_get(txn, version, &row, &err), &err);
    linnet_store_read_end(txn);
    if (ret_state)
        *ret_state = row.server_state;
    return row.adapter;
}

static void assert_entries(scene *s, const char *const *types, size_t n_types)
{
    linnet_error err = {0};
    linnet_audit_entry *entries = NULL;
    size_t n = 0;
    assert_ok(linnet_coordinator_audit(s->coordinator, &entries, &n, &err), &err);
    assert_true(n >= n_types);
    for (size_t i = 0; i < n; i++)
        if (entries[i].flaw)
            fail_msg("%s %llu: %s", entries[i].type, (unsigned long long)entries[i].number, entries[i].flaw);
    for (size_t i = 0; i < n_types; i++)
        assert_string_equal(entries[n - n_types + i].type, types[i]);
    free(entries);
}

/* How many files the server optimiser has. */
static size_t count_states(const scene *s)
{
    char path[4096];
    size_t n = 0;
    assert_true(linnet_coordinator_path(s->coordinator, path, "server"));
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (const struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
        n += entry->d_name[0] != '.';
    (void)closedir(dir);
    return n;
}

static bool has_state(const scene *s, const linnet_hash *name)
{
    char path[4096], hex[2 * LINNET_HASH_BYTES + 1];
    linnet_hex_write(name->bytes, sizeof(name->bytes), hex);
    assert_true(linnet_coordinator_path(s->coordinator, path, "server/%s", hex));
    return access(path, F_OK) == 0;
}

static void put_state(const scene *s, const char *name)
{
    char path[4096];
    linnet_error err = {0};
    assert_true(linnet_coordinator_path(s->coordinator, path, "server/%s", name));
    assert_ok(linnet_file_write(path, "left", 4, 0600, &err), &err);
}

/* There is one file of momentum, that which the newest release names: after a step, a rollback, and whatever
 * a crash has left. */
static void momentum_that_no_release_needs_is_erased(void **state)
{
    (void)state;
    scene s;
    device d[DEVICES];
    linnet_error err = {0};
    uint64_t version = 0;
    linnet_hash name;
    linnet_plan plan = rollback_plan();
    scene_begin(&s, &plan);
    devices_begin(d, DEVICES, &s);
    for (uint64_t v = 1; v <= 2; v++) {
        play_round(&s, d);
        (void)release_adapter(&s, v, &name);
        assert_true(has_state(&s, &name));
        assert_int_equal(count_states(&s), 1);
    }
    assert_ok(linnet_coordinator_rollback(s.coordinator, UINT64_MAX, s.now_ms, &version, &err), &err);
    assert_int_equal(count_states(&s), 0);
    play_round(&s, d); /* anew */
    (void)release_adapter(&s, 4, &name);
    assert_true(has_state(&s, &name));
    put_state(&s, "0123456789abcdef"); /* written by a step that was never published */
    put_state(&s, "half.tmp");
    scene_reopen(&s);
    assert_true(has_state(&s, &name));
    assert_int_equal(count_states(&s), 1);
    put_state(&s, "0123456789abcdef"); /* a rollback beside this process made its step stale */
    play_round(&s, d);
    (void)release_adapter(&s, 5, &name);
    assert_true(has_state(&s, &name));
    assert_int_equal(count_states(&s), 1);
    devices_end(d, DEVICES);
    scene_end(&s);
}

static void an_older_adapter_is_released_as_the_next_version(void **state)
{
    (void)state;
    static const linnet_hash none;
    scene s;
    device d[DEVICES];
    linnet_error err = {0};
    uint64_t version = 0;
    linnet_hash kept;
    linnet_plan plan = rollback_plan();
    scene_begin(&s, &plan);
    devices_begin(d, DEVICES, &s);
    play_round(&s, d);
    play_round(&s, d);
    linnet_hash one = release_adapter(&s, 1, NULL);
    device_join(&d[0]); /* round 3 is under way */
    device_encode(&d[0]);
    (void)device_upload_part(&d[0], 0, 20);
    assert_ok(linnet_coordinator_rollback(s.coordinator, UINT64_MAX, s.now_ms, &version, &err), &err);
    assert_int_equal(version, 3);
    scene_reopen(&s);
    linnet_hash now = release_adapter(&s, 3, &kept);
    assert_memory_equal(now.bytes, one.bytes, sizeof(one.bytes));
    assert_memory_equal(kept.bytes, none.bytes, sizeof(none.bytes)); /* no momentum */
    assert_string_equal(scene_round(&s, 3).state, "void");
    assert_int_equal(scene_status(&s).round, 4);
    assert_string_equal(scene_status(&s).round_state, "open");
    static const char *const types[] = {"void", "rollback", "release", "announce"};
    assert_entries(&s, types, ARRAY_LEN(types));
    /* the upload under way is refused, and the devices follow */
    assert_int_equal(device_upload_part(&d[0], 20, d[0].packed.n_bytes - 20), LINNET_ANSWER_GONE);
    play_round(&s, d);
    assert_int_equal(d[0].announcement.round, 4);
    assert_string_equal(scene_round(&s, 4).state, "closed");
    assert_int_equal(scene_status(&s).version, 4);
    assert_false(scene_round(&s, 2).has_loss_after); /* its adapter was never trained from */
    devices_end(d, DEVICES);
    scene_end(&s);
}

static void any_older_version_can_come_back(void **state)
{
    (void)state;
    scene s;
    device d[DEVICES];
    linnet_error err = {0};
    uint64_t version = 0;
    linnet_plan plan = rollback_plan();
    scene_begin(&s, &plan);
    devices_begin(d, DEVICES, &s);
    assert_int_equal(linnet_coordinator_rollback(s.coordinator, UINT64_MAX, s.now_ms, &version, &err),
                     LINNET_ERR_NOT_FOUND);
    play_round(&s, d);
    play_round(&s, d);
    linnet_hash first = release_adapter(&s, 0, NULL), second = release_adapter(&s, 2, NULL);
    assert_int_equal(linnet_coordinator_rollback(s.coordinator, 2, s.now_ms, &version, &err),
                     LINNET_ERR_NOT_FOUND);
    assert_int_equal(linnet_coordinator_rollback(s.coordinator, 7, s.now_ms, &version, &err),
                     LINNET_ERR_NOT_FOUND);
    assert_int_equal(scene_status(&s).version, 2); /* a refusal changes nothing */
    assert_ok(linnet_coordinator_rollback(s.coordinator, 0, s.now_ms, &version, &err), &err);
    linnet_hash now = release_adapter(&s, 3, NULL);
    assert_memory_equal(now.bytes, first.bytes, sizeof(first.bytes));
    assert_int_equal(linnet_coordinator_rollback(s.coordinator, 0, s.now_ms, &version, &err), LINNET_ERR_ARG);
    /* back from the way back */
    assert_ok(linnet_coordinator_rollback(s.coordinator, UINT64_MAX, s.now_ms, &version, &err), &err);
    assert_int_equal(version, 4);
    now = release_adapter(&s, 4, NULL);
    assert_memory_equal(now.bytes, second.bytes, sizeof(second.bytes));
    static const char *const types[] = {"void", "rollback", "release", "announce"};
    assert_entries(&s, types, ARRAY_LEN(types));
    devices_end(d, DEVICES);
    scene_end(&s);
}

/* The gate is where a round is between frozen and published: another process rolls back just then. */
static linnet_status roll_back_now(void *context, const linnet_adapter *adapter, double *ret_loss,
                                   linnet_error *err)
{
    scene *s = context;
    uint64_t version = 0;
    (void)adapter;
    *ret_loss = 1;
    return scene_status(s).version == 1
               ? linnet_coordinator_rollback(s->coordinator, 0, s->now_ms, &version, err)
               : LINNET_OK;
}

static void a_round_that_was_about_to_be_published_is_let_go(void **state)
{
    (void)state;
    scene s;
    device d[DEVICES];
    linnet_plan plan = rollback_plan();
    plan.gate_tolerance = 2;
    scene_begin(&s, &plan);
    devices_begin(d, DEVICES, &s);
    linnet_hash first = release_adapter(&s, 0, NULL);
    linnet_coordinator_set_gate(s.coordinator, roll_back_now, &s);
    play_round(&s, d);
    assert_int_equal(scene_status(&s).version, 1);
    play_round(&s, d);
    assert_string_equal(scene_round(&s, 2).state, "void");
    assert_int_equal(scene_status(&s).version, 2);
    linnet_hash now = release_adapter(&s, 2, NULL);
    assert_memory_equal(now.bytes, first.bytes, sizeof(first.bytes));
    play_round(&s, d);
    assert_string_equal(scene_round(&s, 3).state, "closed");
    static const char *const types[] = {"closed", "release", "announce"};
    assert_entries(&s, types, ARRAY_LEN(types));
    devices_end(d, DEVICES);
    scene_end(&s);
}

static void a_finished_task_can_go_back(void **state)
{
    (void)state;
    scene s;
    device d[DEVICES];
    linnet_error err = {0};
    uint64_t version = 0;
    linnet_plan plan = rollback_plan();
    plan.rounds = 2;
    scene_begin(&s, &plan);
    devices_begin(d, DEVICES, &s);
    play_round(&s, d);
    play_round(&s, d);
    assert_true(scene_status(&s).is_finished);
    assert_ok(linnet_coordinator_rollback(s.coordinator, UINT64_MAX, s.now_ms, &version, &err), &err);
    assert_int_equal(version, 3);
    assert_true(scene_status(&s).is_finished);
    assert_int_equal(scene_status(&s).round, 2); /* no round opens */
    device_poll(&d[0]);
    assert_int_equal(d[0].version, 3);
    static const char *const types[] = {"closed", "release", "rollback", "release"};
    assert_entries(&s, types, ARRAY_LEN(types));
    devices_end(d, DEVICES);
    scene_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(momentum_that_no_release_needs_is_erased),
        cmocka_unit_test(an_older_adapter_is_released_as_the_next_version),
        cmocka_unit_test(any_older_version_can_come_back),
        cmocka_unit_test(a_round_that_was_about_to_be_published_is_let_go),
        cmocka_unit_test(a_finished_task_can_go_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
