/* SPDX-License-Identifier: Apache-2.0 */
/* Keys, share boxes and masks of linnet-sa1: vectors, and what each of them depends on. */
#include "vectors.h"

#include "linnet/secagg_mask.h"

#include <sodium.h>

static const uint32_t widths[] = {16, 20, 24, 32};

static linnet_scalar scalar_of(uint64_t value)
{
    linnet_scalar scalar = {{0}};
    linnet_store_le64(scalar.bytes, value);
    return scalar;
}

/* ---- keys ---- */

typedef struct kx_pair {
    uint8_t secret[32], public_key[32];
} kx_pair;

static kx_pair pair_of_vectors(const json_t *v, size_t i)
{
    kx_pair pair;
    linnet_hash announcement;
    linnet_device_id device;
    const json_t *fields = json_array_get(json_object_get(v, "kx"), i);
    linnet_scalar r_s = scalar_of(vector_integer(fields, "r_s"));
    vector_copy(v, "sequence", announcement.bytes, 32);
    vector_copy(fields, "device", device.bytes, sizeof(device.bytes));
    linnet_secagg_kx_pair(&r_s, &announcement, &device, pair.secret, pair.public_key);
    assert_vector(fields, "public", pair.public_key, 32);
    return pair;
}

static void pair_key_matches_the_protocols_vector_from_both_ends(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/secagg.json");
    kx_pair a = pair_of_vectors(v, 0), b = pair_of_vectors(v, 1);
    linnet_hash t2, key;
    vector_copy(v, "sequence", t2.bytes, 32);
    assert_int_equal(linnet_secagg_pair_key(a.secret, a.public_key, b.public_key, &t2, &key), LINNET_OK);
    assert_vector(v, "pair_key", key.bytes, 32);
    memset(&key, 0, sizeof(key));
    assert_int_equal(linnet_secagg_pair_key(b.secret, b.public_key, a.public_key, &t2, &key), LINNET_OK);
    assert_vector(v, "pair_key", key.bytes, 32);
    json_decref(v);
}

/* The key that K makes of an X25519 result given by an RFC. */
static linnet_hash pair_key_of(const uint8_t shared[32], const uint8_t a[32], const uint8_t b[32],
                               const linnet_hash *t2)
{
    uint8_t message[96];
    memcpy(message, t2->bytes, 32);
    memcpy(message + 32, memcmp(a, b, 32) < 0 ? a : b, 32);
    memcpy(message + 64, memcmp(a, b, 32) < 0 ? b : a, 32);
    return linnet_hash_keyed(LINNET_LABEL_PAIR_MASK, shared, 32, message, sizeof(message));
}

static void pair_key_hashes_the_x25519_secrets_of_rfc_7748(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/primitives.json"), *one;
    kx_pair pairs[2];
    linnet_hash t2 = {{5}}, want, got;
    uint8_t shared[32];
    size_t i;
    json_array_foreach(json_object_get(v, "x25519"), i, one)
    {
        assert_true(i < 2);
        vector_copy(one, "secret", pairs[i].secret, 32);
        vector_copy(one, "public", pairs[i].public_key, 32);
    }
    vector_copy(v, "x25519_secret", shared, 32);
    want = pair_key_of(shared, pairs[0].public_key, pairs[1].public_key, &t2);
    for (i = 0; i < 2; i++) {
        assert_int_equal(
            linnet_secagg_pair_key(pairs[i].secret, pairs[i].public_key, pairs[1 - i].public_key, &t2, &got),
            LINNET_OK);
        assert_true(linnet_hash_equal(&got, &want));
    }
    assert_int_equal(json_array_size(json_object_get(v, "x25519_products")), 2);
    json_array_foreach(json_object_get(v, "x25519_products"), i, one) /* the second has its top bit set */
    {
        vector_copy(one, "secret", pairs[0].secret, 32);
        vector_copy(one, "public", pairs[1].public_key, 32);
        vector_copy(one, "product", shared, 32);
        want = pair_key_of(shared, pairs[0].public_key, pairs[1].public_key, &t2);
        assert_int_equal(
            linnet_secagg_pair_key(pairs[0].secret, pairs[0].public_key, pairs[1].public_key, &t2, &got),
            LINNET_OK);
        assert_true(linnet_hash_equal(&got, &want));
    }
    json_decref(v);
}

static void pair_key_is_the_same_from_both_ends_and_only_for_one_t2(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        kx_pair a, b;
        linnet_hash t2, from_a, from_b;
        linnet_x25519_draw(a.secret, a.public_key);
        linnet_x25519_draw(b.secret, b.public_key);
        linnet_random_bytes(&t2, sizeof(t2));
        assert_int_equal(linnet_secagg_pair_key(a.secret, a.public_key, b.public_key, &t2, &from_a),
                         LINNET_OK);
        assert_int_equal(linnet_secagg_pair_key(b.secret, b.public_key, a.public_key, &t2, &from_b),
                         LINNET_OK);
        assert_true(linnet_hash_equal(&from_a, &from_b));
        t2.bytes[i] ^= 1;
        assert_int_equal(linnet_secagg_pair_key(b.secret, b.public_key, a.public_key, &t2, &from_b),
                         LINNET_OK);
        assert_false(linnet_hash_equal(&from_a, &from_b));
    }
}

static void top_bit_of_a_public_key_is_ignored_but_hashed(void **state)
{
    (void)state;
    kx_pair a, b;
    linnet_hash t2 = {{7}}, low, high;
    uint8_t with_top[32];
    linnet_x25519_draw(a.secret, a.public_key);
    linnet_x25519_draw(b.secret, b.public_key);
    memcpy(with_top, b.public_key, 32);
    with_top[31] ^= 0x80;
    /* Equal secrets: boxes do not hash the public key, so their keys show that the bit is ignored. */
    linnet_share_box_key box_low, box_high;
    assert_int_equal(linnet_share_box_key_derive(a.secret, b.public_key, &t2, 0, 1, &box_low), LINNET_OK);
    assert_int_equal(linnet_share_box_key_derive(a.secret, with_top, &t2, 0, 1, &box_high), LINNET_OK);
    assert_true(linnet_hash_equal(&box_low.key, &box_high.key));
    assert_int_equal(linnet_secagg_pair_key(a.secret, a.public_key, b.public_key, &t2, &low), LINNET_OK);
    assert_int_equal(linnet_secagg_pair_key(a.secret, a.public_key, with_top, &t2, &high), LINNET_OK);
    assert_false(linnet_hash_equal(&low, &high));
}

/* Encodings of points whose order divides 8, and of the same with the top bit or p added: RFC 7748, section
 * 6.1, asks to look for their result, all zero. */
static const char *const small_order[] = {
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
};

static void keys_of_small_order_are_refused_everywhere(void **state)
{
    (void)state;
    kx_pair own;
    linnet_hash t = {{1}}, key, before;
    linnet_share_box_key box, box_before;
    linnet_x25519_draw(own.secret, own.public_key);
    memset(&key, 0x5a, sizeof(key));
    memset(&box, 0x5a, sizeof(box));
    before = key;
    box_before = box;
    assert_true(linnet_x25519_is_usable(own.public_key));
    for (size_t i = 0; i < 2 * ARRAY_LEN(small_order); i++) {
        uint8_t bad[32];
        assert_int_equal(linnet_hex_read(small_order[i / 2], bad, 32), LINNET_OK);
        bad[31] ^= i % 2 ? 0x80 : 0;
        assert_false(linnet_x25519_is_usable(bad));
        assert_int_equal(linnet_secagg_pair_key(own.secret, own.public_key, bad, &t, &key),
                         LINNET_ERR_CRYPTO);
        assert_int_equal(linnet_share_box_key_derive(own.secret, bad, &t, 0, 1, &box), LINNET_ERR_CRYPTO);
        assert_memory_equal(&key, &before, sizeof(key));
        assert_memory_equal(&box, &box_before, sizeof(box));
    }
}

static void self_keys_match_the_protocols_vectors(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/secagg.json"), *fields = json_object_get(v, "self");
    linnet_hash announcement, t2;
    linnet_device_id device;
    linnet_scalar r_b = scalar_of(vector_integer(fields, "r_b"));
    vector_copy(v, "sequence", announcement.bytes, 32);
    vector_copy(fields, "device", device.bytes, sizeof(device.bytes));
    vector_copy(fields, "T2", t2.bytes, 32);
    linnet_hash commitment = linnet_secagg_self_commitment(&r_b, &announcement, &device);
    linnet_hash key = linnet_secagg_self_key(&r_b, &t2, &device);
    assert_vector(fields, "commitment", commitment.bytes, 32);
    assert_vector(fields, "mask_key", key.bytes, 32);
    json_decref(v);
}

static void device_keys_depend_on_secret_round_and_device(void **state)
{
    (void)state;
    linnet_scalar r = scalar_of(3), other_r = scalar_of(4);
    linnet_hash round = {{1}}, other_round = {{2}};
    linnet_device_id device = {{1}}, other_device = {{2}};
    const linnet_hash keys[] = {
        linnet_secagg_self_key(&r, &round, &device),        linnet_secagg_self_key(&other_r, &round, &device),
        linnet_secagg_self_key(&r, &other_round, &device),  linnet_secagg_self_key(&r, &round, &other_device),
        linnet_secagg_self_commitment(&r, &round, &device),
    };
    uint8_t secrets[4][32], public_keys[4][32];
    linnet_secagg_kx_pair(&r, &round, &device, secrets[0], public_keys[0]);
    linnet_secagg_kx_pair(&other_r, &round, &device, secrets[1], public_keys[1]);
    linnet_secagg_kx_pair(&r, &other_round, &device, secrets[2], public_keys[2]);
    linnet_secagg_kx_pair(&r, &round, &other_device, secrets[3], public_keys[3]);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        for (size_t j = 0; j < i; j++)
            assert_false(linnet_hash_equal(&keys[i], &keys[j]));
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(public_keys[i], public_keys[j], 32);
}

/* ---- share boxes ---- */

typedef struct box_setup {
    kx_pair i, j;
    linnet_hash t1;
    uint8_t nonce[24], box[LINNET_SHARE_BOX_BYTES];
    linnet_scalar s_share, b_share;
} box_setup;

static box_setup sealed_box(void)
{
    box_setup b;
    linnet_share_box_key key;
    linnet_x25519_draw(b.i.secret, b.i.public_key);
    linnet_x25519_draw(b.j.secret, b.j.public_key);
    linnet_random_bytes(&b.t1, sizeof(b.t1));
    linnet_random_bytes(b.nonce, sizeof(b.nonce));
    b.s_share = scalar_of(6);
    b.b_share = scalar_of(17);
    assert_int_equal(linnet_share_box_key_derive(b.i.secret, b.j.public_key, &b.t1, 3, 9, &key), LINNET_OK);
    linnet_share_box_seal(&key, b.nonce, &b.s_share, &b.b_share, b.box);
    return b;
}

static void assert_does_not_open(const linnet_share_box_key *key, const uint8_t *box)
{
    static const linnet_scalar zero;
    linnet_scalar s, b;
    memset(&s, 0x5a, sizeof(s));
    memset(&b, 0x5a, sizeof(b));
    assert_int_equal(linnet_share_box_open(key, box, &s, &b), LINNET_ERR_CRYPTO);
    assert_memory_equal(&s, &zero, sizeof(zero));
    assert_memory_equal(&b, &zero, sizeof(zero));
}

static void share_box_matches_the_protocols_vector(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/secagg.json"), *fields = json_object_get(v, "box");
    uint8_t secret_i[32], secret_j[32], nonce[24], box[LINNET_SHARE_BOX_BYTES], public_i[32], public_j[32];
    linnet_hash t1;
    linnet_share_box_key key, from_j;
    vector_copy(fields, "secret_i", secret_i, 32);
    vector_copy(fields, "secret_j", secret_j, 32);
    vector_copy(fields, "nonce", nonce, sizeof(nonce));
    vector_copy(fields, "T1", t1.bytes, 32);
    assert_int_equal(crypto_scalarmult_curve25519_base(public_i, secret_i), 0);
    assert_int_equal(crypto_scalarmult_curve25519_base(public_j, secret_j), 0);
    assert_int_equal(linnet_share_box_key_derive(secret_i, public_j, &t1, 0, 1, &key), LINNET_OK);
    assert_int_equal(linnet_share_box_key_derive(secret_j, public_i, &t1, 0, 1, &from_j), LINNET_OK);
    assert_vector(fields, "key", key.key.bytes, 32);
    assert_memory_equal(&key, &from_j, sizeof(key));
    linnet_scalar six = scalar_of(6), seventeen = scalar_of(17), s, b;
    linnet_share_box_seal(&key, nonce, &six, &seventeen, box);
    assert_memory_equal(box, nonce, sizeof(nonce));
    assert_vector(fields, "ciphertext", box + sizeof(nonce), sizeof(box) - sizeof(nonce));
    assert_int_equal(linnet_share_box_open(&from_j, box, &s, &b), LINNET_OK);
    assert_memory_equal(&s, &six, sizeof(s));
    assert_memory_equal(&b, &seventeen, sizeof(b));
    json_decref(v);
}

static void share_box_opens_only_for_its_ends_indices_and_roster(void **state)
{
    (void)state;
    box_setup b = sealed_box();
    kx_pair stranger;
    linnet_share_box_key key;
    linnet_scalar s_share, b_share;
    linnet_hash other_t1 = b.t1;
    linnet_x25519_draw(stranger.secret, stranger.public_key);
    other_t1.bytes[0] ^= 1;
    const struct {
        const char *name;
        const uint8_t *secret, *peer;
        const linnet_hash *t1;
        uint32_t from, to;
        bool opens;
    } cases[] = {
        {"the receiver", b.j.secret, b.i.public_key, &b.t1, 3, 9, true},
        {"the sender", b.i.secret, b.j.public_key, &b.t1, 3, 9, true},
        {"turned round", b.j.secret, b.i.public_key, &b.t1, 9, 3, false},
        {"another sender's index", b.j.secret, b.i.public_key, &b.t1, 4, 9, false},
        {"another receiver's index", b.j.secret, b.i.public_key, &b.t1, 3, 8, false},
        {"another roster", b.j.secret, b.i.public_key, &other_t1, 3, 9, false},
        {"a stranger", stranger.secret, b.i.public_key, &b.t1, 3, 9, false},
        {"a stranger's key", b.j.secret, stranger.public_key, &b.t1, 3, 9, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(linnet_share_box_key_derive(cases[i].secret, cases[i].peer, cases[i].t1,
                                                     cases[i].from, cases[i].to, &key),
                         LINNET_OK);
        if (!cases[i].opens) {
            assert_does_not_open(&key, b.box);
            continue;
        }
        assert_int_equal(linnet_share_box_open(&key, b.box, &s_share, &b_share), LINNET_OK);
        assert_memory_equal(&s_share, &b.s_share, sizeof(s_share));
        assert_memory_equal(&b_share, &b.b_share, sizeof(b_share));
    }
}

static void share_box_with_any_bit_changed_does_not_open(void **state)
{
    (void)state;
    box_setup b = sealed_box();
    linnet_share_box_key key;
    assert_int_equal(linnet_share_box_key_derive(b.j.secret, b.i.public_key, &b.t1, 3, 9, &key), LINNET_OK);
    for (size_t bit = 0; bit < 8 * sizeof(b.box); bit++) {
        b.box[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_does_not_open(&key, b.box);
        b.box[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t bit = 0; bit < 8 * sizeof(key.ad); bit++) {
        key.ad[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_does_not_open(&key, b.box);
        key.ad[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void share_box_with_a_scalar_that_is_not_canonical_does_not_open(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/secagg.json");
    box_setup b = sealed_box();
    linnet_share_box_key key;
    linnet_scalar bad, s, t;
    vector_copy(v, "order", bad.bytes, LINNET_SCALAR_BYTES);
    assert_int_equal(linnet_share_box_key_derive(b.j.secret, b.i.public_key, &b.t1, 3, 9, &key), LINNET_OK);
    linnet_share_box_seal(&key, b.nonce, &bad, &b.b_share, b.box);
    assert_does_not_open(&key, b.box);
    linnet_share_box_seal(&key, b.nonce, &b.s_share, &bad, b.box);
    assert_does_not_open(&key, b.box);
    vector_copy(v, "order_less_one", bad.bytes, LINNET_SCALAR_BYTES);
    linnet_share_box_seal(&key, b.nonce, &bad, &bad, b.box);
    assert_int_equal(linnet_share_box_open(&key, b.box, &s, &t), LINNET_OK);
    assert_memory_equal(&s, &bad, sizeof(s));
    json_decref(v);
}

/* A share of r_s taken for one of r_b, and the other way round, rebuilds another secret, and the public key
 * and the commitment show it. */
static void swapped_kinds_of_shares_are_found_out(void **state)
{
    (void)state;
    static const uint32_t points[4] = {1, 2, 3, 4};
    linnet_hash announcement = {{1}};
    linnet_device_id device = {{2}};
    linnet_scalar secrets[2], shares[2][4], coefficients[3], rebuilt[2];
    uint8_t secret_key[32], want_public[32], got_public[32];
    for (size_t kind = 0; kind < 2; kind++) {
        linnet_scalar_draw(linnet_system_random, NULL, &secrets[kind]);
        assert_int_equal(
            linnet_shamir_share(&secrets[kind], 3, points, 4, linnet_system_random, NULL, shares[kind]),
            LINNET_OK);
    }
    linnet_secagg_kx_pair(&secrets[0], &announcement, &device, secret_key, want_public);
    linnet_hash want = linnet_secagg_self_commitment(&secrets[1], &announcement, &device);
    assert_int_equal(linnet_shamir_coefficients(points, 3, coefficients), LINNET_OK);
    for (int swap = 0; swap < 2; swap++) { /* of one holder alone */
        linnet_scalar keep = shares[0][1];
        if (swap) {
            shares[0][1] = shares[1][1];
            shares[1][1] = keep;
        }
        for (size_t kind = 0; kind < 2; kind++)
            assert_int_equal(linnet_shamir_combine(coefficients, shares[kind], 3, &rebuilt[kind]), LINNET_OK);
        linnet_secagg_kx_pair(&rebuilt[0], &announcement, &device, secret_key, got_public);
        linnet_hash got = linnet_secagg_self_commitment(&rebuilt[1], &announcement, &device);
        assert_int_equal(memcmp(got_public, want_public, 32) == 0, !swap);
        assert_int_equal(linnet_hash_equal(&got, &want), !swap);
    }
}

/* ---- masks ---- */

static void masks_match_the_protocols_vectors(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/secagg.json"), *fields = json_object_get(v, "mask"), *row, *value;
    linnet_hash key;
    size_t i, m;
    vector_copy(fields, "key", key.bytes, 32);
    assert_int_equal(json_array_size(json_object_get(fields, "coordinates")), 3);
    json_array_foreach(json_object_get(fields, "coordinates"), i, row)
    {
        uint32_t sum[8] = {0};
        size_t n = json_array_size(json_object_get(row, "values"));
        assert_in_range(n, 1, 8);
        linnet_mask_add(&key, 0, (uint32_t)vector_integer(row, "bits"), vector_integer(row, "first"), n, sum);
        json_array_foreach(json_object_get(row, "values"), m, value)
        {
            assert_int_equal(sum[m], json_integer_value(value));
        }
    }
    json_decref(v);
}

/* Masks start at block 0, so block c of an RFC's vector is coordinates 16 c to 16 c + 15 of 32 bits. A nonce
 * that ours can never be is tried by the call that the wrapper makes. */
static void masks_are_the_chacha20_blocks_of_rfc_8439(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/primitives.json"), *one;
    size_t i, n_masks = 0;
    json_array_foreach(json_object_get(v, "chacha20_blocks"), i, one)
    {
        linnet_hash key;
        uint8_t nonce[12], block[64] = {0};
        uint32_t sum[48] = {0}, counter = (uint32_t)vector_integer(one, "counter");
        static const uint8_t rest[8];
        assert_in_range(counter, 0, 2);
        vector_copy(one, "key", key.bytes, 32);
        vector_copy(one, "nonce", nonce, sizeof(nonce));
        assert_int_equal(
            crypto_stream_chacha20_ietf_xor_ic(block, block, sizeof(block), nonce, counter, key.bytes), 0);
        assert_vector(one, "stream", block, sizeof(block));
        if (memcmp(nonce + 4, rest, sizeof(rest)) != 0)
            continue;
        linnet_mask_add(&key, linnet_load_le32(nonce), 32, 0, 48, sum);
        linnet_pack(32, sum + 16 * counter, 16, block);
        assert_vector(one, "stream", block, sizeof(block));
        n_masks++;
    }
    assert_int_equal(i, 5);
    assert_int_equal(n_masks, 4);
    json_decref(v);
}

static void subtracting_a_mask_takes_back_adding_it(void **state)
{
    (void)state;
    static const size_t lengths[] = {1, 2, 3, 5, 7, 8, 63, 101, 4095, 4096};
    static uint32_t sum[LINNET_PACK_CHUNK + 1], before[LINNET_PACK_CHUNK + 1];
    linnet_hash key;
    linnet_random_bytes(&key, sizeof(key));
    for (size_t w = 0; w < ARRAY_LEN(widths); w++)
        for (size_t l = 0; l < ARRAY_LEN(lengths); l++) {
            linnet_random_bytes(before, sizeof(before));
            memcpy(sum, before, sizeof(sum));
            linnet_mask_add(&key, 2, widths[w], LINNET_PACK_CHUNK, lengths[l], sum);
            assert_memory_not_equal(sum, before, lengths[l] * sizeof(*sum));
            assert_int_equal(sum[lengths[l]], before[lengths[l]]); /* and not one more */
            linnet_mask_subtract(&key, 2, widths[w], LINNET_PACK_CHUNK, lengths[l], sum);
            assert_memory_equal(sum, before, sizeof(sum));
        }
}

/* The whole keystream at once, packed as a vector is, from libsodium through the packing alone. */
static void masks_by_chunks_are_one_long_keystream(void **state)
{
    (void)state;
    enum { N = 2 * LINNET_PACK_CHUNK + 4095 };
    static uint32_t whole[N], parts[N];
    static uint8_t stream[4 * N];
    static const uint8_t nonce[12] = {4, 3, 2, 1};
    linnet_hash key;
    linnet_random_bytes(&key, sizeof(key));
    for (size_t w = 0; w < ARRAY_LEN(widths); w++)
        for (size_t n = N; n > N - 4; n--) {
            assert_int_equal(
                crypto_stream_chacha20_ietf(stream, linnet_pack_bytes(widths[w], n), nonce, key.bytes), 0);
            memset(whole, 0, sizeof(whole));
            memset(parts, 0, sizeof(parts));
            linnet_pack_add(widths[w], stream, n, whole);
            for (size_t first = 0; first < n; first += LINNET_PACK_CHUNK)
                linnet_mask_add(&key, 0x01020304, widths[w], first,
                                n - first < LINNET_PACK_CHUNK ? n - first : LINNET_PACK_CHUNK, parts + first);
            assert_memory_equal(parts, whole, sizeof(whole));
        }
}

static void vectors_and_keys_have_masks_of_their_own(void **state)
{
    (void)state;
    uint32_t a[16] = {0}, b[16] = {0}, c[16] = {0}, d[16] = {0};
    linnet_hash key = {{1}}, other = {{2}};
    linnet_mask_add(&key, 0, 32, 0, 16, a);
    linnet_mask_add(&key, 1, 32, 0, 16, b);
    linnet_mask_add(&other, 0, 32, 0, 16, c);
    linnet_mask_add(&key, 0, 32, LINNET_PACK_CHUNK, 16, d);
    assert_memory_not_equal(a, b, sizeof(a));
    assert_memory_not_equal(a, c, sizeof(a));
    assert_memory_not_equal(a, d, sizeof(a));
}

/* Three devices, three pairs: what index i adds and j subtracts is gone from the sum (modulo 2^b). */
static void pair_masks_cancel_in_the_sum_if_t2_is_the_same(void **state)
{
    (void)state;
    for (size_t w = 0; w < ARRAY_LEN(widths); w++)
        for (int same = 0; same < 2; same++) {
            kx_pair pairs[3];
            uint32_t sum[101] = {0}, all = 0;
            for (size_t i = 0; i < 3; i++)
                linnet_x25519_draw(pairs[i].secret, pairs[i].public_key);
            for (size_t i = 0; i < 3; i++)
                for (size_t j = 0; j < 3; j++) {
                    linnet_hash t2 = {{9}}, key;
                    t2.bytes[1] = i == 2 && !same; /* the last device was shown another set */
                    if (i == j)
                        continue;
                    assert_int_equal(linnet_secagg_pair_key(pairs[i].secret, pairs[i].public_key,
                                                            pairs[j].public_key, &t2, &key),
                                     LINNET_OK);
                    (i < j ? linnet_mask_add : linnet_mask_subtract)(&key, 0, widths[w], 0, 101, sum);
                }
            for (size_t m = 0; m < 101; m++)
                all |= sum[m];
            assert_int_equal(all == 0, same);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pair_key_matches_the_protocols_vector_from_both_ends),
        cmocka_unit_test(pair_key_hashes_the_x25519_secrets_of_rfc_7748),
        cmocka_unit_test(pair_key_is_the_same_from_both_ends_and_only_for_one_t2),
        cmocka_unit_test(top_bit_of_a_public_key_is_ignored_but_hashed),
        cmocka_unit_test(keys_of_small_order_are_refused_everywhere),
        cmocka_unit_test(self_keys_match_the_protocols_vectors),
        cmocka_unit_test(device_keys_depend_on_secret_round_and_device),
        cmocka_unit_test(share_box_matches_the_protocols_vector),
        cmocka_unit_test(share_box_opens_only_for_its_ends_indices_and_roster),
        cmocka_unit_test(share_box_with_any_bit_changed_does_not_open),
        cmocka_unit_test(share_box_with_a_scalar_that_is_not_canonical_does_not_open),
        cmocka_unit_test(swapped_kinds_of_shares_are_found_out),
        cmocka_unit_test(masks_match_the_protocols_vectors),
        cmocka_unit_test(masks_are_the_chacha20_blocks_of_rfc_8439),
        cmocka_unit_test(subtracting_a_mask_takes_back_adding_it),
        cmocka_unit_test(masks_by_chunks_are_one_long_keystream),
        cmocka_unit_test(vectors_and_keys_have_masks_of_their_own),
        cmocka_unit_test(pair_masks_cancel_in_the_sum_if_t2_is_the_same),
    };
    return cmocka_run_group_tests(tests, crypto_start, NULL);
}
