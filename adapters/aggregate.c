/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Aggregation rules and server steps (FEDERATED-LORA 2.2, 3 and 7.1). The average of products B A is the
 * product of the averages only where one factor is common to all clients: `alternate` and `ffa` train and
 * upload one factor at a time and are exact; `fedavg` averages both (FedIT) and pays the cross-covariance of
 * the factors. FedAvgM is Hsu et al. 2019 with one momentum a parameter, moved only in the rounds that train
 * its factor.
 */
#include "linnet/aggregate.h"

#include <math.h>
#include <stdlib.h>

const char *linnet_rule_name(linnet_rule rule)
{
    static const char *const names[] = {"alternate", "ffa", "fedavg"};
    return (size_t)rule < ARRAY_LEN(names) ? names[rule] : "unknown";
}

linnet_factors linnet_rule_factors(linnet_rule rule, uint64_t version)
{
    if (rule == LINNET_RULE_FEDAVG)
        return LINNET_FACTORS_BOTH;
    return rule == LINNET_RULE_ALTERNATE && version % 2 == 1 ? LINNET_FACTOR_A : LINNET_FACTOR_B;
}

const char *linnet_server_optimizer_name(linnet_server_optimizer optimizer)
{
    static const char *const names[] = {"fedavg", "fedavgm"};
    return (size_t)optimizer < ARRAY_LEN(names) ? names[optimizer] : "unknown";
}

linnet_status linnet_server_state_init(linnet_server_state *state, linnet_server_optimizer optimizer,
                                       size_t n_parameters, linnet_error *err)
{
    linnet_server_state fresh = {.n_parameters = n_parameters};
    if (optimizer == LINNET_SERVER_FEDAVGM) {
        fresh.momentum = calloc(n_parameters, sizeof(fresh.momentum[0]));
        if (!fresh.momentum)
            return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the momentum of %zu parameters",
                               n_parameters);
    }
    *state = fresh;
    return LINNET_OK;
}

void linnet_server_state_release(linnet_server_state *state)
{
    free(state->momentum);
    *state = (linnet_server_state){0};
}

static void step_fedavg(double rate, const float *mean, size_t n, float *x)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(x[i] + rate * mean[i]);
}

static void step_fedavgm(double rate, double momentum, const float *mean, size_t n, float *v, float *x)
{
    for (size_t i = 0; i < n; i++) {
        v[i] = (float)(momentum * v[i] + mean[i]);
        x[i] = (float)(x[i] + rate * v[i]);
    }
}

void linnet_server_step(linnet_server_optimizer optimizer, double rate, double momentum,
                        linnet_server_state *state, linnet_adapter *adapter, linnet_factors factor,
                        const float *mean)
{
    const linnet_layout *layout = adapter->layout;
    for (size_t e = 0; e < layout->n_entries; e++) {
        const linnet_layout_entry *entry = &layout->entries[e];
        bool is_a = factor == LINNET_FACTOR_A;
        size_t place = is_a ? entry->a_offset : entry->b_offset;
        size_t n = (size_t)entry->rank * (is_a ? entry->columns : entry->rows);
        if (optimizer == LINNET_SERVER_FEDAVGM)
            step_fedavgm(rate, momentum, mean, n, state->momentum + place, adapter->data + place);
        else
            step_fedavg(rate, mean, n, adapter->data + place);
        mean += n;
    }
}

double linnet_schedule_cosine(uint64_t round, uint64_t n_rounds, double final)
{
    if (n_rounds <= 1)
        return 1;
    if (round >= n_rounds - 1)
        return final;
    return final +
           (1 - final) * 0.5 * (1 + cos(3.14159265358979323846 * (double)round / (double)(n_rounds - 1)));
}

double linnet_delta_range(double learning_rate, uint32_t steps, uint32_t warmup)
{
    uint64_t n_warm = steps < warmup ? steps : warmup; /* steps 1 to n_warm count s / warmup each */
    double warm = warmup > 0 ? (double)(n_warm * (n_warm + 1) / 2) / warmup : 0;
    return learning_rate * (warm + (double)(steps - n_warm));
}
