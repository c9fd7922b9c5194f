/* SPDX-License-Identifier: Apache-2.0 */
/* As long as two neighbours joined are a piece, the pair of the lowest order (the leftmost of equals) is
 * merged. A heap of candidates over a linked list of symbols makes that O(n log n). A candidate is not taken
 * out of the heap when one of its symbols changes: it is stale where their bytes are no longer its own. */
#include "tokenizer_merge.h"

#include <stdlib.h>

typedef struct linnet_merge {
    uint64_t order; /* of the pair, then the left symbol */
    uint32_t right, n_bytes;
    int32_t id; /* of the merged piece */
} merge;

void linnet_merger_release(linnet_merger *m)
{
    free(m->symbols);
    free(m->heap);
    m->symbols = NULL;
    m->heap = NULL;
    m->n_symbols = m->symbols_capacity = m->n_heap = m->heap_capacity = 0;
}

bool linnet_merger_add(linnet_merger *m, size_t at, size_t n_bytes, int32_t id)
{
    if (m->n_symbols == m->symbols_capacity) {
        linnet_symbol *symbols =
            linnet_array_grow(m->symbols, m->n_symbols, &m->symbols_capacity, sizeof(*symbols));
        if (!symbols)
            return false;
        m->symbols = symbols;
    }
    size_t i = m->n_symbols++;
    m->symbols[i] = (linnet_symbol){.at = (uint32_t)at,
                                    .n_bytes = (uint32_t)n_bytes,
                                    .previous = i == 0 ? LINNET_NO_SYMBOL : (uint32_t)(i - 1),
                                    .next = LINNET_NO_SYMBOL,
                                    .id = id};
    if (i > 0)
        m->symbols[i - 1].next = (uint32_t)i;
    return true;
}

static bool heap_push(linnet_merger *m, merge c)
{
    if (m->n_heap == m->heap_capacity) {
        merge *heap = linnet_array_grow(m->heap, m->n_heap, &m->heap_capacity, sizeof(*heap));
        if (!heap)
            return false;
        m->heap = heap;
    }
    size_t i = m->n_heap++;
    for (; i > 0 && c.order < m->heap[(i - 1) / 2].order; i = (i - 1) / 2)
        m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = c;
    return true;
}

static merge heap_pop(linnet_merger *m)
{
    merge top = m->heap[0], last = m->heap[--m->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < m->n_heap; i = child) {
        if (child + 1 < m->n_heap && m->heap[child + 1].order < m->heap[child].order)
            child++;
        if (m->heap[child].order >= last.order)
            break;
        m->heap[i] = m->heap[child];
    }
    m->heap[i] = last;
    return top;
}

static bool offer_pair(linnet_merger *m, uint32_t left, uint32_t right)
{
    uint32_t order;
    int32_t id;
    if (left == LINNET_NO_SYMBOL || right == LINNET_NO_SYMBOL ||
        !m->find(m->context, &m->symbols[left], &m->symbols[right], &order, &id))
        return true;
    return heap_push(m, (merge){.order = (uint64_t)order << 32 | left,
                                .right = right,
                                .n_bytes = m->symbols[left].n_bytes + m->symbols[right].n_bytes,
                                .id = id});
}

bool linnet_merger_run(linnet_merger *m)
{
    m->n_heap = 0;
    for (size_t i = 1; i < m->n_symbols; i++) {
        if (!offer_pair(m, (uint32_t)(i - 1), (uint32_t)i))
            return false;
    }
    while (m->n_heap > 0) {
        merge best = heap_pop(m);
        uint32_t at_left = (uint32_t)best.order;
        linnet_symbol *left = &m->symbols[at_left], *right = &m->symbols[best.right];
        if (left->n_bytes == 0 || right->n_bytes == 0 || left->n_bytes + right->n_bytes != best.n_bytes)
            continue;
        left->n_bytes = best.n_bytes;
        left->id = best.id;
        right->n_bytes = 0;
        left->next = right->next;
        if (right->next != LINNET_NO_SYMBOL)
            m->symbols[right->next].previous = at_left;
        if (!offer_pair(m, left->previous, at_left) || !offer_pair(m, at_left, left->next))
            return false;
    }
    return true;
}
