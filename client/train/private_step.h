/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_PRIVATE_STEP_H
#define LINNET_PRIVATE_STEP_H

/* The gradient of one optimiser step with record-level privacy. */

#include "optimizer.h"

#include "linnet/record_privacy.h"

/** What a private training keeps between its steps. */
typedef struct linnet_private_step {
    linnet_record_sum *sum; /* owned */
    size_t *first;          /* owned, n_units + 1: where a unit's items begin in `items` */
    size_t *items;          /* owned; the set's items, unit by unit */
    uint8_t *drawn;         /* owned, n_units: the coins of the step */
    float *vector;          /* owned, n_active: the active factors of a gradient, one behind another */
    size_t n_units, n_active;
} linnet_private_step;

/** Fill trainer->private_step; the trainer has its settings, set and optimiser. RANGE where no lattice fits
 * the noise and the number of parameters. */
linnet_status linnet_private_step_init(linnet_trainer *trainer, linnet_error *err) LINNET_NODISCARD;
void linnet_private_step_release(linnet_private_step *step); /* takes an empty one */

/** Draw the units of step result->step, and put their noised sum over the public divisor into
 * trainer->gradient. Loss and counts of what was drawn go into *result. */
linnet_status linnet_private_step_gradient(linnet_trainer *trainer, linnet_train_step *result,
                                           linnet_error *err) LINNET_NODISCARD;

#endif
