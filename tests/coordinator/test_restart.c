/* SPDX-License-Identifier: Apache-2.0 */
/* The result depends on the contributions alone: not on restarts between any two steps, not on the order in
 * which devices come, not on how many threads carry them. */
#include "fixture.h"

#include "coordinator/rows.h"

#include <pthread.h>
#include <sched.h>

#define DEVICES 3

static linnet_plan restart_plan(void)
{
    linnet_plan plan = scene_plan();
    plan.rounds = 2;
    plan.goal = plan.minimum = DEVICES;
    plan.over_selection = 1;
    plan.deadline_s = 86400;
    return plan;
}

/* The script in single steps; `at` is reopened after. SIZE_MAX - 1: after each. Returns the number of steps.
 */
typedef struct script {
    scene scene;
    device devices[DEVICES];
    size_t n_steps, reopen_at;
} script;

#define REOPEN_ALWAYS (SIZE_MAX - 1)
#define REOPEN_NEVER SIZE_MAX

static void step(script *s)
{
    if (s->n_steps == s->reopen_at || s->reopen_at == REOPEN_ALWAYS)
        scene_reopen(&s->scene);
    s->n_steps++;
}

static void play_device(script *s, device *d)
{
    device_poll(d);
    step(s);
    assert_int_equal(device_ask(d), LINNET_ANSWER_OK);
    assert_true(d->has_round);
    step(s);
    device_encode(d);
    size_t part = d->packed.n_bytes / 2;
    assert_int_equal(device_upload_part(d, 0, part), LINNET_ANSWER_OK);
    assert_int_equal(d->answer.next_offset, part);
    step(s);
    assert_int_equal(device_upload_part(d, part, d->packed.n_bytes - part), LINNET_ANSWER_OK);
    assert_receipt(d);
    step(s);
}

/* Both rounds; order rotates which device comes first. */
static linnet_hash play(size_t reopen_at, size_t order, size_t *ret_n_steps)
{
    script *s = calloc(1, sizeof(*s));
    linnet_plan plan = restart_plan();
    assert_non_null(s);
    s->reopen_at = reopen_at;
    scene_begin(&s->scene, &plan);
    devices_begin(s->devices, DEVICES, &s->scene);
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < DEVICES; i++)
            play_device(s, &s->devices[(i + order) % DEVICES]);
        (void)scene_tick(&s->scene);
        step(s);
    }
    linnet_coordinator_report report = scene_status(&s->scene);
    assert_true(report.is_finished);
    if (ret_n_steps)
        *ret_n_steps = s->n_steps;
    devices_end(s->devices, DEVICES);
    scene_end(&s->scene);
    free(s);
    return report.adapter;
}

static void a_restart_between_any_two_steps_changes_no_bit(void **state)
{
    (void)state;
    size_t n_steps = 0;
    linnet_hash want = play(REOPEN_NEVER, 0, &n_steps);
    assert_int_equal(n_steps, 2 * (4 * DEVICES + 1));
    for (size_t at = 0; at < n_steps; at++) {
        linnet_hash got = play(at, 0, NULL);
        if (!linnet_hash_equal(&got, &want))
            fail_msg("restarted after step %zu: another adapter", at);
    }
    linnet_hash always = play(REOPEN_ALWAYS, 0, NULL);
    assert_memory_equal(always.bytes, want.bytes, 32);
}

static void the_order_of_arrival_changes_no_bit(void **state)
{
    (void)state;
    linnet_hash want = play(REOPEN_NEVER, 0, NULL);
    for (size_t order = 1; order < DEVICES; order++) {
        linnet_hash got = play(REOPEN_NEVER, order, NULL);
        assert_memory_equal(got.bytes, want.bytes, 32);
    }
}

typedef struct carrier {
    device *device;
    unsigned n_receipts;
} carrier;

static void *carry(void *context)
{
    carrier *c = context;
    for (int turn = 0; turn < 100000 && c->n_receipts < 2; turn++) {
        c->n_receipts += device_visit(c->device);
        (void)sched_yield();
    }
    return NULL;
}

static void many_threads_at_once_change_no_bit(void **state)
{
    (void)state;
    linnet_hash want = play(REOPEN_NEVER, 0, NULL);
    scene s;
    device d[DEVICES];
    pthread_t threads[DEVICES];
    carrier carriers[DEVICES];
    linnet_plan plan = restart_plan();
    scene_begin(&s, &plan);
    devices_begin(d, DEVICES, &s);
    for (size_t i = 0; i < DEVICES; i++) {
        carriers[i] = (carrier){.device = &d[i]};
        assert_int_equal(pthread_create(&threads[i], NULL, carry, &carriers[i]), 0);
    }
    while (!scene_status(&s).is_finished) {
        (void)scene_tick(&s);
        (void)sched_yield();
    }
    for (size_t i = 0; i < DEVICES; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(carriers[i].n_receipts, 2);
    }
    linnet_hash got = scene_status(&s).adapter;
    assert_memory_equal(got.bytes, want.bytes, 32);
    devices_end(d, DEVICES);
    scene_end(&s);
}

static void only_one_process_serves(void **state)
{
    (void)state;
    scene s;
    linnet_error err = {0};
    linnet_coordinator *second = NULL;
    const linnet_coordinator_options options = {.serve = true};
    linnet_plan plan = restart_plan();
    scene_begin(&s, &plan);
    assert_int_equal(linnet_coordinator_open(s.state, &options, s.now_ms, &second, &err), LINNET_ERR_BUSY);
    scene_end(&s);
}

static void a_start_sweeps_what_a_crash_left(void **state)
{
    (void)state;
    scene s;
    device d[DEVICES];
    char old[300], file[200];
    linnet_plan plan = restart_plan();
    scene_begin(&s, &plan);
    devices_begin(d, DEVICES, &s);
    for (size_t i = 0; i < DEVICES; i++)
        device_contribute(&d[i]);
    (void)scene_tick(&s);
    device_join(&d[0]);
    device_encode(&d[0]);
    (void)device_upload_part(&d[0], 0, 30);
    scene_close(&s);
    (void)snprintf(old, sizeof(old), "mkdir -p %s/spool/1 && echo x > %s/spool/1/left", s.state, s.state);
    assert_int_equal(system(old), 0);
    (void)snprintf(file, sizeof(file), "%s/spool/1", s.state);
    assert_int_equal(access(file, F_OK), 0);
    scene_open(&s);
    assert_int_equal(access(file, F_OK), -1);
    (void)device_upload_part(&d[0], 0, 0); /* the open round's spool stays */
    assert_int_equal(d[0].answer.next_offset, 30);
    devices_end(d, DEVICES);
    scene_end(&s);
}

static linnet_status put_newer_format(linnet_store_txn *txn, void *context, linnet_error *err)
{
    const uint64_t *format = context;
    return linnet_config_put_u64(txn, "format", *format, err);
}

static void a_newer_or_unfinished_store_is_refused(void **state)
{
    (void)state;
    static const struct {
        uint64_t format;
        linnet_status want;
    } cases[] = {{LINNET_STORE_FORMAT + 1, LINNET_ERR_UNSUPPORTED}, {0, LINNET_ERR_FORMAT}};
    scene s;
    char path[128];
    linnet_error err = {0};
    linnet_plan plan = restart_plan();
    const linnet_coordinator_options options = {.serve = true};
    scene_begin(&s, &plan);
    scene_close(&s);
    (void)snprintf(path, sizeof(path), "%s/store", s.state);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_store *store = NULL;
        uint64_t format = cases[i].format;
        assert_ok(linnet_store_open(path, false, false, &store, &err), &err);
        assert_ok(linnet_store_update(store, put_newer_format, &format, &err), &err);
        linnet_store_close(store);
        assert_int_equal(linnet_coordinator_open(s.state, &options, s.now_ms, &s.coordinator, &err),
                         cases[i].want);
    }
    scene_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_restart_between_any_two_steps_changes_no_bit),
        cmocka_unit_test(the_order_of_arrival_changes_no_bit),
        cmocka_unit_test(many_threads_at_once_change_no_bit),
        cmocka_unit_test(only_one_process_serves),
        cmocka_unit_test(a_start_sweeps_what_a_crash_left),
        cmocka_unit_test(a_newer_or_unfinished_store_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
