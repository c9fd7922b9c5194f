/* SPDX-License-Identifier: Apache-2.0 */
/* A device whose state is older than what it did: rounds with noise against a coordinator in memory, then a
 * backup from before them, on a boot that has lost the volatile file. What counts is that the ledger of
 * privacy never says less than what has left (SECURE-AGGREGATION 3.4). */
#include "client/secure_world.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct budget {
    char directory[64];
    linnet_budget_ledger *ledger;
} budget;

static budget budget_open(void)
{
    budget b = {.directory = "/tmp/linnet-receipts-XXXXXX"};
    linnet_error err = {0};
    assert_non_null(mkdtemp(b.directory));
    assert_ok(linnet_budget_ledger_open(b.directory, &b.ledger, &err), &err);
    return b;
}

static void budget_empty(const budget *b)
{
    char path[96];
    (void)snprintf(path, sizeof(path), "%s/privacy.ledger", b->directory);
    (void)remove(path);
}

static void budget_close(budget *b)
{
    linnet_budget_ledger_close(b->ledger);
    budget_empty(b);
    assert_int_equal(remove(b->directory), 0);
}

static uint64_t spent_rounds(const budget *b)
{
    linnet_privacy_total total;
    linnet_error err = {0};
    assert_ok(linnet_budget_ledger_total(b->ledger, NULL, &total, &err), &err);
    return total.n_entries;
}

static uint64_t ledger_entries(agent *a)
{
    linnet_ledger_entry entry;
    uint64_t n = 0;
    while (linnet_device_ledger(&a->kv, n, &entry, NULL) == LINNET_OK)
        n++;
    return n;
}

/* One agent that has a ledger, a fresh delta and its first round before it. */
static secure_world *one_with(const char *plan, const budget *b)
{
    secure_world *sw = secure_create(plan, 1);
    agent *a = &sw->agents[0];
    agent_kill(a);
    a->config.ledger = b->ledger;
    agent_start(a);
    agent_until(a, "ready");
    return sw;
}

static void play_rounds(secure_world *sw, int n)
{
    for (int i = 0; i < n; i++) {
        secure_until_opened(sw);
        for (int j = 0; j < 10 && !agent_is_in(&sw->agents[0], "idle"); j++)
            agent_step(&sw->agents[0]);
        sw->w->f->version++;
        secure_announce(sw);
    }
}

static void new_vault(agent *a)
{
    linnet_error err = {0};
    linnet_round_vault_close(a->vault);
    assert_ok(linnet_round_vault_open_memory(&a->vault, &err), &err);
    a->config.vault = a->vault;
}

/* The state as it was after this commit, the ledger of privacy as it was before everything, another boot. */
static void restore(agent *a, const budget *b, size_t copy)
{
    agent_kill(a);
    store_state_copy(&a->store.copies[copy], &a->store.now);
    budget_empty(b);
    new_vault(a);
    agent_start(a);
}

static void step(agent *a, int n)
{
    for (int i = 0; i < n; i++)
        agent_step(a);
}

/* ---- what comes back ---- */

static void a_restored_backup_counts_what_has_left(void **state)
{
    (void)state;
    budget b = budget_open();
    secure_world *sw = one_with(NOISED_PLAN, &b);
    agent *a = &sw->agents[0];
    linnet_error err = {0};
    linnet_ledger_entry entry;
    size_t n_backup = a->store.n_copies - 1;
    play_rounds(sw, 2);
    linnet_device_report before = agent_report(a);
    assert_true(before.has_budget && before.dp_epsilon > 0);
    assert_int_equal(before.spent.n_entries, 2);
    sw->w->f->announces = false;
    restore(a, &b, n_backup);
    assert_int_equal(agent_report(a).spent.n_entries, 0);
    agent_until(a, "ready");
    step(a, 4);
    linnet_device_report after = agent_report(a);
    assert_int_equal(after.spent.n_entries, 2);
    assert_memory_equal(&after.dp_epsilon, &before.dp_epsilon, sizeof(double)); /* to the last bit */
    assert_memory_equal(&after.spent.rdp, &before.spent.rdp, sizeof(before.spent.rdp));
    assert_int_equal(after.n_contributions, before.n_contributions);
    assert_int_equal(after.round, a->accepted[1].announcement.round); /* and no round number comes again */
    assert_int_equal(ledger_entries(a), 2);
    for (uint64_t i = 0; i < 2; i++) {
        assert_ok(linnet_device_ledger(&a->kv, i, &entry, &err), &err);
        assert_int_equal(entry.round, a->accepted[i].announcement.round);
        assert_true(entry.is_accepted && entry.n_bytes > 0);
        assert_memory_equal(&entry.echo, &a->accepted[i].receipt.echo, sizeof(entry.echo));
        assert_memory_equal(&entry.chain, &a->accepted[i].receipt.chain, sizeof(entry.chain));
    }
    sw->w->f->announces = true;
    secure_until_opened(sw); /* it goes on, and counts on */
    assert_int_equal(spent_rounds(&b), 3);
    secure_destroy(sw);
    budget_close(&b);
}

static void a_long_list_comes_in_parts(void **state)
{
    (void)state;
    budget b = budget_open();
    secure_world *sw = one_with(NOISED_PLAN, &b);
    agent *a = &sw->agents[0];
    size_t n_backup = a->store.n_copies - 1;
    play_rounds(sw, 3);
    sw->receipts_page = 1;
    restore(a, &b, n_backup);
    size_t n_asked = a->n_asked;
    secure_until_opened(sw);
    assert_int_equal(a->n_asked, n_asked + 4); /* three items, and the end */
    assert_int_equal(spent_rounds(&b), 4);
    assert_int_equal(ledger_entries(a), 4);
    secure_destroy(sw);
    budget_close(&b);
}

static void the_same_receipts_again_change_nothing(void **state)
{
    (void)state;
    budget b = budget_open();
    secure_world *sw = one_with(NOISED_PLAN, &b);
    agent *a = &sw->agents[0];
    play_rounds(sw, 2);
    sw->w->f->announces = false;
    linnet_device_report before = agent_report(a);
    for (int boot = 0; boot < 3; boot++) {
        size_t n_asked = a->n_asked;
        agent_kill(a);
        new_vault(a);
        agent_start(a);
        agent_until(a, "ready");
        step(a, 4);
        assert_int_equal(a->n_asked, n_asked + 2);
        assert_int_equal(ledger_entries(a), 2);
        linnet_device_report after = agent_report(a);
        assert_memory_equal(&after.spent.rdp, &before.spent.rdp, sizeof(before.spent.rdp));
        assert_int_equal(after.n_contributions, 2);
    }
    size_t n_asked = a->n_asked;
    agent_kill(a); /* a restart that keeps the volatile file asks for nothing */
    agent_start(a);
    step(a, 6);
    assert_int_equal(a->n_asked, n_asked);
    secure_destroy(sw);
    budget_close(&b);
}

/* An entry without a receipt, since the answer was lost, is the same contribution. */
static void a_receipt_that_was_lost_is_not_counted_twice(void **state)
{
    (void)state;
    budget b = budget_open();
    secure_world *sw = one_with(NOISED_PLAN, &b);
    agent *a = &sw->agents[0];
    agent_until(a, "attesting");
    size_t n_backup = a->store.n_copies - 2; /* M5 committed, its receipt not */
    agent_kill(a);
    store_state_copy(&a->store.copies[n_backup], &a->store.now);
    new_vault(a);
    agent_start(a);
    sw->w->f->announces = false;
    agent_until(a, "ready");
    step(a, 4);
    assert_int_equal(a->n_accepted, 1);
    assert_int_equal(spent_rounds(&b), 1);
    assert_int_equal(ledger_entries(a), 1);
    secure_destroy(sw);
    budget_close(&b);
}

/* ---- lies ---- */

static void only_a_proven_list_is_taken(void **state)
{
    (void)state;
    static const struct {
        enum receipt_lie lie;
        const char *note;
    } cases[] = {{RECEIPTS_ARE_REFUSED, "receipts"},
                 {RECEIPTS_OF_STRANGER, "not signed by the coordinator"},
                 {RECEIPTS_OF_STRANGE_ROUND, "announcement is not signed"},
                 {RECEIPTS_OF_OTHER_TASK, "task"},
                 {RECEIPTS_OF_OTHER_DEVICE, "another device"},
                 {RECEIPTS_OF_OTHER_UPLOAD, "has not signed"},
                 {RECEIPTS_OF_NO_NOISE, "protects nothing"},
                 {RECEIPTS_TWICE, "twice"},
                 {RECEIPTS_CUT, "damaged"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        budget b = budget_open();
        secure_world *sw = one_with(NOISED_PLAN, &b);
        agent *a = &sw->agents[0];
        size_t n_backup = a->store.n_copies - 1;
        play_rounds(sw, 2);
        restore(a, &b, n_backup);
        sw->receipt_lie = cases[i].lie;
        size_t n_checkin = sw->w->f->n_checkin, n_ready = sw->w->f->n_checkin_ready;
        agent_until(a, "ready");
        step(a, 10);
        assert_non_null(strstr(agent_report(a).note, cases[i].note));
        assert_true(sw->w->f->n_checkin > n_checkin + 2); /* it goes on checking in, not ready */
        assert_int_equal(sw->w->f->n_checkin_ready, n_ready);
        assert_int_equal(a->n_sent[LINNET_ROUND_ADVERT], 0);
        assert_int_equal(spent_rounds(&b), 0);
        assert_int_equal(ledger_entries(a), 0);
        sw->receipt_lie = RECEIPTS_ARE_GIVEN;
        secure_until_opened(sw);
        assert_int_equal(spent_rounds(&b), 3);
        assert_int_equal(ledger_entries(a), 3);
        secure_destroy(sw);
        budget_close(&b);
    }
}

/* A coordinator can keep back its own, and nothing of what the device has itself. */
static void hidden_receipts_hide_no_entry_of_the_ledger(void **state)
{
    (void)state;
    budget b = budget_open();
    secure_world *sw = one_with(NOISED_PLAN, &b);
    agent *a = &sw->agents[0];
    play_rounds(sw, 2);
    agent_kill(a);
    new_vault(a);
    agent_start(a);
    sw->receipt_lie = RECEIPTS_ARE_HIDDEN;
    secure_until_opened(sw);
    assert_int_equal(spent_rounds(&b), 3);
    assert_int_equal(ledger_entries(a), 3);
    secure_destroy(sw);
    budget_close(&b);
}

static void a_silent_coordinator_keeps_the_device_from_noised_rounds_alone(void **state)
{
    (void)state;
    budget b = budget_open();
    secure_world *noised = one_with(NOISED_PLAN, &b), *plain = one_with(SECURE_PLAN, &b);
    secure_world *const worlds[] = {noised, plain};
    for (size_t i = 0; i < ARRAY_LEN(worlds); i++) {
        secure_world *sw = worlds[i];
        agent *a = &sw->agents[0];
        play_rounds(sw, 1);
        sw->receipt_lie = RECEIPTS_ARE_REFUSED;
        size_t n_asked = a->n_asked;
        agent_kill(a);
        new_vault(a);
        agent_start(a);
        for (int j = 0; j < 40 && !sw->is_opened; j++)
            agent_step(a);
        assert_int_equal(sw->is_opened, sw == plain);
        assert_int_equal(a->n_asked > n_asked, sw == noised);
        secure_destroy(sw);
    }
    budget_close(&b);
}

/* ---- limits and crashes ---- */

static void a_limit_that_the_union_reaches_refuses_the_next_round(void **state)
{
    (void)state;
    budget b = budget_open();
    secure_world *sw = one_with(NOISED_PLAN, &b);
    agent *a = &sw->agents[0];
    size_t n_backup = a->store.n_copies - 1;
    play_rounds(sw, 2);
    a->config.policy.dp_epsilon_max = 1.001 * agent_report(a).dp_epsilon; /* two rounds, and not a third */
    restore(a, &b, n_backup);
    for (int i = 0; i < 40 && !sw->is_opened; i++)
        agent_step(a);
    assert_false(sw->is_opened);
    assert_int_equal(a->n_sent[LINNET_ROUND_ADVERT], 0);
    assert_non_null(strstr(agent_report(a).note, "epsilon"));
    assert_int_equal(spent_rounds(&b), 2);
    secure_destroy(sw);
    budget_close(&b);
}

/* Restored twice over its own limit: what has left is counted all the same. */
static void no_limit_keeps_out_what_has_left(void **state)
{
    (void)state;
    budget b = budget_open();
    secure_world *sw = one_with(NOISED_PLAN, &b);
    agent *a = &sw->agents[0];
    size_t n_backup = a->store.n_copies - 1;
    play_rounds(sw, 2);
    double dp_epsilon = agent_report(a).dp_epsilon;
    a->config.policy.dp_epsilon_max = 0.5 * dp_epsilon;
    restore(a, &b, n_backup);
    for (int i = 0; i < 20; i++)
        agent_step(a);
    assert_true(agent_report(a).dp_epsilon >= dp_epsilon);
    secure_destroy(sw);
    budget_close(&b);
}

/* The process ends at, or the disk refuses, any commit from the restored start on. */
static void a_kill_while_the_ledger_is_completed_loses_no_entry(void **state)
{
    (void)state;
    static const store_failure failures[] = {STORE_LOSES, STORE_PRETENDS, STORE_IS_FULL};
    for (size_t k = 1; k <= 8; k++)
        for (size_t i = 0; i < ARRAY_LEN(failures); i++) {
            budget b = budget_open();
            secure_world *sw = one_with(NOISED_PLAN, &b);
            agent *a = &sw->agents[0];
            linnet_error err = {0};
            linnet_status status = LINNET_OK;
            size_t n_backup = a->store.n_copies - 1;
            play_rounds(sw, 2);
            sw->receipts_page = 1;
            restore(a, &b, n_backup);
            a->store.fails_at = a->store.n_puts + k;
            a->store.failure = failures[i];
            for (int j = 0; j < 60 && !sw->is_opened && status == LINNET_OK; j++)
                status = agent_try(a, &err);
            if (status != LINNET_OK) {
                agent_kill(a);
                agent_start(a);
                for (int j = 0; j < 60 && !sw->is_opened; j++)
                    agent_step(a);
            }
            assert_true(spent_rounds(&b) >= 2 + (a->n_echoes > 2));
            assert_true(ledger_entries(a) >= 2);
            for (uint64_t j = 0; j < 2; j++) {
                linnet_ledger_entry entry;
                assert_ok(linnet_device_ledger(&a->kv, j, &entry, &err), &err);
                assert_int_equal(entry.round, a->accepted[j].announcement.round); /* each once */
            }
            secure_destroy(sw);
            budget_close(&b);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_restored_backup_counts_what_has_left),
        cmocka_unit_test(a_long_list_comes_in_parts),
        cmocka_unit_test(the_same_receipts_again_change_nothing),
        cmocka_unit_test(a_receipt_that_was_lost_is_not_counted_twice),
        cmocka_unit_test(only_a_proven_list_is_taken),
        cmocka_unit_test(hidden_receipts_hide_no_entry_of_the_ledger),
        cmocka_unit_test(a_silent_coordinator_keeps_the_device_from_noised_rounds_alone),
        cmocka_unit_test(a_limit_that_the_union_reaches_refuses_the_next_round),
        cmocka_unit_test(no_limit_keeps_out_what_has_left),
        cmocka_unit_test(a_kill_while_the_ledger_is_completed_loses_no_entry),
    };
    if (linnet_crypto_init(NULL) != LINNET_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
