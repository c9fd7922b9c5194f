/* SPDX-License-Identifier: Apache-2.0 */
/* Byte pair encoding over a vocabulary small enough to reckon by hand, the pre-tokenizers' cuts, texts and
 * bytes there and back, and every tokenizer under failing allocations and in threads. */
#include "linnet/tokenizer.h"

#include "client/client_fixture.h"
#include "client/engine/pretokenizer.h"
#include "client/tiny_tokenizer.h"
#include "linnet/rng.h"

#include <jansson.h>
#include <pthread.h>

/* ---- allocations that fail ---- */

static long fail_at = -1; /* -1: none does */

static bool fails(void)
{
    return fail_at >= 0 && fail_at-- == 0;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *memory, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *memory, size_t n);

void *__wrap_malloc(size_t n)
{
    return fails() ? NULL : __real_malloc(n);
}
void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}
void *__wrap_realloc(void *memory, size_t n)
{
    return fails() ? NULL : __real_realloc(memory, n);
}

/* ---- helpers ---- */

typedef struct pair_world {
    tiny_token tokens[TINY_BPE_TOKENS];
    char names[256][3];
    linnet_buffer bytes;
    opened o;
} pair_world;

static void open_pairs(pair_world *w, const char *pre)
{
    tiny v = tiny_bpe(w->tokens, w->names);
    v.pre = pre;
    w->o = open_tiny(&v, &w->bytes);
}

static void close_pairs(pair_world *w)
{
    close_tokenizer(&w->o);
    linnet_buffer_release(&w->bytes);
}

/* A text's pieces with a bar between them; "[name]" for control tokens. */
static void expect_cuts(const linnet_tokenizer *t, const char *name, const char *text, size_t n_bytes,
                        unsigned flags, const char *want)
{
    linnet_ids ids = {0};
    linnet_buffer got = {0};
    linnet_error err = {0};
    must(linnet_tokenize(t, text, n_bytes, flags, &ids, &err), &err);
    for (size_t i = 0; i < ids.n_items; i++) {
        if (i > 0)
            linnet_buffer_append_u8(&got, '|');
        if (ids.items[i] == TINY_END)
            linnet_buffer_append_text(&got, "[end]");
        linnet_detokenize(t, ids.items[i], &got);
    }
    linnet_buffer_append_u8(&got, 0);
    if (strcmp((const char *)got.bytes, want) != 0)
        fail_msg("%s: got '%s', want '%s'", name, (const char *)got.bytes, want);
    linnet_ids_release(&ids);
    linnet_buffer_release(&got);
}

/* ---- by hand ---- */

static void pieces_merge_by_the_order_of_the_list(void **state)
{
    (void)state;
    static const struct {
        const char *name, *pre, *text;
        unsigned flags;
        const char *want;
    } cases[] = {
        {"an empty text", NULL, "", 0, ""},
        {"the first pair of the list first", NULL, "abc", 0, "abc"},
        {"a later pair where the first is not", NULL, "xbc", 0, "x|bc"},
        {"leftmost of equals", NULL, "abab", 0, "ab|ab"},
        {"a space belongs to the word behind it", NULL, "ab ac", 0, "ab| a|c"},
        {"a token without merges is not found", "gpt-2", "hello", 0, "h|e|l|l|o"},
        {"but where pieces are taken whole", "llama-bpe", "hello", 0, "hello"},
        {"and only as a piece", "llama-bpe", "hellohello", 0, "h|e|l|l|o|h|e|l|l|o"},
        {"no merge leads to a control token", "gpt-2", "<|end|>", 0, "<|||e|n|d|||>"},
        {"control tokens by name", NULL, "ab<|end|>ab", LINNET_TOKENIZE_SPECIAL, "ab|[end]|ab"},
        {"user-defined tokens always", NULL, "ab<tool>ab<tool", 0, "ab|<tool>|ab|<|t|o|o|l"},
        {"no space prefix", NULL, "ab", LINNET_TOKENIZE_PREFIX, "ab"},
        {"no begin token by default", "gpt-2", "ab", LINNET_TOKENIZE_BEGIN, "ab"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        pair_world w = {0};
        open_pairs(&w, cases[i].pre);
        expect_cuts(w.o.tokenizer, cases[i].name, cases[i].text, strlen(cases[i].text), cases[i].flags,
                    cases[i].want);
        close_pairs(&w);
    }
}

static void bytes_that_are_no_text_are_a_piece_of_their_own(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text, *want;
    } cases[] = {
        {"in the middle of a word",
         "ab\xff"
         "ab",
         "ab|\xff|ab"},
        {"a cut character", "ab\xe2\x82", "ab|\xe2|\x82"},
        {"a surrogate", "\xed\xa0\x80", "\xed|\xa0|\x80"},
        {"an overlong form",
         "\xc0\x80"
         "bc",
         "\xc0|\x80|bc"},
        {"a space before them stays there",
         "ab \xff"
         "a",
         "ab| |\xff|a"},
    };
    pair_world w = {0};
    open_pairs(&w, "gpt-2");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        expect_cuts(w.o.tokenizer, cases[i].name, cases[i].text, strlen(cases[i].text), 0, cases[i].want);
    close_pairs(&w);
}

/* A vocabulary whose every pair of printable ASCII merges would show the cuts; here the list does: "a b", "b
 * c" and the like merge within a piece only. Digits, signs and spaces are told apart by what "ab" can reach.
 */
static const char *const names[] = {"default",
                                    "gpt-2",
                                    "phi-2",
                                    "llama-bpe",
                                    "llama-v3",
                                    "smaug-bpe",
                                    "qwen2",
                                    "qwen35",
                                    "deepseek-r1-qwen",
                                    "deepseek-coder",
                                    "deepseek-llm",
                                    "deepseek-v3",
                                    "falcon",
                                    "starcoder",
                                    "refact",
                                    "command-r",
                                    "smollm",
                                    "gpt-4o",
                                    "tekken",
                                    "bloom",
                                    "viking",
                                    "mpt",
                                    "olmo",
                                    "dbrx",
                                    "stablelm2",
                                    "exaone"};

static void expect_back(const linnet_tokenizer *t, const char *name, const char *text, size_t n_bytes)
{
    linnet_ids ids = {0};
    linnet_buffer back = {0};
    linnet_error err = {0};
    must(linnet_tokenize(t, text, n_bytes, 0, &ids, &err), &err);
    for (size_t i = 0; i < ids.n_items; i++)
        linnet_detokenize(t, ids.items[i], &back);
    if (back.n_bytes != n_bytes || (n_bytes > 0 && memcmp(back.bytes, text, n_bytes) != 0))
        fail_msg("%s: a text of %zu bytes came back with %zu", name, n_bytes, back.n_bytes);
    linnet_ids_release(&ids);
    linnet_buffer_release(&back);
}

/* Texts on which a careless expression takes a square of their length, or runs into a limit. */
static void no_pre_tokenizer_loses_a_byte_or_its_patience(void **state)
{
    (void)state;
    const size_t n_long = testing_size("bytes of a text", 1 << 17, 1 << 12);
    static const char *const units[] = {
        " ",        "a",   "A",  "\n", "1",    ".",        "'",   "\xc3\xa9", "\xe4\xb8\x80",
        "\xcc\x81", " \n", "a1", "Aa", "\xff", "\xe2\x82", "  a", "\t ",      "\0"};
    static const char *const ends[] = {"", "x", "\n", "1", "\xff"};
    char *text = malloc(n_long + 8);
    assert_non_null(text);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        pair_world w = {0};
        open_pairs(&w, names[i]);
        for (size_t k = 0; k < ARRAY_LEN(units) * ARRAY_LEN(ends); k++) {
            const char *unit = units[k / ARRAY_LEN(ends)], *end = ends[k % ARRAY_LEN(ends)];
            size_t n_unit = *unit ? strlen(unit) : 1, n = n_long / 16;
            if (k % ARRAY_LEN(ends) == 1)
                n = n_long;
            for (size_t at = 0; at < n; at++)
                text[at] = unit[at % n_unit];
            memcpy(text + n, end, strlen(end));
            expect_back(w.o.tokenizer, names[i], text, n + strlen(end));
        }
        close_pairs(&w);
    }
    free(text);
}

typedef struct seen_cuts {
    const json_t *sizes; /* an array of numbers */
    const char *name, *text;
    size_t n;
} seen_cuts;

static linnet_status expect_piece(void *context, const char *bytes, size_t n_bytes)
{
    seen_cuts *seen = context;
    if ((size_t)json_integer_value(json_array_get(seen->sizes, seen->n)) != n_bytes)
        fail_msg("%s, '%s': piece %zu is '%.*s'", seen->name, seen->text, seen->n, (int)n_bytes, bytes);
    seen->n++;
    return LINNET_OK;
}

static void the_expressions_cut_as_their_publishers_do(void **state)
{
    (void)state;
    const char *name;
    json_t *families;
    json_t *root = json_load_file(LINNET_VECTORS "/pretokenizers.json", 0, NULL);
    assert_true(json_object_size(json_object_get(root, "cuts")) >= 10);
    json_object_foreach(json_object_get(root, "cuts"), name, families)
    {
        linnet_pretokenizer *p = NULL;
        linnet_error err = {0};
        must(linnet_pretokenizer_create((linnet_text){name, strlen(name)}, &p, &err), &err);
        assert_true(json_array_size(families) >= 40);
        for (size_t i = 0; i < json_array_size(families); i++) {
            const json_t *text = json_array_get(json_object_get(root, "texts"), i);
            seen_cuts seen = {
                .sizes = json_array_get(families, i), .name = name, .text = json_string_value(text)};
            assert_int_equal(linnet_pretokenizer_cut(p, json_string_value(text), json_string_length(text),
                                                     expect_piece, &seen),
                             LINNET_OK);
            assert_int_equal(seen.n, json_array_size(seen.sizes));
        }
        linnet_pretokenizer_destroy(p);
    }
    json_decref(root);
}

static void random_bytes_come_back(void **state)
{
    (void)state;
    static const char some[] = " \n'sab1.\xc3\xa9\xff";
    linnet_rng rng;
    uint8_t text[512];
    linnet_rng_init(&rng, 11, 1);
    print_message("seed 11\n");
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        pair_world w = {0};
        open_pairs(&w, names[i]);
        for (int k = 0; k < 40; k++) {
            size_t n = linnet_rng_below(&rng, sizeof(text));
            for (size_t at = 0; at < n; at++)
                text[at] = k % 2 ? (uint8_t)linnet_rng_below(&rng, 256)
                                 : (uint8_t)some[linnet_rng_below(&rng, sizeof(some) - 1)];
            expect_back(w.o.tokenizer, names[i], (const char *)text, n);
        }
        close_pairs(&w);
    }
}

static void an_unknown_pre_tokenizer_is_refused_by_name(void **state)
{
    (void)state;
    static const char *const wanted[] = {"kimi-k2", "gpt", "llama-bpe ", "Qwen2"};
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
        tiny_token tokens[TINY_BPE_TOKENS];
        char pieces[256][3];
        tiny v = tiny_bpe(tokens, pieces);
        v.pre = wanted[i];
        linnet_buffer bytes = pack_tiny(&v);
        linnet_gguf *gguf = NULL;
        linnet_tokenizer *tokenizer = NULL;
        linnet_error err = {0};
        must(linnet_gguf_open_bytes(bytes.bytes, bytes.n_bytes, &gguf, &err), &err);
        assert_int_equal(linnet_tokenizer_create(gguf, &tokenizer, &err), LINNET_ERR_UNSUPPORTED);
        assert_non_null(strstr(err.message, wanted[i]));
        assert_non_null(strstr(err.message, "tokenizer.ggml.pre"));
        assert_null(tokenizer);
        linnet_gguf_close(gguf);
        linnet_buffer_release(&bytes);
    }
}

static void a_vocabulary_without_merges_is_refused(void **state)
{
    (void)state;
    tiny_token tokens[TINY_BPE_TOKENS];
    char pieces[256][3];
    tiny v = tiny_bpe(tokens, pieces);
    v.n_merges = 0;
    linnet_buffer bytes = pack_tiny(&v);
    linnet_gguf *gguf = NULL;
    linnet_tokenizer *tokenizer = NULL;
    linnet_error err = {0};
    must(linnet_gguf_open_bytes(bytes.bytes, bytes.n_bytes, &gguf, &err), &err);
    assert_int_equal(linnet_tokenizer_create(gguf, &tokenizer, &err), LINNET_ERR_FORMAT);
    assert_non_null(strstr(err.message, "tokenizer.ggml.merges"));
    linnet_gguf_close(gguf);
    linnet_buffer_release(&bytes);
}

/* ---- failing allocations, threads ---- */

/* Create a tokenizer and use it, the n-th allocation failing; false once none failed. */
static bool survives(const linnet_buffer *bytes, long n, bool *ret_whole)
{
    static const char text[] = "hello abc  ab\n\xff<tool>caf\xc3\xa9 <|end|>";
    linnet_gguf *gguf = NULL;
    linnet_tokenizer *t = NULL;
    linnet_ids ids = {0};
    linnet_error err = {0};
    fail_at = n;
    linnet_status status = linnet_gguf_open_bytes(bytes->bytes, bytes->n_bytes, &gguf, &err);
    if (status == LINNET_OK)
        status = linnet_tokenizer_create(gguf, &t, &err);
    if (status == LINNET_OK)
        status = linnet_tokenize(t, text, sizeof(text) - 1, LINNET_TOKENIZE_SPECIAL, &ids, &err);
    bool failed = fail_at < 0;
    fail_at = -1;
    if (status != LINNET_OK && (!failed || status != LINNET_ERR_NOMEM || ids.n_items != 0))
        fail_msg("allocation %ld: %s '%s'", n, linnet_status_name(status), err.message);
    *ret_whole = status == LINNET_OK;
    linnet_ids_release(&ids);
    linnet_tokenizer_destroy(t);
    linnet_gguf_close(gguf);
    return failed;
}

static void lack_of_memory_is_an_error_wherever_it_comes(void **state)
{
    (void)state;
    static const char *const kinds[] = {"llama-bpe", "deepseek-coder", "llama", "bert"};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        tiny_token tokens[TINY_BPE_TOKENS];
        char pieces[256][3];
        tiny v = i < 2 ? tiny_bpe(tokens, pieces) : tiny_base;
        v.pre = i < 2 ? kinds[i] : NULL;
        v.model = i < 2 ? v.model : kinds[i];
        linnet_buffer bytes = pack_tiny(&v);
        bool whole = false;
        long n = 0;
        while (survives(&bytes, n, &whole))
            n++;
        assert_true(whole);
        assert_true(n > 5);
        linnet_buffer_release(&bytes);
    }
}

typedef struct share {
    const linnet_tokenizer *tokenizer;
    linnet_ids ids;
    bool ok;
} share;

static void *tokenize_often(void *argument)
{
    share *s = argument;
    static const char text[] = "hello abc 123  ab\xff, caf\xc3\xa9\n\n  it's";
    s->ok = true;
    for (int i = 0; i < 200 && s->ok; i++) {
        s->ids.n_items = 0;
        s->ok = linnet_tokenize(s->tokenizer, text, sizeof(text) - 1, 0, &s->ids, NULL) == LINNET_OK;
    }
    return NULL;
}

static void threads_share_a_tokenizer(void **state)
{
    (void)state;
    pair_world w = {0};
    share shares[4];
    pthread_t threads[ARRAY_LEN(shares)];
    open_pairs(&w, "falcon");
    for (size_t i = 0; i < ARRAY_LEN(shares); i++) {
        shares[i] = (share){.tokenizer = w.o.tokenizer};
        assert_int_equal(pthread_create(&threads[i], NULL, tokenize_often, &shares[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(shares); i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (size_t i = 0; i < ARRAY_LEN(shares); i++) {
        assert_true(shares[i].ok);
        assert_int_equal(shares[i].ids.n_items, shares[0].ids.n_items);
        assert_memory_equal(shares[i].ids.items, shares[0].ids.items,
                            shares[0].ids.n_items * sizeof(*shares[0].ids.items));
    }
    for (size_t i = 0; i < ARRAY_LEN(shares); i++)
        linnet_ids_release(&shares[i].ids);
    close_pairs(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_merge_by_the_order_of_the_list),
        cmocka_unit_test(bytes_that_are_no_text_are_a_piece_of_their_own),
        cmocka_unit_test(no_pre_tokenizer_loses_a_byte_or_its_patience),
        cmocka_unit_test(the_expressions_cut_as_their_publishers_do),
        cmocka_unit_test(random_bytes_come_back),
        cmocka_unit_test(an_unknown_pre_tokenizer_is_refused_by_name),
        cmocka_unit_test(a_vocabulary_without_merges_is_refused),
        cmocka_unit_test(lack_of_memory_is_an_error_wherever_it_comes),
        cmocka_unit_test(threads_share_a_tokenizer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
