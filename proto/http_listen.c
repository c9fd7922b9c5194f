/* SPDX-License-Identifier: Apache-2.0 */
/* A listening socket from "HOST:PORT", and what its address turned out to be. */
#include "http_listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

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

unsigned http_port_of(int fd)
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

linnet_status http_listen(const char *listen_text, int *ret_fd, linnet_error *err)
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
