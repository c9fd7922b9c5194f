/* SPDX-License-Identifier: Apache-2.0 */
/* Linears with a low-rank side path, and the table that finds the side path of each. The base is frozen, so
 * there is no d_W. The side path of one token takes dot products, as its base does. */
#include "linear.h"

#include <stdlib.h>

size_t linnet_lora_table_entries(const linnet_model *model)
{
    return (size_t)model->shape.n_layers * LINNET_LINEARS + LINNET_HEAD_LINEARS;
}

const linnet_lora *linnet_lora_of_head(const linnet_lora_table *table, const linnet_model *model)
{
    return table->entries + (size_t)model->shape.n_layers * LINNET_LINEARS;
}

linnet_status linnet_lora_table_init(linnet_lora_table *table, const linnet_model *model, linnet_error *err)
{
    uint32_t n_layers = model->shape.n_layers;
    *table = (linnet_lora_table){.lowest_layer = n_layers};
    table->entries = calloc(linnet_lora_table_entries(model), sizeof(table->entries[0]));
    if (!table->entries)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for the linears of %u layers",
                           (unsigned)n_layers);
    return LINNET_OK;
}

void linnet_lora_table_release(linnet_lora_table *table)
{
    free(table->entries);
    table->entries = NULL;
}

void linnet_lora_unbind(linnet_lora_table *table, const linnet_model *model)
{
    memset(table->entries, 0, linnet_lora_table_entries(model) * sizeof(table->entries[0]));
    table->rank_sum = 0;
    table->lowest_layer = model->shape.n_layers;
}

static linnet_lora_linears linears_of_head(const linnet_model *model, const linnet_layout_entry *entry)
{
    size_t i = (size_t)entry->target - LINNET_BLOCK_TARGETS;
    if (i >= LINNET_HEAD_LINEARS || !model->head.linears[i].bytes)
        return (linnet_lora_linears){NULL, 0, 0};
    return (linnet_lora_linears){&model->head.linears[i], 1,
                                 (size_t)model->shape.n_layers * LINNET_LINEARS + i};
}

linnet_lora_linears linnet_lora_linears_of(const linnet_model *model, const linnet_layout_entry *entry)
{
    bool is_qkv = entry->target == LINNET_TARGET_ATTN_QKV;
    bool is_fused = entry->target == LINNET_TARGET_FFN_UP && model->architecture->has_fused_gate;
    size_t first = is_qkv ? LINNET_TARGET_ATTN_Q : is_fused ? LINNET_TARGET_FFN_GATE : (size_t)entry->target;
    if (linnet_target_is_head(entry->target))
        return linears_of_head(model, entry);
    if (entry->layer >= model->shape.n_layers)
        return (linnet_lora_linears){NULL, 0, 0};
    return (linnet_lora_linears){&model->layers[entry->layer].linears[first],
                                 is_qkv     ? 3
                                 : is_fused ? 2
                                            : 1,
                                 (size_t)entry->layer * LINNET_LINEARS + first};
}

static linnet_status bind_entry(linnet_lora_table *table, const linnet_model *model,
                                const linnet_adapter *adapter, size_t index, linnet_error *err)
{
    const linnet_layout_entry *entry = &adapter->layout->entries[index];
    const linnet_lora_linears linears = linnet_lora_linears_of(model, entry);
    size_t rows = 0, at = 0;
    if (linears.n == 0)
        return linnet_fail(err, LINNET_ERR_MISMATCH,
                           "the adapter adapts '%s', which model '%s' does not have", entry->name,
                           linnet_gguf_path(model->gguf));
    if (adapter->magnitudes && !adapter->gains)
        return linnet_fail(err, LINNET_ERR_ARG, "an adapter with magnitudes was not prepared for its model");
    const float *gains =
        adapter->gains ? adapter->gains + linnet_layout_rows_before(adapter->layout, index) : NULL;
    linnet_lora *lora = &table->entries[linears.first];
    for (size_t i = 0; i < linears.n; i++)
        rows += linears.matrices[i].rows;
    if (entry->rows != rows || entry->columns != linears.matrices[0].columns)
        return linnet_fail(err, LINNET_ERR_MISMATCH,
                           "the adapter's '%s' is for a %u x %u matrix, that of model '%s' is %zu x %zu",
                           entry->name, (unsigned)entry->rows, (unsigned)entry->columns,
                           linnet_gguf_path(model->gguf), rows, linears.matrices[0].columns);
    for (size_t i = 0; i < linears.n; at += linears.matrices[i++].rows) {
        if (lora[i].rank != 0 || entry->rank == 0 || entry->rank > LINNET_RANK_MAX)
            return linnet_fail(err, LINNET_ERR_MISMATCH, "the adapter's '%s' stands twice or has no rank",
                               entry->name);
        lora[i] = (linnet_lora){.a = linnet_adapter_a(adapter, index),
                                .b = linnet_adapter_b(adapter, index) + at * entry->rank,
                                .rank = entry->rank,
                                .scale = (float)linnet_layout_scale(adapter->layout, entry),
                                .a_offset = entry->a_offset,
                                .b_offset = entry->b_offset + at * entry->rank,
                                .matrix = (uint64_t)(lora - table->entries),
                                .gains = gains ? gains + at : NULL};
    }
    return LINNET_OK;
}

/* Where the h of each of n linears begins; returns the sum of their ranks. */
static size_t place_h(linnet_lora *lora, size_t n)
{
    size_t rank_sum = 0;
    for (size_t i = 0; i < n; i++) {
        lora[i].h_column = rank_sum;
        rank_sum += lora[i].rank;
    }
    return rank_sum;
}

linnet_status linnet_lora_bind(linnet_lora_table *table, const linnet_model *model,
                               const linnet_adapter *adapter, linnet_error *err)
{
    linnet_status status = LINNET_OK;
    linnet_lora_unbind(table, model);
    for (size_t i = 0; adapter && i < adapter->layout->n_entries && status == LINNET_OK; i++)
        status = bind_entry(table, model, adapter, i, err);
    if (status != LINNET_OK) {
        linnet_lora_unbind(table, model);
        return status;
    }
    for (uint32_t layer = model->shape.n_layers; layer-- > 0;) {
        size_t rank_sum = place_h(table->entries + layer * LINNET_LINEARS, LINNET_LINEARS);
        table->rank_sum = rank_sum > table->rank_sum ? rank_sum : table->rank_sum;
        table->lowest_layer = rank_sum > 0 ? layer : table->lowest_layer;
    }
    (void)place_h(table->entries + model->shape.n_layers * LINNET_LINEARS, LINNET_HEAD_LINEARS);
    return LINNET_OK;
}

void linnet_lora_drop(linnet_lora_table *table, const linnet_model *model, const linnet_dropout *dropout)
{
    for (size_t i = 0; i < linnet_lora_table_entries(model); i++)
        table->entries[i].dropout_mask = linnet_dropout_mask_of(dropout, table->entries[i].matrix);
}

static bool drops(const linnet_lora *lora)
{
    return lora->rank > 0 && lora->dropout_mask.threshold > 0;
}

void linnet_lora_forward_h(const linnet_product *product, const linnet_matrix *w, const linnet_lora *lora,
                           const float *x, size_t n_tokens, float *h)
{
    if (drops(lora))
        linnet_dropout_forward(product, &lora->dropout_mask, x, n_tokens, w->columns, lora->a, lora->rank, h);
    else if (n_tokens == 1)
        for (size_t r = 0; r < lora->rank; r++)
            h[r] = product->kernels->dot_f32(lora->a + r * w->columns, x, w->columns);
    else if (lora->rank > 0)
        linnet_product_gemm(product, LINNET_GEMM_NT, n_tokens, lora->rank, w->columns, 1.0f, x, w->columns,
                            lora->a, w->columns, h, lora->rank, false);
}

void linnet_linear_forward(const linnet_product *product, const linnet_matrix *w, const linnet_lora *lora,
                           const float *x, size_t n_tokens, float *h, float *y)
{
    linnet_product_forward(product, w, x, n_tokens, y);
    if (lora->rank == 0)
        return;
    linnet_lora_forward_h(product, w, lora, x, n_tokens, h);
    if (n_tokens == 1)
        for (size_t row = 0; row < w->rows; row++)
            y[row] += lora->scale * product->kernels->dot_f32(lora->b + row * lora->rank, h, lora->rank);
    else
        linnet_product_gemm(product, LINNET_GEMM_NT, n_tokens, w->rows, lora->rank, lora->scale, h,
                            lora->rank, lora->b, lora->rank, y, w->rows, true);
    for (size_t i = 0; lora->gains && i < n_tokens * w->rows; i++)
        y[i] *= lora->gains[i % w->rows];
}

void linnet_lora_backward_factors(const linnet_product *product, const linnet_matrix *w,
                                  const linnet_lora *lora, const float *d_y, const float *x, size_t n_tokens,
                                  float *h, float *d_a, float *d_b)
{
    if (lora->rank == 0)
        return;
    if (d_b)
        linnet_product_gemm(product, LINNET_GEMM_TN, w->rows, lora->rank, n_tokens, lora->scale, d_y, w->rows,
                            h, lora->rank, d_b, lora->rank, true);
    linnet_product_gemm(product, LINNET_GEMM_NN, n_tokens, lora->rank, w->rows, lora->scale, d_y, w->rows,
                        lora->b, lora->rank, h, lora->rank, false);
    if (d_a && drops(lora))
        linnet_dropout_backward_a(product, &lora->dropout_mask, x, n_tokens, w->columns, h, lora->rank, d_a);
    else if (d_a)
        linnet_product_gemm(product, LINNET_GEMM_TN, lora->rank, w->columns, n_tokens, 1.0f, h, lora->rank, x,
                            w->columns, d_a, w->columns, true);
}

void linnet_linear_backward(const linnet_product *product, const linnet_matrix *w, const linnet_lora *lora,
                            const float *d_y, const float *u, size_t n_tokens, float *d_x)
{
    linnet_product_backward(product, w, d_y, n_tokens, d_x);
    if (drops(lora))
        linnet_dropout_backward_x(product, &lora->dropout_mask, u, n_tokens, w->columns, lora->a, lora->rank,
                                  d_x);
    else if (lora->rank > 0)
        linnet_product_gemm(product, LINNET_GEMM_NN, n_tokens, w->columns, lora->rank, 1.0f, u, lora->rank,
                            lora->a, w->columns, d_x, w->columns, true);
}
