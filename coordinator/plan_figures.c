/* SPDX-License-Identifier: Apache-2.0 */

/* The figures of plan-check: thresholds of rosters (SECURE-AGGREGATION 2.5), sizes of messages (secagg.h),
 * noise against signal (3.6). The signal is an upper bound, what all devices would give together if they
 * agreed; a plan whose noise is above even that cannot learn. Left out: how noise averages out over rounds,
 * which depends on the task. */

#include "plan_figures.h"

#include <math.h>

#include "linnet/channel.h"
#include "linnet/limits.h"
#include "linnet/messages.h"

#define HEADERS_BYTES 256 /* protobuf headers of a request or an answer, with signatures */
#define BOX_BYTES 104     /* one sealed pair of shares */
#define UNMASK_BYTES 33   /* one released share */
#define SURVIVOR_BYTES 96 /* Hy and signature */
#define SIGNER_BYTES 68   /* index and signature */
#define BODY_BYTES (LINNET_HASH_BYTES + LINNET_DEVICE_ID_BYTES + LINNET_SIGNATURE_BYTES)

linnet_roster_figures linnet_plan_roster(const linnet_plan *plan, uint32_t n)
{
    const linnet_secagg_params params = {.n_min = plan->minimum,
                                         .n_max = linnet_plan_join_max(plan),
                                         .m_min = linnet_plan_survivors_min(plan),
                                         .corrupt_permille = linnet_plan_corrupt_permille(plan)};
    linnet_roster_figures r = {.n = n, .thresholds = linnet_secagg_thresholds_of(&params, n)};
    uint32_t spare = n > r.thresholds.survivors_min ? n - r.thresholds.survivors_min : 0;
    r.before_shares = n > r.thresholds.sharers_min ? n - r.thresholds.sharers_min : 0;
    r.drop_outs = r.thresholds.drop_outs < spare ? r.thresholds.drop_outs : spare;
    return r;
}

/* ---- bytes ---- */

/* A frame of n raw bytes in the channel, one way. */
static uint64_t sealed(uint64_t n, uint64_t overhead)
{
    uint64_t framed = n + HEADERS_BYTES;
    return (framed + LINNET_PADDING_BYTES - 1) / LINNET_PADDING_BYTES * LINNET_PADDING_BYTES + overhead;
}

static uint64_t up(uint64_t n)
{
    return sealed(n, LINNET_REQUEST_OVERHEAD);
}

static uint64_t down(uint64_t n)
{
    return sealed(n, LINNET_RESPONSE_OVERHEAD);
}

/* The messages of secagg.h for a roster of n that nobody leaves; every one of them is a request and an
 * answer. */
static void count_messages(const linnet_plan *plan, uint64_t n, linnet_wire_figures *wire)
{
    uint64_t bitmap = linnet_bitmap_bytes((uint32_t)n), boxes = (n - 1) * BOX_BYTES;
    uint64_t survivors = LINNET_SIGNATURE_BYTES + bitmap + n * SURVIVOR_BYTES;
    uint64_t signers = linnet_plan_roster(plan, (uint32_t)n).thresholds.signatures;
    wire->messages_up = up(LINNET_ADVERT_BYTES) + up(BODY_BYTES + boxes) + up(LINNET_ATTESTATION_BYTES) +
                        up(BODY_BYTES + (n - 1) * UNMASK_BYTES) + 4 * up(0); /* and a poll for each phase */
    wire->messages_down = down(LINNET_SIGNATURE_BYTES + 4 + n * LINNET_ADVERT_BYTES) +
                          down(LINNET_SIGNATURE_BYTES + bitmap + boxes) + down(survivors) +
                          down(survivors + 4 + signers * SIGNER_BYTES) + 4 * down(0);
}

linnet_status linnet_plan_wire(const linnet_plan *plan, const linnet_layout *layout, uint64_t version,
                               linnet_wire_figures *ret_wire, linnet_error *err)
{
    linnet_ring_spec specs[LINNET_VECTORS_MAX];
    size_t n_specs = 0;
    linnet_wire_figures wire = {.adapter = 4 * (uint64_t)layout->n_parameters};
    linnet_status status = linnet_plan_vectors(plan, layout, version, specs, &n_specs, err);
    if (status != LINNET_OK)
        return status;
    uint64_t packed = 0;
    for (size_t i = 0; i < n_specs; i++)
        packed += linnet_ring_bytes(&specs[i]);
    for (uint64_t left = packed; left > 0;) {
        uint64_t n = left < LINNET_UPLOAD_CHUNK_BYTES ? left : LINNET_UPLOAD_CHUNK_BYTES;
        wire.contribution += up(n);
        left -= n;
    }
    if (linnet_profile_is_secure(plan->profile))
        count_messages(plan, linnet_plan_join_max(plan), &wire);
    *ret_wire = wire;
    return LINNET_OK;
}

/* ---- noise ---- */

const char *linnet_plan_verdict_name(linnet_plan_verdict verdict)
{
    static const char *const names[] = {"no noise", "workable", "noisy", "useless"};
    return names[verdict];
}

/* The most that local training moves a delta: every coordinate by its whole range. */
static double reach(const linnet_plan *plan, const linnet_layout *layout, uint64_t version)
{
    double rate_b, rate_a;
    linnet_plan_rates(plan, version, &rate_b, &rate_a);
    double range = linnet_delta_range(rate_b, plan->local_steps, plan->warmup_steps);
    return range * sqrt((double)linnet_factors_length(layout, LINNET_FACTOR_B));
}

static linnet_plan_verdict verdict_of(double noise_norm, double signal_norm)
{
    if (noise_norm > signal_norm)
        return LINNET_VERDICT_USELESS;
    return noise_norm > signal_norm / 2 ? LINNET_VERDICT_NOISY : LINNET_VERDICT_WORKABLE;
}

linnet_status linnet_plan_noise(const linnet_plan *plan, const linnet_layout *layout, uint64_t version,
                                linnet_noise_figures *ret_noise, linnet_error *err)
{
    linnet_noise_figures f = {.verdict = LINNET_VERDICT_NO_NOISE};
    linnet_status status = linnet_plan_privacy(plan, layout, version, &f.privacy, err);
    if (status != LINNET_OK)
        return status;
    const linnet_privacy *p = &f.privacy;
    double n = (double)plan->goal * plan->cohorts;
    double draw = ldexp(sqrt((double)p->sigma2 * (double)p->dimension), -p->exponent); /* norm of one */
    f.signal_norm = p->clip;
    if (p->mechanism == LINNET_DP_RECORD_LOCAL)
        f.noise_norm = draw / p->divisor / sqrt(n * p->n_steps);
    else if (p->mechanism == LINNET_DP_DISTRIBUTED)
        f.noise_norm = draw / sqrt(n);
    else if (p->mechanism == LINNET_DP_CENTRAL)
        f.noise_norm = draw / n;
    if (p->unit == LINNET_DP_UNIT_DEVICE)
        f.signal_norm = fmin(p->clip, reach(plan, layout, version));
    if (p->mechanism != LINNET_DP_NONE)
        f.verdict = verdict_of(f.noise_norm, f.signal_norm);
    *ret_noise = f;
    return LINNET_OK;
}

/* ---- words ---- */

const char *linnet_plan_claim(const linnet_plan *plan)
{
    switch (plan->mechanism) {
    case LINNET_DP_DISTRIBUTED:
        return "the adapters, and all the coordinator sees, would be almost as likely without any one "
               "device; "
               "epsilon bounds by how much";
    case LINNET_DP_RECORD_LOCAL:
        return "all that leaves a device would be almost as likely without any one of its records or units; "
               "epsilon bounds by how much";
    case LINNET_DP_CENTRAL:
        return "the adapters would be almost as likely without any one device; epsilon bounds by how much. "
               "No "
               "promise against the coordinator: it sees single deltas";
    default:
        return linnet_profile_is_secure(plan->profile)
                   ? "none by noise: the coordinator sees sums of masked deltas, as they are"
                   : "none: the coordinator sees single deltas";
    }
}

const char *linnet_plan_assumption(const linnet_plan *plan)
{
    switch (plan->mechanism) {
    case LINNET_DP_DISTRIBUTED:
        return "at most the assumed share of every roster works with the adversary, the enrolment authority "
               "is not the operator's, and the other devices add their noise";
    case LINNET_DP_RECORD_LOCAL:
        return "none about others: every device draws and noises by itself. A person known to two devices is "
               "two units: the epsilons add up";
    case LINNET_DP_CENTRAL:
        return "the coordinator adds the noise and keeps the deltas to itself";
    default:
        return linnet_profile_is_secure(plan->profile)
                   ? "at most the assumed share of every roster works with the adversary, and the enrolment "
                     "authority is not the operator's"
                   : "the coordinator is trusted";
    }
}
