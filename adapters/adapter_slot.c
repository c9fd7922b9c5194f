/* SPDX-License-Identifier: Apache-2.0 */
/* Counted references to an adapter, and the place that holds the current one. */
#include "linnet/adapter_slot.h"

#include <stdatomic.h>
#include <stdlib.h>

struct linnet_shared_adapter {
    linnet_adapter *adapter; /* owned */
    linnet_hash hash;
    atomic_size_t n_users;
};

const linnet_adapter *linnet_shared_adapter_get(const linnet_shared_adapter *shared)
{
    return shared ? shared->adapter : NULL;
}

linnet_hash linnet_shared_adapter_hash(const linnet_shared_adapter *shared)
{
    return shared ? shared->hash : (linnet_hash){0};
}

void linnet_shared_adapter_release(linnet_shared_adapter *shared)
{
    if (!shared || atomic_fetch_sub(&shared->n_users, 1) > 1)
        return;
    linnet_adapter_destroy(shared->adapter);
    free(shared);
}

linnet_status linnet_adapter_slot_init(linnet_adapter_slot *slot, linnet_error *err)
{
    slot->current = NULL;
    return pthread_mutex_init(&slot->lock, NULL) == 0
               ? LINNET_OK
               : linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a mutex");
}

void linnet_adapter_slot_release(linnet_adapter_slot *slot)
{
    linnet_shared_adapter_release(slot->current);
    slot->current = NULL;
    (void)pthread_mutex_destroy(&slot->lock);
}

linnet_shared_adapter *linnet_adapter_slot_take(linnet_adapter_slot *slot)
{
    (void)pthread_mutex_lock(&slot->lock); /* neither fails for a mutex of the default kind */
    linnet_shared_adapter *shared = slot->current;
    if (shared)
        (void)atomic_fetch_add(&shared->n_users, 1);
    (void)pthread_mutex_unlock(&slot->lock);
    return shared;
}

linnet_status linnet_adapter_slot_put(linnet_adapter_slot *slot, linnet_adapter *adapter, linnet_error *err)
{
    linnet_shared_adapter *next = NULL;
    if (adapter) {
        next = calloc(1, sizeof(*next));
        if (!next) {
            linnet_adapter_destroy(adapter);
            return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for an adapter");
        }
        next->adapter = adapter;
        next->hash = linnet_adapter_hash(adapter);
        atomic_init(&next->n_users, 1);
    }
    (void)pthread_mutex_lock(&slot->lock);
    linnet_shared_adapter *before = slot->current;
    slot->current = next;
    (void)pthread_mutex_unlock(&slot->lock);
    linnet_shared_adapter_release(before);
    return LINNET_OK;
}
