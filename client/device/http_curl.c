/* SPDX-License-Identifier: Apache-2.0 */

/* libcurl as the carrier of exchanges: one handle, kept connections, no redirects (a signed request is for
 * one place), a cap on every answer. libcurl has no retry policy; the agent's back-off is the one there is.
 */

#include "linnet/device.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>

#include "linnet/limits.h"

#define CONNECT_SECONDS 20L
#define STALL_SECONDS 60L /* below STALL_BYTES a second for so long: given up, where nobody asks for less */
#define STALL_BYTES 16L
#define RETRY_AFTER_MAX 86400

struct linnet_http_client {
    CURL *curl;
    struct curl_slist *headers;
    char *base_url; /* without a slash at the end */
};

typedef struct receiver {
    linnet_buffer *body;
    size_t n_max;
    bool too_large;
} receiver;

static size_t on_body(char *bytes, size_t size, size_t n, void *user)
{
    receiver *r = user;
    size_t n_bytes = size * n;
    if (n_bytes > r->n_max - r->body->n_bytes) {
        r->too_large = true;
        return 0; /* curl ends the transfer */
    }
    linnet_buffer_append(r->body, bytes, n_bytes);
    return r->body->failed ? 0 : n_bytes;
}

/* curl's own reference count makes this safe to call for every client; the first call must be made before
 * threads. */
linnet_status linnet_http_client_create(const char *base_url, linnet_http_client **ret_client,
                                        linnet_error *err)
{
    if (strncmp(base_url, "http://", 7) != 0 && strncmp(base_url, "https://", 8) != 0)
        return linnet_fail(err, LINNET_ERR_ARG,
                           "coordinator URL '%.200s': must start with http:// or https://", base_url);
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
        return linnet_fail(err, LINNET_ERR_INTERNAL, "libcurl does not start");
    linnet_http_client *client = calloc(1, sizeof(*client));
    if (client) {
        client->base_url = strdup(base_url);
        client->curl = curl_easy_init();
        client->headers = curl_slist_append(NULL, "Content-Type: application/octet-stream");
        struct curl_slist *more = client->headers ? curl_slist_append(client->headers, "Expect:") : NULL;
        client->headers = more ? more : client->headers;
        if (client->base_url && client->curl && more) {
            for (size_t n = strlen(base_url); n > 0 && client->base_url[n - 1] == '/'; n--)
                client->base_url[n - 1] = '\0';
            *ret_client = client;
            return LINNET_OK;
        }
    }
    linnet_http_client_destroy(client);
    return linnet_fail(err, LINNET_ERR_NOMEM, "HTTP client");
}

void linnet_http_client_destroy(linnet_http_client *client)
{
    if (!client)
        return;
    curl_slist_free_all(client->headers);
    if (client->curl)
        curl_easy_cleanup(client->curl);
    free(client->base_url);
    free(client);
    curl_global_cleanup();
}

static bool set_options(linnet_http_client *client, const char *url, const linnet_http_request *request,
                        receiver *r)
{
    CURL *curl = client->curl;
    bool is_post = strcmp(request->method, "POST") == 0;
    long stall_s =
        request->stall_s > 0 && request->stall_s < STALL_SECONDS ? (long)request->stall_s : STALL_SECONDS;
    long connect_s = stall_s < CONNECT_SECONDS ? stall_s : CONNECT_SECONDS;
    curl_easy_reset(curl); /* options go, connections stay */
    bool good = curl_easy_setopt(curl, CURLOPT_URL, url) == CURLE_OK &&
                curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
                curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
                curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
                curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, connect_s) == CURLE_OK &&
                curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, STALL_BYTES) == CURLE_OK &&
                curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, stall_s) == CURLE_OK &&
                curl_easy_setopt(curl, CURLOPT_USERAGENT, "linnet/" LINNET_VERSION) == CURLE_OK &&
                curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK &&
                curl_easy_setopt(curl, CURLOPT_WRITEDATA, r) == CURLE_OK &&
                curl_easy_setopt(curl, CURLOPT_HTTPHEADER, client->headers) == CURLE_OK;
    if (good && is_post)
        good = curl_easy_setopt(curl, CURLOPT_POST, 1L) == CURLE_OK &&
               curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->n_body) == CURLE_OK &&
               curl_easy_setopt(curl, CURLOPT_POSTFIELDS,
                                request->n_body > 0 ? (const char *)request->body : "") == CURLE_OK;
    return good;
}

/* Ask for one part of an object; other GETs have no range. */
static bool set_range(linnet_http_client *client, const linnet_http_request *request)
{
    char range[64];
    if (strncmp(request->path, LINNET_PATH_OBJECT, strlen(LINNET_PATH_OBJECT)) != 0)
        return true;
    snprintf(range, sizeof(range), "%llu-%llu", (unsigned long long)request->range_first,
             (unsigned long long)(request->range_first + LINNET_OBJECT_CHUNK_BYTES - 1));
    return curl_easy_setopt(client->curl, CURLOPT_RANGE, range) == CURLE_OK;
}

linnet_status linnet_http_client_exchange(void *client_pointer, const linnet_http_request *request,
                                          size_t n_body_max, linnet_http_response *ret_response,
                                          linnet_error *err)
{
    linnet_http_client *client = client_pointer;
    linnet_http_response response = {0};
    receiver r = {.body = &response.body, .n_max = n_body_max};
    size_t n_url = strlen(client->base_url) + strlen(request->path) + 1;
    char *url = malloc(n_url);
    if (!url)
        return linnet_fail(err, LINNET_ERR_NOMEM, "request");
    snprintf(url, n_url, "%s%s", client->base_url, request->path);
    CURLcode code = CURLE_FAILED_INIT;
    if (set_options(client, url, request, &r) && set_range(client, request))
        code = curl_easy_perform(client->curl);
    linnet_status status = LINNET_OK;
    if (r.too_large)
        status = linnet_fail(err, LINNET_ERR_LIMIT, "%s %s: the answer is larger than %zu bytes",
                             request->method, url, n_body_max);
    else if (response.body.failed)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "%s %s", request->method, url);
    else if (code != CURLE_OK)
        status = linnet_fail(err, LINNET_ERR_IO, "%s %s: %s", request->method, url, curl_easy_strerror(code));
    free(url);
    if (status != LINNET_OK) {
        linnet_http_response_release(&response);
        return status;
    }
    long http_status = 0;
    curl_off_t retry_after = 0;
    (void)curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE,
                            &http_status); /* cannot fail after perform */
    (void)curl_easy_getinfo(client->curl, CURLINFO_RETRY_AFTER, &retry_after);
    response.status = (int)http_status;
    response.retry_after_s = retry_after > RETRY_AFTER_MAX ? RETRY_AFTER_MAX
                             : retry_after > 0             ? (uint32_t)retry_after
                                                           : 0;
    *ret_response = response;
    return LINNET_OK;
}
