/* SPDX-License-Identifier: Apache-2.0 */
/* libmicrohttpd behind transport.h, and the only file that knows it. One thread runs its epoll loop and
 * collects bodies into bounded buffers; a request that is complete is suspended and put into a queue, where
 * worker threads take it: a handler may wait for an fsync, and a slow callback would stall every connection
 * of the loop. The worker leaves the answer with the request and resumes the connection, whose next callback
 * queues it.
 *
 * libmicrohttpd 0.9.75 parses leniently (DEPENDENCIES.md, section 1), so the first callback refuses, with 400
 * and a closed connection, what two parsers could read differently: Transfer-Encoding, a POST without exactly
 * one plain Content-Length, another HTTP version than 1.1, a header name with a space. (A bare LF as line end
 * cannot be seen from here; without a second parser's disagreement on lengths it smuggles nothing.) Nothing
 * is ever decided from the connection or from headers: every request inside is signed. */
#include "linnet/transport.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <microhttpd.h>

#define CONNECTION_MEMORY ((size_t)32 << 10) /* per connection: headers and one read */
#define QUEUE_FACTOR 64                      /* requests that may wait for each worker before load is shed */
#define SHED_RETRY_S 10
#define STOP_SECONDS 10 /* a peer that does not read its answer is not waited for longer */

typedef struct exchange {
    struct MHD_Connection *connection;
    char method[8], path[256];
    uint64_t range_first;
    size_t n_expected;
    linnet_buffer body;
    linnet_http_response response;
    int refusal; /* HTTP status of a request that is not handed on; 0: none */
    bool was_queued, is_answered;
    struct exchange *next;
} exchange;

struct linnet_server {
    struct MHD_Daemon *daemon;
    linnet_server_fn *handler;
    void *context;
    size_t n_body_max, n_queue_max;
    unsigned port;
    pthread_t *workers; /* owned */
    unsigned n_workers;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t work, idle;
    exchange *first, **last;
    size_t n_queued, n_in_flight; /* waiting for a worker; taken and not yet answered on the wire */
    bool is_closing, is_stopping; /* takes nothing new; workers end */
};

/* ---- the lenient parser's leftovers ---- */

typedef struct header_check {
    unsigned n_lengths;
    bool is_bad;
    size_t length;
} header_check;

static bool parse_length(const char *text, size_t *ret_length)
{
    size_t length = 0;
    if (!*text || strlen(text) > 12)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        if (length > (SIZE_MAX - 9) / 10)
            return false;
        length = length * 10 + (size_t)(*text - '0');
    }
    *ret_length = length;
    return true;
}

static enum MHD_Result check_header(void *context, enum MHD_ValueKind kind, const char *name,
                                    const char *value)
{
    header_check *check = context;
    (void)kind;
    if (strpbrk(name, " \t\r\n") || !value || strpbrk(value, "\r\n"))
        check->is_bad = true;
    else if (strcasecmp(name, "Transfer-Encoding") == 0)
        check->is_bad = true;
    else if (strcasecmp(name, "Content-Length") == 0) {
        check->n_lengths++;
        check->is_bad = check->is_bad || !parse_length(value, &check->length);
    }
    return MHD_YES;
}

/* "bytes=FIRST-" or "bytes=FIRST-LAST"; anything else starts from 0, as RFC 9110 lets a server do. */
static uint64_t parse_range(const char *value)
{
    uint64_t first = 0;
    if (!value || strncmp(value, "bytes=", 6) != 0)
        return 0;
    const char *p = value + 6;
    for (; *p >= '0' && *p <= '9' && first < ((uint64_t)1 << 50); p++)
        first = first * 10 + (uint64_t)(*p - '0');
    return p > value + 6 && *p == '-' ? first : 0;
}

/* 0, or the status with which a request is refused on sight of its headers. */
static int headers_refusal(const linnet_server *server, exchange *x, const char *method, const char *version)
{
    header_check check = {0};
    (void)MHD_get_connection_values(x->connection, MHD_HEADER_KIND, check_header, &check);
    bool has_body = strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0;
    if (check.is_bad || strcmp(version, "HTTP/1.1") != 0 || check.n_lengths > 1 ||
        (has_body && check.n_lengths != 1) || (!has_body && check.length != 0))
        return 400;
    if (strlen(method) >= sizeof(x->method))
        return 405;
    if (check.length > server->n_body_max)
        return 413;
    x->n_expected = check.length;
    return 0;
}

/* ---- answers ---- */

static enum MHD_Result answer(struct MHD_Connection *connection, const linnet_http_response *response,
                              bool must_close)
{
    char text[16];
    struct MHD_Response *r =
        MHD_create_response_from_buffer(response->body.n_bytes, response->body.bytes, MHD_RESPMEM_MUST_COPY);
    if (!r)
        return MHD_NO;
    (void)MHD_add_response_header(r, "Content-Type", "application/octet-stream");
    if (response->retry_after_s > 0) {
        (void)snprintf(text, sizeof(text), "%u", (unsigned)response->retry_after_s);
        (void)MHD_add_response_header(r, "Retry-After", text);
    }
    if (must_close)
        (void)MHD_add_response_header(r, "Connection", "close");
    enum MHD_Result result = MHD_queue_response(connection, (unsigned)response->status, r);
    MHD_destroy_response(r);
    return result;
}

static enum MHD_Result refuse(struct MHD_Connection *connection, int status)
{
    linnet_http_response response = {.status = status, .retry_after_s = status == 503 ? SHED_RETRY_S : 0};
    return answer(connection, &response, true);
}

/* ---- the queue ---- */

/* False where too many wait already. */
static bool enqueue(linnet_server *server, exchange *x)
{
    (void)pthread_mutex_lock(&server->lock);
    bool has_room = server->n_queued < server->n_queue_max && !server->is_closing;
    if (has_room) {
        x->was_queued = true;
        MHD_suspend_connection(x->connection); /* before a worker can resume it */
        *server->last = x;
        server->last = &x->next;
        server->n_queued++;
        server->n_in_flight++;
        (void)pthread_cond_signal(&server->work);
    }
    (void)pthread_mutex_unlock(&server->lock);
    return has_room;
}

static void serve_one(linnet_server *server, exchange *x)
{
    linnet_http_request request = {.method = x->method,
                                   .path = x->path,
                                   .body = x->body.bytes,
                                   .n_body = x->body.n_bytes,
                                   .range_first = x->range_first};
    server->handler(server->context, &request, &x->response);
    x->is_answered = true;
    MHD_resume_connection(x->connection);
}

static void *work(void *context)
{
    linnet_server *server = context;
    (void)pthread_mutex_lock(&server->lock);
    for (;;) {
        while (!server->first && !server->is_stopping)
            (void)pthread_cond_wait(&server->work, &server->lock);
        exchange *x = server->first;
        if (!x)
            break;
        server->first = x->next;
        if (!server->first)
            server->last = &server->first;
        server->n_queued--;
        (void)pthread_mutex_unlock(&server->lock);
        serve_one(server, x);
        (void)pthread_mutex_lock(&server->lock);
    }
    (void)pthread_mutex_unlock(&server->lock);
    return NULL;
}

/* ---- libmicrohttpd's callbacks ---- */

static enum MHD_Result first_sight(linnet_server *server, struct MHD_Connection *connection, const char *path,
                                   const char *method, const char *version, void **state)
{
    exchange *x = calloc(1, sizeof(*x));
    if (!x)
        return MHD_NO;
    *state = x;
    x->connection = connection;
    x->refusal = headers_refusal(server, x, method, version);
    if (x->refusal == 0 && strlen(path) >= sizeof(x->path))
        x->refusal = 404;
    if (x->refusal != 0)
        return refuse(connection, x->refusal);
    (void)snprintf(x->method, sizeof(x->method), "%s", method);
    (void)snprintf(x->path, sizeof(x->path), "%s", path);
    x->range_first = parse_range(MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Range"));
    return MHD_YES;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *bytes, size_t *n_bytes,
                                  void **state)
{
    linnet_server *server = context;
    exchange *x = *state;
    if (!x)
        return first_sight(server, connection, path, method, version, state);
    if (*n_bytes > 0) {
        size_t n = *n_bytes;
        *n_bytes = 0;
        if (x->refusal == 0 && n > x->n_expected - x->body.n_bytes)
            return MHD_NO;
        if (x->refusal == 0)
            linnet_buffer_append(&x->body, bytes, n);
        return x->body.failed ? MHD_NO : MHD_YES;
    }
    if (x->is_answered)
        return answer(connection, &x->response, false);
    if (x->was_queued || x->refusal != 0)
        return MHD_YES;
    return enqueue(server, x) ? MHD_YES : refuse(connection, 503);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode code)
{
    linnet_server *server = context;
    exchange *x = *state;
    (void)connection;
    (void)code;
    if (!x)
        return;
    (void)pthread_mutex_lock(&server->lock);
    if (x->was_queued && --server->n_in_flight == 0)
        (void)pthread_cond_broadcast(&server->idle);
    (void)pthread_mutex_unlock(&server->lock);
    linnet_buffer_release(&x->body);
    linnet_http_response_release(&x->response);
    free(x);
    *state = NULL;
}

/* libmicrohttpd writes to stderr on its own otherwise. */
static void on_log(void *context, const char *format, va_list arguments)
{
    (void)context;
    (void)format;
    (void)arguments;
}

/* The path as sent: no decoding of %XX, which no path of ours needs. */
static size_t keep_escapes(void *context, struct MHD_Connection *connection, char *text)
{
    (void)context;
    (void)connection;
    return strlen(text);
}

/* ---- addresses ---- */

/* "host:port" or "[v6]:port" into its parts. */
static linnet_status address_split(const char *listen_text, char host[256], char port[8], linnet_error *err)
{
    const char *colon = strrchr(listen_text, ':');
    size_t n_host = colon ? (size_t)(colon - listen_text) : 0, n_port = colon ? strlen(colon + 1) : 0;
    const char *start = listen_text;
    if (n_host >= 2 && start[0] == '[' && start[n_host - 1] == ']') {
        start++;
        n_host -= 2;
    }
    if (n_host == 0 || n_host >= 256 || n_port == 0 || n_port > 5 ||
        strspn(colon + 1, "0123456789") != n_port || atoi(colon + 1) > 65535)
        return linnet_fail(
            err, LINNET_ERR_ARG,
            "'%s' is no address to listen on: write HOST:PORT, such as 127.0.0.1:8440 or [::1]:8440",
            listen_text);
    memcpy(host, start, n_host);
    host[n_host] = '\0';
    memcpy(port, colon + 1, n_port + 1);
    return LINNET_OK;
}

static linnet_status listen_fail(const char *listen_text, linnet_error *err)
{
    if (errno == EADDRINUSE)
        return linnet_fail(err, LINNET_ERR_EXISTS,
                           "%s is in use by another program: choose another address with --listen",
                           listen_text);
    return linnet_fail_errno(err, errno, "cannot listen on %s", listen_text);
}

static unsigned port_of(int fd)
{
    struct sockaddr_storage address;
    socklen_t n = sizeof(address);
    if (getsockname(fd, (struct sockaddr *)&address, &n) != 0)
        return 0;
    if (address.ss_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, &address, sizeof(v6));
        return ntohs(v6.sin6_port);
    }
    struct sockaddr_in v4;
    memcpy(&v4, &address, sizeof(v4));
    return ntohs(v4.sin_port);
}

static linnet_status socket_listen(const char *listen_text, int *ret_fd, linnet_error *err)
{
    char host[256], port[8];
    struct addrinfo *found = NULL,
                    hints = {.ai_flags = AI_NUMERICSERV | AI_PASSIVE, .ai_socktype = SOCK_STREAM};
    linnet_status status = address_split(listen_text, host, port, err);
    if (status != LINNET_OK)
        return status;
    int rc = getaddrinfo(host, port, &hints, &found);
    if (rc != 0)
        return linnet_fail(err, LINNET_ERR_ARG, "cannot listen on %s: %s", listen_text, gai_strerror(rc));
    int fd = socket(found->ai_family, found->ai_socktype | SOCK_CLOEXEC, found->ai_protocol), on = 1;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 1024) != 0) {
        status = listen_fail(listen_text, err);
        if (fd >= 0)
            (void)close(fd); /* nothing was sent on it */
        fd = -1;
    }
    freeaddrinfo(found);
    *ret_fd = fd;
    return status;
}

/* ---- starting and stopping ---- */

static void workers_stop(linnet_server *server)
{
    (void)pthread_mutex_lock(&server->lock);
    server->is_stopping = true;
    (void)pthread_cond_broadcast(&server->work);
    (void)pthread_mutex_unlock(&server->lock);
    for (unsigned i = 0; i < server->n_workers; i++)
        (void)pthread_join(server->workers[i], NULL);
}

static void server_free(linnet_server *server)
{
    (void)pthread_mutex_destroy(&server->lock);
    (void)pthread_cond_destroy(&server->work);
    (void)pthread_cond_destroy(&server->idle);
    free(server->workers);
    free(server);
}

static linnet_status server_create(const linnet_server_options *options, linnet_server_fn *handler,
                                   void *context, linnet_server **ret_server, linnet_error *err)
{
    unsigned n_threads = options->n_threads ? options->n_threads : 1;
    linnet_server *server = calloc(1, sizeof(*server));
    if (server)
        server->workers = calloc(n_threads, sizeof(*server->workers));
    if (!server || !server->workers) {
        free(server);
        return linnet_fail(err, LINNET_ERR_NOMEM, "HTTP server");
    }
    server->handler = handler;
    server->context = context;
    server->n_body_max = options->n_body_max;
    server->n_queue_max = (size_t)n_threads * QUEUE_FACTOR;
    server->last = &server->first;
    (void)pthread_mutex_init(&server->lock, NULL); /* default attributes: cannot fail on Linux */
    (void)pthread_cond_init(&server->work, NULL);
    (void)pthread_cond_init(&server->idle, NULL);
    for (; server->n_workers < n_threads; server->n_workers++)
        if (pthread_create(&server->workers[server->n_workers], NULL, work, server) != 0)
            break;
    if (server->n_workers == 0) {
        server_free(server);
        return linnet_fail(err, LINNET_ERR_NOMEM, "threads of the HTTP server");
    }
    *ret_server = server;
    return LINNET_OK;
}

linnet_status linnet_server_start(const linnet_server_options *options, linnet_server_fn *handler,
                                  void *context, linnet_server **ret_server, linnet_error *err)
{
    int fd = -1;
    linnet_server *server = NULL;
    linnet_status status = socket_listen(options->listen, &fd, err);
    if (status != LINNET_OK)
        return status;
    status = server_create(options, handler, context, &server, err);
    if (status != LINNET_OK) {
        (void)close(fd);
        return status;
    }
    server->port = port_of(fd);
    unsigned flags =
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC | MHD_USE_ERROR_LOG;
    server->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, server, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED, on_completed, server,
        MHD_OPTION_CONNECTION_LIMIT, options->n_connections_max, MHD_OPTION_CONNECTION_TIMEOUT,
        options->idle_timeout_s, MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_END);
    if (!server->daemon) {
        (void)close(fd);
        workers_stop(server);
        server_free(server);
        return linnet_fail(err, LINNET_ERR_IO, "the HTTP server does not start on %s", options->listen);
    }
    *ret_server = server;
    return LINNET_OK;
}

unsigned linnet_server_port(const linnet_server *server)
{
    return server->port;
}

void linnet_server_stop(linnet_server *server)
{
    if (!server)
        return;
    struct timespec until;
    int fd = MHD_quiesce_daemon(server->daemon);
    (void)clock_gettime(CLOCK_REALTIME, &until); /* always there on Linux */
    until.tv_sec += STOP_SECONDS;
    (void)pthread_mutex_lock(&server->lock);
    server->is_closing = true;
    while (server->n_in_flight > 0 && pthread_cond_timedwait(&server->idle, &server->lock, &until) == 0)
        continue;
    (void)pthread_mutex_unlock(&server->lock);
    workers_stop(server);
    MHD_stop_daemon(server->daemon); /* closes what is left: idle connections, peers that do not read */
    if (fd != MHD_INVALID_SOCKET)
        (void)close(fd);
    server_free(server);
}
