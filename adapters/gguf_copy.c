/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tensors of a model on their way into a GGUF file. Those of GGUF files are borrowed as they are; those of a
 * checkpoint are made in their turn where they differ: llama.cpp wants the rows of llama's q and k with the
 * two elements that turn together beside each other, and vectors in F32.
 */
#include "gguf_copy.h"

#include <stdio.h>

#include "layout.h"
#include "limits.h"

/* Of a vector, each element is a row. */
static size_t columns_of(const linnet_gguf_tensor *tensor)
{
    return tensor->n_dims == 1 ? 1 : (size_t)tensor->dims[0];
}

static linnet_status produce(void *context, const char *name, void *bytes, size_t n_bytes, linnet_error *err)
{
    const linnet_gguf_tensor *tensor = context;
    size_t columns = columns_of(tensor), element_bytes = tensor->type == LINNET_TENSOR_F32 ? 4 : 2;
    size_t row_bytes = columns * element_bytes, rows = tensor->n_bytes / row_bytes;
    uint8_t *to = bytes;
    (void)name;
    (void)n_bytes;
    (void)err; /* nothing can fail */
    for (size_t r = 0; r < rows; r++) {
        size_t row = linnet_layout_hf_row(rows, tensor->n_hf_heads, r);
        if (tensor->n_dims == 1)
            linnet_store_f32(to + 4 * r, linnet_gguf_plain_value(tensor, row));
        else
            memcpy(to + r * row_bytes, tensor->bytes + row * row_bytes, row_bytes);
    }
    return LINNET_OK;
}

void linnet_gguf_copy_tensor(linnet_gguf_writer *writer, const linnet_gguf *model,
                             const linnet_gguf_tensor *tensor)
{
    char name[LINNET_GGUF_TENSOR_NAME_BYTES_MAX + 1];
    bool is_vector = tensor->n_dims == 1;
    (void)snprintf(name, sizeof(name), "%.*s", (int)tensor->name.n_bytes, tensor->name.bytes);
    if (!linnet_gguf_is_checkpoint(model) ||
        (tensor->n_hf_heads == 0 && (!is_vector || tensor->type == LINNET_TENSOR_F32)))
        linnet_gguf_writer_tensor(writer, name, tensor->type, tensor->n_dims, tensor->dims, tensor->bytes,
                                  tensor->n_bytes);
    else
        linnet_gguf_writer_tensor_produced(
            writer, name, is_vector ? LINNET_TENSOR_F32 : tensor->type, tensor->n_dims, tensor->dims,
            is_vector ? (size_t)tensor->dims[0] * sizeof(float) : tensor->n_bytes, produce,
            (void *)(uintptr_t)tensor); /* only read */
}
