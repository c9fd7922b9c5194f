/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints as transformers saves them (tests/reference/checkpoints.py): ids, logits and losses are those
 * of tokenizers and transformers, and a GGUF file made of one gives the same. */
#include <math.h>
#include <unistd.h>

#include "crypto/vectors.h"
#include "linnet/model.h"
#include "linnet/quantize.h"
#include "linnet/tokenizer.h"

enum { IDS_MAX = 64 };
#define TOLERANCE 1e-4

static const char *const kinds[] = {"llama", "qwen2", "bert"};
static linnet_error err;

static const char *folder_of(const char *kind)
{
    static char path[512];
    (void)snprintf(path, sizeof(path), "%s/checkpoints/%s", LINNET_VECTORS, kind);
    return path;
}

static json_t *expected_of(const char *kind)
{
    char name[64];
    (void)snprintf(name, sizeof(name), "checkpoints/%s/expected.json", kind);
    return vectors_load(name);
}

static size_t ids_of(const json_t *list, int32_t ids[IDS_MAX])
{
    size_t n = json_array_size(list);
    assert_in_range(n, 1, IDS_MAX);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return n;
}

static void check(const char *what, size_t i, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s %zu is %.9g, want %.9g", what, i, got, want);
}

static void check_label_logits(const linnet_model *model, const json_t *wanted, const int32_t *ids, size_t n,
                               double tolerance)
{
    linnet_arena *arena = NULL;
    const float *logits = NULL;
    assert_ok(linnet_arena_create(model, NULL, IDS_MAX, false, &arena, &err), &err);
    assert_ok(linnet_arena_classify(arena, NULL, ids, n, &logits, &err), &err);
    assert_int_equal(json_array_size(wanted), linnet_model_n_labels(model));
    for (size_t i = 0; i < json_array_size(wanted); i++)
        check("logit", i, logits[i], json_number_value(json_array_get(wanted, i)), tolerance);
    linnet_arena_destroy(arena);
}

static void check_logits(const linnet_model *model, const json_t *expected, double tolerance)
{
    const json_t *wanted = json_object_get(expected, "logits");
    int32_t ids[IDS_MAX];
    size_t n = ids_of(json_object_get(expected, "ids"), ids);
    linnet_session *session = NULL;
    const float *logits = NULL;
    if (linnet_model_is_encoder(model)) {
        check_label_logits(model, wanted, ids, n, tolerance);
        return;
    }
    assert_ok(linnet_session_create(model, NULL, IDS_MAX, &session, &err), &err);
    assert_ok(linnet_session_feed(session, ids, n, &logits, &err), &err);
    assert_int_equal(json_array_size(wanted), linnet_model_shape_of(model)->vocabulary);
    for (size_t i = 0; i < json_array_size(wanted); i++)
        check("logit", i, logits[i], json_number_value(json_array_get(wanted, i)), tolerance);
    linnet_session_destroy(session);
}

static void check_losses(const linnet_model *model, const json_t *expected, double tolerance)
{
    const json_t *wanted = json_object_get(expected, "losses");
    int32_t ids[IDS_MAX];
    uint8_t counted[IDS_MAX];
    float each[IDS_MAX];
    double sum = 0;
    size_t n = ids_of(json_object_get(expected, "ids"), ids), n_counted = 0;
    linnet_arena *arena = NULL;
    memset(counted, 1, sizeof(counted));
    bool has_label = json_object_get(expected, "label") != NULL;
    const linnet_sequence sequence = {.ids = ids,
                                      .counted = counted,
                                      .n_ids = n,
                                      .has_label = has_label,
                                      .label = has_label ? (uint32_t)vector_integer(expected, "label") : 0};
    assert_ok(linnet_arena_create(model, NULL, IDS_MAX, false, &arena, &err), &err);
    assert_ok(linnet_arena_score(arena, NULL, &sequence, &sum, &n_counted, each, &err), &err);
    assert_int_equal(n_counted, has_label ? 1 : n - 1);
    for (size_t i = 0; i < n_counted; i++)
        check("loss", i, each[has_label ? 0 : i + 1], json_number_value(json_array_get(wanted, i)),
              tolerance);
    linnet_arena_destroy(arena);
}

static void logits_and_losses_are_those_of_transformers(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        json_t *expected = expected_of(kinds[k]);
        linnet_model *model = NULL;
        assert_ok(linnet_model_open(folder_of(kinds[k]), &model, &err), &err);
        assert_string_equal(linnet_model_architecture(model), kinds[k]);
        check_logits(model, expected, TOLERANCE);
        check_losses(model, expected, TOLERANCE);
        linnet_model_close(model);
        json_decref(expected);
    }
}

static void check_texts(const linnet_gguf *gguf, const json_t *texts)
{
    linnet_tokenizer *tokenizer = NULL;
    assert_ok(linnet_tokenizer_create(gguf, &tokenizer, &err), &err);
    assert_true(json_array_size(texts) >= 6);
    for (size_t i = 0; i < json_array_size(texts); i++) {
        const char *text = vector_text(json_array_get(texts, i), "text");
        const json_t *wanted = json_object_get(json_array_get(texts, i), "ids");
        linnet_ids ids = {0};
        assert_ok(linnet_tokenize(tokenizer, text, strlen(text),
                                  LINNET_TOKENIZE_PREFIX | LINNET_TOKENIZE_BEGIN | LINNET_TOKENIZE_SPECIAL |
                                      LINNET_TOKENIZE_END,
                                  &ids, &err),
                  &err);
        if (ids.n_items != json_array_size(wanted))
            fail_msg("'%s': %zu ids, want %zu", text, ids.n_items, json_array_size(wanted));
        for (size_t t = 0; t < ids.n_items; t++)
            if (ids.items[t] != json_integer_value(json_array_get(wanted, t)))
                fail_msg("'%s': id %zu is %d", text, t, (int)ids.items[t]);
        linnet_ids_release(&ids);
    }
    linnet_tokenizer_destroy(tokenizer);
}

static void ids_are_those_of_tokenizers(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        json_t *expected = expected_of(kinds[k]);
        linnet_gguf *gguf = NULL;
        assert_ok(linnet_gguf_open(folder_of(kinds[k]), &gguf, &err), &err);
        check_texts(gguf, json_object_get(expected, "texts"));
        linnet_gguf_close(gguf);
        json_decref(expected);
    }
}

static void begin_and_end_come_from_the_checkpoint(void **state)
{
    (void)state;
    linnet_gguf *gguf = NULL;
    linnet_tokenizer *tokenizer = NULL;
    assert_ok(linnet_gguf_open(folder_of("llama"), &gguf, &err), &err);
    assert_ok(linnet_tokenizer_create(gguf, &tokenizer, &err), &err);
    assert_int_equal(linnet_tokenizer_begin(tokenizer), 1);
    assert_int_equal(linnet_tokenizer_end(tokenizer), 2);
    assert_true(linnet_tokenizer_adds_begin(tokenizer));
    linnet_tokenizer_destroy(tokenizer);
    linnet_gguf_close(gguf);
    assert_ok(linnet_gguf_open(folder_of("qwen2"), &gguf, &err), &err);
    assert_ok(linnet_tokenizer_create(gguf, &tokenizer, &err), &err);
    assert_int_equal(linnet_tokenizer_end(tokenizer), linnet_tokenizer_find(tokenizer, "<|end|>"));
    assert_false(linnet_tokenizer_adds_begin(tokenizer));
    assert_true(linnet_text_is(linnet_tokenizer_chat_template(tokenizer),
                               "{% for m in messages %}{{ m.content }}{% endfor %}"));
    linnet_tokenizer_destroy(tokenizer);
    linnet_gguf_close(gguf);
}

/* Weights round to halves, which costs some 1e-3 of a logit here. */
static void a_gguf_file_of_a_checkpoint_computes_the_same(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        char path[] = "/tmp/linnet-checkpoint-XXXXXX";
        json_t *expected = expected_of(kinds[k]);
        linnet_gguf *gguf = NULL;
        linnet_model *model = NULL;
        linnet_quantize_summary summary = {0};
        int fd = mkstemp(path);
        assert_true(fd >= 0);
        (void)close(fd);
        assert_ok(linnet_gguf_open(folder_of(kinds[k]), &gguf, &err), &err);
        assert_ok(linnet_quantize_file(gguf, LINNET_TENSOR_F16, path, &summary, &err), &err);
        assert_ok(linnet_model_open(path, &model, &err), &err);
        check_logits(model, expected, 5e-3);
        check_losses(model, expected, 5e-3);
        check_texts(linnet_model_gguf(model), json_object_get(expected, "texts"));
        linnet_model_close(model);
        linnet_gguf_close(gguf);
        json_decref(expected);
        (void)unlink(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_and_losses_are_those_of_transformers),
        cmocka_unit_test(ids_are_those_of_tokenizers),
        cmocka_unit_test(begin_and_end_come_from_the_checkpoint),
        cmocka_unit_test(a_gguf_file_of_a_checkpoint_computes_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
