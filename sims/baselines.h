/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SIMS_BASELINES_H
#define LINNET_SIMS_BASELINES_H

/* Inner header: what a federated run is compared with, on the same held-out records. */

#include "fleet.h"

/** Tokenised evaluation records of every device, and the general text. */
typedef struct evaluation {
    linnet_token_set **devices; /* owned, n_devices; NULL for a device without evaluation records */
    size_t n_devices;
    linnet_token_set *general; /* NULL: none */
} evaluation;
linnet_status evaluation_create(const fleet *f, evaluation *ret_evaluation, linnet_error *err);
void evaluation_release(evaluation *e);

/** Mean loss over all evaluation tokens with one adapter for everybody (NULL: the base), in parallel; each
 * (may be NULL) gets every device's own mean, NaN where it has no records. NaN result where nobody has any.
 */
linnet_status evaluation_run(fleet *f, const evaluation *e, const linnet_adapter *adapter, double *ret_loss,
                             double *each, linnet_error *err);
/** Mean loss of the general text; NaN without one. */
linnet_status evaluation_general(fleet *f, const evaluation *e, const linnet_adapter *adapter,
                                 double *ret_loss, linnet_error *err);

/** Every device alone, from the initial adapter, both factors, n_steps steps on its own records; each
 * device's loss on its own evaluation records into each, the pooled mean into ret_loss. Parallel over
 * devices. */
linnet_status baseline_local(fleet *f, const evaluation *e, uint32_t n_steps, double rate,
                             const linnet_cli *cli, double *each, double *ret_loss, linnet_error *err);
/** All records in one place, both factors, n_steps steps with the plan's batch. Owned adapter. */
linnet_status baseline_central(fleet *f, uint32_t n_steps, double rate, const linnet_cli *cli,
                               linnet_adapter **ret_adapter, linnet_error *err);

#endif
