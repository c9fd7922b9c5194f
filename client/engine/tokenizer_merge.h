/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_TOKENIZER_MERGE_H
#define LINNET_TOKENIZER_MERGE_H

/* Merging neighbours of a text, the best pair first; what SPM and byte pair encoding have in common. */

#include "linnet/bytes.h"

#define LINNET_NO_SYMBOL UINT32_MAX

/** A run of the text: a character at first, then what was merged. n_bytes 0: swallowed by its left neighbour.
 */
typedef struct linnet_symbol {
    uint32_t at, n_bytes, previous, next;
    int32_t id; /* of the piece that it is, -1: none */
} linnet_symbol;

/** Is the pair, joined, a piece? Then its id, and its order: pairs of a lower one are merged first. */
typedef bool linnet_pair_fn(const void *context, const linnet_symbol *left, const linnet_symbol *right,
                            uint32_t *ret_order, int32_t *ret_id);

/** Zero-initialise with find and context set; used for one text after the other, then released. */
typedef struct linnet_merger {
    linnet_pair_fn *find;
    const void *context; /* of find, borrowed */
    linnet_symbol *symbols;
    size_t n_symbols, symbols_capacity;
    struct linnet_merge *heap; /* candidates, the best on top */
    size_t n_heap, heap_capacity;
} linnet_merger;
void linnet_merger_release(linnet_merger *m);

/** Forget the symbols of the last text. */
static inline void linnet_merger_clear(linnet_merger *m)
{
    m->n_symbols = 0;
}

/** Add the next n_bytes at `at` behind the symbols so far; false on lack of memory. */
bool linnet_merger_add(linnet_merger *m, size_t at, size_t n_bytes, int32_t id) LINNET_NODISCARD;

/** Merge until no pair is a piece; false on lack of memory. The result is symbol 0 and what follows it by
 * `next`. */
bool linnet_merger_run(linnet_merger *m) LINNET_NODISCARD;

#endif
