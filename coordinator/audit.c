/* SPDX-License-Identifier: Apache-2.0 */
/* The transcript verified (SECURE-AGGREGATION 7): the hash chain over its entries, and what each entry names:
 * a release under the coordinator's signature that names the one before, an announcement under its signature,
 * roster, sharers and survivors of a round, the adapter of a closed one. It does not prove that an adapter is
 * the sum of its round's contributions; whoever keeps the spool could fold it again. */
#include "state.h"

#include <stdlib.h>

typedef struct audit {
    linnet_coordinator *coordinator;
    linnet_store_txn *txn;
    linnet_hash head;    /* before the entry */
    linnet_hash release; /* V of the last release */
    linnet_audit_entry *entries;
    size_t n_entries, capacity;
} audit;

static const char *type_name(uint8_t type)
{
    switch (type) {
    case LINNET_ENTRY_RELEASE:
        return "release";
    case LINNET_ENTRY_ANNOUNCE:
        return "announce";
    case LINNET_ENTRY_CLOSED:
        return "closed";
    case LINNET_ENTRY_ROSTER:
        return "roster";
    case LINNET_ENTRY_SHARERS:
        return "sharers";
    case LINNET_ENTRY_SURVIVORS:
        return "survivors";
    default:
        return "void";
    }
}

/* Is this Signed, with this hash, by the coordinator? */
static const char *signed_flaw(const audit *a, linnet_label label, const uint8_t *bytes, size_t n_bytes,
                               const linnet_hash *hash, linnet_signed *ret_signed)
{
    if (linnet_signed_open(bytes, n_bytes, ret_signed, NULL) != LINNET_OK)
        return "it is malformed";
    linnet_hash there = linnet_hash_of(label, ret_signed->body, ret_signed->n_body);
    if (!linnet_hash_equal(&there, hash))
        return "its body has another hash";
    if (linnet_verify_hash(linnet_identity_public_key(a->coordinator->identity), hash,
                           &ret_signed->signature) != LINNET_OK)
        return "its signature is not the coordinator's";
    return NULL;
}

static const char *release_flaw(audit *a, const linnet_entry_row *entry)
{
    linnet_release_row row;
    linnet_release release;
    linnet_signed body;
    if (linnet_release_get(a->txn, entry->round, &row, NULL) != LINNET_OK)
        return "the release is missing";
    const char *flaw = signed_flaw(a, LINNET_LABEL_MODEL, row.bytes, row.n_bytes, &entry->body, &body);
    if (!flaw && linnet_release_unpack(body.body, body.n_body, &release, NULL) != LINNET_OK)
        flaw = "it is malformed";
    if (!flaw && (!linnet_hash_equal(&release.previous, &a->release) || release.version != entry->round))
        flaw = "it does not name the release before";
    if (!flaw && !linnet_hash_equal(&release.adapter, &row.adapter))
        flaw = "its row names another adapter";
    a->release = entry->body;
    return flaw;
}

static const char *announcement_flaw(const audit *a, const linnet_entry_row *entry)
{
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_signed body;
    linnet_record_id id = linnet_record_number('n', entry->round);
    linnet_record_id old = linnet_record_bytes('s', entry->body.bytes, sizeof(entry->body.bytes));
    if (linnet_store_get(a->txn, &old, &bytes, &n_bytes, NULL) != LINNET_OK &&
        linnet_store_get(a->txn, &id, &bytes, &n_bytes, NULL) != LINNET_OK)
        return "the announcement is missing";
    return signed_flaw(a, LINNET_LABEL_ANNOUNCE, bytes, n_bytes, &entry->body, &body);
}

static const char *end_flaw(const audit *a, const linnet_entry_row *entry)
{
    linnet_round_row row;
    if (linnet_round_get(a->txn, entry->round, &row, NULL) != LINNET_OK)
        return "the round is missing";
    bool is_closed = entry->type == LINNET_ENTRY_CLOSED;
    if (row.state != (is_closed ? LINNET_ROUND_CLOSED : LINNET_ROUND_VOID))
        return "the round ended otherwise";
    return linnet_hash_equal(is_closed ? &row.adapter : &row.chain, &entry->body)
               ? NULL
               : "the round's row says something else";
}

/* ---- the sets of a round with secure aggregation, out of what went to its members ---- */

/* A reader of stored M2, sharers or M6; failed where there is none. */
static linnet_reader object_open(const audit *a, uint64_t round, uint8_t number)
{
    const uint8_t *bytes = NULL;
    size_t n_bytes = 0;
    linnet_record_id id = linnet_record_number('q', round);
    linnet_record_add(&id, &number, 1);
    bool is_there = linnet_store_get(a->txn, &id, &bytes, &n_bytes, NULL) == LINNET_OK;
    linnet_reader reader = linnet_reader_of(bytes, n_bytes);
    reader.failed = reader.failed || !is_there;
    return reader;
}

/* The signature in front is the coordinator's over this hash. */
static bool is_signed(const audit *a, const uint8_t *signature, const linnet_hash *hash)
{
    linnet_signature s;
    if (!signature)
        return false;
    memcpy(s.bytes, signature, sizeof(s.bytes));
    return linnet_verify_hash(linnet_identity_public_key(a->coordinator->identity), hash, &s) == LINNET_OK;
}

/* T1 and n of the stored roster; false where it is malformed or not signed. */
static bool roster_hash(const audit *a, const linnet_round_row *row, uint32_t *ret_n, linnet_hash *ret_t1)
{
    linnet_reader reader = object_open(a, row->number, LINNET_PHASE_ROSTER);
    const uint8_t *signature = linnet_reader_take(&reader, LINNET_SIGNATURE_BYTES);
    uint32_t n = linnet_reader_le32(&reader);
    if (reader.failed || n == 0 || n > LINNET_SECAGG_MEMBERS_MAX)
        return false;
    linnet_hash *leaves = calloc(n, sizeof(*leaves));
    for (uint32_t i = 0; leaves && i < n; i++) {
        const uint8_t *advert = linnet_reader_take(&reader, LINNET_ADVERT_BYTES);
        if (advert)
            leaves[i] = linnet_secagg_leaf(advert);
    }
    bool is_whole = leaves && linnet_reader_is_done(&reader);
    if (is_whole) {
        *ret_n = n;
        *ret_t1 = linnet_secagg_t1(&row->chain, leaves, n);
    }
    free(leaves);
    return is_whole && is_signed(a, signature, ret_t1);
}

static bool sharers_hash(const audit *a, const linnet_round_row *row, uint32_t *ret_n, linnet_hash *ret_t2)
{
    linnet_hash t1;
    linnet_reader reader = object_open(a, row->number, LINNET_PHASE_SHARERS);
    if (!roster_hash(a, row, ret_n, &t1))
        return false;
    const uint8_t *signature = linnet_reader_take(&reader, LINNET_SIGNATURE_BYTES);
    const uint8_t *bitmap = linnet_reader_take(&reader, linnet_bitmap_bytes(*ret_n));
    if (!linnet_reader_is_done(&reader))
        return false;
    *ret_t2 = linnet_secagg_t2(&t1, bitmap, *ret_n);
    return is_signed(a, signature, ret_t2);
}

static bool survivors_hash(const audit *a, const linnet_round_row *row, uint32_t *ret_n, linnet_hash *ret_t3)
{
    linnet_hash t2;
    linnet_reader reader = object_open(a, row->number, LINNET_PHASE_SURVIVORS);
    if (!sharers_hash(a, row, ret_n, &t2))
        return false;
    const uint8_t *signature = linnet_reader_take(&reader, LINNET_SIGNATURE_BYTES);
    const uint8_t *bitmap = linnet_reader_take(&reader, linnet_bitmap_bytes(*ret_n));
    if (reader.failed || linnet_bitmap_check(bitmap, *ret_n) != LINNET_OK)
        return false;
    uint32_t n_survivors = linnet_bitmap_count(bitmap, *ret_n);
    const uint8_t *list =
        linnet_reader_take(&reader, (size_t)n_survivors * (LINNET_HASH_BYTES + LINNET_SIGNATURE_BYTES));
    if (!linnet_reader_is_done(&reader))
        return false;
    linnet_hash r = linnet_secagg_survivor_list(list, n_survivors);
    *ret_t3 = linnet_secagg_t3(&t2, bitmap, *ret_n, &r);
    return is_signed(a, signature, ret_t3);
}

static const char *set_flaw(const audit *a, const linnet_entry_row *entry)
{
    linnet_round_row row;
    linnet_hash hash;
    uint32_t n;
    if (linnet_round_get(a->txn, entry->round, &row, NULL) != LINNET_OK)
        return "the round is missing";
    bool is_good = entry->type == LINNET_ENTRY_ROSTER    ? roster_hash(a, &row, &n, &hash)
                   : entry->type == LINNET_ENTRY_SHARERS ? sharers_hash(a, &row, &n, &hash)
                                                         : survivors_hash(a, &row, &n, &hash);
    if (!is_good)
        return "the stored set is malformed, or its signature not the coordinator's";
    return linnet_hash_equal(&hash, &entry->body) ? NULL : "the stored set is another one";
}

static const char *entry_flaw(audit *a, const linnet_entry_row *entry, const uint8_t *bytes, size_t n_bytes)
{
    linnet_hasher hasher;
    linnet_hasher_init(&hasher, LINNET_LABEL_TRANSCRIPT);
    if (a->n_entries > 0)
        linnet_hasher_update(&hasher, a->head.bytes, sizeof(a->head.bytes));
    linnet_hasher_update(&hasher, bytes, n_bytes - sizeof(entry->head.bytes));
    linnet_hash head = linnet_hasher_final(&hasher);
    a->head = entry->head;
    if (!linnet_hash_equal(&head, &entry->head))
        return "the chain is broken here";
    if (entry->type == LINNET_ENTRY_RELEASE)
        return release_flaw(a, entry);
    if (entry->type == LINNET_ENTRY_ANNOUNCE)
        return announcement_flaw(a, entry);
    bool is_end = entry->type == LINNET_ENTRY_CLOSED || entry->type == LINNET_ENTRY_VOID;
    return is_end ? end_flaw(a, entry) : set_flaw(a, entry);
}

static linnet_status visit(void *context, const uint8_t *fields, size_t n_fields, const uint8_t *bytes,
                           size_t n_bytes, linnet_error *err)
{
    audit *a = context;
    linnet_entry_row entry;
    (void)fields;
    (void)n_fields;
    if (linnet_entry_row_unpack(bytes, n_bytes, &entry) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_FORMAT, "transcript: entry %zu is damaged", a->n_entries);
    if (a->n_entries == a->capacity) {
        size_t capacity = a->capacity ? 2 * a->capacity : 64;
        linnet_audit_entry *entries = realloc(a->entries, capacity * sizeof(*entries));
        if (!entries)
            return linnet_fail(err, LINNET_ERR_NOMEM, "transcript");
        a->entries = entries;
        a->capacity = capacity;
    }
    const char *flaw = entry_flaw(a, &entry, bytes, n_bytes);
    a->entries[a->n_entries++] = (linnet_audit_entry){
        .type = type_name(entry.type), .number = entry.round, .hash = entry.body, .flaw = flaw};
    return LINNET_OK;
}

linnet_status linnet_coordinator_audit(linnet_coordinator *c, linnet_audit_entry **ret_entries, size_t *ret_n,
                                       linnet_error *err)
{
    audit a = {.coordinator = c};
    linnet_record_id prefix = linnet_record_of('h');
    linnet_status status = linnet_store_read_begin(c->store, &a.txn, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_store_each(a.txn, &prefix, visit, &a, err);
    linnet_store_read_end(a.txn);
    if (status != LINNET_OK) {
        free(a.entries);
        return status;
    }
    *ret_entries = a.entries;
    *ret_n = a.n_entries;
    return LINNET_OK;
}
