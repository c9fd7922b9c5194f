/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of sealing at rest: what opens, and that nothing else does. */
#include "linnet/seal.h"
#include "testing.h"

static const uint8_t key[LINNET_SEAL_KEY_BYTES] = "a key, thirty-two bytes, secret";
static const char text[] = "the secrets of a round";

static void test_a_sealed_value_opens_to_itself(void **state)
{
    (void)state;
    static const size_t lengths[] = {0, 1, sizeof(text)};
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        linnet_buffer sealed = {0}, plain = {0};
        linnet_error err = {0};
        assert_ok(linnet_seal(key, "name", 4, text, lengths[i], &sealed, &err), &err);
        assert_int_equal(sealed.n_bytes, lengths[i] + LINNET_SEAL_EXTRA_BYTES);
        assert_ok(linnet_unseal(key, "name", 4, sealed.bytes, sealed.n_bytes, &plain, &err), &err);
        assert_int_equal(plain.n_bytes, lengths[i]);
        assert_memory_equal(plain.bytes, text, lengths[i]);
        linnet_buffer_release(&sealed);
        linnet_buffer_release(&plain);
    }
}

static void test_one_value_sealed_twice_gives_other_bytes(void **state)
{
    (void)state;
    linnet_buffer a = {0}, b = {0};
    linnet_error err = {0};
    assert_ok(linnet_seal(key, "name", 4, text, sizeof(text), &a, &err), &err);
    assert_ok(linnet_seal(key, "name", 4, text, sizeof(text), &b, &err), &err);
    assert_int_equal(a.n_bytes, b.n_bytes);
    assert_memory_not_equal(a.bytes, b.bytes, a.n_bytes);
    linnet_buffer_release(&a);
    linnet_buffer_release(&b);
}

static void test_nothing_else_opens(void **state)
{
    (void)state;
    uint8_t other[LINNET_SEAL_KEY_BYTES];
    linnet_buffer sealed = {0}, plain = {0};
    linnet_error err = {0};
    memcpy(other, key, sizeof(other));
    other[31] ^= 1;
    assert_ok(linnet_seal(key, "name", 4, text, sizeof(text), &sealed, &err), &err);
    assert_int_equal(linnet_unseal(other, "name", 4, sealed.bytes, sealed.n_bytes, &plain, &err),
                     LINNET_ERR_CRYPTO);
    assert_int_equal(linnet_unseal(key, "mane", 4, sealed.bytes, sealed.n_bytes, &plain, &err),
                     LINNET_ERR_CRYPTO);
    for (size_t n = 0; n < sealed.n_bytes; n++)
        assert_int_equal(linnet_unseal(key, "name", 4, sealed.bytes, n, &plain, &err), LINNET_ERR_CRYPTO);
    for (size_t bit = 0; bit < 8 * sealed.n_bytes; bit++) {
        sealed.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(linnet_unseal(key, "name", 4, sealed.bytes, sealed.n_bytes, &plain, &err),
                         LINNET_ERR_CRYPTO);
        sealed.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_int_equal(plain.n_bytes, 0);
    linnet_buffer_release(&sealed);
    linnet_buffer_release(&plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_sealed_value_opens_to_itself),
        cmocka_unit_test(test_one_value_sealed_twice_gives_other_bytes),
        cmocka_unit_test(test_nothing_else_opens),
    };
    if (linnet_crypto_init(NULL) != LINNET_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
