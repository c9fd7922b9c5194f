/* SPDX-License-Identifier: Apache-2.0 */
/* Whole federated runs of the bundled model: they repeat bit for bit, learn, and end in the same adapter
 * whatever happens to messages and processes on the way. */
#include "client/encoder_model.h"
#include "runtime_directory.h"
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
    return runtime_directory_make() == 0 && mkdtemp(folder) && linnet_crypto_init(&err) == LINNET_OK ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[128];
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    int removed = runtime_directory_remove();
    return system(command) != 0 ? -1 : removed;
}

/* What holds with masks must hold without them. */
static const linnet_profile profiles[] = {LINNET_PROFILE_SECURE, LINNET_PROFILE_PLAIN};

/* Five owners, three short rounds, with masks. */
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
    config.plan.minimum = 5;
    config.plan.survivors = 5;
    config.plan.phase_deadline_s = 20;
    config.plan.deadline_s = 25; /* of a round that a killed device cannot join any more */
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

static void set_profile(linnet_simulation_config *config, linnet_profile profile)
{
    config->plan.profile = profile;
    if (profile == LINNET_PROFILE_PLAIN)
        config->plan.survivors = 0; /* of masked sums only */
}

static void assert_same(const linnet_simulation_result *a, const linnet_simulation_result *b)
{
    assert_memory_equal(&a->adapter, &b->adapter, sizeof(a->adapter));
    assert_memory_equal(&a->transcript, &b->transcript, sizeof(a->transcript));
}

static void the_same_seed_repeats_and_learns(void **state)
{
    (void)state;
    linnet_simulation_config one = small_run(), two = small_run(), other = small_run();
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

/* Five owners of ten labelled texts each; every fifth is for evaluation. */
static void write_labelled_texts(const char *path)
{
    static const char *const words[] = {"rain", "sun", "film", "the"};
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < 50; i++) {
        bool is_good = i % 3 != 0;
        (void)fprintf(file, "{\"text\":\"%s was %s %s\",\"label\":\"%s\",\"client\":\"%d\"}\n", words[i % 4],
                      is_good ? "good" : "bad", words[i / 4 % 4], is_good ? "much" : "no", i % 5);
    }
    assert_int_equal(fclose(file), 0);
}

/* Records with labels need nothing of their own in a round: an encoder's fleet learns them, head and all. */
static void a_fleet_of_encoders_learns_labels_behind_masks(void **state)
{
    (void)state;
    json_t *object = encoder_case("bert with a pooler");
    vector_model m = vector_model_open(object);
    linnet_simulation_config one = small_run(), two = small_run();
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/labels.jsonl", folder);
    write_labelled_texts(path);
    linnet_simulation_config *const configs[] = {&one, &two};
    for (size_t i = 0; i < 2; i++) {
        configs[i]->model_path = m.path;
        configs[i]->data_path = path;
        configs[i]->eval_path = NULL;
        configs[i]->plan.learning_rate_b = configs[i]->plan.learning_rate_a = 1e-2;
        configs[i]->plan.context_tokens = 16;
    }
    two.n_threads = 2;
    linnet_simulation_result a = run(&one), b = run(&two);
    assert_same(&a, &b);
    assert_true(a.loss_federated < 0.8 * a.loss_base);
    linnet_simulation_result_release(&a);
    linnet_simulation_result_release(&b);
    vector_model_close(&m);
    json_decref(object);
}

static void masked_sums_equal_plain_ones_bit_for_bit(void **state)
{
    (void)state;
    linnet_simulation_config masked = small_run(), plain = small_run();
    set_profile(&plain, LINNET_PROFILE_PLAIN);
    linnet_simulation_result a = run(&masked), b = run(&plain);
    assert_memory_equal(&a.adapter, &b.adapter, sizeof(a.adapter));
    assert_memory_not_equal(&a.transcript, &b.transcript, sizeof(a.transcript)); /* plain bytes are in it */
    linnet_simulation_result_release(&a);
    linnet_simulation_result_release(&b);
}

static void devices_train_with_the_dropout_of_the_plan(void **state)
{
    (void)state;
    linnet_simulation_config one = small_run(), two = small_run(), none = small_run();
    one.plan.dropout = two.plan.dropout = 0.2;
    two.n_threads = 3;
    linnet_simulation_result a = run(&one), b = run(&two), c = run(&none);
    assert_same(&a, &b);
    assert_memory_not_equal(&a.adapter, &c.adapter, sizeof(a.adapter));
    assert_true(a.loss_federated < a.loss_base - 0.05);
    linnet_simulation_result_release(&a);
    linnet_simulation_result_release(&b);
    linnet_simulation_result_release(&c);
}

/* A calm run and a disturbed one of the same profile. */
static void assert_changes_nothing(void (*disturb)(linnet_simulation_config *config))
{
    for (size_t i = 0; i < ARRAY_LEN(profiles); i++) {
        linnet_simulation_config calm = small_run(), disturbed = small_run();
        set_profile(&calm, profiles[i]);
        set_profile(&disturbed, profiles[i]);
        disturb(&disturbed);
        linnet_simulation_result a = run(&calm), b = run(&disturbed);
        assert_same(&a, &b);
        linnet_simulation_result_release(&a);
        linnet_simulation_result_release(&b);
    }
}

static void use_threads(linnet_simulation_config *config)
{
    config->n_threads = 3;
}

static void storm(linnet_simulation_config *config)
{
    config->scenario.lose = 0.05;
    config->scenario.duplicate = 0.1;
    config->scenario.corrupt = 0.05;
    config->scenario.restart = 0.05;
}

static void use_processes(linnet_simulation_config *config)
{
    config->processes = true;
}

static void kill_processes(linnet_simulation_config *config)
{
    config->processes = true;
    config->scenario.kills = testing_size("kills", 12, 4);
}

static void any_number_of_threads_gives_the_same_adapter(void **state)
{
    (void)state;
    assert_changes_nothing(use_threads);
}

static void lost_doubled_and_altered_messages_and_restarts_change_nothing(void **state)
{
    (void)state;
    assert_changes_nothing(storm);
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
    for (size_t i = 0; i < ARRAY_LEN(profiles); i++) {
        linnet_simulation_config config = small_run();
        config.n_devices = 8;
        set_profile(&config, profiles[i]);
        config.plan.goal = config.plan.minimum = 8;
        if (profiles[i] == LINNET_PROFILE_PLAIN)
            config.plan.minimum = 6; /* as many as eight members with masks must leave */
        config.plan.survivors = 0;
        config.scenario.drop_out = 0.12;
        linnet_simulation_result result = run(&config);
        uint32_t dropped = 0;
        for (size_t r = 0; r < result.n_rounds; r++) {
            dropped += result.rounds[r].dropped;
            assert_int_equal(result.rounds[r].accepted + result.rounds[r].dropped, 8);
            assert_in_range(result.rounds[r].accepted, 6, 8);
        }
        assert_true(dropped > 0);
        assert_true(result.loss_federated < result.loss_base - 0.05);
        linnet_simulation_result_release(&result);
    }
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
    assert_changes_nothing(use_processes);
}

static void killed_processes_give_the_same_adapter(void **state)
{
    (void)state;
    assert_changes_nothing(kill_processes);
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
    cmocka_set_test_filter(getenv("LINNET_TEST"));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_repeats_and_learns),
        cmocka_unit_test(a_fleet_of_encoders_learns_labels_behind_masks),
        cmocka_unit_test(masked_sums_equal_plain_ones_bit_for_bit),
        cmocka_unit_test(any_number_of_threads_gives_the_same_adapter),
        cmocka_unit_test(devices_train_with_the_dropout_of_the_plan),
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
