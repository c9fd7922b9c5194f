/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ADAPTERS_GGUF_COPY_H
#define LINNET_ADAPTERS_GGUF_COPY_H

/* Inside of adapters: tensors of a model on their way into a GGUF file. */

#include "linnet/gguf.h"

#include "half.h"

static inline bool linnet_gguf_is_plain(uint32_t type)
{
    return type == LINNET_TENSOR_F32 || type == LINNET_TENSOR_F16 || type == LINNET_TENSOR_BF16;
}

/** Element i of a tensor of a plain type. */
static inline float linnet_gguf_plain_value(const linnet_gguf_tensor *tensor, size_t i)
{
    if (tensor->type == LINNET_TENSOR_F32)
        return linnet_load_f32(tensor->bytes + 4 * i);
    uint16_t half = linnet_load_le16(tensor->bytes + 2 * i);
    return tensor->type == LINNET_TENSOR_F16 ? linnet_f16_widen(half) : linnet_bf16_widen(half);
}

/** Add a tensor of the model as it is. That of a checkpoint becomes what GGUF has: rows of q and k in the
 * other order, vectors in F32. Model and tensor are borrowed until the file is written. */
void linnet_gguf_copy_tensor(linnet_gguf_writer *writer, const linnet_gguf *model,
                             const linnet_gguf_tensor *tensor);

#endif
