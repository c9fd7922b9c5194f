/* SPDX-License-Identifier: Apache-2.0 */
/* A GGUF file's vocabulary: it is refused, or tokenises and detokenises a text of everything within its own
 * bounds. */
#include "linnet/dataset.h"

#include <stdlib.h>

static const char text[] =
    "a ab abc  <s>a</s>\n\t\xc3\xa9 \xe2\x96\x81 \xff <|im_start|>user x <0x0A>[INST] aaaaaaaaaaaaaa";

static void use(const linnet_tokenizer *tokenizer)
{
    char user[] = "user", assistant[] = "assistant", content[] = "a b";
    const linnet_message messages[] = {{user, content}, {assistant, content}};
    linnet_buffer back = {0};
    linnet_ids ids = {0};
    linnet_detokenizer d;
    int32_t end;
    linnet_detokenizer_init(&d, tokenizer);
    for (unsigned flags = 0; flags < 16; flags++) {
        if (linnet_tokenize(tokenizer, text, sizeof(text) - 1, flags, &ids, NULL) != LINNET_OK)
            abort();
    }
    for (size_t i = 0; i < ids.n_items; i++) {
        if (ids.items[i] < 0 || (uint32_t)ids.items[i] >= linnet_tokenizer_vocabulary(tokenizer))
            abort();
        linnet_detokenizer_push(&d, ids.items[i], &back);
    }
    linnet_detokenizer_finish(&d, &back);
    linnet_ids_release(&ids);
    if (linnet_chat_encode(messages, 2, tokenizer, &ids, &end, NULL) == LINNET_OK)
        linnet_ids_release(&ids);
    linnet_buffer_release(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    linnet_gguf *gguf = NULL;
    linnet_tokenizer *tokenizer = NULL;
    linnet_error err = {0};
    if (linnet_gguf_open_bytes(data, n_bytes, &gguf, &err) != LINNET_OK)
        return 0;
    if (linnet_tokenizer_create(gguf, &tokenizer, &err) == LINNET_OK)
        use(tokenizer);
    linnet_tokenizer_destroy(tokenizer);
    linnet_gguf_close(gguf);
    return 0;
}
