/* SPDX-License-Identifier: Apache-2.0 */
/* The round loop. A round is played in two alternating parts: messages, one at a time in the order of the
 * virtual clock, and training, on all workers at once. Training never touches the network and messages never
 * depend on who finished first, so that the transcript is the same for any number of threads. */
#include "simulate.h"

#include <math.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

/* Streams of the seed: who is awake, who drops out. */
#define STREAM_AWAKE UINT64_C(0x6177616b65)
#define STREAM_DROP UINT64_C(0x64726f70)
#define POLLS_MAX 200000 /* of one round: far above what any plan needs */

/* The devices awake in a round, in device order. */
typedef struct awake_set {
    size_t *devices;
    size_t n_devices;
    bool *drops; /* this one goes away before its upload */
} awake_set;

static int compare_sizes(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

/* ceil(participation N) devices drawn by the seed and the round alone. */
static bool draw_awake(const fleet *f, uint64_t round, awake_set *ret)
{
    const linnet_scenario *scenario = &f->config->scenario;
    size_t n = (size_t)ceil(scenario->participation * (double)f->n_devices);
    linnet_rng rng, drop;
    awake_set set = {.n_devices = n < 1 ? 1 : n};
    set.devices = calloc(f->n_devices, sizeof(*set.devices));
    set.drops = calloc(f->n_devices, sizeof(*set.drops));
    if (!set.devices || !set.drops) {
        free(set.devices);
        free(set.drops);
        return false;
    }
    for (size_t i = 0; i < f->n_devices; i++)
        set.devices[i] = i;
    linnet_rng_init(&rng, f->config->seed ^ STREAM_AWAKE, round);
    linnet_rng_init(&drop, f->config->seed ^ STREAM_DROP, round);
    linnet_rng_shuffle(&rng, set.devices, f->n_devices);
    qsort(set.devices, set.n_devices, sizeof(*set.devices), compare_sizes);
    for (size_t i = 0; i < set.n_devices; i++)
        set.drops[i] = linnet_rng_double(&drop) < scenario->drop_out;
    *ret = set;
    return true;
}

/* ---- training, in parallel ---- */

typedef struct train_work {
    fleet *f;
    virtual_device **devices; /* those that want the processor */
    double *seconds;          /* processor time of each */
} train_work;

static double thread_seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* cannot fail for the calling thread */
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void train_device(void *context, size_t item, linnet_arena *arena)
{
    train_work *work = context;
    virtual_device *device = work->devices[item];
    double started = thread_seconds();
    device->status = LINNET_OK;
    while (device->status == LINNET_OK) {
        int64_t wake;
        linnet_device_need need = linnet_device_next(device->device, &wake);
        if (need == LINNET_DEVICE_TRAIN)
            device->status = linnet_device_train(device->device, arena, 0, &device->error);
        else if (need == LINNET_DEVICE_EVALUATE)
            device->status = linnet_device_evaluate(device->device, arena, &device->error);
        else
            break;
    }
    device->has_trained = true;
    work->seconds[item] = thread_seconds() - started;
}

static linnet_status train_all(fleet *f, virtual_device **devices, size_t n, double *device_seconds,
                               linnet_error *err)
{
    train_work work = {.f = f, .devices = devices, .seconds = calloc(n, sizeof(double))};
    if (!work.seconds)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory to train %zu devices", n);
    fleet_run(f, n, train_device, &work);
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < n; i++) {
        *device_seconds += work.seconds[i];
        devices[i]->busy_until_ms =
            f->now_ms + (int64_t)(1000 * f->config->plan.local_steps / devices[i]->speed);
        if (status == LINNET_OK && devices[i]->status != LINNET_OK)
            status = linnet_fail(err, devices[i]->status, "device '%s': %s", devices[i]->share->name,
                                 devices[i]->error.message);
    }
    free(work.seconds);
    return status;
}

/* ---- messages, one at a time ---- */

/* The awake device whose next message is due first; busy ones wait for their virtual training to end. */
static virtual_device *next_to_poll(fleet *f, const awake_set *awake, int64_t *ret_at_ms)
{
    virtual_device *next = NULL;
    for (size_t i = 0; i < awake->n_devices; i++) {
        virtual_device *device = &f->devices[awake->devices[i]];
        int64_t wake;
        if (!device->device || linnet_device_next(device->device, &wake) != LINNET_DEVICE_POLL)
            continue;
        if (wake < device->busy_until_ms)
            wake = device->busy_until_ms;
        if (!next || wake < *ret_at_ms) {
            next = device;
            *ret_at_ms = wake;
        }
    }
    return next;
}

/* Devices that want to train now; asks only once no untrained device has a message left to exchange first. */
static size_t want_training(fleet *f, const awake_set *awake, virtual_device **list)
{
    size_t n = 0;
    for (size_t i = 0; i < awake->n_devices; i++) {
        virtual_device *device = &f->devices[awake->devices[i]];
        int64_t wake;
        if (!device->device)
            continue;
        linnet_device_need need = linnet_device_next(device->device, &wake);
        if (need == LINNET_DEVICE_TRAIN || need == LINNET_DEVICE_EVALUATE)
            list[n++] = device;
        else if (need == LINNET_DEVICE_POLL && !device->has_trained && wake <= f->now_ms)
            return 0;
    }
    return n;
}

/* When everybody has gone only a deadline is left, of the phase or of the round. */
static int64_t next_deadline(const fleet *f, int64_t due_ms)
{
    int64_t latest_ms = f->now_ms + (int64_t)f->config->plan.deadline_s * 1000;
    return (due_ms > f->now_ms && due_ms < latest_ms ? due_ms : latest_ms) + 1;
}

static linnet_status round_number(fleet *f, uint64_t *ret_round, bool *ret_finished, linnet_error *err)
{
    linnet_coordinator_report report;
    linnet_status status = linnet_coordinator_status(f->coordinator, &report, err);
    if (status == LINNET_OK) {
        *ret_round = report.round;
        *ret_finished = report.is_finished;
    }
    return status;
}

/* Does this round count on the device's upload? It may still be in an earlier one. */
static bool is_uploading(const virtual_device *device, uint64_t round)
{
    linnet_device_report report;
    linnet_device_status(device->device, &report);
    return report.round == round && strcmp(report.phase, "uploading") == 0;
}

/* An attacker that aborts takes part until its masks are in everybody's vectors, and goes away then. */
static void abort_attacker(const fleet *f, virtual_device *device, uint64_t round)
{
    if (device->is_attacker && f->config->scenario.attack == LINNET_ATTACK_ABORT &&
        is_uploading(device, round))
        fleet_sleep(device);
}

/* Those of the set that drop out do so once the round counts on them: their upload never arrives. */
static void drop_out(fleet *f, const awake_set *awake, uint64_t round)
{
    for (size_t i = 0; i < awake->n_devices; i++) {
        virtual_device *device = &f->devices[awake->devices[i]];
        if (awake->drops[i] && device->device && is_uploading(device, round))
            fleet_sleep(device);
    }
}

static linnet_status play_round(fleet *f, const awake_set *awake, uint64_t round, double *device_seconds,
                                linnet_error *err)
{
    virtual_device **list = calloc(awake->n_devices, sizeof(virtual_device *));
    linnet_status status = list ? LINNET_OK : linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a round");
    for (size_t i = 0; status == LINNET_OK && i < awake->n_devices; i++)
        status = fleet_wake(f, &f->devices[awake->devices[i]], err);
    int64_t due_ms = 0;
    for (size_t n_polls = 0; status == LINNET_OK; n_polls++) {
        uint64_t current = round;
        bool is_finished = false;
        int64_t at = f->now_ms;
        size_t n = want_training(f, awake, list);
        if (n > 0) {
            status = train_all(f, list, n, device_seconds, err);
            continue;
        }
        virtual_device *device = next_to_poll(f, awake, &at);
        if (at > f->now_ms)
            f->now_ms = at;
        if (!device) {
            f->now_ms = next_deadline(f, due_ms);
            n_polls += 1000;
        } else {
            status = linnet_device_poll(device->device, f->now_ms, err);
            abort_attacker(f, device, round);
            drop_out(f, awake, round);
        }
        if (status == LINNET_OK)
            status = linnet_coordinator_tick(f->coordinator, f->now_ms, &due_ms, err);
        if (status == LINNET_OK)
            status = round_number(f, &current, &is_finished, err);
        if (status != LINNET_OK || current != round || is_finished)
            break;
        if (n_polls > POLLS_MAX)
            status = linnet_fail(
                err, LINNET_ERR_LIMIT,
                "round %llu does not end: no device makes progress (goal %u, minimum %u, %zu awake)",
                (unsigned long long)round, f->config->plan.goal, f->config->plan.minimum, awake->n_devices);
    }
    for (size_t i = 0; i < awake->n_devices; i++)
        fleet_sleep(&f->devices[awake->devices[i]]);
    free(list);
    return status;
}

/* ---- what a round left behind ---- */

static int compare_entries(const void *a, const void *b)
{
    uint32_t x = ((const round_entry *)a)->device, y = ((const round_entry *)b)->device;
    return (x > y) - (x < y);
}

void transcript_add(linnet_hasher *hasher, uint64_t round, round_entry *entries, size_t n_entries,
                    const linnet_hash *adapter)
{
    uint8_t number[8];
    if (n_entries > 0)
        qsort(entries, n_entries, sizeof(*entries), compare_entries);
    linnet_store_le64(number, round);
    linnet_hasher_update(hasher, number, 8);
    for (size_t i = 0; i < n_entries; i++) {
        linnet_store_le32(number, entries[i].device);
        linnet_hasher_update(hasher, number, 4);
        linnet_hasher_update(hasher, entries[i].echo.bytes, LINNET_HASH_BYTES);
    }
    linnet_hasher_update(hasher, adapter->bytes, LINNET_HASH_BYTES);
}

static linnet_status add_to_transcript(fleet *f, uint64_t number, uint64_t round, const linnet_hash *adapter,
                                       linnet_hasher *hasher, linnet_error *err)
{
    linnet_contribution_report *list = NULL;
    size_t n = 0;
    linnet_status status = linnet_coordinator_contributions(f->coordinator, round, &list, &n, err);
    round_entry *entries = calloc(n + 1, sizeof(*entries));
    if (status == LINNET_OK && !entries)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the transcript");
    bool is_masked = linnet_profile_is_secure(f->config->plan.profile); /* masked bytes never repeat */
    for (size_t i = 0; status == LINNET_OK && i < n; i++) {
        size_t device = 0;
        while (device < f->n_devices &&
               memcmp(&f->devices[device].id, &list[i].device_id, sizeof(list[i].device_id)) != 0)
            device++;
        entries[i] = (round_entry){.device = (uint32_t)device};
        if (!is_masked)
            entries[i].echo = list[i].echo;
    }
    if (status == LINNET_OK)
        transcript_add(hasher, number, entries, n, adapter);
    free(entries);
    free(list);
    return status;
}

/* The coordinator's own figures of a round. */
static linnet_status report_of(fleet *f, uint64_t round, linnet_round_report *ret_report, linnet_error *err)
{
    linnet_round_report *list = NULL;
    size_t n = 0;
    linnet_status status = linnet_coordinator_rounds(f->coordinator, &list, &n, err);
    bool found = false;
    for (size_t i = 0; status == LINNET_OK && i < n; i++)
        if (list[i].round == round) {
            *ret_report = list[i];
            found = true;
        }
    if (status == LINNET_OK && !found)
        status = linnet_fail(err, LINNET_ERR_INTERNAL, "the coordinator has no round %llu",
                             (unsigned long long)round);
    free(list);
    return status;
}

linnet_status finish_round(fleet *f, const evaluation *e, uint64_t number, uint64_t round,
                           linnet_hasher *hasher, linnet_simulation_round *ret, double *each,
                           linnet_error *err)
{
    linnet_round_report report;
    linnet_adapter *adapter = NULL;
    double loss = (double)NAN;
    linnet_status status = report_of(f, round, &report, err);
    if (status == LINNET_OK)
        status = add_to_transcript(f, number, round, &report.adapter, hasher, err);
    if (status == LINNET_OK)
        status = linnet_coordinator_adapter(f->coordinator, report.state[0] == 'v' ? UINT64_MAX : round,
                                            &adapter, err);
    if (status == LINNET_OK)
        status = evaluation_run(f, e, adapter, &loss, each, err);
    linnet_adapter_destroy(adapter);
    if (status == LINNET_OK)
        *ret = (linnet_simulation_round){.round = round,
                                         .accepted = report.accepted,
                                         .dropped = report.dropped,
                                         .loss = loss,
                                         .bytes_up = report.bytes_up,
                                         .bytes_down = report.bytes_down};
    return status;
}

/* The operator of a simulation holds what its evaluation scores. */
typedef struct canary {
    fleet *fleet;
    const evaluation *evaluation;
} canary;

static linnet_status score_candidate(void *context, const linnet_adapter *adapter, double *ret_loss,
                                     linnet_error *err)
{
    const canary *c = context;
    return evaluation_run(c->fleet, c->evaluation, adapter, ret_loss, NULL, err);
}

linnet_status simulate_in_memory(fleet *f, const evaluation *e, const outcome *o,
                                 linnet_simulation_result *result, linnet_adapter **ret_adapter,
                                 linnet_error *err)
{
    linnet_status status = LINNET_OK;
    linnet_hasher hasher;
    linnet_progress progress;
    canary operator= {.fleet = f, .evaluation = e};
    linnet_hasher_init(&hasher, LINNET_LABEL_TRANSCRIPT);
    f->gate = score_candidate;
    f->gate_context = &operator;
    linnet_coordinator_set_gate(f->coordinator, f->gate, f->gate_context);
    linnet_progress_start(&progress, o->cli, "rounds", f->config->n_rounds);
    bool is_finished = false;
    for (size_t i = 0; status == LINNET_OK && !is_finished && i < f->config->n_rounds; i++) {
        awake_set awake;
        uint64_t round = 0;
        char note[64];
        status = round_number(f, &round, &is_finished, err);
        if (status != LINNET_OK || is_finished)
            break;
        if (!draw_awake(f, i, &awake)) {
            status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a round");
            break;
        }
        status = play_round(f, &awake, round, &result->device_seconds, err);
        if (status == LINNET_OK)
            status =
                finish_round(f, e, i + 1, round, &hasher, &result->rounds[i], result->device_federated, err);
        free(awake.devices);
        free(awake.drops);
        if (status == LINNET_OK) {
            result->n_rounds = i + 1;
            result->bytes_up += result->rounds[i].bytes_up;
            result->bytes_down += result->rounds[i].bytes_down;
            outcome_round(o, &result->rounds[i]);
            (void)snprintf(note, sizeof(note), "loss %.4f", result->rounds[i].loss);
            linnet_progress_update(&progress, i + 1, note);
        }
    }
    linnet_progress_finish(&progress);
    result->transcript = linnet_hasher_final(&hasher);
    if (status == LINNET_OK)
        status = linnet_coordinator_adapter(f->coordinator, UINT64_MAX, ret_adapter, err);
    f->gate = NULL; /* its context ends here */
    linnet_coordinator_set_gate(f->coordinator, NULL, NULL);
    return status;
}

/* ---- the whole run ---- */

static linnet_status allocate_result(const fleet *f, linnet_simulation_result *result, linnet_error *err)
{
    *result = (linnet_simulation_result){.n_devices = f->n_devices,
                                         .loss_base = (double)NAN,
                                         .loss_federated = (double)NAN,
                                         .loss_local = (double)NAN,
                                         .loss_central = (double)NAN,
                                         .general_base = (double)NAN,
                                         .general_federated = (double)NAN,
                                         .general_central = (double)NAN,
                                         .worst_tenth = (double)NAN};
    result->rounds = calloc(f->config->n_rounds, sizeof(*result->rounds));
    result->device_base = calloc(f->n_devices, sizeof(double));
    result->device_federated = calloc(f->n_devices, sizeof(double));
    result->device_local = calloc(f->n_devices, sizeof(double));
    if (!result->rounds || !result->device_base || !result->device_federated || !result->device_local)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the results of %zu devices", f->n_devices);
    for (size_t i = 0; i < f->n_devices; i++)
        result->device_local[i] = (double)NAN;
    return LINNET_OK;
}

static int compare_descending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

static void count_clients(linnet_simulation_result *result)
{
    double *losses = calloc(result->n_devices, sizeof(*losses)), sum = 0;
    size_t n = 0;
    for (size_t i = 0; losses && i < result->n_devices; i++)
        if (isfinite(result->device_federated[i])) {
            result->clients_better_than_base += result->device_federated[i] < result->device_base[i];
            losses[n++] = result->device_federated[i];
        }
    result->n_evaluated = n;
    if (n > 0) {
        size_t tenth = (n + 9) / 10;
        qsort(losses, n, sizeof(*losses), compare_descending);
        for (size_t i = 0; i < tenth; i++)
            sum += losses[i];
        result->worst_tenth = sum / (double)tenth;
    }
    free(losses);
}

static linnet_status run_baselines(fleet *f, const evaluation *e, const outcome *o,
                                   linnet_simulation_result *result, linnet_error *err)
{
    const linnet_simulation_config *config = f->config;
    linnet_adapter *central = NULL;
    double rate = config->central_rate > 0 ? config->central_rate : config->plan.learning_rate_b / 2;
    uint32_t steps = config->plan.local_steps * (uint32_t)config->n_rounds;
    uint32_t n_awake = (uint32_t)ceil(config->scenario.participation * (double)f->n_devices);
    uint32_t local_steps = (uint32_t)ceil(
        (double)steps * config->scenario.participation); /* a device's own share of the rounds */
    linnet_status status = baseline_local(f, e, local_steps, config->plan.learning_rate_b, o->cli,
                                          result->device_local, &result->loss_local, err);
    if (status == LINNET_OK)
        status = baseline_central(f, steps * (n_awake ? n_awake : 1), rate, o->cli, &central, err);
    if (status == LINNET_OK)
        status = evaluation_run(f, e, central, &result->loss_central, NULL, err);
    if (status == LINNET_OK)
        status = evaluation_general(f, e, central, &result->general_central, err);
    linnet_adapter_destroy(central);
    return status;
}

static linnet_status run_with(fleet *f, const outcome *o, linnet_simulation_result *result, linnet_error *err)
{
    evaluation e = {0};
    linnet_adapter *adapter = NULL;
    linnet_status status = evaluation_create(f, &e, err);
    if (status == LINNET_OK)
        status = evaluation_run(f, &e, NULL, &result->loss_base, result->device_base, err);
    if (status == LINNET_OK)
        status = evaluation_general(f, &e, NULL, &result->general_base, err);
    if (status == LINNET_OK)
        status = f->config->processes ? simulate_processes(f, &e, o, result, &adapter, err)
                                      : simulate_in_memory(f, &e, o, result, &adapter, err);
    if (status == LINNET_OK) {
        result->adapter = linnet_adapter_hash(adapter);
        result->loss_federated =
            result->n_rounds ? result->rounds[result->n_rounds - 1].loss : result->loss_base;
        count_clients(result);
        status = evaluation_general(f, &e, adapter, &result->general_federated, err);
    }
    if (status == LINNET_OK && f->config->baselines)
        status = run_baselines(f, &e, o, result, err);
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        result->peak_rss_bytes = (uint64_t)usage.ru_maxrss * 1024;
    if (status == LINNET_OK)
        status = outcome_finish(o, f, adapter, result, err);
    linnet_adapter_destroy(adapter);
    evaluation_release(&e);
    return status;
}

linnet_status linnet_simulation_run(const linnet_simulation_config *config, const linnet_cli *cli,
                                    linnet_simulation_result *ret_result, linnet_error *err)
{
    fleet f = {0};
    outcome o = {.cli = cli};
    linnet_simulation_result result = {0};
    char *path = NULL;
    linnet_status status = linnet_directory_create(config->out_directory, err);
    if (status == LINNET_OK)
        status = config->processes ? fleet_load(config, &f, err) : fleet_create(config, &f, err);
    if (status == LINNET_OK && config->processes)
        status = fleet_create_arenas(&f, err);
    if (status == LINNET_OK)
        status = allocate_result(&f, &result, err);
    if (status == LINNET_OK &&
        (!(path = linnet_path_join(config->out_directory, "run.jsonl")) || !(o.log = fopen(path, "w"))))
        status = linnet_fail(err, LINNET_ERR_IO, "cannot write '%s'", path ? path : config->out_directory);
    if (status == LINNET_OK)
        status = run_with(&f, &o, &result, err);
    if (o.log && fclose(o.log) != 0 && status == LINNET_OK)
        status = linnet_fail(err, LINNET_ERR_IO, "cannot write '%s'", path);
    if (status == LINNET_OK)
        status = linnet_report_write(config->out_directory, err);
    free(path);
    fleet_release(&f);
    if (status == LINNET_OK)
        *ret_result = result;
    else
        linnet_simulation_result_release(&result);
    return status;
}

void linnet_simulation_result_release(linnet_simulation_result *result)
{
    free(result->rounds);
    free(result->device_base);
    free(result->device_federated);
    free(result->device_local);
    *result = (linnet_simulation_result){0};
}
