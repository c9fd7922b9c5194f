/* SPDX-License-Identifier: Apache-2.0 */
/* HPKE and HKDF against RFC 9180 A.2.1, RFC 5869 and, where they reach, RFC 9458, 8439 and 7748; and
 * refusals. */
#include "vectors.h"

#include "linnet/channel.h"

static void hkdf_matches_rfc_5869(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/hkdf.json"), *one;
    size_t i, n = 0;
    json_array_foreach(json_object_get(v, "cases"), i, one)
    {
        vector_bytes salt = vector_hex(one, "salt"), ikm = vector_hex(one, "ikm"),
                     info = vector_hex(one, "info");
        vector_bytes okm = vector_hex(one, "okm");
        uint8_t prk[32], out[255 * 32];
        linnet_hkdf_extract(salt.bytes, salt.n_bytes, ikm.bytes, ikm.n_bytes, prk);
        assert_vector(one, "prk", prk, sizeof(prk));
        for (size_t length = 0; length <= okm.n_bytes; length++) { /* shorter outputs are prefixes */
            memset(out, 0, sizeof(out));
            linnet_hkdf_expand(prk, info.bytes, info.n_bytes, out, length);
            assert_memory_equal(out, okm.bytes, length);
            assert_int_equal(out[length], 0);
        }
        linnet_hkdf_expand(prk, info.bytes, info.n_bytes, out, sizeof(out)); /* the longest output */
        assert_memory_equal(out, okm.bytes, okm.n_bytes);
        n++;
    }
    assert_int_equal(n, 3);
    json_decref(v);
}

static void assert_context(const json_t *v, const linnet_hpke *context)
{
    assert_vector(v, "key", context->key, sizeof(context->key));
    assert_vector(v, "base_nonce", context->base_nonce, sizeof(context->base_nonce));
    assert_vector(v, "exporter_secret", context->exporter_secret, sizeof(context->exporter_secret));
    assert_int_equal(context->sequence, 0);
}

/* Both sides of RFC 9180 A.2.1 from its keys. */
static void setup_rfc_9180(const json_t *v, linnet_hpke *sender, linnet_hpke *receiver)
{
    uint8_t ephemeral[32], receiver_public[32], receiver_secret[32], enc[32];
    vector_bytes info = vector_hex(v, "info");
    vector_copy(v, "ephemeral_secret", ephemeral, 32);
    vector_copy(v, "receiver_public", receiver_public, 32);
    vector_copy(v, "receiver_secret", receiver_secret, 32);
    assert_int_equal(
        linnet_hpke_setup_sender_with(ephemeral, receiver_public, info.bytes, info.n_bytes, sender, enc),
        LINNET_OK);
    assert_vector(v, "enc", enc, sizeof(enc));
    assert_int_equal(linnet_hpke_setup_receiver(enc, receiver_secret, info.bytes, info.n_bytes, receiver),
                     LINNET_OK);
}

static void both_sides_set_up_as_in_rfc_9180(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/hpke.json");
    linnet_hpke sender, receiver;
    setup_rfc_9180(v, &sender, &receiver);
    assert_context(v, &sender);
    assert_context(v, &receiver);
    json_decref(v);
}

/* Seals 257 messages in order and compares those that the RFC lists. */
static void messages_are_sealed_and_opened_as_in_rfc_9180(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/hpke.json"), *one;
    linnet_hpke sender, receiver;
    setup_rfc_9180(v, &sender, &receiver);
    vector_bytes plaintext = vector_hex(v, "plaintext");
    size_t n_compared = 0;
    for (uint64_t sequence = 0; sequence <= 256; sequence++) {
        char aad[32];
        uint8_t ciphertext[64], opened[64];
        size_t n_aad = (size_t)snprintf(aad, sizeof(aad), "Count-%u", (unsigned)sequence), i;
        assert_int_equal(sender.sequence, sequence);
        assert_int_equal(
            linnet_hpke_seal(&sender, aad, n_aad, plaintext.bytes, plaintext.n_bytes, ciphertext), LINNET_OK);
        json_array_foreach(json_object_get(v, "encryptions"), i, one)
        {
            if (vector_integer(one, "sequence") != sequence)
                continue;
            assert_vector(one, "aad", aad, n_aad);
            assert_vector(one, "ciphertext", ciphertext, plaintext.n_bytes + 16);
            n_compared++;
        }
        assert_int_equal(linnet_hpke_open(&receiver, aad, n_aad, ciphertext, plaintext.n_bytes + 16, opened),
                         LINNET_OK);
        assert_memory_equal(opened, plaintext.bytes, plaintext.n_bytes);
    }
    assert_int_equal(n_compared, 6);
    json_decref(v);
}

static void values_are_exported_as_in_rfc_9180(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/hpke.json"), *one;
    linnet_hpke sender, receiver;
    setup_rfc_9180(v, &sender, &receiver);
    size_t i, n = 0;
    json_array_foreach(json_object_get(v, "exports"), i, one)
    {
        vector_bytes context = vector_hex(one, "context");
        uint8_t value[32];
        assert_int_equal(linnet_hpke_export(&sender, context.bytes, context.n_bytes, value, sizeof(value)),
                         LINNET_OK);
        assert_vector(one, "value", value, sizeof(value));
        assert_int_equal(linnet_hpke_export(&receiver, context.bytes, context.n_bytes, value, sizeof(value)),
                         LINNET_OK);
        assert_vector(one, "value", value, sizeof(value));
        n++;
    }
    assert_int_equal(n, 3);
    uint8_t longest[255 * 32 + 1];
    assert_int_equal(linnet_hpke_export(&sender, "", 0, longest, 255 * 32), LINNET_OK);
    assert_int_equal(linnet_hpke_export(&sender, "", 0, longest, sizeof(longest)), LINNET_ERR_RANGE);
    json_decref(v);
}

/* RFC 9458's example uses AES-128-GCM. The AEAD's number enters HPKE's key schedule, so its exported secret
 * is not ours; what does not depend on it is checked: the encapsulated key, and 4.4's Extract and Expand from
 * that secret on. */
static void response_keys_derive_as_in_rfc_9458(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/ohttp.json");
    uint8_t ephemeral[32], receiver_public[32], enc[32], salt[48], secret[16], prk[32], key[16], nonce[12];
    linnet_hpke context;
    vector_copy(v, "ephemeral_secret", ephemeral, 32);
    vector_copy(v, "receiver_public", receiver_public, 32);
    assert_int_equal(linnet_hpke_setup_sender_with(ephemeral, receiver_public, "", 0, &context, enc),
                     LINNET_OK);
    assert_vector(v, "enc", enc, 32);
    memcpy(salt, enc, 32);
    vector_copy(v, "response_nonce", salt + 32, 16);
    vector_copy(v, "exported_secret", secret, 16);
    linnet_hkdf_extract(salt, sizeof(salt), secret, sizeof(secret), prk);
    assert_vector(v, "prk", prk, 32);
    linnet_hkdf_expand(prk, "key", 3, key, sizeof(key));
    assert_vector(v, "key", key, 16);
    linnet_hkdf_expand(prk, "nonce", 5, nonce, sizeof(nonce));
    assert_vector(v, "nonce", nonce, 12);
    json_decref(v);
}

/* A context's first message is the AEAD with the base nonce: RFC 8439 through our wrapper. */
static void first_message_is_the_aead_of_rfc_8439(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/primitives.json"), *aead = json_object_get(v, "aead");
    linnet_hpke context = {0};
    uint8_t ciphertext[200], opened[200];
    vector_copy(aead, "key", context.key, 32);
    vector_copy(aead, "nonce", context.base_nonce, 12);
    vector_bytes aad = vector_hex(aead, "aad"), plaintext = vector_hex(aead, "plaintext");
    assert_int_equal(
        linnet_hpke_seal(&context, aad.bytes, aad.n_bytes, plaintext.bytes, plaintext.n_bytes, ciphertext),
        LINNET_OK);
    assert_vector(aead, "ciphertext", ciphertext, plaintext.n_bytes + 16);
    context.sequence = 0;
    assert_int_equal(
        linnet_hpke_open(&context, aad.bytes, aad.n_bytes, ciphertext, plaintext.n_bytes + 16, opened),
        LINNET_OK);
    assert_memory_equal(opened, plaintext.bytes, plaintext.n_bytes);
    json_decref(v);
}

/* The encapsulated key is the X25519 public key of the ephemeral secret. */
static void encapsulated_key_is_the_public_key_of_rfc_7748(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/primitives.json"), *one;
    size_t i, n = 0;
    json_array_foreach(json_object_get(v, "x25519"), i, one)
    {
        static const uint8_t base_point[32] = {9};
        uint8_t secret[32], enc[32];
        linnet_hpke context;
        vector_copy(one, "secret", secret, 32);
        assert_int_equal(linnet_hpke_setup_sender_with(secret, base_point, "", 0, &context, enc), LINNET_OK);
        assert_vector(one, "public", enc, 32);
        n++;
    }
    assert_int_equal(n, 2);
    json_decref(v);
}

/* The points of order 1, 2, 4 and 8 (RFC 7748, section 7; cr.yp.to/ecdh.html#validate), which make a shared
 * secret of zeros; the last three are values of at least p that mean the same points, and the top bit is
 * ignored. */
static void points_of_small_order_are_refused(void **state)
{
    (void)state;
    static const char *const points[] = {
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000080",
    };
    for (size_t i = 0; i < ARRAY_LEN(points); i++) {
        uint8_t point[32], secret[32] = {77}, enc[32];
        linnet_hpke context, before;
        memset(&context, 0x5a, sizeof(context));
        memset(&before, 0x5a, sizeof(before));
        assert_int_equal(linnet_hex_read(points[i], point, 32), LINNET_OK);
        assert_int_equal(linnet_hpke_setup_sender(point, "", 0, &context, enc), LINNET_ERR_CRYPTO);
        assert_int_equal(linnet_hpke_setup_receiver(point, secret, "", 0, &context), LINNET_ERR_CRYPTO);
        assert_memory_equal(&context, &before, sizeof(context));
    }
}

/* A fresh pair of contexts, by the random sender. */
static void setup_random(linnet_hpke *sender, linnet_hpke *receiver)
{
    linnet_channel_key key = {0};
    uint8_t secret[32], enc[32];
    linnet_channel_key_draw(&key, secret);
    assert_int_equal(linnet_hpke_setup_sender(key.public_key, "info", 4, sender, enc), LINNET_OK);
    assert_int_equal(linnet_hpke_setup_receiver(enc, secret, "info", 4, receiver), LINNET_OK);
    assert_memory_equal(sender->key, receiver->key, sizeof(sender->key));
    assert_memory_equal(sender->exporter_secret, receiver->exporter_secret, sizeof(sender->exporter_secret));
}

static void altered_cut_or_reordered_messages_do_not_open(void **state)
{
    (void)state;
    linnet_hpke sender, receiver;
    uint8_t first[5 + 16], second[5 + 16], opened[8];
    setup_random(&sender, &receiver);
    assert_int_equal(linnet_hpke_seal(&sender, "aad", 3, "first", 5, first), LINNET_OK);
    assert_int_equal(linnet_hpke_seal(&sender, "aad", 3, "other", 5, second), LINNET_OK);
    for (size_t bit = 0; bit < sizeof(first) * 8; bit++) {
        first[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(linnet_hpke_open(&receiver, "aad", 3, first, sizeof(first), opened),
                         LINNET_ERR_CRYPTO);
        first[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t n = 0; n < sizeof(first); n++)
        assert_int_equal(linnet_hpke_open(&receiver, "aad", 3, first, n, opened), LINNET_ERR_CRYPTO);
    assert_int_equal(linnet_hpke_open(&receiver, "aae", 3, first, sizeof(first), opened), LINNET_ERR_CRYPTO);
    assert_int_equal(linnet_hpke_open(&receiver, "aad", 2, first, sizeof(first), opened), LINNET_ERR_CRYPTO);
    assert_int_equal(linnet_hpke_open(&receiver, "aad", 3, second, sizeof(second), opened),
                     LINNET_ERR_CRYPTO);
    assert_int_equal(receiver.sequence, 0); /* a failure does not count */
    assert_int_equal(linnet_hpke_open(&receiver, "aad", 3, first, sizeof(first), opened), LINNET_OK);
    assert_memory_equal(opened, "first", 5);
    assert_int_equal(linnet_hpke_open(&receiver, "aad", 3, first, sizeof(first), opened), LINNET_ERR_CRYPTO);
    assert_int_equal(linnet_hpke_open(&receiver, "aad", 3, second, sizeof(second), opened), LINNET_OK);
}

static void other_keys_or_info_give_other_contexts(void **state)
{
    (void)state;
    linnet_hpke a, b, c;
    uint8_t secret[32], enc_a[32], enc_b[32];
    linnet_channel_key key = {0};
    linnet_channel_key_draw(&key, secret);
    assert_int_equal(linnet_hpke_setup_sender(key.public_key, "info", 4, &a, enc_a), LINNET_OK);
    assert_int_equal(linnet_hpke_setup_sender(key.public_key, "info", 4, &b, enc_b), LINNET_OK);
    assert_memory_not_equal(enc_a, enc_b, 32);
    assert_memory_not_equal(a.key, b.key, 32);
    assert_int_equal(linnet_hpke_setup_receiver(enc_a, secret, "inf", 3, &c), LINNET_OK);
    assert_memory_not_equal(a.key, c.key, 32);
    assert_memory_not_equal(a.exporter_secret, c.exporter_secret, 32);
    secret[5] ^= 1;
    assert_int_equal(linnet_hpke_setup_receiver(enc_a, secret, "info", 4, &c), LINNET_OK);
    assert_memory_not_equal(a.key, c.key, 32);
}

static void last_sequence_number_is_refused_and_release_wipes(void **state)
{
    (void)state;
    static const linnet_hpke zero;
    linnet_hpke sender, receiver;
    uint8_t ciphertext[17], opened[1];
    setup_random(&sender, &receiver);
    sender.sequence = UINT64_MAX - 1;
    receiver.sequence = UINT64_MAX - 1;
    assert_int_equal(linnet_hpke_seal(&sender, "", 0, "x", 1, ciphertext), LINNET_OK);
    assert_int_equal(linnet_hpke_open(&receiver, "", 0, ciphertext, sizeof(ciphertext), opened), LINNET_OK);
    assert_int_equal(linnet_hpke_seal(&sender, "", 0, "x", 1, ciphertext), LINNET_ERR_LIMIT);
    assert_int_equal(linnet_hpke_open(&receiver, "", 0, ciphertext, sizeof(ciphertext), opened),
                     LINNET_ERR_LIMIT);
    linnet_hpke_release(&sender);
    assert_memory_equal(&sender, &zero, sizeof(zero));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hkdf_matches_rfc_5869),
        cmocka_unit_test(both_sides_set_up_as_in_rfc_9180),
        cmocka_unit_test(messages_are_sealed_and_opened_as_in_rfc_9180),
        cmocka_unit_test(values_are_exported_as_in_rfc_9180),
        cmocka_unit_test(response_keys_derive_as_in_rfc_9458),
        cmocka_unit_test(first_message_is_the_aead_of_rfc_8439),
        cmocka_unit_test(encapsulated_key_is_the_public_key_of_rfc_7748),
        cmocka_unit_test(points_of_small_order_are_refused),
        cmocka_unit_test(altered_cut_or_reordered_messages_do_not_open),
        cmocka_unit_test(other_keys_or_info_give_other_contexts),
        cmocka_unit_test(last_sequence_number_is_refused_and_release_wipes),
    };
    return cmocka_run_group_tests(tests, crypto_start, NULL);
}
