/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Equivocation: two bodies under the coordinator's signature for one slot. Every statement that is signed
 * once and only once is put into one list, from the log, from another party's log and from a device's
 * receipts; the list is sorted, and neighbours of one slot with two hashes are tried as evidence. Evidence
 * counts only where the check that anybody can repeat accepts it: what another party made up proves nothing.
 */
#include "linnet/secagg_audit.h"
#include "transcript_inner.h"

#include <stdlib.h>

/* ---- one slot ---- */

static void number_id(linnet_slot *slot, const uint8_t task[16], uint64_t number, uint64_t list)
{
    memcpy(slot->id + 1, task, 16);
    linnet_store_le64(slot->id + 17, number);
    linnet_store_le64(slot->id + 25, list);
}

/* Without masks a round is announced again for a newer list; with masks it never is. */
static void announcement_id(linnet_slot *slot, const linnet_announcement *a)
{
    number_id(slot, a->task, a->round, linnet_profile_is_secure((int)a->profile) ? 0 : a->revocation_number);
}

static bool parent_length_is_good(uint8_t kind, size_t n)
{
    if (kind == LINNET_SLOT_ROSTER)
        return n >= 36 + LINNET_HASH_BYTES && (n - 36) % LINNET_HASH_BYTES == 0;
    return kind == LINNET_SLOT_SHARERS ? n > LINNET_HASH_BYTES : n > 2 * LINNET_HASH_BYTES;
}

/* A body whose signature is good. */
static linnet_status slot_parse(uint8_t kind, const linnet_signed *body, linnet_slot *slot)
{
    linnet_release release;
    linnet_announcement announcement;
    linnet_status status = LINNET_OK;
    slot->id[0] = kind;
    if (kind == LINNET_SLOT_RELEASE) {
        status = linnet_release_unpack(body->body, body->n_body, &release, NULL);
        if (status == LINNET_OK)
            number_id(slot, release.task, release.version, 0);
    } else if (kind == LINNET_SLOT_ANNOUNCE) {
        status = linnet_announcement_unpack(body->body, body->n_body, &announcement, NULL);
        if (status == LINNET_OK)
            announcement_id(slot, &announcement);
    } else if (parent_length_is_good(kind, body->n_body)) {
        memcpy(slot->id + 1, body->body, LINNET_HASH_BYTES);
    } else {
        status = LINNET_ERR_FORMAT;
    }
    return status;
}

linnet_status linnet_slot_of(uint8_t kind, const linnet_span *signed_bytes,
                             const linnet_public_key *coordinator, linnet_slot *ret_slot)
{
    static const linnet_label labels[] = {LINNET_LABEL_MODEL, LINNET_LABEL_ANNOUNCE, LINNET_LABEL_ROSTER,
                                          LINNET_LABEL_SHARERS, LINNET_LABEL_SURVIVORS};
    linnet_signed body;
    linnet_slot slot = {{0}, {{0}}};
    if (kind < 1 || kind > ARRAY_LEN(labels) ||
        linnet_signed_open(signed_bytes->bytes, signed_bytes->n_bytes, &body, NULL) != LINNET_OK)
        return LINNET_ERR_FORMAT;
    slot.hash = linnet_hash_of(labels[kind - 1], body.body, body.n_body);
    if (linnet_verify_hash(coordinator, &slot.hash, &body.signature) != LINNET_OK)
        return LINNET_ERR_CRYPTO;
    linnet_status status = slot_parse(kind, &body, &slot);
    if (status == LINNET_OK)
        *ret_slot = slot;
    return status;
}

/* ---- the list ---- */

typedef struct statement {
    linnet_slot slot;
    const linnet_log_entry *entry; /* of a log, or NULL: */
    linnet_span signed_bytes;      /* of receipts, or of an entry that is Signed */
    uint32_t n_members;            /* of the roster of a set of survivors */
} statement;

typedef struct statements {
    statement *items;
    size_t n_items, capacity;
} statements;

static statement *grow(statements *list)
{
    statement *items = linnet_array_grow(list->items, list->n_items, &list->capacity, sizeof(*items));
    if (!items)
        return NULL;
    list->items = items;
    list->items[list->n_items] = (statement){.slot = {{0}, {{0}}}};
    return &list->items[list->n_items++];
}

/* What the entries of a round have fixed so far, as they claim. */
typedef struct claim {
    uint64_t round;
    linnet_hash a, t1, t2;
    uint32_t n_members;
} claim;

typedef struct claims {
    claim *items;
    size_t n_items, capacity;
} claims;

#define ROUNDS_BACK 1024 /* open at once at most; what names an older round is a flaw, and found as one */

static claim *claim_find(claims *list, uint64_t round)
{
    for (size_t i = list->n_items; i > 0 && list->n_items - i < ROUNDS_BACK; i--)
        if (list->items[i - 1].round == round)
            return &list->items[i - 1];
    return NULL;
}

static claim *claim_add(claims *list, uint64_t round)
{
    claim *found = claim_find(list, round);
    if (found)
        return found;
    claim *items = linnet_array_grow(list->items, list->n_items, &list->capacity, sizeof(*items));
    if (!items)
        return NULL;
    list->items = items;
    list->items[list->n_items] = (claim){.round = round};
    return &list->items[list->n_items++];
}

static linnet_status add_announcement(const linnet_log_entry *entry, statements *list, claims *rounds)
{
    linnet_signed body;
    linnet_announcement a;
    if (linnet_signed_open(entry->object.bytes, entry->object.n_bytes, &body, NULL) != LINNET_OK ||
        linnet_announcement_unpack(body.body, body.n_body, &a, NULL) != LINNET_OK)
        return LINNET_OK; /* a flaw, and found as one */
    claim *round = claim_add(rounds, entry->number);
    statement *item = grow(list);
    if (!round || !item)
        return LINNET_ERR_NOMEM;
    round->a = entry->body;
    item->slot.id[0] = LINNET_SLOT_ANNOUNCE;
    announcement_id(&item->slot, &a);
    item->slot.hash = entry->body;
    item->entry = entry;
    item->signed_bytes = entry->object;
    return LINNET_OK;
}

static linnet_status add_linked(const linnet_log_entry *entry, uint8_t kind, const linnet_hash *parent,
                                uint32_t n_members, statements *list)
{
    statement *item = grow(list);
    if (!item)
        return LINNET_ERR_NOMEM;
    item->slot.id[0] = kind;
    memcpy(item->slot.id + 1, parent->bytes, LINNET_HASH_BYTES);
    item->slot.hash = entry->body;
    item->entry = entry;
    item->n_members = n_members;
    return LINNET_OK;
}

static linnet_status add_entry(const linnet_log *log, const linnet_log_entry *entry, statements *list,
                               claims *rounds)
{
    claim *round = claim_find(rounds, entry->number);
    statement *item;
    switch (entry->type) {
    case LINNET_LOG_RELEASE:
        item = grow(list);
        if (!item)
            return LINNET_ERR_NOMEM;
        item->slot.id[0] = LINNET_SLOT_RELEASE;
        number_id(&item->slot, log->task, entry->number, 0);
        item->slot.hash = entry->body;
        item->entry = entry;
        item->signed_bytes = entry->object;
        return LINNET_OK;
    case LINNET_LOG_ANNOUNCE:
        return add_announcement(entry, list, rounds);
    case LINNET_LOG_ROSTER:
        if (!round)
            return LINNET_OK;
        round->t1 = entry->body;
        round->n_members =
            entry->object.n_bytes < 68 ? 0 : linnet_load_le32(entry->object.bytes + LINNET_SIGNATURE_BYTES);
        return add_linked(entry, LINNET_SLOT_ROSTER, &round->a, 0, list);
    case LINNET_LOG_SHARERS:
        if (!round)
            return LINNET_OK;
        round->t2 = entry->body;
        return add_linked(entry, LINNET_SLOT_SHARERS, &round->t1, 0, list);
    case LINNET_LOG_SURVIVORS:
        return round ? add_linked(entry, LINNET_SLOT_SURVIVORS, &round->t2, round->n_members, list)
                     : LINNET_OK;
    default:
        return LINNET_OK;
    }
}

static linnet_status add_log(const linnet_log *log, statements *list)
{
    claims rounds = {0};
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < log->n_entries && status == LINNET_OK; i++)
        status = add_entry(log, &log->entries[i], list, &rounds);
    free(rounds.items);
    return status;
}

static linnet_status add_span(uint8_t kind, const linnet_span *span, const linnet_public_key *key,
                              statements *list)
{
    linnet_slot slot;
    if (span->n_bytes == 0 || linnet_slot_of(kind, span, key, &slot) != LINNET_OK)
        return LINNET_OK; /* a flaw, and found as one */
    statement *item = grow(list);
    if (!item)
        return LINNET_ERR_NOMEM;
    item->slot = slot;
    item->signed_bytes = *span;
    return LINNET_OK;
}

static linnet_status add_receipts(const linnet_receipts *receipts, const linnet_public_key *key,
                                  statements *list)
{
    linnet_status status = add_span(LINNET_SLOT_ANNOUNCE, &receipts->announcement, key, list);
    for (size_t i = 0; i < receipts->n_records && status == LINNET_OK; i++) {
        const linnet_contribution_record *r = &receipts->records[i];
        const linnet_span *const spans[] = {&r->release, &r->announcement, &r->t1, &r->t2, &r->t3};
        for (uint8_t kind = 1; kind <= ARRAY_LEN(spans) && status == LINNET_OK; kind++)
            status = add_span(kind, spans[kind - 1], key, list);
    }
    return status;
}

/* ---- evidence ---- */

static int by_slot(const void *a, const void *b)
{
    const statement *x = a, *y = b;
    int order = memcmp(x->slot.id, y->slot.id, sizeof(x->slot.id));
    return order != 0 ? order : memcmp(x->slot.hash.bytes, y->slot.hash.bytes, LINNET_HASH_BYTES);
}

/* The Signed body of a statement, appended. */
static linnet_status statement_write(const statement *s, linnet_buffer *bytes)
{
    linnet_hash parent;
    linnet_signature signature;
    linnet_buffer body = {0};
    linnet_status status = LINNET_ERR_FORMAT;
    if (s->signed_bytes.n_bytes > 0) {
        linnet_buffer_append(bytes, s->signed_bytes.bytes, s->signed_bytes.n_bytes);
        return bytes->failed ? LINNET_ERR_NOMEM : LINNET_OK;
    }
    if (!s->entry)
        return status;
    const linnet_span *object = &s->entry->object;
    memcpy(parent.bytes, s->slot.id + 1, LINNET_HASH_BYTES);
    if (s->slot.id[0] == LINNET_SLOT_ROSTER)
        status = linnet_secagg_roster_body(&parent, object->bytes, object->n_bytes, &body, &signature);
    else if (s->slot.id[0] == LINNET_SLOT_SHARERS)
        status = linnet_secagg_sharers_body(&parent, object->bytes, object->n_bytes, &body, &signature);
    else if (s->slot.id[0] == LINNET_SLOT_SURVIVORS)
        status = linnet_secagg_survivors_body(&parent, s->n_members, object->bytes, object->n_bytes, &body,
                                              &signature);
    if (status == LINNET_OK)
        status = linnet_signed_pack(body.bytes, body.n_bytes, &signature, bytes, NULL);
    linnet_buffer_release(&body);
    return status;
}

/* Two statements as an evidence file; NOMEM is reported, everything else is no evidence. */
static linnet_status evidence_make(const statement *a, const statement *b, const linnet_public_key *key,
                                   linnet_log_report *report)
{
    linnet_buffer first = {0}, other = {0}, file = {0};
    linnet_evidence checked;
    linnet_status status = statement_write(a, &first);
    if (status == LINNET_OK)
        status = statement_write(b, &other);
    const linnet_evidence evidence = {.coordinator = *key,
                                      .kind = a->slot.id[0],
                                      .first = {first.bytes, first.n_bytes},
                                      .other = {other.bytes, other.n_bytes}};
    if (status == LINNET_OK)
        status = linnet_evidence_write(&evidence, &file, NULL);
    if (status == LINNET_OK)
        status = linnet_evidence_check(file.bytes, file.n_bytes, &checked, NULL);
    if (status == LINNET_OK && report->n_equivocations++ == 0) {
        report->evidence = file; /* ownership moves */
        file = (linnet_buffer){0};
    }
    linnet_buffer_release(&first);
    linnet_buffer_release(&other);
    linnet_buffer_release(&file);
    return status == LINNET_ERR_NOMEM ? status : LINNET_OK;
}

linnet_status linnet_slots_compare(const linnet_log *log, const linnet_receipts *receipts,
                                   const linnet_log *other, linnet_log_report *report, linnet_error *err)
{
    statements list = {0};
    linnet_status status = add_log(log, &list);
    if (status == LINNET_OK && other)
        status = add_log(other, &list);
    if (status == LINNET_OK && receipts)
        status = add_receipts(receipts, &log->coordinator, &list);
    if (list.n_items > 0)
        qsort(list.items, list.n_items, sizeof(*list.items), by_slot);
    for (size_t i = 1; i < list.n_items && status == LINNET_OK; i++) {
        const statement *a = &list.items[i - 1], *b = &list.items[i];
        if (memcmp(a->slot.id, b->slot.id, sizeof(a->slot.id)) == 0 &&
            !linnet_hash_equal(&a->slot.hash, &b->slot.hash))
            status = evidence_make(a, b, &log->coordinator, report);
    }
    free(list.items);
    return status == LINNET_OK ? status : linnet_fail(err, status, "comparing what was signed");
}
