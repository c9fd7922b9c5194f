/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SPLIT_MODEL_H
#define SPLIT_MODEL_H

/* A model in several files, as gguf-split writes them: u16 split.no and split.count, i32 split.tensors.count.
 */

#include "testing.h"

#include "linnet/gguf.h"

#include <stdio.h>

/** One file of a split model. */
typedef struct split_part {
    uint32_t no, count, n_all; /* what the keys say */
    size_t first, n_tensors;   /* which tensors of the model it has */
    bool has_values;           /* those of the model */
} split_part;

static inline void split_put(linnet_gguf_writer *writer, const char *name, linnet_gguf_kind kind,
                             uint32_t number)
{
    uint8_t bytes[4];
    linnet_store_le32(bytes, number);
    linnet_gguf_value value = {.name = {name, strlen(name)},
                               .kind = kind,
                               .bytes = bytes,
                               .n_bytes = kind == LINNET_GGUF_U16 ? 2 : 4};
    linnet_gguf_writer_copy(writer, &value);
}

static inline void split_write_part(const linnet_gguf *model, const split_part *part, const char *path)
{
    linnet_error err = {0};
    linnet_gguf_writer *writer = linnet_gguf_writer_create();
    for (size_t i = 0; part->has_values && i < linnet_gguf_n_values(model); i++)
        linnet_gguf_writer_copy(writer, linnet_gguf_value_at(model, i));
    split_put(writer, "split.no", LINNET_GGUF_U16, part->no);
    split_put(writer, "split.count", LINNET_GGUF_U16, part->count);
    split_put(writer, "split.tensors.count", LINNET_GGUF_I32, part->n_all);
    for (size_t i = part->first; i < part->first + part->n_tensors; i++) {
        const linnet_gguf_tensor *tensor = linnet_gguf_tensor_at(model, i);
        char name[80];
        (void)snprintf(name, sizeof(name), "%.*s", (int)tensor->name.n_bytes, tensor->name.bytes);
        linnet_gguf_writer_tensor(writer, name, tensor->type, tensor->n_dims, tensor->dims, tensor->bytes,
                                  tensor->n_bytes);
    }
    assert_ok(linnet_gguf_writer_write(writer, path, &err), &err);
    linnet_gguf_writer_destroy(writer);
}

/** "STEM-00001-of-00003.gguf" in one of four static buffers; no starts at 0. */
static inline const char *split_path(const char *stem, uint32_t no, uint32_t count)
{
    static char paths[4][256];
    static unsigned next;
    char *path = paths[next++ % 4];
    (void)snprintf(path, sizeof(paths[0]), "%s-%05u-of-%05u.gguf", stem, (unsigned)no + 1, (unsigned)count);
    return path;
}

/** Write a model as `count` files of about as many tensors. */
static inline void split_model(const linnet_gguf *model, const char *stem, uint32_t count)
{
    size_t n = linnet_gguf_n_tensors(model), at = 0;
    for (uint32_t no = 0; no < count; no++) {
        size_t end = n * (no + 1) / count;
        split_part part = {no, count, (uint32_t)n, at, end - at, no == 0};
        split_write_part(model, &part, split_path(stem, no, count));
        at = end;
    }
}

#endif
