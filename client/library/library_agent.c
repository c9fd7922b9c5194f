/* SPDX-License-Identifier: Apache-2.0 */
/* The federated agent behind a handle: linnet/agent.h in slices of time. */
#include "library.h"

#include "linnet/agent.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Until the next try, after a failure (as linnet-client waits for a full disk), and while the model is busy.
 */
enum { LATER_MS = 60000, BUSY_MS = 1000 };

struct lin_agent {
    lin_model *model; /* these three shared */
    lin_texts *texts, *held_out;
    linnet_agent *agent;
    atomic_bool is_busy, must_cancel;
};

/* ---- enroll, open, close ---- */

lin_status lin_enroll(const char *state_directory, const char *coordinator_url, const char *invite_code,
                      uint32_t device_class, lin_error *err)
{
    linnet_error why = {0};
    linnet_device_report report;
    linnet_status status = library_need(state_directory, "state_directory", &why);
    if (status == LINNET_OK)
        status = library_need(coordinator_url, "coordinator_url", &why);
    if (status == LINNET_OK)
        status = library_need(invite_code, "invite_code", &why);
    if (status == LINNET_OK)
        status = linnet_crypto_init(&why);
    if (status == LINNET_OK)
        status =
            linnet_agent_enroll(state_directory, coordinator_url, invite_code, device_class, &report, &why);
    return library_return(status, &why, 0, err);
}

static linnet_status open_agent(lin_agent *agent, const lin_agent_options *o, linnet_error *err)
{
    const linnet_agent_config config = {.state_directory = o->state_directory,
                                        .policy_path = o->policy_path,
                                        .consortium_path = o->consortium_path,
                                        .ledger_directory = o->ledger_directory};
    agent->model = o->model;
    library_model_share(agent->model);
    agent->texts = library_texts_share(o->texts);
    agent->held_out = library_texts_share(o->held_out);
    const linnet_agent_work work = {
        .runtime = &agent->model->runtime,
        .model_path = agent->model->path,
        .dataset = agent->texts->dataset,
        .held_out = agent->held_out ? agent->held_out->dataset : NULL,
        .has_seed = o->has_seed != 0,
        .seed = o->seed,
        .arena_bytes_max = agent->model->memory_max > 0 ? library_bytes_max(agent->model->memory_max) : 0};
    linnet_status status = linnet_agent_open(&config, &agent->agent, err);
    return status == LINNET_OK ? linnet_agent_start(agent->agent, &work, err) : status;
}

lin_status lin_agent_open(const lin_agent_options *options, lin_agent **ret_agent, lin_error *err)
{
    linnet_error why = {0};
    lin_agent_options own;
    lin_agent *agent = NULL;
    linnet_status status = library_need(options, "options", &why);
    if (status == LINNET_OK)
        status = library_need(ret_agent, "ret_agent", &why);
    if (status == LINNET_OK)
        status = library_take(options, &own, sizeof(own), &why);
    if (status == LINNET_OK)
        status = library_need(own.state_directory, "state_directory", &why);
    if (status == LINNET_OK)
        status = library_need(own.model, "model", &why);
    if (status == LINNET_OK)
        status = library_need(own.texts, "texts", &why);
    if (status == LINNET_OK)
        status = linnet_crypto_init(&why);
    if (status == LINNET_OK) {
        agent = calloc(1, sizeof(*agent));
        status = agent ? open_agent(agent, &own, &why)
                       : linnet_fail(&why, LINNET_ERR_NOMEM, "no memory for an agent");
    }
    if (status == LINNET_OK)
        *ret_agent = agent;
    else
        lin_agent_close(agent);
    return library_return(status, &why, 0, err);
}

void lin_agent_close(lin_agent *agent)
{
    if (!agent)
        return;
    linnet_agent_close(agent->agent);
    lin_texts_close(agent->held_out);
    lin_texts_close(agent->texts);
    lin_model_close(agent->model);
    free(agent);
}

/* One call at a time; its exchanges leave the model to others. */
static linnet_status enter(lin_agent *agent, linnet_error *err)
{
    bool was_busy = false;
    linnet_status status = library_need(agent, "agent", err);
    if (status == LINNET_OK && !atomic_compare_exchange_strong(&agent->is_busy, &was_busy, true))
        status = linnet_fail(err, LINNET_ERR_BUSY, "another call is working with this agent");
    return status;
}

static void leave(lin_agent *agent)
{
    atomic_store(&agent->is_busy, false);
}

/* ---- steps ---- */

static linnet_device_need next_need(const lin_agent *agent, int64_t *ret_wait_ms)
{
    int64_t wake_ms = 0;
    linnet_device_need need = linnet_device_next(linnet_agent_device(agent->agent), &wake_ms);
    int64_t wait_ms = wake_ms - linnet_agent_now_ms(agent->agent);
    *ret_wait_ms = need == LINNET_DEVICE_POLL && wait_ms > 0 ? wait_ms : 0;
    return need;
}

static linnet_status cancelled(lin_agent *agent, linnet_error *err)
{
    return atomic_exchange(&agent->must_cancel, false) ? linnet_fail(err, LINNET_ERR_CANCELLED, "cancelled")
                                                       : LINNET_OK;
}

static linnet_status train(lin_agent *agent, uint64_t budget_ms, lin_agent_what *what, linnet_error *err)
{
    int64_t wait_ms;
    double end = library_seconds() + (double)budget_ms / 1000;
    linnet_status status = cancelled(agent, err);
    while (status == LINNET_OK && next_need(agent, &wait_ms) == LINNET_DEVICE_TRAIN) {
        status = linnet_agent_act(agent->agent, err);
        if (status != LINNET_OK)
            return status;
        what->n_steps++;
        status = cancelled(agent, err);
        if (library_seconds() >= end)
            break;
    }
    return status;
}

/* Training and evaluation occupy the model. */
static linnet_status compute(lin_agent *agent, linnet_device_need need, uint64_t budget_ms,
                             lin_agent_what *what, linnet_error *err)
{
    linnet_status status = library_model_enter(agent->model, err);
    if (status != LINNET_OK)
        return status;
    what->did = need == LINNET_DEVICE_TRAIN ? LIN_AGENT_TRAINED : LIN_AGENT_EVALUATED;
    status = need == LINNET_DEVICE_TRAIN ? train(agent, budget_ms, what, err)
                                         : linnet_agent_act(agent->agent, err);
    library_model_leave(agent->model);
    return status;
}

static linnet_status do_next(lin_agent *agent, uint64_t budget_ms, lin_agent_what *what, linnet_error *err)
{
    int64_t wait_ms;
    linnet_device_need need = next_need(agent, &wait_ms);
    switch (need) {
    case LINNET_DEVICE_TRAIN:
    case LINNET_DEVICE_EVALUATE:
        return compute(agent, need, budget_ms, what, err);
    case LINNET_DEVICE_POLL:
        what->did = wait_ms > 0 ? LIN_AGENT_WAITED : LIN_AGENT_EXCHANGED;
        return wait_ms > 0 ? linnet_agent_check(agent->agent, err) : linnet_agent_act(agent->agent, err);
    case LINNET_DEVICE_FINISHED:
        break;
    }
    what->did = LIN_AGENT_FINISHED;
    return linnet_agent_check(agent->agent, err);
}

lin_status lin_agent_step(lin_agent *agent, uint64_t budget_ms, lin_agent_what *ret_what, lin_error *err)
{
    linnet_error why = {0};
    lin_agent_what what = {0};
    linnet_device_report report;
    int64_t wait_ms;
    linnet_status status = library_need(ret_what, "ret_what", &why);
    if (status == LINNET_OK)
        status = library_check(ret_what, &why);
    if (status != LINNET_OK)
        return library_return(status, &why, 0, err);
    what.wake_in_ms = BUSY_MS;
    library_give(&what, sizeof(what), ret_what);
    status = enter(agent, &why);
    if (status != LINNET_OK)
        return library_return(status, &why, 0, err);
    status = do_next(agent, budget_ms, &what, &why);
    linnet_device_need need = next_need(agent, &wait_ms);
    linnet_device_status(linnet_agent_device(agent->agent), &report);
    what.is_in_round = report.is_in_round;
    what.wake_in_ms = need == LINNET_DEVICE_FINISHED ? LIN_FOREVER : (uint64_t)wait_ms;
    if (status != LINNET_OK && status != LINNET_ERR_CANCELLED) {
        what.did = LIN_AGENT_WAITED;
        what.wake_in_ms = status == LINNET_ERR_BUSY ? BUSY_MS : LATER_MS;
    }
    library_give(&what, sizeof(what), ret_what);
    uint64_t needed = status == LINNET_ERR_LIMIT ? linnet_agent_needed_bytes(agent->agent) : 0;
    leave(agent);
    return library_return(status, &why, needed, err);
}

void lin_agent_cancel(lin_agent *agent)
{
    if (agent)
        atomic_store(&agent->must_cancel, true);
}

/* ---- the report, the adapter ---- */

static void put_hash(char *to, size_t n, const linnet_hash *hash)
{
    static const linnet_hash none;
    char hex[2 * LINNET_HASH_BYTES + 1];
    linnet_hex_write(hash->bytes, LINNET_HASH_BYTES, hex);
    library_put(to, n, linnet_hash_equal(hash, &none) ? "" : hex);
}

static lin_agent_report report_of(const linnet_device_report *from)
{
    char id[2 * LINNET_DEVICE_ID_BYTES + 1];
    lin_agent_report report = {
        .step = from->step,
        .n_steps = from->n_steps,
        .is_finished = strcmp(from->phase, "finished") == 0,
        .is_revoked = strcmp(from->phase, "revoked") == 0,
        .is_other_model = from->is_other_model,
        .is_in_round = from->is_in_round,
        .operator_is_authority = from->operator_is_authority,
        .version = from->version,
        .round = from->round,
        .n_contributions = from->n_contributions,
        .bytes_up = from->bytes_up,
        .bytes_down = from->bytes_down,
        .train_loss = from->step > 0 ? from->train_loss : (double)NAN,
        .held_out_loss = from->has_held_out_loss ? from->held_out_loss : (double)NAN,
        .dp_epsilon = from->has_budget ? from->dp_epsilon : 0,
        .dp_delta = from->has_budget ? from->dp_delta : 0,
        .dp_epsilon_max = from->has_budget ? from->dp_epsilon_max : 0,
    };
    linnet_hex_write(from->device_id.bytes, LINNET_DEVICE_ID_BYTES, id);
    library_put(report.device_id, sizeof(report.device_id), id);
    library_put(report.phase, sizeof(report.phase), from->phase);
    library_put(report.profile, sizeof(report.profile),
                from->profile == 0 ? "" : linnet_profile_name(from->profile));
    library_put(report.note, sizeof(report.note), from->note);
    put_hash(report.adapter, sizeof(report.adapter), &from->installed);
    return report;
}

lin_status lin_agent_describe(const lin_agent *agent, lin_agent_report *ret_report, lin_error *err)
{
    lin_agent *own = (lin_agent *)(uintptr_t)agent; /* only who is at it changes */
    linnet_error why = {0};
    linnet_device_report from;
    linnet_status status = library_need(ret_report, "ret_report", &why);
    if (status == LINNET_OK)
        status = library_check(ret_report, &why);
    if (status == LINNET_OK)
        status = enter(own, &why);
    if (status == LINNET_OK) {
        linnet_device_status(linnet_agent_device(own->agent), &from);
        leave(own);
        const lin_agent_report report = report_of(&from);
        library_give(&report, sizeof(report), ret_report);
    }
    return library_return(status, &why, 0, err);
}

lin_status lin_agent_use(lin_agent *agent, lin_error *err)
{
    linnet_error why = {0};
    linnet_adapter *copy = NULL;
    linnet_status status = enter(agent, &why);
    if (status != LINNET_OK)
        return library_return(status, &why, 0, err);
    const linnet_adapter *installed = linnet_device_adapter(linnet_agent_device(agent->agent));
    if (installed)
        status = linnet_adapter_copy(installed, &copy, &why);
    if (status == LINNET_OK)
        status = linnet_adapter_slot_put(&agent->model->adapter, copy, &why);
    leave(agent);
    return library_return(status, &why, 0, err);
}
