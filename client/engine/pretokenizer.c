/* SPDX-License-Identifier: Apache-2.0 */
/* The expressions and the cutting. Every model family publishes what its tokenizer was trained with, in
 * tokenizer.json or beside its rank file; the names are those that GGUF files use for them. Most have one
 * expression; where there are several, each is searched in the pieces the one before left, and what lies
 * between two matches is a piece too. PCRE2 finds the matches, compiled by its JIT where the system allows
 * that.
 *
 * Two differences to the published texts, neither to what they match. White space is written out, for PCRE2's
 * \s knows U+180E, which the publishers' engines do not. And an expression that PCRE2 would search in a
 * square of the text's length is written so that it does not: `\s+$`.
 *
 * Left out are families whose names need more than expressions (kimi-k2, gemma4, afmoe and others): they are
 * refused by name. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "pretokenizer.h"

#include <pcre2.h>
#include <stdlib.h>

#define EXPRESSIONS_MAX 6

#define SPACES                                                                                               \
    "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define SPACE "[" SPACES "]"
#define BLANKS                                                                                               \
    SPACE "+(?![^" SPACES "])|" SPACE "+" /* a run without its last, if a word follows; or all of it */
#define LINES SPACE "*[\\r\\n]+"
#define SHORT_FORMS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define BEFORE_WORD "[^\\r\\n\\p{L}\\p{N}]?"
#define SIGNS " ?[^" SPACES "\\p{L}\\p{N}]+"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+|" SIGNS "|" BLANKS
#define LLAMA3 SHORT_FORMS "|" BEFORE_WORD "\\p{L}+|\\p{N}{1,3}|" SIGNS "[\\r\\n]*|" LINES "|" BLANKS
#define QWEN2 SHORT_FORMS "|" BEFORE_WORD "\\p{L}+|\\p{N}|" SIGNS "[\\r\\n]*|" LINES "|" BLANKS
#define DEEPSEEK_HAN "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"
#define BLOOM " ?[^(" SPACES "|.,!?…。，、।۔،)]+"
/* The letters with case that DeepSeek lists. */
/* clang-format off */
#define CASED_LETTERS \
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽ" \
    "Ა-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼ" \
    "ℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗ" \
    "Ａ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
/* clang-format on */

typedef struct rule {
    const char *names[12]; /* of tokenizer.ggml.pre, NULL behind the last */
    const char *expressions[EXPRESSIONS_MAX];
    bool takes_whole, adds_begin;
} rule;

static const rule rules[] = {
    {.names = {"default"}, .expressions = {"[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {.names = {"gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4",
               "modern-bert", "roberta-bpe", "gigachat"},
     .expressions = {GPT2}},
    {.names = {"jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "jina-v1-en", "jina-v2-code", "a.x-4.0",
               "mellum"},
     .expressions = {GPT2}},
    {.names = {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
               "jina-v5-nano"},
     .expressions = {LLAMA3},
     .takes_whole = true,
     .adds_begin = true},
    {.names = {"smaug-bpe", "dbrx", "glm4", "chatglm-bpe"}, .expressions = {LLAMA3}},
    {.names = {"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan",
               "solar-open", "grok-2"},
     .expressions = {QWEN2}},
    {.names = {"qwen35"},
     .expressions = {SHORT_FORMS "|" BEFORE_WORD "[\\p{L}\\p{M}]+|\\p{N}| ?[^" SPACES
                                 "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" LINES "|" BLANKS}},
    {.names = {"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"},
     .expressions = {"\\p{N}", GPT2}},
    {.names = {"falcon"}, .expressions = {"[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"}},
    {.names = {"deepseek-coder"},
     .expressions = {"[\\r\\n]", SPACE "?\\p{L}+", SPACE "?\\p{P}+", DEEPSEEK_HAN, "\\p{N}"}},
    {.names = {"deepseek-llm"},
     .expressions = {"[\\r\\n]", SPACE "?[" CASED_LETTERS "]+", SPACE "?[!-/:-~！-／：-～‘-‟　-。]+",
                     "(?<!" SPACE ")" SPACE "++$", DEEPSEEK_HAN, "\\p{N}+"}},
    {.names = {"deepseek-v3", "hunyuan-dense", "joyai-llm"},
     .expressions = {"\\p{N}{1,3}", "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+",
                     "[!-/:-@\\[-`{-~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+"
                     "[\\r\\n]*|" LINES "|" BLANKS}},
    {.names = {"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"},
     .expressions = {BEFORE_WORD UPPER "*" LOWER "+" SHORT_FORMS "?|" BEFORE_WORD UPPER "+" LOWER
                                       "*" SHORT_FORMS "?|\\p{N}{1,3}|" SIGNS "[\\r\\n/]*|" LINES
                                       "|" BLANKS}},
    {.names = {"tekken"},
     .expressions = {BEFORE_WORD UPPER "*" LOWER "+|" BEFORE_WORD UPPER "+" LOWER "*|\\p{N}|" SIGNS
                                       "[\\r\\n/]*|" LINES "|" BLANKS},
     .takes_whole = true,
     .adds_begin = true},
    {.names = {"bloom", "poro-chat", "gpt3-finnish"}, .expressions = {BLOOM}},
    {.names = {"viking"}, .expressions = {BLOOM, "\\p{N}"}},
};

struct linnet_pretokenizer {
    const rule *rule;
    pcre2_general_context *memory;
    pcre2_code *codes[EXPRESSIONS_MAX]; /* owned, NULL behind the last */
};

static const rule *find_rule(linnet_text name)
{
    if (name.n_bytes == 0)
        return &rules[0];
    for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
        for (size_t j = 0; j < ARRAY_LEN(rules[i].names) && rules[i].names[j]; j++) {
            if (linnet_text_is(name, rules[i].names[j]))
                return &rules[i];
        }
    }
    return NULL;
}

static void *take_memory(PCRE2_SIZE n_bytes, void *context)
{
    (void)context;
    return malloc(n_bytes);
}

static void free_memory(void *bytes, void *context)
{
    (void)context;
    free(bytes);
}

static linnet_status compile(linnet_pretokenizer *p, linnet_error *err)
{
    pcre2_compile_context *context = pcre2_compile_context_create(p->memory);
    linnet_status status = LINNET_OK;
    for (size_t i = 0; context && i < EXPRESSIONS_MAX && p->rule->expressions[i] && status == LINNET_OK;
         i++) {
        int number = 0;
        PCRE2_SIZE at = 0;
        p->codes[i] = pcre2_compile((PCRE2_SPTR)p->rule->expressions[i], PCRE2_ZERO_TERMINATED,
                                    PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &number, &at, context);
        if (p->codes[i]) /* its failure is no error: where no code may be made, PCRE2 interprets */
            (void)pcre2_jit_compile(p->codes[i], PCRE2_JIT_COMPLETE);
        else if (number == PCRE2_ERROR_HEAP_FAILED)
            status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a pre-tokenizer");
        else
            status =
                linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                            "PCRE2 does not take the expressions of pre-tokenizer '%s' (error %d at %zu)",
                            p->rule->names[0], number, (size_t)at);
    }
    if (!context)
        status = linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a pre-tokenizer");
    pcre2_compile_context_free(context);
    return status;
}

linnet_status linnet_pretokenizer_create(linnet_text name, linnet_pretokenizer **ret_pretokenizer,
                                         linnet_error *err)
{
    const rule *found = find_rule(name);
    if (!found)
        return linnet_fail(err, LINNET_ERR_UNSUPPORTED,
                           "tokenizer.ggml.pre: '%.*s' is a pre-tokenizer linnet does not know",
                           name.n_bytes > 32 ? 32 : (int)name.n_bytes, name.bytes);
    linnet_pretokenizer *p = calloc(1, sizeof(*p));
    if (p) {
        p->rule = found;
        p->memory = pcre2_general_context_create(take_memory, free_memory, NULL);
    }
    linnet_status status = p && p->memory
                               ? compile(p, err)
                               : linnet_fail(err, LINNET_ERR_NOMEM, "no memory for a pre-tokenizer");
    if (status != LINNET_OK) {
        linnet_pretokenizer_destroy(p);
        return status;
    }
    *ret_pretokenizer = p;
    return LINNET_OK;
}

void linnet_pretokenizer_destroy(linnet_pretokenizer *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < EXPRESSIONS_MAX; i++)
        pcre2_code_free(p->codes[i]);
    pcre2_general_context_free(p->memory);
    free(p);
}

bool linnet_pretokenizer_takes_whole(const linnet_pretokenizer *p)
{
    return p->rule->takes_whole;
}

bool linnet_pretokenizer_adds_begin(const linnet_pretokenizer *p)
{
    return p->rule->adds_begin;
}

/* ---- cutting ---- */

/* What one call needs of its own. */
typedef struct cutter {
    pcre2_code *const *codes;
    pcre2_match_data *match;
    pcre2_match_context *limits;
    linnet_piece_fn *take;
    void *context;
} cutter;

/* Search from `start`; *ret_found false: there is nothing more. */
static linnet_status search(cutter *c, const pcre2_code *code, const char *text, size_t n_bytes, size_t start,
                            bool *ret_found)
{
    uint32_t options = PCRE2_NO_UTF_CHECK; /* checked already */
    int got = pcre2_match(code, (PCRE2_SPTR)text, n_bytes, start, options, c->match, c->limits);
    if (got == PCRE2_ERROR_JIT_STACKLIMIT)
        got =
            pcre2_match(code, (PCRE2_SPTR)text, n_bytes, start, options | PCRE2_NO_JIT, c->match, c->limits);
    *ret_found = got > 0;
    if (got > 0 || got == PCRE2_ERROR_NOMATCH)
        return LINNET_OK;
    return got == PCRE2_ERROR_NOMEMORY ? LINNET_ERR_NOMEM : LINNET_ERR_LIMIT;
}

/* Cut by expression `level` and those behind it. The expressions are six at most, and so is the depth. */
static linnet_status cut_by(cutter *c, size_t level, const char *text,
                            size_t n_bytes) /* NOLINT(misc-no-recursion) */
{
    if (n_bytes == 0)
        return LINNET_OK;
    const pcre2_code *code = level < EXPRESSIONS_MAX ? c->codes[level] : NULL;
    if (!code)
        return c->take(c->context, text, n_bytes);
    for (size_t at = 0; at < n_bytes;) {
        bool found;
        linnet_status status = search(c, code, text, n_bytes, at, &found);
        if (status != LINNET_OK)
            return status;
        const PCRE2_SIZE *range = pcre2_get_ovector_pointer(c->match);
        size_t first = found ? range[0] : n_bytes, end = found ? range[1] : n_bytes;
        status = cut_by(c, level + 1, text + at, first - at);
        if (status == LINNET_OK)
            status = cut_by(c, level + 1, text + first, end - first);
        if (status != LINNET_OK)
            return status;
        at = end;
    }
    return LINNET_OK;
}

/* Bytes at the start of a text that are UTF-8. */
static size_t valid_bytes(const char *text, size_t n_bytes)
{
    size_t at = 0;
    for (size_t length = 1; at < n_bytes && length > 0; at += length) {
        uint64_t eight;
        for (; n_bytes - at > sizeof(eight); at += sizeof(eight)) {
            memcpy(&eight, text + at, sizeof(eight));
            if (eight & 0x8080808080808080u)
                break;
        }
        length = linnet_utf8_sequence(text + at, n_bytes - at);
    }
    return at;
}

static size_t invalid_bytes(const char *text, size_t n_bytes)
{
    size_t at = 0;
    while (at < n_bytes && linnet_utf8_sequence(text + at, n_bytes - at) == 0)
        at++;
    return at;
}

linnet_status linnet_pretokenizer_cut(const linnet_pretokenizer *p, const char *text, size_t n_bytes,
                                      linnet_piece_fn *take, void *context)
{
    cutter c = {.codes = p->codes, .take = take, .context = context};
    linnet_status status = LINNET_ERR_NOMEM;
    c.match = pcre2_match_data_create(1, p->memory);
    c.limits = pcre2_match_context_create(p->memory);
    if (c.match && c.limits) {
        /* A match takes steps in proportion to the text, for no expression nests one repetition in another.
         */
        size_t n_steps = n_bytes > UINT32_MAX / 16 ? UINT32_MAX / 16 : n_bytes;
        pcre2_set_match_limit(c.limits, (uint32_t)n_steps * 8 + 10000);
        pcre2_set_depth_limit(c.limits, 1000);
        status = LINNET_OK;
    }
    for (size_t at = 0; at < n_bytes && status == LINNET_OK;) {
        size_t n_valid = valid_bytes(text + at, n_bytes - at);
        status = cut_by(&c, 0, text + at, n_valid);
        at += n_valid;
        size_t n_invalid = status == LINNET_OK ? invalid_bytes(text + at, n_bytes - at) : 0;
        if (n_invalid > 0)
            status = take(context, text + at, n_invalid);
        at += n_invalid;
    }
    pcre2_match_data_free(c.match);
    pcre2_match_context_free(c.limits);
    return status;
}
