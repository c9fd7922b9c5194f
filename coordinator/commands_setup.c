/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that set up and steer: init, invite, revoke, pause, resume. They work on the state directory
 * itself, beside a serving process or without one: the store carries every decision, and the server looks
 * there each time. */
#include "commands.h"

#include <stdlib.h>
#include <time.h>

int64_t coordinator_now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now); /* always there on Linux */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

linnet_status coordinator_open_beside(const char *state, linnet_coordinator **ret_coordinator,
                                      linnet_error *err)
{
    const linnet_coordinator_options options = {.serve = false};
    return linnet_coordinator_open(state, &options, coordinator_now_ms(), ret_coordinator, err);
}

const char *coordinator_short_hex(const void *bytes, char text[17])
{
    linnet_hex_write(bytes, 8, text);
    return text;
}

/* ---- init ---- */

static void say_init(const linnet_cli *cli, const char *state, const linnet_coordinator_report *r)
{
    char task[33], key[65];
    linnet_hex_write(r->task, sizeof(r->task), task);
    linnet_hex_write(r->coordinator.bytes, sizeof(r->coordinator.bytes), key);
    linnet_cli_say(cli, "Task '%s' (%s) is set up in %s.\nCoordinator's key: %s\n", r->name, task, state,
                   key);
    if (r->operator_is_authority)
        linnet_cli_say(cli, "%s\n", COORDINATOR_TRIAL_TEXT);
    linnet_cli_say(cli,
                   "Next: linnet-coordinator invite --state %s, then linnet-coordinator serve --state %s\n",
                   state, state);
    linnet_cli_emit(cli, json_pack("{s:s, s:s, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:b}", "event", "result",
                                   "state", state, "task", linnet_json_hex(r->task, sizeof(r->task)), "name",
                                   r->name, "coordinator",
                                   linnet_json_hex(&r->coordinator, sizeof(r->coordinator)), "authority",
                                   linnet_json_hex(&r->authority, sizeof(r->authority)), "base_model",
                                   linnet_json_hex(&r->base_model, sizeof(r->base_model)), "plan",
                                   linnet_json_hex(&r->plan, sizeof(r->plan)), "adapter_hash",
                                   linnet_json_hex(&r->adapter, sizeof(r->adapter)), "operator_is_authority",
                                   r->operator_is_authority));
}

static int run_init(linnet_cli *cli, int argc, char **argv)
{
    const char *state = NULL, *plan_path = NULL, *model = NULL, *authority_hex = NULL;
    linnet_option options[] = {
        {.name = "state",
         .kind = LINNET_OPTION_TEXT,
         .value = &state,
         .argument = "DIR",
         .help = "state directory to make; absent or empty",
         .required = true},
        {.name = "plan",
         .kind = LINNET_OPTION_TEXT,
         .value = &plan_path,
         .argument = "PLAN",
         .help = "the task's plan, an INI file",
         .required = true},
        {.name = "model",
         .kind = LINNET_OPTION_TEXT,
         .value = &model,
         .argument = "M.gguf",
         .help = "the base model",
         .required = true},
        {.name = "authority-key",
         .kind = LINNET_OPTION_TEXT,
         .value = &authority_hex,
         .argument = "HEX",
         .help = "public key of an enrolment authority elsewhere ('authority init' prints it); without it "
                 "one is made here, for a trial"},
    };
    int done =
        linnet_cli_parse(cli, &coordinator_command_init, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (done >= 0)
        return done;
    linnet_error err = {0};
    linnet_plan plan;
    linnet_public_key authority;
    linnet_coordinator *c = NULL;
    linnet_coordinator_report report;
    if (authority_hex &&
        linnet_hex_read(authority_hex, authority.bytes, sizeof(authority.bytes)) != LINNET_OK)
        return linnet_cli_usage(cli, "--authority-key: '%s' is not a public key of 64 hex digits",
                                authority_hex);
    linnet_status status = linnet_plan_load(plan_path, &plan, &err);
    if (status == LINNET_OK)
        status = linnet_coordinator_init(state, &plan, model, authority_hex ? &authority : NULL,
                                         coordinator_now_ms(), &err);
    if (status == LINNET_OK)
        status = coordinator_open_beside(state, &c, &err);
    if (status == LINNET_OK)
        status = linnet_coordinator_status(c, &report, &err);
    linnet_coordinator_close(c);
    if (status != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    say_init(cli, state, &report);
    return 0;
}

const linnet_command coordinator_command_init = {
    .name = "init", .summary = "Set up a state directory: keys, store, first adapter", .run = run_init};

/* ---- invite ---- */

bool coordinator_parse_duration(const char *text, uint64_t *ret_seconds)
{
    static const struct {
        char unit;
        uint64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    unsigned long long n = strtoull(text, &end, 10);
    for (size_t i = 0; i < ARRAY_LEN(units); i++)
        if (end[0] == units[i].unit && end[1] == '\0' && n > 0 && n <= 100000000 / units[i].seconds * 36) {
            *ret_seconds = n * units[i].seconds;
            return true;
        }
    return false;
}

static linnet_status invite_many(linnet_cli *cli, linnet_coordinator *c, uint64_t count, uint64_t expires_s,
                                 json_t *texts, linnet_error *err)
{
    char text[LINNET_INVITE_TEXT_MAX];
    for (uint64_t i = 0; i < count; i++) {
        linnet_status status = linnet_coordinator_invite(c, expires_s, text, err);
        if (status != LINNET_OK)
            return status;
        linnet_cli_say(cli, "%s\n", text);
        (void)json_array_append_new(texts, json_string(text)); /* a full memory shows as a shorter list */
    }
    return LINNET_OK;
}

static int run_invite(linnet_cli *cli, int argc, char **argv)
{
    const char *state = NULL, *expires = "7d";
    uint64_t count = 1, seconds;
    linnet_option options[] = {
        {.name = "state",
         .kind = LINNET_OPTION_TEXT,
         .value = &state,
         .argument = "DIR",
         .help = "state directory",
         .required = true},
        {.name = "count",
         .kind = LINNET_OPTION_COUNT,
         .value = &count,
         .argument = "N",
         .help = "how many",
         .min = 1,
         .max = 1000000},
        {.name = "expires",
         .kind = LINNET_OPTION_TEXT,
         .value = &expires,
         .argument = "TIME",
         .help = "life of an unused invite: a number and s, m, h or d"},
    };
    int done =
        linnet_cli_parse(cli, &coordinator_command_invite, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (done >= 0)
        return done;
    if (!coordinator_parse_duration(expires, &seconds))
        return linnet_cli_usage(cli, "--expires: '%s' is no time such as 90s, 30m, 12h or 7d", expires);
    linnet_error err = {0};
    linnet_coordinator *c = NULL;
    json_t *texts = json_array();
    uint64_t expires_s = (uint64_t)(coordinator_now_ms() / 1000) + seconds;
    linnet_status status = coordinator_open_beside(state, &c, &err);
    if (status == LINNET_OK)
        status = invite_many(cli, c, count, expires_s, texts, &err);
    linnet_coordinator_close(c);
    if (status != LINNET_OK) {
        json_decref(texts);
        return linnet_cli_fail(cli, &err);
    }
    linnet_cli_emit(cli, json_pack("{s:s, s:o, s:I}", "event", "result", "invites", texts, "expires_s",
                                   (json_int_t)expires_s));
    return 0;
}

const linnet_command coordinator_command_invite = {
    .name = "invite", .summary = "Make one-use codes with which devices enrol", .run = run_invite};

/* ---- revoke, pause, resume ---- */

static int run_revoke(linnet_cli *cli, int argc, char **argv)
{
    const char *state = NULL;
    linnet_option options[] = {
        {.name = "state",
         .kind = LINNET_OPTION_TEXT,
         .value = &state,
         .argument = "DIR",
         .help = "state directory",
         .required = true},
    };
    int done =
        linnet_cli_parse(cli, &coordinator_command_revoke, options, ARRAY_LEN(options), argc, argv, 1, 1);
    if (done >= 0)
        return done;
    linnet_error err = {0};
    linnet_device_id id;
    linnet_coordinator *c = NULL;
    if (linnet_hex_read(cli->positionals[0], id.bytes, sizeof(id.bytes)) != LINNET_OK)
        return linnet_cli_usage(cli, "'%s' is no device id: 32 hex digits, as 'devices' prints them",
                                cli->positionals[0]);
    linnet_status status = coordinator_open_beside(state, &c, &err);
    if (status == LINNET_OK)
        status = linnet_coordinator_revoke(c, &id, &err);
    linnet_coordinator_close(c);
    if (status != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    linnet_cli_say(cli, "Device %s is revoked. Contributions accepted before stay in their rounds.\n",
                   cli->positionals[0]);
    linnet_cli_emit(cli, json_pack("{s:s, s:s}", "event", "result", "revoked", cli->positionals[0]));
    return 0;
}

const linnet_command coordinator_command_revoke = {.name = "revoke",
                                                   .arguments = "DEVICE",
                                                   .summary = "Put a device on the signed revocation list",
                                                   .run = run_revoke};

static int pause_or_resume(linnet_cli *cli, const linnet_command *self, bool pause, int argc, char **argv)
{
    const char *state = NULL;
    linnet_option options[] = {
        {.name = "state",
         .kind = LINNET_OPTION_TEXT,
         .value = &state,
         .argument = "DIR",
         .help = "state directory",
         .required = true},
    };
    int done = linnet_cli_parse(cli, self, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (done >= 0)
        return done;
    linnet_error err = {0};
    linnet_coordinator *c = NULL;
    linnet_status status = coordinator_open_beside(state, &c, &err);
    if (status == LINNET_OK)
        status = linnet_coordinator_pause(c, pause, &err);
    linnet_coordinator_close(c);
    if (status != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    linnet_cli_say(cli, pause ? "Paused: no device joins a round; those that have joined may finish.\n"
                              : "Resumed.\n");
    linnet_cli_emit(cli, json_pack("{s:s, s:b}", "event", "result", "paused", pause));
    return 0;
}

static int run_pause(linnet_cli *cli, int argc, char **argv)
{
    return pause_or_resume(cli, &coordinator_command_pause, true, argc, argv);
}

static int run_resume(linnet_cli *cli, int argc, char **argv)
{
    return pause_or_resume(cli, &coordinator_command_resume, false, argc, argv);
}

const linnet_command coordinator_command_pause = {
    .name = "pause", .summary = "Let no more devices join", .run = run_pause};
const linnet_command coordinator_command_resume = {
    .name = "resume", .summary = "Let devices join again", .run = run_resume};
