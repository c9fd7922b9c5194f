/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_DATASET_H
#define LINNET_DATASET_H

/* JSON Lines of records: {"text"}, {"prompt","completion"} or {"messages":[{"role","content"}]}, for an
 * encoder {"text","label"}, each with an optional "client" and "unit" (all records of one unit, a patient's
 * say, are one contribution to record-level privacy); other keys are ignored. How a record becomes ids and is
 * cut: DESIGN.md, section 2; a text with a label becomes all its ids, with the begin and end that the
 * tokenizer gives a text. */

#include "linnet/model.h"
#include "linnet/tokenizer.h"

#define LINNET_RECORD_BYTES_MAX ((size_t)8 << 20) /* a line longer than this is refused */

typedef enum linnet_record_kind {
    LINNET_RECORD_TEXT,
    LINNET_RECORD_COMPLETION,
    LINNET_RECORD_MESSAGES
} linnet_record_kind;

typedef struct linnet_message {
    char *role, *content; /* owned */
} linnet_message;

typedef struct linnet_record {
    linnet_record_kind kind;
    char *client;             /* owned, NULL where absent */
    char *unit;               /* owned, NULL where absent: the record is a unit of its own */
    char *text;               /* TEXT; for COMPLETION the prompt */
    char *completion;         /* COMPLETION */
    linnet_message *messages; /* MESSAGES */
    size_t n_messages;
    /* Of a TEXT, for models that classify; others take no notice. */
    bool has_label, has_pair; /* it has a "label"; a "text_pair" */
    char *label;              /* its name, owned; NULL where the record has its number */
    uint32_t label_index;     /* that number; UINT32_MAX: it is no number of a label */
    size_t line;              /* in its file, from 1 */
} linnet_record;

typedef struct linnet_dataset {
    linnet_record *records; /* owned */
    size_t n_records, capacity;
    size_t n_skipped; /* bad lines passed over, with skip_bad */
    char *path;       /* owned: the file that they are from; NULL: none */
} linnet_dataset;

/** An empty set, to add to; NULL on lack of memory. */
linnet_dataset *linnet_dataset_create(void);
/** Add a record, which moves, also where it fails (NOMEM). Its `line` is kept. */
linnet_status linnet_dataset_add(linnet_dataset *dataset, linnet_record *record,
                                 linnet_error *err) LINNET_NODISCARD;
/** Read a file. A bad line fails with "FILE:LINE: what", or is counted and passed over with skip_bad. */
linnet_status linnet_dataset_load(const char *path, bool skip_bad, linnet_dataset **ret_dataset,
                                  linnet_error *err) LINNET_NODISCARD;
/** One line (without its newline) into a record; the record is released by the caller. For the loader and the
 * fuzzer. */
linnet_status linnet_record_parse(const char *line, size_t n_bytes, linnet_record *ret_record,
                                  linnet_error *err) LINNET_NODISCARD;
void linnet_record_release(linnet_record *record);
void linnet_dataset_destroy(linnet_dataset *dataset);

typedef struct linnet_encoding {
    uint32_t context_tokens; /* longest sequence, begin token included */
    bool end_token; /* completions, texts and assistant contents end with end-of-text, which counts */
    const linnet_model *model; /* for which, borrowed: an encoder's records have its labels. NULL: a language
                                  model */
} linnet_encoding;

/** A record's ids and counted flags, cut to the context, and its label where it has one, which is then its
 * one counted target; owned arrays, released with linnet_tokens_release. */
typedef struct linnet_tokens {
    int32_t *ids;
    uint8_t *counted;
    size_t n_ids, n_counted;
    bool has_label;
    uint32_t label;
} linnet_tokens;
/** For an encoder UNSUPPORTED where the record is no text with a label or the model has no labels, RANGE for
 * a label that it has not. A language model takes no notice of labels. */
linnet_status linnet_record_encode(const linnet_record *record, const linnet_tokenizer *tokenizer,
                                   const linnet_encoding *encoding, linnet_tokens *ret_tokens,
                                   linnet_error *err) LINNET_NODISCARD;
void linnet_tokens_release(linnet_tokens *tokens);
static inline linnet_sequence linnet_tokens_sequence(const linnet_tokens *tokens)
{
    return (linnet_sequence){.ids = tokens->ids,
                             .counted = tokens->counted,
                             .n_ids = tokens->n_ids,
                             .has_label = tokens->has_label,
                             .label = tokens->label};
}

/** Put in front of a message where the record stands: "FILE:LINE", or its line alone where it is from no
 * file. Returns the status. */
linnet_status linnet_record_place(const linnet_dataset *dataset, const linnet_record *record,
                                  linnet_status status, linnet_error *err);

/** The ids of a whole text as an encoder reads it: begin, text, end, cut at the text's end to context_tokens.
 * ids is empty before; what is in it after a failure is the caller's too. ARG for a context below 2. */
linnet_status linnet_text_encode(const char *text, const linnet_tokenizer *tokenizer, uint32_t context_tokens,
                                 linnet_ids *ids, linnet_error *err) LINNET_NODISCARD;

/** The ids of a conversation up to where the assistant speaks next, in the model's own chat format (contents
 * joined by newlines where it has none), and the token that ends its turn (-1: none). ret_ids is owned by the
 * caller. */
linnet_status linnet_chat_encode(const linnet_message *messages, size_t n_messages,
                                 const linnet_tokenizer *tokenizer, linnet_ids *ret_ids,
                                 int32_t *ret_end_of_turn, linnet_error *err) LINNET_NODISCARD;

/** All records of a set (or those of an index list), tokenised once. */
typedef struct linnet_token_set {
    linnet_tokens *items; /* owned; records without a counted target are left out */
    size_t *units;        /* owned; the unit of each item, 0 .. n_units - 1, numbered as they first appear */
    size_t n_items, n_units, n_counted;
    size_t n_empty; /* records left out */
} linnet_token_set;
linnet_status linnet_token_set_create(const linnet_dataset *dataset, const size_t *indices, size_t n_indices,
                                      const linnet_tokenizer *tokenizer, const linnet_encoding *encoding,
                                      linnet_token_set **ret_set,
                                      linnet_error *err) LINNET_NODISCARD; /* indices NULL: all */
void linnet_token_set_destroy(linnet_token_set *set);

#endif
