/* SPDX-License-Identifier: Apache-2.0 */
/* A vocabulary from a GGUF file's metadata: pieces, scores, types, the special tokens and settings; ids of
 * pieces through a hash table, pieces of ids back into text. How plain text becomes pieces is
 * tokenizer_spm.c. Byte pair encoding (gpt2) and WordPiece (bert) are not here. */
#include "tokenizer_state.h"

#include <math.h>
#include <stdlib.h>

#define VOCABULARY_MAX (1u << 22) /* ids; the largest vocabularies have 2^18 */
#define PROBES_MAX 4096u          /* a piece this far from its slot: the file was made to be slow */
#define TEXT_BYTES_MAX (1u << 28) /* of one text; symbols are numbered in 32 bits */

/* ---- the table of pieces ---- */

static size_t hash_bytes(const char *bytes, size_t n_bytes)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a, then mixed so that the low bits depend on all */
    for (size_t i = 0; i < n_bytes; i++)
        h = (h ^ (uint8_t)bytes[i]) * 0x100000001b3u;
    h ^= h >> 32;
    h *= 0x9e3779b97f4a7c15u;
    return (size_t)(h ^ h >> 29);
}

static bool text_equal(linnet_text a, linnet_text b)
{
    return a.n_bytes == b.n_bytes && memcmp(a.bytes, b.bytes, a.n_bytes) == 0;
}

/* Where the piece stands, or the free slot where it would; SIZE_MAX after too many probes. */
static size_t slot_of(const linnet_tokenizer *t, linnet_text piece)
{
    size_t slot = hash_bytes(piece.bytes, piece.n_bytes) & (t->n_slots - 1);
    for (unsigned i = 0; i < PROBES_MAX; i++) {
        if (t->slots[slot] < 0 || text_equal(t->pieces[t->slots[slot]], piece))
            return slot;
        slot = (slot + 1) & (t->n_slots - 1);
    }
    return SIZE_MAX;
}

int32_t linnet_tokenizer_lookup(const linnet_tokenizer *t, const char *bytes, size_t n_bytes)
{
    if (n_bytes == 0 || n_bytes > t->piece_bytes_max)
        return -1;
    size_t slot = slot_of(t, (linnet_text){bytes, n_bytes});
    return slot == SIZE_MAX ? -1 : t->slots[slot];
}

/* A piece that stands twice gets its highest id, as in llama.cpp. */
static linnet_status index_pieces(linnet_tokenizer *t, linnet_error *err)
{
    t->n_slots = 16;
    while (t->n_slots < (size_t)t->n_vocabulary * 2)
        t->n_slots *= 2;
    t->slots = malloc(t->n_slots * sizeof(*t->slots));
    if (!t->slots)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %u tokens", (unsigned)t->n_vocabulary);
    for (size_t i = 0; i < t->n_slots; i++)
        t->slots[i] = -1;
    for (uint32_t id = 0; id < t->n_vocabulary; id++) {
        if (t->pieces[id].n_bytes == 0)
            continue;
        size_t slot = slot_of(t, t->pieces[id]);
        if (slot == SIZE_MAX)
            return linnet_fail(err, LINNET_ERR_FORMAT,
                               "tokenizer.ggml.tokens: too many pieces collide, at id %u", (unsigned)id);
        t->slots[slot] = (int32_t)id;
        if (t->pieces[id].n_bytes > t->piece_bytes_max)
            t->piece_bytes_max = t->pieces[id].n_bytes;
    }
    return LINNET_OK;
}

static void index_bytes(linnet_tokenizer *t)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char name[8];
        char single = (char)byte;
        (void)snprintf(name, sizeof(name), "<0x%02X>", byte);
        t->byte_ids[byte] = linnet_tokenizer_lookup(t, name, 6);
        if (t->byte_ids[byte] < 0)
            t->byte_ids[byte] = linnet_tokenizer_lookup(t, &single, 1);
    }
}

static bool is_special(const linnet_tokenizer *t, uint32_t id)
{
    return t->types[id] == PIECE_CONTROL || t->types[id] == PIECE_USER_DEFINED ||
           t->types[id] == PIECE_UNKNOWN;
}

static const linnet_text *sorted_pieces(const void *item)
{
    const linnet_text *const *p = item;
    return *p;
}

static int by_first_byte_then_longest(const void *a, const void *b)
{
    const linnet_text *x = sorted_pieces(a), *y = sorted_pieces(b);
    if (x->bytes[0] != y->bytes[0])
        return (uint8_t)x->bytes[0] < (uint8_t)y->bytes[0] ? -1 : 1;
    if (x->n_bytes != y->n_bytes)
        return x->n_bytes > y->n_bytes ? -1 : 1;
    return x < y ? -1 : x > y; /* pointers into one array: by id */
}

static linnet_status index_specials(linnet_tokenizer *t, linnet_error *err)
{
    size_t n = 0;
    for (uint32_t id = 0; id < t->n_vocabulary; id++)
        n += is_special(t, id) && t->pieces[id].n_bytes > 0;
    const linnet_text **found = malloc((n + 1) * sizeof(*found));
    t->specials = malloc((n + 1) * sizeof(*t->specials));
    if (!found || !t->specials) {
        free(found);
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %zu special tokens", n);
    }
    for (uint32_t id = 0; id < t->n_vocabulary; id++) {
        if (is_special(t, id) && t->pieces[id].n_bytes > 0)
            found[t->n_specials++] = &t->pieces[id];
    }
    qsort(found, n, sizeof(*found), by_first_byte_then_longest);
    for (size_t i = 0; i < n; i++)
        t->specials[i] = (int32_t)(found[i] - t->pieces);
    free(found);
    return LINNET_OK;
}

/* ---- metadata ---- */

static linnet_status read_pieces(linnet_tokenizer *t, const linnet_gguf *gguf, linnet_error *err)
{
    const linnet_gguf_value *tokens = linnet_gguf_find(gguf, "tokenizer.ggml.tokens");
    if (!tokens || tokens->kind != LINNET_GGUF_ARRAY || tokens->element_kind != LINNET_GGUF_STRING)
        return linnet_fail(err, LINNET_ERR_FORMAT, "tokenizer.ggml.tokens: an array of strings is wanted");
    if (tokens->n_elements == 0 || tokens->n_elements > VOCABULARY_MAX)
        return linnet_fail(err, LINNET_ERR_FORMAT, "tokenizer.ggml.tokens: %llu tokens, 1 to %u can be",
                           (unsigned long long)tokens->n_elements, VOCABULARY_MAX);
    t->n_vocabulary = (uint32_t)tokens->n_elements;
    t->pieces = calloc(t->n_vocabulary, sizeof(*t->pieces));
    t->scores = calloc(t->n_vocabulary, sizeof(*t->scores));
    t->types = malloc(t->n_vocabulary);
    if (!t->pieces || !t->scores || !t->types)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %u tokens", (unsigned)t->n_vocabulary);
    size_t at = 0;
    for (uint32_t id = 0; id < t->n_vocabulary; id++) {
        if (!linnet_gguf_array_text(tokens, &at, &t->pieces[id]))
            return linnet_fail(err, LINNET_ERR_FORMAT, "tokenizer.ggml.tokens ends at id %u", (unsigned)id);
    }
    return LINNET_OK;
}

/* An array of numbers beside the tokens, one for each; absent is fine. NULL in *ret_array: absent. */
static linnet_status find_numbers(const linnet_tokenizer *t, const linnet_gguf *gguf, const char *name,
                                  const linnet_gguf_value **ret_array, linnet_error *err)
{
    const linnet_gguf_value *array = linnet_gguf_find(gguf, name);
    if (array && (array->kind != LINNET_GGUF_ARRAY || array->element_kind == LINNET_GGUF_STRING ||
                  array->element_kind == LINNET_GGUF_ARRAY || array->n_elements != t->n_vocabulary))
        return linnet_fail(err, LINNET_ERR_FORMAT, "%s: an array of %u numbers is wanted, one for each token",
                           name, (unsigned)t->n_vocabulary);
    *ret_array = array;
    return LINNET_OK;
}

static linnet_status read_scores_and_types(linnet_tokenizer *t, const linnet_gguf *gguf, linnet_error *err)
{
    const linnet_gguf_value *scores = NULL, *types = NULL;
    linnet_status status = find_numbers(t, gguf, "tokenizer.ggml.scores", &scores, err);
    if (status == LINNET_OK)
        status = find_numbers(t, gguf, "tokenizer.ggml.token_type", &types, err);
    if (status != LINNET_OK)
        return status;
    for (uint32_t id = 0; id < t->n_vocabulary; id++) {
        double score = 0, type = PIECE_NORMAL;
        if (scores && linnet_gguf_array_number(scores, id, &score) != LINNET_OK)
            return linnet_fail(err, LINNET_ERR_FORMAT, "tokenizer.ggml.scores: no number at %u",
                               (unsigned)id);
        if (types && linnet_gguf_array_number(types, id, &type) != LINNET_OK)
            return linnet_fail(err, LINNET_ERR_FORMAT, "tokenizer.ggml.token_type: no number at %u",
                               (unsigned)id);
        t->scores[id] = isnan(score) ? -INFINITY : (float)score; /* a NaN would break the order of the heap */
        t->types[id] = type >= PIECE_NORMAL && type <= PIECE_BYTE ? (uint8_t)type : PIECE_NORMAL;
    }
    return LINNET_OK;
}

/* A token id of the metadata: `absent` where the key is missing, an error where it is outside the vocabulary.
 */
static linnet_status read_id(const linnet_tokenizer *t, const linnet_gguf *gguf, const char *name,
                             uint32_t absent, int32_t *ret_id, linnet_error *err)
{
    uint32_t id = absent;
    linnet_status status = linnet_gguf_get_u32(gguf, name, &id, err);
    if (status == LINNET_ERR_NOT_FOUND) {
        *ret_id = absent < t->n_vocabulary ? (int32_t)absent : -1;
        return LINNET_OK;
    }
    if (status != LINNET_OK)
        return status;
    if (id >= t->n_vocabulary)
        return linnet_fail(err, LINNET_ERR_FORMAT, "%s: %u is outside the vocabulary of %u", name,
                           (unsigned)id, (unsigned)t->n_vocabulary);
    *ret_id = (int32_t)id;
    return LINNET_OK;
}

static linnet_status read_bool(const linnet_gguf *gguf, const char *name, bool absent, bool *ret,
                               linnet_error *err)
{
    linnet_status status = linnet_gguf_get_bool(gguf, name, ret, err);
    if (status != LINNET_ERR_NOT_FOUND)
        return status;
    *ret = absent;
    return LINNET_OK;
}

static linnet_status read_settings(linnet_tokenizer *t, const linnet_gguf *gguf, linnet_error *err)
{
    linnet_status status = read_id(t, gguf, "tokenizer.ggml.bos_token_id", 1, &t->begin, err);
    if (status == LINNET_OK)
        status = read_id(t, gguf, "tokenizer.ggml.eos_token_id", 2, &t->end, err);
    if (status == LINNET_OK)
        status = read_id(t, gguf, "tokenizer.ggml.unknown_token_id", 0, &t->unknown, err);
    if (status == LINNET_OK)
        status = read_bool(gguf, "tokenizer.ggml.add_bos_token", true, &t->adds_begin, err);
    if (status == LINNET_OK)
        status = read_bool(gguf, "tokenizer.ggml.add_space_prefix", true, &t->adds_prefix, err);
    if (status != LINNET_OK)
        return status;
    t->adds_begin = t->adds_begin && t->begin >= 0;
    status = linnet_gguf_get_text(gguf, "tokenizer.chat_template", &t->chat_template, err);
    return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
}

static linnet_status check_model(const linnet_gguf *gguf, linnet_error *err)
{
    linnet_text model = {0};
    linnet_status status = linnet_gguf_get_text(gguf, "tokenizer.ggml.model", &model, err);
    if (status == LINNET_ERR_NOT_FOUND)
        return linnet_fail(err, LINNET_ERR_FORMAT, "the file has no tokenizer (no key tokenizer.ggml.model)");
    if (status != LINNET_OK)
        return status;
    if (!linnet_text_is(model, "llama"))
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                           "tokenizer '%.*s' is not supported yet, only 'llama' is",
                           model.n_bytes > 32 ? 32 : (int)model.n_bytes, model.bytes);
    return LINNET_OK;
}

linnet_status linnet_tokenizer_create(const linnet_gguf *gguf, linnet_tokenizer **ret_tokenizer,
                                      linnet_error *err)
{
    linnet_status status = check_model(gguf, err);
    if (status != LINNET_OK)
        return linnet_error_prefix(err, status, "'%s'", linnet_gguf_path(gguf));
    linnet_tokenizer *t = calloc(1, sizeof(*t));
    if (!t)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a tokenizer");
    status = read_pieces(t, gguf, err);
    if (status == LINNET_OK)
        status = read_scores_and_types(t, gguf, err);
    if (status == LINNET_OK)
        status = read_settings(t, gguf, err);
    if (status == LINNET_OK)
        status = index_pieces(t, err);
    if (status == LINNET_OK)
        status = index_specials(t, err);
    if (status != LINNET_OK) {
        linnet_tokenizer_destroy(t);
        return linnet_error_prefix(err, status, "'%s'", linnet_gguf_path(gguf));
    }
    index_bytes(t);
    *ret_tokenizer = t;
    return LINNET_OK;
}

void linnet_tokenizer_destroy(linnet_tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    free(tokenizer->pieces);
    free(tokenizer->scores);
    free(tokenizer->types);
    free(tokenizer->slots);
    free(tokenizer->specials);
    free(tokenizer);
}

uint32_t linnet_tokenizer_vocabulary(const linnet_tokenizer *tokenizer)
{
    return tokenizer->n_vocabulary;
}

int32_t linnet_tokenizer_begin(const linnet_tokenizer *tokenizer)
{
    return tokenizer->begin;
}

int32_t linnet_tokenizer_end(const linnet_tokenizer *tokenizer)
{
    return tokenizer->end;
}

bool linnet_tokenizer_adds_begin(const linnet_tokenizer *tokenizer)
{
    return tokenizer->adds_begin;
}

linnet_text linnet_tokenizer_chat_template(const linnet_tokenizer *tokenizer)
{
    return tokenizer->chat_template;
}

int32_t linnet_tokenizer_find(const linnet_tokenizer *tokenizer, const char *piece)
{
    return linnet_tokenizer_lookup(tokenizer, piece, strlen(piece));
}

void linnet_ids_release(linnet_ids *ids)
{
    free(ids->items);
    *ids = (linnet_ids){0};
}

linnet_status linnet_ids_append(linnet_ids *ids, int32_t id)
{
    if (ids->n_items == ids->capacity) {
        size_t capacity = ids->capacity < 64 ? 64 : ids->capacity * 2, n_bytes;
        if (!linnet_size_mul(capacity, sizeof(*ids->items), &n_bytes))
            return LINNET_ERR_NOMEM;
        int32_t *items = realloc(ids->items, n_bytes);
        if (!items)
            return LINNET_ERR_NOMEM;
        ids->items = items;
        ids->capacity = capacity;
    }
    ids->items[ids->n_items++] = id;
    return LINNET_OK;
}

/* ---- texts ---- */

/* The longest special token at the start of a text, or -1. */
static int32_t special_at(const linnet_tokenizer *t, const char *text, size_t n_bytes)
{
    size_t low = 0, high = t->n_specials;
    while (low < high) { /* the first one with this first byte */
        size_t middle = low + (high - low) / 2;
        if ((uint8_t)t->pieces[t->specials[middle]].bytes[0] < (uint8_t)text[0])
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < t->n_specials && t->pieces[t->specials[low]].bytes[0] == text[0]; low++) {
        linnet_text piece = t->pieces[t->specials[low]];
        if (piece.n_bytes <= n_bytes && memcmp(piece.bytes, text, piece.n_bytes) == 0)
            return t->specials[low];
    }
    return -1;
}

/* Special tokens become their ids; each stretch between them is tokenised apart, with its own space prefix.
 */
static linnet_status append_with_specials(const linnet_tokenizer *t, const char *text, size_t n_bytes,
                                          bool prefix, linnet_ids *ids)
{
    linnet_status status = LINNET_OK;
    size_t start = 0;
    for (size_t at = 0; at < n_bytes && status == LINNET_OK;) {
        int32_t id = special_at(t, text + at, n_bytes - at);
        if (id < 0) {
            at++;
            continue;
        }
        status = linnet_spm_append(t, text + start, at - start, prefix, ids);
        if (status == LINNET_OK)
            status = linnet_ids_append(ids, id);
        at += t->pieces[id].n_bytes;
        start = at;
    }
    if (status == LINNET_OK)
        status = linnet_spm_append(t, text + start, n_bytes - start, prefix, ids);
    return status;
}

linnet_status linnet_tokenize(const linnet_tokenizer *tokenizer, const char *text, size_t n_bytes,
                              unsigned flags, linnet_ids *ids, linnet_error *err)
{
    if (n_bytes > TEXT_BYTES_MAX)
        return linnet_fail(err, LINNET_ERR_LIMIT, "a text of %zu bytes is too long to tokenise, %u can be",
                           n_bytes, TEXT_BYTES_MAX);
    size_t n_before = ids->n_items;
    bool prefix = (flags & LINNET_TOKENIZE_PREFIX) != 0;
    linnet_status status = LINNET_OK;
    if ((flags & LINNET_TOKENIZE_BEGIN) && tokenizer->adds_begin)
        status = linnet_ids_append(ids, tokenizer->begin);
    if (status == LINNET_OK && (flags & LINNET_TOKENIZE_SPECIAL))
        status = append_with_specials(tokenizer, text, n_bytes, prefix, ids);
    else if (status == LINNET_OK)
        status = linnet_spm_append(tokenizer, text, n_bytes, prefix, ids);
    if (status != LINNET_OK) {
        ids->n_items = n_before;
        return linnet_fail(err, status, "no memory to tokenise a text of %zu bytes", n_bytes);
    }
    return LINNET_OK;
}

/* ---- back to text ---- */

void linnet_detokenize(const linnet_tokenizer *tokenizer, int32_t id, linnet_buffer *text)
{
    linnet_text piece = linnet_token_piece(tokenizer, id);
    if (piece.n_bytes == 0)
        return;
    switch (tokenizer->types[id]) {
    case PIECE_CONTROL:
    case PIECE_UNKNOWN:
        return;
    case PIECE_USER_DEFINED:
        linnet_buffer_append(text, piece.bytes, piece.n_bytes);
        return;
    case PIECE_BYTE: {
        uint8_t byte;
        char digits[3] = {0};
        if (piece.n_bytes == 6 && memcmp(piece.bytes, "<0x", 3) == 0) {
            memcpy(digits, piece.bytes + 3, 2);
            if (linnet_hex_read(digits, &byte, 1) == LINNET_OK)
                linnet_buffer_append_u8(text, byte);
        }
        return;
    }
    default:
        break;
    }
    for (size_t at = 0; at < piece.n_bytes;) {
        bool is_space = piece.n_bytes - at >= 3 && memcmp(piece.bytes + at, LINNET_SPACE_MARK, 3) == 0;
        linnet_buffer_append(text, is_space ? " " : piece.bytes + at, 1);
        at += is_space ? 3 : 1;
    }
}

linnet_text linnet_token_piece(const linnet_tokenizer *tokenizer, int32_t id)
{
    if (id < 0 || (uint32_t)id >= tokenizer->n_vocabulary)
        return (linnet_text){"", 0};
    return tokenizer->pieces[id];
}
