/* SPDX-License-Identifier: Apache-2.0 */
/* One exchange in, one out. Public paths are plain and content-addressed; everything else is a sealed request
 * (SECURE-AGGREGATION 2.11): find the channel key it names, open, find the device, verify its signature, then
 * parse. Whatever is authenticated is answered 200 with a sealed answer; HTTP statuses are for what cannot be
 * answered inside the channel, and their short texts say nothing that the sender does not know. Nothing here
 * holds a lock while it computes. */
#include "state.h"

#include "linnet/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUSY_RETRY_S 5

/* A plain answer: status and one line. */
static void plain(linnet_http_response *response, int status, const char *line)
{
    response->status = status;
    linnet_buffer_clear(&response->body);
    linnet_buffer_append_text(&response->body, line);
    if (status == 503)
        response->retry_after_s = BUSY_RETRY_S;
}

/* ---- public paths ---- */

static linnet_status hello_pack(linnet_coordinator *c, linnet_buffer *ret_bytes, linnet_error *err)
{
    uint8_t key[LINNET_SIGNED_CHANNEL_KEY_BYTES];
    linnet_store_txn *txn = NULL;
    linnet_buffer list = {0};
    if (!linnet_channel_keys_newest(c, key))
        return linnet_fail(err, LINNET_ERR_AGAIN, "no channel key yet");
    linnet_status status = linnet_store_read_begin(c->store, &txn, err);
    if (status != LINNET_OK)
        return status;
    status = linnet_config_get(txn, "revocation", &list, err);
    linnet_store_read_end(txn);
    linnet_hello hello = {.protocol_version = LINNET_PROTOCOL_VERSION,
                          .coordinator = *linnet_identity_public_key(c->identity),
                          .authority = c->authority_key,
                          .channel_key = key,
                          .revocation = list.bytes,
                          .n_revocation = list.n_bytes,
                          .operator_is_authority = c->authority != NULL};
    memcpy(hello.task, c->task, sizeof(hello.task));
    if (status == LINNET_OK)
        status = linnet_hello_pack(&hello, ret_bytes, err);
    linnet_buffer_release(&list);
    return status;
}

static linnet_status handle_hello(linnet_coordinator *c, linnet_http_response *response, linnet_error *err)
{
    linnet_status status = hello_pack(c, &response->body, err);
    if (status == LINNET_OK)
        response->status = 200;
    return status;
}

/* Up to LINNET_OBJECT_CHUNK_BYTES of an object from range_first on: 200 where that is all of it, else 206;
 * the part that reaches the end is shorter than a chunk, or the next one is 416. */
static linnet_status object_read(int fd, uint64_t first, linnet_http_response *response, linnet_error *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return linnet_fail_errno(err, errno, "cannot look at an object");
    uint64_t size = (uint64_t)st.st_size;
    if (first >= size) {
        plain(response, 416, "past the end of the object\n");
        return LINNET_OK;
    }
    size_t n = size - first < LINNET_OBJECT_CHUNK_BYTES ? (size_t)(size - first) : LINNET_OBJECT_CHUNK_BYTES;
    if (!linnet_buffer_reserve(&response->body, n))
        return linnet_fail(err, LINNET_ERR_NOMEM, "object");
    while (response->body.n_bytes < n) {
        ssize_t got = pread(fd, response->body.bytes + response->body.n_bytes, n - response->body.n_bytes,
                            (off_t)(first + response->body.n_bytes));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return linnet_fail(err, LINNET_ERR_AGAIN, "cannot read an object");
        response->body.n_bytes += (size_t)got;
    }
    response->status = n == size ? 200 : 206;
    return LINNET_OK;
}

static linnet_status handle_object(linnet_coordinator *c, const linnet_http_request *request,
                                   linnet_http_response *response, linnet_error *err)
{
    char path[4096], hex[2 * LINNET_HASH_BYTES + 1];
    linnet_hash hash;
    const char *name = request->path + strlen(LINNET_PATH_OBJECT);
    if (linnet_hex_read(name, hash.bytes, sizeof(hash.bytes)) != LINNET_OK) {
        plain(response, 404, "no such object\n");
        return LINNET_OK;
    }
    linnet_hex_write(hash.bytes, sizeof(hash.bytes), hex); /* lower case, and nothing that could climb out */
    if (!linnet_coordinator_path(c, path, "objects/%s", hex))
        return linnet_fail(err, LINNET_ERR_LIMIT, "state directory: the path is too long");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno != ENOENT)
        return linnet_fail(err, LINNET_ERR_AGAIN, "cannot open an object: %s", strerror(errno));
    if (fd < 0) {
        plain(response, 404, "no such object\n");
        return LINNET_OK;
    }
    linnet_status status = object_read(fd, request->range_first, response, err);
    (void)close(fd); /* opened for reading */
    return status;
}

/* ---- what is inside a sealed request ---- */

static linnet_status handle_enroll(linnet_coordinator *c, int64_t now_ms, const uint8_t *signed_csr,
                                   const linnet_csr *csr, linnet_reply *reply, linnet_error *err)
{
    linnet_status status = linnet_registry_enroll(c, now_ms, signed_csr, csr, reply, err);
    if (status == LINNET_OK && linnet_channel_keys_newest(c, reply->channel_key)) {
        reply->answer.channel_key = reply->channel_key;
        reply->answer.n_channel_key = sizeof(reply->channel_key);
    }
    return status;
}

static linnet_status handle_checkin(linnet_coordinator *c, int64_t now_ms, const linnet_device_row *device,
                                    const linnet_frame *frame, linnet_reply *reply, linnet_error *err)
{
    linnet_checkin checkin;
    if (frame->n_raw != 0 ||
        linnet_checkin_unpack(frame->header, frame->n_header, &checkin, NULL) != LINNET_OK) {
        reply->is_bad_request = true;
        return LINNET_OK;
    }
    return linnet_rounds_checkin(c, now_ms, device, &checkin, reply, err);
}

static linnet_status handle_upload(linnet_coordinator *c, int64_t now_ms, const linnet_device_row *device,
                                   const linnet_frame *frame, linnet_reply *reply, linnet_error *err)
{
    linnet_upload upload;
    linnet_buffer storage = {0};
    linnet_status status = LINNET_OK;
    if (frame->n_raw > LINNET_UPLOAD_CHUNK_BYTES ||
        linnet_upload_unpack(frame->header, frame->n_header, &storage, &upload, NULL) != LINNET_OK)
        reply->is_bad_request = true;
    else
        status = linnet_uploads_handle(c, now_ms, device, &upload, frame->raw, frame->n_raw, reply, err);
    linnet_buffer_release(&storage);
    return status;
}

static linnet_status handle_round(linnet_coordinator *c, int64_t now_ms, const linnet_device_row *device,
                                  const linnet_frame *frame, linnet_reply *reply, linnet_error *err)
{
    linnet_round_message message;
    if (linnet_round_message_unpack(frame->header, frame->n_header, &message, NULL) != LINNET_OK ||
        (message.kind == LINNET_ROUND_POLL) != (frame->n_raw == 0)) {
        reply->is_bad_request = true;
        return LINNET_OK;
    }
    if (message.kind == LINNET_ROUND_RECEIPTS)
        return linnet_receipts_handle(c, device, &message, frame->raw, frame->n_raw, reply, err);
    return linnet_secure_handle(c, now_ms, device, &message, frame->raw, frame->n_raw, reply, err);
}

/* ---- sealed requests ---- */

static linnet_status reply_seal(const linnet_reply *reply, const linnet_exchange *exchange,
                                linnet_http_response *response, linnet_error *err)
{
    linnet_buffer header = {0}, body = {0};
    linnet_status status = linnet_answer_pack(&reply->answer, &header, err);
    if (status == LINNET_OK) {
        linnet_frame frame = {.header = header.bytes,
                              .n_header = header.n_bytes,
                              .raw = reply->raw.bytes,
                              .n_raw = reply->raw.n_bytes};
        status = linnet_frame_pack(&frame, &body, err);
    }
    if (status == LINNET_OK)
        status = linnet_response_seal(exchange, body.bytes, body.n_bytes, &response->body, err);
    if (status == LINNET_OK)
        response->status = 200;
    linnet_buffer_release(&header);
    linnet_buffer_release(&body);
    return status;
}

/* Who sent it, and did they? An enrolment carries its own key. Sets an HTTP status where the answer is no. */
static linnet_status authenticate(linnet_coordinator *c, const char *path,
                                  const linnet_opened_request *opened, const linnet_frame *frame,
                                  linnet_device_row *ret_device, linnet_csr *ret_csr,
                                  linnet_http_response *response, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    if (strcmp(path, LINNET_PATH_ENROLL) == 0) {
        if (frame->n_header != 0 || linnet_csr_open(frame->raw, frame->n_raw, ret_csr) != LINNET_OK ||
            linnet_request_verify(opened, &ret_csr->public_key) != LINNET_OK)
            plain(response, 401, "not a request for enrolment by its own key\n");
        return LINNET_OK;
    }
    status = linnet_registry_find(c, &opened->device_id, ret_device, err);
    if (status == LINNET_ERR_NOT_FOUND ||
        (status == LINNET_OK && (!ret_device->has_certificate ||
                                 linnet_request_verify(opened, &ret_device->public_key) != LINNET_OK))) {
        plain(response, 401, "unknown device or bad signature\n");
        return LINNET_OK;
    }
    return status;
}

static linnet_status handle_opened(linnet_coordinator *c, int64_t now_ms, const char *path,
                                   const linnet_opened_request *opened, linnet_http_response *response,
                                   linnet_error *err)
{
    linnet_frame frame;
    linnet_device_row device;
    linnet_csr csr;
    linnet_reply reply = {0};
    if (linnet_frame_open(opened->body, opened->n_body, &frame, NULL) != LINNET_OK) {
        plain(response, 400, "malformed request\n");
        return LINNET_OK;
    }
    linnet_status status = authenticate(c, path, opened, &frame, &device, &csr, response, err);
    if (status != LINNET_OK || response->status != 0)
        return status;
    if (strcmp(path, LINNET_PATH_ENROLL) == 0)
        status = handle_enroll(c, now_ms, frame.raw, &csr, &reply, err);
    else if (strcmp(path, LINNET_PATH_CHECKIN) == 0)
        status = handle_checkin(c, now_ms, &device, &frame, &reply, err);
    else if (strcmp(path, LINNET_PATH_ROUND) == 0)
        status = handle_round(c, now_ms, &device, &frame, &reply, err);
    else
        status = handle_upload(c, now_ms, &device, &frame, &reply, err);
    if (status == LINNET_OK)
        status = linnet_witness_keep(c, err); /* before what follows from it leaves */
    if (status == LINNET_ERR_NO_SPACE) {
        linnet_reply_release(&reply);
        reply = (linnet_reply){0};
        linnet_coordinator_say(c, 4, "disk full: a request waits (%s)", err->message);
        linnet_reply_set(&reply, LINNET_ANSWER_NO_SPACE,
                         "the coordinator's disk is full; its operator has to make room");
        reply.answer.retry_after_ms = 30000;
        status = LINNET_OK;
    }
    if (status == LINNET_OK && reply.is_bad_request)
        plain(response, 400, "malformed request\n");
    else if (status == LINNET_OK)
        status = reply_seal(&reply, &opened->exchange, response, err);
    linnet_reply_release(&reply);
    return status;
}

static linnet_status handle_sealed(linnet_coordinator *c, int64_t now_ms, const linnet_http_request *request,
                                   linnet_http_response *response, linnet_error *err)
{
    uint64_t number;
    linnet_channel_slot slot;
    linnet_opened_request opened = {0};
    if (request->n_body > LINNET_REQUEST_BYTES_MAX) {
        plain(response, 413, "request too large\n");
        return LINNET_OK;
    }
    if (linnet_request_key_number(request->body, request->n_body, &number) != LINNET_OK) {
        plain(response, 400, "not a sealed request of version 1\n");
        return LINNET_OK;
    }
    if (linnet_channel_keys_find(c, number, (uint64_t)(now_ms / 1000), &slot) != LINNET_OK) {
        plain(response, 410, "channel key unknown or expired: fetch " LINNET_PATH_HELLO " again\n");
        return LINNET_OK;
    }
    linnet_status status = linnet_request_open(slot.record, slot.secret, request->method, request->path,
                                               request->body, request->n_body, &opened, err);
    linnet_wipe(&slot, sizeof(slot));
    if (status == LINNET_ERR_NOMEM)
        return status;
    if (status != LINNET_OK) {
        plain(response, 400, "the request does not open with this channel key\n");
        return LINNET_OK;
    }
    status = handle_opened(c, now_ms, request->path, &opened, response, err);
    linnet_opened_request_release(&opened);
    return status;
}

/* ---- routing ---- */

static bool is_sealed_path(const char *path)
{
    return strcmp(path, LINNET_PATH_ENROLL) == 0 || strcmp(path, LINNET_PATH_CHECKIN) == 0 ||
           strcmp(path, LINNET_PATH_UPLOAD) == 0 || strcmp(path, LINNET_PATH_ROUND) == 0;
}

static linnet_status route(linnet_coordinator *c, int64_t now_ms, const linnet_http_request *request,
                           linnet_http_response *response, linnet_error *err)
{
    bool is_hello = strcmp(request->path, LINNET_PATH_HELLO) == 0;
    bool is_object = strncmp(request->path, LINNET_PATH_OBJECT, strlen(LINNET_PATH_OBJECT)) == 0;
    bool is_sealed = is_sealed_path(request->path);
    if (!is_hello && !is_object && !is_sealed)
        plain(response, 404, "no such path\n");
    else if (strcmp(request->method, is_sealed ? "POST" : "GET") != 0)
        plain(response, 405, "method not allowed\n");
    else if (is_sealed)
        return handle_sealed(c, now_ms, request, response, err);
    else
        return is_hello ? handle_hello(c, response, err) : handle_object(c, request, response, err);
    return LINNET_OK;
}

static bool has_failed(linnet_coordinator *c)
{
    (void)pthread_mutex_lock(&c->lock);
    bool failed = c->failure.status != LINNET_OK;
    (void)pthread_mutex_unlock(&c->lock);
    return failed;
}

void linnet_coordinator_handle(linnet_coordinator *c, int64_t now_ms, const linnet_http_request *request,
                               linnet_http_response *ret_response)
{
    linnet_error err = {0};
    *ret_response = (linnet_http_response){0};
    if (has_failed(c)) {
        plain(ret_response, 503, "stopping\n");
        return;
    }
    linnet_status status = route(c, now_ms, request, ret_response, &err);
    if (status != LINNET_OK) {
        linnet_coordinator_say(c, 4, "%s %s: %s", request->method,
                               is_sealed_path(request->path) ? request->path : "", err.message);
        (void)linnet_coordinator_note(c, status, &err);
        linnet_http_response_release(ret_response);
        plain(ret_response, 503, "try again later\n");
    }
    if (ret_response->body.failed) {
        linnet_http_response_release(ret_response);
        *ret_response = (linnet_http_response){.status = 503, .retry_after_s = BUSY_RETRY_S};
    }
    linnet_traffic_add(c, request->n_body, ret_response->body.n_bytes);
}
