/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LINNET_SAFETENSORS_H
#define LINNET_SAFETENSORS_H

/* The safetensors container: u64 header length, JSON header, raw little-endian tensors. Header at most 100 MB
 * as the format says; ours is capped far lower. */

#include "linnet/file.h"

#include <stdint.h>

#define LINNET_SAFETENSORS_HEADER_MAX ((size_t)16 << 20)

typedef enum linnet_safetensors_type {
    LINNET_SAFETENSORS_F32,
    LINNET_SAFETENSORS_F16,
    LINNET_SAFETENSORS_BF16
} linnet_safetensors_type;

typedef struct linnet_safetensors_tensor {
    char name[192];
    linnet_safetensors_type type;
    uint32_t n_dims; /* 0..4 */
    uint64_t dims[4];
    const uint8_t *bytes; /* borrowed from the map */
    size_t n_bytes;
} linnet_safetensors_tensor;

typedef struct linnet_safetensors linnet_safetensors;
linnet_status linnet_safetensors_open(const char *path, linnet_safetensors **ret_file,
                                      linnet_error *err) LINNET_NODISCARD;
linnet_status linnet_safetensors_open_bytes(const void *bytes, size_t n_bytes, linnet_safetensors **ret_file,
                                            linnet_error *err) LINNET_NODISCARD;
void linnet_safetensors_close(linnet_safetensors *file);
size_t linnet_safetensors_n_bytes(const linnet_safetensors *file); /* of the file */
size_t linnet_safetensors_n_tensors(const linnet_safetensors *file);
const linnet_safetensors_tensor *linnet_safetensors_at(const linnet_safetensors *file, size_t index);
/** Copy a tensor's values into float32 (F16 and BF16 widen exactly). */
void linnet_safetensors_read(const linnet_safetensors_tensor *tensor, float *values);
/** Write F32 tensors; the header is padded so that data starts at a multiple of 8. bytes of each: native
 * floats, written LE. */
linnet_status linnet_safetensors_write(const char *path, const linnet_safetensors_tensor *tensors,
                                       size_t n_tensors, linnet_error *err) LINNET_NODISCARD;

#endif
