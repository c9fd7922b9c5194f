/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP server on a real loopback socket: the probes of DEPENDENCIES.md section 1 and the bounds of
 * bodies. */
#include "testing.h"

#include "linnet/limits.h"
#include "linnet/http_server.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#define BODY_MAX 4096

typedef struct seen {
    pthread_mutex_t lock;
    unsigned n_requests;
    size_t n_body;
    char method[8], path[64];
    uint64_t range_first;
} seen;

/* Answers "METHOD PATH LENGTH". */
static void on_request(void *context, const linnet_http_request *request, linnet_http_reply *reply)
{
    seen *s = context;
    (void)pthread_mutex_lock(&s->lock);
    s->n_requests++;
    s->n_body = request->n_body;
    s->range_first = request->range_first;
    (void)snprintf(s->method, sizeof(s->method), "%s", request->method);
    (void)snprintf(s->path, sizeof(s->path), "%s", request->path);
    (void)pthread_mutex_unlock(&s->lock);
    bool is_busy = strcmp(request->path, "/busy") == 0;
    linnet_http_response response = {.status = is_busy ? 503 : 200, .retry_after_s = is_busy ? 7 : 0};
    linnet_buffer_append_format(&response.body, "%s %s %zu", request->method, request->path, request->n_body);
    linnet_http_reply_send(reply, &response);
}

static linnet_http_server *start(seen *s)
{
    linnet_error err = {0};
    linnet_http_server *server = NULL;
    const linnet_http_server_options options = {.listen = "127.0.0.1:0",
                                                .n_threads = 2,
                                                .n_connections_max = 64,
                                                .idle_timeout_s = 20,
                                                .n_body_max = BODY_MAX};
    (void)pthread_mutex_init(&s->lock, NULL);
    assert_ok(linnet_http_server_start(&options, on_request, s, &server, &err), &err);
    assert_in_range(linnet_http_server_port(server), 1, 65535);
    return server;
}

static int connect_to(const linnet_http_server *server)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)linnet_http_server_port(server)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void send_text(int fd, const char *text, size_t n)
{
    while (n > 0) {
        ssize_t done = send(fd, text, n, MSG_NOSIGNAL);
        if (done <= 0)
            return; /* the server closed: what it said is still to be read */
        text += done;
        n -= (size_t)done;
    }
}

/* Read until `want` responses have begun and their bodies ended, or the server closes, or nothing comes for a
 * minute. */
static size_t receive(int fd, char *text, size_t capacity, const char *until)
{
    size_t n = 0;
    text[0] = '\0';
    while (n + 1 < capacity && !(until && strstr(text, until))) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 60000) <= 0)
            break;
        ssize_t got = recv(fd, text + n, capacity - 1 - n, 0);
        if (got <= 0)
            break;
        n += (size_t)got;
        text[n] = '\0';
    }
    return n;
}

static unsigned count(const char *text, const char *word)
{
    unsigned n = 0;
    for (const char *p = strstr(text, word); p; p = strstr(p + 1, word))
        n++;
    return n;
}

static void requests_are_answered_and_kept_alive(void **state)
{
    (void)state;
    seen s = {0};
    char text[4096];
    linnet_http_server *server = start(&s);
    int fd = connect_to(server);
    static const char first[] = "POST /v1/checkin HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    static const char second[] = "GET /v1/objects/ab HTTP/1.1\r\nHost: x\r\nRange: bytes=1048576-\r\n\r\n";
    static const char third[] = "GET /busy HTTP/1.1\r\nHost: x\r\n\r\n";
    send_text(fd, first, sizeof(first) - 1);
    (void)receive(fd, text, sizeof(text), "checkin 5");
    assert_non_null(strstr(text, "HTTP/1.1 200"));
    assert_non_null(strstr(text, "POST /v1/checkin 5"));
    send_text(fd, second, sizeof(second) - 1);
    (void)receive(fd, text, sizeof(text), "objects/ab 0");
    assert_non_null(strstr(text, "GET /v1/objects/ab 0"));
    assert_int_equal(s.range_first, 1048576);
    send_text(fd, third, sizeof(third) - 1);
    (void)receive(fd, text, sizeof(text), "/busy 0");
    assert_non_null(strstr(text, "HTTP/1.1 503"));
    assert_non_null(strstr(text, "Retry-After: 7"));
    (void)close(fd);
    linnet_http_server_stop(server);
    assert_int_equal(s.n_requests, 3);
}

static void what_two_parsers_could_read_differently_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text;
        const char *want; /* status line, or NULL: the connection ends without an answer */
    } cases[] = {
        {"length and chunked",
         "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET "
         "/smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
         "HTTP/1.1 400"},
        {"chunked", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         "HTTP/1.1 400"},
        {"two lengths", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
         "HTTP/1.1 400"},
        {"the same length twice",
         "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
         "HTTP/1.1 400"},
        {"no length", "POST /a HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400"},
        {"negative length", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 400"},
        {"signed length", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello", "HTTP/1.1 400"},
        {"length with letters", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5x\r\n\r\nhello",
         "HTTP/1.1 400"},
        {"space before the colon", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\nhello",
         "HTTP/1.1 400"},
        {"body on GET", "GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 400"},
        {"HTTP/1.0", "GET /a HTTP/1.0\r\nHost: x\r\n\r\n", "400"},
        {"no host", "GET /a HTTP/1.1\r\n\r\n", "HTTP/1.1 400"},
        {"too long a body", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4097\r\n\r\n", "HTTP/1.1 413"},
        {"far too long a body", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
         NULL},
        {"a long method", "PROPPATCHED /a HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 405"},
        {"noise", "\x16\x03\x01\x02\x01\xfc\x03\x03\r\n\r\n", NULL},
    };
    seen s = {0};
    linnet_http_server *server = start(&s);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[4096];
        int fd = connect_to(server);
        send_text(fd, cases[i].text, strlen(cases[i].text));
        (void)receive(fd, text, sizeof(text), NULL); /* to the end: the server must close */
        if (cases[i].want && !strstr(text, cases[i].want))
            fail_msg("%s: '%.60s', want %s", cases[i].name, text, cases[i].want);
        if (count(text, " 200 ") > 0 || strstr(text, "smuggled"))
            fail_msg("%s: answered '%.60s'", cases[i].name, text);
        (void)close(fd);
    }
    assert_int_equal(s.n_requests, 0); /* none of them reached a handler */
    linnet_http_server_stop(server);
}

/* A bare LF ends a line for this parser. That alone gives no second reading: lengths are still one number,
 * and the body still has it. */
static void bare_line_feeds_smuggle_nothing(void **state)
{
    (void)state;
    seen s = {0};
    char text[4096];
    linnet_http_server *server = start(&s);
    int fd = connect_to(server);
    static const char request[] = "POST /a HTTP/1.1\nHost: x\nContent-Length: 5\n\nhello";
    send_text(fd, request, sizeof(request) - 1);
    (void)receive(fd, text, sizeof(text), "/a 5");
    assert_true(s.n_requests <= 1);
    if (s.n_requests == 1)
        assert_int_equal(s.n_body, 5);
    (void)close(fd);
    static const char both[] = "POST /a HTTP/1.1\nHost: x\nContent-Length: 5\nContent-Length: 6\n\nhello!";
    unsigned before = s.n_requests;
    fd = connect_to(server);
    send_text(fd, both, sizeof(both) - 1);
    (void)receive(fd, text, sizeof(text), NULL);
    assert_int_equal(s.n_requests, before);
    (void)close(fd);
    linnet_http_server_stop(server);
}

static void a_slow_client_holds_up_nobody(void **state)
{
    (void)state;
    seen s = {0};
    char text[4096];
    int slow[32];
    linnet_http_server *server = start(&s);
    static const char head[] = "POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 4096\r\n\r\nhal";
    for (size_t i = 0; i < ARRAY_LEN(slow); i++) {
        slow[i] = connect_to(server);
        send_text(slow[i], head, sizeof(head) - 1 - i % 4);
    }
    int fd = connect_to(server);
    static const char request[] = "POST /quick HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi";
    send_text(fd, request, sizeof(request) - 1);
    (void)receive(fd, text, sizeof(text), "/quick 2");
    assert_non_null(strstr(text, "POST /quick 2"));
    assert_int_equal(s.n_requests, 1); /* half requests reach no handler */
    for (size_t i = 0; i < ARRAY_LEN(slow); i++)
        (void)close(slow[i]);
    (void)close(fd);
    linnet_http_server_stop(server);
}

static void a_body_of_any_cut_arrives_whole(void **state)
{
    (void)state;
    seen s = {0};
    char text[4096], body[BODY_MAX];
    linnet_http_server *server = start(&s);
    memset(body, 'b', sizeof(body));
    static const char head[] = "POST /v1/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 4096\r\n\r\n";
    int fd = connect_to(server);
    send_text(fd, head, 30);
    send_text(fd, head + 30, sizeof(head) - 31);
    for (size_t at = 0; at < sizeof(body); at += 512)
        send_text(fd, body + at, 512);
    (void)receive(fd, text, sizeof(text), "upload 4096");
    assert_non_null(strstr(text, "POST /v1/upload 4096"));
    (void)close(fd);
    linnet_http_server_stop(server);
}

static void a_port_in_use_is_said(void **state)
{
    (void)state;
    seen s = {0};
    char address[32];
    linnet_error err = {0};
    linnet_http_server *server = start(&s), *other = NULL;
    (void)snprintf(address, sizeof(address), "127.0.0.1:%u", linnet_http_server_port(server));
    linnet_http_server_options options = {
        .listen = address, .n_threads = 1, .n_connections_max = 8, .idle_timeout_s = 5, .n_body_max = 10};
    assert_int_equal(linnet_http_server_start(&options, on_request, &s, &other, &err), LINNET_ERR_EXISTS);
    assert_non_null(strstr(err.message, address));
    static const char *const bad[] = {
        "", "nonsense", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000", ":80", "[]:1"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        options.listen = bad[i];
        if (linnet_http_server_start(&options, on_request, &s, &other, &err) != LINNET_ERR_ARG)
            fail_msg("'%s' was taken for an address", bad[i]);
    }
    linnet_http_server_stop(server);
}

/* ---- answers that grow, and answers that come late ---- */

#define PIECES 40
#define LONG_BYTES ((size_t)8 << 20)

/* Replies are kept, and answered from a thread of their own. */
typedef struct late {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    linnet_http_reply *reply; /* that waits; NULL: none */
} late;

static void keep_reply(void *context, const linnet_http_request *request, linnet_http_reply *reply)
{
    late *l = context;
    (void)request;
    (void)pthread_mutex_lock(&l->lock);
    l->reply = reply;
    (void)pthread_cond_signal(&l->changed);
    (void)pthread_mutex_unlock(&l->lock);
}

static linnet_http_server *start_late(late *l)
{
    linnet_error err = {0};
    linnet_http_server *server = NULL;
    const linnet_http_server_options options = {.listen = "127.0.0.1:0",
                                                .n_threads = 1,
                                                .n_connections_max = 8,
                                                .idle_timeout_s = 20,
                                                .n_body_max = BODY_MAX};
    (void)pthread_mutex_init(&l->lock, NULL);
    (void)pthread_cond_init(&l->changed, NULL);
    assert_ok(linnet_http_server_start(&options, keep_reply, l, &server, &err), &err);
    return server;
}

static linnet_http_reply *take_reply(late *l)
{
    (void)pthread_mutex_lock(&l->lock);
    while (!l->reply)
        (void)pthread_cond_wait(&l->changed, &l->lock);
    linnet_http_reply *reply = l->reply;
    l->reply = NULL;
    (void)pthread_mutex_unlock(&l->lock);
    return reply;
}

static int ask(const linnet_http_server *server)
{
    static const char request[] = "GET /grow HTTP/1.1\r\nHost: x\r\n\r\n";
    int fd = connect_to(server);
    send_text(fd, request, sizeof(request) - 1);
    return fd;
}

static void an_answer_grows_while_it_is_read(void **state)
{
    (void)state;
    late l = {0};
    char text[8192], piece[32];
    linnet_http_server *server = start_late(&l);
    int fd = ask(server);
    linnet_http_reply *reply = take_reply(&l);
    linnet_http_response head = {.status = 200, .content_type = "text/event-stream"};
    linnet_buffer_append_text(&head.body, "begin,");
    linnet_http_reply_begin(reply, &head);
    (void)receive(fd, text, sizeof(text), "begin,"); /* before anything else is written */
    assert_non_null(strstr(text, "Content-Type: text/event-stream"));
    for (int i = 0; i < PIECES; i++) { /* each arrives before the next is made */
        (void)snprintf(piece, sizeof(piece), "piece %d,", i);
        assert_true(linnet_http_reply_write(reply, piece, strlen(piece)));
        (void)receive(fd, text, sizeof(text), piece);
        if (!strstr(text, piece))
            fail_msg("'%s' did not come: '%s'", piece, text);
    }
    linnet_http_reply_end(reply);
    (void)receive(fd, text, sizeof(text), "0\r\n\r\n");
    assert_non_null(strstr(text, "0\r\n\r\n")); /* the last chunk: the connection can be used again */
    (void)close(fd);
    linnet_http_server_stop(server);
}

static void a_long_answer_waits_for_a_slow_reader_and_comes_whole(void **state)
{
    (void)state;
    late l = {0};
    static uint8_t pattern[4096];
    linnet_http_server *server = start_late(&l);
    int fd = ask(server);
    linnet_http_reply *reply = take_reply(&l);
    linnet_http_response head = {.status = 200};
    linnet_http_reply_begin(reply, &head);
    memset(pattern, 'a', sizeof(pattern));
    for (size_t i = 0; i < LONG_BYTES; i += sizeof(pattern))
        assert_true(linnet_http_reply_write(reply, pattern, sizeof(pattern))); /* none of it is read yet */
    assert_true(linnet_http_reply_backlog(reply) > 0);
    linnet_http_reply_end(reply);
    size_t n = 0;
    for (;;) {
        static char bytes[65536];
        ssize_t got = recv(fd, bytes, sizeof(bytes), 0);
        assert_true(got > 0);
        for (ssize_t i = 0; i < got; i++)
            n += bytes[i] == 'a';
        if (n >= LONG_BYTES)
            break;
    }
    assert_true(n >= LONG_BYTES && n < LONG_BYTES + 16384); /* chunk sizes have some, too */
    (void)close(fd);
    linnet_http_server_stop(server);
}

static bool becomes_gone(linnet_http_reply *reply)
{
    for (int i = 0; i < 6000; i++) {
        if (linnet_http_reply_is_gone(reply))
            return true;
        (void)poll(NULL, 0, 5);
    }
    return false;
}

static void a_peer_that_leaves_is_seen(void **state)
{
    (void)state;
    late l = {0};
    linnet_http_server *server = start_late(&l);
    int fd = ask(server);
    linnet_http_reply *reply = take_reply(&l);
    assert_false(linnet_http_reply_is_gone(reply));
    (void)close(fd);
    assert_true(becomes_gone(reply)); /* before its answer has begun */
    linnet_http_response response = {.status = 200};
    linnet_buffer_append_text(&response.body, "nobody reads this");
    linnet_http_reply_send(reply, &response);

    fd = ask(server);
    reply = take_reply(&l);
    linnet_http_response head = {.status = 200};
    linnet_http_reply_begin(reply, &head);
    assert_true(linnet_http_reply_write(reply, "a", 1));
    (void)close(fd);
    assert_true(becomes_gone(reply)); /* and after it */
    (void)linnet_http_reply_write(reply, "b", 1);
    linnet_http_reply_end(reply);
    linnet_http_server_stop(server);
}

static void *end_later(void *context)
{
    linnet_http_response response = {.status = 200};
    (void)poll(NULL, 0, 200);
    linnet_buffer_append_text(&response.body, "late but there");
    linnet_http_reply_send(context, &response);
    return NULL;
}

static void stopping_waits_for_what_is_owed(void **state)
{
    (void)state;
    late l = {0};
    char text[4096];
    pthread_t thread;
    linnet_http_server *server = start_late(&l);
    int fd = ask(server);
    assert_int_equal(pthread_create(&thread, NULL, end_later, take_reply(&l)), 0);
    linnet_http_server_stop(server);
    (void)receive(fd, text, sizeof(text), "late but there");
    assert_non_null(strstr(text, "late but there"));
    (void)close(fd);
    (void)pthread_join(thread, NULL);
}

static void explain(void *context, int status, linnet_http_response *response)
{
    (void)context;
    response->content_type = "application/json";
    linnet_buffer_append_format(&response->body, "{\"status\":%d}", status);
}

/* The sender says all of it before it listens, as many libraries do. */
static void a_body_that_is_too_long_is_read_before_it_is_refused(void **state)
{
    (void)state;
    static char body[1 << 20];
    char text[4096], head[128];
    seen s = {0};
    linnet_error err = {0};
    linnet_http_server *server = NULL;
    const linnet_http_server_options options = {.listen = "127.0.0.1:0",
                                                .n_threads = 1,
                                                .n_connections_max = 8,
                                                .idle_timeout_s = 20,
                                                .n_body_max = BODY_MAX,
                                                .n_body_dropped_max = sizeof(body),
                                                .explain = explain};
    (void)pthread_mutex_init(&s.lock, NULL);
    assert_ok(linnet_http_server_start(&options, on_request, &s, &server, &err), &err);
    memset(body, 'b', sizeof(body));
    for (size_t more = 0; more < 2; more++) { /* one byte above the second limit is refused at once */
        int fd = connect_to(server);
        (void)snprintf(head, sizeof(head), "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
                       sizeof(body) + more);
        send_text(fd, head, strlen(head));
        if (more == 0)
            send_text(fd, body, sizeof(body));
        (void)receive(fd, text, sizeof(text), "}");
        assert_non_null(strstr(text, "HTTP/1.1 413"));
        assert_non_null(strstr(text, "Content-Type: application/json"));
        assert_non_null(strstr(text, "{\"status\":413}"));
        (void)close(fd);
    }
    linnet_http_server_stop(server);
    assert_int_equal(s.n_requests, 0);
}

int main(void)
{
    (void)signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_answered_and_kept_alive),
        cmocka_unit_test(what_two_parsers_could_read_differently_is_refused),
        cmocka_unit_test(bare_line_feeds_smuggle_nothing),
        cmocka_unit_test(a_slow_client_holds_up_nobody),
        cmocka_unit_test(a_body_of_any_cut_arrives_whole),
        cmocka_unit_test(a_port_in_use_is_said),
        cmocka_unit_test(an_answer_grows_while_it_is_read),
        cmocka_unit_test(a_long_answer_waits_for_a_slow_reader_and_comes_whole),
        cmocka_unit_test(a_peer_that_leaves_is_seen),
        cmocka_unit_test(stopping_waits_for_what_is_owed),
        cmocka_unit_test(a_body_that_is_too_long_is_read_before_it_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
