/* SPDX-License-Identifier: Apache-2.0 */
/* The sentencepiece-like tokenizer (SPM) of the llama family, with the results of llama.cpp: spaces become
 * U+2581, the text falls into characters, and neighbours that joined are a piece are merged, the best score
 * first (tokenizer_merge.c). What is no piece then falls to its bytes' tokens <0xXX>, and without those to
 * the unknown token. */
#include "tokenizer_merge.h"
#include "tokenizer_state.h"

#define NONE UINT32_MAX /* no symbol */

typedef struct spm_text {
    const linnet_tokenizer *tokenizer;
    const char *text;
} spm_text;

/* A number that grows as the score falls: the bits of a float are ordered like the float but for the sign. */
static uint32_t order_of(float score)
{
    uint32_t bits;
    float positive_zero = score + 0.0f;
    memcpy(&bits, &positive_zero, sizeof(bits));
    return bits & 0x80000000u ? bits : ~(bits | 0x80000000u);
}

static bool find_pair(const void *context, const linnet_symbol *left, const linnet_symbol *right,
                      uint32_t *ret_order, int32_t *ret_id)
{
    const spm_text *s = context;
    int32_t id =
        linnet_tokenizer_lookup(s->tokenizer, s->text + left->at, (size_t)left->n_bytes + right->n_bytes);
    if (id < 0)
        return false;
    *ret_order = order_of(s->tokenizer->scores[id]);
    *ret_id = id;
    return true;
}

static bool split_characters(const linnet_tokenizer *t, const char *text, size_t n_bytes, linnet_merger *m)
{
    for (size_t at = 0; at < n_bytes;) {
        size_t length = linnet_utf8_sequence(text + at, n_bytes - at);
        if (length == 0)
            length = 1;
        if (!linnet_merger_add(m, at, length, linnet_tokenizer_lookup(t, text + at, length)))
            return false;
        at += length;
    }
    return true;
}

/* A symbol's id; a character that is no piece: its bytes' tokens, or once the unknown token where one is
 * missing. */
static linnet_status append_symbol(const linnet_tokenizer *t, const char *text, const linnet_symbol *symbol,
                                   linnet_ids *ids)
{
    if (symbol->id >= 0)
        return linnet_ids_append(ids, symbol->id);
    const uint8_t *bytes = (const uint8_t *)text + symbol->at;
    bool all = true;
    for (size_t i = 0; i < symbol->n_bytes; i++)
        all = all && t->byte_ids[bytes[i]] >= 0;
    if (!all)
        return t->unknown < 0 ? LINNET_OK : linnet_ids_append(ids, t->unknown);
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < symbol->n_bytes && status == LINNET_OK; i++)
        status = linnet_ids_append(ids, t->byte_ids[bytes[i]]);
    return status;
}

static bool is_mark(const char *text, size_t n_bytes)
{
    return n_bytes >= 3 && memcmp(text, LINNET_SPACE_MARK, 3) == 0;
}

/* Where the first word of a text ends: at the first mark behind another character. */
static size_t word_bytes(const char *text, size_t n_bytes)
{
    size_t at = 0;
    while (is_mark(text + at, n_bytes - at))
        at += 3;
    while (at < n_bytes && !is_mark(text + at, n_bytes - at))
        at++;
    return at;
}

bool linnet_spm_keeps_words(const linnet_tokenizer *t)
{
    for (uint32_t id = 0; id < t->n_vocabulary; id++) {
        if (word_bytes(t->pieces[id].bytes, t->pieces[id].n_bytes) < t->pieces[id].n_bytes)
            return false;
    }
    return true;
}

static linnet_status append_merged(const linnet_tokenizer *t, const char *text, size_t n_bytes,
                                   linnet_merger *m, linnet_ids *ids)
{
    spm_text s = {t, text};
    linnet_status status = LINNET_OK;
    linnet_merger_clear(m);
    m->context = &s;
    if (!split_characters(t, text, n_bytes, m) || !linnet_merger_run(m))
        return LINNET_ERR_NOMEM;
    for (uint32_t i = 0; i != LINNET_NO_SYMBOL && status == LINNET_OK; i = m->symbols[i].next)
        status = append_symbol(t, text, &m->symbols[i], ids);
    return status;
}

/* Where no piece goes from one word into the next, words are merged one by one: a small heap is a fast one.
 */
static linnet_status append_escaped(const linnet_tokenizer *t, const char *text, size_t n_bytes,
                                    linnet_ids *ids)
{
    linnet_merger m = {.find = find_pair};
    linnet_status status = LINNET_OK;
    for (size_t at = 0, n; at < n_bytes && status == LINNET_OK; at += n) {
        n = t->keeps_words ? word_bytes(text + at, n_bytes - at) : n_bytes;
        status = append_merged(t, text + at, n, &m, ids);
    }
    linnet_merger_release(&m);
    return status;
}

linnet_status linnet_spm_append(const linnet_tokenizer *t, const char *text, size_t n_bytes, bool prefix,
                                linnet_ids *ids)
{
    if (n_bytes == 0)
        return LINNET_OK;
    linnet_buffer escaped = {0};
    if (prefix && t->adds_prefix)
        linnet_buffer_append_text(&escaped, LINNET_SPACE_MARK);
    for (size_t at = 0; at < n_bytes;) {
        const char *space = memchr(text + at, ' ', n_bytes - at);
        size_t n_run = space ? (size_t)(space - text) - at : n_bytes - at;
        linnet_buffer_append(&escaped, text + at, n_run);
        if (space)
            linnet_buffer_append_text(&escaped, LINNET_SPACE_MARK);
        at += n_run + (space ? 1 : 0);
    }
    linnet_status status = LINNET_ERR_NOMEM;
    if (!escaped.failed)
        status = append_escaped(t, (const char *)escaped.bytes, escaped.n_bytes, ids);
    linnet_buffer_release(&escaped);
    return status;
}
