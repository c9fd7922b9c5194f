/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_GATE_H
#define LINNET_GATE_H

/* Does a candidate become a release? Its loss at the operator's gate against that of the present release. */

#include "state.h"

typedef struct linnet_verdict {
    bool is_asked; /* false: the plan has no gate, everything passes */
    bool is_rejected;
    double loss_before, loss_after;
} linnet_verdict;
/** RANGE: the gate failed, or there is none and the plan wants one. BUSY, NOMEM, NO_SPACE: ask again
 * later. */
linnet_status linnet_gate_judge(linnet_coordinator *coordinator, const linnet_adapter *release,
                                const linnet_adapter *candidate, linnet_verdict *ret_verdict,
                                linnet_error *err) LINNET_NODISCARD;

#endif
