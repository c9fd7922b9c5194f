/* SPDX-License-Identifier: Apache-2.0 */
/* Byte pair encoding over bytes, as GPT-2 introduced it (Radford et al. 2019, section 2.2), with the results
 * of llama.cpp. The text is cut into pieces (pretokenizer.c); within a piece the bytes, each a token, are
 * merged by the file's list of pairs, the earliest in it first.
 *
 * Vocabulary and merges write a byte as a character: itself where it is printable in Latin-1, else one from
 * U+0100 on. Merging needs no such text: it goes by ids, and the merges are a hash table from two ids to the
 * third. A merge whose parts or result are no tokens can never give one and is left out, and so is one with
 * control tokens: plain text does not become those. A byte without a token gives none. */
#include "pretokenizer.h"
#include "tokenizer_merge.h"
#include "tokenizer_state.h"

#include <stdlib.h>

#define MERGES_MAX (1u << 23) /* the largest vocabularies have some 300,000 */
#define PROBES_MAX 4096u      /* a merge this far from its slot: the file was made to be slow */

typedef struct merge_rule {
    int32_t left, right, joined;
} merge_rule;

struct linnet_bpe {
    linnet_pretokenizer *pretokenizer;
    merge_rule *rules; /* by rank */
    uint32_t n_rules;
    uint32_t *slots; /* hash table of ranks by left and right, UINT32_MAX: free */
    size_t n_slots;  /* a power of two */
};

/* ---- bytes as characters ---- */

/* The character that stands for a byte: 33 to 126, 161 to 172 and 174 to 255 for themselves. */
static unsigned character_of(uint8_t byte)
{
    if (byte <= 0x20)
        return 0x100u + byte;
    if (byte >= 0x7f && byte <= 0xa0)
        return 0x121u + byte - 0x7f;
    return byte == 0xad ? 0x143 : byte;
}

/* 1 or 2 bytes. */
static size_t put_character(char *to, uint8_t byte)
{
    unsigned c = character_of(byte);
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    to[0] = (char)(0xc0 | c >> 6);
    to[1] = (char)(0x80 | (c & 0x3f));
    return 2;
}

/* The byte that a character of a piece stands for; false for one that stands for none. */
static bool byte_of(const char *bytes, size_t n_bytes, uint8_t *ret_byte)
{
    const uint8_t *s = (const uint8_t *)bytes;
    unsigned c = n_bytes == 1 ? s[0] : n_bytes == 2 ? (s[0] & 0x1fu) << 6 | (s[1] & 0x3fu) : 0;
    if (c >= 0x100 && c <= 0x143)
        c = c <= 0x120 ? c - 0x100 : c == 0x143 ? 0xad : c - 0x121 + 0x7f;
    else if (c <= 0x20 || (c >= 0x7f && c <= 0xa0) || c == 0xad || c > 0xff)
        return false;
    *ret_byte = (uint8_t)c;
    return true;
}

void linnet_bpe_detokenize(linnet_text piece, linnet_buffer *text)
{
    for (size_t at = 0; at < piece.n_bytes;) {
        size_t length = linnet_utf8_sequence(piece.bytes + at, piece.n_bytes - at);
        uint8_t byte;
        if (length == 0)
            length = 1;
        if (byte_of(piece.bytes + at, length, &byte))
            linnet_buffer_append_u8(text, byte);
        else
            linnet_buffer_append(text, piece.bytes + at, length);
        at += length;
    }
}

/* Only what gives the byte back is its token: DeepSeek's user-defined "\u00f5" is that letter, not byte 245.
 */
static void index_bytes(linnet_tokenizer *t)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char name[2];
        int32_t id = linnet_tokenizer_lookup(t, name, put_character(name, (uint8_t)byte));
        t->byte_ids[byte] = id >= 0 && t->types[id] == PIECE_NORMAL ? id : -1;
    }
}

/* ---- merges ---- */

static size_t hash_pair(int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 32) * 0xd6e8feb86659fd93u;
    return (size_t)(h ^ h >> 32);
}

/* The slot where a pair stands or would; SIZE_MAX after too many probes. */
static size_t slot_of(const linnet_bpe *bpe, int32_t left, int32_t right)
{
    size_t slot = hash_pair(left, right) & (bpe->n_slots - 1);
    for (unsigned i = 0; i < PROBES_MAX; i++) {
        uint32_t rank = bpe->slots[slot];
        if (rank == UINT32_MAX || (bpe->rules[rank].left == left && bpe->rules[rank].right == right))
            return slot;
        slot = (slot + 1) & (bpe->n_slots - 1);
    }
    return SIZE_MAX;
}

static int32_t plain_id(const linnet_tokenizer *t, const char *bytes, size_t n_bytes)
{
    int32_t id = linnet_tokenizer_lookup(t, bytes, n_bytes);
    return id >= 0 && t->types[id] != PIECE_CONTROL && t->types[id] != PIECE_UNKNOWN ? id : -1;
}

/* "left right", at the first space behind the first byte, becomes three ids; false where one is no token.
 * joined has room for the longest piece. */
static bool parse_merge(const linnet_tokenizer *t, linnet_text entry, char *joined, merge_rule *ret_rule)
{
    const char *space = entry.n_bytes > 2 ? memchr(entry.bytes + 1, ' ', entry.n_bytes - 1) : NULL;
    if (!space || entry.n_bytes - 1 > t->piece_bytes_max)
        return false;
    size_t n_left = (size_t)(space - entry.bytes), n_right = entry.n_bytes - n_left - 1;
    memcpy(joined, entry.bytes, n_left);
    memcpy(joined + n_left, space + 1, n_right);
    *ret_rule = (merge_rule){plain_id(t, joined, n_left), plain_id(t, joined + n_left, n_right),
                             plain_id(t, joined, n_left + n_right)};
    return ret_rule->left >= 0 && ret_rule->right >= 0 && ret_rule->joined >= 0;
}

/* Of a pair that stands twice the first counts. */
static linnet_status fill_merges(linnet_bpe *bpe, const linnet_tokenizer *t, const linnet_gguf_value *merges,
                                 char *joined, linnet_error *err)
{
    linnet_text entry;
    for (size_t at = 0, i = 0; linnet_gguf_array_text(merges, &at, &entry); i++) {
        merge_rule rule;
        if (!parse_merge(t, entry, joined, &rule))
            continue;
        size_t slot = slot_of(bpe, rule.left, rule.right);
        if (slot == SIZE_MAX)
            return linnet_fail(err, LINNET_ERR_FORMAT,
                               "tokenizer.ggml.merges: too many pairs collide, at %zu", i);
        if (bpe->slots[slot] != UINT32_MAX)
            continue;
        bpe->rules[bpe->n_rules] = rule;
        bpe->slots[slot] = bpe->n_rules++;
    }
    return LINNET_OK;
}

static linnet_status read_merges(linnet_bpe *bpe, const linnet_tokenizer *t, const linnet_gguf *gguf,
                                 linnet_error *err)
{
    const linnet_gguf_value *merges = linnet_gguf_find(gguf, "tokenizer.ggml.merges");
    if (!merges || merges->kind != LINNET_GGUF_ARRAY || merges->element_kind != LINNET_GGUF_STRING)
        return linnet_fail(err, LINNET_ERR_FORMAT, "tokenizer.ggml.merges: an array of strings is wanted");
    if (merges->n_elements > MERGES_MAX)
        return linnet_fail(err, LINNET_ERR_FORMAT, "tokenizer.ggml.merges: %llu merges, %u can be",
                           (unsigned long long)merges->n_elements, MERGES_MAX);
    size_t n = (size_t)merges->n_elements;
    bpe->n_slots = 16;
    while (bpe->n_slots < n + n / 2)
        bpe->n_slots *= 2;
    bpe->rules = malloc((n + 1) * sizeof(*bpe->rules));
    bpe->slots = malloc(bpe->n_slots * sizeof(*bpe->slots));
    char *joined = malloc(t->piece_bytes_max + 1);
    linnet_status status = LINNET_ERR_NOMEM;
    if (bpe->rules && bpe->slots && joined) {
        memset(bpe->slots, 0xff, bpe->n_slots * sizeof(*bpe->slots));
        status = fill_merges(bpe, t, merges, joined, err);
    } else {
        (void)linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %zu merges", n);
    }
    free(joined);
    return status;
}

linnet_status linnet_bpe_create(linnet_tokenizer *t, const linnet_gguf *gguf, linnet_error *err)
{
    linnet_text name = {"", 0};
    linnet_status status = linnet_gguf_get_text(gguf, "tokenizer.ggml.pre", &name, err);
    if (status != LINNET_OK && status != LINNET_ERR_NOT_FOUND)
        return status;
    t->bpe = calloc(1, sizeof(*t->bpe));
    if (!t->bpe)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a tokenizer");
    status = linnet_pretokenizer_create(name, &t->bpe->pretokenizer, err);
    if (status == LINNET_OK)
        status = read_merges(t->bpe, t, gguf, err);
    if (status == LINNET_OK)
        index_bytes(t);
    return status;
}

void linnet_bpe_destroy(linnet_bpe *bpe)
{
    if (!bpe)
        return;
    linnet_pretokenizer_destroy(bpe->pretokenizer);
    free(bpe->rules);
    free(bpe->slots);
    free(bpe);
}

bool linnet_bpe_adds_begin(const linnet_bpe *bpe)
{
    return linnet_pretokenizer_adds_begin(bpe->pretokenizer);
}

/* ---- texts ---- */

/* What one call needs of its own. */
typedef struct bpe_run {
    const linnet_tokenizer *tokenizer;
    linnet_merger merger;
    linnet_buffer mapped; /* a piece as the vocabulary writes it */
    linnet_ids *ids;
} bpe_run;

static bool find_pair(const void *context, const linnet_symbol *left, const linnet_symbol *right,
                      uint32_t *ret_order, int32_t *ret_id)
{
    const linnet_bpe *bpe = context;
    size_t slot = slot_of(bpe, left->id, right->id);
    if (slot == SIZE_MAX || bpe->slots[slot] == UINT32_MAX)
        return false;
    *ret_order = bpe->slots[slot];
    *ret_id = bpe->rules[*ret_order].joined;
    return true;
}

/* The id of a piece that is a token as it stands, or -1; false in *ret_ok on lack of memory. */
static int32_t whole_id(bpe_run *r, const char *bytes, size_t n_bytes, bool *ret_ok)
{
    *ret_ok = true;
    if (n_bytes > r->tokenizer->piece_bytes_max)
        return -1;
    linnet_buffer_clear(&r->mapped);
    if (!linnet_buffer_reserve(&r->mapped, 2 * n_bytes)) {
        *ret_ok = false;
        return -1;
    }
    for (size_t i = 0; i < n_bytes; i++)
        r->mapped.n_bytes += put_character((char *)r->mapped.bytes + r->mapped.n_bytes, (uint8_t)bytes[i]);
    return plain_id(r->tokenizer, (const char *)r->mapped.bytes, r->mapped.n_bytes);
}

static linnet_status append_piece(void *context, const char *bytes, size_t n_bytes)
{
    bpe_run *r = context;
    const linnet_tokenizer *t = r->tokenizer;
    if (linnet_pretokenizer_takes_whole(t->bpe->pretokenizer)) {
        bool ok;
        int32_t id = whole_id(r, bytes, n_bytes, &ok);
        if (!ok || id >= 0)
            return ok ? linnet_ids_append(r->ids, id) : LINNET_ERR_NOMEM;
    }
    linnet_merger_clear(&r->merger);
    for (size_t i = 0; i < n_bytes; i++) {
        if (!linnet_merger_add(&r->merger, i, 1, t->byte_ids[(uint8_t)bytes[i]]))
            return LINNET_ERR_NOMEM;
    }
    if (!linnet_merger_run(&r->merger))
        return LINNET_ERR_NOMEM;
    linnet_status status = LINNET_OK;
    for (uint32_t i = 0; i != LINNET_NO_SYMBOL && status == LINNET_OK; i = r->merger.symbols[i].next) {
        if (r->merger.symbols[i].id >= 0)
            status = linnet_ids_append(r->ids, r->merger.symbols[i].id);
    }
    return status;
}

linnet_status linnet_bpe_append(const linnet_tokenizer *t, const char *text, size_t n_bytes, linnet_ids *ids)
{
    bpe_run r = {.tokenizer = t, .ids = ids, .merger = {.find = find_pair, .context = t->bpe}};
    linnet_status status = linnet_pretokenizer_cut(t->bpe->pretokenizer, text, n_bytes, append_piece, &r);
    linnet_merger_release(&r.merger);
    linnet_buffer_release(&r.mapped);
    return status;
}
