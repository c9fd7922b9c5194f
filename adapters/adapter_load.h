/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ADAPTERS_ADAPTER_LOAD_H
#define LINNET_ADAPTERS_ADAPTER_LOAD_H

/* Inside of adapters: what both file forms share when they are read. A form lists the factors that it found;
 * assembling pairs them, checks them against the model and reads them into an adapter. */

#include "layout.h"

typedef struct found_factor {
    uint32_t layer;
    linnet_target target;
    linnet_factors factor;  /* A or B */
    float alpha;            /* of the matrix where the form says one; else 0 */
    uint64_t rows, columns; /* of the factor: A is rank x in, B is out x rank */
    const void *source;     /* the form's tensor, borrowed */
} found_factor;

typedef struct found_factors {
    found_factor *items; /* owned: release with free */
    size_t n, capacity;
} found_factors;

/** LIMIT above two factors for each of LINNET_LAYOUT_ENTRIES_MAX entries. */
linnet_status linnet_found_add(found_factors *found, found_factor factor, linnet_error *err) LINNET_NODISCARD;

/** Copies a tensor's values, widened to float32, in the form's own row order. */
typedef void found_read_fn(const void *source, float *values);

/** hf_rows: the rows of B of q and k are in Hugging Face's order. FORMAT: a factor is alone or double, or
 * ranks differ; MISMATCH: a shape is not the model's; RANGE: a value is NaN or infinite. */
linnet_status linnet_found_assemble(found_factors *found, const layout_model *model, float alpha,
                                    bool hf_rows, found_read_fn *read, linnet_adapter **ret_adapter,
                                    linnet_error *err) LINNET_NODISCARD;

/** Move rows of B between the two orders, of so many heads (0: they are the same); to_gguf says which way. */
void linnet_permute_rows(const linnet_layout_entry *entry, uint32_t n_heads, bool to_gguf, const float *from,
                         float *to);

linnet_status linnet_adapter_load_gguf(const char *path, const layout_model *model,
                                       linnet_adapter **ret_adapter, linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_adapter_load_peft(const char *directory, const layout_model *model,
                                       linnet_adapter **ret_adapter, linnet_error *err) LINNET_NODISCARD;

#endif
