/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENCODER_MODEL_H
#define ENCODER_MODEL_H

/* The encoder of tests/vectors/architectures.json, with labels "no", "a little", "much" and "all of it", as a
 * case of its own that a test may change, and with a small WordPiece vocabulary: [PAD] [UNK] [CLS] [SEP],
 * then the words below. */

#include "client/vector_model.h"

enum { ENCODER_PAD, ENCODER_UNKNOWN, ENCODER_CLS, ENCODER_SEP, ENCODER_WORDS };

static const char *const encoder_words[] = {"the", "film", "was", "good", "bad", "rain", "sun", "."};

/* Replace or add a key of a case. */
static inline void encoder_set_key(json_t *object, const char *name, const char *kind, json_t *value)
{
    json_t *keys = json_object_get(object, "keys");
    assert_non_null(value);
    for (size_t i = json_array_size(keys); i-- > 0;)
        if (strcmp(json_string_value(json_array_get(json_array_get(keys, i), 0)), name) == 0)
            (void)json_array_remove(keys, i);
    assert_int_equal(json_array_append_new(keys, json_pack("[s,s,o]", name, kind, value)), 0);
}

static inline void encoder_drop(json_t *object, const char *list, const char *name)
{
    json_t *items = json_object_get(object, list);
    for (size_t i = json_array_size(items); i-- > 0;) {
        const json_t *item = json_array_get(items, i);
        const json_t *text = json_is_array(item) ? json_array_get(item, 0) : json_object_get(item, "name");
        if (strcmp(json_string_value(text), name) == 0)
            (void)json_array_remove(items, i);
    }
}

static inline void encoder_add_tokenizer(json_t *object)
{
    static const char *const specials[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]"};
    json_t *pieces = json_array();
    for (size_t i = 0; i < ENCODER_WORDS; i++)
        (void)json_array_append_new(pieces, json_string(specials[i]));
    for (size_t i = 0; i < sizeof(encoder_words) / sizeof(encoder_words[0]); i++)
        (void)json_array_append_new(pieces, json_sprintf("\xe2\x96\x81%s", encoder_words[i]));
    encoder_set_key(object, "tokenizer.ggml.model", "text", json_string("bert"));
    encoder_set_key(object, "tokenizer.ggml.tokens", "texts", pieces);
    encoder_set_key(object, "tokenizer.ggml.unknown_token_id", "u32", json_integer(ENCODER_UNKNOWN));
    encoder_set_key(object, "tokenizer.ggml.cls_token_id", "u32", json_integer(ENCODER_CLS));
    encoder_set_key(object, "tokenizer.ggml.seperator_token_id", "u32", json_integer(ENCODER_SEP));
}

/** The case of this name, owned by the caller. */
static inline json_t *encoder_case(const char *name)
{
    json_t *vectors = vectors_load("architectures.json"), *cases = json_object_get(vectors, "cases");
    json_t *found = NULL;
    for (size_t i = 0; !found && i < json_array_size(cases); i++)
        if (strcmp(vector_text(json_array_get(cases, i), "name"), name) == 0)
            found = json_deep_copy(json_array_get(cases, i));
    json_decref(vectors);
    assert_non_null(found);
    encoder_add_tokenizer(found);
    return found;
}

#endif
