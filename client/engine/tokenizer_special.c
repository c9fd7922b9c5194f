/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens that are written in a text as they are: control and unknown tokens where the caller asks for them,
 * user-defined ones always. Their pieces are sorted, so that the longest one at a place is found by narrowing
 * a range byte by byte, whatever the vocabulary. */
#include "tokenizer_state.h"

#include <stdlib.h>

static bool is_special(const linnet_tokenizer *t, uint32_t id)
{
    return t->types[id] == PIECE_CONTROL || t->types[id] == PIECE_USER_DEFINED ||
           t->types[id] == PIECE_UNKNOWN;
}

static int by_piece(const void *a, const void *b)
{
    const linnet_text *const *p = a, *const *q = b;
    const linnet_text *x = *p, *y = *q;
    size_t n = x->n_bytes < y->n_bytes ? x->n_bytes : y->n_bytes;
    int order = memcmp(x->bytes, y->bytes, n);
    return order != 0 ? order : (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

/* Of a piece that stands twice only the id that a look-up gives. */
static bool is_listed(const linnet_tokenizer *t, uint32_t id)
{
    return t->pieces[id].n_bytes > 0 && is_special(t, id) &&
           linnet_tokenizer_lookup(t, t->pieces[id].bytes, t->pieces[id].n_bytes) == (int32_t)id;
}

linnet_status linnet_specials_index(linnet_tokenizer *t, linnet_error *err)
{
    size_t n = 0;
    for (uint32_t id = 0; id < t->n_vocabulary; id++)
        n += is_special(t, id);
    const linnet_text **found = malloc((n + 1) * sizeof(*found));
    t->specials = malloc((n + 1) * sizeof(*t->specials));
    if (!found || !t->specials) {
        free(found);
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %zu special tokens", n);
    }
    for (uint32_t id = 0; id < t->n_vocabulary; id++) {
        if (is_listed(t, id))
            found[t->n_specials++] = &t->pieces[id];
    }
    qsort(found, t->n_specials, sizeof(*found), by_piece);
    for (size_t i = 0; i < t->n_specials; i++) {
        uint8_t first = (uint8_t)found[i]->bytes[0];
        t->specials[i] = (int32_t)(found[i] - t->pieces);
        t->starts_special[first] = true;
        t->starts_user_defined[first] |= t->types[t->specials[i]] == PIECE_USER_DEFINED;
    }
    free(found);
    return LINNET_OK;
}

/* The first of specials[low..high) whose byte `depth` is at least `byte`. All of them are longer. */
static size_t first_from(const linnet_tokenizer *t, size_t low, size_t high, size_t depth, unsigned byte)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((uint8_t)t->pieces[t->specials[middle]].bytes[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int32_t linnet_special_at(const linnet_tokenizer *t, const char *text, size_t n_bytes, bool all)
{
    const bool *starts = all ? t->starts_special : t->starts_user_defined;
    int32_t best = -1;
    if (!starts[(uint8_t)text[0]])
        return -1;
    size_t low = 0, high = t->n_specials;
    for (size_t depth = 0; depth < n_bytes && low < high; depth++) {
        unsigned byte = (uint8_t)text[depth];
        low = first_from(t, low, high, depth, byte);
        high = first_from(t, low, high, depth, byte + 1);
        if (low == high)
            break;
        int32_t id = t->specials[low]; /* sorted: what ends here stands before what goes on */
        if (t->pieces[id].n_bytes == depth + 1) {
            if (all || t->types[id] == PIECE_USER_DEFINED)
                best = id;
            low++;
        }
    }
    return best;
}
