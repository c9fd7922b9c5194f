/* SPDX-License-Identifier: Apache-2.0 */
/* Training with record-level privacy on a tiny model: what a unit adds to a step, how units are drawn, what
 * the noise is, and that nothing about a unit's data stops a training. */
#include "linnet/trainer.h"

#include "client/tiny_model.h"

#include <math.h>

enum { N_IDS = 12, ITEMS_MAX = 16, RANK = 2, SEED = 71, ALL_TARGETS = 127 };

static linnet_error err;

static const tiny_spec spec = {.n_layers = 1,
                               .width = 32,
                               .ffn_width = 48,
                               .n_heads = 4,
                               .n_kv_heads = 2,
                               .vocabulary = 40,
                               .context = 32,
                               .tied = true};

/* ---- a random stream that is keyed by the step ---- */

typedef struct stream {
    uint64_t seed;
    linnet_rng rng;
} stream;

static void stream_begin(void *context, uint32_t step)
{
    stream *s = context;
    linnet_rng_init(&s->rng, s->seed, step);
}

static void stream_fill(void *context, void *bytes, size_t n_bytes)
{
    stream *s = context;
    uint8_t *at = bytes;
    for (; n_bytes >= 8; at += 8, n_bytes -= 8)
        linnet_store_le64(at, linnet_rng_next(&s->rng));
    for (uint64_t word = linnet_rng_next(&s->rng); n_bytes > 0; n_bytes--, word >>= 8)
        *at++ = (uint8_t)word;
}

/* ---- a model, an adapter, and records of random ids ---- */

typedef struct world {
    tiny_model *tiny;
    linnet_model *model;
    linnet_adapter *adapter;
    linnet_arena *arena;
    int32_t ids[ITEMS_MAX][N_IDS];
    uint8_t counted[ITEMS_MAX][N_IDS];
    linnet_tokens items[ITEMS_MAX];
    size_t units[ITEMS_MAX];
    linnet_token_set set;
    stream stream;
} world;

/* Records of different lengths and counted parts, the i-th of unit units[i]; NULL: each its own. */
static void set_up(world *w, size_t n_items, const size_t *units)
{
    *w = (world){.tiny = tiny_create(spec), .stream = {.seed = SEED}};
    w->model = tiny_open(w->tiny);
    w->adapter = tiny_adapter(w->model, RANK, ALL_TARGETS);
    assert_ok(linnet_arena_create(w->model, NULL, 0, true, &w->arena, &err), &err);
    w->set = (linnet_token_set){.items = w->items, .units = w->units, .n_items = n_items};
    for (size_t i = 0; i < n_items; i++) {
        linnet_tokens *t = &w->items[i];
        *t = (linnet_tokens){.ids = w->ids[i], .counted = w->counted[i], .n_ids = N_IDS - i % 4};
        tiny_ids(w->tiny, i, t->ids, t->n_ids);
        for (size_t j = 1 + i % 3; j < t->n_ids; j++)
            t->n_counted += t->counted[j] = 1;
        w->set.n_counted += t->n_counted;
        w->units[i] = units ? units[i] : i;
        if (w->units[i] >= w->set.n_units)
            w->set.n_units = w->units[i] + 1;
    }
}

static void tear_down(world *w)
{
    linnet_arena_destroy(w->arena);
    linnet_adapter_destroy(w->adapter);
    linnet_model_close(w->model);
    tiny_destroy(w->tiny);
}

static size_t n_parameters(const world *w)
{
    return w->adapter->layout->n_parameters;
}

/* Plain SGD of rate 1, so that a step is the noised mean itself, on the world's stream. */
static linnet_training private_sgd(world *w, double probability, double clip_norm, double noise_multiplier)
{
    linnet_training t = linnet_training_default();
    t.optimizer = LINNET_OPTIMIZER_SGD;
    t.learning_rate = 1;
    t.clip_norm = 0;
    t.warmup_steps = 0;
    t.n_steps = 1000;
    t.privacy = (linnet_record_training){.probability = probability,
                                         .clip_norm = clip_norm,
                                         .noise_multiplier = noise_multiplier,
                                         .n_units = (uint32_t)(w->set.n_units > 0 ? w->set.n_units : 1),
                                         .random = stream_fill,
                                         .begin_step = stream_begin,
                                         .random_context = &w->stream};
    return t;
}

static linnet_trainer *new_trainer(world *w, const linnet_training *t)
{
    linnet_trainer *trainer = NULL;
    assert_ok(linnet_trainer_create(t, w->arena, &w->set, w->adapter, &trainer, &err), &err);
    return trainer;
}

static linnet_train_step take_step(linnet_trainer *trainer)
{
    linnet_train_step step = {0};
    assert_ok(linnet_trainer_step(trainer, &step, &err), &err);
    return step;
}

static double *doubles(size_t n)
{
    double *values = calloc(n, sizeof(*values));
    assert_non_null(values);
    return values;
}

/* What one step of a fresh trainer takes off the adapter, which is put back; the caller frees. */
static double *one_step(world *w, const linnet_training *t, linnet_train_step *ret_step)
{
    size_t n = n_parameters(w);
    double *moved = doubles(n);
    linnet_adapter *before = NULL;
    assert_ok(linnet_adapter_copy(w->adapter, &before, &err), &err);
    linnet_trainer *trainer = new_trainer(w, t);
    *ret_step = take_step(trainer);
    for (size_t i = 0; i < n; i++)
        moved[i] = (double)before->data[i] - (double)w->adapter->data[i];
    memcpy(w->adapter->data, before->data, n * sizeof(float));
    linnet_trainer_destroy(trainer);
    linnet_adapter_destroy(before);
    return moved;
}

static double norm_of(const double *values, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += values[i] * values[i];
    return sqrt(sum);
}

/* The gradient of a unit's mean loss, straight from the arena; the caller frees. */
static double *unit_gradient(world *w, size_t unit)
{
    size_t n = n_parameters(w), n_counted = 0, n_of_record = 0;
    double *result = doubles(n), loss = 0;
    float *gradient = calloc(n, sizeof(*gradient));
    assert_non_null(gradient);
    for (size_t i = 0; i < w->set.n_items; i++) {
        linnet_sequence sequence = linnet_tokens_sequence(&w->items[i]);
        if (w->units[i] != unit)
            continue;
        assert_ok(linnet_arena_gradient(w->arena, w->adapter, LINNET_FACTORS_BOTH, NULL, &sequence, 1,
                                        gradient, &loss, &n_of_record, &err),
                  &err);
        n_counted += n_of_record;
    }
    for (size_t i = 0; i < n; i++)
        result[i] = gradient[i] / (double)n_counted;
    free(gradient);
    return result;
}

/* ---- what a step is ---- */

static const size_t seven_in_five[] = {0, 1, 0, 2, 3, 3, 4};

/* The mean over the units of their clipped gradients. */
static double *clipped_mean(world *w, double clip_norm, size_t *ret_n_clipped)
{
    size_t n = n_parameters(w);
    double *mean = doubles(n);
    *ret_n_clipped = 0;
    for (size_t u = 0; u < w->set.n_units; u++) {
        double *gradient = unit_gradient(w, u), norm = norm_of(gradient, n);
        double scale = norm > clip_norm ? clip_norm / norm : 1;
        *ret_n_clipped += norm > clip_norm;
        for (size_t i = 0; i < n; i++)
            mean[i] += scale * gradient[i] / (double)w->set.n_units;
        free(gradient);
    }
    return mean;
}

/* A clip norm that some units are above and some below. */
static double middle_norm(world *w)
{
    double low = HUGE_VAL, high = 0;
    for (size_t u = 0; u < w->set.n_units; u++) {
        double *gradient = unit_gradient(w, u), norm = norm_of(gradient, n_parameters(w));
        low = fmin(low, norm);
        high = fmax(high, norm);
        free(gradient);
    }
    return (low + high) / 2;
}

static void expect_near(const double *got, const double *want, size_t n, double tolerance)
{
    for (size_t i = 0; i < n; i++) {
        if (!(fabs(got[i] - want[i]) <= tolerance))
            fail_msg("float %zu: %.9g, want %.9g within %g", i, got[i], want[i], tolerance);
    }
}

static void without_noise_a_step_is_the_mean_of_clipped_unit_gradients(void **state)
{
    (void)state;
    world w;
    size_t n_clipped = 0;
    linnet_train_step step;
    set_up(&w, ARRAY_LEN(seven_in_five), seven_in_five);
    double clip_norm = middle_norm(&w), noise = 1e-5;
    linnet_training t = private_sgd(&w, 1, clip_norm, noise);
    double *want = clipped_mean(&w, clip_norm, &n_clipped), *got = one_step(&w, &t, &step);
    assert_in_range(n_clipped, 1, 4);
    assert_int_equal(step.units, 5);
    assert_int_equal(step.counted, w.set.n_counted);
    /* 8 sigma of noise over the divisor, rounding included, and a float's rounding of the weights. */
    expect_near(got, want, n_parameters(&w), 8 * noise * clip_norm / 5 + 1e-6);
    assert_true(norm_of(want, n_parameters(&w)) > 0.01 * clip_norm);
    free(want);
    free(got);
    tear_down(&w);
}

static void only_the_active_factor_is_trained_and_noised(void **state)
{
    (void)state;
    world w;
    linnet_train_step step;
    set_up(&w, 3, NULL);
    linnet_training t = private_sgd(&w, 1, 1, 1);
    t.factors = LINNET_FACTOR_B;
    double *moved = one_step(&w, &t, &step);
    const linnet_layout *layout = w.adapter->layout;
    for (size_t e = 0; e < layout->n_entries; e++) {
        const linnet_layout_entry *entry = &layout->entries[e];
        size_t n_b = (size_t)entry->rows * entry->rank;
        assert_true(norm_of(moved + entry->a_offset, (size_t)entry->rank * entry->columns) == 0);
        assert_true(norm_of(moved + entry->b_offset, n_b) > 0.1 * sqrt((double)n_b) / 3);
    }
    free(moved);
    tear_down(&w);
}

static void records_of_one_unit_are_one_contribution(void **state)
{
    (void)state;
    static const size_t one[] = {0, 0, 0}, three[] = {0, 1, 2};
    const size_t *const cases[] = {one, three};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        world w;
        linnet_train_step step;
        set_up(&w, 3, cases[i]);
        for (size_t j = 1; j < 3; j++)
            w.items[j] = w.items[0]; /* three times the same record: gradients add up in full */
        linnet_training t = private_sgd(&w, 1, 1e-3, 1e-5);
        double *moved = one_step(&w, &t, &step), n_units = (double)w.set.n_units;
        double norm = norm_of(moved, n_parameters(&w)) * n_units / 1e-3; /* in clip norms */
        if (fabs(norm - n_units) > 0.05 * n_units)
            fail_msg("%.0f units moved the sum by %.4f clip norms", n_units, norm);
        free(moved);
        tear_down(&w);
    }
}

static void check_sensitivity(double dropout)
{
    world w;
    linnet_train_step step;
    set_up(&w, 6, NULL);
    double clip_norm = 0.5 * middle_norm(&w);
    linnet_training t = private_sgd(&w, 1, clip_norm, 1e-5);
    t.dropout = dropout;
    double *with = one_step(&w, &t, &step);
    for (size_t gone = 0; gone < 6; gone++) {
        linnet_token_set rest = w.set;
        linnet_tokens items[6];
        for (size_t i = 0; i < 5; i++)
            items[i] = w.items[i < gone ? i : i + 1];
        w.set = (linnet_token_set){.items = items, .units = w.units, .n_items = 5, .n_units = 5};
        double *without = one_step(&w, &t, &step); /* divided by the same public number */
        w.set = rest;
        for (size_t i = 0; i < n_parameters(&w); i++)
            without[i] = (without[i] - with[i]) * 6;
        double moved = norm_of(without, n_parameters(&w));
        if (!(moved <= 1.01 * clip_norm && moved > 0.1 * clip_norm))
            fail_msg("without unit %zu the sum moves by %g, clip norm %g", gone, moved, clip_norm);
        free(without);
    }
    free(with);
    tear_down(&w);
}

static void a_unit_moves_the_sum_by_at_most_the_clip_norm(void **state)
{
    (void)state;
    check_sensitivity(0);
}

/* What the units after it drop may not change where one is missing. */
static void a_unit_moves_the_sum_by_at_most_the_clip_norm_with_dropout_too(void **state)
{
    (void)state;
    check_sensitivity(0.4);
}

/* Without noise a step is the mean of the units' clipped gradients under what each of them dropped, which
 * another step and another seed do not drop. */
static void units_drop_something_else_in_each_step(void **state)
{
    (void)state;
    world w;
    linnet_train_step step;
    set_up(&w, 4, NULL);
    linnet_training t = private_sgd(&w, 1, 4 * middle_norm(&w), 1e-5), other = t, plain = t;
    t.dropout = other.dropout = 0.4;
    other.seed = 1;
    double *first = one_step(&w, &t, &step), *same = one_step(&w, &t, &step);
    double *seed = one_step(&w, &other, &step), *none = one_step(&w, &plain, &step);
    size_t n = n_parameters(&w);
    double size = norm_of(none, n);
    double *const others[] = {seed, none};
    expect_near(same, first, n, 0); /* one stream of noise, so the same bits */
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        for (size_t j = 0; j < n; j++)
            others[i][j] -= first[j];
        assert_true(norm_of(others[i], n) > 0.02 * size);
    }
    t.learning_rate = 1e-12; /* the weights stay */
    linnet_trainer *trainer = new_trainer(&w, &t);
    double loss = take_step(trainer).loss;
    assert_true(fabs(take_step(trainer).loss - loss) > 1e-6);
    linnet_trainer_destroy(trainer);
    free(first);
    free(same);
    free(seed);
    free(none);
    tear_down(&w);
}

/* ---- draws and noise ---- */

static void units_are_drawn_as_often_as_their_probability_says(void **state)
{
    (void)state;
    static const double probabilities[] = {0.05, 0.3, 0.5, 0.9};
    enum { STEPS = 150, UNITS = 10 };
    for (size_t i = 0; i < ARRAY_LEN(probabilities); i++) {
        world w;
        double p = probabilities[i], n_drawn = 0, sum2 = 0;
        set_up(&w, UNITS, NULL);
        linnet_training t = private_sgd(&w, p, 1, 1);
        t.learning_rate = 1e-6;
        linnet_trainer *trainer = new_trainer(&w, &t);
        for (int s = 0; s < STEPS; s++) {
            double units = (double)take_step(trainer).units;
            n_drawn += units;
            sum2 += (units - p * UNITS) * (units - p * UNITS);
        }
        double variance = UNITS * p * (1 - p), mean = STEPS * UNITS * p;
        if (fabs(n_drawn - mean) > 5 * sqrt(STEPS * variance))
            fail_msg("seed %d: %.0f units drawn with probability %g, want about %.0f", SEED, n_drawn, p,
                     mean);
        if (fabs(sum2 / STEPS / variance - 1) > 5 * sqrt((2 + 1 / variance) / STEPS)) /* not independent */
            fail_msg("seed %d: variance %g of the drawn units, want about %g", SEED, sum2 / STEPS, variance);
        linnet_trainer_destroy(trainer);
        tear_down(&w);
    }
}

static void an_empty_draw_is_a_step_with_noise_only(void **state)
{
    (void)state;
    for (size_t n_items = 0; n_items <= 4; n_items += 4) {
        world w;
        linnet_train_step step;
        set_up(&w, n_items, NULL);
        linnet_training t = private_sgd(&w, 1e-12, 2, 1.5);
        t.learning_rate = 1e-12;
        t.privacy.n_units = 4;
        double *moved = one_step(&w, &t, &step), n = (double)n_parameters(&w);
        assert_int_equal(step.units, 0);
        assert_int_equal(step.counted, 0);
        assert_true(isnan(step.loss));
        /* Rate and probability cancel: sigma = noise x clip norm / nominal units, and up to 3 % more. */
        double deviation = norm_of(moved, n_parameters(&w)) / sqrt(n), want = 1.5 * 2 / 4.0;
        double slack = 5 / sqrt(2 * n);
        if (!(deviation > want * (1 - slack) && deviation < want * (1.03 + slack)))
            fail_msg("seed %d: noise of %g, want about %g", SEED, deviation, want);
        free(moved);
        tear_down(&w);
    }
}

static void a_unit_that_is_not_finite_counts_as_zero_in_silence(void **state)
{
    (void)state;
    static const size_t units[] = {0, 1, 1, 2};
    world w;
    linnet_train_step good, broken;
    set_up(&w, 4, units);
    double clip_norm = 0.5 * middle_norm(&w);
    linnet_training t = private_sgd(&w, 1, clip_norm, 1e-5);
    double *of_one = unit_gradient(&w, 1), *all = one_step(&w, &t, &good);
    w.ids[2][3] = (int32_t)spec.vocabulary + 7; /* refused by the arena as a loss that is not finite */
    double *rest = one_step(&w, &t, &broken), scale = clip_norm / norm_of(of_one, n_parameters(&w));
    assert_true(scale < 1);
    for (size_t i = 0; i < n_parameters(&w); i++)
        rest[i] += scale * of_one[i] / 3;
    expect_near(rest, all, n_parameters(&w), 16 * 1e-5 * clip_norm / 3 + 1e-6);
    assert_int_equal(broken.units, good.units);
    assert_true(isfinite(broken.loss));
    free(of_one);
    free(all);
    free(rest);
    tear_down(&w);
}

/* ---- the same bits ---- */

/* The adapter after six steps, moved into a new trainer by a checkpoint after `cut` of them (0: never). */
static linnet_adapter *train_six(uint64_t seed, bool seeded, uint32_t cut)
{
    world w;
    linnet_adapter *trained = NULL;
    linnet_buffer bytes = {0};
    set_up(&w, ARRAY_LEN(seven_in_five), seven_in_five);
    linnet_training t = private_sgd(&w, 0.6, 0.5, 0.8);
    t.optimizer = LINNET_OPTIMIZER_ADAMW;
    t.dropout = 0.1;
    t.learning_rate = 1e-2;
    t.n_steps = 6;
    w.stream.seed = seed;
    if (!seeded)
        t.privacy.random = NULL;
    if (!seeded)
        t.privacy.begin_step = NULL;
    linnet_trainer *trainer = new_trainer(&w, &t);
    while (!linnet_trainer_is_done(trainer)) {
        if (take_step(trainer).step != cut)
            continue;
        assert_ok(linnet_trainer_save(trainer, &bytes, &err), &err);
        linnet_trainer_destroy(trainer);
        linnet_adapter_init(w.adapter, 99); /* what was there does not matter */
        w.stream.rng = (linnet_rng){{0}};
        trainer = new_trainer(&w, &t);
        assert_ok(linnet_trainer_restore(trainer, bytes.bytes, bytes.n_bytes, &err), &err);
    }
    assert_ok(linnet_adapter_copy(w.adapter, &trained, &err), &err);
    linnet_buffer_release(&bytes);
    linnet_trainer_destroy(trainer);
    tear_down(&w);
    return trained;
}

static bool has_same_bits(linnet_adapter *a, linnet_adapter *b)
{
    bool same = memcmp(a->data, b->data, a->layout->n_parameters * sizeof(float)) == 0;
    linnet_adapter_destroy(b);
    return same;
}

static void one_seeded_stream_gives_the_same_bits_and_another_does_not(void **state)
{
    (void)state;
    linnet_adapter *first = train_six(1, true, 0);
    assert_true(has_same_bits(first, train_six(1, true, 0)));
    assert_false(has_same_bits(first, train_six(2, true, 0)));
    linnet_adapter_destroy(first);
}

static void the_system_generator_never_gives_the_same_bits(void **state)
{
    (void)state;
    linnet_adapter *first = train_six(1, false, 0);
    assert_false(has_same_bits(first, train_six(1, false, 0)));
    linnet_adapter_destroy(first);
}

static void a_stream_keyed_by_the_step_resumes_to_the_same_bits(void **state)
{
    (void)state;
    linnet_adapter *whole = train_six(1, true, 0);
    for (uint32_t cut = 1; cut <= 6; cut++) {
        if (!has_same_bits(whole, train_six(1, true, cut)))
            fail_msg("other bits after a stop after step %u", (unsigned)cut);
    }
    linnet_adapter_destroy(whole);
}

static void a_checkpoint_of_other_privacy_is_refused(void **state)
{
    (void)state;
    static const size_t other_units[] = {0, 1, 1, 2, 3, 3, 4};
    world w;
    linnet_buffer bytes = {0};
    set_up(&w, ARRAY_LEN(seven_in_five), seven_in_five);
    linnet_training t = private_sgd(&w, 0.5, 1, 1);
    linnet_trainer *trainer = new_trainer(&w, &t);
    (void)take_step(trainer);
    assert_ok(linnet_trainer_save(trainer, &bytes, &err), &err);
    linnet_trainer_destroy(trainer);
    linnet_training cases[6] = {t, t, t, t, t, t};
    cases[1].privacy.probability = 0.25;
    cases[2].privacy.clip_norm = 2;
    cases[3].privacy.noise_multiplier = 2;
    cases[4].privacy.n_units = 6;
    cases[5].privacy.probability = 0;
    for (size_t i = 0; i <= ARRAY_LEN(cases); i++) {
        if (i == ARRAY_LEN(cases))
            memcpy(w.units, other_units, sizeof(other_units));
        trainer = new_trainer(&w, &cases[i % ARRAY_LEN(cases)]);
        assert_int_equal(linnet_trainer_restore(trainer, bytes.bytes, bytes.n_bytes, &err),
                         i == 0 ? LINNET_OK : LINNET_ERR_MISMATCH);
        linnet_trainer_destroy(trainer);
    }
    linnet_buffer_release(&bytes);
    tear_down(&w);
}

/* ---- settings, and whether it learns ---- */

static void settings_that_give_no_privacy_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *words;
        double probability, clip_norm, noise_multiplier;
        uint32_t n_units;
        bool without_units;
    } cases[] = {
        {"probability", NAN, 1, 1, 5, false},
        {"probability", -0.1, 1, 1, 5, false},
        {"probability", 1.1, 1, 1, 5, false},
        {"clip norm", 0.5, 0, 1, 5, false},
        {"clip norm", 0.5, NAN, 1, 5, false},
        {"noise", 0.5, 1, 0, 5, false},
        {"noise", 0.5, 1, -1, 5, false},
        {"noise", 0.5, 1, NAN, 5, false},
        {"units: at least", 0.5, 1, 1, 0, false},
        {"units of the records", 0.5, 1, 1, 5, true},
        {"", 0.5, HUGE_VAL, 1, 5, false},
        {"", 0.5, 1, HUGE_VAL, 5, false},
        {"", 0.5, 1, 1e9, 5, false},
    };
    world w;
    set_up(&w, 5, NULL);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_training t =
            private_sgd(&w, cases[i].probability, cases[i].clip_norm, cases[i].noise_multiplier);
        linnet_trainer *trainer = NULL;
        t.privacy.n_units = cases[i].n_units;
        w.set.units = cases[i].without_units ? NULL : w.units;
        linnet_status got = linnet_trainer_create(&t, w.arena, &w.set, w.adapter, &trainer, &err);
        if ((got != LINNET_ERR_ARG && got != LINNET_ERR_RANGE) || !strstr(err.message, cases[i].words))
            fail_msg("case %zu: got %d '%s'", i, (int)got, err.message);
        assert_null(trainer);
    }
    tear_down(&w);
}

static double mean_loss(const world *w)
{
    double sum = 0;
    size_t n = 0;
    assert_ok(linnet_evaluate(w->arena, w->adapter, &w->set, &sum, &n, &err), &err);
    return sum / (double)n;
}

static void training_learns_through_moderate_noise(void **state)
{
    (void)state;
    world w;
    set_up(&w, 12, NULL);
    linnet_training t = private_sgd(&w, 0.5, 1, 0.05);
    t.optimizer = LINNET_OPTIMIZER_ADAMW;
    t.learning_rate = 1e-2;
    t.n_steps = 80;
    double before = mean_loss(&w);
    linnet_trainer *trainer = new_trainer(&w, &t);
    while (!linnet_trainer_is_done(trainer))
        (void)take_step(trainer);
    double after = mean_loss(&w);
    if (!(after < 0.8 * before))
        fail_msg("seed %d: loss %.4f after %.4f", SEED, after, before);
    linnet_trainer_destroy(trainer);
    tear_down(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_noise_a_step_is_the_mean_of_clipped_unit_gradients),
        cmocka_unit_test(only_the_active_factor_is_trained_and_noised),
        cmocka_unit_test(records_of_one_unit_are_one_contribution),
        cmocka_unit_test(a_unit_moves_the_sum_by_at_most_the_clip_norm),
        cmocka_unit_test(a_unit_moves_the_sum_by_at_most_the_clip_norm_with_dropout_too),
        cmocka_unit_test(units_drop_something_else_in_each_step),
        cmocka_unit_test(units_are_drawn_as_often_as_their_probability_says),
        cmocka_unit_test(an_empty_draw_is_a_step_with_noise_only),
        cmocka_unit_test(a_unit_that_is_not_finite_counts_as_zero_in_silence),
        cmocka_unit_test(one_seeded_stream_gives_the_same_bits_and_another_does_not),
        cmocka_unit_test(the_system_generator_never_gives_the_same_bits),
        cmocka_unit_test(a_stream_keyed_by_the_step_resumes_to_the_same_bits),
        cmocka_unit_test(a_checkpoint_of_other_privacy_is_refused),
        cmocka_unit_test(settings_that_give_no_privacy_are_refused),
        cmocka_unit_test(training_learns_through_moderate_noise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
