/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ADAPTERS_CHECKPOINT_H
#define LINNET_ADAPTERS_CHECKPOINT_H

/* Inside of adapters: a checkpoint of Hugging Face seen as a GGUF file. */

#include "linnet/architecture.h"

/** What config.json says that others need; the rest goes straight into keys. */
typedef struct checkpoint_config {
    const linnet_architecture *architecture; /* llama's, qwen2's or bert's row */
    uint32_t n_layers, n_heads, n_kv_heads, head_width, vocabulary;
    uint32_t biases;    /* mask of linnet_target: those that have one, and no others */
    bool is_tied;       /* the embedding is the output matrix too */
    float *factors;     /* owned by the caller: head_width / 2 divisors of llama3's frequencies; NULL: none */
    int64_t begin, end; /* token ids; -1: it does not say */
} checkpoint_config;

/** Read config.json and add the keys of the architecture. UNSUPPORTED names a setting that linnet would not
 * compute. */
linnet_status linnet_checkpoint_read_config(const char *directory, linnet_gguf_writer *writer,
                                            checkpoint_config *ret_config,
                                            linnet_error *err) LINNET_NODISCARD;
/** Read tokenizer.json and what stands beside it, and add tokenizer.*. UNSUPPORTED names a part of it that
 * linnet's tokenizer would not follow. */
linnet_status linnet_checkpoint_read_tokenizer(const char *directory, const checkpoint_config *config,
                                               linnet_gguf_writer *writer,
                                               linnet_error *err) LINNET_NODISCARD;

typedef struct checkpoint checkpoint;
linnet_status linnet_checkpoint_open(const char *directory, linnet_gguf **ret_gguf,
                                     linnet_error *err) LINNET_NODISCARD;
/** Takes NULL. */
void linnet_checkpoint_release(checkpoint *c);
size_t linnet_checkpoint_n_bytes(const checkpoint *c); /* of its weights' files */

#endif
