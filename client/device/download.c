/* SPDX-License-Identifier: Apache-2.0 */

/* Fetching a content-addressed object in parts. Each part is committed to the store under its number, so that
 * a fetch goes on after a restart; when the hash of all of them is the wanted one, the whole moves to the
 * cache in one piece and the parts are deleted. An object that ends without the right hash is thrown away and
 * fetched anew, later. */

#include "device_internal.h"

#include <stdio.h>

static void part_name(char name[32], uint64_t i)
{
    snprintf(name, 32, KV_PART, (unsigned long long)i);
}

/* The parts of an object are deleted in commits of bounded size, the count last, so that a kill in between
 * only leaves parts that the next fetch overwrites. */
static linnet_status drop_parts(linnet_device *device, linnet_error *err)
{
    linnet_kv *kv = device->config.kv;
    device_record next = device->record;
    for (uint64_t i = 0; i < device->record.n_parts; i++) {
        char name[32];
        part_name(name, i);
        const linnet_kv_item item = {name, NULL, 0};
        linnet_status status = kv->put(kv->context, &item, 1, err);
        if (status != LINNET_OK)
            return status;
    }
    linnet_buffer_release(&device->part_bytes);
    device->parts_loaded = true;
    if (next.n_parts == 0)
        return LINNET_OK;
    next.n_parts = 0;
    return device_commit(device, &next, NULL, 0, err);
}

/* What an earlier process has fetched of this object, or nothing. */
static linnet_status load_parts(linnet_device *device, const linnet_hash *hash, linnet_error *err)
{
    linnet_kv *kv = device->config.kv;
    if (device->record.n_parts > 0 && !linnet_hash_equal(&device->record.part_object, hash))
        return drop_parts(device, err);
    for (uint64_t i = 0; i < device->record.n_parts && !device->parts_loaded; i++) {
        char name[32];
        part_name(name, i);
        linnet_buffer part = {0};
        linnet_status status = kv->get(kv->context, name, &part, err);
        linnet_buffer_append(&device->part_bytes, part.bytes, part.n_bytes);
        linnet_buffer_release(&part);
        if (status == LINNET_ERR_NOT_FOUND)
            return drop_parts(device, err);
        if (status != LINNET_OK)
            return status;
    }
    device->parts_loaded = true;
    return device->part_bytes.failed ? linnet_fail(err, LINNET_ERR_NOMEM, "object") : LINNET_OK;
}

/* A part that does not end the object is committed before the next one is asked for. */
static linnet_status keep_part(linnet_device *device, const linnet_hash *hash, const linnet_buffer *part,
                               linnet_error *err)
{
    char name[32];
    device_record next = device->record;
    part_name(name, next.n_parts);
    next.n_parts++;
    next.part_object = *hash;
    const linnet_kv_item item = {name, part->bytes, part->n_bytes};
    return device_commit(device, &next, &item, 1, err);
}

/* One part arrived. A proxy that ignores ranges answers 200 with the object's start: then it counts from
 * there. */
static linnet_status take_part(linnet_device *device, const linnet_hash *hash, linnet_label label,
                               const linnet_http_response *response, size_t n_max, linnet_error *err)
{
    linnet_object_cache *cache = device->config.objects;
    linnet_status status =
        response->status == 200 && device->part_bytes.n_bytes > 0 ? drop_parts(device, err) : LINNET_OK;
    if (status != LINNET_OK)
        return status;
    linnet_buffer_append(&device->part_bytes, response->body.bytes, response->body.n_bytes);
    if (device->part_bytes.failed)
        return linnet_fail(err, LINNET_ERR_NOMEM, "object of %zu bytes and more", device->part_bytes.n_bytes);
    linnet_hash got = linnet_hash_of(label, device->part_bytes.bytes, device->part_bytes.n_bytes);
    if (linnet_hash_equal(&got, hash)) {
        device->n_failures = 0;
        status = cache->put(cache->context, hash, device->part_bytes.bytes, device->part_bytes.n_bytes, err);
        return status == LINNET_OK ? drop_parts(device, err) : status;
    }
    bool is_last = response->body.n_bytes < LINNET_OBJECT_CHUNK_BYTES;
    if (!is_last && device->part_bytes.n_bytes < n_max)
        return keep_part(device, hash, &response->body, err);
    device_note(device, is_last ? "an object of the release does not have the signed hash"
                                : "an object of the release is larger than the policy allows");
    device->fetch_failed = true;
    device_back_off(device, 0);
    return drop_parts(device, err);
}

linnet_status device_download(linnet_device *device, const linnet_hash *hash, linnet_label label,
                              size_t n_max, linnet_error *err)
{
    char path[sizeof(LINNET_PATH_OBJECT) + 2 * LINNET_HASH_BYTES] = LINNET_PATH_OBJECT;
    linnet_http_response response = {0};
    linnet_error remote = {0};
    linnet_status status = load_parts(device, hash, err);
    if (status != LINNET_OK)
        return status;
    linnet_hex_write(hash->bytes, LINNET_HASH_BYTES, path + strlen(LINNET_PATH_OBJECT));
    const linnet_http_request request = {
        .method = "GET", .path = path, .range_first = device->part_bytes.n_bytes};
    if (device->config.http(device->config.http_context, &request, LINNET_OBJECT_CHUNK_BYTES, &response,
                            &remote) != LINNET_OK) {
        device_note(device, "%.180s", remote.message);
        device_back_off(device, 0);
        return LINNET_OK;
    }
    device->record.bytes_down += response.body.n_bytes;
    if (response.status != 200 && response.status != 206) {
        /* 416: nothing behind what is here, so what is here is wrong. */
        device_note(device, "object: HTTP status %d", response.status);
        device->fetch_failed = true;
        device_back_off(device, (uint64_t)response.retry_after_s * 1000);
        status = response.status == 416 ? drop_parts(device, err) : LINNET_OK;
    } else {
        device->wake_ms = device->now_ms;
        status = take_part(device, hash, label, &response, n_max, err);
    }
    linnet_http_response_release(&response);
    return status;
}
