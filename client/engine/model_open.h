/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ENGINE_MODEL_OPEN_H
#define LINNET_ENGINE_MODEL_OPEN_H

/* Inner header: opening a model in two halves, its keys (model_keys.c) and its tensors (model.c). */

#include "weights.h"

enum { TYPES_MAX = 64 }; /* GGUF's type numbers lie below */

/** What the two halves share while a model is opened. */
typedef struct opening {
    linnet_model *model;
    const linnet_architecture *architecture;
    const char *path;
    uint64_t elements_of_type[TYPES_MAX]; /* by GGUF's type number */
    bool *is_used;                        /* owned: of each tensor of the file */
    float *next_vector;                   /* where in model->vectors the next one goes */
    linnet_error *err;
} opening;

/** Everything but tensors: shape, scales, ropes. RANGE, FORMAT and UNSUPPORTED name the key. */
linnet_status linnet_model_read_keys(opening *o) LINNET_NODISCARD;
/** Names of the n labels of the head, in their order: the file's, or LABEL_0, LABEL_1, ... as transformers
 * has it. FORMAT where the file names another number of them. */
linnet_status linnet_model_read_labels(opening *o, uint32_t n) LINNET_NODISCARD;
/** Windows of the layers, which are there by then. */
linnet_status linnet_model_read_windows(opening *o) LINNET_NODISCARD;

#endif
