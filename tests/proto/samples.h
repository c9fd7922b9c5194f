/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SAMPLES_H
#define SAMPLES_H

/* One sample of every message, and unpacking by number, so that tests can walk all of them. */

#include "linnet/channel.h"
#include "linnet/messages.h"

#include "testing.h"

static inline linnet_hash sample_hash(uint8_t seed)
{
    linnet_hash hash;
    for (size_t i = 0; i < sizeof(hash.bytes); i++)
        hash.bytes[i] = (uint8_t)(seed + 7 * i);
    return hash;
}

static inline linnet_release sample_release(void)
{
    linnet_release r = {.task = "task of sixteen",
                        .version = 41,
                        .factors = 2,
                        .learning_rate_b = 5e-3,
                        .learning_rate_a = 1.25e-3,
                        .dp_unit = LINNET_DP_UNIT_RECORD};
    r.previous = sample_hash(1);
    r.base_model = sample_hash(2);
    r.adapter = sample_hash(3);
    r.layout = sample_hash(4);
    r.plan = sample_hash(5);
    return r;
}

static inline linnet_announcement sample_announcement(void)
{
    linnet_announcement a = {.protocol_version = LINNET_PROTOCOL_VERSION,
                             .profile = 1,
                             .task = "task of sixteen",
                             .round = 7,
                             .deadline_s = 1800000000,
                             .n_vectors = 2,
                             .chunk = LINNET_RING_CHUNK,
                             .n_min = 3,
                             .n_max = 6,
                             .m_min = 3,
                             .corrupt_permille = 50,
                             .revocation_number = 2};
    memset(a.coordinator.bytes, 9, sizeof(a.coordinator.bytes));
    a.release = sample_hash(6);
    a.revocation = sample_hash(7);
    a.checkpoint = sample_hash(8);
    a.vectors[0] = (linnet_ring_spec){
        .vector_id = 0, .length = 1000, .bits = 24, .clamp = 5000, .exponent = 17, .weight_max = 15};
    a.vectors[1] = (linnet_ring_spec){
        .vector_id = 1, .length = 4, .bits = 32, .clamp = 1000000, .exponent = 0, .weight_max = 1};
    return a;
}

/* The same cohort with masks and distributed noise. */
static inline linnet_announcement sample_noised_announcement(void)
{
    linnet_announcement a = sample_announcement();
    a.profile = LINNET_PROFILE_SECURE_DP;
    a.phase_s = 120;
    a.vectors[0].length = 4096;
    a.vectors[0].weight_max = 1;
    a.vectors[1].length = LINNET_DP_LANES;
    a.dp_mechanism = LINNET_DP_DISTRIBUTED;
    a.dp_unit = LINNET_DP_UNIT_DEVICE;
    a.dp_clip = 0.75;
    a.dp_sigma2 = 4242;
    a.dp_rotates = true;
    return a;
}

/* And with DP-SGD on the device. */
static inline linnet_announcement sample_record_announcement(void)
{
    linnet_announcement a = sample_noised_announcement();
    a.dp_mechanism = LINNET_DP_RECORD_LOCAL;
    a.dp_unit = LINNET_DP_UNIT_RECORD;
    a.dp_rotates = false;
    a.dp_exponent = -3;
    a.dp_probability = 0.05;
    a.dp_steps = 10;
    return a;
}

static inline linnet_round_message sample_round_message(void)
{
    linnet_round_message m = {.kind = LINNET_ROUND_UNMASK};
    m.announcement = sample_hash(16);
    return m;
}

static inline linnet_upload_header sample_upload_header(void)
{
    linnet_upload_header h = {.n_vectors = 2, .lengths = {1000, 4}, .n_bytes = 3016};
    h.chain = sample_hash(10);
    h.echo = sample_hash(11);
    memset(h.device_id.bytes, 12, sizeof(h.device_id.bytes));
    return h;
}

static uint8_t sample_bytes[4096]; /* what borrowed fields point at; contents do not matter */

static inline linnet_hello sample_hello(void)
{
    linnet_hello h = {.protocol_version = LINNET_PROTOCOL_VERSION,
                      .task = "task of sixteen",
                      .channel_key = sample_bytes,
                      .revocation = sample_bytes + 200,
                      .n_revocation = 300,
                      .operator_is_authority = true};
    memset(h.coordinator.bytes, 13, sizeof(h.coordinator.bytes));
    memset(h.authority.bytes, 14, sizeof(h.authority.bytes));
    return h;
}

static inline linnet_checkin sample_checkin(void)
{
    linnet_checkin c = {.has_version = true, .version = 3, .has_ready = true, .revocation_number = 5};
    c.ready = sample_hash(15);
    return c;
}

static inline linnet_answer sample_answer(void)
{
    return (linnet_answer){.code = LINNET_ANSWER_WAIT,
                           .message = "voil\xc3\xa0: come back later",
                           .retry_after_ms = 1500,
                           .release = sample_bytes,
                           .n_release = 300,
                           .announcement = sample_bytes + 300,
                           .n_announcement = 250,
                           .certificate = sample_bytes,
                           .n_certificate = LINNET_SIGNED_CERTIFICATE_BYTES,
                           .receipt = sample_bytes + 600,
                           .n_receipt = LINNET_SIGNED_RECEIPT_BYTES,
                           .revocation = sample_bytes + 800,
                           .n_revocation = 90,
                           .channel_key = sample_bytes + 900,
                           .n_channel_key = LINNET_SIGNED_CHANNEL_KEY_BYTES,
                           .next_offset = 262144,
                           .phase = LINNET_PHASE_SURVIVORS};
}

enum {
    SAMPLE_RELEASE,
    SAMPLE_ANNOUNCEMENT,
    SAMPLE_UPLOAD_HEADER,
    SAMPLE_HELLO,
    SAMPLE_CHECKIN,
    SAMPLE_UPLOAD,
    SAMPLE_ANSWER,
    SAMPLE_ROUND_MESSAGE,
    SAMPLE_NOISED_ANNOUNCEMENT,
    SAMPLE_RECORD_ANNOUNCEMENT,
    SAMPLES
};

static inline linnet_status sample_pack(int which, linnet_buffer *bytes, linnet_error *err)
{
    linnet_release release = sample_release();
    linnet_announcement announcement = sample_announcement();
    linnet_upload_header header = sample_upload_header();
    linnet_hello hello = sample_hello();
    linnet_checkin checkin = sample_checkin();
    linnet_upload upload = {.header = sample_bytes, .n_header = 200, .offset = 4096};
    linnet_answer answer = sample_answer();
    linnet_round_message round_message = sample_round_message();
    switch (which) {
    case SAMPLE_RELEASE:
        return linnet_release_pack(&release, bytes, err);
    case SAMPLE_ANNOUNCEMENT:
        return linnet_announcement_pack(&announcement, bytes, err);
    case SAMPLE_UPLOAD_HEADER:
        return linnet_upload_header_pack(&header, bytes, err);
    case SAMPLE_HELLO:
        return linnet_hello_pack(&hello, bytes, err);
    case SAMPLE_CHECKIN:
        return linnet_checkin_pack(&checkin, bytes, err);
    case SAMPLE_UPLOAD:
        return linnet_upload_pack(&upload, bytes, err);
    case SAMPLE_ROUND_MESSAGE:
        return linnet_round_message_pack(&round_message, bytes, err);
    case SAMPLE_NOISED_ANNOUNCEMENT:
        announcement = sample_noised_announcement();
        return linnet_announcement_pack(&announcement, bytes, err);
    case SAMPLE_RECORD_ANNOUNCEMENT:
        announcement = sample_record_announcement();
        return linnet_announcement_pack(&announcement, bytes, err);
    default:
        return linnet_answer_pack(&answer, bytes, err);
    }
}

/* Unpack as message `which`, and pack what came out again behind repacked (may be NULL). */
static inline linnet_status sample_unpack(int which, const void *bytes, size_t n_bytes,
                                          linnet_buffer *repacked, linnet_error *err)
{
    linnet_buffer storage = {0}, sink = {0};
    linnet_buffer *out = repacked ? repacked : &sink;
    linnet_release release;
    linnet_announcement announcement;
    linnet_upload_header header;
    linnet_hello hello;
    linnet_checkin checkin;
    linnet_upload upload;
    linnet_answer answer;
    linnet_round_message round_message;
    linnet_status status;
    switch (which) {
    case SAMPLE_RELEASE:
        status = linnet_release_unpack(bytes, n_bytes, &release, err);
        status = status == LINNET_OK ? linnet_release_pack(&release, out, err) : status;
        break;
    case SAMPLE_ANNOUNCEMENT:
    case SAMPLE_NOISED_ANNOUNCEMENT:
    case SAMPLE_RECORD_ANNOUNCEMENT:
        status = linnet_announcement_unpack(bytes, n_bytes, &announcement, err);
        status = status == LINNET_OK ? linnet_announcement_pack(&announcement, out, err) : status;
        break;
    case SAMPLE_UPLOAD_HEADER:
        status = linnet_upload_header_unpack(bytes, n_bytes, &header, err);
        status = status == LINNET_OK ? linnet_upload_header_pack(&header, out, err) : status;
        break;
    case SAMPLE_HELLO:
        status = linnet_hello_unpack(bytes, n_bytes, &storage, &hello, err);
        status = status == LINNET_OK ? linnet_hello_pack(&hello, out, err) : status;
        break;
    case SAMPLE_CHECKIN:
        status = linnet_checkin_unpack(bytes, n_bytes, &checkin, err);
        status = status == LINNET_OK ? linnet_checkin_pack(&checkin, out, err) : status;
        break;
    case SAMPLE_UPLOAD:
        status = linnet_upload_unpack(bytes, n_bytes, &storage, &upload, err);
        status = status == LINNET_OK ? linnet_upload_pack(&upload, out, err) : status;
        break;
    case SAMPLE_ROUND_MESSAGE:
        status = linnet_round_message_unpack(bytes, n_bytes, &round_message, err);
        status = status == LINNET_OK ? linnet_round_message_pack(&round_message, out, err) : status;
        break;
    default:
        status = linnet_answer_unpack(bytes, n_bytes, &storage, &answer, err);
        status = status == LINNET_OK ? linnet_answer_pack(&answer, out, err) : status;
    }
    linnet_buffer_release(&storage);
    linnet_buffer_release(&sink);
    return status;
}

#endif
