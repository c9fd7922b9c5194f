/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TINY_TOKENIZER_H
#define TINY_TOKENIZER_H

/* A tokenizer over a small vocabulary, opened like that of any file. */

#include "linnet/tokenizer.h"

#include "client/client_fixture.h"
#include "client/tiny_vocabulary.h"

typedef struct opened {
    linnet_gguf *gguf;
    linnet_tokenizer *tokenizer;
} opened;

static inline void close_tokenizer(opened *o)
{
    linnet_tokenizer_destroy(o->tokenizer);
    linnet_gguf_close(o->gguf);
}

static inline opened open_tiny(const tiny *v, linnet_buffer *bytes)
{
    opened o = {0};
    linnet_error err = {0};
    *bytes = pack_tiny(v);
    must(linnet_gguf_open_bytes(bytes->bytes, bytes->n_bytes, &o.gguf, &err), &err);
    must(linnet_tokenizer_create(o.gguf, &o.tokenizer, &err), &err);
    return o;
}

#endif
