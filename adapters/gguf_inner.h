/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_ADAPTERS_GGUF_INNER_H
#define LINNET_ADAPTERS_GGUF_INNER_H

/* Inside of adapters: what a model file is, for the modules that open one (gguf_files.c) from what a walk
 * over a file finds (gguf.c). */

#include "linnet/gguf.h"

struct linnet_gguf {
    char *path;           /* owned; "" for borrowed bytes */
    linnet_map map;       /* open where the file was mapped; else empty */
    const uint8_t *bytes; /* of the file */
    size_t n_bytes;
    size_t n_values, n_tensors;
    linnet_gguf_value *values;                  /* owned, in file order */
    linnet_gguf_tensor *tensors;                /* owned, in file order */
    const linnet_gguf_value **values_by_name;   /* owned, sorted */
    const linnet_gguf_tensor **tensors_by_name; /* owned, sorted */
    size_t n_parts;
    linnet_gguf **parts; /* owned: the further files of a split model, whose tensors are among ours */
    struct checkpoint *checkpoint; /* owned: what the view of a checkpoint stands on; else NULL */
};

/** Walk one file. The bytes are borrowed. */
linnet_status linnet_gguf_parse(const char *path, const void *bytes, size_t n_bytes, linnet_gguf **ret_gguf,
                                linnet_error *err) LINNET_NODISCARD;
/** Sort values and tensors by their names once all are there. FORMAT names what occurs twice. */
linnet_status linnet_gguf_sort_values(linnet_gguf *gguf, linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_gguf_sort_tensors(linnet_gguf *gguf, linnet_error *err) LINNET_NODISCARD;

#endif
