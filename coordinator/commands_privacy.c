/* SPDX-License-Identifier: Apache-2.0 */
/* privacy: what the task promises, against whom, as long as what holds, and how much of it is spent. A number
 * without its unit, its adversary and its assumptions says nothing, so all of them are told together. */
#include "commands.h"

#include "linnet/audit.h"

#include <stdlib.h>

static const char *claim_of(const linnet_privacy_report *r)
{
    switch (r->mechanism) {
    case LINNET_DP_DISTRIBUTED:
        return "against everybody who sees the sums, the coordinator and up to C members of a roster "
               "included: "
               "whether one device took part with its data";
    case LINNET_DP_RECORD_LOCAL:
        return "against everybody but the device that holds it: whether one record, or all records of one "
               "unit, were used";
    case LINNET_DP_CENTRAL:
        return "against everybody who sees releases, but not the coordinator, which sees single deltas: "
               "whether one device took part with its data";
    default:
        return linnet_profile_is_secure(r->profile)
                   ? "no differential privacy: the coordinator learns sums, and a sum may tell of one device"
                   : "none: each delta is sealed to the coordinator, which sees it";
    }
}

static void assumption_of(const linnet_privacy_report *r, char text[400])
{
    const char *authority = "";
    if (linnet_profile_is_secure(r->profile))
        authority =
            r->operator_is_authority
                ? "; the operator also holds the enrolment authority's key, so that it must be honest "
                  "but curious"
                : "; the enrolment authority is not the operator";
    switch (r->mechanism) {
    case LINNET_DP_DISTRIBUTED:
        (void)snprintf(text, 400,
                       "at least %u honest survivors in every sum add their share of noise (m_min %u, "
                       "less %u corrupt)%s",
                       r->survivors_min - r->corrupt, r->survivors_min, r->corrupt, authority);
        break;
    case LINNET_DP_RECORD_LOCAL:
        (void)snprintf(text, 400,
                       "every step draws each unit by itself with probability %g (Poisson) on the "
                       "device, which adds the whole noise; a unit known to two devices counts at both%s",
                       r->probability, authority);
        break;
    case LINNET_DP_CENTRAL:
        (void)snprintf(text, 400, "the coordinator is trusted: it sees single deltas, and adds the noise");
        break;
    default:
        (void)snprintf(text, 400, "%s%s",
                       linnet_profile_is_secure(r->profile)
                           ? "at most C members of a roster are with the coordinator"
                           : "the coordinator is trusted",
                       authority);
    }
}

static void say_privacy(const linnet_cli *cli, const linnet_privacy_report *r, const char *assumption)
{
    linnet_cli_say(cli, "profile      %s\nclaim        %s\nassumption   %s\n",
                   linnet_profile_name(r->profile), claim_of(r), assumption);
    if (r->mechanism == LINNET_DP_NONE) {
        linnet_cli_say(cli, "epsilon      no noise is added: none is spent or promised\n");
        return;
    }
    linnet_cli_say(
        cli,
        "mechanism    %s\nunit         %s\nepsilon      %.6g at dp_delta %g, of a budget of %s%.6g\n"
        "one round    %.6g\nrounds       %llu counted, %llu of them void after masked vectors may "
        "have left\n",
        linnet_dp_mechanism_name(r->mechanism), linnet_dp_unit_name(r->unit), r->dp_epsilon, r->dp_delta,
        r->dp_epsilon_max > 0 ? "" : "no limit, ", r->dp_epsilon_max, r->dp_epsilon_round,
        (unsigned long long)r->n_rounds, (unsigned long long)r->n_void);
    if (r->rounds_left == UINT64_MAX)
        linnet_cli_say(cli, "rounds left  without end: neither plan nor budget sets one\n");
    else
        linnet_cli_say(cli, "rounds left  %llu\n", (unsigned long long)r->rounds_left);
}

static void emit_privacy(const linnet_cli *cli, const linnet_privacy_report *r, const char *assumption)
{
    bool has_noise = r->mechanism != LINNET_DP_NONE;
    json_t *object =
        json_pack("{s:s, s:s, s:b, s:s, s:s, s:o, s:o, s:I, s:I}", "event", "result", "profile",
                  linnet_profile_name(r->profile), "differential_privacy", has_noise, "mechanism",
                  linnet_dp_mechanism_name(r->mechanism), "unit", linnet_dp_unit_name(r->unit), "epsilon",
                  has_noise ? linnet_json_number(r->dp_epsilon) : json_null(), "epsilon_round",
                  has_noise ? linnet_json_number(r->dp_epsilon_round) : json_null(), "rounds",
                  (json_int_t)r->n_rounds, "rounds_void", (json_int_t)r->n_void);
    json_t *more =
        json_pack("{s:o, s:o, s:o, s:b, s:s, s:s, s:b}", "rounds_left",
                  r->rounds_left == UINT64_MAX ? json_null() : json_integer((json_int_t)r->rounds_left),
                  "dp_delta", has_noise ? linnet_json_number(r->dp_delta) : json_null(), "epsilon_max",
                  r->dp_epsilon_max > 0 ? linnet_json_number(r->dp_epsilon_max) : json_null(),
                  "void_rounds_count", linnet_profile_is_secure(r->profile), "claim", claim_of(r),
                  "assumption", assumption, "operator_is_authority", r->operator_is_authority);
    if (object && more)
        (void)json_object_update(object, more); /* on lack of memory the line is shorter */
    json_decref(more);
    linnet_cli_emit(cli, object);
}

static int run_privacy(linnet_cli *cli, int argc, char **argv)
{
    linnet_coordinator *c = NULL;
    linnet_error err = {0};
    linnet_privacy_report report;
    char assumption[400];
    int done = coordinator_report_begin(cli, &coordinator_command_privacy, argc, argv, &c);
    if (done >= 0)
        return done;
    linnet_status status = linnet_coordinator_privacy(c, &report, &err);
    linnet_coordinator_close(c);
    if (status != LINNET_OK)
        return linnet_cli_fail(cli, &err);
    assumption_of(&report, assumption);
    say_privacy(cli, &report, assumption);
    emit_privacy(cli, &report, assumption);
    return 0;
}

const linnet_command coordinator_command_privacy = {
    .name = "privacy", .summary = "What privacy the task promises, and what is spent", .run = run_privacy};
