/* SPDX-License-Identifier: Apache-2.0 */
/* The tokenizer against llama.cpp's vectors, its own metadata against broken files, and the sampler. */
#include "linnet/sampler.h"
#include "linnet/tokenizer.h"

#include "client/client_fixture.h"
#include "client/tiny_tokenizer.h"
#include "linnet/rng.h"

#include <math.h>

#define SEPARATOR "\n__ggml_vocab_test__\n"

static opened open_tokenizer(const char *path)
{
    opened o = {0};
    linnet_error err = {0};
    must(linnet_gguf_open(path, &o.gguf, &err), &err);
    must(linnet_tokenizer_create(o.gguf, &o.tokenizer, &err), &err);
    return o;
}

/* " 12 7" as the vectors write ids. */
static void ids_to_text(const linnet_ids *ids, linnet_buffer *text)
{
    for (size_t i = 0; i < ids->n_items; i++)
        linnet_buffer_append_format(text, " %d", (int)ids->items[i]);
}

static size_t find(const uint8_t *bytes, size_t n_bytes, const char *word)
{
    size_t n = strlen(word);
    for (size_t i = 0; i + n <= n_bytes; i++) {
        if (memcmp(bytes + i, word, n) == 0)
            return i;
    }
    return n_bytes;
}

/* Every text of `inputs` gives the ids of its line in `outputs`; returns the number of texts. */
static size_t check_vectors(const linnet_tokenizer *t, const linnet_buffer *inputs,
                            const linnet_buffer *outputs)
{
    size_t in = 0, out = 0, n = 0;
    for (bool more = true; more; n++) {
        size_t n_text = find(inputs->bytes + in, inputs->n_bytes - in, SEPARATOR);
        size_t n_line = find(outputs->bytes + out, outputs->n_bytes - out, "\n");
        linnet_ids ids = {0};
        linnet_buffer got = {0};
        linnet_error err = {0};
        more = in + n_text + strlen(SEPARATOR) < inputs->n_bytes;
        must(linnet_tokenize(t, (const char *)inputs->bytes + in, n_text, LINNET_TOKENIZE_PREFIX, &ids, &err),
             &err);
        ids_to_text(&ids, &got);
        if (got.n_bytes != n_line || (n_line > 0 && memcmp(got.bytes, outputs->bytes + out, n_line) != 0))
            fail_msg("text %zu: got%.*s, want%.*s", n, (int)got.n_bytes, (const char *)got.bytes, (int)n_line,
                     (const char *)outputs->bytes + out);
        linnet_ids_release(&ids);
        linnet_buffer_release(&got);
        in += n_text + strlen(SEPARATOR);
        out += n_line + 1;
    }
    assert_int_equal(out, outputs->n_bytes);
    return n;
}

static const char *const vocabularies[] = {
    "tokenizers/llama-spm", "tokenizers/phi-3",     "tokenizers/gpt-2",          "tokenizers/llama-bpe",
    "tokenizers/qwen2",     "tokenizers/starcoder", "tokenizers/deepseek-coder", "tokenizers/falcon",
    "models/stories260K",   "models/stories3M",     "tokenizers/bert-bge",
};

/* The vocabularies of models lie in the models, their vectors beside the others. */
static opened open_vocabulary(const char *name)
{
    char file[64], path[512];
    (void)snprintf(file, sizeof(file), "%s%s.gguf", name, strncmp(name, "models/", 7) == 0 ? "-Q4_0" : "");
    return open_tokenizer(shared_path(file, path));
}

static void every_vector_of_every_vocabulary_matches(void **state)
{
    (void)state;
    static const struct {
        const char *inputs, *outputs;
        size_t n_texts;
    } sets[] = {{"tokenizers/gpt-2.gguf.inp", "gguf.out", 46}, {"tokenizers/text.inp", "text.out", 144}};
    for (size_t i = 0; i < ARRAY_LEN(vocabularies); i++) {
        opened o = open_vocabulary(vocabularies[i]);
        for (size_t k = 0; k < ARRAY_LEN(sets); k++) {
            char file[64], path[512];
            (void)snprintf(file, sizeof(file), "tokenizers%s.%s", strchr(vocabularies[i], '/'),
                           sets[k].outputs);
            print_message("%s\n", file);
            linnet_buffer inputs = read_file(shared_path(sets[k].inputs, path));
            linnet_buffer outputs = read_file(shared_path(file, path));
            assert_int_equal(check_vectors(o.tokenizer, &inputs, &outputs), sets[k].n_texts);
            linnet_buffer_release(&inputs);
            linnet_buffer_release(&outputs);
        }
        close_tokenizer(&o);
    }
}

/* ---- there and back ---- */

/* A text's ids pushed one by one: what has come out is whole characters at every step, and all in the end. */
static void expect_stream(const linnet_tokenizer *t, const char *name, const char *text, size_t n_bytes)
{
    linnet_ids ids = {0};
    linnet_buffer out = {0};
    linnet_error err = {0};
    linnet_detokenizer d;
    bool valid = linnet_utf8_is_valid(text, n_bytes);
    size_t n_checked = 0;
    linnet_detokenizer_init(&d, t);
    must(linnet_tokenize(t, text, n_bytes, 0, &ids, &err), &err);
    for (size_t i = 0; i < ids.n_items; i++) {
        linnet_detokenizer_push(&d, ids.items[i], &out);
        if (valid && !linnet_utf8_is_valid(out.bytes + n_checked, out.n_bytes - n_checked))
            fail_msg("%s: token %zu of '%.*s' cuts a character", name, i, (int)n_bytes, text);
        n_checked = out.n_bytes;
    }
    linnet_detokenizer_finish(&d, &out);
    if (out.n_bytes != n_bytes || (n_bytes > 0 && memcmp(out.bytes, text, n_bytes) != 0))
        fail_msg("%s: '%.*s' came back as '%.*s'", name, (int)n_bytes, text, (int)out.n_bytes,
                 (const char *)out.bytes);
    linnet_ids_release(&ids);
    linnet_buffer_release(&out);
}

/* Vocabularies with a token for every byte. Starcoder, DeepSeek's and Falcon's lack some that no UTF-8 text,
 * or no text of their makers, has; WordPiece forgets case, accents and spaces by design. */
static const char *const complete[] = {"tokenizers/llama-spm", "tokenizers/phi-3", "tokenizers/gpt-2",
                                       "tokenizers/llama-bpe", "tokenizers/qwen2", "models/stories260K",
                                       "models/stories3M"};

static void data_of_every_set_comes_back(void **state)
{
    (void)state;
    static const char *const sets[] = {"assistant-intents", "clinic-chat", "clinic-notes", "instructions",
                                       "medquad",           "shakespeare", "tinystories"};
    for (size_t k = 0; k < ARRAY_LEN(sets); k++) {
        char file[64], path[512];
        (void)snprintf(file, sizeof(file), "data/%s/train.jsonl", sets[k]);
        linnet_buffer lines = read_file(shared_path(file, path));
        for (size_t i = 0; i < ARRAY_LEN(vocabularies) - 1; i++) { /* all but WordPiece, the last */
            opened o = open_vocabulary(vocabularies[i]);
            size_t at = 0, n = 0, n_lines = testing_size("records", 1000, 20);
            for (; at < lines.n_bytes && n < n_lines; n++) {
                size_t n_line = find(lines.bytes + at, lines.n_bytes - at, "\n");
                expect_stream(o.tokenizer, vocabularies[i], (const char *)lines.bytes + at, n_line);
                at += n_line + 1;
            }
            assert_true(n >= 20);
            close_tokenizer(&o);
        }
        linnet_buffer_release(&lines);
    }
}

static void any_bytes_come_back_through_complete_vocabularies(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        " ",
                                        "\xf0\x9f\xa6\x9c",
                                        "a\xf0\x9f\xa6\x9c\xf0\x9f\x87\xa9\xf0\x9f\x87\xaa b",
                                        "\xe2\x82\xac\xc3\xa9",
                                        "\xf0\x9f\xa6",
                                        "\xf0\x9f",
                                        "\xf0",
                                        "\x9f\xa6\x9c",
                                        "a\xe2\x82",
                                        "\xc3(",
                                        "\xff\xfe",
                                        "\xed\xa0\x80",
                                        "  \n\t x "};
    linnet_rng rng;
    char bytes[256];
    linnet_rng_init(&rng, 5, 5);
    print_message("seed 5\n");
    for (size_t i = 0; i < ARRAY_LEN(complete); i++) {
        opened o = open_vocabulary(complete[i]);
        for (size_t k = 0; k < ARRAY_LEN(texts); k++)
            expect_stream(o.tokenizer, complete[i], texts[k], strlen(texts[k]));
        for (size_t k = 0; k < 100; k++) {
            size_t n = linnet_rng_below(&rng, sizeof(bytes));
            for (size_t at = 0; at < n; at++)
                bytes[at] = (char)linnet_rng_below(&rng, k % 2 ? 256 : 128);
            expect_stream(o.tokenizer, complete[i], bytes, n);
        }
        close_tokenizer(&o);
    }
}

static void special_tokens_stand_where_they_are_written(void **state)
{
    (void)state;
    static const struct {
        const char *vocabulary, *text, *want;
    } cases[] = {
        {"tokenizers/llama-bpe", "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
         " 128000 128006 882 128007 271 13347 128009"},
        {"tokenizers/qwen2", "<|im_start|>user\nHi<|im_end|>\n", " 151644 872 198 13048 151645 198"},
        {"tokenizers/gpt-2", "a<|endoftext|>b", " 64 50256 65"},
        /* Behind Phi 3's special tokens white space belongs to them, but not behind <|endoftext|>. */
        {"tokenizers/phi-3", "<|user|>\nHi<|end|>\n \t<|assistant|>\n", " 1 32010 6324 32007 32001"},
        {"tokenizers/phi-3", "<|endoftext|> a", " 1 32000 29871 263"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        opened o = open_vocabulary(cases[i].vocabulary);
        linnet_ids ids = {0};
        linnet_buffer got = {0};
        linnet_error err = {0};
        must(linnet_tokenize(o.tokenizer, cases[i].text, strlen(cases[i].text),
                             LINNET_TOKENIZE_SPECIAL | LINNET_TOKENIZE_PREFIX | LINNET_TOKENIZE_BEGIN |
                                 LINNET_TOKENIZE_END,
                             &ids, &err),
             &err);
        ids_to_text(&ids, &got);
        linnet_buffer_append_u8(&got, 0);
        if (strcmp((const char *)got.bytes, cases[i].want) != 0)
            fail_msg("%s, '%s': got%s, want%s", cases[i].vocabulary, cases[i].text, (const char *)got.bytes,
                     cases[i].want);
        linnet_ids_release(&ids);
        linnet_buffer_release(&got);
        close_tokenizer(&o);
    }
}

static void ends_of_texts_and_turns_are_known_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *vocabulary;
        int32_t ends[3], other;
    } cases[] = {
        {"tokenizers/llama-bpe", {128001, 128009, 128001}, 128000},
        {"tokenizers/qwen2", {151643, 151645, 151643}, 151644},
        {"tokenizers/phi-3", {32000, 32007, 2}, 32010},
        {"tokenizers/deepseek-coder", {32014, 32014, 32014}, 32013},
        {"tokenizers/gpt-2", {50256, 50256, 50256}, 50255},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        opened o = open_vocabulary(cases[i].vocabulary);
        for (size_t k = 0; k < ARRAY_LEN(cases[i].ends); k++)
            assert_true(linnet_tokenizer_is_end(o.tokenizer, cases[i].ends[k]));
        assert_false(linnet_tokenizer_is_end(o.tokenizer, cases[i].other));
        assert_false(linnet_tokenizer_is_end(o.tokenizer, -1));
        close_tokenizer(&o);
    }
}

static void texts_become_the_ids_of_the_rules(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text;
        unsigned flags;
        const char *want;
    } cases[] = {
        {"empty text has no ids", "", LINNET_TOKENIZE_PREFIX, ""},
        {"only begin", "", LINNET_TOKENIZE_BEGIN, " 1"},
        {"best score first", "abc", 0, " 7 6"},
        {"leftmost of equals", "aaa", 0, " 9 4"},
        {"a merge through a space", " a", 0, " 14"},
        {"the space prefix", "a", LINNET_TOKENIZE_PREFIX, " 14"},
        {"a piece twice has its highest id", "x", 0, " 11"},
        {"a byte token", "a\nb", 0, " 4 3 5"},
        {"a byte without token is unknown", "a\tb", 0, " 4 0 5"},
        {"a character of two bytes is unknown once", "a\xc3\xa9", 0, " 4 0"},
        {"a cut character is unknown for each byte", "\xe2\x96", 0, " 0 0"},
        {"an overlong form is not a character", "\xc0\x80", 0, " 0 0"},
        {"special tokens as plain text", "<s>", 0, " 0 0 0"},
        {"control tokens by name", "a<s>b", LINNET_TOKENIZE_SPECIAL, " 4 1 5"},
        {"user-defined tokens always", "a<tag>a<tag", 0, " 4 12 4 0 0 4 0"},
        {"user-defined tokens by name", "<tag>a</s>", LINNET_TOKENIZE_SPECIAL | LINNET_TOKENIZE_BEGIN,
         " 1 12 4 2"},
        {"a prefix behind every special token", "a<s>a", LINNET_TOKENIZE_SPECIAL | LINNET_TOKENIZE_PREFIX,
         " 14 1 14"},
    };
    tiny with_prefix = tiny_base;
    with_prefix.prefix = 1;
    linnet_buffer bytes = {0};
    opened o = open_tiny(&with_prefix, &bytes);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_ids ids = {0};
        linnet_buffer got = {0};
        linnet_error err = {0};
        must(linnet_tokenize(o.tokenizer, cases[i].text, strlen(cases[i].text), cases[i].flags, &ids, &err),
             &err);
        ids_to_text(&ids, &got);
        linnet_buffer_append_u8(&got, 0);
        if (strcmp((const char *)got.bytes, cases[i].want) != 0)
            fail_msg("%s: got%s, want%s", cases[i].name, (const char *)got.bytes, cases[i].want);
        linnet_ids_release(&ids);
        linnet_buffer_release(&got);
    }
    close_tokenizer(&o);
    linnet_buffer_release(&bytes);
}

static void the_prefix_is_added_only_where_the_file_asks(void **state)
{
    (void)state;
    for (int prefix = -1; prefix <= 1; prefix++) {
        tiny v = tiny_base;
        v.prefix = prefix;
        linnet_buffer bytes = {0};
        linnet_ids ids = {0};
        linnet_error err = {0};
        opened o = open_tiny(&v, &bytes);
        must(linnet_tokenize(o.tokenizer, "a", 1, LINNET_TOKENIZE_PREFIX, &ids, &err), &err);
        assert_int_equal(ids.n_items, 1);
        assert_int_equal(ids.items[0], prefix == 0 ? 4 : 14);
        linnet_ids_release(&ids);
        close_tokenizer(&o);
        linnet_buffer_release(&bytes);
    }
}

static void ids_become_text_again(void **state)
{
    (void)state;
    static const int32_t ids[] = {1, 14, 7, 3, 12, 0, 13, 2, -1, 99};
    linnet_buffer bytes = {0}, text = {0};
    opened o = open_tiny(&tiny_base, &bytes);
    for (size_t i = 0; i < ARRAY_LEN(ids); i++)
        linnet_detokenize(o.tokenizer, ids[i], &text);
    linnet_buffer_append_u8(&text, 0);
    assert_string_equal((const char *)text.bytes, " aab\n<tag> ");
    assert_int_equal(linnet_tokenizer_find(o.tokenizer, "<tag>"), 12);
    assert_int_equal(linnet_tokenizer_find(o.tokenizer, "none"), -1);
    linnet_buffer_release(&text);
    close_tokenizer(&o);
    linnet_buffer_release(&bytes);
}

static void broken_vocabularies_are_refused_with_the_key_in_the_message(void **state)
{
    (void)state;
    tiny no_tokens = tiny_base, few_scores = tiny_base, few_types = tiny_base, end_outside = tiny_base;
    tiny unknown_outside = tiny_base, other = tiny_base;
    no_tokens.n_tokens = no_tokens.n_scores = no_tokens.n_types = 0;
    few_scores.n_scores--;
    few_types.n_types = 1;
    end_outside.end = ARRAY_LEN(tiny_tokens);
    unknown_outside.unknown = 1 << 30;
    other.model = "rwkv";
    const struct {
        const tiny *v;
        linnet_status want;
        const char *words;
    } cases[] = {
        {&no_tokens, LINNET_ERR_FORMAT, "tokenizer.ggml.tokens"},
        {&few_scores, LINNET_ERR_FORMAT, "tokenizer.ggml.scores"},
        {&few_types, LINNET_ERR_FORMAT, "tokenizer.ggml.token_type"},
        {&end_outside, LINNET_ERR_FORMAT, "tokenizer.ggml.eos_token_id"},
        {&unknown_outside, LINNET_ERR_FORMAT, "tokenizer.ggml.unknown_token_id"},
        {&other, LINNET_ERR_UNSUPPORTED, "rwkv"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_buffer bytes = pack_tiny(cases[i].v);
        linnet_gguf *gguf = NULL;
        linnet_tokenizer *tokenizer = NULL;
        linnet_error err = {0};
        must(linnet_gguf_open_bytes(bytes.bytes, bytes.n_bytes, &gguf, &err), &err);
        linnet_status got = linnet_tokenizer_create(gguf, &tokenizer, &err);
        if (got != cases[i].want || !strstr(err.message, cases[i].words) || tokenizer)
            fail_msg("%s: got %d '%s'", cases[i].words, (int)got, err.message);
        linnet_gguf_close(gguf);
        linnet_buffer_release(&bytes);
    }
}

static void a_long_text_of_one_letter_takes_no_square_of_its_length(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    char *text = malloc(N);
    assert_non_null(text);
    memset(text, 'a', N);
    linnet_buffer bytes = {0};
    linnet_ids ids = {0};
    linnet_error err = {0};
    opened o = open_tiny(&tiny_base, &bytes);
    must(linnet_tokenize(o.tokenizer, text, N, 0, &ids, &err), &err);
    assert_int_equal(ids.n_items, N / 2);
    linnet_ids_release(&ids);
    close_tokenizer(&o);
    linnet_buffer_release(&bytes);
    free(text);
}

/* ---- WordPiece ---- */

#define W "\xe2\x96\x81" /* in front of a word's first piece */

static void words_fall_into_their_longest_pieces(void **state)
{
    (void)state;
    static const tiny_token tokens[] = {
        {"[PAD]", 0, 3},      {"[UNK]", 0, 3}, {"[CLS]", 0, 3}, {"[SEP]", 0, 3},
        {W "un", 0, 1},       {W "u", 0, 1},   {"aff", 0, 1},   {"able", 0, 1},
        {W ",", 0, 1},        {W "E", 0, 1},   {W "e", 0, 1},   {W "\xe4\xb8\xad", 0, 1},
        {W "\xc3\xa9", 0, 1}, {W "$", 0, 1},   {"a", 0, 1},     {W "\xe1\x84\x92", 0, 1},
    };
    static const struct {
        const char *name, *text;
        unsigned flags;
        bool cased;
        const char *want;
    } cases[] = {
        {"longest first", "unaffable", 0, false, " 4 6 7"},
        {"each word anew", "  un\tua \n", 0, false, " 4 5 14"},
        {"small letters", "UNAFFABLE", 0, false, " 4 6 7"},
        {"a word that does not end in pieces is unknown once", "unaffablex un", 0, false, " 1 4"},
        {"punctuation and signs stand alone", "un,un$", 0, false, " 4 8 4 13"},
        {"so do Chinese characters", "un\xe4\xb8\xad\xe4\xb8\xad", 0, false, " 4 11 11"},
        {"accents go, composed or not", "\xc3\x89 e\xcc\x81 \xe1\xb8\x97", 0, false, " 10 10 10"},
        {"unless the file keeps them", "\xc3\xa9 E", 0, true, " 12 9"},
        {"control characters and broken bytes are dropped",
         "u\xc2\xadn\x01"
         "aff\xff"
         "able\xe2\x82",
         0, false, " 4 6 7"},
        {"a Hangul syllable leaves its first letter", "\xed\x95\x9c", 0, false, " 15"},
        {"spaces of every kind", "un\xe3\x80\x80un\xc2\xa0un", 0, false, " 4 4 4"},
        {"between [CLS] and [SEP]", "un[UNK]",
         LINNET_TOKENIZE_SPECIAL | LINNET_TOKENIZE_BEGIN | LINNET_TOKENIZE_END, false, " 2 4 1 3"},
        {"nothing from nothing", " \n", 0, false, ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        tiny v = {.tokens = tokens,
                  .n_tokens = ARRAY_LEN(tokens),
                  .n_types = ARRAY_LEN(tokens),
                  .model = "bert",
                  .end = -1,
                  .unknown = 1,
                  .prefix = -1,
                  .words = {2, 3},
                  .cased = cases[i].cased};
        linnet_buffer bytes = {0}, got = {0};
        linnet_ids ids = {0};
        linnet_error err = {0};
        opened o = open_tiny(&v, &bytes);
        must(linnet_tokenize(o.tokenizer, cases[i].text, strlen(cases[i].text), cases[i].flags, &ids, &err),
             &err);
        ids_to_text(&ids, &got);
        linnet_buffer_append_u8(&got, 0);
        if (strcmp((const char *)got.bytes, cases[i].want) != 0)
            fail_msg("%s: got%s, want%s", cases[i].name, (const char *)got.bytes, cases[i].want);
        linnet_buffer_clear(&got);
        for (size_t k = 0; k < ids.n_items; k++)
            linnet_detokenize(o.tokenizer, ids.items[k], &got);
        if (i == 0)
            assert_memory_equal(got.bytes, " unaffable", 10);
        linnet_ids_release(&ids);
        linnet_buffer_release(&got);
        close_tokenizer(&o);
        linnet_buffer_release(&bytes);
    }
}

/* ---- the sampler ---- */

static int32_t draw(linnet_sampler *s, const float *logits, size_t n)
{
    linnet_error err = {0};
    int32_t id = -1;
    must(linnet_sampler_next(s, logits, n, &id, &err), &err);
    return id;
}

static void greedy_takes_the_lowest_id_of_the_largest(void **state)
{
    (void)state;
    static const float logits[] = {1, 3, NAN, 3, -INFINITY};
    linnet_sampler s;
    linnet_sampler_init(&s, 0, 1, 0);
    assert_int_equal(draw(&s, logits, 5), 1);
    assert_int_equal(draw(&s, logits, 1), 0);
    linnet_sampler_release(&s);
}

static void no_number_at_all_is_an_error(void **state)
{
    (void)state;
    static const float logits[] = {NAN, -INFINITY};
    for (int i = 0; i < 2; i++) {
        linnet_sampler s;
        linnet_error err = {0};
        int32_t id = 77;
        linnet_sampler_init(&s, i, 1, 0);
        assert_int_equal(linnet_sampler_next(&s, logits, 2, &id, &err), LINNET_ERR_RANGE);
        assert_int_equal(id, 77);
        linnet_sampler_release(&s);
    }
}

static void temperature_draws_by_softmax_and_repeats_with_its_seed(void **state)
{
    (void)state;
    static const float logits[] = {0, 1.0986123f, NAN}; /* 1 : 3 */
    enum { N = 8000 };
    linnet_sampler s, same;
    linnet_sampler_init(&s, 1, 1, 5);
    linnet_sampler_init(&same, 1, 1, 5);
    int n_second = 0;
    for (int i = 0; i < N; i++) {
        int32_t id = draw(&s, logits, 3);
        assert_int_equal(id, draw(&same, logits, 3));
        assert_in_range(id, 0, 1);
        n_second += id == 1;
    }
    assert_in_range(n_second, N * 3 / 4 - 160, N * 3 / 4 + 160); /* four standard deviations */
    linnet_sampler_release(&s);
    linnet_sampler_release(&same);
}

static void top_p_keeps_the_likeliest_alone(void **state)
{
    (void)state;
    static const float logits[] = {0, 2, 1.9f, -1}; /* 0.063, 0.466, 0.422, 0.023 of the whole */
    linnet_sampler s;
    bool seen[4] = {false};
    linnet_sampler_init(&s, 1, 0.8, 9);
    for (int i = 0; i < 500; i++)
        seen[draw(&s, logits, 4)] = true;
    assert_true(seen[1] && seen[2]);
    assert_false(seen[0] || seen[3]);
    linnet_sampler_release(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_vector_of_every_vocabulary_matches),
        cmocka_unit_test(data_of_every_set_comes_back),
        cmocka_unit_test(any_bytes_come_back_through_complete_vocabularies),
        cmocka_unit_test(special_tokens_stand_where_they_are_written),
        cmocka_unit_test(ends_of_texts_and_turns_are_known_by_name),
        cmocka_unit_test(texts_become_the_ids_of_the_rules),
        cmocka_unit_test(the_prefix_is_added_only_where_the_file_asks),
        cmocka_unit_test(ids_become_text_again),
        cmocka_unit_test(broken_vocabularies_are_refused_with_the_key_in_the_message),
        cmocka_unit_test(a_long_text_of_one_letter_takes_no_square_of_its_length),
        cmocka_unit_test(words_fall_into_their_longest_pieces),
        cmocka_unit_test(greedy_takes_the_lowest_id_of_the_largest),
        cmocka_unit_test(no_number_at_all_is_an_error),
        cmocka_unit_test(temperature_draws_by_softmax_and_repeats_with_its_seed),
        cmocka_unit_test(top_p_keeps_the_likeliest_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
