/* SPDX-License-Identifier: Apache-2.0 */
/* One accepting thread, one thread a connection, blocking sockets with a time-out. Enough HTTP for our own
 * client and server: a head, a Content-Length, no other framing. */
#include "relay.h"

#include "linnet/rng.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define MESSAGE_MAX ((size_t)1 << 20)
#define CONNECTIONS_MAX 256
#define ALTER_ONE_IN 5

typedef struct record {
    char path[128];
    linnet_buffer bytes; /* owned */
} record;

struct relay {
    int listen_fd, port, to_port;
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_t workers[CONNECTIONS_MAX];
    int fds[CONNECTIONS_MAX];
    size_t n_workers, n_records, n_proxied;
    record records[RELAY_RECORDS_MAX];
    char lost_path[128], altered_path[128], swallowed_path[128];
    int n_lost, n_swallowed;
    bool alters_some;
    linnet_rng dice;
    size_t n_repeats, n_repeated, n_failures;
    linnet_buffer canned; /* borrowed bytes */
};

typedef struct job {
    relay *relay;
    int fd;
} job;

/* What becomes of one request. */
typedef struct treatment {
    bool is_lost, is_swallowed, is_answer_altered, is_repeated;
} treatment;

/* ---- messages ---- */

size_t relay_body_offset(const linnet_buffer *m)
{
    for (size_t i = 0; i + 4 <= m->n_bytes; i++)
        if (memcmp(m->bytes + i, "\r\n\r\n", 4) == 0)
            return i + 4;
    return 0;
}

static size_t content_length(const linnet_buffer *m, size_t n_head)
{
    static const char name[] = "content-length:";
    for (size_t i = 0; i + sizeof(name) < n_head; i++)
        if (m->bytes[i] == '\n' && strncasecmp((const char *)m->bytes + i + 1, name, sizeof(name) - 1) == 0)
            return (size_t)strtoul((const char *)m->bytes + i + sizeof(name), NULL, 10);
    return 0;
}

/* One whole message from a socket; false at its end or after anything that is none. */
static bool receive(int fd, linnet_buffer *m)
{
    size_t n_head = 0, wanted = 0;
    linnet_buffer_clear(m);
    while (n_head == 0 || m->n_bytes < wanted) {
        if (m->n_bytes > MESSAGE_MAX || !linnet_buffer_reserve(m, 65536))
            return false;
        size_t n = n_head == 0 ? 1 : wanted - m->n_bytes; /* never into the next message */
        ssize_t got = recv(fd, m->bytes + m->n_bytes, n < 65536 ? n : 65536, 0);
        if (got <= 0)
            return false;
        m->n_bytes += (size_t)got;
        if (n_head == 0 && m->n_bytes >= 4 && memcmp(m->bytes + m->n_bytes - 4, "\r\n\r\n", 4) == 0) {
            n_head = m->n_bytes;
            wanted = n_head + content_length(m, n_head);
        }
    }
    return true;
}

static bool send_all(int fd, const linnet_buffer *m)
{
    for (size_t at = 0; at < m->n_bytes;) {
        ssize_t sent = send(fd, m->bytes + at, m->n_bytes - at, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        at += (size_t)sent;
    }
    return true;
}

/* "POST http://host:port/path HTTP/1.1" becomes "POST /path HTTP/1.1"; true where it was so. */
static bool make_origin_form(linnet_buffer *m)
{
    uint8_t *space = memchr(m->bytes, ' ', m->n_bytes);
    size_t at = space ? (size_t)(space - m->bytes) + 1 : m->n_bytes;
    if (m->n_bytes < at + 7 || memcmp(m->bytes + at, "http://", 7) != 0)
        return false;
    const uint8_t *slash = memchr(m->bytes + at + 7, '/', m->n_bytes - at - 7);
    if (!slash)
        return false;
    size_t n_cut = (size_t)(slash - m->bytes) - at;
    memmove(m->bytes + at, slash, m->n_bytes - at - n_cut);
    m->n_bytes -= n_cut;
    return true;
}

static void path_of(const linnet_buffer *m, char path[128])
{
    const char *text = (const char *)m->bytes, *space = memchr(text, ' ', m->n_bytes);
    const char *end = space ? memchr(space + 1, ' ', m->n_bytes - (size_t)(space + 1 - text)) : NULL;
    (void)snprintf(path, 128, "%.*s", end ? (int)(end - space - 1) : 0, end ? space + 1 : "");
}

/* ---- one connection ---- */

static int dial_upstream(int port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        (void)close(fd);
        fd = -1;
    }
    return fd;
}

static void flip_body(linnet_buffer *m)
{
    size_t n_head = relay_body_offset(m);
    if (m->n_bytes > n_head)
        m->bytes[n_head + (m->n_bytes - n_head) / 2] ^= 1;
}

/* Keep a copy; alter the body if asked. */
static treatment note_request(relay *r, linnet_buffer *m, bool was_proxied)
{
    char path[128];
    treatment t = {0};
    path_of(m, path);
    bool is_sealed = strncmp((const char *)m->bytes, "POST ", 5) == 0;
    (void)pthread_mutex_lock(&r->lock);
    r->n_proxied += was_proxied;
    if (r->n_records < RELAY_RECORDS_MAX) {
        record *copy = &r->records[r->n_records++];
        (void)snprintf(copy->path, sizeof(copy->path), "%s", path);
        linnet_buffer_append(&copy->bytes, m->bytes, m->n_bytes);
    }
    t.is_lost = r->n_lost > 0 && strcmp(r->lost_path, path) == 0;
    r->n_lost -= t.is_lost;
    t.is_swallowed = r->n_swallowed > 0 && strcmp(r->swallowed_path, path) == 0;
    r->n_swallowed -= t.is_swallowed;
    uint64_t fate = is_sealed && r->alters_some ? linnet_rng_below(&r->dice, ALTER_ONE_IN) : 2;
    if (strcmp(r->altered_path, path) == 0 || fate == 0)
        flip_body(m);
    t.is_answer_altered = fate == 1;
    t.is_repeated = is_sealed && r->n_repeats > 0;
    (void)pthread_mutex_unlock(&r->lock);
    return t;
}

/* The i-th newest sealed request, copied; false: there are not so many. */
static bool newest_request(relay *r, size_t i, linnet_buffer *ret_copy)
{
    bool is_there = false;
    linnet_buffer_clear(ret_copy);
    (void)pthread_mutex_lock(&r->lock);
    for (size_t j = r->n_records; j > 0 && i < r->n_repeats && !is_there; j--) {
        const linnet_buffer *bytes = &r->records[j - 1].bytes;
        if (strncmp((const char *)bytes->bytes, "POST ", 5) != 0 || i-- > 0)
            continue;
        linnet_buffer_append(ret_copy, bytes->bytes, bytes->n_bytes);
        is_there = !ret_copy->failed;
    }
    (void)pthread_mutex_unlock(&r->lock);
    return is_there;
}

/* Send again what came last; whatever is answered, it goes nowhere. */
static bool repeat(relay *r, int up)
{
    linnet_buffer copy = {0}, answer = {0};
    bool is_up = true;
    for (size_t i = 0; is_up && newest_request(r, i, &copy); i++) {
        is_up = send_all(up, &copy) && receive(up, &answer);
        bool is_good = is_up && answer.n_bytes > 9 && answer.bytes[9] != '5';
        (void)pthread_mutex_lock(&r->lock);
        r->n_failures += !is_good;
        r->n_repeated++;
        (void)pthread_mutex_unlock(&r->lock);
    }
    linnet_buffer_release(&copy);
    linnet_buffer_release(&answer);
    return is_up;
}

static linnet_buffer canned_answer(relay *r)
{
    (void)pthread_mutex_lock(&r->lock);
    linnet_buffer canned = r->canned;
    (void)pthread_mutex_unlock(&r->lock);
    return canned;
}

static void *serve_connection(void *context)
{
    job *j = context;
    linnet_buffer m = {0};
    int up = dial_upstream(j->relay->to_port);
    while (up >= 0 && receive(j->fd, &m)) {
        bool was_proxied = make_origin_form(&m);
        const treatment t = note_request(j->relay, &m, was_proxied);
        if (t.is_swallowed) {
            (void)receive(j->fd, &m); /* until the peer hangs up, or the test ends */
            break;
        }
        linnet_buffer canned = canned_answer(j->relay);
        if (canned.bytes) {
            (void)send_all(j->fd, &canned); /* whoever has read enough may hang up */
            break;
        }
        if (!send_all(up, &m) || !receive(up, &m) || t.is_lost)
            break;
        if (t.is_answer_altered)
            flip_body(&m);
        if (!send_all(j->fd, &m) || (t.is_repeated && !repeat(j->relay, up)))
            break;
    }
    linnet_buffer_release(&m);
    if (up >= 0)
        (void)close(up);
    (void)shutdown(j->fd, SHUT_RDWR); /* closed by relay_stop, which may be using it */
    free(j);
    return NULL;
}

static void *accept_all(void *context)
{
    relay *r = context;
    for (;;) {
        int fd = accept(r->listen_fd, NULL, NULL);
        if (fd < 0)
            return NULL; /* shut down by relay_stop */
        job *j = malloc(sizeof(*j));
        (void)pthread_mutex_lock(&r->lock);
        bool has_room = j && r->n_workers < CONNECTIONS_MAX;
        if (has_room) {
            *j = (job){.relay = r, .fd = fd};
            r->fds[r->n_workers] = fd;
            has_room = pthread_create(&r->workers[r->n_workers], NULL, serve_connection, j) == 0;
            r->n_workers += has_room;
        }
        (void)pthread_mutex_unlock(&r->lock);
        if (!has_room) {
            free(j);
            (void)close(fd);
        }
    }
}

/* ---- the relay ---- */

relay *relay_start(int to_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(address);
    relay *r = calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    r->to_port = to_port;
    linnet_rng_init(&r->dice, 7, 1);
    (void)pthread_mutex_init(&r->lock, NULL);
    r->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (r->listen_fd < 0 || bind(r->listen_fd, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(r->listen_fd, 64) != 0 || getsockname(r->listen_fd, (struct sockaddr *)&address, &n) != 0 ||
        pthread_create(&r->thread, NULL, accept_all, r) != 0) {
        free(r);
        return NULL;
    }
    r->port = ntohs(address.sin_port);
    return r;
}

void relay_stop(relay *r)
{
    (void)shutdown(r->listen_fd, SHUT_RDWR);
    (void)pthread_join(r->thread, NULL);
    for (size_t i = 0; i < r->n_workers; i++) {
        (void)shutdown(r->fds[i], SHUT_RDWR);
        (void)pthread_join(r->workers[i], NULL);
        (void)close(r->fds[i]);
    }
    (void)close(r->listen_fd);
    for (size_t i = 0; i < r->n_records; i++)
        linnet_buffer_release(&r->records[i].bytes);
    (void)pthread_mutex_destroy(&r->lock);
    free(r);
}

int relay_port(const relay *r)
{
    return r->port;
}

void relay_lose_answers(relay *r, const char *path, int n)
{
    (void)pthread_mutex_lock(&r->lock);
    (void)snprintf(r->lost_path, sizeof(r->lost_path), "%s", path);
    r->n_lost = n;
    (void)pthread_mutex_unlock(&r->lock);
}

void relay_swallow(relay *r, const char *path, int n)
{
    (void)pthread_mutex_lock(&r->lock);
    (void)snprintf(r->swallowed_path, sizeof(r->swallowed_path), "%s", path);
    r->n_swallowed = n;
    (void)pthread_mutex_unlock(&r->lock);
}

int relay_n_to_swallow(relay *r)
{
    (void)pthread_mutex_lock(&r->lock);
    int n = r->n_swallowed;
    (void)pthread_mutex_unlock(&r->lock);
    return n;
}

void relay_alter(relay *r, const char *path)
{
    (void)pthread_mutex_lock(&r->lock);
    (void)snprintf(r->altered_path, sizeof(r->altered_path), "%s", path ? path : "");
    (void)pthread_mutex_unlock(&r->lock);
}

void relay_alter_some(relay *r, bool does)
{
    (void)pthread_mutex_lock(&r->lock);
    r->alters_some = does;
    (void)pthread_mutex_unlock(&r->lock);
}

void relay_repeat(relay *r, size_t n_newest)
{
    (void)pthread_mutex_lock(&r->lock);
    r->n_repeats = n_newest;
    (void)pthread_mutex_unlock(&r->lock);
}

size_t relay_n_failures(relay *r)
{
    (void)pthread_mutex_lock(&r->lock);
    size_t n = r->n_failures;
    (void)pthread_mutex_unlock(&r->lock);
    return n;
}

size_t relay_n_repeated(relay *r)
{
    (void)pthread_mutex_lock(&r->lock);
    size_t n = r->n_repeated;
    (void)pthread_mutex_unlock(&r->lock);
    return n;
}

void relay_answer(relay *r, const void *bytes, size_t n_bytes)
{
    (void)pthread_mutex_lock(&r->lock);
    r->canned = (linnet_buffer){.bytes = (uint8_t *)(uintptr_t)bytes, .n_bytes = n_bytes};
    (void)pthread_mutex_unlock(&r->lock);
}

size_t relay_n_requests(relay *r)
{
    (void)pthread_mutex_lock(&r->lock);
    size_t n = r->n_records;
    (void)pthread_mutex_unlock(&r->lock);
    return n;
}

size_t relay_n_proxied(relay *r)
{
    (void)pthread_mutex_lock(&r->lock);
    size_t n = r->n_proxied;
    (void)pthread_mutex_unlock(&r->lock);
    return n;
}

const linnet_buffer *relay_request(relay *r, const char *path, size_t i)
{
    const linnet_buffer *found = NULL;
    (void)pthread_mutex_lock(&r->lock);
    for (size_t j = 0; j < r->n_records && !found; j++)
        if (strcmp(r->records[j].path, path) == 0 && i-- == 0)
            found = &r->records[j].bytes;
    (void)pthread_mutex_unlock(&r->lock);
    return found;
}
