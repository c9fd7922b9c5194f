/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ADAPTER_SLOT_H
#define LINNET_ADAPTER_SLOT_H

/* The adapter that is in use now, for many users at once: each keeps the one that it took until it lets go,
 * while another is put in its place. */

#include "linnet/adapter.h"

#include <pthread.h>

typedef struct linnet_shared_adapter linnet_shared_adapter;
/** The adapter itself, for as long as it is shared; NULL for NULL. */
const linnet_adapter *linnet_shared_adapter_get(const linnet_shared_adapter *shared);
/** Its linnet_adapter_hash; zeros for NULL. */
linnet_hash linnet_shared_adapter_hash(const linnet_shared_adapter *shared);
/** Let go; the last one destroys it. Takes NULL. */
void linnet_shared_adapter_release(linnet_shared_adapter *shared);

typedef struct linnet_adapter_slot {
    pthread_mutex_t lock;
    linnet_shared_adapter *current; /* NULL: none */
} linnet_adapter_slot;

/** Empty. NOMEM where the system has no mutex left. */
linnet_status linnet_adapter_slot_init(linnet_adapter_slot *slot, linnet_error *err) LINNET_NODISCARD;
void linnet_adapter_slot_release(linnet_adapter_slot *slot);
/** Share what is in use; NULL: none. */
linnet_shared_adapter *linnet_adapter_slot_take(linnet_adapter_slot *slot);
/** Use another, which moves, also on failure (NOMEM, what was in use stays); NULL: none. */
linnet_status linnet_adapter_slot_put(linnet_adapter_slot *slot, linnet_adapter *adapter,
                                      linnet_error *err) LINNET_NODISCARD;

#endif
