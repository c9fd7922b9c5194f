/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer.json of a checkpoint as tokenizer.* of a GGUF file, so that one tokenizer serves both. Three
 * kinds are read. Byte pair encoding over bytes needs a pre-tokenizer that linnet has, known by its regular
 * expression. A SentencePiece vocabulary, which transformers writes as byte pair encoding with byte fallback,
 * becomes scores again: SentencePiece joins whichever neighbours give the best piece, so each way to put a
 * piece together must be among the merges, and those of a piece must stand together. BERT's WordPiece has
 * U+2581 in front of what begins a word in GGUF, where tokenizers has ## in front of what does not.
 * Everything else that would cut texts in another way is refused by name. Two things GGUF does not say, and
 * neither linnet nor llama.cpp does: texts are not brought into Unicode's NFC first (qwen2), and the space in
 * front of a text is put behind special tokens too (prepend_scheme "first"). And words of more than a hundred
 * characters are the unknown token for BERT, here they are cut as others are. Sources:
 * huggingface/tokenizers; llama.cpp's convert_hf_to_gguf.py.
 */
#include "checkpoint.h"

#include <stdio.h>
#include <stdlib.h>

#include "linnet/json_load.h"
#include "limits.h"

#define TOKENIZER_FILE "tokenizer.json"
#define SPACE_MARK "\xe2\x96\x81" /* U+2581 */

enum { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER_DEFINED, PIECE_UNUSED, PIECE_BYTE };

typedef struct piece {
    const char *text; /* borrowed from the JSON; NULL: no token has this id */
    uint8_t type;
    float score;
} piece;

typedef struct reading {
    const checkpoint_config *config;
    linnet_gguf_writer *writer;
    json_t *file;     /* tokenizer.json */
    json_t *settings; /* tokenizer_config.json, or NULL */
    json_t *model, *vocabulary;
    bool is_wordpiece;
    piece *pieces; /* owned, config->vocabulary of them, by id */
    linnet_error *err;
} reading;

/* ---- what is set ---- */

static linnet_status refuse(const reading *r, const char *what)
{
    return linnet_fail(r->err, LINNET_ERR_UNSUPPORTED, "its tokenizer has %s, which linnet does not know",
                       what);
}

static bool is_off(const json_t *value)
{
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_number(value) && json_number_value(value) == 0);
}

static bool text_is(const json_t *object, const char *name, const char *wanted)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text && strcmp(text, wanted) == 0;
}

static bool is_on(const json_t *object, const char *name)
{
    return json_is_true(json_object_get(object, name));
}

/* ---- pieces ---- */

static linnet_status put_piece(reading *r, const char *text, const json_t *id, uint8_t type)
{
    json_int_t i = json_integer_value(id);
    if (!json_is_integer(id) || i < 0 || i >= (json_int_t)r->config->vocabulary)
        return linnet_fail(r->err, LINNET_ERR_FORMAT, "token '%.40s' has no id below the vocab_size of %u",
                           text, (unsigned)r->config->vocabulary);
    piece *p = &r->pieces[i];
    if (p->text && strcmp(p->text, text) != 0)
        return linnet_fail(r->err, LINNET_ERR_FORMAT, "tokens '%.40s' and '%.40s' have one id, %lld", p->text,
                           text, (long long)i);
    *p = (piece){.text = text, .type = type};
    return LINNET_OK;
}

static linnet_status read_added(reading *r)
{
    const json_t *added = json_object_get(r->file, "added_tokens");
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < json_array_size(added) && status == LINNET_OK; i++) {
        const json_t *token = json_array_get(added, i);
        const char *text = json_string_value(json_object_get(token, "content"));
        if (!text || text[0] == '\0')
            return linnet_fail(r->err, LINNET_ERR_FORMAT, "added token %zu has no content", i);
        if (is_on(token, "lstrip") || is_on(token, "rstrip") || is_on(token, "single_word"))
            return linnet_fail(r->err, LINNET_ERR_UNSUPPORTED,
                               "added token '%.40s' asks for lstrip, rstrip or single_word", text);
        const json_t *id = json_object_get(r->vocabulary, text);
        if (id && !json_equal(id, json_object_get(token, "id")))
            return linnet_fail(r->err, LINNET_ERR_FORMAT,
                               "added token '%.40s' has another id in the vocabulary", text);
        status = put_piece(r, text, json_object_get(token, "id"),
                           is_on(token, "special") ? PIECE_CONTROL : PIECE_USER_DEFINED);
    }
    return status;
}

static linnet_status read_pieces(reading *r)
{
    const char *text;
    json_t *id;
    linnet_status status = LINNET_OK;
    r->pieces = calloc(r->config->vocabulary, sizeof(r->pieces[0]));
    if (!r->pieces)
        return linnet_fail(r->err, LINNET_ERR_NOMEM, "no memory for %u tokens",
                           (unsigned)r->config->vocabulary);
    json_object_foreach(r->vocabulary, text, id)
    {
        if (text[0] == '\0')
            return linnet_fail(r->err, LINNET_ERR_FORMAT, "a token is empty");
        status = put_piece(r, text, id, PIECE_NORMAL);
        if (status != LINNET_OK)
            return status;
    }
    return read_added(r);
}

static int64_t id_of(const reading *r, const char *text)
{
    const json_t *id = text ? json_object_get(r->vocabulary, text) : NULL;
    const json_t *added = json_object_get(r->file, "added_tokens");
    for (size_t i = 0; text && !id && i < json_array_size(added); i++)
        if (text_is(json_array_get(added, i), "content", text))
            id = json_object_get(json_array_get(added, i), "id");
    return id ? (int64_t)json_integer_value(id) : -1; /* they are checked */
}

/* ---- merges ---- */

/* "left right", or a list of the two. One space stands between them in GGUF, so that neither has any. */
static linnet_status split_merge(const reading *r, const json_t *merge, size_t i, linnet_text *ret_left,
                                 linnet_text *ret_right)
{
    const char *whole = json_string_value(merge), *left, *right;
    if (whole) {
        const char *space = strchr(whole, ' ');
        left = whole;
        right = space ? space + 1 : "";
        *ret_left = (linnet_text){left, space ? (size_t)(space - whole) : 0};
    } else {
        left = json_string_value(json_array_get(merge, 0));
        right = json_string_value(json_array_get(merge, 1));
        *ret_left =
            (linnet_text){left, left && json_array_size(merge) == 2 && !strchr(left, ' ') ? strlen(left) : 0};
    }
    *ret_right = (linnet_text){right, right && !strchr(right, ' ') ? strlen(right) : 0};
    if (ret_left->n_bytes == 0 || ret_right->n_bytes == 0)
        return linnet_fail(r->err, LINNET_ERR_FORMAT, "merge %zu is not two pieces without spaces", i);
    return LINNET_OK;
}

static linnet_status put_merges(const reading *r)
{
    const json_t *merges = json_object_get(r->model, "merges");
    linnet_buffer elements = {0};
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < json_array_size(merges) && status == LINNET_OK; i++) {
        linnet_text left = {0}, right = {0};
        status = split_merge(r, json_array_get(merges, i), i, &left, &right);
        linnet_buffer_append_le64(&elements, left.n_bytes + right.n_bytes + 1);
        linnet_buffer_append(&elements, left.bytes, left.n_bytes);
        linnet_buffer_append_u8(&elements, ' ');
        linnet_buffer_append(&elements, right.bytes, right.n_bytes);
    }
    if (status == LINNET_OK)
        linnet_gguf_writer_array(r->writer, "tokenizer.ggml.merges", LINNET_GGUF_STRING,
                                 json_array_size(merges), &elements);
    linnet_buffer_release(&elements);
    return status;
}

/* ---- byte pair encoding over bytes ---- */

#define SHORT_FORMS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define REST "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const struct {
    const char *expression; /* of a Split before ByteLevel */
    bool takes_whole;       /* ignore_merges: a piece that is a token needs no merges */
    const char *name;       /* tokenizer.ggml.pre */
} expressions[] = {
    {SHORT_FORMS "\\p{N}{1,3}" REST, true, "llama-bpe"},
    {SHORT_FORMS "\\p{N}{1,3}" REST, false, "smaug-bpe"},
    {SHORT_FORMS "\\p{N}" REST, false, "qwen2"},
    {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", false, "gpt-2"},
};

static linnet_status check_byte_level(const reading *r, const json_t *step, bool wants_regex)
{
    const json_t *regex = json_object_get(step, "use_regex");
    if (!text_is(step, "type", "ByteLevel") || is_on(step, "add_prefix_space") ||
        (regex ? json_is_true(regex) : true) != wants_regex)
        return refuse(r, "a pre_tokenizer other than ByteLevel at its end, without add_prefix_space");
    return LINNET_OK;
}

/* The name of a pre-tokenizer: ByteLevel alone is GPT-2's; digits one by one before it are SmolLM's; a Split
 * tells by its expression. */
static linnet_status name_pretokenizer(const reading *r, const char **ret_name)
{
    const json_t *pre = json_object_get(r->file, "pre_tokenizer"),
                 *steps = json_object_get(pre, "pretokenizers");
    const json_t *first = json_array_get(steps, 0), *last = json_array_get(steps, 1);
    const char *expression = json_string_value(json_object_get(json_object_get(first, "pattern"), "Regex"));
    bool takes_whole = is_on(r->model, "ignore_merges");
    if (text_is(pre, "type", "ByteLevel")) {
        *ret_name = "gpt-2";
        return takes_whole ? refuse(r, "ignore_merges") : check_byte_level(r, pre, true);
    }
    if (!text_is(pre, "type", "Sequence") || json_array_size(steps) != 2)
        return refuse(r, "another pre_tokenizer than ByteLevel, or a Sequence of two");
    if (text_is(first, "type", "Digits") && is_on(first, "individual_digits")) {
        *ret_name = "smollm";
        return takes_whole ? refuse(r, "ignore_merges") : check_byte_level(r, last, true);
    }
    bool isolates = text_is(first, "behavior", "Isolated") && !is_on(first, "invert");
    bool keeps = text_is(first, "behavior", "Removed") && is_on(first, "invert"); /* expressions match all */
    for (size_t i = 0; expression && (isolates || keeps) && i < ARRAY_LEN(expressions); i++) {
        if (strcmp(expression, expressions[i].expression) != 0 || takes_whole != expressions[i].takes_whole)
            continue;
        *ret_name = expressions[i].name;
        return check_byte_level(r, last, false);
    }
    return linnet_fail(r->err, LINNET_ERR_UNSUPPORTED,
                       "its tokenizer cuts texts by '%.200s'%s, which is none of llama3, qwen2 and gpt-2",
                       expression ? expression : "", takes_whole ? " with ignore_merges" : "");
}

static linnet_status put_bpe(const reading *r)
{
    const char *name = NULL;
    const json_t *normalizer = json_object_get(r->file, "normalizer");
    bool is_empty = text_is(normalizer, "type", "Sequence") &&
                    json_array_size(json_object_get(normalizer, "normalizers")) == 0;
    if (!is_off(normalizer) && !is_empty && !text_is(normalizer, "type", "NFC"))
        return refuse(r, "a normalizer other than NFC");
    linnet_status status = name_pretokenizer(r, &name);
    if (status != LINNET_OK)
        return status;
    linnet_gguf_writer_text(r->writer, "tokenizer.ggml.model", "gpt2");
    linnet_gguf_writer_text(r->writer, "tokenizer.ggml.pre", name);
    return put_merges(r);
}

/* ---- SentencePiece ---- */

/* How spaces become marks, and whether one goes in front. */
static linnet_status read_spaces(const reading *r, bool *ret_prefix)
{
    const json_t *pre = json_object_get(r->file, "pre_tokenizer"),
                 *normalizer = json_object_get(r->file, "normalizer");
    const json_t *steps = json_object_get(normalizer, "normalizers");
    size_t n = text_is(normalizer, "type", "Sequence") ? json_array_size(steps) : 0;
    bool is_sequence = text_is(normalizer, "type", "Sequence"), replaces = false, prepends = false,
         known = true;
    if (!is_off(normalizer) && !is_sequence) {
        steps = NULL;
        n = 1;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *step = steps ? json_array_get(steps, i) : normalizer;
        if (i == 0 && text_is(step, "type", "Prepend") && text_is(step, "prepend", SPACE_MARK))
            prepends = true;
        else if (text_is(step, "type", "Replace") && text_is(step, "content", SPACE_MARK) &&
                 text_is(json_object_get(step, "pattern"), "String", " "))
            replaces = true;
        else
            known = false;
    }
    bool has_marks = text_is(pre, "type", "Metaspace") && text_is(pre, "replacement", SPACE_MARK) &&
                     !replaces && !prepends && json_is_false(json_object_get(pre, "split"));
    if (!known || (!is_off(pre) && !has_marks) || (is_off(pre) && !replaces))
        return refuse(r, "another normalizer or pre_tokenizer than a SentencePiece vocabulary of llama");
    *ret_prefix = has_marks
                      ? text_is(pre, "prepend_scheme", "always") || text_is(pre, "prepend_scheme", "first")
                      : prepends;
    return LINNET_OK;
}

/* In how many ways a piece is two others. */
static size_t count_splits(const reading *r, const char *text)
{
    char left[LINNET_PIECE_BYTES_MAX + 1];
    size_t n = 0, n_bytes = strlen(text);
    memcpy(left, text, n_bytes + 1);
    for (size_t at = n_bytes - 1; at > 0; at--) {
        left[at] = '\0'; /* within a character there is no piece: the JSON is UTF-8 */
        n += json_object_get(r->vocabulary, text + at) && json_object_get(r->vocabulary, left);
    }
    return n;
}

static linnet_status not_sentencepiece(const reading *r, const char *text)
{
    return linnet_fail(r->err, LINNET_ERR_UNSUPPORTED,
                       "its tokenizer falls back to bytes, but the merges of '%.40s' are not those of a "
                       "SentencePiece vocabulary",
                       text);
}

/* The piece that a merge gives, by id; text has room for it. */
static linnet_status joined_id(const reading *r, size_t i, char text[LINNET_PIECE_BYTES_MAX + 1],
                               size_t *ret_n_left, int64_t *ret_id)
{
    linnet_text left = {0}, right = {0};
    linnet_status status =
        split_merge(r, json_array_get(json_object_get(r->model, "merges"), i), i, &left, &right);
    if (status != LINNET_OK)
        return status;
    if (left.n_bytes > LINNET_PIECE_BYTES_MAX || right.n_bytes > LINNET_PIECE_BYTES_MAX - left.n_bytes)
        return linnet_fail(r->err, LINNET_ERR_LIMIT, "merge %zu gives a piece of more than %d bytes", i,
                           LINNET_PIECE_BYTES_MAX);
    memcpy(text, left.bytes, left.n_bytes);
    text[left.n_bytes] = '\0';
    bool has_parts = json_object_get(r->vocabulary, text) && json_object_get(r->vocabulary, right.bytes);
    memcpy(text + left.n_bytes, right.bytes, right.n_bytes + 1);
    const json_t *id = json_object_get(r->vocabulary, text);
    if (!id || !has_parts)
        return linnet_fail(r->err, LINNET_ERR_FORMAT, "merge %zu is of or into what is no token", i);
    *ret_n_left = left.n_bytes;
    *ret_id = (int64_t)json_integer_value(id);
    return LINNET_OK;
}

/* The merges of a piece stand together: their place among those of other pieces is its score. */
static linnet_status read_scores(reading *r)
{
    size_t n = json_array_size(json_object_get(r->model, "merges"));
    char text[LINNET_PIECE_BYTES_MAX + 1] = "";
    bool seen[LINNET_PIECE_BYTES_MAX + 1] = {false}; /* lengths of the left part */
    size_t n_seen = 0;
    int64_t last = -1;
    float score = 0;
    for (size_t i = 0; i <= n; i++) {
        size_t n_left = 0;
        int64_t id = -1;
        linnet_status status = i < n ? joined_id(r, i, text, &n_left, &id) : LINNET_OK;
        if (status != LINNET_OK)
            return status;
        if (id != last) {
            if (last >= 0 && n_seen != count_splits(r, r->pieces[last].text))
                return not_sentencepiece(r, r->pieces[last].text);
            if (i == n)
                break;
            if (r->pieces[id].score != 0)
                return not_sentencepiece(r, text);
            r->pieces[id].score = score -= 1;
            memset(seen, 0, sizeof(seen));
            n_seen = 0;
            last = id;
        }
        if (seen[n_left])
            return not_sentencepiece(r, text);
        seen[n_left] = true;
        n_seen++;
    }
    return LINNET_OK;
}

/* Pieces that no merge gives must not be two others: they would be joined here. */
static linnet_status check_unmerged(const reading *r)
{
    for (uint32_t id = 0; id < r->config->vocabulary; id++) {
        const piece *p = &r->pieces[id];
        if (!p->text || p->type != PIECE_NORMAL || p->score != 0)
            continue;
        if (strlen(p->text) > LINNET_PIECE_BYTES_MAX)
            return linnet_fail(r->err, LINNET_ERR_LIMIT, "a token has more than %d bytes",
                               LINNET_PIECE_BYTES_MAX);
        if (count_splits(r, p->text) > 0)
            return not_sentencepiece(r, p->text);
    }
    return LINNET_OK;
}

static linnet_status mark_bytes(reading *r)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char name[8];
        (void)snprintf(name, sizeof(name), "<0x%02X>", byte);
        const json_t *id = json_object_get(r->vocabulary, name);
        if (!id)
            return linnet_fail(r->err, LINNET_ERR_FORMAT, "it falls back to bytes, but has no token '%s'",
                               name);
        r->pieces[json_integer_value(id)].type = PIECE_BYTE;
    }
    return LINNET_OK;
}

static linnet_status put_spm(reading *r)
{
    bool prefix = false;
    linnet_buffer scores = {0};
    int64_t unknown = id_of(r, json_string_value(json_object_get(r->model, "unk_token")));
    linnet_status status = read_spaces(r, &prefix);
    if (status == LINNET_OK && is_on(r->model, "ignore_merges"))
        status = refuse(r, "ignore_merges");
    if (status == LINNET_OK)
        status = mark_bytes(r);
    if (status == LINNET_OK)
        status = read_scores(r);
    if (status == LINNET_OK)
        status = check_unmerged(r);
    for (uint32_t id = 0; id < r->config->vocabulary && status == LINNET_OK; id++) {
        uint8_t bytes[4];
        linnet_store_f32(bytes, r->pieces[id].score);
        linnet_buffer_append(&scores, bytes, sizeof(bytes));
    }
    if (status == LINNET_OK) {
        linnet_gguf_writer_text(r->writer, "tokenizer.ggml.model", "llama");
        linnet_gguf_writer_text(r->writer, "tokenizer.ggml.pre", "default");
        linnet_gguf_writer_bool(r->writer, "tokenizer.ggml.add_space_prefix", prefix);
        linnet_gguf_writer_array(r->writer, "tokenizer.ggml.scores", LINNET_GGUF_F32, r->config->vocabulary,
                                 &scores);
    }
    if (status == LINNET_OK && unknown >= 0) {
        linnet_gguf_writer_u32(r->writer, "tokenizer.ggml.unknown_token_id", (uint32_t)unknown);
        r->pieces[unknown].type = PIECE_UNKNOWN;
    }
    linnet_buffer_release(&scores);
    return status;
}

/* ---- WordPiece ---- */

static linnet_status put_normalizer(const reading *r)
{
    const json_t *normalizer = json_object_get(r->file, "normalizer");
    const json_t *strips = json_object_get(normalizer, "strip_accents");
    bool lowers = is_on(normalizer, "lowercase");
    if (!text_is(normalizer, "type", "BertNormalizer") || !is_on(normalizer, "clean_text") ||
        !is_on(normalizer, "handle_chinese_chars"))
        return refuse(r, "another normalizer than BertNormalizer that cleans and parts Chinese characters");
    if (!text_is(json_object_get(r->file, "pre_tokenizer"), "type", "BertPreTokenizer"))
        return refuse(r, "another pre_tokenizer than BertPreTokenizer");
    if (!text_is(r->model, "continuing_subword_prefix", "##"))
        return refuse(r, "a continuing_subword_prefix other than ##");
    linnet_gguf_writer_bool(r->writer, "tokenizer.ggml.normalizer.lowercase", lowers);
    linnet_gguf_writer_bool(r->writer, "tokenizer.ggml.normalizer.strip_accents",
                            json_is_boolean(strips) ? json_is_true(strips) : lowers);
    return LINNET_OK;
}

static linnet_status put_wordpiece(reading *r)
{
    int64_t unknown = id_of(r, json_string_value(json_object_get(r->model, "unk_token")));
    linnet_status status = put_normalizer(r);
    if (status == LINNET_OK && unknown < 0)
        status = linnet_fail(r->err, LINNET_ERR_FORMAT, "its unk_token is no token");
    if (status != LINNET_OK)
        return status;
    linnet_gguf_writer_text(r->writer, "tokenizer.ggml.model", "bert");
    linnet_gguf_writer_u32(r->writer, "tokenizer.ggml.unknown_token_id", (uint32_t)unknown);
    r->pieces[unknown].type = PIECE_CONTROL; /* as llama.cpp has it: it is not written in texts */
    return LINNET_OK;
}

/* What a piece has in front of it in GGUF; *text is moved behind what it has here. */
static const char *word_mark(const reading *r, const piece *p, const char **text)
{
    if (!r->is_wordpiece || !p->text || p->type != PIECE_NORMAL)
        return "";
    if (strncmp(p->text, "##", 2) != 0)
        return SPACE_MARK;
    *text += 2;
    return "";
}

/* ---- what stands around a text ---- */

/* "<s>", or an object with it. */
static int64_t named_token(const reading *r, const char *name, int64_t otherwise)
{
    const json_t *token = json_object_get(r->settings, name);
    const char *text = json_string_value(json_is_object(token) ? json_object_get(token, "content") : token);
    int64_t id = id_of(r, text);
    if (id < 0)
        id = otherwise;
    return id < (int64_t)r->config->vocabulary ? id : -1;
}

/* The id of a special token in a template; -1: the text itself; -2: something else. */
static int64_t template_token(const reading *r, const json_t *item)
{
    const json_t *special = json_object_get(item, "SpecialToken");
    if (json_object_get(item, "Sequence"))
        return -1;
    int64_t id = id_of(r, json_string_value(json_object_get(special, "id")));
    return id >= 0 ? id : -2;
}

/* A template of one text: the begin token in front of it, the end token behind, or not. */
static linnet_status read_template(const reading *r, const json_t *processor, int64_t begin, int64_t end,
                                   bool *ret_begins, bool *ret_ends)
{
    const json_t *single = json_object_get(processor, "single");
    size_t n = json_array_size(single), at = 0;
    if (n > at && begin >= 0 && template_token(r, json_array_get(single, at)) == begin) {
        *ret_begins = true;
        at++;
    }
    if (n <= at || template_token(r, json_array_get(single, at)) != -1)
        return refuse(r, "a post_processor that adds other tokens than begin and end");
    at++;
    if (n > at && end >= 0 && template_token(r, json_array_get(single, at)) == end) {
        *ret_ends = true;
        at++;
    }
    return at == n ? LINNET_OK : refuse(r, "a post_processor that adds other tokens than begin and end");
}

static linnet_status read_processor(const reading *r, int64_t begin, int64_t end, bool *ret_begins,
                                    bool *ret_ends)
{
    const json_t *processor = json_object_get(r->file, "post_processor");
    const json_t *steps = json_object_get(processor, "processors");
    bool is_sequence = text_is(processor, "type", "Sequence"), has_template = false;
    size_t n = is_sequence ? json_array_size(steps) : is_off(processor) ? 0 : 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *step = is_sequence ? json_array_get(steps, i) : processor;
        linnet_status status = LINNET_OK;
        if (text_is(step, "type", "TemplateProcessing") && !has_template)
            status = read_template(r, step, begin, end, ret_begins, ret_ends);
        else if (!text_is(step, "type", "ByteLevel")) /* it moves offsets only */
            status = refuse(r, "a post_processor other than TemplateProcessing and ByteLevel");
        has_template = has_template || text_is(step, "type", "TemplateProcessing");
        if (status != LINNET_OK)
            return status;
    }
    return LINNET_OK;
}

/* [CLS] and [SEP], by a template or by a step that does nothing else. */
static linnet_status put_bert_ends(const reading *r)
{
    const json_t *processor = json_object_get(r->file, "post_processor");
    int64_t begin = named_token(r, "cls_token", id_of(r, "[CLS]")),
            end = named_token(r, "sep_token", id_of(r, "[SEP]"));
    bool is_plain = text_is(processor, "type", "BertProcessing"), begins = is_plain, ends = is_plain;
    linnet_status status = is_plain ? LINNET_OK : read_processor(r, begin, end, &begins, &ends);
    if (status == LINNET_OK && (begin < 0 || end < 0 || !begins || !ends))
        status = refuse(r, "a post_processor that does not put cls_token and sep_token around a text");
    if (status != LINNET_OK)
        return status;
    linnet_gguf_writer_u32(r->writer, "tokenizer.ggml.bos_token_id", (uint32_t)begin); /* llama.cpp's name */
    linnet_gguf_writer_u32(r->writer, "tokenizer.ggml.cls_token_id", (uint32_t)begin);
    linnet_gguf_writer_u32(r->writer, "tokenizer.ggml.seperator_token_id", (uint32_t)end); /* sic */
    return LINNET_OK;
}

static linnet_status put_ends(const reading *r)
{
    int64_t begin = named_token(r, "bos_token", r->config->begin),
            end = named_token(r, "eos_token", r->config->end);
    bool begins = false, ends = false;
    linnet_status status = read_processor(r, begin, end, &begins, &ends);
    if (status != LINNET_OK)
        return status;
    if (begin >= 0)
        linnet_gguf_writer_u32(r->writer, "tokenizer.ggml.bos_token_id", (uint32_t)begin);
    if (end >= 0)
        linnet_gguf_writer_u32(r->writer, "tokenizer.ggml.eos_token_id", (uint32_t)end);
    linnet_gguf_writer_bool(r->writer, "tokenizer.ggml.add_bos_token", begins);
    linnet_gguf_writer_bool(r->writer, "tokenizer.ggml.add_eos_token", ends);
    return LINNET_OK;
}

/* Ids without a token are padding of the embedding's rows. */
static void put_tokens(const reading *r)
{
    linnet_buffer tokens = {0}, types = {0};
    for (uint32_t id = 0; id < r->config->vocabulary; id++) {
        const piece *p = &r->pieces[id];
        char padding[24];
        (void)snprintf(padding, sizeof(padding), "[PAD%u]", (unsigned)id);
        const char *text = p->text ? p->text : padding, *mark = word_mark(r, p, &text);
        linnet_buffer_append_le64(&tokens, strlen(mark) + strlen(text));
        linnet_buffer_append_text(&tokens, mark);
        linnet_buffer_append_text(&tokens, text);
        linnet_buffer_append_le32(&types, p->text ? p->type : PIECE_UNUSED);
    }
    linnet_gguf_writer_array(r->writer, "tokenizer.ggml.tokens", LINNET_GGUF_STRING, r->config->vocabulary,
                             &tokens);
    linnet_gguf_writer_array(r->writer, "tokenizer.ggml.token_type", LINNET_GGUF_I32, r->config->vocabulary,
                             &types);
    linnet_buffer_release(&tokens);
    linnet_buffer_release(&types);
}

/* ---- the chat template ---- */

/* In a file of its own, or a setting: a text, or one of several by the name "default". */
static linnet_status put_chat_template(const reading *r, const char *directory)
{
    linnet_buffer bytes = {0};
    const json_t *setting = json_object_get(r->settings, "chat_template");
    const char *text = json_string_value(setting);
    char *path = linnet_path_join(directory, "chat_template.jinja");
    if (!path)
        return linnet_fail(r->err, LINNET_ERR_NOMEM, "no memory for a path");
    linnet_status status = linnet_file_read(path, LINNET_CONFIG_BYTES_MAX, &bytes, r->err);
    for (size_t i = 0; !text && i < json_array_size(setting); i++)
        if (text_is(json_array_get(setting, i), "name", "default"))
            text = json_string_value(json_object_get(json_array_get(setting, i), "template"));
    if (status == LINNET_OK) {
        linnet_buffer_append_u8(&bytes, 0);
        text = bytes.failed ? NULL : (const char *)bytes.bytes;
    } else if (status == LINNET_ERR_NOT_FOUND) {
        status = LINNET_OK;
    }
    if (status == LINNET_OK && bytes.failed)
        status = linnet_fail(r->err, LINNET_ERR_NOMEM, "no memory for '%s'", path);
    if (status == LINNET_OK && text)
        linnet_gguf_writer_text(r->writer, "tokenizer.chat_template", text);
    linnet_buffer_release(&bytes);
    free(path);
    return status;
}

/* ---- the files ---- */

static linnet_status check_model(const reading *r)
{
    static const char *const none[] = {"dropout", "continuing_subword_prefix", "end_of_word_suffix"};
    const char *type = json_string_value(json_object_get(r->model, "type"));
    const char *wanted = r->is_wordpiece ? "WordPiece" : "BPE";
    if (!type || strcmp(type, wanted) != 0)
        return linnet_fail(r->err, LINNET_ERR_UNSUPPORTED, "its tokenizer is '%.40s'; %s is read",
                           type ? type : "", wanted);
    if (r->is_wordpiece)
        return json_is_object(r->vocabulary)
                   ? LINNET_OK
                   : linnet_fail(r->err, LINNET_ERR_FORMAT, "its tokenizer has no vocab");
    for (size_t i = 0; i < ARRAY_LEN(none); i++) {
        const json_t *value = json_object_get(r->model, none[i]);
        if (!is_off(value) && !text_is(r->model, none[i], ""))
            return refuse(r, none[i]);
    }
    if (!json_is_object(r->vocabulary) || !json_is_array(json_object_get(r->model, "merges")))
        return linnet_fail(r->err, LINNET_ERR_FORMAT, "its tokenizer has no vocab or no merges");
    return LINNET_OK;
}

static linnet_status read_file(reading *r)
{
    r->model = json_object_get(r->file, "model");
    r->vocabulary = json_object_get(r->model, "vocab");
    r->is_wordpiece = r->config->architecture->has_pooled_head;
    linnet_status status = check_model(r);
    if (status == LINNET_OK)
        status = read_pieces(r);
    if (status == LINNET_OK)
        status = r->is_wordpiece                    ? put_wordpiece(r)
                 : is_on(r->model, "byte_fallback") ? put_spm(r)
                                                    : put_bpe(r);
    if (status == LINNET_OK)
        status = r->is_wordpiece ? put_bert_ends(r) : put_ends(r);
    if (status == LINNET_OK)
        put_tokens(r);
    return status;
}

linnet_status linnet_checkpoint_read_tokenizer(const char *directory, const checkpoint_config *config,
                                               linnet_gguf_writer *writer, linnet_error *err)
{
    reading r = {.config = config, .writer = writer, .err = err};
    linnet_status status = linnet_json_load_file(directory, TOKENIZER_FILE, LINNET_TOKENIZER_BYTES_MAX,
                                                 LINNET_TOKENIZER_VALUES_MAX, 0, &r.file, err);
    if (status == LINNET_OK) { /* model_max_length is often 10^30 */
        status = linnet_json_load_file(directory, "tokenizer_config.json", LINNET_TOKENIZER_CONFIG_BYTES_MAX,
                                       LINNET_JSON_VALUES_MAX, JSON_DECODE_INT_AS_REAL, &r.settings, err);
        status = status == LINNET_ERR_NOT_FOUND ? LINNET_OK : status;
    }
    if (status == LINNET_OK) {
        status = read_file(&r);
        if (status != LINNET_OK)
            status = linnet_error_prefix(err, status, "'%s/%s'", directory, TOKENIZER_FILE);
    }
    if (status == LINNET_OK)
        status = put_chat_template(&r, directory);
    free(r.pieces);
    json_decref(r.settings);
    json_decref(r.file);
    return status;
}
