/* SPDX-License-Identifier: Apache-2.0 */
/* Receipts on their way back to their device: bytes of a list, and what an item proves. */
#include "linnet/receipt_list.h"

#include "samples.h"

enum { ITEMS = 3 };

/* Contributions of one device to three rounds of one coordinator. */
typedef struct history {
    linnet_identity *coordinator, *device, *stranger;
    linnet_receipt_owner owner;
    linnet_announcement announcements[ITEMS];
    linnet_buffer announced[ITEMS];
    uint8_t receipts[ITEMS][LINNET_SIGNED_RECEIPT_BYTES];
    linnet_receipt_item items[ITEMS];
} history;

static linnet_hash announce(const linnet_identity *by, const linnet_announcement *a,
                            linnet_buffer *ret_signed)
{
    linnet_buffer body = {0};
    linnet_error err = {0};
    linnet_buffer_clear(ret_signed);
    assert_ok(linnet_announcement_pack(a, &body, &err), &err);
    linnet_hash hash = linnet_hash_of(LINNET_LABEL_ANNOUNCE, body.bytes, body.n_bytes);
    linnet_signature signature = linnet_sign_hash(by, &hash);
    assert_ok(linnet_signed_pack(body.bytes, body.n_bytes, &signature, ret_signed, &err), &err);
    linnet_buffer_release(&body);
    return hash;
}

static linnet_signature sign_upload(const linnet_identity *by, const linnet_announcement *a,
                                    const linnet_receipt *receipt)
{
    linnet_buffer body = {0};
    linnet_error err = {0};
    linnet_upload_header header = {.chain = receipt->chain,
                                   .device_id = receipt->device_id,
                                   .echo = receipt->echo,
                                   .n_vectors = a->n_vectors};
    for (uint32_t i = 0; i < a->n_vectors; i++) {
        header.lengths[i] = a->vectors[i].length;
        header.n_bytes += linnet_ring_bytes(&a->vectors[i]);
    }
    assert_ok(linnet_upload_header_pack(&header, &body, &err), &err);
    linnet_signature signature = linnet_sign(by, LINNET_LABEL_MASKED, body.bytes, body.n_bytes);
    linnet_buffer_release(&body);
    return signature;
}

/* The first two rounds have masks and name a T2, the last one has none and names A. */
static void make_item(history *h, size_t i)
{
    linnet_announcement *a = &h->announcements[i];
    linnet_receipt receipt = {.chain = sample_hash((uint8_t)(40 + i)),
                              .echo = sample_hash((uint8_t)(50 + i)),
                              .device_id = linnet_device_id_of(&h->owner.device),
                              .sequence = i + 1};
    *a = i == 0   ? sample_noised_announcement()
         : i == 1 ? sample_record_announcement()
                  : sample_announcement();
    a->round = 7 + i;
    a->coordinator = h->owner.coordinator;
    linnet_hash hash = announce(h->coordinator, a, &h->announced[i]);
    if (i == 2)
        receipt.chain = hash;
    linnet_receipt_sign(&receipt, h->coordinator, h->receipts[i]);
    h->items[i] = (linnet_receipt_item){.announcement = h->announced[i].bytes,
                                        .n_announcement = h->announced[i].n_bytes,
                                        .receipt = h->receipts[i],
                                        .upload = sign_upload(h->device, a, &receipt)};
}

static void history_make(history *ret_history)
{
    history *h = ret_history;
    *h = (history){0};
    linnet_error err = {0};
    assert_ok(linnet_identity_create(&h->coordinator, &err), &err);
    assert_ok(linnet_identity_create(&h->device, &err), &err);
    assert_ok(linnet_identity_create(&h->stranger, &err), &err);
    h->owner.coordinator = *linnet_identity_public_key(h->coordinator);
    h->owner.device = *linnet_identity_public_key(h->device);
    memcpy(h->owner.task, sample_announcement().task, sizeof(h->owner.task));
    for (size_t i = 0; i < ITEMS; i++)
        make_item(h, i);
}

static void history_release(history *h)
{
    linnet_identity_destroy(h->coordinator);
    linnet_identity_destroy(h->device);
    linnet_identity_destroy(h->stranger);
    for (size_t i = 0; i < ITEMS; i++)
        linnet_buffer_release(&h->announced[i]);
}

static linnet_buffer list_of(const history *h)
{
    linnet_buffer list = {0};
    linnet_error err = {0};
    for (size_t i = 0; i < ITEMS; i++)
        assert_ok(linnet_receipt_list_add(&list, &h->items[i], &err), &err);
    return list;
}

/* ---- bytes ---- */

static void what_was_added_is_read_in_order(void **state)
{
    (void)state;
    history h;
    history_make(&h);
    linnet_buffer bytes = list_of(&h);
    linnet_receipt_list list;
    linnet_receipt_item item;
    linnet_error err = {0};
    assert_ok(linnet_receipt_list_open(bytes.bytes, bytes.n_bytes, &list, &err), &err);
    assert_int_equal(list.n_items, ITEMS);
    for (size_t i = 0; i < ITEMS; i++) {
        linnet_proven_receipt proven;
        assert_true(linnet_receipt_list_next(&list, &item));
        assert_int_equal(item.n_announcement, h.items[i].n_announcement);
        assert_memory_equal(item.announcement, h.items[i].announcement, item.n_announcement);
        assert_memory_equal(item.receipt, h.items[i].receipt, LINNET_SIGNED_RECEIPT_BYTES);
        assert_memory_equal(&item.upload, &h.items[i].upload, sizeof(item.upload));
        assert_ok(linnet_receipt_item_prove(&item, &h.owner, &proven, &err), &err);
        assert_int_equal(proven.announcement.round, 7 + i);
        assert_int_equal(proven.receipt.sequence, 1 + i);
        assert_true(proven.n_bytes > 0);
    }
    assert_false(linnet_receipt_list_next(&list, &item));
    assert_ok(linnet_receipt_list_open("", 0, &list, &err), &err); /* the end */
    assert_int_equal(list.n_items, 0);
    assert_false(linnet_receipt_list_next(&list, &item));
    linnet_buffer_release(&bytes);
    history_release(&h);
}

static void a_list_that_is_cut_anywhere_is_refused(void **state)
{
    (void)state;
    history h;
    history_make(&h);
    linnet_buffer bytes = list_of(&h);
    size_t ends[ITEMS + 1] = {0};
    for (size_t i = 0; i < ITEMS; i++)
        ends[i + 1] = ends[i] + 4 + h.items[i].n_announcement + LINNET_SIGNED_RECEIPT_BYTES + 64;
    assert_int_equal(ends[ITEMS], bytes.n_bytes); /* u32, Signed announcement, receipt, signature */
    for (size_t n = 0, whole = 0; n < bytes.n_bytes; n++) {
        linnet_receipt_list list = {.n_items = 99};
        uint8_t *copy = malloc(n + 1); /* of its own, so that a sanitizer sees reads behind it */
        assert_non_null(copy);
        memcpy(copy, bytes.bytes, n);
        whole += whole < ITEMS && n == ends[whole + 1];
        bool is_whole = n == ends[whole];
        assert_int_equal(linnet_receipt_list_open(copy, n, &list, NULL),
                         is_whole ? LINNET_OK : LINNET_ERR_FORMAT);
        assert_int_equal(list.n_items, is_whole ? whole : 99);
        free(copy);
    }
    linnet_buffer_release(&bytes);
    history_release(&h);
}

static void lengths_out_of_range_are_refused(void **state)
{
    (void)state;
    static const uint32_t lengths[] = {0, 1u << 16 | 1, 1u << 31, UINT32_MAX};
    linnet_buffer bytes = {0};
    linnet_receipt_list list;
    assert_true(linnet_buffer_reserve(&bytes, LINNET_RECEIPT_LIST_BYTES_MAX + 1));
    memset(bytes.bytes, 0, LINNET_RECEIPT_LIST_BYTES_MAX + 1);
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        linnet_store_le32(bytes.bytes, lengths[i]);
        assert_int_equal(linnet_receipt_list_open(bytes.bytes, LINNET_RECEIPT_LIST_BYTES_MAX, &list, NULL),
                         LINNET_ERR_FORMAT);
    }
    assert_int_equal(linnet_receipt_list_open(bytes.bytes, LINNET_RECEIPT_LIST_BYTES_MAX + 1, &list, NULL),
                     LINNET_ERR_FORMAT);
    linnet_buffer_release(&bytes);
}

static void a_full_list_takes_no_more_and_stays_as_it_is(void **state)
{
    (void)state;
    history h;
    history_make(&h);
    linnet_buffer bytes = {0};
    linnet_receipt_list list;
    linnet_error err = {0};
    linnet_status status;
    size_t n = 0, n_bytes = 0;
    while ((status = linnet_receipt_list_add(&bytes, &h.items[0], &err)) == LINNET_OK) {
        n++;
        n_bytes = bytes.n_bytes;
    }
    assert_int_equal(status, LINNET_ERR_LIMIT);
    assert_int_equal(bytes.n_bytes, n_bytes);
    assert_in_range(n_bytes, LINNET_RECEIPT_LIST_BYTES_MAX / 2, LINNET_RECEIPT_LIST_BYTES_MAX);
    assert_ok(linnet_receipt_list_open(bytes.bytes, bytes.n_bytes, &list, &err), &err);
    assert_int_equal(list.n_items, n);
    linnet_buffer_release(&bytes);
    history_release(&h);
}

/* ---- what an item proves ---- */

static void must_not_prove(const history *h, const linnet_receipt_item *item, const char *what)
{
    linnet_proven_receipt proven;
    if (linnet_receipt_item_prove(item, &h->owner, &proven, NULL) == LINNET_OK)
        fail_msg("taken although %s", what);
}

static void every_byte_of_an_item_is_signed(void **state)
{
    (void)state;
    history h;
    history_make(&h);
    for (size_t i = 0; i < ITEMS; i++) {
        linnet_receipt_item item = h.items[i];
        for (size_t at = 0; at < item.n_announcement; at++) {
            h.announced[i].bytes[at] ^= 1;
            must_not_prove(&h, &item, "a byte of the announcement is another");
            h.announced[i].bytes[at] ^= 1;
        }
        for (size_t at = 0; at < LINNET_SIGNED_RECEIPT_BYTES; at++) {
            h.receipts[i][at] ^= 1;
            must_not_prove(&h, &item, "a byte of the receipt is another");
            h.receipts[i][at] ^= 1;
        }
        for (size_t at = 0; at < LINNET_SIGNATURE_BYTES; at++) {
            item.upload.bytes[at] ^= 1;
            must_not_prove(&h, &item, "a byte of the signature is another");
            item.upload.bytes[at] ^= 1;
        }
    }
    history_release(&h);
}

static void only_the_pinned_coordinator_and_this_device_make_items(void **state)
{
    (void)state;
    history h;
    history_make(&h);
    for (size_t i = 0; i < ITEMS; i++) {
        linnet_receipt_item item = h.items[i];
        linnet_receipt receipt;
        uint8_t bytes[LINNET_SIGNED_RECEIPT_BYTES];
        linnet_buffer announced = {0};
        linnet_announcement a = h.announcements[i];
        assert_int_equal(
            linnet_receipt_open(item.receipt, LINNET_SIGNED_RECEIPT_BYTES, &h.owner.coordinator, &receipt),
            LINNET_OK);
        linnet_receipt_sign(&receipt, h.stranger, bytes);
        item.receipt = bytes;
        must_not_prove(&h, &item, "a stranger signed the receipt");
        linnet_receipt_sign(&receipt, h.coordinator, bytes);
        item.upload = sign_upload(h.stranger, &a, &receipt);
        must_not_prove(&h, &item, "another device made the upload");
        receipt.device_id = linnet_device_id_of(linnet_identity_public_key(h.stranger));
        linnet_receipt_sign(&receipt, h.coordinator, bytes);
        must_not_prove(&h, &item, "the receipt is another device's");
        item = h.items[i];
        (void)announce(h.stranger, &a, &announced);
        item.announcement = announced.bytes;
        item.n_announcement = announced.n_bytes;
        must_not_prove(&h, &item, "a stranger announced the round");
        a.coordinator = *linnet_identity_public_key(h.stranger);
        (void)announce(h.coordinator, &a, &announced);
        must_not_prove(&h, &item, "the announcement names another coordinator");
        a = h.announcements[i];
        a.task[0] ^= 1;
        (void)announce(h.coordinator, &a, &announced);
        must_not_prove(&h, &item, "the announcement is of another task");
        linnet_buffer_release(&announced);
    }
    history_release(&h);
}

/* Without masks the receipt names A itself. */
static void a_receipt_without_masks_is_of_its_announcement_alone(void **state)
{
    (void)state;
    history h;
    history_make(&h);
    linnet_receipt_item item = h.items[2];
    linnet_buffer announced = {0};
    linnet_announcement a = h.announcements[2];
    a.round++;
    (void)announce(h.coordinator, &a, &announced);
    item.announcement = announced.bytes;
    item.n_announcement = announced.n_bytes;
    must_not_prove(&h, &item, "the announcement is of another round");
    linnet_buffer_release(&announced);
    history_release(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_added_is_read_in_order),
        cmocka_unit_test(a_list_that_is_cut_anywhere_is_refused),
        cmocka_unit_test(lengths_out_of_range_are_refused),
        cmocka_unit_test(a_full_list_takes_no_more_and_stays_as_it_is),
        cmocka_unit_test(every_byte_of_an_item_is_signed),
        cmocka_unit_test(only_the_pinned_coordinator_and_this_device_make_items),
        cmocka_unit_test(a_receipt_without_masks_is_of_its_announcement_alone),
    };
    if (linnet_crypto_init(NULL) != LINNET_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
