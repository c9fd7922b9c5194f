/* SPDX-License-Identifier: Apache-2.0 */
/* Packing against its definition, bit by bit, at every width and at odd lengths. Arrays are allocated with
 * their exact size, so that the sanitizers see a word that leaves them. */
#include "testing.h"

#include "linnet/packing.h"
#include "linnet/rng.h"

static const uint32_t widths[] = {16, 20, 24, 32};
static const size_t lengths[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 33, 101, 4095, 4096};

static void *exactly(size_t n_bytes)
{
    void *bytes = malloc(n_bytes ? n_bytes : 1);
    assert_non_null(bytes);
    return bytes;
}

static uint32_t *random_words(linnet_rng *rng, size_t n)
{
    uint32_t *x = exactly(n * sizeof(*x));
    for (size_t i = 0; i < n; i++)
        x[i] = (uint32_t)linnet_rng_next(rng);
    return x;
}

/* Bit m b + k of the string is bit k of coordinate m, the rest is zero: no word is touched as a whole. */
static void pack_by_bits(uint32_t bits, const uint32_t *x, size_t n, uint8_t *packed)
{
    memset(packed, 0, linnet_pack_bytes(bits, n));
    for (size_t m = 0; m < n; m++)
        for (uint32_t k = 0; k < bits; k++)
            packed[(m * bits + k) / 8] |= (uint8_t)((x[m] >> k & 1) << (m * bits + k) % 8);
}

static uint32_t reduced(uint32_t bits, uint32_t x)
{
    return bits == 32 ? x : x & ((UINT32_C(1) << bits) - 1);
}

static void packing_follows_its_definition_bit_by_bit(void **state)
{
    (void)state;
    linnet_rng rng;
    linnet_rng_init(&rng, 1, 0);
    for (size_t w = 0; w < ARRAY_LEN(widths); w++) {
        for (size_t l = 0; l < ARRAY_LEN(lengths); l++) {
            size_t n = lengths[l], n_bytes = linnet_pack_bytes(widths[w], n);
            uint32_t *x = random_words(&rng, n);
            uint8_t *want = exactly(n_bytes), *got = exactly(n_bytes);
            memset(got, 0xff, n_bytes);
            pack_by_bits(widths[w], x, n, want);
            linnet_pack(widths[w], x, n, got);
            assert_memory_equal(got, want, n_bytes);
            assert_true(linnet_pack_tail_is_zero(widths[w], n, got));
            free(x);
            free(want);
            free(got);
        }
    }
}

static void folding_adds_and_subtracts_what_was_packed(void **state)
{
    (void)state;
    linnet_rng rng;
    linnet_rng_init(&rng, 2, 0);
    for (size_t w = 0; w < ARRAY_LEN(widths); w++) {
        for (size_t l = 0; l < ARRAY_LEN(lengths); l++) {
            size_t n = lengths[l], n_bytes = linnet_pack_bytes(widths[w], n);
            uint32_t *x = random_words(&rng, n), *sum = random_words(&rng, n);
            uint32_t *before = exactly(n * sizeof(*before));
            uint8_t *packed = exactly(n_bytes);
            memcpy(before, sum, n * sizeof(*sum));
            linnet_pack(widths[w], x, n, packed);
            linnet_pack_add(widths[w], packed, n, sum);
            for (size_t i = 0; i < n; i++) /* exact modulo 2^32, not modulo 2^b only */
                assert_int_equal(sum[i], before[i] + reduced(widths[w], x[i]));
            linnet_pack_subtract(widths[w], packed, n, sum);
            assert_memory_equal(sum, before, n * sizeof(*sum));
            linnet_pack_subtract(widths[w], packed, n, sum);
            for (size_t i = 0; i < n; i++)
                assert_int_equal(sum[i], before[i] - reduced(widths[w], x[i]));
            free(x);
            free(sum);
            free(before);
            free(packed);
        }
    }
}

static void a_chunk_of_any_width_starts_on_a_cipher_block(void **state)
{
    (void)state;
    linnet_rng rng;
    linnet_rng_init(&rng, 3, 0);
    const size_t n = LINNET_PACK_CHUNK + 77;
    uint32_t *x = random_words(&rng, n);
    for (size_t w = 0; w < ARRAY_LEN(widths); w++) {
        size_t n_bytes = linnet_pack_bytes(widths[w], n);
        size_t start = linnet_pack_bytes(widths[w], LINNET_PACK_CHUNK);
        uint8_t *whole = exactly(n_bytes), *parts = exactly(n_bytes);
        assert_int_equal(start % 64, 0);
        linnet_pack(widths[w], x, n, whole);
        linnet_pack(widths[w], x, LINNET_PACK_CHUNK, parts);
        linnet_pack(widths[w], x + LINNET_PACK_CHUNK, 77, parts + start);
        assert_memory_equal(parts, whole, n_bytes);
        free(whole);
        free(parts);
    }
    free(x);
}

static void set_bits_behind_the_last_coordinate_are_seen(void **state)
{
    (void)state;
    uint8_t packed[8] = {0};
    for (unsigned bit = 0; bit < 8; bit++) {
        packed[2] = (uint8_t)(1 << bit); /* one coordinate of 20 bits owns the low half of byte 2 */
        assert_int_equal(linnet_pack_tail_is_zero(20, 1, packed), bit < 4);
        packed[7] = (uint8_t)(1 << bit); /* three own the low half of byte 7 */
        assert_int_equal(linnet_pack_tail_is_zero(20, 3, packed), bit < 4);
    }
    memset(packed, 0xff, sizeof(packed));
    assert_true(linnet_pack_tail_is_zero(20, 2, packed));
    for (size_t w = 0; w < ARRAY_LEN(widths); w++) {
        assert_true(linnet_pack_tail_is_zero(widths[w], 0, packed));
        assert_int_equal(linnet_pack_tail_is_zero(widths[w], 1, packed), widths[w] != 20);
    }
}

static void widths_are_four_and_bytes_round_up(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 70; bits++)
        assert_int_equal(linnet_pack_is_width(bits), bits == 16 || bits == 20 || bits == 24 || bits == 32);
    assert_int_equal(linnet_pack_bytes(20, 0), 0);
    assert_int_equal(linnet_pack_bytes(20, 1), 3);
    assert_int_equal(linnet_pack_bytes(20, 2), 5);
    assert_int_equal(linnet_pack_bytes(24, 1000001), 3000003);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packing_follows_its_definition_bit_by_bit),
        cmocka_unit_test(folding_adds_and_subtracts_what_was_packed),
        cmocka_unit_test(a_chunk_of_any_width_starts_on_a_cipher_block),
        cmocka_unit_test(set_bits_behind_the_last_coordinate_are_seen),
        cmocka_unit_test(widths_are_four_and_bytes_round_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
