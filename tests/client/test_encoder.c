/* SPDX-License-Identifier: Apache-2.0 */
/* Encoders: what a file must say, records with labels, and training on them. Their logits, losses and
 * gradients are held to transformers in test_architectures.c. */
#include "client/encoder_model.h"
#include "linnet/runtime.h"
#include "linnet/trainer.h"

#include <stdio.h>

#define LABELS 4

/* ---- files ---- */

static void labels_have_the_files_names_or_numbers(void **state)
{
    (void)state;
    static const char *const named[LABELS] = {"no", "a little", "much", "all of it"};
    static const char *const numbered[LABELS] = {"LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"};
    for (int names = 0; names < 2; names++) {
        json_t *object = encoder_case(names ? "bert with a pooler" : "bert without a pooler");
        vector_model m = vector_model_open(object);
        const char *const *want = names ? named : numbered;
        uint32_t label = 99;
        assert_true(linnet_model_is_encoder(m.model));
        assert_int_equal(linnet_model_n_labels(m.model), LABELS);
        for (uint32_t i = 0; i < LABELS; i++) {
            assert_true(linnet_text_is(linnet_model_label(m.model, i), want[i]));
            assert_int_equal(linnet_model_find_label(m.model, want[i], &label), LINNET_OK);
            assert_int_equal(label, i);
        }
        assert_int_equal(linnet_model_find_label(m.model, "yes", &label), LINNET_ERR_NOT_FOUND);
        assert_int_equal(linnet_model_label(m.model, LABELS).n_bytes, 0);
        vector_model_close(&m);
        json_decref(object);
    }
}

static void expect_refused(json_t *object, linnet_status want, const char *part)
{
    vector_model m = {.object = object};
    linnet_error err = {0};
    vector_write_file(&m, NULL);
    linnet_status got = linnet_model_open(m.path, &m.model, &err);
    if (got != want || !strstr(err.message, part))
        fail_msg("%s: %s '%s'", part, linnet_status_name(got), err.message);
    vector_model_close(&m);
    json_decref(object);
}

static void a_file_that_means_another_computation_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *key, *kind, *value; /* JSON */
        linnet_status want;
    } cases[] = {
        {"bert.attention.causal", "bool", "true", LINNET_ERR_UNSUPPORTED},
        {"bert.pooling_type", "u32", "1", LINNET_ERR_UNSUPPORTED},
        {"bert.pooling_type", "u32", "3", LINNET_ERR_UNSUPPORTED},
        {"bert.expert_count", "u32", "8", LINNET_ERR_UNSUPPORTED},
        {"bert.classifier.output_labels", "texts", "[\"a\", \"b\"]", LINNET_ERR_FORMAT},
        {"bert.classifier.output_labels", "text", "\"no\"", LINNET_ERR_FORMAT},
        {"tokenizer.ggml.token_type_count", "u32", "3", LINNET_ERR_FORMAT},
        {"bert.attention.layer_norm_epsilon", "f32", "0", LINNET_ERR_RANGE},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        json_t *object = encoder_case("bert with a pooler");
        encoder_set_key(object, cases[i].key, cases[i].kind,
                        json_loads(cases[i].value, JSON_DECODE_ANY, NULL));
        expect_refused(object, cases[i].want, cases[i].key);
    }
    json_t *object = encoder_case("bert with a pooler");
    encoder_drop(object, "keys", "bert.attention.layer_norm_epsilon");
    expect_refused(object, LINNET_ERR_UNSUPPORTED, "bert.attention.layer_norm_epsilon");
}

/* With mean pooling and no head it is a model of sentence embeddings: it opens, and classifies nothing. */
static void an_encoder_without_labels_classifies_nothing(void **state)
{
    (void)state;
    static const char *const head[] = {"cls.weight", "cls.bias", "cls.output.weight", "cls.output.bias"};
    json_t *object = encoder_case("bert with a pooler");
    linnet_arena *arena = NULL;
    linnet_error err = {0};
    for (size_t i = 0; i < 4; i++)
        encoder_drop(object, "tensors", head[i]);
    encoder_set_key(object, "bert.pooling_type", "u32", json_integer(1));
    vector_model m = vector_model_open(object);
    assert_int_equal(linnet_model_n_labels(m.model), 0);
    assert_int_equal(linnet_arena_create(m.model, NULL, 0, true, &arena, &err), LINNET_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "cls.output.weight"));
    assert_non_null(strstr(err.message, m.path));
    vector_model_close(&m);
    json_decref(object);
}

static void an_encoder_writes_no_text(void **state)
{
    (void)state;
    json_t *object = encoder_case("bert with a pooler");
    vector_model m = vector_model_open(object);
    linnet_session *session = NULL;
    linnet_error err = {0};
    assert_int_equal(linnet_session_create(m.model, NULL, 0, &session, &err), LINNET_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "encoder"));
    vector_model_close(&m);
    json_decref(object);
}

/* ---- sequences ---- */

static void a_sequence_is_of_the_models_kind(void **state)
{
    (void)state;
    json_t *object = encoder_case("bert with a pooler"), *other = encoder_case("gpt2");
    vector_model encoder = vector_model_open(object);
    linnet_arena *arena = NULL, *language = NULL;
    linnet_error err = {0};
    double loss;
    size_t n;
    const struct {
        linnet_sequence sequence;
        linnet_status want;
    } cases[] = {
        {{.ids = encoder.ids, .n_ids = 3, .has_label = true, .label = 3}, LINNET_OK},
        {{.ids = encoder.ids, .n_ids = 3, .has_label = true, .label = 4}, LINNET_ERR_RANGE},
        {{.ids = encoder.ids, .n_ids = 0, .has_label = true}, LINNET_ERR_ARG},
        {{.ids = encoder.ids, .n_ids = 3, .counted = encoder.counted}, LINNET_ERR_UNSUPPORTED},
    };
    assert_ok(linnet_arena_create(encoder.model, NULL, 60, false, &arena, &err), &err);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(linnet_arena_score(arena, NULL, &cases[i].sequence, &loss, &n, NULL, &err),
                         cases[i].want);
    json_t *keys = json_object_get(other, "keys");
    while (json_array_size(keys) > 6) /* without the vocabulary of an encoder */
        (void)json_array_remove(keys, json_array_size(keys) - 1);
    vector_model gpt2 = vector_model_open(other);
    assert_ok(linnet_arena_create(gpt2.model, NULL, 60, false, &language, &err), &err);
    assert_int_equal(linnet_arena_score(language, NULL, &cases[0].sequence, &loss, &n, NULL, &err),
                     LINNET_ERR_UNSUPPORTED);
    assert_null(linnet_arena_logits(language));
    linnet_arena_destroy(language);
    linnet_arena_destroy(arena);
    vector_model_close(&gpt2);
    vector_model_close(&encoder);
    json_decref(object);
    json_decref(other);
}

/* No token is masked from another: a change of the last one changes what the first says. */
static void every_token_is_seen(void **state)
{
    (void)state;
    json_t *object = encoder_case("bert with a pooler");
    vector_model m = vector_model_open(object);
    linnet_arena *arena = NULL;
    linnet_error err = {0};
    const float *logits = NULL;
    float before[LABELS];
    assert_ok(linnet_arena_create(m.model, NULL, 60, false, &arena, &err), &err);
    for (size_t n = 2; n <= 60; n += 29) {
        assert_ok(linnet_arena_classify(arena, NULL, m.ids, n, &logits, &err), &err);
        memcpy(before, logits, sizeof(before));
        m.ids[n - 1] = (m.ids[n - 1] + 1) % 48;
        assert_ok(linnet_arena_classify(arena, NULL, m.ids, n, &logits, &err), &err);
        assert_memory_not_equal(before, logits, sizeof(before));
        assert_ptr_equal(logits, linnet_arena_logits(arena));
    }
    linnet_arena_destroy(arena);
    vector_model_close(&m);
    json_decref(object);
}

/* ---- records ---- */

typedef struct encoder {
    json_t *object;
    vector_model m;
    linnet_tokenizer *tokenizer;
} encoder;

static encoder encoder_open(void)
{
    encoder e = {.object = encoder_case("bert with a pooler")};
    linnet_error err = {0};
    e.m = vector_model_open(e.object);
    assert_ok(linnet_tokenizer_create(linnet_model_gguf(e.m.model), &e.tokenizer, &err), &err);
    return e;
}

static void encoder_close(encoder *e)
{
    linnet_tokenizer_destroy(e->tokenizer);
    vector_model_close(&e->m);
    json_decref(e->object);
}

static void a_text_stands_between_cls_and_sep(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        uint32_t context, label;
        size_t n_ids;
        int32_t ids[8];
    } cases[] = {
        {"{\"text\":\"The film was good\",\"label\":\"much\"}", 16, 2, 6, {2, 4, 5, 6, 7, 3}},
        {"{\"text\":\"The film was good\",\"label\":0}", 4, 0, 4, {2, 4, 5, 3}},
        {"{\"text\":\"The film was good\",\"label\":\"no\"}", 2, 0, 2, {2, 3}},
        {"{\"text\":\"\",\"label\":3}", 16, 3, 2, {2, 3}},
        {"{\"text\":\"[SEP] bad.\",\"label\":\"a little\"}", 16, 1, 7, {2, 1, 1, 1, 8, 11, 3}},
    };
    encoder e = encoder_open();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const linnet_encoding encoding = {
            .context_tokens = cases[i].context, .end_token = true, .model = e.m.model};
        linnet_record record = {0};
        linnet_tokens tokens = {0};
        linnet_error err = {0};
        assert_ok(linnet_record_parse(cases[i].line, strlen(cases[i].line), &record, &err), &err);
        assert_true(record.kind == LINNET_RECORD_TEXT && record.has_label);
        assert_ok(linnet_record_encode(&record, e.tokenizer, &encoding, &tokens, &err), &err);
        assert_int_equal(tokens.n_ids, cases[i].n_ids);
        assert_memory_equal(tokens.ids, cases[i].ids, tokens.n_ids * sizeof(int32_t));
        assert_true(tokens.has_label);
        assert_int_equal(tokens.label, cases[i].label);
        assert_int_equal(tokens.n_counted, 1);
        linnet_tokens_release(&tokens);
        linnet_record_release(&record);
    }
    encoder_close(&e);
}

static void write_lines(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* The line of a file that does not fit, and why. */
static void records_that_do_not_fit_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *line, *part;
    } cases[] = {
        {"{\"text\":\"good\"}", "\"label\""},
        {"{\"text\":\"good\",\"label\":\"yes\"}", "none of the model's 4: no, a little, much, all of it"},
        {"{\"text\":\"good\",\"label\":4}", "none of the model's 4"},
        {"{\"text\":\"good\",\"label\":-1}", "none of the model's 4"},
        {"{\"text\":\"good\",\"label\":1.5}", "none of the model's 4"},
        {"{\"text\":\"good\",\"label\":null}", "none of the model's 4"},
        {"{\"text\":\"good\",\"label\":4000000000}", "none of the model's 4"},
        {"{\"text\":\"good\",\"text_pair\":\"bad\",\"label\":1}", "text_pair"},
        {"{\"prompt\":\"good\",\"completion\":\"bad\",\"label\":1}", "encoder"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"good\"}]}", "encoder"},
    };
    encoder e = encoder_open();
    char path[] = "/tmp/linnet-encoder-XXXXXX", place[64];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    (void)close(fd);
    (void)snprintf(place, sizeof(place), "%s:2: ", path);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const linnet_encoding encoding = {.context_tokens = 16, .model = e.m.model};
        char lines[256];
        linnet_dataset *data = NULL;
        linnet_token_set *set = NULL;
        linnet_error err = {0};
        (void)snprintf(lines, sizeof(lines), "{\"text\":\"film\",\"label\":0}\n%s\n", cases[i].line);
        write_lines(path, lines);
        linnet_status status = linnet_dataset_load(path, false, &data, &err);
        if (status == LINNET_OK)
            status = linnet_token_set_create(data, NULL, 0, e.tokenizer, &encoding, &set, &err);
        if (status == LINNET_OK || !strstr(err.message, cases[i].part) ||
            strncmp(err.message, place, strlen(place)) != 0)
            fail_msg("%s: '%s'", cases[i].line, err.message);
        linnet_token_set_destroy(set);
        linnet_dataset_destroy(data);
    }
    (void)unlink(path);
    encoder_close(&e);
}

/* ---- training ---- */

/* Its other keys are nobody's business, whatever is in them. */
static void a_language_model_learns_the_text_and_not_the_label(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "{\"text\":\"the film was good\"}",
        "{\"text\":\"the film was good\",\"label\":\"yes\"}",
        "{\"text\":\"the film was good\",\"label\":[1.5],\"text_pair\":\"bad\"}",
    };
    encoder e = encoder_open();
    const linnet_encoding encoding = {.context_tokens = 16}; /* no encoder */
    linnet_tokens wanted = {0};
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        linnet_record record = {0};
        linnet_tokens tokens = {0};
        linnet_error err = {0};
        assert_ok(linnet_record_parse(lines[i], strlen(lines[i]), &record, &err), &err);
        assert_ok(linnet_record_encode(&record, e.tokenizer, &encoding, &tokens, &err), &err);
        linnet_record_release(&record);
        if (i == 0) {
            wanted = tokens;
            continue;
        }
        assert_false(tokens.has_label);
        assert_int_equal(tokens.n_ids, wanted.n_ids);
        assert_int_equal(tokens.n_counted, wanted.n_counted);
        assert_memory_equal(tokens.ids, wanted.ids, wanted.n_ids * sizeof(*wanted.ids));
        linnet_tokens_release(&tokens);
    }
    linnet_tokens_release(&wanted);
    encoder_close(&e);
}

static linnet_token_set *labelled_set(const encoder *e)
{
    static const char *const lines[] = {
        "{\"text\":\"the film was good.\",\"label\":\"much\"}",
        "{\"text\":\"the film was bad\",\"label\":\"no\"}",
        "{\"text\":\"good sun\",\"label\":\"much\"}",
        "{\"text\":\"bad rain\",\"label\":\"no\"}",
        "{\"text\":\"sun was rain\",\"label\":\"a little\"}",
        "{\"text\":\"rain . sun .\",\"label\":3}",
    };
    const linnet_encoding encoding = {.context_tokens = 16, .model = e->m.model};
    linnet_dataset *data = linnet_dataset_create();
    linnet_token_set *set = NULL;
    linnet_error err = {0};
    assert_non_null(data);
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        linnet_record record = {0};
        assert_ok(linnet_record_parse(lines[i], strlen(lines[i]), &record, &err), &err);
        assert_ok(linnet_dataset_add(data, &record, &err), &err);
    }
    assert_ok(linnet_token_set_create(data, NULL, 0, e->tokenizer, &encoding, &set, &err), &err);
    assert_int_equal(set->n_items, 6);
    assert_int_equal(set->n_counted, 6);
    linnet_dataset_destroy(data);
    return set;
}

static linnet_adapter *fresh(const encoder *e, const char *targets)
{
    const linnet_adapter_form form = {.targets = targets, .rank = 4, .alpha = 8, .seed = 3};
    linnet_adapter *adapter = NULL;
    linnet_error err = {0};
    assert_ok(linnet_adapter_fresh(e->m.model, &form, &adapter, &err), &err);
    return adapter;
}

/* Train for some steps; the mean loss before and after. */
static void train(const encoder *e, linnet_adapter *adapter, unsigned n_threads, double ret_losses[2])
{
    linnet_thread_pool *pool = NULL;
    linnet_arena *arena = NULL;
    linnet_trainer *trainer = NULL;
    linnet_token_set *set = labelled_set(e);
    linnet_training training = linnet_training_default();
    linnet_train_step step;
    linnet_error err = {0};
    double sum;
    size_t n;
    training.n_steps = 25;
    training.learning_rate = 1e-2;
    assert_ok(linnet_thread_pool_create(n_threads, &pool, &err), &err);
    assert_ok(linnet_arena_create(e->m.model, pool, 16, true, &arena, &err), &err);
    assert_ok(linnet_evaluate(arena, adapter, set, &sum, &n, &err), &err);
    ret_losses[0] = sum / (double)n;
    assert_ok(linnet_trainer_create(&training, arena, set, adapter, &trainer, &err), &err);
    while (!linnet_trainer_is_done(trainer))
        assert_ok(linnet_trainer_step(trainer, &step, &err), &err);
    assert_ok(linnet_evaluate(arena, adapter, set, &sum, &n, &err), &err);
    ret_losses[1] = sum / (double)n;
    linnet_trainer_destroy(trainer);
    linnet_token_set_destroy(set);
    linnet_arena_destroy(arena);
    linnet_thread_pool_destroy(pool);
}

static void training_lowers_the_loss_with_the_same_bits_for_any_threads(void **state)
{
    (void)state;
    static const struct {
        const char *targets;
        double share; /* of the loss that may be left */
    } cases[] = {{"all", 0.2}, {"cls.output", 0.8}, {"cls,classifier", 0.7}, {"attn_q,attn_v", 0.9}};
    encoder e = encoder_open();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        linnet_adapter *one = fresh(&e, cases[i].targets), *two = fresh(&e, cases[i].targets);
        double losses[2], again[2];
        train(&e, one, 1, losses);
        train(&e, two, 2, again);
        if (!(losses[1] < cases[i].share * losses[0]))
            fail_msg("%s: loss from %g to %g", cases[i].targets, losses[0], losses[1]);
        assert_memory_equal(one->data, two->data, one->layout->n_parameters * sizeof(float));
        assert_true(losses[1] == again[1]);
        linnet_adapter_destroy(one);
        linnet_adapter_destroy(two);
    }
    encoder_close(&e);
}

/* A label is part of the data that a checkpoint belongs to. */
static void a_checkpoint_of_other_labels_is_refused(void **state)
{
    (void)state;
    encoder e = encoder_open();
    linnet_arena *arena = NULL;
    linnet_error err = {0};
    linnet_buffer checkpoint = {0};
    linnet_token_set *set = labelled_set(&e);
    linnet_adapter *adapter = fresh(&e, "all");
    const linnet_training training = linnet_training_default();
    const linnet_status wanted[] = {LINNET_OK, LINNET_OK, LINNET_ERR_MISMATCH};
    assert_ok(linnet_arena_create(e.m.model, NULL, 16, true, &arena, &err), &err);
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++) { /* save, restore, restore with another label */
        linnet_trainer *trainer = NULL;
        set->items[0].label = i == 2 ? 1 : 2;
        assert_ok(linnet_trainer_create(&training, arena, set, adapter, &trainer, &err), &err);
        linnet_status status =
            i == 0 ? linnet_trainer_save(trainer, &checkpoint, &err)
                   : linnet_trainer_restore(trainer, checkpoint.bytes, checkpoint.n_bytes, &err);
        assert_int_equal(status, wanted[i]);
        linnet_trainer_destroy(trainer);
    }
    linnet_buffer_release(&checkpoint);
    linnet_adapter_destroy(adapter);
    linnet_token_set_destroy(set);
    linnet_arena_destroy(arena);
    encoder_close(&e);
}

/* A head of zeros says nothing; a LoRA of rank >= labels on it is any head at all, and learns alone. */
static void a_lora_on_a_head_of_zeros_is_a_new_head(void **state)
{
    (void)state;
    encoder e = {.object = encoder_case("bert with a pooler")};
    json_t *tensors = json_object_get(e.object, "tensors"), *tensor;
    linnet_error err = {0};
    double losses[2];
    size_t i;
    json_array_foreach(tensors, i, tensor)
    {
        if (strncmp(vector_text(tensor, "name"), "cls.output", 10) == 0) {
            (void)json_object_set_new(tensor, "spread", json_real(0));
            (void)json_object_set_new(tensor, "centre", json_real(0));
        }
    }
    e.m = vector_model_open(e.object);
    assert_ok(linnet_tokenizer_create(linnet_model_gguf(e.m.model), &e.tokenizer, &err), &err);
    linnet_adapter *adapter = fresh(&e, "cls.output");
    train(&e, adapter, 1, losses);
    assert_true(fabs(losses[0] - log(LABELS)) < 1e-6);
    assert_true(losses[1] < 0.8 * losses[0]);
    linnet_adapter_destroy(adapter);
    encoder_close(&e);
}

/* The gradient of factor A alone, or B, is what both together give, also where the head is all there is. */
static void factors_of_the_head_are_active_one_by_one(void **state)
{
    (void)state;
    static const char *const targets[] = {"all", "cls", "cls.output"};
    encoder e = encoder_open();
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        linnet_adapter *adapter = fresh(&e, targets[i]);
        size_t n = adapter->layout->n_parameters;
        float *gradients[4] = {NULL};
        linnet_arena *arena = NULL;
        linnet_error err = {0};
        linnet_sequence sequence = {.ids = e.m.ids, .n_ids = 20, .has_label = true, .label = 1};
        for (size_t p = 0; p < n; p++) /* B is zero in a fresh one */
            adapter->data[p] = (float)(0.3 * vector_uniform(targets[i], p));
        assert_ok(linnet_arena_create(e.m.model, NULL, 60, true, &arena, &err), &err);
        for (int factors = 1; factors <= 3; factors++) {
            double loss;
            size_t n_counted;
            gradients[factors] = calloc(n, sizeof(float));
            assert_non_null(gradients[factors]);
            assert_ok(linnet_arena_gradient(arena, adapter, (linnet_factors)factors, NULL, &sequence, 1,
                                            gradients[factors], &loss, &n_counted, &err),
                      &err);
        }
        for (size_t p = 0; p < n; p++)
            assert_true(gradients[1][p] + gradients[2][p] == gradients[3][p]);
        for (int factors = 1; factors <= 3; factors++)
            free(gradients[factors]);
        linnet_arena_destroy(arena);
        linnet_adapter_destroy(adapter);
    }
    encoder_close(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_have_the_files_names_or_numbers),
        cmocka_unit_test(a_file_that_means_another_computation_is_refused),
        cmocka_unit_test(an_encoder_without_labels_classifies_nothing),
        cmocka_unit_test(an_encoder_writes_no_text),
        cmocka_unit_test(a_sequence_is_of_the_models_kind),
        cmocka_unit_test(every_token_is_seen),
        cmocka_unit_test(a_text_stands_between_cls_and_sep),
        cmocka_unit_test(records_that_do_not_fit_are_named),
        cmocka_unit_test(a_checkpoint_of_other_labels_is_refused),
        cmocka_unit_test(a_language_model_learns_the_text_and_not_the_label),
        cmocka_unit_test(training_lowers_the_loss_with_the_same_bits_for_any_threads),
        cmocka_unit_test(a_lora_on_a_head_of_zeros_is_a_new_head),
        cmocka_unit_test(factors_of_the_head_are_active_one_by_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
