/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_AUDIT_H
#define LINNET_AUDIT_H

/* What a coordinator shows to an auditor: its log, and what it has spent of the budget of privacy. */

#include "linnet/coordinator.h"

/** The log as one self-contained file, appended. */
linnet_status linnet_coordinator_log_export(linnet_coordinator *coordinator, linnet_buffer *ret_bytes,
                                            linnet_error *err) LINNET_NODISCARD;

typedef struct linnet_privacy_report {
    int profile, mechanism, unit;        /* of the plan */
    uint64_t n_rounds, n_void;           /* counted, and how many of them are void */
    double dp_epsilon, dp_epsilon_round; /* spent so far; of one round alone */
    double dp_delta, dp_epsilon_max;     /* max 0: no budget */
    uint64_t rounds_left;                /* within budget and plan; UINT64_MAX: without end */
    uint32_t survivors_min, corrupt;     /* m_min and C of the largest roster */
    double probability;                  /* record-local: p of a draw */
    bool operator_is_authority;
} linnet_privacy_report;
linnet_status linnet_coordinator_privacy(linnet_coordinator *coordinator, linnet_privacy_report *ret_report,
                                         linnet_error *err) LINNET_NODISCARD;
/** epsilon of all counted rounds up to and with `round`; 0 before the first. */
linnet_status linnet_coordinator_epsilon_at(linnet_coordinator *coordinator, uint64_t round,
                                            double *ret_epsilon, linnet_error *err) LINNET_NODISCARD;

#endif
