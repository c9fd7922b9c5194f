/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_TEST_VECTORS_H
#define LINNET_TEST_VECTORS_H

/* Reading tests/vectors: JSON objects whose byte strings are hexadecimal. Anything missing fails the test. */

#include "testing.h"

#include "linnet/bytes.h"
#include "linnet/hash.h"

#include <jansson.h>

typedef struct vector_bytes {
    uint8_t bytes[4096];
    size_t n_bytes;
} vector_bytes;

static inline json_t *vectors_load(const char *name)
{
    char path[1024];
    json_error_t error;
    (void)snprintf(path, sizeof(path), "%s/%s", LINNET_VECTORS, name);
    json_t *root = json_load_file(path, 0, &error);
    if (!root)
        fail_msg("%s: %s", path, error.text);
    return root;
}

static inline const char *vector_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    if (!text)
        fail_msg("no text '%s'", name);
    return text;
}

static inline uint64_t vector_integer(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    assert_true(json_is_integer(value));
    return (uint64_t)json_integer_value(value);
}

static inline vector_bytes vector_hex(const json_t *object, const char *name)
{
    vector_bytes v;
    const char *text = vector_text(object, name);
    v.n_bytes = strlen(text) / 2;
    assert_true(v.n_bytes <= sizeof(v.bytes));
    if (linnet_hex_read(text, v.bytes, v.n_bytes) != LINNET_OK)
        fail_msg("'%s' is no hexadecimal", name);
    return v;
}

/** The bytes of a field whose length is fixed. */
static inline void vector_copy(const json_t *object, const char *name, void *bytes, size_t n_bytes)
{
    vector_bytes v = vector_hex(object, name);
    assert_int_equal(v.n_bytes, n_bytes);
    memcpy(bytes, v.bytes, n_bytes);
}

#define assert_vector(object, name, got, n_got)                                                              \
    do {                                                                                                     \
        vector_bytes want_ = vector_hex(object, name);                                                       \
        assert_int_equal(want_.n_bytes, n_got);                                                              \
        if (memcmp(want_.bytes, got, want_.n_bytes) != 0)                                                    \
            fail_msg("'%s' differs from its vector", name);                                                  \
    } while (0)

/** Group setup of every program here. */
static inline int crypto_start(void **state)
{
    (void)state;
    linnet_error err;
    return linnet_crypto_init(&err) == LINNET_OK ? 0 : -1;
}

#endif
