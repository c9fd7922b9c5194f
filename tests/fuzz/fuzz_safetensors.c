/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a safetensors file: they open or fail, and every tensor that opens can be read. */
#include "linnet/safetensors.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    linnet_safetensors *file = NULL;
    linnet_error err = {0};
    if (linnet_safetensors_open_bytes(data, n_bytes, &file, &err) != LINNET_OK)
        return 0;
    for (size_t i = 0; i < linnet_safetensors_n_tensors(file); i++) {
        const linnet_safetensors_tensor *tensor = linnet_safetensors_at(file, i);
        float *values = malloc(tensor->n_bytes * 2); /* a 16-bit value widens to four bytes */
        if (values)
            linnet_safetensors_read(tensor, values);
        free(values);
    }
    linnet_safetensors_close(file);
    return 0;
}
