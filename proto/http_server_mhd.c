/* SPDX-License-Identifier: Apache-2.0 */
/* libmicrohttpd behind http_server.h, and the only file that knows it. One thread runs its epoll loop and
 * collects bodies into bounded buffers; a request that is complete is suspended and put into a queue, where
 * worker threads take it: a handler may wait for an fsync, and a slow callback would stall every connection
 * of the loop. Whoever has the reply leaves the answer with it and resumes the connection, whose next
 * callback queues it. An answer that grows is read by a callback that suspends the connection where nothing
 * is there.
 *
 * libmicrohttpd 0.9.75 parses leniently (DEPENDENCIES.md, section 1), so the first callback refuses, with 400
 * and a closed connection, what two parsers could read differently: Transfer-Encoding, a POST without exactly
 * one plain Content-Length, another HTTP version than 1.1, a header name with a space. (A bare LF as line end
 * cannot be seen from here; without a second parser's disagreement on lengths it smuggles nothing.)
 *
 * A reply belongs to two: the connection, until libmicrohttpd says that it is over, and whoever owes the
 * answer, until it is sent or ended. The later one frees it. */
#include "linnet/http_server.h"

#include "http_listen.h"

#include <errno.h>
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
#define STOP_SECONDS 10                 /* a peer that does not read its answer is not waited for longer */
#define STREAM_BLOCK ((size_t)16 << 10) /* bytes of a growing answer that are asked for at once */
#define STREAM_KEEP ((size_t)64 << 10)  /* read bytes in front of unread ones, before these are moved */

typedef enum reply_state { REPLY_OWED, REPLY_WHOLE, REPLY_GROWING } reply_state;

struct linnet_http_reply {
    linnet_http_server *server;
    struct MHD_Connection *connection;
    int fd; /* the connection's; -1: unknown */
    char method[8], path[256];
    char *host, *content_type, *authorization; /* owned */
    uint64_t range_first;
    size_t n_expected;
    linnet_buffer body;
    int refusal; /* HTTP status of a request that is not handed on; 0: none */
    bool was_queued;
    struct linnet_http_reply *next;
    /* Guarded by the server's lock. */
    reply_state state;
    linnet_http_response response; /* of a growing one, the body is what comes next */
    size_t n_read;                 /* bytes of a growing body that the network has */
    bool is_waiting;               /* suspended until there is more */
    bool is_ended, is_over;        /* for who owed it; for the connection */
};

struct linnet_http_server {
    struct MHD_Daemon *daemon;
    linnet_http_server_fn *handler;
    void *context;
    linnet_http_server_options options;
    size_t n_queue_max;
    unsigned port;
    pthread_t *workers; /* owned */
    unsigned n_workers;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t work, idle;
    linnet_http_reply *first, **last;
    size_t n_queued, n_owed, n_in_flight; /* waiting for a worker; not ended; not over on the wire */
    bool is_closing, is_stopping;         /* takes nothing new; workers end */
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
static int headers_refusal(const linnet_http_server *server, linnet_http_reply *x, const char *method,
                           const char *version)
{
    header_check check = {0};
    (void)MHD_get_connection_values(x->connection, MHD_HEADER_KIND, check_header, &check);
    bool has_body = strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0;
    if (check.is_bad || strcmp(version, "HTTP/1.1") != 0 || check.n_lengths > 1 ||
        (has_body && check.n_lengths != 1) || (!has_body && check.length != 0))
        return 400;
    if (strlen(method) >= sizeof(x->method))
        return 405;
    x->n_expected = check.length;
    if (check.length > server->options.n_body_max)
        return 413;
    return 0;
}

/* ---- answers ---- */

static void reply_free(linnet_http_reply *x)
{
    linnet_buffer_release(&x->body);
    linnet_http_response_release(&x->response);
    free(x->host);
    free(x->content_type);
    free(x->authorization);
    free(x);
}

static enum MHD_Result queue(struct MHD_Connection *connection, const linnet_http_response *response,
                             struct MHD_Response *r, bool must_close)
{
    char text[16];
    const char *type = response->content_type ? response->content_type : "application/octet-stream";
    if (!r)
        return MHD_NO;
    (void)MHD_add_response_header(r, "Content-Type", type); /* a missing header is seen by its reader */
    if (response->retry_after_s > 0) {
        (void)snprintf(text, sizeof(text), "%u", (unsigned)response->retry_after_s);
        (void)MHD_add_response_header(r, "Retry-After", text);
    }
    if (response->allow)
        (void)MHD_add_response_header(r, "Allow", response->allow);
    if (response->status == 401)
        (void)MHD_add_response_header(r, "WWW-Authenticate", "Bearer");
    if (must_close)
        (void)MHD_add_response_header(r, "Connection", "close");
    enum MHD_Result result = MHD_queue_response(connection, (unsigned)response->status, r);
    MHD_destroy_response(r);
    return result;
}

static enum MHD_Result answer_whole(struct MHD_Connection *connection, const linnet_http_response *response,
                                    bool must_close)
{
    return queue(
        connection, response,
        MHD_create_response_from_buffer(response->body.n_bytes, response->body.bytes, MHD_RESPMEM_MUST_COPY),
        must_close);
}

static enum MHD_Result refuse(linnet_http_server *server, struct MHD_Connection *connection, int status)
{
    linnet_http_response response = {.status = status, .retry_after_s = status == 503 ? SHED_RETRY_S : 0};
    if (server->options.explain)
        server->options.explain(server->context, status, &response);
    enum MHD_Result result = answer_whole(connection, &response, true);
    linnet_http_response_release(&response);
    return result;
}

/* Take up to n_max unread bytes. */
static size_t read_stream(linnet_http_reply *x, char *to, size_t n_max)
{
    linnet_buffer *body = &x->response.body;
    size_t n_left = body->n_bytes - x->n_read, n = n_left < n_max ? n_left : n_max;
    if (n > 0)
        memcpy(to, body->bytes + x->n_read, n);
    x->n_read += n;
    if (n == n_left) {
        linnet_buffer_clear(body);
        x->n_read = 0;
    } else if (x->n_read >= STREAM_KEEP) {
        memmove(body->bytes, body->bytes + x->n_read, n_left - n);
        body->n_bytes = n_left - n;
        x->n_read = 0;
    }
    return n;
}

static ssize_t on_read(void *context, uint64_t position, char *to, size_t n_max)
{
    linnet_http_reply *x = context;
    (void)position;
    (void)pthread_mutex_lock(&x->server->lock);
    ssize_t n = (ssize_t)read_stream(x, to, n_max < STREAM_BLOCK ? n_max : STREAM_BLOCK);
    if (n == 0 && x->response.body.failed) {
        n = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (n == 0 && x->is_ended) {
        n = MHD_CONTENT_READER_END_OF_STREAM;
    } else if (n == 0) {
        x->is_waiting = true;
        MHD_suspend_connection(x->connection);
    }
    (void)pthread_mutex_unlock(&x->server->lock);
    return n;
}

static enum MHD_Result answer(linnet_http_reply *x)
{
    (void)pthread_mutex_lock(&x->server->lock);
    reply_state state = x->state;
    (void)pthread_mutex_unlock(&x->server->lock);
    if (state == REPLY_WHOLE)
        return answer_whole(x->connection, &x->response, false);
    return queue(x->connection, &x->response,
                 MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, on_read, x, NULL), false);
}

/* ---- who owes an answer ---- */

/* With the lock. */
static void end_owing(linnet_http_reply *x)
{
    x->is_ended = true;
    if (--x->server->n_owed == 0)
        (void)pthread_cond_broadcast(&x->server->idle);
}

void linnet_http_reply_send(linnet_http_reply *x, linnet_http_response *response)
{
    linnet_http_server *server = x->server;
    (void)pthread_mutex_lock(&server->lock);
    x->state = REPLY_WHOLE;
    x->response = *response;
    end_owing(x);
    MHD_resume_connection(x->connection); /* not over: it is suspended since it was queued */
    (void)pthread_mutex_unlock(&server->lock);
    response->body = (linnet_buffer){0};
}

void linnet_http_reply_begin(linnet_http_reply *x, linnet_http_response *response)
{
    (void)pthread_mutex_lock(&x->server->lock);
    x->state = REPLY_GROWING;
    x->response = *response;
    MHD_resume_connection(x->connection);
    (void)pthread_mutex_unlock(&x->server->lock);
    response->body = (linnet_buffer){0};
}

/* With the lock: there is something to read. */
static void wake(linnet_http_reply *x)
{
    if (!x->is_waiting || x->is_over)
        return;
    x->is_waiting = false;
    MHD_resume_connection(x->connection);
}

bool linnet_http_reply_write(linnet_http_reply *x, const void *bytes, size_t n_bytes)
{
    (void)pthread_mutex_lock(&x->server->lock);
    bool is_good = !x->is_over;
    if (is_good) {
        linnet_buffer_append(&x->response.body, bytes, n_bytes);
        is_good = !x->response.body.failed;
        wake(x);
    }
    (void)pthread_mutex_unlock(&x->server->lock);
    return is_good;
}

size_t linnet_http_reply_backlog(linnet_http_reply *x)
{
    (void)pthread_mutex_lock(&x->server->lock);
    size_t n = x->is_over ? 0 : x->response.body.n_bytes - x->n_read;
    (void)pthread_mutex_unlock(&x->server->lock);
    return n;
}

bool linnet_http_reply_is_gone(linnet_http_reply *x)
{
    char byte;
    (void)pthread_mutex_lock(&x->server->lock);
    bool is_gone = x->is_over;
    if (!is_gone && x->fd >= 0) { /* open as long as it is not over; a suspended one is not watched */
        ssize_t n = recv(x->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        is_gone = n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
    }
    (void)pthread_mutex_unlock(&x->server->lock);
    return is_gone;
}

static void end(linnet_http_reply *x, bool is_whole)
{
    linnet_http_server *server = x->server;
    (void)pthread_mutex_lock(&server->lock);
    bool is_over = x->is_over;
    x->response.body.failed = x->response.body.failed || !is_whole;
    end_owing(x);
    wake(x);
    (void)pthread_mutex_unlock(&server->lock);
    if (is_over)
        reply_free(x);
}

void linnet_http_reply_end(linnet_http_reply *x)
{
    end(x, true);
}

void linnet_http_reply_break_off(linnet_http_reply *x)
{
    end(x, false);
}

/* ---- the queue ---- */

/* False where too many wait already. */
static bool enqueue(linnet_http_server *server, linnet_http_reply *x)
{
    (void)pthread_mutex_lock(&server->lock);
    bool has_room = server->n_queued < server->n_queue_max && !server->is_closing;
    if (has_room) {
        x->was_queued = true;
        MHD_suspend_connection(x->connection); /* before a worker can resume it */
        *server->last = x;
        server->last = &x->next;
        server->n_queued++;
        server->n_owed++;
        server->n_in_flight++;
        (void)pthread_cond_signal(&server->work);
    }
    (void)pthread_mutex_unlock(&server->lock);
    return has_room;
}

static void serve_one(linnet_http_server *server, linnet_http_reply *x)
{
    linnet_http_request request = {.method = x->method,
                                   .path = x->path,
                                   .body = x->body.bytes,
                                   .n_body = x->body.n_bytes,
                                   .range_first = x->range_first,
                                   .host = x->host,
                                   .content_type = x->content_type,
                                   .authorization = x->authorization};
    server->handler(server->context, &request, x);
}

static void *work(void *context)
{
    linnet_http_server *server = context;
    (void)pthread_mutex_lock(&server->lock);
    for (;;) {
        while (!server->first && !server->is_stopping)
            (void)pthread_cond_wait(&server->work, &server->lock);
        linnet_http_reply *x = server->first;
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

/* A header as an owned string; false on lack of memory. */
static bool keep_header(struct MHD_Connection *connection, const char *name, char **ret_value)
{
    const char *value = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
    *ret_value = value ? strdup(value) : NULL;
    return !value || *ret_value;
}

static int fd_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    return info ? info->connect_fd : -1;
}

static enum MHD_Result first_sight(linnet_http_server *server, struct MHD_Connection *connection,
                                   const char *path, const char *method, const char *version, void **state)
{
    linnet_http_reply *x = calloc(1, sizeof(*x));
    if (!x)
        return MHD_NO;
    *state = x;
    x->server = server;
    x->connection = connection;
    x->fd = fd_of(connection);
    x->refusal = headers_refusal(server, x, method, version);
    if (x->refusal == 0 && strlen(path) >= sizeof(x->path))
        x->refusal = 404;
    if (x->refusal == 413 && x->n_expected <= server->options.n_body_dropped_max)
        return MHD_YES; /* when it is through */
    if (x->refusal != 0)
        return refuse(server, connection, x->refusal);
    (void)snprintf(x->method, sizeof(x->method), "%s", method);
    (void)snprintf(x->path, sizeof(x->path), "%s", path);
    x->range_first = parse_range(MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Range"));
    return keep_header(connection, "Host", &x->host) &&
                   keep_header(connection, "Content-Type", &x->content_type) &&
                   keep_header(connection, "Authorization", &x->authorization)
               ? MHD_YES
               : MHD_NO;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *bytes, size_t *n_bytes,
                                  void **state)
{
    linnet_http_server *server = context;
    linnet_http_reply *x = *state;
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
    if (x->was_queued)
        return answer(x); /* it was resumed, so there is one */
    if (x->refusal == 413)
        return refuse(server, connection, x->refusal);
    if (x->refusal != 0)
        return MHD_YES;
    return enqueue(server, x) ? MHD_YES : refuse(server, connection, 503);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode code)
{
    linnet_http_server *server = context;
    linnet_http_reply *x = *state;
    (void)connection;
    (void)code;
    if (!x)
        return;
    (void)pthread_mutex_lock(&server->lock);
    bool is_owed = x->was_queued && !x->is_ended;
    x->is_over = true;
    if (x->was_queued && --server->n_in_flight == 0)
        (void)pthread_cond_broadcast(&server->idle);
    (void)pthread_mutex_unlock(&server->lock);
    if (!is_owed)
        reply_free(x);
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

/* ---- starting and stopping ---- */

static void workers_stop(linnet_http_server *server)
{
    (void)pthread_mutex_lock(&server->lock);
    server->is_stopping = true;
    (void)pthread_cond_broadcast(&server->work);
    (void)pthread_mutex_unlock(&server->lock);
    for (unsigned i = 0; i < server->n_workers; i++)
        (void)pthread_join(server->workers[i], NULL);
}

static void server_free(linnet_http_server *server)
{
    (void)pthread_mutex_destroy(&server->lock);
    (void)pthread_cond_destroy(&server->work);
    (void)pthread_cond_destroy(&server->idle);
    free(server->workers);
    free(server);
}

static linnet_status server_create(const linnet_http_server_options *options, linnet_http_server_fn *handler,
                                   void *context, linnet_http_server **ret_server, linnet_error *err)
{
    unsigned n_threads = options->n_threads ? options->n_threads : 1;
    linnet_http_server *server = calloc(1, sizeof(*server));
    if (server)
        server->workers = calloc(n_threads, sizeof(*server->workers));
    if (!server || !server->workers) {
        free(server);
        return linnet_fail(err, LINNET_ERR_NOMEM, "HTTP server");
    }
    server->handler = handler;
    server->context = context;
    server->options = *options;
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

linnet_status linnet_http_server_start(const linnet_http_server_options *options,
                                       linnet_http_server_fn *handler, void *context,
                                       linnet_http_server **ret_server, linnet_error *err)
{
    int fd = -1;
    linnet_http_server *server = NULL;
    linnet_status status = http_listen(options->listen, &fd, err);
    if (status != LINNET_OK)
        return status;
    status = server_create(options, handler, context, &server, err);
    if (status != LINNET_OK) {
        (void)close(fd);
        return status;
    }
    server->port = http_port_of(fd);
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

unsigned linnet_http_server_port(const linnet_http_server *server)
{
    return server->port;
}

void linnet_http_server_stop(linnet_http_server *server)
{
    if (!server)
        return;
    struct timespec until;
    int fd = MHD_quiesce_daemon(server->daemon);
    (void)pthread_mutex_lock(&server->lock);
    server->is_closing = true;
    while (server->n_owed > 0)
        (void)pthread_cond_wait(&server->idle, &server->lock);
    (void)clock_gettime(CLOCK_REALTIME, &until); /* always there on Linux */
    until.tv_sec += STOP_SECONDS;
    while (server->n_in_flight > 0 && pthread_cond_timedwait(&server->idle, &server->lock, &until) == 0)
        continue;
    (void)pthread_mutex_unlock(&server->lock);
    workers_stop(server);
    MHD_stop_daemon(server->daemon); /* closes what is left: idle connections, peers that do not read */
    if (fd != MHD_INVALID_SOCKET)
        (void)close(fd);
    server_free(server);
}
