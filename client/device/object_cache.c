/* SPDX-License-Identifier: Apache-2.0 */

/* Where plans and packed adapters stay: files named by their hash on a device, one shared table in a
 * simulator. The device verifies an object before it puts it and again when it loads it, so a cache is never
 * trusted. */

#include "linnet/device.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "linnet/file.h"
#include "linnet/limits.h"

/* ---- files ---- */

typedef struct file_cache {
    char *directory; /* .../objects */
} file_cache;

static char *object_path(const file_cache *cache, const linnet_hash *hash)
{
    char name[2 * LINNET_HASH_BYTES + 1];
    linnet_hex_write(hash->bytes, LINNET_HASH_BYTES, name);
    return linnet_path_join(cache->directory, name);
}

static linnet_status files_get(void *context, const linnet_hash *hash, linnet_buffer *ret_bytes,
                               linnet_error *err)
{
    char *path = object_path(context, hash);
    if (!path)
        return linnet_fail(err, LINNET_ERR_NOMEM, "object path");
    linnet_status status = linnet_file_read(path, LINNET_OBJECT_BYTES_MAX, ret_bytes, err);
    free(path);
    return status;
}

static linnet_status files_put(void *context, const linnet_hash *hash, const void *bytes, size_t n_bytes,
                               linnet_error *err)
{
    char *path = object_path(context, hash);
    if (!path)
        return linnet_fail(err, LINNET_ERR_NOMEM, "object path");
    linnet_status status = linnet_file_write(path, bytes, n_bytes, 0600, err);
    free(path);
    return status;
}

static void files_forget(void *context, const linnet_hash *hash)
{
    char *path = object_path(context, hash);
    if (path)
        (void)unlink(path); /* a file that stays costs room only */
    free(path);
}

linnet_status linnet_object_cache_open_files(const char *directory, linnet_object_cache *ret_cache,
                                             linnet_error *err)
{
    file_cache *cache = calloc(1, sizeof(*cache));
    linnet_status status = LINNET_OK;
    if (cache)
        cache->directory = linnet_path_join(directory, "objects");
    if (!cache || !cache->directory)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "object cache");
    else
        status = linnet_directory_create(cache->directory, err);
    if (status == LINNET_OK) {
        *ret_cache = (linnet_object_cache){
            .context = cache, .get = files_get, .put = files_put, .forget = files_forget};
        return LINNET_OK;
    }
    if (cache)
        free(cache->directory);
    free(cache);
    return status;
}

/* ---- memory, shared by many devices and threads ---- */

/* Past this the oldest objects go: a device that still names one fetches it again. */
#define MEMORY_BYTES_MAX ((size_t)512 << 20)

typedef struct memory_object {
    linnet_hash hash;
    uint8_t *bytes;
    size_t n_bytes;
} memory_object;

typedef struct memory_cache {
    pthread_mutex_t mutex;
    memory_object *objects; /* oldest first */
    size_t n_objects, capacity, n_bytes;
} memory_cache;

static memory_object *memory_find(memory_cache *cache, const linnet_hash *hash)
{
    for (size_t i = cache->n_objects; i-- > 0;) /* the newest are asked for most */
        if (memcmp(cache->objects[i].hash.bytes, hash->bytes, LINNET_HASH_BYTES) == 0)
            return &cache->objects[i];
    return NULL;
}

static linnet_status memory_get(void *context, const linnet_hash *hash, linnet_buffer *ret_bytes,
                                linnet_error *err)
{
    memory_cache *cache = context;
    pthread_mutex_lock(&cache->mutex);
    const memory_object *object = memory_find(cache, hash);
    if (object)
        linnet_buffer_append(ret_bytes, object->bytes, object->n_bytes);
    pthread_mutex_unlock(&cache->mutex);
    if (!object)
        return linnet_fail(err, LINNET_ERR_NOT_FOUND, "the object is not in the cache");
    return ret_bytes->failed ? linnet_fail(err, LINNET_ERR_NOMEM, "object") : LINNET_OK;
}

static void memory_drop_oldest(memory_cache *cache)
{
    cache->n_bytes -= cache->objects[0].n_bytes;
    free(cache->objects[0].bytes);
    cache->n_objects--;
    memmove(cache->objects, cache->objects + 1, cache->n_objects * sizeof(*cache->objects));
}

static bool memory_add(memory_cache *cache, const linnet_hash *hash, const void *bytes, size_t n_bytes)
{
    if (cache->n_objects == cache->capacity) {
        size_t capacity = 2 * cache->capacity + 16;
        memory_object *objects = realloc(cache->objects, capacity * sizeof(*objects));
        if (!objects)
            return false;
        cache->objects = objects;
        cache->capacity = capacity;
    }
    uint8_t *copy = malloc(n_bytes + 1);
    if (!copy)
        return false;
    if (n_bytes > 0)
        memcpy(copy, bytes, n_bytes);
    while (cache->n_objects > 0 && cache->n_bytes + n_bytes > MEMORY_BYTES_MAX)
        memory_drop_oldest(cache);
    cache->objects[cache->n_objects++] = (memory_object){.hash = *hash, .bytes = copy, .n_bytes = n_bytes};
    cache->n_bytes += n_bytes;
    return true;
}

static linnet_status memory_put(void *context, const linnet_hash *hash, const void *bytes, size_t n_bytes,
                                linnet_error *err)
{
    memory_cache *cache = context;
    pthread_mutex_lock(&cache->mutex);
    bool good = memory_find(cache, hash) || memory_add(cache, hash, bytes, n_bytes);
    pthread_mutex_unlock(&cache->mutex);
    return good ? LINNET_OK : linnet_fail(err, LINNET_ERR_NOMEM, "object of %zu bytes", n_bytes);
}

static void memory_forget(void *context, const linnet_hash *hash)
{
    (void)context; /* others may still need it: age decides */
    (void)hash;
}

linnet_status linnet_object_cache_open_memory(linnet_object_cache *ret_cache, linnet_error *err)
{
    memory_cache *cache = calloc(1, sizeof(*cache));
    if (!cache || pthread_mutex_init(&cache->mutex, NULL) != 0) {
        free(cache);
        return linnet_fail(err, LINNET_ERR_NOMEM, "object cache");
    }
    *ret_cache = (linnet_object_cache){
        .context = cache, .get = memory_get, .put = memory_put, .forget = memory_forget};
    return LINNET_OK;
}

void linnet_object_cache_close(linnet_object_cache *cache)
{
    if (cache->get == files_get) {
        file_cache *files = cache->context;
        free(files->directory);
        free(files);
    } else if (cache->get == memory_get) {
        memory_cache *memory = cache->context;
        while (memory->n_objects > 0)
            memory_drop_oldest(memory);
        free(memory->objects);
        pthread_mutex_destroy(&memory->mutex);
        free(memory);
    }
    *cache = (linnet_object_cache){0};
}
