/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as text, behind one byte of flags and kind, against tiny vocabularies: every id is inside, no
 * more ids come out than bytes went in, besides begin token and prefixes, and byte pairs give the text back.
 */
#include "linnet/tokenizer.h"

#include "../client/tiny_vocabulary.h"

#include <stdlib.h>

#define KINDS 16

static linnet_tokenizer *tokenizers[KINDS]; /* made by the first call, kept for the process's life */

static linnet_tokenizer *open_tokenizer(const tiny *v)
{
    static linnet_buffer bytes[KINDS];
    static linnet_gguf *ggufs[KINDS];
    static size_t n;
    linnet_tokenizer *tokenizer;
    bytes[n] = pack_tiny(v);
    if (linnet_gguf_open_bytes(bytes[n].bytes, bytes[n].n_bytes, &ggufs[n], NULL) != LINNET_OK ||
        linnet_tokenizer_create(ggufs[n], &tokenizer, NULL) != LINNET_OK)
        abort();
    n++;
    return tokenizer;
}

static void open_all(void)
{
    static const char *const names[] = {
        "default", "gpt-2",  "llama-bpe",      "qwen2",        "qwen35",      "starcoder", "falcon",
        "gpt-4o",  "tekken", "deepseek-coder", "deepseek-llm", "deepseek-v3", "bloom",     "viking"};
    tiny_token tokens[TINY_BPE_TOKENS];
    char pieces[256][3];
    tiny v = tiny_base;
    v.prefix = 1;
    tokenizers[0] = open_tokenizer(&v);
    v.model = "bert";
    tokenizers[1] = open_tokenizer(&v);
    v = tiny_bpe(tokens, pieces);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        v.pre = names[i];
        tokenizers[2 + i] = open_tokenizer(&v);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    linnet_ids ids = {0};
    linnet_buffer text = {0};
    linnet_error err = {0};
    linnet_detokenizer d;
    if (!tokenizers[0])
        open_all();
    if (n_bytes == 0)
        return 0;
    size_t kind = data[0] >> 4;
    unsigned flags = data[0] & 15;
    linnet_detokenizer_init(&d, tokenizers[kind]);
    if (linnet_tokenize(tokenizers[kind], (const char *)data + 1, n_bytes - 1, flags, &ids, &err) !=
        LINNET_OK)
        abort();
    if (ids.n_items > 2 * n_bytes + 2)
        abort();
    for (size_t i = 0; i < ids.n_items; i++) {
        if (ids.items[i] < 0 || (uint32_t)ids.items[i] >= linnet_tokenizer_vocabulary(tokenizers[kind]))
            abort();
        linnet_detokenizer_push(&d, ids.items[i], &text);
    }
    linnet_detokenizer_finish(&d, &text);
    if (kind > 1 && flags <= LINNET_TOKENIZE_PREFIX &&
        (text.n_bytes != n_bytes - 1 || (n_bytes > 1 && memcmp(text.bytes, data + 1, n_bytes - 1) != 0)))
        abort();
    linnet_ids_release(&ids);
    linnet_buffer_release(&text);
    return 0;
}
