/* SPDX-License-Identifier: Apache-2.0 */
/* JSON Lines into records, records into ids: good and bad lines, the rules of cutting and counting, and the
 * table of FEDERATED-LORA 12.3. */
#include "linnet/dataset.h"

#include "client/client_fixture.h"
#include "client/tiny_tokenizer.h"

#include <unistd.h>

/* ---- lines ---- */

static void a_line_is_one_of_three_forms(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        linnet_record_kind kind;
        const char *text, *completion, *client, *unit;
        size_t n_messages;
    } cases[] = {
        {"{\"text\":\"a\\nb\"}", LINNET_RECORD_TEXT, "a\nb", NULL, NULL, NULL, 0},
        {"{\"text\":\"\",\"client\":\"c-1\",\"n\":[1,{}]}", LINNET_RECORD_TEXT, "", NULL, "c-1", NULL, 0},
        {"{\"unit\":\"p 7\",\"text\":\"a\",\"client\":\"c\"}", LINNET_RECORD_TEXT, "a", NULL, "c", "p 7", 0},
        {" {\"completion\":\"y\",\"prompt\":\"x\"}\r", LINNET_RECORD_COMPLETION, "x", "y", NULL, NULL, 0},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"a\"}]}",
         LINNET_RECORD_MESSAGES, NULL, NULL, NULL, NULL, 2},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_record record = {0};
        linnet_error err = {0};
        must(linnet_record_parse(cases[i].line, strlen(cases[i].line), &record, &err), &err);
        assert_int_equal(record.kind, cases[i].kind);
        assert_int_equal(record.n_messages, cases[i].n_messages);
        const char *const got[] = {record.text, record.completion, record.client, record.unit};
        const char *const want[] = {cases[i].text, cases[i].completion, cases[i].client, cases[i].unit};
        for (size_t j = 0; j < ARRAY_LEN(got); j++) {
            if (want[j])
                assert_string_equal(got[j], want[j]);
            else
                assert_null(got[j]);
        }
        linnet_record_release(&record);
    }
}

static void bad_lines_are_refused_and_never_quoted(void **state)
{
    (void)state;
    static const struct {
        const char *line, *words;
    } cases[] = {
        {"", "JSON"},
        {"{\"text\":\"secret", "JSON"},
        {"{\"text\":\"secret\"} x", "JSON"},
        {"[\"secret\"]", "object"},
        {"\"secret\"", "JSON"},
        {"{\"text\":\"secret\",\"text\":\"b\"}", "JSON"},
        {"{\"text\":\"\\u0000\"}", "JSON"},
        {"{\"text\":\"\xff\"}", "JSON"},
        {"{\"txt\":\"secret\"}", "none of"},
        {"{\"text\":\"secret\",\"messages\":[]}", "more than one"},
        {"{\"text\":\"secret\",\"completion\":\"b\"}", "more than one"},
        {"{\"prompt\":\"secret\"}", "\"completion\" is missing"},
        {"{\"completion\":\"secret\"}", "\"prompt\" is missing"},
        {"{\"text\":7}", "\"text\" is no string"},
        {"{\"text\":null}", "\"text\" is no string"},
        {"{\"text\":\"secret\",\"client\":3}", "\"client\" is no string"},
        {"{\"text\":\"secret\",\"unit\":3}", "\"unit\" is no string"},
        {"{\"messages\":[]}", "\"messages\""},
        {"{\"messages\":\"secret\"}", "\"messages\""},
        {"{\"messages\":[7]}", "message 1"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"tool\",\"content\":\"secret\"}]}",
         "message 2"},
        {"{\"messages\":[{\"role\":\"user\"}]}", "message 1: \"content\""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_record record = {.line = 99};
        linnet_error err = {0};
        linnet_status got = linnet_record_parse(cases[i].line, strlen(cases[i].line), &record, &err);
        if (got != LINNET_ERR_FORMAT || !strstr(err.message, cases[i].words) || strstr(err.message, "secret"))
            fail_msg("%s: got %d '%s'", cases[i].line, (int)got, err.message);
        assert_int_equal(record.line, 99); /* untouched */
    }
}

/* ---- files ---- */

static char data_path[] = "/tmp/linnet-test-data-XXXXXX";

static const char *data_file(const char *bytes, size_t n_bytes)
{
    linnet_error err = {0};
    (void)strcpy(data_path, "/tmp/linnet-test-data-XXXXXX");
    int fd = mkstemp(data_path);
    assert_true(fd >= 0);
    (void)close(fd);
    must(linnet_file_write(data_path, bytes, n_bytes, 0600, &err), &err);
    return data_path;
}

static void a_file_gives_records_with_their_line_numbers(void **state)
{
    (void)state;
    static const char text[] = "{\"text\":\"a\"}\n{\"text\":\"b\"}\n{\"text\":\"c\"}\n\n \n";
    linnet_dataset *d = NULL;
    linnet_error err = {0};
    must(linnet_dataset_load(data_file(text, strlen(text)), false, &d, &err), &err);
    (void)unlink(data_path);
    assert_int_equal(d->n_records, 3);
    assert_int_equal(d->n_skipped, 0);
    assert_string_equal(d->records[2].text, "c");
    assert_int_equal(d->records[2].line, 3);
    linnet_dataset_destroy(d);
}

static void a_bad_line_names_its_file_and_number_or_is_counted(void **state)
{
    (void)state;
    static const struct {
        const char *text, *place;
        size_t n_good, n_skipped;
    } cases[] = {
        {"{\"text\":\"a\"}\n{\"text\":\n{\"text\":\"c\"}\n", ":2: ", 2, 1},
        {"{\"text\":\"a\"}\n\n\n{\"text\":\"c\"}\n", ":2: ", 2, 2},
        {"{\"text\":\"a\"}\n{\"text\":\"b\"}\n{\"te", ":3: ", 2, 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_dataset *d = NULL;
        linnet_error err = {0};
        const char *path = data_file(cases[i].text, strlen(cases[i].text));
        assert_int_equal(linnet_dataset_load(path, false, &d, &err), LINNET_ERR_FORMAT);
        assert_null(d);
        assert_ptr_equal(strstr(err.message, path), err.message);
        assert_ptr_equal(strstr(err.message, cases[i].place), err.message + strlen(path));
        must(linnet_dataset_load(path, true, &d, &err), &err);
        (void)unlink(path);
        assert_int_equal(d->n_records, cases[i].n_good);
        assert_int_equal(d->n_skipped, cases[i].n_skipped);
        linnet_dataset_destroy(d);
    }
}

static void files_without_records_and_endless_lines_are_refused(void **state)
{
    (void)state;
    linnet_dataset *d = NULL;
    linnet_error err = {0};
    assert_int_equal(linnet_dataset_load("/nonexistent/x.jsonl", false, &d, &err), LINNET_ERR_NOT_FOUND);
    assert_int_equal(linnet_dataset_load(data_file("\n\n", 2), false, &d, &err), LINNET_ERR_FORMAT);
    (void)unlink(data_path);
    char *endless = malloc(LINNET_RECORD_BYTES_MAX + 100);
    assert_non_null(endless);
    memset(endless, 'x', LINNET_RECORD_BYTES_MAX + 100);
    assert_int_equal(linnet_dataset_load(data_file(endless, LINNET_RECORD_BYTES_MAX + 100), false, &d, &err),
                     LINNET_ERR_LIMIT);
    assert_non_null(strstr(err.message, ":1: "));
    (void)unlink(data_path);
    free(endless);
}

/* ---- ids ---- */

/* The ids of a line as " 1 14* 2*": a star behind those that count. */
static void expect_ids(const tiny *v, const char *line, uint32_t context, bool end_token, const char *want)
{
    linnet_buffer bytes = {0}, got = {0};
    linnet_record record = {0};
    linnet_tokens tokens = {0};
    linnet_error err = {0};
    linnet_encoding encoding = {.context_tokens = context, .end_token = end_token};
    opened o = open_tiny(v, &bytes);
    size_t n_counted = 0;
    must(linnet_record_parse(line, strlen(line), &record, &err), &err);
    must(linnet_record_encode(&record, o.tokenizer, &encoding, &tokens, &err), &err);
    for (size_t i = 0; i < tokens.n_ids; i++) {
        linnet_buffer_append_format(&got, " %d%s", (int)tokens.ids[i], tokens.counted[i] ? "*" : "");
        n_counted += tokens.counted[i];
    }
    linnet_buffer_append_u8(&got, 0);
    if (strcmp((const char *)got.bytes, want) != 0)
        fail_msg("%s in %u: got%s, want%s", line, (unsigned)context, (const char *)got.bytes, want);
    assert_int_equal(tokens.n_counted, n_counted);
    linnet_tokens_release(&tokens);
    linnet_record_release(&record);
    linnet_buffer_release(&got);
    close_tokenizer(&o);
    linnet_buffer_release(&bytes);
}

/* In the tiny vocabulary: 1 begin, 2 end, 3 newline, 4 a, 5 b, 6 c, 7 ab, 11 x, 14 " a"; a prefix is
 * added. */
static void records_become_ids_and_are_cut_by_the_rules(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        uint32_t context;
        bool end_token;
        const char *want;
    } cases[] = {
        {"{\"text\":\"acab\"}", 99, true, " 1 14* 6* 7* 2*"},
        {"{\"text\":\"acab\"}", 99, false, " 1 14* 6* 7*"},
        {"{\"text\":\"acab\"}", 3, true, " 1 14* 6*"},
        {"{\"text\":\"\"}", 99, true, " 1 2*"},
        {"{\"prompt\":\"ac\",\"completion\":\"ab\"}", 99, true, " 1 14 6 7* 2*"},
        {"{\"prompt\":\"a\",\"completion\":\"b\"}", 99, true, " 1 14 5* 2*"}, /* apart: not "ab" */
        {"{\"prompt\":\"\",\"completion\":\"b\"}", 99, false, " 1 5*"},
        {"{\"prompt\":\"acx\",\"completion\":\"xb\"}", 5, true,
         " 1 11 11* 5* 2*"}, /* prompt cut on its left */
        {"{\"prompt\":\"acx\",\"completion\":\"xcxcxc\"}", 8, true,
         " 1 11 11* 6* 11* 6* 11* 6*"}, /* three quarters */
        {"{\"prompt\":\"a\",\"completion\":\"xcxcxc\"}", 9, true,
         " 1 14 11* 6* 11* 6* 11* 6* 2*"}, /* fits: not cut */
        {"{\"prompt\":\"acx\",\"completion\":\"xcx\"}", 2, false, " 1 11*"},
    };
    tiny v = tiny_base;
    v.prefix = 1;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        expect_ids(&v, cases[i].line, cases[i].context, cases[i].end_token, cases[i].want);
}

#define USER(text) "{\"role\":\"user\",\"content\":\"" text "\"}"
#define ASSISTANT(text) "{\"role\":\"assistant\",\"content\":\"" text "\"}"
#define SYSTEM(text) "{\"role\":\"system\",\"content\":\"" text "\"}"

static void messages_without_a_template_are_joined_by_newlines(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        uint32_t context;
        bool end_token;
        const char *want;
    } cases[] = {
        {"{\"messages\":[" USER("a") "," ASSISTANT("b") "]}", 99, true, " 1 14 3 5* 2*"},
        {"{\"messages\":[" USER("a") "," ASSISTANT("b") "," USER("c") "," ASSISTANT("x") "]}", 99, false,
         " 1 14 3 5* 3 6 3 11*"},
        {"{\"messages\":[" SYSTEM("x") "," USER("a") "," ASSISTANT("b") "," USER("c") "]}", 99, true,
         " 1 13 11 3 4 3 5* 2*"}, /* what follows the last answer is left out */
        {"{\"messages\":[" ASSISTANT("a") "]}", 99, true, " 1 14* 2*"},
        {"{\"messages\":[" USER("a") "]}", 99, true, ""},
        {"{\"messages\":[" USER("a") "," ASSISTANT("b") "," USER("c") "," ASSISTANT("x") "]}", 5, false,
         " 1 3 6 3 11*"}, /* cut on the left, the last answer stays */
        {"{\"messages\":[" USER("a") "," ASSISTANT("xcxcxc") "]}", 4, true, " 1 11* 6* 11*"},
    };
    tiny v = tiny_base;
    v.prefix = 1;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        expect_ids(&v, cases[i].line, cases[i].context, cases[i].end_token, cases[i].want);
}

static void a_template_frames_messages_with_its_special_tokens(void **state)
{
    (void)state;
    static const tiny_token tokens[] = {
        {"<unk>", 0, 2},      {"<s>", 0, 3},
        {"</s>", 0, 3},       {"\n", 0, 1},
        {"a", 0, 1},          {"b", 0, 1},
        {"user", 0, 1},       {"<|im_start|>", 0, 3},
        {"<|im_end|>", 0, 3}, {"us", 0, 1},
        {"er", 0, 1},         {"u", 0, 1},
        {"s", 0, 1},          {"e", 0, 1},
        {"r", 0, 1},          {"<|user|>", 0, 3},
        {"<|end|>", 0, 3},    {"<|assistant|>", 0, 3},
    };
    tiny v = {.tokens = tokens,
              .n_tokens = ARRAY_LEN(tokens),
              .n_scores = ARRAY_LEN(tokens),
              .n_types = ARRAY_LEN(tokens),
              .model = "llama",
              .end = 2,
              .chat_template = "{{<|im_start|>}}"};
    expect_ids(&v, "{\"messages\":[" USER("a") "]}", 99, true, "");
    /* "assistant" has no pieces here: nine letters, of which "s" and "a" are known. */
    expect_ids(&v, "{\"messages\":[" USER("a") "," ASSISTANT("b") "]}", 99, true,
               " 1 7 6 3 4 8 3 7 4 12 12 0 12 0 4 0 0 3 5* 8*");
    v.chat_template = "{{'<|user|>' ... '<|end|>'}}";
    expect_ids(&v, "{\"messages\":[" USER("a") "," ASSISTANT("b") "," USER("a") "," ASSISTANT("a") "]}", 99,
               true, " 1 15 3 4 16 3 17 3 5* 16* 3 15 3 4 16 3 17 3 4* 16*");
    /* What a user writes never becomes a special token. */
    expect_ids(&v, "{\"messages\":[" USER("<|end|>") "," ASSISTANT("b") "]}", 99, false,
               " 1 15 3 0 0 13 0 0 0 0 16 3 17 3 5*");
}

static void an_unknown_template_is_refused_for_messages_alone(void **state)
{
    (void)state;
    static const char chat[] = "{\"messages\":[" USER("a") "," ASSISTANT("b") "]}";
    tiny v = tiny_base;
    v.chat_template = "{{ something\nelse }}";
    linnet_buffer bytes = {0};
    linnet_record record = {0};
    linnet_tokens tokens = {0};
    linnet_error err = {0};
    linnet_encoding encoding = {.context_tokens = 99};
    opened o = open_tiny(&v, &bytes);
    must(linnet_record_parse(chat, strlen(chat), &record, &err), &err);
    assert_int_equal(linnet_record_encode(&record, o.tokenizer, &encoding, &tokens, &err),
                     LINNET_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "something"));
    assert_null(strchr(err.message, '\n'));
    linnet_record_release(&record);
    close_tokenizer(&o);
    linnet_buffer_release(&bytes);
    expect_ids(&v, "{\"text\":\"a\"}", 99, true, " 1 4* 2*");
}

static void a_conversation_is_encoded_up_to_where_the_assistant_speaks(void **state)
{
    (void)state;
    static char user[] = "user", assistant[] = "assistant", a[] = "a", b[] = "b", c[] = "c";
    const linnet_message messages[] = {{user, a}, {assistant, b}, {user, c}};
    static const int32_t want[] = {1, 4, 3, 5, 2, 3, 6, 3};
    linnet_buffer bytes = {0};
    linnet_ids ids = {0};
    linnet_error err = {0};
    int32_t end = -1;
    opened o = open_tiny(&tiny_base, &bytes);
    must(linnet_chat_encode(messages, 3, o.tokenizer, &ids, &end, &err), &err);
    assert_int_equal(ids.n_items, ARRAY_LEN(want));
    assert_memory_equal(ids.items, want, sizeof(want));
    assert_int_equal(end, 2);
    linnet_ids_release(&ids);
    close_tokenizer(&o);
    linnet_buffer_release(&bytes);
}

static void records_without_a_counted_token_are_left_out_of_a_set(void **state)
{
    (void)state;
    static const char text[] =
        "{\"text\":\"\"}\n{\"text\":\"ac\"}\n{\"text\":\"a\"}\n{\"prompt\":\"a\",\"completion\":\"\"}\n";
    static const size_t some[] = {3, 1};
    linnet_buffer bytes = {0};
    linnet_dataset *d = NULL;
    linnet_token_set *all = NULL, *two = NULL;
    linnet_error err = {0};
    linnet_encoding encoding = {.context_tokens = 99};
    opened o = open_tiny(&tiny_base, &bytes);
    must(linnet_dataset_load(data_file(text, strlen(text)), false, &d, &err), &err);
    (void)unlink(data_path);
    must(linnet_token_set_create(d, NULL, 0, o.tokenizer, &encoding, &all, &err), &err);
    must(linnet_token_set_create(d, some, 2, o.tokenizer, &encoding, &two, &err), &err);
    assert_int_equal(all->n_items, 2);
    assert_int_equal(all->n_empty, 2);
    assert_int_equal(all->n_counted, 3);
    assert_int_equal(two->n_items, 1);
    assert_int_equal(two->n_counted, 2);
    encoding.context_tokens = 1;
    linnet_token_set *none = NULL;
    assert_int_equal(linnet_token_set_create(d, NULL, 0, o.tokenizer, &encoding, &none, &err),
                     LINNET_ERR_ARG);
    assert_null(none);
    linnet_token_set_destroy(all);
    linnet_token_set_destroy(two);
    linnet_dataset_destroy(d);
    close_tokenizer(&o);
    linnet_buffer_release(&bytes);
}

static void records_of_one_unit_share_a_number(void **state)
{
    (void)state;
    static const char text[] = "{\"text\":\"ac\",\"unit\":\"q\"}\n{\"text\":\"ac\"}\n"
                               "{\"text\":\"ac\",\"unit\":\"p\"}\n{\"text\":\"\",\"unit\":\"r\"}\n"
                               "{\"text\":\"ac\"}\n{\"text\":\"ca\",\"unit\":\"q\"}\n"
                               "{\"text\":\"ca\",\"unit\":\"\"}\n{\"text\":\"ca\",\"unit\":\"p\"}\n";
    static const size_t some[] = {7, 5, 3, 2, 4}, want_all[] = {0, 1, 2, 3, 0, 4, 2},
                        want_some[] = {0, 1, 0, 2}; /* r has nothing to learn */
    linnet_buffer bytes = {0};
    linnet_dataset *d = NULL;
    linnet_token_set *all = NULL, *few = NULL;
    linnet_error err = {0};
    linnet_encoding encoding = {.context_tokens = 99};
    opened o = open_tiny(&tiny_base, &bytes);
    must(linnet_dataset_load(data_file(text, strlen(text)), false, &d, &err), &err);
    (void)unlink(data_path);
    must(linnet_token_set_create(d, NULL, 0, o.tokenizer, &encoding, &all, &err), &err);
    must(linnet_token_set_create(d, some, ARRAY_LEN(some), o.tokenizer, &encoding, &few, &err), &err);
    assert_int_equal(all->n_items, ARRAY_LEN(want_all));
    assert_int_equal(all->n_units, 5);
    assert_memory_equal(all->units, want_all, sizeof(want_all));
    assert_int_equal(few->n_items, ARRAY_LEN(want_some));
    assert_int_equal(few->n_units, 3);
    assert_memory_equal(few->units, want_some, sizeof(want_some));
    linnet_token_set_destroy(all);
    linnet_token_set_destroy(few);
    linnet_dataset_destroy(d);
    close_tokenizer(&o);
    linnet_buffer_release(&bytes);
}

/* ---- FEDERATED-LORA 12.3 ---- */

/* Counted tokens of a client's records; of every stride-th of them, and how many those are. */
static size_t client_tokens(const linnet_dataset *d, const linnet_tokenizer *t, const char *client,
                            size_t n_wanted, size_t *ret_n_records)
{
    size_t n = 0, n_taken = 0, n_seen = 0, n_tokens;
    size_t *indices = calloc(d->n_records, sizeof(*indices));
    linnet_token_set *set = NULL;
    linnet_error err = {0};
    linnet_encoding encoding = {.context_tokens = 256, .end_token = false};
    assert_non_null(indices);
    for (size_t i = 0; i < d->n_records; i++)
        n += strcmp(d->records[i].client, client) == 0;
    size_t stride = (n + n_wanted - 1) / n_wanted;
    for (size_t i = 0; i < d->n_records; i++) {
        if (strcmp(d->records[i].client, client) == 0 && n_seen++ % stride == 0)
            indices[n_taken++] = i;
    }
    must(linnet_token_set_create(d, indices, n_taken, t, &encoding, &set, &err), &err);
    *ret_n_records = n_taken;
    n_tokens = set->n_counted;
    linnet_token_set_destroy(set);
    free(indices);
    return n_tokens;
}

static void the_clinics_have_the_tokens_of_the_reference_table(void **state)
{
    (void)state;
    static const struct {
        const char *client;
        size_t train_records, train_tokens, test_records, test_tokens;
    } want[] = {
        {"fam-sochx", 351, 15128, 31, 1617},    {"genhx", 282, 43677, 30, 4344},
        {"pastmedicalhx", 118, 5539, 23, 1290}, {"cc", 77, 1375, 24, 334},
        {"pastsurgical", 63, 1761, 15, 368},    {"allergy", 60, 674, 20, 236},
    };
    char path[512];
    linnet_gguf *gguf = NULL;
    linnet_tokenizer *tokenizer = NULL;
    linnet_dataset *train = NULL, *test = NULL;
    linnet_error err = {0};
    must(linnet_gguf_open(shared_path("models/stories3M-Q8_0.gguf", path), &gguf, &err), &err);
    must(linnet_tokenizer_create(gguf, &tokenizer, &err), &err);
    must(linnet_dataset_load(shared_path("data/clinic-notes/train.jsonl", path), false, &train, &err), &err);
    must(linnet_dataset_load(shared_path("data/clinic-notes/test.jsonl", path), false, &test, &err), &err);
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        size_t n_train = 0, n_test = 0;
        size_t train_tokens = client_tokens(train, tokenizer, want[i].client, SIZE_MAX / 2, &n_train);
        size_t test_tokens = client_tokens(test, tokenizer, want[i].client, 40, &n_test);
        if (n_train != want[i].train_records || train_tokens != want[i].train_tokens ||
            n_test != want[i].test_records || test_tokens != want[i].test_tokens)
            fail_msg("%s: %zu records of %zu tokens, %zu of %zu", want[i].client, n_train, train_tokens,
                     n_test, test_tokens);
    }
    linnet_dataset_destroy(train);
    linnet_dataset_destroy(test);
    linnet_tokenizer_destroy(tokenizer);
    linnet_gguf_close(gguf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_one_of_three_forms),
        cmocka_unit_test(bad_lines_are_refused_and_never_quoted),
        cmocka_unit_test(a_file_gives_records_with_their_line_numbers),
        cmocka_unit_test(a_bad_line_names_its_file_and_number_or_is_counted),
        cmocka_unit_test(files_without_records_and_endless_lines_are_refused),
        cmocka_unit_test(records_become_ids_and_are_cut_by_the_rules),
        cmocka_unit_test(messages_without_a_template_are_joined_by_newlines),
        cmocka_unit_test(a_template_frames_messages_with_its_special_tokens),
        cmocka_unit_test(an_unknown_template_is_refused_for_messages_alone),
        cmocka_unit_test(a_conversation_is_encoded_up_to_where_the_assistant_speaks),
        cmocka_unit_test(records_without_a_counted_token_are_left_out_of_a_set),
        cmocka_unit_test(records_of_one_unit_share_a_number),
        cmocka_unit_test(the_clinics_have_the_tokens_of_the_reference_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
