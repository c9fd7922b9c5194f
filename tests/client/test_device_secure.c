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
        agent_open_delta(&sw->agents[i], &deltas[i]);
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

/* ---- the spent rule ---- */

/* Puppets send zeros: what is opened is the one agent's own vector. */
static double distance(const secure_world *sw, const uint32_t *before)
{
    double largest = 0;
    for (size_t j = 0; j < sw->w->f->announcement.vectors[0].length; j++)
        largest = fmax(largest, fabs((double)(int32_t)(sw->sums[0][j] - before[j])));
    return largest;
}

static uint32_t *copy_sum(const secure_world *sw)
{
    size_t n = (size_t)sw->w->f->announcement.vectors[0].length;
    uint32_t *copy = calloc(n, sizeof(*copy));
    assert_non_null(copy);
    memcpy(copy, sw->sums[0], n * sizeof(*copy));
    return copy;
}

static void run_another_round(secure_world *sw)
{
    secure_announce(sw);
    secure_until_opened(sw);
}

static void a_void_round_spends_the_delta_once_its_upload_has_begun(void **state)
{
    (void)state;
    static const char *const phases[] = {"joining", "sharing", "uploading", "attesting", "unmasking"};
    for (size_t i = 0; i < ARRAY_LEN(phases); i++) {
        secure_world *sw = one_ready();
        agent *a = &sw->agents[0];
        bool is_spent = i >= 2; /* from the commit of M5 on, before any byte of it has left */
        uint64_t attempt = a->store.n_puts;
        agent_until(a, phases[i]);
        sw->is_void = true;
        for (int j = 0; j < 5 && agent_is_in(a, phases[i]); j++)
            agent_step(a);
        assert_true(agent_is_in(a, is_spent ? "idle" : "ready") || (is_spent && agent_is_in(a, "training")));
        linnet_ledger_entry entry;
        assert_int_equal(linnet_device_ledger(&a->kv, 0, &entry, NULL),
                         is_spent ? LINNET_OK
                                  : LINNET_ERR_NOT_FOUND); /* counted although the round is void */
        assert_true(a->store.n_puts > attempt);
        run_another_round(sw);
        assert_int_equal(secure_participants(sw), 1);
        secure_destroy(sw);
    }
}

static void a_delta_of_a_void_round_never_comes_again(void **state)
{
    (void)state;
    secure_world *sw = one_ready();
    agent *a = &sw->agents[0];
    linnet_buffer delta = {0}, again = {0};
    agent_open_delta(a, &delta);
    agent_until(a, "attesting");
    sw->is_void = true; /* the coordinator has what it needs and says so */
    for (int i = 0; i < 20 && !agent_is_in(a, "ready"); i++)
        agent_step(a);
    agent_open_delta(a, &again);
    double largest = 0;
    for (size_t j = 0; j + 4 <= delta.n_bytes; j += 4)
        largest = fmax(largest, fabs((double)linnet_load_f32(delta.bytes + j) -
                                     (double)linnet_load_f32(again.bytes + j)));
    assert_true(largest > 1e-6); /* other data order: differing over the rounds gives no delta */
    linnet_buffer_release(&delta);
    linnet_buffer_release(&again);
    secure_destroy(sw);
}

/* The one exception: certified to be in no sum. */
static void a_certificate_without_the_device_frees_its_delta(void **state)
{
    (void)state;
    secure_world *sw = one_ready();
    agent *a = &sw->agents[0];
    linnet_buffer delta = {0};
    linnet_ledger_entry entry;
    agent_open_delta(a, &delta);
    agent_until(a, "uploading");
    secure_freeze(sw); /* of the four puppets, before its upload */
    for (int i = 0; i < 10 && !agent_is_in(a, "ready"); i++)
        agent_step(a);
    assert_true(agent_is_in(a, "ready"));
    assert_int_equal(linnet_device_ledger(&a->kv, 0, &entry, NULL), LINNET_ERR_NOT_FOUND);
    agent_kill(a);
    agent_start(a);
    run_another_round(sw);
    const linnet_ring_spec *spec = &sw->w->f->announcement.vectors[0];
    for (size_t j = 0; j < spec->length; j++) {
        double want = ldexp((double)linnet_load_f32(delta.bytes + 4 * j), spec->exponent);
        if (fabs(want) < spec->clamp)
            assert_true(fabs((double)(int32_t)sw->sums[0][j] - want) <= 1);
    }
    assert_int_equal(a->n_echoes, 2); /* two encodings under two masks; only one was ever unmasked */
    assert_memory_not_equal(&a->echoes[0], &a->echoes[1], sizeof(a->echoes[0]));
    linnet_buffer_release(&delta);
    secure_destroy(sw);
}

/* ---- failures of the network ---- */

static linnet_status no_http(void *context, const linnet_http_request *request, size_t n_body_max,
                             linnet_http_response *ret_response, linnet_error *err)
{
    (void)context;
    (void)request;
    (void)n_body_max;
    (void)ret_response;
    return linnet_fail(err, LINNET_ERR_IO, "no network");
}

/* However often it has failed, whoever is in a round is back before the phase is over. */
static void no_back_off_sleeps_through_a_phase(void **state)
{
    (void)state;
    secure_world *sw = one_ready();
    agent *a = &sw->agents[0];
    int64_t wake_ms = 0, phase_ms = 1000 * (int64_t)sw->w->f->plan.phase_deadline_s;
    agent_until(a, "sharing");
    agent_kill(a);
    a->config.http = no_http;
    agent_start(a);
    for (int i = 0; i < 30; i++) {
        agent_step(a);
        (void)linnet_device_next(a->device, &wake_ms);
        assert_true(agent_is_in(a, "sharing"));
        assert_in_range(wake_ms - sw->w->now_ms, 1, phase_ms / 8 + 1);
    }
    agent_kill(a);
    a->config.http = secure_http;
    agent_start(a);
    secure_until_opened(sw);
    assert_int_equal(secure_participants(sw), 1);
    secure_destroy(sw);
}

/* ---- old copies of the state ---- */

static void restore_copy(agent *a, const store_state *copy)
{
    agent_kill(a);
    store_state_copy(copy, &a->store.now);
}

static void another_vault(agent *a)
{
    linnet_error err = {0};
    linnet_round_vault_close(a->vault);
    assert_ok(linnet_round_vault_open_memory(&a->vault, &err), &err);
    a->config.vault = a->vault;
}

/* Every commit from the fresh delta to the end of the round, restored after it: with the volatile file it is
 * recognised as old, without it nothing that it sealed opens. */
static void no_old_copy_of_the_state_brings_a_spent_delta_back(void **state)
{
    (void)state;
    size_t n_commits = commits_of_a_round();
    for (size_t k = 0; k <= n_commits + 2; k++) /* from the half trained delta on */
        for (int has_vault = 0; has_vault < 2; has_vault++) {
            secure_world *sw = one_ready();
            agent *a = &sw->agents[0];
            size_t first = a->store.n_copies - 2;
            secure_until_opened(sw);
            uint32_t *sum = copy_sum(sw);
            if (first + k >= a->store.n_copies - 1) { /* that is no old one */
                free(sum);
                secure_destroy(sw);
                continue;
            }
            restore_copy(a, &a->store.copies[first + k]);
            if (!has_vault)
                another_vault(a);
            agent_start(a);
            assert_false(agent_is_in(a, "ready"));
            assert_false(agent_is_in(a, "uploading"));
            run_another_round(sw);
            assert_true(distance(sw, sum) > 100); /* the rounding of one delta is at most 1 apart */
            free(sum);
            secure_destroy(sw);
        }
}

/* Between two phases of an open round: nothing of the round is said again in other words. */
static void an_old_copy_in_mid_round_is_a_drop_out(void **state)
{
    (void)state;
    static const char *const phases[] = {"sharing", "uploading", "attesting", "unmasking"};
    for (size_t i = 0; i < ARRAY_LEN(phases); i++)
        for (size_t back = 1; back < 8; back++) {
            secure_world *sw = one_ready();
            agent *a = &sw->agents[0];
            size_t n_ready = a->store.n_copies;
            sw->knows_conflicts = true;
            agent_until(a, phases[i]);
            if (back >= a->store.n_copies - n_ready + 2) { /* before it had anything to send */
                secure_destroy(sw);
                continue;
            }
            size_t n_shares = a->n_sent[LINNET_ROUND_SHARES], n_attested = a->n_sent[LINNET_ROUND_ATTEST],
                   n_unmasked = a->n_sent[LINNET_ROUND_UNMASK], n_echoes = a->n_echoes;
            restore_copy(a, &a->store.copies[a->store.n_copies - 1 - back]);
            agent_start(a);
            for (int j = 0; j < 15; j++)
                agent_step(a);
            assert_int_equal(a->n_sent[LINNET_ROUND_SHARES], n_shares);
            assert_int_equal(a->n_sent[LINNET_ROUND_ATTEST], n_attested);
            assert_int_equal(a->n_sent[LINNET_ROUND_UNMASK], n_unmasked);
            assert_int_equal(a->n_echoes, n_echoes);
            secure_destroy(sw);
        }
}

static void a_reboot_in_mid_round_drops_it_and_keeps_the_ledger(void **state)
{
    (void)state;
    secure_world *sw = one_ready();
    agent *a = &sw->agents[0];
    linnet_ledger_entry entry;
    linnet_error err = {0};
    agent_until(a, "attesting");
    agent_kill(a);
    another_vault(a);
    agent_start(a);
    assert_false(agent_is_in(a, "attesting"));
    assert_non_null(strstr(agent_report(a).note, "round key is gone"));
    assert_ok(linnet_device_ledger(&a->kv, 0, &entry, &err), &err);
    assert_true(entry.is_accepted); /* an accepted upload still counts */
    assert_int_equal(agent_report(a).n_contributions, 1);
    size_t n_attested = a->n_sent[LINNET_ROUND_ATTEST];
    for (int i = 0; i < 10; i++)
        agent_step(a);
    assert_int_equal(a->n_sent[LINNET_ROUND_ATTEST], n_attested);
    secure_destroy(sw);
}

/* A copy of the whole state beside the original, each with its own vault as two paths have. */
static void of_two_clones_only_one_has_the_delta(void **state)
{
    (void)state;
    secure_world *sw = one_ready();
    agent *a = &sw->agents[0];
    store other = {.n_puts = 0};
    linnet_kv kv = {.context = &other, .get = store_get, .put = store_put};
    linnet_round_vault *vault = NULL;
    linnet_device_config config = a->config;
    linnet_device *clone = NULL;
    linnet_device_report report;
    linnet_error err = {0};
    agent_until(a, "sharing");
    store_state_copy(&a->store.now, &other.now);
    assert_ok(linnet_round_vault_open_memory(&vault, &err), &err);
    config.kv = &kv;
    config.vault = vault;
    assert_ok(linnet_device_create(&config, sw->w->now_ms, &clone, &err), &err);
    linnet_device_status(clone, &report);
    assert_string_not_equal(report.phase, "sharing");
    assert_string_not_equal(report.phase, "ready");
    secure_until_opened(sw); /* the original is not disturbed */
    assert_int_equal(secure_participants(sw), 1);
    linnet_device_destroy(clone);
    linnet_round_vault_close(vault);
    store_state_release(&other.now);
    for (size_t i = 0; i < other.n_copies; i++)
        store_state_release(&other.copies[i]);
    secure_destroy(sw);
}

/* The whole state directory, carried to another machine. */
static void a_state_from_another_machine_is_refused(void **state)
{
    (void)state;
    secure_world *sw = secure_create(SECURE_PLAN, 1);
    agent *a = &sw->agents[0];
    linnet_error err = {0};
    linnet_hash elsewhere = linnet_hash_of(LINNET_LABEL_ROUND_KEY, "elsewhere", 9);
    const linnet_kv_item item = {"machine", elsewhere.bytes, sizeof(elsewhere.bytes)};
    linnet_buffer known = {0};
    assert_int_equal(store_get(&a->store, "machine", &known, &err), LINNET_ERR_NOT_FOUND);
    agent_until(a, "ready"); /* something is sealed: from here on it is bound */
    assert_ok(store_get(&a->store, "machine", &known, &err), &err);
    agent_kill(a);
    store_apply(&a->store.now, &item);
    assert_int_equal(linnet_device_create(&a->config, sw->w->now_ms, &a->device, &err), LINNET_ERR_DENIED);
    assert_non_null(strstr(err.message, "another machine"));
    linnet_buffer_release(&known);
    secure_destroy(sw);
}

/* One bit of any value of the store, changed between two phases: a refused start, a lost round, or nothing,
 * but never other bytes than before (the world compares) and never a spent delta again (it looks at that
 * too). */
static void a_damaged_value_of_the_store_costs_at_most_the_round(void **state)
{
    (void)state;
    static const struct {
        const char *phase, *value;
        bool may_open; /* the value is not needed any more, or can be made again */
    } cases[] = {
        {"ready", "delta", true},      {"sharing", "round", false},   {"sharing", "round.vector", true},
        {"uploading", "round", false}, {"uploading", "upload", true}, {"attesting", "round", false},
        {"unmasking", "round", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        for (int is_lost = 0; is_lost < 2; is_lost++) {
            secure_world *sw = one_ready();
            agent *a = &sw->agents[0];
            agent_until(a, cases[i].phase);
            store_value *value = store_find(&a->store.now, cases[i].value);
            const linnet_kv_item nothing = {cases[i].value, NULL, 0};
            assert_non_null(value);
            agent_kill(a);
            if (is_lost)
                store_apply(&a->store.now, &nothing);
            else
                value->bytes.bytes[value->bytes.n_bytes / 2] ^= 4;
            agent_start(a);
            for (int j = 0; j < 30 && !sw->is_opened; j++)
                agent_step(a);
            assert_true(a->n_echoes <= 1);
            if (!cases[i].may_open)
                assert_false(sw->is_opened);
            sw->w->f->version++;
            run_another_round(sw);
            assert_int_equal(secure_participants(sw), 1);
            secure_destroy(sw);
        }
}

/* A clock that leaps within a round, to either side, in every phase: the round goes on or is given up for
 * lack of time, and nothing is said in other words. */
static void a_clock_that_jumps_in_mid_round_only_costs_the_round(void **state)
{
    (void)state;
    static const char *const phases[] = {"joining", "sharing", "uploading", "attesting", "unmasking"};
    static const int64_t jumps_ms[] = {-900000, -1, 1000, 400000000};
    for (size_t i = 0; i < ARRAY_LEN(phases); i++)
        for (size_t k = 0; k < ARRAY_LEN(jumps_ms); k++) {
            secure_world *sw = one_ready();
            agent *a = &sw->agents[0];
            linnet_error err = {0};
            agent_until(a, phases[i]);
            sw->w->now_ms += jumps_ms[k];
            assert_ok(linnet_device_poll(a->device, sw->w->now_ms, &err), &err);
            for (int j = 0; j < 30 && !sw->is_opened && a->last_abort < 0; j++)
                agent_step(a);
            bool has_unmasked =
                strcmp(phases[i], "unmasking") == 0; /* or would have: there is no abort then */
            assert_true(sw->is_opened ||
                        (jumps_ms[k] > 1000 && (has_unmasked || a->last_abort == LINNET_ABORT_TIME)));
            assert_true(a->n_echoes <= 1);
            sw->w->f->version++;
            run_another_round(sw);
            assert_int_equal(secure_participants(sw), 1);
            secure_destroy(sw);
        }
}

/* ---- announcements that are not joined ---- */

typedef void alter_fn(secure_world *sw, linnet_announcement *a);

static void alter_round(secure_world *sw, linnet_announcement *a)
{
    (void)sw;
    a->round = 1;
}
static void alter_release(secure_world *sw, linnet_announcement *a)
{
    a->release = sw->w->f->versions[0];
}
static void alter_profile(secure_world *sw, linnet_announcement *a)
{
    (void)sw;
    a->profile = LINNET_PROFILE_PLAIN;
    a->m_min = a->n_min;
    a->corrupt_permille = 0;
    a->phase_s = 0;
}
static void alter_cohort(secure_world *sw, linnet_announcement *a)
{
    (void)sw;
    a->n_max = 200; /* their sum could wrap */
}
static void alter_wrap(secure_world *sw, linnet_announcement *a)
{
    (void)sw;
    a->vectors[0].clamp = INT32_MAX / (5 * a->vectors[0].weight_max) + 1; /* five of it are too much */
}
static void alter_survivors(secure_world *sw, linnet_announcement *a)
{
    (void)sw;
    a->m_min = 3;
}
static void alter_corrupt(secure_world *sw, linnet_announcement *a)
{
    (void)sw;
    a->corrupt_permille = 10;
}
static void alter_phases(secure_world *sw, linnet_announcement *a)
{
    (void)sw;
    a->phase_s = 1;
}
static void alter_bits(secure_world *sw, linnet_announcement *a)
{
    (void)sw;
    a->vectors[0].exponent++;
}
static void alter_list(secure_world *sw, linnet_announcement *a)
{
    (void)sw;
    a->revocation_number = 7; /* a list that this device has not */
}
static void alter_task(secure_world *sw, linnet_announcement *a)
{
    (void)sw;
    a->task[0] ^= 1;
}
static void alter_key(secure_world *sw, linnet_announcement *a)
{
    a->coordinator = *linnet_identity_public_key(sw->w->f->stranger);
}

static void must_refuse(const char *plan, alter_fn *alter, const char *what)
{
    secure_world *sw = secure_create(plan, 1);
    agent *a = &sw->agents[0];
    linnet_announcement *announced = &sw->w->f->announcement;
    sw->w->f->announces = false;
    agent_until(a, "ready");
    sw->w->f->announces = true;
    secure_until_opened(sw); /* a good one is joined */
    for (int i = 0; i < 10 && !agent_is_in(a, "idle"); i++)
        agent_step(a);
    sw->w->f->version++;
    secure_announce(sw);
    alter(sw, announced);
    fake_sign_announcement(sw->w->f, sw->w->f->identity);
    agent_until(a, "ready");
    size_t n_joins = a->n_joins;
    for (int i = 0; i < 5; i++)
        agent_step(a);
    if (a->n_joins != n_joins || !agent_is_in(a, "ready"))
        fail_msg("joined although %s", what);
    assert_true(strlen(agent_report(a).note) > 0);
    secure_destroy(sw);
}

static void an_announcement_that_is_not_the_plans_is_refused(void **state)
{
    (void)state;
    static const struct {
        alter_fn *alter;
        const char *what;
    } cases[] = {{alter_round, "the round goes back"},
                 {alter_release, "it is for another release"},
                 {alter_profile, "the profile falls to plain"},
                 {alter_cohort, "the cohort is larger than planned"},
                 {alter_wrap, "the sum may wrap"},
                 {alter_survivors, "fewer survivors open a sum"},
                 {alter_corrupt, "fewer corrupt devices are assumed"},
                 {alter_phases, "the phases are shorter"},
                 {alter_bits, "the encoding is another"},
                 {alter_list, "the revocation list is not known"},
                 {alter_task, "the task is another"},
                 {alter_key, "the coordinator's key is another"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        must_refuse(SECURE_PLAN, cases[i].alter, cases[i].what);
}

static void a_round_number_is_joined_once(void **state)
{
    (void)state;
    secure_world *sw = one_ready();
    agent *a = &sw->agents[0];
    agent_until(a, "joining");
    linnet_hash first = sw->w->f->chain;
    sw->w->f->announcement.revocation.bytes[0] ^= 1; /* a second announcement of the same number */
    secure_begin(sw);
    assert_memory_not_equal(&first, &sw->w->f->chain, sizeof(first));
    for (int i = 0; i < 10; i++)
        agent_step(a);
    assert_int_equal(a->n_joins, 0); /* the first is gone, the second refused */
    assert_true(agent_is_in(a, "ready"));
    secure_destroy(sw);
}

/* ---- a coordinator that lies ---- */

static linnet_buffer make_message(secure_world *sw, uint32_t phase)
{
    linnet_answer answer = {0};
    linnet_buffer raw = {0};
    uint32_t lie_phase = sw->lie_phase;
    sw->lie_phase = 0;
    assert_int_equal(secure_due(sw, &sw->agents[0], &answer, &raw), LINNET_OK);
    assert_int_equal(answer.phase, phase);
    sw->lie_phase = lie_phase;
    return raw;
}

/* Each message with one bit of each of its parts changed, in the place of the right one. */
static void a_message_that_fails_a_check_ends_the_round_and_says_why(void **state)
{
    (void)state;
    static const struct {
        uint32_t phase;
        const char *before;
        linnet_abort_reason reason;
        bool is_spent;
    } cases[] = {{LINNET_PHASE_ROSTER, "joining", LINNET_ABORT_ROSTER, false},
                 {LINNET_PHASE_SHARERS, "sharing", LINNET_ABORT_SHARERS, false},
                 {LINNET_PHASE_SURVIVORS, "uploading", LINNET_ABORT_SURVIVORS, true},
                 {LINNET_PHASE_CERTIFICATE, "attesting", LINNET_ABORT_CERTIFICATE, true}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        secure_world *sw = one_ready();
        agent *a = &sw->agents[0];
        agent_until(a, cases[i].before);
        sw->lie_phase = cases[i].phase;
        linnet_buffer_append(&sw->lie, "no message of the protocol", 26);
        for (int j = 0; j < 12 && a->last_abort < 0; j++)
            agent_step(a);
        assert_int_equal(a->last_abort, cases[i].reason);
        assert_int_equal(a->n_sent[LINNET_ROUND_ABORT], 1);
        assert_int_equal(sw->n_lies, 1);
        assert_false(sw->is_opened);
        if (!cases[i].is_spent)
            assert_true(agent_is_in(a, "ready"));
        sw->lie_phase = 0;
        run_another_round(sw);
        assert_int_equal(a->n_sent[LINNET_ROUND_ABORT], 0); /* of the new round */
        secure_destroy(sw);
    }
}

/* A roster of another round, complete and signed. */
static void messages_of_another_round_are_refused(void **state)
{
    (void)state;
    secure_world *sw = one_ready();
    agent *a = &sw->agents[0];
    agent_until(a, "sharing");
    sw->lie = make_message(sw, LINNET_PHASE_ROSTER);
    sw->is_void = true;
    for (int i = 0; i < 5 && !agent_is_in(a, "ready"); i++)
        agent_step(a);
    secure_announce(sw);
    sw->lie_phase = LINNET_PHASE_ROSTER;
    for (int i = 0; i < 12 && a->last_abort < 0; i++)
        agent_step(a);
    assert_int_equal(a->last_abort, LINNET_ABORT_ROSTER);
    assert_int_equal(a->n_sent[LINNET_ROUND_SHARES], 0);
    secure_destroy(sw);
}

/* A second survivor set, signed as well, after the first was attested. */
static void two_survivor_sets_of_one_round_are_never_both_attested(void **state)
{
    (void)state;
    secure_world *sw = one_ready();
    agent *a = &sw->agents[0];
    sw->hides_certificate = true;
    agent_until(a, "attesting");
    linnet_buffer m6 = make_message(sw, LINNET_PHASE_SURVIVORS);
    const linnet_hash *t2 = linnet_secagg_server_t2(sw->server);
    uint8_t *bitmap = m6.bytes + LINNET_SIGNATURE_BYTES;
    int32_t self = linnet_secagg_server_index(sw->server, &a->id);
    uint32_t other = self == 0 ? 1 : 0, at = 0;
    for (uint32_t i = 0; i < other; i++)
        at += linnet_bitmap_has(bitmap, i);
    bitmap[0] = (uint8_t)(bitmap[0] & ~(1u << other)); /* the same list without one puppet */
    uint8_t *list = bitmap + linnet_bitmap_bytes(SECURE_MEMBERS);
    memmove(list + 96 * at, list + 96 * (at + 1), 96 * (SECURE_MEMBERS - 1 - at));
    m6.n_bytes -= 96;
    linnet_hash r = linnet_secagg_survivor_list(list, SECURE_MEMBERS - 1);
    linnet_hash t3 = linnet_secagg_t3(t2, bitmap, SECURE_MEMBERS, &r);
    linnet_signature signature = linnet_sign_hash(sw->w->f->identity, &t3);
    memcpy(m6.bytes, signature.bytes, sizeof(signature.bytes));
    sw->lie_phase = LINNET_PHASE_SURVIVORS;
    sw->lie = m6;
    for (int i = 0; i < 6 && a->last_abort < 0; i++)
        agent_step(a);
    assert_int_equal(a->last_abort, LINNET_ABORT_EQUIVOCATION);
    assert_int_equal(a->n_sent[LINNET_ROUND_UNMASK], 0);
    secure_destroy(sw);
}

static void answers_that_end_a_round_keep_what_has_not_left(void **state)
{
    (void)state;
    static const uint32_t codes[] = {LINNET_ANSWER_GONE, LINNET_ANSWER_REFUSED, LINNET_ANSWER_CONFLICT};
    for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
        secure_world *sw = one_ready();
        agent *a = &sw->agents[0];
        agent_until(a, "sharing");
        sw->lie_code = codes[i];
        for (int j = 0; j < 4 && !agent_is_in(a, "ready"); j++)
            agent_step(a);
        assert_true(agent_is_in(a, "ready"));
        sw->lie_code = 0;
        run_another_round(sw);
        secure_destroy(sw);
    }
}

static void a_phase_that_never_ends_is_given_up(void **state)
{
    (void)state;
    static const char *const phases[] = {"joining", "sharing", "uploading", "attesting"};
    for (size_t i = 0; i < ARRAY_LEN(phases); i++) {
        secure_world *sw = one_ready();
        agent *a = &sw->agents[0];
        if (i < 1)
            sw->want_adverts = 99;
        agent_until(a, phases[i]);
        sw->lie_code = LINNET_ANSWER_WAIT;
        for (int j = 0; j < 200 && a->last_abort < 0; j++)
            agent_step(a);
        assert_int_equal(a->last_abort, LINNET_ABORT_TIME);
        sw->lie_code = 0;
        sw->want_adverts = 1;
        run_another_round(sw);
        secure_destroy(sw);
    }
}

/* ---- differential privacy: the same on the wire whatever the data ---- */

typedef enum noised_case {
    NOISED_USUAL,
    NOISED_NO_RECORDS, /* nothing to train on */
    NOISED_DIVERGES,   /* the training fails */
    NOISED_NAN,        /* the delta holds no numbers */
    NOISED_BAD_LOSS,   /* the release is worse than what is installed */
    NOISED_CASES
} noised_case;

static void poison_delta(agent *a)
{
    linnet_buffer delta = {0}, sealed = {0};
    linnet_error err = {0};
    agent_open_delta(a, &delta);
    linnet_store_f32(delta.bytes + 8, NAN);
    assert_ok(linnet_round_vault_seal(a->vault, "delta", linnet_round_vault_generation(a->vault), delta.bytes,
                                      delta.n_bytes, &sealed, &err),
              &err);
    const linnet_kv_item item = {"delta", sealed.bytes, sealed.n_bytes};
    store_apply(&a->store.now, &item);
    linnet_buffer_release(&delta);
    linnet_buffer_release(&sealed);
}

/* A training whose loss is not finite. */
static bool training_diverges;

linnet_status __real_linnet_trainer_step(linnet_trainer *trainer, linnet_train_step *ret_step,
                                         linnet_error *err);
linnet_status __wrap_linnet_trainer_step(linnet_trainer *trainer, linnet_train_step *ret_step,
                                         linnet_error *err);

linnet_status __wrap_linnet_trainer_step(linnet_trainer *trainer, linnet_train_step *ret_step,
                                         linnet_error *err)
{
    return training_diverges ? linnet_fail(err, LINNET_ERR_RANGE, "the loss is not finite")
                             : __real_linnet_trainer_step(trainer, ret_step, err);
}

static void run_noised(noised_case kind, linnet_buffer *ret_traffic, uint32_t *ret_participants)
{
    static const size_t none[1];
    char plan[sizeof(NOISED_PLAN)];
    memcpy(plan, NOISED_PLAN, sizeof(plan));
    if (kind == NOISED_BAD_LOSS)
        memcpy(strstr(plan, "install_tolerance = 100"), "install_tolerance = 0.5", 23);
    secure_world *sw = secure_create(plan, 1);
    agent *a = &sw->agents[0];
    training_diverges = kind == NOISED_DIVERGES;
    if (kind == NOISED_NO_RECORDS) {
        agent_kill(a);
        a->config.records = none;
        a->config.n_records = 0;
        agent_start(a);
    }
    agent_until(a, "ready");
    assert_int_equal(strstr(agent_report(a).note, "zeros") != NULL,
                     kind == NOISED_NO_RECORDS || kind == NOISED_DIVERGES);
    training_diverges = false;
    if (kind == NOISED_NAN)
        poison_delta(a);
    secure_until_opened(sw);
    for (int i = 0; i < 10 && !agent_is_in(a, "idle"); i++)
        agent_step(a);
    *ret_participants = secure_participants(sw);
    *ret_traffic = a->traffic;
    a->traffic = (linnet_buffer){0};
    secure_destroy(sw);
}

static void with_privacy_the_wire_tells_nothing_about_the_data(void **state)
{
    (void)state;
    linnet_buffer usual = {0};
    uint32_t participants = 0;
    run_noised(NOISED_USUAL, &usual, &participants);
    assert_int_equal(participants, 1);
    for (int kind = NOISED_USUAL + 1; kind < NOISED_CASES; kind++) {
        linnet_buffer traffic = {0};
        run_noised((noised_case)kind, &traffic, &participants);
        assert_int_equal(participants, 1);
        if (traffic.n_bytes != usual.n_bytes || memcmp(traffic.bytes, usual.bytes, usual.n_bytes) != 0)
            fail_msg("case %d is told apart:\n%.*s\nusual:\n%.*s", kind, (int)traffic.n_bytes,
                     (const char *)traffic.bytes, (int)usual.n_bytes, (const char *)usual.bytes);
        linnet_buffer_release(&traffic);
    }
    linnet_buffer_release(&usual);
}

static void with_privacy_the_lanes_hold_participants_alone(void **state)
{
    (void)state;
    secure_world *sw = secure_create(NOISED_PLAN, SECURE_MEMBERS);
    const linnet_announcement *a = &sw->w->f->announcement;
    secure_until_opened(sw);
    assert_int_equal(a->vectors[a->n_vectors - 1].length, 1);
    assert_int_equal(secure_participants(sw), SECURE_MEMBERS);
    secure_destroy(sw);
}

/* The variance of what agents with nothing but zeros and noise, and puppets without noise, add up to: that of
 * n_agents shares, within six deviations of its estimate. */
static void must_hold_noise_of(size_t n_agents)
{
    secure_world *sw = secure_create(NOISED_PLAN, n_agents);
    static const size_t none[1];
    for (size_t i = 0; i < n_agents; i++) {
        agent_kill(&sw->agents[i]);
        sw->agents[i].config.records = none;
        sw->agents[i].config.n_records = 0;
        agent_start(&sw->agents[i]);
    }
    secure_until_opened(sw);
    const linnet_announcement *a = &sw->w->f->announcement;
    double squares = 0, n = (double)a->vectors[0].length, want = (double)n_agents * (double)a->dp_sigma2;
    linnet_secagg_thresholds t = linnet_secagg_thresholds_of(&sw->params, SECURE_MEMBERS);
    assert_true(n_agents >= a->m_min - t.corrupt); /* what the epsilon counts on */
    for (size_t j = 0; j < a->vectors[0].length; j++)
        squares += pow((double)(int32_t)sw->sums[0][j], 2);
    assert_true(fabs(squares / n - want) < 6 * want * sqrt(2 / n));
    secure_destroy(sw);
}

static void the_opened_sum_carries_everybodys_noise(void **state)
{
    (void)state;
    must_hold_noise_of(SECURE_MEMBERS);
}

static void devices_that_omit_their_noise_leave_that_of_the_others(void **state)
{
    (void)state;
    must_hold_noise_of(SECURE_MEMBERS - 1); /* C = 1 */
}

static void alter_noise(secure_world *sw, linnet_announcement *a)
{
    (void)sw;
    a->dp_sigma2--;
}
static void alter_clip(secure_world *sw, linnet_announcement *a)
{
    (void)sw;
    a->dp_clip *= 2;
}
static void alter_noise_away(secure_world *sw, linnet_announcement *a)
{
    (void)sw;
    a->profile = LINNET_PROFILE_SECURE;
    a->dp_mechanism = a->dp_unit = 0;
    a->dp_sigma2 = 0;
    a->dp_clip = 0;
    a->dp_rotates = false;
}
static void less_noise_than_the_plans_is_refused(void **state)
{
    (void)state;
    static const struct {
        alter_fn *alter;
        const char *what;
    } cases[] = {{alter_noise, "there is less noise"},
                 {alter_clip, "the clip is another"},
                 {alter_noise_away, "the profile falls to secure"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        must_refuse(NOISED_PLAN, cases[i].alter, cases[i].what);
}

/* ---- the ledger of privacy ---- */

typedef struct budget {
    char directory[64];
    linnet_budget_ledger *ledger;
} budget;

static budget budget_open(void)
{
    budget b = {.directory = "/tmp/linnet-budget-XXXXXX"};
    linnet_error err = {0};
    assert_non_null(mkdtemp(b.directory));
    assert_ok(linnet_budget_ledger_open(b.directory, &b.ledger, &err), &err);
    return b;
}

static void budget_close(budget *b)
{
    char command[96];
    linnet_budget_ledger_close(b->ledger);
    (void)snprintf(command, sizeof(command), "rm -r '%s'", b->directory); /* made by mkdtemp above */
    assert_int_equal(system(command), 0);
}

static uint64_t spent_rounds(const budget *b)
{
    linnet_privacy_total total;
    linnet_error err = {0};
    assert_ok(linnet_budget_ledger_total(b->ledger, NULL, &total, &err), &err);
    return total.n_entries;
}

static secure_world *one_ready_with(const budget *b, double dp_epsilon_max)
{
    secure_world *sw = secure_create(NOISED_PLAN, 1);
    agent *a = &sw->agents[0];
    agent_kill(a);
    a->config.ledger = b->ledger;
    a->config.policy.dp_epsilon_max = dp_epsilon_max;
    agent_start(a);
    return sw;
}

static void a_round_is_counted_from_its_upload_on_and_void_or_not(void **state)
{
    (void)state;
    budget b = budget_open();
    secure_world *sw = one_ready_with(&b, 0);
    agent *a = &sw->agents[0];
    agent_until(a, "sharing");
    assert_int_equal(spent_rounds(&b), 0);
    agent_until(a, "uploading"); /* no byte has left yet */
    assert_int_equal(spent_rounds(&b), 1);
    sw->is_void = true;
    for (int i = 0; i < 10 && !agent_is_in(a, "ready"); i++)
        agent_step(a);
    assert_int_equal(spent_rounds(&b), 1);
    run_another_round(sw);
    assert_int_equal(spent_rounds(&b), 2);
    linnet_device_report report = agent_report(a);
    assert_true(report.has_budget && report.dp_epsilon > 0 && isfinite(report.dp_epsilon));
    secure_destroy(sw);
    budget_close(&b);
}

static void a_certificate_without_the_device_gives_its_epsilon_back(void **state)
{
    (void)state;
    budget b = budget_open();
    secure_world *sw = one_ready_with(&b, 0);
    agent *a = &sw->agents[0];
    agent_until(a, "uploading");
    assert_int_equal(spent_rounds(&b), 1);
    secure_freeze(sw);
    for (int i = 0; i < 10 && !agent_is_in(a, "ready"); i++)
        agent_step(a);
    assert_int_equal(spent_rounds(&b), 0);
    secure_destroy(sw);
    budget_close(&b);
}

/* The limit of the owner, and the rounds that fit; the device stays away from the next one. */
static void no_round_is_joined_that_passes_the_limit(void **state)
{
    (void)state;
    budget b = budget_open();
    secure_world *sw = one_ready_with(&b, 0);
    agent *a = &sw->agents[0];
    linnet_privacy privacy;
    linnet_rdp rdp = {{0}};
    linnet_error err = {0};
    assert_ok(linnet_plan_privacy(&sw->w->f->plan, sw->w->f->layout, 0, &privacy, &err), &err);
    linnet_privacy_spend(&privacy, 2, &rdp);
    agent_kill(a);
    a->config.policy.dp_epsilon_max = 1.001 * linnet_dp_epsilon(&rdp, a->config.policy.dp_delta, NULL);
    agent_start(a);
    for (uint64_t round = 1; round <= 3; round++) {
        for (int i = 0; i < 40 && !sw->is_opened; i++)
            agent_step(a);
        assert_int_equal(sw->is_opened, round <= 2);
        for (int i = 0; i < 10 && !agent_is_in(a, "idle") && round <= 2; i++)
            agent_step(a);
        sw->w->f->version++;
        secure_announce(sw);
    }
    assert_non_null(strstr(agent_report(a).note, "epsilon"));
    assert_int_equal(spent_rounds(&b), 2);
    agent_kill(a); /* and it says so to who asks the store alone */
    linnet_device_report report;
    assert_ok(linnet_device_status_of(&a->kv, &report, &err), &err);
    assert_non_null(strstr(report.note, "epsilon"));
    assert_int_equal(report.profile, LINNET_PROFILE_SECURE_DP);
    secure_destroy(sw);
    budget_close(&b);
}

/* Two tasks on the same texts: what one spends the other cannot. */
static void two_tasks_draw_on_one_budget(void **state)
{
    (void)state;
    budget b = budget_open();
    secure_world *first = one_ready_with(&b, 0);
    secure_until_opened(first);
    linnet_device_report report = agent_report(&first->agents[0]);
    secure_world *second = one_ready_with(&b, 1.5 * report.dp_epsilon);
    agent *a = &second->agents[0];
    double alone = report.dp_epsilon;
    for (int i = 0; i < 40 && !second->is_opened; i++)
        agent_step(a);
    linnet_rdp rdp = {{0}};
    linnet_privacy privacy;
    linnet_error err = {0};
    assert_ok(linnet_plan_privacy(&second->w->f->plan, second->w->f->layout, 0, &privacy, &err), &err);
    linnet_privacy_spend(&privacy, 2, &rdp);
    bool fits = linnet_dp_epsilon(&rdp, 1e-5, NULL) <= 1.5 * alone;
    assert_int_equal(second->is_opened, fits);
    assert_int_equal(spent_rounds(&b), fits ? 2 : 1);
    secure_destroy(first);
    secure_destroy(second);
    budget_close(&b);
}

/* Killed between the ledger and the store, or with the store failing: too much is counted, never too
 * little. */
static void a_kill_never_counts_too_little(void **state)
{
    (void)state;
    static const store_failure failures[] = {STORE_LOSES, STORE_PRETENDS, STORE_IS_FULL};
    for (size_t k = 1; k <= 8; k++)
        for (size_t i = 0; i < ARRAY_LEN(failures); i++) {
            budget b = budget_open();
            secure_world *sw = one_ready_with(&b, 0);
            agent *a = &sw->agents[0];
            linnet_error err = {0};
            linnet_status status = LINNET_OK;
            agent_until(a, "ready");
            a->store.fails_at = a->store.n_puts + k;
            a->store.failure = failures[i];
            for (int j = 0; j < 60 && !sw->is_opened && status == LINNET_OK; j++)
                status = agent_try(a, &err);
            if (status != LINNET_OK) {
                agent_kill(a);
                agent_start(a);
                for (int j = 0; j < 20 && !sw->is_opened; j++)
                    agent_step(a);
            }
            assert_true(spent_rounds(&b) >= a->n_echoes);
            secure_destroy(sw);
            budget_close(&b);
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
        cmocka_unit_test(a_void_round_spends_the_delta_once_its_upload_has_begun),
        cmocka_unit_test(a_delta_of_a_void_round_never_comes_again),
        cmocka_unit_test(a_certificate_without_the_device_frees_its_delta),
        cmocka_unit_test(no_old_copy_of_the_state_brings_a_spent_delta_back),
        cmocka_unit_test(an_old_copy_in_mid_round_is_a_drop_out),
        cmocka_unit_test(no_back_off_sleeps_through_a_phase),
        cmocka_unit_test(a_reboot_in_mid_round_drops_it_and_keeps_the_ledger),
        cmocka_unit_test(of_two_clones_only_one_has_the_delta),
        cmocka_unit_test(a_state_from_another_machine_is_refused),
        cmocka_unit_test(a_damaged_value_of_the_store_costs_at_most_the_round),
        cmocka_unit_test(a_clock_that_jumps_in_mid_round_only_costs_the_round),
        cmocka_unit_test(an_announcement_that_is_not_the_plans_is_refused),
        cmocka_unit_test(a_round_number_is_joined_once),
        cmocka_unit_test(a_message_that_fails_a_check_ends_the_round_and_says_why),
        cmocka_unit_test(messages_of_another_round_are_refused),
        cmocka_unit_test(two_survivor_sets_of_one_round_are_never_both_attested),
        cmocka_unit_test(answers_that_end_a_round_keep_what_has_not_left),
        cmocka_unit_test(a_phase_that_never_ends_is_given_up),
        cmocka_unit_test(with_privacy_the_wire_tells_nothing_about_the_data),
        cmocka_unit_test(with_privacy_the_lanes_hold_participants_alone),
        cmocka_unit_test(the_opened_sum_carries_everybodys_noise),
        cmocka_unit_test(devices_that_omit_their_noise_leave_that_of_the_others),
        cmocka_unit_test(less_noise_than_the_plans_is_refused),
        cmocka_unit_test(a_round_is_counted_from_its_upload_on_and_void_or_not),
        cmocka_unit_test(a_certificate_without_the_device_gives_its_epsilon_back),
        cmocka_unit_test(no_round_is_joined_that_passes_the_limit),
        cmocka_unit_test(two_tasks_draw_on_one_budget),
        cmocka_unit_test(a_kill_never_counts_too_little),
    };
    if (linnet_crypto_init(NULL) != LINNET_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
