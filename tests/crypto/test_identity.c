/* SPDX-License-Identifier: Apache-2.0 */
/* Identities, signatures under labels, and the records of enrolment: round trips, the vectors of a second
 * implementation, and everything that must be refused. */
#include "vectors.h"

#include "linnet/identity.h"

#include <sodium.h>

#define MONDAY 1767225600u
#define DAY 86400u

typedef struct fixture {
    linnet_identity *device, *authority, *coordinator;
    linnet_enrol_token token;
} fixture;

static linnet_identity *identity_of(uint8_t first)
{
    uint8_t seed[LINNET_SEED_BYTES];
    linnet_identity *identity = NULL;
    linnet_error err;
    for (size_t i = 0; i < sizeof(seed); i++)
        seed[i] = (uint8_t)(first + i);
    assert_ok(linnet_identity_from_seed(seed, &identity, &err), &err);
    return identity;
}

static int setup(void **state)
{
    static fixture f;
    if (crypto_start(state) != 0)
        return -1;
    f.coordinator = identity_of(0x00);
    f.authority = identity_of(0x20);
    f.device = identity_of(0x40);
    memset(f.token.id, 0x60, sizeof(f.token.id));
    memset(f.token.secret, 0x70, sizeof(f.token.secret));
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    linnet_identity_destroy(f->coordinator);
    linnet_identity_destroy(f->authority);
    linnet_identity_destroy(f->device);
    return 0;
}

/* ---- keys and signatures ---- */

/* The RFC's signatures are over messages of other lengths than our 32-byte hashes, so only its key pairs can
 * be checked through our wrapper; our signatures are checked against a second implementation in channel.json,
 * and the RFC's by the calls that the wrapper makes. */
static void key_pairs_match_rfc_8032(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/primitives.json"), *one;
    size_t i, n = 0;
    json_array_foreach(json_object_get(v, "ed25519"), i, one)
    {
        uint8_t seed[LINNET_SEED_BYTES], back[LINNET_SEED_BYTES];
        linnet_identity *identity = NULL;
        linnet_error err;
        vector_copy(one, "seed", seed, sizeof(seed));
        assert_ok(linnet_identity_from_seed(seed, &identity, &err), &err);
        assert_vector(one, "public", linnet_identity_public_key(identity)->bytes, 32);
        linnet_identity_seed(identity, back);
        assert_memory_equal(back, seed, sizeof(seed));
        linnet_identity_destroy(identity);
        n++;
    }
    assert_int_equal(n, 5);
    json_decref(v);
}

static void libsodium_signs_and_verifies_as_in_rfc_8032(void **state)
{
    (void)state;
    json_t *v = vectors_load("crypto/primitives.json"), *one;
    size_t i, n = 0;
    json_array_foreach(json_object_get(v, "ed25519"), i, one)
    {
        if (!json_object_get(one, "signature"))
            continue;
        uint8_t seed[LINNET_SEED_BYTES], secret_key[64], public_key[32], signature[LINNET_SIGNATURE_BYTES];
        vector_bytes message = vector_hex(one, "message");
        vector_copy(one, "seed", seed, sizeof(seed));
        assert_int_equal(crypto_sign_seed_keypair(public_key, secret_key, seed), 0);
        assert_int_equal(crypto_sign_detached(signature, NULL, message.bytes, message.n_bytes, secret_key),
                         0);
        assert_vector(one, "signature", signature, sizeof(signature));
        assert_int_equal(crypto_sign_verify_detached(signature, message.bytes, message.n_bytes, public_key),
                         0);
        message.bytes[message.n_bytes] = 0; /* one byte more */
        assert_int_equal(
            crypto_sign_verify_detached(signature, message.bytes, message.n_bytes + 1, public_key), -1);
        n++;
    }
    assert_int_equal(n, 4);
    json_decref(v);
}

static void created_identities_differ(void **state)
{
    (void)state;
    linnet_identity *a = NULL, *b = NULL;
    linnet_error err;
    assert_ok(linnet_identity_create(&a, &err), &err);
    assert_ok(linnet_identity_create(&b, &err), &err);
    assert_memory_not_equal(linnet_identity_public_key(a), linnet_identity_public_key(b), 32);
    linnet_identity_destroy(a);
    linnet_identity_destroy(b);
    linnet_identity_destroy(NULL);
}

static void device_id_is_the_start_of_the_keys_hash(void **state)
{
    fixture *f = *state;
    const linnet_public_key *key = linnet_identity_public_key(f->device);
    linnet_device_id id = linnet_device_id_of(key);
    linnet_hash hash = linnet_hash_of(LINNET_LABEL_DEVICE_ID, key->bytes, sizeof(key->bytes));
    assert_memory_equal(id.bytes, hash.bytes, sizeof(id.bytes));
}

static void altered_messages_keys_and_signatures_do_not_verify(void **state)
{
    fixture *f = *state;
    linnet_public_key key = *linnet_identity_public_key(f->device);
    uint8_t body[] = "a body";
    linnet_signature signature = linnet_sign(f->device, LINNET_LABEL_ADVERT, body, sizeof(body));
    assert_int_equal(linnet_verify(&key, LINNET_LABEL_ADVERT, body, sizeof(body), &signature), LINNET_OK);
    struct {
        uint8_t *bytes;
        size_t n_bytes;
    } parts[] = {
        {body, sizeof(body)}, {key.bytes, sizeof(key.bytes)}, {signature.bytes, sizeof(signature.bytes)}};
    for (size_t p = 0; p < ARRAY_LEN(parts); p++) {
        for (size_t bit = 0; bit < parts[p].n_bytes * 8; bit++) {
            parts[p].bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            if (linnet_verify(&key, LINNET_LABEL_ADVERT, body, sizeof(body), &signature) != LINNET_ERR_CRYPTO)
                fail_msg("part %zu, bit %zu", p, bit);
            parts[p].bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    }
    assert_int_equal(linnet_verify(&key, LINNET_LABEL_ADVERT, body, sizeof(body) - 1, &signature),
                     LINNET_ERR_CRYPTO);
    assert_int_equal(linnet_verify(linnet_identity_public_key(f->authority), LINNET_LABEL_ADVERT, body,
                                   sizeof(body), &signature),
                     LINNET_ERR_CRYPTO);
    assert_int_equal(linnet_verify(&key, LINNET_LABEL_ADVERT, body, sizeof(body), &signature), LINNET_OK);
}

/* SECURE-AGGREGATION 6.2, property 23. */
static void body_signed_under_one_label_verifies_under_no_other(void **state)
{
    fixture *f = *state;
    const linnet_public_key *key = linnet_identity_public_key(f->device);
    for (int i = 0; i < LINNET_LABELS; i++) {
        linnet_signature signature = linnet_sign(f->device, (linnet_label)i, "body", 4);
        for (int j = 0; j < LINNET_LABELS; j++) {
            linnet_status want = i == j ? LINNET_OK : LINNET_ERR_CRYPTO;
            if (linnet_verify(key, (linnet_label)j, "body", 4, &signature) != want)
                fail_msg("signed under label %d, verified under %d", i, j);
        }
    }
}

static void hash_with_its_own_label_is_signed_as_it_is(void **state)
{
    fixture *f = *state;
    const linnet_public_key *key = linnet_identity_public_key(f->coordinator);
    linnet_hash t1 = linnet_hash_of(LINNET_LABEL_ROSTER, "roster", 6);
    linnet_hash t2 = linnet_hash_of(LINNET_LABEL_SHARERS, "roster", 6);
    linnet_signature signature = linnet_sign_hash(f->coordinator, &t1);
    assert_int_equal(linnet_verify_hash(key, &t1, &signature), LINNET_OK);
    assert_int_equal(linnet_verify_hash(key, &t2, &signature), LINNET_ERR_CRYPTO);
    assert_int_equal(linnet_verify(key, LINNET_LABEL_ROSTER, "roster", 6, &signature), LINNET_OK);
}

/* With a key of small order, R = the neutral point and S = 0 satisfy the equation for every message. */
static void keys_of_small_order_verify_nothing(void **state)
{
    (void)state;
    static const char *const keys[] = {
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0100000000000000000000000000000000000000000000000000000000000080",
    };
    linnet_signature signature = {{1}};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        linnet_public_key key;
        assert_int_equal(linnet_hex_read(keys[i], key.bytes, 32), LINNET_OK);
        assert_int_equal(linnet_verify(&key, LINNET_LABEL_ADVERT, "x", 1, &signature), LINNET_ERR_CRYPTO);
    }
}

/* ---- requests for a certificate ---- */

static void sign_csr(const fixture *f, uint8_t bytes[LINNET_SIGNED_CSR_BYTES])
{
    linnet_csr csr = {.public_key = *linnet_identity_public_key(f->device),
                      .device_class = 0x04030201,
                      .coordinator = *linnet_identity_public_key(f->coordinator)};
    memcpy(csr.token_id, f->token.id, sizeof(csr.token_id));
    linnet_csr_sign(&csr, &f->token, f->device, bytes);
}

static void csr_survives_signing_and_opening(void **state)
{
    fixture *f = *state;
    uint8_t bytes[LINNET_SIGNED_CSR_BYTES];
    linnet_csr csr;
    sign_csr(f, bytes);
    assert_int_equal(linnet_csr_open(bytes, sizeof(bytes), &csr), LINNET_OK);
    assert_memory_equal(&csr.public_key, linnet_identity_public_key(f->device), 32);
    assert_memory_equal(&csr.coordinator, linnet_identity_public_key(f->coordinator), 32);
    assert_memory_equal(csr.token_id, f->token.id, sizeof(csr.token_id));
    assert_int_equal(csr.device_class, 0x04030201);
    assert_int_equal(linnet_csr_check_token(bytes, sizeof(bytes), f->token.secret), LINNET_OK);
}

static void csr_with_a_wrong_token_secret_is_refused(void **state)
{
    fixture *f = *state;
    uint8_t bytes[LINNET_SIGNED_CSR_BYTES], secret[LINNET_TOKEN_SECRET_BYTES];
    sign_csr(f, bytes);
    for (size_t bit = 0; bit < sizeof(secret) * 8; bit++) {
        memcpy(secret, f->token.secret, sizeof(secret));
        secret[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(linnet_csr_check_token(bytes, sizeof(bytes), secret), LINNET_ERR_CRYPTO);
    }
}

/* The device signs the body; the proof is over the body too. So each altered byte breaks one of the two. */
static void altered_or_cut_csr_is_refused(void **state)
{
    fixture *f = *state;
    uint8_t bytes[LINNET_SIGNED_CSR_BYTES + 1] = {0};
    linnet_csr csr, before;
    memset(&csr, 0x5a, sizeof(csr));
    memset(&before, 0x5a, sizeof(before));
    sign_csr(f, bytes);
    for (size_t at = 0; at < LINNET_SIGNED_CSR_BYTES; at++) {
        bool in_proof = at >= LINNET_CSR_BYTES && at < LINNET_CSR_BYTES + 32;
        bool in_signature = at >= LINNET_CSR_BYTES + 32;
        bytes[at] ^= 0x10;
        if (in_proof) {
            assert_int_equal(linnet_csr_check_token(bytes, LINNET_SIGNED_CSR_BYTES, f->token.secret),
                             LINNET_ERR_CRYPTO);
        } else {
            assert_int_equal(linnet_csr_open(bytes, LINNET_SIGNED_CSR_BYTES, &csr), LINNET_ERR_CRYPTO);
            assert_int_equal(linnet_csr_check_token(bytes, LINNET_SIGNED_CSR_BYTES, f->token.secret),
                             in_signature ? LINNET_OK : LINNET_ERR_CRYPTO);
        }
        bytes[at] ^= 0x10;
    }
    for (size_t n = 0; n <= sizeof(bytes); n++) {
        if (n == LINNET_SIGNED_CSR_BYTES)
            continue;
        assert_int_equal(linnet_csr_open(bytes, n, &csr), LINNET_ERR_FORMAT);
        assert_int_equal(linnet_csr_check_token(bytes, n, f->token.secret), LINNET_ERR_FORMAT);
    }
    assert_memory_equal(&csr, &before, sizeof(csr));
}

static void csr_signed_by_another_key_is_refused(void **state)
{
    fixture *f = *state;
    linnet_csr csr = {.public_key = *linnet_identity_public_key(f->device)}, opened;
    uint8_t bytes[LINNET_SIGNED_CSR_BYTES];
    linnet_csr_sign(&csr, &f->token, f->authority, bytes);
    assert_int_equal(linnet_csr_open(bytes, sizeof(bytes), &opened), LINNET_ERR_CRYPTO);
}

/* ---- certificates ---- */

static linnet_certificate sample_certificate(const fixture *f)
{
    linnet_certificate certificate = {.public_key = *linnet_identity_public_key(f->device),
                                      .device_class = 9,
                                      .serial = 0x0102030405060708,
                                      .not_before = MONDAY,
                                      .not_after = MONDAY + 30 * DAY};
    certificate.device_id = linnet_device_id_of(&certificate.public_key);
    return certificate;
}

static linnet_status open_certificate(const fixture *f, const void *bytes, uint64_t now_s)
{
    linnet_certificate certificate, before;
    memset(&certificate, 0x5a, sizeof(certificate));
    memset(&before, 0x5a, sizeof(before));
    linnet_status status =
        linnet_certificate_open(bytes, LINNET_SIGNED_CERTIFICATE_BYTES,
                                linnet_identity_public_key(f->authority), now_s, &certificate);
    if (status != LINNET_OK)
        assert_memory_equal(&certificate, &before, sizeof(certificate));
    return status;
}

static void certificate_survives_signing_and_opening(void **state)
{
    fixture *f = *state;
    linnet_certificate want = sample_certificate(f), got;
    uint8_t bytes[LINNET_SIGNED_CERTIFICATE_BYTES];
    linnet_certificate_sign(&want, f->authority, bytes);
    assert_int_equal(
        linnet_certificate_open(bytes, sizeof(bytes), linnet_identity_public_key(f->authority), MONDAY, &got),
        LINNET_OK);
    assert_memory_equal(&got.device_id, &want.device_id, sizeof(want.device_id));
    assert_memory_equal(&got.public_key, &want.public_key, sizeof(want.public_key));
    assert_int_equal(got.device_class, 9);
    assert_true(got.serial == want.serial && got.not_before == want.not_before &&
                got.not_after == want.not_after);
}

static void certificate_counts_only_within_its_validity(void **state)
{
    fixture *f = *state;
    linnet_certificate certificate = sample_certificate(f);
    uint8_t bytes[LINNET_SIGNED_CERTIFICATE_BYTES];
    linnet_certificate_sign(&certificate, f->authority, bytes);
    const struct {
        uint64_t now_s;
        linnet_status want;
    } cases[] = {
        {0, LINNET_OK}, /* no clock */
        {1, LINNET_ERR_EXPIRED},
        {MONDAY - 1, LINNET_ERR_EXPIRED},
        {MONDAY, LINNET_OK},
        {MONDAY + 30 * DAY, LINNET_OK},
        {MONDAY + 30 * DAY + 1, LINNET_ERR_EXPIRED},
        {UINT64_MAX, LINNET_ERR_EXPIRED},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(open_certificate(f, bytes, cases[i].now_s), cases[i].want);
}

/* The body starts with the version, 1; the rest of the layout is in the header. */
static linnet_status open_resigned(const fixture *f, uint8_t *bytes)
{
    linnet_signature signature =
        linnet_sign(f->authority, LINNET_LABEL_CERTIFICATE, bytes, LINNET_CERTIFICATE_BYTES);
    memcpy(bytes + LINNET_CERTIFICATE_BYTES, signature.bytes, sizeof(signature.bytes));
    return open_certificate(f, bytes, 0);
}

static void certificate_with_signed_nonsense_is_refused(void **state)
{
    fixture *f = *state;
    linnet_certificate certificate = sample_certificate(f);
    uint8_t bytes[LINNET_SIGNED_CERTIFICATE_BYTES];
    linnet_certificate_sign(&certificate, f->authority, bytes);
    assert_int_equal(open_resigned(f, bytes), LINNET_OK);
    bytes[0] = 2; /* a later version */
    assert_int_equal(open_resigned(f, bytes), LINNET_ERR_FORMAT);
    bytes[0] = 1;
    bytes[1] = 1;
    assert_int_equal(open_resigned(f, bytes), LINNET_ERR_FORMAT);
    bytes[1] = 0;
    bytes[2] ^= 1; /* a device id of another key */
    assert_int_equal(open_resigned(f, bytes), LINNET_ERR_FORMAT);
    bytes[2] ^= 1;
    linnet_store_le64(bytes + 62, MONDAY + 31 * DAY); /* ends before it begins */
    assert_int_equal(open_resigned(f, bytes), LINNET_ERR_FORMAT);
}

static void altered_cut_or_foreign_certificate_is_refused(void **state)
{
    fixture *f = *state;
    linnet_certificate certificate = sample_certificate(f), opened;
    uint8_t bytes[LINNET_SIGNED_CERTIFICATE_BYTES + 1] = {0};
    linnet_certificate_sign(&certificate, f->authority, bytes);
    for (size_t bit = 0; bit < LINNET_SIGNED_CERTIFICATE_BYTES * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(open_certificate(f, bytes, 0), LINNET_ERR_CRYPTO);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t n = 0; n <= sizeof(bytes); n++)
        if (n != LINNET_SIGNED_CERTIFICATE_BYTES)
            assert_int_equal(
                linnet_certificate_open(bytes, n, linnet_identity_public_key(f->authority), 0, &opened),
                LINNET_ERR_FORMAT);
    linnet_certificate_sign(&certificate, f->coordinator, bytes);
    assert_int_equal(open_certificate(f, bytes, 0), LINNET_ERR_CRYPTO);
}

/* ---- revocation lists ---- */

static linnet_device_id id_of(uint32_t value)
{
    linnet_device_id id = {{0}};
    for (int i = 0; i < 4; i++)
        id.bytes[i] = (uint8_t)(value >> (24 - 8 * i)); /* big-endian: numeric order is memcmp order */
    return id;
}

static void revocation_list_finds_exactly_its_ids(void **state)
{
    fixture *f = *state;
    static linnet_device_id ids[1000];
    static const size_t sizes[] = {0, 1, 2, 3, 999, 1000};
    for (uint32_t i = 0; i < ARRAY_LEN(ids); i++)
        ids[i] = id_of(2 * i + 1);
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
        linnet_buffer bytes = {0};
        linnet_revocation revocation;
        linnet_error err;
        assert_ok(linnet_revocation_sign(77, ids, sizes[s], f->authority, &bytes, &err), &err);
        assert_int_equal(linnet_revocation_open(bytes.bytes, bytes.n_bytes,
                                                linnet_identity_public_key(f->authority), &revocation),
                         LINNET_OK);
        assert_int_equal(revocation.number, 77);
        assert_int_equal(revocation.n_ids, sizes[s]);
        for (uint32_t value = 0; value < 2010; value++) {
            linnet_device_id id = id_of(value);
            assert_int_equal(linnet_revocation_contains(&revocation, &id),
                             value % 2 == 1 && value / 2 < sizes[s]);
        }
        linnet_buffer_release(&bytes);
    }
}

static void unsorted_or_repeated_ids_are_not_signed(void **state)
{
    fixture *f = *state;
    linnet_device_id unsorted[] = {id_of(2), id_of(1)}, repeated[] = {id_of(1), id_of(1)};
    linnet_buffer bytes = {0};
    linnet_error err;
    assert_int_equal(linnet_revocation_sign(1, unsorted, 2, f->authority, &bytes, &err), LINNET_ERR_ARG);
    assert_int_equal(linnet_revocation_sign(1, repeated, 2, f->authority, &bytes, &err), LINNET_ERR_ARG);
    assert_int_equal(bytes.n_bytes, 0);
    linnet_buffer_release(&bytes);
}

/* A list signed by the authority whose contents break the rules. */
static linnet_status open_forged(const fixture *f, uint32_t n_claimed, const linnet_device_id *ids,
                                 size_t n_ids, size_t n_trailing)
{
    linnet_buffer bytes = {0};
    linnet_revocation revocation;
    linnet_buffer_append_le64(&bytes, 5);
    linnet_buffer_append_le32(&bytes, n_claimed);
    linnet_buffer_append(&bytes, ids, n_ids * sizeof(*ids));
    linnet_buffer_append(&bytes, "0123456789abcdef", n_trailing);
    linnet_signature signature =
        linnet_sign(f->authority, LINNET_LABEL_REVOCATION, bytes.bytes, bytes.n_bytes);
    linnet_buffer_append(&bytes, signature.bytes, sizeof(signature.bytes));
    linnet_status status = linnet_revocation_open(bytes.bytes, bytes.n_bytes,
                                                  linnet_identity_public_key(f->authority), &revocation);
    linnet_buffer_release(&bytes);
    return status;
}

static void signed_list_that_breaks_the_rules_is_refused(void **state)
{
    fixture *f = *state;
    linnet_device_id sorted[] = {id_of(1), id_of(2)}, unsorted[] = {id_of(2), id_of(1)},
                     repeated[] = {id_of(1), id_of(1)};
    const struct {
        const char *name;
        uint32_t n_claimed;
        const linnet_device_id *ids;
        size_t n_ids, n_trailing;
        linnet_status want;
    } cases[] = {
        {"in order", 2, sorted, 2, 0, LINNET_OK},
        {"empty", 0, sorted, 0, 0, LINNET_OK},
        {"not sorted", 2, unsorted, 2, 0, LINNET_ERR_FORMAT},
        {"an id twice", 2, repeated, 2, 0, LINNET_ERR_FORMAT},
        {"more claimed than there", 3, sorted, 2, 0, LINNET_ERR_FORMAT},
        {"fewer claimed than there", 1, sorted, 2, 0, LINNET_ERR_FORMAT},
        {"a trailing byte", 2, sorted, 2, 1, LINNET_ERR_FORMAT},
        {"most of another id", 2, sorted, 2, 15, LINNET_ERR_FORMAT},
        {"a count whose bytes wrap in 32 bits", 0x10000002, sorted, 2, 0, LINNET_ERR_FORMAT},
        {"the largest count", UINT32_MAX, sorted, 2, 0, LINNET_ERR_FORMAT},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_status got =
            open_forged(f, cases[i].n_claimed, cases[i].ids, cases[i].n_ids, cases[i].n_trailing);
        if (got != cases[i].want)
            fail_msg("%s: got %s", cases[i].name, linnet_status_name(got));
    }
}

static void altered_or_cut_revocation_list_is_refused(void **state)
{
    fixture *f = *state;
    linnet_device_id ids[] = {id_of(1), id_of(2), id_of(3)};
    linnet_buffer bytes = {0};
    linnet_revocation revocation = {0};
    linnet_error err;
    const linnet_public_key *key = linnet_identity_public_key(f->authority);
    assert_ok(linnet_revocation_sign(8, ids, 3, f->authority, &bytes, &err), &err);
    for (size_t at = 0; at < bytes.n_bytes; at++) {
        bytes.bytes[at] ^= 1;
        assert_int_equal(linnet_revocation_open(bytes.bytes, bytes.n_bytes, key, &revocation),
                         LINNET_ERR_CRYPTO);
        bytes.bytes[at] ^= 1;
    }
    for (size_t n = 0; n < bytes.n_bytes; n++)
        assert_int_equal(linnet_revocation_open(bytes.bytes, n, key, &revocation),
                         n < 12 + 64 ? LINNET_ERR_FORMAT : LINNET_ERR_CRYPTO);
    assert_int_equal(linnet_revocation_open(bytes.bytes, bytes.n_bytes,
                                            linnet_identity_public_key(f->coordinator), &revocation),
                     LINNET_ERR_CRYPTO);
    assert_null(revocation.ids);
    linnet_buffer_release(&bytes);
}

/* ---- the second implementation ---- */

static void records_match_the_second_implementation(void **state)
{
    fixture *f = *state;
    json_t *v = vectors_load("channel.json");
    linnet_enrol_token token;
    linnet_csr csr = {.public_key = *linnet_identity_public_key(f->device),
                      .device_class = (uint32_t)vector_integer(v, "device_class"),
                      .coordinator = *linnet_identity_public_key(f->coordinator)};
    uint8_t signed_csr[LINNET_SIGNED_CSR_BYTES], signed_certificate[LINNET_SIGNED_CERTIFICATE_BYTES];
    vector_copy(v, "token_id", token.id, sizeof(token.id));
    vector_copy(v, "token_secret", token.secret, sizeof(token.secret));
    memcpy(csr.token_id, token.id, sizeof(csr.token_id));
    linnet_csr_sign(&csr, &token, f->device, signed_csr);
    assert_vector(v, "csr", signed_csr, sizeof(signed_csr));

    linnet_certificate certificate = {.device_id = linnet_device_id_of(&csr.public_key),
                                      .public_key = csr.public_key,
                                      .device_class = csr.device_class,
                                      .serial = vector_integer(v, "certificate_serial"),
                                      .not_before = vector_integer(v, "certificate_not_before"),
                                      .not_after = vector_integer(v, "certificate_not_after")};
    linnet_certificate_sign(&certificate, f->authority, signed_certificate);
    assert_vector(v, "device_id", certificate.device_id.bytes, sizeof(certificate.device_id.bytes));
    assert_vector(v, "certificate", signed_certificate, sizeof(signed_certificate));

    linnet_device_id revoked[2];
    linnet_buffer list = {0};
    linnet_error err;
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(linnet_hex_read(json_string_value(json_array_get(json_object_get(v, "revoked"), i)),
                                         revoked[i].bytes, 16),
                         LINNET_OK);
    assert_ok(
        linnet_revocation_sign(vector_integer(v, "revocation_number"), revoked, 2, f->authority, &list, &err),
        &err);
    assert_vector(v, "revocation", list.bytes, list.n_bytes);
    linnet_buffer_release(&list);
    json_decref(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(key_pairs_match_rfc_8032),
        cmocka_unit_test(libsodium_signs_and_verifies_as_in_rfc_8032),
        cmocka_unit_test(created_identities_differ),
        cmocka_unit_test(device_id_is_the_start_of_the_keys_hash),
        cmocka_unit_test(altered_messages_keys_and_signatures_do_not_verify),
        cmocka_unit_test(body_signed_under_one_label_verifies_under_no_other),
        cmocka_unit_test(hash_with_its_own_label_is_signed_as_it_is),
        cmocka_unit_test(keys_of_small_order_verify_nothing),
        cmocka_unit_test(csr_survives_signing_and_opening),
        cmocka_unit_test(csr_with_a_wrong_token_secret_is_refused),
        cmocka_unit_test(altered_or_cut_csr_is_refused),
        cmocka_unit_test(csr_signed_by_another_key_is_refused),
        cmocka_unit_test(certificate_survives_signing_and_opening),
        cmocka_unit_test(certificate_counts_only_within_its_validity),
        cmocka_unit_test(certificate_with_signed_nonsense_is_refused),
        cmocka_unit_test(altered_cut_or_foreign_certificate_is_refused),
        cmocka_unit_test(revocation_list_finds_exactly_its_ids),
        cmocka_unit_test(unsorted_or_repeated_ids_are_not_signed),
        cmocka_unit_test(signed_list_that_breaks_the_rules_is_refused),
        cmocka_unit_test(altered_or_cut_revocation_list_is_refused),
        cmocka_unit_test(records_match_the_second_implementation),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
