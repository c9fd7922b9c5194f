/* SPDX-License-Identifier: Apache-2.0 */

/* Model releases: accepting one, fetching the plan and the adapter that it names, and checking that all of it
 * fits this device (SECURE-AGGREGATION 2.4). A version never goes back, and a version that is known never
 * gets another body. */

#include "device_internal.h"

#include <math.h>
#include <stdlib.h>

static bool is_same_rate(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fabs(b); /* libm's cosine may differ in the last bit */
}

/* NULL, or why the release must not be accepted. */
static const char *release_refusal(const linnet_device *device, const linnet_release *r, const linnet_hash *v)
{
    const device_record *known = &device->record;
    if (memcmp(r->task, device->identity_record.task, sizeof(r->task)) != 0)
        return "the release is of another task";
    if (known->has_release && r->version < known->version)
        return "the release's version goes back";
    if (known->has_release && r->version == known->version && !linnet_hash_equal(v, &known->release))
        return "the coordinator signed two releases of one version: keep the state directory as evidence";
    if (known->has_release && r->version == known->version + 1 &&
        !linnet_hash_equal(&r->previous, &known->release))
        return "the release does not follow the one this device knows";
    return NULL;
}

static void forget_release_state(linnet_device *device)
{
    device_training_release(device);
    linnet_layout_destroy(device->layout);
    device->layout = NULL;
    device->has_plan = false;
    device->has_adapter = false;
    device->release_is_bad = false;
    device->fetch_failed = false;
    device->cannot_train = false;
    device->must_check_in = false;
    device->has_step = false;
}

/* The adapter of the release that is left behind stays only where it is in use. */
static void forget_old_adapter(linnet_device *device)
{
    static const linnet_hash none;
    const linnet_hash *old = &device->release.adapter;
    if (!linnet_hash_equal(old, &none) && !linnet_hash_equal(old, &device->record.installed) &&
        !linnet_hash_equal(old, &device->record.previous))
        device->config.objects->forget(device->config.objects->context, old);
}

/* A new version: whatever was trained from the old one is stale, and goes in the same commit. */
static linnet_status commit_release(linnet_device *device, const linnet_release *release,
                                    const linnet_hash *v, const uint8_t *bytes, size_t n_bytes,
                                    linnet_error *err)
{
    device_record next = device->record;
    next.has_release = true;
    next.version = release->version;
    next.release = *v;
    next.attempt = 0;
    next.is_evaluated = false;
    next.has_release_loss = false;
    next.is_contributed = false;
    if (next.delta != DELTA_SPENT)
        next.delta = DELTA_NONE;
    const linnet_kv_item items[] = {
        {KV_RELEASE, bytes, n_bytes}, {KV_DELTA, NULL, 0}, {KV_CHECKPOINT, NULL, 0}};
    linnet_status status = device_commit(device, &next, items, ARRAY_LEN(items), err);
    if (status != LINNET_OK)
        return status;
    forget_release_state(device);
    forget_old_adapter(device);
    device->release = *release;
    device->note[0] = '\0';
    return device_load_objects(device, err);
}

linnet_status device_take_release(linnet_device *device, const uint8_t *bytes, size_t n_bytes,
                                  linnet_error *err)
{
    linnet_signed sealed;
    linnet_release release;
    linnet_error remote = {0};
    linnet_status status = linnet_signed_open(bytes, n_bytes, &sealed, &remote);
    linnet_hash v = {{0}};
    if (status == LINNET_OK) {
        v = linnet_hash_of(LINNET_LABEL_MODEL, sealed.body, sealed.n_body);
        status = linnet_verify_hash(&device->identity_record.coordinator, &v, &sealed.signature);
        if (status != LINNET_OK)
            (void)linnet_fail(&remote, status, "the release is not signed by the pinned coordinator");
    }
    if (status == LINNET_OK)
        status = linnet_release_unpack(sealed.body, sealed.n_body, &release, &remote);
    if (status == LINNET_ERR_NOMEM)
        return linnet_fail(err, status, "%s", remote.message);
    const char *refusal = status == LINNET_OK ? release_refusal(device, &release, &v) : remote.message;
    if (refusal) {
        device_note(device, "%.190s", refusal);
        return LINNET_OK;
    }
    if (device->record.has_release && release.version == device->record.version)
        return LINNET_OK;
    return commit_release(device, &release, &v, bytes, n_bytes, err);
}

bool device_release_is_ready(const linnet_device *device)
{
    return device->record.has_release && device->has_plan && device->has_adapter && !device->release_is_bad;
}

/* ---- what the release names ---- */

linnet_status device_layout(linnet_device *device, const linnet_layout **ret_layout, linnet_error *err)
{
    if (!device->layout) {
        const linnet_plan *plan = &device->plan;
        linnet_status status = linnet_layout_create(linnet_model_gguf(device->config.model), plan->rank,
                                                    (float)plan->alpha, plan->targets, &device->layout, err);
        if (status != LINNET_OK)
            return status;
    }
    *ret_layout = device->layout;
    return LINNET_OK;
}

/* An object from the cache, hashed again: a file may have been changed on disk. A wrong one is forgotten. */
static linnet_status load_object(linnet_device *device, const linnet_hash *hash, linnet_label label,
                                 linnet_buffer *bytes, linnet_error *err)
{
    linnet_object_cache *cache = device->config.objects;
    linnet_status status = cache->get(cache->context, hash, bytes, err);
    if (status != LINNET_OK)
        return status;
    linnet_hash got = linnet_hash_of(label, bytes->bytes, bytes->n_bytes);
    if (linnet_hash_equal(&got, hash))
        return LINNET_OK;
    cache->forget(cache->context, hash);
    return linnet_fail(err, LINNET_ERR_NOT_FOUND, "an object in the cache does not have its hash");
}

linnet_status device_adapter_load(linnet_device *device, const linnet_hash *hash,
                                  linnet_adapter **ret_adapter, linnet_error *err)
{
    linnet_buffer bytes = {0};
    linnet_adapter *adapter = NULL;
    const linnet_layout *layout = NULL;
    linnet_status status = load_object(device, hash, LINNET_LABEL_OBJECT, &bytes, err);
    if (status == LINNET_OK)
        status = device_layout(device, &layout, err);
    if (status == LINNET_OK)
        status = linnet_adapter_unpack(layout, bytes.bytes, bytes.n_bytes, &adapter, err);
    if (status == LINNET_OK)
        status = linnet_adapter_check_finite(adapter, err);
    if (status == LINNET_OK) {
        *ret_adapter = adapter;
        adapter = NULL;
    }
    linnet_adapter_destroy(adapter);
    linnet_buffer_release(&bytes);
    return status;
}

/* NULL, or why this device does not work on the plan. */
static const char *plan_refusal(const linnet_device *device, const linnet_plan *plan)
{
    double rate_b = 0, rate_a = 0;
    linnet_plan_rates(plan, device->release.version, &rate_b, &rate_a);
    const char *refusal = linnet_policy_plan_refusal(&device->config.policy, plan);
    if (refusal || device->release.is_final) /* nothing is trained from the final one */
        return refusal;
    if (device->release.dp_unit != (uint32_t)linnet_plan_dp_unit(plan))
        return "the release's unit of privacy is not that of its plan";
    if ((uint32_t)linnet_rule_factors((linnet_rule)plan->rule, device->release.version) !=
        device->release.factors)
        return "the release trains other factors than its plan says";
    if (!is_same_rate(device->release.learning_rate_b, rate_b) ||
        !is_same_rate(device->release.learning_rate_a, rate_a))
        return "the release's learning rates are not those of its plan";
    return NULL;
}

static void refuse_release(linnet_device *device, const char *why)
{
    device->release_is_bad = true;
    device_note(device, "%.190s", why);
}

static linnet_status load_plan(linnet_device *device, linnet_error *err)
{
    const linnet_release *r = &device->release;
    linnet_buffer text = {0};
    linnet_error why = {0};
    if (!linnet_hash_equal(&r->base_model, device->config.model_hash)) {
        refuse_release(device, "the release is for another base model than the one loaded");
        return LINNET_OK;
    }
    const char *refusal =
        linnet_policy_pin_refusal(&device->config.policy, &device->identity_record.coordinator,
                                  &device->identity_record.authority, &r->plan, &r->base_model);
    if (refusal) {
        refuse_release(device, refusal);
        return LINNET_OK;
    }
    linnet_status status = load_object(device, &r->plan, LINNET_LABEL_PLAN, &text, &why);
    if (status == LINNET_ERR_NOT_FOUND) {
        status = LINNET_OK; /* to be fetched */
    } else if (status != LINNET_OK) {
        status = linnet_fail(err, status, "%s", why.message);
    } else if (linnet_plan_parse("from the coordinator", (const char *)text.bytes, text.n_bytes,
                                 &device->plan, &why) != LINNET_OK) {
        refuse_release(device, why.message);
    } else {
        refusal = plan_refusal(device, &device->plan);
        if (refusal)
            refuse_release(device, refusal);
        device->has_plan = true;
    }
    linnet_buffer_release(&text);
    return status;
}

/* The layout is computed from our own model and the plan; the adapter must be of exactly that layout. */
static linnet_status load_adapter(linnet_device *device, linnet_error *err)
{
    const linnet_layout *layout = NULL;
    linnet_adapter *adapter = NULL;
    linnet_error why = {0};
    linnet_status status = device_layout(device, &layout, &why);
    if (status == LINNET_OK) {
        linnet_hash hash = linnet_layout_hash(layout);
        if (!linnet_hash_equal(&hash, &device->release.layout)) {
            refuse_release(device, "the release has another adapter layout than this device computes");
            return LINNET_OK;
        }
        status = device_adapter_load(device, &device->release.adapter, &adapter, &why);
    }
    linnet_adapter_destroy(adapter);
    if (status == LINNET_ERR_NOMEM || status == LINNET_ERR_IO)
        return linnet_fail(err, status, "%s", why.message);
    if (status == LINNET_OK)
        device->has_adapter = true;
    else if (status != LINNET_ERR_NOT_FOUND)
        refuse_release(device, why.message);
    return LINNET_OK;
}

linnet_status device_load_objects(linnet_device *device, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    if (!device->has_plan && !device->release_is_bad)
        status = load_plan(device, err);
    if (status == LINNET_OK && device->has_plan && !device->has_adapter && !device->release_is_bad)
        status = load_adapter(device, err);
    return status;
}

linnet_status device_fetch(linnet_device *device, linnet_error *err)
{
    uint64_t n_max = device->config.policy.download_bytes_max;
    if (n_max > LINNET_OBJECT_BYTES_MAX)
        n_max = LINNET_OBJECT_BYTES_MAX;
    linnet_status status =
        !device->has_plan
            ? device_download(device, &device->release.plan, LINNET_LABEL_PLAN, LINNET_PLAN_BYTES_MAX, err)
            : device_download(device, &device->release.adapter, LINNET_LABEL_OBJECT, (size_t)n_max, err);
    return status == LINNET_OK ? device_load_objects(device, err) : status;
}
