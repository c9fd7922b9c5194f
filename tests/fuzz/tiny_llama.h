/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FUZZ_TINY_LLAMA_H
#define FUZZ_TINY_LLAMA_H

/* A model of one layer with attn_q (8 x 8, two heads) and attn_v (4 x 8), made once in a folder of its own.
 */

#include "linnet/adapter.h"

#include <stdio.h>
#include <stdlib.h>

/** The model; `folder` becomes the path of a fresh folder. NULL where files cannot be made. */
static inline linnet_gguf *tiny_llama(char folder[40])
{
    static const float weights[64];
    linnet_gguf *model = NULL;
    char path[64];
    (void)snprintf(folder, 40, "%s", "/dev/shm/linnet-fuzz-XXXXXX"); /* in memory, for speed */
    if (!mkdtemp(folder)) {
        (void)snprintf(folder, 40, "%s", "/tmp/linnet-fuzz-XXXXXX");
        if (!mkdtemp(folder))
            return NULL;
    }
    (void)snprintf(path, sizeof(path), "%s/model.gguf", folder);
    linnet_gguf_writer *writer = linnet_gguf_writer_create();
    linnet_gguf_writer_text(writer, "general.architecture", "llama");
    linnet_gguf_writer_u32(writer, "llama.block_count", 1);
    linnet_gguf_writer_u32(writer, "llama.attention.head_count", 2);
    linnet_gguf_writer_tensor(writer, "blk.0.attn_q.weight", LINNET_TENSOR_F32, 2, (const uint64_t[]){8, 8},
                              weights, 256);
    linnet_gguf_writer_tensor(writer, "blk.0.attn_v.weight", LINNET_TENSOR_F32, 2, (const uint64_t[]){8, 4},
                              weights, 128);
    if (linnet_gguf_writer_write(writer, path, NULL) == LINNET_OK &&
        linnet_gguf_open(path, &model, NULL) != LINNET_OK)
        model = NULL;
    linnet_gguf_writer_destroy(writer);
    return model;
}

#endif
