/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_PLAN_FIGURES_H
#define LINNET_PLAN_FIGURES_H

/* What a plan costs, promises and can hope for, before anyone trains. */

#include "linnet/plan.h"
#include "linnet/secagg.h"

/** A masked cohort of n devices. */
typedef struct linnet_roster_figures {
    uint32_t n;
    linnet_secagg_thresholds thresholds;
    uint32_t before_shares; /* of the roster may be lost before they have sent shares */
    uint32_t drop_outs;     /* in all, over every phase after the roster */
} linnet_roster_figures;
linnet_roster_figures linnet_plan_roster(const linnet_plan *plan, uint32_t n);

/** Bytes of one device's round on the wire: sealed, framed and padded. */
typedef struct linnet_wire_figures {
    uint64_t contribution;               /* the packed vectors in chunks */
    uint64_t messages_up, messages_down; /* of the masked round with the largest roster; 0 without masks */
    uint64_t adapter;                    /* the release's, once a version */
} linnet_wire_figures;
linnet_status linnet_plan_wire(const linnet_plan *plan, const linnet_layout *layout, uint64_t version,
                               linnet_wire_figures *ret_wire, linnet_error *err) LINNET_NODISCARD;

typedef enum linnet_plan_verdict {
    LINNET_VERDICT_NO_NOISE,
    LINNET_VERDICT_WORKABLE, /* noise up to half the signal */
    LINNET_VERDICT_NOISY,    /* up to the signal: only many rounds average it out */
    LINNET_VERDICT_USELESS,  /* above it */
} linnet_plan_verdict;
const char *linnet_plan_verdict_name(linnet_plan_verdict verdict);

/** Noise against signal in one round that `goal` devices a cohort complete, as L2 norms, in the units of the
 * weights. Whole deltas: of the mean delta. record-local: of the gradient, averaged over steps and
 * devices. */
typedef struct linnet_noise_figures {
    linnet_privacy privacy;
    double noise_norm;  /* expected */
    double signal_norm; /* the most there can be: the clip, or what the rates can move where that is less */
    linnet_plan_verdict verdict;
} linnet_noise_figures;
linnet_status linnet_plan_noise(const linnet_plan *plan, const linnet_layout *layout, uint64_t version,
                                linnet_noise_figures *ret_noise, linnet_error *err) LINNET_NODISCARD;

/** One line each: what epsilon bounds, and what must hold for it. */
const char *linnet_plan_claim(const linnet_plan *plan);
const char *linnet_plan_assumption(const linnet_plan *plan);

#endif
