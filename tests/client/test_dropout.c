/* SPDX-License-Identifier: Apache-2.0 */
/* LoRA dropout: which elements are dropped, the products of what is left against loops in double, and what it
 * may not change. That peft agrees, and differences of the loss, is in test_architectures. */
#include "client/engine/dropout.h"

#include "client/tiny_model.h"

enum { N_TOKENS = 150, N_COLUMNS = 301, RANK = 5, N_POOLS = 3 };

static linnet_error err;

static const linnet_dropout usual = {.share = 0.3, .seed = 11, .step = 4, .record = 1};

static float *floats(size_t n, uint64_t stream)
{
    linnet_rng rng;
    float *values = malloc(n * sizeof(float));
    assert_non_null(values);
    linnet_rng_init(&rng, 606, stream);
    for (size_t i = 0; i < n; i++)
        values[i] = (float)linnet_rng_normal(&rng);
    return values;
}

static float *factors_of(const linnet_dropout *dropout, uint64_t matrix)
{
    linnet_dropout_mask dropout_mask = linnet_dropout_mask_of(dropout, matrix);
    float *factors = malloc(sizeof(float) * N_TOKENS * N_COLUMNS);
    assert_non_null(factors);
    for (size_t t = 0; t < N_TOKENS; t++)
        linnet_dropout_factors(&dropout_mask, t, 0, N_COLUMNS, factors + t * N_COLUMNS);
    return factors;
}

/* ---- which elements ---- */

static void as_many_are_dropped_as_asked_and_the_mean_stays(void **state)
{
    (void)state;
    static const double shares[] = {1e-9, 0.05, 0.1, 0.5, 0.9, 0.999};
    for (size_t i = 0; i < ARRAY_LEN(shares); i++) {
        linnet_dropout dropout = usual;
        dropout.share = shares[i];
        float *factors = factors_of(&dropout, 0);
        double n = N_TOKENS * N_COLUMNS, n_dropped = 0, sum = 0, p = fmax(shares[i], 1.0 / 65536);
        for (size_t j = 0; j < N_TOKENS * N_COLUMNS; j++) {
            assert_true(factors[j] == 0 || fabs(factors[j] * (1 - p) - 1) < 1e-2);
            n_dropped += factors[j] == 0;
            sum += factors[j];
        }
        if (fabs(n_dropped - n * p) > 5 * sqrt(n * p * (1 - p)))
            fail_msg("%.0f of %.0f dropped, share %g", n_dropped, n, p);
        if (fabs(sum / n - 1) > 5 * sqrt(p / (1 - p) / n))
            fail_msg("the factors' mean is %g, share %g", sum / n, p);
        free(factors);
    }
}

/* Products of deviations from the mean: near 0 where two sets of factors are independent. */
static double correlation(const float *a, const float *b, size_t n)
{
    double sum = 0, deviation2 = usual.share / (1 - usual.share);
    for (size_t i = 0; i < n; i++)
        sum += (a[i] - 1.0) * (b[i] - 1.0);
    return sum / (double)n / deviation2;
}

static void another_number_means_other_elements(void **state)
{
    (void)state;
    linnet_dropout others[] = {usual, usual, usual, usual, usual};
    size_t n = (size_t)N_TOKENS * N_COLUMNS;
    others[1].seed++;
    others[2].step++;
    others[3].record++;
    others[4].step += UINT64_C(1) << 40;
    float *first = factors_of(&usual, 2);
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        float *other = factors_of(&others[i], i == 0 ? 3 : 2); /* of a matrix beside it */
        if (!(fabs(correlation(first, other, n)) < 5 / sqrt((double)n)))
            fail_msg("case %zu: correlation %g", i, correlation(first, other, n));
        free(other);
    }
    /* tokens and columns beside each other */
    for (size_t lag = 1; lag <= 2 * N_COLUMNS; lag = lag < 8           ? lag + 1
                                                     : lag < N_COLUMNS ? N_COLUMNS
                                                                       : 2 * lag)
        assert_true(fabs(correlation(first, first + lag, n - lag)) < 5 / sqrt((double)(n - lag)));
    free(first);
}

static void pieces_of_a_token_are_those_of_the_whole(void **state)
{
    (void)state;
    linnet_dropout_mask dropout_mask = linnet_dropout_mask_of(&usual, 6);
    float whole[N_COLUMNS], piece[N_COLUMNS];
    linnet_dropout_factors(&dropout_mask, 9, 0, N_COLUMNS, whole);
    for (size_t first = 0; first < N_COLUMNS; first += 4)
        for (size_t n = 0; n <= N_COLUMNS - first; n += 13) {
            linnet_dropout_factors(&dropout_mask, 9, first, n, piece);
            assert_memory_equal(piece, whole + first, n * sizeof(float));
        }
}

static void a_share_of_zero_drops_nothing(void **state)
{
    (void)state;
    const linnet_dropout off = {.seed = 3}, wrong = {.share = NAN};
    const linnet_dropout *const cases[] = {NULL, &off, &wrong};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        linnet_dropout_mask dropout_mask = linnet_dropout_mask_of(cases[i], 1);
        float factors[8];
        assert_int_equal(dropout_mask.threshold, 0);
        linnet_dropout_factors(&dropout_mask, 0, 0, 8, factors);
        for (size_t j = 0; j < 8; j++)
            assert_true(factors[j] == 1);
    }
}

/* ---- products ---- */

typedef struct pools {
    linnet_thread_pool *pools[N_POOLS];
    linnet_product products[N_POOLS];
} pools;

static void open_pools(pools *p, const linnet_kernels *kernels)
{
    size_t stride = linnet_product_scratch(N_COLUMNS);
    for (unsigned i = 0; i < N_POOLS; i++) {
        assert_ok(linnet_thread_pool_create(i + 1, &p->pools[i], &err), &err);
        p->products[i] =
            (linnet_product){p->pools[i], kernels, malloc((i + 1) * stride * sizeof(float)), stride};
        assert_non_null(p->products[i].scratch);
    }
}

static void close_pools(pools *p)
{
    for (unsigned i = 0; i < N_POOLS; i++) {
        linnet_thread_pool_destroy(p->pools[i]);
        free(p->products[i].scratch);
    }
}

static void expect_near(const char *what, const float *got, const double *want, size_t n)
{
    double size = 0;
    for (size_t i = 0; i < n; i++)
        size = fmax(size, fabs(want[i]));
    for (size_t i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= 1e-5 * size))
            fail_msg("%s [%zu] is %.9g, not %.9g", what, i, got[i], want[i]);
}

/* One of the three products, for n tokens; out is what it adds to. */
static void run_product(const linnet_product *product, int which, size_t n, size_t rank, const float *x,
                        const float *a, const float *u, float *out)
{
    linnet_dropout_mask dropout_mask = linnet_dropout_mask_of(&usual, 5);
    if (which == 0)
        linnet_dropout_forward(product, &dropout_mask, x, n, N_COLUMNS, a, rank, out);
    else if (which == 1)
        linnet_dropout_backward_a(product, &dropout_mask, x, n, N_COLUMNS, u, rank, out);
    else
        linnet_dropout_backward_x(product, &dropout_mask, u, n, N_COLUMNS, a, rank, out);
}

/* The same in double, by the definition. */
static void add_naive(int which, size_t n, size_t rank, const float *factors, const float *x, const float *a,
                      const float *u, double *out)
{
    for (size_t t = 0; t < n; t++)
        for (size_t r = 0; r < rank; r++)
            for (size_t c = 0; c < N_COLUMNS; c++) {
                double factor = factors[t * N_COLUMNS + c];
                if (which == 0)
                    out[t * rank + r] += factor * x[t * N_COLUMNS + c] * a[r * N_COLUMNS + c];
                else if (which == 1)
                    out[r * N_COLUMNS + c] += u[t * rank + r] * factor * x[t * N_COLUMNS + c];
                else
                    out[t * N_COLUMNS + c] += factor * u[t * rank + r] * a[r * N_COLUMNS + c];
            }
}

static void check_products(const pools *p, size_t n, size_t rank)
{
    static const char *const names[] = {"h", "d_a", "d_x"};
    size_t sizes[] = {n * rank, rank * N_COLUMNS, n * N_COLUMNS};
    float *x = floats(n * N_COLUMNS, 1), *a = floats(rank * N_COLUMNS, 2), *u = floats(n * rank, 3);
    float *factors = factors_of(&usual, 5);
    for (int which = 0; which < 3; which++) {
        float *before = floats(sizes[which], 4), *first = NULL;
        double *want = calloc(sizes[which], sizeof(*want));
        assert_non_null(want);
        for (size_t i = 0; which > 0 && i < sizes[which]; i++)
            want[i] = before[i];
        add_naive(which, n, rank, factors, x, a, u, want);
        for (size_t i = 0; i < N_POOLS; i++) {
            float *got = malloc(sizes[which] * sizeof(float));
            assert_non_null(got);
            memcpy(got, before, sizes[which] * sizeof(float));
            run_product(&p->products[i], which, n, rank, x, a, u, got);
            expect_near(names[which], got, want, sizes[which]);
            if (!first)
                first = got;
            else
                assert_memory_equal(got, first, sizes[which] * sizeof(float)); /* any number of threads */
            if (got != first)
                free(got);
        }
        free(first);
        free(want);
        free(before);
    }
    free(factors);
    free(u);
    free(a);
    free(x);
}

static void products_are_those_of_their_definition_with_any_kernels_and_threads(void **state)
{
    (void)state;
    static const size_t tokens[] = {1, 2, 65, N_TOKENS};
    const linnet_kernels *kernels[8];
    for (size_t k = 0, n_kernels = linnet_kernels_available(kernels); k < n_kernels; k++) {
        pools p;
        open_pools(&p, kernels[k]);
        for (size_t i = 0; i < ARRAY_LEN(tokens); i++)
            check_products(&p, tokens[i], RANK);
        check_products(&p, N_TOKENS, 64); /* enough work for more than one thread */
        close_pools(&p);
    }
}

static void the_mean_over_many_records_is_what_nothing_dropped_gives(void **state)
{
    (void)state;
    enum { RECORDS = 3000, N = 3 };
    float *x = floats(N * N_COLUMNS, 5), *a = floats(N_COLUMNS, 6), h[N];
    double sum[N] = {0};
    pools p;
    open_pools(&p, linnet_kernels_best());
    for (uint64_t record = 0; record < RECORDS; record++) {
        linnet_dropout dropout = usual;
        dropout.record = record;
        linnet_dropout_mask dropout_mask = linnet_dropout_mask_of(&dropout, 0);
        linnet_dropout_forward(&p.products[0], &dropout_mask, x, N, N_COLUMNS, a, 1, h);
        for (size_t t = 0; t < N; t++)
            sum[t] += h[t];
    }
    for (size_t t = 0; t < N; t++) {
        double want = 0, squares = 0;
        for (size_t c = 0; c < N_COLUMNS; c++) {
            double term = (double)x[t * N_COLUMNS + c] * a[c];
            want += term;
            squares += term * term;
        }
        double deviation = sqrt(squares * usual.share / (1 - usual.share) / RECORDS);
        assert_true(deviation < 0.05 * sqrt(squares));
        if (!(fabs(sum[t] / RECORDS - want) < 5 * deviation))
            fail_msg("token %zu: mean %g of many, %g without dropout", t, sum[t] / RECORDS, want);
    }
    close_pools(&p);
    free(a);
    free(x);
}

/* ---- whole passes ---- */

enum { N_IDS = 120 };

static const tiny_spec spec = {.n_layers = 3,
                               .width = 96,
                               .ffn_width = 200,
                               .n_heads = 4,
                               .n_kv_heads = 2,
                               .vocabulary = 300,
                               .context = N_IDS,
                               .tied = true};

typedef struct fixture {
    tiny_model *tiny;
    linnet_model *model;
    linnet_adapter *adapter;
    linnet_arena *arena;
    int32_t ids[N_IDS];
    uint8_t counted[N_IDS];
    linnet_sequence sequence;
} fixture;

static void set_up(fixture *f, linnet_thread_pool *pool)
{
    *f = (fixture){.tiny = tiny_create(spec)};
    f->model = tiny_open(f->tiny);
    f->adapter = tiny_adapter(f->model, RANK, LINNET_TARGETS_ALL);
    assert_ok(linnet_arena_create(f->model, pool, 0, true, &f->arena, &err), &err);
    tiny_ids(f->tiny, 1, f->ids, N_IDS);
    memset(f->counted, 1, N_IDS);
    f->sequence = (linnet_sequence){.ids = f->ids, .counted = f->counted, .n_ids = N_IDS};
}

static void tear_down(fixture *f)
{
    linnet_arena_destroy(f->arena);
    linnet_adapter_destroy(f->adapter);
    linnet_model_close(f->model);
    tiny_destroy(f->tiny);
}

/* The caller frees. */
static float *gradient_of(const fixture *f, linnet_factors factors, const linnet_dropout *dropout,
                          double *ret_loss)
{
    size_t n_counted;
    float *gradient = calloc(f->adapter->layout->n_parameters, sizeof(float));
    assert_non_null(gradient);
    assert_ok(linnet_arena_gradient(f->arena, f->adapter, factors, dropout, &f->sequence, 1, gradient,
                                    ret_loss, &n_counted, &err),
              &err);
    return gradient;
}

static double score_of(const fixture *f)
{
    double loss = 0;
    size_t n_counted;
    assert_ok(linnet_arena_score(f->arena, f->adapter, &f->sequence, &loss, &n_counted, NULL, &err), &err);
    return loss;
}

static void a_share_of_zero_gives_the_bits_of_no_dropout_and_scoring_has_none(void **state)
{
    (void)state;
    const linnet_dropout off = {.seed = 9, .step = 3};
    fixture f;
    double plain_loss, off_loss, dropped_loss, score;
    set_up(&f, NULL);
    size_t n_bytes = f.adapter->layout->n_parameters * sizeof(float);
    float *plain = gradient_of(&f, LINNET_FACTORS_BOTH, NULL, &plain_loss);
    float *dropped = gradient_of(&f, LINNET_FACTORS_BOTH, &usual, &dropped_loss);
    score = score_of(&f); /* right after it */
    float *again = gradient_of(&f, LINNET_FACTORS_BOTH, &off, &off_loss);
    assert_memory_equal(plain, again, n_bytes);
    assert_memory_not_equal(plain, dropped, n_bytes);
    assert_true(off_loss == plain_loss && score == plain_loss);
    assert_true(fabs(dropped_loss - plain_loss) > 1e-6 * plain_loss);
    free(plain);
    free(dropped);
    free(again);
    tear_down(&f);
}

static void threads_do_not_change_a_bit(void **state)
{
    (void)state;
    float *want = NULL;
    double loss = 0, want_loss = 0;
    for (unsigned n_threads = 1; n_threads <= 3; n_threads++) {
        linnet_thread_pool *pool = NULL;
        fixture f;
        assert_ok(linnet_thread_pool_create(n_threads, &pool, &err), &err);
        set_up(&f, pool);
        float *got = gradient_of(&f, LINNET_FACTORS_BOTH, &usual, &loss);
        if (!want) {
            want = got;
            want_loss = loss;
        }
        assert_true(loss == want_loss);
        assert_memory_equal(got, want, f.adapter->layout->n_parameters * sizeof(float));
        if (got != want)
            free(got);
        tear_down(&f);
        linnet_thread_pool_destroy(pool);
    }
    free(want);
}

/* Losses of passes that drop little stand around the one that drops nothing. */
static void the_mean_loss_of_many_passes_is_near_the_loss_without_dropout(void **state)
{
    (void)state;
    enum { PASSES = 60 };
    fixture f;
    double sum = 0, sum2 = 0, loss;
    set_up(&f, NULL);
    for (size_t i = 0; i < f.adapter->layout->n_parameters; i++)
        f.adapter->data[i] *= 0.3f; /* where the loss is almost linear in what the side paths add */
    for (uint64_t step = 0; step < PASSES; step++) {
        linnet_dropout dropout = {.share = 0.1, .seed = 1, .step = step};
        free(gradient_of(&f, LINNET_FACTOR_B, &dropout, &loss));
        sum += loss;
        sum2 += loss * loss;
    }
    double mean = sum / PASSES, deviation = sqrt((sum2 / PASSES - mean * mean) / PASSES);
    double want = score_of(&f);
    assert_true(deviation > 0 && deviation < 1e-3 * want);
    if (!(fabs(mean - want) < 5 * deviation + 1e-4 * want))
        fail_msg("mean loss %.9g +- %.3g, without dropout %.9g", mean, deviation, want);
    tear_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_many_are_dropped_as_asked_and_the_mean_stays),
        cmocka_unit_test(another_number_means_other_elements),
        cmocka_unit_test(pieces_of_a_token_are_those_of_the_whole),
        cmocka_unit_test(a_share_of_zero_drops_nothing),
        cmocka_unit_test(products_are_those_of_their_definition_with_any_kernels_and_threads),
        cmocka_unit_test(the_mean_over_many_records_is_what_nothing_dropped_gives),
        cmocka_unit_test(a_share_of_zero_gives_the_bits_of_no_dropout_and_scoring_has_none),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(the_mean_loss_of_many_passes_is_near_the_loss_without_dropout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
