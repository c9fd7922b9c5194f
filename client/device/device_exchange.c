/* SPDX-License-Identifier: Apache-2.0 */

/* Speaking to the coordinator: one request, one answer, whatever carries them (SECURE-AGGREGATION 2.11). What
 * the network does to an exchange is never an error of the device: it becomes a later next poll. Back-off is
 * exponential with full jitter; a Retry-After is a lower bound, and jitter spreads the devices behind it. */

#include "device_internal.h"

#include <stdarg.h>
#include <stdio.h>

#define BACK_OFF_FIRST_MS 1000
#define BACK_OFF_MAX_MS ((uint64_t)3600 * 1000)
#define RETRY_AFTER_MAX_MS ((uint64_t)7 * 86400 * 1000) /* nobody sends a device away for longer */
#define HELLO_AGAIN_MS ((int64_t)3600 * 1000)

void device_note(linnet_device *device, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(device->note, sizeof(device->note), format, args); /* cut where it is too long */
    va_end(args);
}

static uint64_t at_most(uint64_t value, uint64_t max)
{
    return value < max ? value : max;
}

void device_wait(linnet_device *device, uint64_t delay_ms)
{
    uint64_t delay = at_most(delay_ms, RETRY_AFTER_MAX_MS);
    device->n_failures = 0;
    device->wake_ms = device->now_ms + (int64_t)(delay + linnet_rng_below(&device->rng, delay / 4 + 1));
}

void device_back_off(linnet_device *device, uint64_t retry_after_ms)
{
    uint64_t ceiling = BACK_OFF_FIRST_MS;
    for (uint32_t i = 0; i < device->n_failures && ceiling < BACK_OFF_MAX_MS; i++)
        ceiling *= 2;
    ceiling = at_most(ceiling, device_secure_delay(device, BACK_OFF_MAX_MS));
    uint64_t delay =
        at_most(retry_after_ms, RETRY_AFTER_MAX_MS) + linnet_rng_below(&device->rng, ceiling) + 1;
    device->n_failures++;
    device->wake_ms = device->now_ms + (int64_t)delay;
}

/* ---- one sealed request ---- */

static linnet_status open_answer(const linnet_exchange *exchange, const linnet_buffer *body,
                                 linnet_buffer *storage, linnet_buffer *raw, linnet_answer *ret_answer,
                                 linnet_error *err)
{
    linnet_buffer opened = {0};
    linnet_frame frame;
    linnet_status status = linnet_response_open(exchange, body->bytes, body->n_bytes, &opened, err);
    if (status == LINNET_OK)
        status = linnet_frame_open(opened.bytes, opened.n_bytes, &frame, err);
    if (status == LINNET_OK)
        status = linnet_answer_unpack(frame.header, frame.n_header, storage, ret_answer, err);
    if (status == LINNET_OK && raw)
        linnet_buffer_append(raw, frame.raw, frame.n_raw);
    if (status == LINNET_OK && raw && raw->failed)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "answer of %zu bytes", frame.n_raw);
    linnet_buffer_release(&opened);
    return status;
}

linnet_status device_request(const request_route *route, const linnet_frame *frame, linnet_buffer *storage,
                             request_result *ret_result, linnet_error *err)
{
    linnet_buffer body = {0}, sealed = {0};
    linnet_exchange exchange = {0};
    linnet_http_response response = {0};
    request_result result = {0};
    linnet_status status = linnet_frame_pack(frame, &body, err);
    if (status == LINNET_OK)
        status = linnet_request_seal(route->channel_key, "POST", route->path, route->identity, body.bytes,
                                     body.n_bytes, &sealed, &exchange, err);
    if (status != LINNET_OK)
        goto done;
    const linnet_http_request request = {.method = "POST",
                                         .path = route->path,
                                         .body = sealed.bytes,
                                         .n_body = sealed.n_bytes,
                                         .stall_s = route->stall_s};
    result.n_sent = sealed.n_bytes;
    if (route->http(route->http_context, &request, LINNET_RESPONSE_BYTES_MAX, &response, err) != LINNET_OK) {
        status = LINNET_ERR_AGAIN; /* err says what the network did */
        goto done;
    }
    result.http_status = response.status;
    result.retry_after_s = response.retry_after_s;
    result.n_received = response.body.n_bytes;
    if (response.status != 200)
        status = linnet_fail(err, LINNET_ERR_AGAIN, "%s: HTTP status %d", route->path, response.status);
    else if (open_answer(&exchange, &response.body, storage, route->raw, &result.answer, err) != LINNET_OK)
        status = linnet_error_prefix(err, LINNET_ERR_AGAIN, "%s: the answer does not open", route->path);
done:
    *ret_result = result; /* set on AGAIN too: status, counts */
    linnet_http_response_release(&response);
    linnet_exchange_release(&exchange);
    linnet_buffer_release(&sealed);
    linnet_buffer_release(&body);
    return status;
}

linnet_status device_exchange_sealed(linnet_device *device, const char *path, const linnet_frame *frame,
                                     linnet_buffer *storage, linnet_buffer *raw, linnet_answer *ret_answer,
                                     bool *ret_is_answered, linnet_error *err)
{
    const request_route route = {.identity = device->identity,
                                 .raw = raw,
                                 .channel_key = device->channel_key,
                                 .http = device->config.http,
                                 .http_context = device->config.http_context,
                                 .path = path,
                                 .stall_s = device_secure_stall_s(device)};
    linnet_error local = {0};
    request_result result = {0};
    linnet_status status = device_request(&route, frame, storage, &result, &local);
    device->record.bytes_up += result.n_sent;
    device->record.bytes_down += result.n_received;
    *ret_is_answered = status == LINNET_OK;
    if (status == LINNET_OK) {
        *ret_answer = result.answer;
        return LINNET_OK;
    }
    if (status != LINNET_ERR_AGAIN)
        return linnet_fail(err, status, "%s", local.message);
    /* Overload keeps the channel key; anything else that came back may mean that the key is gone. */
    if (result.http_status != 0 && result.http_status != 429 && result.http_status < 500)
        device->needs_hello = true;
    device_note(device, "%.180s", local.message);
    device_back_off(device, (uint64_t)result.retry_after_s * 1000);
    return LINNET_OK;
}

/* ---- HELLO ---- */

static linnet_status hello_check(const identity_record *pins, bool has_task, hello_result *r,
                                 linnet_error *err)
{
    if (memcmp(r->hello.coordinator.bytes, pins->coordinator.bytes, LINNET_PUBLIC_KEY_BYTES) != 0)
        return linnet_fail(err, LINNET_ERR_CRYPTO, "hello: another coordinator's key than the pinned one");
    if (memcmp(r->hello.authority.bytes, pins->authority.bytes, LINNET_PUBLIC_KEY_BYTES) != 0)
        return linnet_fail(err, LINNET_ERR_CRYPTO, "hello: another authority's key than the pinned one");
    if (has_task && memcmp(r->hello.task, pins->task, sizeof(pins->task)) != 0)
        return linnet_fail(err, LINNET_ERR_MISMATCH,
                           "hello: another task than the one this device enrolled in");
    linnet_status status = linnet_channel_key_open(r->hello.channel_key, LINNET_SIGNED_CHANNEL_KEY_BYTES,
                                                   &pins->coordinator, 0, &r->key);
    if (status != LINNET_OK)
        return linnet_fail(
            err, status, "hello: the channel key is not signed by the pinned coordinator, or lives too long");
    if (memcmp(r->key.task, r->hello.task, sizeof(r->key.task)) != 0)
        return linnet_fail(err, LINNET_ERR_MISMATCH, "hello: the channel key is of another task");
    if (r->hello.n_revocation > 0 && linnet_revocation_open(r->hello.revocation, r->hello.n_revocation,
                                                            &pins->authority, &r->revocation) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_CRYPTO,
                           "hello: the revocation list is not signed by the pinned authority");
    return LINNET_OK;
}

linnet_status device_hello(linnet_http_fn *http, void *http_context, uint32_t stall_s,
                           const identity_record *pins, bool has_task, linnet_buffer *storage,
                           hello_result *ret_result, linnet_error *err)
{
    const linnet_http_request request = {.method = "GET", .path = LINNET_PATH_HELLO, .stall_s = stall_s};
    linnet_http_response response = {0};
    hello_result result = {0};
    linnet_status status = LINNET_OK;
    if (http(http_context, &request, LINNET_HELLO_BYTES_MAX, &response, err) != LINNET_OK) {
        *ret_result = result;
        return LINNET_ERR_AGAIN;
    }
    result.http_status = response.status;
    result.retry_after_s = response.retry_after_s;
    result.n_received = response.body.n_bytes;
    if (response.status != 200)
        status = linnet_fail(err, LINNET_ERR_AGAIN, "hello: HTTP status %d", response.status);
    else
        status = linnet_hello_unpack(response.body.bytes, response.body.n_bytes, storage, &result.hello, err);
    if (status == LINNET_ERR_FORMAT)
        (void)linnet_fail(err, status,
                          "hello: what answers is no coordinator; check the URL, and whether a "
                          "proxy answers with a page of its own");
    if (status == LINNET_OK)
        status = hello_check(pins, has_task, &result, err);
    linnet_http_response_release(&response);
    *ret_result = result; /* set on failure too: status, counts */
    return status;
}

linnet_status device_exchange_hello(linnet_device *device, linnet_error *err)
{
    linnet_buffer storage = {0};
    linnet_error remote = {0};
    hello_result r = {0};
    linnet_status status =
        device_hello(device->config.http, device->config.http_context, device_secure_stall_s(device),
                     &device->identity_record, true, &storage, &r, &remote);
    device->record.bytes_down += r.n_received;
    if (status == LINNET_ERR_NOMEM) {
        linnet_buffer_release(&storage);
        return linnet_fail(err, status, "%s", remote.message);
    }
    if (status == LINNET_OK && device->has_channel_key && r.key.number < device->record.channel_number)
        status = linnet_fail(&remote, LINNET_ERR_DENIED, "hello: the channel key's number goes back");
    if (status != LINNET_OK) {
        device_note(device, "%.180s", remote.message);
        device_back_off(device, (uint64_t)r.retry_after_s * 1000);
        linnet_buffer_release(&storage);
        return LINNET_OK;
    }
    status = device_take_lists(device, r.hello.channel_key, LINNET_SIGNED_CHANNEL_KEY_BYTES,
                               r.hello.revocation, r.hello.n_revocation, err);
    linnet_buffer_release(&storage);
    if (status != LINNET_OK)
        return status;
    device->needs_hello = false;
    device->hello_again_ms = device->now_ms + HELLO_AGAIN_MS;
    device->wake_ms = device->now_ms;
    return LINNET_OK;
}

/* A list counts only if the pinned authority signed it, a key only if the pinned coordinator did; numbers
 * never go back. */
linnet_status device_take_lists(linnet_device *device, const uint8_t *channel_key, size_t n_channel_key,
                                const uint8_t *revocation, size_t n_revocation, linnet_error *err)
{
    const identity_record *pins = &device->identity_record;
    device_record next = device->record;
    linnet_kv_item items[2];
    size_t n_items = 0;
    linnet_channel_key key = {0};
    linnet_revocation list = {0};
    bool takes_key =
        n_channel_key > 0 &&
        linnet_channel_key_open(channel_key, n_channel_key, &pins->coordinator, 0, &key) == LINNET_OK &&
        memcmp(key.task, pins->task, sizeof(key.task)) == 0 &&
        (!device->has_channel_key || key.number > next.channel_number);
    if (takes_key) {
        next.channel_number = key.number;
        items[n_items++] = (linnet_kv_item){KV_CHANNEL_KEY, channel_key, n_channel_key};
    }
    bool takes_list =
        n_revocation > 0 &&
        linnet_revocation_open(revocation, n_revocation, &pins->authority, &list) == LINNET_OK &&
        list.number > next.revocation_number;
    if (takes_list) {
        linnet_device_id self = linnet_device_id_of(linnet_identity_public_key(device->identity));
        next.revocation_number = list.number;
        next.is_revoked = next.is_revoked || linnet_revocation_contains(&list, &self);
        items[n_items++] = (linnet_kv_item){KV_REVOCATION, revocation, n_revocation};
    }
    if (n_items == 0)
        return LINNET_OK;
    linnet_status status = device_commit(device, &next, items, n_items, err);
    if (status == LINNET_OK && takes_key) {
        memcpy(device->channel_key, channel_key, LINNET_SIGNED_CHANNEL_KEY_BYTES);
        device->channel_not_after = key.not_after;
        device->has_channel_key = true;
        device->needs_hello = false;
    }
    return status;
}
