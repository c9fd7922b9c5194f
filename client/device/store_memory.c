/* SPDX-License-Identifier: Apache-2.0 */

/* The key-value store of a simulated device: a short list in memory, with the same all-or-nothing commits as
 * the durable one. A device keeps a dozen values, so a linear search is the right index. */

#include "linnet/device.h"

#include <stdlib.h>

typedef struct memory_value {
    char *name;
    uint8_t *bytes;
    size_t n_bytes;
} memory_value;

typedef struct memory_store {
    memory_value *values;
    size_t n_values, capacity;
} memory_store;

static memory_value *memory_find(memory_store *store, const char *name)
{
    for (size_t i = 0; i < store->n_values; i++)
        if (strcmp(store->values[i].name, name) == 0)
            return &store->values[i];
    return NULL;
}

static linnet_status memory_get(void *context, const char *name, linnet_buffer *ret_bytes, linnet_error *err)
{
    memory_value *value = memory_find(context, name);
    if (!value)
        return linnet_fail(err, LINNET_ERR_NOT_FOUND, "the store has no value '%s'", name);
    linnet_buffer_append(ret_bytes, value->bytes, value->n_bytes);
    return ret_bytes->failed ? linnet_fail(err, LINNET_ERR_NOMEM, "value '%s'", name) : LINNET_OK;
}

static void value_free(memory_value *value)
{
    free(value->name);
    free(value->bytes);
    *value = (memory_value){0};
}

static bool value_make(const linnet_kv_item *item, memory_value *ret_value)
{
    memory_value value = {
        .name = strdup(item->name), .bytes = malloc(item->n_bytes + 1), .n_bytes = item->n_bytes};
    if (!value.name || !value.bytes) {
        value_free(&value);
        return false;
    }
    if (item->n_bytes > 0)
        memcpy(value.bytes, item->bytes, item->n_bytes);
    *ret_value = value;
    return true;
}

static bool memory_reserve(memory_store *store, size_t n_more)
{
    if (store->n_values + n_more <= store->capacity)
        return true;
    size_t capacity = 2 * store->capacity + n_more;
    memory_value *values = realloc(store->values, capacity * sizeof(*values));
    if (!values)
        return false;
    store->values = values;
    store->capacity = capacity;
    return true;
}

/* Cannot fail: the copy is made and there is room. */
static void memory_apply(memory_store *store, const linnet_kv_item *item, memory_value *made)
{
    memory_value *value = memory_find(store, item->name);
    if (item->bytes) {
        if (value)
            value_free(value);
        else
            value = &store->values[store->n_values++];
        *value = *made;
    } else if (value) {
        value_free(value);
        *value = store->values[--store->n_values];
    }
}

static linnet_status memory_put(void *context, const linnet_kv_item *items, size_t n_items, linnet_error *err)
{
    memory_store *store = context;
    memory_value *made = calloc(n_items + 1, sizeof(*made));
    bool good = made && memory_reserve(store, n_items);
    for (size_t i = 0; good && i < n_items; i++)
        good = !items[i].bytes || value_make(&items[i], &made[i]);
    for (size_t i = 0; i < n_items && made; i++) {
        if (good)
            memory_apply(store, &items[i], &made[i]);
        else
            value_free(&made[i]);
    }
    free(made);
    return good ? LINNET_OK : linnet_fail(err, LINNET_ERR_NOMEM, "commit of %zu values", n_items);
}

static void memory_close(void *context)
{
    memory_store *store = context;
    for (size_t i = 0; i < store->n_values; i++)
        value_free(&store->values[i]);
    free(store->values);
    free(store);
}

linnet_status linnet_kv_open_memory(linnet_kv *ret_kv, linnet_error *err)
{
    memory_store *store = calloc(1, sizeof(*store));
    if (!store)
        return linnet_fail(err, LINNET_ERR_NOMEM, "store");
    *ret_kv = (linnet_kv){.context = store, .get = memory_get, .put = memory_put, .close = memory_close};
    return LINNET_OK;
}
