/* SPDX-License-Identifier: Apache-2.0 */
/* plan-check: what a plan costs, promises and can hope for, before anyone trains. A plan that is refused ends
 * with 1; one that is allowed but cannot learn ends with 0 and says so loudly. */
#include "commands.h"

#include <math.h>
#include <stdio.h>

#include "plan_figures.h"

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

/* The larger of what the steps need. */
static void keep_larger(linnet_wire_figures *most, const linnet_wire_figures *wire)
{
    if (wire->contribution > most->contribution)
        most->contribution = wire->contribution;
    most->messages_up = wire->messages_up;
    most->messages_down = wire->messages_down;
    most->adapter = wire->adapter;
}

static linnet_status tell_version(const linnet_cli *cli, const linnet_plan *plan, const linnet_layout *layout,
                                  uint64_t version, linnet_wire_figures *most, linnet_error *err)
{
    linnet_ring_spec specs[LINNET_VECTORS_MAX];
    size_t n = 0;
    char text[16];
    linnet_wire_figures wire;
    linnet_status status = linnet_plan_vectors(plan, layout, version, specs, &n, err);
    if (status == LINNET_OK)
        status = linnet_plan_wire(plan, layout, version, &wire, err);
    if (status != LINNET_OK)
        return status;
    linnet_cli_say(cli, "step from version %llu: %s up per device\n", (unsigned long long)version,
                   linnet_human_bytes(wire.contribution, text));
    for (size_t i = 0; i < n; i++)
        tell_vector(cli, plan, version, &specs[i]);
    keep_larger(most, &wire);
    return LINNET_OK;
}

typedef struct model_figures {
    linnet_wire_figures wire;
    linnet_noise_figures noise;
} model_figures;

static linnet_status tell_model(const linnet_cli *cli, const linnet_plan *plan, const char *model_path,
                                model_figures *figures, linnet_error *err)
{
    linnet_gguf *model = NULL;
    linnet_layout *layout = NULL;
    linnet_hash hash;
    linnet_status status = linnet_gguf_open(model_path, &model, err);
    if (status == LINNET_OK)
        status = linnet_coordinator_model_check(plan, model_path, model, &hash, err);
    if (status == LINNET_OK)
        status = linnet_layout_create(model, plan->rank, (float)plan->alpha, plan->targets, &layout, err);
    if (status == LINNET_OK)
        status = tell_version(cli, plan, layout, 0, &figures->wire, err);
    if (status == LINNET_OK)
        status = linnet_plan_noise(plan, layout, 0, &figures->noise, err);
    if (status == LINNET_OK &&
        linnet_rule_factors((linnet_rule)plan->rule, 1) != linnet_rule_factors((linnet_rule)plan->rule, 0))
        status = tell_version(cli, plan, layout, 1, &figures->wire, err);
    linnet_layout_destroy(layout);
    linnet_gguf_close(model);
    return status;
}

/* ---- for people ---- */

static void say_roster(const linnet_cli *cli, const linnet_plan *plan, const char *name, uint32_t n)
{
    linnet_roster_figures r = linnet_plan_roster(plan, n);
    linnet_cli_say(
        cli,
        "  roster of %4u (%s): %u may be corrupt, %u shares open a secret, %u sign; %u may drop out, "
        "%u of them before their shares\n",
        n, name, r.thresholds.corrupt, r.thresholds.shares, r.thresholds.signatures, r.drop_outs,
        r.before_shares < r.drop_outs ? r.before_shares : r.drop_outs);
}

static void say_cohort(const linnet_cli *cli, const linnet_plan *plan)
{
    uint32_t join_max = linnet_plan_join_max(plan);
    if (plan->cohorts > 1)
        linnet_cli_say(cli, "cohorts: %u a round, each as follows\n", plan->cohorts);
    if (linnet_profile_is_secure(plan->profile)) {
        linnet_cli_say(cli,
                       "cohort: a roster of %u to %u devices, at least %u of them in the sum that is opened; "
                       "phases of %u s\n",
                       plan->minimum, join_max, linnet_plan_survivors_min(plan), plan->phase_deadline_s);
        say_roster(cli, plan, "goal", plan->goal);
        say_roster(cli, plan, "minimum", plan->minimum);
        return;
    }
    linnet_cli_say(cli,
                   "cohort: %u contributions close a round, at least %u at the deadline of %u s; %u may "
                   "join, so %u may drop out of a full one, %u of them without ending it early\n",
                   plan->goal, plan->minimum, plan->deadline_s, join_max, join_max - plan->minimum,
                   join_max - plan->goal);
}

static void say_wire(const linnet_cli *cli, const linnet_wire_figures *wire)
{
    char up[16], down[16], messages_up[16], messages_down[16];
    linnet_cli_say(cli, "per device and round: %s up, %s down",
                   linnet_human_bytes(wire->contribution + wire->messages_up, up),
                   linnet_human_bytes(wire->adapter + wire->messages_down, down));
    if (wire->messages_up > 0)
        linnet_cli_say(cli, " (%s and %s of them the messages of a full roster)",
                       linnet_human_bytes(wire->messages_up, messages_up),
                       linnet_human_bytes(wire->messages_down, messages_down));
    linnet_cli_say(cli, "\n");
}

static void say_epsilon(const linnet_cli *cli, const linnet_plan *plan)
{
    double one = linnet_plan_epsilon(plan, 1);
    if (plan->rounds > 0)
        linnet_cli_say(cli, "  epsilon %.4g at delta %g after %u rounds, %.4g after one",
                       one > 0 ? linnet_plan_epsilon(plan, plan->rounds) : 0, plan->dp_delta, plan->rounds,
                       one);
    else
        linnet_cli_say(cli, "  epsilon %.4g at delta %g after one round, growing without end", one,
                       plan->dp_delta);
    if (plan->dp_epsilon_max > 0)
        linnet_cli_say(cli, "; the budget is %.4g", plan->dp_epsilon_max);
    linnet_cli_say(cli, "\n  a device also counts void rounds in which its contribution had left it\n");
}

static void say_noise(const linnet_cli *cli, const linnet_plan *plan, const linnet_noise_figures *f)
{
    const char *of = f->privacy.unit == LINNET_DP_UNIT_RECORD ? "gradient of a round" : "mean delta";
    double ratio = f->noise_norm / f->signal_norm;
    linnet_cli_say(
        cli,
        "  noise in the %s: norm %.3g, signal at most %.3g, ratio %.3g (%llu coordinates, scale 2^%d, "
        "variance %llu a draw, z %.4g)\n",
        of, f->noise_norm, f->signal_norm, ratio, (unsigned long long)f->privacy.dimension,
        (int)f->privacy.exponent, (unsigned long long)f->privacy.sigma2, f->privacy.noise_multiplier);
    if (f->verdict == LINNET_VERDICT_USELESS)
        linnet_cli_say(cli,
                       "THIS PLAN IS USELESS: the noise is %.3g times the largest signal that %u devices can "
                       "give together. %s\n",
                       ratio, plan->goal * plan->cohorts,
                       f->privacy.unit == LINNET_DP_UNIT_RECORD
                           ? "Raise record_probability or record_units, or lower rank, targets or noise."
                           : "Use one large cohort, record-local privacy, or lower rank, targets or noise.");
    else if (f->verdict == LINNET_VERDICT_NOISY)
        linnet_cli_say(cli, "  this plan is noisy: only many rounds average the noise out\n");
    else
        linnet_cli_say(cli, "  this plan is workable\n");
}

static void say_privacy(const linnet_cli *cli, const linnet_plan *plan, const model_figures *figures)
{
    bool has_noise = plan->mechanism != LINNET_DP_NONE;
    linnet_cli_say(cli, "privacy: profile %s, ", linnet_profile_name(plan->profile));
    if (!has_noise)
        linnet_cli_say(cli, "no differential privacy; no sum can wrap\n");
    else
        linnet_cli_say(cli, "%s noise, unit: one %s; no sum can wrap\n",
                       linnet_dp_mechanism_name(plan->mechanism),
                       linnet_dp_unit_name((int)linnet_plan_dp_unit(plan)));
    if (has_noise)
        say_epsilon(cli, plan);
    linnet_cli_say(cli, "  claim: %s\n  assumption: %s\n", linnet_plan_claim(plan),
                   linnet_plan_assumption(plan));
    if (has_noise && figures)
        say_noise(cli, plan, &figures->noise);
    else if (has_noise)
        linnet_cli_say(cli, "  noise against signal depends on the model: give --model\n");
}

static void say_plan(const linnet_cli *cli, const linnet_plan *plan, const model_figures *figures)
{
    say_cohort(cli, plan);
    if (plan->weight_unit_tokens > 0)
        linnet_cli_say(cli, "weights: 1 to %u, one for every %u counted tokens\n", plan->weight_max,
                       plan->weight_unit_tokens);
    else
        linnet_cli_say(cli, "weights: every contribution counts the same\n");
    if (figures)
        say_wire(cli, &figures->wire);
    say_privacy(cli, plan, figures);
}

/* ---- for programs ---- */

static json_t *roster_json(const linnet_plan *plan, uint32_t n)
{
    linnet_roster_figures r = linnet_plan_roster(plan, n);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "members", (json_int_t)n, "corrupt",
                     (json_int_t)r.thresholds.corrupt, "shares", (json_int_t)r.thresholds.shares,
                     "signatures", (json_int_t)r.thresholds.signatures, "sharers_min",
                     (json_int_t)r.thresholds.sharers_min, "survivors_min",
                     (json_int_t)r.thresholds.survivors_min, "dropouts", (json_int_t)r.drop_outs,
                     "dropouts_before_shares", (json_int_t)r.before_shares);
}

static json_t *plan_json(const linnet_plan *plan)
{
    bool is_secure = linnet_profile_is_secure(plan->profile);
    uint32_t join_max = linnet_plan_join_max(plan);
    uint32_t drop_outs =
        is_secure ? linnet_plan_roster(plan, plan->goal).drop_outs : join_max - plan->minimum;
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "event", "result",
                     "name", plan->name, "profile", linnet_profile_name(plan->profile), "goal",
                     (json_int_t)plan->goal, "minimum", (json_int_t)plan->minimum, "join_max",
                     (json_int_t)join_max, "cohorts", (json_int_t)plan->cohorts, "survivors_min",
                     (json_int_t)linnet_plan_survivors_min(plan), "dropouts_tolerated", (json_int_t)drop_outs,
                     "weight_max", (json_int_t)plan->weight_max, "ring_bits", (json_int_t)plan->ring_bits,
                     "roster_goal", is_secure ? roster_json(plan, plan->goal) : json_null(), "roster_minimum",
                     is_secure ? roster_json(plan, plan->minimum) : json_null());
}

static json_t *privacy_json(const linnet_plan *plan)
{
    bool has_noise = plan->mechanism != LINNET_DP_NONE;
    bool has_end = has_noise && plan->rounds > 0;
    return json_pack(
        "{s:s, s:s, s:o, s:o, s:o, s:o, s:s, s:s}", "mechanism", linnet_dp_mechanism_name(plan->mechanism),
        "unit", linnet_dp_unit_name((int)linnet_plan_dp_unit(plan)), "epsilon",
        has_end ? linnet_json_number(linnet_plan_epsilon(plan, plan->rounds)) : json_null(), "epsilon_round",
        has_noise ? linnet_json_number(linnet_plan_epsilon(plan, 1)) : json_null(), "delta",
        has_noise ? linnet_json_number(plan->dp_delta) : json_null(), "noise_multiplier",
        has_noise ? linnet_json_number(plan->noise_multiplier) : json_null(), "claim",
        linnet_plan_claim(plan), "assumption", linnet_plan_assumption(plan));
}

static json_t *figures_json(const model_figures *figures)
{
    const linnet_wire_figures *w = &figures->wire;
    const linnet_noise_figures *f = &figures->noise;
    bool has_noise = f->verdict != LINNET_VERDICT_NO_NOISE;
    return json_pack("{s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:s}", "bytes_up",
                     (json_int_t)(w->contribution + w->messages_up), "bytes_down",
                     (json_int_t)(w->adapter + w->messages_down), "messages_up", (json_int_t)w->messages_up,
                     "messages_down", (json_int_t)w->messages_down, "noise_norm",
                     has_noise ? linnet_json_number(f->noise_norm) : json_null(), "signal_norm",
                     has_noise ? linnet_json_number(f->signal_norm) : json_null(), "noise_to_signal",
                     has_noise ? linnet_json_number(f->noise_norm / f->signal_norm) : json_null(), "verdict",
                     linnet_plan_verdict_name(f->verdict));
}

/* On lack of memory the line is shorter. */
static void emit_plan(const linnet_cli *cli, const linnet_plan *plan, const model_figures *figures)
{
    json_t *object = plan_json(plan);
    json_t *privacy = privacy_json(plan);
    (void)json_object_update(object, privacy);
    json_decref(privacy);
    if (figures) {
        json_t *more = figures_json(figures);
        (void)json_object_update(object, more);
        json_decref(more);
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
         .help = "the base model: gives lengths, bytes, and noise against signal"},
    };
    int done =
        linnet_cli_parse(cli, &coordinator_command_plan_check, options, ARRAY_LEN(options), argc, argv, 1, 1);
    if (done >= 0)
        return done;
    linnet_error err = {0};
    linnet_plan plan;
    model_figures figures = {0};
    linnet_status status = linnet_plan_load(cli->positionals[0], &plan, &err);
    if (status == LINNET_OK)
        status = linnet_plan_check(&plan, &err);
    if (status == LINNET_OK && model)
        status = tell_model(cli, &plan, model, &figures, &err);
    if (status != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    say_plan(cli, &plan, model ? &figures : NULL);
    emit_plan(cli, &plan, model ? &figures : NULL);
    return 0;
}

const linnet_command coordinator_command_plan_check = {
    .name = "plan-check",
    .arguments = "PLAN",
    .summary = "Check a plan: bytes, epsilon, drop-outs, noise against signal",
    .run = run_plan_check};
