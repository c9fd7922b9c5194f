/* SPDX-License-Identifier: Apache-2.0 */
/* What the task has spent of its privacy (SECURE-AGGREGATION 3.4): a row for every round with noise that is
 * over, entered in the transaction that ends it, so that no restart forgets one. This is the coordinator's
 * own count of its task; a device counts over all its tasks, and refuses by its own. */
#include "privacy_ledger.h"

#include "linnet/audit.h"

#define OBJECT_SHARERS 4 /* of the chain objects: signature of T2 and bitmap */

void linnet_ledger_row_pack(const linnet_ledger_row *row, linnet_buffer *bytes)
{
    linnet_buffer_append_u8(bytes, row->mechanism);
    linnet_buffer_append_u8(bytes, row->unit);
    linnet_buffer_append_u8(bytes, row->is_void);
    linnet_buffer_append_u8(bytes, row->is_counted);
    linnet_buffer_append_le32(bytes, row->n_steps);
    linnet_buffer_append_f64(bytes, row->noise_multiplier);
    linnet_buffer_append_f64(bytes, row->probability);
}

linnet_status linnet_ledger_row_unpack(const void *bytes, size_t n_bytes, linnet_ledger_row *ret_row)
{
    linnet_reader reader = linnet_reader_of(bytes, n_bytes);
    linnet_ledger_row row = {0};
    row.mechanism = linnet_reader_u8(&reader);
    row.unit = linnet_reader_u8(&reader);
    uint8_t is_void = linnet_reader_u8(&reader), is_counted = linnet_reader_u8(&reader);
    row.n_steps = linnet_reader_le32(&reader);
    row.noise_multiplier = linnet_reader_f64(&reader);
    row.probability = linnet_reader_f64(&reader);
    if (!linnet_reader_is_done(&reader) || is_void > 1 || is_counted > 1 || row.mechanism < 1 ||
        row.mechanism > LINNET_DP_CENTRAL || row.unit < 1 || row.unit > LINNET_DP_UNIT_RECORD ||
        !(row.noise_multiplier > 0 && row.noise_multiplier < 1e9) ||
        !(row.probability >= 0 && row.probability <= 1))
        return LINNET_ERR_FORMAT;
    row.is_void = is_void == 1;
    row.is_counted = is_counted == 1;
    *ret_row = row;
    return LINNET_OK;
}

/* Did the members learn T2, so that masked vectors may have left? */
static linnet_status has_sharers(linnet_store_txn *txn, uint64_t round, bool *ret_has, linnet_error *err)
{
    const uint8_t *bytes, object = OBJECT_SHARERS;
    size_t n_bytes;
    linnet_record_id id = linnet_record_number('q', round);
    linnet_record_add(&id, &object, 1);
    linnet_status status = linnet_store_get(txn, &id, &bytes, &n_bytes, err);
    if (status != LINNET_OK && status != LINNET_ERR_NOT_FOUND)
        return status;
    *ret_has = status == LINNET_OK;
    return LINNET_OK;
}

linnet_status linnet_privacy_ledger_add(const linnet_coordinator *c, linnet_store_txn *txn,
                                        const linnet_round_row *round, linnet_error *err)
{
    linnet_privacy privacy;
    linnet_buffer bytes = {0};
    linnet_ledger_row row = {.is_void = round->state == LINNET_ROUND_VOID, .is_counted = true};
    linnet_record_id id = linnet_record_number('e', round->number);
    if (c->plan.mechanism == LINNET_DP_NONE)
        return LINNET_OK;
    linnet_status status = linnet_plan_privacy(&c->plan, c->layout, round->version, &privacy, err);
    if (status == LINNET_OK && row.is_void)
        status = has_sharers(txn, round->number, &row.is_counted, err);
    if (status != LINNET_OK)
        return status;
    row.mechanism = (uint8_t)privacy.mechanism;
    row.unit = (uint8_t)privacy.unit;
    row.n_steps = privacy.n_steps;
    row.noise_multiplier = privacy.noise_multiplier;
    row.probability = privacy.probability;
    linnet_ledger_row_pack(&row, &bytes);
    return linnet_row_put(txn, &id, &bytes, err);
}

/* ---- adding up ---- */

typedef struct ledger_sum {
    uint64_t last;
    linnet_rdp rdp;
    linnet_privacy pending; /* equal rounds are added at once: a sampled one takes its time */
    uint64_t n_pending, n_rounds, n_void;
} ledger_sum;

static void flush(ledger_sum *sum)
{
    if (sum->n_pending > 0)
        linnet_privacy_spend(&sum->pending, (double)sum->n_pending, &sum->rdp);
    sum->n_pending = 0;
}

static linnet_status add_row(void *context, const uint8_t *fields, size_t n_fields, const uint8_t *bytes,
                             size_t n_bytes, linnet_error *err)
{
    ledger_sum *sum = context;
    linnet_ledger_row row;
    if (n_fields != 8 || linnet_ledger_row_unpack(bytes, n_bytes, &row) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_FORMAT,
                           "store: the ledger of privacy is damaged; restore the state from a backup");
    if (linnet_load_be64(fields) > sum->last || !row.is_counted)
        return LINNET_OK;
    const linnet_privacy privacy = {.mechanism = (linnet_dp_mechanism)row.mechanism,
                                    .noise_multiplier = row.noise_multiplier,
                                    .probability = row.probability,
                                    .n_steps = row.n_steps};
    if (sum->pending.mechanism != privacy.mechanism ||
        sum->pending.noise_multiplier != privacy.noise_multiplier ||
        sum->pending.probability != privacy.probability || sum->pending.n_steps != privacy.n_steps)
        flush(sum);
    sum->pending = privacy;
    sum->n_pending++;
    sum->n_rounds++;
    sum->n_void += row.is_void;
    return LINNET_OK;
}

linnet_status linnet_privacy_ledger_sum(linnet_store_txn *txn, uint64_t round, linnet_rdp *ret_rdp,
                                        uint64_t *ret_n_rounds, uint64_t *ret_n_void, linnet_error *err)
{
    ledger_sum sum = {.last = round};
    linnet_record_id prefix = linnet_record_of('e');
    linnet_status status = linnet_store_each(txn, &prefix, add_row, &sum, err);
    if (status != LINNET_OK)
        return status;
    flush(&sum);
    *ret_rdp = sum.rdp;
    *ret_n_rounds = sum.n_rounds;
    *ret_n_void = sum.n_void;
    return LINNET_OK;
}

/* ---- the report ---- */

static double epsilon_of(const linnet_rdp *rdp, uint64_t n_rounds, double dp_delta)
{
    return n_rounds > 0 ? linnet_dp_epsilon(rdp, dp_delta, NULL) : 0;
}

/* Rounds that still fit the budget on top of what is spent, by bisection. */
static uint64_t rounds_within(const linnet_rdp *spent, const linnet_privacy *round, double dp_delta,
                              double dp_epsilon_max, uint64_t most)
{
    uint64_t low = 0, high = most + 1;
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        linnet_rdp rdp = *spent;
        linnet_privacy_spend(round, (double)middle, &rdp);
        *(linnet_dp_epsilon(&rdp, dp_delta, NULL) <= dp_epsilon_max ? &low : &high) = middle;
    }
    return low;
}

#define ROUNDS_UNBOUNDED ((uint64_t)1 << 20) /* as many as a plan can name */

static void report_fill(const linnet_coordinator *c, const linnet_privacy *round, uint64_t version,
                        const linnet_rdp *spent, linnet_privacy_report *r)
{
    const linnet_plan *plan = &c->plan;
    linnet_rdp one = {{0}};
    uint64_t most = plan->rounds == 0 ? UINT64_MAX : version >= plan->rounds ? 0 : plan->rounds - version;
    r->rounds_left = most;
    if (plan->mechanism == LINNET_DP_NONE)
        return;
    linnet_privacy_spend(round, 1, &one);
    r->dp_epsilon_round = linnet_dp_epsilon(&one, plan->dp_delta, NULL);
    r->dp_epsilon = epsilon_of(spent, r->n_rounds, plan->dp_delta);
    if (plan->dp_epsilon_max > 0)
        r->rounds_left = rounds_within(spent, round, plan->dp_delta, plan->dp_epsilon_max,
                                       most < ROUNDS_UNBOUNDED ? most : ROUNDS_UNBOUNDED);
}

linnet_status linnet_coordinator_privacy(linnet_coordinator *c, linnet_privacy_report *ret_report,
                                         linnet_error *err)
{
    uint64_t version = 0;
    linnet_rdp spent;
    linnet_privacy round;
    linnet_store_txn *txn = NULL;
    linnet_privacy_report r = {.profile = c->plan.profile,
                               .mechanism = c->plan.mechanism,
                               .unit = (int)linnet_plan_dp_unit(&c->plan),
                               .dp_delta = c->plan.dp_delta,
                               .dp_epsilon_max = c->plan.dp_epsilon_max,
                               .operator_is_authority = c->authority != NULL};
    linnet_status status = linnet_store_read_begin(c->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_config_get_u64(txn, "version", &version, err);
    if (status == LINNET_OK)
        status = linnet_privacy_ledger_sum(txn, UINT64_MAX, &spent, &r.n_rounds, &r.n_void, err);
    linnet_store_read_end(txn);
    if (status == LINNET_OK)
        status = linnet_plan_privacy(&c->plan, c->layout, version, &round, err);
    if (status != LINNET_OK)
        return status;
    r.survivors_min = round.survivors_min;
    r.corrupt = round.corrupt;
    r.probability = round.probability;
    report_fill(c, &round, version, &spent, &r);
    *ret_report = r;
    return LINNET_OK;
}

linnet_status linnet_coordinator_epsilon_at(linnet_coordinator *c, uint64_t round, double *ret_epsilon,
                                            linnet_error *err)
{
    linnet_rdp spent;
    uint64_t n_rounds = 0, n_void = 0;
    linnet_store_txn *txn = NULL;
    linnet_status status = linnet_store_read_begin(c->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_privacy_ledger_sum(txn, round, &spent, &n_rounds, &n_void, err);
    linnet_store_read_end(txn);
    if (status == LINNET_OK)
        *ret_epsilon = epsilon_of(&spent, n_rounds, c->plan.dp_delta);
    return status;
}
