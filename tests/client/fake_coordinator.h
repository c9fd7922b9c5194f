/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FAKE_COORDINATOR_H
#define FAKE_COORDINATOR_H

/* A coordinator of one device, in memory, that can be told to lie, to forget and to be slow. It keeps every
 * byte that a device uploads and fails the test at once where two uploads of one round differ. Beside it the
 * world of a device: a tiny random model, a tiny tokenizer, some records, a store that outlives the
 * device. */

#include "linnet/channel.h"
#include "linnet/device.h"
#include "linnet/limits.h"

#include "client/tiny_model.h"
#include "client/tiny_vocabulary.h"

enum { FAKE_VERSIONS = 6 };

typedef struct fake {
    /* the task */
    linnet_identity *identity, *authority, *stranger;
    uint8_t task[16];
    linnet_channel_key key;
    uint8_t key_secret[32], key_record[LINNET_SIGNED_CHANNEL_KEY_BYTES];
    linnet_plan plan;
    linnet_buffer plan_text;
    linnet_hash plan_hash, base_hash;
    linnet_layout *layout;
    linnet_adapter *start;
    linnet_buffer adapters[FAKE_VERSIONS];
    linnet_release releases[FAKE_VERSIONS];
    linnet_buffer signed_releases[FAKE_VERSIONS];
    linnet_hash versions[FAKE_VERSIONS]; /* V */
    uint64_t version;
    linnet_enrol_token token;
    linnet_buffer revocation;

    /* the open round */
    uint64_t round;
    linnet_announcement announcement; /* as it would be signed; tests change it */
    linnet_buffer signed_announcement;
    linnet_hash chain;
    bool announces;

    /* what came in */
    linnet_buffer upload; /* bytes from 0 to upload_end are there */
    linnet_buffer header; /* Signed upload header */
    uint64_t n_accepted;
    linnet_hash echoes[16]; /* of accepted uploads */
    linnet_buffer last_upload;
    size_t n_hello, n_checkin, n_upload, n_object, n_enroll, n_checkin_ready;
    linnet_public_key last_key; /* of the last enrolment */

    /* behaviour */
    bool is_down; /* no answer at all */
    int status;   /* HTTP status instead of an answer; 0: none */
    uint32_t retry_after_s, retry_after_ms;
    bool loses_answers; /* every second answer is lost after it took effect */
    size_t n_exchanges;
    bool alters_objects, ignores_ranges, loses_objects;
    int upload_code;  /* linnet_answer_code instead of taking a chunk; -1: none */
    int receipt_flaw; /* 1: another signer, 2: another echo, 3: another chain, 4: none at all */
    const linnet_buffer *release_override; /* Signed */
    bool foreign_hello;
    bool claims_revoked;
} fake;

/* ---- making things ---- */

static inline void fake_sign(const linnet_identity *identity, linnet_label label, const linnet_buffer *body,
                             linnet_buffer *ret_signed, linnet_hash *ret_hash)
{
    linnet_error err = {0};
    linnet_hash hash = linnet_hash_of(label, body->bytes, body->n_bytes);
    linnet_signature signature = linnet_sign_hash(identity, &hash);
    linnet_buffer_clear(ret_signed);
    assert_ok(linnet_signed_pack(body->bytes, body->n_bytes, &signature, ret_signed, &err), &err);
    *ret_hash = hash;
}

/* A signed release from a struct that a test may have changed. */
static inline linnet_hash fake_sign_release(const linnet_identity *identity, const linnet_release *release,
                                            linnet_buffer *ret_signed)
{
    linnet_buffer body = {0};
    linnet_error err = {0};
    linnet_hash v;
    assert_ok(linnet_release_pack(release, &body, &err), &err);
    fake_sign(identity, LINNET_LABEL_MODEL, &body, ret_signed, &v);
    linnet_buffer_release(&body);
    return v;
}

/* Version 0 is the usual start; later ones add something small and fixed to every value. */
static inline void fake_make_release(fake *f, uint64_t version)
{
    linnet_error err = {0};
    linnet_adapter *adapter = NULL;
    linnet_rng rng;
    linnet_release *r = &f->releases[version];
    assert_ok(linnet_adapter_copy(f->start, &adapter, &err), &err);
    linnet_rng_init(&rng, 77, version);
    for (size_t i = 0; version > 0 && i < f->layout->n_parameters; i++)
        adapter->data[i] += (float)(2e-3 * (linnet_rng_double(&rng) - 0.5));
    linnet_buffer_clear(&f->adapters[version]);
    assert_ok(linnet_adapter_pack(adapter, &f->adapters[version], &err), &err);
    *r = (linnet_release){.version = version,
                          .factors = (uint32_t)linnet_rule_factors((linnet_rule)f->plan.rule, version),
                          .is_final = version + 1 == FAKE_VERSIONS,
                          .dp_unit = (uint32_t)linnet_plan_dp_unit(&f->plan)};
    memcpy(r->task, f->task, sizeof(r->task));
    if (version > 0)
        r->previous = f->versions[version - 1];
    r->base_model = f->base_hash;
    r->adapter = linnet_adapter_hash(adapter);
    r->layout = linnet_layout_hash(f->layout);
    r->plan = f->plan_hash;
    linnet_plan_rates(&f->plan, version, &r->learning_rate_b, &r->learning_rate_a);
    f->versions[version] = fake_sign_release(f->identity, r, &f->signed_releases[version]);
    linnet_adapter_destroy(adapter);
}

static inline void fake_sign_announcement(fake *f, const linnet_identity *identity)
{
    linnet_buffer body = {0};
    linnet_error err = {0};
    assert_ok(linnet_announcement_pack(&f->announcement, &body, &err), &err);
    fake_sign(identity, LINNET_LABEL_ANNOUNCE, &body, &f->signed_announcement, &f->chain);
    linnet_buffer_release(&body);
}

/* The next round on the present release, announced to whoever is ready. */
static inline void fake_open_round(fake *f)
{
    linnet_error err = {0};
    size_t n = 0;
    linnet_announcement *a = &f->announcement;
    *a = (linnet_announcement){.protocol_version = LINNET_PROTOCOL_VERSION,
                               .profile = LINNET_PROFILE_PLAIN,
                               .coordinator = *linnet_identity_public_key(f->identity),
                               .round = ++f->round,
                               .release = f->versions[f->version],
                               .chunk = LINNET_RING_CHUNK,
                               .n_min = f->plan.minimum,
                               .n_max = linnet_plan_join_max(&f->plan),
                               .m_min = f->plan.minimum};
    memcpy(a->task, f->task, sizeof(a->task));
    assert_ok(linnet_plan_vectors(&f->plan, f->layout, f->version, a->vectors, &n, &err), &err);
    a->n_vectors = (uint32_t)n;
    fake_sign_announcement(f, f->identity);
    linnet_buffer_clear(&f->upload);
    linnet_buffer_clear(&f->header);
    f->announces = true;
}

static inline void fake_publish(fake *f, uint64_t version)
{
    f->version = version;
    fake_open_round(f);
}

static inline void fake_make_key(fake *f, uint64_t number)
{
    memcpy(f->key.task, f->task, sizeof(f->key.task));
    f->key.number = number;
    f->key.not_before = 0;
    f->key.not_after = LINNET_CHANNEL_KEY_SECONDS_MAX;
    linnet_channel_key_draw(&f->key, f->key_secret);
    linnet_channel_key_sign(&f->key, f->identity, f->key_record);
}

static inline fake *fake_create(const linnet_model *model, const linnet_hash *base_hash,
                                const char *plan_text)
{
    linnet_error err = {0};
    fake *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    assert_ok(linnet_identity_create(&f->identity, &err), &err);
    assert_ok(linnet_identity_create(&f->authority, &err), &err);
    assert_ok(linnet_identity_create(&f->stranger, &err), &err);
    memcpy(f->task, "a task, of tests", sizeof(f->task));
    linnet_random_bytes(&f->token, sizeof(f->token));
    f->base_hash = *base_hash;
    f->upload_code = -1;
    assert_ok(linnet_plan_parse("test", plan_text, strlen(plan_text), &f->plan, &err), &err);
    assert_ok(linnet_plan_write(&f->plan, &f->plan_text, &err), &err);
    f->plan_hash = linnet_plan_hash(f->plan_text.bytes, f->plan_text.n_bytes);
    assert_ok(linnet_layout_create(linnet_model_gguf(model), f->plan.rank, (float)f->plan.alpha,
                                   f->plan.targets, &f->layout, &err),
              &err);
    assert_ok(linnet_adapter_create(f->layout, &f->start, &err), &err);
    linnet_adapter_init(f->start, 1);
    fake_make_key(f, 1);
    for (uint64_t version = 0; version < FAKE_VERSIONS; version++)
        fake_make_release(f, version);
    fake_publish(f, 0);
    return f;
}

static inline void fake_destroy(fake *f)
{
    linnet_identity_destroy(f->identity);
    linnet_identity_destroy(f->authority);
    linnet_identity_destroy(f->stranger);
    linnet_layout_destroy(f->layout);
    linnet_adapter_destroy(f->start);
    linnet_buffer *const buffers[] = {&f->plan_text, &f->signed_announcement, &f->upload,
                                      &f->header,    &f->last_upload,         &f->revocation};
    for (size_t i = 0; i < ARRAY_LEN(buffers); i++)
        linnet_buffer_release(buffers[i]);
    for (size_t i = 0; i < FAKE_VERSIONS; i++) {
        linnet_buffer_release(&f->adapters[i]);
        linnet_buffer_release(&f->signed_releases[i]);
    }
    free(f);
}

static inline linnet_invite fake_invite(const fake *f)
{
    return (linnet_invite){.token = f->token,
                           .coordinator = *linnet_identity_public_key(f->identity),
                           .authority = *linnet_identity_public_key(f->authority)};
}

/* ---- answering ---- */

static inline void fake_hello(fake *f, linnet_http_response *response)
{
    linnet_error err = {0};
    linnet_hello hello = {.protocol_version = LINNET_PROTOCOL_VERSION,
                          .coordinator =
                              *linnet_identity_public_key(f->foreign_hello ? f->stranger : f->identity),
                          .authority = *linnet_identity_public_key(f->authority),
                          .channel_key = f->key_record,
                          .revocation = f->revocation.bytes,
                          .n_revocation = f->revocation.n_bytes,
                          .operator_is_authority = true};
    memcpy(hello.task, f->task, sizeof(hello.task));
    f->n_hello++;
    assert_ok(linnet_hello_pack(&hello, &response->body, &err), &err);
    response->status = 200;
}

static inline const linnet_buffer *fake_find_object(const fake *f, const linnet_hash *hash)
{
    if (linnet_hash_equal(hash, &f->plan_hash))
        return &f->plan_text;
    for (size_t i = 0; i < FAKE_VERSIONS; i++)
        if (linnet_hash_equal(hash, &f->releases[i].adapter))
            return &f->adapters[i];
    return NULL;
}

static inline void fake_object(fake *f, const linnet_http_request *request, linnet_http_response *response)
{
    linnet_hash hash;
    f->n_object++;
    assert_int_equal(
        linnet_hex_read(request->path + strlen(LINNET_PATH_OBJECT), hash.bytes, sizeof(hash.bytes)),
        LINNET_OK);
    const linnet_buffer *object = fake_find_object(f, &hash);
    size_t first = f->ignores_ranges ? 0 : (size_t)request->range_first;
    response->status = 404;
    if (!object || f->loses_objects)
        return;
    response->status = 416;
    if (first >= object->n_bytes)
        return;
    size_t n = object->n_bytes - first < LINNET_OBJECT_CHUNK_BYTES ? object->n_bytes - first
                                                                   : LINNET_OBJECT_CHUNK_BYTES;
    linnet_buffer_append(&response->body, object->bytes + first, n);
    if (f->alters_objects)
        response->body.bytes[n / 2] ^= 1;
    response->status = f->ignores_ranges || n == object->n_bytes ? 200 : 206;
}

static inline void fake_checkin(fake *f, const linnet_frame *frame, linnet_answer *answer)
{
    linnet_checkin checkin;
    linnet_error err = {0};
    f->n_checkin++;
    assert_ok(linnet_checkin_unpack(frame->header, frame->n_header, &checkin, &err), &err);
    f->n_checkin_ready += checkin.has_ready;
    const linnet_buffer *release =
        f->release_override ? f->release_override : &f->signed_releases[f->version];
    if (f->claims_revoked) {
        answer->code = LINNET_ANSWER_REVOKED;
        return;
    }
    if (f->release_override || !checkin.has_version || checkin.version < f->version) {
        answer->release = release->bytes;
        answer->n_release = release->n_bytes;
    }
    if (checkin.has_ready && f->announces) {
        answer->announcement = f->signed_announcement.bytes;
        answer->n_announcement = f->signed_announcement.n_bytes;
    } else if (answer->n_release == 0) {
        answer->code = LINNET_ANSWER_WAIT;
    }
    answer->revocation = f->revocation.bytes;
    answer->n_revocation = f->revocation.n_bytes;
    answer->retry_after_ms = f->retry_after_ms;
}

/* Signature, lengths, and that no byte of one round ever changes between two requests. */
static inline void fake_take_chunk(fake *f, const linnet_device_id *device, const linnet_frame *frame,
                                   const linnet_public_key *public_key, linnet_upload_header *ret_header)
{
    linnet_upload upload;
    linnet_signed opened;
    linnet_buffer storage = {0};
    linnet_error err = {0};
    assert_ok(linnet_upload_unpack(frame->header, frame->n_header, &storage, &upload, &err), &err);
    if (f->header.n_bytes > 0) { /* the same header in every chunk */
        assert_int_equal(f->header.n_bytes, upload.n_header);
        assert_memory_equal(f->header.bytes, upload.header, upload.n_header);
    } else {
        linnet_buffer_append(&f->header, upload.header, upload.n_header);
    }
    assert_ok(linnet_signed_open(upload.header, upload.n_header, &opened, &err), &err);
    assert_ok(linnet_verify(public_key, LINNET_LABEL_MASKED, opened.body, opened.n_body, &opened.signature),
              &err);
    assert_ok(linnet_upload_header_unpack(opened.body, opened.n_body, ret_header, &err), &err);
    assert_memory_equal(&ret_header->chain, &f->chain, sizeof(f->chain));
    assert_memory_equal(ret_header->device_id.bytes, device->bytes, sizeof(device->bytes));
    assert_true(upload.offset + frame->n_raw <= ret_header->n_bytes);
    if (upload.offset <= f->upload.n_bytes) {
        size_t n_known = f->upload.n_bytes - (size_t)upload.offset;
        size_t n_same = n_known < frame->n_raw ? n_known : frame->n_raw;
        assert_memory_equal(f->upload.bytes + upload.offset, frame->raw, n_same);
        linnet_buffer_append(&f->upload, frame->raw + n_same, frame->n_raw - n_same);
    }
    linnet_buffer_release(&storage);
}

static inline void fake_receipt(fake *f, const linnet_upload_header *header, linnet_answer *answer,
                                uint8_t bytes[LINNET_SIGNED_RECEIPT_BYTES])
{
    linnet_receipt receipt = {.chain = f->chain,
                              .echo = header->echo,
                              .device_id = header->device_id,
                              .sequence = f->n_accepted + 1};
    if (f->receipt_flaw == 2)
        receipt.echo.bytes[0] ^= 1;
    if (f->receipt_flaw == 3)
        receipt.chain.bytes[0] ^= 1;
    linnet_receipt_sign(&receipt, f->receipt_flaw == 1 ? f->stranger : f->identity, bytes);
    if (f->receipt_flaw == 4)
        return;
    answer->receipt = bytes;
    answer->n_receipt = LINNET_SIGNED_RECEIPT_BYTES;
}

static inline void fake_upload(fake *f, const linnet_device_id *device, const linnet_frame *frame,
                               linnet_answer *answer, uint8_t receipt[LINNET_SIGNED_RECEIPT_BYTES])
{
    linnet_upload_header header;
    f->n_upload++;
    if (f->upload_code >= 0) {
        answer->code = (uint32_t)f->upload_code;
        answer->retry_after_ms = f->retry_after_ms;
        return;
    }
    fake_take_chunk(f, device, frame, &f->last_key, &header);
    answer->next_offset = f->upload.n_bytes;
    if (f->upload.n_bytes < header.n_bytes)
        return;
    linnet_hash echo = linnet_hash_of(LINNET_LABEL_VECTOR, f->upload.bytes, f->upload.n_bytes);
    assert_memory_equal(&echo, &header.echo, sizeof(echo));
    fake_receipt(f, &header, answer, receipt);
    if (f->receipt_flaw == 0 &&
        (f->n_accepted == 0 || !linnet_hash_equal(&f->echoes[f->n_accepted - 1], &echo))) {
        assert_true(f->n_accepted < ARRAY_LEN(f->echoes));
        f->echoes[f->n_accepted++] = echo;
        linnet_buffer_clear(&f->last_upload);
        linnet_buffer_append(&f->last_upload, f->upload.bytes, f->upload.n_bytes);
    }
}

static inline void fake_enroll(fake *f, const linnet_frame *frame, linnet_answer *answer,
                               uint8_t certificate_bytes[LINNET_SIGNED_CERTIFICATE_BYTES])
{
    linnet_csr csr;
    f->n_enroll++;
    assert_int_equal(frame->n_header, 0);
    assert_int_equal(linnet_csr_open(frame->raw, frame->n_raw, &csr), LINNET_OK);
    assert_int_equal(linnet_csr_check_token(frame->raw, frame->n_raw, f->token.secret), LINNET_OK);
    linnet_certificate certificate = {.public_key = csr.public_key,
                                      .device_class = csr.device_class,
                                      .serial = 1,
                                      .not_before = 0,
                                      .not_after = 1u << 31};
    certificate.device_id = linnet_device_id_of(&csr.public_key);
    linnet_certificate_sign(&certificate, f->authority, certificate_bytes);
    f->last_key = csr.public_key;
    answer->certificate = certificate_bytes;
    answer->n_certificate = LINNET_SIGNED_CERTIFICATE_BYTES;
}

static inline void fake_sealed(fake *f, const linnet_http_request *request, linnet_http_response *response)
{
    linnet_opened_request opened = {0};
    linnet_error err = {0};
    linnet_frame frame;
    linnet_answer answer = {0};
    uint64_t number = 0;
    uint8_t receipt[LINNET_SIGNED_RECEIPT_BYTES], certificate[LINNET_SIGNED_CERTIFICATE_BYTES];
    linnet_buffer header = {0}, body = {0};
    assert_int_equal(linnet_request_key_number(request->body, request->n_body, &number), LINNET_OK);
    if (number != f->key.number) {
        response->status = 410;
        return;
    }
    assert_true(request->n_body <= LINNET_REQUEST_BYTES_MAX);
    assert_ok(linnet_request_open(f->key_record, f->key_secret, request->method, request->path, request->body,
                                  request->n_body, &opened, &err),
              &err);
    assert_ok(linnet_frame_open(opened.body, opened.n_body, &frame, &err), &err);
    if (strcmp(request->path, LINNET_PATH_ENROLL) == 0) {
        fake_enroll(f, &frame, &answer, certificate);
    } else {
        assert_int_equal(linnet_request_verify(&opened, &f->last_key), LINNET_OK);
        if (strcmp(request->path, LINNET_PATH_CHECKIN) == 0)
            fake_checkin(f, &frame, &answer);
        else
            fake_upload(f, &opened.device_id, &frame, &answer, receipt);
    }
    assert_ok(linnet_answer_pack(&answer, &header, &err), &err);
    linnet_frame answer_frame = {
        .header = header.bytes, .n_header = header.n_bytes, .raw = header.bytes, .n_raw = 0};
    assert_ok(linnet_frame_pack(&answer_frame, &body, &err), &err);
    assert_ok(linnet_response_seal(&opened.exchange, body.bytes, body.n_bytes, &response->body, &err), &err);
    response->status = 200;
    linnet_buffer_release(&header);
    linnet_buffer_release(&body);
    linnet_opened_request_release(&opened);
}

static inline linnet_status fake_http(void *context, const linnet_http_request *request, size_t n_body_max,
                                      linnet_http_response *ret_response, linnet_error *err)
{
    fake *f = context;
    linnet_http_response response = {0};
    f->n_exchanges++;
    if (f->is_down)
        return linnet_fail(err, LINNET_ERR_IO, "the network is down");
    if (f->status != 0) {
        response.status = f->status;
        response.retry_after_s = f->retry_after_s;
    } else if (strcmp(request->path, LINNET_PATH_HELLO) == 0) {
        fake_hello(f, &response);
    } else if (strncmp(request->path, LINNET_PATH_OBJECT, strlen(LINNET_PATH_OBJECT)) == 0) {
        fake_object(f, request, &response);
    } else {
        fake_sealed(f, request, &response);
    }
    assert_true(response.body.n_bytes <= n_body_max);
    if (f->loses_answers && f->n_exchanges % 2 == 0) {
        linnet_http_response_release(&response);
        return linnet_fail(err, LINNET_ERR_IO, "the answer is lost");
    }
    *ret_response = response;
    return LINNET_OK;
}

#endif
