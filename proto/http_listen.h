/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_PROTO_HTTP_LISTEN_H
#define LINNET_PROTO_HTTP_LISTEN_H

/* Inside of the HTTP server: its socket. */

#include "linnet/bytes.h"

/** Listen on "HOST:PORT" or "[v6]:PORT"; the caller closes *ret_fd. ARG for what is no address, EXISTS where
 * it is in use, each with the address in the message. */
linnet_status http_listen(const char *listen_text, int *ret_fd, linnet_error *err) LINNET_NODISCARD;
/** The port that a socket is bound to; 0: unknown. */
unsigned http_port_of(int fd);

#endif
