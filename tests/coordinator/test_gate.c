/* SPDX-License-Identifier: Apache-2.0 */
/* The release gate: what passes, what does not, what becomes of a round when the gate itself fails; and the
 * operator's command as a gate, with all the ways in which a command can go wrong. */
#include "fixture.h"

#include "coordinator/gate_command.h"
#include "coordinator/state.h"

#include <fcntl.h>
#include <sys/stat.h>

#define DEVICES 3

/* ---- the hook ---- */

/* Says what the test wrote down, in order. */
typedef struct script {
    double losses[8];
    linnet_status statuses[8];
    size_t n_asked;
    linnet_hash asked[8];
} script;

static linnet_status speak(void *context, const linnet_adapter *adapter, double *ret_loss, linnet_error *err)
{
    script *s = context;
    assert_true(s->n_asked < ARRAY_LEN(s->losses));
    size_t i = s->n_asked++;
    s->asked[i] = linnet_adapter_hash(adapter);
    if (s->statuses[i] != LINNET_OK)
        return linnet_fail(err, s->statuses[i], "no canary today");
    *ret_loss = s->losses[i];
    return LINNET_OK;
}

static linnet_plan gate_plan(void)
{
    linnet_plan plan = scene_plan();
    plan.gate_tolerance = 1.1;
    plan.rounds = 4;
    plan.goal = plan.minimum = DEVICES;
    plan.over_selection = 1;
    return plan;
}

static void play_round(scene *s, device *d)
{
    for (size_t i = 0; i < DEVICES; i++)
        device_contribute(&d[i]);
    (void)scene_tick(s);
}

static void assert_audit_is_good(scene *s)
{
    linnet_error err = {0};
    linnet_audit_entry *entries = NULL;
    size_t n = 0;
    assert_ok(linnet_coordinator_audit(s->coordinator, &entries, &n, &err), &err);
    for (size_t i = 0; i < n; i++)
        if (entries[i].flaw)
            fail_msg("%s %llu: %s", entries[i].type, (unsigned long long)entries[i].number, entries[i].flaw);
    free(entries);
}

static void a_candidate_passes_up_to_the_tolerance(void **state)
{
    (void)state;
    static const struct {
        double before, after;
        const char *want;
    } cases[] = {
        {2, 1.5, "closed"},   {2, 2, "closed"},          {2, 2.199, "closed"}, {2, 2.201, "rejected"},
        {2, NAN, "rejected"}, {2, INFINITY, "rejected"}, {NAN, 5, "closed"},   {NAN, NAN, "rejected"},
        {0, 0, "closed"},     {0, 1e-9, "rejected"},
    };
    for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
        scene s;
        device d[DEVICES];
        script gate = {.losses = {cases[k].before, cases[k].after}};
        linnet_plan plan = gate_plan();
        scene_begin(&s, &plan);
        devices_begin(d, DEVICES, &s);
        linnet_hash first = scene_status(&s).adapter;
        linnet_coordinator_set_gate(s.coordinator, speak, &gate);
        play_round(&s, d);
        linnet_round_report round = scene_round(&s, 1);
        if (strcmp(round.state, cases[k].want) != 0)
            fail_msg("case %zu: %s", k, round.state);
        assert_int_equal(gate.n_asked, 2);
        assert_memory_equal(gate.asked[0].bytes, first.bytes, sizeof(first.bytes));
        assert_true(round.has_gate && (round.gate_loss_before == cases[k].before || isnan(cases[k].before)));
        linnet_hash now = scene_status(&s).adapter;
        bool stays = linnet_hash_equal(&now, &first);
        assert_true(stays == (strcmp(cases[k].want, "rejected") == 0));
        assert_memory_equal(round.adapter.bytes, now.bytes, sizeof(first.bytes));
        devices_end(d, DEVICES);
        scene_end(&s);
    }
}

/* Versions and phases go on; the adapter, and the momentum, are as if the round had not been. */
static void a_rejected_round_leaves_no_trace_but_a_version(void **state)
{
    (void)state;
    scene s;
    device d[DEVICES];
    linnet_error err = {0};
    linnet_plan plan = gate_plan();
    plan.server_optimizer = LINNET_SERVER_FEDAVGM;
    plan.server_momentum = 0.5;
    scene_begin(&s, &plan);
    devices_begin(d, DEVICES, &s);
    script gate = {.losses = {2, 1.9, 9, 1.8, 9}};
    linnet_coordinator_set_gate(s.coordinator, speak, &gate);
    play_round(&s, d); /* closed: B */
    linnet_hash good = scene_status(&s).adapter;
    play_round(&s, d); /* rejected: A */
    assert_string_equal(scene_round(&s, 2).state, "rejected");
    assert_memory_equal(scene_status(&s).adapter.bytes, good.bytes, sizeof(good.bytes));
    assert_int_equal(scene_status(&s).version, 2);
    assert_int_equal(gate.n_asked, 3); /* the loss of the present release is known from its own round */
    linnet_store_txn *txn = NULL;
    linnet_release_row before, after;
    assert_ok(linnet_store_read_begin(s.coordinator->store, &txn, &err), &err);
    assert_ok(linnet_release_get(txn, 1, &before, &err), &err);
    assert_ok(linnet_release_get(txn, 2, &after, &err), &err);
    assert_memory_equal(before.server_state.bytes, after.server_state.bytes, LINNET_HASH_BYTES);
    linnet_store_read_end(txn);
    scene_reopen(&s);
    linnet_coordinator_set_gate(s.coordinator, speak, &gate);
    play_round(&s, d); /* asked again for the release after a restart: 1.8, then 9 */
    assert_int_equal(d[0].announcement.vectors[0].vector_id, 0); /* version 2 trains B again */
    assert_string_equal(scene_round(&s, 3).state, "rejected");
    assert_int_equal(gate.n_asked, 5);
    assert_int_equal(scene_status(&s).version, 3);
    device_poll(&d[0]);
    assert_int_equal(d[0].version, 3);
    assert_audit_is_good(&s);
    devices_end(d, DEVICES);
    scene_end(&s);
}

static void a_gate_that_fails_releases_nothing(void **state)
{
    (void)state;
    static const struct {
        script gate;
        bool is_set;
    } cases[] = {
        {{.statuses = {LINNET_ERR_IO}}, true},
        {{.losses = {2}, .statuses = {LINNET_OK, LINNET_ERR_ARG}}, true},
        {{.statuses = {LINNET_ERR_INTERNAL}}, true},
        {{.losses = {-1, 1}}, true},
        {{.losses = {0}}, false}, /* the plan wants one */
    };
    for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
        scene s;
        device d[DEVICES];
        script gate = cases[k].gate;
        linnet_plan plan = gate_plan();
        scene_begin(&s, &plan);
        devices_begin(d, DEVICES, &s);
        linnet_hash first = scene_status(&s).adapter;
        if (cases[k].is_set)
            linnet_coordinator_set_gate(s.coordinator, speak, &gate);
        play_round(&s, d);
        assert_string_equal(scene_round(&s, 1).state, "void");
        assert_int_equal(scene_status(&s).version, 0);
        assert_int_equal(scene_status(&s).round, 2);
        assert_memory_equal(scene_status(&s).adapter.bytes, first.bytes, sizeof(first.bytes));
        gate = (script){.losses = {2, 2}}; /* it works again: the task goes on */
        linnet_coordinator_set_gate(s.coordinator, speak, &gate);
        play_round(&s, d);
        assert_string_equal(scene_round(&s, 2).state, "closed");
        assert_audit_is_good(&s);
        devices_end(d, DEVICES);
        scene_end(&s);
    }
}

static void a_busy_gate_is_asked_again(void **state)
{
    (void)state;
    scene s;
    device d[DEVICES];
    script gate = {.losses = {2, 0, 2, 2}, .statuses = {LINNET_OK, LINNET_ERR_BUSY}};
    linnet_plan plan = gate_plan();
    scene_begin(&s, &plan);
    devices_begin(d, DEVICES, &s);
    linnet_coordinator_set_gate(s.coordinator, speak, &gate);
    play_round(&s, d);
    assert_string_equal(scene_round(&s, 1).state, "frozen");
    scene_reopen(&s);
    linnet_coordinator_set_gate(s.coordinator, speak, &gate);
    (void)scene_tick(&s);
    assert_string_equal(scene_round(&s, 1).state, "closed");
    assert_memory_equal(gate.asked[1].bytes, gate.asked[3].bytes, sizeof(gate.asked[1].bytes));
    devices_end(d, DEVICES);
    scene_end(&s);
}

static void without_a_tolerance_nobody_asks(void **state)
{
    (void)state;
    scene s;
    device d[DEVICES];
    script gate = {.losses = {1, 9}};
    linnet_plan plan = gate_plan();
    plan.gate_tolerance = 0;
    scene_begin(&s, &plan);
    devices_begin(d, DEVICES, &s);
    linnet_coordinator_set_gate(s.coordinator, speak, &gate);
    play_round(&s, d);
    assert_string_equal(scene_round(&s, 1).state, "closed");
    assert_false(scene_round(&s, 1).has_gate);
    assert_int_equal(gate.n_asked, 0);
    devices_end(d, DEVICES);
    scene_end(&s);
}

/* ---- the command ---- */

static char folder[] = "/tmp/linnet-test-gate-XXXXXX";

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

/* An executable script; its path in a static buffer. */
static const char *script_write(const char *name, const char *text)
{
    static char path[128];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fprintf(file, "#!/bin/sh\n%s\n", text) > 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, 0700), 0);
    return path;
}

/* Ask this command about the adapter of a new scene. */
static linnet_status ask(const char *text, int timeout_ms, int stop_fd, double *ret_loss, linnet_error *err)
{
    scene s;
    linnet_adapter *adapter = NULL;
    linnet_gate_command command;
    linnet_plan plan = gate_plan();
    scene_begin(&s, &plan);
    assert_ok(linnet_coordinator_adapter(s.coordinator, 0, &adapter, err), err);
    assert_ok(linnet_gate_command_init(text, &command, err), err);
    (void)snprintf(command.adapter_path, sizeof(command.adapter_path), "%s/candidate.gguf", folder);
    command.architecture = linnet_coordinator_architecture(s.coordinator);
    command.timeout_ms = timeout_ms;
    command.stop_fd = stop_fd;
    linnet_status status = linnet_gate_command_ask(&command, adapter, ret_loss, err);
    assert_int_not_equal(access(command.adapter_path, F_OK), 0); /* nothing is left */
    linnet_gate_command_release(&command);
    linnet_adapter_destroy(adapter);
    scene_end(&s);
    return status;
}

static void a_command_prints_a_loss(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double want;
    } cases[] = {
        {"echo '{\"event\":\"result\",\"loss\":1.25}'", 1.25},
        {"echo '{\"loss\":9}'; echo progress; echo '{\"event\":\"result\",\"loss\":2}'; echo '{\"done\":1}'",
         2},
        {"printf '{\"loss\":3}'", 3},    /* no end of line */
        {"echo '{\"loss\":null}'", NAN}, /* a loss that is none */
        {"test -s \"$1\" && head -c 4 \"$1\" | grep -q GGUF && echo '{\"loss\":4}'", 4}, /* the adapter */
        {"cat; echo '{\"loss\":5}'", 5},                                                 /* nothing to read */
        {"kill -PIPE $$; echo '{\"loss\":6}'", -1}, /* signals are as for any program */
        {"exec 1>&-; exit 0", -1},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        double loss = -1;
        linnet_error err = {0};
        linnet_status status = ask(script_write("gate", cases[i].text), 60000, -1, &loss, &err);
        if ((status == LINNET_OK) != !(cases[i].want < 0) ||
            !(isnan(cases[i].want) ? isnan(loss) : loss == cases[i].want))
            fail_msg("'%s': %s, %g (%s)", cases[i].text, linnet_status_name(status), loss, err.message);
    }
}

static void a_command_that_goes_wrong_says_how(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
        int timeout_ms;
    } cases[] = {
        {"echo '{\"loss\":1}'; exit 3", "failed with status 3", 60000},
        {"echo '{\"loss\":1}'; kill -KILL $$", "failed with signal 9", 60000},
        {"echo loss 1", "printed no JSON object", 60000},
        {"echo '[1]'; echo '{\"loss\":\"2\"}'", "printed no JSON object", 60000},
        {"yes '{\"loss\":1}'", "prints more than", 60000},
        {"while :; do sleep 60; done", "longer than 0 s", 200},
        {"(while :; do sleep 60; done) & wait", "longer than 0 s", 200}, /* its children end too */
        {"echo '{\"loss\":1}'; exec 1>&-; while :; do sleep 60; done", "longer than 0 s", 200},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        double loss = -1;
        linnet_error err = {0};
        linnet_status status = ask(script_write("gate", cases[i].text), cases[i].timeout_ms, -1, &loss, &err);
        if (status != LINNET_ERR_ARG || !strstr(err.message, cases[i].says) || loss != -1)
            fail_msg("'%s': %s, %s", cases[i].text, linnet_status_name(status), err.message);
    }
    linnet_error err = {0};
    double loss = -1;
    assert_int_equal(ask("/no/such/program", 1000, -1, &loss, &err), LINNET_ERR_ARG);
    assert_non_null(strstr(err.message, "cannot run '/no/such/program'"));
}

static void a_command_is_left_when_the_service_ends(void **state)
{
    (void)state;
    int fds[2];
    double loss = -1;
    linnet_error err = {0};
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_int_equal(ask(script_write("gate", "while :; do sleep 60; done"), 60000, fds[0], &loss, &err),
                     LINNET_ERR_BUSY);
    assert_true(loss == -1);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

static void a_command_is_split_at_spaces_and_takes_the_path(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n, path_at; /* n 0: refused */
    } cases[] = {
        {"evaluate", 2, 1},
        {"  evaluate   --json ", 3, 2},
        {"evaluate {} --json", 3, 1},
        {"evaluate --adapter {} {}", 4, 2},
        {"", 0, 0},
        {" \t", 0, 0},
        {"{} evaluate", 0, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_error err = {0};
        linnet_gate_command command = {0};
        linnet_status status = linnet_gate_command_init(cases[i].text, &command, &err);
        if (cases[i].n == 0) {
            assert_int_equal(status, LINNET_ERR_ARG);
            continue;
        }
        assert_ok(status, &err);
        assert_int_equal(command.n_arguments, cases[i].n);
        assert_int_equal(command.path_at, cases[i].path_at);
        assert_string_equal(command.arguments[0], "evaluate");
        assert_null(command.arguments[command.n_arguments]);
        linnet_gate_command_release(&command);
    }
    char many[400] = "";
    for (size_t i = 0; i < LINNET_GATE_ARGUMENTS_MAX + 1; i++)
        (void)strcat(many, "a ");
    linnet_error err = {0};
    linnet_gate_command command = {0};
    assert_int_equal(linnet_gate_command_init(many, &command, &err), LINNET_ERR_ARG);
}

static void a_command_gates_rounds(void **state)
{
    (void)state;
    scene s;
    device d[DEVICES];
    linnet_error err = {0};
    linnet_gate_command command;
    char text[256];
    linnet_plan plan = gate_plan();
    scene_begin(&s, &plan);
    devices_begin(d, DEVICES, &s);
    /* the n-th call says the n-th loss: of the release, then of the candidates */
    (void)snprintf(text, sizeof(text),
                   "echo x >>%s/calls; n=$(wc -l <%s/calls); set -- 2 1.9 9; shift $((n - 1)); echo "
                   "\"{\\\"loss\\\":$1}\"",
                   folder, folder);
    assert_ok(linnet_gate_command_init(script_write("counting", text), &command, &err), &err);
    (void)snprintf(command.adapter_path, sizeof(command.adapter_path), "%s/candidate.gguf", folder);
    command.architecture = linnet_coordinator_architecture(s.coordinator);
    linnet_coordinator_set_gate(s.coordinator, linnet_gate_command_ask, &command);
    play_round(&s, d);
    play_round(&s, d);
    assert_string_equal(scene_round(&s, 1).state, "closed");
    assert_string_equal(scene_round(&s, 2).state, "rejected");
    linnet_gate_command_release(&command);
    devices_end(d, DEVICES);
    scene_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_candidate_passes_up_to_the_tolerance),
        cmocka_unit_test(a_rejected_round_leaves_no_trace_but_a_version),
        cmocka_unit_test(a_gate_that_fails_releases_nothing),
        cmocka_unit_test(a_busy_gate_is_asked_again),
        cmocka_unit_test(without_a_tolerance_nobody_asks),
        cmocka_unit_test(a_command_prints_a_loss),
        cmocka_unit_test(a_command_that_goes_wrong_says_how),
        cmocka_unit_test(a_command_is_left_when_the_service_ends),
        cmocka_unit_test(a_command_is_split_at_spaces_and_takes_the_path),
        cmocka_unit_test(a_command_gates_rounds),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
