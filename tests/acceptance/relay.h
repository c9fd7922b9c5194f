/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_TESTS_RELAY_H
#define LINNET_TESTS_RELAY_H

/* An HTTP relay on loopback, in a thread of the test: stands where a proxy or an eavesdropper stands.
 * Requests may name a path (the relay is the server's address) or a whole URL (the relay is an http_proxy).
 * It keeps a copy of every request, may lose answers, and may alter requests on their way. */

#include "linnet/bytes.h"

#include <stdbool.h>
#include <stddef.h>

#define RELAY_RECORDS_MAX 1024

typedef struct relay relay;

/** Relay to a port of loopback. */
relay *relay_start(int to_port);
void relay_stop(relay *r);
int relay_port(const relay *r);

/** The next n answers to requests with this path are not passed on: the connection closes. */
void relay_lose_answers(relay *r, const char *path, int n);
/** The next n requests to this path are swallowed: no answer, and the connection stays open. */
void relay_swallow(relay *r, const char *path, int n);
/** How many of them are to come yet. */
int relay_n_to_swallow(relay *r);
/** From now on flip one bit in the middle of every body that goes to this path (NULL: no more). */
void relay_alter(relay *r, const char *path);
/** From now on flip one bit in the middle of every fifth sealed request, drawn from a fixed seed, and of
 * every fifth answer to one. */
void relay_alter_some(relay *r, bool does);
/** From now on pass on every sealed request, and then send the server once more this many of the newest that
 * came, itself and others', whose answers go nowhere. */
void relay_repeat(relay *r, size_t n_newest);
size_t relay_n_repeated(relay *r);
/** How many answers to what was sent once more said that the server failed (5xx), or did not come. */
size_t relay_n_failures(relay *r);
/** From now on answer every request with these bytes and close (NULL: no more); borrowed until then. */
void relay_answer(relay *r, const void *bytes, size_t n_bytes);

size_t relay_n_requests(relay *r);
/** How many named a whole URL. */
size_t relay_n_proxied(relay *r);
/** Request i whose path is this, from its first byte to its last; borrowed until relay_stop. NULL: no more.
 */
const linnet_buffer *relay_request(relay *r, const char *path, size_t i);
/** Where the body begins. */
size_t relay_body_offset(const linnet_buffer *request);

#endif
