/* SPDX-License-Identifier: Apache-2.0 */
#ifndef COORDINATOR_FIXTURE_H
#define COORDINATOR_FIXTURE_H

/* A coordinator on a tiny model in a folder of its own, a virtual clock, and devices that speak the real
 * sealed messages through linnet_coordinator_handle. A device here trains nothing: its delta comes from a
 * seed. */

#include "testing.h"

#include "linnet/channel.h"
#include "linnet/coordinator.h"

#include <math.h>
#include <sys/socket.h>
#include <unistd.h>

#define SCENE_DEVICES 8
#define SCENE_START_MS ((int64_t)1700000000000)

typedef struct scene {
    char folder[64], state[96], model[96];
    linnet_plan plan;
    linnet_coordinator *coordinator;
    int64_t now_ms;
    linnet_public_key key, authority; /* what an invite pins */
    int line; /* a socket to the process that serves, which may die; 0: it is this one */
} scene;

typedef struct device {
    scene *scene;
    linnet_identity *identity;
    linnet_device_id id;
    uint64_t seed;
    uint32_t weight;
    uint8_t channel_key[LINNET_SIGNED_CHANNEL_KEY_BYTES];
    uint8_t certificate[LINNET_SIGNED_CERTIFICATE_BYTES];
    /* the last exchange */
    linnet_buffer wire, storage; /* request as sent; what answer borrows from */
    linnet_buffer raw;           /* the raw part of the answer */
    char path[32];
    linnet_answer answer;
    uint32_t retry_after_s;
    /* the round it joined */
    bool has_round;
    linnet_announcement announcement;
    linnet_hash chain, release;
    uint64_t version;
    bool has_release;
    linnet_buffer packed, header; /* contribution, signed header */
    linnet_hash echo;
} device;

/* ---- the scene ---- */

static inline void scene_write_model(const char *path, uint32_t width)
{
    linnet_error err = {0};
    size_t n = (size_t)width * width;
    float *weights = calloc(n, sizeof(float));
    assert_non_null(weights);
    linnet_gguf_writer *writer = linnet_gguf_writer_create();
    linnet_gguf_writer_text(writer, "general.architecture", "llama");
    linnet_gguf_writer_u32(writer, "llama.block_count", 1);
    linnet_gguf_writer_u32(writer, "llama.attention.head_count", 2);
    linnet_gguf_writer_tensor(writer, "blk.0.attn_q.weight", LINNET_TENSOR_F32, 2,
                              (const uint64_t[]){width, width}, weights, n * sizeof(float));
    linnet_gguf_writer_tensor(writer, "blk.0.attn_v.weight", LINNET_TENSOR_F32, 2,
                              (const uint64_t[]){width, width / 2}, weights, n / 2 * sizeof(float));
    assert_ok(linnet_gguf_writer_write(writer, path, &err), &err);
    linnet_gguf_writer_destroy(writer);
    free(weights);
}

/** A plan of three rounds on the plain path, goal 3, minimum 2, join at most 4, deadline a minute. */
static inline linnet_plan scene_plan(void)
{
    linnet_plan plan;
    linnet_plan_default(&plan);
    (void)snprintf(plan.name, sizeof(plan.name), "test");
    plan.rounds = 3;
    plan.rank = 2;
    plan.targets = 1u << LINNET_TARGET_ATTN_Q | 1u << LINNET_TARGET_ATTN_V;
    plan.profile = LINNET_PROFILE_PLAIN;
    plan.goal = 3;
    plan.minimum = 2;
    plan.over_selection = 1.3;
    plan.deadline_s = 60;
    plan.poll_s = 10;
    plan.ring_bits = 20;
    plan.weight_max = 4;
    plan.rule = LINNET_RULE_ALTERNATE;
    plan.server_optimizer = LINNET_SERVER_FEDAVG;
    plan.server_rate = 1;
    return plan;
}

static inline void scene_open(scene *s)
{
    linnet_error err = {0};
    const linnet_coordinator_options options = {.serve = true};
    assert_ok(linnet_coordinator_open(s->state, &options, s->now_ms, &s->coordinator, &err), &err);
}

static inline void scene_close(scene *s)
{
    linnet_coordinator_close(s->coordinator);
    s->coordinator = NULL;
}

static inline void scene_reopen(scene *s)
{
    scene_close(s);
    scene_open(s);
}

static inline void scene_begin_in(scene *s, const char *parent, const linnet_plan *plan, uint32_t width)
{
    linnet_error err = {0};
    linnet_coordinator_report report;
    *s = (scene){.now_ms = SCENE_START_MS, .plan = *plan};
    (void)snprintf(s->folder, sizeof(s->folder), "%s/linnet-test-coord-XXXXXX", parent);
    assert_non_null(mkdtemp(s->folder));
    (void)snprintf(s->state, sizeof(s->state), "%s/state", s->folder);
    (void)snprintf(s->model, sizeof(s->model), "%s/model.gguf", s->folder);
    assert_ok(linnet_crypto_init(&err), &err);
    scene_write_model(s->model, width);
    assert_ok(linnet_coordinator_init(s->state, plan, s->model, NULL, s->now_ms, &err), &err);
    scene_open(s);
    assert_ok(linnet_coordinator_status(s->coordinator, &report, &err), &err);
    s->key = report.coordinator;
    s->authority = report.authority;
}

static inline void scene_begin(scene *s, const linnet_plan *plan)
{
    /* in memory where that is possible: every commit waits for its disk */
    scene_begin_in(s, access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", plan, 16);
}

static inline void scene_end(scene *s)
{
    char command[128];
    scene_close(s);
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", s->folder);
    assert_int_equal(system(command), 0);
}

static inline int64_t scene_tick(scene *s)
{
    linnet_error err = {0};
    int64_t next_ms = 0;
    assert_ok(linnet_coordinator_tick(s->coordinator, s->now_ms, &next_ms, &err), &err);
    return next_ms;
}

static inline linnet_coordinator_report scene_status(scene *s)
{
    linnet_error err = {0};
    linnet_coordinator_report report;
    assert_ok(linnet_coordinator_status(s->coordinator, &report, &err), &err);
    return report;
}

static inline linnet_round_report scene_round(scene *s, uint64_t round)
{
    linnet_error err = {0};
    linnet_round_report *rounds = NULL, found = {0};
    size_t n = 0;
    assert_ok(linnet_coordinator_rounds(s->coordinator, &rounds, &n, &err), &err);
    for (size_t i = 0; i < n; i++)
        if (rounds[i].round == round)
            found = rounds[i];
    free(rounds);
    assert_int_equal(found.round, round);
    return found;
}

/* What goes over the line: a request or a tick, and the answer to it. */
typedef struct line_head {
    char method[8], path[160]; /* method "": a tick, "q": the end */
    int64_t now_ms;
    int32_t status; /* of a tick: linnet_status */
    uint32_t retry_after_s;
    uint64_t n_body;
} line_head;

static inline bool line_send(int line, const line_head *head, const void *body)
{
    const uint8_t *at = body;
    size_t left = (size_t)head->n_body;
    bool is_up = send(line, head, sizeof(*head), MSG_NOSIGNAL) == (ssize_t)sizeof(*head);
    while (is_up && left > 0) {
        ssize_t n = send(line, at, left, MSG_NOSIGNAL);
        is_up = n > 0;
        at += is_up ? n : 0;
        left -= is_up ? (size_t)n : 0;
    }
    return is_up;
}

/* The head of a message and its body (owned); false where the other end is gone. */
static inline bool line_receive(int line, line_head *head, linnet_buffer *body)
{
    if (recv(line, head, sizeof(*head), MSG_WAITALL) != (ssize_t)sizeof(*head) ||
        !linnet_buffer_reserve(body, (size_t)head->n_body + 1))
        return false;
    body->n_bytes = (size_t)head->n_body;
    return head->n_body == 0 || recv(line, body->bytes, body->n_bytes, MSG_WAITALL) == (ssize_t)body->n_bytes;
}

/* An exchange with whoever serves; HTTP status 0 where nobody answers. */
static inline void scene_handle(scene *s, const linnet_http_request *request, linnet_http_response *response)
{
    line_head head = {.now_ms = s->now_ms, .n_body = request->n_body};
    if (s->line == 0) {
        linnet_coordinator_handle(s->coordinator, s->now_ms, request, response);
        return;
    }
    *response = (linnet_http_response){0};
    (void)snprintf(head.method, sizeof(head.method), "%s", request->method);
    (void)snprintf(head.path, sizeof(head.path), "%s", request->path);
    if (line_send(s->line, &head, request->body) && line_receive(s->line, &head, &response->body)) {
        response->status = head.status;
        response->retry_after_s = head.retry_after_s;
    }
}

/* One exchange as it is; returns the HTTP status, body appended to ret_body. */
static inline int scene_exchange(scene *s, const char *method, const char *path, const void *body,
                                 size_t n_body, linnet_buffer *ret_body)
{
    linnet_http_request request = {.method = method, .path = path, .body = body, .n_body = n_body};
    linnet_http_response response;
    scene_handle(s, &request, &response);
    int status = response.status;
    if (ret_body)
        linnet_buffer_append(ret_body, response.body.bytes, response.body.n_bytes);
    linnet_http_response_release(&response);
    return status;
}

/* ---- devices ---- */

static inline void device_hello(device *d)
{
    linnet_error err = {0};
    linnet_buffer body = {0}, storage = {0};
    linnet_hello hello;
    assert_int_equal(scene_exchange(d->scene, "GET", LINNET_PATH_HELLO, NULL, 0, &body), 200);
    assert_ok(linnet_hello_unpack(body.bytes, body.n_bytes, &storage, &hello, &err), &err);
    memcpy(d->channel_key, hello.channel_key, sizeof(d->channel_key));
    linnet_buffer_release(&body);
    linnet_buffer_release(&storage);
}

static inline void device_begin(device *d, scene *s, uint64_t seed)
{
    linnet_error err = {0};
    uint8_t bytes[LINNET_SEED_BYTES] = {0};
    *d = (device){.scene = s, .seed = seed, .weight = 1 + (uint32_t)(seed % 4)};
    linnet_store_le64(bytes, seed + 1);
    assert_ok(linnet_identity_from_seed(bytes, &d->identity, &err), &err);
    d->id = linnet_device_id_of(linnet_identity_public_key(d->identity));
    device_hello(d);
}

static inline void device_end(device *d)
{
    linnet_identity_destroy(d->identity);
    linnet_buffer_release(&d->wire);
    linnet_buffer_release(&d->storage);
    linnet_buffer_release(&d->raw);
    linnet_buffer_release(&d->packed);
    linnet_buffer_release(&d->header);
}

/* Send d->wire (again); on 200 open the answer with this exchange. */
static inline int device_send(device *d, const linnet_exchange *exchange)
{
    linnet_error err = {0};
    linnet_frame frame;
    linnet_buffer body = {0};
    linnet_http_request request = {
        .method = "POST", .path = d->path, .body = d->wire.bytes, .n_body = d->wire.n_bytes};
    linnet_http_response response;
    scene_handle(d->scene, &request, &response);
    int status = response.status;
    d->retry_after_s = response.retry_after_s;
    d->answer = (linnet_answer){0};
    linnet_buffer_clear(&d->storage);
    linnet_buffer_clear(&d->raw);
    if (status == 200) {
        assert_ok(linnet_response_open(exchange, response.body.bytes, response.body.n_bytes, &body, &err),
                  &err);
        assert_ok(linnet_frame_open(body.bytes, body.n_bytes, &frame, &err), &err);
        assert_ok(linnet_answer_unpack(frame.header, frame.n_header, &d->storage, &d->answer, &err), &err);
        linnet_buffer_append(&d->raw, frame.raw, frame.n_raw);
    }
    linnet_buffer_release(&body);
    linnet_http_response_release(&response);
    return status;
}

/* Seal (header, raw) for path and send it. */
static inline int device_call(device *d, const char *path, const linnet_buffer *header, const uint8_t *raw,
                              size_t n_raw)
{
    static const uint8_t none;
    linnet_error err = {0};
    linnet_exchange exchange;
    linnet_buffer body = {0};
    linnet_frame frame = {.header = header ? header->bytes : &none,
                          .n_header = header ? header->n_bytes : 0,
                          .raw = raw ? raw : &none,
                          .n_raw = n_raw};
    assert_ok(linnet_frame_pack(&frame, &body, &err), &err);
    linnet_buffer_clear(&d->wire);
    (void)snprintf(d->path, sizeof(d->path), "%s", path);
    assert_ok(linnet_request_seal(d->channel_key, "POST", path, d->identity, body.bytes, body.n_bytes,
                                  &d->wire, &exchange, &err),
              &err);
    linnet_buffer_release(&body);
    int status = device_send(d, &exchange);
    linnet_exchange_release(&exchange);
    return status;
}

static inline int device_enroll_with(device *d, const linnet_invite *invite)
{
    uint8_t bytes[LINNET_SIGNED_CSR_BYTES];
    linnet_csr csr = {.public_key = *linnet_identity_public_key(d->identity),
                      .device_class = 1,
                      .coordinator = invite->coordinator};
    memcpy(csr.token_id, invite->token.id, sizeof(csr.token_id));
    linnet_csr_sign(&csr, &invite->token, d->identity, bytes);
    return device_call(d, LINNET_PATH_ENROLL, NULL, bytes, sizeof(bytes));
}

static inline linnet_invite scene_invite(scene *s, uint64_t life_s)
{
    linnet_error err = {0};
    char text[LINNET_INVITE_TEXT_MAX];
    linnet_invite invite;
    assert_ok(linnet_coordinator_invite(s->coordinator, (uint64_t)(s->now_ms / 1000) + life_s, text, &err),
              &err);
    assert_int_equal(linnet_invite_read(text, &invite), LINNET_OK);
    return invite;
}

/** A device with a certificate. */
static inline void device_enrolled(device *d, scene *s, uint64_t seed)
{
    device_begin(d, s, seed);
    linnet_invite invite = scene_invite(s, 3600);
    assert_int_equal(device_enroll_with(d, &invite), 200);
    assert_int_equal(d->answer.code, LINNET_ANSWER_OK);
    assert_int_equal(d->answer.n_certificate, LINNET_SIGNED_CERTIFICATE_BYTES);
    memcpy(d->certificate, d->answer.certificate, sizeof(d->certificate));
}

static inline int device_checkin_with(device *d, const linnet_checkin *checkin)
{
    linnet_error err = {0};
    linnet_buffer header = {0};
    assert_ok(linnet_checkin_pack(checkin, &header, &err), &err);
    int status = device_call(d, LINNET_PATH_CHECKIN, &header, NULL, 0);
    linnet_buffer_release(&header);
    return status;
}

static inline void device_take_release(device *d)
{
    linnet_error err = {0};
    linnet_signed opened;
    linnet_release release;
    assert_ok(linnet_signed_open(d->answer.release, d->answer.n_release, &opened, &err), &err);
    d->release = linnet_hash_of(LINNET_LABEL_MODEL, opened.body, opened.n_body);
    assert_int_equal(linnet_verify_hash(&d->scene->key, &d->release, &opened.signature), LINNET_OK);
    assert_ok(linnet_release_unpack(opened.body, opened.n_body, &release, &err), &err);
    d->version = release.version;
    d->has_release = true;
}

static inline void device_take_announcement(device *d)
{
    linnet_error err = {0};
    linnet_signed opened;
    assert_ok(linnet_signed_open(d->answer.announcement, d->answer.n_announcement, &opened, &err), &err);
    d->chain = linnet_hash_of(LINNET_LABEL_ANNOUNCE, opened.body, opened.n_body);
    assert_int_equal(linnet_verify_hash(&d->scene->key, &d->chain, &opened.signature), LINNET_OK);
    assert_ok(linnet_announcement_unpack(opened.body, opened.n_body, &d->announcement, &err), &err);
    d->has_round = true;
}

/** Poll without a delta: takes a release if there is a newer one. */
static inline void device_poll(device *d)
{
    linnet_checkin checkin = {.has_version = d->has_release, .version = d->version};
    assert_int_equal(device_checkin_with(d, &checkin), 200);
    if (d->answer.n_release > 0)
        device_take_release(d);
}

/** Ask to join with a delta of the release it knows; the answer's code. */
static inline uint32_t device_ask(device *d)
{
    linnet_checkin checkin = {
        .has_version = true, .version = d->version, .has_ready = true, .ready = d->release};
    assert_int_equal(device_checkin_with(d, &checkin), 200);
    d->has_round = false;
    if (d->answer.n_announcement > 0)
        device_take_announcement(d);
    return d->answer.code;
}

/** Poll, "train", join. */
static inline void device_join(device *d)
{
    device_poll(d);
    assert_true(d->has_release);
    assert_int_equal(device_ask(d), LINNET_ANSWER_OK);
    assert_true(d->has_round);
}

/* ---- contributions ---- */

static inline void seeded_random(void *context, void *bytes, size_t n_bytes)
{
    uint8_t *out = bytes;
    for (size_t i = 0; i < n_bytes; i++)
        out[i] = (uint8_t)linnet_rng_next(context);
}

/** Value i of the delta of this device for this vector and round: inside the range that the clamp allows. */
static inline float device_value(const device *d, const linnet_ring_spec *spec, uint64_t round, uint64_t i)
{
    linnet_rng rng;
    linnet_rng_init(&rng, d->seed * 1000003 + round, i * 4 + spec->vector_id);
    double limit = ldexp((double)spec->clamp, -spec->exponent);
    return (float)((2 * linnet_rng_double(&rng) - 1) * 0.9 * limit);
}

/** Held-out loss that this device reports for this round. */
static inline double device_loss(const device *d, uint64_t round)
{
    return 3.0 + 0.125 * (double)d->seed - 0.25 * (double)round;
}

static inline void device_pack_lanes(const device *d, const linnet_ring_spec *spec, uint64_t round,
                                     uint8_t *packed)
{
    linnet_error err = {0};
    int64_t lanes[LINNET_LANES] = {
        [LINNET_LANE_PARTICIPANTS] = 1,
        [LINNET_LANE_WEIGHT] = d->weight,
        [LINNET_LANE_LOSS] = (int64_t)d->weight * (int64_t)(LINNET_LANE_LOSS_SCALE * device_loss(d, round)),
        [LINNET_LANE_LOSS_WEIGHT] = d->weight,
    };
    assert_ok(linnet_ring_encode_integers(spec, lanes, packed, &err), &err);
}

/** Sign the header for what lies in d->packed. */
static inline void device_sign_header(device *d)
{
    linnet_error err = {0};
    linnet_buffer body = {0};
    linnet_upload_header header = {.chain = d->chain,
                                   .device_id = d->id,
                                   .n_vectors = d->announcement.n_vectors,
                                   .n_bytes = d->packed.n_bytes};
    for (uint32_t i = 0; i < header.n_vectors; i++)
        header.lengths[i] = d->announcement.vectors[i].length;
    header.echo = d->echo = linnet_hash_of(LINNET_LABEL_VECTOR, d->packed.bytes, d->packed.n_bytes);
    assert_ok(linnet_upload_header_pack(&header, &body, &err), &err);
    linnet_signature signature = linnet_sign(d->identity, LINNET_LABEL_MASKED, body.bytes, body.n_bytes);
    linnet_buffer_clear(&d->header);
    assert_ok(linnet_signed_pack(body.bytes, body.n_bytes, &signature, &d->header, &err), &err);
    linnet_buffer_release(&body);
}

/** Encode the delta for the joined round. */
static inline void device_encode(device *d)
{
    linnet_error err = {0};
    linnet_rng rng;
    linnet_rng_init(&rng, d->seed, d->announcement.round);
    linnet_buffer_clear(&d->packed);
    for (uint32_t i = 0; i < d->announcement.n_vectors; i++) {
        const linnet_ring_spec *spec = &d->announcement.vectors[i];
        size_t n_bytes = linnet_ring_bytes(spec);
        assert_true(linnet_buffer_reserve(&d->packed, n_bytes));
        uint8_t *packed = d->packed.bytes + d->packed.n_bytes;
        if (spec->vector_id == 1) {
            device_pack_lanes(d, spec, d->announcement.round, packed);
        } else {
            float *values = calloc((size_t)spec->length, sizeof(float));
            assert_non_null(values);
            for (uint64_t j = 0; j < spec->length; j++)
                values[j] = device_value(d, spec, d->announcement.round, j);
            assert_ok(linnet_ring_encode(spec, values, d->weight, seeded_random, &rng, packed, NULL, &err),
                      &err);
            free(values);
        }
        d->packed.n_bytes += n_bytes;
    }
    device_sign_header(d);
}

/** Send packed bytes [offset, offset + n); the HTTP status. */
static inline int device_upload_raw(device *d, uint64_t offset, const uint8_t *raw, size_t n)
{
    linnet_error err = {0};
    linnet_buffer message = {0};
    const linnet_upload upload = {.header = d->header.bytes, .n_header = d->header.n_bytes, .offset = offset};
    assert_ok(linnet_upload_pack(&upload, &message, &err), &err);
    int status = device_call(d, LINNET_PATH_UPLOAD, &message, raw, n);
    linnet_buffer_release(&message);
    return status;
}

static inline uint32_t device_upload_part(device *d, size_t offset, size_t n)
{
    assert_int_equal(device_upload_raw(d, offset, d->packed.bytes + offset, n), 200);
    return d->answer.code;
}

static inline void assert_receipt(const device *d)
{
    linnet_receipt receipt;
    assert_int_equal(d->answer.code, LINNET_ANSWER_OK);
    assert_int_equal(linnet_receipt_open(d->answer.receipt, d->answer.n_receipt, &d->scene->key, &receipt),
                     LINNET_OK);
    assert_memory_equal(receipt.chain.bytes, d->chain.bytes, 32);
    assert_memory_equal(receipt.echo.bytes, d->echo.bytes, 32);
    assert_memory_equal(receipt.device_id.bytes, d->id.bytes, 16);
}

/** Upload everything in parts, to the receipt. */
static inline void device_upload(device *d)
{
    size_t part = d->packed.n_bytes / 3 + 1;
    for (size_t at = 0; at < d->packed.n_bytes; at += part)
        assert_int_equal(
            device_upload_part(d, at, d->packed.n_bytes - at < part ? d->packed.n_bytes - at : part),
            LINNET_ANSWER_OK);
    assert_receipt(d);
}

static inline void device_contribute(device *d)
{
    device_join(d);
    device_encode(d);
    device_upload(d);
}

/** One visit that puts up with everything: take news, join, upload. True where a receipt came. */
static inline bool device_visit(device *d)
{
    linnet_checkin checkin = {.has_version = d->has_release,
                              .version = d->version,
                              .has_ready = d->has_release,
                              .ready = d->release};
    if (device_checkin_with(d, &checkin) != 200)
        return false;
    if (d->answer.n_release > 0) {
        device_take_release(d);
        return false;
    }
    if (d->answer.n_announcement == 0)
        return false;
    device_take_announcement(d);
    device_encode(d);
    if (device_upload_raw(d, 0, d->packed.bytes, d->packed.n_bytes / 2) != 200 ||
        d->answer.code != LINNET_ANSWER_OK)
        return false;
    size_t at = (size_t)d->answer.next_offset;
    if (d->answer.n_receipt == 0 &&
        (device_upload_raw(d, at, d->packed.bytes + at, d->packed.n_bytes - at) != 200 ||
         d->answer.code != LINNET_ANSWER_OK))
        return false;
    if (d->answer.n_receipt == 0)
        return false;
    assert_receipt(d);
    return true;
}

/** n enrolled devices. */
static inline void devices_begin(device *devices, size_t n, scene *s)
{
    for (size_t i = 0; i < n; i++)
        device_enrolled(&devices[i], s, i);
}

static inline void devices_end(device *devices, size_t n)
{
    for (size_t i = 0; i < n; i++)
        device_end(&devices[i]);
}

#endif
