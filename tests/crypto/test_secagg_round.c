/* SPDX-License-Identifier: Apache-2.0 */

/* A whole round made by a second implementation (tests/reference/secagg_round.py): the machines here give the
 * same bytes, and take its messages. */

#include "secagg_device.h"
#include "vectors.h"

#define DEVICES 8
#define BYTES_MAX 8192

typedef struct hex {
    uint8_t bytes[BYTES_MAX];
    size_t n_bytes;
} hex;

static hex get(const json_t *object, const char *name)
{
    hex v = {.n_bytes = strlen(vector_text(object, name)) / 2};
    assert_true(v.n_bytes <= BYTES_MAX);
    assert_int_equal(linnet_hex_read(vector_text(object, name), v.bytes, v.n_bytes), LINNET_OK);
    return v;
}

#define assert_bytes(object, name, got, n_got)                                                               \
    do {                                                                                                     \
        hex want_ = get(object, name);                                                                       \
        assert_int_equal(want_.n_bytes, n_got);                                                              \
        assert_memory_equal(want_.bytes, got, n_got);                                                        \
    } while (0)

typedef struct fixture {
    json_t *root;
    linnet_secagg_params params;
    linnet_secagg_trust trust;
    linnet_public_key authority;
    linnet_identity *coordinator;
} fixture;

static const json_t *device_at(const fixture *f, size_t i)
{
    return json_array_get(json_object_get(f->root, "devices"), i);
}

static bool has(const json_t *object, const char *name)
{
    return json_object_get(object, name) != NULL;
}

static linnet_identity *identity_of(const json_t *object, const char *name)
{
    linnet_identity *identity = NULL;
    hex seed = get(object, name);
    assert_int_equal(linnet_identity_from_seed(seed.bytes, &identity, NULL), LINNET_OK);
    return identity;
}

static void start(fixture *f)
{
    *f = (fixture){.root = vectors_load("crypto/secagg-round.json")};
    f->coordinator = identity_of(f->root, "coordinator_seed");
    vector_copy(f->root, "authority", f->authority.bytes, sizeof(f->authority.bytes));
    f->trust = (linnet_secagg_trust){.authority = &f->authority, .now_s = 1000};
    f->params = (linnet_secagg_params){
        .coordinator = *linnet_identity_public_key(f->coordinator),
        .n_min = (uint32_t)vector_integer(f->root, "n_min"),
        .n_max = (uint32_t)vector_integer(f->root, "n_max"),
        .m_min = (uint32_t)vector_integer(f->root, "m_min"),
        .corrupt_permille = (uint32_t)vector_integer(f->root, "corrupt_permille"),
        .n_vectors = 1,
        .vectors = {{.id = (uint32_t)vector_integer(f->root, "vector_id"),
                     .bits = (uint32_t)vector_integer(f->root, "bits"),
                     .length = vector_integer(f->root, "length")}},
    };
    vector_copy(f->root, "announcement", f->params.announcement.bytes, LINNET_HASH_BYTES);
}

static void stop(fixture *f)
{
    linnet_identity_destroy(f->coordinator);
    json_decref(f->root);
}

/* ---- the coordinator ---- */

static linnet_status read_m3(void *context, uint32_t owner, size_t offset, void *bytes, size_t n_bytes,
                             linnet_error *err)
{
    const fixture *f = context;
    hex m3 = get(device_at(f, owner), "m3");
    assert_true(offset + n_bytes <= m3.n_bytes);
    memcpy(bytes, m3.bytes + offset, n_bytes);
    (void)err;
    return LINNET_OK;
}

static void assert_made(const fixture *f, linnet_status status, linnet_buffer *made, const json_t *object,
                        const char *name)
{
    (void)f;
    assert_int_equal(status, LINNET_OK);
    assert_bytes(object, name, made->bytes, made->n_bytes);
    linnet_buffer_release(made);
}

static void give_messages(const fixture *f, linnet_secagg_server *server, const char *name,
                          linnet_status (*take)(linnet_secagg_server *, const void *, size_t, bool,
                                                linnet_error *))
{
    for (size_t i = 0; i < DEVICES; i++) {
        if (!has(device_at(f, i), name))
            continue;
        hex m = get(device_at(f, i), name);
        assert_int_equal(take(server, m.bytes, m.n_bytes, true, NULL), LINNET_OK);
    }
}

static void give_masked(const fixture *f, linnet_secagg_server *server, uint32_t *sum)
{
    for (uint32_t i = 0; i < DEVICES; i++) {
        const json_t *d = device_at(f, i);
        linnet_device_id id = *linnet_secagg_server_device(server, i);
        linnet_hash echo;
        linnet_signature signature;
        if (!has(d, "y"))
            continue;
        hex y = get(d, "y");
        vector_copy(d, "hy", echo.bytes, sizeof(echo.bytes));
        vector_copy(d, "header_signature", signature.bytes, sizeof(signature.bytes));
        assert_int_equal(linnet_secagg_server_masked(server, &id, &echo, &signature, true, NULL), LINNET_OK);
        linnet_pack_add(f->params.vectors[0].bits, y.bytes, (size_t)f->params.vectors[0].length, sum);
    }
}

static void the_coordinator_answers_as_the_other_implementation(void **state)
{
    (void)state;
    fixture f;
    linnet_secagg_server *server = NULL;
    linnet_buffer made = {0};
    uint32_t sum[1024] = {0};
    uint8_t packed[BYTES_MAX];
    start(&f);
    const linnet_secagg_vector *v = &f.params.vectors[0];
    assert_int_equal(linnet_secagg_server_create(&f.params, f.coordinator, &server, NULL), LINNET_OK);
    for (size_t i = DEVICES; i-- > 0;) { /* in any order */
        hex m1 = get(device_at(&f, i), "m1");
        assert_int_equal(linnet_secagg_server_advert(server, &f.trust, m1.bytes, m1.n_bytes, true, NULL),
                         LINNET_OK);
    }
    assert_int_equal(linnet_secagg_server_close_roster(server, NULL), LINNET_OK);
    assert_made(&f, linnet_secagg_server_make_roster(server, &made, NULL), &made, f.root, "m2");
    give_messages(&f, server, "m3", linnet_secagg_server_shares);
    assert_int_equal(linnet_secagg_server_close_sharers(server, NULL), LINNET_OK);
    for (uint32_t i = 0; i < DEVICES; i++)
        if (has(device_at(&f, i), "m4"))
            assert_made(&f,
                        linnet_secagg_server_make_sharers(server, linnet_secagg_server_device(server, i),
                                                          read_m3, &f, &made, NULL),
                        &made, device_at(&f, i), "m4");
    give_masked(&f, server, sum);
    assert_int_equal(linnet_secagg_server_freeze(server, NULL), LINNET_OK);
    assert_made(&f, linnet_secagg_server_make_survivors(server, &made, NULL), &made, f.root, "m6");
    give_messages(&f, server, "m7", linnet_secagg_server_attestation);
    assert_made(&f, linnet_secagg_server_make_certificate(server, &made, NULL), &made, f.root, "m8");
    give_messages(&f, server, "m9", linnet_secagg_server_unmasking);
    assert_int_equal(linnet_secagg_server_open(server, NULL, NULL), LINNET_OK);
    assert_int_equal(linnet_secagg_server_unmask(server, 0, 0, (size_t)v->length, sum, NULL), LINNET_OK);
    linnet_pack(v->bits, sum, (size_t)v->length, packed);
    assert_bytes(f.root, "sum", packed, linnet_pack_bytes(v->bits, v->length));
    linnet_secagg_server_destroy(server);
    stop(&f);
}

/* ---- a device ---- */

/* One that has drawn what the vector's device drew. */
static linnet_secagg_device *device_of(const fixture *f, const json_t *d, const linnet_identity *identity)
{
    linnet_secagg_device *device = NULL;
    hex m1 = get(d, "m1");
    assert_int_equal(linnet_secagg_device_alloc(&f->params, identity, &device, NULL), LINNET_OK);
    vector_copy(d, "r_s", device->secrets->r_s.bytes, LINNET_SCALAR_BYTES);
    vector_copy(d, "r_b", device->secrets->r_b.bytes, LINNET_SCALAR_BYTES);
    vector_copy(d, "sk_e", device->secrets->sk_e, 32);
    linnet_secagg_kx_pair(&device->secrets->r_s, &f->params.announcement, &device->id, device->secrets->sk_x,
                          device->advert); /* the public key is in the vector's M1 */
    assert_memory_equal(device->advert, m1.bytes + ADVERT_PK_X, 32);
    linnet_hash commitment =
        linnet_secagg_self_commitment(&device->secrets->r_b, &f->params.announcement, &device->id);
    assert_memory_equal(commitment.bytes, m1.bytes + ADVERT_COMMITMENT, LINNET_HASH_BYTES);
    linnet_signature signature =
        linnet_sign(identity, LINNET_LABEL_ADVERT, m1.bytes, LINNET_ADVERT_BODY_BYTES);
    assert_memory_equal(signature.bytes, m1.bytes + ADVERT_SIGNATURE, LINNET_SIGNATURE_BYTES);
    assert_int_equal(m1.n_bytes, LINNET_ADVERT_BYTES);
    memcpy(device->advert, m1.bytes, LINNET_ADVERT_BYTES);
    device->phase = LINNET_SECAGG_ADVERTISED;
    return device;
}

static void mask_and_compare(const fixture *f, linnet_secagg_device *device, const json_t *d)
{
    linnet_hash echo;
    linnet_signature signature;
    hex packed = get(d, "x");
    assert_int_equal(
        linnet_secagg_device_mask(device, 0, 0, (size_t)f->params.vectors[0].length, packed.bytes, NULL),
        LINNET_OK);
    assert_bytes(d, "y", packed.bytes, packed.n_bytes);
    vector_copy(d, "hy", echo.bytes, sizeof(echo.bytes));
    vector_copy(d, "header_signature", signature.bytes, sizeof(signature.bytes));
    assert_int_equal(linnet_secagg_device_fix_echo(device, &echo, &signature, NULL), LINNET_OK);
}

static void a_device_answers_as_the_other_implementation(void **state)
{
    (void)state;
    fixture f;
    size_t n_played = 0;
    start(&f);
    for (size_t i = 0; i < DEVICES; i++) {
        const json_t *d = device_at(&f, i);
        size_t n_bytes;
        if (!has(d, "m9"))
            continue;
        linnet_identity *identity = identity_of(d, "seed");
        linnet_secagg_device *device = device_of(&f, d, identity);
        hex m2 = get(f.root, "m2"), m4 = get(d, "m4"), m6 = get(f.root, "m6"), m8 = get(f.root, "m8");
        assert_int_equal(linnet_secagg_device_take_roster(device, &f.trust, m2.bytes, m2.n_bytes, NULL),
                         LINNET_OK);
        assert_int_equal(linnet_secagg_device_take_sharers(device, m4.bytes, m4.n_bytes, NULL), LINNET_OK);
        mask_and_compare(&f, device, d);
        if (has(d, "m7")) { /* the others adopt the certificate */
            assert_int_equal(linnet_secagg_device_take_survivors(device, m6.bytes, m6.n_bytes, NULL),
                             LINNET_OK);
            const uint8_t *m7 = linnet_secagg_device_attestation(device, &n_bytes);
            assert_bytes(d, "m7", m7, n_bytes);
        }
        assert_int_equal(linnet_secagg_device_take_certificate(device, m8.bytes, m8.n_bytes, NULL),
                         LINNET_OK);
        const uint8_t *m9 = linnet_secagg_device_unmask(device, &n_bytes);
        assert_bytes(d, "m9", m9, n_bytes);
        linnet_secagg_device_destroy(device);
        linnet_identity_destroy(identity);
        n_played++;
    }
    assert_int_equal(n_played, 6);
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_coordinator_answers_as_the_other_implementation),
        cmocka_unit_test(a_device_answers_as_the_other_implementation),
    };
    return cmocka_run_group_tests(tests, crypto_start, NULL);
}
