/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_OPTIMIZER_H
#define LINNET_OPTIMIZER_H

/* The update rules on the active factors of an adapter, and what they remember between steps. */

#include "linnet/trainer.h"

/** A run of floats of one factor in the adapter's data. */
typedef struct linnet_span {
    size_t first, n;
    linnet_factors factor;
} linnet_span;

typedef struct linnet_optimizer_state {
    linnet_span *spans; /* owned; the active factors in the data's order */
    size_t n_spans;
    size_t n_active;          /* floats in all spans */
    float *moment1, *moment2; /* owned, n_active each, in the order of the spans; NULL for SGD */
} linnet_optimizer_state;

linnet_status linnet_optimizer_init(linnet_optimizer_state *state, linnet_optimizer kind,
                                    const linnet_layout *layout, linnet_factors factors,
                                    linnet_error *err) LINNET_NODISCARD;
void linnet_optimizer_release(linnet_optimizer_state *state);

/* gradient, data and start below have the adapter's n_parameters floats; what is not active is not touched.
 */
void linnet_gradient_zero(const linnet_optimizer_state *state, float *gradient);
/** L2 norm of the active factors together. */
double linnet_gradient_norm(const linnet_optimizer_state *state, const float *gradient);
void linnet_gradient_scale(const linnet_optimizer_state *state, float *gradient, double scale);
/** gradient += mu (data - start) (FedProx; Li et al. 2020, equation 2). */
void linnet_gradient_add_prox(const linnet_optimizer_state *state, double mu, const float *data,
                              const float *start, float *gradient);

/** One update with these rates. step counts from 1 and corrects the moments' bias. */
void linnet_optimizer_update(linnet_optimizer_state *state, const linnet_training *training, uint32_t step,
                             double rate_a, double rate_b, const float *gradient, float *data);

#endif
