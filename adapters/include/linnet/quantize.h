/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_QUANTIZE_H
#define LINNET_QUANTIZE_H

/* Making a GGUF file smaller: its matrices from F32, F16 or BF16 into a quantised type. */

#include "linnet/gguf.h"

/** Is this a type that linnet quantises into: F16, Q8_0, Q4_0, Q4_K? */
bool linnet_quantize_knows(uint32_t type);
/** n values, whole blocks of the type, into dst. Q8_0 and Q4_0 as the reference of ggml rounds; Q4_K: scale
 * and offset of every 32 values from a weighted least-squares search. RANGE where a value, or a scale of the
 * block, is beyond a half; ARG for another type. */
linnet_status linnet_quantize_row(uint32_t type, const float *values, size_t n,
                                  uint8_t *dst) LINNET_NODISCARD;

/** What became of a file's tensors. */
typedef struct linnet_quantize_summary {
    size_t n_quantized; /* matrices of the wanted type */
    size_t n_fallback;  /* whose rows are no whole blocks of it: Q8_0 for Q4_K where that fits, else F16 */
    size_t n_kept;      /* vectors, learned positions */
} linnet_quantize_summary;

/** A copy of model at path with its matrices in `type`; keys are copied but for general.file_type. A tensor
 * at a time is in memory. UNSUPPORTED names a matrix that is quantised already; all or nothing, as the writer
 * is. */
linnet_status linnet_quantize_file(const linnet_gguf *model, uint32_t type, const char *path,
                                   linnet_quantize_summary *ret_summary, linnet_error *err) LINNET_NODISCARD;

#endif
