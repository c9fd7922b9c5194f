/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ADAPTERS_LAYOUT_H
#define LINNET_ADAPTERS_LAYOUT_H

/* Inside of adapters: what a model file says about its linears, and layouts made of chosen entries. */

#include "linnet/architecture.h"

enum { LINNET_LAYOUT_STEM_BYTES = 40 };

typedef struct layout_model {
    const linnet_gguf *gguf; /* borrowed */
    const linnet_architecture *architecture;
    uint32_t n_layers, n_heads, n_kv_heads;
} layout_model;

/** UNSUPPORTED for an architecture without a row; the head counts are bounded. */
linnet_status linnet_layout_model_read(const linnet_gguf *gguf, layout_model *ret_model,
                                       linnet_error *err) LINNET_NODISCARD;
/** Entry of one linear, offsets zero. UNSUPPORTED where the model has no such matrix. layer is
 * LINNET_LAYER_HEAD for a target of the head, and for no other. */
linnet_status linnet_layout_describe(const layout_model *model, uint32_t layer, linnet_target target,
                                     uint32_t rank, linnet_layout_entry *ret_entry,
                                     linnet_error *err) LINNET_NODISCARD;
/** Where a linear may stand. A model has linnet_layout_n_places of them; number i in the order of layouts. */
typedef struct layout_place {
    uint32_t layer; /* LINNET_LAYER_HEAD: in the head */
    linnet_target target;
} layout_place;
size_t linnet_layout_n_places(const layout_model *model);
layout_place linnet_layout_place(const layout_model *model, size_t i);
/** Does the model keep this target in a matrix of its own? */
bool linnet_layout_has(const layout_model *model, layout_place place);
/** A layout of entries that are in order already (copied); sets the offsets. LIMIT above
 * LINNET_ADAPTER_BYTES_MAX. */
linnet_status linnet_layout_assemble(const linnet_layout_entry *entries, size_t n_entries, float alpha,
                                     linnet_layout **ret_layout, linnet_error *err) LINNET_NODISCARD;

/** "blk.N.<target>", or "<target>" of the head. */
void linnet_layout_stem(uint32_t layer, linnet_target target, char stem[LINNET_LAYOUT_STEM_BYTES]);
/** A module's name behind its first dot, "q_proj" of "self_attn.q_proj"; "" where there is none. */
static inline const char *linnet_module_end(const char *module)
{
    const char *dot = strchr(module, '.');
    return dot ? dot + 1 : "";
}

/** Read a stem and ".weight", followed by `suffix`; false for any other name. */
bool linnet_layout_parse_name(linnet_text name, const char *suffix, uint32_t *ret_layer,
                              linnet_target *ret_target);
/** Decimal digits at the start of text as a number below LINNET_LAYOUT_ENTRIES_MAX; 0 digits: false. Leading
 * zeros: false. */
bool linnet_layout_parse_index(linnet_text text, uint32_t *ret_index, size_t *ret_n_digits);

/** Row of a q or k matrix of `rows` in GGUF's order that holds Hugging Face's row; 0 heads: the same one. */
static inline size_t linnet_layout_gguf_row(size_t rows, uint32_t n_heads, size_t hf_row)
{
    if (n_heads == 0)
        return hf_row;
    size_t head_rows = rows / n_heads, half = head_rows / 2;
    size_t head = hf_row / head_rows, at = hf_row % head_rows;
    return head * head_rows + 2 * (at % half) + at / half;
}
/** The way back. */
static inline size_t linnet_layout_hf_row(size_t rows, uint32_t n_heads, size_t gguf_row)
{
    if (n_heads == 0)
        return gguf_row;
    size_t head_rows = rows / n_heads, half = head_rows / 2;
    size_t head = gguf_row / head_rows, at = gguf_row % head_rows;
    return head * head_rows + half * (at % 2) + at / 2;
}

#endif
