/* SPDX-License-Identifier: Apache-2.0 */
/* The trainer's rules on a loss that can be done on paper: this program has its own linnet_arena_gradient, a
 * paraboloid over the adapter's floats, so rates, clipping, decay, order and checkpoints are checked without
 * a model. */
#include "linnet/trainer.h"

#include "client/client_fixture.h"

#include <math.h>

/* ---- a loss of our own: n_counted x 1/2 |x - target|^2, the target being the record's first id ---- */

struct linnet_arena {
    bool breaks;        /* the loss is NaN */
    int32_t seen[4096]; /* first ids of the records, in order */
    linnet_dropout dropouts[4096];
    size_t n_seen;
};

linnet_status linnet_arena_gradient(linnet_arena *arena, const linnet_adapter *adapter,
                                    linnet_factors factors, const linnet_dropout *dropout,
                                    const linnet_sequence *sequence, double scale, float *gradient,
                                    double *ret_loss_sum, size_t *ret_n_counted, linnet_error *err)
{
    (void)err;
    double sum = 0, n = (double)(sequence->n_ids - 1);
    for (size_t e = 0; e < adapter->layout->n_entries; e++) {
        const linnet_layout_entry *entry = &adapter->layout->entries[e];
        size_t n_a = (size_t)entry->rank * entry->columns, n_b = (size_t)entry->rows * entry->rank;
        for (size_t i = entry->a_offset; i < entry->b_offset + n_b; i++) {
            double d = (double)adapter->data[i] - sequence->ids[0];
            sum += 0.5 * d * d;
            bool is_a = i < entry->a_offset + n_a;
            if (factors & (is_a ? LINNET_FACTOR_A : LINNET_FACTOR_B))
                gradient[i] = (float)(gradient[i] + scale * n * d);
        }
    }
    arena->dropouts[arena->n_seen % ARRAY_LEN(arena->seen)] = *dropout;
    arena->seen[arena->n_seen++ % ARRAY_LEN(arena->seen)] = sequence->ids[0];
    *ret_loss_sum = arena->breaks ? NAN : n * sum;
    *ret_n_counted = (size_t)n;
    return LINNET_OK;
}

linnet_status linnet_arena_score(linnet_arena *arena, const linnet_adapter *adapter,
                                 const linnet_sequence *sequence, double *ret_loss_sum, size_t *ret_n_counted,
                                 float *ret_each, linnet_error *err)
{
    (void)arena, (void)adapter, (void)ret_each, (void)err;
    *ret_loss_sum = sequence->ids[0];
    *ret_n_counted = sequence->n_ids - 1;
    return LINNET_OK;
}

/* One adapted matrix of 2 x 3 with rank 1: A has floats 0 to 2, B 3 and 4. */
static linnet_adapter *new_adapter(float value)
{
    linnet_layout_entry entry = {
        .name = "blk.0.attn_q.weight", .rows = 2, .columns = 3, .rank = 1, .b_offset = 3};
    linnet_layout layout = {
        .alpha = 1, .n_entries = 1, .entries = &entry, .n_parameters = 5, .n_a = 3, .n_b = 2};
    linnet_adapter *adapter = NULL;
    linnet_error err = {0};
    must(linnet_adapter_create(&layout, &adapter, &err), &err);
    for (size_t i = 0; i < 5; i++)
        adapter->data[i] = value;
    return adapter;
}

/* Records whose first ids are 1, 2, 3, ... n, each of the same length. */
typedef struct records {
    int32_t ids[16][4];
    uint8_t counted[4];
    linnet_tokens items[16];
    linnet_token_set set;
} records;

static records *make_records(records *r, size_t n, const int32_t *first)
{
    memset(r, 0, sizeof(*r));
    memset(r->counted + 1, 1, 3);
    for (size_t i = 0; i < n; i++) {
        r->ids[i][0] = first ? first[i] : (int32_t)i + 1;
        r->items[i] = (linnet_tokens){.ids = r->ids[i], .counted = r->counted, .n_ids = 4, .n_counted = 3};
    }
    r->set = (linnet_token_set){.items = r->items, .n_items = n, .n_counted = 3 * n};
    return r;
}

static linnet_training plain_sgd(double rate)
{
    linnet_training t = linnet_training_default();
    t.optimizer = LINNET_OPTIMIZER_SGD;
    t.learning_rate = rate;
    t.clip_norm = 0;
    t.warmup_steps = 0;
    t.batch_records = 1;
    t.shuffle = false;
    t.n_steps = 10;
    return t;
}

typedef struct run_state {
    linnet_arena arena;
    records records;
    linnet_adapter *adapter;
    linnet_trainer *trainer;
} run_state;

static void start(run_state *r, const linnet_training *training, size_t n_records, const int32_t *first,
                  float value)
{
    linnet_error err = {0};
    memset(r, 0, sizeof(*r));
    make_records(&r->records, n_records, first);
    r->adapter = new_adapter(value);
    must(linnet_trainer_create(training, &r->arena, &r->records.set, r->adapter, &r->trainer, &err), &err);
}

static linnet_train_step take_step(run_state *r)
{
    linnet_train_step step = {0};
    linnet_error err = {0};
    must(linnet_trainer_step(r->trainer, &step, &err), &err);
    return step;
}

static void finish(run_state *r)
{
    linnet_trainer_destroy(r->trainer);
    linnet_adapter_destroy(r->adapter);
}

static void sgd_goes_against_the_mean_gradient(void **state)
{
    (void)state;
    linnet_training t = plain_sgd(0.1);
    t.batch_records = 2;
    t.learning_rate_a = 0.2;
    run_state r;
    start(&r, &t, 2, NULL, 5);
    linnet_train_step step =
        take_step(&r); /* targets 1 and 2: gradient 5 - 1.5 = 3.5 in each of five floats */
    assert_true(fabs(step.loss - 5 * 0.5 * (4 * 4 + 3 * 3) / 2.0) < 1e-6);
    assert_true(fabs(step.gradient_norm - 3.5 * sqrt(5)) < 1e-6);
    assert_int_equal(step.tokens, 8);
    assert_int_equal(step.counted, 6);
    assert_true(fabs(r.adapter->data[0] - (5 - 0.2 * 3.5)) < 1e-6);
    assert_true(fabs(r.adapter->data[4] - (5 - 0.1 * 3.5)) < 1e-6);
    finish(&r);
}

static void factors_that_are_not_active_stay(void **state)
{
    (void)state;
    for (linnet_factors factors = LINNET_FACTOR_A; factors <= LINNET_FACTOR_B; factors++) {
        linnet_training t = plain_sgd(0.1);
        t.factors = factors;
        t.optimizer = factors == LINNET_FACTOR_A ? LINNET_OPTIMIZER_SGD : LINNET_OPTIMIZER_ADAMW;
        run_state r;
        start(&r, &t, 1, NULL, 5);
        linnet_train_step step = take_step(&r);
        assert_int_equal(r.adapter->data[0] == 5, factors == LINNET_FACTOR_B);
        assert_int_equal(r.adapter->data[3] == 5, factors == LINNET_FACTOR_A);
        assert_true(fabs(step.gradient_norm - 4 * sqrt(factors == LINNET_FACTOR_A ? 3 : 2)) < 1e-6);
        finish(&r);
    }
}

static void adamw_follows_its_paper(void **state)
{
    (void)state;
    linnet_training t = plain_sgd(0.01);
    t.optimizer = LINNET_OPTIMIZER_ADAMW;
    t.weight_decay = 0.1;
    run_state r;
    start(&r, &t, 1, NULL, 5);
    double p = 5, m = 0, v = 0;
    for (int step = 1; step <= 10; step++) {
        double g = p - 1;
        m = 0.9 * m + 0.1 * g;
        v = 0.999 * v + 0.001 * g * g;
        p = p * (1 - 0.01 * 0.1) -
            0.01 * (m / (1 - pow(0.9, step))) / (sqrt(v / (1 - pow(0.999, step))) + 1e-8);
        (void)take_step(&r);
        if (fabs(r.adapter->data[2] - p) > 2e-6)
            fail_msg("step %d: %.9g, want %.9g", step, (double)r.adapter->data[2], p);
    }
    finish(&r);
}

static void clipping_bounds_the_norm_over_all_factors(void **state)
{
    (void)state;
    static const double clips[] = {0, 1, 100};
    for (size_t i = 0; i < ARRAY_LEN(clips); i++) {
        linnet_training t = plain_sgd(1);
        t.clip_norm = clips[i];
        run_state r;
        start(&r, &t, 1, NULL, 5);
        double norm = take_step(&r).gradient_norm, moved = (5 - (double)r.adapter->data[0]) * sqrt(5);
        assert_true(fabs(norm - 4 * sqrt(5)) < 1e-6); /* before clipping */
        assert_true(fabs(moved - (clips[i] == 1 ? 1 : norm)) < 1e-5);
        finish(&r);
    }
}

static void rates_follow_warm_up_and_schedule(void **state)
{
    (void)state;
    static const double pi = 3.14159265358979323846;
    static const struct {
        linnet_schedule schedule;
        uint32_t warmup;
    } cases[] = {{LINNET_SCHEDULE_CONSTANT, 0},
                 {LINNET_SCHEDULE_CONSTANT, 4},
                 {LINNET_SCHEDULE_COSINE, 0},
                 {LINNET_SCHEDULE_COSINE, 3}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_training t = plain_sgd(0.5);
        t.schedule = cases[i].schedule;
        t.warmup_steps = cases[i].warmup;
        run_state r;
        start(&r, &t, 1, NULL, 5);
        for (uint32_t step = 1; step <= 10; step++) {
            double want = 0.5 * (step < cases[i].warmup ? (double)step / cases[i].warmup : 1);
            if (cases[i].schedule == LINNET_SCHEDULE_COSINE)
                want *= 0.02 + 0.98 * 0.5 * (1 + cos(pi * (step - 1) / 9.0));
            double got = take_step(&r).learning_rate;
            if (fabs(got - want) > 1e-12)
                fail_msg("case %zu, step %u: %.9g, want %.9g", i, (unsigned)step, got, want);
        }
        assert_true(linnet_trainer_is_done(r.trainer));
        linnet_train_step step = {.step = 77};
        linnet_error err = {0};
        assert_int_equal(linnet_trainer_step(r.trainer, &step, &err), LINNET_ERR_ARG);
        assert_int_equal(step.step, 77);
        finish(&r);
    }
}

static void prox_pulls_back_to_the_start(void **state)
{
    (void)state;
    linnet_training t = plain_sgd(0.1);
    t.prox_mu = 2;
    run_state r;
    start(&r, &t, 1, NULL, 5);
    double p = 5;
    for (int step = 0; step < 5; step++) {
        p -= 0.1 * ((p - 1) + 2 * (p - 5));
        (void)take_step(&r);
        assert_true(fabs(r.adapter->data[1] - p) < 1e-5);
    }
    finish(&r);
}

static void a_loss_that_is_not_finite_keeps_the_adapter(void **state)
{
    (void)state;
    linnet_training t = plain_sgd(0.1);
    run_state r;
    start(&r, &t, 1, NULL, 5);
    (void)take_step(&r);
    float before = r.adapter->data[0];
    linnet_train_step step = {0};
    linnet_error err = {0};
    r.arena.breaks = true;
    assert_int_equal(linnet_trainer_step(r.trainer, &step, &err), LINNET_ERR_RANGE);
    assert_non_null(strstr(err.message, "step 2"));
    assert_true(r.adapter->data[0] == before);
    assert_int_equal(linnet_trainer_steps(r.trainer), 1);
    r.arena.breaks = false;
    assert_int_equal(take_step(&r).step, 2);
    finish(&r);
}

static void a_pass_takes_every_record_once_and_batches_run_on(void **state)
{
    (void)state;
    linnet_training t = plain_sgd(0.01);
    t.batch_records = 3;
    t.n_steps = 7; /* 21 records: three passes over seven */
    t.shuffle = true;
    t.seed = 11;
    run_state r, same, other;
    start(&r, &t, 7, NULL, 5);
    start(&same, &t, 7, NULL, 5);
    t.seed = 12;
    start(&other, &t, 7, NULL, 5);
    for (int i = 0; i < 7; i++) {
        (void)take_step(&r);
        (void)take_step(&same);
        (void)take_step(&other);
    }
    for (size_t pass = 0; pass < 3; pass++) {
        unsigned seen = 0;
        for (size_t i = 0; i < 7; i++)
            seen |= 1u << r.arena.seen[pass * 7 + i];
        assert_int_equal(seen, 0xFE);
    }
    assert_memory_not_equal(r.arena.seen, r.arena.seen + 7, 7 * sizeof(int32_t)); /* shuffled anew */
    assert_memory_equal(r.arena.seen, same.arena.seen, 21 * sizeof(int32_t));
    assert_memory_not_equal(r.arena.seen, other.arena.seen, 21 * sizeof(int32_t));
    finish(&r);
    finish(&same);
    finish(&other);
}

static void without_shuffle_records_come_in_file_order(void **state)
{
    (void)state;
    static const int32_t want[] = {1, 2, 3, 1, 2, 3, 1, 2};
    linnet_training t = plain_sgd(0.01);
    t.batch_records = 2;
    t.n_steps = 4;
    run_state r;
    start(&r, &t, 3, NULL, 5);
    while (!linnet_trainer_is_done(r.trainer))
        (void)take_step(&r);
    assert_memory_equal(r.arena.seen, want, sizeof(want));
    finish(&r);
}

static void each_step_and_record_drops_other_elements(void **state)
{
    (void)state;
    linnet_training t = plain_sgd(0.01);
    t.batch_records = 2;
    t.n_steps = 4;
    t.seed = 17;
    t.dropout = 0.25;
    run_state r;
    start(&r, &t, 3, NULL, 5);
    while (!linnet_trainer_is_done(r.trainer))
        (void)take_step(&r);
    for (size_t i = 0; i < 8; i++) {
        const linnet_dropout *got = &r.arena.dropouts[i];
        assert_true(got->share == 0.25 && got->seed == 17);
        assert_int_equal(got->step, i / 2 + 1);
        assert_int_equal(got->record, i % 2);
    }
    finish(&r);
}

/* ---- checkpoints ---- */

static linnet_training full_training(void)
{
    linnet_training t = linnet_training_default();
    t.schedule = LINNET_SCHEDULE_COSINE;
    t.weight_decay = 0.01;
    t.prox_mu = 0.5;
    t.n_steps = 9;
    t.batch_records = 2;
    t.seed = 4;
    t.learning_rate = 0.1;
    return t;
}

static void training_goes_on_to_the_same_bits_from_any_step(void **state)
{
    (void)state;
    linnet_training t = full_training();
    run_state whole;
    start(&whole, &t, 5, NULL, 2);
    while (!linnet_trainer_is_done(whole.trainer))
        (void)take_step(&whole);
    for (uint32_t cut = 0; cut <= 9; cut++) {
        run_state first, second;
        linnet_buffer bytes = {0};
        linnet_error err = {0};
        start(&first, &t, 5, NULL, 2);
        start(&second, &t, 5, NULL, -7); /* another adapter: restore brings the right one */
        for (uint32_t i = 0; i < cut; i++)
            (void)take_step(&first);
        must(linnet_trainer_save(first.trainer, &bytes, &err), &err);
        must(linnet_trainer_restore(second.trainer, bytes.bytes, bytes.n_bytes, &err), &err);
        assert_int_equal(linnet_trainer_steps(second.trainer), cut);
        while (!linnet_trainer_is_done(second.trainer))
            (void)take_step(&second);
        assert_memory_equal(second.adapter->data, whole.adapter->data, 5 * sizeof(float));
        linnet_buffer_release(&bytes);
        finish(&first);
        finish(&second);
    }
    finish(&whole);
}

static void expect_restore(const linnet_buffer *bytes, const linnet_training *t, size_t n_records,
                           const int32_t *first, linnet_status want, const char *words)
{
    run_state r;
    linnet_error err = {0};
    start(&r, t, n_records, first, 3);
    linnet_status got = linnet_trainer_restore(r.trainer, bytes->bytes, bytes->n_bytes, &err);
    if (got != want || (words && !strstr(err.message, words)))
        fail_msg("want %d '%s', got %d '%s'", (int)want, words ? words : "", (int)got, err.message);
    if (want != LINNET_OK)
        assert_true(r.adapter->data[0] == 3 && linnet_trainer_steps(r.trainer) == 0); /* untouched */
    finish(&r);
}

static void a_checkpoint_of_something_else_is_refused(void **state)
{
    (void)state;
    static const int32_t other[] = {1, 2, 3, 4, 6};
    linnet_training t = full_training(), rate = t, steps = t, factors = t, sgd = t, constant = t, drops = t;
    rate.learning_rate = 0.2;
    steps.n_steps = 10;
    factors.factors = LINNET_FACTOR_B;
    sgd.optimizer = LINNET_OPTIMIZER_SGD;
    drops.dropout = 0.1;
    constant.schedule = LINNET_SCHEDULE_CONSTANT;
    run_state r;
    linnet_buffer bytes = {0}, constant_bytes = {0};
    linnet_error err = {0};
    start(&r, &t, 5, NULL, 2);
    (void)take_step(&r);
    must(linnet_trainer_save(r.trainer, &bytes, &err), &err);
    finish(&r);
    expect_restore(&bytes, &t, 5, NULL, LINNET_OK, NULL);
    expect_restore(&bytes, &rate, 5, NULL, LINNET_ERR_MISMATCH, "settings");
    expect_restore(&bytes, &steps, 5, NULL, LINNET_ERR_MISMATCH, "settings");
    expect_restore(&bytes, &factors, 5, NULL, LINNET_ERR_MISMATCH, "settings");
    expect_restore(&bytes, &sgd, 5, NULL, LINNET_ERR_MISMATCH, "settings");
    expect_restore(&bytes, &drops, 5, NULL, LINNET_ERR_MISMATCH, "settings");
    expect_restore(&bytes, &t, 4, NULL, LINNET_ERR_MISMATCH, "data");
    expect_restore(&bytes, &t, 5, other, LINNET_ERR_MISMATCH, "data");
    start(&r, &constant, 5, NULL, 2);
    must(linnet_trainer_save(r.trainer, &constant_bytes, &err), &err);
    finish(&r);
    constant.n_steps = 50; /* a run with a constant rate can be made longer */
    expect_restore(&constant_bytes, &constant, 5, NULL, LINNET_OK, NULL);
    linnet_buffer_release(&bytes);
    linnet_buffer_release(&constant_bytes);
}

static void a_damaged_checkpoint_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    linnet_training t = full_training();
    run_state r;
    linnet_buffer bytes = {0};
    linnet_error err = {0};
    start(&r, &t, 5, NULL, 2);
    (void)take_step(&r);
    must(linnet_trainer_save(r.trainer, &bytes, &err), &err);
    finish(&r);
    size_t n_bytes = bytes.n_bytes;
    for (bytes.n_bytes = 0; bytes.n_bytes < n_bytes; bytes.n_bytes++)
        expect_restore(&bytes, &t, 5, NULL, LINNET_ERR_FORMAT, NULL);
    for (size_t at = 8; at < n_bytes; at++) {
        bytes.bytes[at] ^= 0x40;
        expect_restore(&bytes, &t, 5, NULL, LINNET_ERR_FORMAT, "damaged");
        bytes.bytes[at] ^= 0x40;
    }
    bytes.bytes[4] = 2;
    expect_restore(&bytes, &t, 5, NULL, LINNET_ERR_UNSUPPORTED, "version 2");
    linnet_buffer_release(&bytes);
}

static void settings_out_of_range_are_refused_by_name(void **state)
{
    (void)state;
    linnet_training rate = plain_sgd(NAN), steps = plain_sgd(1), batch = steps, beta = steps, clip = steps;
    linnet_training factors = steps, all = steps, less = steps;
    steps.n_steps = 0;
    batch.batch_records = 0;
    beta.beta2 = 1;
    clip.clip_norm = -1;
    factors.factors = (linnet_factors)0;
    all.dropout = 1;
    less.dropout = -0.1;
    const struct {
        const linnet_training *training;
        size_t n_records;
        const char *words;
    } cases[] = {{&rate, 1, "learning rate"}, {&steps, 1, "steps"}, {&batch, 1, "batch"},
                 {&beta, 1, "beta"},          {&clip, 1, "clip"},   {&factors, 1, "factors"},
                 {&all, 1, "dropout"},        {&less, 1, "dropout"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        records r;
        linnet_arena arena = {0};
        linnet_adapter *adapter = new_adapter(1);
        linnet_trainer *trainer = NULL;
        linnet_error err = {0};
        make_records(&r, cases[i].n_records, NULL);
        assert_int_equal(linnet_trainer_create(cases[i].training, &arena, &r.set, adapter, &trainer, &err),
                         LINNET_ERR_ARG);
        if (!strstr(err.message, cases[i].words) || trainer)
            fail_msg("want '%s', got '%s'", cases[i].words, err.message);
        r.set.n_items = 0;
        linnet_training good = plain_sgd(1);
        assert_int_equal(linnet_trainer_create(&good, &arena, &r.set, adapter, &trainer, &err),
                         LINNET_ERR_ARG);
        linnet_adapter_destroy(adapter);
    }
}

static void an_adapter_with_magnitudes_is_refused_before_a_step(void **state)
{
    (void)state;
    linnet_training t = plain_sgd(1);
    records r;
    linnet_arena arena = {0};
    linnet_adapter *adapter = new_adapter(1);
    linnet_trainer *trainer = NULL;
    linnet_error err = {0};
    adapter->magnitudes = calloc(2, sizeof(float));
    assert_non_null(adapter->magnitudes);
    assert_int_equal(
        linnet_trainer_create(&t, &arena, &make_records(&r, 1, NULL)->set, adapter, &trainer, &err),
        LINNET_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "merge it"));
    assert_null(trainer);
    linnet_adapter_destroy(adapter);
}

static void evaluation_sums_over_all_records(void **state)
{
    (void)state;
    records r;
    linnet_arena arena = {0};
    linnet_error err = {0};
    double loss = 0;
    size_t n = 0;
    make_records(&r, 4, NULL);
    must(linnet_evaluate(&arena, NULL, &r.set, &loss, &n, &err), &err);
    assert_true(loss == 1 + 2 + 3 + 4);
    assert_int_equal(n, 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sgd_goes_against_the_mean_gradient),
        cmocka_unit_test(factors_that_are_not_active_stay),
        cmocka_unit_test(adamw_follows_its_paper),
        cmocka_unit_test(clipping_bounds_the_norm_over_all_factors),
        cmocka_unit_test(rates_follow_warm_up_and_schedule),
        cmocka_unit_test(prox_pulls_back_to_the_start),
        cmocka_unit_test(a_loss_that_is_not_finite_keeps_the_adapter),
        cmocka_unit_test(a_pass_takes_every_record_once_and_batches_run_on),
        cmocka_unit_test(without_shuffle_records_come_in_file_order),
        cmocka_unit_test(each_step_and_record_drops_other_elements),
        cmocka_unit_test(training_goes_on_to_the_same_bits_from_any_step),
        cmocka_unit_test(a_checkpoint_of_something_else_is_refused),
        cmocka_unit_test(a_damaged_checkpoint_is_refused_and_changes_nothing),
        cmocka_unit_test(settings_out_of_range_are_refused_by_name),
        cmocka_unit_test(an_adapter_with_magnitudes_is_refused_before_a_step),
        cmocka_unit_test(evaluation_sums_over_all_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
