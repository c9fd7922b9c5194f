/* SPDX-License-Identifier: Apache-2.0 */

/* The opening of a larger cohort against many hostile members (SECURE-AGGREGATION 2.4, M10): what it
 * survives, whom it blames, and what it costs, counted in decodings and sets of coefficients rather than in
 * time. */

#include "cohort.h"
#include "crypto/secagg_server.h"

#define N 64 /* C = 4, t = 34 */
#define N_U3                                                                                                 \
    60 /* the last four drop out before M5: 59 hold a share of each survivor, 60 one of each drop-out */
#define RADIUS 12
#define TRIES_MAX 4096

/* Linked with --wrap. */
linnet_status __real_linnet_shamir_decode(const uint32_t *points, const linnet_scalar *coefficients,
                                          const linnet_scalar *shares, size_t n, uint32_t threshold,
                                          linnet_scalar *ret_secret, bool *ret_is_wrong);
linnet_status __wrap_linnet_shamir_decode(const uint32_t *points, const linnet_scalar *coefficients,
                                          const linnet_scalar *shares, size_t n, uint32_t threshold,
                                          linnet_scalar *ret_secret, bool *ret_is_wrong);
linnet_status __real_linnet_shamir_coefficients(const uint32_t *points, size_t n,
                                                linnet_scalar *ret_coefficients);
linnet_status __wrap_linnet_shamir_coefficients(const uint32_t *points, size_t n,
                                                linnet_scalar *ret_coefficients);
static uint32_t n_decodings, n_coefficients;

linnet_status __wrap_linnet_shamir_decode(const uint32_t *points, const linnet_scalar *coefficients,
                                          const linnet_scalar *shares, size_t n, uint32_t threshold,
                                          linnet_scalar *ret_secret, bool *ret_is_wrong)
{
    n_decodings++;
    return __real_linnet_shamir_decode(points, coefficients, shares, n, threshold, ret_secret, ret_is_wrong);
}

linnet_status __wrap_linnet_shamir_coefficients(const uint32_t *points, size_t n,
                                                linnet_scalar *ret_coefficients)
{
    n_coefficients++;
    return __real_linnet_shamir_coefficients(points, n, ret_coefficients);
}

/* ---- a cohort that has handed in its unmaskings, and is set back to that before each test ---- */

static cohort c;
static linnet_secagg_server *server; /* c's */
static uint8_t *unmaskings[N];       /* as they were handed in */
static size_t n_unmask;

static int start(void **state)
{
    (void)state;
    cohort_drop drops[N];
    linnet_buffer m8 = {0};
    cohort_init(&c, N, 24);
    server = c.server;
    for (uint32_t i = 0; i < N; i++)
        drops[i] = DROP_NEVER;
    assert_int_equal(cohort_adverts(&c, drops), LINNET_OK);
    for (uint32_t i = 0; i < N; i++)
        drops[i] = cohort_index(&c, i) < N_U3 ? DROP_NEVER : DROP_MASKED;
    assert_int_equal(cohort_shares(&c, drops), LINNET_OK);
    assert_int_equal(cohort_masked(&c, drops), LINNET_OK);
    assert_int_equal(cohort_attested(&c, drops), LINNET_OK);
    assert_int_equal(linnet_secagg_server_make_certificate(server, &m8, NULL), LINNET_OK);
    for (uint32_t i = 0; i < N; i++) {
        linnet_secagg_device *d = c.members[i].device;
        size_t n_bytes;
        if (drops[i] != DROP_NEVER)
            continue;
        assert_int_equal(linnet_secagg_device_take_certificate(d, m8.bytes, m8.n_bytes, NULL), LINNET_OK);
        const uint8_t *m9 = linnet_secagg_device_unmask(d, &n_bytes);
        assert_int_equal(linnet_secagg_server_unmasking(server, m9, n_bytes, true, NULL), LINNET_OK);
    }
    linnet_buffer_release(&m8);
    n_unmask = (size_t)(N - 1) * UNMASK_ENTRY_BYTES;
    for (uint32_t i = 0; i < N_U3; i++) {
        unmaskings[i] = malloc(n_unmask);
        assert_non_null(unmaskings[i]);
        memcpy(unmaskings[i], server->members[i].unmask, n_unmask);
    }
    assert_int_equal(server->thresholds.shares, 34);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < N_U3; i++)
        free(unmaskings[i]);
    cohort_release(&c);
    return 0;
}

static int set_back(void **state)
{
    (void)state;
    server->phase = LINNET_SERVER_FROZEN;
    for (uint32_t i = 0; i < N; i++) {
        server_member *m = &server->members[i];
        m->is_wrong = m->has_secret = false;
        m->blame = 0;
        m->has_unmasked = i < N_U3;
        if (m->has_unmasked)
            memcpy(m->unmask, unmaskings[i], n_unmask);
    }
    n_decodings = n_coefficients = 0;
    return 0;
}

static uint8_t *entry(uint32_t holder, uint32_t owner)
{
    uint32_t slot = owner - (holder < owner); /* all share */
    return server->members[holder].unmask + (size_t)slot * UNMASK_ENTRY_BYTES;
}

static void lie_about(uint32_t holder, uint32_t owner)
{
    linnet_scalar share;
    linnet_scalar_draw(linnet_system_random, NULL, &share);
    if (holder != owner)
        memcpy(entry(holder, owner) + 1, share.bytes, sizeof(share.bytes));
}

static void say_nothing_about(uint32_t holder, uint32_t owner)
{
    if (holder != owner)
        memset(entry(holder, owner), 0, UNMASK_ENTRY_BYTES);
}

/* RADIUS holders got other shares than fit those of the rest. */
static void deal_two_polynomials(uint32_t owner, uint32_t first)
{
    for (uint32_t k = 0; k < RADIUS; k++) {
        uint32_t holder = (first + k) % N_U3;
        if (holder != owner)
            entry(holder, owner)[1] ^= 1;
    }
}

static void assert_opens(void)
{
    linnet_error err = {0};
    assert_ok(linnet_secagg_server_open(server, NULL, &err), &err);
    assert_true(cohort_sum_is_right(&c));
    for (uint32_t i = 0; i < N; i++) {
        static const linnet_scalar nothing;
        assert_memory_equal(&server->members[i].secret, &nothing, sizeof(nothing));
    }
}

/* Exactly first .. first + n - 1 are found wrong. */
static void assert_named(uint32_t first, uint32_t n)
{
    for (uint32_t i = 0; i < N; i++)
        if (server->members[i].is_wrong != (i >= first && i < first + n))
            fail_msg("member %u", (unsigned)i);
}

/* ---- tests ---- */

static void an_honest_cohort_decodes_nothing(void **state)
{
    (void)state;
    assert_opens();
    assert_named(0, 0);
    assert_int_equal(n_decodings, 0);
    assert_int_equal(n_coefficients, 1);
}

/* Twelve liars of 59 holders: of random sets of 34 one in ten million is without them. */
static void half_of_the_holders_beyond_t_may_lie_about_everybody(void **state)
{
    static const uint32_t counts[] = {1, 5, RADIUS};
    for (size_t k = 0; k < ARRAY_LEN(counts); k++)
        for (uint32_t first = 0; first + counts[k] <= N_U3; first += 48) {
            (void)set_back(state);
            for (uint32_t i = first; i < first + counts[k]; i++)
                for (uint32_t owner = 0; owner < N; owner++)
                    lie_about(i, owner);
            assert_opens();
            if (first == 0) /* they are in the first common set */
                assert_named(first, counts[k]);
            assert_true(n_decodings <= 2); /* the first owner may be one of them, and then is not named */
        }
}

static void one_more_fails_at_a_bounded_cost(void **state)
{
    (void)state;
    linnet_error err = {0};
    uint32_t n_wrong = 99;
    for (uint32_t i = 1; i <= RADIUS + 1; i++)
        for (uint32_t owner = 0; owner < N; owner++)
            lie_about(i, owner);
    assert_int_equal(linnet_secagg_server_open(server, &n_wrong, &err), LINNET_ERR_CRYPTO);
    assert_int_equal(n_wrong, 0);
    assert_int_equal(n_decodings, 1);
    assert_true(n_coefficients > 1000 && n_coefficients <= TRIES_MAX + 2);
}

static void a_lie_about_one_owner_costs_one_decoding(void **state)
{
    (void)state;
    for (uint32_t k = 0; k < 10; k++)
        lie_about(k, 20 + k);
    assert_opens();
    assert_named(0, 10);
    assert_int_equal(n_decodings, 10);
}

/* Each makes twelve others look wrong, 32 of 60 in the end, and slows down no other's opening. */
static void a_dealer_of_two_polynomials_costs_one_decoding(void **state)
{
    (void)state;
    for (uint32_t k = 0; k < 10; k++)
        deal_two_polynomials(k, 10 + 2 * k);
    assert_opens();
    assert_true(n_decodings <= 10);
    assert_named(10, 18 + RADIUS);
}

/* Dealers put blame on everybody, so that liars in turn would be no worse than others if each accusation
 * counted the same; but theirs are undivided. */
static void liars_do_not_hide_behind_dealers(void **state)
{
    (void)state;
    const uint32_t n_hostile = 6;
    for (uint32_t k = 0; k < n_hostile; k++)
        deal_two_polynomials(k, n_hostile + k * RADIUS % (N_U3 - n_hostile - RADIUS));
    for (uint32_t owner = n_hostile; owner < N; owner++)
        lie_about(owner % n_hostile, owner);
    assert_opens();
    assert_true(n_decodings <= 2 * n_hostile);
}

/* In turn, so that somebody is silent about each owner: the others serve, and nobody is called wrong. */
static void silent_holders_are_passed_over(void **state)
{
    (void)state;
    const uint32_t n_silent = 6;
    for (uint32_t owner = 0; owner < N; owner++)
        say_nothing_about(owner % n_silent, owner);
    assert_opens();
    assert_named(0, 0);
    assert_true(n_decodings <= n_silent);
}

/* 42 unmaskings are too few for eight liars about the last owner, 60 are not; what was found stays. */
static void a_failed_opening_goes_on_with_more_shares(void **state)
{
    (void)state;
    linnet_error err = {0};
    const uint32_t last = N - 1;
    for (uint32_t k = 0; k < 8; k++)
        lie_about(k, last);
    for (uint32_t i = 42; i < N_U3; i++)
        server->members[i].has_unmasked = false;
    assert_int_equal(linnet_secagg_server_open(server, NULL, &err), LINNET_ERR_CRYPTO);
    assert_string_equal(err.message, "no 34 shares agree on the secret of member 63");
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(server->members[i].has_secret, i != last);
    for (uint32_t i = 42; i < N_U3; i++)
        server->members[i].has_unmasked = true;
    for (uint32_t i = 0; i < N_U3; i++) /* nothing but the last is looked at again */
        for (uint32_t owner = 0; owner < last; owner++)
            lie_about(i, owner);
    assert_opens();
    assert_named(0, 8);
    assert_int_equal(n_decodings, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(an_honest_cohort_decodes_nothing, set_back),
        cmocka_unit_test_setup(half_of_the_holders_beyond_t_may_lie_about_everybody, set_back),
        cmocka_unit_test_setup(one_more_fails_at_a_bounded_cost, set_back),
        cmocka_unit_test_setup(a_lie_about_one_owner_costs_one_decoding, set_back),
        cmocka_unit_test_setup(a_dealer_of_two_polynomials_costs_one_decoding, set_back),
        cmocka_unit_test_setup(liars_do_not_hide_behind_dealers, set_back),
        cmocka_unit_test_setup(silent_holders_are_passed_over, set_back),
        cmocka_unit_test_setup(a_failed_opening_goes_on_with_more_shares, set_back),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
