/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ADAPTERS_LIMITS_H
#define LINNET_ADAPTERS_LIMITS_H

/* Caps on what a file may ask for. They keep a hostile file from costing memory or time out of proportion to
 * its size; none of them is near what real files hold. */

/* A 70-billion-parameter model has under a thousand tensors, mixture-of-experts files a few thousand. */
#define LINNET_GGUF_TENSORS_MAX 65536
/* Files in use have a few dozen keys; vocabularies are arrays under one key. */
#define LINNET_GGUF_VALUES_MAX 65536
/* Files of one model: the largest in use have some 200. Each is mapped. */
#define LINNET_GGUF_PARTS_MAX 1024
/* The format's own limits (GGUF v3, "gguf_metadata_kv_t" and "gguf_tensor_info_t"). */
#define LINNET_GGUF_KEY_BYTES_MAX 65535
#define LINNET_GGUF_TENSOR_NAME_BYTES_MAX 64
/* Tensor data is aligned so that it can be used in place; 32 is the default, a page is the most that makes
 * sense. */
#define LINNET_GGUF_ALIGNMENT_DEFAULT 32
#define LINNET_GGUF_ALIGNMENT_MIN 8
#define LINNET_GGUF_ALIGNMENT_MAX 65536

/* peft's own file has under twenty keys; target lists name at most some thousand modules. */
#define LINNET_PEFT_CONFIG_BYTES_MAX ((size_t)1 << 20)
/* Two tensors for each of LINNET_LAYOUT_ENTRIES_MAX matrices. */
#define LINNET_SAFETENSORS_TENSORS_MAX 8192
/* config.json has some 30 keys; the others are lists of tokens, and of tensors and their files. */
#define LINNET_CONFIG_BYTES_MAX ((size_t)1 << 20)
#define LINNET_TOKENIZER_CONFIG_BYTES_MAX ((size_t)16 << 20)
#define LINNET_INDEX_BYTES_MAX ((size_t)16 << 20)
/* Vocabularies of 2^18 tokens with their merges take some 35 MB; a value for each token, three for a merge.
 */
#define LINNET_TOKENIZER_BYTES_MAX ((size_t)64 << 20)
#define LINNET_TOKENIZER_VALUES_MAX ((size_t)4 << 20)
#define LINNET_TOKENS_MAX ((size_t)1 << 20)
/* SentencePiece stops at 16 characters; looking for the parts of a piece takes the square of this. */
#define LINNET_PIECE_BYTES_MAX 128
/* The largest checkpoints in use have some 200 files. */
#define LINNET_SHARDS_MAX 1024
/* JSON of these files nests to 4; jansson recurses, and each value costs some 50 bytes, so both are bounded
 * before it. */
#define LINNET_JSON_DEPTH_MAX 16
#define LINNET_JSON_VALUES_MAX ((size_t)256 << 10)
/* A head count above this is no model; it also bounds the row permutation's arithmetic. */
#define LINNET_HEADS_MAX 65536
/* Coordinates of a ring vector: the floats of the largest adapter; their packed bytes fit in 32-bit sizes. */
#define LINNET_RING_LENGTH_MAX ((uint64_t)1 << 28)
/* Scales 2^f with |f| up to this: any float32 times 2^(f + 32) is exact and finite in a double. */
#define LINNET_RING_EXPONENT_MAX 126

#endif
