/* SPDX-License-Identifier: Apache-2.0 */
/* A state directory at work. The device says what it needs; this gives it an arena, the network and the time,
 * and puts what it installs into files. There is no loop here, no sleep and no signal. */
#include "linnet/agent.h"

#include "agent_files.h"
#include "device_internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct linnet_agent {
    char *state_directory;  /* owned */
    linnet_agent_work work; /* its pointers borrowed */
    char *model_path;       /* owned */
    linnet_hash model_hash;
    linnet_policy policy;
    linnet_kv kv;
    linnet_round_vault *vault;
    linnet_budget_ledger *ledger;
    linnet_consortium consortium;
    linnet_object_cache objects;
    linnet_http_client *client;
    linnet_device *device;
    linnet_arena *arena;
    uint32_t arena_context;
    size_t needed_bytes;
    int64_t started_ms, started_boot_ms;
};

/* ---- enrolment ---- */

linnet_status linnet_agent_enroll(const char *state_directory, const char *coordinator_url,
                                  const char *invite_code, uint32_t device_class,
                                  linnet_device_report *ret_report, linnet_error *err)
{
    linnet_invite invite;
    linnet_kv kv = {0};
    linnet_http_client *client = NULL;
    if (linnet_invite_read(invite_code, &invite) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_ARG,
                           "the invite code is not complete or has a typing slip; paste it again");
    linnet_status status = linnet_http_client_create(coordinator_url, &client, err);
    if (status == LINNET_OK)
        status = linnet_kv_open_lmdb(state_directory, true, &kv, err);
    if (status == LINNET_OK)
        status = linnet_device_enroll(&kv, linnet_http_client_exchange, client, &invite, coordinator_url,
                                      device_class, (uint64_t)time(NULL), err);
    if (status == LINNET_OK)
        status = linnet_device_status_of(&kv, ret_report, err);
    if (kv.close)
        kv.close(kv.context);
    linnet_http_client_destroy(client);
    linnet_wipe(&invite, sizeof(invite));
    return status;
}

/* ---- opening and closing ---- */

static int64_t clock_ms(clockid_t clock)
{
    struct timespec t;
    (void)clock_gettime(clock, &t); /* these clocks exist */
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t linnet_agent_now_ms(const linnet_agent *agent)
{
    return agent->started_ms + clock_ms(CLOCK_BOOTTIME) - agent->started_boot_ms;
}

/* What a masked or noised round needs beside the state: the round key, the ledger, the pinned members. */
static linnet_status open_guards(linnet_agent *agent, const linnet_agent_config *config,
                                 const linnet_device_report *report, linnet_error *err)
{
    const char *members = config->consortium_path ? config->consortium_path : agent->policy.consortium;
    const char *ledger = config->ledger_directory ? config->ledger_directory : config->state_directory;
    linnet_status status =
        members[0] != '\0' ? linnet_consortium_load(members, &agent->consortium, err) : LINNET_OK;
    if (status == LINNET_OK)
        status = linnet_budget_ledger_open(ledger, &agent->ledger, err);
    if (status == LINNET_OK)
        status = linnet_round_vault_open(config->state_directory, &report->device_id,
                                         agent->policy.round_key_on_disk, NULL, &agent->vault, err);
    return status;
}

static linnet_status open_parts(linnet_agent *agent, const linnet_agent_config *config, linnet_error *err)
{
    linnet_device_report report;
    agent->state_directory = strdup(config->state_directory);
    if (!agent->state_directory)
        return linnet_fail(err, LINNET_ERR_NOMEM, "agent");
    linnet_status status = linnet_kv_open_lmdb(config->state_directory, false, &agent->kv, err);
    if (status == LINNET_OK)
        status = linnet_device_status_of(&agent->kv, &report, err);
    if (status == LINNET_OK && config->policy_path)
        status = linnet_policy_load(config->policy_path, &agent->policy, err);
    if (status == LINNET_OK)
        status = open_guards(agent, config, &report, err);
    if (status == LINNET_OK)
        status = linnet_object_cache_open_files(config->state_directory, &agent->objects, err);
    return status == LINNET_OK ? linnet_http_client_create(report.coordinator_url, &agent->client, err)
                               : status;
}

linnet_status linnet_agent_open(const linnet_agent_config *config, linnet_agent **ret_agent,
                                linnet_error *err)
{
    linnet_agent *agent = calloc(1, sizeof(*agent));
    if (!agent)
        return linnet_fail(err, LINNET_ERR_NOMEM, "agent");
    agent->policy = linnet_policy_default();
    agent->started_ms = clock_ms(CLOCK_REALTIME);
    agent->started_boot_ms = clock_ms(CLOCK_BOOTTIME);
    linnet_status status = open_parts(agent, config, err);
    if (status != LINNET_OK) {
        linnet_agent_close(agent);
        return status;
    }
    *ret_agent = agent;
    return LINNET_OK;
}

/* A device that has no round any more needs no round key; if it is ever started again, that is as after a
 * reboot. Between rounds the file stays: it tells a restored backup. */
static void close_vault(linnet_agent *agent)
{
    linnet_device_report report = {.phase = ""};
    if (agent->device)
        linnet_device_status(agent->device, &report);
    bool is_over = strcmp(report.phase, "finished") == 0 || strcmp(report.phase, "revoked") == 0;
    linnet_device_destroy(agent->device);
    if (is_over)
        linnet_round_vault_forget(agent->vault);
    else
        linnet_round_vault_close(agent->vault);
}

void linnet_agent_close(linnet_agent *agent)
{
    if (!agent)
        return;
    close_vault(agent);
    linnet_budget_ledger_close(agent->ledger);
    linnet_consortium_release(&agent->consortium);
    linnet_arena_destroy(agent->arena);
    linnet_http_client_destroy(agent->client);
    if (agent->objects.context)
        linnet_object_cache_close(&agent->objects);
    if (agent->kv.close)
        agent->kv.close(agent->kv.context);
    free(agent->model_path);
    free(agent->state_directory);
    free(agent);
}

linnet_device *linnet_agent_device(linnet_agent *agent)
{
    return agent->device;
}

static linnet_status write_installed(linnet_agent *agent, linnet_error *err)
{
    linnet_device_report report;
    linnet_device_status(agent->device, &report);
    const agent_adapter installed = {.adapter = linnet_device_adapter(agent->device),
                                     .hash = report.installed,
                                     .architecture = linnet_model_architecture(agent->work.runtime->model),
                                     .model_path = agent->model_path};
    return installed.adapter ? agent_files_write(agent->state_directory, &installed, err) : LINNET_OK;
}

linnet_status linnet_agent_start(linnet_agent *agent, const linnet_agent_work *work, linnet_error *err)
{
    agent->work = *work;
    agent->model_path = strdup(work->model_path);
    if (!agent->model_path)
        return linnet_fail(err, LINNET_ERR_NOMEM, "agent");
    linnet_status status = linnet_gguf_hash(linnet_model_gguf(work->runtime->model), &agent->model_hash, err);
    const linnet_device_config config = {
        .kv = &agent->kv,
        .objects = &agent->objects,
        .http = linnet_http_client_exchange,
        .http_context = agent->client,
        .model = work->runtime->model,
        .model_hash = &agent->model_hash,
        .tokenizer = work->runtime->tokenizer,
        .dataset = work->dataset,
        .held_out = work->held_out,
        .policy = agent->policy,
        .vault = agent->vault,
        .ledger = agent->ledger,
        .consortium = agent->consortium.keys,
        .n_consortium = agent->consortium.n_keys,
        .has_seed = work->has_seed,
        .seed = work->seed,
    };
    if (status == LINNET_OK)
        status = linnet_device_create(&config, linnet_agent_now_ms(agent), &agent->device, err);
    return status == LINNET_OK ? write_installed(agent, err) : status;
}

/* ---- acting ---- */

/* An arena of the plan's context, which is not shortened: what was learnt with another would not be what the
 * plan says. An adapter of the plan's layout, for a moment, tells what it needs beside it. */
static linnet_status make_arena(linnet_agent *agent, uint32_t context, linnet_error *err)
{
    const linnet_runtime *runtime = agent->work.runtime;
    const linnet_layout *layout = NULL;
    linnet_adapter *adapter = NULL;
    if (agent->work.arena_bytes_max == 0)
        return linnet_arena_create(runtime->model, runtime->pool, context, true, &agent->arena, err);
    linnet_status status = device_layout(agent->device, &layout, err);
    if (status == LINNET_OK)
        status = linnet_adapter_create(layout, &adapter, err);
    if (status == LINNET_OK)
        status =
            linnet_arena_create_within(runtime->model, runtime->pool, adapter, agent->work.arena_bytes_max,
                                       context, true, &context, &agent->needed_bytes, &agent->arena, err);
    agent->needed_bytes = status == LINNET_ERR_LIMIT ? agent->needed_bytes : 0;
    linnet_adapter_destroy(adapter);
    return status;
}

size_t linnet_agent_needed_bytes(const linnet_agent *agent)
{
    return agent->needed_bytes;
}

static linnet_status need_arena(linnet_agent *agent, linnet_error *err)
{
    uint32_t context = linnet_device_context(agent->device);
    if (agent->arena && agent->arena_context >= context)
        return LINNET_OK;
    linnet_arena_destroy(agent->arena);
    agent->arena = NULL;
    linnet_status status = make_arena(agent, context, err);
    agent->arena_context = status == LINNET_OK ? context : 0;
    return status;
}

linnet_status linnet_agent_check(const linnet_agent *agent, linnet_error *err)
{
    char hex[2 * LINNET_HASH_BYTES + 1];
    linnet_device_report report;
    linnet_device_status(agent->device, &report);
    if (strcmp(report.phase, "revoked") == 0)
        return linnet_fail(
            err, LINNET_ERR_DENIED,
            "this device is revoked and takes no more part; what was accepted before stays in its "
            "rounds (linnet-client's 'forget' erases the state)");
    if (!report.is_other_model)
        return LINNET_OK;
    linnet_hex_write(report.base_model.bytes, LINNET_HASH_BYTES, hex);
    return linnet_fail(err, LINNET_ERR_MISMATCH,
                       "'%.120s' is not the base model of this task, which is the file whose hash is %s",
                       agent->model_path, hex);
}

linnet_status linnet_agent_act(linnet_agent *agent, linnet_error *err)
{
    int64_t wake_ms = 0;
    linnet_status status = LINNET_OK;
    switch (linnet_device_next(agent->device, &wake_ms)) {
    case LINNET_DEVICE_TRAIN:
        status = need_arena(agent, err);
        return status == LINNET_OK ? linnet_device_train(agent->device, agent->arena, 1, err) : status;
    case LINNET_DEVICE_EVALUATE:
        status = need_arena(agent, err);
        if (status == LINNET_OK)
            status = linnet_device_evaluate(agent->device, agent->arena, err);
        return status == LINNET_OK ? write_installed(agent, err) : status;
    case LINNET_DEVICE_POLL:
        status = linnet_agent_check(agent, err);
        return status == LINNET_OK ? linnet_device_poll(agent->device, linnet_agent_now_ms(agent), err)
                                   : status;
    case LINNET_DEVICE_FINISHED:
        break;
    }
    return linnet_agent_check(agent, err);
}
