/* SPDX-License-Identifier: Apache-2.0 */
/* The release gate (SECURE-AGGREGATION 5): canary loss before release. A candidate passes if its loss is at
 * most gate_tolerance times that of the release it would replace. What the gate is, a function of a simulator
 * or a command of the operator, is not known here; its words are not trusted beyond being a number. The loss
 * of the present release is remembered in memory only: after a restart the gate may be another. */
#include "gate.h"

#include <math.h>

void linnet_coordinator_set_gate(linnet_coordinator *c, linnet_coordinator_gate_fn *gate, void *context)
{
    (void)pthread_mutex_lock(&c->lock);
    c->gate = gate;
    c->gate_context = context;
    c->has_gate_loss = false;
    (void)pthread_mutex_unlock(&c->lock);
}

/* What is nobody's fault is tried again; everything else the gate may say about itself ends the round. */
static linnet_status gate_fail(linnet_status status, linnet_error *err)
{
    if (status == LINNET_ERR_BUSY || status == LINNET_ERR_NOMEM || status == LINNET_ERR_NO_SPACE)
        return status;
    return linnet_error_prefix(err, LINNET_ERR_RANGE, "the gate failed");
}

static linnet_status ask(linnet_coordinator *c, const linnet_adapter *adapter, double *ret_loss,
                         linnet_error *err)
{
    double loss = NAN;
    (void)pthread_mutex_lock(&c->lock);
    linnet_coordinator_gate_fn *gate = c->gate;
    void *context = c->gate_context;
    (void)pthread_mutex_unlock(&c->lock);
    if (!gate)
        return linnet_fail(err, LINNET_ERR_RANGE,
                           "the plan wants a gate (evaluation.gate_tolerance) and none is set");
    linnet_status status = gate(context, adapter, &loss, err);
    if (status != LINNET_OK)
        return gate_fail(status, err);
    if (loss < 0)
        return linnet_fail(err, LINNET_ERR_RANGE, "the gate failed: it says a loss of %g", loss);
    *ret_loss = loss;
    return LINNET_OK;
}

/* The loss of the present release: most often that of the last candidate. */
static linnet_status ask_release(linnet_coordinator *c, const linnet_adapter *release, double *ret_loss,
                                 linnet_error *err)
{
    linnet_hash hash = linnet_adapter_hash(release);
    (void)pthread_mutex_lock(&c->lock);
    bool is_known = c->has_gate_loss && linnet_hash_equal(&c->gate_adapter, &hash);
    double known = c->gate_loss;
    (void)pthread_mutex_unlock(&c->lock);
    if (!is_known)
        return ask(c, release, ret_loss, err);
    *ret_loss = known;
    return LINNET_OK;
}

static void remember(linnet_coordinator *c, const linnet_adapter *adapter, double loss)
{
    linnet_hash hash = linnet_adapter_hash(adapter);
    (void)pthread_mutex_lock(&c->lock);
    c->has_gate_loss = true;
    c->gate_adapter = hash;
    c->gate_loss = loss;
    (void)pthread_mutex_unlock(&c->lock);
}

/* A release whose own loss is none is replaced by anything that has one. */
static bool passes(double before, double after, double tolerance)
{
    return isfinite(after) && (!isfinite(before) || after <= tolerance * before);
}

linnet_status linnet_gate_judge(linnet_coordinator *c, const linnet_adapter *release,
                                const linnet_adapter *candidate, linnet_verdict *ret_verdict,
                                linnet_error *err)
{
    linnet_verdict verdict = {.is_asked = c->plan.gate_tolerance > 0};
    linnet_status status = LINNET_OK;
    if (verdict.is_asked)
        status = ask_release(c, release, &verdict.loss_before, err);
    if (verdict.is_asked && status == LINNET_OK)
        status = ask(c, candidate, &verdict.loss_after, err);
    if (status != LINNET_OK)
        return status;
    verdict.is_rejected =
        verdict.is_asked && !passes(verdict.loss_before, verdict.loss_after, c->plan.gate_tolerance);
    if (verdict.is_asked && verdict.is_rejected)
        remember(c, release, verdict.loss_before);
    else if (verdict.is_asked)
        remember(c, candidate, verdict.loss_after);
    *ret_verdict = verdict;
    return LINNET_OK;
}
