/* SPDX-License-Identifier: Apache-2.0 */
/* WordPiece, the tokenizer of BERT (Devlin et al. 2019), with the results of llama.cpp. The text is cleaned:
 * control characters and what is no UTF-8 are dropped, letters lose their accents and become small where the
 * file says so. White space parts words; a punctuation mark and a Chinese character are words of their own.
 * A word, with the mark U+2581 in front as GGUF vocabularies have it, then falls into the longest pieces from
 * its left; where that fails the whole word is the unknown token. Case, accents and spaces do not come back.
 */
#include "tokenizer_state.h"
#include "unicode_tables.h"

#define PIECE_BYTES_MAX 128u /* longer pieces are not looked for: it bounds the work on a long word */

/* ---- characters ---- */

/* The last row that starts at or before c, or the first. Rows of all tables begin with a character. */
#define ROW_OF(table, c)                                                                                     \
    (table + row_index((const char *)(table) + offsetof(__typeof__(table[0]), first), sizeof(table[0]),      \
                       table##_n, c))

static size_t row_index(const char *firsts, size_t row_bytes, size_t n_rows, uint32_t c)
{
    size_t low = 0, high = n_rows;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        uint32_t first;
        memcpy(&first, firsts + middle * row_bytes, sizeof(first));
        if (first <= c)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static linnet_unicode_kind kind_of(uint32_t c)
{
    const linnet_unicode_class *row = ROW_OF(linnet_unicode_classes, c);
    return c >= row->first && c <= row->last ? row->kind : LINNET_UNICODE_OTHER;
}

/* Of a Hangul syllable the leading consonant is left, as in llama.cpp; BERT itself keeps all its letters. */
static uint32_t base_of(uint32_t c)
{
    if (c >= 0xac00 && c <= 0xd7a3) /* Hangul (The Unicode Standard, 3.12) */
        return 0x1100 + (c - 0xac00) / 588;
    const linnet_unicode_base *row = ROW_OF(linnet_unicode_bases, c);
    return c >= row->first && c <= row->last ? row->base : c;
}

static uint32_t lower_of(uint32_t c)
{
    const linnet_unicode_lower *row = ROW_OF(linnet_unicode_lowers, c);
    bool is_upper = c >= row->first && c <= row->last && (c - row->first) % row->step == 0;
    return is_upper ? (uint32_t)((int32_t)c + row->distance) : c;
}

/* As BERT has it: not Japanese kana, not Hangul. */
static bool is_chinese(uint32_t c)
{
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
           (c >= 0x2a700 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) || (c >= 0xf900 && c <= 0xfaff) ||
           (c >= 0x2f800 && c <= 0x2fa1f);
}

static uint32_t read_character(const char *text, size_t length)
{
    const uint8_t *s = (const uint8_t *)text;
    uint32_t c = length == 1 ? s[0] : s[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++)
        c = c << 6 | (s[i] & 0x3fu);
    return c;
}

static void append_character(linnet_buffer *to, uint32_t c)
{
    unsigned n_more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const uint8_t leads[] = {0, 0xc0, 0xe0, 0xf0};
    linnet_buffer_append_u8(to, (uint8_t)(leads[n_more] | c >> (6 * n_more)));
    while (n_more-- > 0)
        linnet_buffer_append_u8(to, (uint8_t)(0x80 | (c >> (6 * n_more) & 0x3f)));
}

/* ---- words ---- */

typedef struct word_run {
    const linnet_tokenizer *tokenizer;
    linnet_buffer word; /* the mark, then the characters so far */
    linnet_ids *ids;
} word_run;

static int32_t longest_piece(const linnet_tokenizer *t, const char *bytes, size_t n_bytes, size_t *ret_length)
{
    size_t n = n_bytes < PIECE_BYTES_MAX ? n_bytes : PIECE_BYTES_MAX;
    for (n = n < t->piece_bytes_max ? n : t->piece_bytes_max; n > 0; n--) {
        int32_t id = linnet_tokenizer_lookup(t, bytes, n);
        if (id >= 0) {
            *ret_length = n;
            return id;
        }
    }
    return -1;
}

static linnet_status end_word(word_run *r)
{
    size_t n_before = r->ids->n_items, length = 0;
    const char *bytes = (const char *)r->word.bytes;
    if (r->word.failed)
        return LINNET_ERR_NOMEM;
    if (r->word.n_bytes <= strlen(LINNET_SPACE_MARK))
        return LINNET_OK;
    linnet_status status = LINNET_OK;
    for (size_t at = 0; at < r->word.n_bytes && status == LINNET_OK; at += length) {
        int32_t id = longest_piece(r->tokenizer, bytes + at, r->word.n_bytes - at, &length);
        if (id < 0) {
            r->ids->n_items = n_before;
            status = r->tokenizer->unknown < 0 ? LINNET_OK : linnet_ids_append(r->ids, r->tokenizer->unknown);
            break;
        }
        status = linnet_ids_append(r->ids, id);
    }
    r->word.n_bytes = strlen(LINNET_SPACE_MARK);
    return status;
}

static linnet_status add_character(word_run *r, uint32_t c)
{
    linnet_unicode_kind kind;
    if (r->tokenizer->strip_accents)
        c = base_of(c);
    kind = kind_of(c);
    if (kind == LINNET_UNICODE_SPACE)
        return end_word(r);
    if (kind == LINNET_UNICODE_CONTROL || (kind == LINNET_UNICODE_MARK && r->tokenizer->strip_accents))
        return LINNET_OK;
    bool alone = kind == LINNET_UNICODE_PUNCTUATION || is_chinese(c);
    linnet_status status = alone ? end_word(r) : LINNET_OK;
    append_character(&r->word, r->tokenizer->lower_case ? lower_of(c) : c);
    return alone && status == LINNET_OK ? end_word(r) : status;
}

linnet_status linnet_wordpiece_append(const linnet_tokenizer *t, const char *text, size_t n_bytes,
                                      linnet_ids *ids)
{
    word_run r = {.tokenizer = t, .ids = ids};
    linnet_status status = LINNET_OK;
    linnet_buffer_append_text(&r.word, LINNET_SPACE_MARK);
    for (size_t at = 0; at < n_bytes && status == LINNET_OK;) {
        size_t length = linnet_utf8_sequence(text + at, n_bytes - at);
        if (length > 0)
            status = add_character(&r, read_character(text + at, length));
        at += length > 0 ? length : 1;
    }
    if (status == LINNET_OK)
        status = end_word(&r);
    linnet_buffer_release(&r.word);
    return status;
}
