/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_TRANSPORT_H
#define LINNET_TRANSPORT_H

/* The network side of the coordinator behind four calls, so that another HTTP server can replace
 * libmicrohttpd. Bodies are streamed into a bounded buffer; a request that is not plain HTTP/1.1 with exactly
 * one Content-Length is refused. */

#include "linnet/http.h"

typedef struct linnet_server linnet_server;
typedef void linnet_server_fn(void *context, const linnet_http_request *request,
                              linnet_http_response *ret_response);

typedef struct linnet_server_options {
    const char *listen; /* "127.0.0.1:8440", "[::1]:8440", port 0: any free one */
    unsigned n_threads, n_connections_max, idle_timeout_s;
    size_t n_body_max;
} linnet_server_options;
/** EXISTS/IO with the address in the message where the port is in use. handler is called from n_threads
 * threads. */
linnet_status linnet_server_start(const linnet_server_options *options, linnet_server_fn *handler,
                                  void *context, linnet_server **ret_server,
                                  linnet_error *err) LINNET_NODISCARD;
unsigned linnet_server_port(const linnet_server *server);
/** Stops accepting, lets requests in flight finish, then returns. */
void linnet_server_stop(linnet_server *server);

#endif
