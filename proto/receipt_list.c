/* SPDX-License-Identifier: Apache-2.0 */

/* Receipts on their way back to their device: u32 length, Signed announcement, receipt, signature of the
 * upload's header, one item behind another (SECURE-AGGREGATION 3.4). A receipt alone proves that the
 * coordinator counted something; the device's own signature proves that the device made it, so that no
 * coordinator can use up a budget that other tasks draw on too. The header is made again from the other
 * parts: it says nothing that they do not. */

#include "linnet/receipt_list.h"

#define ITEM_FIXED_BYTES (4 + LINNET_SIGNED_RECEIPT_BYTES + LINNET_SIGNATURE_BYTES)

linnet_status linnet_receipt_list_add(linnet_buffer *list, const linnet_receipt_item *item, linnet_error *err)
{
    size_t n = ITEM_FIXED_BYTES + item->n_announcement;
    if (item->n_announcement == 0 || item->n_announcement > LINNET_MESSAGE_BYTES_MAX ||
        n > LINNET_RECEIPT_LIST_BYTES_MAX - list->n_bytes)
        return linnet_fail(err, LINNET_ERR_LIMIT, "list of receipts: no room for %zu bytes", n);
    if (!linnet_buffer_reserve(list, n))
        return linnet_fail(err, LINNET_ERR_NOMEM, "list of receipts");
    linnet_buffer_append_le32(list, (uint32_t)item->n_announcement);
    linnet_buffer_append(list, item->announcement, item->n_announcement);
    linnet_buffer_append(list, item->receipt, LINNET_SIGNED_RECEIPT_BYTES);
    linnet_buffer_append(list, item->upload.bytes, LINNET_SIGNATURE_BYTES);
    return LINNET_OK;
}

/* The item at the reader; the reader fails where it is not whole. */
static void take_item(linnet_reader *reader, linnet_receipt_item *item)
{
    item->n_announcement = linnet_reader_le32(reader);
    item->announcement = linnet_reader_take(reader, item->n_announcement);
    item->receipt = linnet_reader_take(reader, LINNET_SIGNED_RECEIPT_BYTES);
    const uint8_t *upload = linnet_reader_take(reader, LINNET_SIGNATURE_BYTES);
    if (item->n_announcement == 0 || item->n_announcement > LINNET_MESSAGE_BYTES_MAX)
        reader->failed = true;
    if (upload)
        memcpy(item->upload.bytes, upload, LINNET_SIGNATURE_BYTES);
}

linnet_status linnet_receipt_list_open(const void *bytes, size_t n_bytes, linnet_receipt_list *ret_list,
                                       linnet_error *err)
{
    linnet_receipt_list list = {.reader = linnet_reader_of(bytes, n_bytes)};
    linnet_reader walk = list.reader;
    linnet_receipt_item item;
    if (n_bytes > LINNET_RECEIPT_LIST_BYTES_MAX)
        return linnet_fail(err, LINNET_ERR_FORMAT, "list of receipts: %zu bytes", n_bytes);
    while (walk.at < walk.n_bytes && !walk.failed) {
        take_item(&walk, &item);
        list.n_items++;
    }
    if (walk.failed)
        return linnet_fail(err, LINNET_ERR_FORMAT, "list of receipts: item %zu is damaged", list.n_items);
    *ret_list = list;
    return LINNET_OK;
}

bool linnet_receipt_list_next(linnet_receipt_list *list, linnet_receipt_item *ret_item)
{
    linnet_receipt_item item;
    if (list->reader.at >= list->reader.n_bytes)
        return false;
    take_item(&list->reader, &item);
    if (!list->reader.failed)
        *ret_item = item;
    return !list->reader.failed;
}

/* ---- proving an item ---- */

static linnet_status open_announcement(const linnet_receipt_item *item, const linnet_receipt_owner *owner,
                                       linnet_proven_receipt *proven, linnet_error *err)
{
    linnet_signed sealed;
    const linnet_announcement *a = &proven->announcement;
    linnet_status status = linnet_signed_open(item->announcement, item->n_announcement, &sealed, err);
    if (status != LINNET_OK)
        return status;
    proven->a = linnet_hash_of(LINNET_LABEL_ANNOUNCE, sealed.body, sealed.n_body);
    if (linnet_verify_hash(&owner->coordinator, &proven->a, &sealed.signature) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_CRYPTO, "its announcement is not signed by the coordinator");
    status = linnet_announcement_unpack(sealed.body, sealed.n_body, &proven->announcement, err);
    if (status == LINNET_OK && (memcmp(&a->coordinator, &owner->coordinator, sizeof(a->coordinator)) != 0 ||
                                memcmp(a->task, owner->task, sizeof(a->task)) != 0))
        status = linnet_fail(err, LINNET_ERR_MISMATCH, "its announcement is of another coordinator or task");
    return status;
}

static linnet_status open_receipt(const linnet_receipt_item *item, const linnet_receipt_owner *owner,
                                  linnet_proven_receipt *proven, linnet_error *err)
{
    linnet_device_id self = linnet_device_id_of(&owner->device);
    linnet_receipt *receipt = &proven->receipt;
    if (linnet_receipt_open(item->receipt, LINNET_SIGNED_RECEIPT_BYTES, &owner->coordinator, receipt) !=
        LINNET_OK)
        return linnet_fail(err, LINNET_ERR_CRYPTO, "it is not signed by the coordinator");
    if (memcmp(receipt->device_id.bytes, self.bytes, sizeof(self.bytes)) != 0)
        return linnet_fail(err, LINNET_ERR_MISMATCH, "it is another device's");
    if (!linnet_profile_is_secure((int)proven->announcement.profile) &&
        !linnet_hash_equal(&receipt->chain, &proven->a))
        return linnet_fail(err, LINNET_ERR_MISMATCH, "it is of another round than its announcement");
    return LINNET_OK;
}

static linnet_status verify_upload(const linnet_receipt_item *item, const linnet_receipt_owner *owner,
                                   linnet_proven_receipt *proven, linnet_error *err)
{
    const linnet_announcement *a = &proven->announcement;
    linnet_buffer body = {0};
    linnet_upload_header header = {.chain = proven->receipt.chain,
                                   .device_id = proven->receipt.device_id,
                                   .n_vectors = a->n_vectors,
                                   .echo = proven->receipt.echo};
    for (uint32_t i = 0; i < a->n_vectors; i++) {
        header.lengths[i] = a->vectors[i].length;
        header.n_bytes += linnet_ring_bytes(&a->vectors[i]);
    }
    linnet_status status = linnet_upload_header_pack(&header, &body, err);
    if (status == LINNET_OK && linnet_verify(&owner->device, LINNET_LABEL_MASKED, body.bytes, body.n_bytes,
                                             &item->upload) != LINNET_OK)
        status = linnet_fail(err, LINNET_ERR_CRYPTO, "it is of an upload that this device has not signed");
    proven->n_bytes = header.n_bytes;
    linnet_buffer_release(&body);
    return status;
}

linnet_status linnet_receipt_item_prove(const linnet_receipt_item *item, const linnet_receipt_owner *owner,
                                        linnet_proven_receipt *ret_proven, linnet_error *err)
{
    linnet_proven_receipt proven;
    linnet_status status = open_announcement(item, owner, &proven, err);
    if (status == LINNET_OK)
        status = open_receipt(item, owner, &proven, err);
    if (status == LINNET_OK)
        status = verify_upload(item, owner, &proven, err);
    if (status == LINNET_OK)
        *ret_proven = proven;
    return status;
}
