/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as text, behind one byte of flags, against a tiny vocabulary: every id is inside it, and no more
 * ids come out than bytes went in, besides begin token and prefixes. */
#include "linnet/tokenizer.h"

#include "../client/tiny_vocabulary.h"

#include <stdlib.h>

static linnet_tokenizer *tokenizer; /* made by the first call, kept for the process's life */

static void open_tokenizer(void)
{
    static linnet_buffer bytes;
    static linnet_gguf *gguf;
    tiny v = tiny_base;
    v.prefix = 1;
    bytes = pack_tiny(&v);
    if (linnet_gguf_open_bytes(bytes.bytes, bytes.n_bytes, &gguf, NULL) != LINNET_OK ||
        linnet_tokenizer_create(gguf, &tokenizer, NULL) != LINNET_OK)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    linnet_ids ids = {0};
    linnet_buffer text = {0};
    linnet_error err = {0};
    if (!tokenizer)
        open_tokenizer();
    if (n_bytes == 0)
        return 0;
    if (linnet_tokenize(tokenizer, (const char *)data + 1, n_bytes - 1, data[0] & 7, &ids, &err) != LINNET_OK)
        abort();
    if (ids.n_items > 2 * n_bytes + 2)
        abort();
    for (size_t i = 0; i < ids.n_items; i++) {
        if (ids.items[i] < 0 || (uint32_t)ids.items[i] >= linnet_tokenizer_vocabulary(tokenizer))
            abort();
        linnet_detokenize(tokenizer, ids.items[i], &text);
    }
    linnet_ids_release(&ids);
    linnet_buffer_release(&text);
    return 0;
}
