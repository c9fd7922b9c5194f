/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merging an adapter into its base: W + (alpha / rank) B A, row by row in double, into a new GGUF in which
 * everything else is copied. The writer asks for one matrix at a time, so memory holds one merged matrix, not
 * a model. Quantised matrices are not merged: quantising again would lose most of what a small adapter adds.
 */
#include "layout.h"

#include <math.h>
#include <stdlib.h>

#include "gguf_copy.h"
#include "half.h"

/* What the writer's producer needs; one for the whole merge. */
typedef struct merge_job {
    const linnet_adapter *adapter;
    const linnet_gguf *model;
    uint32_t type; /* of the merged matrices */
} merge_job;

/* One row of the result in double: row `r` of the base plus the scaled combination of A's rows. */
static void merge_row(const linnet_layout_entry *entry, const linnet_gguf_tensor *base, const float *a,
                      const float *b_row, size_t r, double scale, double *row)
{
    for (size_t c = 0; c < entry->columns; c++)
        row[c] = linnet_gguf_plain_value(base, r * entry->columns + c);
    for (size_t k = 0; k < entry->rank; k++)
        for (size_t c = 0; c < entry->columns; c++)
            row[c] += scale * b_row[k] * a[k * entry->columns + c];
}

/* DoRA: the row keeps its direction and gets this length. */
static void stretch_row(double *row, size_t n, double length)
{
    double squares = 0;
    for (size_t c = 0; c < n; c++)
        squares += row[c] * row[c];
    for (size_t c = 0; squares > 0 && c < n; c++)
        row[c] *= length / sqrt(squares);
}

/* False where a value does not fit the type. */
static bool store_row(uint32_t type, const double *row, size_t n, uint8_t *bytes)
{
    const double largest = type == LINNET_TENSOR_F16 ? 65504.0 : 0x1.fffffep127;
    for (size_t c = 0; c < n; c++) {
        if (!(fabs(row[c]) <= largest))
            return false;
        if (type == LINNET_TENSOR_F16)
            linnet_store_le16(bytes + 2 * c, linnet_f16_narrow((float)row[c]));
        else
            linnet_store_f32(bytes + 4 * c, (float)row[c]);
    }
    return true;
}

static size_t find_entry(const linnet_layout *layout, linnet_text name)
{
    size_t e = 0;
    while (e < layout->n_entries && !linnet_text_is(name, layout->entries[e].name))
        e++;
    return e;
}

static linnet_status produce_merged(void *context, const char *name, void *bytes, size_t n_bytes,
                                    linnet_error *err)
{
    const merge_job *job = context;
    const linnet_layout *layout = job->adapter->layout;
    size_t e = find_entry(layout, (linnet_text){name, strlen(name)});
    const linnet_layout_entry *entry = &layout->entries[e];
    const linnet_gguf_tensor *base = linnet_gguf_find_tensor(job->model, name);
    const float *a = linnet_adapter_a(job->adapter, e), *b = linnet_adapter_b(job->adapter, e);
    const float *magnitudes =
        job->adapter->magnitudes ? job->adapter->magnitudes + linnet_layout_rows_before(layout, e) : NULL;
    size_t row_bytes = n_bytes / entry->rows;
    double scale = linnet_layout_scale(layout, entry), *row = malloc(entry->columns * sizeof(row[0]));
    linnet_status status = LINNET_OK;
    if (!row)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory to merge '%s'", name);
    for (size_t r = 0; status == LINNET_OK && r < entry->rows; r++) {
        merge_row(entry, base, a, b + r * entry->rank, r, scale, row);
        if (magnitudes)
            stretch_row(row, entry->columns, magnitudes[r]);
        size_t at = linnet_layout_gguf_row(entry->rows, entry->n_hf_heads, r);
        if (!store_row(job->type, row, entry->columns, (uint8_t *)bytes + at * row_bytes))
            status = linnet_fail(err, LINNET_ERR_RANGE, "row %zu of merged '%s' does not fit %s", r, name,
                                 linnet_tensor_type_name(job->type));
    }
    free(row);
    return status;
}

static linnet_status check_entry(const linnet_layout_entry *entry, const linnet_gguf *model,
                                 linnet_error *err)
{
    const linnet_gguf_tensor *base = linnet_gguf_find_tensor(model, entry->name);
    if (!base || base->n_dims != 2 || base->dims[0] != entry->columns || base->dims[1] != entry->rows)
        return linnet_fail(
            err, LINNET_ERR_MISMATCH, "model '%s' has no '%s' of %u x %u; is it the adapter's model?",
            linnet_gguf_path(model), entry->name, (unsigned)entry->rows, (unsigned)entry->columns);
    if (!linnet_gguf_is_plain(base->type))
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                           "'%s' is %s; merge into the F32, F16 or BF16 file of the model", entry->name,
                           linnet_tensor_type_name(base->type));
    return LINNET_OK;
}

/* llama.cpp's numbers: 0 for all F32, 1 for mostly F16. */
static uint32_t file_type(const merge_job *job)
{
    uint32_t type = job->type == LINNET_TENSOR_F32 ? 0 : 1;
    for (size_t i = 0; i < linnet_gguf_n_tensors(job->model); i++) {
        const linnet_gguf_tensor *tensor = linnet_gguf_tensor_at(job->model, i);
        bool is_adapted = find_entry(job->adapter->layout, tensor->name) < job->adapter->layout->n_entries;
        if (!is_adapted && tensor->type != LINNET_TENSOR_F32)
            type = 1;
    }
    return type;
}

static void copy_values(const merge_job *job, linnet_gguf_writer *writer)
{
    for (size_t i = 0; i < linnet_gguf_n_values(job->model); i++) {
        const linnet_gguf_value *value = linnet_gguf_value_at(job->model, i);
        if (linnet_text_is(value->name, "general.file_type"))
            linnet_gguf_writer_u32(writer, "general.file_type", file_type(job));
        else
            linnet_gguf_writer_copy(writer, value);
    }
}

static void add_tensors(merge_job *job, linnet_gguf_writer *writer)
{
    const linnet_layout *layout = job->adapter->layout;
    for (size_t i = 0; i < linnet_gguf_n_tensors(job->model); i++) {
        const linnet_gguf_tensor *tensor = linnet_gguf_tensor_at(job->model, i);
        char name[80]; /* the reader allows 64 bytes */
        (void)snprintf(name, sizeof(name), "%.*s", (int)tensor->name.n_bytes, tensor->name.bytes);
        if (find_entry(layout, tensor->name) == layout->n_entries)
            linnet_gguf_copy_tensor(writer, job->model, tensor);
        else
            linnet_gguf_writer_tensor_produced(writer, name, job->type, 2, tensor->dims,
                                               (size_t)(tensor->dims[0] * tensor->dims[1]) *
                                                   (job->type == LINNET_TENSOR_F32 ? 4 : 2),
                                               produce_merged, job);
    }
}

linnet_status linnet_adapter_merge(const linnet_adapter *adapter, const linnet_gguf *model, uint32_t type,
                                   const char *path, linnet_error *err)
{
    merge_job job = {.adapter = adapter, .model = model, .type = type};
    linnet_status status = LINNET_OK;
    if (type != LINNET_TENSOR_F32 && type != LINNET_TENSOR_F16)
        return linnet_fail(err, LINNET_ERR_ARG, "merged matrices are F32 or F16");
    for (size_t e = 0; status == LINNET_OK && e < adapter->layout->n_entries; e++)
        status = check_entry(&adapter->layout->entries[e], model, err);
    if (status != LINNET_OK)
        return status;
    linnet_gguf_writer *writer = linnet_gguf_writer_create();
    copy_values(&job, writer);
    add_tensors(&job, writer);
    status = linnet_gguf_writer_write(writer, path, err);
    linnet_gguf_writer_destroy(writer);
    return status;
}
