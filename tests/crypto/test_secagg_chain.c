/* SPDX-License-Identifier: Apache-2.0 */
/* Thresholds, bitmaps and the chain of hashes against the protocol's vectors. */
#include "vectors.h"

#include "linnet/secagg.h"

static void thresholds_are_those_of_the_documents_table(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/secagg.json"), *table = json_object_get(v, "thresholds"), *row;
    size_t i;
    assert_int_equal(json_array_size(table), 12);
    json_array_foreach(table, i, row)
    {
        linnet_secagg_params params = {.corrupt_permille = (uint32_t)vector_integer(row, "permille")};
        linnet_secagg_thresholds t = linnet_secagg_thresholds_of(&params, (uint32_t)vector_integer(row, "n"));
        const uint32_t got[4] = {t.corrupt, t.shares, t.signatures, t.drop_outs};
        for (size_t k = 0; k < 4; k++)
            assert_int_equal(got[k], json_integer_value(json_array_get(json_object_get(row, "want"), k)));
    }
    json_decref(v);
}

/* What the thresholds are for: 2t > k + C and 2q > n + C, and neither larger than needed. */
static void thresholds_outvote_every_corrupt_coalition(void **state)
{
    (void)state;
    for (uint32_t permille = 0; permille <= 300; permille += 7) {
        linnet_secagg_params params = {.corrupt_permille = permille};
        for (uint32_t n = 1; n <= LINNET_SECAGG_MEMBERS_MAX; n++) {
            linnet_secagg_thresholds t = linnet_secagg_thresholds_of(&params, n);
            assert_true(t.corrupt >= 1 && 1000 * t.corrupt >= permille * n);
            assert_true(t.corrupt == 1 || 1000 * (t.corrupt - 1) < permille * n);
            assert_true(2 * t.shares > n - 1 + t.corrupt && 2 * (t.shares - 1) <= n - 1 + t.corrupt);
            assert_true(2 * t.signatures > n + t.corrupt && 2 * (t.signatures - 1) <= n + t.corrupt);
            uint32_t left = n - t.drop_outs;
            assert_true(t.drop_outs == 0 || (left >= t.shares + 1 && left >= t.signatures));
            assert_true(left <= t.shares + 1 || left <= t.signatures);
        }
    }
}

static void smallest_sets_obey_policy_and_threshold(void **state)
{
    (void)state;
    static const struct {
        uint32_t n_min, m_min, sharers_min, survivors_min;
    } cases[] = {{0, 0, 12, 12}, {5, 3, 12, 12}, {16, 3, 16, 12}, {5, 15, 15, 15}, {18, 15, 18, 15}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_secagg_params params = {
            .n_min = cases[i].n_min, .m_min = cases[i].m_min, .corrupt_permille = 50};
        linnet_secagg_thresholds t = linnet_secagg_thresholds_of(&params, 20); /* t = 11 */
        assert_int_equal(t.sharers_min, cases[i].sharers_min);
        assert_int_equal(t.survivors_min, cases[i].survivors_min);
    }
}

static void tiny_rosters_have_no_room_for_drop_outs(void **state)
{
    (void)state;
    linnet_secagg_params params = {.corrupt_permille = 50};
    for (uint32_t n = 0; n <= 3; n++)
        assert_int_equal(linnet_secagg_thresholds_of(&params, n).drop_outs, 0);
    for (uint32_t n = 1; n <= 2; n++) /* never enough sharers: t + 1 > n */
        assert_true(linnet_secagg_thresholds_of(&params, n).sharers_min > n);
    assert_int_equal(linnet_secagg_thresholds_of(&params, 3).sharers_min, 3);
}

static void bitmaps_count_their_bits_and_refuse_unused_ones(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 40; n++) {
        uint8_t bitmap[LINNET_SECAGG_BITMAP_MAX] = {0};
        for (uint32_t i = 0; i < n; i += 3) {
            assert_false(linnet_bitmap_has(bitmap, i));
            linnet_bitmap_set(bitmap, i);
            assert_true(linnet_bitmap_has(bitmap, i));
            assert_int_equal(linnet_bitmap_count(bitmap, n), i / 3 + 1);
        }
        assert_int_equal(linnet_bitmap_check(bitmap, n), LINNET_OK);
        for (uint32_t i = n; i < 8 * linnet_bitmap_bytes(n); i++) {
            uint8_t copy[LINNET_SECAGG_BITMAP_MAX];
            memcpy(copy, bitmap, sizeof(copy));
            linnet_bitmap_set(copy, i);
            assert_int_equal(linnet_bitmap_check(copy, n), LINNET_ERR_FORMAT);
        }
    }
    assert_int_equal(linnet_bitmap_bytes(LINNET_SECAGG_MEMBERS_MAX), LINNET_SECAGG_BITMAP_MAX);
}

typedef struct chain {
    linnet_hash leaves[2], t1, t2, r, t3;
    uint8_t u2[1], u3[1], list[192];
} chain;

static chain chain_of_vectors(const json_t *v)
{
    chain c;
    linnet_hash announcement;
    const json_t *fields = json_object_get(v, "chain");
    vector_copy(v, "sequence", announcement.bytes, 32);
    vector_copy(fields, "U2", c.u2, 1);
    vector_copy(fields, "U3", c.u3, 1);
    for (size_t i = 0; i < 2; i++)
        c.leaves[i] =
            linnet_hash_of(LINNET_LABEL_LEAF,
                           json_string_value(json_array_get(json_object_get(fields, "leaf_texts"), i)), 3);
    memset(c.list, 0x33, 32);
    memset(c.list + 32, 0x44, 64);
    memset(c.list + 96, 0x55, 32);
    memset(c.list + 128, 0x66, 64);
    c.t1 = linnet_secagg_t1(&announcement, c.leaves, 2);
    c.t2 = linnet_secagg_t2(&c.t1, c.u2, 2);
    c.r = linnet_secagg_survivor_list(c.list, 2);
    c.t3 = linnet_secagg_t3(&c.t2, c.u3, 2, &c.r);
    return c;
}

static void chain_matches_the_protocols_vectors(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/secagg.json"), *fields = json_object_get(v, "chain");
    chain c = chain_of_vectors(v);
    linnet_hash attest = linnet_hash_of(LINNET_LABEL_ATTEST, c.t3.bytes, 32);
    linnet_hash vector = linnet_hash_of(LINNET_LABEL_VECTOR, "\1\2\3", 3);
    assert_vector(fields, "leaf_0", c.leaves[0].bytes, 32);
    assert_vector(fields, "T1", c.t1.bytes, 32);
    assert_vector(fields, "T2", c.t2.bytes, 32);
    assert_vector(fields, "R", c.r.bytes, 32);
    assert_vector(fields, "T3", c.t3.bytes, 32);
    assert_vector(fields, "attest", attest.bytes, 32);
    assert_vector(fields, "vector_of_010203", vector.bytes, 32);
    json_decref(v);
}

static void a_leaf_covers_body_signature_and_certificate(void **state)
{
    (void)state;
    uint8_t advert[LINNET_ADVERT_BYTES];
    for (size_t i = 0; i < sizeof(advert); i++)
        advert[i] = (uint8_t)(i * 5);
    linnet_hash want = linnet_hash_of(LINNET_LABEL_LEAF, advert, sizeof(advert));
    linnet_hash before = linnet_secagg_leaf(advert);
    assert_true(linnet_hash_equal(&before, &want));
    for (size_t i = 0; i < sizeof(advert); i++) {
        advert[i] ^= 1;
        linnet_hash after = linnet_secagg_leaf(advert);
        assert_false(linnet_hash_equal(&before, &after));
        advert[i] ^= 1;
    }
}

static void every_link_of_the_chain_binds_what_is_before(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/secagg.json");
    linnet_hash announcement;
    vector_copy(v, "sequence", announcement.bytes, 32);
    chain c = chain_of_vectors(v);
    linnet_hash turned[2] = {c.leaves[1], c.leaves[0]};
    uint8_t other_set[1] = {0x01};
    linnet_hash others[5];
    others[0] = linnet_secagg_t1(&announcement, turned, 2);
    others[1] = linnet_secagg_t1(&announcement, c.leaves, 1);
    announcement.bytes[31] ^= 0x80;
    others[2] = linnet_secagg_t1(&announcement, c.leaves, 2);
    for (size_t i = 0; i < 3; i++) {
        assert_false(linnet_hash_equal(&others[i], &c.t1));
        linnet_hash t2 = linnet_secagg_t2(&others[i], c.u2, 2);
        assert_false(linnet_hash_equal(&t2, &c.t2));
        linnet_hash t3 = linnet_secagg_t3(&t2, c.u3, 2, &c.r);
        assert_false(linnet_hash_equal(&t3, &c.t3));
    }
    others[3] = linnet_secagg_t2(&c.t1, other_set, 2);
    assert_false(linnet_hash_equal(&others[3], &c.t2));
    others[3] = linnet_secagg_t3(&c.t2, other_set, 2, &c.r);
    c.list[191] ^= 1;
    linnet_hash other_list = linnet_secagg_survivor_list(c.list, 2);
    others[4] = linnet_secagg_t3(&c.t2, c.u3, 2, &other_list);
    assert_false(linnet_hash_equal(&others[3], &c.t3));
    assert_false(linnet_hash_equal(&others[4], &c.t3));
    json_decref(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thresholds_are_those_of_the_documents_table),
        cmocka_unit_test(thresholds_outvote_every_corrupt_coalition),
        cmocka_unit_test(smallest_sets_obey_policy_and_threshold),
        cmocka_unit_test(tiny_rosters_have_no_room_for_drop_outs),
        cmocka_unit_test(bitmaps_count_their_bits_and_refuse_unused_ones),
        cmocka_unit_test(chain_matches_the_protocols_vectors),
        cmocka_unit_test(a_leaf_covers_body_signature_and_certificate),
        cmocka_unit_test(every_link_of_the_chain_binds_what_is_before),
    };
    return cmocka_run_group_tests(tests, crypto_start, NULL);
}
