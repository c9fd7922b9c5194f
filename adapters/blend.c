/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several adapters at once as one. The sum of scale_i (alpha_i / r_i) B_i A_i is the product of the B_i
 * beside each other with the A_i above each other, where every B_i takes its factor along: an adapter of the
 * ranks' sum, which the engine runs as any other. Nothing is lost but rounding.
 */
#include "layout.h"

#include <math.h>
#include <stdlib.h>

typedef struct blend_job {
    const linnet_adapter *const *adapters;
    const float *scales;
    size_t n_adapters;
} blend_job;

static int entry_order(const void *a, const void *b)
{
    const linnet_layout_entry *x = a, *y = b;
    if (x->layer != y->layer)
        return x->layer < y->layer ? -1 : 1;
    return (x->target > y->target) - (x->target < y->target);
}

/* Every matrix that one of them adapts, once, with the sum of the ranks. Returns how many. */
static size_t merge_entries(linnet_layout_entry *entries, size_t n)
{
    size_t n_merged = 0;
    qsort(entries, n, sizeof(entries[0]), entry_order);
    for (size_t i = 0; i < n; i++) {
        if (n_merged > 0 && entry_order(&entries[n_merged - 1], &entries[i]) == 0)
            entries[n_merged - 1].rank += entries[i].rank;
        else
            entries[n_merged++] = entries[i];
    }
    return n_merged;
}

static linnet_status check_entry(const blend_job *job, const linnet_layout_entry *entry, linnet_error *err)
{
    if (entry->rank > LINNET_RANK_MAX)
        return linnet_fail(err, LINNET_ERR_LIMIT,
                           "'%s': ranks of all adapters add up to %u, at most %d can be", entry->name,
                           (unsigned)entry->rank, LINNET_RANK_MAX);
    for (size_t i = 0; i < job->n_adapters; i++) {
        const linnet_layout_entry *part = linnet_layout_find(job->adapters[i]->layout, entry->name);
        if (part && (part->rows != entry->rows || part->columns != entry->columns))
            return linnet_fail(err, LINNET_ERR_MISMATCH,
                               "'%s' has %u x %u in one adapter and %u x %u in another", entry->name,
                               (unsigned)entry->rows, (unsigned)entry->columns, (unsigned)part->rows,
                               (unsigned)part->columns);
    }
    return LINNET_OK;
}

/* The factors of one matrix; the blend's own scale is 1 / rank, which each B takes back. */
static void fill_entry(const blend_job *job, const linnet_adapter *blend, size_t e)
{
    const linnet_layout_entry *entry = &blend->layout->entries[e];
    float *a = linnet_adapter_a(blend, e), *b = linnet_adapter_b(blend, e);
    size_t first = 0;
    for (size_t i = 0; i < job->n_adapters; i++) {
        const linnet_layout *layout = job->adapters[i]->layout;
        const linnet_layout_entry *part = linnet_layout_find(layout, entry->name);
        if (!part)
            continue;
        size_t p = (size_t)(part - layout->entries);
        double factor = job->scales[i] * linnet_layout_scale(layout, part) * entry->rank;
        memcpy(a + first * entry->columns, linnet_adapter_a(job->adapters[i], p),
               (size_t)part->rank * entry->columns * sizeof(float));
        for (size_t row = 0; row < entry->rows; row++)
            for (size_t r = 0; r < part->rank; r++)
                b[row * entry->rank + first + r] =
                    (float)(factor * linnet_adapter_b(job->adapters[i], p)[row * part->rank + r]);
        first += part->rank;
    }
}

linnet_status linnet_adapter_blend(const linnet_adapter *const *adapters, const float *scales, size_t n,
                                   linnet_adapter **ret_adapter, linnet_error *err)
{
    blend_job job = {adapters, scales, n};
    linnet_layout *layout = NULL;
    size_t n_entries = 0, at = 0;
    for (size_t i = 0; i < n; i++) {
        n_entries += adapters[i]->layout->n_entries; /* at most LINNET_LAYOUT_ENTRIES_MAX each */
        linnet_status plain = linnet_adapter_require_plain(adapters[i], "summed or scaled", err);
        if (plain != LINNET_OK)
            return plain;
        if (!isfinite(scales[i]))
            return linnet_fail(err, LINNET_ERR_RANGE, "the scale of adapter %zu is not finite", i);
    }
    linnet_layout_entry *entries = calloc(n_entries > 0 ? n_entries : 1, sizeof(entries[0]));
    if (!entries)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %zu adapters", n);
    for (size_t i = 0; i < n; i++) {
        const linnet_layout *part = adapters[i]->layout;
        memcpy(entries + at, part->entries, part->n_entries * sizeof(entries[0]));
        at += part->n_entries;
    }
    for (size_t i = 0; i < n_entries; i++)
        entries[i].alpha = 0; /* B takes it along */
    n_entries = merge_entries(entries, n_entries);
    linnet_status status = LINNET_OK;
    for (size_t e = 0; e < n_entries && status == LINNET_OK; e++)
        status = check_entry(&job, &entries[e], err);
    if (status == LINNET_OK)
        status = linnet_layout_assemble(entries, n_entries, 1, &layout, err);
    if (status == LINNET_OK)
        status = linnet_adapter_create(layout, ret_adapter, err);
    for (size_t e = 0; e < n_entries && status == LINNET_OK; e++)
        fill_entry(&job, *ret_adapter, e);
    linnet_layout_destroy(layout);
    free(entries);
    return status;
}
