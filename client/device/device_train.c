/* SPDX-License-Identifier: Apache-2.0 */

/* Training from the current release, and measuring a release on the device's own held-out records. The seed
 * of a training is committed before its first step and checkpoints follow, so that a resumed training gives
 * the same bits; another attempt at the same release draws another seed, hence another data order, so that
 * two deltas of one device never differ by nothing (SECURE-AGGREGATION 2.4, spent rule). Moments start anew
 * in every round. */

#include "device_internal.h"

#include <math.h>
#include <stdlib.h>

#define CHECKPOINT_STEPS 5 /* a kill costs at most so many steps */
#define HELD_OUT_MIN 5     /* fewer records than that are all trained on */

/* ---- which records are trained on, which are kept for evaluation ---- */

typedef struct split {
    size_t *train, *held; /* owned */
    size_t n_train, n_held;
} split;

static void split_release(split *s)
{
    free(s->train);
    free(s->held);
    *s = (split){0};
}

static size_t n_records(const linnet_device_config *config)
{
    return config->records ? config->n_records : config->dataset->n_records;
}

/* Every k-th record is held out, k = 1 / fraction, so at least one of HELD_OUT_MIN. */
static linnet_status split_make(const linnet_device *device, split *ret_split, linnet_error *err)
{
    const linnet_device_config *config = &device->config;
    size_t n = n_records(config), every = 0;
    double fraction = device->plan.held_out;
    if (!config->held_out && fraction > 0 && n >= HELD_OUT_MIN) {
        every = (size_t)(1 / fraction + 0.5);
        every = every < 2 ? 2 : every > n ? n : every;
    }
    split s = {.train = calloc(n + 1, sizeof(size_t)), .held = calloc(n + 1, sizeof(size_t))};
    if (!s.train || !s.held) {
        split_release(&s);
        return linnet_fail(err, LINNET_ERR_NOMEM, "split of %zu records", n);
    }
    for (size_t i = 0; i < n; i++) {
        size_t record = config->records ? config->records[i] : i;
        if (every > 0 && i % every == every - 1)
            s.held[s.n_held++] = record;
        else
            s.train[s.n_train++] = record;
    }
    *ret_split = s;
    return LINNET_OK;
}

static linnet_encoding encoding_of(const linnet_device *device)
{
    return (linnet_encoding){.context_tokens = device->plan.context_tokens,
                             .end_token = device->plan.end_token,
                             .model = device->config.model};
}

/* The token set of an index list; an empty list is an empty set. */
static linnet_status set_make(const linnet_device *device, const linnet_dataset *dataset,
                              const size_t *indices, size_t n, linnet_token_set **ret_set, linnet_error *err)
{
    static const size_t none[1];
    linnet_encoding encoding = encoding_of(device);
    if (n == 0) /* a NULL list would mean everything */
        return linnet_token_set_create(dataset, none, 0, device->config.tokenizer, &encoding, ret_set, err);
    return linnet_token_set_create(dataset, indices, n, device->config.tokenizer, &encoding, ret_set, err);
}

static linnet_status training_set(const linnet_device *device, linnet_token_set **ret_set, linnet_error *err)
{
    split s = {0};
    linnet_status status = split_make(device, &s, err);
    if (status == LINNET_OK)
        status = set_make(device, device->config.dataset, s.train, s.n_train, ret_set, err);
    split_release(&s);
    return status;
}

static linnet_status held_out_set(const linnet_device *device, linnet_token_set **ret_set, linnet_error *err)
{
    const linnet_dataset *own = device->config.held_out;
    const linnet_encoding encoding = encoding_of(device);
    split s = {0};
    if (own)
        return linnet_token_set_create(own, NULL, own->n_records, device->config.tokenizer, &encoding,
                                       ret_set, err);
    linnet_status status = split_make(device, &s, err);
    if (status == LINNET_OK)
        status = set_make(device, device->config.dataset, s.held, s.n_held, ret_set, err);
    split_release(&s);
    return status;
}

/* ---- training ---- */

void device_training_release(linnet_device *device)
{
    linnet_trainer_destroy(device->trainer);
    linnet_token_set_destroy(device->set);
    linnet_adapter_destroy(device->trained);
    device->trainer = NULL;
    device->set = NULL;
    device->trained = NULL;
    device->arena = NULL;
}

static uint64_t draw_seed(const linnet_device *device, uint64_t attempt)
{
    uint64_t seed;
    linnet_rng rng;
    if (!device->config.has_seed) {
        linnet_random_bytes(&seed, sizeof(seed));
        return seed;
    }
    linnet_rng_init(&rng, device->config.seed, device->record.version);
    linnet_rng_init(&rng, linnet_rng_next(&rng), attempt);
    return linnet_rng_next(&rng);
}

static linnet_training settings(const linnet_device *device)
{
    const linnet_plan *plan = &device->plan;
    linnet_training t = linnet_training_default();
    t.optimizer = plan->optimizer == 1 ? LINNET_OPTIMIZER_SGD : LINNET_OPTIMIZER_ADAMW;
    t.schedule = LINNET_SCHEDULE_CONSTANT; /* within a round */
    t.factors = (linnet_factors)device->release.factors;
    t.learning_rate = device->release.learning_rate_b;
    t.learning_rate_a = device->release.learning_rate_a;
    t.weight_decay = plan->weight_decay;
    t.clip_norm = plan->clip_norm;
    t.prox_mu = plan->prox_mu;
    t.dropout = plan->dropout;
    t.n_steps = plan->local_steps;
    t.batch_records = plan->batch_records;
    t.warmup_steps = plan->warmup_steps;
    t.shuffle = true;
    t.seed = device->record.train_seed;
    if (plan->mechanism == LINNET_DP_RECORD_LOCAL) {
        t.clip_norm = 0; /* each unit's gradient is clipped instead */
        t.privacy = (linnet_record_training){.probability = plan->record_probability,
                                             .clip_norm = plan->clip,
                                             .noise_multiplier = plan->noise_multiplier,
                                             .n_units = plan->record_units};
    }
    return t;
}

/* With differential privacy a device joins whatever its texts, its training and its losses are: staying away
 * would tell about them. */
static bool joins_regardless(const linnet_device *device)
{
    return device->plan.mechanism != LINNET_DP_NONE;
}

/* Another seed for another attempt, committed before the first step. */
static linnet_status commit_attempt(linnet_device *device, linnet_error *err)
{
    device_record next = device->record;
    next.attempt++;
    next.train_seed = draw_seed(device, next.attempt);
    next.delta = DELTA_TRAINING;
    next.counted_tokens = device->set->n_counted;
    linnet_kv_item items[2] = {{KV_CHECKPOINT, NULL, 0}};
    size_t n_items = 1;
    if (linnet_profile_is_secure(
            device->plan.profile)) /* an older copy of the store must not train it again */
        device_vault_arm(device, &next, &items[n_items++]);
    return device_commit(device, &next, items, n_items, err);
}

static linnet_status make_trainer(linnet_device *device, linnet_arena *arena, linnet_error *err)
{
    linnet_training t = settings(device);
    device->arena = arena;
    return linnet_trainer_create(&t, arena, device->set, device->trained, &device->trainer, err);
}

/* Go on from the last checkpoint; one that does not fit (the records have changed) means a training from the
 * start, which is another attempt. */
static linnet_status restore(linnet_device *device, linnet_error *err)
{
    linnet_kv *kv = device->config.kv;
    linnet_buffer bytes = {0};
    linnet_status status = kv->get(kv->context, KV_CHECKPOINT, &bytes, err);
    if (status == LINNET_ERR_NOT_FOUND && device->record.counted_tokens == device->set->n_counted)
        status = LINNET_OK;
    else if (status == LINNET_OK &&
             linnet_trainer_restore(device->trainer, bytes.bytes, bytes.n_bytes, err) != LINNET_OK)
        status = LINNET_ERR_MISMATCH;
    linnet_buffer_release(&bytes);
    return status;
}

static linnet_status load_start(linnet_device *device, linnet_adapter **ret_adapter, linnet_error *err)
{
    linnet_status status = device_adapter_load(device, &device->release.adapter, ret_adapter, err);
    if (status == LINNET_ERR_NOT_FOUND)
        device->has_adapter = false; /* fetched again */
    return status;
}

static linnet_status begin_training(linnet_device *device, linnet_arena *arena, linnet_error *err)
{
    linnet_error why = {0};
    bool resumes = device->record.delta == DELTA_TRAINING;
    linnet_status status = training_set(device, &device->set, err);
    if (status != LINNET_OK)
        return status;
    if (device->set->n_items == 0 && device->plan.mechanism != LINNET_DP_RECORD_LOCAL) {
        if (joins_regardless(device))
            return LINNET_ERR_RANGE; /* as a training that failed */
        device->cannot_train = true;
        device_note(device, "there is no record to train on");
        device_wait(device, (uint64_t)device->plan.poll_s * 1000);
        return LINNET_ERR_CANCELLED;
    }
    status = load_start(device, &device->trained, err);
    if (status == LINNET_OK && !resumes)
        status = commit_attempt(device, err);
    if (status == LINNET_OK)
        status = make_trainer(device, arena, err);
    if (status != LINNET_OK || !resumes)
        return status;
    status = restore(device, &why);
    if (status != LINNET_ERR_MISMATCH && status != LINNET_ERR_NOT_FOUND)
        return status == LINNET_OK ? LINNET_OK : linnet_fail(err, status, "%s", why.message);
    linnet_trainer_destroy(device->trainer);
    device->trainer = NULL;
    status = commit_attempt(device, err);
    return status == LINNET_OK ? make_trainer(device, arena, err) : status;
}

/* The same training in another worker's arena: over a checkpoint in memory. */
static linnet_status move_to_arena(linnet_device *device, linnet_arena *arena, linnet_error *err)
{
    linnet_buffer bytes = {0};
    linnet_adapter *start = NULL;
    linnet_status status = linnet_trainer_save(device->trainer, &bytes, err);
    if (status == LINNET_OK)
        status = load_start(device, &start, err);
    if (status == LINNET_OK) {
        linnet_trainer_destroy(device->trainer);
        linnet_adapter_destroy(device->trained);
        device->trainer = NULL;
        device->trained = start; /* where FedProx pulls to; restore puts the trained values in */
        status = make_trainer(device, arena, err);
    }
    if (status == LINNET_OK)
        status = linnet_trainer_restore(device->trainer, bytes.bytes, bytes.n_bytes, err);
    linnet_buffer_release(&bytes);
    return status;
}

static linnet_status save_checkpoint(linnet_device *device, linnet_error *err)
{
    linnet_kv *kv = device->config.kv;
    linnet_buffer bytes = {0};
    linnet_status status = linnet_trainer_save(device->trainer, &bytes, err);
    if (status == LINNET_OK) {
        const linnet_kv_item item = {KV_CHECKPOINT, bytes.bytes, bytes.n_bytes};
        status = kv->put(kv->context, &item, 1, err);
    }
    linnet_buffer_release(&bytes);
    return status;
}

/* after - before of one factor, appended as little-endian floats. */
static linnet_status append_delta(const linnet_adapter *after, const linnet_adapter *before,
                                  linnet_factors factor, linnet_buffer *bytes, linnet_error *err)
{
    size_t n = linnet_factors_length(after->layout, factor);
    float *vector = calloc(n + 1, sizeof(*vector));
    if (!vector || !linnet_buffer_reserve(bytes, n * sizeof(float))) {
        free(vector);
        return linnet_fail(err, LINNET_ERR_NOMEM, "delta of %zu values", n);
    }
    linnet_delta_of(after, before, factor, vector);
    for (size_t i = 0; i < n; i++)
        linnet_store_f32(bytes->bytes + bytes->n_bytes + i * sizeof(float), vector[i]);
    bytes->n_bytes += n * sizeof(float);
    free(vector);
    return LINNET_OK;
}

/* The delta in place, sealed for the next commit. */
static linnet_status seal_delta(const linnet_device *device, linnet_buffer *delta, linnet_error *err)
{
    linnet_buffer sealed = {0};
    linnet_status status = device_seal(device, KV_DELTA, delta, &sealed, err);
    if (status != LINNET_OK) {
        linnet_buffer_release(&sealed);
        return status;
    }
    device_wipe(delta);
    *delta = sealed; /* moves */
    return LINNET_OK;
}

/* The delta is fresh from this commit on, and the checkpoint is gone with it. bytes is used up. */
static linnet_status put_delta(linnet_device *device, linnet_buffer *bytes, linnet_error *err)
{
    device_record next = device->record;
    linnet_kv_item items[3] = {{KV_CHECKPOINT, NULL, 0}};
    size_t n_items = 2;
    linnet_status status = LINNET_OK;
    if (linnet_profile_is_secure(device->plan.profile)) {
        device_vault_arm(device, &next, &items[n_items++]);
        status = seal_delta(device, bytes, err);
    }
    if (status == LINNET_OK) {
        next.delta = DELTA_READY;
        items[1] = (linnet_kv_item){KV_DELTA, bytes->bytes, bytes->n_bytes};
        status = device_commit(device, &next, items, n_items, err);
    }
    return status;
}

static linnet_status commit_delta(linnet_device *device, linnet_error *err)
{
    linnet_buffer bytes = {0};
    linnet_adapter *start = NULL;
    linnet_status status = linnet_adapter_check_finite(device->trained, err);
    if (status == LINNET_OK)
        status = load_start(device, &start, err);
    if (status == LINNET_OK && (device->release.factors & LINNET_FACTOR_B))
        status = append_delta(device->trained, start, LINNET_FACTOR_B, &bytes, err);
    if (status == LINNET_OK && (device->release.factors & LINNET_FACTOR_A))
        status = append_delta(device->trained, start, LINNET_FACTOR_A, &bytes, err);
    if (status == LINNET_OK)
        status = put_delta(device, &bytes, err);
    linnet_adapter_destroy(start);
    device_wipe(&bytes);
    return status;
}

/* A delta of zeros, which becomes noise like any other. */
static linnet_status commit_zeros(linnet_device *device, linnet_error *err)
{
    const linnet_layout *layout = NULL;
    linnet_buffer bytes = {0};
    linnet_status status = device_layout(device, &layout, err);
    size_t n_bytes =
        status == LINNET_OK
            ? linnet_factors_length(layout, (linnet_factors)device->release.factors) * sizeof(float)
            : 0;
    if (status == LINNET_OK && !linnet_buffer_reserve(&bytes, n_bytes))
        status = linnet_fail(err, LINNET_ERR_NOMEM, "delta of %zu bytes", n_bytes);
    if (status == LINNET_OK) {
        memset(bytes.bytes, 0, n_bytes);
        bytes.n_bytes = n_bytes;
        device_note(device, "there was nothing of use to train on; the device joins with zeros");
        device->wake_ms = device->now_ms;
        status = put_delta(device, &bytes, err);
    }
    device_wipe(&bytes);
    return status;
}

/* A training that diverged: nothing is joined with it; the next check-in comes before the next attempt. */
static linnet_status give_up_training(linnet_device *device, const linnet_error *why, linnet_error *err)
{
    device_record next = device->record;
    if (joins_regardless(device))
        return commit_zeros(device, err);
    next.delta = DELTA_NONE;
    device_note(device, "training failed: %.160s", why->message);
    device->must_check_in = true;
    device_back_off(device, 0);
    const linnet_kv_item checkpoint = {KV_CHECKPOINT, NULL, 0};
    return device_commit(device, &next, &checkpoint, 1, err);
}

static linnet_status take_steps(linnet_device *device, uint32_t n_steps, linnet_error *err)
{
    for (uint32_t i = 0; (n_steps == 0 || i < n_steps) && !linnet_trainer_is_done(device->trainer); i++) {
        linnet_status status = linnet_trainer_step(device->trainer, &device->last_step, err);
        if (status != LINNET_OK)
            return status;
        device->has_step = true;
        if (linnet_trainer_steps(device->trainer) % CHECKPOINT_STEPS == 0 &&
            !linnet_trainer_is_done(device->trainer)) {
            status = save_checkpoint(device, err);
            if (status != LINNET_OK)
                return status;
        }
    }
    return LINNET_OK;
}

linnet_status linnet_device_train(linnet_device *device, linnet_arena *arena, uint32_t n_steps,
                                  linnet_error *err)
{
    int64_t wake_ms;
    linnet_error why = {0};
    if (linnet_device_next(device, &wake_ms) != LINNET_DEVICE_TRAIN)
        return linnet_fail(err, LINNET_ERR_ARG, "this device has nothing to train now");
    linnet_status status = device_must_end(device, err);
    if (status != LINNET_OK)
        return status;
    if (!device->trainer)
        status = begin_training(device, arena, &why);
    else if (device->arena != arena)
        status = move_to_arena(device, arena, &why);
    if (status == LINNET_OK)
        status = take_steps(device, n_steps, &why);
    if (status == LINNET_OK && linnet_trainer_is_done(device->trainer)) {
        status = commit_delta(device, &why);
        if (status == LINNET_OK) {
            device_training_release(device);
            device->wake_ms = device->now_ms;
        }
    }
    if (status == LINNET_OK)
        return LINNET_OK;
    device_training_release(device);
    if (status == LINNET_ERR_CANCELLED || status == LINNET_ERR_NOT_FOUND)
        return LINNET_OK; /* nothing to train on; or the adapter must be fetched again */
    if (status == LINNET_ERR_RANGE)
        return give_up_training(device, &why, err);
    return linnet_fail(err, status, "%s", why.message);
}

/* ---- evaluation ---- */

static linnet_status mean_loss(linnet_arena *arena, const linnet_adapter *adapter,
                               const linnet_token_set *set, double *ret_loss, linnet_error *err)
{
    double sum = 0;
    size_t n_counted = 0;
    linnet_status status = linnet_evaluate(arena, adapter, set, &sum, &n_counted, err);
    if (status == LINNET_ERR_RANGE) { /* an adapter whose loss is not finite is the worst one */
        *ret_loss = INFINITY;
        return LINNET_OK;
    }
    if (status == LINNET_OK)
        *ret_loss = n_counted > 0 && isfinite(sum) ? sum / (double)n_counted : INFINITY;
    return status;
}

/* The loss of what is installed now, on the same records: kept from its own evaluation where nothing has
 * changed. */
static linnet_status present_loss(linnet_device *device, linnet_arena *arena, const linnet_token_set *set,
                                  double *ret_loss, linnet_error *err)
{
    const device_record *r = &device->record;
    if (r->has_held_out_loss && r->held_out_tokens == set->n_counted) {
        *ret_loss = r->held_out_loss;
        return LINNET_OK;
    }
    return mean_loss(arena, linnet_device_adapter(device), set, ret_loss, err);
}

static bool is_zero_hash(const linnet_hash *hash)
{
    static const linnet_hash zero;
    return linnet_hash_equal(hash, &zero);
}

/* The adapter that falls out of use is forgotten, unless another role still names it. */
static void forget_adapter(linnet_device *device, const linnet_hash *hash)
{
    const device_record *r = &device->record;
    if (!is_zero_hash(hash) && !linnet_hash_equal(hash, &r->installed) &&
        !linnet_hash_equal(hash, &r->previous) && !linnet_hash_equal(hash, &device->release.adapter))
        device->config.objects->forget(device->config.objects->context, hash);
}

static linnet_status commit_evaluation(linnet_device *device, bool installs, bool has_loss, double loss,
                                       uint64_t n_tokens, linnet_error *err)
{
    device_record next = device->record;
    linnet_hash dropped = device->record.previous;
    next.is_evaluated = true;
    next.has_release_loss = has_loss;
    next.release_loss = has_loss ? loss : 0;
    if (installs && !linnet_hash_equal(&next.installed, &device->release.adapter)) {
        next.previous = next.installed;
        next.previous_version = next.installed_version;
        next.installed = device->release.adapter;
    }
    if (installs) {
        next.installed_version = device->release.version;
        next.has_held_out_loss = has_loss;
        next.held_out_loss = has_loss ? loss : 0;
        next.held_out_tokens = n_tokens;
    }
    linnet_status status = device_commit(device, &next, NULL, 0, err);
    if (status != LINNET_OK)
        return status;
    if (installs) {
        linnet_adapter_destroy(device->installed);
        device->installed = NULL;
        forget_adapter(device, &dropped);
    }
    return LINNET_OK;
}

linnet_status linnet_device_evaluate(linnet_device *device, linnet_arena *arena, linnet_error *err)
{
    int64_t wake_ms;
    linnet_token_set *set = NULL;
    linnet_adapter *adapter = NULL;
    double loss = NAN, present = NAN;
    if (linnet_device_next(device, &wake_ms) != LINNET_DEVICE_EVALUATE)
        return linnet_fail(err, LINNET_ERR_ARG, "this device has nothing to evaluate now");
    linnet_status status = device_must_end(device, err);
    if (status == LINNET_OK)
        status = held_out_set(device, &set, err);
    bool measures = status == LINNET_OK && set && set->n_items > 0;
    if (measures)
        status = load_start(device, &adapter, err);
    if (measures && status == LINNET_OK)
        status = mean_loss(arena, adapter, set, &loss, err);
    if (measures && status == LINNET_OK)
        status = present_loss(device, arena, set, &present, err);
    if (status == LINNET_OK) {
        /* Without records to measure on there is nothing that speaks against the adapter. */
        bool installs = !measures || loss <= device->plan.install_tolerance * present + 1e-9;
        bool has_loss = measures && isfinite(loss);
        if (!installs)
            device_note(device, "version %llu was not installed: held-out loss %.4f, now %.4f",
                        (unsigned long long)device->release.version, loss, present);
        status = commit_evaluation(device, installs, has_loss, loss, measures ? set->n_counted : 0, err);
    }
    linnet_adapter_destroy(adapter);
    linnet_token_set_destroy(set);
    return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status; /* the adapter is fetched again */
}
