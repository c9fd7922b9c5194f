/* SPDX-License-Identifier: Apache-2.0 */
/* Virtual devices. The network is one function: it hands a request to the coordinator, after whatever the
 * scenario does to messages. Identities come from the system's generator as everywhere; what must repeat
 * (data order, rounding, faults) comes from the seed. */
#include "fleet.h"

#include <stdatomic.h>
#include <stdlib.h>

#define STREAM_FAULTS UINT64_C(0x6661756c74)
static const int64_t VIRTUAL_START_MS = INT64_C(1767225600) * 1000; /* 2026-01-01: certificates need a date */

static bool happens(fleet *f, double probability)
{
    return probability > 0 && linnet_rng_double(&f->faults) < probability;
}

static linnet_status restart_coordinator(fleet *f, linnet_error *err)
{
    linnet_coordinator_options options = {
        .serve = true, .in_memory_speed = true, .has_seed = true, .seed = f->config->seed};
    linnet_coordinator_close(f->coordinator);
    f->coordinator = NULL;
    linnet_status status =
        linnet_coordinator_open(f->coordinator_directory, &options, f->now_ms, &f->coordinator, err);
    if (status == LINNET_OK && f->gate)
        linnet_coordinator_set_gate(f->coordinator, f->gate, f->gate_context);
    return status;
}

static void flip_a_bit(fleet *f, uint8_t *bytes, size_t n_bytes)
{
    if (n_bytes > 0)
        bytes[linnet_rng_below(&f->faults, n_bytes)] ^= (uint8_t)(1u << linnet_rng_below(&f->faults, 8));
}

/* linnet_http_fn between a virtual device and the coordinator. */
static linnet_status exchange(void *context, const linnet_http_request *request, size_t n_body_max,
                              linnet_http_response *ret_response, linnet_error *err)
{
    virtual_device *device = context;
    fleet *f = device->fleet;
    linnet_http_request delivered = *request;
    linnet_buffer altered = {0};
    if (happens(f, f->config->scenario.restart)) {
        linnet_status status = restart_coordinator(f, err);
        if (status != LINNET_OK)
            return status;
    }
    if (!f->coordinator || happens(f, f->config->scenario.lose))
        return linnet_fail(err, LINNET_ERR_IO, "the request was lost (scenario)");
    if (request->n_body > 0 && happens(f, f->config->scenario.corrupt)) {
        linnet_buffer_append(&altered, request->body, request->n_body);
        if (!altered.failed) {
            flip_a_bit(f, altered.bytes, altered.n_bytes);
            delivered.body = altered.bytes;
        }
    }
    linnet_http_response response = {0};
    linnet_coordinator_handle(f->coordinator, f->now_ms, &delivered, &response);
    if (happens(f, f->config->scenario.duplicate)) {
        linnet_http_response_release(&response);
        linnet_coordinator_handle(f->coordinator, f->now_ms, &delivered, &response);
    }
    linnet_buffer_release(&altered);
    if (happens(f, f->config->scenario.lose) || response.body.n_bytes > n_body_max) {
        linnet_http_response_release(&response);
        return linnet_fail(err, LINNET_ERR_IO, "the answer was lost (scenario)");
    }
    if (happens(f, f->config->scenario.corrupt))
        flip_a_bit(f, response.body.bytes, response.body.n_bytes);
    *ret_response = response;
    return LINNET_OK;
}

linnet_encoding fleet_encoding(const fleet *f)
{
    return (linnet_encoding){.context_tokens = f->config->plan.context_tokens,
                             .end_token = f->config->plan.end_token,
                             .model = f->model};
}

/* Without an evaluation set, every fifth record of a device becomes one, and leaves its training records. */
static void hold_out(linnet_share *share)
{
    size_t n_kept = 0, n = share->n_records;
    if (n < 5)
        return;
    size_t *eval = calloc(n / 5, sizeof(*eval));
    if (!eval)
        return; /* the device then has no evaluation records, and the report says so */
    for (size_t i = 0; i < n; i++)
        if (i % 5 == 4)
            eval[share->n_eval_records++] = share->records[i];
        else
            share->records[n_kept++] = share->records[i];
    share->n_records = n_kept;
    free(share->eval_records);
    share->eval_records = eval;
}

linnet_status fleet_load(const linnet_simulation_config *config, fleet *ret_fleet, linnet_error *err)
{
    fleet f = {.config = config, .now_ms = VIRTUAL_START_MS};
    linnet_status status = linnet_model_open(config->model_path, &f.model, err);
    linnet_rng_init(&f.faults, config->seed, STREAM_FAULTS);
    if (status == LINNET_OK)
        status = linnet_gguf_hash(linnet_model_gguf(f.model), &f.model_hash, err);
    if (status == LINNET_OK)
        status = linnet_tokenizer_create(linnet_model_gguf(f.model), &f.tokenizer, err);
    if (status == LINNET_OK)
        status = linnet_dataset_load(config->data_path, false, &f.data, err);
    if (status == LINNET_OK && config->eval_path)
        status = linnet_dataset_load(config->eval_path, false, &f.eval, err);
    if (status == LINNET_OK)
        status =
            linnet_shares_create(f.data, f.eval, config->split, config->dirichlet_alpha, config->n_devices,
                                 config->eval_records_max, config->seed, &f.shares, err);
    if (status == LINNET_OK) {
        f.n_devices = f.shares->n_items;
        for (size_t i = 0; !config->eval_path && i < f.n_devices; i++)
            hold_out(&f.shares->items[i]);
        if (!f.eval)
            f.eval = f.data;
        *ret_fleet = f;
        return LINNET_OK;
    }
    fleet_release(&f);
    return status;
}

linnet_status fleet_create_arenas(fleet *f, linnet_error *err)
{
    linnet_status status = linnet_thread_pool_create(f->config->n_threads, &f->pool, err);
    if (status != LINNET_OK)
        return status;
    f->arenas = calloc(linnet_thread_pool_size(f->pool), sizeof(*f->arenas));
    if (!f->arenas)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the workers");
    for (; status == LINNET_OK && f->n_workers < linnet_thread_pool_size(f->pool);
         f->n_workers += status == LINNET_OK)
        status = linnet_arena_create(f->model, NULL, f->config->plan.context_tokens, true,
                                     &f->arenas[f->n_workers], err);
    return status;
}

static linnet_status create_coordinator(fleet *f, linnet_error *err)
{
    linnet_coordinator_options options = {
        .serve = true, .in_memory_speed = true, .has_seed = true, .seed = f->config->seed};
    f->coordinator_directory = linnet_path_join(f->config->out_directory, "coordinator");
    if (!f->coordinator_directory)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a path");
    linnet_status status = linnet_coordinator_init(f->coordinator_directory, &f->config->plan,
                                                   f->config->model_path, NULL, f->now_ms, err);
    if (status == LINNET_OK)
        status = linnet_coordinator_open(f->coordinator_directory, &options, f->now_ms, &f->coordinator, err);
    return status;
}

static linnet_status enroll(fleet *f, virtual_device *device, linnet_error *err)
{
    char text[LINNET_INVITE_TEXT_MAX];
    linnet_invite invite;
    linnet_status status = linnet_kv_open_memory(&device->kv, err);
    if (status == LINNET_OK)
        status = linnet_round_vault_open_memory(&device->vault, err);
    if (status == LINNET_OK)
        status = linnet_coordinator_invite(f->coordinator, (uint64_t)(f->now_ms / 1000) + 86400, text, err);
    if (status == LINNET_OK)
        status = linnet_invite_read(text, &invite);
    for (int attempt = 0; status == LINNET_OK;
         attempt++) { /* the scenario may lose or alter these messages too */
        status = linnet_device_enroll(&device->kv, exchange, device, &invite, "memory:", 1,
                                      (uint64_t)(f->now_ms / 1000), err);
        if (status == LINNET_OK || attempt == 100)
            break;
        status = LINNET_OK;
    }
    linnet_wipe(&invite, sizeof(invite));
    linnet_wipe(text, sizeof(text));
    linnet_device_report report;
    if (status == LINNET_OK)
        status = linnet_device_status_of(&device->kv, &report, err);
    if (status == LINNET_OK)
        device->id = report.device_id;
    return status;
}

/* ---- attackers ---- */

static linnet_rng next_attack(virtual_device *device)
{
    const fleet *f = device->fleet;
    return attack_stream(f->config->seed, ++device->n_attacks, (uint32_t)(device - f->devices));
}

static void change_delta(void *context, float *const *parts, const size_t *lengths, size_t n_parts)
{
    virtual_device *device = context;
    const linnet_scenario *scenario = &device->fleet->config->scenario;
    linnet_rng rng = next_attack(device);
    attack_delta(scenario->attack, scenario->attack_scale, &rng, parts, lengths, n_parts);
}

static void change_message(void *context, uint32_t kind, const linnet_identity *identity, uint8_t *bytes,
                           size_t n_bytes)
{
    if (kind != LINNET_ROUND_UNMASK)
        return;
    linnet_rng rng = next_attack(context);
    attack_shares(&rng, identity, bytes, n_bytes);
}

static linnet_status choose_attackers(fleet *f, linnet_error *err)
{
    const linnet_scenario *scenario = &f->config->scenario;
    bool *is_attacker = calloc(f->n_devices, sizeof(*is_attacker));
    if (!is_attacker)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %zu devices", f->n_devices);
    size_t n = attackers_choose(scenario, f->config->seed, f->n_devices, is_attacker);
    for (size_t i = 0; i < f->n_devices; i++) {
        virtual_device *device = &f->devices[i];
        device->is_attacker = is_attacker[i];
        device->mischief =
            (linnet_mischief){.context = device, .omits_noise = scenario->attack == LINNET_ATTACK_OMIT_NOISE};
        if (attack_is_on_delta(scenario->attack))
            device->mischief.change_delta = change_delta;
        if (scenario->attack == LINNET_ATTACK_WRONG_SHARES)
            device->mischief.change_message = change_message;
    }
    free(is_attacker);
    if (n == 0 || scenario->attack != LINNET_ATTACK_LABEL_FLIP)
        return LINNET_OK;
    linnet_status status = linnet_dataset_load(f->config->data_path, false, &f->flipped, err);
    if (status == LINNET_OK)
        attack_labels(f->flipped, linnet_model_is_encoder(f->model));
    return status;
}

linnet_status fleet_create(const linnet_simulation_config *config, fleet *ret_fleet, linnet_error *err)
{
    linnet_status status = fleet_load(config, ret_fleet, err);
    fleet *f = ret_fleet;
    if (status != LINNET_OK)
        return status;
    status = fleet_create_arenas(f, err);
    if (status == LINNET_OK)
        status = linnet_object_cache_open_memory(&f->objects, err);
    if (status == LINNET_OK)
        status = linnet_secagg_cache_create(&f->cache, err);
    if (status == LINNET_OK)
        status = create_coordinator(f, err);
    if (status == LINNET_OK && !(f->devices = calloc(f->n_devices, sizeof(*f->devices))))
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %zu devices", f->n_devices);
    linnet_rng speeds;
    linnet_rng_init(&speeds, config->seed, FLEET_STREAM_DEVICE);
    for (size_t i = 0; status == LINNET_OK && i < f->n_devices; i++) {
        virtual_device *device = &f->devices[i];
        *device = (virtual_device){
            .fleet = f, .share = &f->shares->items[i], .seed = linnet_rng_next(&speeds) >> 11};
        device->speed = 0.5 + 1.5 * linnet_rng_double(&speeds);
        status = enroll(f, device, err);
    }
    if (status == LINNET_OK)
        status = choose_attackers(f, err);
    if (status != LINNET_OK)
        fleet_release(f);
    return status;
}

void fleet_release(fleet *f)
{
    for (size_t i = 0; f->devices && i < f->n_devices; i++) {
        linnet_device_destroy(f->devices[i].device);
        linnet_round_vault_close(f->devices[i].vault);
        if (f->devices[i].kv.close)
            f->devices[i].kv.close(f->devices[i].kv.context);
    }
    free(f->devices);
    linnet_secagg_cache_destroy(f->cache);
    linnet_coordinator_close(f->coordinator);
    free(f->coordinator_directory);
    if (f->objects.context)
        linnet_object_cache_close(&f->objects);
    for (unsigned i = 0; f->arenas && i < f->n_workers; i++)
        linnet_arena_destroy(f->arenas[i]);
    free(f->arenas);
    linnet_thread_pool_destroy(f->pool);
    linnet_shares_destroy(f->shares);
    if (f->eval != f->data)
        linnet_dataset_destroy(f->eval);
    linnet_dataset_destroy(f->flipped);
    linnet_dataset_destroy(f->data);
    linnet_tokenizer_destroy(f->tokenizer);
    linnet_model_close(f->model);
    *f = (fleet){0};
}

linnet_policy fleet_policy(const linnet_plan *plan)
{
    linnet_policy policy = linnet_policy_default();
    policy.allow_plain = plan->profile == LINNET_PROFILE_PLAIN;
    policy.allow_central_noise = plan->profile == LINNET_PROFILE_CENTRAL_DP;
    if (policy.corrupt_min > plan->corrupt)
        policy.corrupt_min = plan->corrupt;
    return policy;
}

linnet_status fleet_wake(fleet *f, virtual_device *device, linnet_error *err)
{
    linnet_device_config config = {.kv = &device->kv,
                                   .objects = &f->objects,
                                   .http = exchange,
                                   .http_context = device,
                                   .model = f->model,
                                   .model_hash = &f->model_hash,
                                   .tokenizer = f->tokenizer,
                                   .dataset = device->is_attacker && f->flipped ? f->flipped : f->data,
                                   .cache = f->cache,
                                   .mischief = device->is_attacker ? &device->mischief : NULL,
                                   .records = device->share->records,
                                   .n_records = device->share->n_records,
                                   .policy = fleet_policy(&f->config->plan),
                                   .vault = device->vault,
                                   .has_seed = true,
                                   .seed = device->seed,
                                   .seeds_noise = true};
    device->has_trained = false;
    device->busy_until_ms = f->now_ms;
    return linnet_device_create(&config, f->now_ms, &device->device, err);
}

void fleet_sleep(virtual_device *device)
{
    linnet_device_destroy(device->device);
    device->device = NULL;
}

typedef struct parallel_work {
    fleet *f;
    fleet_work_fn *work;
    void *context;
    size_t n_items;
    atomic_size_t next;
} parallel_work;

static void work_in_turn(void *context, size_t first, size_t last, unsigned thread)
{
    parallel_work *p = context;
    (void)first;
    (void)last;
    for (size_t item; (item = atomic_fetch_add(&p->next, 1)) < p->n_items;)
        p->work(p->context, item, p->f->arenas[thread]);
}

void fleet_run(fleet *f, size_t n_items, fleet_work_fn *work, void *context)
{
    parallel_work p = {.f = f, .work = work, .context = context, .n_items = n_items};
    atomic_init(&p.next, 0);
    linnet_thread_pool_run(f->pool, f->n_workers, 1, work_in_turn, &p);
}
