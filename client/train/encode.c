/* SPDX-License-Identifier: Apache-2.0 */
/* Records into ids with counted flags, as DESIGN.md section 2 says. Everything that counts is tokenised apart
 * from what does not, so that training sees the split that generation makes; contents are never searched for
 * special tokens. */
#include "chat_template.h"
#include "linnet/dataset.h"

#include <stdlib.h>

/* A sequence under construction. Text waits in `pending`, so that neighbours that both count, or both do not,
 * are tokenised in one piece. */
typedef struct builder {
    const linnet_tokenizer *tokenizer;
    linnet_ids ids;
    linnet_buffer counted; /* one byte an id */
    linnet_buffer pending;
    uint8_t pending_counts;
    size_t n_begin;      /* 1 where the sequence starts with the begin token */
    int32_t special;     /* the special token that stands right in front of the pending text; -1: none */
    size_t last_counted; /* end of the last counted part */
} builder;

static void builder_release(builder *b)
{
    linnet_ids_release(&b->ids);
    linnet_buffer_release(&b->counted);
    linnet_buffer_release(&b->pending);
}

/* Give the ids that are new since the last call their flag. */
static linnet_status flag_new(builder *b, uint8_t counted, linnet_error *err)
{
    if (!linnet_buffer_reserve(&b->counted, b->ids.n_items - b->counted.n_bytes))
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a record of %zu tokens", b->ids.n_items);
    while (b->counted.n_bytes < b->ids.n_items)
        linnet_buffer_append_u8(&b->counted, counted);
    if (counted)
        b->last_counted = b->ids.n_items;
    return LINNET_OK;
}

static linnet_status add_begin(builder *b, linnet_error *err)
{
    linnet_status status = linnet_tokenize(b->tokenizer, "", 0, LINNET_TOKENIZE_BEGIN, &b->ids, err);
    b->n_begin = b->ids.n_items;
    return status == LINNET_OK ? flag_new(b, 0, err) : status;
}

static linnet_status add_text(builder *b, const char *text, size_t n_bytes, bool prefix, uint8_t counted,
                              linnet_error *err)
{
    linnet_status status =
        linnet_tokenize(b->tokenizer, text, n_bytes, prefix ? LINNET_TOKENIZE_PREFIX : 0, &b->ids, err);
    return status == LINNET_OK ? flag_new(b, counted, err) : status;
}

static linnet_status add_id(builder *b, int32_t id, uint8_t counted, linnet_error *err)
{
    if (id < 0)
        return LINNET_OK;
    if (linnet_ids_append(&b->ids, id) != LINNET_OK)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a record of %zu tokens", b->ids.n_items);
    return flag_new(b, counted, err);
}

/* ---- conversations ---- */

static bool is_blank(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Tokenise what waits. Text takes the space prefix at the start, and behind a special token where it has no
 * space of its own. Some special tokens take the white space behind them. */
static linnet_status flush(builder *b, linnet_error *err)
{
    size_t skip = 0;
    if (b->pending.failed)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a conversation");
    while (skip < b->pending.n_bytes && linnet_tokenizer_strips_right(b->tokenizer, b->special) &&
           is_blank(b->pending.bytes[skip]))
        skip++;
    if (b->pending.n_bytes == skip) {
        linnet_buffer_clear(&b->pending);
        return LINNET_OK;
    }
    const char *text = (const char *)b->pending.bytes + skip;
    bool at_start = b->ids.n_items == b->n_begin;
    linnet_status status = add_text(b, text, b->pending.n_bytes - skip,
                                    at_start || (b->special >= 0 && *text != ' '), b->pending_counts, err);
    b->special = -1;
    linnet_buffer_clear(&b->pending);
    return status;
}

static linnet_status append_text(builder *b, linnet_text text, uint8_t counts, linnet_error *err)
{
    linnet_status status = counts != b->pending_counts ? flush(b, err) : LINNET_OK;
    b->pending_counts = counts;
    linnet_buffer_append(&b->pending, text.bytes, text.n_bytes);
    return status;
}

static linnet_status add_special(builder *b, int32_t id, uint8_t counts, linnet_error *err)
{
    linnet_status status = flush(b, err);
    if (status == LINNET_OK)
        status = add_id(b, id, counts, err);
    if (id >= 0)
        b->special = id;
    return status;
}

static int32_t find_piece(const linnet_tokenizer *t, linnet_text piece)
{
    char name[64];
    (void)snprintf(name, sizeof(name), "%.*s", (int)piece.n_bytes, piece.bytes);
    return linnet_tokenizer_find(t, name);
}

static int32_t end_of_turn(const linnet_chat_family *family, const linnet_tokenizer *tokenizer)
{
    int32_t id = family->end_of_turn ? linnet_tokenizer_find(tokenizer, family->end_of_turn) : -1;
    return id >= 0 ? id : linnet_tokenizer_end(tokenizer);
}

typedef struct conversation {
    builder *builder;
    const linnet_chat_family *family;
    bool end_token;
} conversation;

static linnet_status add_part(void *context, linnet_chat_part_kind kind, linnet_text text, linnet_error *err)
{
    conversation *c = context;
    builder *b = c->builder;
    int32_t id;
    switch (kind) {
    case LINNET_CHAT_SPECIAL:
        id = find_piece(b->tokenizer, text);
        return id < 0 ? append_text(b, text, 0, err) : add_special(b, id, 0, err);
    case LINNET_CHAT_BEGIN:
        return add_special(b, linnet_tokenizer_begin(b->tokenizer), 0, err);
    case LINNET_CHAT_END:
        return add_special(b, linnet_tokenizer_end(b->tokenizer), 0, err);
    case LINNET_CHAT_TURN_END:
        id = c->end_token ? end_of_turn(c->family, b->tokenizer) : -1;
        return id < 0 ? flush(b, err) : add_special(b, id, 1, err);
    default:
        return append_text(b, text, kind == LINNET_CHAT_ANSWER, err);
    }
}

static linnet_status find_family(const linnet_tokenizer *tokenizer, const linnet_chat_family **ret_family,
                                 linnet_error *err)
{
    linnet_text text = linnet_tokenizer_chat_template(tokenizer);
    *ret_family = linnet_chat_family_find(text);
    if (*ret_family)
        return LINNET_OK;
    return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                       "the model's chat template ('%.*s...') is of no family that linnet knows; use text or "
                       "prompt and completion records",
                       text.n_bytes > 60 ? 60 : (int)text.n_bytes, text.bytes);
}

static linnet_status add_messages(builder *b, const linnet_message *messages, size_t n_messages, bool prompt,
                                  bool end_token, linnet_error *err)
{
    conversation c = {.builder = b, .end_token = end_token};
    linnet_status status = find_family(b->tokenizer, &c.family, err);
    if (status == LINNET_OK)
        status = add_begin(b, err);
    if (status == LINNET_OK)
        status = linnet_chat_render(c.family, messages, n_messages, prompt, add_part, &c, err);
    return status == LINNET_OK ? flush(b, err) : status;
}

linnet_status linnet_chat_encode(const linnet_message *messages, size_t n_messages,
                                 const linnet_tokenizer *tokenizer, linnet_ids *ret_ids,
                                 int32_t *ret_end_of_turn, linnet_error *err)
{
    builder b = {.tokenizer = tokenizer, .special = -1};
    linnet_status status = add_messages(&b, messages, n_messages, true, true, err);
    if (status == LINNET_OK) {
        *ret_ids = b.ids;
        *ret_end_of_turn =
            end_of_turn(linnet_chat_family_find(linnet_tokenizer_chat_template(tokenizer)), tokenizer);
        b.ids = (linnet_ids){0};
    }
    builder_release(&b);
    return status;
}

/* ---- records ---- */

static void erase(builder *b, size_t first, size_t n)
{
    memmove(b->ids.items + first, b->ids.items + first + n,
            (b->ids.n_items - first - n) * sizeof(*b->ids.items));
    memmove(b->counted.bytes + first, b->counted.bytes + first + n, b->counted.n_bytes - first - n);
    b->ids.n_items -= n;
    b->counted.n_bytes -= n;
}

static void cut_end(builder *b, size_t n_keep)
{
    if (b->ids.n_items > n_keep)
        erase(b, n_keep, b->ids.n_items - n_keep);
}

/* Cut a sequence whose last counted part begins at `answer`: that part to three quarters of the context, then
 * on the left what is too much, keeping the begin token. */
static void cut_around_answer(builder *b, size_t answer, size_t context)
{
    if (b->ids.n_items <= context)
        return;
    size_t n_answer_max = context * 3 / 4 > 0 ? context * 3 / 4 : 1;
    if (b->ids.n_items - answer > n_answer_max)
        cut_end(b, answer + n_answer_max);
    if (b->ids.n_items > context)
        erase(b, b->n_begin, b->ids.n_items - context);
}

static linnet_status encode_text(builder *b, const linnet_record *record, const linnet_encoding *encoding,
                                 linnet_error *err)
{
    linnet_status status = add_begin(b, err);
    if (status == LINNET_OK)
        status = add_text(b, record->text, strlen(record->text), true, 1, err);
    if (status == LINNET_OK && encoding->end_token)
        status = add_id(b, linnet_tokenizer_end(b->tokenizer), 1, err);
    if (status == LINNET_OK)
        cut_end(b, encoding->context_tokens);
    return status;
}

static linnet_status encode_completion(builder *b, const linnet_record *record,
                                       const linnet_encoding *encoding, linnet_error *err)
{
    linnet_status status = add_begin(b, err);
    if (status == LINNET_OK)
        status = add_text(b, record->text, strlen(record->text), true, 0, err);
    size_t answer = b->ids.n_items;
    if (status == LINNET_OK)
        status = add_text(b, record->completion, strlen(record->completion), false, 1, err);
    if (status == LINNET_OK && encoding->end_token)
        status = add_id(b, linnet_tokenizer_end(b->tokenizer), 1, err);
    if (status == LINNET_OK)
        cut_around_answer(b, answer, encoding->context_tokens);
    return status;
}

static linnet_status encode_messages(builder *b, const linnet_record *record, const linnet_encoding *encoding,
                                     linnet_error *err)
{
    linnet_status status =
        add_messages(b, record->messages, record->n_messages, false, encoding->end_token, err);
    if (status != LINNET_OK)
        return status;
    cut_end(b, b->last_counted); /* nothing behind the last counted token changes the loss */
    size_t answer = b->last_counted;
    while (answer > 0 && b->counted.bytes[answer - 1])
        answer--;
    cut_around_answer(b, answer, encoding->context_tokens);
    return LINNET_OK;
}

static linnet_status short_context(uint32_t context_tokens, linnet_error *err)
{
    return linnet_fail(err, LINNET_ERR_ARG, "a context of %u tokens is too short, 2 is the least",
                       (unsigned)context_tokens);
}

/* ---- labels ---- */

/* The labels that a model has, as far as a line has room. */
static void list_labels(const linnet_model *model, linnet_buffer *list)
{
    for (uint32_t i = 0; i < linnet_model_n_labels(model) && list->n_bytes < 100; i++) {
        linnet_text name = linnet_model_label(model, i);
        linnet_buffer_append_format(list, "%s%.*s", i > 0 ? ", " : "",
                                    name.n_bytes < 40 ? (int)name.n_bytes : 40, name.bytes);
    }
    linnet_buffer_append_u8(list, 0);
}

static linnet_status find_label(const linnet_model *model, const linnet_record *record, uint32_t *ret_label,
                                linnet_error *err)
{
    linnet_buffer list = {0};
    uint32_t label = record->label_index, n = linnet_model_n_labels(model);
    linnet_status status = record->label ? linnet_model_find_label(model, record->label, &label) : LINNET_OK;
    if (status == LINNET_OK && label < n) {
        *ret_label = label;
        return LINNET_OK;
    }
    list_labels(model, &list);
    status = linnet_fail(err, LINNET_ERR_RANGE, "\"label\" is none of the model's %u: %s", (unsigned)n,
                         list.failed ? "" : (const char *)list.bytes);
    linnet_buffer_release(&list);
    return status;
}

linnet_status linnet_text_encode(const char *text, const linnet_tokenizer *tokenizer, uint32_t context_tokens,
                                 linnet_ids *ids, linnet_error *err)
{
    size_t n_text = 0;
    if (context_tokens < 2)
        return short_context(context_tokens, err);
    linnet_status status = linnet_tokenize(tokenizer, text, strlen(text),
                                           LINNET_TOKENIZE_BEGIN | LINNET_TOKENIZE_PREFIX, ids, err);
    n_text = ids->n_items;
    if (status == LINNET_OK)
        status = linnet_tokenize(tokenizer, "", 0, LINNET_TOKENIZE_END, ids, err);
    if (status != LINNET_OK || ids->n_items <= context_tokens)
        return status;
    size_t n_end = ids->n_items - n_text;
    memmove(ids->items + context_tokens - n_end, ids->items + n_text, n_end * sizeof(*ids->items));
    ids->n_items = context_tokens;
    return LINNET_OK;
}

static linnet_status encode_label(builder *b, const linnet_record *record, const linnet_encoding *encoding,
                                  linnet_error *err)
{
    linnet_status status =
        linnet_text_encode(record->text, b->tokenizer, encoding->context_tokens, &b->ids, err);
    return status == LINNET_OK ? flag_new(b, 0, err) : status;
}

/* What an encoder is trained and scored on. */
static linnet_status check_labelled(const linnet_record *record, const linnet_model *model, linnet_error *err)
{
    if (record->kind != LINNET_RECORD_TEXT || !record->has_label)
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                           "the model is an encoder, for which a record has \"text\" and \"label\"");
    if (record->has_pair)
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                           "\"text_pair\": a record with a label has one text, \"text\"");
    return linnet_model_require_head(model, err);
}

static void builder_finish(builder *b, linnet_tokens *ret_tokens)
{
    linnet_tokens tokens = {.ids = b->ids.items, .counted = b->counted.bytes, .n_ids = b->ids.n_items};
    if (tokens.n_ids > 0)
        tokens.counted[0] = 0; /* nothing predicts the first */
    for (size_t i = 0; i < tokens.n_ids; i++)
        tokens.n_counted += tokens.counted[i];
    b->ids = (linnet_ids){0};
    b->counted = (linnet_buffer){0};
    *ret_tokens = tokens;
}

linnet_status linnet_record_encode(const linnet_record *record, const linnet_tokenizer *tokenizer,
                                   const linnet_encoding *encoding, linnet_tokens *ret_tokens,
                                   linnet_error *err)
{
    static linnet_status (*const encode[])(builder *, const linnet_record *, const linnet_encoding *,
                                           linnet_error *) = {
        [LINNET_RECORD_TEXT] = encode_text,
        [LINNET_RECORD_COMPLETION] = encode_completion,
        [LINNET_RECORD_MESSAGES] = encode_messages,
    };
    bool classifies = encoding->model && linnet_model_is_encoder(encoding->model);
    uint32_t label = 0;
    if (encoding->context_tokens < 2)
        return short_context(encoding->context_tokens, err);
    builder b = {.tokenizer = tokenizer, .special = -1};
    linnet_status status = classifies ? check_labelled(record, encoding->model, err) : LINNET_OK;
    if (status == LINNET_OK && classifies)
        status = find_label(encoding->model, record, &label, err);
    if (status == LINNET_OK)
        status = classifies ? encode_label(&b, record, encoding, err)
                            : encode[record->kind](&b, record, encoding, err);
    if (status == LINNET_OK)
        builder_finish(&b, ret_tokens);
    if (status == LINNET_OK && classifies) {
        ret_tokens->has_label = true;
        ret_tokens->label = label;
        ret_tokens->n_counted = ret_tokens->n_ids > 0; /* a tokenizer may give nothing at all */
    }
    builder_release(&b);
    return status;
}

void linnet_tokens_release(linnet_tokens *tokens)
{
    free(tokens->ids);
    free(tokens->counted);
    *tokens = (linnet_tokens){0};
}

/* ---- sets ---- */

/* An item of a set and the name of its unit. */
typedef struct named_item {
    const char *unit; /* borrowed, NULL: a unit of its own */
    size_t item;
} named_item;

static bool is_same_unit(const named_item *a, const named_item *b)
{
    return a->unit && b->unit && strcmp(a->unit, b->unit) == 0;
}

/* By name, those without one first; items of one unit in their order. */
static int by_unit(const void *left, const void *right)
{
    const named_item *a = left, *b = right;
    int order = !a->unit || !b->unit ? (a->unit != NULL) - (b->unit != NULL) : strcmp(a->unit, b->unit);
    return order != 0 ? order : (a->item > b->item) - (a->item < b->item);
}

/* Number the units of a set as they first appear. First each item gets the first item of its unit, then, in
 * the items' order, that one's number. Sorts `named`. */
static void number_units(linnet_token_set *set, named_item *named)
{
    qsort(named, set->n_items, sizeof(*named), by_unit);
    for (size_t i = 0, first = 0; i < set->n_items; i++) {
        if (!is_same_unit(&named[first], &named[i]))
            first = i;
        set->units[named[i].item] = named[first].item;
    }
    for (size_t i = 0; i < set->n_items; i++)
        set->units[i] = set->units[i] == i ? set->n_units++ : set->units[set->units[i]];
}

/* Encode one record and keep it, unless it has nothing to learn. */
static linnet_status add_item(linnet_token_set *set, const linnet_dataset *dataset,
                              const linnet_record *record, const linnet_tokenizer *tokenizer,
                              const linnet_encoding *encoding, named_item *named, linnet_error *err)
{
    linnet_tokens tokens = {0};
    linnet_status status = linnet_record_encode(record, tokenizer, encoding, &tokens, err);
    if (status != LINNET_OK)
        return linnet_record_place(dataset, record, status, err);
    if (tokens.n_counted == 0) {
        linnet_tokens_release(&tokens);
        set->n_empty++;
        return LINNET_OK;
    }
    named[set->n_items] = (named_item){.unit = record->unit, .item = set->n_items};
    set->items[set->n_items++] = tokens;
    set->n_counted += tokens.n_counted;
    return LINNET_OK;
}

linnet_status linnet_token_set_create(const linnet_dataset *dataset, const size_t *indices, size_t n_indices,
                                      const linnet_tokenizer *tokenizer, const linnet_encoding *encoding,
                                      linnet_token_set **ret_set, linnet_error *err)
{
    size_t n = indices ? n_indices : dataset->n_records;
    linnet_status status = LINNET_OK;
    linnet_token_set *set = calloc(1, sizeof(*set));
    named_item *named = calloc(n > 0 ? n : 1, sizeof(*named));
    if (set) {
        set->items = calloc(n > 0 ? n : 1, sizeof(*set->items));
        set->units = calloc(n > 0 ? n : 1, sizeof(*set->units));
    }
    if (!set || !set->items || !set->units || !named)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %zu records", n);
    for (size_t i = 0; i < n && status == LINNET_OK; i++)
        status = add_item(set, dataset, &dataset->records[indices ? indices[i] : i], tokenizer, encoding,
                          named, err);
    if (status == LINNET_OK)
        number_units(set, named);
    free(named);
    if (status != LINNET_OK) {
        linnet_token_set_destroy(set);
        return status;
    }
    *ret_set = set;
    return LINNET_OK;
}

void linnet_token_set_destroy(linnet_token_set *set)
{
    if (!set)
        return;
    for (size_t i = 0; set->items && i < set->n_items; i++)
        linnet_tokens_release(&set->items[i]);
    free(set->items);
    free(set->units);
    free(set);
}
