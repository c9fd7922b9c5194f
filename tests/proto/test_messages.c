/* SPDX-License-Identifier: Apache-2.0 */
/* The messages: round trips, and what a hostile peer may try. malloc and its kin are wrapped by the linker,
 * so that the n-th allocation can fail and what unpacking takes can be counted; protobuf-c gets its memory
 * through our arena, hence through the same wrappers. */
#include "samples.h"

#include "linnet/file.h"

static size_t n_allocations, fail_at, n_allocated_bytes; /* fail_at 0: never */

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

static bool allocation_fails(size_t n)
{
    n_allocated_bytes += n;
    return ++n_allocations == fail_at;
}

void *__wrap_malloc(size_t n)
{
    return allocation_fails(n) ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return allocation_fails(n * size) ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return allocation_fails(n) ? NULL : __real_realloc(p, n);
}

static linnet_buffer packed(int which)
{
    linnet_buffer bytes = {0};
    linnet_error err = {0};
    assert_ok(sample_pack(which, &bytes, &err), &err);
    return bytes;
}

static void every_message_survives_a_round_trip(void **state)
{
    (void)state;
    for (int which = 0; which < SAMPLES; which++) {
        linnet_buffer bytes = packed(which), again = {0};
        linnet_error err = {0};
        assert_ok(sample_unpack(which, bytes.bytes, bytes.n_bytes, &again, &err), &err);
        assert_int_equal(bytes.n_bytes, again.n_bytes);
        assert_memory_equal(bytes.bytes, again.bytes, bytes.n_bytes);
        linnet_buffer_release(&bytes);
        linnet_buffer_release(&again);
    }
}

static void fields_arrive_as_they_were_sent(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_buffer bytes = packed(SAMPLE_RELEASE), storage = {0};
    linnet_release release, want_release = sample_release();
    assert_ok(linnet_release_unpack(bytes.bytes, bytes.n_bytes, &release, &err), &err);
    assert_int_equal(release.version, want_release.version);
    assert_memory_equal(&release.plan, &want_release.plan, 32);
    assert_memory_equal(&release.previous, &want_release.previous, 32);
    assert_true(release.learning_rate_a == want_release.learning_rate_a && !release.is_final);
    linnet_buffer_release(&bytes);

    bytes = packed(SAMPLE_ANNOUNCEMENT);
    linnet_announcement a, want = sample_announcement();
    assert_ok(linnet_announcement_unpack(bytes.bytes, bytes.n_bytes, &a, &err), &err);
    assert_int_equal(a.vectors[0].exponent, want.vectors[0].exponent);
    assert_int_equal(a.vectors[1].clamp, want.vectors[1].clamp);
    assert_int_equal(a.deadline_s, want.deadline_s);
    assert_int_equal(a.corrupt_permille, 50);
    linnet_buffer_release(&bytes);

    bytes = packed(SAMPLE_RECORD_ANNOUNCEMENT);
    want = sample_record_announcement();
    assert_ok(linnet_announcement_unpack(bytes.bytes, bytes.n_bytes, &a, &err), &err);
    assert_int_equal(a.phase_s, 120);
    assert_null(linnet_announcement_difference(&a, &want));
    linnet_buffer_release(&bytes);

    bytes = packed(SAMPLE_ANSWER);
    linnet_answer answer, want_answer = sample_answer();
    for (size_t i = 0; i < sizeof(sample_bytes); i++)
        sample_bytes[i] = (uint8_t)(i * 31 >> 3);
    linnet_buffer_release(&bytes);
    bytes = packed(SAMPLE_ANSWER);
    assert_ok(linnet_answer_unpack(bytes.bytes, bytes.n_bytes, &storage, &answer, &err), &err);
    assert_string_equal(answer.message, want_answer.message);
    assert_int_equal(answer.n_receipt, LINNET_SIGNED_RECEIPT_BYTES);
    assert_memory_equal(answer.receipt, want_answer.receipt, answer.n_receipt);
    assert_memory_equal(answer.channel_key, want_answer.channel_key, answer.n_channel_key);
    assert_int_equal(answer.next_offset, 262144);
    assert_int_equal(answer.phase, LINNET_PHASE_SURVIVORS);
    linnet_buffer_release(&bytes);
    linnet_buffer_release(&storage);
}

static void an_empty_answer_and_an_empty_checkin_are_messages(void **state)
{
    (void)state;
    linnet_buffer bytes = {0}, storage = {0};
    linnet_error err = {0};
    linnet_answer answer = {.code = LINNET_ANSWER_OK};
    linnet_checkin checkin = {0};
    assert_ok(linnet_answer_pack(&answer, &bytes, &err), &err);
    assert_ok(linnet_answer_unpack(bytes.bytes, bytes.n_bytes, &storage, &answer, &err), &err);
    assert_int_equal(answer.n_release, 0);
    linnet_buffer_clear(&bytes);
    assert_ok(linnet_checkin_pack(&checkin, &bytes, &err), &err);
    assert_ok(linnet_checkin_unpack(bytes.bytes, bytes.n_bytes, &checkin, &err), &err);
    assert_false(checkin.has_ready);
    linnet_buffer_release(&bytes);
    linnet_buffer_release(&storage);
}

/* protobuf has no end marker: a cut between two fields gives a message in which the later ones are absent, so
 * a cut must fail or give a message whose own encoding is exactly the shorter bytes. */
static void a_cut_message_is_refused_or_a_shorter_message(void **state)
{
    (void)state;
    for (int which = 0; which < SAMPLES; which++) {
        linnet_buffer bytes = packed(which);
        size_t n_good = 0;
        for (size_t n = 0; n < bytes.n_bytes; n++) {
            linnet_buffer again = {0};
            uint8_t *copy = malloc(n + 1); /* its own block: a read past the end is seen by the sanitizer */
            memcpy(copy, bytes.bytes, n);
            if (sample_unpack(which, copy, n, &again, NULL) == LINNET_OK) {
                n_good++;
                assert_int_equal(again.n_bytes, n);
            }
            free(copy);
            linnet_buffer_release(&again);
        }
        assert_in_range(n_good, 0, 16); /* at most one per field */
        linnet_buffer_release(&bytes);
    }
}

static void no_flipped_bit_passes_a_signature(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_identity *identity = NULL;
    assert_ok(linnet_identity_create(&identity, &err), &err);
    linnet_buffer body = packed(SAMPLE_RELEASE), bytes = {0};
    linnet_hash v = linnet_hash_of(LINNET_LABEL_MODEL, body.bytes, body.n_bytes);
    linnet_signature signature = linnet_sign_hash(identity, &v);
    assert_ok(linnet_signed_pack(body.bytes, body.n_bytes, &signature, &bytes, &err), &err);
    for (size_t bit = 0; bit <= 8 * bytes.n_bytes; bit++) { /* the last one: nothing flipped */
        linnet_signed opened;
        bool is_flipped = bit < 8 * bytes.n_bytes;
        if (is_flipped)
            bytes.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        linnet_status status = linnet_signed_open(bytes.bytes, bytes.n_bytes, &opened, NULL);
        if (status == LINNET_OK) {
            linnet_hash hash = linnet_hash_of(LINNET_LABEL_MODEL, opened.body, opened.n_body);
            status = linnet_verify_hash(linnet_identity_public_key(identity), &hash, &opened.signature);
        }
        assert_int_equal(status == LINNET_OK, !is_flipped);
        if (is_flipped)
            bytes.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t n = 0; n < bytes.n_bytes; n++) {
        linnet_signed opened;
        assert_int_not_equal(linnet_signed_open(bytes.bytes, n, &opened, NULL), LINNET_OK);
    }
    linnet_buffer_release(&body);
    linnet_buffer_release(&bytes);
    linnet_identity_destroy(identity);
}

static void flipped_bits_of_a_body_are_survived(void **state)
{
    (void)state;
    for (int which = 0; which < SAMPLES; which++) {
        linnet_buffer bytes = packed(which);
        for (size_t bit = 0; bit < 8 * bytes.n_bytes; bit++) {
            linnet_buffer again = {0};
            bytes.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            if (sample_unpack(which, bytes.bytes, bytes.n_bytes, &again, NULL) == LINNET_OK)
                assert_int_not_equal(again.n_bytes, 0); /* whatever passes the checks can be packed again */
            bytes.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            linnet_buffer_release(&again);
        }
        linnet_buffer_release(&bytes);
    }
}

static void unknown_fields_are_refused_at_every_depth(void **state)
{
    (void)state;
    static const uint8_t unknown[] = {0xa0, 0x06, 0x01}; /* field 100, varint 1 */
    static const uint8_t nested[] = {0x42, 0x05, 0x08, 0x01,
                                     0xa0, 0x06, 0x01}; /* VectorSpec {id 1, field 100} */
    for (int which = 0; which < SAMPLES; which++) {
        linnet_buffer bytes = packed(which);
        linnet_error err = {0};
        linnet_buffer_append(&bytes, unknown, sizeof(unknown));
        assert_int_equal(sample_unpack(which, bytes.bytes, bytes.n_bytes, NULL, &err), LINNET_ERR_FORMAT);
        assert_non_null(strstr(err.message, "version 1 does not have"));
        linnet_buffer_release(&bytes);
    }
    linnet_buffer bytes = packed(SAMPLE_ANNOUNCEMENT);
    linnet_error err = {0};
    linnet_buffer_append(&bytes, nested, sizeof(nested));
    assert_int_equal(sample_unpack(SAMPLE_ANNOUNCEMENT, bytes.bytes, bytes.n_bytes, NULL, &err),
                     LINNET_ERR_FORMAT);
    assert_non_null(strstr(err.message, "version 1 does not have"));
    linnet_buffer_release(&bytes);
}

static void bytes_fields_of_another_length_are_refused(void **state)
{
    (void)state;
    static const struct {
        int which;
        uint8_t field;
        uint8_t n; /* a length that is not allowed */
        const char *name;
    } cases[] = {
        {SAMPLE_RELEASE, 1, 15, "release.task"},
        {SAMPLE_RELEASE, 3, 31, "release.previous"},
        {SAMPLE_RELEASE, 4, 33, "release.base_model"},
        {SAMPLE_RELEASE, 5, 0, "release.adapter"},
        {SAMPLE_RELEASE, 6, 31, "release.layout"},
        {SAMPLE_RELEASE, 7, 31, "release.plan"},
        {SAMPLE_ANNOUNCEMENT, 3, 31, "announcement.coordinator"},
        {SAMPLE_ANNOUNCEMENT, 4, 17, "announcement.task"},
        {SAMPLE_ANNOUNCEMENT, 6, 31, "announcement.release"},
        {SAMPLE_ANNOUNCEMENT, 15, 0, "announcement.revocation"},
        {SAMPLE_UPLOAD_HEADER, 1, 31, "upload_header.chain"},
        {SAMPLE_UPLOAD_HEADER, 2, 32, "upload_header.device_id"},
        {SAMPLE_UPLOAD_HEADER, 5, 0, "upload_header.echo"},
        {SAMPLE_HELLO, 2, 31, "hello.coordinator"},
        {SAMPLE_HELLO, 3, 33, "hello.authority"},
        {SAMPLE_HELLO, 4, 1, "hello.task"},
        {SAMPLE_HELLO, 5, 0, "hello.channel_key"},
        {SAMPLE_HELLO, 5, 120, "hello.channel_key"},
        {SAMPLE_CHECKIN, 3, 31, "checkin.ready"},
        {SAMPLE_UPLOAD, 1, 0, "upload.header"},
        {SAMPLE_ROUND_MESSAGE, 1, 31, "round_message.announcement"},
        {SAMPLE_ROUND_MESSAGE, 1, 0, "round_message.announcement"},
        {SAMPLE_ANSWER, 6, 10, "answer.certificate"},
        {SAMPLE_ANSWER, 7, 10, "answer.receipt"},
        {SAMPLE_ANSWER, 9, 10, "answer.channel_key"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_buffer bytes = packed(cases[i].which);
        linnet_error err = {0};
        uint8_t zeros[128] = {0};
        linnet_buffer_append_u8(&bytes, (uint8_t)(cases[i].field << 3 | 2)); /* the last occurrence counts */
        linnet_buffer_append_u8(&bytes, cases[i].n);
        linnet_buffer_append(&bytes, zeros, cases[i].n);
        linnet_status status = sample_unpack(cases[i].which, bytes.bytes, bytes.n_bytes, NULL, &err);
        if (status != LINNET_ERR_FORMAT || !strstr(err.message, cases[i].name))
            fail_msg("%s of %u bytes: got %s: %s", cases[i].name, cases[i].n, linnet_status_name(status),
                     err.message);
        linnet_buffer_release(&bytes);
    }
}

static linnet_status announcement_with(const linnet_announcement *a)
{
    linnet_buffer bytes = {0};
    linnet_status status = linnet_announcement_pack(a, &bytes, NULL);
    linnet_buffer_release(&bytes);
    return status;
}

/* Packing applies the checks of unpacking, so one table serves both. */
static void numbers_out_of_their_range_are_refused(void **state)
{
    (void)state;
    linnet_announcement good = sample_announcement(), a;
    assert_int_equal(announcement_with(&good), LINNET_OK);
#define REFUSED(change)                                                                                      \
    a = good;                                                                                                \
    change;                                                                                                  \
    if (announcement_with(&a) == LINNET_OK)                                                                  \
    fail_msg("taken: " #change)
    REFUSED(a.protocol_version = 2);
    REFUSED(a.protocol_version = 0);
    REFUSED(a.profile = 0);
    REFUSED(a.profile = 5);
    REFUSED(a.profile = LINNET_PROFILE_SECURE);     /* without phases */
    REFUSED(a.profile = LINNET_PROFILE_CENTRAL_DP); /* without noise */
    REFUSED(a.phase_s = 60);
    REFUSED(a.round = 0);
    REFUSED(a.n_vectors = 0);
    REFUSED(a.n_vectors = 4);
    REFUSED(a.chunk = 4095);
    REFUSED(a.n_min = 0);
    REFUSED(a.n_min = 7);
    REFUSED(a.n_max = LINNET_COHORT_MAX + 1);
    REFUSED(a.m_min = 7);
    REFUSED(a.corrupt_permille = 301);
    REFUSED(a.vectors[1].vector_id = 0);
    REFUSED(a.vectors[1].vector_id = 3);
    REFUSED(a.vectors[0].length = 0);
    REFUSED(a.vectors[0].length = UINT64_MAX);
    REFUSED(a.vectors[0].bits = 17);
    REFUSED(a.vectors[0].clamp = 0);
    REFUSED(a.vectors[0].weight_max = 0);
    REFUSED((a.vectors[0].clamp = 8388607, a.vectors[0].weight_max = 2));
    REFUSED(a.dp_mechanism = LINNET_DP_DISTRIBUTED);
    REFUSED(a.dp_unit = LINNET_DP_UNIT_DEVICE);
    REFUSED(a.dp_clip = 1);
    REFUSED(a.dp_sigma2 = 100);
    REFUSED(a.dp_rotates = true);
    REFUSED(a.dp_exponent = 1);
    REFUSED(a.dp_probability = 0.5);
    REFUSED(a.dp_steps = 1);
    good.profile = LINNET_PROFILE_SECURE;
    good.phase_s = 120;
    assert_int_equal(announcement_with(&good), LINNET_OK);
    REFUSED(a.phase_s = 0);
    REFUSED(a.phase_s = 86401);
    REFUSED(a.n_min = 2);
    REFUSED(a.m_min = 2);
    REFUSED(a.m_min = 4); /* above n_min */
    REFUSED(a.profile = LINNET_PROFILE_SECURE_DP);
#undef REFUSED
    linnet_release release = sample_release(), bad;
    linnet_upload_header header = sample_upload_header(), bad_header;
    linnet_buffer bytes = {0};
#define REFUSED(change)                                                                                      \
    bad = release;                                                                                           \
    change;                                                                                                  \
    assert_int_equal(linnet_release_pack(&bad, &bytes, NULL), LINNET_ERR_RANGE)
    REFUSED(bad.factors = 0);
    REFUSED(bad.factors = 4);
    REFUSED(bad.dp_unit = 3);
    REFUSED(bad.learning_rate_b = -1);
    REFUSED(bad.learning_rate_b = 11);
    REFUSED(bad.learning_rate_a = 0.0 / 0.0);
#undef REFUSED
#define REFUSED(change)                                                                                      \
    bad_header = header;                                                                                     \
    change;                                                                                                  \
    assert_int_equal(linnet_upload_header_pack(&bad_header, &bytes, NULL), LINNET_ERR_RANGE)
    REFUSED(bad_header.n_vectors = 0);
    REFUSED(bad_header.n_vectors = 4);
    REFUSED(bad_header.lengths[1] = 0);
    REFUSED(bad_header.n_bytes = 0);
    REFUSED(bad_header.n_bytes = (uint64_t)LINNET_OBJECT_BYTES_MAX + 1);
#undef REFUSED
    assert_int_equal(bytes.n_bytes, 0);
}

/* Noise below 4 lattice units, or any lane beside the count: SECURE-AGGREGATION 6.2, property 24. */
static void an_announcement_with_noise_is_held_to_its_rules(void **state)
{
    (void)state;
    linnet_announcement a;
#define REFUSED(good, change)                                                                                \
    a = good();                                                                                              \
    change;                                                                                                  \
    if (announcement_with(&a) == LINNET_OK)                                                                  \
    fail_msg("taken: " #change " of " #good)
    REFUSED(sample_noised_announcement, a.dp_sigma2 = 15);
    REFUSED(sample_noised_announcement, a.dp_sigma2 = (1u << 24) + 1);
    REFUSED(sample_noised_announcement, a.vectors[1].length = LINNET_LANES);
    REFUSED(sample_noised_announcement, a.vectors[0].weight_max = 2);
    REFUSED(sample_noised_announcement, a.n_vectors = 1);
    REFUSED(sample_noised_announcement, a.vectors[1].vector_id = 2); /* two factors, no lane */
    REFUSED(sample_noised_announcement,
            (a.n_vectors = 3, a.vectors[2] = a.vectors[0], a.vectors[2].vector_id = 2));
    REFUSED(sample_noised_announcement, a.vectors[0].length = 4095); /* rotated in whole blocks */
    REFUSED(sample_noised_announcement, a.profile = LINNET_PROFILE_SECURE);
    REFUSED(sample_noised_announcement, (a.profile = LINNET_PROFILE_CENTRAL_DP, a.phase_s = 0));
    REFUSED(sample_noised_announcement, a.dp_mechanism = LINNET_DP_NONE);
    REFUSED(sample_noised_announcement, a.dp_mechanism = LINNET_DP_CENTRAL);
    REFUSED(sample_noised_announcement, a.dp_mechanism = 4);
    REFUSED(sample_noised_announcement, a.dp_unit = LINNET_DP_UNIT_RECORD);
    REFUSED(sample_noised_announcement, a.dp_clip = 0);
    REFUSED(sample_noised_announcement, a.dp_clip = 0.0 / 0.0);
    REFUSED(sample_noised_announcement, a.dp_clip = 1.0 / 0.0);
    REFUSED(sample_noised_announcement, a.dp_rotates = false);
    REFUSED(sample_noised_announcement, a.dp_exponent = 1);
    REFUSED(sample_noised_announcement, a.dp_probability = 1);
    REFUSED(sample_noised_announcement, a.dp_steps = 1);
    REFUSED(sample_record_announcement, a.dp_rotates = true);
    REFUSED(sample_record_announcement, a.dp_exponent = 65);
    REFUSED(sample_record_announcement, a.dp_exponent = -65);
    REFUSED(sample_record_announcement, a.dp_probability = 0);
    REFUSED(sample_record_announcement, a.dp_probability = 1.001);
    REFUSED(sample_record_announcement, a.dp_probability = 0.0 / 0.0);
    REFUSED(sample_record_announcement, a.dp_steps = 0);
    REFUSED(sample_record_announcement, a.dp_steps = 10001);
    REFUSED(sample_record_announcement, a.vectors[1].length = 2);
#undef REFUSED
    a = sample_noised_announcement();
    a.profile = LINNET_PROFILE_CENTRAL_DP;
    a.phase_s = 0;
    a.dp_mechanism = LINNET_DP_CENTRAL;
    a.dp_rotates = false;
    a.vectors[0].length = 1000;
    assert_int_equal(announcement_with(&a), LINNET_OK);
    a = sample_record_announcement(); /* both factors: what leaves the device is noised already */
    a.n_vectors = 3;
    a.vectors[2] = a.vectors[0];
    a.vectors[2].vector_id = 2;
    assert_int_equal(announcement_with(&a), LINNET_OK);
}

static void masked_rounds_get_their_parameters_from_the_announcement(void **state)
{
    (void)state;
    linnet_announcement a = sample_noised_announcement();
    linnet_hash chain = sample_hash(30);
    linnet_secagg_params params;
    linnet_error err = {0};
    assert_ok(linnet_secagg_params_of(&a, &chain, &params, &err), &err);
    assert_true(linnet_hash_equal(&params.announcement, &chain));
    assert_memory_equal(&params.coordinator, &a.coordinator, sizeof(a.coordinator));
    assert_int_equal(params.n_min, 3);
    assert_int_equal(params.n_max, 6);
    assert_int_equal(params.m_min, 3);
    assert_int_equal(params.corrupt_permille, 50);
    assert_int_equal(params.n_vectors, 2);
    assert_int_equal(params.vectors[0].length, 4096);
    assert_int_equal(params.vectors[0].bits, 24);
    assert_int_equal(params.vectors[1].id, 1);
    a = sample_announcement();
    assert_int_equal(linnet_secagg_params_of(&a, &chain, &params, &err), LINNET_ERR_RANGE);
}

/* Kinds and phases are the numbers of the messages: a device's are odd, the coordinator's even; 12 is of no
 * round. */
static void round_messages_and_phases_have_known_numbers(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 300; i++) {
        linnet_buffer bytes = {0}, storage = {0};
        linnet_round_message m = sample_round_message();
        linnet_answer answer = {.phase = i};
        bool is_kind = i == 0 || i == 1 || i == 3 || i == 7 || i == 9 || i == 10 || i == 11 || i == 12;
        bool is_phase = i == 0 || i == 2 || i == 4 || i == 6 || i == 8 || i == 10 || i == 11;
        m.kind = i;
        assert_int_equal(linnet_round_message_pack(&m, &bytes, NULL), is_kind ? LINNET_OK : LINNET_ERR_RANGE);
        linnet_buffer_clear(&bytes);
        assert_int_equal(linnet_answer_pack(&answer, &bytes, NULL), is_phase ? LINNET_OK : LINNET_ERR_RANGE);
        linnet_buffer_clear(&bytes);
        linnet_buffer_append(&bytes, "\x58", 1); /* field 11 of a peer that does not check */
        if (i >= 128)
            linnet_buffer_append_u8(&bytes, (uint8_t)(i | 128));
        linnet_buffer_append_u8(&bytes, (uint8_t)(i >= 128 ? i >> 7 : i));
        assert_int_equal(linnet_answer_unpack(bytes.bytes, bytes.n_bytes, &storage, &answer, NULL),
                         is_phase ? LINNET_OK : LINNET_ERR_RANGE);
        linnet_buffer_release(&bytes);
        linnet_buffer_release(&storage);
    }
}

static void the_messages_of_the_largest_cohort_fit_their_frames(void **state)
{
    (void)state;
    const size_t n = LINNET_COHORT_MAX, bitmap = LINNET_COHORT_MAX / 8;
    const size_t roster = 64 + 4 + n * LINNET_ADVERT_BYTES, shares = 48 + (n - 1) * 104 + 64;
    const size_t survivors = 64 + bitmap + n * 96, certificate = survivors + 4 + n * 68;
    const size_t unmask = 48 + (n - 1) * 33 + 64;
    const size_t overhead = 4096; /* header, padding, sealing, signature */
    assert_int_equal(roster, 374852);
    assert_true(roster + overhead <= LINNET_RESPONSE_BYTES_MAX);
    assert_true(certificate + overhead <= LINNET_RESPONSE_BYTES_MAX);
    assert_true(shares + overhead <= LINNET_REQUEST_BYTES_MAX);
    assert_true(unmask + overhead <= LINNET_REQUEST_BYTES_MAX);
    uint8_t *raw = calloc(1, roster);
    linnet_buffer bytes = {0};
    linnet_error err = {0};
    linnet_frame frame = {.header = sample_bytes, .n_header = 2048, .raw = raw, .n_raw = roster}, opened;
    assert_non_null(raw);
    assert_ok(linnet_frame_pack(&frame, &bytes, &err), &err);
    assert_ok(linnet_frame_open(bytes.bytes, bytes.n_bytes, &opened, &err), &err);
    assert_int_equal(opened.n_raw, roster);
    linnet_buffer_release(&bytes);
    free(raw);
}

static void an_answers_message_is_one_printable_line(void **state)
{
    (void)state;
    static const char *const bad[] = {"two\nlines", "bell\a",      "escape \x1b[31m", "\xff",
                                      "cut \xc3",   "c1 \xc2\x9b", "del \x7f"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        linnet_buffer bytes = {0}, storage = {0};
        linnet_answer answer = {0};
        memcpy(answer.message, bad[i], strlen(bad[i]));
        assert_int_equal(linnet_answer_pack(&answer, &bytes, NULL), LINNET_ERR_ARG);
        linnet_buffer_append_u8(&bytes, 2 << 3 | 2); /* and the same from a peer that does not check */
        linnet_buffer_append_u8(&bytes, (uint8_t)strlen(bad[i]));
        linnet_buffer_append(&bytes, bad[i], strlen(bad[i]));
        assert_int_equal(linnet_answer_unpack(bytes.bytes, bytes.n_bytes, &storage, &answer, NULL),
                         LINNET_ERR_FORMAT);
        linnet_buffer_release(&bytes);
        linnet_buffer_release(&storage);
    }
    static const uint8_t bad_code[] = {1 << 3, 7};
    linnet_buffer storage = {0};
    linnet_answer answer;
    assert_int_equal(linnet_answer_unpack(bad_code, sizeof(bad_code), &storage, &answer, NULL),
                     LINNET_ERR_RANGE);
    linnet_buffer_release(&storage);
}

static void a_bomb_of_empty_submessages_stays_below_the_cap(void **state)
{
    (void)state;
    static const size_t sizes[] = {2048, 8192, LINNET_MESSAGE_BYTES_MAX, LINNET_RESPONSE_BYTES_MAX};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        linnet_buffer bomb = {0};
        linnet_announcement a;
        for (size_t n = 0; n < sizes[i]; n += 2)
            linnet_buffer_append(&bomb, "\x42", 2); /* field 8, length 0: an empty VectorSpec */
        n_allocated_bytes = 0;
        assert_int_not_equal(linnet_announcement_unpack(bomb.bytes, bomb.n_bytes, &a, NULL), LINNET_OK);
        assert_true(n_allocated_bytes <= LINNET_MESSAGE_MEMORY_MAX);
        linnet_buffer_release(&bomb);
    }
}

static void every_failing_allocation_is_an_error_and_no_leak(void **state)
{
    (void)state;
    for (int which = 0; which < SAMPLES; which++) {
        linnet_buffer bytes = packed(which);
        for (size_t at = 1; at < 100; at++) {
            linnet_buffer again = {0};
            n_allocations = 0;
            fail_at = at;
            linnet_status status = sample_unpack(which, bytes.bytes, bytes.n_bytes, &again, NULL);
            bool was_reached = n_allocations >= at;
            fail_at = 0;
            linnet_buffer_release(&again);
            assert_int_equal(status == LINNET_OK, !was_reached);
            if (!was_reached)
                break;
            assert_int_not_equal(at, 99);
        }
        linnet_buffer_release(&bytes);
    }
}

static void over_sized_messages_are_refused_unseen(void **state)
{
    (void)state;
    uint8_t *zeros = calloc(1, LINNET_RESPONSE_BYTES_MAX + 1);
    assert_non_null(zeros);
    for (int which = 0; which < SAMPLES; which++)
        assert_int_equal(sample_unpack(which, zeros, LINNET_RESPONSE_BYTES_MAX + 1, NULL, NULL),
                         LINNET_ERR_LIMIT);
    linnet_signed opened;
    assert_int_equal(linnet_signed_open(zeros, LINNET_MESSAGE_BYTES_MAX + 1, &opened, NULL),
                     LINNET_ERR_LIMIT);
    free(zeros);
}

/* ---- frames ---- */

static void frames_are_padded_and_open_again(void **state)
{
    (void)state;
    uint8_t raw[1000];
    memset(raw, 0xab, sizeof(raw));
    for (size_t n_header = 0; n_header < 300; n_header += 37) {
        for (size_t n_raw = 0; n_raw < sizeof(raw); n_raw += 61) {
            linnet_buffer bytes = {0};
            linnet_error err = {0};
            linnet_frame frame = {.header = sample_bytes, .n_header = n_header, .raw = raw, .n_raw = n_raw},
                         opened;
            assert_ok(linnet_frame_pack(&frame, &bytes, &err), &err);
            assert_int_equal(bytes.n_bytes % LINNET_PADDING_BYTES, 0);
            assert_ok(linnet_frame_open(bytes.bytes, bytes.n_bytes, &opened, &err), &err);
            assert_int_equal(opened.n_header, n_header);
            assert_int_equal(opened.n_raw, n_raw);
            assert_memory_equal(opened.header, sample_bytes, n_header);
            assert_memory_equal(opened.raw, raw, n_raw);
            linnet_buffer_release(&bytes);
        }
    }
}

static void a_frame_has_one_encoding(void **state)
{
    (void)state;
    linnet_buffer bytes = {0};
    linnet_error err = {0};
    linnet_frame frame = {.header = sample_bytes, .n_header = 40, .raw = sample_bytes, .n_raw = 100}, opened;
    assert_ok(linnet_frame_pack(&frame, &bytes, &err), &err);
    for (size_t n = 0; n < bytes.n_bytes; n++)
        assert_int_equal(linnet_frame_open(bytes.bytes, n, &opened, NULL), LINNET_ERR_FORMAT);
    for (size_t i = 148; i < bytes.n_bytes; i++) { /* the padding */
        bytes.bytes[i] = 1;
        assert_int_equal(linnet_frame_open(bytes.bytes, bytes.n_bytes, &opened, NULL), LINNET_ERR_FORMAT);
        bytes.bytes[i] = 0;
    }
    uint8_t more[LINNET_PADDING_BYTES] = {0};
    linnet_buffer_append(&bytes, more, sizeof(more)); /* more padding than needed */
    assert_int_equal(linnet_frame_open(bytes.bytes, bytes.n_bytes, &opened, NULL), LINNET_ERR_FORMAT);
    static const uint32_t lengths[] = {249, 0x7fffffff, 0xffffffff, 0xfffffff8};
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        linnet_store_le32(bytes.bytes, lengths[i]);
        assert_int_equal(linnet_frame_open(bytes.bytes, LINNET_PADDING_BYTES, &opened, NULL),
                         LINNET_ERR_FORMAT);
    }
    linnet_buffer_release(&bytes);
}

/* ---- receipts ---- */

static void receipts_are_signed_and_of_fixed_width(void **state)
{
    (void)state;
    linnet_error err = {0};
    linnet_identity *coordinator = NULL, *other = NULL;
    uint8_t bytes[LINNET_SIGNED_RECEIPT_BYTES];
    linnet_receipt receipt = {.sequence = 258}, opened;
    receipt.chain = sample_hash(20);
    receipt.echo = sample_hash(21);
    memset(receipt.device_id.bytes, 22, sizeof(receipt.device_id.bytes));
    assert_ok(linnet_identity_create(&coordinator, &err), &err);
    assert_ok(linnet_identity_create(&other, &err), &err);
    const linnet_public_key *key = linnet_identity_public_key(coordinator);
    linnet_receipt_sign(&receipt, coordinator, bytes);
    assert_int_equal(bytes[80], 2); /* little-endian */
    assert_int_equal(bytes[81], 1);
    assert_int_equal(linnet_receipt_open(bytes, sizeof(bytes), key, &opened), LINNET_OK);
    assert_memory_equal(&opened, &receipt, sizeof(receipt));
    assert_int_equal(linnet_receipt_open(bytes, sizeof(bytes), linnet_identity_public_key(other), &opened),
                     LINNET_ERR_CRYPTO);
    assert_int_equal(linnet_receipt_open(bytes, sizeof(bytes) - 1, key, &opened), LINNET_ERR_FORMAT);
    for (size_t bit = 0; bit < 8 * sizeof(bytes); bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_not_equal(linnet_receipt_open(bytes, sizeof(bytes), key, &opened), LINNET_OK);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    linnet_identity_destroy(coordinator);
    linnet_identity_destroy(other);
}

/* ---- the schema ---- */

/* protobuf-c has no limit on depth, so no message may contain itself: every message type that a field names
 * must be declared above the message that uses it. */
static void no_message_type_is_recursive(void **state)
{
    (void)state;
    static const char *const scalars[] = {"bytes", "uint32", "sint32", "fixed64", "double", "bool"};
    linnet_buffer text = {0};
    linnet_error err = {0};
    char names[32][64], current[64] = "", line[256];
    size_t n_names = 0, n_fields = 0;
    assert_ok(linnet_file_read(LINNET_SOURCE "/proto/linnet.proto", 1 << 20, &text, &err), &err);
    linnet_buffer_append_u8(&text, 0);
    for (char *p = (char *)text.bytes, *end; (end = strchr(p, '\n')); p = end + 1) {
        char type[64], name[64];
        (void)snprintf(line, sizeof(line), "%.*s", (int)(end - p), p);
        if (sscanf(line, "message %63s {", current) == 1)
            continue;
        if (line[0] == '}') {
            assert_true(n_names < ARRAY_LEN(names));
            memcpy(names[n_names++], current, sizeof(current));
        }
        if (strncmp(line, "  ", 2) != 0)
            continue;
        if (sscanf(line, "  repeated %63s %63s = ", type, name) != 2 &&
            sscanf(line, "  %63s %63s = ", type, name) != 2)
            continue;
        bool is_known = false;
        n_fields++;
        for (size_t i = 0; i < ARRAY_LEN(scalars); i++)
            is_known = is_known || strcmp(type, scalars[i]) == 0;
        for (size_t i = 0; i < n_names; i++)
            is_known = is_known || strcmp(type, names[i]) == 0;
        if (!is_known)
            fail_msg("message %s: field %s has type %s, which is not declared above it", current, name, type);
    }
    assert_int_equal(n_names, 10);
    assert_in_range(n_fields, 60, 120);
    linnet_buffer_release(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_survives_a_round_trip),
        cmocka_unit_test(fields_arrive_as_they_were_sent),
        cmocka_unit_test(an_empty_answer_and_an_empty_checkin_are_messages),
        cmocka_unit_test(a_cut_message_is_refused_or_a_shorter_message),
        cmocka_unit_test(no_flipped_bit_passes_a_signature),
        cmocka_unit_test(flipped_bits_of_a_body_are_survived),
        cmocka_unit_test(unknown_fields_are_refused_at_every_depth),
        cmocka_unit_test(bytes_fields_of_another_length_are_refused),
        cmocka_unit_test(numbers_out_of_their_range_are_refused),
        cmocka_unit_test(an_announcement_with_noise_is_held_to_its_rules),
        cmocka_unit_test(masked_rounds_get_their_parameters_from_the_announcement),
        cmocka_unit_test(round_messages_and_phases_have_known_numbers),
        cmocka_unit_test(the_messages_of_the_largest_cohort_fit_their_frames),
        cmocka_unit_test(an_answers_message_is_one_printable_line),
        cmocka_unit_test(a_bomb_of_empty_submessages_stays_below_the_cap),
        cmocka_unit_test(every_failing_allocation_is_an_error_and_no_leak),
        cmocka_unit_test(over_sized_messages_are_refused_unseen),
        cmocka_unit_test(frames_are_padded_and_open_again),
        cmocka_unit_test(a_frame_has_one_encoding),
        cmocka_unit_test(receipts_are_signed_and_of_fixed_width),
        cmocka_unit_test(no_message_type_is_recursive),
    };
    if (linnet_crypto_init(NULL) != LINNET_OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
