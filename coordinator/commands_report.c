/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that only read: status, rounds, devices, privacy, audit, plan-check, export. */
#include "commands.h"

#include "linnet/channel.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#define STATE_OPTION(state)                                                                                  \
    {                                                                                                        \
        .name = "state", .kind = LINNET_OPTION_TEXT, .value = &(state), .argument = "DIR",                   \
        .help = "state directory", .required = true                                                          \
    }

/* What most reports start with: parse --state and open it. -1 to go on, else the exit status. */
static int report_begin(linnet_cli *cli, const linnet_command *self, int argc, char **argv,
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

static void say_status(const linnet_cli *cli, const linnet_coordinator_report *r)
{
    char adapter[17];
    linnet_cli_say(cli,
                   "task            %s\nversion         %llu%s\nadapter         %s\nround           %llu "
                   "(%s), joined %u, accepted %u of %u, at least %u\n",
                   r->name, (unsigned long long)r->version, r->is_finished ? " (final)" : "",
                   coordinator_short_hex(&r->adapter, adapter), (unsigned long long)r->round, r->round_state,
                   r->joined, r->accepted, r->goal, r->minimum);
    linnet_cli_say(cli,
                   "devices         %llu, %llu revoked\nopen invites    %llu\npaused          %s\nprofile    "
                   "     plain: the coordinator sees single deltas\n",
                   (unsigned long long)r->n_devices, (unsigned long long)r->n_revoked,
                   (unsigned long long)r->n_invites_open, r->is_paused ? "yes" : "no");
    linnet_cli_say(cli, "authority       %s\n",
                   r->operator_is_authority ? COORDINATOR_TRIAL_TEXT
                                            : "its key is not with this coordinator");
}

static void emit_status(const linnet_cli *cli, const linnet_coordinator_report *r)
{
    json_t *object = json_pack(
        "{s:s, s:s, s:o, s:I, s:I, s:s, s:I, s:I, s:I, s:I}", "event", "result", "name", r->name, "task",
        linnet_json_hex(r->task, sizeof(r->task)), "version", (json_int_t)r->version, "round",
        (json_int_t)r->round, "round_state", r->round_state, "joined", (json_int_t)r->joined, "accepted",
        (json_int_t)r->accepted, "goal", (json_int_t)r->goal, "minimum", (json_int_t)r->minimum);
    json_t *more = json_pack("{s:I, s:I, s:I, s:b, s:b, s:b, s:o, s:o, s:o, s:o, s:o, s:s}", "devices",
                             (json_int_t)r->n_devices, "revoked", (json_int_t)r->n_revoked, "invites_open",
                             (json_int_t)r->n_invites_open, "paused", r->is_paused, "finished",
                             r->is_finished, "operator_is_authority", r->operator_is_authority, "coordinator",
                             linnet_json_hex(&r->coordinator, sizeof(r->coordinator)), "authority",
                             linnet_json_hex(&r->authority, sizeof(r->authority)), "adapter_hash",
                             linnet_json_hex(&r->adapter, sizeof(r->adapter)), "base_model",
                             linnet_json_hex(&r->base_model, sizeof(r->base_model)), "plan",
                             linnet_json_hex(&r->plan, sizeof(r->plan)), "profile", "plain");
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
    int done = report_begin(cli, &coordinator_command_status, argc, argv, &c);
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

static void loss_cell(linnet_table *table, bool has_loss, double loss)
{
    if (has_loss)
        linnet_table_cell(table, "%.4f", loss);
    else
        linnet_table_cell(table, "-");
}

static void print_rounds(const linnet_cli *cli, const linnet_round_report *rounds, size_t n)
{
    static const char *const headers[] = {"round",    "state",   "invited",     "joined",
                                          "accepted", "dropped", "loss before", "loss after",
                                          "up",       "down",    "adapter"};
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
        linnet_table_cell(table, "%u", r->accepted);
        linnet_table_cell(table, "%u", r->dropped);
        loss_cell(table, r->has_loss_before, r->loss_before);
        loss_cell(table, r->has_loss_after, r->loss_after);
        linnet_table_cell(table, "%s", linnet_human_bytes(r->bytes_up, up));
        linnet_table_cell(table, "%s", linnet_human_bytes(r->bytes_down, down));
        linnet_table_cell(
            table, "%s", strcmp(r->state, "closed") == 0 ? coordinator_short_hex(&r->adapter, adapter) : "-");
    }
    linnet_table_print(table, cli->out);
    linnet_table_destroy(table);
}

static int run_rounds(linnet_cli *cli, int argc, char **argv)
{
    linnet_coordinator *c = NULL;
    linnet_error err = {0};
    linnet_round_report *rounds = NULL;
    size_t n = 0;
    int done = report_begin(cli, &coordinator_command_rounds, argc, argv, &c);
    if (done >= 0)
        return done;
    linnet_status status = linnet_coordinator_rounds(c, &rounds, &n, &err);
    linnet_coordinator_close(c);
    if (status != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    for (size_t i = 0; i < n; i++)
        linnet_cli_emit(cli, coordinator_round_json("round", &rounds[i]));
    print_rounds(cli, rounds, n);
    linnet_cli_emit(cli, json_pack("{s:s, s:I}", "event", "result", "rounds", (json_int_t)n));
    free(rounds);
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
    int done = report_begin(cli, &coordinator_command_devices, argc, argv, &c);
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

/* ---- privacy ---- */

static int run_privacy(linnet_cli *cli, int argc, char **argv)
{
    linnet_coordinator *c = NULL;
    int done = report_begin(cli, &coordinator_command_privacy, argc, argv, &c);
    if (done >= 0)
        return done;
    linnet_coordinator_close(c);
    linnet_cli_say(
        cli, "Profile plain: each delta is sealed to the coordinator, which sees it. No noise is added: "
             "there is no differential privacy guarantee, and no epsilon is spent or promised.\n");
    linnet_cli_emit(cli, json_pack("{s:s, s:s, s:b, s:n}", "event", "result", "profile", "plain",
                                   "differential_privacy", 0, "epsilon"));
    return 0;
}

const linnet_command coordinator_command_privacy = {
    .name = "privacy", .summary = "What privacy the task promises, and what is spent", .run = run_privacy};

/* ---- audit ---- */

static int run_audit(linnet_cli *cli, int argc, char **argv)
{
    linnet_coordinator *c = NULL;
    linnet_error err = {0};
    linnet_audit_entry *entries = NULL;
    size_t n = 0, n_bad = 0;
    int done = report_begin(cli, &coordinator_command_audit, argc, argv, &c);
    if (done >= 0)
        return done;
    linnet_status status = linnet_coordinator_audit(c, &entries, &n, &err);
    linnet_coordinator_close(c);
    if (status != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    for (size_t i = 0; i < n; i++) {
        char hash[2 * LINNET_HASH_BYTES + 1];
        linnet_hex_write(&entries[i].hash, sizeof(entries[i].hash), hash);
        n_bad += entries[i].flaw != NULL;
        linnet_cli_say(cli, "%-9s %6llu  %s  %s\n", entries[i].type, (unsigned long long)entries[i].number,
                       hash, entries[i].flaw ? entries[i].flaw : "good");
        linnet_cli_emit(cli, json_pack("{s:s, s:s, s:I, s:s, s:s?}", "event", "entry", "type",
                                       entries[i].type, "number", (json_int_t)entries[i].number, "hash", hash,
                                       "flaw", entries[i].flaw));
    }
    linnet_cli_say(cli, "%zu entries, %zu flaws%s\n", n, n_bad,
                   n_bad ? "" : ": every release names the one before, every signature is the coordinator's");
    linnet_cli_emit(cli, json_pack("{s:s, s:I, s:I}", "event", "result", "entries", (json_int_t)n, "flaws",
                                   (json_int_t)n_bad));
    free(entries);
    return n_bad ? 1 : 0;
}

const linnet_command coordinator_command_audit = {
    .name = "audit",
    .summary = "Verify the transcript: releases, announcements, signatures",
    .run = run_audit};

/* ---- plan-check ---- */

static const char *vector_name(uint32_t id)
{
    return id == 0 ? "factor B" : id == 2 ? "factor A" : "lanes";
}

/* One vector of a step: sizes, ring, and the quantisation step against the natural range of a delta. */
static void tell_vector(const linnet_cli *cli, const linnet_plan *plan, uint64_t version,
                        const linnet_ring_spec *spec)
{
    double rate_b, rate_a;
    char bytes[16];
    linnet_plan_rates(plan, version, &rate_b, &rate_a);
    bool is_lane = spec->vector_id == 1;
    double range = is_lane ? 0
                           : linnet_delta_range(spec->vector_id == 0 ? rate_b : rate_a, plan->local_steps,
                                                plan->warmup_steps);
    double step = ldexp(1.0, -spec->exponent);
    linnet_cli_say(cli, "  %-9s %9llu coordinates, %2u bits (%s), clamp +-%u, weights up to %u",
                   vector_name(spec->vector_id), (unsigned long long)spec->length, spec->bits,
                   linnet_human_bytes(linnet_ring_bytes(spec), bytes), spec->clamp, spec->weight_max);
    if (!is_lane)
        linnet_cli_say(cli, ", step %.3g: 1/%.0f of a delta's range +-%.3g", step, range / step, range);
    linnet_cli_say(cli, "\n");
    linnet_cli_emit(cli,
                    json_pack("{s:s, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "event", "vector",
                              "version", (json_int_t)version, "vector", vector_name(spec->vector_id),
                              "length", (json_int_t)spec->length, "bits", (json_int_t)spec->bits, "clamp",
                              (json_int_t)spec->clamp, "exponent", (json_int_t)spec->exponent, "weight_max",
                              (json_int_t)spec->weight_max, "bytes", (json_int_t)linnet_ring_bytes(spec),
                              "step", is_lane ? json_null() : linnet_json_number(step), "delta_range",
                              is_lane ? json_null() : linnet_json_number(range)));
}

/* Bytes of an upload on the wire: chunks, each with signed header, frame and sealing, padded. */
static uint64_t wire_bytes(uint64_t packed_bytes)
{
    uint64_t n_chunks =
        packed_bytes / LINNET_UPLOAD_CHUNK_BYTES + (packed_bytes % LINNET_UPLOAD_CHUNK_BYTES != 0);
    return packed_bytes + n_chunks * (LINNET_REQUEST_OVERHEAD + 2 * LINNET_PADDING_BYTES);
}

static linnet_status tell_version(const linnet_cli *cli, const linnet_plan *plan, const linnet_layout *layout,
                                  uint64_t version, uint64_t *most_bytes, linnet_error *err)
{
    linnet_ring_spec specs[LINNET_VECTORS_MAX];
    size_t n = 0;
    uint64_t packed = 0;
    char text[16];
    linnet_status status = linnet_plan_vectors(plan, layout, version, specs, &n, err);
    if (status != LINNET_OK)
        return status;
    for (size_t i = 0; i < n; i++)
        packed += linnet_ring_bytes(&specs[i]);
    linnet_cli_say(cli, "step from version %llu: %s up per device\n", (unsigned long long)version,
                   linnet_human_bytes(wire_bytes(packed), text));
    for (size_t i = 0; i < n; i++)
        tell_vector(cli, plan, version, &specs[i]);
    if (wire_bytes(packed) > *most_bytes)
        *most_bytes = wire_bytes(packed);
    return LINNET_OK;
}

static linnet_status tell_model(const linnet_cli *cli, const linnet_plan *plan, const char *model_path,
                                uint64_t *up, uint64_t *down, linnet_error *err)
{
    linnet_gguf *model = NULL;
    linnet_layout *layout = NULL;
    linnet_hash hash;
    linnet_status status = linnet_gguf_open(model_path, &model, err);
    if (status == LINNET_OK)
        status = linnet_coordinator_model_check(plan, model_path, model, &hash, err);
    if (status == LINNET_OK)
        status = linnet_layout_create(model, plan->rank, (float)plan->alpha, plan->targets, &layout, err);
    if (status == LINNET_OK) {
        *down = 4 * (uint64_t)layout->n_parameters;
        status = tell_version(cli, plan, layout, 0, up, err);
    }
    if (status == LINNET_OK &&
        linnet_rule_factors((linnet_rule)plan->rule, 1) != linnet_rule_factors((linnet_rule)plan->rule, 0))
        status = tell_version(cli, plan, layout, 1, up, err);
    linnet_layout_destroy(layout);
    linnet_gguf_close(model);
    return status;
}

static void tell_plan(const linnet_cli *cli, const linnet_plan *plan, bool has_model, uint64_t up,
                      uint64_t down)
{
    uint32_t join_max = linnet_plan_join_max(plan);
    char up_text[16], down_text[16];
    linnet_cli_say(cli,
                   "cohort: %u contributions close a round, at least %u at the deadline of %u s; %u may "
                   "join, so %u may drop out of a full one, %u of them without ending it early\n",
                   plan->goal, plan->minimum, plan->deadline_s, join_max, join_max - plan->minimum,
                   join_max - plan->goal);
    if (plan->weight_unit_tokens > 0)
        linnet_cli_say(cli, "weights: 1 to %u, one for every %u counted tokens\n", plan->weight_max,
                       plan->weight_unit_tokens);
    else
        linnet_cli_say(cli, "weights: every contribution counts the same\n");
    if (has_model)
        linnet_cli_say(cli, "per device and round: %s up, %s down\n", linnet_human_bytes(up, up_text),
                       linnet_human_bytes(down, down_text));
    linnet_cli_say(cli, "privacy: profile plain, no differential privacy; no sum can wrap\n");
    json_t *object =
        json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:n, s:s}", "event", "result", "name", plan->name,
                  "goal", (json_int_t)plan->goal, "minimum", (json_int_t)plan->minimum, "join_max",
                  (json_int_t)join_max, "dropouts_tolerated", (json_int_t)(join_max - plan->minimum),
                  "weight_max", (json_int_t)plan->weight_max, "ring_bits", (json_int_t)plan->ring_bits,
                  "epsilon", "profile", "plain");
    if (object && has_model) {
        (void)json_object_set_new(object, "bytes_up",
                                  json_integer((json_int_t)up)); /* on lack of memory the line is shorter */
        (void)json_object_set_new(object, "bytes_down", json_integer((json_int_t)down));
    }
    linnet_cli_emit(cli, object);
}

static int run_plan_check(linnet_cli *cli, int argc, char **argv)
{
    const char *model = NULL;
    linnet_option options[] = {
        {.name = "model",
         .kind = LINNET_OPTION_TEXT,
         .value = &model,
         .argument = "M.gguf",
         .help = "the base model: gives lengths and bytes"},
    };
    int done =
        linnet_cli_parse(cli, &coordinator_command_plan_check, options, ARRAY_LEN(options), argc, argv, 1, 1);
    if (done >= 0)
        return done;
    linnet_error err = {0};
    linnet_plan plan;
    uint64_t up = 0, down = 0;
    linnet_status status = linnet_plan_load(cli->positionals[0], &plan, &err);
    if (status == LINNET_OK)
        status = linnet_plan_check(&plan, &err);
    if (status == LINNET_OK && model)
        status = tell_model(cli, &plan, model, &up, &down, &err);
    if (status != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    tell_plan(cli, &plan, model != NULL, up, down);
    return 0;
}

const linnet_command coordinator_command_plan_check = {
    .name = "plan-check",
    .arguments = "PLAN",
    .summary = "Check a plan: bytes, cohort, drop-outs, quantisation",
    .run = run_plan_check};

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
                     ? linnet_adapter_save_peft(adapter, out, "", &err)
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
