/* SPDX-License-Identifier: Apache-2.0 */
/* A list of receipts from anybody: what opens is read to its end and gives the same bytes again; nothing in
 * it proves anything to an owner whose keys nobody has. What an announcement in it would spend is finite. */
#include "linnet/receipt_list.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static void try_announcement(const linnet_receipt_item *item)
{
    linnet_signed sealed;
    linnet_announcement a;
    linnet_privacy p;
    if (linnet_signed_open(item->announcement, item->n_announcement, &sealed, NULL) != LINNET_OK ||
        linnet_announcement_unpack(sealed.body, sealed.n_body, &a, NULL) != LINNET_OK ||
        linnet_announcement_privacy(&a, &p, NULL) != LINNET_OK || p.mechanism == LINNET_DP_NONE)
        return;
    if (!(p.noise_multiplier > 0) || !isfinite(p.noise_multiplier))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    linnet_receipt_list list;
    linnet_receipt_item item;
    linnet_proven_receipt proven;
    linnet_buffer again = {0};
    linnet_receipt_owner owner;
    size_t n = 0;
    if (linnet_crypto_init(NULL) != LINNET_OK ||
        linnet_receipt_list_open(bytes, n_bytes, &list, NULL) != LINNET_OK)
        return 0;
    memset(&owner, 7, sizeof(owner));
    for (; linnet_receipt_list_next(&list, &item); n++) {
        try_announcement(&item);
        if (linnet_receipt_item_prove(&item, &owner, &proven, NULL) == LINNET_OK ||
            linnet_receipt_list_add(&again, &item, NULL) != LINNET_OK)
            abort();
    }
    if (n != list.n_items || again.n_bytes != n_bytes ||
        (n_bytes > 0 && memcmp(again.bytes, bytes, n_bytes) != 0))
        abort();
    linnet_buffer_release(&again);
    return 0;
}
