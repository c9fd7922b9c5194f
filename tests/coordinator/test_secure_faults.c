/* SPDX-License-Identifier: Apache-2.0 */
/* Kills, full disks and failing fsyncs at every single write of a whole round with secure aggregation. The
 * coordinator serves in a process of its own, which dies; its devices live on here, and hold it to what it
 * has said: a second T1, T2 or T3 would end their machines. After each fault the state must lead to the very
 * adapter of an undisturbed run, with every acknowledged contribution counted once. */
#include "faults.h"
#include "secure_fixture.h"

#include <sys/wait.h>

#define DEVICES 4 /* t = 3, q = 3: nobody may be lost */

static linnet_plan fault_plan(void)
{
    linnet_plan plan = secure_plan();
    plan.rounds = 1;
    plan.goal = plan.minimum = DEVICES;
    plan.rule = LINNET_RULE_FEDAVG;
    plan.server_optimizer = LINNET_SERVER_FEDAVGM;
    plan.server_momentum = 0.9;
    plan.phase_deadline_s = 3600;
    plan.deadline_s = 86400;
    return plan;
}

/* ---- the process that serves ---- */

static void serve(scene *s, int line)
{
    line_head head;
    linnet_buffer body = {0};
    while (line_receive(line, &head, &body) && strcmp(head.method, "q") != 0) {
        linnet_error err = {0};
        linnet_http_response response = {0};
        linnet_http_request request = {
            .method = head.method, .path = head.path, .body = body.bytes, .n_body = body.n_bytes};
        int64_t next_ms;
        if (head.method[0] == '\0') {
            response.status = (int)linnet_coordinator_tick(s->coordinator, head.now_ms, &next_ms, &err);
        } else {
            linnet_coordinator_handle(s->coordinator, head.now_ms, &request, &response);
        }
        head.status = response.status;
        head.retry_after_s = response.retry_after_s;
        head.n_body = response.body.n_bytes;
        (void)line_send(line, &head, response.body.bytes);
        linnet_http_response_release(&response);
        linnet_buffer_clear(&body);
    }
    linnet_buffer_release(&body);
}

static pid_t serve_apart(scene *s, long kill_at)
{
    int lines[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, lines), 0);
    scene_close(s); /* no open environment across a fork */
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)close(lines[0]);
        faults.kill_at = kill_at;
        faults.is_armed = true;
        scene_open(s);
        serve(s, lines[1]);
        scene_close(s);
        _exit(0);
    }
    (void)close(lines[1]);
    s->line = lines[0];
    return child;
}

/* ---- devices that go on whatever happens ---- */

/* A message of the round; false where nobody took it. */
static bool say(member *m, linnet_round_kind kind, const uint8_t *raw, size_t n_raw)
{
    linnet_error err = {0};
    linnet_buffer header = {0};
    const linnet_round_message message = {.announcement = m->a, .kind = (uint32_t)kind};
    assert_ok(linnet_round_message_pack(&message, &header, &err), &err);
    int status = device_call(&m->d, LINNET_PATH_ROUND, &header, raw, n_raw);
    linnet_buffer_release(&header);
    return status == 200 && m->d.answer.code != LINNET_ANSWER_NO_SPACE;
}

static bool upload(member *m)
{
    return device_upload_raw(&m->d, 0, m->d.packed.bytes, m->d.packed.n_bytes) == 200 &&
           m->d.answer.n_receipt > 0;
}

/* What follows from the last answer. True where a receipt came. */
static bool react(member *m)
{
    linnet_error err = {0};
    size_t n = 0;
    const linnet_secagg_trust trust = {.authority = &m->d.scene->authority};
    const uint8_t *raw = m->d.raw.bytes, *out;
    size_t n_raw = m->d.raw.n_bytes;
    if (m->d.answer.phase == LINNET_PHASE_ROSTER) {
        assert_ok(linnet_secagg_device_take_roster(m->machine, &trust, raw, n_raw, &err), &err);
        out = linnet_secagg_device_shares(m->machine, &n);
        (void)say(m, LINNET_ROUND_SHARES, out, n);
    } else if (m->d.answer.phase == LINNET_PHASE_SHARERS) {
        assert_ok(linnet_secagg_device_take_sharers(m->machine, raw, n_raw, &err), &err);
        member_mask(m);
        return upload(m);
    } else if (m->d.answer.phase == LINNET_PHASE_SURVIVORS) {
        assert_ok(linnet_secagg_device_take_survivors(m->machine, raw, n_raw, &err), &err);
        out = linnet_secagg_device_attestation(m->machine, &n);
        (void)say(m, LINNET_ROUND_ATTEST, out, n);
    } else if (m->d.answer.phase == LINNET_PHASE_CERTIFICATE) {
        assert_ok(linnet_secagg_device_take_certificate(m->machine, raw, n_raw, &err), &err);
        out = linnet_secagg_device_unmask(m->machine, &n);
        (void)say(m, LINNET_ROUND_UNMASK, out, n);
    }
    return false;
}

/* One visit. True where a receipt came. */
static bool visit(member *m)
{
    size_t n;
    linnet_checkin checkin = {.has_version = m->d.has_release,
                              .version = m->d.version,
                              .has_ready = m->d.has_release,
                              .ready = m->d.release};
    if (m->machine && linnet_secagg_device_phase(m->machine) == LINNET_SECAGG_ADVERTISED) {
        const uint8_t *m1 = linnet_secagg_device_advert(m->machine, &n); /* until it is known to be there */
        return say(m, LINNET_ROUND_ADVERT, m1, n) && react(m);
    }
    if (m->machine)
        return say(m, LINNET_ROUND_POLL, NULL, 0) && react(m);
    if (device_checkin_with(&m->d, &checkin) != 200)
        return false;
    if (m->d.answer.n_release > 0)
        device_take_release(&m->d);
    if (m->d.answer.n_announcement > 0) {
        device_take_announcement(&m->d);
        m->a = m->d.chain;
        (void)member_advert(m, &n);
    }
    return false;
}

/* One visit of every device and a tick; false where the coordinator is gone, or does not know its disk. */
static bool fleet_turn(scene *s, member *m, bool *has_receipt)
{
    linnet_error err = {0};
    int64_t next_ms;
    line_head head = {.now_ms = s->now_ms + 1000};
    linnet_buffer body = {0};
    for (size_t i = 0; i < DEVICES; i++)
        if (visit(&m[i]))
            has_receipt[i] = true;
    s->now_ms += 1000;
    if (s->line == 0)
        return linnet_coordinator_tick(s->coordinator, s->now_ms, &next_ms, &err) == LINNET_OK;
    bool is_up = line_send(s->line, &head, NULL) && line_receive(s->line, &head, &body);
    linnet_buffer_release(&body);
    return is_up && head.status == LINNET_OK;
}

static bool is_closed(const member *m)
{
    return m->machine && m->d.answer.phase == LINNET_PHASE_CLOSED;
}

/* Devices hear that the sum is opened; a full disk may keep it from being published at once. */
static bool is_published(scene *s)
{
    linnet_coordinator_report report;
    return s->line != 0 ||
           (linnet_coordinator_status(s->coordinator, &report, NULL) == LINNET_OK && report.is_finished);
}

/* Until every device has heard that the round is closed. */
static bool fleet_run(scene *s, member *m, bool *has_receipt)
{
    for (int turn = 0; turn < 60; turn++) {
        if (!fleet_turn(s, m, has_receipt))
            return false;
        if (is_closed(&m[0]) && is_closed(&m[1]) && is_closed(&m[2]) && is_closed(&m[3]) && is_published(s))
            return true;
    }
    return false;
}

/* Every receipt names a contribution that is there; complete: all are there, once, and led to this
 * adapter. */
static void assert_nothing_lost(scene *s, const member *m, const bool *has_receipt, const linnet_hash *want)
{
    linnet_error err = {0};
    linnet_contribution_report *list = NULL;
    size_t n = 0;
    assert_ok(linnet_coordinator_contributions(s->coordinator, 1, &list, &n, &err), &err);
    assert_true(n <= DEVICES && (!want || n == DEVICES));
    for (size_t i = 0; i < DEVICES; i++) {
        bool is_there = false;
        for (size_t j = 0; j < n; j++)
            is_there = is_there || (memcmp(&list[j].device_id, &m[i].d.id, sizeof(m[i].d.id)) == 0 &&
                                    linnet_hash_equal(&list[j].echo, &m[i].d.echo));
        if (has_receipt[i] && !is_there)
            fail_msg("the receipt of device %zu names a contribution that is gone", i);
    }
    free(list);
    if (want) {
        linnet_coordinator_report report = scene_status(s);
        assert_true(report.is_finished);
        assert_int_equal(report.round, 1); /* no round was lost */
        assert_memory_equal(report.adapter.bytes, want->bytes, 32);
    }
}

static linnet_hash undisturbed(void)
{
    scene s;
    member m[DEVICES];
    bool has_receipt[DEVICES] = {false};
    linnet_plan plan = fault_plan();
    scene_begin(&s, &plan);
    members_begin(m, DEVICES, &s);
    assert_true(fleet_run(&s, m, has_receipt));
    linnet_hash adapter = scene_status(&s).adapter;
    assert_nothing_lost(&s, m, has_receipt, &adapter);
    members_end(m, DEVICES);
    scene_end(&s);
    return adapter;
}

/* ---- the tests ---- */

/* The coordinator dies at its kill_at-th call, and another one goes on. False: the run ended before. */
static bool kill_and_go_on(long kill_at, const linnet_hash *want)
{
    scene s;
    member m[DEVICES];
    int status = 0;
    bool has_receipt[DEVICES] = {false};
    linnet_plan plan = fault_plan();
    scene_begin(&s, &plan);
    members_begin(m, DEVICES, &s);
    pid_t child = serve_apart(&s, kill_at);
    bool done = fleet_run(&s, m, has_receipt);
    (void)close(s.line); /* its end, where it lives */
    s.line = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    bool was_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    assert_true(was_killed || (done && WIFEXITED(status) && WEXITSTATUS(status) == 0));
    scene_open(&s);
    assert_nothing_lost(&s, m, has_receipt, NULL);
    if (!fleet_run(&s, m, has_receipt))
        fail_msg("killed at write %ld: the round does not go on", kill_at);
    assert_nothing_lost(&s, m, has_receipt, want);
    members_end(m, DEVICES);
    scene_end(&s);
    return was_killed;
}

static void a_kill_at_any_write_of_a_secure_round_changes_nothing(void **state)
{
    (void)state;
    linnet_hash want = undisturbed();
    long n = 1;
    while (kill_and_go_on(n, &want))
        n++;
    assert_true(n > 100);
    print_message("killed at each of %ld writes\n", n - 1);
}

/* The disk is full for five writes from the n-th on. False: the run needed fewer. */
static bool fill_and_go_on(long full_from, const linnet_hash *want)
{
    scene s;
    member m[DEVICES];
    bool has_receipt[DEVICES] = {false};
    linnet_plan plan = fault_plan();
    scene_begin(&s, &plan);
    members_begin(m, DEVICES, &s);
    memset(&faults, 0, sizeof(faults));
    faults.full_from = full_from;
    faults.full_to = full_from + 5;
    faults.is_armed = true;
    bool done = fleet_run(&s, m, has_receipt);
    bool was_hit = faults.n_calls >= full_from;
    faults.is_armed = false;
    if (!done)
        fail_msg("full at write %ld: the round does not go on", full_from);
    assert_nothing_lost(&s, m, has_receipt, want);
    members_end(m, DEVICES);
    scene_end(&s);
    return was_hit;
}

static void a_full_disk_loses_nothing_of_a_secure_round(void **state)
{
    (void)state;
    linnet_hash want = undisturbed();
    long n = 1;
    while (fill_and_go_on(n, &want))
        n++;
    assert_true(n > 50);
    print_message("full at each of %ld writes\n", n - 1);
}

/* The n-th fsync fails: nothing more is answered, and a new start goes on. False: the run needed fewer. */
static bool fail_sync_and_go_on(long sync_fails_at, const linnet_hash *want)
{
    scene s;
    member m[DEVICES];
    bool has_receipt[DEVICES] = {false};
    linnet_plan plan = fault_plan();
    scene_begin(&s, &plan);
    members_begin(m, DEVICES, &s);
    memset(&faults, 0, sizeof(faults));
    faults.sync_fails_at = sync_fails_at;
    faults.is_armed = true;
    bool done = fleet_run(&s, m, has_receipt);
    bool was_hit = faults.n_syncs >= sync_fails_at;
    faults.is_armed = false;
    if (done == was_hit)
        fail_msg("fsync %ld: went on after a failure", sync_fails_at);
    if (was_hit)
        assert_int_equal(scene_exchange(&s, "GET", LINNET_PATH_HELLO, NULL, 0, NULL), 503);
    scene_reopen(&s);
    assert_nothing_lost(&s, m, has_receipt, NULL);
    assert_true(fleet_run(&s, m, has_receipt));
    assert_nothing_lost(&s, m, has_receipt, want);
    members_end(m, DEVICES);
    scene_end(&s);
    return was_hit;
}

static void a_failed_fsync_ends_the_process_and_loses_nothing_of_a_secure_round(void **state)
{
    (void)state;
    linnet_hash want = undisturbed();
    long n = 1;
    while (fail_sync_and_go_on(n, &want))
        n++;
    assert_true(n > 20);
    print_message("failed at each of %ld fsyncs\n", n - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kill_at_any_write_of_a_secure_round_changes_nothing),
        cmocka_unit_test(a_full_disk_loses_nothing_of_a_secure_round),
        cmocka_unit_test(a_failed_fsync_ends_the_process_and_loses_nothing_of_a_secure_round),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
