/* SPDX-License-Identifier: Apache-2.0 */
/* What a device gets back that asks for its receipts: every contribution that was accepted, its own alone,
 * the bytes that it was given at first (SECURE-AGGREGATION 3.4). */
#include "secure_fixture.h"

#include "linnet/receipt_list.h"

enum { ROUNDS = 3 };

/* Receipts as they were first given. */
typedef struct kept {
    bool is_there[ROUNDS + 1][COHORT];
    uint8_t receipts[ROUNDS + 1][COHORT][LINNET_SIGNED_RECEIPT_BYTES];
} kept;

static void keep(kept *k, const device *d, uint64_t round, size_t i)
{
    if (d->answer.n_receipt == 0)
        return;
    memcpy(k->receipts[round][i], d->answer.receipt, LINNET_SIGNED_RECEIPT_BYTES);
    k->is_there[round][i] = true;
}

/* A round in which the first n_stay members upload; with too few of them it is void. */
static void play(scene *s, member *m, uint64_t round, size_t n_stay, kept *k)
{
    for (size_t i = 0; i < COHORT; i++)
        (void)member_join(&m[i]);
    (void)scene_tick(s);
    for (size_t i = 0; i < COHORT; i++)
        (void)member_step(&m[i]);
    for (int times = 0; times < 4; times++) {
        for (size_t i = 0; i < n_stay; i++) {
            (void)member_step(&m[i]);
            keep(k, &m[i].d, round, i);
        }
        s->now_ms += times == 0 && n_stay < COHORT ? 21 * 1000 : 0;
        (void)scene_tick(s);
    }
}

static int ask_with(device *d, const linnet_hash *announcement, const uint8_t *query, size_t n_query)
{
    linnet_error err = {0};
    linnet_buffer header = {0};
    const linnet_round_message message = {.announcement = *announcement, .kind = LINNET_ROUND_RECEIPTS};
    assert_ok(linnet_round_message_pack(&message, &header, &err), &err);
    int status = device_call(d, LINNET_PATH_ROUND, &header, query, n_query);
    linnet_buffer_release(&header);
    return status;
}

static linnet_receipt_list ask(device *d, uint64_t first)
{
    static const linnet_hash none;
    uint8_t query[LINNET_RECEIPT_QUERY_BYTES];
    linnet_receipt_list list;
    linnet_error err = {0};
    linnet_store_le64(query, first);
    assert_int_equal(ask_with(d, &none, query, sizeof(query)), 200);
    assert_int_equal(d->answer.code, LINNET_ANSWER_OK);
    assert_ok(linnet_receipt_list_open(d->raw.bytes, d->raw.n_bytes, &list, &err), &err);
    return list;
}

static linnet_receipt_owner owner_of(const device *d)
{
    linnet_receipt_owner owner = {.coordinator = d->scene->key,
                                  .device = *linnet_identity_public_key(d->identity)};
    memcpy(owner.task, d->scene->coordinator->task, sizeof(owner.task));
    return owner;
}

/* From this round on exactly what was kept, in order, and proven by the device's own check. */
static void assert_kept(device *d, uint64_t first, const kept *k, size_t i)
{
    linnet_receipt_owner owner = owner_of(d);
    linnet_receipt_list list = ask(d, first);
    linnet_receipt_item item;
    linnet_proven_receipt proven;
    linnet_error err = {0};
    for (uint64_t round = first < 1 ? 1 : first; round <= ROUNDS; round++) {
        if (!k->is_there[round][i])
            continue;
        assert_true(linnet_receipt_list_next(&list, &item));
        assert_ok(linnet_receipt_item_prove(&item, &owner, &proven, &err), &err);
        assert_int_equal(proven.announcement.round, round);
        assert_memory_equal(item.receipt, k->receipts[round][i], LINNET_SIGNED_RECEIPT_BYTES);
    }
    assert_false(linnet_receipt_list_next(&list, &item));
}

/* Closed, void and still open; across a restart, and again. */
static void every_accepted_contribution_comes_back_byte_for_byte(void **state)
{
    (void)state;
    scene s;
    member m[COHORT];
    kept k = {0};
    linnet_plan plan = secure_plan();
    scene_begin(&s, &plan);
    members_begin(m, COHORT, &s);
    play(&s, m, 1, COHORT, &k);
    play(&s, m, 2, 3, &k);
    play(&s, m, 3, COHORT - 1, &k);
    assert_int_equal(round_state(&s, 1), LINNET_ROUND_CLOSED);
    assert_int_equal(round_state(&s, 2), LINNET_ROUND_VOID);
    assert_true(k.is_there[2][0] && !k.is_there[2][3] && k.is_there[3][0] && !k.is_there[3][COHORT - 1]);
    for (int restarts = 0; restarts < 2; restarts++) {
        for (size_t i = 0; i < COHORT; i++)
            for (uint64_t first = 0; first <= ROUNDS + 1; first++)
                assert_kept(&m[i].d, first, &k, i);
        scene_reopen(&s);
    }
    members_end(m, COHORT);
    scene_end(&s);
}

static void who_never_contributed_gets_the_end_at_once(void **state)
{
    (void)state;
    scene s;
    member m[COHORT];
    device other;
    kept k = {0};
    linnet_plan plan = secure_plan();
    scene_begin(&s, &plan);
    members_begin(m, COHORT, &s);
    device_enrolled(&other, &s, 77);
    assert_int_equal(ask(&other, 0).n_items, 0);
    play(&s, m, 1, COHORT, &k);
    assert_int_equal(ask(&other, 0).n_items, 0);
    assert_int_equal(ask(&m[0].d, UINT64_MAX).n_items, 0);
    device_end(&other);
    members_end(m, COHORT);
    scene_end(&s);
}

/* The same in a task without masks, where a round is announced again and some joined before. */
static void without_masks_the_announcement_is_the_one_that_was_joined(void **state)
{
    (void)state;
    scene s;
    device d[3];
    kept k = {0};
    linnet_error err = {0};
    linnet_plan plan = scene_plan();
    scene_begin(&s, &plan);
    devices_begin(d, ARRAY_LEN(d), &s);
    device_contribute(&d[0]);
    keep(&k, &d[0], 1, 0);
    assert_ok(linnet_coordinator_revoke(s.coordinator, &d[2].id, &err), &err);
    device_contribute(&d[1]);
    keep(&k, &d[1], 1, 1);
    assert_memory_not_equal(&d[0].chain, &d[1].chain, sizeof(d[0].chain));
    assert_kept(&d[0], 0, &k, 0);
    assert_kept(&d[1], 0, &k, 1);
    devices_end(d, ARRAY_LEN(d));
    scene_end(&s);
}

static void a_malformed_question_is_no_question(void **state)
{
    (void)state;
    scene s;
    device d;
    linnet_plan plan = secure_plan();
    const uint8_t query[LINNET_RECEIPT_QUERY_BYTES + 1] = {0};
    const linnet_hash none = {{0}}, some = {{1}};
    scene_begin(&s, &plan);
    device_enrolled(&d, &s, 1);
    for (size_t n = 0; n <= sizeof(query); n++)
        assert_int_equal(ask_with(&d, &none, query, n), n == LINNET_RECEIPT_QUERY_BYTES ? 200 : 400);
    assert_int_equal(ask_with(&d, &some, query, LINNET_RECEIPT_QUERY_BYTES), 400);
    device_end(&d);
    scene_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_accepted_contribution_comes_back_byte_for_byte),
        cmocka_unit_test(who_never_contributed_gets_the_end_at_once),
        cmocka_unit_test(without_masks_the_announcement_is_the_one_that_was_joined),
        cmocka_unit_test(a_malformed_question_is_no_question),
    };
    if (linnet_crypto_init(NULL) != LINNET_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
