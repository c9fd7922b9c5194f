/* SPDX-License-Identifier: Apache-2.0 */
/* Losses and gradients of an arena against a naive pass in double and its central differences. */
#include "tiny_model.h"

enum { ALL_TARGETS = 127, N_IDS = 11 };

static linnet_error err;

static const tiny_spec plain = {.n_layers = 2,
                                .width = 32,
                                .ffn_width = 64,
                                .n_heads = 4,
                                .n_kv_heads = 2,
                                .vocabulary = 50,
                                .context = 40,
                                .tied = true};
static const tiny_spec odd = {.n_layers = 3,
                              .width = 24,
                              .ffn_width = 20,
                              .n_heads = 3,
                              .n_kv_heads = 1,
                              .vocabulary = 33,
                              .context = 40,
                              .head_width = 10,
                              .rope_width = 6};
static const tiny_spec eights = {.n_layers = 2,
                                 .width = 32,
                                 .ffn_width = 64,
                                 .n_heads = 2,
                                 .n_kv_heads = 2,
                                 .vocabulary = 50,
                                 .context = 40,
                                 .type = LINNET_TENSOR_Q8_0};
static const tiny_spec fours = {.n_layers = 1,
                                .width = 64,
                                .ffn_width = 32,
                                .n_heads = 4,
                                .n_kv_heads = 1,
                                .vocabulary = 50,
                                .context = 40,
                                .type = LINNET_TENSOR_Q4_0,
                                .tied = true};
/* Several vocabulary tiles, attention tiles and threads. */
static const tiny_spec wide = {.n_layers = 2,
                               .width = 128,
                               .ffn_width = 256,
                               .n_heads = 8,
                               .n_kv_heads = 4,
                               .vocabulary = 3000,
                               .context = 300,
                               .type = LINNET_TENSOR_F16,
                               .tied = true};

/** A model, its adapter, an arena, and a text of which some ids count. */
typedef struct fixture {
    tiny_model *tiny;
    linnet_model *model;
    linnet_adapter *adapter;
    linnet_arena *arena;
    int32_t *ids;
    uint8_t *counted;
    linnet_sequence sequence;
    size_t n_counted;
    float *gradient;
} fixture;

static fixture set_up(const tiny_spec *spec, uint32_t rank, uint32_t target_mask, linnet_thread_pool *pool,
                      size_t n_ids)
{
    fixture f = {.tiny = tiny_create(*spec)};
    f.model = tiny_open(f.tiny);
    f.adapter = tiny_adapter(f.model, rank, target_mask);
    assert_ok(linnet_arena_create(f.model, pool, 0, true, &f.arena, &err), &err);
    f.ids = malloc(n_ids * sizeof(f.ids[0]));
    f.counted = malloc(n_ids);
    f.gradient = calloc(f.adapter->layout->n_parameters, sizeof(float));
    assert_true(f.ids && f.counted && f.gradient);
    tiny_ids(f.tiny, rank, f.ids, n_ids);
    for (size_t i = 0; i < n_ids; i++) {
        f.counted[i] = i % 4 != 2; /* [0] is set, and to be ignored */
        f.n_counted += i > 0 && f.counted[i];
    }
    f.sequence = (linnet_sequence){.ids = f.ids, .counted = f.counted, .n_ids = n_ids};
    return f;
}

static void tear_down(fixture *f)
{
    free(f->ids);
    free(f->counted);
    free(f->gradient);
    linnet_arena_destroy(f->arena);
    linnet_adapter_destroy(f->adapter);
    linnet_model_close(f->model);
    tiny_destroy(f->tiny);
}

static double gradient_of(fixture *f, linnet_factors factors, double scale)
{
    double loss = -1;
    size_t n_counted = 0;
    assert_ok(linnet_arena_gradient(f->arena, f->adapter, factors, NULL, &f->sequence, scale, f->gradient,
                                    &loss, &n_counted, &err),
              &err);
    assert_int_equal(n_counted, f->n_counted);
    return loss;
}

static double score_of(fixture *f, linnet_arena *arena, const linnet_adapter *adapter, float *each)
{
    double loss = -1;
    size_t n_counted = 0;
    assert_ok(linnet_arena_score(arena, adapter, &f->sequence, &loss, &n_counted, each, &err), &err);
    assert_int_equal(n_counted, f->n_counted);
    return loss;
}

/* ---- losses ---- */

static void losses_are_those_of_the_naive_pass(void **state)
{
    static const tiny_spec *const specs[] = {&plain, &odd, &eights, &fours, &wide};
    (void)state;
    for (size_t c = 0; c < ARRAY_LEN(specs); c++) {
        fixture f = set_up(specs[c], 3, ALL_TARGETS, NULL, 37);
        double *parameters = tiny_parameters(f.adapter), want[37];
        tiny_lora lora = {f.adapter->layout, parameters};
        linnet_arena *scoring = NULL;
        float each[37], again[37];
        assert_ok(linnet_arena_create(f.model, NULL, 37, false, &scoring, &err), &err);
        for (int adapted = 0; adapted < 2; adapted++) {
            const linnet_adapter *adapter = adapted ? f.adapter : NULL;
            double sum = tiny_loss(f.tiny, adapted ? &lora : NULL, f.ids, f.counted, 37, want);
            double got = score_of(&f, f.arena, adapter, each);
            assert_true(fabs(got - sum) <= 2e-6 * sum);
            for (size_t i = 0; i < 37; i++) {
                assert_true(fabs(each[i] - want[i]) <= 3e-5);
                assert_true((each[i] == 0) == (i == 0 || !f.counted[i]));
            }
            assert_true(score_of(&f, scoring, adapter, again) == got); /* no checkpoints, the same bits */
            assert_memory_equal(each, again, sizeof(each));
        }
        linnet_arena_destroy(scoring);
        free(parameters);
        tear_down(&f);
    }
}

static void a_session_predicts_what_an_arena_scores(void **state)
{
    (void)state;
    fixture f = set_up(&wide, 4, ALL_TARGETS, NULL, 60);
    linnet_session *session = NULL;
    const float *logits = NULL;
    float each[60];
    (void)score_of(&f, f.arena, f.adapter, each);
    assert_ok(linnet_session_create(f.model, NULL, 0, &session, &err), &err);
    assert_ok(linnet_session_set_adapter(session, f.adapter, &err), &err);
    for (size_t t = 0; t + 1 < 60; t++) {
        double sum = 0;
        assert_ok(linnet_session_feed(session, f.ids + t, 1, &logits, &err), &err);
        for (size_t i = 0; i < f.tiny->spec.vocabulary; i++)
            sum += exp(logits[i]);
        double loss = log(sum) - logits[f.ids[t + 1]];
        if (f.counted[t + 1])
            assert_true(fabs(loss - each[t + 1]) < 3e-5);
    }
    linnet_session_destroy(session);
    tear_down(&f);
}

/* ---- gradients ---- */

static double difference(const fixture *f, double *parameters, size_t index)
{
    tiny_lora lora = {f->adapter->layout, parameters};
    double step = 1e-4, value = parameters[index], loss[2];
    for (int side = 0; side < 2; side++) {
        parameters[index] = value + (side ? step : -step);
        loss[side] = tiny_loss(f->tiny, &lora, f->ids, f->counted, f->sequence.n_ids, NULL);
    }
    parameters[index] = value;
    return (loss[1] - loss[0]) / (2 * step);
}

/* Every `stride`-th parameter of every factor against central differences of the naive pass. */
static void check_gradient(fixture *f, size_t stride)
{
    const linnet_layout *layout = f->adapter->layout;
    double *parameters = tiny_parameters(f->adapter);
    double loss = gradient_of(f, LINNET_FACTORS_BOTH, 1.0);
    assert_true(fabs(loss - tiny_loss(f->tiny, &(tiny_lora){layout, parameters}, f->ids, f->counted,
                                      f->sequence.n_ids, NULL)) <= 2e-6 * loss);
    for (size_t e = 0; e < layout->n_entries; e++) {
        const linnet_layout_entry *entry = &layout->entries[e];
        size_t offsets[2] = {entry->a_offset, entry->b_offset};
        size_t lengths[2] = {(size_t)entry->rank * entry->columns, (size_t)entry->rank * entry->rows};
        for (size_t part = 0; part < 2; part++) {
            double sum = 0;
            for (size_t i = 0; i < lengths[part]; i++)
                sum += pow(f->gradient[offsets[part] + i], 2);
            double typical = sqrt(sum / (double)lengths[part]);
            assert_true(typical > 0);
            for (size_t i = e % stride; i < lengths[part]; i += stride) {
                double got = f->gradient[offsets[part] + i],
                       want = difference(f, parameters, offsets[part] + i);
                if (!(fabs(got - want) <= 2e-5 * fabs(want) + 2e-5 * typical + 2e-6))
                    fail_msg("%s, factor %c, element %zu: %.8g, differences say %.8g", entry->name,
                             part ? 'B' : 'A', i, got, want);
            }
        }
    }
    free(parameters);
}

static void gradients_are_the_central_differences(void **state)
{
    static const tiny_spec *const specs[] = {&plain, &odd, &eights, &fours};
    (void)state;
    for (size_t c = 0; c < ARRAY_LEN(specs); c++) {
        fixture f = set_up(specs[c], 2, ALL_TARGETS, NULL, N_IDS);
        check_gradient(&f, 7);
        tear_down(&f);
    }
}

/* The backward pass stops at the lowest adapted linear: each one alone, and pairs. */
static void gradients_of_few_targets_are_the_central_differences(void **state)
{
    static const uint32_t masks[] = {1, 2, 4, 8, 16, 32, 64, 5, 72, 48};
    (void)state;
    for (size_t c = 0; c < ARRAY_LEN(masks); c++) {
        fixture f = set_up(&plain, 2, masks[c], NULL, N_IDS);
        check_gradient(&f, 13);
        tear_down(&f);
    }
}

/* A layout may adapt upper layers only; the layers below are then not differentiated. */
static void gradients_of_an_upper_layer_alone_are_the_same(void **state)
{
    (void)state;
    fixture f = set_up(&odd, 2, ALL_TARGETS, NULL, N_IDS);
    linnet_layout *layout = f.adapter->layout;
    size_t n = layout->n_parameters, n_each = layout->n_entries / 3;
    size_t first = layout->entries[2 * n_each].a_offset;
    float *all = malloc(n * sizeof(float));
    assert_non_null(all);
    memset(f.adapter->data, 0, first * sizeof(float)); /* layers 0 and 1 add nothing to the forward pass */
    (void)gradient_of(&f, LINNET_FACTORS_BOTH, 1.0);
    memcpy(all, f.gradient, n * sizeof(float));
    memset(f.gradient, 0, n * sizeof(float));
    memmove(layout->entries, layout->entries + 2 * n_each, n_each * sizeof(layout->entries[0]));
    layout->n_entries = n_each;
    (void)gradient_of(&f, LINNET_FACTORS_BOTH, 1.0);
    for (size_t i = 0; i < first; i++)
        assert_true(f.gradient[i] == 0);
    assert_memory_equal(f.gradient + first, all + first, (n - first) * sizeof(float));
    free(all);
    tear_down(&f);
}

static void one_factor_alone_gets_the_same_bits(void **state)
{
    (void)state;
    fixture f = set_up(&plain, 3, ALL_TARGETS, NULL, N_IDS);
    const linnet_layout *layout = f.adapter->layout;
    size_t n = layout->n_parameters;
    float *both = malloc(n * sizeof(float));
    assert_non_null(both);
    double loss = gradient_of(&f, LINNET_FACTORS_BOTH, 0.25);
    memcpy(both, f.gradient, n * sizeof(float));
    for (int factor = LINNET_FACTOR_A; factor <= LINNET_FACTOR_B; factor++) {
        memset(f.gradient, 0, n * sizeof(float));
        assert_true(gradient_of(&f, (linnet_factors)factor, 0.25) == loss);
        for (size_t e = 0; e < layout->n_entries; e++) {
            const linnet_layout_entry *entry = &layout->entries[e];
            size_t n_a = (size_t)entry->rank * entry->columns, n_b = (size_t)entry->rank * entry->rows;
            const float *a = f.gradient + entry->a_offset, *b = f.gradient + entry->b_offset;
            for (size_t i = 0; i < n_a; i++)
                assert_true(a[i] == (factor == LINNET_FACTOR_A ? both[entry->a_offset + i] : 0));
            for (size_t i = 0; i < n_b; i++)
                assert_true(b[i] == (factor == LINNET_FACTOR_B ? both[entry->b_offset + i] : 0));
        }
    }
    free(both);
    tear_down(&f);
}

static void gradients_are_scaled_and_added(void **state)
{
    (void)state;
    fixture f = set_up(&plain, 2, ALL_TARGETS, NULL, N_IDS);
    size_t n = f.adapter->layout->n_parameters;
    float *one = malloc(n * sizeof(float));
    assert_non_null(one);
    (void)gradient_of(&f, LINNET_FACTORS_BOTH, 1.0);
    memcpy(one, f.gradient, n * sizeof(float));
    (void)gradient_of(&f, LINNET_FACTORS_BOTH, -0.5); /* a power of two scales exactly */
    for (size_t i = 0; i < n; i++)
        assert_true(fabsf(f.gradient[i] - 0.5f * one[i]) <= 1e-6f * fabsf(one[i]) + 1e-9f);
    free(one);
    tear_down(&f);
}

static void threads_do_not_change_a_bit(void **state)
{
    enum { N = 290 };
    (void)state;
    float *want = NULL;
    double loss = 0;
    for (unsigned n_threads = 1; n_threads <= 3; n_threads++) {
        linnet_thread_pool *pool = NULL;
        assert_ok(linnet_thread_pool_create(n_threads, &pool, &err), &err);
        fixture f = set_up(&wide, 5, ALL_TARGETS, pool, N);
        size_t n_bytes = f.adapter->layout->n_parameters * sizeof(float);
        double got = gradient_of(&f, LINNET_FACTORS_BOTH, 1.0 / N);
        if (n_threads == 1) {
            want = malloc(n_bytes);
            assert_non_null(want);
            memcpy(want, f.gradient, n_bytes);
            loss = got;
        }
        assert_true(got == loss);
        assert_memory_equal(f.gradient, want, n_bytes);
        tear_down(&f);
        linnet_thread_pool_destroy(pool);
    }
    free(want);
}

/* ---- what counts ---- */

static void tokens_after_the_last_counted_one_do_not_matter(void **state)
{
    (void)state;
    fixture f = set_up(&plain, 2, ALL_TARGETS, NULL, N_IDS);
    size_t n = f.adapter->layout->n_parameters;
    float *want = malloc(n * sizeof(float));
    assert_non_null(want);
    memset(f.counted + 6, 0, N_IDS - 6);
    f.n_counted = 4; /* 1, 3, 4, 5 */
    double loss = gradient_of(&f, LINNET_FACTORS_BOTH, 1.0);
    memcpy(want, f.gradient, n * sizeof(float));
    memset(f.gradient, 0, n * sizeof(float));
    f.sequence.n_ids = 6;
    assert_true(gradient_of(&f, LINNET_FACTORS_BOTH, 1.0) == loss);
    assert_memory_equal(f.gradient, want, n * sizeof(float));
    free(want);
    tear_down(&f);
}

static void nothing_counted_is_a_loss_of_zero_and_no_gradient(void **state)
{
    (void)state;
    fixture f = set_up(&plain, 2, ALL_TARGETS, NULL, N_IDS);
    memset(f.counted + 1, 0, N_IDS - 1);
    f.n_counted = 0;
    for (size_t n_ids = 0; n_ids <= N_IDS; n_ids++) {
        f.sequence.n_ids = n_ids;
        assert_true(gradient_of(&f, LINNET_FACTORS_BOTH, 1.0) == 0);
        assert_true(score_of(&f, f.arena, f.adapter, NULL) == 0);
    }
    for (size_t i = 0; i < f.adapter->layout->n_parameters; i++)
        assert_true(f.gradient[i] == 0);
    tear_down(&f);
}

/* An arena that has seen other adapters, other texts and failures gives what a new one gives. */
static void an_arena_has_no_memory(void **state)
{
    (void)state;
    fixture f = set_up(&plain, 6, ALL_TARGETS, NULL, N_IDS), used = set_up(&plain, 2, 64, NULL, 40);
    linnet_arena *fresh = f.arena;
    size_t n = f.adapter->layout->n_parameters;
    float *want = malloc(n * sizeof(float));
    assert_non_null(want);
    double loss = gradient_of(&f, LINNET_FACTORS_BOTH, 1.0);
    memcpy(want, f.gradient, n * sizeof(float));
    memset(f.gradient, 0, n * sizeof(float));
    (void)gradient_of(&used, LINNET_FACTORS_BOTH, 1.0);
    (void)score_of(&used, used.arena, NULL, NULL);
    f.arena = used.arena;
    assert_true(gradient_of(&f, LINNET_FACTORS_BOTH, 1.0) == loss);
    assert_memory_equal(f.gradient, want, n * sizeof(float));
    f.arena = fresh;
    free(want);
    tear_down(&f);
    tear_down(&used);
}

/* ---- refusals ---- */

static void hopeless_requests_are_refused_and_change_nothing(void **state)
{
    (void)state;
    fixture f = set_up(&plain, 2, ALL_TARGETS, NULL, N_IDS), other = set_up(&odd, 2, ALL_TARGETS, NULL, 40);
    linnet_arena *scoring = NULL, *arena = NULL;
    double loss = 7;
    size_t n_counted = 9;
    int32_t bad[2][2] = {{1, -3}, {50, 1}};
    uint8_t counted[41] = {1, 1};
    linnet_factors both = LINNET_FACTORS_BOTH;
    assert_ok(linnet_arena_create(f.model, NULL, 20, false, &scoring, &err), &err);
    assert_int_equal(linnet_arena_gradient(scoring, f.adapter, both, NULL, &f.sequence, 1, f.gradient, &loss,
                                           &n_counted, &err),
                     LINNET_ERR_ARG);
    for (size_t i = 0; i < 2; i++) {
        linnet_sequence sequence = {.ids = bad[i], .counted = counted, .n_ids = 2};
        assert_int_equal(linnet_arena_score(f.arena, NULL, &sequence, &loss, &n_counted, NULL, &err),
                         LINNET_ERR_RANGE);
        assert_int_equal(linnet_arena_gradient(f.arena, f.adapter, both, NULL, &sequence, 1, f.gradient,
                                               &loss, &n_counted, &err),
                         LINNET_ERR_RANGE);
    }
    linnet_sequence long_one = {.ids = other.ids, .counted = counted, .n_ids = 21};
    assert_int_equal(linnet_arena_score(scoring, NULL, &long_one, &loss, &n_counted, NULL, &err),
                     LINNET_ERR_LIMIT);
    assert_int_equal(linnet_arena_gradient(f.arena, other.adapter, both, NULL, &f.sequence, 1, f.gradient,
                                           &loss, &n_counted, &err),
                     LINNET_ERR_MISMATCH);
    f.adapter->data[f.adapter->layout->entries[3].b_offset] = INFINITY;
    assert_int_equal(linnet_arena_gradient(f.arena, f.adapter, both, NULL, &f.sequence, 1, f.gradient, &loss,
                                           &n_counted, &err),
                     LINNET_ERR_RANGE);
    assert_int_equal(linnet_arena_create(f.model, NULL, UINT32_MAX, true, &arena, &err), LINNET_ERR_LIMIT);
    assert_null(arena);
    assert_true(loss == 7 && n_counted == 9);
    for (size_t i = 0; i < f.adapter->layout->n_parameters; i++)
        assert_true(f.gradient[i] == 0);
    linnet_arena_destroy(scoring);
    tear_down(&f);
    tear_down(&other);
}

static void bytes_tell_what_is_held(void **state)
{
    (void)state;
    fixture f = set_up(&plain, 2, ALL_TARGETS, NULL, N_IDS);
    linnet_arena *scoring = NULL;
    assert_ok(linnet_arena_create(f.model, NULL, 0, false, &scoring, &err), &err);
    size_t before = linnet_arena_bytes(f.arena);
    assert_true(before > linnet_arena_bytes(scoring));
    assert_true(before > 3 * 40 * 32 * sizeof(float)); /* checkpoints alone */
    (void)gradient_of(&f, LINNET_FACTORS_BOTH, 1.0);
    assert_int_equal(linnet_arena_bytes(f.arena) - before,
                     40 * 7 * 2 * sizeof(float)); /* h of seven linears */
    linnet_arena_destroy(scoring);
    tear_down(&f);
}

/* Bytes with the adapter's activations; 0: no such arena. */
static size_t bytes_within(const fixture *f, size_t bytes_max, uint32_t context_min, uint32_t *context)
{
    linnet_arena *arena = NULL;
    size_t needed = 0, n_bytes = 0;
    linnet_status status = linnet_arena_create_within(f->model, NULL, f->adapter, bytes_max, context_min,
                                                      true, context, &needed, &arena, &err);
    if (status == LINNET_OK)
        n_bytes = linnet_arena_bytes(arena);
    else
        assert_true(status == LINNET_ERR_LIMIT && needed > bytes_max);
    linnet_arena_destroy(arena);
    return n_bytes;
}

static void an_arena_takes_the_longest_context_within_its_bytes(void **state)
{
    (void)state;
    fixture f = set_up(&plain, 2, ALL_TARGETS, NULL, N_IDS);
    uint32_t context = 0;
    size_t full = bytes_within(&f, SIZE_MAX, 1, &context);
    assert_int_equal(context, 40); /* the model's */
    (void)gradient_of(&f, LINNET_FACTORS_BOTH, 1.0);
    assert_int_equal(linnet_arena_bytes(f.arena), full); /* nothing is added later */
    for (size_t bytes_max = full; bytes_max > full / 2; bytes_max -= full / 37) {
        context = 40;
        assert_true(bytes_within(&f, bytes_max, 1, &context) <= bytes_max);
        uint32_t longer = context + 1;
        if (context < 40 && bytes_within(&f, SIZE_MAX, 1, &longer) <= bytes_max)
            fail_msg("%u tokens are not the most that fit %zu bytes", (unsigned)context, bytes_max);
    }
    context = 40;
    assert_int_equal(bytes_within(&f, 10, 8, &context), 0);
    context = 8;
    size_t least = bytes_within(&f, SIZE_MAX, 1, &context);
    context = 40;
    assert_int_equal(bytes_within(&f, least, 8, &context), least);
    assert_int_equal(context, 8);
    tear_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_are_those_of_the_naive_pass),
        cmocka_unit_test(a_session_predicts_what_an_arena_scores),
        cmocka_unit_test(gradients_are_the_central_differences),
        cmocka_unit_test(gradients_of_few_targets_are_the_central_differences),
        cmocka_unit_test(gradients_of_an_upper_layer_alone_are_the_same),
        cmocka_unit_test(one_factor_alone_gets_the_same_bits),
        cmocka_unit_test(gradients_are_scaled_and_added),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(tokens_after_the_last_counted_one_do_not_matter),
        cmocka_unit_test(nothing_counted_is_a_loss_of_zero_and_no_gradient),
        cmocka_unit_test(an_arena_has_no_memory),
        cmocka_unit_test(hopeless_requests_are_refused_and_change_nothing),
        cmocka_unit_test(bytes_tell_what_is_held),
        cmocka_unit_test(an_arena_takes_the_longest_context_within_its_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
