/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the agent's masked rounds: sums, kills, old copies of the state, refusals and lies. */
#include "client/secure_world.h"

#include <math.h>

static void a_round_of_several_devices_opens_their_sum(void **state)
{
    (void)state;
    secure_world *sw = secure_create(SECURE_PLAN, SECURE_MEMBERS);
    secure_until_opened(sw);
    assert_int_equal(secure_participants(sw), SECURE_MEMBERS);
    secure_destroy(sw);
}

/* One agent among puppets, up to its first fresh delta. */
static secure_world *one_ready(void)
{
    secure_world *sw = secure_create(SECURE_PLAN, 1);
    agent_until(&sw->agents[0], "ready");
    return sw;
}

static void open_delta(const agent *a, linnet_buffer *ret_delta)
{
    linnet_buffer sealed = {0};
    linnet_error err = {0};
    assert_ok(store_get((void *)(uintptr_t)&a->store, "delta", &sealed, &err), &err);
    assert_ok(linnet_round_vault_unseal(a->vault, "delta", sealed.bytes, sealed.n_bytes, ret_delta, &err),
              &err);
    linnet_buffer_release(&sealed);
}

static void the_opened_sum_is_that_of_the_weighted_deltas(void **state)
{
    (void)state;
    secure_world *sw = secure_create(SECURE_PLAN, SECURE_MEMBERS);
    const linnet_ring_spec *spec = &sw->w->f->announcement.vectors[0];
    double *want = calloc((size_t)spec->length, sizeof(*want)), largest = 0, clamp = spec->clamp;
    linnet_buffer deltas[SECURE_MEMBERS] = {{0}};
    uint32_t weights = 0;
    linnet_error err = {0};
    assert_non_null(want);
    for (size_t i = 0; i < SECURE_MEMBERS; i++) {
        agent_until(&sw->agents[i], "ready");
        open_delta(&sw->agents[i], &deltas[i]);
        assert_true(deltas[i].n_bytes >= 4 * spec->length);
    }
    secure_until_opened(sw);
    for (size_t i = 0; i < SECURE_MEMBERS; i++) {
        linnet_ledger_entry entry;
        assert_ok(linnet_device_ledger(&sw->agents[i].kv, 0, &entry, &err), &err);
        weights += entry.sample_weight;
        for (size_t j = 0; j < spec->length; j++)
            want[j] +=
                entry.sample_weight *
                fmax(-clamp,
                     fmin(clamp, ldexp((double)linnet_load_f32(deltas[i].bytes + 4 * j), spec->exponent)));
        linnet_buffer_release(&deltas[i]);
    }
    for (size_t j = 0; j < spec->length; j++) {
        double got = (double)(int32_t)sw->sums[0][j]; /* 32 bits: the centred lift */
        assert_true(fabs(got - want[j]) <= weights);
        largest = fmax(largest, fabs(got));
    }
    assert_true(largest > 100.0 * weights);
    assert_int_equal(sw->sums[sw->w->f->announcement.n_vectors - 1][LINNET_LANE_WEIGHT], weights);
    free(want);
    secure_destroy(sw);
}

static void a_device_goes_on_to_the_next_round(void **state)
{
    (void)state;
    secure_world *sw = secure_create(SECURE_PLAN, 1);
    agent *a = &sw->agents[0];
    for (uint64_t version = 0; version < 3; version++) {
        secure_until_opened(sw);
        for (int i = 0; i < 10 && !agent_is_in(a, "idle"); i++)
            agent_step(a);
        assert_true(agent_is_in(a, "idle")); /* contributed: waits for the release */
        assert_int_equal(agent_report(a).n_contributions, version + 1);
        sw->w->f->version++;
        secure_announce(sw);
    }
    assert_int_equal(a->n_echoes, 3);
    secure_destroy(sw);
}

/* ---- kills ---- */

/* Every step in a new process: whatever a phase was, the next one goes on from the store and the vault. */
static void a_device_that_is_killed_after_every_step_sends_the_same_bytes(void **state)
{
    (void)state;
    secure_world *sw = secure_create(SECURE_PLAN, 1);
    agent *a = &sw->agents[0];
    sw->loses_answers = true; /* so that it says everything twice */
    for (int i = 0; i < 100 && !sw->is_opened; i++) {
        agent_step(a);
        if (agent_is_in(a, "joining")) /* its secrets are in memory only: tested below */
            continue;
        agent_kill(a);
        agent_start(a);
    }
    assert_true(sw->is_opened);
    assert_int_equal(secure_participants(sw), 1); /* puppets count zero */
    assert_int_equal(a->n_joins, 1);
    assert_int_equal(a->n_echoes, 1);
    secure_destroy(sw);
}

static void a_kill_before_the_shares_loses_the_round_and_keeps_the_delta(void **state)
{
    (void)state;
    secure_world *sw = one_ready();
    agent *a = &sw->agents[0];
    agent_until(a, "joining");
    agent_kill(a);
    agent_start(a);
    assert_true(agent_is_in(a, "ready"));
    for (int i = 0; i < 5; i++)
        agent_step(a);
    assert_true(agent_is_in(a, "ready")); /* this round number is gone */
    assert_int_equal(a->n_joins, 0);
    secure_announce(sw);
    secure_until_opened(sw);
    assert_int_equal(secure_participants(sw), 1);
    secure_destroy(sw);
}

/* How many commits a whole round takes, from a fresh delta on. */
static size_t commits_of_a_round(void)
{
    secure_world *sw = one_ready();
    size_t n_before = sw->agents[0].store.n_puts;
    secure_until_opened(sw);
    size_t n = sw->agents[0].store.n_puts - n_before;
    secure_destroy(sw);
    return n;
}

/* The process ends with the status, and its next one goes on from whatever is there. Nothing is ever said
 * that is not in the store: the fake would see other bytes the second time. */
static void a_failed_sync_ends_the_process_and_never_the_promise(void **state)
{
    (void)state;
    static const store_failure failures[] = {STORE_LOSES, STORE_PRETENDS};
    size_t n_commits = commits_of_a_round();
    assert_true(n_commits >= 5);
    for (size_t k = 1; k <= n_commits; k++)
        for (size_t i = 0; i < ARRAY_LEN(failures); i++) {
            secure_world *sw = one_ready();
            agent *a = &sw->agents[0];
            linnet_status status = LINNET_OK;
            linnet_error err = {0};
            a->store.fails_at = a->store.n_puts + k;
            a->store.failure = failures[i];
            for (int j = 0; j < 60 && status == LINNET_OK && !sw->is_opened; j++)
                status = agent_try(a, &err);
            if (status != LINNET_OK) {
                size_t n_exchanges = 0, n_exchanges_after = 0;
                assert_int_equal(status, LINNET_ERR_IO);
                for (size_t kind = 0; kind < ARRAY_LEN(a->n_sent); kind++)
                    n_exchanges += a->n_sent[kind];
                assert_int_equal(agent_try(a, &err), LINNET_ERR_IO); /* it says nothing more */
                for (size_t kind = 0; kind < ARRAY_LEN(a->n_sent); kind++)
                    n_exchanges_after += a->n_sent[kind];
                assert_int_equal(n_exchanges, n_exchanges_after);
                agent_kill(a);
                agent_start(a);
                for (int j = 0; j < 20 && !sw->is_opened; j++)
                    agent_step(a);
            }
            assert_true(a->n_echoes <= 1);
            secure_destroy(sw);
        }
}

static void a_full_disk_costs_the_round_and_no_delta_that_has_not_left(void **state)
{
    (void)state;
    static const store_failure failures[] = {STORE_IS_FULL, STORE_STAYS_FULL};
    size_t n_commits = commits_of_a_round();
    for (size_t k = 1; k <= n_commits; k++)
        for (size_t i = 0; i < ARRAY_LEN(failures); i++) {
            secure_world *sw = one_ready();
            agent *a = &sw->agents[0];
            linnet_error err = {0};
            a->store.fails_at = a->store.n_puts + k;
            a->store.failure = failures[i];
            for (int j = 0; j < 30 && !sw->is_opened; j++) {
                linnet_status status = agent_try(a, &err);
                assert_true(status == LINNET_OK || status == LINNET_ERR_NO_SPACE);
            }
            assert_true(a->n_echoes <= 1);
            a->store.fails_at = 0; /* there is space again */
            for (int j = 0; j < 5; j++)
                agent_step(a);
            for (uint64_t round = 0; round < 2; round++) { /* by then it has joined again */
                if (a->n_echoes > 0)
                    break;
                secure_announce(sw);
                for (int j = 0; j < 30 && !sw->is_opened; j++)
                    agent_step(a);
            }
            assert_true(a->n_echoes >= 1);
            secure_destroy(sw);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_round_of_several_devices_opens_their_sum),
        cmocka_unit_test(the_opened_sum_is_that_of_the_weighted_deltas),
        cmocka_unit_test(a_device_goes_on_to_the_next_round),
        cmocka_unit_test(a_device_that_is_killed_after_every_step_sends_the_same_bytes),
        cmocka_unit_test(a_kill_before_the_shares_loses_the_round_and_keeps_the_delta),
        cmocka_unit_test(a_failed_sync_ends_the_process_and_never_the_promise),
        cmocka_unit_test(a_full_disk_costs_the_round_and_no_delta_that_has_not_left),
    };
    if (linnet_crypto_init(NULL) != LINNET_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
