/* SPDX-License-Identifier: Apache-2.0 */
/* linnet-sim: federated rounds on one machine. */
#include "linnet/limits.h"
#include "linnet/sampler.h"
#include "linnet/simulation.h"

#include <dirent.h>
#include <errno.h>
#include <libgen.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

/* Everything that `run` and `demo` share: the values of their options. */
typedef struct run_options {
    const char *model, *data, *eval, *general, *plan, *scenario, *out;
    uint64_t devices, rounds, seed, eval_records;
    double participation, dirichlet_alpha, central_rate;
    int split;
    bool baselines, processes;
} run_options;

#define SPLITS "client|iid|dirichlet"
/* A device that is killed once it has committed to a masked round, and before it joins, is lost to it: the
 * others wait so long for it, and try again. */
#define PROCESSES_DEADLINE_S 60

/* The folder of this program, for the other two programs and the bundled model. */
static void program_folder(char folder[4096])
{
    ssize_t n = readlink("/proc/self/exe", folder, 4095);
    folder[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(folder, '/');
    if (slash)
        *slash = '\0';
}

static linnet_status check_out(const char *out, linnet_error *err)
{
    DIR *directory = opendir(out);
    size_t n = 0;
    if (!directory)
        return errno == ENOENT ? LINNET_OK : linnet_fail_errno(err, errno, "cannot use '%s'", out);
    while (readdir(directory))
        n++;
    (void)closedir(directory); /* opened for reading */
    return n <= 2 ? LINNET_OK
                  : linnet_fail(err, LINNET_ERR_EXISTS, "'%s' is not empty: name another --out or remove it",
                                out);
}

/* Everybody who is awake in every round; with masks, a third of them may leave it. */
static void plan_for(linnet_plan *plan, uint32_t n_awake)
{
    linnet_plan_default(plan);
    plan->goal = n_awake;
    plan->minimum = (7 * n_awake + 9) / 10;
    if (plan->minimum < LINNET_SECURE_COHORT_MIN)
        plan->minimum = LINNET_SECURE_COHORT_MIN;
}

/* Nobody waits for more than there are. */
static void fit_plan(linnet_plan *plan, uint32_t n_awake)
{
    if (plan->goal > n_awake)
        plan->goal = n_awake;
    if (plan->minimum > plan->goal)
        plan->minimum = plan->goal;
    if (plan->survivors > plan->minimum)
        plan->survivors = 0;                  /* three quarters of it */
    if (linnet_plan_join_max(plan) > n_awake) /* half a device below: it is rounded up */
        plan->over_selection = plan->goal < n_awake ? (n_awake - 0.5) / plan->goal : 1;
}

static linnet_status load_plan(const run_options *options, size_t n_awake, linnet_plan *ret_plan,
                               linnet_error *err)
{
    linnet_status status = LINNET_OK;
    if (options->plan)
        status = linnet_plan_load(options->plan, ret_plan, err);
    else
        plan_for(ret_plan, (uint32_t)n_awake);
    if (status != LINNET_OK)
        return status;
    if (linnet_profile_is_secure(ret_plan->profile) && n_awake < LINNET_SECURE_COHORT_MIN)
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "a sum of %zu devices hides nobody: let at least %d be awake in a round, or give "
                           "--plan a file that says 'profile = plain' under [secure]",
                           n_awake, LINNET_SECURE_COHORT_MIN);
    fit_plan(ret_plan, (uint32_t)n_awake);
    ret_plan->rounds = (uint32_t)options->rounds;
    if (options->processes && ret_plan->poll_s > 1)
        ret_plan->poll_s = 1; /* real seconds: nobody waits for a watch to wake up */
    if (options->processes && ret_plan->deadline_s > PROCESSES_DEADLINE_S)
        ret_plan->deadline_s = PROCESSES_DEADLINE_S;
    return linnet_plan_check(ret_plan, err);
}

static linnet_status prepare(const linnet_cli *cli, const run_options *options,
                             linnet_simulation_config *config, linnet_error *err)
{
    linnet_status status = check_out(options->out, err);
    linnet_scenario_default(&config->scenario);
    if (status == LINNET_OK && options->scenario)
        status = linnet_scenario_load(options->scenario, &config->scenario, err);
    if (status != LINNET_OK)
        return status;
    if (options->participation > 0)
        config->scenario.participation = options->participation;
    double awake = ceil(config->scenario.participation * (double)options->devices);
    status = load_plan(options, awake < 1 ? 1 : (size_t)awake, &config->plan, err);
    config->model_path = options->model;
    config->data_path = options->data;
    config->eval_path = options->eval;
    config->general_path = options->general;
    config->out_directory = options->out;
    config->split = (linnet_split)options->split;
    config->dirichlet_alpha = options->dirichlet_alpha;
    config->n_devices = options->devices;
    config->n_rounds = options->rounds;
    config->seed = options->seed;
    config->eval_records_max = options->eval_records;
    config->n_threads = (unsigned)cli->n_threads;
    config->baselines = options->baselines;
    config->processes = options->processes;
    config->central_rate = options->central_rate;
    return status;
}

/* What the profile means for a device, in a sentence. */
static const char *profile_meaning(int profile)
{
    switch ((linnet_profile)profile) {
    case LINNET_PROFILE_SECURE:
        return "the coordinator saw sums of masked changes, and no device's own change";
    case LINNET_PROFILE_SECURE_DP:
        return "the coordinator saw sums of masked and noised changes, and no device's own change";
    case LINNET_PROFILE_CENTRAL_DP:
        return "the coordinator saw every device's own change, and noised what it published";
    case LINNET_PROFILE_PLAIN:
        break;
    }
    return "the coordinator saw every device's own change";
}

static int run(linnet_cli *cli, const run_options *options)
{
    linnet_error err = {0};
    linnet_simulation_config config = {0};
    linnet_simulation_result result;
    char folder[4096];
    program_folder(folder);
    config.bin_directory = folder;
    if (prepare(cli, options, &config, &err) != LINNET_OK ||
        linnet_simulation_run(&config, cli, &result, &err) != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    linnet_simulation_print(cli, &result);
    linnet_cli_say(cli, "adapter %s/adapter (PEFT), %s/adapter.gguf\nreport  %s/report.html\n", options->out,
                   options->out, options->out);
    linnet_cli_say(cli, "profile %s: %s\n", linnet_profile_name(config.plan.profile),
                   profile_meaning(config.plan.profile));
    linnet_simulation_result_release(&result);
    return 0;
}

static const linnet_command commands[];
enum { COMMAND_RUN, COMMAND_DEMO, COMMAND_REPORT, COMMAND_COMPARE, N_COMMANDS };

static int run_main(linnet_cli *cli, int argc, char **argv)
{
    run_options o = {.rounds = 10, .split = LINNET_SPLIT_CLIENT, .dirichlet_alpha = 0.5, .baselines = true};
    linnet_option options[] = {
        {.name = "model",
         .kind = LINNET_OPTION_TEXT,
         .value = &o.model,
         .argument = "M.gguf",
         .help = "the frozen base model",
         .required = true},
        {.name = "data",
         .kind = LINNET_OPTION_TEXT,
         .value = &o.data,
         .argument = "D.jsonl",
         .help = "training records; \"client\" names their owner",
         .required = true},
        {.name = "devices",
         .kind = LINNET_OPTION_COUNT,
         .value = &o.devices,
         .argument = "N",
         .help = "virtual devices",
         .min = 1,
         .max = 1e6,
         .required = true},
        {.name = "rounds",
         .kind = LINNET_OPTION_COUNT,
         .value = &o.rounds,
         .argument = "R",
         .help = "federated rounds",
         .min = 1,
         .max = 1e5,
         .required = true},
        {.name = "out",
         .kind = LINNET_OPTION_TEXT,
         .value = &o.out,
         .argument = "DIR",
         .help = "new folder for everything the run leaves",
         .required = true},
        {.name = "plan",
         .kind = LINNET_OPTION_TEXT,
         .value = &o.plan,
         .argument = "PLAN",
         .help = "the plan; without one: defaults, everybody awake contributes"},
        {.name = "scenario",
         .kind = LINNET_OPTION_TEXT,
         .value = &o.scenario,
         .argument = "S",
         .help = "INI file of what happens on the way"},
        {.name = "eval",
         .kind = LINNET_OPTION_TEXT,
         .value = &o.eval,
         .argument = "E.jsonl",
         .help = "held-out records; without: every fifth training record of a device"},
        {.name = "eval-records",
         .kind = LINNET_OPTION_COUNT,
         .value = &o.eval_records,
         .argument = "N",
         .help = "thin a device's n held-out records to every ceil(n/N)-th; 0: all"},
        {.name = "general",
         .kind = LINNET_OPTION_TEXT,
         .value = &o.general,
         .argument = "G.jsonl",
         .help = "general records on which forgetting is measured"},
        {.name = "split",
         .kind = LINNET_OPTION_CHOICE,
         .value = &o.split,
         .argument = SPLITS,
         .help = "who holds which records"},
        {.name = "dirichlet-alpha",
         .kind = LINNET_OPTION_NUMBER,
         .value = &o.dirichlet_alpha,
         .argument = "X",
         .help = "concentration; small: skewed",
         .min = 1e-3,
         .max = 1e6},
        {.name = "participation",
         .kind = LINNET_OPTION_NUMBER,
         .value = &o.participation,
         .argument = "X",
         .help = "fraction of the devices awake in a round; 0: the scenario's (all)",
         .min = 0,
         .max = 1},
        {.name = "seed",
         .kind = LINNET_OPTION_COUNT,
         .value = &o.seed,
         .argument = "N",
         .help = "of everything that must repeat"},
        {.name = "baselines",
         .kind = LINNET_OPTION_SWITCH,
         .value = &o.baselines,
         .help = "train local-only and centralised adapters to compare with"},
        {.name = "central-rate",
         .kind = LINNET_OPTION_NUMBER,
         .value = &o.central_rate,
         .argument = "X",
         .help = "learning rate of the centralised run; 0: half the plan's",
         .min = 0,
         .max = 1},
        {.name = "processes",
         .kind = LINNET_OPTION_FLAG,
         .value = &o.processes,
         .help = "a real coordinator and real clients over loopback"},
    };
    int parsed = linnet_cli_parse(cli, &commands[COMMAND_RUN], options, ARRAY_LEN(options), argc, argv, 0, 0);
    return parsed >= 0 ? parsed : run(cli, &o);
}

/* ---- demo ---- */

/* Where the bundled files are: beside an installed program, else in the source tree. */
static const char *find_bundled(char path[4200])
{
    char folder[4096];
    const char *set = getenv("LINNET_BUNDLED");
    if (set) {
        (void)snprintf(path, 4200, "%s", set);
        return path;
    }
    program_folder(folder);
    (void)snprintf(path, 4200, "%s/../share/linnet/bundled", folder);
    return access(path, R_OK) == 0 ? path : LINNET_BUNDLED_SOURCE;
}

static linnet_status print_sample(const linnet_cli *cli, const char *name, const char *model_path,
                                  const char *adapter_path, const char *prompt, linnet_error *err)
{
    linnet_model *model = NULL;
    linnet_tokenizer *tokenizer = NULL;
    linnet_session *session = NULL;
    linnet_adapter *adapter = NULL;
    linnet_ids ids = {0};
    linnet_buffer text = {0};
    const float *logits = NULL;
    linnet_sampler sampler;
    linnet_sampler_init(&sampler, 0, 1, 0);
    linnet_status status = linnet_model_open(model_path, &model, err);
    if (status == LINNET_OK)
        status = linnet_tokenizer_create(linnet_model_gguf(model), &tokenizer, err);
    if (status == LINNET_OK)
        status = linnet_session_create(model, NULL, 0, &session, err);
    if (status == LINNET_OK && adapter_path)
        status = linnet_adapter_load(adapter_path, linnet_model_gguf(model), &adapter, err);
    if (status == LINNET_OK)
        status = linnet_session_set_adapter(session, adapter, err);
    if (status == LINNET_OK)
        status = linnet_tokenize(tokenizer, prompt, strlen(prompt),
                                 LINNET_TOKENIZE_PREFIX | LINNET_TOKENIZE_BEGIN, &ids, err);
    if (status == LINNET_OK)
        status = linnet_session_feed(session, ids.items, ids.n_items, &logits, err);
    for (int i = 0; status == LINNET_OK && i < 48; i++) {
        int32_t id;
        status = linnet_sampler_next(&sampler, logits, linnet_tokenizer_vocabulary(tokenizer), &id, err);
        if (status != LINNET_OK || linnet_tokenizer_is_end(tokenizer, id))
            break;
        linnet_detokenize(tokenizer, id, &text);
        status = linnet_session_feed(session, &id, 1, &logits, err);
    }
    if (status == LINNET_OK)
        linnet_cli_say(cli, "%-7s %s%.*s\n", name, prompt, (int)text.n_bytes, (const char *)text.bytes);
    linnet_buffer_release(&text);
    linnet_ids_release(&ids);
    linnet_sampler_release(&sampler);
    linnet_session_destroy(session);
    linnet_adapter_destroy(adapter);
    linnet_tokenizer_destroy(tokenizer);
    linnet_model_close(model);
    return status;
}

static int demo_main(linnet_cli *cli, int argc, char **argv)
{
    char bundled_path[4200], model[4400], data[4400], eval[4400], plan[4400], adapter[4400], out[64] = "";
    run_options o = {.rounds = LINNET_DEMO_ROUNDS,
                     .devices = 16,
                     .split = LINNET_SPLIT_CLIENT,
                     .dirichlet_alpha = 1,
                     .baselines = true};
    linnet_option options[] = {
        {.name = "out",
         .kind = LINNET_OPTION_TEXT,
         .value = &o.out,
         .argument = "DIR",
         .help = "new folder for everything the demo leaves; without: a temporary one"},
        {.name = "seed",
         .kind = LINNET_OPTION_COUNT,
         .value = &o.seed,
         .argument = "N",
         .help = "of everything that must repeat"},
        {.name = "processes",
         .kind = LINNET_OPTION_FLAG,
         .value = &o.processes,
         .help = "a real coordinator and real clients over loopback"},
    };
    int parsed =
        linnet_cli_parse(cli, &commands[COMMAND_DEMO], options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (parsed >= 0)
        return parsed;
    linnet_error err = {0};
    const char *bundled = find_bundled(bundled_path);
    (void)snprintf(model, sizeof(model), "%s/linnet-notes-Q8_0.gguf", bundled);
    (void)snprintf(data, sizeof(data), "%s/notes-train.jsonl", bundled);
    (void)snprintf(eval, sizeof(eval), "%s/notes-test.jsonl", bundled);
    (void)snprintf(plan, sizeof(plan), "%s/demo.ini", bundled);
    if (!o.out) {
        (void)snprintf(out, sizeof(out), "/tmp/linnet-demo-XXXXXX");
        if (!mkdtemp(out)) {
            (void)linnet_fail_errno(&err, errno, "cannot make a temporary folder");
            return linnet_cli_fail(cli, &err);
        }
        o.out = out;
    }
    o.model = model;
    o.data = data;
    o.eval = eval;
    o.plan = plan;
    linnet_cli_say(cli,
                   "16 devices fine-tune a shared model on their own notes; the notes stay with them.\n\n");
    int status = run(cli, &o);
    if (status != 0)
        return status;
    (void)snprintf(adapter, sizeof(adapter), "%s/adapter.gguf", o.out);
    linnet_cli_say(cli, "\n");
    if (print_sample(cli, "before:", model, NULL, LINNET_DEMO_PROMPT, &err) != LINNET_OK ||
        print_sample(cli, "after:", model, adapter, LINNET_DEMO_PROMPT, &err) != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    return 0;
}

/* ---- report, compare ---- */

static int report_main(linnet_cli *cli, int argc, char **argv)
{
    linnet_error err = {0};
    int parsed = linnet_cli_parse(cli, &commands[COMMAND_REPORT], NULL, 0, argc, argv, 1, 1);
    if (parsed >= 0)
        return parsed;
    if (linnet_report_write(cli->positionals[0], &err) != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    linnet_cli_say(cli, "%s/report.html\n", cli->positionals[0]);
    linnet_cli_emit(
        cli, json_pack("{s:s,s:s+}", "event", "result", "report", cli->positionals[0], "/report.html"));
    return 0;
}

static int compare_main(linnet_cli *cli, int argc, char **argv)
{
    static const char *const headers[] = {"run",       "rule",    "rounds", "base",     "local",
                                          "federated", "central", "gap",    "bytes up", "device s"};
    static const char *const fields[] = {"loss_base", "loss_local", "loss_federated", "loss_central",
                                         "gap_closed"};
    linnet_error err = {0};
    int parsed = linnet_cli_parse(cli, &commands[COMMAND_COMPARE], NULL, 0, argc, argv, 1, -1);
    if (parsed >= 0)
        return parsed;
    linnet_table *table = linnet_table_create(headers, ARRAY_LEN(headers));
    for (int i = 0; i < cli->n_positionals; i++) {
        json_t *result = NULL;
        char human[16];
        if (linnet_report_result(cli->positionals[i], &result, &err) != LINNET_OK) {
            linnet_table_destroy(table);
            return linnet_cli_fail(cli, &err);
        }
        const char *rule = json_string_value(json_object_get(result, "rule"));
        linnet_table_cell(table, "%s", cli->positionals[i]);
        linnet_table_cell(table, "%s", rule ? rule : "-");
        linnet_table_cell(table, "%.0f", json_number_value(json_object_get(result, "rounds")));
        for (size_t j = 0; j < ARRAY_LEN(fields); j++) {
            const json_t *value = json_object_get(result, fields[j]);
            if (json_is_number(value))
                linnet_table_cell(table, "%.4f", json_number_value(value));
            else
                linnet_table_cell(table, "-");
        }
        linnet_table_cell(
            table, "%s",
            linnet_human_bytes((uint64_t)json_number_value(json_object_get(result, "bytes_up")), human));
        linnet_table_cell(table, "%.1f", json_number_value(json_object_get(result, "device_seconds")));
        (void)json_object_set_new(result, "run",
                                  json_string(cli->positionals[i])); /* without it the line still stands */
        linnet_cli_emit(cli, result);
    }
    if (!cli->json && !cli->quiet)
        linnet_table_print(table, cli->out);
    linnet_table_destroy(table);
    return 0;
}

static const linnet_command commands[N_COMMANDS] = {
    [COMMAND_RUN] = {.name = "run",
                     .summary =
                         "Federated rounds of virtual devices, beside base, local-only and centralised runs.",
                     .run = run_main},
    [COMMAND_DEMO] = {.name = "demo",
                      .summary = "The bundled model and notes of 16 owners; no arguments needed.",
                      .run = demo_main},
    [COMMAND_REPORT] = {.name = "report",
                        .arguments = "DIR",
                        .summary = "Write DIR/report.html again from DIR/run.jsonl.",
                        .run = report_main},
    [COMMAND_COMPARE] = {.name = "compare",
                         .arguments = "DIR...",
                         .summary = "Results of several runs, a row each.",
                         .run = compare_main},
};

int main(int argc, char **argv)
{
    return linnet_cli_main(
        "linnet-sim", "Simulate federated fine-tuning on one machine: many virtual devices, one coordinator.",
        commands, N_COMMANDS, argc, argv);
}
