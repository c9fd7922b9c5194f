/* SPDX-License-Identifier: Apache-2.0 */
/* The sentencepiece-like tokenizer (SPM) of the llama family, with the results of llama.cpp: spaces become
 * U+2581, the text falls into characters, and as long as two neighbours joined are a piece of the vocabulary
 * the pair with the best score (the leftmost of equals) is merged. A heap of candidates over a linked list of
 * symbols makes that O(n log n). What is no piece then falls to its bytes' tokens <0xXX>, and without those
 * to the unknown token. */
#include "tokenizer_state.h"

#include <stdlib.h>

#define NONE UINT32_MAX /* no symbol */

/* A run of the escaped text: a character at first, then what was merged. n_bytes 0: swallowed by its left
 * neighbour. */
typedef struct symbol {
    uint32_t at, n_bytes, previous, next;
} symbol;

/* Two neighbours that together are a piece; stale where their bytes are no longer n_bytes. */
typedef struct candidate {
    float score;
    uint32_t left, right, n_bytes;
} candidate;

typedef struct merger {
    const linnet_tokenizer *tokenizer;
    const char *text;
    symbol *symbols;
    candidate *heap; /* the best on top */
    size_t n_heap, heap_capacity;
} merger;

static bool is_better(const candidate *a, const candidate *b)
{
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

static bool heap_push(merger *m, candidate c)
{
    if (m->n_heap == m->heap_capacity) {
        size_t capacity = m->heap_capacity < 64 ? 64 : m->heap_capacity * 2, n_bytes;
        if (!linnet_size_mul(capacity, sizeof(*m->heap), &n_bytes))
            return false;
        candidate *heap = realloc(m->heap, n_bytes);
        if (!heap)
            return false;
        m->heap = heap;
        m->heap_capacity = capacity;
    }
    size_t i = m->n_heap++;
    for (; i > 0 && is_better(&c, &m->heap[(i - 1) / 2]); i = (i - 1) / 2)
        m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = c;
    return true;
}

static candidate heap_pop(merger *m)
{
    candidate top = m->heap[0], last = m->heap[--m->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < m->n_heap; i = child) {
        if (child + 1 < m->n_heap && is_better(&m->heap[child + 1], &m->heap[child]))
            child++;
        if (!is_better(&m->heap[child], &last))
            break;
        m->heap[i] = m->heap[child];
    }
    m->heap[i] = last;
    return top;
}

static bool offer_pair(merger *m, uint32_t left, uint32_t right)
{
    if (left == NONE || right == NONE)
        return true;
    uint32_t n_bytes = m->symbols[left].n_bytes + m->symbols[right].n_bytes;
    int32_t id = linnet_tokenizer_lookup(m->tokenizer, m->text + m->symbols[left].at, n_bytes);
    if (id < 0)
        return true;
    return heap_push(m, (candidate){m->tokenizer->scores[id], left, right, n_bytes});
}

static bool merge_all(merger *m, size_t n_symbols)
{
    for (size_t i = 1; i < n_symbols; i++) {
        if (!offer_pair(m, (uint32_t)(i - 1), (uint32_t)i))
            return false;
    }
    while (m->n_heap > 0) {
        candidate best = heap_pop(m);
        symbol *left = &m->symbols[best.left], *right = &m->symbols[best.right];
        if (left->n_bytes == 0 || right->n_bytes == 0 || left->n_bytes + right->n_bytes != best.n_bytes)
            continue;
        left->n_bytes = best.n_bytes;
        right->n_bytes = 0;
        left->next = right->next;
        if (right->next != NONE)
            m->symbols[right->next].previous = best.left;
        if (!offer_pair(m, left->previous, best.left) || !offer_pair(m, best.left, left->next))
            return false;
    }
    return true;
}

/* Bytes of the character at the start of a text; 1 where it is not UTF-8. */
static size_t character_bytes(const char *text, size_t n_bytes)
{
    uint8_t lead = (uint8_t)text[0];
    size_t n = lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    return n > 1 && n <= n_bytes && linnet_utf8_is_valid(text, n) ? n : 1;
}

static size_t split_characters(const char *text, size_t n_bytes, symbol *symbols)
{
    size_t n = 0;
    for (size_t at = 0; at < n_bytes; n++) {
        size_t length = character_bytes(text + at, n_bytes - at);
        symbols[n] =
            (symbol){(uint32_t)at, (uint32_t)length, n == 0 ? NONE : (uint32_t)(n - 1), (uint32_t)(n + 1)};
        at += length;
    }
    if (n > 0)
        symbols[n - 1].next = NONE;
    return n;
}

/* A symbol's id; a character that is no piece: its bytes' tokens, or once the unknown token where one is
 * missing. */
static linnet_status append_symbol(const linnet_tokenizer *t, const char *bytes, size_t n_bytes,
                                   linnet_ids *ids)
{
    int32_t id = linnet_tokenizer_lookup(t, bytes, n_bytes);
    if (id >= 0)
        return linnet_ids_append(ids, id);
    bool all = true;
    for (size_t i = 0; i < n_bytes; i++)
        all = all && t->byte_ids[(uint8_t)bytes[i]] >= 0;
    if (!all)
        return t->unknown < 0 ? LINNET_OK : linnet_ids_append(ids, t->unknown);
    linnet_status status = LINNET_OK;
    for (size_t i = 0; i < n_bytes && status == LINNET_OK; i++)
        status = linnet_ids_append(ids, t->byte_ids[(uint8_t)bytes[i]]);
    return status;
}

static linnet_status append_escaped(const linnet_tokenizer *t, const char *text, size_t n_bytes,
                                    linnet_ids *ids)
{
    merger m = {.tokenizer = t, .text = text};
    linnet_status status = LINNET_ERR_NOMEM;
    size_t size;
    if (linnet_size_mul(n_bytes, sizeof(*m.symbols), &size))
        m.symbols = malloc(size);
    if (!m.symbols)
        return LINNET_ERR_NOMEM;
    size_t n = split_characters(text, n_bytes, m.symbols);
    if (merge_all(&m, n)) {
        status = LINNET_OK;
        for (uint32_t i = n > 0 ? 0 : NONE; i != NONE && status == LINNET_OK; i = m.symbols[i].next)
            status = append_symbol(t, text + m.symbols[i].at, m.symbols[i].n_bytes, ids);
    }
    free(m.symbols);
    free(m.heap);
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
