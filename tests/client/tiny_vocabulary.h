/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TINY_VOCABULARY_H
#define TINY_VOCABULARY_H

/* Small vocabularies of our own, packed as a GGUF file in memory. For tests and fuzz targets. */

#include "linnet/gguf.h"

typedef struct tiny_token {
    const char *piece;
    float score;
    uint32_t type;
} tiny_token;

typedef struct tiny {
    const tiny_token *tokens;
    size_t n_tokens, n_scores, n_types;
    const char *model;
    int32_t end, unknown;      /* -1: no key */
    int prefix;                /* -1: no key */
    const char *chat_template; /* NULL: no key */
    const char *pre;           /* NULL: no key */
    const char *const *merges;
    size_t n_merges;   /* 0: no key */
    const char *name;  /* NULL: no key */
    uint32_t words[2]; /* WordPiece: [CLS] and [SEP]; 0, 0: no keys */
    bool cased;        /* WordPiece: a key that says so */
} tiny;

static inline void put_text(linnet_buffer *b, const char *text)
{
    linnet_buffer_append_le64(b, strlen(text));
    linnet_buffer_append_text(b, text);
}

static inline void put_key(linnet_buffer *b, const char *name, uint32_t kind)
{
    put_text(b, name);
    linnet_buffer_append_le32(b, kind);
}

/* Nothing for NULL. */
static inline void put_text_key(linnet_buffer *b, const char *name, const char *text)
{
    if (text) {
        put_key(b, name, LINNET_GGUF_STRING);
        put_text(b, text);
    }
}

static inline void put_array(linnet_buffer *b, const char *name, uint32_t element_kind, size_t n)
{
    put_key(b, name, LINNET_GGUF_ARRAY);
    linnet_buffer_append_le32(b, element_kind);
    linnet_buffer_append_le64(b, n);
}

static inline linnet_buffer pack_tiny(const tiny *v)
{
    linnet_buffer b = {0};
    linnet_buffer_append_text(&b, "GGUF");
    linnet_buffer_append_le32(&b, 3);
    linnet_buffer_append_le64(&b, 0);
    linnet_buffer_append_le64(&b, 4u + (v->end >= 0) + (v->unknown >= 0) + (v->prefix >= 0) +
                                      (v->chat_template != NULL) + (v->pre != NULL) + (v->n_merges > 0) +
                                      (v->name != NULL) + (v->words[0] > 0 ? 2u : 0u) + v->cased);
    put_key(&b, "tokenizer.ggml.model", LINNET_GGUF_STRING);
    put_text(&b, v->model);
    put_array(&b, "tokenizer.ggml.tokens", LINNET_GGUF_STRING, v->n_tokens);
    for (size_t i = 0; i < v->n_tokens; i++)
        put_text(&b, v->tokens[i].piece);
    put_array(&b, "tokenizer.ggml.scores", LINNET_GGUF_F32, v->n_scores);
    for (size_t i = 0; i < v->n_scores; i++) {
        uint8_t bytes[4];
        linnet_store_f32(bytes, v->tokens[i].score);
        linnet_buffer_append(&b, bytes, sizeof(bytes));
    }
    put_array(&b, "tokenizer.ggml.token_type", LINNET_GGUF_I32, v->n_types);
    for (size_t i = 0; i < v->n_types; i++)
        linnet_buffer_append_le32(&b, v->tokens[i].type);
    if (v->end >= 0) {
        put_key(&b, "tokenizer.ggml.eos_token_id", LINNET_GGUF_U32);
        linnet_buffer_append_le32(&b, (uint32_t)v->end);
    }
    if (v->unknown >= 0) {
        put_key(&b, "tokenizer.ggml.unknown_token_id", LINNET_GGUF_U32);
        linnet_buffer_append_le32(&b, (uint32_t)v->unknown);
    }
    if (v->prefix >= 0) {
        put_key(&b, "tokenizer.ggml.add_space_prefix", LINNET_GGUF_BOOL);
        linnet_buffer_append_u8(&b, (uint8_t)v->prefix);
    }
    if (v->n_merges > 0)
        put_array(&b, "tokenizer.ggml.merges", LINNET_GGUF_STRING, v->n_merges);
    for (size_t i = 0; i < v->n_merges; i++)
        put_text(&b, v->merges[i]);
    put_text_key(&b, "tokenizer.chat_template", v->chat_template);
    put_text_key(&b, "tokenizer.ggml.pre", v->pre);
    put_text_key(&b, "general.name", v->name);
    if (v->words[0] > 0) {
        put_key(&b, "tokenizer.ggml.cls_token_id", LINNET_GGUF_U32);
        linnet_buffer_append_le32(&b, v->words[0]);
        put_key(&b, "tokenizer.ggml.seperator_token_id", LINNET_GGUF_U32);
        linnet_buffer_append_le32(&b, v->words[1]);
    }
    if (v->cased) {
        put_key(&b, "tokenizer.ggml.normalizer.lowercase", LINNET_GGUF_BOOL);
        linnet_buffer_append_u8(&b, 0);
    }
    return b;
}

/* 0 unk, 1 begin, 2 end, 3 one byte token, 4.. pieces; "ab" beats "bc", "aa" ties with itself; "x" stands
 * twice. */
static const tiny_token tiny_tokens[] = {
    {"<unk>", 0, 2},
    {"<s>", 0, 3},
    {"</s>", 0, 3},
    {"<0x0A>", 0, 6},
    {"a", -1, 1},
    {"b", -1, 1},
    {"c", -1, 1},
    {"ab", 5, 1},
    {"bc", 4, 1},
    {"aa", 3, 1},
    {"x", 0, 1},
    {"x", 0, 1},
    {"<tag>", 0, 4},
    {"\xe2\x96\x81", -2, 1},
    {"\xe2\x96\x81"
     "a",
     6, 1},
};
static const tiny tiny_base = {.tokens = tiny_tokens,
                               .n_tokens = ARRAY_LEN(tiny_tokens),
                               .n_scores = ARRAY_LEN(tiny_tokens),
                               .n_types = ARRAY_LEN(tiny_tokens),
                               .model = "llama",
                               .end = 2};

/* Byte pairs: each byte b under id b, then these. "he" is no token, so that no merge leads to "hello". */
enum { TINY_AB = 256, TINY_ABC, TINY_BC, TINY_SPACE_A, TINY_HELLO, TINY_END, TINY_TOOL, TINY_BPE_TOKENS };
static const char *const tiny_merges[] = {"a b",     "ab c",     "b c", "\xc4\xa0 a", "a b", "h e",  "he llo",
                                          "nospace", "< |end|>", " ",   "",           "a ",  "ab  c"};

/** names is room for the bytes' pieces, kept as long as the result. */
static inline tiny tiny_bpe(tiny_token tokens[TINY_BPE_TOKENS], char names[256][3])
{
    static const tiny_token more[] = {
        {"ab", 0, 1},
        {"abc", 0, 1},
        {"bc", 0, 1},
        {"\xc4\xa0"
         "a",
         0, 1},
        {"hello", 0, 1},
        {"<|end|>", 0, 3},
        {"<tool>", 0, 4},
    };
    unsigned next = 0x100; /* GPT-2: bytes that do not print get the characters from here on, in order */
    for (unsigned byte = 0; byte < 256; byte++) {
        bool prints =
            (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
        unsigned character = prints ? byte : next++;
        memset(names[byte], 0, 3);
        names[byte][0] = (char)(character < 0x80 ? character : 0xc0 | character >> 6);
        names[byte][1] = (char)(character < 0x80 ? 0 : 0x80 | (character & 0x3f));
        tokens[byte] = (tiny_token){names[byte], 0, 1};
    }
    memcpy(tokens + 256, more, sizeof(more));
    return (tiny){.tokens = tokens,
                  .n_tokens = TINY_BPE_TOKENS,
                  .n_types = TINY_BPE_TOKENS,
                  .model = "gpt2",
                  .end = TINY_END,
                  .unknown = -1,
                  .prefix = -1,
                  .merges = tiny_merges,
                  .n_merges = ARRAY_LEN(tiny_merges)};
}

#endif
