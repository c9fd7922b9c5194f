/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading adapters: telling the two forms apart, and what they share. Factors are sorted by layer, target and
 * factor, so that an A stands before its B and whatever stands alone or twice shows itself; the layout then
 * has exactly the entries that the file has, in the one order that layouts know.
 */
#include "adapter_load.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

linnet_status linnet_found_add(found_factors *found, found_factor factor, linnet_error *err)
{
    if (found->n == found->capacity) {
        size_t capacity = found->capacity ? 2 * found->capacity : 64;
        found_factor *items = NULL;
        if (found->n >= 2 * LINNET_LAYOUT_ENTRIES_MAX)
            return linnet_fail(err, LINNET_ERR_LIMIT, "more than %d adapted matrices",
                               LINNET_LAYOUT_ENTRIES_MAX);
        items = realloc(found->items, capacity * sizeof(items[0]));
        if (!items)
            return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %zu factors", capacity);
        found->items = items;
        found->capacity = capacity;
    }
    found->items[found->n++] = factor;
    return LINNET_OK;
}

static int found_order(const void *a, const void *b)
{
    const found_factor *x = a, *y = b;
    if (x->layer != y->layer)
        return x->layer < y->layer ? -1 : 1;
    if (x->target != y->target)
        return x->target < y->target ? -1 : 1;
    return (x->factor > y->factor) - (x->factor < y->factor);
}

static linnet_status unpaired(const found_factor *factor, const char *what, linnet_error *err)
{
    char stem[LINNET_LAYOUT_STEM_BYTES];
    linnet_layout_stem(factor->layer, factor->target, stem);
    return linnet_fail(err, LINNET_ERR_FORMAT, "factor %s of %s is there %s",
                       factor->factor == LINNET_FACTOR_A ? "A" : "B", stem, what);
}

/* One entry from a pair A, B of the same matrix. */
static linnet_status pair_entry(const layout_model *model, const found_factor *a, const found_factor *b,
                                linnet_layout_entry *ret_entry, linnet_error *err)
{
    linnet_layout_entry entry = {0};
    char stem[LINNET_LAYOUT_STEM_BYTES];
    linnet_layout_stem(a->layer, a->target, stem);
    if (a->rows != b->columns || a->rows < 1 || a->rows > LINNET_RANK_MAX)
        return linnet_fail(err, LINNET_ERR_FORMAT,
                           "%s: ranks %llu of A and %llu of B; one in 1..%d is wanted", stem,
                           (unsigned long long)a->rows, (unsigned long long)b->columns, LINNET_RANK_MAX);
    if (a->layer >= model->n_layers && !linnet_target_is_head(a->target))
        return linnet_fail(err, LINNET_ERR_MISMATCH, "the adapter adapts layer %u, the model has %u layers",
                           (unsigned)a->layer, (unsigned)model->n_layers);
    linnet_status status = linnet_layout_describe(model, a->layer, a->target, (uint32_t)a->rows, &entry, err);
    if (status != LINNET_OK)
        return status;
    if (a->columns != entry.columns || b->rows != entry.rows)
        return linnet_fail(
            err, LINNET_ERR_MISMATCH,
            "'%s': the adapter is for %llu x %llu, the model has %u x %u; is it this model's adapter?",
            entry.name, (unsigned long long)b->rows, (unsigned long long)a->columns, (unsigned)entry.rows,
            (unsigned)entry.columns);
    entry.alpha = a->alpha;
    *ret_entry = entry;
    return LINNET_OK;
}

static linnet_status pair_entries(const found_factors *found, const layout_model *model,
                                  linnet_layout_entry *entries, linnet_error *err)
{
    for (size_t i = 0; i < found->n; i += 2) {
        const found_factor *a = &found->items[i], *b = a + 1;
        if (i + 1 == found->n || a->layer != b->layer || a->target != b->target)
            return unpaired(a, "without the other", err);
        if (a->factor == b->factor)
            return unpaired(a, "twice", err);
        linnet_status status = pair_entry(model, a, b, &entries[i / 2], err);
        if (status != LINNET_OK)
            return status;
    }
    return LINNET_OK;
}

void linnet_permute_rows(const linnet_layout_entry *entry, uint32_t n_heads, bool to_gguf, const float *from,
                         float *to)
{
    size_t rank = entry->rank;
    for (size_t hf = 0; hf < entry->rows; hf++) {
        size_t gguf = linnet_layout_gguf_row(entry->rows, n_heads, hf);
        memcpy(to + (to_gguf ? gguf : hf) * rank, from + (to_gguf ? hf : gguf) * rank, rank * sizeof(float));
    }
}

/* B of q and k, read in the file's order into a scratch block, then moved into the model's, which is GGUF's
 * where the file's is Hugging Face's. */
static linnet_status read_permuted(const linnet_layout_entry *entry, bool hf_rows, const void *source,
                                   found_read_fn *read, float *b, linnet_error *err)
{
    float *rows = malloc((size_t)entry->rows * entry->rank * sizeof(float));
    if (!rows)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory to read '%s'", entry->name);
    read(source, rows);
    linnet_permute_rows(entry, hf_rows ? entry->n_rope_heads : entry->n_hf_heads, hf_rows, rows, b);
    free(rows);
    return LINNET_OK;
}

static linnet_status read_factors(const found_factors *found, bool hf_rows, found_read_fn *read,
                                  linnet_adapter *adapter, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    for (size_t e = 0; status == LINNET_OK && e < adapter->layout->n_entries; e++) {
        const linnet_layout_entry *entry = &adapter->layout->entries[e];
        float *b = linnet_adapter_b(adapter, e);
        read(found->items[2 * e].source, linnet_adapter_a(adapter, e));
        if ((hf_rows ? entry->n_rope_heads : entry->n_hf_heads) > 0)
            status = read_permuted(entry, hf_rows, found->items[2 * e + 1].source, read, b, err);
        else
            read(found->items[2 * e + 1].source, b);
    }
    return status;
}

linnet_status linnet_found_assemble(found_factors *found, const layout_model *model, float alpha,
                                    bool hf_rows, found_read_fn *read, linnet_adapter **ret_adapter,
                                    linnet_error *err)
{
    linnet_layout *layout = NULL;
    linnet_adapter *adapter = NULL;
    linnet_layout_entry *entries = NULL;
    linnet_status status = LINNET_OK;
    if (found->n == 0)
        return linnet_fail(err, LINNET_ERR_FORMAT, "it holds no LoRA factors");
    qsort(found->items, found->n, sizeof(found->items[0]), found_order);
    entries = calloc((found->n + 1) / 2, sizeof(entries[0]));
    if (!entries)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for %zu factors", found->n);
    if (status == LINNET_OK)
        status = pair_entries(found, model, entries, err);
    if (status == LINNET_OK)
        status = linnet_layout_assemble(entries, found->n / 2, alpha, &layout, err);
    if (status == LINNET_OK)
        status = linnet_adapter_create(layout, &adapter, err);
    if (status == LINNET_OK)
        status = read_factors(found, hf_rows, read, adapter, err);
    if (status == LINNET_OK)
        status = linnet_adapter_check_finite(adapter, err);
    if (status == LINNET_OK) {
        *ret_adapter = adapter; /* ownership moves to the caller */
        adapter = NULL;
    }
    linnet_adapter_destroy(adapter);
    linnet_layout_destroy(layout);
    free(entries);
    return status;
}

linnet_status linnet_adapter_load(const char *path, const linnet_gguf *model, linnet_adapter **ret_adapter,
                                  linnet_error *err)
{
    struct stat st;
    layout_model info = {0};
    if (stat(path, &st) != 0)
        return linnet_fail_errno(err, errno, "cannot open the adapter '%s'", path);
    linnet_status status = linnet_layout_model_read(model, &info, err);
    if (status != LINNET_OK)
        return status;
    if (S_ISDIR(st.st_mode))
        status = linnet_adapter_load_peft(path, &info, ret_adapter, err);
    else
        status = linnet_adapter_load_gguf(path, &info, ret_adapter, err);
    return status == LINNET_OK ? LINNET_OK : linnet_error_prefix(err, status, "adapter '%s'", path);
}
