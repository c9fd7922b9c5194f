/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_TOKENIZER_STATE_H
#define LINNET_TOKENIZER_STATE_H

/* What a tokenizer holds; shared by the vocabulary (tokenizer.c), the special tokens (tokenizer_special.c),
 * one file for each way from plain text to ids, and the way back (detokenizer.c). */

#include "linnet/tokenizer.h"

#define LINNET_SPACE_MARK "\xe2\x96\x81" /* U+2581 stands for a space in pieces */
#define LINNET_ENDS_MAX 32

typedef enum tokenizer_kind { TOKENIZER_SPM, TOKENIZER_BPE, TOKENIZER_WORDPIECE } tokenizer_kind;

typedef enum piece_type { /* GGUF's own numbers */
                          PIECE_NORMAL = 1,
                          PIECE_UNKNOWN,
                          PIECE_CONTROL,
                          PIECE_USER_DEFINED,
                          PIECE_UNUSED,
                          PIECE_BYTE
} piece_type;

/** The pre-tokenizer and the merges of byte pair encoding. */
typedef struct linnet_bpe linnet_bpe;

struct linnet_tokenizer {
    tokenizer_kind kind;
    uint32_t n_vocabulary;
    linnet_text *pieces; /* owned array of borrowed texts */
    float *scores;       /* SPM's, else NULL */
    uint8_t *types;      /* piece_type */
    int32_t *slots;      /* hash table of ids by piece, -1: free */
    size_t n_slots;      /* a power of two */
    size_t piece_bytes_max;
    int32_t byte_ids[256]; /* -1: no token for the byte */
    int32_t *specials;     /* ids of control, unknown and user-defined tokens, sorted by their pieces */
    size_t n_specials;
    bool starts_special[256], starts_user_defined[256]; /* by a piece's first byte */
    linnet_bpe *bpe;                                    /* BPE's, else NULL */
    int32_t begin, end, unknown;                        /* -1: none */
    int32_t last;                                       /* what END appends: the end token or a separator */
    int32_t ends[LINNET_ENDS_MAX];                      /* what ends a text or a turn; -1: nothing */
    size_t n_ends;
    bool adds_begin, adds_last, adds_prefix;
    bool keeps_words;               /* SPM: no piece reaches from one word into the next */
    bool strips_right;              /* white space behind a special token is part of it, as in Phi 3 */
    int32_t keeps_right[3];         /* but not behind these; -1: none */
    bool lower_case, strip_accents; /* WordPiece's */
    linnet_text chat_template;
};

/** The id of a piece, or -1. */
int32_t linnet_tokenizer_lookup(const linnet_tokenizer *t, const char *bytes, size_t n_bytes);

/** Find the tokens that are written in texts as they are; after the pieces are indexed. */
linnet_status linnet_specials_index(linnet_tokenizer *t, linnet_error *err) LINNET_NODISCARD;
/** The longest token written at the start of a text, or -1: user-defined ones, with `all` the others too. */
int32_t linnet_special_at(const linnet_tokenizer *t, const char *text, size_t n_bytes, bool all);

/** Append the ids of a stretch of plain text, with the space prefix in front where `prefix` and the metadata
 * ask for it. NOMEM leaves some of them appended. */
linnet_status linnet_spm_append(const linnet_tokenizer *t, const char *text, size_t n_bytes, bool prefix,
                                linnet_ids *ids) LINNET_NODISCARD;

/** Does no piece have a space mark behind another character? */
bool linnet_spm_keeps_words(const linnet_tokenizer *t);

/** Read what byte pair encoding needs into t->bpe and t->byte_ids, after the pieces are indexed. What is
 * there after a failure goes with the tokenizer. */
linnet_status linnet_bpe_create(linnet_tokenizer *t, const linnet_gguf *gguf,
                                linnet_error *err) LINNET_NODISCARD;
void linnet_bpe_destroy(linnet_bpe *bpe);
bool linnet_bpe_adds_begin(const linnet_bpe *bpe);
/** As linnet_spm_append; LIMIT too, see pretokenizer.h. */
linnet_status linnet_bpe_append(const linnet_tokenizer *t, const char *text, size_t n_bytes,
                                linnet_ids *ids) LINNET_NODISCARD;
/** As linnet_spm_append. */
linnet_status linnet_wordpiece_append(const linnet_tokenizer *t, const char *text, size_t n_bytes,
                                      linnet_ids *ids) LINNET_NODISCARD;
/** Append the bytes that a piece's characters stand for. */
void linnet_bpe_detokenize(linnet_text piece, linnet_buffer *text);

#endif
