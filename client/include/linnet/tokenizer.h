/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_TOKENIZER_H
#define LINNET_TOKENIZER_H

/* Text to token ids and back, from a GGUF file's own metadata. SPM: score merges, byte fallback, unknown
 * token, space prefix. */

#include "linnet/gguf.h"

typedef struct linnet_tokenizer linnet_tokenizer;

/** gguf is borrowed for the tokenizer's life. UNSUPPORTED names a tokenizer model linnet does not know;
 * FORMAT names what is wrong with the vocabulary. */
linnet_status linnet_tokenizer_create(const linnet_gguf *gguf, linnet_tokenizer **ret_tokenizer,
                                      linnet_error *err) LINNET_NODISCARD;
void linnet_tokenizer_destroy(linnet_tokenizer *tokenizer);
uint32_t linnet_tokenizer_vocabulary(const linnet_tokenizer *tokenizer);
int32_t linnet_tokenizer_begin(const linnet_tokenizer *tokenizer); /* -1: none */
int32_t linnet_tokenizer_end(const linnet_tokenizer *tokenizer);   /* -1: none */
bool linnet_tokenizer_adds_begin(const linnet_tokenizer *tokenizer);
/** The model's own chat template, borrowed; n_bytes 0: none. */
linnet_text linnet_tokenizer_chat_template(const linnet_tokenizer *tokenizer);

typedef struct linnet_ids {
    int32_t *items; /* owned */
    size_t n_items, capacity;
} linnet_ids;
void linnet_ids_release(linnet_ids *ids);
linnet_status linnet_ids_append(linnet_ids *ids, int32_t id) LINNET_NODISCARD;

typedef enum linnet_tokenize_flags {
    LINNET_TOKENIZE_PREFIX = 1,  /* the space prefix, where the metadata asks for one */
    LINNET_TOKENIZE_BEGIN = 2,   /* beginning-of-text in front, where the metadata says so */
    LINNET_TOKENIZE_SPECIAL = 4, /* control and user-defined tokens written in the text become their ids */
} linnet_tokenize_flags;

/** Append the ids of a text (any bytes; what is not UTF-8 goes through byte tokens or the unknown token). */
linnet_status linnet_tokenize(const linnet_tokenizer *tokenizer, const char *text, size_t n_bytes,
                              unsigned flags, linnet_ids *ids, linnet_error *err) LINNET_NODISCARD;
/** Append the text of one token: "▁" becomes a space, byte tokens their byte, control tokens nothing. */
void linnet_detokenize(const linnet_tokenizer *tokenizer, int32_t id, linnet_buffer *text);
/** A token's raw piece, borrowed; n_bytes 0 for an id out of range. */
linnet_text linnet_token_piece(const linnet_tokenizer *tokenizer, int32_t id);
/** The id of a piece, or -1. A piece that stands twice has its highest id. */
int32_t linnet_tokenizer_find(const linnet_tokenizer *tokenizer, const char *piece);

#endif
