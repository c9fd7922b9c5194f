/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that only read: status, rounds, devices, export. */
#include "commands.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#define STATE_OPTION(state)                                                                                  \
    {                                                                                                        \
        .name = "state", .kind = LINNET_OPTION_TEXT, .value = &(state), .argument = "DIR",                   \
        .help = "state directory", .required = true                                                          \
    }

int coordinator_report_begin(linnet_cli *cli, const linnet_command *self, int argc, char **argv,
                             linnet_coordinator **ret_coordinator)
{
    const char *state = NULL;
    linnet_error err = {0};
    linnet_option options[] = {STATE_OPTION(state)};
    int done = linnet_cli_parse(cli, self, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (done >= 0)
        return done;
    return coordinator_open_beside(state, ret_coordinator, &err) == LINNET_OK ? -1
                                                                              : linnet_cli_fail(cli, &err);
}

/* ---- status ---- */

const char *coordinator_authority_text(const linnet_coordinator_report *r)
{
    if (r->operator_is_authority)
        return linnet_profile_is_secure(r->profile) ? COORDINATOR_TRIAL_TEXT
                   " What is left holds against an operator that is honest but curious, "
                   "a stolen disk and outsiders."
                                                    : COORDINATOR_TRIAL_TEXT;
    return linnet_profile_is_secure(r->profile) ? "its key is not with this coordinator: the promise also "
                                                  "holds against a malicious operator, for "
                                                  "rosters with at most C members on its side"
                                                : "its key is not with this coordinator; this profile "
                                                  "promises nothing against its operator all "
                                                  "the same";
}

static void say_status(const linnet_cli *cli, const linnet_coordinator_report *r)
{
    char adapter[17];
    linnet_cli_say(cli, "task            %s\nversion         %llu%s\nadapter         %s\n", r->name,
                   (unsigned long long)r->version, r->is_finished ? " (final)" : "",
                   coordinator_short_hex(&r->adapter, adapter));
    if (linnet_profile_is_secure(r->profile))
        linnet_cli_say(cli,
                       "round           %llu (%s), %u members, %u shared, %u uploaded; a roster of %u, at "
                       "least %u\n",
                       (unsigned long long)r->round, r->round_state, r->joined, r->sharers, r->accepted,
                       r->goal, r->minimum);
    else
        linnet_cli_say(cli, "round           %llu (%s), joined %u, accepted %u of %u, at least %u\n",
                       (unsigned long long)r->round, r->round_state, r->joined, r->accepted, r->goal,
                       r->minimum);
    linnet_cli_say(cli,
                   "devices         %llu, %llu revoked\nopen invites    %llu\npaused          %s\n"
                   "profile         %s\nauthority       %s\n",
                   (unsigned long long)r->n_devices, (unsigned long long)r->n_revoked,
                   (unsigned long long)r->n_invites_open, r->is_paused ? "yes" : "no",
                   linnet_profile_name(r->profile), coordinator_authority_text(r));
}

static void emit_status(const linnet_cli *cli, const linnet_coordinator_report *r)
{
    json_t *object = json_pack(
        "{s:s, s:s, s:o, s:I, s:I, s:s, s:I, s:I, s:I, s:I}", "event", "result", "name", r->name, "task",
        linnet_json_hex(r->task, sizeof(r->task)), "version", (json_int_t)r->version, "round",
        (json_int_t)r->round, "round_state", r->round_state, "joined", (json_int_t)r->joined, "accepted",
        (json_int_t)r->accepted, "goal", (json_int_t)r->goal, "minimum", (json_int_t)r->minimum);
    json_t *more = json_pack(
        "{s:I, s:I, s:I, s:b, s:b, s:b, s:o, s:o, s:o, s:o, s:o, s:s}", "devices", (json_int_t)r->n_devices,
        "revoked", (json_int_t)r->n_revoked, "invites_open", (json_int_t)r->n_invites_open, "paused",
        r->is_paused, "finished", r->is_finished, "operator_is_authority", r->operator_is_authority,
        "coordinator", linnet_json_hex(&r->coordinator, sizeof(r->coordinator)), "authority",
        linnet_json_hex(&r->authority, sizeof(r->authority)), "adapter_hash",
        linnet_json_hex(&r->adapter, sizeof(r->adapter)), "base_model",
        linnet_json_hex(&r->base_model, sizeof(r->base_model)), "plan",
        linnet_json_hex(&r->plan, sizeof(r->plan)), "profile", linnet_profile_name(r->profile));
    if (object && more)
        (void)json_object_update(object, more); /* on lack of memory the line is shorter */
    json_decref(more);
    linnet_cli_emit(cli, object);
}

static int run_status(linnet_cli *cli, int argc, char **argv)
{
    linnet_coordinator *c = NULL;
    linnet_error err = {0};
    linnet_coordinator_report report;
    int done = coordinator_report_begin(cli, &coordinator_command_status, argc, argv, &c);
    if (done >= 0)
        return done;
    linnet_status status = linnet_coordinator_status(c, &report, &err);
    linnet_coordinator_close(c);
    if (status != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    say_status(cli, &report);
    emit_status(cli, &report);
    return 0;
}

const linnet_command coordinator_command_status = {
    .name = "status", .summary = "Where the task stands", .run = run_status};

/* ---- rounds ---- */

static void number_cell(linnet_table *table, bool is_there, double value)
{
    if (is_there)
        linnet_table_cell(table, "%.4f", value);
    else
        linnet_table_cell(table, "-");
}

/* A plain round has no sharers. */
static void sharers_cell(linnet_table *table, const linnet_round_report *r)
{
    if (r->sharers > 0)
        linnet_table_cell(table, "%u", r->sharers);
    else
        linnet_table_cell(table, "-");
}

static void print_rounds(const linnet_cli *cli, const linnet_round_report *rounds, size_t n)
{
    static const char *const headers[] = {"round",      "state",    "invited", "joined",
                                          "shared",     "accepted", "dropped", "loss before",
                                          "loss after", "up",       "down",    "adapter"};
    char up[16], down[16], adapter[17];
    if (cli->json || cli->quiet)
        return;
    linnet_table *table = linnet_table_create(headers, ARRAY_LEN(headers));
    for (size_t i = 0; i < n; i++) {
        const linnet_round_report *r = &rounds[i];
        linnet_table_cell(table, "%llu", (unsigned long long)r->round);
        linnet_table_cell(table, "%s", r->state);
        linnet_table_cell(table, "%u", r->invited);
        linnet_table_cell(table, "%u", r->joined);
        sharers_cell(table, r);
        linnet_table_cell(table, "%u", r->accepted);
        linnet_table_cell(table, "%u", r->dropped);
        number_cell(table, r->has_loss_before, r->loss_before);
        number_cell(table, r->has_loss_after, r->loss_after);
        linnet_table_cell(table, "%s", linnet_human_bytes(r->bytes_up, up));
        linnet_table_cell(table, "%s", linnet_human_bytes(r->bytes_down, down));
        linnet_table_cell(table, "%s",
                          strcmp(r->state, "closed") == 0 || strcmp(r->state, "rejected") == 0
                              ? coordinator_short_hex(&r->adapter, adapter)
                              : "-");
    }
    linnet_table_print(table, cli->out);
    linnet_table_destroy(table);
}

/* What was combined in one round, and how far each part went. */
static linnet_status tell_influence(const linnet_cli *cli, linnet_coordinator *c, uint64_t round,
                                    linnet_table *table, linnet_error *err)
{
    linnet_influence *parts = NULL;
    size_t n = 0;
    linnet_status status = linnet_coordinator_influence(c, round, &parts, &n, err);
    for (size_t i = 0; i < n && status == LINNET_OK; i++) {
        const linnet_influence *p = &parts[i];
        char id[2 * LINNET_DEVICE_ID_BYTES + 1] = "cohort";
        if (p->is_device)
            linnet_hex_write(&p->device_id, sizeof(p->device_id), id);
        linnet_table_cell(table, "%llu", (unsigned long long)round);
        linnet_table_cell(table, "%s", id);
        linnet_table_cell(table, "%.4f", p->weight);
        linnet_table_cell(table, "%.4g", p->norm);
        linnet_table_cell(table, "%.4f", p->cosine);
        number_cell(table, p->has_factor, p->factor);
        linnet_cli_emit(cli,
                        json_pack("{s:s, s:I, s:o, s:o, s:o, s:o, s:o}", "event", "influence", "round",
                                  (json_int_t)round, "device", p->is_device ? json_string(id) : json_null(),
                                  "weight", linnet_json_number(p->weight), "norm",
                                  linnet_json_number(p->norm), "cosine", linnet_json_number(p->cosine),
                                  "factor", p->has_factor ? linnet_json_number(p->factor) : json_null()));
    }
    free(parts);
    return status;
}

static linnet_status tell_influences(const linnet_cli *cli, linnet_coordinator *c,
                                     const linnet_round_report *rounds, size_t n, linnet_error *err)
{
    static const char *const headers[] = {"round", "part", "weight", "norm", "cosine", "factor"};
    linnet_table *table = linnet_table_create(headers, ARRAY_LEN(headers));
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < n && status == LINNET_OK; i++)
        status = tell_influence(cli, c, rounds[i].round, table, err);
    if (status == LINNET_OK && !cli->json && !cli->quiet)
        linnet_table_print(table, cli->out);
    linnet_table_destroy(table);
    return status;
}

static int run_rounds(linnet_cli *cli, int argc, char **argv)
{
    linnet_coordinator *c = NULL;
    linnet_error err = {0};
    linnet_round_report *rounds = NULL;
    const char *state = NULL;
    bool influence = false;
    size_t n = 0;
    linnet_option options[] = {
        STATE_OPTION(state),
        {.name = "influence",
         .kind = LINNET_OPTION_FLAG,
         .value = &influence,
         .help = "norm, cosine and factor of each cohort, or of each device where the rule compares them"},
    };
    int done =
        linnet_cli_parse(cli, &coordinator_command_rounds, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (done >= 0)
        return done;
    linnet_status status = coordinator_open_beside(state, &c, &err);
    if (status == LINNET_OK)
        status = linnet_coordinator_rounds(c, &rounds, &n, &err);
    for (size_t i = 0; status == LINNET_OK && cli->json && i < n; i++)
        linnet_cli_emit(cli, coordinator_round_json(c, "round", &rounds[i]));
    if (status == LINNET_OK)
        print_rounds(cli, rounds, n);
    if (status == LINNET_OK && influence)
        status = tell_influences(cli, c, rounds, n, &err);
    linnet_coordinator_close(c);
    free(rounds);
    if (status != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    linnet_cli_emit(cli, json_pack("{s:s, s:I}", "event", "result", "rounds", (json_int_t)n));
    return 0;
}

const linnet_command coordinator_command_rounds = {
    .name = "rounds", .summary = "Every round so far", .run = run_rounds};

/* ---- devices ---- */

static void time_cell(linnet_table *table, uint64_t seconds)
{
    char text[32];
    time_t when = (time_t)seconds;
    struct tm tm;
    if (gmtime_r(&when, &tm) && strftime(text, sizeof(text), "%Y-%m-%d %H:%M", &tm) > 0)
        linnet_table_cell(table, "%s", text);
    else
        linnet_table_cell(table, "-");
}

static void print_devices(const linnet_cli *cli, const linnet_registered_device *devices, size_t n)
{
    static const char *const headers[] = {"device",          "serial", "class", "enrolled (UTC)",
                                          "last seen (UTC)", "rounds", "state"};
    char id[2 * LINNET_DEVICE_ID_BYTES + 1];
    if (cli->json || cli->quiet)
        return;
    linnet_table *table = linnet_table_create(headers, ARRAY_LEN(headers));
    for (size_t i = 0; i < n; i++) {
        linnet_hex_write(&devices[i].device_id, sizeof(devices[i].device_id), id);
        linnet_table_cell(table, "%s", id);
        linnet_table_cell(table, "%llu", (unsigned long long)devices[i].serial);
        linnet_table_cell(table, "%u", devices[i].device_class);
        time_cell(table, devices[i].enrolled_s);
        time_cell(table, devices[i].last_seen_s);
        linnet_table_cell(table, "%llu", (unsigned long long)devices[i].rounds_accepted);
        linnet_table_cell(table, "%s", devices[i].is_revoked ? "revoked" : "enrolled");
    }
    linnet_table_print(table, cli->out);
    linnet_table_destroy(table);
}

static int run_devices(linnet_cli *cli, int argc, char **argv)
{
    linnet_coordinator *c = NULL;
    linnet_error err = {0};
    linnet_registered_device *devices = NULL;
    size_t n = 0;
    int done = coordinator_report_begin(cli, &coordinator_command_devices, argc, argv, &c);
    if (done >= 0)
        return done;
    linnet_status status = linnet_coordinator_devices(c, &devices, &n, &err);
    linnet_coordinator_close(c);
    if (status != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    for (size_t i = 0; i < n; i++)
        linnet_cli_emit(
            cli, json_pack("{s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:b}", "event", "device", "device",
                           linnet_json_hex(&devices[i].device_id, sizeof(devices[i].device_id)), "serial",
                           (json_int_t)devices[i].serial, "class", (json_int_t)devices[i].device_class,
                           "enrolled_s", (json_int_t)devices[i].enrolled_s, "last_seen_s",
                           (json_int_t)devices[i].last_seen_s, "rounds_accepted",
                           (json_int_t)devices[i].rounds_accepted, "revoked", devices[i].is_revoked));
    print_devices(cli, devices, n);
    linnet_cli_emit(cli, json_pack("{s:s, s:I}", "event", "result", "devices", (json_int_t)n));
    free(devices);
    return 0;
}

const linnet_command coordinator_command_devices = {
    .name = "devices", .summary = "Every device that enrolled", .run = run_devices};

/* ---- export ---- */

static int run_export(linnet_cli *cli, int argc, char **argv)
{
    const char *state = NULL, *out = NULL;
    uint64_t round = 0;
    int format = 0;
    linnet_option options[] = {
        STATE_OPTION(state),
        {.name = "round",
         .kind = LINNET_OPTION_COUNT,
         .value = &round,
         .argument = "N",
         .help = "the adapter this round led to; 0: the initial one; without it the newest"},
        {.name = "format",
         .kind = LINNET_OPTION_CHOICE,
         .value = &format,
         .argument = "peft|gguf",
         .help = "a PEFT directory or a GGUF adapter",
         .required = true},
        {.name = "out",
         .kind = LINNET_OPTION_TEXT,
         .value = &out,
         .argument = "PATH",
         .help = "where to write it",
         .required = true},
    };
    int done =
        linnet_cli_parse(cli, &coordinator_command_export, options, ARRAY_LEN(options), argc, argv, 0, 0);
    if (done >= 0)
        return done;
    linnet_error err = {0};
    linnet_coordinator *c = NULL;
    linnet_adapter *adapter = NULL;
    linnet_hash hash = {{0}};
    linnet_status status = coordinator_open_beside(state, &c, &err);
    if (status == LINNET_OK)
        status = linnet_coordinator_adapter(c, options[1].is_set ? round : UINT64_MAX, &adapter, &err);
    if (status == LINNET_OK)
        status = format == 0
                     ? linnet_adapter_save_peft(adapter, linnet_coordinator_architecture(c), out, "", &err)
                     : linnet_adapter_save_gguf(adapter, linnet_coordinator_architecture(c), out, &err);
    if (status == LINNET_OK)
        hash = linnet_adapter_hash(adapter);
    linnet_adapter_destroy(adapter);
    linnet_coordinator_close(c);
    if (status != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    linnet_cli_say(cli, "Wrote %s.\n", out);
    linnet_cli_emit(cli, json_pack("{s:s, s:s, s:o}", "event", "result", "adapter", out, "adapter_hash",
                                   linnet_json_hex(&hash, sizeof(hash))));
    return 0;
}

const linnet_command coordinator_command_export = {
    .name = "export", .summary = "Write an adapter for other programs", .run = run_export};
