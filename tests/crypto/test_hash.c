/* SPDX-License-Identifier: Apache-2.0 */
/* Labelled hashes against the protocol's vectors (SECURE-AGGREGATION 6.1), streams, files, labels. */
#include "vectors.h"

#include "linnet/file.h"

#include <unistd.h>

static uint8_t sequence[32]; /* a0..bf: the announcement of the vectors */

static int setup(void **state)
{
    for (size_t i = 0; i < sizeof(sequence); i++)
        sequence[i] = (uint8_t)(0xa0 + i);
    return crypto_start(state);
}

static void hash_matches_the_protocols_first_vector(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/hash.json");
    linnet_hash leaf = linnet_hash_of(LINNET_LABEL_LEAF, "abc", 3);
    assert_vector(v, "leaf_abc", leaf.bytes, 32);
    linnet_hash vector = linnet_hash_of(LINNET_LABEL_VECTOR, "\1\2\3", 3);
    assert_vector(v, "vector", vector.bytes, 32);
    json_decref(v);
}

static linnet_hash roster_hash(void)
{
    static const uint8_t n_devices[4] = {2, 0, 0, 0};
    linnet_hash leaves[2] = {linnet_hash_of(LINNET_LABEL_LEAF, "abc", 3),
                             linnet_hash_of(LINNET_LABEL_LEAF, "def", 3)};
    linnet_hasher hasher;
    linnet_hasher_init(&hasher, LINNET_LABEL_ROSTER);
    linnet_hasher_update(&hasher, sequence, sizeof(sequence));
    linnet_hasher_update(&hasher, n_devices, sizeof(n_devices));
    linnet_hasher_update(&hasher, leaves, sizeof(leaves));
    return linnet_hasher_final(&hasher);
}

static linnet_hash hash_two(linnet_label label, const void *a, size_t n_a, const void *b, size_t n_b)
{
    linnet_hasher hasher;
    linnet_hasher_init(&hasher, label);
    linnet_hasher_update(&hasher, a, n_a);
    linnet_hasher_update(&hasher, b, n_b);
    return linnet_hasher_final(&hasher);
}

static void chain_matches_the_protocols_vectors(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/hash.json");
    uint8_t list[192], survivors[33] = {0x03};
    memset(list, 0x33, 32);
    memset(list + 32, 0x44, 64);
    memset(list + 96, 0x55, 32);
    memset(list + 128, 0x66, 64);
    linnet_hash t1 = roster_hash();
    linnet_hash t2 = hash_two(LINNET_LABEL_SHARERS, t1.bytes, 32, "\3", 1);
    linnet_hash r = linnet_hash_of(LINNET_LABEL_SURVIVOR_LIST, list, sizeof(list));
    memcpy(survivors + 1, r.bytes, 32);
    linnet_hash t3 = hash_two(LINNET_LABEL_SURVIVORS, t2.bytes, 32, survivors, sizeof(survivors));
    linnet_hash attest = linnet_hash_of(LINNET_LABEL_ATTEST, t3.bytes, 32);
    assert_vector(v, "T1", t1.bytes, 32);
    assert_vector(v, "T2", t2.bytes, 32);
    assert_vector(v, "R", r.bytes, 32);
    assert_vector(v, "T3", t3.bytes, 32);
    assert_vector(v, "attest", attest.bytes, 32);
    json_decref(v);
}

static void keyed_hash_matches_the_protocols_vectors(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/hash.json");
    uint8_t key[32] = {11}, message[48];
    memcpy(message, sequence, 32);
    memset(message + 32, 0x11, 16);
    linnet_hash commit =
        linnet_hash_keyed(LINNET_LABEL_SELF_COMMIT, key, sizeof(key), message, sizeof(message));
    assert_vector(v, "self_commit", commit.bytes, 32);
    vector_copy(v, "T2", message, 32);
    linnet_hash mask = linnet_hash_keyed(LINNET_LABEL_SELF_MASK, key, sizeof(key), message, sizeof(message));
    assert_vector(v, "self_mask_key", mask.bytes, 32);
    json_decref(v);
}

static void labels_are_sixteen_bytes_and_all_different(void **state)
{
    (void)state;
    for (int i = 0; i < LINNET_LABELS; i++) {
        const uint8_t *label = linnet_label_bytes((linnet_label)i);
        assert_memory_equal(label, "linnet.sa1.", 11);
        assert_null(memchr(label, 0, 16));
        for (int j = 0; j < i; j++)
            assert_memory_not_equal(label, linnet_label_bytes((linnet_label)j), 16);
    }
    assert_memory_equal(linnet_label_bytes(LINNET_LABEL_OBJECT), "linnet.sa1.objct", 16);
    assert_memory_equal(linnet_label_bytes(LINNET_LABEL_INVITE), "linnet.sa1.invit", 16);
}

static void hash_differs_under_every_label_and_key(void **state)
{
    (void)state;
    linnet_hash hashes[LINNET_LABELS];
    uint8_t key[64] = {0};
    for (int i = 0; i < LINNET_LABELS; i++) {
        hashes[i] = linnet_hash_of((linnet_label)i, "abc", 3);
        linnet_hash keyed = linnet_hash_keyed((linnet_label)i, key, 16, "abc", 3);
        assert_false(linnet_hash_equal(&hashes[i], &keyed));
        for (int j = 0; j < i; j++)
            assert_false(linnet_hash_equal(&hashes[i], &hashes[j]));
    }
    linnet_hash of_32 = linnet_hash_keyed(LINNET_LABEL_TOKEN, key, 32, "abc", 3);
    linnet_hash of_64 = linnet_hash_keyed(LINNET_LABEL_TOKEN, key, 64, "abc", 3);
    assert_false(linnet_hash_equal(&of_32, &of_64));
}

static void stream_gives_the_same_hash_for_every_split(void **state)
{
    (void)state;
    uint8_t message[300];
    for (size_t i = 0; i < sizeof(message); i++)
        message[i] = (uint8_t)(i * 7);
    linnet_hash want = linnet_hash_of(LINNET_LABEL_OBJECT, message, sizeof(message));
    for (size_t split = 0; split <= sizeof(message); split++) {
        linnet_hash got =
            hash_two(LINNET_LABEL_OBJECT, message, split, message + split, sizeof(message) - split);
        assert_true(linnet_hash_equal(&got, &want));
    }
    linnet_hash empty = linnet_hash_of(LINNET_LABEL_OBJECT, NULL, 0);
    linnet_hash streamed = hash_two(LINNET_LABEL_OBJECT, NULL, 0, NULL, 0);
    assert_true(linnet_hash_equal(&empty, &streamed));
    assert_false(linnet_hash_equal(&empty, &want));
}

static void hasher_works_at_any_address_and_after_a_copy(void **state)
{
    (void)state;
    linnet_hash want = linnet_hash_of(LINNET_LABEL_OBJECT, "abcdef", 6);
    for (size_t offset = 0; offset < 16; offset++) {
        uint8_t *room = malloc(2 * sizeof(linnet_hasher) + 32);
        assert_non_null(room);
        linnet_hasher *hasher = (linnet_hasher *)(room + offset), *copy = hasher + 1;
        linnet_hasher_init(hasher, LINNET_LABEL_OBJECT);
        linnet_hasher_update(hasher, "abc", 3);
        memcpy(copy, hasher, sizeof(*copy));
        linnet_hasher_update(copy, "def", 3);
        linnet_hash got = linnet_hasher_final(copy);
        assert_true(linnet_hash_equal(&got, &want));
        free(room);
    }
}

static void final_wipes_the_hasher(void **state)
{
    (void)state;
    static const linnet_hasher zero;
    linnet_hasher hasher;
    linnet_hasher_init(&hasher, LINNET_LABEL_OBJECT);
    linnet_hasher_update(&hasher, "secret", 6);
    (void)linnet_hasher_final(&hasher);
    assert_memory_equal(&hasher, &zero, sizeof(zero));
}

static void file_has_the_hash_of_its_bytes(void **state)
{
    (void)state;
    char path[] = "/tmp/linnet-test-hash-XXXXXX";
    static uint8_t bytes[200001]; /* more than three chunks, not a multiple of one */
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i >> 3);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    static const size_t sizes[] = {0, 1, 65536, 65537, sizeof(bytes)};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        linnet_error err;
        linnet_hash got;
        assert_ok(linnet_file_write(path, bytes, sizes[i], 0600, &err), &err);
        assert_ok(linnet_hash_file(LINNET_LABEL_OBJECT, path, &got, &err), &err);
        linnet_hash want = linnet_hash_of(LINNET_LABEL_OBJECT, bytes, sizes[i]);
        assert_true(linnet_hash_equal(&got, &want));
    }
    unlink(path);
}

static void file_that_cannot_be_read_gives_an_error_and_no_hash(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_hash hash;
    memset(&hash, 0x5a, sizeof(hash));
    linnet_hash before = hash;
    assert_int_equal(linnet_hash_file(LINNET_LABEL_OBJECT, "/nowhere/model.gguf", &hash, &err),
                     LINNET_ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "/nowhere/model.gguf"));
    assert_int_not_equal(linnet_hash_file(LINNET_LABEL_OBJECT, "/", &hash, &err), LINNET_OK);
    assert_memory_equal(&hash, &before, sizeof(hash));
}

static void equality_sees_every_bit(void **state)
{
    (void)state;
    linnet_hash a = linnet_hash_of(LINNET_LABEL_OBJECT, "abc", 3);
    for (size_t bit = 0; bit < 256; bit++) {
        linnet_hash b = a;
        assert_true(linnet_hash_equal(&a, &b));
        b.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_false(linnet_hash_equal(&a, &b));
    }
}

static void random_bytes_differ_and_a_wipe_clears_them(void **state)
{
    (void)state;
    static const uint8_t zero[32];
    uint8_t a[32] = {0}, b[32] = {0};
    linnet_random_bytes(a, sizeof(a));
    linnet_random_bytes(b, sizeof(b));
    assert_memory_not_equal(a, b, sizeof(a));
    linnet_wipe(a, sizeof(a));
    assert_memory_equal(a, zero, sizeof(a));
}

static void a_random_stream_never_repeats_and_is_uniform(void **state)
{
    (void)state;
    enum { N = 1 << 16 };
    static uint8_t a[N], b[N];
    linnet_random_stream one, other, zero = {{0}, 0};
    linnet_random_stream_init(&one);
    linnet_random_stream_init(&other);
    linnet_random_stream_fill(&one, a, N);
    linnet_random_stream_fill(&one, b, N);
    assert_memory_not_equal(a, b, 32); /* the next call */
    linnet_random_stream_fill(&other, b, N);
    assert_memory_not_equal(a, b, 32); /* another key */
    unsigned counts[256] = {0};
    double chi2 = 0;
    for (size_t i = 0; i < N; i++)
        counts[a[i]]++;
    for (size_t i = 0; i < 256; i++)
        chi2 += (counts[i] - N / 256.0) * (counts[i] - N / 256.0) / (N / 256.0);
    assert_true(chi2 > 130 && chi2 < 410); /* 255 degrees of freedom, 5.5 sigma and more */
    linnet_random_stream_release(&one);
    linnet_random_stream_release(&other);
    assert_memory_equal(&one, &zero, sizeof(one));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_random_stream_never_repeats_and_is_uniform),
        cmocka_unit_test(hash_matches_the_protocols_first_vector),
        cmocka_unit_test(chain_matches_the_protocols_vectors),
        cmocka_unit_test(keyed_hash_matches_the_protocols_vectors),
        cmocka_unit_test(labels_are_sixteen_bytes_and_all_different),
        cmocka_unit_test(hash_differs_under_every_label_and_key),
        cmocka_unit_test(stream_gives_the_same_hash_for_every_split),
        cmocka_unit_test(hasher_works_at_any_address_and_after_a_copy),
        cmocka_unit_test(final_wipes_the_hasher),
        cmocka_unit_test(file_has_the_hash_of_its_bytes),
        cmocka_unit_test(file_that_cannot_be_read_gives_an_error_and_no_hash),
        cmocka_unit_test(equality_sees_every_bit),
        cmocka_unit_test(random_bytes_differ_and_a_wipe_clears_them),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
