/* SPDX-License-Identifier: Apache-2.0 */
/* Kills, full disks and failing fsyncs, at every single write (faults.h). The number of the call that fails
 * runs from 1 until a run needs fewer calls: every durable write is hit, without a clock. After each fault
 * the state must lead to the very adapter of an undisturbed run, with every acknowledged contribution counted
 * once. */
#include "faults.h"
#include "fixture.h"

#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#define DEVICES 2
#define ROUNDS 2

/* ---- a fleet that goes on whatever happens ---- */

/* Receipts, in memory shared with a child that dies. */
typedef struct receipts {
    bool is_acknowledged[ROUNDS + 1][DEVICES];
    linnet_hash echo[ROUNDS + 1][DEVICES];
} receipts;

static receipts *receipts_create(void)
{
    receipts *r = mmap(NULL, sizeof(*r), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(r != MAP_FAILED);
    return r;
}

static linnet_plan fault_plan(void)
{
    linnet_plan plan = scene_plan();
    plan.rounds = ROUNDS;
    plan.goal = plan.minimum = DEVICES;
    plan.over_selection = 1;
    plan.deadline_s = 86400;
    plan.rule = LINNET_RULE_FEDAVG;
    plan.server_optimizer = LINNET_SERVER_FEDAVGM;
    plan.server_momentum = 0.9;
    return plan;
}

/* One visit of every device and a tick. False: the coordinator says its disk is unknown. */
static bool fleet_turn(scene *s, device *d, receipts *r)
{
    linnet_error err = {0};
    int64_t next_ms;
    for (size_t i = 0; i < DEVICES; i++)
        if (device_visit(&d[i])) {
            r->echo[d[i].announcement.round][i] = d[i].echo;
            r->is_acknowledged[d[i].announcement.round][i] = true;
        }
    s->now_ms += 1000;
    return linnet_coordinator_tick(s->coordinator, s->now_ms, &next_ms, &err) == LINNET_OK;
}

static bool fleet_is_finished(scene *s)
{
    linnet_coordinator_report report;
    return linnet_coordinator_status(s->coordinator, &report, NULL) == LINNET_OK && report.is_finished;
}

/* To the end of the task; false where that takes too long or the coordinator gives up. */
static bool fleet_run(scene *s, device *d, receipts *r)
{
    for (int turn = 0; turn < 100 && !fleet_is_finished(s); turn++)
        if (!fleet_turn(s, d, r))
            return false;
    return fleet_is_finished(s);
}

/* Every receipt that was given names a contribution that is there, and nothing is there twice. */
static void assert_nothing_lost(scene *s, const device *d, const receipts *r, bool is_complete)
{
    linnet_error err = {0};
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        linnet_contribution_report *list = NULL;
        size_t n = 0;
        assert_ok(linnet_coordinator_contributions(s->coordinator, round, &list, &n, &err), &err);
        assert_true(n <= DEVICES && (!is_complete || n == DEVICES));
        for (size_t i = 0; i < DEVICES; i++) {
            bool is_there = false;
            for (size_t j = 0; j < n; j++)
                is_there = is_there || (memcmp(&list[j].device_id, &d[i].id, sizeof(d[i].id)) == 0 &&
                                        linnet_hash_equal(&list[j].echo, &r->echo[round][i]));
            if (r->is_acknowledged[round][i] && !is_there)
                fail_msg("round %d: the receipt of device %zu names a contribution that is gone", (int)round,
                         i);
        }
        free(list);
    }
}

static linnet_hash undisturbed(void)
{
    scene s;
    device d[DEVICES];
    receipts *r = receipts_create();
    linnet_plan plan = fault_plan();
    scene_begin(&s, &plan);
    devices_begin(d, DEVICES, &s);
    assert_true(fleet_run(&s, d, r));
    assert_nothing_lost(&s, d, r, true);
    linnet_hash adapter = scene_status(&s).adapter;
    devices_end(d, DEVICES);
    scene_end(&s);
    (void)munmap(r, sizeof(*r));
    return adapter;
}

/* ---- the tests ---- */

/* The child's life: open, work, die at the kill_at-th call, or end with 0. */
static void child_run(scene *s, device *d, receipts *r, long kill_at)
{
    faults.kill_at = kill_at;
    faults.is_armed = true;
    scene_open(s);
    bool done = fleet_run(s, d, r);
    scene_close(s);
    _exit(done ? 0 : 1);
}

/* One life with a kill, then the rest in peace. False: the run ended before the kill. */
static bool kill_and_go_on(long kill_at, const linnet_hash *want)
{
    scene s;
    device d[DEVICES];
    int status = 0;
    receipts *r = receipts_create();
    linnet_plan plan = fault_plan();
    scene_begin(&s, &plan);
    devices_begin(d, DEVICES, &s);
    scene_close(&s); /* no open environment across a fork */
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        child_run(&s, d, r, kill_at);
    assert_int_equal(waitpid(child, &status, 0), child);
    bool was_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    assert_true(was_killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
    scene_open(&s);
    assert_nothing_lost(&s, d, r, false);
    if (!fleet_run(&s, d, r))
        fail_msg("killed at write %ld: the task does not go on", kill_at);
    assert_nothing_lost(&s, d, r, true);
    linnet_hash adapter = scene_status(&s).adapter;
    if (!linnet_hash_equal(&adapter, want))
        fail_msg("killed at write %ld: another adapter", kill_at);
    devices_end(d, DEVICES);
    scene_end(&s);
    (void)munmap(r, sizeof(*r));
    return was_killed;
}

static void a_kill_at_any_write_changes_nothing(void **state)
{
    (void)state;
    linnet_hash want = undisturbed();
    long n = 1;
    while (kill_and_go_on(n, &want))
        n++;
    assert_true(n > 50); /* the faults do reach the store */
    print_message("killed at each of %ld writes\n", n - 1);
}

/* The disk is full for five writes from the n-th on. False: the run needed fewer. */
static bool fill_and_go_on(long full_from, const linnet_hash *want)
{
    scene s;
    device d[DEVICES];
    receipts *r = receipts_create();
    linnet_plan plan = fault_plan();
    scene_begin(&s, &plan);
    devices_begin(d, DEVICES, &s);
    memset(&faults, 0, sizeof(faults));
    faults.full_from = full_from;
    faults.full_to = full_from + 5;
    faults.is_armed = true;
    bool done = fleet_run(&s, d, r);
    bool was_hit = faults.n_calls >= full_from;
    faults.is_armed = false;
    if (!done)
        fail_msg("full at write %ld: the task does not go on", full_from);
    assert_nothing_lost(&s, d, r, true);
    linnet_hash adapter = scene_status(&s).adapter;
    if (!linnet_hash_equal(&adapter, want))
        fail_msg("full at write %ld: another adapter", full_from);
    devices_end(d, DEVICES);
    scene_end(&s);
    (void)munmap(r, sizeof(*r));
    return was_hit;
}

static void a_full_disk_loses_nothing_and_passes(void **state)
{
    (void)state;
    linnet_hash want = undisturbed();
    long n = 1;
    while (fill_and_go_on(n, &want))
        n++;
    assert_true(n > 20);
    print_message("full at each of %ld writes\n", n - 1);
}

/* The n-th fsync fails: nothing more is answered, and a new start goes on. False: the run needed fewer. */
static bool fail_sync_and_go_on(long sync_fails_at, const linnet_hash *want)
{
    scene s;
    device d[DEVICES];
    receipts *r = receipts_create();
    linnet_plan plan = fault_plan();
    linnet_error err = {0};
    int64_t next_ms;
    scene_begin(&s, &plan);
    devices_begin(d, DEVICES, &s);
    memset(&faults, 0, sizeof(faults));
    faults.sync_fails_at = sync_fails_at;
    faults.is_armed = true;
    bool done = fleet_run(&s, d, r);
    bool was_hit = faults.n_syncs >= sync_fails_at;
    faults.is_armed = false;
    if (done == was_hit)
        fail_msg("fsync %ld: went on after a failure", sync_fails_at);
    if (was_hit) {
        assert_int_equal(scene_exchange(&s, "GET", LINNET_PATH_HELLO, NULL, 0, NULL), 503);
        assert_int_equal(linnet_coordinator_tick(s.coordinator, s.now_ms, &next_ms, &err), LINNET_ERR_IO);
    }
    scene_reopen(&s);
    assert_nothing_lost(&s, d, r, false);
    assert_true(fleet_run(&s, d, r));
    assert_nothing_lost(&s, d, r, true);
    linnet_hash adapter = scene_status(&s).adapter;
    assert_memory_equal(adapter.bytes, want->bytes, 32);
    devices_end(d, DEVICES);
    scene_end(&s);
    (void)munmap(r, sizeof(*r));
    return was_hit;
}

static void a_failed_fsync_ends_the_process_and_loses_nothing(void **state)
{
    (void)state;
    linnet_hash want = undisturbed();
    long n = 1;
    while (fail_sync_and_go_on(n, &want))
        n++;
    assert_true(n > 10);
    print_message("failed at each of %ld fsyncs\n", n - 1);
}

/* ---- a real small disk ---- */

#define DISK_BYTES "size=16m"

static linnet_plan large_plan(void)
{
    linnet_plan plan = fault_plan();
    plan.rank = 256; /* contributions of half a megabyte */
    plan.rule = LINNET_RULE_FFA;
    plan.server_optimizer = LINNET_SERVER_FEDAVG;
    return plan;
}

static linnet_hash play_on(const char *parent, long leave_bytes, bool *ret_was_full)
{
    scene s;
    device d[DEVICES];
    char filler[160];
    struct statvfs disk;
    receipts *r = receipts_create();
    linnet_plan plan = large_plan();
    scene_begin_in(&s, parent, &plan, 512);
    devices_begin(d, DEVICES, &s);
    for (size_t i = 0; i < DEVICES; i++)
        device_poll(&d[i]);
    (void)snprintf(filler, sizeof(filler), "%s/filler", s.folder);
    if (leave_bytes >= 0) {
        assert_int_equal(statvfs(s.folder, &disk), 0);
        int fd = open(filler, O_RDWR | O_CREAT, 0600);
        assert_true(fd >= 0);
        assert_int_equal(posix_fallocate(fd, 0, (off_t)(disk.f_bavail * disk.f_frsize) - leave_bytes), 0);
        (void)close(fd);
        *ret_was_full = false;
        for (int turn = 0; turn < 3; turn++) {
            assert_true(fleet_turn(&s, d, r)); /* it says so, and stays */
            for (size_t i = 0; i < DEVICES; i++)
                *ret_was_full = *ret_was_full || d[i].answer.code == LINNET_ANSWER_NO_SPACE;
        }
        assert_int_equal(scene_exchange(&s, "GET", LINNET_PATH_HELLO, NULL, 0, NULL), 200);
        assert_int_equal(unlink(filler), 0);
    }
    assert_true(fleet_run(&s, d, r));
    assert_nothing_lost(&s, d, r, true);
    linnet_hash adapter = scene_status(&s).adapter;
    devices_end(d, DEVICES);
    scene_end(&s);
    (void)munmap(r, sizeof(*r));
    return adapter;
}

static void a_small_disk_fills_and_is_cleared(void **state)
{
    (void)state;
    static const long leaves[] = {0, 65536, (1 << 20) + 20000, (4 << 20) + 400000, (4 << 20) + 900000};
    char folder[] = "/tmp/linnet-test-disk-XXXXXX";
    assert_non_null(mkdtemp(folder));
    if (mount("linnet-test", folder, "tmpfs", 0, DISK_BYTES) != 0) {
        print_message("needs the right to mount a small file system, which is not given here\n");
        (void)rmdir(folder);
        skip();
    }
    bool was_full = false;
    linnet_hash want = play_on("/tmp", -1, &was_full);
    for (size_t i = 0; i < ARRAY_LEN(leaves); i++) {
        linnet_hash got = play_on(folder, leaves[i], &was_full);
        if (!was_full || !linnet_hash_equal(&got, &want))
            fail_msg("%ld bytes left: full %d, or another adapter", leaves[i], was_full);
    }
    assert_int_equal(umount(folder), 0);
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kill_at_any_write_changes_nothing),
        cmocka_unit_test(a_full_disk_loses_nothing_and_passes),
        cmocka_unit_test(a_failed_fsync_ends_the_process_and_loses_nothing),
        cmocka_unit_test(a_small_disk_fills_and_is_cleared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
