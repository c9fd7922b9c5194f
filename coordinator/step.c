/* SPDX-License-Identifier: Apache-2.0 */
/* One step of the adapter with secure aggregation takes one round, or with several cohorts as many rounds
 * side by side, all on one release, each with an announcement, a roster and a sum of its own. Which cohort a
 * ready device comes to is the coordinator's coin (SECURE-AGGREGATION 5: against poisoning, no promise of
 * privacy rests on it). A step is published once every round is opened or void and more than half are opened;
 * otherwise new rounds open for the void ones. Devices take announcements with rising numbers only, so who
 * was invited to a round is later invited to a higher one or not at all. */
#include "privacy_ledger.h"
#include "state.h"

#define STEP_ROW_BYTES 16 /* round, and the void one it stands for */

linnet_status linnet_step_read(linnet_store_txn *txn, linnet_step *ret_step, linnet_error *err)
{
    linnet_buffer bytes = {0};
    linnet_step step = {0};
    linnet_status status = linnet_config_get(txn, "step", &bytes, err);
    if (status == LINNET_OK &&
        (bytes.n_bytes % STEP_ROW_BYTES != 0 || bytes.n_bytes > LINNET_COHORTS_MAX * STEP_ROW_BYTES))
        status = linnet_fail(err, LINNET_ERR_FORMAT,
                             "store: the list of rounds is damaged; restore the state from a backup");
    if (status == LINNET_OK) {
        step.n = bytes.n_bytes / STEP_ROW_BYTES;
        for (size_t i = 0; i < step.n; i++) {
            step.rounds[i] = linnet_load_le64(bytes.bytes + STEP_ROW_BYTES * i);
            step.previous[i] = linnet_load_le64(bytes.bytes + STEP_ROW_BYTES * i + 8);
        }
        *ret_step = step;
    }
    linnet_buffer_release(&bytes);
    return status;
}

static linnet_status step_put(linnet_store_txn *txn, const linnet_step *step, linnet_error *err)
{
    uint8_t bytes[LINNET_COHORTS_MAX * STEP_ROW_BYTES];
    for (size_t i = 0; i < step->n; i++) {
        linnet_store_le64(bytes + STEP_ROW_BYTES * i, step->rounds[i]);
        linnet_store_le64(bytes + STEP_ROW_BYTES * i + 8, step->previous[i]);
    }
    return linnet_config_put(txn, "step", bytes, step->n * STEP_ROW_BYTES, err);
}

/* ---- opening and ending ---- */

linnet_status linnet_step_open(linnet_coordinator *c, linnet_store_txn *txn, uint64_t version,
                               const linnet_hash *release, int64_t now_ms, linnet_error *err)
{
    linnet_step step = {.n = c->plan.cohorts < LINNET_COHORTS_MAX ? c->plan.cohorts : LINNET_COHORTS_MAX};
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < step.n && status == LINNET_OK; i++)
        status = linnet_rounds_open_one(c, txn, version, release, now_ms, &step.rounds[i], err);
    return status == LINNET_OK ? step_put(txn, &step, err) : status;
}

/* A new round for the cohort whose round is void. */
static linnet_status open_for(linnet_coordinator *c, linnet_store_txn *txn, linnet_step *step, size_t i,
                              const linnet_round_row *row, int64_t now_ms, linnet_error *err)
{
    step->previous[i] = step->rounds[i];
    return linnet_rounds_open_one(c, txn, row->version, &row->release, now_ms, &step->rounds[i], err);
}

static linnet_status rows_read(linnet_store_txn *txn, const linnet_step *step,
                               linnet_round_row rows[LINNET_COHORTS_MAX], linnet_error *err)
{
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < step->n && status == LINNET_OK; i++)
        status = linnet_round_get(txn, step->rounds[i], &rows[i], err);
    return status;
}

static size_t count_state(const linnet_round_row *rows, size_t n, linnet_round_state state)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += rows[i].state == state;
    return count;
}

linnet_status linnet_step_settle(linnet_coordinator *c, linnet_store_txn *txn, int64_t now_ms,
                                 linnet_error *err)
{
    linnet_step step;
    linnet_round_row rows[LINNET_COHORTS_MAX];
    linnet_status status = linnet_step_read(txn, &step, err);
    if (status == LINNET_OK)
        status = rows_read(txn, &step, rows, err);
    if (status != LINNET_OK)
        return status;
    size_t n_opened = count_state(rows, step.n, LINNET_ROUND_OPENED);
    size_t n_void = count_state(rows, step.n, LINNET_ROUND_VOID);
    if (n_void == 0 || n_opened + n_void < step.n || 2 * n_opened > step.n)
        return LINNET_OK;
    for (size_t i = 0; i < step.n && status == LINNET_OK; i++)
        if (rows[i].state == LINNET_ROUND_VOID)
            status = open_for(c, txn, &step, i, &rows[i], now_ms, err);
    return status == LINNET_OK ? step_put(txn, &step, err) : status;
}

linnet_status linnet_step_open_again(linnet_coordinator *c, linnet_store_txn *txn, linnet_error *err)
{
    linnet_step step;
    linnet_round_row rows[LINNET_COHORTS_MAX];
    linnet_status status = linnet_step_read(txn, &step, err);
    if (status == LINNET_OK)
        status = rows_read(txn, &step, rows, err);
    for (size_t i = 0; status == LINNET_OK && i < step.n; i++) {
        linnet_round_row *row = &rows[i];
        int64_t now_ms = row->opened_ms > c->opened_ms ? row->opened_ms : c->opened_ms;
        if (row->state != LINNET_ROUND_OPEN)
            continue;
        status = linnet_rounds_void_one(c, txn, row, now_ms, err);
        if (status == LINNET_OK)
            status = open_for(c, txn, &step, i, row, now_ms, err);
    }
    return status == LINNET_OK ? step_put(txn, &step, err) : status;
}

linnet_status linnet_step_opened(linnet_store_txn *txn, linnet_round_row ret_rows[LINNET_COHORTS_MAX],
                                 size_t *ret_n, linnet_error *err)
{
    linnet_step step;
    linnet_round_row rows[LINNET_COHORTS_MAX];
    size_t n = 0;
    linnet_status status = linnet_step_read(txn, &step, err);
    if (status == LINNET_OK)
        status = rows_read(txn, &step, rows, err);
    if (status != LINNET_OK)
        return status;
    size_t n_opened = count_state(rows, step.n, LINNET_ROUND_OPENED);
    if (2 * n_opened > step.n && n_opened + count_state(rows, step.n, LINNET_ROUND_VOID) == step.n)
        for (size_t i = 0; i < step.n; i++)
            if (rows[i].state == LINNET_ROUND_OPENED)
                ret_rows[n++] = rows[i];
    *ret_n = n;
    return LINNET_OK;
}

/* ---- invitations ---- */

static bool takes_members(const linnet_coordinator *c, const linnet_round_row *row, int64_t now_ms)
{
    return row->state == LINNET_ROUND_OPEN && row->joined < linnet_plan_join_max(&c->plan) &&
           (row->deadline_ms == 0 || now_ms <= row->deadline_ms);
}

/* Where a device stands among the rounds of a step. */
typedef struct standing {
    bool is_member;                  /* of a round that is not void: it contributes once a step */
    uint64_t last_invited;           /* number; 0: none */
    size_t at;                       /* of that round in the step */
    bool barred[LINNET_COHORTS_MAX]; /* left out after complaints about it */
} standing;

static linnet_status standing_read(linnet_store_txn *txn, const linnet_step *step,
                                   const linnet_round_row *rows, const linnet_device_id *device, standing *s,
                                   linnet_error *err)
{
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < step->n && status == LINNET_OK; i++) {
        bool is_member = false, is_invited = false;
        status = linnet_row_exists(txn, 'j', step->rounds[i], device, &is_member, err);
        if (status == LINNET_OK)
            status = linnet_row_exists(txn, 'i', step->rounds[i], device, &is_invited, err);
        if (status == LINNET_OK)
            status = linnet_row_exists(txn, 'y', step->previous[i], device, &s->barred[i], err);
        s->is_member = s->is_member || (is_member && rows[i].state != LINNET_ROUND_VOID);
        if (is_invited && step->rounds[i] > s->last_invited) {
            s->last_invited = step->rounds[i];
            s->at = i;
        }
    }
    return status;
}

/* One of the rounds that still take members and that the device would take, or n. The coins choose among
 * those with the fewest invitations, so that cohorts fill evenly. */
static size_t draw(const linnet_coordinator *c, const linnet_step *step, const linnet_round_row *rows,
                   const standing *s, uint64_t coins, int64_t now_ms)
{
    size_t open[LINNET_COHORTS_MAX], n = 0;
    for (size_t i = 0; i < step->n; i++) {
        if (!takes_members(c, &rows[i], now_ms) || rows[i].number <= s->last_invited || s->barred[i])
            continue;
        if (n > 0 && rows[i].invited < rows[open[0]].invited)
            n = 0;
        if (n == 0 || rows[i].invited == rows[open[0]].invited)
            open[n++] = i;
    }
    return n == 0 ? step->n : open[coins % n];
}

static linnet_status mark_invited(linnet_store_txn *txn, linnet_round_row *row,
                                  const linnet_device_id *device, int64_t now_ms, linnet_error *err)
{
    uint8_t bytes[8];
    linnet_store_le64(bytes, (uint64_t)now_ms);
    linnet_record_id id = linnet_record_round_device('i', row->number, device);
    linnet_status status = linnet_store_put(txn, &id, bytes, sizeof(bytes), err);
    row->invited++;
    return status == LINNET_OK ? linnet_round_put(txn, row, err) : status;
}

linnet_status linnet_step_invite(linnet_coordinator *c, linnet_store_txn *txn, const linnet_device_id *device,
                                 uint64_t coins, int64_t now_ms, bool may_write,
                                 linnet_invitation *ret_invitation, linnet_error *err)
{
    linnet_step step;
    linnet_round_row rows[LINNET_COHORTS_MAX];
    standing s = {0};
    uint64_t paused = 0;
    linnet_invitation invitation = {0};
    linnet_status status = linnet_config_get_u64(txn, "paused", &paused, err);
    if (status == LINNET_OK)
        status = linnet_step_read(txn, &step, err);
    if (status == LINNET_OK)
        status = rows_read(txn, &step, rows, err);
    if (status == LINNET_OK)
        status = standing_read(txn, &step, rows, device, &s, err);
    if (status != LINNET_OK)
        return status;
    bool again = s.last_invited != 0 && takes_members(c, &rows[s.at], now_ms);
    size_t at = again ? s.at : draw(c, &step, rows, &s, coins, now_ms);
    if (!paused && !s.is_member && at < step.n) {
        invitation.must_write = !again;
        if (!again && may_write)
            status = mark_invited(txn, &rows[at], device, now_ms, err);
        invitation.round = rows[at];
    }
    *ret_invitation = invitation;
    return status;
}
