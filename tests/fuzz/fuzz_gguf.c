/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a GGUF file: they open or fail, and what opens can be read to its last byte. */
#include "linnet/gguf.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static volatile uint64_t sink; /* keeps the reads */

static void read_value(const linnet_gguf *gguf, const linnet_gguf_value *value)
{
    linnet_text text;
    double number = 0;
    char name[128];
    for (size_t at = 0; linnet_gguf_array_text(value, &at, &text);)
        sink += text.n_bytes > 0 ? (uint8_t)text.bytes[text.n_bytes - 1] : 0;
    if (linnet_gguf_array_number(value, value->n_elements - 1, &number) == LINNET_OK)
        sink += number > 0;
    if (value->name.n_bytes >= sizeof(name))
        return;
    memcpy(name, value->name.bytes, value->name.n_bytes);
    name[value->name.n_bytes] = '\0';
    if (linnet_gguf_find(gguf, name) != value)
        abort();
    uint32_t u = 0;
    float f = 0;
    bool b = false;
    if (linnet_gguf_get_u32(gguf, name, &u, NULL) == LINNET_OK)
        sink += u;
    if (linnet_gguf_get_f32(gguf, name, &f, NULL) == LINNET_OK)
        sink += f > 0;
    if (linnet_gguf_get_bool(gguf, name, &b, NULL) == LINNET_OK)
        sink += b;
    if (linnet_gguf_get_text(gguf, name, &text, NULL) == LINNET_OK && text.n_bytes > 0)
        sink += (uint8_t)text.bytes[text.n_bytes - 1];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    linnet_gguf *gguf = NULL;
    linnet_error err = {0};
    if (linnet_gguf_open_bytes(data, n_bytes, &gguf, &err) != LINNET_OK)
        return 0;
    for (size_t i = 0; i < linnet_gguf_n_values(gguf); i++)
        read_value(gguf, linnet_gguf_value_at(gguf, i));
    for (size_t i = 0; i < linnet_gguf_n_tensors(gguf); i++) {
        const linnet_gguf_tensor *tensor = linnet_gguf_tensor_at(gguf, i);
        sink += tensor->bytes[0] + tensor->bytes[tensor->n_bytes - 1];
    }
    linnet_gguf_close(gguf);
    return 0;
}
