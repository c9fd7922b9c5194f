/* SPDX-License-Identifier: Apache-2.0 */
/* An agent in rounds where anything happens, in any order: kills, reboots, old copies of its state, a store
 * that fails, a clock that jumps, lost answers, void rounds, new ones, certificates without it, messages with
 * a bit flipped. The world watches what leaves it: one M3, one Hy, one T3 and one M9 a round, and never a
 * delta in two M5 (SECURE-AGGREGATION 6.2, 7). After all that it must still be able to take part. */
#include "client/secure_world.h"

#include "linnet/rng.h"

enum { RUNS = 40, STEPS = 160, LAST_VERSION = 3 };

typedef struct chaos {
    secure_world *sw;
    agent *a;
    size_t n_enrolled; /* copies of the store until then */
    linnet_rng rng;
} chaos;

static uint32_t draw(chaos *c, uint32_t n)
{
    return (uint32_t)linnet_rng_below(&c->rng, n);
}

/* ---- what happens to the process and its state ---- */

static void restart(chaos *c)
{
    agent_kill(c->a);
    c->a->store.fails_at = 0;
    agent_start(c->a);
}

static void reboot(chaos *c)
{
    linnet_error err = {0};
    agent_kill(c->a);
    c->a->store.fails_at = 0;
    linnet_round_vault_close(c->a->vault);
    assert_ok(linnet_round_vault_open_memory(&c->a->vault, &err), &err);
    c->a->config.vault = c->a->vault;
    agent_start(c->a);
}

/* One of the last copies, or the very last state: with the volatile file or without. */
static void restore(chaos *c)
{
    store *s = &c->a->store;
    size_t back = draw(c, 8);
    agent_kill(c->a);
    s->fails_at = 0;
    if (back > s->n_copies - c->n_enrolled)
        back = s->n_copies - c->n_enrolled;
    store_state_copy(&s->copies[s->n_copies - 1 - back], &s->now);
    c->sw->knows_second_adverts = true;
    agent_start(c->a);
    if (draw(c, 2) == 0)
        reboot(c);
}

static void break_store(chaos *c)
{
    static const store_failure failures[] = {STORE_LOSES, STORE_PRETENDS, STORE_IS_FULL};
    c->a->store.fails_at = c->a->store.n_puts + 1 + draw(c, 2);
    c->a->store.failure = failures[draw(c, ARRAY_LEN(failures))];
}

/* ---- what the coordinator does ---- */

static void announce(chaos *c)
{
    secure_world *sw = c->sw;
    if (sw->is_opened && sw->w->f->version < LAST_VERSION)
        sw->w->f->version++;
    sw->knows_second_adverts = false;
    secure_announce(sw);
}

static void freeze_without_it(chaos *c)
{
    if (!c->sw->is_void && !c->a->is_accepted &&
        linnet_secagg_server_phase_of(c->sw->server) == LINNET_SERVER_SHARERS)
        secure_freeze(c->sw);
}

static void answer_otherwise(chaos *c)
{
    static const uint32_t codes[] = {0, 0, 0, LINNET_ANSWER_WAIT, LINNET_ANSWER_GONE, LINNET_ANSWER_REFUSED};
    c->sw->lie_code = codes[draw(c, ARRAY_LEN(codes))];
}

/* ---- a run ---- */

static void step(chaos *c)
{
    linnet_error err = {0};
    linnet_status status = agent_try(c->a, &err);
    if (status == LINNET_ERR_IO)
        restart(c);
    else if (status != LINNET_OK)
        assert_int_equal(status, LINNET_ERR_NO_SPACE);
}

static void happen(chaos *c)
{
    static const int64_t jumps_ms[] = {-1000000000, -60000, 60000, 1000000000};
    switch (draw(c, 40)) {
    case 0:
    case 1:
        restart(c);
        break;
    case 2:
        reboot(c);
        break;
    case 3:
        restore(c);
        break;
    case 4:
        break_store(c);
        break;
    case 5:
        c->sw->is_void = true;
        break;
    case 6:
        announce(c);
        break;
    case 7:
        freeze_without_it(c);
        break;
    case 8:
        answer_otherwise(c);
        break;
    case 9:
        c->sw->loses_answers = !c->sw->loses_answers;
        break;
    case 10:
        c->sw->flips_bit = 1 + draw(c, 1u << 16);
        break;
    case 11:
        c->sw->w->now_ms += jumps_ms[draw(c, ARRAY_LEN(jumps_ms))];
        break;
    default:
        step(c);
    }
}

/* Once opened, the sum holds exactly what was accepted. */
static void look(chaos *c)
{
    if (c->sw->is_opened)
        assert_int_equal(secure_participants(c->sw), c->a->is_accepted);
    if ((c->sw->is_opened || c->sw->is_void) && draw(c, 8) == 0)
        announce(c);
}

static bool takes_part(chaos *c)
{
    announce(c);
    for (int i = 0; i < 80 && !c->sw->is_opened; i++)
        step(c);
    return c->sw->is_opened && secure_participants(c->sw) == 1;
}

static void a_run(uint64_t seed, size_t *n_uploads, size_t *n_opened)
{
    chaos c = {.sw = secure_create(SECURE_PLAN, 1)};
    c.a = &c.sw->agents[0];
    c.n_enrolled = c.a->store.n_copies;
    linnet_rng_init(&c.rng, seed, 0);
    for (int i = 0; i < STEPS && c.a->n_echoes < 12; i++) {
        bool was_opened = c.sw->is_opened;
        happen(&c);
        look(&c);
        *n_opened += c.sw->is_opened && !was_opened;
    }
    *n_uploads += c.a->n_echoes;
    c.sw->lie_code = c.sw->flips_bit = 0;
    c.sw->loses_answers = false;
    c.sw->w->f->version = LAST_VERSION + 1;
    c.sw->w->now_ms = 2000000;
    restart(&c);
    if (!takes_part(&c) && !takes_part(&c) && !takes_part(&c))
        fail_msg("seed %llu: it takes part no more: %s", (unsigned long long)seed, agent_report(c.a).note);
    secure_destroy(c.sw);
}

static void whatever_happens_no_promise_is_broken_twice(void **state)
{
    (void)state;
    size_t n_uploads = 0, n_opened = 0;
    uint64_t first = 1;
    const char *given = getenv("LINNET_TEST_SEED");
    if (given)
        first = strtoull(given, NULL, 10);
    for (uint64_t run = 0; run < RUNS; run++) {
        print_message("seed %llu\n", (unsigned long long)(first + run));
        a_run(first + run, &n_uploads, &n_opened);
    }
    print_message("%zu uploads, %zu sums opened\n", n_uploads, n_opened);
    assert_true(n_uploads > RUNS && n_opened > RUNS / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_happens_no_promise_is_broken_twice),
    };
    if (linnet_crypto_init(NULL) != LINNET_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
