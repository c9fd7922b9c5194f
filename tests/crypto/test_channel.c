/* SPDX-License-Identifier: Apache-2.0 */
/* The request channel (SECURE-AGGREGATION 2.11 and 6.2, property 29): round trips, the vector of a second
 * implementation, and replay, reflection, swapped answers, old keys, altered and cut bytes. */
#include "crypto/channel_inner.h"
#include "vectors.h"

#include <malloc.h>

#define MONDAY 1767225600u
#define DAY 86400u
#define METHOD "POST"
#define PATH "/v1/checkin"

/* Offsets in a sealed request. */
#define NUMBER_AT 1
#define ENC_AT 9
#define CIPHERTEXT_AT 41

/* A channel key with its signed record. */
typedef struct channel {
    linnet_channel_key key;
    uint8_t secret[32];
    uint8_t record[LINNET_SIGNED_CHANNEL_KEY_BYTES];
} channel;

typedef struct fixture {
    linnet_identity *device, *other_device, *coordinator;
    channel channel;
} fixture;

static channel channel_of(const linnet_identity *coordinator, uint64_t number)
{
    channel c = {
        .key = {.task = "one task", .number = number, .not_before = MONDAY, .not_after = MONDAY + 7 * DAY}};
    linnet_channel_key_draw(&c.key, c.secret);
    linnet_channel_key_sign(&c.key, coordinator, c.record);
    return c;
}

/* The n-th call of realloc from now on fails; 0: none. The linker puts this in the place of realloc. */
static unsigned fail_realloc_in;
void *__real_realloc(void *memory, size_t n_bytes);
void *__wrap_realloc(void *memory, size_t n_bytes);
void *__wrap_realloc(void *memory, size_t n_bytes)
{
    if (fail_realloc_in > 0 && --fail_realloc_in == 0)
        return NULL;
    return __real_realloc(memory, n_bytes);
}

/* Counts the blocks that still hold a secret when they are given back. The linker puts this in the place of
 * free. */
static const char *secret_text;
static unsigned n_leaked;
void __real_free(void *memory);
void __wrap_free(void *memory);
void __wrap_free(void *memory)
{
    size_t n_secret = secret_text ? strlen(secret_text) : 0,
           n_memory = memory ? malloc_usable_size(memory) : 0;
    for (size_t at = 0; n_secret > 0 && at + n_secret <= n_memory; at++)
        if (memcmp((const char *)memory + at, secret_text, n_secret) == 0) {
            n_leaked++;
            break;
        }
    __real_free(memory);
}

static int setup(void **state)
{
    static fixture f;
    linnet_error err;
    if (crypto_start(state) != 0)
        return -1;
    assert_ok(linnet_identity_create(&f.device, &err), &err);
    assert_ok(linnet_identity_create(&f.other_device, &err), &err);
    assert_ok(linnet_identity_create(&f.coordinator, &err), &err);
    f.channel = channel_of(f.coordinator, 7);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    linnet_identity_destroy(f->device);
    linnet_identity_destroy(f->other_device);
    linnet_identity_destroy(f->coordinator);
    return 0;
}

/* One request, as the device made it and as the coordinator opened it. */
typedef struct trip {
    linnet_buffer wire;
    linnet_exchange exchange;
    linnet_opened_request opened;
} trip;

static void trip_make(const fixture *f, const void *body, size_t n_body, trip *t)
{
    linnet_error err;
    *t = (trip){0};
    assert_ok(linnet_request_seal(f->channel.record, METHOD, PATH, f->device, body, n_body, &t->wire,
                                  &t->exchange, &err),
              &err);
    assert_ok(linnet_request_open(f->channel.record, f->channel.secret, METHOD, PATH, t->wire.bytes,
                                  t->wire.n_bytes, &t->opened, &err),
              &err);
}

static void trip_release(trip *t)
{
    linnet_buffer_release(&t->wire);
    linnet_exchange_release(&t->exchange);
    linnet_opened_request_release(&t->opened);
}

/* Open with a given channel and address; on failure nothing may be left in the result. */
static linnet_status try_open(const channel *c, const char *method, const char *path, const void *bytes,
                              size_t n_bytes)
{
    linnet_opened_request opened = {0};
    static const linnet_opened_request zero;
    linnet_error err = {0};
    linnet_status status =
        linnet_request_open(c->record, c->secret, method, path, bytes, n_bytes, &opened, &err);
    if (status == LINNET_OK) {
        linnet_opened_request_release(&opened);
    } else {
        assert_memory_equal(&opened, &zero, sizeof(zero));
        assert_int_equal(err.status, status);
        assert_true(err.message[0] != '\0');
    }
    return status;
}

static linnet_status try_response(const linnet_exchange *exchange, const void *bytes, size_t n_bytes)
{
    linnet_buffer body = {0};
    linnet_error err = {0};
    linnet_status status = linnet_response_open(exchange, bytes, n_bytes, &body, &err);
    if (status != LINNET_OK) {
        assert_int_equal(body.n_bytes, 0);
        assert_int_equal(err.status, status);
    }
    linnet_buffer_release(&body);
    return status;
}

/* ---- it works ---- */

static void request_and_answer_arrive_whole(void **state)
{
    fixture *f = *state;
    static uint8_t body[70000];
    static const size_t sizes[] = {0, 1, 16, 255, 256, 65536, sizeof(body)};
    for (size_t i = 0; i < sizeof(body); i++)
        body[i] = (uint8_t)(i * 31 >> 2);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        trip t;
        linnet_buffer answer = {0}, opened = {0};
        linnet_error err;
        trip_make(f, sizes[i] > 0 ? body : NULL, sizes[i], &t);
        assert_int_equal(t.wire.n_bytes, sizes[i] + LINNET_REQUEST_OVERHEAD);
        assert_int_equal(t.opened.n_body, sizes[i]);
        assert_memory_equal(t.opened.body, body, sizes[i]);
        assert_int_equal(linnet_request_verify(&t.opened, linnet_identity_public_key(f->device)), LINNET_OK);
        assert_memory_equal(&t.opened.exchange, &t.exchange, sizeof(t.exchange));

        assert_ok(
            linnet_response_seal(&t.opened.exchange, sizes[i] > 0 ? body : NULL, sizes[i], &answer, &err),
            &err);
        assert_int_equal(answer.n_bytes, sizes[i] + LINNET_RESPONSE_OVERHEAD);
        assert_ok(linnet_response_open(&t.exchange, answer.bytes, answer.n_bytes, &opened, &err), &err);
        assert_int_equal(opened.n_bytes, sizes[i]);
        if (sizes[i] > 0)
            assert_memory_equal(opened.bytes, body, sizes[i]);
        linnet_buffer_release(&answer);
        linnet_buffer_release(&opened);
        trip_release(&t);
    }
}

static void same_body_sealed_twice_shares_no_bytes_that_matter(void **state)
{
    fixture *f = *state;
    trip a, b;
    linnet_buffer one = {0}, two = {0};
    linnet_error err;
    trip_make(f, "same", 4, &a);
    trip_make(f, "same", 4, &b);
    assert_memory_equal(a.wire.bytes, b.wire.bytes, ENC_AT);
    assert_memory_not_equal(a.wire.bytes + ENC_AT, b.wire.bytes + ENC_AT, 32);
    assert_memory_not_equal(a.wire.bytes + CIPHERTEXT_AT, b.wire.bytes + CIPHERTEXT_AT, 4);
    assert_memory_not_equal(a.exchange.secret, b.exchange.secret, 32);
    assert_ok(linnet_response_seal(&a.exchange, "same", 4, &one, &err), &err);
    assert_ok(linnet_response_seal(&a.exchange, "same", 4, &two, &err), &err);
    assert_memory_not_equal(one.bytes, two.bytes, 32); /* the response nonce is fresh */
    assert_memory_not_equal(one.bytes + 32, two.bytes + 32, 4);
    linnet_buffer_release(&one);
    linnet_buffer_release(&two);
    trip_release(&a);
    trip_release(&b);
}

/* A front end that crashed and opens the same request again answers it as before: nothing depends on a
 * session. */
static void request_opened_twice_can_be_answered_by_either(void **state)
{
    fixture *f = *state;
    trip t;
    linnet_opened_request again;
    linnet_buffer answer = {0};
    linnet_error err;
    trip_make(f, "body", 4, &t);
    assert_ok(linnet_request_open(f->channel.record, f->channel.secret, METHOD, PATH, t.wire.bytes,
                                  t.wire.n_bytes, &again, &err),
              &err);
    assert_ok(linnet_response_seal(&again.exchange, "answer", 6, &answer, &err), &err);
    assert_int_equal(try_response(&t.exchange, answer.bytes, answer.n_bytes), LINNET_OK);
    linnet_opened_request_release(&again);
    linnet_buffer_release(&answer);
    trip_release(&t);
}

static void key_number_is_read_before_anything_is_opened(void **state)
{
    fixture *f = *state;
    trip t;
    uint64_t number = 0;
    trip_make(f, NULL, 0, &t);
    assert_int_equal(linnet_request_key_number(t.wire.bytes, t.wire.n_bytes, &number), LINNET_OK);
    assert_int_equal(number, 7);
    number = 99;
    for (size_t n = 0; n < LINNET_REQUEST_OVERHEAD; n++)
        assert_int_equal(linnet_request_key_number(t.wire.bytes, n, &number), LINNET_ERR_FORMAT);
    for (int version = 0; version < 256; version++) {
        t.wire.bytes[0] = (uint8_t)version;
        linnet_status want = version == 1 ? LINNET_OK : LINNET_ERR_FORMAT;
        assert_int_equal(linnet_request_key_number(t.wire.bytes, t.wire.n_bytes, &number), want);
    }
    trip_release(&t);
}

static void release_wipes_what_was_opened(void **state)
{
    fixture *f = *state;
    static const linnet_opened_request zero_request;
    static const linnet_exchange zero_exchange;
    trip t;
    trip_make(f, "secret", 6, &t);
    trip_release(&t);
    assert_memory_equal(&t.opened, &zero_request, sizeof(zero_request));
    assert_memory_equal(&t.exchange, &zero_exchange, sizeof(zero_exchange));
}

static void no_plaintext_is_given_back_to_the_allocator(void **state)
{
    fixture *f = *state;
    trip t;
    secret_text = "a body nobody may find";
    n_leaked = 0;
    trip_make(f, secret_text, strlen(secret_text), &t);
    t.wire.bytes[CIPHERTEXT_AT] ^= 1;
    assert_int_equal(try_open(&f->channel, METHOD, PATH, t.wire.bytes, t.wire.n_bytes), LINNET_ERR_CRYPTO);
    trip_release(&t);
    assert_int_equal(n_leaked, 0);

    linnet_buffer plain = {0}; /* and the counter does count */
    linnet_buffer_append_text(&plain, secret_text);
    linnet_buffer_release(&plain);
    assert_int_equal(n_leaked, 1);
    secret_text = NULL;
}

/* ---- requests that must not open ---- */

static void request_with_any_byte_altered_is_refused(void **state)
{
    fixture *f = *state;
    trip t;
    trip_make(f, "a body", 6, &t);
    for (size_t bit = 0; bit < t.wire.n_bytes * 8; bit++) {
        size_t at = bit / 8;
        linnet_status want = at < NUMBER_AT ? LINNET_ERR_FORMAT
                             : at < ENC_AT  ? LINNET_ERR_MISMATCH
                                            : LINNET_ERR_CRYPTO;
        t.wire.bytes[at] ^= (uint8_t)(1 << bit % 8);
        linnet_status got = try_open(&f->channel, METHOD, PATH, t.wire.bytes, t.wire.n_bytes);
        if (got != want)
            fail_msg("bit %zu: got %s", bit, linnet_status_name(got));
        t.wire.bytes[at] ^= (uint8_t)(1 << bit % 8);
    }
    trip_release(&t);
}

static void request_cut_anywhere_or_lengthened_is_refused(void **state)
{
    fixture *f = *state;
    trip t;
    trip_make(f, "a body", 6, &t);
    for (size_t n = 0; n < t.wire.n_bytes; n++) {
        linnet_status want = n < LINNET_REQUEST_OVERHEAD ? LINNET_ERR_FORMAT : LINNET_ERR_CRYPTO;
        assert_int_equal(try_open(&f->channel, METHOD, PATH, t.wire.bytes, n), want);
    }
    linnet_buffer_append_u8(&t.wire, 0);
    assert_int_equal(try_open(&f->channel, METHOD, PATH, t.wire.bytes, t.wire.n_bytes), LINNET_ERR_CRYPTO);
    trip_release(&t);
}

static void request_replayed_to_another_address_is_refused(void **state)
{
    fixture *f = *state;
    static const struct {
        const char *method, *path;
        linnet_status want;
    } cases[] = {
        {"POST", "/v1/checkin", LINNET_OK},          {"GET", "/v1/checkin", LINNET_ERR_CRYPTO},
        {"PUT", "/v1/checkin", LINNET_ERR_CRYPTO},   {"post", "/v1/checkin", LINNET_ERR_CRYPTO},
        {"POST", "/v1/checkins", LINNET_ERR_CRYPTO}, {"POST", "/v1/checki", LINNET_ERR_CRYPTO},
        {"POST", "/v1/enroll", LINNET_ERR_CRYPTO},   {"POST", "", LINNET_ERR_CRYPTO},
        {"", "POST/v1/checkin", LINNET_ERR_CRYPTO},  {"POST/v1", "/checkin", LINNET_ERR_CRYPTO},
        {"POS", "T/v1/checkin", LINNET_ERR_CRYPTO},  {"POST/v1/checkin", "", LINNET_ERR_CRYPTO},
    };
    trip t;
    trip_make(f, "a body", 6, &t);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_status got =
            try_open(&f->channel, cases[i].method, cases[i].path, t.wire.bytes, t.wire.n_bytes);
        if (got != cases[i].want)
            fail_msg("'%s' '%s': got %s", cases[i].method, cases[i].path, linnet_status_name(got));
    }
    trip_release(&t);
}

/* The same S in a record that says something else is another channel: h0 covers every field. */
static void request_is_bound_to_every_field_of_the_key_record(void **state)
{
    fixture *f = *state;
    trip t;
    trip_make(f, "a body", 6, &t);
    for (size_t at = 0; at < LINNET_CHANNEL_KEY_BYTES; at++) {
        channel changed = f->channel;
        changed.record[at] ^= 1;
        bool in_number = at >= 48 && at < 56;
        assert_int_equal(try_open(&changed, METHOD, PATH, t.wire.bytes, t.wire.n_bytes),
                         in_number ? LINNET_ERR_MISMATCH : LINNET_ERR_CRYPTO);
        if (in_number) { /* and where the number on the wire is changed with it */
            t.wire.bytes[NUMBER_AT + at - 48] ^= 1;
            assert_int_equal(try_open(&changed, METHOD, PATH, t.wire.bytes, t.wire.n_bytes),
                             LINNET_ERR_CRYPTO);
            t.wire.bytes[NUMBER_AT + at - 48] ^= 1;
        }
    }
    trip_release(&t);
}

static void request_to_another_key_or_coordinator_is_refused(void **state)
{
    fixture *f = *state;
    channel newer = channel_of(f->coordinator, 8), same_number = channel_of(f->coordinator, 7);
    linnet_identity *other = NULL;
    linnet_error err;
    assert_ok(linnet_identity_create(&other, &err), &err);
    channel foreign = channel_of(other, 7);
    trip t;
    trip_make(f, "a body", 6, &t);
    assert_int_equal(try_open(&newer, METHOD, PATH, t.wire.bytes, t.wire.n_bytes), LINNET_ERR_MISMATCH);
    t.wire.bytes[NUMBER_AT] = 8;
    assert_int_equal(try_open(&newer, METHOD, PATH, t.wire.bytes, t.wire.n_bytes), LINNET_ERR_CRYPTO);
    t.wire.bytes[NUMBER_AT] = 7;
    assert_int_equal(try_open(&same_number, METHOD, PATH, t.wire.bytes, t.wire.n_bytes), LINNET_ERR_CRYPTO);
    assert_int_equal(try_open(&foreign, METHOD, PATH, t.wire.bytes, t.wire.n_bytes), LINNET_ERR_CRYPTO);
    trip_release(&t);
    linnet_identity_destroy(other);
}

static void points_that_give_a_zero_secret_are_refused(void **state)
{
    fixture *f = *state;
    trip t;
    trip_make(f, "a body", 6, &t);
    memset(t.wire.bytes + ENC_AT, 0, 32);
    assert_int_equal(try_open(&f->channel, METHOD, PATH, t.wire.bytes, t.wire.n_bytes), LINNET_ERR_CRYPTO);
    t.wire.bytes[ENC_AT] = 1; /* order 1 */
    assert_int_equal(try_open(&f->channel, METHOD, PATH, t.wire.bytes, t.wire.n_bytes), LINNET_ERR_CRYPTO);
    trip_release(&t);

    channel zero = f->channel;
    linnet_buffer wire = {0};
    linnet_exchange exchange;
    linnet_error err;
    memset(zero.record + 16, 0, 32);
    assert_int_equal(
        linnet_request_seal(zero.record, METHOD, PATH, f->device, "x", 1, &wire, &exchange, &err),
        LINNET_ERR_CRYPTO);
    assert_int_equal(wire.n_bytes, 0);
    linnet_buffer_release(&wire);
}

/* ---- who sent it ---- */

static void request_verifies_only_with_the_senders_key(void **state)
{
    fixture *f = *state;
    trip t;
    trip_make(f, "a body", 6, &t);
    linnet_device_id id = linnet_device_id_of(linnet_identity_public_key(f->device));
    assert_memory_equal(t.opened.device_id.bytes, id.bytes, sizeof(id.bytes));
    assert_int_equal(linnet_request_verify(&t.opened, linnet_identity_public_key(f->device)), LINNET_OK);
    assert_int_equal(linnet_request_verify(&t.opened, linnet_identity_public_key(f->other_device)),
                     LINNET_ERR_CRYPTO);
    assert_int_equal(linnet_request_verify(&t.opened, linnet_identity_public_key(f->coordinator)),
                     LINNET_ERR_CRYPTO);
    trip_release(&t);
}

/* Seal a plaintext of one's own making to a channel: what any stranger can do. */
static void stranger_seals(const channel *c, const uint8_t *plaintext, size_t n_bytes,
                           linnet_opened_request *ret_opened)
{
    trip t = {0};
    linnet_buffer wire = {0};
    linnet_hpke context;
    linnet_error err;
    uint8_t enc[32], number[8];
    linnet_identity *stranger = NULL;
    assert_ok(linnet_identity_create(&stranger, &err), &err);
    assert_ok(linnet_request_seal(c->record, METHOD, PATH, stranger, NULL, 0, &t.wire, &t.exchange, &err),
              &err); /* gives h0 */
    assert_int_equal(linnet_hpke_setup_sender(c->key.public_key, t.exchange.header.bytes, 32, &context, enc),
                     LINNET_OK);
    linnet_store_le64(number, c->key.number);
    linnet_buffer_append_u8(&wire, 1);
    linnet_buffer_append(&wire, number, 8);
    linnet_buffer_append(&wire, enc, 32);
    assert_true(linnet_buffer_reserve(&wire, n_bytes + 16));
    assert_int_equal(linnet_hpke_seal(&context, t.exchange.header.bytes, 32, plaintext, n_bytes,
                                      wire.bytes + wire.n_bytes),
                     LINNET_OK);
    wire.n_bytes += n_bytes + 16;
    assert_ok(
        linnet_request_open(c->record, c->secret, METHOD, PATH, wire.bytes, wire.n_bytes, ret_opened, &err),
        &err);
    linnet_buffer_release(&wire);
    linnet_buffer_release(&t.wire);
    linnet_identity_destroy(stranger);
}

/* Whoever opens a request (another coordinator, a thief of S) cannot send its body on: the signature covers
 * h0 and E. */
static void body_and_signature_cannot_be_sealed_anew(void **state)
{
    fixture *f = *state;
    channel elsewhere = channel_of(f->other_device, 7);
    linnet_opened_request here, there;
    trip t;
    trip_make(f, "a body", 6, &t);
    stranger_seals(&f->channel, t.opened.plaintext.bytes, t.opened.plaintext.n_bytes, &here);
    assert_memory_equal(here.body, "a body", 6);
    assert_int_equal(linnet_request_verify(&here, linnet_identity_public_key(f->device)), LINNET_ERR_CRYPTO);
    stranger_seals(&elsewhere, t.opened.plaintext.bytes, t.opened.plaintext.n_bytes, &there);
    assert_int_equal(linnet_request_verify(&there, linnet_identity_public_key(f->device)), LINNET_ERR_CRYPTO);
    linnet_opened_request_release(&here);
    linnet_opened_request_release(&there);
    trip_release(&t);
}

static void device_cannot_take_the_name_of_another(void **state)
{
    fixture *f = *state;
    trip t;
    trip_make(f, "a body", 6, &t);
    t.opened.device_id = linnet_device_id_of(linnet_identity_public_key(f->other_device));
    assert_int_equal(linnet_request_verify(&t.opened, linnet_identity_public_key(f->other_device)),
                     LINNET_ERR_CRYPTO);
    assert_int_equal(linnet_request_verify(&t.opened, linnet_identity_public_key(f->device)),
                     LINNET_ERR_CRYPTO);
    trip_release(&t);
}

static void plaintext_too_short_for_a_sender_is_refused(void **state)
{
    fixture *f = *state;
    linnet_opened_request opened;
    uint8_t plaintext[80] = {0};
    stranger_seals(&f->channel, plaintext, sizeof(plaintext), &opened); /* the shortest there is: no body */
    assert_int_equal(opened.n_body, 0);
    assert_int_equal(linnet_request_verify(&opened, linnet_identity_public_key(f->device)),
                     LINNET_ERR_CRYPTO);
    linnet_opened_request_release(&opened);

    trip t;
    trip_make(f, NULL, 0, &t); /* one byte less than the shortest is refused by its length alone */
    assert_int_equal(try_open(&f->channel, METHOD, PATH, t.wire.bytes, t.wire.n_bytes - 1),
                     LINNET_ERR_FORMAT);
    trip_release(&t);
}

/* ---- answers ---- */

static void answers_of_two_exchanges_cannot_be_swapped(void **state)
{
    fixture *f = *state;
    trip a, b;
    linnet_buffer answer_a = {0}, answer_b = {0};
    linnet_error err;
    trip_make(f, "same body", 9, &a);
    trip_make(f, "same body", 9, &b);
    assert_ok(linnet_response_seal(&a.opened.exchange, "answer", 6, &answer_a, &err), &err);
    assert_ok(linnet_response_seal(&b.opened.exchange, "answer", 6, &answer_b, &err), &err);
    assert_int_equal(try_response(&a.exchange, answer_a.bytes, answer_a.n_bytes), LINNET_OK);
    assert_int_equal(try_response(&b.exchange, answer_b.bytes, answer_b.n_bytes), LINNET_OK);
    assert_int_equal(try_response(&a.exchange, answer_b.bytes, answer_b.n_bytes), LINNET_ERR_CRYPTO);
    assert_int_equal(try_response(&b.exchange, answer_a.bytes, answer_a.n_bytes), LINNET_ERR_CRYPTO);
    linnet_buffer_release(&answer_a);
    linnet_buffer_release(&answer_b);
    trip_release(&a);
    trip_release(&b);
}

static void reflected_messages_are_refused(void **state)
{
    fixture *f = *state;
    trip t;
    linnet_buffer answer = {0}, framed = {0};
    linnet_error err;
    trip_make(f, "a body that is long enough for a request", 40, &t);
    assert_int_equal(try_response(&t.exchange, t.wire.bytes, t.wire.n_bytes), LINNET_ERR_CRYPTO);
    assert_int_equal(try_response(&t.exchange, t.wire.bytes + ENC_AT, t.wire.n_bytes - ENC_AT),
                     LINNET_ERR_CRYPTO);

    static uint8_t body[128];
    assert_ok(linnet_response_seal(&t.opened.exchange, body, sizeof(body), &answer, &err), &err);
    assert_int_not_equal(try_open(&f->channel, METHOD, PATH, answer.bytes, answer.n_bytes), LINNET_OK);
    linnet_buffer_append(&framed, t.wire.bytes, ENC_AT); /* dressed up with version and number */
    linnet_buffer_append(&framed, answer.bytes, answer.n_bytes);
    assert_int_equal(try_open(&f->channel, METHOD, PATH, framed.bytes, framed.n_bytes), LINNET_ERR_CRYPTO);
    linnet_buffer_release(&answer);
    linnet_buffer_release(&framed);
    trip_release(&t);
}

static void altered_or_cut_answer_is_refused(void **state)
{
    fixture *f = *state;
    trip t;
    linnet_buffer answer = {0};
    linnet_error err;
    trip_make(f, "a body", 6, &t);
    assert_ok(linnet_response_seal(&t.opened.exchange, "an answer", 9, &answer, &err), &err);
    for (size_t bit = 0; bit < answer.n_bytes * 8; bit++) {
        answer.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(try_response(&t.exchange, answer.bytes, answer.n_bytes), LINNET_ERR_CRYPTO);
        answer.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t n = 0; n < answer.n_bytes; n++)
        assert_int_equal(try_response(&t.exchange, answer.bytes, n),
                         n < LINNET_RESPONSE_OVERHEAD ? LINNET_ERR_FORMAT : LINNET_ERR_CRYPTO);
    linnet_buffer_append_u8(&answer, 0);
    assert_int_equal(try_response(&t.exchange, answer.bytes, answer.n_bytes), LINNET_ERR_CRYPTO);
    linnet_buffer_release(&answer);
    trip_release(&t);
}

/* Each of the four fields that link an answer to its request counts. */
static void answer_is_bound_to_the_whole_exchange(void **state)
{
    fixture *f = *state;
    trip t;
    linnet_buffer answer = {0};
    linnet_error err;
    trip_make(f, "a body", 6, &t);
    assert_ok(linnet_response_seal(&t.opened.exchange, "an answer", 9, &answer, &err), &err);
    for (size_t at = 0; at < sizeof(t.exchange); at++) {
        linnet_exchange changed = t.exchange;
        ((uint8_t *)&changed)[at] ^= 0x40;
        assert_int_equal(try_response(&changed, answer.bytes, answer.n_bytes), LINNET_ERR_CRYPTO);
    }
    linnet_buffer_release(&answer);
    trip_release(&t);
}

static void lack_of_memory_is_reported_and_leaves_nothing_behind(void **state)
{
    fixture *f = *state;
    trip t;
    linnet_buffer out = {0}, answer = {0};
    linnet_exchange exchange;
    linnet_error err;
    trip_make(f, "a body", 6, &t);
    for (unsigned n = 1; n <= 2; n++) { /* the plaintext, then the wire message */
        fail_realloc_in = n;
        assert_int_equal(
            linnet_request_seal(f->channel.record, METHOD, PATH, f->device, "x", 1, &out, &exchange, &err),
            LINNET_ERR_NOMEM);
        assert_int_equal(out.n_bytes, 0);
    }
    fail_realloc_in = 1;
    assert_int_equal(try_open(&f->channel, METHOD, PATH, t.wire.bytes, t.wire.n_bytes), LINNET_ERR_NOMEM);
    fail_realloc_in = 1;
    assert_int_equal(linnet_response_seal(&t.exchange, "x", 1, &answer, &err), LINNET_ERR_NOMEM);
    assert_int_equal(answer.n_bytes, 0);
    assert_ok(linnet_response_seal(&t.exchange, "x", 1, &answer, &err), &err);
    fail_realloc_in = 1;
    assert_int_equal(try_response(&t.exchange, answer.bytes, answer.n_bytes), LINNET_ERR_NOMEM);
    assert_int_equal(fail_realloc_in, 0);
    linnet_buffer_release(&out);
    linnet_buffer_release(&answer);
    trip_release(&t);
}

/* ---- channel key records ---- */

static linnet_status open_record(const fixture *f, const uint8_t *record, uint64_t now_s)
{
    linnet_channel_key key, before;
    memset(&key, 0x5a, sizeof(key));
    memset(&before, 0x5a, sizeof(before));
    linnet_status status = linnet_channel_key_open(record, LINNET_SIGNED_CHANNEL_KEY_BYTES,
                                                   linnet_identity_public_key(f->coordinator), now_s, &key);
    if (status != LINNET_OK)
        assert_memory_equal(&key, &before, sizeof(key));
    return status;
}

static void key_record_survives_signing_and_opening(void **state)
{
    fixture *f = *state;
    linnet_channel_key key;
    assert_int_equal(linnet_channel_key_open(f->channel.record, LINNET_SIGNED_CHANNEL_KEY_BYTES,
                                             linnet_identity_public_key(f->coordinator), MONDAY, &key),
                     LINNET_OK);
    assert_memory_equal(&key, &f->channel.key, sizeof(key));
}

static void expired_key_record_is_refused(void **state)
{
    fixture *f = *state;
    static const struct {
        uint64_t now_s;
        linnet_status want;
    } cases[] = {
        {0, LINNET_OK},
        {MONDAY - 1, LINNET_ERR_EXPIRED},
        {MONDAY, LINNET_OK},
        {MONDAY + 7 * DAY, LINNET_OK},
        {MONDAY + 7 * DAY + 1, LINNET_ERR_EXPIRED},
        {UINT64_MAX, LINNET_ERR_EXPIRED},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(open_record(f, f->channel.record, cases[i].now_s), cases[i].want);
}

static void key_record_that_lives_too_long_is_refused(void **state)
{
    fixture *f = *state;
    static const struct {
        uint64_t not_before, not_after;
        linnet_status want;
    } cases[] = {
        {MONDAY, MONDAY, LINNET_OK},
        {MONDAY, MONDAY + LINNET_CHANNEL_KEY_SECONDS_MAX, LINNET_OK},
        {MONDAY, MONDAY + LINNET_CHANNEL_KEY_SECONDS_MAX + 1, LINNET_ERR_FORMAT},
        {0, UINT64_MAX, LINNET_ERR_FORMAT},
        {MONDAY, MONDAY - 1, LINNET_ERR_FORMAT},
        {UINT64_MAX, 0, LINNET_ERR_FORMAT},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_channel_key key = f->channel.key;
        uint8_t record[LINNET_SIGNED_CHANNEL_KEY_BYTES];
        key.not_before = cases[i].not_before;
        key.not_after = cases[i].not_after;
        linnet_channel_key_sign(&key, f->coordinator, record);
        assert_int_equal(open_record(f, record, 0), cases[i].want);
    }
}

static void altered_cut_or_foreign_key_record_is_refused(void **state)
{
    fixture *f = *state;
    uint8_t record[LINNET_SIGNED_CHANNEL_KEY_BYTES + 1] = {0};
    linnet_channel_key key;
    memcpy(record, f->channel.record, LINNET_SIGNED_CHANNEL_KEY_BYTES);
    for (size_t at = 0; at < LINNET_SIGNED_CHANNEL_KEY_BYTES; at++) {
        record[at] ^= 4;
        assert_int_equal(open_record(f, record, 0), LINNET_ERR_CRYPTO);
        record[at] ^= 4;
    }
    for (size_t n = 0; n <= sizeof(record); n++)
        if (n != LINNET_SIGNED_CHANNEL_KEY_BYTES)
            assert_int_equal(
                linnet_channel_key_open(record, n, linnet_identity_public_key(f->coordinator), 0, &key),
                LINNET_ERR_FORMAT);
    linnet_channel_key_sign(&f->channel.key, f->device, record);
    assert_int_equal(open_record(f, record, 0), LINNET_ERR_CRYPTO);
}

/* ---- the second implementation ---- */

static void request_and_answer_match_the_second_implementation(void **state)
{
    (void)state;
    json_t *v = vectors_load("channel.json");
    uint8_t seed[32], ephemeral[32], nonce[32], record[LINNET_SIGNED_CHANNEL_KEY_BYTES], secret[32];
    linnet_identity *coordinator = NULL, *device = NULL;
    linnet_error err;
    vector_copy(v, "coordinator_seed", seed, 32);
    assert_ok(linnet_identity_from_seed(seed, &coordinator, &err), &err);
    vector_copy(v, "device_seed", seed, 32);
    assert_ok(linnet_identity_from_seed(seed, &device, &err), &err);

    linnet_channel_key key = {.number = vector_integer(v, "channel_number"),
                              .not_before = vector_integer(v, "channel_not_before"),
                              .not_after = vector_integer(v, "channel_not_after")};
    vector_copy(v, "task", key.task, sizeof(key.task));
    vector_copy(v, "channel_public", key.public_key, 32);
    vector_copy(v, "channel_secret", secret, 32);
    linnet_channel_key_sign(&key, coordinator, record);
    assert_vector(v, "channel_key", record, sizeof(record));

    linnet_buffer wire = {0}, answer = {0}, opened_answer = {0};
    linnet_exchange exchange;
    linnet_opened_request opened;
    vector_bytes body = vector_hex(v, "request_body"), answer_body = vector_hex(v, "response_body");
    const char *method = vector_text(v, "method"), *path = vector_text(v, "path");
    vector_copy(v, "ephemeral_secret", ephemeral, 32);
    assert_ok(linnet_request_seal_with(ephemeral, record, method, path, device, body.bytes, body.n_bytes,
                                       &wire, &exchange, &err),
              &err);
    assert_vector(v, "header_hash", exchange.header.bytes, 32);
    assert_vector(v, "enc", exchange.enc, 32);
    assert_vector(v, "request", wire.bytes, wire.n_bytes);
    assert_vector(v, "request_hash", exchange.request.bytes, 32);
    assert_vector(v, "response_secret", exchange.secret, 32);

    assert_ok(linnet_request_open(record, secret, method, path, wire.bytes, wire.n_bytes, &opened, &err),
              &err);
    assert_vector(v, "device_id", opened.device_id.bytes, 16);
    assert_vector(v, "request_body", opened.body, opened.n_body);
    assert_vector(v, "request_signature", opened.signature.bytes, 64);
    assert_int_equal(linnet_request_verify(&opened, linnet_identity_public_key(device)), LINNET_OK);

    vector_copy(v, "response_nonce", nonce, 32);
    assert_ok(linnet_response_seal_with(nonce, &opened.exchange, answer_body.bytes, answer_body.n_bytes,
                                        &answer, &err),
              &err);
    assert_vector(v, "response", answer.bytes, answer.n_bytes);
    vector_bytes foreign_answer = vector_hex(v, "response");
    assert_ok(
        linnet_response_open(&exchange, foreign_answer.bytes, foreign_answer.n_bytes, &opened_answer, &err),
        &err);
    assert_vector(v, "response_body", opened_answer.bytes, opened_answer.n_bytes);

    linnet_opened_request_release(&opened);
    linnet_buffer_release(&wire);
    linnet_buffer_release(&answer);
    linnet_buffer_release(&opened_answer);
    linnet_identity_destroy(coordinator);
    linnet_identity_destroy(device);
    json_decref(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_and_answer_arrive_whole),
        cmocka_unit_test(same_body_sealed_twice_shares_no_bytes_that_matter),
        cmocka_unit_test(request_opened_twice_can_be_answered_by_either),
        cmocka_unit_test(key_number_is_read_before_anything_is_opened),
        cmocka_unit_test(release_wipes_what_was_opened),
        cmocka_unit_test(no_plaintext_is_given_back_to_the_allocator),
        cmocka_unit_test(request_with_any_byte_altered_is_refused),
        cmocka_unit_test(request_cut_anywhere_or_lengthened_is_refused),
        cmocka_unit_test(request_replayed_to_another_address_is_refused),
        cmocka_unit_test(request_is_bound_to_every_field_of_the_key_record),
        cmocka_unit_test(request_to_another_key_or_coordinator_is_refused),
        cmocka_unit_test(points_that_give_a_zero_secret_are_refused),
        cmocka_unit_test(request_verifies_only_with_the_senders_key),
        cmocka_unit_test(body_and_signature_cannot_be_sealed_anew),
        cmocka_unit_test(device_cannot_take_the_name_of_another),
        cmocka_unit_test(plaintext_too_short_for_a_sender_is_refused),
        cmocka_unit_test(answers_of_two_exchanges_cannot_be_swapped),
        cmocka_unit_test(reflected_messages_are_refused),
        cmocka_unit_test(altered_or_cut_answer_is_refused),
        cmocka_unit_test(answer_is_bound_to_the_whole_exchange),
        cmocka_unit_test(lack_of_memory_is_reported_and_leaves_nothing_behind),
        cmocka_unit_test(key_record_survives_signing_and_opening),
        cmocka_unit_test(expired_key_record_is_refused),
        cmocka_unit_test(key_record_that_lives_too_long_is_refused),
        cmocka_unit_test(altered_cut_or_foreign_key_record_is_refused),
        cmocka_unit_test(request_and_answer_match_the_second_implementation),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
