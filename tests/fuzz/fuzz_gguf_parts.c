/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as the files of a split model: they open or fail, and what opens can be read to its last byte.
 * The first byte says how many files follow, each behind its length in three bytes. */
#include "linnet/gguf.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

enum { PARTS_MAX = 8 };

static volatile uint64_t sink; /* keeps the reads */

/* Each part in a block of its own, so that a sanitizer sees its end. */
static size_t cut(const uint8_t *data, size_t n_bytes, linnet_map parts[PARTS_MAX])
{
    linnet_reader reader = linnet_reader_of(data, n_bytes);
    size_t n = linnet_reader_u8(&reader) % PARTS_MAX + 1, n_made = 0;
    while (n_made < n && !reader.failed) {
        const uint8_t *length = linnet_reader_take(&reader, 3);
        size_t n_left = reader.n_bytes - reader.at, n_part = 0;
        if (length)
            n_part = (size_t)length[0] | (size_t)length[1] << 8 | (size_t)length[2] << 16;
        n_part = n_part < n_left ? n_part : n_left;
        uint8_t *copy = malloc(n_part + 1);
        if (!copy)
            break;
        if (n_part > 0)
            memcpy(copy, linnet_reader_take(&reader, n_part), n_part);
        parts[n_made++] = (linnet_map){.bytes = copy, .n_bytes = n_part};
    }
    return n_made;
}

static void read_model(const linnet_gguf *gguf)
{
    for (size_t i = 0; i < linnet_gguf_n_values(gguf); i++)
        sink += linnet_gguf_value_at(gguf, i)->n_bytes;
    for (size_t i = 0; i < linnet_gguf_n_tensors(gguf); i++) {
        const linnet_gguf_tensor *tensor = linnet_gguf_tensor_at(gguf, i);
        char name[80];
        memcpy(name, tensor->name.bytes, tensor->name.n_bytes); /* at most 64 */
        name[tensor->name.n_bytes] = '\0';
        if (linnet_gguf_find_tensor(gguf, name) != tensor)
            abort();
        sink += tensor->bytes[0] + tensor->bytes[tensor->n_bytes - 1];
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    linnet_map parts[PARTS_MAX];
    linnet_gguf *gguf = NULL;
    linnet_error err = {0};
    linnet_hash hash;
    size_t n = cut(data, n_bytes, parts);
    if (linnet_gguf_open_parts(parts, n, &gguf, &err) == LINNET_OK) {
        read_model(gguf);
        if (linnet_gguf_hash(gguf, &hash, &err) != LINNET_OK)
            abort();
    }
    linnet_gguf_close(gguf);
    for (size_t i = 0; i < n; i++)
        free((void *)(uintptr_t)parts[i].bytes);
    return 0;
}
