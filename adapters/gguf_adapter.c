/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LoRA adapters as GGUF files, as llama.cpp reads and writes them: general.type adapter, adapter.type lora,
 * the scale in adapter.lora.alpha, and per adapted matrix NAME two tensors, NAME.lora_a with dims [columns,
 * rank] and NAME.lora_b with dims [rank, rows]. Rows of q and k stand in GGUF's own order, so nothing is
 * permuted here. Left out: adapted embeddings and outputs, quantised factors, adapters that switch on at a
 * token ("aLoRA").
 */
#include "adapter_load.h"

#include <stdlib.h>

#include "half.h"
#include "limits.h"

/* ---- reading ---- */

static void read_tensor(const void *source, float *values)
{
    const linnet_gguf_tensor *tensor = source;
    size_t n = (size_t)(tensor->dims[0] * tensor->dims[1]);
    for (size_t i = 0; i < n; i++)
        values[i] = tensor->type == LINNET_TENSOR_F32
                        ? linnet_load_f32(tensor->bytes + 4 * i)
                        : linnet_f16_widen(linnet_load_le16(tensor->bytes + 2 * i));
}

static linnet_status find_factor(const linnet_gguf_tensor *tensor, found_factors *found, linnet_error *err)
{
    found_factor factor = {.source = tensor, .rows = tensor->dims[1], .columns = tensor->dims[0]};
    if (linnet_layout_parse_name(tensor->name, ".lora_a", &factor.layer, &factor.target))
        factor.factor = LINNET_FACTOR_A;
    else if (linnet_layout_parse_name(tensor->name, ".lora_b", &factor.layer, &factor.target))
        factor.factor = LINNET_FACTOR_B;
    else
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED, "tensor '%.*s' adapts what linnet does not",
                           (int)tensor->name.n_bytes, tensor->name.bytes);
    if (tensor->dims[2] != 1 || tensor->dims[3] != 1)
        return linnet_fail(err, LINNET_ERR_FORMAT, "tensor '%.*s' is no matrix", (int)tensor->name.n_bytes,
                           tensor->name.bytes);
    if (tensor->type != LINNET_TENSOR_F32 && tensor->type != LINNET_TENSOR_F16)
        return linnet_fail(
            err, LINNET_ERR_UNSUPPORTED, "tensor '%.*s' has type %s; factors are read in F32 and F16",
            (int)tensor->name.n_bytes, tensor->name.bytes, linnet_tensor_type_name(tensor->type));
    return linnet_found_add(found, factor, err);
}

static linnet_status check_text(const linnet_gguf *gguf, const char *name, const char *wanted,
                                linnet_error *err)
{
    linnet_text text = {"", 0};
    linnet_status status = linnet_gguf_get_text(gguf, name, &text, err);
    if (status == LINNET_ERR_NOT_FOUND || (status == LINNET_OK && !linnet_text_is(text, wanted)))
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                           "%s is not '%s'; this is no LoRA adapter for the model", name, wanted);
    return status;
}

static linnet_status check_head(const linnet_gguf *gguf, const linnet_architecture *architecture,
                                float *ret_alpha, linnet_error *err)
{
    linnet_status status = check_text(gguf, "general.type", "adapter", err);
    if (status == LINNET_OK)
        status = check_text(gguf, "adapter.type", "lora", err);
    if (status == LINNET_OK)
        status = check_text(gguf, "general.architecture", architecture->name, err);
    if (status == LINNET_OK && linnet_gguf_find(gguf, "adapter.alora.invocation_tokens"))
        status = linnet_fail(err, LINNET_ERR_UNSUPPORTED, "it switches on at a token (aLoRA)");
    if (status == LINNET_OK)
        status = linnet_gguf_get_f32(gguf, "adapter.lora.alpha", ret_alpha, err);
    return status;
}

linnet_status linnet_adapter_load_gguf(const char *path, const layout_model *model,
                                       linnet_adapter **ret_adapter, linnet_error *err)
{
    linnet_gguf *gguf = NULL;
    found_factors found = {0};
    float alpha = 0;
    linnet_status status = linnet_gguf_open(path, &gguf, err);
    if (status == LINNET_OK)
        status = check_head(gguf, model->architecture, &alpha, err);
    for (size_t i = 0; status == LINNET_OK && i < linnet_gguf_n_tensors(gguf); i++)
        status = find_factor(linnet_gguf_tensor_at(gguf, i), &found, err);
    if (status == LINNET_OK)
        status = linnet_found_assemble(&found, model, alpha, false, read_tensor, ret_adapter, err);
    free(found.items);
    linnet_gguf_close(gguf);
    return status;
}

/* ---- writing ---- */

static void add_factor(linnet_gguf_writer *writer, const linnet_layout_entry *entry, const char *suffix,
                       uint32_t columns, uint32_t rows, const float *values)
{
    char name[LINNET_GGUF_TENSOR_NAME_BYTES_MAX + 16];
    uint64_t dims[2] = {columns, rows};
    (void)snprintf(name, sizeof(name), "%s%s", entry->name, suffix);
    linnet_gguf_writer_tensor(writer, name, LINNET_TENSOR_F32, 2, dims, values,
                              (size_t)columns * rows * sizeof(float));
}

/* B in GGUF's order as it counts under the layout's alpha, the only one that the form has. Returns how many
 * floats. */
static size_t scale_rows(const linnet_layout *layout, const linnet_layout_entry *entry, const float *b,
                         float *to)
{
    size_t n = (size_t)entry->rows * entry->rank;
    float factor = entry->alpha != 0 ? entry->alpha / layout->alpha : 1;
    linnet_permute_rows(entry, entry->n_hf_heads, true, b, to);
    for (size_t i = 0; i < n; i++)
        to[i] *= factor;
    return n;
}

linnet_status linnet_adapter_save_gguf(const linnet_adapter *adapter, const char *architecture,
                                       const char *path, linnet_error *err)
{
    const linnet_layout *layout = adapter->layout;
    linnet_status status = linnet_adapter_require_plain(adapter, "written", err);
    if (status != LINNET_OK)
        return status;
    float *b_rows = malloc(layout->n_b * sizeof(float)), *at = b_rows;
    if (!b_rows)
        return linnet_fail(err, LINNET_ERR_NOMEM, "no memory to write '%s'", path);
    linnet_gguf_writer *writer = linnet_gguf_writer_create();
    linnet_gguf_writer_text(writer, "general.architecture", architecture);
    linnet_gguf_writer_text(writer, "general.type", "adapter");
    linnet_gguf_writer_u32(writer, "general.file_type", 0); /* all F32 */
    linnet_gguf_writer_text(writer, "adapter.type", "lora");
    linnet_gguf_writer_f32(writer, "adapter.lora.alpha", layout->alpha);
    for (size_t e = 0; e < layout->n_entries; e++) {
        const linnet_layout_entry *entry = &layout->entries[e];
        add_factor(writer, entry, ".lora_a", entry->columns, entry->rank, linnet_adapter_a(adapter, e));
        at += scale_rows(layout, entry, linnet_adapter_b(adapter, e), at);
        add_factor(writer, entry, ".lora_b", entry->rank, entry->rows,
                   at - (size_t)entry->rows * entry->rank);
    }
    status = linnet_gguf_writer_write(writer, path, err);
    linnet_gguf_writer_destroy(writer);
    free(b_rows);
    return status;
}
