/* SPDX-License-Identifier: Apache-2.0 */
/* From text to losses and greedy tokens on every shared model: tokenizer and engine together against
 * llama.cpp (F32 files, where it rounds nothing) and the float64 reference (all files). */
#include "linnet/model.h"
#include "linnet/sampler.h"
#include "linnet/tokenizer.h"

#include "client/client_fixture.h"

#include <jansson.h>
#include <math.h>

#define TOKEN_LOSS_TOLERANCE 1e-4 /* of one token, F32 files, against llama.cpp */
#define MEAN_LOSS_TOLERANCE 5e-5  /* of a text, against the float64 reference */

typedef struct truth {
    const char *file;
    const json_t *json; /* of the file */
    linnet_model *model;
    linnet_tokenizer *tokenizer;
} truth;

static linnet_ids tokenize(const truth *t, const json_t *text)
{
    linnet_ids ids = {0};
    linnet_error err = {0};
    assert_true(json_is_string(text));
    must(linnet_tokenize(t->tokenizer, json_string_value(text), json_string_length(text),
                         LINNET_TOKENIZE_BEGIN | LINNET_TOKENIZE_PREFIX, &ids, &err),
         &err);
    return ids;
}

static void expect_ids(const truth *t, const char *what, const linnet_ids *ids, const json_t *want)
{
    if (ids->n_items != json_array_size(want))
        fail_msg("%s %s: %zu ids, want %zu", t->file, what, ids->n_items, json_array_size(want));
    for (size_t i = 0; i < ids->n_items; i++) {
        if (ids->items[i] != (int32_t)json_integer_value(json_array_get(want, i)))
            fail_msg("%s %s: id %zu is %d", t->file, what, i, (int)ids->items[i]);
    }
}

static void check_losses(const truth *t, const json_t *text, double reference)
{
    linnet_ids ids = tokenize(t, json_object_get(text, "text"));
    linnet_arena *arena = NULL;
    linnet_error err = {0};
    double sum = 0;
    size_t n = 0;
    uint8_t counted[512];
    float each[512];
    const json_t *losses = json_object_get(text, "nll");
    expect_ids(t, "text", &ids, json_object_get(text, "ids"));
    assert_true(ids.n_items <= ARRAY_LEN(counted));
    memset(counted, 1, sizeof(counted));
    linnet_sequence sequence = {.ids = ids.items, .counted = counted, .n_ids = ids.n_items};
    must(linnet_arena_create(t->model, NULL, (uint32_t)ids.n_items, false, &arena, &err), &err);
    must(linnet_arena_score(arena, NULL, &sequence, &sum, &n, each, &err), &err);
    assert_int_equal(n, ids.n_items - 1);
    if (fabs(sum / (double)n - reference) > MEAN_LOSS_TOLERANCE)
        fail_msg("%s: loss %.7f, want %.7f", t->file, sum / (double)n, reference);
    for (size_t i = 0; strstr(t->file, "F32") && i < n; i++) {
        double want = json_number_value(json_array_get(losses, i));
        if (fabs(each[i + 1] - want) > TOKEN_LOSS_TOLERANCE)
            fail_msg("%s: loss of token %zu is %.6f, want %.6f", t->file, i + 1, (double)each[i + 1], want);
    }
    linnet_arena_destroy(arena);
    linnet_ids_release(&ids);
}

static void check_greedy(const truth *t, const json_t *greedy, const json_t *want)
{
    linnet_ids prompt = tokenize(t, json_object_get(greedy, "prompt")), ids = {0};
    linnet_session *session = NULL;
    linnet_sampler sampler;
    linnet_error err = {0};
    const float *logits = NULL;
    expect_ids(t, "prompt", &prompt, json_object_get(greedy, "prompt_ids"));
    linnet_sampler_init(&sampler, 0, 1, 0);
    must(linnet_session_create(t->model, NULL, 256, &session, &err), &err);
    must(linnet_session_feed(session, prompt.items, prompt.n_items, &logits, &err), &err);
    while (ids.n_items < json_array_size(want)) {
        int32_t id = -1;
        must(linnet_sampler_next(&sampler, logits, linnet_model_shape_of(t->model)->vocabulary, &id, &err),
             &err);
        assert_int_equal(linnet_ids_append(&ids, id), LINNET_OK);
        must(linnet_session_feed(session, &id, 1, &logits, &err), &err);
    }
    expect_ids(t, "continuation", &ids, want);
    linnet_session_destroy(session);
    linnet_sampler_release(&sampler);
    linnet_ids_release(&prompt);
    linnet_ids_release(&ids);
}

/* Calls check for every model file. */
static void for_every_file(void check(const truth *t))
{
    char path[512], name[128];
    json_t *root = json_load_file(shared_path("models/ground-truth.json", path), 0, NULL), *json;
    const char *file;
    size_t n_files = 0;
    assert_non_null(root);
    json_object_foreach(json_object_get(root, "files"), file, json)
    {
        truth t = {.file = file, .json = json};
        linnet_error err = {0};
        (void)snprintf(name, sizeof(name), "models/%s", file);
        must(linnet_model_open(shared_path(name, path), &t.model, &err), &err);
        must(linnet_tokenizer_create(linnet_model_gguf(t.model), &t.tokenizer, &err), &err);
        check(&t);
        linnet_tokenizer_destroy(t.tokenizer);
        linnet_model_close(t.model);
        n_files++;
    }
    assert_int_equal(n_files, 12);
    json_decref(root);
}

static void check_all_losses(const truth *t)
{
    const json_t *texts = json_object_get(t->json, "perplexity");
    const json_t *reference = json_object_get(json_object_get(t->json, "float64_reference"), "mean_nll");
    assert_true(json_array_size(texts) >= 3 && json_array_size(texts) == json_array_size(reference));
    for (size_t i = 0; i < json_array_size(texts); i++)
        check_losses(t, json_array_get(texts, i), json_number_value(json_array_get(reference, i)));
}

static void check_all_greedy(const truth *t)
{
    const json_t *prompts = json_object_get(t->json, "greedy");
    const json_t *reference = json_object_get(json_object_get(t->json, "float64_reference"), "greedy_ids");
    assert_int_equal(json_array_size(prompts), 4);
    for (size_t i = 0; i < json_array_size(prompts); i++)
        check_greedy(t, json_array_get(prompts, i), json_array_get(reference, i));
}

static void losses_of_texts_are_those_of_the_references(void **state)
{
    (void)state;
    for_every_file(check_all_losses);
}

static void greedy_continuations_are_those_of_the_float64_reference(void **state)
{
    (void)state;
    for_every_file(check_all_greedy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_of_texts_are_those_of_the_references),
        cmocka_unit_test(greedy_continuations_are_those_of_the_float64_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
