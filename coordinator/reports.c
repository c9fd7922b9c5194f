/* SPDX-License-Identifier: Apache-2.0 */
/* What the store knows, for people, audits and the simulator: read transactions only, so that a report beside
 * a serving process disturbs nobody. Pause is here too: one flag in the store. */
#include "outcome.h"
#include "state.h"

#include <stdlib.h>

/* ---- status ---- */

typedef struct counts {
    uint64_t n_devices, n_revoked, n_invites;
    uint64_t now_s;
} counts;

static linnet_status count_device(void *context, const uint8_t *fields, size_t n_fields, const uint8_t *bytes,
                                  size_t n_bytes, linnet_error *err)
{
    counts *c = context;
    linnet_device_row row;
    (void)fields;
    (void)n_fields;
    if (linnet_device_row_unpack(bytes, n_bytes, &row) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_FORMAT,
                           "store: the row of a device is damaged; restore the state from a backup");
    c->n_devices++;
    c->n_revoked += row.is_revoked;
    return LINNET_OK;
}

static linnet_status count_invite(void *context, const uint8_t *fields, size_t n_fields, const uint8_t *bytes,
                                  size_t n_bytes, linnet_error *err)
{
    counts *c = context;
    linnet_token_row row;
    (void)fields;
    (void)n_fields;
    if (linnet_token_row_unpack(bytes, n_bytes, &row) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_FORMAT,
                           "store: the row of an invite is damaged; restore the state from a backup");
    c->n_invites += !row.is_used && row.expires_s >= c->now_s;
    return LINNET_OK;
}

/* With several cohorts a step has several rounds at once. */
static linnet_status step_count(linnet_coordinator *c, linnet_store_txn *txn, const linnet_round_row *newest,
                                linnet_coordinator_report *report, linnet_error *err)
{
    linnet_step step = {.n = 1, .rounds = {newest->number}};
    linnet_status status = LINNET_OK;
    if (linnet_profile_is_secure(c->plan.profile))
        status = linnet_step_read(txn, &step, err);
    for (size_t i = 0; i < step.n && status == LINNET_OK; i++) {
        linnet_round_row row;
        status = linnet_round_get(txn, step.rounds[i], &row, err);
        if (status != LINNET_OK || row.state == LINNET_ROUND_VOID)
            continue;
        report->joined += row.joined;
        report->sharers += row.sharers;
        report->accepted += row.accepted;
    }
    return status;
}

static linnet_status status_read(linnet_coordinator *c, linnet_store_txn *txn,
                                 linnet_coordinator_report *report, linnet_error *err)
{
    counts n = {.now_s = (uint64_t)(c->opened_ms / 1000)};
    linnet_record_id devices = linnet_record_of('d'), tokens = linnet_record_of('t');
    linnet_round_row round = {0};
    linnet_release_row release = {0};
    uint64_t paused = 0;
    linnet_status status = linnet_store_each(txn, &devices, count_device, &n, err);
    if (status == LINNET_OK)
        status = linnet_store_each(txn, &tokens, count_invite, &n, err);
    if (status == LINNET_OK)
        status = linnet_config_get_u64(txn, "paused", &paused, err);
    if (status == LINNET_OK)
        status = linnet_config_get_u64(txn, "version", &report->version, err);
    if (status == LINNET_OK)
        status = linnet_release_get(txn, report->version, &release, err);
    if (status == LINNET_OK)
        status = linnet_rounds_newest(txn, &round, err);
    report->n_devices = n.n_devices;
    report->n_revoked = n.n_revoked;
    report->n_invites_open = n.n_invites;
    report->is_paused = paused != 0;
    report->is_finished = release.is_final;
    report->adapter = release.adapter;
    report->round = round.number;
    report->round_state = linnet_round_state_name(round.state);
    return status == LINNET_OK ? step_count(c, txn, &round, report, err) : status;
}

linnet_status linnet_coordinator_status(linnet_coordinator *c, linnet_coordinator_report *ret_report,
                                        linnet_error *err)
{
    linnet_store_txn *txn = NULL;
    linnet_coordinator_report report = {.operator_is_authority = c->authority != NULL,
                                        .profile = c->plan.profile,
                                        .goal = c->plan.goal,
                                        .minimum = c->plan.minimum,
                                        .coordinator = *linnet_identity_public_key(c->identity),
                                        .authority = c->authority_key,
                                        .base_model = c->base_model,
                                        .plan = c->plan_hash};
    memcpy(report.task, c->task, sizeof(report.task));
    memcpy(report.name, c->plan.name, sizeof(report.name));
    linnet_status status = linnet_store_read_begin(c->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = status_read(c, txn, &report, err);
    linnet_store_read_end(txn);
    if (status == LINNET_OK)
        *ret_report = report;
    return status;
}

/* ---- lists: a growing array, filled by a walk ---- */

typedef struct list {
    uint8_t *items; /* owned */
    size_t n_items, capacity, item_bytes;
} list;

static linnet_status list_add(list *l, const void *item, linnet_error *err)
{
    if (l->n_items == l->capacity) {
        size_t capacity = l->capacity ? 2 * l->capacity : 16;
        uint8_t *items = realloc(l->items, capacity * l->item_bytes);
        if (!items)
            return linnet_fail(err, LINNET_ERR_NOMEM, "report");
        l->items = items;
        l->capacity = capacity;
    }
    memcpy(l->items + l->n_items++ * l->item_bytes, item, l->item_bytes);
    return LINNET_OK;
}

static linnet_status list_read(linnet_coordinator *c, const linnet_record_id *prefix,
                               linnet_store_each_fn *fn, list *l, linnet_error *err)
{
    linnet_store_txn *txn = NULL;
    linnet_status status = linnet_store_read_begin(c->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_store_each(txn, prefix, fn, l, err);
    linnet_store_read_end(txn);
    if (status != LINNET_OK)
        free(l->items);
    return status;
}

static linnet_status add_round(void *context, const uint8_t *fields, size_t n_fields, const uint8_t *bytes,
                               size_t n_bytes, linnet_error *err)
{
    linnet_round_row row;
    (void)fields;
    (void)n_fields;
    if (linnet_round_row_unpack(bytes, n_bytes, &row) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_FORMAT,
                           "store: the row of a round is damaged; restore the state from a backup");
    bool is_over = linnet_round_has_release(&row) || row.state == LINNET_ROUND_VOID;
    linnet_round_report report = {.round = row.number,
                                  .version = row.version,
                                  .state = linnet_round_state_name(row.state),
                                  .invited = row.invited,
                                  .joined = row.joined,
                                  .accepted = row.accepted,
                                  .sharers = row.sharers,
                                  .aborts = row.aborts,
                                  .dropped = is_over ? row.joined - row.accepted : 0,
                                  .has_loss_before = row.has_loss_before,
                                  .has_loss_after = row.has_loss_after,
                                  .loss_before = row.loss_before,
                                  .loss_after = row.loss_after,
                                  .bytes_up = row.bytes_up,
                                  .bytes_down = row.bytes_down,
                                  .adapter = row.adapter,
                                  .opened_ms = row.opened_ms,
                                  .closed_ms = row.closed_ms};
    return list_add(context, &report, err);
}

/* What combining came to, for those that were combined. */
static linnet_status add_outcomes(linnet_coordinator *c, linnet_round_report *rounds, size_t n_rounds,
                                  linnet_error *err)
{
    linnet_store_txn *txn = NULL;
    linnet_status status = linnet_store_read_begin(c->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    for (size_t i = 0; i < n_rounds && status == LINNET_OK; i++) {
        linnet_outcome_row row;
        status = linnet_outcome_get(txn, rounds[i].round, &row, err);
        if (status == LINNET_OK) {
            rounds[i].has_outcome = true;
            rounds[i].step_norm = row.norm;
            rounds[i].has_gate = row.has_gate;
            rounds[i].gate_loss_before = row.gate_loss_before;
            rounds[i].gate_loss_after = row.gate_loss_after;
            linnet_outcome_row_release(&row);
        }
        status = status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
    }
    linnet_store_read_end(txn);
    return status;
}

linnet_status linnet_coordinator_influence(linnet_coordinator *c, uint64_t round, linnet_influence **ret_list,
                                           size_t *ret_n, linnet_error *err)
{
    linnet_store_txn *txn = NULL;
    linnet_outcome_row row = {0};
    linnet_status status = linnet_store_read_begin(c->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_outcome_get(txn, round, &row, err);
    linnet_store_read_end(txn);
    if (status != LINNET_OK && status != LINNET_ERR_NOT_FOUND)
        return status;
    *ret_list = row.parts; /* ownership moves to the caller */
    *ret_n = row.n_parts;
    return LINNET_OK;
}

linnet_status linnet_coordinator_rounds(linnet_coordinator *c, linnet_round_report **ret_rounds,
                                        size_t *ret_n, linnet_error *err)
{
    list rounds = {.item_bytes = sizeof(linnet_round_report)};
    linnet_record_id prefix = linnet_record_of('o');
    linnet_status status = list_read(c, &prefix, add_round, &rounds, err);
    if (status != LINNET_OK)
        return status;
    status = add_outcomes(c, (linnet_round_report *)(void *)rounds.items, rounds.n_items, err);
    if (status != LINNET_OK) {
        free(rounds.items);
        return status;
    }
    *ret_rounds = (linnet_round_report *)(void *)rounds.items;
    *ret_n = rounds.n_items;
    return LINNET_OK;
}

static linnet_status add_contribution(void *context, const uint8_t *fields, size_t n_fields,
                                      const uint8_t *bytes, size_t n_bytes, linnet_error *err)
{
    linnet_contribution_row row;
    linnet_contribution_report report = {0};
    if (n_fields != sizeof(report.device_id.bytes) ||
        linnet_contribution_row_unpack(bytes, n_bytes, &row) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_FORMAT,
                           "store: the row of a contribution is damaged; restore the state from a backup");
    memcpy(report.device_id.bytes, fields, n_fields);
    report.echo = row.echo;
    report.sequence = row.sequence;
    return list_add(context, &report, err);
}

static int by_sequence(const void *a, const void *b)
{
    const linnet_contribution_report *x = a, *y = b;
    return x->sequence < y->sequence ? -1 : x->sequence > y->sequence;
}

linnet_status linnet_coordinator_contributions(linnet_coordinator *c, uint64_t round,
                                               linnet_contribution_report **ret_list, size_t *ret_n,
                                               linnet_error *err)
{
    list found = {.item_bytes = sizeof(linnet_contribution_report)};
    linnet_record_id prefix = linnet_record_number('b', round);
    linnet_status status = list_read(c, &prefix, add_contribution, &found, err);
    if (status != LINNET_OK)
        return status;
    if (found.n_items > 0)
        qsort(found.items, found.n_items, found.item_bytes, by_sequence);
    *ret_list = (linnet_contribution_report *)(void *)found.items;
    *ret_n = found.n_items;
    return LINNET_OK;
}

/* ---- adapters ---- */

/* The adapter's hash of a round's result, of the first release, or of the newest. */
static linnet_status adapter_find(linnet_store_txn *txn, uint64_t round, linnet_hash *ret_hash,
                                  linnet_error *err)
{
    linnet_round_row row;
    linnet_release_row release;
    uint64_t version = 0;
    linnet_status status = LINNET_OK;
    if (round != 0 && round != UINT64_MAX) {
        status = linnet_round_get(txn, round, &row, err);
        if (status == LINNET_ERR_NOT_FOUND || (status == LINNET_OK && !linnet_round_has_release(&row)))
            return linnet_fail(
                err, LINNET_ERR_NOT_FOUND,
                "round %llu led to no adapter; 'linnet-coordinator rounds' lists those that did",
                (unsigned long long)round);
        if (status == LINNET_OK)
            *ret_hash = row.adapter;
        return status;
    }
    if (round == UINT64_MAX)
        status = linnet_config_get_u64(txn, "version", &version, err);
    if (status == LINNET_OK)
        status = linnet_release_get(txn, version, &release, err);
    if (status == LINNET_OK)
        *ret_hash = release.adapter;
    return status;
}

linnet_status linnet_coordinator_adapter(linnet_coordinator *c, uint64_t round, linnet_adapter **ret_adapter,
                                         linnet_error *err)
{
    linnet_store_txn *txn = NULL;
    linnet_hash hash;
    linnet_status status = linnet_store_read_begin(c->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = adapter_find(txn, round, &hash, err);
    linnet_store_read_end(txn);
    return status == LINNET_OK ? linnet_object_load_adapter(c, &hash, ret_adapter, err) : status;
}

/* ---- pause ---- */

static linnet_status put_pause(linnet_store_txn *txn, void *context, linnet_error *err)
{
    const bool *pause = context;
    return linnet_config_put_u64(txn, "paused", *pause ? 1 : 0, err);
}

linnet_status linnet_coordinator_pause(linnet_coordinator *c, bool pause, linnet_error *err)
{
    return linnet_store_update(c->store, put_pause, &pause, err);
}
