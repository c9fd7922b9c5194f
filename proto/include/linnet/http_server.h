/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_HTTP_SERVER_H
#define LINNET_HTTP_SERVER_H

/* An HTTP/1.1 server behind few calls, so that another one can replace libmicrohttpd. Bodies are streamed
 * into a bounded buffer; a request that is not plain HTTP/1.1 with exactly one Content-Length is refused. An
 * answer is owed until it is sent, as a whole or piece by piece, by whatever thread has it by then. */

#include "linnet/http.h"

typedef struct linnet_http_server linnet_http_server;
/** The answer that one request is owed. */
typedef struct linnet_http_reply linnet_http_reply;

/** Take a request, which is borrowed until its reply is sent or ended; that may happen in here or, where the
 * reply is kept, later. Called from n_threads threads. */
typedef void linnet_http_server_fn(void *context, const linnet_http_request *request,
                                   linnet_http_reply *reply);

typedef struct linnet_http_server_options {
    const char *listen; /* "127.0.0.1:8440", "[::1]:8440", port 0: any free one */
    unsigned n_threads, n_connections_max, idle_timeout_s;
    size_t n_body_max;
    /* A body longer than n_body_max and no longer than this is read and dropped before it is refused, so that
     * a sender that does not listen meanwhile learns why. */
    size_t n_body_dropped_max;
    /* What a refusal says that the server itself makes (400, 404, 405, 413, 503); NULL: nothing. */
    void (*explain)(void *context, int status, linnet_http_response *response);
} linnet_http_server_options;

/** EXISTS/IO with the address in the message where the port is in use. */
linnet_status linnet_http_server_start(const linnet_http_server_options *options,
                                       linnet_http_server_fn *handler, void *context,
                                       linnet_http_server **ret_server, linnet_error *err) LINNET_NODISCARD;
unsigned linnet_http_server_port(const linnet_http_server *server);
/** Stops accepting, waits until no reply is owed, then for peers to read theirs, at most ten seconds, and
 * returns. */
void linnet_http_server_stop(linnet_http_server *server);

/** The whole answer, whose body moves. The reply is gone. */
void linnet_http_reply_send(linnet_http_reply *reply, linnet_http_response *response);
/** The head of an answer that grows: status and content_type of a response, whose body moves and comes first.
 */
void linnet_http_reply_begin(linnet_http_reply *reply, linnet_http_response *response);
/** More of it. Never waits: what the peer has not read is kept. false: it will not come to be read. */
bool linnet_http_reply_write(linnet_http_reply *reply, const void *bytes, size_t n_bytes);
/** Bytes written that the network has not taken yet. */
size_t linnet_http_reply_backlog(linnet_http_reply *reply);
/** Has the peer closed the connection? Also tells before the answer has begun. */
bool linnet_http_reply_is_gone(linnet_http_reply *reply);
/** No more comes. The reply is gone. */
void linnet_http_reply_end(linnet_http_reply *reply);
/** The same in the middle of an answer: the peer sees that it is not whole. */
void linnet_http_reply_break_off(linnet_http_reply *reply);

#endif
