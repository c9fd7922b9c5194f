/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VECTOR_MODEL_H
#define VECTOR_MODEL_H

/* The cases of tests/vectors/architectures.json (tests/reference/architectures.py) as model files: keys as
 * they stand there, weights from the names of their tensors by the rule of that script. */

#include <math.h>
#include <unistd.h>

#include "crypto/vectors.h"
#include "linnet/model.h"

enum { VECTOR_IDS_MAX = 64 };

typedef struct vector_model {
    const json_t *object; /* borrowed */
    char path[64];
    linnet_model *model;
    int32_t ids[VECTOR_IDS_MAX];
    uint8_t counted[VECTOR_IDS_MAX];
    size_t n_ids;
    bool has_label; /* an encoder's case */
    uint32_t label;
} vector_model;

/* Element i of a tensor, in -1 .. 1. */
static inline double vector_uniform(const char *name, uint64_t i)
{
    uint64_t seed = 0xcbf29ce484222325u;
    for (; *name; name++)
        seed = (seed ^ (uint8_t)*name) * 0x100000001b3u;
    uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return 2 * ((double)(z >> 40) / 0x1p24) - 1;
}

static inline double vector_number(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    assert_true(json_is_number(value));
    return json_number_value(value);
}

static inline void vector_write_texts(linnet_gguf_writer *writer, const char *name, const json_t *texts)
{
    linnet_buffer elements = {0};
    for (size_t i = 0; i < json_array_size(texts); i++) {
        const char *text = json_string_value(json_array_get(texts, i));
        assert_non_null(text);
        linnet_buffer_append_le64(&elements, strlen(text));
        linnet_buffer_append_text(&elements, text);
    }
    linnet_gguf_writer_array(writer, name, LINNET_GGUF_STRING, json_array_size(texts), &elements);
    linnet_buffer_release(&elements);
}

static inline void vector_write_key(linnet_gguf_writer *writer, const json_t *key)
{
    const char *name = json_string_value(json_array_get(key, 0));
    const char *kind = json_string_value(json_array_get(key, 1));
    const json_t *value = json_array_get(key, 2);
    assert_true(name && kind);
    if (strcmp(kind, "u32") == 0)
        linnet_gguf_writer_u32(writer, name, (uint32_t)json_integer_value(value));
    else if (strcmp(kind, "bool") == 0)
        linnet_gguf_writer_bool(writer, name, json_is_true(value));
    else if (strcmp(kind, "texts") == 0)
        vector_write_texts(writer, name, value);
    else if (strcmp(kind, "f32") == 0)
        linnet_gguf_writer_f32(writer, name, (float)json_number_value(value));
    else
        linnet_gguf_writer_text(writer, name, json_string_value(value));
}

/* Returns the values, which the caller frees. */
static inline float *vector_write_tensor(linnet_gguf_writer *writer, const json_t *tensor)
{
    const char *name = vector_text(tensor, "name");
    const json_t *dims = json_object_get(tensor, "dims"), *given = json_object_get(tensor, "values");
    uint64_t shape[2] = {1, 1};
    for (size_t d = 0; d < json_array_size(dims); d++)
        shape[d] = (uint64_t)json_integer_value(json_array_get(dims, d));
    size_t n = (size_t)(shape[0] * shape[1]);
    float *values = malloc(n * sizeof(float));
    assert_non_null(values);
    for (size_t i = 0; i < n; i++)
        values[i] = given ? (float)json_number_value(json_array_get(given, i))
                          : (float)(vector_number(tensor, "centre") +
                                    vector_number(tensor, "spread") * vector_uniform(name, i));
    linnet_gguf_writer_tensor(writer, name, LINNET_TENSOR_F32, (uint32_t)json_array_size(dims), shape, values,
                              n * sizeof(float));
    return values;
}

/* Without the tensor of this name, unless NULL. */
static inline void vector_write_file(vector_model *m, const char *without)
{
    linnet_error err = {0};
    linnet_gguf_writer *writer = linnet_gguf_writer_create();
    const json_t *tensors = json_object_get(m->object, "tensors"), *keys = json_object_get(m->object, "keys");
    size_t n = json_array_size(tensors);
    float **values = calloc(n, sizeof(*values));
    assert_true(writer && values);
    linnet_gguf_writer_text(writer, "general.architecture", vector_text(m->object, "architecture"));
    for (size_t i = 0; i < json_array_size(keys); i++)
        vector_write_key(writer, json_array_get(keys, i));
    for (size_t i = 0; i < n; i++)
        if (!without || strcmp(without, vector_text(json_array_get(tensors, i), "name")) != 0)
            values[i] = vector_write_tensor(writer, json_array_get(tensors, i));
    (void)snprintf(m->path, sizeof(m->path), "/tmp/linnet-vector-%ld-XXXXXX", (long)getpid());
    int fd = mkstemp(m->path);
    assert_true(fd >= 0);
    (void)close(fd);
    assert_ok(linnet_gguf_writer_write(writer, m->path, &err), &err);
    linnet_gguf_writer_destroy(writer);
    for (size_t i = 0; i < n; i++)
        free(values[i]);
    free(values);
}

static inline vector_model vector_model_open(const json_t *object)
{
    vector_model m = {.object = object};
    linnet_error err = {0};
    const json_t *ids = json_object_get(object, "ids");
    m.n_ids = json_array_size(ids);
    assert_in_range(m.n_ids, 2, VECTOR_IDS_MAX);
    for (size_t i = 0; i < m.n_ids; i++) {
        m.ids[i] = (int32_t)json_integer_value(json_array_get(ids, i));
        m.counted[i] = 1;
    }
    m.has_label = json_object_get(object, "label") != NULL;
    m.label = m.has_label ? (uint32_t)vector_integer(object, "label") : 0;
    vector_write_file(&m, NULL);
    assert_ok(linnet_model_open(m.path, &m.model, &err), &err);
    return m;
}

static inline void vector_model_close(vector_model *m)
{
    linnet_model_close(m->model);
    (void)unlink(m->path);
}

/** The case's adapter: every matrix of the model, factors from their names. */
static inline linnet_adapter *vector_adapter(const vector_model *m)
{
    const json_t *lora = json_object_get(m->object, "lora");
    linnet_layout *layout = NULL;
    linnet_adapter *adapter = NULL;
    linnet_error err = {0};
    assert_ok(linnet_layout_create(linnet_model_gguf(m->model), (uint32_t)vector_integer(lora, "rank"),
                                   (float)vector_number(lora, "alpha"), LINNET_TARGETS_ALL, &layout, &err),
              &err);
    assert_ok(linnet_adapter_create(layout, &adapter, &err), &err);
    for (size_t e = 0; e < layout->n_entries; e++) {
        const linnet_layout_entry *entry = &layout->entries[e];
        char name[80];
        (void)snprintf(name, sizeof(name), "%s.lora_a", entry->name);
        for (size_t i = 0; i < (size_t)entry->rank * entry->columns; i++)
            linnet_adapter_a(adapter, e)[i] =
                (float)(vector_number(lora, "spread_a") * vector_uniform(name, i));
        (void)snprintf(name, sizeof(name), "%s.lora_b", entry->name);
        for (size_t i = 0; i < (size_t)entry->rank * entry->rows; i++)
            linnet_adapter_b(adapter, e)[i] =
                (float)(vector_number(lora, "spread_b") * vector_uniform(name, i));
    }
    linnet_layout_destroy(layout);
    return adapter;
}

#endif
