/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_AGGREGATE_H
#define LINNET_AGGREGATE_H

/* Aggregation rules and server optimisers (FEDERATED-LORA 2, 3, 7): what is trained in a round, and how a
 * mean delta becomes the next global adapter. */

#include "linnet/adapter.h"

typedef enum linnet_rule {
    LINNET_RULE_ALTERNATE, /* B in even rounds, A in odd: exact and linear */
    LINNET_RULE_FFA,       /* B only */
    LINNET_RULE_FEDAVG,    /* A and B, averaged separately (FedIT) */
} linnet_rule;
const char *linnet_rule_name(linnet_rule rule);
/** The factors that a step from `version` (0 is the first release) trains and uploads. */
linnet_factors linnet_rule_factors(linnet_rule rule, uint64_t version);

typedef enum linnet_server_optimizer {
    LINNET_SERVER_FEDAVG,  /* x += rate * mean */
    LINNET_SERVER_FEDAVGM, /* v = momentum v + mean; x += rate v; one v per factor, touched in its own phase
                              only */
} linnet_server_optimizer;
const char *linnet_server_optimizer_name(linnet_server_optimizer optimizer);

/** State of the server step between rounds: plain floats, stored with the round's result. */
typedef struct linnet_server_state {
    size_t n_parameters;
    float *momentum; /* owned, in the adapter's data order; NULL for FedAvg */
} linnet_server_state;
linnet_status linnet_server_state_init(linnet_server_state *state, linnet_server_optimizer optimizer,
                                       size_t n_parameters, linnet_error *err) LINNET_NODISCARD;
void linnet_server_state_release(linnet_server_state *state);

/** Apply the mean delta of one factor (a vector in layout order) to the adapter, in place. */
void linnet_server_step(linnet_server_optimizer optimizer, double rate, double momentum,
                        linnet_server_state *state, linnet_adapter *adapter, linnet_factors factor,
                        const float *mean);

/** Cosine by round from 1 to `final` over n_rounds, constant inside a round: the factor on the learning rate
 * of round r (0-based); past the horizon it stays at `final`. n_rounds <= 1 gives 1. */
double linnet_schedule_cosine(uint64_t round, uint64_t n_rounds, double final);
/** Range c of a delta: rate x sum over the local steps of min(1, step / warmup) (steps from 1; warmup 0: all
 * 1). */
double linnet_delta_range(double learning_rate, uint32_t steps, uint32_t warmup);

#endif
