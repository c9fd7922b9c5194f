/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_TOKENIZER_H
#define LINNET_TOKENIZER_H

/* Text to token ids and back, from a GGUF file's own metadata: SPM (score merges, byte fallback, space
 * prefix), byte pair encoding with the pre-tokenizers of its families, and WordPiece. A tokenizer does not
 * change once it is made: threads may share one. */

#include "linnet/gguf.h"

typedef struct linnet_tokenizer linnet_tokenizer;

/** gguf is borrowed for the tokenizer's life. UNSUPPORTED names a tokenizer or pre-tokenizer linnet does not
 * know; FORMAT names what is wrong with the vocabulary. */
linnet_status linnet_tokenizer_create(const linnet_gguf *gguf, linnet_tokenizer **ret_tokenizer,
                                      linnet_error *err) LINNET_NODISCARD;
void linnet_tokenizer_destroy(linnet_tokenizer *tokenizer);
uint32_t linnet_tokenizer_vocabulary(const linnet_tokenizer *tokenizer);
int32_t linnet_tokenizer_begin(const linnet_tokenizer *tokenizer); /* -1: none */
int32_t linnet_tokenizer_end(const linnet_tokenizer *tokenizer);   /* -1: none */
bool linnet_tokenizer_adds_begin(const linnet_tokenizer *tokenizer);
/** Does a model end its text or its turn with this token? The end token, those that the file names for turns,
 * and control tokens by the names that families give them. */
bool linnet_tokenizer_is_end(const linnet_tokenizer *tokenizer, int32_t id);
/** Is white space behind this token, where it stands in a text, part of it? */
bool linnet_tokenizer_strips_right(const linnet_tokenizer *tokenizer, int32_t id);
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
    LINNET_TOKENIZE_SPECIAL = 4, /* control tokens written in the text become their ids */
    LINNET_TOKENIZE_END = 8,     /* end-of-text or a separator behind, where the metadata says so */
} linnet_tokenize_flags;

/** Append the ids of a text: any bytes. What is not UTF-8 goes through byte tokens, the unknown token, or for
 * lack of both gives none. User-defined tokens written in the text always become their ids. */
linnet_status linnet_tokenize(const linnet_tokenizer *tokenizer, const char *text, size_t n_bytes,
                              unsigned flags, linnet_ids *ids, linnet_error *err) LINNET_NODISCARD;
/** Append the text of one token: "▁" becomes a space, byte tokens their byte, control tokens nothing. */
void linnet_detokenize(const linnet_tokenizer *tokenizer, int32_t id, linnet_buffer *text);
/** Ids as they come, into text that never ends within a character. */
typedef struct linnet_detokenizer {
    const linnet_tokenizer *tokenizer; /* borrowed */
    uint8_t held[4];                   /* the start of a character */
    size_t n_held;
} linnet_detokenizer;
void linnet_detokenizer_init(linnet_detokenizer *d, const linnet_tokenizer *tokenizer);
/** Append what is complete with this token; bytes that are no UTF-8 as they are. */
void linnet_detokenizer_push(linnet_detokenizer *d, int32_t id, linnet_buffer *text);
/** Append what is left at the end. */
void linnet_detokenizer_finish(linnet_detokenizer *d, linnet_buffer *text);

/** A token's raw piece, borrowed; n_bytes 0 for an id out of range. */
linnet_text linnet_token_piece(const linnet_tokenizer *tokenizer, int32_t id);
/** The id of a piece, or -1. A piece that stands twice has its highest id. */
int32_t linnet_tokenizer_find(const linnet_tokenizer *tokenizer, const char *piece);

#endif
