/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SAMPLER_H
#define LINNET_SAMPLER_H

/* The next token from logits: greedy, temperature, top-p (nucleus; Holtzman et al. 2020). */

#include "linnet/rng.h"
#include "linnet/status.h"

typedef struct linnet_sampler {
    double temperature; /* 0: greedy, ties to the lowest id */
    double top_p;       /* 1: off */
    linnet_rng rng;
    void *scratch; /* owned */
    size_t n_scratch;
} linnet_sampler;

void linnet_sampler_init(linnet_sampler *sampler, double temperature, double top_p, uint64_t seed);
void linnet_sampler_release(linnet_sampler *sampler);
/** logits[n], n >= 1, borrowed; NaN counts as minus infinity. */
linnet_status linnet_sampler_next(linnet_sampler *sampler, const float *logits, size_t n, int32_t *ret_id,
                                  linnet_error *err) LINNET_NODISCARD;

#endif
