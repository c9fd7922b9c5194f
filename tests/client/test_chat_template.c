/* SPDX-License-Identifier: Apache-2.0 */
/* Conversations in every family's format, against the families' own templates
 * (tests/reference/chat_templates.py), and what becomes of them as ids. */
#include "linnet/dataset.h"

#include "client/client_fixture.h"
#include "client/tiny_tokenizer.h"
#include "client/train/chat_template.h"

#include <jansson.h>

/* A conversation as text, with the pieces of the begin and end tokens. */
typedef struct written {
    const linnet_chat_family *family;
    const char *begin, *end;
    linnet_buffer text;
    size_t n_answered; /* where the last answer ends */
} written;

static linnet_status write_part(void *context, linnet_chat_part_kind kind, linnet_text text,
                                linnet_error *err)
{
    written *w = context;
    (void)err;
    linnet_buffer_append(&w->text, text.bytes, text.n_bytes);
    if (kind == LINNET_CHAT_BEGIN)
        linnet_buffer_append_text(&w->text, w->begin);
    if (kind == LINNET_CHAT_END || (kind == LINNET_CHAT_TURN_END && !w->family->end_of_turn))
        linnet_buffer_append_text(&w->text, w->end);
    else if (kind == LINNET_CHAT_TURN_END)
        linnet_buffer_append_text(&w->text, w->family->end_of_turn);
    if (kind == LINNET_CHAT_TURN_END)
        w->n_answered = w->text.n_bytes;
    return LINNET_OK;
}

static size_t read_messages(const json_t *from, linnet_message *messages, size_t n_max)
{
    size_t n = json_array_size(from);
    assert_true(n <= n_max);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(from, i);
        messages[i].role = strdup(json_string_value(json_object_get(item, "role")));
        messages[i].content = strdup(json_string_value(json_object_get(item, "content")));
        assert_non_null(messages[i].role);
        assert_non_null(messages[i].content);
    }
    return n;
}

/* A prompt is the whole text; of a record all that counts and what stands in front of it. */
static void expect_text(const char *name, const json_t *family, const json_t *test)
{
    const char *template = json_string_value(json_object_get(family, "template"));
    const char *want = json_string_value(json_object_get(test, "text"));
    bool prompt = json_is_true(json_object_get(test, "prompt"));
    linnet_message messages[8];
    linnet_error err = {0};
    written w = {.begin = json_string_value(json_object_get(family, "begin")),
                 .end = json_string_value(json_object_get(family, "end"))};
    size_t n = read_messages(json_object_get(test, "messages"), messages, ARRAY_LEN(messages));
    w.family = linnet_chat_family_find((linnet_text){template, strlen(template)});
    if (!w.family || strcmp(w.family->name, name) != 0)
        fail_msg("%s: the template is taken for '%s'", name, w.family ? w.family->name : "none");
    must(linnet_chat_render(w.family, messages, n, prompt, write_part, &w, &err), &err);
    size_t n_got = prompt ? w.text.n_bytes : w.n_answered;
    assert_true(n_got > 0);
    if ((prompt && n_got != strlen(want)) || strncmp(want, (const char *)w.text.bytes, n_got) != 0)
        fail_msg("%s: got '%.*s', want '%s'", name, (int)n_got, (const char *)w.text.bytes, want);
    for (size_t i = 0; i < n; i++) {
        free(messages[i].role);
        free(messages[i].content);
    }
    linnet_buffer_release(&w.text);
}

static void conversations_read_as_the_families_templates_write_them(void **state)
{
    (void)state;
    json_t *root = json_load_file(LINNET_VECTORS "/chat-templates.json", 0, NULL);
    const json_t *families = json_object_get(root, "families");
    size_t n_texts = 0;
    assert_true(json_array_size(families) >= 24);
    for (size_t i = 0; i < json_array_size(families); i++) {
        const json_t *family = json_array_get(families, i);
        const json_t *cases = json_object_get(family, "cases");
        for (size_t k = 0; k < json_array_size(cases); k++, n_texts++)
            expect_text(json_string_value(json_object_get(family, "name")), family, json_array_get(cases, k));
    }
    assert_true(n_texts >= 150);
    json_decref(root);
}

static void a_system_without_a_user_is_not_lost(void **state)
{
    (void)state;
    static char system[] = "system", user[] = "user", assistant[] = "assistant", a[] = "A", b[] = "B",
                c[] = "C";
    static const struct {
        const char *template;
        linnet_message messages[3];
        size_t n;
        const char *want;
    } cases[] = {
        {"<start_of_turn>",
         {{system, a}},
         1,
         "<start_of_turn>user\nA\n\n<end_of_turn>\n<start_of_turn>model\n"},
        {"<start_of_turn>",
         {{system, a}, {system, b}, {user, c}},
         3,
         "<start_of_turn>user\nA\n\nB\n\nC<end_of_turn>\n<start_of_turn>model\n"},
        {"[AVAILABLE_TOOLS] \"[INST]\"",
         {{user, a}, {assistant, b}, {system, c}},
         3,
         "[INST]A[/INST]B</s>[INST]C\n\n[/INST]"},
        {"", {{system, a}, {user, b}}, 2, "A\nB\n"},
        {"<|im_start|>",
         {{user, a}, {system, b}},
         2,
         "<|im_start|>user\nA<|im_end|>\n<|im_start|>system\nB<|im_end|>\n<|im_start|>assistant\n"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_error err = {0};
        written w = {.begin = "<s>", .end = "</s>"};
        w.family = linnet_chat_family_find((linnet_text){cases[i].template, strlen(cases[i].template)});
        assert_non_null(w.family);
        must(linnet_chat_render(w.family, cases[i].messages, cases[i].n, true, write_part, &w, &err), &err);
        linnet_buffer_append_u8(&w.text, 0);
        assert_string_equal((const char *)w.text.bytes, cases[i].want);
        linnet_buffer_release(&w.text);
    }
}

static void other_templates_are_of_no_family(void **state)
{
    (void)state;
    static const char *const templates[] = {"{{ something }}", "USER:", "<|im_end|>", " ",
                                            "<|user|>{{ x }}<|assistant|>"};
    for (size_t i = 0; i < ARRAY_LEN(templates); i++)
        assert_null(linnet_chat_family_find((linnet_text){templates[i], strlen(templates[i])}));
}

/* " 5 6* 7*" of a record's ids, what counts with a star. */
static void expect_ids(const tiny *v, const char *line, const char *want)
{
    linnet_buffer bytes = {0}, got = {0};
    linnet_record record = {0};
    linnet_tokens tokens = {0};
    linnet_error err = {0};
    linnet_encoding encoding = {.context_tokens = 200, .end_token = true};
    opened o = open_tiny(v, &bytes);
    must(linnet_record_parse(line, strlen(line), &record, &err), &err);
    must(linnet_record_encode(&record, o.tokenizer, &encoding, &tokens, &err), &err);
    for (size_t i = 0; i < tokens.n_ids; i++)
        linnet_buffer_append_format(&got, " %d%s", (int)tokens.ids[i], tokens.counted[i] ? "*" : "");
    linnet_buffer_append_u8(&got, 0);
    if (strcmp((const char *)got.bytes, want) != 0)
        fail_msg("%s: got%s, want%s", v->chat_template, (const char *)got.bytes, want);
    linnet_buffer_release(&got);
    linnet_tokens_release(&tokens);
    linnet_record_release(&record);
    close_tokenizer(&o);
    linnet_buffer_release(&bytes);
}

#define SPACED "\xe2\x96\x81"

static void the_answer_and_the_end_of_its_turn_count(void **state)
{
    (void)state;
    static const tiny_token tokens[] = {
        {"<unk>", 0, 2},   {"<s>", 0, 3},      {"</s>", 0, 3},          {"\n", 0, 1},       {"a", 0, 1},
        {"b", 0, 1},       {SPACED, 0, 1},     {SPACED "a", 1, 1},      {SPACED "b", 1, 1}, {"[INST]", 0, 3},
        {"[/INST]", 0, 3}, {"<|user|>", 0, 3}, {"<|assistant|>", 0, 3}, {"<|end|>", 0, 3},
    };
    static const char line[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},"
                               "{\"role\":\"assistant\",\"content\":\"b\"}]}";
    tiny v = {.tokens = tokens,
              .n_tokens = ARRAY_LEN(tokens),
              .n_scores = ARRAY_LEN(tokens),
              .n_types = ARRAY_LEN(tokens),
              .model = "llama",
              .end = 2,
              .prefix = 1};
    /* One space in front of what follows a special token, whether the format or the tokenizer puts it there.
     */
    v.chat_template = "[AVAILABLE_TOOLS] \"[INST] \"";
    expect_ids(&v, line, " 1 9 7 10 8* 2*");
    v.chat_template = "[AVAILABLE_TOOLS] \"[INST]\"";
    expect_ids(&v, line, " 1 9 7 10 8* 2*");
    v.chat_template = "<|user|> <|end|>";
    expect_ids(&v, line, " 1 11 6 3 4 13 6 3 12 6 3 5* 13*");
    v.name = "Phi-3 mini"; /* its special tokens take the white space behind them */
    expect_ids(&v, line, " 1 11 7 13 12 8* 13*");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conversations_read_as_the_families_templates_write_them),
        cmocka_unit_test(a_system_without_a_user_is_not_lost),
        cmocka_unit_test(other_templates_are_of_no_family),
        cmocka_unit_test(the_answer_and_the_end_of_its_turn_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
