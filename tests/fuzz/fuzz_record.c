/* SPDX-License-Identifier: Apache-2.0 */
/* A line of a data file: it is refused, or becomes a record that a tiny vocabulary encodes within the
 * context. */
#include "linnet/dataset.h"

#include "../client/tiny_vocabulary.h"

#include <stdlib.h>

static linnet_tokenizer *tokenizer; /* made by the first call, kept for the process's life */

static void open_tokenizer(void)
{
    static linnet_buffer bytes;
    static linnet_gguf *gguf;
    tiny v = tiny_base;
    v.chat_template = "{{<|user|>}} [INST]";
    bytes = pack_tiny(&v);
    if (linnet_gguf_open_bytes(bytes.bytes, bytes.n_bytes, &gguf, NULL) != LINNET_OK ||
        linnet_tokenizer_create(gguf, &tokenizer, NULL) != LINNET_OK)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    linnet_record record = {0};
    linnet_error err = {0};
    if (!tokenizer)
        open_tokenizer();
    if (linnet_record_parse((const char *)data, n_bytes, &record, &err) != LINNET_OK)
        return 0;
    for (uint32_t context = 2; context < 40; context += 9) {
        linnet_tokens tokens = {0};
        linnet_encoding encoding = {.context_tokens = context, .end_token = context & 1};
        if (linnet_record_encode(&record, tokenizer, &encoding, &tokens, &err) != LINNET_OK)
            continue;
        if (tokens.n_ids > context || tokens.n_counted > tokens.n_ids)
            abort();
        linnet_tokens_release(&tokens);
    }
    linnet_record_release(&record);
    return 0;
}
