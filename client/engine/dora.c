/* SPDX-License-Identifier: Apache-2.0 */
/* What an adapter with magnitudes needs of its model: the length of every row of W + s B A (Liu et al. 2024,
 * DoRA, equation 5), which depends on neither input nor step, so that it is found once. */
#include <math.h>
#include <stdlib.h>

#include "linear.h"

/* Length of a row of the base with what the adapter adds; row: room for it. */
static double row_length(const linnet_matrix *w, size_t r, const float *a, const float *b_row, uint32_t rank,
                         double scale, float *row)
{
    double squares = 0;
    linnet_row_decode(linnet_kernels_best(), w, r, row);
    for (size_t c = 0; c < w->columns; c++) {
        double value = row[c];
        for (uint32_t k = 0; k < rank; k++)
            value += scale * b_row[k] * a[k * w->columns + c];
        squares += value * value;
    }
    return sqrt(squares);
}

static linnet_status prepare_entry(const linnet_model *model, const linnet_adapter *adapter, size_t e,
                                   float *gains, linnet_error *err)
{
    const linnet_layout_entry *entry = &adapter->layout->entries[e];
    const float *magnitudes = adapter->magnitudes + linnet_layout_rows_before(adapter->layout, e);
    const float *b = linnet_adapter_b(adapter, e);
    double scale = linnet_layout_scale(adapter->layout, entry);
    const linnet_lora_linears linears = linnet_lora_linears_of(model, entry);
    size_t at = 0;
    float *row = malloc(entry->columns * sizeof(float));
    if (!row)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a row of '%s'", entry->name);
    for (size_t i = 0; i < linears.n; i++) {
        const linnet_matrix *w = &linears.matrices[i];
        for (size_t r = 0; r < w->rows; r++, at++) {
            double length =
                row_length(w, r, linnet_adapter_a(adapter, e), b + at * entry->rank, entry->rank, scale, row);
            gains[at] = length > 0 ? (float)(magnitudes[at] / length) : 0;
        }
    }
    free(row);
    return LINNET_OK;
}

linnet_status linnet_model_prepare_adapter(const linnet_model *model, linnet_adapter *adapter,
                                           linnet_error *err)
{
    linnet_lora_table table = {0};
    const linnet_layout *layout = adapter->layout;
    if (!adapter->magnitudes || adapter->gains)
        return LINNET_OK;
    adapter->gains = malloc(linnet_layout_rows_before(layout, layout->n_entries) * sizeof(float));
    if (!adapter->gains)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory for an adapter's gains");
    linnet_status status = linnet_lora_table_init(&table, model, err);
    if (status == LINNET_OK)
        status = linnet_lora_bind(&table, model, adapter, err); /* MISMATCH before a row is read */
    for (size_t e = 0; e < layout->n_entries && status == LINNET_OK; e++)
        status = prepare_entry(model, adapter, e, adapter->gains + linnet_layout_rows_before(layout, e), err);
    linnet_lora_table_release(&table);
    if (status != LINNET_OK) {
        free(adapter->gains);
        adapter->gains = NULL;
    }
    return status;
}
