/* SPDX-License-Identifier: Apache-2.0 */
/* A vocabulary from a GGUF file's metadata: pieces, scores, types and settings, and ids of pieces through a
 * hash table. How plain text becomes ids is tokenizer_spm.c, tokenizer_bpe.c or tokenizer_wordpiece.c. */
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
    t->types = malloc(t->n_vocabulary);
    if (t->kind == TOKENIZER_SPM)
        t->scores = calloc(t->n_vocabulary, sizeof(*t->scores));
    if (!t->pieces || !t->types || (t->kind == TOKENIZER_SPM && !t->scores))
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
    linnet_status status = LINNET_OK;
    if (t->scores)
        status = find_numbers(t, gguf, "tokenizer.ggml.scores", &scores, err);
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
        if (t->scores) /* a NaN has no place in an order */
            t->scores[id] = isnan(score) ? -INFINITY : (float)score;
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

#define NO_ID UINT32_MAX

/* What a file of a kind means where it says nothing. */
static const struct {
    const char *model; /* tokenizer.ggml.model */
    uint32_t begin, end, unknown;
    bool adds_begin, adds_prefix;
} kinds[] = {
    [TOKENIZER_SPM] = {"llama", 1, 2, 0, true, true},
    [TOKENIZER_BPE] = {"gpt2", 11, 11, NO_ID, false, false},
    [TOKENIZER_WORDPIECE] = {"bert", 101, NO_ID, 100, true, false},
};

static linnet_status read_kind(linnet_tokenizer *t, const linnet_gguf *gguf, linnet_error *err)
{
    linnet_text model = {0};
    linnet_status status = linnet_gguf_get_text(gguf, "tokenizer.ggml.model", &model, err);
    if (status == LINNET_ERR_NOT_FOUND)
        return linnet_fail(err, LINNET_ERR_FORMAT, "the file has no tokenizer (no key tokenizer.ggml.model)");
    if (status != LINNET_OK)
        return status;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (linnet_text_is(model, kinds[i].model)) {
            t->kind = (tokenizer_kind)i;
            return LINNET_OK;
        }
    }
    return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                       "tokenizer.ggml.model: '%.*s' is a tokenizer linnet does not know",
                       model.n_bytes > 32 ? 32 : (int)model.n_bytes, model.bytes);
}

/* Control tokens of well-known families by their names, whatever type a file gives them, as in llama.cpp:
 * first those that end a text or a turn, then those that fill-in-the-middle models put into a text. */
static const char *const end_names[] = {"<|eot_id|>",
                                        "<|eom_id|>",
                                        "<|end_of_text|>",
                                        "<|im_end|>",
                                        "<|endoftext|>",
                                        "<|end|>",
                                        "<|end_of_turn|>",
                                        "<end_of_turn>",
                                        "<eos>",
                                        "</s>",
                                        "<EOT>",
                                        "_<EOT>",
                                        "[EOT]",
                                        "[EOS]",
                                        "<|fim_pad|>",
                                        "<fim-pad>",
                                        "<fim_pad>",
                                        "<PAD>",
                                        "<|fim_repo|>",
                                        "<|repo_name|>",
                                        "<fim-repo>",
                                        "<REPO>",
                                        "<reponame>",
                                        "<|file_sep|>",
                                        "<｜end▁of▁sentence｜>",
                                        "<end_of_utterance>"};
static const char *const middle_names[] = {
    "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<PRE>",           "▁<PRE>",         "<|fim_suffix|>",
    "<fim-suffix>",   "<fim_suffix>", "<SUF>",        "▁<SUF>",          "<|fim_middle|>", "<fim-middle>",
    "<fim_middle>",   "<MID>",        "▁<MID>",       "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"};
_Static_assert(ARRAY_LEN(end_names) + 3 <= LINNET_ENDS_MAX, "all ends have room");

static void name_controls(linnet_tokenizer *t)
{
    for (size_t i = 0; i < ARRAY_LEN(end_names); i++) {
        int32_t id = linnet_tokenizer_find(t, end_names[i]);
        if (id < 0)
            continue;
        t->types[id] = PIECE_CONTROL;
        t->ends[t->n_ends++] = id;
    }
    for (size_t i = 0; i < ARRAY_LEN(middle_names); i++) {
        int32_t id = linnet_tokenizer_find(t, middle_names[i]);
        if (id >= 0)
            t->types[id] = PIECE_CONTROL;
    }
}

/* Families end a turn with another token than a text, and some files name it. */
static linnet_status read_ends(linnet_tokenizer *t, const linnet_gguf *gguf, linnet_error *err)
{
    static const char *const keys[] = {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
    t->ends[t->n_ends++] = t->end;
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        linnet_status status = read_id(t, gguf, keys[i], NO_ID, &t->ends[t->n_ends], err);
        if (status != LINNET_OK)
            return status;
        t->n_ends++;
    }
    return LINNET_OK;
}

/* GGUF files do not tell which tokens take the white space behind them; llama.cpp goes by the model's name.
 */
static void read_stripping(linnet_tokenizer *t, const linnet_gguf *gguf)
{
    static const char *const keep[] = {"<unk>", "<s>", "<|endoftext|>"};
    linnet_text name = {0};
    if (linnet_gguf_get_text(gguf, "general.name", &name, NULL) != LINNET_OK)
        return;
    for (size_t at = 0; at + 4 <= name.n_bytes; at++) {
        const char *s = name.bytes + at;
        bool dash = name.n_bytes - at >= 5 && s[3] == '-';
        if ((s[0] | 0x20) == 'p' && (s[1] | 0x20) == 'h' && (s[2] | 0x20) == 'i' && s[dash ? 4 : 3] == '3')
            t->strips_right = true;
    }
    for (size_t i = 0; i < ARRAY_LEN(keep); i++)
        t->keeps_right[i] = linnet_tokenizer_find(t, keep[i]);
}

/* BERT's texts stand between [CLS] and [SEP]. */
static linnet_status read_wordpiece(linnet_tokenizer *t, const linnet_gguf *gguf, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    if (!linnet_gguf_find(gguf, "tokenizer.ggml.bos_token_id"))
        status = read_id(t, gguf, "tokenizer.ggml.cls_token_id", kinds[t->kind].begin, &t->begin, err);
    if (status == LINNET_OK) /* misspelled in the format */
        status = read_id(t, gguf, "tokenizer.ggml.seperator_token_id", 102, &t->last, err);
    if (status == LINNET_OK)
        status = read_bool(gguf, "tokenizer.ggml.add_sep_token", true, &t->adds_last, err);
    if (status == LINNET_OK)
        status = read_bool(gguf, "tokenizer.ggml.normalizer.lowercase", true, &t->lower_case, err);
    if (status == LINNET_OK)
        status =
            read_bool(gguf, "tokenizer.ggml.normalizer.strip_accents", t->lower_case, &t->strip_accents, err);
    return status;
}

static linnet_status read_settings(linnet_tokenizer *t, const linnet_gguf *gguf, linnet_error *err)
{
    bool adds_begin = t->bpe ? linnet_bpe_adds_begin(t->bpe) : kinds[t->kind].adds_begin;
    linnet_status status =
        read_id(t, gguf, "tokenizer.ggml.bos_token_id", kinds[t->kind].begin, &t->begin, err);
    if (status == LINNET_OK)
        status = read_id(t, gguf, "tokenizer.ggml.eos_token_id", kinds[t->kind].end, &t->end, err);
    if (status == LINNET_OK)
        status =
            read_id(t, gguf, "tokenizer.ggml.unknown_token_id", kinds[t->kind].unknown, &t->unknown, err);
    if (status == LINNET_OK)
        status = read_bool(gguf, "tokenizer.ggml.add_bos_token", adds_begin, &t->adds_begin, err);
    if (status == LINNET_OK)
        status = read_bool(gguf, "tokenizer.ggml.add_eos_token", false, &t->adds_last, err);
    if (status == LINNET_OK)
        status = read_bool(gguf, "tokenizer.ggml.add_space_prefix", kinds[t->kind].adds_prefix,
                           &t->adds_prefix, err);
    if (status == LINNET_OK)
        status = read_ends(t, gguf, err);
    t->last = t->end;
    if (status == LINNET_OK && t->kind == TOKENIZER_WORDPIECE)
        status = read_wordpiece(t, gguf, err);
    if (status != LINNET_OK)
        return status;
    read_stripping(t, gguf);
    status = linnet_gguf_get_text(gguf, "tokenizer.chat_template", &t->chat_template, err);
    return status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
}

static linnet_status read_vocabulary(linnet_tokenizer *t, const linnet_gguf *gguf, linnet_error *err)
{
    linnet_status status = read_pieces(t, gguf, err);
    if (status == LINNET_OK)
        status = read_scores_and_types(t, gguf, err);
    if (status == LINNET_OK)
        status = index_pieces(t, err);
    if (status != LINNET_OK)
        return status;
    name_controls(t);
    return linnet_specials_index(t, err);
}

linnet_status linnet_tokenizer_create(const linnet_gguf *gguf, linnet_tokenizer **ret_tokenizer,
                                      linnet_error *err)
{
    linnet_tokenizer *t = calloc(1, sizeof(*t));
    if (!t)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a tokenizer");
    linnet_status status = read_kind(t, gguf, err);
    if (status == LINNET_OK)
        status = read_vocabulary(t, gguf, err);
    if (status == LINNET_OK && t->kind == TOKENIZER_BPE)
        status = linnet_bpe_create(t, gguf, err);
    else if (status == LINNET_OK)
        index_bytes(t);
    t->keeps_words = status == LINNET_OK && t->kind == TOKENIZER_SPM && linnet_spm_keeps_words(t);
    if (status == LINNET_OK)
        status = read_settings(t, gguf, err);
    if (status != LINNET_OK) {
        linnet_tokenizer_destroy(t);
        return linnet_error_prefix(err, status, "'%s'", linnet_gguf_path(gguf));
    }
    *ret_tokenizer = t;
    return LINNET_OK;
}

void linnet_tokenizer_destroy(linnet_tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    linnet_bpe_destroy(tokenizer->bpe);
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
    return tokenizer->adds_begin && tokenizer->begin >= 0;
}

bool linnet_tokenizer_is_end(const linnet_tokenizer *tokenizer, int32_t id)
{
    bool found = false;
    for (size_t i = 0; i < tokenizer->n_ends; i++)
        found = found || tokenizer->ends[i] == id;
    return found && id >= 0;
}

bool linnet_tokenizer_strips_right(const linnet_tokenizer *tokenizer, int32_t id)
{
    if (!tokenizer->strips_right || id < 0 || (uint32_t)id >= tokenizer->n_vocabulary)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(tokenizer->keeps_right); i++) {
        if (tokenizer->keeps_right[i] == id)
            return false;
    }
    return tokenizer->types[id] == PIECE_CONTROL || tokenizer->types[id] == PIECE_USER_DEFINED ||
           tokenizer->types[id] == PIECE_UNKNOWN;
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

static linnet_status append_plain(const linnet_tokenizer *t, const char *text, size_t n_bytes, bool prefix,
                                  linnet_ids *ids)
{
    if (n_bytes == 0)
        return LINNET_OK;
    if (t->kind == TOKENIZER_BPE)
        return linnet_bpe_append(t, text, n_bytes, ids);
    if (t->kind == TOKENIZER_WORDPIECE)
        return linnet_wordpiece_append(t, text, n_bytes, ids);
    return linnet_spm_append(t, text, n_bytes, prefix, ids);
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Tokens that stand in the text become their ids; each stretch between them is tokenised apart, with its own
 * space prefix. */
static linnet_status append_text(const linnet_tokenizer *t, const char *text, size_t n_bytes, unsigned flags,
                                 linnet_ids *ids)
{
    bool prefix = (flags & LINNET_TOKENIZE_PREFIX) != 0, all = (flags & LINNET_TOKENIZE_SPECIAL) != 0;
    linnet_status status = LINNET_OK;
    size_t start = 0;
    for (size_t at = 0; at < n_bytes && status == LINNET_OK;) {
        int32_t id = linnet_special_at(t, text + at, n_bytes - at, all);
        if (id < 0) {
            at++;
            continue;
        }
        status = append_plain(t, text + start, at - start, prefix, ids);
        if (status == LINNET_OK)
            status = linnet_ids_append(ids, id);
        at += t->pieces[id].n_bytes;
        while (at < n_bytes && linnet_tokenizer_strips_right(t, id) && is_space(text[at]))
            at++;
        start = at;
    }
    if (status == LINNET_OK)
        status = append_plain(t, text + start, n_bytes - start, prefix, ids);
    return status;
}

linnet_status linnet_tokenize(const linnet_tokenizer *tokenizer, const char *text, size_t n_bytes,
                              unsigned flags, linnet_ids *ids, linnet_error *err)
{
    if (n_bytes > TEXT_BYTES_MAX)
        return linnet_fail(err, LINNET_ERR_LIMIT, "a text of %zu bytes is too long to tokenise, %u can be",
                           n_bytes, TEXT_BYTES_MAX);
    size_t n_before = ids->n_items;
    linnet_status status = LINNET_OK;
    if ((flags & LINNET_TOKENIZE_BEGIN) && linnet_tokenizer_adds_begin(tokenizer))
        status = linnet_ids_append(ids, tokenizer->begin);
    if (status == LINNET_OK)
        status = append_text(tokenizer, text, n_bytes, flags, ids);
    if (status == LINNET_OK && (flags & LINNET_TOKENIZE_END) && tokenizer->adds_last && tokenizer->last >= 0)
        status = linnet_ids_append(ids, tokenizer->last);
    if (status == LINNET_OK)
        return LINNET_OK;
    ids->n_items = n_before;
    if (status == LINNET_ERR_LIMIT)
        return linnet_fail(err, status, "the pre-tokenizer needs too many steps for a text of %zu bytes",
                           n_bytes);
    return linnet_fail(err, status, "no memory to tokenise a text of %zu bytes", n_bytes);
}

linnet_text linnet_token_piece(const linnet_tokenizer *tokenizer, int32_t id)
{
    if (id < 0 || (uint32_t)id >= tokenizer->n_vocabulary)
        return (linnet_text){"", 0};
    return tokenizer->pieces[id];
}
