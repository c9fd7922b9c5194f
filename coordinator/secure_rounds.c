/* SPDX-License-Identifier: Apache-2.0 */
/* The phases of a round with secure aggregation (SECURE-AGGREGATION 2.4, table of section 7):
 *
 *   OPEN (adverts) -> ROSTER (shares) -> SHARERS (masked vectors) -> FROZEN (attestations, then unmaskings)
 *   -> OPENED (the sum is a file) -> CLOSED (published), and VOID from every state before OPENED.
 *
 * Every arrow is one transaction that holds the state, what goes to the members and the transcript's entry;
 * deadlines are in the round's row. The protocol machine of crypto/ is a cache: what it was told is in rows
 * first, and after a restart it is told the same again; what it then says must be what was stored. A lock of
 * its own orders the messages of all rounds, and is held over the commit that belongs to a message, so that
 * machine and rows never part; only taking masks off a sum, which is long, goes on without it. */
#include "state.h"

#include "linnet/thread_pool.h"

#include <stdatomic.h>
#include <stdlib.h>

#define POOL_CHUNKS_MIN 16 /* fewer chunks of a vector are not worth threads */

/* ---- the machines in memory ---- */

static linnet_secure_slot *slot_find(linnet_coordinator *c, uint64_t round)
{
    for (size_t i = 0; i < LINNET_COHORTS_MAX; i++)
        if (c->secure[i].round == round)
            return &c->secure[i];
    return NULL;
}

static void slot_clear(linnet_secure_slot *slot)
{
    linnet_secagg_server_destroy(slot->server);
    *slot = (linnet_secure_slot){0};
}

void linnet_secure_forget(linnet_coordinator *c, uint64_t round)
{
    linnet_secure_slot *slot = slot_find(c, round);
    if (slot && !slot->is_opening)
        slot_clear(slot);
}

void linnet_secure_end(linnet_coordinator *c)
{
    for (size_t i = 0; i < LINNET_COHORTS_MAX; i++)
        slot_clear(&c->secure[i]);
}

/* A free slot, or that of the oldest round: a step has no more rounds than there are slots. */
static linnet_secure_slot *slot_take(linnet_coordinator *c)
{
    linnet_secure_slot *oldest = NULL;
    for (size_t i = 0; i < LINNET_COHORTS_MAX; i++)
        if (!c->secure[i].is_opening && (!oldest || c->secure[i].round < oldest->round))
            oldest = &c->secure[i];
    if (oldest)
        slot_clear(oldest);
    return oldest;
}

static bool phase_fits(const linnet_secagg_server *server, const linnet_round_row *row)
{
    linnet_secagg_server_phase phase = linnet_secagg_server_phase_of(server);
    switch (row->state) {
    case LINNET_ROUND_OPEN:
        return phase == LINNET_SERVER_OPEN && linnet_secagg_server_members(server) == row->joined;
    case LINNET_ROUND_ROSTER:
        return phase == LINNET_SERVER_ROSTER;
    case LINNET_ROUND_SHARERS:
        return phase == LINNET_SERVER_SHARERS;
    case LINNET_ROUND_FROZEN:
        return phase == LINNET_SERVER_FROZEN || phase == LINNET_SERVER_OPENED;
    default:
        return false;
    }
}

/* ---- rebuilding ---- */

static linnet_status damaged(const linnet_round_row *row, const char *what, linnet_error *err)
{
    return linnet_fail(err, LINNET_ERR_FORMAT,
                       "store: %s of round %llu is damaged; restore the state from a backup", what,
                       (unsigned long long)row->number);
}

static linnet_status params_read(linnet_store_txn *txn, const linnet_round_row *row,
                                 linnet_secagg_params *ret_params, linnet_error *err)
{
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_signed opened;
    linnet_announcement announcement;
    linnet_record_id id = linnet_record_number('n', row->number);
    linnet_status status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    if (status == LINNET_ERR_NOT_FOUND)
        return damaged(row, "the announcement", err);
    if (status != LINNET_OK)
        return status;
    if (linnet_signed_open(bytes, n_bytes, &opened, NULL) != LINNET_OK ||
        linnet_announcement_unpack(opened.body, opened.n_body, &announcement, NULL) != LINNET_OK)
        return damaged(row, "the announcement", err);
    return linnet_secagg_params_of(&announcement, &row->chain, ret_params, err);
}

/* A stored message told to the machine again. */
typedef struct retelling {
    linnet_secagg_server *server;
    const linnet_round_row *row;
    linnet_secagg_trust trust; /* certificates were checked, and the clock with them, when it came */
    char table;
} retelling;

static linnet_status retell(void *context, const uint8_t *fields, size_t n_fields, const uint8_t *bytes,
                            size_t n_bytes, linnet_error *err)
{
    retelling *r = context;
    linnet_device_id device;
    linnet_contribution_row contribution;
    linnet_status status = LINNET_ERR_FORMAT;
    if (n_fields != sizeof(device.bytes))
        return damaged(r->row, "a message", err);
    memcpy(device.bytes, fields, n_fields);
    if (r->table == 'j')
        status = linnet_secagg_server_advert(r->server, &r->trust, bytes, n_bytes, true, err);
    else if (r->table == 'p')
        status = linnet_secagg_server_shares(r->server, bytes, n_bytes, true, err);
    else if (r->table == 'v')
        status = linnet_secagg_server_attestation(r->server, bytes, n_bytes, true, err);
    else if (r->table == 'u')
        status = linnet_secagg_server_unmasking(r->server, bytes, n_bytes, true, err);
    else if (linnet_contribution_row_unpack(bytes, n_bytes, &contribution) == LINNET_OK)
        status = linnet_secagg_server_masked(r->server, &device, &contribution.echo, &contribution.signature,
                                             true, err);
    return status == LINNET_OK || status == LINNET_ERR_NOMEM ? status : damaged(r->row, "a message", err);
}

static linnet_status retell_table(linnet_store_txn *txn, retelling *r, char table, linnet_error *err)
{
    linnet_record_id prefix = linnet_record_number(table, r->row->number);
    r->table = table;
    return linnet_store_each(txn, &prefix, retell, r, err);
}

/* What went to the members: whole messages, but for M4 the part that is the same for all. */
static linnet_record_id object_id(uint64_t round, uint8_t number)
{
    linnet_record_id id = linnet_record_number('q', round);
    linnet_record_add(&id, &number, 1);
    return id;
}

static linnet_status no_box(void *context, uint32_t owner, size_t offset, void *bytes, size_t n_bytes,
                            linnet_error *err)
{
    (void)context;
    (void)owner;
    (void)offset;
    (void)err;
    memset(bytes, 0, n_bytes);
    return LINNET_OK;
}

/* Signature of T2 and the bitmap: the head of any sharer's M4. */
static linnet_status sharers_head(const linnet_secagg_server *server, linnet_buffer *ret_bytes,
                                  linnet_error *err)
{
    uint32_t n = linnet_secagg_server_members(server), first = 0;
    while (first + 1 < n && !linnet_secagg_server_is_sharer(server, first))
        first++;
    linnet_status status = linnet_secagg_server_make_sharers(
        server, linnet_secagg_server_device(server, first), no_box, NULL, ret_bytes, err);
    if (status == LINNET_OK)
        ret_bytes->n_bytes = LINNET_SIGNATURE_BYTES + linnet_bitmap_bytes(n);
    return status;
}

static linnet_status object_make(const linnet_secagg_server *server, uint8_t number, linnet_buffer *ret_bytes,
                                 linnet_error *err)
{
    if (number == LINNET_PHASE_ROSTER)
        return linnet_secagg_server_make_roster(server, ret_bytes, err);
    if (number == LINNET_PHASE_SHARERS)
        return sharers_head(server, ret_bytes, err);
    if (number == LINNET_PHASE_SURVIVORS)
        return linnet_secagg_server_make_survivors(server, ret_bytes, err);
    return linnet_secagg_server_make_certificate(server, ret_bytes, err);
}

/* The machine says what was said before, or the state is not what it was. */
static linnet_status object_compare(linnet_store_txn *txn, const retelling *r, uint8_t number,
                                    linnet_error *err)
{
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_buffer made = {0};
    linnet_record_id id = object_id(r->row->number, number);
    linnet_status status = object_make(r->server, number, &made, err);
    if (status == LINNET_OK)
        status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    if (status == LINNET_ERR_NOT_FOUND ||
        (status == LINNET_OK && (n_bytes != made.n_bytes || memcmp(bytes, made.bytes, n_bytes) != 0)))
        status = damaged(r->row, "the chain", err);
    linnet_buffer_release(&made);
    return status;
}

/* One phase of the past: close it as it was closed, compare, take what came after. */
static linnet_status replay(linnet_store_txn *txn, retelling *r, linnet_error *err)
{
    linnet_round_state state = r->row->state;
    linnet_status status = retell_table(txn, r, 'j', err);
    if (status != LINNET_OK || state == LINNET_ROUND_OPEN)
        return status;
    if (linnet_secagg_server_close_roster(r->server, err) != LINNET_OK)
        return damaged(r->row, "the roster", err);
    status = object_compare(txn, r, LINNET_PHASE_ROSTER, err);
    if (status == LINNET_OK)
        status = retell_table(txn, r, 'p', err);
    if (status != LINNET_OK || state == LINNET_ROUND_ROSTER)
        return status;
    if (linnet_secagg_server_close_sharers(r->server, err) != LINNET_OK)
        return damaged(r->row, "the list of sharers", err);
    status = object_compare(txn, r, LINNET_PHASE_SHARERS, err);
    if (status == LINNET_OK)
        status = retell_table(txn, r, 'b', err);
    if (status != LINNET_OK || state == LINNET_ROUND_SHARERS)
        return status;
    if (linnet_secagg_server_freeze(r->server, err) != LINNET_OK)
        return damaged(r->row, "the list of survivors", err);
    status = object_compare(txn, r, LINNET_PHASE_SURVIVORS, err);
    if (status == LINNET_OK)
        status = retell_table(txn, r, 'v', err);
    return status == LINNET_OK ? retell_table(txn, r, 'u', err) : status;
}

linnet_status linnet_secure_server(linnet_coordinator *c, linnet_store_txn *txn, const linnet_round_row *row,
                                   linnet_secagg_server **ret_server, linnet_error *err)
{
    linnet_secure_slot *slot = slot_find(c, row->number);
    linnet_secagg_params params;
    retelling r = {.row = row, .trust = {.authority = &c->authority_key}};
    if (slot && (slot->is_opening || phase_fits(slot->server, row))) {
        *ret_server = slot->server;
        return LINNET_OK;
    }
    if (slot)
        slot_clear(slot);
    linnet_status status = params_read(txn, row, &params, err);
    if (status == LINNET_OK)
        status = linnet_secagg_server_create(&params, c->identity, &r.server, err);
    if (status == LINNET_OK)
        status = replay(txn, &r, err);
    if (status == LINNET_OK && !phase_fits(r.server, row))
        status = damaged(row, "the row", err);
    if (status == LINNET_OK && !(slot = slot_take(c)))
        status =
            linnet_fail(err, LINNET_ERR_LIMIT, "no room for round %llu", (unsigned long long)row->number);
    if (status != LINNET_OK) {
        linnet_secagg_server_destroy(r.server);
        return status;
    }
    *slot = (linnet_secure_slot){.round = row->number, .server = r.server};
    *ret_server = r.server;
    return LINNET_OK;
}

linnet_status linnet_secure_trust(linnet_coordinator *c, linnet_store_txn *txn, int64_t now_ms,
                                  linnet_buffer *list, linnet_revocation *revocation,
                                  linnet_secagg_trust *ret_trust, linnet_error *err)
{
    linnet_status status = linnet_config_get(txn, "revocation", list, err);
    if (status != LINNET_OK)
        return status;
    bool has_list = list->n_bytes > 0 && linnet_revocation_open(list->bytes, list->n_bytes, &c->authority_key,
                                                                revocation) == LINNET_OK;
    *ret_trust = (linnet_secagg_trust){.authority = &c->authority_key,
                                       .now_s = (uint64_t)(now_ms / 1000),
                                       .revocation = has_list ? revocation : NULL};
    return LINNET_OK;
}

/* ---- transitions ---- */

/* One arrow of the round machine. */
typedef struct arrow {
    linnet_coordinator *coordinator;
    uint64_t round;
    int64_t now_ms, deadline_ms;
    linnet_round_state from, to;
    uint8_t object; /* number and bytes of what goes to the members; 0: nothing new */
    linnet_buffer bytes;
    linnet_entry_type entry;        /* 0: none */
    linnet_hash hash;               /* of the entry; for SHARERS also the way from T2 to the round */
    uint32_t n_masked;              /* into FROZEN: contributions that the machine counts */
    const linnet_hash *sum;         /* into OPENED */
    const linnet_device_id *barred; /* into VOID */
    bool is_stale;                  /* out: the round was not where the arrow starts */
} arrow;

static linnet_status put_object(linnet_store_txn *txn, const arrow *a, linnet_error *err)
{
    uint8_t number[8];
    linnet_status status = LINNET_OK;
    linnet_store_le64(number, a->round);
    linnet_record_id id = object_id(a->round, a->object);
    linnet_record_id by_t2 = linnet_record_bytes('m', a->hash.bytes, sizeof(a->hash.bytes));
    if (a->object != 0)
        status = linnet_store_put(txn, &id, a->bytes.bytes, a->bytes.n_bytes, err);
    if (status == LINNET_OK && a->entry == LINNET_ENTRY_SHARERS)
        status = linnet_store_put(txn, &by_t2, number, sizeof(number), err);
    if (status == LINNET_OK && a->entry != 0)
        status = linnet_transcript_append(txn, a->entry, a->round, &a->hash, err);
    return status;
}

static linnet_status put_void(linnet_store_txn *txn, const arrow *a, linnet_round_row *row, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    if (a->barred) {
        linnet_record_id id = linnet_record_round_device('y', a->round, a->barred);
        status = linnet_store_put(txn, &id, "\1", 1, err);
    }
    return status == LINNET_OK ? linnet_rounds_void(a->coordinator, txn, row, a->now_ms, err) : status;
}

static linnet_status put_opened(linnet_store_txn *txn, const arrow *a, linnet_round_row *row,
                                linnet_error *err)
{
    row->sum = *a->sum;
    linnet_status status = linnet_round_put(txn, row, err);
    if (status == LINNET_OK)
        status = linnet_shares_clear(txn, a->round, err);
    return status == LINNET_OK ? linnet_step_settle(a->coordinator, txn, a->now_ms, err) : status;
}

static linnet_status put_arrow(linnet_store_txn *txn, void *context, linnet_error *err)
{
    arrow *a = context;
    linnet_round_row row;
    linnet_status status = linnet_round_get(txn, a->round, &row, err);
    if (status != LINNET_OK)
        return status;
    a->is_stale = row.state != a->from;
    if (a->is_stale)
        return LINNET_OK;
    if (a->to == LINNET_ROUND_VOID)
        return put_void(txn, a, &row, err);
    if (a->from == LINNET_ROUND_SHARERS && row.accepted != a->n_masked)
        return linnet_fail(err, LINNET_ERR_INTERNAL, "round %llu counts %u contributions, its machine %u",
                           (unsigned long long)a->round, row.accepted, a->n_masked);
    row.state = a->to;
    row.deadline_ms = a->deadline_ms;
    if (a->to == LINNET_ROUND_OPENED)
        return put_opened(txn, a, &row, err);
    status = linnet_round_put(txn, &row, err);
    return status == LINNET_OK ? put_object(txn, a, err) : status;
}

/* Commit an arrow; where that fails the machine in memory is ahead of its rows and is made again from
 * them. */
static linnet_status take_arrow(arrow *a, linnet_error *err)
{
    linnet_coordinator *c = a->coordinator;
    linnet_status status = linnet_store_update(c->store, put_arrow, a, err);
    if (status != LINNET_OK || a->is_stale || a->to == LINNET_ROUND_VOID || a->to == LINNET_ROUND_OPENED)
        linnet_secure_forget(c, a->round);
    linnet_buffer_release(&a->bytes);
    if (status == LINNET_OK && !a->is_stale && (a->to == LINNET_ROUND_VOID || a->to == LINNET_ROUND_OPENED)) {
        linnet_store_tidy(c->store);
        linnet_spool_drop_round(c, a->round);
    }
    return status;
}

static int64_t phase_ms(const linnet_coordinator *c)
{
    return (int64_t)c->plan.phase_deadline_s * 1000;
}

static arrow arrow_of(linnet_coordinator *c, const linnet_round_row *row, linnet_round_state to,
                      int64_t now_ms)
{
    return (arrow){.coordinator = c,
                   .round = row->number,
                   .now_ms = now_ms,
                   .deadline_ms = now_ms + phase_ms(c),
                   .from = row->state,
                   .to = to};
}

static linnet_status give_up(linnet_coordinator *c, const linnet_round_row *row, int64_t now_ms,
                             const linnet_device_id *barred, const char *why, linnet_error *err)
{
    arrow a = arrow_of(c, row, LINNET_ROUND_VOID, now_ms);
    a.barred = barred;
    linnet_status status = take_arrow(&a, err);
    if (status == LINNET_OK && !a.is_stale)
        linnet_coordinator_say(c, 4, "round %llu void: %s", (unsigned long long)row->number, why);
    return status;
}

/* ---- what is due ---- */

typedef enum verdict { STAY, GO_ON, GIVE_UP } verdict;

/* Where enough are there, the roster waits for more, but only one phase; the deadline runs from the first
 * advert. */
static int64_t roster_due_ms(const linnet_coordinator *c, const linnet_round_row *row)
{
    int64_t first_ms = row->deadline_ms - (int64_t)c->plan.deadline_s * 1000;
    int64_t goal_ms = first_ms + phase_ms(c);
    return row->joined >= c->plan.goal && goal_ms < row->deadline_ms ? goal_ms : row->deadline_ms;
}

static verdict roster_verdict(const linnet_coordinator *c, const linnet_round_row *row, int64_t now_ms)
{
    if (row->joined == 0)
        return STAY;
    if (row->joined >= linnet_plan_join_max(&c->plan))
        return GO_ON;
    if (now_ms <= roster_due_ms(c, row))
        return STAY;
    return row->joined >= c->plan.minimum ? GO_ON : GIVE_UP;
}

static verdict phase_verdict(const linnet_round_row *row, uint32_t n, uint32_t n_all, uint32_t n_min,
                             int64_t now_ms)
{
    if (n == n_all)
        return GO_ON;
    if (now_ms <= row->deadline_ms)
        return STAY;
    return n >= n_min ? GO_ON : GIVE_UP;
}

static verdict verdict_of(const linnet_coordinator *c, const linnet_round_row *row,
                          const linnet_secagg_server *server, int64_t now_ms)
{
    linnet_secagg_server_counts n = linnet_secagg_server_count(server);
    /* who served no round while its deadline passed does not know who would have come; where the clock was
     * set back since, the deadline is one of after the start */
    if (row->deadline_ms != 0 && c->opened_ms > row->deadline_ms && now_ms >= c->opened_ms)
        return GIVE_UP;
    if (row->state == LINNET_ROUND_OPEN)
        return roster_verdict(c, row, now_ms);
    if (row->state == LINNET_ROUND_ROSTER)
        return phase_verdict(row, n.sharers, n.members, n.thresholds.sharers_min, now_ms);
    return phase_verdict(row, n.masked, n.sharers, n.thresholds.survivors_min, now_ms);
}

/* The next set is fixed: T1, T2 or T3. */
static linnet_status fix_set(linnet_coordinator *c, const linnet_round_row *row, linnet_secagg_server *server,
                             int64_t now_ms, linnet_error *err)
{
    arrow a = arrow_of(c, row, LINNET_ROUND_ROSTER, now_ms);
    linnet_status status;
    if (row->state == LINNET_ROUND_OPEN) {
        a.object = LINNET_PHASE_ROSTER;
        a.entry = LINNET_ENTRY_ROSTER;
        status = linnet_secagg_server_close_roster(server, err);
    } else if (row->state == LINNET_ROUND_ROSTER) {
        a.to = LINNET_ROUND_SHARERS;
        a.object = LINNET_PHASE_SHARERS;
        a.entry = LINNET_ENTRY_SHARERS;
        status = linnet_secagg_server_close_sharers(server, err);
    } else {
        a.to = LINNET_ROUND_FROZEN;
        a.object = LINNET_PHASE_SURVIVORS;
        a.entry = LINNET_ENTRY_SURVIVORS;
        a.n_masked = linnet_secagg_server_count(server).masked;
        status = linnet_secagg_server_freeze(server, err);
    }
    if (status == LINNET_OK)
        status = object_make(server, a.object, &a.bytes, err);
    if (status != LINNET_OK) {
        linnet_buffer_release(&a.bytes);
        linnet_secure_forget(c, row->number);
        return status;
    }
    a.hash = a.to == LINNET_ROUND_ROSTER    ? *linnet_secagg_server_t1(server)
             : a.to == LINNET_ROUND_SHARERS ? *linnet_secagg_server_t2(server)
                                            : *linnet_secagg_server_t3(server);
    return take_arrow(&a, err);
}

static linnet_status has_object(linnet_store_txn *txn, uint64_t round, uint8_t number, bool *ret_has,
                                linnet_error *err)
{
    const uint8_t *bytes;
    size_t n_bytes;
    linnet_record_id id = object_id(round, number);
    linnet_status status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    *ret_has = status == LINNET_OK;
    return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
}

static linnet_status certify(linnet_coordinator *c, const linnet_round_row *row, linnet_secagg_server *server,
                             int64_t now_ms, linnet_error *err)
{
    arrow a = arrow_of(c, row, LINNET_ROUND_FROZEN, now_ms);
    a.object = LINNET_PHASE_CERTIFICATE;
    linnet_status status = object_make(server, a.object, &a.bytes, err);
    if (status == LINNET_OK)
        return take_arrow(&a, err);
    linnet_buffer_release(&a.bytes);
    return status;
}

/* After a failed try: have those beyond the threshold doubled since, which bear twice as many liars, or are
 * these all that will come? So there are ten tries at most, and who can make the last one fail could have
 * made each fail. */
static bool is_worth_a_try(const linnet_secure_slot *slot, const linnet_secagg_server_counts *n, bool is_last)
{
    uint32_t t = n->thresholds.shares;
    return slot->n_failed == 0 ||
           (n->unmaskings > slot->n_failed &&
            (is_last || n->unmaskings == n->survivors || n->unmaskings - t >= 2 * (slot->n_failed - t)));
}

/* Rebuild the secrets once enough shares are there; the masks come off in the tick. */
static linnet_status try_open(linnet_coordinator *c, const linnet_round_row *row,
                              linnet_secagg_server *server, bool is_last, linnet_error *err)
{
    uint32_t n_wrong = 0;
    linnet_secagg_server_counts n = linnet_secagg_server_count(server);
    linnet_secure_slot *slot = slot_find(c, row->number);
    if (!slot || linnet_secagg_server_phase_of(server) == LINNET_SERVER_OPENED ||
        !is_worth_a_try(slot, &n, is_last) || !linnet_secagg_server_can_open(server))
        return LINNET_OK;
    linnet_error flaw = {0};
    linnet_status status = linnet_secagg_server_open(server, &n_wrong, &flaw);
    if (n_wrong > 0)
        linnet_coordinator_say(c, 4, "round %llu: %u members handed in wrong shares",
                               (unsigned long long)row->number, n_wrong);
    if (status == LINNET_ERR_CRYPTO || status == LINNET_ERR_AGAIN) {
        slot->n_failed = n.unmaskings;
        linnet_coordinator_say(c, 4, "round %llu does not open yet: %s", (unsigned long long)row->number,
                               flaw.message);
        return LINNET_OK;
    }
    return status == LINNET_OK ? LINNET_OK : linnet_fail(err, status, "%s", flaw.message);
}

/* Certificate, then secrets; both have a phase of time. ret_again: something was committed. */
static linnet_status advance_frozen(linnet_coordinator *c, const linnet_round_row *row,
                                    linnet_secagg_server *server, bool has_certificate, int64_t now_ms,
                                    bool *ret_again, linnet_error *err)
{
    linnet_secagg_server_counts n = linnet_secagg_server_count(server);
    *ret_again = !has_certificate && n.attestations >= n.thresholds.signatures;
    if (*ret_again)
        return certify(c, row, server, now_ms, err);
    bool is_last = now_ms > row->deadline_ms;
    linnet_status status = has_certificate ? try_open(c, row, server, is_last, err) : LINNET_OK;
    if (status != LINNET_OK || linnet_secagg_server_phase_of(server) == LINNET_SERVER_OPENED || !is_last)
        return status;
    return give_up(c, row, now_ms, NULL,
                   has_certificate ? "too few shares to open its sum" : "too few attestations", err);
}

/* The row, its machine, and whether there is a certificate. NOT_FOUND: not a round before OPENED. */
static linnet_status look(linnet_coordinator *c, uint64_t round, linnet_round_row *ret_row,
                          linnet_secagg_server **ret_server, bool *ret_has_certificate, linnet_error *err)
{
    linnet_store_txn *txn = NULL;
    linnet_status status = linnet_store_read_begin(c->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_round_get(txn, round, ret_row, err);
    if (status == LINNET_OK && (!linnet_round_is_live(ret_row) || ret_row->state == LINNET_ROUND_OPENED))
        status = LINNET_ERR_NOT_FOUND;
    if (status == LINNET_OK)
        status = has_object(txn, round, LINNET_PHASE_CERTIFICATE, ret_has_certificate, err);
    if (status == LINNET_OK)
        status = linnet_secure_server(c, txn, ret_row, ret_server, err);
    linnet_store_read_end(txn);
    return status;
}

linnet_status linnet_secure_advance(linnet_coordinator *c, uint64_t round, int64_t now_ms, linnet_error *err)
{
    for (;;) {
        linnet_round_row row;
        linnet_secagg_server *server;
        bool has_certificate, again = false;
        linnet_status status = look(c, round, &row, &server, &has_certificate, err);
        if (status != LINNET_OK)
            return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
        if (row.state == LINNET_ROUND_FROZEN) {
            status = advance_frozen(c, &row, server, has_certificate, now_ms, &again, err);
            if (status != LINNET_OK || !again)
                return status;
            continue;
        }
        verdict v = verdict_of(c, &row, server, now_ms);
        if (v == STAY)
            return LINNET_OK;
        status = v == GO_ON ? fix_set(c, &row, server, now_ms, err)
                            : give_up(c, &row, now_ms, NULL, "too few devices at its deadline", err);
        if (status != LINNET_OK || v == GIVE_UP)
            return status;
    }
}

linnet_status linnet_secure_give_up(linnet_coordinator *c, uint64_t round, const linnet_device_id *barred,
                                    int64_t now_ms, linnet_error *err)
{
    linnet_round_row row;
    linnet_secagg_server *server;
    bool has_certificate;
    linnet_secure_slot *slot = slot_find(c, round);
    linnet_status status = look(c, round, &row, &server, &has_certificate, err);
    if (status != LINNET_OK || (slot && slot->is_opening))
        return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
    return give_up(c, &row, now_ms, barred, "more complaints about a member than corrupt ones could file",
                   err);
}

/* ---- the sum ---- */

typedef struct unmasking {
    const linnet_secagg_server *server;
    uint32_t index;
    uint64_t length;
    uint32_t *sums;
    atomic_bool has_failed;
} unmasking;

static void unmask_chunks(void *context, size_t first, size_t last, unsigned thread)
{
    unmasking *u = context;
    (void)thread;
    for (size_t k = first; k < last; k++) {
        uint64_t at = (uint64_t)k * LINNET_PACK_CHUNK, left = u->length - at;
        size_t n = left < LINNET_PACK_CHUNK ? (size_t)left : LINNET_PACK_CHUNK;
        if (linnet_secagg_server_unmask(u->server, u->index, at, n, u->sums + at, NULL) != LINNET_OK)
            atomic_store(&u->has_failed, true);
    }
}

/* All masks off, chunk by chunk: no memory but the sums. */
static linnet_status unmask(const linnet_secagg_server *server, linnet_fold *fold, linnet_error *err)
{
    uint32_t *sums = fold->sums;
    linnet_thread_pool *pool = NULL;
    linnet_status status = LINNET_OK;
    if (fold->n_sums >= (size_t)POOL_CHUNKS_MIN * LINNET_PACK_CHUNK)
        status = linnet_thread_pool_create(0, &pool, err);
    for (size_t i = 0; i < fold->n_specs && status == LINNET_OK; i++) {
        unmasking u = {.server = server, .index = (uint32_t)i, .length = fold->specs[i].length, .sums = sums};
        size_t n_chunks = (size_t)((u.length + LINNET_PACK_CHUNK - 1) / LINNET_PACK_CHUNK);
        linnet_thread_pool_run(pool, n_chunks, 1, unmask_chunks, &u);
        if (atomic_load(&u.has_failed))
            status = linnet_fail(err, LINNET_ERR_INTERNAL, "vector %zu has other masks than it was sent", i);
        sums += u.length;
    }
    linnet_thread_pool_destroy(pool);
    return status;
}

static linnet_status sum_make(linnet_coordinator *c, const linnet_round_row *row,
                              const linnet_secagg_server *server, linnet_hash *ret_sum, linnet_error *err)
{
    linnet_fold fold = {0};
    linnet_status status = linnet_fold_spool(c, row, &fold, err);
    if (status == LINNET_OK)
        status = unmask(server, &fold, err);
    if (status == LINNET_OK)
        status = linnet_sum_write(c, &fold, ret_sum, err);
    linnet_fold_release(&fold);
    return status;
}

/* From a frozen round whose secrets are known to OPENED, or to VOID where its sum cannot be one. */
static linnet_status open_sum(linnet_coordinator *c, const linnet_round_row *row, linnet_secure_slot *slot,
                              int64_t now_ms, linnet_error *err)
{
    linnet_hash sum;
    linnet_error flaw = {0};
    slot->is_opening = true;
    (void)pthread_mutex_unlock(&c->secure_lock);
    linnet_status status = sum_make(c, row, slot->server, &sum, &flaw);
    (void)pthread_mutex_lock(&c->secure_lock);
    slot->is_opening = false;
    if (status == LINNET_ERR_RANGE)
        return give_up(c, row, now_ms, NULL, flaw.message, err);
    if (status != LINNET_OK)
        return linnet_fail(err, status, "%s", flaw.message);
    arrow a = arrow_of(c, row, LINNET_ROUND_OPENED, now_ms);
    a.deadline_ms = 0;
    a.sum = &sum;
    status = take_arrow(&a, err);
    if (status == LINNET_OK && !a.is_stale)
        linnet_coordinator_say(c, 6, "round %llu opened: %u contributions", (unsigned long long)row->number,
                               row->accepted);
    return status;
}

/* ---- the tick ---- */

static linnet_status tick_round(linnet_coordinator *c, uint64_t round, int64_t now_ms, int64_t *next_ms,
                                linnet_error *err)
{
    linnet_round_row row;
    linnet_secagg_server *server;
    bool has_certificate;
    linnet_status status = linnet_secure_advance(c, round, now_ms, err);
    if (status == LINNET_OK)
        status = look(c, round, &row, &server, &has_certificate, err);
    if (status != LINNET_OK)
        return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
    if (row.state == LINNET_ROUND_FROZEN && linnet_secagg_server_phase_of(server) == LINNET_SERVER_OPENED)
        return open_sum(c, &row, slot_find(c, round), now_ms, err);
    int64_t due_ms = row.state == LINNET_ROUND_OPEN ? roster_due_ms(c, &row) : row.deadline_ms;
    if (row.deadline_ms != 0 && due_ms < *next_ms)
        *next_ms = due_ms + 1;
    return LINNET_OK;
}

static linnet_status step_now(linnet_coordinator *c, linnet_step *ret_step,
                              linnet_round_row rows[LINNET_COHORTS_MAX], size_t *ret_n_opened,
                              linnet_error *err)
{
    linnet_store_txn *txn = NULL;
    linnet_status status = linnet_store_read_begin(c->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_step_read(txn, ret_step, err);
    if (status == LINNET_OK)
        status = linnet_step_opened(txn, rows, ret_n_opened, err);
    linnet_store_read_end(txn);
    return status;
}

linnet_status linnet_secure_tick(linnet_coordinator *c, int64_t now_ms, int64_t *next_ms, linnet_error *err)
{
    linnet_step step;
    linnet_round_row rows[LINNET_COHORTS_MAX];
    size_t n_opened = 0;
    linnet_status status = step_now(c, &step, rows, &n_opened, err);
    (void)pthread_mutex_lock(&c->secure_lock);
    for (size_t i = 0; status == LINNET_OK && i < step.n; i++)
        status = tick_round(c, step.rounds[i], now_ms, next_ms, err);
    (void)pthread_mutex_unlock(&c->secure_lock);
    if (status == LINNET_OK)
        status = step_now(c, &step, rows, &n_opened, err);
    if (status == LINNET_OK && n_opened > 0)
        status = linnet_publish_step(c, rows, n_opened, now_ms, err);
    return status;
}

/* ---- start ---- */

typedef struct begin_job {
    linnet_coordinator *coordinator;
    int64_t now_ms;
    linnet_store_txn *txn;
    uint64_t live[LINNET_COHORTS_MAX], opened[LINNET_COHORTS_MAX]; /* out */
    size_t n_live, n_opened;
    linnet_buffer stale; /* owned: tables and rounds whose shares are of no use any more */
    char table;
} begin_job;

static bool is_listed(const uint64_t *list, size_t n, uint64_t round)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] == round)
            return true;
    return false;
}

static linnet_status list_stale(void *context, const uint8_t *fields, size_t n_fields, const uint8_t *bytes,
                                size_t n_bytes, linnet_error *err)
{
    begin_job *job = context;
    (void)bytes;
    (void)n_bytes;
    uint64_t round = n_fields >= 8 ? linnet_load_be64(fields) : 0;
    size_t n = job->stale.n_bytes;
    bool is_known = n >= 8 && linnet_load_le64(job->stale.bytes + n - 8) == round;
    if (!is_known && !is_listed(job->live, job->n_live, round))
        linnet_buffer_append_le64(&job->stale, round);
    return job->stale.failed ? linnet_fail(err, LINNET_ERR_NOMEM, "sweep") : LINNET_OK;
}

/* Shares whose round is over: a kill came between, or the state is an old backup. */
static linnet_status sweep_shares(linnet_store_txn *txn, begin_job *job, linnet_error *err)
{
    static const char tables[] = {'p', 'u'};
    linnet_status status = LINNET_OK;
    linnet_buffer_clear(&job->stale);
    for (size_t i = 0; i < ARRAY_LEN(tables) && status == LINNET_OK; i++) {
        linnet_record_id prefix = linnet_record_of(tables[i]);
        status = linnet_store_each(txn, &prefix, list_stale, job, err);
    }
    for (size_t at = 0; status == LINNET_OK && at < job->stale.n_bytes; at += 8)
        status = linnet_shares_clear(txn, linnet_load_le64(job->stale.bytes + at), err);
    return status;
}

/* A frozen round goes on with the same T3, and gets a phase of time again. */
static linnet_status begin(linnet_store_txn *txn, void *context, linnet_error *err)
{
    begin_job *job = context;
    linnet_step step;
    job->n_live = job->n_opened = 0;
    linnet_status status = linnet_step_read(txn, &step, err);
    for (size_t i = 0; status == LINNET_OK && i < step.n; i++) {
        linnet_round_row row;
        status = linnet_round_get(txn, step.rounds[i], &row, err);
        if (status != LINNET_OK || !linnet_round_is_live(&row))
            continue;
        if (row.state == LINNET_ROUND_OPENED)
            job->opened[job->n_opened++] = row.number;
        else
            job->live[job->n_live++] = row.number;
        if (row.state == LINNET_ROUND_FROZEN) {
            row.deadline_ms = job->now_ms + phase_ms(job->coordinator);
            status = linnet_round_put(txn, &row, err);
        }
    }
    return status == LINNET_OK ? sweep_shares(txn, job, err) : status;
}

linnet_status linnet_secure_begin(linnet_coordinator *c, int64_t now_ms, linnet_error *err)
{
    begin_job job = {.coordinator = c, .now_ms = now_ms};
    linnet_status status = linnet_store_update(c->store, begin, &job, err);
    linnet_buffer_release(&job.stale);
    if (status != LINNET_OK)
        return status;
    linnet_spool_sweep(c, job.live, job.n_live);
    linnet_sum_sweep(c, job.opened, job.n_opened);
    return LINNET_OK;
}
