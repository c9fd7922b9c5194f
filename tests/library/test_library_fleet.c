/* SPDX-License-Identifier: Apache-2.0 */
/* The agent of liblinnet-device against a real coordinator over loopback: a masked round of three devices in
 * one program, with closes in between; and the example programs. */
#include "acceptance.h"

#include <linnet-device.h>

#include <signal.h>

#define MODEL LINNET_SOURCE "/sims/bundled/linnet-notes-Q8_0.gguf"
#define NOTES_EXAMPLE LINNET_BIN "/example_notes"
#define FLEET_EXAMPLE LINNET_BIN "/example_fleet"
#define DEVICES 3

static lin_error err;

#define must(call)                                                                                           \
    do {                                                                                                     \
        lin_status status_ = (call);                                                                         \
        if (status_ != LIN_OK)                                                                               \
            fail_msg("%s: %s: %s", #call, lin_status_text(status_), err.message);                            \
    } while (0)

typedef struct device {
    char state[16];
    lin_agent *agent;
    lin_agent_what what;
    int64_t wake_ms;
    bool has_trained, has_evaluated, was_in_round;
} device;

static lin_agent *open_agent(const char *state, lin_model *model, const lin_texts *texts)
{
    const lin_agent_options options = {
        .size = sizeof(options), .state_directory = state, .model = model, .texts = texts};
    lin_agent *agent = NULL;
    must(lin_agent_open(&options, &agent, &err));
    return agent;
}

static lin_agent_report report_of(const lin_agent *agent)
{
    lin_agent_report report = {.size = sizeof(report)};
    must(lin_agent_describe(agent, &report, &err));
    return report;
}

static void turn(device *d)
{
    if (now_ms() < d->wake_ms)
        return;
    must(lin_agent_step(d->agent, 0, &d->what, &err));
    if (d->what.did == LIN_AGENT_TRAINED)
        assert_int_equal(d->what.n_steps, 1); /* no time at all: one step */
    d->has_trained = d->has_trained || d->what.did == LIN_AGENT_TRAINED;
    d->has_evaluated = d->has_evaluated || d->what.did == LIN_AGENT_EVALUATED;
    d->was_in_round = d->was_in_round || d->what.is_in_round;
    d->wake_ms = now_ms() + (int64_t)d->what.wake_in_ms;
}

static void set_up(device devices[DEVICES], const server *s, lin_model *model, const lin_texts *texts)
{
    char url[64];
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%d", s->port);
    for (int i = 0; i < DEVICES; i++) {
        devices[i] = (device){.what = {.size = sizeof(lin_agent_what)}};
        (void)snprintf(devices[i].state, sizeof(devices[i].state), "lin-%d", i);
        must(lin_enroll(devices[i].state, url, invite("lin-task"), 0, &err));
        devices[i].agent = open_agent(devices[i].state, model, texts);
    }
}

static void three_agents_of_one_program_take_part_in_a_masked_round(void **state)
{
    (void)state;
    device devices[DEVICES];
    lin_model *model = NULL;
    lin_texts *texts = NULL;
    make_task("lin-task");
    server s = serve("lin-task", 0, "");
    must(lin_model_open(MODEL, NULL, &model, &err));
    must(lin_texts_create(&texts, &err));
    must(lin_texts_load(texts, "few.jsonl", &err));
    set_up(devices, &s, model, texts);
    lin_agent *second = NULL;
    const lin_agent_options again = {
        .size = sizeof(again), .state_directory = "lin-0", .model = model, .texts = texts};
    assert_int_equal(lin_agent_open(&again, &second, &err), LIN_ERR_BUSY);
    lin_texts_close(texts); /* the agents keep them */
    size_t n_ready = 0;
    bool has_restarted = false;
    for (int64_t until = now_ms() + DEADLINE_MS; n_ready < DEVICES && now_ms() < until; pause_ms(5)) {
        n_ready = 0;
        for (int i = 0; i < DEVICES; i++) {
            device *d = &devices[i];
            turn(d);
            lin_agent_report report = report_of(d->agent);
            n_ready += report.n_contributions >= 1 && report.version >= 1 && d->has_evaluated &&
                       strcmp(report.phase, "fetching") != 0;
            if (i == 1 && !has_restarted && d->has_trained) { /* its delta waits in the store */
                has_restarted = true;
                must(lin_texts_create(&texts, &err));
                must(lin_texts_load(texts, "few.jsonl", &err));
                lin_agent_close(d->agent);
                d->agent = open_agent(d->state, model, texts);
                lin_texts_close(texts);
                d->wake_ms = 0;
            }
        }
    }
    assert_int_equal(n_ready, DEVICES);
    assert_true(has_restarted);
    for (int i = 0; i < DEVICES; i++) {
        lin_agent_report report = report_of(devices[i].agent);
        assert_true(devices[i].was_in_round && report.bytes_up > 0 && report.bytes_down > 0);
        assert_string_equal(report.profile, "secure");
        assert_int_equal(strlen(report.device_id), 32);
        assert_int_equal(strlen(report.adapter), 64);
        must(lin_agent_use(devices[i].agent, &err));
        lin_agent_close(devices[i].agent);
        assert_true(number_of("accepted", "$C status --state %s --json", devices[i].state) >= 1);
    }
    assert_true(file_exists("lin-0/adapter/current/adapter.gguf"));
    lin_model_close(model);
    stop(&s, SIGTERM);
}

/* Steps until one fails; its status. */
static lin_status step_to_failure(lin_agent *agent, lin_agent_what *what)
{
    lin_status status = LIN_OK;
    for (int64_t until = now_ms() + DEADLINE_MS; status == LIN_OK && now_ms() < until;
         pause_ms((long)(what->wake_in_ms < 100 ? what->wake_in_ms : 100)))
        status = lin_agent_step(agent, 0, what, &err);
    return status;
}

static void what_a_person_must_put_right_is_an_error(void **state)
{
    (void)state;
    lin_model *narrow = NULL, *wide = NULL, *other = NULL;
    lin_texts *texts = NULL;
    lin_agent_what what = {.size = sizeof(what)};
    const lin_model_options options = {.size = sizeof(options), .memory_max = 1000};
    char url[64];
    make_task("odd-task");
    server s = serve("odd-task", 0, "");
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%d", s.port);
    must(lin_enroll("odd", url, invite("odd-task"), 0, &err));
    must(lin_model_open(MODEL, &options, &narrow, &err));
    must(lin_texts_create(&texts, &err));
    must(lin_texts_add(texts, "Some note.", &err));
    lin_agent *agent = open_agent("odd", narrow, texts);
    assert_int_equal(step_to_failure(agent, &what), LIN_ERR_LIMIT); /* the plan's context does not fit */
    assert_true(err.needed_bytes > 1000 && what.did == LIN_AGENT_WAITED && what.wake_in_ms > 0);
    lin_agent_report report = report_of(agent);
    lin_agent_close(agent);

    must_do("cp $M other.gguf && printf x >>other.gguf"); /* another hash */
    must(lin_model_open("other.gguf", NULL, &other, &err));
    agent = open_agent("odd", other, texts);
    assert_int_equal(step_to_failure(agent, &what), LIN_ERR_MISMATCH);
    assert_true(report_of(agent).is_other_model);
    lin_agent_close(agent);

    must_do("$K revoke --state odd-task %s --quiet", report.device_id);
    must(lin_model_open(MODEL, NULL, &wide, &err));
    agent = open_agent("odd", wide, texts);
    assert_int_equal(step_to_failure(agent, &what), LIN_ERR_DENIED);
    assert_true(report_of(agent).is_revoked);
    lin_agent_close(agent);
    lin_texts_close(texts);
    lin_model_close(narrow);
    lin_model_close(other);
    lin_model_close(wide);
    stop(&s, SIGTERM);
}

static void the_notes_example_learns(void **state)
{
    (void)state;
    if (!file_exists(NOTES_EXAMPLE))
        skip();
    must_do("sed -e 's/.*\"text\": \"//' -e 's/\".*//' few.jsonl >few.txt");
    const outcome *o = run("%s $M few.txt 0", NOTES_EXAMPLE); /* no time at all: one step */
    assert_int_equal(o->status, 0);
    const char *before = strstr(o->out, "  Morning log:"), *steps = strstr(o->out, "\n1 steps, loss");
    assert_true(before && steps && before < steps && strstr(steps, "  Morning log:"));
    o = run("%s no.gguf few.txt 0", NOTES_EXAMPLE);
    assert_int_equal(o->status, 1);
    assert_non_null(strstr(o->err, "no.gguf"));
}

static void three_fleet_examples_take_part_in_a_masked_round(void **state)
{
    (void)state;
    pid_t pids[DEVICES];
    if (!file_exists(FLEET_EXAMPLE))
        skip();
    make_task("fleet-task");
    server s = serve("fleet-task", 0, "");
    for (int i = 0; i < DEVICES; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "fleet-%d", i);
        pids[i] = start(name, "%s %s $M few.jsonl http://127.0.0.1:%d %s", FLEET_EXAMPLE, name, s.port,
                        invite("fleet-task"));
    }
    await_count("fleet-task", "version", 1);
    await_text("fleet-0.out", "1 accepted");
    for (int i = 0; i < DEVICES; i++)
        assert_int_equal(end(pids[i], SIGTERM), 0);
    stop(&s, SIGTERM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(three_agents_of_one_program_take_part_in_a_masked_round, acceptance_clean),
        cmocka_unit_test_teardown(what_a_person_must_put_right_is_an_error, acceptance_clean),
        cmocka_unit_test_teardown(the_notes_example_learns, acceptance_clean),
        cmocka_unit_test_teardown(three_fleet_examples_take_part_in_a_masked_round, acceptance_clean),
    };
    return acceptance_main(tests);
}
