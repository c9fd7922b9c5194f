/* SPDX-License-Identifier: Apache-2.0 */
/* Every architecture, with its odd features switched on, against transformers and peft in float64
 * (tests/vectors/architectures.json): logits, losses of every token, gradients of both factors of every
 * matrix, also with dropout (tests/vectors/dropout.json). And what needs no reference: gradients against
 * differences of the loss, caches fed piece by piece.
 */
#include "client/engine/ops.h"
#include "vector_model.h"

#define TOLERANCE 1e-4 /* relative, in float32 */

static json_t *vectors, *dropout_vectors;

static const json_t *case_at(size_t i)
{
    return json_array_get(json_object_get(vectors, "cases"), i);
}

static size_t n_cases(void)
{
    return json_array_size(json_object_get(vectors, "cases"));
}

static bool is_encoder(const json_t *object)
{
    return json_object_get(object, "label") != NULL;
}

/* |got - want| <= TOLERANCE x scale, where scale is the size of what the value is one of. */
static void check(const vector_model *m, const char *what, size_t at, double got, double want, double scale)
{
    if (!(fabs(got - want) <= TOLERANCE * scale))
        fail_msg("%s: %s [%zu] is %.9g, not %.9g", vector_text(m->object, "name"), what, at, got, want);
}

static linnet_arena *arena_of(const vector_model *m)
{
    linnet_arena *arena = NULL;
    linnet_error err = {0};
    assert_ok(linnet_arena_create(m->model, NULL, (uint32_t)vector_integer(m->object, "context"), true,
                                  &arena, &err),
              &err);
    return arena;
}

static linnet_session *session_of(const vector_model *m)
{
    linnet_session *session = NULL;
    linnet_error err = {0};
    assert_ok(
        linnet_session_create(m->model, NULL, (uint32_t)vector_integer(m->object, "context"), &session, &err),
        &err);
    return session;
}

static linnet_sequence sequence_of(const vector_model *m)
{
    return (linnet_sequence){m->ids, m->counted, m->n_ids, m->has_label, m->label};
}

static void check_losses(const vector_model *m, linnet_arena *arena, const linnet_adapter *adapter,
                         const json_t *wanted)
{
    linnet_sequence sequence = sequence_of(m);
    linnet_error err = {0};
    float each[VECTOR_IDS_MAX];
    double sum = 0;
    size_t n_counted = 0;
    assert_ok(linnet_arena_score(arena, adapter, &sequence, &sum, &n_counted, each, &err), &err);
    size_t first = m->has_label ? 0 : 1; /* a label's loss stands at the first token */
    assert_int_equal(n_counted, m->has_label ? 1 : m->n_ids - 1);
    assert_int_equal(json_array_size(wanted), n_counted);
    for (size_t i = 0; i < n_counted; i++)
        check(m, adapter ? "adapted loss" : "loss", i, each[i + first],
              json_number_value(json_array_get(wanted, i)), 1);
}

static void check_logits(const vector_model *m, const float *logits, size_t n)
{
    const json_t *wanted = json_object_get(m->object, "logits");
    double scale = 0;
    assert_int_equal(json_array_size(wanted), n);
    for (size_t i = 0; i < n; i++)
        scale = fmax(scale, fabs(json_number_value(json_array_get(wanted, i))));
    for (size_t i = 0; i < n; i++)
        check(m, "logit", i, logits[i], json_number_value(json_array_get(wanted, i)), scale);
}

static void check_label_logits(const vector_model *m)
{
    linnet_arena *arena = arena_of(m);
    linnet_error err = {0};
    const float *logits = NULL;
    assert_ok(linnet_arena_classify(arena, NULL, m->ids, m->n_ids, &logits, &err), &err);
    check_logits(m, logits, linnet_model_n_labels(m->model));
    linnet_arena_destroy(arena);
}

static void logits_are_those_of_transformers(void **state)
{
    (void)state;
    assert_true(n_cases() >= 16);
    for (size_t c = 0; c < n_cases(); c++) {
        vector_model m = vector_model_open(case_at(c));
        linnet_error err = {0};
        const float *logits = NULL;
        if (m.has_label) {
            check_label_logits(&m);
        } else {
            linnet_session *session = session_of(&m);
            assert_ok(linnet_session_feed(session, m.ids, m.n_ids, &logits, &err), &err);
            check_logits(&m, logits, linnet_model_shape_of(m.model)->vocabulary);
            linnet_session_destroy(session);
        }
        vector_model_close(&m);
    }
}

static void losses_are_those_of_transformers_and_peft(void **state)
{
    (void)state;
    for (size_t c = 0; c < n_cases(); c++) {
        vector_model m = vector_model_open(case_at(c));
        linnet_arena *arena = arena_of(&m);
        linnet_adapter *adapter = vector_adapter(&m);
        check_losses(&m, arena, NULL, json_object_get(m.object, "losses"));
        check_losses(&m, arena, adapter, json_object_get(json_object_get(m.object, "lora"), "losses"));
        linnet_adapter_destroy(adapter);
        linnet_arena_destroy(arena);
        vector_model_close(&m);
    }
}

static double norm_of(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return sqrt(sum);
}

static float *gradient_of(const vector_model *m, linnet_arena *arena, const linnet_adapter *adapter,
                          linnet_factors factors, const linnet_dropout *dropout, double *ret_sum)
{
    linnet_sequence sequence = sequence_of(m);
    linnet_error err = {0};
    size_t n_counted = 0;
    float *gradient = calloc(adapter->layout->n_parameters, sizeof(float));
    assert_non_null(gradient);
    assert_ok(linnet_arena_gradient(arena, adapter, factors, dropout, &sequence, 1, gradient, ret_sum,
                                    &n_counted, &err),
              &err);
    return gradient;
}

static void check_factor(const vector_model *m, const char *name, const float *got, size_t n,
                         const json_t *values, size_t first, double norm)
{
    check(m, name, n, norm_of(got, n), norm, norm);
    for (size_t i = 0; i < json_array_size(values); i++)
        check(m, name, first + i, got[first + i], json_number_value(json_array_get(values, i)), norm);
}

/* Norms and some elements of all gradients; dropout may be NULL. Returns the loss sum. */
static double check_gradients(const vector_model *m, const linnet_dropout *dropout, const json_t *all)
{
    linnet_arena *arena = arena_of(m);
    linnet_adapter *adapter = vector_adapter(m);
    const linnet_layout *layout = adapter->layout;
    double sum = 0;
    float *gradient = gradient_of(m, arena, adapter, LINNET_FACTORS_BOTH, dropout, &sum);
    assert_int_equal(json_array_size(all), layout->n_entries);
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *wanted = json_array_get(all, i);
        const char *name = vector_text(wanted, "name");
        const linnet_layout_entry *entry = linnet_layout_find(layout, name);
        assert_non_null(entry);
        size_t n_a = (size_t)entry->rank * entry->columns, n_b = (size_t)entry->rank * entry->rows;
        const json_t *b = json_object_get(wanted, "b");
        check_factor(m, name, gradient + entry->a_offset, n_a, json_object_get(wanted, "a"), 0,
                     vector_number(wanted, "norm_a"));
        check_factor(m, name, gradient + entry->b_offset, n_b, b, n_b - json_array_size(b),
                     vector_number(wanted, "norm_b"));
    }
    free(gradient);
    linnet_adapter_destroy(adapter);
    linnet_arena_destroy(arena);
    return sum;
}

static void gradients_are_those_of_peft(void **state)
{
    (void)state;
    for (size_t c = 0; c < n_cases(); c++) {
        vector_model m = vector_model_open(case_at(c));
        (void)check_gradients(&m, NULL, json_object_get(json_object_get(m.object, "lora"), "gradients"));
        vector_model_close(&m);
    }
}

static const json_t *case_named(const char *name)
{
    for (size_t c = 0; c < n_cases(); c++)
        if (strcmp(vector_text(case_at(c), "name"), name) == 0)
            return case_at(c);
    fail_msg("no case '%s'", name);
    return NULL;
}

/* peft drops what linnet drops: each matrix's input by the same factors, one for q, k and v where a file has
 * them in one. */
static void losses_and_gradients_with_dropout_are_those_of_peft(void **state)
{
    (void)state;
    const json_t *all = json_object_get(dropout_vectors, "cases");
    assert_true(json_array_size(all) >= 14);
    for (size_t c = 0; c < json_array_size(all); c++) {
        const json_t *wanted = json_array_get(all, c);
        vector_model m = vector_model_open(case_named(vector_text(wanted, "name")));
        linnet_dropout dropout = {.share = vector_number(wanted, "share"),
                                  .seed = vector_integer(dropout_vectors, "seed"),
                                  .step = vector_integer(dropout_vectors, "step"),
                                  .record = vector_integer(dropout_vectors, "record")};
        double want = vector_number(wanted, "loss");
        double got = check_gradients(&m, &dropout, json_object_get(wanted, "gradients"));
        check(&m, "loss with dropout", c, got, want, want);
        vector_model_close(&m);
    }
}

/* The loss along a direction, by central differences, is the gradient's product with it, with what is dropped
 * held fixed; with one factor alone the gradient of that factor is the same. factors: which the direction is
 * of. */
static void check_slope(const vector_model *m, linnet_arena *arena, const linnet_dropout *dropout,
                        linnet_factors factors)
{
    linnet_adapter *adapter = vector_adapter(m), *moved = NULL;
    linnet_error err = {0};
    size_t n = adapter->layout->n_parameters;
    double sum, step = 1e-4, ends[2];
    float *both = gradient_of(m, arena, adapter, LINNET_FACTORS_BOTH, dropout, &sum);
    float *gradient = gradient_of(m, arena, adapter, factors, dropout, &sum);
    double norm = norm_of(gradient, n);
    assert_true(norm > 1e-3);
    for (size_t e = 0; e < adapter->layout->n_entries; e++) {
        const linnet_layout_entry *entry = &adapter->layout->entries[e];
        size_t offset = factors == LINNET_FACTOR_A ? entry->a_offset : entry->b_offset;
        size_t n_factor = (size_t)entry->rank * (factors == LINNET_FACTOR_A ? entry->columns : entry->rows);
        assert_memory_equal(gradient + offset, both + offset, n_factor * sizeof(float));
    }
    assert_ok(linnet_adapter_copy(adapter, &moved, &err), &err);
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < n; i++)
            moved->data[i] = (float)(adapter->data[i] + (side ? step : -step) * gradient[i] / norm);
        free(gradient_of(m, arena, moved, LINNET_FACTOR_B, dropout, &ends[side]));
    }
    double slope = (ends[1] - ends[0]) / (2 * step);
    if (!(fabs(slope - norm) <= 2e-3 * norm))
        fail_msg("%s, factors %d: the loss rises by %.6g, its gradient says %.6g",
                 vector_text(m->object, "name"), (int)factors, slope, norm);
    free(gradient);
    free(both);
    linnet_adapter_destroy(moved);
    linnet_adapter_destroy(adapter);
}

static void gradients_are_slopes_of_the_loss(void **state)
{
    (void)state;
    const linnet_dropout some = {.share = 0.3, .seed = 5, .step = 2};
    const linnet_dropout *const dropouts[] = {NULL, &some};
    for (size_t c = 0; c < n_cases(); c++) {
        vector_model m = vector_model_open(case_at(c));
        linnet_arena *arena = arena_of(&m);
        for (size_t d = 0; d < ARRAY_LEN(dropouts); d++)
            for (int factors = LINNET_FACTOR_A; factors <= LINNET_FACTORS_BOTH; factors++)
                check_slope(&m, arena, dropouts[d], (linnet_factors)factors);
        linnet_arena_destroy(arena);
        vector_model_close(&m);
    }
}

/* One by one, in threes, and all at once: the cache makes no difference beyond rounding. */
static void tokens_may_be_fed_in_any_pieces(void **state)
{
    (void)state;
    for (size_t c = 0; c < n_cases(); c++) {
        if (is_encoder(case_at(c))) /* which has no cache */
            continue;
        vector_model m = vector_model_open(case_at(c));
        linnet_adapter *adapter = vector_adapter(&m);
        linnet_session *session = session_of(&m);
        linnet_error err = {0};
        size_t n_vocabulary = linnet_model_shape_of(m.model)->vocabulary;
        const float *logits = NULL;
        float *whole = malloc(n_vocabulary * sizeof(float));
        assert_non_null(whole);
        assert_ok(linnet_session_set_adapter(session, adapter, &err), &err);
        assert_ok(linnet_session_feed(session, m.ids, m.n_ids, &logits, &err), &err);
        memcpy(whole, logits, n_vocabulary * sizeof(float));
        double scale = norm_of(whole, n_vocabulary) / sqrt((double)n_vocabulary);
        for (size_t piece = 1; piece <= 3; piece += 2) {
            linnet_session_reset(session);
            for (size_t at = 0; at < m.n_ids; at += piece)
                assert_ok(linnet_session_feed(session, m.ids + at,
                                              m.n_ids - at < piece ? m.n_ids - at : piece, &logits, &err),
                          &err);
            for (size_t i = 0; i < n_vocabulary; i++)
                check(&m, "logit", i, logits[i], whole[i], scale);
        }
        free(whole);
        linnet_session_destroy(session);
        linnet_adapter_destroy(adapter);
        vector_model_close(&m);
    }
}

/* What may be missing: an output matrix of its own, biases of families that need none, factors of a rope. */
static bool is_optional(const json_t *object, const char *name)
{
    bool is_llama = strcmp(vector_text(object, "architecture"), "llama") == 0;
    return strcmp(name, "output.weight") == 0 || strncmp(name, "rope_", 5) == 0 ||
           (is_llama && strstr(name, ".bias"));
}

static void a_missing_tensor_is_named(void **state)
{
    (void)state;
    size_t n_refused = 0;
    for (size_t c = 0; c < n_cases(); c++) {
        const json_t *tensors = json_object_get(case_at(c), "tensors");
        for (size_t i = 0; i < json_array_size(tensors); i++) {
            const char *name = vector_text(json_array_get(tensors, i), "name");
            vector_model m = {.object = case_at(c)};
            linnet_error err = {0};
            vector_write_file(&m, name);
            linnet_status status = linnet_model_open(m.path, &m.model, &err);
            /* Without its q, k and v in one, a model is asked for attn_q. */
            bool is_named = strstr(err.message, name) ||
                            (strstr(name, "attn_qkv.weight") && strstr(err.message, "attn_q.weight"));
            if (is_optional(case_at(c), name) ? status != LINNET_OK : status == LINNET_OK || !is_named)
                fail_msg("%s without %s: %s '%s'", vector_text(case_at(c), "name"), name,
                         linnet_status_name(status), err.message);
            n_refused += status != LINNET_OK;
            vector_model_close(&m);
        }
    }
    assert_true(n_refused > 200);
}

static double loss_with(const vector_model *m, linnet_arena *arena, const linnet_adapter *adapter)
{
    linnet_sequence sequence = sequence_of(m);
    linnet_error err = {0};
    double sum = 0;
    size_t n_counted = 0;
    assert_ok(linnet_arena_score(arena, adapter, &sequence, &sum, &n_counted, NULL, &err), &err);
    return sum / (double)n_counted;
}

/* An adapter of some of the targets only, with another rank. */
static linnet_adapter *other_adapter(const vector_model *m, uint32_t targets)
{
    linnet_layout *layout = NULL;
    linnet_adapter *adapter = NULL;
    linnet_error err = {0};
    assert_ok(linnet_layout_create(linnet_model_gguf(m->model), 5, 7, targets, &layout, &err), &err);
    assert_ok(linnet_adapter_create(layout, &adapter, &err), &err);
    for (size_t i = 0; i < layout->n_parameters; i++)
        adapter->data[i] = (float)(0.3 * vector_uniform("other", i));
    linnet_layout_destroy(layout);
    return adapter;
}

/* The blend of two adapters is as good as their sum: halves of one are that one, 0 times one is nothing, and
 * the order does not matter. */
static void adapters_add_up(void **state)
{
    (void)state;
    for (size_t c = 0; c < n_cases(); c++) {
        vector_model m = vector_model_open(case_at(c));
        linnet_arena *arena = arena_of(&m);
        linnet_adapter *one = vector_adapter(&m),
                       *other = other_adapter(&m, UINT32_C(1) << LINNET_TARGET_FFN_DOWN);
        linnet_error err = {0};
        const struct {
            const linnet_adapter *adapters[2];
            float scales[2];
            double want;
        } cases[] = {
            {{one, one}, {0.5f, 0.5f}, loss_with(&m, arena, one)},
            {{one, other}, {1, 0}, loss_with(&m, arena, one)},
            {{one, other}, {0, 1}, loss_with(&m, arena, other)},
            {{one, other}, {0, 0}, loss_with(&m, arena, NULL)},
            {{one, other}, {0.7f, -1.5f}, 0},
            {{other, one}, {-1.5f, 0.7f}, 0},
        };
        double got[ARRAY_LEN(cases)];
        for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
            linnet_adapter *blend = NULL;
            assert_ok(linnet_adapter_blend(cases[i].adapters, cases[i].scales, 2, &blend, &err), &err);
            got[i] = loss_with(&m, arena, blend);
            if (i < 4)
                check(&m, "loss of a blend", i, got[i], cases[i].want, 1);
            linnet_adapter_destroy(blend);
        }
        check(&m, "loss of a blend", 4, got[4], got[5], 1);
        assert_true(fabs(got[4] - cases[0].want) > 1e-3);
        linnet_adapter_destroy(other);
        linnet_adapter_destroy(one);
        linnet_arena_destroy(arena);
        vector_model_close(&m);
    }
}

/* DoRA: rows whose magnitude is their length are those of plain LoRA; others are what the merged file has. */
static void magnitudes_set_the_lengths_of_rows(void **state)
{
    (void)state;
    for (size_t c = 0; c < n_cases(); c++) {
        vector_model m = vector_model_open(case_at(c));
        linnet_arena *arena = arena_of(&m);
        linnet_adapter *plain = vector_adapter(&m), *dora = vector_adapter(&m), *copy = NULL;
        const linnet_layout *layout = dora->layout;
        linnet_error err = {0};
        char path[80];
        size_t n = linnet_layout_rows_before(layout, layout->n_entries), at = 0, n_counted;
        double sum;
        linnet_sequence sequence = sequence_of(&m);
        dora->magnitudes = malloc(n * sizeof(float));
        assert_non_null(dora->magnitudes);
        for (size_t i = 0; i < n; i++)
            dora->magnitudes[i] = 1;
        assert_int_equal(linnet_arena_score(arena, dora, &sequence, &sum, &n_counted, NULL, &err),
                         LINNET_ERR_ARG);
        assert_ok(linnet_model_prepare_adapter(m.model, dora, &err), &err);
        for (size_t i = 0; i < n; i++) { /* gains are 1 / length now */
            dora->magnitudes[i] = 1 / dora->gains[i];
            dora->gains[i] *= dora->magnitudes[i];
        }
        check(&m, "loss", 0, loss_with(&m, arena, dora), loss_with(&m, arena, plain), 1);
        for (size_t e = 0; e < layout->n_entries; at += layout->entries[e++].rows)
            for (size_t r = 0; r < layout->entries[e].rows; r++) {
                float factor = (float)(1 + 0.3 * vector_uniform(layout->entries[e].name, r));
                dora->magnitudes[at + r] *= factor;
                dora->gains[at + r] *= factor;
            }
        (void)snprintf(path, sizeof(path), "%s-merged", m.path);
        assert_ok(linnet_adapter_merge(dora, linnet_model_gguf(m.model), LINNET_TENSOR_F32, path, &err),
                  &err);
        double want = loss_with(&m, arena, dora);
        vector_model merged = m;
        assert_ok(linnet_model_open(path, &merged.model, &err), &err);
        linnet_arena *other = arena_of(&merged);
        check(&m, "loss of the merged file", 0, loss_with(&merged, other, NULL), want, 1);
        assert_true(fabs(want - loss_with(&m, arena, plain)) > 1e-3);
        /* what is not done with it is refused */
        float *gradient = calloc(layout->n_parameters, sizeof(float));
        assert_non_null(gradient);
        assert_int_equal(linnet_arena_gradient(arena, dora, LINNET_FACTORS_BOTH, NULL, &sequence, 1, gradient,
                                               &sum, &n_counted, &err),
                         LINNET_ERR_UNSUPPORTED);
        assert_non_null(strstr(err.message, "DoRA"));
        assert_int_equal(linnet_adapter_copy(dora, &copy, &err), LINNET_ERR_UNSUPPORTED);
        assert_int_equal(linnet_adapter_save_gguf(dora, "llama", path, &err), LINNET_ERR_UNSUPPORTED);
        assert_int_equal(linnet_adapter_save_peft(dora, "llama", path, "", &err), LINNET_ERR_UNSUPPORTED);
        assert_int_equal(linnet_adapter_blend((const linnet_adapter *const[]){dora}, (const float[]){0.5f}, 1,
                                              &copy, &err),
                         LINNET_ERR_UNSUPPORTED);
        free(gradient);
        linnet_arena_destroy(other);
        linnet_model_close(merged.model);
        (void)unlink(path);
        linnet_adapter_destroy(plain);
        linnet_adapter_destroy(dora);
        linnet_arena_destroy(arena);
        vector_model_close(&m);
    }
}

/* In mid-text the past stays; swapped to and fro nothing has changed. */
static void an_adapter_may_be_swapped_in_mid_text(void **state)
{
    (void)state;
    vector_model m = vector_model_open(case_at(0));
    linnet_session *session = session_of(&m);
    linnet_adapter *adapter = vector_adapter(&m);
    linnet_error err = {0};
    size_t n = linnet_model_shape_of(m.model)->vocabulary;
    const float *logits = NULL;
    float *want = malloc(n * sizeof(float));
    assert_non_null(want);
    assert_ok(linnet_session_feed(session, m.ids, 9, &logits, &err), &err);
    assert_ok(linnet_session_feed(session, m.ids + 9, 1, &logits, &err), &err);
    memcpy(want, logits, n * sizeof(float));
    linnet_session_reset(session);
    assert_ok(linnet_session_feed(session, m.ids, 9, &logits, &err), &err);
    assert_ok(linnet_session_swap_adapter(session, adapter, &err), &err);
    assert_int_equal(linnet_session_n_tokens(session), 9);
    assert_ok(linnet_session_swap_adapter(session, NULL, &err), &err);
    assert_ok(linnet_session_feed(session, m.ids + 9, 1, &logits, &err), &err);
    assert_memory_equal(logits, want, n * sizeof(float));
    assert_ok(linnet_session_swap_adapter(session, adapter, &err), &err);
    assert_ok(linnet_session_feed(session, m.ids + 10, 1, &logits, &err), &err);
    memcpy(want, logits, n * sizeof(float));
    assert_ok(linnet_session_set_adapter(session, adapter, &err), &err);
    assert_int_equal(linnet_session_n_tokens(session), 0);
    assert_ok(linnet_session_feed(session, m.ids, 11, &logits, &err), &err);
    assert_memory_not_equal(logits, want, n * sizeof(float)); /* the first ten were read otherwise */
    free(want);
    linnet_adapter_destroy(adapter);
    linnet_session_destroy(session);
    vector_model_close(&m);
}

static void adapters_that_do_not_add_up_are_refused(void **state)
{
    (void)state;
    vector_model one = vector_model_open(case_at(0)), two = vector_model_open(case_at(9));
    linnet_adapter *list[2] = {vector_adapter(&one), vector_adapter(&two)}, *blend = NULL;
    linnet_error err = {0};
    const linnet_adapter *both[] = {list[0], list[1]}, *many[LINNET_RANK_MAX];
    float scales[LINNET_RANK_MAX] = {1, 1};
    assert_int_equal(linnet_adapter_blend(both, scales, 2, &blend, &err), LINNET_ERR_MISMATCH);
    scales[1] = NAN;
    assert_int_equal(linnet_adapter_blend(both, scales, 2, &blend, &err), LINNET_ERR_RANGE);
    for (size_t i = 0; i < LINNET_RANK_MAX; i++) {
        many[i] = list[0];
        scales[i] = 1;
    }
    assert_int_equal(linnet_adapter_blend(many, scales, LINNET_RANK_MAX, &blend, &err), LINNET_ERR_LIMIT);
    assert_null(blend);
    linnet_adapter_destroy(list[0]);
    linnet_adapter_destroy(list[1]);
    vector_model_close(&one);
    vector_model_close(&two);
}

static void learned_positions_bound_the_context(void **state)
{
    (void)state;
    for (size_t c = 0; c < n_cases(); c++) {
        const json_t *object = case_at(c);
        if (strcmp(vector_text(object, "architecture"), "gpt2") != 0)
            continue;
        vector_model m = vector_model_open(object);
        linnet_session *session = NULL;
        linnet_arena *arena = NULL;
        linnet_error err = {0};
        assert_int_equal(linnet_session_create(m.model, NULL, 65, &session, &err), LINNET_ERR_LIMIT);
        assert_non_null(strstr(err.message, "64 positions"));
        assert_int_equal(linnet_arena_create(m.model, NULL, 65, true, &arena, &err), LINNET_ERR_LIMIT);
        vector_model_close(&m);
        return;
    }
    fail_msg("no case of gpt2");
}

/* gelu as it is defined, and its slope, with every variant of the kernels; where exponentials end too. */
static void gelu_is_x_times_the_share_below_x(void **state)
{
    (void)state;
    enum { N = 1003 };
    const linnet_kernels *list[8];
    size_t n_kernels = linnet_kernels_available(list);
    for (size_t k = 0; k < n_kernels; k++) {
        const linnet_workspace work = {.product = {.kernels = list[k]}};
        float x[N], y[N], d_y[N];
        for (size_t i = 0; i < N; i++) {
            x[i] = i == 0 ? -1e30f : i == 1 ? 1e30f : (float)(-14 + 28.0 * (double)i / N);
            d_y[i] = 2;
        }
        linnet_activation_forward(&work, LINNET_ACTIVATION_GELU_ERF, x, NULL, N, y);
        for (size_t i = 0; i < N; i++) {
            double want = x[i] * 0.5 * erfc(-x[i] * M_SQRT1_2);
            if (!(fabs(y[i] - want) <= 1e-6 + 1e-7 * fabs(want)))
                fail_msg("%s: gelu(%g) is %g, not %g", list[k]->name, (double)x[i], (double)y[i], want);
        }
        float slopes[N];
        memcpy(slopes, x, sizeof(slopes));
        linnet_activation_backward(&work, LINNET_ACTIVATION_GELU_ERF, slopes, NULL, d_y, N);
        for (size_t i = 0; i < N; i++) {
            double density = exp(-0.5 * (double)x[i] * x[i]) / sqrt(2 * M_PI);
            double want = 2 * (0.5 * erfc(-x[i] * M_SQRT1_2) + (density > 0 ? x[i] * density : 0));
            if (!(fabs(slopes[i] - want) <= 2e-6))
                fail_msg("%s: the slope at %g is %g, not %g", list[k]->name, (double)x[i], (double)slopes[i],
                         want);
        }
    }
}

static int load_vectors(void **state)
{
    (void)state;
    vectors = vectors_load("architectures.json");
    dropout_vectors = vectors_load("dropout.json");
    return 0;
}

static int release_vectors(void **state)
{
    (void)state;
    json_decref(vectors);
    json_decref(dropout_vectors);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_those_of_transformers),
        cmocka_unit_test(losses_are_those_of_transformers_and_peft),
        cmocka_unit_test(gradients_are_those_of_peft),
        cmocka_unit_test(losses_and_gradients_with_dropout_are_those_of_peft),
        cmocka_unit_test(gradients_are_slopes_of_the_loss),
        cmocka_unit_test(tokens_may_be_fed_in_any_pieces),
        cmocka_unit_test(a_missing_tensor_is_named),
        cmocka_unit_test(adapters_add_up),
        cmocka_unit_test(magnitudes_set_the_lengths_of_rows),
        cmocka_unit_test(an_adapter_may_be_swapped_in_mid_text),
        cmocka_unit_test(adapters_that_do_not_add_up_are_refused),
        cmocka_unit_test(learned_positions_bound_the_context),
        cmocka_unit_test(gelu_is_x_times_the_share_below_x),
    };
    return cmocka_run_group_tests(tests, load_vectors, release_vectors);
}
