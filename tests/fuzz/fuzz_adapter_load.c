/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as an adapter: a GGUF adapter, or (first byte 'P') a PEFT directory of a configuration, whose
 * length stands in the next two bytes, and weights. What loads is finite and survives packing. */
#include "tiny_llama.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static linnet_gguf *model;
static char folder[40];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    model = tiny_llama(folder);
    if (!model)
        abort();
    return 0;
}

/* No fsync: this is called some thousand times a second. */
static void put(const char *name, const uint8_t *bytes, size_t n_bytes)
{
    char path[96];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, n_bytes, file) != n_bytes || fclose(file) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    linnet_adapter *adapter = NULL;
    linnet_error err = {0};
    char path[96];
    if (n_bytes >= 3 && data[0] == 'P') {
        size_t n_config = linnet_load_le16(data + 1);
        if (n_config > n_bytes - 3)
            return 0;
        put("adapter_config.json", data + 3, n_config);
        put("adapter_model.safetensors", data + 3 + n_config, n_bytes - 3 - n_config);
        (void)snprintf(path, sizeof(path), "%s", folder);
    } else {
        put("adapter.gguf", data, n_bytes);
        (void)snprintf(path, sizeof(path), "%s/adapter.gguf", folder);
    }
    if (linnet_adapter_load(path, model, &adapter, &err) != LINNET_OK)
        return 0;
    if (linnet_adapter_check_finite(adapter, &err) != LINNET_OK)
        abort();
    linnet_buffer packed = {0};
    linnet_adapter *back = NULL;
    if (linnet_adapter_pack(adapter, &packed, &err) == LINNET_OK &&
        (linnet_adapter_unpack(adapter->layout, packed.bytes, packed.n_bytes, &back, &err) != LINNET_OK ||
         memcmp(back->data, adapter->data, adapter->layout->n_parameters * sizeof(float)) != 0))
        abort();
    linnet_adapter_destroy(back);
    linnet_adapter_destroy(adapter);
    linnet_buffer_release(&packed);
    return 0;
}
