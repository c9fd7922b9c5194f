/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a packed adapter of a known layout; with a first byte of 1 the right head is put before them.
 */
#include "tiny_llama.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static linnet_layout *layout;
static linnet_buffer good;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char folder[40];
    linnet_adapter *adapter = NULL;
    linnet_gguf *model = tiny_llama(folder);
    (void)argc;
    (void)argv;
    if (!model || linnet_layout_create(model, 2, 4, 5, &layout, NULL) != LINNET_OK ||
        linnet_adapter_create(layout, &adapter, NULL) != LINNET_OK ||
        linnet_adapter_pack(adapter, &good, NULL) != LINNET_OK)
        abort();
    linnet_adapter_destroy(adapter);
    linnet_gguf_close(model);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    linnet_adapter *adapter = NULL;
    linnet_buffer bytes = {0};
    linnet_error err = {0};
    size_t n_head = good.n_bytes - 4 * layout->n_parameters;
    if (n_bytes > 0 && data[0] == 1) {
        linnet_buffer_append(&bytes, good.bytes, n_head);
        linnet_buffer_append(&bytes, data + 1, n_bytes - 1);
    } else {
        linnet_buffer_append(&bytes, data, n_bytes);
    }
    if (!bytes.failed &&
        linnet_adapter_unpack(layout, bytes.bytes, bytes.n_bytes, &adapter, &err) == LINNET_OK &&
        memcmp(bytes.bytes, good.bytes, n_head) != 0)
        abort();
    linnet_adapter_destroy(adapter);
    linnet_buffer_release(&bytes);
    return 0;
}
