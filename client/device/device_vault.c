/* SPDX-License-Identifier: Apache-2.0 */

/* Sealed values of the store, and what becomes of them at a start (SECURE-AGGREGATION 7). The round key dies
 * with the power and knows how far the store had come. So a store that is older than the key, a copy of it in
 * another place, or one that has outlived its key holds nothing that may enter a round: neither the round in
 * flight nor a delta, finished or half trained, since either may have been uploaded already; and its ledger
 * may be short of what has left (device_receipts.c). */

#include "device_internal.h"

void device_wipe(linnet_buffer *buffer)
{
    if (buffer->bytes)
        linnet_wipe(buffer->bytes, buffer->capacity);
    linnet_buffer_release(buffer);
}

linnet_status device_seal(const linnet_device *device, const char *name, const linnet_buffer *plain,
                          linnet_buffer *ret_sealed, linnet_error *err)
{
    return linnet_round_vault_seal(device->vault, name, device_next_generation(device), plain->bytes,
                                   plain->n_bytes, ret_sealed, err);
}

linnet_status device_unseal(const linnet_device *device, const char *name, linnet_buffer *ret_plain,
                            linnet_error *err)
{
    linnet_buffer sealed = {0};
    linnet_kv *kv = device->config.kv;
    linnet_status status = kv->get(kv->context, name, &sealed, err);
    if (status == LINNET_OK)
        status = linnet_round_vault_unseal(device->vault, name, sealed.bytes, sealed.n_bytes, ret_plain, err);
    linnet_buffer_release(&sealed);
    return status;
}

void device_vault_arm(const linnet_device *device, device_record *next, linnet_kv_item *ret_item)
{
    const linnet_hash *machine = linnet_round_vault_machine(device->vault);
    *ret_item = (linnet_kv_item){KV_MACHINE, machine->bytes, sizeof(machine->bytes)};
    if (next->generation == 0)
        next->generation = 1; /* the commit counts on from here */
}

static linnet_status check_machine(const linnet_device *device, linnet_error *err)
{
    linnet_kv *kv = device->config.kv;
    linnet_buffer stored = {0};
    static const linnet_hash unknown;
    const linnet_hash *machine = linnet_round_vault_machine(device->vault);
    linnet_status status = kv->get(kv->context, KV_MACHINE, &stored, err);
    bool is_unknown =
        stored.n_bytes == sizeof(unknown) && memcmp(stored.bytes, unknown.bytes, sizeof(unknown)) == 0;
    if (status == LINNET_OK && !is_unknown &&
        (stored.n_bytes != sizeof(machine->bytes) ||
         memcmp(stored.bytes, machine->bytes, sizeof(machine->bytes)) != 0))
        status = linnet_fail(err, LINNET_ERR_DENIED,
                             "this state was made on another machine, and two devices must not go on as one: "
                             "enroll this machine with an invite of its own");
    linnet_buffer_release(&stored);
    return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
}

/* A seed of a training that may have been used is never drawn again, not even where seeds are given. */
static linnet_status drop_sealed(linnet_device *device, linnet_error *err)
{
    device_record next = device->record;
    uint32_t skipped = 0;
    linnet_random_bytes(&skipped, sizeof(skipped));
    next.attempt += 1 + (uint64_t)skipped;
    bool is_plain_upload = next.delta == DELTA_SPENT && !next.has_round;
    if (!is_plain_upload)
        next.delta = DELTA_NONE;
    next.has_round = false;
    next.is_uploaded = false;
    next.round_phase = 0;
    linnet_kv_item items[6] = {
        {KV_DELTA, NULL, 0}, {KV_CHECKPOINT, NULL, 0}, {KV_ROUND, NULL, 0}, {KV_VECTOR, NULL, 0}};
    size_t n_items = 4;
    device_vault_arm(device, &next, &items[n_items++]);
    if (!is_plain_upload)
        items[n_items++] = (linnet_kv_item){KV_UPLOAD, NULL, 0};
    linnet_status status = device_commit(device, &next, items, n_items, err);
    if (status == LINNET_OK)
        linnet_round_vault_renew(device->vault);
    return status;
}

linnet_status device_vault_attach(linnet_device *device, linnet_error *err)
{
    const device_record *r = &device->record;
    device->vault = device->config.vault;
    linnet_status status = LINNET_OK;
    if (!device->vault) {
        status = linnet_round_vault_open_memory(&device->own_vault, err);
        device->vault = device->own_vault;
    } else {
        status = check_machine(device, err);
    }
    if (status != LINNET_OK)
        return status;
    bool is_new = linnet_round_vault_is_new(device->vault), is_gone = r->generation > 0 && is_new;
    bool is_old = linnet_round_vault_generation(device->vault) > r->generation;
    if (is_new || is_old) { /* the file is made behind a commit that keeps this */
        device->record.receipts_due = true;
        device->record.receipts_next = 0;
    }
    if (!is_gone && !is_old)
        return LINNET_OK;
    if (r->delta != DELTA_NONE)
        device_note(device, is_old ? "an older copy of the state was restored: round and delta are dropped"
                                   : "the round key is gone, as after a reboot: round and delta are dropped");
    return drop_sealed(device, err);
}
