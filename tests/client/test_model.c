/* SPDX-License-Identifier: Apache-2.0 */
/* Opening models, and sessions held to a naive pass in double over small random models. */
#include "split_model.h"
#include "tiny_model.h"

static linnet_error err;

static const tiny_spec plain = {.n_layers = 2,
                                .width = 32,
                                .ffn_width = 64,
                                .n_heads = 4,
                                .n_kv_heads = 2,
                                .vocabulary = 50,
                                .context = 40,
                                .tied = true};
static const tiny_spec untied = {.n_layers = 3,
                                 .width = 32,
                                 .ffn_width = 96,
                                 .n_heads = 2,
                                 .n_kv_heads = 2,
                                 .vocabulary = 70,
                                 .context = 40};
static const tiny_spec odd = {.n_layers = 2,
                              .width = 24,
                              .ffn_width = 20,
                              .n_heads = 3,
                              .n_kv_heads = 1,
                              .vocabulary = 33,
                              .context = 40,
                              .head_width = 10,
                              .rope_width = 6};
static const tiny_spec halves = {.n_layers = 2,
                                 .width = 32,
                                 .ffn_width = 64,
                                 .n_heads = 4,
                                 .n_kv_heads = 4,
                                 .vocabulary = 50,
                                 .context = 40,
                                 .type = LINNET_TENSOR_F16};
static const tiny_spec eights = {.n_layers = 2,
                                 .width = 32,
                                 .ffn_width = 64,
                                 .n_heads = 4,
                                 .n_kv_heads = 1,
                                 .vocabulary = 50,
                                 .context = 40,
                                 .type = LINNET_TENSOR_Q8_0,
                                 .tied = true};
static const tiny_spec fours = {.n_layers = 2,
                                .width = 64,
                                .ffn_width = 96,
                                .n_heads = 4,
                                .n_kv_heads = 2,
                                .vocabulary = 50,
                                .context = 40,
                                .type = LINNET_TENSOR_Q4_0};
static const tiny_spec *const specs[] = {&plain, &untied, &odd, &halves, &eights, &fours};

/* ---- opening ---- */

static void a_model_has_the_shape_of_its_metadata(void **state)
{
    (void)state;
    tiny_model *tiny = tiny_create(odd);
    linnet_model *model = tiny_open(tiny);
    const linnet_model_shape *shape = linnet_model_shape_of(model);
    assert_int_equal(shape->n_layers, 2);
    assert_int_equal(shape->width, 24);
    assert_int_equal(shape->ffn_width, 20);
    assert_int_equal(shape->n_heads, 3);
    assert_int_equal(shape->n_kv_heads, 1);
    assert_int_equal(shape->head_width, 10);
    assert_int_equal(shape->rope_width, 6);
    assert_int_equal(shape->vocabulary, 33);
    assert_int_equal(shape->context, 40);
    assert_true(shape->rope_base == 10000.0f);
    assert_false(shape->tied_output);
    assert_string_equal(linnet_model_architecture(model), "llama");
    assert_string_equal(linnet_model_type(model), "F32");
    linnet_model_close(model);
    tiny_destroy(tiny);
}

static void key_value_heads_default_to_heads(void **state)
{
    (void)state;
    tiny_spec spec = untied;
    spec.without_key = "llama.attention.head_count_kv";
    tiny_model *tiny = tiny_create(spec);
    linnet_model *model = tiny_open(tiny);
    assert_int_equal(linnet_model_shape_of(model)->n_kv_heads, 2);
    linnet_model_close(model);
    tiny_destroy(tiny);
}

typedef struct refusal {
    linnet_status want;
    const char *named; /* the message names this */
    tiny_spec damage;  /* over `untied` */
} refusal;

static void check_refusal(const refusal *c)
{
    tiny_spec spec = untied;
    linnet_model *model = NULL;
    spec.without_key = c->damage.without_key;
    spec.without_tensor = c->damage.without_tensor;
    spec.u32_key = c->damage.u32_key;
    spec.u32 = c->damage.u32;
    spec.text_key = c->damage.text_key;
    spec.text = c->damage.text;
    spec.reshaped = c->damage.reshaped;
    spec.extra_tensor = c->damage.extra_tensor;
    tiny_model *tiny = tiny_create(spec);
    linnet_status got = linnet_model_open(tiny->path, &model, &err);
    if (got != c->want || !strstr(err.message, c->named))
        fail_msg("%s: got %s '%s'", c->named, linnet_status_name(got), err.message);
    assert_null(model);
    tiny_destroy(tiny);
}

static void damaged_models_are_refused_by_name(void **state)
{
    (void)state;
    static const refusal cases[] = {
        {LINNET_ERR_UNSUPPORTED, "general.architecture", {.without_key = "general.architecture"}},
        {LINNET_ERR_UNSUPPORTED, "gptj", {.text_key = "general.architecture", .text = "gptj"}},
        {LINNET_ERR_UNSUPPORTED, "llama.block_count", {.without_key = "llama.block_count"}},
        {LINNET_ERR_UNSUPPORTED, "llama.embedding_length", {.without_key = "llama.embedding_length"}},
        {LINNET_ERR_UNSUPPORTED, "rms_epsilon", {.without_key = "llama.attention.layer_norm_rms_epsilon"}},
        {LINNET_ERR_UNSUPPORTED, "llama.context_length", {.without_key = "llama.context_length"}},
        {LINNET_ERR_RANGE, "llama.block_count", {.u32_key = "llama.block_count", .u32 = 0}},
        {LINNET_ERR_RANGE, "llama.block_count", {.u32_key = "llama.block_count", .u32 = UINT32_MAX}},
        {LINNET_ERR_FORMAT, "7 layers", {.u32_key = "llama.block_count", .u32 = 7}},
        {LINNET_ERR_FORMAT, "blk.3", {.u32_key = "llama.block_count", .u32 = 4}},
        {LINNET_ERR_UNSUPPORTED, "blk.2", {.u32_key = "llama.block_count", .u32 = 2}},
        {LINNET_ERR_RANGE, "head_count", {.u32_key = "llama.attention.head_count", .u32 = 0}},
        {LINNET_ERR_RANGE, "heads", {.u32_key = "llama.attention.head_count", .u32 = 3}},
        {LINNET_ERR_RANGE, "head_count_kv", {.u32_key = "llama.attention.head_count_kv", .u32 = 0}},
        {LINNET_ERR_RANGE, "share", {.u32_key = "llama.attention.head_count_kv", .u32 = 4}},
        {LINNET_ERR_FORMAT, "attn_k", {.u32_key = "llama.attention.head_count_kv", .u32 = 1}},
        {LINNET_ERR_FORMAT, "token_embd", {.u32_key = "llama.embedding_length", .u32 = 64}},
        {LINNET_ERR_RANGE, "embedding_length", {.u32_key = "llama.embedding_length", .u32 = UINT32_MAX}},
        {LINNET_ERR_FORMAT, "ffn_gate", {.u32_key = "llama.feed_forward_length", .u32 = 64}},
        {LINNET_ERR_RANGE, "context_length", {.u32_key = "llama.context_length", .u32 = UINT32_MAX}},
        {LINNET_ERR_RANGE, "rotary", {.u32_key = "llama.rope.dimension_count", .u32 = 18}},
        {LINNET_ERR_RANGE, "rotary", {.u32_key = "llama.rope.dimension_count", .u32 = 7}},
        {LINNET_ERR_FORMAT, "attn_q", {.u32_key = "llama.attention.key_length", .u32 = 8}},
        {LINNET_ERR_UNSUPPORTED, "values", {.u32_key = "llama.attention.value_length", .u32 = 8}},
        {LINNET_ERR_UNSUPPORTED, "expert_count", {.u32_key = "llama.expert_count", .u32 = 8}},
        {LINNET_ERR_UNSUPPORTED, "attention.causal", {.u32_key = "llama.attention.causal", .u32 = 0}},
        {LINNET_ERR_UNSUPPORTED, "logit_scale", {.u32_key = "llama.logit_scale", .u32 = 2}},
        {LINNET_ERR_FORMAT, "sliding_window", {.text_key = "llama.attention.sliding_window", .text = "8"}},
        {LINNET_ERR_FORMAT, "rope.scaling.factor", {.u32_key = "llama.rope.scaling.factor", .u32 = 4}},
        {LINNET_ERR_UNSUPPORTED, "dynamic", {.text_key = "llama.rope.scaling.type", .text = "dynamic"}},
        {LINNET_ERR_FORMAT, "rope.scaling.type", {.u32_key = "llama.rope.scaling.type", .u32 = 1}},
        {LINNET_ERR_FORMAT, "token_embd.weight", {.without_tensor = "token_embd.weight"}},
        {LINNET_ERR_FORMAT, "output_norm.weight", {.without_tensor = "output_norm.weight"}},
        {LINNET_ERR_FORMAT, "blk.1.attn_norm.weight", {.without_tensor = "blk.1.attn_norm.weight"}},
        {LINNET_ERR_FORMAT, "blk.2.ffn_down.weight", {.without_tensor = "blk.2.ffn_down.weight"}},
        {LINNET_ERR_FORMAT, "blk.0.attn_q.weight", {.reshaped = "blk.0.attn_q.weight"}},
        {LINNET_ERR_FORMAT, "blk.1.ffn_down.weight", {.reshaped = "blk.1.ffn_down.weight"}},
        {LINNET_ERR_FORMAT, "blk.2.ffn_norm.weight", {.reshaped = "blk.2.ffn_norm.weight"}},
        {LINNET_ERR_FORMAT, "output.weight", {.reshaped = "output.weight"}},
        {LINNET_ERR_FORMAT, "rope_freqs.weight", {.extra_tensor = "rope_freqs.weight"}},
        {LINNET_ERR_FORMAT, "blk.0.attn_q.bias", {.extra_tensor = "blk.0.attn_q.bias"}},
        {LINNET_ERR_UNSUPPORTED, "blk.0.attn_sinks.weight", {.extra_tensor = "blk.0.attn_sinks.weight"}},
        {LINNET_ERR_UNSUPPORTED, "blk.0.attn_q_norm.weight", {.extra_tensor = "blk.0.attn_q_norm.weight"}},
        {LINNET_ERR_UNSUPPORTED, "blk.00.attn_q.weight", {.extra_tensor = "blk.00.attn_q.weight"}},
        {LINNET_ERR_UNSUPPORTED, "blk.7.attn_q.weight", {.extra_tensor = "blk.7.attn_q.weight"}},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        check_refusal(&cases[i]);
}

static void neutral_values_of_refused_keys_are_fine(void **state)
{
    (void)state;
    tiny_spec spec = untied;
    spec.text_key = "llama.rope.scaling.type";
    spec.text = "none";
    spec.u32_key = "llama.expert_count";
    tiny_model *tiny = tiny_create(spec);
    linnet_model_close(tiny_open(tiny));
    tiny_destroy(tiny);
}

static void a_missing_file_is_not_found(void **state)
{
    (void)state;
    linnet_model *model = NULL;
    assert_int_equal(linnet_model_open("/tmp/linnet-no-such-model.gguf", &model, &err), LINNET_ERR_NOT_FOUND);
    assert_null(model);
}

/* ---- sessions ---- */

/* The last logits against the naive pass, relative to the largest of them. */
static void check_logits(const float *got, const double *want, size_t n, const char *what)
{
    double top = 1e-3;
    for (size_t i = 0; i < n; i++)
        top = fmax(top, fabs(want[i]));
    for (size_t i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= 1e-5 * top))
            fail_msg("%s: logit %zu is %.8g, want %.8g", what, i, got[i], want[i]);
}

static void logits_are_those_of_the_naive_pass(void **state)
{
    enum { N = 37 };
    (void)state;
    for (size_t c = 0; c < ARRAY_LEN(specs); c++) {
        tiny_model *tiny = tiny_create(*specs[c]);
        linnet_model *model = tiny_open(tiny);
        linnet_adapter *adapter = tiny_adapter(model, 3, 127);
        size_t vocabulary = tiny->spec.vocabulary;
        double *parameters = tiny_parameters(adapter), *logits = malloc(N * vocabulary * sizeof(double));
        tiny_lora lora = {adapter->layout, parameters};
        linnet_session *session = NULL;
        const float *got = NULL;
        int32_t ids[N];
        assert_non_null(logits);
        tiny_ids(tiny, c, ids, N);
        assert_ok(linnet_session_create(model, NULL, 0, &session, &err), &err);
        for (int adapted = 0; adapted < 2; adapted++) {
            assert_ok(linnet_session_set_adapter(session, adapted ? adapter : NULL, &err), &err);
            tiny_logits(tiny, adapted ? &lora : NULL, ids, N, logits);
            assert_ok(linnet_session_feed(session, ids, N, &got, &err), &err);
            check_logits(got, logits + (N - 1) * vocabulary, vocabulary, "in one go");
            linnet_session_reset(session);
            for (size_t t = 0; t < N; t++) {
                assert_ok(linnet_session_feed(session, ids + t, 1, &got, &err), &err);
                check_logits(got, logits + t * vocabulary, vocabulary, "token by token");
            }
            assert_int_equal(linnet_session_n_tokens(session), N);
        }
        linnet_session_destroy(session);
        free(logits);
        free(parameters);
        linnet_adapter_destroy(adapter);
        linnet_model_close(model);
        tiny_destroy(tiny);
    }
}

/* Large enough for several chunks, tiles and threads. */
static const tiny_spec wide = {.n_layers = 2,
                               .width = 128,
                               .ffn_width = 256,
                               .n_heads = 8,
                               .n_kv_heads = 4,
                               .vocabulary = 3000,
                               .context = 700,
                               .type = LINNET_TENSOR_Q8_0,
                               .tied = true};

static void long_prompts_are_cut_into_chunks_unseen(void **state)
{
    enum { N = 600 };
    static const size_t cuts[] = {1, 300, 556, 600}; /* of the second way: each a feed's end */
    (void)state;
    tiny_model *tiny = tiny_create(wide);
    linnet_model *model = tiny_open(tiny);
    size_t vocabulary = tiny->spec.vocabulary;
    double *want = malloc(vocabulary * sizeof(double));
    linnet_session *session = NULL;
    const float *got = NULL;
    int32_t ids[N];
    assert_non_null(want);
    tiny_ids(tiny, 9, ids, N);
    assert_ok(linnet_session_create(model, NULL, 0, &session, &err), &err);
    assert_ok(linnet_session_feed(session, ids, N, &got, &err), &err);
    for (size_t i = 0; i < vocabulary; i++)
        want[i] = got[i];
    linnet_session_reset(session);
    for (size_t i = 0, at = 0; i < ARRAY_LEN(cuts); at = cuts[i++])
        assert_ok(linnet_session_feed(session, ids + at, cuts[i] - at, &got, &err), &err);
    check_logits(got, want, vocabulary, "in four feeds");
    linnet_session_destroy(session);
    free(want);
    linnet_model_close(model);
    tiny_destroy(tiny);
}

static void threads_do_not_change_a_bit(void **state)
{
    enum { N = 290 };
    (void)state;
    tiny_model *tiny = tiny_create(wide);
    linnet_model *model = tiny_open(tiny);
    linnet_adapter *adapter = tiny_adapter(model, 5, 127);
    size_t n_bytes = tiny->spec.vocabulary * sizeof(float);
    float *want = malloc(2 * n_bytes);
    int32_t ids[N];
    assert_non_null(want);
    tiny_ids(tiny, 3, ids, N);
    for (unsigned n_threads = 1; n_threads <= 3; n_threads++) {
        linnet_thread_pool *pool = NULL;
        linnet_session *session = NULL;
        const float *got = NULL;
        assert_ok(linnet_thread_pool_create(n_threads, &pool, &err), &err);
        assert_ok(linnet_session_create(model, pool, 0, &session, &err), &err);
        assert_ok(linnet_session_set_adapter(session, adapter, &err), &err);
        for (size_t i = 0; i < 2; i++) { /* a prompt, then one token */
            assert_ok(linnet_session_feed(session, ids, i == 0 ? N : 1, &got, &err), &err);
            if (n_threads == 1)
                memcpy(want + i * tiny->spec.vocabulary, got, n_bytes);
            assert_memory_equal(got, want + i * tiny->spec.vocabulary, n_bytes);
        }
        linnet_session_destroy(session);
        linnet_thread_pool_destroy(pool);
    }
    free(want);
    linnet_adapter_destroy(adapter);
    linnet_model_close(model);
    tiny_destroy(tiny);
}

static void a_refused_feed_changes_nothing(void **state)
{
    (void)state;
    tiny_model *tiny = tiny_create(plain);
    linnet_model *model = tiny_open(tiny);
    linnet_session *session = NULL;
    const float *logits = NULL, *untouched = NULL;
    int32_t ids[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, negative[2] = {1, -1}, high[2] = {1, 50};
    float want[50];
    assert_ok(linnet_session_create(model, NULL, 12, &session, &err), &err);
    assert_ok(linnet_session_feed(session, ids, 12, &logits, &err), &err);
    memcpy(want, logits, sizeof(want));
    assert_int_equal(linnet_session_feed(session, ids, 1, &untouched, &err), LINNET_ERR_LIMIT);
    linnet_session_reset(session);
    assert_int_equal(linnet_session_feed(session, ids, 0, &untouched, &err), LINNET_ERR_ARG);
    assert_int_equal(linnet_session_feed(session, negative, 2, &untouched, &err), LINNET_ERR_RANGE);
    assert_non_null(strstr(err.message, "-1"));
    assert_int_equal(linnet_session_feed(session, high, 2, &untouched, &err), LINNET_ERR_RANGE);
    assert_ok(linnet_session_feed(session, ids, 10, &logits, &err), &err);
    assert_int_equal(linnet_session_feed(session, ids, 3, &untouched, &err), LINNET_ERR_LIMIT);
    assert_int_equal(linnet_session_n_tokens(session), 10);
    assert_null(untouched);
    assert_ok(linnet_session_feed(session, ids + 10, 2, &logits, &err), &err);
    for (size_t i = 0; i < 50; i++)
        assert_true(fabsf(logits[i] - want[i]) < 1e-4f);
    linnet_session_destroy(session);
    linnet_model_close(model);
    tiny_destroy(tiny);
}

static void an_adapter_of_another_model_is_refused(void **state)
{
    (void)state;
    tiny_model *tiny = tiny_create(plain), *other = tiny_create(untied), *narrow = tiny_create(odd);
    linnet_model *model = tiny_open(tiny), *deeper = tiny_open(other), *narrower = tiny_open(narrow);
    linnet_adapter *deep = tiny_adapter(deeper, 2, 1), *small = tiny_adapter(narrower, 2, 127);
    linnet_session *session = NULL;
    const float *logits = NULL;
    int32_t id = 3;
    float want[50];
    assert_ok(linnet_session_create(model, NULL, 0, &session, &err), &err);
    assert_ok(linnet_session_feed(session, &id, 1, &logits, &err), &err);
    memcpy(want, logits, sizeof(want));
    assert_int_equal(linnet_session_set_adapter(session, deep, &err), LINNET_ERR_MISMATCH);
    assert_non_null(strstr(err.message, "blk."));
    assert_int_equal(linnet_session_set_adapter(session, small, &err), LINNET_ERR_MISMATCH);
    assert_int_equal(linnet_session_n_tokens(session), 0); /* and none is set */
    assert_ok(linnet_session_feed(session, &id, 1, &logits, &err), &err);
    assert_memory_equal(logits, want, sizeof(want));
    linnet_session_destroy(session);
    linnet_adapter_destroy(deep);
    linnet_adapter_destroy(small);
    linnet_model_close(model);
    linnet_model_close(deeper);
    linnet_model_close(narrower);
    tiny_destroy(tiny);
    tiny_destroy(other);
    tiny_destroy(narrow);
}

static void a_context_beyond_memory_is_refused(void **state)
{
    (void)state;
    tiny_model *tiny = tiny_create(plain);
    linnet_model *model = tiny_open(tiny);
    linnet_session *session = NULL;
    assert_int_equal(linnet_session_create(model, NULL, UINT32_MAX, &session, &err), LINNET_ERR_LIMIT);
    assert_null(session);
    linnet_model_close(model);
    tiny_destroy(tiny);
}

/* The logits of a model and of its parts are the same bits. */
static void a_split_model_runs_as_one(void **state)
{
    (void)state;
    static const int32_t ids[] = {3, 1, 4, 1, 5, 9, 2, 6};
    for (size_t i = 0; i < ARRAY_LEN(specs); i++) {
        tiny_model *tiny = tiny_create(*specs[i]);
        linnet_model *models[2] = {tiny_open(tiny), NULL};
        linnet_session *sessions[2] = {NULL, NULL};
        const float *logits[2];
        split_model(linnet_model_gguf(models[0]), tiny->path, 3);
        assert_ok(linnet_model_open(split_path(tiny->path, 0, 3), &models[1], &err), &err);
        for (size_t k = 0; k < 2; k++) {
            assert_ok(linnet_session_create(models[k], NULL, 20, &sessions[k], &err), &err);
            assert_ok(linnet_session_feed(sessions[k], ids, ARRAY_LEN(ids), &logits[k], &err), &err);
        }
        assert_memory_equal(logits[0], logits[1], specs[i]->vocabulary * sizeof(float));
        for (uint32_t no = 0; no < 3; no++)
            (void)unlink(split_path(tiny->path, no, 3));
        for (size_t k = 0; k < 2; k++) {
            linnet_session_destroy(sessions[k]);
            linnet_model_close(models[k]);
        }
        tiny_destroy(tiny);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_has_the_shape_of_its_metadata),
        cmocka_unit_test(key_value_heads_default_to_heads),
        cmocka_unit_test(damaged_models_are_refused_by_name),
        cmocka_unit_test(neutral_values_of_refused_keys_are_fine),
        cmocka_unit_test(a_missing_file_is_not_found),
        cmocka_unit_test(logits_are_those_of_the_naive_pass),
        cmocka_unit_test(long_prompts_are_cut_into_chunks_unseen),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(a_refused_feed_changes_nothing),
        cmocka_unit_test(an_adapter_of_another_model_is_refused),
        cmocka_unit_test(a_context_beyond_memory_is_refused),
        cmocka_unit_test(a_split_model_runs_as_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
