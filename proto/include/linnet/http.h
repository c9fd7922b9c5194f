/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_HTTP_H
#define LINNET_HTTP_H

/* One HTTP exchange as both sides see it, whatever carries it: libcurl and libmicrohttpd on a network, a
 * function call in a simulator. */

#include "linnet/bytes.h"

/* The paths of version 1. Sealed requests and their answers are linnet_frames on both ways: check-in =
 * {Checkin}, upload = {Upload, raw bytes from offset}, enrol = {empty header, signed CSR}, round =
 * {RoundMessage, a device's message of secagg.h}; an answer = {Answer, raw part}, status 200, where the raw
 * part is empty but for answers to round: there it is the coordinator's message that `phase` names. Anything
 * else (400 for what does not open, 421 for a channel key that is gone) sends the device back to HELLO. An
 * object is named by the hash that the signed release holds (plan: H("plan."), adapter: H("objct")). One GET
 * returns the bytes from range_first on, at most LINNET_OBJECT_CHUNK_BYTES, as 206 (200 from the start is
 * fine): the device asks on until the hash agrees, and a part shorter than that is the last. */
#define LINNET_PATH_HELLO "/v1/hello"     /* GET, public: keys and lists, each signed by itself */
#define LINNET_PATH_OBJECT "/v1/objects/" /* GET + 64 hex digits, public, content-addressed, Range */
#define LINNET_PATH_ENROLL "/v1/enroll"   /* POST, sealed */
#define LINNET_PATH_CHECKIN "/v1/checkin" /* POST, sealed */
#define LINNET_PATH_UPLOAD "/v1/upload"   /* POST, sealed */
#define LINNET_PATH_ROUND "/v1/round"     /* POST, sealed */

typedef struct linnet_http_request {
    const char *method, *path; /* "POST", "/v1/checkin"; borrowed */
    const uint8_t *body;       /* borrowed */
    size_t n_body;
    uint64_t range_first; /* first byte wanted of a GET; 0: from the start */
    uint32_t stall_s;     /* given up after so long without progress; 0: as long as the carrier sees fit */
    /* Of the headers a server reads; NULL: absent. A client does not send them. */
    const char *host, *content_type, *authorization;
} linnet_http_request;

typedef struct linnet_http_response {
    int status;               /* 200, 206, 4xx, 5xx */
    linnet_buffer body;       /* owned */
    uint32_t retry_after_s;   /* of the Retry-After header; 0: none */
    const char *content_type; /* that a server sends; static, NULL: application/octet-stream */
    const char *allow;        /* methods, that a server sends with 405; static, NULL: none */
} linnet_http_response;

static inline void linnet_http_response_release(linnet_http_response *response)
{
    linnet_buffer_release(&response->body);
    *response = (linnet_http_response){0};
}

/** Carry one exchange. A status other than LINNET_OK means that no answer came (network); any HTTP status is
 * OK here. n_body_max bounds the answer's body. */
typedef linnet_status linnet_http_fn(void *context, const linnet_http_request *request, size_t n_body_max,
                                     linnet_http_response *ret_response, linnet_error *err);

#endif
