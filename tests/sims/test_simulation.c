/* SPDX-License-Identifier: Apache-2.0 */
/* Whole federated runs of the bundled model: they repeat bit for bit, learn, and end in the same adapter
 * whatever happens to messages and processes on the way. */
#include "testing.h"

#include "linnet/simulation.h"

#include <math.h>
#include <unistd.h>

#define BUNDLED LINNET_SOURCE "/sims/bundled/"

static char folder[] = "/tmp/linnet-test-simulation-XXXXXX";
static int n_runs;

static int make_folder(void **state)
{
    (void)state;
    linnet_error err;
    return mkdtemp(folder) && linnet_crypto_init(&err) == LINNET_OK ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[128];
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command);
}

/* Five owners, three short rounds. */
static linnet_simulation_config small_run(void)
{
    static char out[8][128];
    linnet_simulation_config config = {.model_path = BUNDLED "linnet-notes-Q8_0.gguf",
                                       .data_path = BUNDLED "notes-train.jsonl",
                                       .eval_path = BUNDLED "notes-test.jsonl",
                                       .split = LINNET_SPLIT_CLIENT,
                                       .dirichlet_alpha = 1,
                                       .n_devices = 5,
                                       .n_rounds = 3,
                                       .seed = 7,
                                       .eval_records_max = 4,
                                       .n_threads = 1,
                                       .bin_directory = LINNET_BIN};
    int slot = n_runs % 8;
    (void)snprintf(out[slot], sizeof(out[slot]), "%s/run-%d", folder, n_runs++);
    config.out_directory = out[slot];
    linnet_scenario_default(&config.scenario);
    linnet_plan_default(&config.plan);
    config.plan.goal = 5;
    config.plan.minimum = 3;
    config.plan.over_selection = 1;
    config.plan.rounds = 3;
    config.plan.local_steps = 4;
    config.plan.batch_records = 2;
    config.plan.context_tokens = 48;
    config.plan.poll_s = 1;
    return config;
}

static linnet_simulation_result run(const linnet_simulation_config *config)
{
    linnet_cli cli = {.program = "test", .quiet = true, .out = stdout, .log = stderr};
    linnet_error err = {0};
    linnet_simulation_result result = {0};
    assert_ok(linnet_simulation_run(config, &cli, &result, &err), &err);
    assert_int_equal(result.n_rounds, config->n_rounds);
    return result;
}

static void assert_same(const linnet_simulation_result *a, const linnet_simulation_result *b)
{
    assert_memory_equal(&a->adapter, &b->adapter, sizeof(a->adapter));
    assert_memory_equal(&a->transcript, &b->transcript, sizeof(a->transcript));
}

static void the_same_seed_repeats_for_any_number_of_threads(void **state)
{
    (void)state;
    linnet_simulation_config one = small_run(), two = small_run(), other = small_run();
    two.n_threads = 3;
    other.seed = 8;
    linnet_simulation_result a = run(&one), b = run(&two), c = run(&other);
    assert_same(&a, &b);
    assert_memory_not_equal(&a.transcript, &c.transcript, sizeof(a.transcript));
    assert_true(a.loss_federated < a.loss_base - 0.05);
    for (size_t i = 0; i < a.n_rounds; i++)
        assert_int_equal(a.rounds[i].accepted, 5);
    assert_true(a.bytes_up > 0 && a.bytes_down > 0 && a.device_seconds > 0);
    linnet_simulation_result_release(&a);
    linnet_simulation_result_release(&b);
    linnet_simulation_result_release(&c);
}

static void lost_doubled_and_altered_messages_and_restarts_change_nothing(void **state)
{
    (void)state;
    linnet_simulation_config calm = small_run(), storm = small_run();
    storm.scenario.lose = 0.05;
    storm.scenario.duplicate = 0.1;
    storm.scenario.corrupt = 0.05;
    storm.scenario.restart = 0.05;
    linnet_simulation_result a = run(&calm), b = run(&storm);
    assert_same(&a, &b);
    linnet_simulation_result_release(&a);
    linnet_simulation_result_release(&b);
}

/* The gate of a simulation is its evaluation, over restarts of the coordinator too. */
static void a_gate_keeps_back_what_scores_worse_than_allowed(void **state)
{
    (void)state;
    linnet_simulation_config open = small_run(), wide = small_run(), narrow = small_run();
    wide.plan.gate_tolerance = 1.5;
    narrow.plan.gate_tolerance = 0.5; /* half the loss in one round: nothing passes */
    narrow.scenario.restart = 0.05;
    linnet_simulation_result a = run(&open), b = run(&wide), c = run(&narrow);
    assert_memory_equal(&a.adapter, &b.adapter, sizeof(a.adapter));
    assert_true(fabs(c.loss_federated - c.loss_base) < 1e-9);
    for (size_t i = 0; i < c.n_rounds; i++)
        assert_int_equal(c.rounds[i].accepted, 5);
    linnet_simulation_result_release(&a);
    linnet_simulation_result_release(&b);
    linnet_simulation_result_release(&c);
}

static void a_round_closes_at_its_deadline_without_those_who_left(void **state)
{
    (void)state;
    linnet_simulation_config config = small_run();
    config.n_devices = 8;
    config.plan.goal = 8;
    config.plan.minimum = 2;
    config.scenario.drop_out = 0.3;
    linnet_simulation_result result = run(&config);
    uint32_t accepted = 0;
    for (size_t i = 0; i < result.n_rounds; i++)
        accepted += result.rounds[i].accepted;
    assert_in_range(accepted, 6, 23); /* somebody left in three rounds of eight, and no round was empty */
    linnet_simulation_result_release(&result);
}

static void both_factors_and_momentum_run_too(void **state)
{
    (void)state;
    linnet_simulation_config config = small_run();
    config.plan.rule = LINNET_RULE_FEDAVG;
    config.plan.learning_rate_a = config.plan.learning_rate_b / 4;
    config.plan.server_optimizer = LINNET_SERVER_FEDAVGM;
    config.plan.server_momentum = 0.3;
    linnet_simulation_result result = run(&config);
    assert_true(result.loss_federated < result.loss_base - 0.05);
    linnet_simulation_result_release(&result);
}

static void real_processes_give_the_same_adapter(void **state)
{
    (void)state;
    linnet_simulation_config memory = small_run(), processes = small_run();
    processes.processes = true;
    linnet_simulation_result a = run(&memory), b = run(&processes);
    assert_same(&a, &b);
    linnet_simulation_result_release(&a);
    linnet_simulation_result_release(&b);
}

static void killed_processes_give_the_same_adapter(void **state)
{
    (void)state;
    linnet_simulation_config memory = small_run(), processes = small_run();
    processes.processes = true;
    processes.scenario.kills = 12;
    linnet_simulation_result a = run(&memory), b = run(&processes);
    assert_same(&a, &b);
    linnet_simulation_result_release(&a);
    linnet_simulation_result_release(&b);
}

static void an_output_folder_that_cannot_be_made_is_named(void **state)
{
    (void)state;
    linnet_cli cli = {.program = "test", .quiet = true, .out = stdout, .log = stderr};
    linnet_error err = {0};
    linnet_simulation_result result = {0};
    linnet_simulation_config config = small_run();
    config.out_directory = "/proc/no/such/place";
    assert_int_not_equal(linnet_simulation_run(&config, &cli, &result, &err), LINNET_OK);
    assert_non_null(strstr(err.message, "/proc/no"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_repeats_for_any_number_of_threads),
        cmocka_unit_test(lost_doubled_and_altered_messages_and_restarts_change_nothing),
        cmocka_unit_test(a_gate_keeps_back_what_scores_worse_than_allowed),
        cmocka_unit_test(a_round_closes_at_its_deadline_without_those_who_left),
        cmocka_unit_test(both_factors_and_momentum_run_too),
        cmocka_unit_test(real_processes_give_the_same_adapter),
        cmocka_unit_test(killed_processes_give_the_same_adapter),
        cmocka_unit_test(an_output_folder_that_cannot_be_made_is_named),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
