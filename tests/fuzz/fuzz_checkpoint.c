/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a checkpoint of Hugging Face: config.json and tokenizer.json, each behind its length in three
 * bytes, then model.safetensors. It opens or fails, and what opens can be read and laid out to its end. */
#include "linnet/adapter.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static char folder[] = "/tmp/linnet-fuzz-checkpoint-XXXXXX";
static volatile uint64_t sink; /* keeps the reads */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    if (!mkdtemp(folder))
        abort();
    return 0;
}

/* No fsync: this is called some thousand times a second. */
static void put(const char *name, const uint8_t *bytes, size_t n_bytes)
{
    char path[96];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file || (n_bytes > 0 && fwrite(bytes, 1, n_bytes, file) != n_bytes) || fclose(file) != 0)
        abort();
}

static void put_next(linnet_reader *reader, const char *name)
{
    const uint8_t *length = linnet_reader_take(reader, 3);
    size_t n_left = reader->failed ? 0 : reader->n_bytes - reader->at;
    size_t n = length ? (size_t)length[0] | (size_t)length[1] << 8 | (size_t)length[2] << 16 : 0;
    n = n < n_left ? n : n_left;
    put(name, n > 0 ? linnet_reader_take(reader, n) : NULL, n);
}

static void read_model(const linnet_gguf *gguf)
{
    linnet_layout *layout = NULL;
    linnet_hash hash;
    for (size_t i = 0; i < linnet_gguf_n_values(gguf); i++) {
        linnet_text text;
        for (size_t at = 0; linnet_gguf_array_text(linnet_gguf_value_at(gguf, i), &at, &text);)
            sink += text.n_bytes;
    }
    for (size_t i = 0; i < linnet_gguf_n_tensors(gguf); i++) {
        const linnet_gguf_tensor *tensor = linnet_gguf_tensor_at(gguf, i);
        sink += tensor->bytes[0] + tensor->bytes[tensor->n_bytes - 1];
    }
    if (linnet_layout_create(gguf, 1, 1, LINNET_TARGETS_ALL, &layout, NULL) == LINNET_OK)
        sink += layout->n_parameters;
    linnet_layout_destroy(layout);
    if (linnet_gguf_hash(gguf, &hash, NULL) == LINNET_OK)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    linnet_reader reader = linnet_reader_of(data, n_bytes);
    linnet_gguf *gguf = NULL;
    put_next(&reader, "config.json");
    put_next(&reader, "tokenizer.json");
    if (reader.failed)
        return 0;
    put("model.safetensors", data + reader.at, n_bytes - reader.at);
    if (linnet_gguf_open(folder, &gguf, NULL) == LINNET_OK)
        read_model(gguf);
    linnet_gguf_close(gguf);
    return 0;
}
