/* SPDX-License-Identifier: Apache-2.0 */
/* linnet-coordinator as a program: its commands, exit statuses and JSON, and serve with a signal's end. */
#include "testing.h"

#include "linnet/bytes.h"

#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAM LINNET_BIN "/linnet-coordinator"

static char folder[] = "/tmp/linnet-test-program-XXXXXX";
static const char *model;

/* Run the program in the folder; the last line of its output as JSON (owned) or NULL; the exit status. */
static int run(const char *arguments, json_t **ret_result)
{
    char command[1024], line[8192], last[8192] = "";
    (void)snprintf(command, sizeof(command), "cd %s && %s %s 2>err", folder, PROGRAM, arguments);
    FILE *out = popen(command, "r");
    assert_non_null(out);
    while (fgets(line, sizeof(line), out))
        (void)snprintf(last, sizeof(last), "%s", line);
    int status = pclose(out);
    if (ret_result)
        *ret_result = json_loads(last, 0, NULL);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static const char *stderr_text(void)
{
    static char text[2048];
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/err", folder);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    (void)fclose(file);
    return text;
}

static void write_file(const char *name, const char *text)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int make_folder(void **state)
{
    static char kept[4096];
    (void)state;
    const char *path = testing_shared("models/stories260K-F32.gguf");
    if (path) {
        (void)snprintf(kept, sizeof(kept), "%s", path);
        model = kept;
    }
    if (!mkdtemp(folder))
        return -1;
    write_file("plan.ini",
               "[task]\nname = program\nrounds = 2\n[adapter]\nrank = 2\n[cohort]\ngoal = 3\nminimum = 3\n");
    return 0;
}

static int remove_folder(void **state)
{
    char command[64];
    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command);
}

static void wrong_use_is_2_and_failure_is_1(void **state)
{
    (void)state;
    static const struct {
        const char *arguments;
        int want;
        const char *word; /* in the one line on stderr */
    } cases[] = {
        {"", 2, "linnet-coordinator"},
        {"serv", 2, "serve"},
        {"init", 2, "state"},
        {"init --state s --plan plan.ini", 2, "model"},
        {"init --state s --plan none.ini --model m.gguf", 1, "none.ini"},
        {"init --state s --plan plan.ini --model none.gguf", 1, "none.gguf"},
        {"init --state s --plan plan.ini --model m --authority-key zz", 2, "authority-key"},
        {"status --state nowhere", 1, "init"},
        {"serve --state nowhere", 1, "init"},
        {"serve --state s --gate-timeout 0", 2, "gate-timeout"},
        {"rollback", 2, "state"},
        {"rollback --state s --to x", 2, "to"},
        {"rollback --state nowhere", 1, "init"},
        {"invite --state s --expires 7x", 2, "7x"},
        {"invite --state s --count 0", 2, "count"},
        {"revoke --state s", 2, ""},
        {"revoke --state s zz", 2, "zz"},
        {"export --state s --out x", 2, "format"},
        {"export --state s --out x --format onnx", 2, "format"},
        {"plan-check none.ini", 1, "none.ini"},
        {"authority frobnicate --state s", 2, "frobnicate"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int got = run(cases[i].arguments, NULL);
        if (got != cases[i].want || !strstr(stderr_text(), cases[i].word))
            fail_msg("'%s': %d, '%s'", cases[i].arguments, got, stderr_text());
    }
}

static void set_up(const char *state_name)
{
    char arguments[4300];
    json_t *result = NULL;
    (void)snprintf(arguments, sizeof(arguments), "init --json --state %s --plan plan.ini --model %s",
                   state_name, model);
    assert_int_equal(run(arguments, &result), 0);
    assert_string_equal(json_string_value(json_object_get(result, "event")), "result");
    assert_true(json_is_true(json_object_get(result, "operator_is_authority")));
    json_decref(result);
}

static void commands_speak_json(void **state)
{
    (void)state;
    json_t *result = NULL;
    char arguments[4300];
    if (!model)
        skip();
    set_up("state");
    (void)snprintf(arguments, sizeof(arguments), "init --state state --plan plan.ini --model %s", model);
    assert_int_equal(run(arguments, NULL), 1);
    assert_non_null(strstr(stderr_text(), "not empty"));
    assert_int_equal(run("invite --json --state state --count 3", &result), 0);
    assert_int_equal(json_array_size(json_object_get(result, "invites")), 3);
    json_decref(result);
    assert_int_equal(run("pause --json --state state", &result), 0);
    json_decref(result);
    assert_int_equal(run("status --json --state state", &result), 0);
    assert_string_equal(json_string_value(json_object_get(result, "name")), "program");
    assert_int_equal(json_integer_value(json_object_get(result, "invites_open")), 3);
    assert_int_equal(json_integer_value(json_object_get(result, "round")), 1);
    assert_true(json_is_true(json_object_get(result, "paused")));
    json_decref(result);
    assert_int_equal(run("resume --state state", NULL), 0);
    assert_int_equal(run("rounds --json --state state | head -1", &result), 0);
    static const char *const fields[] = {"round",    "state",      "invited",      "joined",
                                         "accepted", "dropped",    "loss_before",  "loss_after",
                                         "bytes_up", "bytes_down", "adapter_hash", "epsilon"};
    for (size_t i = 0; i < ARRAY_LEN(fields); i++)
        if (!json_object_get(result, fields[i]))
            fail_msg("rounds: no field '%s'", fields[i]);
    json_decref(result);
    assert_int_equal(run("rounds --json --influence --state state", &result), 0);
    assert_int_equal(json_integer_value(json_object_get(result, "rounds")), 1);
    json_decref(result);
    assert_int_equal(run("rollback --state state", NULL), 1);
    assert_non_null(strstr(stderr_text(), "no older adapter"));
    assert_int_equal(run("audit --json --state state", &result), 0);
    assert_int_equal(json_integer_value(json_object_get(result, "flaws")), 0);
    assert_int_equal(json_integer_value(json_object_get(result, "entries")), 2);
    json_decref(result);
    assert_int_equal(run("privacy --json --state state", &result), 0);
    assert_true(json_is_false(json_object_get(result, "differential_privacy")));
    json_decref(result);
    (void)snprintf(arguments, sizeof(arguments), "plan-check --json plan.ini --model %s", model);
    assert_int_equal(run(arguments, &result), 0);
    assert_true(json_integer_value(json_object_get(result, "bytes_up")) > 0);
    json_decref(result);
    assert_int_equal(run("revoke --state state 00000000000000000000000000000000", NULL), 1);
    assert_int_equal(run("export --json --state state --format gguf --out a.gguf", &result), 0);
    json_decref(result);
    assert_int_equal(run("export --state state --round 0 --format peft --out peft", NULL), 0);
    assert_int_equal(run("export --state state --round 1 --format peft --out peft1", NULL),
                     1); /* still open */
}

static const json_t *field(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    if (!value)
        fail_msg("no field %s", name);
    return value;
}

/* A refused plan ends with 1 and its reason, a useless one with 0 and a loud line; all before anyone
 * trains. */
static void plan_check_tells_promise_price_and_use(void **state)
{
    (void)state;
    json_t *result = NULL;
    char arguments[4300], line[1024];
    bool is_loud = false;
    write_file("joint.ini", "[privacy]\nmechanism = record-joint\n");
    assert_int_equal(run("plan-check joint.ini", NULL), 1);
    assert_non_null(strstr(stderr_text(), "record-joint is refused"));
    write_file("budget.ini", "[task]\npreset = wearables-dp\n[privacy]\nepsilon_max = 2\n");
    assert_int_equal(run("plan-check budget.ini", NULL), 1);
    assert_non_null(strstr(stderr_text(), "20 rounds spend epsilon"));

    write_file("fleet.ini", "[task]\npreset = wearables-dp\n");
    assert_int_equal(run("plan-check --json fleet.ini", &result), 0);
    assert_string_equal(json_string_value(field(result, "unit")), "device");
    assert_true(json_number_value(field(result, "epsilon")) >
                json_number_value(field(result, "epsilon_round")));
    assert_true(json_is_string(field(result, "claim")) && json_is_string(field(result, "assumption")));
    assert_int_equal(json_integer_value(field(field(result, "roster_goal"), "corrupt")), 50);
    assert_int_equal(json_integer_value(field(field(result, "roster_minimum"), "dropouts")), 100);
    assert_null(json_object_get(result, "verdict")); /* nothing is said without the model's size */
    json_decref(result);
    if (!model)
        skip();
    (void)snprintf(arguments, sizeof(arguments), "plan-check --json fleet.ini --model %s", model);
    assert_int_equal(run(arguments, &result), 0);
    assert_string_equal(json_string_value(field(result, "verdict")), "workable");
    assert_true(json_number_value(field(result, "noise_norm")) <
                json_number_value(field(result, "signal_norm")));
    assert_true(json_integer_value(field(result, "messages_down")) > 700000);
    json_decref(result);
    write_file("few.ini",
               "[task]\npreset = wearables-dp\n[cohort]\ngoal = 20\nminimum = 20\nover_selection = "
               "1\n[secure]\nsurvivors = 15\n[encoding]\nring_bits = 24\n");
    (void)snprintf(arguments, sizeof(arguments), "cd %s && %s plan-check few.ini --model %s", folder, PROGRAM,
                   model);
    FILE *out = popen(arguments, "r");
    assert_non_null(out);
    while (fgets(line, sizeof(line), out))
        is_loud = is_loud || strncmp(line, "THIS PLAN IS USELESS", 20) == 0;
    assert_int_equal(pclose(out), 0);
    assert_true(is_loud);
}

/* The first line that a serving child prints. */
static pid_t serve(const char *arguments[], char line[512])
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int quiet = open("/dev/null", O_WRONLY);
        (void)dup2(fds[1], 1);
        (void)dup2(quiet, 2);
        if (chdir(folder) != 0)
            _exit(126);
        (void)execv(PROGRAM, (char *const *)(uintptr_t)arguments);
        _exit(127);
    }
    (void)close(fds[1]);
    FILE *out = fdopen(fds[0], "r");
    assert_non_null(out);
    if (!fgets(line, 512, out))
        line[0] = '\0';
    (void)fclose(out);
    return child;
}

static int end(pid_t child)
{
    int status = 0;
    assert_int_equal(kill(child, SIGTERM), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void serve_listens_is_alone_and_ends_in_order(void **state)
{
    (void)state;
    char line[512], second[512], command[256];
    if (!model)
        skip();
    set_up("served");
    set_up("other");
    const char *arguments[] = {PROGRAM,  "serve",    "--json",      "--state",
                               "served", "--listen", "127.0.0.1:0", NULL};
    pid_t child = serve(arguments, line);
    json_t *event = json_loads(line, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(event, "event")), "listening");
    const char *address = json_string_value(json_object_get(event, "address"));
    assert_true(strncmp(address, "127.0.0.1:", 10) == 0 && strcmp(address, "127.0.0.1:0") != 0);
    /* a second one on the same state, and another state on the same port */
    assert_int_equal(run("serve --state served --listen 127.0.0.1:0", NULL), 1);
    assert_non_null(strstr(stderr_text(), "already"));
    (void)snprintf(command, sizeof(command), "serve --state other --listen %s", address);
    assert_int_equal(run(command, NULL), 1);
    assert_non_null(strstr(stderr_text(), "in use"));
    /* reports and invites work beside it */
    assert_int_equal(run("invite --state served", NULL), 0);
    assert_int_equal(run("status --state served", NULL), 0);
    assert_int_equal(end(child), 0);
    child = serve(arguments, second); /* and it starts again */
    assert_non_null(strstr(second, "listening"));
    assert_int_equal(end(child), 0);
    json_decref(event);
}

/* A plan with a gate and a serve without one, and the other way round, are found out at the start. */
static void plan_and_serve_agree_on_a_gate(void **state)
{
    (void)state;
    char arguments[4300];
    if (!model)
        skip();
    write_file("gated.ini", "[evaluation]\ngate_tolerance = 1.05\n");
    (void)snprintf(arguments, sizeof(arguments), "init --state gated --plan gated.ini --model %s", model);
    assert_int_equal(run(arguments, NULL), 0);
    assert_int_equal(run("serve --state gated --listen 127.0.0.1:0", NULL), 1);
    assert_non_null(strstr(stderr_text(), "give --gate"));
    assert_int_equal(run("serve --state gated --listen 127.0.0.1:0 --gate ' '", NULL), 1);
    assert_non_null(strstr(stderr_text(), "names no program"));
    set_up("ungated");
    assert_int_equal(run("serve --state ungated --listen 127.0.0.1:0 --gate true", NULL), 1);
    assert_non_null(strstr(stderr_text(), "nothing would ask"));
    const char *with_gate[] = {PROGRAM,    "serve",       "--json", "--state", "gated",
                               "--listen", "127.0.0.1:0", "--gate", "true",    NULL};
    char line[512];
    pid_t child = serve(with_gate, line);
    assert_non_null(strstr(line, "listening"));
    assert_int_equal(end(child), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_use_is_2_and_failure_is_1),
        cmocka_unit_test(commands_speak_json),
        cmocka_unit_test(plan_check_tells_promise_price_and_use),
        cmocka_unit_test(serve_listens_is_alone_and_ends_in_order),
        cmocka_unit_test(plan_and_serve_agree_on_a_gate),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
