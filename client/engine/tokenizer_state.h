/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_TOKENIZER_STATE_H
#define LINNET_TOKENIZER_STATE_H

/* What a tokenizer holds; shared by the vocabulary (tokenizer.c) and the merging (tokenizer_spm.c). */

#include "linnet/tokenizer.h"

#define LINNET_SPACE_MARK "\xe2\x96\x81" /* U+2581 stands for a space in pieces */

typedef enum piece_type { /* GGUF's own numbers */
                          PIECE_NORMAL = 1,
                          PIECE_UNKNOWN,
                          PIECE_CONTROL,
                          PIECE_USER_DEFINED,
                          PIECE_UNUSED,
                          PIECE_BYTE
} piece_type;

struct linnet_tokenizer {
    uint32_t n_vocabulary;
    linnet_text *pieces; /* owned array of borrowed texts */
    float *scores;
    uint8_t *types; /* piece_type */
    int32_t *slots; /* hash table of ids by piece, -1: free */
    size_t n_slots; /* a power of two */
    size_t piece_bytes_max;
    int32_t byte_ids[256]; /* -1: no token for the byte */
    int32_t *specials;     /* ids that SPECIAL finds in a text, by first byte, longer ones first */
    size_t n_specials;
    int32_t begin, end, unknown; /* -1: none */
    bool adds_begin, adds_prefix;
    linnet_text chat_template;
};

/** The id of a piece, or -1. */
int32_t linnet_tokenizer_lookup(const linnet_tokenizer *t, const char *bytes, size_t n_bytes);

/** Append the ids of a stretch of plain text, with the space prefix in front where `prefix` and the metadata
 * ask for it. NOMEM leaves some of them appended. */
linnet_status linnet_spm_append(const linnet_tokenizer *t, const char *text, size_t n_bytes, bool prefix,
                                linnet_ids *ids) LINNET_NODISCARD;

#endif
