/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HISTORY_H
#define HISTORY_H

/* A small task's whole history as its log: releases, announcements and the chains of masked rounds, signed by
 * keys that the test has, so that it can also sign what an honest coordinator never would. Messages are laid
 * out by hand, from the formats of secagg.h and nothing else. */

#include "linnet/packing.h"
#include "linnet/secagg_audit.h"
#include "linnet/transcript.h"

#include "testing.h"

#define HISTORY_MEMBERS 6
#define HISTORY_PLAN                                                                                         \
    "[task]\nname = history\nrounds = 10\n[secure]\nprofile = secure+dp\nsurvivors = 4\n[cohort]\ngoal = "   \
    "5\n"                                                                                                    \
    "minimum = 5\nover_selection = 1.2\n[privacy]\nmechanism = distributed\nnoise_multiplier = 4\nclip = "   \
    "0.5\n"                                                                                                  \
    "[encoding]\nweight_unit_tokens = 0\nring_bits = 32\n[aggregation]\nrule = ffa\n"

/* What a dishonest, or a broken, coordinator writes: everything around it is signed as it should be. */
typedef enum history_lie {
    LIE_NONE,
    LIE_REVOKED_MEMBER, /* the last member stands on the list */
    LIE_STRANGER,       /* a certificate of another authority */
    LIE_TWO_KEYS,       /* two members of one pk_x */
    LIE_UNSORTED,       /* the roster's order */
    LIE_FEW_SHARERS,    /* below the threshold */
    LIE_OUTSIDE_U2,     /* a survivor that never shared */
    LIE_FEW_SURVIVORS,  /* below the threshold */
    LIE_MADE_UP,        /* Hy of a member replaced, its signature kept */
    LIE_WRONG_Q,        /* one attestation too few */
    LIE_FORGED_ATTEST,  /* an attestation by another key */
    LIE_DROPPED_MEMBER, /* the last sharer's accepted contribution is left out of U3 and R */
    LIE_EPSILON,        /* the ledger says less */
    LIE_ROUNDS,         /* the ledger counts less */
    LIE_PARAMETERS,     /* less noise than the plan asks for */
    LIE_ADAPTER,        /* a release of an adapter that no round led to */
    LIE_CHECKPOINT,     /* an announcement with an older checkpoint */
    LIE_FORK,           /* round 2 has another announcement; no flaw alone */
    LIE_ROSTER,         /* round 1 has another roster under one A; no flaw alone */
    LIE_SHARERS,        /* round 1 has another U2 under one T1; no flaw alone */
    LIE_SURVIVORS,      /* round 1 has another U3 under one T2; no flaw alone */
    LIE_RELEASE,        /* another release 1; no flaw alone */
} history_lie;

typedef struct history_round {
    linnet_hash a, t1, t2, t3;
    linnet_buffer announcement, m2, u2, m6, m8;
    uint8_t advert[HISTORY_MEMBERS][LINNET_ADVERT_BYTES];
    linnet_hash echo[HISTORY_MEMBERS];
    uint8_t survivors;
} history_round;

typedef struct history {
    history_lie lie;
    linnet_identity *coordinator, *authority, *stranger, *member[HISTORY_MEMBERS]; /* by device id */
    linnet_plan plan;
    linnet_layout layout;
    linnet_buffer plan_text, layout_bytes, list[2], release[3];
    linnet_hash v[3];
    history_round round[4]; /* numbers 1, 2, 3: closed, void after its sharers, open with its roster */
    linnet_span lists[2];
    linnet_log_entry entries[32];
    linnet_log log;
} history;

static inline linnet_hash history_hash(uint64_t seed)
{
    uint8_t bytes[8];
    linnet_store_le64(bytes, seed);
    return linnet_hash_of(LINNET_LABEL_OBJECT, bytes, sizeof(bytes));
}

static inline linnet_identity *history_identity(uint64_t seed)
{
    linnet_identity *identity = NULL;
    linnet_hash hash = history_hash(seed);
    assert_int_equal(linnet_identity_from_seed(hash.bytes, &identity, NULL), LINNET_OK);
    return identity;
}

static inline linnet_device_id history_device(const history *h, uint32_t i)
{
    return linnet_device_id_of(linnet_identity_public_key(h->member[i]));
}

/* Add an entry with the right head. */
static inline void history_add(history *h, uint8_t type, uint64_t number, const linnet_hash *body,
                               const linnet_buffer *object)
{
    assert_true(h->log.n_entries < ARRAY_LEN(h->entries));
    linnet_log_entry *entry = &h->entries[h->log.n_entries];
    *entry = (linnet_log_entry){.type = type, .number = number, .body = *body};
    if (object)
        entry->object = (linnet_span){object->bytes, object->n_bytes};
    entry->head = linnet_log_head(h->log.n_entries > 0 ? &entry[-1].head : NULL, entry);
    h->log.n_entries++;
}

static inline void history_sign(const history *h, linnet_label label, const linnet_buffer *body,
                                linnet_hash *ret_hash, linnet_buffer *ret_signed)
{
    linnet_error err = {0};
    *ret_hash = linnet_hash_of(label, body->bytes, body->n_bytes);
    linnet_signature signature = linnet_sign_hash(h->coordinator, ret_hash);
    assert_ok(linnet_signed_pack(body->bytes, body->n_bytes, &signature, ret_signed, &err), &err);
}

static inline void history_release(history *h, uint64_t version)
{
    linnet_error err = {0};
    linnet_buffer body = {0};
    linnet_release r = {
        .version = version,
        .layout = linnet_hash_of(LINNET_LABEL_LAYOUT, h->layout_bytes.bytes, h->layout_bytes.n_bytes),
        .plan = linnet_plan_hash(h->plan_text.bytes, h->plan_text.n_bytes),
        .base_model = history_hash(90),
        .factors = (uint32_t)linnet_rule_factors((linnet_rule)h->plan.rule, version),
        .dp_unit = LINNET_DP_UNIT_DEVICE,
        .adapter = history_hash(100 + version)};
    memcpy(r.task, h->log.task, sizeof(r.task));
    linnet_plan_rates(&h->plan, version, &r.learning_rate_b, &r.learning_rate_a);
    if (version > 0)
        r.previous = h->v[version - 1];
    if (version == 1 && h->lie == LIE_ADAPTER)
        r.adapter = history_hash(99);
    if (version == 1 && h->lie == LIE_RELEASE)
        r.base_model = history_hash(91);
    assert_ok(linnet_release_pack(&r, &body, &err), &err);
    history_sign(h, LINNET_LABEL_MODEL, &body, &h->v[version], &h->release[version]);
    linnet_buffer_release(&body);
    history_add(h, LINNET_LOG_RELEASE, version, &h->v[version], &h->release[version]);
}

static inline void history_announce(history *h, uint64_t number, uint64_t version, uint64_t list)
{
    linnet_error err = {0};
    linnet_buffer body = {0};
    linnet_announcement a;
    history_round *round = &h->round[number];
    assert_ok(linnet_announcement_of_plan(&h->plan, &h->layout, version, &a, &err), &err);
    memcpy(a.task, h->log.task, sizeof(a.task));
    a.coordinator = h->log.coordinator;
    a.round = number;
    a.release = h->v[version];
    a.revocation_number = list;
    if (list > 0)
        a.revocation = linnet_hash_of(LINNET_LABEL_REVOCATION, h->list[list - 1].bytes,
                                      h->list[list - 1].n_bytes - LINNET_SIGNATURE_BYTES);
    a.checkpoint = h->entries[h->log.n_entries - 1].head;
    if (number == 2 && h->lie == LIE_CHECKPOINT)
        a.checkpoint = h->entries[0].head;
    if (number == 2 && h->lie == LIE_PARAMETERS)
        a.dp_sigma2--;
    if (number == 2 && h->lie == LIE_FORK)
        a.deadline_s = 77;
    assert_ok(linnet_announcement_pack(&a, &body, &err), &err);
    history_sign(h, LINNET_LABEL_ANNOUNCE, &body, &round->a, &round->announcement);
    linnet_buffer_release(&body);
    history_add(h, LINNET_LOG_ANNOUNCE, number, &round->a, &round->announcement);
}

static inline void history_certificate(const history *h, uint32_t i, bool is_strange,
                                       uint8_t bytes[LINNET_SIGNED_CERTIFICATE_BYTES])
{
    linnet_certificate certificate = {.device_id = history_device(h, i),
                                      .public_key = *linnet_identity_public_key(h->member[i]),
                                      .serial = i + 1,
                                      .not_before = 1,
                                      .not_after = 5000};
    linnet_certificate_sign(&certificate, is_strange ? h->stranger : h->authority, bytes);
}

static inline void history_roster(history *h, uint64_t number)
{
    linnet_hash leaves[HISTORY_MEMBERS];
    history_round *round = &h->round[number];
    bool lies = number == 1;
    for (uint32_t i = 0; i < HISTORY_MEMBERS; i++) {
        uint8_t *advert = round->advert[i], secret[32];
        linnet_device_id id = history_device(h, i);
        memcpy(advert, round->a.bytes, 32);
        memcpy(advert + 32, id.bytes, 16);
        linnet_x25519_draw(secret, advert + 48);
        linnet_x25519_draw(secret, advert + 80);
        linnet_random_bytes(advert + 112, 48);
        if (lies && i == 3 && h->lie == LIE_TWO_KEYS)
            memcpy(advert + 48, round->advert[2] + 48, 32);
        linnet_signature signature =
            linnet_sign(h->member[i], LINNET_LABEL_ADVERT, advert, LINNET_ADVERT_BODY_BYTES);
        memcpy(advert + LINNET_ADVERT_BODY_BYTES, signature.bytes, 64);
        history_certificate(h, i, lies && i == 3 && h->lie == LIE_STRANGER,
                            advert + LINNET_ADVERT_BODY_BYTES + 64);
    }
    if (lies && h->lie == LIE_UNSORTED) {
        uint8_t swap[LINNET_ADVERT_BYTES];
        memcpy(swap, round->advert[0], sizeof(swap));
        memcpy(round->advert[0], round->advert[1], sizeof(swap));
        memcpy(round->advert[1], swap, sizeof(swap));
    }
    for (uint32_t i = 0; i < HISTORY_MEMBERS; i++)
        leaves[i] = linnet_secagg_leaf(round->advert[i]);
    round->t1 = linnet_secagg_t1(&round->a, leaves, HISTORY_MEMBERS);
    linnet_signature signature = linnet_sign_hash(h->coordinator, &round->t1);
    linnet_buffer_append(&round->m2, signature.bytes, 64);
    linnet_buffer_append_le32(&round->m2, HISTORY_MEMBERS);
    linnet_buffer_append(&round->m2, round->advert, sizeof(round->advert));
    history_add(h, LINNET_LOG_ROSTER, number, &round->t1, &round->m2);
}

static inline void history_sharers(history *h, uint64_t number)
{
    history_round *round = &h->round[number];
    uint8_t u2 = number == 1 && h->lie == LIE_FEW_SHARERS  ? 0x0f
                 : number == 1 && h->lie == LIE_OUTSIDE_U2 ? 0x1f
                 : number == 1 && h->lie == LIE_SHARERS    ? 0x1f
                                                           : 0x3f;
    round->t2 = linnet_secagg_t2(&round->t1, &u2, HISTORY_MEMBERS);
    linnet_signature signature = linnet_sign_hash(h->coordinator, &round->t2);
    linnet_buffer_append(&round->u2, signature.bytes, 64);
    linnet_buffer_append_u8(&round->u2, u2);
    history_add(h, LINNET_LOG_SHARERS, number, &round->t2, &round->u2);
}

/* The signature of the M5 header of a member for its echo. */
static inline linnet_signature history_header(const history *h, const history_round *round, uint32_t i)
{
    linnet_error err = {0};
    linnet_announcement planned;
    linnet_buffer body = {0};
    linnet_upload_header header = {
        .chain = round->t2, .device_id = history_device(h, i), .echo = round->echo[i]};
    assert_ok(linnet_announcement_of_plan(&h->plan, &h->layout, 0, &planned, &err), &err);
    header.n_vectors = planned.n_vectors;
    for (uint32_t k = 0; k < planned.n_vectors; k++) {
        header.lengths[k] = planned.vectors[k].length;
        header.n_bytes += linnet_ring_bytes(&planned.vectors[k]);
    }
    assert_ok(linnet_upload_header_pack(&header, &body, &err), &err);
    linnet_signature signature = linnet_sign(h->member[i], LINNET_LABEL_MASKED, body.bytes, body.n_bytes);
    linnet_buffer_release(&body);
    return signature;
}

static inline void history_survivors(history *h, uint64_t number)
{
    history_round *round = &h->round[number];
    linnet_buffer list = {0};
    uint8_t u3 = 0x3f;
    if (h->lie == LIE_FEW_SURVIVORS)
        u3 = 0x0f;
    if (h->lie == LIE_DROPPED_MEMBER || h->lie == LIE_SHARERS)
        u3 = 0x1f;
    if (h->lie == LIE_SURVIVORS)
        u3 = 0x3e;
    round->survivors = u3;
    for (uint32_t i = 0; i < HISTORY_MEMBERS; i++) {
        round->echo[i] = history_hash(1000 * number + i);
        linnet_signature signature = history_header(h, round, i);
        if (!(u3 >> i & 1))
            continue;
        linnet_hash echo = h->lie == LIE_MADE_UP && i == 2 ? history_hash(5) : round->echo[i];
        linnet_buffer_append(&list, echo.bytes, 32);
        linnet_buffer_append(&list, signature.bytes, 64);
    }
    linnet_hash r = linnet_secagg_survivor_list(list.bytes, list.n_bytes / 96);
    round->t3 = linnet_secagg_t3(&round->t2, &u3, HISTORY_MEMBERS, &r);
    linnet_signature signature = linnet_sign_hash(h->coordinator, &round->t3);
    linnet_buffer_append(&round->m6, signature.bytes, 64);
    linnet_buffer_append_u8(&round->m6, u3);
    linnet_buffer_append(&round->m6, list.bytes, list.n_bytes);
    linnet_buffer_release(&list);
    history_add(h, LINNET_LOG_SURVIVORS, number, &round->t3, &round->m6);
}

static inline void history_close(history *h, uint64_t number)
{
    history_round *round = &h->round[number];
    linnet_hash adapter = history_hash(101);
    uint32_t q = 4; /* floor((6 + 1) / 2) + 1 */
    if (h->lie == LIE_WRONG_Q)
        q--;
    linnet_buffer_append(&round->m8, round->m6.bytes, round->m6.n_bytes);
    linnet_buffer_append_le32(&round->m8, q);
    for (uint32_t i = 0, n = 0; n < q; i++) {
        if (!(round->survivors >> i & 1))
            continue;
        const linnet_identity *by = h->lie == LIE_FORGED_ATTEST && n == 1 ? h->stranger : h->member[i];
        linnet_signature signature = linnet_sign(by, LINNET_LABEL_ATTEST, round->t3.bytes, 32);
        linnet_buffer_append_le32(&round->m8, i);
        linnet_buffer_append(&round->m8, signature.bytes, 64);
        n++;
    }
    history_add(h, LINNET_LOG_CLOSED, number, &adapter, &round->m8);
}

static inline int history_by_device(const void *a, const void *b)
{
    linnet_identity *const *x = a, *const *y = b;
    linnet_device_id i = linnet_device_id_of(linnet_identity_public_key(*x)),
                     j = linnet_device_id_of(linnet_identity_public_key(*y));
    return memcmp(i.bytes, j.bytes, sizeof(i.bytes));
}

static inline void history_begin(history *h, history_lie lie)
{
    linnet_error err = {0};
    *h = (history){.lie = lie};
    assert_int_equal(linnet_crypto_init(NULL), LINNET_OK);
    h->coordinator = history_identity(1);
    h->authority = history_identity(2);
    h->stranger = history_identity(3);
    for (uint32_t i = 0; i < HISTORY_MEMBERS; i++)
        h->member[i] = history_identity(10 + i);
    qsort(h->member, HISTORY_MEMBERS, sizeof(h->member[0]), history_by_device);
    h->log = (linnet_log){.coordinator = *linnet_identity_public_key(h->coordinator),
                          .authority = *linnet_identity_public_key(h->authority),
                          .entries = h->entries,
                          .lists = h->lists,
                          .n_lists = 2};
    memcpy(h->log.task, "task of sixteen", 16);
    linnet_layout_entry entry = {.name = "blk.0.attn_q.weight", .rows = 100, .columns = 50, .rank = 8};
    h->layout = (linnet_layout){
        .alpha = 16, .n_entries = 1, .entries = &entry, .n_parameters = 1200, .n_a = 400, .n_b = 800};
    assert_ok(linnet_layout_write(&h->layout, &h->layout_bytes, &err), &err);
    h->layout.n_entries = 0;
    h->layout.entries = NULL;
    assert_ok(linnet_plan_parse("history", HISTORY_PLAN, strlen(HISTORY_PLAN), &h->plan, &err), &err);
    assert_ok(linnet_plan_write(&h->plan, &h->plan_text, &err), &err);
    h->log.plan = (linnet_span){h->plan_text.bytes, h->plan_text.n_bytes};
    h->log.layout = (linnet_span){h->layout_bytes.bytes, h->layout_bytes.n_bytes};
    linnet_device_id revoked[2] = {{{1}}, history_device(h, 5)};
    assert_ok(linnet_revocation_sign(1, revoked, 1, h->authority, &h->list[0], &err), &err);
    assert_ok(linnet_revocation_sign(2, revoked, lie == LIE_REVOKED_MEMBER ? 2 : 1, h->authority, &h->list[1],
                                     &err),
              &err);
    for (size_t i = 0; i < 2; i++)
        h->lists[i] = (linnet_span){h->list[i].bytes, h->list[i].n_bytes};
}

static inline void history_play(history *h)
{
    linnet_privacy privacy;
    linnet_rdp spent = {{0}};
    linnet_error err = {0};
    history_release(h, 0);
    history_announce(h, 1, 0, h->lie == LIE_REVOKED_MEMBER ? 2 : 1);
    history_roster(h, 1);
    history_sharers(h, 1);
    history_survivors(h, 1);
    history_close(h, 1);
    history_release(h, 1);
    history_announce(h, 2, 1, 2);
    history_roster(h, 2);
    history_sharers(h, 2);
    history_add(h, LINNET_LOG_VOID, 2, &h->round[2].a, NULL);
    history_announce(h, 3, 1, 2);
    history_roster(h, 3);
    assert_ok(linnet_plan_privacy(&h->plan, &h->layout, 0, &privacy, &err), &err);
    linnet_privacy_spend(&privacy, 2, &spent);
    h->log.dp_rounds = h->lie == LIE_ROUNDS ? 1 : 2;
    h->log.dp_epsilon = linnet_dp_epsilon(&spent, h->plan.dp_delta, NULL) * (h->lie == LIE_EPSILON ? 0.9 : 1);
}

static inline void history_end(history *h)
{
    linnet_identity_destroy(h->coordinator);
    linnet_identity_destroy(h->authority);
    linnet_identity_destroy(h->stranger);
    for (uint32_t i = 0; i < HISTORY_MEMBERS; i++)
        linnet_identity_destroy(h->member[i]);
    linnet_buffer_release(&h->plan_text);
    linnet_buffer_release(&h->layout_bytes);
    for (size_t i = 0; i < 2; i++)
        linnet_buffer_release(&h->list[i]);
    for (size_t i = 0; i < 3; i++)
        linnet_buffer_release(&h->release[i]);
    for (size_t i = 0; i < 4; i++) {
        linnet_buffer_release(&h->round[i].announcement);
        linnet_buffer_release(&h->round[i].m2);
        linnet_buffer_release(&h->round[i].u2);
        linnet_buffer_release(&h->round[i].m6);
        linnet_buffer_release(&h->round[i].m8);
    }
}

/* ---- what member i kept of round 1 ---- */

typedef struct history_receipts {
    linnet_receipts receipts;
    linnet_contribution_record record;
    linnet_buffer t1, t2, t3;
    uint8_t receipt[LINNET_SIGNED_RECEIPT_BYTES];
} history_receipts;

static inline void history_span(const history *h, const linnet_buffer *body,
                                const linnet_signature *signature, linnet_buffer *to, linnet_span *ret_span)
{
    linnet_error err = {0};
    (void)h;
    assert_ok(linnet_signed_pack(body->bytes, body->n_bytes, signature, to, &err), &err);
    *ret_span = (linnet_span){to->bytes, to->n_bytes};
}

static inline void history_receipts_begin(history *h, uint32_t i, history_receipts *r)
{
    history_round *round = &h->round[1];
    linnet_buffer body = {0};
    linnet_signature signature;
    *r = (history_receipts){.record = {.round = 1, .echo = round->echo[i]}};
    r->receipts =
        (linnet_receipts){.device_id = history_device(h, i),
                          .coordinator = h->log.coordinator,
                          .announcement = {h->round[3].announcement.bytes, h->round[3].announcement.n_bytes},
                          .records = &r->record,
                          .n_records = 1};
    memcpy(r->receipts.task, h->log.task, 16);
    r->record.release = (linnet_span){h->release[0].bytes, h->release[0].n_bytes};
    r->record.announcement = (linnet_span){round->announcement.bytes, round->announcement.n_bytes};
    assert_int_equal(
        linnet_secagg_roster_body(&round->a, round->m2.bytes, round->m2.n_bytes, &body, &signature),
        LINNET_OK);
    history_span(h, &body, &signature, &r->t1, &r->record.t1);
    linnet_buffer_clear(&body);
    assert_int_equal(
        linnet_secagg_sharers_body(&round->t1, round->u2.bytes, round->u2.n_bytes, &body, &signature),
        LINNET_OK);
    history_span(h, &body, &signature, &r->t2, &r->record.t2);
    linnet_buffer_clear(&body);
    assert_int_equal(linnet_secagg_survivors_body(&round->t2, HISTORY_MEMBERS, round->m6.bytes,
                                                  round->m6.n_bytes, &body, &signature),
                     LINNET_OK);
    history_span(h, &body, &signature, &r->t3, &r->record.t3);
    linnet_buffer_release(&body);
    const linnet_receipt receipt = {
        .chain = round->t2, .echo = round->echo[i], .device_id = r->receipts.device_id, .sequence = i + 1};
    linnet_receipt_sign(&receipt, h->coordinator, r->receipt);
    r->record.receipt = (linnet_span){r->receipt, sizeof(r->receipt)};
}

static inline void history_receipts_end(history_receipts *r)
{
    linnet_buffer_release(&r->t1);
    linnet_buffer_release(&r->t2);
    linnet_buffer_release(&r->t3);
}

#endif
